/* verdict.c - see verdict.h. */
#include "verdict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const task_metric_names[TASK_N_METRICS] = {"acc", "acc_norm", "acc_bytes", "acc_token"};

static double n_characters(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return (double)n;
}

static double by_metric(enum task_metric m, const struct likelihood *l, const struct task_choice *c)
{
    switch (m) {
    case TASK_ACC_NORM: return l->sum / n_characters(c->counted);
    case TASK_ACC_BYTES: return l->sum / (double)strlen(c->counted);
    case TASK_ACC_TOKEN: return l->mean;
    default: return l->sum;
    }
}

/* The first of the largest. */
static size_t pick_of(enum task_metric m, const struct task_record *x, const struct likelihood *l)
{
    size_t best = 0;
    for (size_t k = 1; k < x->n_choices; k++)
        if (by_metric(m, &l[k], &x->choices[k]) > by_metric(m, &l[best], &x->choices[best]))
            best = k;
    return best;
}

static bool any_greedy(const struct likelihood *l, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (l[k].greedy)
            return true;
    return false;
}

static bool allocate(struct verdict *v, size_t n)
{
    v->n = n;
    v->nll = calloc(n, sizeof *v->nll);
    v->n_tokens = calloc(n, sizeof *v->n_tokens);
    bool ok = v->nll && v->n_tokens;
    for (size_t m = 0; m < TASK_N_METRICS; m++) {
        v->pick[m] = calloc(n, sizeof *v->pick[m]);
        v->right[m] = calloc(n, sizeof *v->right[m]);
        ok = ok && v->pick[m] && v->right[m];
    }
    return ok;
}

int verdict_of(struct verdict *out, const struct task *t, const struct requests *r,
               const struct likelihood *l, struct err *e)
{
    struct verdict v = {0};
    if (!allocate(&v, t->n_records)) {
        verdict_release(&v);
        return err_set(e, ERR_NOMEM, "out of memory for the answers to %zu records", t->n_records);
    }
    for (size_t i = 0; i < t->n_records; i++) {
        const struct task_record *x = &t->records[i];
        const struct likelihood *mine = l + r->record_begin[i];
        size_t n = r->record_begin[i + 1] - r->record_begin[i];
        for (enum task_metric m = 0; x->kind == TASK_CHOICE && m < TASK_N_METRICS; m++) {
            v.pick[m][i] = pick_of(m, x, mine);
            v.right[m][i] = v.pick[m][i] == x->right;
        }
        for (enum task_metric m = 0; x->kind == TASK_ANSWER && m < TASK_N_METRICS; m++)
            v.right[m][i] = any_greedy(mine, n);
        for (size_t k = 0; x->kind == TASK_TEXT && k < n; k++) {
            v.nll[i] -= mine[k].sum;
            v.n_tokens[i] += mine[k].n_tokens;
        }
    }
    *out = v;
    return 0;
}

void verdict_release(struct verdict *v)
{
    if (!v)
        return;
    for (size_t m = 0; m < TASK_N_METRICS; m++) {
        free(v->pick[m]);
        free(v->right[m]);
    }
    free(v->nll);
    free(v->n_tokens);
    *v = (struct verdict){0};
}

enum task_metric task_usual_metric(const struct task *t)
{
    if (t->n_of[TASK_CHOICE] == 0)
        return TASK_ACC;
    for (size_t i = 0; i < t->n_records; i++) {
        const struct task_record *x = &t->records[i];
        if (x->kind == TASK_CHOICE && x->style != TASK_HELLASWAG && x->style != TASK_ARC &&
            x->style != TASK_PIQA)
            return TASK_ACC;
    }
    return TASK_ACC_NORM;
}

double mcnemar(size_t a, size_t b)
{
    size_t n = a + b, few = a < b ? a : b;
    double sum = 0;
    for (size_t k = 0; k <= few; k++)
        sum += exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) -
                   (double)n * log(2.0));
    return sum * 2 < 1 ? sum * 2 : 1;
}

/* --- figures of one model --- */

