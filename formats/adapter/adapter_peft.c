/* adapter_peft.c - a PEFT folder: adapter_config.json says how, adapter_model.safetensors what.
 *
 * Names are "base_model.model." and the path of a module, behind it ".lora_A.weight" and ".lora_B.weight",
 * for embeddings ".lora_embedding_A" and "_B", for DoRA ".lora_magnitude_vector"; some savers leave the name
 * of the adapter ("default") between. Everything else is a tensor of the base: as "X.weight", or as
 * "X.base_layer.weight" where X has factors as well. */
#include "adapter.h"

#include "formats/hf/hf_adapter.h"
#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/hf_names.h"
#include "formats/json.h"
#include "formats/recipe/pattern.h"
#include "libquant/base/strmap.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RANK_MAX (UINT64_C(1) << 31)

enum part { PART_A, PART_B, PART_EMBEDDING_A, PART_EMBEDDING_B, PART_MAGNITUDE, PART_WHOLE, PART_REFUSED };

static const struct {
    const char *word;
    enum part part;
} parts[] = {
    {".lora_A", PART_A},
    {".lora_B", PART_B},
    {".lora_embedding_A", PART_EMBEDDING_A},
    {".lora_embedding_B", PART_EMBEDDING_B},
    {".lora_magnitude_vector", PART_MAGNITUDE},
};

/* The components of `name` without those that PEFT puts around a module. */
static const char *without(const char *name, const char *word, struct arena *arena)
{
    size_t n = strlen(word);
    for (const char *at; name && (at = strstr(name, word)) != NULL && (at[n] == '.' || at[n] == '\0');)
        name = arena_printf(arena, "%.*s%s", (int)(at - name), name, at + n);
    return name;
}

/* What a stored tensor is; *module: the path in front of it, of a whole tensor its name. */
static enum part classify(const char *name, const char **module, struct arena *arena)
{
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *at = strstr(name, parts[i].word);
        size_t n = strlen(parts[i].word);
        if (!at || (at[n] != '.' && at[n] != '\0'))
            continue;
        size_t len = strlen(at);
        *module = without(arena_strndup(arena, name, (size_t)(at - name)), ".base_layer", arena);
        return len > 5 && strcmp(at + len - 5, ".bias") == 0 ? PART_REFUSED : parts[i].part;
    }
    *module = without(name, ".base_layer", arena);
    if (*module)
        *module = without(*module, ".modules_to_save.default", arena);
    if (*module)
        *module = without(*module, ".modules_to_save", arena);
    return *module && hf_name_is_adapter(*module) ? PART_REFUSED : PART_WHOLE;
}

static int refuse_part(const struct adapter *a, const char *name, struct err *e)
{
    const char *what = strstr(name, ".lora_B") ? "a bias of B (lora_bias)"
                       : strstr(name, "token_adapter") || strstr(name, "trainable_tokens")
                           ? "single trained tokens (trainable_token_indices)"
                       : strstr(name, "lora_E") ? "singular values (AdaLoRA)"
                                                : "part of a method other than LoRA";
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: tensor '%s': %s; merge the adapter with PEFT (merge_and_unload) and convert the "
                   "result",
                   a->file, name, what);
}

static int check_dtype(const struct adapter *a, const struct st_tensor *t, struct err *e)
{
    if (t->dtype == ST_F32 || t->dtype == ST_F16 || t->dtype == ST_BF16)
        return 0;
    return err_set(e, ERR_UNSUPPORTED, "%s: tensor '%s': %s, expected F32, F16 or BF16", a->file, t->name,
                   st_dtype_name(t->dtype));
}

/* --- numbers of single modules --- */

/* The value of the first key of `table` that is, as an expression, the module's path or the end of it. */
static int pattern_value(const struct json *table, const char *module, double fallback, double *out,
                         struct err *e)
{
    *out = fallback;
    for (const struct json *j = json_first(table); j; j = json_next(j)) {
        struct pattern *p = NULL;
        char text[600];
        bool fits = false;
        int n = snprintf(text, sizeof text, "(.*\\.)?(%s)", json_key(j));
        if (n < 0 || (size_t)n >= sizeof text)
            return err_set(e, ERR_FORMAT, HF_ADAPTER_NAME ": a pattern of %d bytes is too long", n);
        int rc = pattern_new(&p, text, (size_t)n, true, e);
        if (rc == 0)
            rc = pattern_test(&fits, p, module, e);
        pattern_free(p);
        if (rc != 0)
            return err_context(e, rc, HF_ADAPTER_NAME);
        if (!fits)
            continue;
        return json_number(j, out) && *out > 0 && isfinite(*out)
                   ? 0
                   : err_set(e, ERR_FORMAT,
                             HF_ADAPTER_NAME ": the value of pattern '%s' is not a positive number",
                             json_key(j));
    }
    return 0;
}

