/* omni_tower.c - vision and audio together in one file: Qwen2.5-Omni and Qwen3-Omni; and audio alone:
 * Qwen3-ASR.
 *
 * Their audio positions are computed, not stored, and reach the file as a tensor. Talkers and vocoders, which
 * make speech, have no place in it. */
#include "tower_rows.h"

#include <string.h>

static const char *const classes_25[] = {"Qwen2_5OmniModel", "Qwen2_5OmniForConditionalGeneration",
                                         "Qwen2_5OmniThinkerForConditionalGeneration", NULL};
static const char *const types_25[] = {"qwen2_5_omni", "qwen2_5_omni_thinker", NULL};
static const char *const classes_3[] = {"Qwen3OmniMoeForConditionalGeneration",
                                        "Qwen3OmniMoeThinkerForConditionalGeneration", NULL};
static const char *const types_3[] = {"qwen3_omni_moe", "qwen3_omni_moe_thinker", NULL};
static const char *const classes_asr[] = {"Qwen3ASRForConditionalGeneration", NULL};
static const char *const types_asr[] = {"qwen3_asr", NULL};

/* Defaults of the classes (transformers, their constructors). */
static const struct hf_class_value audio_defaults[] = {
    HF_UINT("num_mel_bins", 128),
    HF_UINT("encoder_layers", 32),
    HF_UINT("encoder_attention_heads", 20),
    HF_UINT("encoder_ffn_dim", 5120),
    HF_UINT("d_model", 1280),
    HF_UINT("max_source_positions", 1500),
    HF_UINT("output_dim", 3584),
    HF_UINT("downsample_hidden_size", 480),
    {.key = NULL},
};

static const struct arch_row rows_post_norm[2] = {
    {.hf = "audio_tower.ln_post.weight", .gguf = "a.post_ln.weight", .shape = "Ad"},
    {.hf = "audio_tower.ln_post.bias", .gguf = "a.post_ln.bias", .shape = "Ad"},
};

/* The reference converter computes 1500 positions whatever the configuration says, and so does this. */
static void set_positions(struct arch_model *a)
{
    a->value[ARCH_AX] = 1500;
    a->known[ARCH_AX] = true;
}

/* --- Qwen2.5-Omni --- */

static const struct arch_row rows_fc[2] = {
    {.hf = "audio_tower.proj.weight", .gguf = "mm.a.fc.weight", .shape = "Ao,Ad"},
    {.hf = "audio_tower.proj.bias", .gguf = "mm.a.fc.bias", .shape = "Ao"},
};

/* q, k and v of its vision layers are stored one by one. */
static const struct arch_row rows_qkv[6] = {
    {.hf = "visual.blocks.N.attn.q.weight", .gguf = "v.blk.N.attn_q.weight", .shape = "Vd,Vd"},
    {.hf = "visual.blocks.N.attn.q.bias", .gguf = "v.blk.N.attn_q.bias", .shape = "Vd"},
    {.hf = "visual.blocks.N.attn.k.weight", .gguf = "v.blk.N.attn_k.weight", .shape = "Vd,Vd"},
    {.hf = "visual.blocks.N.attn.k.bias", .gguf = "v.blk.N.attn_k.bias", .shape = "Vd"},
    {.hf = "visual.blocks.N.attn.v.weight", .gguf = "v.blk.N.attn_v.weight", .shape = "Vd,Vd"},
    {.hf = "visual.blocks.N.attn.v.bias", .gguf = "v.blk.N.attn_v.bias", .shape = "Vd"},
};

static const struct arch_group groups_25[] = {
    ARCH_GROUP(tower_rows_sinusoids), ARCH_GROUP(tower_rows_conv1d),
    ARCH_GROUP(rows_post_norm),       ARCH_GROUP(rows_fc),
    TOWER_AUDIO(tower_rows_whisper),  ARCH_GROUP(tower_rows_patches),
    TOWER_VISION(rows_qkv),           TOWER_VISION(tower_rows_attn_output),
    TOWER_VISION(tower_rows_norms),   TOWER_VISION(tower_rows_gated_mlp),
    ARCH_GROUP(tower_rows_merger),    ARCH_END_GROUPS,
};

static int check_25(struct arch_model *a, struct err *e)
{
    set_positions(a);
    int rc = tower_check_vision(a, e);
    return rc != 0 ? rc : tower_check_audio(a, e);
}

static int add_keys_25(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = tower_add_audio_keys(a, meta, e);
    if (rc == 0)
        rc = gguf_meta_set_string(meta, "clip.projector_type", "qwen2.5o", e);
    return rc != 0 ? rc : tower_add_window_keys(a, meta, e);
}

const struct tower tower_qwen25omni = {
    .arch = {.name = "clip",
             .title = "Qwen2.5-Omni",
             .classes = classes_25,
             .model_types = types_25,
             .groups = groups_25,
             .vision_defaults = tower_defaults_qwen25vl,
             .audio_defaults = audio_defaults,
             .drop = tower_drop,
             .check = check_25,
             .rename = tower_rename},
    .projector = "qwen2.5o",
    .vision_activation = "silu",
    .image_mean = {0.48145466, 0.4578275, 0.40821073},
    .image_std = {0.26862954, 0.26130258, 0.27577711},
    .add_keys = add_keys_25,
};

