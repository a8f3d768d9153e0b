/* qwen3tts_tower.c - what a runtime needs beside the talker of Qwen3-TTS: the encoder of a speaker's voice,
 * the predictor of the codes behind the first, and the decoder from codes to sound, in one file.
 *
 * The decoder has a folder of its own in the checkpoint, speech_tokenizer, and comes first. Widths of the
 * encoder and the decoder stand in no configuration that the runtime reads, so most shapes are those stored;
 * what the runtime has built in (stages, books, units) is checked. Truth: conversion/qwen3tts.py and
 * tools/mtmd of the reference (d32676d7); names and types: README.md of this folder. */
#include "tower_rows.h"

#include <string.h>

static const char *const classes[] = {"Qwen3TTSForConditionalGeneration", NULL};
static const char *const model_types[] = {"qwen3_tts", NULL};

enum { N_BOOKS = 15, N_DAC_BLOCKS = 4 };

/* --- from codes to sound --- */

#define WAV     "decoder."
#define OUT     "a.gen.wav."
#define BOOK(q) WAV "quantizer." q ".vq.layers."

static const struct arch_row rows_books[6] = {
    {.hf = WAV "quantizer.rvq_first.input_proj.weight",
     .gguf = OUT "quant.first.in_proj.weight",
     .narrow = true},
    {.hf = WAV "quantizer.rvq_first.output_proj.weight",
     .gguf = OUT "quant.first.out_proj.weight",
     .narrow = true},
    /* sums of what was assigned to a code, and how often one was */
    {.hf = BOOK("rvq_first") "0._codebook.embedding_sum",
     .gguf = OUT "quant.first.codebook.weight",
     .op = ARCH_DIVIDE,
     .with = BOOK("rvq_first") "0._codebook.cluster_usage"},
    {.hf = WAV "quantizer.rvq_rest.input_proj.weight",
     .gguf = OUT "quant.rest.in_proj.weight",
     .narrow = true},
    {.hf = WAV "quantizer.rvq_rest.output_proj.weight",
     .gguf = OUT "quant.rest.out_proj.weight",
     .narrow = true},
    {.hf = BOOK("rvq_rest") "J._codebook.embedding_sum",
     .gguf = OUT "quant.rest.codebook.weight",
     .op = ARCH_DIVIDE,
     .with = BOOK("rvq_rest") "J._codebook.cluster_usage"},
};

static const struct arch_row rows_wav_ends[7] = {
    {.hf = WAV "pre_conv.conv.weight", .gguf = OUT "pre_conv.weight", .type = ARCH_F16},
    {.hf = WAV "pre_conv.conv.bias", .gguf = OUT "pre_conv.bias"},
    {.hf = WAV "pre_transformer.input_proj.weight", .gguf = OUT "tfm.in_proj.weight"},
    {.hf = WAV "pre_transformer.input_proj.bias", .gguf = OUT "tfm.in_proj.bias"},
    {.hf = WAV "pre_transformer.output_proj.weight", .gguf = OUT "tfm.out_proj.weight"},
    {.hf = WAV "pre_transformer.output_proj.bias", .gguf = OUT "tfm.out_proj.bias"},
    {.hf = WAV "pre_transformer.norm.weight", .gguf = OUT "tfm.output_norm.weight"},
};

#define LAYER WAV "pre_transformer.layers.N."
#define TFM   OUT "tfm.blk.N."

static const struct arch_row rows_wav_layer[11] = {
    {.hf = LAYER "input_layernorm.weight", .gguf = TFM "ln1.weight"},
    {.hf = LAYER "self_attn.q_proj.weight", .gguf = TFM "attn_q.weight"},
    {.hf = LAYER "self_attn.k_proj.weight", .gguf = TFM "attn_k.weight"},
    {.hf = LAYER "self_attn.v_proj.weight", .gguf = TFM "attn_v.weight"},
    {.hf = LAYER "self_attn.o_proj.weight", .gguf = TFM "attn_out.weight"},
    {.hf = LAYER "self_attn_layer_scale.scale", .gguf = TFM "ls1.weight"},
    {.hf = LAYER "post_attention_layernorm.weight", .gguf = TFM "ln2.weight"},
    {.hf = LAYER "mlp.gate_proj.weight", .gguf = TFM "ffn_gate.weight"},
    {.hf = LAYER "mlp.up_proj.weight", .gguf = TFM "ffn_up.weight"},
    {.hf = LAYER "mlp.down_proj.weight", .gguf = TFM "ffn_down.weight"},
    {.hf = LAYER "mlp_layer_scale.scale", .gguf = TFM "ls2.weight"},
};

