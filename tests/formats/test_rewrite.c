/* test_rewrite.c - the engine: same bytes on every machine, bad weights named, stopped runs continued. */
#include "formats/convert/model_files.h"
#include "formats/convert/rewrite.h"
#include "formats/convert/rewrite_internal.h"
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"
#include "libquant/base/rng.h"
#include "libquant/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/kerf-rewrite.XXXXXX";

static const char *in_folder(char out[256], const char *name)
{
    snprintf(out, 256, "%s/%s", folder, name);
    return out;
}

/* The linker puts this in the place of the library's calls (see CMakeLists.txt). */
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
static int flush_fails; /* how many of the next calls fail */

int __wrap_fdatasync(int fd)
{
    if (flush_fails == 0)
        return __real_fdatasync(fd);
    flush_fails--;
    errno = EIO;
    return -1;
}

/* --- a small model with experts --- */

#define N_COLS    256
#define N_EXPERTS 4

struct spec {
    const char *name;
    uint32_t n_dims;
    uint64_t ne[4];
};

static const struct spec specs[] = {
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
#define N_SPECS (sizeof specs / sizeof *specs)

/* What write_source draws the weights from. */
static uint64_t seed = 7;

/* Write the model as F32, F16 or BF16; `poison` >= 0 puts `value` at that element of blk.0.attn_q.weight. */
static void write_source(const char *path, enum qtype type, long poison, float value)
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
    struct outfile *f;
    assert_int_equal(outfile_open(&f, path, &(struct outfile_options){.overwrite = true}, &e), 0);
    assert_int_equal(outfile_write_at(f, 0, header, header_bytes, &e), 0);
    struct rng rng = {seed};
    for (size_t i = 0; i < N_SPECS; i++) {
        uint64_t n = specs[i].ne[0] * specs[i].ne[1] * specs[i].ne[2];
        float *x = malloc(n * sizeof *x);
        uint8_t *bytes = malloc(tensors[i].n_bytes);
        for (uint64_t k = 0; k < n; k++)
            x[k] = (float)rng_normal(&rng) * (k % 97 == 0 ? 0.3f : 0.02f);
        if (poison >= 0 && strcmp(specs[i].name, "blk.0.attn_q.weight") == 0)
            x[poison] = value;
        assert_int_equal(quant_encode_rows(kern_by_name("ref"), tensors[i].type, x, bytes, tensors[i].n_bytes,
                                           1, n, NULL, &e),
                         0);
        assert_int_equal(outfile_write_at(f, tensors[i].offset, bytes, tensors[i].n_bytes, &e), 0);
        free(bytes);
        free(x);
    }
    assert_int_equal(outfile_commit(f, file_bytes, &e), 0);
    free(header);
    gguf_meta_free(meta);
}

static struct imatrix *make_imatrix(bool all)
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

/* --- running --- */

struct setup {
    unsigned threads;
    uint64_t memory;
    const char *isa, *type;
    const struct imatrix *imatrix;
    bool strict, resume, dry_run, requantize, keep_old;
    uint64_t split;
    size_t cancel_after;    /* calls of progress; 0: never */
    const char *in_the_way; /* a folder of this name is made while the run goes on */
    size_t n_calls;
    uint64_t first_done;
    struct rewrite_report *report;
};

static int on_progress(void *ctx, const struct rewrite_progress *p)
{
    struct setup *s = ctx;
    if (s->n_calls++ == 0)
        s->first_done = p->done_bytes;
    assert_true(p->done_bytes <= p->total_bytes);
    if (s->in_the_way)
        (void)mkdir(s->in_the_way, 0777);
    return s->cancel_after && s->n_calls > s->cancel_after;
}

static int rewrite(const char *from, const char *to, struct setup *s, struct err *e)
{
    struct model *m;
    struct pool *pool;
    struct model_options mo = {.kern = kern_by_name(s->isa ? s->isa : "native")};
    assert_int_equal(pool_new(&pool, s->threads ? s->threads : 2, e), 0);
    assert_int_equal(model_open(&m, from, &mo, e), 0);
    const struct mix *mix = s->type ? mix_find(s->type) : NULL;
    assert_true(mix || !s->type);
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp", .mix = mix},
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
                                  .progress = on_progress,
                                  .progress_ctx = s};
    s->n_calls = 0;
    int rc = rewrite_model(s->report, m, to, &opt, e);
    model_close(m);
    pool_free(pool);
    return rc;
}

static uint8_t *read_file(const char *path, size_t *n)
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

