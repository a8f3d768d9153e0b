/* hf_class_defaults.h - what a HuggingFace configuration class assumes for keys that config.json does not
 * state. Inside formats/hf; others ask hf_config. */
#ifndef KERF_HF_CLASS_DEFAULTS_H
#define KERF_HF_CLASS_DEFAULTS_H

#include <stdbool.h>

enum hf_default_kind { HF_DEFAULT_UINT, HF_DEFAULT_NUMBER, HF_DEFAULT_BOOL };

/* The default of `key` for the text class `model_type`; false when the class has none. */
bool hf_class_default(const char *model_type, const char *key, enum hf_default_kind *kind, double *value);

#endif
