/* opt.h - the one option parser: every command describes its options in a table; parsing, --help with its
 * defaults, the messages for wrong usage, the man page and the completion of shells come from that table.
 *
 * GNU long options (`--type Q4_K_M` or `--type=Q4_K_M`), a few short ones (`-o FILE`, `-oFILE`, `-qv`),
 * options and operands in any order, `--` ends options, `-` alone is an operand. Long names are not
 * abbreviated: a script keeps its meaning when options are added. The last one wins when a scalar is given
 * twice. Of rows with one name the first counts, so a command may redefine what follows, shared options
 * included. */
#ifndef KERF_OPT_H
#define KERF_OPT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum opt_kind {
    OPT_HEADING, /* no option: `help` is a line of --help */
    OPT_FLAG,    /* bool *                                */
    OPT_TEXT,    /* const char **                         */
    OPT_CHOICE,  /* const char **; `arg` lists the words: "fast|feedback|best" */
    OPT_LIST,    /* struct opt_list *, repeatable         */
    OPT_UINT,    /* uint64_t *, decimal                   */
    OPT_SIZE,    /* uint64_t *, bytes: 4GiB, 512MiB, 5GB, 1.5G (= GiB), 1000 */
    OPT_REAL,    /* double *, finite                      */
};

struct opt_list {
    const char **items; /* owns the array; the strings are argv's */
    size_t n;
};
void opt_list_release(struct opt_list *l);

/* What a number may be. A size or a count uses the whole numbers in it. */
struct opt_range {
    double min, max; /* inclusive; max 0: none */
    bool above;      /* `min` itself is outside */
};

/* For a row of an option table. */
#define OPT_RANGE(...) (&(const struct opt_range){__VA_ARGS__})

struct opt {
    const char *name; /* without the dashes */
    char letter;      /* short form, or 0 */
    enum opt_kind kind;
    void *value;                   /* see the kinds; holds the default on entry */
    const char *arg;               /* name of the value in --help; NULL for flags */
    const char *help;              /* one sentence, no full stop; long ones are wrapped */
    const char *fallback;          /* default in words; NULL: print *value when it is not zero */
    const struct opt_range *range; /* of numbers; NULL: whatever the kind can hold */
    bool hidden;                   /* taken, but not listed: a word that old scripts still say */
    bool *given;                   /* set when it stands on the command line; or NULL */
};

/* Rows of a table, in one style:
 *     OPT_GROUP("Types:"),
 *     OPT(TEXT, "output", &o.output, "FILE", "the GGUF file to write", .letter = 'o'),
 *     OPT(FLAG, "pure", &o.pure, NULL, "one type for all matrices"),
 *     OPT(UINT, "ctx", &o.ctx, "N", "tokens per window", .range = OPT_RANGE(.min = 2)), */
#define OPT(kind_, name_, value_, arg_, help_, ...)                                                          \
    {                                                                                                        \
        .kind = OPT_##kind_, .name = (name_), .value = (value_), .arg = (arg_), .help = (help_), __VA_ARGS__ \
    }
#define OPT_GROUP(title)                                                                                     \
    {                                                                                                        \
        .kind = OPT_HEADING, .help = (title)                                                                 \
    }

/* Options that several commands share. Every command takes --json, --quiet, --verbose, --strict, --help and
 * --version; these only where they mean something: */
enum opt_use {
    USES_THREADS = 1, /* --threads               */
    USES_MEMORY = 2,  /* --memory                */
    USES_ISA = 4,     /* --isa                   */
    USES_FORCE = 8,   /* --force: writes a file  */
    USES_DRY_RUN = 16,
    USES_NOTHING = 0,
    USES_ALL = 31,
};

struct shared_options {
    uint64_t threads;      /* 0: all cores */
    uint64_t memory_bytes; /* bound on working memory */
    bool json, quiet, verbose, strict, force, dry_run;
    const char *isa;      /* NULL: native */
    const char *progress; /* NULL: auto */
};
#define SHARED_OPTIONS_INIT                                                                                  \
    {                                                                                                        \
        .memory_bytes = (uint64_t)1 << 30                                                                    \
    }

struct opt_operands {
    char **items; /* in argv, in their order */
    size_t n;
};

struct opt_command {
    const char *name;        /* "convert"; sub-commands as "imatrix merge" */
    const char *operands;    /* for the usage line: "MODEL -o OUT.gguf" */
    const char *description; /* paragraph(s) of --help */
    const struct opt *options;
    size_t n_options;
    size_t min_operands, max_operands; /* max SIZE_MAX: any number */
    unsigned uses;                     /* of enum opt_use */
    const char *examples;              /* command lines, one a line; NULL: none */
    /* With more operands than there may be: explains the form of another tool that they have, and returns the
     * exit status; 0: they have none. NULL: nothing to explain. */
    int (*explain_operands)(const struct opt_command *cmd, const struct opt_operands *operands);
};

/* The table of a command's options, and its length, in a struct opt_command. */
#define OPT_TABLE(table) .options = (table), .n_options = sizeof(table) / sizeof *(table)

#define OPT_CONTINUE (-1)

/* Parse argv[1..argc). OPT_CONTINUE, or the exit status when the command is finished: 0 after --help and
 * --version, 2 after a usage error (already explained on stderr); lists are released then. */
int opt_parse(const struct opt_command *cmd, int argc, char **argv, struct shared_options *shared,
              struct opt_operands *operands);

/* Explain wrong usage on stderr, and in JSON when that was asked for. */
void opt_vusage(const struct opt_command *cmd, const char *fmt, va_list ap);

/* Size text to bytes; false when malformed, negative, beyond 2^63, or a fraction without a unit. */
bool opt_parse_size(const char *text, uint64_t *out);
bool opt_parse_uint(const char *text, uint64_t *out);
bool opt_parse_real(const char *text, double *out);

/* The candidate closest to `word` by edit distance, or NULL when none is near. */
const char *opt_nearest(const char *word, const char *const *candidates, size_t n);

/* Print `text` from column `column`, wrapped at spaces to 80 columns; `at`: how much of the line stands. */
void opt_print_wrapped(FILE *out, const char *text, size_t at, size_t column);

#endif
