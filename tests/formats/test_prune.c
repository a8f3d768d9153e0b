/* test_prune.c - layers and experts left out of a model and of an importance matrix: what stays has the bytes
 * it had, under the numbers it gets. */
#include "formats/rewrite/prune.h"

#include "formats/gguf/gguf_write.h"
#include "formats/output/output_file.h"
#include "libquant/types.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_LAYERS = 5, N_EXPERTS = 6, N_COLS = 32, N_ROWS = 3 };

static char folder[] = "/tmp/kerf-prune.XXXXXX";
static char in_path[64], out_path[64], list_path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(in_path, sizeof in_path, "%s/in.gguf", folder);
    snprintf(out_path, sizeof out_path, "%s/out.gguf", folder);
    snprintf(list_path, sizeof list_path, "%s/drop.txt", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(in_path);
    unlink(out_path);
    unlink(list_path);
    return rmdir(folder);
}

struct kind {
    const char *suffix;
    enum qtype type;
    uint32_t n_dims;
    uint64_t ne[3];
};

/* A layer of the model; every byte of its data is told by layer, kind and place. */
static const struct kind of_model[] = {
    {"attn_q.weight", QTYPE_Q8_0, 2, {N_COLS, N_ROWS, 1}},
    {"ffn_gate_inp.weight", QTYPE_F32, 2, {N_COLS, N_EXPERTS, 1}},
    {"exp_probs_b.bias", QTYPE_F32, 1, {N_EXPERTS, 1, 1}},
    {"ffn_down_exps.weight", QTYPE_Q8_0, 3, {N_COLS, N_ROWS, N_EXPERTS}},
    {"ffn_gate_inp_shexp.weight",
     QTYPE_F32,
     1,
     {N_EXPERTS, 1, 1}}, /* a width that is not a number of experts */
};
static const struct kind of_matrix[] = {
    {"attn_q.weight.in_sum2", QTYPE_F32, 2, {N_COLS, 1, 1}},
    {"attn_q.weight.counts", QTYPE_F32, 2, {1, 1, 1}},
    {"ffn_down_exps.weight.in_sum2", QTYPE_F32, 2, {N_COLS, N_EXPERTS, 1}},
    {"ffn_down_exps.weight.counts", QTYPE_F32, 2, {1, N_EXPERTS, 1}},
};
#define N_KINDS(list) (sizeof(list) / sizeof *(list))

static uint8_t byte_at(uint32_t layer, size_t kind, uint64_t at)
{
    return (uint8_t)(layer * 37 + kind * 11 + at * 3 + at / 251);
}

static void write_file(const struct gguf_meta *meta, const struct kind *kinds, size_t n_kinds)
{
    struct err e = {0};
    size_t n = n_kinds * N_LAYERS + 1;
    struct gguf_out_tensor tensors[64] = {
        {.name = "output_norm.weight", .type = QTYPE_F32, .n_dims = 1, .ne = {N_COLS, 1, 1, 1}}};
    static char names[64][64];
    for (size_t i = 1; i < n; i++) {
        const struct kind *k = &kinds[(i - 1) % n_kinds];
        snprintf(names[i], sizeof names[i], "blk.%zu.%s", (i - 1) / n_kinds, k->suffix);
        tensors[i] = (struct gguf_out_tensor){.name = names[i], .type = k->type, .n_dims = k->n_dims};
        for (size_t d = 0; d < 4; d++)
            tensors[i].ne[d] = d < 3 ? k->ne[d] : 1;
    }
    uint8_t *header;
    size_t header_bytes;
    uint64_t file_bytes;
    struct output_file *f;
    assert_int_equal(gguf_layout(meta, tensors, n, &header, &header_bytes, &file_bytes, &e), 0);
    assert_int_equal(output_file_open(&f, in_path, &(struct output_file_options){.overwrite = true}, &e), 0);
    assert_int_equal(output_file_write_at(f, 0, header, header_bytes, &e), 0);
    for (size_t i = 1; i < n; i++) {
        uint8_t data[8192];
        assert_true(tensors[i].n_bytes <= sizeof data);
        for (uint64_t k = 0; k < tensors[i].n_bytes; k++)
            data[k] = byte_at((uint32_t)((i - 1) / n_kinds), (i - 1) % n_kinds, k);
        assert_int_equal(output_file_write_at(f, tensors[i].offset, data, tensors[i].n_bytes, &e), 0);
    }
    assert_int_equal(output_file_commit(f, file_bytes, &e), 0);
    free(header);
}

