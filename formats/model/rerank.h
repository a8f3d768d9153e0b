/* rerank.h - models that score a text: recognise a Qwen3 reranker, a language model of which two rows of the
 * head, "yes" and "no", are used (specification, architectures 12); metadata of all that have a score head.
 */
#ifndef KERF_RERANK_H
#define KERF_RERANK_H

#include "formats/arch/arch.h"

struct vocabulary;

/* `folder` NULL: there is only the configuration.
 *
 * Set a->answer to ARCH_YES_NO and the rows when README.md, the folder's name or config.json say so. Needs
 * the vocabulary to find the rows: ERR_FORMAT when it has no plain tokens "yes" and "no", or there is none.
 */
int rerank_detect(struct arch_model *a, const char *folder, const struct vocabulary *v, struct err *e);

/* Pooling, labels and (for rerankers) prompt of a model that scores; nothing for other models. */
int rerank_add_keys(const struct arch_model *a, struct gguf_meta *meta, const char *folder, struct err *e);

#endif
