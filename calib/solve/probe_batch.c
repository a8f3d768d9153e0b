/* probe_batch.c - see probe_batch.h. */
#include "probe_batch.h"

#include "calib/eval/statistics.h"
#include "calib/model/head.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int probe_weights(struct weights **out, const struct loss_table *t, const struct loss_measure *opt,
                  const struct probe_target *list, size_t n, struct err *e)
{
    struct recipe_override *only = calloc(n + 1, sizeof *only);
    char **patterns = calloc(n + 1, sizeof *patterns);
    struct recipe_options recipe = {
        .recipe = "llama.cpp", .overrides = only, .n_overrides = n, .has_imatrix = t->imatrix != NULL};
    int rc = only && patterns ? 0 : err_set(e, ERR_NOMEM, "out of memory for the probes");
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t room = strlen(list[i].tensor->name) + 8;
        patterns[i] = malloc(room);
        if (!patterns[i]) {
            rc = err_set(e, ERR_NOMEM, "out of memory for the probes");
            break;
        }
        snprintf(patterns[i], room, "^\\Q%s\\E$", list[i].tensor->name);
        only[i] = (struct recipe_override){patterns[i], list[i].type};
    }
    if (rc == 0)
        rc = weights_new_mix(out, t->model, &recipe, t->imatrix, opt->requantize, opt->kern, e);
    for (size_t i = 0; patterns && i < n; i++)
        free(patterns[i]);
    free(patterns);
    free(only);
    return rc;
}

void probe_batch_release(struct probe_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        weights_free(b->probes[i].weights);
        hidden_states_free(b->probes[i].states);
    }
    b->n = 0;
}

/* Scores as means over the text; the larger of the errors by token and by window. */
static void take_scores(struct probe_batch *b, const struct head_score *scores, double *kld, size_t n)
{
    size_t per_window = windows_n_scored(b->w);
    for (size_t i = 0; i < b->n; i++) {
        for (size_t j = 0; j < n; j++)
            kld[j] = scores[(i + 1) * n + j].kld;
        struct estimate by_token = stat_mean(kld, n), by_window = stat_mean_of_runs(kld, n, per_window);
        *b->probes[i].kld = by_token.value;
        *b->probes[i].kld_stderr =
            isnan(by_window.error) || by_window.error < by_token.error ? by_token.error : by_window.error;
    }
}

int probe_batch_score(struct probe_batch *b, struct err *e)
{
    if (b->n == 0)
        return 0;
    size_t n = b->w->n * windows_n_scored(b->w);
    struct head_model models[PROBE_BATCH + 1] = {{b->net, b->base, b->reference}};
    for (size_t i = 0; i < b->n; i++) {
        const struct probe *p = &b->probes[i];
        models[i + 1] = (struct head_model){b->net, p->in_head ? p->weights : b->base,
                                            p->states ? p->states : b->reference};
    }
    struct head_options h = {.pool = b->opt->pool,
                             .memory_bytes = b->opt->memory_bytes / 2,
                             .activations = b->table->activations,
                             .compute = b->opt->compute};
    struct head_score *scores = malloc((b->n + 1) * n * sizeof *scores);
    double *kld = malloc(n * sizeof *kld);
    int rc = scores && kld ? 0 : err_set(e, ERR_NOMEM, "out of memory for the scores of %zu positions", n);
    if (rc == 0)
        rc = head_score(models, b->n + 1, b->w->targets, n, &h, scores, e);
    if (rc == 0)
        take_scores(b, scores, kld, n);
    free(scores);
    free(kld);
    probe_batch_release(b);
    return rc;
}
