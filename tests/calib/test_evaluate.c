/* test_evaluate.c - waves change no figure, stopping leaves honest partial figures, reports say what was
 * found. */
#include "calib/eval/candidate.h"
#include "calib/eval/evaluate.h"
#include "calib/eval/ladder.h"
#include "calib/waves.h"
#include "calib/report/report.h"
#include "formats/json.h"
#include "report_document.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DEMO KERF_TEST_DATA "/demo-qwen3"
#define CTX  128
#define N    150 /* windows: more than one wave */

static struct pool *pool;
static struct candidate ref, same, q4;
static struct windows windows;

static int open_all(void **state)
{
    (void)state;
    struct err e = {0};
    struct candidate_mix_options mix = {.recipe = "llama.cpp"};
    windows = (struct windows){.ctx = CTX, .n = N, .first = CTX / 2, .end = CTX - 1};
    windows.inputs = malloc(N * CTX * sizeof(int32_t));
    windows.targets = malloc(N * windows_n_scored(&windows) * sizeof(int32_t));
    for (uint32_t i = 0; i < N * CTX; i++)
        windows.inputs[i] = (int32_t)((i * 2654435761u >> 16) % 4096);
    for (size_t i = 0; i < N; i++)
        for (size_t k = windows.first; k < windows.end; k++)
            windows.targets[i * windows_n_scored(&windows) + k - windows.first] =
                windows.inputs[i * CTX + k + 1];
    int rc = pool_new(&pool, 2, &e);
    mix.pool = pool;
    if (rc == 0)
        rc = candidate_open_file(&ref, DEMO, NULL, &e);
    if (rc == 0)
        rc = candidate_open_mix(&same, &ref, mix_find("BF16"), &mix, &e);
    if (rc == 0)
        rc = candidate_open_mix(&q4, &ref, mix_find("Q4_K_M"), &mix, &e);
    return rc;
}

static int close_all(void **state)
{
    (void)state;
    candidate_close(&q4);
    candidate_close(&same);
    candidate_close(&ref);
    windows_release(&windows);
    pool_free(pool);
    return 0;
}

static struct evaluate_model model_of(struct candidate *c)
{
    return (struct evaluate_model){
        .name = c->type ? c->type : c->path, .net = &c->net, .weights = c->weights};
}

static void waves_do_not_change_a_bit(void **state)
{
    (void)state;
    /* A mix is run in a single wave; applied at source precision it is the same model. */
    struct evaluate_model a = model_of(&ref), b[2] = {model_of(&ref), model_of(&same)};
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 26};
    struct evaluation x, y;
    assert_true(wave_windows(&windows, 16384) < N);
    assert_int_equal(evaluate(&x, &a, 1, &windows, &opt, NULL), 0);
    assert_int_equal(evaluate(&y, b, 2, &windows, &opt, NULL), 0);
    assert_int_equal(x.n, N * windows_n_scored(&windows));
    assert_false(x.partial);
    assert_memory_equal(x.nll[0], y.nll[0], x.n * sizeof(double));
    assert_memory_equal(x.nll[0], y.nll[1], x.n * sizeof(double));
    for (size_t i = 0; i < y.n; i++)
        assert_true(y.kld[1][i] == 0 && y.same_top[1][i]);
    evaluation_release(&x);
    evaluation_release(&y);
}

struct stopper {
    double at;
    double largest_jump, last;
};

static int stop_at(void *ctx, const struct progress_step *p)
{
    struct stopper *s = ctx;
    double done = progress_share(p);
    assert_true(done >= s->last && done <= 1.0000001);
    s->last = done;
    return done >= s->at;
}

static void a_stop_between_waves_keeps_what_was_finished(void **state)
{
    (void)state;
    struct evaluate_model a = model_of(&ref);
    struct stopper s = {.at = 0.9};
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 26, .progress = {stop_at, &s}};
    struct evaluation x;
    assert_int_equal(evaluate(&x, &a, 1, &windows, &opt, NULL), 0);
    assert_true(x.partial);
    assert_int_equal(x.n_windows, wave_windows(&windows, 16384));
    evaluation_release(&x);
    s = (struct stopper){.at = 0.1};
    struct err e = {0};
    assert_int_equal(evaluate(&x, &a, 1, &windows, &opt, &e), ERR_CANCELLED);
}

static void a_stop_between_candidates_scores_those_that_are_done(void **state)
{
    (void)state;
    struct evaluate_model m[3] = {model_of(&ref), model_of(&same), model_of(&q4)};
    struct stopper s = {.at = 0.6}; /* three models share the first three quarters */
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 26, .progress = {stop_at, &s}};
    struct windows few = windows;
    struct evaluation x;
    few.n = 16;
    assert_int_equal(evaluate(&x, m, 3, &few, &opt, NULL), 0);
    assert_true(x.partial);
    assert_int_equal(x.n_models, 2);
    assert_int_equal(x.n_windows, 16);
    evaluation_release(&x);
}

