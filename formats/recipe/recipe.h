/* recipe.h - mixes: which tensor gets which type. The rules are data (recipe_rules.c); specification,
 * quantization 6 and 7.
 *
 * A recipe never looks at weights: names, shapes and a few numbers of the metadata decide. */
#ifndef KERF_RECIPE_H
#define KERF_RECIPE_H

#include "formats/model/hparams.h"
#include "libquant/types.h"

/* A file type: what a user names with --type. */
struct mix {
    const char *name;   /* "Q4_K_M" */
    uint32_t file_type; /* general.file_type */
    enum qtype base;    /* the type of tensors without a rule */
};

/* Case-insensitive, aliases included ("Q4_K" is Q4_K_M); NULL when unknown. */
const struct mix *mix_find(const char *name);
const struct mix *mix_by_file_type(uint32_t file_type);
size_t mix_count(void);
const struct mix *mix_at(size_t i);

struct recipe_tensor {
    const char *name;
    uint32_t n_dims;
    uint64_t ne[4];
    enum qtype source_type;
    bool always_f32;  /* stays F32 whatever the mix (converter's rule) */
    enum qtype fixed; /* with has_fixed: the type it has whatever the mix (converter's rule) */
    bool has_fixed;
    bool has_importance; /* the imatrix has an entry of this name */
    /* results */
    enum qtype type;
    bool forced;     /* decided by an option, not by the mix */
    bool left;       /* could be quantized, and neither an option nor the plan decided it */
    const char *why; /* short reason for reports, static: "mix", "override", "plan", "fallback: rows are not a
                      * multiple of 256", "kept: norm" */
};

struct recipe_override {
    const char *pattern; /* PCRE, searched in the tensor name */
    enum qtype type;
};

struct recipe_options {
    const char *recipe;    /* "llama.cpp"; NULL: the same */
    const struct mix *mix; /* NULL: every tensor keeps the type of its source, but for the options below */
    bool pure;             /* the mix's base type for all, no rules */
    bool has_output_type, has_embedding_type;
    enum qtype output_type, embedding_type;
    bool leave_output;                       /* output.weight is copied as it is */
    const struct recipe_override *overrides; /* first match wins */
    size_t n_overrides;
    bool has_imatrix;
    const struct plan *plan; /* NULL: none. A plan's line wins over the mix, an override over the plan */
    /* The source is a checkpoint: with the mixes F32, F16 and BF16 also the matrices that are never quantized
     * take that type (as a converter writes them), except those that must be F32. */
    bool from_checkpoint;
    size_t *override_hits; /* [n_overrides] or NULL: += tensors that each override decided */
    size_t *plan_hits;     /* [plan_n] or NULL: the same for the lines of the plan */
};

/* Fill type, forced, why of every tensor, in whatever order they come. Only assigns: whether a type can be
 * encoded is the engine's matter. What is never quantized (norms, routers, ...) stays whatever the options
 * say. Rows that fit no block of the chosen type take the next wider type that fits, F16 at last, and `why`
 * says so. ERR_ARG: an unknown recipe; a pattern that does not compile or runs away; a type that is none for
 * weights; a required importance that is missing (unless `dry_run`). */
int recipe_assign(const struct recipe_options *opt, const struct hparams *h, struct recipe_tensor *tensors,
                  size_t n, bool dry_run, struct err *e);

/* Is a weight of this GGUF name refused in this type when it has no importance data? Embeddings and the head
 * only where the encoder cannot do without. (Q2_K in the mix Q2_K_S is refused, too; that is a matter of the
 * mix.) */
bool recipe_needs_importance(enum qtype type, const char *name);

/* Version of the rule set of a recipe name, for the output's metadata ("llama.cpp-2026-08"); NULL when
 * unknown. */
const char *recipe_version(const char *recipe);

#endif
