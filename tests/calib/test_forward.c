/* test_forward.c - the forward pass against HuggingFace: every token's likelihood of small models of each
 * family, all logits of one position of the trained demo; the same bits for any threads and memory; what
 * observers see. */
#include "calib/model/forward.h"
#include "calib/model/head.h"
#include "toy_checkpoint.h"
#include "toy_family.h"

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

#define DEMO    KERF_TEST_DATA "/demo-qwen3"
#define MAX_IDS 160

struct loaded {
    struct model *model;
    struct net net;
    struct weights *weights;
};

static void load(struct loaded *l, const char *path)
{
    struct err e = {0};
    *l = (struct loaded){0};
    if (model_open(&l->model, path, &(struct model_options){0}, &e) || net_init(&l->net, l->model, &e) ||
        weights_new(&l->weights, l->model, NULL, &e))
        fail_msg("%s", e.msg);
}

static void unload(struct loaded *l)
{
    weights_free(l->weights);
    net_release(&l->net);
    model_close(l->model);
}

/* Likelihoods of ids 1..n-1 in windows of ctx; kept states can be looked at through `states`. */
static void likelihoods(double *nll, struct loaded *l, const int32_t *ids, size_t n, size_t ctx,
                        unsigned threads, uint64_t memory, float *logits)
{
    struct err e = {0};
    struct pool *pool = NULL;
    struct hidden_states *states = NULL;
    assert_int_equal(pool_new(&pool, threads, &e), 0);
    struct forward_options f = {.pool = pool, .memory_bytes = memory, .keep_end = ctx};
    struct head_options h = {.pool = pool, .memory_bytes = memory};
    if (forward_run(&states, &l->net, l->weights, ids, n / ctx, ctx, &f, &e))
        fail_msg("%s", e.msg);
    struct head_model m = {&l->net, l->weights, states};
    struct head_score *s = calloc(n, sizeof *s);
    int32_t *targets = calloc(n, sizeof *targets);
    for (size_t i = 0; i < n; i++)
        targets[i] = i % ctx == ctx - 1 ? 0 : ids[i + 1];
    assert_int_equal(head_score(&m, 1, targets, n, &h, s, &e), 0);
    for (size_t i = 0; i < n; i++)
        nll[i] = s[i].nll;
    if (logits)
        assert_int_equal(head_logits(&m, n - 1, 1, &h, logits, &e), 0);
    free(s);
    free(targets);
    hidden_states_free(states);
    pool_free(pool);
}

static void make_ids(int32_t *ids, size_t n, uint64_t vocab, uint64_t cube)
{
    for (uint64_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * i * i * cube + i * i * 31 + 7 * i + 11) % vocab);
}

static bool toy_of(const char *name, struct toy_spec *spec)
{
    static const char *const archs[TOY_ARCH_COUNT] = {"qwen2", "qwen3", "llama", "mistral"};
    for (int a = 0; a < TOY_ARCH_COUNT; a++)
        if (strncmp(name, archs[a], strlen(archs[a])) == 0) {
            *spec = toy_spec_tiny((enum toy_arch)a);
            if (strstr(name, "-yarn"))
                spec->rope_scaling = ROPE_YARN;
            if (strstr(name, "-llama3"))
                spec->rope_scaling = ROPE_LLAMA3;
            if (strstr(name, "-linear"))
                spec->rope_scaling = ROPE_LINEAR;
            spec->bias = strstr(name, "-bias") != NULL;
            if (strstr(name, "-untied"))
                spec->tied = false;
            if (strstr(name, "-f32"))
                spec->dtype = ST_F32;
            return true;
        }
    return false;
}

