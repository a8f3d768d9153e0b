/* recipe_rules.h - inside of recipe.h: the mixes, what a rule may ask, and the interpreter of the rule table.
 */
#ifndef KERF_RECIPE_RULES_H
#define KERF_RECIPE_RULES_H

#include "recipe.h"

/* Index of a mix in the table (mix_at), and its bit in a rule's set. */
enum mix_index {
    MIX_F32,
    MIX_F16,
    MIX_BF16,
    MIX_Q8_0,
    MIX_Q6_K,
    MIX_Q5_K_M,
    MIX_Q5_K_S,
    MIX_Q5_1,
    MIX_Q5_0,
    MIX_Q4_K_M,
    MIX_Q4_K_S,
    MIX_IQ4_NL,
    MIX_IQ4_XS,
    MIX_Q4_1,
    MIX_Q4_0,
    MIX_MXFP4_MOE,
    MIX_Q3_K_L,
    MIX_Q3_K_M,
    MIX_Q3_K_S,
    MIX_IQ3_M,
    MIX_IQ3_S,
    MIX_IQ3_XS,
    MIX_IQ3_XXS,
    MIX_Q2_K,
    MIX_Q2_K_S,
    MIX_IQ2_M,
    MIX_IQ2_S,
    MIX_IQ2_XS,
    MIX_IQ2_XXS,
    MIX_Q2_0,
    MIX_TQ2_0,
    MIX_TQ1_0,
    MIX_IQ1_M,
    MIX_IQ1_S,
    MIX_Q1_0,
    MIX_COUNT,
};

enum mix_index mix_index(const struct mix *mix);

/* What a tensor is to the rules, from its name; one bit each. */
enum category {
    CAT_OTHER = 1 << 0,
    CAT_HEAD = 1 << 1, /* output.weight, and the embeddings when there is none (tied) */
    CAT_EMBEDDING = 1 << 2,
    CAT_V = 1 << 3, /* also fused qkv, and kv_b of latent attention */
    CAT_K = 1 << 4,
    CAT_Q = 1 << 5,
    CAT_OUT = 1 << 6, /* attention output */
    CAT_UP = 1 << 7,
    CAT_GATE = 1 << 8,
    CAT_DOWN = 1 << 9,
};

/* Never answers CAT_HEAD for the embeddings: whether they are tied is a matter of the whole model. */
enum category category_of(const char *name);

/* The few numbers of a model that rules ask for, and the counters that advance with each decision. */
struct rule_state {
    uint64_t n_layers;     /* block_count, multi-token-prediction blocks included */
    uint64_t n_experts;    /* 0: dense */
    uint64_t heads_per_kv; /* of the first layer; 0 when it has no KV heads */
    bool is_falcon;
    bool is_large; /* the "70B" rule */
    bool is_tied;  /* no output.weight */
    bool has_imatrix;
    uint64_t n_v; /* tensors of CAT_V */
    uint64_t seen_v, seen_down, seen_gate, seen_up;
};

/* From the numbers of the model; is_tied, has_imatrix and n_v are left to the caller. */
void rule_state_init(struct rule_state *s, const struct hparams *h);

/* The type the rules of `mix` give, before any fallback; advances the counters. Call in the order of layers
 * and names, for tensors that options have not decided. */
enum qtype rule_type(struct rule_state *s, const struct mix *mix, enum category category, const char *name,
                     const uint64_t ne[4]);

#endif
