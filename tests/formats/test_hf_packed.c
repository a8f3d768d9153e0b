/* test_hf_packed.c - packed weights: every layout equals its formula in double precision however it is read,
 * configurations as published are recognized, and every contradiction is refused by name. */
#include "formats/model/model.h"
#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/hf_packed.h"
#include "libquant/base/rng.h"
#include "scratch.h"
#include "toy_checkpoint.h"
#include "toy_packed.h"

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

#define STEM "model.layers.0.mlp.up_proj"

enum { ROWS = 24, COLS = 96 };

/* --- a packed list from tensors in memory ----------------------------------------------------------------
 */

struct opened {
    struct hf_config *config;
    struct hf_quant *quant;
    struct hf_packed_input *in;
    struct hf_packed_list list;
    struct arena arena;
};

static int try_open(struct opened *o, const char *quantization_config, const struct toy_packed *p,
                    struct err *e)
{
    char text[2000];
    *o = (struct opened){.config = NULL};
    int len = snprintf(text, sizeof text, "{\"quantization_config\": %s}", quantization_config);
    int rc = hf_config_parse(&o->config, text, (size_t)len, "config.json", e);
    if (rc == 0)
        rc = hf_quant_load(&o->quant, o->config, NULL, e);
    if (rc != 0 || !p)
        return rc;
    assert_non_null(o->quant);
    o->in = calloc(p->n + 1, sizeof *o->in);
    for (size_t i = 0; i < p->n; i++)
        o->in[i] = (struct hf_packed_input){&p->t[i], "toy.safetensors"};
    return hf_packed_group(&o->list, o->quant, o->in, p->n, &o->arena, e);
}

static void close_opened(struct opened *o)
{
    arena_release(&o->arena);
    free(o->in);
    hf_quant_free(o->quant);
    hf_config_free(o->config);
}

static void read_or_fail(const struct hf_packed *w, uint64_t first, uint64_t n, float *dst)
{
    struct err e = {0};
    if (hf_packed_read(w, first, n, dst, &e) != 0)
        fail_msg("%s", e.msg);
}

/* --- the values ------------------------------------------------------------------------------------------
 */

static void check_kind(enum toy_packing kind, uint64_t rows, uint64_t cols)
{
    struct toy_packed p = {.seed = (uint64_t)kind + rows};
    struct opened o;
    struct err e = {0};
    toy_packed_add(&p, kind, STEM, rows, cols);
    if (try_open(&o, toy_packing_config(kind), &p, &e) != 0)
        fail_msg("%s: %s", toy_packing_name(kind), e.msg);
    assert_int_equal(o.list.n_weights, 1);
    const struct hf_packed *w = o.list.weights[0];
    uint32_t n_dims;
    const uint64_t *shape = hf_packed_shape(w, &n_dims);
    assert_string_equal(hf_packed_name(w), STEM ".weight");
    if (strncmp(hf_packed_type(w), toy_packing_type(kind), strlen(toy_packing_type(kind))) != 0)
        fail_msg("%s: type '%s'", toy_packing_name(kind), hf_packed_type(w));
    assert_int_equal(n_dims, 2);
    assert_int_equal(shape[0], rows);
    assert_int_equal(shape[1], cols);
    for (size_t i = 0; i < p.n; i++)
        assert_true(o.list.fates[i].weight == w || o.list.fates[i].dropped);

    uint64_t n = rows * cols;
    float *all = malloc(n * sizeof *all), *part = malloc(n * sizeof *part);
    read_or_fail(w, 0, n, all);
    for (uint64_t k = 0; k < n; k++) {
        double want = toy_packed_value(&p, kind, STEM, k / cols, k % cols);
        if (!(fabs(all[k] - want) <= 2.5e-7 * fabs(want) + 1e-12))
            fail_msg("%s: [%d, %d] is %.9g, not %.9g", toy_packing_name(kind), (int)(k / cols),
                     (int)(k % cols), (double)all[k], want);
    }
    /* the same bits whatever is asked at once */
    struct rng rng = {7};
    for (int i = 0; i < 60; i++) {
        uint64_t first = rng_below(&rng, n), len = 1 + rng_below(&rng, i % 2 ? n - first : cols);
        len = len < n - first ? len : n - first;
        read_or_fail(w, first, len, part);
        assert_memory_equal(part, all + first, len * sizeof *all);
    }
    hf_packed_hint(w, 0, n, true);
    hf_packed_hint(w, n / 2, n - n / 2, false);
    free(all);
    free(part);
    close_opened(&o);
    toy_packed_release(&p);
}

static void every_layout_equals_its_formula(void **state)
{
    (void)state;
    for (int kind = 0; kind < TOY_PACKING_COUNT; kind++) {
        check_kind((enum toy_packing)kind, ROWS, COLS);
        check_kind((enum toy_packing)kind, 8, COLS);
        check_kind((enum toy_packing)kind, 136, 2 * COLS); /* more rows than are taken at once */
        check_kind((enum toy_packing)kind, 16, 24 * COLS); /* more groups than fit on the stack */
    }
}

