/* state_change.c - see state_change.h. */
#include "state_change.h"

#include <stdlib.h>

#define ROWS 256 /* of states at a time */

static bool counts(const struct state_tokens *t, size_t token)
{
    size_t at = token % t->ctx;
    return !(t->skip_first && at == 0) && (!t->lens || at < t->lens[token / t->ctx]);
}

/* |y - x|^2 / |x|^2; negative where x is 0. */
static double change_of(const float *x, const float *y, size_t n)
{
    double squares = 0, d = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)x[i] * (double)x[i];
    for (size_t i = 0; i < n; i++)
        d += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
    return squares > 0 ? d / squares : -1;
}

int state_change(double *out, const struct hidden_states *h, const struct hidden_states *changed,
                 const struct state_tokens *t, struct err *e)
{
    const size_t n_cols = hidden_states_n_cols(h);
    float *buffer = malloc(2 * ROWS * n_cols * sizeof *buffer + 1);
    double sum = 0;
    size_t counted = 0;
    int rc = buffer ? 0 : err_set(e, ERR_NOMEM, "out of memory for states");
    for (size_t i = 0; rc == 0 && i < t->n; i += ROWS) {
        size_t n = t->n - i < ROWS ? t->n - i : ROWS;
        float *x = NULL, *y = NULL;
        rc = hidden_states_get(h, i, n, buffer, &x, e);
        if (rc == 0)
            rc = hidden_states_get(changed, i, n, buffer + ROWS * n_cols, &y, e);
        for (size_t k = 0; rc == 0 && k < n; k++) {
            double change = counts(t, i + k) ? change_of(x + k * n_cols, y + k * n_cols, n_cols) : -1;
            if (change < 0)
                continue;
            sum += change;
            counted++;
        }
    }
    free(buffer);
    if (rc == 0)
        *out = counted ? sum / (double)counted : 0;
    return rc;
}
