/* arch_keys.c - the <architecture>.* metadata of a checkpoint (specification, architectures 0.5, 0.10).
 *
 * Order and types are those of llama.cpp's converter, so that a reader that checks types strictly is content
 * and a diff of two files stays short. */
#include "arch_rows.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const struct arch_key before_rope[] = {
    {.suffix = "context_length",
     .type = GGUF_U32,
     .field = "max_position_embeddings|n_ctx|n_positions|max_length|max_sequence_length|model_max_length",
     .required = true},
    {.suffix = "embedding_length", .type = GGUF_U32, .expr = "D", .required = true},
    {.suffix = "feed_forward_length", .type = GGUF_U32, .expr = "F"},
    {.suffix = "attention.head_count", .type = GGUF_U32, .expr = "H", .required = true},
    {.suffix = NULL},
};

static const struct arch_key after_rope[] = {
    {.suffix = "attention.layer_norm_rms_epsilon",
     .type = GGUF_F32,
     .field = "rms_norm_eps|norm_eps|layer_norm_epsilon",
     .required = true},
    {.suffix = "expert_count", .type = GGUF_U32, .expr = "E"},
    {.suffix = "expert_used_count", .type = GGUF_U32, .expr = "K"},
    {.suffix = NULL},
};

static int key_of(char *buf, size_t cap, const struct arch_model *a, const char *suffix, struct err *e)
{
    int n = snprintf(buf, cap, "%s.%s", a->arch->name, suffix);
    return n > 0 && (size_t)n < cap ? 0 : err_set(e, ERR_ARG, "metadata key '%s' is too long", suffix);
}

int arch_set_u32(const struct arch_model *a, struct gguf_meta *meta, const char *suffix, uint64_t v,
                 struct err *e)
{
    char key[128];
    int rc = key_of(key, sizeof key, a, suffix, e);
    if (rc != 0)
        return rc;
    if (v > UINT32_MAX)
        return err_set(e, ERR_FORMAT, "config.json: %s = %llu does not fit 32 bits", key,
                       (unsigned long long)v);
    return gguf_meta_set_u32(meta, key, (uint32_t)v, e);
}

bool arch_context(const struct arch_model *a, const struct gguf_meta *meta, uint64_t *out)
{
    char key[128];
    return key_of(key, sizeof key, a, before_rope[0].suffix, NULL) == 0 && gguf_meta_get_u64(meta, key, out);
}

int arch_set_strings(const struct arch_model *a, struct gguf_meta *meta, const char *suffix,
                     const struct gguf_string *v, size_t n, struct err *e)
{
    char key[128];
    int rc = key_of(key, sizeof key, a, suffix, e);
    return rc == 0 ? gguf_meta_set_strings(meta, key, v, n, e) : rc;
}

int arch_set_f32(const struct arch_model *a, struct gguf_meta *meta, const char *suffix, double v,
                 struct err *e)
{
    char key[128];
    int rc = key_of(key, sizeof key, a, suffix, e);
    if (rc != 0)
        return rc;
    if (!isfinite(v) || fabs(v) > (double)FLT_MAX)
        return err_set(e, ERR_FORMAT, "config.json: %s is not a finite 32-bit number", key);
    return gguf_meta_set_f32(meta, key, (float)v, e);
}

static int set_string(const struct arch_model *a, struct gguf_meta *meta, const char *suffix, const char *v,
                      struct err *e)
{
    char key[128];
    int rc = key_of(key, sizeof key, a, suffix, e);
    return rc != 0 ? rc : gguf_meta_set_string(meta, key, v, e);
}

/* The first field of the '|' list that has a value; with `stated_only` class defaults do not count. */
static const char *pick_field(const struct arch_model *a, const char *list, char *buf, size_t cap,
                              bool stated_only)
{
    while (*list) {
        size_t n = strcspn(list, "|");
        double v;
        if (n >= cap)
            return NULL;
        memcpy(buf, list, n);
        buf[n] = '\0';
        if (hf_config_get(a->config, buf) || (!stated_only && hf_config_number(a->config, buf, &v, NULL)))
            return buf;
        list += n + (list[n] == '|');
    }
    return NULL;
}

static int set_from_field(const struct arch_model *a, struct gguf_meta *meta, const struct arch_key *k,
                          struct err *e)
{
    char field[64], key[128];
    const char *name = pick_field(a, k->field, field, sizeof field, true);
    if (!name)
        name = pick_field(a, k->field, field, sizeof field, false);
    if (!name)
        return k->required ? err_set(e, ERR_FORMAT, "config.json: '%s' is missing", k->field) : 0;
    uint64_t u;
    double f;
    bool b;
    if (k->type == GGUF_U32 && hf_config_uint(a->config, name, &u, NULL))
        return arch_set_u32(a, meta, k->suffix, u, e);
    if (k->type == GGUF_F32 && hf_config_number(a->config, name, &f, NULL))
        return arch_set_f32(a, meta, k->suffix, f, e);
    if (k->type == GGUF_BOOL && hf_config_bool(a->config, name, &b, NULL)) {
        int rc = key_of(key, sizeof key, a, k->suffix, e);
        return rc != 0 ? rc : gguf_meta_set_bool(meta, key, b, e);
    }
    return err_set(e, ERR_FORMAT, "config.json: '%s' is not a %s", name, gguf_type_name(k->type));
}

