/* candidate.h - the models of a comparison: the reference, and candidates that are files of their own or
 * mixes, plans and recipes applied to the reference's weights on the fly.
 *
 *     candidate_open_file(&ref, "model/", kern, &e);
 *     candidate_open_mix(&cand, &ref, mix_find("Q4_K_M"), &mix_options, &e);
 *     candidate_open_recipe(&cand, &ref, "plan:best.plan", &recipe_options, &mix_options, &e);
 *
 * A mix is measured exactly as the file that `kerf quantize` would write, without writing it; its size is
 * that of the file. */
#ifndef KERF_CANDIDATE_H
#define KERF_CANDIDATE_H

#include "calib/model/kv_cache.h"
#include "calib/model/model_load.h"
#include "calib/model/weights.h"
#include "libquant/base/string_list.h"

struct imatrix;

struct candidate {
    const char *path;    /* of the file, or of the weights a mix is made from; borrowed */
    const char *type;    /* what is applied to the weights: "Q4_K_M", "plan:FILE", or NULL; in `arena` */
    char identity[65];   /* of what is applied: types and importance, as a hash; "" for a file */
    struct model *model; /* owned unless `type` */
    struct net net;
    struct weights *weights;
    uint64_t n_bytes; /* of the GGUF file: the one there is, or that a folder or a mix would give */
    double bits_per_weight;
    struct imatrix *own_imatrix; /* of a recipe that names one; owned, or NULL */
    const char *imatrix;         /* path of the matrix that is used, or NULL; in `arena` */
    struct string_list inputs;   /* other files that it was made from; in `arena` */
    struct kv_cache cache;       /* of its attention; zeroed: exact */
    char cache_name[KV_CACHE_NAME];
    const char *shown;           /* what tables call a file with such a cache, or NULL; in `arena` */
    size_t n_fallbacks;          /* tensors of a mix whose shape does not take the type it gives them */
    struct string_list warnings; /* of a mix, as kerf quantize would have them; in `arena` */
    struct arena arena;
    char sha256[65]; /* "" until candidate_hash */
};

/* A checkpoint folder or GGUF file with weights, or one with adapters (model_sum.h). `path` is borrowed until
 * candidate_close. */
int candidate_open_file(struct candidate *out, const char *path, const struct kern *kern, struct err *e);

struct candidate_mix_options {
    const char *recipe;            /* "llama.cpp" or "kerf" */
    const struct imatrix *imatrix; /* NULL: none */
    const char *imatrix_path;      /* for messages */
    bool no_fallback;              /* refuse a mix with such tensors */
    bool requantize;               /* the reference may be quantized itself */
    const struct kern *kern;
    struct pool *pool;
};

/* The reference's weights in a mix. Borrows `base` until candidate_close. */
int candidate_open_mix(struct candidate *out, const struct candidate *base, const struct mix *mix,
                       const struct candidate_mix_options *opt, struct err *e);

/* The reference's weights as options give them: a plan, a mix with rules on top. `name` is what tables call
 * it. Of `recipe` the fields `recipe` and `has_imatrix` are taken from `opt`; nothing of it is kept. */
int candidate_open_recipe(struct candidate *out, const struct candidate *base, const char *name,
                          const struct recipe_options *recipe, const struct candidate_mix_options *opt,
                          struct err *e);

/* The same from a plan file (formats/recipe/plan.h) or a recipe file (recipe_file.h), which may name an
 * importance matrix of its own. */
int candidate_open_plan(struct candidate *out, const struct candidate *base, const char *name,
                        const char *path, const struct candidate_mix_options *opt, struct err *e);
int candidate_open_recipe_file(struct candidate *out, const struct candidate *base, const char *name,
                               const char *path, const struct candidate_mix_options *opt, struct err *e);

/* The reference's weights as they are, for a cache of its own. */
int candidate_open_same(struct candidate *out, const struct candidate *base, const char *name,
                        const struct kern *kern, struct err *e);

/* Keys and values are rounded so. `named`: its name says it, too. ERR_ARG: its heads cannot be. */
int candidate_set_cache(struct candidate *c, const struct kv_cache *cache, bool named, struct err *e);
void candidate_close(struct candidate *c);

struct progress;

/* Fill `sha256` of a file candidate: for a GGUF file the model hash of gguf_hash.h; for a folder the SHA-256
 * over its config.json and *.safetensors in byte order of their names: for each u64 length of the name, name,
 * u64 length of the content, content. Reads the whole model; `progress` in bytes. */
int candidate_hash(struct candidate *c, struct pool *pool, const struct progress *progress, struct err *e);

#endif