static int module_numbers(struct adapter *a, struct adapter_module *m, struct err *e)
{
    const struct json *root = json_root(a->config);
    uint64_t r = 0;
    double rank;
    if (!json_uint(json_get(root, "r"), &r) || r == 0 || r > RANK_MAX)
        return err_set(e, ERR_FORMAT, "%s/" HF_ADAPTER_NAME ": 'r' is not a positive integer up to %" PRIu64,
                       a->path, RANK_MAX);
    int rc = pattern_value(json_get(root, "rank_pattern"), m->name, (double)r, &rank, e);
    if (rc == 0)
        rc = pattern_value(json_get(root, "alpha_pattern"), m->name, a->alpha, &m->alpha, e);
    if (rc != 0)
        return rc;
    if (rank > (double)RANK_MAX || rank != floor(rank))
        return err_set(e, ERR_FORMAT,
                       "%s/" HF_ADAPTER_NAME ": rank_pattern gives module '%s' the rank %g, expected an "
                       "integer up to %" PRIu64,
                       a->path, m->name, rank, RANK_MAX);
    m->rank = (uint64_t)rank;
    return 0;
}

/* --- the list --- */

static int find_module(struct adapter_module **out, struct adapter *a, struct strmap *by_name,
                       const char *name, const char *shown, struct err *e)
{
    uint64_t i;
    if (!strmap_find(by_name, name, strlen(name), &i)) {
        i = a->n_modules;
        if (strmap_put(by_name, name, strlen(name), i, NULL) != 0)
            return adapter_no_memory(e);
        a->modules[a->n_modules++].name = shown;
    }
    *out = &a->modules[i];
    return 0;
}

static int put_part(struct adapter *a, struct adapter_module *m, enum part part, const struct st_tensor *t,
                    struct err *e)
{
    bool embedding = part == PART_EMBEDDING_A || part == PART_EMBEDDING_B;
    const struct st_tensor **slot = part == PART_MAGNITUDE                       ? &m->magnitude
                                    : part == PART_A || part == PART_EMBEDDING_A ? &m->a
                                                                                 : &m->b;
    if (*slot)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': '%s' is the same part of the same module", a->file,
                       t->name, (*slot)->name);
    *slot = t;
    m->embedding |= embedding;
    m->stored = t->name;
    return 0;
}

/* A module wrapped for two of its parameters has two pairs of factors: each is a module of its own, told
 * apart by what stands in front of the factors. */
static int add_tensor(struct adapter *a, struct strmap *by_name, const struct st_tensor *t, struct err *e)
{
    const char *name = hf_name_unwrap(t->name, &a->arena, NULL), *module = NULL;
    if (!name)
        return adapter_no_memory(e);
    enum part part = classify(name, &module, &a->arena);
    if (!module)
        return adapter_no_memory(e);
    if (part == PART_REFUSED)
        return refuse_part(a, t->name, e);
    int rc = check_dtype(a, t, e);
    if (rc != 0)
        return rc;
    if (part == PART_WHOLE) {
        a->tensors[a->n_tensors++] = (struct adapter_tensor){.name = module, .t = t};
        return 0;
    }
    struct adapter_module *m = NULL;
    char *key = arena_strndup(&a->arena, name, (size_t)(strstr(name, ".lora_") - name));
    rc = key ? find_module(&m, a, by_name, key, module, e) : adapter_no_memory(e);
    return rc == 0 ? put_part(a, m, part, t, e) : rc;
}

static int check_module(struct adapter *a, struct adapter_module *m, struct err *e)
{
    if (!m->a || !m->b)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': the other factor of module '%s' is missing", a->file,
                       m->stored, m->name);
    if (m->a->n_dims != 2 || m->b->n_dims != 2)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tensor '%s': a factor of %u dimensions, as convolutions have; merge the adapter "
                       "with PEFT (merge_and_unload) and convert the result",
                       a->file, m->a->name, m->a->n_dims);
    if (m->a->n_elems == 0 || m->a->shape[0] != m->b->shape[1])
        return err_set(e, ERR_FORMAT,
                       "%s: module '%s': A is [%" PRIu64 ", %" PRIu64 "], B is [%" PRIu64 ", %" PRIu64
                       "]: the rank differs or is 0",
                       a->file, m->name, m->a->shape[0], m->a->shape[1], m->b->shape[0], m->b->shape[1]);
    if (m->magnitude && m->embedding)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: module '%s': DoRA of an embedding; merge the adapter with PEFT "
                       "(merge_and_unload) and convert the result",
                       a->file, m->name);
    return module_numbers(a, m, e);
}

