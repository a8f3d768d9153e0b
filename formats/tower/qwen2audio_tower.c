/* qwen2audio_tower.c - the audio tower of Qwen2-Audio, which is Whisper's encoder: two convolutions, stored
 * positions, and one matrix to the width of the text model. */
#include "tower_rows.h"

static const char *const classes[] = {"Qwen2AudioForConditionalGeneration", NULL};
static const char *const model_types[] = {"qwen2_audio", NULL};

static const struct arch_row rows_ends[5] = {
    {.hf = "audio_tower.embed_positions.weight",
     .gguf = "a.position_embd.weight",
     .shape = "Ax,Ad",
     .type = ARCH_F32},
    {.hf = "audio_tower.layer_norm.weight", .gguf = "a.post_ln.weight", .shape = "Ad"},
    {.hf = "audio_tower.layer_norm.bias", .gguf = "a.post_ln.bias", .shape = "Ad"},
    {.hf = "multi_modal_projector.linear.weight", .gguf = "mm.a.fc.weight", .shape = "D,Ad"},
    {.hf = "multi_modal_projector.linear.bias", .gguf = "mm.a.fc.bias", .shape = "D"},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(tower_rows_conv1d),
    ARCH_GROUP(rows_ends),
    TOWER_AUDIO(tower_rows_whisper),
    ARCH_END_GROUPS,
};

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = gguf_meta_set_string(meta, "clip.projector_type", "qwen2a", e);
    return rc != 0 ? rc : tower_add_audio_keys(a, meta, e);
}

/* Defaults of the class (transformers, its constructor). */
static const struct hf_class_value defaults[] = {
    HF_UINT("num_mel_bins", 128),
    HF_UINT("encoder_layers", 32),
    HF_UINT("encoder_attention_heads", 20),
    HF_UINT("encoder_ffn_dim", 5120),
    HF_UINT("d_model", 1280),
    HF_UINT("max_source_positions", 1500),
    {.key = NULL},
};

const struct tower tower_qwen2audio = {
    .arch = {.name = "clip",
             .title = "Qwen2-Audio",
             .classes = classes,
             .model_types = model_types,
             .groups = groups,
             .audio_defaults = defaults,
             .drop = tower_drop,
             .check = tower_check_audio,
             .rename = tower_rename},
    .projector = "qwen2a",
    .add_keys = add_keys,
};
