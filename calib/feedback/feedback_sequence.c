/* feedback_sequence.c - see feedback_sequence.h. */
#include "feedback_sequence.h"

#include "feedback_correction.h"
#include "feedback_model_internal.h"

#include "calib/model/forward.h"
#include "calib/model/net_parts.h"
#include "calib/stats/gram_sums.h"
#include "calib/stats/hessian_file.h"
#include "libquant/base/pool.h"
#include "libquant/base/sha256.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PAIRS = 8, SLICE_TOKENS = 4096 };

/* The rows of one Gram matrix's product, from both models. */
struct pair {
    size_t gram; /* in the plan of the Hessians */
    const struct hessian_gram *of;
    bool of_outputs;
    const float *bias; /* of outputs, or NULL */
    float *kept;       /* [n_kept, n_cols] of the original, in the slice at work; not of outputs */
    size_t n_kept, cap, at;
};

struct sums {
    struct gram_sums own;
    struct cross_sums cross;
};

/* One text and the states that enter the part at work. */
struct stream {
    const struct windows *w;
    struct hidden_states *original, *own;
    struct sums sums[MAX_PAIRS];
};

struct sequence {
    struct feedback_model *f;
    struct net_parts parts;
    struct weights *original, *own;
    struct gram_scratch *scratch;
    struct stream streams[2]; /* to calibrate, of validation */
    struct pair pairs[MAX_PAIRS];
    size_t n_pairs;
    size_t part; /* at work */
    uint32_t layer;
    size_t slice; /* windows that are observed at once */
    /* of the slice that is being observed */
    struct stream *at;
    bool is_original;
    float *outputs; /* [n_tokens, n_embd] what the output product is meant to add */
    float *rows;    /* scratch */
    size_t rows_cap;
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the inputs of a layer");
}

/* --- what is observed --- */

static struct pair *find_pair(struct sequence *s, const char *owner, enum hessian_weighting weighting)
{
    for (size_t i = 0; i < s->n_pairs; i++)
        if (s->pairs[i].of->weighting == weighting && strcmp(s->pairs[i].of->owner, owner) == 0)
            return &s->pairs[i];
    return NULL;
}

static bool reserve(float **rows, size_t *cap, size_t n)
{
    if (n <= *cap)
        return true;
    float *grown = realloc(*rows, n * sizeof **rows);
    if (grown) {
        *rows = grown;
        *cap = n;
    }
    return grown != NULL;
}

static int keep_rows(struct pair *p, const float *x, size_t n, struct err *e)
{
    size_t n_cols = (size_t)p->of->n_cols;
    if (!reserve(&p->kept, &p->cap, (p->n_kept + n) * n_cols))
        return no_memory(e);
    memcpy(p->kept + p->n_kept * n_cols, x, n * n_cols * sizeof *x);
    p->n_kept += n;
    return 0;
}

/* Rows of the quantized model, beside those that were kept of the original. */
static int add_rows(struct sequence *s, struct pair *p, const float *x, size_t n, const float *weights,
                    struct err *e)
{
    struct sums *sums = &s->at->sums[p - s->pairs];
    size_t n_cols = (size_t)p->of->n_cols;
    const float *left;
    if (p->of_outputs) {
        left = s->outputs + p->at * s->f->net->n_embd;
    } else {
        if (!reserve(&s->rows, &s->rows_cap, n * n_cols))
            return no_memory(e);
        for (size_t i = 0; i < n * n_cols; i++)
            s->rows[i] = p->kept[p->at * n_cols + i] - x[i];
        left = s->rows;
    }
    p->at += n;
    int rc = gram_sums_add(&sums->own, x, n, n_cols, weights, s->f->opt.pool, s->scratch, e);
    return rc ? rc : cross_sums_add(&sums->cross, left, x, n, weights, s->f->opt.pool, s->scratch, e);
}

static int take_rows(struct sequence *s, struct pair *p, const float *x, size_t n, const float *weights,
                     struct err *e)
{
    if (!s->is_original)
        return add_rows(s, p, x, n, weights, e);
    return p->of_outputs ? 0 : keep_rows(p, x, n, e);
}

static int observe(void *ctx, const struct observation *o, struct err *e)
{
    struct sequence *s = ctx;
    struct pair *p = find_pair(s, o->tensors[0]->name, HESSIAN_PLAIN);
    return p && o->expert < 0 ? take_rows(s, p, o->x, o->n_tokens, NULL, e) : 0;
}

