/* toy_shapes.c - see toy_shapes.h. Changing a draw here changes every model: the golden file must follow. */
#include "toy_shapes.h"

#include "libquant/base/rng.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MAX = 4096 };

static void add(struct toy_model *m, uint64_t ne0, uint64_t ne1, uint64_t ne2, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

static void add(struct toy_model *m, uint64_t ne0, uint64_t ne1, uint64_t ne2, const char *fmt, ...)
{
    if (m->n == TENSORS_MAX)
        return;
    struct toy_tensor *t = &m->tensors[m->n++];
    va_list args;
    va_start(args, fmt);
    vsnprintf(t->name, sizeof t->name, fmt, args);
    va_end(args);
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    t->ne[2] = ne2;
    t->ne[3] = 1;
}

enum attention { SEPARATE, FUSED, LATENT, HYBRID };
enum feed_forward { DENSE, STACKED_EXPERTS, SPLIT_EXPERTS, DENSE_THEN_EXPERTS };

static void add_attention(struct toy_model *m, enum attention kind, unsigned layer, uint64_t hidden,
                          uint64_t kv)
{
    add(m, hidden, 1, 1, "blk.%u.attn_norm.weight", layer);
    if (kind == HYBRID && layer % 4 != 3) {
        add(m, hidden, 3 * hidden, 1, "blk.%u.attn_qkv.weight", layer);
        add(m, hidden, hidden, 1, "blk.%u.attn_gate.weight", layer);
        add(m, 4, 3 * hidden, 1, "blk.%u.ssm_conv1d.weight", layer);
        add(m, hidden, hidden, 1, "blk.%u.ssm_out.weight", layer);
        add(m, 16, 1, 1, "blk.%u.ssm_a", layer);
        return;
    }
    if (kind == FUSED) {
        add(m, hidden, hidden + 2 * kv, 1, "blk.%u.attn_qkv.weight", layer);
        add(m, hidden + 2 * kv, 1, 1, "blk.%u.attn_qkv.bias", layer);
    } else if (kind == LATENT) {
        add(m, hidden, 64, 1, "blk.%u.attn_q_a.weight", layer);
        add(m, 64, hidden, 1, "blk.%u.attn_q_b.weight", layer);
        add(m, hidden, 96, 1, "blk.%u.attn_kv_a_mqa.weight", layer);
        add(m, 256, hidden, 1, "blk.%u.attn_kv_b.weight", layer);
        add(m, 128, 64, 4, "blk.%u.attn_k_b.weight", layer);
        add(m, 64, 128, 4, "blk.%u.attn_v_b.weight", layer);
    } else {
        add(m, hidden, hidden, 1, "blk.%u.attn_q.weight", layer);
        add(m, hidden, kv, 1, "blk.%u.attn_k.weight", layer);
        add(m, hidden, kv, 1, "blk.%u.attn_v.weight", layer);
        add(m, 64, 1, 1, "blk.%u.attn_q_norm.weight", layer);
    }
    add(m, hidden, hidden, 1, "blk.%u.attn_output.weight", layer);
}

static void add_dense(struct toy_model *m, unsigned layer, uint64_t hidden, uint64_t ff)
{
    add(m, hidden, ff, 1, "blk.%u.ffn_gate.weight", layer);
    add(m, hidden, ff, 1, "blk.%u.ffn_up.weight", layer);
    add(m, ff, hidden, 1, "blk.%u.ffn_down.weight", layer);
}

static void add_experts(struct toy_model *m, bool stacked, unsigned layer, uint64_t hidden, uint64_t ff)
{
    add(m, hidden, m->n_experts, 1, "blk.%u.ffn_gate_inp.weight", layer);
    if (stacked) {
        add(m, hidden, ff, m->n_experts, "blk.%u.ffn_gate_exps.weight", layer);
        add(m, hidden, ff, m->n_experts, "blk.%u.ffn_up_exps.weight", layer);
        add(m, ff, hidden, m->n_experts, "blk.%u.ffn_down_exps.weight", layer);
        add(m, ff, hidden, 1, "blk.%u.ffn_down_shexp.weight", layer);
    }
    for (unsigned x = 0; !stacked && x < m->n_experts; x++) {
        add(m, hidden, ff, 1, "blk.%u.ffn_gate.%u.weight", layer, x);
        add(m, hidden, ff, 1, "blk.%u.ffn_up.%u.weight", layer, x);
        add(m, ff, hidden, 1, "blk.%u.ffn_down.%u.weight", layer, x);
    }
}

static int layer_number(const char *name)
{
    int layer = -1;
    return sscanf(name, "blk.%d.", &layer) == 1 ? layer : -1;
}

static int by_layer_and_name(const void *a, const void *b)
{
    const struct toy_tensor *x = a, *y = b;
    const int p = layer_number(x->name), q = layer_number(y->name);
    return p != q ? (p < q ? -1 : 1) : strcmp(x->name, y->name);
}

bool toy_model_make(struct toy_model *m, uint64_t number)
{
    static const uint64_t layers[] = {1, 7, 8, 9, 15, 16, 17, 24, 32, 61, 80},
                          experts[] = {0, 0, 0, 1, 2, 4, 8, 16};
    static const uint64_t heads[][2] = {{4, 4}, {8, 4}, {8, 2}, {8, 1}, {12, 4}, {4, 0}};
    static const uint64_t widths[] = {256, 256, 256, 512, 288, 224, 96};
    static const char *const archs[] = {"llama", "qwen3", "falcon", "qwen3moe", "deepseek2"};
    static const enum qtype picks[] = {QTYPE_Q8_0, QTYPE_Q6_K,   QTYPE_Q4_K,
                                       QTYPE_F16,  QTYPE_IQ4_NL, QTYPE_Q3_K};
    /* the reference does not look at the rows for these, so all divide all widths */
    static const enum qtype forced[] = {QTYPE_Q8_0, QTYPE_F16, QTYPE_IQ4_NL, QTYPE_Q4_0};
    struct rng r = {number};
    *m = (struct toy_model){0};
    m->tensors = calloc(TENSORS_MAX, sizeof *m->tensors);
    if (m->tensors == NULL)
        return false;
    m->arch = archs[rng_below(&r, 5)];
    m->n_layers = layers[rng_below(&r, 11)];
    m->n_experts = experts[rng_below(&r, 8)];
    const uint64_t *pair = heads[rng_below(&r, 6)];
    m->n_heads = pair[0];
    m->n_kv_heads = pair[1];
    const uint64_t hidden = widths[rng_below(&r, 7)], ff = widths[rng_below(&r, 7)];
    const enum attention attention = (enum attention)rng_below(&r, 4);
    const enum feed_forward kind = m->n_experts > 1 ? (enum feed_forward)(1 + rng_below(&r, 3)) : DENSE;
    const bool tied = rng_below(&r, 2) != 0, per_layer = rng_below(&r, 6) == 0;
    const bool plain_options = rng_below(&r, 3) != 0;
    const enum qtype a = forced[rng_below(&r, 4)], b = forced[rng_below(&r, 4)], c = picks[rng_below(&r, 6)];
    if (!plain_options) {
        m->pure = rng_below(&r, 3) == 0;
        m->has_output_type = rng_below(&r, 2) != 0;
        m->has_embedding_type = rng_below(&r, 3) == 0;
        m->output_type = a;
        m->embedding_type = b;
        static const char *const patterns[] = {NULL, "ffn_down", "blk\\.[0-3]\\..*", "attn_(v|k)\\.weight$"};
        m->override_pattern = patterns[rng_below(&r, 4)];
        m->override_type = c;
    }
    add(m, hidden, 512, 1, "token_embd.weight");
    if (per_layer)
        add(m, hidden, 512, 1, "per_layer_token_embd.weight");
    add(m, hidden, 1, 1, "output_norm.weight");
    if (!tied)
        add(m, hidden, 512, 1, "output.weight");
    for (unsigned i = 0; i < m->n_layers; i++) {
        add_attention(m, attention, i, hidden, 128);
        if (kind == DENSE || (kind == DENSE_THEN_EXPERTS && i < 2))
            add_dense(m, i, hidden, ff);
        else
            add_experts(m, kind != SPLIT_EXPERTS, i, hidden, ff);
    }
    qsort(m->tensors, m->n, sizeof *m->tensors, by_layer_and_name);
    return true;
}

void toy_model_release(struct toy_model *m)
{
    free(m->tensors);
    *m = (struct toy_model){0};
}

char *toy_types_text(const enum qtype *types, size_t n)
{
    char *text = calloc(n + 1, 32), *p = text;
    for (size_t i = 0, run; text != NULL && i < n; i += run) {
        for (run = 1; i + run < n && types[i + run] == types[i]; run++)
            ;
        p += sprintf(p, run > 1 ? "%s%s*%zu" : "%s%s", i > 0 ? " " : "", qtype_name((uint32_t)types[i]), run);
    }
    return text;
}
