/* test_fast_probe.c - fast probes against brute force on a toy: layers in parts are layers, the local change
 * is that of two whole runs, depth and embedding are those of an evaluation, beta is interpolated, a
 * constructed massive layer is found and measured to the output, passes are what was run and never too many,
 * the same figures for any threads and memory, continued runs included. */
#include "calib/eval/evaluate.h"
#include "calib/solve/loss_table.h"
#include "calib/model/net_parts.h"
#include "formats/hf/safetensors_read.h"
#include "calib/model/forward.h"
#include "toy_net.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CTX       24
#define N_WINDOWS 3
#define N_TOKENS  (CTX * N_WINDOWS)
#define N_LAYERS  5
#define MASSIVE   2 /* the layer that is made so */
#define MARK      7 /* the token it is made for */

static struct toy_net plain, massive;
static struct pool *pool;
static struct windows windows;
static int32_t inputs[N_TOKENS], targets[N_TOKENS / 2];

static const enum qtype types[] = {QTYPE_Q2_K, QTYPE_Q3_K, QTYPE_Q4_K, QTYPE_Q6_K};
#define N_TYPES 4

/* Overwrite one weight of the checkpoint. */
static void set_weight(const char *path, const struct safetensors_reader *r, const char *name, uint64_t row,
                       uint64_t col, float value)
{
    for (size_t i = 0; i < safetensors_n_tensors(r); i++) {
        const struct st_tensor *t = safetensors_tensor(r, i);
        if (strcmp(t->name, name) != 0)
            continue;
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        assert_int_equal(fseek(f, (long)(t->offset + 4 * (row * t->shape[1] + col)), SEEK_SET), 0);
        assert_int_equal(fwrite(&value, 4, 1, f), 1);
        assert_int_equal(fclose(f), 0);
        return;
    }
    fail_msg("no tensor %s", name);
}

/* Let the token MARK, whose embedding points along column 0, drive one unit of a layer's feed-forward part,
 * which writes a huge value into column 1. */
static void make_massive(const char *folder)
{
    struct err e = {0};
    struct safetensors_reader *r = NULL;
    char path[128], name[64];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    check(safetensors_open(&r, path, &e), &e);
    for (uint64_t c = 0; c < 256; c++)
        set_weight(path, r, "model.embed_tokens.weight", MARK, c, c == 0 ? 1 : 0);
    static const char *const in[] = {"gate", "up"};
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.%s_proj.weight", MASSIVE, in[i]);
        for (uint64_t c = 0; c < 256; c++)
            set_weight(path, r, name, 0, c, c == 0 ? 1 : 0);
    }
    snprintf(name, sizeof name, "model.layers.%d.mlp.down_proj.weight", MASSIVE);
    set_weight(path, r, name, 1, 0, 2);
    safetensors_close(r);
}

static void open_subject(struct toy_net *s, bool is_massive)
{
    struct toy_spec spec = toy_spec_tiny(TOY_LLAMA);
    spec.n_layers = N_LAYERS;
    spec.tied = true;
    spec.dtype = ST_F32;
    spec.seed = 3;
    toy_net_open(s, &spec, is_massive ? make_massive : NULL);
}

static int setup(void **state)
{
    (void)state;
    struct err e = {0};
    open_subject(&plain, false);
    open_subject(&massive, true);
    check(pool_new(&pool, 2, &e), &e);
    for (size_t i = 0; i < N_TOKENS; i++)
        inputs[i] = i % CTX == 0 ? MARK : (int32_t)(8 + (i * i * 31 + 7 * i) % (plain.net.n_vocab - 8));
    windows = toy_windows(CTX, N_WINDOWS, inputs, targets);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    toy_net_close(&plain);
    toy_net_close(&massive);
    pool_free(pool);
    return 0;
}

static void measure_with(struct loss_table *t, struct toy_net *s, struct loss_measure opt)
{
    struct err e = {0};
    opt.pool = opt.pool ? opt.pool : pool;
    opt.memory_bytes = opt.memory_bytes ? opt.memory_bytes : 1 << 26;
    check(loss_table_init(t, s->model, NULL, types, N_TYPES, &e), &e);
    t->probe = LOSS_PROBE_FAST;
    check(loss_table_measure(t, &s->net, s->base, &windows, &opt, &e), &e);
}

