/* answer.c - see answer.h. */
#include "answer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 256 /* rows that are scored at once; a fixed size, since results must not depend on memory */

/* Sums over tokens in double and in order: the embedding is the same for any number of threads. */
int answer_embedding(float *out, const struct net *net, const struct hidden_states *states, size_t row0,
                     size_t n, float *buffer, struct err *e)
{
    size_t d = net->n_embd, first = net->pooling == NET_POOLING_LAST ? n - 1 : 0,
           last = net->pooling == NET_POOLING_FIRST ? 0 : n - 1;
    double *sum = calloc(d, sizeof *sum), squares = 0;
    int rc = sum ? 0 : err_set(e, ERR_NOMEM, "out of memory for an embedding of %zu values", d);
    for (size_t t = first; rc == 0 && t <= last; t++) {
        float *y = NULL;
        rc = hidden_states_get(states, row0 + t, 1, buffer, &y, e);
        for (size_t i = 0; rc == 0 && i < d; i++)
            sum[i] += (double)y[i];
    }
    for (size_t i = 0; rc == 0 && i < d; i++)
        squares += sum[i] * sum[i];
    double scale = squares == 0 ? 0 : 1 / sqrt(squares); /* NaN stays NaN */
    for (size_t i = 0; rc == 0 && i < d; i++)
        out[i] = (float)(sum[i] * scale);
    free(sum);
    return rc;
}

static struct product product_of(const struct matrix *m, struct region y)
{
    return (struct product){
        .weight = m->tensor, .n_rows = m->n_rows, .bias = m->bias, .y = y, .ldy = (size_t)m->n_rows};
}

static void relu(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] < 0 ? 0 : x[i]; /* NaN stays NaN */
}

struct batch {
    struct compute *compute;
    const struct compute_ops *ops;
    struct buffer *in, *out; /* [BATCH, n_embd] each */
    float *x, *y;            /* on the host: [BATCH, n_embd], [BATCH, n_labels] */
};

/* y = x W^T + b for n rows that stand on the host, and so does y; y may be x. */
static int multiply(struct batch *b, const struct weights *w, const struct matrix *m, float *y,
                    const float *x, size_t n, size_t d, struct err *e)
{
    struct region in = {b->in, 0}, out = {b->out, 0};
    struct product p = product_of(m, out);
    int rc = b->ops->upload(b->compute, in, x, n * d, e);
    if (rc == 0)
        rc = b->ops->products(b->compute, w, in, n, d, &p, 1, e);
    return rc == 0 ? b->ops->download(b->compute, y, out, n * (size_t)m->n_rows, e) : rc;
}

static int score_batch(double *out, struct batch *b, const struct net *net, const struct weights *w, size_t n,
                       struct err *e)
{
    const struct score_head *s = &net->score;
    size_t d = net->n_embd;
    int rc = 0;
    if (s->hidden.tensor) {
        rc = multiply(b, w, &s->hidden, b->x, b->x, n, d, e);
        relu(b->x, n * d);
    }
    if (rc == 0)
        rc = multiply(b, w, &s->output, b->y, b->x, n, d, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        out[i] = s->n_labels == 1 ? (double)b->y[i]
                                  : (double)b->y[2 * i + s->label] - (double)b->y[2 * i + 1 - s->label];
    return rc;
}

static int batch_init(struct batch *b, const struct compute_setup *setup, const struct compute_ops *ops,
                      const struct net *net, struct err *e)
{
    size_t n = BATCH * (size_t)net->n_embd, n_y = BATCH * (size_t)net->score.n_labels;
    int rc = compute_open(&b->compute, ops, setup, e);
    if (rc != 0)
        return rc;
    b->ops = b->compute->ops;
    rc = b->ops->buffer_new(&b->in, b->compute, n, e);
    if (rc == 0)
        rc = b->ops->buffer_new(&b->out, b->compute, n > n_y ? n : n_y, e);
    b->x = malloc(n * sizeof *b->x);
    b->y = malloc(n_y * sizeof *b->y);
    return rc != 0 || (b->x && b->y) ? rc : err_set(e, ERR_NOMEM, "out of memory for %d states", BATCH);
}

static void batch_release(struct batch *b)
{
    if (b->compute) {
        b->ops->buffer_free(b->compute, b->in);
        b->ops->buffer_free(b->compute, b->out);
    }
    free(b->x);
    free(b->y);
    compute_close(b->compute);
}

int answer_scores(double *out, const struct net *net, const struct weights *w,
                  const struct hidden_states *states, const size_t *rows, size_t n,
                  const struct answer_options *opt, struct err *e)
{
    size_t d = net->n_embd;
    struct batch b = {0};
    struct compute_setup setup = {opt->pool, weights_kern(w), opt->activations, BATCH};
    int rc = batch_init(&b, &setup, opt->compute, net, e);
    for (size_t at = 0; rc == 0 && at < n; at += BATCH) {
        size_t k = n - at < BATCH ? n - at : BATCH;
        for (size_t i = 0; rc == 0 && i < k; i++) {
            float *y = NULL;
            rc = hidden_states_get(states, rows[at + i], 1, b.x + i * d, &y, e);
            if (rc == 0 && y != b.x + i * d)
                memcpy(b.x + i * d, y, d * sizeof *y);
        }
        if (rc == 0)
            rc = score_batch(out + at, &b, net, w, k, e);
    }
    batch_release(&b);
    return rc;
}
