/* plan.h - a plan: tensor name or pattern -> type, as text a person may edit.
 *
 *     # kerf plan 1
 *     token_embd.weight              Q6_K
 *     blk\.[0-3]\.ffn_down\.weight   Q5_K
 *
 * One line each: a PCRE that must match the whole tensor name, white space, a type. '#' at the start of a
 * word begins a comment. The first match wins. A plan speaks of tensors that may be quantized; what stays as
 * it is (norms, routers, ...) stays so whatever the plan says. */
#ifndef KERF_PLAN_H
#define KERF_PLAN_H

#include "libquant/base/err.h"
#include "libquant/types.h"

struct plan;

/* *out: caller frees with plan_free. ERR_FORMAT names file and line; ERR_UNSUPPORTED: another plan version.
 */
int plan_load(struct plan **out, const char *path, struct err *e);
int plan_parse(struct plan **out, const char *text, size_t len, const char *what, struct err *e);
void plan_free(struct plan *p);
const char *plan_name(const struct plan *p); /* the `what` of plan_parse, or the path; borrowed */
size_t plan_n(const struct plan *p);
const char *plan_pattern(const struct plan *p, size_t i);
enum qtype plan_type(const struct plan *p, size_t i);
bool plan_is_whole(const struct plan *p,
                   size_t i); /* the pattern is for all of a name, not for a part of it */

/* What the comments above the first line say the plan was measured with, as kerf allocate writes them: the
 * hash of the weights ("# weights 64 digits") and of the importance matrix ("# importance", 64 digits or
 * "none"). "" where they say nothing: a plan written by hand. Borrowed. */
const char *plan_weights(const struct plan *p);
const char *plan_importance(const struct plan *p);

/* *line: index of the first line that matches, or plan_n when none does. ERR_ARG when a pattern takes too
 * many steps (see pattern.h). */
int plan_match(size_t *line, const struct plan *p, const char *tensor, struct err *e);

/* True and *out when a line matches; a pattern that takes too many steps counts as no match. */
bool plan_find(const struct plan *p, const char *tensor, enum qtype *out);

/* SHA-256 of the normalised lines ("PATTERN TYPE", or "PATTERN=TYPE" for a part of a name) as hexadecimal
 * text (64 digits and NUL), for the output's metadata. */
void plan_hash(const struct plan *p, char out[65]);

#endif
