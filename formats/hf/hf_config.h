/* hf_config.h - config.json as one flat object: nested text configs overlaid, class defaults known, RoPE
 * parameters in one form. Specification, architectures 0.4 to 0.6. */
#ifndef KERF_HF_CONFIG_H
#define KERF_HF_CONFIG_H

#include "formats/json.h"

struct hf_config;

/* Read <folder>/config.json. *out: caller frees with hf_config_free. */
int hf_config_load(struct hf_config **out, const char *folder, struct err *e);
int hf_config_parse(struct hf_config **out, const char *text, size_t len, const char *what, struct err *e);
void hf_config_free(struct hf_config *c);

const char *hf_config_architecture(const struct hf_config *c); /* dispatch class name; "" when absent */
const char *hf_config_model_type(const struct hf_config *c);   /* of the text part; "" when absent */
const struct json *hf_config_root(const struct hf_config *c);

/* The value of `key`: text config, then root; NULL when the file does not state it (or states null). */
const struct json *hf_config_get(const struct hf_config *c, const char *key);

/* The same with the class default of the model_type as a fallback. *present (may be NULL): stated by the
 * file. False when neither exists, or the value is of another kind (then *present is true). */
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

/* A field that the config does not state has its `has_` flag false and value 0. */
struct hf_rope {
    enum rope_type type;
    const char *type_name;
    double theta;
    double partial_rotary_factor; /* 1 when not stated and the class has none */
    bool has_factor, has_original_context, has_extrapolation_factor, has_attention_factor, has_beta_fast,
        has_beta_slow, has_low_freq_factor, has_high_freq_factor, has_truncate;
    double factor, extrapolation_factor, attention_factor, beta_fast, beta_slow, low_freq_factor,
        high_freq_factor;
    uint64_t original_context;
    bool truncate;
    uint32_t n_mrope_sections; /* 0: none; at most 4 */
    int32_t mrope_sections[4];
};

int hf_config_rope(const struct hf_config *c, struct hf_rope *out, struct err *e);

/* Effective tie_word_embeddings flag: root, then text config, then class default. */
bool hf_config_tied(const struct hf_config *c);

#endif