/* A new folder with the checkpoint of this name; false for the demo, which lies ready. */
static bool make_folder(char folder[32], const char *name)
{
    struct toy_spec spec;
    struct err e = {0};
    strcpy(folder, "kerf-toy-XXXXXX");
    if (strncmp(name, "demo", 4) == 0)
        return false;
    int rc = mkdtemp(folder) ? 0 : -1;
    for (const char *const *f = toy_family_names; rc == 0 && *f; f++)
        if (strcmp(*f, name) == 0) {
            rc = toy_family_write(folder, name, &e);
            if (rc == 0)
                return true;
        }
    if (rc == 0 && toy_of(name, &spec))
        rc = toy_checkpoint_write(folder, &spec, &e);
    if (rc != 0)
        fail_msg("%s: %s", name, e.msg);
    return true;
}

static void remove_folder(const char *folder)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void check_model(const char *name, char *numbers)
{
    char folder[32];
    struct loaded l;
    int32_t ids[MAX_IDS + 1];
    double nll[MAX_IDS];
    size_t n = 0;
    bool toy = make_folder(folder, name);
    load(&l, toy ? folder : DEMO);
    double want[MAX_IDS];
    for (char *p = strtok(numbers, " \n"); p && n + 1 < MAX_IDS; p = strtok(NULL, " \n"))
        want[n++] = strtod(p, NULL);
    make_ids(ids, n + 1, l.net.n_vocab, toy ? 0 : 101);
    likelihoods(nll, &l, ids, n + 1, n + 1, 2, 1 << 26, NULL);
    /* The reference runs delta nets in chunks, which rounds the state in another order. */
    double tolerance = strstr(name, "next") || strstr(name, "35") ? 2e-4 : 2e-5;
    for (size_t i = 0; i < n; i++)
        if (!(fabs(nll[i] - want[i]) < tolerance))
            fail_msg("%s: token %zu: expected %.7f, found %.7f", name, i + 1, want[i], nll[i]);
    unload(&l);
    if (toy)
        remove_folder(folder);
}

static void every_family_gives_the_likelihoods_of_the_reference(void **state)
{
    (void)state;
    FILE *f = fopen(KERF_TEST_GOLDEN "/forward.txt", "r");
    assert_non_null(f);
    static char line[1 << 14];
    size_t n_models = 0;
    while (fgets(line, sizeof line, f)) {
        char *space = strchr(line, ' ');
        if (line[0] == '#' || !space)
            continue;
        *space = 0;
        check_model(line, space + 1);
        n_models++;
    }
    fclose(f);
    assert_true(n_models >= 17);
}

static int rope_divided(struct rope *r, const struct gguf_meta *m, const char *arch, uint32_t head_dim,
                        const struct rope_divisors *d, struct err *e)
{
    struct hparams h;
    hparams_read(&h, m, arch);
    return rope_init(r, &h, head_dim, d, e);
}

static int rope_from(struct rope *r, const struct gguf_meta *m, const char *arch, uint32_t head_dim,
                     struct err *e)
{
    return rope_divided(r, m, arch, head_dim, NULL, e);
}

/* transformers 5.23, ROPE_INIT_FUNCTIONS["yarn"]: head_dim 32, theta 1e4, factor 8, trained on 128 positions.
 */
static void yarn_frequencies_are_those_of_the_reference(void **state)
{
    (void)state;
    static const float want[2][6] = {
        {1.0f, 0.468369335f, 0.210539103f, 0.0886782855f, 0.033156611f, 0.00924813375f}, /* truncate: false */
        {1.0f, 0.480333209f, 0.223994657f, 0.100028217f, 0.0416666642f, 0.0152300783f}};
    for (int truncate = 0; truncate < 2; truncate++) {
        struct gguf_meta *m = NULL;
        struct rope r = {0};
        struct err e = {0};
        assert_int_equal(gguf_meta_new(&m, &e), 0);
        assert_int_equal(gguf_meta_set_string(m, "qwen3.rope.scaling.type", "yarn", &e), 0);
        assert_int_equal(gguf_meta_set_f32(m, "qwen3.rope.scaling.factor", 8, &e), 0);
        assert_int_equal(gguf_meta_set_u32(m, "qwen3.rope.scaling.original_context_length", 128, &e), 0);
        if (!truncate)
            assert_int_equal(gguf_meta_set_bool(m, "qwen3.ext.yarn_truncate", false, &e), 0);
        if (rope_from(&r, m, "qwen3", 32, &e) != 0)
            fail_msg("%s", e.msg);
        for (int i = 0; i < 6; i++)
            assert_true(fabsf(r.inv_freq[i] - want[truncate][i]) <= 1e-6f * want[truncate][i]);
        assert_true(fabsf(r.magnitude - 1.2079442f) < 1e-6f);
        rope_release(&r);
        gguf_meta_free(m);
    }
}

