/* test_model.c - checkpoint folders and GGUF files as models: every row equals its source by formula, and
 * what does not fit is refused by name. */
#include "formats/convert/model.h"
#include "formats/gguf/gguf_write.h"
#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/safetensors_write.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/slice.h"
#include "libquant/half.h"
#include "libquant/quant.h"
#include "toy_checkpoint.h"
#include "toy_family.h"

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

static char dir[] = "/tmp/kerf-model-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, 256, "%s/%s", dir, name);
    return p;
}

static struct model *open_model(const char *path)
{
    struct model *m = NULL;
    struct err e = {0};
    if (model_open(&m, path, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static void expect_refusal(const char *path, int code, const char *want)
{
    struct model *m = NULL;
    struct err e = {0};
    int rc = model_open(&m, path, NULL, &e);
    if (rc != code || !strstr(e.msg, want))
        fail_msg("%d '%s', not %d '%s'", rc, e.msg, code, want);
    assert_null(m);
}

/* --- a second, independent way from a source tensor to floats ---------------------------------------------
 */

static float source_value(const struct st_tensor *t, uint64_t i)
{
    if (t->dtype == ST_F32)
        return load_f32(t->data + 4 * i);
    uint16_t h;
    memcpy(&h, t->data + 2 * i, 2);
    return t->dtype == ST_BF16 ? f32_from_bits((uint32_t)h << 16) : f16_to_f32(h);
}

/* HuggingFace name of a dense model's GGUF name. */
static void hf_name(const char *gguf, char *out, size_t cap)
{
    static const char *const pairs[][2] = {
        {"token_embd.weight", "model.embed_tokens.weight"},
        {"output_norm.weight", "model.norm.weight"},
        {"output.weight", "lm_head.weight"},
        {"attn_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"},
        {"attn_q_norm", "self_attn.q_norm"},
        {"attn_k_norm", "self_attn.k_norm"},
        {"attn_q", "self_attn.q_proj"},
        {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},
        {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},
        {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"},
    };
    unsigned layer;
    char part[40], tail[20];
    bool in_block = sscanf(gguf, "blk.%u.%39[^.].%19s", &layer, part, tail) == 3;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (strcmp(in_block ? part : gguf, pairs[i][0]) != 0)
            continue;
        if (in_block)
            snprintf(out, cap, "model.layers.%u.%s.%s", layer, pairs[i][1], tail);
        else
            snprintf(out, cap, "%s", pairs[i][1]);
        return;
    }
    fail_msg("no HuggingFace name for %s", gguf);
}

/* Row that stands at `row` of an output tensor: q and k of Llama are permuted (specification 17.3). */
static uint64_t source_row(bool permuted, uint64_t head_dim, uint64_t row)
{
    uint64_t h = row / head_dim, j = row % head_dim;
    return permuted ? h * head_dim + (j % 2) * (head_dim / 2) + j / 2 : row;
}

/* Read the tensor in pieces of `step` rows and compare with the source. */
static void check_tensor(const struct model *m, const struct model_tensor *t, const struct st_tensor *s,
                         bool permuted, uint64_t head_dim, uint64_t step)
{
    struct err e = {0};
    bool vector = t->n_dims == 1;
    uint64_t n_cols = t->ne[0];
    float *rows = malloc(step * n_cols * sizeof *rows);
    assert_int_equal(t->n_dims, s->n_dims);
    for (uint32_t d = 0; d < s->n_dims; d++)
        assert_int_equal(t->ne[d], s->shape[s->n_dims - 1 - d]);
    assert_int_equal(t->type, s->dtype == ST_F32 ? QTYPE_F32 : s->dtype == ST_F16 ? QTYPE_F16 : QTYPE_BF16);
    assert_int_equal(t->n_bytes, s->n_bytes);
    assert_string_equal(t->source_type, st_dtype_name(s->dtype));
    assert_non_null(strstr(t->origin, s->name));
    if (permuted) {
        assert_null(t->raw);
    } else {
        assert_non_null(t->raw);
        assert_memory_equal(t->raw, s->data, s->n_bytes);
    }
    for (uint64_t r = 0; r < t->n_rows; r += step) {
        uint64_t n = t->n_rows - r < step ? t->n_rows - r : step;
        model_want_rows(m, t, r, n);
        if (model_read_rows(m, t, r, n, rows, &e) != 0)
            fail_msg("%s", e.msg);
        for (uint64_t i = 0; i < n * n_cols; i++) {
            uint64_t at = vector ? source_row(permuted, head_dim, i)
                                 : source_row(permuted, head_dim, r + i / n_cols) * n_cols + i % n_cols;
            if (rows[i] != source_value(s, at))
                fail_msg("%s: row %llu element %llu differs", t->name, (unsigned long long)r,
                         (unsigned long long)i);
        }
        model_drop_rows(m, t, r, n);
    }
    free(rows);
}

static void check_folder(const char *folder, bool is_llama, uint64_t head_dim, size_t n_computed)
{
    struct hf_checkpoint *c = NULL;
    struct model *m = open_model(folder);
    char name[120];
    assert_int_equal(hf_checkpoint_open(&c, folder, false, NULL), 0);
    size_t n_checked = 0;
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        assert_ptr_equal(model_find(m, t->name), t);
        if (strcmp(t->name, "rope_freqs.weight") == 0)
            continue;
        hf_name(t->name, name, sizeof name);
        const struct st_tensor *s = hf_checkpoint_find(c, name);
        if (!s)
            fail_msg("no source %s", name);
        bool permuted = is_llama && (strstr(t->name, "attn_q.") || strstr(t->name, "attn_k."));
        check_tensor(m, t, s, permuted, head_dim, 1 + i % 7);
        assert_int_equal(t->always_f32, t->n_dims == 1);
        n_checked++;
    }
    assert_int_equal(n_checked + n_computed, model_n_tensors(m));
    assert_int_equal(n_checked + model_n_skipped(m), hf_checkpoint_n_tensors(c));
    hf_checkpoint_close(c);
    model_close(m);
}

static void the_demo_is_read_tensor_by_tensor(void **state)
{
    (void)state;
    check_folder(KERF_TEST_DATA "/demo-qwen3", false, 64, 0);
    struct model *m = open_model(KERF_TEST_DATA "/demo-qwen3/");
    const struct vocabulary *v = NULL;
    uint64_t u;
    assert_int_equal(model_n_tensors(m), 2 + 11 * 4);
    assert_string_equal(model_arch_name(m), "qwen3");
    assert_false(model_is_gguf(m));
    assert_true(model_has_weights(m));
    assert_int_equal(model_n_warnings(m), 0);
    assert_true(gguf_meta_get_u64(model_meta(m), "general.file_type", &u) && u == 32);
    assert_int_equal(model_vocabulary(m, &v, NULL), 0);
    assert_int_equal(v->n_tokens, 4096);
    struct gguf_string s;
    assert_true(gguf_meta_get_string(model_meta(m), "general.name", &s));
    assert_memory_equal(s.data, "Demo Qwen3", 10);
    model_close(m);
}

static void toys_of_every_family_equal_their_sources(void **state)
{
    (void)state;
    static const enum st_dtype dtypes[] = {ST_BF16, ST_F16, ST_F32};
    for (int arch = 0; arch < TOY_ARCH_COUNT; arch++) {
        for (size_t k = 0; k < 3; k++) {
            struct toy_spec spec = toy_spec_tiny((enum toy_arch)arch);
            struct err e = {0};
            char name[64];
            bool is_llama = arch == TOY_LLAMA || arch == TOY_MISTRAL;
            spec.dtype = dtypes[k];
            spec.tied = k == 1;
            spec.bias = k == 2 && arch != TOY_MISTRAL;
            spec.n_shards = k == 0 ? 3 : 1;
            spec.rope_scaling = arch == TOY_LLAMA && k == 0 ? ROPE_LLAMA3 : ROPE_DEFAULT;
            snprintf(name, sizeof name, "%s-%zu", toy_arch_name((enum toy_arch)arch), k);
            if (toy_checkpoint_write(in_dir(name), &spec, &e) != 0)
                fail_msg("%s", e.msg);
            check_folder(in_dir(name), is_llama, spec.head_dim ? spec.head_dim : spec.hidden / spec.n_heads,
                         spec.rope_scaling == ROPE_LLAMA3);
        }
    }
}

static void computed_tensors_stand_first_and_survive_hints(void **state)
{
    (void)state;
    struct model *m = open_model(in_dir("llama-0")); /* of the test before */
    const struct model_tensor *t = model_tensor(m, 0);
    float a[64], b[64];
    assert_string_equal(t->name, "rope_freqs.weight");
    assert_null(t->raw);
    assert_int_equal(t->n_dims, 1);
    assert_true(t->ne[0] <= 64 && t->always_f32);
    assert_int_equal(model_read_rows(m, t, 0, 1, a, NULL), 0);
    model_want_rows(m, t, 0, 1);
    model_drop_rows(m, t, 0, 1);
    assert_int_equal(model_read_rows(m, t, 0, 1, b, NULL), 0);
    assert_memory_equal(a, b, t->ne[0] * sizeof *a);
    assert_true((double)a[0] == 1.0 && a[t->ne[0] - 1] > 1.0f);
    model_close(m);
}

static void rows_beyond_the_tensor_are_refused(void **state)
{
    (void)state;
    struct model *m = open_model(KERF_TEST_DATA "/demo-qwen3");
    const struct model_tensor *t = model_find(m, "blk.0.attn_q.weight");
    struct err e = {0};
    float x[256];
    assert_int_equal(model_read_rows(m, t, t->n_rows, 1, x, &e), ERR_ARG);
    assert_int_equal(model_read_rows(m, t, UINT64_MAX, 2, x, &e), ERR_ARG);
    assert_int_equal(model_read_rows(m, t, t->n_rows, 0, x, &e), 0);
    assert_null(model_find(m, "blk.4.attn_q.weight"));
    model_close(m);
}

/* --- small checkpoints written by hand ------------------------------------------------------------------ */

struct tensor_spec {
    char name[100];
    enum st_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[4];
    float first, step; /* element i is first + i * step */
};

struct builder {
    struct tensor_spec t[200];
    size_t n;
    char config[1024];
};

static struct tensor_spec *add(struct builder *b, const char *name, uint32_t n_dims, uint64_t d0, uint64_t d1,
                               uint64_t d2)
{
    struct tensor_spec *t = &b->t[b->n];
    *t = (struct tensor_spec){.dtype = ST_F32, .n_dims = n_dims, .shape = {d0, d1, d2}, .step = 0.25f};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->first = (float)++b->n;
    return t;
}

static struct tensor_spec *spec_of(struct builder *b, const char *name)
{
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->t[i].name, name) == 0)
            return &b->t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void drop(struct builder *b, const char *name)
{
    *spec_of(b, name) = b->t[--b->n];
}

enum { V = 40, D = 8, L = 2, H = 2, FF = 12, E = 3, FE = 5, FS = 6 };

/* A model of one layer kind with all its tensors; `moe` 0 dense qwen2, 1 experts one by one, 2 stacked. */
static void build(struct builder *b, const char *class_name, bool tied, int moe)
{
    static const char *const proj[] = {"q", "k", "v"};
    char name[100];
    memset(b, 0, sizeof *b);
    snprintf(
        b->config, sizeof b->config,
        "{\"architectures\": [\"%s\"], \"vocab_size\": %d, \"hidden_size\": %d, \"num_hidden_layers\": %d,"
        "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"intermediate_size\": %d,"
        "\"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1e4, "
        "\"tie_word_embeddings\": %s,"
        "\"norm_topk_prob\": false, \"num_experts\": %d, \"num_experts_per_tok\": 2,"
        "\"moe_intermediate_size\": %d, \"shared_expert_intermediate_size\": %d}",
        class_name, V, D, L, H, H, FF, tied ? "true" : "false", E, FE, FS);
    add(b, "model.embed_tokens.weight", 2, V, D, 0);
    add(b, "model.norm.weight", 1, D, 0, 0);
    if (!tied)
        add(b, "lm_head.weight", 2, V, D, 0);
    for (int n = 0; n < L; n++) {
#define LAYER(...) (snprintf(name, sizeof name, __VA_ARGS__), name)
        add(b, LAYER("model.layers.%d.input_layernorm.weight", n), 1, D, 0, 0);
        add(b, LAYER("model.layers.%d.post_attention_layernorm.weight", n), 1, D, 0, 0);
        for (int i = 0; i < 3; i++) {
            add(b, LAYER("model.layers.%d.self_attn.%s_proj.weight", n, proj[i]), 2, D, D, 0);
            add(b, LAYER("model.layers.%d.self_attn.%s_proj.bias", n, proj[i]), 1, D, 0, 0);
        }
        add(b, LAYER("model.layers.%d.self_attn.o_proj.weight", n), 2, D, D, 0);
        if (!moe) {
            add(b, LAYER("model.layers.%d.mlp.gate_proj.weight", n), 2, FF, D, 0);
            add(b, LAYER("model.layers.%d.mlp.up_proj.weight", n), 2, FF, D, 0);
            add(b, LAYER("model.layers.%d.mlp.down_proj.weight", n), 2, D, FF, 0);
            continue;
        }
        add(b, LAYER("model.layers.%d.mlp.gate.weight", n), 2, E, D, 0);
        for (int j = 0; moe == 1 && j < E; j++) {
            add(b, LAYER("model.layers.%d.mlp.experts.%d.gate_proj.weight", n, j), 2, FE, D, 0);
            add(b, LAYER("model.layers.%d.mlp.experts.%d.up_proj.weight", n, j), 2, FE, D, 0);
            add(b, LAYER("model.layers.%d.mlp.experts.%d.down_proj.weight", n, j), 2, D, FE, 0);
        }
        if (moe == 2) {
            add(b, LAYER("model.layers.%d.mlp.experts.gate_up_proj", n), 3, E, 2 * FE, D);
            add(b, LAYER("model.layers.%d.mlp.experts.down_proj", n), 3, E, D, FE);
        }
        add(b, LAYER("model.layers.%d.mlp.shared_expert.gate_proj.weight", n), 2, FS, D, 0);
        add(b, LAYER("model.layers.%d.mlp.shared_expert.up_proj.weight", n), 2, FS, D, 0);
        add(b, LAYER("model.layers.%d.mlp.shared_expert.down_proj.weight", n), 2, D, FS, 0);
        add(b, LAYER("model.layers.%d.mlp.shared_expert_gate.weight", n), 2, 1, D, 0);
#undef LAYER
    }
}

static uint64_t n_elems(const struct tensor_spec *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

static void write_text(const char *folder, const char *file, const char *text)
{
    char *path = hf_path(folder, file);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

/* The folder of this name, written anew. */
static const char *write_folder(const struct builder *b, const char *name)
{
    const char *folder = in_dir(name);
    struct safetensors_writer *w = NULL;
    struct err e = {0};
    mkdir(folder, 0700);
    write_text(folder, "config.json", b->config);
    char *path = hf_path(folder, "model.safetensors");
    assert_int_equal(safetensors_writer_open(&w, path, true, &e), 0);
    free(path);
    for (size_t i = 0; i < b->n; i++)
        assert_int_equal(
            safetensors_writer_add(w, b->t[i].name, b->t[i].dtype, b->t[i].n_dims, b->t[i].shape, &e), 0);
    for (size_t i = 0; i < b->n; i++) {
        const struct tensor_spec *t = &b->t[i];
        size_t size = st_dtype_bits(t->dtype) / 8;
        for (uint64_t k = 0; k < n_elems(t); k++) {
            union {
                float f32;
                double f64;
                uint8_t bytes[8];
            } v = {.f64 = 0};
            if (t->dtype == ST_F64)
                v.f64 = (double)t->first + (double)k * 0.1;
            else if (t->dtype == ST_F32)
                v.f32 = t->first + (float)k * t->step;
            else
                v.bytes[0] = (uint8_t)(k & 0x7e);
            assert_int_equal(safetensors_writer_write(w, v.bytes, size, &e), 0);
        }
    }
    assert_int_equal(safetensors_writer_commit(w, &e), 0);
    return folder;
}

static float spec_value(const struct tensor_spec *t, uint64_t i)
{
    return t->first + (float)i * t->step;
}

static float *read_all(const struct model *m, const struct model_tensor *t)
{
    struct err e = {0};
    float *x = malloc(t->n_rows * t->ne[0] * sizeof *x);
    if (model_read_rows(m, t, 0, t->n_rows, x, &e) != 0)
        fail_msg("%s", e.msg);
    return x;
}

static void experts_one_by_one_are_stacked_in_order(void **state)
{
    (void)state;
    static const char *const kinds[] = {"gate", "up", "down"};
    struct builder *b = malloc(sizeof *b);
    char name[100];
    build(b, "Qwen2MoeForCausalLM", false, 1);
    struct model *m = open_model(write_folder(b, "moe-single"));
    assert_int_equal(model_n_tensors(m), 3 + 17 * L);
    for (int n = 0; n < L; n++) {
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", n, kinds[k]);
            const struct model_tensor *t = model_find(m, name);
            assert_non_null(t);
            assert_int_equal(t->n_dims, 3);
            assert_int_equal(t->ne[0], k == 2 ? FE : D);
            assert_int_equal(t->ne[1], k == 2 ? D : FE);
            assert_int_equal(t->ne[2], E);
            assert_null(t->raw);
            float *x = read_all(m, t);
            for (uint64_t j = 0; j < E; j++) {
                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s_proj.weight", n, (int)j,
                         kinds[k]);
                for (uint64_t i = 0; i < FE * D; i++)
                    assert_true(x[j * FE * D + i] == spec_value(spec_of(b, name), i));
            }
            free(x);
        }
    }
    const struct model_tensor *router = model_find(m, "blk.1.ffn_gate_inp.weight");
    assert_true(router && router->always_f32 && router->ne[1] == E);
    assert_true(model_find(m, "blk.1.ffn_gate_inp_shexp.weight")->always_f32);
    model_close(m);
    free(b);
}

static void stacked_experts_are_split_into_gate_and_up(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    build(b, "Qwen2MoeForCausalLM", false, 2);
    struct model *m = open_model(write_folder(b, "moe-stacked"));
    assert_int_equal(model_n_tensors(m), 3 + 17 * L);
    const struct tensor_spec *fused = spec_of(b, "model.layers.1.mlp.experts.gate_up_proj");
    float *gate = read_all(m, model_find(m, "blk.1.ffn_gate_exps.weight"));
    float *up = read_all(m, model_find(m, "blk.1.ffn_up_exps.weight"));
    for (uint64_t j = 0; j < E; j++)
        for (uint64_t r = 0; r < FE; r++)
            for (uint64_t c = 0; c < D; c++) {
                assert_true(gate[(j * FE + r) * D + c] == spec_value(fused, (j * 2 * FE + r) * D + c));
                assert_true(up[(j * FE + r) * D + c] == spec_value(fused, (j * 2 * FE + FE + r) * D + c));
            }
    free(gate);
    free(up);
    assert_non_null(model_find(m, "blk.0.ffn_down_exps.weight")->raw); /* unchanged: straight from the map */
    model_close(m);
    free(b);
}

/* Published Qwen3-VL checkpoints store experts as [E, in, out]. */
static void transposed_experts_are_turned(void **state)
{
    (void)state;
    static const char *const norms[] = {"q", "k"};
    struct builder *b = malloc(sizeof *b);
    char name[100];
    build(b, "Qwen3VLMoeForConditionalGeneration", false, 2);
    for (int n = 0; n < L; n++) {
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "model.layers.%d.self_attn.%s_norm.weight", n, norms[i]);
            add(b, name, 1, D / H, 0, 0);
        }
        for (int i = 0; i < 4; i++) {
            static const char *const shared[] = {"_expert.gate_proj", "_expert.up_proj", "_expert.down_proj",
                                                 "_expert_gate"};
            snprintf(name, sizeof name, "model.layers.%d.mlp.shared%s.weight", n, shared[i]);
            drop(b, name);
        }
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.gate_up_proj", n);
        spec_of(b, name)->shape[1] = D;
        spec_of(b, name)->shape[2] = 2 * FE;
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.down_proj", n);
        spec_of(b, name)->shape[1] = FE;
        spec_of(b, name)->shape[2] = D;
    }
    struct model *m = open_model(write_folder(b, "moe-transposed"));
    const struct tensor_spec *fused = spec_of(b, "model.layers.1.mlp.experts.gate_up_proj");
    const struct tensor_spec *stored = spec_of(b, "model.layers.1.mlp.experts.down_proj");
    const struct model_tensor *t = model_find(m, "blk.1.ffn_down_exps.weight");
    float *gate = read_all(m, model_find(m, "blk.1.ffn_gate_exps.weight"));
    float *up = read_all(m, model_find(m, "blk.1.ffn_up_exps.weight"));
    float *down = read_all(m, t), row[FE];
    assert_null(t->raw);
    for (uint64_t j = 0; j < E; j++)
        for (uint64_t f = 0; f < FE; f++)
            for (uint64_t c = 0; c < D; c++) {
                assert_true(gate[(j * FE + f) * D + c] == spec_value(fused, (j * D + c) * 2 * FE + f));
                assert_true(up[(j * FE + f) * D + c] == spec_value(fused, (j * D + c) * 2 * FE + FE + f));
                assert_true(down[(j * D + c) * FE + f] == spec_value(stored, (j * FE + f) * D + c));
            }
    for (uint64_t r = 0; r < t->n_rows; r++) { /* one by one as all at once */
        assert_int_equal(model_read_rows(m, t, r, 1, row, NULL), 0);
        assert_memory_equal(row, down + r * FE, sizeof row);
    }
    free(gate);
    free(up);
    free(down);
    model_close(m);
    free(b);
}

