/* test_hparams.c - the numbers of a model: what is recorded of keys that are missing or wrong, what stands in
 * for them, windows and kinds of layers; names of tensors. */
#include "formats/arch/arch.h"
#include "formats/model/hparams.h"
#include "formats/model/tensor_name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct gguf_meta *new_meta(void)
{
    struct gguf_meta *m = NULL;
    assert_int_equal(gguf_meta_new(&m, NULL), 0);
    return m;
}

static void put(struct gguf_meta *m, const char *key, uint32_t v)
{
    assert_int_equal(gguf_meta_set_u32(m, key, v, NULL), 0);
}

static void missing_and_wrong_keys_are_recorded(void **state)
{
    (void)state;
    static const int32_t per_layer[] = {4, -1, 8};
    struct gguf_meta *m = new_meta();
    struct hparams h;
    uint64_t v = 77;
    put(m, "strange.block_count", 3);
    assert_int_equal(gguf_meta_set_i32(m, "strange.context_length", -1, NULL), 0);
    assert_int_equal(gguf_meta_set_f32(m, "strange.expert_count", 2.0f, NULL), 0);
    assert_int_equal(gguf_meta_set_string(m, "strange.rope.freq_base", "many", NULL), 0);
    assert_int_equal(gguf_meta_set_array(m, "strange.attention.head_count", GGUF_I32, per_layer, 3, NULL), 0);
    hparams_read(&h, m, "strange");
    assert_null(h.arch);
    assert_true(hparam_whole(&h.n_blocks, &v) && v == 3);
    assert_int_equal(h.width.key.state, HPARAM_ABSENT);
    assert_string_equal(h.width.key.suffix, "embedding_length");
    assert_int_equal(h.context.key.state, HPARAM_WRONG);
    assert_int_equal(h.n_experts.key.state, HPARAM_WRONG);
    assert_int_equal(h.rope_theta.key.state, HPARAM_WRONG);
    assert_true(hparam_real_or(&h.rope_theta, 5) == 5);
    assert_int_equal(h.n_heads.key.state, HPARAM_LIST);
    v = 77;
    assert_false(hparam_whole(&h.n_heads, &v));
    assert_false(hparam_of_layer(&h.n_heads, 1, &v)); /* negative */
    assert_false(hparam_of_layer(&h.n_heads, 3, &v)); /* behind the end */
    assert_int_equal(v, 77);
    assert_true(hparam_of_layer(&h.n_heads, 2, &v) && v == 8);
    assert_int_equal(hparam_or(&h.n_heads, 1, 9), 9);
    static const char *const missing[] = {"embedding_length", "attention.layer_norm_rms_epsilon"};
    const struct hparam *p;
    size_t n = 0;
    for (size_t at = 0; (p = hparams_next_missing(&h, &at)) != NULL; n++)
        assert_string_equal(p->suffix, n < 2 ? missing[n] : "nothing more");
    assert_int_equal(n, 2);
    gguf_meta_free(m);
}

/* llama.cpp: without sizes of their own, keys and values are a head's share of the width. */
static void heads_have_fallbacks(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta();
    struct hparams h;
    put(m, "llama.embedding_length", 96);
    hparams_read(&h, m, "llama");
    assert_int_equal(hparams_heads(&h, 0).key_dim, 0);
    put(m, "llama.attention.head_count", 6);
    hparams_read(&h, m, "llama");
    struct hparams_heads heads = hparams_heads(&h, 0);
    assert_true(heads.n == 6 && heads.n_kv == 6 && heads.key_dim == 16 && heads.value_dim == 16);
    put(m, "llama.attention.head_count_kv", 2);
    put(m, "llama.attention.key_length", 32);
    hparams_read(&h, m, "llama");
    heads = hparams_heads(&h, 0);
    assert_true(heads.n == 6 && heads.n_kv == 2 && heads.key_dim == 32 && heads.value_dim == 16);
    gguf_meta_free(m);
}

