/* hf_names.c - see hf_names.h. Truth: torch (OptimizedModule, DistributedDataParallel, FSDP,
 * checkpoint_wrapper), PEFT's tuner layers, trl, Lightning; each names its attribute in its source. */
#include "hf_names.h"

#include "libquant/base/path.h"

#include <string.h>

/* Components that stand anywhere: wrappers of single modules. */
static const char *const anywhere[] = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
                                       "_forward_module", "_fpw_module"};

/* Beginnings: wrappers of the whole. `instead` replaces them. A doubled "model." comes from a wrapper that
 * calls the model so; the head is then beside the inner one. */
static const struct {
    const char *head, *instead;
} heads[] = {
    {"module.", ""},
    {"base_model.model.", ""},
    {"pretrained_model.", ""},
    {"model.model.", "model."},
    {"model.lm_head.", "lm_head."},
};

/* Does a component of `name` equal `word`? Its place, or NULL. */
static const char *component(const char *name, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = name; (at = strstr(at, word)) != NULL; at += n)
        if ((at == name || at[-1] == '.') && (at[n] == '.' || at[n] == '\0'))
            return at;
    return NULL;
}

static const char *without_component(const char *name, struct arena *arena, const char **wrapper)
{
    for (size_t i = 0; i < sizeof anywhere / sizeof *anywhere; i++) {
        const char *at = component(name, anywhere[i]);
        size_t n = strlen(anywhere[i]);
        if (!at || at[n] == '\0')
            continue;
        *wrapper = anywhere[i];
        return arena_printf(arena, "%.*s%s", (int)(at - name), name, at + n + 1);
    }
    return name;
}

static const char *without_head(const char *name, struct arena *arena, const char **wrapper)
{
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        size_t n = strlen(heads[i].head);
        if (strncmp(name, heads[i].head, n) != 0)
            continue;
        *wrapper = heads[i].head;
        return heads[i].instead[0] ? arena_printf(arena, "%s%s", heads[i].instead, name + n) : name + n;
    }
    return name;
}

const char *hf_name_unwrap(const char *name, struct arena *arena, const char **wrapper)
{
    const char *first = NULL;
    for (;;) {
        const char *taken = NULL, *next = without_component(name, arena, &taken);
        if (next == name)
            next = without_head(name, arena, &taken);
        if (next == NULL)
            return NULL;
        if (next == name)
            break;
        first = first ? first : taken;
        name = next;
    }
    if (first && wrapper)
        *wrapper = first;
    return name;
}

bool hf_name_is_quanto(const char *name)
{
    static const char *const parts[] = {".weight._data", ".weight._scale", ".weight._shift"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (path_ends_with(name, parts[i]))
            return true;
    return false;
}

bool hf_name_is_adapter(const char *name)
{
    static const char *const words[] = {
        "lora_A",
        "lora_B",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_E",
        "base_layer",
        "modules_to_save",
        "lora_magnitude_vector",
        "hada_w1_a",
        "hada_w1_b",
        "hada_w2_a",
        "hada_w2_b",
        "lokr_w1",
        "lokr_w2",
        "lokr_w1_a",
        "lokr_w2_a",
        "lokr_w1_b",
        "lokr_w2_b",
        "oft_r",
        "oft_R",
        "vera_lambda_b",
        "vera_lambda_d",
        "ia3_l",
        "prompt_embeddings",
        "original_module",
        "token_adapter",
        "boft_R",
        "boft_s",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (component(name, words[i]))
            return true;
    return false;
}
