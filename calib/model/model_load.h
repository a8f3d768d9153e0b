/* model_load.h - a model as the forward pass sees it: its numbers, its small vectors, and for each layer the
 * steps to run with the tensors they need, looked up and checked once.
 *
 * Norms and biases are read to float32 here; matrices stay where they are and are read in panels through
 * weights.h. What a layer consists of is a list of steps, so a new family adds a step and a builder, and the
 * walk over layers stays the same. Truth: specification, architectures 0.11 and the section of each family.
 */
#ifndef KERF_MODEL_LOAD_H
#define KERF_MODEL_LOAD_H

#include "rope.h"

#include "formats/model/hparams.h"
#include "formats/model/model.h"
#include "libquant/base/arena.h"

enum layer_step { /* each takes the states, and adds its result to them */
                  STEP_ATTENTION,
                  STEP_MLP,
                  STEP_MOE,
                  STEP_DELTA_NET,
                  STEP_LATENT, /* attention over latents; fills `attention` */
};

/* Of the norms of latents, which the class has built in. */
#define LATENT_EPS 1e-6f

#define LAYER_MAX_STEPS    2
#define LAYER_MAX_MATRICES 20

/* A slice of the rows of a stored matrix: a projection of its own, or a part of a fused one. */
struct matrix {
    const struct model_tensor *tensor; /* NULL: the layer has no such matrix */
    uint64_t row0, n_rows;
    const float *bias; /* [n_rows] or NULL */
};

/* Attention over latents: a key is [latent, rotated part], one for all heads, and a value is its latent. So
 * `attention` has n_kv_heads 1; k are the rows of attn_kv_a_mqa, v those of the latent alone. */
struct latent {
    struct matrix q_a;                    /* [latent of queries, n_embd]; no tensor: q takes the states */
    const float *q_norm, *kv_norm;        /* of the latents */
    const struct model_tensor *k_b, *v_b; /* stacks of n_heads matrices [value_dim, nope_dim], [out_dim,
                                             value_dim] */
    uint32_t nope_dim, out_dim;           /* entries of a head's query that are not rotated; of its value */
};

struct attention {
    const float *norm;      /* [n_embd]; NULL: the states go in as they are */
    const float *post_norm; /* [n_embd], of the output; NULL: none */
    struct matrix q, k, v, output;
    const float *sinks;           /* [n_heads], see struct attention_heads; NULL: none */
    const float *q_norm, *k_norm; /* [head_dim], or NULL; with whole_norm [n_heads * head_dim] */
    bool whole_norm;
    bool rotates; /* positions are rotated into q and k */
    bool local;   /* ... by local_rope */
    float scale;  /* of scores; 0: 1 / sqrt(head_dim) */
    float cap;    /* of scores, see struct attention_heads; 0: none */
    uint32_t n_heads, n_kv_heads, head_dim, value_dim;
    uint32_t window;      /* keys a query sees, itself included; 0: all before it */
    struct latent latent; /* STEP_LATENT only */
    bool gated;           /* q holds head_dim query rows and head_dim gate rows for each head */
};

struct mlp {
    const float *norm, *post_norm; /* as those of attention */
    struct matrix gate, up, down;
    uint32_t width;
};

struct moe {
    const float *norm;
    struct matrix router;                                       /* [n_experts, n_embd] */
    const struct model_tensor *gate_exps, *up_exps, *down_exps; /* stacks of n_experts matrices */
    uint32_t n_experts, n_used, width;
    const float *gate_bias, *up_bias, *down_bias; /* [n_experts, width], and of down [n_experts, n_embd];
                                                     NULL: none */
    uint32_t expert_rows,
        up_row; /* of an expert in gate_exps and up_exps, and where its up matrix begins: width and
                   0, or 2 * width and width where both are one tensor, gate first */
    bool renormalise;
    float weight_scale;
    bool sigmoid;                     /* scores of experts, in place of softmax */
    const float *choice_bias;         /* [n_experts] added to scores where experts are chosen; NULL: none */
    uint32_t n_groups, n_groups_used; /* of experts, see struct expert_choice; 0: none */
    struct matrix shared_gate, shared_up, shared_down, shared_router; /* the last one: a single row */
    uint32_t shared_width;                                            /* 0: none */
};

