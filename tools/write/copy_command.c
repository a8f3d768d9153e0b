/* copy_command.c - see copy_command.h. */
#include "copy_command.h"

#include "tools/progress.h"

#include "formats/json.h"

#include <stdio.h>

static void print_json(const struct copy_gguf_report *r, const char *output, double seconds)
{
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "output"), jw_string(&w, output);
    jw_key(&w, "n_bytes"), jw_uint(&w, r->n_bytes);
    jw_key(&w, "n_tensors"), jw_uint(&w, r->n_tensors);
    jw_key(&w, "seconds"), jw_double(&w, seconds);
    jw_key(&w, "files"), jw_array(&w);
    for (size_t i = 0; i < r->n_files; i++) {
        jw_object(&w);
        jw_key(&w, "path"), jw_string(&w, r->files[i].path);
        jw_key(&w, "n_bytes"), jw_uint(&w, r->files[i].n_bytes);
        jw_key(&w, "n_tensors"), jw_uint(&w, r->files[i].n_tensors);
        jw_end(&w);
    }
    jw_end(&w);
    cmd_json_end(&w);
}

static void print_text(const struct copy_gguf_report *r, const struct shared_options *s)
{
    char size[32];
    for (size_t i = 0; i < r->n_files; i++)
        printf("%s: %s%zu tensor%s, %s\n", r->files[i].path, s->dry_run ? "would be " : "",
               r->files[i].n_tensors, format_plural(r->files[i].n_tensors),
               format_bytes(size, (double)r->files[i].n_bytes));
}

int copy_and_report(const struct gguf_reader *in, const char *output, struct copy_gguf_options *opt,
                    const struct shared_options *s)
{
    struct err e = {0};
    struct progress_bar bar;
    struct copy_gguf_report r = {0};
    double begin = clock_seconds();
    progress_begin(&bar, s, "copying", "B", 0);
    opt->overwrite = s->force;
    opt->dry_run = s->dry_run;
    opt->progress = progress_on(&bar);
    int rc = cmd_check_folder(output, &e);
    if (rc == 0)
        rc = copy_gguf(in, output, opt, &r, &e);
    progress_end(&bar);
    if (rc)
        return cmd_fail(&e);
    for (size_t i = 0; i < r.n_warnings; i++)
        cmd_warn_of(s, NULL, r.warnings[i]);
    cmd_tell_warnings();
    if (s->json)
        print_json(&r, output, clock_seconds() - begin);
    else
        print_text(&r, s);
    copy_gguf_report_release(&r);
    return CMD_DONE;
}