static void assert_same_file(const char *a, const char *b)
{
    size_t n, m;
    uint8_t *x = read_file(a, &n), *y = read_file(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static bool exists(const char *path, const char *suffix)
{
    char full[300];
    snprintf(full, sizeof full, "%s%s", path, suffix);
    return access(full, F_OK) == 0;
}

static void assert_nothing_left(const char *path)
{
    assert_false(exists(path, ""));
    assert_false(exists(path, ".kerf-part"));
    assert_false(exists(path, ".kerf-part.journal"));
}

/* --- the claims --- */

static void bytes_do_not_depend_on_threads_memory_or_instruction_set(void **state)
{
    (void)state;
    static const struct setup ways[] = {
        {.threads = 1, .memory = 64 << 20, .isa = "ref"},
        {.threads = 2, .memory = (uint64_t)4 << 30},
        {.threads = 7, .memory = 64 << 20},
        {.threads = 7, .memory = 1 << 20}, /* fewer slots than threads */
        {.threads = 1, .memory = (uint64_t)4 << 30, .isa = "native"},
    };
    char src[256], first[256], out[256];
    struct err e = {0};
    struct imatrix *im = make_imatrix(true);
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(first, "first.gguf");
    double rmse[N_SPECS];
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct setup s = ways[i];
        struct rewrite_report r;
        s.type = "Q4_K_M";
        s.imatrix = im;
        s.report = &r;
        in_folder(out, i ? "out.gguf" : "first.gguf");
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_int_equal(r.n_tensors, N_SPECS);
        for (size_t t = 0; t < N_SPECS; t++) {
            if (i == 0)
                rmse[t] = r.tensors[t].rmse;
            assert_memory_equal(&rmse[t], &r.tensors[t].rmse, sizeof rmse[t]);
        }
        rewrite_report_release(&r);
        assert_same_file(first, out);
        assert_false(exists(out, ".kerf-part"));
        assert_false(exists(out, ".kerf-part.journal"));
    }
    imatrix_free(im);
}

/* Each slice of a stack is encoded with its own weights, and rmse is what decoding shows. */
static void experts_have_their_own_importance_and_rmse_is_what_it_says(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    struct imatrix *im = make_imatrix(true);
    struct rewrite_report r;
    struct setup s = {.type = "Q3_K_M", .imatrix = im, .report = &r};
    write_source(in_folder(src, "src.gguf"), QTYPE_F32, -1, 0);
    assert_int_equal(rewrite(src, in_folder(out, "out.gguf"), &s, &e), 0);

    struct gguf_reader *a, *b;
    assert_int_equal(gguf_reader_open(&a, src, NULL, &e), 0);
    assert_int_equal(gguf_reader_open(&b, out, NULL, &e), 0);
    const struct gguf_tensor *from = gguf_reader_find(a, "blk.0.ffn_down_exps.weight");
    const struct gguf_tensor *to = gguf_reader_find(b, "blk.0.ffn_down_exps.weight");
    const struct imatrix_entry *entry = imatrix_find(im, to->name);
    uint64_t rows = to->ne[1], slice = to->n_bytes / N_EXPERTS;
    uint8_t *want = malloc(to->n_bytes);
    float *x = malloc(4 * N_COLS * rows * N_EXPERTS), *y = malloc(4 * N_COLS * rows * N_EXPERTS);
    memcpy(x, from->data, from->n_bytes);
    for (uint64_t k = 0; k < N_EXPERTS; k++) {
        float w[N_COLS];
        assert_int_equal(imatrix_weights(entry, k, N_EXPERTS, N_COLS, w, &e), 0);
        assert_int_equal(quant_encode_rows(kern_native(), to->type, x + k * rows * N_COLS, want + k * slice,
                                           slice, rows, N_COLS, w, &e),
                         0);
    }
    assert_memory_equal(to->data, want, to->n_bytes);
    assert_int_equal(
        quant_decode_rows(kern_native(), to->type, to->data, to->n_bytes, y, rows * N_EXPERTS, N_COLS, &e),
        0);
    double sum = 0;
    for (uint64_t i = 0; i < rows * N_EXPERTS * N_COLS; i++)
        sum += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
    double rmse = sqrt(sum / (double)(rows * N_EXPERTS * N_COLS));
    bool seen = false;
    for (size_t i = 0; i < r.n_tensors; i++) {
        if (strcmp(r.tensors[i].name, to->name) == 0) {
            seen = true;
            assert_true(fabs(r.tensors[i].rmse / rmse - 1) < 1e-12);
        }
        if (strcmp(r.tensors[i].name, "output_norm.weight") == 0)
            assert_true(r.tensors[i].rmse == 0);
    }
    assert_true(seen);
    free(want);
    free(x);
    free(y);
    gguf_reader_close(a);
    gguf_reader_close(b);
    rewrite_report_release(&r);
    imatrix_free(im);
}

static void order_and_metadata_are_those_of_a_quantizer(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    struct imatrix *im = make_imatrix(false);
    struct rewrite_report r;
    struct setup s = {.type = "Q4_K_M", .imatrix = im, .report = &r};
    write_source(in_folder(src, "src.gguf"), QTYPE_F16, -1, 0);
    assert_int_equal(rewrite(src, in_folder(out, "out.gguf"), &s, &e), 0);
    struct gguf_reader *g;
    assert_int_equal(gguf_reader_open(&g, out, NULL, &e), 0);
    static const char *const order[] = {"output.weight", "output_norm.weight", "token_embd.weight",
                                        "blk.0.attn_norm.weight", "blk.0.attn_q.weight"};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        assert_string_equal(gguf_reader_tensor(g, i)->name, order[i]);
    static const char *const keys[] = {"general.architecture",
                                       "qwen3moe.block_count",
                                       "qwen3moe.attention.head_count",
                                       "general.quantization_version",
                                       "general.file_type",
                                       "quantize.imatrix.file",
                                       "quantize.imatrix.entries_count",
                                       "quantize.imatrix.chunks_count",
                                       "kerf.recipe",
                                       "kerf.recipe.version"};
    const struct gguf_meta *meta = gguf_reader_meta(g);
    assert_int_equal(gguf_meta_n(meta), sizeof keys / sizeof *keys);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_string_equal(gguf_meta_key(meta, i), keys[i]);
    uint64_t v;
    assert_true(gguf_meta_get_u64(meta, "general.file_type", &v) && v == 15);
    /* The router stays F32, the row of 96 falls back, and both are told. */
    assert_int_equal(gguf_reader_find(g, "blk.0.ffn_gate_inp.weight")->type, QTYPE_F32);
    assert_int_not_equal(gguf_reader_find(g, "blk.1.attn_v.weight")->type, QTYPE_Q4_K);
    bool fallback = false, missing = false;
    for (size_t i = 0; i < r.n_warnings; i++) {
        fallback =
            fallback || (strstr(r.warnings[i], "blk.1.attn_v.weight") && strstr(r.warnings[i], "fallback"));
        missing = missing || strstr(r.warnings[i], "no entry for 3 tensors");
    }
    assert_true(fallback);
    assert_true(missing);
    gguf_reader_close(g);
    rewrite_report_release(&r);
    imatrix_free(im);
}

static void bad_weights_are_named_and_nothing_is_written(void **state)
{
    (void)state;
    static const struct {
        enum qtype source;
        float value;
        const char *type, *says;
    } cases[] = {
        {QTYPE_F32, NAN, "Q4_K_M", "found NaN"},      {QTYPE_BF16, NAN, "Q8_0", "found NaN"},
        {QTYPE_BF16, INFINITY, NULL, "found +Inf"}, /* copied */
        {QTYPE_F32, -INFINITY, "BF16", "found -Inf"}, {QTYPE_BF16, 1e6f, "F16", "does not fit in F16"},
    };
    char src[256], out[256];
    in_folder(src, "src.gguf");
    in_folder(out, "bad.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        struct setup s = {.type = cases[i].type};
        write_source(src, cases[i].source, 5 * N_COLS + 17, cases[i].value);
        assert_true(rewrite(src, out, &s, &e) < 0);
        assert_non_null(strstr(e.msg, cases[i].says));
        assert_non_null(strstr(e.msg, "tensor 'blk.0.attn_q.weight'"));
        assert_non_null(strstr(e.msg, "row 5, column 17"));
        assert_nothing_left(out);
    }
}

static void a_stopped_run_leaves_nothing_unless_it_shall_be_resumed(void **state)
{
    (void)state;
    char src[256], whole[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct rewrite_report full, resumed;
    struct setup plain = {.threads = 1, .type = "Q5_K_M", .report = &full};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &plain, &e), 0);
    size_t n_jobs = plain.n_calls;
    assert_true(n_jobs > N_SPECS); /* one tensor has several */

    struct setup stop = {.threads = 1, .type = "Q5_K_M", .cancel_after = 4};
    assert_int_equal(rewrite(src, in_folder(out, "stop.gguf"), &stop, &e), ERR_CANCELLED);
    assert_nothing_left(out);

    for (size_t k = 1; k < n_jobs; k++) {
        stop.resume = true;
        stop.cancel_after = k;
        assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
        assert_false(exists(out, ""));
        assert_true(exists(out, ".kerf-part"));
        assert_true(exists(out, ".kerf-part.journal"));
        struct setup again = {.threads = 1, .type = "Q5_K_M", .resume = true, .report = &resumed};
        assert_int_equal(rewrite(src, out, &again, &e), 0);
        assert_true(again.first_done > 0);
        assert_int_equal(resumed.n_warnings, full.n_warnings);
        for (size_t i = 0; i < N_SPECS; i++)
            assert_memory_equal(&resumed.tensors[i].rmse, &full.tensors[i].rmse, sizeof full.tensors[i].rmse);
        rewrite_report_release(&resumed);
        assert_same_file(whole, out);
        unlink(out);
        assert_nothing_left(out);
    }
    rewrite_report_release(&full);
}

