/* lanes_encode.h - the encoders that search, LANES groups at a time. Included once per instruction set, after
 * its lanes_<isa>.h.
 *
 * A row is walked in chunks of up to LANES super-blocks, in three steps: search all groups of the chunk,
 * LANES per call; search the scales of its super-blocks, one per lane; then round and pack block by block
 * with the text of encode_parts.h, which the compiler vectorises. Bytes are those of the reference encoders.
 */
#ifndef KERF_LANES_ENCODE_H
#define KERF_LANES_ENCODE_H

#include "../encode_parts.h"
#include "../legacy.h"
#include "lanes_search.h"

/* Groups first..first+LANES-1 of n numbers each, one per lane; beyond n_groups zeros, which every search
 * takes for an empty group. */
static void load_groups(lf *out, const float *src, size_t first, size_t n_groups, int n)
{
    float t[32][LANES];
    for (size_t lane = 0; lane < LANES; lane++) {
        if (first + lane < n_groups) {
            const float *g = src + (first + lane) * (size_t)n;
            for (int i = 0; i < n; i++)
                t[i][lane] = g[i];
        } else {
            for (int i = 0; i < n; i++)
                t[i][lane] = 0.0f;
        }
    }
    for (int i = 0; i < n; i++)
        out[i] = lf_load(t[i]);
}

/* importance -> importance * sqrt(mean_square + x^2), in place */
static void lanes_weights(lf *w, const lf *x, lf mean_square, int n)
{
    for (int i = 0; i < n; i++)
        w[i] *= lf_sqrt(mean_square + x[i] * x[i]);
}

static lf lanes_sum_squares(const lf *x, int n)
{
    lf sum = lf_all(0);
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

static lf lanes_sum(const lf *w, int n)
{
    lf sum = lf_all(0);
    for (int i = 0; i < n; i++)
        sum += w[i];
    return sum;
}

/* --- k-quants: chunks of super-blocks
 * ------------------------------------------------------------------------ */

/* What the searches of a chunk found, by group. */
struct chunk {
    float mean_square[LANES];
    float scale[16 * LANES], offset[16 * LANES], weight[16 * LANES];
    float inverse[16 * LANES], anchor[16 * LANES];
};

/* Sums of squares of super-blocks, four at a time: each is one chain of additions. */
static void chunk_sums(float *sum, const float *x, size_t n_blocks)
{
    size_t b = 0;
    for (; b + 4 <= n_blocks; b += 4, x += 4 * 256) {
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        for (int i = 0; i < 256; i++) {
            s0 += x[i] * x[i];
            s1 += x[i + 256] * x[i + 256];
            s2 += x[i + 512] * x[i + 512];
            s3 += x[i + 768] * x[i + 768];
        }
        sum[b] = s0;
        sum[b + 1] = s1;
        sum[b + 2] = s2;
        sum[b + 3] = s3;
    }
    for (; b < n_blocks; b++, x += 256)
        sum[b] = sum_squares(x, 256);
}

/* The mean square of each lane's super-block. */
static lf lanes_mean_square(const struct chunk *c, size_t first, size_t n_groups, size_t groups_per_block)
{
    float t[LANES];
    for (size_t lane = 0; lane < LANES; lane++)
        t[lane] = first + lane < n_groups ? c->mean_square[(first + lane) / groups_per_block] : 0.0f;
    return lf_load(t);
}

static void store_scales(struct chunk *c, size_t first, const struct lane_scales *s)
{
    lf_store(c->scale + first, s->scale);
    lf_store(c->inverse + first, s->inverse);
}

/* Weights an asymmetric search uses without importance. */
enum plain_weights { PLAIN_MAGNITUDE, PLAIN_RMS_MAGNITUDE };

static void lanes_plain_weights(lf *w, const lf *x, enum plain_weights kind, int n)
{
    lf base = lf_all(0);
    if (kind == PLAIN_RMS_MAGNITUDE)
        base = lf_sqrt(lanes_sum_squares(x, n) / lf_all((float)n));
    for (int i = 0; i < n; i++)
        w[i] = base + lf_abs(x[i]); /* base 0 changes nothing: magnitudes have no sign of zero */
}

/* Whole batches, so a little beyond n_groups is written; a chunk has room for it. */
static void chunk_asymmetric(struct chunk *c, const float *src, const float *importance, size_t n_blocks,
                             int n, const struct asym_plan *plan, enum plain_weights plain)
{
    const size_t per_block = 256 / (size_t)n, n_groups = n_blocks * per_block;
    for (size_t first = 0; first < n_groups; first += WAYS * LANES) {
        lf x[WAYS][32], w[WAYS][32];
        struct lane_scales s[WAYS];
        for (size_t way = 0; way < WAYS; way++) {
            const size_t g = first + way * LANES;
            load_groups(x[way], src, g, n_groups, n);
            if (importance) {
                load_groups(w[way], importance, g, n_groups, n);
                lanes_weights(w[way], x[way], lanes_mean_square(c, g, n_groups, per_block), n);
            } else {
                lanes_plain_weights(w[way], x[way], plain, n);
            }
        }
        lanes_asymmetric(s, n, plan, x, w);
        for (size_t way = 0; way < WAYS; way++) {
            const size_t g = first + way * LANES;
            store_scales(c, g, &s[way]);
            lf_store(c->offset + g, s[way].offset);
            lf_store(c->anchor + g, s[way].anchor);
            lf_store(c->weight + g, lanes_sum(w[way], n));
        }
    }
}

/* search_positive over `per_block` values of each super-block: d and codes by super-block. */
static void chunk_positive(float *d, uint8_t codes[LANES][16], const float *values, const float *weights,
                           size_t n_blocks, int per_block, int levels)
{
    lf x[16], w[16];
    li q[16];
    load_groups(x, values, 0, n_blocks, per_block);
    load_groups(w, weights, 0, n_blocks, per_block);
    lf_store(d, lanes_positive(per_block, levels, x, w, q));
    for (int j = 0; j < per_block; j++) {
        uint8_t t[LANES];
        lb_store(t, q[j]);
        for (size_t b = 0; b < LANES; b++)
            codes[b][j] = t[b];
    }
}

/* The codes that the search itself chose, for groups that the final rounding leaves alone. */
static void search_codes_offset(uint8_t *codes, const float *x, int n, float inverse, float anchor,
                                int levels)
{
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)clamp_i32(round_near(inverse * (x[i] - anchor)), 0, levels);
}

