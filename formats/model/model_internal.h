/* model_internal.h - what model.c, model_gguf.c and model_hf*.c share; included by nobody else.
 *
 * A model is one table of tensors plus three functions of its source kind. */
#ifndef KERF_MODEL_INTERNAL_H
#define KERF_MODEL_INTERNAL_H

#include "hparams.h"
#include "model.h"

#include "libquant/base/string_list.h"
#include "libquant/base/strmap.h"

struct model_source_ops {
    int (*read_rows)(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                     float *dst, struct err *e);
    /* NULL: no tensor of this kind has has_blocks */
    int (*read_blocks)(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                       uint8_t *dst, struct err *e);
    void (*hint_rows)(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                      bool want);
    void (*close)(struct model *m);
};

struct model_adapters; /* opened adapters, model_merge.c */

struct model {
    const struct model_source_ops *ops;
    void *source; /* of the kind behind `ops` */
    struct arena arena;
    const struct kern *kern;
    const char *path;
    bool is_gguf, has_weights, is_adapter, has_towers;
    const char *arch_name;
    struct hparams hparams; /* read from `meta` when the model is open */
    const struct gguf_meta *meta;
    struct gguf_meta *own_meta;          /* NULL when meta belongs to the source */
    const struct model_tensor **tensors; /* in the writer's order */
    size_t n_tensors;
    struct strmap by_name;
    struct vocabulary *vocabulary;   /* loaded on demand (GGUF) or at open (folder); NULL: not there yet */
    struct model_adapters *adapters; /* NULL: none */
    struct string_list skipped, warnings; /* in `arena` */
};

/* Fill an empty model (path, kern and ops == NULL set by model_open). On failure the caller runs model_close.
 */
int model_open_gguf(struct model *m, const char *path, const struct model_options *opt, struct err *e);
int model_open_hf(struct model *m, const char *path, const struct model_options *opt, struct err *e);
int model_open_lora(struct model *m, const char *path, const struct model_options *opt, struct err *e);

/* Index `tensors` by name and compute nothing else. ERR_FORMAT on a repeated name. */
int model_index(struct model *m, struct err *e);

int model_add_line(struct model *m, struct string_list *lines, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Adapters (model_merge.c). Open those of the options; put their whole tensors in the place of those of a
 * checkpoint; then wrap the tensors that they change and record them in the metadata. `arch` NULL: a GGUF
 * file. */
struct arch_model;
struct checkpoint_weight;
int model_adapters_open(struct model *m, const struct model_options *opt, struct err *e);
int model_adapters_replace(struct model *m, struct arch_model *arch, struct checkpoint_weight **sources,
                           size_t *n, struct err *e);
int model_adapters_merge(struct model *m, const struct arch_model *arch, struct err *e);
int model_adapters_meta(struct model *m, struct err *e);
void model_adapters_close(struct model_adapters *a);

/* Rows of a tensor with adapters. */
int model_merge_read(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                     float *dst, struct err *e);
const struct model_tensor *model_merge_base(const struct model_tensor *t); /* `t` itself without adapters */

int model_out_of_memory(struct err *e);

#endif
