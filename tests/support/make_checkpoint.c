/* make_checkpoint.c - writes a random-weight HuggingFace checkpoint: make_checkpoint [options] OUT_DIR.
 * See toy_checkpoint.h for what the weights look like; the default is the tiny model of the unit tests. */
#include "toy_checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: make_checkpoint [options] OUT_DIR\n"
    "  --preset qwen3-0.6b|6gb     shapes of a real model (6gb: Qwen2.5-3B, 6.2 GB in bf16, two shards)\n"
    "  --arch qwen2|qwen3|llama|mistral\n"
    "  --layers N --hidden D --heads H --kv-heads K --head-dim d --ffn F --vocab V --context N --theta X\n"
    "  --tied | --untied           share embedding and output\n"
    "  --dtype bf16|f16|f32        --shards N   --seed S   --bias   --sliding-window N\n"
    "  --rope-scaling yarn|linear|llama3\n"
    "  --tokenizer DIR             copy the tokenizer files of DIR instead of making one\n";

static bool number_option(struct toy_spec *s, const char *name, const char *value)
{
    const struct {
        const char *name;
        uint32_t *at;
    } options[] = {{"--layers", &s->n_layers},   {"--hidden", &s->hidden},
                   {"--heads", &s->n_heads},     {"--kv-heads", &s->n_kv_heads},
                   {"--head-dim", &s->head_dim}, {"--ffn", &s->ffn},
                   {"--vocab", &s->vocab},       {"--context", &s->context},
                   {"--shards", &s->n_shards},   {"--sliding-window", &s->sliding_window}};
    char *end;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (strcmp(options[i].name, name) == 0) {
            unsigned long v = strtoul(value, &end, 10);
            *options[i].at = (uint32_t)v;
            return *end == 0 && end != value && v <= UINT32_MAX;
        }
    }
    if (strcmp(name, "--seed") == 0) {
        s->seed = strtoull(value, &end, 10);
        return *end == 0 && end != value;
    }
    if (strcmp(name, "--theta") == 0) {
        s->rope_theta = strtod(value, &end);
        return *end == 0 && end != value;
    }
    return false;
}

static bool word_option(struct toy_spec *s, const char *name, const char *value)
{
    static const struct {
        const char *option, *value;
        int id;
    } words[] = {{"--arch", "qwen2", TOY_QWEN2},
                 {"--arch", "qwen3", TOY_QWEN3},
                 {"--arch", "llama", TOY_LLAMA},
                 {"--arch", "mistral", TOY_MISTRAL},
                 {"--dtype", "bf16", ST_BF16},
                 {"--dtype", "f16", ST_F16},
                 {"--dtype", "f32", ST_F32},
                 {"--rope-scaling", "linear", ROPE_LINEAR},
                 {"--rope-scaling", "yarn", ROPE_YARN},
                 {"--rope-scaling", "llama3", ROPE_LLAMA3}};
    if (strcmp(name, "--preset") == 0) {
        struct toy_spec p = toy_spec_tiny(strcmp(value, "6gb") == 0 ? TOY_QWEN2 : TOY_QWEN3);
        p.vocab = 151936;
        p.tied = true;
        p.rope_theta = 1e6;
        if (strcmp(value, "qwen3-0.6b") == 0) {
            p.n_layers = 28, p.hidden = 1024, p.n_heads = 16, p.n_kv_heads = 8, p.head_dim = 128;
            p.ffn = 3072, p.context = 40960;
        } else if (strcmp(value, "6gb") == 0) {
            p.n_layers = 36, p.hidden = 2048, p.n_heads = 16, p.n_kv_heads = 2, p.head_dim = 128;
            p.ffn = 11008, p.context = 32768, p.n_shards = 2;
        } else {
            return false;
        }
        *s = p;
        return true;
    }
    if (strcmp(name, "--tokenizer") == 0) {
        s->tokenizer_dir = value;
        return true;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(words[i].option, name) != 0 || strcmp(words[i].value, value) != 0)
            continue;
        if (strcmp(name, "--arch") == 0)
            s->arch = (enum toy_arch)words[i].id;
        else if (strcmp(name, "--dtype") == 0)
            s->dtype = (enum st_dtype)words[i].id;
        else
            s->rope_scaling = (enum rope_type)words[i].id;
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    struct toy_spec spec = toy_spec_tiny(TOY_QWEN3);
    const char *out = NULL;
    bool good = true;
    /* the family decides the defaults, wherever on the line it stands */
    for (int i = 1; i + 1 < argc; i++)
        for (int arch = 0; arch < TOY_ARCH_COUNT && strcmp(argv[i], "--arch") == 0; arch++)
            if (strcmp(argv[i + 1], toy_arch_name((enum toy_arch)arch)) == 0)
                spec = toy_spec_tiny((enum toy_arch)arch);
    for (int i = 1; i < argc && good; i++) {
        if (strcmp(argv[i], "--tied") == 0)
            spec.tied = true;
        else if (strcmp(argv[i], "--untied") == 0)
            spec.tied = false;
        else if (strcmp(argv[i], "--bias") == 0)
            spec.bias = true;
        else if (argv[i][0] != '-' && !out)
            out = argv[i];
        else if (i + 1 < argc &&
                 (number_option(&spec, argv[i], argv[i + 1]) || word_option(&spec, argv[i], argv[i + 1])))
            i++;
        else
            good = false;
    }
    if (!good || !out) {
        fputs(usage, stderr);
        return 2;
    }
    struct err e = {0};
    if (toy_checkpoint_write(out, &spec, &e) != 0) {
        fprintf(stderr, "make_checkpoint: %s\n", e.msg);
        return 1;
    }
    return 0;
}
