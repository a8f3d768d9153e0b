/* hf_config.h - config.json as one flat object: nested text configs overlaid, class defaults known, RoPE
 * parameters in one form. Specification, architectures 0.4 to 0.6. */
#ifndef KERF_HF_CONFIG_H
#define KERF_HF_CONFIG_H

#include "formats/json.h"

struct hf_config;

/* Read <folder>/config.json (at most 16 MiB). *out: caller frees with hf_config_free. A config is immutable,
 * so threads may share it. */
int hf_config_load(struct hf_config **out, const char *folder, struct err *e);
int hf_config_load_file(struct hf_config **out, const char *path, struct err *e); /* whatever its name */
int hf_config_parse(struct hf_config **out, const char *text, size_t len, const char *what, struct err *e);
void hf_config_free(struct hf_config *c);

const char *hf_config_architecture(const struct hf_config *c); /* dispatch class name; "" when absent */
const char *hf_config_model_type(const struct hf_config *c);   /* of the text part; "" when absent */
const struct json *hf_config_root(const struct hf_config *c);

/* The value of `key`: text config, then root; NULL when the file does not state it (or states null). A null
 * in the text config hides a value of the root. */
const struct json *hf_config_get(const struct hf_config *c, const char *key);
const char *hf_config_string(const struct hf_config *c, const char *key); /* NULL: absent or no string */

/* The same with the class default of the model_type as a fallback. *present (may be NULL): stated by the
 * file. False when neither exists, or the value is of another kind (then *present is true). An explicit null
 * is a statement of absence (`"sliding_window": null`): no default replaces it, and *present is false.
 * rope_theta and partial_rotary_factor: ask hf_config_rope, which knows both layouts. */
bool hf_config_uint(const struct hf_config *c, const char *key, uint64_t *out, bool *present);
bool hf_config_number(const struct hf_config *c, const char *key, double *out, bool *present);
bool hf_config_bool(const struct hf_config *c, const char *key, bool *out, bool *present);

enum rope_type {
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_YARN,
    ROPE_LLAMA3,
    ROPE_DYNAMIC,
    ROPE_LONGROPE,
    ROPE_UNKNOWN
};

/* Specification, architectures 0.5: `rope_parameters` (transformers 5) or `rope_scaling` with top-level keys
 * (transformers 4). `default` and `mrope` are ROPE_DEFAULT, `su` and `longrope` are ROPE_LONGROPE.
 * A field that the config does not state has its `has_` flag false and value 0. */
struct hf_rope {
    enum rope_type type;
    const char *type_name; /* as the file spells it, "default" when it does not; borrowed from the config */
    double theta;          /* 1e4 when neither the file nor the class knows */
    double partial_rotary_factor; /* 1 when not stated and the class has none */
    bool has_factor, has_original_context, has_extrapolation_factor, has_attention_factor, has_beta_fast,
        has_beta_slow, has_low_freq_factor, has_high_freq_factor, has_truncate;
    double factor, extrapolation_factor, attention_factor, beta_fast, beta_slow, low_freq_factor,
        high_freq_factor;
    uint64_t original_context;
    bool truncate; /* true when not stated */
    /* Arrays of ROPE_LONGROPE, as they stand in the file; NULL: not stated. Borrowed from the config. */
    const struct json *short_factor, *long_factor;
    uint32_t n_mrope_sections; /* 0: none; at most 4 */
    int32_t mrope_sections[4];
};

/* ERR_FORMAT names the key: a value of the wrong kind, a theta or factor that is not positive and finite, a
 * partial_rotary_factor outside (0, 1], more than 4 sections. */
int hf_config_rope(const struct hf_config *c, struct hf_rope *out, struct err *e);

/* Effective tie_word_embeddings flag: root, then text config, then class default. */
bool hf_config_tied(const struct hf_config *c);

#endif
