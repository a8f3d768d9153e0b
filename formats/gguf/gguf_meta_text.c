/* gguf_meta_text.c - see gguf_meta_text.h. */
#include "gguf_meta_text.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- scalars --- */

static bool parse_unsigned(const char *s, uint64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)s[0]))
        return false;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    *out = v;
    return errno == 0 && *end == 0;
}

static bool parse_signed(const char *s, int64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)s[0]) && !((s[0] == '-' || s[0] == '+') && isdigit((unsigned char)s[1])))
        return false;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    *out = v;
    return errno == 0 && *end == 0;
}

static bool parse_real(const char *s, double *out)
{
    char *end;
    if (!s[0] || isspace((unsigned char)s[0]))
        return false;
    *out = strtod(s, &end);
    return *end == 0 && isfinite(*out);
}

static bool parse_bool(const char *s, uint64_t *out)
{
    *out = strcmp(s, "true") == 0;
    return *out || strcmp(s, "false") == 0;
}

/* `s` as a scalar of type v->type; false when it is none. Strings borrow `s`. */
static bool parse_scalar(struct gguf_value *v, const char *s)
{
    static const struct {
        uint64_t max;
        int64_t min;
    } ranges[GGUF_TYPE_COUNT] = {
        [GGUF_U8] = {UINT8_MAX, 0},   [GGUF_I8] = {INT8_MAX, INT8_MIN},
        [GGUF_U16] = {UINT16_MAX, 0}, [GGUF_I16] = {INT16_MAX, INT16_MIN},
        [GGUF_U32] = {UINT32_MAX, 0}, [GGUF_I32] = {INT32_MAX, INT32_MIN},
        [GGUF_U64] = {UINT64_MAX, 0}, [GGUF_I64] = {INT64_MAX, INT64_MIN},
    };
    switch (v->type) {
    case GGUF_STRING: v->s = (struct gguf_string){s, strlen(s)}; return true;
    case GGUF_BOOL: return parse_bool(s, &v->u);
    case GGUF_F32: return parse_real(s, &v->f) && fabs(v->f) <= FLT_MAX;
    case GGUF_F64: return parse_real(s, &v->f);
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        return parse_signed(s, &v->i) && v->i >= ranges[v->type].min && v->i <= (int64_t)ranges[v->type].max;
    default: return parse_unsigned(s, &v->u) && v->u <= ranges[v->type].max;
    }
}

static enum gguf_type infer(const char *s)
{
    uint64_t u;
    int64_t i;
    double d;
    if (parse_bool(s, &u))
        return GGUF_BOOL;
    if (parse_unsigned(s, &u))
        return u <= UINT32_MAX ? GGUF_U32 : u <= INT64_MAX ? GGUF_I64 : GGUF_U64;
    if (parse_signed(s, &i))
        return i >= INT32_MIN && i <= INT32_MAX ? GGUF_I32 : GGUF_I64;
    return parse_real(s, &d) ? GGUF_F32 : GGUF_STRING;
}

/* --- arrays --- */

static size_t count_elements(const char *s)
{
    size_t n = s[0] != 0;
    for (; *s; s++)
        n += *s == ',';
    return n;
}

static int set_array(struct gguf_meta *into, const char *key, enum gguf_type elem, char *list, struct err *e)
{
    size_t n = count_elements(list), size = gguf_type_size(elem);
    struct gguf_string *strings = calloc(n + 1, sizeof *strings);
    uint8_t *packed = calloc(n + 1, size ? size : 1);
    int rc = strings && packed ? 0 : err_set(e, ERR_NOMEM, "out of memory for '%s'", key);
    char *s = list;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct gguf_value v = {.type = elem};
        char *comma = strchr(s, ',');
        if (comma)
            *comma = 0;
        if (!parse_scalar(&v, s)) {
            rc = err_set(e, ERR_ARG, "'%s': element %zu: expected a %s, found '%s'", key, i,
                         gguf_type_name(elem), s);
        } else if (elem == GGUF_STRING) {
            strings[i] = v.s;
        } else if (elem == GGUF_F32) {
            float f = (float)v.f;
            memcpy(packed + i * size, &f, size);
        } else {
            memcpy(packed + i * size, &v.u, size); /* little-endian: the low bytes, of F64 all of them */
        }
        s = comma ? comma + 1 : s + strlen(s);
    }
    if (rc == 0)
        rc = elem == GGUF_STRING ? gguf_meta_set_strings(into, key, strings, n, e)
                                 : gguf_meta_set_array(into, key, elem, packed, n, e);
    free(strings);
    free(packed);
    return rc;
}

