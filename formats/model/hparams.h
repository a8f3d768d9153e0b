/* hparams.h - the numbers of a model: what its metadata says of layers, heads, widths, experts and positions,
 * read once when the model is opened, wherever it comes from.
 *
 *     const struct hparams *h = model_hparams(m);
 *     uint64_t n;
 *     if (!hparam_whole(&h->n_blocks, &n))
 *         return refuse(h, &h->n_blocks);          // says which key, and whether it is there at all
 *     struct hparams_heads heads = hparams_heads(h, layer);
 *
 * Reading judges nothing. A key that is missing, or of another kind than it must be, is recorded as that:
 * `verify` reports it, the forward pass refuses, the planner goes on with what there is, and an architecture
 * that is unknown here is read by the same keys. What must hold between the numbers is model_check.h.
 *
 * Only this module knows the keys `<architecture>.*` by name, what stands in for one that is not there, and
 * which window a layer has. Truth: specification, architectures 0.5, 0.10 and the keys of each family. */
#ifndef KERF_HPARAMS_H
#define KERF_HPARAMS_H

#include "formats/gguf/gguf_meta.h"

#include <stdbool.h>
#include <stdint.h>

enum hparam_state {
    HPARAM_ABSENT,
    HPARAM_WRONG, /* there, but of another kind: a text, a fraction, a negative number */
    HPARAM_ONE,   /* one value for the whole model */
    HPARAM_LIST,  /* counts only: one for each layer, some of which may still be wrong */
};

/* Where a number stands: its key behind "<architecture>.", and whether it is there. First in each kind. */
struct hparam {
    const char *suffix;
    enum hparam_state state;
};

struct hparam_count {
    struct hparam key;
    uint64_t value;                /* HPARAM_ONE */
    const struct gguf_value *list; /* HPARAM_LIST; borrowed from the metadata */
};

struct hparam_real {
    struct hparam key;
    double value;
};

struct hparam_flag {
    struct hparam key;
    bool value;
};

struct hparam_text {
    struct hparam key;
    struct gguf_string value;
};

struct arch;

struct hparams {
    const char *arch_name;   /* general.architecture; "" when it is not stated. Borrowed */
    const struct arch *arch; /* its family; NULL: unknown here */

    struct hparam_count n_blocks;  /* layers, blocks that predict further tokens included */
    struct hparam_count n_predict; /* ... of which these */
    struct hparam_count width;     /* of the states between layers */
    struct hparam_count context;   /* tokens the model was trained for */
    struct hparam_count n_loops;   /* times the blocks run */

    struct hparam_count n_heads, n_kv_heads; /* see hparams_heads */
    struct hparam_count key_dim, value_dim;
    /* Attention over latents: widths of those of queries and keys, and heads before they are taken there. */
    struct hparam_count q_latent, kv_latent, full_key_dim, full_value_dim;
    struct hparam_count window, window_pattern;   /* see hparams_window */
    struct hparam_count recurrent, full_interval; /* see hparams_is_recurrent */

    struct hparam_count ffn_width;
    struct hparam_count n_experts, n_experts_used, expert_width, shared_width;
    struct hparam_count n_expert_groups, n_expert_groups_used; /* experts are chosen in these */
    struct hparam_count n_shared_experts, expert_gating;       /* the latter: enum arch_gating */
    struct hparam_count n_dense_first;        /* layers without experts before those that have them */
    struct hparam_count moe_step, moe_period; /* every n-th layer has experts (two spellings) */
    struct hparam_flag expert_norm;           /* the weights of the experts of a token sum to one */
    struct hparam_real expert_scale;          /* ... and are multiplied by this */

    struct hparam_count ssm_kernel, ssm_state, ssm_groups, ssm_heads, ssm_inner; /* gated delta nets */

    struct hparam_real eps;                                                           /* of norms */
    struct hparam_real attention_scale, embedding_scale, residual_scale, logit_scale; /* see arch_runtime */
    struct hparam_real attention_cap, logit_cap;     /* c: x becomes c tanh(x / c) */
    struct hparam_count rope_n_rot;                  /* rotated entries of a head */
    struct hparam_real rope_theta, rope_local_theta; /* of layers with a window */
    struct hparam_text rope_scaling;
    struct hparam_real rope_factor, rope_context, rope_beta_fast, rope_beta_slow, rope_attn_factor,
        rope_attn_scale;
    struct hparam_real rope_log_multiplier; /* of scores: 1 + this ln(factor), squared; see DeepSeek */
    struct hparam_flag yarn_truncate, dynamic_ntk, logn_attention; /* keys of our own, see formats/arch */
    struct hparam_count train_length;

    struct hparam_count pooling;
    const struct gguf_value *labels;     /* array of the names of a score head's rows; NULL: none. Borrowed */
    const struct gguf_value *vocabulary; /* array of tokens; NULL: none. Borrowed */
};

/* Read everything. Borrows `meta` and `arch_name` as long as `out` is used; cannot fail. */
void hparams_read(struct hparams *out, const struct gguf_meta *meta, const char *arch_name);

static inline bool hparam_is_there(const struct hparam *p)
{
    return p->state != HPARAM_ABSENT;
}

/* The count that holds for the whole model; false: absent, wrong, or a list. */
bool hparam_whole(const struct hparam_count *p, uint64_t *out);

/* The count of one layer, from a list or the one for all; false: absent, or wrong there. */
bool hparam_of_layer(const struct hparam_count *p, uint64_t layer, uint64_t *out);

/* The same with a value for when there is none. */
uint64_t hparam_or(const struct hparam_count *p, uint64_t layer, uint64_t otherwise);
double hparam_real_or(const struct hparam_real *p, double otherwise);

/* Heads of one layer. Without a number of key heads there are as many as heads; without a size of its own a
 * head is its share of the width. 0: not known. */
struct hparams_heads {
    uint64_t n, n_kv, key_dim, value_dim;
};
struct hparams_heads hparams_heads(const struct hparams *h, uint64_t layer);

/* Layers without the blocks that predict further tokens: 0 when block_count cannot be used. */
uint64_t hparams_n_layers(const struct hparams *h);

/* Is the layer of a hybrid recurrent? Its files have a list or an interval; without either a layer that has
 * no key heads is. */
uint32_t hparams_default_interval(const struct hparams *h); /* where the file has neither; 0: no hybrid */
bool hparams_is_recurrent(const struct hparams *h, uint64_t layer);

/* Tokens that a query of this layer sees, itself included; 0: all before it. A pattern in the file is a list,
 * or a period n, every n-th layer then seeing all; where there is none, `period` says so: 0 windows every
 * layer, 1 none. */
uint64_t hparams_window(const struct hparams *h, uint64_t layer, uint64_t period);

/* Has the layer a window by its pattern, be that long or 0 (none)? As hparams_window, with the period of the
 * family. */
bool hparams_is_local(const struct hparams *h, uint64_t layer);

/* The next key, from *at = 0 on, that no runtime starts a model of any family without and that is not there;
 * NULL: no more. */
const struct hparam *hparams_next_missing(const struct hparams *h, size_t *at);

/* Is the key behind "<architecture>." one of those, or does the shape of a tensor depend on it? */
bool hparams_is_vital(const char *suffix);

struct arch_model;

/* The numbers as symbols of the family's descriptor (formats/arch), where they are there: those of the whole
 * model. Prediction blocks are taken off the layers. */
void hparams_symbols(const struct hparams *h, struct arch_model *a);

#endif
