/* far_compute.c - see far_compute.h. */
#include "far_compute.h"

#include "calib/compute/cpu.h"
#include "calib/model/weights.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct buffer {
    float *pages;
    size_t n_bytes;
    struct buffer *next, **link; /* all buffers there are */
};

struct far {
    struct compute base;
    struct compute *near; /* computes what is not written out here */
    float *seen;          /* what was last looked at, on the host */
};

static struct buffer *all;
static size_t n_copied;
static unsigned n_inside; /* functions of the table that run; states may be read by several threads */
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;

static struct far *far_of(struct compute *c)
{
    return (struct far *)(void *)c;
}

static void protect(int how)
{
    for (struct buffer *b = all; b; b = b->next)
        if (mprotect(b->pages, b->n_bytes, how) != 0)
            abort();
}

static void open_pages(void)
{
    pthread_mutex_lock(&door);
    if (n_inside++ == 0)
        protect(PROT_READ | PROT_WRITE);
    pthread_mutex_unlock(&door);
}

static int close_pages(int rc)
{
    pthread_mutex_lock(&door);
    if (--n_inside == 0)
        protect(PROT_NONE);
    pthread_mutex_unlock(&door);
    return rc;
}

static void count_copy(size_t n)
{
    pthread_mutex_lock(&door);
    n_copied += n;
    pthread_mutex_unlock(&door);
}

const volatile float *far_pages(const struct buffer *b)
{
    return b->pages;
}

size_t far_n_copied(void)
{
    return n_copied;
}

static int buffer_init(struct buffer *b, size_t n, struct err *e)
{
    b->n_bytes = (n * sizeof(float) + 4096) / 4096 * 4096;
    b->pages = mmap(NULL, b->n_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->pages == MAP_FAILED)
        return err_set(e, ERR_NOMEM, "out of far memory for %zu values", n);
    b->next = all;
    b->link = &all;
    if (all)
        all->link = &b->next;
    all = b;
    return 0;
}

static void buffer_release(struct buffer *b)
{
    *b->link = b->next;
    if (b->next)
        b->next->link = b->link;
    munmap(b->pages, b->n_bytes);
}

/* The place as compute_cpu names it. */
static struct region near_region(struct region r)
{
    if (!r.buffer)
        return r;
    if (r.at * sizeof(float) > r.buffer->n_bytes)
        abort();
    return region_at(cpu_region(r.buffer->pages), r.at);
}

static float *far_at(struct region r)
{
    return cpu_at(near_region(r));
}

static int far_open(struct compute **out, const struct compute_setup *s, struct err *e)
{
    struct far *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = compute_open(&f->near, &compute_cpu, s, e);
    if (rc != 0) {
        free(f);
        return rc;
    }
    f->base = (struct compute){&compute_far, s->ctx < 32 ? 32 / s->ctx * s->ctx : 32};
    *out = &f->base;
    return 0;
}

static void far_close(struct compute *c)
{
    struct far *f = far_of(c);
    compute_close(f->near);
    free(f->seen);
    free(f);
}

/* --- memory ------------------------------------------------------------------------------------------------
 */

static int far_buffer_new(struct buffer **out, struct compute *c, size_t n, struct err *e)
{
    (void)c;
    struct buffer *b = calloc(1, sizeof *b);
    int rc = b ? buffer_init(b, n, e) : err_set(e, ERR_NOMEM, "out of memory");
    if (rc != 0)
        free(b);
    else
        *out = b;
    return rc;
}

static void far_buffer_free(struct compute *c, struct buffer *b)
{
    (void)c;
    if (!b)
        return;
    buffer_release(b);
    free(b);
}

static int far_upload(struct compute *c, struct region to, const float *from, size_t n, struct err *e)
{
    (void)c;
    (void)e;
    open_pages();
    memcpy(far_at(to), from, n * sizeof *from);
    count_copy(n);
    return close_pages(0);
}

static int far_download(struct compute *c, float *to, struct region from, size_t n, struct err *e)
{
    (void)c;
    (void)e;
    open_pages();
    memcpy(to, far_at(from), n * sizeof *to);
    count_copy(n);
    return close_pages(0);
}

static int far_look(struct compute *c, const float **out, struct region r, size_t n, struct err *e)
{
    struct far *f = far_of(c);
    free(f->seen); /* a new place each time: what was borrowed before is gone */
    f->seen = malloc(n * sizeof *f->seen + 1);
    if (!f->seen)
        return err_set(e, ERR_NOMEM, "out of memory for %zu values", n);
    *out = f->seen;
    return far_download(c, f->seen, r, n, e);
}

