/* task_jsonl.c - tasks as JSON lines: a record's style is told by its fields. See task.h.
 *
 * The prompts are those that lm-evaluation-harness 0.4 makes of the data sets:
 *
 *     HellaSwag    "LABEL: CTX_A Ctx_b" without marks in brackets        " ENDING"
 *     WinoGrande   the sentence up to _, with the option in its place   " rest of the sentence"
 *     ARC, PIQA    "Question: QUESTION\nAnswer:"                         " CHOICE"
 *     MMLU         subject, question and lettered choices, "Answer:"    " A", " B", ...
 *     plain        "context" (or "prompt", "messages")                  delimiter "choices"
 *     short answer the same, or "Question: ...\nAnswer:"                 delimiter "answer" until
 *     text         nothing                                              "text"
 */
#include "task.h"

#include "formats/json.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHOICES 100

struct record {
    struct task_reader *r;
    struct task_record *x;
    const struct json *j;
    struct arena *arena;
    bool *no_memory; /* for a field: set, and the field counts as absent */
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the record");
}

/* A copy that outlives the document; NULL when the field is no string. */
static const char *text_of(const struct record *r, const char *field)
{
    const char *s = json_string(json_get(r->j, field));
    const char *copy = s ? arena_strdup(r->arena, s) : NULL;
    *r->no_memory |= s && !copy;
    return copy;
}

static int need_text(const char **out, const struct record *r, const char *field, struct err *e)
{
    *out = text_of(r, field);
    if (*out)
        return 0;
    return json_string(json_get(r->j, field))
               ? no_memory(e)
               : err_set(e, ERR_FORMAT, "expected the field '%s', a string", field);
}

/* Without white space at either end, in place. */
static const char *stripped(char *s)
{
    size_t n = strlen(s);
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        s[--n] = 0;
    return s + strspn(s, " \t\n\v\f\r");
}

static int choice(const struct record *r, size_t i, const char *context, const char *delimiter,
                  const char *text, const char *until, struct err *e)
{
    struct task_choice *c = &r->x->choices[i];
    c->context = context;
    c->counted = arena_strdup(r->arena, text);
    c->text = arena_printf(r->arena, "%s%s%s", delimiter, text, until);
    c->n_delimiter = strlen(delimiter);
    if (!c->counted || !c->text)
        return no_memory(e);
    return c->text[0] ? 0 : err_set(e, ERR_FORMAT, "choice %zu is empty", i);
}

/* The strings of a list become choices behind `context`. */
static int choices_of(const struct record *r, const struct json *list, const char *context,
                      const char *delimiter, const char *until, struct err *e)
{
    size_t n = json_n_children(list), i = 0;
    if (n == 0 || n > MAX_CHOICES)
        return err_set(e, ERR_FORMAT, "%zu choices; expected 1 to %d", n, MAX_CHOICES);
    int rc = task_choices(r->x, r->r, n, e);
    for (const struct json *c = json_first(list); rc == 0 && c; c = json_next(c), i++)
        rc = json_string(c) ? choice(r, i, context, delimiter, json_string(c), until, e)
                            : err_set(e, ERR_FORMAT, "choice %zu is not a string", i);
    return rc;
}

/* The number that a letter or a number stands for, from 0 on; -1: neither. */
static int64_t number_of(const struct json *j, int64_t base)
{
    const char *s = json_string(j);
    int64_t n = -1;
    if (s && s[0] >= 'A' && s[0] <= 'Z' && !s[1])
        return s[0] - 'A';
    if (s && s[0] >= '0' && s[0] <= '9' && strlen(s) <= 3 && s[strspn(s, "0123456789")] == 0)
        return atoi(s) - base;
    return !s && json_int(j, &n) && n >= base ? n - base : -1;
}

