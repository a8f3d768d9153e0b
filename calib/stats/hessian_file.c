/* hessian_file.c - reading Hessian files, and their merge; see hessian_file.h. */
#include "hessian_file.h"
#include "hessian_internal.h"

#include "formats/gguf/gguf_read.h"
#include "formats/gguf/imatrix_file.h"
#include "libquant/base/checked.h"
#include "libquant/base/sha256.h"
#include "libquant/base/slice.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COLS   ((uint64_t)1 << 20)
#define NAME_BYTES 256

struct hessian_file {
    char *path;
    struct gguf_reader *reader;
    struct hessian_plan plan;
    struct hessian_source source;
    const struct gguf_tensor **sums, **figures; /* [plan.n_grams] */
};

static int bad(const struct hessian_file *f, struct err *e, const char *what)
{
    return err_set(e, ERR_FORMAT, "%s: %s; the Hessian file is damaged", f->path, what);
}

void hessian_file_close(struct hessian_file *f)
{
    if (!f)
        return;
    hessian_plan_release(&f->plan);
    gguf_reader_close(f->reader);
    free(f->sums);
    free(f->figures);
    free(f->path);
    free(f);
}

const char *hessian_file_path(const struct hessian_file *f)
{
    return f->path;
}

const struct hessian_plan *hessian_file_plan(const struct hessian_file *f)
{
    return &f->plan;
}

const struct hessian_source *hessian_file_source(const struct hessian_file *f)
{
    return &f->source;
}

/* Element i of an array of names, NUL-terminated. */
static bool name_at(const struct gguf_meta *m, const char *key, uint64_t i, char out[NAME_BYTES])
{
    struct gguf_string s;
    if (!gguf_array_string(gguf_meta_find(m, key), i, &s) || s.len == 0 || s.len >= NAME_BYTES ||
        memchr(s.data, 0, (size_t)s.len))
        return false;
    memcpy(out, s.data, (size_t)s.len);
    out[s.len] = 0;
    return true;
}

static bool numbers_at(const struct gguf_meta *m, const char *key, uint64_t i, int64_t out[4])
{
    for (uint64_t k = 0; k < 4; k++)
        if (!gguf_array_i64(gguf_meta_find(m, key), 4 * i + k, &out[k]))
            return false;
    return true;
}

static uint64_t array_length(const struct gguf_meta *m, const char *key)
{
    const struct gguf_value *v = gguf_meta_find(m, key);
    return v && v->type == GGUF_ARRAY ? v->a.n : 0;
}

static bool hash_of(const struct gguf_meta *m, const char *key, char out[65])
{
    struct gguf_string s;
    if (!gguf_meta_get_string(m, key, &s) || s.len != 64 || memchr(s.data, 0, 64))
        return false;
    memcpy(out, s.data, 64);
    out[64] = 0;
    return true;
}

static int take_gram(struct hessian_file *f, const struct gguf_meta *m, uint64_t i, struct err *e)
{
    char name[NAME_BYTES], owner[NAME_BYTES], figures[NAME_BYTES + 16];
    int64_t v[4];
    size_t index;
    if (!name_at(m, HESSIAN_KEY "grams", i, name) || !name_at(m, HESSIAN_KEY "owners", i, owner) ||
        !numbers_at(m, HESSIAN_KEY "shapes", i, v) || v[0] < 1 || v[0] > (int64_t)MAX_COLS || v[1] < 1 ||
        v[1] > UINT32_MAX || v[2] < HESSIAN_PLAIN || v[2] > HESSIAN_MIXED || v[3] < 0 || v[3] > UINT32_MAX)
        return bad(f, e,
                   "the list of Gram matrices (" HESSIAN_KEY "grams, .owners, .shapes) is inconsistent");
    struct hessian_gram g = {
        name, owner, (uint64_t)v[0], (uint64_t)v[1], (enum hessian_weighting)v[2], (uint32_t)v[3]};
    snprintf(figures, sizeof figures, "%s" HESSIAN_FIGURES, name);
    const struct gguf_tensor *s = gguf_reader_find(f->reader, name),
                             *x = gguf_reader_find(f->reader, figures);
    if (!s || s->type != QTYPE_F32 || s->ne[0] != gram_n_values(g.n_cols) || s->ne[1] != g.n_mats ||
        s->ne[2] != 1 || s->ne[3] != 1 || !x || x->type != QTYPE_F64 || x->ne[0] != 3 ||
        x->ne[1] != g.n_mats || x->ne[2] != 1 || x->ne[3] != 1)
        return err_set(e, ERR_FORMAT,
                       "%s: tensors '%s' and '%s' are missing or of another shape than F32 [%" PRIu64
                       ", %" PRIu64 "] and F64 [3, %" PRIu64 "]; the Hessian file is damaged",
                       f->path, name, figures, gram_n_values(g.n_cols), g.n_mats, g.n_mats);
    f->sums[i] = s;
    f->figures[i] = x;
    return hessian_plan_add_gram(&f->plan, &g, &index, e);
}