/* Corrupt what a stopped run left in several ways; the next run must start again or use what is sound. */
static void a_partial_file_is_trusted_only_when_it_fits(void **state)
{
    (void)state;
    char src[256], whole[256], out[256], part[300], journal[300];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct setup plain = {.threads = 1, .type = "Q5_K_M"};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &plain, &e), 0);
    in_folder(out, "stop.gguf");
    snprintf(part, sizeof part, "%s.kerf-part", out);
    snprintf(journal, sizeof journal, "%s.kerf-part.journal", out);
    for (int way = 0; way < 5; way++) {
        struct setup stop = {.threads = 1, .type = "Q5_K_M", .cancel_after = 6, .resume = true};
        assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
        size_t n;
        uint8_t *bytes = read_file(journal, &n);
        const char *type = "Q5_K_M";
        bool restarts = true;
        if (way == 0) { /* other options */
            type = "Q4_K_M";
            unlink(out);
            struct setup other = {.threads = 1, .type = type};
            char expect[256];
            assert_int_equal(rewrite(src, in_folder(expect, "whole4.gguf"), &other, &e), 0);
        } else if (way == 1) { /* the source was written again */
            struct timespec times[2] = {{1000, 0}, {1000, 0}};
            assert_int_equal(utimensat(AT_FDCWD, src, times, 0), 0);
        } else if (way == 2) { /* the partial file is gone, a stale journal is not */
            unlink(part);
        } else if (way == 3) { /* a torn batch counts for nothing */
            assert_int_equal(truncate(journal, (off_t)n - 3), 0);
            restarts = false; /* the identity fits; no job is known */
        } else {              /* a flipped bit likewise */
            bytes[n - 20] ^= 1;
            FILE *f = fopen(journal, "wb");
            assert_int_equal(fwrite(bytes, 1, n, f), n);
            fclose(f);
            restarts = false;
        }
        free(bytes);
        struct rewrite_report r;
        struct setup again = {.threads = 1, .type = type, .resume = true, .report = &r};
        assert_int_equal(rewrite(src, out, &again, &e), 0);
        assert_int_equal(again.first_done, 0);
        bool told = false;
        for (size_t i = 0; i < r.n_warnings; i++)
            told = told || strstr(r.warnings[i], "started");
        assert_int_equal(told, restarts);
        rewrite_report_release(&r);
        char expect[256];
        assert_same_file(in_folder(expect, way == 0 ? "whole4.gguf" : "whole.gguf"), out);
        unlink(out);
        assert_nothing_left(out);
    }
}

