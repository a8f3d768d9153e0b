/* hf_rope.c - RoPE parameters of both config layouts in one record (specification, architectures 0.5).
 *
 * Where both layouts stand, rope_scaling decides, as in transformers 5. Every value is read through
 * read_number, so that a wrong kind is an error with the key's name and never a silent default. */
#include "hf_config_internal.h"

#include <math.h>
#include <string.h>

/* Where a key is looked up: the scaling object first, then, for the names of step 3, 5 and 6, the config. */
struct scope {
    const struct hf_config *c;
    const struct json *r;     /* rope_parameters, rope_scaling, their full_attention part, or NULL */
    const struct json *other; /* the block that `r` displaces, or NULL */
};

static const struct json *in_object(const struct scope *s, const char *key)
{
    const struct json *j = json_get(s->r, key);
    return json_is_null(j) ? NULL : j;
}

static int wrong_kind(const struct scope *s, const char *key, const char *expected, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: RoPE parameter '%s' must be %s", s->c->what, key, expected);
}

/* *has stays false when `j` is NULL. */
static int read_number(double *out, bool *has, const struct json *j, const struct scope *s, const char *key,
                       struct err *e)
{
    double v;
    if (!j)
        return 0;
    if (!json_number(j, &v) || !isfinite(v))
        return wrong_kind(s, key, "a finite number", e);
    *out = v;
    *has = true;
    return 0;
}

/* The first stated of a NULL-terminated list of top-level keys. */
static const struct json *first_of(const struct scope *s, const char *const *keys)
{
    for (; *keys; keys++) {
        const struct json *j = hf_config_get(s->c, *keys);
        if (j)
            return j;
    }
    return NULL;
}

static int read_theta(struct hf_rope *out, const struct scope *s, struct err *e)
{
    static const char *const keys[] = {"global_rope_theta", "rope_global_theta", "rope_theta_global",
                                       "rope_theta",        "rotary_emb_base",   NULL};
    const struct json *j = in_object(s, "rope_theta");
    bool has = false;
    int rc = read_number(&out->theta, &has, j ? j : first_of(s, keys), s, "rope_theta", e);
    if (rc == 0 && !has && !hf_config_number(s->c, "rope_theta", &out->theta, NULL))
        out->theta = 1e4; /* every class without an own default uses this one */
    if (rc == 0 && !(out->theta > 0))
        rc = wrong_kind(s, "rope_theta", "positive", e);
    return rc;
}

static int read_partial(struct hf_rope *out, const struct scope *s, struct err *e)
{
    static const char *const keys[] = {"partial_rotary_factor", "rope_pct", "rope_percent", "rotary_pct",
                                       NULL};
    const struct json *j = in_object(s, "partial_rotary_factor");
    bool has = false;
    double *v = &out->partial_rotary_factor;
    int rc = read_number(v, &has, j ? j : first_of(s, keys), s, "partial_rotary_factor", e);
    if (rc == 0 && !has && !hf_config_number(s->c, "partial_rotary_factor", v, NULL))
        *v = 1;
    if (rc == 0 && !(*v > 0 && *v <= 1))
        rc = wrong_kind(s, "partial_rotary_factor", "in (0, 1]", e);
    return rc;
}

static int read_type(struct hf_rope *out, const struct scope *s, struct err *e)
{
    static const struct {
        const char *name;
        enum rope_type type;
    } types[] = {{"default", ROPE_DEFAULT}, {"mrope", ROPE_DEFAULT},    {"linear", ROPE_LINEAR},
                 {"yarn", ROPE_YARN},       {"llama3", ROPE_LLAMA3},    {"dynamic", ROPE_DYNAMIC},
                 {"su", ROPE_LONGROPE},     {"longrope", ROPE_LONGROPE}};
    const struct json *j = in_object(s, "rope_type");
    if (!j)
        j = in_object(s, "type");
    out->type_name = "default";
    if (j) {
        if (!json_is_string(j))
            return wrong_kind(s, "rope_type", "a string", e);
        out->type_name = json_string(j);
    }
    out->type = ROPE_UNKNOWN;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, out->type_name) == 0)
            out->type = types[i].type;
    return 0;
}

