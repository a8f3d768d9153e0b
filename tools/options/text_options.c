/* text_options.c - see text_options.h. */
#include "text_options.h"

#include "tools/cmd.h"

#include "calib/corpus.h"
#include "formats/model/model.h"
#include "formats/output/output_file.h"
#include "formats/tokenizer/tokenizer.h"

bool given_text_is_there(const struct given_text *g)
{
    return g->texts->n > 0 || g->ids;
}

int given_text_check(const struct opt_command *cmd, const struct given_text *g)
{
    if (g->texts->n > 0 && g->ids)
        return cmd_usage(cmd, "--text and --ids exclude each other");
    if (g->jsonl && g->ids)
        return cmd_usage(cmd, "--jsonl says what is in a --text; it says nothing about --ids");
    return 0;
}

int given_text_check_output(const struct given_text *g, const char *path, struct err *e)
{
    int rc = g->ids ? output_file_check_input(path, g->ids, e) : 0;
    for (size_t i = 0; rc == 0 && i < g->texts->n; i++)
        rc = output_file_check_input(path, g->texts->items[i], e);
    return rc;
}

int given_text_tokenizer(struct tokenizer **t, const struct vocabulary **v, struct model *m,
                         const struct shared_options *s, struct err *e)
{
    int rc = cmd_vocabulary(s, m, v, e);
    if (rc == 0)
        return tokenizer_new(t, *v, e);
    const struct err why = *e;
    return err_set(e, rc, "%s; --ids FILE takes token ids in place of a text", why.msg);
}

void given_text_warn(const struct corpus *c, const struct shared_options *s)
{
    for (size_t i = 0; i < c->n_texts; i++) {
        const struct corpus_text *t = &c->texts[i];
        cmd_warn_text(s, t->path, t->doubt, t->n_replaced, t->first_replaced);
        cmd_warn_form(s, t->path, &t->form);
    }
}

int given_text_read(struct corpus *c, int32_t *bos, const struct given_text *g, struct model *m,
                    const struct shared_options *s, struct err *e)
{
    const struct vocabulary *v = NULL;
    struct tokenizer *t = NULL;
    *bos = -1;
    if (g->ids)
        return corpus_add_ids(c, g->ids, e);
    int rc = given_text_tokenizer(&t, &v, m, s, e);
    const struct jsonl_options jsonl = {.field = g->jsonl,
                                        .chat_template = rc == 0 ? v->chat_template : NULL,
                                        .parse_special = g->parse_special,
                                        .answers = g->answers};
    for (size_t i = 0; rc == 0 && i < g->texts->n; i++)
        rc = g->jsonl ? corpus_add_jsonl(c, t, g->texts->items[i], &jsonl, e)
                      : corpus_add_text(c, t, g->texts->items[i], g->parse_special, e);
    if (rc == 0)
        given_text_warn(c, s);
    if (rc == 0 && tokenizer_adds_bos(t))
        *bos = (int32_t)v->bos;
    tokenizer_free(t);
    return rc;
}
