/* test_adapter.c - LoRA adapters: what is added to which element, by formula; both orders in which PEFT has
 * stored factors of stacks; metadata and remarks; what is refused, by name. That whole models come out as in
 * PEFT is tests/calib/test_adapter_forward.c. */
#include "formats/adapter/adapter.h"
#include "formats/gguf/gguf_write.h"
#include "formats/model/model_identity.h"
#include "builder.h"
#include "open_model.h"
#include "scratch.h"
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

#define BASE    "base_model.model.model.layers.0."
#define CONFIG  "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4"
#define Q_PROJ  BASE "self_attn.q_proj"
#define EXPERTS BASE "mlp.experts"

static struct builder *base, *lora;

static int begin(void **state)
{
    base = malloc(sizeof *base);
    lora = malloc(sizeof *lora);
    return base && lora ? scratch_begin(state) : -1;
}

static int end(void **state)
{
    free(base);
    free(lora);
    return scratch_end(state);
}

static void start(const char *class_name, bool tied, int moe)
{
    builder_fill(base, class_name, tied, moe);
    memset(lora, 0, sizeof *lora);
    snprintf(lora->config, sizeof lora->config, CONFIG "}");
}

/* A [a, in] and B [b, cols] of a module. */
static void add_pair(const char *module, uint64_t a, uint64_t in, uint64_t b, uint64_t cols)
{
    char name[100];
    snprintf(name, sizeof name, "%s.lora_A.weight", module);
    builder_add(lora, name, 2, a, in, 0)->step = 0.5f;
    snprintf(name, sizeof name, "%s.lora_B.weight", module);
    builder_add(lora, name, 2, b, cols, 0)->step = -0.25f;
}

/* The folder of the adapter, written anew. */
static const char *write_lora(void)
{
    const char *folder = builder_write(lora, "lora");
    static const char *const names[2][2] = {{"lora/config.json", "lora/adapter_config.json"},
                                            {"lora/model.safetensors", "lora/adapter_model.safetensors"}};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(rename(in_scratch(names[i][0]), in_scratch(names[i][1])), 0);
    return folder;
}

static int open_with(struct model **m, const struct model_adapter *adapters, size_t n, struct err *e)
{
    const struct model_options opt = {.adapters = adapters, .n_adapters = n};
    return model_open(m, builder_write(base, "base"), &opt, e);
}

