/* allocate.h - types for all tensors of a model: least expected loss within a number of bytes.
 *
 *     allocator_new(&a, &table, &options, &e);
 *     allocator_solve(a, 5000000000, &result, &e);   // a whole file of at most 5 GB
 *     allocator_plan(a, &result, &text, &e);         // what `kerf quantize --plan` reads
 *     allocation_release(&result);
 *     allocator_free(a);
 *
 * Budgets count the whole output file: header, metadata, padding, the tensors that no plan changes, and the
 * factors beside blocks that a tensor keeps with its type, as the writer will lay them out. The choice is the
 * multiple-choice knapsack of knapsack.h over the losses of loss_table.h; gate and up projections of one
 * layer get the same type, since runtimes run them as one product only then. The same table and options give
 * the same choice on every machine. */
#ifndef KERF_ALLOCATE_H
#define KERF_ALLOCATE_H

#include "loss_table.h"

enum allocate_bound { ALLOCATE_MIN, ALLOCATE_MAX, ALLOCATE_FIX };

/* Tensors whose name the pattern (PCRE) finds have at least or at most the bits per weight of the type, or
 * just this type; all rules that match hold. A type that rows do not divide into stands for its fallback. */
struct allocate_rule {
    const char *pattern;
    enum allocate_bound bound;
    enum qtype type;
};

struct allocate_options {
    const struct allocate_rule *rules;
    size_t n_rules;
    bool without_source;      /* the type a tensor has already is no choice, unless a rule names it */
    bool free_pairs;          /* gate and up may differ */
    const char *imatrix_path; /* as quantize will be told: it stands in the metadata */
    uint64_t record_bytes;    /* what the writer may add to the metadata of a planned file */
    bool requantize;
    struct pool *pool;
    const struct kern *kern;
};

struct allocation {
    size_t *choice; /* [table->n_tensors] index of the option; owned */
    double loss, lower_bound;
    uint64_t n_bytes; /* of the file */
    uint64_t budget_bytes;
    double bits_per_weight; /* of all tensors */
};

struct allocator;

/* Room for the record of error feedback: settings, text, losses of held-out groups, hashes. */
#define ALLOCATE_FEEDBACK_RECORD_BYTES 8192

/* Borrows `table` and the options' pointers until allocator_free. Its losses are looked at by
 * allocator_solve: they may come later, and what is possible is known before. ERR_ARG: a rule that matches
 * nothing, or rules that leave a tensor without a type. */
int allocator_new(struct allocator **out, const struct loss_table *table, const struct allocate_options *opt,
                  struct err *e);
void allocator_free(struct allocator *a);

/* What kerf quantize would warn of about the importance matrix, known before anything is measured. */
size_t allocator_n_warnings(const struct allocator *a);
const char *allocator_warning(const struct allocator *a, size_t i);

/* Bytes of the smallest and of the largest file that the rules allow, up to some bytes of metadata. */
uint64_t allocator_min_bytes(const struct allocator *a);
uint64_t allocator_max_bytes(const struct allocator *a);

/* File size that has `bits_per_weight` in its tensors. */
uint64_t allocator_budget_of_bits(const struct allocator *a, double bits_per_weight);

/* File size whose tensors take `n_bytes` in memory. */
uint64_t allocator_budget_of_weights(const struct allocator *a, uint64_t n_bytes);

/* ERR_ARG: no choice is small enough; the message gives the size of the smallest. Needs no losses. */
int allocator_check(const struct allocator *a, uint64_t budget_bytes, struct err *e);

/* The same refusal, else the choice. */
int allocator_solve(const struct allocator *a, uint64_t budget_bytes, struct allocation *out, struct err *e);
void allocation_release(struct allocation *r);

/* The plan as text (plan.h), with what it is expected to cost in comments, and `remark` (one line, or NULL)
 * as another. *text: malloc'ed, caller frees. */
int allocator_plan(const struct allocator *a, const struct allocation *r, const char *remark, char **text,
                   struct err *e);

/* What a mix of the recipe rules would cost by the same table; `known` false: it uses a type that the table
 * does not have, and its loss is 0, or the rules refuse it, and all is 0. */
struct mix_price {
    bool known;
    double loss, bits_per_weight;
    uint64_t n_bytes; /* of the file */
};

/* 0 or ERR_NOMEM. */
int allocator_price_mix(const struct allocator *a, const struct mix *mix, struct mix_price *out,
                        struct err *e);

/* The standard mix to hold a plan of so many bytes against: the largest whose file is not larger, but for
 * 1 KiB that keys of the importance matrix may take, of the mixes that users know by level (K-quants, IQ,
 * Q8_0) and whose types can be written; of equals the one with the least expected loss. *out NULL: none is so
 * small. 0 or ERR_NOMEM. */
int allocator_standard_mix(const struct allocator *a, uint64_t budget_bytes, const struct mix **out,
                           struct err *e);

/* The choice that is the mix itself. *took false, and nothing is changed, when rules or types forbid it or
 * its file is larger than the budget. *out as from allocator_solve. 0 or ERR_NOMEM. */
int allocator_take_mix(const struct allocator *a, const struct mix *mix, uint64_t budget_bytes,
                       struct allocation *out, bool *took, struct err *e);

/* Weights of the model as the choice has them. Borrows the table's model; caller frees with weights_free. */
int allocator_weights(const struct allocator *a, const struct allocation *r, struct weights **out,
                      struct err *e);

const struct loss_table *allocator_table(const struct allocator *a);
const struct allocate_options *allocator_options(const struct allocator *a);

#endif
