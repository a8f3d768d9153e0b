/* test_adapter_forward.c - adapters merged into small models against PEFT: every token's likelihood, whether
 * the PEFT folder is merged into the checkpoint, or the adapter file into the GGUF file of the base. */
#include "calib/model/forward.h"
#include "calib/model/head.h"
#include "formats/rewrite/rewrite.h"
#include "scratch.h"
#include "toy_adapter.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_IDS 160

static struct pool *pool;

static void check(int rc, const struct err *e)
{
    if (rc != 0)
        fail_msg("%s", e->msg);
}

/* Likelihoods of ids 1..n of a model with one adapter. */
static void likelihoods(double *nll, const char *path, const char *adapter, size_t n)
{
    struct err e = {0};
    struct model *model = NULL;
    struct net net = {0};
    struct weights *weights = NULL;
    struct hidden_states *states = NULL;
    const struct model_adapter one = {.path = adapter, .scale = 1};
    const struct model_options opt = {.adapters = &one, .n_adapters = 1};
    check(model_open(&model, path, &opt, &e), &e);
    assert_int_equal(model_n_adapters(model), 1);
    check(net_init(&net, model, &e), &e);
    check(weights_new(&weights, model, NULL, &e), &e);
    int32_t ids[MAX_IDS + 1];
    for (uint64_t i = 0; i <= n; i++)
        ids[i] = (int32_t)((i * i * 31 + 7 * i + 11) % net.n_vocab);
    struct forward_options f = {.pool = pool, .memory_bytes = 1 << 26, .keep_end = n + 1};
    struct head_options h = {.pool = pool, .memory_bytes = 1 << 26};
    check(forward_run(&states, &net, weights, ids, 1, n + 1, &f, &e), &e);
    struct head_model m = {&net, weights, states};
    struct head_score *s = calloc(n + 1, sizeof *s);
    int32_t targets[MAX_IDS + 1] = {0};
    memcpy(targets, ids + 1, n * sizeof *ids);
    check(head_score(&m, 1, targets, n + 1, &h, s, &e), &e);
    for (size_t i = 0; i < n; i++)
        nll[i] = s[i].nll;
    free(s);
    hidden_states_free(states);
    weights_free(weights);
    net_release(&net);
    model_close(model);
}

static void expect(const char *name, const char *path, const char *adapter, const double *want, size_t n)
{
    double nll[MAX_IDS];
    /* The reference runs delta nets in chunks, which rounds the state in another order. */
    double tolerance = strcmp(name, "hybrid") == 0 ? 2e-4 : 2e-5;
    likelihoods(nll, path, adapter, n);
    for (size_t i = 0; i < n; i++)
        if (!(fabs(nll[i] - want[i]) < tolerance))
            fail_msg("%s: token %zu: expected %.7f, found %.7f", name, i + 1, want[i], nll[i]);
}

static int write_file(const char *from, const char *base, const char *to, struct err *e)
{
    struct model *m = NULL;
    const struct model_options mo = {.base = base};
    const struct rewrite_options ro = {.recipe = {.recipe = "llama.cpp", .mix = mix_find("F32")},
                                       .overwrite = true,
                                       .memory_bytes = 1 << 27,
                                       .kern = kern_native(),
                                       .pool = pool};
    int rc = model_open(&m, from, &mo, e);
    if (rc == 0)
        rc = rewrite_model(NULL, m, to, &ro, e);
    model_close(m);
    return rc;
}

static size_t number_of(const char *name)
{
    size_t i = 0;
    while (toy_adapter_names[i] && strcmp(toy_adapter_names[i], name) != 0)
        i++;
    assert_non_null(toy_adapter_names[i]);
    return i;
}

static void check_adapter(const char *name, char *numbers)
{
    char base[100], adapter[100], base_file[100], file[100];
    double want[MAX_IDS];
    size_t n = 0;
    struct err e = {0};
    snprintf(base, sizeof base, "%s-base", in_scratch(name));
    snprintf(adapter, sizeof adapter, "%s", in_scratch(name));
    snprintf(base_file, sizeof base_file, "%s-base.gguf", in_scratch(name));
    snprintf(file, sizeof file, "%s.gguf", in_scratch(name));
    for (char *p = strtok(numbers, " \n"); p && n + 1 < MAX_IDS; p = strtok(NULL, " \n"))
        want[n++] = strtod(p, NULL);
    check(toy_adapter_write_base(base, toy_adapter_bases[number_of(name)], &e), &e);
    check(toy_adapter_write(adapter, name, &e), &e);
    expect(name, base, adapter, want, n);
    int rc = write_file(adapter, base, file, &e);
    bool has_form = strcmp(name, "dora") != 0 && strcmp(name, "tied") != 0 && strcmp(name, "whole") != 0;
    assert_int_equal(rc, has_form ? 0 : ERR_UNSUPPORTED);
    if (!has_form)
        return;
    check(write_file(base, NULL, base_file, &e), &e);
    expect(name, base_file, file, want, n);
}

static void merged_adapters_give_the_likelihoods_of_peft(void **state)
{
    (void)state;
    static char line[1 << 14];
    size_t n = 0;
    FILE *f = fopen(KERF_TEST_GOLDEN "/forward_adapter.txt", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        char *space = strchr(line, ' ');
        if (line[0] == '#' || !space)
            continue;
        *space = 0;
        check_adapter(line, space + 1);
        n++;
    }
    fclose(f);
    assert_int_equal(n, 8); /* every toy adapter */
    assert_null(toy_adapter_names[n]);
}

int main(void)
{
    struct err e = {0};
    const struct CMUnitTest tests[] = {cmocka_unit_test(merged_adapters_give_the_likelihoods_of_peft)};
    if (pool_new(&pool, 2, &e) != 0)
        return 1;
    int rc = cmocka_run_group_tests(tests, scratch_begin, scratch_end);
    pool_free(pool);
    return rc;
}
