/* test_answers.c - embeddings and scores against HuggingFace; texts are cut, sorted and padded without a
 * trace in the answers; the same bits for any threads and memory; what a stopped run keeps; order agreement.
 */
#include "calib/eval/answer_change.h"
#include "calib/eval/candidate.h"
#include "calib/eval/rank.h"
#include "calib/report/report.h"
#include "calib/model/answer.h"
#include "calib/model/forward.h"
#include "formats/json.h"
#include "libquant/base/rng.h"
#include "report_document.h"
#include "toy_family.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_IDS 64

struct scene {
    char folder[32];
    struct pool *pool;
    struct candidate ref, q4, q8;
};

static void remove_folder(const char *folder)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void open_scene(struct scene *s, const char *name, unsigned threads)
{
    struct err e = {0};
    *s = (struct scene){0};
    strcpy(s->folder, "kerf-toy-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    if (toy_family_write(s->folder, name, &e) || pool_new(&s->pool, threads, &e) ||
        candidate_open_file(&s->ref, s->folder, NULL, &e))
        fail_msg("%s", e.msg);
    struct candidate_mix_options mix = {.recipe = "llama.cpp", .pool = s->pool};
    if (candidate_open_mix(&s->q8, &s->ref, mix_find("Q8_0"), &mix, &e) ||
        candidate_open_mix(&s->q4, &s->ref, mix_find("Q4_0"), &mix, &e))
        fail_msg("%s", e.msg);
}

static void close_scene(struct scene *s)
{
    candidate_close(&s->q4);
    candidate_close(&s->q8);
    candidate_close(&s->ref);
    pool_free(s->pool);
    remove_folder(s->folder);
}

/* A corpus of texts of these lengths; ids depend on the position alone, so a short text begins a longer one.
 */
static void make_corpus(struct corpus *c, const size_t *lengths, size_t n)
{
    struct err e = {0};
    int32_t ids[4096];
    size_t at = 0;
    *c = (struct corpus){0};
    for (size_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < lengths[i]; k++)
            ids[at++] = (int32_t)((31 * k * k + 7 * k + 11) % 317);
        assert_int_equal(corpus_end_record(c, at, &e), 0);
    }
    assert_int_equal(corpus_add_tokens(c, "texts", ids, at, NULL, 0, &e), 0);
}

static void cut(struct passages *p, const size_t *lengths, size_t n, const struct passage_options *opt)
{
    struct corpus c;
    struct err e = {0};
    make_corpus(&c, lengths, n);
    if (passages_cut(p, &c, opt, &e))
        fail_msg("%s", e.msg);
    corpus_release(&c);
}

/* The answers of one text, run beside longer and shorter ones. */
static size_t answers_of(double *out, const struct scene *s, size_t len, int32_t step)
{
    struct err e = {0};
    struct passages p;
    struct hidden_states *states = NULL;
    const struct net *net = &s->ref.net;
    size_t lengths[] = {3, len, len + 5}, n = 0;
    cut(&p, lengths, 3, &(struct passage_options){.ctx = MAX_IDS, .eos = -1, .step = step});
    assert_int_equal(passages_group(&p, 0), 3);
    size_t padded = p.items[0].len, at = 0;
    int32_t *rows = passages_rows(&p, 0, 3);
    struct forward_options f = {.pool = s->pool, .memory_bytes = 1 << 26, .keep_end = padded};
    if (forward_run(&states, net, s->ref.weights, rows, 3, padded, &f, &e))
        fail_msg("%s", e.msg);
    while (p.items[at].len != len)
        at++;
    if (net->answer == NET_EMBEDDING) {
        float *y = malloc(2 * net->n_embd * sizeof *y);
        assert_int_equal(answer_embedding(y, net, states, at * padded, len, y + net->n_embd, &e), 0);
        for (n = 0; n < net->n_embd; n++)
            out[n] = (double)y[n];
        free(y);
    } else {
        size_t list[MAX_IDS];
        for (; n < p.items[at].n_points; n++)
            list[n] = at * padded + p.points[p.items[at].first_point + n];
        assert_int_equal(answer_scores(out, net, s->ref.weights, states, list, n,
                                       &(struct answer_options){.pool = s->pool}, &e),
                         0);
    }
    hidden_states_free(states);
    free(rows);
    passages_release(&p);
    return n;
}

