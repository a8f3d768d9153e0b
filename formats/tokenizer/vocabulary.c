/* vocabulary.c - which files of a HuggingFace folder hold the tokenizer, and what all of them have in common.
 *
 * tokenizer.json rules, as in transformers. A SentencePiece tokenizer.model beside it is read in its place
 * where both hold the same pieces, since it has their scores. Then tekken.json, vocab.json with merges.txt,
 * qwen.tiktoken, and a tokenizer.model that is a tiktoken rank file (Meta's own Llama 3 release). */
#include "vocab_build.h"

#include "libquant/base/filemap.h"
#include "pretokenize.h"

#include <string.h>

/* A SentencePiece model begins with the tag of its first piece, 0x0A; a rank file begins with base64. */
static int is_sentencepiece(bool *out, struct vocab_build *b, struct err *e)
{
    struct filemap m = {0};
    const char *path = vocab_path(b, "tokenizer.model");
    int rc = path ? filemap_open(&m, path, e) : err_set(e, ERR_NOMEM, "out of memory for a path");
    if (rc == 0)
        *out = m.size > 0 && m.data[0] == 0x0A;
    filemap_close(&m);
    return rc;
}

/* The first token that tokenizer.json and tokenizer.model do not share; NULL: none. Only BPE with byte
 * fallback is of SentencePiece's kind at all. */
static const char *first_difference(const struct json *model, const struct vocabulary *pieces, bool *seen)
{
    bool fallback = false;
    const struct json *vocab = json_get(model, "vocab");
    json_bool(json_get(model, "byte_fallback"), &fallback);
    if (!fallback)
        return json_first(vocab) ? json_key(json_first(vocab)) : "";
    for (const struct json *t = json_first(vocab); t; t = json_next(t)) {
        uint64_t id;
        if (!json_uint(t, &id) || id >= pieces->n_tokens || !pieces->tokens[id].text)
            continue;
        if (strcmp(pieces->tokens[id].text, json_key(t)) != 0)
            return json_key(t);
        seen[id] = true;
    }
    for (size_t i = 0; i < pieces->n_tokens; i++)
        if (!seen[i] && pieces->tokens[i].text && pieces->tokens[i].type == TOKEN_NORMAL)
            return pieces->tokens[i].text;
    return NULL;
}

/* Is tokenizer.model to be read, or does the tokenizer.json beside it say something else? A model that cannot
 * be read does not count beside a tokenizer.json of BPE. */
static int agrees(bool *same, struct vocab_build *b, struct err *e)
{
    const struct json *model = json_get(json_root(b->tokenizer_json), "model");
    const char *type = json_string(json_get(model, "type")), *path = vocab_path(b, "tokenizer.model");
    struct vocab_build other = {.folder = b->folder};
    struct filemap m = {0};
    struct err soft = {0};
    *same = true;
    if (!json_is_object(model) || (type && strcmp(type, "BPE") != 0) ||
        !json_is_object(json_get(model, "vocab")))
        return 0;
    int rc = path ? vocab_build_init(&other, e) : err_set(e, ERR_NOMEM, "out of memory for a path");
    if (rc != 0)
        return rc;
    rc = filemap_open(&m, path, e);
    if (rc == 0) {
        int parsed = vocab_parse_spm(&other, (struct slice){m.data, m.size}, path, &soft);
        bool *seen = arena_array(b->arena, other.v->n_tokens + 1, sizeof *seen);
        const char *token = "?";
        if (parsed == ERR_NOMEM || !seen)
            rc = err_set(e, ERR_NOMEM, "%s: out of memory to compare it with tokenizer.json", path);
        else if (parsed == 0)
            token = first_difference(model, other.v, seen);
        *same = token == NULL;
        if (rc == 0 && token)
            vocab_warn(
                b,
                "[files-ignored] %s: tokenizer.model is not that of tokenizer.json (the token '%.60s' is the "
                "first that differs); tokenizer.json is read, as in transformers",
                b->folder, token);
    }
    filemap_close(&m);
    vocabulary_free(other.v);
    vocab_build_release(&other);
    return rc;
}

