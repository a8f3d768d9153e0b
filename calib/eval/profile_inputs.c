/* profile_inputs.c - see profile_inputs.h. */
#include "profile_inputs.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_ROWS 4096 /* of a matrix at a time: bounds the outputs that are held */

/* --- keeping rows --- */

struct input_sample *input_samples_find(const struct input_samples *s, const char *taker, int64_t expert)
{
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < s->items[i].n_takers; k++)
            if (s->items[i].expert == expert && strcmp(s->items[i].takers[k]->name, taker) == 0)
                return &s->items[i];
    return NULL;
}

static int new_sample(struct input_sample **out, struct input_samples *s, const struct observation *o,
                      struct err *e)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 16;
        struct input_sample *items = realloc(s->items, cap * sizeof *items);
        if (!items)
            return err_set(e, ERR_NOMEM, "out of memory for the inputs of products");
        s->items = items;
        s->cap = cap;
    }
    struct input_sample *to = &s->items[s->n++];
    *to = (struct input_sample){.expert = o->expert, .n_cols = o->n_cols};
    for (size_t i = 0; i < o->n_tensors && i < PROFILE_MAX_TAKERS; i++)
        to->takers[to->n_takers++] = o->tensors[i];
    *out = to;
    return 0;
}

static int keep(struct input_sample *s, const float *row, struct err *e)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        float *x = realloc(s->x, cap * s->n_cols * sizeof *x);
        if (!x)
            return err_set(e, ERR_NOMEM, "out of memory for the inputs of '%s'", s->takers[0]->name);
        s->x = x;
        s->cap = cap;
    }
    memcpy(s->x + s->n++ * s->n_cols, row, s->n_cols * sizeof *row);
    return 0;
}

static bool is_text(const struct input_samples *s, size_t token)
{
    return token < s->n_tokens && (!s->lens || token % s->ctx < s->lens[token / s->ctx]);
}

int input_samples_take(void *ctx, const struct observation *o, struct err *e)
{
    struct input_samples *s = ctx;
    const bool stacked = o->expert >= 0;
    if (stacked && (s->plain_only || s->lens))
        return 0;
    struct input_sample *to = input_samples_find(s, o->tensors[0]->name, o->expert);
    int rc = to ? 0 : new_sample(&to, s, o, e);
    for (size_t i = 0; rc == 0 && i < o->n_tokens; i++, to->n_seen++)
        if (to->n_seen % s->step == (stacked ? 0 : s->step / 2) && (stacked || is_text(s, to->n_seen)))
            rc = keep(to, o->x + i * o->n_cols, e);
    return rc;
}

int input_samples_take_states(struct input_samples *s, const struct model_tensor *head,
                              const struct hidden_states *states, struct err *e)
{
    size_t n = hidden_states_n_rows(states), n_cols = hidden_states_n_cols(states);
    float *buffer = malloc(n_cols * sizeof *buffer), *x = NULL;
    struct input_sample *to = NULL;
    struct observation o = {&head, 1, NULL, n, n_cols, -1, NULL};
    int rc = buffer ? new_sample(&to, s, &o, e) : err_set(e, ERR_NOMEM, "out of memory for a state");
    for (size_t i = s->step / 2; rc == 0 && i < n; i += s->step) {
        rc = hidden_states_get(states, i, 1, buffer, &x, e);
        if (rc == 0)
            rc = keep(to, x, e);
    }
    free(buffer);
    return rc;
}

void input_samples_clear(struct input_samples *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->items[i].x);
    free(s->items);
    s->items = NULL;
    s->n = s->cap = 0;
}

/* --- comparing outputs --- */

/* Outputs [n, n_rows] of some rows of a matrix, on the host. */
struct outputs {
    struct compute *c;
    struct buffer *x, *y;
    float *host;
};

static void outputs_release(struct outputs *o)
{
    if (!o->c)
        return;
    o->c->ops->buffer_free(o->c, o->x);
    o->c->ops->buffer_free(o->c, o->y);
    free(o->host);
}

