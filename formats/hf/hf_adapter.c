/* hf_adapter.c - see hf_adapter.h. The file is only asked for words: one that cannot be read is still an
 * adapter's. */
#include "hf_adapter.h"

#include "hf_checkpoint.h"

#include "formats/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void hf_adapter_describe(char *out, size_t cap, const char *folder)
{
    struct json_doc *doc = NULL;
    char *path = hf_path(folder, HF_ADAPTER_NAME), rank[40] = "";
    if (path)
        json_load_python(&doc, path, 1u << 20, NULL);
    const struct json *root = doc ? json_root(doc) : NULL;
    const char *kind = json_string(json_get(root, "peft_type"));
    const char *base = json_string(json_get(root, "base_model_name_or_path"));
    uint64_t r;
    if (json_uint(json_get(root, "r"), &r))
        snprintf(rank, sizeof rank, " of rank %" PRIu64, r);
    snprintf(out, cap, "a%s%.30s adapter%s%s%.120s%s", kind ? " " : " PEFT", kind ? kind : "", rank,
             base ? " for '" : "", base ? base : "", base ? "'" : "");
    json_free(doc);
    free(path);
}

int hf_adapter_refuse(const char *folder, struct err *e)
{
    char what[240];
    hf_adapter_describe(what, sizeof what, folder);
    return err_set(
        e, ERR_UNSUPPORTED,
        "%s: this is %s, not a model; merge it into its base model ('kerf convert BASE --lora %s'), or "
        "write it as an adapter file for the runtime ('kerf convert %s --base BASE')",
        folder, what, folder, folder);
}