/* One delta-net layer of Qwen3.5: every kind of transformation, element by element. */
static void a_delta_net_layer_is_transformed_by_formula(void **state)
{
    (void)state;
    enum { HK = 2, HV = 4, DK = 3, KC = 4, KEY = HK * DK, VAL = HV * DK, CONV = 2 * KEY + VAL, R = HV / HK };
    static const struct {
        const char *name;
        uint32_t n_dims;
        uint64_t shape[3];
    } rows[] = {
        {"input_layernorm.weight", 1, {D}},
        {"post_attention_layernorm.weight", 1, {D}},
        {"linear_attn.in_proj_qkv.weight", 2, {CONV, D}},
        {"linear_attn.in_proj_z.weight", 2, {VAL, D}},
        {"linear_attn.in_proj_a.weight", 2, {HV, D}},
        {"linear_attn.in_proj_b.weight", 2, {HV, D}},
        {"linear_attn.A_log", 1, {HV}},
        {"linear_attn.dt_bias", 1, {HV}},
        {"linear_attn.conv1d.weight", 3, {CONV, 1, KC}},
        {"linear_attn.norm.weight", 1, {DK}},
        {"linear_attn.out_proj.weight", 2, {D, VAL}},
        {"mlp.gate_proj.weight", 2, {FF, D}},
        {"mlp.up_proj.weight", 2, {FF, D}},
        {"mlp.down_proj.weight", 2, {D, FF}},
    };
    struct builder *b = calloc(1, sizeof *b);
    snprintf(b->config, sizeof b->config,
             "{\"architectures\": [\"Qwen3_5ForCausalLM\"], \"vocab_size\": %d, \"hidden_size\": %d,"
             "\"num_hidden_layers\": 1, \"num_attention_heads\": %d, \"num_key_value_heads\": %d,"
             "\"intermediate_size\": %d, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-6,"
             "\"rope_theta\": 1e4, \"tie_word_embeddings\": true, \"linear_num_key_heads\": %d,"
             "\"linear_num_value_heads\": %d, \"linear_key_head_dim\": %d, \"linear_value_head_dim\": %d,"
             "\"linear_conv_kernel_dim\": %d}",
             V, D, H, H, FF, HK, HV, DK, DK, KC);
    add(b, "model.language_model.embed_tokens.weight", 2, V, D, 0);
    add(b, "model.language_model.norm.weight", 1, D, 0, 0);
    add(b, "mtp.fc.weight", 2, D, 2 * D, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[100];
        snprintf(name, sizeof name, "model.language_model.layers.0.%s", rows[i].name);
        struct tensor_spec *t =
            add(b, name, rows[i].n_dims, rows[i].shape[0], rows[i].shape[1], rows[i].shape[2]);
        t->step = 0.125f;
        t->first = -0.5f;
    }
    struct model *m = open_model(write_folder(b, "delta-net"));
    assert_int_equal(model_n_tensors(m), 2 + sizeof rows / sizeof *rows);
    assert_string_equal(model_skipped(m, 0), "mtp.fc.weight: multi-token prediction block");
#define SOURCE(part, i) spec_value(spec_of(b, "model.language_model.layers.0." part), (i))
#define TILED(h)        ((h) % HK * R + (h) / HK) /* old head of new head h */
    float *x = read_all(m, model_find(m, "blk.0.attn_qkv.weight"));
    for (uint64_t r = 0; r < CONV; r++) {
        uint64_t v = r - 2 * KEY, src = r < 2 * KEY ? r : 2 * KEY + TILED(v / DK) * DK + v % DK;
        for (uint64_t c = 0; c < D; c++)
            assert_true(x[r * D + c] == SOURCE("linear_attn.in_proj_qkv.weight", src * D + c));
    }
    free(x);
    x = read_all(m, model_find(m, "blk.0.ssm_out.weight"));
    for (uint64_t r = 0; r < D; r++)
        for (uint64_t c = 0; c < VAL; c++)
            assert_true(x[r * VAL + c] ==
                        SOURCE("linear_attn.out_proj.weight", r * VAL + TILED(c / DK) * DK + c % DK));
    free(x);
    const struct model_tensor *conv = model_find(m, "blk.0.ssm_conv1d.weight");
    assert_true(conv->n_dims == 2 && conv->ne[0] == KC && conv->ne[1] == CONV && conv->always_f32);
    x = read_all(m, conv);
    for (uint64_t k = 0; k < KC; k++)
        assert_true(x[(2 * KEY + DK) * KC + k] ==
                    SOURCE("linear_attn.conv1d.weight", (2 * KEY + TILED(1) * DK) * KC + k));
    free(x);
    const struct model_tensor *a = model_find(m, "blk.0.ssm_a");
    assert_true(a->always_f32 && a->type == QTYPE_F32 && !a->raw);
    x = read_all(m, a);
    for (uint64_t h = 0; h < HV; h++)
        assert_true(x[h] == -expf(SOURCE("linear_attn.A_log", TILED(h))));
    free(x);
    x = read_all(m, model_find(m, "blk.0.post_attention_norm.weight"));
    assert_true(x[2] == SOURCE("post_attention_layernorm.weight", 2) + 1.0f);
    free(x);
    x = read_all(m, model_find(m, "blk.0.ssm_norm.weight"));
    assert_true(x[2] == SOURCE("linear_attn.norm.weight", 2));
    free(x);
#undef SOURCE
#undef TILED
    model_close(m);
    free(b);
}

