/* kern_tables.h - the tables of the levels, for kern_select.c and for each other. Users go through kern.h. */
#ifndef KERF_KERN_TABLES_H
#define KERF_KERN_TABLES_H

#include "kern.h"

#include "../fp4.h"
#include "../iquants.h"
#include "../kquants.h"
#include "../legacy.h"
#include "libquant/float_types.h"
#include "../product.h"
#include "../ternary.h"

extern const struct kern kern_ref, kern_sse2, kern_avx2, kern_avx512, kern_neon;
extern const struct kern_product product_sse2, product_avx2, product_avx512, product_neon;

/* Entries that no level improves; a table is complete, so all list them. */
#define KERN_COMMON_DECODERS                                                                                 \
    [QTYPE_F32] = f32_decode, [QTYPE_F64] = f64_decode, [QTYPE_I8] = i8_decode, [QTYPE_I16] = i16_decode,    \
    [QTYPE_I32] = i32_decode, [QTYPE_I64] = i64_decode, [QTYPE_IQ1_S] = iq1_s_decode,                        \
    [QTYPE_IQ1_M] = iq1_m_decode, [QTYPE_IQ2_XXS] = iq2_xxs_decode, [QTYPE_IQ2_XS] = iq2_xs_decode,          \
    [QTYPE_IQ2_S] = iq2_s_decode, [QTYPE_IQ3_XXS] = iq3_xxs_decode, [QTYPE_IQ3_S] = iq3_s_decode,            \
    [QTYPE_TQ1_0] = tq1_0_decode, [QTYPE_Q1_0] = q1_0_decode, [QTYPE_Q2_0] = q2_0_decode,                    \
    [QTYPE_NVFP4] = nvfp4_decode

#define KERN_COMMON_ENCODERS                                                                                 \
    [QTYPE_F32] = f32_encode, [QTYPE_TQ1_0] = tq1_0_encode, [QTYPE_Q1_0] = q1_0_encode,                      \
    [QTYPE_Q2_0] = q2_0_encode

/* Entries with a vector version: PREFIX is empty for the reference, lanes_ for the others. */
#define KERN_DECODERS(PREFIX)                                                                                \
    [QTYPE_F16] = PREFIX##f16_decode, [QTYPE_BF16] = PREFIX##bf16_decode,                                    \
    [QTYPE_Q4_0] = PREFIX##q4_0_decode, [QTYPE_Q4_1] = PREFIX##q4_1_decode,                                  \
    [QTYPE_Q5_0] = PREFIX##q5_0_decode, [QTYPE_Q5_1] = PREFIX##q5_1_decode,                                  \
    [QTYPE_Q8_0] = PREFIX##q8_0_decode, [QTYPE_Q2_K] = PREFIX##q2_k_decode,                                  \
    [QTYPE_Q3_K] = PREFIX##q3_k_decode, [QTYPE_Q4_K] = PREFIX##q4_k_decode,                                  \
    [QTYPE_Q5_K] = PREFIX##q5_k_decode, [QTYPE_Q6_K] = PREFIX##q6_k_decode,                                  \
    [QTYPE_IQ4_NL] = PREFIX##iq4_nl_decode, [QTYPE_IQ4_XS] = PREFIX##iq4_xs_decode,                          \
    [QTYPE_TQ2_0] = PREFIX##tq2_0_decode, [QTYPE_MXFP4] = PREFIX##mxfp4_decode

#define KERN_ENCODERS(PREFIX)                                                                                \
    [QTYPE_F16] = PREFIX##f16_encode, [QTYPE_BF16] = PREFIX##bf16_encode,                                    \
    [QTYPE_Q4_0] = PREFIX##q4_0_encode, [QTYPE_Q4_1] = PREFIX##q4_1_encode,                                  \
    [QTYPE_Q5_0] = PREFIX##q5_0_encode, [QTYPE_Q5_1] = PREFIX##q5_1_encode,                                  \
    [QTYPE_Q8_0] = PREFIX##q8_0_encode, [QTYPE_Q2_K] = PREFIX##q2_k_encode,                                  \
    [QTYPE_Q3_K] = PREFIX##q3_k_encode, [QTYPE_Q4_K] = PREFIX##q4_k_encode,                                  \
    [QTYPE_Q5_K] = PREFIX##q5_k_encode, [QTYPE_Q6_K] = PREFIX##q6_k_encode,                                  \
    [QTYPE_IQ4_NL] = PREFIX##iq4_nl_encode, [QTYPE_IQ4_XS] = PREFIX##iq4_xs_encode,                          \
    [QTYPE_TQ2_0] = PREFIX##tq2_0_encode, [QTYPE_MXFP4] = PREFIX##mxfp4_encode,                              \
    [QTYPE_NVFP4] = PREFIX##nvfp4_encode, [QTYPE_IQ1_S] = PREFIX##iq1_s_encode,                              \
    [QTYPE_IQ1_M] = PREFIX##iq1_m_encode, [QTYPE_IQ2_XXS] = PREFIX##iq2_xxs_encode,                          \
    [QTYPE_IQ2_XS] = PREFIX##iq2_xs_encode, [QTYPE_IQ2_S] = PREFIX##iq2_s_encode,                            \
    [QTYPE_IQ3_XXS] = PREFIX##iq3_xxs_encode, [QTYPE_IQ3_S] = PREFIX##iq3_s_encode

#endif