/* --- states: in far memory, or the host's where they do not fit
 * --------------------------------------------- */

struct far_states {
    struct hidden_states base;
    struct buffer buffer;
};

static struct far_states *states_of(const struct hidden_states *h)
{
    return (struct far_states *)(void *)(uintptr_t)(const void *)h;
}

static void states_free(struct hidden_states *h)
{
    buffer_release(&states_of(h)->buffer);
    free(h);
}

static int states_get_on_host(const struct hidden_states *h, size_t row0, size_t n, float *buffer,
                              float **rows, struct err *e)
{
    *rows = buffer;
    return far_download(NULL, buffer, (struct region){&states_of(h)->buffer, row0 * h->n_cols}, n * h->n_cols,
                        e);
}

static int states_put_from_host(struct hidden_states *h, size_t row0, size_t n, const float *rows,
                                struct err *e)
{
    return far_upload(NULL, (struct region){&states_of(h)->buffer, row0 * h->n_cols}, rows, n * h->n_cols, e);
}

static bool states_in_memory(const struct hidden_states *h)
{
    (void)h;
    return true;
}

static const struct hidden_states_kind far_kind = {states_free, states_get_on_host, states_put_from_host,
                                                   states_in_memory};

static int far_states_new(struct hidden_states **out, struct compute *c, size_t n_rows, size_t n_cols,
                          uint64_t memory_bytes, struct err *e)
{
    (void)c;
    if (n_rows * n_cols * sizeof(float) > memory_bytes)
        return hidden_states_new(out, n_rows, n_cols, memory_bytes, e);
    struct far_states *s = calloc(1, sizeof *s);
    int rc = s ? buffer_init(&s->buffer, n_rows * n_cols, e) : err_set(e, ERR_NOMEM, "out of memory");
    if (rc != 0) {
        free(s);
        return rc;
    }
    s->base = (struct hidden_states){&far_kind, n_rows, n_cols};
    *out = &s->base;
    return 0;
}

static int far_states_get(struct compute *c, const struct hidden_states *h, size_t row0, size_t n,
                          struct region buffer, struct region *rows, struct err *e)
{
    if (h->kind == &far_kind) {
        *rows = (struct region){&states_of(h)->buffer, row0 * h->n_cols};
        return 0;
    }
    float *here = malloc(n * h->n_cols * sizeof *here + 1), *p = NULL;
    int rc = here ? hidden_states_get(h, row0, n, here, &p, e) : err_set(e, ERR_NOMEM, "out of memory");
    if (rc == 0)
        rc = far_upload(c, buffer, p, n * h->n_cols, e);
    free(here);
    *rows = buffer;
    return rc;
}

static int far_states_put(struct compute *c, struct hidden_states *h, size_t row0, size_t n,
                          struct region rows, struct err *e)
{
    if (h->kind == &far_kind) {
        struct region to = {&states_of(h)->buffer, row0 * h->n_cols};
        open_pages();
        memmove(far_at(to), far_at(rows), n * h->n_cols * sizeof(float));
        return close_pages(0);
    }
    float *here = malloc(n * h->n_cols * sizeof *here + 1);
    int rc = here ? far_download(c, here, rows, n * h->n_cols, e) : err_set(e, ERR_NOMEM, "out of memory");
    if (rc == 0)
        rc = hidden_states_put(h, row0, n, here, e);
    free(here);
    return rc;
}

/* --- arithmetic that is written out
 * ------------------------------------------------------------------------- */

static int far_embed(struct compute *c, const struct weights *w, const struct model_tensor *t,
                     const int32_t *ids, size_t n_tokens, struct region to, struct err *e)
{
    (void)c;
    int rc = 0;
    open_pages();
    for (size_t i = 0; rc == 0 && i < n_tokens; i++)
        rc = weights_read(w, t, (uint64_t)ids[i], 1, far_at(to) + i * t->ne[0], e);
    return close_pages(rc);
}

/* One element: stretches of GEMM_CHAIN terms, each a chain of fused multiply-adds, added up in order. */
static float product_of(float y, bool add, const float *x, const float *w, size_t n_cols)
{
    for (size_t p = 0; p < n_cols; p += GEMM_CHAIN) {
        float sum = 0;
        for (size_t i = p; i < p + GEMM_CHAIN && i < n_cols; i++)
            sum = fmaf(x[i], w[i], sum);
        y = add || p > 0 ? y + sum : sum;
    }
    return y;
}