static void a_mandatory_head_is_written_twice_when_tied(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    build(b, "Qwen2MoeForCausalLM", true, 1);
    struct model *m = open_model(write_folder(b, "moe-tied"));
    const struct model_tensor *head = model_find(m, "output.weight"),
                              *embd = model_find(m, "token_embd.weight");
    assert_true(head && embd && head != embd);
    assert_ptr_equal(head->raw, embd->raw);
    model_close(m);
    free(b);
}

/* Specification 0.6. */
static void tied_heads_follow_the_flag(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    build(b, "Qwen2ForCausalLM", true, 0);
    struct model *m = open_model(write_folder(b, "tied"));
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_tensors(m), 2 + 12 * L);
    assert_int_equal(model_n_warnings(m), 1); /* no tokenizer */
    model_close(m);

    add(b, "lm_head.weight", 2, V, D, 0)->first = spec_of(b, "model.embed_tokens.weight")->first;
    m = open_model(write_folder(b, "tied-equal-head"));
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_warnings(m), 1);
    assert_int_equal(model_n_skipped(m), 1);
    assert_non_null(strstr(model_skipped(m, 0), "lm_head.weight"));
    model_close(m);

    spec_of(b, "lm_head.weight")->first = 77;
    m = open_model(write_folder(b, "tied-other-head"));
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_warnings(m), 2);
    assert_non_null(strstr(model_warning(m, 1), "differs from the embedding"));
    model_close(m);

    spec_of(b, "lm_head.weight")->dtype = ST_F8_E4M3; /* packed: the embedding as far as eight bits can say */
    add(b, "lm_head.weight_scale_inv", 2, (V + 15) / 16, 1, 0);
    size_t end = strlen(b->config);
    snprintf(b->config + end - 1, sizeof b->config - end,
             ", \"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [16, 16]}}");
    m = open_model(write_folder(b, "tied-packed-head"));
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_warnings(m), 1);
    assert_int_equal(model_n_skipped(m), 1);
    model_close(m);

    build(b, "Qwen2ForCausalLM", false, 0);
    m = open_model(write_folder(b, "untied"));
    assert_non_null(model_find(m, "output.weight"));
    model_close(m);
    drop(b, "lm_head.weight");
    m = open_model(write_folder(b, "untied-no-head"));
    assert_null(model_find(m, "output.weight"));
    assert_non_null(strstr(model_warning(m, 1), "no lm_head.weight"));
    model_close(m);
    free(b);
}

