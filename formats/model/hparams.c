/* hparams.c - see hparams.h. */
#include "hparams.h"

#include "formats/arch/arch.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum kind { COUNT, REAL, FLAG, TEXT };

#define NO_SYMBOL ARCH_N_SYMBOLS
#define AT(field) offsetof(struct hparams, field)

/* Every key that is read. `symbol`: its name in the shapes of a descriptor; `needed`: no runtime starts a
 * model of any family without it. */
static const struct row {
    const char *suffix;
    enum kind kind;
    size_t offset;
    enum arch_symbol symbol;
    bool needed;
} rows[] = {
    {"context_length", COUNT, AT(context), NO_SYMBOL, true},
    {"embedding_length", COUNT, AT(width), ARCH_D, true},
    {"block_count", COUNT, AT(n_blocks), ARCH_L, true},
    {"nextn_predict_layers", COUNT, AT(n_predict), NO_SYMBOL, false},
    {"num_loops", COUNT, AT(n_loops), NO_SYMBOL, false},
    {"attention.head_count", COUNT, AT(n_heads), ARCH_H, true},
    {"attention.head_count_kv", COUNT, AT(n_kv_heads), ARCH_HKV, false},
    {"attention.key_length", COUNT, AT(key_dim), ARCH_HD, false},
    {"attention.value_length", COUNT, AT(value_dim), NO_SYMBOL, false},
    {"attention.q_lora_rank", COUNT, AT(q_latent), ARCH_QR, false},
    {"attention.kv_lora_rank", COUNT, AT(kv_latent), ARCH_KR, false},
    {"attention.key_length_mla", COUNT, AT(full_key_dim), NO_SYMBOL, false},
    {"attention.value_length_mla", COUNT, AT(full_value_dim), ARCH_DM, false},
    {"attention.sliding_window", COUNT, AT(window), NO_SYMBOL, false},
    {"attention.sliding_window_pattern", COUNT, AT(window_pattern), NO_SYMBOL, false},
    {"attention.recurrent_layers", COUNT, AT(recurrent), NO_SYMBOL, false},
    {"full_attention_interval", COUNT, AT(full_interval), NO_SYMBOL, false},
    {"feed_forward_length", COUNT, AT(ffn_width), ARCH_F, false},
    {"expert_count", COUNT, AT(n_experts), ARCH_E, false},
    {"expert_used_count", COUNT, AT(n_experts_used), ARCH_K, false},
    {"expert_feed_forward_length", COUNT, AT(expert_width), ARCH_FE, false},
    {"expert_shared_feed_forward_length", COUNT, AT(shared_width), ARCH_FS, false},
    {"expert_group_count", COUNT, AT(n_expert_groups), NO_SYMBOL, false},
    {"expert_group_used_count", COUNT, AT(n_expert_groups_used), NO_SYMBOL, false},
    {"expert_shared_count", COUNT, AT(n_shared_experts), ARCH_ES, false},
    {"expert_gating_func", COUNT, AT(expert_gating), NO_SYMBOL, false},
    {"leading_dense_block_count", COUNT, AT(n_dense_first), NO_SYMBOL, false},
    {"interleave_moe_layer_step", COUNT, AT(moe_step), NO_SYMBOL, false},
    {"moe_every_n_layers", COUNT, AT(moe_period), NO_SYMBOL, false},
    {"expert_weights_norm", FLAG, AT(expert_norm), NO_SYMBOL, false},
    {"expert_weights_scale", REAL, AT(expert_scale), NO_SYMBOL, false},
    {"ssm.conv_kernel", COUNT, AT(ssm_kernel), ARCH_KC, false},
    {"ssm.state_size", COUNT, AT(ssm_state), ARCH_DK, false},
    {"ssm.group_count", COUNT, AT(ssm_groups), ARCH_HK, false},
    {"ssm.time_step_rank", COUNT, AT(ssm_heads), ARCH_HV, false},
    {"ssm.inner_size", COUNT, AT(ssm_inner), NO_SYMBOL, false},
    {"attention.layer_norm_rms_epsilon", REAL, AT(eps), NO_SYMBOL, true},
    {"attention.scale", REAL, AT(attention_scale), NO_SYMBOL, false},
    {"embedding_scale", REAL, AT(embedding_scale), NO_SYMBOL, false},
    {"residual_scale", REAL, AT(residual_scale), NO_SYMBOL, false},
    {"logit_scale", REAL, AT(logit_scale), NO_SYMBOL, false},
    {"attn_logit_softcapping", REAL, AT(attention_cap), NO_SYMBOL, false},
    {"final_logit_softcapping", REAL, AT(logit_cap), NO_SYMBOL, false},
    {"rope.dimension_count", COUNT, AT(rope_n_rot), ARCH_R, false},
    {"rope.freq_base", REAL, AT(rope_theta), NO_SYMBOL, false},
    {"rope.freq_base_swa", REAL, AT(rope_local_theta), NO_SYMBOL, false},
    {"rope.scaling.type", TEXT, AT(rope_scaling), NO_SYMBOL, false},
    {"rope.scaling.factor", REAL, AT(rope_factor), NO_SYMBOL, false},
    {"rope.scaling.original_context_length", REAL, AT(rope_context), NO_SYMBOL, false},
    {"rope.scaling.yarn_beta_fast", REAL, AT(rope_beta_fast), NO_SYMBOL, false},
    {"rope.scaling.yarn_beta_slow", REAL, AT(rope_beta_slow), NO_SYMBOL, false},
    {"rope.scaling.attn_factor", REAL, AT(rope_attn_scale), NO_SYMBOL, false},
    {"rope.scaling.yarn_attn_factor", REAL, AT(rope_attn_factor), NO_SYMBOL, false},
    {"rope.scaling.yarn_log_multiplier", REAL, AT(rope_log_multiplier), NO_SYMBOL, false},
    {"ext.yarn_truncate", FLAG, AT(yarn_truncate), NO_SYMBOL, false},
    {"ext.dynamic_ntk", FLAG, AT(dynamic_ntk), NO_SYMBOL, false},
    {"ext.logn_attention", FLAG, AT(logn_attention), NO_SYMBOL, false},
    {"ext.train_length", COUNT, AT(train_length), NO_SYMBOL, false},
    {"pooling_type", COUNT, AT(pooling), NO_SYMBOL, false},
};

