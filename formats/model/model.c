/* model.c - the part of model.h that does not depend on where the model came from.
 *
 * A folder goes to model_hf.c, a file to model_gguf.c; both fill the same table. */
#include "model.h"

#include "model_internal.h"
#include "tensor_name.h"

#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"
#include "formats/hf/hf_folder.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/path.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int model_out_of_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory while opening the model");
}

int model_add_line(struct model *m, struct string_list *lines, struct err *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(lines, &m->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : model_out_of_memory(e);
}

int model_index(struct model *m, struct err *e)
{
    strmap_clear(&m->by_name);
    if (strmap_reserve(&m->by_name, m->n_tensors) != 0)
        return model_out_of_memory(e);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const char *name = m->tensors[i]->name;
        bool existing;
        if (strmap_put(&m->by_name, name, strlen(name), i, &existing) != 0)
            return model_out_of_memory(e);
        if (existing)
            return err_set(e, ERR_FORMAT, "%s: duplicate tensor '%s'", m->path, name);
    }
    return 0;
}

/* "ORG/NAME", as the hub of HuggingFace calls a repository, and no folder ORG here. */
static bool is_hub_name(const char *path)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    const char *slash = strchr(path, '/'), *dot = strrchr(path, '.');
    struct stat st;
    if (!slash || slash == path || !isalnum((unsigned char)path[0]) || !slash[1] ||
        strspn(path, letters) != (size_t)(slash - path) || slash[1 + strspn(slash + 1, letters)] ||
        (dot && (strcmp(dot, ".gguf") == 0 || strcmp(dot, ".safetensors") == 0)))
        return false;
    char folder[128];
    return (size_t)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path) < sizeof folder &&
           stat(folder, &st) != 0;
}

/* Nothing stands at the path: one part of a split model, a name of the hub, or a slip. */
static int missing(const char *path, struct err *e)
{
    if (is_hub_name(path))
        return err_set(e, ERR_IO,
                       "%s: no such file or folder; kerf does not download: huggingface-cli download %s "
                       "--local-dir %s, then give that folder",
                       path, path, strchr(path, '/') + 1);
    return gguf_split_missing(path, err_set_open(e, path, ENOENT), e);
}

/* A path a person gave: say what it is not, before a reader complains about its first bytes. */
static int open_kind(struct model *m, const char *path, const struct model_options *opt, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errno == ENOENT ? missing(path, e) : err_set_open(e, path, errno);
    if (access(path, R_OK) != 0)
        return err_set_open(e, path, errno);
    if (S_ISDIR(st.st_mode))
        return model_open_hf(m, path, opt, e);
    const char *dot = strrchr(path, '.');
    bool is_gguf = gguf_is_gguf_file(path) || (dot && strcmp(dot, ".gguf") == 0);
    if (is_gguf && opt->n_skip_tensors != 0)
        return err_set(e, ERR_ARG, "%s: --skip-tensor is for checkpoints; a GGUF file is taken whole", path);
    if (is_gguf && opt->towers)
        return err_set(e, ERR_ARG, "%s: --mmproj is for checkpoints: a GGUF file has no other towers", path);
    if (is_gguf && opt->vocabulary == MODEL_VOCABULARY_NONE)
        return err_set(e, ERR_ARG, "%s: --no-vocab is for checkpoints; a GGUF file keeps what it has", path);
    if (is_gguf)
        return model_open_gguf(m, path, opt, e);
    if (dot && strcmp(dot, ".safetensors") == 0)
        return err_set(e, ERR_ARG,
                       "%s: a single safetensors file is not a model; give the folder that holds it", path);
    if (dot && strcmp(dot, ".json") == 0 && strncmp(path_short(path), "tokenizer", 9) == 0)
        return err_set(e, ERR_ARG,
                       "%s: a tokenizer alone is not a model; give its folder, or the config.json beside it",
                       path);
    if (dot && strcmp(dot, ".json") == 0)
        return opt->allow_missing_weights
                   ? model_open_hf(m, path, opt, e)
                   : err_set(e, ERR_ARG, "%s: a configuration holds no weights; give the folder that does",
                             path);
    return err_set(e, ERR_FORMAT, "%s: neither a GGUF file nor a checkpoint folder", path);
}