static int read_tensors(struct adapter *a, struct err *e)
{
    struct strmap by_name = {0};
    size_t n = safetensors_n_tensors(a->safetensors);
    a->modules = arena_array(&a->arena, n + 1, sizeof *a->modules);
    a->tensors = arena_array(&a->arena, n + 1, sizeof *a->tensors);
    int rc = a->modules && a->tensors ? 0 : adapter_no_memory(e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = add_tensor(a, &by_name, safetensors_tensor(a->safetensors, i), e);
    for (size_t i = 0; rc == 0 && i < a->n_modules; i++)
        rc = check_module(a, &a->modules[i], e);
    strmap_release(&by_name);
    if (rc == 0 && n == 0)
        rc = err_set(e, ERR_FORMAT, "%s: the adapter has no tensors", a->file);
    return rc;
}

/* --- adapter_config.json --- */

/* Initialisations that take something off the base weights: A and B belong to what is left of them. */
static int check_init(const struct adapter *a, const struct json *root, struct err *e)
{
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal", "true", "false"};
    const char *init = json_string(json_get(root, "init_lora_weights"));
    for (size_t i = 0; init && i < sizeof harmless / sizeof *harmless; i++)
        if (strcmp(init, harmless[i]) == 0)
            return 0;
    return init ? err_set(e, ERR_UNSUPPORTED,
                          "%s/" HF_ADAPTER_NAME
                          ": init_lora_weights '%.40s' changes the base weights; save the adapter as plain "
                          "LoRA (path_initial_model_for_weight_conversion of PEFT)",
                          a->path, init)
                : 0;
}

static int read_config(struct adapter *a, struct err *e)
{
    const struct json *root = json_root(a->config);
    const char *kind = json_string(json_get(root, "peft_type"));
    static const char *const others[] = {"use_qalora", "use_bdlora"};
    if (!kind || strcmp(kind, "LORA") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s/" HF_ADAPTER_NAME ": peft_type '%.40s', expected 'LORA'; merge the adapter with "
                       "PEFT (merge_and_unload) and convert the result",
                       a->path, kind ? kind : "");
    for (size_t i = 0; i < 2; i++) {
        const struct json *j = json_get(root, others[i]);
        bool on = false;
        if (json_bool(j, &on) ? on : j && !json_is_null(j))
            return err_set(e, ERR_UNSUPPORTED,
                           "%s/" HF_ADAPTER_NAME ": '%s' is on, which is not plain LoRA; merge the adapter "
                           "with PEFT (merge_and_unload) and convert the result",
                           a->path, others[i]);
    }
    if (!json_number(json_get(root, "lora_alpha"), &a->alpha) || !(a->alpha > 0) || !isfinite(a->alpha))
        return err_set(e, ERR_FORMAT, "%s/" HF_ADAPTER_NAME ": 'lora_alpha' is not a positive number",
                       a->path);
    const struct json *invocation = json_get(root, "alora_invocation_tokens");
    if (json_n_children(invocation) != 0)
        a->invocation = invocation;
    json_bool(json_get(root, "use_rslora"), &a->rslora);
    json_bool(json_get(root, "ensure_weight_tying"), &a->ties_weights);
    a->base = json_string(json_get(root, "base_model_name_or_path"));
    if (a->base && !a->base[0])
        a->base = NULL;
    return check_init(a, root, e);
}

int adapter_open_peft(struct adapter *a, struct err *e)
{
    char *config = hf_path(a->path, HF_ADAPTER_NAME), *file = hf_path(a->path, "adapter_model.safetensors");
    int rc = config && file && (a->file = arena_strdup(&a->arena, file)) ? 0 : adapter_no_memory(e);
    if (rc == 0 && !hf_file_exists(a->path, HF_ADAPTER_NAME))
        rc = err_set(e, ERR_IO, "%s: does not exist, so the folder is not an adapter", config);
    if (rc == 0 && !hf_file_exists(a->path, "adapter_model.safetensors"))
        rc = hf_file_exists(a->path, "adapter_model.bin")
                 ? err_set(e, ERR_UNSUPPORTED,
                           "%s: only adapter_model.bin, a pickle; load and save the adapter with PEFT, which "
                           "writes safetensors",
                           a->path)
                 : err_set(e, ERR_IO, "%s: does not exist", file);
    if (rc == 0)
        rc = json_load_python(&a->config, config, 1u << 20, e);
    if (rc == 0)
        rc = read_config(a, e);
    if (rc == 0)
        rc = safetensors_open(&a->safetensors, a->file, e);
    if (rc == 0)
        rc = read_tensors(a, e);
    free(config);
    free(file);
    return rc;
}
