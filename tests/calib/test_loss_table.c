/* test_loss_table.c - which tensors and types a table has; proxies against rows encoded by hand; measured
 * losses against a whole evaluation of the same model; interpolation; the file, and what it refuses; the same
 * bits for any threads. Also that a pass in spans is the pass as a whole. */
#include "calib/eval/evaluate.h"
#include "calib/model/forward.h"
#include "calib/solve/loss_table.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/quant.h"
#include "toy_net.h"

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

#define CTX       48
#define N_WINDOWS 3

static struct toy_net toy;
static struct pool *pool;
static struct windows windows;
static int32_t inputs[N_WINDOWS * CTX], targets[N_WINDOWS * CTX / 2];

static const enum qtype types[] = {QTYPE_Q2_K, QTYPE_Q4_K, QTYPE_Q6_K};
#define N_TYPES 3

static int setup(void **state)
{
    (void)state;
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    spec.tied = false;
    spec.ffn = 288; /* rows of ffn_down have no 256-blocks */
    toy_net_open(&toy, &spec, NULL);
    check(pool_new(&pool, 2, &e), &e);
    for (size_t i = 0; i < N_WINDOWS * CTX; i++)
        inputs[i] = (int32_t)((i * i * 31 + 7 * i + 11) % toy.net.n_vocab);
    windows = toy_windows(CTX, N_WINDOWS, inputs, targets);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    toy_net_close(&toy);
    pool_free(pool);
    return 0;
}

static struct imatrix *importance(void)
{
    struct imatrix *m = NULL;
    assert_int_equal(imatrix_new(&m, NULL), 0);
    for (size_t i = 0; i < model_n_tensors(toy.model); i++) {
        const struct model_tensor *t = model_tensor(toy.model, i);
        struct imatrix_entry *entry = NULL;
        if (strncmp(t->name, "blk.", 4) != 0 || t->n_dims < 2)
            continue;
        assert_int_equal(imatrix_add(m, t->name, t->ne[0], 1, &entry, NULL), 0);
        for (uint64_t k = 0; k < t->ne[0]; k++)
            entry->sums[k] = (double)(k % 17 + 1);
        entry->counts[0] = 4;
    }
    return m;
}

static struct loss_tensor *find(struct loss_table *t, const char *name)
{
    for (size_t i = 0; i < t->n_tensors; i++)
        if (strcmp(t->tensors[i].tensor->name, name) == 0)
            return &t->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void measure(struct loss_table *t, const struct imatrix *m, unsigned threads, const enum qtype *probes,
                    size_t n_probes)
{
    struct err e = {0};
    struct pool *p = NULL;
    check(pool_new(&p, threads, &e), &e);
    struct loss_measure opt = {.pool = p, .memory_bytes = 1 << 26, .probes = probes, .n_probes = n_probes};
    check(loss_table_init(t, toy.model, m, types, N_TYPES, &e), &e);
    check(loss_table_measure(t, &toy.net, toy.base, &windows, &opt, &e), &e);
    pool_free(p);
}

static void a_pass_in_spans_is_the_whole_pass(void **state)
{
    (void)state;
    struct err e = {0};
    for (int in_file = 0; in_file < 2; in_file++) {
        struct hidden_states *whole = NULL, *first = NULL, *second = NULL, *last = NULL;
        struct forward_options opt = {.pool = pool, .memory_bytes = in_file ? 1 : 1 << 26, .keep_end = CTX};
        struct forward_span a = {NULL, 0, 0}, b = {NULL, 0, 1}, c = {NULL, 1, 2};
        check(forward_run(&whole, &toy.net, toy.base, inputs, N_WINDOWS, CTX, &opt, &e), &e);
        check(forward_run_span(&first, &toy.net, toy.base, inputs, N_WINDOWS, CTX, &a, &opt, &e), &e);
        b.from = first;
        check(forward_run_span(&second, &toy.net, toy.base, inputs, N_WINDOWS, CTX, &b, &opt, &e), &e);
        c.from = second;
        check(forward_run_span(&last, &toy.net, toy.base, inputs, N_WINDOWS, CTX, &c, &opt, &e), &e);
        size_t n = N_WINDOWS * CTX * toy.net.n_embd;
        float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y), *p = NULL, *q = NULL;
        check(hidden_states_get(whole, 0, N_WINDOWS * CTX, x, &p, &e), &e);
        check(hidden_states_get(last, 0, N_WINDOWS * CTX, y, &q, &e), &e);
        assert_memory_equal(p, q, n * sizeof *x);
        assert_int_equal(hidden_states_n_rows(second), N_WINDOWS * CTX);
        free(x);
        free(y);
        hidden_states_free(whole);
        hidden_states_free(first);
        hidden_states_free(second);
        hidden_states_free(last);
    }
    struct forward_options opt = {.pool = pool, .memory_bytes = 1 << 26, .keep_end = CTX};
    struct hidden_states *none = NULL;
    assert_int_equal(forward_run_span(&none, &toy.net, toy.base, inputs, N_WINDOWS, CTX,
                                      &(struct forward_span){NULL, 1, 2}, &opt, &e),
                     ERR_ARG);
    assert_int_equal(forward_run_span(&none, &toy.net, toy.base, inputs, N_WINDOWS, CTX,
                                      &(struct forward_span){NULL, 0, 3}, &opt, &e),
                     ERR_ARG);
}

