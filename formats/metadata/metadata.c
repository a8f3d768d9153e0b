/* metadata.c - the metadata of a folder: general keys, those of the architecture, pooling, tokenizer. */
#include "metadata.h"

#include "formats/model/rerank.h"

#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/hf_folder.h"
#include "formats/tokenizer/vocabulary.h"
#include "formats/tower/tower.h"
#include "libquant/base/filemap.h"
#include "libquant/base/path.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory collecting metadata");
}

/* "Qwen3-8B_config.json" is Qwen3-8B; a plain config.json is called as its folder. */
static int config_name(char **out, const char *path, struct err *e)
{
    static const char tail[] = "config.json";
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    size_t n = strlen(file), k = sizeof tail - 1;
    if (strcmp(file, tail) == 0) {
        char *folder = path_folder(path);
        int rc = folder ? hf_folder_name(out, folder, e) : no_memory(e);
        free(folder);
        return rc;
    }
    if (n > k && strcmp(file + n - k, tail) == 0)
        n -= k;
    else if (n > 5 && strcmp(file + n - 5, ".json") == 0)
        n -= 5;
    while (n > 1 && strchr("._-", file[n - 1]))
        n--;
    *out = strndup(file, n);
    return *out ? 0 : no_memory(e);
}

static int add_general(struct gguf_meta *meta, const char *folder, const char *path, const char *name_or_path,
                       const struct metadata_sizes *sizes, const struct arch_warnings *w, struct err *e)
{
    struct json_doc *generation = NULL;
    struct filemap readme = {0};
    char *generation_path = NULL, *readme_path = NULL, *name = NULL;
    struct err soft = {0};
    int rc = folder ? hf_folder_name(&name, folder, e) : config_name(&name, path, e);
    if (rc == 0 && folder && hf_file_exists(folder, "generation_config.json")) {
        generation_path = hf_path(folder, "generation_config.json");
        rc = generation_path ? 0 : no_memory(e);
    }
    if (rc == 0 && folder && hf_file_exists(folder, "README.md")) {
        readme_path = hf_path(folder, "README.md");
        rc = readme_path ? filemap_open(&readme, readme_path, e) : no_memory(e);
    }
    if (rc == 0 && generation_path && json_load_python(&generation, generation_path, 1u << 20, &soft) != 0) {
        /* A file of advice: not worth losing a conversion. */
        char text[600];
        snprintf(text, sizeof text, "[generation-config] %s; no sampling defaults are taken from it",
                 soft.msg);
        rc = soft.code == ERR_NOMEM ? no_memory(e) : w->add(w->ctx, text, e);
    }
    if (rc == 0)
        rc = metadata_general(meta, (const char *)readme.data, readme.size, json_root(generation),
                              name_or_path, name, sizes, w, e);
    filemap_close(&readme);
    json_free(generation);
    free(generation_path);
    free(readme_path);
    free(name);
    return rc;
}

/* Pooling of sentence-transformers folders (specification, architectures 11.2): 1 mean, 2 first token, 3 last
 * token. Older files have a flag for each mode, newer ones a word or a list of words. *n_modes: how many are
 * on; the answer is one of them, 0 when GGUF has no such mode. */
static uint32_t pooling_of(const char *mode)
{
    static const char *const modes[] = {"mean_tokens", "cls_token", "lasttoken", "mean", "cls", "lasttoken"};
    for (uint32_t i = 0; i < 6; i++)
        if (mode && strcmp(mode, modes[i]) == 0)
            return i % 3 + 1;
    return 0;
}

static uint32_t pooling_type(const struct json *pooling, size_t *n_modes)
{
    static const char flag[] = "pooling_mode_";
    const struct json *mode = json_get(pooling, "pooling_mode");
    uint32_t type = 0;
    bool on;
    *n_modes = 0;
    for (const struct json *j = json_first(pooling); j; j = json_next(j)) {
        if (strncmp(json_key(j), flag, sizeof flag - 1) != 0 || !json_bool(j, &on) || !on)
            continue;
        type = pooling_of(json_key(j) + sizeof flag - 1);
        ++*n_modes;
    }
    if (*n_modes != 0)
        return type;
    if (json_is_array(mode)) {
        *n_modes = json_n_children(mode);
        mode = json_first(mode);
    } else {
        *n_modes = mode != NULL;
    }
    return pooling_of(json_string(mode));
}

/* The path of the first module whose type ends in "Pooling"; NULL when there is none, or it has no path. */
static const char *pooling_path(const struct json *modules)
{
    for (const struct json *m = json_first(modules); m; m = json_next(m)) {
        const char *type = json_string(json_get(m, "type"));
        if (type && path_ends_with(type, "Pooling"))
            return json_string(json_get(m, "path"));
    }
    return NULL;
}

