/* candidate_arg.c - see candidate_arg.h. */
#include "candidate_arg.h"

#include "type_options.h"

#include "calib/eval/ladder.h"
#include "formats/model/model_sum.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* "plan:" and "recipe:"; false: the text begins with neither. */
static bool parse_prefix(struct candidate_arg *a)
{
    static const struct {
        const char *prefix;
        enum candidate_kind kind;
    } prefixes[] = {{"plan:", CANDIDATE_PLAN}, {"recipe:", CANDIDATE_RECIPE}};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t n = strlen(prefixes[i].prefix);
        if (strncmp(a->text, prefixes[i].prefix, n) == 0) {
            a->kind = prefixes[i].kind;
            a->path = a->text + n;
            return true;
        }
    }
    return false;
}

/* "kv:TYPE" alone or behind a plus. *is_cache: it is all that was given. */
static int parse_cache(const struct opt_command *cmd, struct candidate_arg *a, char *text, bool *is_cache)
{
    struct stat st;
    char *plus = strstr(text, "+kv:"), *kv = plus ? plus + 1 : strncmp(text, "kv:", 3) == 0 ? text : NULL;
    *is_cache = false;
    if (!kv || stat(text, &st) == 0)
        return 0;
    if (!kv_cache_parse(&a->cache, kv + 3))
        return cmd_usage(cmd, "'%s': expected kv:TYPE or kv:KEYS/VALUES of %s", text, KV_CACHE_TYPES);
    a->has_cache = true;
    *is_cache = !plus;
    if (plus)
        *plus = 0;
    return 0;
}

static int unknown_candidate(const struct opt_command *cmd, const char *text)
{
    const char *near = nearest_mix(text);
    return cmd_usage(cmd, "candidate '%s' is neither a file or folder nor a known type or mix; %s%s%s", text,
                     near ? "did you mean " : "there are also plan:FILE, recipe:FILE and kv:TYPE",
                     near ? near : "", near ? "?" : "");
}

int candidate_arg_parse(const struct opt_command *cmd, struct candidate_arg *out, char *text)
{
    struct candidate_arg a = {.kind = CANDIDATE_FILE, .text = text, .path = text};
    enum qtype type;
    struct stat st;
    bool is_cache = false;
    int status = parse_cache(cmd, &a, text, &is_cache);
    if (status != 0)
        return status;
    if (is_cache) {
        a.kind = CANDIDATE_SAME;
    } else if (stat(text, &st) != 0 && parse_prefix(&a)) {
        if (!*a.path)
            return cmd_usage(cmd, "candidate '%s': expected the name of a file after the colon", text);
    } else if (stat(text, &st) != 0 && (mix_find(text) || qtype_from_name(text, &type))) {
        a.kind = CANDIDATE_MIX;
        status = parse_mix(cmd, "candidate", text, &a.mix);
    } else if (stat(text, &st) != 0 && !strpbrk(text, "./") &&
               !model_is_sum(text)) { /* a path has these, a name has not */
        return unknown_candidate(cmd, text);
    }
    if (status == 0)
        *out = a;
    return status;
}

static int parse_level(const struct opt_command *cmd, struct candidate_arg *out, char *word)
{
    struct candidate_arg a = {.kind = CANDIDATE_MIX, .text = word, .path = word};
    bool is_cache = false;
    int status = parse_cache(cmd, &a, word, &is_cache);
    if (status != 0)
        return status;
    if (is_cache)
        a.kind = CANDIDATE_SAME;
    else if (parse_prefix(&a))
        status = *a.path ? 0 : cmd_usage(cmd, "--types: '%s': expected a file after the colon", word);
    else
        status = parse_mix(cmd, "--types", word, &a.mix);
    if (status == 0)
        *out = a;
    return status;
}

int candidate_args_parse_levels(const struct opt_command *cmd, struct candidate_arg **out, size_t *n,
                                char **words, const char *text)
{
    size_t most = ladder_n_default_types + (text ? strlen(text) : 0);
    struct candidate_arg *list = calloc(most + 1, sizeof *list);
    char *copy = strdup(text ? text : "");
    size_t count = 0;
    int status = list && copy ? 0 : cmd_fail(&(struct err){ERR_NOMEM, "out of memory for a list of types"});
    for (size_t i = 0; status == 0 && !text && i < ladder_n_default_types; i++) {
        list[count] = (struct candidate_arg){.kind = CANDIDATE_MIX, .text = ladder_default_types[i]};
        status = parse_mix(cmd, "--types", ladder_default_types[i], &list[count++].mix);
    }
    char *rest = NULL;
    for (char *word = copy ? strtok_r(copy, ", ", &rest) : NULL; status == 0 && word;
         word = strtok_r(NULL, ", ", &rest))
        status = parse_level(cmd, &list[count++], word);
    if (status == 0 && count == 0)
        status = cmd_usage(cmd, "--types: the list of types is empty");
    if (status != 0) {
        free(list);
        free(copy);
        return status;
    }
    *out = list;
    *words = copy;
    *n = count;
    return 0;
}