#define UP WAV "upsample.N."

static const struct arch_row rows_upsample[11] = {
    {.hf = UP "0.conv.weight", .gguf = OUT "up.blk.N.conv.weight", .type = ARCH_F32},
    {.hf = UP "0.conv.bias", .gguf = OUT "up.blk.N.conv.bias"},
    {.hf = UP "1.dwconv.conv.weight", .gguf = OUT "up.blk.N.dwconv.weight", .type = ARCH_F16},
    {.hf = UP "1.dwconv.conv.bias", .gguf = OUT "up.blk.N.dwconv.bias"},
    {.hf = UP "1.norm.weight", .gguf = OUT "up.blk.N.norm.weight"},
    {.hf = UP "1.norm.bias", .gguf = OUT "up.blk.N.norm.bias"},
    {.hf = UP "1.pwconv1.weight", .gguf = OUT "up.blk.N.pw1.weight"},
    {.hf = UP "1.pwconv1.bias", .gguf = OUT "up.blk.N.pw1.bias"},
    {.hf = UP "1.pwconv2.weight", .gguf = OUT "up.blk.N.pw2.weight"},
    {.hf = UP "1.pwconv2.bias", .gguf = OUT "up.blk.N.pw2.bias"},
    {.hf = UP "1.gamma", .gguf = OUT "up.blk.N.gamma"},
};

static const struct arch_row rows_dac_entry[2] = {
    {.hf = WAV "decoder.0.conv.weight", .gguf = OUT "dac.entry.weight", .type = ARCH_F16},
    {.hf = WAV "decoder.0.conv.bias", .gguf = OUT "dac.entry.bias"},
};

/* x + sin^2(alpha x) / beta: both are stored as logarithms, and the runtime multiplies. */
#define SNAKE(from, to)                                                                                      \
    {.hf = from ".alpha", .gguf = to ".alpha", .op = ARCH_EXP},                                              \
    {                                                                                                        \
        .hf = from ".beta", .gguf = to ".beta", .op = ARCH_INV_EXP                                           \
    }
#define CONV(from, to, element)                                                                              \
    {.hf = from ".weight", .gguf = to ".weight", .type = element},                                           \
    {                                                                                                        \
        .hf = from ".bias", .gguf = to ".bias"                                                               \
    }

/* `decoder.decoder.1` to `4` of the checkpoint, see rename_tts. */
#define DAC WAV "dac.N.block."
#define RES OUT "dac.blk.N.res."
#define UNIT(from, to)                                                                                       \
    SNAKE(DAC from ".act1", RES to ".act1"), CONV(DAC from ".conv1.conv", RES to ".conv1", ARCH_F16),        \
        SNAKE(DAC from ".act2", RES to ".act2"), CONV(DAC from ".conv2.conv", RES to ".conv2", ARCH_F16)

static const struct arch_row rows_dac[28] = {
    SNAKE(DAC "0", OUT "dac.blk.N.snake"),
    CONV(DAC "1.conv", OUT "dac.blk.N.conv", ARCH_F32),
    UNIT("2", "0"),
    UNIT("3", "1"),
    UNIT("4", "2"),
};

static const struct arch_row rows_dac_exit[4] = {
    SNAKE(WAV "decoder.5", OUT "dac.post_snake"),
    CONV(WAV "decoder.6.conv", OUT "dac.post_conv", ARCH_F16),
};

/* --- the speaker's voice: a stem and three stages --- */

