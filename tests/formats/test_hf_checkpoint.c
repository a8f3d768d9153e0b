/* test_hf_checkpoint.c - a folder is opened whole or refused with the files and tensors that disagree. */
#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/safetensors_write.h"
#include "scratch.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* --- folders to open -------------------------------------------------------------------------------------
 */

static const char *new_folder(const char *name)
{
    const char *path = in_scratch(name);
    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

/* Tensors named by the letters of `names`, 4 bytes each, all of the letter itself. */
static void write_shard(const char *folder, const char *file, const char *names)
{
    struct safetensors_writer *w = NULL;
    struct err e = {0};
    char *path = hf_path(folder, file);
    assert_int_equal(safetensors_writer_open(&w, path, false, &e), 0);
    free(path);
    for (const char *p = names; *p; p++)
        assert_int_equal(safetensors_writer_add(w, (char[]){*p, 0}, ST_U8, 1, (uint64_t[]){4}, &e), 0);
    for (const char *p = names; *p; p++)
        assert_int_equal(safetensors_writer_write(w, (char[]){*p, *p, *p, *p}, 4, &e), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), 0);
}

static struct hf_checkpoint *open_good(const char *folder, bool allow_missing)
{
    struct hf_checkpoint *c = NULL;
    struct err e = {0};
    if (hf_checkpoint_open(&c, folder, allow_missing, &e) != 0)
        fail_msg("%s", e.msg);
    return c;
}

/* Each folder of tests/data/bad/checkpoint, the code it must give and what its message must say. */
static const struct {
    const char *name;
    int code;
    const char *says;
} bad_folders[] = {
    {"index-not-object", ERR_FORMAT, "weight_map must be an object with at least one tensor"},
    {"index-not-json", ERR_FORMAT, "model.safetensors.index.json: not valid JSON"},
    {"weight-map-missing", ERR_FORMAT, "weight_map must be an object"},
    {"weight-map-empty", ERR_FORMAT, "weight_map must be an object with at least one tensor"},
    {"tensor-twice-in-index", ERR_FORMAT, "'a'"},
    {"file-not-string", ERR_FORMAT, "tensor 'a': weight_map must name a file, found no string"},
    {"file-empty-name", ERR_FORMAT, "tensor 'a': file '' must be a plain name"},
    {"file-with-slash", ERR_FORMAT, "file 'sub/model-00001-of-00002.safetensors' must be a plain name"},
    {"file-absolute", ERR_FORMAT, "file '/etc/passwd' must be a plain name"},
    {"file-with-backslash", ERR_FORMAT, "must be a plain name in the same folder"},
    {"file-with-parent", ERR_FORMAT, "file '..safetensors' must be a plain name"},
    {"file-is-pickle", ERR_UNSUPPORTED, "pickled weights are not read, convert them to safetensors"},
    {"shard-missing", ERR_IO,
     "1 of 2 files named by model.safetensors.index.json are missing: 'model-00002-of-00002.safetensors'"},
    {"tensor-missing", ERR_FORMAT, "are not in their files: 'c' (model-00002-of-00002.safetensors)"},
    {"tensor-in-two-shards", ERR_FORMAT, "tensor 'b' is also in"},
    {"tensor-in-two-listed-shards", ERR_FORMAT, "tensor 'b' is also in"},
    {"numbered-shard-missing", ERR_IO, "is one of 2 files, but 1 model*.safetensors are here"},
    {"only-pickle", ERR_UNSUPPORTED, "the weights are pickles"},
    {"only-adapter", ERR_UNSUPPORTED, "this is a PEFT adapter, not a model; merge it into its base model"},
    {"no-weights", ERR_IO, "expected model.safetensors.index.json or model*.safetensors, found neither"},
};

/* Folders that contradict themselves in a way that transformers resolves: what is read, and what is said. */
static const struct {
    const char *name, *tensors, *says;
} odd_folders[] = {
    {"tensor-misplaced", "abc", "names the wrong file for 1 tensors, which were found elsewhere: 'c'"},
    {"tensor-unlisted", "abc", "model.safetensors.index.json leaves out 1 tensors, which were read too: 'c'"},
    {"single-beside-shards", "c",
     "model.safetensors is read, as transformers does; not read are 'model-00001-of-00002.safetensors', "
     "'model-00002-of-00002.safetensors'"},
    {"single-beside-index", "c",
     "not read are model.safetensors.index.json and 'model-00001-of-00002.safetensors'"},
    {"single-beside-gone-shards", "c", "not read are model.safetensors.index.json"},
};