static void search_codes_signed(uint8_t *codes, const float *x, int n, float inverse, int levels)
{
    for (int i = 0; i < n; i++)
        codes[i] = (uint8_t)(clamp_i32(round_near(inverse * x[i]), -levels, levels - 1) + levels);
    if (inverse == 0)
        memset(codes, 0, (size_t)n);
}

static void final_offset(uint8_t *codes, const float *x, int n, float step, float offset, int levels,
                         const struct chunk *c, size_t group)
{
    if (!round_offset(codes, x, n, step, offset, levels))
        search_codes_offset(codes, x, n, c->inverse[group], c->anchor[group], levels);
}

static void final_signed(uint8_t *codes, const float *x, int n, float step, int levels, const struct chunk *c,
                         size_t group)
{
    if (!round_signed(codes, x, n, step, levels))
        search_codes_signed(codes, x, n, c->inverse[group], levels);
}

/* Scales and mins of all super-blocks of a chunk, relative to their maximum where no importance is given. */
struct chunk_codes {
    float d[LANES], dmin[LANES];
    uint8_t scale[LANES][16], min[LANES][16];
};

static void chunk_scale_codes(struct chunk_codes *q, const struct chunk *c, bool searched, size_t n_blocks,
                              int per_block, int levels)
{
    if (searched) {
        chunk_positive(q->d, q->scale, c->scale, c->weight, n_blocks, per_block, levels);
        chunk_positive(q->dmin, q->min, c->offset, c->weight, n_blocks, per_block, levels);
        return;
    }
    for (size_t b = 0; b < n_blocks; b++) {
        const size_t g = b * (size_t)per_block;
        q->d[b] = relative_codes(q->scale[b], c->scale + g, per_block, (float)levels);
        q->dmin[b] = relative_codes(q->min[b], c->offset + g, per_block, (float)levels);
    }
}