static void tensors_and_types(void **state)
{
    (void)state;
    struct err e = {0};
    struct loss_table t = {0};
    check(loss_table_init(&t, toy.model, NULL, types, N_TYPES, &e), &e);
    assert_int_equal(t.n_tensors, 2 * 7 + 2);
    const struct loss_tensor *q = find(&t, "blk.0.attn_q.weight"), *down = find(&t, "blk.1.ffn_down.weight");
    assert_int_equal(q->n_options, 4); /* the three, and BF16 */
    assert_int_equal(q->options[0].type, QTYPE_Q2_K);
    assert_int_equal(q->options[3].type, QTYPE_BF16);
    assert_true(q->options[3].loss == 0 && q->options[3].proxy == 0);
    assert_int_equal(q->options[1].n_bytes, q->tensor->n_rows * q->tensor->ne[0] / 256 * 144);
    assert_int_equal(down->n_options, 4); /* fallbacks Q4_0, Q5_0, Q8_0 */
    assert_int_equal(down->options[0].type, QTYPE_Q4_0);
    assert_int_equal(down->options[1].type, QTYPE_Q5_0);
    assert_int_equal(down->options[2].type, QTYPE_Q8_0);
    for (size_t i = 1; i < t.n_tensors; i++)
        assert_true(strcmp(t.tensors[i - 1].tensor->name, t.tensors[i].tensor->name) < 0);
    loss_table_release(&t);
    const enum qtype none[] = {QTYPE_I8};
    assert_int_equal(loss_table_init(&t, toy.model, NULL, none, 1, &e), ERR_ARG);
    assert_int_equal(loss_table_init(&t, toy.model, NULL, none, 0, &e), ERR_ARG);
}

static void proxies_are_weighted_errors_of_encoded_rows(void **state)
{
    (void)state;
    struct err e = {0};
    struct imatrix *m = importance();
    struct loss_table t = {0};
    struct loss_measure opt = {.pool = pool, .memory_bytes = 1 << 26};
    check(loss_table_init(&t, toy.model, m, types, N_TYPES, &e), &e);
    check(loss_table_proxies(&t, &windows, &opt, 1, &e), &e);
    const struct loss_tensor *q = find(&t, "blk.1.attn_q.weight");
    size_t n = (size_t)q->tensor->n_rows, cols = (size_t)q->tensor->ne[0];
    float *rows = malloc(n * cols * sizeof *rows), *back = malloc(n * cols * sizeof *back),
          *weights = malloc(cols * sizeof *weights);
    uint8_t *blocks = malloc(n * cols * 4);
    check(model_read_rows(toy.model, q->tensor, 0, n, rows, &e), &e);
    check(imatrix_weights(q->importance, 0, 1, cols, weights, &e), &e);
    for (int i = 0; i < N_TYPES; i++) {
        size_t n_bytes = (size_t)q->options[i].n_bytes;
        check(quant_encode_rows(kern_native(), types[i], rows, blocks, n_bytes, n, cols, weights, &e), &e);
        check(quant_decode_rows(kern_native(), types[i], blocks, n_bytes, back, n, cols, &e), &e);
        double sum = 0;
        for (size_t k = 0; k < n * cols; k++) {
            /* sums k % 17 + 1 over 4 tokens; one token of the mean is added */
            double v = ((double)(k % cols % 17 + 1) + (double)(k % cols % 17 + 1) / 4) / (4 + 1);
            sum += v * ((double)rows[k] - back[k]) * ((double)rows[k] - back[k]);
        }
        assert_true(fabs(q->options[i].proxy / sum - 1) < 1e-9);
    }
    free(rows);
    free(back);
    free(weights);
    free(blocks);
    loss_table_release(&t);
    imatrix_free(m);
}

