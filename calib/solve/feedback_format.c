/* feedback_format.c - see feedback_format.h. Bits as libquant/kquants.h, legacy.h and iquants.h draw them. */
#include "feedback_format.h"

#include "libquant/half.h"
#include "libquant/iquants.h"
#include "libquant/kquants.h"
#include "libquant/legacy.h"

#include <stddef.h>
#include <string.h>

static const float levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static const struct feedback_format formats[] = {
    {QTYPE_Q2_K, 256, 16, 16, 0, 3, NULL, true, true, 0, 15, 15},
    {QTYPE_Q3_K, 256, 16, 16, -4, 3, NULL, false, true, -32, 31, 0},
    {QTYPE_Q4_K, 256, 32, 8, 0, 15, NULL, true, true, 0, 63, 63},
    {QTYPE_Q5_K, 256, 32, 8, 0, 31, NULL, true, true, 0, 63, 63},
    {QTYPE_Q6_K, 256, 16, 16, -32, 31, NULL, false, true, -128, 127, 0},
    {QTYPE_IQ4_XS, 256, 32, 8, 0, 0, levels, false, true, -32, 31, 0},
    {QTYPE_Q4_0, 32, 32, 1, -8, 7, NULL, false, false, 1, 1, 1},
    {QTYPE_Q4_1, 32, 32, 1, 0, 15, NULL, true, false, 1, 1, 1},
    {QTYPE_Q5_0, 32, 32, 1, -16, 15, NULL, false, false, 1, 1, 1},
    {QTYPE_Q5_1, 32, 32, 1, 0, 31, NULL, true, false, 1, 1, 1},
    {QTYPE_IQ4_NL, 32, 32, 1, 0, 0, levels, false, false, 1, 1, 1},
};

const struct feedback_format *feedback_format(enum qtype type)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].type == type)
            return &formats[i];
    return NULL;
}

static unsigned level_index(int value)
{
    unsigned i = 0;
    while (i < 15 && iq4_levels[i] != value)
        i++;
    return i;
}

static void pack_q2_k(struct q2_k_block *y, const struct feedback_block *b)
{
    for (unsigned j = 0; j < 16; j++)
        y->scales[j] = (uint8_t)(b->scale[j] | b->min[j] << 4);
    for (unsigned i = 0; i < 256; i++)
        y->q[32 * (i / 128) + i % 32] |= (uint8_t)(b->code[i] << 2 * (i % 128 / 32));
    y->d = f32_to_f16(b->d);
    y->dmin = f32_to_f16(b->dmin);
}

static void pack_q3_k(struct q3_k_block *y, const struct feedback_block *b)
{
    for (unsigned j = 0; j < 16; j++) {
        unsigned s = (unsigned)(b->scale[j] + 32);
        y->scales[j % 8] |= (uint8_t)((s & 15) << 4 * (j / 8));
        y->scales[8 + j % 4] |= (uint8_t)(s >> 4 << 2 * (j / 4));
    }
    for (unsigned i = 0; i < 256; i++) {
        unsigned q = (unsigned)(b->code[i] + 4);
        y->q[32 * (i / 128) + i % 32] |= (uint8_t)((q & 3) << 2 * (i % 128 / 32));
        y->high[i % 32] |= (uint8_t)(q >> 2 << i / 32);
    }
    y->d = f32_to_f16(b->d);
}