static int set_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_key *keys,
                    struct err *e)
{
    int rc = 0;
    for (; rc == 0 && keys && keys->suffix; keys++) {
        uint64_t v;
        if (keys->field)
            rc = set_from_field(a, meta, keys, e);
        else if (arch_eval(a, keys->expr, &v))
            rc = arch_set_u32(a, meta, keys->suffix, v, e);
        else if (keys->required)
            rc = err_set(e, ERR_FORMAT, "config.json: no value for %s.%s", a->arch->name, keys->suffix);
    }
    return rc;
}

static int set_yarn(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    const struct hf_rope *r = &a->rope;
    uint64_t original = r->original_context;
    if (!r->has_original_context && !hf_config_uint(a->config, "max_position_embeddings", &original, NULL))
        return err_set(
            e, ERR_FORMAT,
            "[runtime-differs] config.json: yarn scaling without original_max_position_embeddings");
    int rc = set_string(a, meta, "rope.scaling.type", "yarn", e);
    if (rc == 0)
        rc = arch_set_f32(a, meta, "rope.scaling.factor", r->factor, e);
    if (rc == 0)
        rc = arch_set_u32(a, meta, "rope.scaling.original_context_length", original, e);
    if (rc == 0 && r->has_extrapolation_factor)
        rc = arch_set_f32(a, meta, "rope.scaling.yarn_ext_factor", r->extrapolation_factor, e);
    if (rc == 0 && !a->arch->runtime.latent && r->has_attention_factor)
        rc = arch_set_f32(a, meta, "rope.scaling.yarn_attn_factor", r->attention_factor, e);
    if (rc == 0 && r->has_beta_fast)
        rc = arch_set_f32(a, meta, "rope.scaling.yarn_beta_fast", r->beta_fast, e);
    if (rc == 0 && r->has_beta_slow)
        rc = arch_set_f32(a, meta, "rope.scaling.yarn_beta_slow", r->beta_slow, e);
    /* The runtime takes 1 + 0.1 ln(factor) whatever the key above says, and multiplies by this one. */
    double inferred = r->factor > 1 ? 1 + 0.1 * log(r->factor) : 1;
    if (rc == 0 && !a->arch->runtime.latent && r->has_attention_factor &&
        fabs(r->attention_factor - inferred) > 1e-6)
        rc = arch_set_f32(a, meta, "rope.scaling.attn_factor", r->attention_factor / inferred, e);
    if (rc == 0 && !r->truncate) { /* a key of our own, for our own forward pass */
        char key[128];
        rc = key_of(key, sizeof key, a, "ext.yarn_truncate", e);
        if (rc == 0)
            rc = gguf_meta_set_bool(meta, key, false, e);
        if (rc == 0)
            rc = w->add(w->ctx,
                        "[runtime-differs] config.json: yarn scaling without truncation of its range; "
                        "llama.cpp rounds the range, "
                        "results differ slightly",
                        e);
    }
    return rc;
}

static int set_rope_scaling(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                            struct err *e)
{
    const struct hf_rope *r = &a->rope;
    int rc;
    if (!r->has_factor && (r->type == ROPE_LINEAR || r->type == ROPE_YARN))
        return err_set(e, ERR_FORMAT, "config.json: rope_type '%s' without a 'factor'", r->type_name);
    switch (r->type) {
    case ROPE_DEFAULT:
        return !r->has_factor ? 0
                              : w->add(w->ctx,
                                       "[rope-factor-idle] config.json: the RoPE parameters have a factor, "
                                       "but no type that would use it; it has no effect, as in transformers",
                                       e);
    case ROPE_LINEAR:
        rc = set_string(a, meta, "rope.scaling.type", "linear", e);
        return rc != 0 ? rc : arch_set_f32(a, meta, "rope.scaling.factor", r->factor, e);
    case ROPE_YARN: return set_yarn(a, meta, w, e);
    case ROPE_LONGROPE:
        if (a->arch->quirks & ARCH_LONG_ROPE)
            return 0; /* tensors say it */
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: rope_type '%s' needs tensors of long and short factors, which are not "
                       "written for architecture '%s'",
                       r->type_name, a->arch->name);
    case ROPE_LLAMA3:
        if (a->arch->quirks & ARCH_ROPE_FREQS)
            return 0; /* a tensor says it */
        return err_set(e, ERR_UNSUPPORTED, "config.json: rope_type 'llama3' has no form in architecture '%s'",
                       a->arch->name);
    case ROPE_DYNAMIC:
        return w->add(w->ctx,
                      "[runtime-differs] config.json: rope_type 'dynamic' has no GGUF form; the model is "
                      "converted without it",
                      e);
    case ROPE_UNKNOWN: break;
    }
    return err_set(e, ERR_UNSUPPORTED, "config.json: rope_type '%s' is unknown",
                   r->type_name ? r->type_name : "?");
}