static void stacks_of_matrices_have_their_own_scales(void **state)
{
    (void)state;
    enum { M = 3, O = 20, I = 50 };
    struct toy_packed p = {.seed = 3};
    struct opened o;
    struct err e = {0};
    const char *fp8 = "{\"quant_method\": \"fp8\", \"weight_block_size\": [16, 40]}";
    const uint8_t *codes =
        toy_packed_tensor(&p, "experts.gate_up_proj", ST_F8_E4M3, 3, (uint64_t[]){M, O, I}, NULL);
    float scale[M * 2 * 2];
    for (int i = 0; i < M * 4; i++)
        scale[i] = (float)(i + 1) * 0.25f;
    toy_packed_tensor(&p, "experts.gate_up_proj_scale_inv", ST_F32, 3, (uint64_t[]){M, 2, 2}, scale);
    assert_int_equal(try_open(&o, fp8, &p, &e), 0);
    float *x = malloc(sizeof *x * M * O * I);
    read_or_fail(o.list.weights[0], 0, M * O * I, x);
    uint8_t one = 0x38; /* 1.0 */
    ((uint8_t *)(uintptr_t)codes)[2 * O * I + 17 * I + 41] = one;
    read_or_fail(o.list.weights[0], 2 * O * I + 17 * I + 41, 1, x);
    assert_float_equal(x[0], scale[2 * 4 + 3], 0);
    close_opened(&o);

    /* one scale for each matrix, without blocks */
    p.t[1].n_dims = 1;
    p.t[1].shape[0] = p.t[1].n_elems = M;
    assert_int_equal(try_open(&o, "{\"quant_method\": \"fp8\"}", &p, &e), 0);
    read_or_fail(o.list.weights[0], 2 * O * I + 17 * I + 41, 1, x);
    assert_float_equal(x[0], scale[2], 0);
    close_opened(&o);
    toy_packed_release(&p);

    /* nvfp4 with one factor for each matrix */
    float global[2] = {0.5f, 4};
    uint8_t *c = toy_packed_tensor(&p, "e.weight", ST_U8, 3, (uint64_t[]){2, 4, 16}, NULL);
    uint8_t *s = toy_packed_tensor(&p, "e.weight_scale", ST_F8_E4M3, 3, (uint64_t[]){2, 4, 2}, NULL);
    toy_packed_tensor(&p, "e.weight_scale_2", ST_F32, 1, (uint64_t[]){2}, global);
    c[64 + 3 * 16 + 10] = 0x72; /* 1 and 6, columns 20 and 21 of row 3 of the second matrix */
    s[8 + 3 * 2 + 1] = 0x38;
    assert_int_equal(try_open(&o, toy_packing_config(TOY_MODELOPT_NVFP4), &p, &e), 0);
    read_or_fail(o.list.weights[0], 128 + 3 * 32 + 20, 2, x);
    assert_float_equal(x[0], 4, 0);
    assert_float_equal(x[1], 24, 0);
    free(x);
    close_opened(&o);
    toy_packed_release(&p);
}

/* gpt-oss: 16 bytes of codes and a scale for 32 columns, a name for each, another one than an unpacked stack
 * has. */
static void stacks_in_blocks_of_rows_are_read_as_they_stand(void **state)
{
    (void)state;
    struct toy_packed p = {.seed = 11};
    struct opened o;
    struct err e = {0};
    const char *config = "{\"quant_method\": \"mxfp4\"}";
    float x[2];
    uint32_t n_dims;
    uint8_t *c = toy_packed_tensor(&p, "experts.down_proj_blocks", ST_U8, 4, (uint64_t[]){2, 3, 2, 16}, NULL);
    uint8_t *s = toy_packed_tensor(&p, "experts.down_proj_scales", ST_U8, 3, (uint64_t[]){2, 3, 2}, NULL);
    c[((1 * 3 + 2) * 2 + 1) * 16 + 5] =
        0xf1; /* 0.5 and -6, columns 42 and 43 of row 2 of the second expert */
    s[(1 * 3 + 2) * 2 + 1] = 129;
    assert_int_equal(try_open(&o, config, &p, &e), 0);
    const struct hf_packed *w = o.list.weights[0];
    assert_string_equal(hf_packed_name(w), "experts.down_proj.weight");
    const uint64_t *shape = hf_packed_shape(w, &n_dims);
    assert_true(n_dims == 3 && shape[0] == 2 && shape[1] == 3 && shape[2] == 64);
    read_or_fail(w, (1 * 3 + 2) * 64 + 42, 2, x);
    assert_true(x[0] == 2 && x[1] == -24);
    close_opened(&o);
    p.t[0].shape[3] = 8;
    p.t[0].n_elems /= 2;
    assert_int_equal(try_open(&o, config, &p, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "blocks of 8 bytes, expected 16"));
    close_opened(&o);
    toy_packed_release(&p);
}

static void one_gptq_module_may_have_a_width_of_its_own(void **state)
{
    (void)state;
    struct toy_packed p = {.seed = 4};
    struct opened o;
    struct err e = {0};
    float x, y;
    toy_packed_add(&p, TOY_GPTQ_8, STEM, ROWS, COLS);
    toy_packed_add(&p, TOY_GPTQ_ACT, "b", ROWS, COLS);
    assert_int_equal(try_open(&o,
                              "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32, "
                              "\"dynamic\": {\"x\": {\"bits\": 8}}}",
                              &p, &e),
                     0);
    assert_string_equal(hf_packed_type(o.list.weights[0]), "GPTQ 8-bit g32");
    assert_string_equal(hf_packed_type(o.list.weights[1]), "GPTQ 4-bit g32");
    read_or_fail(o.list.weights[0], 5 * COLS + 50, 1, &x);
    read_or_fail(o.list.weights[1], 5 * COLS + 50, 1, &y);
    assert_float_equal(x, toy_packed_value(&p, TOY_GPTQ_8, STEM, 5, 50), 1e-6);
    assert_float_equal(y, toy_packed_value(&p, TOY_GPTQ_ACT, "b", 5, 50), 1e-6);
    close_opened(&o);
    toy_packed_release(&p);
}

