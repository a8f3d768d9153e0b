/* bpe.c - see bpe.h. Texts of the byte alphabet are turned into bytes once, so that encoding works on slices
 * of the text itself. */
#include "bpe.h"

#include "char_class.h"
#include "codepoint.h"
#include "pretokenize_stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A character that is neither a token nor part of a merge, as a symbol: this bit and its code point. */
#define UNKNOWN 0x80000000u

/* The bytes of a text in the byte alphabet, in the arena; data NULL when it is not in that alphabet. Texts of
 * plain tokens are those bytes, borrowed. */
static int to_bytes(struct slice *out, const struct bpe *b, struct arena *arena, const char *text, size_t len)
{
    if (b->plain) {
        *out = (struct slice){(const uint8_t *)text, len};
        return 0;
    }
    uint8_t *bytes = arena_alloc(arena, len);
    *out = (struct slice){0};
    if (!bytes)
        return ERR_NOMEM;
    size_t n;
    if (bytes_from_alphabet(text, len, bytes, &n))
        *out = (struct slice){bytes, n};
    return 0;
}

/* The symbol of these bytes, made if there is none. */
static int intern(struct bpe *b, struct slice s, uint32_t *symbol)
{
    uint64_t found;
    if (strmap_find(&b->symbols, (const char *)s.data, s.len, &found)) {
        *symbol = (uint32_t)found;
        return 0;
    }
    if (b->n_extra == b->cap_extra) {
        size_t cap = b->cap_extra ? b->cap_extra * 2 : 256;
        struct slice *grown = realloc(b->extra, cap * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        b->extra = grown;
        b->cap_extra = cap;
    }
    *symbol = b->n_tokens + (uint32_t)b->n_extra;
    b->extra[b->n_extra++] = s;
    return strmap_put(&b->symbols, (const char *)s.data, s.len, *symbol, NULL);
}

/* Normal tokens first: an added token only stands for a text that no normal token has. */
static int add_tokens(struct bpe *b, const struct vocabulary *v, struct arena *arena, struct slice *pieces)
{
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < v->n_tokens; i++) {
            const struct vocab_token *t = &v->tokens[i];
            bool normal = t->type == TOKEN_NORMAL;
            struct slice s;
            if (normal != (pass == 0) || t->type == TOKEN_UNUSED || t->len == 0)
                continue;
            if (to_bytes(&s, b, arena, t->text, t->len) != 0)
                return ERR_NOMEM;
            if (s.data && strmap_put(&b->symbols, (const char *)s.data, s.len, i, NULL) != 0)
                return ERR_NOMEM;
            if (s.data && normal && pieces && !b->plain)
                pieces[i] = s;
        }
    return 0;
}

/* "<0xNN>", whatever its type. */
static void find_byte_tokens(struct bpe *b)
{
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        uint64_t id;
        snprintf(text, sizeof text, "<0x%02X>", i);
        b->byte_symbol[i] = strmap_find(&b->symbols, text, 6, &id) ? (uint32_t)id : UINT32_MAX;
    }
}

static int add_bytes(struct bpe *b, struct arena *arena)
{
    if (b->plain) {
        find_byte_tokens(b);
        return 0;
    }
    uint8_t *all = arena_alloc(arena, 256);
    if (!all)
        return ERR_NOMEM;
    for (int i = 0; i < 256; i++) {
        all[i] = (uint8_t)i;
        if (intern(b, (struct slice){all + i, 1}, &b->byte_symbol[i]) != 0)
            return ERR_NOMEM;
    }
    return 0;
}

static int add_merge(struct bpe *b, const struct vocab_merge *m, uint32_t rank, struct arena *arena)
{
    const char *space = m->len > 2 ? memchr(m->text + 1, ' ', m->len - 2) : NULL;
    struct slice part[2];
    uint32_t symbol[3];
    if (!space)
        return 0;
    size_t n_left = (size_t)(space - m->text);
    if (to_bytes(&part[0], b, arena, m->text, n_left) != 0 ||
        to_bytes(&part[1], b, arena, space + 1, m->len - n_left - 1) != 0)
        return ERR_NOMEM;
    if (!part[0].data || !part[1].data)
        return 0; /* no text consists of such parts */
    uint8_t *joined = arena_alloc(arena, part[0].len + part[1].len);
    if (!joined)
        return ERR_NOMEM;
    memcpy(joined, part[0].data, part[0].len);
    memcpy(joined + part[0].len, part[1].data, part[1].len);
    if (intern(b, part[0], &symbol[0]) != 0 || intern(b, part[1], &symbol[1]) != 0 ||
        intern(b, (struct slice){joined, part[0].len + part[1].len}, &symbol[2]) != 0)
        return ERR_NOMEM;
    return merge_table_put(&b->merges, symbol[0], symbol[1], rank, symbol[2]);
}

