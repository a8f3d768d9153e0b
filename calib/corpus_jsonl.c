/* corpus_jsonl.c - files of records: JSON lines (chat data and other sets), and plain lines. See corpus.h.
 *
 * A line is a document of its own to the JSON guard, so its size, depth and syntax are checked as those of
 * any file; a message names file and line. */
#include "corpus.h"

#include "formats/json.h"
#include "formats/text.h"
#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/tokenizer.h"
#include "libquant/base/sha256.h"
#include "libquant/base/printed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct jsonl {
    struct corpus *corpus;
    const struct tokenizer *t;
    const char *field; /* NULL: lines are not JSON but text */
    bool parse_special, separate, answers;
    struct corpus_form form;    /* of the texts of all records */
    const char *chat_text;      /* the model's template; NULL: none */
    const char *pair_text;      /* the same for a query and a document */
    size_t ctx;                 /* most tokens of a pair; 0: any number */
    struct chat_template *chat; /* made when the first messages come */
    int32_t *ids;
    size_t n, cap;
    uint8_t *marks;   /* [cap] 1: a token of an answer; NULL unless `answers` */
    int32_t *opening; /* the tokens that open an answer's turn, without the line's end */
    size_t n_opening;
    int32_t closing; /* the token that ends a turn */
};

static int add_ids(struct jsonl *s, const int32_t *ids, size_t n, struct err *e)
{
    if (n > s->cap - s->n) {
        size_t cap = s->cap + s->cap / 2 + n + 1024;
        int32_t *grown = cap < SIZE_MAX / sizeof *grown ? realloc(s->ids, cap * sizeof *grown) : NULL;
        if (!grown)
            return err_set(e, ERR_NOMEM, "out of memory for %zu tokens", cap);
        s->ids = grown;
        uint8_t *marks = s->answers ? realloc(s->marks, cap) : NULL;
        if (s->answers && !marks)
            return err_set(e, ERR_NOMEM, "out of memory for %zu tokens", cap);
        s->marks = marks;
        s->cap = cap;
    }
    if (n)
        memcpy(s->ids + s->n, ids, n * sizeof *ids);
    if (n && s->marks)
        memset(s->marks + s->n, 0, n);
    s->n += n;
    return 0;
}

/* --- what the assistant wrote --- */

/* Templates are of the ChatML family (chat.h), so a turn begins with two control words and ends with one. */
static int find_turn_tokens(struct jsonl *s, struct err *e)
{
    static const char opening[] = "<|im_start|>assistant", closing[] = "<|im_end|>";
    struct tokenize_options opt = {.parse_special = true};
    int32_t *end = NULL;
    size_t n = 0;
    if (s->opening)
        return 0;
    int rc = tokenizer_encode(s->t, opening, sizeof opening - 1, &opt, &s->opening, &s->n_opening, e);
    if (rc == 0)
        rc = tokenizer_encode(s->t, closing, sizeof closing - 1, &opt, &end, &n, e);
    if (rc == 0 && (n != 1 || s->n_opening < 2))
        rc =
            err_set(e, ERR_UNSUPPORTED,
                    "the vocabulary has no tokens for <|im_start|> and <|im_end|>, so answers cannot be told "
                    "from questions");
    if (rc == 0)
        s->closing = end[0];
    free(end);
    return rc;
}

/* Mark the answers among the ids from `from` on: behind the token of the line's end, with the closing one. */
static void mark_answers(struct jsonl *s, size_t from)
{
    bool inside = false;
    for (size_t i = from; i < s->n; i++) {
        if (inside)
            s->marks[i] = 1;
        if (inside && s->ids[i] == s->closing)
            inside = false;
        bool opens = !inside && s->n - i > s->n_opening &&
                     memcmp(s->ids + i, s->opening, s->n_opening * sizeof *s->ids) == 0;
        if (opens) {
            i += s->n_opening; /* and the line's end */
            inside = true;
        }
    }
}

