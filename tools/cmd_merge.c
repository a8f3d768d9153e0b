/* cmd_merge.c - kerf merge: the parts of a split GGUF file as one file. */
#include "gguf_operand.h"
#include "copy_command.h"

int cmd_merge(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    const char *output = NULL;
    const struct opt options[] = {
        {"output", 'o', OPT_TEXT, &output, "FILE", "the GGUF file to write", NULL, NULL},
    };
    const struct opt_command cmd = {"merge",
                                    "PART.gguf -o OUT.gguf",
                                    "Merge a split GGUF file: name any part, the others are found beside it. "
                                    "Tensor bytes are copied as they are.",
                                    options,
                                    sizeof options / sizeof *options,
                                    1,
                                    1};
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    if (!output)
        return cmd_usage(&cmd, "--output is missing: where shall the GGUF file go?");
    struct err e = {0};
    struct gguf_reader *in = NULL;
    if (gguf_operand_open(&in, args.items[0], &e) != 0)
        return cmd_fail(&e);
    if (gguf_reader_n_parts(in) == 1)
        cmd_note(&s, "%s is one file, not a part of several: the output is a copy of it", args.items[0]);
    struct copy_gguf_options ro = {0};
    status = copy_and_report(in, output, &ro, &s);
    gguf_reader_close(in);
    return status;
}
