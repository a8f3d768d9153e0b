/* towers_command.c - see towers_command.h. */
#include "towers_command.h"

#include "tools/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "dir/name.gguf" is "dir/mmproj-name.gguf", as programs that look for a tower beside a model expect. */
static char *name_beside(const char *text_output)
{
    const char *slash = strrchr(text_output, '/'), *file = slash ? slash + 1 : text_output;
    size_t n = strlen(text_output) + sizeof "mmproj-";
    char *path = malloc(n);
    if (path)
        snprintf(path, n, "%.*smmproj-%s", (int)(file - text_output), text_output, file);
    return path;
}

int towers_open(struct towers_run *r, const char *path, const char *text_output,
                const struct model_options *text, struct err *e)
{
    struct model_options mo = *text;
    mo.towers = true;
    mo.keep_mtp = mo.keep_packed = false;
    mo.skip_tensors = NULL;
    mo.n_skip_tensors = 0;
    r->output = name_beside(text_output ? text_output : path);
    if (!r->output)
        return err_set(e, ERR_NOMEM, "out of memory for a path");
    return model_open(&r->model, path, &mo, e);
}

int towers_write(struct towers_run *r, const struct mix *mix, const struct rewrite_options *text,
                 struct err *e)
{
    struct rewrite_options ro = *text;
    ro.recipe = (struct recipe_options){.mix = mix, .recipe = text->recipe.recipe};
    ro.imatrix = NULL;
    ro.imatrix_path = ro.imatrix_shown = NULL;
    ro.imatrix_strict = false;
    ro.split_max_bytes = 0;
    ro.extra = NULL;
    ro.blocks = NULL;
    return rewrite_model(&r->report, r->model, r->output, &ro, e);
}

void towers_warn(const struct towers_run *r, const struct shared_options *s)
{
    for (size_t i = 0; r->model && i < model_n_warnings(r->model); i++)
        cmd_warn_of(s, r->output, model_warning(r->model, i));
    for (size_t i = 0; i < r->report.n_warnings; i++)
        cmd_warn_of(s, r->output, r->report.warnings[i]);
}

void towers_print(const struct towers_run *r, bool dry_run)
{
    char size[32], params[32];
    if (!r->model)
        return;
    printf("%s: %s%s, %s, %.2f bits per weight (%s parameters in %zu tensors)\n", r->output,
           dry_run && !r->report.finished ? "would be " : "", r->report.type_name,
           format_bytes(size, (double)r->report.n_bytes), r->report.bits_per_weight,
           format_count(params, (double)r->report.n_parameters), r->report.n_tensors);
}

void towers_json(const struct towers_run *r, struct json_writer *w)
{
    if (!r->model)
        return;
    jw_key(w, "mmproj"), jw_object(w);
    jw_key(w, "output"), jw_string(w, r->output);
    jw_key(w, "type"), jw_string(w, r->report.type_name);
    jw_key(w, "n_bytes"), jw_uint(w, r->report.n_bytes);
    jw_key(w, "n_parameters"), jw_uint(w, r->report.n_parameters);
    jw_key(w, "bits_per_weight"), jw_double(w, r->report.bits_per_weight);
    jw_key(w, "n_tensors"), jw_uint(w, r->report.n_tensors);
    jw_end(w);
}

void towers_release(struct towers_run *r)
{
    rewrite_report_release(&r->report);
    model_close(r->model);
    free(r->output);
    *r = (struct towers_run){0};
}
