/* spm.c - see spm.h.
 *
 * Merging runs over a whole text at once in SentencePiece. Here the text is first cut between any two code
 * points that stand side by side in no piece: no merge can reach across such a place, so the cut changes
 * nothing, and the stretches are about as long as words. They can be cached, and the working memory stays
 * small.
 *
 * A symbol is a token id, or UNKNOWN | code point for a character that is no piece of its own (it can still
 * be part of one). Scores become ranks: the highest score has rank 0, equal scores share one. */
#include "spm.h"

#include "codepoint.h"
#include "formats/utf8.h"

#include <stdlib.h>
#include <string.h>

#define UNKNOWN 0x80000000u
enum { BLOCK = 0x2581, MAX_PIECE = 1024, N_BMP = 0x10000 };

static uint32_t symbol_of(const struct spm *s, uint32_t cp)
{
    if (cp < N_BMP)
        return s->bmp[cp];
    const struct merge_entry *m = merge_table_find(&s->astral, 0, cp);
    return m ? m->symbol : UNKNOWN | cp;
}

static bool is_adjacent(const struct spm *s, uint32_t a, uint32_t b)
{
    if (a < 128 && b < 128)
        return s->ascii_adjacent[a][b / 8] >> (b % 8) & 1;
    return merge_table_find(&s->adjacent, a == ' ' ? BLOCK : a, b == ' ' ? BLOCK : b) != NULL;
}

static int set_adjacent(struct spm *s, uint32_t a, uint32_t b)
{
    uint32_t x = a == BLOCK ? ' ' : a, y = b == BLOCK ? ' ' : b;
    if (x < 128 && y < 128)
        s->ascii_adjacent[x][y / 8] |= (uint8_t)(1 << (y % 8));
    return merge_table_put(&s->adjacent, a, b, 0, 0);
}

/* The symbol of the UTF-8 text, a single code point or a piece; false when it is neither. */
static bool text_symbol(const struct spm *s, const char *text, size_t len, uint32_t *symbol)
{
    uint32_t cp;
    uint64_t id;
    if (utf8_decode((const uint8_t *)text, &cp) == len) {
        *symbol = symbol_of(s, cp);
        return true;
    }
    if (!strmap_find(&s->pieces, text, len, &id))
        return false;
    *symbol = (uint32_t)id;
    return true;
}

/* Text of a GGUF file need not be UTF-8; a piece that is not can match nothing. */
static bool is_piece(const struct vocab_token *t)
{
    return t->type == TOKEN_NORMAL && t->len > 0 && utf8_valid(t->text, t->len);
}

static int add_splits(struct spm *s, const struct vocab_token *t, uint32_t id, uint32_t rank)
{
    const uint8_t *p = (const uint8_t *)t->text;
    uint32_t previous, cp, left, right;
    int rc = 0;
    for (size_t i = utf8_decode(p, &previous); i < t->len && rc == 0;) {
        unsigned n = utf8_decode(p + i, &cp);
        rc = set_adjacent(s, previous, cp);
        if (rc == 0 && text_symbol(s, t->text, i, &left) && text_symbol(s, t->text + i, t->len - i, &right))
            rc = merge_table_put(&s->merges, left, right, rank, id);
        previous = cp;
        i += n;
    }
    return rc;
}

static int by_score(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

/* Distinct scores of the normal pieces, highest first. */
static float *sorted_scores(const struct vocabulary *v, size_t *n)
{
    float *f = malloc(v->n_tokens * sizeof *f);
    size_t k = 0, m = 0;
    if (!f)
        return NULL;
    for (size_t i = 0; i < v->n_tokens; i++)
        if (v->tokens[i].type == TOKEN_NORMAL)
            f[k++] = v->tokens[i].score;
    qsort(f, k, sizeof *f, by_score);
    for (size_t i = 0; i < k; i++)
        if (m == 0 || f[i] < f[m - 1])
            f[m++] = f[i];
    *n = m;
    return f;
}

static uint32_t rank_of(const float *scores, size_t n, float score)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (scores[mid] > score)
            low = mid + 1;
        else
            high = mid;
    }
    return (uint32_t)low;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

static void add_byte(struct spm *s, const struct vocab_token *t, size_t id)
{
    if (t->len != 6 || memcmp(t->text, "<0x", 3) != 0 || t->text[5] != '>')
        return;
    int high = hex_digit(t->text[3]), low = hex_digit(t->text[4]);
    if (high >= 0 && low >= 0)
        s->byte_id[high * 16 + low] = (int32_t)id;
}

