/* cmd_hash.c - kerf hash: SHA-256 of every tensor and of the whole content of a GGUF model. */
#include "tools/cmd.h"
#include "tools/plain_output.h"
#include "tools/options/gguf_operand.h"

#include "formats/gguf/gguf_hash.h"
#include "formats/json.h"
#include "libquant/base/sha256.h"

#include <stdio.h>
#include <stdlib.h>

/* One file: what its hashes point into, and why there are none. */
struct hashed {
    const char *path; /* borrowed from argv */
    struct gguf_reader *reader;
    struct gguf_hash hash;
    struct err e;
    int rc;
};

/* The members of one file, in an object that is open. */
static void file_json(struct json_writer *w, const struct hashed *f)
{
    const struct gguf_hash *h = &f->hash;
    char hex[65];
    jw_key(w, "path"), jw_string(w, f->path);
    if (f->rc != 0) {
        cmd_json_error(w, &f->e);
        return;
    }
    sha256_hex(h->model, hex);
    jw_key(w, "model"), jw_string(w, hex);
    sha256_hex(h->tensors, hex);
    jw_key(w, "weights"), jw_string(w, hex);
    sha256_hex(h->metadata, hex);
    jw_key(w, "metadata"), jw_string(w, hex);
    jw_key(w, "tensors"), jw_array(w);
    for (size_t i = 0; i < h->n_tensors; i++) {
        jw_object(w);
        jw_key(w, "name"), jw_string(w, h->tensor[i].tensor->name);
        jw_key(w, "type"), jw_string(w, qtype_name(h->tensor[i].tensor->type));
        sha256_hex(h->tensor[i].data, hex);
        jw_key(w, "sha256"), jw_string(w, hex);
        jw_end(w);
    }
    jw_end(w);
}

/* One file is the object itself; several are a list in it. */
static void print_json(const struct hashed *files, size_t n)
{
    struct json_writer w;
    cmd_json_begin(&w);
    if (n == 1) {
        file_json(&w, files);
    } else {
        jw_key(&w, "files"), jw_array(&w);
        for (size_t i = 0; i < n; i++) {
            jw_object(&w);
            file_json(&w, &files[i]);
            jw_end(&w);
        }
        jw_end(&w);
    }
    cmd_json_end(&w);
}

/* `whole`: the line of the model alone. */
static void print_text(const char *path, const struct gguf_hash *h, bool whole)
{
    char hex[65], name[PLAIN_LINE];
    for (size_t i = 0; !whole && i < h->n_tensors; i++) {
        sha256_hex(h->tensor[i].data, hex);
        printf("%s  %s\n", hex, plain_line(name, h->tensor[i].tensor->name));
    }
    sha256_hex(h->tensors, hex);
    if (!whole)
        printf("%s  weights\n", hex);
    sha256_hex(h->metadata, hex);
    if (!whole)
        printf("%s  metadata\n", hex);
    sha256_hex(h->model, hex);
    printf("%s  %s\n", hex, path);
}

/* Each file with its line as soon as it is known; a file that cannot be read does not keep the others
 * from it. */
static int hash_all(const struct opt_operands *args, const struct session *session,
                    const struct shared_options *s)
{
    struct hashed *files = calloc(args->n, sizeof *files);
    if (!files)
        return cmd_fail(&(struct err){ERR_NOMEM, "out of memory for the list of files"});
    int status = CMD_DONE;
    for (size_t i = 0; i < args->n; i++) {
        struct hashed *f = &files[i];
        f->path = args->items[i];
        f->rc = gguf_operand_open(&f->reader, f->path, &f->e);
        if (f->rc == 0)
            f->rc = gguf_hash_model(&f->hash, f->reader, session->pool, &f->e);
        status = f->rc == 0 ? status : CMD_FAILED;
        if (!s->json && f->rc == 0)
            print_text(f->path, &f->hash, args->n > 1 && !s->verbose);
        else if (!s->json)
            cmd_fail(&f->e);
    }
    if (s->json && (args->n > 1 || status != CMD_FAILED)) /* else the failure is the object */
        print_json(files, args->n);
    for (size_t i = 0; i < args->n; i++) {
        if (s->json && files[i].rc != 0)
            cmd_fail(&files[i].e);
        gguf_hash_release(&files[i].hash);
        gguf_reader_close(files[i].reader);
    }
    free(files);
    return status;
}

int cmd_hash(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    const struct opt_command cmd = {
        .name = "hash",
        .operands = "FILE.gguf...",
        .description =
            "Print the SHA-256 of every tensor's bytes, of all weights, of the metadata, and of both "
            "together "
            "in the last line, which names the file. Of several files that line alone is printed (--verbose: "
            "all). The order of tensors and keys, the alignment and the split into parts do not count: files "
            "with equal hashes hold the same model. Exit code 1 when a file could not be read.",
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .uses = USES_THREADS,
        .examples = "kerf hash model.gguf\n"
                    "kerf hash a.gguf b.gguf --json",
    };
    struct opt_operands args;
    struct err e = {0};
    struct session session = {0};
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    status = session_open(&session, &s, &e) == 0 ? hash_all(&args, &session, &s) : cmd_fail(&e);
    session_close(&session);
    return status;
}
