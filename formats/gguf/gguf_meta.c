/* gguf_meta.c - see gguf_meta.h.
 *
 * Entries stand in file order in one array; a hash map finds them, so that a file of a million keys costs no
 * more per key than one of ten. Keys and copied values live in an arena: a replaced value stays there until
 * the list is freed, which is fine for the handful of edits a run makes. */
#include "gguf_meta.h"

#include "formats/utf8.h"
#include "libquant/base/arena.h"
#include "libquant/base/slice.h"
#include "libquant/base/strmap.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    const char *key;
    struct gguf_value value;
};

struct gguf_meta {
    struct arena arena;
    struct entry *entries;
    size_t n, cap;
    struct strmap index; /* key -> position */
};

static const struct {
    const char *name;
    size_t size;
} type_table[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_type_name(enum gguf_type t)
{
    return (unsigned)t < GGUF_TYPE_COUNT ? type_table[t].name : "?";
}

size_t gguf_type_size(enum gguf_type t)
{
    return (unsigned)t < GGUF_TYPE_COUNT ? type_table[t].size : 0;
}

static bool is_unsigned_int(enum gguf_type t)
{
    return t == GGUF_U8 || t == GGUF_U16 || t == GGUF_U32 || t == GGUF_U64;
}

static bool is_signed_int(enum gguf_type t)
{
    return t == GGUF_I8 || t == GGUF_I16 || t == GGUF_I32 || t == GGUF_I64;
}

int gguf_meta_new(struct gguf_meta **out, struct err *e)
{
    struct gguf_meta *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_NOMEM, "metadata: out of memory");
    *out = m;
    return 0;
}

void gguf_meta_free(struct gguf_meta *m)
{
    if (!m)
        return;
    strmap_release(&m->index);
    arena_release(&m->arena);
    free(m->entries);
    free(m);
}

size_t gguf_meta_n(const struct gguf_meta *m)
{
    return m->n;
}

const char *gguf_meta_key(const struct gguf_meta *m, size_t i)
{
    return m->entries[i].key;
}

const struct gguf_value *gguf_meta_value(const struct gguf_meta *m, size_t i)
{
    return &m->entries[i].value;
}

static struct entry *find_entry(const struct gguf_meta *m, const char *key)
{
    uint64_t i;
    return strmap_find(&m->index, key, strlen(key), &i) ? &m->entries[i] : NULL;
}

const struct gguf_value *gguf_meta_find(const struct gguf_meta *m, const char *key)
{
    const struct entry *x = find_entry(m, key);
    return x ? &x->value : NULL;
}

/* --- setting --- */

/* `key` is in the arena and not yet in the list. */
static int append(struct gguf_meta *m, const char *key, const struct gguf_value *v)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? m->cap * 2 : 64;
        struct entry *p = realloc(m->entries, cap * sizeof *p);
        if (!p)
            return ERR_NOMEM;
        m->entries = p;
        m->cap = cap;
    }
    if (strmap_put(&m->index, key, strlen(key), m->n, NULL) != 0)
        return ERR_NOMEM;
    m->entries[m->n].key = key;
    m->entries[m->n++].value = *v;
    return 0;
}

static int no_memory(struct err *e, const char *key)
{
    return err_set(e, ERR_NOMEM, "key '%s': out of memory", key);
}

struct gguf_string *gguf_meta_new_strings(struct gguf_meta *m, uint64_t n)
{
    return arena_array(&m->arena, n, sizeof(struct gguf_string));
}

/* All texts in one block: a vocabulary has hundreds of thousands of short ones. */
static const void *copy_strings(struct gguf_meta *m, const struct gguf_string *from, uint64_t n)
{
    struct gguf_string *to = gguf_meta_new_strings(m, n);
    size_t total = 0;
    for (uint64_t i = 0; i < n; i++)
        if (__builtin_add_overflow(total, from[i].len, &total))
            return NULL;
    char *text = to ? arena_alloc(&m->arena, total) : NULL;
    if (!text)
        return NULL;
    for (uint64_t i = 0; i < n; i++) {
        to[i].data = text;
        to[i].len = from[i].len;
        if (from[i].len)
            memcpy(text, from[i].data, from[i].len);
        text += from[i].len;
    }
    return to;
}

