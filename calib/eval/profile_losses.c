/* profile_losses.c - from final states to losses against the reference, for each kind of answer (see
 * profile_walk.h). */
#include "profile_walk.h"

#include "calib/model/answer.h"
#include "evaluate_texts.h"

#include <stdlib.h>

#define BATCH 8 /* models of one sweep over the vocabulary */

/* --- tokens --- */

/* The scored positions of a model of the sweep. */
static void take_scores(double *out, const struct profile_run *r, const struct head_score *scores)
{
    const struct profile_sample *s = &r->sample;
    const size_t run = s->end - s->first;
    for (size_t i = 0, k = 0; i < s->n * run; i++)
        if (!s->use || s->use[i])
            out[k++] = scores[i].kld;
}

static int sweep(double *losses, struct profile_run *r, const struct profile_model *models, size_t n,
                 struct head_score *scores, struct err *e)
{
    const size_t n_rows = r->sample.n * (r->sample.end - r->sample.first);
    struct head_model list[BATCH + 1] = {{r->ref->net, r->ref->weights, r->ref_states}};
    struct head_options h = {.pool = r->opt->pool,
                             .memory_bytes = r->opt->memory_bytes / 2,
                             .activations = r->opt->activations,
                             .compute = r->opt->compute};
    for (size_t i = 0; i < n; i++)
        list[i + 1] = (struct head_model){models[i].of->net, models[i].weights, models[i].states};
    int rc = head_score(list, n + 1, r->sample.targets, n_rows, &h, scores, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        take_scores(losses + i * r->sample.n_losses, r, scores + (i + 1) * n_rows);
    return rc;
}

static int token_losses(double *losses, struct profile_run *r, const struct profile_model *models, size_t n,
                        struct err *e)
{
    const size_t n_rows = r->sample.n * (r->sample.end - r->sample.first);
    struct head_score *scores = malloc((BATCH + 1) * n_rows * sizeof *scores + 1);
    int rc = scores ? 0 : err_set(e, ERR_NOMEM, "out of memory for the scores of %zu positions", n_rows);
    for (size_t i = 0; rc == 0 && i < n; i += BATCH)
        rc = sweep(losses + i * r->sample.n_losses, r, models + i, n - i < BATCH ? n - i : BATCH, scores, e);
    free(scores);
    return rc;
}

/* --- single texts --- */

static int embedding_losses(double *out, struct profile_run *r, const struct profile_model *m, struct err *e)
{
    const size_t d = r->ref->net->n_embd;
    float *buffer = malloc(3 * d * sizeof *buffer);
    int rc = buffer ? 0 : err_set(e, ERR_NOMEM, "out of memory for an embedding of %zu values", d);
    for (size_t i = 0; rc == 0 && i < r->sample.n; i++) {
        size_t row = i * r->sample.ctx, n = r->sample.lens[i];
        rc = answer_embedding(buffer, r->ref->net, r->ref_states, row, n, buffer + 2 * d, e);
        if (rc == 0)
            rc = answer_embedding(buffer + d, r->cand->net, m->states, row, n, buffer + 2 * d, e);
        if (rc == 0)
            out[i] = cosine_distance(buffer, buffer + d, d);
    }
    free(buffer);
    return rc;
}

/* `reference` [n_losses]: its scores. */
static int score_losses(double *out, struct profile_run *r, const struct profile_model *m,
                        const double *reference, struct err *e)
{
    struct answer_options a = {r->opt->pool, r->opt->activations, r->opt->compute};
    int rc = answer_scores(out, m->of->net, m->weights, m->states, r->sample.rows, r->sample.n_losses, &a, e);
    for (size_t i = 0; rc == 0 && reference && i < r->sample.n_losses; i++)
        out[i] = (out[i] - reference[i]) * (out[i] - reference[i]);
    return rc;
}

static int text_losses(double *losses, struct profile_run *r, const struct profile_model *models, size_t n,
                       struct err *e)
{
    const size_t n_losses = r->sample.n_losses;
    const bool scored = r->ref->net->answer == NET_SCORE;
    const struct profile_model of_reference = {r->ref_states, r->ref, r->ref->weights};
    double *reference = malloc(n_losses * sizeof *reference + 1);
    int rc = reference ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu answers", n_losses);
    if (rc == 0 && scored)
        rc = score_losses(reference, r, &of_reference, NULL, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = scored ? score_losses(losses + i * n_losses, r, &models[i], reference, e)
                    : embedding_losses(losses + i * n_losses, r, &models[i], e);
    free(reference);
    return rc;
}

int profile_losses(double *losses, struct profile_run *r, const struct profile_model *models, size_t n,
                   struct err *e)
{
    return r->ref->net->answer == NET_TOKENS ? token_losses(losses, r, models, n, e)
                                             : text_losses(losses, r, models, n, e);
}
