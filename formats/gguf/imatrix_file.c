/* imatrix_file.c - importance matrices in memory: entries, data sets, merging, weights. The two file formats
 * are in imatrix_dat.c and imatrix_gguf.c. See imatrix_file.h. */
#include "imatrix_file.h"

#include "imatrix_internal.h"
#include "libquant/base/filemap.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int imatrix_new(struct imatrix **out, struct err *e)
{
    struct imatrix *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_NOMEM, "importance matrix: out of memory");
    *out = m;
    return 0;
}

void imatrix_free(struct imatrix *m)
{
    if (!m)
        return;
    strmap_release(&m->by_name);
    arena_release(&m->arena);
    free(m->entries);
    free(m->datasets);
    free(m);
}

size_t imatrix_n(const struct imatrix *m)
{
    return m->n;
}

const struct imatrix_entry *imatrix_entry_at(const struct imatrix *m, size_t i)
{
    return m->entries[i];
}

static struct imatrix_entry *find(const struct imatrix *m, const char *name)
{
    uint64_t p;
    return strmap_find(&m->by_name, name, strlen(name), &p) ? (struct imatrix_entry *)(uintptr_t)p : NULL;
}

const struct imatrix_entry *imatrix_find(const struct imatrix *m, const char *name)
{
    return find(m, name);
}

/* `name` with one stem in place of another. */
static const struct imatrix_entry *find_instead(const struct imatrix *m, const char *name, const char *stem,
                                                const char *other)
{
    char text[256];
    const char *at = strstr(name, stem);
    if (!at)
        return NULL;
    int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - name), name, other, at + strlen(stem));
    return n < (int)sizeof text ? find(m, text) : NULL;
}

const struct imatrix_entry *imatrix_find_for(const struct imatrix *m, const char *tensor)
{
    const struct imatrix_entry *x = find(m, tensor);
    if (!x)
        x = find_instead(m, tensor, ".ffn_gate_exps.", ".ffn_gate_up_exps.");
    if (!x)
        x = find_instead(m, tensor, ".ffn_up_exps.", ".ffn_gate_up_exps.");
    if (!x)
        x = find_instead(m, tensor, ".ffn_gate_up_exps.", ".ffn_gate_exps.");
    return x;
}

static int no_memory(struct err *e, const char *name)
{
    return err_set(e, ERR_NOMEM, "importance of '%s': out of memory", name);
}

int imatrix_append(struct imatrix *m, const char *name, size_t name_len, uint64_t n_values, uint64_t n_mats,
                   struct imatrix_entry **out, struct err *e)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? m->cap * 2 : 256;
        struct imatrix_entry **grown = realloc(m->entries, cap * sizeof *grown);
        if (!grown)
            return no_memory(e, "?");
        m->entries = grown;
        m->cap = cap;
    }
    struct imatrix_entry *x = arena_alloc(&m->arena, sizeof *x);
    char *copy = arena_strndup(&m->arena, name, name_len);
    if (!x || !copy)
        return no_memory(e, "?");
    x->name = copy;
    x->n_values = n_values;
    x->n_mats = n_mats;
    x->sums = arena_array(&m->arena, n_values, sizeof *x->sums);
    x->counts = arena_array(&m->arena, n_mats, sizeof *x->counts);
    if (!x->sums || !x->counts || strmap_put(&m->by_name, copy, name_len, (uint64_t)(uintptr_t)x, NULL) != 0)
        return no_memory(e, copy);
    m->entries[m->n++] = x;
    *out = x;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct imatrix_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

void imatrix_sort(struct imatrix *m)
{
    if (m->n)
        qsort(m->entries, m->n, sizeof *m->entries, by_name);
}

int imatrix_add(struct imatrix *m, const char *name, uint64_t n_values, uint64_t n_mats,
                struct imatrix_entry **out, struct err *e)
{
    if (!*name || n_mats == 0 || n_values == 0 || n_values % n_mats != 0)
        return err_set(e, ERR_ARG,
                       "importance of '%s': %" PRIu64 " values do not divide among %" PRIu64 " matrices",
                       name, n_values, n_mats);
    struct imatrix_entry *x = find(m, name);
    if (x && (x->n_values != n_values || x->n_mats != n_mats))
        return err_set(e, ERR_ARG,
                       "importance of '%s': there are %" PRIu64 " values in %" PRIu64
                       " matrices, asked for %" PRIu64 " in %" PRIu64,
                       name, x->n_values, x->n_mats, n_values, n_mats);
    if (!x) {
        int rc = imatrix_append(m, name, strlen(name), n_values, n_mats, &x, e);
        if (rc)
            return rc;
        /* the newcomer is last: move it where it belongs */
        size_t lo = 0, hi = m->n - 1;
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            if (strcmp(m->entries[mid]->name, name) < 0)
                lo = mid + 1;
            else
                hi = mid;
        }
        memmove(m->entries + lo + 1, m->entries + lo, (m->n - 1 - lo) * sizeof *m->entries);
        m->entries[lo] = x;
    }
    *out = x;
    return 0;
}