static void an_index_of_minus_ones_means_columns_in_order(void **state)
{
    (void)state;
    struct toy_packed p = {.seed = 5};
    struct opened o;
    struct err e = {0};
    float x[COLS], y[COLS];
    toy_packed_add(&p, TOY_CT_PACK_4_INDEX, STEM, ROWS, COLS);
    uint8_t *index = (uint8_t *)(uintptr_t)toy_packed_find(&p, STEM ".weight_g_idx")->data;
    memset(index, 0xff, 4 * COLS);
    assert_int_equal(try_open(&o, toy_packing_config(TOY_CT_PACK_4_INDEX), &p, &e), 0);
    read_or_fail(o.list.weights[0], 0, COLS, x);
    for (int i = 0; i < COLS; i++)
        memcpy(index + 4 * i, &(int32_t){i / 32}, 4);
    read_or_fail(o.list.weights[0], 0, COLS, y);
    assert_memory_equal(x, y, sizeof x);
    close_opened(&o);
    toy_packed_release(&p);
}

static void names_alone_are_grouped(void **state)
{
    (void)state;
    struct st_tensor names[] = {{.name = "a.qweight"}, {.name = "a.qzeros"}, {.name = "a.scales"},
                                {.name = "a.g_idx"},   {.name = "a.bias"},   {.name = "norm.weight"}};
    struct toy_packed p = {names, 6, 6, 0};
    struct opened o;
    struct err e = {0};
    assert_int_equal(try_open(&o, toy_packing_config(TOY_GPTQ_4), &p, &e), 0);
    assert_int_equal(o.list.n_weights, 1);
    assert_string_equal(hf_packed_name(o.list.weights[0]), "a.weight");
    assert_true(hf_packed_is_late(o.list.weights[0]));
    assert_true(o.list.fates[4].is_beside);
    assert_null(o.list.fates[4].weight);
    assert_null(o.list.fates[5].weight);
    close_opened(&o);
}

/* --- refusals --------------------------------------------------------------------------------------------
 */

static void expect_config_refusal(const char *json, int code, const char *want)
{
    struct opened o;
    struct err e = {0};
    int rc = try_open(&o, json, NULL, &e);
    if (rc != code || !strstr(e.msg, want))
        fail_msg("%s: %d '%s', not %d '%s'", json, rc, e.msg, code, want);
    assert_null(o.quant);
    close_opened(&o);
}

struct config_refusal {
    const char *json;
    int code;
    const char *want;
};

static void expect_refusals(const struct config_refusal *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect_config_refusal(cases[i].json, cases[i].code, cases[i].want);
}

static void methods_that_are_not_read_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const methods[] = {"aqlm", "hqq",   "quanto",  "eetq", "higgs",   "vptq",
                                          "spqr", "quark", "torchao", "gguf", "fp_quant"};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char json[100], want[100];
        snprintf(json, sizeof json, "{\"quant_method\": \"%s\"}", methods[i]);
        snprintf(want, sizeof want, "compressed with '%s', which is not supported", methods[i]);
        expect_config_refusal(json, ERR_UNSUPPORTED, want);
    }
    expect_config_refusal("{}", ERR_UNSUPPORTED, "without 'quant_method'");
}

static void forms_of_gptq_and_awq_that_are_not_read_are_refused(void **state)
{
    (void)state;
    static const struct config_refusal cases[] = {
        {"{\"quant_method\": \"awq\", \"version\": \"gemv\"}", ERR_UNSUPPORTED, "version 'gemv'"},
        {"{\"quant_method\": \"awq\", \"bits\": 3}", ERR_FORMAT, "'bits' is not 4"},
        {"{\"quant_method\": \"gptq\"}", ERR_FORMAT, "'bits' is not 2, 3, 4 or 8"},
        {"{\"quant_method\": \"gptq\", \"bits\": 5}", ERR_FORMAT, "'bits' is not 2, 3, 4 or 8"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 0}", ERR_FORMAT, "'group_size'"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": \"all\"}", ERR_FORMAT, "'group_size'"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"checkpoint_format\": \"marlin\"}", ERR_UNSUPPORTED,
         "checkpoint_format 'marlin'"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"is_marlin_format\": true}", ERR_UNSUPPORTED,
         "'marlin'"},
    };
    expect_refusals(cases, sizeof cases / sizeof *cases);
}

static void shapes_of_fp8_blocks_are_checked(void **state)
{
    (void)state;
    static const struct config_refusal cases[] = {
        {"{\"quant_method\": \"fp8\", \"weight_block_size\": [128]}", ERR_FORMAT, "'weight_block_size'"},
        {"{\"quant_method\": \"fp8\", \"weight_block_size\": [0, 128]}", ERR_FORMAT, "'weight_block_size'"},
        {"{\"quant_method\": \"fp8\", \"weight_block_size\": [1, 2, 3]}", ERR_FORMAT, "'weight_block_size'"},
        {"{\"quant_method\": \"fp8\", \"weight_block_size\": 128}", ERR_FORMAT, "'weight_block_size'"},
    };
    expect_refusals(cases, sizeof cases / sizeof *cases);
}

static void forms_of_compressed_tensors_that_are_not_read_are_refused(void **state)
{
    (void)state;
    static const struct config_refusal cases[] = {
        {"{\"quant_method\": \"compressed-tensors\"}", ERR_FORMAT, "'config_groups' is not an object"},
        {"{\"quant_method\": \"compressed-tensors\", \"format\": \"marlin-24\", \"config_groups\": {}}",
         ERR_UNSUPPORTED, "format 'marlin-24'"},
        {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"a\": {\"format\": \"w\"}}}",
         ERR_UNSUPPORTED, "format 'w'"},
        {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"W8A8\": [\"Linear\"]}}",
         ERR_FORMAT, "'config_groups' is not an object of objects"},
        {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {}, "
         "\"sparsity_config\": {\"format\": \"sparse-bitmask\"}}",
         ERR_UNSUPPORTED, "sparsity format 'sparse-bitmask'"},
        {"{\"quant_method\": \"compressed-tensors\", \"config_groups\": {}, "
         "\"transform_config\": {\"config_groups\": {\"R1\": {}}}}",
         ERR_UNSUPPORTED, "transform_config"},
    };
    expect_refusals(cases, sizeof cases / sizeof *cases);
}

