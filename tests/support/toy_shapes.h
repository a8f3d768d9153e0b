/* toy_shapes.h - for tests: names and shapes of many small models of many kinds, each a function of one
 * number.
 *
 * Dense and expert models, fused, latent and hybrid attention, tied and untied, rows that fit the blocks and
 * rows that do not. The golden answers of tests/golden/recipes.txt were computed for exactly these models. */
#ifndef KERF_TEST_TOY_SHAPES_H
#define KERF_TEST_TOY_SHAPES_H

#include "libquant/types.h"

struct toy_tensor {
    char name[64];
    uint64_t ne[4];
};

struct toy_model {
    const char *arch;
    uint64_t n_layers, n_heads, n_kv_heads, n_experts;
    /* options of the run */
    bool pure, has_output_type, has_embedding_type;
    enum qtype output_type, embedding_type;
    const char *override_pattern; /* NULL: none */
    enum qtype override_type;
    size_t n;
    struct toy_tensor *tensors; /* by layer and name, as the reference orders them */
};

/* The model of a number; toy_model_release when done. False when memory is refused. */
bool toy_model_make(struct toy_model *m, uint64_t number);
void toy_model_release(struct toy_model *m);

/* Types as text, runs folded: "Q6_K F32*2 Q4_K*7". Caller frees with free(). */
char *toy_types_text(const enum qtype *types, size_t n);

#endif
