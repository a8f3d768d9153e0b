/* model_check.c - see model_check.h. Truth: specification, architectures 0.11 and the keys of each family. */
#include "model_check.h"

#include "formats/arch/arch.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    const struct model *m;
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

static const struct gguf_value *value(const struct check *c, const char *suffix)
{
    char key[256];
    snprintf(key, sizeof key, "%s.%s", model_arch_name(c->m), suffix);
    return gguf_meta_find(model_meta(c->m), key);
}

static bool whole(const struct check *c, const char *suffix, uint64_t *out)
{
    char key[256];
    snprintf(key, sizeof key, "%s.%s", model_arch_name(c->m), suffix);
    return gguf_meta_get_u64(model_meta(c->m), key, out);
}

static bool real(const struct check *c, const char *suffix, double *out)
{
    char key[256];
    snprintf(key, sizeof key, "%s.%s", model_arch_name(c->m), suffix);
    return gguf_meta_get_f64(model_meta(c->m), key, out);
}

/* A number of one layer: a key has one for all layers, or an array. */
static bool whole_of_layer(const struct check *c, const char *suffix, uint64_t layer, uint64_t *out)
{
    const struct gguf_value *v = value(c, suffix);
    int64_t i;
    if (!v || v->type != GGUF_ARRAY)
        return whole(c, suffix, out);
    if (!gguf_array_i64(v, layer, &i) || i < 0)
        return false;
    *out = (uint64_t)i;
    return true;
}

static const struct model_tensor *layer_tensor(const struct check *c, uint64_t layer, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "blk.%" PRIu64 ".%s.weight", layer, suffix);
    return model_find(c->m, name);
}

/* --- each number by itself --- */

static int check_whole_numbers(struct check *c)
{
    static const struct {
        const char *suffix;
        uint64_t least, most;
    } ranges[] = {
        {"block_count", 1, ARCH_MAX_LAYERS},  {"embedding_length", 1, 1u << 24},
        {"context_length", 1, UINT32_MAX},    {"nextn_predict_layers", 0, ARCH_MAX_EXTRA},
        {"attention.key_length", 1, 1 << 16}, {"attention.value_length", 1, 1 << 16},
        {"expert_count", 0, 1 << 16},         {"pooling_type", 0, 4},
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof ranges / sizeof *ranges; i++) {
        uint64_t v;
        if (!value(c, ranges[i].suffix))
            continue;
        if (!whole(c, ranges[i].suffix, &v))
            rc = found(c, "key '%s.%s' is not a whole number; expected %" PRIu64 " to %" PRIu64,
                       model_arch_name(c->m), ranges[i].suffix, ranges[i].least, ranges[i].most);
        else if (v < ranges[i].least || v > ranges[i].most)
            rc = found(c, "key '%s.%s' is %" PRIu64 ", expected %" PRIu64 " to %" PRIu64,
                       model_arch_name(c->m), ranges[i].suffix, v, ranges[i].least, ranges[i].most);
    }
    return rc;
}

static int check_real(struct check *c, const char *suffix, bool zero_too)
{
    double v;
    if (!value(c, suffix))
        return 0;
    if (!real(c, suffix, &v))
        return found(c, "key '%s.%s' is not a number", model_arch_name(c->m), suffix);
    if (isfinite(v) && (v > 0 || (zero_too && v == 0)))
        return 0;
    return found(c, "key '%s.%s' is %g, expected a number %s", model_arch_name(c->m), suffix, v,
                 zero_too ? "that is not negative" : "above 0");
}

/* --- numbers that belong together --- */

static int check_prediction_blocks(struct check *c)
{
    uint64_t n;
    if (!whole(c, "nextn_predict_layers", &n) || c->n_stated == 0 || n < c->n_stated)
        return 0;
    return found(c,
                 "key '%s.nextn_predict_layers' is %" PRIu64 ", expected less than block_count (%" PRIu64
                 "), which counts these blocks too",
                 model_arch_name(c->m), n, c->n_stated);
}