static void what_transformers_resolves_is_read_and_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof odd_folders / sizeof *odd_folders; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/bad/checkpoint/%s", KERF_TEST_DATA, odd_folders[i].name);
        for (int allow = 0; allow < 2; allow++) {
            struct hf_checkpoint *c = open_good(path, allow);
            assert_int_equal(hf_checkpoint_n_tensors(c), strlen(odd_folders[i].tensors));
            for (const char *t = odd_folders[i].tensors; *t; t++)
                assert_non_null(hf_checkpoint_find(c, (char[]){*t, 0}));
            assert_int_equal(hf_checkpoint_n_absent(c), 0);
            assert_int_equal(hf_checkpoint_n_warnings(c), 1);
            if (!strstr(hf_checkpoint_warning(c, 0), odd_folders[i].says))
                fail_msg("%s: %s", odd_folders[i].name, hf_checkpoint_warning(c, 0));
            hf_checkpoint_close(c);
        }
    }
}

/* Open, and need every name of the index. */
static int open_whole(struct hf_checkpoint **out, const char *folder, bool allow_missing, struct err *e)
{
    struct hf_checkpoint *c = NULL;
    size_t all[4000];
    int rc = hf_checkpoint_open(&c, folder, allow_missing, e);
    size_t n = rc == 0 ? hf_checkpoint_n_absent(c) : 0;
    assert_true(n <= sizeof all / sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i] = i;
    if (n != 0)
        rc = hf_checkpoint_refuse_absent(c, all, n, e);
    if (rc == 0)
        *out = c;
    else
        hf_checkpoint_close(c);
    return rc;
}

static void each_contradiction_is_refused_and_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_folders / sizeof *bad_folders; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/bad/checkpoint/%s", KERF_TEST_DATA, bad_folders[i].name);
        struct hf_checkpoint *c = NULL;
        struct err e = {0};
        int rc = open_whole(&c, path, false, &e);
        if (rc != bad_folders[i].code || !strstr(e.msg, bad_folders[i].says))
            fail_msg("%s: answered %d \"%s\", expected %d \"%s\"", bad_folders[i].name, rc, e.msg,
                     bad_folders[i].code, bad_folders[i].says);
        assert_null(c);
        /* allowing absent weights must not let a contradiction through */
        bool is_empty = strcmp(bad_folders[i].name, "no-weights") == 0;
        assert_int_equal(open_whole(&c, path, true, &e), is_empty ? 0 : bad_folders[i].code);
        if (is_empty) {
            assert_int_equal(hf_checkpoint_n_tensors(c), 0);
            assert_false(hf_checkpoint_has_weights(c));
        }
        hf_checkpoint_close(c);
    }
}

static void no_bad_folder_is_without_a_test(void **state)
{
    (void)state;
    DIR *d = opendir(KERF_TEST_DATA "/bad/checkpoint");
    assert_non_null(d);
    size_t n = 0;
    for (struct dirent *ent; (ent = readdir(d)) != NULL;)
        n += ent->d_name[0] != '.';
    closedir(d);
    assert_int_equal(n, sizeof bad_folders / sizeof *bad_folders + sizeof odd_folders / sizeof *odd_folders);
}

static void shards_stand_behind_one_lookup(void **state)
{
    (void)state;
    const char *folder = new_folder("sharded");
    write_shard(folder, "model-00001-of-00002.safetensors", "ca");
    write_shard(folder, "model-00002-of-00002.safetensors", "db");
    write_shard(folder, "model-extra.safetensors", "x"); /* not in the index: not read */
    scratch_text_in(
        folder, "model.safetensors.index.json",
        "{\"metadata\":{\"total_size\":16},\"weight_map\":{"
        "\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\","
        "\"c\":\"model-00001-of-00002.safetensors\",\"d\":\"model-00002-of-00002.safetensors\"}}");
    struct hf_checkpoint *c = open_good(folder, false);
    assert_string_equal(hf_checkpoint_folder(c), folder);
    assert_true(hf_checkpoint_has_weights(c));
    assert_int_equal(hf_checkpoint_n_warnings(c), 0);
    assert_int_equal(hf_checkpoint_n_tensors(c), 4);
    for (size_t i = 0; i < 4; i++) {
        const struct st_tensor *t = hf_checkpoint_tensor(c, i);
        assert_int_equal(t->name[0], "cadb"[i]); /* shard order, data order */
        assert_int_equal(t->data[3], "cadb"[i]);
        assert_ptr_equal(hf_checkpoint_find(c, t->name), t);
        assert_non_null(strstr(hf_checkpoint_tensor_file(c, i), i < 2 ? "/model-00001" : "/model-00002"));
    }
    assert_null(hf_checkpoint_find(c, "x"));
    assert_null(hf_checkpoint_tensor(c, 4));
    assert_null(hf_checkpoint_tensor_file(c, 4));
    hf_checkpoint_close(c);
}