static int observe_attention(void *ctx, const struct attention_observation *o, struct err *e)
{
    struct sequence *s = ctx;
    struct pair *k = find_pair(s, o->k->name, HESSIAN_MASS), *v = find_pair(s, o->v->name, HESSIAN_MIXED);
    int rc = k ? take_rows(s, k, o->x, o->n_tokens, o->mass, e) : 0;
    return rc == 0 && v ? take_rows(s, v, o->mixed, o->n_mixed, NULL, e) : rc;
}

/* --- running a part --- */

static int show(void *ctx, const struct progress_step *step)
{
    (void)step;
    const struct sequence *s = ctx;
    size_t n = s->parts.first[s->f->net->n_layers];
    return progress_stops(&s->f->opt.progress,
                          &(struct progress_step){.done = (double)s->part,
                                                  .total = (double)n,
                                                  .what = "correcting for quantized inputs"});
}

/* `from` through the part at work; NULL: the embeddings alone. */
static int run_leg(struct hidden_states **out, struct sequence *s, struct weights *w, const int32_t *ids,
                   size_t n, size_t ctx, const struct hidden_states *from, bool observed, struct err *e)
{
    const struct forward_span span = {from, (uint32_t)s->part, (uint32_t)s->part + (from ? 1 : 0)};
    struct forward_options f = {.pool = s->f->opt.pool,
                                .memory_bytes = s->f->opt.memory_bytes / 4,
                                .memory_share = 4,
                                .activations = ACTIVATIONS_F32,
                                .observe = observed ? observe : NULL,
                                .observe_attention = observed ? observe_attention : NULL,
                                .observe_ctx = s,
                                .progress = {show, s}};
    return forward_run_span(out, &s->parts.open, w, ids, n, ctx, &span, &f, e);
}

/* What the output product is to add to what enters the part of the quantized model, for the original's states
 * to come out of it: so it also makes up for what the residual stream has lost before. */
static int take_outputs(struct sequence *s, const struct hidden_states *out,
                        const struct hidden_states *own_in, const float *bias, struct err *e)
{
    size_t n = hidden_states_n_rows(out), n_cols = hidden_states_n_cols(out);
    float scale = 1 / s->f->net->residual_scale;
    float *buffer = malloc(2 * n_cols * sizeof *buffer);
    int rc = buffer ? 0 : no_memory(e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        float *to = s->outputs + i * n_cols, *a = NULL, *b = NULL;
        rc = hidden_states_get(out, i, 1, buffer, &a, e);
        if (rc == 0)
            rc = hidden_states_get(own_in, i, 1, buffer + n_cols, &b, e);
        for (size_t k = 0; rc == 0 && k < n_cols; k++)
            to[k] = (a[k] - b[k]) * scale - (bias ? bias[k] : 0);
    }
    free(buffer);
    return rc;
}

/* Windows [first, first + n) of a stream through the part: the original goes on, the other is only looked at.
 */
static int observe_slice(struct sequence *s, struct stream *t, size_t first, size_t n, struct err *e)
{
    size_t ctx = t->w->ctx;
    const int32_t *ids = t->w->inputs + first * ctx;
    struct hidden_states *in = NULL, *own_in = NULL, *out = NULL, *own_out = NULL;
    const float *bias = NULL;
    for (size_t i = 0; i < s->n_pairs; i++) {
        s->pairs[i].n_kept = s->pairs[i].at = 0;
        bias = s->pairs[i].bias ? s->pairs[i].bias : bias;
    }
    s->at = t;
    s->is_original = true;
    int rc = hidden_states_rows(&in, t->original, first * ctx, n * ctx, e);
    if (rc == 0)
        rc = hidden_states_rows(&own_in, t->own, first * ctx, n * ctx, e);
    if (rc == 0)
        rc = run_leg(&out, s, s->original, ids, n, ctx, in, true, e);
    if (rc == 0)
        rc = take_outputs(s, out, own_in, bias, e);
    s->is_original = false;
    if (rc == 0)
        rc = run_leg(&own_out, s, s->own, ids, n, ctx, own_in, true, e);
    if (rc == 0)
        rc = hidden_states_copy(t->original, first * ctx, out, 0, n * ctx, e);
    hidden_states_free(in);
    hidden_states_free(own_in);
    hidden_states_free(out);
    hidden_states_free(own_out);
    return rc;
}

