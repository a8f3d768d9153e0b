/* cmd_verify.c - kerf verify: is a model file sound? Exit code 3 when it is not. */
#include "tools/cmd.h"
#include "tools/progress.h"

#include "formats/inspect/model_verify.h"
#include "formats/json.h"
#include "formats/model/model_files.h"

#include <stdio.h>
#include <string.h>

static void strings_json(struct json_writer *w, const char *key, const char *const *items, size_t n)
{
    jw_key(w, key), jw_array(w);
    for (size_t i = 0; i < n; i++)
        jw_string(w, items[i]);
    jw_end(w);
}

/* `n_bytes`: of the file. `opened`: false when the file could not be opened, and nothing is known of its
 * tensors. */
static void print_json(const char *path, const struct verify_report *r, bool opened, uint64_t n_bytes)
{
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "path"), jw_string(&w, path);
    jw_key(&w, "valid"), jw_bool(&w, r->n_findings == 0);
    jw_key(&w, "n_tensors");
    opened ? jw_uint(&w, r->n_tensors) : jw_null(&w);
    jw_key(&w, "n_bytes");
    opened ? jw_uint(&w, n_bytes) : jw_null(&w);
    jw_key(&w, "tensor_bytes");
    opened ? jw_uint(&w, r->n_bytes) : jw_null(&w);
    strings_json(&w, "findings", r->findings, r->n_findings);
    strings_json(&w, "notes", r->notes, r->n_notes);
    cmd_json_end(&w);
}

static void print_text(const char *path, const struct verify_report *r, uint64_t n_bytes)
{
    char size[32];
    for (size_t i = 0; i < r->n_findings; i++)
        printf("%s: %s\n", path, r->findings[i]);
    for (size_t i = 0; i < r->n_notes; i++)
        printf("%s: note: %s\n", path, r->notes[i]);
    if (r->n_findings)
        printf("%s: %zu problem%s\n", path, r->n_findings, format_plural(r->n_findings));
    else
        printf("%s: valid: %zu tensor%s, %s\n", path, r->n_tensors, format_plural(r->n_tensors),
               format_bytes(size, (double)n_bytes));
}

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

int cmd_verify(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    const struct opt_command cmd = {
        .name = "verify",
        .operands = "PATH",
        .description =
            "Check a GGUF file or a checkpoint folder: structure, the keys and tensors that the architecture "
            "asks for in every layer, numbers and special tokens that fit, shapes, the vocabulary, finite "
            "values, valid blocks and factors. Exit code 3 when something is wrong.",
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_THREADS | USES_ISA,
        .examples = "kerf verify model.gguf",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    const char *path = args.items[0];
    struct err e = {0};
    struct session session = {0};
    struct model *m = NULL;
    struct verify_report r = {0};
    struct progress_bar bar;
    uint64_t n_bytes = 0;
    int rc = session_open(&session, &s, &e);
    struct model_options mo = {.kern = session.kern};
    if (rc == 0)
        rc = model_open(&m, path, &mo, &e);
    if (rc == 0) {
        const struct progress progress = progress_on(&bar);
        progress_begin(&bar, &s, "checking", "B", 0);
        rc = model_verify(&r, m, session.pool, &progress, &e);
        progress_end(&bar);
    }
    if (rc == 0)
        rc = model_files_bytes(&n_bytes, model_path(m), &e);
    const char *text = without_path(e.msg, path);
    struct verify_report broken = {.findings = &text, .n_findings = 1};
    const struct verify_report *show = rc == 0 ? &r : is_finding(rc) ? &broken : NULL;
    if (show) {
        status = show->n_findings ? CMD_GATE : CMD_DONE;
        if (s.json)
            print_json(path, show, rc == 0, n_bytes);
        else
            print_text(path, show, n_bytes);
    } else {
        status = cmd_fail(&e);
    }
    verify_report_release(&r);
    model_close(m);
    session_close(&session);
    return status;
}