static bool told(const struct rewrite_report *r, const char *words)
{
    for (size_t i = 0; i < r->n_warnings; i++)
        if (strstr(r->warnings[i], words))
            return true;
    return false;
}

/* The last step fails: with `resume` the finished temporary files stay, and the next run only has to repeat
 * that step. */
static void a_failed_commit_can_be_resumed(void **state)
{
    (void)state;
    for (int split = 0; split < 2; split++) {
        char src[256], out[256], block[256];
        struct err e = {0};
        struct rewrite_report r;
        write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
        in_folder(out, "late.gguf");
        in_folder(block, split ? "late-00002-of-00002.gguf" : "late.gguf");
        struct setup s = {.type = "Q8_0", .in_the_way = block, .split = split ? 720000 : 0};
        assert_int_equal(rewrite(src, out, &s, &e), ERR_IO); /* without `resume` nothing is left */
        assert_non_null(strstr(e.msg, "is a folder"));
        assert_false(exists(block, ".kerf-part"));
        assert_int_equal(rmdir(block), 0);
        s.resume = true;
        assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
        assert_non_null(strstr(e.msg, "--resume goes on from there"));
        assert_true(exists(block, ".kerf-part"));
        struct setup again = {
            .type = "Q8_0", .split = s.split, .resume = true, .report = &r, .in_the_way = block};
        assert_int_equal(rewrite(src, out, &again, &e), ERR_IO); /* and once more */
        assert_true(again.n_calls == 0 || again.first_done > 0);
        assert_int_equal(rmdir(block), 0);
        again.in_the_way = NULL;
        again.threads = 1;
        assert_int_equal(rewrite(src, out, &again, &e), 0);
        struct model *m;
        assert_int_equal(model_open(&m, src, &(struct model_options){0}, &e), 0);
        uint64_t all = 0;
        for (size_t i = 0; i < model_n_tensors(m); i++)
            all += model_tensor(m, i)->n_bytes;
        model_close(m);
        assert_int_equal(again.first_done, all); /* nothing was computed again */
        assert_false(told(&r, "started"));
        assert_int_equal(r.n_files, split ? 2 : 1);
        for (size_t i = 0; i < r.n_files; i++) {
            assert_false(exists(r.files[i], ".kerf-part"));
            assert_false(exists(r.files[i], ".kerf-part.journal"));
            unlink(r.files[i]);
        }
        rewrite_report_release(&r);
    }
}

/* The system tells of lost writes once. When the journal hears it, the run must not end well. */
static void a_flush_that_fails_ends_the_run(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(out, "flush.gguf");
    struct setup s = {.type = "Q8_0"};
    flush_fails = 1; /* that of the new journal */
    assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
    assert_nothing_left(out);
    /* one for each batch: the journal's thread may or may not come to write one before the last */
    struct setup stop = {.type = "Q8_0", .cancel_after = 3, .resume = true, .threads = 1};
    assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
    flush_fails = 1; /* that of the outputs, before the journal is written anew: the old one must survive */
    struct setup again = {.type = "Q8_0", .resume = true, .threads = 1};
    assert_int_equal(rewrite(src, out, &again, &e), ERR_IO);
    assert_int_equal(flush_fails, 0);
    assert_true(exists(out, ".kerf-part.journal"));
    assert_false(exists(out, ".kerf-part.journal.new"));
    assert_int_equal(rewrite(src, out, &again, &e), 0);
    assert_true(again.first_done > 0);
    unlink(out);
    assert_nothing_left(out);
}

static int flush_fails_later(void *ctx, const struct rewrite_progress *p)
{
    (void)ctx;
    if (p->done_bytes > p->total_bytes / 2)
        flush_fails = 1;
    return 0;
}

static void a_flush_that_fails_in_the_middle_is_not_forgotten(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    struct model *m;
    struct pool *pool;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(out, "flush.gguf");
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    assert_int_equal(model_open(&m, src, &(struct model_options){0}, &e), 0);
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp", .mix = mix_find("Q8_0")},
                                  .kern = kern_by_name("native"),
                                  .pool = pool,
                                  .progress = flush_fails_later};
    assert_int_equal(rewrite_model(NULL, m, out, &opt, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "flush.gguf: cannot flush to disk"));
    assert_int_equal(flush_fails, 0);
    assert_nothing_left(out);
    model_close(m);
    pool_free(pool);
}

/* One output as one file and as a set: each has its own journal, so neither spoils the other's. */
static void single_and_split_runs_do_not_share_a_journal(void **state)
{
    (void)state;
    char src[256], whole[256], out[256];
    struct err e = {0};
    struct rewrite_report r;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct setup plain = {.threads = 1, .type = "Q5_K_M"};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &plain, &e), 0);
    in_folder(out, "both.gguf");
    struct setup stop = {.threads = 1, .type = "Q5_K_M", .cancel_after = 6, .resume = true};
    assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
    struct setup set = {.threads = 1, .type = "Q5_K_M", .resume = true, .split = 500000, .report = &r};
    assert_int_equal(rewrite(src, out, &set, &e), 0);
    assert_true(r.n_files > 1);
    for (size_t i = 0; i < r.n_files; i++) {
        assert_false(exists(r.files[i], ".kerf-part.journal"));
        unlink(r.files[i]);
    }
    rewrite_report_release(&r);
    struct setup again = {.threads = 1, .type = "Q5_K_M", .resume = true};
    assert_int_equal(rewrite(src, out, &again, &e), 0);
    assert_true(again.first_done > 0);
    assert_same_file(whole, out);
    unlink(out);
    assert_nothing_left(out);
}

