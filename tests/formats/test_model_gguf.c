/* test_model_gguf.c - GGUF files as models: taken as they are, split sets as one. */
#include "formats/gguf/gguf_write.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/quant.h"
#include "open_model.h"
#include "scratch.h"

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

/* Write tensors with these types and encoded sines; split.* keys when `part` is given. */
static void write_gguf(const char *path, const struct gguf_meta *meta, struct gguf_out_tensor *t, size_t n)
{
    uint8_t *header = NULL;
    size_t header_bytes;
    uint64_t file_bytes;
    struct err e = {0};
    if (gguf_layout(meta, t, n, &header, &header_bytes, &file_bytes, &e) != 0)
        fail_msg("%s", e.msg);
    uint8_t *file = calloc(1, file_bytes);
    memcpy(file, header, header_bytes);
    for (size_t i = 0; i < n; i++) {
        uint64_t rows = t[i].ne[1] * t[i].ne[2] * t[i].ne[3];
        float *x = malloc(rows * t[i].ne[0] * sizeof *x);
        for (uint64_t k = 0; k < rows * t[i].ne[0]; k++)
            x[k] = sinf((float)(k + i));
        if (quant_encode_rows(kern_native(), t[i].type, x, file + t[i].offset, t[i].n_bytes, rows, t[i].ne[0],
                              NULL, &e) != 0)
            fail_msg("%s", e.msg);
        free(x);
    }
    assert_int_equal(output_file_write_all(path, file, file_bytes, true, &e), 0);
    free(file);
    free(header);
}

static struct gguf_meta *small_meta(void)
{
    struct gguf_meta *meta = NULL;
    assert_int_equal(gguf_meta_new(&meta, NULL), 0);
    assert_int_equal(gguf_meta_set_string(meta, "general.architecture", "qwen3", NULL), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "qwen3.block_count", 1, NULL), 0);
    return meta;
}

static void a_gguf_file_is_taken_as_it_is(void **state)
{
    (void)state;
    struct gguf_out_tensor t[] = {
        {.name = "token_embd.weight", .type = QTYPE_Q8_0, .n_dims = 2, .ne = {64, 5, 1, 1}},
        {.name = "output_norm.weight", .type = QTYPE_F32, .n_dims = 1, .ne = {64, 1, 1, 1}},
        {.name = "blk.0.ffn_up_exps.weight", .type = QTYPE_F16, .n_dims = 3, .ne = {32, 3, 2, 1}},
    };
    struct gguf_meta *meta = small_meta();
    write_gguf(in_scratch("a.gguf"), meta, t, 3);
    struct model *m = open_model(in_scratch("a.gguf"));
    assert_true(model_is_gguf(m) && model_has_weights(m));
    assert_string_equal(model_arch_name(m), "qwen3");
    assert_int_equal(gguf_meta_n(model_meta(m)), gguf_meta_n(meta));
    assert_int_equal(model_n_tensors(m), 3);
    for (size_t i = 0; i < 3; i++) {
        const struct model_tensor *got = model_tensor(m, i);
        float want[320], x[320];
        assert_string_equal(got->name, t[i].name);
        assert_int_equal(got->type, t[i].type);
        assert_string_equal(got->source_type, qtype_name(t[i].type));
        assert_int_equal(got->n_rows, t[i].ne[1] * t[i].ne[2]);
        assert_non_null(got->raw);
        uint64_t row = got->n_bytes / got->n_rows;
        assert_int_equal(quant_decode_rows(kern_native(), got->type, got->raw, got->n_bytes, want,
                                           got->n_rows, got->ne[0], NULL),
                         0);
        for (uint64_t r = 0; r < got->n_rows; r++) {
            model_want_rows(m, got, r, 1);
            assert_int_equal(model_read_rows(m, got, r, 1, x, NULL), 0);
            assert_memory_equal(x, want + r * got->ne[0], got->ne[0] * sizeof *x);
            model_drop_rows(m, got, r, 1);
        }
        assert_true(row > 0);
    }
    const struct vocabulary *v = NULL;
    assert_true(model_vocabulary(m, &v, NULL) != 0);
    model_close(m);
    gguf_meta_free(meta);
}

static void a_split_set_is_one_model_without_split_keys(void **state)
{
    (void)state;
    for (uint16_t part = 0; part < 2; part++) {
        struct gguf_out_tensor t = {
            .name = part ? "b" : "a", .type = QTYPE_F32, .n_dims = 1, .ne = {4, 1, 1, 1}};
        struct gguf_meta *meta = small_meta();
        char *path = gguf_split_name(in_scratch("set"), part, 2);
        assert_int_equal(gguf_meta_set_u16(meta, "split.no", part, NULL), 0);
        assert_int_equal(gguf_meta_set_u16(meta, "split.count", 2, NULL), 0);
        assert_int_equal(gguf_meta_set_i32(meta, "split.tensors.count", 2, NULL), 0);
        write_gguf(path, meta, &t, 1);
        free(path);
        gguf_meta_free(meta);
    }
    struct model *m = open_model(in_scratch("set-00001-of-00002.gguf"));
    assert_int_equal(model_n_tensors(m), 2);
    assert_int_equal(gguf_meta_n(model_meta(m)), 2);
    assert_non_null(strstr(model_find(m, "b")->origin, "00002-of-00002"));
    model_close(m);
}

static void a_bare_vocabulary_opens_without_tensors(void **state)
{
    (void)state;
    static const char folder[] = KERF_SHARED "/data/vocab-gguf/";
    char path[512];
    const struct vocabulary *v = NULL;
    snprintf(path, sizeof path, "%sqwen2.5-vocab.gguf", folder);
    if (access(path, R_OK) != 0)
        skip();
    struct model *m = open_model(path);
    assert_int_equal(model_n_tensors(m), 0);
    assert_int_equal(model_vocabulary(m, &v, NULL), 0);
    assert_true(v->n_tokens > 150000);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gguf_file_is_taken_as_it_is),
        cmocka_unit_test(a_split_set_is_one_model_without_split_keys),
        cmocka_unit_test(a_bare_vocabulary_opens_without_tensors),
    };
    return cmocka_run_group_tests_name("model_gguf", tests, scratch_begin, scratch_end);
}
