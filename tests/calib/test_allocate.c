/* test_allocate.c - plans within budgets, against files that are really written; rules; pairs; what is
 * refused; the plan as text. Losses are made up: what the table measures is test_loss_table.c. */
#include "calib/solve/allocate.h"
#include "calib/report/allocate_page.h"
#include "calib/report/page.h"
#include "formats/recipe/plan.h"
#include "formats/rewrite/rewrite.h"
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"
#include "formats/gguf/imatrix_file.h"
#include "toy_net.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64] = "kerf-allocate-XXXXXX";
static struct model *model;
static struct pool *pool;
static struct imatrix *importance;
static struct loss_table table;

static const enum qtype types[] = {QTYPE_Q2_K, QTYPE_Q3_K, QTYPE_Q4_K, QTYPE_Q5_K, QTYPE_Q6_K, QTYPE_Q8_0};

static int setup(void **state)
{
    (void)state;
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_LLAMA);
    struct imatrix_entry *entry = NULL;
    spec.tied = false;
    spec.ffn = 288; /* rows of ffn_down have no 256-blocks */
    assert_non_null(mkdtemp(folder));
    check(toy_checkpoint_write(folder, &spec, &e), &e);
    check(model_open(&model, folder, &(struct model_options){0}, &e), &e);
    check(pool_new(&pool, 2, &e), &e);
    check(imatrix_new(&importance, &e), &e);
    check(imatrix_add(importance, "blk.0.attn_q.weight", 256, 1, &entry, &e), &e);
    for (int i = 0; i < 256; i++)
        entry->sums[i] = i + 1;
    entry->counts[0] = 1;
    check(loss_table_init(&table, model, importance, types, 6, &e), &e);
    for (size_t i = 0; i < table.n_tensors; i++)
        for (size_t o = 0; o < table.tensors[i].n_options; o++) {
            struct loss_option *p = &table.tensors[i].options[o];
            double bits = 8.0 * (double)p->n_bytes /
                          (double)(table.tensors[i].tensor->n_rows * table.tensors[i].tensor->ne[0]);
            p->loss = p->type == QTYPE_BF16 ? 0 : (double)(i * i % 11 + 1) * exp2(-2 * bits);
        }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loss_table_release(&table);
    imatrix_free(importance);
    model_close(model);
    pool_free(pool);
    return 0;
}

static struct allocator *open_with(const struct allocate_rule *rules, size_t n, bool free_pairs)
{
    struct err e = {0};
    struct allocator *a = NULL;
    struct allocate_options opt = {
        .rules = rules, .n_rules = n, .free_pairs = free_pairs, .imatrix_path = "short.gguf", .pool = pool};
    check(allocator_new(&a, &table, &opt, &e), &e);
    return a;
}

static enum qtype type_of(const struct allocation *r, const char *name)
{
    for (size_t i = 0; i < table.n_tensors; i++)
        if (strcmp(table.tensors[i].tensor->name, name) == 0)
            return table.tensors[i].options[r->choice[i]].type;
    fail_msg("no tensor %s", name);
    return QTYPE_F32;
}

/* Quantize with the plan's text, and look at the file. */
static uint64_t written_bytes(const struct allocator *a, const struct allocation *r, const char *imatrix_path)
{
    struct err e = {0};
    struct plan *plan = NULL;
    char *text = NULL, path[128];
    struct rewrite_report report = {0};
    struct stat st;
    check(allocator_plan(a, r, NULL, &text, &e), &e);
    check(plan_parse(&plan, text, strlen(text), "plan", &e), &e);
    assert_int_equal(plan_n(plan), table.n_tensors);
    snprintf(path, sizeof path, "%s/out.gguf", folder);
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp", .plan = plan},
                                  .imatrix = importance,
                                  .imatrix_path = imatrix_path,
                                  .overwrite = true,
                                  .kern = kern_native(),
                                  .memory_bytes = 1 << 26,
                                  .pool = pool};
    check(rewrite_model(&report, model, path, &opt, &e), &e);
    for (size_t i = 0; i < report.n_tensors; i++)
        for (size_t t = 0; t < table.n_tensors; t++)
            if (strcmp(report.tensors[i].name, table.tensors[t].tensor->name) == 0)
                assert_int_equal(report.tensors[i].type, type_of(r, report.tensors[i].name));
    assert_true(report.n_warnings <= 1); /* the importance lacks tensors; every line decides one */
    assert_true(fabs(report.bits_per_weight - r->bits_per_weight) < 1e-12);
    assert_int_equal(stat(path, &st), 0);
    rewrite_report_release(&report);
    plan_free(plan);
    free(text);
    return (uint64_t)st.st_size;
}

