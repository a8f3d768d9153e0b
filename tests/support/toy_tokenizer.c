/* toy_tokenizer.c - see toy_tokenizer.h. */
#include "toy_tokenizer.h"

#include "libquant/base/arena.h"
#include "libquant/base/rng.h"
#include "libquant/base/strmap.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKEN_BYTES 12

struct token {
    const char *text; /* raw bytes */
    uint32_t len;
    uint32_t left, right; /* of the merge; both 0 for a byte */
};

struct toy_vocab {
    struct arena arena;
    struct token *tokens;
    uint32_t n;
    uint32_t *pool; /* tokens that may take part in a merge: letters, and words that begin with a space */
    uint32_t n_pool;
    struct strmap by_text;
};

/* The order of GPT-2: the bytes that print as themselves come first. */
static bool prints_as_itself(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

static int add_token(struct toy_vocab *v, const char *text, uint32_t len, uint32_t left, uint32_t right)
{
    bool existing = false;
    if (strmap_find(&v->by_text, text, len, NULL))
        return 1;
    const char *copy = arena_strndup(&v->arena, text, len);
    if (!copy || strmap_put(&v->by_text, copy, len, v->n, &existing) != 0)
        return ERR_NOMEM;
    v->tokens[v->n] = (struct token){copy, len, left, right};
    bool letters = len > 0;
    for (uint32_t i = 0; i < len; i++) {
        unsigned c = (unsigned char)text[i];
        letters &= (c | 32) >= 'a' && (c | 32) <= 'z' ? true : c == ' ' && i == 0;
    }
    if (letters)
        v->pool[v->n_pool++] = v->n;
    v->n++;
    return 0;
}

/* 0, 1 when the text exists already, or an error. */
static int add_merge(struct toy_vocab *v, uint32_t left, uint32_t right)
{
    char text[2 * MAX_TOKEN_BYTES];
    const struct token *a = &v->tokens[left], *b = &v->tokens[right];
    if (a->len + b->len > MAX_TOKEN_BYTES || b->text[0] == ' ')
        return 1;
    memcpy(text, a->text, a->len);
    memcpy(text + a->len, b->text, b->len);
    return add_token(v, text, a->len + b->len, left, right);
}

/* Frequent English pieces first, so that text shortens as it does with a real tokenizer. */
static int add_known_merges(struct toy_vocab *v, uint32_t n_target)
{
    static const char *const known[] = {
        " t", "he",  "in",   "er",  "an",   " a",  "re",   "on",   " the", " s",   "at",  "en",
        "ou", " w",  " c",   "nd",  "is",   "or",  "ing",  "it",   " o",   "es",   " b",  " f",
        " m", "ed",  " p",   " in", " and", "al",  "ar",   " of",  " to",  "st",   " h",  " d",
        "ic", "ion", " th",  "le",  "as",   "ve",  "ro",   " is",  "ent",  "ll",   " re", "ly",
        " n", "id",  " was", " be", "ow",   "ver", "tion", " for", " he",  " that"};
    for (size_t i = 0; i < sizeof known / sizeof *known && v->n < n_target; i++) {
        /* split where both parts are tokens, at the longest left part */
        uint32_t len = (uint32_t)strlen(known[i]);
        for (uint32_t cut = len - 1; cut > 0; cut--) {
            uint64_t left, right;
            if (!strmap_find(&v->by_text, known[i], cut, &left) ||
                !strmap_find(&v->by_text, known[i] + cut, len - cut, &right))
                continue;
            int rc = add_merge(v, (uint32_t)left, (uint32_t)right);
            if (rc < 0)
                return rc;
            break;
        }
    }
    return 0;
}

static int build(struct toy_vocab *v, uint32_t n_target, uint64_t seed, struct err *e)
{
    struct rng rng = {seed};
    v->tokens = arena_array(&v->arena, n_target, sizeof *v->tokens);
    v->pool = arena_array(&v->arena, n_target, sizeof *v->pool);
    if (!v->tokens || !v->pool)
        return err_set(e, ERR_NOMEM, "toy tokenizer: out of memory");
    int rc = 0;
    for (int pass = 0; pass < 2; pass++)
        for (unsigned b = 0; b < 256 && rc == 0; b++)
            if (prints_as_itself(b) == (pass == 0))
                rc = add_token(v, (char[]){(char)b}, 1, 0, 0);
    if (rc == 0)
        rc = add_known_merges(v, n_target);
    /* u * u prefers early tokens, as real merges do; the bound on attempts cannot be reached by the number of
     * letter strings of 12 bytes, and only keeps a mistake from looping */
    for (uint64_t attempts = 0; v->n < n_target && rc >= 0; attempts++) {
        double u = rng_uniform(&rng), w = rng_uniform(&rng);
        rc = add_merge(v, v->pool[(uint32_t)(u * u * v->n_pool)], v->pool[(uint32_t)(w * w * v->n_pool)]);
        if (attempts > 1000 * (uint64_t)n_target)
            return err_set(e, ERR_ARG, "toy tokenizer: cannot find %u tokens", n_target);
    }
    return rc < 0 ? err_set(e, ERR_NOMEM, "toy tokenizer: out of memory") : 0;
}

/* A token's bytes in the printable alphabet of GPT-2, inside a JSON string. */
static void put_text(FILE *f, const struct token *t)
{
    for (uint32_t i = 0; i < t->len; i++) {
        unsigned b = (unsigned char)t->text[i], c = b;
        if (!prints_as_itself(b)) {
            c = 256;
            for (unsigned k = 0; k < b; k++)
                c += !prints_as_itself(k);
        }
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", (int)c);
        else if (c < 0x80)
            fputc((int)c, f);
        else
            fprintf(f, "%c%c", (int)(0xc0 | c >> 6), (int)(0x80 | (c & 0x3f)));
    }
}

static const char *const special[TOY_N_SPECIAL] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

static void put_tokenizer(FILE *f, const struct toy_vocab *v)
{
    static const char byte_level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                                     "\"trim_offsets\": false, \"use_regex\": false}";
    fputs("{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [", f);
    for (uint32_t i = 0; i < TOY_N_SPECIAL; i++)
        fprintf(f,
                "%s\n{\"id\": %u, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
                "\"rstrip\": false, \"normalized\": false, \"special\": true}",
                i ? "," : "", v->n + i, special[i]);
    fputs(
        "],\n\"normalizer\": {\"type\": \"NFC\"},\n"
        "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
        "{\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?"
        "[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, "
        "\"behavior\": \"Isolated\", \"invert\": false}, ",
        f);
    fprintf(f, "%s]},\n\"post_processor\": %s,\n\"decoder\": %s,\n", byte_level, byte_level, byte_level);
    fputs("\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
          "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", \"fuse_unk\": false, "
          "\"byte_fallback\": false, \"vocab\": {",
          f);
    for (uint32_t i = 0; i < v->n; i++) {
        fputs(i ? ",\n\"" : "\n\"", f);
        put_text(f, &v->tokens[i]);
        fprintf(f, "\": %u", i);
    }
    fputs("},\n\"merges\": [", f);
    for (uint32_t i = 256; i < v->n; i++) {
        fputs(i > 256 ? ",\n\"" : "\n\"", f);
        put_text(f, &v->tokens[v->tokens[i].left]);
        fputc(' ', f);
        put_text(f, &v->tokens[v->tokens[i].right]);
        fputc('"', f);
    }
    fputs("]}}\n", f);
}

static void put_config(FILE *f, const struct toy_vocab *v)
{
    fputs("{\n \"add_prefix_space\": false,\n \"added_tokens_decoder\": {", f);
    for (uint32_t i = 0; i < TOY_N_SPECIAL; i++)
        fprintf(f,
                "%s\n  \"%u\": {\"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
                "\"rstrip\": false, \"normalized\": false, \"special\": true}",
                i ? "," : "", v->n + i, special[i]);
    fputs("\n },\n \"bos_token\": null,\n \"clean_up_tokenization_spaces\": false,\n"
          " \"eos_token\": \"<|endoftext|>\",\n \"errors\": \"replace\",\n \"model_max_length\": 32768,\n"
          " \"pad_token\": \"<|endoftext|>\",\n \"split_special_tokens\": false,\n"
          " \"tokenizer_class\": \"Qwen2Tokenizer\",\n \"unk_token\": null,\n"
          " \"chat_template\": \"{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\\\n' + "
          "message.content + '<|im_end|>' + '\\\\n' }}{%- endfor %}{%- if add_generation_prompt %}"
          "{{- '<|im_start|>assistant\\\\n' }}{%- endif %}\"\n}\n",
          f);
}

static int write_one(const char *folder, const char *name, const struct toy_vocab *v,
                     void (*put)(FILE *, const struct toy_vocab *), struct err *e)
{
    char path[1024];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return err_set(e, ERR_ARG, "%s: path too long", folder);
    FILE *f = fopen(path, "wb");
    if (!f)
        return err_set(e, ERR_IO, "%s: cannot open for writing", path);
    put(f, v);
    bool bad = ferror(f) != 0;
    bad |= fclose(f) != 0;
    return bad ? err_set(e, ERR_IO, "%s: cannot write", path) : 0;
}

int toy_tokenizer_write(const char *folder, uint32_t n_vocab, uint64_t seed, struct err *e)
{
    struct toy_vocab v = {0};
    if (n_vocab < 256 + TOY_N_SPECIAL)
        return err_set(e, ERR_ARG, "toy tokenizer: needs a vocabulary of at least %d, got %u",
                       256 + TOY_N_SPECIAL, n_vocab);
    int rc = build(&v, n_vocab - TOY_N_SPECIAL, seed, e);
    if (rc == 0)
        rc = write_one(folder, "tokenizer.json", &v, put_tokenizer, e);
    if (rc == 0)
        rc = write_one(folder, "tokenizer_config.json", &v, put_config, e);
    strmap_release(&v.by_text);
    arena_release(&v.arena);
    return rc;
}
