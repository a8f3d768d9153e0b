/* arch_rows.h - tensor rows and keys that several families share (specification, architectures
 * 0.11, 4.3, 9.3). For the files of this folder. */
#ifndef KERF_ARCH_ROWS_H
#define KERF_ARCH_ROWS_H

#include "arch.h"

/* Designated names keep a table readable; what a row does not say is zero: required, copied, every layer. */
#define ARCH_GROUP(array)            ARCH_GROUP_WHEN(array, NULL)
#define ARCH_GROUP_WHEN(array, when) ARCH_GROUP_OF(array, when, NULL)
#define ARCH_GROUP_OF(array, when, layers)                                                                   \
    {                                                                                                        \
        array, sizeof(array) / sizeof((array)[0]), when, layers                                              \
    }
#define ARCH_END_GROUPS                                                                                      \
    {                                                                                                        \
        NULL, 0, NULL, NULL                                                                                  \
    }

extern const struct arch_row arch_rows_global[3]; /* embedding, final norm, head                          */
extern const struct arch_row
    arch_rows_rerank[2]; /* two rows of the head as cls.output; before arch_rows_global */
/* Score heads. llama.cpp's rerankers answer with the softmax over two labels, which is 1 for a single one; so
 * for families whose runtime has such a head (ranked) a label of zeros stands behind it: the softmax is then
 * the sigmoid of the score, and the order of texts that of the score. */
extern const struct arch_row arch_rows_score[1];
extern const struct arch_row arch_rows_score_ranked[2];
extern const struct arch_row arch_rows_reward[4];
extern const struct arch_row arch_rows_norms[2]; /* attn_norm, ffn_norm                                  */
extern const struct arch_row arch_rows_attention[4]; /* q, k, v, o */
/* The same with their biases, for runtimes that rotate pairs of neighbours: HuggingFace rotates the two
 * halves of a head, so the rows of q and k are permuted, weights and biases alike. */
extern const struct arch_row arch_rows_permuted_attention[7];
extern const struct arch_row arch_rows_ffn_bias[3];             /* gate, up, down */
extern const struct arch_key arch_keys_llama[];                 /* vocab_size, rope.dimension_count */
int arch_check_even_heads(struct arch_model *a, struct err *e); /* rotation needs pairs */
/* Heads make up hidden_size, as `arch` takes for granted, whose files have no key for the size of a head. */
int arch_check_whole_heads(struct arch_model *a, const char *arch, struct err *e);
extern const struct arch_row arch_rows_qkv_bias[3]; /* q, k, v biases, optional                             */
extern const struct arch_row arch_rows_o_bias[1];   /* attention output bias, optional                      */
extern const struct arch_row arch_rows_qk_norm[2];  /* per-head RMS norms of q and k                        */
extern const struct arch_row arch_rows_ffn[3];      /* gate, up, down of a dense layer                      */
extern const struct arch_row arch_rows_fused_ffn[2]; /* gate and up as one matrix, down */
extern const struct arch_row
    arch_rows_experts[12]; /* routed experts: one by one, or stacked with gate and up fused */
extern const struct arch_row arch_rows_router[1];
extern const struct arch_row arch_rows_shared_expert[4];
/* Shared experts as one that is always used, and what is added to the scores of the others where they are
 * chosen: DeepSeek-V3 and those that follow it. */
extern const struct arch_row arch_rows_shared_experts[3];
extern const struct arch_row arch_rows_choice_bias[1];
bool arch_has_shared_experts(const struct arch_model *a, uint64_t layer);
extern const struct arch_key arch_keys_experts[]; /* the experts' width; of families without a shared one */

/* Rows of the stacked form [E, 2*Fe, D]: the gate half, the up half of each expert. */
uint64_t arch_gate_half(const struct arch_model *a, uint64_t out);
uint64_t arch_up_half(const struct arch_model *a, uint64_t out);

/* The same from the transposed form [E, D, 2*Fe], and the stacked form of the down projection (Qwen3-VL). */
extern const struct arch_row arch_rows_transposed_experts[6];

/* Norm scales that are stored around zero (+ 1): Gemma, and the hybrids. The norm behind attention has a name
 * of its own, not ffn_norm. */