static struct loss_tensor *find(struct loss_table *t, const char *name)
{
    for (size_t i = 0; i < t->n_tensors; i++)
        if (strcmp(t->tensors[i].tensor->name, name) == 0)
            return &t->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void near(double found, double want, double tolerance, const char *what)
{
    if (!(fabs(found - want) <= tolerance * fabs(want)))
        fail_msg("%s: %.9g, expected %.9g", what, found, want);
}

static float *rows_of(struct hidden_states *h, size_t n)
{
    float *x = malloc(n * sizeof *x), *rows = NULL;
    assert_int_equal(hidden_states_get(h, 0, hidden_states_n_rows(h), x, &rows, NULL), 0);
    if (rows != x)
        memcpy(x, rows, n * sizeof *x);
    hidden_states_free(h);
    return x;
}

/* States of all tokens behind `layer` of a net, without the final norm. */
static float *states_behind(const struct net *net, struct weights *w, uint32_t layer)
{
    struct err e = {0};
    struct hidden_states *h = NULL;
    struct forward_options opt = {.pool = pool, .memory_bytes = 1 << 26, .keep_end = CTX};
    struct forward_span span = {NULL, 0, layer + 1};
    check(forward_run_span(&h, net, w, inputs, N_WINDOWS, CTX, &span, &opt, &e), &e);
    return rows_of(h, (size_t)N_TOKENS * net->n_embd);
}

static struct weights *with_one(const struct toy_net *s, const char *pattern, enum qtype type)
{
    struct err e = {0};
    struct recipe_override only = {pattern, type};
    struct recipe_options recipe = {.recipe = "llama.cpp", .overrides = &only, .n_overrides = 1};
    struct weights *w = NULL;
    check(weights_new_mix(&w, s->model, &recipe, NULL, false, NULL, &e), &e);
    return w;
}

static void parts_of_layers_are_the_layers(void **state)
{
    (void)state;
    struct err e = {0};
    struct net_parts p;
    check(net_parts_init(&p, &plain.net, &e), &e);
    assert_int_equal(p.first[N_LAYERS], 2 * N_LAYERS);
    near(net_parts_cost(&p, 0, 2 * N_LAYERS), 1, 1e-12, "cost of all parts");
    /* 256 x 256 for q and o, 128 x 256 for k and v; three of the feed-forward width */
    const struct model_tensor *up = model_find(plain.model, "blk.1.ffn_up.weight");
    double attention = 3 * 65536, forward = 3 * 256.0 * (double)up->ne[1];
    near(net_parts_cost(&p, 2, 3), attention / (attention + forward) / N_LAYERS, 1e-12, "cost of attention");
    assert_int_equal(net_parts_find(&p, 1, up), 3);
    assert_true(net_parts_find(&p, 0, up) == SIZE_MAX);
    size_t n = (size_t)N_TOKENS * plain.net.n_embd * sizeof(float);
    float *a = states_behind(&plain.net, plain.base, 1), *b = states_behind(&p.open, plain.base, 3);
    assert_memory_equal(a, b, n);
    free(b);
    b = states_behind(&p.open, plain.base, 2); /* in the middle of layer 1 */
    assert_memory_not_equal(a, b, n);
    free(a);
    free(b);
    net_parts_release(&p);
}

/* e by its definition, from two runs of the whole model up to the layer. */
static double brute_force(const struct toy_net *s, uint32_t layer, const char *pattern)
{
    struct net_parts p;
    struct weights *w = with_one(s, pattern, QTYPE_Q3_K);
    assert_int_equal(net_parts_init(&p, &s->net, NULL), 0);
    float *x = states_behind(&p.open, s->base, 2 * layer + 1), *y = states_behind(&p.open, w, 2 * layer + 1);
    double sum = 0;
    for (size_t t = 0; t < N_TOKENS; t++) {
        double d = 0, h = 0;
        for (size_t c = t * 256; c < (t + 1) * 256; c++) {
            d += pow((double)y[c] - (double)x[c], 2);
            h += pow((double)x[c], 2);
        }
        sum += t % CTX ? d / h : 0;
    }
    free(x);
    free(y);
    weights_free(w);
    net_parts_release(&p);
    return sum / (N_TOKENS - N_WINDOWS);
}

static double divergence(const struct toy_net *s, const char *pattern, enum qtype type)
{
    struct weights *w = with_one(s, pattern, type);
    double sum = toy_divergence(s, w, &windows, pool);
    weights_free(w);
    return sum;
}

static void figures_are_those_of_brute_force(void **state)
{
    (void)state;
    struct loss_table t = {0};
    measure_with(&t, &plain, (struct loss_measure){0});
    const struct {
        const char *name, *pattern;
        uint32_t layer;
    } cases[] = {{"blk.0.attn_q.weight", "^blk.0.attn_q.weight$", 0},
                 {"blk.2.attn_v.weight", "^blk.2.attn_v.weight$", 2},
                 {"blk.3.ffn_down.weight", "^blk.3.ffn_down.weight$", 3},
                 {"blk.4.ffn_gate.weight", "^blk.4.ffn_gate.weight$", 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct loss_option *o = loss_table_option(find(&t, cases[i].name), QTYPE_Q3_K);
        near(o->local, brute_force(&plain, cases[i].layer, cases[i].pattern), 0.006, cases[i].name);
        near(o->loss, loss_beta(&t, cases[i].layer) * o->local, 0.02, "loss of a probe");
        assert_true(isnan(o->kld));
    }
    assert_int_equal(t.n_depths, N_LAYERS); /* no more layers than depths */
    assert_int_equal(t.n_massive, 0);
    double sum = 0;
    for (size_t i = 0; i < t.n_tensors; i++)
        if (loss_layer(&t.tensors[i]) == 2)
            sum += loss_table_option(&t.tensors[i], QTYPE_Q3_K)->local;
    near(t.depths[2].local, sum, 0.01, "sum of local changes"); /* the table rounds to three digits */
    near(t.depths[2].kld, divergence(&plain, "^blk\\.2\\.", QTYPE_Q3_K), 1e-6, "a whole layer");
    near(loss_table_option(find(&t, "token_embd.weight"), QTYPE_Q4_K)->kld,
         divergence(&plain, "^token_embd", QTYPE_Q4_K), 0.006, "the embedding");
    loss_table_release(&t);
}

static void beta_is_interpolated_over_depth(void **state)
{
    (void)state;
    struct loss_table t = {0};
    near(loss_beta(&t, 3), 1, 0, "no depth");
    t.depths[0] = (struct loss_depth){2, 0.5, 1, 0.01};  /* 2 */
    t.depths[1] = (struct loss_depth){4, 0.5, 9, 8};     /* lost in noise */
    t.depths[2] = (struct loss_depth){6, 0.25, 2, 0.01}; /* 8 */
    t.depths[3] = (struct loss_depth){7, 0.25, NAN, NAN};
    t.n_depths = 4;
    near(loss_beta(&t, 0), 2, 1e-12, "before the first");
    near(loss_beta(&t, 2), 2, 1e-12, "the first");
    near(loss_beta(&t, 4), 4, 1e-12, "the middle");
    near(loss_beta(&t, 5), pow(2, 2.5), 1e-12, "between");
    near(loss_beta(&t, 9), 8, 1e-12, "behind the last");
}

static void a_massive_layer_is_found_and_measured(void **state)
{
    (void)state;
    struct loss_table t = {0};
    measure_with(&t, &massive, (struct loss_measure){0});
    assert_int_equal(t.n_massive, 1);
    assert_int_equal(t.massive[0], MASSIVE);
    for (size_t i = 0; i < t.n_depths; i++)
        assert_int_not_equal(t.depths[i].layer, MASSIVE);
    static const char *const measured[] = {"blk.2.ffn_gate.weight", "blk.2.ffn_up.weight",
                                           "blk.2.ffn_down.weight"};
    for (int i = 0; i < 3; i++)
        assert_true(isfinite(loss_table_option(find(&t, measured[i]), QTYPE_Q3_K)->kld));
    const struct loss_tensor *down = find(&t, measured[2]);
    for (int i = 0; i < N_TYPES; i++)
        near(loss_table_option(down, types[i])->kld, divergence(&massive, "^blk.2.ffn_down", types[i]), 0.006,
             qtype_name(types[i]));
    assert_true(isnan(loss_table_option(find(&t, "blk.2.attn_q.weight"), QTYPE_Q3_K)->kld));
    assert_true(isnan(loss_table_option(find(&t, "blk.1.ffn_down.weight"), QTYPE_Q3_K)->kld));
    loss_table_release(&t);
}

static void passes_are_counted_and_bounded(void **state)
{
    (void)state;
    struct loss_table t = {0};
    struct net_parts p;
    assert_int_equal(net_parts_init(&p, &plain.net, NULL), 0);
    double a = net_parts_cost(&p, 0, 1), f = net_parts_cost(&p, 1, 2), layer = a + f;
    /* The walk; four attention and three feed-forward tensors in each layer; a layer at each depth with all
     * behind it; four types of the embedding. */
    double want = 1 + N_LAYERS * (4 * layer + 3 * f) + layer * (5 + 4 + 3 + 2 + 1) + 4;
    measure_with(&t, &plain, (struct loss_measure){0});
    near(t.passes, want, 1e-9, "passes");
    loss_table_release(&t);
    measure_with(&t, &plain, (struct loss_measure){.passes_kept_back = 20 - want + 0.5});
    near(t.passes, want - 1, 1e-9, "passes with one type of the embedding less");
    loss_table_release(&t);
    measure_with(&t, &plain, (struct loss_measure){.passes_kept_back = 20});
    near(t.passes, 1 + N_LAYERS * (4 * layer + 3 * f), 1e-9, "passes of the walk");
    for (size_t i = 0; i < t.n_tensors; i++)
        for (size_t o = 0; o < t.tensors[i].n_options; o++)
            assert_true(isfinite(t.tensors[i].options[o].loss));
    loss_table_release(&t);
    measure_with(&t, &massive, (struct loss_measure){.passes_kept_back = 3});
    assert_true(t.passes <= LOSS_MAX_PASSES - 3 + 1e-9);
    loss_table_release(&t);
    net_parts_release(&p);
}

static char *saved(struct loss_table *t, const char *name)
{
    struct err e = {0};
    char path[128], *text = calloc(1, 1 << 18);
    snprintf(path, sizeof path, "%s/%s", plain.folder, name);
    check(loss_table_save(t, path, true, &e), &e);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_true(fread(text, 1, (1 << 18) - 1, f) > 0);
    fclose(f);
    loss_table_release(t);
    return text;
}

static void the_same_table_for_threads_and_memory_and_back(void **state)
{
    (void)state;
    struct err e = {0};
    struct loss_table t = {0};
    struct pool *three = NULL;
    char path[128];
    check(pool_new(&three, 3, &e), &e);
    measure_with(&t, &massive, (struct loss_measure){0});
    char *one = saved(&t, "one.json");
    measure_with(&t, &massive, (struct loss_measure){.pool = three, .memory_bytes = 1 << 21});
    char *other = saved(&t, "other.json");
    assert_string_equal(one, other);
    free(other);

    snprintf(path, sizeof path, "%s/one.json", plain.folder);
    check(loss_table_init(&t, massive.model, NULL, types, N_TYPES, &e), &e);
    check(loss_table_load(&t, path, &e), &e);
    assert_int_equal(t.probe, LOSS_PROBE_FAST);
    assert_int_equal(t.massive[0], MASSIVE);
    other = saved(&t, "other.json");
    assert_string_equal(one, other);
    free(one);
    free(other);
    pool_free(three);
}

static void a_stopped_run_continues_to_the_same_table(void **state)
{
    (void)state;
    struct err e = {0};
    struct loss_table t = {0};
    enum loss_kept found;
    char kept[128];
    size_t n_known = 0, n_all = 0, n_stops = 0;
    measure_with(&t, &massive, (struct loss_measure){0});
    char *one = saved(&t, "one.json");
    snprintf(kept, sizeof kept, "%s/fast.kerf-state", plain.folder);
    for (int rc = ERR_CANCELLED; rc == ERR_CANCELLED; n_stops++) {
        int steps = 40 + 25 * (int)n_stops;
        struct loss_measure opt = {.pool = pool,
                                   .memory_bytes = 1 << 26,
                                   .progress = {stop_after_steps, &steps},
                                   .state_path = kept};
        check(loss_table_init(&t, massive.model, NULL, types, N_TYPES, &e), &e);
        t.probe = LOSS_PROBE_FAST;
        check(loss_table_continue(&found, &t, kept, &windows, &e), &e);
        loss_table_count(&t, &opt, &n_known, &n_all);
        assert_int_equal(n_all, 7 * N_LAYERS);
        rc = loss_table_measure(&t, &massive.net, massive.base, &windows, &opt, &e);
        if (rc != ERR_CANCELLED)
            check(rc, &e);
        else
            loss_table_release(&t);
        assert_true(n_stops < 60);
    }
    char *other = saved(&t, "other.json");
    assert_string_equal(one, other);
    assert_true(n_stops > 2);
    free(one);
    free(other);

    /* The state is one of fast probes, and no other run takes it up. */
    check(loss_table_init(&t, massive.model, NULL, types, N_TYPES, &e), &e);
    check(loss_table_continue(&found, &t, kept, &windows, &e), &e);
    assert_int_equal(found, LOSS_KEPT_UNFIT);
    assert_non_null(strstr(e.msg, "fast.kerf-state: begun with fast probes, not full"));
    loss_table_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_of_layers_are_the_layers),
        cmocka_unit_test(figures_are_those_of_brute_force),
        cmocka_unit_test(beta_is_interpolated_over_depth),
        cmocka_unit_test(a_massive_layer_is_found_and_measured),
        cmocka_unit_test(passes_are_counted_and_bounded),
        cmocka_unit_test(the_same_table_for_threads_and_memory_and_back),
        cmocka_unit_test(a_stopped_run_continues_to_the_same_table),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