static void budgets_are_never_exceeded(void **state)
{
    (void)state;
    struct err e = {0};
    struct allocator *a = open_with(NULL, 0, false);
    uint64_t low = allocator_min_bytes(a), high = allocator_max_bytes(a);
    char longest[128];
    memset(longest, 'y', 127);
    longest[127] = 0;
    double before = INFINITY;
    for (int i = 0; i <= 12; i++) {
        struct allocation r = {0};
        uint64_t budget = low + (high + 4096 - low) * (uint64_t)i / 12;
        check(allocator_solve(a, budget, &r, &e), &e);
        assert_true(written_bytes(a, &r, "short.gguf") == r.n_bytes);
        assert_true(written_bytes(a, &r, longest) <= budget);
        assert_true(r.n_bytes <= budget && r.loss <= before && r.lower_bound <= r.loss);
        before = r.loss;
        double sum = 0;
        for (size_t t = 0; t < table.n_tensors; t++)
            sum += table.tensors[t].options[r.choice[t]].loss;
        assert_true(fabs(sum - r.loss) <= 1e-12 * (1 + sum));
        allocation_release(&r);
    }
    assert_true(before == 0); /* room for everything as it is */
    struct allocation r = {0};
    assert_int_equal(allocator_solve(a, low - 1, &r, &e), ERR_ARG);
    char size[32];
    snprintf(size, sizeof size, "%llu", (unsigned long long)low);
    assert_non_null(strstr(e.msg, size));
    allocator_free(a);
}

static void bits_per_weight_and_memory_are_budgets(void **state)
{
    (void)state;
    struct err e = {0};
    struct allocator *a = open_with(NULL, 0, false);
    struct allocation r = {0};
    uint64_t tensor_bytes = 0;
    check(allocator_solve(a, allocator_budget_of_bits(a, 5.5), &r, &e), &e);
    assert_true(r.bits_per_weight <= 5.5 && r.bits_per_weight > 5.2);
    allocation_release(&r);
    check(allocator_solve(a, allocator_budget_of_weights(a, 700000), &r, &e), &e);
    for (size_t i = 0; i < model_n_tensors(model); i++) {
        const struct model_tensor *t = model_tensor(model, i);
        uint64_t n = t->n_bytes;
        for (size_t k = 0; k < table.n_tensors; k++)
            if (table.tensors[k].tensor == t)
                n = table.tensors[k].options[r.choice[k]].n_bytes;
        tensor_bytes += t->always_f32 ? 4 * t->n_rows * t->ne[0] : n;
    }
    assert_true(tensor_bytes <= 700000 && tensor_bytes > 650000);
    allocation_release(&r);
    assert_int_equal(allocator_budget_of_weights(a, 10), 0);
    allocator_free(a);
}

