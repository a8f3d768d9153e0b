/* safetensors_write.c - see safetensors_write.h. */
#include "safetensors_write.h"

#include "libquant/base/arena.h"
#include "libquant/base/checked.h"
#include "libquant/base/printed.h"
#include "formats/output/output_file.h"
#include "libquant/base/strmap.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER_BYTES 100000000 /* what readers accept */

struct safetensors_writer {
    struct output_file *file;
    struct arena arena;
    struct strmap names, meta_keys;
    struct printed tensors, meta;   /* the JSON text of both parts, without their braces */
    uint64_t n_declared, n_written; /* bytes of data */
    bool streaming;                 /* header is out */
};

int safetensors_writer_open(struct safetensors_writer **out, const char *path, bool overwrite, struct err *e)
{
    struct safetensors_writer *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    int rc = output_file_open(&w->file, path, &(struct output_file_options){.overwrite = overwrite}, e);
    if (rc == 0 && (printed_begin(&w->tensors) != 0 || printed_begin(&w->meta) != 0))
        rc = err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (rc == 0)
        *out = w;
    else
        safetensors_writer_abort(w);
    return rc;
}

/* JSON string; bytes of UTF-8 pass as they are. */
static void put_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < 0x20)
            fprintf(f, "\\u%04x", c);
        else
            fputc(c, f);
    }
    fputc('"', f);
}

/* Remember a key; ERR_ARG when it is already there. */
static int claim(struct safetensors_writer *w, struct strmap *set, const char *key, struct err *e)
{
    bool existing = false;
    if (!w->tensors.out)
        return err_set(e, ERR_ARG, "safetensors writer: '%.200s' declared after the first data", key);
    const char *copy = arena_strdup(&w->arena, key);
    if (!copy || strmap_put(set, copy, strlen(copy), 0, &existing) != 0)
        return err_set(e, ERR_NOMEM, "safetensors writer: out of memory for names");
    if (existing)
        return err_set(e, ERR_ARG, "safetensors writer: duplicate tensor '%.200s'", key);
    return 0;
}

int safetensors_writer_add(struct safetensors_writer *w, const char *name, enum st_dtype dtype,
                           uint32_t n_dims, const uint64_t *shape, struct err *e)
{
    uint64_t n_bits = st_dtype_bits(dtype), end;
    bool fits = n_bits != 0 && n_dims <= ST_MAX_DIMS;
    for (uint32_t i = 0; fits && i < n_dims; i++)
        fits = checked_mul(n_bits, shape[i], &n_bits);
    if (!fits || n_bits % 8 != 0 || !checked_add(w->n_declared, n_bits / 8, &end) ||
        strcmp(name, "__metadata__") == 0)
        return err_set(e, ERR_ARG,
                       "safetensors writer: tensor '%.200s': name, dtype or shape is not possible", name);
    int rc = claim(w, &w->names, name, e);
    if (rc != 0)
        return rc;
    if (w->names.n > 1)
        fputc(',', w->tensors.out);
    put_string(w->tensors.out, name);
    fprintf(w->tensors.out, ":{\"dtype\":\"%s\",\"shape\":[", st_dtype_name(dtype));
    for (uint32_t i = 0; i < n_dims; i++)
        fprintf(w->tensors.out, "%s%" PRIu64, i ? "," : "", shape[i]);
    fprintf(w->tensors.out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", w->n_declared, end);
    w->n_declared = end;
    return 0;
}

int safetensors_writer_metadata(struct safetensors_writer *w, const char *key, const char *value,
                                struct err *e)
{
    int rc = claim(w, &w->meta_keys, key, e);
    if (rc != 0)
        return rc;
    if (w->meta_keys.n > 1)
        fputc(',', w->meta.out);
    put_string(w->meta.out, key);
    fputc(':', w->meta.out);
    put_string(w->meta.out, value);
    return 0;
}

static int write_header(struct safetensors_writer *w, struct err *e)
{
    static const char meta_open[] = "{\"__metadata__\":{", meta_close[] = "}";
    if (!w->tensors.out || !printed_end(&w->tensors) || !printed_end(&w->meta)) /* no out: failed before */
        return err_set(e, ERR_NOMEM, "safetensors writer: out of memory for the header");
    w->streaming = true;
    bool has_meta = w->meta_keys.n != 0, comma = has_meta && w->names.n != 0;
    uint64_t n = has_meta ? strlen(meta_open) + w->meta.n + strlen(meta_close) : 1;
    n += comma + w->tensors.n + 1;
    uint64_t padded = (n + 7) / 8 * 8;
    if (padded > MAX_HEADER_BYTES)
        return err_set(e, ERR_ARG, "safetensors writer: header of %" PRIu64 " bytes exceeds the format's %d",
                       padded, MAX_HEADER_BYTES);
    int rc =
        output_file_write(w->file, &padded, sizeof padded, e); /* little-endian hosts only, see slice.h */
    if (rc == 0)
        rc = output_file_write(w->file, meta_open, has_meta ? strlen(meta_open) : 1, e);
    if (rc == 0 && has_meta)
        rc = output_file_write(w->file, w->meta.text, w->meta.n, e);
    if (rc == 0 && has_meta)
        rc = output_file_write(w->file, meta_close, strlen(meta_close), e);
    if (rc == 0 && comma)
        rc = output_file_write(w->file, ",", 1, e);
    if (rc == 0 && w->tensors.n)
        rc = output_file_write(w->file, w->tensors.text, w->tensors.n, e);
    if (rc == 0)
        rc = output_file_write(w->file, "}       ", 1 + (size_t)(padded - n), e);
    return rc;
}

int safetensors_writer_write(struct safetensors_writer *w, const void *data, size_t n, struct err *e)
{
    int rc = w->streaming ? 0 : write_header(w, e);
    if (rc != 0)
        return rc;
    if (n > w->n_declared - w->n_written)
        return err_set(e, ERR_ARG,
                       "safetensors writer: %zu bytes at %" PRIu64 " go beyond the declared %" PRIu64, n,
                       w->n_written, w->n_declared);
    w->n_written += n;
    return n ? output_file_write(w->file, data, n, e) : 0;
}

uint64_t safetensors_writer_data_bytes(const struct safetensors_writer *w)
{
    return w->n_declared;
}

int safetensors_writer_commit(struct safetensors_writer *w, struct err *e)
{
    int rc = w->streaming ? 0 : write_header(w, e);
    if (rc == 0 && w->n_written != w->n_declared)
        rc = err_set(e, ERR_ARG,
                     "safetensors writer: %" PRIu64 " bytes were declared, %" PRIu64 " were written",
                     w->n_declared, w->n_written);
    if (rc == 0) {
        struct output_file *file = w->file;
        w->file = NULL; /* commit frees it whatever comes */
        rc = output_file_commit(file, 0, e);
    }
    safetensors_writer_abort(w);
    return rc;
}

void safetensors_writer_abort(struct safetensors_writer *w)
{
    if (!w)
        return;
    output_file_abort(w->file);
    printed_abort(&w->tensors);
    printed_abort(&w->meta);
    strmap_release(&w->names);
    strmap_release(&w->meta_keys);
    arena_release(&w->arena);
    free(w);
}
