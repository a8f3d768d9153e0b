/* test_compute.c - two back ends, one result: every kind of layer through compute_cpu and through one whose
 * memory nobody but its own functions can touch (tests/support/far_compute.h). */
#include "calib/model/answer.h"
#include "calib/model/forward.h"
#include "calib/model/head.h"
#include "calib/stats/imatrix_sums.h"

#include "libquant/base/sha256.h"

#include "far_compute.h"
#include "toy_checkpoint.h"
#include "toy_family.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_TOKENS = 160 };

struct loaded {
    char folder[32];
    struct model *model;
    struct net net;
    struct weights *weights;
    struct pool *pool;
};

static void load(struct loaded *l, const char *name)
{
    struct err e = {0};
    struct toy_spec dense = toy_spec_tiny(TOY_QWEN2);
    *l = (struct loaded){.folder = "kerf-compute-XXXXXX"};
    dense.bias = true;
    assert_non_null(mkdtemp(l->folder));
    int rc = strcmp(name, "dense") == 0 ? toy_checkpoint_write(l->folder, &dense, &e)
                                        : toy_family_write(l->folder, name, &e);
    if (rc || model_open(&l->model, l->folder, &(struct model_options){0}, &e) ||
        net_init(&l->net, l->model, &e) || weights_new(&l->weights, l->model, NULL, &e) ||
        pool_new(&l->pool, 2, &e))
        fail_msg("%s: %s", name, e.msg);
}

static void unload(struct loaded *l)
{
    char command[64];
    weights_free(l->weights);
    net_release(&l->net);
    model_close(l->model);
    pool_free(l->pool);
    snprintf(command, sizeof command, "rm -r '%s'", l->folder);
    assert_int_equal(system(command), 0);
}

/* All that a pass and the head give: the importance matrices, scores, logits. */
struct result {
    struct imatrix_sums sums;
    struct sha256 attention; /* of what attention did with each window */
    uint8_t digest[32];
    size_t n_scores;
    struct head_score scores[2 * MAX_TOKENS];
    float logits[320];
};

static int look(void *ctx, const struct attention_observation *o, struct err *e)
{
    (void)e;
    struct result *r = ctx;
    sha256_update(&r->attention, o->x, o->n_tokens * o->n_cols * sizeof *o->x);
    sha256_update(&r->attention, o->mass, o->n_tokens * sizeof *o->mass);
    sha256_update(&r->attention, o->mixed, o->n_mixed * o->n_cols * sizeof *o->mixed);
    return 0;
}

/* Both observers, so that one ctx serves them. */
static int observe(void *ctx, const struct observation *o, struct err *e)
{
    return imatrix_sums_observe(&((struct result *)ctx)->sums, o, e);
}

struct course {
    const struct compute_ops *compute;
    size_t n_windows, ctx;
    uint64_t memory;
    enum activations activations;
    bool observed;
    struct kv_cache cache;
};

static void run(struct result *r, struct loaded *l, const struct course *c)
{
    struct err e = {0};
    struct hidden_states *states = NULL;
    size_t n = c->n_windows * c->ctx;
    int32_t ids[MAX_TOKENS], targets[MAX_TOKENS];
    memset(r, 0, sizeof *r);
    sha256_init(&r->attention);
    r->sums = (struct imatrix_sums){.pool = l->pool, .head = l->net.head.tensor, .process_output = true};
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * i * 31 + 7 * i + 11) % l->net.n_vocab);
    for (size_t i = 0; i < n; i++)
        targets[i] = ids[(i + 1) % n];
    struct forward_options f = {.compute = c->compute,
                                .pool = l->pool,
                                .memory_bytes = c->memory,
                                .activations = c->activations,
                                .cache = c->cache,
                                .keep_end = c->ctx,
                                .observe = c->observed ? observe : NULL,
                                .observe_attention = c->observed && c->ctx < 100 ? look : NULL,
                                .observe_ctx = r};
    if (forward_run(&states, &l->net, l->weights, ids, c->n_windows, c->ctx, &f, &e))
        fail_msg("%s", e.msg);
    struct head_model m[2] = {{&l->net, l->weights, states}, {&l->net, l->weights, states}};
    struct head_options h = {
        .pool = l->pool, .memory_bytes = c->memory, .activations = c->activations, .compute = c->compute};
    if (head_score(m, 2, targets, n, &h, r->scores, &e) || head_logits(m, n - 1, 1, &h, r->logits, &e))
        fail_msg("%s", e.msg);
    sha256_final(&r->attention, r->digest);
    r->n_scores = 2 * n;
    hidden_states_free(states);
}