static void rules_hold(void **state)
{
    (void)state;
    struct err e = {0};
    const struct allocate_rule rules[] = {
        {"attn_v", ALLOCATE_MIN, QTYPE_Q6_K},      {"^output\\.weight$", ALLOCATE_FIX, QTYPE_Q5_K},
        {"attn_output", ALLOCATE_MAX, QTYPE_Q3_K}, {"ffn_down", ALLOCATE_FIX, QTYPE_Q4_K},
        {"token_embd", ALLOCATE_MIN, QTYPE_Q3_K},  {"token_embd", ALLOCATE_MAX, QTYPE_Q4_K},
    };
    struct allocator *a = open_with(rules, 6, false);
    for (int i = 0; i < 4; i++) {
        struct allocation r = {0};
        check(allocator_solve(a, allocator_min_bytes(a) + 60000 * (uint64_t)i, &r, &e), &e);
        enum qtype v = type_of(&r, "blk.1.attn_v.weight"), embedding = type_of(&r, "token_embd.weight"),
                   o = type_of(&r, "blk.0.attn_output.weight");
        assert_true(v == QTYPE_Q6_K || v == QTYPE_Q8_0 || v == QTYPE_BF16);
        assert_int_equal(type_of(&r, "output.weight"), QTYPE_Q5_K);
        assert_true(o == QTYPE_Q2_K || o == QTYPE_Q3_K);
        assert_int_equal(type_of(&r, "blk.0.ffn_down.weight"), QTYPE_Q5_0); /* the fallback of Q4_K */
        assert_true(embedding == QTYPE_Q3_K || embedding == QTYPE_Q4_K);
        assert_true(written_bytes(a, &r, "short.gguf") == r.n_bytes);
        allocation_release(&r);
    }
    allocator_free(a);
    const struct allocate_rule nothing = {"no_such_tensor", ALLOCATE_MIN, QTYPE_Q4_K};
    const struct allocate_rule clash[] = {{"attn_q", ALLOCATE_FIX, QTYPE_Q4_K},
                                          {"attn_q", ALLOCATE_MIN, QTYPE_Q6_K}};
    const struct allocate_rule broken = {"attn_(q", ALLOCATE_MIN, QTYPE_Q4_K};
    struct allocate_options opt = {.rules = &nothing, .n_rules = 1, .pool = pool};
    assert_int_equal(allocator_new(&a, &table, &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "no_such_tensor"));
    opt.rules = clash;
    opt.n_rules = 2;
    assert_int_equal(allocator_new(&a, &table, &opt, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "no type is left"));
    opt.rules = &broken;
    opt.n_rules = 1;
    assert_int_equal(allocator_new(&a, &table, &opt, &e), ERR_ARG);
}

static void gate_and_up_agree_unless_set_free(void **state)
{
    (void)state;
    struct err e = {0};
    double losses[2] = {0};
    bool differed = false;
    for (int is_free = 0; is_free < 2; is_free++) {
        struct allocator *a = open_with(NULL, 0, is_free);
        for (int i = 0; i < 8; i++) {
            struct allocation r = {0};
            check(allocator_solve(a, allocator_min_bytes(a) + 40000 * (uint64_t)i, &r, &e), &e);
            bool same = type_of(&r, "blk.0.ffn_gate.weight") == type_of(&r, "blk.0.ffn_up.weight") &&
                        type_of(&r, "blk.1.ffn_gate.weight") == type_of(&r, "blk.1.ffn_up.weight");
            assert_true(same || is_free);
            differed |= !same;
            losses[is_free] += r.loss;
            allocation_release(&r);
        }
        allocator_free(a);
    }
    assert_true(differed && losses[1] < losses[0]);
}

static void a_mix_has_its_price(void **state)
{
    (void)state;
    struct allocator *a = open_with(NULL, 0, true);
    struct allocation r = {0};
    struct err e = {0};
    struct mix_price p = {0};
    assert_int_equal(allocator_price_mix(a, mix_find("Q4_K_M"), &p, NULL), 0);
    assert_true(p.known);
    check(allocator_solve(a, p.n_bytes + 256, &r, &e), &e); /* room for the longer name of the importance */
    assert_true(p.loss > 0 && r.loss <= p.loss && p.bits_per_weight > 4.5 && p.bits_per_weight < 8);
    assert_int_equal(allocator_price_mix(a, mix_find("IQ4_NL"), &p, NULL), 0);
    assert_false(p.known); /* not in the table */
    allocation_release(&r);
    allocator_free(a);
}

