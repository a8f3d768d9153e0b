/* toy_gguf.c - see toy_gguf.h. */
#include "toy_gguf.h"

#include "toy_checkpoint.h"
#include "toy_family.h"

#include "calib/eval/evaluate.h"
#include "calib/eval/perplexity.h"
#include "calib/stats/imatrix_collect.h"
#include "formats/gguf/gguf_read.h"
#include "formats/rewrite/rewrite.h"
#include "libquant/kern/kern.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CTX       32
#define N_WINDOWS 2

const char *const toy_gguf_names[] = {
    "qwen2",      "qwen3",          "llama",          "mistral",   "qwen",       "mixtral",
    "qwen2moe",   "qwen3moe",       "qwen3moe-mixed", "qwen3next", "qwen35",     "qwen35moe",
    "qwen3vlmoe", "embedding-last", "embedding-mean", "score",     "stepreward", NULL};

static void in(char out[128], const struct toy_gguf *g, const char *name)
{
    snprintf(out, 128, "%s/%s", g->folder, name);
}

static int read_all(uint8_t **out, size_t *n, const char *path, struct err *e)
{
    FILE *f = fopen(path, "rb");
    long size = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    uint8_t *bytes = size >= 0 ? malloc((size_t)size + 1) : NULL;
    bool ok = bytes && fseek(f, 0, SEEK_SET) == 0 && fread(bytes, 1, (size_t)size, f) == (size_t)size;
    if (f)
        fclose(f);
    if (!ok) {
        free(bytes);
        return err_set(e, ERR_IO, "%s: cannot be read", path);
    }
    *out = bytes;
    *n = (size_t)size;
    return 0;
}

static int write_all(const char *path, const void *bytes, size_t n, struct err *e)
{
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(bytes, 1, n, f) == n;
    if (f)
        ok &= fclose(f) == 0;
    return ok ? 0 : err_set(e, ERR_IO, "%s: cannot be written", path);
}

/* Every matrix in `type`, importance given or not. */
static int rewrite(const char *from, const char *to, const char *type, const struct imatrix *imatrix,
                   struct err *e)
{
    struct model *m = NULL;
    struct pool *pool = NULL;
    struct model_options mo = {.kern = kern_native()};
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp", .mix = mix_find(type), .pure = true},
                                  .imatrix = imatrix,
                                  .imatrix_path = "toy.gguf",
                                  .overwrite = true,
                                  .measure = true,
                                  .memory_bytes = 64 << 20,
                                  .kern = kern_native()};
    int rc = pool_new(&pool, 1, e);
    opt.pool = pool;
    if (rc == 0)
        rc = model_open(&m, from, &mo, e);
    if (rc == 0)
        rc = rewrite_model(NULL, m, to, &opt, e);
    model_close(m);
    pool_free(pool);
    return rc;
}

int toy_gguf_convert(struct toy_gguf *g, struct err *e)
{
    char path[128];
    in(path, g, "f32.gguf");
    int rc = rewrite(g->folder, path, "F32", NULL, e);
    free(g->bytes);
    g->bytes = NULL;
    g->n_bytes = 0;
    return rc == 0 ? read_all(&g->bytes, &g->n_bytes, path, e) : rc;
}

static int write_checkpoint(const char *folder, const char *name, struct err *e)
{
    static const char *const dense[TOY_ARCH_COUNT] = {"qwen2", "qwen3", "llama", "mistral"};
    for (int a = 0; a < TOY_ARCH_COUNT; a++)
        if (strcmp(name, dense[a]) == 0) {
            struct toy_spec spec = toy_spec_tiny((enum toy_arch)a);
            spec.hidden = 64;
            spec.ffn = 64;
            spec.head_dim = 16;
            return toy_checkpoint_write(folder, &spec, e);
        }
    return toy_family_write(folder, name, e);
}

int toy_gguf_make(struct toy_gguf *g, const char *name, struct err *e)
{
    const char *tmp = getenv("TMPDIR");
    *g = (struct toy_gguf){.n_bytes = 0};
    if (snprintf(g->folder, sizeof g->folder, "%s/kerf-toy-XXXXXX", tmp ? tmp : "/tmp") >=
            (int)sizeof g->folder ||
        !mkdtemp(g->folder)) {
        g->folder[0] = 0;
        return err_set(e, ERR_IO, "no folder for '%s'", name);
    }
    int rc = write_checkpoint(g->folder, name, e);
    return rc == 0 ? toy_gguf_convert(g, e) : rc;
}

void toy_gguf_release(struct toy_gguf *g)
{
    DIR *d = g->folder[0] ? opendir(g->folder) : NULL;
    for (struct dirent *ent; d && (ent = readdir(d)) != NULL;) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", g->folder, ent->d_name);
        if (strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0)
            remove(path);
    }
    if (d)
        closedir(d);
    if (g->folder[0])
        rmdir(g->folder);
    free(g->bytes);
    *g = (struct toy_gguf){.n_bytes = 0};
}

