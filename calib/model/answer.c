/* answer.c - see answer.h. */
#include "answer.h"

#include "ops.h"

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

static struct product product_of(const struct matrix *m, float *y)
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
    struct ops ops;
    float *x, *hidden, *y; /* [BATCH, n_embd] twice, [BATCH, n_labels] */
};

static int score_batch(double *out, struct batch *b, const struct net *net, const struct weights *w, size_t n,
                       struct err *e)
{
    const struct score_head *s = &net->score;
    size_t d = net->n_embd;
    float *x = b->x;
    int rc = 0;
    if (s->hidden.tensor) {
        struct product p = product_of(&s->hidden, b->hidden);
        rc = ops_products(&b->ops, w, x, n, d, &p, 1, e);
        relu(b->hidden, n * d);
        x = b->hidden;
    }
    struct product p = product_of(&s->output, b->y);
    if (rc == 0)
        rc = ops_products(&b->ops, w, x, n, d, &p, 1, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        out[i] = s->n_labels == 1 ? (double)b->y[i]
                                  : (double)b->y[2 * i + s->label] - (double)b->y[2 * i + 1 - s->label];
    return rc;
}

int answer_scores(double *out, const struct net *net, const struct weights *w,
                  const struct hidden_states *states, const size_t *rows, size_t n, struct pool *pool,
                  enum activations a, struct err *e)
{
    size_t d = net->n_embd;
    struct batch b = {0};
    int rc = ops_init(&b.ops, pool, weights_kern(w), a, BATCH, e);
    b.x = malloc(BATCH * d * sizeof *b.x);
    b.hidden = malloc(BATCH * d * sizeof *b.hidden);
    b.y = malloc(BATCH * net->score.n_labels * sizeof *b.y);
    if (rc == 0 && (!b.x || !b.hidden || !b.y))
        rc = err_set(e, ERR_NOMEM, "out of memory for %d states", BATCH);
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
    free(b.x);
    free(b.hidden);
    free(b.y);
    ops_release(&b.ops);
    return rc;
}