static void check_answers(const char *name, size_t len, char *numbers)
{
    struct scene s;
    double found[MAX_IDS * 2], worst = 0;
    bool steps = strcmp(name, "stepreward") == 0;
    open_scene(&s, name, 2);
    size_t n = steps ? 0 : answers_of(found, &s, len, -1), i = 0;
    for (size_t k = 1; steps && k <= len; k++) /* each token is the last one of a text */
        n += answers_of(found + n, &s, k, -1);
    for (char *p = strtok(numbers, " \n"); p; p = strtok(NULL, " \n"), i++) {
        assert_true(i < n);
        worst = fmax(worst, fabs(found[i] - strtod(p, NULL)));
    }
    assert_int_equal(i, n);
    if (!(worst < 1e-5))
        fail_msg("%s of %zu tokens: off by %g", name, len, worst);
    close_scene(&s);
}

static void answers_are_those_of_the_reference(void **state)
{
    (void)state;
    FILE *f = fopen(KERF_TEST_GOLDEN "/answers.txt", "r");
    assert_non_null(f);
    static char line[1 << 12];
    size_t n_lines = 0;
    while (fgets(line, sizeof line, f)) {
        char name[32];
        size_t len;
        int at = 0;
        if (line[0] == '#' || sscanf(line, "%31s %zu %n", name, &len, &at) < 2)
            continue;
        check_answers(name, len, line + at);
        n_lines++;
    }
    fclose(f);
    assert_int_equal(n_lines, 17);
}

static void texts_are_sorted_cut_and_padded(void **state)
{
    (void)state;
    const size_t lengths[] = {4, 9, 2, 30, 9};
    struct passages p;
    cut(&p, lengths, 5, &(struct passage_options){.ctx = 20, .eos = 300, .step = -1, .n_padded = 40});
    assert_int_equal(p.n, 5);
    assert_int_equal(p.n_cut, 1);
    const size_t want[] = {20, 9, 9, 4, 2};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(p.items[i].len, want[i]);
    assert_int_equal(p.ids[18], (31 * 18 * 18 + 7 * 18 + 11) % 317);
    assert_int_equal(p.ids[19], 300); /* a cut text ends as a whole one does */
    assert_int_equal(p.ids[20 + 8], (31 * 8 * 8 + 7 * 8 + 11) % 317);
    assert_int_equal(passages_group(&p, 0), 2);
    assert_int_equal(passages_group(&p, 2), 3);
    int32_t *rows = passages_rows(&p, 2, 3);
    assert_int_equal(rows[9 + 3], p.ids[p.items[3].begin + 3]);
    for (size_t i = 4; i < 9; i++)
        assert_int_equal(rows[9 + i], 0);
    free(rows);
    passages_release(&p);

    /* The first three texts; every id 11 is a step, else the last token answers. */
    cut(&p, lengths, 5, &(struct passage_options){.ctx = 64, .max = 3, .eos = -1, .step = 49});
    assert_int_equal(p.n, 3);
    assert_int_equal(p.n_points, 3);
    assert_int_equal(p.points[p.items[0].first_point], 1); /* 31 + 7 + 11 */
    passages_release(&p);

    struct corpus c = {0};
    struct err e = {0};
    assert_int_equal(passages_cut(&p, &c, &(struct passage_options){.ctx = 8}, &e), ERR_ARG);
    c.from_ids = true;
    int32_t ids[10] = {0};
    assert_int_equal(corpus_add_tokens(&c, "ids", ids, 10, NULL, 0, &e), 0);
    assert_int_equal(passages_cut(&p, &c, &(struct passage_options){.ctx = 4, .step = -1}, &e), 0);
    assert_int_equal(p.n, 3); /* pieces of 4, 4 and 2 */
    assert_int_equal(p.items[2].len, 2);
    passages_release(&p);
    corpus_release(&c);
}

#define N_TEXTS 40

/* Several groups; `step`: as in passage_options. */
static void make_texts(struct passages *p, int32_t step)
{
    struct passage_options small_groups = {.ctx = 60, .eos = -1, .step = step, .n_padded = 256};
    size_t lengths[N_TEXTS];
    for (size_t i = 0; i < N_TEXTS; i++)
        lengths[i] = 1 + i * 37 % 61;
    cut(p, lengths, N_TEXTS, &small_groups);
}

static const struct progress silent;

