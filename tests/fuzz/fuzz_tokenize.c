/* fuzz_tokenize.c - any bytes as text. The first byte chooses vocabulary and options; the ids are in range,
 * and text that is ASCII comes back from the pieces of the byte-level vocabulary. */
#include "formats/tokenizer/codepoint.h"
#include "formats/tokenizer/tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_TOKENS = 300 };

static struct vocab_token tokens[N_TOKENS];
static char texts[N_TOKENS][16];
static struct vocab_merge merges[8];

static void set_token(size_t id, const char *text, enum token_type type, float score)
{
    strcpy(texts[id], text);
    tokens[id] =
        (struct vocab_token){.text = texts[id], .len = (uint32_t)strlen(text), .type = type, .score = score};
}

static void byte_vocabulary(struct vocabulary *v)
{
    static const char *const joined[][2] = {{"a b", "ab"},
                                            {"a a", "aa"},
                                            {"aa aa", "aaaa"},
                                            {"\xC4\xA0 a", "\xC4\xA0"
                                                           "a"}};
    for (unsigned i = 0; i < 256; i++) {
        char text[8] = {0};
        utf8_encode(byte_to_codepoint((uint8_t)i), (uint8_t *)text);
        set_token(i, text, TOKEN_NORMAL, 0);
    }
    for (size_t i = 0; i < 4; i++) {
        set_token(256 + i, joined[i][1], TOKEN_NORMAL, 0);
        merges[i] = (struct vocab_merge){joined[i][0], (uint32_t)strlen(joined[i][0])};
    }
    v->n_merges = 4;
    set_token(260, "<|im_end|>", TOKEN_CONTROL, 0);
    set_token(261, "<b", TOKEN_USER_DEFINED, 0);
    set_token(262, "<b>", TOKEN_USER_DEFINED, 0);
    v->n_tokens = 263;
}

static void piece_vocabulary(struct vocabulary *v)
{
    static const char *const pieces[] = {"\xE2\x96\x81",
                                         "a",
                                         "b",
                                         "ab",
                                         ("\xE2\x96\x81"
                                          "a"),
                                         "aa",
                                         "\xE4\xB8\xAD",
                                         "a\xE4\xB8\xAD"};
    static const char hex[] = "0123456789ABCDEF";
    set_token(0, "<unk>", TOKEN_UNKNOWN, 0);
    set_token(1, "<s>", TOKEN_CONTROL, 0);
    set_token(2, "</s>", TOKEN_CONTROL, 0);
    for (size_t i = 0; i < 256; i++) {
        char text[8] = {'<', '0', 'x', hex[i >> 4], hex[i & 15], '>', 0};
        set_token(3 + i, text, TOKEN_BYTE, 0);
    }
    for (size_t i = 0; i < 8; i++)
        set_token(259 + i, pieces[i], TOKEN_NORMAL, (float)-(int)(i % 4));
    v->n_tokens = 267;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"qwen2", "qwen35", "llama-bpe", "gpt-2", "starcoder"};
    struct vocabulary v = {.tokens = tokens, .merges = merges, .eos = 1, .pre = "default"};
    struct tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t n = 0, k = 0, len;
    if (size == 0)
        return 0;
    unsigned choice = data[0];
    v.bos = v.unk = -1;
    v.add_bos = v.add_eos = v.add_space_prefix = VOCAB_FLAG_UNSET;
    v.nfc = choice & 1;
    v.ignore_merges = choice & 2;
    v.model = choice % 7 < 5 ? VOCAB_BPE : VOCAB_SPM;
    if (v.model == VOCAB_BPE) {
        v.pre = names[choice % 7];
        byte_vocabulary(&v);
    } else {
        piece_vocabulary(&v);
    }
    tokens[260].lstrip = tokens[261].rstrip = v.model == VOCAB_BPE && (choice & 64);
    tokens[262].normalized = tokens[262].single_word = v.model == VOCAB_BPE && (choice & 128);
    if (tokenizer_new(&t, &v, NULL) != 0)
        abort();
    struct tokenize_options opt = {.add_special = choice & 4, .parse_special = choice & 8};
    if (tokenizer_encode(t, (const char *)data + 1, size - 1, &opt, &ids, &n, NULL) != 0)
        abort();
    bool ascii = v.model == VOCAB_BPE && !(choice & (4 + 64));
    for (size_t i = 1; i < size; i++)
        ascii = ascii && data[i] < 128;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= v.n_tokens)
            abort();
        const char *piece = tokenizer_piece(t, ids[i], &len);
        if (ascii && (len > size - 1 - k || memcmp(piece, data + 1 + k, len) != 0))
            abort();
        k += len;
    }
    if (ascii && k != size - 1)
        abort();
    free(ids);
    tokenizer_free(t);
    return 0;
}
