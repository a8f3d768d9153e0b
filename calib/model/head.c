/* head.c - see head.h: what is asked of the back end, and whether it can be. */
#include "head.h"

#include "calib/compute/vecmath.h"

#include <stdlib.h>

#define LOGIT_ROWS 512 /* states that are multiplied with the whole vocabulary at once */

static int check_models(const struct head_model *models, size_t n_models, size_t n, const int32_t *targets,
                        struct err *e)
{
    for (size_t m = 0; m < n_models; m++) {
        int rc = net_need_tokens(models[m].net, "scoring", e);
        if (rc != 0)
            return rc;
    }
    for (size_t m = 1; m < n_models; m++)
        if (models[m].net->n_vocab != models[0].net->n_vocab)
            return err_set(e, ERR_ARG,
                           "%s has a vocabulary of %u, the reference %s one of %u: they cannot be compared",
                           model_path(models[m].net->model), models[m].net->n_vocab,
                           model_path(models[0].net->model), models[0].net->n_vocab);
    for (size_t i = 0; i < n; i++)
        if (targets[i] < 0 || (uint32_t)targets[i] >= models[0].net->n_vocab)
            return err_set(e, ERR_ARG, "token id %d is outside the vocabulary of %u", targets[i],
                           models[0].net->n_vocab);
    return 0;
}

static struct scored_head scored(const struct head_model *m)
{
    const struct matrix *head = &m->net->head;
    return (struct scored_head){.weights = m->weights,
                                .tensor = head->tensor,
                                .row0 = head->row0,
                                .bias = head->bias,
                                .n_embd = m->net->n_embd,
                                .states = m->states,
                                .cap = m->net->logit_cap};
}

static int open_for(struct compute **out, const struct head_model *m, const struct head_options *opt,
                    struct err *e)
{
    struct compute_setup setup = {opt->pool, weights_kern(m->weights), opt->activations, LOGIT_ROWS};
    return compute_open(out, opt->compute, &setup, e);
}

int head_score(const struct head_model *models, size_t n_models, const int32_t *targets, size_t n,
               const struct head_options *opt, struct head_score *scores, struct err *e)
{
    int rc = check_models(models, n_models, n, targets, e);
    if (rc != 0)
        return rc;
    struct compute *c = NULL;
    struct scored_head *heads = malloc(n_models * sizeof *heads);
    if (!heads)
        return err_set(e, ERR_NOMEM, "out of memory for %zu models", n_models);
    for (size_t m = 0; m < n_models; m++)
        heads[m] = scored(&models[m]);
    struct scoring s = {heads,        n_models, n, models[0].net->n_vocab, targets, opt->memory_bytes,
                        opt->progress};
    rc = open_for(&c, &models[0], opt, e);
    if (rc == 0)
        rc = c->ops->score(c, &s, scores, e);
    compute_close(c);
    free(heads);
    return rc;
}

size_t logit_rows_at_once(size_t n_vocab, size_t n, uint64_t memory_bytes)
{
    uint64_t fits = memory_bytes / 4 / sizeof(float) / (n_vocab ? n_vocab : 1);
    return fits < 1 || n < 1 ? 1 : fits < n ? (size_t)fits : n;
}

int head_logits(const struct head_model *m, size_t first, size_t n, const struct head_options *opt,
                float *out, struct err *e)
{
    struct compute *c = NULL;
    struct buffer *states = NULL, *logits = NULL;
    struct region x = {0};
    size_t d = m->net->n_embd, n_vocab = m->net->n_vocab;
    int rc = net_need_tokens(m->net, "logits", e);
    if (rc != 0)
        return rc;
    rc = open_for(&c, m, opt, e);
    if (rc == 0)
        rc = c->ops->buffer_new(&states, c, n * d, e);
    if (rc == 0)
        rc = c->ops->buffer_new(&logits, c, n * n_vocab, e);
    if (rc == 0)
        rc = c->ops->states_get(c, m->states, first, n, (struct region){states, 0}, &x, e);
    struct product p = {.weight = m->net->head.tensor,
                        .row0 = m->net->head.row0,
                        .n_rows = n_vocab,
                        .bias = m->net->head.bias,
                        .y = {logits, 0},
                        .ldy = n_vocab};
    if (rc == 0)
        rc = c->ops->products(c, m->weights, x, n, d, &p, 1, e);
    if (rc == 0)
        rc = c->ops->download(c, out, p.y, n * n_vocab, e);
    if (rc == 0 && m->net->logit_cap > 0)
        vec_cap(out, 1, m->net->logit_cap, n * n_vocab);
    if (c) {
        c->ops->buffer_free(c, states);
        c->ops->buffer_free(c, logits);
    }
    compute_close(c);
    return rc;
}