static void other_modalities_are_listed_as_skipped(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    build(b, "Qwen2ForCausalLM", false, 0);
    add(b, "visual.blocks.0.attn.qkv.weight", 2, 3, 3, 0);
    add(b, "model.layers.0.self_attn.rotary_emb.inv_freq", 1, 2, 0, 0);
    struct model *m = open_model(write_folder(b, "visual"));
    assert_int_equal(model_n_tensors(m), 3 + 12 * L);
    assert_int_equal(model_n_skipped(m), 2);
    assert_string_equal(model_skipped(m, 1), "visual.blocks.0.attn.qkv.weight: other modality");
    model_close(m);
    free(b);
}

static void wide_and_narrow_floats_are_read_as_f32(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    build(b, "Qwen2ForCausalLM", false, 0);
    spec_of(b, "lm_head.weight")->dtype = ST_F64;
    spec_of(b, "model.layers.0.mlp.up_proj.weight")->dtype = ST_F8_E4M3;
    struct model *m = open_model(write_folder(b, "dtypes"));
    const struct model_tensor *head = model_find(m, "output.weight"),
                              *up = model_find(m, "blk.0.ffn_up.weight");
    assert_int_equal(head->type, QTYPE_F32);
    assert_string_equal(head->source_type, "F64");
    assert_string_equal(up->source_type, "F8_E4M3");
    assert_null(head->raw);
    assert_int_equal(head->n_bytes, 4 * V * D);
    float *x = read_all(m, head);
    for (uint64_t i = 0; i < V * D; i++)
        assert_true(x[i] == (float)((double)spec_of(b, "lm_head.weight")->first + (double)i * 0.1));
    free(x);
    x = read_all(m, up);
    for (uint64_t i = 0; i < FF * D; i++)
        assert_true(x[i] == f8_e4m3_to_f32((uint8_t)(i & 0x7e)));
    free(x);
    model_close(m);
    free(b);
}