size_t imatrix_n_datasets(const struct imatrix *m)
{
    return m->n_datasets;
}

const char *imatrix_dataset(const struct imatrix *m, size_t i)
{
    return m->datasets[i];
}

int imatrix_add_dataset_n(struct imatrix *m, const char *name, size_t len, struct err *e)
{
    if (m->n_datasets == m->cap_datasets) {
        size_t cap = m->cap_datasets ? m->cap_datasets * 2 : 8;
        const char **grown = realloc(m->datasets, cap * sizeof *grown);
        if (!grown)
            return no_memory(e, name);
        m->datasets = grown;
        m->cap_datasets = cap;
    }
    const char *copy = arena_strndup(&m->arena, name, len);
    if (!copy)
        return no_memory(e, "?");
    m->datasets[m->n_datasets++] = copy;
    return 0;
}

int imatrix_add_dataset(struct imatrix *m, const char *name, struct err *e)
{
    return imatrix_add_dataset_n(m, name, strlen(name), e);
}

uint32_t imatrix_chunk_size(const struct imatrix *m)
{
    return m->chunk_size;
}

uint32_t imatrix_chunk_count(const struct imatrix *m)
{
    return m->chunk_count;
}

size_t imatrix_n_ignored(const struct imatrix *m)
{
    return m->n_ignored;
}

bool imatrix_counts_are_chunks(const struct imatrix *m)
{
    return m->counts_are_chunks;
}

void imatrix_set_chunks(struct imatrix *m, uint32_t chunk_size, uint32_t chunk_count)
{
    if (m->counts_are_chunks && chunk_size) {
        for (size_t i = 0; i < m->n; i++) {
            struct imatrix_entry *x = m->entries[i];
            for (uint64_t k = 0; k < x->n_values; k++)
                x->sums[k] *= chunk_size;
            for (uint64_t k = 0; k < x->n_mats; k++)
                x->counts[k] *= chunk_size;
        }
        m->counts_are_chunks = false;
    }
    m->chunk_size = chunk_size;
    m->chunk_count = chunk_count;
}

double imatrix_max_count(const struct imatrix *m)
{
    double max = 0;
    for (size_t i = 0; i < m->n; i++)
        for (uint64_t k = 0; k < m->entries[i]->n_mats; k++)
            if (m->entries[i]->counts[k] > max)
                max = m->entries[i]->counts[k];
    return max;
}

/* --- merging --- */

static int replicate_count(struct imatrix *m, struct imatrix_entry *x, uint64_t n_mats, struct err *e)
{
    double *counts = arena_array(&m->arena, n_mats, sizeof *counts);
    if (!counts)
        return no_memory(e, x->name);
    for (uint64_t k = 0; k < n_mats; k++)
        counts[k] = x->counts[0];
    x->counts = counts;
    x->n_mats = n_mats;
    return 0;
}

/* `scale` turns what `from` counts in into tokens; `spread`: its single count is for every matrix. */
static int merge_entry(struct imatrix *into, const struct imatrix_entry *from, double scale, bool spread,
                       struct err *e)
{
    struct imatrix_entry *x = find(into, from->name);
    int rc = 0;
    if (!x)
        rc = imatrix_add(into, from->name, from->n_values, from->n_mats, &x, e);
    else if (x->n_values != from->n_values)
        rc = err_set(e, ERR_ARG, "importance of '%s': %" PRIu64 " and %" PRIu64 " values cannot be merged",
                     x->name, x->n_values, from->n_values);
    else if (x->n_mats == 1 && from->n_mats > 1)
        rc = replicate_count(into, x, from->n_mats, e);
    else if (x->n_mats != from->n_mats && !(spread && from->n_mats == 1))
        rc = err_set(e, ERR_ARG, "importance of '%s': %" PRIu64 " and %" PRIu64 " counts cannot be merged",
                     x->name, x->n_mats, from->n_mats);
    if (rc)
        return rc;
    for (uint64_t k = 0; k < x->n_values; k++)
        x->sums[k] += from->sums[k] * scale;
    for (uint64_t k = 0; k < x->n_mats; k++)
        x->counts[k] += from->counts[from->n_mats == 1 ? 0 : k] * scale;
    return 0;
}

const char *imatrix_model(const struct imatrix *m)
{
    return m->model;
}

