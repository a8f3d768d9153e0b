/* fuzz_hf_packed.c - any configuration and any safetensors file as a packed checkpoint: refused with a
 * reason, or every weight readable from its first to its last element.
 *
 * Input: the text of config.json, a NUL, the bytes of the safetensors file (make_packed_corpus writes such
 * files). */
#include "formats/hf/hf_packed.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_say_why(int rc, const struct err *e)
{
    if (rc != 0 && (e->code == ERR_OK || e->msg[0] == '\0'))
        abort();
}

/* First, last and some elements between; large weights can only come from large files. */
static void read_weight(const struct hf_packed *w)
{
    uint32_t n_dims;
    const uint64_t *shape = hf_packed_shape(w, &n_dims);
    uint64_t n = n_dims ? 1 : 0, take;
    struct err e = {0};
    float x[600];
    for (uint32_t i = 0; i < n_dims; i++)
        n *= shape[i];
    take = n < 600 ? n : 600;
    if (n_dims == 0 || hf_packed_type(w)[0] == '\0' || hf_packed_name(w)[0] == '\0')
        abort(); /* values are there, so everything is known */
    must_say_why(hf_packed_read(w, 0, take, x, &e), &e);
    must_say_why(hf_packed_read(w, n - take, take, x, &e), &e);
    must_say_why(hf_packed_read(w, n / 2, 1, x, &e), &e);
    hf_packed_hint(w, 0, n, true);
    enum qtype type;
    if (hf_packed_block_type(w, &type)) { /* the last row as blocks */
        uint64_t n_cols = shape[n_dims - 1], bytes;
        if (n_cols == 0 || n_cols > 4096 || !qtype_row_bytes(type, n_cols, &bytes))
            return;
        uint8_t *row = malloc(bytes);
        if (row)
            must_say_why(hf_packed_read_blocks(w, n / n_cols - 1, 1, row, &e), &e);
        free(row);
    }
}

static void group(const struct hf_quant *q, const struct safetensors_reader *r)
{
    size_t n = safetensors_n_tensors(r);
    struct hf_packed_input *in = calloc(n + 1, sizeof *in);
    struct hf_packed_list list;
    struct arena arena = {NULL, 0};
    struct err e = {0};
    if (!in)
        return;
    for (size_t i = 0; i < n; i++)
        in[i] = (struct hf_packed_input){safetensors_tensor(r, i), "fuzz"};
    int rc = hf_packed_group(&list, q, in, n, &arena, &e);
    must_say_why(rc, &e);
    for (size_t i = 0; rc == 0 && i < list.n_weights; i++)
        read_weight(list.weights[i]);
    arena_release(&arena);
    free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n_text = nul ? (size_t)(nul - data) : size;
    struct hf_config *config = NULL;
    struct hf_quant *q = NULL;
    struct safetensors_reader *r = NULL;
    struct err e = {0};
    int rc = hf_config_parse(&config, (const char *)data, n_text, "config.json", &e);
    if (rc == 0)
        rc = hf_quant_load(&q, config, NULL, &e);
    if (rc == 0 && q && nul)
        rc = safetensors_open_memory(&r, nul + 1, size - n_text - 1, "fuzz", &e);
    must_say_why(rc, &e);
    if (rc == 0 && r)
        group(q, r);
    safetensors_close(r);
    hf_quant_free(q);
    hf_config_free(config);
    return 0;
}