static void q2_k_chunk(struct q2_k_block *out, const float *src, const float *importance, size_t n_blocks)
{
    struct chunk c;
    struct chunk_codes q;
    if (importance) {
        chunk_sums(c.mean_square, src, n_blocks);
        for (size_t b = 0; b < n_blocks; b++)
            c.mean_square[b] = c.mean_square[b] / 256;
    }
    chunk_asymmetric(&c, src, importance, n_blocks, 16, importance ? &plan_q2_k : &plan_q2_k_plain,
                     PLAIN_MAGNITUDE);
    chunk_scale_codes(&q, &c, importance != NULL, n_blocks, 16, 15);
    for (size_t b = 0; b < n_blocks; b++, out++, src += 256) {
        uint8_t codes[256];
        const float d = f16_round(q.d[b]), dmin = f16_round(q.dmin[b]);
        out->d = f32_to_f16(q.d[b]);
        out->dmin = f32_to_f16(q.dmin[b]);
        for (size_t j = 0; j < 16; j++) {
            const uint8_t s = (uint8_t)(q.scale[b][j] | q.min[b][j] << 4);
            out->scales[j] = s;
            final_offset(codes + 16 * j, src + 16 * j, 16, d * (float)(s & 15), dmin * (float)(s >> 4), 3, &c,
                         16 * b + j);
        }
        pack_two_bits(out->q, codes);
    }
}

/* Common part of q4_k and q5_k for one super-block. */
static void eight_groups_finish(uint8_t codes[256], uint8_t scales[12], const float *src,
                                struct chunk_codes *q, const struct chunk *c, size_t b, bool searched,
                                int levels)
{
    const float d = f16_round(q->d[b]), dmin = f16_round(q->dmin[b]);
    cap_six_bits(q->scale[b], q->min[b], searched, levels);
    k_store_scale_min(scales, q->scale[b], q->min[b]);
    for (size_t j = 0; j < 8; j++) {
        uint8_t s, m;
        k_scale_min(scales, (unsigned)j, &s, &m);
        final_offset(codes + 32 * j, src + 32 * j, 32, d * (float)s, dmin * (float)m, levels, c, 8 * b + j);
    }
}

static void eight_groups_search(struct chunk *c, struct chunk_codes *q, const float *src,
                                const float *importance, size_t n_blocks, const struct asym_plan *plan)
{
    if (importance) {
        chunk_sums(c->mean_square, src, n_blocks);
        for (size_t b = 0; b < n_blocks; b++)
            c->mean_square[b] = 2 * c->mean_square[b] / 256;
    }
    chunk_asymmetric(c, src, importance, n_blocks, 32, plan, PLAIN_RMS_MAGNITUDE);
    chunk_scale_codes(q, c, importance != NULL, n_blocks, 8, 63);
}

static void q4_k_chunk(struct q4_k_block *out, const float *src, const float *importance, size_t n_blocks)
{
    struct chunk c;
    struct chunk_codes q;
    eight_groups_search(&c, &q, src, importance, n_blocks, importance ? &plan_q4_k : &plan_q4_k_plain);
    for (size_t b = 0; b < n_blocks; b++, out++, src += 256) {
        uint8_t codes[256];
        out->d = f32_to_f16(q.d[b]);
        out->dmin = f32_to_f16(q.dmin[b]);
        eight_groups_finish(codes, out->scales, src, &q, &c, b, importance != NULL, 15);
        pack_low_nibbles(out->q, codes);
    }
}

static void q5_k_chunk(struct q5_k_block *out, const float *src, const float *importance, size_t n_blocks)
{
    struct chunk c;
    struct chunk_codes q;
    eight_groups_search(&c, &q, src, importance, n_blocks, importance ? &plan_q5_k : &plan_q5_k_plain);
    for (size_t b = 0; b < n_blocks; b++, out++, src += 256) {
        uint8_t codes[256];
        out->d = f32_to_f16(q.d[b]);
        out->dmin = f32_to_f16(q.dmin[b]);
        eight_groups_finish(codes, out->scales, src, &q, &c, b, importance != NULL, 31);
        pack_bit_planes(out->high, codes, 4);
        pack_low_nibbles(out->q, codes);
    }
}

/* Signed scales of q3_k under importance: search_symmetric over the 16 scales of each super-block. Scales
 * that overflowed (weights near the end of float32) go to the reference, as the vector search wants finite
 * numbers.
 */