/* Which choice is right: its number from `base` on, its letter, or its text. */
static int right_one(const struct record *r, const char *field, int64_t base, struct err *e)
{
    const char *s = json_string(json_get(r->j, field));
    int64_t n = number_of(json_get(r->j, field), base);
    size_t n_choices = r->x->n_choices, i = 0;
    while (i < n_choices && !(s && strcmp(s, r->x->choices[i].counted) == 0))
        i++;
    bool in_range = n >= 0 && (uint64_t)n < n_choices;
    if (i < n_choices && in_range && (uint64_t)n != i)
        return err_set(e, ERR_FORMAT,
                       "'%s' is \"%.40s\", the text of choice %zu and the name of choice %" PRId64
                       "; give a number, which can mean only one",
                       field, s, i, n);
    if (i < n_choices)
        n = (int64_t)i;
    else if (!in_range)
        return err_set(
            e, ERR_FORMAT,
            "'%s' names none of the %zu choices: expected a number from %d on, a letter or the text "
            "of one",
            field, n_choices, (int)base);
    r->x->right = (size_t)n;
    return 0;
}

/* --- styles --- */

/* What lm-evaluation-harness makes of the texts of HellaSwag: " [title]" becomes ". ", other marks in
 * brackets go, two spaces become one. */
static const char *without_marks(const struct record *r, const char *text)
{
    char *s = arena_strdup(r->arena, text), *out = s ? arena_alloc(r->arena, 2 * strlen(s) + 1) : NULL;
    if (!out)
        return NULL;
    const char *in = stripped(s);
    size_t n = 0;
    while (*in) {
        const char *mark = *in == '[' ? strchr(in, ']') : NULL, *line = strchr(in, '\n');
        if (strncmp(in, " [title]", 8) == 0) {
            out[n++] = '.';
            out[n++] = ' ';
            in += 8;
        } else if (mark && !(line && line < mark)) {
            in = mark + 1;
        } else {
            out[n++] = *in++;
        }
    }
    out[n] = 0;
    size_t from = 0, to = 0;
    while (from < n) {
        bool two = out[from] == ' ' && out[from + 1] == ' ';
        out[to++] = out[from];
        from += two ? 2 : 1;
    }
    out[to] = 0;
    return out;
}

static int hellaswag_context(const char **out, const struct record *r, struct err *e)
{
    const char *label = text_of(r, "activity_label"), *a = text_of(r, "ctx_a"), *ctx = text_of(r, "ctx");
    char *b = (char *)text_of(r, "ctx_b"), *whole = NULL;
    for (size_t i = 0; b && b[i]; i++)
        b[i] = (char)(i ? tolower((unsigned char)b[i]) : toupper((unsigned char)b[i]));
    if (a && b)
        whole = arena_printf(r->arena, "%s%s%s %s", label ? label : "", label ? ": " : "", a, b);
    else if (ctx)
        whole = arena_printf(r->arena, "%s%s%s", label ? label : "", label ? ": " : "", ctx);
    else
        return err_set(e, ERR_FORMAT, "expected the strings 'ctx_a' and 'ctx_b', or 'ctx'");
    *out = whole ? without_marks(r, whole) : NULL;
    return *out ? 0 : no_memory(e);
}

static int read_hellaswag(struct record *r, struct err *e)
{
    const char *context = NULL;
    int rc = hellaswag_context(&context, r, e);
    if (rc == 0)
        rc = choices_of(r, json_get(r->j, "endings"), context, " ", "", e);
    for (size_t i = 0; rc == 0 && i < r->x->n_choices; i++) {
        struct task_choice *c = &r->x->choices[i];
        c->counted = without_marks(r, c->counted);
        c->text = c->counted ? arena_printf(r->arena, " %s", c->counted) : NULL;
        c->n_delimiter = 1;
        rc = c->text ? 0 : no_memory(e);
    }
    r->x->style = TASK_HELLASWAG;
    return rc == 0 ? right_one(r, "label", 0, e) : rc;
}