static int add_encoded(struct jsonl *s, const int32_t *ids, size_t n, struct err *e)
{
    int rc = add_ids(s, ids, n, e);
    if (rc == 0 && n > 0 && s->separate)
        rc = corpus_end_record(s->corpus, s->corpus->n_ids + s->n, e);
    return rc;
}

static int add_record(struct jsonl *s, const char *text, size_t len, bool parse_special, struct err *e)
{
    struct tokenize_options opt = {.add_special = true, .parse_special = parse_special};
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = tokenizer_encode(s->t, text, len, &opt, &ids, &n, e);
    if (rc == 0)
        rc = corpus_look_at_form(&s->form, s->t, text, len, parse_special, e);
    if (rc == 0)
        rc = add_encoded(s, ids, n, e);
    free(ids);
    return rc;
}

static int take_messages(const struct json *list, struct chat_message *out, struct err *e)
{
    size_t i = 0;
    for (const struct json *m = json_first(list); m; m = json_next(m), i++) {
        out[i] = (struct chat_message){json_string(json_get(m, "role")), json_string(json_get(m, "content"))};
        if (!out[i].role || !out[i].content)
            return err_set(e, ERR_FORMAT,
                           "message %zu: expected an object with the strings 'role' and 'content'", i);
    }
    return 0;
}

static int add_messages(struct jsonl *s, const struct json *list, struct err *e)
{
    size_t n = json_n_children(list), len = 0;
    char *text = NULL;
    int rc = 0;
    if (!s->chat && !s->chat_text)
        return err_set(
            e, ERR_UNSUPPORTED,
            "field '%s' holds messages, and the model has no chat template; give the rendered text as "
            "a string field",
            s->field);
    if (!s->chat)
        rc = chat_template_new(&s->chat, s->chat_text, e);
    if (rc != 0)
        return err_context(e, rc, "the model's chat template");
    struct chat_message *messages = calloc(n + 1, sizeof *messages);
    if (!messages)
        return err_set(e, ERR_NOMEM, "out of memory for %zu messages", n);
    size_t from = s->n;
    rc = take_messages(list, messages, e);
    if (rc == 0 && s->answers)
        rc = find_turn_tokens(s, e);
    if (rc == 0)
        rc = chat_render(s->chat, messages, n, false, &text, &len, e);
    if (rc == 0)
        rc = add_record(s, text, len, true, e);
    if (rc == 0 && s->answers)
        mark_answers(s, from);
    free(text);
    free(messages);
    return rc;
}

static int add_string(struct jsonl *s, const char *text, struct err *e)
{
    size_t len = strlen(text);
    if (s->separate || (len > 0 && text[len - 1] == '\n'))
        return add_record(s, text, len, s->parse_special, e);
    char *line = malloc(len + 1); /* the end of the line in place of the NUL */
    if (!line)
        return err_set(e, ERR_NOMEM, "out of memory for %zu bytes", len);
    memcpy(line, text, len);
    line[len] = '\n';
    int rc = add_record(s, line, len + 1, s->parse_special, e);
    free(line);
    return rc;
}

/* The template with its two placeholders filled in; of the document, n bytes. What the texts hold is not
 * searched for placeholders. *out: caller frees. */
static int render_pair(char **out, size_t *len, const struct jsonl *s, const char *query,
                       const char *document, size_t n, struct err *e)
{
    struct printed printed;
    if (printed_begin(&printed) != 0)
        return err_set(e, ERR_NOMEM, "out of memory for a record");
    FILE *f = printed.out;
    for (const char *p = s->pair_text; *p;) {
        bool q = strncmp(p, "{query}", 7) == 0, d = strncmp(p, "{document}", 10) == 0;
        if (q)
            fputs(query, f);
        else if (d)
            fwrite(document, 1, n, f);
        else
            fputc(*p, f);
        p += q ? 7 : d ? 10 : 1;
    }
    *out = printed_end(&printed);
    *len = printed.n;
    return *out ? 0 : err_set(e, ERR_NOMEM, "out of memory for a record");
}