/* What the pipeline of sentence-transformers computes besides: projections that no tensor of the file holds.
 */
static int warn_of_modules(const struct json *modules, const char *path, const struct arch_warnings *w,
                           struct err *e)
{
    static const char *const known[] = {"Transformer", "Pooling", "Normalize"};
    int rc = 0;
    for (const struct json *m = json_first(modules); rc == 0 && m; m = json_next(m)) {
        const char *type = json_string(json_get(m, "type"));
        bool expected = !type;
        for (size_t i = 0; !expected && i < 3; i++)
            expected = path_ends_with(type, known[i]);
        char text[600];
        snprintf(text, sizeof text,
                 "[module-left-out] %.250s: module '%.200s' is not converted: embeddings are those before it",
                 path, type ? type : "");
        if (!expected)
            rc = w->add(w->ctx, text, e);
    }
    return rc;
}

/* Without a pooling the file is read as a language model, which is not what a folder with modules.json is. A
 * score head says by itself what is made of the states. */
static int warn_of_no_pooling(const char *path, const struct arch_model *a, const struct arch_warnings *w,
                              struct err *e)
{
    char text[600];
    if (a->answer != ARCH_TOKENS)
        return 0;
    if (a->arch->quirks & ARCH_POOLING)
        snprintf(text, sizeof text,
                 "[no-pooling] %.250s: no module of a type that ends in 'Pooling' has a path: no pooling is "
                 "written, so the file is one of a language model and gives no embeddings",
                 path);
    else
        snprintf(text, sizeof text,
                 "[no-pooling] %.250s: pooling cannot be written for architecture '%.60s': the file is one "
                 "of a language model and gives no embeddings",
                 path, a->arch->name);
    return w->add(w->ctx, text, e);
}

/* Does general.tags say that the model makes embeddings? */
static bool is_tagged(const struct gguf_meta *meta)
{
    static const char *const tags[] = {"sentence-similarity", "feature-extraction", "sentence-transformers"};
    const struct gguf_value *v = gguf_meta_find(meta, "general.tags");
    struct gguf_string s;
    for (uint64_t i = 0; v && v->type == GGUF_ARRAY && i < v->a.n; i++)
        for (size_t k = 0; gguf_array_string(v, i, &s) && k < 3; k++)
            if (gguf_string_is(s, tags[k]))
                return true;
    return false;
}

/* A backbone without head, or a model that calls itself one of embeddings, but no modules.json: merging and
 * saving again loses it. */
static int warn_of_lost_pooling(const struct gguf_meta *meta, const char *folder, const struct arch_model *a,
                                const struct arch_warnings *w, struct err *e)
{
    const char *class_name = hf_config_architecture(a->config);
    char *name = NULL, text[600];
    if (a->answer != ARCH_TOKENS)
        return 0;
    int rc = hf_folder_name(&name, folder, e);
    if (rc != 0)
        return rc;
    bool backbone = path_ends_with(class_name, "Model") && !path_ends_with(class_name, "OmniModel");
    bool named = strstr(name, "mbedding") != NULL;
    snprintf(text, sizeof text,
             "[no-pooling] %.250s: %s%.60s%s, but there is no modules.json: no pooling is written, so the "
             "file is one of a language model and gives no embeddings; take modules.json and 1_Pooling from "
             "the model it comes from",
             folder, backbone ? "class '" : "this is named a model of embeddings", backbone ? class_name : "",
             backbone ? "' is a model without head" : "");
    if (backbone || named || is_tagged(meta))
        rc = w->add(w->ctx, text, e);
    free(name);
    return rc;
}

static int add_pooling(struct gguf_meta *meta, const char *folder, const struct arch_model *a,
                       const struct arch_warnings *w, struct err *e)
{
    struct json_doc *modules = NULL, *pooling = NULL;
    char *path = NULL, *sub = NULL, *config = NULL;
    uint32_t type;
    size_t n_modes;
    if (!folder || !hf_file_exists(folder, "modules.json"))
        return folder ? warn_of_lost_pooling(meta, folder, a, w, e) : 0;
    path = hf_path(folder, "modules.json");
    int rc = path ? json_load_python(&modules, path, 1u << 20, e) : no_memory(e);
    if (rc == 0)
        rc = warn_of_modules(json_root(modules), path, w, e);
    if (rc != 0)
        goto done;
    const char *name = a->arch->quirks & ARCH_POOLING ? pooling_path(json_root(modules)) : NULL;
    if (!name) {
        rc = warn_of_no_pooling(path, a, w, e);
        goto done;
    }
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') || strchr(name, '\\')) {
        rc =
            err_set(e, ERR_FORMAT, "%s: pooling path '%s' is not the name of a folder beside it", path, name);
        goto done;
    }
    sub = hf_path(folder, name);
    config = sub ? hf_path(sub, "config.json") : NULL;
    rc = config ? json_load_python(&pooling, config, 1u << 20, e) : no_memory(e);
    if (rc != 0)
        goto done;
    type = pooling_type(json_root(pooling), &n_modes);
    if (n_modes > 1)
        rc = err_set(e, ERR_UNSUPPORTED,
                     "%s: %zu pooling modes at once, whose results are joined; a GGUF file has one", config,
                     n_modes);
    else if (type == 0)
        rc = err_set(e, ERR_UNSUPPORTED, "%s: only mean, cls and lasttoken pooling can be written", config);
    else
        rc = arch_set_u32(a, meta, "pooling_type", type, e);
