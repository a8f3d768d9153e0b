/* task.c - see task.h: which form a file has, and the records that its reader gives. */
#include "task.h"

#include "formats/text.h"
#include "formats/text_sniff.h"
#include "libquant/base/sha256.h"

#include <stdlib.h>
#include <string.h>

static int no_memory(const struct task_reader *r, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory for the records", r->task->path);
}

int task_add(struct task_record **out, struct task_reader *r, struct err *e)
{
    struct task *t = r->task;
    if (r->most && t->n_records == r->most)
        return 0;
    if (t->n_records == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 64;
        struct task_record *grown =
            cap < SIZE_MAX / sizeof *grown ? realloc(t->records, cap * sizeof *grown) : NULL;
        if (!grown)
            return no_memory(r, e);
        t->records = grown;
        r->cap = cap;
    }
    *out = &t->records[t->n_records++];
    memset(*out, 0, sizeof **out);
    return 0;
}

int task_choices(struct task_record *x, struct task_reader *r, size_t n, struct err *e)
{
    x->choices = arena_array(&r->task->arena, n, sizeof *x->choices);
    if (!x->choices)
        return no_memory(r, e);
    for (size_t i = 0; i < n; i++)
        x->choices[i].context = "";
    x->n_choices = n;
    return 0;
}

/* Is there, behind the first line, one that is a single digit? */
static bool has_label_line(const char *text, size_t len)
{
    const char *end = memchr(text, '\n', len);
    size_t left = end ? len - (size_t)(end + 1 - text) : 0;
    return left >= 1 && end[1] >= '0' && end[1] <= '9' && (left == 1 || end[2] == '\n' || end[2] == '\r');
}

/* JSON lines begin with '{'. The count of a binary file leaves its fourth byte zero. */
static enum task_form form_of(const char *text, size_t len)
{
    size_t at = strspn(text, " \t\r\n");
    if (at < len && text[at] == '{')
        return TASK_FORM_JSONL;
    if (len >= 8 && text[3] == 0)
        return TASK_FORM_PEER;
    if (has_label_line(text, len))
        return TASK_FORM_HELLASWAG;
    const char *end = memchr(text, '\n', len), *blank = memchr(text, '_', len);
    if (end && blank && blank < end && memchr(text, ',', (size_t)(blank - text)))
        return TASK_FORM_WINOGRANDE;
    return TASK_FORM_AUTO;
}

static int read_form(struct task_reader *r, enum task_form form, const char *text, size_t len, struct err *e)
{
    switch (form == TASK_FORM_AUTO ? form_of(text, len) : form) {
    case TASK_FORM_JSONL: return task_read_jsonl(r, text, len, e);
    case TASK_FORM_HELLASWAG: return task_read_hellaswag(r, text, len, e);
    case TASK_FORM_WINOGRANDE: return task_read_winogrande(r, text, len, e);
    case TASK_FORM_PEER: return task_read_peer(r, text, len, e);
    case TASK_FORM_AUTO: break;
    }
    return err_set(e, ERR_ARG,
                   "%s: not a task file; expected JSON lines, or what llama-perplexity takes for "
                   "--hellaswag, --winogrande or --multiple-choice; --form names one",
                   r->task->path);
}

int task_parse(struct task *out, const char *text, size_t len, const char *path, enum task_form form,
               size_t most, struct err *e)
{
    struct task t = {.path = path, .unit = "line"};
    struct task_reader r = {.task = &t, .most = most};
    int rc = text_refuse(path, text, len, e);
    if (rc == 0)
        rc = read_form(&r, form, text, len, e);
    if (rc == 0 && t.n_records == 0)
        rc = err_set(e, ERR_FORMAT, "%s: holds no record", path);
    if (rc != 0) {
        task_release(&t);
        return rc;
    }
    sha256_hex_of(text, len, t.sha256);
    for (size_t i = 0; i < t.n_records; i++)
        t.n_of[t.records[i].kind]++;
    *out = t;
    return 0;
}

int task_read(struct task *out, const char *path, enum task_form form, size_t most, struct err *e)
{
    char *text = NULL;
    size_t len = 0;
    int rc = text_read(&text, &len, path, 0, e);
    if (rc == 0)
        rc = task_parse(out, text, len, path, form, most, e);
    free(text);
    return rc;
}

void task_release(struct task *t)
{
    if (!t)
        return;
    free(t->records);
    arena_release(&t->arena);
    *t = (struct task){0};
}
