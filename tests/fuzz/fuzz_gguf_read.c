/* fuzz_gguf_read.c - any bytes as a GGUF file: opened or refused, and what opened is walked to the last byte.
 */
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink; /* so that reading is not optimised away */

static uint64_t touch(const void *p, uint64_t n)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += ((const uint8_t *)p)[i];
    return sum;
}

static void walk(const struct gguf_reader *r)
{
    const struct gguf_meta *m = gguf_reader_meta(r);
    for (size_t i = 0; i < gguf_meta_n(m); i++) {
        const struct gguf_value *v = gguf_meta_value(m, i);
        struct gguf_string s;
        if (gguf_meta_find(m, gguf_meta_key(m, i)) != v)
            abort();
        if (v->type == GGUF_STRING)
            sink += touch(v->s.data, v->s.len);
        for (uint64_t k = 0; v->type == GGUF_ARRAY && k < v->a.n; k++) {
            double d;
            if (gguf_array_string(v, k, &s))
                sink += touch(s.data, s.len);
            else if (!gguf_array_f64(v, k, &d))
                abort();
        }
    }
    for (size_t i = 0; i < gguf_reader_n_tensors(r); i++) {
        const struct gguf_tensor *t = gguf_reader_tensor(r, i);
        if (gguf_reader_find(r, t->name) != t)
            abort();
        if (t->data)
            sink += touch(t->data, t->n_bytes);
    }
}

/* What the reader accepts the writer can lay out, and the result is accepted again with the same content. */
static void rewrite(const struct gguf_reader *r)
{
    size_t n = gguf_reader_n_tensors(r), header_bytes;
    struct gguf_out_tensor *out = calloc(n ? n : 1, sizeof *out);
    uint8_t *header = NULL;
    uint64_t file_bytes;
    struct err e;
    if (!out)
        return;
    for (size_t i = 0; i < n; i++) {
        const struct gguf_tensor *t = gguf_reader_tensor(r, i);
        out[i] = (struct gguf_out_tensor){.name = t->name, .type = t->type, .n_dims = t->n_dims};
        memcpy(out[i].ne, t->ne, sizeof t->ne);
    }
    struct gguf_reader *again;
    if (gguf_layout(gguf_reader_meta(r), out, n, &header, &header_bytes, &file_bytes, &e) == 0) {
        struct gguf_read_options opt = {.header_only = true};
        if (gguf_reader_open_memory(&again, header, header_bytes, "again", &opt, &e) != 0)
            abort();
        if (gguf_reader_n_tensors(again) != n ||
            gguf_meta_n(gguf_reader_meta(again)) != gguf_meta_n(gguf_reader_meta(r)))
            abort();
        for (size_t i = 0; i < gguf_meta_n(gguf_reader_meta(r)); i++)
            if (!gguf_value_equal(gguf_meta_value(gguf_reader_meta(r), i),
                                  gguf_meta_value(gguf_reader_meta(again), i)))
                abort();
        gguf_reader_close(again);
    }
    free(header);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int header_only = 0; header_only < 2; header_only++) {
        struct gguf_read_options opt = {.header_only = header_only};
        struct gguf_reader *r;
        struct err e = {0};
        if (gguf_reader_open_memory(&r, data, size, "fuzz", &opt, &e) != 0) {
            if (e.code == ERR_OK || !e.msg[0])
                abort(); /* a refusal has a reason */
            continue;
        }
        walk(r);
        rewrite(r);
        gguf_reader_close(r);
    }
    return 0;
}
