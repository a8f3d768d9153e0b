/* model_card.c - a tree of texts from the front matter of a README.md, see model_card.h.
 *
 * libyaml reads the grammar; here its events become nodes, and what a model card has no use for (anchors,
 * aliases, tags) is refused: an alias can stand for a text of any size. */
#include "model_card.h"

#include "libquant/base/arena.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define MAX_DEPTH 32
#define MAX_BYTES (1u << 20) /* of front matter; real ones have a few hundred */

struct model_card {
    struct arena arena;
    struct card_node root;
};

struct reader {
    struct arena *arena;
    yaml_parser_t yaml;
    yaml_event_t event; /* the one at hand; owned */
    struct err *e;
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory reading a model card");
}

/* `line` counts from 0 behind the first "---". */
static int fail_at(struct reader *r, size_t line, const char *what)
{
    return err_set(r->e, ERR_FORMAT, "front matter, line %zu: %s", line + 2, what);
}

static int fail(struct reader *r, const char *what)
{
    return fail_at(r, r->event.start_mark.line, what);
}

/* The next event takes the place of the one at hand. */
static int advance(struct reader *r)
{
    yaml_event_delete(&r->event);
    if (yaml_parser_parse(&r->yaml, &r->event))
        return 0;
    if (r->yaml.error == YAML_MEMORY_ERROR)
        return no_memory(r->e);
    if (r->yaml.error == YAML_READER_ERROR)
        return err_set(r->e, ERR_FORMAT, "front matter is not UTF-8 text: %s", r->yaml.problem);
    return fail_at(r, r->yaml.problem_mark.line, r->yaml.problem);
}

static bool is_null(const char *s)
{
    static const char *const names[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], s) == 0)
            return true;
    return false;
}

static int take_text(struct reader *r, const char **out)
{
    const char *s = (const char *)r->event.data.scalar.value;
    size_t n = r->event.data.scalar.length;
    if (memchr(s, 0, n))
        return fail(r, "a NUL character in a text");
    *out = arena_strndup(r->arena, s, n);
    return *out ? 0 : no_memory(r->e);
}

/* Refuses what makes more of a node than its own text. */
static int refuse_extras(struct reader *r)
{
    const yaml_event_t *v = &r->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (v->type == YAML_SCALAR_EVENT)
        anchor = v->data.scalar.anchor, tag = v->data.scalar.tag;
    else if (v->type == YAML_SEQUENCE_START_EVENT)
        anchor = v->data.sequence_start.anchor, tag = v->data.sequence_start.tag;
    else if (v->type == YAML_MAPPING_START_EVENT)
        anchor = v->data.mapping_start.anchor, tag = v->data.mapping_start.tag;
    if (anchor || tag || v->type == YAML_ALIAS_EVENT)
        return fail(r, "anchors, aliases and tags are not understood");
    return 0;
}

static int read_node(struct reader *r, struct card_node *node, int depth);

/* The children up to the event that closes the list or map at hand. */
static int read_children(struct reader *r, struct card_node *node, int depth)
{
    const yaml_event_type_t end = node->kind == CARD_MAP ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    const struct card_node **link = &node->first;
    if (depth > MAX_DEPTH)
        return fail(r, "nested too deeply");
    int rc = advance(r);
    while (rc == 0 && r->event.type != end) {
        struct card_node *child = arena_alloc(r->arena, sizeof *child);
        if (!child)
            return no_memory(r->e);
        if (node->kind == CARD_MAP) {
            rc = refuse_extras(r);
            if (rc == 0 && r->event.type != YAML_SCALAR_EVENT)
                rc = fail(r, "a key that is not a text");
            if (rc == 0)
                rc = take_text(r, &child->key);
            if (rc == 0)
                rc = advance(r);
        }
        if (rc == 0)
            rc = read_node(r, child, depth + 1);
        *link = child;
        link = &child->next;
        if (rc == 0)
            rc = advance(r);
    }
    return rc;
}

/* The node that begins at hand; its last event is left at hand. */
static int read_node(struct reader *r, struct card_node *node, int depth)
{
    int rc = refuse_extras(r);
    if (rc != 0)
        return rc;
    if (r->event.type == YAML_SCALAR_EVENT) {
        bool is_plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        node->kind = is_plain && is_null((const char *)r->event.data.scalar.value) ? CARD_NULL : CARD_TEXT;
        return node->kind == CARD_TEXT ? take_text(r, &node->text) : 0;
    }
    node->kind = r->event.type == YAML_MAPPING_START_EVENT ? CARD_MAP : CARD_LIST;
    return read_children(r, node, depth);
}

