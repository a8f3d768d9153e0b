/* hf_config_internal.h - the object shared by hf_config.c and hf_rope.c; nobody else includes it. */
#ifndef KERF_HF_CONFIG_INTERNAL_H
#define KERF_HF_CONFIG_INTERNAL_H

#include "hf_config.h"

struct hf_config {
    struct json_doc *doc;
    char *what;                     /* opens messages */
    const struct json *root, *text; /* the same object when nothing is nested */
    const char *architecture, *model_type;
};

#endif