static void misfits_are_refused_by_name(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    build(b, "Qwen2ForCausalLM", false, 0);
    add(b, "model.layers.0.mlp.extra.weight", 1, D, 0, 0);
    expect_refusal(write_folder(b, "bad"), ERR_UNSUPPORTED,
                   "'model.layers.0.mlp.extra.weight': architecture 'qwen2'");

    build(b, "Qwen2ForCausalLM", false, 0);
    drop(b, "model.layers.1.mlp.up_proj.weight");
    expect_refusal(write_folder(b, "bad"), ERR_FORMAT,
                   "1 expected tensor is missing: model.layers.1.mlp.up_proj.weight");
    b->n = 1;
    expect_refusal(write_folder(b, "bad"), ERR_FORMAT, "and 16 more");

    build(b, "Qwen2ForCausalLM", false, 0);
    spec_of(b, "model.layers.1.mlp.down_proj.weight")->shape[0] = D + 1;
    expect_refusal(write_folder(b, "bad"), ERR_FORMAT,
                   "shape [8, 12] expected from config.json, found [9, 12]");

    build(b, "Qwen2ForCausalLM", false, 0);
    snprintf(spec_of(b, "model.layers.1.mlp.down_proj.weight")->name, 100,
             "model.layers.2.mlp.down_proj.weight");
    expect_refusal(write_folder(b, "bad"), ERR_FORMAT, "layer 2, but config.json says 2 layers");

    build(b, "Qwen2ForCausalLM", false, 0);
    spec_of(b, "model.norm.weight")->dtype = ST_U8;
    expect_refusal(write_folder(b, "bad"), ERR_UNSUPPORTED, "a weight of type U8");

    build(b, "Qwen2MoeForCausalLM", false, 1);
    drop(b, "model.layers.1.mlp.experts.2.up_proj.weight");
    expect_refusal(write_folder(b, "bad"), ERR_FORMAT, "is missing: model.layers.1.mlp.experts.");
    build(b, "Qwen2MoeForCausalLM", false, 1);
    snprintf(spec_of(b, "model.layers.1.mlp.experts.2.up_proj.weight")->name, 100,
             "model.layers.1.mlp.experts.3.up_proj.weight");
    expect_refusal(write_folder(b, "bad"), ERR_FORMAT, "expert 3, but config.json says 3 experts");
    build(b, "Qwen2MoeForCausalLM", false, 1);
    add(b, "model.layers.0.mlp.experts.down_proj", 3, E, D, FE);
    expect_refusal(write_folder(b, "bad"), ERR_FORMAT, "is already made from");

    build(b, "BloomForCausalLM", false, 0);
    expect_refusal(write_folder(b, "bad"), ERR_UNSUPPORTED, "supported: QWenLMHeadModel, Qwen2ForCausalLM");

    build(b, "Qwen2ForCausalLM", false, 0);
    snprintf(strrchr(b->config, '}'), 100, ", \"quantization_config\": {\"quant_method\": \"aqlm\"}}");
    expect_refusal(write_folder(b, "bad"), ERR_UNSUPPORTED, "compressed with 'aqlm'");
    free(b);

    expect_refusal(in_dir("nothing-here"), ERR_IO, "no such file or folder");
    expect_refusal(in_dir("bad/config.json"), ERR_ARG, "a configuration holds no weights");
    expect_refusal(in_dir("bad/model.safetensors"), ERR_ARG, "give the folder");
}

