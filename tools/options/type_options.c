/* type_options.c - see type_options.h. */
#include "type_options.h"

#include "calib/eval/ladder.h"
#include "formats/recipe/pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool can_write(enum qtype type)
{
    const struct qtype_info *info = qtype_info((uint32_t)type);
    return info && info->can_encode && info->in_files;
}

/* ", name" at the end of a list that is large enough. */
static void add_name(char *list, size_t size, const char *name)
{
    size_t n = strlen(list);
    snprintf(list + n, size - n, "%s%s", n ? ", " : "", name);
}

/* Without the blanks around it, as they come from lists and variables. */
static const char *strip(char out[64], const char *text)
{
    text += strspn(text, " \t\n\r");
    size_t n = strlen(text);
    while (n && strchr(" \t\n\r", text[n - 1]))
        n--;
    snprintf(out, 64, "%.*s", (int)(n < 63 ? n : 63), text);
    return out;
}

int parse_tensor_type(const struct opt_command *cmd, const char *option, const char *given, enum qtype *out)
{
    char word[64];
    const char *text = strip(word, given);
    bool known = qtype_from_name(text, out);
    if (known && can_write(*out))
        return 0;
    if (known && qtype_info((uint32_t)*out)->in_files)
        return cmd_usage(cmd, "%s: %s is read, but not written by this version", option,
                         qtype_name((uint32_t)*out));
    const char *names[QTYPE_COUNT];
    size_t n = 0;
    for (uint32_t i = 0; i < QTYPE_COUNT; i++)
        if (can_write((enum qtype)i))
            names[n++] = qtype_name(i);
    const char *near = opt_nearest(text, names, n);
    if (near)
        return cmd_usage(cmd, "%s: unknown tensor type '%s'; did you mean %s?", option, text, near);
    char list[512] = "";
    for (size_t i = 0; i < n; i++)
        add_name(list, sizeof list, names[i]);
    return cmd_usage(cmd, "%s: unknown tensor type '%s'; there are: %s", option, text, list);
}

/* All mixes. */
static void list_mixes(char *list, size_t size)
{
    list[0] = 0;
    for (size_t i = 0; i < mix_count(); i++)
        add_name(list, size, mix_at(i)->name);
}

void print_type_names(bool mixes)
{
    const char *space = "";
    for (size_t i = 0; mixes && i < mix_count(); i++)
        printf("%s%s", space, mix_at(i)->name), space = " ";
    for (uint32_t i = 0; !mixes && i < QTYPE_COUNT; i++)
        if (can_write((enum qtype)i))
            printf("%s%s", space, qtype_name(i)), space = " ";
}

/* "UD-Q4_K_XL": a mix that Unsloth makes for each model. */
static bool is_dynamic(const char *text)
{
    return strncasecmp(text, "UD-", 3) == 0;
}

/* "4", "Q4", "int4", "4bit", "nf4", "Q4_K": the common mix of so many bits; NULL: the text is no such word.
 */
static const char *mix_of_bits(const char *text)
{
    static const char *const heads[] = {"", "Q", "int", "i", "w", "fp", "nf"};
    static const char *const tails[] = {"", "_K", "bit", "-bit", "bits"};
    static const char *const of_bits[] = {"Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", NULL, "Q8_0"};
    size_t n = strcspn(text, "0123456789");
    bool has_head = false, has_tail = false;
    if (text[n] < '2' || text[n] > '8')
        return NULL;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        has_head |= strlen(heads[i]) == n && strncasecmp(text, heads[i], n) == 0;
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++)
        has_tail |= strcasecmp(text + n + 1, tails[i]) == 0;
    return has_head && has_tail ? of_bits[text[n] - '2'] : NULL;
}

const char *nearest_mix(const char *text)
{
    const char *names[128], *of_bits = mix_of_bits(text);
    size_t n = 0;
    if (of_bits)
        return of_bits;
    for (size_t i = 0; i < mix_count() && n < 128; i++)
        names[n++] = mix_at(i)->name;
    return opt_nearest(is_dynamic(text) ? text + 3 : text, names, n);
}

