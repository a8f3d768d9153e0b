/* model_card.c - a reader for the part of YAML that model cards are written in, see model_card.h.
 *
 * The text is cut into lines once. A block node is read by looking at the first line's indentation; a list
 * item `- x` is read by blanking its dash and reading the same line again as a node of deeper indentation.
 * Scalars that continue on later lines are joined with spaces, as YAML does. */
#include "model_card.h"

#include "libquant/base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define MAX_DEPTH 32
#define MAX_BYTES (1u << 20) /* of front matter; real ones have a few hundred */

struct line {
    const char *text; /* behind the indentation */
    size_t len;       /* without trailing white space; 0 for blank and comment lines */
    size_t indent;
    size_t raw_len; /* before comments were recognised: block scalars keep them */
};

struct model_card {
    struct arena arena;
    struct card_node root;
};

struct reader {
    struct arena *arena;
    struct line *lines;
    size_t n, at;
    struct err *e;
};

static int fail(struct reader *r, const char *what)
{
    return err_set(r->e, ERR_FORMAT, "front matter, line %zu: %s", r->at + 2, what);
}

static int no_memory(struct reader *r)
{
    return err_set(r->e, ERR_NOMEM, "out of memory reading a model card");
}

static struct card_node *new_node(struct reader *r, enum card_kind kind)
{
    struct card_node *node = arena_alloc(r->arena, sizeof *node);
    if (node)
        node->kind = kind;
    return node;
}

static struct line *peek(struct reader *r)
{
    while (r->at < r->n && r->lines[r->at].len == 0)
        r->at++;
    return r->at < r->n ? &r->lines[r->at] : NULL;
}

static bool is_dash(const struct line *l)
{
    return l->text[0] == '-' && (l->len == 1 || l->text[1] == ' ');
}

/* Length of a plain text without a comment (" #...") and trailing blanks. */
static size_t plain_len(const char *s, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (s[i] == '#' && s[i - 1] == ' ') {
            n = i;
            break;
        }
    }
    while (n && s[n - 1] == ' ')
        n--;
    return n;
}

/* --- scalars ------------------------------------------------------------------------------------------- */

static int set_text(struct reader *r, struct card_node *node, const char *s, size_t n)
{
    node->kind = CARD_TEXT;
    node->text = arena_strndup(r->arena, s, n);
    return node->text ? 0 : no_memory(r);
}

static bool is_null(const char *s, size_t n)
{
    static const char *const names[] = {"~", "null", "Null", "NULL"};
    for (size_t i = 0; i < 4; i++)
        if (strlen(names[i]) == n && memcmp(names[i], s, n) == 0)
            return true;
    return n == 0;
}

static int set_plain(struct reader *r, struct card_node *node, const char *s, size_t n)
{
    n = plain_len(s, n);
    if (is_null(s, n)) {
        node->kind = CARD_NULL;
        return 0;
    }
    if (strchr("&*!%@`|>", s[0]))
        return fail(r, "anchors, aliases, tags and reserved characters are not understood");
    return set_text(r, node, s, n);
}

/* Hexadecimal escape of `digits` digits at s; appended to `out` as UTF-8. */
static bool hex_escape(const char *s, const char *end, int digits, char *out, size_t *n)
{
    uint32_t code = 0;
    if (end - s < digits)
        return false;
    for (int i = 0; i < digits; i++) {
        const char *hex = "0123456789abcdef";
        const char *at = s[i] ? strchr(hex, s[i] | 0x20) : NULL;
        if (!at)
            return false;
        code = code << 4 | (uint32_t)(at - hex);
    }
    if (code == 0 || !utf8proc_codepoint_valid((utf8proc_int32_t)code))
        return false;
    *n += (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)out + *n);
    return true;
}

static bool double_escape(const char **p, const char *end, char *out, size_t *n)
{
    static const char from[] = "abtnvfre\"/\\ ", to[] = "\a\b\t\n\v\f\r\033\"/\\ ";
    char c = **p;
    const char *at = c ? strchr(from, c) : NULL;
    ++*p;
    if (at) {
        out[(*n)++] = to[at - from];
        return true;
    }
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (!digits || !hex_escape(*p, end, digits, out, n))
        return false;
    *p += digits;
    return true;
}

/* Bytes up to the closing quote, so that a text is given no more memory than it needs. */
static size_t quoted_len(const char *s, const char *end, char quote)
{
    size_t n = 0, max = (size_t)(end - s);
    while (n < max && s[n] != quote)
        n += quote == '"' && s[n] == '\\' ? 2 : 1;
    while (quote == '\'' && n + 1 < max && s[n + 1] == quote) { /* '' stands for one quote */
        n += 2;
        while (n < max && s[n] != quote)
            n++;
    }
    return n < max ? n : max;
}

