/* outcome.c - see outcome.h. */
#include "outcome.h"

#include "cmd.h"
#include "progress.h"

#include "formats/remark.h"
#include "libquant/base/printable.h"
#include "libquant/base/printed.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    struct remark_list warnings;
    size_t n_told; /* of them; those behind are held back, since more of their kind may follow */
    bool strict, quiet;
    char **argv;
    int argc;
} run;

static volatile sig_atomic_t owes_json;

/* The arguments as they were given, in one block, for the rest of the process: reading options moves and cuts
 * main's own. Those themselves if there is no memory. */
static char **keep_arguments(int argc, char **argv)
{
    size_t n_bytes = 0;
    for (int i = 0; i < argc; i++)
        n_bytes += sizeof *argv + strlen(argv[i]) + 1;
    char **kept = malloc(n_bytes + 1), *end = (char *)(kept + argc);
    for (int i = 0; kept && i < argc; i++) {
        kept[i] = end;
        end = stpcpy(end, argv[i]) + 1;
    }
    return kept ? kept : argv;
}

void outcome_begin(int argc, char **argv)
{
    run.argc = argc;
    run.argv = keep_arguments(argc, argv);
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        owes_json = owes_json || strcmp(argv[i], "--json") == 0;
}

void outcome_options(const struct shared_options *o)
{
    run.strict = o->strict;
    run.quiet = o->quiet;
    owes_json = o->json;
}

bool outcome_owes_json(void)
{
    return owes_json;
}

/* --- warnings --- */

static void tell(const struct remark *r)
{
    char count[REMARK_COUNT_BYTES];
    if (!run.quiet)
        fprintf(stderr, "kerf: warning: %s%s\n", r->message, remark_count(r, count));
}

/* One that there was no memory for in the list. */
static void tell_unkept(const char *sentence)
{
    char line[1000];
    snprintf(line, sizeof line, "%s", sentence);
    printable(line);
    fprintf(stderr, "kerf: warning: %s\n", line);
}

/* What is held back, in its order. */
static void tell_all(void)
{
    while (run.n_told < run.warnings.n)
        tell(&run.warnings.items[run.n_told++]);
}

void cmd_warn_of(const struct shared_options *o, const char *file, const char *text)
{
    size_t n = run.warnings.n;
    run.quiet = o->quiet;
    const struct remark *r = remark_list_add(&run.warnings, file, text, !o->verbose);
    if (r && run.warnings.n > n && (o->verbose || !r->tensor))
        tell_all();
    else if (!r && !o->quiet)
        tell_unkept(remark_sentence(text));
}