/* Each layer with attention needs heads, and each head of keys serves a whole number of heads of queries. */
static int check_heads(struct check *c)
{
    const char *arch = model_arch_name(c->m);
    if (!value(c, "attention.head_count"))
        return 0;
    for (uint64_t layer = 0; layer < c->n_layers; layer++) {
        uint64_t heads = 0, kv = 0;
        if (layer_tensor(c, layer, "ssm_conv1d"))
            continue;
        if (!whole_of_layer(c, "attention.head_count", layer, &heads) || heads == 0 || heads > 1 << 16)
            return found(
                c, "key '%s.attention.head_count' is %" PRIu64 " in layer %" PRIu64 ", expected 1 to 65536",
                arch, heads, layer);
        if (!value(c, "attention.head_count_kv"))
            continue;
        if (!whole_of_layer(c, "attention.head_count_kv", layer, &kv) || kv == 0 || heads % kv != 0)
            return found(c,
                         "key '%s.attention.head_count_kv' is %" PRIu64 " in layer %" PRIu64
                         ", expected a divisor of head_count (%" PRIu64 ")",
                         arch, kv, layer, heads);
    }
    return 0;
}

/* The rotated part of a head: an even number of its entries. */
static int check_rotary(struct check *c)
{
    uint64_t n_rot, head_dim, width, heads;
    if (!value(c, "rope.dimension_count"))
        return 0;
    if (!whole(c, "attention.key_length", &head_dim)) {
        if (!whole(c, "embedding_length", &width) || !whole_of_layer(c, "attention.head_count", 0, &heads) ||
            heads == 0)
            return 0;
        head_dim = width / heads;
    }
    if (whole(c, "rope.dimension_count", &n_rot) && n_rot >= 2 && n_rot % 2 == 0 && n_rot <= head_dim)
        return 0;
    return found(
        c, "key '%s.rope.dimension_count' is not an even number from 2 to %" PRIu64 ", the size of a head",
        model_arch_name(c->m), head_dim);
}

static int check_rotary_scaling(struct check *c)
{
    const struct gguf_value *type = value(c, "rope.scaling.type");
    bool yarn = type && type->type == GGUF_STRING && gguf_string_is(type->s, "yarn");
    if (!yarn && !(type && type->type == GGUF_STRING && gguf_string_is(type->s, "linear")))
        return 0;
    int rc = check_real(c, "rope.scaling.factor", false);
    return rc == 0 && yarn ? check_real(c, "rope.scaling.original_context_length", false) : rc;
}

static int check_feed_forward(struct check *c)
{
    const char *arch = model_arch_name(c->m);
    uint64_t n_experts = 0, n_used = 0, width;
    whole(c, "expert_count", &n_experts);
    for (uint64_t layer = 0; layer < c->n_layers; layer++) {
        if (layer_tensor(c, layer, "ffn_gate_inp")) {
            if (n_experts == 0 || !whole(c, "expert_used_count", &n_used) || n_used == 0 ||
                n_used > n_experts)
                return found(c,
                             "keys '%s.expert_count' (%" PRIu64 ") and 'expert_used_count' (%" PRIu64
                             ") do not fit: layer %" PRIu64 " has a router, which uses 1 to all of them",
                             arch, n_experts, n_used, layer);
        } else if (layer_tensor(c, layer, "ffn_down") && value(c, "feed_forward_length") &&
                   (!whole_of_layer(c, "feed_forward_length", layer, &width) || width == 0)) {
            return found(c,
                         "key '%s.feed_forward_length' gives layer %" PRIu64 " no width, expected 1 or more",
                         arch, layer);
        }
    }
    return 0;
}