static void the_page_is_whole(void **state)
{
    (void)state;
    struct err e = {0};
    struct allocator *a = open_with(NULL, 0, false);
    struct allocation r = {0};
    char *text = NULL;
    size_t n = 0;
    check(allocator_solve(a, allocator_min_bytes(a) + 100000, &r, &e), &e);
    FILE *f = open_memstream(&text, &n);
    check(allocate_page(a, &r, NULL, &(struct allocate_source){NULL, NULL},
                        &(struct page_about){"1.2.3", NULL, NULL}, f, &e),
          &e);
    fclose(f);
    assert_non_null(strstr(text, "<!doctype html>"));
    assert_non_null(strstr(text, "</html>\n"));
    assert_non_null(strstr(text, "blk.1.ffn_down.weight: "));
    assert_non_null(strstr(text, "Q4_K_M: "));
    assert_non_null(strstr(text, "polyline"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "http"));
    assert_null(strstr(text, "<script src")); /* the one that sorts tables is in the page */
    assert_non_null(strstr(text, "download=\"plan.csv\""));
    free(text);
    allocation_release(&r);
    allocator_free(a);
}

/* The model with its feed-forward weights in NVFP4 and factors beside them. */
static void write_packed(const char *path)
{
    struct err e = {0};
    struct recipe_override nvfp4 = {"ffn_(gate|up)", QTYPE_NVFP4};
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp", .overrides = &nvfp4, .n_overrides = 1},
                                  .overwrite = true,
                                  .kern = kern_native(),
                                  .memory_bytes = 1 << 26,
                                  .pool = pool};
    check(rewrite_model(NULL, model, path, &opt, &e), &e);
}

/* Factors stay with the type of their weight and go with it: what was said to be possible is, to the byte. */
static void factors_beside_blocks_are_in_the_budget(void **state)
{
    (void)state;
    static const enum qtype few[] = {QTYPE_Q4_0, QTYPE_Q8_0};
    struct err e = {0};
    char path[128];
    struct model *packed;
    struct loss_table t;
    struct allocator *a;
    size_t n_kept = 0, n_changed = 0;
    snprintf(path, sizeof path, "%s/packed.gguf", folder);
    write_packed(path);
    check(model_open(&packed, path, NULL, &e), &e);
    for (int without_small = 0; without_small < 2;
         without_small++) { /* the smallest types may be the source's */
        check(loss_table_init(&t, packed, NULL, few + without_small, 2 - without_small, &e), &e);
        struct allocate_options opt = {.requantize = true, .pool = pool, .kern = kern_native()};
        check(allocator_new(&a, &t, &opt, &e), &e);
        for (size_t i = 0; i < t.n_tensors; i++) /* behind the allocator's making */
            for (size_t o = 0; o < t.tensors[i].n_options; o++)
                t.tensors[i].options[o].loss =
                    t.tensors[i].options[o].type == t.tensors[i].tensor->type
                        ? 0
                        : (double)(i + 1) / (double)t.tensors[i].options[o].n_bytes;
        uint64_t low = allocator_min_bytes(a), high = allocator_max_bytes(a);
        assert_int_equal(allocator_check(a, low - 1, &e), ERR_ARG);
        for (int i = 0; i <= 100; i++) {
            struct allocation r = {0}, again = {0};
            check(allocator_check(a, low + (high - low) * (uint64_t)i / 100, &e), &e);
            check(allocator_solve(a, low + (high - low) * (uint64_t)i / 100, &r, &e), &e);
            for (size_t k = 0; k < t.n_tensors; k++)
                if (t.tensors[k].tensor->scale)
                    *(t.tensors[k].options[r.choice[k]].type == QTYPE_NVFP4 ? &n_kept : &n_changed) += 1;
            if (r.n_bytes >= low) /* a target as tight as can be */
                check(allocator_solve(a, r.n_bytes, &again, &e), &e);
            allocation_release(&r);
            allocation_release(&again);
        }
        allocator_free(a);
        loss_table_release(&t);
    }
    assert_true(n_kept > 0 && n_changed > 0);
    model_close(packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budgets_are_never_exceeded),
        cmocka_unit_test(bits_per_weight_and_memory_are_budgets),
        cmocka_unit_test(rules_hold),
        cmocka_unit_test(gate_and_up_agree_unless_set_free),
        cmocka_unit_test(a_mix_has_its_price),
        cmocka_unit_test(the_page_is_whole),
        cmocka_unit_test(factors_beside_blocks_are_in_the_budget),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
