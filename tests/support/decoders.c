/* decoders.c - see decoders.h. */
#include "decoders.h"

#include "libquant/fp4.h"
#include "libquant/iquants.h"
#include "libquant/kquants.h"
#include "libquant/legacy.h"
#include "libquant/float_types.h"
#include "libquant/ternary.h"

const struct kern reference_decoders = {
    .isa = "reference",
    .decode =
        {
            [QTYPE_F32] = f32_decode,       [QTYPE_F16] = f16_decode,       [QTYPE_BF16] = bf16_decode,
            [QTYPE_F64] = f64_decode,       [QTYPE_I8] = i8_decode,         [QTYPE_I16] = i16_decode,
            [QTYPE_I32] = i32_decode,       [QTYPE_I64] = i64_decode,       [QTYPE_Q4_0] = q4_0_decode,
            [QTYPE_Q4_1] = q4_1_decode,     [QTYPE_Q5_0] = q5_0_decode,     [QTYPE_Q5_1] = q5_1_decode,
            [QTYPE_Q8_0] = q8_0_decode,     [QTYPE_Q2_K] = q2_k_decode,     [QTYPE_Q3_K] = q3_k_decode,
            [QTYPE_Q4_K] = q4_k_decode,     [QTYPE_Q5_K] = q5_k_decode,     [QTYPE_Q6_K] = q6_k_decode,
            [QTYPE_IQ1_S] = iq1_s_decode,   [QTYPE_IQ1_M] = iq1_m_decode,   [QTYPE_IQ2_XXS] = iq2_xxs_decode,
            [QTYPE_IQ2_XS] = iq2_xs_decode, [QTYPE_IQ2_S] = iq2_s_decode,   [QTYPE_IQ3_XXS] = iq3_xxs_decode,
            [QTYPE_IQ3_S] = iq3_s_decode,   [QTYPE_IQ4_NL] = iq4_nl_decode, [QTYPE_IQ4_XS] = iq4_xs_decode,
            [QTYPE_TQ1_0] = tq1_0_decode,   [QTYPE_TQ2_0] = tq2_0_decode,   [QTYPE_MXFP4] = mxfp4_decode,
            [QTYPE_NVFP4] = nvfp4_decode,   [QTYPE_Q1_0] = q1_0_decode,     [QTYPE_Q2_0] = q2_0_decode,
        },
    .encode =
        {
            [QTYPE_F32] = f32_encode,
            [QTYPE_F16] = f16_encode,
            [QTYPE_BF16] = bf16_encode,
            [QTYPE_TQ1_0] = tq1_0_encode,
            [QTYPE_TQ2_0] = tq2_0_encode,
            [QTYPE_MXFP4] = mxfp4_encode,
            [QTYPE_NVFP4] = nvfp4_encode,
            [QTYPE_Q1_0] = q1_0_encode,
            [QTYPE_Q2_0] = q2_0_encode,
        },
};
