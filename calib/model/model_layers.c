/* model_layers.c - which steps a layer has, and their tensors, for every family (see model_load.h).
 *
 * The steps follow from what the file holds: a router makes the feed-forward part a mixture of experts, a
 * convolution makes the mixer a delta net. Names and shapes: specification, architectures 1 to 17. */
#include "model_load.h"

#include "formats/arch/arch.h"
#include "formats/model/tensor_name.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_EXPERT_WIDTH (1u << 24)

static int vector(struct net *net, uint32_t layer, const char *kind, uint64_t n, bool required,
                  const float **out, struct err *e)
{
    char name[TENSOR_NAME_MAX];
    return net_vector(net, tensor_name_of(name, layer, kind), n, required, out, e);
}

/* A norm of the states that the family has, or has not: `kind` NULL. */
static int norm(struct net *net, uint32_t layer, const char *kind, const float **out, struct err *e)
{
    return kind ? vector(net, layer, kind, net->n_embd, true, out, e) : 0;
}

static void remember(struct net_layer *l, const struct model_tensor *t)
{
    for (size_t i = 0; i < l->n_matrices; i++)
        if (l->matrices[i] == t)
            return;
    if (t && l->n_matrices < LAYER_MAX_MATRICES)
        l->matrices[l->n_matrices++] = t;
}

/* Matrix "blk.N.<stem>.weight" [n_rows, n_cols] with an optional "<stem>.bias". */
static int matrix(struct net *net, struct net_layer *l, const char *stem, uint64_t n_cols, uint64_t n_rows,
                  bool required, struct matrix *out, struct err *e)
{
    char kind[96], name[TENSOR_NAME_MAX];
    snprintf(kind, sizeof kind, "%s.weight", stem);
    tensor_name_of(name, l->index, kind);
    *out = (struct matrix){.n_rows = n_rows};
    int rc = net_tensor(net, name, n_cols, n_rows, 1, required, &out->tensor, e);
    if (rc != 0 || !out->tensor)
        return rc;
    remember(l, out->tensor);
    snprintf(kind, sizeof kind, "%s.bias", stem);
    return vector(net, l->index, kind, n_rows, false, &out->bias, e);
}

static int stack(struct net *net, struct net_layer *l, const char *stem, uint64_t n_cols, uint64_t n_rows,
                 uint64_t n_mats, const struct model_tensor **out, struct err *e)
{
    char kind[96], name[TENSOR_NAME_MAX];
    snprintf(kind, sizeof kind, "%s.weight", stem);
    tensor_name_of(name, l->index, kind);
    int rc = net_tensor(net, name, n_cols, n_rows, n_mats, true, out, e);
    if (rc == 0)
        remember(l, *out);
    return rc;
}

/* A fused q/k/v matrix is three slices of the same rows. */
static int fused_qkv(struct net *net, struct net_layer *l, uint64_t q, uint64_t k, uint64_t v, struct err *e)
{
    struct attention *a = &l->attention;
    struct matrix all;
    int rc = matrix(net, l, "attn_qkv", net->n_embd, q + k + v, true, &all, e);
    if (rc != 0)
        return rc;
    a->q = (struct matrix){all.tensor, 0, q, all.bias};
    a->k = (struct matrix){all.tensor, q, k, all.bias ? all.bias + q : NULL};
    a->v = (struct matrix){all.tensor, q + k, v, all.bias ? all.bias + q + k : NULL};
    return 0;
}

/* Gate and up as one matrix: the first half of the rows, the second. */
static int fused_gate_up(struct net *net, struct net_layer *l, struct err *e)
{
    struct mlp *m = &l->mlp;
    struct matrix both;
    int rc = matrix(net, l, "ffn_up", net->n_embd, 2 * (uint64_t)m->width, true, &both, e);
    if (rc != 0)
        return rc;
    m->gate = (struct matrix){both.tensor, 0, m->width, both.bias};
    m->up = (struct matrix){both.tensor, m->width, m->width, both.bias ? both.bias + m->width : NULL};
    return 0;
}

