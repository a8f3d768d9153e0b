/* cmd_quantize.c - kerf quantize: a model (GGUF or checkpoint) to a GGUF with new tensor types. */
#include "write_model.h"

int cmd_quantize(int argc, char **argv)
{
    static const struct write_command wc = {
        "quantize",
        "Write a model with new tensor types, from a GGUF file or a checkpoint folder. Give an importance "
        "matrix (kerf imatrix) for the best quality below 6 bits. The output appears under its name when it "
        "is complete.",
        "kerf quantize q3.gguf -o q3-Q4_K_M.gguf --type Q4_K_M --imatrix q3.imatrix.gguf\n"
        "kerf quantize q3.gguf -o q3-mixed.gguf --type Q4_K_M --tensor-type 'ffn_down=Q6_K'\n"
        "kerf quantize q3.gguf -o q3-plan.gguf --plan q3.plan",
        true,
    };
    return write_model_command(&wc, argc, argv);
}
