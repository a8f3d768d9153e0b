/* test_imatrix_collect.c - sums that can be worked out by hand; the same bits for any threads, memory and
 * waves; stopped and resumed runs; states that are damaged or about something else; experts. */
#include "calib/eval/evaluate.h"
#include "calib/eval/perplexity.h"
#include "calib/stats/imatrix_collect.h"
#include "calib/stats/imatrix_sums.h"
#include "libquant/base/filemap.h"
#include "toy_checkpoint.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define CTX       64
#define N_WINDOWS 40 /* waves of 16: whole tiles of 1024 tokens */

struct bench {
    char folder[32], state[64];
    struct model *model;
    struct net net;
    struct weights *weights;
    struct corpus corpus;
    struct windows windows;
};

static void put(struct bench *b, const struct toy_spec *spec)
{
    struct err e = {0};
    static int32_t ids[CTX * N_WINDOWS];
    *b = (struct bench){.folder = "kerf-toy-XXXXXX"};
    if (!mkdtemp(b->folder) || toy_checkpoint_write(b->folder, spec, &e) ||
        model_open(&b->model, b->folder, &(struct model_options){0}, &e) || net_init(&b->net, b->model, &e) ||
        weights_new(&b->weights, b->model, NULL, &e))
        fail_msg("%s", e.msg);
    snprintf(b->state, sizeof b->state, "%s/state", b->folder);
    for (uint64_t i = 0; i < CTX * N_WINDOWS; i++)
        ids[i] = (int32_t)((i * i * i * 101 + i * i * 31 + 7 * i + 11) % b->net.n_vocab);
    assert_int_equal(corpus_add_tokens(&b->corpus, "ids", ids, CTX * N_WINDOWS, NULL, 0, &e), 0);
    struct window_options opt = {.ctx = CTX, .bos = -1};
    assert_int_equal(windows_cut(&b->windows, &b->corpus, &opt, &e), 0);
    assert_int_equal(b->windows.n, N_WINDOWS);
}

static void take_away(struct bench *b)
{
    char command[64];
    windows_release(&b->windows);
    corpus_release(&b->corpus);
    weights_free(b->weights);
    net_release(&b->net);
    model_close(b->model);
    snprintf(command, sizeof command, "rm -r '%s'", b->folder);
    assert_int_equal(system(command), 0);
}

static struct imatrix_collect_options options(const struct bench *b)
{
    return (struct imatrix_collect_options){
        .memory_bytes = 1 << 26, .perplexity = true, .state_path = b->state, .identity = "this run"};
}

static int collect(struct imatrix_collected *c, struct bench *b, unsigned threads,
                   struct imatrix_collect_options opt, struct err *e)
{
    struct pool *pool = NULL;
    assert_int_equal(pool_new(&pool, threads, e), 0);
    opt.pool = pool;
    int rc = imatrix_collect(c, &b->net, b->weights, &b->windows, &opt, e);
    pool_free(pool);
    return rc;
}

static void must_collect(struct imatrix_collected *c, struct bench *b, unsigned threads,
                         struct imatrix_collect_options opt)
{
    struct err e = {0};
    *c = (struct imatrix_collected){0};
    if (collect(c, b, threads, opt, &e) != 0)
        fail_msg("%s", e.msg);
}

/* To the last bit. */
static void assert_same(const struct imatrix_collected *a, const struct imatrix_collected *b)
{
    assert_int_equal(imatrix_n(a->imatrix), imatrix_n(b->imatrix));
    assert_int_equal(imatrix_chunk_count(a->imatrix), imatrix_chunk_count(b->imatrix));
    for (size_t i = 0; i < imatrix_n(a->imatrix); i++) {
        const struct imatrix_entry *x = imatrix_entry_at(a->imatrix, i), *y = imatrix_entry_at(b->imatrix, i);
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->n_values, y->n_values);
        assert_int_equal(x->n_mats, y->n_mats);
        assert_memory_equal(x->sums, y->sums, x->n_values * sizeof *x->sums);
        assert_memory_equal(x->counts, y->counts, x->n_mats * sizeof *x->counts);
    }
    assert_int_equal(a->n_scored, b->n_scored);
    assert_memory_equal(&a->perplexity, &b->perplexity, sizeof a->perplexity);
}

