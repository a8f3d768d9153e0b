/* rewrite_run.h - what the tests of rewriting share: a small model with experts as a GGUF file, an importance
 * matrix for it, one run of the engine, and what a run leaves behind.
 *
 *     write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
 *     struct setup s = {.type = "Q4_K_M"};
 *     assert_int_equal(rewrite(src, in_folder(out, "out.gguf"), &s, &e), 0);
 *
 * Fixtures of the group are make_folder and remove_folder. */
#ifndef KERF_TEST_REWRITE_RUN_H
#define KERF_TEST_REWRITE_RUN_H

#include "formats/rewrite/rewrite.h"
#include "formats/gguf/gguf_write.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The folder of the program. remove_folder fails when it holds more than what the tests write for all: a test
 * removes what it alone has made, and a run leaves nothing. */
int make_folder(void **state);
int remove_folder(void **state);
const char *in_folder(char out[256], const char *name);

enum { N_COLS = 256, N_EXPERTS = 4, N_SPECS = 10 };

struct spec {
    const char *name;
    uint32_t n_dims;
    uint64_t ne[4];
};

/* The tensors of the model. */
extern const struct spec specs[N_SPECS];

/* What write_source draws the weights from, and what it multiplies them by. */
extern uint64_t source_seed;
extern float source_scale;

/* Write the model as F32, F16 or BF16; `poison` >= 0 puts `value` at that element of blk.0.attn_q.weight. */
void write_source(const char *path, enum qtype type, long poison, float value);

/* Importance for the matrices of the blocks; without attn_v unless `all`. Caller frees with imatrix_free. */
struct imatrix *make_imatrix(bool all);

struct setup {
    unsigned threads;
    uint64_t memory;
    const char *isa, *type;
    const struct recipe_override *overrides;
    size_t n_overrides;
    const struct imatrix *imatrix;
    bool strict, resume, dry_run, requantize, keep_old;
    uint64_t split;
    size_t cancel_after;    /* calls of progress; 0: never */
    const char *in_the_way; /* a folder of this name is made while the run goes on */
    size_t n_calls;
    uint64_t first_done;
    struct rewrite_report *report;
};

/* rewrite_model from file to file. */
int rewrite(const char *from, const char *to, struct setup *s, struct err *e);

/* The whole file; caller frees with free(). */
uint8_t *read_file(const char *path, size_t *n);
void assert_same_file(const char *a, const char *b);

/* Is there a file of this path with `suffix` behind it? */
bool exists(const char *path, const char *suffix);

/* Neither the output nor what a resumable run keeps. */
void assert_nothing_left(const char *path);

#endif
