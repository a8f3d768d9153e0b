/* nfc.c - see nfc.h. Unicode Standard Annex 15 on top of utf8proc's character data.
 *
 * The text is cut before each code point that can neither combine with what stands before it nor change by
 * itself; each such segment is decomposed, ordered and composed on its own. Nearly all segments of real text
 * are a single code point, which is copied. utf8proc's own driver is not used: it holds the whole text as
 * 32-bit code points and orders combining marks by exchanging neighbours, which is quadratic in a long run of
 * them. */
#include "nfc.h"

#include "codepoint.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define FORM_C ((utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE))

struct buffer {
    int32_t *cp;
    size_t n, cap;
};

struct output {
    char *data; /* NULL as long as nothing has changed */
    size_t n, cap;
};

/* Characters that are left as they are, marks among them. The normaliser inside the HuggingFace tokenizers
 * has the data of Unicode 9; what came later (up to Unicode 16) has no combining class and no composition
 * there, and ids must be the same whatever utf8proc knows. Found by normalising every code point in four
 * contexts. U+11A7 is here because utf8proc takes it for a Hangul final and drops it. */
static bool is_inert(uint32_t cp)
{
    static const struct {
        uint32_t first, last;
    } RECENT[] = {
        {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
        {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x11A7, 0x11A7},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},
        {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x105C9, 0x105C9}, {0x105E4, 0x105E4}, {0x10D24, 0x10D27},
        {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10EFC, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
        {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11383, 0x11385}, {0x1138E, 0x1138E}, {0x11391, 0x11391},
        {0x113B8, 0x113E2}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11938}, {0x1193D, 0x1193E},
        {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
        {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x11F5A, 0x11F5A},
        {0x1611E, 0x1612F}, {0x16D63, 0x16D6A}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
        {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}};
    size_t low = 0, high = sizeof RECENT / sizeof *RECENT;
    if (cp < RECENT[0].first)
        return false;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (cp > RECENT[mid].last)
            low = mid + 1;
        else if (cp < RECENT[mid].first)
            high = mid;
        else
            return true;
    }
    return false;
}

/* A starter that never composes with what precedes it and whose own decomposition, if any, composes back.
 * Second halves of compositions are marks and Hangul vowels and finals. */
static bool is_boundary(uint32_t cp)
{
    int32_t decomposed[8];
    int last = 0;
    if (cp < 0x300 || (cp >= 0xAC00 && cp <= 0xD7A3))
        return true;
    if (is_inert(cp))
        return true;
    if (cp >= 0x1160 && cp <= 0x11FF)
        return false;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME)
        return false;
    return utf8proc_decompose_char((utf8proc_int32_t)cp, decomposed, 8, FORM_C, &last) == 1 &&
           decomposed[0] == (int32_t)cp;
}

static int class_of(int32_t cp)
{
    return utf8proc_get_property(cp)->combining_class;
}

static int put_decomposed(struct buffer *b, uint32_t cp)
{
    int last = 0;
    for (;;) {
        utf8proc_ssize_t room = (utf8proc_ssize_t)(b->cap - b->n);
        utf8proc_ssize_t n =
            room ? utf8proc_decompose_char((utf8proc_int32_t)cp, b->cp + b->n, room, FORM_C, &last) : 8;
        if (n >= 0 && n <= room) {
            b->n += (size_t)n;
            return 0;
        }
        size_t cap = b->cap ? b->cap * 2 : 64;
        int32_t *grown = n < 0 ? NULL : realloc(b->cp, cap * sizeof *grown);
        if (!grown)
            return ERR_NOMEM;
        b->cp = grown;
        b->cap = cap;
    }
}

