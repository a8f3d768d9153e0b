/* vocab_tiktoken.c - vocabularies kept as tiktoken rank files: Qwen 1.0's qwen.tiktoken, Llama 3's own
 * release; and Mistral's tekken.json, which holds the same ranks as JSON, with special tokens in front.
 *
 * Each line is `base64 SP rank`; the rank is the token id. Merges are not in the file: they follow from the
 * ranks (specification, architectures 19.2 C). Special tokens are not in it either: they stand in the program
 * that came with the model, so their names are here.
 *
 * Refuses: files past 32 MiB, tokens past 512 bytes (the longest known has 256), holes in the ranks. */
#include "vocab_build.h"

#include "codepoint.h"
#include "libquant/base/filemap.h"
#include "pretokenize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKEN = 512, MAX_FILE = 32 << 20 };

struct ranks {
    struct strmap by_bytes; /* bytes -> rank */
    struct slice *token;    /* rank -> bytes; malloc'ed array, bytes in the arena */
    size_t n, cap;
};

static int base64_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Standard alphabet with padding; false when it is anything else. `out` has room for n / 4 * 3 bytes. */
static bool base64_decode(const uint8_t *s, size_t n, uint8_t *out, size_t *n_out)
{
    size_t k = 0;
    if (n == 0 || n % 4 != 0)
        return false;
    for (size_t i = 0; i < n; i += 4) {
        bool last = i + 4 == n;
        unsigned pad = last && s[i + 3] == '=' ? s[i + 2] == '=' ? 2 : 1 : 0;
        uint32_t v = 0;
        for (unsigned j = 0; j < 4; j++) {
            int d = j >= 4 - pad ? 0 : base64_digit(s[i + j]);
            if (d < 0)
                return false;
            v = v << 6 | (uint32_t)d;
        }
        for (unsigned j = 0; j < 3 - pad; j++)
            out[k++] = (uint8_t)(v >> (16 - 8 * j));
    }
    *n_out = k;
    return true;
}

/* Append a token; its rank is its place. */
static int push(struct vocab_build *b, struct ranks *r, const uint8_t *bytes, size_t len, const char *what,
                struct err *e)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 4096;
        struct slice *grown = realloc(r->token, cap * sizeof *grown);
        if (!grown)
            return err_set(e, ERR_NOMEM, "%s: out of memory for %zu tokens", what, cap);
        r->token = grown;
        r->cap = cap;
    }
    bool existing;
    char *copy = arena_strndup(b->arena, (const char *)bytes, len);
    if (!copy || strmap_put(&r->by_bytes, copy, len, r->n, &existing) != 0)
        return err_set(e, ERR_NOMEM, "%s: out of memory for token %zu", what, r->n);
    if (existing)
        return err_set(e, ERR_FORMAT, "%s: token %zu repeats an earlier one", what, r->n);
    r->token[r->n++] = (struct slice){(const uint8_t *)copy, len};
    return 0;
}

static int add_rank(struct vocab_build *b, struct ranks *r, const uint8_t *line, size_t n, const char *what,
                    size_t line_no, struct err *e)
{
    const uint8_t *space = memchr(line, ' ', n);
    size_t n_code = space ? (size_t)(space - line) : n;
    uint8_t bytes[MAX_TOKEN + 4];
    size_t len = 0;
    if (n_code > (MAX_TOKEN + 2) / 3 * 4 || !base64_decode(line, n_code, bytes, &len) || len > MAX_TOKEN)
        return err_set(e, ERR_FORMAT, "%s: line %zu is not `base64 rank` (tokens of at most %d bytes)", what,
                       line_no, MAX_TOKEN);
    uint64_t rank = 0;
    size_t i = n_code + 1;
    for (; i < n && line[i] >= '0' && line[i] <= '9' && rank < VOCAB_MAX_TOKENS; i++)
        rank = rank * 10 + (uint64_t)(line[i] - '0');
    if (i != n || n_code + 1 >= n || rank != r->n)
        return err_set(e, ERR_FORMAT, "%s: line %zu should have rank %zu", what, line_no, r->n);
    return push(b, r, bytes, len, what, e);
}

static int read_ranks(struct vocab_build *b, struct ranks *r, struct slice file, const char *what,
                      struct err *e)
{
    const uint8_t *p = file.data, *end = p + file.len;
    for (size_t line_no = 1; p < end; line_no++) {
        const uint8_t *eol = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((eol ? eol : end) - p), next = n + (eol != NULL);
        if (n && p[n - 1] == '\r')
            n--;
        int rc = n ? add_rank(b, r, p, n, what, line_no, e) : 0;
        if (rc != 0)
            return rc;
        p += next;
    }
    return r->n ? 0 : err_set(e, ERR_FORMAT, "%s: there are no tokens", what);
}

