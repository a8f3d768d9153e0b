/* types.c - THE table of types.h. Sizes come from the block structs, never typed by hand. */
#include "types.h"

#include "base/checked.h"
#include "fp4.h"
#include "iquants.h"
#include "kquants.h"
#include "legacy.h"
#include "ternary.h"

#include <strings.h>

#define IGNORED  IMPORTANCE_IGNORED
#define OPTIONAL IMPORTANCE_OPTIONAL
#define REQUIRED IMPORTANCE_REQUIRED

static const struct qtype_info table[QTYPE_COUNT] = {
    /* name, elements, bytes of a block; in files, quantized, decodable, encodable; importance */
    [QTYPE_F32] = {"F32", 1, sizeof(float), true, false, true, true, IGNORED},
    [QTYPE_F16] = {"F16", 1, sizeof(uint16_t), true, false, true, true, IGNORED},
    [QTYPE_Q4_0] = {"Q4_0", 32, sizeof(struct q4_0_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q4_1] = {"Q4_1", 32, sizeof(struct q4_1_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q5_0] = {"Q5_0", 32, sizeof(struct q5_0_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q5_1] = {"Q5_1", 32, sizeof(struct q5_1_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q8_0] = {"Q8_0", 32, sizeof(struct q8_0_block), true, true, true, true, IGNORED},
    [QTYPE_Q8_1] = {"Q8_1", 32, sizeof(struct q8_1_block), false, true, false, false, IGNORED},
    [QTYPE_Q2_K] = {"Q2_K", 256, sizeof(struct q2_k_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q3_K] = {"Q3_K", 256, sizeof(struct q3_k_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q4_K] = {"Q4_K", 256, sizeof(struct q4_k_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q5_K] = {"Q5_K", 256, sizeof(struct q5_k_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q6_K] = {"Q6_K", 256, sizeof(struct q6_k_block), true, true, true, true, OPTIONAL},
    [QTYPE_Q8_K] = {"Q8_K", 256, sizeof(struct q8_k_block), false, true, false, false, IGNORED},
    [QTYPE_IQ2_XXS] = {"IQ2_XXS", 256, sizeof(struct iq2_xxs_block), true, true, true, true, REQUIRED},
    [QTYPE_IQ2_XS] = {"IQ2_XS", 256, sizeof(struct iq2_xs_block), true, true, true, true, REQUIRED},
    [QTYPE_IQ3_XXS] = {"IQ3_XXS", 256, sizeof(struct iq3_xxs_block), true, true, true, true, OPTIONAL},
    [QTYPE_IQ1_S] = {"IQ1_S", 256, sizeof(struct iq1_s_block), true, true, true, true, REQUIRED},
    [QTYPE_IQ4_NL] = {"IQ4_NL", 32, sizeof(struct iq4_nl_block), true, true, true, true, OPTIONAL},
    [QTYPE_IQ3_S] = {"IQ3_S", 256, sizeof(struct iq3_s_block), true, true, true, true, OPTIONAL},
    [QTYPE_IQ2_S] = {"IQ2_S", 256, sizeof(struct iq2_s_block), true, true, true, true, OPTIONAL},
    [QTYPE_IQ4_XS] = {"IQ4_XS", 256, sizeof(struct iq4_xs_block), true, true, true, true, OPTIONAL},
    [QTYPE_I8] = {"I8", 1, sizeof(int8_t), true, false, true, false, IGNORED},
    [QTYPE_I16] = {"I16", 1, sizeof(int16_t), true, false, true, false, IGNORED},
    [QTYPE_I32] = {"I32", 1, sizeof(int32_t), true, false, true, false, IGNORED},
    [QTYPE_I64] = {"I64", 1, sizeof(int64_t), true, false, true, false, IGNORED},
    [QTYPE_F64] = {"F64", 1, sizeof(double), true, false, true, false, IGNORED},
    [QTYPE_IQ1_M] = {"IQ1_M", 256, sizeof(struct iq1_m_block), true, true, true, true, OPTIONAL},
    [QTYPE_BF16] = {"BF16", 1, sizeof(uint16_t), true, false, true, true, IGNORED},
    [QTYPE_TQ1_0] = {"TQ1_0", 256, sizeof(struct tq1_0_block), true, true, true, true, IGNORED},
    [QTYPE_TQ2_0] = {"TQ2_0", 256, sizeof(struct tq2_0_block), true, true, true, true, IGNORED},
    [QTYPE_MXFP4] = {"MXFP4", 32, sizeof(struct mxfp4_block), true, true, true, true, IGNORED},
    [QTYPE_NVFP4] = {"NVFP4", 64, sizeof(struct nvfp4_block), true, true, true, true, IGNORED},
    [QTYPE_Q1_0] = {"Q1_0", 128, sizeof(struct q1_0_block), true, true, true, true, IGNORED},
    [QTYPE_Q2_0] = {"Q2_0", 64, sizeof(struct q2_0_block), true, true, true, true, IGNORED},
};

const struct qtype_info *qtype_info(uint32_t id)
{
    return id < QTYPE_COUNT && table[id].name != NULL ? &table[id] : NULL;
}

const char *qtype_name(uint32_t id)
{
    const struct qtype_info *info = qtype_info(id);
    return info != NULL ? info->name : "?";
}

bool qtype_from_name(const char *name, enum qtype *out)
{
    for (uint32_t id = 0; id < QTYPE_COUNT; id++) {
        if (table[id].name != NULL && strcasecmp(table[id].name, name) == 0) {
            *out = (enum qtype)id;
            return true;
        }
    }
    return false;
}

bool qtype_row_bytes(uint32_t id, uint64_t n_cols, uint64_t *out)
{
    const struct qtype_info *info = qtype_info(id);
    if (info == NULL || n_cols % info->block_elems != 0)
        return false;
    return checked_mul(n_cols / info->block_elems, info->block_bytes, out);
}
