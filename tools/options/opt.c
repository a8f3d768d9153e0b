/* opt.c - see opt.h. Help text is in opt_help.c. */
#include "tools/cmd.h"
#include "opt_internal.h"
#include "tools/outcome.h"

#include "libquant/kern/kern.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void opt_list_release(struct opt_list *l)
{
    free(l->items);
    *l = (struct opt_list){0};
}

static int list_add(struct opt_list *l, const char *item)
{
    const char **items = realloc(l->items, (l->n + 1) * sizeof *items);
    if (!items)
        return -1;
    l->items = items;
    l->items[l->n++] = item;
    return 0;
}

bool opt_parse_uint(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end)
        return false;
    *out = v;
    return true;
}

bool opt_parse_real(const char *text, double *out)
{
    char *end;
    if (!text[0] || isspace((unsigned char)text[0]))
        return false;
    double v = strtod(text, &end);
    if (*end || !isfinite(v))
        return false;
    *out = v;
    return true;
}

static const double size_limit = 0x1p63;

/* Bytes, whether or not they are below size_limit; false: malformed. */
static bool size_value(const char *text, double *out)
{
    if (!isdigit((unsigned char)text[0]) && text[0] != '.')
        return false;
    char *unit;
    double v = strtod(text, &unit);
    static const char letters[] = "KMGTPE";
    double factor = 1;
    if (*unit && *unit != 'B') {
        const char *l = strchr(letters, toupper((unsigned char)*unit));
        if (!l)
            return false;
        unit++;
        /* K and KiB are 1024, KB is 1000: the convention of GNU tools. */
        double base = (*unit == 'B' || *unit == 'b') ? 1000 : 1024;
        if (*unit == 'i')
            unit++;
        factor = pow(base, (double)(l - letters + 1));
    }
    if (*unit == 'B' || *unit == 'b')
        unit++;
    if (factor == 1 && v != floor(v)) /* a forgotten unit: 2.6 means no bytes */
        return false;
    v *= factor;
    if (*unit || isnan(v) || v < 0)
        return false;
    *out = v;
    return true;
}

bool opt_parse_size(const char *text, uint64_t *out)
{
    double v;
    if (!size_value(text, &v) || v >= size_limit)
        return false;
    *out = (uint64_t)v;
    return true;
}

int opt_usage(const struct opt_command *cmd, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    opt_vusage(cmd, fmt, ap);
    va_end(ap);
    return 2;
}

void opt_vusage(const struct opt_command *cmd, const char *fmt, va_list ap)
{
    char text[1000];
    vsnprintf(text, sizeof text, fmt, ap);
    fprintf(stderr, "kerf %s: %s\nTry 'kerf %s --help'.\n", cmd->name, text, cmd->name);
    outcome_error("usage", text);
}

/* No wrong usage: exit status 1, as everywhere. */
static int opt_no_memory(void)
{
    return cmd_fail(&(struct err){ERR_NOMEM, "out of memory for the options"});
}

/* State of one opt_parse: the command's table followed by the shared one. */
struct parser {
    const struct opt_command *cmd;
    struct opt shared[OPT_N_SHARED];
    bool help, version, printed; /* printed: in another form */
    int argc, next;
    char **argv;
};

static const struct opt *option_at(const struct parser *p, size_t i)
{
    return i < p->cmd->n_options ? &p->cmd->options[i] : &p->shared[i - p->cmd->n_options];
}

static size_t n_options(const struct parser *p)
{
    return p->cmd->n_options + OPT_N_SHARED;
}

/* Shared options that the command has no use for are in the table, so that they can be refused by name. */
static bool is_refused(const struct parser *p, const struct opt *o)
{
    return o->hidden && o >= p->shared && o < p->shared + OPT_N_SHARED;
}

static const struct opt *find_long(const struct parser *p, const char *name, size_t len)
{
    for (size_t i = 0; i < n_options(p); i++) {
        const struct opt *o = option_at(p, i);
        if (o->kind != OPT_HEADING && strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    }
    return NULL;
}

static const struct opt *find_short(const struct parser *p, char letter)
{
    for (size_t i = 0; i < n_options(p); i++)
        if (option_at(p, i)->kind != OPT_HEADING && option_at(p, i)->letter == letter)
            return option_at(p, i);
    return NULL;
}

static size_t option_names(const struct parser *p, const char **names, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < n_options(p) && n < cap; i++)
        if (option_at(p, i)->kind != OPT_HEADING && !option_at(p, i)->hidden)
            names[n++] = option_at(p, i)->name;
    return n;
}

static bool ends_in_word(const char *name, const char *word)
{
    size_t n = strlen(name), m = strlen(word);
    return n > m && name[n - m - 1] == '-' && strcmp(name + n - m, word) == 0;
}

/* An option that another command calls by more words, or by fewer: --max-size and --split-max-size. NULL:
 * none. */
static const char *option_ending_alike(const char *word, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ends_in_word(names[i], word) || (strchr(names[i], '-') && ends_in_word(word, names[i])))
            return names[i];
    return NULL;
}