/* Pieces and single code points. */
static int add_pieces(struct spm *s, const struct vocabulary *v, struct err *e)
{
    for (size_t i = 0; i < v->n_tokens; i++) {
        const struct vocab_token *t = &v->tokens[i];
        uint32_t cp;
        if (t->type == TOKEN_BYTE)
            add_byte(s, t, i);
        if (!is_piece(t))
            continue;
        if (t->len > MAX_PIECE)
            return err_set(e, ERR_UNSUPPORTED, "token %zu has %u bytes; pieces of at most %d are supported",
                           i, t->len, MAX_PIECE);
        if (utf8_decode((const uint8_t *)t->text, &cp) != t->len) {
            if (strmap_put(&s->pieces, t->text, t->len, i, NULL) != 0)
                return err_set(e, ERR_NOMEM, "out of memory for the tokenizer");
        } else if (cp < N_BMP) {
            s->bmp[cp] = (uint32_t)i;
        } else if (merge_table_put(&s->astral, 0, cp, 0, (uint32_t)i) != 0) {
            return err_set(e, ERR_NOMEM, "out of memory for the tokenizer");
        }
    }
    s->bmp[' '] = s->bmp[BLOCK];
    return 0;
}

int spm_init(struct spm *s, const struct vocabulary *v, struct err *e)
{
    size_t n_scores = 0;
    memset(s, 0, sizeof *s);
    memset(s->byte_id, 0xFF, sizeof s->byte_id); /* -1 */
    s->unk = (int32_t)v->unk;
    float *scores = sorted_scores(v, &n_scores);
    s->bmp = malloc(N_BMP * sizeof *s->bmp);
    int rc = scores && s->bmp ? 0 : err_set(e, ERR_NOMEM, "out of memory for the tokenizer");
    for (uint32_t cp = 0; cp < N_BMP && rc == 0; cp++)
        s->bmp[cp] = UNKNOWN | cp;
    if (rc == 0)
        rc = add_pieces(s, v, e);
    for (size_t i = 0; i < v->n_tokens && rc == 0; i++) {
        const struct vocab_token *t = &v->tokens[i];
        if (t->type == TOKEN_UNKNOWN && s->unk < 0)
            s->unk = (int32_t)i;
        if (is_piece(t) && add_splits(s, t, (uint32_t)i, rank_of(scores, n_scores, t->score)) != 0)
            rc = err_set(e, ERR_NOMEM, "out of memory for the tokenizer");
    }
    free(scores);
    return rc;
}

void spm_release(struct spm *s)
{
    strmap_release(&s->pieces);
    free(s->bmp);
    merge_table_release(&s->astral);
    merge_table_release(&s->merges);
    merge_table_release(&s->adjacent);
    memset(s, 0, sizeof *s);
}

static int push_symbol(const struct spm *s, struct encode_work *w, uint32_t symbol)
{
    if (!(symbol & UNKNOWN))
        return work_push(w, (int32_t)symbol);
    uint8_t bytes[4];
    unsigned n = utf8_encode(symbol & ~UNKNOWN, bytes);
    bool all = true;
    for (unsigned i = 0; i < n; i++)
        all = all && s->byte_id[bytes[i]] >= 0;
    if (!all)
        return s->unk >= 0 ? work_push(w, s->unk) : 0;
    int rc = 0;
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = work_push(w, s->byte_id[bytes[i]]);
    return rc;
}

/* One stretch between cuts; `prefix`: a space is its first character but not in the text. */
static int encode_stretch(const struct spm *s, struct encode_work *w, const char *text, size_t len,
                          bool prefix)
{
    bool hit = false;
    size_t from = w->n_ids, n = 0;
    int rc = prefix ? 0 : work_cached(w, text, len, &hit);
    if (rc != 0 || hit)
        return rc;
    if ((rc = work_reserve_symbols(w, len + 1)) != 0)
        return rc;
    if (prefix)
        w->symbols[n++] = symbol_of(s, BLOCK);
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        i += utf8_decode((const uint8_t *)text + i, &cp);
        w->symbols[n++] = symbol_of(s, cp);
    }
    rc = merge_symbols(&s->merges, &w->scratch, w->symbols, &n);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = push_symbol(s, w, w->symbols[i]);
    if (rc == 0 && !prefix)
        work_remember(w, text, len, from);
    return rc;
}

int spm_encode(const struct spm *s, struct encode_work *w, const char *text, size_t len, bool prefix)
{
    const uint8_t *p = (const uint8_t *)text;
    uint32_t previous = BLOCK, cp;
    size_t start = 0;
    int rc = 0;
    if (len == 0)
        return 0;
    for (size_t i = 0; i < len && rc == 0; i += utf8_decode(p + i, &cp)) {
        utf8_decode(p + i, &cp);
        if ((i > start || (prefix && start == 0)) && !is_adjacent(s, previous, cp)) {
            rc = encode_stretch(s, w, text + start, i - start, prefix);
            prefix = false;
            start = i;
        }
        previous = cp;
    }
    return rc == 0 ? encode_stretch(s, w, text + start, len - start, prefix) : rc;
}