bool toy_gguf_poke(struct toy_gguf *g, const char *tensor, uint64_t i, float value)
{
    struct gguf_reader *r = NULL;
    if (gguf_reader_open_memory(&r, g->bytes, g->n_bytes, "toy", NULL, NULL) != 0)
        return false;
    const struct gguf_tensor *t = gguf_reader_find(r, tensor);
    bool found = t && t->type == QTYPE_F32 && t->n_bytes > 0;
    if (found)
        memcpy(g->bytes + t->offset + 4 * (i % gguf_tensor_n_elems(t)), &value, 4);
    gguf_reader_close(r);
    return found;
}

struct run {
    struct model *model;
    struct net net;
    struct weights *weights;
    struct corpus corpus;
    struct windows windows;
    struct pool *pool;
};

static void run_release(struct run *r)
{
    windows_release(&r->windows);
    corpus_release(&r->corpus);
    weights_free(r->weights);
    net_release(&r->net);
    model_close(r->model);
    pool_free(r->pool);
}

static int run_open(struct run *r, const char *path, struct err *e)
{
    int32_t ids[CTX * N_WINDOWS];
    struct model_options mo = {.kern = kern_native()};
    struct window_options wo = {.ctx = CTX, .bos = -1};
    *r = (struct run){.model = NULL};
    int rc = pool_new(&r->pool, 1, e);
    if (rc == 0)
        rc = model_open(&r->model, path, &mo, e);
    if (rc == 0)
        rc = net_init(&r->net, r->model, e);
    if (rc == 0)
        rc = weights_new(&r->weights, r->model, kern_native(), e);
    for (uint64_t i = 0; rc == 0 && i < CTX * N_WINDOWS; i++)
        ids[i] = (int32_t)((i * i * i * 101 + i * i * 31 + 7 * i + 11) % r->net.n_vocab);
    if (rc == 0)
        rc = corpus_add_tokens(&r->corpus, "ids", ids, CTX * N_WINDOWS, NULL, 0, e);
    return rc == 0 ? windows_cut(&r->windows, &r->corpus, &wo, e) : rc;
}

static int perplexity_of_file(double *out, const char *path, struct err *e)
{
    struct run r;
    struct evaluation v = {0};
    struct perplexity p = {0};
    int rc = run_open(&r, path, e);
    struct evaluate_model m = {.name = "toy", .net = &r.net, .weights = r.weights};
    struct evaluate_options opt = {.pool = r.pool, .memory_bytes = 64 << 20};
    *out = 0;
    if (rc == 0 && r.net.answer == NET_TOKENS) {
        rc = evaluate(&v, &m, 1, &r.windows, &opt, e);
        if (rc == 0)
            perplexity_of(&p, v.nll[0], v.n, v.run);
        *out = p.perplexity;
        evaluation_release(&v);
    }
    run_release(&r);
    return rc;
}

static int collect(struct imatrix **out, struct toy_figures *f, const char *path, struct err *e)
{
    struct run r;
    struct imatrix_collected c = {0};
    int rc = run_open(&r, path, e);
    struct imatrix_collect_options opt = {.pool = r.pool, .memory_bytes = 64 << 20, .perplexity = true};
    if (rc == 0)
        rc = imatrix_collect(&c, &r.net, r.weights, &r.windows, &opt, e);
    if (rc == 0) {
        f->imatrix_perplexity = r.net.answer == NET_TOKENS ? c.perplexity : 0;
        f->n_entries = imatrix_n(c.imatrix);
        for (size_t i = 0; i < f->n_entries; i++)
            for (uint64_t k = 0; k < imatrix_entry_at(c.imatrix, i)->n_values; k++)
                f->sum += (double)imatrix_entry_at(c.imatrix, i)->sums[k];
        *out = c.imatrix;
    }
    run_release(&r);
    return rc;
}

int toy_gguf_run(const struct toy_gguf *g, struct toy_figures *f, struct err *e)
{
    char source[128], quantized[128];
    struct imatrix *imatrix = NULL;
    *f = (struct toy_figures){.n_entries = 0};
    in(source, g, "toy.gguf");
    in(quantized, g, "quantized.gguf");
    int rc = write_all(source, g->bytes, g->n_bytes, e);
    if (rc == 0)
        rc = perplexity_of_file(&f->perplexity, source, e);
    if (rc == 0)
        rc = collect(&imatrix, f, source, e);
    if (rc == 0)
        rc = f->quantized = rewrite(source, quantized, "Q4_0", imatrix, e);
    if (rc == 0)
        rc = f->quantized = rewrite(source, quantized, "Q8_0", NULL, e);
    if (rc == 0)
        rc = perplexity_of_file(&f->quantized_ppl, quantized, e);
    imatrix_free(imatrix);
    return rc;
}
