/* loss_table.h - what each tensor would cost in each type: the expected divergence of the model's predictions
 * from those of the unquantized model, in nats per token, when only that tensor is stored in that type.
 *
 *     loss_table_init(&t, model, imatrix, types, n_types, &e);    // tensors, types, bytes
 *     loss_table_load(&t, "model.losses", &e);                    // figures of an earlier run, or
 *     loss_table_measure(&t, &net, weights, &windows, &opt, &e);  // figures from the model itself
 *     loss_table_save(&t, "model.losses", false, &e);
 *
 * Two ways to measure. Fast probes (fast_probe.c), at most LOSS_MAX_PASSES passes over the text whatever the
 * model: each tensor is quantized in its layer alone, the change of the layer's output is measured, and a
 * curve over depth, measured at six layers, turns it into divergence; what that would get wrong (embedding,
 * head, layers that make massive activations) is measured to the output. Full probes (sensitivity.c): each
 * tensor alone is quantized, the layers behind it are run again, and the divergence is averaged over the
 * text, for a few types of each tensor.
 *
 * For the other types the loss follows the proxy (proxy_error.c), the importance-weighted squared error of
 * the rows as they are really encoded: where both are known, ln(loss) is interpolated linearly in ln(proxy).
 * Losses of different tensors add up as far as their errors are small and independent. Truth: specification,
 * calibration-and-evaluation 10.2, level D, and allocation, design H.
 *
 * The figures are a file, bound to the weights by a hash that does not depend on the container, so that a
 * table measured on a checkpoint serves its GGUF conversion, any budget and any constraint. */
#ifndef KERF_LOSS_TABLE_H
#define KERF_LOSS_TABLE_H

#include "calib/corpus.h"
#include "calib/compute/compute.h"
#include "calib/model/forward.h"
#include "calib/model/model_load.h"
#include "calib/model/weights.h"
#include "libquant/base/arena.h"

struct imatrix;
struct pool;

enum loss_probe { LOSS_PROBE_FULL, LOSS_PROBE_FAST };

#define LOSS_MAX_PASSES  20.0 /* of fast probes, the confirming measurement (confirm.h) included */
#define LOSS_MAX_DEPTHS  6
#define LOSS_MAX_MASSIVE 8