static void a_folder_without_weights_opens_for_planning(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    build(b, "Qwen2MoeForCausalLM", false, 2);
    const char *folder = in_dir("planned");
    char *index = NULL;
    size_t n;
    FILE *f = open_memstream(&index, &n);
    fputs("{\"weight_map\": {", f);
    for (size_t i = 0; i < b->n; i++)
        fprintf(f, "%s\"%s\": \"model-00001-of-00001.safetensors\"", i ? ", " : "", b->t[i].name);
    fputs("}}", f);
    fclose(f);
    mkdir(folder, 0700);
    write_text(folder, "config.json", b->config);
    write_text(folder, "model.safetensors.index.json", index);
    free(index);

    struct model *m = NULL, *full = open_model(in_dir("moe-stacked"));
    struct err e = {0};
    float x[D];
    struct model_options opt = {.allow_missing_weights = true};
    if (model_open(&m, folder, &opt, &e) != 0)
        fail_msg("%s", e.msg);
    assert_false(model_has_weights(m));
    assert_int_equal(model_n_tensors(m), model_n_tensors(full));
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i), *want = model_find(full, t->name);
        assert_non_null(want);
        assert_int_equal(t->n_dims, want->n_dims);
        assert_memory_equal(t->ne, want->ne, sizeof t->ne);
        assert_int_equal(t->type, QTYPE_BF16);
        assert_null(t->raw);
    }
    assert_int_equal(model_read_rows(m, model_tensor(m, 0), 0, 1, x, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "without its weights"));
    model_close(full);
    model_close(m);
    free(b);
}

/* A dense Qwen3 of this builder. */
static void build_qwen3(struct builder *b, bool tied)
{
    char name[100];
    build(b, "Qwen3ForCausalLM", tied, 0);
    for (int n = 0; n < L; n++)
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "model.layers.%d.self_attn.%s_norm.weight", n, i ? "q" : "k");
            add(b, name, 1, D / H, 0, 0);
        }
}

static void write_tokenizer(const char *folder, const char *const *named, size_t n_named)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    fputs("{\"model\": {\"type\": \"BPE\", \"vocab\": {", f);
    for (size_t i = 0; i < V; i++) {
        if (i < n_named)
            fprintf(f, "%s\"%s\": %zu", i ? ", " : "", named[i], i);
        else
            fprintf(f, ", \"t%zu\": %zu", i, i);
    }
    fputs("}, \"merges\": []}, \"added_tokens\": [], \"pre_tokenizer\": {\"type\": \"Sequence\", "
          "\"pretokenizers\": [{\"type\":"
          "\"Split\", \"pattern\": {\"Regex\": "
          "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
          "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, "
          "\"behavior\": "
          "\"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", \"use_regex\": false}]}}",
          f);
    fclose(f);
    write_text(folder, "tokenizer.json", text);
    free(text);
}

