/* task_peer.c - the forms of llama-perplexity. See task.h.
 *
 *     --hellaswag        six lines a record: context, number of the right ending, four endings
 *     --winogrande       a line a record: index,sentence with _,choice,choice,1 or 2
 *     --multiple-choice  u32 records, u32 offset of each; a record: question, then twice (one right answer;
 *                        several, which nobody reads) u32 answers, each answer, i32 label of each.
 *                        Strings: u32 bytes, bytes
 *
 * Facts: tools/perplexity of llama.cpp, November 2026. */
#include "task.h"

#include "libquant/base/slice.h"

#include <stdlib.h>

#define N_ENDINGS   4
#define MAX_ANSWERS 100 /* as there */

struct line {
    const char *text; /* no line end; NULL: there is none */
    size_t len;
};

struct lines {
    const char *at, *end;
    size_t n; /* read so far */
};

static struct line next_line(struct lines *l)
{
    if (l->at == l->end)
        return (struct line){NULL, 0};
    const char *stop = memchr(l->at, '\n', (size_t)(l->end - l->at));
    struct line x = {l->at, stop ? (size_t)(stop - l->at) : (size_t)(l->end - l->at)};
    l->at = stop ? stop + 1 : l->end;
    l->n++;
    if (x.len > 0 && x.text[x.len - 1] == '\r')
        x.len--;
    return x;
}

static int no_memory(const struct task_reader *r, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory for the records", r->task->path);
}

/* A choice behind a space, with its context. */
static int set_choice(struct task_choice *c, struct task_reader *r, const char *context, const char *text,
                      size_t len, struct err *e)
{
    c->context = context;
    c->counted = arena_strndup(&r->task->arena, text, len);
    c->text = c->counted ? arena_printf(&r->task->arena, " %s", c->counted) : NULL;
    c->n_delimiter = 1;
    return c->text ? 0 : no_memory(r, e);
}

static int check_line(const struct task_reader *r, const struct lines *l, struct line x, struct err *e)
{
    if (!x.text)
        return err_set(e, ERR_FORMAT,
                       "%s: ends after %zu lines; a record has six: the context, the number of the right "
                       "ending, four endings",
                       r->task->path, l->n);
    if (memchr(x.text, 0, x.len) || x.len == 0)
        return err_set(e, ERR_FORMAT, "%s: line %zu %s", r->task->path, l->n,
                       x.len ? "holds a zero byte" : "is empty");
    return 0;
}

int task_read_hellaswag(struct task_reader *r, const char *text, size_t len, struct err *e)
{
    struct lines l = {text, text + len, 0};
    int rc = 0;
    while (rc == 0 && l.at < l.end) {
        struct task_record *x = NULL;
        struct line part[2 + N_ENDINGS];
        size_t place = l.n + 1;
        for (size_t i = 0; rc == 0 && i < 2 + N_ENDINGS; i++) {
            part[i] = next_line(&l);
            rc = check_line(r, &l, part[i], e);
        }
        if (rc == 0 && (part[1].len != 1 || part[1].text[0] < '0' || part[1].text[0] >= '0' + N_ENDINGS))
            rc = err_set(e, ERR_FORMAT, "%s: line %zu: expected the number of the right ending, 0 to 3",
                         r->task->path, place + 1);
        if (rc == 0)
            rc = task_add(&x, r, e);
        if (rc != 0 || !x)
            return rc;
        x->style = TASK_HELLASWAG;
        x->place = place;
        x->right = (size_t)(part[1].text[0] - '0');
        const char *context = arena_strndup(&r->task->arena, part[0].text, part[0].len);
        rc = context ? task_choices(x, r, N_ENDINGS, e) : no_memory(r, e);
        for (size_t i = 0; rc == 0 && i < N_ENDINGS; i++)
            rc = set_choice(&x->choices[i], r, context, part[2 + i].text, part[2 + i].len, e);
    }
    return rc;
}

/* The five fields of a line; commas inside quotes divide nothing. False: there are not so many. */
static bool split_fields(struct line field[5], struct line x)
{
    size_t n = 0, from = 0;
    bool quoted = false;
    for (size_t i = 0; i < x.len && n < 4; i++) {
        if (x.text[i] == '"')
            quoted = !quoted;
        if (x.text[i] != ',' || quoted)
            continue;
        field[n++] = (struct line){x.text + from, i - from};
        from = i + 1;
    }
    field[4] = (struct line){x.text + from, x.len - from};
    if (n != 4)
        return false;
    if (field[1].len >= 2 && field[1].text[0] == '"' && field[1].text[field[1].len - 1] == '"')
        field[1] = (struct line){field[1].text + 1, field[1].len - 2};
    return true;
}

static int winogrande_line(struct task_reader *r, size_t place, struct line x, struct err *e)
{
    struct line f[5];
    struct task_record *rec = NULL;
    const char *blank = NULL, *path = r->task->path;
    if (memchr(x.text, 0, x.len) || !split_fields(f, x))
        return err_set(
            e, ERR_FORMAT,
            "%s: line %zu: expected index,sentence,choice,choice,answer in text without zero bytes", path,
            place);
    blank = memchr(f[1].text, '_', f[1].len);
    if (!blank || f[2].len == 0 || f[3].len == 0)
        return err_set(e, ERR_FORMAT,
                       "%s: line %zu: the sentence has no _ for the choice, or a choice is empty", path,
                       place);
    if (f[4].len != 1 || f[4].text[0] < '1' || f[4].text[0] > '2')
        return err_set(e, ERR_FORMAT, "%s: line %zu: expected 1 or 2 as the answer, found '%.*s'", path,
                       place, (int)(f[4].len < 20 ? f[4].len : 20), f[4].text);
    size_t before = (size_t)(blank - f[1].text), after = f[1].len - before - 1;
    int rc = task_add(&rec, r, e);
    if (rc == 0 && rec)
        rc = task_choices(rec, r, 2, e);
    for (size_t i = 0; rc == 0 && rec && i < 2; i++) {
        struct task_choice *c = &rec->choices[i];
        c->context = arena_printf(&r->task->arena, "%.*s%.*s", (int)before, f[1].text, (int)f[2 + i].len,
                                  f[2 + i].text);
        c->text = c->counted = arena_strndup(&r->task->arena, blank + 1, after);
        c->n_delimiter = c->text && c->text[0] == ' ';
        rc = c->context && c->text ? 0 : no_memory(r, e);
    }
    if (rc == 0 && rec) {
        rec->style = TASK_WINOGRANDE;
        rec->place = place;
        rec->right = (size_t)(f[4].text[0] - '1');
    }
    if (rc == 0 && rec && after == 0)
        rc = err_set(e, ERR_FORMAT, "%s: line %zu: nothing follows the _ that could be scored", path, place);
    return rc;
}

