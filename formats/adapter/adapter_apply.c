/* adapter_apply.c - the arithmetic of a term: rows of W + scale * B A in float32.
 *
 * A few rows of A at a time are unpacked and added to all rows at hand, so that each is unpacked once for
 * each call. Four products are summed before they are added, always the same four. */
#include "adapter.h"

#include "libquant/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN_RANKS = 8, BLOCK_RANKS = 32 }; /* rows of A at a time; blocks hold 32 ranks of a row of B */

/* `n` numbers from number `first` on, which stand in a row. */
static int read_run(const uint8_t *data, enum qtype type, const struct kern *k, uint64_t first, uint64_t n,
                    float *dst, struct err *e)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    uint64_t block = info->block_elems;
    if (first % block == 0 && n % block == 0)
        return quant_decode_rows(k, type, data + first / block * info->block_bytes,
                                 n / block * info->block_bytes, dst, 1, n, e);
    float one[256]; /* no type has longer blocks */
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = first + i;
        int rc = quant_decode_rows(k, type, data + at / block * info->block_bytes, info->block_bytes, one, 1,
                                   block, e);
        if (rc != 0)
            return rc;
        dst[i] = one[at % block];
    }
    return 0;
}

/* Elements (mat, i, j0 ...) of a factor. */
static int read_line(const struct adapter_factor *f, const struct kern *k, uint64_t mat, uint64_t i,
                     uint64_t j0, uint64_t n, float *dst, struct err *e)
{
    uint64_t at = mat * f->step_mat + i * f->step_row + j0 * f->step_col;
    if (f->step_col == 1)
        return read_run(f->data, f->type, k, at, n, dst, e);
    int rc = 0;
    for (uint64_t j = 0; rc == 0 && j < n; j++)
        rc = read_run(f->data, f->type, k, at + j * f->step_col, 1, dst + j, e);
    return rc;
}

static int bad_map(const struct adapter_term *t, struct err *e)
{
    return err_set(e, ERR_FORMAT, "tensor '%s': the sizes in config.json reach beyond module '%s'", t->tensor,
                   t->module);
}

/* Where a row of the output comes from. */
static uint64_t source_row(const struct adapter_term *t, uint64_t row)
{
    return t->rows ? t->rows(t->arch, row - t->row0) : row - t->row0;
}

int adapter_term_b(const struct adapter_term *t, const struct kern *k, uint64_t row, float *dst,
                   struct err *e)
{
    uint64_t src = source_row(t, row);
    if (src >= t->src_rows)
        return bad_map(t, e);
    return read_line(&t->b, k, src / t->mat_rows, src % t->mat_rows, 0, t->rank, dst, e);
}

static int read_a(const struct adapter_term *t, const struct kern *k, uint64_t mat, uint64_t rank, float *row,
                  float *dst, struct err *e)
{
    int rc = read_line(&t->a, k, mat, rank, 0, t->n_cols, t->cols ? row : dst, e);
    for (uint64_t c = 0; rc == 0 && t->cols && c < t->n_cols; c++) {
        uint64_t from = t->cols(t->arch, c);
        if (from >= t->n_cols)
            return bad_map(t, e);
        dst[c] = row[from];
    }
    return rc;
}

int adapter_term_a(const struct adapter_term *t, const struct kern *k, uint64_t row, uint64_t rank,
                   float *dst, struct err *e)
{
    uint64_t src = source_row(t, row);
    if (src >= t->src_rows)
        return bad_map(t, e);
    float *line = t->cols ? malloc(t->n_cols * sizeof *line) : NULL;
    int rc = t->cols && !line ? adapter_no_memory(e) : read_a(t, k, src / t->mat_rows, rank, line, dst, e);
    free(line);
    return rc;
}

/* What one call works with. */
struct work {
    const struct adapter_term *t;
    const struct kern *k;
    float *tile; /* rows of A */
    float *row;  /* one more, for columns that move */
    float coefficient[BLOCK_RANKS];
    uint64_t n_ranks; /* at a time */
};

