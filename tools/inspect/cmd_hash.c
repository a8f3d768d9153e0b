/* cmd_hash.c - kerf hash: SHA-256 of every tensor and of the whole content of a GGUF model. */
#include "tools/cmd.h"
#include "tools/plain_output.h"
#include "tools/progress.h"
#include "tools/options/gguf_operand.h"

#include "formats/gguf/gguf_hash.h"
#include "formats/json.h"
#include "libquant/base/sha256.h"

#include <stdio.h>

/* The members of one file, in an object that is open. */
static void file_json(struct json_writer *w, const char *path, const struct gguf_hash *h)
{
    char hex[65];
    jw_key(w, "path"), jw_string(w, path);
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

/* What the files have in common. `list`: of several files in JSON, the list that they are written into. */
struct job {
    const struct session *session;
    const struct shared_options *s;
    bool several;
    struct json_writer *list;
};

static void print_json(const char *path, const struct gguf_hash *h)
{
    struct json_writer w;
    cmd_json_begin(&w);
    file_json(&w, path, h);
    cmd_json_end(&w);
}

/* In the list: the hashes, or why there are none. */
static void list_json(struct json_writer *w, const char *path, const struct gguf_hash *h, const struct err *e)
{
    jw_object(w);
    if (e->code == ERR_OK) {
        file_json(w, path, h);
    } else {
        jw_key(w, "path"), jw_string(w, path);
        cmd_json_error(w, e);
    }
    jw_end(w);
}

/* One file, which is closed before the next. */
static int hash_file(const struct job *j, const char *path)
{
    struct gguf_reader *reader = NULL;
    struct gguf_hash hash = {0};
    struct progress_bar bar;
    struct err e = {0};
    int rc = gguf_operand_open(&reader, path, &e);
    if (rc == 0) {
        const struct progress progress = progress_on(&bar);
        progress_begin(&bar, j->s, "hashing", "B", 0);
        rc = gguf_hash_model(&hash, reader, j->session->pool, &progress, &e);
        progress_end(&bar);
    }
    if (j->list)
        list_json(j->list, path, &hash, &e);
    else if (rc == 0 && j->s->json)
        print_json(path, &hash);
    else if (rc == 0)
        print_text(path, &hash, j->several && !j->s->verbose);
    if (rc != 0)
        cmd_fail(&e); /* of a single file it is the object, too */
    gguf_hash_release(&hash);
    gguf_reader_close(reader);
    return rc;
}

/* A file that cannot be read does not keep the others from their lines; a request to stop does. */
static int hash_all(const struct opt_operands *args, const struct session *session,
                    const struct shared_options *s)
{
    struct json_writer w;
    struct job j = {.session = session, .s = s, .several = args->n > 1};
    int status = CMD_DONE, rc = 0;
    if (j.several && s->json) {
        cmd_json_begin(&w);
        jw_key(&w, "files"), jw_array(&w);
        j.list = &w;
    }
    for (size_t i = 0; i < args->n && rc != ERR_CANCELLED; i++) {
        rc = hash_file(&j, args->items[i]);
        status = rc == 0 ? status : CMD_FAILED;
    }
    if (j.list) {
        jw_end(&w);
        cmd_json_end(&w);
    }
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
            "together in the last line, which names the file. Of several files that line alone is printed "
            "(--verbose: all). The order of tensors and keys, the alignment and the split into parts do not "
            "count: files with equal hashes hold the same model. Exit code 1 when a file could not be read.",
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