/* Canonical ordering of one run of marks: stable by combining class. */
static int order_run(int32_t *cp, size_t n)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            int32_t moving = cp[i];
            int c = class_of(moving);
            size_t j = i;
            for (; j > 0 && class_of(cp[j - 1]) > c; j--)
                cp[j] = cp[j - 1];
            cp[j] = moving;
        }
        return 0;
    }
    size_t start[257] = {0};
    int32_t *sorted = malloc(n * sizeof *sorted);
    if (!sorted)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        start[class_of(cp[i]) + 1]++;
    for (int c = 0; c < 256; c++)
        start[c + 1] += start[c];
    for (size_t i = 0; i < n; i++)
        sorted[start[class_of(cp[i])]++] = cp[i];
    memcpy(cp, sorted, n * sizeof *sorted);
    free(sorted);
    return 0;
}

static int order(struct buffer *b)
{
    for (size_t i = 0; i < b->n;) {
        size_t j = i;
        while (j < b->n && class_of(b->cp[j]) != 0)
            j++;
        if (j - i > 1 && order_run(b->cp + i, j - i) != 0)
            return ERR_NOMEM;
        i = j + 1;
    }
    return 0;
}

static int append(struct output *o, const void *p, size_t n)
{
    if (o->cap - o->n < n) {
        size_t cap = o->cap + o->cap / 2 + n;
        char *grown = realloc(o->data, cap);
        if (!grown)
            return ERR_NOMEM;
        o->data = grown;
        o->cap = cap;
    }
    memcpy(o->data + o->n, p, n);
    o->n += n;
    return 0;
}

/* The segment of `n` bytes at `text + at`, which has more than one code point or one that may change. */
static int normalize_segment(struct buffer *b, struct output *o, const char *text, size_t at, size_t n,
                             size_t len)
{
    const uint8_t *p = (const uint8_t *)text + at;
    b->n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += utf8_decode(p + i, &cp);
        if (put_decomposed(b, cp) != 0)
            return ERR_NOMEM;
    }
    if (order(b) != 0)
        return ERR_NOMEM;
    utf8proc_ssize_t composed = utf8proc_normalize_utf32(b->cp, (utf8proc_ssize_t)b->n, FORM_C);
    size_t k = 0;
    bool same = true;
    uint8_t one[4];
    for (utf8proc_ssize_t i = 0; i < composed && same; i++) {
        unsigned w = utf8_encode((uint32_t)b->cp[i], one);
        same = w <= n - k && memcmp(p + k, one, w) == 0;
        k += w;
    }
    if (same && k == n)
        return o->data ? append(o, p, n) : 0;
    if (!o->data) { /* the first change: all text before it is as it was */
        o->cap = len + 64;
        o->data = malloc(o->cap);
        if (!o->data)
            return ERR_NOMEM;
        memcpy(o->data, text, at);
        o->n = at;
    }
    int rc = 0;
    for (utf8proc_ssize_t i = 0; i < composed && rc == 0; i++)
        rc = append(o, one, utf8_encode((uint32_t)b->cp[i], one));
    return rc;
}

int nfc_normalize(char **out, size_t *out_len, const char *text, size_t len, struct err *e)
{
    struct buffer b = {0};
    struct output o = {0};
    const uint8_t *p = (const uint8_t *)text;
    int rc = 0;
    for (size_t i = 0; i < len && rc == 0;) {
        uint32_t cp;
        size_t start = i;
        i += utf8_decode(p + i, &cp);
        bool plain = is_boundary(cp);
        while (i < len && !(plain && is_inert(cp))) { /* nothing combines with an inert one */
            if (p[i] < 0x80)
                break;
            unsigned w = utf8_decode(p + i, &cp);
            if (is_boundary(cp))
                break;
            plain = false;
            i += w;
        }
        if (!plain)
            rc = normalize_segment(&b, &o, text, start, i - start, len);
        else if (o.data)
            rc = append(&o, p + start, i - start);
    }
    free(b.cp);
    if (rc != 0) {
        free(o.data);
        return err_set(e, ERR_NOMEM, "out of memory to normalise %zu bytes of text", len);
    }
    *out = o.data;
    *out_len = o.n;
    return 0;
}
