/* plan.h - a plan: tensor name or pattern -> type, as text a person may edit.
 *
 *     # kerf plan 1
 *     token_embd.weight              Q6_K
 *     blk\.[0-3]\.ffn_down\.weight   Q5_K
 *
 * One line each: a PCRE that must match the whole tensor name, white space, a type. '#' starts a comment. The
 * first match wins. */
#ifndef KERF_PLAN_H
#define KERF_PLAN_H

#include "libquant/base/err.h"
#include "libquant/types.h"

struct plan;

int plan_load(struct plan **out, const char *path, struct err *e);
int plan_parse(struct plan **out, const char *text, size_t len, const char *what, struct err *e);
void plan_free(struct plan *p);
size_t plan_n(const struct plan *p);
const char *plan_pattern(const struct plan *p, size_t i);
enum qtype plan_type(const struct plan *p, size_t i);

/* True and *out when a line matches. */
bool plan_find(const struct plan *p, const char *tensor, enum qtype *out);

/* SHA-256 of the normalised lines as hexadecimal text (64 digits and NUL), for the output's metadata. */
void plan_hash(const struct plan *p, char out[65]);

#endif
