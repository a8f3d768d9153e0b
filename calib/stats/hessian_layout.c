/* hessian_layout.c - the tensors and the metadata of a Hessian file, and writing it. */
#include "hessian_file.h"
#include "hessian_internal.h"

#include "formats/gguf/gguf_parts.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/strmap.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE 65536 /* values converted at once */

struct hessian_writer {
    const struct hessian_plan *plan;
    struct arena arena; /* names */
    struct gguf_out_tensor *tensors;
    size_t n_tensors;
    const char *
        *importance; /* [n_importance] tensors with an entry: two tensors each, behind the Gram matrices */
    size_t n_importance;
    struct gguf_parts *parts;
    float *piece;
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the Hessian file");
}

/* --- metadata --- */

static int set_names(struct gguf_meta *m, const char *key, const char *const *names, size_t n, struct err *e)
{
    struct gguf_string *list = calloc(n + 1, sizeof *list);
    if (!list)
        return no_memory(e);
    for (size_t i = 0; i < n; i++)
        list[i] = (struct gguf_string){names[i], strlen(names[i])};
    int rc = gguf_meta_set_strings(m, key, list, n, e);
    free(list);
    return rc;
}

static int set_grams(struct gguf_meta *m, const struct hessian_plan *p, struct err *e)
{
    const char **names = calloc(p->n_grams + 1, sizeof *names),
               **owners = calloc(p->n_grams + 1, sizeof *owners);
    uint64_t *numbers = calloc(4 * p->n_grams + 1, sizeof *numbers);
    int rc = names && owners && numbers ? 0 : no_memory(e);
    for (size_t i = 0; rc == 0 && i < p->n_grams; i++) {
        const struct hessian_gram *g = &p->grams[i];
        names[i] = g->name;
        owners[i] = g->owner;
        memcpy(numbers + 4 * i, (uint64_t[]){g->n_cols, g->n_mats, (uint64_t)g->weighting, g->layer},
               4 * sizeof *numbers);
    }
    if (rc == 0)
        rc = set_names(m, HESSIAN_KEY "grams", names, p->n_grams, e);
    if (rc == 0)
        rc = set_names(m, HESSIAN_KEY "owners", owners, p->n_grams, e);
    if (rc == 0)
        rc = gguf_meta_set_array(m, HESSIAN_KEY "shapes", GGUF_U64, numbers, 4 * p->n_grams, e);
    free(names);
    free(owners);
    free(numbers);
    return rc;
}

static int set_uses(struct gguf_meta *m, const struct hessian_plan *p, struct err *e)
{
    const char **names = calloc(p->n_uses + 1, sizeof *names);
    int64_t *numbers = calloc(4 * p->n_uses + 1, sizeof *numbers);
    int rc = names && numbers ? 0 : no_memory(e);
    for (size_t i = 0; rc == 0 && i < p->n_uses; i++) {
        const struct hessian_use *u = &p->uses[i];
        names[i] = u->tensor;
        memcpy(numbers + 4 * i, (int64_t[]){(int64_t)u->row0, (int64_t)u->n_rows, (int64_t)u->gram, u->pool},
               4 * sizeof *numbers);
    }
    if (rc == 0)
        rc = set_names(m, HESSIAN_KEY "tensors", names, p->n_uses, e);
    if (rc == 0)
        rc = gguf_meta_set_array(m, HESSIAN_KEY "uses", GGUF_I64, numbers, 4 * p->n_uses, e);
    free(names);
    free(numbers);
    return rc;
}