static size_t to_alphabet(const uint8_t *bytes, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += utf8_encode(byte_to_codepoint(bytes[i]), (uint8_t *)out + k);
    return k;
}

static int emit(struct vocab_build *b, const uint8_t *token, size_t n_left, size_t len, struct err *e)
{
    char left[2 * MAX_TOKEN], right[2 * MAX_TOKEN];
    size_t n = to_alphabet(token, n_left, left), m = to_alphabet(token + n_left, len - n_left, right);
    return vocab_add_merge(b, left, n, right, m, e);
}

static uint64_t rank_of(const struct ranks *r, const uint8_t *p, size_t n)
{
    uint64_t rank;
    return strmap_find(&r->by_bytes, (const char *)p, n, &rank) ? rank : UINT64_MAX;
}

/* Qwen: apply to the token's own bytes all merges of lower rank; the two parts that remain are its merge.
 * start[i]: where part i begins; pair[i]: rank of parts i and i+1 joined. */
static int emit_last_merge(struct vocab_build *b, const struct ranks *r, size_t id, const char *what,
                           struct err *e)
{
    const uint8_t *t = r->token[id].data;
    size_t len = r->token[id].len, n = len, start[MAX_TOKEN + 1];
    uint64_t pair[MAX_TOKEN];
    for (size_t i = 0; i <= len; i++)
        start[i] = i;
    for (size_t i = 0; i + 1 < len; i++)
        pair[i] = rank_of(r, t + i, 2);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (pair[i] < pair[best])
                best = i;
        if (pair[best] >= id)
            break;
        memmove(start + best + 1, start + best + 2, (n - best - 1) * sizeof *start);
        n--;
        memmove(pair + best, pair + best + 1, (n - best) * sizeof *pair);
        if (best + 1 < n)
            pair[best] = rank_of(r, t + start[best], start[best + 2] - start[best]);
        if (best > 0)
            pair[best - 1] = rank_of(r, t + start[best - 1], start[best + 1] - start[best - 1]);
    }
    if (n != 2 || rank_of(r, t, start[1]) == UINT64_MAX ||
        rank_of(r, t + start[1], len - start[1]) == UINT64_MAX)
        return err_set(e, ERR_FORMAT, "%s: token %zu cannot be formed from two tokens of lower rank", what,
                       id);
    return emit(b, t, start[1], len, e);
}

/* Llama 3 (as HuggingFace converts it): every split into two tokens, by the ranks of the parts. */
static int emit_all_splits(struct vocab_build *b, const struct ranks *r, size_t id, struct err *e)
{
    const uint8_t *t = r->token[id].data;
    size_t len = r->token[id].len, n = 0, cut[MAX_TOKEN];
    uint64_t left[MAX_TOKEN];
    for (size_t k = 1; k < len; k++) {
        uint64_t l = rank_of(r, t, k);
        if (l == UINT64_MAX || rank_of(r, t + k, len - k) == UINT64_MAX)
            continue;
        size_t j = n++;
        for (; j > 0 && left[j - 1] > l; j--) { /* distinct prefixes have distinct ranks: no ties */
            left[j] = left[j - 1];
            cut[j] = cut[j - 1];
        }
        left[j] = l;
        cut[j] = k;
    }
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = emit(b, t, cut[i], len, e);
    return rc;
}

/* All tokens, their ids behind `offset` others, and their merges. */
static int emit_all(struct vocab_build *b, const struct ranks *r, size_t offset, bool all_splits,
                    const char *what, struct err *e)
{
    int rc = 0;
    for (size_t id = 0; id < r->n && rc == 0; id++) {
        char text[2 * MAX_TOKEN];
        size_t n = to_alphabet(r->token[id].data, r->token[id].len, text);
        rc = vocab_set(b, offset + id, text, n, TOKEN_NORMAL, 0, e);
        if (rc == 0 && r->token[id].len > 1)
            rc = all_splits ? emit_all_splits(b, r, id, e) : emit_last_merge(b, r, id, what, e);
    }
    return rc;
}

int vocab_parse_tiktoken(struct vocab_build *b, struct slice file, const char *what, bool all_splits,
                         size_t *n_ranks, struct err *e)
{
    struct ranks r = {0};
    if (file.len > MAX_FILE)
        return err_set(e, ERR_FORMAT, "%s: %zu bytes, at most %d are read", what, file.len, MAX_FILE);
    int rc = read_ranks(b, &r, file, what, e);
    if (rc == 0)
        rc = emit_all(b, &r, 0, all_splits, what, e);
    *n_ranks = r.n;
    strmap_release(&r.by_bytes);
    free(r.token);
    return rc;
}

static int add_special(struct vocab_build *b, size_t *id, const char *text, struct err *e)
{
    int rc = vocab_has(b, *id) ? 0 : vocab_set(b, *id, text, strlen(text), TOKEN_CONTROL, 0, e);
    ++*id;
    return rc;
}

