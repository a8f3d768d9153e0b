/* hf_packed_read.c - elements of packed weights as float32.
 *
 * Two steps on the rows asked for, nothing of full size: the codes as numbers, in the order in which each
 * layout stores them, then zero points and scales, row by row with a small table for its groups.
 *
 * Arithmetic is that of the reference programs: code - zero is exact in float32, one multiplication by the
 * scale follows. In 4-bit floats that product is exact too, and the global factor of NVFP4 multiplies it: the
 * very values that blocks with a factor beside them give (hf_packed_blocks.c), rounded once. */
#include "hf_packed_internal.h"

#include "libquant/base/filemap.h"
#include "libquant/fp4.h"

#include <stdlib.h>
#include <string.h>

#define N_LOCAL      64   /* groups of a row that need no allocation */
#define ROWS_AT_ONCE 128  /* column layouts: as many rows as keep their cache lines while columns pass */
#define TABLE_FROM   1024 /* elements from which a table of all 256 values pays */

struct reading {
    const struct hf_packed *w;
    const float *f8; /* value of each code, or NULL */
    float *scale, *zero;
    uint32_t *group; /* of each column, when an index says so */
};

/* A piece of the weight: rows [row, row + n) counted over the stack, columns [c0, c1). */
struct piece {
    uint64_t row, n, c0, c1;
};

/* --- codes ---------------------------------------------------------------------------------------------- */

static float f8_value(enum code_layout layout, uint8_t b)
{
    return layout == CODES_F8_E4M3 ? f8_e4m3_to_f32(b) : f8_e5m2_to_f32(b);
}

static void f8_codes(const struct reading *r, const uint8_t *p, uint64_t n, float *dst)
{
    for (uint64_t i = 0; i < n; i++)
        dst[i] = r->f8 ? r->f8[p[i]] : f8_value(r->w->codes, p[i]);
}

static void row_codes(const struct reading *r, uint64_t row, uint64_t c0, uint64_t c1, float *dst)
{
    const struct hf_packed *w = r->w;
    const struct st_tensor *t = w->part[PART_CODES];
    const uint8_t *p = t->data;
    switch (w->codes) {
    case CODES_F8_E4M3:
    case CODES_F8_E5M2: f8_codes(r, p + row * w->n_cols + c0, c1 - c0, dst); break;
    case CODES_I8:
        for (uint64_t c = c0; c < c1; c++)
            *dst++ = (float)(int8_t)p[row * w->n_cols + c];
        break;
    case CODES_FP4:
        p += row * (w->n_cols / 2);
        for (uint64_t c = c0; c < c1; c++)
            *dst++ = 0.5f * (float)fp4_levels[p[c / 2] >> 4 * (c % 2) & 15];
        break;
    case CODES_BITNET:
        p += row % t->shape[0] * w->n_cols;
        for (uint64_t c = c0; c < c1; c++)
            *dst++ = (float)(p[c] >> 2 * (row / t->shape[0]) & 3);
        break;
    case CODES_INT_ROWS:
        p += 4 * row * t->shape[t->n_dims - 1];
        for (uint64_t c = c0; c < c1; c++)
            *dst++ = (float)bits_at(p, 1, w->bits, c);
        break;
    default: break;
    }
}

/* 32 numbers stand in `bits` words one below the other, so that many words of one output are taken at a time.
 */
static void gptq_codes(const struct hf_packed *w, const struct piece *p, float *dst)
{
    const struct st_tensor *t = w->part[PART_CODES];
    const uint64_t n_words = t->shape[0], n_out = t->shape[1], ld = p->c1 - p->c0;
    const unsigned bits = w->bits.bits;
    for (uint64_t c = p->c0; c < p->c1;) {
        uint64_t word0 = c / 32 * bits, left = n_words - word0;
        unsigned first = c % 32, last = p->c1 - c < 32 - first ? first + (unsigned)(p->c1 - c) : 32;
        for (uint64_t o = 0; o < p->n; o++) {
            uint32_t words[9] = {0};
            for (unsigned k = 0; k < bits && k < left; k++)
                words[k] = load_u32(t->data + 4 * ((word0 + k) * n_out + p->row + o));
            float *x = dst + o * ld + (c - p->c0);
            for (unsigned k = first; k < last; k++)
                *x++ = (float)bits_at((const uint8_t *)words, 1, w->bits, k);
        }
        c += last - first;
    }
}

