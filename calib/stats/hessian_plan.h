/* hessian_plan.h - which Gram matrices a model has: one for each distinct input of its products, and one more
 * for keys and for values, whose inputs are weighed by what attention does with them.
 *
 * The first-order loss of a product y = W x is tr(E H E^T), H = E[x x^T]. For most products x is plain. A
 * token that attention looks at a lot matters more to K and V than one in 512 tells (in late layers the first
 * token of a window receives half of the mass), so
 *
 *     mass    (K)  token j weighs sum_i p_ij, the mass it receives, averaged over heads;
 *     mixed   (V)  the rows are z = sum_j p_ij x_j, what the values' product really averages over.
 *
 * Attention over latents has one matrix for both (attn_kv_a_mqa), weighed by mass.
 *
 * Truth: specification, feedback, "The finding". */
#ifndef KERF_HESSIAN_PLAN_H
#define KERF_HESSIAN_PLAN_H

#include "calib/model/model_load.h"
#include "libquant/base/arena.h"

enum hessian_weighting { HESSIAN_PLAIN, HESSIAN_MASS, HESSIAN_MIXED };

/* The layer of what is multiplied behind all layers: the head, whose inputs are the final states. */
#define HESSIAN_BEHIND UINT32_MAX

struct hessian_gram {
    const char *name;  /* of its tensor in a Hessian file: the owner's name and ".gram", ".gram_mass", ... */
    const char *owner; /* the first tensor that multiplies this input */
    uint64_t n_cols, n_mats; /* n_mats: experts or heads of a stack, else 1 */
    enum hessian_weighting weighting;
    uint32_t layer; /* or HESSIAN_BEHIND */
};

/* Rows [row0, row0 + n_rows) of each matrix of a tensor take their Hessian from a Gram matrix. */
struct hessian_use {
    const char *tensor;
    uint64_t row0, n_rows;
    size_t gram;
    int64_t pool; /* Gram matrix of all tokens of the layer, to which experts are shrunk; -1: none */
};

struct hessian_plan {
    struct arena arena;
    struct hessian_gram *grams; /* by layer */
    size_t n_grams, grams_cap;
    struct hessian_use *uses; /* by layer */
    size_t n_uses, uses_cap;
};

/* All matrices of the layers of `net`, and its language head, if it has one. The head takes part in no
 * importance matrix here, as in those of `kerf imatrix` (imatrix_sums.h). *out: caller releases with
 * hessian_plan_release, zeroed structs too. */
int hessian_plan_make(struct hessian_plan *out, const struct net *net, struct err *e);
void hessian_plan_release(struct hessian_plan *p);

/* What the matrices take in a file, which is nearly all of it. */
uint64_t hessian_plan_bytes(const struct hessian_plan *p);

/* For readers of files: one more of each; names are copied. *index of the new Gram matrix. */
int hessian_plan_add_gram(struct hessian_plan *p, const struct hessian_gram *g, size_t *index, struct err *e);
int hessian_plan_add_use(struct hessian_plan *p, const struct hessian_use *u, struct err *e);

#endif