extern const struct arch_row arch_rows_centred_global[3]; /* as arch_rows_global */
extern const struct arch_row arch_rows_centred_norms[2];  /* attn_norm, post_attention_norm */
extern const struct arch_row arch_rows_centred_qk_norms[2];

/* Hybrids of softmax attention and gated delta nets (arch_hybrid.c). */
extern const struct arch_row arch_rows_gated_attention[4]; /* q with gate, k, v, o */
extern const struct arch_row arch_rows_mtp[4];             /* multi-token prediction, on block L */
extern const struct arch_key arch_keys_hybrid[]; /* ssm.*, rotary dimensions of a part of the head */
bool arch_is_linear(const struct arch_model *a, uint64_t layer);
bool arch_is_full(const struct arch_model *a, uint64_t layer);
bool arch_is_mtp(const struct arch_model *a, uint64_t layer); /* the first prediction block */

/* Read layer_types / full_attention_interval, refuse what the runtime cannot hold. */
int arch_check_hybrid(struct arch_model *a, struct err *e);
int arch_check_hybrid_experts(struct arch_model *a, struct err *e); /* and arch_check_experts */
int arch_add_hybrid_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e);
const char *arch_rename_mtp(const struct arch_model *a, const char *name, struct arena *arena);

/* rope.dimension_sections where the configuration has none: these, which the reference class defaults to.
 * Where they are more than a small head has, which stops the runtime, they are cut to what it uses of them.
 */
int arch_default_sections(const struct arch_model *a, struct gguf_meta *meta, const int32_t sections[4],
                          struct err *e);

/* n_deepstack_layers: vision layers whose features enter the text layers (Qwen3-VL). */
int arch_add_deepstack(const struct arch_model *a, struct gguf_meta *meta, struct err *e);

/* Which layers have routed experts and which a plain feed-forward network, from decoder_sparse_step and
 * mlp_only_layers. Refuses E or K = 0. Prediction blocks always have experts. */
int arch_check_experts(struct arch_model *a, struct err *e);
/* The same from first_k_dense_replace: the first layers have none. */
int arch_check_leading_dense(struct arch_model *a, struct err *e);
/* Refuse n_group and topk_group that do not fit the experts; for models that choose in groups.
 * Neither: no groups. */
int arch_check_groups(const struct arch_model *a, struct err *e);
/* Are there groups, of which some are left out? */
bool arch_leaves_groups(const struct arch_model *a);
/* One group in place of the configuration's, for models whose choice does not depend on them: a runtime goes
 * by the keys alone, and llama.cpp stops where all groups are chosen. After the keys of the configuration. */
int arch_set_one_group(const struct arch_model *a, struct gguf_meta *meta, struct err *e);
bool arch_has_experts(const struct arch_model *a, uint64_t layer);
bool arch_is_dense(const struct arch_model *a, uint64_t layer);

/* A warning when some layer has no experts: the runtime wants them in all. */
int arch_warn_dense_layers(const struct arch_model *a, const struct arch_warnings *w, struct err *e);

/* Note where `norm_topk_prob` differs from what the runtime hard-codes for this architecture: a key that
 * llama.cpp ignores here, and a warning. */
int arch_add_expert_norm(const struct arch_model *a, struct gguf_meta *meta, bool runtime_normalises,
                         const struct arch_warnings *w, struct err *e);

/* Refuse windows in other layers than the runtime has them, which is built into it: every window_period-th
 * layer sees all tokens. */
int arch_check_windows(const struct arch_model *a, struct err *e);

/* A warning when the configuration gives the output projection a bias, which the runtime does not know in the
 * Qwen3 families. */
int arch_warn_output_bias(const struct arch_model *a, const struct arch_warnings *w, struct err *e);

/* HF's sliding window, where a configuration switches it on: writes the keys and warns, because the runtime
 * of the families here computes full attention. */
int arch_add_sliding_window(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                            struct err *e);

/* The same for families that window other layers than those from max_window_layers on. An explicit
 * layer_types counts more. */
int arch_add_sliding_window_where(const struct arch_model *a, struct gguf_meta *meta,
                                  bool (*windowed)(const struct arch_model *a, uint64_t layer),
                                  const struct arch_warnings *w, struct err *e);

#endif