/* Specification 12: row 0 is that of "yes", row 1 that of "no". */
static void a_reranker_keeps_two_rows_of_its_head(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "b", "c", "no", "d", "yes"};
    for (int tied = 0; tied < 2; tied++) {
        struct builder *b = malloc(sizeof *b);
        uint64_t u;
        struct gguf_string s;
        build_qwen3(b, tied);
        const char *folder = write_folder(b, tied ? "my-Qwen3-Reranker-0.6B" : "other");
        if (!tied)
            write_text(folder, "README.md", "---\nlicense: mit\n---\n\n# Qwen3-Reranker-4B\n");
        expect_refusal(folder, ERR_FORMAT, "token 'yes'");
        write_tokenizer(folder, tokens, 6);
        struct model *m = open_model(folder);
        const struct tensor_spec *head = spec_of(b, tied ? "model.embed_tokens.weight" : "lm_head.weight");
        const struct model_tensor *t = model_find(m, "cls.output.weight");
        assert_true(t && t->n_dims == 2 && t->ne[0] == D && t->ne[1] == 2);
        float *x = read_all(m, t);
        for (uint64_t c = 0; c < D; c++) {
            assert_true(x[c] == spec_value(head, 5 * D + c));
            assert_true(x[D + c] == spec_value(head, 3 * D + c));
        }
        free(x);
        assert_null(model_find(m, "output.weight"));
        assert_non_null(model_find(m, "token_embd.weight"));
        assert_int_equal(model_n_warnings(m), 0);
        assert_true(gguf_meta_get_u64(model_meta(m), "qwen3.pooling_type", &u) && u == 4);
        assert_true(gguf_meta_get_string(model_meta(m), "tokenizer.chat_template.rerank", &s));
        assert_non_null(gguf_meta_find(model_meta(m), "qwen3.classifier.output_labels"));
        model_close(m);
        free(b);
    }
}

static void expect_labels(const struct model *m, const char *key, const char *first, const char *second)
{
    struct gguf_string s;
    const struct gguf_value *v = gguf_meta_find(model_meta(m), key);
    assert_non_null(v);
    assert_int_equal(v->a.n, second ? 2 : 1);
    assert_true(gguf_array_string(v, 0, &s) && gguf_string_is(s, first));
    assert_true(!second || (gguf_array_string(v, 1, &s) && gguf_string_is(s, second)));
}

/* Change one text of a file to another of the same length. */
static void replace_in(const char *folder, const char *name, const char *from, const char *to)
{
    char path[300], *text = NULL, *at;
    size_t n = strlen(from);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size_t size = (size_t)ftell(f);
    text = calloc(size + 1, 1);
    rewind(f);
    assert_int_equal(fread(text, 1, size, f), size);
    assert_int_equal(strlen(to), n);
    for (at = text; (size_t)(at - text) + n <= size && memcmp(at, from, n) != 0; at++)
        ;
    assert_true((size_t)(at - text) + n <= size);
    fseek(f, (long)(at - text), SEEK_SET);
    assert_int_equal(fwrite(to, 1, n, f), n);
    fclose(f);
    free(text);
}

/* llama.cpp's rerankers take the softmax over two labels: a lone score gets a label of zeros. */
static void a_lone_score_is_ranked_beside_zeros(void **state)
{
    (void)state;
    struct err e = {0};
    uint64_t u;
    const char *folder = in_dir("score");
    assert_int_equal(toy_family_write(folder, "score", &e), 0);
    struct model *m = open_model(folder);
    const struct model_tensor *t = model_find(m, "cls.output.weight");
    assert_true(t && t->ne[0] == 64 && t->ne[1] == 2 && t->type == QTYPE_BF16 && !t->raw);
    float *x = read_all(m, t), *second = malloc(64 * sizeof *second);
    assert_int_equal(model_read_rows(m, t, 1, 1, second, &e), 0);
    double sum = 0;
    for (size_t c = 0; c < 64; c++) {
        sum += fabs((double)x[c]);
        assert_true(x[64 + c] == 0 && second[c] == 0);
    }
    assert_true(sum > 1);
    free(x);
    free(second);
    assert_null(model_find(m, "output.weight"));
    assert_int_equal(model_n_warnings(m), 0);
    assert_true(gguf_meta_get_u64(model_meta(m), "qwen3.pooling_type", &u) && u == 4);
    expect_labels(m, "qwen3.classifier.output_labels", "LABEL_0", "none");
    assert_null(gguf_meta_find(model_meta(m), "tokenizer.chat_template.rerank"));
    model_close(m);

    /* The same head in the folder of a reranker: its labels and prompt. */
    write_text(folder, "README.md", "# Qwen3-Reranker-0.6B as a classifier\n");
    m = open_model(folder);
    expect_labels(m, "qwen3.classifier.output_labels", "yes", "no");
    assert_non_null(gguf_meta_find(model_meta(m), "tokenizer.chat_template.rerank"));
    model_close(m);

    /* Two labels (HuggingFace's default) do not fit the single row of the file. */
    replace_in(folder, "config.json", "id2label", "no2label");
    expect_refusal(folder, ERR_FORMAT, "'score.weight': shape [2, 64] expected");
}

/* Specification 5.6: names of our own, which no runtime knows. */
static void a_reward_model_keeps_its_two_layers(void **state)
{
    (void)state;
    struct err e = {0};
    uint64_t u;
    for (int steps = 0; steps < 2; steps++) {
        const char *folder = in_dir(steps ? "stepreward" : "reward");
        assert_int_equal(toy_family_write(folder, steps ? "stepreward" : "reward", &e), 0);
        struct model *m = open_model(folder);
        const struct model_tensor *hidden = model_find(m, "cls.weight"),
                                  *out = model_find(m, "cls.output.weight");
        assert_true(hidden && hidden->ne[0] == 64 && hidden->ne[1] == 64);
        assert_true(out && out->ne[0] == 64 && out->n_rows == (steps ? 2 : 1));
        assert_true(model_find(m, "cls.bias") && model_find(m, "cls.output.bias"));
        assert_null(model_find(m, "output.weight"));
        assert_int_equal(model_n_skipped(m), 1);
        assert_non_null(strstr(model_skipped(m, 0), "lm_head.weight"));
        assert_int_equal(model_n_warnings(m), 1);
        assert_non_null(strstr(model_warning(m, 0), "no score head for architecture qwen2"));
        assert_true(gguf_meta_get_u64(model_meta(m), "qwen2.pooling_type", &u) && u == 3);
        expect_labels(m, "qwen2.classifier.output_labels", steps ? "wrong" : "reward",
                      steps ? "right" : NULL);
        model_close(m);
        replace_in(folder, "model.safetensors", "score.2.bias", "score.3.bias");
        expect_refusal(folder, ERR_UNSUPPORTED, "score.3.bias");
    }
}