static int flush(struct sequence *s, struct stream *t, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->n_pairs; i++) {
        rc = gram_sums_flush(&t->sums[i].own, s->f->opt.pool, s->scratch, e);
        if (rc == 0)
            rc = cross_sums_flush(&t->sums[i].cross, s->f->opt.pool, s->scratch, e);
    }
    return rc;
}

static int observe_stream(struct sequence *s, struct stream *t, struct err *e)
{
    size_t step = s->slice;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->w->n; i += step)
        rc = observe_slice(s, t, i, t->w->n - i < step ? t->w->n - i : step, e);
    return rc ? rc : flush(s, t, e);
}

/* One of the models through the part, with the blocks that it has by now. */
static int advance(struct sequence *s, const struct stream *t, struct weights *w,
                   struct hidden_states *states, struct err *e)
{
    size_t step = s->slice, ctx = t->w->ctx;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->w->n; i += step) {
        size_t n = t->w->n - i < step ? t->w->n - i : step;
        struct hidden_states *in = NULL, *out = NULL;
        rc = hidden_states_rows(&in, states, i * ctx, n * ctx, e);
        if (rc == 0)
            rc = run_leg(&out, s, w, t->w->inputs + i * ctx, n, ctx, in, false, e);
        if (rc == 0)
            rc = hidden_states_copy(states, i * ctx, out, 0, n * ctx, e);
        hidden_states_free(in);
        hidden_states_free(out);
    }
    return rc;
}

/* --- which products --- */

/* The matrix whose product is added to the states as it is, or NULL. */
static const struct matrix *output_of(const struct net_layer *l)
{
    switch (l->steps[0]) {
    case STEP_ATTENTION: return l->attention.post_norm ? NULL : &l->attention.output;
    case STEP_MLP: return l->mlp.post_norm ? NULL : &l->mlp.down;
    case STEP_DELTA_NET: return &l->delta_net.output;
    case STEP_MOE:
    case STEP_LATENT: return NULL;
    }
    return NULL;
}

/* Does a use take this Gram matrix, and is its tensor (*i) to be corrected? */
static bool is_to_correct(const struct feedback_model *f, const struct hessian_use *u, size_t gram, size_t *i)
{
    return feedback_is_solved(f, u, gram, i) && f->tensors[*i].chosen != FEEDBACK_PLAIN;
}

static bool is_wanted(const struct feedback_model *f, size_t gram)
{
    const struct hessian_plan *p = hessian_file_plan(f->opt.hessian);
    size_t i;
    for (size_t k = 0; k < p->n_uses; k++)
        if (is_to_correct(f, &p->uses[k], gram, &i))
            return true;
    return false;
}

/* Experts see a few rows each, of tokens that the two models may send elsewhere; latents are not tried. */
static bool is_for(enum layer_step step)
{
    return step == STEP_ATTENTION || step == STEP_MLP || step == STEP_DELTA_NET;
}

static void choose_pairs(struct sequence *s)
{
    const struct hessian_plan *plan = hessian_file_plan(s->f->opt.hessian);
    const struct net_layer *l = &s->parts.open.layers[s->part];
    const struct matrix *output = output_of(l);
    s->n_pairs = 0;
    for (size_t i = 0; i < plan->n_grams && is_for(l->steps[0]); i++) {
        const struct hessian_gram *g = &plan->grams[i];
        const struct model_tensor *owner = g->layer == s->layer ? net_layer_find(l, g->owner) : NULL;
        if (!owner || g->n_mats != 1 || s->n_pairs == MAX_PAIRS || !is_wanted(s->f, i))
            continue;
        bool outputs = output && output->tensor == owner;
        s->pairs[s->n_pairs++] =
            (struct pair){.gram = i, .of = g, .of_outputs = outputs, .bias = outputs ? output->bias : NULL};
    }
}

/* Columns of what stands left in a pair's products. */
static size_t left_cols(const struct sequence *s, const struct pair *p)
{
    return p->of_outputs ? s->f->net->n_embd : (size_t)p->of->n_cols;
}

static uint64_t sums_bytes(const struct sequence *s, const struct pair *p)
{
    uint64_t n = p->of->n_cols, left = left_cols(s, p);
    return (gram_n_values(n) + n * left) * sizeof(double) + gram_pending_bytes(2 * n + left, GRAM_CHUNK);
}