static void without_an_index_the_files_of_the_folder_count(void **state)
{
    (void)state;
    const char *folder = new_folder("plain");
    write_shard(folder, "model-00002-of-00002.safetensors", "b");
    write_shard(folder, "model-00001-of-00002.safetensors", "a");
    write_shard(folder, "consolidated.safetensors", "ab"); /* another layout of the same weights */
    struct hf_checkpoint *c = open_good(folder, true);
    assert_int_equal(hf_checkpoint_n_tensors(c), 2);
    assert_string_equal(hf_checkpoint_tensor(c, 0)->name, "a");
    assert_true(hf_checkpoint_has_weights(c));
    hf_checkpoint_close(c);
    folder = new_folder("single");
    write_shard(folder, "model.safetensors", "z");
    scratch_text_in(folder, "training_args.bin", "x");
    char with_slash[300];
    snprintf(with_slash, sizeof with_slash, "%s/", folder);
    c = open_good(with_slash, false);
    assert_int_equal(hf_checkpoint_n_tensors(c), 1);
    hf_checkpoint_close(c);
}

/* An index of more names than any model has: refused before a tree of them is built. */
static void an_index_without_end_is_refused(void **state)
{
    (void)state;
    const char *folder = new_folder("endless");
    char path[300];
    struct hf_checkpoint *c = NULL;
    struct err e = {0};
    struct rusage before, after;
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs("{\"weight_map\":{\"a\":\"b\"", f);
    for (unsigned i = 0; i < 1u << 20; i++)
        fprintf(f, ",\"%x\":\"\"", i);
    fputs("}}", f);
    assert_int_equal(fclose(f), 0);
    getrusage(RUSAGE_SELF, &before);
    assert_int_equal(hf_checkpoint_open(&c, folder, true, &e), ERR_FORMAT);
    getrusage(RUSAGE_SELF, &after);
    if (!strstr(e.msg, "model.safetensors.index.json: more than 1048576 values"))
        fail_msg("%s", e.msg);
    assert_true(after.ru_maxrss - before.ru_maxrss < 64 << 10); /* KiB; the file has 12 MiB, a tree 150 */
    assert_int_equal(truncate(path, 129 << 20), 0);
    assert_int_equal(hf_checkpoint_open(&c, folder, true, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "bytes are too many"));
}

static void a_wrong_total_size_is_a_warning(void **state)
{
    (void)state;
    static const char *const totals[] = {"17", "16.5", "\"16\"", "8.0", "8", "null"};
    const char *folder = new_folder("total");
    write_shard(folder, "model-1.safetensors", "ab");
    for (size_t i = 0; i < 6; i++) {
        char text[200];
        snprintf(text, sizeof text,
                 "{\"metadata\":{\"total_size\":%s},\"weight_map\":{\"a\":\"model-1.safetensors\","
                 "\"b\":\"model-1.safetensors\"}}",
                 totals[i]);
        scratch_text_in(folder, "model.safetensors.index.json", text);
        struct hf_checkpoint *c = open_good(folder, false);
        assert_int_equal(hf_checkpoint_n_warnings(c), i < 3);
        if (i < 3)
            assert_non_null(strstr(hf_checkpoint_warning(c, 0), "total_size"));
        assert_null(hf_checkpoint_warning(c, 1));
        hf_checkpoint_close(c);
    }
}

static void names_are_enough_when_absent_weights_are_allowed(void **state)
{
    (void)state;
    const char *folder = new_folder("names");
    scratch_text_in(folder, "model.safetensors.index.json",
                    "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"z\":\"m2.safetensors\","
                    "\"y\":\"m1.safetensors\",\"x\":\"m2.safetensors\"}}");
    struct hf_checkpoint *c = open_good(folder, true);
    assert_false(hf_checkpoint_has_weights(c));
    assert_int_equal(hf_checkpoint_n_tensors(c), 3);
    for (size_t i = 0; i < 3; i++) {
        const struct st_tensor *t = hf_checkpoint_tensor(c, i);
        assert_int_equal(t->name[0], "yzx"[i]);
        assert_null(t->data);
        assert_int_equal(t->n_dims, 0);
        assert_non_null(strstr(hf_checkpoint_tensor_file(c, i), i ? "m2" : "m1"));
    }
    assert_int_equal(hf_checkpoint_n_warnings(c), 0);
    hf_checkpoint_close(c);
    c = NULL;
    struct err e = {0};
    assert_int_equal(hf_checkpoint_open(&c, folder, false, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "2 of 2 files named by"));
    assert_non_null(strstr(e.msg, "'m1.safetensors', 'm2.safetensors'"));
}