static void forms_of_auto_round_that_are_not_read_are_refused(void **state)
{
    (void)state;
    static const struct config_refusal cases[] = {
        {"{\"quant_method\": \"auto-round\", \"bits\": 4, \"group_size\": 32, \"packing_format\": "
         "\"auto_round:llm_compressor\"}",
         ERR_UNSUPPORTED, "packing_format 'auto_round:llm_compressor'"},
        {"{\"quant_method\": \"auto-round\", \"bits\": 4, \"group_size\": 32, \"data_type\": \"mx_fp\"}",
         ERR_UNSUPPORTED, "data_type 'mx_fp'"},
        {"{\"quant_method\": \"auto-round\", \"bits\": 4, \"group_size\": 32, \"act_bits\": 8}",
         ERR_UNSUPPORTED, "act_bits"},
        {"{\"quant_method\": \"auto-round\", \"bits\": 4, \"group_size\": 32, \"sym\": false}",
         ERR_UNSUPPORTED, "no packing_format beside 'sym: false'"},
        {"{\"quant_method\": \"auto-round\"}", ERR_FORMAT, "'bits' is not 2, 3, 4 or 8"},
    };
    expect_refusals(cases, sizeof cases / sizeof *cases);
}

static void forms_of_mlx_and_modelopt_that_are_not_read_are_refused(void **state)
{
    (void)state;
    static const struct config_refusal cases[] = {
        {"{\"bits\": 4, \"group_size\": 32, \"mode\": \"mxfp4\"}", ERR_UNSUPPORTED,
         "compressed with 'mlx', mode 'mxfp4', which is not supported"},
        {"{\"bits\": 4, \"group_size\": 32, \"mode\": \"nvfp4\"}", ERR_UNSUPPORTED, "mode 'nvfp4'"},
        {"{\"bits\": 4, \"group_size\": 32, \"lm_head\": {\"mode\": \"mxfp8\", \"bits\": 8}}",
         ERR_UNSUPPORTED, "mode 'mxfp8'"},
        {"{\"quant_method\": \"modelopt\", \"quant_algo\": \"W4A8_AWQ\"}", ERR_UNSUPPORTED,
         "quant_algo 'W4A8_AWQ'"},
        {"{\"quant_method\": \"modelopt\", \"quant_algo\": \"MIXED_PRECISION\", "
         "\"quantized_layers\": {\"a\": {\"quant_algo\": \"INT4_AWQ\"}}}",
         ERR_UNSUPPORTED, "quant_algo 'INT4_AWQ'"},
    };
    expect_refusals(cases, sizeof cases / sizeof *cases);
}

/* A copy of the layer with one thing changed: a part left out, of another dtype or with another shape. */
struct change {
    enum toy_packing kind;
    const char *part;
    enum { DROP, DTYPE, SHAPE } what;
    uint64_t dims[3]; /* n_dims, then sizes; or the dtype */
    int code;
    const char *want;
};

static void try_change(const struct change *c)
{
    struct toy_packed p = {.seed = 6};
    struct opened o;
    struct err e = {0};
    char name[200];
    toy_packed_add(&p, c->kind, STEM, ROWS, COLS);
    snprintf(name, sizeof name, "%s.%s", STEM, c->part);
    struct st_tensor *t = toy_packed_find(&p, name), saved = *t;
    if (c->what == DROP) {
        *t = p.t[--p.n];
    } else if (c->what == DTYPE) {
        t->dtype = (enum st_dtype)c->dims[0];
    } else {
        t->n_dims = (uint32_t)c->dims[0];
        memcpy(t->shape, c->dims + 1, 2 * sizeof *t->shape);
        t->n_elems = t->n_dims == 1 ? t->shape[0] : t->shape[0] * t->shape[1];
    }
    int rc = try_open(&o, toy_packing_config(c->kind), &p, &e);
    if (rc != c->code || !strstr(e.msg, c->want) || !strstr(e.msg, "toy.safetensors: "))
        fail_msg("%s, %s: %d '%s', not %d '%s'", toy_packing_name(c->kind), c->part, rc, e.msg, c->code,
                 c->want);
    close_opened(&o);
    if (c->what == DROP)
        p.t[p.n++] = saved;
    toy_packed_release(&p);
}

static void try_changes(const struct change *changes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        try_change(&changes[i]);
}

static void contradictions_of_fp8_are_refused_by_tensor(void **state)
{
    (void)state;
    static const struct change changes[] = {
        {TOY_FP8_BLOCK,
         "weight_scale_inv",
         DROP,
         {0},
         ERR_FORMAT,
         "F8_E4M3 without a scale; expected '" STEM},
        {TOY_FP8_BLOCK, "weight", DROP, {0}, ERR_FORMAT, "whose packed values are missing"},
        {TOY_FP8_BLOCK,
         "weight",
         DTYPE,
         {ST_U8},
         ERR_FORMAT,
         ".weight': a packed type that this method stores"},
        {TOY_FP8_BLOCK,
         "weight_scale_inv",
         DTYPE,
         {ST_I16},
         ERR_FORMAT,
         "F32, F16 or BF16 expected, found I16"},
        {TOY_FP8_BLOCK,
         "weight_scale_inv",
         SHAPE,
         {2, 2, 2},
         ERR_FORMAT,
         "one for each 16 x 40 values, one for each row or a single one for a weight of [24, 96], found [2, "
         "2]"},
        {TOY_FP8_BLOCK, "weight_scale_inv", SHAPE, {1, 3}, ERR_FORMAT, "found [3]"},
        {TOY_FP8_BLOCK, "weight", SHAPE, {2, 0, 96}, ERR_FORMAT, "none empty"},
        {TOY_MODELOPT_FP8, "weight_scale", DROP, {0}, ERR_FORMAT, "'" STEM ".weight_scale' beside it"},
    };
    try_changes(changes, sizeof changes / sizeof *changes);
}