/* How many windows' inputs an eighth of the memory holds. */
static void choose_slice(struct sequence *s)
{
    uint64_t per_token = 4 * s->f->net->n_embd * sizeof(float), ctx = s->streams[0].w->ctx;
    for (size_t i = 0; i < s->n_pairs; i++)
        per_token += 3 * s->pairs[i].of->n_cols * sizeof(float);
    uint64_t fits = s->f->opt.memory_bytes / 8 / per_token;
    s->slice = (size_t)((fits < SLICE_TOKENS ? fits : SLICE_TOKENS) / ctx);
    s->slice = s->slice ? s->slice : 1;
}

/* Sums of all pairs, in temporary files when they take more than half of the memory. */
static int begin_sums(struct sequence *s, struct err *e)
{
    uint64_t n_bytes = 0;
    int rc = 0;
    for (size_t i = 0; i < s->n_pairs; i++)
        n_bytes += 2 * sums_bytes(s, &s->pairs[i]);
    bool on_disk = n_bytes > s->f->opt.memory_bytes / 2;
    for (size_t i = 0; i < s->n_pairs; i++)
        for (int t = 0; rc == 0 && t < 2; t++) {
            struct sums *to = &s->streams[t].sums[i];
            size_t n_cols = (size_t)s->pairs[i].of->n_cols;
            rc = gram_sums_init(&to->own, n_cols, GRAM_CHUNK, on_disk, e);
            if (rc == 0)
                rc = cross_sums_init(&to->cross, left_cols(s, &s->pairs[i]), n_cols, on_disk, e);
        }
    return rc;
}

static void drop_pairs(struct sequence *s)
{
    for (size_t i = 0; i < s->n_pairs; i++) {
        free(s->pairs[i].kept);
        for (int t = 0; t < 2; t++) {
            gram_sums_release(&s->streams[t].sums[i].own);
            cross_sums_release(&s->streams[t].sums[i].cross);
        }
    }
    s->n_pairs = 0;
}

/* --- solving --- */

/* Both halves of a Gram matrix; caller frees. */
static double *whole(const struct gram_sums *g)
{
    size_t n = g->n_cols;
    double *out = malloc(n * n * sizeof *out);
    const double *from = g->sums;
    for (size_t i = 0; out && i < n; i++)
        for (size_t j = i; j < n; j++)
            out[i * n + j] = out[j * n + i] = *from++;
    return out;
}

struct corrected_rows {
    const struct feedback_model *f;
    const struct model_tensor *tensor;
    const struct feedback_correction *c; /* NULL: as they are */
    uint64_t row0;
};

static int read_corrected(void *ctx, uint64_t row0, uint64_t n, float *rows, struct err *e)
{
    const struct corrected_rows *r = ctx;
    int rc = model_read_rows(r->f->net->model, r->tensor, r->row0 + row0, n, rows, e);
    return rc == 0 && r->c ? feedback_correct_rows(r->c, row0, n, rows, e) : rc;
}

/* Tensor i is corrected, and what follows sees it so. */
static int take_blocks(struct sequence *s, size_t i, struct err *e)
{
    struct feedback_tensor *t = &s->f->tensors[i];
    t->chosen = FEEDBACK_CORRECTED;
    return weights_set_blocks(s->own, t->tensor, t->type, feedback_chosen_blocks(s->f, i), e);
}

struct solving {
    struct sequence *s;
    const struct pair *pair;
    struct feedback_hessian h;
    struct feedback_correction c;
    struct correction_sums validation;
};

static int fit_use(struct solving *x, size_t i, const struct hessian_use *u, struct correction_fit *fit,
                   struct err *e)
{
    const struct feedback_model *f = x->s->f;
    struct corrected_rows rows = {f, f->tensors[i].tensor, NULL, u->row0};
    struct correction_rows all = {u->n_rows, read_corrected, &rows};
    return feedback_correction_fit(fit, &x->c, &x->validation, &all, f->opt.pool, e);
}

