/* cmd_merge.c - kerf merge: the parts of a split GGUF file as one file. */
#include "tools/options/gguf_operand.h"
#include "copy_command.h"

#include "libquant/base/path.h"

#include <stdint.h>
#include <sys/stat.h>

static bool is_part(const struct gguf_reader *in, const char *path)
{
    struct stat a, b;
    for (uint32_t i = 0; i < gguf_reader_n_parts(in); i++)
        if (stat(path, &a) == 0 && stat(gguf_reader_part_path(in, i), &b) == 0 && stat_is_same(&a, &b))
            return true;
    return false;
}

int cmd_merge(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    const char *output = NULL;
    const struct opt options[] = {
        OPT(TEXT, "output", &output, "FILE", "the GGUF file to write", .letter = 'o'),
    };
    const struct opt_command cmd = {
        .name = "merge",
        .operands = "PART.gguf... -o OUT.gguf",
        .description = "Merge a split GGUF file: name any part, the others are found beside it; or all of "
                       "them. Tensor bytes are copied as they are.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = UINT16_MAX,
        .uses = USES_FORCE | USES_DRY_RUN,
        .examples = "kerf merge big-00001-of-00003.gguf -o big.gguf",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    if (!output)
        return cmd_usage(&cmd, "--output FILE is required");
    struct err e = {0};
    struct gguf_reader *in = NULL;
    if (gguf_operand_open(&in, args.items[0], &e) != 0)
        return cmd_fail(&e);
    for (size_t i = 1; i < args.n; i++)
        if (!is_part(in, args.items[i])) {
            gguf_reader_close(in);
            return cmd_usage(&cmd, "%s is no part of the set that %s belongs to", args.items[i],
                             args.items[0]);
        }
    if (gguf_reader_n_parts(in) == 1)
        cmd_note(&s, "%s is one file, not a part of several: the output is a copy of it", args.items[0]);
    struct copy_gguf_options ro = {0};
    status = copy_and_report(in, output, &ro, &s);
    gguf_reader_close(in);
    return status;
}
