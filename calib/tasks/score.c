/* score.c - see score.h: which inputs share a run, how runs are grouped, and what is read from the states. */
#include "score.h"

#include "calib/model/forward.h"
#include "calib/waves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A group ends behind so many tokens, or earlier behind a few where the next run is much shorter: padding
 * costs as much as text, reading the weights anew costs a few percent of multiplying MIN_TOKENS by them. */
#define GROUP_TOKENS  8192
#define MIN_TOKENS    2048
#define FEWER_PASSES  8 /* times as many where the weights have to be encoded or read from the disk */
#define LEAST_PERCENT 94

struct run {
    size_t begin, len;              /* the input, in the ids of the requests */
    size_t first_member, n_members; /* requests that it serves, in `members` */
};

struct plan {
    const struct requests *r;
    struct run *runs; /* the longest first */
    size_t n_runs;
    size_t *members;     /* [r->n] */
    size_t most;         /* tokens of a group */
    uint64_t only_alike; /* longer runs are grouped with those of equal length (rope.train_length); 0: none */
};

/* --- which requests share a run --- */

struct sorted {
    const int32_t *ids; /* the input */
    size_t len, request;
};

static int by_content(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    for (size_t i = 0; i < n; i++)
        if (x->ids[i] != y->ids[i])
            return x->ids[i] < y->ids[i] ? -1 : 1;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return x->request < y->request ? -1 : x->request > y->request;
}

static bool begins(const struct sorted *x, const struct sorted *y)
{
    return x->len <= y->len && memcmp(x->ids, y->ids, x->len * sizeof *x->ids) == 0;
}