/* Sum of x over sum of y of n pairs, with the error of a ratio of sums of independent pairs. */
static struct estimate ratio_of_sums(const double *x, const double *y, size_t n)
{
    double sx = 0, sy = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        sx += x[i];
        sy += y[i];
    }
    struct estimate r = {n ? sx / sy : NAN, NAN};
    for (size_t i = 0; i < n; i++)
        s += (x[i] - r.value * y[i]) * (x[i] - r.value * y[i]);
    if (n > 1)
        r.error = sqrt(s * (double)n / (double)(n - 1)) / sy;
    return r;
}

static void score_texts(struct task_score *out, const struct task *t, const struct verdict *v,
                        const struct verdict *first, double *scratch)
{
    size_t n = t->n_of[TASK_TEXT], k = 0;
    double *bits = scratch, *bytes = scratch + n, *tokens = scratch + 2 * n, *difference = scratch + 3 * n;
    for (size_t i = 0; i < t->n_records; i++) {
        if (t->records[i].kind != TASK_TEXT)
            continue;
        bits[k] = v->nll[i] / log(2.0);
        bytes[k] = (double)strlen(t->records[i].choices[0].text);
        tokens[k] = (double)v->n_tokens[i];
        difference[k] = first ? bits[k] - first->nll[i] / log(2.0) : 0;
        out->n_tokens += v->n_tokens[i];
        out->n_bytes += (size_t)bytes[k];
        k++;
    }
    out->bits_per_byte = ratio_of_sums(bits, bytes, n);
    out->nll = ratio_of_sums(bits, tokens, n);
    out->nll.value *= log(2.0);
    out->nll.error *= log(2.0);
    if (first)
        out->bits_difference = ratio_of_sums(difference, bytes, n);
}

/* Records that have a right answer, as 0 and 1; returns how many. */
static size_t list_right(double *out, const struct task *t, const bool *right)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_records; i++)
        if (t->records[i].kind != TASK_TEXT)
            out[n++] = right[i] ? 1 : 0;
    return n;
}

static void compare_answers(struct task_score *out, const struct task *t, const struct verdict *v,
                            const struct verdict *first, enum task_metric m, double *scratch)
{
    double *mine = scratch, *theirs = scratch + t->n_records;
    size_t n = list_right(mine, t, v->right[m]);
    list_right(theirs, t, first->right[m]);
    for (size_t i = 0; i < t->n_records; i++) {
        if (t->records[i].kind == TASK_TEXT)
            continue;
        out->gained += v->right[m][i] && !first->right[m][i];
        out->lost += !v->right[m][i] && first->right[m][i];
        out->changed += t->records[i].kind == TASK_CHOICE && v->pick[m][i] != first->pick[m][i];
    }
    out->difference = stat_mean_difference(mine, theirs, n);
    out->p_value = n ? mcnemar(out->gained, out->lost) : NAN;
}

int task_score_of(struct task_score *out, const struct task *t, const struct verdict *v,
                  const struct verdict *first, enum task_metric metric, struct err *e)
{
    const struct estimate unknown = {NAN, NAN};
    struct task_score s = {.nll = unknown,
                           .bits_per_byte = unknown,
                           .difference = unknown,
                           .bits_difference = unknown,
                           .p_value = NAN};
    double *scratch = malloc(4 * t->n_records * sizeof *scratch + 1);
    if (!scratch)
        return err_set(e, ERR_NOMEM, "out of memory for the figures of %zu records", t->n_records);
    for (enum task_metric m = 0; m < TASK_N_METRICS; m++) {
        size_t n_right = 0, n = list_right(scratch, t, v->right[m]);
        for (size_t i = 0; i < n; i++)
            n_right += scratch[i] > 0;
        s.accuracy[m] = n ? stat_share(n_right, n) : unknown;
    }
    if (t->n_of[TASK_TEXT])
        score_texts(&s, t, v, first, scratch);
    if (first)
        compare_answers(&s, t, v, first, metric, scratch);
    free(scratch);
    *out = s;
    return 0;
}
