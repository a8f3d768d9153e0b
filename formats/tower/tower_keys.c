/* tower_keys.c - the clip.* metadata, in the order and with the types of the reference converter; and back
 * from them to the numbers of a tower. */
#include "tower_rows.h"

#include "formats/hf/hf_checkpoint.h"
#include "libquant/base/path.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int tower_set_u32(struct gguf_meta *meta, const char *key, uint64_t v, struct err *e)
{
    if (v > UINT32_MAX)
        return err_set(e, ERR_FORMAT, "config.json: %s = %llu does not fit 32 bits", key,
                       (unsigned long long)v);
    return gguf_meta_set_u32(meta, key, (uint32_t)v, e);
}

/* Whole numbers of a part, in order. */
struct key {
    const char *key;
    enum arch_symbol symbol;
};

static int set_numbers(const struct arch_model *a, const struct key *keys, size_t n, struct gguf_meta *meta,
                       struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = tower_set_u32(meta, keys[i].key, a->value[keys[i].symbol], e);
    return rc;
}

/* --- what the image processor does first --- */

static bool read_three(const struct json *j, float out[3])
{
    double v;
    size_t n = 0;
    for (const struct json *item = json_first(j); item; item = json_next(item), n++) {
        if (n >= 3 || !json_number(item, &v) || !isfinite(v))
            return false;
        out[n] = (float)v;
    }
    return json_is_array(j) && n == 3;
}

/* Both lists, from one file of a folder: at its root, or in its "image_processor". *found: it has them. */
static int read_processor(const char *folder, const char *name, float mean[3], float std[3], bool *found,
                          struct err *e)
{
    struct json_doc *doc = NULL;
    if (!folder || !hf_file_exists(folder, name))
        return 0;
    char *path = hf_path(folder, name);
    int rc = path ? json_load_python(&doc, path, 1u << 20, e) : err_set(e, ERR_NOMEM, "out of memory");
    const struct json *root = json_root(doc), *inner = json_get(root, "image_processor");
    for (int pass = 0; rc == 0 && pass < 2; pass++) {
        const struct json *at = pass == 0 ? root : inner;
        const struct json *m = json_get(at, "image_mean"), *s = json_get(at, "image_std");
        if (!m && !s)
            continue;
        if (!read_three(m, mean) || !read_three(s, std))
            rc = err_set(
                e, ERR_FORMAT,
                "%s: image_mean and image_std: expected two lists of three numbers, one for each colour",
                path);
        *found = true;
    }
    json_free(doc);
    free(path);
    return rc;
}

static int set_image_numbers(const struct arch_model *a, const char *folder, struct gguf_meta *meta,
                             const struct arch_warnings *w, struct err *e)
{
    const struct tower *t = (const struct tower *)a->arch;
    float mean[3], std[3];
    bool found = false;
    for (int i = 0; i < 3; i++) {
        mean[i] = (float)t->image_mean[i];
        std[i] = (float)t->image_std[i];
    }
    int rc = read_processor(folder, "preprocessor_config.json", mean, std, &found, e);
    if (rc == 0)
        rc = read_processor(folder, "processor_config.json", mean, std, &found, e);
    if (rc == 0 && !found && folder)
        rc = w->add(w->ctx,
                    "[preprocessor-missing] neither preprocessor_config.json nor processor_config.json says "
                    "how colours are scaled (image_mean, image_std); those of the published models are taken",
                    e);
    if (rc == 0)
        rc = gguf_meta_set_array(meta, "clip.vision.image_mean", GGUF_F32, mean, 3, e);
    return rc != 0 ? rc : gguf_meta_set_array(meta, "clip.vision.image_std", GGUF_F32, std, 3, e);
}

/* --- keys of all towers --- */

/* The side of the square that the stored positions cover; 560 where no number says it. */
static uint64_t image_size(const struct arch_model *a)
{
    uint64_t side = 0;
    if (json_uint(json_get(a->vision, "image_size"), &side))
        return side;
    if (!a->known[ARCH_VX])
        return 560;
    return (uint64_t)(sqrt((double)a->value[ARCH_VX]) * (double)a->value[ARCH_VP]);
}

