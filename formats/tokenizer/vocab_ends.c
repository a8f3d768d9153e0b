/* vocab_ends.c - tokens at which a chat stops: all of them must reach the file.
 *
 * HuggingFace ends a text at any id of eos_token_id, which may be a list and stands in generation_config.json
 * or config.json. Runtimes of GGUF files end at the keys for eos, eot and eom, and at tokens whose text they
 * know. What neither covers gets one of the two keys that are free. Truth: llama.cpp's vocabulary loader. */
#include "vocab_build.h"

#include <string.h>

enum { MAX_ENDS = 64 };

struct ends {
    int64_t id[MAX_ENDS];
    size_t n;
};

static bool is_known(const struct vocab_token *t)
{
    static const char *const texts[] = {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        /* in two strings, since the e of "end" would go on with the escape */
        ("<\xEF\xBD\x9C"
         "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"),
        "[e~[",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strlen(texts[i]) == t->len && memcmp(texts[i], t->text, t->len) == 0)
            return true;
    return false;
}

static void add_id(struct vocab_build *b, struct ends *ends, const struct json *j, const char *where)
{
    int64_t id;
    if (!json_int(j, &id) || id < 0 || (uint64_t)id >= b->v->n_tokens) {
        vocab_warn(b, "[special-token] %s: an eos_token_id is not a token of the vocabulary and is ignored",
                   where);
        return;
    }
    for (size_t i = 0; i < ends->n; i++)
        if (ends->id[i] == id)
            return;
    if (ends->n < MAX_ENDS)
        ends->id[ends->n++] = id;
    else
        vocab_warn(b, "[special-token] %s: more than %d end tokens; the others are ignored", where, MAX_ENDS);
}

/* `j`: an id, a list of ids, null or nothing. */
static void add_ids(struct vocab_build *b, struct ends *ends, const struct json *j, const char *where)
{
    if (json_is_array(j))
        for (const struct json *k = json_first(j); k; k = json_next(k))
            add_id(b, ends, k, where);
    else if (j && !json_is_null(j))
        add_id(b, ends, j, where);
}

static void collect(struct vocab_build *b, struct ends *ends)
{
    static const char key[] = "eos_token_id", generation[] = "generation_config.json";
    const struct json *root = b->config ? hf_config_root(b->config) : NULL;
    const struct json *stated = json_get(root, key);
    struct json_doc *doc = NULL;
    if (!stated || json_is_null(stated))
        stated = json_get(json_get(root, "text_config"), key);
    /* a file that cannot be read is warned of where sampling defaults are taken from it */
    if (b->folder && vocab_file_exists(b, generation) && vocab_load_json(&doc, b, generation, NULL) == 0)
        add_ids(b, ends, json_get(json_root(doc), key), generation);
    if (json_is_array(stated)) /* a single one is a special id already, and judged there */
        add_ids(b, ends, stated, "config.json");
    json_free(doc);
}

void vocab_end_tokens(struct vocab_build *b)
{
    struct vocabulary *v = b->v;
    struct ends ends = {.n = 0};
    collect(b, &ends);
    for (size_t i = 0; i < ends.n; i++) {
        int64_t id = ends.id[i];
        const struct vocab_token *t = &v->tokens[id];
        if (id == v->eos || id == v->eot || id == v->eom || is_known(t))
            continue;
        if (v->eos < 0)
            v->eos = id;
        else if (v->eot < 0)
            v->eot = id;
        else if (v->eom < 0)
            v->eom = id;
        else
            vocab_warn(b,
                       "[end-token-lost] token %lld '%.60s' ends a text, but a GGUF file has no key left to "
                       "say so (eos, eot and eom are taken): runtimes will not stop there",
                       (long long)id, t->text);
    }
}
