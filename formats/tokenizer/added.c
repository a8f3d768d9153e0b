/* added.c - see added.h. Behaviour: AddedVocabulary of the HuggingFace tokenizers. */
#include "added.h"

#include "char_class.h"
#include "codepoint.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static int new_node(struct added_set *s, uint8_t byte, uint32_t *out)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 256;
        struct added_node *grown = cap > UINT32_MAX ? NULL : realloc(s->nodes, cap * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        s->nodes = grown;
        s->cap = cap;
    }
    s->nodes[s->n] = (struct added_node){.id = -1, .byte = byte};
    *out = (uint32_t)s->n++;
    return 0;
}

static uint32_t child_of(const struct added_set *s, uint32_t node, uint8_t byte)
{
    if (node == 0)
        return s->root[byte];
    uint32_t c = s->nodes[node].child;
    while (c && s->nodes[c].byte != byte)
        c = s->nodes[c].sibling;
    return c;
}

int added_set_put(struct added_set *s, const char *text, size_t len, int32_t id, unsigned flags,
                  struct err *e)
{
    uint32_t node = 0, next;
    if (len > ADDED_MAX)
        return err_set(e, ERR_UNSUPPORTED, "added token %d has %zu bytes; at most %d are supported", id, len,
                       ADDED_MAX);
    if (s->n == 0 && new_node(s, 0, &next) != 0)
        return err_set(e, ERR_NOMEM, "out of memory for added tokens");
    for (size_t i = 0; i < len; i++, node = next) {
        uint8_t byte = (uint8_t)text[i];
        next = child_of(s, node, byte);
        if (next)
            continue;
        if (new_node(s, byte, &next) != 0)
            return err_set(e, ERR_NOMEM, "out of memory for added tokens");
        if (node == 0) {
            s->root[byte] = next;
        } else {
            s->nodes[next].sibling = s->nodes[node].child;
            s->nodes[node].child = next;
        }
    }
    if (len > 0 && s->nodes[node].id < 0) {
        s->nodes[node].id = id;
        s->nodes[node].flags = (uint8_t)flags;
    }
    return 0;
}

void added_set_release(struct added_set *s)
{
    free(s->nodes);
    memset(s, 0, sizeof *s);
}

/* \w: letters, marks, decimal digits, letter numbers, connectors. */
static bool is_word(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC;
}

/* Start of the code point that ends before `i` > 0. */
static size_t before(const uint8_t *p, size_t i)
{
    do
        i--;
    while (i > 0 && (p[i] & 0xC0) == 0x80);
    return i;
}

static bool alone(const uint8_t *p, size_t len, size_t start, size_t stop)
{
    uint32_t cp;
    if (start > 0) {
        utf8_decode(p + before(p, start), &cp);
        if (is_word(cp))
            return false;
    }
    if (stop == len)
        return true;
    utf8_decode(p + stop, &cp);
    return !is_word(cp);
}

static void strip(struct added_match *m, const uint8_t *p, size_t len, size_t floor, unsigned flags)
{
    uint32_t cp;
    while ((flags & ADDED_LSTRIP) && m->start > floor) {
        size_t i = before(p, m->start);
        utf8_decode(p + i, &cp);
        if (char_class(cp) != CHAR_SPACE)
            break;
        m->start = i;
    }
    while ((flags & ADDED_RSTRIP) && m->stop < len) {
        unsigned n = utf8_decode(p + m->stop, &cp);
        if (char_class(cp) != CHAR_SPACE)
            break;
        m->stop += n;
    }
}

bool added_find(const struct added_set *s, const char *text, size_t len, size_t from, size_t floor,
                bool control, struct added_match *out)
{
    const uint8_t *p = (const uint8_t *)text;
    if (s->n == 0)
        return false;
    for (size_t i = from; i < len; i++) {
        uint32_t node = s->root[p[i]], best = 0;
        size_t end = i + 1, best_end = 0;
        if (!node)
            continue;
        while (node) {
            if (s->nodes[node].id >= 0 && (control || !(s->nodes[node].flags & ADDED_CONTROL))) {
                best = node;
                best_end = end;
            }
            node = end < len ? child_of(s, node, p[end]) : 0;
            end++;
        }
        if (!best)
            continue;
        unsigned flags = s->nodes[best].flags;
        if ((flags & ADDED_SINGLE_WORD) && !alone(p, len, i, best_end)) {
            i = best_end - 1; /* the match is given up, text and all, as HuggingFace does */
            continue;
        }
        *out =
            (struct added_match){.start = i, .stop = best_end, .resume = best_end, .id = s->nodes[best].id};
        strip(out, p, len, floor, flags);
        return true;
    }
    return false;
}