static int run(struct text_evaluation *v, const struct scene *s, const struct passages *p, uint64_t memory,
               struct progress progress, struct err *e)
{
    struct evaluate_model models[] = {{.name = "reference", .net = &s->ref.net, .weights = s->ref.weights},
                                      {.name = "Q8_0", .net = &s->q8.net, .weights = s->q8.weights},
                                      {.name = "Q4_0", .net = &s->q4.net, .weights = s->q4.weights}};
    struct evaluate_options opt = {.pool = s->pool, .memory_bytes = memory, .progress = progress};
    return evaluate_texts(v, models, 3, p, &opt, e);
}

static void threads_and_memory_do_not_change_a_bit(void **state)
{
    (void)state;
    const char *const names[] = {"embedding-mean", "stepreward"};
    for (size_t k = 0; k < 2; k++) {
        struct text_evaluation first = {0};
        for (size_t i = 0; i < 3; i++) {
            struct scene s;
            struct passages p;
            struct err e = {0};
            struct text_evaluation v;
            make_texts(&p, k == 0 ? -1 : 49);
            open_scene(&s, names[k], i == 1 ? 3 : 1);
            if (run(&v, &s, &p, i == 2 ? 1 << 18 : 1 << 28, silent, &e))
                fail_msg("%s", e.msg);
            assert_int_equal(v.n_texts, N_TEXTS);
            assert_int_equal(v.n, k == 0 ? N_TEXTS : p.n_points);
            assert_false(v.partial);
            if (i == 0)
                first = v;
            for (size_t m = 0; i > 0 && m < 3; m++)
                assert_memory_equal(v.value[m], first.value[m], v.n * sizeof(double));
            if (i > 0)
                text_evaluation_release(&v);
            close_scene(&s);
            passages_release(&p);
        }
        text_evaluation_release(&first);
    }
}

static void candidates_lose_more_with_fewer_bits(void **state)
{
    (void)state;
    const char *const names[] = {"embedding-last", "score"};
    for (size_t k = 0; k < 2; k++) {
        struct scene s;
        struct passages p;
        struct err e = {0};
        struct text_evaluation v;
        struct answer_change c[3];
        make_texts(&p, -1);
        open_scene(&s, names[k], 2);
        assert_int_equal(run(&v, &s, &p, 1 << 28, silent, &e), 0);
        for (size_t m = 0; m < 3; m++)
            assert_int_equal(answer_change_of(&c[m], &v, m, &e), 0);
        if (k == 0) {
            for (size_t i = 0; i < v.n; i++)
                assert_true(v.value[0][i] == 0);
            assert_true(c[1].distance.value > 0 && c[2].distance.value > 3 * c[1].distance.value);
            assert_true(c[2].distance_median < c[2].distance_p95 && c[2].distance_p95 < c[2].distance_max);
            assert_true(isnan(c[2].delta_rms) && isnan(c[2].kendall) && isnan(c[0].score_mean));
        } else {
            assert_true(c[2].delta_rms > 3 * c[1].delta_rms && c[2].delta_max > c[2].delta_rms);
            assert_true(c[2].kendall < c[1].kendall && c[1].kendall <= 1);
            assert_true(c[1].probability_rms > 0 && c[1].probability_rms < c[1].delta_rms / 3.99);
            assert_true(fabs(c[2].score_mean - c[0].score_mean - c[2].delta.value) < 1e-12);
            assert_true(isnan(c[1].distance.value));
        }
        text_evaluation_release(&v);
        close_scene(&s);
        passages_release(&p);
    }
}

/* Steps of a text are related: the error counts texts. */
static void errors_of_steps_are_those_of_texts(void **state)
{
    (void)state;
    struct scene s;
    struct passages p;
    struct err e = {0};
    struct text_evaluation v;
    struct answer_change c;
    make_texts(&p, 49);
    open_scene(&s, "stepreward", 2);
    assert_int_equal(run(&v, &s, &p, 1 << 28, silent, &e), 0);
    assert_int_equal(answer_change_of(&c, &v, 2, &e), 0);
    assert_true(v.n > v.n_texts);
    assert_int_equal(v.ends[v.n_texts - 1], v.n);
    double sum = 0, groups = (double)v.n_texts;
    for (size_t t = 0, i = 0; t < v.n_texts; t++) {
        double of_text = 0;
        assert_int_equal(v.ends[t] - i, p.items[t].n_points);
        for (; i < v.ends[t]; i++)
            of_text += v.value[2][i] - v.value[0][i] - c.delta.value;
        sum += of_text * of_text;
    }
    double want = sqrt(groups / (groups - 1) * sum) / (double)v.n;
    assert_true(fabs(c.delta.error - want) < 1e-12);
    assert_true(fabs(c.delta.error / stat_mean_difference(v.value[2], v.value[0], v.n).error - 1) > 0.01);
    text_evaluation_release(&v);
    close_scene(&s);
    passages_release(&p);
}

