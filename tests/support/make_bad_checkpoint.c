/* make_bad_checkpoint.c - writes one folder for each way a sharded checkpoint can contradict itself, named
 * after it: make_bad_checkpoint OUT_DIR. Its output is committed as tests/data/bad/checkpoint. */
#include "formats/hf/safetensors_write.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define INDEX "model.safetensors.index.json"
#define S1    "model-00001-of-00002.safetensors"
#define S2    "model-00002-of-00002.safetensors"

/* A file is either text, or (NULL) a safetensors file that holds the tensors named in `tensors`, one letter
 * each. */
struct file {
    const char *name, *text, *tensors;
};

static const struct folder {
    const char *name;
    struct file files[4];
} folders[] = {
    {"index-not-object", {{INDEX, "[]", NULL}, {S1, NULL, "a"}}},
    {"index-not-json", {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\"}", NULL}, {S1, NULL, "a"}}},
    {"weight-map-missing", {{INDEX, "{\"metadata\":{\"total_size\":4}}", NULL}, {S1, NULL, "a"}}},
    {"weight-map-empty", {{INDEX, "{\"weight_map\":{}}", NULL}, {S1, NULL, "a"}}},
    {"tensor-twice-in-index",
     {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\",\"a\":\"" S2 "\"}}", NULL},
      {S1, NULL, "a"},
      {S2, NULL, "b"}}},
    {"file-not-string", {{INDEX, "{\"weight_map\":{\"a\":1}}", NULL}, {S1, NULL, "a"}}},
    {"file-empty-name", {{INDEX, "{\"weight_map\":{\"a\":\"\"}}", NULL}, {S1, NULL, "a"}}},
    {"file-with-slash", {{INDEX, "{\"weight_map\":{\"a\":\"sub/" S1 "\"}}", NULL}, {S1, NULL, "a"}}},
    {"file-absolute", {{INDEX, "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", NULL}, {S1, NULL, "a"}}},
    {"file-with-backslash", {{INDEX, "{\"weight_map\":{\"a\":\"sub\\\\" S1 "\"}}", NULL}, {S1, NULL, "a"}}},
    {"file-with-parent", {{INDEX, "{\"weight_map\":{\"a\":\"..safetensors\"}}", NULL}, {S1, NULL, "a"}}},
    {"file-is-pickle",
     {{INDEX, "{\"weight_map\":{\"a\":\"pytorch_model-00001-of-00001.bin\"}}", NULL}, {S1, NULL, "a"}}},
    {"shard-missing",
     {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\",\"b\":\"" S2 "\"}}", NULL}, {S1, NULL, "a"}}},
    {"tensor-missing",
     {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\",\"b\":\"" S2 "\",\"c\":\"" S2 "\"}}", NULL},
      {S1, NULL, "a"},
      {S2, NULL, "b"}}},
    {"tensor-misplaced",
     {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\",\"b\":\"" S2 "\",\"c\":\"" S1 "\"}}", NULL},
      {S1, NULL, "a"},
      {S2, NULL, "bc"}}},
    {"tensor-unlisted",
     {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\",\"b\":\"" S2 "\"}}", NULL},
      {S1, NULL, "a"},
      {S2, NULL, "bc"}}},
    {"tensor-in-two-shards", {{S1, NULL, "ab"}, {S2, NULL, "bc"}}},
    {"tensor-in-two-listed-shards",
     {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\",\"b\":\"" S2 "\"}}", NULL},
      {S1, NULL, "ab"},
      {S2, NULL, "b"}}},
    {"numbered-shard-missing", {{S2, NULL, "b"}}},
    {"single-beside-shards", {{"model.safetensors", NULL, "c"}, {S1, NULL, "a"}, {S2, NULL, "b"}}},
    {"single-beside-index",
     {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\"}}", NULL},
      {"model.safetensors", NULL, "c"},
      {S1, NULL, "a"}}},
    {"single-beside-gone-shards",
     {{INDEX, "{\"weight_map\":{\"a\":\"" S1 "\"}}", NULL}, {"model.safetensors", NULL, "c"}}},
    {"only-pickle", {{"pytorch_model.bin", "PK", NULL}}},
    {"only-adapter", {{"adapter_config.json", "{}", NULL}, {"adapter_model.safetensors", NULL, "a"}}},
    {"no-weights", {{"config.json", "{}", NULL}}},
};

static int write_tensors(const char *path, const char *names, struct err *e)
{
    struct safetensors_writer *w = NULL;
    int rc = safetensors_writer_open(&w, path, true, e);
    if (rc != 0)
        return rc;
    for (const char *p = names; *p && rc == 0; p++)
        rc = safetensors_writer_add(w, (char[]){*p, 0}, ST_U8, 1, (uint64_t[]){4}, e);
    for (const char *p = names; *p && rc == 0; p++)
        rc = safetensors_writer_write(w, "\0\1\2\3", 4, e);
    if (rc != 0) {
        safetensors_writer_abort(w);
        return rc;
    }
    return safetensors_writer_commit(w, e);
}

static int write_file(const char *folder, const struct file *f, struct err *e)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, f->name);
    if (!f->text)
        return write_tensors(path, f->tensors, e);
    FILE *out = fopen(path, "wb");
    if (!out)
        return err_set(e, ERR_IO, "%s: cannot open", path);
    int bad = fputs(f->text, out) < 0;
    bad |= fclose(out) != 0;
    return bad ? err_set(e, ERR_IO, "%s: cannot write", path) : 0;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    int rc = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: make_bad_checkpoint OUT_DIR\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders && rc == 0; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", argv[1], folders[i].name);
        (void)mkdir(path, 0777); /* may exist; the files will tell */
        for (const struct file *f = folders[i].files; f->name && rc == 0; f++)
            rc = write_file(path, f, &e);
    }
    if (rc != 0)
        fprintf(stderr, "%s\n", e.msg);
    return rc != 0;
}