#define SPEAKER   "speaker_encoder."
#define STAGE     SPEAKER "blocks.N."
#define BRANCH(x) CONV(STAGE "res2net_block.blocks." x ".conv", "a.blk.N.res2." x, ARCH_AS_NAMED)

static const struct arch_row rows_stage[22] = {
    CONV(STAGE "tdnn1.conv", "a.blk.N.conv_pw1", ARCH_AS_NAMED),
    CONV(STAGE "tdnn2.conv", "a.blk.N.conv_pw2", ARCH_AS_NAMED),
    CONV(STAGE "se_block.conv1", "a.blk.N.se_conv1", ARCH_AS_NAMED),
    CONV(STAGE "se_block.conv2", "a.blk.N.se_conv2", ARCH_AS_NAMED),
    BRANCH("0"),
    BRANCH("1"),
    BRANCH("2"),
    BRANCH("3"),
    BRANCH("4"),
    BRANCH("5"),
    BRANCH("6"),
};

static const struct arch_row rows_speaker_ends[10] = {
    CONV(SPEAKER "blocks.0.conv", "a.conv1d.0", ARCH_AS_NAMED),
    CONV(SPEAKER "mfa.conv", "a.conv_out", ARCH_AS_NAMED),
    CONV(SPEAKER "asp.conv", "a.asp_attn", ARCH_AS_NAMED),
    CONV(SPEAKER "asp.tdnn.conv", "a.asp_tdnn", ARCH_AS_NAMED),
    CONV(SPEAKER "fc", "mm.a.fc", ARCH_AS_NAMED),
};

static bool is_stage(const struct arch_model *a, uint64_t layer)
{
    (void)a;
    return layer > 0; /* 0 is the stem */
}

/* --- the codes behind the first --- */

#define CODES "talker.code_predictor."

static const struct arch_row rows_codes[6] = {
    {.hf = CODES "lm_head.J.weight", .gguf = "a.gen.code.head.weight"},
    {.hf = CODES "model.codec_embedding.J.weight", .gguf = "a.gen.code.embd.weight"},
    {.hf = CODES "model.norm.weight", .gguf = "a.gen.code.output_norm.weight"},
    {.hf = CODES "small_to_mtp_projection.weight",
     .gguf = "a.gen.code.proj_in.weight",
     .presence = ARCH_OPTIONAL},
    {.hf = CODES "small_to_mtp_projection.bias",
     .gguf = "a.gen.code.proj_in.bias",
     .presence = ARCH_OPTIONAL},
    {.hf = "talker.model.codec_embedding.weight", .gguf = "a.gen.code.out_embd.weight"},
};

#define CODE CODES "model.layers.N."

static const struct arch_row rows_code_layer[11] = {
    {.hf = CODE "input_layernorm.weight", .gguf = "a.gen.code.blk.N.ln1.weight"},
    {.hf = CODE "self_attn.q_proj.weight", .gguf = "a.gen.code.blk.N.attn_q.weight"},
    {.hf = CODE "self_attn.q_norm.weight", .gguf = "a.gen.code.blk.N.attn_q_norm.weight"},
    {.hf = CODE "self_attn.k_proj.weight", .gguf = "a.gen.code.blk.N.attn_k.weight"},
    {.hf = CODE "self_attn.k_norm.weight", .gguf = "a.gen.code.blk.N.attn_k_norm.weight"},
    {.hf = CODE "self_attn.v_proj.weight", .gguf = "a.gen.code.blk.N.attn_v.weight"},
    {.hf = CODE "self_attn.o_proj.weight", .gguf = "a.gen.code.blk.N.attn_out.weight"},
    {.hf = CODE "post_attention_layernorm.weight", .gguf = "a.gen.code.blk.N.ln2.weight"},
    {.hf = CODE "mlp.gate_proj.weight", .gguf = "a.gen.code.blk.N.ffn_gate.weight"},
    {.hf = CODE "mlp.up_proj.weight", .gguf = "a.gen.code.blk.N.ffn_up.weight"},
    {.hf = CODE "mlp.down_proj.weight", .gguf = "a.gen.code.blk.N.ffn_down.weight"},
};

