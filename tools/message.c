/* message.c - what commands say on standard error: failures, notes, wrong usage. Warnings are in outcome.c.
 */
#include "cmd.h"
#include "outcome.h"

#include "calib/corpus.h"
#include "formats/model/kv_type.h"
#include "formats/model/model.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/printable.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int cmd_fail(const struct err *e)
{
    cmd_tell_warnings();
    if (e->code == ERR_CANCELLED)
        fprintf(stderr, "kerf: %s\n", e->msg); /* begins with what happened */
    else
        fprintf(stderr, "kerf: error: %s\n", e->msg[0] ? e->msg : "unknown failure");
    outcome_error(outcome_code(e->code), e->msg);
    return CMD_FAILED;
}

static void say(const char *head, const char *fmt, va_list ap)
{
    char text[6000]; /* as much as an error takes (err.c) */
    vsnprintf(text, sizeof text, fmt, ap);
    printable(text);
    fprintf(stderr, "%s%s\n", head, text);
}

int cmd_vocabulary(const struct shared_options *o, struct model *m, const struct vocabulary **out,
                   struct err *e)
{
    int rc = model_vocabulary(m, out, e);
    for (size_t i = 0; rc == 0 && model_is_gguf(m) && i < (*out)->n_warnings; i++)
        cmd_warn_of(o, model_path(m), (*out)->warnings[i]);
    return rc;
}

void cmd_warn_idle_values(const struct shared_options *o, const char *path, const struct kv_cache *cache)
{
    char name[KV_CACHE_NAME];
    if (cache->k != cache->v)
        cmd_warn(
            o,
            "[option-idle] %s: its cache holds latents, which serve as keys and as values; of the types %s "
            "the second decides nothing",
            path, kv_cache_name(cache, name));
}

void cmd_warn_text(const struct shared_options *o, const char *path, const char *doubt, uint64_t n,
                   uint64_t first)
{
    if (doubt[0])
        cmd_warn(o,
                 "[not-a-text] %s: this does not look like a text: it %s; its bytes are read as a text all "
                 "the same",
                 strcmp(path, "-") == 0 ? "standard input" : path, doubt);
    else if (n > 0)
        cmd_warn(o,
                 "[not-utf8] %s: %" PRIu64 " byte%s not UTF-8 (the first at offset %" PRIu64
                 "): read as U+FFFD, the replacement character",
                 path, n, n == 1 ? " is" : "s are", first);
}

void cmd_warn_form(const struct shared_options *o, const char *path, const struct corpus_form *f)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    if (f->has_bom)
        cmd_warn(o,
                 "[text-bom] %s: begins with a byte order mark, which is read as text, as by llama.cpp; "
                 "remove its first three bytes",
                 name);
    if (f->n_crlf)
        cmd_warn(o,
                 "[text-crlf] %s: %" PRIu64
                 " line%s with a carriage return, which is read as text; figures of "
                 "the same text with plain line ends differ",
                 name, f->n_crlf, f->n_crlf == 1 ? " ends" : "s end");
    if (f->n_control)
        cmd_warn(o,
                 "[text-control-tokens] %s: the texts of %" PRIu64
                 " control tokens, such as those of a chat, "
                 "are read as ordinary text; --parse-special reads them as tokens",
                 name, f->n_control);
}

void cmd_note(const struct shared_options *o, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!o->quiet)
        say("kerf: ", fmt, ap);
    va_end(ap);
}

int cmd_usage(const struct opt_command *cmd, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    opt_vusage(cmd, fmt, ap);
    va_end(ap);
    return CMD_USAGE;
}