struct delta_net {
    const float *norm;
    struct matrix qkv, gate, beta, alpha, ba, output; /* beta and alpha, or ba with both interleaved */
    const float *conv;                                /* [conv_dim, kernel] */
    const float *dt_bias, *a;                         /* [n_v_heads] */
    const float *head_norm;                           /* [v_dim] */
    uint32_t n_k_heads, n_v_heads, k_dim, v_dim, kernel;
    bool tiled; /* value head h uses key head h mod n_k_heads, else h / (n_v_heads / n_k_heads) */
};

/* What a model makes of its final states. */
enum net_answer {
    NET_TOKENS,    /* a distribution over the next token */
    NET_EMBEDDING, /* one vector for a text */
    NET_SCORE,     /* one number for a text, or for each of its steps */
};

enum net_pooling { /* ids fixed by GGUF */
                   NET_POOLING_NONE = 0,
                   NET_POOLING_MEAN = 1,
                   NET_POOLING_FIRST = 2,
                   NET_POOLING_LAST = 3,
                   NET_POOLING_RANK = 4, /* the last token's state goes to the score head */
};

/* score(y) = output (relu(hidden y)), or output y. With two labels the score is the log-odds of `label`. */
struct score_head {
    struct matrix hidden; /* [n_embd, n_embd], reward models only */
    struct matrix output; /* [n_labels, n_embd] */
    uint32_t n_labels;    /* 1 or 2 */
    uint32_t label;
    const char *label_name; /* as the file has it, on one line; NULL: it has none */
};

struct net_layer {
    uint32_t index;
    enum layer_step steps[LAYER_MAX_STEPS];
    size_t n_steps;
    struct attention attention;
    struct mlp mlp;
    struct moe moe;
    struct delta_net delta_net;
    const struct model_tensor *matrices[LAYER_MAX_MATRICES]; /* all of the above, for weights_load */
    size_t n_matrices;
};

struct net {
    const struct model *model;     /* borrowed */
    const struct hparams *hparams; /* of the model */
    uint32_t n_layers, n_embd, n_vocab, context_length;
    float eps;
    float embedding_scale, residual_scale, logit_scale; /* factors; 1: none */
    float logit_cap;                                    /* c: logits become c tanh(logit / c); 0: none */
    bool gelu;                                          /* in the feed-forward, in place of SiLU */
    bool clamped;                                       /* SwiGLU of experts is clamped, see compute.h */
    struct rope rope, local_rope;                       /* the latter where layers have a window */
    struct net_layer *layers;
    const struct model_tensor *embedding;
    const float *output_norm;
    struct matrix head; /* the embedding itself when tied; no tensor unless the answer is NET_TOKENS */
    enum net_answer answer;
    enum net_pooling pooling;
    struct score_head score; /* NET_SCORE */
    struct arena arena;
};

/* Borrows `m` until net_release. ERR_UNSUPPORTED: an architecture without a forward pass here (the message
 * lists those that have one); ERR_FORMAT: a missing key or tensor, or one of the wrong shape. */
int net_init(struct net *out, const struct model *m, struct err *e);
void net_release(struct net *net);

/* ERR_UNSUPPORTED, for what needs predictions of tokens, when the model answers with something else. */
int net_need_tokens(const struct net *net, const char *what, struct err *e);

/* The matrix of a layer with this name, or NULL. */
const struct model_tensor *net_layer_find(const struct net_layer *l, const char *name);

/* --- for the builders in model_layers.c --- */

/* The layer with this index; fills steps and tensors. */
int net_build_layer(struct net *net, uint32_t index, struct net_layer *out, struct err *e);

/* Vector `name` of n values in float32, owned by the net; *out stays NULL when it is absent and optional. */
int net_vector(struct net *net, const char *name, uint64_t n, bool required, const float **out,
               struct err *e);

/* Tensor `name` with ne0 = n_cols and n_mats slices of n_rows rows. NULL when absent and optional. */
int net_tensor(const struct net *net, const char *name, uint64_t n_cols, uint64_t n_rows, uint64_t n_mats,
               bool required, const struct model_tensor **out, struct err *e);

#endif