/* LongRoPE: one set of divisors up to the original context, one beyond it, the same magnitude in both. */
static void longer_texts_than_the_original_context_take_the_long_factors(void **state)
{
    (void)state;
    static const float near[] = {1, 2, 3, 4}, far[] = {5, 6, 7, 8};
    struct rope_divisors d = {.usual = near, .in_long = far, .n = 4};
    struct gguf_meta *m = NULL;
    struct rope r = {0};
    struct err e = {0};
    assert_int_equal(gguf_meta_new(&m, &e), 0);
    assert_int_equal(rope_divided(&r, m, "phi3", 8, &d, &e), ERR_FORMAT); /* original context not stated */
    assert_int_equal(gguf_meta_set_u32(m, "phi3.rope.scaling.original_context_length", 20, &e), 0);
    assert_int_equal(gguf_meta_set_f32(m, "phi3.rope.scaling.attn_factor", 1.25F, &e), 0);
    assert_int_equal(rope_divided(&r, m, "phi3", 16, &d, &e), ERR_FORMAT); /* 4 divisors for 8 pairs */
    assert_int_equal(rope_divided(&r, m, "phi3", 8, &d, &e), 0);
    for (size_t n = 20; n <= 21; n++) {
        struct rope_table t;
        const float *divisor = n > 20 ? far : near;
        assert_int_equal(rope_table_init(&t, &r, n, &e), 0);
        for (size_t i = 0; i < 4; i++) {
            double angle = 19 * pow(10000, -2.0 * (double)i / 8) / (double)divisor[i];
            assert_true(fabs((double)t.sine[19 * t.n_pairs + i] - 1.25 * sin(angle)) < 1e-5);
        }
        rope_table_release(&t);
    }
    rope_release(&r);
    gguf_meta_free(m);
}

/* Qwen 1.0, trained on 100 tokens: alpha = 2^ceil(log2(n/100) + 1) - 1, queries scaled by log_100(p + 1). */
static void long_texts_change_base_and_query_scale_of_the_first_qwen(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        double alpha;
    } rows[] = {{100, 1}, {101, 3}, {200, 3}, {201, 7}, {900, 31}};
    struct gguf_meta *m = NULL;
    struct rope r = {0};
    struct err e = {0};
    assert_int_equal(gguf_meta_new(&m, &e), 0);
    assert_int_equal(gguf_meta_set_u32(m, "qwen.ext.train_length", 100, &e), 0);
    assert_int_equal(gguf_meta_set_bool(m, "qwen.ext.dynamic_ntk", true, &e), 0);
    assert_int_equal(gguf_meta_set_bool(m, "qwen.ext.logn_attention", true, &e), 0);
    assert_int_equal(rope_from(&r, m, "qwen", 64, &e), 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rope_table t;
        assert_int_equal(rope_table_init(&t, &r, rows[i].n, &e), 0);
        double theta = 10000 * pow(rows[i].alpha, 64.0 / 62.0), f = pow(theta, -2.0 * 5 / 64);
        assert_true(fabs((double)t.sine[3 * t.n_pairs + 5] - sin(3 * f)) < 1e-6);
        assert_true((t.query_scale != NULL) == (rows[i].n > 100));
        if (t.query_scale) {
            assert_true(t.query_scale[99] == 1.0f);
            assert_true(fabs((double)t.query_scale[100] - log(101) / log(100)) < 1e-6);
        }
        rope_table_release(&t);
    }
    rope_release(&r);
    assert_int_equal(gguf_meta_set_u32(m, "qwen.ext.train_length", 1, &e), 0); /* log 1 divides nothing */
    assert_int_equal(rope_from(&r, m, "qwen", 64, &e), ERR_FORMAT);
    gguf_meta_free(m);
}