static int take_use(struct hessian_file *f, const struct gguf_meta *m, uint64_t i, struct err *e)
{
    char name[NAME_BYTES];
    int64_t v[4], n = (int64_t)f->plan.n_grams;
    if (!name_at(m, HESSIAN_KEY "tensors", i, name) || !numbers_at(m, HESSIAN_KEY "uses", i, v) || v[0] < 0 ||
        v[1] < 0 || v[0] > UINT32_MAX || v[1] > UINT32_MAX || v[2] < 0 || v[2] >= n || v[3] < -1 || v[3] >= n)
        return bad(f, e, "the list of uses (" HESSIAN_KEY "tensors, .uses) is inconsistent");
    const struct hessian_gram *g = &f->plan.grams[v[2]];
    if (v[3] >= 0 && (f->plan.grams[v[3]].n_mats != 1 || f->plan.grams[v[3]].n_cols != g->n_cols))
        return bad(f, e, "a stack of experts shares a Gram matrix of another shape");
    struct hessian_use u = {name, (uint64_t)v[0], (uint64_t)v[1], (size_t)v[2], v[3]};
    return hessian_plan_add_use(&f->plan, &u, e);
}

static int take_keys(struct hessian_file *f, struct err *e)
{
    const struct gguf_meta *m = gguf_reader_meta(f->reader);
    uint64_t version = 0, n_grams = array_length(m, HESSIAN_KEY "grams"),
             n_uses = array_length(m, HESSIAN_KEY "tensors");
    if (!gguf_meta_get_u64(m, HESSIAN_KEY "version", &version))
        return err_set(e, ERR_ARG,
                       "%s: holds no Hessians (no key " HESSIAN_KEY "version); 'kerf hessian' collects them",
                       f->path);
    if (version != HESSIAN_VERSION)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: a Hessian file of version %" PRIu64 "; this program reads version %d", f->path,
                       version, HESSIAN_VERSION);
    if (!hash_of(m, HESSIAN_KEY "model_sha256", f->source.model_sha256) ||
        !hash_of(m, HESSIAN_KEY "ids_sha256", f->source.ids_sha256) ||
        !gguf_meta_get_u64(m, "imatrix.chunk_count", &f->source.n_windows) ||
        !gguf_meta_get_u64(m, "imatrix.chunk_size", &f->source.ctx))
        return bad(f, e, "it does not say what it was collected from");
    hash_of(m, HESSIAN_KEY "windows_sha256", f->source.windows_sha256);
    gguf_meta_get_bool(m, HESSIAN_KEY "merged", &f->source.merged);
    if (n_grams == 0 || n_uses == 0 || n_grams > gguf_reader_n_tensors(f->reader) ||
        array_length(m, HESSIAN_KEY "shapes") != 4 * n_grams ||
        array_length(m, HESSIAN_KEY "uses") / 4 != n_uses)
        return bad(f, e, "its lists of Gram matrices and uses do not fit together");
    f->sums = calloc((size_t)n_grams, sizeof *f->sums);
    f->figures = calloc((size_t)n_grams, sizeof *f->figures);
    int rc = f->sums && f->figures ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", f->path);
    for (uint64_t i = 0; rc == 0 && i < n_grams; i++)
        rc = take_gram(f, m, i, e);
    for (uint64_t i = 0; rc == 0 && i < n_uses; i++)
        rc = take_use(f, m, i, e);
    return rc;
}