static void contradictions_of_mlx_are_refused_by_tensor(void **state)
{
    (void)state;
    static const struct change changes[] = {
        {TOY_MLX_4, "scales", DROP, {0}, ERR_FORMAT, "the tensor with its scales is missing"},
        {TOY_MLX_4, "biases", DROP, {0}, ERR_FORMAT, "the tensor with its zero points is missing"},
        {TOY_MLX_4, "weight", DTYPE, {ST_I32}, ERR_FORMAT, "U32 expected, found I32"},
        {TOY_MLX_4, "scales", DTYPE, {ST_U32}, ERR_FORMAT, "F32, F16 or BF16 expected"},
        {TOY_MLX_4, "biases", SHAPE, {2, 24, 2}, ERR_FORMAT, "expected, found [24, 2]"},
        {TOY_MLX_3, "weight", SHAPE, {2, 24, 8}, ERR_FORMAT, "are not numbers of 3 bits in groups of 32"},
    };
    try_changes(changes, sizeof changes / sizeof *changes);
}

static void contradictions_of_gptq_and_awq_are_refused_by_tensor(void **state)
{
    (void)state;
    static const struct change changes[] = {
        {TOY_GPTQ_4, "qzeros", DROP, {0}, ERR_FORMAT, "the tensor with its zero points is missing"},
        {TOY_GPTQ_4, "scales", DROP, {0}, ERR_FORMAT, "the tensor with its scales is missing"},
        {TOY_GPTQ_4, "qweight", DROP, {0}, ERR_FORMAT, "whose packed values are missing"},
        {TOY_GPTQ_4, "qweight", DTYPE, {ST_U32}, ERR_FORMAT, "I32 expected, found U32"},
        {TOY_GPTQ_4, "scales", DTYPE, {ST_I16}, ERR_FORMAT, "F32, F16 or BF16 expected"},
        {TOY_GPTQ_4, "scales", SHAPE, {2, 3, 16}, ERR_FORMAT, "shape [2, 24] expected, found [3, 16]"},
        {TOY_GPTQ_4, "qzeros", SHAPE, {2, 3, 2}, ERR_FORMAT, "shape [2, 3] expected, found [3, 2]"},
        {TOY_GPTQ_4, "g_idx", SHAPE, {1, 95}, ERR_FORMAT, "shape [96] expected, found [95]"},
        {TOY_GPTQ_4, "qweight", SHAPE, {1, 288}, ERR_FORMAT, "2 to 2 dimensions"},
        {TOY_GPTQ_3, "qweight", SHAPE, {2, 8, 27}, ERR_FORMAT, "8 words do not hold whole groups of 3-bit"},
        {TOY_AWQ, "qzeros", SHAPE, {2, 1, 9}, ERR_FORMAT, "shape [3, 3] expected, found [1, 9]"},
        {TOY_AWQ, "scales", SHAPE, {2, 1, 72}, ERR_FORMAT, "shape [3, 24] expected"},
    };
    try_changes(changes, sizeof changes / sizeof *changes);
}

static void contradictions_of_compressed_tensors_are_refused_by_tensor(void **state)
{
    (void)state;
    static const struct change changes[] = {
        {TOY_CT_PACK_4, "weight_shape", DROP, {0}, ERR_FORMAT, "the tensor with its shape is missing"},
        {TOY_CT_PACK_4,
         "weight_packed",
         SHAPE,
         {2, 24, 11},
         ERR_FORMAT,
         "[24, 11] does not hold the shape [24, 96] with any 'num_bits'"},
        {TOY_CT_PACK_4, "weight_packed", SHAPE, {2, 23, 12}, ERR_FORMAT, "[23, 12] does not hold"},
        {TOY_CT_PACK_4, "weight_scale", SHAPE, {2, 24, 2}, ERR_FORMAT, "one for each 1 x 32 values"},
        {TOY_CT_PACK_4_ASYMMETRIC,
         "weight_zero_point",
         SHAPE,
         {2, 1, 3},
         ERR_FORMAT,
         "shape [3, 1] expected"},
        {TOY_CT_PACK_4_INDEX, "weight_g_idx", DTYPE, {ST_F32}, ERR_FORMAT, "I32 expected, found F32"},
        {TOY_CT_INT_ASYMMETRIC, "weight_zero_point", SHAPE, {2, 3, 24}, ERR_FORMAT, "shape [24, 3] expected"},
    };
    try_changes(changes, sizeof changes / sizeof *changes);
}

static void contradictions_of_nvfp4_are_refused_by_tensor(void **state)
{
    (void)state;
    static const struct change changes[] = {
        {TOY_CT_NVFP4,
         "weight_scale",
         SHAPE,
         {2, 24, 5},
         ERR_FORMAT,
         "shape [24, 6] expected, found [24, 5]"},
        {TOY_CT_NVFP4, "weight_scale", DTYPE, {ST_BF16}, ERR_FORMAT, "F8_E4M3 expected, found BF16"},
        {TOY_CT_NVFP4, "weight_global_scale", SHAPE, {1, 2}, ERR_FORMAT, "shape [1] expected, found [2]"},
        {TOY_MODELOPT_NVFP4, "weight_scale", DROP, {0}, ERR_FORMAT, "the tensor with its scales is missing"},
    };
    try_changes(changes, sizeof changes / sizeof *changes);
}