static int import(struct vocab_build *b, struct err *e)
{
    bool model = vocab_file_exists(b, "tokenizer.model"), spm = false;
    int rc = model ? is_sentencepiece(&spm, b, e) : 0;
    if (rc == 0 && spm && b->tokenizer_json)
        rc = agrees(&spm, b, e);
    if (rc != 0)
        return rc;
    if (spm)
        return vocab_import_spm(b, e);
    if (b->tokenizer_json)
        return vocab_import_tokenizer_json(b, e);
    if (vocab_file_exists(b, "tekken.json"))
        return vocab_import_tekken(b, e);
    if (vocab_file_exists(b, "vocab.json") && vocab_file_exists(b, "merges.txt"))
        return vocab_import_vocab_merges(b, e);
    if (vocab_file_exists(b, "qwen.tiktoken"))
        return vocab_import_tiktoken(b, "qwen.tiktoken", e);
    if (model)
        return vocab_import_tiktoken(b, "tokenizer.model", e);
    return err_set(e, ERR_IO,
                   "%s: no tokenizer found (tokenizer.json, vocab.json with merges.txt, tokenizer.model or "
                   "qwen.tiktoken)",
                   b->folder);
}

static bool is_llama_family(const char *arch)
{
    return strncmp(arch, "Llama", 5) == 0 || strncmp(arch, "LLaMA", 5) == 0 ||
           strncmp(arch, "Mistral", 7) == 0 || strncmp(arch, "Mixtral", 7) == 0;
}

/* A space before the text alone is what no key of a file can say. */
static void warn_of_first_space(struct vocab_build *b)
{
    const struct json *pt = json_get(json_root(b->tokenizer_json), "pre_tokenizer");
    const char *type = json_string(json_get(pt, "type")),
               *scheme = json_string(json_get(pt, "prepend_scheme"));
    if (b->v->model == VOCAB_SPM && b->v->add_space_prefix != VOCAB_FLAG_FALSE && type && scheme &&
        strcmp(type, "Metaspace") == 0 && strcmp(scheme, "first") == 0)
        vocab_warn(b, "[runtime-differs] tokenizer.json puts a space before the text alone; runtimes of GGUF "
                      "files, and commands here, put one behind every special token, too, so that what "
                      "follows one in a chat can get other ids");
}

/* Flags that need the whole picture. */
static void settle_flags(struct vocab_build *b)
{
    struct vocabulary *v = b->v;
    const char *arch = b->config ? hf_config_architecture(b->config) : "";
    bool prefix;
    if ((v->model == VOCAB_SPM || is_llama_family(arch)) &&
        json_bool(json_get(json_root(b->tokenizer_config), "add_prefix_space"), &prefix))
        v->add_space_prefix = prefix ? VOCAB_FLAG_TRUE : VOCAB_FLAG_FALSE;
    warn_of_first_space(b);
    /* Runtimes add BOS by default under some names; a tokenizer.json that does not add it must say so. */
    const struct pretokenizer_info *info = pretokenizer_find(v->pre);
    if (v->model == VOCAB_BPE && info && info->add_bos && b->tokenizer_json && v->add_bos == VOCAB_FLAG_UNSET)
        v->add_bos = VOCAB_FLAG_FALSE;
}

static int load(struct vocab_build *b, struct err *e)
{
    int rc = 0;
    if (vocab_file_exists(b, "tokenizer.json"))
        rc = vocab_load_json(&b->tokenizer_json, b, "tokenizer.json", e);
    if (rc == 0 && vocab_file_exists(b, "tokenizer_config.json"))
        rc = vocab_load_json(&b->tokenizer_config, b, "tokenizer_config.json", e);
    if (rc == 0)
        rc = vocab_collect_added(b, e);
    if (rc == 0)
        rc = import(b, e);
    if (rc != 0)
        return rc;
    vocab_special_ids(b);
    vocab_end_tokens(b);
    settle_flags(b);
    return vocab_chat_templates(b, e);
}

int vocabulary_load_hf(struct vocabulary **out, const char *folder, const struct hf_config *config,
                       uint64_t n_rows, struct err *e)
{
    struct vocab_build b = {.folder = folder, .config = config, .n_rows = n_rows};
    int rc = vocab_build_init(&b, e);
    if (rc != 0)
        return rc;
    if (n_rows == 0 && config && !hf_config_uint(config, "vocab_size", &b.n_rows, NULL))
        b.n_rows = 0;
    rc = load(&b, e);
    if (rc != 0) {
        err_context_path(e, rc, folder);
        vocabulary_free(b.v);
    } else {
        *out = b.v;
    }
    vocab_build_release(&b);
    return rc;
}