/* Qwen-VL's program has nine more. Its config.json states the id of "<img>", which shows whether this is the
 * list that is meant. */
static int qwen_vl_specials(struct vocab_build *b, size_t id, struct err *e)
{
    static const char *const names[] = {"<ref>",   "</ref>", "<box>",  "</box>",  "<quad>",
                                        "</quad>", "<img>",  "</img>", "<imgpad>"};
    uint64_t image;
    const struct json *visual = b->config ? json_get(hf_config_root(b->config), "visual") : NULL;
    int rc = 0;
    if (!json_uint(json_get(visual, "image_start_id"), &image) || image != id + 6)
        return 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && rc == 0; i++)
        rc = add_special(b, &id, names[i], e);
    return rc;
}

/* Ids after the ranks, in the order of Qwen's tokenization_qwen.py. */
static int qwen_specials(struct vocab_build *b, size_t id, struct err *e)
{
    static const char *const first[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    size_t end_of_text = id;
    int rc = 0;
    for (size_t i = 0; i < 3 && rc == 0; i++)
        rc = add_special(b, &id, first[i], e);
    for (int i = 0; i < 205 && rc == 0; i++) {
        char text[32];
        snprintf(text, sizeof text, "<|extra_%d|>", i);
        rc = add_special(b, &id, text, e);
    }
    b->v->bos = b->v->eos = b->v->unk = (int64_t)end_of_text;
    return rc == 0 ? qwen_vl_specials(b, id, e) : rc;
}

/* Ids after the ranks, in the order of Llama 3's tokenizer.py. */
static int llama3_specials(struct vocab_build *b, size_t id, struct err *e)
{
    static const char *const head[] = {
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|reserved_special_token_2|>",
        "<|reserved_special_token_3|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|reserved_special_token_4|>",
        "<|eot_id|>",
    };
    size_t begin = id;
    int rc = 0;
    for (size_t i = 0; i < sizeof head / sizeof *head && rc == 0; i++)
        rc = add_special(b, &id, head[i], e);
    for (int i = 5; i < 251 && rc == 0; i++) {
        char text[40];
        snprintf(text, sizeof text, "<|reserved_special_token_%d|>", i);
        rc = add_special(b, &id, text, e);
    }
    b->v->bos = (int64_t)begin;
    b->v->eos = (int64_t)begin + 1;
    return rc;
}

int vocab_import_tiktoken(struct vocab_build *b, const char *name, struct err *e)
{
    bool qwen = strcmp(name, "qwen.tiktoken") == 0;
    struct filemap m = {0};
    size_t n_ranks = 0;
    const char *path = vocab_path(b, name);
    int rc = path ? filemap_open(&m, path, e) : err_set(e, ERR_NOMEM, "out of memory for a path");
    if (rc != 0)
        return rc;
    rc = vocab_parse_tiktoken(b, (struct slice){m.data, m.size}, path, !qwen, &n_ranks, e);
    filemap_close(&m);
    b->v->model = VOCAB_BPE;
    b->v->pre = qwen ? "qwen2" : "llama-bpe";
    b->v->nfc = qwen;
    b->v->ignore_merges = !qwen;
    if (rc == 0)
        rc = vocab_apply_added(b, 0, e);
    if (rc == 0)
        rc = qwen ? qwen_specials(b, n_ranks, e) : llama3_specials(b, n_ranks, e);
    return rc == 0 ? vocab_finish(b, 0, false, e) : rc;
}

/* --- tekken.json ---
 *
 * {"config": {"pattern", "default_vocab_size", "default_num_special_tokens"}, "vocab": [{"rank",
 * "token_bytes"}], "special_tokens": [{"rank", "token_str"}]}: ids of special tokens come first, and of the
 * ranks as many follow as fill the vocabulary. Truth: mistral_common (Tekkenizer). */

/* Special tokens of files that do not list them; others are called <SPECIAL_i>. */
static const char *tekken_special(size_t i)
{
    static const char *const names[] = {"<unk>",
                                        "<s>",
                                        "</s>",
                                        "[INST]",
                                        "[/INST]",
                                        "[AVAILABLE_TOOLS]",
                                        "[/AVAILABLE_TOOLS]",
                                        "[TOOL_RESULTS]",
                                        "[/TOOL_RESULTS]",
                                        "[TOOL_CALLS]",
                                        "[IMG]",
                                        "<pad>",
                                        "[IMG_BREAK]",
                                        "[IMG_END]",
                                        "[PREFIX]",
                                        "[MIDDLE]",
                                        "[SUFFIX]",
                                        "[SYSTEM_PROMPT]",
                                        "[/SYSTEM_PROMPT]",
                                        "[TOOL_CONTENT]"};
    return i < sizeof names / sizeof *names ? names[i] : NULL;
}

static int tekken_specials(struct vocab_build *b, const struct json *list, size_t n, const char *what,
                           struct err *e)
{
    int rc = 0;
    for (const struct json *j = json_first(list); rc == 0 && j; j = json_next(j)) {
        uint64_t rank;
        const char *text = json_string(json_get(j, "token_str"));
        if (!json_uint(json_get(j, "rank"), &rank) || rank >= n || !text || !*text || vocab_has(b, rank))
            return err_set(e, ERR_FORMAT, "%s: a special token has no text, or no rank of its own below %zu",
                           what, n);
        rc = vocab_set(b, rank, text, strlen(text), TOKEN_CONTROL, 0, e);
    }
    for (size_t i = 0; rc == 0 && i < n; i++) {
        char text[40];
        const char *known = list ? NULL : tekken_special(i);
        if (vocab_has(b, i))
            continue;
        snprintf(text, sizeof text, "<SPECIAL_%zu>", i);
        rc = vocab_set(b, i, known ? known : text, strlen(known ? known : text), TOKEN_CONTROL, 0, e);
    }
    return rc;
}

static int tekken_ranks(struct vocab_build *b, struct ranks *r, const struct json *vocab, size_t n,
                        const char *what, struct err *e)
{
    int rc = 0;
    for (const struct json *j = json_first(vocab); rc == 0 && j && r->n < n; j = json_next(j)) {
        uint8_t bytes[MAX_TOKEN + 4];
        size_t len = 0;
        uint64_t rank;
        const char *code = json_string(json_get(j, "token_bytes"));
        if (!json_uint(json_get(j, "rank"), &rank) || rank != r->n || !code ||
            strlen(code) > (MAX_TOKEN + 2) / 3 * 4 ||
            !base64_decode((const uint8_t *)code, strlen(code), bytes, &len) || len > MAX_TOKEN)
            return err_set(e, ERR_FORMAT,
                           "%s: entry %zu of the vocabulary should have rank %zu and token_bytes in base64",
                           what, r->n, r->n);
        rc = push(b, r, bytes, len, what, e);
    }
    if (rc == 0 && r->n < n)
        return err_set(e, ERR_FORMAT, "%s: config counts %zu tokens besides special ones, found %zu", what, n,
                       r->n);
    return rc;
}

static int64_t find_special(const struct vocab_build *b, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(b->v->tokens[i].text, text) == 0)
            return (int64_t)i;
    return -1;
}

