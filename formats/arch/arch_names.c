/* arch_names.c - tensor names: patterns, prefixes, and what is left out (specification, architectures 0.3,
 * 0.7, 0.8). */
#include "arch.h"

#include "libquant/base/path.h"

#include <string.h>

/* A path component that is a decimal index without leading zeros; at most 6 digits. */
static bool parse_index(const char *s, size_t len, uint64_t *out)
{
    if (len == 0 || len > 6 || (len > 1 && s[0] == '0'))
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        v = 10 * v + (uint64_t)(s[i] - '0');
    }
    *out = v;
    return true;
}

bool arch_match(const char *pattern, const char *name, uint64_t *layer, uint64_t *expert)
{
    for (;;) {
        size_t p = strcspn(pattern, "."), n = strcspn(name, ".");
        if (p == 1 && (*pattern == 'N' || *pattern == 'J')) {
            uint64_t index, *out = *pattern == 'N' ? layer : expert;
            if (!parse_index(name, n, &index))
                return false;
            if (out)
                *out = index;
        } else if (p != n || memcmp(pattern, name, p) != 0) {
            return false;
        }
        if (pattern[p] != name[n])
            return false;
        if (pattern[p] == '\0')
            return true;
        pattern += p + 1;
        name += n + 1;
    }
}

const char *arch_name_of(const char *pattern, uint64_t layer, struct arena *arena)
{
    const char *n = strstr(pattern, ".N.");
    if (!n)
        return pattern;
    return arena_printf(arena, "%.*s.%llu.%s", (int)(n - pattern), pattern, (unsigned long long)layer, n + 3);
}

static bool starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* A name that starts at a part of the backbone comes from a checkpoint of the bare backbone (rule 3): no
 * other family uses these roots, so the class name need not be asked. */
static bool lacks_model_prefix(const char *name)
{
    return starts_with(name, "layers.") || starts_with(name, "embed_tokens.") ||
           strcmp(name, "norm.weight") == 0;
}

const char *arch_strip(const struct arch_model *a, const char *name, struct arena *arena)
{
    static const char infix[] = "language_model.";
    if (starts_with(name, "thinker."))
        name += strlen("thinker.");
    for (const char *at; (at = strstr(name, infix)) != NULL;) {
        name = arena_printf(arena, "%.*s%s", (int)(at - name), name, at + strlen(infix));
        if (!name)
            return NULL;
    }
    if (lacks_model_prefix(name)) {
        name = arena_printf(arena, "model.%s", name);
        if (!name)
            return NULL;
    }
    if (starts_with(name, "model.mtp."))
        name += strlen("model.");
    return a->arch->rename ? a->arch->rename(a, name, arena) : name;
}

bool arch_is_behind(const struct arch_model *a, const char *stripped, uint64_t *block)
{
    uint64_t n = 0;
    unsigned layer;
    if (!(a->arch->quirks & ARCH_MTP_LAYERS) || sscanf(stripped, "model.layers.%6u.", &layer) != 1 ||
        !hf_config_uint(a->config, "num_nextn_predict_layers", &n, NULL) || layer < a->value[ARCH_L] ||
        layer - a->value[ARCH_L] >= n)
        return false;
    *block = layer - a->value[ARCH_L];
    return true;
}

const char *arch_drop_reason(const char *name)
{
    static const char *const buffers[] = {
        ".inv_freq",   ".original_inv_freq",     ".cos_cached",     ".sin_cached",       "freqs_cis",
        "rope.freqs",  ".attention.masked_bias", ".attention.bias", ".attn.masked_bias", "position_ids",
        "_extra_state"};
    static const char *const trainers[] = {"v_head.", "value_head.", "critic_head."};
    static const char *const modalities[] = {"visual.", "vision_",    "vision.",     "audio_tower.",
                                             "audio_",  "merger.",    "patch_embed", "multi_modal_projector.",
                                             "talker.", "token2wav.", "code2wav.",   "transformer.audio."};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (path_ends_with(name, buffers[i]))
            return "a buffer that is computed, not a weight";
    for (size_t i = 0; i < sizeof trainers / sizeof *trainers; i++)
        if (starts_with(name, trainers[i]))
            return "the value head of a trainer";
    for (size_t i = 0; i < sizeof modalities / sizeof *modalities; i++)
        if (strstr(name, modalities[i]))
            return "other modality";
    return NULL;
}

bool arch_always_f32(const char *gguf_name, uint32_t n_dims)
{
    static const char *const names[] = {"_norm.weight", ".ffn_gate_inp.weight", ".ffn_gate_inp_shexp.weight",
                                        ".ssm_conv1d.weight"};
    if (n_dims <= 1 || !path_ends_with(gguf_name, ".weight"))
        return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (path_ends_with(gguf_name, names[i]))
            return true;
    return false;
}