/* The value behind "<architecture>.<suffix>"; *key: the whole key. */
static const struct gguf_value *find(const struct gguf_meta *meta, const char *arch_name, const char *suffix,
                                     char key[256])
{
    int n = snprintf(key, 256, "%s.%s", arch_name, suffix);
    return n > 0 && n < 256 ? gguf_meta_find(meta, key) : NULL;
}

static void read_count(struct hparam_count *p, const struct gguf_meta *meta, const char *key,
                       const struct gguf_value *v)
{
    if (v->type == GGUF_ARRAY) {
        p->key.state = HPARAM_LIST;
        p->list = v;
    } else if (gguf_meta_get_u64(meta, key, &p->value)) {
        p->key.state = HPARAM_ONE;
    }
}

static void read_row(struct hparams *h, const struct gguf_meta *meta, const struct row *row)
{
    void *at = (char *)h + row->offset;
    struct hparam *p = at; /* the first member of each kind */
    char key[256];
    const struct gguf_value *v = find(meta, h->arch_name, row->suffix, key);
    bool good = false;
    p->suffix = row->suffix;
    if (!v)
        return;
    p->state = HPARAM_WRONG;
    switch (row->kind) {
    case COUNT: read_count(at, meta, key, v); return;
    case REAL: good = gguf_meta_get_f64(meta, key, &((struct hparam_real *)at)->value); break;
    case FLAG: good = gguf_meta_get_bool(meta, key, &((struct hparam_flag *)at)->value); break;
    case TEXT: good = gguf_meta_get_string(meta, key, &((struct hparam_text *)at)->value); break;
    }
    if (good)
        p->state = HPARAM_ONE;
}

static const struct gguf_value *array_or_null(const struct gguf_value *v)
{
    return v && v->type == GGUF_ARRAY ? v : NULL;
}

void hparams_read(struct hparams *out, const struct gguf_meta *meta, const char *arch_name)
{
    char key[256];
    *out = (struct hparams){.arch_name = arch_name, .arch = arch_by_name(arch_name)};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        read_row(out, meta, &rows[i]);
    out->labels = array_or_null(find(meta, arch_name, "classifier.output_labels", key));
    out->vocabulary = array_or_null(gguf_meta_find(meta, "tokenizer.ggml.tokens"));
}

bool hparam_whole(const struct hparam_count *p, uint64_t *out)
{
    if (p->key.state == HPARAM_ONE)
        *out = p->value;
    return p->key.state == HPARAM_ONE;
}

bool hparam_of_layer(const struct hparam_count *p, uint64_t layer, uint64_t *out)
{
    int64_t i;
    if (p->key.state != HPARAM_LIST)
        return hparam_whole(p, out);
    if (!gguf_array_i64(p->list, layer, &i) || i < 0)
        return false;
    *out = (uint64_t)i;
    return true;
}

uint64_t hparam_or(const struct hparam_count *p, uint64_t layer, uint64_t otherwise)
{
    uint64_t v;
    return hparam_of_layer(p, layer, &v) ? v : otherwise;
}

