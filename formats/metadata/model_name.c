/* model_name.c - see model_name.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model_name.h"

#include <math.h>
#include <pcre2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum label { BASENAME = 1, SIZE = 2, FINETUNE = 4, VERSION = 8, TYPE = 16 };

#define MAX_PARTS 64 /* a longer name is a sentence */

struct parts {
    char *text[MAX_PARTS];
    unsigned labels[MAX_PARTS];
    size_t n;
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory reading a model name");
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_alpha(char c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* *yes: the whole text matches, whatever the case. The patterns are ours, so what fails is memory. */
static int matches(bool *yes, const char *pattern, const char *text, struct err *e)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_CASELESS | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &at, NULL);
    pcre2_match_data *data = re ? pcre2_match_data_create_from_pattern(re, NULL) : NULL;
    int rc = data ? pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, data, NULL) : PCRE2_ERROR_NOMEMORY;
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    *yes = rc > 0;
    return rc == PCRE2_ERROR_NOMEMORY ? no_memory(e) : 0;
}

/* --- titles -------------------------------------------------------------------------------------------- */

/* One code point; an invalid byte counts as itself, so any text gets through. */
static size_t next_code(const char *s, size_t n, utf8proc_int32_t *code)
{
    utf8proc_ssize_t k =
        utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)(n > 4 ? 4 : n), code);
    if (k > 0)
        return (size_t)k;
    *code = -1;
    return 1;
}

static bool is_cased(utf8proc_int32_t c)
{
    utf8proc_category_t cat = c < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(c);
    return cat == UTF8PROC_CATEGORY_LU || cat == UTF8PROC_CATEGORY_LL || cat == UTF8PROC_CATEGORY_LT;
}

/* At least one cased letter, and none of them a capital. */
static bool all_lower(const char *w, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        i += next_code(w + i, n - i, &c);
        if (is_cased(c) && utf8proc_category(c) != UTF8PROC_CATEGORY_LL)
            return false;
        any |= is_cased(c);
    }
    return any;
}

/* A capital where a letter follows something that is none. Case pairs may differ in length by a byte or two,
 * `out` has room for four bytes per input byte. */
static size_t title_word(char *out, const char *w, size_t n)
{
    size_t k = 0;
    bool inside = false;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        size_t len = next_code(w + i, n - i, &c);
        if (c < 0)
            out[k++] = w[i];
        else
            k += (size_t)utf8proc_encode_char(inside ? utf8proc_tolower(c) : utf8proc_totitle(c),
                                              (utf8proc_uint8_t *)out + k);
        inside = is_cased(c);
        i += len;
    }
    return k;
}

/* v1, v1.5, or anything that starts with a digit. */
static bool is_version_word(const char *w, size_t n)
{
    if (is_digit(w[0]))
        return true;
    if (w[0] != 'v' || n < 2)
        return false;
    for (size_t i = 1; i < n; i++)
        if (!is_digit(w[i]) && !(w[i] == '.' && i > 1 && i + 1 < n && w[i - 1] != '.'))
            return false;
    return true;
}

int model_name_title(const char **out, const char *id, struct arena *arena, struct err *e)
{
    char *title = arena_alloc(arena, 4 * strlen(id) + 1);
    size_t n = 0;
    if (!title)
        return no_memory(e);
    for (const char *p = id;;) {
        p += strspn(p, " -\t\n\v\f\r");
        size_t len = strcspn(p, " -\t\n\v\f\r");
        if (len == 0)
            break;
        if (n)
            title[n++] = ' ';
        if (all_lower(p, len) && !is_version_word(p, len)) {
            n += title_word(title + n, p, len);
        } else {
            memcpy(title + n, p, len);
            n += len;
        }
        p += len;
    }
    title[n] = '\0';
    *out = title;
    return 0;
}

/* --- parts --------------------------------------------------------------------------------------------- */

