/* qwen2vl_tower.c - the vision towers of Qwen2-VL and Qwen2.5-VL.
 *
 * Qwen2-VL: layer norms with biases, and two matrices with quick GELU. Qwen2.5-VL: RMS norms, gated SiLU, and
 * attention within windows in most layers. */
#include "tower_rows.h"

static const char *const classes_2[] = {"Qwen2VLForConditionalGeneration", "Qwen2VLModel", NULL};
static const char *const types_2[] = {"qwen2_vl", NULL};
static const char *const classes_25[] = {"Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel", NULL};
static const char *const types_25[] = {"qwen2_5_vl", NULL};

static const struct arch_row rows_mlp[4] = {
    {.hf = "visual.blocks.N.mlp.fc1.weight", .gguf = "v.blk.N.ffn_up.weight", .shape = "Vf,Vd"},
    {.hf = "visual.blocks.N.mlp.fc1.bias", .gguf = "v.blk.N.ffn_up.bias", .shape = "Vf"},
    {.hf = "visual.blocks.N.mlp.fc2.weight", .gguf = "v.blk.N.ffn_down.weight", .shape = "Vd,Vf"},
    {.hf = "visual.blocks.N.mlp.fc2.bias", .gguf = "v.blk.N.ffn_down.bias", .shape = "Vd"},
};

static const struct arch_group groups_2[] = {
    ARCH_GROUP(tower_rows_patches), TOWER_VISION(tower_rows_split_qkv), TOWER_VISION(tower_rows_attn_output),
    TOWER_VISION(tower_rows_norms), TOWER_VISION(tower_rows_norm_bias), TOWER_VISION(rows_mlp),
    ARCH_GROUP(tower_rows_merger),  ARCH_GROUP(tower_rows_merger_bias), ARCH_END_GROUPS,
};

/* Its hidden_size is that of the text model; a class that leaves out embed_dim means its own. */
static int check_2(struct arch_model *a, struct err *e)
{
    if (a->vision && !json_get(a->vision, "embed_dim")) {
        a->value[ARCH_VD] = 1280;
        a->value[ARCH_VF] = a->value[ARCH_VD] * a->value[ARCH_VR];
    }
    uint64_t width;
    if (a->vision && json_uint(json_get(a->vision, "hidden_size"), &width))
        a->value[ARCH_VO] = width;
    return tower_check_vision(a, e);
}

/* Runtimes take 2 where there is no key, and the reference converter writes none. */
static int add_other_merge_size(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    return a->value[ARCH_VM] == 2 ? 0 : tower_add_merge_size(a, meta, e);
}

static int add_keys_2(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = gguf_meta_set_string(meta, "clip.projector_type", "qwen2vl_merger", e);
    if (rc == 0)
        rc = gguf_meta_set_f32(meta, "clip.vision.attention.layer_norm_epsilon", 1e-6f, e);
    return rc != 0 ? rc : add_other_merge_size(a, meta, e);
}

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class_value defaults_2[] = {
    HF_UINT("depth", 32),
    HF_UINT("embed_dim", 1280),
    HF_UINT("mlp_ratio", 4),
    HF_UINT("num_heads", 16),
    HF_UINT("in_channels", 3),
    HF_UINT("patch_size", 14),
    HF_UINT("spatial_merge_size", 2),
    HF_UINT("temporal_patch_size", 2),
    {.key = NULL},
};

const struct tower tower_qwen2vl = {
    .arch = {.name = "clip",
             .title = "Qwen2-VL",
             .classes = classes_2,
             .model_types = types_2,
             .groups = groups_2,
             .vision_defaults = defaults_2,
             .drop = tower_drop,
             .check = check_2,
             .rename = tower_rename},
    .projector = "qwen2vl_merger",
    .vision_activation = "quick_gelu",
    .image_mean = {0.48145466, 0.4578275, 0.40821073},
    .image_std = {0.26862954, 0.26130258, 0.27577711},
    .add_keys = add_keys_2,
};

const struct arch_row tower_rows_gated_mlp[6] = {
    {.hf = "visual.blocks.N.mlp.gate_proj.weight", .gguf = "v.blk.N.ffn_gate.weight", .shape = "Vf,Vd"},
    {.hf = "visual.blocks.N.mlp.gate_proj.bias", .gguf = "v.blk.N.ffn_gate.bias", .shape = "Vf"},
    {.hf = "visual.blocks.N.mlp.up_proj.weight", .gguf = "v.blk.N.ffn_up.weight", .shape = "Vf,Vd"},
    {.hf = "visual.blocks.N.mlp.up_proj.bias", .gguf = "v.blk.N.ffn_up.bias", .shape = "Vf"},
    {.hf = "visual.blocks.N.mlp.down_proj.weight", .gguf = "v.blk.N.ffn_down.weight", .shape = "Vd,Vf"},
    {.hf = "visual.blocks.N.mlp.down_proj.bias", .gguf = "v.blk.N.ffn_down.bias", .shape = "Vd"},
};

static const struct arch_group groups_25[] = {
    ARCH_GROUP(tower_rows_patches),
    TOWER_VISION(tower_rows_split_qkv),
    TOWER_VISION(tower_rows_attn_output),
    TOWER_VISION(tower_rows_norms),
    TOWER_VISION(tower_rows_gated_mlp),
    ARCH_GROUP(tower_rows_merger),
    ARCH_END_GROUPS,
};

static int add_keys_25(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = gguf_meta_set_string(meta, "clip.projector_type", "qwen2.5vl_merger", e);
    if (rc == 0)
        rc = tower_add_window_keys(a, meta, e);
    return rc != 0 ? rc : add_other_merge_size(a, meta, e);
}

/* Defaults of the classes (transformers, their constructors). */
const struct hf_class_value tower_defaults_qwen25vl[] = {
    HF_UINT("depth", 32),
    HF_UINT("hidden_size", 3584),
    HF_UINT("intermediate_size", 3420),
    HF_UINT("num_heads", 16),
    HF_UINT("in_channels", 3),
    HF_UINT("patch_size", 14),
    HF_UINT("spatial_merge_size", 2),
    HF_UINT("temporal_patch_size", 2),
    HF_UINT("out_hidden_size", 3584),
    {.key = NULL},
};

const struct tower tower_qwen25vl = {
    .arch = {.name = "clip",
             .title = "Qwen2.5-VL",
             .classes = classes_25,
             .model_types = types_25,
             .groups = groups_25,
             .vision_defaults = tower_defaults_qwen25vl,
             .drop = tower_drop,
             .check = tower_check_vision,
             .rename = tower_rename},
    .projector = "qwen2.5vl_merger",
    .vision_activation = "silu",
    .image_mean = {0.48145466, 0.4578275, 0.40821073},
    .image_std = {0.26862954, 0.26130258, 0.27577711},
    .add_keys = add_keys_25,
};