/* A run may be killed after its last step, before it could say so: then there is nothing left to resume. */
static void a_finished_output_needs_no_resuming(void **state)
{
    (void)state;
    for (int split = 0; split < 2; split++) {
        char src[256], out[256];
        struct err e = {0};
        struct rewrite_report r;
        write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
        in_folder(out, "done.gguf");
        struct setup s = {
            .type = "Q8_0", .resume = true, .keep_old = true, .split = split ? 720000 : 0, .report = &r};
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_true(s.n_calls > 0);
        rewrite_report_release(&r);
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_int_equal(s.n_calls, 0);
        assert_true(told(&r, "is finished already"));
        assert_true(isnan(r.tensors[0].rmse));
        s.report = NULL;
        s.type = "Q4_0"; /* another output has this name */
        if (!split) {
            assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
            assert_non_null(strstr(e.msg, "not what this run would write"));
        }
        s.type = "Q8_0";
        struct timespec later[2] = {{4000000000, 0}, {4000000000, 0}};
        assert_int_equal(utimensat(AT_FDCWD, src, later, 0), 0);
        assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
        assert_non_null(strstr(e.msg, "its source has changed"));
        write_source(src, QTYPE_BF16, -1, 0);
        s.resume = false;
        assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
        assert_non_null(strstr(e.msg, "exists already"));
        if (split) { /* a set lacks a part */
            s.resume = true;
            unlink(r.files[1]);
            assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
        }
        for (size_t i = 0; i < r.n_files; i++)
            unlink(r.files[i]);
        rewrite_report_release(&r);
    }
}

/* Same shapes, same names, older: only the bytes tell that a finished output was made from something else. */
static void an_output_of_another_source_is_not_finished(void **state)
{
    (void)state;
    char src[256], other[256], last[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    seed = 8;
    write_source(in_folder(other, "other.gguf"), QTYPE_BF16, -1, 0);
    seed = 7;
    write_source(in_folder(last, "last.gguf"), QTYPE_BF16, 96 * N_COLS - 1, 0.75f); /* one value */
    in_folder(out, "done.gguf");
    struct imatrix *a = make_imatrix(true), *b = make_imatrix(true);
    assert_true(imatrix_n(b) > 0);
    for (size_t i = 0; i < imatrix_n(b); i++) {
        struct imatrix_entry *x = (struct imatrix_entry *)imatrix_entry_at(b, i);
        for (uint64_t k = 0; k < x->n_values; k += 3)
            x->sums[k] *= 40;
    }
    for (int way = 0; way < 2; way++) { /* encoded, copied */
        struct setup s = {.type = way ? "BF16" : "Q4_K_M", .resume = true, .keep_old = true};
        s.imatrix = way ? NULL : a;
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_int_equal(rewrite(src, out, &s, &e), 0);
        assert_int_equal(s.n_calls, 0);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(rewrite(k ? last : other, out, &s, &e), ERR_IO);
            assert_non_null(strstr(e.msg, "not what this run would write"));
        }
        s.imatrix = b;
        if (way == 0) {
            assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
            assert_non_null(strstr(e.msg, "not what this run would write"));
        }
        s.imatrix = way ? NULL : a;
        assert_int_equal(rewrite(src, out, &s, &e), 0); /* nothing of it has touched the output */
        assert_int_equal(s.n_calls, 0);
        /* An older time of a source that came later does not hide that it did. */
        struct timespec old_times[2] = {{1000000000, 0}, {1000000000, 0}};
        assert_int_equal(utimensat(AT_FDCWD, out, old_times, 0), 0);
        old_times[0].tv_sec = old_times[1].tv_sec = 999999999;
        assert_int_equal(utimensat(AT_FDCWD, src, old_times, 0), 0);
        assert_int_equal(rewrite(src, out, &s, &e), ERR_IO);
        assert_non_null(strstr(e.msg, "its source has changed"));
        unlink(out);
    }
    imatrix_free(a);
    imatrix_free(b);
    unlink(other);
    unlink(last);
}

/* Another command at the same output begins anew where a resumable run stopped, and is killed as well. */
static void bytes_of_another_command_are_not_resumed(void **state)
{
    (void)state;
    char src[256], whole[256], out[256];
    struct err e = {0};
    struct outfile *f;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(out, "commands.gguf");
    struct setup s = {.threads = 1, .type = "Q5_K_M"};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &s, &e), 0);
    struct setup stop = {.threads = 1, .type = "Q5_K_M", .cancel_after = 6, .resume = true};
    assert_int_equal(rewrite(src, out, &stop, &e), ERR_CANCELLED);
    assert_true(exists(out, ".kerf-part.journal"));
    size_t n;
    uint8_t *bytes = read_file(whole, &n);
    memset(bytes + n / 4, 0x11, n - n / 4);
    assert_int_equal(outfile_open(&f, out, &(struct outfile_options){.keep_partial = true}, &e), 0);
    assert_int_equal(outfile_write(f, bytes, n, &e), 0);
    outfile_abort(f); /* as if killed: what was written stays */
    free(bytes);
    struct setup again = {.threads = 1, .type = "Q5_K_M", .resume = true};
    assert_int_equal(rewrite(src, out, &again, &e), 0);
    assert_same_file(whole, out);
    unlink(out);
    assert_nothing_left(out);
}

