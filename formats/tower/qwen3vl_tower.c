/* qwen3vl_tower.c - the vision tower of Qwen3-VL, dense and with experts, and of Qwen3.5 and 3.6.
 *
 * q, k and v stay one matrix; positions are learned; the features of some layers (deepstack) have mergers of
 * their own and enter the first layers of the text model. Checkpoints number these mergers 0, 1, ..., files
 * by the layer they belong to. */
#include "tower_rows.h"

#include <string.h>

static const char *const classes[] = {"Qwen3VLForConditionalGeneration",
                                      "Qwen3VLMoeForConditionalGeneration",
                                      "Qwen3_5ForConditionalGeneration",
                                      "Qwen3_5MoeForConditionalGeneration",
                                      "Qwen3VLModel",
                                      "Qwen3VLMoeModel",
                                      "Qwen3_5Model",
                                      "Qwen3_5MoeModel",
                                      NULL};
static const char *const model_types[] = {"qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", NULL};

const struct arch_row tower_rows_qwen3vl[10] = {
    {.hf = "visual.blocks.N.attn.qkv.weight", .gguf = "v.blk.N.attn_qkv.weight", .shape = "3*Vd,Vd"},
    {.hf = "visual.blocks.N.attn.qkv.bias", .gguf = "v.blk.N.attn_qkv.bias", .shape = "3*Vd"},
    {.hf = "visual.blocks.N.attn.proj.weight", .gguf = "v.blk.N.attn_out.weight", .shape = "Vd,Vd"},
    {.hf = "visual.blocks.N.attn.proj.bias", .gguf = "v.blk.N.attn_out.bias", .shape = "Vd"},
    {.hf = "visual.blocks.N.mlp.linear_fc1.weight", .gguf = "v.blk.N.ffn_up.weight", .shape = "Vf,Vd"},
    {.hf = "visual.blocks.N.mlp.linear_fc1.bias", .gguf = "v.blk.N.ffn_up.bias", .shape = "Vf"},
    {.hf = "visual.blocks.N.mlp.linear_fc2.weight", .gguf = "v.blk.N.ffn_down.weight", .shape = "Vd,Vf"},
    {.hf = "visual.blocks.N.mlp.linear_fc2.bias", .gguf = "v.blk.N.ffn_down.bias", .shape = "Vd"},
    {.hf = "visual.blocks.N.norm1.weight", .gguf = "v.blk.N.ln1.weight", .shape = "Vd"},
    {.hf = "visual.blocks.N.norm2.weight", .gguf = "v.blk.N.ln2.weight", .shape = "Vd"},
};

const struct arch_row tower_rows_learned_positions[2] = {
    {.hf = "visual.patch_embed.proj.bias", .gguf = "v.patch_embd.bias", .shape = "Vd"},
    {.hf = "visual.pos_embed.weight", .gguf = "v.position_embd.weight", .shape = "Vx,Vd", .type = ARCH_F32},
};

static const struct arch_row rows_merger[6] = {
    {.hf = "visual.merger.norm.weight", .gguf = "v.post_ln.weight", .shape = "Vd"},
    {.hf = "visual.merger.norm.bias", .gguf = "v.post_ln.bias", .shape = "Vd"},
    {.hf = "visual.merger.linear_fc1.weight", .gguf = "mm.0.weight", .shape = "Vd*Vm*Vm,Vd*Vm*Vm"},
    {.hf = "visual.merger.linear_fc1.bias", .gguf = "mm.0.bias", .shape = "Vd*Vm*Vm"},
    {.hf = "visual.merger.linear_fc2.weight", .gguf = "mm.2.weight", .shape = "Vo,Vd*Vm*Vm"},
    {.hf = "visual.merger.linear_fc2.bias", .gguf = "mm.2.bias", .shape = "Vo"},
};

/* N is the layer, see tower_rename_qwen3vl. */
#define DEEPSTACK "visual.deepstack_merger_list.N."

const struct arch_row tower_rows_deepstack[6] = {
    {.hf = DEEPSTACK "norm.weight", .gguf = "v.deepstack.N.norm.weight", .shape = "Vd*Vm*Vm"},
    {.hf = DEEPSTACK "norm.bias", .gguf = "v.deepstack.N.norm.bias", .shape = "Vd*Vm*Vm"},
    {.hf = DEEPSTACK "linear_fc1.weight", .gguf = "v.deepstack.N.fc1.weight", .shape = "Vd*Vm*Vm,Vd*Vm*Vm"},
    {.hf = DEEPSTACK "linear_fc1.bias", .gguf = "v.deepstack.N.fc1.bias", .shape = "Vd*Vm*Vm"},
    {.hf = DEEPSTACK "linear_fc2.weight", .gguf = "v.deepstack.N.fc2.weight", .shape = "Vo,Vd*Vm*Vm"},
    {.hf = DEEPSTACK "linear_fc2.bias", .gguf = "v.deepstack.N.fc2.bias", .shape = "Vo"},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(tower_rows_patches),
    TOWER_VISION(tower_rows_qwen3vl),
    TOWER_VISION(tower_rows_norm_bias),
    ARCH_GROUP(tower_rows_learned_positions),
    ARCH_GROUP(rows_merger),
    TOWER_DEEPSTACK(tower_rows_deepstack),
    ARCH_END_GROUPS,
};

