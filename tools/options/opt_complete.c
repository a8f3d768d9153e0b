/* opt_complete.c - a command's table as completion for bash, zsh and fish: options, and of their values the
 * words that are known (choices, types) or files. `kerf --help=bash` puts the parts of all commands together
 * (commands.c). */
#include "opt_internal.h"

#include "tools/cmd.h"
#include "type_options.h"

#include "formats/model/kv_type.h"

#include <string.h>

/* What a value is, by the name that --help gives it. */
enum value_kind { VALUE_WORDS, VALUE_MIXES, VALUE_TYPES, VALUE_FILE, VALUE_OTHER };

static bool is_cache(const struct opt *o)
{
    return o->kind == OPT_TEXT && strcmp(o->name, "kv-type") == 0;
}

static enum value_kind value_kind(const struct opt *o)
{
    if (o->kind == OPT_CHOICE || is_cache(o))
        return VALUE_WORDS;
    if (o->kind != OPT_TEXT && o->kind != OPT_LIST)
        return VALUE_OTHER;
    if (strcmp(o->name, "type") == 0 || strcmp(o->name, "types") == 0)
        return VALUE_MIXES;
    if (strcmp(o->arg, "T") == 0)
        return VALUE_TYPES;
    static const char *const files[] = {"FILE", "PLAN", "PREFIX", "TEXT", "FOLDER", "MODEL"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(o->arg, files[i]) == 0)
            return VALUE_FILE;
    return VALUE_OTHER;
}

/* "a|b|c" as "a b c". */
static void print_words(const char *words)
{
    for (; *words; words++)
        putchar(*words == '|' ? ' ' : *words);
}

static void print_value_words(const struct opt *o)
{
    if (o->kind == OPT_CHOICE || is_cache(o))
        print_words(is_cache(o) ? KV_CACHE_TYPES : o->arg);
    else
        print_type_names(value_kind(o) == VALUE_MIXES);
}

/* Inside single quotes of a shell, without characters that zsh's _arguments reads: brackets and colons. */
static void print_quoted(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (*text == '[' || *text == ']' || *text == ':' || *text == '\\')
            putchar(' ');
        else
            putchar(*text);
    }
}

static bool has_words(const struct opt *o)
{
    enum value_kind kind = value_kind(o);
    return kind == VALUE_WORDS || kind == VALUE_MIXES || kind == VALUE_TYPES;
}

static bool is_option(const struct opt *o)
{
    return o && o->kind != OPT_HEADING;
}

/* One branch of the function's `case $command`, with what follows --option. */
void opt_complete_bash(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED])
{
    printf("    '%s')\n        options='", cmd->name);
    for (size_t i = 0; i < opt_n_rows(cmd); i++)
        if (is_option(opt_row(cmd, shared, i)))
            printf(" --%s", opt_row(cmd, shared, i)->name);
    printf("'\n        case $previous in\n");
    for (size_t i = 0; i < opt_n_rows(cmd); i++) {
        const struct opt *o = opt_row(cmd, shared, i);
        if (!is_option(o) || o->kind == OPT_FLAG)
            continue;
        printf("        --%s", o->name);
        if (o->letter)
            printf(" | -%c", o->letter);
        printf(") value=");
        if (has_words(o)) {
            printf("words words='");
            print_value_words(o);
            printf("' ;;\n");
        } else {
            printf("%s ;;\n", value_kind(o) == VALUE_FILE ? "file" : "other");
        }
    }
    printf("        esac\n        ;;\n");
}

/* One branch with the arguments of _arguments. */
void opt_complete_zsh(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED])
{
    printf("    '%s')\n        _arguments -s \\\n", cmd->name);
    for (size_t i = 0; i < opt_n_rows(cmd); i++) {
        const struct opt *o = opt_row(cmd, shared, i);
        if (!is_option(o))
            continue;
        for (int letter = o->letter ? 1 : 0; letter >= 0; letter--) {
            printf("            '%s", o->kind == OPT_LIST ? "*" : "");
            if (letter)
                printf("-%c[", o->letter);
            else
                printf("--%s[", o->name);
            print_quoted(o->help);
            putchar(']');
            if (o->kind != OPT_FLAG) {
                printf(":%s:", o->kind == OPT_CHOICE ? "word" : o->name);
                if (value_kind(o) == VALUE_FILE) {
                    printf("_files");
                } else if (has_words(o)) {
                    putchar('(');
                    print_value_words(o);
                    putchar(')');
                }
            }
            printf("' \\\n");
        }
    }
    printf("            '*:file:_files'\n        ;;\n");
}

/* Lines of `complete`. */
void opt_complete_fish(const struct opt_command *cmd, const struct opt shared[OPT_N_SHARED])
{
    const char *space = strchr(cmd->name, ' ');
    for (size_t i = 0; i < opt_n_rows(cmd); i++) {
        const struct opt *o = opt_row(cmd, shared, i);
        if (!is_option(o))
            continue;
        printf("complete -c kerf -n '__fish_seen_subcommand_from %.*s",
               space ? (int)(space - cmd->name) : (int)strlen(cmd->name), cmd->name);
        if (space)
            printf("; and __fish_seen_subcommand_from%s", space);
        printf("' -l %s", o->name);
        if (o->letter)
            printf(" -s %c", o->letter);
        printf(" -d '");
        print_quoted(o->help);
        putchar('\'');
        if (o->kind != OPT_FLAG) {
            printf(value_kind(o) == VALUE_FILE ? " -r -F" : " -x");
            if (has_words(o)) {
                printf(" -a '");
                print_value_words(o);
                putchar('\'');
            }
        }
        putchar('\n');
    }
}