static void a_long_list_of_missing_tensors_is_capped(void **state)
{
    (void)state;
    const char *folder = new_folder("long");
    write_shard(folder, "m.safetensors", "a");
    char *path = hf_path(folder, "model.safetensors.index.json");
    FILE *f = fopen(path, "wb");
    free(path);
    fputs("{\"weight_map\":{\"a\":\"m.safetensors\"", f);
    for (int i = 0; i < 3000; i++)
        fprintf(f, ",\"layers.%d.weight\":\"m.safetensors\"", i);
    fputs("}}", f);
    fclose(f);
    struct hf_checkpoint *c = NULL;
    struct err e = {0};
    assert_int_equal(open_whole(&c, folder, false, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "3000 tensors of"));
    assert_non_null(strstr(e.msg, "'layers.0.weight' (m.safetensors), 'layers.1.weight'"));
    assert_non_null(strstr(e.msg, " and 2995 more"));
}

/* A file that only holds what is not needed may be missing; so may single tensors. */
static void absent_names_are_listed_for_the_caller(void **state)
{
    (void)state;
    const char *folder = new_folder("absent");
    write_shard(folder, "m1.safetensors", "a");
    scratch_text_in(folder, "model.safetensors.index.json",
                    "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"m1.safetensors\","
                    "\"b\":\"m1.safetensors\",\"c\":\"m2.safetensors\"}}");
    struct hf_checkpoint *c = open_good(folder, false);
    struct err e = {0};
    assert_int_equal(hf_checkpoint_n_tensors(c), 1);
    assert_int_equal(hf_checkpoint_n_absent(c), 2);
    assert_string_equal(hf_checkpoint_absent(c, 0), "b");
    assert_string_equal(hf_checkpoint_absent(c, 1), "c");
    assert_null(hf_checkpoint_absent(c, 2));
    assert_int_equal(hf_checkpoint_n_warnings(c), 0); /* the size is that of all of them */
    assert_int_equal(hf_checkpoint_refuse_absent(c, (size_t[]){0}, 1, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "1 tensors of model.safetensors.index.json are not in their files: 'b'"));
    assert_int_equal(hf_checkpoint_refuse_absent(c, (size_t[]){1}, 1, &e), ERR_IO);
    assert_non_null(
        strstr(e.msg, "1 of 2 files named by model.safetensors.index.json are missing: 'm2.safe"));
    hf_checkpoint_close(c);
}

/* A folder without weights says what it holds instead. */
static void what_is_there_instead_of_weights_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *files[3];
        int code;
        const char *says;
    } cases[] = {
        {{"training_args.bin", "optimizer.pt"},
         ERR_IO,
         "'optimizer.pt' is state of a training run, and there are"},
        {{"rng_state_0.pth"}, ERR_IO, "'rng_state_0.pth' is state of a training run"},
        {{"training_args.bin", "pytorch_model-00001-of-00002.bin"},
         ERR_UNSUPPORTED,
         "the weights are pickles ('pytorch_model-00001-of-00002.bin')"},
        {{"consolidated.00.pth"}, ERR_UNSUPPORTED, "the weights are pickles ('consolidated.00.pth')"},
        {{"model.safetensors.incomplete"},
         ERR_IO,
         "'model.safetensors.incomplete' is a download that has not"},
        {{"model.safetensors.aria2"}, ERR_IO, "'model.safetensors.aria2' is a download that has not ended"},
        {{"demo.Q8_0.gguf"}, ERR_IO, "no checkpoint but GGUF files; give the file 'demo.Q8_0.gguf'"},
        {{"consolidated.safetensors"},
         ERR_IO,
         "if 'consolidated.safetensors' holds the weights under the names"},
        {{"README.md"}, ERR_IO, "found neither"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        struct hf_checkpoint *c = NULL;
        struct err e = {0};
        snprintf(name, sizeof name, "instead-%zu", i);
        const char *folder = new_folder(name);
        for (size_t k = 0; k < 3 && cases[i].files[k]; k++)
            scratch_text_in(folder, cases[i].files[k], "x");
        int rc = hf_checkpoint_open(&c, folder, false, &e);
        if (rc != cases[i].code || !strstr(e.msg, cases[i].says))
            fail_msg("%s: answered %d \"%s\"", cases[i].says, rc, e.msg);
    }
}

