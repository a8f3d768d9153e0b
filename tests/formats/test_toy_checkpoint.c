/* test_toy_checkpoint.c - the synthetic checkpoints that other tests stand on are valid and reproducible. */
#include "formats/hf/hf_checkpoint.h"
#include "formats/json.h"
#include "libquant/base/filemap.h"
#include "libquant/base/strmap.h"
#include "libquant/half.h"
#include "scratch.h"
#include "toy_checkpoint.h"
#include "toy_tokenizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *write_toy(const struct toy_spec *spec, const char *name)
{
    const char *p = in_scratch(name);
    struct err e = {0};
    if (toy_checkpoint_write(p, spec, &e) != 0)
        fail_msg("%s", e.msg);
    return p;
}

static struct hf_checkpoint *open_checkpoint(const char *folder)
{
    struct hf_checkpoint *c = NULL;
    struct err e = {0};
    if (hf_checkpoint_open(&c, folder, false, &e) != 0)
        fail_msg("%s", e.msg);
    return c;
}

static void every_family_has_its_tensors(void **state)
{
    (void)state;
    /* per layer: 9 of every family, and biases of q, k, v or norms of q, k */
    static const size_t per_layer[TOY_ARCH_COUNT] = {12, 11, 9, 9};
    for (int arch = 0; arch < TOY_ARCH_COUNT; arch++) {
        struct toy_spec spec = toy_spec_tiny((enum toy_arch)arch);
        const char *folder = write_toy(&spec, toy_arch_name(spec.arch));
        struct hf_checkpoint *c = open_checkpoint(folder);
        struct hf_config *config = NULL;
        struct err e = {0};
        assert_int_equal(hf_config_load(&config, folder, &e), 0);
        assert_string_equal(hf_config_model_type(config), toy_arch_name(spec.arch));
        assert_int_equal(hf_config_tied(config), spec.tied);
        assert_int_equal(hf_checkpoint_n_tensors(c), 3 - spec.tied + 2 * per_layer[arch]);
        assert_int_equal(hf_checkpoint_find(c, "lm_head.weight") == NULL, spec.tied);
        const struct st_tensor *q = hf_checkpoint_find(c, "model.layers.1.self_attn.q_proj.weight");
        assert_int_equal(q->dtype, ST_BF16);
        assert_int_equal(q->shape[0], spec.n_heads * (spec.head_dim ? spec.head_dim : 64));
        assert_int_equal(q->shape[1], 256);
        hf_config_free(config);
        hf_checkpoint_close(c);
    }
}

static void weights_have_plausible_magnitudes(void **state)
{
    (void)state;
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN2);
    struct hf_checkpoint *c = open_checkpoint(write_toy(&spec, "magnitudes"));
    const struct st_tensor *t = hf_checkpoint_find(c, "model.layers.0.mlp.gate_proj.weight");
    double column[256] = {0}, all = 0;
    for (uint64_t i = 0; i < t->n_elems; i++) {
        uint16_t h;
        memcpy(&h, t->data + 2 * i, 2);
        column[i % 256] += (double)bf16_to_f32(h) * bf16_to_f32(h) / (double)t->shape[0];
    }
    size_t n_outliers = 0;
    for (size_t i = 0; i < 256; i++) {
        n_outliers += sqrt(column[i]) > 0.1;
        all += sqrt(column[i]) < 0.1 ? column[i] : 0;
    }
    assert_in_range(n_outliers, 1, 4);
    assert_true(fabs(sqrt(all / (double)(256 - n_outliers)) - 0.02) < 0.0005);
    t = hf_checkpoint_find(c, "model.norm.weight");
    double mean = 0;
    for (uint64_t i = 0; i < t->n_elems; i++) {
        uint16_t h;
        memcpy(&h, t->data + 2 * i, 2);
        mean += (double)bf16_to_f32(h) / (double)t->n_elems;
    }
    assert_true(fabs(mean - 1) < 0.05);
    hf_checkpoint_close(c);
}

static void shards_hold_what_one_file_holds(void **state)
{
    (void)state;
    struct toy_spec spec = toy_spec_tiny(TOY_LLAMA);
    spec.dtype = ST_F32;
    spec.rope_scaling = ROPE_LLAMA3;
    struct hf_checkpoint *one = open_checkpoint(write_toy(&spec, "one"));
    spec.n_shards = 3;
    const char *folder = write_toy(&spec, "three");
    struct hf_checkpoint *three = open_checkpoint(folder);
    assert_int_equal(hf_checkpoint_n_warnings(three), 0); /* total_size agrees */
    assert_int_equal(hf_checkpoint_n_tensors(three), hf_checkpoint_n_tensors(one));
    assert_true(hf_file_exists(folder, "model-00003-of-00003.safetensors"));
    for (size_t i = 0; i < hf_checkpoint_n_tensors(one); i++) {
        const struct st_tensor *a = hf_checkpoint_tensor(one, i), *b = hf_checkpoint_find(three, a->name);
        assert_non_null(b);
        assert_int_equal(a->n_bytes, b->n_bytes);
        assert_memory_equal(a->data, b->data, a->n_bytes);
    }
    struct hf_config *config = NULL;
    struct hf_rope rope;
    assert_int_equal(hf_config_load(&config, folder, NULL), 0);
    assert_int_equal(hf_config_rope(config, &rope, NULL), 0);
    assert_int_equal(rope.type, ROPE_LLAMA3);
    assert_int_equal(rope.original_context, 256);
    hf_config_free(config);
    hf_checkpoint_close(one);
    hf_checkpoint_close(three);
}