static double number(const struct json *j, const char *key)
{
    double v = NAN;
    if (!json_number(json_get(j, key), &v))
        fail_msg("key '%s' is missing or not a number", key);
    return v;
}

static void reports_say_what_was_found(void **state)
{
    (void)state;
    struct evaluate_model m[2] = {model_of(&ref), model_of(&q4)};
    struct evaluate_options opt = {.pool = pool, .memory_bytes = 1 << 26};
    struct windows few = windows;
    struct evaluation x;
    struct corpus_text text = {.path = "a<b>&\"c\".txt", .end = 16 * CTX};
    struct corpus corpus = {.texts = &text, .n_texts = 1};
    struct report r = {.kind = REPORT_COMPARE, .version = "1", .architecture = "qwen3", .corpus = &corpus};
    few.n = 16;
    assert_int_equal(evaluate(&x, m, 2, &few, &opt, NULL), 0);
    assert_int_equal(report_take(&r, &x, &few, NULL), 0);
    r.reference.path = "demo";
    r.candidates[0].path = "demo";
    r.candidates[0].type = "Q4_K_M";
    r.candidates[0].bits_per_weight = q4.bits_per_weight;

    char *out = NULL;
    struct json_doc *doc = report_document(&r, &out);
    const struct json *c = json_first(json_get(json_root(doc), "candidates"));
    assert_true(fabs(number(c, "kld_mean") - r.candidates[0].d.kld.value) < 1e-15);
    assert_true(number(c, "kld_mean") > 0.001 && number(c, "kld_mean") < 0.1);
    assert_true(number(c, "kld_median") < number(c, "kld_p90") &&
                number(c, "kld_p99") < number(c, "kld_max"));
    assert_true(number(c, "top1_agreement") > 0.5);
    assert_true(number(json_get(json_root(doc), "reference"), "n_tokens_scored") == 16 * 63);
    json_free(doc);
    free(out);

    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    report_html(&r, f);
    fclose(f);
    assert_non_null(
        strstr(out, "a&lt;b&gt;&amp;&quot;c&quot;.txt")); /* names from outside cannot become markup */
    assert_null(strstr(out, "a<b>"));
    free(out);

    f = open_memstream(&out, &n);
    report_text(&r, f);
    fclose(f);
    assert_non_null(strstr(out, "Q4_K_M"));
    free(out);
    report_release(&r);
    evaluation_release(&x);
}

static double kld_of(const struct report_model *c)
{
    return c->d.kld.value;
}
static double top1_of(const struct report_model *c)
{
    return c->d.top1.value;
}