static int solve_use(struct solving *x, size_t i, const struct hessian_use *u, struct err *e)
{
    struct feedback_model *f = x->s->f;
    const struct feedback_tensor *t = &f->tensors[i];
    struct corrected_rows rows = {f, t->tensor, &x->c, u->row0};
    uint64_t row_bytes = 0;
    qtype_row_bytes((uint32_t)t->type, t->tensor->ne[0], &row_bytes);
    struct feedback_job job = {.h = &x->h,
                               .type = t->type,
                               .n_rows = u->n_rows,
                               .read = read_corrected,
                               .read_ctx = &rows,
                               .plain =
                                   feedback_store_blocks(f->store, FEEDBACK_SOLVED, i) + u->row0 * row_bytes,
                               .stages = f->opt.stages,
                               .kern = f->opt.kern,
                               .pool = f->opt.pool};
    struct feedback_loss loss = {0};
    uint8_t *to = feedback_store_blocks(f->store, FEEDBACK_CORRECTED, i);
    int rc = feedback_encode(&job, to + u->row0 * row_bytes, &loss, e);
    if (rc == 0)
        rc = take_blocks(x->s, i, e);
    return rc ? err_context(e, rc, "tensor '%s'", t->tensor->name) : 0;
}

static int solve_uses(struct solving *x, struct err *e)
{
    struct feedback_model *f = x->s->f;
    const struct hessian_plan *plan = hessian_file_plan(f->opt.hessian);
    struct correction_fit fit = {0};
    size_t i;
    int rc = 0;
    for (size_t k = 0; rc == 0 && k < plan->n_uses; k++)
        if (is_to_correct(f, &plan->uses[k], x->pair->gram, &i))
            rc = fit_use(x, i, &plan->uses[k], &fit, e);
    x->c.strength = (float)feedback_correction_strength(&fit);
    for (size_t k = 0; rc == 0 && k < plan->n_uses; k++)
        if (is_to_correct(f, &plan->uses[k], x->pair->gram, &i))
            rc = solve_use(x, i, &plan->uses[k], e);
    return rc;
}

static int solve_pair(struct sequence *s, size_t index, struct err *e)
{
    const struct sums *own = &s->streams[0].sums[index], *other = &s->streams[1].sums[index];
    struct solving x = {.s = s, .pair = &s->pairs[index]};
    struct err why = {0};
    double *gram = whole(&own->own), *used = whole(&own->own), *validation = whole(&other->own);
    int rc = gram && used && validation ? 0 : no_memory(e), made = 0;
    if (rc == 0)
        made = feedback_hessian_make(&x.h, used, own->own.n_cols, &own->own.figures, NULL, &why);
    if (made != 0 && made != ERR_ARG && made != ERR_FORMAT) /* no data, or none to factor: stays as it is */
        rc = err_set(e, why.code, "%s", why.msg);
    struct correction_sums sums = {gram, own->cross.sums};
    x.validation = (struct correction_sums){validation, other->cross.sums};
    if (rc == 0 && made == 0)
        rc = feedback_correction_make(&x.c, &x.h, &sums, x.pair->of_outputs, s->f->opt.kern, e);
    if (rc == 0 && made == 0)
        rc = solve_uses(&x, e);
    feedback_correction_release(&x.c);
    feedback_hessian_release(&x.h);
    free(gram);
    free(used);
    free(validation);
    return rc;
}

/* --- all parts --- */

/* What a stopped run has corrected. */
static int take_corrected(struct sequence *s, struct err *e)
{
    const struct hessian_plan *plan = hessian_file_plan(s->f->opt.hessian);
    size_t t;
    int rc = 0;
    for (size_t i = 0; i < s->n_pairs; i++)
        for (size_t k = 0; rc == 0 && k < plan->n_uses; k++)
            if (is_to_correct(s->f, &plan->uses[k], s->pairs[i].gram, &t))
                rc = take_blocks(s, t, e);
    return rc;
}

/* What is not corrected in the end stays as it was solved. */
static void begin_blocks(struct sequence *s)
{
    struct feedback_model *f = s->f;
    const struct hessian_plan *plan = hessian_file_plan(f->opt.hessian);
    size_t t;
    for (size_t i = 0; i < s->n_pairs; i++)
        for (size_t k = 0; k < plan->n_uses; k++)
            if (is_to_correct(f, &plan->uses[k], s->pairs[i].gram, &t))
                feedback_store_copy(f->store, FEEDBACK_CORRECTED, FEEDBACK_SOLVED, t);
}

