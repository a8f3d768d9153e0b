/* chat.c - see chat.h.
 *
 * Reading a template: its tags are brought to one form (no spaces outside of strings, single quotes,
 * message['x'] as message.x), strings are collected, and the few expressions that matter are looked for in
 * that form. The rules that follow from them were checked against HuggingFace's rendering of the templates of
 * Qwen2 to Qwen3.5. */
#include "chat.h"

#include "char_class.h"
#include "codepoint.h"
#include "formats/utf8.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum dialect {
    CHAT_PLAIN,  /* contents as they are */
    CHAT_QWEN3,  /* reasoning kept after the last question only */
    CHAT_QWEN35, /* the same, all contents trimmed */
};

struct chat_template {
    enum dialect dialect;
    char *default_system; /* NULL: none */
    char *answer;         /* what opens an answer */
    bool system_first;    /* a later system message is an error */
    bool needs_question;  /* a list without one is an error */
};

/* --- growing text
 * -------------------------------------------------------------------------------------------- */

struct text {
    char *data;
    size_t n, cap;
    bool failed;
};

static void put(struct text *t, const char *s, size_t n)
{
    if (t->failed)
        return;
    if (t->cap - t->n <= n) {
        size_t cap = t->cap + t->cap / 2 + n + 64;
        char *grown = realloc(t->data, cap);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->data = grown;
        t->cap = cap;
    }
    memcpy(t->data + t->n, s, n);
    t->n += n;
    t->data[t->n] = 0;
}

static void puts_text(struct text *t, const char *s)
{
    put(t, s, strlen(s));
}

/* --- reading the template
 * ------------------------------------------------------------------------------------ */

enum { MAX_LITERALS = 1024 };

struct checkpoint_weight {
    struct text tags;     /* all tags, in one form; their strings as '...' with \n for line ends */
    struct text literals; /* the decoded strings, each with its NUL */
    size_t start[MAX_LITERALS], at[MAX_LITERALS]; /* of each: in `literals`, and its place in `tags` */
    size_t n_literals;
    bool raw_text; /* something other than white space stands outside of tags */
};

static bool blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The string that opens at `p`; returns where it ends (behind the quote), NULL when it does not. */
static const char *read_literal(struct checkpoint_weight *s, const char *p)
{
    char quote = *p++;
    if (s->n_literals == MAX_LITERALS)
        return NULL;
    s->start[s->n_literals] = s->literals.n;
    s->at[s->n_literals++] = s->tags.n;
    puts_text(&s->tags, "'");
    for (; *p && *p != quote; p++) {
        char c = *p;
        if (c == '\\' && p[1]) {
            p++;
            c = *p == 'n' ? '\n' : *p == 't' ? '\t' : *p == 'r' ? '\r' : *p;
        }
        put(&s->literals, &c, 1);
        if (c == '\n')
            puts_text(&s->tags, "\\n");
        else
            put(&s->tags, &c, 1);
    }
    put(&s->literals, "", 1);
    puts_text(&s->tags, "'");
    return *p == quote ? p + 1 : NULL;
}

/* The rest of a tag whose opening was read, up to its closing brace. */
static const char *read_tag(struct checkpoint_weight *s, const char *p, char close)
{
    while (*p && !(p[0] == close && p[1] == '}')) {
        if (*p == '\'' || *p == '"') {
            if (!(p = read_literal(s, p)))
                return NULL;
        } else {
            if (!blank(*p))
                put(&s->tags, p, 1);
            p++;
        }
    }
    return *p ? p + 2 : NULL;
}

static int read_source(struct checkpoint_weight *s, const char *p, struct err *e)
{
    while (p && *p) {
        if (p[0] == '{' && (p[1] == '{' || p[1] == '%')) {
            put(&s->tags, p, 2);
            p = read_tag(s, p + 2, p[1] == '{' ? '}' : '%');
            puts_text(&s->tags, "}");
        } else if (p[0] == '{' && p[1] == '#') {
            p = strstr(p, "#}");
            p = p ? p + 2 : NULL;
        } else {
            s->raw_text |= !blank(*p);
            p++;
        }
    }
    if (s->tags.failed || s->literals.failed)
        return err_set(e, ERR_NOMEM, "out of memory for the chat template");
    if (!p || !s->tags.data)
        return err_set(e, ERR_UNSUPPORTED, "the chat template is not Jinja text with tags that close");
    return 0;
}

