/* score_plan.c - see score_plan.h. */
#include "score_plan.h"

#include "calib/waves.h"

#include <stdlib.h>
#include <string.h>

/* A group ends behind so many tokens, or earlier behind a few where the next run is much shorter: padding
 * costs as much as text, reading the weights anew costs a few percent of multiplying MIN_TOKENS by them. */
#define GROUP_TOKENS  8192
#define MIN_TOKENS    2048
#define FEWER_PASSES  8 /* times as many where the weights have to be encoded or read from the disk */
#define LEAST_PERCENT 94

/* Rows of a window of branches. Its keys are held at once, which is more than the states of its rows take, so
 * it is smaller where memory is short: a row is thought of as so many states. */
#define WINDOW_ROWS     4096
#define MIN_WINDOW_ROWS 512
#define STATES_OF_A_ROW 16

/* --- which requests share a run --- */

struct sorted {
    const int32_t *ids; /* the input */
    size_t len, request;
};

static size_t shared_beginning(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b)
{
    size_t n = n_a < n_b ? n_a : n_b, i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

static int by_content(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    size_t i = shared_beginning(x->ids, x->len, y->ids, y->len);
    if (i < x->len && i < y->len)
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
static bool same_factors(const struct score_plan *p, size_t mine, size_t len)
{
    return !p->only_alike || (mine > p->only_alike) == (len > p->only_alike);
}

/* What begins another input also begins the one sorted behind it: runs are found from the end. */
static void find_runs(struct score_plan *p, const struct sorted *s)
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

/* Longest first, or, where a run goes on behind what it shares with the one before it, by content. */
static void order_runs(struct score_plan *p)
{
    for (size_t i = 0; p->only_alike && i < p->n_runs; i++)
        p->branches &= p->runs[i].len <= p->only_alike;
    if (!p->branches)
        qsort(p->runs, p->n_runs, sizeof *p->runs, longest_first);
    for (size_t i = 0, k = p->n_runs; p->branches && i + 1 < k; i++) { /* they were found from the end */
        struct run last = p->runs[--k];
        p->runs[k] = p->runs[i];
        p->runs[i] = last;
    }
}

static int plan_runs(struct score_plan *p, struct err *e)
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
    order_runs(p);
    free(s);
    return 0;
}

/* The shortest text length behind which rotary factors are others; 0: none. */
static uint64_t factors_change(const struct rope *r)
{
    uint64_t at = r->long_inv_freq ? r->long_from : 0;
    return at && r->train_length ? (at < r->train_length ? at : r->train_length) : at + r->train_length;
}

int score_plan_make(struct score_plan *p, const struct requests *r, const struct net *net,
                    const struct weights *w, uint64_t memory_bytes, struct err *e)
{
    uint64_t rows = memory_bytes / (STATES_OF_A_ROW * sizeof(float) * net->n_embd);
    *p = (struct score_plan){.r = r,
                             .branches = forward_takes_tree(net),
                             .most = wave_is_free(w) ? GROUP_TOKENS : FEWER_PASSES * GROUP_TOKENS,
                             .only_alike = factors_change(&net->rope)};
    p->window_rows = rows < MIN_WINDOW_ROWS ? MIN_WINDOW_ROWS
                     : rows < WINDOW_ROWS   ? (size_t)rows
                                            : WINDOW_ROWS;
    return plan_runs(p, e);
}

void score_plan_release(struct score_plan *p)
{
    free(p->runs);
    free(p->members);
}

/* --- groups of padded windows --- */

/* How many runs, from `first` on; their padded length is that of the first. */
static size_t padded_runs(const struct score_plan *p, size_t first)
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

static void pad(struct score_group *g, const struct score_plan *p)
{
    g->n = g->n_windows = padded_runs(p, g->first);
    g->ctx = p->runs[g->first].len;
    for (size_t i = 0; i < g->n; i++)
        g->n_rows += p->runs[g->first + i].len;
}

/* --- groups of windows with branches --- */

/* Tokens that run i shares with the one before it. */
static size_t shared_with_last(const struct score_plan *p, size_t i)
{
    const struct run *x = &p->runs[i - 1], *y = &p->runs[i];
    return shared_beginning(p->r->ids + x->begin, x->len, p->r->ids + y->begin, y->len);
}

/* Runs from `first` on that make one window, of *rows rows. A long first run takes more with it, so that it
 * stays with the choices that continue it. */
static size_t window_runs(size_t *rows, const struct score_plan *p, size_t first)
{
    size_t n = 1, used = p->runs[first].len, most = used + p->window_rows / 2;
    most = most > p->window_rows ? most : p->window_rows;
    for (; first + n < p->n_runs; n++) {
        size_t more = p->runs[first + n].len - shared_with_last(p, first + n);
        if (used + more > most)
            break;
        used += more;
    }
    *rows = used;
    return n;
}

/* Adds a branch for run i of the plan, the first of its window or one behind the last. */
static void add_branch(struct score_group *g, const struct score_plan *p, size_t i, bool opens, size_t *row)
{
    struct row_branch b = {.row = *row, .parent = SIZE_MAX, .n_before = opens ? 0 : shared_with_last(p, i)};
    b.n = p->runs[i].len - b.n_before;
    if (b.n_before > 0)
        b.parent = g->n_branches - 1;
    while (b.n_before > 0 && g->branches[b.parent].n_before >= b.n_before)
        b.parent = g->branches[b.parent].parent; /* its own stretch begins behind what is shared */
    g->branch_of[i - g->first] = g->n_branches;
    g->branches[g->n_branches++] = b;
    *row += b.n;
}

/* How many windows, and how long. */
static void measure_windows(struct score_group *g, const struct score_plan *p)
{
    size_t rows = 0;
    for (size_t i = g->first, n; i < p->n_runs; i += n) {
        n = window_runs(&rows, p, i);
        size_t ctx = rows > g->ctx ? rows : g->ctx;
        if (g->n_windows > 0 && (p->most == GROUP_TOKENS || (g->n_windows + 1) * ctx > p->most))
            break; /* reading the weights once for each window is cheaper than padding all but the longest */
        g->ctx = ctx;
        g->n += n;
        g->n_windows++;
        g->n_rows += rows;
    }
}

static int branch(struct score_group *g, const struct score_plan *p, struct err *e)
{
    size_t rows = 0, run = g->first;
    measure_windows(g, p);
    g->branches = malloc((g->n + g->n_windows) * sizeof *g->branches);
    g->branch_of = malloc(g->n * sizeof *g->branch_of);
    if (!g->branches || !g->branch_of)
        return err_set(e, ERR_NOMEM, "out of memory for the rows of %zu texts", g->n);
    for (size_t w = 0; w < g->n_windows; w++) {
        size_t row = w * g->ctx, end = row + g->ctx, last = run + window_runs(&rows, p, run);
        for (bool opens = true; run < last; run++, opens = false)
            add_branch(g, p, run, opens, &row);
        if (row < end)
            g->branches[g->n_branches++] =
                (struct row_branch){.row = row, .n = end - row, .parent = SIZE_MAX};
    }
    return 0;
}

int score_group_make(struct score_group *g, const struct score_plan *p, size_t first, struct err *e)
{
    *g = (struct score_group){.first = first};
    if (p->branches)
        return branch(g, p, e);
    pad(g, p);
    return 0;
}

void score_group_release(struct score_group *g)
{
    free(g->branches);
    free(g->branch_of);
    *g = (struct score_group){0};
}

size_t score_group_row(const struct score_group *g, size_t run, size_t position)
{
    size_t together;
    return g->branches ? row_tree_row(&together, g->branches, g->branch_of[run], position)
                       : run * g->ctx + position;
}

void score_group_ids(const struct score_group *g, const struct score_plan *p, int32_t *ids)
{
    memset(ids, 0, g->n_windows * g->ctx * sizeof *ids); /* the padding is token 0 */
    for (size_t k = 0; k < g->n; k++) {
        const struct run *run = &p->runs[g->first + k];
        size_t from = g->branches ? g->branches[g->branch_of[k]].n_before : 0;
        memcpy(ids + score_group_row(g, k, from), p->r->ids + run->begin + from,
               (run->len - from) * sizeof *ids);
    }
}
