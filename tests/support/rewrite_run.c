/* rewrite_run.c - see rewrite_run.h. */
#include "rewrite_run.h"

#include "libquant/base/rng.h"
#include "libquant/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/kerf-rewrite.XXXXXX";

int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"src.gguf",   "first.gguf",  "out.gguf",
                                        "whole.gguf", "whole4.gguf", "mid.gguf"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_folder(path, names[i]));
    return rmdir(folder);
}

const char *in_folder(char out[256], const char *name)
{
    snprintf(out, 256, "%s/%s", folder, name);
    return out;
}

const struct spec specs[N_SPECS] = {
    {"token_embd.weight", 2, {N_COLS, 70, 1, 1}},
    {"output.weight", 2, {N_COLS, 70, 1, 1}},
    {"output_norm.weight", 1, {N_COLS, 1, 1, 1}},
    {"blk.0.attn_norm.weight", 1, {N_COLS, 1, 1, 1}},
    {"blk.0.attn_q.weight", 2, {N_COLS, 96, 1, 1}},
    {"blk.0.attn_v.weight", 2, {N_COLS, 33, 1, 1}},
    {"blk.0.ffn_gate_inp.weight", 2, {N_COLS, N_EXPERTS, 1, 1}},
    {"blk.0.ffn_down_exps.weight", 3, {N_COLS, 19, N_EXPERTS, 1}},
    {"blk.1.attn_q.weight", 2, {N_COLS, 2500, 1, 1}}, /* several jobs */
    {"blk.1.attn_v.weight", 2, {96, 40, 1, 1}},       /* rows that no 256-block divides */
};

uint64_t source_seed = 7;
float source_scale = 1;

void write_source(const char *path, enum qtype type, long poison, float value)
{
    struct err e = {0};
    struct gguf_meta *meta;
    struct gguf_out_tensor tensors[N_SPECS];
    assert_int_equal(gguf_meta_new(&meta, &e), 0);
    assert_int_equal(gguf_meta_set_string(meta, "general.architecture", "qwen3moe", &e), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "general.file_type", 0, &e), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "qwen3moe.block_count", 2, &e), 0);
    assert_int_equal(gguf_meta_set_u32(meta, "qwen3moe.attention.head_count", 4, &e), 0);
    for (size_t i = 0; i < N_SPECS; i++) {
        bool vector = specs[i].n_dims == 1 || strstr(specs[i].name, "gate_inp");
        tensors[i] = (struct gguf_out_tensor){
            .name = specs[i].name, .type = vector ? QTYPE_F32 : type, .n_dims = specs[i].n_dims};
        memcpy(tensors[i].ne, specs[i].ne, sizeof tensors[i].ne);
    }
    uint8_t *header;
    size_t header_bytes;
    uint64_t file_bytes;
    assert_int_equal(gguf_layout(meta, tensors, N_SPECS, &header, &header_bytes, &file_bytes, &e), 0);
    struct output_file *f;
    assert_int_equal(output_file_open(&f, path, &(struct output_file_options){.overwrite = true}, &e), 0);
    assert_int_equal(output_file_write_at(f, 0, header, header_bytes, &e), 0);
    struct rng rng = {source_seed};
    for (size_t i = 0; i < N_SPECS; i++) {
        uint64_t n = specs[i].ne[0] * specs[i].ne[1] * specs[i].ne[2];
        float *x = malloc(n * sizeof *x);
        uint8_t *bytes = malloc(tensors[i].n_bytes);
        for (uint64_t k = 0; k < n; k++)
            x[k] = (float)rng_normal(&rng) * (k % 97 == 0 ? 0.3f : 0.02f) * source_scale;
        if (poison >= 0 && strcmp(specs[i].name, "blk.0.attn_q.weight") == 0)
            x[poison] = value;
        assert_int_equal(quant_encode_rows(kern_by_name("ref"), tensors[i].type, x, bytes, tensors[i].n_bytes,
                                           1, n, NULL, &e),
                         0);
        assert_int_equal(output_file_write_at(f, tensors[i].offset, bytes, tensors[i].n_bytes, &e), 0);
        free(bytes);
        free(x);
    }
    assert_int_equal(output_file_commit(f, file_bytes, &e), 0);
    free(header);
    gguf_meta_free(meta);
}

struct imatrix *make_imatrix(bool all)
{
    struct err e = {0};
    struct imatrix *m;
    struct rng rng = {3};
    assert_int_equal(imatrix_new(&m, &e), 0);
    for (size_t i = 0; i < N_SPECS; i++) {
        if (specs[i].n_dims < 2 || strncmp(specs[i].name, "blk.", 4) != 0 ||
            (!all && strstr(specs[i].name, "attn_v")))
            continue;
        struct imatrix_entry *entry;
        uint64_t n_mats = specs[i].ne[2], n = specs[i].ne[0] * n_mats;
        assert_int_equal(imatrix_add(m, specs[i].name, n, n_mats, &entry, &e), 0);
        for (uint64_t k = 0; k < n; k++)
            entry->sums[k] = 512 * (0.01 + rng_uniform(&rng) * rng_uniform(&rng));
        for (uint64_t k = 0; k < n_mats; k++)
            entry->counts[k] = 512;
    }
    imatrix_set_chunks(m, 512, 1);
    return m;
}

static int on_progress(void *ctx, const struct progress_step *p)
{
    struct setup *s = ctx;
    if (s->n_calls++ == 0)
        s->first_done = (uint64_t)p->done;
    assert_true(p->done <= p->total);
    if (s->in_the_way)
        (void)mkdir(s->in_the_way, 0777);
    return s->cancel_after && s->n_calls > s->cancel_after;
}

int rewrite(const char *from, const char *to, struct setup *s, struct err *e)
{
    struct model *m;
    struct pool *pool;
    struct model_options mo = {.kern = kern_by_name(s->isa ? s->isa : "native")};
    assert_int_equal(pool_new(&pool, s->threads ? s->threads : 2, e), 0);
    assert_int_equal(model_open(&m, from, &mo, e), 0);
    const struct mix *mix = s->type ? mix_find(s->type) : NULL;
    assert_true(mix || !s->type);
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp",
                                             .mix = mix,
                                             .overrides = s->overrides,
                                             .n_overrides = s->n_overrides},
                                  .imatrix = s->imatrix,
                                  .imatrix_path = "test.imatrix",
                                  .imatrix_strict = s->strict,
                                  .allow_requantize = s->requantize,
                                  .overwrite = !s->keep_old,
                                  .resume = s->resume,
                                  .dry_run = s->dry_run,
                                  .measure = true,
                                  .memory_bytes = s->memory,
                                  .split_max_bytes = s->split,
                                  .kern = mo.kern,
                                  .pool = pool,
                                  .progress = {on_progress, s}};
    s->n_calls = 0;
    int rc = rewrite_model(s->report, m, to, &opt, e);
    model_close(m);
    pool_free(pool);
    return rc;
}

uint8_t *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    uint8_t *data = malloc((size_t)st.st_size + 1);
    *n = fread(data, 1, (size_t)st.st_size, f);
    fclose(f);
    return data;
}

void assert_same_file(const char *a, const char *b)
{
    size_t n, m;
    uint8_t *x = read_file(a, &n), *y = read_file(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

bool exists(const char *path, const char *suffix)
{
    char full[300];
    snprintf(full, sizeof full, "%s%s", path, suffix);
    return access(full, F_OK) == 0;
}

void assert_nothing_left(const char *path)
{
    assert_false(exists(path, ""));
    assert_false(exists(path, ".kerf-part"));
    assert_false(exists(path, ".kerf-part.journal"));
}