static int make_meta(struct gguf_meta **out, const struct hessian_plan *p, const struct hessian_source *s,
                     const struct hessian_writer_options *opt, struct err *e)
{
    struct gguf_meta *m;
    int rc = gguf_meta_new(&m, e);
    if (rc != 0)
        return rc;
    /* The keys of an importance matrix, in its order. */
    rc = gguf_meta_set_string(m, "general.type", "imatrix", e);
    if (rc == 0)
        rc = set_names(m, "imatrix.datasets", opt->datasets, opt->n_datasets, e);
    if (rc == 0)
        rc = gguf_meta_set_u32(m, "imatrix.chunk_count", (uint32_t)s->n_windows, e);
    if (rc == 0)
        rc = gguf_meta_set_u32(m, "imatrix.chunk_size", (uint32_t)s->ctx, e);
    if (rc == 0 && opt->model && opt->model[0])
        rc = gguf_meta_set_string(m, IMATRIX_MODEL_KEY, opt->model, e);
    if (rc == 0)
        rc = gguf_meta_set_u32(m, HESSIAN_KEY "version", HESSIAN_VERSION, e);
    if (rc == 0)
        rc = gguf_meta_set_string(m, HESSIAN_KEY "model_sha256", s->model_sha256, e);
    if (rc == 0)
        rc = gguf_meta_set_string(m, HESSIAN_KEY "ids_sha256", s->ids_sha256, e);
    if (rc == 0 && s->windows_sha256[0])
        rc = gguf_meta_set_string(m, HESSIAN_KEY "windows_sha256", s->windows_sha256, e);
    if (rc == 0 && s->merged)
        rc = gguf_meta_set_bool(m, HESSIAN_KEY "merged", true, e);
    if (rc == 0)
        rc = set_grams(m, p, e);
    if (rc == 0)
        rc = set_uses(m, p, e);
    if (rc != 0)
        gguf_meta_free(m);
    else
        *out = m;
    return rc;
}

/* --- tensors --- */

static int add_tensor(struct hessian_writer *w, const char *stem, const char *suffix, enum qtype type,
                      uint64_t ne0, uint64_t ne1, struct err *e)
{
    size_t n = strlen(stem) + strlen(suffix) + 1;
    char *name = arena_alloc(&w->arena, n);
    if (!name)
        return no_memory(e);
    strcpy(name, stem);
    strcat(name, suffix);
    w->tensors[w->n_tensors++] = (struct gguf_out_tensor){
        .name = name, .type = type, .n_dims = ne1 > 1 ? 2 : 1, .ne = {ne0, ne1, 1, 1}};
    return 0;
}

static int add_tensors(struct hessian_writer *w, struct err *e)
{
    const struct hessian_plan *p = w->plan;
    struct strmap seen = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->n_grams; i++) {
        const struct hessian_gram *g = &p->grams[i];
        rc = add_tensor(w, g->name, "", QTYPE_F32, gram_n_values(g->n_cols), g->n_mats, e);
        if (rc == 0)
            rc = add_tensor(w, g->name, HESSIAN_FIGURES, QTYPE_F64, 3, g->n_mats, e);
    }
    for (size_t i = 0; rc == 0 && i < p->n_uses; i++) {
        const char *name = p->uses[i].tensor;
        const struct hessian_gram *g = &p->grams[p->uses[i].gram];
        uint64_t at;
        if (g->layer == HESSIAN_BEHIND || strmap_find(&seen, name, strlen(name), &at))
            continue;
        w->importance[w->n_importance++] = name;
        rc = strmap_put(&seen, name, strlen(name), i, NULL) == 0 ? 0 : no_memory(e);
        if (rc == 0)
            rc = add_tensor(w, name, ".in_sum2", QTYPE_F32, g->n_cols, g->n_mats, e);
        if (rc == 0)
            rc = add_tensor(w, name, ".counts", QTYPE_F32, 1, g->n_mats, e);
    }
    strmap_release(&seen);
    return rc;
}

static void writer_free(struct hessian_writer *w)
{
    gguf_parts_free(w->parts);
    arena_release(&w->arena);
    free(w->tensors);
    free(w->importance);
    free(w->piece);
    free(w);
}

int hessian_writer_open(struct hessian_writer **out, const struct hessian_plan *plan,
                        const struct hessian_source *source, const char *path,
                        const struct hessian_writer_options *opt, struct err *e)
{
    struct hessian_writer *w = calloc(1, sizeof *w);
    struct gguf_meta *meta = NULL;
    if (!w)
        return no_memory(e);
    if (source->n_windows > UINT32_MAX || source->ctx > UINT32_MAX) {
        free(w);
        return err_set(e, ERR_ARG, "%" PRIu64 " windows of %" PRIu64 " tokens are too many",
                       source->n_windows, source->ctx);
    }
    w->plan = plan;
    w->tensors = calloc(2 * (plan->n_grams + plan->n_uses) + 1, sizeof *w->tensors);
    w->importance = calloc(plan->n_uses + 1, sizeof *w->importance);
    w->piece = malloc(PIECE * sizeof *w->piece);
    int rc = w->tensors && w->importance && w->piece ? add_tensors(w, e) : no_memory(e);
    if (rc == 0)
        rc = make_meta(&meta, plan, source, opt, e);
    struct gguf_parts_options po = {
        .overwrite = opt->overwrite, .keep_partial = opt->resume, .resume = opt->resume};
    if (rc == 0)
        rc = gguf_parts_plan(&w->parts, meta, w->tensors, w->n_tensors, path, &po, e);
    if (rc == 0)
        rc = gguf_parts_open(w->parts, e);
    gguf_meta_free(meta);
    if (rc != 0)
        writer_free(w);
    else
        *out = w;
    return rc;
}

