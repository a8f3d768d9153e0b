/* inspection.c - see inspection.h. */
#include "inspection.h"

#include "formats/hf/hf_folder.h"
#include "formats/recipe/recipe.h"
#include "formats/rewrite/rewrite.h"
#include "formats/model/checkpoint_weight.h"
#include "formats/model/model_files.h"
#include "libquant/base/path.h"
#include "libquant/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int reserve(struct inspection *in, size_t n, struct err *e)
{
    in->n_tensors = in->n_listed = n;
    in->tensors = calloc(n ? n : 1, sizeof *in->tensors);
    return in->tensors ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu tensors", n);
}

static int open_imatrix(struct inspection *in, const char *path, struct err *e)
{
    int rc = imatrix_load(&in->imatrix, path, e);
    if (rc == 0)
        rc = reserve(in, imatrix_n(in->imatrix), e);
    if (rc)
        return rc;
    in->format = "imatrix";
    for (size_t i = 0; i < in->n_tensors; i++) {
        const struct imatrix_entry *entry = imatrix_entry_at(in->imatrix, i);
        in->tensors[i] = (struct inspect_tensor){.name = entry->name,
                                                 .type = "F32",
                                                 .n_dims = 2,
                                                 .shape = {entry->n_mats, entry->n_values / entry->n_mats},
                                                 .n_elems = entry->n_values,
                                                 .n_bytes = 4 * (entry->n_values + entry->n_mats),
                                                 .present = true,
                                                 .entry = entry};
    }
    return 0;
}

static int open_gguf(struct inspection *in, const char *path, struct err *e)
{
    struct gguf_read_options opt = {.header_only = true}; /* a cut or vocabulary-only file can be looked at */
    int rc = gguf_reader_open(&in->gguf, path, &opt, e);
    if (rc)
        return rc;
    const struct gguf_meta *meta = gguf_reader_meta(in->gguf);
    struct gguf_string s;
    if (gguf_meta_get_string(meta, "general.type", &s) && s.len == 7 && memcmp(s.data, "imatrix", 7) == 0)
        return open_imatrix(in, path, e);
    rc = reserve(in, gguf_reader_n_tensors(in->gguf), e);
    if (rc)
        return rc;
    in->format = "gguf";
    if (gguf_meta_get_string(meta, "general.architecture", &s)) {
        snprintf(in->architecture_text, sizeof in->architecture_text, "%.*s",
                 (int)(s.len < 127 ? s.len : 127), s.data);
        in->architecture = in->architecture_text;
    }
    uint64_t id;
    if (gguf_meta_get_u64(meta, "general.file_type", &id) && id < 1024 && mix_by_file_type((uint32_t)id))
        in->file_type = mix_by_file_type((uint32_t)id)->name;
    in->planned = rewrite_is_planned(meta);
    for (size_t i = 0; i < in->n_tensors; i++) {
        const struct gguf_tensor *t = gguf_reader_tensor(in->gguf, i);
        struct inspect_tensor *out = &in->tensors[i];
        *out = (struct inspect_tensor){.name = t->name,
                                       .type = qtype_name(t->type),
                                       .n_dims = t->n_dims,
                                       .n_elems = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3],
                                       .n_bytes = t->n_bytes,
                                       .offset = t->offset,
                                       .has_offset = true,
                                       .present = t->data || t->n_bytes == 0,
                                       .gguf = t};
        for (uint32_t d = 0; d < t->n_dims; d++)
            out->shape[d] = t->ne[t->n_dims - 1 - d];
        if (gguf_reader_n_parts(in->gguf) > 1)
            out->file = gguf_reader_part_path(in->gguf, t->part);
    }
    return 0;
}

static void take_safetensor(struct inspect_tensor *out, const struct st_tensor *t, const char *file)
{
    *out = (struct inspect_tensor){.name = t->name,
                                   .type = st_dtype_name(t->dtype),
                                   .file = file,
                                   .n_dims = t->n_dims,
                                   .n_elems = t->n_elems,
                                   .n_bytes = t->n_bytes,
                                   .offset = t->offset,
                                   .has_offset = true,
                                   .present = t->data || t->n_bytes == 0,
                                   .st = t};
    memcpy(out->shape, t->shape, sizeof out->shape);
}

static int open_safetensors(struct inspection *in, const char *path, struct err *e)
{
    int rc = safetensors_open(&in->st, path, e);
    if (rc == 0)
        rc = reserve(in, safetensors_n_tensors(in->st), e);
    if (rc)
        return rc;
    in->format = "safetensors";
    for (size_t i = 0; i < in->n_tensors; i++)
        take_safetensor(&in->tensors[i], safetensors_tensor(in->st, i), NULL);
    return 0;
}

static int open_checkpoint(struct inspection *in, const char *path, struct err *e)
{
    char *folder = NULL;
    int rc = hf_folder_find(&folder, path, e);
    if (rc == 0)
        rc = hf_config_load(&in->config, folder, e);
    if (rc == 0)
        rc = hf_checkpoint_open(&in->checkpoint, folder, true, e);
    if (rc == 0)
        rc = model_files_bytes(&in->n_bytes, folder, e);
    free(folder);
    if (rc == 0)
        rc = reserve(in, hf_checkpoint_n_tensors(in->checkpoint), e);
    if (rc)
        return rc;
    in->format = "checkpoint";
    in->architecture = hf_config_architecture(in->config);
    bool present = hf_checkpoint_has_weights(in->checkpoint);
    for (size_t i = 0; i < in->n_tensors; i++) {
        take_safetensor(&in->tensors[i], hf_checkpoint_tensor(in->checkpoint, i),
                        hf_checkpoint_tensor_file(in->checkpoint, i));
        if (!present) {
            in->tensors[i].type = NULL;
            in->tensors[i].has_offset = in->tensors[i].present = false;
        }
    }
    return 0;
}