static int unknown_long(const struct parser *p, const char *name, size_t len)
{
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)(len < 63 ? len : 63), name);
    const char *names[128];
    size_t n = option_names(p, names, 128);
    const char *own = opt_name_of_peer(word, names, n);
    if (own)
        return opt_usage(p->cmd, "unknown option --%s, as llama.cpp calls it; here it is %s", word, own);
    const char *near = opt_nearest(word, names, n);
    if (!near)
        near = option_ending_alike(word, names, n);
    if (near)
        return opt_usage(p->cmd, "unknown option --%s; did you mean --%s?", word, near);
    return opt_usage(p->cmd, "unknown option --%s", word);
}

/* Long names behind one dash (-ngl) are looked up whole. */
static int unknown_short(const struct parser *p, const char *letters)
{
    const char *names[128], *own;
    size_t n = option_names(p, names, 128);
    char letter[2] = {letters[0], 0};
    if ((own = opt_name_of_peer(letters, names, n)) || (own = opt_name_of_peer(letter, names, n)))
        return opt_usage(p->cmd, "unknown option -%s, as llama.cpp calls it; here it is %s", letters, own);
    return opt_usage(p->cmd, "unknown option -%c", letters[0]);
}

static bool is_choice(const char *words, const char *text)
{
    size_t len = strlen(text);
    for (const char *w = words; len && w; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL)
        if (strncmp(w, text, len) == 0 && (w[len] == '|' || w[len] == 0))
            return true;
    return false;
}

static bool in_range(const struct opt_range *r, double v)
{
    return !r || ((r->above ? v > r->min : v >= r->min) && (r->max == 0 || v <= r->max));
}

/* A bound as people write it: "512MiB" for sizes, "16777216" for counts. */
static void bound_text(const struct opt *o, double v, char out[32])
{
    if (o->kind == OPT_SIZE)
        opt_size_text(out, 32, (uint64_t)v);
    else
        snprintf(out, 32, o->kind == OPT_UINT ? "%.0f" : "%g", v);
}

static int wrong_number(const struct parser *p, const struct opt *o, const char *text)
{
    const char *what = o->kind == OPT_UINT ? "a whole number" : o->kind == OPT_SIZE ? "a size" : "a number";
    char min[32], max[32], range[80] = "";
    double size;
    if (o->kind == OPT_SIZE && (!o->range || o->range->max == 0) && size_value(text, &size) &&
        size >= size_limit)
        return opt_usage(p->cmd, "--%s: '%s' is too large, expected a size below 8EiB", o->name, text);
    if (o->range) {
        bound_text(o, o->range->min, min);
        bound_text(o, o->range->max, max);
        if (o->range->max == 0)
            snprintf(range, sizeof range, o->range->above ? " above %s" : " of at least %s", min);
        else
            snprintf(range, sizeof range, " from %s to %s", min, max);
    }
    return opt_usage(p->cmd, "--%s: expected %s%s%s, found '%s'", o->name, what, range,
                     o->kind == OPT_SIZE ? ", such as 4GiB, 512MiB or 5GB" : "", text);
}

/* A number into the option's variable, if it is one and in its range. */
static bool store_number(const struct opt *o, const char *text)
{
    uint64_t n;
    double v;
    if (o->kind == OPT_REAL) {
        if (!opt_parse_real(text, &v) || !in_range(o->range, v))
            return false;
        *(double *)o->value = v;
        return true;
    }
    bool ok = o->kind == OPT_UINT ? opt_parse_uint(text, &n) : opt_parse_size(text, &n);
    if (!ok || !in_range(o->range, (double)n))
        return false;
    *(uint64_t *)o->value = n;
    return true;
}

/* Store `text` in the option's variable; 0 or the exit status of a usage error. */
static int store(const struct parser *p, const struct opt *o, const char *text)
{
    if (!text[0]) /* most likely a shell variable that is not set */
        return opt_usage(p->cmd, "--%s: expected %s, found an empty text", o->name, o->arg);
    if (o->given)
        *o->given = true;
    switch (o->kind) {
    case OPT_TEXT: *(const char **)o->value = text; break;
    case OPT_CHOICE:
        if (!is_choice(o->arg, text))
            return opt_usage(p->cmd, "--%s: expected one of %s, found '%s'", o->name, o->arg, text);
        *(const char **)o->value = text;
        break;
    case OPT_LIST:
        if (list_add(o->value, text) != 0)
            return opt_no_memory();
        break;
    case OPT_UINT:
    case OPT_SIZE:
    case OPT_REAL: return store_number(o, text) ? 0 : wrong_number(p, o, text);
    case OPT_FLAG:
    case OPT_HEADING: break;
    }
    return 0;
}

static int set_flag(const struct opt *o)
{
    *(bool *)o->value = true;
    if (o->given)
        *o->given = true;
    return 0;
}

