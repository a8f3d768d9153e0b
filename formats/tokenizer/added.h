/* added.h - finds added tokens (control and user-defined) in text: leftmost first, among those the longest,
 * with the flags of HuggingFace's AddedToken. Internal. */
#ifndef KERF_ADDED_H
#define KERF_ADDED_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct added_node {
    uint32_t child, sibling; /* 0: none */
    int32_t id;              /* -1: no token ends here */
    uint8_t byte, flags;
};

enum { ADDED_CONTROL = 1, ADDED_LSTRIP = 2, ADDED_RSTRIP = 4, ADDED_SINGLE_WORD = 8 };

/* A trie; a zeroed struct is an empty set. Patterns are at most ADDED_MAX bytes, which bounds the work per
 * byte of text. */
enum { ADDED_MAX = 1024 };
struct added_set {
    struct added_node *nodes; /* nodes[0] is the root */
    size_t n, cap;
    uint32_t root[256]; /* children of the root */
};

int added_set_put(struct added_set *s, const char *text, size_t len, int32_t id, unsigned flags,
                  struct err *e);
void added_set_release(struct added_set *s);

struct added_match {
    size_t start, stop; /* of the text, with the white space that belongs to the token */
    size_t resume;      /* where to look for the next one */
    int32_t id;
};

/* The first match at or after `from` of the valid UTF-8 text. `floor`: end of the match before it, which
 * lstrip does not cross. `control` false: control tokens are as good as absent. */
bool added_find(const struct added_set *s, const char *text, size_t len, size_t from, size_t floor,
                bool control, struct added_match *out);

#endif
