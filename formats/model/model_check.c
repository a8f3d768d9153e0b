/* model_check.c - see model_check.h. Truth: specification, architectures 0.11 and the keys of each family. */
#include "model_check.h"

#include "hparams.h"
#include "tensor_name.h"

#include "formats/arch/arch.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

struct check {
    const struct model *m;
    const struct hparams *h;
    struct string_list *findings;
    struct arena *arena;
    uint64_t n_stated; /* block_count; 0: there is none that can be used */
    uint64_t n_layers; /* without blocks that predict further tokens */
    struct err *e;
};

static int found(struct check *c, const char *fmt, ...) KERF_PRINTF(2, 3);
static int found(struct check *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(c->findings, c->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : err_set(c->e, ERR_NOMEM, "out of memory for the findings");
}

/* --- each number by itself --- */

static int check_count(struct check *c, const struct hparam_count *p, uint64_t least, uint64_t most)
{
    uint64_t v;
    if (!hparam_is_there(&p->key))
        return 0;
    if (!hparam_whole(p, &v))
        return found(c, "key '%s.%s' is not a whole number; expected %" PRIu64 " to %" PRIu64,
                     c->h->arch_name, p->key.suffix, least, most);
    if (v < least || v > most)
        return found(c, "key '%s.%s' is %" PRIu64 ", expected %" PRIu64 " to %" PRIu64, c->h->arch_name,
                     p->key.suffix, v, least, most);
    return 0;
}

static int check_counts(struct check *c)
{
    const struct hparams *h = c->h;
    const struct {
        const struct hparam_count *count;
        uint64_t least, most;
    } ranges[] = {
        {&h->n_blocks, 1, ARCH_MAX_LAYERS}, {&h->width, 1, 1u << 24},  {&h->context, 1, UINT32_MAX},
        {&h->n_predict, 0, ARCH_MAX_EXTRA}, {&h->key_dim, 1, 1 << 16}, {&h->value_dim, 1, 1 << 16},
        {&h->n_experts, 0, 1 << 16},        {&h->pooling, 0, 4},
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof ranges / sizeof *ranges; i++)
        rc = check_count(c, ranges[i].count, ranges[i].least, ranges[i].most);
    return rc;
}

static int check_real(struct check *c, const struct hparam_real *p, bool zero_too)
{
    if (!hparam_is_there(&p->key))
        return 0;
    if (p->key.state == HPARAM_WRONG)
        return found(c, "key '%s.%s' is not a number", c->h->arch_name, p->key.suffix);
    if (isfinite(p->value) && (p->value > 0 || (zero_too && p->value == 0)))
        return 0;
    return found(c, "key '%s.%s' is %g, expected a number %s", c->h->arch_name, p->key.suffix, p->value,
                 zero_too ? "that is not negative" : "above 0");
}

/* --- numbers that belong together --- */

static int check_prediction_blocks(struct check *c)
{
    uint64_t n;
    if (!hparam_whole(&c->h->n_predict, &n) || c->n_stated == 0 || n < c->n_stated)
        return 0;
    return found(c,
                 "key '%s.nextn_predict_layers' is %" PRIu64 ", expected less than block_count (%" PRIu64
                 "), which counts these blocks too",
                 c->h->arch_name, n, c->n_stated);
}

/* Each layer with attention needs heads, and each head of keys serves a whole number of heads of queries. */
static int check_heads(struct check *c)
{
    const struct hparams *h = c->h;
    if (!hparam_is_there(&h->n_heads.key))
        return 0;
    for (uint64_t layer = 0; layer < c->n_layers; layer++) {
        uint64_t heads = 0, kv = 0;
        if (model_find_in(c->m, layer, "ssm_conv1d.weight"))
            continue;
        if (!hparam_of_layer(&h->n_heads, layer, &heads) || heads == 0 || heads > 1 << 16)
            return found(
                c, "key '%s.attention.head_count' is %" PRIu64 " in layer %" PRIu64 ", expected 1 to 65536",
                h->arch_name, heads, layer);
        if (!hparam_is_there(&h->n_kv_heads.key))
            continue;
        if (!hparam_of_layer(&h->n_kv_heads, layer, &kv) || kv == 0 || heads % kv != 0)
            return found(c,
                         "key '%s.attention.head_count_kv' is %" PRIu64 " in layer %" PRIu64
                         ", expected a divisor of head_count (%" PRIu64 ")",
                         h->arch_name, kv, layer, heads);
    }
    return 0;
}

/* The rotated part of a head: an even number of its entries. */
static int check_rotary(struct check *c)
{
    uint64_t n_rot, head_dim = hparams_heads(c->h, 0).key_dim;
    if (!hparam_is_there(&c->h->rope_n_rot.key) || (head_dim == 0 && !hparam_is_there(&c->h->key_dim.key)))
        return 0;
    if (hparam_whole(&c->h->rope_n_rot, &n_rot) && n_rot >= 2 && n_rot % 2 == 0 && n_rot <= head_dim)
        return 0;
    return found(
        c, "key '%s.rope.dimension_count' is not an even number from 2 to %" PRIu64 ", the size of a head",
        c->h->arch_name, head_dim);
}

static int check_rotary_scaling(struct check *c)
{
    const struct hparam_text *type = &c->h->rope_scaling;
    bool there = type->key.state == HPARAM_ONE, yarn = there && gguf_string_is(type->value, "yarn");
    if (!yarn && !(there && gguf_string_is(type->value, "linear")))
        return 0;
    int rc = check_real(c, &c->h->rope_factor, false);
    return rc == 0 && yarn ? check_real(c, &c->h->rope_context, false) : rc;
}

static int check_scales(struct check *c)
{
    const struct hparam_real *scales[] = {&c->h->attention_scale, &c->h->embedding_scale,
                                          &c->h->residual_scale, &c->h->logit_scale};
    int rc = 0;
    for (size_t i = 0; rc == 0 && c->h->arch->runtime.scaled && i < sizeof scales / sizeof *scales; i++)
        rc = check_real(c, scales[i], false);
    return rc;
}

static int check_feed_forward(struct check *c)
{
    const struct hparams *h = c->h;
    uint64_t n_experts = 0, n_used = 0, width;
    hparam_whole(&h->n_experts, &n_experts);
    for (uint64_t layer = 0; layer < c->n_layers; layer++) {
        if (model_find_in(c->m, layer, "ffn_gate_inp.weight")) {
            if (n_experts == 0 || !hparam_whole(&h->n_experts_used, &n_used) || n_used == 0 ||
                n_used > n_experts)
                return found(c,
                             "keys '%s.expert_count' (%" PRIu64 ") and 'expert_used_count' (%" PRIu64
                             ") do not fit: layer %" PRIu64 " has a router, which uses 1 to all of them",
                             h->arch_name, n_experts, n_used, layer);
        } else if (model_find_in(c->m, layer, "ffn_down.weight") && hparam_is_there(&h->ffn_width.key) &&
                   (!hparam_of_layer(&h->ffn_width, layer, &width) || width == 0)) {
            return found(c,
                         "key '%s.feed_forward_length' gives layer %" PRIu64 " no width, expected 1 or more",
                         h->arch_name, layer);
        }
    }
    return 0;
}

/* How the experts of a token are chosen, in models that have a router. */
static int check_choice(struct check *c)
{
    const struct hparams *h = c->h;
    uint64_t n_experts, n_used, gating = hparam_or(&h->expert_gating, 0, 0);
    bool any = false;
    for (uint64_t layer = 0; !any && layer < c->n_layers; layer++)
        any = model_find_in(c->m, layer, "ffn_gate_inp.weight") != NULL;
    if (!any || !hparam_whole(&h->n_experts, &n_experts) || !hparam_whole(&h->n_experts_used, &n_used))
        return 0; /* check_feed_forward has found that */
    int rc = check_count(c, &h->n_expert_groups, 0, UINT32_MAX);
    if (rc == 0)
        rc = check_count(c, &h->n_expert_groups_used, 0, UINT32_MAX);
    if (rc == 0 && (gating > ARCH_GATING_SIGMOID || h->expert_gating.key.state == HPARAM_WRONG))
        rc = found(c, "key '%s.%s' is %" PRIu64 ", expected 1 (softmax) or 2 (sigmoid)", h->arch_name,
                   h->expert_gating.key.suffix, gating);
    uint64_t n_groups = hparam_or(&h->n_expert_groups, 0, 0);
    uint64_t n_groups_used = hparam_or(&h->n_expert_groups_used, 0, n_groups);
    if (rc != 0 || arch_groups_fit(n_experts, n_used, n_groups, n_groups_used))
        return rc;
    return found(c,
                 "keys '%s.expert_group_count' (%" PRIu64 ") and 'expert_group_used_count' (%" PRIu64
                 ") do not fit %" PRIu64 " experts, %" PRIu64
                 " of a token; expected equal groups of two experts or more, of which the chosen ones hold "
                 "enough",
                 h->arch_name, n_groups, n_groups_used, n_experts, n_used);
}

static int check_delta_net(struct check *c)
{
    uint64_t kernel, state, groups, heads, inner;
    bool any = false;
    for (uint64_t layer = 0; !any && layer < c->n_layers; layer++)
        any = model_find_in(c->m, layer, "ssm_conv1d.weight") != NULL;
    const struct hparams *h = c->h;
    if (!any || !hparam_whole(&h->ssm_kernel, &kernel) || !hparam_whole(&h->ssm_state, &state) ||
        !hparam_whole(&h->ssm_groups, &groups) || !hparam_whole(&h->ssm_heads, &heads) ||
        !hparam_whole(&h->ssm_inner, &inner))
        return 0;
    if (kernel >= 1 && kernel <= 64 && state >= 1 && state <= 4096 && groups >= 1 && groups <= 4096 &&
        heads >= 1 && heads <= 1 << 16 && heads % groups == 0 && inner % heads == 0 && inner / heads >= 1 &&
        inner / heads <= 4096)
        return 0;
    return found(c,
                 "keys '%s.ssm.*' do not fit together: conv_kernel %" PRIu64 ", state_size %" PRIu64
                 ", group_count %" PRIu64 ", time_step_rank %" PRIu64 ", inner_size %" PRIu64
                 " (expected a multiple of time_step_rank, and that of group_count)",
                 c->h->arch_name, kernel, state, groups, heads, inner);
}

/* --- numbers and tensors --- */

/* A runtime that counts would leave these layers out, and compute something else without a word. */
static int check_layers_beyond(struct check *c)
{
    const char *example = NULL;
    uint64_t n = 0;
    for (size_t i = 0; c->n_stated && i < model_n_tensors(c->m); i++) {
        const char *name = model_tensor(c->m, i)->name;
        int64_t layer = tensor_layer(name, NULL);
        if (layer >= 0 && (uint64_t)layer >= c->n_stated) {
            example = example ? example : name;
            n++;
        }
    }
    return n == 0 ? 0
                  : found(c,
                          "key '%s.block_count' is %" PRIu64 ", but %" PRIu64
                          " tensor%s of layers beyond that, '%s' among them",
                          c->h->arch_name, c->n_stated, n, n == 1 ? " is" : "s are", example);
}

static int check_vocabulary_size(struct check *c)
{
    const struct gguf_value *tokens = c->h->vocabulary;
    const struct model_tensor *embd = model_find(c->m, "token_embd.weight");
    if (!tokens || !embd || tokens->a.n == embd->ne[1])
        return 0;
    return found(c,
                 "key 'tokenizer.ggml.tokens' has %" PRIu64
                 " tokens, but tensor 'token_embd.weight' has %" PRIu64
                 " rows: the vocabulary is not that of the model",
                 tokens->a.n, embd->ne[1]);
}

static int check_answer(struct check *c)
{
    uint64_t pooling;
    if (!hparam_whole(&c->h->pooling, &pooling) || pooling != 4 || model_find(c->m, "cls.output.weight"))
        return 0;
    return found(c,
                 "key '%s.pooling_type' says that texts are ranked, but there is no tensor "
                 "'cls.output.weight'",
                 c->h->arch_name);
}

int model_check(const struct model *m, struct string_list *findings, struct arena *arena, struct err *e)
{
    static int (*const checks[])(struct check *) = {
        check_counts,          check_prediction_blocks,
        check_heads,           check_rotary,
        check_rotary_scaling,  check_scales,
        check_feed_forward,    check_choice,
        check_delta_net,       check_layers_beyond,
        check_vocabulary_size, check_answer,
    };
    const struct hparams *h = model_hparams(m);
    struct check c = {.m = m, .h = h, .findings = findings, .arena = arena, .e = e};
    if (!h->arch)
        return 0;
    if (!hparam_whole(&h->n_blocks, &c.n_stated) || c.n_stated > ARCH_MAX_LAYERS)
        c.n_stated = 0;
    c.n_layers = hparams_n_layers(h);
    int rc = check_real(&c, &h->eps, true);
    if (rc == 0)
        rc = check_real(&c, &h->rope_theta, false);
    for (size_t i = 0; rc == 0 && i < sizeof checks / sizeof *checks; i++)
        rc = checks[i](&c);
    return rc;
}
