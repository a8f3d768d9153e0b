/* corpus.h - texts as token ids, cut into the windows that evaluation and calibration run on.
 *
 *     corpus_add_text(&c, tokenizer, "wiki.test.raw", false, &e);
 *     windows_cut(&w, &c, &(struct window_options){.ctx = 512, .bos = -1}, &e);
 *
 * Windows are llama.cpp's chunks: consecutive, independent, the tail that does not fill one is left out; in
 * each the positions from the middle on predict their next token, so a scored token has at least half a
 * window of context. With a stride, windows overlap and the last `stride` tokens of each are scored. Truth:
 * specification, calibration-and-evaluation 1.5 and 6. */
#ifndef KERF_CORPUS_H
#define KERF_CORPUS_H

#include "formats/text_sniff.h"
#include "libquant/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sha256;
struct tokenizer;

/* What a text holds that is read as it stands, and perhaps was not meant to be. */
struct corpus_form {
    bool has_bom;       /* begins with a byte order mark, which has tokens like any text */
    uint64_t n_crlf;    /* lines that end with a carriage return and a line feed */
    uint64_t n_control; /* texts of control tokens in its first MiB that were read as text */
    uint64_t n_looked;  /* bytes of which that is said */
};

struct corpus_text {
    char *path; /* as given; owned */
    size_t begin, end;
    uint64_t n_bytes;
    char sha256[65];                     /* of the bytes of the (decompressed) text, or of the ids as int32 */
    uint64_t n_replaced, first_replaced; /* bytes that are not UTF-8, taken as U+FFFD; offset of the first */
    struct corpus_form form;
    char doubt[TEXT_SNIFF_BYTES]; /* why it is evidently no text (text_sniff.h); empty: it may be */
};

/* Caller-owned; a zeroed struct is empty. */
struct corpus {
    int32_t *ids;
    uint8_t *answers; /* [n_ids] 1: of an answer in a chat (jsonl_options.answers); NULL: nobody asked */
    size_t n_ids;
    struct corpus_text *texts;
    size_t n_texts;
    bool from_ids;  /* given as ids: taken as they are */
    bool allow_eos; /* set before adding: texts may end in EOS, as models that pool the last token have it */
    bool *record_cut;    /* [n_records] a record was made shorter to fit (jsonl_options.ctx) */
    size_t *record_ends; /* [n_records] ends of the single texts, in ids; see corpus_add_lines */
    size_t n_records, records_cap;
};

/* Tokenize a text file ("-": standard input, .gz: gzip), with BOS as the vocabulary says.
 * ERR_UNSUPPORTED: the vocabulary appends EOS, which has no place inside running text (allow_eos: it has). */
int corpus_add_text(struct corpus *c, const struct tokenizer *t, const char *path, bool parse_special,
                    struct err *e);

/* JSON lines: one object a line (blank lines are skipped), of which `field` is used. A string is text and
 * gets a line end if it has none. A list of messages {"role", "content"} is rendered as the model's chat
 * template (formats/tokenizer/chat.h) has it, and its control tokens are parsed. Each record is tokenized on
 * its own, with BOS as the vocabulary says, and follows the one before: the file is one text. ERR_FORMAT
 * names the line; ERR_UNSUPPORTED: as above, or messages that no known template renders.
 *
 * `separate`: each record is a text of its own, as corpus_add_lines has it, and no line end is added. A
 * record may then also be an object {"query", "document"}, which is put into `pair_template`; ERR_ARG: not
 * even the start of its document fits into ctx tokens. */
struct jsonl_options {
    const char *field;
    const char *chat_template; /* NULL: none; then messages are refused */
    bool parse_special;        /* in strings */
    bool separate;
    const char *pair_template; /* with {query} and {document} in it; NULL: none */
    size_t ctx; /* of a pair: the document is cut until the whole prompt has so many tokens; 0: any number */
    /* Records are messages, and corpus.answers says what the assistant wrote in them, from behind the line
     * that opens its turn to the token that ends it. ERR_FORMAT: a string. */
    bool answers;
};
int corpus_add_jsonl(struct corpus *c, const struct tokenizer *t, const char *path,
                     const struct jsonl_options *opt, struct err *e);

/* Each line that is not blank is a text of its own, with BOS and EOS as the vocabulary says, for models that
 * answer once for a text. It ends where the next entry of record_ends says. */
