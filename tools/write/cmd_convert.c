/* cmd_convert.c - kerf convert: checkpoint (or GGUF) to GGUF in one streaming pass. */
#include "write_model.h"

int cmd_convert(int argc, char **argv)
{
    static const struct write_command wc = {
        "convert",
        "Write a model as one GGUF file: a HuggingFace checkpoint folder (or a GGUF file), in one streaming "
        "pass, at the precision of the source or straight to any type or mix. The output appears under its "
        "name when it is complete.",
        "kerf convert Qwen3-0.6B -o q3.gguf\n"
        "kerf convert Qwen3-0.6B -o q3-q8_0.gguf --type Q8_0\n"
        "kerf convert Qwen3-8B -o q8b.gguf --type Q4_K_M --imatrix q8b.imatrix.gguf --split-max-size 4GB",
        false,
    };
    return write_model_command(&wc, argc, argv);
}
