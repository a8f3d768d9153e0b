/* cpu.h - the parts of compute_cpu, for its own files (cpu_*.c).
 *
 * A buffer is plain memory under another name, so a region is a pointer: cpu_at. Work is cut into jobs for
 * the pool; each worker has a piece of scratch memory, which grows to what the largest job asked for. */
#ifndef KERF_CPU_H
#define KERF_CPU_H

#include "compute.h"
#include "gemm.h"

#define ROWS_PER_JOB 64 /* of cheap row-wise steps */

struct cpu_scratch {
    float *data;
    size_t n;
};

struct cpu {
    struct compute base;
    struct pool *pool;               /* borrowed */
    const struct kern *level;        /* borrowed */
    const struct kern_product *kern; /* of `level` */
    enum activations activations;
    struct cpu_scratch *workers, rounded;
};

static inline struct cpu *cpu_of(struct compute *c)
{
    return (struct cpu *)(void *)c;
}

/* NULL: a region that is none. */
static inline float *cpu_at(struct region r)
{
    return r.buffer ? (float *)(void *)r.buffer + r.at : NULL;
}

static inline struct region cpu_region(float *p)
{
    return (struct region){(struct buffer *)(void *)p, 0};
}

static inline size_t cpu_jobs(size_t n, size_t per_job)
{
    return (n + per_job - 1) / per_job;
}

/* At least n floats, 64-byte aligned, contents undefined, valid until the next call; NULL when memory is
 * refused. The second form is one worker's. */
float *cpu_grow(struct cpu_scratch *s, size_t n);
float *cpu_scratch(struct cpu *c, unsigned worker, size_t n);

/* How heads are kept: F32 exactly, else in blocks of `type`, `turn` entries at a time turned before. */
struct cpu_storage {
    enum qtype type;
    size_t turn;
};
#define CPU_MAX_HEAD 4096 /* entries */

/* The head as it comes back, in place. ERR_ARG: its length does not fit the type. */
int cpu_store_head(const struct kern *kern, const struct cpu_storage *s, float *head, size_t dim,
                   struct err *e);

/* n_rows heads that lie side by side. */
int cpu_store_heads(const struct kern *kern, const struct cpu_storage *s, float *x, size_t n_rows, size_t dim,
                    struct err *e);

/* Decodes rows [row0, row0 + b->n_rows) of `t` into b, strip by strip; `strip` holds gemm_rows_at_once rows.
 */
int cpu_read_panel(const struct weights *w, const struct model_tensor *t, uint64_t row0,
                   const struct gemm_matrix *b, float *strip, struct err *e);

/* What compute_cpu's table consists of; compute.h says what each does. */
int cpu_states_get(struct compute *c, const struct hidden_states *h, size_t row0, size_t n,
                   struct region buffer, struct region *rows, struct err *e);
int cpu_embed(struct compute *c, const struct weights *w, const struct model_tensor *t, const int32_t *ids,
              size_t n_tokens, struct region to, struct err *e);
int cpu_products(struct compute *c, const struct weights *w, struct region x, size_t n_tokens, size_t ldx,
                 const struct product *p, size_t n_products, struct err *e);
int cpu_rms_norm(struct compute *c, struct region y, struct region x, size_t n_tokens, size_t n_cols,
                 const float *weight, float eps, struct err *e);
int cpu_scale(struct compute *c, struct region x, size_t n, float factor, struct err *e);
int cpu_add_scaled(struct compute *c, struct region y, struct region x, size_t n, float factor,
                   struct err *e);
int cpu_swiglu(struct compute *c, struct region gate, struct region up, size_t n_tokens, size_t n_cols,
               struct err *e);
int cpu_swiglu_clamped(struct compute *c, struct region gate, struct region up, size_t n_tokens,
                       size_t n_cols, struct err *e);
int cpu_geglu(struct compute *c, struct region gate, struct region up, size_t n_tokens, size_t n_cols,
              struct err *e);
int cpu_rotate_heads(struct compute *c, const struct head_rows *h, struct err *e);
int cpu_attention(struct compute *c, const struct attention_heads *a, struct err *e);
int cpu_look_at_attention(struct compute *c, const struct attention_heads *a,
                          const struct attention_look *look, struct err *e);
int cpu_gate_heads(struct compute *c, const struct gated_heads *g, struct err *e);
int cpu_pack_rows(struct compute *c, struct region x, size_t n_rows, size_t n_cols, size_t ld, struct err *e);
int cpu_scale_rows(struct compute *c, struct region x, size_t n_rows, size_t n_cols, struct region weight,
                   struct err *e);
int cpu_route(struct routing **out, struct compute *c, const struct expert_choice *choice,
              struct region logits, size_t n, struct err *e);
void cpu_routing_free(struct compute *c, struct routing *g);
int cpu_gather(struct compute *c, const struct routing *g, size_t begin, size_t end, struct region rows,
               struct region x, size_t n_cols, struct err *e);
int cpu_add_weighted(struct compute *c, const struct routing *g, size_t begin, size_t end, struct region h,
                     struct region rows, size_t n_cols, struct err *e);
int cpu_split_pairs(struct compute *c, const struct delta_block *d, struct region both, struct err *e);
int cpu_delta_net(struct compute *c, const struct delta_block *d, struct err *e);
int cpu_score(struct compute *c, const struct scoring *s, struct head_score *scores, struct err *e);

#endif
