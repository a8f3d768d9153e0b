/* feedback_model.h - all matrices of a model with error feedback: solved layer by layer from a Hessian file,
 * then gated by the divergence on text that the Hessians have not seen.
 *
 *     feedback_model_new(&f, &net, type_of, ctx, &opt, &e);
 *     feedback_model_solve(f, &e);
 *     feedback_model_gate(f, &held_out, &e);          // groups that do harm go back to the plain encoder's
 * blocks blocks = feedback_model_blocks(f, tensor, type); // for the rewriting engine
 *
 * Layer loss is no gate: with the loss of every matrix below the plain encoder's, the divergence of a whole
 * model can rise (specification, feedback, "The finding"). So each group of matrices (v; k; q; o; gate and
 * up; down; in each third of the layers; and the head) is swapped alone into the model of the plain encoder;
 * one that raises the divergence by more than its error keeps the plain bytes. */
#ifndef KERF_FEEDBACK_MODEL_H
#define KERF_FEEDBACK_MODEL_H

#include "feedback_store.h"

#include "calib/corpus.h"
#include "calib/model/model_load.h"
#include "calib/model/weights.h"
#include "libquant/base/progress.h"

struct hessian_file;
struct imatrix;

enum feedback_role {
    FEEDBACK_V,
    FEEDBACK_K,
    FEEDBACK_Q,
    FEEDBACK_O,
    FEEDBACK_GATE_UP,
    FEEDBACK_DOWN,
    FEEDBACK_HEAD, /* behind the layers; a tied embedding, too. A group of its own, in the first third */
    FEEDBACK_OTHER
};
enum { FEEDBACK_N_ROLES = FEEDBACK_OTHER + 1, FEEDBACK_N_THIRDS = 3 };

const char *feedback_role_name(enum feedback_role r);

/* Can a matrix that becomes this type be solved? Another one is the plain encoder's. */
bool feedback_takes(const struct model_tensor *t, enum qtype type);

struct feedback_tensor {
    const struct model_tensor *tensor;
    enum qtype type;
    uint32_t layer;
    enum feedback_role role;
    struct feedback_figures figures;
    enum feedback_blocks chosen; /* the gate may have put it back to the plain ones */
};

/* A group of the gate, swapped in alone. Divergences in nats per token, the difference with its standard
 * error. */
struct feedback_group_result {
    size_t n_tensors; /* 0: no such group, the rest is not set */
    double kld, difference, error;
    bool is_lesser; /* keeps the plain encoder's blocks; of corrections: those without */
};

struct feedback_result {
    size_t n_windows; /* held out; 0: no gate */
    double plain_kld; /* of the model of the plain encoder; a head or embedding that is not solved as it is */
    double kld;       /* of what the gates leave, all groups together */
    double difference, error; /* from plain_kld */
    struct feedback_group_result groups[FEEDBACK_N_THIRDS][FEEDBACK_N_ROLES];
    bool has_corrections; /* the second gate has run */
    /* Of corrected matrices (feedback_sequence.h): what the first gate left, what the second one left, and
     * whether that was taken: corrected_difference (from solved_kld) is below 0. */
    double solved_kld, corrected_kld, corrected_difference, corrected_error;
    struct feedback_group_result corrections[FEEDBACK_N_THIRDS][FEEDBACK_N_ROLES]; /* each without them */
};

struct feedback_model_options {
    struct pool *pool;
    const struct kern *kern;
    uint64_t memory_bytes;
    const struct hessian_file *hessian;
    const struct imatrix *imatrix; /* of the plain encoder; NULL: none */
    struct feedback_stages stages;
    bool corrects; /* feedback_sequence.h is to be used */
    bool plain_weighting,
        least_shrinkage; /* ablations: the plain Hessian for k and v, too; lambda as for endless text */
    const char *store_path;
    bool resume;              /* take up the store of a stopped run, and keep this one's when it fails */
    const char *identity;     /* what else decides about bytes: version, weights, importance */
    struct progress progress; /* a share of the stage, which it names */
};

struct feedback_model;

/* The type that a tensor is going to have in the output; false: it is not written. */
typedef bool (*feedback_type_fn)(void *ctx, const struct model_tensor *t, enum qtype *out);

/* Chooses the tensors: those with a Hessian, rows of whole groups, and a type with error feedback that is not
 * what they have. Borrows all but the options. ERR_ARG: the Hessians are of a model of other shapes, none of
 * them is of use, or a matrix does not fit into the memory bound (the message names what it needs). */
int feedback_model_new(struct feedback_model **out, const struct net *net, feedback_type_fn type_of,
                       void *type_ctx, const struct feedback_model_options *opt, struct err *e);
void feedback_model_free(struct feedback_model *f, bool done); /* `done`: what was kept to resume goes, too */

int feedback_model_solve(struct feedback_model *f, struct err *e);
int feedback_model_gate(struct feedback_model *f, const struct windows *held_out, struct err *e);

/* Behind feedback_model_gate and feedback_model_correct, on the same windows: each group of corrected
 * matrices goes without, where that lowers the divergence by more than its error; all do, unless what is left
 * has a lower divergence than the first gate left. */
int feedback_model_gate_corrections(struct feedback_model *f, const struct windows *held_out, struct err *e);

/* The divergences of the model of the plain encoder and of all solved matrices together, into the result; no
 * group is tried and none put back. */
int feedback_model_compare(struct feedback_model *f, const struct windows *held_out, struct err *e);

/* The blocks of a tensor in that type, all rows; NULL: it was not solved. Any thread. */
const uint8_t *feedback_model_blocks(const struct feedback_model *f, const struct model_tensor *t,
                                     enum qtype type);

size_t feedback_model_n(const struct feedback_model *f);
const struct feedback_tensor *feedback_model_tensor(const struct feedback_model *f, size_t i);
const struct feedback_result *feedback_model_result(const struct feedback_model *f);
/* Layer loss over the plain encoder's, of the tensors that the gate has not put back; without any it is 1. */
double feedback_model_loss_ratio(const struct feedback_model *f);
/* What was kept to resume was another run's, and is given up. */
bool feedback_model_restarted(const struct feedback_model *f);
uint64_t feedback_model_n_resumed(const struct feedback_model *f);  /* layers that a stopped run had solved */
uint64_t feedback_model_n_unsolved(const struct feedback_model *f); /* matrices (experts) without data */

/* Gram matrices (experts) that could not be factored; the name of the first one, or NULL. */
uint64_t feedback_model_n_unfactored(const struct feedback_model *f, const char **first);

#endif
