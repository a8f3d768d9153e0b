/* vocab_build.h - what the importers of vocabulary.h share: a vocabulary under construction. Internal. */
#ifndef KERF_VOCAB_BUILD_H
#define KERF_VOCAB_BUILD_H

#include "formats/json.h"
#include "libquant/base/arena.h"
#include "libquant/base/slice.h"
#include "libquant/base/strmap.h"
#include "vocabulary.h"

enum { VOCAB_MAX_TOKENS = 1 << 22, VOCAB_MAX_MERGES = 1 << 23, VOCAB_MAX_FILE = 256 << 20 };

/* An entry of added_tokens, added_tokens_decoder or added_tokens.json. */
struct added_token {
    uint64_t id;
    const char *text;
    bool special, lstrip, rstrip, single_word, normalized;
    bool in_tokenizer_json, in_config; /* config: tokenizer_config.json or added_tokens.json */
    bool of_no_kind;                   /* added_tokens.json alone has it, which knows ids and texts */
};

struct vocab_build {
    struct vocabulary *v;
    struct arena *arena; /* the vocabulary's own */
    const char *folder;  /* NULL when there is none */
    const struct hf_config *config;
    uint64_t n_rows; /* size to fill up to; 0: as many as there are tokens */
    size_t cap_tokens, cap_merges;
    struct json_doc *tokenizer_json, *tokenizer_config; /* NULL: no such file */
    struct added_token *added;                          /* malloc'ed */
    size_t n_added;
};

/* A new empty vocabulary in b->v. */
int vocab_build_init(struct vocab_build *b, struct err *e);
/* Frees what belongs to the building only; *b->v stays. */
void vocab_build_release(struct vocab_build *b);

/* Add a sentence to the vocabulary's warnings; dropped silently only when memory is refused. */
void vocab_warn(struct vocab_build *b, const char *fmt, ...) KERF_PRINTF(2, 3);

/* Give `id` its text (copied). ERR_FORMAT when the id is too large for any vocabulary. A later call replaces.
 */
int vocab_set(struct vocab_build *b, uint64_t id, const char *text, size_t len, enum token_type type,
              float score, struct err *e);
bool vocab_has(const struct vocab_build *b, uint64_t id);
int vocab_add_merge(struct vocab_build *b, const char *left, size_t n_left, const char *right, size_t n_right,
                    struct err *e);

/* Fill to b->n_rows with [PAD<i>] and check that texts are unique and not empty. `clip`: tokens past the end
 * are dropped with a warning, else they are an error. */
int vocab_finish(struct vocab_build *b, float pad_score, bool clip, struct err *e);

/* ERR_FORMAT when a text is empty or two tokens share one. */
int vocab_check_unique(const struct vocabulary *v, struct err *e);

/* `<folder>/<name>` in the arena, NULL when memory is refused; and whether such a file is there. */
const char *vocab_path(struct vocab_build *b, const char *name);
bool vocab_file_exists(struct vocab_build *b, const char *name);
int vocab_load_json(struct json_doc **out, struct vocab_build *b, const char *name, struct err *e);

/* --- vocab_added.c: added tokens --- */
/* Collect b->added from tokenizer.json, tokenizer_config.json and added_tokens.json, the first to name an id
 * wins. */
int vocab_collect_added(struct vocab_build *b, struct err *e);
bool vocab_looks_special(const char *text);
/* Write them into the vocabulary (specification, architectures 19.2 A 3-5); `score` for SentencePiece. */
int vocab_apply_added(struct vocab_build *b, float score, struct err *e);
/* The same for a tokenizer.model: its own pieces stay as they are unless the configuration names them, and
 * ids past the embedding rows are dropped with a warning. */
int vocab_apply_added_spm(struct vocab_build *b, struct err *e);

/* --- vocab_special.c: special ids, add_bos/add_eos, chat templates (19.4 to 19.6) --- */
/* Ids that the files do not name stay as the importer set them. */
void vocab_special_ids(struct vocab_build *b);
int vocab_chat_templates(struct vocab_build *b, struct err *e);

/* --- vocab_ends.c: every token that ends a text, behind the ids above --- */
void vocab_end_tokens(struct vocab_build *b);

/* --- the importers; each fills tokens, merges, model, pre, nfc, ignore_merges --- */
int vocab_import_tokenizer_json(struct vocab_build *b, struct err *e);
int vocab_import_vocab_merges(struct vocab_build *b, struct err *e);
int vocab_import_tiktoken(struct vocab_build *b, const char *name, struct err *e);
int vocab_import_tekken(struct vocab_build *b, struct err *e);
int vocab_import_spm(struct vocab_build *b, struct err *e);

/* The parsers behind the last two, on bytes in memory (also what the fuzz targets call). `what` names the
 * file in messages. tiktoken: `all_splits` lists every way to form a token as a merge (Llama 3), not one
 * (Qwen). */
int vocab_parse_spm(struct vocab_build *b, struct slice file, const char *what, struct err *e);
int vocab_parse_tiktoken(struct vocab_build *b, struct slice file, const char *what, bool all_splits,
                         size_t *n_ranks, struct err *e);
int vocab_parse_tokenizer_json(struct vocab_build *b, const struct json *root, struct err *e);

/* Pre-tokenizer name for folders whose files do not state the pattern; ERR_UNSUPPORTED when unknown. */
int vocab_pre_from_class(struct vocab_build *b, struct err *e);

#endif
