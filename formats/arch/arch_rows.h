/* arch_rows.h - tensor rows and keys that several families share (specification 0.11, 4.3, 9.3), and the
 * descriptors themselves. For the files of this folder. */
#ifndef KERF_ARCH_ROWS_H
#define KERF_ARCH_ROWS_H

#include "arch.h"

/* Designated names keep a table readable; what a row does not say is zero: required, copied, every layer. */
#define ARCH_GROUP(array)                                                                                    \
    {                                                                                                        \
        array, sizeof(array) / sizeof((array)[0])                                                            \
    }
#define ARCH_END_GROUPS                                                                                      \
    {                                                                                                        \
        NULL, 0                                                                                              \
    }

extern const struct arch_row arch_rows_global[3]; /* embedding, final norm, head                          */
extern const struct arch_row arch_rows_norms[2];  /* attn_norm, ffn_norm                                  */
extern const struct arch_row arch_rows_attention[4]; /* q, k, v, o */
extern const struct arch_row arch_rows_qkv_bias[3]; /* q, k, v biases, optional                             */
extern const struct arch_row arch_rows_o_bias[1];   /* attention output bias, optional                      */
extern const struct arch_row arch_rows_qk_norm[2];  /* per-head RMS norms of q and k                        */
extern const struct arch_row arch_rows_ffn[3];      /* gate, up, down of a dense layer                      */

/* HF's sliding window, where a configuration switches it on: writes the keys and warns, because the runtime
 * of the families here computes full attention. */
int arch_add_sliding_window(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                            struct err *e);

extern const struct arch arch_qwen2, arch_qwen3, arch_llama;

#endif