/* Sizes alone: no output, so no name that an input could have. */
static void a_plan_of_sizes_needs_no_output(void **state)
{
    (void)state;
    char src[256], before[600];
    struct err e = {0};
    struct rewrite_report r = {0};
    write_source(in_folder(src, "(dry run)"), QTYPE_BF16, -1, 0); /* as messages call it */
    assert_non_null(getcwd(before, sizeof before));
    *strrchr(src, '/') = 0;
    assert_int_equal(chdir(src), 0);
    strcpy(src, "(dry run)");
    struct setup s = {.type = "Q8_0", .dry_run = true, .report = &r};
    assert_int_equal(rewrite(src, NULL, &s, &e), 0);
    assert_true(r.n_bytes > 0 && r.n_bytes < 1 << 30);
    rewrite_report_release(&r);
    s.dry_run = false;
    s.report = NULL;
    assert_int_equal(rewrite(src, NULL, &s, &e), ERR_ARG);
    unlink(src);
    assert_int_equal(chdir(before), 0);
}

static void another_version_does_not_go_on(void **state)
{
    (void)state;
    char src[256], out[256], a[65], b[65];
    struct err e = {0};
    struct model *m;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    assert_int_equal(model_open(&m, src, &(struct model_options){0}, &e), 0);
    struct rewrite_options opt = {.recipe = {.recipe = "llama.cpp", .mix = mix_find("Q8_0")}};
    struct rw_plan plan = {0};
    assert_int_equal(rw_plan_make(&plan, m, in_folder(out, "out.gguf"), &opt, &e), 0);
    assert_int_equal(rw_journal_identity(a, "1.2.3", m, &plan, &opt, &e), 0);
    assert_int_equal(rw_journal_identity(b, "1.2.3", m, &plan, &opt, &e), 0);
    assert_string_equal(a, b);
    assert_int_equal(rw_journal_identity(b, "1.2.4", m, &plan, &opt, &e), 0);
    assert_string_not_equal(a, b);
    rw_plan_release(&plan);
    model_close(m);
}

