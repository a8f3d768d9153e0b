/* model_gguf.c - a GGUF file (or split set) as a model: tensors and metadata as they are.
 *
 * Rows are decoded from the mapped blocks, and multiplied by the factors of "X.scale" where "X.weight" has
 * such a neighbour, as the runtime does with the results. Truth: gguf_read.h. */
#include "model_internal.h"

#include "formats/gguf/gguf_read.h"
#include "libquant/base/filemap.h"
#include "libquant/base/slice.h"
#include "libquant/quant.h"

#include <assert.h>
#include <string.h>

/* Rows decode and drop only whole rows, so one row is the unit of the offsets below. */
static uint64_t row_bytes(const struct model_tensor *t)
{
    uint64_t n = 0;
    bool ok = qtype_row_bytes(t->type, t->ne[0], &n);
    assert(ok); /* the reader checked it */
    (void)ok;
    return n;
}

static void apply_scale(const struct model_tensor *t, uint64_t row0, uint64_t n, float *dst)
{
    for (uint64_t r = 0; r < n; r++) {
        uint64_t m = t->scale->ne[0] == 1 ? 0 : (row0 + r) / t->ne[1];
        float factor = load_f32(t->scale->raw + 4 * m);
        for (uint64_t i = 0; i < t->ne[0]; i++)
            dst[r * t->ne[0] + i] *= factor;
    }
}

static int read_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                     float *dst, struct err *e)
{
    if (!t->raw)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': the file ends before its data", m->path, t->name);
    uint64_t bytes = row_bytes(t);
    int rc = quant_decode_rows(m->kern, t->type, t->raw + row0 * bytes, n * bytes, dst, n, t->ne[0], e);
    if (rc == 0 && t->scale)
        apply_scale(t, row0, n, dst);
    return rc == 0 ? 0 : err_context(e, rc, "%s: tensor '%s'", m->path, t->name);
}

static void hint_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                      bool want)
{
    (void)m;
    if (!t->raw)
        return;
    uint64_t bytes = row_bytes(t);
    if (want)
        filemap_want(t->raw + row0 * bytes, n * bytes);
    else
        filemap_drop(t->raw + row0 * bytes, n * bytes);
}

static void close_source(struct model *m)
{
    gguf_reader_close(m->source);
}

static const struct model_source_ops gguf_ops = {read_rows, NULL, hint_rows, close_source};

/* Join weights with their factors. One that does not fit is a tensor like any other. */
static int link_scales(struct model *m, struct err *e)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct model_tensor *s = m->tensors[i];
        size_t n = strlen(s->name);
        if (n < 6 || strcmp(s->name + n - 6, ".scale") != 0 || s->type != QTYPE_F32 || !s->raw ||
            s->n_rows != 1)
            continue;
        char *name = arena_printf(&m->arena, "%.*s.weight", (int)(n - 6), s->name);
        if (!name)
            return model_out_of_memory(e);
        struct model_tensor *w = (struct model_tensor *)model_find(m, name); /* ours, see model_open_gguf */
        if (w && w->n_dims >= 2 && (s->ne[0] == 1 || s->ne[0] == w->ne[2] * w->ne[3]))
            w->scale = s;
    }
    return 0;
}

/* The metadata a single output file should have: split.* describes the parts that were read, not the model.
 */
static int take_meta(struct model *m, const struct gguf_reader *r, struct err *e)
{
    static const char *const split_keys[] = {"split.no", "split.count", "split.tensors.count"};
    const struct gguf_meta *meta = gguf_reader_meta(r);
    m->meta = meta;
    for (size_t i = 0; i < sizeof split_keys / sizeof *split_keys; i++) {
        if (!gguf_meta_find(meta, split_keys[i]))
            continue;
        if (!m->own_meta) {
            int rc = gguf_meta_copy(&m->own_meta, meta, e);
            if (rc != 0)
                return rc;
            m->meta = m->own_meta;
        }
        gguf_meta_remove(m->own_meta, split_keys[i]);
    }
    struct gguf_string arch = {"", 0}, kind = {"", 0};
    gguf_meta_get_string(m->meta, "general.type", &kind);
    if (kind.len == 7 && memcmp(kind.data, "imatrix", 7) == 0)
        return err_set(e, ERR_FORMAT,
                       "%s: is an importance matrix (general.type is 'imatrix'), not a model; 'kerf imatrix "
                       "show' shows it",
                       m->path);
    gguf_meta_get_string(m->meta, "general.architecture", &arch);
    m->arch_name = arena_strndup(&m->arena, arch.data, arch.len);
    return m->arch_name ? 0 : model_out_of_memory(e);
}

int model_open_gguf(struct model *m, const char *path, const struct model_options *opt, struct err *e)
{
    struct gguf_reader *r = NULL;
    struct gguf_read_options read_opt = {.header_only = opt->allow_missing_weights};
    int rc = gguf_reader_open(&r, path, &read_opt, e);
    if (rc != 0)
        return rc;
    m->ops = &gguf_ops;
    m->source = r;
    m->is_gguf = true;
    m->has_weights = true;
    rc = take_meta(m, r, e);
    if (rc != 0)
        return rc;

    m->n_tensors = gguf_reader_n_tensors(r);
    m->tensors = arena_array(&m->arena, m->n_tensors + 1, sizeof *m->tensors);
    struct model_tensor *all = arena_array(&m->arena, m->n_tensors + 1, sizeof *all);
    if (!m->tensors || !all)
        return model_out_of_memory(e);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct gguf_tensor *src = gguf_reader_tensor(r, i);
        struct model_tensor *t = &all[i];
        *t = (struct model_tensor){.name = src->name,
                                   .n_dims = src->n_dims,
                                   .n_rows = src->ne[1] * src->ne[2] * src->ne[3],
                                   .type = src->type,
                                   .source_type = qtype_name(src->type),
                                   .raw = src->data,
                                   .n_bytes = src->n_bytes};
        memcpy(t->ne, src->ne, sizeof t->ne);
        t->origin = arena_printf(&m->arena, "%s: %s", gguf_reader_part_path(r, src->part), src->name);
        if (!t->origin)
            return model_out_of_memory(e);
        if (!src->data && src->n_bytes)
            m->has_weights = false;
        m->tensors[i] = t;
    }
    rc = model_index(m, e);
    if (rc == 0)
        rc = link_scales(m, e);
    return rc == 0 ? model_adapters_merge(m, NULL, e) : rc;
}
