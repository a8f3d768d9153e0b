/* builder.c - see builder.h. */
#include "builder.h"

#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/safetensors_write.h"
#include "scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct tensor_spec *builder_add(struct builder *b, const char *name, uint32_t n_dims, uint64_t d0,
                                uint64_t d1, uint64_t d2)
{
    struct tensor_spec *t = &b->t[b->n];
    *t = (struct tensor_spec){.dtype = ST_F32, .n_dims = n_dims, .shape = {d0, d1, d2}, .step = 0.25f};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->first = (float)++b->n;
    return t;
}

struct tensor_spec *spec_of(struct builder *b, const char *name)
{
    for (size_t i = 0; i < b->n; i++)
        if (strcmp(b->t[i].name, name) == 0)
            return &b->t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

void builder_drop(struct builder *b, const char *name)
{
    *spec_of(b, name) = b->t[--b->n];
}

void builder_fill(struct builder *b, const char *class_name, bool tied, int moe)
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
    builder_add(b, "model.embed_tokens.weight", 2, V, D, 0);
    builder_add(b, "model.norm.weight", 1, D, 0, 0);
    if (!tied)
        builder_add(b, "lm_head.weight", 2, V, D, 0);
    for (int n = 0; n < L; n++) {
#define LAYER(...) (snprintf(name, sizeof name, __VA_ARGS__), name)
        builder_add(b, LAYER("model.layers.%d.input_layernorm.weight", n), 1, D, 0, 0);
        builder_add(b, LAYER("model.layers.%d.post_attention_layernorm.weight", n), 1, D, 0, 0);
        for (int i = 0; i < 3; i++) {
            builder_add(b, LAYER("model.layers.%d.self_attn.%s_proj.weight", n, proj[i]), 2, D, D, 0);
            builder_add(b, LAYER("model.layers.%d.self_attn.%s_proj.bias", n, proj[i]), 1, D, 0, 0);
        }
        builder_add(b, LAYER("model.layers.%d.self_attn.o_proj.weight", n), 2, D, D, 0);
        if (!moe) {
            builder_add(b, LAYER("model.layers.%d.mlp.gate_proj.weight", n), 2, FF, D, 0);
            builder_add(b, LAYER("model.layers.%d.mlp.up_proj.weight", n), 2, FF, D, 0);
            builder_add(b, LAYER("model.layers.%d.mlp.down_proj.weight", n), 2, D, FF, 0);
            continue;
        }
        builder_add(b, LAYER("model.layers.%d.mlp.gate.weight", n), 2, E, D, 0);
        for (int j = 0; moe == 1 && j < E; j++) {
            builder_add(b, LAYER("model.layers.%d.mlp.experts.%d.gate_proj.weight", n, j), 2, FE, D, 0);
            builder_add(b, LAYER("model.layers.%d.mlp.experts.%d.up_proj.weight", n, j), 2, FE, D, 0);
            builder_add(b, LAYER("model.layers.%d.mlp.experts.%d.down_proj.weight", n, j), 2, D, FE, 0);
        }
        if (moe == 2) {
            builder_add(b, LAYER("model.layers.%d.mlp.experts.gate_up_proj", n), 3, E, 2 * FE, D);
            builder_add(b, LAYER("model.layers.%d.mlp.experts.down_proj", n), 3, E, D, FE);
        }
        builder_add(b, LAYER("model.layers.%d.mlp.shared_expert.gate_proj.weight", n), 2, FS, D, 0);
        builder_add(b, LAYER("model.layers.%d.mlp.shared_expert.up_proj.weight", n), 2, FS, D, 0);
        builder_add(b, LAYER("model.layers.%d.mlp.shared_expert.down_proj.weight", n), 2, D, FS, 0);
        builder_add(b, LAYER("model.layers.%d.mlp.shared_expert_gate.weight", n), 2, 1, D, 0);
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

const char *builder_write(const struct builder *b, const char *name)
{
    const char *folder = in_scratch(name);
    struct safetensors_writer *w = NULL;
    struct err e = {0};
    mkdir(folder, 0700);
    scratch_text_in(folder, "config.json", b->config);
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

float spec_value(const struct tensor_spec *t, uint64_t i)
{
    return t->first + (float)i * t->step;
}