/* "7b1" -> "7.1b", "8_5b" -> "8.5b", "7b" -> "7B" */
static char *normalise_size(const char *part, struct arena *arena)
{
    size_t n = strlen(part);
    char *s = arena_alloc(arena, n + 2);
    if (!s)
        return NULL;
    memcpy(s, part, n + 1);
    for (size_t i = 0; i < n; i++)
        if (s[i] == '_')
            s[i] = '.';
    if (n >= 2 && is_digit(s[n - 1])) {
        char suffix = s[n - 2], digit = s[n - 1];
        s[n - 2] = '.';
        s[n - 1] = digit;
        s[n++] = suffix;
        s[n] = '\0';
    }
    if (n > 1 && is_digit(s[n - 2]) && strchr("kmbt", s[n - 1]))
        s[n - 1] = (char)(s[n - 1] - 'a' + 'A');
    return s;
}

/* Is the size in the name so far from the real one that it is something else (a context length)? Sizes that
 * are no plain number ("8x7B", "A3B") are taken as they are. */
static bool is_other_number(const char *size, uint64_t n_params)
{
    size_t n = strlen(size);
    char number[32], *end;
    if (n_params == 0 || n < 2 || n > sizeof number)
        return false;
    memcpy(number, size, n - 1);
    number[n - 1] = '\0';
    if (!is_digit(number[0]))
        return false;
    double v = strtod(number, &end);
    if (*end != '\0')
        return false;
    const char *units = "KMBT", *unit = strchr(units, size[n - 1]);
    double label = v * pow(1000, unit ? (double)(unit - units) + 1 : -1);
    double far = (double)(uint64_t)((unsigned __int128)7 * n_params / 8);
    return fabs(label - (double)n_params) > far;
}

static int label_size(struct parts *p, size_t i, uint64_t n_params, struct arena *arena, struct err *e)
{
    char *size = normalise_size(p->text[i], arena);
    if (!size)
        return no_memory(e);
    bool other = is_other_number(size, n_params);
    if (other) {
        size_t last = strlen(size) - 1;
        if (is_alpha(size[last]))
            size[last] = (char)(size[last] | 0x20);
    }
    p->labels[i] |= other ? FINETUNE : SIZE;
    p->text[i] = size;
    return 0;
}

static int label_part(struct parts *p, size_t i, uint64_t n_params, struct arena *arena, struct err *e)
{
    static const struct {
        const char *pattern;
        unsigned label;
        bool may_be_first;
    } kinds[] = {
        {"(v|iter)?\\d+([.]\\d+)*", VERSION, true},
        {"i?q\\d(_\\w)*|b?fp?(16|32)", TYPE, true},
        {"(([A]|\\d+[x])?\\d+([._]\\d+)?[KMBT][\\d]?|small|mini|medium|large|x?xl)", SIZE, false},
        {"chat|instruct|vision|lora", FINETUNE, false},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        bool yes = false;
        int rc = i > 0 || kinds[k].may_be_first ? matches(&yes, kinds[k].pattern, p->text[i], e) : 0;
        if (rc != 0)
            return rc;
        if (!yes)
            continue;
        if (kinds[k].label == SIZE)
            return label_size(p, i, n_params, arena, e);
        p->labels[i] = kinds[k].label;
        return 0;
    }
    return 0;
}

static bool has_digit(const char *s)
{
    return s[strcspn(s, "0123456789")] != '\0';
}

static bool only_letters(const char *s)
{
    for (; *s; s++)
        if (!is_alpha(*s))
            return false;
    return true;
}

/* Word sizes ("large") count only when no number says the size. */
static void prefer_number_sizes(struct parts *p)
{
    bool any = false;
    for (size_t i = 0; i < p->n; i++)
        any |= (p->labels[i] & SIZE) && has_digit(p->text[i]);
    for (size_t i = 0; any && i < p->n; i++)
        if ((p->labels[i] & SIZE) && only_letters(p->text[i]))
            p->labels[i] &= ~(unsigned)SIZE;
}

/* The base name runs from the left over words and versions; words behind it are finetunes; versions at its
 * end are not part of it. */