/* Make `v`'s string or array the list's own; false when memory is refused. */
static bool own_value(struct gguf_meta *m, struct gguf_value *v)
{
    if (v->type == GGUF_STRING) {
        v->s.data = arena_strndup(&m->arena, v->s.data, v->s.len);
        return v->s.data != NULL;
    }
    if (v->type != GGUF_ARRAY)
        return true;
    if (v->a.elem == GGUF_STRING) {
        v->a.data = copy_strings(m, v->a.data, v->a.n);
        return v->a.data != NULL;
    }
    void *p = arena_array(&m->arena, v->a.n, gguf_type_size(v->a.elem));
    if (p && v->a.n)
        memcpy(p, v->a.data, v->a.n * gguf_type_size(v->a.elem));
    v->a.data = p;
    return p != NULL;
}

/* What is wrong with a value that a program (not a file) brings; NULL when nothing is. */
static const char *value_problem(const struct gguf_value *v)
{
    size_t bits = 8 * gguf_type_size(v->type);
    if (v->type == GGUF_BOOL)
        return v->u <= 1 ? NULL : "a bool must be 0 or 1";
    if (is_unsigned_int(v->type))
        return bits == 64 || v->u >> bits == 0 ? NULL : "the value does not fit its type";
    if (is_signed_int(v->type)) {
        int64_t limit = bits == 64 ? INT64_MAX : ((int64_t)1 << (bits - 1)) - 1;
        return v->i <= limit && v->i >= -limit - 1 ? NULL : "the value does not fit its type";
    }
    if (v->type == GGUF_STRING)
        return utf8_valid(v->s.data, v->s.len) ? NULL : "the string is not UTF-8";
    if (v->type == GGUF_ARRAY && v->a.elem != GGUF_STRING && gguf_type_size(v->a.elem) == 0)
        return "arrays hold numbers, bools or strings only";
    return (unsigned)v->type < GGUF_TYPE_COUNT ? NULL : "unknown value type";
}

int gguf_meta_set(struct gguf_meta *m, const char *key, const struct gguf_value *v, struct err *e)
{
    if (!*key)
        return err_set(e, ERR_ARG, "a metadata key must not be empty");
    if (!utf8_valid(key, strlen(key)))
        return err_set(e, ERR_ARG, "key '%s': is not UTF-8", key);
    const char *problem = value_problem(v);
    if (problem)
        return err_set(e, ERR_ARG, "key '%s': %s", key, problem);
    struct gguf_value own = *v;
    if (own.type == GGUF_F32)
        own.f = (float)own.f; /* what the file will hold */
    if (!own_value(m, &own))
        return no_memory(e, key);
    struct entry *old = find_entry(m, key);
    if (old) {
        old->value = own;
        return 0;
    }
    const char *name = arena_strdup(&m->arena, key);
    return name && append(m, name, &own) == 0 ? 0 : no_memory(e, key);
}

int gguf_meta_append_borrowed(struct gguf_meta *m, const char *key, size_t key_len,
                              const struct gguf_value *v, struct err *e)
{
    if (key_len == 0)
        return err_set(e, ERR_FORMAT, "an empty key");
    if (!utf8_valid(key, key_len) || memchr(key, 0, key_len))
        return err_set(e, ERR_FORMAT, "a key that is not UTF-8 text: '%.*s'",
                       key_len > 64 ? 64 : (int)key_len, key);
    if (strmap_find(&m->index, key, key_len, NULL))
        return err_set(e, ERR_FORMAT, "duplicate key '%.*s'", key_len > 200 ? 200 : (int)key_len, key);
    const char *name = arena_strndup(&m->arena, key, key_len);
    return name && append(m, name, v) == 0 ? 0 : no_memory(e, "?");
}

