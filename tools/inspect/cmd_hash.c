/* cmd_hash.c - kerf hash: SHA-256 of every tensor and of the whole content of a GGUF model. */
#include "tools/cmd.h"
#include "tools/options/gguf_operand.h"

#include "formats/gguf/gguf_hash.h"
#include "formats/json.h"
#include "libquant/base/sha256.h"

#include <stdio.h>

static void print_json(const char *path, const struct gguf_hash *h)
{
    struct json_writer w;
    char hex[65];
    cmd_json_begin(&w);
    jw_key(&w, "path"), jw_string(&w, path);
    sha256_hex(h->model, hex);
    jw_key(&w, "model"), jw_string(&w, hex);
    sha256_hex(h->tensors, hex);
    jw_key(&w, "weights"), jw_string(&w, hex);
    sha256_hex(h->metadata, hex);
    jw_key(&w, "metadata"), jw_string(&w, hex);
    jw_key(&w, "tensors"), jw_array(&w);
    for (size_t i = 0; i < h->n_tensors; i++) {
        jw_object(&w);
        jw_key(&w, "name"), jw_string(&w, h->tensor[i].tensor->name);
        jw_key(&w, "type"), jw_string(&w, qtype_name(h->tensor[i].tensor->type));
        sha256_hex(h->tensor[i].data, hex);
        jw_key(&w, "sha256"), jw_string(&w, hex);
        jw_end(&w);
    }
    jw_end(&w);
    cmd_json_end(&w);
}

static void print_text(const char *path, const struct gguf_hash *h)
{
    char hex[65];
    for (size_t i = 0; i < h->n_tensors; i++) {
        sha256_hex(h->tensor[i].data, hex);
        printf("%s  %s\n", hex, h->tensor[i].tensor->name);
    }
    sha256_hex(h->tensors, hex);
    printf("%s  weights\n", hex);
    sha256_hex(h->metadata, hex);
    printf("%s  metadata\n", hex);
    sha256_hex(h->model, hex);
    printf("%s  %s\n", hex, path);
}

int cmd_hash(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    const struct opt_command cmd = {
        .name = "hash",
        .operands = "FILE.gguf",
        .description = "Print the SHA-256 of every tensor's bytes, of all weights, of the metadata, and of "
                       "both together. The order of tensors and keys, the alignment and the split into parts "
                       "do not count: files with equal hashes hold the same model.",
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_THREADS,
        .examples = "kerf hash model.gguf",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    struct err e = {0};
    struct session session = {0};
    struct gguf_reader *in = NULL;
    struct gguf_hash h = {0};
    int rc = session_open(&session, &s, &e);
    if (rc == 0)
        rc = gguf_operand_open(&in, args.items[0], &e);
    if (rc == 0)
        rc = gguf_hash_model(&h, in, session.pool, &e);
    if (rc == 0) {
        if (s.json)
            print_json(args.items[0], &h);
        else
            print_text(args.items[0], &h);
    }
    gguf_hash_release(&h);
    gguf_reader_close(in);
    session_close(&session);
    return rc ? cmd_fail(&e) : CMD_DONE;
}