/* One sentence: what was probably meant, and the list of all only where nothing is near. */
static int unknown_mix(const struct opt_command *cmd, const char *option, const char *text)
{
    const char *near = nearest_mix(text);
    char list[1024];
    if (strcasecmp(text, "COPY") == 0)
        return cmd_usage(cmd,
                         "%s: COPY, as llama-quantize calls it, is --type auto of kerf convert and quantize: "
                         "every tensor keeps its type",
                         option);
    if (strchr(text, ','))
        return cmd_usage(cmd, "%s: '%s' is a list; give one type or mix (kerf ladder --types takes several)",
                         option, text);
    if (is_dynamic(text))
        return cmd_usage(cmd,
                         "%s: '%s' is a name of mixes made for each model, which kerf best and kerf allocate "
                         "do by measurement%s%s%s",
                         option, text, near ? "; did you mean the standard mix " : "", near ? near : "",
                         near ? "?" : "");
    if (near)
        return cmd_usage(cmd, "%s: unknown type or mix '%s'; did you mean %s?", option, text, near);
    list_mixes(list, sizeof list);
    return cmd_usage(cmd, "%s: unknown type or mix '%s'; there are: %s", option, text, list);
}

int parse_mix(const struct opt_command *cmd, const char *option, const char *given, const struct mix **out)
{
    char word[64];
    const char *text = strip(word, given);
    enum qtype type;
    *out = mix_find(text);
    if (*out)
        return 0;
    if (qtype_from_name(text, &type) && can_write(type)) /* a level needs a file type, and these have none */
        return cmd_usage(cmd,
                         "%s: %s is a type for single tensors; put it on top of a mix, for instance "
                         "--type Q8_0 --tensor-type 'ffn_(up|gate|down)=%s', or '.=%s' for all%s",
                         option, qtype_name((uint32_t)type), qtype_name((uint32_t)type),
                         qtype_name((uint32_t)type),
                         type == QTYPE_MXFP4 ? "; for a model with experts there is the mix MXFP4_MOE" : "");
    return unknown_mix(cmd, option, text);
}

int parse_mixes(const struct opt_command *cmd, const char *option, const char *text, const struct mix ***out,
                size_t *n)
{
    const struct mix **list = NULL, *none = NULL;
    char unknown[64];
    struct err e = {0};
    if (ladder_parse_types(&list, n, text, unknown, &e) != 0)
        return e.code != ERR_ARG ? cmd_fail(&e)
               : unknown[0]      ? parse_mix(cmd, option, unknown, &none) /* says what it could be */
                                 : cmd_usage(cmd, "%s: %s", option, e.msg);
    *out = list;
    return 0;
}

/* "a=Q8_0,b=Q6_K": a type behind an equals sign and in front of a comma, which no expression has. */
static bool has_rule_before(const char *text, const char *end)
{
    for (const char *eq = strchr(text, '='); eq && eq < end; eq = strchr(eq + 1, '=')) {
        char word[32];
        enum qtype type;
        size_t n = strcspn(eq + 1, ",;");
        if (n >= sizeof word || eq + 1 + n >= end)
            continue;
        snprintf(word, sizeof word, "%.*s", (int)n, eq + 1);
        if (qtype_from_name(word, &type))
            return true;
    }
    return false;
}

int parse_type_rule(const struct opt_command *cmd, const char *option, const char *text, char **pattern,
                    enum qtype *type)
{
    const char *eq = strrchr(text, '=');
    struct pattern *compiled = NULL;
    struct err e = {0};
    if (!eq || eq == text)
        return cmd_usage(cmd, "%s: expected REGEX=TYPE, found '%s'", option, text);
    if (has_rule_before(text, eq))
        return cmd_usage(
            cmd,
            "%s: '%s' is a list of rules; give the option once for each, or a file with a rule a "
            "line as --plan",
            option, text);
    int status = parse_tensor_type(cmd, option, eq + 1, type);
    if (status)
        return status;
    int rc = pattern_new(&compiled, text, (size_t)(eq - text), false, &e);
    pattern_free(compiled);
    if (rc == ERR_ARG)
        return cmd_usage(cmd, "%s: %s", option, e.msg);
    char *copy = rc == 0 ? strndup(text, (size_t)(eq - text)) : NULL;
    if (rc == 0 && !copy)
        rc = err_set(&e, ERR_NOMEM, "out of memory for %s", option);
    if (rc)
        return cmd_fail(&e);
    *pattern = copy;
    return 0;
}
