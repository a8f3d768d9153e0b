/* adapter_options.c - see adapter_options.h. */
#include "adapter_options.h"

#include "formats/model/model_files.h"
#include "formats/model/model_sum.h"
#include "formats/output/output_file.h"

#include <string.h>
#include <sys/stat.h>

int adapter_check_output(const char *adapter, const char *output, struct err *e)
{
    struct stat st;
    if (stat(adapter, &st) == 0 && S_ISDIR(st.st_mode))
        return model_files_refuse(adapter, output, e);
    return output_file_check_input(output, adapter, e);
}

int adapter_list_parse(struct adapter_list *out, const struct opt_list *args, const char *output,
                       struct err *e)
{
    int rc = 0;
    out->items = arena_array(&out->arena, args->n + 1, sizeof *out->items);
    if (!out->items)
        return err_set(e, ERR_NOMEM, "out of memory for the list of adapters");
    for (size_t i = 0; rc == 0 && i < args->n; i++) {
        const char *text = args->items[i];
        rc = model_adapter_parse(&out->items[i], text, strlen(text), &out->arena, e);
        out->n += rc == 0;
        if (rc == 0 && output)
            rc = adapter_check_output(out->items[i].path, output, e);
    }
    return rc;
}

void adapter_list_release(struct adapter_list *l)
{
    arena_release(&l->arena);
    *l = (struct adapter_list){0};
}

void adapters_json(const struct model *m, struct json_writer *w)
{
    jw_key(w, "adapters"), jw_array(w);
    for (size_t i = 0; i < model_n_adapters(m); i++) {
        struct model_adapter_report a = model_adapter_report(m, i);
        jw_object(w);
        jw_key(w, "path"), jw_string(w, a.path);
        jw_key(w, "scale"), jw_double(w, a.scale);
        jw_key(w, "sha256"), jw_string(w, a.sha256);
        jw_key(w, "n_changed"), jw_uint(w, a.n_changed);
        jw_key(w, "n_replaced"), jw_uint(w, a.n_replaced);
        jw_end(w);
    }
    jw_end(w);
}
