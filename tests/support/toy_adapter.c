/* toy_adapter.c - see toy_adapter.h. */
#include "toy_adapter.h"

#include "toy_checkpoint.h"
#include "toy_family.h"

#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/safetensors_write.h"
#include "libquant/base/rng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *const toy_adapter_names[] = {"patterns", "dora",   "rslora",  "tied", "whole",
                                         "experts",  "hybrid", "stacked", NULL};
const char *const toy_adapter_bases[] = {"llama-untied", "llama-untied",    "llama-untied",
                                         "qwen3",        "qwen2-untied",    "mixtral",
                                         "qwen35moe",    "mixtral-stacked", NULL};

enum kind { FACTORS, EMBEDDING, LENGTHS, WHOLE };

/* Modules of all layers (N) or none; `a` and `b` are the rows of A and of B, `in` the columns of A. */
static const struct {
    const char *adapter, *module;
    enum kind kind;
    uint32_t layers; /* bits */
    uint32_t a, in, b, b_cols;
} modules[] = {
    {"patterns", "model.embed_tokens", EMBEDDING, 1, 4, 320, 256, 4},
    {"patterns", "lm_head", FACTORS, 1, 4, 256, 320, 4},
    {"patterns", "model.layers.N.self_attn.q_proj", FACTORS, 1, 8, 256, 256, 8},
    {"patterns", "model.layers.N.self_attn.q_proj", FACTORS, 2, 4, 256, 256, 4},
    {"patterns", "model.layers.N.self_attn.k_proj", FACTORS, 3, 4, 256, 128, 4},
    {"patterns", "model.layers.N.self_attn.v_proj", FACTORS, 3, 4, 256, 128, 4},
    {"patterns", "model.layers.N.mlp.down_proj", FACTORS, 3, 2, 512, 256, 2},
    {"patterns", "model.layers.N.mlp.up_proj", FACTORS, 3, 4, 256, 512, 4},
    {"dora", "model.layers.N.self_attn.q_proj", LENGTHS, 3, 4, 256, 256, 4},
    {"dora", "model.layers.N.self_attn.o_proj", LENGTHS, 3, 4, 256, 256, 4},
    {"dora", "model.layers.N.mlp.gate_proj", LENGTHS, 3, 4, 256, 512, 4},
    {"rslora", "model.layers.N.self_attn.k_proj", FACTORS, 3, 4, 256, 128, 4},
    {"rslora", "model.layers.N.mlp.gate_proj", FACTORS, 3, 4, 256, 512, 4},
    {"tied", "model.embed_tokens", EMBEDDING, 1, 4, 320, 256, 4},
    {"tied", "model.layers.N.self_attn.q_proj", FACTORS, 3, 4, 256, 128, 4},
    {"whole", "model.layers.N.self_attn.q_proj", FACTORS, 3, 4, 256, 256, 4},
    {"whole", "model.norm.weight", WHOLE, 1, 256, 0, 0, 0},
    {"whole", "lm_head.weight", WHOLE, 1, 320, 256, 0, 0},
    {"experts", "model.layers.N.self_attn.q_proj", FACTORS, 7, 4, 64, 64, 4},
    {"experts", "model.layers.N.mlp.experts.base_layer", FACTORS, 7, 32, 64, 64, 32},
    {"experts", "model.layers.N.mlp.experts", FACTORS, 7, 32, 32, 64, 32},
    {"stacked", "model.layers.N.mlp.experts", FACTORS, 7, 32, 32, 64, 32},
    {"hybrid", "model.layers.N.linear_attn.in_proj_qkv", FACTORS, 7, 4, 64, 64, 4},
    {"hybrid", "model.layers.N.linear_attn.in_proj_z", FACTORS, 7, 4, 64, 32, 4},
    {"hybrid", "model.layers.N.linear_attn.in_proj_a", FACTORS, 7, 4, 64, 4, 4},
    {"hybrid", "model.layers.N.linear_attn.out_proj", FACTORS, 7, 4, 32, 64, 4},
    {"hybrid", "model.layers.N.self_attn.q_proj", FACTORS, 8, 4, 64, 128, 4},
    {"hybrid", "model.layers.N.mlp.shared_expert.up_proj", FACTORS, 15, 4, 64, 32, 4},
    {"hybrid", "model.layers.N.mlp.experts", FACTORS, 15, 32, 32, 64, 32},
};

#define LINEAR "\"peft_type\": \"LORA\", \"task_type\": \"CAUSAL_LM\", \"r\": 4, \"lora_alpha\": 8, "
static const struct {
    const char *adapter, *config;
} configs[] = {
    {"patterns", LINEAR "\"target_modules\": [\"embed_tokens\", \"lm_head\", \"q_proj\", \"k_proj\", "
                        "\"v_proj\", \"down_proj\", \"up_proj\"], \"rank_pattern\": {\"down_proj\": 2, "
                        "\"layers.0.self_attn.q_proj\": 8}, \"alpha_pattern\": "
                        "{\"layers.1.self_attn.v_proj\": 3, \"up_proj\": 16}"},
    {"dora", LINEAR "\"target_modules\": [\"q_proj\", \"o_proj\", \"gate_proj\"], \"use_dora\": true"},
    {"rslora", LINEAR "\"target_modules\": [\"k_proj\", \"gate_proj\"], \"use_rslora\": true"},
    {"tied", LINEAR "\"target_modules\": [\"embed_tokens\", \"q_proj\"]"},
    {"whole", LINEAR "\"target_modules\": [\"q_proj\"], \"modules_to_save\": [\"model.norm\", \"lm_head\"]"},
    {"experts", LINEAR "\"target_modules\": [\"q_proj\"], \"target_parameters\": "
                       "[\"mlp.experts.gate_up_proj\", \"mlp.experts.down_proj\"]"},
    {"stacked", LINEAR "\"target_modules\": [], \"target_parameters\": [\"mlp.experts.down_proj\"]"},
    {"hybrid", LINEAR "\"target_modules\": [\"in_proj_qkv\", \"in_proj_z\", \"in_proj_a\", \"out_proj\", "
                      "\"q_proj\", \"up_proj\"], \"target_parameters\": [\"mlp.experts.down_proj\"]"},
};

