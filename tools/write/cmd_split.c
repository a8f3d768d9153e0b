/* cmd_split.c - kerf split: a GGUF file in parts of bounded size. */
#include "tools/options/gguf_operand.h"
#include "copy_command.h"

int cmd_split(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    const char *output = NULL;
    struct copy_gguf_options ro = {0};
    const struct opt options[] = {
        OPT(TEXT, "output", &output, "PREFIX", "parts are PREFIX-00001-of-00003.gguf and so on",
            .letter = 'o'),
        OPT(SIZE, "max-size", &ro.max_bytes, "SIZE", "largest size of a part", .range = OPT_RANGE(.min = 1)),
        OPT(UINT, "max-tensors", &ro.max_tensors, "N", "most tensors in a part",
            .range = OPT_RANGE(.min = 1)),
    };
    const struct opt_command cmd = {
        .name = "split",
        .operands = "IN.gguf -o PREFIX {--max-size SIZE | --max-tensors N}",
        .description = "Split a GGUF file (or split a set again). Tensor bytes are copied as they are; all "
                       "parts appear together at the end. Runtimes load the first part.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_FORCE | USES_DRY_RUN,
        .examples = "kerf split big.gguf -o big --max-size 40GB",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    if (!output)
        return cmd_usage(&cmd, "--output is missing: the prefix of the parts");
    if (!ro.max_bytes && !ro.max_tensors)
        return cmd_usage(&cmd, "give --max-size or --max-tensors");
    struct err e = {0};
    struct gguf_reader *in = NULL;
    if (gguf_operand_open(&in, args.items[0], &e) != 0)
        return cmd_fail(&e);
    status = copy_and_report(in, output, &ro, &s);
    gguf_reader_close(in);
    return status;
}
