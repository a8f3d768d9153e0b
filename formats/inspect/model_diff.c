/* model_diff.c - see model_diff.h. Sums run in double over fixed chunks of rows, merged in order. */
#include "model_diff.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_ELEMS ((uint64_t)1 << 18)

const char *diff_status_name(enum diff_status s)
{
    static const char *const names[] = {"same", "type", "values", "shape", "only_a", "only_b"};
    return names[s];
}

/* --- metadata --- */

static int diff_metadata(struct model_diff *d, const struct gguf_meta *a, const struct gguf_meta *b,
                         struct err *e)
{
    d->keys = calloc(gguf_meta_n(a) + gguf_meta_n(b) + 1, sizeof *d->keys);
    if (!d->keys)
        return err_set(e, ERR_NOMEM, "out of memory for the comparison");
    for (size_t i = 0; i < gguf_meta_n(a); i++) {
        const char *key = gguf_meta_key(a, i);
        const struct gguf_value *x = gguf_meta_value(a, i), *y = gguf_meta_find(b, key);
        if (!y || !gguf_value_equal(x, y))
            d->keys[d->n_keys++] = (struct diff_key){key, x, y};
    }
    for (size_t i = 0; i < gguf_meta_n(b); i++)
        if (!gguf_meta_find(a, gguf_meta_key(b, i)))
            d->keys[d->n_keys++] = (struct diff_key){gguf_meta_key(b, i), NULL, gguf_meta_value(b, i)};
    return 0;
}

/* --- values --- */

struct partial {
    double sse, sum_a, max_abs;
    bool bytes_differ;
};

struct job {
    const struct model *ma, *mb;
    const struct model_tensor *a, *b;
    uint64_t per_chunk;
    struct partial *parts;
};

static void compare(struct partial *p, const float *x, const float *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        double v = (double)x[i], d = (double)y[i] - v;
        if (memcmp(&x[i], &y[i], sizeof *x) == 0)
            d = 0; /* equal bits are equal values, not-a-numbers and infinities included */
        p->sse += d * d;
        p->sum_a += v * v;
        if (fabs(d) > p->max_abs || isnan(d))
            p->max_abs = fabs(d);
    }
}

static int run_chunk(void *ctx, size_t index, unsigned worker, struct err *e)
{
    const struct job *j = ctx;
    (void)worker;
    uint64_t n_cols = j->a->ne[0], row0 = index * j->per_chunk;
    uint64_t n = j->a->n_rows - row0 < j->per_chunk ? j->a->n_rows - row0 : j->per_chunk;
    struct partial p = {0};
    if (j->a->raw && j->b->raw && j->a->type == j->b->type) {
        uint64_t row = j->a->n_bytes / j->a->n_rows;
        p.bytes_differ = memcmp(j->a->raw + row0 * row, j->b->raw + row0 * row, n * row) != 0;
    }
    float *x = malloc(2 * n * n_cols * sizeof *x);
    if (!x)
        return err_set(e, ERR_NOMEM, "out of memory for %" PRIu64 " rows of %" PRIu64, n, n_cols);
    int rc = model_read_rows(j->ma, j->a, row0, n, x, e);
    if (rc == 0)
        rc = model_read_rows(j->mb, j->b, row0, n, x + n * n_cols, e);
    if (rc == 0)
        compare(&p, x, x + n * n_cols, n * n_cols);
    model_drop_rows(j->ma, j->a, row0, n);
    model_drop_rows(j->mb, j->b, row0, n);
    j->parts[index] = p;
    free(x);
    return rc;
}

/* Plain floats and blocks have values; integer tensors are compared as bytes. */
static bool has_values(const struct model_tensor *t)
{
    return qtype_info(t->type)->can_decode;
}

