/* test_rewrite_inputs.c - an output is never one of the inputs, and may lie beside them. */
#include "formats/model/model_files.h"
#include "formats/model/model_identity.h"
#include "rewrite_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

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
    assert_int_equal(model_identity_quick(&h, ckpt, &newest, &e), 0);
    sha256_final(&h, digest);
    sha256_hex(digest, before);
    assert_true(newest.tv_sec > 0);
    for (size_t i = 0; i < N_OTHERS; i++) {
        snprintf(path, sizeof path, "%s/%s", ckpt, others[i]);
        write_text(path, strcmp(others[i], "out.gguf") == 0 ? "GGUF" : "x");
    }
    snprintf(twisted, sizeof twisted, "%s/../ckpt/.", ckpt);
    sha256_init(&h);
    assert_int_equal(model_identity_quick(&h, twisted, NULL, &e), 0);
    sha256_final(&h, digest);
    sha256_hex(digest, after);
    assert_string_equal(before, after);
    for (size_t i = 0; i < N_OWN; i++) { /* what holds or explains the weights counts */
        snprintf(path, sizeof path, "%s/%s", ckpt, own[i]);
        write_text(path, "other bytes");
        sha256_init(&h);
        assert_int_equal(model_identity_quick(&h, ckpt, NULL, &e), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_output_may_not_be_an_input),
        cmocka_unit_test(an_output_inside_the_checkpoint_folder),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
