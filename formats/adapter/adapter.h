/* adapter.h - a LoRA adapter: a PEFT folder (adapter_config.json, adapter_model.safetensors) or a GGUF file
 * with general.type "adapter".
 *
 *     adapter_open(&a, "my-lora", e);
 *     adapter_bind(&terms, a, arch_model, &arena, e);        what it adds to which tensor of the output
 *     adapter_term_apply(&term, kern, row0, n, rows, e);     ... onto rows in float32
 *
 * A LoRA module changes a weight W [rows, columns] to W + scale * B A, with A [rank, columns] and B [rows,
 * rank]; with a magnitude vector m (DoRA) row i of the sum is brought to the length m[i]. scale is alpha /
 * rank, or alpha / sqrt(rank) with use_rslora; rank_pattern and alpha_pattern name modules with numbers of
 * their own. Tensors without factors (modules_to_save, biases) stand in the place of those of the base.
 *
 * Refused by name: other methods than LoRA, initialisations that change the base weights (PiSSA, OLoRA, ...),
 * biases of B, trainable tokens, convolutions, pickles. Truth: PEFT (lora/layer.py, lora/dora.py,
 * save_and_load.py) for folders, llama.cpp (convert_lora_to_gguf.py, llama-adapter.cpp) for files. */
#ifndef KERF_ADAPTER_H
#define KERF_ADAPTER_H

#include "formats/arch/arch.h"
#include "formats/gguf/gguf_read.h"
#include "formats/hf/safetensors_read.h"
#include "libquant/base/arena.h"
#include "libquant/base/string_list.h"
#include "libquant/kern/kern.h"

/* A module of a PEFT folder. */
struct adapter_module {
    const char *name;   /* without wrappers: "model.layers.0.self_attn.q_proj" */
    const char *stored; /* of one of its tensors, for messages */
    bool embedding;     /* factors are those of an embedding: A [rank, rows], B [columns, rank] */
    const struct st_tensor *a, *b, *magnitude; /* magnitude NULL: no DoRA */
    double alpha;
    uint64_t rank; /* as adapter_config.json says */
};

/* A tensor that stands in the place of one of the base. */
struct adapter_tensor {
    const char *name; /* without wrappers: "model.norm.weight" */
    const struct st_tensor *t;
};

struct adapter {
    const char *path;
    const char *file; /* that holds the tensors */
    char sha256[65];  /* of configuration and tensors */
    struct adapter_module *modules;
    size_t n_modules;
    struct adapter_tensor *tensors;
    size_t n_tensors;
    const char *base; /* base_model_name_or_path; NULL: not stated */
    bool rslora;
    bool ties_weights;             /* what changes the embedding changes a tied head as well */
    double alpha;                  /* lora_alpha; of a file adapter.lora.alpha, 0: the factors have it */
    const struct json *invocation; /* alora_invocation_tokens: acts only behind these; NULL: always */
    struct gguf_reader *gguf;      /* NULL: a PEFT folder */
    struct safetensors_reader *safetensors;
    struct json_doc *config;
    struct string_list warnings, skipped; /* in `arena` */
    struct arena arena;
};

/* Open and check either kind. *out: caller frees with adapter_close. Messages name file and tensor. */
int adapter_open(struct adapter **out, const char *path, struct err *e);
void adapter_close(struct adapter *a);

/* Is `path` a folder with an adapter and no model, or a GGUF file of an adapter? */
bool adapter_is_one(const char *path);

/* Numbers of the file as a matrix for each expert: element (m, i, j) stands at m * step_mat + i * step_row +
 * j * step_col. */
struct adapter_factor {
    const uint8_t *data;
    enum qtype type;
    uint64_t step_mat, step_row, step_col;
};

/* What one module adds to one tensor of the output, under its GGUF name. */
struct adapter_term {
    const char *tensor;
    const char *module;    /* for messages */
    uint64_t row0, n_rows; /* of the tensor, all leading dimensions flattened */
    uint64_t n_cols, rank;
    uint64_t n_mats, out_rows;   /* of the tensor: 1 or its experts, and rows of one of them */
    uint64_t mat_rows, src_rows; /* rows of one matrix of the source, and of all */
    double scale;
    arch_map rows, cols; /* from the output to the source, as in struct arch_row; NULL: identity */
    const struct arch_model *arch;
    struct adapter_factor a, b; /* (matrix, rank, column) and (matrix, row, rank) */
    const uint8_t *magnitude;   /* of each row of the source; NULL: no DoRA */
    enum qtype magnitude_type;
};

struct adapter_terms {
    struct adapter_term *items;
    size_t n, cap;
};

/* All terms of a PEFT folder by the rows of a family, in the order of its modules; of a GGUF file
 * adapter_terms_of_gguf. Items live in `arena`; they borrow from adapter and model. Modules of other
 * modalities are added to a->skipped. ERR_FORMAT names a module that no weight of the family fits. */
int adapter_bind(struct adapter_terms *out, struct adapter *a, const struct arch_model *arch,
                 struct arena *arena, struct err *e);
int adapter_terms_of_gguf(struct adapter_terms *out, struct adapter *a, struct arena *arena, struct err *e);

/* Add what belongs to rows [row0, row0+n) of the tensor onto `rows` [n, n_cols]. Sums run over the rank in
 * order, so the result depends on nothing else. Thread-safe. */
int adapter_term_apply(const struct adapter_term *t, const struct kern *k, uint64_t row0, uint64_t n,
                       float *rows, struct err *e);

/* For row `row` of the tensor: rank `rank` of its A, [n_cols]; its row of B, [rank]. */
int adapter_term_a(const struct adapter_term *t, const struct kern *k, uint64_t row, uint64_t rank,
                   float *dst, struct err *e);
int adapter_term_b(const struct adapter_term *t, const struct kern *k, uint64_t row, float *dst,
                   struct err *e);

/* For the files of this room. */
int adapter_open_peft(struct adapter *a, struct err *e);
int adapter_open_gguf(struct adapter *a, struct err *e);
int adapter_add_line(struct adapter *a, struct string_list *lines, struct err *e, const char *fmt, ...)
    KERF_PRINTF(4, 5);
int adapter_no_memory(struct err *e);
int adapter_add_term(struct adapter_terms *list, const struct adapter_term *t, struct arena *arena,
                     struct err *e);

#endif