static void demo_logits_are_those_of_the_reference(void **state)
{
    (void)state;
    static float want[4096], found[4096];
    FILE *f = fopen(KERF_TEST_GOLDEN "/forward_demo.f32", "rb");
    assert_non_null(f);
    assert_int_equal(fread(want, sizeof *want, 4096, f), 4096);
    fclose(f);
    struct loaded l;
    int32_t ids[40];
    double nll[40], p = 0, q = 0, kld = 0;
    load(&l, DEMO);
    make_ids(ids, 40, 4096, 101);
    likelihoods(nll, &l, ids, 40, 40, 1, 1 << 26, found);
    size_t top_want = 0, top_found = 0;
    for (size_t i = 0; i < 4096; i++) {
        p += exp((double)want[i]);
        q += exp((double)found[i]);
        top_want = want[i] > want[top_want] ? i : top_want;
        top_found = found[i] > found[top_found] ? i : top_found;
    }
    for (size_t i = 0; i < 4096; i++)
        kld += exp((double)want[i]) / p * ((double)want[i] - log(p) - (double)found[i] + log(q));
    assert_int_equal(top_found, top_want);
    assert_true(fabs(kld) < 1e-9);
    unload(&l);
}

static void check_bits(const char *path)
{
    static int32_t ids[2400];
    static double first[2400], other[2400];
    struct loaded l;
    load(&l, path);
    const size_t contexts[] = {100, 1200, 2400};
    make_ids(ids, 2400, l.net.n_vocab, 101);
    for (size_t i = 0; i < 3; i++) {
        likelihoods(first, &l, ids, 2400, contexts[i], 1, 1 << 30, NULL);
        likelihoods(other, &l, ids, 2400, contexts[i], 3, 1 << 30, NULL);
        assert_memory_equal(first, other, sizeof first);
        likelihoods(other, &l, ids, 2400, contexts[i], 2, 1 << 20, NULL); /* states go through a file */
        assert_memory_equal(first, other, sizeof first);
    }
    unload(&l);
}

static void threads_and_memory_do_not_change_a_bit(void **state)
{
    (void)state;
    const char *const families[] = {"qwen3next", "qwen35moe", "mixtral"};
    char folder[32];
    check_bits(DEMO);
    for (size_t i = 0; i < 3; i++) {
        make_folder(folder, families[i]);
        check_bits(folder);
        remove_folder(folder);
    }
}

struct seen {
    size_t n_tensors, n_rows;
    double sum; /* of squares of what multiplies attn_q of layer 0 */
    bool shared;
};

static int look(void *ctx, const struct observation *o, struct err *e)
{
    (void)e;
    struct seen *s = ctx;
    s->n_tensors += o->n_tensors;
    for (size_t k = 0; k < o->n_tensors; k++)
        if (strcmp(o->tensors[k]->name, "blk.0.attn_q.weight") == 0) {
            s->n_rows += o->n_tokens;
            s->shared = o->n_tensors == 3;
            for (size_t i = 0; i < o->n_tokens * o->n_cols; i++)
                s->sum += (double)o->x[i] * (double)o->x[i];
        }
    return 0;
}

