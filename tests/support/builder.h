/* builder.h - small checkpoints put together tensor by tensor, so that a test can add, change and leave out.
 *
 *     struct builder *b = malloc(sizeof *b);
 *     builder_fill(b, "Qwen2ForCausalLM", false, 0);
 *     builder_drop(b, "model.norm.weight");
 *     expect_refusal(builder_write(b, "bad"), ERR_FORMAT, "model.norm.weight");
 *
 * Whatever cannot be done fails the test. */
#ifndef KERF_TEST_BUILDER_H
#define KERF_TEST_BUILDER_H

#include "formats/hf/safetensors_read.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tensor_spec {
    char name[100];
    enum st_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[4];
    float first, step; /* element i is first + i * step */
};

struct builder {
    struct tensor_spec t[200];
    size_t n;
    char config[1024];
};

/* Sizes of what builder_fill makes, by the names of specification, architectures 0.1: vocabulary, width,
 * layers, heads, widths of a dense layer, number of experts, their width, that of the shared one. */
enum { V = 40, D = 8, L = 2, H = 2, FF = 12, E = 3, FE = 5, FS = 6 };

/* A model of one layer kind with all its tensors; `moe` 0 dense qwen2, 1 experts one by one, 2 stacked. */
void builder_fill(struct builder *b, const char *class_name, bool tied, int moe);

/* One more tensor, of F32; dimensions behind `n_dims` are ignored. */
struct tensor_spec *builder_add(struct builder *b, const char *name, uint32_t n_dims, uint64_t d0,
                                uint64_t d1, uint64_t d2);
void builder_drop(struct builder *b, const char *name);
struct tensor_spec *spec_of(struct builder *b, const char *name);

/* Element i of an F32 tensor. */
float spec_value(const struct tensor_spec *t, uint64_t i);

/* The folder of this name in the scratch folder of the program, written anew: config.json and
 * model.safetensors. The path is that of in_scratch. */
const char *builder_write(const struct builder *b, const char *name);

#endif