static int multiply(struct far *f, const struct weights *w, const float *x, size_t n_tokens, size_t ldx,
                    const struct product *p, struct err *e)
{
    size_t n_cols = p->weight->ne[0], last = p->n_tokens ? p->token0 + p->n_tokens : n_tokens;
    enum rounding rounding = rounding_of(cpu_of(f->near)->activations, weights_type(w, p->weight));
    float *row = malloc(n_cols * sizeof *row), *rounded = malloc(n_tokens * n_cols * sizeof *rounded + 1);
    int rc = row && rounded ? 0 : err_set(e, ERR_NOMEM, "out of memory");
    for (size_t t = 0; rc == 0 && t < n_tokens; t++)
        round_row(rounding, rounded + t * n_cols, x + t * ldx, n_cols);
    for (size_t i = 0; rc == 0 && i < p->n_rows; i++) {
        rc = weights_read(w, p->weight, p->row0 + i, 1, row, e);
        for (size_t t = p->token0; rc == 0 && t < last; t++) {
            float *y = far_at(p->y) + t * p->ldy + i;
            if (p->bias)
                *y = p->add ? *y + p->bias[i] : p->bias[i];
            *y = product_of(*y, p->add || p->bias, rounded + t * n_cols, row, n_cols);
        }
    }
    free(row);
    free(rounded);
    return rc;
}

static int far_products(struct compute *c, const struct weights *w, struct region x, size_t n_tokens,
                        size_t ldx, const struct product *p, size_t n_products, struct err *e)
{
    int rc = 0;
    open_pages();
    for (size_t i = 0; rc == 0 && i < n_products; i++)
        rc = multiply(far_of(c), w, far_at(x), n_tokens, ldx, &p[i], e);
    return close_pages(rc);
}

static int far_pack_rows(struct compute *c, struct region x, size_t n_rows, size_t n_cols, size_t ld,
                         struct err *e)
{
    (void)c;
    (void)e;
    open_pages();
    for (size_t i = 0; i < n_rows; i++)
        for (size_t k = 0; k < n_cols; k++)
            far_at(x)[i * n_cols + k] = far_at(x)[i * ld + k];
    return close_pages(0);
}

/* --- arithmetic of compute_cpu, on opened pages
 * -------------------------------------------------------------- */

static int far_weights_load(struct compute *c, struct weights *w, const struct model_tensor *const *list,
                            size_t n, struct err *e)
{
    return compute_cpu.weights_load(far_of(c)->near, w, list, n, e);
}

static void far_weights_unload(struct compute *c, struct weights *w)
{
    compute_cpu.weights_unload(far_of(c)->near, w);
}

static int far_rms_norm(struct compute *c, struct region y, struct region x, size_t n_tokens, size_t n_cols,
                        const float *weight, float eps, struct err *e)
{
    open_pages();
    return close_pages(
        cpu_rms_norm(far_of(c)->near, near_region(y), near_region(x), n_tokens, n_cols, weight, eps, e));
}

static int far_swiglu(struct compute *c, struct region gate, struct region up, size_t n_tokens, size_t n_cols,
                      struct err *e)
{
    open_pages();
    return close_pages(cpu_swiglu(far_of(c)->near, near_region(gate), near_region(up), n_tokens, n_cols, e));
}

static int far_swiglu_clamped(struct compute *c, struct region gate, struct region up, size_t n_tokens,
                              size_t n_cols, struct err *e)
{
    open_pages();
    return close_pages(
        cpu_swiglu_clamped(far_of(c)->near, near_region(gate), near_region(up), n_tokens, n_cols, e));
}

static int far_geglu(struct compute *c, struct region gate, struct region up, size_t n_tokens, size_t n_cols,
                     struct err *e)
{
    open_pages();
    return close_pages(cpu_geglu(far_of(c)->near, near_region(gate), near_region(up), n_tokens, n_cols, e));
}

static int far_rotate_heads(struct compute *c, const struct head_rows *h, struct err *e)
{
    struct head_rows near = *h;
    near.x = near_region(h->x);
    open_pages();
    return close_pages(cpu_rotate_heads(far_of(c)->near, &near, e));
}

static int far_attention(struct compute *c, const struct attention_heads *a, struct err *e)
{
    struct attention_heads near = *a;
    near.queries = near_region(a->queries);
    near.keys = near_region(a->keys);
    near.values = near_region(a->values);
    open_pages();
    return close_pages(cpu_attention(far_of(c)->near, &near, e));
}

static int far_look_at_attention(struct compute *c, const struct attention_heads *a,
                                 const struct attention_look *look, struct err *e)
{
    struct attention_heads near = *a;
    struct attention_look far = *look;
    near.queries = near_region(a->queries);
    near.keys = near_region(a->keys);
    near.values = near_region(a->values);
    far.x = near_region(look->x);
    open_pages();
    return close_pages(cpu_look_at_attention(far_of(c)->near, &near, &far, e));
}