static int read_scaling(struct hf_rope *out, const struct scope *s, struct err *e)
{
    const struct {
        const char *key, *other; /* a second spelling, or NULL */
        double *value;
        bool *has;
    } fields[] = {
        {"factor", NULL, &out->factor, &out->has_factor},
        {"extrapolation_factor", NULL, &out->extrapolation_factor, &out->has_extrapolation_factor},
        {"attention_factor", "attn_factor", &out->attention_factor, &out->has_attention_factor},
        {"beta_fast", NULL, &out->beta_fast, &out->has_beta_fast},
        {"beta_slow", NULL, &out->beta_slow, &out->has_beta_slow},
        {"low_freq_factor", NULL, &out->low_freq_factor, &out->has_low_freq_factor},
        {"high_freq_factor", NULL, &out->high_freq_factor, &out->has_high_freq_factor},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const struct json *j = in_object(s, fields[i].key);
        if (!j && fields[i].other)
            j = in_object(s, fields[i].other);
        int rc = read_number(fields[i].value, fields[i].has, j, s, fields[i].key, e);
        if (rc != 0)
            return rc;
    }
    if (out->has_factor && !(out->factor > 0))
        return wrong_kind(s, "factor", "positive", e);
    out->has_beta_fast &= out->beta_fast != 0; /* zero is "not stated" there */
    out->has_beta_slow &= out->beta_slow != 0;

    /* transformers prefers the top-level key when both are there */
    static const char original[] = "original_max_position_embeddings";
    const struct json *j = hf_config_get(s->c, original);
    if (!j)
        j = in_object(s, original);
    if (j && (!json_uint(j, &out->original_context) || out->original_context == 0))
        return wrong_kind(s, original, "a positive whole number", e);
    out->has_original_context = j != NULL;

    out->truncate = true; /* the reference's default */
    j = in_object(s, "truncate");
    if (j && !json_bool(j, &out->truncate))
        return wrong_kind(s, "truncate", "true or false", e);
    out->has_truncate = j != NULL;
    out->short_factor = in_object(s, "short_factor");
    out->long_factor = in_object(s, "long_factor");
    return 0;
}

static int read_sections(struct hf_rope *out, const struct scope *s, struct err *e)
{
    const struct json *sections = in_object(s, "mrope_section");
    if (!sections) /* of no weight for texts, whose positions are equal in all sections */
        sections = json_get(s->other, "mrope_section");
    if (!sections || json_is_null(sections))
        return 0;
    if (!json_is_array(sections))
        return wrong_kind(s, "mrope_section", "an array", e);
    for (const struct json *j = json_first(sections); j; j = json_next(j)) {
        uint64_t v;
        if (out->n_mrope_sections == 4 || !json_uint(j, &v) || v > INT32_MAX)
            return wrong_kind(s, "mrope_section", "at most 4 whole numbers", e);
        out->mrope_sections[out->n_mrope_sections++] = (int32_t)v;
    }
    return 0;
}

/* YaRN's magnitude from its two multipliers of the logarithm, where the file states no attention_factor; and
 * its factor from the two contexts, where the file leaves it out. As transformers computes them. */
static int infer_yarn(struct hf_rope *out, const struct scope *s, struct err *e)
{
    double mscale = 0, all = 0;
    uint64_t context;
    bool has_mscale = false, has_all = false;
    int rc = read_number(&mscale, &has_mscale, in_object(s, "mscale"), s, "mscale", e);
    if (rc == 0)
        rc = read_number(&all, &has_all, in_object(s, "mscale_all_dim"), s, "mscale_all_dim", e);
    if (rc == 0 && !out->has_factor && json_is_null(json_get(s->r, "factor")) && out->has_original_context &&
        hf_config_uint(s->c, "max_position_embeddings", &context, NULL)) {
        out->factor = (double)context / (double)out->original_context;
        out->has_factor = out->factor > 0;
    }
    if (rc != 0 || out->has_attention_factor || !(has_mscale && has_all && mscale != 0 && all != 0))
        return rc;
    double grown = out->has_factor && out->factor > 1 ? 0.1 * log(out->factor) : 0;
    out->attention_factor = (grown * mscale + 1) / (grown * all + 1);
    out->has_attention_factor = true;
    return 0;
}

