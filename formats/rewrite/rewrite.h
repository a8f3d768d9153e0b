/* rewrite.h - the engine: stream every tensor of a model through recipe and encoder into a GGUF file, in
 * bounded memory, all cores busy, reading, computing and writing overlapped.
 *
 * The same model and options give the same bytes whatever the threads, the instruction set or the memory
 * bound. */
#ifndef KERF_REWRITE_H
#define KERF_REWRITE_H

#include "formats/model/model.h"
#include "formats/recipe/plan.h"
#include "formats/recipe/recipe.h"

#include "formats/gguf/imatrix_file.h"
#include "libquant/base/pool.h"
#include "libquant/base/progress.h"

struct rewrite_tensor_report {
    const char *name;
    const char *source_type;
    enum qtype type;
    uint32_t n_dims;
    uint64_t ne[4];
    uint64_t n_bytes;
    double rmse;        /* sqrt(mean((decoded - source)^2)); 0 for copies; NaN with dry_run */
    uint64_t n_flushed; /* blocks, or single values, that the type is too coarse for, and ... */
    uint64_t
        n_clipped; /* ... blocks with weights beyond their largest level (quant_losses); 0 if not measured */
    bool fallback; /* its shape does not take the type asked for */
    bool repacked; /* the packed form of the checkpoint, its codes and scales in the order of `type` */
    bool no_importance; /* an imatrix was given, has nothing for this tensor, and the type would use it */
};

/* Blocks that are made elsewhere, by an encoder that has to see more than rows: all rows of tensor `t` in
 * `type`, borrowed while the run lasts; NULL: encode the rows as usual. Called from several threads. */
typedef const uint8_t *(*rewrite_blocks_fn)(void *ctx, const struct model_tensor *t, enum qtype type);

struct rewrite_options {
    /* recipe.mix NULL: source precision ("auto"): a checkpoint in the type of its first matrix, BF16 or F16,
     * with the rest as specification, architectures 0.3; a GGUF as it is. A plan may then give single types.
     */
    struct recipe_options recipe;
    const struct imatrix *imatrix; /* NULL: none */
    const char *imatrix_path;      /* for the metadata */
    const char *imatrix_shown;     /* in messages; NULL: imatrix_path */
    bool imatrix_strict;           /* a missing entry, or an expert without data, is an error; but
                                      for embeddings and the head, which seldom have data */
    bool no_fallback;              /* a shape that does not take the type asked for is an error */
    bool without_importance;       /* a dry run goes on where types need importance that is not there */
    bool importance_to_come;       /* in a dry run: the run itself collects an importance matrix */
    bool allow_requantize;         /* quantized sources may change type */
    bool overwrite, resume, dry_run, measure; /* measure: fill rmse */
    uint64_t memory_bytes;                    /* bound on working memory; at least 64 MiB is always enough */
    uint64_t split_max_bytes;                 /* 0: one file */
    const struct gguf_meta *extra;            /* metadata to set on top (edits); NULL: none */
    rewrite_blocks_fn blocks;                 /* NULL: none. What they depend on has to stand in `extra` */
    void *blocks_ctx;
    const struct kern *kern;
    struct pool *pool;
    struct progress progress; /* in bytes of source data */
};

struct rewrite_report {
    const char *type_name; /* "Q4_K_M", "BF16", REWRITE_PLANNED */
    uint64_t n_bytes;      /* of all output files */
    uint64_t n_parameters;
    double bits_per_weight;
    size_t n_tensors, n_fallbacks;
    struct rewrite_tensor_report *tensors;
    size_t n_warnings;
    const char **warnings;
    size_t n_files;
    const char **files;
    bool finished;    /* with `resume`: this very run's output was there; nothing was done */
    bool resumed;     /* the unfinished output of an earlier run was taken over ... */
    size_t n_resumed; /* ... with so many tensors complete */
    void *owner;      /* internal */
};

/* Write `m` to `path` (or its split set). `path` NULL, with dry_run alone: sizes and types of no file in
 * particular; with a path a dry run refuses what stands there as the run would. With `resume` a finished
 * output is left as it is, if some rows of each tensor show that it is this run's; ERR_EXISTS if not. *out
 * (may be NULL): caller frees with rewrite_report_release. */
int rewrite_model(struct rewrite_report *out, const struct model *m, const char *path,
                  const struct rewrite_options *opt, struct err *e);
void rewrite_report_release(struct rewrite_report *r);

/* Would a run with these options be refused, and for nothing but the importance that a type needs? */
bool rewrite_lacks_importance(const struct model *m, const struct rewrite_options *opt);

/* What a file of packed weights kept from a checkpoint is called, by its general.file_type (llama.cpp's
 * LLAMA_FTYPE_MOSTLY_MXFP4_MOE and _NVFP4); NULL: it is none. */
const char *rewrite_kept_form(uint64_t file_type);

/* What a file is called whose types come from a plan: no type or mix describes it, though general.file_type,
 * which knows nothing else, states the type of most weights. */
#define REWRITE_PLANNED "plan"

/* Was a plan used for the file of this metadata? */
bool rewrite_is_planned(const struct gguf_meta *meta);

#endif
