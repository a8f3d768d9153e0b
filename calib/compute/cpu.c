/* cpu.c - compute_cpu: our own processor. Here are its memory and its table; the arithmetic is in the other
 * cpu_*.c, by subject. */
#include "cpu.h"

#include "calib/model/weights.h"

#include <stdlib.h>
#include <string.h>

#define TILE_TOKENS 1024 /* measured: bench_forward, tests/bench/NOTES.md */

/* Tokens per tile for windows of `ctx` tokens: whole windows as far as they are short. */
static size_t tile_of(size_t ctx)
{
    if (ctx > 2 * TILE_TOKENS)
        return TILE_TOKENS;
    return ctx < TILE_TOKENS ? TILE_TOKENS / ctx * ctx : ctx;
}

static int cpu_open(struct compute **out, const struct compute_setup *s, struct err *e)
{
    struct cpu *c = calloc(1, sizeof *c);
    struct cpu_scratch *workers = calloc(pool_n_threads(s->pool), sizeof *workers);
    if (!c || !workers) {
        free(c);
        free(workers);
        return err_set(e, ERR_NOMEM, "out of memory for the workers");
    }
    const struct kern *level = s->kern ? s->kern : kern_native();
    *c = (struct cpu){.base = {&compute_cpu, tile_of(s->ctx)},
                      .pool = s->pool,
                      .level = level,
                      .kern = level->product,
                      .activations = s->activations,
                      .workers = workers};
    *out = &c->base;
    return 0;
}

static void cpu_close(struct compute *base)
{
    struct cpu *c = cpu_of(base);
    for (unsigned i = 0; i < pool_n_threads(c->pool); i++)
        free(c->workers[i].data);
    free(c->workers);
    free(c->rounded.data);
    free(c);
}

float *cpu_grow(struct cpu_scratch *s, size_t n)
{
    if (n <= s->n)
        return s->data;
    free(s->data);
    size_t n_bytes = (n * sizeof(float) + 63) / 64 * 64;
    s->data = aligned_alloc(64, n_bytes);
    s->n = s->data ? n : 0;
    return s->data;
}

float *cpu_scratch(struct cpu *c, unsigned worker, size_t n)
{
    return cpu_grow(&c->workers[worker], n);
}

static int cpu_buffer_new(struct buffer **out, struct compute *c, size_t n, struct err *e)
{
    (void)c;
    void *p = malloc(n * sizeof(float) + 1);
    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory for a buffer of %zu values", n);
    *out = p;
    return 0;
}

static void cpu_buffer_free(struct compute *c, struct buffer *b)
{
    (void)c;
    free(b);
}

static int cpu_upload(struct compute *c, struct region to, const float *from, size_t n, struct err *e)
{
    (void)c;
    (void)e;
    memcpy(cpu_at(to), from, n * sizeof *from);
    return 0;
}

static int cpu_download(struct compute *c, float *to, struct region from, size_t n, struct err *e)
{
    (void)c;
    (void)e;
    memcpy(to, cpu_at(from), n * sizeof *to);
    return 0;
}

static int cpu_look(struct compute *c, const float **out, struct region r, size_t n, struct err *e)
{
    (void)c;
    (void)n;
    (void)e;
    *out = cpu_at(r);
    return 0;
}

static int cpu_states_new(struct hidden_states **out, struct compute *c, size_t n_rows, size_t n_cols,
                          uint64_t memory_bytes, struct err *e)
{
    (void)c;
    return hidden_states_new(out, n_rows, n_cols, memory_bytes, e);
}

int cpu_states_get(struct compute *c, const struct hidden_states *h, size_t row0, size_t n,
                   struct region buffer, struct region *rows, struct err *e)
{
    (void)c;
    float *p = NULL;
    int rc = hidden_states_get(h, row0, n, cpu_at(buffer), &p, e);
    *rows = cpu_region(p);
    return rc;
}

static int cpu_states_put(struct compute *c, struct hidden_states *h, size_t row0, size_t n,
                          struct region rows, struct err *e)
{
    (void)c;
    return hidden_states_put(h, row0, n, cpu_at(rows), e);
}

static int cpu_weights_load(struct compute *c, struct weights *w, const struct model_tensor *const *list,
                            size_t n, struct err *e)
{
    return weights_load(w, list, n, cpu_of(c)->pool, e);
}

static void cpu_weights_unload(struct compute *c, struct weights *w)
{
    (void)c;
    weights_unload(w);
}

const struct compute_ops compute_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .buffer_new = cpu_buffer_new,
    .buffer_free = cpu_buffer_free,
    .upload = cpu_upload,
    .download = cpu_download,
    .look = cpu_look,
    .states_new = cpu_states_new,
    .states_get = cpu_states_get,
    .states_put = cpu_states_put,
    .weights_load = cpu_weights_load,
    .weights_unload = cpu_weights_unload,
    .embed = cpu_embed,
    .products = cpu_products,
    .rms_norm = cpu_rms_norm,
    .swiglu = cpu_swiglu,
    .geglu = cpu_geglu,
    .swiglu_clamped = cpu_swiglu_clamped,
    .rotate_heads = cpu_rotate_heads,
    .attention = cpu_attention,
    .look_at_attention = cpu_look_at_attention,
    .gate_heads = cpu_gate_heads,
    .pack_rows = cpu_pack_rows,
    .scale = cpu_scale,
    .add_scaled = cpu_add_scaled,
    .scale_rows = cpu_scale_rows,
    .route = cpu_route,
    .routing_free = cpu_routing_free,
    .gather = cpu_gather,
    .add_weighted = cpu_add_weighted,
    .split_pairs = cpu_split_pairs,
    .delta_net = cpu_delta_net,
    .score = cpu_score,
};