static int outputs_init(struct outputs *o, struct compute *c, const struct input_sample *s, uint64_t n_rows,
                        struct err *e)
{
    size_t n = s->n * (size_t)(n_rows < CHUNK_ROWS ? n_rows : CHUNK_ROWS);
    *o = (struct outputs){.c = c, .host = malloc(n * sizeof(float) + 1)};
    int rc = o->host ? 0 : err_set(e, ERR_NOMEM, "out of memory for outputs of '%s'", s->takers[0]->name);
    if (rc == 0)
        rc = c->ops->buffer_new(&o->x, c, s->n * s->n_cols, e);
    if (rc == 0)
        rc = c->ops->buffer_new(&o->y, c, n, e);
    if (rc == 0)
        rc = c->ops->upload(c, (struct region){o->x, 0}, s->x, s->n * s->n_cols, e);
    return rc;
}

static int multiply(struct outputs *o, const struct output_side *side, const struct input_sample *s,
                    uint64_t row0, uint64_t n_rows, struct err *e)
{
    struct region x = {o->x, 0}, y = {o->y, 0};
    struct product p = {
        .weight = side->tensor, .row0 = row0, .n_rows = n_rows, .y = y, .ldy = (size_t)n_rows};
    int rc = o->c->ops->products(o->c, side->weights, x, s->n, s->n_cols, &p, 1, e);
    return rc == 0 ? o->c->ops->download(o->c, o->host, y, s->n * (size_t)n_rows, e) : rc;
}

/* Squares of the reference's outputs and of the differences, by row of inputs. */
struct row_sums {
    double *squares, *same, *own;
};

static void add_squares(double *squares, const float *y, const float *from, size_t n, size_t n_rows)
{
    for (size_t t = 0; t < n; t++)
        for (size_t i = t * n_rows; i < (t + 1) * n_rows; i++) {
            double d = (double)y[i] - (from ? (double)from[i] : 0);
            squares[t] += d * d;
        }
}

static int add_chunk(struct row_sums *s, struct outputs o[3], const struct output_side *ref,
                     const struct output_side *other, uint64_t row0, uint64_t n_rows, struct err *e)
{
    const struct input_sample *x = ref->inputs;
    int rc = multiply(&o[0], ref, x, row0, n_rows, e);
    if (rc == 0)
        rc = multiply(&o[1], other, x, row0, n_rows, e);
    if (rc == 0 && other->inputs)
        rc = multiply(&o[2], other, other->inputs, row0, n_rows, e);
    if (rc != 0)
        return rc;
    add_squares(s->squares, o[0].host, NULL, x->n, (size_t)n_rows);
    add_squares(s->same, o[1].host, o[0].host, x->n, (size_t)n_rows);
    if (other->inputs)
        add_squares(s->own, o[2].host, o[0].host, x->n, (size_t)n_rows);
    return 0;
}

static void take_sums(struct output_change *sum, const struct row_sums *s, size_t n, bool own)
{
    for (size_t t = 0; t < n; t++) {
        if (!(s->squares[t] > 0))
            continue;
        sum->sum += s->same[t] / s->squares[t];
        sum->n++;
        sum->own_sum += own ? s->own[t] / s->squares[t] : 0;
        sum->n_own += own;
    }
}

int output_change_add(struct output_change *sum, const struct output_side *ref,
                      const struct output_side *other, uint64_t row0, uint64_t n_rows, struct compute *c,
                      struct err *e)
{
    const struct input_sample *x = ref->inputs;
    struct output_side to = *other;
    if (to.inputs && to.inputs->n != x->n)
        to.inputs = NULL;
    struct outputs o[3] = {{0}};
    double *all = calloc(3 * x->n + 1, sizeof *all);
    struct row_sums s = {all, all + x->n, all + 2 * x->n};
    int rc = all ? 0 : err_set(e, ERR_NOMEM, "out of memory for outputs of '%s'", ref->tensor->name);
    for (size_t i = 0; rc == 0 && i < 3; i++)
        if (i < 2 || to.inputs)
            rc = outputs_init(&o[i], c, i < 2 ? x : to.inputs, n_rows, e);
    for (uint64_t row = 0; rc == 0 && row < n_rows; row += CHUNK_ROWS)
        rc = add_chunk(&s, o, ref, &to, row0 + row, n_rows - row < CHUNK_ROWS ? n_rows - row : CHUNK_ROWS, e);
    if (rc == 0)
        take_sums(sum, &s, x->n, to.inputs != NULL);
    for (size_t i = 0; i < 3; i++)
        outputs_release(&o[i]);
    free(all);
    return rc;
}