static struct gguf_meta *model_meta(void)
{
    struct err e = {0};
    struct gguf_meta *m;
    const uint32_t widths[N_LAYERS] = {10, 11, 12, 13, 14};
    const int32_t sections[N_LAYERS] = {1, 2, 3, 4, 5};
    assert_int_equal(gguf_meta_new(&m, &e), 0);
    gguf_meta_set_string(m, "general.architecture", "qwen3moe", &e);
    gguf_meta_set_string(m, "general.size_label", "5x1M", &e);
    gguf_meta_set_u32(m, "qwen3moe.block_count", N_LAYERS, &e);
    gguf_meta_set_u32(m, "qwen3moe.expert_count", N_EXPERTS, &e);
    gguf_meta_set_u32(m, "qwen3moe.expert_used_count", 2, &e);
    gguf_meta_set_u32(m, "qwen3moe.leading_dense_block_count", 2, &e);
    gguf_meta_set_u32(m, "qwen3moe.nextn_predict_layers", 1, &e);
    gguf_meta_set_array(m, "qwen3moe.feed_forward_length", GGUF_U32, widths, N_LAYERS, &e);
    gguf_meta_set_array(m, "qwen3moe.rope.dimension_sections", GGUF_I32, sections, N_LAYERS, &e);
    return m;
}

/* copy_gguf of in_path with these parts left out. */
static int prune(const char *layers, const char *experts, struct err *e)
{
    struct gguf_reader *in;
    struct gguf_meta *changes;
    struct gguf_selection *s = NULL;
    struct prune p = {0};
    if (experts) {
        FILE *f = fopen(list_path, "w");
        assert_non_null(f);
        fputs(experts, f);
        fclose(f);
    }
    assert_int_equal(gguf_reader_open(&in, in_path, NULL, e), 0);
    assert_int_equal(gguf_meta_new(&changes, e), 0);
    int rc = layers ? prune_layers(&p, layers, e) : 0;
    if (rc == 0 && experts)
        rc = prune_experts(&p, list_path, e);
    if (rc == 0)
        rc = prune_select(&s, &p, in, changes, e);
    if (rc == 0) {
        struct copy_gguf_options opt = {.overwrite = true, .select = s, .set = changes};
        rc = copy_gguf(in, out_path, &opt, NULL, e);
    }
    prune_selection_free(s);
    prune_release(&p);
    gguf_meta_free(changes);
    gguf_reader_close(in);
    return rc;
}

static void assert_refused(const char *layers, const char *experts, int code, const char *words)
{
    struct err e = {0};
    unlink(out_path);
    assert_int_equal(prune(layers, experts, &e), code);
    if (!strstr(e.msg, words))
        fail_msg("'%s' lacks '%s'", e.msg, words);
    assert_int_not_equal(access(out_path, F_OK), 0);
}

/* Tensor `name` of the output holds these slices of layer `layer`, kind `kind`; kept NULL: all of them. */
static void assert_slices(const struct gguf_reader *r, const char *name, uint32_t layer, size_t kind,
                          const uint32_t *kept, size_t n_kept, size_t n_slices)
{
    const struct gguf_tensor *t = gguf_reader_find(r, name);
    if (!t)
        fail_msg("no tensor %s", name);
    size_t n = kept ? n_kept : n_slices;
    assert_int_equal(t->ne[t->n_dims - 1], n);
    uint64_t slice = t->n_bytes / n;
    for (size_t k = 0; k < n; k++)
        for (uint64_t i = 0; i < slice; i++)
            assert_int_equal(t->data[k * slice + i], byte_at(layer, kind, (kept ? kept[k] : k) * slice + i));
}