/* In the order of the reference's file, as far as the folder of the decoder goes. */
static const struct arch_group groups[] = {
    ARCH_GROUP(rows_books),
    ARCH_GROUP(rows_wav_ends),
    ARCH_GROUP_OF(rows_wav_layer, NULL, "Wn"),
    ARCH_GROUP_OF(rows_upsample, NULL, "Wu"),
    ARCH_GROUP(rows_dac_entry),
    ARCH_GROUP_OF(rows_dac, NULL, "4"),
    ARCH_GROUP(rows_dac_exit),
    ARCH_GROUP(rows_speaker_ends),
    ARCH_GROUP_OF(rows_stage, is_stage, "4"),
    ARCH_GROUP(rows_codes),
    ARCH_GROUP_OF(rows_code_layer, NULL, "Gn"),
    ARCH_END_GROUPS,
};

/* --- names --- */

/* Blocks 1 to 4 of the last part are counted from 0. */
static const char *rename_tts(const struct arch_model *a, const char *name, struct arena *arena)
{
    static const char prefix[] = WAV "decoder.";
    const char *number = name + sizeof prefix - 1;
    (void)a;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || number[0] < '1' || number[0] > '0' + N_DAC_BLOCKS ||
        number[1] != '.')
        return name;
    return arena_printf(arena, WAV "dac.%c%s", number[0] - 1, number + 1);
}

static const char *drop(const char *name)
{
    static const char *const parts[] = {SPEAKER, CODES, WAV, "talker.model.codec_embedding."};
    size_t n = strlen(name);
    if (strstr(name, ".inv_freq") || (n > 12 && strcmp(name + n - 12, ".initialized") == 0))
        return "a buffer, not a weight";
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strncmp(name, parts[i], strlen(parts[i])) == 0)
            return NULL;
    return strncmp(name, "encoder.", 8) == 0 ? "turns sound into codes, which no runtime does"
                                             : "of the text model";
}

/* --- numbers and keys --- */

static const struct json *predictor(const struct arch_model *a)
{
    return json_get(hf_config_get(a->config, "code_predictor_config"), "hidden_size")
               ? hf_config_get(a->config, "code_predictor_config")
               : NULL;
}

static int take_layers(struct arch_model *a, enum arch_symbol symbol, uint64_t n, const char *name,
                       struct err *e)
{
    if (n == 0 || n > ARCH_MAX_LAYERS)
        return err_set(e, ERR_FORMAT, "%s is missing, or no number from 1 to %d", name, ARCH_MAX_LAYERS);
    a->value[symbol] = n;
    a->known[symbol] = true;
    return 0;
}

static int check(struct arch_model *a, struct err *e)
{
    uint64_t n_layers = 0, n_groups = N_BOOKS + 1, scale = 8;
    const struct json *config = predictor(a);
    json_uint(json_get(config, "num_hidden_layers"), &n_layers);
    json_uint(json_get(config, "num_code_groups"), &n_groups);
    json_uint(json_get(a->audio, "enc_res2net_scale"), &scale);
    if (n_groups != N_BOOKS + 1 || scale != 8)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: num_code_groups %llu and enc_res2net_scale %llu; runtimes know 16 and 8",
                       (unsigned long long)n_groups, (unsigned long long)scale);
    a->value[ARCH_E] = N_BOOKS; /* what is stacked */
    a->known[ARCH_E] = true;
    return take_layers(a, ARCH_GN, n_layers,
                       "config.json: talker_config.code_predictor_config.num_hidden_layers", e);
}