/* Column of nibble j. */
static const uint8_t awq_order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
static const uint8_t awq_nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static void awq_codes(const struct hf_packed *w, const struct piece *p, float *dst)
{
    const struct st_tensor *t = w->part[PART_CODES];
    const uint64_t n_words = t->shape[1], ld = p->c1 - p->c0, end = p->row + p->n;
    for (uint64_t c = p->c0; c < p->c1; c++) {
        for (uint64_t k = p->row / 8; 8 * k < end; k++) {
            uint32_t v = load_u32(t->data + 4 * (c * n_words + k));
            for (unsigned j = 0; j < 8; j++) {
                uint64_t o = 8 * k + awq_order[j];
                if (o >= p->row && o < end)
                    dst[(o - p->row) * ld + (c - p->c0)] = (float)(v >> 4 * j & 15);
            }
        }
    }
}

/* --- scales and zero points ----------------------------------------------------------------------------- */

static float zero_at(const struct hf_packed *w, uint64_t mat, uint64_t o, uint64_t g)
{
    const struct st_tensor *t = w->part[PART_ZERO];
    const struct grid *s = &w->scale;
    switch (w->zeros) {
    case ZERO_CONSTANT: return w->zero;
    case ZERO_I8:
        return (float)(int8_t)t->data[mat * s->stride_m + o / s->block_o * s->stride_o + g * s->stride_i] +
               w->zero;
    case ZERO_GPTQ: return (float)bits_at(t->data + 4 * g * t->shape[1], 1, w->zero_bits, o) + w->zero;
    case ZERO_AWQ:
        return (float)(load_u32(t->data + 4 * (g * t->shape[1] + o / 8)) >> 4 * awq_nibble[o % 8] & 15);
    case ZERO_BIAS: return scale_at(t->data, t->dtype, mat * s->stride_m + o * s->stride_o + g * s->stride_i);
    case ZERO_INT_ROWS: return (float)bits_at(t->data + 4 * g, t->shape[1], w->zero_bits, o);
    default: return 0;
    }
}

static float global_of(const struct hf_packed *w, uint64_t mat)
{
    const struct st_tensor *t = w->part[PART_GLOBAL];
    return t ? scale_at(t->data, t->dtype, t->n_elems == 1 ? 0 : mat) : 1;
}

/* Scale and zero point of groups [g0, g1) of one row, at the places of their numbers from g0 on. */
static void row_tables(const struct reading *r, uint64_t row, uint64_t g0, uint64_t g1)
{
    const struct hf_packed *w = r->w;
    const struct grid *s = &w->scale;
    const uint64_t mat = row / w->n_rows, o = row % w->n_rows;
    const float global = global_of(w, mat);
    for (uint64_t g = g0; g < g1; g++) {
        float v = 1;
        if (s->data)
            v = scale_at(s->data, s->dtype,
                         mat * s->stride_m + o / s->block_o * s->stride_o + g * s->stride_i);
        if (w->codes != CODES_FP4)
            v = w->global_divides ? v / global : v * global;
        r->scale[g - g0] = v;
        if (w->zeros != ZERO_NONE)
            r->zero[g - g0] = zero_at(w, mat, o, g);
    }
}

static void scale_row(const struct reading *r, uint64_t row, uint64_t c0, uint64_t c1, float *x)
{
    const struct hf_packed *w = r->w;
    const bool shifted = w->zeros != ZERO_NONE;
    const float factor = w->codes == CODES_FP4 ? hf_packed_block_factor(w, row / w->n_rows) : w->factor;
    if (r->group) {
        row_tables(r, row, 0, w->n_groups);
        for (uint64_t c = c0; c < c1; c++) {
            uint32_t g = r->group[c];
            x[c - c0] = r->scale[g] * (x[c - c0] - (shifted ? r->zero[g] : 0));
        }
        return;
    }
    const uint64_t block = w->scale.block_i, g0 = c0 / block, g1 = (c1 - 1) / block + 1;
    row_tables(r, row, g0, g1);
    for (uint64_t c = c0; c < c1;) {
        uint64_t g = c / block, end = (g + 1) * block < c1 ? (g + 1) * block : c1;
        float scale = r->scale[g - g0], zero = shifted ? r->zero[g - g0] : 0;
        for (; w->zeros == ZERO_BIAS && c < end; c++)
            x[c - c0] = scale * x[c - c0] + zero;
        for (; c < end; c++)
            x[c - c0] = scale * (x[c - c0] - zero) * factor;
    }
}

/* --- pieces --------------------------------------------------------------------------------------------- */