static void q3_k_scales(float *d, uint8_t codes[LANES][16], const struct chunk *c, size_t n_blocks)
{
    lf x[16], w[16];
    float inverse[LANES];
    struct lane_scales s;
    load_groups(x, c->scale, 0, n_blocks, 16);
    load_groups(w, c->weight, 0, n_blocks, 16);
    lanes_symmetric(&s, 16, 32, x, w);
    lf_store(d, s.scale);
    lf_store(inverse, s.inverse);
    for (size_t b = 0; b < n_blocks; b++) {
        bool finite = true;
        for (size_t j = 0; j < 16; j++)
            finite = finite && isfinite(c->scale[16 * b + j]);
        if (finite)
            search_codes_signed(codes[b], c->scale + 16 * b, 16, inverse[b], 32);
        else
            d[b] = search_symmetric(16, 32, c->scale + 16 * b, c->weight + 16 * b, codes[b]);
    }
}

static void q3_k_search(struct chunk *c, const float *src, const float *importance, size_t n_blocks)
{
    chunk_sums(c->mean_square, src, n_blocks);
    for (size_t b = 0; b < n_blocks; b++)
        c->mean_square[b] = 2 * c->mean_square[b] / 256;
    for (size_t g = 0; g < 16 * n_blocks; g += LANES) {
        lf x[32], w[32];
        struct lane_scales s;
        load_groups(x, src, g, 16 * n_blocks, 16);
        load_groups(w, importance, g, 16 * n_blocks, 16);
        lanes_weights(w, x, lanes_mean_square(c, g, 16 * n_blocks, 16), 16);
        lanes_symmetric(&s, 16, 4, x, w);
        store_scales(c, g, &s);
        lf_store(c->weight + g, lanes_sum(w, 16));
    }
}

static void q3_k_search_plain(struct chunk *c, const float *src, size_t n_blocks)
{
    for (size_t first = 0; first < 16 * n_blocks; first += MOVE_WAYS * LANES) {
        lf x[MOVE_WAYS][16], scale[MOVE_WAYS];
        for (size_t way = 0; way < MOVE_WAYS; way++)
            load_groups(x[way], src, first + way * LANES, 16 * n_blocks, 16);
        lanes_moves(scale, 16, 4, x);
        for (size_t way = 0; way < MOVE_WAYS; way++)
            lf_store(c->scale + first + way * LANES, scale[way]);
    }
}

static void q3_k_chunk(struct q3_k_block *out, const float *src, const float *importance, size_t n_blocks)
{
    struct chunk c;
    float d[LANES];
    uint8_t scale[LANES][16];
    if (importance) {
        q3_k_search(&c, src, importance, n_blocks);
        q3_k_scales(d, scale, &c, n_blocks);
    } else {
        q3_k_search_plain(&c, src, n_blocks);
        for (size_t b = 0; b < n_blocks; b++)
            q3_k_relative_scales(scale[b], &d[b], c.scale + 16 * b);
    }
    for (size_t b = 0; b < n_blocks; b++, out++, src += 256) {
        uint8_t codes[256];
        const float step = f16_round(d[b]);
        out->d = f32_to_f16(d[b]);
        q3_k_store_scales(out->scales, scale[b]);
        for (size_t j = 0; j < 16; j++) {
            const float s = step * (float)(scale[b][j] - 32);
            if (importance)
                final_signed(codes + 16 * j, src + 16 * j, 16, s, 4, &c, 16 * b + j);
            else if (!round_signed(codes + 16 * j, src + 16 * j, 16, s, 4))
                search_moves(16, 4, src + 16 * j, codes + 16 * j); /* moved codes have no map; rare */
        }
        pack_bit_planes(out->high, codes, 2);
        pack_two_bits(out->q, codes);
    }
}

static void q6_k_chunk(struct q6_k_block *out, const float *src, const float *importance, size_t n_blocks)
{
    struct chunk c;
    for (size_t g = 0; g < 16 * n_blocks; g += LANES) {
        lf x[32], w[32];
        load_groups(x, src, g, 16 * n_blocks, 16);
        if (importance) {
            load_groups(w, importance, g, 16 * n_blocks, 16);
        } else {
            for (int i = 0; i < 16; i++)
                w[i] = x[i] * x[i];
        }
        struct lane_scales s;
        lanes_symmetric(&s, 16, 32, x, w);
        store_scales(&c, g, &s);
    }
    for (size_t b = 0; b < n_blocks; b++, out++, src += 256) {
        uint8_t codes[256];
        const float max = signed_largest(c.scale + 16 * b, 16);
        if (fabsf(max) < GROUP_ZERO) {
            memset(out, 0, sizeof *out);
            continue;
        }
        float d;
        q6_k_relative_scales(out->scales, &d, c.scale + 16 * b, max);
        out->d = f32_to_f16(d);
        for (size_t j = 0; j < 16; j++)
            final_signed(codes + 16 * j, src + 16 * j, 16, f16_round(d) * (float)out->scales[j], 32, &c,
                         16 * b + j);
        q6_k_pack(out, codes);
    }
}

