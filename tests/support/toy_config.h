/* toy_config.h - configurations of small models of every family, whose numbers tell where each of them goes.
 */
#ifndef KERF_TOY_CONFIG_H
#define KERF_TOY_CONFIG_H

#include "formats/arch/arch.h"

/* A config.json of the class with `extra` members ("" for none) behind the common ones. Caller frees with
 * hf_config_free. */
struct hf_config *toy_config(const char *class_name, const char *extra);

/* The same, resolved; *c is to be freed behind `a`. The test fails where it is refused. */
void toy_config_resolve(struct arch_model *a, struct hf_config **c, const char *class_name,
                        const char *extra);

/* The test fails unless it is refused with this code and a message that contains `want`. */
void toy_config_refused(const char *class_name, const char *extra, int code, const char *want);

/* For arch_warnings: keeps the text of the last warning in `ctx`, 200 bytes or NULL. */
int toy_config_warning(void *ctx, const char *text, struct err *e);

#endif