static void first_products_hold_the_squares_of_the_normalised_embedding(void **state)
{
    (void)state;
    struct bench b;
    struct imatrix_collected c;
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    spec.tied = false;
    put(&b, &spec);
    must_collect(&c, &b, 2, options(&b));
    size_t n_cols = b.net.n_embd;
    double *want = calloc(n_cols, sizeof *want);
    float *row = malloc(n_cols * sizeof *row);
    const float *norm = b.net.layers[0].attention.norm;
    for (size_t t = 0; t < CTX * N_WINDOWS; t++) {
        double mean = 0;
        uint64_t id = (uint64_t)b.windows.inputs[t];
        assert_int_equal(model_read_rows(b.model, b.net.embedding, id, 1, row, &e), 0);
        for (size_t k = 0; k < n_cols; k++)
            mean += (double)row[k] * (double)row[k] / (double)n_cols;
        for (size_t k = 0; k < n_cols; k++)
            want[k] += pow((double)row[k] * (double)norm[k], 2) / (mean + (double)b.net.eps);
    }
    static const char *const names[] = {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"};
    for (size_t i = 0; i < 3; i++) {
        const struct imatrix_entry *x = imatrix_find(c.imatrix, names[i]);
        assert_non_null(x);
        assert_int_equal(x->n_values, n_cols);
        assert_int_equal(x->n_mats, 1);
        assert_true(x->counts[0] == CTX * N_WINDOWS);
        for (size_t k = 0; k < n_cols; k++)
            if (!(fabs(x->sums[k] - want[k]) <= 1e-6 * want[k]))
                fail_msg("%s: column %zu: expected %.9g, found %.9g", names[i], k, want[k], x->sums[k]);
    }
    assert_int_equal(imatrix_n(c.imatrix), 7 * spec.n_layers); /* no head, no embedding */
    assert_int_equal(imatrix_chunk_size(c.imatrix), CTX);
    assert_int_equal(imatrix_chunk_count(c.imatrix), N_WINDOWS);
    assert_int_equal(c.n_tokens, CTX * N_WINDOWS);
    imatrix_collected_release(&c);
    free(want);
    free(row);
    take_away(&b);
}

static void the_head_is_collected_on_request(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        struct bench b;
        struct imatrix_collected c;
        struct toy_spec spec = toy_spec_tiny(TOY_LLAMA);
        spec.tied = tied;
        put(&b, &spec);
        struct imatrix_collect_options opt = options(&b);
        opt.process_output = true;
        opt.perplexity = false;
        must_collect(&c, &b, 1, opt);
        const struct imatrix_entry *x = imatrix_find(c.imatrix, tied ? "token_embd.weight" : "output.weight");
        assert_non_null(x);
        assert_true(x->counts[0] == CTX * N_WINDOWS);
        /* Its input has a mean square of 1 before the weights of the norm: the sum over columns of S / w^2.
         */
        double total = 0;
        for (size_t k = 0; k < b.net.n_embd; k++)
            total += x->sums[k] / pow((double)b.net.output_norm[k], 2);
        assert_true(fabs(total / (CTX * N_WINDOWS) / b.net.n_embd - 1) < 1e-3);
        assert_true(isnan(c.perplexity) && c.n_scored == 0);
        imatrix_collected_release(&c);
        take_away(&b);
    }
}

static void perplexity_is_that_of_an_evaluation(void **state)
{
    (void)state;
    struct bench b;
    struct imatrix_collected c;
    struct evaluation v = {0};
    struct perplexity p;
    struct pool *pool = NULL;
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN2);
    put(&b, &spec);
    must_collect(&c, &b, 2, options(&b));
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    struct evaluate_model m = {.name = "toy", .net = &b.net, .weights = b.weights};
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 26};
    assert_int_equal(evaluate(&v, &m, 1, &b.windows, &opt, &e), 0);
    perplexity_of(&p, v.nll[0], v.n, v.run);
    assert_int_equal(c.n_scored, v.n);
    assert_true(c.perplexity == p.perplexity);
    assert_true(c.perplexity_stderr == p.perplexity_stderr);
    evaluation_release(&v);
    imatrix_collected_release(&c);
    pool_free(pool);
    take_away(&b);
}

static void threads_memory_and_waves_do_not_change_a_bit(void **state)
{
    (void)state;
    static const struct {
        unsigned threads;
        uint64_t memory;
        size_t save_windows;
    } ways[] = {{2, 1 << 26, 0},  {7, 1 << 26, 0},  {1, 1 << 20, 0},       {2, 1 << 20, 1},
                {7, 1 << 28, 17}, {2, 1 << 26, 39}, {1, 1 << 19, SIZE_MAX}};
    for (int arch = 0; arch < TOY_ARCH_COUNT; arch++) {
        struct bench b;
        struct imatrix_collected first, other;
        struct toy_spec spec = toy_spec_tiny((enum toy_arch)arch);
        put(&b, &spec);
        must_collect(&first, &b, 1, options(&b));
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            struct imatrix_collect_options opt = options(&b);
            opt.memory_bytes = ways[i].memory;
            opt.save_windows = ways[i].save_windows;
            opt.state_path = i % 2 ? NULL : b.state;
            must_collect(&other, &b, ways[i].threads, opt);
            assert_same(&first, &other);
            imatrix_collected_release(&other);
        }
        imatrix_collected_release(&first);
        take_away(&b);
    }
}

