/* test_model_verify.c - what verify asks of a file: every tensor of every layer that has it by the rules of
 * its family, the keys no runtime can do without, a vocabulary that reads. Damage is made in the bytes of
 * sound files: a name or a key is replaced by another of the same length. */
#include "formats/model/hparams.h"
#include "formats/model/model_check.h"
#include "formats/inspect/model_verify.h"
#include "formats/rewrite/rewrite.h"

#include "scratch.h"
#include "toy_family.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch scratch;
static char file[512];

static int make_scratch(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

static int remove_scratch(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

/* The family's toy as a GGUF file, at `file`. */
static void make(const char *name)
{
    char folder[400];
    struct err e = {0};
    struct model *m = NULL;
    struct pool *pool = NULL;
    snprintf(folder, sizeof folder, "%s/%s", scratch.folder, name);
    snprintf(file, sizeof file, "%s.gguf", folder);
    if (access(folder, F_OK) != 0)
        assert_int_equal(toy_family_write(folder, name, &e), 0);
    assert_int_equal(model_open(&m, folder, NULL, &e), 0);
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp"},
                                  .overwrite = true,
                                  .memory_bytes = 64 << 20,
                                  .kern = kern_native(),
                                  .pool = pool};
    int rc = rewrite_model(NULL, m, file, &opt, &e);
    if (rc)
        fail_msg("%s: %s", name, e.msg);
    pool_free(pool);
    model_close(m);
}

/* Every occurrence of `from` in the file becomes `to`, of the same length. */
static void damage(const char *from, const char *to)
{
    size_t n_hits = 0, n = strlen(from);
    FILE *f = fopen(file, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size_t size = (size_t)ftell(f);
    rewind(f);
    char *bytes = malloc(size);
    assert_int_equal(fread(bytes, 1, size, f), size);
    fclose(f);
    assert_int_equal(n, strlen(to));
    for (size_t i = 0; i + n <= size; i++)
        if (memcmp(bytes + i, from, n) == 0) {
            memcpy(bytes + i, to, n);
            n_hits++;
        }
    assert_true(n_hits > 0);
    f = fopen(file, "wb");
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    fclose(f);
    free(bytes);
}

/* The findings hold this sentence; NULL: there are none. */
static void expect(const char *sentence)
{
    struct err e = {0};
    struct model *m = NULL;
    struct pool *pool = NULL;
    struct verify_report r = {0};
    bool found = false;
    if (model_open(&m, file, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    assert_int_equal(model_verify(&r, m, pool, NULL, &e), 0);
    for (size_t i = 0; i < r.n_findings; i++) {
        found |= sentence && strstr(r.findings[i], sentence) != NULL;
        if (!sentence)
            fail_msg("%s: %s", file, r.findings[i]);
    }
    if (sentence && !found)
        fail_msg("%s: no finding says '%s'; the first of %zu: %s", file, sentence, r.n_findings,
                 r.n_findings ? r.findings[0] : "-");
    verify_report_release(&r);
    pool_free(pool);
    model_close(m);
}

static void conversions_of_every_family_are_sound(void **state)
{
    (void)state;
    for (const char *const *name = toy_family_names; *name; name++) {
        make(*name);
        expect(NULL);
    }
}

static void each_layer_needs_the_tensors_of_its_kind(void **state)
{
    (void)state;
    make("qwen35");
    damage("blk.1.ssm_out.weight", "blk.1.ssm_xut.weight");
    expect("tensor 'blk.1.ssm_out.weight' is missing");
    make("qwen35");
    damage("blk.3.attn_q.weight", "blk.3.attn_z.weight");
    expect("tensor 'blk.3.attn_q.weight' is missing");
    make("qwen3moe");
    damage("blk.1.ffn_up_exps.weight", "blk.1.ffn_xx_exps.weight");
    expect("tensor 'blk.1.ffn_up_exps.weight' is missing");
    make("qwen3moe-mixed"); /* layers 0 and 2 have no experts */
    damage("blk.0.ffn_up.weight", "blk.0.ffn_xx.weight");
    expect("tensor 'blk.0.ffn_up.weight' is missing");
    make("qwen3moe-mixed");
    damage("blk.1.ffn_down_exps.weight", "blk.1.ffn_xxxx_exps.weight");
    expect("tensor 'blk.1.ffn_down_exps.weight' is missing");
    make("mixtral");
    damage("blk.2.ffn_gate_inp.weight", "blk.2.ffn_gate_xxx.weight");
    expect("tensor 'blk.2.ffn_gate_inp.weight' is missing");
    make("qwen2moe"); /* an optional row that the other layers have */
    damage("blk.1.attn_k.bias", "blk.1.attn_x.bias");
    expect("tensor 'blk.1.attn_k.bias' is missing, though other layers have theirs");
}

static void keys_that_no_runtime_can_do_without_are_asked_for(void **state)
{
    static const char *const keys[][2] = {
        {"qwen3next.context_length", "qwen3next.context_lexxxx"},
        {"qwen3next.block_count", "qwen3next.block_coxxx"},
        {"qwen3next.attention.layer_norm_rms_epsilon", "qwen3next.attention.layer_norm_rms_epsixxx"},
        {"qwen3next.ssm.state_size", "qwen3next.ssm.state_xxxx"},
        {"general.architecture", "general.architecxxxx"}};
    char sentence[200];
    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        make("qwen3next");
        damage(keys[i][0], keys[i][1]);
        snprintf(sentence, sizeof sentence, "key '%s' is missing", keys[i][0]);
        expect(sentence);
        assert_true(model_needs_key("qwen3next", keys[i][0]));
        assert_false(model_needs_key("qwen3next", keys[i][1]));
    }
    assert_true(model_needs_key("qwen3", "tokenizer.ggml.merges"));
    assert_true(model_needs_key("unknown", "unknown.block_count"));
    assert_false(model_needs_key("qwen3", "general.name"));
    assert_false(model_needs_key("qwen3", "tokenizer.chat_template"));
    assert_false(model_needs_key("", ".block_count"));
}

static void a_broken_vocabulary_is_found(void **state)
{
    (void)state;
    make("qwen3moe");
    damage("tokenizer.ggml.tokens", "tokenizer.ggml.toxxxx");
    expect("tokenizer.ggml.tokens");
}

/* What changes the metadata of an open model must have its numbers read again. */
static void read_again(const struct model *m)
{
    hparams_read((struct hparams *)(uintptr_t)model_hparams(m), model_meta(m), model_arch_name(m));
}

/* The family's toy with one number changed; the first finding, or NULL, goes to `first`. */
static void check_with(const char *name, const char *key, uint32_t value, const uint32_t *list, size_t n_list,
                       char first[512])
{
    struct err e = {0};
    struct model *m = NULL;
    struct arena arena = {0};
    struct string_list findings = {0};
    make(name);
    if (model_open(&m, file, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    struct gguf_meta *meta = (struct gguf_meta *)(uintptr_t)model_meta(m); /* the test's own model */
    assert_non_null(gguf_meta_find(meta, key));
    int rc = list ? gguf_meta_set_array(meta, key, GGUF_U32, list, n_list, &e)
                  : gguf_meta_set_u32(meta, key, value, &e);
    assert_int_equal(rc, 0);
    read_again(m);
    assert_int_equal(model_check(m, &findings, &arena, &e), 0);
    snprintf(first, 512, "%s", findings.n ? findings.items[0] : "");
    arena_release(&arena);
    model_close(m);
}

static void numbers_that_do_not_fit_are_found(void **state)
{
    static const struct {
        const char *family, *key;
        uint32_t value;
        const char *sentence;
    } cases[] = {
        {"qwen3moe", "qwen3moe.expert_used_count", 65, "'expert_used_count' (65) do not fit: layer 0 has a"},
        {"qwen3moe", "qwen3moe.expert_used_count", 0, "'expert_used_count' (0) do not fit: layer 0 has a"},
        {"qwen3moe", "qwen3moe.expert_count", 0, "'qwen3moe.expert_count' (0) and"},
        {"deepseek3", "deepseek2.expert_group_count", 4000000000, "expert_group_count' (4000000000) and"},
        {"deepseek3", "deepseek2.expert_group_count", 3, "(2) do not fit 8 experts, 3 of a token"},
        {"deepseek3", "deepseek2.expert_group_count", 8, "equal groups of two experts or more"},
        {"deepseek3", "deepseek2.expert_group_used_count", 0, "'expert_group_used_count' (0) do not fit"},
        {"deepseek3", "deepseek2.expert_group_used_count", 5, "'expert_group_used_count' (5) do not fit"},
        {"glm4moe", "glm4moe.expert_group_used_count", 1, "'expert_group_used_count' (1) do not fit"},
        {"glm4moe", "glm4moe.expert_gating_func", 3, "expert_gating_func' is 3, expected 1 (softmax) or 2"},
        {"qwen35", "qwen35.ssm.time_step_rank", 0, "keys 'qwen35.ssm.*' do not fit together"},
        {"qwen35", "qwen35.ssm.conv_kernel", 65, "conv_kernel 65"},
        {"qwen35", "qwen35.feed_forward_length", 0, "'qwen35.feed_forward_length' gives layer 0 no width"},
        {"qwen35", "qwen35.attention.head_count_kv", 0, "head_count_kv' is 0 in layer 3"}, /* 0 to 2: delta */
        {"qwen35", "qwen35.block_count", 3, "'qwen35.block_count' is 3, but"},
        {"qwen35", "qwen35.block_count", 4097, "block_count' is 4097, expected 1 to 4096"},
    };
    char first[512];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_with(cases[i].family, cases[i].key, cases[i].value, NULL, 0, first);
        if (!strstr(first, cases[i].sentence))
            fail_msg("%s %u: expected '%s', found '%s'", cases[i].key, cases[i].value, cases[i].sentence,
                     first);
    }
}

/* A layer that is a delta net may say that it has no heads. */
static void numbers_of_single_layers_are_looked_at(void **state)
{
    static const uint32_t good[] = {0, 0, 0, 1}, bad[] = {1, 1, 1, 0}, few[] = {1, 1, 1};
    char first[512];
    (void)state;
    check_with("qwen35", "qwen35.attention.head_count_kv", 0, good, 4, first);
    assert_string_equal(first, "");
    check_with("qwen35", "qwen35.attention.head_count_kv", 0, bad, 4, first);
    assert_non_null(strstr(first, "in layer 3"));
    check_with("qwen35", "qwen35.attention.head_count_kv", 0, few, 3, first);
    assert_non_null(strstr(first, "in layer 3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversions_of_every_family_are_sound),
        cmocka_unit_test(each_layer_needs_the_tensors_of_its_kind),
        cmocka_unit_test(keys_that_no_runtime_can_do_without_are_asked_for),
        cmocka_unit_test(a_broken_vocabulary_is_found),
        cmocka_unit_test(numbers_that_do_not_fit_are_found),
        cmocka_unit_test(numbers_of_single_layers_are_looked_at),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
