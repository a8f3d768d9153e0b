/* fuzz_task.c - any bytes as a task, in each of the forms: read or refused with a message; of what was read,
 * every record is whole. */
#include "calib/tasks/task.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds)
{
    if (!holds)
        abort();
}

static void check_record(const struct task_record *x)
{
    check(x->place > 0 && x->kind <= TASK_TEXT && x->style <= TASK_PIQA);
    check(x->n_choices > 0 && (x->kind != TASK_CHOICE || x->right < x->n_choices));
    for (size_t i = 0; i < x->n_choices; i++) {
        const struct task_choice *c = &x->choices[i];
        check(c->context && c->text && c->counted);
        check(c->n_delimiter <= strlen(c->text) && strlen(c->counted) < SIZE_MAX);
    }
    for (size_t i = 0; i < x->n_messages; i++)
        check(x->messages[i].role && x->messages[i].content);
}

static void read_as(enum task_form form, const char *text, size_t len, size_t most)
{
    struct task t = {0};
    struct err e = {0};
    if (task_parse(&t, text, len, "fuzz", form, most, &e) != 0) {
        check(e.msg[0] && !t.records);
        return;
    }
    check(t.n_records > 0 && (most == 0 || t.n_records <= most));
    check(t.n_of[0] + t.n_of[1] + t.n_of[2] == t.n_records && strlen(t.sha256) == 64);
    for (size_t i = 0; i < t.n_records; i++)
        check_record(&t.records[i]);
    task_release(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); /* as it comes from a file */
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    for (enum task_form form = TASK_FORM_AUTO; form <= TASK_FORM_PEER; form++)
        read_as(form, text, size, form == TASK_FORM_AUTO ? 2 : 0);
    free(text);
    return 0;
}
