/* kv_type.c - see kv_type.h. */
#include "kv_type.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const enum qtype types[] = {QTYPE_F32,  QTYPE_F16,  QTYPE_BF16, QTYPE_Q8_0,
                                   QTYPE_Q5_1, QTYPE_Q5_0, QTYPE_Q4_1, QTYPE_Q4_0};

static bool parse_type(enum qtype *out, const char *text, size_t n)
{
    char name[8] = "";
    enum qtype type;
    if (n >= sizeof name)
        return false;
    memcpy(name, text, n);
    if (!qtype_from_name(name, &type))
        return false;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i] == type) {
            *out = type;
            return true;
        }
    return false;
}

bool kv_cache_parse(struct kv_cache *out, const char *text)
{
    struct kv_cache c;
    size_t n = strcspn(text, ",/");
    const char *values = text[n] ? text + n + 1 : text;
    if (!parse_type(&c.k, text, n) || !parse_type(&c.v, values, text[n] ? strlen(values) : n))
        return false;
    *out = c;
    return true;
}

bool kv_cache_is_exact(const struct kv_cache *c)
{
    return c->k == QTYPE_F32 && c->v == QTYPE_F32;
}

bool kv_cache_is_equal(const struct kv_cache *a, const struct kv_cache *b)
{
    return a->k == b->k && a->v == b->v;
}

const char *kv_cache_name(const struct kv_cache *c, char out[KV_CACHE_NAME])
{
    const char *k = qtype_name((uint32_t)c->k), *v = qtype_name((uint32_t)c->v);
    snprintf(out, KV_CACHE_NAME, c->k == c->v ? "%s" : "%s,%s", k, v);
    for (char *p = out; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return out;
}
