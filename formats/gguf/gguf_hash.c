/* gguf_hash.c - see gguf_hash.h. */
#include "gguf_hash.h"

#include "libquant/base/filemap.h"
#include "libquant/base/sha256.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((size_t)4 << 20)

static void add_text(struct sha256 *s, const char *text)
{
    sha256_update(s, text, strlen(text));
}

static void add_u32(struct sha256 *s, uint32_t v)
{
    sha256_update(s, &v, sizeof v);
}

/* --- tensors --- */

struct hashing {
    struct gguf_tensor_hash *tensors;
    const struct progress *progress;
    uint64_t n_bytes;
    _Atomic uint64_t done;
    atomic_bool stopped;
};

/* Only the calling thread may tell; the others hear from it. `what`: a tensor, or NULL. */
static void tell(struct hashing *h, const char *what)
{
    const struct progress_step step = {
        .done = (double)atomic_load(&h->done), .total = (double)h->n_bytes, .what = what};
    if (!atomic_load(&h->stopped) && progress_stops(h->progress, &step))
        atomic_store(&h->stopped, true);
}

/* The others may be in large tensors for long. */
static void tell_of_others(void *ctx)
{
    tell(ctx, NULL);
}

static int check_stopped(struct hashing *h, struct err *e)
{
    return atomic_load(&h->stopped) ? err_set(e, ERR_CANCELLED, ERR_STOPPED) : 0;
}

static int hash_tensor(void *ctx, size_t job, unsigned worker, struct err *e)
{
    struct hashing *all = ctx;
    struct gguf_tensor_hash *h = &all->tensors[job];
    const struct gguf_tensor *t = h->tensor;
    struct sha256 s;
    if (!t->data)
        return err_set(e, ERR_ARG, "tensor '%s': its data is missing", t->name);
    sha256_init(&s);
    for (uint64_t at = 0; at < t->n_bytes;) {
        size_t n = t->n_bytes - at < PIECE_BYTES ? (size_t)(t->n_bytes - at) : PIECE_BYTES;
        sha256_update(&s, t->data + at, n);
        filemap_drop(t->data + at, n);
        at += n;
        atomic_fetch_add(&all->done, n);
        if (worker == 0)
            tell(all, t->name);
        int rc = check_stopped(all, e);
        if (rc != 0)
            return rc;
    }
    sha256_final(&s, h->data);
    sha256_init(&s);
    add_text(&s, "kerf tensor 1\n");
    sha256_update_u64(&s, strlen(t->name));
    add_text(&s, t->name);
    add_u32(&s, (uint32_t)t->type);
    for (int d = 0; d < 4; d++)
        sha256_update_u64(&s, t->ne[d]);
    sha256_update(&s, h->data, sizeof h->data);
    sha256_final(&s, h->digest);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct gguf_tensor_hash *x = a, *y = b;
    return strcmp(x->tensor->name, y->tensor->name);
}

/* --- metadata --- */

static void add_value(struct sha256 *s, const struct gguf_value *v)
{
    float f;
    switch (v->type) {
    case GGUF_STRING:
        sha256_update_u64(s, v->s.len);
        sha256_update(s, v->s.data, v->s.len);
        break;
    case GGUF_F32:
        f = (float)v->f;
        sha256_update(s, &f, sizeof f);
        break;
    case GGUF_F64: sha256_update(s, &v->f, sizeof v->f); break;
    case GGUF_ARRAY: {
        struct gguf_string text;
        add_u32(s, (uint32_t)v->a.elem);
        sha256_update_u64(s, v->a.n);
        for (uint64_t i = 0; gguf_array_string(v, i, &text); i++) {
            sha256_update_u64(s, text.len);
            sha256_update(s, text.data, text.len);
        }
        if (v->a.elem != GGUF_STRING)
            sha256_update(s, v->a.data, v->a.n * gguf_type_size(v->a.elem));
        break;
    }
    default: sha256_update(s, &v->u, gguf_type_size(v->type)); break;
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int hash_metadata(const struct gguf_meta *m, uint8_t digest[32], struct err *e)
{
    size_t n = 0;
    const char **keys = calloc(gguf_meta_n(m) + 1, sizeof *keys);
    if (!keys)
        return err_set(e, ERR_NOMEM, "hash of the metadata: out of memory");
    for (size_t i = 0; i < gguf_meta_n(m); i++) {
        const char *key = gguf_meta_key(m, i);
        if (strcmp(key, "general.alignment") != 0 && strncmp(key, "split.", 6) != 0)
            keys[n++] = key;
    }
    qsort(keys, n, sizeof *keys, by_text);
    struct sha256 s;
    sha256_init(&s);
    add_text(&s, "kerf metadata 1\n");
    sha256_update_u64(&s, n);
    for (size_t i = 0; i < n; i++) {
        const struct gguf_value *v = gguf_meta_find(m, keys[i]);
        sha256_update_u64(&s, strlen(keys[i]));
        add_text(&s, keys[i]);
        add_u32(&s, (uint32_t)v->type);
        add_value(&s, v);
    }
    sha256_final(&s, digest);
    free(keys);
    return 0;
}

int gguf_hash_model(struct gguf_hash *out, const struct gguf_reader *r, struct pool *pool,
                    const struct progress *progress, struct err *e)
{
    struct gguf_hash h = {.n_tensors = gguf_reader_n_tensors(r)};
    struct hashing hashing = {.progress = progress};
    struct sha256 s;
    h.tensor = calloc(h.n_tensors + 1, sizeof *h.tensor);
    if (!h.tensor)
        return err_set(e, ERR_NOMEM, "hash: out of memory");
    hashing.tensors = h.tensor;
    for (size_t i = 0; i < h.n_tensors; i++) {
        h.tensor[i].tensor = gguf_reader_tensor(r, i);
        hashing.n_bytes += h.tensor[i].tensor->n_bytes;
    }
    int rc = pool_run_watched(pool, h.n_tensors, hash_tensor, tell_of_others, &hashing, e);
    if (rc == 0)
        rc = check_stopped(&hashing, e); /* behind the last job */
    if (rc == 0)
        rc = hash_metadata(gguf_reader_meta(r), h.metadata, e);
    if (rc) {
        gguf_hash_release(&h);
        return rc;
    }
    if (h.n_tensors)
        qsort(h.tensor, h.n_tensors, sizeof *h.tensor, by_name);
    sha256_init(&s);
    add_text(&s, "kerf tensors 1\n");
    sha256_update_u64(&s, h.n_tensors);
    for (size_t i = 0; i < h.n_tensors; i++)
        sha256_update(&s, h.tensor[i].digest, sizeof h.tensor[i].digest);
    sha256_final(&s, h.tensors);
    sha256_init(&s);
    add_text(&s, "kerf model 1\n");
    sha256_update(&s, h.tensors, sizeof h.tensors);
    sha256_update(&s, h.metadata, sizeof h.metadata);
    sha256_final(&s, h.model);
    *out = h;
    return 0;
}

void gguf_hash_release(struct gguf_hash *h)
{
    if (!h)
        return;
    free(h->tensor);
    *h = (struct gguf_hash){0};
}