static void module_name(char out[200], const char *pattern, uint32_t layer, const char *end)
{
    const char *n = strstr(pattern, ".N.");
    if (n)
        snprintf(out, 200, "base_model.model.%.*s.%u.%s%s", (int)(n - pattern), pattern, layer, n + 3, end);
    else
        snprintf(out, 200, "base_model.model.%s%s", pattern, end);
}

/* Declare the tensor (`write` false) or write its numbers. */
static int tensor(struct safetensors_writer *w, bool write, const char *name, uint32_t rows, uint32_t cols,
                  double mean, double deviation, struct rng *rng, struct err *e)
{
    const uint64_t shape[2] = {rows, cols};
    int rc = write ? 0 : safetensors_writer_add(w, name, ST_F32, cols ? 2 : 1, shape, e);
    for (uint64_t i = 0; write && rc == 0 && i < (uint64_t)rows * (cols ? cols : 1); i++) {
        float v = (float)(mean + deviation * rng_normal(rng));
        rc = safetensors_writer_write(w, &v, sizeof v, e);
    }
    return rc;
}

static int put_module(struct safetensors_writer *w, bool write, size_t i, uint32_t layer, struct rng *rng,
                      struct err *e)
{
    char name[200];
    bool embedding = modules[i].kind == EMBEDDING;
    if (modules[i].kind == WHOLE) {
        module_name(name, modules[i].module, layer, "");
        double mean = modules[i].in ? 0 : 1;
        return tensor(w, write, name, modules[i].a, modules[i].in, mean, 0.1, rng, e);
    }
    module_name(name, modules[i].module, layer, embedding ? ".lora_embedding_A" : ".lora_A.weight");
    int rc = tensor(w, write, name, modules[i].a, modules[i].in, 0, 0.1, rng, e);
    module_name(name, modules[i].module, layer, embedding ? ".lora_embedding_B" : ".lora_B.weight");
    if (rc == 0)
        rc = tensor(w, write, name, modules[i].b, modules[i].b_cols, 0, 0.1, rng, e);
    module_name(name, modules[i].module, layer, ".lora_magnitude_vector");
    if (rc == 0 && modules[i].kind == LENGTHS)
        rc = tensor(w, write, name, modules[i].b, 0, 1, 0.2, rng, e);
    return rc;
}

static int put_all(struct safetensors_writer *w, bool write, const char *adapter, struct err *e)
{
    struct rng rng = {1};
    int rc = 0;
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++)
        for (uint32_t layer = 0; rc == 0 && layer < 8; layer++)
            if (strcmp(modules[i].adapter, adapter) == 0 && (modules[i].layers >> layer & 1))
                rc = put_module(w, write, i, layer, &rng, e);
    return rc;
}

static int write_tensors(const char *folder, const char *name, struct err *e)
{
    struct safetensors_writer *w = NULL;
    char *path = hf_path(folder, "adapter_model.safetensors");
    int rc = path ? safetensors_writer_open(&w, path, true, e) : err_set(e, ERR_NOMEM, "out of memory");
    free(path);
    if (rc == 0)
        rc = put_all(w, false, name, e);
    if (rc == 0)
        rc = put_all(w, true, name, e);
    if (rc == 0)
        return safetensors_writer_commit(w, e);
    safetensors_writer_abort(w);
    return rc;
}

int toy_adapter_write(const char *folder, const char *name, struct err *e)
{
    const char *config = NULL;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        config = strcmp(configs[i].adapter, name) == 0 ? configs[i].config : config;
    if (!config)
        return err_set(e, ERR_ARG, "'%s' is no toy adapter", name);
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return err_set(e, ERR_IO, "%s: %s", folder, strerror(errno));
    char *path = hf_path(folder, "adapter_config.json");
    FILE *f = path ? fopen(path, "w") : NULL;
    free(path);
    if (!f)
        return err_set(e, ERR_IO, "%s: cannot write adapter_config.json", folder);
    fprintf(f, "{%s}\n", config);
    fclose(f);
    return write_tensors(folder, name, e);
}

int toy_adapter_write_base(const char *folder, const char *base, struct err *e)
{
    static const struct {
        const char *name;
        enum toy_arch arch;
    } dense[] = {{"llama-untied", TOY_LLAMA}, {"qwen3", TOY_QWEN3}, {"qwen2-untied", TOY_QWEN2}};
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++) {
        struct toy_spec spec = toy_spec_tiny(dense[i].arch);
        if (strcmp(dense[i].name, base) == 0)
            return toy_checkpoint_write(folder, &spec, e);
    }
    return toy_family_write(folder, base, e);
}