static int add_vision(const struct arch_model *a, const char *folder, struct gguf_meta *meta,
                      const struct arch_warnings *w, struct err *e)
{
    /* Qwen2-VL's feed_forward_length is the width of what comes out, in the files of the reference converter;
     * no runtime reads it. */
    bool odd = json_get(a->vision, "embed_dim") != NULL;
    const struct key keys[] = {
        {"clip.vision.patch_size", ARCH_VP},
        {"clip.vision.embedding_length", ARCH_VD},
        {"clip.vision.feed_forward_length", odd ? ARCH_VO : ARCH_VF},
        {"clip.vision.block_count", ARCH_VN},
        {"clip.vision.attention.head_count", ARCH_VH},
    };
    int rc = gguf_meta_set_bool(meta, "clip.has_vision_encoder", true, e);
    if (rc == 0)
        rc = tower_set_u32(meta, "clip.vision.projection_dim", a->value[ARCH_D], e);
    if (rc == 0)
        rc = tower_set_u32(meta, "clip.vision.image_size", image_size(a), e);
    if (rc == 0)
        rc = set_numbers(a, keys, sizeof keys / sizeof *keys, meta, e);
    return rc != 0 ? rc : set_image_numbers(a, folder, meta, w, e);
}

static int add_audio(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    static const struct key keys[] = {
        {"clip.audio.projection_dim", ARCH_D},        {"clip.audio.embedding_length", ARCH_AD},
        {"clip.audio.feed_forward_length", ARCH_AF},  {"clip.audio.block_count", ARCH_AN},
        {"clip.audio.attention.head_count", ARCH_AH},
    };
    int rc = gguf_meta_set_bool(meta, "clip.has_audio_encoder", true, e);
    return rc != 0 ? rc : set_numbers(a, keys, sizeof keys / sizeof *keys, meta, e);
}

/* It compares the widths of what both towers give, and deepstack makes that of vision a multiple. */
static int warn_of_deepstack(const struct arch_model *a, const struct arch_warnings *w, struct err *e)
{
    bool any = false;
    for (uint64_t i = 0; i < a->value[ARCH_VN]; i++)
        any |= tower_is_deepstack(a, i);
    if (!any || !a->audio)
        return 0;
    return w->add(
        w->ctx,
        "[runtime-refuses] vision with deepstack beside audio: llama.cpp (d32676d7) refuses to load the "
        "two from one file, its own converter's as well",
        e);
}

int tower_add_keys(const struct arch_model *a, const char *folder, uint32_t file_type, struct gguf_meta *meta,
                   const struct arch_warnings *w, struct err *e)
{
    const struct tower *t = (const struct tower *)a->arch;
    int rc = gguf_meta_set_u32(meta, "general.file_type", file_type, e);
    if (rc == 0 && a->vision)
        rc = add_vision(a, folder, meta, w, e);
    if (rc == 0 && a->audio && a->arch->audio_defaults)
        rc = add_audio(a, meta, e);
    if (rc == 0)
        rc = warn_of_deepstack(a, w, e);
    return rc != 0 ? rc : t->add_keys(a, meta, e);
}

/* --- keys of several --- */

int tower_add_merge_size(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    return tower_set_u32(meta, "clip.vision.spatial_merge_size", a->value[ARCH_VM], e);
}

/* The period of the layers whose attention sees the whole image. */
static int window_period(const struct arch_model *a, uint64_t *period, struct err *e)
{
    const struct json *list = json_get(a->vision, "fullatt_block_indexes");
    uint64_t at, n = 0;
    *period = 8; /* what the class assumes */
    for (const struct json *j = json_first(list); j; j = json_next(j), n++) {
        if (!json_uint(j, &at) || at >= ARCH_MAX_LAYERS || (n > 0 && at + 1 != (n + 1) * *period))
            return err_set(
                e, ERR_UNSUPPORTED,
                "config.json: vision_config.fullatt_block_indexes: entry %llu breaks the period of "
                "the first; a file holds only every n-th layer",
                (unsigned long long)n);
        *period = n == 0 ? at + 1 : *period;
    }
    if (list && n == 0)
        return err_set(e, ERR_FORMAT,
                       "config.json: vision_config.fullatt_block_indexes is empty or not a list");
    return 0;
}

int tower_add_window_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    uint64_t period = 0;
    int rc = gguf_meta_set_bool(meta, "clip.use_silu", true, e);
    if (rc == 0)
        rc = window_period(a, &period, e);
    if (rc == 0)
        rc = tower_set_u32(meta, "clip.vision.n_wa_pattern", period, e);
    return rc != 0 ? rc : gguf_meta_set_f32(meta, "clip.vision.attention.layer_norm_epsilon", 1e-6f, e);
}

