/* cmd_quantize.c - kerf quantize: a model (GGUF or checkpoint) to a GGUF with new tensor types. */
#include "write_model.h"

int cmd_quantize(int argc, char **argv)
{
    static const struct write_command wc = {
        "quantize",
        "Write a model with new tensor types, from a GGUF file or a checkpoint folder. Give an importance "
        "matrix (kerf imatrix) for the best quality below 6 bits. The output appears under its name when it "
        "is "
        "complete.",
        true,
    };
    return write_model_command(&wc, argc, argv);
}