static void prediction_blocks_are_no_layers(void **state)
{
    (void)state;
    struct gguf_meta *m = new_meta();
    struct hparams h;
    struct arch_model a = {0};
    put(m, "qwen35.block_count", 9);
    put(m, "qwen35.nextn_predict_layers", 1);
    put(m, "qwen35.embedding_length", 64);
    put(m, "qwen35.attention.head_count", 4);
    put(m, "qwen35.ssm.time_step_rank", 8);
    put(m, "qwen35.ssm.inner_size", 128);
    hparams_read(&h, m, "qwen35");
    assert_int_equal(hparams_n_layers(&h), 8);
    hparams_symbols(&h, &a);
    assert_true(a.value[ARCH_L] == 8 && a.n_extra == 1 && a.value[ARCH_HKV] == 4 && a.value[ARCH_HD] == 16);
    assert_true(a.known[ARCH_DV] && a.value[ARCH_DV] == 16);
    assert_false(a.known[ARCH_F]);
    put(m, "qwen35.block_count", ARCH_MAX_LAYERS + 1);
    hparams_read(&h, m, "qwen35");
    assert_int_equal(hparams_n_layers(&h), 0);
    gguf_meta_free(m);
}

static void windows_follow_list_period_or_family(void **state)
{
    (void)state;
    static const uint8_t list[] = {1, 0, 1};
    struct gguf_meta *m = new_meta();
    struct hparams h;
    hparams_read(&h, m, "x");
    assert_int_equal(hparams_window(&h, 0, 0), 0);
    put(m, "x.attention.sliding_window", 100);
    hparams_read(&h, m, "x");
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(hparams_window(&h, i, 0), 100);
        assert_int_equal(hparams_window(&h, i, 1), 0);
        assert_int_equal(hparams_window(&h, i, 2), i % 2 ? 0 : 100);
    }
    put(m, "x.attention.sliding_window_pattern", 3);
    hparams_read(&h, m, "x");
    assert_int_equal(hparams_window(&h, 1, 2), 100);
    assert_int_equal(hparams_window(&h, 2, 2), 0);
    assert_int_equal(gguf_meta_set_array(m, "x.attention.sliding_window_pattern", GGUF_BOOL, list, 3, NULL),
                     0);
    hparams_read(&h, m, "x");
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(hparams_window(&h, i, 0), list[i] ? 100 : 0);
    gguf_meta_free(m);
}

static void layers_of_hybrids_follow_list_or_interval(void **state)
{
    (void)state;
    static const uint8_t list[] = {0, 1, 1, 0};
    struct gguf_meta *m = new_meta();
    struct hparams h;
    hparams_read(&h, m, "qwen3next");
    for (uint64_t i = 0; i < 8; i++)
        assert_int_equal(hparams_is_recurrent(&h, i), i % 4 != 3);
    put(m, "qwen3next.full_attention_interval", 2);
    hparams_read(&h, m, "qwen3next");
    assert_true(hparams_is_recurrent(&h, 2) && !hparams_is_recurrent(&h, 3));
    assert_int_equal(gguf_meta_set_array(m, "qwen3next.attention.recurrent_layers", GGUF_BOOL, list, 4, NULL),
                     0);
    hparams_read(&h, m, "qwen3next");
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(hparams_is_recurrent(&h, i), list[i]);
    gguf_meta_free(m);
}

static void tensor_names_come_apart(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t layer;
        const char *kind;
    } cases[] = {{"blk.7.attn_q.weight", 7, "attn_q.weight"},
                 {"blk.4095.ssm_a", 4095, "ssm_a"},
                 {"output.weight", -1, "output.weight"},
                 {"blk.attn_q.weight", -1, "blk.attn_q.weight"},
                 {"blk.-1.x", -1, "blk.-1.x"},
                 {"blk.7", -1, "blk.7"},
                 {"blk", -1, "blk"},
                 {"", -1, ""},
                 {"blk.99999999999999999999999.x", INT32_MAX, "x"}};
    char name[TENSOR_NAME_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *kind = NULL;
        assert_int_equal(tensor_layer(cases[i].name, &kind), cases[i].layer);
        assert_string_equal(kind, cases[i].kind);
    }
    assert_string_equal(tensor_name_of(name, 12, "ffn_up.weight"), "blk.12.ffn_up.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_and_wrong_keys_are_recorded),
        cmocka_unit_test(heads_have_fallbacks),
        cmocka_unit_test(prediction_blocks_are_no_layers),
        cmocka_unit_test(windows_follow_list_period_or_family),
        cmocka_unit_test(layers_of_hybrids_follow_list_or_interval),
        cmocka_unit_test(tensor_names_come_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