int tower_add_audio_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    double eps = 1e-5;
    json_number(json_get(a->audio, "layer_norm_eps"), &eps);
    int rc = tower_set_u32(meta, "clip.audio.num_mel_bins", a->value[ARCH_AM], e);
    return rc != 0 ? rc : gguf_meta_set_f32(meta, "clip.audio.attention.layer_norm_epsilon", (float)eps, e);
}

/* --- back from a file --- */

static bool is_word(const struct gguf_meta *meta, const char *key, const char *word)
{
    struct gguf_string s;
    bool there = gguf_meta_get_string(meta, key, &s);
    return word ? there && gguf_string_is(s, word) : !there;
}

static const struct tower *tower_of(const struct gguf_meta *meta)
{
    for (size_t i = 0; i < tower_count(); i++) {
        const struct tower *t = tower_at(i);
        if (t->projector ? is_word(meta, "clip.projector_type", t->projector)
                         : is_word(meta, "clip.vision.projector_type", t->vision_projector) &&
                               is_word(meta, "clip.audio.projector_type", t->audio_projector))
            return t;
    }
    return NULL;
}

static bool take(struct arch_model *a, enum arch_symbol symbol, const struct gguf_meta *meta, const char *key)
{
    a->known[symbol] = gguf_meta_get_u64(meta, key, &a->value[symbol]) && a->value[symbol] <= UINT32_MAX;
    return a->known[symbol];
}

/* Which of `n` keys is not there. */
static const char *take_all(struct arch_model *a, const struct key *keys, size_t n,
                            const struct gguf_meta *meta)
{
    const char *missing = NULL;
    for (size_t i = 0; i < n; i++)
        if (!take(a, keys[i].symbol, meta, keys[i].key) && !missing)
            missing = keys[i].key;
    return missing;
}

static void take_deepstack(struct arch_model *a, const struct gguf_meta *meta)
{
    const struct gguf_value *v = gguf_meta_find(meta, "clip.vision.is_deepstack_layers");
    if (!v || v->type != GGUF_ARRAY || v->a.elem != GGUF_BOOL)
        return;
    for (uint64_t i = 0; i < v->a.n && i < ARCH_MAX_LAYERS; i++)
        if (((const uint8_t *)v->a.data)[i])
            a->deepstack_layers[i / 64] |= (uint64_t)1 << (i % 64);
}

void tower_of_file(struct arch_model *out, const char **missing, const struct gguf_meta *meta)
{
    static const struct key vision[] = {
        {"clip.vision.projection_dim", ARCH_D},      {"clip.vision.projection_dim", ARCH_VO},
        {"clip.vision.patch_size", ARCH_VP},         {"clip.vision.embedding_length", ARCH_VD},
        {"clip.vision.block_count", ARCH_VN},        {"clip.vision.attention.head_count", ARCH_VH},
        {"clip.vision.feed_forward_length", ARCH_VF}};
    static const struct key audio[] = {
        {"clip.audio.projection_dim", ARCH_D},    {"clip.audio.projection_dim", ARCH_AO},
        {"clip.audio.embedding_length", ARCH_AD}, {"clip.audio.feed_forward_length", ARCH_AF},
        {"clip.audio.block_count", ARCH_AN},      {"clip.audio.attention.head_count", ARCH_AH},
        {"clip.audio.num_mel_bins", ARCH_AM}};
    const struct tower *t = tower_of(meta);
    *out = (struct arch_model){.arch = t ? &t->arch : NULL};
    *missing = NULL;
    if (t && t->vision_activation)
        *missing = take_all(out, vision, sizeof vision / sizeof *vision, meta);
    if (t && t->arch.audio_defaults && !*missing)
        *missing = take_all(out, audio, sizeof audio / sizeof *audio, meta);
    if (t && !take(out, ARCH_VM, meta, "clip.vision.spatial_merge_size")) {
        out->value[ARCH_VM] = 2;
        out->known[ARCH_VM] = true;
    }
    /* the key of Qwen2-VL is not this number, see the page of this room */
    out->known[ARCH_VF] = out->known[ARCH_VF] && t && strcmp(t->vision_activation, "quick_gelu") != 0;
    take(out, ARCH_GN, meta, "clip.gen.audio.block_count");
    take_deepstack(out, meta);
}
