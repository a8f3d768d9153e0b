/* test_profile.c - profiles against brute force on toys of every kind of layer and answer: restored layers
 * and kinds are what a comparison says of the model changed so; errors of products and states are those
 * worked out from plain runs; the same bits for any threads, memory and back end; what cannot be compared is
 * refused. */
#include "calib/eval/candidate.h"
#include "calib/eval/evaluate_texts.h"
#include "calib/eval/profile.h"
#include "calib/eval/profile_walk.h"
#include "calib/model/forward.h"
#include "far_compute.h"
#include "toy_family.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CTX       32
#define N_WINDOWS 3
#define N_TOKENS  (CTX * N_WINDOWS)
#define N_SCORED  (N_TOKENS / 2)

struct scene {
    char folder[32];
    struct pool *pool;
    struct candidate ref, cand;
    int32_t inputs[N_TOKENS], targets[N_SCORED];
    struct windows windows;
    struct passages passages;
};

static void must(int rc, const struct err *e)
{
    if (rc != 0)
        fail_msg("%s", e->msg);
}

/* The reference in Q4_0, but for tensors that match `pattern` (NULL: none). */
static void open_quantized(struct candidate *out, const struct scene *s, const char *pattern)
{
    struct err e = {0};
    const struct recipe_override keep = {pattern, QTYPE_BF16};
    struct recipe_options recipe = {
        .mix = mix_find("Q4_0"), .pure = true, .overrides = &keep, .n_overrides = pattern ? 1 : 0};
    struct candidate_mix_options opt = {.recipe = "llama.cpp", .pool = s->pool};
    must(candidate_open_recipe(out, &s->ref, "Q4_0", &recipe, &opt, &e), &e);
}

static void make_texts(struct scene *s)
{
    struct err e = {0};
    struct corpus c = {0};
    int32_t ids[3 * CTX];
    size_t at = 0;
    static const size_t lengths[] = {5, 20, 11, 17};
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < lengths[i]; k++, at++)
            ids[at] = (int32_t)((31 * at * at + 7 * at + 11) % 317);
        must(corpus_end_record(&c, at, &e), &e);
    }
    must(corpus_add_tokens(&c, "texts", ids, at, NULL, 0, &e), &e);
    must(passages_cut(&s->passages, &c, &(struct passage_options){.ctx = CTX, .eos = -1, .step = 11}, &e),
         &e);
    corpus_release(&c);
}