static void layers_are_numbered_anew_with_all_that_is_told_of_them(void **state)
{
    (void)state;
    struct err e = {0};
    struct gguf_meta *m = model_meta();
    write_file(m, of_model, N_KINDS(of_model));
    gguf_meta_free(m);
    assert_int_equal(prune("1, 3-3", NULL, &e), 0);
    struct gguf_reader *r;
    assert_int_equal(gguf_reader_open(&r, out_path, NULL, &e), 0);
    const struct gguf_meta *got = gguf_reader_meta(r);
    uint64_t v;
    assert_true(gguf_meta_get_u64(got, "qwen3moe.block_count", &v) && v == 3);
    assert_true(gguf_meta_get_u64(got, "qwen3moe.leading_dense_block_count", &v) && v == 1);
    assert_true(gguf_meta_get_u64(got, "qwen3moe.nextn_predict_layers", &v) && v == 1);
    assert_true(gguf_meta_get_u64(got, "qwen3moe.expert_count", &v) && v == N_EXPERTS);
    assert_null(gguf_meta_find(got, "general.size_label"));
    const struct gguf_value *widths = gguf_meta_find(got, "qwen3moe.feed_forward_length");
    static const uint32_t old[3] = {0, 2, 4};
    for (uint64_t l = 0; l < 3; l++) {
        int64_t w = 0;
        assert_true(gguf_array_i64(widths, l, &w) && w == 10 + old[l]);
    }
    assert_int_equal(widths->a.n, 3);
    assert_int_equal(gguf_meta_find(got, "qwen3moe.rope.dimension_sections")->a.n,
                     N_LAYERS); /* not of layers */
    assert_int_equal(gguf_reader_n_tensors(r), 3 * N_KINDS(of_model) + 1);
    for (uint32_t l = 0; l < 3; l++)
        for (size_t k = 0; k < N_KINDS(of_model); k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.%s", l, of_model[k].suffix);
            assert_slices(r, name, old[l], k, NULL, 0, of_model[k].ne[of_model[k].n_dims - 1]);
        }
    gguf_reader_close(r);
}

static void experts_go_from_stacks_routers_and_biases_alike(void **state)
{
    (void)state;
    struct err e = {0};
    struct gguf_meta *m = model_meta();
    write_file(m, of_model, N_KINDS(of_model));
    gguf_meta_free(m);
    const char *list = "# rarely used\n0: 0,5\n 1 : 1-2 \r\n2:4,3 # these\n\n3: 5,0\n4: 2,4";
    assert_int_equal(prune("1", list, &e), 0);
    static const uint32_t old[4] = {0, 2, 3, 4};
    static const uint32_t kept[4][4] = {{1, 2, 3, 4}, {0, 1, 2, 5}, {1, 2, 3, 4}, {0, 1, 3, 5}};
    struct gguf_reader *r;
    assert_int_equal(gguf_reader_open(&r, out_path, NULL, &e), 0);
    uint64_t v;
    assert_true(gguf_meta_get_u64(gguf_reader_meta(r), "qwen3moe.expert_count", &v) && v == 4);
    for (uint32_t l = 0; l < 4; l++)
        for (size_t k = 0; k < N_KINDS(of_model); k++) {
            char name[64];
            bool of_experts = k >= 1 && k <= 3;
            snprintf(name, sizeof name, "blk.%u.%s", l, of_model[k].suffix);
            assert_slices(r, name, old[l], k, of_experts ? kept[l] : NULL, 4,
                          of_model[k].ne[of_model[k].n_dims - 1]);
        }
    gguf_reader_close(r);
}

static void an_importance_matrix_is_cut_like_its_model(void **state)
{
    (void)state;
    struct err e = {0};
    struct gguf_meta *m;
    assert_int_equal(gguf_meta_new(&m, &e), 0);
    gguf_meta_set_string(m, "general.type", "imatrix", &e);
    gguf_meta_set_string(m, "kerf.imatrix.model.hash", "of the whole model", &e);
    write_file(m, of_matrix, N_KINDS(of_matrix));
    gguf_meta_free(m);
    assert_int_equal(prune("0-1,4", "*: 0,2,4", &e), 0);
    static const uint32_t kept[] = {1, 3, 5};
    struct gguf_reader *r;
    assert_int_equal(gguf_reader_open(&r, out_path, NULL, &e), 0);
    assert_null(gguf_meta_find(gguf_reader_meta(r), "kerf.imatrix.model.hash"));
    assert_int_equal(gguf_reader_n_tensors(r), 2 * N_KINDS(of_matrix) + 1);
    for (uint32_t l = 0; l < 2; l++)
        for (size_t k = 0; k < N_KINDS(of_matrix); k++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.%s", l, of_matrix[k].suffix);
            assert_slices(r, name, l + 2, k, k >= 2 ? kept : NULL, 3, 1);
        }
    gguf_reader_close(r);
}