bool gguf_meta_remove(struct gguf_meta *m, const char *key)
{
    struct entry *x = find_entry(m, key);
    if (!x)
        return false;
    /* The map has no removal: fill it again, in the room it has, so that nothing can fail. */
    memmove(x, x + 1, (size_t)(m->entries + m->n - (x + 1)) * sizeof *x);
    m->n--;
    strmap_clear(&m->index);
    for (size_t i = 0; i < m->n; i++)
        strmap_put(&m->index, m->entries[i].key, strlen(m->entries[i].key), i, NULL);
    return true;
}

int gguf_meta_copy(struct gguf_meta **out, const struct gguf_meta *m, struct err *e)
{
    struct gguf_meta *c = NULL;
    int rc = gguf_meta_new(&c, e);
    for (size_t i = 0; i < m->n && rc == 0; i++) {
        struct gguf_value own = m->entries[i].value;
        const char *key = arena_strdup(&c->arena, m->entries[i].key);
        if (!key || !own_value(c, &own) || append(c, key, &own) != 0)
            rc = no_memory(e, m->entries[i].key);
    }
    if (rc) {
        gguf_meta_free(c);
        return rc;
    }
    *out = c;
    return 0;
}

int gguf_meta_set_u32(struct gguf_meta *m, const char *key, uint32_t v, struct err *e)
{
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_U32, .u = v}, e);
}

int gguf_meta_set_i32(struct gguf_meta *m, const char *key, int32_t v, struct err *e)
{
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_I32, .i = v}, e);
}

int gguf_meta_set_u16(struct gguf_meta *m, const char *key, uint16_t v, struct err *e)
{
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_U16, .u = v}, e);
}

int gguf_meta_set_u64(struct gguf_meta *m, const char *key, uint64_t v, struct err *e)
{
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_U64, .u = v}, e);
}

int gguf_meta_set_f32(struct gguf_meta *m, const char *key, float v, struct err *e)
{
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_F32, .f = v}, e);
}

int gguf_meta_set_bool(struct gguf_meta *m, const char *key, bool v, struct err *e)
{
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_BOOL, .u = v}, e);
}

int gguf_meta_set_string(struct gguf_meta *m, const char *key, const char *v, struct err *e)
{
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_STRING, .s = {v, strlen(v)}}, e);
}

int gguf_meta_set_strings(struct gguf_meta *m, const char *key, const struct gguf_string *v, uint64_t n,
                          struct err *e)
{
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_ARRAY, .a = {GGUF_STRING, n, v}}, e);
}

int gguf_meta_set_array(struct gguf_meta *m, const char *key, enum gguf_type elem, const void *data,
                        uint64_t n, struct err *e)
{
    if (gguf_type_size(elem) == 0)
        return err_set(e, ERR_ARG, "key '%s': an array of %s cannot be set from packed elements", key,
                       gguf_type_name(elem));
    return gguf_meta_set(m, key, &(struct gguf_value){.type = GGUF_ARRAY, .a = {elem, n, data}}, e);
}

/* --- getting --- */

bool gguf_meta_get_u64(const struct gguf_meta *m, const char *key, uint64_t *out)
{
    const struct gguf_value *v = gguf_meta_find(m, key);
    if (!v || !(is_unsigned_int(v->type) || (is_signed_int(v->type) && v->i >= 0)))
        return false;
    *out = is_unsigned_int(v->type) ? v->u : (uint64_t)v->i;
    return true;
}

bool gguf_meta_get_i64(const struct gguf_meta *m, const char *key, int64_t *out)
{
    const struct gguf_value *v = gguf_meta_find(m, key);
    if (!v || !(is_signed_int(v->type) || (is_unsigned_int(v->type) && v->u <= INT64_MAX)))
        return false;
    *out = is_signed_int(v->type) ? v->i : (int64_t)v->u;
    return true;
}

bool gguf_meta_get_f64(const struct gguf_meta *m, const char *key, double *out)
{
    const struct gguf_value *v = gguf_meta_find(m, key);
    if (!v)
        return false;
    if (v->type == GGUF_F32 || v->type == GGUF_F64)
        *out = v->f;
    else if (is_unsigned_int(v->type))
        *out = (double)v->u;
    else if (is_signed_int(v->type))
        *out = (double)v->i;
    else
        return false;
    return true;
}