/* A figure that is missed is missed whatever was left out; one that is met may still be missed. */
static void names_tell_candidates_apart(void **state)
{
    (void)state;
    static const struct {
        const char *path[4], *type, *want[4];
    } cases[] = {
        {{"x/a.gguf", "y/b.gguf", "z/ab.gguf"}, NULL, {"a.gguf", "b.gguf", "ab.gguf"}},
        {{"a/m.gguf", "b/m.gguf", "c/n.gguf"}, NULL, {"a/m.gguf", "b/m.gguf", "n.gguf"}},
        {{"a/r/m.gguf", "b/r/m.gguf", "a/s/m.gguf"}, NULL, {"a/r/m.gguf", "b/r/m.gguf", "s/m.gguf"}},
        {{"m.gguf", "a/m.gguf", "/m.gguf"}, NULL, {"m.gguf", "a/m.gguf", "/m.gguf"}},
        {{"a/m.gguf", "a/m.gguf"}, NULL, {"m.gguf", "m.gguf"}}, /* one file twice */
        {{"a/m.gguf", "b/m.gguf"}, "Q4_K_M", {"Q4_K_M", "m.gguf"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct report_model c[4] = {{.path = NULL}};
        struct report r = {.candidates = c};
        for (; r.n_candidates < 4 && cases[i].path[r.n_candidates]; r.n_candidates++)
            c[r.n_candidates].path = cases[i].path[r.n_candidates];
        c[0].type = cases[i].type;
        report_name_candidates(&r);
        for (size_t k = 0; k < r.n_candidates; k++)
            assert_string_equal(report_name(&c[k]), cases[i].want[k]);
    }
}

static void gates_are_judged_and_reported(void **state)
{
    (void)state;
    static const struct report_gate gates[] = {{"max-kld", "mean KLD", kld_of, 0.02, false},
                                               {"min-top1", "top-1", top1_of, 0.9, true}};
    static const struct {
        double kld, top1;
        bool partial, planned;
        enum report_verdict want[3]; /* of the gates, of all */
    } cases[] = {{0.02, 0.9, false, false, {REPORT_MET, REPORT_MET, REPORT_MET}},
                 {0.021, 0.95, false, false, {REPORT_MISSED, REPORT_MET, REPORT_MISSED}},
                 {0.01, 0.89, false, false, {REPORT_MET, REPORT_MISSED, REPORT_MISSED}},
                 {NAN, 0.95, false, false, {REPORT_MISSED, REPORT_MET, REPORT_MISSED}},
                 {0.01, 0.95, true, false, {REPORT_OPEN, REPORT_OPEN, REPORT_OPEN}},
                 {0.03, 0.95, true, false, {REPORT_MISSED, REPORT_OPEN, REPORT_MISSED}},
                 {NAN, NAN, false, true, {REPORT_OPEN, REPORT_OPEN, REPORT_OPEN}}};
    struct corpus corpus = {.n_texts = 0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct report_model c[2] = {{.path = "a"}, {.path = "b"}};
        struct report r = {.kind = REPORT_COMPARE,
                           .version = "0",
                           .reference = {.path = "r"},
                           .corpus = &corpus,
                           .partial = cases[i].partial,
                           .planned = cases[i].planned,
                           .candidates = c,
                           .n_candidates = 2,
                           .gates = gates,
                           .n_gates = 2};
        c[0].d.top1.value = 1;
        c[1].d.kld.value = cases[i].kld;
        c[1].d.top1.value = cases[i].top1;
        for (size_t k = 0; k < 2; k++)
            assert_int_equal(report_judge(&r, &gates[k], &c[1]), cases[i].want[k]);
        assert_int_equal(report_judge_all(&r), cases[i].want[2]);

        char *out = NULL;
        struct json_doc *doc = report_document(&r, &out);
        const struct json *gate =
            json_first(json_get(json_next(json_first(json_get(json_root(doc), "candidates"))), "gates"));
        const struct json *met[3] = {json_get(gate, "met"), json_get(json_next(gate), "met"),
                                     json_get(json_root(doc), "gates_met")};
        assert_string_equal(json_string(json_get(gate, "gate")), "max-kld");
        assert_true(number(gate, "limit") == 0.02);
        assert_true(isnan(cases[i].kld) ? json_is_null(json_get(gate, "found"))
                                        : number(gate, "found") == cases[i].kld);
        for (size_t k = 0; k < 3; k++) {
            bool yes = false;
            if (cases[i].want[k] == REPORT_OPEN)
                assert_true(json_is_null(met[k]));
            else
                assert_true(json_bool(met[k], &yes) && yes == (cases[i].want[k] == REPORT_MET));
        }
        json_free(doc);
        free(out);
        static const char *const verdicts[] = {">met<", ">not met<", ">open: the run was stopped<"};
        size_t n = 0;
        FILE *f = open_memstream(&out, &n);
        report_html(&r, f);
        fclose(f);
        const char *row = strstr(out, "<h2>Gates</h2>");
        for (size_t k = 0; k < 2; k++) {
            row = row ? strstr(row, k ? "<td>b</td><td>top-1</td><td>at least 0.9<"
                                      : "<td>b</td><td>mean KLD</td><td>at most 0.02<")
                      : NULL;
            assert_non_null(row);
            const char *end = strstr(row, "</tr>"), *verdict = strstr(row, verdicts[cases[i].want[k]]);
            assert_true(verdict && verdict < end);
        }
        free(out);
    }
}

static void lists_of_levels_are_read(void **state)
{
    (void)state;
    const struct mix **list = NULL;
    size_t n = 0;
    char unknown[64];
    struct err e = {0};
    assert_int_equal(ladder_parse_types(&list, &n, NULL, unknown, &e), 0);
    assert_int_equal(n, ladder_n_default_types);
    free(list);
    assert_int_equal(ladder_parse_types(&list, &n, "q8_0, Q2_K", unknown, &e), 0);
    assert_int_equal(n, 2);
    assert_string_equal(list[1]->name, "Q2_K");
    free(list);
    assert_int_equal(ladder_parse_types(&list, &n, "Q4_K_M,nonsense", unknown, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "nonsense"));
    assert_string_equal(unknown, "nonsense");
    assert_int_equal(ladder_parse_types(&list, &n, " ,", unknown, &e), ERR_ARG);
    assert_string_equal(unknown, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waves_do_not_change_a_bit),
        cmocka_unit_test(a_stop_between_waves_keeps_what_was_finished),
        cmocka_unit_test(a_stop_between_candidates_scores_those_that_are_done),
        cmocka_unit_test(reports_say_what_was_found),
        cmocka_unit_test(names_tell_candidates_apart),
        cmocka_unit_test(gates_are_judged_and_reported),
        cmocka_unit_test(lists_of_levels_are_read),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
