/* chat.h - message lists as the text a chat model was trained on, for templates of the ChatML family (Qwen).
 *
 *     struct chat_template *c;
 *     if (chat_template_new(&c, vocabulary->chat_template, &e) != 0) return report(&e);
 *     chat_render(c, messages, n, false, &text, &len, &e);
 *
 * There is no Jinja interpreter here. What plain messages (role and content, no tools, no images) need is
 * derived from the template's text: its default system message, whether reasoning of earlier turns is dropped
 * and an empty reasoning block is added to the last one (Qwen3, Qwen3.5), whether contents are trimmed
 * (Qwen3.5), and what opens the answer. A template that is not of this kind is refused rather than guessed.
 */
#ifndef KERF_CHAT_H
#define KERF_CHAT_H

#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct chat_message {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8, NUL-terminated */
};

struct chat_template;

/* `text`: the Jinja source, not kept. ERR_UNSUPPORTED says what about it is not known. *out: caller frees
 * with chat_template_free. */
int chat_template_new(struct chat_template **out, const char *text, struct err *e);
void chat_template_free(struct chat_template *c);

/* The system message that is used when the list does not begin with one; NULL: none. */
const char *chat_default_system(const struct chat_template *c);

/* *out: malloc'ed text of `*len` bytes and a NUL, caller frees with free(). `open_answer`: end with what the
 * model continues (add_generation_prompt). ERR_ARG for an empty list, ERR_FORMAT for a
 * content that is not UTF-8, ERR_UNSUPPORTED for other roles or an
 * order that the template refuses. */
int chat_render(const struct chat_template *c, const struct chat_message *messages, size_t n,
                bool open_answer, char **out, size_t *len, struct err *e);

#endif
