/* fuzz_arch.c - any bytes as a config.json: a family with numbers, keys and shapes, or an error; and maps
 * that stay inside the shapes they are given. */
#include "formats/arch/arch.h"
#include "formats/gguf/gguf_meta.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int ignore(void *ctx, const char *text, struct err *e)
{
    (void)ctx;
    (void)text;
    (void)e;
    return 0;
}

/* Try the first and last rows of an output, whose source must hold them. */
static void try_map(const struct arch_model *a, const struct arch_row *row)
{
    uint64_t shape[4], out[4], n_src = 1, n_out = 1;
    uint32_t n, k;
    if (arch_shape(a, row->shape, shape, 4, &n, NULL) != 0 || !row->rows)
        return;
    if (arch_shape(a, row->out ? row->out : row->shape, out, 4, &k, NULL) != 0)
        return;
    for (uint32_t i = 0; i + (n > 1) < n; i++)
        if (__builtin_mul_overflow(n_src, shape[i], &n_src))
            return;
    for (uint32_t i = 0; i + (k > 1) < k; i++)
        if (__builtin_mul_overflow(n_out, out[i], &n_out))
            return;
    if (row->transpose && __builtin_mul_overflow(shape[0], shape[2], &n_src))
        return;
    for (uint64_t i = 0; i < 8 && i < n_out; i++)
        if (row->rows(a, i) >= n_src || row->rows(a, n_out - 1 - i) >= n_src)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_config *config = NULL;
    struct gguf_meta *meta = NULL;
    struct arch_model a;
    struct err e = {0};
    struct arch_warnings w = {ignore, NULL};
    if (hf_config_parse(&config, (const char *)data, size, "config.json", &e) != 0)
        return 0;
    if (arch_resolve(&a, config, &e) == 0 && gguf_meta_new(&meta, &e) == 0) {
        if (arch_add_common_keys(&a, meta, &w, &e) == 0)
            (void)arch_add_own_keys(&a, meta, &w, &e);
        for (const struct arch_group *g = a.arch->groups; g->rows; g++)
            for (size_t i = 0; i < g->n; i++)
                if (arch_row_applies(&a, g, &g->rows[i], 0))
                    try_map(&a, &g->rows[i]);
    } else if (!e.msg[0]) {
        abort();
    }
    gguf_meta_free(meta);
    hf_config_free(config);
    return 0;
}