int bpe_init(struct bpe *b, const struct vocabulary *v, struct arena *arena, struct slice *pieces,
             struct err *e)
{
    const struct pretokenizer_info *info = pretokenizer_find(v->pre);
    memset(b, 0, sizeof *b);
    if (!info)
        return err_set(e, ERR_UNSUPPORTED,
                       "pre-tokenizer '%.60s' of tokenizer.ggml.pre is not known to this version of kerf",
                       v->pre);
    b->kind = info->kind;
    b->ignore_merges = v->ignore_merges;
    b->plain = pretokenizer_is_plain(info->kind);
    b->escape = info->kind == PRE_LINES;
    b->n_tokens = (uint32_t)v->n_tokens;
    int rc = strmap_reserve(&b->symbols, v->n_tokens + 512);
    if (rc == 0)
        rc = add_tokens(b, v, arena, pieces);
    if (rc == 0)
        rc = add_bytes(b, arena);
    for (size_t i = 0; i < v->n_merges && rc == 0; i++)
        rc = add_merge(b, &v->merges[i], (uint32_t)i, arena);
    return rc == 0 ? 0 : err_set(e, ERR_NOMEM, "out of memory for a tokenizer of %zu tokens", v->n_tokens);
}

void bpe_release(struct bpe *b)
{
    strmap_release(&b->symbols);
    merge_table_release(&b->merges);
    free(b->extra);
    memset(b, 0, sizeof *b);
}

/* A symbol that is no token (a merge whose result the vocabulary lacks): its bytes. */
static int push_bytes(const struct bpe *b, struct encode_work *w, struct slice s)
{
    int rc = 0;
    for (size_t i = 0; i < s.len && rc == 0; i++) {
        uint32_t symbol = b->byte_symbol[s.data[i]];
        if (symbol < b->n_tokens)
            rc = work_push(w, (int32_t)symbol);
    }
    return rc;
}

/* The symbol of the character at `p`, which takes *n bytes. */
static uint32_t plain_symbol(const struct bpe *b, const char *p, unsigned *n)
{
    static const char block[] = "\xE2\x96\x81";
    uint32_t cp;
    uint64_t found;
    *n = utf8_decode((const uint8_t *)p, &cp);
    bool space = b->escape && cp == ' ';
    if (strmap_find(&b->symbols, space ? block : p, space ? 3 : *n, &found))
        return (uint32_t)found;
    return UNKNOWN | (space ? 0x2581 : cp);
}

static int push_symbol(const struct bpe *b, struct encode_work *w, uint32_t symbol)
{
    uint8_t bytes[4];
    if (symbol < b->n_tokens)
        return work_push(w, (int32_t)symbol);
    if (!(symbol & UNKNOWN))
        return push_bytes(b, w, b->extra[symbol - b->n_tokens]);
    unsigned n = utf8_encode(symbol & ~UNKNOWN, bytes);
    return push_bytes(b, w, (struct slice){bytes, n});
}

/* Bytes that are no token vanish before merging, as in the HuggingFace tokenizers (StarCoder lacks some that
 * UTF-8 rarely has). */
static size_t first_symbols(const struct bpe *b, uint32_t *symbols, const char *word, size_t len)
{
    size_t n = 0;
    unsigned step;
    for (size_t i = 0; i < len; i += step) {
        step = 1;
        if (b->plain)
            symbols[n++] = plain_symbol(b, word + i, &step);
        else if (b->byte_symbol[(uint8_t)word[i]] < b->n_tokens)
            symbols[n++] = b->byte_symbol[(uint8_t)word[i]];
    }
    return n;
}

/* Is the whole word looked up before it is cut? Runs of line ends of plain text are. */
static bool is_taken_whole(const struct bpe *b, const char *word)
{
    return b->ignore_merges || (b->kind == PRE_LINES && word[0] == '\n');
}

static int encode_word(const struct bpe *b, struct encode_work *w, const char *word, size_t len)
{
    bool hit;
    int rc = work_cached(w, word, len, &hit);
    if (rc != 0 || hit)
        return rc;
    size_t from = w->n_ids, n;
    uint64_t whole;
    if (is_taken_whole(b, word) && strmap_find(&b->symbols, word, len, &whole) && whole < b->n_tokens) {
        rc = work_push(w, (int32_t)whole);
    } else {
        rc = work_reserve_symbols(w, len);
        n = rc == 0 ? first_symbols(b, w->symbols, word, len) : 0;
        if (rc == 0)
            rc = merge_symbols(&b->merges, &w->scratch, w->symbols, &n);
        for (size_t i = 0; i < n && rc == 0; i++)
            rc = push_symbol(b, w, w->symbols[i]);
    }
    if (rc == 0)
        work_remember(w, word, len, from);
    return rc;
}

int bpe_encode(const struct bpe *b, struct encode_work *w, const char *text, size_t len)
{
    struct pretokenize p;
    const char *word;
    size_t n;
    int rc = 0;
    pretokenize_begin(&p, b->kind, text, len);
    while (rc == 0 && pretokenize_next(&p, &word, &n)) {
        const uint8_t *next, *at = (const uint8_t *)word;
        if (b->kind != PRE_WORDS || pretokenize_class(at, at + n, &next) != CHAR_SPACE)
            rc = encode_word(b, w, word, n);
    }
    return rc;
}