/* The pair with the first n bytes of its document, as ids; caller frees. */
static int encode_pair(int32_t **ids, size_t *n_ids, const struct jsonl *s, const char *query,
                       const char *document, size_t n, struct err *e)
{
    struct tokenize_options opt = {.add_special = true, .parse_special = true};
    char *text = NULL;
    size_t len = 0;
    int rc = render_pair(&text, &len, s, query, document, n, e);
    if (rc == 0)
        rc = tokenizer_encode(s->t, text, len, &opt, ids, n_ids, e);
    free(text);
    return rc;
}

/* Where the code point that byte n is inside of begins; `from` at the least. */
static size_t code_point_start(const char *text, size_t n, size_t from)
{
    while (n > from && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

/* As much of the document, at least its first code point, as leaves the prompt whole within ctx tokens: the
 * answer is read from the end of the prompt, so that is not what may be lost. The cut is found by halving. */
static int shorten_pair(int32_t **ids, size_t *n_ids, const struct jsonl *s, const char *query,
                        const char *document, struct err *e)
{
    size_t low = 1, high = strlen(document); /* `low` bytes fit, `high` bytes do not */
    while (low < high && ((unsigned char)document[low] & 0xc0) == 0x80)
        low++;
    int rc = encode_pair(ids, n_ids, s, query, document, low < high ? low : high, e);
    if (rc != 0)
        return rc;
    if (*n_ids > s->ctx) {
        size_t needed = *n_ids;
        free(*ids);
        *ids = NULL;
        return err_set(e, ERR_ARG,
                       "the model's prompt with the query and the first character of the document has %zu "
                       "tokens, and --ctx allows %zu: give --ctx %zu or more",
                       needed, s->ctx, needed);
    }
    for (;;) {
        size_t middle = code_point_start(document, low + (high - low) / 2, low), n = 0;
        int32_t *found = NULL;
        if (middle <= low) /* the upper half may begin with one long code point */
            for (middle = low + 1; middle < high && ((unsigned char)document[middle] & 0xc0) == 0x80;)
                middle++;
        if (middle >= high)
            return 0;
        rc = encode_pair(&found, &n, s, query, document, middle, e);
        if (rc != 0 || n > s->ctx) {
            high = middle;
            free(found);
        } else {
            low = middle;
            free(*ids);
            *ids = found;
            *n_ids = n;
        }
        if (rc != 0)
            return rc;
    }
}

static int add_pair(struct jsonl *s, const char *query, const char *document, struct err *e)
{
    if (!s->pair_text)
        return err_set(e, ERR_UNSUPPORTED,
                       "field '%s' holds a query and a document, and the model has no template for them "
                       "(tokenizer.chat_template.rerank); give the rendered text as a string field",
                       s->field);
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = encode_pair(&ids, &n, s, query, document, strlen(document), e);
    bool cut = rc == 0 && s->ctx > 0 && n > s->ctx;
    if (cut) {
        free(ids);
        ids = NULL;
        rc = shorten_pair(&ids, &n, s, query, document, e);
    }
    if (rc == 0)
        rc = add_encoded(s, ids, n, e);
    if (rc == 0 && cut && n > 0)
        s->corpus->record_cut[s->corpus->n_records - 1] = true;
    free(ids);
    return rc;
}

static int add_line(struct jsonl *s, const char *line, size_t len, const char *what, struct err *e)
{
    struct json_doc *doc;
    if (!s->field) {
        s->form.n_crlf += len > 0 && line[len - 1] == '\r'; /* the line feed is not part of the record */
        int rc = add_record(s, line, len, s->parse_special, e);
        return rc == 0 ? 0 : err_context(e, rc, "%s", what);
    }
    int rc = json_parse(&doc, line, len, what, e);
    if (rc != 0)
        return rc;
    const struct json *v = json_get(json_root(doc), s->field);
    if (s->answers && !json_is_array(v))
        rc = err_set(e, ERR_FORMAT,
                     "expected messages in the field '%s': only they tell answers from questions", s->field);
    else if (json_is_string(v))
        rc = add_string(s, json_string(v), e);
    else if (json_is_array(v))
        rc = add_messages(s, v, e);
    else if (s->separate && json_string(json_get(v, "query")) && json_string(json_get(v, "document")))
        rc = add_pair(s, json_string(json_get(v, "query")), json_string(json_get(v, "document")), e);
    else
        rc = err_set(e, ERR_FORMAT, "expected an object with the field '%s', a string or a list of messages",
                     s->field);
    if (rc != 0)
        err_context(e, rc, "%s", what);
    json_free(doc);
    return rc;
}

static bool is_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
            return false;
    return true;
}

static int add_lines(struct jsonl *s, const char *path, const char *text, size_t len, struct err *e)
{
    char *what = malloc(strlen(path) + 40);
    int rc = what ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    for (size_t at = 0, n = 0; rc == 0 && at < len; at++) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line = end ? (size_t)(end - text) - at : len - at;
        sprintf(what, "%s: line %zu", path, ++n);
        size_t n_text = !s->field && line > 0 && text[at + line - 1] == '\r' ? line - 1 : line;
        if (!is_blank(text + at, line))
            rc = add_line(s, text + at, n_text, what, e);
        at += line;
    }
    free(what);
    return rc;
}