/* One document, a map, or nothing at all. */
static int read_stream(struct reader *r, struct card_node *root)
{
    int rc = advance(r);
    if (rc == 0)
        rc = advance(r);
    if (rc != 0 || r->event.type == YAML_STREAM_END_EVENT)
        return rc;
    rc = advance(r);
    if (rc == 0 && r->event.type != YAML_MAPPING_START_EVENT)
        rc = fail(r, "'key: value' expected");
    if (rc == 0)
        rc = read_node(r, root, 0);
    for (int i = 0; rc == 0 && i < 2; i++)
        rc = advance(r);
    return rc == 0 && r->event.type != YAML_STREAM_END_EVENT ? fail(r, "a second document") : rc;
}

/* --- the front matter ---------------------------------------------------------------------------------- */

static size_t line_end(const char *s, size_t n)
{
    const char *nl = memchr(s, '\n', n);
    return nl ? (size_t)(nl - s) : n;
}

static size_t without_cr(const char *s, size_t n)
{
    return n && s[n - 1] == '\r' ? n - 1 : n;
}

/* Bytes between the first line, which must be "---", and the next such line. */
static const char *front_matter(const char *text, size_t len, size_t *n)
{
    size_t first = line_end(text, len);
    if (without_cr(text, first) != 3 || memcmp(text, "---", 3) != 0)
        return NULL;
    size_t start = first + (first < len), at = start;
    while (at < len) {
        size_t end = line_end(text + at, len - at);
        if (without_cr(text + at, end) == 3 && memcmp(text + at, "---", 3) == 0)
            break;
        at += end + 1;
    }
    *n = (at < len ? at : len) - start;
    return text + start;
}

/* A copy with tabs as two spaces, as llama.cpp's converter reads them; malloc'ed. */
static char *without_tabs(const char *s, size_t *n)
{
    size_t tabs = 0, k = 0;
    for (size_t i = 0; i < *n; i++)
        tabs += s[i] == '\t';
    char *copy = malloc(*n + tabs + 1);
    if (!copy)
        return NULL;
    for (size_t i = 0; i < *n; i++) {
        if (s[i] == '\t')
            copy[k++] = ' ';
        copy[k++] = s[i] == '\t' ? ' ' : s[i];
    }
    *n = k;
    return copy;
}

static int parse(struct model_card *card, const char *text, size_t len, struct err *e)
{
    struct reader r = {.arena = &card->arena, .e = e};
    size_t n;
    const char *front = front_matter(text, len, &n);
    card->root.kind = CARD_MAP;
    if (!front)
        return 0;
    if (n > MAX_BYTES)
        return err_set(e, ERR_FORMAT, "front matter of more than %u bytes", MAX_BYTES);
    char *copy = without_tabs(front, &n);
    if (!copy || !yaml_parser_initialize(&r.yaml)) {
        free(copy);
        return no_memory(e);
    }
    yaml_parser_set_encoding(&r.yaml, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.yaml, (const unsigned char *)copy, n);
    int rc = read_stream(&r, &card->root);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.yaml);
    free(copy);
    return rc;
}

int model_card_parse(struct model_card **out, const char *text, size_t len, struct err *e)
{
    struct model_card *card = calloc(1, sizeof *card);
    if (!card)
        return err_set(e, ERR_NOMEM, "out of memory reading a model card");
    int rc = parse(card, text, len, e);
    if (rc != 0) {
        model_card_free(card);
        return rc;
    }
    *out = card;
    return 0;
}

void model_card_free(struct model_card *c)
{
    if (!c)
        return;
    arena_release(&c->arena);
    free(c);
}

const struct card_node *model_card_root(const struct model_card *c)
{
    return &c->root;
}

const struct card_node *card_get(const struct card_node *map, const char *key)
{
    const struct card_node *found = NULL;
    if (map && map->kind == CARD_MAP)
        for (const struct card_node *c = map->first; c; c = c->next)
            if (strcmp(c->key, key) == 0)
                found = c;
    return found;
}
