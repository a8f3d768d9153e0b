/* test_hf_folder.c - folders as people have them: the cache of HuggingFace, names that are hashes or no
 * UTF-8, and folders that are no checkpoint. */
#include "formats/hf/hf_config.h"
#include "formats/hf/hf_folder.h"
#include "scratch.h"

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

#define SHA "c1899de289a04d12100db370d81485cdf75e47ca"

static const char *new_folder(const char *name)
{
    const char *path = in_scratch(name);
    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

static void expect_name(const char *folder, const char *want)
{
    char *name = NULL;
    struct err e = {0};
    assert_int_equal(hf_folder_name(&name, folder, &e), 0);
    if (strcmp(name, want) != 0)
        fail_msg("%s: '%s', not '%s'", folder, name, want);
    free(name);
}

static void names_come_from_the_folder_or_the_cache(void **state)
{
    (void)state;
    expect_name("/models/Qwen3-8B", "Qwen3-8B");
    expect_name("/models/Qwen3-8B//", "Qwen3-8B");
    expect_name("hub/models--Qwen--Qwen3-8B/snapshots/" SHA, "Qwen/Qwen3-8B");
    expect_name("hub/models--Qwen--Qwen3-8B/snapshots/" SHA "/", "Qwen/Qwen3-8B");
    expect_name("hub/models--Qwen--Qwen3-8B", "Qwen/Qwen3-8B");
    expect_name("hub/models--gpt2/snapshots/" SHA, "gpt2");
    expect_name("hub/models--a--b--c/snapshots/" SHA, "a/b--c");
    expect_name("somewhere/Qwen3-8B/snapshots/" SHA, "Qwen3-8B");
    expect_name("/nowhere/" SHA, "");
    expect_name("/nowhere/" SHA SHA, "");
    expect_name("/nowhere/sha256-" SHA SHA, "");
    expect_name("/nowhere/deadbeef", "deadbeef"); /* short enough to be a word */
    expect_name("/models/a\xff\xfe"
                "b",
                "ab");
    expect_name("/models/\xe6\xa8\xa1\xe5\x9e\x8b", "\xe6\xa8\xa1\xe5\x9e\x8b");
}

static void the_cache_folder_of_a_model_leads_to_its_snapshot(void **state)
{
    (void)state;
    char *found = NULL, want[400];
    struct err e = {0};
    new_folder("models--Org--Name");
    new_folder("models--Org--Name/snapshots");
    const char *root = in_scratch("models--Org--Name");
    assert_int_equal(hf_folder_find(&found, root, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "there is not one snapshot"));
    new_folder("models--Org--Name/snapshots/" SHA);
    snprintf(want, sizeof want, "%s/snapshots/" SHA, root);
    assert_int_equal(hf_folder_find(&found, root, &e), 0); /* the only one */
    assert_string_equal(found, want);
    free(found);
    new_folder("models--Org--Name/snapshots/other");
    assert_int_equal(hf_folder_find(&found, root, &e), ERR_FORMAT);
    new_folder("models--Org--Name/refs");
    scratch_text_in(root, "refs/main", SHA "\n");
    assert_int_equal(hf_folder_find(&found, root, &e), 0);
    assert_string_equal(found, want);
    free(found);
    static const char *const bad[] = {"../../etc", "nothing-there", "", "/etc", ".."};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scratch_text_in(root, "refs/main", bad[i]);
        assert_int_equal(hf_folder_find(&found, root, &e), ERR_FORMAT);
        assert_non_null(strstr(e.msg, "refs/main names no snapshot that is there"));
    }
    assert_int_equal(hf_folder_find(&found, "/plain/folder", &e), 0); /* whatever it is */
    assert_string_equal(found, "/plain/folder");
    free(found);
}

static void a_folder_that_is_no_checkpoint_says_what_it_is(void **state)
{
    (void)state;
    static const struct {
        const char *file, *folder;
        int code;
        const char *says;
    } cases[] = {
        {"adapter_config.json", NULL, ERR_UNSUPPORTED, "this is a PEFT adapter, not a model; merge it"},
        {NULL, "models--a--b", ERR_ARG, "this is the cache of HuggingFace; give one of its models, such as"},
        {NULL, "checkpoint-500", ERR_ARG, "checkpoints of a training run; give one of them, such as"},
        {"modules.json", "0_Transformer", ERR_ARG, "a sentence-transformers folder whose model lies in"},
        {"params.json", NULL, ERR_UNSUPPORTED, "the publisher's own layout"},
        {"demo.Q8_0.gguf", NULL, ERR_ARG, "but GGUF files; give the file"},
        {"README.md", NULL, ERR_IO, "config.json: does not exist, so the folder is not a checkpoint"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[40], sub[80];
        struct hf_config *c = NULL;
        struct err e = {0};
        snprintf(name, sizeof name, "no-checkpoint-%zu", i);
        const char *folder = new_folder(name);
        if (cases[i].file)
            scratch_text_in(folder, cases[i].file, "{}");
        snprintf(sub, sizeof sub, "%s/%s", name, cases[i].folder ? cases[i].folder : "");
        if (cases[i].folder)
            new_folder(sub);
        int rc = hf_config_load(&c, folder, &e);
        if (rc != cases[i].code || !strstr(e.msg, cases[i].says))
            fail_msg("%s: %d '%s'", cases[i].says, rc, e.msg);
    }
    const char *folder = new_folder("dangling");
    char link[400];
    struct hf_config *c = NULL;
    struct err e = {0};
    snprintf(link, sizeof link, "%s/config.json", folder);
    assert_int_equal(symlink("../blobs/gone", link), 0);
    assert_int_equal(hf_config_load(&c, folder, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "dangling/config.json: a link to a file that is not there"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_come_from_the_folder_or_the_cache),
        cmocka_unit_test(the_cache_folder_of_a_model_leads_to_its_snapshot),
        cmocka_unit_test(a_folder_that_is_no_checkpoint_says_what_it_is),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