void cmd_warn(const struct shared_options *o, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = n < 0 ? NULL : malloc((size_t)n + 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    cmd_warn_of(o, NULL, text ? text : "[out-of-memory] a warning that memory did not suffice for");
    free(text);
}

void cmd_tell_warnings(void)
{
    tell_all();
}

/* --- failure --- */

const char *outcome_code(enum err_code code)
{
    switch (code) {
    case ERR_IO: return "io";
    case ERR_FORMAT: return "format";
    case ERR_UNSUPPORTED: return "unsupported";
    case ERR_ARG: return "argument";
    case ERR_NOMEM: return "memory";
    case ERR_CANCELLED: return "cancelled";
    case ERR_EXISTS: return "exists";
    case ERR_OK: break;
    }
    return "other";
}

/* Quoted where a shell would read it otherwise. */
static void put_word(FILE *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+@%";
    if (word[0] && word[strspn(word, plain)] == 0) {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word; word++)
        if (*word == '\'')
            fputs("'\\''", out);
        else
            fputc(*word, out);
    fputc('\'', out);
}

char *outcome_command(void)
{
    struct printed p;
    if (printed_begin(&p) != 0)
        return NULL;
    fputs("kerf", p.out);
    for (int i = 1; i < run.argc; i++) {
        fputc(' ', p.out);
        put_word(p.out, run.argv[i]);
    }
    return printed_end(&p);
}

/* Is `path`, of n bytes, there? Or at least among the arguments (also behind "--option=")? */
static bool is_file(const char *path, size_t n, bool must_exist)
{
    char name[512];
    if (n == 0 || n >= sizeof name || (path[0] == '-' && !must_exist)) /* an option is none */
        return false;
    memcpy(name, path, n);
    name[n] = 0;
    for (int i = 1; i < run.argc && !must_exist; i++) {
        const char *eq = strchr(run.argv[i], '=');
        if (strcmp(run.argv[i], name) == 0 || (eq && strcmp(eq + 1, name) == 0))
            return true;
    }
    return must_exist && access(name, F_OK) == 0;
}

/* A message names its file in front of a colon, perhaps behind other words with one ("Q4_K_M: a.dat: ...").
 * The longest such part counts, since a path may hold a colon itself; a file that is there before one that is
 * not. */
static size_t file_of(const char *message, const char **file)
{
    for (int must_exist = 1; must_exist >= 0; must_exist--)
        for (const char *start = message; start; start = strstr(start, ": ")) {
            size_t n = 0;
            start += start > message ? 2 : 0;
            for (const char *at = strstr(start, ": "); at; at = strstr(at + 2, ": "))
                if (is_file(start, (size_t)(at - start), must_exist))
                    n = (size_t)(at - start);
            if (n > 0) {
                *file = start;
                return n;
            }
        }
    return 0;
}

static void quoted_of(const char *message, const char *before, struct json_writer *w)
{
    const char *at = strstr(message, before), *end = NULL;
    if (at) {
        at += strlen(before);
        end = strchr(at, '\'');
    }
    if (end)
        jw_string_n(w, at, (size_t)(end - at));
    else
        jw_null(w);
}

static void error_members(struct json_writer *w, const char *code, const char *message)
{
    const char *file = NULL;
    size_t n_file = file_of(message, &file);
    jw_key(w, "error"), jw_object(w);
    jw_key(w, "code"), jw_string(w, code);
    jw_key(w, "message"), jw_string(w, message);
    jw_key(w, "file"), jw_string_n(w, n_file ? file : NULL, n_file);
    jw_key(w, "tensor"), quoted_of(message, "tensor '", w);
    jw_end(w);
}

void outcome_error(const char *code, const char *message)
{
    struct json_writer w;
    if (!owes_json)
        return;
    cmd_json_begin(&w);
    error_members(&w, code, message);
    cmd_json_end(&w);
}

void cmd_json_error(struct json_writer *w, const struct err *e)
{
    error_members(w, outcome_code(e->code), e->msg);
}

/* Why the exit code is not 0, also under --quiet: "2 warnings (option-idle, no-data), --strict: exit code 3".
 */
static void tell_strict(void)
{
    const uint64_t n = run.warnings.n + run.warnings.n_lost;
    fprintf(stderr, "kerf: %" PRIu64 " warning%s", n, format_plural(n));
    for (size_t i = 0; i < run.warnings.n; i++)
        fprintf(stderr, "%s%s", i ? ", " : " (", run.warnings.items[i].code);
    fprintf(stderr, "%s, --strict: exit code %d\n", run.warnings.n ? ")" : "", CMD_GATE);
}

int outcome_end(int status)
{
    tell_all();
    outcome_release_claims();
    if (status == CMD_DONE && run.strict && run.warnings.n + run.warnings.n_lost > 0) {
        tell_strict();
        status = CMD_GATE;
    }
    remark_list_release(&run.warnings);
    run.n_told = 0;
    return status;
}

/* --- the one object --- */

void cmd_json_begin(struct json_writer *w)
{
    owes_json = 0;
    jw_begin(w, stdout);
    jw_object(w);
}

void cmd_json_warnings(struct json_writer *w)
{
    owes_json = 0;
    jw_key(w, "warnings");
    remark_list_json(w, &run.warnings);
}

void cmd_json_end(struct json_writer *w)
{
    cmd_json_warnings(w);
    jw_end(w);
}