static void add_products(float *restrict dst, const float *restrict a, const float *c, uint64_t n_ranks,
                         uint64_t n)
{
    uint64_t k = 0;
    for (; k + 4 <= n_ranks; k += 4) {
        const float *a0 = a + k * n, *a1 = a0 + n, *a2 = a1 + n, *a3 = a2 + n;
        for (uint64_t i = 0; i < n; i++)
            dst[i] += (c[k] * a0[i] + c[k + 1] * a1[i]) + (c[k + 2] * a2[i] + c[k + 3] * a3[i]);
    }
    for (; k < n_ranks; k++)
        for (uint64_t i = 0; i < n; i++)
            dst[i] += c[k] * a[k * n + i];
}

/* Rows of one matrix of the source, `n_ranks` ranks from k0 on. */
static int add_ranks(struct work *w, uint64_t row0, uint64_t n, uint64_t k0, uint64_t n_ranks, float *rows,
                     struct err *e)
{
    const struct adapter_term *t = w->t;
    uint64_t mat = source_row(t, row0) / t->mat_rows;
    int rc = 0;
    for (uint64_t k = 0; rc == 0 && k < n_ranks; k++)
        rc = read_a(t, w->k, mat, k0 + k, w->row, w->tile + k * t->n_cols, e);
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        uint64_t src = source_row(t, row0 + i) % t->mat_rows;
        rc = read_line(&t->b, w->k, mat, src, k0, n_ranks, w->coefficient, e);
        for (uint64_t k = 0; k < n_ranks; k++)
            w->coefficient[k] = (float)(t->scale * (double)w->coefficient[k]);
        if (rc == 0)
            add_products(rows + i * t->n_cols, w->tile, w->coefficient, n_ranks, t->n_cols);
    }
    return rc;
}

/* DoRA: each row gets the length that was learnt. A row of zeros has no direction and stays. */
static int set_lengths(const struct work *w, uint64_t row0, uint64_t n, float *rows, struct err *e)
{
    const struct adapter_term *t = w->t;
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        float *x = rows + i * t->n_cols, length;
        double sum = 0;
        rc = read_run(t->magnitude, t->magnitude_type, w->k, source_row(t, row0 + i), 1, &length, e);
        for (uint64_t c = 0; c < t->n_cols; c++)
            sum += (double)x[c] * (double)x[c];
        float factor = sum > 0 ? (float)((double)length / sqrt(sum)) : 1;
        for (uint64_t c = 0; c < t->n_cols; c++)
            x[c] *= factor;
    }
    return rc;
}

/* Rows of one matrix. */
static int apply_rows(struct work *w, uint64_t row0, uint64_t n, float *rows, struct err *e)
{
    const struct adapter_term *t = w->t;
    int rc = 0;
    for (uint64_t k0 = 0; rc == 0 && k0 < t->rank; k0 += w->n_ranks) {
        uint64_t now = t->rank - k0 < w->n_ranks ? t->rank - k0 : w->n_ranks;
        rc = add_ranks(w, row0, n, k0, now, rows, e);
    }
    return rc == 0 && t->magnitude ? set_lengths(w, row0, n, rows, e) : rc;
}

int adapter_term_apply(const struct adapter_term *t, const struct kern *k, uint64_t row0, uint64_t n,
                       float *rows, struct err *e)
{
    uint64_t first = row0 > t->row0 ? row0 : t->row0;
    uint64_t end = row0 + n < t->row0 + t->n_rows ? row0 + n : t->row0 + t->n_rows;
    if (first >= end)
        return 0;
    bool blocks = qtype_info((uint32_t)t->b.type)->block_elems > 1;
    struct work w = {.t = t, .k = k, .n_ranks = blocks ? BLOCK_RANKS : PLAIN_RANKS};
    w.tile = malloc(w.n_ranks * t->n_cols * sizeof *w.tile);
    w.row = t->cols ? malloc(t->n_cols * sizeof *w.row) : NULL;
    int rc = w.tile && (w.row || !t->cols) ? 0 : adapter_no_memory(e);
    for (uint64_t at = first, end_of; rc == 0 && at < end; at = end_of) {
        uint64_t src = source_row(t, at), mat = src / t->mat_rows;
        for (end_of = at + 1; src < t->src_rows && end_of < end; end_of++) {
            src = source_row(t, end_of);
            if (src / t->mat_rows != mat)
                break;
        }
        if (mat >= t->src_rows / t->mat_rows)
            rc = bad_map(t, e);
        else
            rc = apply_rows(&w, at, end_of - at, rows + (at - row0) * t->n_cols, e);
    }
    free(w.tile);
    free(w.row);
    return rc;
}