static int parse_tekken(struct vocab_build *b, const struct json *root, const char *what, struct err *e)
{
    const struct json *config = json_get(root, "config"), *special = json_get(root, "special_tokens");
    const char *pattern = json_string(json_get(config, "pattern"));
    struct ranks r = {0};
    enum pretokenizer kind;
    uint64_t n, n_special;
    if (!pattern || !json_uint(json_get(config, "default_vocab_size"), &n) ||
        !json_uint(json_get(config, "default_num_special_tokens"), &n_special) || n > VOCAB_MAX_TOKENS ||
        n_special >= n)
        return err_set(e, ERR_FORMAT,
                       "%s: config lacks pattern, default_vocab_size or default_num_special_tokens; this is "
                       "not a tokenizer",
                       what);
    if (!pretokenizer_from_patterns(&pattern, 1, &kind) || !pretokenizer_name(kind))
        return err_set(e, ERR_UNSUPPORTED, "%s: a pattern that GGUF files have no name for: %.200s", what,
                       pattern);
    int rc = tekken_specials(b, json_is_array(special) ? special : NULL, (size_t)n_special, what, e);
    if (rc == 0)
        rc = tekken_ranks(b, &r, json_get(root, "vocab"), (size_t)(n - n_special), what, e);
    if (rc == 0)
        rc = emit_all(b, &r, (size_t)n_special, true, what, e);
    strmap_release(&r.by_bytes);
    free(r.token);
    b->v->model = VOCAB_BPE;
    b->v->pre = pretokenizer_name(kind);
    b->v->ignore_merges = true;
    b->v->unk = find_special(b, rc == 0 ? (size_t)n_special : 0, "<unk>");
    b->v->bos = find_special(b, rc == 0 ? (size_t)n_special : 0, "<s>");
    b->v->eos = find_special(b, rc == 0 ? (size_t)n_special : 0, "</s>");
    return rc;
}

int vocab_import_tekken(struct vocab_build *b, struct err *e)
{
    struct json_doc *doc = NULL;
    int rc = vocab_load_json(&doc, b, "tekken.json", e);
    if (rc == 0)
        rc = parse_tekken(b, json_root(doc), "tekken.json", e);
    json_free(doc);
    if (rc == 0)
        rc = vocab_apply_added(b, 0, e);
    return rc == 0 ? vocab_finish(b, 0, false, e) : rc;
}