static int correct_part(struct sequence *s, struct err *e)
{
    int rc = begin_sums(s, e);
    begin_blocks(s);
    for (int t = 0; rc == 0 && t < 2; t++)
        rc = observe_stream(s, &s->streams[t], e);
    for (size_t i = 0; rc == 0 && i < s->n_pairs; i++)
        rc = solve_pair(s, i, e);
    if (rc == 0 && s->f->opt.resume)
        rc = feedback_store_set_corrected(s->f->store, s->part + 1, e);
    return rc;
}

/* Observing takes the original on its way, too. */
static int run_part(struct sequence *s, struct err *e)
{
    choose_pairs(s);
    choose_slice(s);
    bool observed = s->n_pairs && s->part >= feedback_store_n_corrected(s->f->store);
    int rc = observed ? correct_part(s, e) : take_corrected(s, e);
    drop_pairs(s);
    for (int t = 0; rc == 0 && t < 2; t++) {
        struct stream *of = &s->streams[t];
        rc = observed ? 0 : advance(s, of, s->original, of->original, e);
        if (rc == 0)
            rc = advance(s, of, s->own, of->own, e);
    }
    return rc;
}

static int embed(struct sequence *s, struct stream *t, struct err *e)
{
    int rc = run_leg(&t->original, s, s->original, t->w->inputs, t->w->n, t->w->ctx, NULL, false, e);
    return rc ? rc : run_leg(&t->own, s, s->own, t->w->inputs, t->w->n, t->w->ctx, NULL, false, e);
}

static int prepare(struct sequence *s, struct err *e)
{
    struct feedback_model *f = s->f;
    int rc = net_parts_init(&s->parts, f->net, e);
    if (rc == 0)
        rc = weights_new(&s->original, f->net->model, f->opt.kern, e);
    if (rc == 0)
        rc = weights_new(&s->own, f->net->model, f->opt.kern, e);
    for (size_t i = 0; rc == 0 && i < f->n; i++)
        rc = weights_set_blocks(s->own, f->tensors[i].tensor, f->tensors[i].type,
                                feedback_chosen_blocks(f, i), e);
    if (rc == 0)
        rc = gram_scratch_new(&s->scratch, f->opt.kern, f->opt.pool, e);
    size_t most = SLICE_TOKENS > s->streams[0].w->ctx ? SLICE_TOKENS : s->streams[0].w->ctx;
    s->outputs = malloc(most * f->net->n_embd * sizeof *s->outputs);
    if (rc == 0 && !s->outputs)
        rc = no_memory(e);
    for (int t = 0; rc == 0 && t < 2; t++)
        rc = embed(s, &s->streams[t], e);
    return rc;
}

/* Parts that a stopped run corrected behind other choices of the gate are of no use. */
static int begin_store(struct feedback_model *f, struct err *e)
{
    struct sha256 h;
    char choices[65];
    sha256_init(&h);
    for (size_t i = 0; i < f->n; i++)
        sha256_update_u64(&h, f->tensors[i].chosen);
    sha256_final_hex(&h, choices);
    return feedback_store_begin_corrections(f->store, choices, e);
}

int feedback_model_correct(struct feedback_model *f, const struct windows *text,
                           const struct windows *validation, struct err *e)
{
    struct sequence s = {.f = f, .streams = {{.w = text}, {.w = validation}}};
    int rc = text->ctx == validation->ctx && text->n && validation->n
                 ? begin_store(f, e)
                 : err_set(e, ERR_ARG,
                           "windows to calibrate on and validation windows of the same length are needed");
    if (rc == 0)
        rc = prepare(&s, e);
    for (s.layer = 0; rc == 0 && s.layer < f->net->n_layers; s.layer++)
        for (s.part = s.parts.first[s.layer]; rc == 0 && s.part < s.parts.first[s.layer + 1]; s.part++)
            rc = run_part(&s, e);
    for (int t = 0; t < 2; t++) {
        hidden_states_free(s.streams[t].original);
        hidden_states_free(s.streams[t].own);
    }
    if (rc == ERR_CANCELLED && f->opt.resume)
        err_set(e, ERR_CANCELLED,
                ERR_STOPPED ": all layers are solved and %u of %u corrected, which is kept in %s; --resume "
                            "continues from there",
                s.layer ? s.layer - 1 : 0, f->net->n_layers, f->opt.store_path);
    gram_scratch_free(s.scratch);
    weights_free(s.original);
    weights_free(s.own);
    net_parts_release(&s.parts);
    free(s.outputs);
    free(s.rows);
    return rc;
}
