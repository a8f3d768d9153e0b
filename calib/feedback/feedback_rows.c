/* feedback_rows.c - the gradient of feedback_rows.h. */
#include "feedback_rows.h"

#include "calib/compute/gemm.h"

void feedback_gradient(struct feedback_chunk *c)
{
    const struct feedback_format *f = c->format;
    size_t n = c->h->n_cols;
    for (size_t col = 0; col < n; col++) {
        size_t block = col / f->block * FEEDBACK_ROWS, group = col / f->sub * FEEDBACK_ROWS;
        for (size_t r = 0; r < FEEDBACK_ROWS; r++) {
            float step = c->d[block + r], offset = f->has_min ? c->dmin[block + r] : 0;
            if (f->has_scales) {
                step *= c->scales[group + r];
                offset *= f->has_min ? c->mins[group + r] : 0;
            }
            c->work[col * FEEDBACK_ROWS + r] =
                c->weights[col * FEEDBACK_ROWS + r] - (step * c->codes[col * FEEDBACK_ROWS + r] - offset);
        }
    }
    struct gemm_matrix b = {c->kern, FEEDBACK_ROWS, n, c->packed};
    gemm_pack_columns(&b, c->work, FEEDBACK_ROWS);
    gemm(n, c->h->matrix, n, &b, c->work, FEEDBACK_ROWS, false);
}