static void read_piece(const struct reading *r, const struct piece *p, float *dst)
{
    const uint64_t ld = p->c1 - p->c0;
    for (uint64_t done = 0; done < p->n;) {
        struct piece part = {p->row + done, p->n - done < ROWS_AT_ONCE ? p->n - done : ROWS_AT_ONCE, p->c0,
                             p->c1};
        float *x = dst + done * ld;
        if (r->w->codes == CODES_INT_COLUMNS)
            gptq_codes(r->w, &part, x);
        else if (r->w->codes == CODES_AWQ)
            awq_codes(r->w, &part, x);
        for (uint64_t i = 0; i < part.n; i++) {
            if (r->w->codes != CODES_INT_COLUMNS && r->w->codes != CODES_AWQ)
                row_codes(r, part.row + i, p->c0, p->c1, x + i * ld);
            scale_row(r, part.row + i, p->c0, p->c1, x + i * ld);
        }
        done += part.n;
    }
}

/* Group numbers of all columns. compressed-tensors fills an index that says nothing with -1; then the
 * columns are in order, and *used is false. */
static int read_index(const struct hf_packed *w, uint32_t *group, bool *used, struct err *e)
{
    const struct st_tensor *t = w->part[PART_GROUP];
    *used = true;
    for (uint64_t c = 0; c < w->n_cols; c++) {
        uint32_t g = load_u32(t->data + 4 * c);
        if (g == UINT32_MAX && w->codes == CODES_INT_ROWS) {
            *used = false;
            return 0;
        }
        if (g >= w->n_groups)
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '%s': group %lld of column %llu, but there are %llu groups", w->file,
                           t->name, (long long)(int32_t)g, (unsigned long long)c,
                           (unsigned long long)w->n_groups);
        group[c] = g;
    }
    return 0;
}

/* The range as an incomplete first row, whole rows, and an incomplete last row. */
static void read_range(const struct reading *r, uint64_t first, uint64_t n, float *dst)
{
    const uint64_t n_cols = r->w->n_cols;
    while (n != 0) {
        struct piece p = {.row = first / n_cols, .n = 1, .c0 = first % n_cols, .c1 = n_cols};
        if (p.c0 == 0 && n >= n_cols)
            p.n = n / n_cols;
        else if (n < n_cols - p.c0)
            p.c1 = p.c0 + n;
        uint64_t take = p.n * (p.c1 - p.c0);
        read_piece(r, &p, dst);
        first += take;
        dst += take;
        n -= take;
    }
}

int hf_packed_read(const struct hf_packed *w, uint64_t first, uint64_t n, float *dst, struct err *e)
{
    float table[256], local[2 * N_LOCAL], *tables = NULL;
    uint32_t *index = NULL;
    struct reading r = {.w = w, .scale = local, .zero = local + N_LOCAL};
    int rc = 0;
    if (w->codes == CODES_BNB4)
        return packed_read_bnb4(w, first, n, dst, e);
    if ((w->codes == CODES_F8_E4M3 || w->codes == CODES_F8_E5M2) && n >= TABLE_FROM) {
        for (unsigned i = 0; i < 256; i++)
            table[i] = f8_value(w->codes, (uint8_t)i);
        r.f8 = table;
    }
    if (w->n_groups > N_LOCAL) {
        tables = malloc(2 * w->n_groups * sizeof *tables);
        if (!tables)
            return err_set(e, ERR_NOMEM, "out of memory: scales of one row of '%s'", w->name);
        r.scale = tables;
        r.zero = tables + w->n_groups;
    }
    if (w->by_index) {
        bool used = false;
        index = malloc(w->n_cols * sizeof *index);
        rc = index ? read_index(w, index, &used, e)
                   : err_set(e, ERR_NOMEM, "out of memory: group index of '%s'", w->name);
        r.group = used ? index : NULL;
    }
    if (rc == 0)
        read_range(&r, first, n, dst);
    free(tables);
    free(index);
    return rc;
}

void hf_packed_hint(const struct hf_packed *w, uint64_t first, uint64_t n, bool want)
{
    const struct st_tensor *t = w->part[PART_CODES];
    uint64_t n_elems = 1, from = 0, to = t->n_bytes;
    for (uint32_t i = 0; i < w->n_dims; i++)
        n_elems *= w->shape[i];
    if (!t->data || n == 0)
        return;
    if (w->codes == CODES_INT_COLUMNS || w->codes == CODES_AWQ || w->codes == CODES_BITNET) {
        if (want ? first != 0 : first + n != n_elems)
            return; /* rows come from all over: announce first, drop last */
    } else {
        from = (uint64_t)((double)first / (double)n_elems * (double)t->n_bytes);
        to = (uint64_t)((double)(first + n) / (double)n_elems * (double)t->n_bytes);
        from = from < t->n_bytes ? from : t->n_bytes;
        to = to < t->n_bytes ? to : t->n_bytes;
    }
    if (want)
        filemap_want(t->data + from, to - from);
    else
        filemap_drop(t->data + from, to - from);
}