static void an_output_may_not_be_an_input(void **state)
{
    (void)state;
    char src[256], copy[256], soft[256], hard[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    write_source(in_folder(copy, "first.gguf"), QTYPE_BF16, -1, 0);
    assert_int_equal(symlink("src.gguf", in_folder(soft, "soft.gguf")), 0);
    assert_int_equal(link(src, in_folder(hard, "hard.gguf")), 0);
    const char *const outs[] = {src, soft, hard};
    for (size_t i = 0; i < sizeof outs / sizeof *outs; i++)
        for (int way = 0; way < 3; way++) {
            struct setup s = {.type = "Q8_0", .resume = way == 1, .dry_run = way == 2};
            assert_int_equal(rewrite(src, outs[i], &s, &e), ERR_ARG);
            assert_non_null(strstr(e.msg, "inputs are never replaced"));
            assert_false(exists(outs[i], ".kerf-part"));
            assert_same_file(src, copy);
        }
    unlink(soft);
    unlink(hard);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* What a checkpoint folder is for an output in it: its own files are refused; the output, its temporary files
 * and whatever else lies there do not keep a stopped run from going on. */
static void an_output_inside_the_checkpoint_folder(void **state)
{
    (void)state;
    static const char *const own[] = {"config.json",     "model-00001-of-00002.safetensors",
                                      "README.md",       "a.gguf.safetensors",
                                      "tokenizer.model", "model.safetensors.index.json"};
    static const char *const others[] = {
        "out.gguf",          "out.gguf.kerf-part", "out.gguf.kerf-part.journal",
        "out.bin.kerf-part", "report.html",        "imatrix.dat"};
    enum { N_OWN = sizeof own / sizeof *own, N_OTHERS = sizeof others / sizeof *others };
    char ckpt[256], path[700], before[65], after[65], link_path[256], twisted[300], path_beside[256];
    struct err e = {0};
    in_folder(ckpt, "ckpt");
    assert_int_equal(mkdir(ckpt, 0777), 0);
    for (size_t i = 0; i < N_OWN; i++) {
        snprintf(path, sizeof path, "%s/%s", ckpt, own[i]);
        write_text(path, "some bytes");
    }
    struct sha256 h;
    uint8_t digest[32];
    struct timespec newest = {0};
    sha256_init(&h);
    assert_int_equal(model_files_hash(&h, ckpt, &newest, &e), 0);
    sha256_final(&h, digest);
    sha256_hex(digest, before);
    assert_true(newest.tv_sec > 0);
    for (size_t i = 0; i < N_OTHERS; i++) {
        snprintf(path, sizeof path, "%s/%s", ckpt, others[i]);
        write_text(path, strcmp(others[i], "out.gguf") == 0 ? "GGUF" : "x");
    }
    snprintf(twisted, sizeof twisted, "%s/../ckpt/.", ckpt);
    sha256_init(&h);
    assert_int_equal(model_files_hash(&h, twisted, NULL, &e), 0);
    sha256_final(&h, digest);
    sha256_hex(digest, after);
    assert_string_equal(before, after);
    for (size_t i = 0; i < N_OWN; i++) { /* what holds or explains the weights counts */
        snprintf(path, sizeof path, "%s/%s", ckpt, own[i]);
        write_text(path, "other bytes");
        sha256_init(&h);
        assert_int_equal(model_files_hash(&h, ckpt, NULL, &e), 0);
        sha256_final(&h, digest);
        sha256_hex(digest, after);
        bool weights = strcmp(own[i], "README.md") != 0 && strcmp(own[i], "tokenizer.model") != 0;
        assert_int_equal(strcmp(before, after) != 0, weights);
        strcpy(before, after);
    }

    for (size_t i = 0; i < N_OWN; i++) {
        snprintf(path, sizeof path, "%s/%s", ckpt, own[i]);
        assert_int_equal(model_files_refuse(ckpt, path, &e), ERR_ARG);
        assert_non_null(strstr(e.msg, "inputs are never replaced"));
        assert_int_equal(symlink(path, in_folder(link_path, "to-input")), 0);
        assert_int_equal(model_files_refuse(ckpt, link_path, &e), ERR_ARG);
        unlink(link_path);
    }
    snprintf(path, sizeof path, "%s/out.gguf", ckpt); /* there, with what a stopped run left */
    assert_int_equal(model_files_refuse(ckpt, path, &e), 0);
    snprintf(path, sizeof path, "%s/new.gguf", ckpt);
    assert_int_equal(model_files_refuse(ckpt, path, &e), 0);
    snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", ckpt); /* not there yet */
    assert_int_equal(model_files_refuse(ckpt, path, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "belongs to the checkpoint"));
    in_folder(path_beside, "model-00002-of-00002.safetensors"); /* in another folder */
    assert_int_equal(model_files_refuse(ckpt, path_beside, &e), 0);
    for (size_t i = 0; i < N_OWN + N_OTHERS; i++) {
        snprintf(path, sizeof path, "%s/%s", ckpt, i < N_OWN ? own[i] : others[i - N_OWN]);
        unlink(path);
    }
    assert_int_equal(rmdir(ckpt), 0);
}

static void a_full_disk_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    struct rlimit old, tight = {100000, RLIM_INFINITY};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    struct setup s = {.type = "Q8_0"};
    int rc = rewrite(src, in_folder(out, "full.gguf"), &s, &e);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(rc, ERR_IO);
    assert_non_null(strstr(e.msg, "full.gguf"));
    assert_nothing_left(out);
}

static void an_importance_matrix_must_fit(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(out, "im.gguf");
    struct imatrix *partial = make_imatrix(false), *foreign, *wrong;
    struct imatrix_entry *entry;
    struct setup s = {.type = "Q4_K_M", .imatrix = partial, .strict = true};
    assert_int_equal(rewrite(src, out, &s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "no entry for tensor 'blk.0.attn_v.weight'"));

    /* Entries that are there, but with experts that no token reached. */
    struct imatrix *starved = make_imatrix(true);
    struct rewrite_report report = {0};
    bool said = false;
    assert_int_equal(
        imatrix_add(starved, "blk.0.ffn_down_exps.weight", N_COLS * N_EXPERTS, N_EXPERTS, &entry, &e), 0);
    entry->counts[1] = 0;
    s = (struct setup){.type = "Q4_K_M", .imatrix = starved, .strict = true};
    assert_int_equal(rewrite(src, out, &s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "'blk.0.ffn_down_exps.weight'"));
    assert_non_null(strstr(e.msg, "saw no token"));
    s.strict = false;
    s.report = &report;
    assert_int_equal(rewrite(src, out, &s, &e), 0);
    for (size_t i = 0; i < report.n_warnings; i++)
        said |= strstr(report.warnings[i], "blk.0.ffn_down_exps.weight (1 of ") != NULL;
    assert_true(said);
    rewrite_report_release(&report);
    unlink(out);
    imatrix_free(starved);

    assert_int_equal(imatrix_new(&foreign, &e), 0);
    assert_int_equal(imatrix_add(foreign, "blk.77.attn_q.weight", N_COLS, 1, &entry, &e), 0);
    s = (struct setup){.type = "Q4_K_M", .imatrix = foreign};
    assert_int_equal(rewrite(src, out, &s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "names a tensor of this model"));

    assert_int_equal(imatrix_new(&wrong, &e), 0);
    assert_int_equal(imatrix_add(wrong, "blk.0.attn_q.weight", 128, 1, &entry, &e), 0);
    s = (struct setup){.type = "Q4_K_M", .imatrix = wrong};
    assert_int_equal(rewrite(src, out, &s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "128 values, but the tensor needs 256"));

    s = (struct setup){.type = "IQ2_XXS"};
    assert_int_equal(rewrite(src, out, &s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "importance matrix"));
    assert_nothing_left(out);
    imatrix_free(partial);
    imatrix_free(foreign);
    imatrix_free(wrong);
}

static void quantized_sources_are_copied_or_refused(void **state)
{
    (void)state;
    char src[256], mid[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(mid, "mid.gguf");
    in_folder(out, "re.gguf");
    struct setup s = {.type = "Q6_K"};
    assert_int_equal(rewrite(src, mid, &s, &e), 0);
    struct setup copy = {0}; /* auto: as it is */
    assert_int_equal(rewrite(mid, out, &copy, &e), 0);
    struct gguf_reader *a, *b;
    assert_int_equal(gguf_reader_open(&a, mid, NULL, &e), 0);
    assert_int_equal(gguf_reader_open(&b, out, NULL, &e), 0);
    for (size_t i = 0; i < N_SPECS; i++) {
        const struct gguf_tensor *x = gguf_reader_tensor(a, i), *y = gguf_reader_tensor(b, i);
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->type, y->type);
        assert_memory_equal(x->data, y->data, x->n_bytes);
    }
    gguf_reader_close(a);
    gguf_reader_close(b);
    unlink(out);
    s.type = "Q4_K_M";
    assert_int_equal(rewrite(mid, out, &s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "--allow-requantize"));
    assert_nothing_left(out);
    s.requantize = true;
    assert_int_equal(rewrite(mid, out, &s, &e), 0);
    unlink(out);
}

static void a_dry_run_knows_the_sizes(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    struct rewrite_report dry, real;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    in_folder(out, "dry.gguf");
    struct setup s = {.type = "Q4_K_M", .dry_run = true, .report = &dry};
    assert_int_equal(rewrite(src, out, &s, &e), 0);
    assert_nothing_left(out);
    s.dry_run = false;
    s.report = &real;
    assert_int_equal(rewrite(src, out, &s, &e), 0);
    struct stat st;
    assert_int_equal(stat(out, &st), 0);
    assert_int_equal(dry.n_bytes, (uint64_t)st.st_size);
    assert_int_equal(real.n_bytes, (uint64_t)st.st_size);
    for (size_t i = 0; i < N_SPECS; i++) {
        assert_true(isnan(dry.tensors[i].rmse));
        assert_int_equal(dry.tensors[i].type, real.tensors[i].type);
        assert_int_equal(dry.tensors[i].n_bytes, real.tensors[i].n_bytes);
    }
    rewrite_report_release(&dry);
    rewrite_report_release(&real);
    unlink(out);
}

static void a_split_set_holds_the_same_tensors(void **state)
{
    (void)state;
    char src[256], whole[256], out[256], part[256];
    struct err e = {0};
    struct rewrite_report r;
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct setup s = {.type = "Q8_0"};
    assert_int_equal(rewrite(src, in_folder(whole, "whole.gguf"), &s, &e), 0);
    s.split = 720000;
    s.report = &r;
    assert_int_equal(rewrite(src, in_folder(out, "set.gguf"), &s, &e), 0);
    assert_true(r.n_files >= 2);
    snprintf(part, sizeof part, "%s", r.files[0]);
    struct gguf_reader *a, *b;
    assert_int_equal(gguf_reader_open(&a, whole, NULL, &e), 0);
    assert_int_equal(gguf_reader_open(&b, part, NULL, &e), 0);
    assert_int_equal(gguf_reader_n_parts(b), r.n_files);
    for (size_t i = 0; i < N_SPECS; i++) {
        const struct gguf_tensor *x = gguf_reader_tensor(a, i), *y = gguf_reader_find(b, x->name);
        assert_non_null(y);
        assert_memory_equal(x->data, y->data, x->n_bytes);
    }
    gguf_reader_close(a);
    gguf_reader_close(b);
    assert_nothing_left(out);
    for (size_t i = 0; i < r.n_files; i++) {
        assert_false(exists(r.files[i], ".kerf-part"));
        unlink(r.files[i]);
    }
    rewrite_report_release(&r);
}

static void a_row_beyond_the_memory_bound_is_refused(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct setup s = {.type = "Q8_0", .memory = 1000};
    assert_int_equal(rewrite(src, in_folder(out, "tight.gguf"), &s, &e), ERR_ARG);
    assert_non_null(strstr(e.msg, "raise --memory"));
    assert_nothing_left(out);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"src.gguf",   "first.gguf",  "out.gguf",
                                        "whole.gguf", "whole4.gguf", "mid.gguf"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_folder(path, names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_do_not_depend_on_threads_memory_or_instruction_set),
        cmocka_unit_test(experts_have_their_own_importance_and_rmse_is_what_it_says),
        cmocka_unit_test(order_and_metadata_are_those_of_a_quantizer),
        cmocka_unit_test(bad_weights_are_named_and_nothing_is_written),
        cmocka_unit_test(a_stopped_run_leaves_nothing_unless_it_shall_be_resumed),
        cmocka_unit_test(a_partial_file_is_trusted_only_when_it_fits),
        cmocka_unit_test(a_failed_commit_can_be_resumed),
        cmocka_unit_test(a_flush_that_fails_ends_the_run),
        cmocka_unit_test(a_flush_that_fails_in_the_middle_is_not_forgotten),
        cmocka_unit_test(single_and_split_runs_do_not_share_a_journal),
        cmocka_unit_test(a_finished_output_needs_no_resuming),
        cmocka_unit_test(an_output_of_another_source_is_not_finished),
        cmocka_unit_test(bytes_of_another_command_are_not_resumed),
        cmocka_unit_test(a_plan_of_sizes_needs_no_output),
        cmocka_unit_test(another_version_does_not_go_on),
        cmocka_unit_test(an_output_may_not_be_an_input),
        cmocka_unit_test(an_output_inside_the_checkpoint_folder),
        cmocka_unit_test(a_full_disk_is_an_error_and_leaves_nothing),
        cmocka_unit_test(an_importance_matrix_must_fit),
        cmocka_unit_test(quantized_sources_are_copied_or_refused),
        cmocka_unit_test(a_dry_run_knows_the_sizes),
        cmocka_unit_test(a_split_set_holds_the_same_tensors),
        cmocka_unit_test(a_row_beyond_the_memory_bound_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
