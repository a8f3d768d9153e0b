/* cmd_verify.c - kerf verify: are model files sound? Exit code 3 when one is not. */
#include "tools/cmd.h"
#include "tools/progress.h"

#include "formats/inspect/model_verify.h"
#include "formats/json.h"
#include "formats/model/model_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void strings_json(struct json_writer *w, const char *key, const char *const *items, size_t n)
{
    jw_key(w, key), jw_array(w);
    for (size_t i = 0; i < n; i++)
        jw_string(w, items[i]);
    jw_end(w);
}

/* Notes say what could not be checked; those with a code are warnings. */
static bool is_warning(const char *note)
{
    return note[0] == '[';
}

/* What is known of one file, which is closed by then. */
struct checked {
    const char *path; /* borrowed from argv */
    struct verify_report report;
    uint64_t n_bytes; /* of the file */
    struct err e;     /* why it could not be opened, or not be read */
    int rc;
};

/* A file that contradicts its format is what this command is there to find; a file that cannot be read is a
 * failure of the run. */
static bool is_finding(int rc)
{
    return rc == ERR_FORMAT || rc == ERR_UNSUPPORTED;
}

/* A message of a reader without the path in front: the report names it. */
static const char *without_path(const char *message, const char *path)
{
    size_t n = strlen(path);
    return strncmp(message, path, n) == 0 && strncmp(message + n, ": ", 2) == 0 ? message + n + 2 : message;
}

static int status_of(const struct checked *c)
{
    return c->rc == 0          ? c->report.n_findings ? CMD_GATE : CMD_DONE
           : is_finding(c->rc) ? CMD_GATE
                               : CMD_FAILED;
}

/* The worst of all: a file that could not be read, then one that is not sound. */
static int worst_status(const struct checked *files, size_t n)
{
    int worst = CMD_DONE;
    for (size_t i = 0; i < n && worst != CMD_FAILED; i++)
        worst = status_of(&files[i]) == CMD_DONE ? worst : status_of(&files[i]);
    return worst;
}

/* The members of one file, in an object that is open; of its tensors nothing is known when it could not be
 * opened. */
static void file_json(struct json_writer *w, const struct checked *c)
{
    const struct verify_report *r = &c->report;
    const char *text = without_path(c->e.msg, c->path);
    bool opened = c->rc == 0;
    jw_key(w, "path"), jw_string(w, c->path);
    jw_key(w, "valid");
    status_of(c) == CMD_FAILED ? jw_null(w) : jw_bool(w, status_of(c) == CMD_DONE);
    jw_key(w, "n_tensors");
    opened ? jw_uint(w, r->n_tensors) : jw_null(w);
    jw_key(w, "n_bytes");
    opened ? jw_uint(w, c->n_bytes) : jw_null(w);
    jw_key(w, "tensor_bytes");
    opened ? jw_uint(w, r->n_bytes) : jw_null(w);
    if (is_finding(c->rc))
        strings_json(w, "findings", &text, 1);
    else
        strings_json(w, "findings", r->findings, r->n_findings);
    jw_key(w, "notes"), jw_array(w);
    for (size_t i = 0; i < r->n_notes; i++)
        if (!is_warning(r->notes[i]))
            jw_string(w, r->notes[i]);
    jw_end(w);
    if (status_of(c) == CMD_FAILED)
        cmd_json_error(w, &c->e);
}

/* One file is the object itself; several are a list in it. */
static void print_json(const struct checked *files, size_t n)
{
    struct json_writer w;
    cmd_json_begin(&w);
    if (n == 1) {
        file_json(&w, files);
    } else {
        jw_key(&w, "valid"), jw_bool(&w, worst_status(files, n) == CMD_DONE);
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

static void print_text(const struct checked *c)
{
    char size[32];
    const struct verify_report *r = &c->report;
    const char *text = without_path(c->e.msg, c->path);
    const char *const *findings = c->rc ? &text : r->findings;
    size_t n = c->rc ? 1 : r->n_findings;
    for (size_t i = 0; i < n; i++)
        printf("%s: %s\n", c->path, findings[i]);
    for (size_t i = 0; i < r->n_notes; i++)
        if (!is_warning(r->notes[i]))
            printf("%s: note: %s\n", c->path, r->notes[i]);
    if (n)
        printf("%s: %zu problem%s\n", c->path, n, format_plural(n));
    else
        printf("%s: valid: %zu tensor%s, %s\n", c->path, r->n_tensors, format_plural(r->n_tensors),
               format_bytes(size, (double)c->n_bytes));
}

static void check_file(struct checked *c, const struct session *session, const struct shared_options *s)
{
    struct progress_bar bar;
    struct model *m = NULL;
    struct model_options mo = {.kern = session->kern};
    c->rc = model_open(&m, c->path, &mo, &c->e);
    if (c->rc == 0) {
        const struct progress progress = progress_on(&bar);
        progress_begin(&bar, s, "checking", "B", 0);
        c->rc = model_verify(&c->report, m, session->pool, &progress, &c->e);
        progress_end(&bar);
    }
    if (c->rc == 0)
        c->rc = model_files_bytes(&c->n_bytes, model_path(m), &c->e);
    for (size_t i = 0; i < c->report.n_notes; i++)
        if (is_warning(c->report.notes[i]))
            cmd_warn_of(s, c->path, c->report.notes[i]);
    model_close(m);
}

/* Each file with its lines as soon as it is looked at; a file that cannot be read does not keep the others
 * from it. */
static int check_all(const struct opt_operands *args, const struct session *session,
                     const struct shared_options *s)
{
    struct checked *files = calloc(args->n, sizeof *files);
    if (!files)
        return cmd_fail(&(struct err){ERR_NOMEM, "out of memory for the list of files"});
    size_t n = 0; /* looked at: those behind a request to stop are left out */
    for (size_t i = 0; i < args->n && (n == 0 || files[n - 1].e.code != ERR_CANCELLED); i++) {
        files[i].path = args->items[i];
        check_file(&files[i], session, s);
        n = i + 1;
        if (!s->json && status_of(&files[i]) == CMD_FAILED)
            cmd_fail(&files[i].e);
        else if (!s->json)
            print_text(&files[i]);
    }
    int status = worst_status(files, n);
    if (s->json && (n > 1 || status != CMD_FAILED)) /* else the failure is the object */
        print_json(files, n);
    for (size_t i = 0; i < n; i++) {
        if (s->json && status_of(&files[i]) == CMD_FAILED)
            cmd_fail(&files[i].e);
        verify_report_release(&files[i].report);
    }
    free(files);
    return status;
}

int cmd_verify(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    const struct opt_command cmd = {
        .name = "verify",
        .operands = "PATH...",
        .description =
            "Check GGUF files or checkpoint folders: structure, the keys and tensors that the architecture "
            "asks for in every layer, numbers and special tokens that fit, shapes, the vocabulary, finite "
            "values, valid blocks and factors. Exit code 3 when something is wrong with one of them, 1 when "
            "one could not be read.",
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .uses = USES_THREADS | USES_ISA,
        .examples = "kerf verify model.gguf\n"
                    "kerf verify models/*.gguf --json",
    };
    struct opt_operands args;
    struct err e = {0};
    struct session session = {0};
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    status = session_open(&session, &s, &e) == 0 ? check_all(&args, &session, &s) : cmd_fail(&e);
    session_close(&session);
    return status;
}
