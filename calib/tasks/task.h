/* task.h - what models are asked: records of multiple choice, of short answers and of texts, from the files
 * that people keep them in.
 *
 *     task_read(&task, "arc_easy.jsonl", TASK_FORM_AUTO, 0, &e);
 *     ...task.records[i].choices[k].context, .text...
 *     task_release(&task);
 *
 * JSON lines, each a record, whose style is known by its fields (tools/README.md lists them): those of the
 * data sets HellaSwag, WinoGrande, ARC, MMLU and PIQA, which become the prompts that lm-evaluation-harness
 * makes of them, and a plain form. Also the three forms that llama-perplexity reads for --hellaswag,
 * --winogrande and --multiple-choice. A file is hostile until it is read; nothing is passed over. */
#ifndef KERF_TASK_H
#define KERF_TASK_H

#include "formats/tokenizer/chat.h"
#include "libquant/base/arena.h"
#include "libquant/base/err.h"

#include <stddef.h>

enum task_kind {
    TASK_CHOICE, /* which of these continuations is the likeliest? One is right */
    TASK_ANSWER, /* is the greedy continuation one of these answers? */
    TASK_TEXT,   /* how well is this text predicted? */
};

enum task_style { /* of multiple choice: what counts as its accuracy, and where its choices are scored */
                  TASK_PLAIN,
                  TASK_HELLASWAG,
                  TASK_WINOGRANDE,
                  TASK_ARC,
                  TASK_MMLU,
                  TASK_PIQA,
};

enum task_form { TASK_FORM_AUTO, TASK_FORM_JSONL, TASK_FORM_HELLASWAG, TASK_FORM_WINOGRANDE, TASK_FORM_PEER };

struct task_choice {
    const char *context; /* what stands before; "": nothing */
    const char *text;    /* what is scored, with the space in front of it */
    const char *counted; /* the choice itself, by whose length accuracies are normalised */
    size_t n_delimiter;  /* bytes at the start of `text` that go where a chat template stands between */
};

struct task_record {
    enum task_kind kind;
    enum task_style style;
    size_t place;                        /* line of the file, or number of the record in a binary one */
    const struct chat_message *messages; /* a conversation in place of the contexts; NULL: none */
    size_t n_messages;
    struct task_choice *choices; /* accepted answers of TASK_ANSWER, the text of TASK_TEXT */
    size_t n_choices;
    size_t right; /* of TASK_CHOICE */
};

struct task {
    const char *path; /* borrowed */
    const char *unit; /* what the places of records count: "line" or "record" */
    struct task_record *records;
    size_t n_records;
    size_t n_of[3]; /* by kind */
    char sha256[65];
    struct arena arena; /* of everything above */
};

/* At most `most` records (0: all). ERR_FORMAT names the line, what was expected and what is there; ERR_ARG: a
 * form that is not to be told. *out: caller releases with task_release. */
int task_read(struct task *out, const char *path, enum task_form form, size_t most, struct err *e);
/* The same of `len` bytes, behind which a NUL stands; `path` is what messages call them. */
int task_parse(struct task *out, const char *text, size_t len, const char *path, enum task_form form,
               size_t most, struct err *e);
void task_release(struct task *t);

/* --- for the readers of the forms --- */

struct task_reader {
    struct task *task;
    size_t cap, most;
};

/* Room for one more record, zeroed; it counts from here. *out stays NULL when there are enough. */
int task_add(struct task_record **out, struct task_reader *r, struct err *e);

/* Choices of the record added last, zeroed. */
int task_choices(struct task_record *x, struct task_reader *r, size_t n, struct err *e);

int task_read_jsonl(struct task_reader *r, const char *text, size_t len, struct err *e);
int task_read_hellaswag(struct task_reader *r, const char *text, size_t len, struct err *e);
int task_read_winogrande(struct task_reader *r, const char *text, size_t len, struct err *e);
int task_read_peer(struct task_reader *r, const char *bytes, size_t len, struct err *e);

#endif