static int read_beside(struct arch_model *a, const struct json *config, const char *name, struct err *e)
{
    const struct json *decoder = json_get(config, "decoder_config");
    char text[600];
    uint64_t n_layers = 0, n_rates = json_n_children(json_get(decoder, "upsample_rates"));
    json_uint(json_get(decoder, "num_hidden_layers"), &n_layers);
    if (n_rates != N_DAC_BLOCKS)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: decoder_config.upsample_rates: %llu numbers; runtimes know %d blocks", name,
                       (unsigned long long)n_rates, N_DAC_BLOCKS);
    snprintf(text, sizeof text, "%s: decoder_config.num_hidden_layers", name);
    int rc = take_layers(a, ARCH_WN, n_layers, text, e);
    snprintf(text, sizeof text, "%s: the length of decoder_config.upsampling_ratios", name);
    return rc != 0
               ? rc
               : take_layers(a, ARCH_WU, json_n_children(json_get(decoder, "upsampling_ratios")), text, e);
}

/* Three numbers of the encoder are fillers, which a runtime asks of every tower and does not use. */
static int add_speaker_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"clip.audio.projection_dim", a->value[ARCH_D]},
        {"clip.audio.num_mel_bins", 128},
        {"clip.audio.block_count", 3},
        {"clip.audio.embedding_length", 1536},
        {"clip.audio.attention.head_count", 1},
        {"clip.audio.feed_forward_length", 1536},
    };
    int rc = gguf_meta_set_bool(meta, "clip.has_audio_encoder", true, e);
    if (rc == 0)
        rc = gguf_meta_set_string(meta, "clip.audio.projector_type", "qwen3tts_spkenc", e);
    for (size_t i = 0; rc == 0 && i < sizeof numbers / sizeof *numbers; i++)
        rc = tower_set_u32(meta, numbers[i].key, numbers[i].value, e);
    return rc != 0 ? rc : gguf_meta_set_f32(meta, "clip.audio.attention.layer_norm_epsilon", 1e-5f, e);
}

static int add_code_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    static const char *const keys[][2] = {
        {"clip.gen.audio.embedding_length", "hidden_size"},
        {"clip.gen.audio.feed_forward_length", "intermediate_size"},
        {"clip.gen.audio.block_count", "num_hidden_layers"},
        {"clip.gen.audio.attention.head_count", "num_attention_heads"},
        {"clip.gen.audio.attention.head_count_kv", "num_key_value_heads"},
    };
    double eps;
    int rc = tower_set_u32(meta, "clip.gen.audio.projection_dim", a->value[ARCH_D], e);
    for (size_t i = 0; rc == 0 && i < sizeof keys / sizeof *keys; i++) {
        uint64_t n;
        rc = json_uint(json_get(predictor(a), keys[i][1]), &n)
                 ? tower_set_u32(meta, keys[i][0], n, e)
                 : err_set(
                       e, ERR_FORMAT,
                       "config.json: talker_config.code_predictor_config.%s is missing, or no whole number",
                       keys[i][1]);
    }
    if (rc == 0 && !json_number(json_get(predictor(a), "rms_norm_eps"), &eps))
        rc =
            err_set(e, ERR_FORMAT,
                    "config.json: talker_config.code_predictor_config.rms_norm_eps is missing, or no number");
    return rc != 0 ? rc
                   : gguf_meta_set_f32(meta, "clip.gen.audio.attention.layer_norm_epsilon", (float)eps, e);
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    int rc = add_speaker_keys(a, meta, e);
    if (rc == 0)
        rc = gguf_meta_set_bool(meta, "clip.has_gen_audio_encoder", true, e);
    if (rc == 0)
        rc = gguf_meta_set_string(meta, "clip.gen.audio.projector_type", "qwen3tts_gen", e);
    return rc != 0 ? rc : add_code_keys(a, meta, e);
}

const struct tower tower_qwen3tts = {
    .arch = {.name = "clip",
             .title = "Qwen3-TTS (speaker encoder, code predictor, decoder)",
             .classes = classes,
             .model_types = model_types,
             .groups = groups,
             .beside = "speech_tokenizer",
             .drop = drop,
             .check = check,
             .rename = rename_tts},
    .audio_projector = "qwen3tts_spkenc",
    .audio_part = "speaker_encoder_config",
    .read_beside = read_beside,
    .add_keys = add_keys,
};