static void what_cannot_be_left_out_is_refused_by_name(void **state)
{
    (void)state;
    struct gguf_meta *m = model_meta();
    struct err e = {0};
    write_file(m, of_model, N_KINDS(of_model));
    assert_refused("3-9", NULL, ERR_ARG, "layer 5 cannot be dropped, the layers are 0 to 4");
    assert_refused("0-4", NULL, ERR_ARG, "leaves none");
    assert_refused("4-2", NULL, ERR_ARG, "found '4-2'");
    assert_refused("1,,2", NULL, ERR_ARG, "expected numbers and ranges");
    assert_refused("99999999999", NULL, ERR_ARG, "expected numbers and ranges");
    assert_refused(NULL, "0: 1\n", ERR_ARG, "keeps 6 experts and an earlier one 5");
    assert_refused(NULL, "*: 0-4\n", ERR_ARG, "1 experts stay, but each token uses 2");
    assert_refused(NULL, "*: 0-5\n", ERR_ARG, "keeps no expert");
    assert_refused(NULL, "*: 6\n", ERR_ARG, "expert 6 of layer 0 is not there");
    assert_refused(NULL, "*: 1\n7: 2\n", ERR_ARG, "layer 7 has no experts");
    assert_refused(NULL, "*: 1\n0; 2\n", ERR_FORMAT, "drop.txt:2: expected LAYER: EXPERTS");
    assert_refused(NULL, "# none\n", ERR_FORMAT, "names no expert");
    gguf_meta_set_u32(m, "qwen3moe.full_attention_interval", 2, &e);
    write_file(m, of_model, N_KINDS(of_model));
    assert_refused("0", NULL, ERR_ARG, "drop whole groups of 2");
    assert_int_equal(prune("0-1", NULL, &e), 0);
    gguf_meta_set_u32(m, "qwen3moe.expert_group_count", 2, &e);
    write_file(m, of_model, N_KINDS(of_model));
    assert_refused(NULL, "*: 0,3\n", ERR_UNSUPPORTED, "in 2 groups");
    gguf_meta_free(m);
}

/* Every fourth layer of SmolLM3 has no positions, which no key says. */
static void layers_keep_what_the_family_gives_them(void **state)
{
    (void)state;
    struct gguf_meta *m = NULL;
    struct err e = {0};
    assert_int_equal(gguf_meta_new(&m, &e), 0);
    gguf_meta_set_string(m, "general.architecture", "smollm3", &e);
    gguf_meta_set_u32(m, "smollm3.block_count", N_LAYERS, &e);
    write_file(m, of_model, 1);
    assert_refused("0", NULL, ERR_ARG, "another kind: 'smollm3' gives every 4. layer");
    assert_int_equal(prune("4", NULL, &e), 0);
    gguf_meta_free(m);

    assert_int_equal(gguf_meta_new(&m, &e), 0); /* a hybrid that does not say its interval */
    gguf_meta_set_string(m, "general.architecture", "qwen3next", &e);
    gguf_meta_set_u32(m, "qwen3next.block_count", N_LAYERS, &e);
    write_file(m, of_model, N_KINDS(of_model));
    assert_refused("1", NULL, ERR_ARG, "drop whole groups of 4");
    assert_int_equal(prune("0-3", NULL, &e), 0);
    gguf_meta_free(m);

    assert_int_equal(gguf_meta_new(&m, &e), 0);
    gguf_meta_set_u32(m, "kerf.hessian.version", 1, &e);
    write_file(m, of_matrix, N_KINDS(of_matrix));
    assert_refused("1", NULL, ERR_UNSUPPORTED, "a Hessian file is not pruned");
    gguf_meta_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_are_numbered_anew_with_all_that_is_told_of_them),
        cmocka_unit_test(experts_go_from_stacks_routers_and_biases_alike),
        cmocka_unit_test(an_importance_matrix_is_cut_like_its_model),
        cmocka_unit_test(what_cannot_be_left_out_is_refused_by_name),
        cmocka_unit_test(layers_keep_what_the_family_gives_them),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
