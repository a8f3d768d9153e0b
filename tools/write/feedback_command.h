/* feedback_command.h - --method feedback and best of convert and quantize: texts and Hessians in, blocks for
 * the rewriting engine out, and what is written about it into the file. */
#ifndef KERF_FEEDBACK_COMMAND_H
#define KERF_FEEDBACK_COMMAND_H

#include "tools/cmd.h"
#include "tools/options/text_options.h"

#include "calib/corpus.h"
#include "calib/feedback/feedback_model.h"
#include "formats/rewrite/rewrite.h"

struct feedback_options {
    struct opt_list texts;
    const char *ids, *jsonl;
    const struct corpus *corpus; /* instead of these: a text that is read and cut; borrowed, or NULL */
    const struct windows *windows;
    const char *hessian;
    const char *method; /* "fast", "feedback" or "best" */
    uint64_t ctx, chunks, held_out;
    bool parse_special;
};
#define FEEDBACK_OPTIONS_INIT                                                                                \
    {                                                                                                        \
        .method = "fast", .ctx = 512, .held_out = 8                                                          \
    }

#define FEEDBACK_KEY "kerf.method" /* what the file says of the error feedback stands under this key */

/* Rows of the option table. */
#define FEEDBACK_OPTIONS(f)                                                                                  \
    OPT_GROUP("Methods feedback and best:"),                                                                 \
        OPT(LIST, "text", &(f).texts, "FILE",                                                                \
            "UTF-8 text to calibrate on; some of its windows are held out to check the result. With "        \
            "--hessian it is for the check alone"),                                                          \
        IDS_OPTION((f).ids), JSONL_OPTION((f).jsonl),                                                        \
        OPT(TEXT, "hessian", &(f).hessian, "FILE",                                                           \
            "Hessians of this model, as kerf hessian collects them; also its importance matrix, unless "     \
            "--imatrix names another"),                                                                      \
        OPT(UINT, "ctx", &(f).ctx, "N", "tokens of a window", .fallback = "512",                             \
            .range = OPT_RANGE(.min = 2)),                                                                   \
        OPT(UINT, "chunks", &(f).chunks, "N", "windows to calibrate on; 100 of 512 tokens are enough",       \
            .fallback = "all that are not held out", .range = OPT_RANGE(.min = 1)),                          \
        OPT(UINT, "held-out", &(f).held_out, "N",                                                            \
            "windows of the text kept out of calibration, on which the KLD is measured: a group of "         \
            "matrices that error feedback makes worse there is encoded as by --method fast. 0: no check "    \
            "(not for best)",                                                                                \
            .fallback = "8"),                                                                                \
        PARSE_SPECIAL_OPTION((f).parse_special)

struct feedback_run {
    struct feedback_model *solved;
    struct hessian_file *hessian;
    struct imatrix *imatrix; /* of the Hessian file; NULL when another one was named */
    struct gguf_meta *extra;
    struct net net;
    bool has_net;
    struct corpus corpus;
    bool borrows_text;                         /* `corpus` and `all` are the caller's */
    struct windows all, calibration, held_out; /* the latter two lie in `all`, or own nothing */
    char *hessian_path, *state_path, *store_path;
    uint64_t memory_most, hess_bytes; /* of a dry run: for the widest matrix; on the disk while it lasts */
    bool resume;
    bool collected;          /* the Hessian file is ours to remove */
    bool continued;          /* something that a stopped run kept was taken up */
    char weights_sha256[65]; /* loss_weights_hash; of a dry run only where it is needed */
    /* feedback_finished.h */
    char identity[65];
    struct imatrix *planned;      /* entries for all that has Hessians */
    struct gguf_reader *finished; /* the output, where it is what this run would write; nothing is solved */
    bool own_hessians;            /* then: none were given, so what lies at hessian_path is a stopped run's */
};

/* 0, or the status of a usage error. */
int feedback_check_options(const struct opt_command *cmd, const struct feedback_options *f);

/* Is --method one of those that are made here? */
bool feedback_is_asked(const struct feedback_options *f);
bool feedback_corrects(const struct feedback_options *f);

/* Hours of collecting must not end in a matrix that does not fit, or without LAPACK: ERR_ARG when the
 * factorization (and with `corrects` the correction) of one needs more than `memory`, ERR_IO where OpenBLAS
 * is not installed. *most (or NULL) is raised to what the widest one needs. */
int feedback_check_machine(const struct net *net, const struct session *session, uint64_t memory,
                           bool corrects, uint64_t *most, struct err *e);

/* Hessians to be collected beside an output, by a run that keeps them when it is stopped. All is borrowed. */
struct feedback_collection {
    const char *path, *state_path;
    const struct corpus *corpus; /* of the windows; the file names its texts */
    const struct windows *windows;
    const struct net *net;
    struct weights *weights;
    const char *weights_sha256; /* loss_weights_hash of the net's model */
    bool resume;  /* take up what a stopped run kept; said to the user, as is what is given up */
    bool replace; /* give up Hessians of something else; without it they are ERR_EXISTS. For `resume` */
};

/* *continued: something was taken up. ERR_IO: a file that is none of ours is there; else hessian_collect's.
 */
int feedback_collect(bool *continued, const struct feedback_collection *c, const struct session *session,
                     const struct shared_options *shared, struct err *e);

/* Room for what feedback_doubt_weights says. */
#define FEEDBACK_DOUBT_BYTES 128

/* *doubt: "" where the Hessians are of the weights and metadata of this loss_weights_hash, else what they are
 * of, to be put behind the file's name. */
void feedback_doubt_weights(char doubt[FEEDBACK_DOUBT_BYTES], const struct hessian_file *h,
                            const char *weights_sha256);

/* What of feedback_prepare a dry run can do: the windows, what has importance, the working memory, and with
 * --resume whether the output is finished. Without weights all may have importance. `output` may be NULL.
 * feedback_tell_dry says it. */
int feedback_check_dry(struct feedback_run *run, struct rewrite_options *ro, struct model *m,
                       const struct session *session, const struct feedback_options *f,
                       const struct shared_options *shared, const char *output, struct err *e);
void feedback_tell_dry(const struct feedback_run *run, const struct feedback_options *f);

/* Everything before the writing: *ro gets importance, blocks and metadata, and is what the writer is to be
 * run with. `output`: of the run, not NULL. */
int feedback_prepare(struct feedback_run *run, struct rewrite_options *ro, struct model *m,
                     const struct session *session, const struct feedback_options *f,
                     const struct shared_options *shared, const char *output, struct err *e);

/* Refuse before the work what would be refused behind it: an output that is there, or that is one of the
 * inputs, or what a stopped run kept, when neither --resume nor --force says what is to become of it. */
int feedback_check_output(const struct feedback_options *f, const struct rewrite_options *ro,
                          const char *output, const struct shared_options *shared, struct err *e);

/* The member "method" of the result's object: what was calibrated on, and what the check found. */
struct json_writer;
void feedback_json(const struct feedback_run *run, struct json_writer *w);

/* What the check warns of; before a result's object, which lists warnings, is printed. */
void feedback_warn(const struct feedback_run *run, const struct shared_options *shared);

/* One line for people. */
void feedback_tell(const struct feedback_run *run, const struct shared_options *shared);

/* `done`: the output stands; nothing has to be kept for --resume. */
void feedback_release(struct feedback_run *run, bool done);

#endif
