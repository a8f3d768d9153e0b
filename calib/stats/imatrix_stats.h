/* imatrix_stats.h - what an importance matrix says about each tensor and layer, and how well it covers the
 * model.
 *
 * The figures are those of the peer's statistics table (specification, calibration-and-evaluation 4), from
 * the values a = S/C of all matrices with C > 0; coverage is ours. */
#ifndef KERF_IMATRIX_STATS_H
#define KERF_IMATRIX_STATS_H

#include "formats/gguf/imatrix_file.h"

struct imatrix_tensor_stats {
    const char *name;  /* borrowed from the imatrix */
    int64_t layer;     /* n of "blk.<n>.", -1 when the name has none */
    uint64_t n_values; /* values with data */
    double sum, min, max, mean, std_dev;
    double active;       /* percent of values above 1e-5 in magnitude */
    double entropy;      /* bits, of the distribution a / sum */
    double entropy_norm; /* percent of log2 n */
    double z_density;    /* percent of values more than one standard deviation above the mean */
    double
        cos_sim; /* of the raw sums with those of the same tensor one layer below; NaN: none, or all zero */
    uint64_t n_experts;                         /* number of counts: 1 for plain tensors */
    uint64_t n_starved;                         /* counts of zero */
    double tokens_min, tokens_mean, tokens_max; /* over the counts */
};

struct imatrix_layer_stats {
    int64_t layer;
    double sum, z_density; /* averages weighted by n_values */
    double cos_sim;        /* the same, over the tensors that have one; NaN: none has */
};

struct imatrix_stats {
    struct imatrix_tensor_stats *tensors; /* by tensor kind (name without "blk.<n>."), then sum descending */
    size_t n_tensors;
    struct imatrix_layer_stats *layers; /* by layer number */
    size_t n_layers;
    size_t n_without_data;    /* tensors whose counts are all zero */
    size_t n_starved_experts; /* imatrix_starved_experts */
};

/* Experts of an entry that saw no token; 0 where it is of one matrix. */
size_t imatrix_entry_starved(const struct imatrix_entry *entry);

/* Experts of the whole that saw no token: each counts once, though it has matrices in several entries of its
 * layer. */
size_t imatrix_starved_experts(const struct imatrix *m);

/* *out: caller releases with imatrix_stats_release; it borrows names from `m`. */
int imatrix_stats_compute(struct imatrix_stats *out, const struct imatrix *m, struct err *e);
void imatrix_stats_release(struct imatrix_stats *s);

#endif