const char *imatrix_run(const struct imatrix *m)
{
    return m->run;
}

void imatrix_set_run(struct imatrix *m, const char *run)
{
    snprintf(m->run, sizeof m->run, "%s", run);
}

void imatrix_set_model(struct imatrix *m, const char *identity)
{
    snprintf(m->model, sizeof m->model, "%s", identity);
}

int imatrix_merge(struct imatrix *into, const struct imatrix *from, struct err *e)
{
    bool into_empty = into->n == 0;
    double scale = 1;
    int rc = 0;
    if (into_empty && into->chunk_size == 0) {
        into->chunk_size = from->chunk_size;
        into->counts_are_chunks = from->counts_are_chunks;
        imatrix_set_model(into, from->model);
    } else if (into->counts_are_chunks != from->counts_are_chunks) {
        uint32_t tokens = into->chunk_size ? into->chunk_size : from->chunk_size;
        tokens = tokens ? tokens : IMATRIX_DEFAULT_CHUNK;
        if (into->counts_are_chunks)
            imatrix_set_chunks(into, tokens, into->chunk_count);
        else
            scale = tokens;
        into->chunk_size = tokens;
    }
    for (size_t i = 0; i < from->n && rc == 0; i++)
        rc = merge_entry(into, from->entries[i], scale, from->counts_are_chunks, e);
    for (size_t i = 0; i < from->n_datasets && rc == 0; i++)
        rc = imatrix_add_dataset(into, from->datasets[i], e);
    if (rc)
        return rc;
    into->all_experts |= from->all_experts;
    into->by_router |= from->by_router;
    uint64_t prior = (uint64_t)into->expert_prior + from->expert_prior;
    into->expert_prior = prior < UINT32_MAX ? (uint32_t)prior : UINT32_MAX;
    double tokens_per_chunk = into->counts_are_chunks ? 1
                              : into->chunk_size      ? into->chunk_size
                                                      : IMATRIX_DEFAULT_CHUNK;
    double chunks = floor(imatrix_max_count(into) / tokens_per_chunk);
    into->chunk_count = chunks < UINT32_MAX ? (uint32_t)chunks : UINT32_MAX;
    return 0;
}

/* --- use --- */

int imatrix_weights(const struct imatrix_entry *entry, uint64_t mat, uint64_t n_mats, uint64_t n_cols,
                    float *out, struct err *e)
{
    uint64_t n;
    if (__builtin_mul_overflow(n_mats, n_cols, &n) || n != entry->n_values || mat >= n_mats)
        return err_set(e, ERR_ARG,
                       "importance of '%s': has %" PRIu64 " values, the tensor needs %" PRIu64 " x %" PRIu64,
                       entry->name, entry->n_values, n_mats, n_cols);
    uint64_t width = entry->n_values / entry->n_mats;
    for (uint64_t k = 0; k < n_cols; k++) {
        uint64_t q = mat * n_cols + k;
        float sum = (float)entry->sums[q], count = (float)entry->counts[q / width];
        out[k] = count > 0 ? sum / count : 1;
        if (!isfinite(out[k]))
            return err_set(e, ERR_FORMAT, "importance of '%s': value %" PRIu64 " is not finite", entry->name,
                           q);
    }
    return 0;
}

/* --- files --- */

int imatrix_load_memory(struct imatrix **out, const void *data, size_t len, const char *what, struct err *e)
{
    struct imatrix *m = NULL;
    int rc = imatrix_new(&m, e);
    if (rc)
        return rc;
    bool is_gguf = len >= 4 && (memcmp(data, "GGUF", 4) == 0 || memcmp(data, "FUGG", 4) == 0);
    rc = is_gguf ? imatrix_parse_gguf(m, data, len, what, e) : imatrix_parse_dat(m, data, len, what, e);
    if (rc) {
        imatrix_free(m);
        return rc;
    }
    imatrix_sort(m);
    *out = m;
    return 0;
}

int imatrix_load(struct imatrix **out, const char *path, struct err *e)
{
    struct filemap map;
    int rc = filemap_open(&map, path, e);
    if (rc)
        return rc;
    rc = imatrix_load_memory(out, map.data, map.size, path, e);
    filemap_close(&map);
    return rc;
}

int imatrix_save(const struct imatrix *m, const char *path, enum imatrix_format format, bool overwrite,
                 struct err *e)
{
    void *data = NULL;
    size_t n = 0;
    int rc =
        format == IMATRIX_GGUF ? imatrix_build_gguf(m, &data, &n, e) : imatrix_build_dat(m, &data, &n, e);
    if (rc)
        err_context(e, rc, "%s", path);
    else
        rc = output_file_write_all(path, data, n, overwrite, e);
    free(data);
    return rc;
}
