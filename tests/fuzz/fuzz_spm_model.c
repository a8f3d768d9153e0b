/* fuzz_spm_model.c - any bytes as a SentencePiece model and as a tiktoken rank file: refused with a reason,
 * or a vocabulary that can be tokenized with. */
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/vocab_build.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const struct vocabulary *v, const uint8_t *text, size_t len)
{
    struct tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    if (tokenizer_new(&t, v, NULL) != 0)
        return;
    if (tokenizer_encode(t, (const char *)text, len, &(struct tokenize_options){true, true}, &ids, &n,
                         NULL) != 0)
        abort();
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= v->n_tokens)
            abort();
    free(ids);
    tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice file = {data, size};
    for (int kind = 0; kind < 3; kind++) {
        struct vocab_build b = {0};
        struct err e = {0};
        size_t n_ranks;
        if (vocab_build_init(&b, NULL) != 0)
            return 0;
        int rc = kind == 0 ? vocab_parse_spm(&b, file, "fuzz", &e)
                           : vocab_parse_tiktoken(&b, file, "fuzz", kind == 2, &n_ranks, &e);
        if (rc == 0 && kind > 0)
            b.v->pre = "qwen2";
        if (rc == 0)
            rc = vocab_finish(&b, 0, false, &e);
        if (rc == 0)
            encode(b.v, data, size);
        else if (!e.msg[0])
            abort();
        vocabulary_free(b.v);
        vocab_build_release(&b);
    }
    return 0;
}