/* A quoted scalar that starts at *p and ends before `end`; *p moves behind the closing quote. An escape never
 * grows: \xNN gives at most two bytes, \uNNNN three, \UNNNNNNNN four. */
static int read_quoted(struct reader *r, struct card_node *node, const char **p, const char *end)
{
    char quote = *(*p)++;
    char *out = arena_alloc(r->arena, quoted_len(*p, end, quote) + 1);
    size_t n = 0;
    if (!out)
        return no_memory(r);
    for (;;) {
        if (*p == end)
            return fail(r, "a quoted text does not end");
        char c = *(*p)++;
        if (c == quote && quote == '\'' && *p < end && **p == '\'')
            out[n++] = *(*p)++;
        else if (c == quote)
            break;
        else if (c != '\\' || quote == '\'')
            out[n++] = c;
        else if (*p == end || !double_escape(p, end, out, &n))
            return fail(r, "an escape in a quoted text is not understood");
    }
    node->kind = CARD_TEXT;
    node->text = out;
    return 0;
}

/* --- flow collections ---------------------------------------------------------------------------------- */

static void skip_blanks(const char **p, const char *end)
{
    while (*p < end && **p == ' ')
        ++*p;
}

static int read_flow(struct reader *r, struct card_node *node, const char **p, const char *end, int depth);

static int flow_scalar(struct reader *r, struct card_node *node, const char **p, const char *end)
{
    if (**p == '"' || **p == '\'')
        return read_quoted(r, node, p, end);
    const char *start = *p;
    while (*p < end && !strchr(",[]{}", **p) && !(**p == ':' && (*p + 1 == end || strchr(" ,}", (*p)[1]))))
        ++*p;
    size_t n = (size_t)(*p - start);
    while (n && start[n - 1] == ' ')
        n--;
    return set_plain(r, node, start, n);
}

/* "key:" of a flow map, with the colon. */
static int flow_key(struct reader *r, const char **key, const char **p, const char *end)
{
    struct card_node name = {0};
    int rc = flow_scalar(r, &name, p, end);
    if (rc != 0)
        return rc;
    skip_blanks(p, end);
    if (*p == end || **p != ':')
        return fail(r, "a map in braces needs 'key: value'");
    ++*p;
    *key = name.kind == CARD_TEXT ? name.text : "";
    return 0;
}

static int read_flow_items(struct reader *r, struct card_node *node, const char **p, const char *end,
                           int depth)
{
    char close = node->kind == CARD_LIST ? ']' : '}';
    const struct card_node **link = &node->first;
    for (;;) {
        skip_blanks(p, end);
        if (*p == end)
            return fail(r, "a list in brackets does not end");
        if (**p == close) {
            ++*p;
            return 0;
        }
        struct card_node *child = new_node(r, CARD_NULL);
        if (!child)
            return no_memory(r);
        int rc = node->kind == CARD_MAP ? flow_key(r, &child->key, p, end) : 0;
        if (rc == 0)
            rc = read_flow(r, child, p, end, depth + 1);
        if (rc != 0)
            return rc;
        *link = child;
        link = &child->next;
        skip_blanks(p, end);
        if (*p < end && **p == ',')
            ++*p;
        else if (*p < end && **p != close)
            return fail(r, "',' or the end of the list expected");
    }
}

static int read_flow(struct reader *r, struct card_node *node, const char **p, const char *end, int depth)
{
    if (depth > MAX_DEPTH)
        return fail(r, "nested too deeply");
    skip_blanks(p, end);
    if (*p < end && (**p == '[' || **p == '{')) {
        node->kind = *(*p)++ == '[' ? CARD_LIST : CARD_MAP;
        return read_flow_items(r, node, p, end, depth);
    }
    return *p < end ? flow_scalar(r, node, p, end) : 0;
}

/* --- block nodes --------------------------------------------------------------------------------------- */

/* Where the key of "key: value" ends (index of the colon); false when the line is no such pair. */
static bool find_colon(const struct line *l, size_t *colon)
{
    size_t i = 0;
    if (l->text[0] == '"' || l->text[0] == '\'') {
        for (i = 1; i < l->len && l->text[i] != l->text[0]; i++)
            ;
        i++;
    } else if (strchr("[{|>&*!%@`", l->text[0])) {
        return false;
    }
    for (; i < l->len; i++) {
        if (l->text[i] == '#' && i && l->text[i - 1] == ' ')
            return false;
        if (l->text[i] == ':' && (i + 1 == l->len || l->text[i + 1] == ' ')) {
            *colon = i;
            return true;
        }
    }
    return false;
}

/* Join `first` with the following lines of more than `parent` indentation into one text. Comments and blank
 * lines inside become spaces. */
