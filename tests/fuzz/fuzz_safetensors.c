/* fuzz_safetensors.c - any bytes as a safetensors file: refused, or every tensor readable to its last byte.
 */
#include "formats/hf/safetensors_read.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors_reader *r = NULL;
    struct err e = {0};
    if (safetensors_open_memory(&r, data, size, "fuzz", &e) != 0) {
        if (e.code == ERR_OK || e.msg[0] == 0)
            abort(); /* a refusal must say why */
        return 0;
    }
    volatile uint64_t sum = 0; /* so that the reads happen */
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < safetensors_n_tensors(r); i++) {
        const struct st_tensor *t = safetensors_tensor(r, i);
        for (uint64_t k = 0; k < t->n_bytes; k++)
            sum += t->data[k];
        n_bytes += t->n_bytes;
        if (safetensors_find(r, t->name) != t || t->offset + t->n_bytes > size ||
            t->n_elems * st_dtype_bits(t->dtype) != 8 * t->n_bytes)
            abort();
    }
    for (size_t i = 0; i < safetensors_n_metadata(r); i++) {
        const char *key, *value;
        safetensors_metadata(r, i, &key, &value);
        sum += strlen(key) + strlen(value);
    }
    if (n_bytes >= size)
        abort(); /* the tensors tile the data, and the header takes 10 bytes at least */
    (void)sum;
    safetensors_close(r);
    return 0;
}