/* --- iq4
 * ------------------------------------------------------------------------------------------------------- */

/* Codes of 32 weights at a scale, packed: iq4_pack with the vector lookup. */
static void lanes_iq4_pack(uint8_t q[16], const float *x, float scale)
{
    uint8_t codes[32];
    const lf inverse = lf_all(scale != 0 ? 1 / scale : 0.0f);
    for (int i = 0; i < 32; i += LANES)
        lb_store(codes + i, lanes_iq4_index(inverse * lf_load(x + i)));
    pack_nibbles(q, codes);
}

/* Scales of LANES groups of 32 from `first` on; mean_square as the type defines it, used with importance. */
static lf lanes_iq4_scales(const lf *x, const float *importance, lf mean_square, size_t first,
                           size_t n_groups)
{
    lf w[32];
    if (importance) {
        load_groups(w, importance, first, n_groups, 32);
        lanes_weights(w, x, mean_square, 32);
    } else {
        for (int i = 0; i < 32; i++)
            w[i] = x[i] * x[i];
    }
    return lanes_iq4(32, x, w);
}

static void lanes_iq4_nl_encode(void *dst, const float *src, size_t n_cols, const float *importance)
{
    struct iq4_nl_block *out = dst;
    const size_t n_groups = n_cols / 32;
    for (size_t g = 0; g < n_groups; g += LANES) {
        lf x[32];
        float scale[LANES];
        load_groups(x, src, g, n_groups, 32);
        const lf mean_square = lanes_sum_squares(x, 32) * lf_all(2.0f / 32);
        lf_store(scale, lanes_iq4_scales(x, importance, mean_square, g, n_groups));
        for (size_t lane = 0; lane < LANES && g + lane < n_groups; lane++) {
            out[g + lane].d = f32_to_f16(scale[lane]);
            lanes_iq4_pack(out[g + lane].q, src + 32 * (g + lane), scale[lane]);
        }
    }
}

static void iq4_xs_chunk(struct iq4_xs_block *out, const float *src, const float *importance, size_t n_blocks)
{
    struct chunk c;
    chunk_sums(c.mean_square, src, n_blocks);
    for (size_t b = 0; b < n_blocks; b++)
        c.mean_square[b] = c.mean_square[b] * (2.0f / 256);
    for (size_t g = 0; g < 8 * n_blocks; g += LANES) {
        lf x[32];
        load_groups(x, src, g, 8 * n_blocks, 32);
        lf_store(c.scale + g,
                 lanes_iq4_scales(x, importance, lanes_mean_square(&c, g, 8 * n_blocks, 8), g, 8 * n_blocks));
    }
    for (size_t b = 0; b < n_blocks; b++)
        iq4_xs_finish(out + b, src + 256 * b, c.scale + 8 * b, lanes_iq4_pack);
}

#define CHUNKED_ENCODER(name)                                                                                \
    static void lanes_##name##_encode(void *dst, const float *src, size_t n_cols, const float *importance)   \
    {                                                                                                        \
        struct name##_block *out = dst;                                                                      \
        for (size_t left = n_cols / 256; left > 0;) {                                                        \
            const size_t n = left < LANES ? left : LANES;                                                    \
            name##_chunk(out, src, importance, n);                                                           \
            out += n;                                                                                        \
            src += 256 * n;                                                                                  \
            if (importance)                                                                                  \
                importance += 256 * n;                                                                       \
            left -= n;                                                                                       \
        }                                                                                                    \
    }

CHUNKED_ENCODER(q2_k)
CHUNKED_ENCODER(q3_k)
CHUNKED_ENCODER(q4_k)
CHUNKED_ENCODER(q5_k)
CHUNKED_ENCODER(q6_k)
CHUNKED_ENCODER(iq4_xs)

#endif