bool gguf_meta_get_bool(const struct gguf_meta *m, const char *key, bool *out)
{
    const struct gguf_value *v = gguf_meta_find(m, key);
    if (!v || v->type != GGUF_BOOL)
        return false;
    *out = v->u != 0;
    return true;
}

bool gguf_meta_get_string(const struct gguf_meta *m, const char *key, struct gguf_string *out)
{
    const struct gguf_value *v = gguf_meta_find(m, key);
    if (!v || v->type != GGUF_STRING)
        return false;
    *out = v->s;
    return true;
}

/* Integer element of any width; false for floats, strings, and U64 values beyond int64. */
static bool element_i64(enum gguf_type t, const uint8_t *p, int64_t *out)
{
    uint64_t u;
    switch (t) {
    case GGUF_U8:
    case GGUF_BOOL: *out = p[0]; return true;
    case GGUF_I8: *out = (int8_t)p[0]; return true;
    case GGUF_U16: *out = load_u16(p); return true;
    case GGUF_I16: *out = (int16_t)load_u16(p); return true;
    case GGUF_U32: *out = load_u32(p); return true;
    case GGUF_I32: *out = (int32_t)load_u32(p); return true;
    case GGUF_I64: *out = (int64_t)load_u64(p); return true;
    case GGUF_U64:
        u = load_u64(p);
        *out = (int64_t)u;
        return u <= INT64_MAX;
    default: return false;
    }
}

static const uint8_t *element(const struct gguf_value *v, uint64_t i)
{
    if (!v || v->type != GGUF_ARRAY || i >= v->a.n || gguf_type_size(v->a.elem) == 0)
        return NULL;
    return (const uint8_t *)v->a.data + i * gguf_type_size(v->a.elem);
}

bool gguf_array_f64(const struct gguf_value *v, uint64_t i, double *out)
{
    const uint8_t *p = element(v, i);
    int64_t n;
    if (!p)
        return false;
    if (v->a.elem == GGUF_F32)
        *out = load_f32(p);
    else if (v->a.elem == GGUF_F64)
        *out = load_f64(p);
    else if (v->a.elem == GGUF_U64)
        *out = (double)load_u64(p);
    else if (element_i64(v->a.elem, p, &n))
        *out = (double)n;
    else
        return false;
    return true;
}

bool gguf_array_i64(const struct gguf_value *v, uint64_t i, int64_t *out)
{
    const uint8_t *p = element(v, i);
    int64_t n;
    if (!p || !element_i64(v->a.elem, p, &n))
        return false;
    *out = n;
    return true;
}

bool gguf_array_string(const struct gguf_value *v, uint64_t i, struct gguf_string *out)
{
    if (!v || v->type != GGUF_ARRAY || v->a.elem != GGUF_STRING || i >= v->a.n)
        return false;
    *out = ((const struct gguf_string *)v->a.data)[i];
    return true;
}

/* --- comparing --- */

static bool same_string(struct gguf_string a, struct gguf_string b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool gguf_string_is(struct gguf_string s, const char *literal)
{
    return same_string(s, (struct gguf_string){literal, strlen(literal)});
}

bool gguf_value_equal(const struct gguf_value *a, const struct gguf_value *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == GGUF_STRING)
        return same_string(a->s, b->s);
    if (a->type == GGUF_F32 || a->type == GGUF_F64) /* by bits: a NaN equals itself, 0 and -0 differ */
        return memcmp(&a->f, &b->f, sizeof a->f) == 0;
    if (a->type != GGUF_ARRAY)
        return a->u == b->u;
    if (a->a.elem != b->a.elem || a->a.n != b->a.n)
        return false;
    if (a->a.elem != GGUF_STRING)
        return a->a.n == 0 || memcmp(a->a.data, b->a.data, a->a.n * gguf_type_size(a->a.elem)) == 0;
    const struct gguf_string *x = a->a.data, *y = b->a.data;
    for (uint64_t i = 0; i < a->a.n; i++)
        if (!same_string(x[i], y[i]))
            return false;
    return true;
}