static int far_gate_heads(struct compute *c, const struct gated_heads *g, struct err *e)
{
    struct gated_heads near = *g;
    near.x = near_region(g->x);
    open_pages();
    return close_pages(cpu_gate_heads(far_of(c)->near, &near, e));
}

static int far_scale(struct compute *c, struct region x, size_t n, float factor, struct err *e)
{
    (void)c;
    (void)e;
    open_pages();
    for (size_t i = 0; i < n; i++)
        far_at(x)[i] *= factor;
    return close_pages(0);
}

static int far_add_scaled(struct compute *c, struct region y, struct region x, size_t n, float factor,
                          struct err *e)
{
    open_pages();
    return close_pages(cpu_add_scaled(far_of(c)->near, near_region(y), near_region(x), n, factor, e));
}

static int far_scale_rows(struct compute *c, struct region x, size_t n_rows, size_t n_cols,
                          struct region weight, struct err *e)
{
    open_pages();
    return close_pages(
        cpu_scale_rows(far_of(c)->near, near_region(x), n_rows, n_cols, near_region(weight), e));
}

static int far_route(struct routing **out, struct compute *c, const struct expert_choice *choice,
                     struct region logits, size_t n, struct err *e)
{
    open_pages();
    return close_pages(cpu_route(out, far_of(c)->near, choice, near_region(logits), n, e));
}

static void far_routing_free(struct compute *c, struct routing *g)
{
    cpu_routing_free(far_of(c)->near, g);
}

static int far_gather(struct compute *c, const struct routing *g, size_t begin, size_t end,
                      struct region rows, struct region x, size_t n_cols, struct err *e)
{
    open_pages();
    return close_pages(
        cpu_gather(far_of(c)->near, g, begin, end, near_region(rows), near_region(x), n_cols, e));
}

static int far_add_weighted(struct compute *c, const struct routing *g, size_t begin, size_t end,
                            struct region h, struct region rows, size_t n_cols, struct err *e)
{
    open_pages();
    return close_pages(
        cpu_add_weighted(far_of(c)->near, g, begin, end, near_region(h), near_region(rows), n_cols, e));
}

static struct delta_block near_block(const struct delta_block *d)
{
    struct delta_block near = *d;
    near.u = near_region(d->u);
    near.z = near_region(d->z);
    near.out = near_region(d->out);
    near.beta = near_region(d->beta);
    near.decay = near_region(d->decay);
    near.tail = near_region(d->tail);
    near.carried = near_region(d->carried);
    return near;
}

static int far_split_pairs(struct compute *c, const struct delta_block *d, struct region both, struct err *e)
{
    struct delta_block near = near_block(d);
    open_pages();
    return close_pages(cpu_split_pairs(far_of(c)->near, &near, near_region(both), e));
}

static int far_delta_net(struct compute *c, const struct delta_block *d, struct err *e)
{
    struct delta_block near = near_block(d);
    open_pages();
    return close_pages(cpu_delta_net(far_of(c)->near, &near, e));
}

/* Reads states through the host, as those of any other kind. */
static int far_score(struct compute *c, const struct scoring *s, struct head_score *scores, struct err *e)
{
    return cpu_score(far_of(c)->near, s, scores, e);
}

const struct compute_ops compute_far = {
    .name = "far",
    .open = far_open,
    .close = far_close,
    .buffer_new = far_buffer_new,
    .buffer_free = far_buffer_free,
    .upload = far_upload,
    .download = far_download,
    .look = far_look,
    .states_new = far_states_new,
    .states_get = far_states_get,
    .states_put = far_states_put,
    .weights_load = far_weights_load,
    .weights_unload = far_weights_unload,
    .embed = far_embed,
    .products = far_products,
    .rms_norm = far_rms_norm,
    .swiglu = far_swiglu,
    .geglu = far_geglu,
    .swiglu_clamped = far_swiglu_clamped,
    .rotate_heads = far_rotate_heads,
    .attention = far_attention,
    .look_at_attention = far_look_at_attention,
    .gate_heads = far_gate_heads,
    .pack_rows = far_pack_rows,
    .scale = far_scale,
    .add_scaled = far_add_scaled,
    .scale_rows = far_scale_rows,
    .route = far_route,
    .routing_free = far_routing_free,
    .gather = far_gather,
    .add_weighted = far_add_weighted,
    .split_pairs = far_split_pairs,
    .delta_net = far_delta_net,
    .score = far_score,
};