static int diff_values(struct diff_tensor *t, const struct model *a, const struct model *b, struct pool *pool,
                       struct err *e)
{
    uint64_t n_cols = t->a->ne[0], n_elems = n_cols * t->a->n_rows;
    t->status = t->a->type == t->b->type ? DIFF_SAME : DIFF_TYPE;
    if (!has_values(t->a) || !has_values(t->b)) {
        if (t->a->type == t->b->type && t->a->raw && t->b->raw && t->a->n_bytes &&
            memcmp(t->a->raw, t->b->raw, t->a->n_bytes) != 0)
            t->status = DIFF_VALUES;
        return 0;
    }
    if (n_elems == 0 || !model_has_weights(a) || !model_has_weights(b))
        return 0;
    struct job j = {a, b, t->a, t->b, n_cols < CHUNK_ELEMS ? CHUNK_ELEMS / n_cols : 1, NULL};
    size_t n = (size_t)((t->a->n_rows + j.per_chunk - 1) / j.per_chunk);
    j.parts = calloc(n, sizeof *j.parts);
    if (!j.parts)
        return err_set(e, ERR_NOMEM, "out of memory for the comparison");
    int rc = pool_run(pool, n, run_chunk, &j, e);
    struct partial total = {0};
    for (size_t i = 0; rc == 0 && i < n; i++) {
        total.sse += j.parts[i].sse;
        total.sum_a += j.parts[i].sum_a;
        total.bytes_differ = total.bytes_differ || j.parts[i].bytes_differ;
        if (j.parts[i].max_abs > total.max_abs || isnan(j.parts[i].max_abs))
            total.max_abs = j.parts[i].max_abs;
    }
    free(j.parts);
    if (rc)
        return rc;
    t->rmse = sqrt(total.sse / (double)n_elems);
    t->rms_a = sqrt(total.sum_a / (double)n_elems);
    t->max_abs = total.max_abs;
    if (t->status == DIFF_SAME && (total.bytes_differ || t->max_abs != 0))
        t->status = DIFF_VALUES;
    return 0;
}

static bool same_shape(const struct model_tensor *a, const struct model_tensor *b)
{
    return memcmp(a->ne, b->ne, sizeof a->ne) == 0;
}

static int diff_tensors(struct model_diff *d, const struct model *a, const struct model *b, struct pool *pool,
                        const struct progress *progress, struct err *e)
{
    uint64_t total = 0, done = 0;
    d->tensors = calloc(model_n_tensors(a) + model_n_tensors(b) + 1, sizeof *d->tensors);
    if (!d->tensors)
        return err_set(e, ERR_NOMEM, "out of memory for the comparison");
    for (size_t i = 0; i < model_n_tensors(a); i++) {
        const struct model_tensor *x = model_tensor(a, i), *y = model_find(b, x->name);
        d->tensors[d->n_tensors++] =
            (struct diff_tensor){x->name, y ? DIFF_SHAPE : DIFF_ONLY_A, x, y, NAN, NAN, NAN};
        total += x->n_bytes + (y ? y->n_bytes : 0);
    }
    for (size_t i = 0; i < model_n_tensors(b); i++) {
        const struct model_tensor *y = model_tensor(b, i);
        if (!model_find(a, y->name))
            d->tensors[d->n_tensors++] = (struct diff_tensor){y->name, DIFF_ONLY_B, NULL, y, NAN, NAN, NAN};
    }
    for (size_t i = 0; i < d->n_tensors; i++) {
        struct diff_tensor *t = &d->tensors[i];
        int rc = progress_tell(
            progress, &(struct progress_step){.done = (double)done, .total = (double)total, .what = t->name},
            e);
        if (rc == 0 && t->a && t->b && same_shape(t->a, t->b))
            rc = diff_values(t, a, b, pool, e);
        if (rc != 0)
            return rc;
        done += t->a ? t->a->n_bytes + (t->b ? t->b->n_bytes : 0) : 0;
        d->n_same += t->status == DIFF_SAME;
    }
    return 0;
}

int model_diff(struct model_diff *out, const struct model *a, const struct model *b, struct pool *pool,
               const struct progress *progress, struct err *e)
{
    struct model_diff d = {0};
    int rc = diff_metadata(&d, model_meta(a), model_meta(b), e);
    if (rc == 0)
        rc = diff_tensors(&d, a, b, pool, progress, e);
    if (rc)
        model_diff_release(&d);
    else
        *out = d;
    return rc;
}

void model_diff_release(struct model_diff *d)
{
    if (!d)
        return;
    free(d->tensors);
    free(d->keys);
    *d = (struct model_diff){0};
}