/* message['role'] and the like become message.role, in place. */
static void use_dots(struct checkpoint_weight *s)
{
    static const char *const names[] = {"role", "content"};
    for (size_t i = 0; i < 2; i++) {
        char index[32];
        size_t n = strlen(names[i]);
        strcat(strcat(strcpy(index, "['"), names[i]), "']");
        for (char *p = s->tags.data; (p = strstr(p, index)) != NULL;) {
            *p = '.';
            memmove(p + 1, names[i], n);
            memset(p + 1 + n, ' ', 3); /* keeps the places of the strings; see `squeezed` */
            p += n + 4;
        }
    }
}

/* `tags` without the spaces that use_dots left; spaces inside strings go too, so it serves for expressions
 * only. */
static char *squeezed(const struct checkpoint_weight *s)
{
    char *out = malloc(s->tags.n + 1), *k = out;
    if (!out)
        return NULL;
    for (const char *p = s->tags.data; *p; p++)
        if (*p != ' ')
            *k++ = *p;
    *k = 0;
    return out;
}

static char *copy_range(const char *s, size_t n)
{
    char *out = malloc(n + 1);
    if (out) {
        memcpy(out, s, n);
        out[n] = 0;
    }
    return out;
}

static const char OPEN_SYSTEM[] = "<|im_start|>system\n", CLOSE[] = "<|im_end|>\n";
static const char OPEN_ANSWER[] = "<|im_start|>assistant\n", THINK[] = "<think>\n";

/* A string that is a whole system turn is the default; two different ones cannot be told apart. */
static int find_default_system(struct chat_template *c, const struct checkpoint_weight *s, struct err *e)
{
    for (size_t i = 0; i < s->n_literals; i++) {
        const char *text = s->literals.data + s->start[i];
        size_t n = strlen(text), head = sizeof OPEN_SYSTEM - 1, tail = sizeof CLOSE - 1;
        if (n <= head + tail || strncmp(text, OPEN_SYSTEM, head) != 0 || strcmp(text + n - tail, CLOSE) != 0)
            continue;
        char *found = copy_range(text + head, n - head - tail);
        if (!found)
            return err_set(e, ERR_NOMEM, "out of memory for the chat template");
        bool other = c->default_system && strcmp(c->default_system, found) != 0;
        free(c->default_system);
        c->default_system = found;
        if (other)
            return err_set(e, ERR_UNSUPPORTED, "the chat template has two default system messages");
    }
    return 0;
}