static struct model *merged(double scale)
{
    const struct model_adapter one = {.path = write_lora(), .scale = scale};
    struct model *m = NULL;
    struct err e = {0};
    if (open_with(&m, &one, 1, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static bool warns(const struct model *m, const char *code)
{
    for (size_t i = 0; i < model_n_warnings(m); i++)
        if (strncmp(model_warning(m, i), code, strlen(code)) == 0)
            return true;
    return false;
}

/* All elements of a tensor are base + factor * sum over the two ranks of B A: `a_at` says which element of
 * the factor that runs over the columns, `b_at` of that over the rows; `swapped`: that is A. */
typedef uint64_t (*place)(uint64_t mat, uint64_t i, uint64_t k);

static void expect_sum(const struct model *m, const char *gguf, const char *hf, const char *module,
                       double factor, place a_at, place b_at, bool swapped)
{
    char name[2][100];
    snprintf(name[0], sizeof name[0], "%s.lora_%c.weight", module, swapped ? 'B' : 'A');
    snprintf(name[1], sizeof name[1], "%s.lora_%c.weight", module, swapped ? 'A' : 'B');
    const struct tensor_spec *w = spec_of(base, hf), *a = spec_of(lora, name[0]), *b = spec_of(lora, name[1]);
    const struct model_tensor *t = model_find(m, gguf);
    assert_non_null(t);
    assert_non_null(t->merge);
    float *x = read_all(m, t);
    for (uint64_t r = 0; r < t->n_rows; r++)
        for (uint64_t c = 0; c < t->ne[0]; c++) {
            uint64_t mat = r / t->ne[1], i = r % t->ne[1];
            double want = spec_value(w, r * t->ne[0] + c);
            for (uint64_t k = 0; k < 2; k++)
                want += factor * spec_value(b, b_at(mat, i, k)) * spec_value(a, a_at(mat, c, k));
            if (fabs(x[r * t->ne[0] + c] - want) > 1e-5 * fabs(want) + 1e-4)
                fail_msg("%s[%d][%d]: expected %g, found %g", gguf, (int)r, (int)c, want,
                         (double)x[r * t->ne[0] + c]);
        }
    free(x);
}

static uint64_t a_linear(uint64_t mat, uint64_t i, uint64_t k)
{
    (void)mat;
    return k * D + i;
}
static uint64_t b_linear(uint64_t mat, uint64_t i, uint64_t k)
{
    (void)mat;
    return i * 2 + k;
}
/* a stack [E, D, FE]: A [E * 2, FE], B [D, 2 * E] */
static uint64_t a_stack(uint64_t mat, uint64_t i, uint64_t k)
{
    return (mat * 2 + k) * FE + i;
}
static uint64_t b_stack(uint64_t mat, uint64_t i, uint64_t k)
{
    return i * 2 * E + k * E + mat;
}
/* as before PEFT 0.18: A [E * 2, D] runs over rows, B [FE, 2 * E] over columns */
static uint64_t a_older(uint64_t mat, uint64_t i, uint64_t k)
{
    return i * 2 * E + k * E + mat;
}
static uint64_t b_older(uint64_t mat, uint64_t i, uint64_t k)
{
    return (mat * 2 + k) * D + i;
}

static void each_element_gets_alpha_by_rank_times_the_product(void **state)
{
    (void)state;
    start("Qwen2ForCausalLM", false, 0);
    add_pair(Q_PROJ, 2, D, D, 2);
    struct model *m = merged(1);
    expect_sum(m, "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", Q_PROJ, 2, a_linear,
               b_linear, false);
    assert_null(model_find(m, "blk.1.attn_q.weight")->merge);
    assert_int_equal(model_adapter_report(m, 0).n_changed, 1);
    model_close(m);
    m = merged(-0.5);
    expect_sum(m, "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", Q_PROJ, -1, a_linear,
               b_linear, false);
    model_close(m);
    snprintf(lora->config, sizeof lora->config, CONFIG ", \"use_rslora\": true}");
    m = merged(1);
    expect_sum(m, "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", Q_PROJ, 4 / sqrt(2),
               a_linear, b_linear, false);
    model_close(m);
}

static void identity_of(double scale, char out[65])
{
    struct model *m = merged(scale);
    struct sha256 h;
    sha256_init(&h);
    model_identity_adapters(&h, m);
    sha256_final_hex(&h, out);
    model_close(m);
}

static void another_scale_or_adapter_is_another_model(void **state)
{
    (void)state;
    char hash[4][65];
    start("Qwen2ForCausalLM", false, 0);
    add_pair(Q_PROJ, 2, D, D, 2);
    identity_of(1, hash[0]);
    identity_of(1, hash[1]);
    identity_of(0.5, hash[2]);
    spec_of(lora, Q_PROJ ".lora_A.weight")->first = 7;
    identity_of(1, hash[3]);
    assert_string_equal(hash[0], hash[1]);
    assert_string_not_equal(hash[0], hash[2]);
    assert_string_not_equal(hash[0], hash[3]);
}

static void several_adapters_add_up(void **state)
{
    (void)state;
    start("Qwen2ForCausalLM", false, 0);
    add_pair(Q_PROJ, 2, D, D, 2);
    const char *path = write_lora();
    const struct model_adapter both[2] = {{.path = path, .scale = 0.25}, {.path = path, .scale = 1}};
    struct model *m = NULL;
    struct err e = {0};
    assert_int_equal(open_with(&m, both, 2, &e), 0);
    expect_sum(m, "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", Q_PROJ, 2.5, a_linear,
               b_linear, false);
    double scale = 0;
    struct gguf_string hash = {"", 0};
    assert_true(gguf_meta_get_f64(model_meta(m), "kerf.lora.0.scale", &scale) && scale == 0.25);
    assert_true(gguf_meta_get_string(model_meta(m), "kerf.lora.1.sha256", &hash) && hash.len == 64);
    model_close(m);
}

static void stacks_of_experts_take_both_orders_of_factors(void **state)
{
    (void)state;
    const char *stack = "model.layers.0.mlp.experts.down_proj", *gguf = "blk.0.ffn_down_exps.weight";
    start("Qwen2MoeForCausalLM", false, 2);
    add_pair(EXPERTS, 2 * E, FE, D, 2 * E);
    struct model *m = merged(1);
    expect_sum(m, gguf, stack, EXPERTS, 2, a_stack, b_stack, false);
    model_close(m);
    start("Qwen2MoeForCausalLM", false, 2);
    add_pair(EXPERTS, 2 * E, D, FE, 2 * E);
    m = merged(1);
    expect_sum(m, gguf, stack, EXPERTS, 2, a_older, b_older, true);
    model_close(m);
}

static void whole_tensors_stand_in_place_and_part_a_tied_head(void **state)
{
    (void)state;
    start("Qwen2ForCausalLM", true, 0);
    struct tensor_spec *embd = builder_add(lora, "base_model.model.model.embed_tokens.weight", 2, V, D, 0);
    embd->first = 100;
    struct model *m = merged(1);
    const struct model_tensor *t = model_find(m, "token_embd.weight"), *head = model_find(m, "output.weight");
    assert_true(warns(m, "[head-untied]"));
    assert_non_null(head);
    float *x = read_all(m, t), *y = read_all(m, head);
    assert_true(x[0] == 100);
    assert_true(y[1] == spec_value(spec_of(base, "model.embed_tokens.weight"), 1));
    assert_int_equal(model_adapter_report(m, 0).n_replaced, 1);
    free(x);
    free(y);
    model_close(m);
}

static void another_base_name_is_a_warning(void **state)
{
    (void)state;
    for (int same = 0; same < 2; same++) {
        start("Qwen2ForCausalLM", false, 0);
        add_pair(Q_PROJ, 2, D, D, 2);
        snprintf(lora->config, sizeof lora->config, CONFIG ", \"base_model_name_or_path\": \"%s\"}",
                 same ? "someone/Base" : "someone/else");
        struct model *m = merged(1);
        assert_int_equal(warns(m, "[adapter-base]"), !same);
        model_close(m);
    }
}

/* One change each to a folder that is right. */
static void add_bias_of_b(void)
{
    builder_add(lora, Q_PROJ ".lora_B.bias", 1, D, 0, 0);
}
static void add_tokens(void)
{
    builder_add(lora, "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", 2, 1, D, 0);
}
static void add_unknown(void)
{
    add_pair(BASE "self_attn.c_proj", 2, D, D, 2);
}
static void add_misfit(void)
{
    add_pair(BASE "self_attn.k_proj", 2, D + 1, D, 2);
}
static void drop_a(void)
{
    builder_drop(lora, Q_PROJ ".lora_A.weight");
}
static void other_rank(void)
{
    spec_of(lora, Q_PROJ ".lora_A.weight")->shape[0] = 3;
}
static void both_ranks(void)
{
    other_rank();
    spec_of(lora, Q_PROJ ".lora_B.weight")->shape[1] = 3;
}
static void three_axes(void)
{
    spec_of(lora, Q_PROJ ".lora_A.weight")->n_dims = 3;
    spec_of(lora, Q_PROJ ".lora_A.weight")->shape[2] = 1;
}
static void bytes_alone(void)
{
    spec_of(lora, Q_PROJ ".lora_A.weight")->dtype = ST_U8;
}
static void short_lengths(void)
{
    builder_add(lora, Q_PROJ ".lora_magnitude_vector", 1, D - 1, 0, 0);
}
static void twice_by_name(void)
{
    add_pair("base_model.model.layers.0.self_attn.q_proj", 2, D, D, 2);
}
static void no_change(void)
{
}

static void what_cannot_be_merged_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        void (*change)(void);
        const char *config; /* behind CONFIG, or with '{' all of it */
        int code;
        const char *want;
    } cases[] = {
        {add_bias_of_b, "", ERR_UNSUPPORTED, "q_proj.lora_B.bias': a bias of B (lora_bias)"},
        {add_tokens, "", ERR_UNSUPPORTED, "single trained tokens (trainable_token_indices)"},
        {add_unknown, "", ERR_FORMAT,
         "module 'model.layers.0.self_attn.c_proj': the base has no such weight"},
        {add_misfit, "", ERR_FORMAT, "A [2, 9] and B [8, 2] do not fit the weight, which is 8 x 8"},
        {drop_a, "", ERR_FORMAT, "the other factor of module 'model.layers.0.self_attn.q_proj' is missing"},
        {other_rank, "", ERR_FORMAT, "A is [3, 8], B is [8, 2]: the rank differs"},
        {both_ranks, "", ERR_FORMAT, "has rank 3, but adapter_config.json says 2 (r, rank_pattern)"},
        {three_axes, "", ERR_UNSUPPORTED, "a factor of 3 dimensions, as convolutions have"},
        {bytes_alone, "", ERR_UNSUPPORTED, "lora_A.weight': U8, expected F32, F16 or BF16"},
        {twice_by_name, "", ERR_FORMAT, "both change 'blk.0.attn_q.weight', from row 0 on"},
        {no_change, ", \"rank_pattern\": {\"q_proj\": 2.5}", ERR_FORMAT,
         "gives module 'model.layers.0.self_attn.q_proj' the rank 2.5, expected an integer up to"},
        {no_change, ", \"rank_pattern\": {\"q_proj\": 1e300}", ERR_FORMAT,
         "gives module 'model.layers.0.self_attn.q_proj' the rank 1e+300, expected an integer up to"},
        {no_change, "{\"peft_type\": \"LORA\", \"lora_alpha\": 2, \"r\": 4294967296", ERR_FORMAT,
         "'r' is not a positive integer up to"},
        {short_lengths, "", ERR_FORMAT, "lora_magnitude_vector': 7 values, expected 8"},
        {no_change, ", \"init_lora_weights\": \"pissa_niter_16\"", ERR_UNSUPPORTED,
         "init_lora_weights 'pissa_niter_16' changes the base weights"},
        {no_change, ", \"alora_invocation_tokens\": [1, 2]", ERR_UNSUPPORTED,
         "alora_invocation_tokens: the adapter acts only after these tokens"},
        {no_change, ", \"use_qalora\": true", ERR_UNSUPPORTED, "'use_qalora' is on"},
        {no_change, ", \"rank_pattern\": {\"q_proj\": -1}", ERR_FORMAT,
         "the value of pattern 'q_proj' is not a positive number"},
        {no_change, ", \"alpha_pattern\": {\"q_(\": 1}", ERR_ARG, "q_("},
        {no_change, "{\"peft_type\": \"LOHA\", \"r\": 2, \"lora_alpha\": 4", ERR_UNSUPPORTED,
         "peft_type 'LOHA', expected 'LORA'"},
        {no_change, "{\"peft_type\": \"LORA\", \"r\": 2", ERR_FORMAT,
         "'lora_alpha' is not a positive number"},
        {no_change, "{\"peft_type\": \"LORA\", \"lora_alpha\": 2", ERR_FORMAT,
         "'r' is not a positive integer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model *m = NULL;
        struct err e = {0};
        const char *config = cases[i].config;
        start("Qwen2ForCausalLM", false, 0);
        add_pair(Q_PROJ, 2, D, D, 2);
        snprintf(lora->config, sizeof lora->config, "%s%s}", config[0] == '{' ? "" : CONFIG, config);
        cases[i].change();
        const struct model_adapter one = {.path = write_lora(), .scale = 1};
        int rc = open_with(&m, &one, 1, &e);
        if (rc != cases[i].code || !strstr(e.msg, cases[i].want))
            fail_msg("case %zu: %d: %s", i, rc, e.msg);
    }
}

/* DeepSeek's matrix that expands latents, of which the file has a part turned over, element by element. */
static void a_weight_that_is_taken_apart_is_refused(void **state)
{
    (void)state;
    struct model *m = NULL;
    struct err e = {0};
    char folder[300];
    memset(lora, 0, sizeof *lora);
    snprintf(lora->config, sizeof lora->config, CONFIG "}");
    add_pair(BASE "self_attn.kv_b_proj", 2, 32, 128, 2);
    snprintf(folder, sizeof folder, "%s", in_scratch("deepseek"));
    assert_int_equal(toy_family_write(folder, "deepseek3", &e), 0);
    const struct model_adapter one = {.path = write_lora(), .scale = 1};
    const struct model_options opt = {.adapters = &one, .n_adapters = 1};
    assert_int_equal(model_open(&m, folder, &opt, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "'blk.0.attn_k_b.weight' is computed from what is stored"));
}

/* Lengths that fit the rows of one matrix would be read for all of the stack. */
static void lengths_of_a_stack_are_refused(void **state)
{
    (void)state;
    struct model *m = NULL;
    struct err e = {0};
    start("Qwen2MoeForCausalLM", false, 2);
    add_pair(EXPERTS, 2 * E, FE, D, 2 * E);
    builder_add(lora, EXPERTS ".lora_magnitude_vector", 1, D, 0, 0);
    const struct model_adapter one = {.path = write_lora(), .scale = 1};
    assert_int_equal(open_with(&m, &one, 1, &e), ERR_UNSUPPORTED);
    assert_non_null(
        strstr(e.msg, "mlp.experts.lora_magnitude_vector': DoRA of 'blk.0.ffn_down_exps.weight'"));
}

/* An adapter file with adapter.lora.alpha `alpha`; NULL: it holds a text. */
static int open_with_alpha(const double *alpha, struct err *e)
{
    struct gguf_meta *meta = NULL;
    uint8_t *header = NULL;
    size_t n = 0;
    uint64_t n_bytes = 0;
    struct adapter *a = NULL;
    const char *path = in_scratch("alpha.gguf");
    assert_int_equal(gguf_meta_new(&meta, e), 0);
    assert_int_equal(gguf_meta_set_string(meta, "general.type", "adapter", e), 0);
    assert_int_equal(gguf_meta_set_string(meta, "adapter.type", "lora", e), 0);
    int rc = alpha ? gguf_meta_set_f32(meta, "adapter.lora.alpha", (float)*alpha, e)
                   : gguf_meta_set_string(meta, "adapter.lora.alpha", "16", e);
    assert_int_equal(rc, 0);
    assert_int_equal(gguf_layout(meta, NULL, 0, &header, &n, &n_bytes, e), 0);
    gguf_meta_free(meta);
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(header, 1, n, f) == n && fclose(f) == 0);
    free(header);
    rc = adapter_open(&a, path, e);
    adapter_close(a);
    return rc;
}

static void the_alpha_of_a_file_is_a_finite_number_above_0(void **state)
{
    (void)state;
    const double bad[] = {NAN, INFINITY, -1}, good[] = {0, 16};
    for (size_t i = 0; i < 4; i++) {
        struct err e = {0};
        assert_int_equal(open_with_alpha(i < 3 ? &bad[i] : NULL, &e), ERR_FORMAT);
        assert_non_null(strstr(e.msg, "adapter.lora.alpha is "));
    }
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(open_with_alpha(&good[i], &(struct err){0}), 0);
}

static void folders_that_are_no_adapter_are_refused(void **state)
{
    (void)state;
    struct adapter *a = NULL;
    struct err e = {0};
    start("Qwen2ForCausalLM", false, 0);
    add_pair(Q_PROJ, 2, D, D, 2);
    const char *folder = write_lora();
    assert_true(adapter_is_one(folder));
    assert_int_equal(unlink(in_scratch("lora/adapter_model.safetensors")), 0);
    assert_int_equal(adapter_open(&a, folder, &e), ERR_IO);
    scratch_text_in(folder, "adapter_model.bin", "x");
    assert_int_equal(adapter_open(&a, folder, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "only adapter_model.bin, a pickle"));
    assert_int_equal(unlink(in_scratch("lora/adapter_config.json")), 0);
    assert_int_equal(adapter_open(&a, folder, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "adapter_config.json: does not exist"));
    assert_false(adapter_is_one(folder));
    assert_int_equal(unlink(in_scratch("lora/adapter_model.bin")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_element_gets_alpha_by_rank_times_the_product),
        cmocka_unit_test(another_scale_or_adapter_is_another_model),
        cmocka_unit_test(several_adapters_add_up),
        cmocka_unit_test(stacks_of_experts_take_both_orders_of_factors),
        cmocka_unit_test(whole_tensors_stand_in_place_and_part_a_tied_head),
        cmocka_unit_test(another_base_name_is_a_warning),
        cmocka_unit_test(what_cannot_be_merged_is_refused_by_name),
        cmocka_unit_test(lengths_of_a_stack_are_refused),
        cmocka_unit_test(a_weight_that_is_taken_apart_is_refused),
        cmocka_unit_test(the_alpha_of_a_file_is_a_finite_number_above_0),
        cmocka_unit_test(folders_that_are_no_adapter_are_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