static void pack_k_scales(uint8_t s[12], const struct feedback_block *b)
{
    for (unsigned j = 0; j < 4; j++) {
        s[j] = (uint8_t)(b->scale[j] | b->scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(b->min[j] | b->min[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((b->scale[j + 4] & 15) | (b->min[j + 4] & 15) << 4);
    }
}

static void pack_q4_k(struct q4_k_block *y, const struct feedback_block *b)
{
    pack_k_scales(y->scales, b);
    for (unsigned i = 0; i < 256; i++)
        y->q[32 * (i / 64) + i % 32] |= (uint8_t)(b->code[i] << 4 * (i / 32 % 2));
    y->d = f32_to_f16(b->d);
    y->dmin = f32_to_f16(b->dmin);
}

static void pack_q5_k(struct q5_k_block *y, const struct feedback_block *b)
{
    pack_k_scales(y->scales, b);
    for (unsigned i = 0; i < 256; i++) {
        y->q[32 * (i / 64) + i % 32] |= (uint8_t)((b->code[i] & 15) << 4 * (i / 32 % 2));
        y->high[i % 32] |= (uint8_t)(b->code[i] >> 4 << i / 32);
    }
    y->d = f32_to_f16(b->d);
    y->dmin = f32_to_f16(b->dmin);
}

static void pack_q6_k(struct q6_k_block *y, const struct feedback_block *b)
{
    for (unsigned i = 0; i < 256; i++) {
        unsigned q = (unsigned)(b->code[i] + 32), half = i / 128, r = i % 128;
        y->low[64 * half + r % 64] |= (uint8_t)((q & 15) << 4 * (r / 64));
        y->high[32 * half + r % 32] |= (uint8_t)(q >> 4 << 2 * (r / 32));
    }
    for (unsigned j = 0; j < 16; j++)
        y->scales[j] = (int8_t)b->scale[j];
    y->d = f32_to_f16(b->d);
}

static void pack_iq4_xs(struct iq4_xs_block *y, const struct feedback_block *b)
{
    unsigned high = 0;
    for (unsigned j = 0; j < 8; j++) {
        unsigned s = (unsigned)(b->scale[j] + 32);
        y->scales_low[j / 2] |= (uint8_t)((s & 15) << 4 * (j % 2));
        high |= s >> 4 << 2 * j;
    }
    y->scales_high = (uint16_t)high;
    for (unsigned i = 0; i < 256; i++)
        y->q[16 * (i / 32) + i % 16] |= (uint8_t)(level_index(b->code[i]) << 4 * (i % 32 / 16));
    y->d = f32_to_f16(b->d);
}

/* The two halves of 32 codes of four bits. */
static void pack_nibbles(uint8_t q[16], const struct feedback_block *b, int bias)
{
    for (unsigned i = 0; i < 32; i++)
        q[i % 16] |= (uint8_t)(((unsigned)(b->code[i] + bias) & 15) << 4 * (i / 16));
}

static uint32_t fifth_bits(const struct feedback_block *b, int bias)
{
    uint32_t high = 0;
    for (unsigned i = 0; i < 32; i++)
        high |= (uint32_t)(b->code[i] + bias) >> 4 << i;
    return high;
}

static void pack_legacy(enum qtype type, void *dst, const struct feedback_block *b)
{
    struct q4_0_block *q4_0 = dst;
    struct q4_1_block *q4_1 = dst;
    struct q5_0_block *q5_0 = dst;
    struct q5_1_block *q5_1 = dst;
    struct iq4_nl_block *iq4_nl = dst;
    uint16_t d = f32_to_f16(b->d), m = f32_to_f16(-b->dmin);
    switch (type) {
    case QTYPE_Q4_0:
        q4_0->d = d;
        pack_nibbles(q4_0->q, b, 8);
        break;
    case QTYPE_Q4_1:
        q4_1->d = d;
        q4_1->m = m;
        pack_nibbles(q4_1->q, b, 0);
        break;
    case QTYPE_Q5_0:
        q5_0->d = d;
        q5_0->high = fifth_bits(b, 16);
        pack_nibbles(q5_0->q, b, 16);
        break;
    case QTYPE_Q5_1:
        q5_1->d = d;
        q5_1->m = m;
        q5_1->high = fifth_bits(b, 0);
        pack_nibbles(q5_1->q, b, 0);
        break;
    default:
        iq4_nl->d = d;
        for (unsigned i = 0; i < 32; i++)
            iq4_nl->q[i % 16] |= (uint8_t)(level_index(b->code[i]) << 4 * (i / 16));
    }
}

void feedback_pack(const struct feedback_format *f, const struct feedback_block *b, void *dst)
{
    memset(dst, 0, qtype_info((uint32_t)f->type)->block_bytes);
    switch (f->type) {
    case QTYPE_Q2_K: pack_q2_k(dst, b); break;
    case QTYPE_Q3_K: pack_q3_k(dst, b); break;
    case QTYPE_Q4_K: pack_q4_k(dst, b); break;
    case QTYPE_Q5_K: pack_q5_k(dst, b); break;
    case QTYPE_Q6_K: pack_q6_k(dst, b); break;
    case QTYPE_IQ4_XS: pack_iq4_xs(dst, b); break;
    default: pack_legacy(f->type, dst, b);
    }
}