/* Stop when this many windows are done. */
static int stop_at(void *ctx, const struct progress_step *p)
{
    assert_true(p->done >= 0 && progress_share(p) <= 1.0 + 1e-9);
    assert_true(isnan(p->perplexity) == (p->n_done == 0));
    return p->n_done >= *(const size_t *)ctx;
}

static void a_stopped_run_is_resumed_to_the_same_bits(void **state)
{
    (void)state;
    struct bench b;
    struct imatrix_collected whole, resumed;
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    put(&b, &spec);
    must_collect(&whole, &b, 2, options(&b));
    assert_int_equal(access(b.state, F_OK), 0); /* stays until the caller has saved the result */
    unlink(b.state);
    for (size_t at = 0; at <= 32; at += 16) {
        struct imatrix_collect_options opt = options(&b);
        opt.save_windows = 16;
        opt.resume = true; /* nothing there: from the start */
        opt.progress = (struct progress){stop_at, &at};
        assert_int_equal(collect(&resumed, &b, 3, opt, &e), ERR_CANCELLED);
        assert_int_equal(access(b.state, F_OK) == 0, at > 0);
        assert_non_null(strstr(e.msg, at ? "--resume" : "nothing is kept"));
        opt.progress.tell = NULL;
        opt.save_windows = at == 32 ? 0 : 20;
        must_collect(&resumed, &b, 2, opt);
        assert_int_equal(resumed.n_resumed, at);
        assert_same(&whole, &resumed);
        imatrix_collected_release(&resumed);
        must_collect(&resumed, &b, 1, opt); /* the state of a run that ended: nothing is left to run */
        assert_int_equal(resumed.n_resumed, N_WINDOWS);
        assert_same(&whole, &resumed);
        imatrix_collected_release(&resumed);
        opt.identity = "another run";
        assert_int_equal(collect(&resumed, &b, 1, opt, &e), ERR_ARG);
        assert_non_null(strstr(e.msg, "without --resume"));
        opt.resume = false; /* is written over */
        must_collect(&resumed, &b, 2, opt);
        assert_int_equal(resumed.n_resumed, 0);
        imatrix_collected_release(&resumed);
        unlink(b.state);
    }
    imatrix_collected_release(&whole);
    take_away(&b);
}

static void save_bytes(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void damaged_states_are_refused(void **state)
{
    (void)state;
    struct bench b;
    struct imatrix_collected whole, c;
    struct filemap map;
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN2);
    put(&b, &spec);
    struct imatrix_collect_options opt = options(&b);
    must_collect(&whole, &b, 2, opt);
    assert_int_equal(filemap_open(&map, b.state, &e), 0);
    size_t n = map.size, n_refused = 0;
    uint8_t *good = malloc(n), *bad = malloc(n);
    memcpy(good, map.data, n);
    filemap_close(&map);
    opt.resume = true;
    opt.save_windows = 1;
    for (size_t i = 0; i < 300; i++) {
        /* every third byte of the header, then spread over the file */
        size_t at = i < 150 ? 3 * i : 450 + (i - 150) * ((n - 450) / 150);
        memcpy(bad, good, n);
        bad[at] ^= (uint8_t)(1u << i % 8);
        save_bytes(b.state, bad, n);
        e = (struct err){0};
        if (collect(&c, &b, 1, opt, &e) != 0) {
            assert_true(e.msg[0] != 0 && e.code != ERR_OK);
            n_refused++;
            continue;
        }
        assert_same(&whole, &c); /* padding, or a name nobody asked for */
        imatrix_collected_release(&c);
    }
    assert_true(n_refused > 250);
    for (size_t i = 1; i < 20; i++) {
        save_bytes(b.state, good, n * i / 20);
        assert_int_not_equal(collect(&c, &b, 1, opt, &e), 0);
        assert_non_null(strstr(e.msg, b.state));
    }
    imatrix_collected_release(&whole);
    free(good);
    free(bad);
    take_away(&b);
}