static void an_adapter_is_described(void **state)
{
    (void)state;
    const char *folder = new_folder("adapter");
    struct hf_checkpoint *c = NULL;
    struct err e = {0};
    scratch_text_in(folder, "adapter_config.json",
                    "{\"peft_type\":\"LORA\",\"r\":4,\"base_model_name_or_path\":\"unsloth/Qwen3-0.6B\"}");
    write_shard(folder, "adapter_model.safetensors", "a");
    assert_int_equal(hf_checkpoint_open(&c, folder, false, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "this is a LORA adapter of rank 4 for 'unsloth/Qwen3-0.6B', not a model"));
}

static void what_is_no_folder_is_refused(void **state)
{
    (void)state;
    struct hf_checkpoint *c = NULL;
    struct err e = {0};
    assert_int_equal(hf_checkpoint_open(&c, "/nonexistent/folder", false, &e), ERR_IO);
    assert_int_equal(hf_checkpoint_open(&c, KERF_TEST_DATA "/demo-qwen3/config.json", false, &e), ERR_ARG);
    hf_checkpoint_close(NULL);
}

static void a_broken_shard_is_named(void **state)
{
    (void)state;
    const char *folder = new_folder("broken");
    scratch_text_in(folder, "model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
    struct hf_checkpoint *c = NULL;
    struct err e = {0};
    assert_int_equal(hf_checkpoint_open(&c, folder, false, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "broken/model.safetensors"));
    assert_non_null(strstr(e.msg, "git lfs pull"));
}

/* Real indexes: shard counts and tensor counts of the published models. */
static void real_indexes_open_without_weights(void **state)
{
    (void)state;
    if (access(KERF_SHARED "/data/configs", R_OK) != 0)
        skip();
    struct hf_checkpoint *c = open_good(KERF_SHARED "/data/configs/Qwen-72B-Chat", true);
    assert_int_equal(hf_checkpoint_n_tensors(c), 3 + 8 * 80); /* Qwen 1.0: 3 + 8 L */
    assert_non_null(hf_checkpoint_find(c, "transformer.h.79.mlp.c_proj.weight"));
    hf_checkpoint_close(c);
    c = open_good(KERF_SHARED "/data/configs/Qwen3.5-18B-REAP-A3B-Coding", true);
    assert_true(hf_checkpoint_n_tensors(c) > 10000);
    hf_checkpoint_close(c);
}

static void the_demo_opens(void **state)
{
    (void)state;
    struct hf_checkpoint *c = open_good(KERF_TEST_DATA "/demo-qwen3", false);
    assert_int_equal(hf_checkpoint_n_tensors(c), 46);
    assert_non_null(hf_checkpoint_find(c, "model.norm.weight"));
    assert_true(hf_file_exists(hf_checkpoint_folder(c), "tokenizer.json"));
    assert_false(hf_file_exists(hf_checkpoint_folder(c), "tokenizer.model"));
    hf_checkpoint_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_contradiction_is_refused_and_named),
        cmocka_unit_test(what_transformers_resolves_is_read_and_told),
        cmocka_unit_test(absent_names_are_listed_for_the_caller),
        cmocka_unit_test(what_is_there_instead_of_weights_is_named),
        cmocka_unit_test(an_adapter_is_described),
        cmocka_unit_test(no_bad_folder_is_without_a_test),
        cmocka_unit_test(shards_stand_behind_one_lookup),
        cmocka_unit_test(without_an_index_the_files_of_the_folder_count),
        cmocka_unit_test(an_index_without_end_is_refused),
        cmocka_unit_test(a_wrong_total_size_is_a_warning),
        cmocka_unit_test(names_are_enough_when_absent_weights_are_allowed),
        cmocka_unit_test(a_long_list_of_missing_tensors_is_capped),
        cmocka_unit_test(what_is_no_folder_is_refused),
        cmocka_unit_test(a_broken_shard_is_named),
        cmocka_unit_test(real_indexes_open_without_weights),
        cmocka_unit_test(the_demo_opens),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