double hparam_real_or(const struct hparam_real *p, double otherwise)
{
    return p->key.state == HPARAM_ONE ? p->value : otherwise;
}

struct hparams_heads hparams_heads(const struct hparams *h, uint64_t layer)
{
    struct hparams_heads heads = {.n = hparam_or(&h->n_heads, layer, 0)};
    uint64_t share = heads.n ? hparam_or(&h->width, layer, 0) / heads.n : 0;
    heads.n_kv = hparam_or(&h->n_kv_heads, layer, heads.n);
    heads.key_dim = hparam_or(&h->key_dim, layer, share);
    heads.value_dim = hparam_or(&h->value_dim, layer, share);
    return heads;
}

uint64_t hparams_n_layers(const struct hparams *h)
{
    uint64_t n = hparam_or(&h->n_blocks, 0, 0), n_predict = hparam_or(&h->n_predict, 0, 0);
    n = n > ARCH_MAX_LAYERS ? 0 : n;
    return n_predict < n ? n - n_predict : n;
}

uint32_t hparams_default_interval(const struct hparams *h)
{
    return h->arch && h->arch->runtime.hybrid ? 4 : 0;
}

bool hparams_is_recurrent(const struct hparams *h, uint64_t layer)
{
    if (h->recurrent.key.state == HPARAM_LIST)
        return hparam_or(&h->recurrent, layer, 0) != 0;
    uint64_t interval = hparam_or(&h->full_interval, 0, hparams_default_interval(h));
    return interval != 0 ? (layer + 1) % interval != 0 : hparams_heads(h, layer).n_kv == 0;
}

uint64_t hparams_window(const struct hparams *h, uint64_t layer, uint64_t period)
{
    uint64_t window = hparam_or(&h->window, layer, 0);
    if (h->window_pattern.key.state == HPARAM_LIST)
        return hparam_or(&h->window_pattern, layer, 0) ? window : 0;
    period = hparam_or(&h->window_pattern, 0, period);
    return period == 0 || (layer + 1) % period != 0 ? window : 0;
}

bool hparams_is_local(const struct hparams *h, uint64_t layer)
{
    struct hparams one = *h;
    one.window = (struct hparam_count){.key = {h->window.key.suffix, HPARAM_ONE}, .value = 1};
    return hparams_window(&one, layer, h->arch ? h->arch->runtime.window_period : 0) != 0;
}

bool hparams_is_vital(const char *suffix)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if ((rows[i].symbol != NO_SYMBOL || rows[i].needed) && strcmp(rows[i].suffix, suffix) == 0)
            return true;
    return false;
}

const struct hparam *hparams_next_missing(const struct hparams *h, size_t *at)
{
    for (; *at < sizeof rows / sizeof *rows; ++*at) {
        const struct hparam *p = (const void *)((const char *)h + rows[*at].offset);
        if (rows[*at].needed && !hparam_is_there(p)) {
            ++*at;
            return p;
        }
    }
    return NULL;
}

static void set(struct arch_model *a, enum arch_symbol symbol, uint64_t v)
{
    a->value[symbol] = v;
    a->known[symbol] = true;
}

void hparams_symbols(const struct hparams *h, struct arch_model *a)
{
    uint64_t v;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const void *at = (const char *)h + rows[i].offset;
        if (rows[i].symbol != NO_SYMBOL && hparam_whole(at, &v))
            set(a, rows[i].symbol, v);
    }
    if (hparam_whole(&h->n_predict, &v) && v <= ARCH_MAX_EXTRA && v <= a->value[ARCH_L]) {
        a->n_extra = v;
        a->value[ARCH_L] -= v;
    }
    if (h->labels)
        set(a, ARCH_C, h->labels->a.n);
    struct hparams_heads heads = hparams_heads(h, 0);
    if (a->known[ARCH_H] && !a->known[ARCH_HKV])
        set(a, ARCH_HKV, heads.n_kv);
    if (a->known[ARCH_D] && heads.n && !a->known[ARCH_HD])
        set(a, ARCH_HD, heads.key_dim);
    if (a->known[ARCH_HD] && !a->known[ARCH_R])
        set(a, ARCH_R, a->value[ARCH_HD]);
    if (hparam_whole(&h->full_key_dim, &v) && v > a->value[ARCH_R])
        set(a, ARCH_DN, v - a->value[ARCH_R]);
    if (hparam_whole(&h->ssm_inner, &v) && a->known[ARCH_HV] && a->value[ARCH_HV])
        set(a, ARCH_DV, v / a->value[ARCH_HV]);
}