static void contradictions_of_bitsandbytes_and_bitnet_are_refused_by_tensor(void **state)
{
    (void)state;
    static const struct change changes[] = {
        {TOY_BITNET, "weight_scale", SHAPE, {1, 2}, ERR_FORMAT, "shape [1] expected, found [2]"},
        {TOY_BITNET, "weight", DTYPE, {ST_I8}, ERR_FORMAT, "U8 expected, found I8"},
        {TOY_BNB_NF4, "weight.absmax", SHAPE, {1, 35}, ERR_FORMAT, "shape [36] expected, found [35]"},
        {TOY_BNB_NF4,
         "weight.quant_map",
         DROP,
         {0},
         ERR_FORMAT,
         "no tensor '" STEM ".weight.quant_map' beside it"},
        {TOY_BNB_NF4, "weight.nested_absmax", SHAPE, {1, 4}, ERR_FORMAT, "shape [5] expected, found [4]"},
        {TOY_BNB_NF4, "weight.nested_absmax", DROP, {0}, ERR_FORMAT, "F32 expected, found U8"},
        {TOY_BNB_NF4, "weight.quant_state.bitsandbytes__nf4", DROP, {0}, ERR_FORMAT, "no usable tensor"},
        {TOY_BNB_FP4, "weight", SHAPE, {2, 1151, 1}, ERR_FORMAT, "shape [1152] expected, found [1151, 1]"},
        {TOY_BNB_INT8, "SCB", SHAPE, {1, 23}, ERR_FORMAT, "shape [24] expected, found [23]"},
    };
    try_changes(changes, sizeof changes / sizeof *changes);
}

static void values_that_lead_outside_are_refused(void **state)
{
    (void)state;
    static const int32_t bad[] = {3, -1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct toy_packed p = {.seed = 8};
        struct opened o;
        struct err e = {0};
        float x[COLS];
        toy_packed_add(&p, TOY_GPTQ_ACT, STEM, ROWS, COLS);
        memcpy((uint8_t *)(uintptr_t)toy_packed_find(&p, STEM ".g_idx")->data + 4 * 95, &bad[i], 4);
        assert_int_equal(try_open(&o, toy_packing_config(TOY_GPTQ_ACT), &p, &e), 0);
        assert_int_equal(hf_packed_read(o.list.weights[0], 0, COLS, x, &e), ERR_FORMAT);
        assert_non_null(strstr(e.msg, STEM ".g_idx': group "));
        assert_non_null(strstr(e.msg, "of column 95, but there are 3 groups"));
        close_opened(&o);
        toy_packed_release(&p);
    }
    /* sizes that no file can have */
    static const int64_t shapes[][2] = {
        {24, 0}, {24, -96}, {INT64_MAX, 96}, {(int64_t)1 << 33, (int64_t)1 << 33}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct toy_packed p = {.seed = 9};
        struct opened o;
        struct err e = {0};
        toy_packed_add(&p, TOY_CT_PACK_4, STEM, ROWS, COLS);
        memcpy((uint8_t *)(uintptr_t)toy_packed_find(&p, STEM ".weight_shape")->data, shapes[i], 16);
        assert_int_equal(try_open(&o, toy_packing_config(TOY_CT_PACK_4), &p, &e), ERR_FORMAT);
        close_opened(&o);
        toy_packed_release(&p);
    }
}

/* --- published configurations ----------------------------------------------------------------------------
 */

static void expect_published(const char *release, const char *method)
{
    char from[600];
    const char *folder = in_scratch(release);
    mkdir(folder, 0700);
    static const char *const files[] = {"config.json", "hf_quant_config.json"};
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, KERF_SHARED "/data/configs/%s_%s", release, files[i]);
        char *to = hf_path(folder, files[i]);
        if (access(from, R_OK) == 0) {
            char *real = realpath(from, NULL);
            assert_non_null(real);
            assert_int_equal(symlink(real, to), 0);
            free(real);
        }
        free(to);
    }
    struct hf_config *config = NULL;
    struct hf_quant *q = NULL;
    struct err e = {0};
    if (hf_config_load(&config, folder, &e) != 0 || hf_quant_load(&q, config, folder, &e) != 0)
        fail_msg("%s: %s", release, e.msg);
    if (method) {
        assert_non_null(q);
        assert_string_equal(hf_quant_name(q), method);
    } else {
        assert_null(q);
    }
    hf_quant_free(q);
    hf_config_free(config);
}

static void published_configurations_are_recognized(void **state)
{
    (void)state;
    if (access(KERF_SHARED "/data/configs", R_OK) != 0)
        skip();
    expect_published("Qwen--Qwen3-235B-A22B-FP8", "fp8");
    expect_published("Qwen--Qwen3-30B-A3B-FP8", "fp8");
    expect_published("Qwen--Qwen3-32B-FP8", "fp8");
    expect_published("Qwen--Qwen3-32B-FP8-Static-PerTensor", "modelopt");
    expect_published("nvidia--Llama-3.1-70B-Instruct-FP8", "modelopt");
    expect_published("nvidia--Qwen3-235B-A22B-NVFP4", "modelopt");
    expect_published("nvidia--Qwen3.5-122B-A10B-NVFP4", "modelopt");
    expect_published("nvidia--Qwen3.6-35B-A3B-NVFP4", "modelopt");
    expect_published("Qwen--Qwen3-8B", NULL);
    expect_published("Qwen--Qwen3.5-27B", NULL);
}

