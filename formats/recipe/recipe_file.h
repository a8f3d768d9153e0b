/* recipe_file.h - a trial recipe as a small file: what would be given to kerf quantize as options, a line
 * each, so that it can be measured before a model is written.
 *
 *     # kerf recipe 1
 *     type Q4_K_M
 *     tensor-type ffn_down=Q6_K          # REGEX=TYPE, as often as wanted; first match wins
 *     output-type Q8_0
 *     embedding-type Q5_K
 *     plan best.plan                     # paths are relative to the recipe's folder
 *     imatrix q3.imatrix.gguf            # or "none"; without this line the matrix of the command
 *     pure
 *     leave-output
 *
 * Words mean what the options of these names mean; each but tensor-type comes once at most. '#' at the start
 * of a word begins a comment. */
#ifndef KERF_RECIPE_FILE_H
#define KERF_RECIPE_FILE_H

#include "plan.h"
#include "recipe.h"

struct recipe_file {
    struct recipe_options options; /* recipe and imatrix are the caller's; the rest points into this struct */
    struct plan *plan;
    struct recipe_override *overrides;
    char **patterns; /* of the overrides */
    char *plan_path; /* or NULL */
    char *imatrix;   /* path, or NULL: the file says nothing of it, or none is to be used */
    bool no_imatrix;
};

/* *out: caller releases with recipe_file_release. ERR_FORMAT names file and line; ERR_UNSUPPORTED: another
 * version. The plan is loaded, the importance matrix is not. */
int recipe_file_load(struct recipe_file *out, const char *path, struct err *e);

/* The same of a text; `path` names it in messages, and its folder is where relative paths begin. */
int recipe_file_parse(struct recipe_file *out, const char *text, size_t len, const char *path, struct err *e);
void recipe_file_release(struct recipe_file *f);

/* SHA-256 (64 digits and NUL) of all that decides types: two files that mean the same have the same one,
 * wherever they and their plans lie. The importance matrix is not in it. */
void recipe_file_hash(const struct recipe_file *f, char out[65]);

#endif
