/* requests.h - the records of a task as token ids with the positions to score: what a model is run over.
 *
 * A context and its continuation are tokenized together, and the continuation is what follows the tokens of
 * the context alone, whose spaces at the end go to it: as lm-evaluation-harness has it, so that its figures
 * compare. Where nothing stands before, BOS (EOS where there is none) does. */
#ifndef KERF_REQUESTS_H
#define KERF_REQUESTS_H

#include "task.h"

#include "formats/tokenizer/tokenizer.h"

/* One sequence. Targets [first, len) are scored, each from the ids before it. */
struct request {
    size_t begin, len;           /* in `ids`; len at least 2 */
    size_t first;                /* at least 1 */
    size_t own_first;            /* targets [own_first, len) are the continuation */
    size_t mean_first, mean_end; /* those whose mean decides as in llama-perplexity: from where the choices of
                                    a record begin to differ (of WinoGrande: see requests.c) */
};

struct requests {
    struct request *items; /* owned */
    size_t n;
    int32_t *ids; /* owned */
    size_t n_ids;
    size_t *record_begin; /* [n_records + 1]: the requests of a record, one for each choice, or for each
                             window of a text; owned */
    size_t n_cut;         /* records whose context did not fit */
};

struct request_options {
    size_t ctx;                /* most tokens that go into the model */
    const char *chat_template; /* contexts become a user's message; NULL: they stay as they are, and records
                                  with messages are refused */
    bool parse_special;        /* read the text of control tokens, such as <|im_end|>, as control tokens */
};

/* ERR_FORMAT names file and line of a record that gives no tokens to score; ERR_ARG: one that does not fit
 * ctx; ERR_UNSUPPORTED: a chat template that is not known, or none. *out: caller releases with
 * requests_release. */
int requests_make(struct requests *out, const struct task *task, const struct vocabulary *v,
                  const struct request_options *opt, struct err *e);
void requests_release(struct requests *r);

/* Scored targets of a request. */
size_t request_n_scored(const struct request *r);

#endif