static const char *name_of(const char *path, size_t n)
{
    size_t begin = n;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    return path + begin;
}

bool hessian_file_has_dataset(const struct hessian_file *f, const char *path)
{
    const struct gguf_meta *m = gguf_reader_meta(f->reader);
    uint64_t n = array_length(m, "imatrix.datasets");
    const char *name = name_of(path, strlen(path));
    size_t len = strlen(name);
    struct gguf_string s;
    for (uint64_t i = 0; i < n; i++)
        if (gguf_array_string(gguf_meta_find(m, "imatrix.datasets"), i, &s)) {
            const char *other = name_of(s.data, (size_t)s.len);
            if ((size_t)(s.data + s.len - other) == len && memcmp(other, name, len) == 0)
                return true;
        }
    return false;
}

int hessian_file_open(struct hessian_file **out, const char *path, struct err *e)
{
    struct hessian_file *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path))) {
        free(f);
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    int rc = gguf_reader_open(&f->reader, path, NULL, e);
    if (rc == 0)
        rc = take_keys(f, e);
    if (rc != 0)
        hessian_file_close(f);
    else
        *out = f;
    return rc;
}

static int take_figures(const struct hessian_file *f, size_t gram, uint64_t mat, struct gram_figures *out,
                        struct err *e)
{
    double v[3];
    for (int k = 0; k < 3; k++) {
        uint64_t bits = load_u64(f->figures[gram]->data + (3 * mat + (uint64_t)k) * sizeof(double));
        memcpy(&v[k], &bits, sizeof v[k]);
        if (!isfinite(v[k]) || v[k] < 0)
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '%s': %g is not a finite number >= 0; the Hessian file is damaged",
                           f->path, f->figures[gram]->name, v[k]);
    }
    *out = (struct gram_figures){v[0], v[1], v[2]};
    return 0;
}

int hessian_file_read(const struct hessian_file *f, size_t gram, uint64_t mat, double *sums,
                      struct gram_figures *figures, struct err *e)
{
    size_t n = (size_t)f->plan.grams[gram].n_cols;
    const uint8_t *p = f->sums[gram]->data + mat * gram_n_values(n) * sizeof(float);
    int rc = take_figures(f, gram, mat, figures, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++, p += sizeof(float)) {
            double v = (double)load_f32(p);
            if (!isfinite(v) || (i == j && v < 0))
                return err_set(
                    e, ERR_FORMAT,
                    "%s: tensor '%s': %g at (%zu, %zu) is not a sum of products; the Hessian file is damaged",
                    f->path, f->plan.grams[gram].name, v, i, j);
            sums[i * n + j] = sums[j * n + i] = v;
        }
    return 0;
}

/* --- merge --- */

static bool same_plan(const struct hessian_plan *a, const struct hessian_plan *b)
{
    bool same = a->n_grams == b->n_grams && a->n_uses == b->n_uses;
    for (size_t i = 0; same && i < a->n_grams; i++) {
        const struct hessian_gram *x = &a->grams[i], *y = &b->grams[i];
        same = strcmp(x->name, y->name) == 0 && x->n_cols == y->n_cols && x->n_mats == y->n_mats &&
               x->weighting == y->weighting && x->layer == y->layer;
    }
    for (size_t i = 0; same && i < a->n_uses; i++) {
        const struct hessian_use *x = &a->uses[i], *y = &b->uses[i];
        same = strcmp(x->tensor, y->tensor) == 0 && x->row0 == y->row0 && x->n_rows == y->n_rows &&
               x->gram == y->gram && x->pool == y->pool;
    }
    return same;
}

