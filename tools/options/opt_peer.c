/* opt_peer.c - what the options of llama.cpp's tools are called here, for the message about an unknown one.
 */
#include "opt_internal.h"

#include <string.h>

static const struct {
    const char *peer;   /* without dashes */
    const char *name;   /* of the option here, or NULL: no option has that job */
    const char *advice; /* the end of "here it is ..." */
} names[] = {
    {"f", "text", "--text FILE"},
    {"file", "text", "--text FILE"},
    {"in-file", NULL, "an operand: kerf imatrix merge A B -o C"},
    {"m", NULL, "the operand MODEL, with no option in front of it"},
    {"model", NULL, "the operand MODEL, with no option in front of it"},
    {"c", "ctx", "--ctx N"},
    {"ctx-size", "ctx", "--ctx N"},
    {"ppl-stride", "stride", "--stride N"},
    {"t", "threads", "--threads N"},
    {"threads-batch", "threads", "--threads N"},
    {"o", "output", "-o FILE"},
    {"out-file", "output", "-o FILE"},
    {"output-file", "output", "-o FILE"},
    {"output-tensor-type", "output-type", "--output-type T"},
    {"token-embedding-type", "embedding-type", "--embedding-type T"},
    {"leave-output-tensor", "leave-output", "--leave-output"},
    {"tensor-type-file", "plan", "--plan FILE, which reads such files"},
    {"keep-split", "split-max-size", "--split-max-size SIZE"},
    {"split-max-tensors", "max-tensors", "--max-tensors N of kerf split"},
    {"override-kv", NULL, "kerf edit --set KEY=VALUE"},
    {"outtype", "type", "--type T"},
    {"outfile", "output", "-o FILE"},
    {"ftype", "type", "--type T"},
    {"special", "parse-special", "--parse-special"},
    {"p", "text", "--text FILE"},
    {"prompt", "text", "--text FILE, or - for standard input"},
    {"ids-only", NULL, "kerf tokenize MODEL TEXT, which prints ids unless --pieces"},
    {"no-parse-special", "no-special", "--no-special"},
    {"no-ppl", "no-perplexity", "--no-perplexity"},
    {"output-frequency", "save-every", "--save-every N"},
    {"save-frequency", "save-every", "--save-every N"},
    {"ofreq", "save-every", "--save-every N"},
    {"output-format", NULL, "the ending of -o: .gguf or .dat"},
    {"show-statistics", NULL, "kerf imatrix show FILE"},
    {"kl-divergence", NULL, "kerf compare REFERENCE CANDIDATE --text FILE"},
    {"kl-divergence-base", NULL, "kerf compare, which takes the reference itself"},
    {"include-weights", NULL, "not needed: tensors without an entry are quantized without"},
    {"exclude-weights", NULL, "not needed: tensors without an entry are quantized without"},
    {"prune-layers", "drop-layers", "--drop-layers LIST of kerf edit"},
    {"cache-type-k", "kv-type", "--kv-type TYPE"},
    {"cache-type-v", "kv-type", "--kv-type TYPE"},
    {"ctk", "kv-type", "--kv-type TYPE"},
    {"ngl", NULL, "not needed: everything runs on the CPU"},
    {"n-gpu-layers", NULL, "not needed: everything runs on the CPU"},
    {"gpu-layers", NULL, "not needed: everything runs on the CPU"},
    {"b", NULL, "not needed: the size of batches follows from --memory"},
    {"batch-size", NULL, "not needed: the size of batches follows from --memory"},
    {"ub", NULL, "not needed: the size of batches follows from --memory"},
    {"ubatch-size", NULL, "not needed: the size of batches follows from --memory"},
    {"fa", NULL, "not needed: no attention matrix of a whole window is kept"},
    {"flash-attn", NULL, "not needed: no attention matrix of a whole window is kept"},
    {"mlock", NULL, "not needed: models are mapped"},
    {"no-mmap", NULL, "not needed: models are mapped, and --memory bounds the rest"},
    {"no-lazy", NULL, "not needed: tensors are streamed"},
    {"use-temp-file", NULL, "not needed: tensors are streamed"},
    {"model-name", NULL, "kerf edit --set general.name=NAME"},
    {"metadata", NULL, "kerf edit --set KEY=VALUE"},
    {"chunk", "from-chunk", "--from-chunk N"},
    {"hellaswag", NULL, "kerf score MODEL --task FILE"},
    {"winogrande", NULL, "kerf score MODEL --task FILE"},
    {"multiple-choice", NULL, "kerf score MODEL --task FILE"},
    {"merge", NULL, "kerf merge"},
    {"split", NULL, "kerf split"},
};

static bool has(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], name) == 0)
            return true;
    return false;
}

const char *opt_name_of_peer(const char *word, const char *const *options, size_t n)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].peer, word) == 0 &&
            (!names[i].name || has(options, n, names[i].name) || strstr(names[i].advice, " of kerf ")))
            return names[i].advice;
    return NULL;
}