int corpus_add_lines(struct corpus *c, const struct tokenizer *t, const char *path, bool parse_special,
                     struct err *e);

/* Add what is said of a text, or of one record of many; control tokens are not counted with
 * `parse_special`, which reads them as tokens. */
int corpus_look_at_form(struct corpus_form *f, const struct tokenizer *t, const char *text, size_t len,
                        bool parse_special, struct err *e);

/* Note what was not UTF-8 in the text that was added last, and whether it is text at all. */
void corpus_note_bytes(struct corpus *c, const char *text, size_t len);

/* Note that a text of its own ends at the `at`-th id. */
int corpus_end_record(struct corpus *c, size_t at, struct err *e);

/* Ids from elsewhere as one text; `ids` is copied. `sha256` (64 digits) and n_bytes are of what they were
 * made from; NULL: of the ids. */
int corpus_add_tokens(struct corpus *c, const char *name, const int32_t *ids, size_t n, const char *sha256,
                      uint64_t n_bytes, struct err *e);

/* ERR_UNSUPPORTED when the vocabulary appends EOS and that is not allowed; `path` opens the message. */
int corpus_check_tokenizer(const struct corpus *c, const struct tokenizer *t, const char *path,
                           struct err *e);

/* Token ids: a JSON array, alone or as the member "ids" of an object, or numbers with white space between.
 * ERR_FORMAT: anything else, such as a NUL byte, behind which nothing would be read. */
int corpus_add_ids(struct corpus *c, const char *path, struct err *e);

/* ERR_ARG: an id is not below n_vocab, the rows of the embedding of the model that is to run it. */
int corpus_check_ids(const struct corpus *c, uint32_t n_vocab, struct err *e);
void corpus_release(struct corpus *c);

/* SHA-256 of all ids as little-endian int32, hexadecimal: what exactly was evaluated. */
void corpus_hash(const struct corpus *c, char out[65]);

struct window_options {
    size_t ctx;         /* tokens per window */
    size_t max_windows; /* 0: all */
    size_t stride;      /* 0: disjoint windows */
    int32_t bos;        /* replaces the first token of each window; -1: nothing is replaced */
    bool all_positions; /* predict from the first token on, to see how loss depends on depth */
};

/* What a position that was predicted counts for. */
enum window_use {
    WINDOW_SCORED = 1, /* the figures of the text */
    WINDOW_DEPTH = 2,  /* those by position */
};

struct windows {
    size_t ctx, n;
    int32_t *inputs;   /* [n, ctx], owned */
    size_t first, end; /* scored positions of each window: [first, end) */
    int32_t *targets;  /* [n, end - first] the token that follows each; owned */
    uint8_t *use;      /* [n, end - first] bits of enum window_use; NULL: all count for all; owned */
    uint32_t *text;    /* [n] of the corpus that each is from; or NULL; owned */
};

/* Windows never cross from one text into the next. A list of ids shorter than ctx becomes one window.
 * ERR_ARG: nothing to cut, with the number of tokens that is needed; no token of an answer is scored. */
int windows_cut(struct windows *out, const struct corpus *c, const struct window_options *opt, struct err *e);
void windows_release(struct windows *w);

/* Is any of them from this text of the corpus? */
bool windows_use_text(const struct windows *w, size_t text);

/* Leave out the first n. */
void windows_skip(struct windows *w, size_t n);

/* Keep n of them, evenly spread; all when there are no more. */
void windows_thin(struct windows *w, size_t n);

/* Keep n of them like windows_thin, and up to n_rest of the others, evenly spread, in *rest, for what must
 * not be seen before. Where there are no more than n, a quarter is set aside, at least one; of a single
 * window nothing is, and rest->n is 0. *rest: caller releases. ERR_NOMEM. */
int windows_split(struct windows *w, size_t n, struct windows *rest, size_t n_rest, struct err *e);

/* Scored positions per window. */
size_t windows_n_scored(const struct windows *w);

/* Add the tokens themselves to a hash, those that are read and those that are predicted, whatever texts,
 * options and division they come from: what a run on these windows follows from. corpus_hash does not tell
 * where texts end, nor which token begins a window. */
void windows_add_to_hash(struct sha256 *h, const struct windows *w);

/* SHA-256 of that alone, hexadecimal. */
void windows_hash(const struct windows *w, char out[65]);

#endif