/* --- the whole --- */

/* Keys that readers expect an array under; a file that lacks them cannot say so. */
static bool is_array_key(const char *key, enum gguf_type *elem)
{
    static const struct {
        const char *key;
        enum gguf_type elem;
    } arrays[] = {{"general.tags", GGUF_STRING},
                  {"general.languages", GGUF_STRING},
                  {"general.datasets", GGUF_STRING},
                  {"imatrix.datasets", GGUF_STRING},
                  {"tokenizer.chat_templates", GGUF_STRING},
                  {"tokenizer.ggml.tokens", GGUF_STRING},
                  {"tokenizer.ggml.merges", GGUF_STRING},
                  {"tokenizer.ggml.scores", GGUF_F32},
                  {"tokenizer.ggml.token_type", GGUF_I32}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        if (strcmp(arrays[i].key, key) == 0) {
            *elem = arrays[i].elem;
            return true;
        }
    return false;
}

/* "u32" or "u32[]"; false when it is no type. */
static bool parse_type(const char *s, enum gguf_type *type, bool *array)
{
    size_t n = strlen(s);
    *array = n > 2 && strcmp(s + n - 2, "[]") == 0;
    if (*array)
        n -= 2;
    for (int t = 0; t < GGUF_TYPE_COUNT; t++) {
        const char *name = gguf_type_name((enum gguf_type)t);
        if (t != GGUF_ARRAY && strlen(name) == n && memcmp(name, s, n) == 0) {
            *type = (enum gguf_type)t;
            return true;
        }
    }
    return false;
}

static int set_parsed(struct gguf_meta *into, const struct gguf_meta *old, char *key, char *value,
                      struct err *e)
{
    enum gguf_type type = GGUF_STRING;
    bool array = false;
    char *colon = strrchr(key, ':');
    const struct gguf_value *known;
    if (colon) {
        *colon = 0;
        if (!parse_type(colon + 1, &type, &array))
            return err_set(
                e, ERR_ARG,
                "'%s': unknown type '%s'; expected u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, bool, "
                "string, or one of them with []",
                key, colon + 1);
    } else if (old && (known = gguf_meta_find(old, key))) {
        array = known->type == GGUF_ARRAY;
        type = array ? known->a.elem : known->type;
    } else {
        array = is_array_key(key, &type);
        if (!array)
            type = infer(value);
    }
    if (!key[0])
        return err_set(e, ERR_ARG, "expected key=value, found an empty key");
    if (array)
        return set_array(into, key, type, value, e);
    struct gguf_value v = {.type = type};
    if (!parse_scalar(&v, value))
        return err_set(e, ERR_ARG, "'%s': expected a %s, found '%s'", key, gguf_type_name(type), value);
    return gguf_meta_set(into, key, &v, e);
}

int gguf_meta_set_text(struct gguf_meta *into, const struct gguf_meta *old, const char *text, struct err *e)
{
    const char *eq = strchr(text, '=');
    if (!eq)
        return err_set(e, ERR_ARG, "expected key=value or key:type=value, found '%s'", text);
    char *key = strndup(text, (size_t)(eq - text)), *value = strdup(eq + 1);
    int rc = key && value ? set_parsed(into, old, key, value, e) : err_set(e, ERR_NOMEM, "out of memory");
    free(key);
    free(value);
    return rc;
}
