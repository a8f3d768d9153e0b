/* test_rewrite.c - the engine: same bytes on every machine, bad weights named, nothing left of what fails.
 * Stopped runs: test_rewrite_resume.c; outputs among the inputs: test_rewrite_inputs.c. */
#include "formats/gguf/gguf_read.h"
#include "libquant/quant.h"
#include "rewrite_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

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

/* Importance that is zero over whole blocks of a tensor does not cost the tensor its weights. */
static void columns_without_importance_keep_their_weights(void **state)
{
    (void)state;
    char src[256], out[256];
    struct err e = {0};
    struct imatrix *zero = make_imatrix(true);
    const struct imatrix_entry *entry = imatrix_find(zero, "blk.0.attn_q.weight");
    memset(entry->sums, 0, entry->n_values * sizeof *entry->sums);
    write_source(in_folder(src, "src.gguf"), QTYPE_BF16, -1, 0);
    struct rewrite_report with, without;
    struct setup s = {.type = "Q6_K", .imatrix = zero, .report = &with};
    assert_int_equal(rewrite(src, in_folder(out, "out.gguf"), &s, &e), 0);
    s = (struct setup){.type = "Q6_K", .report = &without};
    assert_int_equal(rewrite(src, in_folder(out, "out.gguf"), &s, &e), 0);
    bool said = false;
    for (size_t i = 0; i < with.n_warnings; i++)
        said |= strstr(with.warnings[i], "[imatrix-zero-blocks|blk.0.attn_q.weight] ") == with.warnings[i] &&
                strstr(with.warnings[i], "1 of the 1 blocks in a row is zero");
    assert_true(said);
    for (size_t i = 0; i < with.n_tensors; i++)
        if (strcmp(with.tensors[i].name, "blk.0.attn_q.weight") == 0)
            assert_true(with.tensors[i].rmse > 0 && with.tensors[i].rmse == without.tensors[i].rmse);
    rewrite_report_release(&with);
    rewrite_report_release(&without);
    s = (struct setup){.type = "Q6_K", .imatrix = zero, .strict = true};
    assert_int_equal(rewrite(src, out, &s, &e), ERR_ARG);
    assert_non_null(
        strstr(e.msg, "the importance of 1 of the 1 blocks in a row of tensor 'blk.0.attn_q.weight'"));
    imatrix_free(zero);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_do_not_depend_on_threads_memory_or_instruction_set),
        cmocka_unit_test(experts_have_their_own_importance_and_rmse_is_what_it_says),
        cmocka_unit_test(order_and_metadata_are_those_of_a_quantizer),
        cmocka_unit_test(bad_weights_are_named_and_nothing_is_written),
        cmocka_unit_test(a_plan_of_sizes_needs_no_output),
        cmocka_unit_test(a_full_disk_is_an_error_and_leaves_nothing),
        cmocka_unit_test(an_importance_matrix_must_fit),
        cmocka_unit_test(quantized_sources_are_copied_or_refused),
        cmocka_unit_test(a_dry_run_knows_the_sizes),
        cmocka_unit_test(a_split_set_holds_the_same_tensors),
        cmocka_unit_test(columns_without_importance_keep_their_weights),
        cmocka_unit_test(a_row_beyond_the_memory_bound_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