static int check_delta_net(struct check *c)
{
    uint64_t kernel, state, groups, heads, inner;
    bool any = false;
    for (uint64_t layer = 0; !any && layer < c->n_layers; layer++)
        any = layer_tensor(c, layer, "ssm_conv1d") != NULL;
    if (!any || !whole(c, "ssm.conv_kernel", &kernel) || !whole(c, "ssm.state_size", &state) ||
        !whole(c, "ssm.group_count", &groups) || !whole(c, "ssm.time_step_rank", &heads) ||
        !whole(c, "ssm.inner_size", &inner))
        return 0;
    if (kernel >= 1 && kernel <= 64 && state >= 1 && state <= 4096 && groups >= 1 && groups <= 4096 &&
        heads >= 1 && heads <= 1 << 16 && heads % groups == 0 && inner % heads == 0 && inner / heads >= 1 &&
        inner / heads <= 4096)
        return 0;
    return found(c,
                 "keys '%s.ssm.*' do not fit together: conv_kernel %" PRIu64 ", state_size %" PRIu64
                 ", group_count %" PRIu64 ", time_step_rank %" PRIu64 ", inner_size %" PRIu64
                 " (expected a multiple of time_step_rank, and that of group_count)",
                 model_arch_name(c->m), kernel, state, groups, heads, inner);
}

/* --- numbers and tensors --- */

bool model_layer_of(const char *tensor_name, uint64_t *layer)
{
    char *end;
    if (strncmp(tensor_name, "blk.", 4) != 0 || tensor_name[4] < '0' || tensor_name[4] > '9')
        return false;
    *layer = strtoull(tensor_name + 4, &end, 10);
    return *end == '.';
}

/* A runtime that counts would leave these layers out, and compute something else without a word. */
static int check_layers_beyond(struct check *c)
{
    const char *example = NULL;
    uint64_t n = 0, layer;
    for (size_t i = 0; c->n_stated && i < model_n_tensors(c->m); i++) {
        const char *name = model_tensor(c->m, i)->name;
        if (model_layer_of(name, &layer) && layer >= c->n_stated) {
            example = example ? example : name;
            n++;
        }
    }
    return n == 0 ? 0
                  : found(c,
                          "key '%s.block_count' is %" PRIu64 ", but %" PRIu64
                          " tensor%s of layers beyond that, '%s' among them",
                          model_arch_name(c->m), c->n_stated, n, n == 1 ? " is" : "s are", example);
}

static int check_vocabulary_size(struct check *c)
{
    const struct gguf_value *tokens = gguf_meta_find(model_meta(c->m), "tokenizer.ggml.tokens");
    const struct model_tensor *embd = model_find(c->m, "token_embd.weight");
    if (!tokens || tokens->type != GGUF_ARRAY || !embd || tokens->a.n == embd->ne[1])
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
    if (!whole(c, "pooling_type", &pooling) || pooling != 4 || model_find(c->m, "cls.output.weight"))
        return 0;
    return found(c,
                 "key '%s.pooling_type' says that texts are ranked, but there is no tensor "
                 "'cls.output.weight'",
                 model_arch_name(c->m));
}

int model_check(const struct model *m, struct string_list *findings, struct arena *arena, struct err *e)
{
    static int (*const checks[])(struct check *) = {
        check_whole_numbers, check_prediction_blocks, check_heads,
        check_rotary,        check_rotary_scaling,    check_feed_forward,
        check_delta_net,     check_layers_beyond,     check_vocabulary_size,
        check_answer,
    };
    struct check c = {.m = m, .findings = findings, .arena = arena, .e = e};
    uint64_t n_extra = 0;
    if (!arch_by_name(model_arch_name(m)))
        return 0;
    if (!whole(&c, "block_count", &c.n_stated) || c.n_stated > ARCH_MAX_LAYERS)
        c.n_stated = 0;
    whole(&c, "nextn_predict_layers", &n_extra);
    c.n_layers = n_extra < c.n_stated ? c.n_stated - n_extra : c.n_stated;
    int rc = check_real(&c, "attention.layer_norm_rms_epsilon", true);
    if (rc == 0)
        rc = check_real(&c, "rope.freq_base", false);
    for (size_t i = 0; rc == 0 && i < sizeof checks / sizeof *checks; i++)
        rc = checks[i](&c);
    return rc;
}
