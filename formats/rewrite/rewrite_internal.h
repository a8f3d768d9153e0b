/* rewrite_internal.h - between rewrite.c, rewrite_plan.c, rewrite_pipeline.c and rewrite_resume.c. */
#ifndef KERF_REWRITE_INTERNAL_H
#define KERF_REWRITE_INTERNAL_H

#include "rewrite.h"

#include "formats/gguf/gguf_parts.h"
#include "libquant/base/string_list.h"
#include "libquant/quant.h"

#include <stdatomic.h>

/* One tensor of the output, in the order of the output. */
struct rw_tensor {
    const struct model_tensor *src;
    enum qtype type;
    bool copy;                        /* the source's bytes are the output's bytes */
    bool repack;                      /* ... but have to be put together (model_read_blocks) */
    bool no_importance;               /* see rewrite_tensor_report */
    bool fallback;                    /* its shape does not take the type asked for */
    bool from_plan;                   /* a line of the plan decided its type */
    bool made_here;                   /* no tensor of the model: its bytes are the plan's own */
    const struct imatrix_entry *imat; /* NULL: none */
    float *factors;     /* [n_mats] what its weights are divided by; in the plan's arena. NULL: nothing */
    uint64_t n_mats;    /* ne2*ne3 */
    uint64_t row_bytes; /* in the output */
    uint64_t n_bytes;
    uint64_t rows_per_job; /* depends on the shape alone, so results do not depend on the machine */
    size_t first_job;      /* jobs first_job .. first_job of the next tensor - 1 */
};

/* Everything that is decided before the first weight is read. */
struct rw_plan {
    struct arena arena;
    const char *type_name;
    bool quantizing; /* the quantizer's order and keys, rather than the converter's */
    struct rw_tensor *tensors;
    size_t n_tensors;
    size_t n_jobs;
    uint64_t source_bytes, n_parameters, tensor_bytes;
    struct gguf_meta *meta;
    struct gguf_out_tensor *out; /* [n_tensors], for the layout */
    struct gguf_parts *parts;    /* the output files */
    struct string_list warnings; /* in `arena` */
};

/* Decide types, order, metadata and layout. The caller runs rw_plan_release in every case. */
int rw_plan_make(struct rw_plan *p, const struct model *m, const char *path,
                 const struct rewrite_options *opt, struct err *e);
void rw_plan_release(struct rw_plan *p);
int rw_plan_warn(struct rw_plan *p, struct err *e, const char *fmt, ...) KERF_PRINTF(3, 4);

/* The two halves of rw_plan_make that have files of their own. */
int rw_plan_types(struct rw_plan *p, const struct model *m, const struct rewrite_options *opt, struct err *e);
int rw_plan_meta(struct rw_plan *p, const struct model *m, const struct rewrite_options *opt, struct err *e);

/* Factors of weights that are encoded in a type that wants them (rewrite_factors.c): put their tensors into
 * the plan, or refuse; then, before rows are encoded, read the weights for their values. */
int rw_factors_plan(struct rw_plan *p, const struct model *m, struct err *e);
int rw_factors_fill(const struct rw_plan *p, const struct model *m, const struct rewrite_options *opt,
                    struct err *e);

/* Is this run a plain conversion: no mix of quantized types, the model's own order, no private keys? */
bool rw_is_plain(const struct rewrite_options *opt);

/* What the rows of a job lost. */
struct rw_error {
    double sse; /* squared error */
    struct quant_losses losses;
};

/* What the workers share. */
struct rw_run {
    const struct model *model;
    const struct rw_plan *plan;
    const struct rewrite_options *opt;
    _Atomic unsigned char *done; /* [n_jobs] 1 when the job's bytes are in the file */
    struct rw_error *errors;     /* [n_jobs] of the job's rows */
    _Atomic uint64_t done_bytes;
    atomic_bool cancelled;
    bool resumed;     /* begun with what the journal of an earlier run vouches for ... */
    size_t n_resumed; /* ... which is so many whole tensors */
};

/* Run all jobs that are not done yet. */
int rw_pipeline_run(struct rw_run *run, struct err *e);

/* Compare a finished output with what this run would write: some rows of each tensor, the first and the last
 * among them. Writes nothing. ERR_*: the source cannot be read or encoded; an output that cannot be read is
 * just not the same. */
int rw_pipeline_check(struct rw_run *run, bool *same, struct err *e);

/* The tensor of a job, and its rows. */
const struct rw_tensor *rw_job_rows(const struct rw_plan *p, size_t job, uint64_t *row0, uint64_t *n_rows);

/* The journal beside the first temporary output: which jobs are safely on the disk (rewrite_resume.c). */
struct rw_journal;

/* Hash of all that decides about the output's bytes; `version` of the program: another one may encode the
 * same rows to other bytes. */
int rw_journal_identity(char out[65], const char *version, const struct model *m, const struct rw_plan *p,
                        const struct rewrite_options *opt, struct err *e);

/* Read the journal. When it belongs to `identity`, marks done[] and errors[] and sets *matches. A missing or
 * foreign journal is no error. */
int rw_journal_load(const char identity[65], struct rw_run *run, bool *matches, struct err *e);

/* Start or (`keep`) continue the journal; a thread of its own flushes finished jobs to the disk and records
 * them, until rw_journal_stop. *out: caller ends it with rw_journal_free. */
int rw_journal_open(struct rw_journal **out, const char identity[65], bool keep, struct rw_run *run,
                    struct err *e);

/* End the thread; `record`: note what is done. The outputs must still be open. ERR_IO when one of them could
 * not be flushed at any time: then its bytes are not to be trusted. */
int rw_journal_stop(struct rw_journal *j, bool record, struct err *e);

/* `remove`: and the file with it. NULL is allowed. */
void rw_journal_free(struct rw_journal *j, bool remove);

/* Remove a journal that does not belong to the run that begins. */
int rw_journal_discard(const struct rw_plan *p, struct err *e);

/* The same when a temporary output is missing: its journal must not vouch for a new one. To be called before
 * the outputs are opened. */
int rw_journal_discard_orphan(const struct rw_plan *p, struct err *e);

#endif