static bool is_block(const struct json *j)
{
    return json_is_object(j) && json_first(j);
}

/* Both layouts at once: the older block decides, as in transformers, and the newer one is not looked at. That
 * is meant where a user adds a scaling to a configuration that has none; where the newer block says something
 * that gets lost, nobody can have meant it. */
static int check_displaced(const struct hf_rope *rope, const struct scope *s, struct err *e)
{
    static const char *const keys[] = {"factor",           "original_max_position_embeddings",
                                       "attention_factor", "beta_fast",
                                       "beta_slow",        "low_freq_factor",
                                       "high_freq_factor"};
    struct hf_rope older = {0};
    struct scope other = {s->c, s->other, NULL};
    if (!s->other)
        return 0;
    int rc = read_type(&older, &other, e);
    if (rc != 0)
        return rc;
    const char *key = NULL;
    double v;
    if (older.type != ROPE_DEFAULT && older.type != rope->type)
        key = "rope_type";
    for (size_t i = 0; !key && older.type != ROPE_DEFAULT && i < sizeof keys / sizeof *keys; i++) {
        double a, b;
        if (json_number(in_object(&other, keys[i]), &a) &&
            !(json_number(in_object(s, keys[i]), &b) && a == b))
            key = keys[i];
    }
    if (!key && json_number(in_object(&other, "rope_theta"), &v) && v != rope->theta)
        key = "rope_theta";
    if (!key && json_number(in_object(&other, "partial_rotary_factor"), &v) &&
        v != rope->partial_rotary_factor)
        key = "partial_rotary_factor";
    if (key)
        return err_set(
            e, ERR_FORMAT,
            "%s: rope_scaling displaces rope_parameters, as in transformers, but '%s' of the latter "
            "would be lost; put all values into one of the two blocks",
            s->c->what, key);
    return 0;
}

int hf_config_rope(const struct hf_config *c, struct hf_rope *out, struct err *e)
{
    struct hf_rope rope = {0};
    struct scope s = {.c = c};
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    const struct json *blocks[2];
    for (size_t i = 0; i < 2; i++) {
        blocks[i] = hf_config_get(c, names[i]);
        if (blocks[i] && !json_is_object(blocks[i]))
            return err_set(e, ERR_FORMAT, "%s: %s must be an object or null", c->what, names[i]);
    }
    s.r = is_block(blocks[0]) ? blocks[0] : blocks[1];
    s.other = is_block(blocks[0]) && is_block(blocks[1]) ? blocks[1] : NULL;
    /* Parameters per layer type: those of full attention are the model's main ones. */
    if (json_is_object(json_get(s.r, "full_attention")))
        s.r = json_get(s.r, "full_attention");
    if (json_is_object(json_get(s.other, "full_attention")))
        s.other = json_get(s.other, "full_attention");
    int rc = read_theta(&rope, &s, e);
    if (rc == 0)
        rc = read_partial(&rope, &s, e);
    if (rc == 0)
        rc = read_type(&rope, &s, e);
    if (rc == 0)
        rc = read_scaling(&rope, &s, e);
    if (rc == 0 && rope.type == ROPE_YARN)
        rc = infer_yarn(&rope, &s, e);
    if (rc == 0)
        rc = read_sections(&rope, &s, e);
    if (rc == 0)
        rc = check_displaced(&rope, &s, e);
    if (rc == 0)
        *out = rope;
    return rc;
}