static int parse_long(struct parser *p, const char *arg)
{
    const char *eq = strchr(arg, '=');
    size_t len = eq ? (size_t)(eq - arg) : strlen(arg);
    const struct opt *o = find_long(p, arg, len);
    if (!o)
        return unknown_long(p, arg, len);
    if (is_refused(p, o))
        return opt_usage(p->cmd, "--%s: this command has no use for it; leave it out", o->name);
    if (o->value == &p->help && eq && opt_print_as(eq + 1, p->cmd, p->shared)) {
        p->printed = true;
        return 0;
    }
    if (o->kind == OPT_FLAG)
        return eq ? opt_usage(p->cmd, "--%s takes no value", o->name) : set_flag(o);
    if (eq)
        return store(p, o, eq + 1);
    if (p->next >= p->argc)
        return opt_usage(p->cmd, "--%s needs a value (%s)", o->name, o->arg);
    return store(p, o, p->argv[p->next++]);
}

static int parse_short(struct parser *p, const char *letters)
{
    for (; *letters; letters++) {
        const struct opt *o = find_short(p, *letters);
        if (!o)
            return unknown_short(p, letters);
        if (o->kind == OPT_FLAG) {
            set_flag(o);
            continue;
        }
        if (letters[1] == '=') /* by GNU's rules a value that begins with it; nobody means that */
            return opt_usage(p->cmd,
                             "-%s: a short option takes its value without '='; write -%c %s or --%s=%s",
                             letters, o->letter, letters + 2, o->name, letters + 2);
        if (letters[1])
            return store(p, o, letters + 1);
        if (p->next >= p->argc)
            return opt_usage(p->cmd, "-%c needs a value (%s)", o->letter, o->arg);
        return store(p, o, p->argv[p->next++]);
    }
    return 0;
}

static int check_operands(const struct opt_command *cmd, const struct opt_operands *operands)
{
    if (operands->n < cmd->min_operands)
        return opt_usage(cmd, "expected %s%zu operand%s, found %zu; usage: kerf %s %s",
                         cmd->max_operands > cmd->min_operands ? "at least " : "", cmd->min_operands,
                         cmd->min_operands == 1 ? "" : "s", operands->n, cmd->name, cmd->operands);
    for (size_t i = 0; i < operands->n; i++)
        if (!operands->items[i][0])
            return opt_usage(cmd, "operand %zu is empty; usage: kerf %s %s", i + 1, cmd->name, cmd->operands);
    int status =
        operands->n > cmd->max_operands && cmd->explain_operands ? cmd->explain_operands(cmd, operands) : 0;
    if (status)
        return status;
    if (operands->n > cmd->max_operands)
        return opt_usage(cmd, "unexpected operand '%s'; usage: kerf %s %s",
                         operands->items[cmd->max_operands], cmd->name, cmd->operands);
    return 0;
}

/* Known to this CPU, so that no command has to look. */
static int check_isa(const struct opt_command *cmd, const char *isa)
{
    char known[200] = "";
    size_t n = 0;
    if (!isa || kern_by_name(isa))
        return 0;
    for (const char *const *k = kern_names(); *k && n < sizeof known; k++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", *k);
    return opt_usage(cmd, "--isa %s: unknown, or not supported by this CPU; it has %s", isa, known);
}

static int parse_all(const struct opt_command *cmd, int argc, char **argv, struct shared_options *shared,
                     struct opt_operands *operands)
{
    struct parser p = {.cmd = cmd, .argc = argc, .argv = argv, .next = 1};
    opt_shared_table(p.shared, cmd, shared, &p.help, &p.version);
    bool only_operands = false;
    int n = 0; /* operands move to the front of argv + 1, never past the argument being read */
    while (p.next < argc) {
        char *a = argv[p.next++];
        int status = 0;
        if (only_operands || a[0] != '-' || !a[1])
            argv[1 + n++] = a;
        else if (strcmp(a, "--") == 0)
            only_operands = true;
        else if (a[1] == '-')
            status = parse_long(&p, a + 2);
        else
            status = parse_short(&p, a + 1);
        if (status)
            return status;
        if (p.help)
            opt_print_help(cmd, p.shared);
        if (p.help || p.printed)
            return 0;
        if (p.version) {
            printf("kerf %s\n", KERF_VERSION);
            return 0;
        }
    }
    *operands = (struct opt_operands){argv + 1, (size_t)n};
    outcome_options(shared);
    int status = check_isa(cmd, shared->isa);
    if (status == 0)
        status = check_operands(cmd, operands);
    return status ? status : OPT_CONTINUE;
}

int opt_parse(const struct opt_command *cmd, int argc, char **argv, struct shared_options *shared,
              struct opt_operands *operands)
{
    int status = parse_all(cmd, argc, argv, shared, operands);
    for (size_t i = 0; status != OPT_CONTINUE && i < cmd->n_options; i++)
        if (cmd->options[i].kind == OPT_LIST)
            opt_list_release(cmd->options[i].value);
    return status;
}