/* The string that follows add_generation_prompt, and "<think>" where its else branch adds it. */
static int find_answer(struct chat_template *c, const struct checkpoint_weight *s, struct err *e)
{
    const char *condition = strstr(s->tags.data, "ifadd_generation_prompt");
    const char *otherwise = condition ? strstr(condition, "else") : NULL;
    const char *opening = NULL, *suffix = "";
    for (size_t i = 0; condition && i < s->n_literals; i++) {
        const char *place = s->tags.data + s->at[i], *text = s->literals.data + s->start[i];
        if (place > condition && !opening)
            opening = text;
        else if (otherwise && place > otherwise && strcmp(text, THINK) == 0)
            suffix = THINK;
    }
    if (!opening)
        opening = OPEN_ANSWER; /* a template that never opens an answer */
    if (strcmp(opening, OPEN_ANSWER) != 0 && (strncmp(opening, OPEN_ANSWER, sizeof OPEN_ANSWER - 1) != 0 ||
                                              strcmp(opening + sizeof OPEN_ANSWER - 1, THINK) != 0))
        return err_set(e, ERR_UNSUPPORTED, "the chat template opens an answer in an unknown way: '%.80s'",
                       opening);
    c->answer = malloc(strlen(opening) + sizeof THINK);
    if (!c->answer)
        return err_set(e, ERR_NOMEM, "out of memory for the chat template");
    strcat(strcpy(c->answer, opening), suffix);
    return 0;
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static int find_dialect(struct chat_template *c, const char *tags, struct err *e)
{
#define TURN(content)        "'<|im_start|>'+message.role+'\\n'+" content "+'<|im_end|>'+'\\n'"
#define TURN_JOINED(content) "'<|im_start|>'+message.role+'\\n'+" content "+'<|im_end|>\\n'"
    bool direct = has(tags, TURN("message.content")) || has(tags, TURN_JOINED("message.content"));
    bool variable = has(tags, TURN("content")) || has(tags, TURN_JOINED("content"));
#undef TURN
#undef TURN_JOINED
    bool reasons = has(tags, "reasoning_content") && has(tags, "ns.last_query_index");
    bool knows_reasoning = has(tags, "reasoning_content") || has(tags, ".reasoning");
    if (!direct && !variable)
        return err_set(
            e, ERR_UNSUPPORTED,
            "the chat template is not ChatML (<|im_start|>role, content, <|im_end|>), which is the only "
            "kind that messages can be rendered with here");
    if (reasons && has(tags, "message.content,true)|trim") && has(tags, "reasoning_content|trim"))
        c->dialect = CHAT_QWEN35;
    else if (reasons && has(tags, "loop.lastor(notloop.lastandreasoning_content)") &&
             has(tags, "reasoning_content.strip('\\n')"))
        c->dialect = CHAT_QWEN3;
    else if (direct && !knows_reasoning)
        c->dialect = CHAT_PLAIN;
    else if (variable && !knows_reasoning && !has(tags, "trim") && !has(tags, "strip(") &&
             !has(tags, "split("))
        c->dialect = CHAT_PLAIN;
    else
        return err_set(e, ERR_UNSUPPORTED, "the chat template changes contents in a way that is not known");
    c->system_first = has(tags, "raise_exception('Systemmessagemustbeatthebeginning");
    c->needs_question = has(tags, "raise_exception('Nouserqueryfound");
    return 0;
}

static int analyse(struct chat_template *c, struct checkpoint_weight *s, struct err *e)
{
    int rc = find_default_system(c, s, e);
    if (rc == 0)
        rc = find_answer(c, s, e);
    if (rc != 0)
        return rc;
    if (s->raw_text || has(s->tags.data, "bos_token"))
        return err_set(e, ERR_UNSUPPORTED, "the chat template writes text around the messages");
    use_dots(s);
    char *tags = squeezed(s);
    if (!tags)
        return err_set(e, ERR_NOMEM, "out of memory for the chat template");
    rc = find_dialect(c, tags, e);
    free(tags);
    return rc;
}

int chat_template_new(struct chat_template **out, const char *text, struct err *e)
{
    struct chat_template *c = calloc(1, sizeof *c);
    struct checkpoint_weight *s = calloc(1, sizeof *s);
    int rc = c && s ? 0 : err_set(e, ERR_NOMEM, "out of memory for the chat template");
    if (rc == 0)
        rc = read_source(s, text, e);
    if (rc == 0)
        rc = analyse(c, s, e);
    if (s) {
        free(s->tags.data);
        free(s->literals.data);
    }
    free(s);
    if (rc != 0)
        chat_template_free(c);
    else
        *out = c;
    return rc;
}

void chat_template_free(struct chat_template *c)
{
    if (!c)
        return;
    free(c->default_system);
    free(c->answer);
    free(c);
}

const char *chat_default_system(const struct chat_template *c)
{
    return c->default_system;
}

/* --- rendering
 * ----------------------------------------------------------------------------------------------- */

struct span {
    const char *p;
    size_t n;
};

static struct span span_of(const char *s)
{
    return (struct span){s, strlen(s)};
}

static struct span strip_left(struct span s)
{
    while (s.n && *s.p == '\n') {
        s.p++;
        s.n--;
    }
    return s;
}

static struct span strip_right(struct span s)
{
    while (s.n && s.p[s.n - 1] == '\n')
        s.n--;
    return s;
}

/* Python's str.strip(): white space, and the four separators U+001C to U+001F. */
static bool is_strippable(uint32_t cp)
{
    return char_class(cp) == CHAR_SPACE || (cp >= 0x1C && cp <= 0x1F);
}

static struct span trim(struct span s)
{
    const uint8_t *p = (const uint8_t *)s.p;
    size_t from = 0, keep = 0;
    uint32_t cp;
    while (from < s.n) {
        unsigned w = utf8_decode(p + from, &cp);
        if (!is_strippable(cp))
            break;
        from += w;
    }
    for (size_t i = from; i < s.n;) {
        i += utf8_decode(p + i, &cp);
        if (!is_strippable(cp))
            keep = i;
    }
    return (struct span){s.p + from, keep > from ? keep - from : 0};
}

/* First (or last) occurrence of `word`; NULL: none. */
static const char *find_in(struct span s, const char *word, bool last)
{
    size_t n = strlen(word);
    const char *found = NULL;
    for (size_t i = 0; i + n <= s.n; i++)
        if (memcmp(s.p + i, word, n) == 0) {
            found = s.p + i;
            if (!last)
                break;
        }
    return found;
}

/* A content with "</think>" in it is reasoning and answer. */
static void take_apart(struct span *content, struct span *reasoning)
{
    const char *end = find_in(*content, "</think>", false), *end_last = find_in(*content, "</think>", true);
    *reasoning = (struct span){"", 0};
    if (!end)
        return;
    struct span r = strip_right((struct span){content->p, (size_t)(end - content->p)});
    const char *begin = find_in(r, "<think>", true);
    if (begin)
        r = (struct span){begin + 7, (size_t)(r.p + r.n - begin - 7)};
    *reasoning = strip_left(r);
    *content = strip_left((struct span){end_last + 8, (size_t)(content->p + content->n - end_last - 8)});
}

static bool is_role(const struct chat_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

static bool is_tool_response(struct span s)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    return s.n >= sizeof close - 1 && memcmp(s.p, open, sizeof open - 1) == 0 &&
           memcmp(s.p + s.n - (sizeof close - 1), close, sizeof close - 1) == 0;
}

/* Index of the last user message that is a question; n when there is none. */
static size_t last_question(const struct chat_template *c, const struct chat_message *m, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        struct span s = span_of(m[i].content);
        if (is_role(&m[i], "user") && !is_tool_response(c->dialect == CHAT_QWEN35 ? trim(s) : s))
            return i;
    }
    return n;
}