static void rows_of_experts_count_by_the_router_where_that_is_asked(void **state)
{
    (void)state;
    struct err e = {0};
    struct pool *pool = NULL;
    struct model_tensor t = {.name = "blk.0.ffn_up_exps.weight", .ne = {2, 4, 3, 1}};
    const struct model_tensor *list[] = {&t};
    const float x[4] = {1, 2, 3, -4}, weights[2] = {0.25f, 0.5f};
    struct observation o = {list, 1, x, 2, 2, 1, weights};
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    for (int by_router = 0; by_router < 2; by_router++) {
        struct imatrix_sums s = {.pool = pool, .by_router = by_router};
        assert_int_equal(imatrix_sums_observe(&s, &o, &e), 0);
        const struct sums_entry *y = &s.entries[0];
        assert_true(y->counts[0] == 0 && y->counts[1] == (by_router ? 0.75 : 2));
        assert_true(y->sums[2] == (by_router ? 0.25 * 1 + 0.5 * 9 : 10));
        assert_true(y->sums[3] == (by_router ? 0.25 * 4 + 0.5 * 16 : 20));
        struct imatrix *m = NULL; /* in whole tokens, of the same mean */
        assert_int_equal(imatrix_sums_finish(&m, &s, &e), 0);
        const struct imatrix_entry *z = imatrix_find(m, t.name);
        assert_true(z->counts[0] == 0 && z->counts[1] == (by_router ? 1 : 2));
        assert_true(fabs(z->sums[3] / z->counts[1] - y->sums[3] / y->counts[1]) < 1e-12);
        imatrix_free(m);
        imatrix_sums_release(&s);
    }
    pool_free(pool);
}

static void sums_that_are_not_finite_name_their_tensor(void **state)
{
    (void)state;
    struct imatrix_sums s = {0};
    struct err e = {0};
    struct pool *pool = NULL;
    struct model_tensor t = {.name = "blk.3.ffn_up.weight", .ne = {4, 2, 1, 1}};
    const struct model_tensor *list[] = {&t};
    float x[4] = {1, 2, INFINITY, 3};
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    s.pool = pool;
    struct observation o = {list, 1, x, 1, 4, -1, NULL};
    assert_int_equal(imatrix_sums_observe(&s, &o, &e), 0);
    assert_int_equal(imatrix_sums_check(&s, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "blk.3.ffn_up.weight"));
    assert_non_null(strstr(e.msg, "column 2"));
    imatrix_sums_release(&s);
    pool_free(pool);
}

static void experts_count_their_own_tokens(void **state)
{
    (void)state;
    struct imatrix_sums s = {0};
    struct imatrix *m;
    struct err e = {0};
    struct pool *pool = NULL;
    struct model_tensor gate = {.name = "blk.0.ffn_gate_exps.weight", .ne = {2, 8, 3, 1}},
                        up = {.name = "blk.0.ffn_up_exps.weight", .ne = {2, 8, 3, 1}};
    const struct model_tensor *list[] = {&gate, &up};
    const float x[6] = {1, 2, 3, 4, 5, 6};
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    s.pool = pool;
    struct observation o = {list, 2, x, 3, 2, 2, NULL};
    assert_int_equal(imatrix_sums_observe(&s, &o, &e), 0); /* three tokens to expert 2 */
    o = (struct observation){list, 2, x + 2, 1, 2, 0, NULL};
    assert_int_equal(imatrix_sums_observe(&s, &o, &e), 0); /* one to expert 0, twice */
    assert_int_equal(imatrix_sums_observe(&s, &o, &e), 0);
    o.expert = 3;
    assert_int_equal(imatrix_sums_observe(&s, &o, &e), ERR_ARG);
    assert_int_equal(imatrix_sums_finish(&m, &s, &e), 0);
    assert_int_equal(imatrix_n(m), 2);
    for (size_t i = 0; i < 2; i++) {
        static const double sums[6] = {18, 32, 0, 0, 1 + 9 + 25, 4 + 16 + 36}, counts[3] = {2, 0, 3};
        const struct imatrix_entry *y = imatrix_entry_at(m, i);
        assert_string_equal(y->name, i ? up.name : gate.name);
        assert_int_equal(y->n_mats, 3);
        assert_memory_equal(y->sums, sums, sizeof sums);
        assert_memory_equal(y->counts, counts, sizeof counts);
    }
    imatrix_free(m);
    imatrix_sums_release(&s);
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_products_hold_the_squares_of_the_normalised_embedding),
        cmocka_unit_test(the_head_is_collected_on_request),
        cmocka_unit_test(perplexity_is_that_of_an_evaluation),
        cmocka_unit_test(threads_memory_and_waves_do_not_change_a_bit),
        cmocka_unit_test(a_stopped_run_is_resumed_to_the_same_bits),
        cmocka_unit_test(damaged_states_are_refused),
        cmocka_unit_test(rows_of_experts_count_by_the_router_where_that_is_asked),
        cmocka_unit_test(sums_that_are_not_finite_name_their_tensor),
        cmocka_unit_test(experts_count_their_own_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
