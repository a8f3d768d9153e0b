/* hf_folder.h - the folder a person names: where its checkpoint lies, what the model is called, and what the
 * folder is when it is no checkpoint. */
#ifndef KERF_HF_FOLDER_H
#define KERF_HF_FOLDER_H

#include "libquant/base/err.h"

/* *out: the folder with the checkpoint. That is `path`, but of a model's folder in the cache of HuggingFace
 * (models--ORG--NAME) the snapshot that refs/main names, or the only one there is. Caller frees with free().
 * ERR_FORMAT: refs/main names no snapshot that is there; ERR_NOMEM. */
int hf_folder_find(char **out, const char *path, struct err *e);

/* *out: what the model is called: the folder's last component; "ORG/NAME" for a snapshot of the cache; ""
 * when there is only a hash. Always UTF-8: other bytes are left out. Caller frees with free(). ERR_NOMEM. */
int hf_folder_name(char **out, const char *folder, struct err *e);

/* The error for a folder without config.json: says what it holds instead. */
int hf_folder_refuse(const char *folder, struct err *e);

#endif