int model_open(struct model **out, const char *path, const struct model_options *opt, struct err *e)
{
    static const struct model_options defaults;
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return model_out_of_memory(e);
    if (!opt)
        opt = &defaults;
    m->kern = opt->kern ? opt->kern : kern_native();
    char *found = NULL; /* another folder than `path` where that is one of HuggingFace's cache */
    int rc = hf_folder_find(&found, path, e);
    if (rc == 0 && !(m->path = arena_strdup(&m->arena, found)))
        rc = model_out_of_memory(e);
    free(found);
    if (rc == 0 && opt->n_adapters)
        rc = model_adapters_open(m, opt, e);
    if (rc == 0)
        rc = opt->base ? model_open_lora(m, m->path, opt, e) : open_kind(m, m->path, opt, e);
    if (rc == 0 && m->adapters)
        rc = model_adapters_meta(m, e);
    if (rc != 0) {
        model_close(m);
        return rc;
    }
    hparams_read(&m->hparams, m->meta, m->arch_name);
    *out = m;
    return 0;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    vocabulary_free(m->vocabulary);
    gguf_meta_free(m->own_meta);
    if (m->ops)
        m->ops->close(m);
    model_adapters_close(m->adapters);
    strmap_release(&m->by_name);
    arena_release(&m->arena);
    free(m);
}

const char *model_path(const struct model *m)
{
    return m->path;
}
bool model_is_gguf(const struct model *m)
{
    return m->is_gguf;
}
const struct gguf_reader *model_gguf(const struct model *m)
{
    return m->is_gguf ? m->source : NULL;
}
bool model_has_towers(const struct model *m)
{
    return m->has_towers;
}
bool model_has_weights(const struct model *m)
{
    return m->has_weights;
}
bool model_is_adapter(const struct model *m)
{
    return m->is_adapter;
}
const char *model_arch_name(const struct model *m)
{
    return m->arch_name;
}
const struct hparams *model_hparams(const struct model *m)
{
    return &m->hparams;
}
const struct gguf_meta *model_meta(const struct model *m)
{
    return m->meta;
}
size_t model_n_tensors(const struct model *m)
{
    return m->n_tensors;
}
size_t model_n_skipped(const struct model *m)
{
    return m->skipped.n;
}
size_t model_n_warnings(const struct model *m)
{
    return m->warnings.n;
}

const struct model_tensor *model_tensor(const struct model *m, size_t i)
{
    assert(i < m->n_tensors);
    return m->tensors[i];
}

const struct model_tensor *model_find(const struct model *m, const char *name)
{
    uint64_t i;
    return strmap_find(&m->by_name, name, strlen(name), &i) ? m->tensors[i] : NULL;
}

const struct model_tensor *model_find_in(const struct model *m, uint64_t layer, const char *kind)
{
    char name[TENSOR_NAME_MAX];
    return model_find(m, tensor_name_of(name, layer, kind));
}

const char *model_skipped(const struct model *m, size_t i)
{
    assert(i < m->skipped.n);
    return m->skipped.items[i];
}

const char *model_warning(const struct model *m, size_t i)
{
    assert(i < m->warnings.n);
    return m->warnings.items[i];
}

static int check_range(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                       struct err *e)
{
    if (row0 > t->n_rows || n > t->n_rows - row0)
        return err_set(e, ERR_ARG, "%s: tensor '%s': rows %llu + %llu were asked for, it has %llu", m->path,
                       t->name, (unsigned long long)row0, (unsigned long long)n,
                       (unsigned long long)t->n_rows);
    if (!m->has_weights)
        return err_set(e, ERR_ARG, "%s: tensor '%s': the model was opened without its weights", m->path,
                       t->name);
    return 0;
}

int model_read_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                    float *dst, struct err *e)
{
    int rc = check_range(m, t, row0, n, e);
    if (rc != 0 || n == 0)
        return rc;
    return t->merge ? model_merge_read(m, t, row0, n, dst, e) : m->ops->read_rows(m, t, row0, n, dst, e);
}

int model_read_blocks(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                      uint8_t *dst, struct err *e)
{
    int rc = check_range(m, t, row0, n, e);
    if (rc == 0 && (!t->has_blocks || !m->ops->read_blocks))
        return err_set(e, ERR_ARG, "%s: tensor '%s': there are no blocks to read", m->path, t->name);
    return rc != 0 || n == 0 ? rc : m->ops->read_blocks(m, model_merge_base(t), row0, n, dst, e);
}

static void hint(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n, bool want)
{
    if (m->has_weights && n != 0 && row0 <= t->n_rows && n <= t->n_rows - row0)
        m->ops->hint_rows(m, model_merge_base(t), row0, n, want);
}

void model_want_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n)
{
    hint(m, t, row0, n, true);
}

void model_drop_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n)
{
    hint(m, t, row0, n, false);
}

int model_vocabulary(struct model *m, const struct vocabulary **out, struct err *e)
{
    if (!m->vocabulary && m->is_gguf) {
        int rc = vocabulary_from_gguf(&m->vocabulary, m->meta, e);
        if (rc != 0)
            return err_context(e, rc, "%s", m->path);
    }
    if (!m->vocabulary)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: the folder holds no tokenizer (tokenizer.json, vocab.json or "
                       "tokenizer.model)",
                       m->path);
    *out = m->vocabulary;
    return 0;
}
