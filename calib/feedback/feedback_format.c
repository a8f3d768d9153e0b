/* feedback_format.c - see feedback_format.h. Bits as libquant/kquants.h, legacy.h and iquants.h draw them. */
#include "feedback_format.h"

#include "libquant/half.h"
#include "libquant/iquants.h"
#include "libquant/kquants.h"
#include "libquant/legacy.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const float levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const float iq2_levels[6] = {-43, -25, -8, 8, 25, 43};
static const float iq3_xxs_levels[16] = {-62, -52, -44, -36, -28, -20, -12, -4,
                                         4,   12,  20,  28,  36,  44,  52,  62};
static const float iq3_s_levels[16] = {-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15};

/* The columns of the three kinds: codes from a range; iq4; code books. */
#define RANGE(MIN, MAX) MIN, MAX, NULL
#define PLAIN           0, 1, 1, false, false, 0
#define IQ4             0, 0, levels
#define IQ4_REST        16, 1, 1, false, false, 0
#define BOOK(LEVELS)    0, 0, LEVELS, false, true, 1, 31, 0, sizeof(LEVELS) / sizeof *(LEVELS)
static const struct feedback_format formats[] = {
    {QTYPE_Q2_K, 256, 16, 16, RANGE(0, 3), true, true, 0, 15, 15, PLAIN},
    {QTYPE_Q3_K, 256, 16, 16, RANGE(-4, 3), false, true, -32, 31, 0, PLAIN},
    {QTYPE_Q4_K, 256, 32, 8, RANGE(0, 15), true, true, 0, 63, 63, PLAIN},
    {QTYPE_Q5_K, 256, 32, 8, RANGE(0, 31), true, true, 0, 63, 63, PLAIN},
    {QTYPE_Q6_K, 256, 16, 16, RANGE(-32, 31), false, true, -128, 127, 0, PLAIN},
    {QTYPE_Q4_0, 32, 32, 1, RANGE(-8, 7), false, false, 1, 1, 1, PLAIN},
    {QTYPE_Q4_1, 32, 32, 1, RANGE(0, 15), true, false, 1, 1, 1, PLAIN},
    {QTYPE_Q5_0, 32, 32, 1, RANGE(-16, 15), false, false, 1, 1, 1, PLAIN},
    {QTYPE_Q5_1, 32, 32, 1, RANGE(0, 31), true, false, 1, 1, 1, PLAIN},
    {QTYPE_IQ4_XS, 256, 32, 8, IQ4, false, true, -32, 31, 0, IQ4_REST},
    {QTYPE_IQ4_NL, 32, 32, 1, IQ4, false, false, 1, 1, 1, IQ4_REST},
    {QTYPE_IQ2_XXS, 256, 32, 8, BOOK(iq2_levels), 0.125f, 2, true, true, CODEBOOK_IQ2_XXS},
    {QTYPE_IQ2_XS, 256, 16, 16, BOOK(iq2_levels), 0.125f, 2, true, true, CODEBOOK_IQ2_XS},
    {QTYPE_IQ2_S, 256, 16, 16, BOOK(iq2_levels), 0.125f, 2, true, false, CODEBOOK_IQ2_S},
    {QTYPE_IQ3_XXS, 256, 32, 8, BOOK(iq3_xxs_levels), 0.25f, 2, true, true, CODEBOOK_IQ3_XXS},
    {QTYPE_IQ3_S, 256, 32, 8, BOOK(iq3_s_levels), 1, 2, true, false, CODEBOOK_IQ3_S},
};
#undef RANGE
#undef PLAIN
#undef IQ4
#undef IQ4_REST
#undef BOOK

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

/* The entry of a tuple of signed codes. */
static unsigned entry_of(const struct feedback_format *f, const struct codebook *book, const int *code)
{
    uint8_t at[CODEBOOK_MAX_TUPLE] = {0};
    const float *magnitudes = f->levels + f->n_levels / 2;
    for (int i = 0; i < book->tuple; i++)
        while (at[i] + 1 < book->levels && (int)magnitudes[at[i]] != abs(code[i]))
            at[i]++;
    return (unsigned)book->place[codebook_key(book, at)];
}

