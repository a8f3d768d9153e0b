/* recipe_file.c - read a trial recipe (recipe_file.h): one word, one value a line.
 *
 * Text from outside: its size and its rules are bounded, and every complaint names the file and the line. */
#include "recipe_file.h"

#include "pattern.h"

#include "formats/foreign.h"
#include "libquant/base/filemap.h"
#include "libquant/base/path.h"
#include "libquant/base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RECIPE_BYTES_MAX = 1 << 20,
    RECIPE_RULES_MAX = 10000,
};

struct reading {
    struct recipe_file *f;
    const char *folder; /* of the recipe */
    unsigned seen;      /* bit i: words[i] */
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for a recipe");
}

static int take_mix(struct reading *r, const char *value, struct err *e)
{
    r->f->options.mix = mix_find(value);
    return r->f->options.mix ? 0
                             : err_set(e, ERR_FORMAT, "'%s' is not a type or mix (such as Q4_K_M)", value);
}

static int read_type(enum qtype *out, const char *value, struct err *e)
{
    const struct qtype_info *info = qtype_from_name(value, out) ? qtype_info((uint32_t)*out) : NULL;
    if (info && info->can_encode && info->in_files)
        return 0;
    return err_set(e, ERR_FORMAT, "'%s' is not a tensor type that can be written (such as Q4_K or BF16)",
                   value);
}

static int take_output_type(struct reading *r, const char *value, struct err *e)
{
    r->f->options.has_output_type = true;
    return read_type(&r->f->options.output_type, value, e);
}

static int take_embedding_type(struct reading *r, const char *value, struct err *e)
{
    r->f->options.has_embedding_type = true;
    return read_type(&r->f->options.embedding_type, value, e);
}

static int grow_rules(struct recipe_file *f, struct err *e)
{
    size_t n = f->options.n_overrides;
    if (n == RECIPE_RULES_MAX)
        return err_set(e, ERR_FORMAT, "more than %d rules", RECIPE_RULES_MAX);
    if ((n & (n - 1)) != 0) /* room doubles at powers of two */
        return 0;
    size_t cap = n ? 2 * n : 1;
    struct recipe_override *rules = realloc(f->overrides, cap * sizeof *rules);
    if (rules)
        f->overrides = rules;
    char **patterns = rules ? realloc(f->patterns, cap * sizeof *patterns) : NULL;
    if (!patterns)
        return no_memory(e);
    f->patterns = patterns;
    f->options.overrides = f->overrides;
    return 0;
}

/* "REGEX=TYPE": the last '=' divides, since an expression may hold one. */
static int take_rule(struct reading *r, const char *value, struct err *e)
{
    struct recipe_file *f = r->f;
    struct pattern *compiled = NULL;
    const char *eq = strrchr(value, '=');
    enum qtype type = QTYPE_F32;
    if (!eq || eq == value)
        return err_set(e, ERR_FORMAT, "expected REGEX=TYPE, found '%s'", value);
    int rc = read_type(&type, eq + 1, e);
    if (rc == 0)
        rc = pattern_new(&compiled, value, (size_t)(eq - value), false, e);
    pattern_free(compiled);
    if (rc == 0)
        rc = grow_rules(f, e);
    if (rc != 0)
        return rc == ERR_ARG ? ERR_FORMAT : rc;
    char *pattern = strndup(value, (size_t)(eq - value));
    if (!pattern)
        return no_memory(e);
    f->patterns[f->options.n_overrides] = pattern;
    f->overrides[f->options.n_overrides++] = (struct recipe_override){pattern, type};
    return 0;
}

/* A path of the file, from the folder of the recipe. */
static int take_path(char **out, const struct reading *r, const char *value, struct err *e)
{
    size_t n = strlen(r->folder) + strlen(value) + 2;
    bool absolute = value[0] == '/' || strcmp(r->folder, ".") == 0;
    char *path = absolute ? strdup(value) : malloc(n);
    if (!path)
        return no_memory(e);
    if (!absolute)
        snprintf(path, n, "%s/%s", r->folder, value);
    *out = path;
    return 0;
}

static int take_plan(struct reading *r, const char *value, struct err *e)
{
    struct recipe_file *f = r->f;
    int rc = take_path(&f->plan_path, r, value, e);
    if (rc == 0)
        rc = plan_load(&f->plan, f->plan_path, e);
    f->options.plan = f->plan;
    return rc;
}

static int take_imatrix(struct reading *r, const char *value, struct err *e)
{
    r->f->no_imatrix = strcmp(value, "none") == 0;
    return r->f->no_imatrix ? 0 : take_path(&r->f->imatrix, r, value, e);
}

static int take_pure(struct reading *r, const char *value, struct err *e)
{
    (void)value, (void)e;
    r->f->options.pure = true;
    return 0;
}

static int take_leave_output(struct reading *r, const char *value, struct err *e)
{
    (void)value, (void)e;
    r->f->options.leave_output = true;
    return 0;
}

static const struct recipe_word {
    const char *word;
    bool alone; /* takes no value */
    bool often; /* may come again */
    int (*take)(struct reading *r, const char *value, struct err *e);
} words[] = {
    {"type", false, false, take_mix},
    {"tensor-type", false, true, take_rule},
    {"output-type", false, false, take_output_type},
    {"embedding-type", false, false, take_embedding_type},
    {"plan", false, false, take_plan},
    {"imatrix", false, false, take_imatrix},
    {"pure", true, false, take_pure},
    {"leave-output", true, false, take_leave_output},
};

