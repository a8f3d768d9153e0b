/* model_identity.c - see model_identity.h. */
#include "model_identity.h"

#include "model_files.h"

#include "formats/gguf/gguf_hash.h"
#include "formats/gguf/gguf_read.h"
#include "libquant/base/filemap.h"
#include "libquant/base/path.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SAMPLED_ROWS 8 /* of each tensor */

/* --- quick --- */

struct quick {
    struct sha256 *h;
    struct timespec *newest;
};

static int quick_file(void *ctx, const char *path, const struct stat *st, struct err *e)
{
    (void)e;
    struct quick *q = ctx;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    sha256_update(q->h, name, strlen(name) + 1); /* without the folder: it may be reached in another way */
    sha256_update_u64(q->h, (uint64_t)st->st_size);
    sha256_update_u64(q->h, (uint64_t)st->st_mtim.tv_sec);
    sha256_update_u64(q->h, (uint64_t)st->st_mtim.tv_nsec);
    if (q->newest)
        model_files_later(q->newest, st);
    return 0;
}

int model_identity_quick(struct sha256 *h, const char *path, struct timespec *newest, struct err *e)
{
    struct quick q = {h, newest};
    return model_files_each(path, quick_file, &q, e);
}

/* --- sampled --- */

static int sample_tensor(struct sha256 *h, const struct model *m, const struct model_tensor *t, float *row,
                         struct err *e)
{
    uint64_t n = t->n_rows < SAMPLED_ROWS ? t->n_rows : SAMPLED_ROWS;
    int rc = 0;
    sha256_update(h, t->name, strlen(t->name) + 1);
    sha256_update(h, t->ne, sizeof t->ne);
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        rc = model_read_rows(m, t, (2 * i + 1) * t->n_rows / (2 * n), 1, row, e);
        if (rc == 0)
            sha256_update(h, row, (size_t)t->ne[0] * sizeof *row);
    }
    return rc;
}

int model_identity_sampled(struct sha256 *h, const struct model *m, const struct model_tensor *const *tensors,
                           size_t n, struct err *e)
{
    uint64_t most = 1;
    int rc = 0;
    for (size_t i = 0; i < n; i++)
        most = tensors[i]->ne[0] > most ? tensors[i]->ne[0] : most;
    float *row = most < SIZE_MAX / sizeof *row ? malloc((size_t)most * sizeof *row) : NULL;
    if (!row)
        return err_set(e, ERR_NOMEM, "out of memory for a row of %llu values", (unsigned long long)most);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = sample_tensor(h, m, tensors[i], row, e);
    free(row);
    return rc;
}

struct number {
    const char *key;
    const struct gguf_value *value;
};

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct number *)a)->key, ((const struct number *)b)->key);
}

int model_identity_numbers(struct sha256 *h, const struct model *m, struct err *e)
{
    const struct gguf_meta *meta = model_meta(m);
    const char *arch = model_arch_name(m);
    size_t n_arch = strlen(arch), n = 0;
    struct number *list = malloc((gguf_meta_n(meta) + 1) * sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory for the list of metadata keys");
    for (size_t i = 0; i < gguf_meta_n(meta); i++) {
        const char *key = gguf_meta_key(meta, i);
        if (strncmp(key, arch, n_arch) == 0 && key[n_arch] == '.')
            list[n++] = (struct number){key, gguf_meta_value(meta, i)};
    }
    qsort(list, n, sizeof *list, by_key);
    for (size_t i = 0; i < n; i++) {
        const struct gguf_value *v = list[i].value;
        sha256_update(h, list[i].key, strlen(list[i].key) + 1);
        if (v->type == GGUF_STRING)
            sha256_update(h, v->s.data, (size_t)v->s.len);
        else if (v->type == GGUF_ARRAY)
            sha256_update(h, v->a.data, (size_t)v->a.n * gguf_type_size(v->a.elem));
        else
            sha256_update(h, &v->u, sizeof v->u);
    }
    free(list);
    return 0;
}

/* --- full --- */

static int full_gguf(char out[65], const char *path, struct pool *pool, const struct progress *progress,
                     struct err *e)
{
    struct gguf_reader *r = NULL;
    struct gguf_hash h = {0};
    int rc = gguf_reader_open(&r, path, NULL, e);
    if (rc == 0)
        rc = gguf_hash_model(&h, r, pool, progress, e);
    if (rc == 0)
        sha256_hex(h.model, out);
    gguf_hash_release(&h);
    gguf_reader_close(r);
    return rc;
}

static int is_content(const struct dirent *d)
{
    static const char ending[] = ".safetensors";
    return strcmp(d->d_name, "config.json") == 0 ||
           (strlen(d->d_name) >= sizeof ending && path_ends_with(d->d_name, ending));
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int full_file(struct sha256 *s, const char *folder, const char *name, const struct progress *progress,
                     struct err *e)
{
    char path[4096];
    struct filemap m = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int rc = filemap_open(&m, path, e);
    if (rc != 0)
        return rc;
    uint64_t n_name = strlen(name), n = m.size;
    sha256_update(s, &n_name, sizeof n_name);
    sha256_update(s, name, n_name);
    sha256_update(s, &n, sizeof n);
    const size_t step = 1u << 22;
    for (size_t i = 0; rc == 0 && i < m.size; i += step) {
        size_t len = m.size - i < step ? m.size - i : step;
        sha256_update(s, m.data + i, len);
        filemap_drop(m.data + i, len);
        rc = progress_tell(
            progress,
            &(struct progress_step){.done = (double)(i + len), .total = (double)m.size, .what = name}, e);
    }
    filemap_close(&m);
    return rc;
}

static int full_folder(char out[65], const char *path, const struct progress *progress, struct err *e)
{
    struct dirent **list = NULL;
    int n = scandir(path, &list, is_content, by_bytes), rc = 0;
    struct sha256 s;
    if (n < 0)
        return err_set(e, ERR_IO, "%s: cannot list the folder: %s", path, strerror(errno));
    sha256_init(&s);
    for (int i = 0; i < n; i++) {
        if (rc == 0)
            rc = full_file(&s, path, list[i]->d_name, progress, e);
        free(list[i]);
    }
    free(list);
    if (rc == 0)
        sha256_final_hex(&s, out);
    return rc;
}

void model_identity_adapters(struct sha256 *h, const struct model *m)
{
    for (size_t i = 0; i < model_n_adapters(m); i++) {
        struct model_adapter_report a = model_adapter_report(m, i);
        sha256_update(h, a.sha256, 64);
        sha256_update(h, &a.scale, sizeof a.scale);
    }
}

/* Weights with adapters are others than those of the files. */
static void add_adapters(char out[65], const struct model *m)
{
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, out, 64);
    model_identity_adapters(&s, m);
    sha256_final_hex(&s, out);
}

int model_identity_full(char out[65], const struct model *m, struct pool *pool,
                        const struct progress *progress, struct err *e)
{
    int rc = model_is_gguf(m) ? full_gguf(out, model_path(m), pool, progress, e)
                              : full_folder(out, model_path(m), progress, e);
    if (rc == 0 && model_n_adapters(m))
        add_adapters(out, m);
    return rc;
}