static const struct json *deepstack_list(const struct arch_model *a)
{
    return json_get(a->vision, "deepstack_visual_indexes");
}

/* The layer of the n-th merger. */
static bool deepstack_layer(const struct arch_model *a, uint64_t n, uint64_t *layer)
{
    const struct json *j = json_first(deepstack_list(a));
    for (; j && n > 0; n--)
        j = json_next(j);
    return j && json_uint(j, layer);
}

const char *tower_rename_qwen3vl(const struct arch_model *a, const char *name, struct arena *arena)
{
    static const char prefix[] = "visual.deepstack_merger_list.";
    name = tower_rename(a, name, arena);
    if (!name || strncmp(name, prefix, sizeof prefix - 1) != 0)
        return name;
    uint64_t n, layer;
    const char *number = name + sizeof prefix - 1, *rest = strchr(number, '.');
    char pattern[400];
    if (!rest || (size_t)snprintf(pattern, sizeof pattern, "%sN%s", prefix, rest) >= sizeof pattern ||
        !arch_match(pattern, name, &n, NULL) || !deepstack_layer(a, n, &layer))
        return name;
    return arena_printf(arena, "%s%llu%s", prefix, (unsigned long long)layer, rest);
}

/* Layers by the list; the class assumes some when there is none, but published files always state them, and
 * Qwen3.5 has none at all. */
static int read_deepstack(struct arch_model *a, struct err *e)
{
    uint64_t layer;
    for (const struct json *j = json_first(deepstack_list(a)); j; j = json_next(j)) {
        if (!json_uint(j, &layer) || layer >= a->value[ARCH_VN] || tower_is_deepstack(a, layer))
            return err_set(
                e, ERR_FORMAT,
                "config.json: vision_config.deepstack_visual_indexes: expected different layers below "
                "%llu",
                (unsigned long long)a->value[ARCH_VN]);
        a->deepstack_layers[layer / 64] |= (uint64_t)1 << (layer % 64);
    }
    return 0;
}

int tower_check_qwen3vl(struct arch_model *a, struct err *e)
{
    int rc = tower_check_vision(a, e);
    return rc != 0 ? rc : read_deepstack(a, e);
}

/* The reference converter gives the norms the epsilon of the text model. */
static int set_epsilon(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    double eps = 1e-6;
    hf_config_number(a->config, "rms_norm_eps", &eps, NULL);
    return gguf_meta_set_f32(meta, "clip.vision.attention.layer_norm_epsilon", (float)eps, e);
}

int tower_add_keys_qwen3vl(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    uint8_t is_deepstack[ARCH_MAX_LAYERS];
    for (uint64_t i = 0; i < a->value[ARCH_VN]; i++)
        is_deepstack[i] = tower_is_deepstack(a, i);
    int rc = gguf_meta_set_bool(meta, "clip.use_gelu", true, e);
    if (rc == 0)
        rc = tower_add_merge_size(a, meta, e);
    if (rc == 0)
        rc = set_epsilon(a, meta, e);
    return rc != 0 ? rc
                   : gguf_meta_set_array(meta, "clip.vision.is_deepstack_layers", GGUF_BOOL, is_deepstack,
                                         a->value[ARCH_VN], e);
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = gguf_meta_set_string(meta, "clip.projector_type", "qwen3vl_merger", e);
    return rc != 0 ? rc : tower_add_keys_qwen3vl(a, meta, e);
}

/* Defaults of the classes (transformers, their constructors). */
const struct hf_class_value tower_defaults_qwen3vl[] = {
    HF_UINT("depth", 27),
    HF_UINT("hidden_size", 1152),
    HF_UINT("intermediate_size", 4304),
    HF_UINT("num_heads", 16),
    HF_UINT("in_channels", 3),
    HF_UINT("patch_size", 16),
    HF_UINT("spatial_merge_size", 2),
    HF_UINT("temporal_patch_size", 2),
    HF_UINT("out_hidden_size", 3584),
    HF_UINT("num_position_embeddings", 2304),
    {.key = NULL},
};

const struct tower tower_qwen3vl = {
    .arch = {.name = "clip",
             .title = "Qwen3-VL, Qwen3.5, Qwen3.6 (dense and MoE)",
             .classes = classes,
             .model_types = model_types,
             .groups = groups,
             .vision_defaults = tower_defaults_qwen3vl,
             .drop = tower_drop,
             .check = tower_check_qwen3vl,
             .rename = tower_rename_qwen3vl},
    .projector = "qwen3vl_merger",
    .vision_activation = "gelu_pytorch_tanh",
    .image_mean = {0.5, 0.5, 0.5},
    .image_std = {0.5, 0.5, 0.5},
    .add_keys = add_keys,
};