static void check_sums(const struct imatrix_sums *want, const struct imatrix_sums *found)
{
    assert_int_equal(found->n, want->n);
    for (size_t i = 0; i < want->n; i++) {
        const struct sums_entry *x = &want->entries[i];
        uint64_t at = 0;
        assert_true(strmap_find(&found->by_name, x->name, strlen(x->name), &at));
        const struct sums_entry *y = &found->entries[at];
        assert_int_equal(y->n_cols * y->n_mats, x->n_cols * x->n_mats);
        assert_memory_equal(y->sums, x->sums, x->n_cols * x->n_mats * sizeof *x->sums);
        assert_memory_equal(y->counts, x->counts, x->n_mats * sizeof *x->counts);
    }
}

static void check_model(const char *name)
{
    static struct result want, found;
    struct loaded l;
    load(&l, name);
    const struct course courses[] = {
        {.n_windows = 2, .ctx = 70, .memory = (uint64_t)1 << 26},
        {.n_windows = 1, .ctx = 150, .memory = 1 << 10}, /* a window in blocks; states through a file */
        {.n_windows = 3,
         .ctx = 40,
         .memory = (uint64_t)1 << 26,
         .activations = ACTIVATIONS_Q8,
         .observed = true},
        {.n_windows = 1, .ctx = 150, .memory = 1 << 10, .observed = true},
        {.n_windows = 1, .ctx = 150, .memory = 1 << 10, .cache = {QTYPE_BF16, QTYPE_F16}},
    };
    for (size_t i = 0; i < sizeof courses / sizeof *courses; i++) {
        struct course c = courses[i];
        c.compute = &compute_cpu;
        run(&want, &l, &c);
        c.compute = &compute_far;
        run(&found, &l, &c);
        assert_memory_equal(want.scores, found.scores, want.n_scores * sizeof *want.scores);
        assert_memory_equal(want.logits, found.logits, sizeof want.logits);
        assert_true(c.observed ? want.sums.n > 0 : want.sums.n == 0);
        check_sums(&want.sums, &found.sums);
        assert_memory_equal(want.digest, found.digest, sizeof want.digest);
        imatrix_sums_release(&want.sums);
        imatrix_sums_release(&found.sums);
    }
    unload(&l);
}

static void dense_layers_are_the_same_anywhere(void **state)
{
    (void)state;
    check_model("dense");
    check_model("qwen");
    check_model("olmo2");
    check_model("smollm3");
    check_model("granite");
    check_model("gemma2");
    check_model("gemma3");
    check_model("phi3");
    check_model("glm4");
}

static void experts_are_the_same_anywhere(void **state)
{
    (void)state;
    check_model("mixtral");
    check_model("qwen2moe");
    check_model("qwen3moe-mixed");
    check_model("glm4moe");
    check_model("gptoss");
    check_model("deepseek3");
    check_model("deepseek2");
}

static void delta_nets_are_the_same_anywhere(void **state)
{
    (void)state;
    check_model("qwen3next");
    check_model("qwen35moe");
}

static void scores_of_texts_are_the_same_anywhere(void **state)
{
    (void)state;
    struct loaded l;
    struct err e = {0};
    int32_t ids[40];
    double score[2][3];
    const size_t rows[3] = {4, 17, 39};
    load(&l, "reward");
    for (size_t i = 0; i < 40; i++)
        ids[i] = (int32_t)((i * i * 31 + 7 * i + 11) % l.net.n_vocab);
    for (size_t k = 0; k < 2; k++) {
        const struct compute_ops *ops = k ? &compute_far : &compute_cpu;
        struct hidden_states *states = NULL;
        struct forward_options f = {
            .compute = ops, .pool = l.pool, .memory_bytes = (uint64_t)1 << 26, .keep_end = 40};
        assert_int_equal(forward_run(&states, &l.net, l.weights, ids, 1, 40, &f, &e), 0);
        assert_int_equal(answer_scores(score[k], &l.net, l.weights, states, rows, 3,
                                       &(struct answer_options){l.pool, ACTIVATIONS_F32, ops}, &e),
                         0);
        hidden_states_free(states);
    }
    assert_memory_equal(score[0], score[1], sizeof score[0]);
    unload(&l);
}