static int read_winogrande(struct record *r, struct err *e)
{
    const char *sentence = NULL, *option[2] = {NULL, NULL};
    int rc = need_text(&sentence, r, "sentence", e);
    if (rc == 0)
        rc = need_text(&option[0], r, "option1", e);
    if (rc == 0)
        rc = need_text(&option[1], r, "option2", e);
    char *blank = rc == 0 ? strchr((char *)sentence, '_') : NULL;
    if (rc == 0 && !blank)
        return err_set(e, ERR_FORMAT, "the sentence has no _ for the option");
    if (rc != 0)
        return rc;
    *blank = 0;
    const char *rest = stripped(blank + 1);
    rc = rest[0] ? task_choices(r->x, r->r, 2, e)
                 : err_set(e, ERR_FORMAT, "nothing follows the _ that could be scored");
    for (size_t i = 0; rc == 0 && i < 2; i++) {
        const char *context = arena_printf(r->arena, "%s%s", sentence, option[i]);
        rc = context ? choice(r, i, context, " ", rest, "", e) : no_memory(e);
    }
    r->x->style = TASK_WINOGRANDE;
    /* The choices are alike, so a text would name the first of them. */
    const char *answer = json_string(json_get(r->j, "answer"));
    for (size_t i = 0; rc == 0 && i < 2; i++)
        if (answer && strcmp(answer, option[i]) == 0) {
            r->x->right = i;
            return 0;
        }
    return rc == 0 ? right_one(r, "answer", 1, e) : rc;
}

static const char *question_prompt(const struct record *r, const char *question)
{
    const char *prompt = arena_printf(r->arena, "Question: %s\nAnswer:", question);
    *r->no_memory |= !prompt;
    return prompt;
}

static int read_arc(struct record *r, struct err *e)
{
    const struct json *choices = json_get(r->j, "choices"), *labels = json_get(choices, "label");
    const char *question = NULL, *key = json_string(json_get(r->j, "answerKey"));
    int rc = need_text(&question, r, "question", e);
    const char *context = rc == 0 ? question_prompt(r, question) : NULL;
    if (rc == 0 && !context)
        rc = no_memory(e);
    if (rc == 0)
        rc = choices_of(r, json_get(choices, "text"), context, " ", "", e);
    r->x->style = TASK_ARC;
    size_t i = 0;
    for (const struct json *l = json_first(labels); rc == 0 && l && i < r->x->n_choices;
         l = json_next(l), i++)
        if (key && json_string(l) && strcmp(json_string(l), key) == 0) {
            r->x->right = i;
            return 0;
        }
    return rc == 0 ? err_set(e, ERR_FORMAT, "'answerKey' is none of the labels of the choices") : rc;
}

/* Subject, question and choices with their letters. */
static const char *mmlu_prompt(const struct record *r, const struct json *choices, struct err *e)
{
    char *question = (char *)text_of(r, "question"), *subject = (char *)text_of(r, "subject");
    char *text = question ? arena_printf(r->arena, "%s", stripped(question)) : NULL;
    size_t i = 0;
    for (char *s = subject; s && *s; s++)
        *s = *s == '_' ? ' ' : *s;
    if (text && subject)
        text = arena_printf(r->arena,
                            "The following are multiple choice questions (with answers) about %s.\n\n%s",
                            subject, text);
    for (const struct json *c = json_first(choices); text && c; c = json_next(c), i++)
        text = arena_printf(r->arena, "%s\n%c. %s", text, (int)('A' + i), json_string(c));
    text = text ? arena_printf(r->arena, "%s\nAnswer:", text) : NULL;
    if (!text)
        no_memory(e);
    return text;
}