static void put_span(struct text *t, struct span s)
{
    put(t, s.p, s.n);
}

static void put_assistant(const struct chat_template *c, struct text *t, struct span content,
                          bool answers_last, bool is_last)
{
    struct span reasoning;
    take_apart(&content, &reasoning);
    puts_text(t, OPEN_ANSWER);
    if (c->dialect == CHAT_QWEN35)
        reasoning = trim(reasoning);
    if (answers_last && (c->dialect == CHAT_QWEN35 || is_last || reasoning.n)) {
        puts_text(t, THINK);
        put_span(t, strip_right(strip_left(reasoning)));
        puts_text(t, "\n</think>\n\n");
        if (c->dialect == CHAT_QWEN3)
            content = strip_left(content);
    }
    put_span(t, content);
    puts_text(t, CLOSE);
}

static int check(const struct chat_template *c, const struct chat_message *m, size_t n, struct err *e)
{
    if (n == 0)
        return err_set(e, ERR_ARG, "there are no messages to render");
    for (size_t i = 0; i < n; i++) {
        if (!is_role(&m[i], "system") && !is_role(&m[i], "user") && !is_role(&m[i], "assistant"))
            return err_set(e, ERR_UNSUPPORTED,
                           "message %zu has the role '%.40s'; system, user and assistant are "
                           "rendered",
                           i, m[i].role);
        if (!utf8_valid(m[i].content, strlen(m[i].content)))
            return err_set(e, ERR_FORMAT, "message %zu is not UTF-8", i);
        if (c->system_first && i > 0 && is_role(&m[i], "system"))
            return err_set(e, ERR_UNSUPPORTED,
                           "message %zu is a system message; this template has it first only", i);
    }
    if (c->needs_question && last_question(c, m, n) == n)
        return err_set(e, ERR_UNSUPPORTED, "no user message among %zu; this template demands one", n);
    return 0;
}

int chat_render(const struct chat_template *c, const struct chat_message *messages, size_t n,
                bool open_answer, char **out, size_t *len, struct err *e)
{
    struct text t = {0};
    int rc = check(c, messages, n, e);
    if (rc != 0)
        return rc;
    size_t question = last_question(c, messages, n);
    if (question == n)
        question = n - 1;
    if (c->default_system && !is_role(&messages[0], "system")) {
        puts_text(&t, OPEN_SYSTEM);
        puts_text(&t, c->default_system);
        puts_text(&t, CLOSE);
    }
    for (size_t i = 0; i < n; i++) {
        struct span content = span_of(messages[i].content);
        if (c->dialect == CHAT_QWEN35)
            content = trim(content);
        if (c->dialect != CHAT_PLAIN && is_role(&messages[i], "assistant")) {
            put_assistant(c, &t, content, i > question, i + 1 == n);
            continue;
        }
        puts_text(&t, "<|im_start|>");
        puts_text(&t, messages[i].role);
        puts_text(&t, "\n");
        put_span(&t, content);
        puts_text(&t, CLOSE);
    }
    if (open_answer)
        puts_text(&t, c->answer);
    if (t.failed) {
        free(t.data);
        return err_set(e, ERR_NOMEM, "out of memory to render %zu messages", n);
    }
    *out = t.data;
    *len = t.n;
    return 0;
}