/* A pass that goes on from states another back end left. */
static void a_pass_takes_states_of_another_back_end(void **state)
{
    (void)state;
    struct loaded l;
    struct err e = {0};
    int32_t ids[60];
    load(&l, "qwen3next");
    for (size_t i = 0; i < 60; i++)
        ids[i] = (int32_t)((i * 29 + 3) % l.net.n_vocab);
    struct hidden_states *half[2] = {0}, *end[2] = {0};
    const struct compute_ops *const ops[2] = {&compute_cpu, &compute_far};
    struct forward_options f = {.pool = l.pool, .memory_bytes = (uint64_t)1 << 26, .keep_end = 60};
    for (size_t k = 0; k < 2; k++) {
        struct forward_span a = {NULL, 0, 2};
        f.compute = ops[k];
        assert_int_equal(forward_run_span(&half[k], &l.net, l.weights, ids, 1, 60, &a, &f, &e), 0);
    }
    for (size_t k = 0; k < 2; k++) {
        struct forward_span b = {half[1 - k], 2, l.net.n_layers};
        f.compute = ops[k];
        assert_int_equal(forward_run_span(&end[k], &l.net, l.weights, ids, 1, 60, &b, &f, &e), 0);
    }
    size_t n = 60 * (size_t)l.net.n_embd;
    float *buffer = malloc(2 * n * sizeof *buffer), *p = NULL, *q = NULL;
    assert_non_null(buffer);
    assert_int_equal(hidden_states_get(end[0], 0, 60, buffer, &p, &e), 0);
    assert_int_equal(hidden_states_get(end[1], 0, 60, buffer + n, &q, &e), 0);
    assert_memory_equal(p, q, n * sizeof *p);
    free(buffer);
    for (size_t k = 0; k < 2; k++) {
        hidden_states_free(half[k]);
        hidden_states_free(end[k]);
    }
    unload(&l);
}

/* Two windows: texts that share beginnings, down to a branch of a branch, and one that continues a whole
 * text. */
enum { N_BRANCHES = 6, ROWS = 150 };
static const struct row_branch tree_of_rows[N_BRANCHES] = {
    {0, 60, SIZE_MAX, 0}, {60, 30, 0, 50},         {90, 20, 1, 62},
    {110, 40, 0, 20},     {150, 100, SIZE_MAX, 0}, {250, 50, 4, 100},
};

/* The ids of what a branch ends, as a text; returns their number. */
static size_t text_of_branch(int32_t *ids, const int32_t *rows, const struct row_tree *tree, size_t branch)
{
    const struct row_branch *b = &tree->branches[branch];
    size_t end = b->n_before + b->n, len = end;
    for (;; b = &tree->branches[b->parent]) {
        memcpy(ids + b->n_before, rows + b->row, (end - b->n_before) * sizeof *ids);
        if (b->n_before == 0)
            return len;
        end = b->n_before;
    }
}

static void same_states(const struct hidden_states *a, size_t row_a, const struct hidden_states *b,
                        size_t row_b, size_t n, size_t n_cols)
{
    float *buffer = malloc(2 * n * n_cols * sizeof *buffer), *p = NULL, *q = NULL;
    assert_non_null(buffer);
    assert_int_equal(hidden_states_get(a, row_a, n, buffer, &p, NULL), 0);
    assert_int_equal(hidden_states_get(b, row_b, n, buffer + n * n_cols, &q, NULL), 0);
    assert_memory_equal(p, q, n * n_cols * sizeof *p);
    free(buffer);
}

/* `times` as many rows in each branch. Not for models whose rotary factors depend on the length of a text. */
static void check_branches(const char *name, size_t times)
{
    struct loaded l;
    struct err e = {0};
    struct row_branch branches[N_BRANCHES];
    struct row_tree tree = {branches, N_BRANCHES};
    size_t n = 2 * ROWS * times;
    int32_t *rows = malloc(n * sizeof *rows), *ids = malloc(n * sizeof *ids);
    load(&l, name);
    for (size_t i = 0; i < N_BRANCHES; i++) {
        const struct row_branch *b = &tree_of_rows[i];
        branches[i] = (struct row_branch){b->row * times, b->n * times, b->parent, b->n_before * times};
    }
    for (size_t i = 0; i < n; i++)
        rows[i] = (int32_t)((i * i * 31 + 7 * i + 11) % l.net.n_vocab);
    for (size_t k = 0; k < (times > 1 ? 1 : 3); k++) { /* the far one last: it is slow */
        struct hidden_states *all = NULL;
        struct forward_options f = {.compute = k == 2 ? &compute_far : &compute_cpu,
                                    .pool = l.pool,
                                    .memory_bytes = k == 1 ? 1 << 10 : (uint64_t)1 << 26,
                                    .activations = k == 1 ? ACTIVATIONS_Q8 : ACTIVATIONS_F32,
                                    .tree = &tree,
                                    .keep_end = ROWS * times};
        if (forward_run(&all, &l.net, l.weights, rows, 2, ROWS * times, &f, &e))
            fail_msg("%s: %s", name, e.msg);
        f.tree = NULL;
        f.compute = &compute_cpu;
        for (size_t i = 0; i < N_BRANCHES; i++) {
            struct hidden_states *alone = NULL;
            f.keep_end = text_of_branch(ids, rows, &tree, i);
            assert_int_equal(forward_run(&alone, &l.net, l.weights, ids, 1, f.keep_end, &f, &e), 0);
            same_states(all, branches[i].row, alone, branches[i].n_before, branches[i].n, l.net.n_embd);
            hidden_states_free(alone);
        }
        hidden_states_free(all);
    }
    free(rows);
    free(ids);
    unload(&l);
}