static void older_releases_state_it_in_a_file_of_its_own(void **state)
{
    (void)state;
    static const char *const files[][3] = {
        {"quantize_config.json", "{\"bits\": 4, \"group_size\": 128, \"desc_act\": false}", "gptq"},
        {"quant_config.json",
         "{\"zero_point\": true, \"q_group_size\": 128, \"w_bit\": 4, \"version\": \"GEMM\"}", "awq"},
        {"hf_quant_config.json",
         "{\"producer\": {\"name\": \"ModelOpt\"}, \"quantization\": {\"quant_algo\": \"FP8\"}}", "modelopt"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *folder = in_scratch(files[i][2]);
        struct hf_config *config = NULL;
        struct hf_quant *q = NULL;
        struct err e = {0};
        mkdir(folder, 0700);
        scratch_text_in(folder, files[i][0], files[i][1]);
        assert_int_equal(hf_config_parse(&config, "{\"model_type\": \"qwen2\"}", 23, "config.json", &e), 0);
        assert_int_equal(hf_quant_load(&q, config, folder, &e), 0);
        assert_non_null(q);
        assert_string_equal(hf_quant_name(q), files[i][2]);
        hf_quant_free(q);
        hf_config_free(config);
    }
}

/* --- as a model ------------------------------------------------------------------------------------------
 */

static void rewrite_config(const char *folder, const char *quantization)
{
    char *path = hf_path(folder, "config.json");
    char text[8192];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *end = strrchr(text, '}');
    assert_non_null(end);
    snprintf(end, sizeof text - (size_t)(end - text), ", \"quantization_config\": %s}", quantization);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

/* A toy checkpoint whose projections are packed; what they hold is in `p`. */
static const char *write_packed_model(const char *name, enum toy_arch arch, enum toy_packing kind,
                                      bool biases, struct toy_packed *p)
{
    const char *folder = in_scratch(name);
    struct toy_spec spec = toy_spec_tiny(arch);
    struct hf_checkpoint *c = NULL;
    struct err e = {0};
    spec.hidden = 192; /* what the packings need: a multiple of 96 */
    spec.ffn = 384;
    spec.head_dim = 48;
    if (toy_checkpoint_write(folder, &spec, &e) != 0 || hf_checkpoint_open(&c, folder, false, &e) != 0)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < hf_checkpoint_n_tensors(c); i++) {
        const struct st_tensor *t = hf_checkpoint_tensor(c, i);
        char stem[200];
        snprintf(stem, sizeof stem, "%s", t->name);
        char *tail = strstr(stem, "_proj.weight");
        if (!tail) {
            toy_packed_tensor(p, t->name, t->dtype, t->n_dims, t->shape, t->data);
            continue;
        }
        tail[strlen("_proj")] = '\0';
        toy_packed_add(p, kind, stem, t->shape[0], t->shape[1]);
        if (biases && strstr(stem, "down_proj")) {
            uint8_t *zeros = calloc(t->shape[0], 2);
            strcat(stem, ".bias");
            toy_packed_tensor(p, stem, ST_F16, 1, t->shape, zeros);
            free(zeros);
        }
        if (strstr(stem, "k_proj")) {
            strcat(stem, ".k_scale");
            toy_packed_tensor(p, stem, ST_F32, 0, t->shape, NULL);
        }
    }
    hf_checkpoint_close(c);
    rewrite_config(folder, toy_packing_config(kind));
    char *path = hf_path(folder, "model.safetensors");
    if (toy_packed_write(p, path, &e) != 0)
        fail_msg("%s", e.msg);
    free(path);
    return folder;
}

/* Rows of a projection of the model against its formula; `head_dim` of a permuted one, 0 otherwise. */
static void check_rows(const struct model *m, const char *gguf, const struct toy_packed *p,
                       enum toy_packing kind, const char *stem, uint64_t head_dim)
{
    const struct model_tensor *t = model_find(m, gguf);
    struct err e = {0};
    assert_non_null(t);
    assert_int_equal(t->type, QTYPE_F32);
    assert_null(t->raw);
    assert_int_equal(strncmp(t->source_type, toy_packing_type(kind), strlen(toy_packing_type(kind))), 0);
    float *x = malloc(t->n_rows * t->ne[0] * sizeof *x);
    if (model_read_rows(m, t, 0, t->n_rows, x, &e) != 0)
        fail_msg("%s", e.msg);
    for (uint64_t r = 0; r < t->n_rows; r++) {
        uint64_t h = head_dim ? r / head_dim : 0, j = head_dim ? r % head_dim : 0;
        uint64_t from = head_dim ? h * head_dim + (j % 2) * (head_dim / 2) + j / 2 : r;
        for (uint64_t i = 0; i < t->ne[0]; i++) {
            double want = toy_packed_value(p, kind, stem, from, i);
            if (!(fabs(x[r * t->ne[0] + i] - want) <= 2.5e-7 * fabs(want) + 1e-12))
                fail_msg("%s [%d, %d] is %g, not %g", gguf, (int)r, (int)i, (double)x[r * t->ne[0] + i],
                         want);
        }
    }
    free(x);
}

static size_t count_skipped(const struct model *m, const char *what)
{
    size_t n = 0;
    for (size_t i = 0; i < model_n_skipped(m); i++)
        n += strstr(model_skipped(m, i), what) != NULL;
    return n;
}

static void a_packed_checkpoint_is_a_model_like_any_other(void **state)
{
    (void)state;
    static const enum toy_packing kinds[] = {TOY_FP8_BLOCK,      TOY_GPTQ_ACT, TOY_CT_PACK_4,
                                             TOY_MODELOPT_NVFP4, TOY_MLX_6,    TOY_AUTO_PLAIN};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        for (int arch = TOY_QWEN3; arch <= TOY_LLAMA; arch++) {
            struct toy_packed p = {.seed = 20 + i};
            struct model *m = NULL;
            struct err e = {0};
            char name[60];
            snprintf(name, sizeof name, "%s-%s", toy_arch_name((enum toy_arch)arch),
                     toy_packing_name(kinds[i]));
            const char *folder = write_packed_model(name, (enum toy_arch)arch, kinds[i], true, &p);
            if (model_open(&m, folder, NULL, &e) != 0)
                fail_msg("%s", e.msg);
            check_rows(m, "blk.1.attn_q.weight", &p, kinds[i], "model.layers.1.self_attn.q_proj",
                       arch == TOY_LLAMA ? 48 : 0);
            check_rows(m, "blk.0.ffn_down.weight", &p, kinds[i], "model.layers.0.mlp.down_proj", 0);
            assert_int_equal(model_find(m, "token_embd.weight")->type, QTYPE_BF16);
            assert_int_equal(count_skipped(m, "mlp.down_proj.bias: a bias of zeros"),
                             arch == TOY_LLAMA ? 0 : 2); /* Llama knows this bias, and keeps it */
            assert_int_equal(count_skipped(m, "k_proj.k_scale: scale of activations"), 2);
            /* weights that got a new name stand behind all others, as in the reference converter */
            bool late = kinds[i] == TOY_GPTQ_ACT || kinds[i] == TOY_CT_PACK_4 || kinds[i] == TOY_AUTO_PLAIN;
            const char *last = model_tensor(m, model_n_tensors(m) - 1)->name;
            assert_string_equal(last, late ? "blk.1.attn_v.weight" : "output_norm.weight");
            model_close(m);
            toy_packed_release(&p);
        }
    }
}

