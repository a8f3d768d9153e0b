/* loss_table.h - what each tensor would cost in each type: the expected divergence of the model's predictions
 * from those of the unquantized model, in nats per token, when only that tensor is stored in that type.
 *
 *     loss_table_init(&t, model, imatrix, types, n_types, &e);    // tensors, types, bytes
 *     loss_table_load(&t, "model.losses", &e);                    // figures of an earlier run, or
 *     loss_table_measure(&t, &net, weights, &windows, &opt, &e);  // figures from the model itself
 *     loss_table_save(&t, "model.losses", false, &e);
 *
 * The loss of a type is measured (sensitivity.c) for a few probe types of each tensor: the tensor alone is
 * quantized, the layers behind it are run again, and the divergence is averaged over the text. For the types
 * between, the loss follows the proxy (proxy_error.c), the importance-weighted squared error of the rows as
 * they are really encoded: where both are known, ln(loss) is interpolated linearly in ln(proxy). Losses of
 * different tensors add up as far as their errors are small and independent. Truth: specification,
 * calibration-and-evaluation 10.2, level D.
 *
 * The figures are a file, bound to the weights by a hash that does not depend on the container, so that a
 * table measured on a checkpoint serves its GGUF conversion, any budget and any constraint. */
#ifndef KERF_LOSS_TABLE_H
#define KERF_LOSS_TABLE_H

#include "calib/corpus.h"
#include "calib/compute/compute.h"
#include "calib/model/model_load.h"
#include "calib/model/weights.h"
#include "libquant/base/arena.h"

struct imatrix;
struct pool;

struct loss_option {
    enum qtype type;
    uint64_t n_bytes;       /* of the tensor's data */
    double proxy;           /* weighted squared error; NaN until known, 0 for the source's own type */
    double kld, kld_stderr; /* measured, nats per token; NaN where it was not */
    double loss;            /* expected, nats per token; NaN until known */
};

struct loss_tensor {
    const struct model_tensor *tensor; /* borrowed from the model */
    const struct imatrix_entry *importance;
    struct loss_option *options; /* by rising bytes, then type id; the last but not least is the source's own
                                    type, without loss */
    size_t n_options;
};

struct loss_table {
    const struct model *model; /* borrowed */
    const struct imatrix *imatrix;
    struct arena arena;
    struct loss_tensor *tensors; /* every tensor that may be quantized, in the order of their names */
    size_t n_tensors;
    char weights_sha256[65]; /* names, shapes and sampled rows */
    char imatrix_sha256[65]; /* "" without importance */
    char ids_sha256[65];     /* the token ids it was measured on; "" until known */
    size_t ctx, n_windows, n_scored;
    enum activations activations; /* in which it is measured: the caller's, before it measures or continues */
    bool is_kept;                 /* there is a state file of this run, */
    size_t n_kept;                /* with so many measurements, */
    double kept_at;               /* last written at this time of a monotonic clock, or not yet since then */
};

/* The tensors of `m` that may change type, with one option for each distinct type that `types` leads to after
 * the fallback of rows that do not divide, and the type they have. Types that require importance are left out
 * where there is none. Borrows `m` and `imatrix` (may be NULL) until loss_table_release. ERR_ARG: a type that
 * cannot be encoded, or no tensor at all. */
int loss_table_init(struct loss_table *out, const struct model *m, const struct imatrix *imatrix,
                    const enum qtype *types, size_t n_types, struct err *e);
void loss_table_release(struct loss_table *t);

/* The hashes alone, in hexadecimal, to compare with those of a table or a plan. Of the weights a few rows of
 * each tensor are read. */
int loss_weights_hash(const struct model *m, char out[65], struct err *e);
void loss_imatrix_hash(const struct imatrix *imatrix, char out[65]);

struct loss_measure {
    struct pool *pool;
    const struct kern *kern;
    uint64_t memory_bytes;
    bool requantize;          /* sources may be quantized */
    const enum qtype *probes; /* types to measure; tensors whose rows do not divide use the fallback's */
    size_t n_probes;          /* 0: every option is measured */
    int (*progress)(void *ctx, double done, const char *what); /* done 0..1; nonzero cancels; or NULL */
    void *progress_ctx;
    /* Where the figures are kept while they are measured: about every `state_seconds`, at the end, and when
     * the run fails or is cancelled. It is the caller's to remove. NULL: nowhere. */
    const char *state_path;
    double state_seconds;
    const struct compute_ops *compute; /* what computes; NULL: the back end of this machine */
};

/* Take up what a stopped run kept in its state file: loss_table_measure then leaves out what is known, and
 * its result has the bytes of a run that was never stopped. ERR_ARG when it was of other weights, importance
 * or windows; ERR_FORMAT: damaged. After a failure no figure is known. */
int loss_table_continue(struct loss_table *t, const char *state_path, const struct windows *w, struct err *e);

/* Measurements that the options ask for, and how many of them are known. Types that turn out to lose nothing
 * count until their proxies are known. */
void loss_table_count(const struct loss_table *t, const struct loss_measure *opt, size_t *n_known, size_t *n);

/* Fill proxies, measurements and losses; those that are known are left out. Windows as from windows_cut;
 * their scored positions count. */
int loss_table_measure(struct loss_table *t, const struct net *net, struct weights *base,
                       const struct windows *w, const struct loss_measure *opt, struct err *e);

/* Losses from proxies and measurements; loss_table_measure does it, and loss_table_load takes them as stored.
 */
void loss_table_fit(struct loss_table *t);

/* JSON, version 1. Load: every option of the table must be there; ERR_ARG names what the file was made for
 * and what it lacks; ERR_FORMAT: damaged. Figures are rounded to what the measurement is good for. */
int loss_table_save(const struct loss_table *t, const char *path, bool overwrite, struct err *e);
int loss_table_load(struct loss_table *t, const char *path, struct err *e);

/* The option of a type, or NULL. */
const struct loss_option *loss_table_option(const struct loss_tensor *t, enum qtype type);

/* --- parts of loss_table_measure, in files of their own --- */

/* Proxies of all options (proxy_error.c). Tensors of up to PROXY_SAMPLE values are encoded whole; of larger
 * ones, evenly spread rows of about that many values, scaled up. */
#define PROXY_SAMPLE ((uint64_t)1 << 22)
int loss_table_proxies(struct loss_table *t, const struct windows *w, const struct loss_measure *opt,
                       double share, struct err *e);

/* Divergences of the probes (sensitivity.c). */
int loss_table_probe(struct loss_table *t, const struct net *net, struct weights *base,
                     const struct windows *w, const struct loss_measure *opt, double share, struct err *e);

/* Write the state file if there is to be one and it is time, or at once when `now` (loss_file.c). */
int loss_table_keep(struct loss_table *t, const struct windows *w, const struct loss_measure *opt, bool now,
                    struct err *e);

#endif