/* --- Qwen3-Omni and Qwen3-ASR --- */

static const struct arch_row rows_key_bias[1] = {
    {.hf = "audio_tower.layers.N.self_attn.k_proj.bias", .gguf = "a.blk.N.attn_k.bias", .shape = "Ad"},
};

/* The runtime adds the biases to [time, bins, channels], so they have three axes. */
static const struct arch_row rows_conv2d[11] = {
    {.hf = "audio_tower.conv2d1.weight", .gguf = "a.conv2d.1.weight", .shape = "Ac,1,3,3", .type = ARCH_F16},
    {.hf = "audio_tower.conv2d1.bias", .gguf = "a.conv2d.1.bias", .shape = "Ac", .out = "Ac,1,1"},
    {.hf = "audio_tower.conv2d2.weight", .gguf = "a.conv2d.2.weight", .shape = "Ac,Ac,3,3", .type = ARCH_F16},
    {.hf = "audio_tower.conv2d2.bias", .gguf = "a.conv2d.2.bias", .shape = "Ac", .out = "Ac,1,1"},
    {.hf = "audio_tower.conv2d3.weight", .gguf = "a.conv2d.3.weight", .shape = "Ac,Ac,3,3", .type = ARCH_F16},
    {.hf = "audio_tower.conv2d3.bias", .gguf = "a.conv2d.3.bias", .shape = "Ac", .out = "Ac,1,1"},
    {.hf = "audio_tower.conv_out.weight", .gguf = "a.conv_out.weight", .shape = "Ad,Aw", .type = ARCH_F16},
    {.hf = "audio_tower.proj1.weight", .gguf = "mm.a.mlp.1.weight", .shape = "Ad,Ad"},
    {.hf = "audio_tower.proj1.bias", .gguf = "mm.a.mlp.1.bias", .shape = "Ad"},
    {.hf = "audio_tower.proj2.weight", .gguf = "mm.a.mlp.2.weight", .shape = "Ao,Ad"},
    {.hf = "audio_tower.proj2.bias", .gguf = "mm.a.mlp.2.bias", .shape = "Ao"},
};

/* As MLX stores them, channels last: an element of [Ac, 3, 3, channels]. */
static uint64_t last_of(uint64_t out, uint64_t n_channels)
{
    return (out / 9 / n_channels * 9 + out % 9) * n_channels + out / 9 % n_channels;
}

static uint64_t one_channel(const struct arch_model *a, uint64_t out)
{
    (void)a;
    return last_of(out, 1);
}

static uint64_t channels_last(const struct arch_model *a, uint64_t out)
{
    return last_of(out, a->value[ARCH_AC]);
}

#define CONV_LAST(x, channels, map)                                                                          \
    {                                                                                                        \
        .hf = "audio_tower.conv2d" x ".weight", .gguf = "a.conv2d." x ".weight",                             \
        .shape = "Ac,3,3," channels, .out = "Ac," channels ",3,3", .rows = (map), .by_element = true,        \
        .type = ARCH_F16                                                                                     \
    }

static const struct arch_row rows_conv2d_last[3] = {
    CONV_LAST("1", "1", one_channel),
    CONV_LAST("2", "Ac", channels_last),
    CONV_LAST("3", "Ac", channels_last),
};

static const struct arch_group groups_3[] = {
    ARCH_GROUP(tower_rows_sinusoids),
    ARCH_GROUP(tower_rows_patches),
    TOWER_VISION(tower_rows_qwen3vl),
    TOWER_VISION(tower_rows_norm_bias),
    ARCH_GROUP(tower_rows_learned_positions),
    ARCH_GROUP(tower_rows_merger),
    ARCH_GROUP(tower_rows_merger_bias),
    TOWER_DEEPSTACK(tower_rows_deepstack),
    ARCH_GROUP(rows_conv2d),
    ARCH_GROUP(rows_conv2d_last),
    ARCH_GROUP(rows_post_norm),
    TOWER_AUDIO(tower_rows_whisper),
    TOWER_AUDIO(rows_key_bias),
    ARCH_END_GROUPS,
};

static const struct arch_group groups_asr[] = {
    ARCH_GROUP(tower_rows_sinusoids),
    ARCH_GROUP(rows_conv2d),
    ARCH_GROUP(rows_conv2d_last),
    ARCH_GROUP(rows_post_norm),
    TOWER_AUDIO(tower_rows_whisper),
    TOWER_AUDIO(rows_key_bias),
    ARCH_END_GROUPS,
};

