/* candidate_arg.h - what names a candidate of compare and ladder on the command line:
 *
 *     MODEL          a checkpoint folder or a GGUF file
 *     MODEL+ADAPTER[=SCALE]...   one with LoRA adapters (formats/model/model_sum.h)
 *     Q4_K_M         a type or mix, applied to the reference's weights on the fly
 *     plan:FILE      a plan (formats/recipe/plan.h), likewise
 *     recipe:FILE    a type with rules of its own (formats/recipe/recipe_file.h), likewise
 *     kv:TYPE        the reference's weights with a cache of keys and values in this type (K/V: two of them)
 *     ...+kv:TYPE    any of the others with such a cache
 *
 * A file or folder of exactly that name comes first. */
#ifndef KERF_CANDIDATE_ARG_H
#define KERF_CANDIDATE_ARG_H

#include "opt.h"

#include "calib/model/kv_cache.h"

struct mix;

enum candidate_kind { CANDIDATE_FILE, CANDIDATE_MIX, CANDIDATE_PLAN, CANDIDATE_RECIPE, CANDIDATE_SAME };

struct candidate_arg {
    enum candidate_kind kind;
    const char *text;      /* as it was given, without the cache */
    const char *path;      /* of the model, plan or recipe; inside of `text` */
    const struct mix *mix; /* CANDIDATE_MIX */
    bool has_cache;
    struct kv_cache cache;
};

/* 0, or the status of a usage error: what is no file and looks like a wrong name. Borrows `text`, and cuts it
 * where a cache is named. */
int candidate_arg_parse(const struct opt_command *cmd, struct candidate_arg *out, char *text);

/* The levels of a ladder, separated by commas: mixes, plan:FILE, recipe:FILE; NULL: the default ones. *words
 * holds the texts. Caller frees both with free(). */
int candidate_args_parse_levels(const struct opt_command *cmd, struct candidate_arg **out, size_t *n,
                                char **words, const char *text);

#endif