static void a_bias_that_says_something_is_not_left_out(void **state)
{
    (void)state;
    struct toy_packed p = {.seed = 30};
    struct model *m = NULL;
    struct err e = {0};
    const char *folder = write_packed_model("biased", TOY_QWEN3, TOY_GPTQ_4, true, &p);
    ((uint8_t *)(uintptr_t)toy_packed_find(&p, "model.layers.1.mlp.down_proj.bias")->data)[7] = 0x3c;
    char *path = hf_path(folder, "model.safetensors");
    assert_int_equal(toy_packed_write(&p, path, &e), 0);
    free(path);
    assert_int_equal(model_open(&m, folder, NULL, &e), ERR_UNSUPPORTED);
    assert_non_null(
        strstr(e.msg, "'model.layers.1.mlp.down_proj.bias': architecture 'qwen3' has no such tensor"));
    toy_packed_release(&p);
}

/* What fusing leaves of a tied head is nothing; packed weights without settings are refused as that. */
static void mlx_leftovers_are_told_apart(void **state)
{
    (void)state;
    struct toy_packed p = {.seed = 40};
    struct model *m = NULL;
    struct err e = {0};
    const char *folder = write_packed_model("mlx-left", TOY_QWEN3, TOY_MLX_8, false, &p);
    toy_packed_tensor(&p, "lm_head.scales", ST_BF16, 2, (uint64_t[]){4, 4}, NULL);
    toy_packed_tensor(&p, "lm_head.biases", ST_BF16, 2, (uint64_t[]){4, 4}, NULL);
    char *path = hf_path(folder, "model.safetensors");
    assert_int_equal(toy_packed_write(&p, path, &e), 0);
    free(path);
    if (model_open(&m, folder, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(count_skipped(m, "lm_head.scales: scale of a module without a weight"), 1);
    assert_int_equal(count_skipped(m, "lm_head.biases: scale of a module without a weight"), 1);
    model_close(m);
    m = NULL;
    rewrite_config(folder, "null");
    assert_int_equal(model_open(&m, folder, NULL, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "packed as by MLX, but config.json has no 'quantization'"));
    toy_packed_release(&p);

    /* plain weights beside both: the settings are idle, the leftovers nothing */
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    folder = in_scratch("mlx-fused");
    assert_int_equal(toy_checkpoint_write(folder, &spec, &e), 0);
    rewrite_config(folder, toy_packing_config(TOY_MLX_8));
    assert_int_equal(model_open(&m, folder, NULL, &e), 0);
    assert_int_equal(model_n_warnings(m), 1);
    assert_non_null(strstr(model_warning(m, 0), "says that weights are compressed with 'mlx', but none is"));
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_equals_its_formula),
        cmocka_unit_test(stacks_of_matrices_have_their_own_scales),
        cmocka_unit_test(stacks_in_blocks_of_rows_are_read_as_they_stand),
        cmocka_unit_test(one_gptq_module_may_have_a_width_of_its_own),
        cmocka_unit_test(an_index_of_minus_ones_means_columns_in_order),
        cmocka_unit_test(names_alone_are_grouped),
        cmocka_unit_test(methods_that_are_not_read_are_refused_by_name),
        cmocka_unit_test(forms_of_gptq_and_awq_that_are_not_read_are_refused),
        cmocka_unit_test(shapes_of_fp8_blocks_are_checked),
        cmocka_unit_test(forms_of_compressed_tensors_that_are_not_read_are_refused),
        cmocka_unit_test(forms_of_auto_round_that_are_not_read_are_refused),
        cmocka_unit_test(forms_of_mlx_and_modelopt_that_are_not_read_are_refused),
        cmocka_unit_test(contradictions_of_fp8_are_refused_by_tensor),
        cmocka_unit_test(contradictions_of_mlx_are_refused_by_tensor),
        cmocka_unit_test(contradictions_of_gptq_and_awq_are_refused_by_tensor),
        cmocka_unit_test(contradictions_of_compressed_tensors_are_refused_by_tensor),
        cmocka_unit_test(contradictions_of_nvfp4_are_refused_by_tensor),
        cmocka_unit_test(contradictions_of_bitsandbytes_and_bitnet_are_refused_by_tensor),
        cmocka_unit_test(values_that_lead_outside_are_refused),
        cmocka_unit_test(published_configurations_are_recognized),
        cmocka_unit_test(older_releases_state_it_in_a_file_of_its_own),
        cmocka_unit_test(a_packed_checkpoint_is_a_model_like_any_other),
        cmocka_unit_test(mlx_leftovers_are_told_apart),
        cmocka_unit_test(a_bias_that_says_something_is_not_left_out),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