/* Sizes that go on into 32 bits; anything larger is refused with them. */
static uint32_t u32_of(uint64_t v)
{
    return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static int head_counts(const struct net *net, uint32_t layer, struct attention *a, struct err *e)
{
    struct hparams_heads heads = hparams_heads(net->hparams, layer);
    a->n_heads = u32_of(heads.n);
    a->n_kv_heads = u32_of(heads.n_kv);
    a->head_dim = u32_of(heads.key_dim);
    a->value_dim = u32_of(heads.value_dim);
    if (a->n_heads == 0)
        return err_set(e, ERR_FORMAT, "%s: key '%s.attention.head_count' is missing or 0",
                       model_path(net->model), net->hparams->arch_name);
    if (a->n_kv_heads == 0 || a->n_heads % a->n_kv_heads != 0 || a->head_dim == 0 || a->value_dim == 0 ||
        a->n_heads > 65536 || a->head_dim > 65536 || a->value_dim > 65536 || net->rope.n_rot > a->head_dim ||
        a->value_dim > a->head_dim)
        return err_set(
            e, ERR_FORMAT,
            "%s: %u query heads, %u key heads, head size %u and %u, %u rotary entries do not fit together",
            model_path(net->model), a->n_heads, a->n_kv_heads, a->head_dim, a->value_dim, net->rope.n_rot);
    return 0;
}

static int build_attention(struct net *net, const struct arch_runtime *f, struct net_layer *l, struct err *e)
{
    struct attention *a = &l->attention;
    int rc = head_counts(net, l->index, a, e);
    if (rc != 0)
        return rc;
    a->gated = f->gated;
    a->whole_norm = f->whole_qk_norm;
    a->rotates = f->unrotated_period == 0 || (l->index + 1) % f->unrotated_period != 0;
    a->scale = f->scaled || f->capped ? (float)hparam_real_or(&net->hparams->attention_scale, 0) : 0;
    if (a->scale == 0 && f->wide_scale_layers && f->wide_scale_layers == net->n_layers)
        a->scale = 1 / sqrtf((float)(net->n_embd / a->n_heads)); /* the largest model of its house */
    a->cap = f->capped ? (float)hparam_real_or(&net->hparams->attention_cap, 0) : 0;
    a->window = u32_of(hparams_window(net->hparams, l->index, f->window_period));
    a->local = net->local_rope.inv_freq && hparams_is_local(net->hparams, l->index);
    uint64_t q = (uint64_t)a->n_heads * a->head_dim * (f->gated ? 2 : 1);
    uint64_t k = (uint64_t)a->n_kv_heads * a->head_dim, v = (uint64_t)a->n_kv_heads * a->value_dim;
    rc = norm(net, l->index, f->attn_norm, &a->norm, e);
    if (rc == 0)
        rc = norm(net, l->index, f->attn_post_norm, &a->post_norm, e);
    if (rc == 0 && f->fused_qkv)
        rc = fused_qkv(net, l, q, k, v, e);
    if (rc == 0 && !f->fused_qkv)
        rc = matrix(net, l, "attn_q", net->n_embd, q, true, &a->q, e);
    if (rc == 0 && !f->fused_qkv)
        rc = matrix(net, l, "attn_k", net->n_embd, k, true, &a->k, e);
    if (rc == 0 && !f->fused_qkv)
        rc = matrix(net, l, "attn_v", net->n_embd, v, true, &a->v, e);
    if (rc == 0)
        rc = matrix(net, l, "attn_output", (uint64_t)a->n_heads * a->value_dim, net->n_embd, true, &a->output,
                    e);
    if (rc == 0)
        rc = vector(net, l->index, "attn_q_norm.weight", f->whole_qk_norm ? q : a->head_dim, false,
                    &a->q_norm, e);
    if (rc == 0)
        rc = vector(net, l->index, "attn_k_norm.weight", f->whole_qk_norm ? k : a->head_dim, false,
                    &a->k_norm, e);
    if (rc == 0 && f->sinks)
        rc = vector(net, l->index, "attn_sinks.weight", a->n_heads, true, &a->sinks, e);
    return rc;
}

/* Queries, by way of their latent where the file has one. */
static int latent_queries(struct net *net, struct net_layer *l, uint64_t n_rows, struct err *e)
{
    struct attention *a = &l->attention;
    uint64_t n = 0;
    if (!hparam_whole(&net->hparams->q_latent, &n) || n == 0)
        return matrix(net, l, "attn_q", net->n_embd, n_rows, true, &a->q, e);
    int rc = matrix(net, l, "attn_q_a", net->n_embd, n, true, &a->latent.q_a, e);
    if (rc == 0)
        rc = vector(net, l->index, "attn_q_a_norm.weight", n, true, &a->latent.q_norm, e);
    return rc == 0 ? matrix(net, l, "attn_q_b", n, n_rows, true, &a->q, e) : rc;
}

/* YaRN's share in the scale of scores (DeepSeek): 1 + multiplier ln(factor), squared. */
static float latent_scale(const struct hparams *h, uint64_t head)
{
    double factor = hparam_real_or(&h->rope_factor, 1), m = hparam_real_or(&h->rope_log_multiplier, 0);
    double grown = h->rope_scaling.key.state == HPARAM_ONE && factor > 1 ? 1 + m * log(factor) : 1;
    return (float)(grown * grown / sqrt((double)head));
}

static int latent_sizes(const struct net *net, struct net_layer *l, uint64_t *head, struct err *e)
{
    const struct hparams *h = net->hparams;
    struct attention *a = &l->attention;
    uint64_t out = hparam_or(&h->full_value_dim, 0, 0), n_rot = net->rope.n_rot;
    int rc = head_counts(net, l->index, a, e);
    *head = hparam_or(&h->full_key_dim, 0, 0);
    if (rc == 0 &&
        (a->n_kv_heads != 1 || a->head_dim != a->value_dim + n_rot || *head <= n_rot || *head > 1 << 16 ||
         out == 0 || out > 1 << 16 || hparam_or(&h->kv_latent, 0, 0) != a->value_dim))
        rc = err_set(
            e, ERR_FORMAT,
            "%s: the keys '%s.attention.*' do not describe attention over latents: one key head of %u, "
            "values of %u, %u rotary entries, heads of %llu and %llu before",
            model_path(net->model), h->arch_name, a->head_dim, a->value_dim, (unsigned)n_rot,
            (unsigned long long)*head, (unsigned long long)out);
    a->latent.nope_dim = (uint32_t)(*head - n_rot);
    a->latent.out_dim = u32_of(out);
    return rc;
}

static int build_latent(struct net *net, const struct arch_runtime *f, struct net_layer *l, struct err *e)
{
    struct attention *a = &l->attention;
    uint64_t head;
    int rc = latent_sizes(net, l, &head, e);
    if (rc != 0)
        return rc;
    a->rotates = true;
    a->scale = latent_scale(net->hparams, head);
    rc = norm(net, l->index, f->attn_norm, &a->norm, e);
    if (rc == 0)
        rc = latent_queries(net, l, (uint64_t)a->n_heads * head, e);
    if (rc == 0)
        rc = matrix(net, l, "attn_kv_a_mqa", net->n_embd, a->head_dim, true, &a->k, e);
    a->v = (struct matrix){a->k.tensor, 0, a->value_dim, NULL};
    if (rc == 0)
        rc = vector(net, l->index, "attn_kv_a_norm.weight", a->value_dim, true, &a->latent.kv_norm, e);
    if (rc == 0)
        rc = stack(net, l, "attn_k_b", a->latent.nope_dim, a->value_dim, a->n_heads, &a->latent.k_b, e);
    if (rc == 0)
        rc = stack(net, l, "attn_v_b", a->value_dim, a->latent.out_dim, a->n_heads, &a->latent.v_b, e);
    if (rc == 0)
        rc = matrix(net, l, "attn_output", (uint64_t)a->n_heads * a->latent.out_dim, net->n_embd, true,
                    &a->output, e);
    return rc;
}

static int build_mlp(struct net *net, const struct arch_runtime *f, struct net_layer *l, struct err *e)
{
    struct mlp *m = &l->mlp;
    m->width = u32_of(hparam_or(&net->hparams->ffn_width, l->index, 0));
    if (m->width == 0)
        return err_set(e, ERR_FORMAT, "%s: key '%s.feed_forward_length' is missing or 0",
                       model_path(net->model), net->hparams->arch_name);
    int rc = norm(net, l->index, f->ffn_norm, &m->norm, e);
    if (rc == 0)
        rc = norm(net, l->index, f->ffn_post_norm, &m->post_norm, e);
    const struct model_tensor *gate = model_find_in(net->model, l->index, "ffn_gate.weight");
    if (gate && gate->ne[1] > 0 && gate->ne[1] <= UINT32_MAX)
        m->width = (uint32_t)gate->ne[1]; /* Qwen 1.0 writes the double width into the key */
    if (rc == 0 && f->fused_ffn)
        rc = fused_gate_up(net, l, e);
    if (rc == 0 && !f->fused_ffn)
        rc = matrix(net, l, "ffn_gate", net->n_embd, m->width, true, &m->gate, e);
    if (rc == 0 && !f->fused_ffn)
        rc = matrix(net, l, "ffn_up", net->n_embd, m->width, true, &m->up, e);
    if (rc == 0)
        rc = matrix(net, l, "ffn_down", m->width, net->n_embd, true, &m->down, e);
    return rc;
}

static int build_shared_expert(struct net *net, struct net_layer *l, struct err *e)
{
    struct moe *m = &l->moe;
    const struct model_tensor *up = model_find_in(net->model, l->index, "ffn_up_shexp.weight");
    if (!up)
        return 0;
    if (up->ne[1] == 0 || up->ne[1] > UINT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s' has no rows", model_path(net->model), up->name);
    m->shared_width = (uint32_t)up->ne[1];
    int rc = matrix(net, l, "ffn_gate_shexp", net->n_embd, m->shared_width, true, &m->shared_gate, e);
    if (rc == 0)
        rc = matrix(net, l, "ffn_up_shexp", net->n_embd, m->shared_width, true, &m->shared_up, e);
    if (rc == 0)
        rc = matrix(net, l, "ffn_down_shexp", m->shared_width, net->n_embd, true, &m->shared_down, e);
    if (rc == 0)
        rc = matrix(net, l, "ffn_gate_inp_shexp", net->n_embd, 1, false, &m->shared_router, e);
    return rc;
}

/* How a token's experts are chosen, by numbers that model_check has found to fit. */
static int read_choice(struct net *net, const struct arch_runtime *f, struct net_layer *l, struct err *e)
{
    struct moe *m = &l->moe;
    const struct hparams *h = net->hparams;
    double scale = hparam_real_or(&h->expert_scale, 1);
    uint64_t gating = hparam_or(&h->expert_gating, 0, f->gating);
    m->renormalise = h->expert_norm.key.state == HPARAM_ONE ? h->expert_norm.value : f->renormalise;
    m->weight_scale = scale > 0 ? (float)scale : 1.0f;
    m->n_experts = u32_of(hparam_or(&h->n_experts, l->index, 0));
    m->n_used = u32_of(hparam_or(&h->n_experts_used, l->index, 0));
    m->n_groups = u32_of(hparam_or(&h->n_expert_groups, 0, 0));
    m->n_groups_used = u32_of(hparam_or(&h->n_expert_groups_used, 0, m->n_groups));
    m->sigmoid = (gating ? gating : f->gating) == ARCH_GATING_SIGMOID; /* 0: not said, as in llama.cpp */
    return m->sigmoid ? vector(net, l->index, "exp_probs_b.bias", m->n_experts, false, &m->choice_bias, e)
                      : 0;
}

static int expert_biases(struct net *net, struct net_layer *l, struct err *e)
{
    struct moe *m = &l->moe;
    uint64_t n = (uint64_t)m->n_experts * m->width, n_down = (uint64_t)m->n_experts * net->n_embd;
    int rc = vector(net, l->index, "ffn_gate_exps.bias", n, false, &m->gate_bias, e);
    if (rc == 0)
        rc = vector(net, l->index, "ffn_up_exps.bias", n, false, &m->up_bias, e);
    return rc == 0 ? vector(net, l->index, "ffn_down_exps.bias", n_down, false, &m->down_bias, e) : rc;
}

static int build_moe(struct net *net, const struct arch_runtime *f, struct net_layer *l, struct err *e)
{
    struct moe *m = &l->moe;
    int rc = read_choice(net, f, l, e);
    if (rc != 0)
        return rc;
    const struct model_tensor *gate = model_find_in(net->model, l->index, "ffn_gate_exps.weight");
    const struct model_tensor *both = model_find_in(net->model, l->index, "ffn_gate_up_exps.weight");
    bool fused = !gate && both && both->ne[1] % 2 == 0;
    uint64_t width = fused ? both->ne[1] / 2 : gate ? gate->ne[1] : 0;
    if (width == 0 || width > MAX_EXPERT_WIDTH)
        return err_set(e, ERR_FORMAT, "%s: tensor 'blk.%u.ffn_gate_exps.weight' is missing or empty",
                       model_path(net->model), l->index);
    m->width = (uint32_t)width;
    m->expert_rows = fused ? 2 * m->width : m->width;
    m->up_row = fused ? m->width : 0;
    rc = norm(net, l->index, f->ffn_norm, &m->norm, e);
    if (rc == 0)
        rc = matrix(net, l, "ffn_gate_inp", net->n_embd, m->n_experts, true, &m->router, e);
    if (rc == 0)
        rc = stack(net, l, fused ? "ffn_gate_up_exps" : "ffn_gate_exps", net->n_embd, m->expert_rows,
                   m->n_experts, &m->gate_exps, e);
    if (rc == 0 && !fused)
        rc = stack(net, l, "ffn_up_exps", net->n_embd, m->width, m->n_experts, &m->up_exps, e);
    if (rc == 0 && fused)
        m->up_exps = m->gate_exps;
    if (rc == 0)
        rc = stack(net, l, "ffn_down_exps", m->width, net->n_embd, m->n_experts, &m->down_exps, e);
    if (rc == 0)
        rc = expert_biases(net, l, e);
    return rc == 0 ? build_shared_expert(net, l, e) : rc;
}

static int delta_net_sizes(const struct net *net, struct delta_net *d, struct err *e)
{
    const struct hparams *h = net->hparams;
    uint32_t state = u32_of(hparam_or(&h->ssm_state, 0, 0)), inner = u32_of(hparam_or(&h->ssm_inner, 0, 0));
    d->kernel = u32_of(hparam_or(&h->ssm_kernel, 0, 0));
    d->n_k_heads = u32_of(hparam_or(&h->ssm_groups, 0, 0));
    d->n_v_heads = u32_of(hparam_or(&h->ssm_heads, 0, 0));
    d->k_dim = state;
    d->v_dim = d->n_v_heads > 0 ? inner / d->n_v_heads : 0;
    if (d->kernel == 0 || d->kernel > 64 || state == 0 || state > 4096 || d->n_k_heads == 0 ||
        d->n_k_heads > 4096 || d->n_v_heads > 65536 || d->n_v_heads % d->n_k_heads != 0 || d->v_dim == 0 ||
        d->v_dim > 4096 || d->v_dim * d->n_v_heads != inner)
        return err_set(e, ERR_FORMAT, "%s: the keys '%s.ssm.*' are missing or do not fit together",
                       model_path(net->model), h->arch_name);
    return 0;
}

static int build_delta_net(struct net *net, const struct arch_runtime *f, struct net_layer *l, struct err *e)
{
    struct delta_net *d = &l->delta_net;
    int rc = delta_net_sizes(net, d, e);
    if (rc != 0)
        return rc;
    d->tiled = f->tiled_heads;
    uint64_t key = (uint64_t)d->n_k_heads * d->k_dim, value = (uint64_t)d->n_v_heads * d->v_dim;
    uint64_t n_v = d->n_v_heads;
    rc = norm(net, l->index, f->attn_norm, &d->norm, e);
    if (rc == 0)
        rc = matrix(net, l, "attn_qkv", net->n_embd, 2 * key + value, true, &d->qkv, e);
    if (rc == 0)
        rc = matrix(net, l, "attn_gate", net->n_embd, value, true, &d->gate, e);
    if (rc == 0)
        rc = matrix(net, l, "ssm_ba", net->n_embd, 2 * n_v, false, &d->ba, e);
    if (rc == 0 && !d->ba.tensor)
        rc = matrix(net, l, "ssm_beta", net->n_embd, n_v, true, &d->beta, e);
    if (rc == 0 && !d->ba.tensor)
        rc = matrix(net, l, "ssm_alpha", net->n_embd, n_v, true, &d->alpha, e);
    if (rc == 0)
        rc = matrix(net, l, "ssm_out", value, net->n_embd, true, &d->output, e);
    if (rc == 0)
        rc = vector(net, l->index, "ssm_conv1d.weight", (2 * key + value) * d->kernel, true, &d->conv, e);
    if (rc == 0)
        rc = vector(net, l->index, "ssm_dt.bias", n_v, true, &d->dt_bias, e);
    if (rc == 0)
        rc = vector(net, l->index, "ssm_a", n_v, true, &d->a, e);
    if (rc == 0)
        rc = vector(net, l->index, "ssm_norm.weight", d->v_dim, true, &d->head_norm, e);
    return rc;
}

int net_build_layer(struct net *net, uint32_t index, struct net_layer *out, struct err *e)
{
    const struct arch_runtime *f = &net->hparams->arch->runtime;
    struct net_layer *l = out;
    *l = (struct net_layer){.index = index};
    bool delta = f->hybrid && model_find_in(net->model, index, "ssm_conv1d.weight");
    bool experts = model_find_in(net->model, index, "ffn_gate_inp.weight") != NULL;
    l->steps[l->n_steps++] = delta ? STEP_DELTA_NET : f->latent ? STEP_LATENT : STEP_ATTENTION;
    l->steps[l->n_steps++] = experts ? STEP_MOE : STEP_MLP;
    int rc = delta       ? build_delta_net(net, f, l, e)
             : f->latent ? build_latent(net, f, l, e)
                         : build_attention(net, f, l, e);
    if (rc == 0)
        rc = experts ? build_moe(net, f, l, e) : build_mlp(net, f, l, e);
    /* What these add to the states goes there piece by piece: neither a norm nor a factor fits in between. */
    if (rc == 0 && (experts || delta) &&
        (!f->attn_norm || !f->ffn_norm || f->attn_post_norm || f->ffn_post_norm || net->residual_scale != 1))
        rc =
            err_set(e, ERR_UNSUPPORTED,
                    "%s: layer %u: the forward pass knows no experts or delta nets in a family with norms or "
                    "factors behind them",
                    model_path(net->model), index);
    return rc;
}
