/* ref.c - the reference table: plain C, runs everywhere, defines the bytes of all levels. */
#include "kern_tables.h"

const struct kern kern_ref = {
    .isa = "ref",
    .decode = {KERN_REF_DECODERS},
    .encode =
        {
            KERN_REF_ENCODERS,
            [QTYPE_Q4_0] = q4_0_encode,
            [QTYPE_Q4_1] = q4_1_encode,
            [QTYPE_Q5_0] = q5_0_encode,
            [QTYPE_Q5_1] = q5_1_encode,
            [QTYPE_Q8_0] = q8_0_encode,
            [QTYPE_Q2_K] = q2_k_encode,
            [QTYPE_Q3_K] = q3_k_encode,
            [QTYPE_Q4_K] = q4_k_encode,
            [QTYPE_Q5_K] = q5_k_encode,
            [QTYPE_Q6_K] = q6_k_encode,
            [QTYPE_IQ4_NL] = iq4_nl_encode,
            [QTYPE_IQ4_XS] = iq4_xs_encode,
        },
};