/* Mean divergence of the model with one tensor in a type, by evaluate(). */
static double whole_evaluation(const char *pattern, enum qtype type, const struct imatrix *m)
{
    struct err e = {0};
    struct recipe_override only = {pattern, type};
    struct recipe_options recipe = {
        .recipe = "llama.cpp", .overrides = &only, .n_overrides = 1, .has_imatrix = true};
    struct weights *w = NULL;
    check(weights_new_mix(&w, toy.model, &recipe, m, false, NULL, &e), &e);
    double sum = toy_divergence(&toy, w, &windows, pool);
    weights_free(w);
    return sum;
}

static void measured_losses_are_those_of_an_evaluation(void **state)
{
    (void)state;
    struct imatrix *m = importance();
    struct loss_table t = {0};
    const enum qtype probes[] = {QTYPE_Q2_K};
    static const struct {
        const char *name, *pattern;
        enum qtype type;
    } cases[] = {
        {"blk.0.attn_v.weight", "^blk\\.0\\.attn_v\\.weight$", QTYPE_Q2_K},
        {"blk.1.ffn_up.weight", "^blk\\.1\\.ffn_up\\.weight$", QTYPE_Q2_K},
        {"blk.1.ffn_down.weight", "^blk\\.1\\.ffn_down\\.weight$", QTYPE_Q4_0}, /* no probe: its first */
        {"token_embd.weight", "^token_embd\\.weight$", QTYPE_Q2_K},
        {"output.weight", "^output\\.weight$", QTYPE_Q2_K},
    };
    measure(&t, m, 2, probes, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct loss_option *o = loss_table_option(find(&t, cases[i].name), cases[i].type);
        double want = whole_evaluation(cases[i].pattern, cases[i].type, m);
        assert_non_null(o);
        if (!(fabs(o->kld / want - 1) < 0.006)) /* three digits */
            fail_msg("%s: %g, evaluation %g", cases[i].name, o->kld, want);
        assert_true(o->loss > 0 && o->kld_stderr > 0);
    }
    for (size_t i = 0; i < t.n_tensors; i++)
        for (size_t o = 0; o < t.tensors[i].n_options; o++)
            assert_true(isfinite(t.tensors[i].options[o].loss) && t.tensors[i].options[o].loss >= 0);
    loss_table_release(&t);
    imatrix_free(m);
}

