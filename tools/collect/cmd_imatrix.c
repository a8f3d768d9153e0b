/* cmd_imatrix.c - kerf imatrix: which of its sub-commands is meant. */
#include "imatrix_command.h"

#include "tools/progress.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

bool imatrix_format_of(const char *path, enum imatrix_format *out)
{
    const char *dot = strrchr(path, '.');
    if (!dot || strchr(dot, '/'))
        return false;
    bool gguf = strcasecmp(dot, ".gguf") == 0;
    if (!gguf && strcasecmp(dot, ".dat") != 0 && strcasecmp(dot, ".imatrix") != 0)
        return false;
    *out = gguf ? IMATRIX_GGUF : IMATRIX_DAT;
    return true;
}

int imatrix_check_output(const struct opt_command *cmd, const char *path, enum imatrix_format *out)
{
    if (!path)
        return cmd_usage(cmd, "--output FILE is required");
    if (!imatrix_format_of(path, out))
        return cmd_usage(cmd, "-o %s: expected a name that ends in .gguf or .dat", path);
    return 0;
}

void imatrix_put_keys(struct json_writer *w, const struct imatrix *m)
{
    jw_key(w, "n_entries"), jw_uint(w, imatrix_n(m));
    jw_key(w, "n_chunks"), jw_uint(w, imatrix_chunk_count(m));
    jw_key(w, "ctx"), jw_uint(w, imatrix_chunk_size(m));
    jw_key(w, "datasets"), jw_array(w);
    for (size_t i = 0; i < imatrix_n_datasets(m); i++)
        jw_string(w, imatrix_dataset(m, i));
    jw_end(w);
}

const char *imatrix_chunks_text(char out[80], const struct imatrix *m)
{
    uint32_t n = imatrix_chunk_count(m), size = imatrix_chunk_size(m);
    if (size)
        snprintf(out, 80, "%u chunk%s of %u tokens", n, format_plural(n), size);
    else
        snprintf(out, 80, "%u chunk%s of a size that the file does not tell", n, format_plural(n));
    return out;
}

int imatrix_prior_command(struct imatrix *m, uint64_t tokens, const struct shared_options *shared,
                          struct err *e)
{
    size_t n_starved;
    int rc = imatrix_apply_expert_prior(m, (uint32_t)tokens, &n_starved, e);
    if (rc == 0 && imatrix_expert_prior(m) == 0)
        cmd_warn(shared,
                 "[option-idle] --expert-prior changed nothing: no entry has counts for several experts");
    else if (rc == 0)
        cmd_note(shared, "%zu expert matrices without data take the mean of their layer", n_starved);
    return rc;
}

int cmd_imatrix(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } subs[] = {{"collect", cmd_imatrix_collect},
                {"merge", cmd_imatrix_merge},
                {"convert", cmd_imatrix_merge},
                {"show", cmd_imatrix_show}};
    for (size_t i = 0; argc > 1 && i < sizeof subs / sizeof *subs; i++)
        if (strcmp(argv[1], subs[i].name) == 0)
            return subs[i].run(argc - 1, argv + 1);
    const char *names[] = {"collect", "merge", "convert", "show"}, *near = NULL;
    if (argc > 1 && argv[1][0] != '-' && !strpbrk(argv[1], "./") && access(argv[1], F_OK) != 0)
        near = opt_nearest(argv[1], names, sizeof names / sizeof *names);
    if (near) { /* else it is a model that is missing */
        const struct opt_command cmd = {.name = "imatrix"};
        return cmd_usage(&cmd, "'%s' is neither a subcommand nor a model; did you mean '%s'?", argv[1], near);
    }
    return cmd_imatrix_collect(argc, argv);
}