/* Specification 11.2. */
static void pooling_is_read_from_the_named_module(void **state)
{
    (void)state;
    struct builder *b = malloc(sizeof *b);
    uint64_t u;
    char sub[300];
    build_qwen3(b, true);
    const char *folder = write_folder(b, "embedding");
    struct model *plain = open_model(folder);
    size_t n_warnings = model_n_warnings(plain);
    model_close(plain);
    write_text(
        folder, "modules.json",
        "[{\"type\": \"a.models.Transformer\", \"path\": \"\"}, {\"type\": \"a.models.Pooling\", \"path\": "
        "\"1_Pooling\"}]");
    snprintf(sub, sizeof sub, "%s/1_Pooling", folder);
    mkdir(sub, 0700);
    static const struct {
        const char *json;
        uint64_t want;
    } cases[] = {{"{\"pooling_mode_mean_tokens\": true}", 1},
                 {"{\"pooling_mode_mean_tokens\": false, \"pooling_mode_cls_token\": true}", 2},
                 {"{\"pooling_mode_lasttoken\": true}", 3},
                 {"{\"pooling_mode\": \"lasttoken\"}", 3}};
    for (size_t i = 0; i < 4; i++) {
        write_text(sub, "config.json", cases[i].json);
        struct model *m = open_model(folder);
        assert_true(gguf_meta_get_u64(model_meta(m), "qwen3.pooling_type", &u) && u == cases[i].want);
        assert_int_equal(model_n_warnings(m), n_warnings);
        model_close(m);
    }
    write_text(
        folder, "modules.json",
        "[{\"type\": \"a.Transformer\"}, {\"type\": \"a.Pooling\", \"path\": \"1_Pooling\"}, {\"type\": "
        "\"a.Dense\", \"path\": \"2_Dense\"}, {\"type\": \"a.Normalize\"}]");
    struct model *m = open_model(folder);
    assert_int_equal(model_n_warnings(m), n_warnings + 1);
    assert_non_null(strstr(model_warning(m, n_warnings), "'a.Dense'"));
    model_close(m);
    write_text(sub, "config.json", "{\"pooling_mode\": \"weightedmean\"}");
    expect_refusal(folder, ERR_UNSUPPORTED, "only mean, cls and lasttoken");
    write_text(folder, "modules.json", "[{\"type\": \"a.models.Pooling\", \"path\": \"../../etc\"}]");
    expect_refusal(folder, ERR_FORMAT, "'../../etc' is not the name of a folder beside it");
    free(b);
}

static void a_folder_without_tokenizer_warns(void **state)
{
    (void)state;
    struct model *m = open_model(in_dir("untied"));
    const struct vocabulary *v = NULL;
    struct err e = {0};
    assert_int_equal(model_n_warnings(m), 1);
    assert_non_null(strstr(model_warning(m, 0), "no tokenizer"));
    assert_int_equal(model_vocabulary(m, &v, &e), ERR_UNSUPPORTED);
    assert_null(gguf_meta_find(model_meta(m), "tokenizer.ggml.model"));
    model_close(m);
}

/* --- GGUF files ------------------------------------------------------------------------------------------
 */

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
    assert_int_equal(outfile_write_all(path, file, file_bytes, true, &e), 0);
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
    write_gguf(in_dir("a.gguf"), meta, t, 3);
    struct model *m = open_model(in_dir("a.gguf"));
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
        char *path = gguf_split_name(in_dir("set"), part, 2);
        assert_int_equal(gguf_meta_set_u16(meta, "split.no", part, NULL), 0);
        assert_int_equal(gguf_meta_set_u16(meta, "split.count", 2, NULL), 0);
        assert_int_equal(gguf_meta_set_i32(meta, "split.tensors.count", 2, NULL), 0);
        write_gguf(path, meta, &t, 1);
        free(path);
        gguf_meta_free(meta);
    }
    struct model *m = open_model(in_dir("set-00001-of-00002.gguf"));
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
        cmocka_unit_test(the_demo_is_read_tensor_by_tensor),
        cmocka_unit_test(toys_of_every_family_equal_their_sources),
        cmocka_unit_test(computed_tensors_stand_first_and_survive_hints),
        cmocka_unit_test(rows_beyond_the_tensor_are_refused),
        cmocka_unit_test(experts_one_by_one_are_stacked_in_order),
        cmocka_unit_test(stacked_experts_are_split_into_gate_and_up),
        cmocka_unit_test(transposed_experts_are_turned),
        cmocka_unit_test(a_delta_net_layer_is_transformed_by_formula),
        cmocka_unit_test(a_mandatory_head_is_written_twice_when_tied),
        cmocka_unit_test(tied_heads_follow_the_flag),
        cmocka_unit_test(other_modalities_are_listed_as_skipped),
        cmocka_unit_test(wide_and_narrow_floats_are_read_as_f32),
        cmocka_unit_test(misfits_are_refused_by_name),
        cmocka_unit_test(a_folder_without_weights_opens_for_planning),
        cmocka_unit_test(a_reranker_keeps_two_rows_of_its_head),
        cmocka_unit_test(a_lone_score_is_ranked_beside_zeros),
        cmocka_unit_test(a_reward_model_keeps_its_two_layers),
        cmocka_unit_test(pooling_is_read_from_the_named_module),
        cmocka_unit_test(a_folder_without_tokenizer_warns),
        cmocka_unit_test(a_gguf_file_is_taken_as_it_is),
        cmocka_unit_test(a_split_set_is_one_model_without_split_keys),
        cmocka_unit_test(a_bare_vocabulary_opens_without_tensors),
    };
    return cmocka_run_group_tests_name("model", tests, make_dir, remove_dir);
}
