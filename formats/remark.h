/* remark.h - warnings on their way from the module that sees something to the person and the program that
 * read about it.
 *
 * A warning travels as one text with a head: "[code] sentence", or "[code|tensor] sentence" when it is about
 * one tensor of many. The code is a promise to scripts (lower case, words joined by hyphens; tools/README.md
 * lists them all); the sentence is for people and may change. Whoever formats a warning writes the head into
 * its format, so every list of texts carries it without knowing.
 *
 *     add_warning("[config-tie] %s: the head differs from the embedding; it is kept", path);
 *     remark_list_add(&list, NULL, text, true);     ...later, for each text of the model, the report, ...
 *     remark_list_json(&w, &list);                  [{"code", "message", "tensor", "count"}, ...] */
#ifndef KERF_REMARK_H
#define KERF_REMARK_H

#include "formats/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct remark {
    char *code;    /* owned; "other" when a text has no head */
    char *tensor;  /* owned; the first of a group, NULL when it is about no tensor */
    char *message; /* owned; of the first of a group; without control characters (printable.h) */
    uint64_t count;
};

/* Zeroed: empty. */
struct remark_list {
    struct remark *items; /* owned */
    size_t n;
    uint64_t n_lost; /* for which memory did not suffice: they count, but have no text */
};

/* The sentence alone: what follows the head. Borrowed from `text`. */
const char *remark_sentence(const char *text);

/* Does the head of `text` name this code? */
bool remark_has_code(const char *text, const char *code);

/* Take a warning in. `file` (may be NULL) is put in front of its sentence, unless that begins with it. With
 * `group`, texts of one code, each about a tensor of one file, and texts that are alike become one item with
 * a count. Returns the item, or NULL when memory is refused; it may move with the next call. */
struct remark *remark_list_add(struct remark_list *l, const char *file, const char *text, bool group);

/* What is shown behind an item's message: how many more there are of it, or nothing. Returns `out`. */
enum { REMARK_COUNT_BYTES = 80 };
const char *remark_count(const struct remark *r, char out[REMARK_COUNT_BYTES]);

/* The whole list as one JSON array. */
void remark_list_json(struct json_writer *w, const struct remark_list *l);

void remark_list_release(struct remark_list *l);

#endif