static int read_mmlu(struct record *r, struct err *e)
{
    const struct json *choices = json_get(r->j, "choices");
    const char *question = NULL;
    size_t n = json_n_children(choices), i = 0;
    int rc = need_text(&question, r, "question", e);
    if (rc == 0 && (n < 2 || n > 26))
        rc = err_set(e, ERR_FORMAT, "%zu choices; expected 2 to 26", n);
    if (rc == 0) /* whose texts may be what 'answer' names */
        rc = choices_of(r, choices, "", "", "", e);
    if (rc == 0)
        rc = right_one(r, "answer", 0, e);
    const char *context = rc == 0 ? mmlu_prompt(r, choices, e) : NULL;
    if (rc == 0 && !context)
        return ERR_NOMEM;
    for (; rc == 0 && i < n; i++)
        rc = choice(r, i, context, " ", (const char[]){(char)('A' + i), 0}, "", e);
    r->x->style = TASK_MMLU;
    return rc;
}

static int read_piqa(struct record *r, struct err *e)
{
    const char *goal = NULL, *sol[2] = {NULL, NULL};
    int rc = need_text(&goal, r, "goal", e);
    if (rc == 0)
        rc = need_text(&sol[0], r, "sol1", e);
    if (rc == 0)
        rc = need_text(&sol[1], r, "sol2", e);
    const char *context = rc == 0 ? question_prompt(r, goal) : NULL;
    if (rc == 0)
        rc = context ? task_choices(r->x, r->r, 2, e) : no_memory(e);
    for (size_t i = 0; rc == 0 && i < 2; i++)
        rc = choice(r, i, context, " ", sol[i], "", e);
    r->x->style = TASK_PIQA;
    return rc == 0 ? right_one(r, "label", 0, e) : rc;
}

static int read_messages(const struct record *r, const struct json *list, struct err *e)
{
    size_t n = json_n_children(list), i = 0;
    struct chat_message *m = arena_array(r->arena, n + 1, sizeof *m);
    if (!m)
        return no_memory(e);
    for (const struct json *j = json_first(list); j; j = json_next(j), i++) {
        const char *role = json_string(json_get(j, "role")), *content = json_string(json_get(j, "content"));
        if (!role || !content)
            return err_set(e, ERR_FORMAT,
                           "message %zu: expected an object with the strings 'role' and 'content'", i);
        m[i] = (struct chat_message){arena_strdup(r->arena, role), arena_strdup(r->arena, content)};
        if (!m[i].role || !m[i].content)
            return no_memory(e);
    }
    r->x->messages = m;
    r->x->n_messages = n;
    return n ? 0 : err_set(e, ERR_FORMAT, "'messages' is empty");
}

/* What stands before the choices of a plain record, and what goes between: a space, unless the record says
 * otherwise, the context has one, or there is none. */
static int plain_context(const char **context, const char **delimiter, const struct record *r, struct err *e)
{
    const struct json *messages = json_get(r->j, "messages");
    const char *own = text_of(r, "delimiter");
    const char *text = text_of(r, "context");
    if (!text)
        text = text_of(r, "prompt");
    if (!text && !messages && json_string(json_get(r->j, "question"))) {
        const char *question = text_of(r, "question");
        text = question ? question_prompt(r, question) : NULL;
    }
    size_t n = text ? strlen(text) : 0;
    *context = text ? text : "";
    *delimiter = own ? own : n == 0 || isspace((unsigned char)text[n - 1]) ? "" : " ";
    if (messages)
        return json_is_array(messages) ? read_messages(r, messages, e)
                                       : err_set(e, ERR_FORMAT, "'messages' is not a list");
    return text ? 0
                : err_set(e, ERR_FORMAT, "expected one of the strings 'context' and 'prompt', or 'messages'");
}

static int read_plain(struct record *r, struct err *e)
{
    const char *context = NULL, *delimiter = NULL;
    int rc = plain_context(&context, &delimiter, r, e);
    if (rc == 0)
        rc = choices_of(r, json_get(r->j, "choices"), context, delimiter, "", e);
    return rc == 0 ? right_one(r, "answer", 0, e) : rc;
}