/* MLX gives the last merger the names of Qwen3-VL. */
static const char *rename_merger(const char *name, struct arena *arena)
{
    static const char prefix[] = "visual.merger.";
    static const struct {
        const char *mlx, *here;
    } parts[] = {{"norm.", "ln_q."}, {"linear_fc1.", "mlp.0."}, {"linear_fc2.", "mlp.2."}};
    const char *rest = name + sizeof prefix - 1;
    for (size_t i = 0; strncmp(name, prefix, sizeof prefix - 1) == 0 && i < sizeof parts / sizeof *parts; i++)
        if (strncmp(rest, parts[i].mlx, strlen(parts[i].mlx)) == 0)
            return arena_printf(arena, "%s%s%s", prefix, parts[i].here, rest + strlen(parts[i].mlx));
    return name;
}

/* "merger_list.0.ln_q" is "deepstack_merger_list.0.norm" of Qwen3-VL, and so on. */
static const char *rename_3(const struct arch_model *a, const char *name, struct arena *arena)
{
    static const char prefix[] = "visual.merger_list.";
    static const struct {
        const char *here, *there;
    } parts[] = {{".ln_q.", ".norm."}, {".mlp.0.", ".linear_fc1."}, {".mlp.2.", ".linear_fc2."}};
    name = tower_rename_qwen3vl(a, name, arena);
    if (!name || strncmp(name, prefix, sizeof prefix - 1) != 0)
        return name ? rename_merger(name, arena) : NULL;
    const char *number = name + sizeof prefix - 1;
    int n = (int)strcspn(number, ".");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strncmp(number + n, parts[i].here, strlen(parts[i].here)) == 0) {
            name = arena_printf(arena, "visual.deepstack_merger_list.%.*s%s%s", n, number, parts[i].there,
                                number + n + strlen(parts[i].here));
            return name ? tower_rename_qwen3vl(a, name, arena) : NULL;
        }
    return name;
}

/* transformers saves the two matrices of the projection apart from the tower. */
static const char *rename_asr(const struct arch_model *a, const char *name, struct arena *arena)
{
    static const char prefix[] = "multi_modal_projector.linear_";
    name = tower_rename(a, name, arena);
    if (!name || strncmp(name, prefix, sizeof prefix - 1) != 0)
        return name;
    return arena_printf(arena, "audio_tower.proj%s", name + sizeof prefix - 1);
}

/* Three convolutions halve the bins. */
static int check_asr(struct arch_model *a, struct err *e)
{
    uint64_t bins = a->value[ARCH_AM];
    set_positions(a);
    for (int i = 0; i < 3; i++)
        bins = (bins + 1) / 2;
    a->value[ARCH_AW] = a->value[ARCH_AC] * bins;
    a->known[ARCH_AW] = a->known[ARCH_AC];
    return tower_check_audio(a, e);
}

static int check_3(struct arch_model *a, struct err *e)
{
    int rc = tower_check_qwen3vl(a, e);
    return rc != 0 ? rc : check_asr(a, e);
}

static int add_keys_asr(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = tower_add_audio_keys(a, meta, e);
    return rc != 0 ? rc : gguf_meta_set_string(meta, "clip.audio.projector_type", "qwen3a", e);
}

static int add_keys_3(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = tower_add_audio_keys(a, meta, e);
    if (rc == 0)
        rc = tower_add_keys_qwen3vl(a, meta, e);
    if (rc == 0)
        rc = gguf_meta_set_string(meta, "clip.vision.projector_type", "qwen3vl_merger", e);
    return rc != 0 ? rc : gguf_meta_set_string(meta, "clip.audio.projector_type", "qwen3a", e);
}

const struct tower tower_qwen3omni = {
    .arch = {.name = "clip",
             .title = "Qwen3-Omni",
             .classes = classes_3,
             .model_types = types_3,
             .groups = groups_3,
             .vision_defaults = tower_defaults_qwen3vl,
             .audio_defaults = audio_defaults,
             .drop = tower_drop,
             .check = check_3,
             .rename = rename_3},
    .vision_projector = "qwen3vl_merger",
    .audio_projector = "qwen3a",
    .vision_activation = "gelu_pytorch_tanh",
    .image_mean = {0.5, 0.5, 0.5},
    .image_std = {0.5, 0.5, 0.5},
    .add_keys = add_keys_3,
};

/* Defaults of the class (transformers, its constructor). */
static const struct hf_class_value audio_defaults_asr[] = {
    HF_UINT("num_mel_bins", 128),
    HF_UINT("encoder_layers", 24),
    HF_UINT("encoder_attention_heads", 16),
    HF_UINT("encoder_ffn_dim", 4096),
    HF_UINT("d_model", 1024),
    HF_UINT("output_dim", 3584),
    HF_UINT("downsample_hidden_size", 480),
    {.key = NULL},
};

const struct tower tower_qwen3asr = {
    .arch = {.name = "clip",
             .title = "Qwen3-ASR",
             .classes = classes_asr,
             .model_types = types_asr,
             .groups = groups_asr,
             .audio_defaults = audio_defaults_asr,
             .drop = tower_drop,
             .check = check_asr,
             .rename = rename_asr},
    .audio_projector = "qwen3a",
    .add_keys = add_keys_asr,
};
