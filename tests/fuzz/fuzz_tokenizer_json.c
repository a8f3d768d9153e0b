/* fuzz_tokenizer_json.c - any bytes as tokenizer.json: refused with a reason, or a vocabulary that can be
 * written as metadata, read back equal, and tokenized with. */
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/vocab_build.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const struct vocabulary *v)
{
    static const char text[] = "a b  c's 12\n<|im_end|>\xC3\xA9\xE4\xB8\xAD\xFF";
    struct tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    if (tokenizer_new(&t, v, NULL) != 0)
        return;
    if (tokenizer_encode(t, text, sizeof text, &(struct tokenize_options){true, true}, &ids, &n, NULL) != 0)
        abort();
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= v->n_tokens)
            abort();
    free(ids);
    tokenizer_free(t);
}

static void round_trip(const struct vocabulary *v)
{
    struct gguf_meta *meta = NULL;
    struct vocabulary *u = NULL;
    if (gguf_meta_new(&meta, NULL) != 0)
        return;
    if (vocabulary_to_gguf(v, meta, NULL) == 0 && (v->model == VOCAB_SPM || v->n_merges > 0)) {
        if (vocabulary_from_gguf(&u, meta, NULL) != 0 || u->n_tokens != v->n_tokens ||
            u->n_merges != v->n_merges || u->nfc != v->nfc || u->ignore_merges != v->ignore_merges ||
            u->eos != v->eos)
            abort();
        for (size_t i = 0; i < v->n_tokens; i++)
            if (strcmp(u->tokens[i].text, v->tokens[i].text) != 0)
                abort();
        vocabulary_free(u);
    }
    gguf_meta_free(meta);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vocab_build b = {0};
    struct err e = {0};
    int rc = json_parse(&b.tokenizer_json, (const char *)data, size, "tokenizer.json", &e);
    if (rc != 0)
        return 0;
    if (vocab_build_init(&b, NULL) != 0)
        return 0;
    rc = vocab_collect_added(&b, &e);
    if (rc == 0)
        rc = vocab_parse_tokenizer_json(&b, json_root(b.tokenizer_json), &e);
    if (rc == 0) {
        vocab_special_ids(&b);
        encode(b.v);
        round_trip(b.v);
    } else if (!e.msg[0]) {
        abort();
    }
    vocabulary_free(b.v);
    vocab_build_release(&b);
    return 0;
}
