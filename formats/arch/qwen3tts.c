/* qwen3tts.c - the talker of Qwen3-TTS: what predicts the first code of each frame of sound.
 *
 * A Qwen3 of its own head: texts are embedded by another width, which a network of two layers brings to that
 * of the model; the file has its results in place of both, and the embedding of the codes behind them. The
 * head knows codes alone. What else speaks is the second file (formats/tower/qwen3tts_tower.c). Truth:
 * specification, architectures 34. */
#include "arch_rows.h"

#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/path.h"

#include <stdio.h>
#include <string.h>

enum { RUNTIME_CODES = 3072, N_SUPPRESSED = 1024 };

static const char *const classes[] = {"Qwen3TTSForConditionalGeneration", NULL};
static const char *const model_types[] = {"qwen3_tts", "qwen3_tts_talker", NULL};

static const struct arch_part projection[ARCH_FOLD_PARTS] = {
    {"text_projection.linear_fc1.weight", "Td,Td"}, {"text_projection.linear_fc1.bias", "Td"},
    {"text_projection.linear_fc2.weight", "D,Td"},  {"text_projection.linear_fc2.bias", "D"},
    {"model.codec_embedding.weight", "Tc,D"},
};

static const struct arch_row rows_ends[3] = {
    {.hf = "model.text_embedding.weight",
     .gguf = "token_embd.weight",
     .shape = "Tv,Td",
     .out = "V,D",
     .op = ARCH_FOLD,
     .parts = projection},
    {.hf = "model.norm.weight", .gguf = "output_norm.weight", .shape = "D"},
    {.hf = "codec_head.weight", .gguf = "output.weight", .shape = "Tc,D"},
};

static const struct arch_group groups[] = {
    ARCH_GROUP(rows_ends),           ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_attention), ARCH_GROUP(arch_rows_qk_norm),
    ARCH_GROUP(arch_rows_qkv_bias),  ARCH_GROUP(arch_rows_o_bias),
    ARCH_GROUP(arch_rows_ffn),       ARCH_END_GROUPS,
};

static const char *rename_talker(const struct arch_model *a, const char *name, struct arena *arena)
{
    (void)a;
    (void)arena;
    return strncmp(name, "talker.", 7) == 0 ? name + 7 : name;
}

static const char *drop(const char *name)
{
    static const char *const others[] = {"code_predictor.", "speaker_encoder.", "decoder.", "encoder."};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strncmp(name, others[i], strlen(others[i])) == 0)
            return "other modality";
    return arch_drop_reason(name);
}

/* The rows of the file: those of texts, then those of codes. */
static int check(struct arch_model *a, struct err *e)
{
    if (!a->known[ARCH_TV] || !a->known[ARCH_TD] || a->value[ARCH_TV] == 0 || a->value[ARCH_TD] == 0)
        return err_set(e, ERR_FORMAT,
                       "config.json: talker_config.text_vocab_size or text_hidden_size is missing or zero, "
                       "which say what the embedding of texts is");
    a->value[ARCH_TC] = a->value[ARCH_V];
    a->known[ARCH_TC] = true;
    a->value[ARCH_V] += a->value[ARCH_TV];
    return 0;
}

static int add_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e)
{
    static const int32_t sections[4] = {24, 20, 20, 0};
    char text[200];
    int rc = arch_default_sections(a, meta, sections, e);
    if (rc != 0 || a->value[ARCH_TC] == RUNTIME_CODES)
        return rc != 0 ? rc : arch_warn_output_bias(a, w, e);
    snprintf(text, sizeof text,
             "[runtime-refuses] config.json: talker_config.vocab_size is %llu; llama.cpp loads talkers of %d "
             "codes alone",
             (unsigned long long)a->value[ARCH_TC], RUNTIME_CODES);
    rc = w->add(w->ctx, text, e);
    return rc != 0 ? rc : arch_warn_output_bias(a, w, e);
}

/* --- the codes as tokens --- */

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the names of codes");
}