static int unknown_word(const char *word, struct err *e)
{
    return err_set(e, ERR_FORMAT,
                   "'%.60s' is not a word of a recipe; there are: type, tensor-type, output-type, "
                   "embedding-type, plan, imatrix, pure, leave-output",
                   word);
}

/* End `line` where a comment begins or only blanks follow. */
static void cut_comment(char *line)
{
    for (char *p = line; *p; p++)
        if (*p == '#' && (p == line || p[-1] == ' ' || p[-1] == '\t'))
            *p = 0;
    size_t n = strlen(line);
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t' || line[n - 1] == '\r'))
        line[--n] = 0;
}

static int read_line(struct reading *r, char *line, struct err *e)
{
    cut_comment(line);
    for (const char *p = line; *p; p++)
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 127)
            return err_set(e, ERR_FORMAT, "control character 0x%02x", (unsigned)(unsigned char)*p);
    char *word = line + strspn(line, " \t"), *value = word + strcspn(word, " \t");
    if (!*word)
        return 0;
    if (*value)
        *value++ = 0;
    value += strspn(value, " \t");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(word, words[i].word) != 0)
            continue;
        if (words[i].alone != !*value)
            return err_set(e, ERR_FORMAT, words[i].alone ? "'%s' takes no value" : "'%s' needs a value",
                           word);
        if (!words[i].often && r->seen & 1u << i)
            return err_set(e, ERR_FORMAT, "a second '%s'; a recipe says it once", word);
        r->seen |= 1u << i;
        return words[i].take(r, value, e);
    }
    return unknown_word(word, e);
}

/* "# kerf recipe N" as the first line: only 1 is known. */
static int check_version(const char *text, struct err *e)
{
    static const char head[] = "# kerf recipe ";
    const char *n = text + sizeof head - 1;
    if (strncmp(text, head, sizeof head - 1) != 0 || (n[0] == '1' && strchr("\r\n", n[1])))
        return 0;
    size_t len = strcspn(n, "\r\n");
    return err_set(e, ERR_UNSUPPORTED, "recipe version '%.*s', expected 1", (int)(len < 16 ? len : 16), n);
}

static int read_lines(struct reading *r, char *text, const char *path, struct err *e)
{
    size_t number = 1;
    int rc = check_version(text, e);
    for (char *line = text, *next; rc == 0 && line; line = next, number += rc == 0) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        rc = read_line(r, line, e);
    }
    return rc == 0 ? 0 : err_context(e, rc, "%s: line %zu", path, number);
}

static bool decides_nothing(const struct recipe_options *o)
{
    return !o->mix && !o->plan && o->n_overrides == 0 && !o->has_output_type && !o->has_embedding_type;
}

int recipe_file_parse(struct recipe_file *out, const char *text, size_t len, const char *path, struct err *e)
{
    struct recipe_file f = {0};
    int rc = foreign_refuse(path, text, len, FOREIGN_GGUF, "a recipe", e);
    if (rc != 0)
        return rc;
    if (len > RECIPE_BYTES_MAX || memchr(text, 0, len))
        return err_set(e, ERR_FORMAT, "%s: is not a recipe: expected at most %d bytes of text", path,
                       RECIPE_BYTES_MAX);
    char *copy = strndup(text, len), *folder = path_folder(path);
    rc = copy && folder ? 0 : no_memory(e);
    struct reading r = {.f = &f, .folder = folder};
    if (rc == 0)
        rc = read_lines(&r, copy, path, e);
    if (rc == 0 && decides_nothing(&f.options))
        rc = err_set(e, ERR_FORMAT, "%s: the recipe names no type; give it a line such as 'type Q4_K_M'",
                     path);
    free(copy);
    free(folder);
    if (rc != 0) {
        recipe_file_release(&f);
        return rc;
    }
    *out = f;
    return 0;
}

int recipe_file_load(struct recipe_file *out, const char *path, struct err *e)
{
    struct filemap map = {0};
    int rc = filemap_open(&map, path, e);
    if (rc != 0)
        return rc;
    rc = recipe_file_parse(out, map.size ? (const char *)map.data : "", map.size, path, e);
    filemap_close(&map);
    return rc;
}

void recipe_file_release(struct recipe_file *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->options.n_overrides; i++)
        free(f->patterns[i]);
    free(f->patterns);
    free(f->overrides);
    plan_free(f->plan);
    free(f->plan_path);
    free(f->imatrix);
    *f = (struct recipe_file){0};
}

static void hash_word(struct sha256 *s, const char *word, const char *value)
{
    sha256_update(s, word, strlen(word));
    sha256_update(s, " ", 1);
    sha256_update(s, value, strlen(value));
    sha256_update(s, "\n", 1);
}

void recipe_file_hash(const struct recipe_file *f, char out[65])
{
    const struct recipe_options *o = &f->options;
    struct sha256 s;
    char hash[65] = "none";
    sha256_init(&s);
    hash_word(&s, "type", o->mix ? o->mix->name : "none");
    hash_word(&s, "pure", o->pure ? "yes" : "no");
    hash_word(&s, "leave-output", o->leave_output ? "yes" : "no");
    hash_word(&s, "output-type", o->has_output_type ? qtype_name((uint32_t)o->output_type) : "none");
    hash_word(&s, "embedding-type", o->has_embedding_type ? qtype_name((uint32_t)o->embedding_type) : "none");
    for (size_t i = 0; i < o->n_overrides; i++)
        hash_word(&s, o->overrides[i].pattern, qtype_name((uint32_t)o->overrides[i].type));
    if (f->plan)
        plan_hash(f->plan, hash);
    hash_word(&s, "plan", hash);
    sha256_final_hex(&s, out);
}
