/* tower.c - the registry of towers, dispatch by class name, and the numbers of a configuration. */
#include "tower_rows.h"

#include <assert.h>
#include <string.h>

/* clang-format off */
#define TOWERS(each) \
    each(qwen2vl) \
    each(qwen25vl) \
    each(qwen3vl) \
    each(qwen2audio) \
    each(qwen25omni) \
    each(qwen3omni) \
    each(qwen3asr) \
    each(qwen3tts) \
    /* the end of the list */
/* clang-format on */

#define DECLARE(name) extern const struct tower tower_##name;
#define ADDRESS(name) &tower_##name,

TOWERS(DECLARE)

static const struct tower *const all[] = {TOWERS(ADDRESS)};

size_t tower_count(void)
{
    return sizeof all / sizeof *all;
}

const struct tower *tower_at(size_t i)
{
    assert(i < tower_count());
    return all[i];
}

void tower_write_table(FILE *file)
{
    fprintf(file, "| towers | HuggingFace classes | projector |\n|---|---|---|\n");
    for (size_t i = 0; i < tower_count(); i++) {
        const struct tower *t = all[i];
        fprintf(file, "| %s | ", t->arch.title);
        for (const char *const *c = t->arch.classes; *c; c++)
            fprintf(file, "%s`%s`", c == t->arch.classes ? "" : ", ", *c);
        fprintf(file, " |");
        const char *const words[] = {t->projector, t->vision_projector, t->audio_projector};
        for (size_t k = 0, n = 0; k < 3; k++)
            if (words[k])
                fprintf(file, "%s `%s`", n++ ? "," : "", words[k]);
        fprintf(file, " |\n");
    }
}

/* A part of the configuration: at its root, or in that of a thinker. */
static const struct json *part_of(const struct hf_config *config, const char *name)
{
    const struct json *root = hf_config_root(config), *part = json_get(root, name);
    if (!json_is_object(part))
        part = json_get(json_get(root, "thinker_config"), name);
    return json_is_object(part) ? part : NULL;
}

static bool in_list(const char *const *list, const char *text)
{
    for (; text && *list; list++)
        if (strcmp(*list, text) == 0)
            return true;
    return false;
}

/* By class, or by model_type where no class is stated. */
static const struct tower *find(const struct hf_config *config)
{
    const struct json *root = hf_config_root(config);
    const char *name = json_string(json_first(json_get(root, "architectures")));
    const char *type = json_string(json_get(root, "model_type"));
    for (size_t i = 0; i < tower_count(); i++)
        if (in_list(all[i]->arch.classes, name) || (!name && in_list(all[i]->arch.model_types, type)))
            return all[i];
    return NULL;
}

static const char *audio_part(const struct tower *t)
{
    return t->audio_part ? t->audio_part : "audio_config";
}

bool tower_is_in(const struct hf_config *config)
{
    const struct tower *t = find(config);
    bool vision = t && (t->projector || t->vision_projector) && t->vision_activation;
    return t && ((vision && part_of(config, "vision_config")) || part_of(config, audio_part(t)));
}

static int refuse(const struct hf_config *config, struct err *e)
{
    const char *name = json_string(json_first(json_get(hf_config_root(config), "architectures")));
    if (!part_of(config, "vision_config") && !part_of(config, "audio_config"))
        return err_set(e, ERR_ARG,
                       "config.json: neither vision_config nor audio_config: the model has no towers; leave "
                       "out --mmproj");
    char list[400] = "";
    for (size_t i = 0; i < tower_count(); i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", all[i]->arch.classes[0]);
    }
    return err_set(
        e, ERR_UNSUPPORTED,
        "config.json: the towers of class '%s' are not supported; supported: those of %s and their "
        "variants",
        name ? name : "", list);
}

/* Numbers of both parts, and the width of the text model, which the projection ends in. */
static int read_numbers(struct arch_model *a, struct err *e)
{
    int rc = arch_read_symbols(a, ARCH_D, ARCH_D + 1, e);
    if (rc == 0 && a->vision)
        rc = arch_read_symbols(a, ARCH_VD, ARCH_N_VISION, e);
    if (rc == 0 && a->audio && a->arch->audio_defaults)
        rc = arch_read_symbols(a, ARCH_AD, ARCH_N_SYMBOLS, e);
    return rc;
}

int tower_resolve(struct arch_model *out, const struct hf_config *config, struct err *e)
{
    const struct tower *t = find(config);
    if (!t)
        return refuse(config, e);
    struct arch_model a = {.arch = &t->arch, .config = config};
    a.vision = t->vision_activation ? part_of(config, "vision_config") : NULL;
    a.audio = t->arch.audio_defaults || t->audio_part ? part_of(config, audio_part(t)) : NULL;
    if (!a.vision && !a.audio)
        return refuse(config, e);
    int rc = read_numbers(&a, e);
    if (rc == 0)
        rc = t->arch.check(&a, e);
    if (rc == 0)
        *out = a;
    return rc;
}

static int missing_part(const char *name, struct err *e)
{
    return err_set(e, ERR_FORMAT, "config.json: '%s' is missing, which models of this class have", name);
}

/* A word of a part, or what its class assumes. */
static int check_word(const struct json *part, const char *part_name, const char *key, const char *want,
                      struct err *e)
{
    const struct json *j = json_get(part, key);
    const char *have = json_string(j);
    if (!j || json_is_null(j) || (have && strcmp(have, want) == 0))
        return 0;
    return err_set(e, ERR_UNSUPPORTED,
                   "config.json: %s.%s is '%.60s', but runtimes compute %s for these towers, whatever a file "
                   "says",
                   part_name, key, have ? have : "no text", want);
}

static int check_heads(const struct arch_model *a, enum arch_symbol width, enum arch_symbol heads,
                       const char *part_name, struct err *e)
{
    if (a->value[width] % a->value[heads] == 0)
        return 0;
    return err_set(e, ERR_FORMAT, "config.json: %s: a width of %llu does not divide into %llu heads",
                   part_name, (unsigned long long)a->value[width], (unsigned long long)a->value[heads]);
}

int tower_check_vision(struct arch_model *a, struct err *e)
{
    const struct tower *t = (const struct tower *)a->arch;
    if (!a->vision)
        return missing_part("vision_config", e);
    if (a->value[ARCH_VT] != 2)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: vision_config.temporal_patch_size is %llu; runtimes add two frames",
                       (unsigned long long)a->value[ARCH_VT]);
    int rc = check_word(a->vision, "vision_config", "hidden_act", t->vision_activation, e);
    return rc != 0 ? rc : check_heads(a, ARCH_VD, ARCH_VH, "vision_config", e);
}

int tower_check_audio(struct arch_model *a, struct err *e)
{
    bool scaled = false;
    if (!a->audio)
        return missing_part("audio_config", e);
    json_bool(json_get(a->audio, "scale_embedding"), &scaled);
    if (scaled)
        return err_set(
            e, ERR_UNSUPPORTED,
            "config.json: audio_config.scale_embedding is true; runtimes do not scale the features");
    if (a->value[ARCH_AD] % 2 != 0 || a->value[ARCH_AD] < 4)
        return err_set(e, ERR_FORMAT,
                       "config.json: audio_config.d_model is %llu; expected an even number above 2",
                       (unsigned long long)a->value[ARCH_AD]);
    int rc = check_word(a->audio, "audio_config", "activation_function", "gelu", e);
    return rc != 0 ? rc : check_heads(a, ARCH_AD, ARCH_AH, "audio_config", e);
}