static int longest_first(const void *a, const void *b)
{
    const struct run *x = a, *y = b;
    if (x->len != y->len)
        return x->len < y->len ? 1 : -1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* A run of `len` tokens serves an input of `mine`, unless its rotary factors are those of longer texts. */
static bool same_factors(const struct plan *p, size_t mine, size_t len)
{
    return !p->only_alike || (mine > p->only_alike) == (len > p->only_alike);
}

/* What begins another input also begins the one sorted behind it: runs are found from the end. */
static void find_runs(struct plan *p, const struct sorted *s)
{
    for (size_t i = p->r->n; i-- > 0;) {
        p->members[i] = s[i].request;
        if (i + 1 == p->r->n || !begins(&s[i], &s[i + 1]) ||
            !same_factors(p, s[i].len, p->runs[p->n_runs - 1].len))
            p->runs[p->n_runs++] = (struct run){.begin = p->r->items[s[i].request].begin, .len = s[i].len};
        struct run *run = &p->runs[p->n_runs - 1];
        run->first_member = i;
        run->n_members++;
    }
}

static int plan_runs(struct plan *p, struct err *e)
{
    const struct requests *r = p->r;
    struct sorted *s = malloc(r->n * sizeof *s + 1);
    p->runs = malloc(r->n * sizeof *p->runs + 1);
    p->members = malloc(r->n * sizeof *p->members + 1);
    if (!s || !p->runs || !p->members) {
        free(s);
        return err_set(e, ERR_NOMEM, "out of memory for the order of %zu requests", r->n);
    }
    for (size_t i = 0; i < r->n; i++)
        s[i] = (struct sorted){r->ids + r->items[i].begin, r->items[i].len - 1, i};
    qsort(s, r->n, sizeof *s, by_content);
    find_runs(p, s);
    qsort(p->runs, p->n_runs, sizeof *p->runs, longest_first);
    free(s);
    return 0;
}

static void plan_release(struct plan *p)
{
    free(p->runs);
    free(p->members);
}

static int plan_make(struct plan *p, const struct requests *r, const struct net *net, const struct weights *w,
                     struct err *e)
{
    *p = (struct plan){.r = r, .most = wave_is_free(w) ? GROUP_TOKENS : FEWER_PASSES * GROUP_TOKENS};
    p->only_alike = net->rope.train_length;
    return plan_runs(p, e);
}

/* How many runs, from `first` on, make the next group; their padded length is that of the first. */
static size_t group_size(const struct plan *p, size_t first)
{
    size_t longest = p->runs[first].len, n = 1;
    size_t least = p->most / GROUP_TOKENS * MIN_TOKENS;
    for (; first + n < p->n_runs && (n + 1) * longest <= p->most; n++) {
        size_t len = p->runs[first + n].len;
        bool much_shorter = len * 100 < longest * LEAST_PERCENT;
        if ((much_shorter && n * longest >= least) ||
            (p->only_alike && longest > p->only_alike && len != longest))
            break;
    }
    return n;
}

int score_count_tokens(size_t *padded, size_t *plain, const struct requests *r, const struct net *net,
                       const struct weights *w, struct err *e)
{
    struct plan p;
    size_t n_padded = 0, n_plain = 0;
    int rc = plan_make(&p, r, net, w, e);
    for (size_t first = 0, n; rc == 0 && first < p.n_runs; first += n) {
        n = group_size(&p, first);
        n_padded += n * p.runs[first].len;
    }
    for (size_t i = 0; rc == 0 && i < p.n_runs; i++)
        n_plain += p.runs[i].len;
    plan_release(&p);
    if (rc == 0) {
        *padded = n_padded;
        *plain = n_plain;
    }
    return rc;
}

/* --- one group --- */

struct scorer {
    const struct plan *p;
    const struct net *net;
    struct weights *w;
    const struct score_options *opt;
    struct likelihood *out;
    const char *name;                 /* of the model, for progress */
    double done, total, group_tokens; /* tokens with padding */
    size_t first, n;                  /* runs of the group */
    size_t keep_first, keep_end;      /* positions that hold all that is scored */
    size_t n_targets;
    int32_t *targets;             /* [n_targets], in the order of runs, members, positions */
    struct hidden_states *states; /* of the kept positions */
    struct hidden_states *scored; /* of the targets */
    struct head_score *scores;    /* [n_targets] */
};

static int show(void *ctx, const struct progress_step *of_group)
{
    struct scorer *s = ctx;
    struct progress_step step = {
        .done = s->done + progress_share(of_group) * s->group_tokens, .total = s->total, .what = s->name};
    return progress_stops(&s->opt->progress, &step);
}

static const struct request *member(const struct scorer *s, const struct run *run, size_t k)
{
    return &s->p->r->items[s->p->members[run->first_member + k]];
}

/* Called for each target of the group, which has row `row` of the kept states. */
typedef int (*target_fn)(struct scorer *s, size_t i, size_t row, int32_t id, struct err *e);

static int for_each_target(struct scorer *s, target_fn take, struct err *e)
{
    size_t i = 0;
    int rc = 0;
    for (size_t k = 0; rc == 0 && k < s->n; k++) {
        const struct run *run = &s->p->runs[s->first + k];
        for (size_t m = 0; rc == 0 && m < run->n_members; m++) {
            const struct request *q = member(s, run, m);
            for (size_t t = q->first; rc == 0 && t < q->len; t++)
                rc = take(s, i++, k * (s->keep_end - s->keep_first) + t - 1 - s->keep_first,
                          s->p->r->ids[q->begin + t], e);
        }
    }
    return rc;
}

static void measure_group(struct scorer *s)
{
    s->keep_first = SIZE_MAX;
    s->keep_end = s->n_targets = 0;
    for (size_t k = 0; k < s->n; k++) {
        const struct run *run = &s->p->runs[s->first + k];
        for (size_t m = 0; m < run->n_members; m++) {
            const struct request *q = member(s, run, m);
            s->keep_first = q->first - 1 < s->keep_first ? q->first - 1 : s->keep_first;
            s->keep_end = q->len - 1 > s->keep_end ? q->len - 1 : s->keep_end;
            s->n_targets += request_n_scored(q);
        }
    }
}

static int run_group(struct scorer *s, struct err *e)
{
    size_t len = s->p->runs[s->first].len;
    int32_t *rows = calloc(s->n * len, sizeof *rows); /* the padding is token 0 */
    if (!rows)
        return err_set(e, ERR_NOMEM, "out of memory for %zu texts", s->n);
    for (size_t k = 0; k < s->n; k++) {
        const struct run *run = &s->p->runs[s->first + k];
        memcpy(rows + k * len, s->p->r->ids + run->begin, run->len * sizeof *rows);
    }
    struct forward_options f = {.pool = s->opt->pool,
                                .memory_bytes = s->opt->memory_bytes,
                                .activations = s->opt->activations,
                                .cache = s->opt->cache,
                                .compute = s->opt->compute,
                                .keep_first = s->keep_first,
                                .keep_end = s->keep_end,
                                .progress = {show, s}};
    int rc = forward_run(&s->states, s->net, s->w, rows, s->n, len, &f, e);
    free(rows);
    return rc;
}

static int take_target(struct scorer *s, size_t i, size_t row, int32_t id, struct err *e)
{
    size_t n = s->net->n_embd;
    float *buffer = (float *)(void *)(s->scores + s->n_targets), *from = NULL;
    s->targets[i] = id;
    int rc = hidden_states_get(s->states, row, 1, buffer, &from, e);
    if (rc == 0 && from != buffer)
        memcpy(buffer, from, n * sizeof *buffer);
    return rc == 0 ? hidden_states_put(s->scored, i, 1, buffer, e) : rc;
}

/* From scores to the likelihoods of the requests, in the order of for_each_target. */
static int take_scores(struct scorer *s, struct err *e)
{
    size_t i = 0;
    for (size_t k = 0; k < s->n; k++) {
        const struct run *run = &s->p->runs[s->first + k];
        for (size_t m = 0; m < run->n_members; m++) {
            const struct request *q = member(s, run, m);
            struct likelihood *l = &s->out[s->p->members[run->first_member + m]];
            double sum = 0;
            *l = (struct likelihood){.greedy = true, .n_tokens = q->len - q->own_first};
            for (size_t t = q->first; t < q->len; t++, i++) {
                const struct head_score *h = &s->scores[i];
                if (!isfinite(h->nll))
                    return err_set(
                        e, ERR_FORMAT,
                        "%s: a prediction is not a number; does the model hold damaged weights? (kerf "
                        "verify)",
                        model_path(s->net->model));
                l->sum -= t >= q->own_first ? h->nll : 0;
                l->greedy &= t < q->own_first || h->top == s->targets[i];
                sum -= t >= q->mean_first && t < q->mean_end ? h->nll : 0;
            }
            l->mean = sum / (double)(q->mean_end - q->mean_first);
        }
    }
    return 0;
}

static int score_group(struct scorer *s, struct err *e)
{
    size_t n_embd = s->net->n_embd;
    struct head_options h = {.pool = s->opt->pool,
                             .memory_bytes = s->opt->memory_bytes,
                             .activations = s->opt->activations,
                             .compute = s->opt->compute};
    measure_group(s);
    int rc = run_group(s, e);
    s->targets = malloc(s->n_targets * sizeof *s->targets + 1);
    s->scores = malloc(s->n_targets * sizeof *s->scores + n_embd * sizeof(float)); /* and a row of states */
    if (rc == 0 && (!s->targets || !s->scores))
        rc = err_set(e, ERR_NOMEM, "out of memory for %zu predictions", s->n_targets);
    if (rc == 0)
        rc = hidden_states_new(&s->scored, s->n_targets, n_embd, s->opt->memory_bytes / 4, e);
    if (rc == 0)
        rc = for_each_target(s, take_target, e);
    struct head_model model = {s->net, s->w, s->scored};
    if (rc == 0)
        rc = head_score(&model, 1, s->targets, s->n_targets, &h, s->scores, e);
    if (rc == 0)
        rc = take_scores(s, e);
    hidden_states_free(s->states);
    hidden_states_free(s->scored);
    free(s->targets);
    free(s->scores);
    s->states = s->scored = NULL;
    s->targets = NULL;
    s->scores = NULL;
    return rc;
}

int score_requests(struct likelihood *out, const struct requests *r, const struct net *net, struct weights *w,
                   const struct score_options *opt, struct err *e)
{
    struct plan p = {0};
    struct scorer s = {.p = &p, .net = net, .w = w, .opt = opt, .out = out};
    size_t padded = 0, plain = 0;
    int rc = net_need_tokens(net, "scoring a task", e);
    if (rc == 0)
        rc = plan_make(&p, r, net, w, e);
    if (rc == 0)
        rc = score_count_tokens(&padded, &plain, r, net, w, e);
    s.total = (double)padded;
    s.name = opt->name;
    for (; rc == 0 && s.first < p.n_runs; s.first += s.n) {
        s.n = group_size(&p, s.first);
        s.group_tokens = (double)(s.n * p.runs[s.first].len);
        rc = score_group(&s, e);
        s.done += s.group_tokens;
    }
    plan_release(&p);
    return rc;
}