static void branches_are_texts_alone(void **state)
{
    (void)state;
    static const char *const names[] = {"dense",  "gemma2",    "gemma3",    "glm4",   "qwen3moe-mixed",
                                        "gptoss", "deepseek3", "deepseek2", "granite"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check_branches(names[i], 1);
    check_branches("gemma2", 9); /* more than a block of keys */
}

/* A parent that ends too early or comes later, a gap, a window left or a layer that carries states. */
static void branches_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct row_branch wrong[][2] = {
        {{0, 20, SIZE_MAX, 0}, {20, 20, 0, 21}}, {{0, 20, 1, 5}, {20, 20, SIZE_MAX, 0}},
        {{0, 20, SIZE_MAX, 0}, {21, 19, 0, 5}},  {{0, 21, SIZE_MAX, 0}, {21, 20, 0, 5}},
        {{0, 20, SIZE_MAX, 0}, {20, 10, 0, 5}},  {{0, 20, SIZE_MAX, 0}, {20, 20, SIZE_MAX, 5}},
    };
    static const struct row_branch right[2] = {{0, 20, SIZE_MAX, 0}, {20, 20, 0, 5}};
    int32_t ids[40] = {0};
    struct loaded l;
    for (size_t k = 0; k < 2; k++) {
        load(&l, k ? "qwen3next" : "dense");
        struct row_tree tree = {right, 2};
        struct forward_options f = {.pool = l.pool, .memory_bytes = 1 << 20, .tree = &tree, .keep_end = 40};
        assert_int_equal(forward_takes_tree(&l.net), k == 0);
        assert_int_equal(forward_run(NULL, &l.net, l.weights, ids, 1, 40, &f, NULL), k ? ERR_ARG : 0);
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            tree.branches = wrong[i];
            assert_int_equal(forward_run(NULL, &l.net, l.weights, ids, 1, 40, &f, NULL), ERR_ARG);
        }
        unload(&l);
    }
}

/* Else the tests above would prove nothing. */
static void far_memory_is_out_of_reach(void **state)
{
    (void)state;
    struct compute *c = NULL;
    struct pool *pool = NULL;
    struct buffer *b = NULL;
    float x[3] = {1, 2, 3}, y[3] = {0};
    const float *seen = NULL;
    assert_int_equal(pool_new(&pool, 1, NULL), 0);
    struct compute_setup setup = {pool, NULL, ACTIVATIONS_F32, 4};
    assert_int_equal(compute_open(&c, &compute_far, &setup, NULL), 0);
    assert_int_equal(c->ops->buffer_new(&b, c, 3, NULL), 0);
    size_t before = far_n_copied();
    assert_int_equal(c->ops->upload(c, (struct region){b, 0}, x, 3, NULL), 0);
    assert_int_equal(c->ops->download(c, y, (struct region){b, 0}, 3, NULL), 0);
    assert_int_equal(c->ops->look(c, &seen, (struct region){b, 1}, 2, NULL), 0);
    assert_memory_equal(x, y, sizeof x);
    assert_memory_equal(x + 1, seen, 2 * sizeof *x);
    assert_int_equal(far_n_copied() - before, 8);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* the test library and sanitizers would catch it */
        signal(SIGBUS, SIG_DFL);
        float stolen = *far_pages(b);
        (void)stolen;
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    c->ops->buffer_free(c, b);
    compute_close(c);
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(far_memory_is_out_of_reach),
        cmocka_unit_test(dense_layers_are_the_same_anywhere),
        cmocka_unit_test(experts_are_the_same_anywhere),
        cmocka_unit_test(delta_nets_are_the_same_anywhere),
        cmocka_unit_test(scores_of_texts_are_the_same_anywhere),
        cmocka_unit_test(branches_are_texts_alone),
        cmocka_unit_test(branches_that_do_not_fit_are_refused),
        cmocka_unit_test(a_pass_takes_states_of_another_back_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