static void the_seed_alone_decides_the_weights(void **state)
{
    (void)state;
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    struct hf_checkpoint *a = open_checkpoint(write_toy(&spec, "seed-a"));
    struct hf_checkpoint *b = open_checkpoint(write_toy(&spec, "seed-b"));
    spec.seed = 2;
    struct hf_checkpoint *c = open_checkpoint(write_toy(&spec, "seed-c"));
    const char *name = "model.layers.1.mlp.down_proj.weight";
    const struct st_tensor *x = hf_checkpoint_find(a, name), *y = hf_checkpoint_find(b, name),
                           *z = hf_checkpoint_find(c, name);
    assert_memory_equal(x->data, y->data, x->n_bytes);
    assert_memory_not_equal(x->data, z->data, x->n_bytes);
    hf_checkpoint_close(a);
    hf_checkpoint_close(b);
    hf_checkpoint_close(c);
}

/* The rules that the specification asks of a tokenizer: unique texts, merges closed under the vocabulary. */
static void the_tokenizer_is_closed_at_any_size(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {259, 320, 4096, 151936};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct err e = {0};
        struct json_doc *doc = NULL;
        assert_int_equal(toy_tokenizer_write(in_scratch(""), sizes[i], 5, &e), 0);
        char *path = hf_path(in_scratch(""), "tokenizer.json");
        assert_int_equal(json_load(&doc, path, 0, &e), 0);
        free(path);
        const struct json *model = json_get(json_root(doc), "model");
        struct strmap vocab = {0};
        uint64_t id = 0;
        for (const struct json *j = json_first(json_get(model, "vocab")); j; j = json_next(j), id++) {
            bool existing;
            uint64_t stated;
            assert_true(json_uint(j, &stated));
            assert_int_equal(stated, id);
            strmap_put(&vocab, json_key(j), strlen(json_key(j)), id, &existing);
            assert_false(existing);
        }
        assert_int_equal(id + TOY_N_SPECIAL, sizes[i]);
        id = 256;
        for (const struct json *j = json_first(json_get(model, "merges")); j; j = json_next(j), id++) {
            const char *s = json_string(j), *space = strchr(s, ' ');
            char both[64];
            uint64_t merged, left, right;
            assert_non_null(space);
            snprintf(both, sizeof both, "%.*s%s", (int)(space - s), s, space + 1);
            assert_true(strmap_find(&vocab, s, (size_t)(space - s), &left));
            assert_true(strmap_find(&vocab, space + 1, strlen(space + 1), &right));
            assert_true(strmap_find(&vocab, both, strlen(both), &merged));
            assert_int_equal(merged, id);
            assert_true(left < id && right < id);
        }
        assert_int_equal(id + TOY_N_SPECIAL, sizes[i]);
        assert_int_equal(json_n_children(json_get(json_root(doc), "added_tokens")), TOY_N_SPECIAL);
        strmap_release(&vocab);
        json_free(doc);
    }
    struct err e = {0};
    assert_int_equal(toy_tokenizer_write(in_scratch(""), 258, 5, &e), ERR_ARG);
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct toy_spec spec = toy_spec_tiny(TOY_LLAMA);
    spec.n_kv_heads = 3;
    assert_int_equal(toy_checkpoint_write(in_scratch(""), &spec, &e), ERR_ARG);
    spec = toy_spec_tiny(TOY_LLAMA);
    spec.n_shards = 1000;
    assert_int_equal(toy_checkpoint_write(in_scratch(""), &spec, &e), ERR_ARG);
    spec = toy_spec_tiny(TOY_LLAMA);
    spec.tokenizer_dir = "/nonexistent";
    assert_int_equal(toy_checkpoint_write(in_scratch(""), &spec, &e), ERR_ARG);
}

static void a_tokenizer_can_be_copied(void **state)
{
    (void)state;
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    spec.vocab = 4096;
    spec.tokenizer_dir = KERF_TEST_DATA "/demo-qwen3";
    const char *folder = write_toy(&spec, "copied");
    struct filemap a = {0}, b = {0};
    struct err e = {0};
    char *path = hf_path(folder, "tokenizer.json");
    assert_int_equal(filemap_open(&a, path, &e), 0);
    free(path);
    assert_int_equal(filemap_open(&b, KERF_TEST_DATA "/demo-qwen3/tokenizer.json", &e), 0);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    filemap_close(&a);
    filemap_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_has_its_tensors),
        cmocka_unit_test(weights_have_plausible_magnitudes),
        cmocka_unit_test(shards_hold_what_one_file_holds),
        cmocka_unit_test(the_seed_alone_decides_the_weights),
        cmocka_unit_test(the_tokenizer_is_closed_at_any_size),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(a_tokenizer_can_be_copied),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