static int set_rope(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    int rc = set_rope_scaling(a, meta, w, e);
    if (rc == 0 && a->rope.n_mrope_sections != 0) {
        char key[128];
        rc = key_of(key, sizeof key, a, "rope.dimension_sections", e);
        if (rc == 0) /* unused entries are 0 */
            rc = gguf_meta_set_array(meta, key, GGUF_I32, a->rope.mrope_sections, 4, e);
    }
    return rc != 0 ? rc : arch_set_f32(a, meta, "rope.freq_base", a->rope.theta, e);
}

int arch_default_sections(const struct arch_model *a, struct gguf_meta *meta, const int32_t sections[4],
                          struct err *e)
{
    char key[128];
    int32_t own[4];
    if (a->rope.n_mrope_sections != 0)
        return 0;
    const uint64_t head = a->value[ARCH_HD];
    const bool fits = (uint64_t)(sections[0] + sections[1] + sections[2] + sections[3]) <= head;
    const int32_t third = (int32_t)((head / 2 + 2) / 3); /* of the pairs, which take turns: cuts nothing */
    for (int i = 0; i < 4; i++)
        own[i] = fits || sections[i] < third ? sections[i] : third;
    int rc = key_of(key, sizeof key, a, "rope.dimension_sections", e);
    return rc != 0 ? rc : gguf_meta_set_array(meta, key, GGUF_I32, own, 4, e);
}

int arch_add_deepstack(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    const struct json *root = hf_config_root(a->config), *vision = json_get(root, "vision_config");
    if (!vision)
        vision = json_get(json_get(root, "thinker_config"), "vision_config");
    return arch_set_u32(a, meta, "n_deepstack_layers",
                        json_n_children(json_get(vision, "deepstack_visual_indexes")), e);
}

int arch_add_common_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                         struct err *e)
{
    char key[128];
    bool causal;
    int rc = arch_set_u32(a, meta, "block_count", a->value[ARCH_L] + a->n_extra, e);
    if (rc == 0)
        rc = set_keys(a, meta, before_rope, e);
    if (rc == 0 && a->stated[ARCH_HKV])
        rc = arch_set_u32(a, meta, "attention.head_count_kv", a->value[ARCH_HKV], e);
    if (rc == 0 && hf_config_bool(a->config, "is_causal", &causal, NULL) && !causal) {
        rc = key_of(key, sizeof key, a, "attention.causal", e);
        if (rc == 0)
            rc = gguf_meta_set_bool(meta, key, false, e);
    }
    if (rc == 0)
        rc = set_rope(a, meta, w, e);
    if (rc == 0)
        rc = set_keys(a, meta, after_rope, e);
    if (rc == 0 && (a->stated[ARCH_HD] || (a->arch->quirks & ARCH_HEAD_DIM_KEY))) {
        rc = arch_set_u32(a, meta, "attention.key_length", a->value[ARCH_HD], e);
        if (rc == 0)
            rc = arch_set_u32(a, meta, "attention.value_length", a->value[ARCH_HD], e);
    }
    return rc;
}

int arch_add_own_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                      struct err *e)
{
    int rc = set_keys(a, meta, a->arch->keys, e);
    if (rc == 0 && a->arch->add_keys)
        rc = a->arch->add_keys(a, meta, w, e);
    return rc != 0 ? rc : arch_warn_dense_layers(a, w, e);
}

/* Float32 throughout, a division being a multiplication by the reciprocal where a number stands over a
 * tensor: so the converter whose files people compare with does it. */
void arch_rope_freqs(const struct arch_model *a, float *phi)
{
    const struct hf_rope *r = &a->rope;
    uint64_t d = a->value[ARCH_HD];
    float base = (float)r->theta;
    double factor = r->has_factor ? r->factor : 8.0;
    double low = r->has_low_freq_factor ? r->low_freq_factor : 1.0;
    double high = r->has_high_freq_factor ? r->high_freq_factor : 4.0;
    double context = r->has_original_context ? (double)r->original_context : 8192.0;
    for (uint64_t i = 0; i < d / 2; i++) {
        float freq = 1.0f / powf(base, (float)(2 * i) / (float)d);
        float wavelength = 1.0f / freq * (float)(2 * 3.14159265358979323846);
        if ((double)wavelength < context / high) {
            phi[i] = 1.0f;
        } else if ((double)wavelength > context / low) {
            phi[i] = (float)factor;
        } else {
            float smooth = (1.0f / wavelength * (float)context - (float)low) / (float)(high - low);
            phi[i] = 1.0f / ((1.0f - smooth) / (float)factor + smooth);
        }
    }
}