struct stopper {
    size_t after_texts; /* stop when so many are finished */
    const char *stage;  /* or when this model begins */
};

static int stop(void *ctx, const struct progress_step *p)
{
    const struct stopper *s = ctx;
    return s->stage ? strcmp(p->what, s->stage) == 0 : p->n_done >= s->after_texts;
}

static void a_stopped_run_keeps_what_was_finished(void **state)
{
    (void)state;
    struct scene s;
    struct passages p;
    struct err e = {0};
    struct text_evaluation whole, part;
    make_texts(&p, -1);
    open_scene(&s, "reward", 2);
    assert_int_equal(run(&whole, &s, &p, 1 << 28, silent, &e), 0);

    struct stopper at_start = {.after_texts = 0}, later = {.after_texts = 10}, third = {.stage = "Q4_0"};
    assert_int_equal(run(&part, &s, &p, 1 << 28, (struct progress){stop, &at_start}, &e), ERR_CANCELLED);
    assert_int_equal(run(&part, &s, &p, 1 << 28, (struct progress){stop, &later}, &e), 0);
    assert_true(part.partial && part.n_texts >= 10 && part.n_texts < N_TEXTS && part.n_models == 3);
    for (size_t m = 0; m < 3; m++)
        assert_memory_equal(part.value[m], whole.value[m], part.n * sizeof(double));
    text_evaluation_release(&part);

    assert_int_equal(run(&part, &s, &p, 1 << 28, (struct progress){stop, &third}, &e), 0);
    assert_true(part.partial && part.n_models == 2 && part.n_texts == passages_group(&p, 0));
    text_evaluation_release(&part);
    text_evaluation_release(&whole);
    close_scene(&s);
    passages_release(&p);
}

static void models_that_answer_differently_are_not_compared(void **state)
{
    (void)state;
    struct scene last, mean, score;
    struct passages p;
    struct err e = {0};
    struct text_evaluation v;
    make_texts(&p, -1);
    open_scene(&last, "embedding-last", 1);
    open_scene(&mean, "embedding-mean", 1);
    open_scene(&score, "score", 1);
    struct evaluate_options opt = {.pool = last.pool, .memory_bytes = 1 << 28};
    struct evaluate_model models[] = {{.name = "a", .net = &last.ref.net, .weights = last.ref.weights},
                                      {.name = "b", .net = &mean.ref.net, .weights = mean.ref.weights}};
    assert_int_equal(evaluate_texts(&v, models, 2, &p, &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "pooling_type 1"));
    models[1] = (struct evaluate_model){.name = "c", .net = &score.ref.net, .weights = score.ref.weights};
    assert_int_equal(evaluate_texts(&v, models, 2, &p, &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "scores"));
    assert_int_equal(net_need_tokens(&score.ref.net, "perplexity", &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "no language head"));
    close_scene(&last);
    close_scene(&mean);
    close_scene(&score);
    passages_release(&p);
}

static double number(const struct json *o, const char *key)
{
    double v = NAN;
    if (!json_get(o, key))
        fail_msg("no key '%s'", key);
    return json_number(json_get(o, key), &v) ? v : NAN;
}

