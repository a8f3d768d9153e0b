/* cmd_imatrix_merge.c - kerf imatrix merge (and convert): add importance matrices, write either form. */
#include "imatrix_command.h"
#include "tools/progress.h"

#include "formats/model/model_identity.h"
#include "formats/json.h"
#include "formats/output/output_file.h"

#include <stdio.h>
#include <string.h>

/* Sums of different models have nothing to say to each other. Files of other programs do not tell their
 * model; those of one at least have the same entries. */
static void compare_models(struct imatrix *sum, const struct imatrix *m, const char *path, const char *first,
                           const struct shared_options *shared)
{
    size_t n_common = 0, n = imatrix_n(m), n_sum = imatrix_n(sum);
    bool several = strcmp(imatrix_model(m), IMATRIX_SEVERAL_MODELS) == 0;
    for (size_t i = 0; i < n; i++)
        n_common += imatrix_find(sum, imatrix_entry_at(m, i)->name) != NULL;
    if (model_identity_differs(imatrix_model(sum), imatrix_model(m)) || several) {
        cmd_warn(shared,
                 "[imatrix-other-model] %s: was collected on another model than %s; their sum describes "
                 "neither model",
                 path, first);
        imatrix_set_model(sum, IMATRIX_SEVERAL_MODELS);
    } else if (n_common < n || n_common < n_sum) {
        cmd_warn(
            shared,
            "[imatrix-other-entries] %s: %zu of its %zu entries and %zu of the %zu before are in both; were "
            "they collected on one model?",
            path, n_common, n, n_common, n_sum);
    }
    if (!imatrix_model(sum)[0])
        imatrix_set_model(sum, imatrix_model(m));
}

static int load_all(struct imatrix **out, const struct opt_operands *args,
                    const struct shared_options *shared, struct err *e)
{
    struct imatrix *sum = NULL;
    uint32_t size = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < args->n; i++) {
        struct imatrix *m = NULL;
        rc = imatrix_load(&m, args->items[i], e);
        if (rc != 0)
            break;
        uint32_t chunk = imatrix_chunk_size(m);
        if (size && chunk && chunk != size)
            cmd_warn(shared, "[imatrix-chunk-size] %s: chunks of %u tokens; the files before had %u",
                     args->items[i], chunk, size);
        size = size ? size : chunk;
        if (imatrix_n_ignored(m))
            cmd_warn(shared,
                     "[imatrix-other-tensors] %s: %zu tensors are not importance data and were left out",
                     args->items[i], imatrix_n_ignored(m));
        if (!sum) {
            sum = m;
            continue;
        }
        compare_models(sum, m, args->items[i], args->items[0], shared);
        rc = imatrix_merge(sum, m, e);
        if (rc != 0)
            rc = err_context(e, rc, "%s", args->items[i]);
        imatrix_free(m);
    }
    if (rc != 0)
        imatrix_free(sum);
    else
        *out = sum;
    return rc;
}

static void print_result(const struct imatrix *m, const char *path, const struct shared_options *shared)
{
    if (!shared->json) {
        char chunks[80];
        printf("%s: %s%zu entries, %s, %zu data set%s\n", path, shared->dry_run ? "would have " : "",
               imatrix_n(m), imatrix_chunks_text(chunks, m), imatrix_n_datasets(m),
               format_plural(imatrix_n_datasets(m)));
        return;
    }
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "output");
    jw_string(&w, path);
    imatrix_put_keys(&w, m);
    cmd_json_end(&w);
}

int cmd_imatrix_merge(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    const char *output = NULL;
    uint64_t prior = 0;
    const struct opt options[] = {
        OPT(TEXT, "output", &output, "FILE", "the importance matrix to write, .gguf or .dat", .letter = 'o'),
        OPT(UINT, "expert-prior", &prior, "N", IMATRIX_PRIOR_HELP, .fallback = IMATRIX_PRIOR_FALLBACK,
            .range = OPT_RANGE(.max = UINT32_MAX)),
    };
    const struct opt_command convert = {
        .name = "imatrix convert",
        .operands = "A -o B.{gguf,dat}",
        .description = "Write an importance matrix in the other form; the ending of the output says which.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_FORCE | USES_DRY_RUN,
        .examples = "kerf imatrix convert old.dat -o new.gguf",
    };
    const struct opt_command merge = {
        .name = "imatrix merge",
        .operands = "A [B...] -o C.{gguf,dat}",
        .description = "Add importance matrices: sums and token counts add up, data sets are listed in "
                       "order. With one input this is 'kerf imatrix convert'.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = SIZE_MAX,
        .uses = USES_FORCE | USES_DRY_RUN,
        .examples = "kerf imatrix merge prose.gguf code.gguf -o both.gguf",
    };
    const struct opt_command *cmd = strcmp(argv[0], "convert") == 0 ? &convert : &merge;
    struct opt_operands args;
    enum imatrix_format format;
    int status = opt_parse(cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    status = imatrix_check_output(cmd, output, &format);
    if (status != 0)
        return status;
    struct err e = {0};
    struct imatrix *m = NULL;
    int rc = cmd_check_output(output, shared.force, &e);
    for (size_t i = 0; rc == 0 && i < args.n; i++)
        rc = output_file_check_input(output, args.items[i], &e);
    if (rc == 0)
        rc = load_all(&m, &args, &shared, &e);
    if (rc == 0 && prior)
        rc = imatrix_prior_command(m, prior, &shared, &e);
    if (rc == 0)
        imatrix_set_run(m, ""); /* no run's output any more */
    if (rc == 0 && !shared.dry_run)
        rc = imatrix_save(m, output, format, shared.force, &e);
    if (rc == 0)
        print_result(m, output, &shared);
    imatrix_free(m);
    return rc ? cmd_fail(&e) : CMD_DONE;
}