static bool starts_like_safetensors(const char *path)
{
    unsigned char head[9] = {0};
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f)
        fclose(f);
    return n == sizeof head && head[8] == '{';
}

/* No other sign than that it reads as the old form of an importance matrix, which has no magic number. */
static int open_unnamed(struct inspection *in, const char *path, struct err *e)
{
    int rc = open_imatrix(in, path, e);
    if (rc != ERR_FORMAT || path_ends_with(path, ".dat") || path_ends_with(path, ".imatrix"))
        return rc;
    return err_set(
        e, ERR_FORMAT,
        "%s: not a file that this command reads; expected a GGUF file, a safetensors file, a folder with "
        "config.json, or an importance matrix (.gguf or .dat)",
        path);
}

int inspection_open(struct inspection *in, const char *path, struct err *e)
{
    struct stat st;
    int rc;
    *in = (struct inspection){0};
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        rc = open_checkpoint(in, path, e);
    else if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        rc = err_set(e, ERR_IO, "%s: expected a file or a folder, found a device or a pipe", path);
    else if (gguf_is_gguf_file(path) || path_ends_with(path, ".gguf"))
        rc = open_gguf(in, path, e);
    else if (path_ends_with(path, ".safetensors") || starts_like_safetensors(path))
        rc = open_safetensors(in, path, e);
    else
        rc = open_unnamed(in, path, e);
    for (size_t i = 0; rc == 0 && i < in->n_tensors; i++) {
        in->n_parameters += in->tensors[i].n_elems;
        in->tensor_bytes += in->tensors[i].n_bytes;
        in->incomplete = in->incomplete || !in->tensors[i].present;
    }
    return rc == 0 && !in->checkpoint ? model_files_bytes(&in->n_bytes, path, e) : rc;
}

void inspection_close(struct inspection *in)
{
    free(in->tensors);
    gguf_reader_close(in->gguf);
    safetensors_close(in->st);
    hf_checkpoint_close(in->checkpoint);
    hf_config_free(in->config);
    imatrix_free(in->imatrix);
    *in = (struct inspection){0};
}

/* --- statistics --- */

struct view {
    const struct inspect_tensor *t;
    const struct kern *kern;
    struct checkpoint_weight source;
    uint64_t n_cols, row_bytes;
};

static int read_gguf(const void *ctx, uint64_t row0, uint64_t n, float *dst, struct err *e)
{
    const struct view *v = ctx;
    return quant_decode_rows(v->kern, v->t->gguf->type, v->t->gguf->data + row0 * v->row_bytes,
                             n * v->row_bytes, dst, n, v->n_cols, e);
}

static int read_st(const void *ctx, uint64_t row0, uint64_t n, float *dst, struct err *e)
{
    const struct view *v = ctx;
    return checkpoint_weight_read(&v->source, v->kern, row0 * v->n_cols, n * v->n_cols, dst, e);
}

static int read_entry(const void *ctx, uint64_t row0, uint64_t n, float *dst, struct err *e)
{
    const struct view *v = ctx;
    for (uint64_t i = 0; i < n; i++) {
        int rc =
            imatrix_weights(v->t->entry, row0 + i, v->t->entry->n_mats, v->n_cols, dst + i * v->n_cols, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* Which reader serves the tensor; NULL: it holds no weights. */
static tensor_read reader_of(struct view *v)
{
    const struct inspect_tensor *t = v->t;
    v->n_cols = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    if (!t->present || t->n_elems == 0)
        return NULL;
    if (t->entry)
        return read_entry;
    if (t->gguf) {
        if (!qtype_info(t->gguf->type)->can_decode ||
            !qtype_row_bytes(t->gguf->type, v->n_cols, &v->row_bytes))
            return NULL;
        return read_gguf;
    }
    v->source = (struct checkpoint_weight){.name = t->name,
                                           .file = t->file ? t->file : "",
                                           .type_name = t->type,
                                           .n_elems = t->n_elems,
                                           .type = t->st->dtype == ST_BF16  ? QTYPE_BF16
                                                   : t->st->dtype == ST_F16 ? QTYPE_F16
                                                                            : QTYPE_F32,
                                           .plain = t->st};
    switch (t->st->dtype) {
    case ST_BF16:
    case ST_F16:
    case ST_F32:
    case ST_F64:
    case ST_F8_E4M3:
    case ST_F8_E5M2: return read_st;
    default: return NULL;
    }
}

int inspection_stats(struct inspection *in, const struct kern *kern, struct pool *pool, uint64_t memory_bytes,
                     struct err *e)
{
    for (size_t i = 0; i < in->n_listed; i++) {
        struct inspect_tensor *t = &in->tensors[i];
        struct view v = {.t = t, .kern = kern};
        tensor_read read = reader_of(&v);
        if (!read)
            continue;
        int rc = tensor_stats(&t->stats, t->n_elems / v.n_cols, v.n_cols, read, &v, pool, memory_bytes, e);
        if (rc)
            return err_context(e, rc, "tensor '%s'", t->name);
        t->has_stats = true;
    }
    return 0;
}
