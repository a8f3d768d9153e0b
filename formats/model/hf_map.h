/* hf_map.h - which GGUF tensors a checkpoint makes, and from what: the descriptor of its family applied to
 * the names and shapes that are there. */
#ifndef KERF_HF_MAP_H
#define KERF_HF_MAP_H

#include "model_internal.h"
#include "checkpoint_weight.h"

#include "formats/arch/arch.h"

/* One output tensor. Its sources are E matrices for expert stacks, one otherwise, none for tensors that are
 * computed (then `computed` holds the values). */
struct hf_tensor {
    struct model_tensor pub; /* first: a model_tensor of this model is the start of an hf_tensor */
    const struct arch_row *row;
    const struct checkpoint_weight **sources;
    size_t n_sources;
    const struct checkpoint_weight *first; /* of the sources, by position; the others have its shape */
    const struct checkpoint_weight **with; /* of each source, or the parts, see arch_row; NULL: none */
    const float *computed;
    uint64_t order, sub_order; /* position of the last source; rank of the row: the converter's order */
};

/* Map every source. Errors: a tensor no row knows, a shape that differs, an expected tensor that is missing,
 * two sources for one output, a type that is no weight. Left-out tensors are recorded in m->skipped, remarks
 * in m->warnings; m->tensors is filled in the converter's order. */
int hf_map(struct model *m, const struct arch_model *a, const struct checkpoint_weight *sources,
           size_t n_sources, const struct model_options *opt, struct err *e);

/* Names that an index lists and no file holds: those that would be left out anyway are recorded in
 * m->skipped, for the others hf_checkpoint_refuse_absent. */
int hf_map_absent(struct model *m, const struct arch_model *a, const struct hf_checkpoint *c,
                  const struct model_options *opt, struct err *e);

/* The same without any source: the tensors that a checkpoint of this configuration has, from the rows of its
 * family alone, in the order of the rows. `like` stands for each source: its file and type count. It must
 * live as long as the model. */
int hf_map_expected(struct model *m, const struct arch_model *a, const struct checkpoint_weight *like,
                    struct err *e);

/* Rows of a mapped tensor, see model_read_rows. */
int hf_read_rows(const struct arch_model *a, const struct kern *k, const struct hf_tensor *t, uint64_t row0,
                 uint64_t n, float *dst, struct err *e);

/* Rows of a tensor with ARCH_FOLD: hf_fold.c. */
int hf_fold_rows(const struct kern *k, const struct hf_tensor *t, uint64_t row0, uint64_t n, float *dst,
                 struct err *e);

/* Can the tensor be put together from the blocks of its sources, and of which type? Rows may move, columns
 * only as whole blocks; all sources are of one kind. */
bool hf_block_type(const struct arch_model *a, const struct hf_tensor *t, enum qtype *type);

/* Rows of such a tensor, see model_read_blocks. */
int hf_read_blocks(const struct arch_model *a, const struct hf_tensor *t, uint64_t row0, uint64_t n,
                   uint8_t *dst, struct err *e);
void hf_hint_rows(const struct hf_tensor *t, uint64_t row0, uint64_t n, bool want);

#endif