static int name_code(const struct arch_model *a, const char **names, const char *key, const char *part,
                     const struct json *id, struct arena *arena, struct err *e)
{
    uint64_t code;
    if (!json_uint(id, &code) || code >= a->value[ARCH_TC])
        return err_set(e, ERR_FORMAT, "config.json: talker_config.%s%s%s is no code below vocab_size (%llu)",
                       key, part ? "." : "", part ? part : "", (unsigned long long)a->value[ARCH_TC]);
    names[code] =
        arena_printf(arena, "<|%.*s%s%s|>", (int)strlen(key) - 3, key, part ? "_" : "", part ? part : "");
    return names[code] ? 0 : no_memory(e);
}

/* Keys "..._id" of the configuration name a code, or several. */
static int name_codes(const struct arch_model *a, const char **names, struct arena *arena, struct err *e)
{
    const struct json *talker = json_get(hf_config_root(a->config), "talker_config");
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < a->value[ARCH_TC]; i++)
        if (!(names[i] = arena_printf(arena, "<|codec_%llu|>", (unsigned long long)i)))
            rc = no_memory(e);
    for (const struct json *j = json_first(talker); rc == 0 && j; j = json_next(j)) {
        const char *key = json_key(j);
        if (!path_ends_with(key, "_id"))
            continue;
        if (json_is_object(j))
            for (const struct json *k = json_first(j); rc == 0 && k; k = json_next(k))
                rc = name_code(a, names, key, json_key(k), k, arena, e);
        else if (!json_is_null(j))
            rc = name_code(a, names, key, NULL, j, arena, e);
    }
    return rc;
}

static int end_of_speech(const struct arch_model *a, uint64_t *id, struct err *e)
{
    if (!hf_config_uint(a->config, "codec_eos_token_id", id, NULL) || *id >= a->value[ARCH_TC])
        return err_set(
            e, ERR_FORMAT,
            "config.json: talker_config.codec_eos_token_id is missing, or no code below vocab_size");
    *id += a->value[ARCH_TV];
    return 0;
}

/* Speech ends with its own token, and there is nobody to chat with. */
static int add_tokens(const struct arch_model *a, struct vocabulary *v, struct err *e)
{
    size_t n = (size_t)a->value[ARCH_TC];
    struct arena arena = {0};
    const char **names = arena_array(&arena, n, sizeof *names);
    uint64_t end = 0;
    int rc = names ? name_codes(a, names, &arena, e) : no_memory(e);
    if (rc == 0)
        rc = vocabulary_append(v, names, n, TOKEN_CONTROL, e);
    arena_release(&arena);
    if (rc == 0)
        rc = end_of_speech(a, &end, e);
    v->eos = (int64_t)end;
    v->add_eos = VOCAB_FLAG_FALSE;
    v->chat_template = NULL;
    return rc;
}

/* The last codes are marks, of which only the end may be spoken. */
static int after_vocabulary(const struct arch_model *a, const struct vocabulary *v, struct gguf_meta *meta,
                            struct err *e)
{
    int32_t ids[N_SUPPRESSED];
    size_t n = 0;
    uint64_t end = a->value[ARCH_V], first = end > N_SUPPRESSED ? end - N_SUPPRESSED : 0;
    for (uint64_t id = first; id < end; id++)
        if ((int64_t)id != v->eos)
            ids[n++] = (int32_t)id;
    return gguf_meta_set_array(meta, "tokenizer.ggml.suppress_tokens", GGUF_I32, ids, n, e);
}

const struct arch arch_qwen3tts = {
    .name = "qwen3tts",
    .title = "Qwen3-TTS (talker)",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .drop = drop,
    .check = check,
    .add_keys = add_keys,
    .add_tokens = add_tokens,
    .after_vocabulary = after_vocabulary,
    .rename = rename_talker,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "ffn_norm.weight",
                .not_run =
                    "it continues sound, and its inputs are sums of a text and the sound so far; it is "
                    "converted and quantized"},
};
