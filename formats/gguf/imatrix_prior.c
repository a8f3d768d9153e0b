/* imatrix_prior.c - what experts without enough calibration data borrow from their layer, see imatrix_file.h.
 */
#include "imatrix_internal.h"

#include <stdlib.h>

static int apply(struct imatrix_entry *x, double tokens, size_t *n_experts, struct err *e)
{
    uint64_t n_cols = x->n_values / x->n_mats;
    double total = 0, *pool = calloc(n_cols + 1, sizeof *pool);
    if (!pool)
        return err_set(e, ERR_NOMEM, "'%s': out of memory", x->name);
    for (uint64_t j = 0; j < x->n_mats; j++) {
        total += x->counts[j];
        for (uint64_t k = 0; k < n_cols; k++)
            pool[k] += x->sums[j * n_cols + k];
    }
    for (uint64_t j = 0; j < x->n_mats && total > 0; j++) {
        *n_experts += x->counts[j] == 0;
        for (uint64_t k = 0; k < n_cols; k++)
            x->sums[j * n_cols + k] += tokens * (pool[k] / total);
        x->counts[j] += tokens;
    }
    free(pool);
    return 0;
}

int imatrix_apply_expert_prior(struct imatrix *m, uint32_t tokens, size_t *n_experts, struct err *e)
{
    size_t n_stacks = 0;
    int rc = 0;
    if (tokens == 0)
        return err_set(e, ERR_ARG, "an expert prior of 0 tokens does nothing");
    if (m->expert_prior)
        return err_set(e, ERR_ARG, "an expert prior of %u tokens was applied already", m->expert_prior);
    *n_experts = 0;
    m->run[0] = 0; /* its sums are no longer those of the run */
    for (size_t i = 0; rc == 0 && i < m->n; i++)
        if (m->entries[i]->n_mats > 1) {
            rc = apply(m->entries[i], tokens, n_experts, e);
            n_stacks++;
        }
    if (rc == 0 && n_stacks > 0)
        m->expert_prior = tokens;
    return rc;
}

uint32_t imatrix_expert_prior(const struct imatrix *m)
{
    return m->expert_prior;
}