/* Hand the marks on to the corpus, whose ids end with ours. */
static int take_marks(struct jsonl *s, struct err *e)
{
    struct corpus *c = s->corpus;
    if (!s->answers)
        return 0;
    uint8_t *all = realloc(c->answers, c->n_ids + 1);
    if (!all)
        return err_set(e, ERR_NOMEM, "out of memory for %zu tokens", c->n_ids);
    c->answers = all;
    if (s->n)
        memcpy(all + c->n_ids - s->n, s->marks, s->n);
    return 0;
}

static int add_file(struct jsonl *s, const char *path, struct err *e)
{
    char *text = NULL, sha256[65];
    size_t len = 0;
    int rc = corpus_check_tokenizer(s->corpus, s->t, path, e);
    if (rc == 0)
        rc = text_read(&text, &len, path, 0, e);
    if (rc == 0)
        rc = text_refuse(path, text, len, e);
    if (rc == 0)
        rc = add_lines(s, path, text, len, e);
    if (rc == 0) {
        sha256_hex_of(text, len, sha256);
        rc = corpus_add_tokens(s->corpus, path, s->ids, s->n, sha256, len, e);
    }
    if (rc == 0)
        rc = take_marks(s, e);
    if (rc == 0) {
        corpus_note_bytes(s->corpus, text, len);
        s->corpus->texts[s->corpus->n_texts - 1].form = s->form;
    }
    chat_template_free(s->chat);
    free(s->marks);
    free(s->opening);
    free(s->ids);
    free(text);
    return rc;
}

int corpus_add_jsonl(struct corpus *c, const struct tokenizer *t, const char *path,
                     const struct jsonl_options *opt, struct err *e)
{
    struct jsonl s = {.corpus = c,
                      .t = t,
                      .field = opt->field,
                      .parse_special = opt->parse_special,
                      .separate = opt->separate,
                      .answers = opt->answers,
                      .chat_text = opt->chat_template,
                      .pair_text = opt->pair_template,
                      .ctx = opt->ctx};
    return add_file(&s, path, e);
}

int corpus_add_lines(struct corpus *c, const struct tokenizer *t, const char *path, bool parse_special,
                     struct err *e)
{
    struct jsonl s = {.corpus = c, .t = t, .parse_special = parse_special, .separate = true};
    return add_file(&s, path, e);
}
