/* arch.c - the registry of families: dispatch by class name (specification, architectures 0.9) and the table
 * of what is supported. */
#include "arch.h"

#include <assert.h>
#include <string.h>

/* Every family there is: arch_<name> of formats/arch/<name>.c, in the order of tables and messages. */
/* clang-format off */
#define FAMILIES(each) \
    each(qwen) \
    each(qwen2) \
    each(qwen2moe) \
    each(qwen2vl) \
    each(qwen3) \
    each(qwen3moe) \
    each(qwen3vl) \
    each(qwen3vlmoe) \
    each(qwen3tts) \
    each(qwen3next) \
    each(qwen35) \
    each(qwen35moe) \
    each(llama) \
    each(mistral3) \
    each(olmo2) \
    each(smollm3) \
    each(granite) \
    each(gemma2) \
    each(gemma3) \
    each(phi3) \
    each(glm4) \
    each(glm4moe) \
    each(gptoss) \
    each(seedoss) \
    each(deepseek) \
    /* the end of the list */
/* clang-format on */

#define DECLARE(name) extern const struct arch arch_##name;
#define ADDRESS(name) &arch_##name,

FAMILIES(DECLARE)

static const struct arch *const all[] = {FAMILIES(ADDRESS)};

size_t arch_count(void)
{
    return sizeof all / sizeof *all;
}

const struct arch *arch_at(size_t i)
{
    assert(i < arch_count());
    return all[i];
}

static bool in_list(const char *const *list, const char *text)
{
    for (; *list; list++)
        if (strcmp(*list, text) == 0)
            return true;
    return false;
}

bool arch_row_applies(const struct arch_model *a, const struct arch_group *g, const struct arch_row *row,
                      uint64_t layer)
{
    return (!g->when || g->when(a, layer)) && (!row->when || row->when(a, layer));
}

uint64_t arch_layers(const struct arch_model *a, const struct arch_group *g)
{
    uint64_t n = 0;
    if (!g->layers)
        return a->value[ARCH_L] + a->n_extra;
    return arch_eval(a, g->layers, &n) ? n : 0;
}

static const struct hf_class *class_of(const char *model_type)
{
    for (size_t i = 0; i < arch_count(); i++)
        for (const struct hf_class *c = all[i]->defaults; c && c->model_types[0]; c++)
            if (in_list(c->model_types, model_type))
                return c;
    return NULL;
}

bool hf_class_default(const char *model_type, const char *key, enum hf_default_kind *kind, double *value)
{
    const struct hf_class *c = class_of(model_type);
    for (const struct hf_class_value *v = c ? c->values : NULL; v && v->key; v++)
        if (strcmp(v->key, key) == 0) {
            *kind = v->kind;
            *value = v->value;
            return true;
        }
    return false;
}

const struct arch *arch_by_name(const char *name)
{
    for (size_t i = 0; i < arch_count(); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

/* Names that people will try and that cannot work, with the reason. */
static const char *refusal(const char *class_name)
{
    if (strstr(class_name, "RewardModel"))
        return "of the reward models only Qwen2ForRewardModel and Qwen2ForProcessRewardModel are known";
    if (strstr(class_name, "ForSequenceClassification"))
        return "a score head is supported for Qwen2 and Qwen3 only";
    return NULL;
}

int arch_find(const struct arch **out, const char *class_name, const char *model_type, struct err *e)
{
    bool by_class = class_name[0] != '\0';
    for (size_t i = 0; i < arch_count(); i++) {
        if (by_class ? in_list(all[i]->classes, class_name) : in_list(all[i]->model_types, model_type)) {
            *out = all[i];
            return 0;
        }
    }
    const char *reason = refusal(class_name);
    if (reason)
        return err_set(e, ERR_UNSUPPORTED, "config.json: class '%s': %s", class_name, reason);
    return err_set(
        e, ERR_UNSUPPORTED,
        "config.json: %s '%.200s' is not supported; the table of families in README.md names those that are",
        by_class ? "class" : "model_type", by_class ? class_name : model_type);
}

void arch_write_table(FILE *file)
{
    fprintf(file, "| family | HuggingFace classes | GGUF architecture |\n|---|---|---|\n");
    for (size_t i = 0; i < arch_count(); i++) {
        fprintf(file, "| %s | ", all[i]->title);
        for (const char *const *c = all[i]->classes; *c; c++)
            fprintf(file, "%s`%s`", c == all[i]->classes ? "" : ", ", *c);
        fprintf(file, " | `%s` |\n", all[i]->name);
    }
}