static void observers_see_the_inputs_of_every_product(void **state)
{
    (void)state;
    struct loaded l;
    struct err e = {0};
    struct seen s = {0};
    struct pool *pool = NULL;
    int32_t ids[200];
    load(&l, DEMO);
    make_ids(ids, 200, 4096, 101);
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    struct forward_options f = {.pool = pool, .memory_bytes = 1 << 26, .observe = look, .observe_ctx = &s};
    assert_int_equal(forward_run(NULL, &l.net, l.weights, ids, 2, 100, &f, &e), 0);
    assert_int_equal(s.n_tensors, 4 * 7 + 2); /* seven matrices a layer; the head once for each window */
    assert_int_equal(s.n_rows, 200);
    assert_true(s.shared);
    /* The input is rms-normed and scaled: its squares are the embedding's, normalised, times weights^2. */
    const float *norm = l.net.layers[0].attention.norm;
    double want = 0;
    float *row = malloc(256 * sizeof *row);
    for (size_t t = 0; t < 200; t++) {
        double mean = 0;
        assert_int_equal(model_read_rows(l.model, l.net.embedding, (uint64_t)ids[t], 1, row, &e), 0);
        for (size_t i = 0; i < 256; i++)
            mean += (double)row[i] * (double)row[i] / 256;
        for (size_t i = 0; i < 256; i++)
            want += pow((double)row[i] * (double)norm[i], 2) / (mean + (double)l.net.eps);
    }
    assert_true(fabs(s.sum - want) < 1e-5 * want);
    free(row);
    pool_free(pool);
    unload(&l);
}

static int stop_now(void *ctx, const struct progress_step *s)
{
    (void)ctx;
    return progress_share(s) >= 0.5;
}

/* The message says what is missing, and with that much more it runs. */
static void a_bound_that_one_window_exceeds_is_refused(void **state)
{
    (void)state;
    enum { CTX = 4096 };
    struct loaded l;
    struct err e = {0};
    struct pool *pool = NULL;
    struct hidden_states *states = NULL;
    static int32_t ids[CTX];
    unsigned long long missing = 0, need = 0, have = 0;
    load(&l, DEMO);
    assert_int_equal(pool_new(&pool, 2, &e), 0);
    struct forward_options f = {.pool = pool, .memory_bytes = 3 << 20, .memory_share = 2, .keep_end = 1};
    assert_int_equal(forward_run(&states, &l.net, l.weights, ids, 1, CTX, &f, &e), ERR_ARG);
    assert_null(states);
    assert_int_equal(
        sscanf(e.msg,
               "windows of 4096 tokens need %llu MiB here, and %llu MiB of the working memory are "
               "left for them; raise --memory by at least %llu MiB",
               &need, &have, &missing),
        3);
    assert_int_equal(have, 3);
    assert_true(need > 2 * sizeof(float) * CTX * l.net.n_embd >> 20 && missing >= 2 * (need - have - 1));
    f.memory_bytes += (missing << 20) / 2; /* two parts share what is added */
    if (forward_run(&states, &l.net, l.weights, ids, 1, CTX, &f, &e) != 0)
        fail_msg("%s", e.msg);
    hidden_states_free(states);
    pool_free(pool);
    unload(&l);
}

static void wrong_input_and_wishes_to_stop_are_answered(void **state)
{
    (void)state;
    struct loaded l;
    struct err e = {0};
    struct pool *pool = NULL;
    int32_t ids[4] = {1, 2, 4096, 3};
    load(&l, DEMO);
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    struct forward_options f = {.pool = pool, .memory_bytes = 1 << 26, .keep_end = 4};
    struct hidden_states *states = NULL;
    assert_int_equal(forward_run(&states, &l.net, l.weights, ids, 1, 4, &f, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "4096"));
    ids[2] = 4095;
    f.progress.tell = stop_now;
    assert_int_equal(forward_run(&states, &l.net, l.weights, ids, 1, 4, &f, &e), ERR_CANCELLED);
    assert_null(states);
    pool_free(pool);
    unload(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_gives_the_likelihoods_of_the_reference),
        cmocka_unit_test(yarn_frequencies_are_those_of_the_reference),
        cmocka_unit_test(longer_texts_than_the_original_context_take_the_long_factors),
        cmocka_unit_test(long_texts_change_base_and_query_scale_of_the_first_qwen),
        cmocka_unit_test(demo_logits_are_those_of_the_reference),
        cmocka_unit_test(threads_and_memory_do_not_change_a_bit),
        cmocka_unit_test(observers_see_the_inputs_of_every_product),
        cmocka_unit_test(a_bound_that_one_window_exceeds_is_refused),
        cmocka_unit_test(wrong_input_and_wishes_to_stop_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