struct loss_option {
    enum qtype type;
    uint64_t n_bytes; /* of the tensor's data */
    double proxy;     /* weighted squared error; NaN until known, 0 for the source's own type */
    double local;     /* relative squared change of the layer's output, a mean over tokens; NaN: unknown */
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

/* A layer that was quantized as a whole: beta = kld / local, nats for each unit of relative change. */
struct loss_depth {
    uint32_t layer;
    double local; /* sum over the layer's tensors */
    double kld, kld_stderr;
};

struct loss_table {
    const struct model *model; /* borrowed */
    enum loss_probe probe;     /* how it is measured: the caller's, before it measures or continues */
    const struct imatrix *imatrix;
    struct arena arena;
    struct loss_tensor *tensors; /* every tensor that may be quantized, in the order of their names */
    size_t n_tensors;
    char weights_sha256[65]; /* names, shapes, sampled rows, metadata numbers, and adapters */
    char imatrix_sha256[65]; /* "" without importance */
    char ids_sha256[65];     /* the token ids it was measured on; "" until known */
    size_t ctx, n_windows, n_scored;
    struct loss_depth depths[LOSS_MAX_DEPTHS]; /* of fast probes, by rising layer */
    size_t n_depths;
    uint32_t massive[LOSS_MAX_MASSIVE]; /* layers whose feed-forward tensors were measured to the output */
    size_t n_massive;
    double passes;                /* whole forward passes over these windows that this run took so far */
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

/* Every quantized type that can be written, into types [QTYPE_COUNT]; how many. */
size_t loss_table_all_types(enum qtype *types);

/* The hashes alone, in hexadecimal, to compare with those of a table or a plan. Of the weights a few rows of
 * each tensor are read. */
int loss_weights_hash(const struct model *m, char out[65], struct err *e);
void loss_imatrix_hash(const struct imatrix *imatrix, char out[65]);

struct loss_measure {
    struct pool *pool;
    const struct kern *kern;
    uint64_t memory_bytes;
    bool requantize;          /* sources may be quantized */
    const enum qtype *probes; /* of full probes: types to measure; tensors whose rows do not divide use the
                                 fallback's */
    size_t n_probes;          /* 0: every option is measured */
    double passes_kept_back;  /* of fast probes: passes that the caller needs later */
    struct progress progress; /* a share; names the stage */
    /* Where the figures are kept while they are measured: about every `state_seconds`, at the end, and when
     * the run fails or is cancelled. It is the caller's to remove. NULL: nowhere. */
    const char *state_path;
    double state_seconds;
    const struct compute_ops *compute; /* what computes; NULL: the back end of this machine */
};

enum loss_kept {
    LOSS_KEPT_NOTHING, /* no file is there */
    LOSS_KEPT_TAKEN,
    LOSS_KEPT_UNFIT,   /* a file of kerf's, but of other weights, importance, probes or windows, or damaged */
    LOSS_KEPT_STRANGE, /* a file of somebody else's */
};

/* Take up what a stopped run kept in its state file: loss_table_measure then leaves out what is known, and
 * its result has the bytes of a run that was never stopped. *kept says what was found; of what cannot be
 * taken up *why says in what it differs, and no figure is known. Fails (ERR_IO, ERR_NOMEM, in *why) where the
 * file cannot be read. */
int loss_table_continue(enum loss_kept *kept, struct loss_table *t, const char *state_path,
                        const struct windows *w, struct err *why);

/* Measurements that the options ask for, and how many of them are known. Types that turn out to lose nothing
 * count until their proxies are known. Of fast probes the local ones are counted. */
void loss_table_count(const struct loss_table *t, const struct loss_measure *opt, size_t *n_known, size_t *n);

/* Would loss_table_measure be refused for want of memory (ERR_ARG, with what it needs)? To be asked before
 * other long work. */
int loss_table_check(const struct loss_table *t, const struct net *net, struct weights *base,
                     const struct windows *w, const struct loss_measure *opt, struct err *e);

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
#define PROXY_SAMPLE ((uint64_t)1 << 16)
int loss_table_proxies(struct loss_table *t, const struct windows *w, const struct loss_measure *opt,
                       double share, struct err *e);

/* Divergences of full probes (sensitivity.c). */
int loss_table_probe(struct loss_table *t, const struct net *net, struct weights *base,
                     const struct windows *w, const struct loss_measure *opt, double share, struct err *e);

/* Local changes, depths and divergences of fast probes (fast_probe.c). */
struct forward_options loss_forward(const struct loss_table *t, const struct windows *w,
                                    const struct loss_measure *opt);
int loss_table_probe_fast(struct loss_table *t, const struct net *net, struct weights *base,
                          const struct windows *w, const struct loss_measure *opt, double share,
                          struct err *e);

/* The option that fast probes measure a tensor in: Q3_K, else the one nearest to it in bits; NULL: none. */
struct loss_option *loss_probe_option(const struct loss_tensor *t);

/* Divergence for each unit of local change in a layer: ln beta is linear between the depths, and constant
 * beyond them. 1 when no depth tells. */
double loss_beta(const struct loss_table *t, double layer);

/* The layer a tensor's name speaks of ("blk.7."), or -1. */
int loss_layer(const struct loss_tensor *t);

/* Does this type, or one with less error in no more bytes, make the option pointless? Needs proxies. */
bool loss_is_dominated(const struct loss_tensor *t, const struct loss_option *o);

/* Write the state file if there is to be one and it is time, or at once when `now` (loss_file.c). */
int loss_table_keep(struct loss_table *t, const struct windows *w, const struct loss_measure *opt, bool now,
                    struct err *e);

#endif
