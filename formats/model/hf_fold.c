/* hf_fold.c - an embedding with a network of two layers folded into it, row by row (ARCH_FOLD).
 *
 * y = W2 silu(W1 x + b1) + b2. Products are tiles of the kernel table, whose bits depend on nothing but the
 * row, so a row is the same in whatever company it is read. The weights of the network are decoded a few rows
 * at a time: a matrix is never whole in memory, and all rows asked for share the work of decoding it. */
#include "hf_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 128 }; /* rows that pass the network together */

enum part { W1, B1, W2, B2, CODES };

/* Inputs of one product, cut into panels of KERN_TILE_DEPTH columns for the kernel. */
static void fill_panels(float *panels, const float *x, size_t n_rows, size_t n_cols)
{
    for (size_t p = 0; p < n_cols; p += KERN_TILE_DEPTH) {
        size_t depth = n_cols - p < KERN_TILE_DEPTH ? n_cols - p : KERN_TILE_DEPTH;
        for (size_t r = 0; r < n_rows; r++, panels += KERN_TILE_STRIDE)
            memcpy(panels, x + r * n_cols + p, depth * sizeof *x);
    }
}

/* y [n_rows, n_out] += x W^T for `take` rows of W from `first` on, which are decoded in `w`. */
static void product(const struct kern_product *k, const float *panels, const float *w, size_t n_cols,
                    float *packed, float *y, size_t n_out, size_t first, size_t take, size_t n_rows)
{
    float c[KERN_MAX_TILE_ROWS * KERN_MAX_TILE_COLS];
    for (size_t r = 0; r < n_rows; r += k->rows) {
        size_t rows = n_rows - r < k->rows ? n_rows - r : k->rows;
        const float *panel = panels + r * KERN_TILE_STRIDE;
        for (size_t p = 0; p < n_cols; p += KERN_TILE_DEPTH, panel += n_rows * KERN_TILE_STRIDE) {
            size_t depth = n_cols - p < KERN_TILE_DEPTH ? n_cols - p : KERN_TILE_DEPTH;
            if (r == 0)
                k->pack(packed + p * k->cols, w + p, n_cols, take, depth);
            k->tile(rows, depth, panel, packed + p * k->cols, c, k->cols, p != 0);
        }
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < take; j++)
                y[(r + i) * n_out + first + j] += c[i * k->cols + j];
    }
}

/* y = W x + b for n_rows rows. `scratch`: panels, then rows of W, then the same packed. */
static int layer(const struct kern *k, const struct checkpoint_weight *weight,
                 const struct checkpoint_weight *bias, const float *x, size_t n_rows, float *y,
                 float *scratch, struct err *e)
{
    size_t n_out = (size_t)weight->shape[0], n_cols = (size_t)weight->shape[1];
    size_t n_panels = (n_cols + KERN_TILE_DEPTH - 1) / KERN_TILE_DEPTH;
    float *w = scratch + n_panels * n_rows * KERN_TILE_STRIDE, *packed = w + k->product->cols * n_cols;
    int rc = checkpoint_weight_read(bias, k, 0, n_out, y, e);
    for (size_t r = 1; rc == 0 && r < n_rows; r++)
        memcpy(y + r * n_out, y, n_out * sizeof *y);
    fill_panels(scratch, x, n_rows, n_cols);
    for (size_t first = 0; rc == 0 && first < n_out; first += k->product->cols) {
        size_t take = n_out - first < k->product->cols ? n_out - first : k->product->cols;
        rc = checkpoint_weight_read(weight, k, first * n_cols, take * n_cols, w, e);
        if (rc == 0)
            product(k->product, scratch, w, n_cols, packed, y, n_out, first, take, n_rows);
    }
    return rc;
}

static void silu(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((double)x[i] / (1 + exp(-(double)x[i])));
}

/* Rows of texts: at most BATCH. `x` holds their sources, `hidden` what lies between, then what layer needs.
 */
static int fold(const struct kern *k, const struct hf_tensor *t, uint64_t row0, size_t n, float *dst,
                float *x, struct err *e)
{
    size_t width = (size_t)t->sources[0]->shape[1], inner = (size_t)t->with[W1]->shape[0];
    float *hidden = x + n * width, *scratch = hidden + n * inner;
    int rc = checkpoint_weight_read(t->sources[0], k, row0 * width, n * width, x, e);
    if (rc == 0)
        rc = layer(k, t->with[W1], t->with[B1], x, n, hidden, scratch, e);
    silu(hidden, rc == 0 ? n * inner : 0);
    return rc != 0 ? rc : layer(k, t->with[W2], t->with[B2], hidden, n, dst, scratch, e);
}

/* Elements of working space for n rows; widths are at most 2^20 (arch_resolve.c). */
static uint64_t space_of(const struct kern *k, const struct hf_tensor *t, uint64_t n)
{
    uint64_t width = t->sources[0]->shape[1], inner = t->with[W1]->shape[0],
             most = width > inner ? width : inner;
    uint64_t n_panels = (most + KERN_TILE_DEPTH - 1) / KERN_TILE_DEPTH;
    return n * (width + inner) + n_panels * n * KERN_TILE_STRIDE + 2 * k->product->cols * most;
}

int hf_fold_rows(const struct kern *k, const struct hf_tensor *t, uint64_t row0, uint64_t n, float *dst,
                 struct err *e)
{
    uint64_t n_texts = t->sources[0]->shape[0], n_cols = t->pub.ne[0], at_once = n < BATCH ? n : BATCH;
    float *space = NULL;
    int rc = 0;
    if (row0 < n_texts && !(space = malloc(space_of(k, t, at_once) * sizeof *space)))
        return err_set(e, ERR_NOMEM, "out of memory: rows of '%s'", t->pub.name);
    while (rc == 0 && n != 0) {
        uint64_t take = n < at_once ? n : at_once;
        if (row0 >= n_texts) {
            take = n;
            rc = checkpoint_weight_read(t->with[CODES], k, (row0 - n_texts) * n_cols, take * n_cols, dst, e);
        } else {
            take = n_texts - row0 < take ? n_texts - row0 : take;
            rc = fold(k, t, row0, (size_t)take, dst, space, e);
        }
        row0 += take;
        dst += take * n_cols;
        n -= take;
    }
    free(space);
    return rc;
}