static void open_scene(struct scene *s, const char *family, unsigned threads)
{
    struct err e = {0};
    *s = (struct scene){0};
    strcpy(s->folder, "kerf-toy-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    must(toy_family_write(s->folder, family, &e), &e);
    must(pool_new(&s->pool, threads, &e), &e);
    must(candidate_open_file(&s->ref, s->folder, NULL, &e), &e);
    open_quantized(&s->cand, s, NULL);
    for (int32_t i = 0; i < N_TOKENS; i++)
        s->inputs[i] = (i * i * 13 + 5 * i + 3) % 320;
    for (int32_t i = 0; i < N_SCORED; i++)
        s->targets[i] = (i * 7 + 1) % 320;
    s->windows = (struct windows){
        .ctx = CTX, .n = N_WINDOWS, .inputs = s->inputs, .targets = s->targets, .first = CTX / 2, .end = CTX};
    make_texts(s);
}

static void close_scene(struct scene *s)
{
    char command[64];
    candidate_close(&s->cand);
    candidate_close(&s->ref);
    passages_release(&s->passages);
    pool_free(s->pool);
    snprintf(command, sizeof command, "rm -r '%s'", s->folder);
    assert_int_equal(system(command), 0);
}

static struct evaluate_model model_of(const struct candidate *c)
{
    return (struct evaluate_model){"toy", &c->net, c->weights, c->cache};
}

static void profile(struct profile *out, struct scene *s, uint64_t memory_bytes,
                    const struct compute_ops *compute)
{
    struct err e = {0};
    struct evaluate_model ref = model_of(&s->ref), cand = model_of(&s->cand);
    struct profile_options opt = {.pool = s->pool,
                                  .memory_bytes = memory_bytes,
                                  .compute = compute,
                                  .n_windows = 100,
                                  .n_candidates = 1};
    int rc = s->ref.net.answer == NET_TOKENS ? profile_windows(out, &ref, &cand, &s->windows, &opt, &e)
                                             : profile_texts(out, &ref, &cand, &s->passages, &opt, &e);
    must(rc, &e);
}

/* Mean loss of a candidate by the engine of comparisons. */
static double loss_of(struct scene *s, const struct candidate *c)
{
    struct err e = {0};
    struct evaluate_model list[2] = {model_of(&s->ref), model_of(c)};
    struct evaluate_options opt = {.pool = s->pool, .memory_bytes = 1 << 28};
    double sum = 0;
    size_t n = 0;
    if (s->ref.net.answer == NET_TOKENS) {
        struct evaluation v;
        must(evaluate(&v, list, 2, &s->windows, &opt, &e), &e);
        for (n = 0; n < v.n; n++)
            sum += v.kld[1][n];
        evaluation_release(&v);
    } else {
        struct text_evaluation v;
        must(evaluate_texts(&v, list, 2, &s->passages, &opt, &e), &e);
        for (n = 0; n < v.n; n++) {
            double d = v.value[1][n] - v.value[0][n];
            sum += v.answer == NET_SCORE ? d * d : v.value[1][n];
        }
        text_evaluation_release(&v);
    }
    return sum / (double)n;
}

static double loss_with(struct scene *s, const char *pattern)
{
    struct candidate c;
    open_quantized(&c, s, pattern);
    double loss = loss_of(s, &c);
    candidate_close(&c);
    return loss;
}

static void close_to(double a, double b, double relative)
{
    if (!(fabs(a - b) <= relative * fabs(b) + 1e-15))
        fail_msg("%.17g is not %.17g", a, b);
}

static const char *const families[] = {
    "qwen3moe", "mixtral-stacked", "qwen35moe", "qwen3next",  "gemma2",         "gemma3",         "olmo2",
    "granite",  "score",           "reward",    "stepreward", "embedding-last", "embedding-mean", "phi3",
    "glm4moe",  "gptoss",          "deepseek3"};
#define N_FAMILIES (sizeof families / sizeof *families)

static void restored_layers_and_kinds_are_what_comparisons_say(void **state)
{
    (void)state;
    for (size_t f = 0; f < N_FAMILIES; f++) {
        struct scene s;
        struct profile p;
        char pattern[128];
        open_scene(&s, families[f], 2);
        profile(&p, &s, 1 << 28, NULL);
        double whole = loss_of(&s, &s.cand);
        close_to(p.loss.value, whole, 1e-12);
        for (size_t i = 0; i < p.n_layers; i++) {
            snprintf(pattern, sizeof pattern, "^blk\\.%zu\\.", i);
            double left = loss_with(&s, pattern);
            close_to(p.layers[i].restored.loss.value, left, 1e-12);
            assert_true(fabs(p.layers[i].restored.gain.value - (whole - left)) <
                        1e-12 * (whole + left) + 1e-18);
        }
        for (size_t i = 0; i < p.n_kinds; i++) {
            snprintf(pattern, sizeof pattern, "(^|\\.)\\Q%s\\E$", p.kinds[i].name);
            close_to(p.kinds[i].restored.loss.value, loss_with(&s, pattern), 1e-12);
        }
        profile_release(&p);
        close_scene(&s);
    }
}

/* --- errors of products and states, worked out slowly --- */

struct seen {
    const char *name;
    float *x;
    size_t n, n_cols;
};

static int take_inputs(void *ctx, const struct observation *o, struct err *e)
{
    struct seen *s = ctx;
    (void)e;
    for (size_t i = 0; i < o->n_tensors; i++) {
        if (strcmp(o->tensors[i]->name, s->name) != 0)
            continue;
        assert_true(s->n + o->n_tokens <= N_TOKENS);
        s->n_cols = o->n_cols;
        memcpy(s->x + s->n * o->n_cols, o->x, o->n_tokens * o->n_cols * sizeof *s->x);
        s->n += o->n_tokens;
    }
    return 0;
}

static void inputs_of(struct seen *out, struct scene *s, const struct candidate *c, const char *name)
{
    struct err e = {0};
    struct forward_options f = {
        .pool = s->pool, .memory_bytes = 1 << 28, .observe = take_inputs, .observe_ctx = out};
    *out = (struct seen){.name = name, .x = malloc(N_TOKENS * 4096 * sizeof(float))};
    must(forward_run(NULL, &c->net, c->weights, s->inputs, N_WINDOWS, CTX, &f, &e), &e);
    assert_int_equal(out->n, N_TOKENS);
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Root mean square over tokens of |w' x' - w x| / |w x|. */
static double slow_error(const struct scene *s, const char *name, const struct seen *x,
                         const struct seen *own)
{
    struct err e = {0};
    const struct model_tensor *t = model_find(s->ref.model, name);
    float *w = malloc(2 * t->ne[0] * sizeof *w), *q = w + t->ne[0];
    double *num = calloc(2 * N_TOKENS, sizeof *num), *den = num + N_TOKENS, sum = 0;
    for (uint64_t row = 0; row < t->n_rows; row++) {
        must(weights_read(s->ref.weights, t, row, 1, w, &e), &e);
        must(weights_read(s->cand.weights, t, row, 1, q, &e), &e);
        for (size_t i = 0; i < N_TOKENS; i++) {
            double y = dot(w, x->x + i * x->n_cols, x->n_cols);
            double d = dot(q, own->x + i * x->n_cols, x->n_cols) - y;
            den[i] += y * y;
            num[i] += d * d;
        }
    }
    for (size_t i = 0; i < N_TOKENS; i++)
        sum += num[i] / den[i];
    free(w);
    free(num);
    return sqrt(sum / N_TOKENS);
}

static void errors_of_products_are_those_of_plain_runs(void **state)
{
    (void)state;
    struct scene s;
    struct profile p;
    size_t n = 0;
    open_scene(&s, "gemma3", 2);
    profile(&p, &s, 1 << 28, NULL);
    for (size_t i = 0; i < p.n_tensors; i++) {
        const struct profile_tensor *t = &p.tensors[i];
        if (t->role != PROFILE_PRODUCT)
            continue;
        struct seen x, own;
        inputs_of(&x, &s, &s.ref, t->name);
        inputs_of(&own, &s, &s.cand, t->name);
        assert_int_equal(t->n_inputs, N_TOKENS);
        close_to(t->error, slow_error(&s, t->name, &x, &x), 1e-5);
        close_to(t->own_error, slow_error(&s, t->name, &x, &own), 1e-5);
        free(x.x);
        free(own.x);
        n++;
    }
    assert_true(n >= 7 * p.n_layers);
    profile_release(&p);
    close_scene(&s);
}

/* States that leave a layer, by a run that ends there. */
static float *states_behind(const struct scene *s, const struct candidate *c, uint32_t layer)
{
    struct err e = {0};
    struct net_parts parts;
    struct hidden_states *h = NULL;
    struct forward_options f = {.pool = s->pool, .memory_bytes = 1 << 28, .keep_end = CTX};
    must(net_parts_init(&parts, &c->net, &e), &e);
    struct forward_span span = {NULL, 0, (uint32_t)parts.first[layer + 1]};
    must(forward_run_span(&h, &parts.open, c->weights, s->inputs, N_WINDOWS, CTX, &span, &f, &e), &e);
    size_t n = N_TOKENS * (size_t)c->net.n_embd;
    float *out = malloc(n * sizeof *out), *rows = NULL, *buffer = malloc(n * sizeof *buffer);
    must(hidden_states_get(h, 0, N_TOKENS, buffer, &rows, &e), &e);
    memcpy(out, rows, n * sizeof *out);
    free(buffer);
    hidden_states_free(h);
    net_parts_release(&parts);
    return out;
}

static void errors_of_states_are_those_of_plain_runs(void **state)
{
    (void)state;
    struct scene s;
    struct profile p;
    open_scene(&s, "qwen35moe", 2);
    profile(&p, &s, 1 << 28, NULL);
    for (uint32_t l = 0; l < p.n_layers; l++) {
        size_t d = s.ref.net.n_embd;
        float *a = states_behind(&s, &s.ref, l), *b = states_behind(&s, &s.cand, l);
        double sum = 0;
        for (size_t i = 0; i < N_TOKENS; i++) {
            const float *x = a + i * d, *y = b + i * d;
            sum += (dot(x, x, d) - 2 * dot(x, y, d) + dot(y, y, d)) / dot(x, x, d);
        }
        close_to(p.layers[l].error, sqrt(sum / N_TOKENS), 1e-9);
        free(a);
        free(b);
    }
    profile_release(&p);
    close_scene(&s);
}

/* --- what must not matter --- */

static void same_figures(const struct profile *a, const struct profile *b)
{
    assert_int_equal(a->n_tensors, b->n_tensors);
    assert_memory_equal(&a->loss, &b->loss, sizeof a->loss);
    assert_memory_equal(a->layers, b->layers, a->n_layers * sizeof *a->layers);
    for (size_t i = 0; i < a->n_kinds; i++)
        assert_memory_equal(&a->kinds[i].restored, &b->kinds[i].restored, sizeof a->kinds[i].restored);
    for (size_t i = 0; i < a->n_tensors; i++) {
        assert_int_equal(a->tensors[i].n_inputs, b->tensors[i].n_inputs);
        assert_memory_equal(&a->tensors[i].error, &b->tensors[i].error, sizeof(double));
        assert_memory_equal(&a->tensors[i].own_error, &b->tensors[i].own_error, sizeof(double));
    }
}

static void threads_memory_and_back_end_do_not_matter(void **state)
{
    (void)state;
    static const char *const some[] = {"qwen3moe", "qwen35moe", "embedding-last"};
    for (size_t f = 0; f < 3; f++) {
        struct scene s, t;
        struct profile whole, tight, far;
        open_scene(&s, some[f], 3);
        open_scene(&t, some[f], 1);
        profile(&whole, &s, 1 << 28, NULL);
        profile(&tight, &t, 1 << 21, NULL);
        profile(&far, &t, 1 << 28, &compute_far);
        same_figures(&whole, &tight);
        same_figures(&whole, &far);
        profile_release(&whole);
        profile_release(&tight);
        profile_release(&far);
        close_scene(&s);
        close_scene(&t);
    }
}

/* --- the cache, the choice of windows, refusals --- */

static void a_cache_is_a_kind_of_its_own(void **state)
{
    (void)state;
    struct err e = {0};
    struct scene s;
    struct profile p;
    struct kv_cache cache = {QTYPE_BF16, QTYPE_BF16};
    open_scene(&s, "granite", 2);
    candidate_close(&s.cand);
    must(candidate_open_same(&s.cand, &s.ref, "kv:bf16", NULL, &e), &e);
    must(candidate_set_cache(&s.cand, &cache, false, &e), &e);
    profile(&p, &s, 1 << 28, NULL);
    assert_true(p.loss.value > 0);
    close_to(p.loss.value, loss_of(&s, &s.cand), 1e-12);
    const struct profile_kind *k = &p.kinds[p.n_kinds - 1];
    assert_string_equal(k->name, PROFILE_CACHE);
    assert_true(k->restored.loss.value == 0 && k->restored.gain.value == p.loss.value);
    for (size_t i = 0; i + 1 < p.n_kinds; i++)
        assert_true(p.kinds[i].restored.gain.value == 0 && p.kinds[i].error == 0);
    profile_release(&p);
    close_scene(&s);
}

static void few_windows_are_spread_and_their_errors_grow(void **state)
{
    (void)state;
    struct err e = {0};
    struct scene s;
    struct profile one, all;
    open_scene(&s, "granite", 2);
    struct evaluate_model ref = model_of(&s.ref), cand = model_of(&s.cand);
    struct profile_options opt = {.pool = s.pool, .memory_bytes = 1 << 28, .n_windows = 1, .n_candidates = 1};
    must(profile_windows(&one, &ref, &cand, &s.windows, &opt, &e), &e);
    struct windows middle = s.windows;
    middle.n = 1;
    middle.inputs += CTX;
    middle.targets += CTX / 2;
    must(profile_windows(&all, &ref, &cand, &middle, &opt, &e), &e);
    same_figures(&one, &all);
    assert_int_equal(one.n_windows, 1);
    assert_int_equal(one.n_windows_all, N_WINDOWS);
    assert_int_equal(one.n_losses, CTX / 2);
    profile_release(&one);
    profile_release(&all);
    opt.n_windows = 0; /* a toy's text pays for one window, no less */
    must(profile_windows(&one, &ref, &cand, &middle, &opt, &e), &e);
    assert_int_equal(one.n_windows, 1);
    profile_release(&one);
    close_scene(&s);
}

static void positions_that_are_not_scored_do_not_count(void **state)
{
    (void)state;
    struct scene s;
    struct profile all, some;
    uint8_t use[N_SCORED];
    open_scene(&s, "olmo2", 2);
    for (size_t i = 0; i < N_SCORED; i++)
        use[i] = i % 3 ? WINDOW_DEPTH : WINDOW_SCORED | WINDOW_DEPTH;
    profile(&all, &s, 1 << 28, NULL);
    s.windows.use = use;
    profile(&some, &s, 1 << 28, NULL);
    assert_int_equal(some.n_losses, N_SCORED / 3);
    assert_true(some.loss.value != all.loss.value);
    assert_true(some.layers[0].error == all.layers[0].error);
    profile_release(&all);
    profile_release(&some);
    close_scene(&s);
}

static void other_layers_are_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct scene s, t;
    struct profile p;
    open_scene(&s, "olmo2", 1);
    open_scene(&t, "qwen3moe", 1);
    struct evaluate_model ref = model_of(&s.ref), cand = model_of(&t.cand);
    struct profile_options opt = {.pool = s.pool, .memory_bytes = 1 << 28, .n_candidates = 1};
    assert_int_equal(profile_windows(&p, &ref, &cand, &s.windows, &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "in the reference"));
    close_scene(&s);
    close_scene(&t);
}

static void other_answers_are_refused_as_such(void **state)
{
    (void)state;
    struct err e = {0};
    struct scene s, t;
    struct profile p;
    open_scene(&s, "score", 1);
    open_scene(&t, "olmo2", 1);
    struct evaluate_model ref = model_of(&s.ref), cand = model_of(&t.cand);
    struct profile_options opt = {.pool = s.pool, .memory_bytes = 1 << 28, .n_candidates = 1};
    assert_int_equal(profile_texts(&p, &ref, &cand, &s.passages, &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "the same answer of both"));
    close_scene(&s);
    close_scene(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restored_layers_and_kinds_are_what_comparisons_say),
        cmocka_unit_test(errors_of_products_are_those_of_plain_runs),
        cmocka_unit_test(errors_of_states_are_those_of_plain_runs),
        cmocka_unit_test(threads_memory_and_back_end_do_not_matter),
        cmocka_unit_test(a_cache_is_a_kind_of_its_own),
        cmocka_unit_test(few_windows_are_spread_and_their_errors_grow),
        cmocka_unit_test(positions_that_are_not_scored_do_not_count),
        cmocka_unit_test(other_layers_are_refused),
        cmocka_unit_test(other_answers_are_refused_as_such),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