static int read_answer(struct record *r, struct err *e)
{
    const struct json *answer = json_get(r->j, "answer");
    const char *context = NULL, *delimiter = NULL, *until = text_of(r, "until");
    int rc = plain_context(&context, &delimiter, r, e);
    r->x->kind = TASK_ANSWER;
    if (rc == 0 && json_is_array(answer))
        return choices_of(r, answer, context, delimiter, until ? until : "", e);
    if (rc == 0 && !json_string(answer))
        rc = err_set(e, ERR_FORMAT, "'answer' without choices: expected a string, or a list of them");
    if (rc == 0)
        rc = task_choices(r->x, r->r, 1, e);
    return rc == 0 ? choice(r, 0, context, delimiter, json_string(answer), until ? until : "", e) : rc;
}

static int read_text(struct record *r, struct err *e)
{
    const char *text = NULL;
    r->x->kind = TASK_TEXT;
    int rc = need_text(&text, r, "text", e);
    if (rc == 0)
        rc = task_choices(r->x, r->r, 1, e);
    return rc == 0 ? choice(r, 0, "", "", text, "", e) : rc;
}

/* --- which style --- */

struct style {
    const char *fields[3]; /* that a record of it has; the first style that fits counts */
    int (*read)(struct record *r, struct err *e);
};

static const struct style styles[] = {
    {{"sentence", "option1", "option2"}, read_winogrande},
    {{"endings", "label", NULL}, read_hellaswag},
    {{"goal", "sol1", "sol2"}, read_piqa},
    {{"question", "choices", "answerKey"}, read_arc},
    {{"question", "choices", "answer"}, read_mmlu},
    {{"choices", "answer", NULL}, read_plain},
    {{"answer", NULL, NULL}, read_answer},
    {{"text", NULL, NULL}, read_text},
};

static bool fits(const struct style *s, const struct json *j)
{
    for (size_t i = 0; i < 3; i++)
        if (s->fields[i] && !json_get(j, s->fields[i]))
            return false;
    return true;
}

static int read_record(struct record *r, struct err *e)
{
    for (size_t i = 0; i < sizeof styles / sizeof *styles; i++)
        if (fits(&styles[i], r->j))
            return styles[i].read(r, e);
    return err_set(
        e, ERR_FORMAT,
        "a record of no known style; expected the fields of HellaSwag, WinoGrande, ARC, MMLU or PIQA, "
        "or 'context', 'choices' and 'answer', or 'context' and 'answer', or 'text'");
}

static int read_line(struct task_reader *r, const char *line, size_t len, size_t place, bool *full,
                     struct err *e)
{
    struct json_doc *doc = NULL;
    struct task_record *x = NULL;
    const char *path = r->task->path;
    char what[32];
    snprintf(what, sizeof what, "line %zu", place);
    int rc = json_parse(&doc, line, len, what, e);
    if (rc != 0)
        return err_context(e, rc, "%s", path);
    rc = task_add(&x, r, e);
    *full = rc == 0 && !x;
    if (rc == 0 && x) {
        bool starved = false;
        struct record record = {r, x, json_root(doc), &r->task->arena, &starved};
        x->place = place;
        rc = read_record(&record, e);
        if (starved) /* whatever was made of the record without that field */
            rc = no_memory(e);
        if (rc != 0)
            err_context(e, rc, "%s: %s", path, what);
    }
    json_free(doc);
    return rc;
}

int task_read_jsonl(struct task_reader *r, const char *text, size_t len, struct err *e)
{
    int rc = 0;
    bool full = false;
    size_t place = 0;
    for (size_t at = 0, n; rc == 0 && !full && at < len; at += n + 1) {
        const char *end = memchr(text + at, '\n', len - at);
        n = end ? (size_t)(end - text) - at : len - at;
        place++;
        size_t blank = strspn(text + at, " \t\r");
        if (blank < n)
            rc = read_line(r, text + at, n, place, &full, e);
    }
    return rc;
}