/* Bit i: code i of eight is negative. */
static uint8_t signs_of(const int code[8])
{
    unsigned signs = 0;
    for (unsigned i = 0; i < 8; i++)
        signs |= (unsigned)(code[i] < 0) << i;
    return (uint8_t)signs;
}

/* Seven of eight signs for each eight of 32 weights (the eighth follows, as their number is even), and the
 * scale. */
static uint32_t signs_and_scale(const int code[32], int scale)
{
    uint32_t aux = (uint32_t)(scale / 2) << 28;
    for (unsigned k = 0; k < 4; k++)
        aux |= (uint32_t)(signs_of(code + 8 * k) & 127) << 7 * k;
    return aux;
}

static void pack_iq2(const struct feedback_format *f, void *dst, const struct feedback_block *b)
{
    const struct codebook *book = codebook_get(f->book);
    struct iq2_xxs_block *xxs = dst;
    struct iq2_xs_block *xs = dst;
    struct iq2_s_block *s = dst;
    for (unsigned k = 0; k < 32; k++) { /* tuples */
        const int *code = b->code + 8 * k;
        unsigned entry = entry_of(f, book, code), signs = signs_of(code);
        unsigned scale = (unsigned)(b->scale[k / 2] / 2) << 4 * (k / 2 % 2); /* of a pair of groups of 16 */
        if (f->type == QTYPE_IQ2_XXS) {
            xxs->group[k / 4].index[k % 4] = (uint8_t)entry;
            xxs->group[k / 4].aux = signs_and_scale(b->code + k / 4 * 32, b->scale[k / 4]);
        } else if (f->type == QTYPE_IQ2_XS) {
            xs->q[k] = (uint16_t)(entry | (signs & 127) << 9);
            xs->scales[k / 4] |= (uint8_t)scale;
        } else {
            s->q[k] = (uint8_t)entry;
            s->high[k / 4] |= (uint8_t)(entry >> 8 << 2 * (k % 4));
            s->signs[k] = (uint8_t)signs;
            s->scales[k / 4] |= (uint8_t)scale;
        }
    }
    const uint16_t d = f32_to_f16(b->d / f->unit);
    memcpy(dst, &d, sizeof d); /* all three begin with d */
}

static void pack_iq3(const struct feedback_format *f, void *dst, const struct feedback_block *b)
{
    const struct codebook *book = codebook_get(f->book);
    struct iq3_xxs_block *xxs = dst;
    struct iq3_s_block *s = dst;
    for (unsigned k = 0; k < 64; k++) { /* tuples */
        unsigned entry = entry_of(f, book, b->code + 4 * k);
        if (f->type == QTYPE_IQ3_XXS) {
            xxs->q[k] = (uint8_t)entry;
        } else {
            s->q[k] = (uint8_t)entry;
            s->high[k / 8] |= (uint8_t)(entry >> 8 << k % 8);
        }
    }
    for (unsigned j = 0; j < 8; j++) {
        if (f->type == QTYPE_IQ3_XXS) {
            xxs->aux[j] = signs_and_scale(b->code + 32 * j, b->scale[j]);
            continue;
        }
        for (unsigned k = 0; k < 4; k++)
            s->signs[4 * j + k] = signs_of(b->code + 32 * j + 8 * k);
        s->scales[j / 2] |= (uint8_t)((unsigned)(b->scale[j] / 2) << 4 * (j % 2));
    }
    const uint16_t d = f32_to_f16(b->d / f->unit);
    memcpy(dst, &d, sizeof d);
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
    case QTYPE_IQ2_XXS:
    case QTYPE_IQ2_XS:
    case QTYPE_IQ2_S: pack_iq2(f, dst, b); break;
    case QTYPE_IQ3_XXS:
    case QTYPE_IQ3_S: pack_iq3(f, dst, b); break;
    default: pack_legacy(f->type, dst, b);
    }
}
