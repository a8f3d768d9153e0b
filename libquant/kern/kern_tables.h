/* kern_tables.h - the tables of the levels, for kern_select.c and for each other. Users go through kern.h. */
#ifndef KERF_KERN_TABLES_H
#define KERF_KERN_TABLES_H

#include "kern.h"

#include "../fp4.h"
#include "../iquants.h"
#include "../kquants.h"
#include "../legacy.h"
#include "../plain.h"
#include "../ternary.h"

extern const struct kern kern_ref, kern_avx2, kern_avx512, kern_neon;

/* Entries that no level improves: a table is complete. */
#define KERN_REF_DECODERS                                                                                    \
    [QTYPE_F32] = f32_decode, [QTYPE_F16] = f16_decode, [QTYPE_BF16] = bf16_decode,                          \
    [QTYPE_F64] = f64_decode, [QTYPE_I8] = i8_decode, [QTYPE_I16] = i16_decode, [QTYPE_I32] = i32_decode,    \
    [QTYPE_I64] = i64_decode, [QTYPE_Q4_0] = q4_0_decode, [QTYPE_Q4_1] = q4_1_decode,                        \
    [QTYPE_Q5_0] = q5_0_decode, [QTYPE_Q5_1] = q5_1_decode, [QTYPE_Q8_0] = q8_0_decode,                      \
    [QTYPE_Q2_K] = q2_k_decode, [QTYPE_Q3_K] = q3_k_decode, [QTYPE_Q4_K] = q4_k_decode,                      \
    [QTYPE_Q5_K] = q5_k_decode, [QTYPE_Q6_K] = q6_k_decode, [QTYPE_IQ1_S] = iq1_s_decode,                    \
    [QTYPE_IQ1_M] = iq1_m_decode, [QTYPE_IQ2_XXS] = iq2_xxs_decode, [QTYPE_IQ2_XS] = iq2_xs_decode,          \
    [QTYPE_IQ2_S] = iq2_s_decode, [QTYPE_IQ3_XXS] = iq3_xxs_decode, [QTYPE_IQ3_S] = iq3_s_decode,            \
    [QTYPE_IQ4_NL] = iq4_nl_decode, [QTYPE_IQ4_XS] = iq4_xs_decode, [QTYPE_TQ1_0] = tq1_0_decode,            \
    [QTYPE_TQ2_0] = tq2_0_decode, [QTYPE_Q1_0] = q1_0_decode, [QTYPE_Q2_0] = q2_0_decode,                    \
    [QTYPE_MXFP4] = mxfp4_decode, [QTYPE_NVFP4] = nvfp4_decode

#define KERN_REF_ENCODERS                                                                                    \
    [QTYPE_F32] = f32_encode, [QTYPE_F16] = f16_encode, [QTYPE_BF16] = bf16_encode,                          \
    [QTYPE_TQ1_0] = tq1_0_encode, [QTYPE_TQ2_0] = tq2_0_encode, [QTYPE_Q1_0] = q1_0_encode,                  \
    [QTYPE_Q2_0] = q2_0_encode, [QTYPE_MXFP4] = mxfp4_encode, [QTYPE_NVFP4] = nvfp4_encode

/* The encoders of lanes_encode.h and lanes_legacy.h. */
#define KERN_LANES_ENCODERS                                                                                  \
    [QTYPE_Q4_0] = lanes_q4_0_encode, [QTYPE_Q4_1] = lanes_q4_1_encode, [QTYPE_Q5_0] = lanes_q5_0_encode,    \
    [QTYPE_Q5_1] = lanes_q5_1_encode, [QTYPE_Q8_0] = lanes_q8_0_encode, [QTYPE_Q2_K] = lanes_q2_k_encode,    \
    [QTYPE_Q3_K] = lanes_q3_k_encode, [QTYPE_Q4_K] = lanes_q4_k_encode, [QTYPE_Q5_K] = lanes_q5_k_encode,    \
    [QTYPE_Q6_K] = lanes_q6_k_encode, [QTYPE_IQ4_NL] = lanes_iq4_nl_encode,                                  \
    [QTYPE_IQ4_XS] = lanes_iq4_xs_encode

#endif