static void losses_between_probes_follow_the_error(void **state)
{
    (void)state;
    struct err e = {0};
    struct loss_table t = {0};
    const enum qtype four[] = {QTYPE_Q2_K, QTYPE_Q3_K, QTYPE_Q4_K, QTYPE_Q6_K};
    check(loss_table_init(&t, toy.model, NULL, four, 4, &e), &e);
    for (size_t i = 0; i < t.n_tensors; i++) {
        struct loss_option *o = t.tensors[i].options;
        for (size_t k = 0; k + 1 < t.tensors[i].n_options; k++)
            o[k].proxy = pow(10, -(double)k);
    }
    struct loss_option *a = find(&t, "blk.0.attn_q.weight")->options,
                       *b = find(&t, "blk.0.attn_k.weight")->options,
                       *c = find(&t, "blk.0.attn_v.weight")->options;
    a[0].kld = 0.4; /* two probes, a hundredfold apart in error, 64 in loss: 8 for each step */
    a[2].kld = 0.4 / 64;
    a[0].kld_stderr = a[2].kld_stderr = 1e-4;
    b[0].kld = 0.5; /* one probe: proportional */
    b[0].kld_stderr = 0.01;
    c[0].kld = 1e-3; /* lost in noise: an upper bound */
    c[0].kld_stderr = 1e-3;
    loss_table_fit(&t);
    assert_true(fabs(a[1].loss - 0.05) < 1e-9);
    assert_true(fabs(a[3].loss - 0.4 / 512) < 1e-5); /* beyond: the same power, three digits */
    assert_true(fabs(b[2].loss - 0.005) < 1e-9);
    assert_true(fabs(c[1].loss - 2e-4) < 1e-9);
    const struct loss_option *d =
        find(&t, "output.weight")->options; /* nothing known: the middle of the others */
    assert_true(d[0].loss > 0 && isfinite(d[0].loss));
    loss_table_release(&t);
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = calloc(1, 1 << 20);
    *n = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static void the_same_file_for_any_threads_and_back(void **state)
{
    (void)state;
    struct err e = {0};
    struct imatrix *m = importance();
    struct loss_table t[3] = {{0}};
    const enum qtype probes[] = {QTYPE_Q2_K, QTYPE_Q4_K};
    char path[3][128], *text[3];
    size_t n[3];
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/table%d.json", toy.folder, i);
        measure(&t[i], m, i ? 3 : 1, probes, 2);
        check(loss_table_save(&t[i], path[i], false, &e), &e);
    }
    check(loss_table_init(&t[2], toy.model, m, types, N_TYPES, &e), &e);
    check(loss_table_load(&t[2], path[0], &e), &e);
    snprintf(path[2], sizeof path[2], "%s/table2.json", toy.folder);
    check(loss_table_save(&t[2], path[2], false, &e), &e);
    for (int i = 0; i < 3; i++)
        text[i] = slurp(path[i], &n[i]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(text[0], text[1], n[0]);
    assert_int_equal(n[0], n[2]);
    assert_memory_equal(text[0], text[2], n[0]);
    for (int i = 0; i < 3; i++) {
        free(text[i]);
        loss_table_release(&t[i]);
    }
    imatrix_free(m);
}

static void spill(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void refuse(const char *path, const char *text, const struct imatrix *m, const enum qtype *list,
                   size_t n, const char *why)
{
    struct err e = {0};
    struct loss_table t = {0};
    if (text) {
        spill(path, text);
    }
    check(loss_table_init(&t, toy.model, m, list, n, &e), &e);
    assert_int_not_equal(loss_table_load(&t, path, &e), 0);
    if (!strstr(e.msg, why))
        fail_msg("'%s' does not say '%s'", e.msg, why);
    loss_table_release(&t);
}

static void files_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct imatrix *m = importance();
    struct loss_table t = {0};
    const enum qtype more[] = {QTYPE_Q2_K, QTYPE_Q5_K};
    char path[128], bad[128], text[256];
    snprintf(path, sizeof path, "%s/good.json", toy.folder);
    snprintf(bad, sizeof bad, "%s/bad.json", toy.folder);
    check(loss_table_init(&t, toy.model, m, types, N_TYPES, &e), &e);
    for (size_t i = 0; i < t.n_tensors; i++)
        for (size_t o = 0; o < t.tensors[i].n_options; o++)
            t.tensors[i].options[o].proxy = t.tensors[i].options[o].loss = 1;
    check(loss_table_save(&t, path, false, &e), &e);
    refuse(path, NULL, NULL, types, N_TYPES, "another importance matrix");
    refuse(path, NULL, m, more, 2, "was not measured as Q5_");
    refuse(bad, "[1]", m, types, N_TYPES, "not a loss table");
    refuse(bad, "{\"kerf_loss_table\": 2}", m, types, N_TYPES, "version 2");
    refuse(bad, "{\"kerf_loss_table\": 1, \"weights_sha256\": \"00\"}", m, types, N_TYPES, "other weights");
    snprintf(text, sizeof text,
             "{\"kerf_loss_table\": 1, \"weights_sha256\": \"%s\", \"imatrix_sha256\": \"%s\"}",
             t.weights_sha256, t.imatrix_sha256);
    refuse(bad, text, m, types, N_TYPES, "has no losses of tensor 'blk.0.attn_k.weight'");
    t.tensors[3].options[1].loss = NAN;
    check(loss_table_save(&t, bad, true, &e), &e);
    refuse(bad, NULL, m, types, N_TYPES, "a figure is missing");
    t.tensors[3].options[1].loss = -1;
    check(loss_table_save(&t, bad, true, &e), &e);
    refuse(bad, NULL, m, types, N_TYPES, "negative");
    loss_table_release(&t);
    imatrix_free(m);
}

static int stop(void *ctx, const struct progress_step *s)
{
    return progress_share(s) > *(double *)ctx;
}

static void a_run_can_be_stopped(void **state)
{
    (void)state;
    const double when[] = {0.01, 0.2, 0.9};
    for (int i = 0; i < 3; i++) {
        struct err e = {0};
        struct loss_table t = {0};
        double limit = when[i];
        struct loss_measure opt = {.pool = pool, .memory_bytes = 1 << 26, .progress = {stop, &limit}};
        check(loss_table_init(&t, toy.model, NULL, types, N_TYPES, &e), &e);
        assert_int_equal(loss_table_measure(&t, &toy.net, toy.base, &windows, &opt, &e), ERR_CANCELLED);
        loss_table_release(&t);
    }
}

/* Stopped again and again, each time a few steps further on, and continued: the bytes of a run in one go. */
static void a_stopped_run_continues_to_the_same_file(void **state)
{
    (void)state;
    struct err e = {0};
    struct imatrix *m = importance();
    struct loss_table whole = {0};
    const enum qtype probes[] = {QTYPE_Q2_K, QTYPE_Q4_K};
    char kept[128], path[2][128], *text[2];
    size_t n[2], n_stops = 0, n_known = 0, n_all = 0, last = 0;
    snprintf(kept, sizeof kept, "%s/stopped.kerf-state", toy.folder);
    snprintf(path[0], sizeof path[0], "%s/whole.json", toy.folder);
    snprintf(path[1], sizeof path[1], "%s/continued.json", toy.folder);
    measure(&whole, m, 2, probes, 2);
    check(loss_table_save(&whole, path[0], false, &e), &e);
    for (int rc = ERR_CANCELLED; rc == ERR_CANCELLED; n_stops++) {
        struct loss_table t = {0};
        int steps = 10 + 6 * (int)n_stops;
        struct loss_measure opt = {.pool = pool,
                                   .memory_bytes = 1 << 26,
                                   .probes = probes,
                                   .n_probes = 2,
                                   .progress = {stop_after_steps, &steps},
                                   .state_path = kept,
                                   .state_seconds = n_stops % 2 ? 0 : 1000};
        check(loss_table_init(&t, toy.model, m, types, N_TYPES, &e), &e);
        const enum loss_kept expected = n_stops > 0 ? LOSS_KEPT_TAKEN : LOSS_KEPT_NOTHING;
        enum loss_kept found;
        check(loss_table_continue(&found, &t, kept, &windows, &e), &e);
        assert_int_equal(found, expected);
        loss_table_count(&t, &opt, &n_known, &n_all);
        assert_true(n_known >= last && n_known <= n_all);
        last = n_known;
        rc = loss_table_measure(&t, &toy.net, toy.base, &windows, &opt, &e);
        assert_true(t.is_kept);
        if (rc != ERR_CANCELLED)
            check(rc, &e);
        if (rc == 0)
            check(loss_table_save(&t, path[1], false, &e), &e);
        loss_table_release(&t);
        assert_true(n_stops < 100);
    }
    assert_true(n_stops > 3 && last > 0); /* some of the stops were between measurements */
    for (int i = 0; i < 2; i++)
        text[i] = slurp(path[i], &n[i]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(text[0], text[1], n[0]);
    loss_table_release(&whole);
    free(text[0]);
    free(text[1]);
    imatrix_free(m);
}

/* What a run that was stopped in the middle has kept. */
static void keep(const char *path, const struct imatrix *m)
{
    struct err e = {0};
    struct loss_table t = {0};
    double limit = 0.5;
    const struct loss_measure opt = {
        .pool = pool, .memory_bytes = 1 << 26, .progress = {stop, &limit}, .state_path = path};
    check(loss_table_init(&t, toy.model, m, types, N_TYPES, &e), &e);
    assert_int_equal(loss_table_measure(&t, &toy.net, toy.base, &windows, &opt, &e), ERR_CANCELLED);
    assert_true(t.is_kept);
    loss_table_release(&t);
}

/* It is not taken up, for this reason, and no figure of it is. */
static void not_taken(const char *path, const struct imatrix *m, const struct windows *w,
                      enum loss_kept expected, const char *why)
{
    struct err e = {0};
    struct loss_table t = {0};
    enum loss_kept found;
    check(loss_table_init(&t, toy.model, m, types, N_TYPES, &e), &e);
    check(loss_table_continue(&found, &t, path, w, &e), &e);
    assert_int_equal(found, expected);
    if (!strstr(e.msg, path) || !strstr(e.msg, why))
        fail_msg("'%s' does not say '%s'", e.msg, why);
    assert_null(strchr(e.msg, ';')); /* what to do about it is for the caller to say */
    for (size_t i = 0; i < t.n_tensors; i++)
        assert_true(isnan(t.tensors[i].options[0].proxy) && isnan(t.tensors[i].options[0].kld));
    loss_table_release(&t);
}

static void what_is_kept_is_for_the_same_run(void **state)
{
    (void)state;
    struct err e = {0};
    struct imatrix *m = importance();
    struct loss_table whole = {0};
    struct windows fewer = windows;
    char kept[128], path[128];
    snprintf(kept, sizeof kept, "%s/half.kerf-state", toy.folder);
    snprintf(path, sizeof path, "%s/table.json", toy.folder);
    fewer.n--;
    keep(kept, m);
    refuse(kept, NULL, m, types, N_TYPES, "what a stopped run has kept");
    not_taken(kept, m, &fewer, LOSS_KEPT_UNFIT, "another text");
    not_taken(kept, NULL, &windows, LOSS_KEPT_UNFIT, "another importance matrix");
    measure(&whole, m, 2, &types[0], 1);
    check(loss_table_save(&whole, path, false, &e), &e);
    not_taken(path, m, &windows, LOSS_KEPT_UNFIT, "a whole table");
    loss_table_release(&whole);
    imatrix_free(m);
}

static void damaged_and_strange_files_are_not_taken_up(void **state)
{
    (void)state;
    struct imatrix *m = importance();
    char kept[128], strange[128];
    size_t n;
    snprintf(kept, sizeof kept, "%s/half.kerf-state", toy.folder);
    snprintf(strange, sizeof strange, "%s/strange.kerf-state", toy.folder);
    keep(kept, m);
    char *text = slurp(kept, &n), *figure = strstr(strstr(text, "blk.1."), "\"proxy\": ") + 9;
    FILE *f = fopen(kept, "wb");
    assert_non_null(f);
    fprintf(f, "%.*s-%s", (int)(figure - text), text, figure);
    fclose(f);
    not_taken(kept, m, &windows, LOSS_KEPT_UNFIT, "a figure is missing, negative or not a number");
    spill(kept, "{\"kerf_loss_table\": 2}");
    not_taken(kept, m, &windows, LOSS_KEPT_UNFIT, "version 2");
    spill(strange, "[1]");
    not_taken(strange, m, &windows, LOSS_KEPT_STRANGE, "not a loss table");
    spill(strange, "mine");
    not_taken(strange, m, &windows, LOSS_KEPT_STRANGE, "");
    free(text);
    imatrix_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_in_spans_is_the_whole_pass),
        cmocka_unit_test(tensors_and_types),
        cmocka_unit_test(proxies_are_weighted_errors_of_encoded_rows),
        cmocka_unit_test(measured_losses_are_those_of_an_evaluation),
        cmocka_unit_test(losses_between_probes_follow_the_error),
        cmocka_unit_test(the_same_file_for_any_threads_and_back),
        cmocka_unit_test(files_that_do_not_fit_are_refused),
        cmocka_unit_test(a_stopped_run_continues_to_the_same_file),
        cmocka_unit_test(what_is_kept_is_for_the_same_run),
        cmocka_unit_test(damaged_and_strange_files_are_not_taken_up),
        cmocka_unit_test(a_run_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