static void reports_have_the_figures_of_the_kind_and_null_for_the_others(void **state)
{
    (void)state;
    struct scene s;
    struct passages p;
    struct corpus corpus = {0};
    struct err e = {0};
    struct text_evaluation v;
    make_texts(&p, -1);
    open_scene(&s, "score", 2);
    assert_int_equal(run(&v, &s, &p, 1 << 28, silent, &e), 0);
    struct report r = {.kind = REPORT_COMPARE,
                       .version = "0",
                       .architecture = "qwen3",
                       .corpus = &corpus,
                       .pooling = NET_POOLING_RANK};
    assert_int_equal(report_take_texts(&r, &v, &p, 60, &e), 0);
    r.reference.path = "ref";
    r.candidates[0].path = "q8";
    r.candidates[1].path = "<q4>";
    char *out = NULL;
    struct json_doc *doc = report_document(&r, &out);
    const struct json *c = json_next(json_first(json_get(json_root(doc), "candidates")));
    assert_true(fabs(number(c, "score_delta_rms") - r.candidates[1].change.delta_rms) < 1e-15);
    assert_true(number(c, "rank_kendall") > 0 && number(c, "rank_spearman") > number(c, "rank_kendall"));
    const char *const absent[] = {"perplexity", "kld_mean", "kld_p99", "top1_agreement",
                                  "cosine_distance_mean"};
    for (size_t i = 0; i < 5; i++)
        assert_true(json_is_null(json_get(c, absent[i])));
    assert_string_equal(json_string(json_get(json_root(doc), "answer")), "score");
    assert_true(number(json_root(doc), "n_texts") == N_TEXTS);
    assert_true(json_is_null(json_get(json_get(json_root(doc), "reference"), "n_chunks")));
    json_free(doc);
    free(out);
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);
    report_html(&r, f);
    report_text(&r, f);
    fclose(f);
    assert_non_null(strstr(out, "&lt;q4&gt;"));
    assert_non_null(strstr(out, "Kendall"));
    assert_null(strstr(out, "nan"));
    free(out);
    report_release(&r);
    text_evaluation_release(&v);
    close_scene(&s);
    passages_release(&p);
}

static double sign(double x)
{
    return (x > 0) - (x < 0);
}

/* The definitions, pair by pair. */
static void slow_ranks(double *tau, double *rho, const double *a, const double *b, size_t n)
{
    double s = 0, na = 0, nb = 0, ra, rb, aa = 0, bb = 0, ab = 0;
    for (size_t i = 0; i < n; i++) {
        ra = rb = 0;
        for (size_t j = 0; j < n; j++) {
            double x = sign(a[i] - a[j]), y = sign(b[i] - b[j]);
            s += x * y;
            na += x * x;
            nb += y * y;
            ra += x / 2; /* twice the rank from the middle is the number below less the number above */
            rb += y / 2;
        }
        aa += ra * ra;
        bb += rb * rb;
        ab += ra * rb;
    }
    *tau = s / sqrt(na * nb);
    *rho = ab / sqrt(aa * bb);
}

static void ranks_are_those_of_the_definition(void **state)
{
    (void)state;
    double a[200], b[200], tau, rho, want_tau, want_rho;
    struct rng rng = {7};
    struct err e = {0};
    for (size_t n = 2; n <= 200; n += n < 12 ? 1 : 47)
        for (int levels = 3; levels < 1000; levels *= 9) { /* many ties to few */
            for (size_t i = 0; i < n; i++) {
                a[i] = floor(levels * rng_uniform(&rng));
                b[i] = floor((a[i] + levels * rng_uniform(&rng)) / 2);
            }
            a[0] = -1;
            b[0] = 2 * levels;
            assert_int_equal(rank_agreement(&tau, &rho, a, b, n, &e), 0);
            slow_ranks(&want_tau, &want_rho, a, b, n);
            assert_true(fabs(tau - want_tau) < 1e-12 && fabs(rho - want_rho) < 1e-12);
        }
    const double up[] = {1, 2, 3, 4}, down[] = {9, 5, 2, -1}, flat[] = {1, 1, 1, 1};
    assert_int_equal(rank_agreement(&tau, &rho, up, down, 4, &e), 0);
    assert_true(tau == -1 && fabs(rho + 1) < 1e-15);
    assert_int_equal(rank_agreement(&tau, &rho, up, flat, 4, &e), 0);
    assert_true(isnan(tau) && isnan(rho));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_the_reference),
        cmocka_unit_test(texts_are_sorted_cut_and_padded),
        cmocka_unit_test(threads_and_memory_do_not_change_a_bit),
        cmocka_unit_test(candidates_lose_more_with_fewer_bits),
        cmocka_unit_test(errors_of_steps_are_those_of_texts),
        cmocka_unit_test(a_stopped_run_keeps_what_was_finished),
        cmocka_unit_test(models_that_answer_differently_are_not_compared),
        cmocka_unit_test(reports_have_the_figures_of_the_kind_and_null_for_the_others),
        cmocka_unit_test(ranks_are_those_of_the_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