static int join_lines(struct reader *r, const char *first, size_t len, long parent, const char **out,
                      size_t *n)
{
    size_t start = r->at, total = len;
    for (; r->at < r->n; r->at++) {
        const struct line *l = &r->lines[r->at];
        if (l->len && (long)l->indent <= parent)
            break;
        total += 1 + l->len;
    }
    char *text = arena_alloc(r->arena, total + 1);
    if (!text)
        return no_memory(r);
    memcpy(text, first, len);
    *n = len;
    for (size_t i = start; i < r->at; i++) {
        if (r->lines[i].len == 0)
            continue;
        text[(*n)++] = ' ';
        memcpy(text + *n, r->lines[i].text, r->lines[i].len);
        *n += r->lines[i].len;
    }
    *out = text;
    return 0;
}

/* '|' keeps line ends, '>' folds the lines of a paragraph into one; of the line ends at the end one is kept,
 * with
 * '-' none, with '+' all. */
static int read_block_scalar(struct reader *r, struct card_node *node, const char *header, long parent)
{
    bool fold = header[0] == '>', strip = strchr(header, '-') != NULL, keep = strchr(header, '+') != NULL;
    size_t first = r->at, total = 0, base = 0;
    for (; r->at < r->n; r->at++) {
        const struct line *l = &r->lines[r->at];
        if (l->raw_len && (long)l->indent <= parent)
            break;
        if (l->raw_len && !base)
            base = l->indent;
        total += 1 + l->indent + l->raw_len;
    }
    char *text = arena_alloc(r->arena, total + 2);
    size_t n = 0, end = 0; /* end: behind the last text */
    if (!text)
        return no_memory(r);
    for (size_t i = first; i < r->at; i++) {
        const struct line *l = &r->lines[i];
        if (l->raw_len) {
            bool joins = fold && n && text[n - 1] == '\n' && end == n - 1; /* a single line end before it */
            size_t extra = l->indent > base ? l->indent - base : 0;
            if (joins)
                text[n - 1] = ' ';
            else if (fold && n && end < n - 1)
                n--; /* the first of several line ends is the fold itself */
            memset(text + n, ' ', extra);
            memcpy(text + n + extra, l->text, l->raw_len);
            n += extra + l->raw_len;
            end = n;
        }
        text[n++] = '\n';
    }
    if (!keep)
        n = end + (end && !strip);
    if (n)
        return set_text(r, node, text, n);
    return set_text(r, node, "", 0);
}

/* The rest of a line as a value, with the lines that continue it. The line itself is already passed. */
static int read_inline(struct reader *r, struct card_node *node, const char *s, size_t n, long parent)
{
    if (s[0] == '|' || s[0] == '>') {
        n = plain_len(s, n);
        if (n > 2 || (n == 2 && s[1] != '-' && s[1] != '+'))
            return fail(r, "a block text header is not understood");
        const char header[3] = {s[0], n == 2 ? s[1] : '\0', '\0'};
        return read_block_scalar(r, node, header, parent);
    }
    bool quoted = s[0] == '"' || s[0] == '\'', flow = s[0] == '[' || s[0] == '{';
    const char *text = NULL;
    size_t len = 0;
    int rc = join_lines(r, s, quoted || flow ? n : plain_len(s, n), parent, &text, &len);
    if (rc != 0)
        return rc;
    if (!quoted && !flow)
        return set_plain(r, node, text, len);
    const char *p = text, *end = text + len;
    rc = quoted ? read_quoted(r, node, &p, end) : read_flow(r, node, &p, end, 0);
    skip_blanks(&p, end);
    if (rc == 0 && p < end && *p != '#')
        return fail(r, "text behind the end of a value");
    return rc;
}

static int read_block(struct reader *r, struct card_node *node, int depth);