static int add_matrix(struct hessian_writer *w, struct hessian_file *const *files, size_t n, size_t gram,
                      uint64_t mat, double *sums, struct err *e)
{
    uint64_t n_values = gram_n_values(files[0]->plan.grams[gram].n_cols);
    struct gram_figures total = {0}, one;
    memset(sums, 0, (size_t)n_values * sizeof *sums);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = files[i]->sums[gram]->data + mat * n_values * sizeof(float);
        int rc = take_figures(files[i], gram, mat, &one, e);
        if (rc != 0)
            return rc;
        for (uint64_t k = 0; k < n_values; k++)
            sums[k] += (double)load_f32(p + k * sizeof(float));
        total.weight += one.weight;
        total.n_chunks += one.n_chunks;
        total.squares += one.squares;
    }
    return hessian_writer_put(w, gram, mat, sums, &total, e);
}

static int merge_files(struct hessian_file *const *files, size_t n, const struct imatrix *m,
                       const char *output, bool overwrite, struct err *e)
{
    const struct hessian_plan *plan = &files[0]->plan;
    struct hessian_source source = files[0]->source;
    struct sha256 h, of_windows;
    uint64_t most = 0;
    sha256_init(&h);
    sha256_init(&of_windows);
    source.n_windows = 0;
    source.merged = true;
    for (size_t i = 0; i < n; i++) {
        sha256_update(&h, files[i]->source.ids_sha256, 64);
        sha256_update(&of_windows, files[i]->source.windows_sha256, 65);
        source.n_windows += files[i]->source.n_windows;
    }
    sha256_final_hex(&h, source.ids_sha256);
    sha256_final_hex(&of_windows, source.windows_sha256);
    const char **datasets = calloc(imatrix_n_datasets(m) + 1, sizeof *datasets);
    for (size_t i = 0; datasets && i < imatrix_n_datasets(m); i++)
        datasets[i] = imatrix_dataset(m, i);
    for (size_t i = 0; i < plan->n_grams; i++)
        most = gram_n_values(plan->grams[i].n_cols) > most ? gram_n_values(plan->grams[i].n_cols) : most;
    double *sums = malloc((size_t)most * sizeof *sums);
    struct hessian_writer *w = NULL;
    struct hessian_writer_options opt = {.overwrite = overwrite,
                                         .datasets = datasets,
                                         .n_datasets = imatrix_n_datasets(m),
                                         .model = imatrix_model(m)};
    int rc = sums && datasets ? hessian_writer_open(&w, plan, &source, output, &opt, e)
                              : err_set(e, ERR_NOMEM, "out of memory for a Gram matrix");
    for (size_t i = 0; rc == 0 && i < plan->n_grams; i++)
        for (uint64_t mat = 0; rc == 0 && mat < plan->grams[i].n_mats; mat++)
            rc = add_matrix(w, files, n, i, mat, sums, e);
    if (rc == 0)
        rc = hessian_writer_finish(w, m, e);
    else
        hessian_writer_abort(w);
    free(sums);
    free(datasets);
    return rc;
}

int hessian_merge(const char *const *paths, size_t n, const char *output, bool overwrite, struct err *e)
{
    struct hessian_file **files = calloc(n, sizeof *files);
    struct imatrix *m = NULL, *one = NULL;
    int rc = files ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu files", n);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = hessian_file_open(&files[i], paths[i], e);
        if (rc == 0 && i > 0 &&
            (strcmp(files[0]->source.model_sha256, files[i]->source.model_sha256) != 0 ||
             !same_plan(&files[0]->plan, &files[i]->plan)))
            rc = err_set(e, ERR_ARG, "%s: was collected from another model than %s", paths[i], paths[0]);
        if (rc == 0)
            rc = imatrix_load(i ? &one : &m, paths[i], e);
        if (rc == 0 && i > 0)
            rc = imatrix_merge(m, one, e);
        imatrix_free(one);
        one = NULL;
    }
    if (rc == 0)
        rc = merge_files(files, n, m, output, overwrite, e);
    imatrix_free(m);
    for (size_t i = 0; files && i < n; i++)
        hessian_file_close(files[i]);
    free(files);
    return rc;
}