int task_read_winogrande(struct task_reader *r, const char *text, size_t len, struct err *e)
{
    struct lines l = {text, text + len, 0};
    int rc = len < INT32_MAX ? 0 : err_set(e, ERR_FORMAT, "%s: is larger than 2 GiB", r->task->path);
    while (rc == 0 && l.at < l.end) {
        struct line x = next_line(&l);
        if (x.len > 0)
            rc = winogrande_line(r, l.n, x, e);
    }
    return rc;
}

/* --- the binary form --- */

struct bytes {
    const char *at, *end;
    const char *path;
    size_t record; /* from 1 */
};

static int cut_short(const struct bytes *b, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: record %zu: the file ends inside of it", b->path, b->record);
}

static int take_u32(uint32_t *out, struct bytes *b, struct err *e)
{
    if (b->end - b->at < 4)
        return cut_short(b, e);
    *out = load_u32(b->at);
    b->at += 4;
    return 0;
}

static int take_string(struct line *out, struct bytes *b, struct err *e)
{
    uint32_t n = 0;
    int rc = take_u32(&n, b, e);
    if (rc != 0)
        return rc;
    if ((size_t)(b->end - b->at) < n)
        return cut_short(b, e);
    *out = (struct line){b->at, n};
    b->at += n;
    if (n == 0 || memchr(out->text, 0, n))
        return err_set(e, ERR_FORMAT, "%s: record %zu: a string %s", b->path, b->record,
                       n ? "holds a zero byte" : "is empty");
    return 0;
}

/* A list of answers and their labels. `answers` [MAX_ANSWERS]; *right: the answer labelled 1. */
static int take_answers(struct line *answers, uint32_t *n, size_t *right, size_t *n_right, struct bytes *b,
                        struct err *e)
{
    int rc = take_u32(n, b, e);
    *n_right = 0;
    if (rc == 0 && *n > MAX_ANSWERS)
        return err_set(e, ERR_FORMAT, "%s: record %zu: %u answers, at most %d are allowed", b->path,
                       b->record, *n, MAX_ANSWERS);
    for (uint32_t i = 0; rc == 0 && i < *n; i++)
        rc = take_string(&answers[i], b, e);
    for (uint32_t i = 0; rc == 0 && i < *n; i++) {
        uint32_t label = 0;
        rc = take_u32(&label, b, e);
        if (rc == 0 && label == 1) {
            *right = i;
            ++*n_right;
        }
    }
    return rc;
}

static int peer_record(struct task_reader *r, struct bytes *b, bool *full, struct err *e)
{
    struct line question, answers[MAX_ANSWERS], others[MAX_ANSWERS];
    struct task_record *x = NULL;
    uint32_t n = 0, n_others = 0;
    size_t right = 0, n_right = 0, ignored[2];
    int rc = take_string(&question, b, e);
    if (rc == 0)
        rc = take_answers(answers, &n, &right, &n_right, b, e);
    if (rc == 0)
        rc = take_answers(others, &n_others, &ignored[0], &ignored[1], b, e);
    if (rc == 0 && (n < 2 || n_right != 1))
        rc =
            err_set(e, ERR_FORMAT, "%s: record %zu: %zu of %u answers are right; expected one of two or more",
                    b->path, b->record, n_right, n);
    if (rc == 0)
        rc = task_add(&x, r, e);
    *full = rc == 0 && !x;
    if (rc != 0 || !x)
        return rc;
    x->place = b->record;
    x->right = right;
    const char *context = arena_strndup(&r->task->arena, question.text, question.len);
    rc = context ? task_choices(x, r, n, e) : no_memory(r, e);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        rc = set_choice(&x->choices[i], r, context, answers[i].text, answers[i].len, e);
    return rc;
}

int task_read_peer(struct task_reader *r, const char *bytes, size_t len, struct err *e)
{
    struct bytes b = {bytes, bytes + len, r->task->path, 0};
    uint32_t n = 0;
    bool full = false;
    r->task->unit = "record";
    int rc = take_u32(&n, &b, e);
    if (rc == 0 && (size_t)(b.end - b.at) / 4 < n)
        rc = err_set(e, ERR_FORMAT, "%s: says that it holds %u records, and is too small for their offsets",
                     b.path, n);
    if (rc == 0)
        b.at += 4 * (size_t)n;
    for (uint32_t i = 0; rc == 0 && !full && i < n; i++) {
        b.record = i + 1;
        rc = peer_record(r, &b, &full, e);
    }
    if (rc == 0 && !full && b.at != b.end)
        rc = err_set(e, ERR_FORMAT, "%s: %zu bytes follow the last of %u records", b.path,
                     (size_t)(b.end - b.at), n);
    return rc;
}