bool hessian_writer_resumed(const struct hessian_writer *w)
{
    return gguf_parts_resumed(w->parts);
}

int hessian_writer_keep(struct hessian_writer *w, struct err *e)
{
    return gguf_parts_write_headers(w->parts, e);
}

int hessian_writer_restart(struct hessian_writer *w, struct err *e)
{
    return gguf_parts_restart(w->parts, e);
}

int hessian_writer_put(struct hessian_writer *w, size_t gram, uint64_t mat, const double *sums,
                       const struct gram_figures *figures, struct err *e)
{
    const struct hessian_gram *g = &w->plan->grams[gram];
    uint64_t n = gram_n_values(g->n_cols);
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < n; i += PIECE) {
        size_t k = (size_t)(n - i < PIECE ? n - i : PIECE);
        for (size_t j = 0; j < k; j++) {
            w->piece[j] = sums ? (float)sums[i + j] : 0;
            if (!isfinite(w->piece[j]))
                return err_set(
                    e, ERR_FORMAT,
                    "'%s': the products of the inputs of '%s' are not finite; does the model hold damaged "
                    "weights? (kerf verify)",
                    g->name, g->owner);
        }
        rc = gguf_parts_write(w->parts, 2 * gram, (mat * n + i) * sizeof(float), w->piece, k * sizeof(float),
                              e);
    }
    double f[3] = {figures->weight, figures->n_chunks, figures->squares};
    if (rc == 0)
        rc = gguf_parts_write(w->parts, 2 * gram + 1, mat * sizeof f, f, sizeof f, e);
    return rc;
}

int hessian_writer_flush(struct hessian_writer *w, struct err *e)
{
    if (fdatasync(output_file_fd(gguf_parts_output_file(w->parts, 0))) != 0)
        return err_set(e, ERR_IO, "%s: cannot be flushed to disk: %s", gguf_parts_path(w->parts, 0),
                       strerror(errno));
    return 0;
}

static int put_importance(struct hessian_writer *w, size_t i, const struct imatrix *m, struct err *e)
{
    size_t at = 2 * w->plan->n_grams + 2 * i;
    const struct imatrix_entry *x = imatrix_find(m, w->importance[i]);
    if (!x || x->n_values != w->tensors[at].ne[0] * w->tensors[at].ne[1] || x->n_mats != w->tensors[at].ne[1])
        return err_set(e, ERR_FORMAT, "'%s': no importance, or of another shape, beside its Hessian",
                       w->importance[i]);
    float *values = malloc((size_t)(x->n_values + x->n_mats) * sizeof *values);
    if (!values)
        return no_memory(e);
    int rc = 0;
    for (uint64_t k = 0; k < x->n_values; k++) {
        values[k] = (float)x->sums[k];
        if (!isfinite(values[k]))
            rc = err_set(e, ERR_ARG, "importance of '%s': value %" PRIu64 " does not fit a float32", x->name,
                         k);
    }
    for (uint64_t k = 0; k < x->n_mats; k++)
        values[x->n_values + k] = (float)x->counts[k];
    if (rc == 0)
        rc = gguf_parts_write(w->parts, at, 0, values, (size_t)x->n_values * sizeof *values, e);
    if (rc == 0)
        rc = gguf_parts_write(w->parts, at + 1, 0, values + x->n_values, (size_t)x->n_mats * sizeof *values,
                              e);
    free(values);
    return rc;
}

int hessian_writer_finish(struct hessian_writer *w, const struct imatrix *importance, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < w->n_importance; i++)
        rc = put_importance(w, i, importance, e);
    if (rc == 0)
        rc = gguf_parts_commit(w->parts, e);
    writer_free(w);
    return rc;
}

void hessian_writer_abort(struct hessian_writer *w)
{
    if (w)
        writer_free(w);
}