static void find_basename(struct parts *p)
{
    bool at_start = true;
    for (size_t i = 0; i < p->n; i++) {
        unsigned l = p->labels[i];
        unsigned char c = (unsigned char)p->text[i][0];
        if (at_start && ((l == 0 && (is_alpha((char)c) || c >= 0x80)) || (l & VERSION))) {
            p->labels[i] |= BASENAME;
        } else {
            at_start = false;
            if (l == 0)
                p->labels[i] = FINETUNE;
        }
    }
    for (size_t i = p->n; i-- > 0 && (p->labels[i] & BASENAME) && p->labels[i] != BASENAME;)
        p->labels[i] &= ~(unsigned)BASENAME;
}

/* Texts with `label` (and without `without`) joined with '-'; NULL when there is none. */
static int join(const char **out, const struct parts *p, unsigned label, unsigned without, bool distinct,
                struct arena *arena, struct err *e)
{
    const char *s = NULL;
    for (size_t i = 0; i < p->n; i++) {
        bool take = (p->labels[i] & label) && !(p->labels[i] & without);
        for (size_t k = 0; distinct && take && k < i; k++)
            take = !((p->labels[k] & label) && strcmp(p->text[k], p->text[i]) == 0);
        if (!take)
            continue;
        s = s ? arena_printf(arena, "%s-%s", s, p->text[i]) : p->text[i];
        if (!s)
            return no_memory(e);
    }
    *out = s;
    return 0;
}

static int split(struct parts *p, const char *name, struct arena *arena, struct err *e)
{
    while (*name) {
        size_t n = strcspn(name, "-");
        if (n && p->n < MAX_PARTS) {
            p->text[p->n] = arena_strndup(arena, name, n);
            if (!p->text[p->n++])
                return no_memory(e);
        }
        name += n + (name[n] == '-');
    }
    return 0;
}

int model_name_parse(struct model_name *out, const char *id, uint64_t n_params, struct arena *arena,
                     struct err *e)
{
    struct model_name m = {.full = id};
    struct parts p = {.n = 0};
    if (strchr(id, ' ')) { /* a sentence, not an id */
        *out = m;
        return 0;
    }
    const char *slash = strchr(id, '/');
    if (slash) {
        m.full = slash + 1;
        if (slash > id && id[0] != '.') { /* "./x" is a path */
            m.organization = arena_strndup(arena, id, (size_t)(slash - id));
            if (!m.organization)
                return no_memory(e);
        }
    }
    int rc = split(&p, m.full, arena, e);
    for (size_t i = 0; rc == 0 && i < p.n; i++)
        rc = label_part(&p, i, n_params, arena, e);
    if (rc != 0)
        return rc;
    prefer_number_sizes(&p);
    find_basename(&p);
    rc = join(&m.basename, &p, BASENAME, 0, false, arena, e);
    if (rc == 0)
        rc = join(&m.size_label, &p, SIZE, 0, true, arena, e);
    if (rc == 0)
        rc = join(&m.finetune, &p, FINETUNE, 0, false, arena, e);
    if (rc == 0)
        rc = join(&m.version, &p, VERSION, BASENAME, false, arena, e);
    if (rc != 0)
        return rc;
    if (!m.size_label && !m.finetune && !m.version)
        m.basename = NULL; /* too ambiguous */
    *out = m;
    return 0;
}

/* At least two significant digits. */
static const char *rounded(uint64_t count, struct arena *arena)
{
    static const struct {
        double above, scale;
        char suffix;
    } units[] = {{1e12, 1e-12, 'T'}, {1e9, 1e-9, 'B'}, {1e6, 1e-6, 'M'}, {-1, 1e-3, 'K'}};
    size_t u = 0;
    while ((double)count <= units[u].above)
        u++;
    double v = (double)count * units[u].scale;
    double whole = rint(v);
    int digits = whole == 0 ? 0 : whole < 10 ? 1 : 2;
    return arena_printf(arena, "%.*f%c", 2 - digits, v, units[u].suffix);
}

const char *model_name_size_label(uint64_t total, uint64_t shared, uint64_t expert, uint64_t n_experts,
                                  struct arena *arena)
{
    if (n_experts == 0)
        return rounded(total, arena);
    const char *size = rounded(shared + expert, arena);
    return size ? arena_printf(arena, "%llux%s", (unsigned long long)n_experts, size) : NULL;
}