static int read_map(struct reader *r, struct card_node *node, size_t indent, int depth)
{
    const struct card_node **link = &node->first;
    node->kind = CARD_MAP;
    for (struct line *l; (l = peek(r)) != NULL && l->indent == indent && !is_dash(l);) {
        size_t colon;
        if (!find_colon(l, &colon))
            return fail(r, "'key: value' expected");
        struct card_node *child = new_node(r, CARD_NULL), key = {0};
        if (!child)
            return no_memory(r);
        const char *k = l->text, *key_end = l->text + colon;
        int rc = *k == '"' || *k == '\'' ? read_quoted(r, &key, &k, key_end) : set_text(r, &key, k, colon);
        if (rc != 0)
            return rc;
        child->key = key.text;
        *link = child;
        link = &child->next;

        const char *rest = l->text + colon + 1, *end = l->text + l->len;
        skip_blanks(&rest, end);
        r->at++;
        if (rest < end && *rest != '#') {
            rc = read_inline(r, child, rest, (size_t)(end - rest), (long)indent);
        } else {
            const struct line *next = peek(r);
            if (next && (next->indent > indent || (next->indent == indent && is_dash(next))))
                rc = read_block(r, child, depth + 1);
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int read_list(struct reader *r, struct card_node *node, size_t indent, int depth)
{
    const struct card_node **link = &node->first;
    node->kind = CARD_LIST;
    for (struct line *l; (l = peek(r)) != NULL && l->indent == indent && is_dash(l);) {
        struct card_node *child = new_node(r, CARD_NULL);
        if (!child)
            return no_memory(r);
        *link = child;
        link = &child->next;
        size_t skip = 1;
        while (skip < l->len && l->text[skip] == ' ')
            skip++;
        int rc = 0;
        if (skip < l->len &&
            l->text[skip] != '#') { /* the item begins on this line: read it again without dash */
            l->text += skip;
            l->len -= skip;
            l->raw_len -= skip;
            l->indent += skip;
            rc = read_block(r, child, depth + 1);
        } else {
            r->at++;
            const struct line *next = peek(r);
            if (next && next->indent > indent)
                rc = read_block(r, child, depth + 1);
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int read_block(struct reader *r, struct card_node *node, int depth)
{
    struct line *l = peek(r);
    size_t colon, indent = l->indent;
    if (depth > MAX_DEPTH)
        return fail(r, "nested too deeply");
    if (is_dash(l))
        return read_list(r, node, indent, depth);
    if (find_colon(l, &colon))
        return read_map(r, node, indent, depth);
    r->at++;
    return read_inline(r, node, l->text, l->len, (long)indent - 1);
}

/* --- lines --------------------------------------------------------------------------------------------- */

static bool is_utf8(const char *s, size_t n)
{
    while (n) {
        utf8proc_int32_t code;
        utf8proc_ssize_t k =
            utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)(n > 4 ? 4 : n), &code);
        if (k <= 0 || code == 0)
            return false;
        s += k;
        n -= (size_t)k;
    }
    return true;
}

static size_t line_end(const char *s, size_t n)
{
    const char *nl = memchr(s, '\n', n);
    return nl ? (size_t)(nl - s) : n;
}

static size_t without_cr(const char *s, size_t n)
{
    return n && s[n - 1] == '\r' ? n - 1 : n;
}

/* A copy of the line with tabs as two spaces, as llama.cpp's converter reads them. */
static int take_line(struct reader *r, struct line *l, const char *s, size_t n)
{
    size_t tabs = 0, k = 0;
    for (size_t i = 0; i < n; i++)
        tabs += s[i] == '\t';
    char *copy = arena_alloc(r->arena, n + tabs + 1);
    if (!copy)
        return no_memory(r);
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\t')
            copy[k++] = ' ';
        copy[k++] = s[i] == '\t' ? ' ' : s[i];
    }
    while (k && copy[k - 1] == ' ')
        k--;
    while (l->indent < k && copy[l->indent] == ' ')
        l->indent++;
    l->text = copy + l->indent;
    l->raw_len = l->len = k - l->indent;
    copy[k] = '\0';
    if (l->text[0] == '#')
        l->len = 0;
    return 0;
}

static int split_lines(struct reader *r, const char *s, size_t n)
{
    size_t count = 1;
    for (size_t i = 0; i < n; i++)
        count += s[i] == '\n';
    r->lines = arena_array(r->arena, count, sizeof *r->lines);
    if (!r->lines)
        return no_memory(r);
    for (size_t at = 0; at < n;) {
        size_t len = line_end(s + at, n - at);
        int rc = take_line(r, &r->lines[r->n++], s + at, without_cr(s + at, len));
        if (rc != 0)
            return rc;
        at += len + 1;
    }
    return 0;
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

static int parse(struct model_card *card, const char *text, size_t len, struct err *e)
{
    struct reader r = {.arena = &card->arena, .e = e};
    size_t n;
    const char *yaml = front_matter(text, len, &n);
    card->root.kind = CARD_MAP;
    if (!yaml)
        return 0;
    if (n > MAX_BYTES)
        return err_set(e, ERR_FORMAT, "front matter of more than %u bytes", MAX_BYTES);
    if (!is_utf8(yaml, n))
        return err_set(e, ERR_FORMAT, "front matter is not UTF-8 text");
    int rc = split_lines(&r, yaml, n);
    const struct line *l = rc == 0 ? peek(&r) : NULL;
    if (!l)
        return rc;
    if (is_dash(l))
        return fail(&r, "'key: value' expected");
    rc = read_map(&r, &card->root, l->indent, 0);
    if (rc == 0 && peek(&r))
        return fail(&r, "indentation does not fit");
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