done:
    json_free(pooling);
    json_free(modules);
    free(config);
    free(sub);
    free(path);
    return rc;
}

static int begin_keys(struct gguf_meta *meta, const char *architecture, const char *type, struct err *e)
{
    int rc = gguf_meta_set_string(meta, "general.architecture", architecture, e);
    return rc == 0 ? gguf_meta_set_string(meta, "general.type", type, e) : rc;
}

/* Version 2 of the layouts of blocks is the one that runtimes read. */
static int add_layout_version(struct gguf_meta *meta, struct err *e)
{
    return gguf_meta_set_u32(meta, "general.quantization_version", 2, e);
}

/* What the config says the model is called, or NULL. */
static const char *name_or_path(const struct arch_model *a)
{
    return json_string(json_get(hf_config_root(a->config), "_name_or_path"));
}

int metadata_from_folder(struct gguf_meta *meta, const char *folder, const char *path,
                         const struct arch_model *a, const struct vocabulary *vocabulary,
                         const struct metadata_sizes *sizes, const struct arch_warnings *w, struct err *e)
{
    int rc = begin_keys(meta, a->arch->name, "model", e);
    if (rc == 0)
        rc = add_general(meta, folder, path, name_or_path(a), sizes, w, e);
    if (rc == 0)
        rc = arch_add_common_keys(a, meta, w, e);
    if (rc == 0)
        rc = gguf_meta_set_u32(meta, "general.file_type", sizes->file_type, e);
    if (rc == 0)
        rc = arch_add_own_keys(a, meta, w, e);
    if (rc == 0)
        rc = add_pooling(meta, folder, a, w, e);
    if (rc == 0)
        rc = rerank_add_keys(a, meta, folder, e);
    if (rc == 0)
        rc = add_layout_version(meta, e);
    if (rc == 0 && vocabulary)
        rc = vocabulary_to_gguf(vocabulary, meta, e);
    if (rc == 0 && vocabulary && a->arch->after_vocabulary)
        rc = a->arch->after_vocabulary(a, vocabulary, meta, e);
    return rc;
}

int metadata_without_vocabulary(struct gguf_meta *meta, const struct arch_model *a, struct err *e)
{
    int rc = arch_set_u32(a, meta, "vocab_size", (uint32_t)a->value[ARCH_V], e);
    return rc == 0 ? gguf_meta_set_string(meta, "tokenizer.ggml.model", "none", e) : rc;
}

int metadata_of_adapter(struct gguf_meta *meta, const char *folder, const char *architecture, double alpha,
                        const uint32_t *tokens, size_t n_tokens, const struct arch_warnings *w, struct err *e)
{
    const struct metadata_sizes none = {.total = 0};
    int rc = begin_keys(meta, architecture, "adapter", e);
    if (rc == 0)
        rc = gguf_meta_set_string(meta, "adapter.type", "lora", e);
    if (rc == 0)
        rc = add_general(meta, folder, folder, NULL, &none, w, e);
    if (rc == 0)
        rc = gguf_meta_set_f32(meta, "adapter.lora.alpha", (float)alpha, e);
    if (rc == 0 && n_tokens)
        rc = gguf_meta_set_array(meta, "adapter.alora.invocation_tokens", GGUF_U32, tokens, n_tokens, e);
    return rc == 0 ? add_layout_version(meta, e) : rc;
}

int metadata_of_towers(struct gguf_meta *meta, const char *folder, const char *path,
                       const struct arch_model *a, const struct metadata_sizes *sizes,
                       const struct arch_warnings *w, struct err *e)
{
    int rc = begin_keys(meta, a->arch->name, "mmproj", e);
    if (rc == 0)
        rc = add_general(meta, folder, path, name_or_path(a), sizes, w, e);
    if (rc == 0)
        rc = tower_add_keys(a, folder, sizes->file_type, meta, w, e);
    return rc == 0 ? add_layout_version(meta, e) : rc;
}
