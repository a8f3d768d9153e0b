/* source.c - plain safetensors weights behind source.h. */
#include "source.h"

#include "libquant/base/filemap.h"
#include "libquant/base/slice.h"
#include "libquant/half.h"
#include "libquant/quant.h"

#include <stdlib.h>
#include <string.h>

/* The dtypes that are weights by themselves. Integers never are: they belong to packed formats. */
static bool plain_type(enum st_dtype dtype, enum qtype *type)
{
    switch (dtype) {
    case ST_BF16: *type = QTYPE_BF16; return true;
    case ST_F16: *type = QTYPE_F16; return true;
    case ST_F32:
    case ST_F64: /* narrowed: GGUF files of this kind have no wider weights */
    case ST_F8_E4M3:
    case ST_F8_E5M2: *type = QTYPE_F32; return true;
    default: *type = QTYPE_F32; return false;
    }
}

static int by_file_and_name(const void *pa, const void *pb)
{
    const struct source *a = pa, *b = pb;
    int c = strcmp(a->file, b->file);
    return c ? c : strcmp(a->name, b->name);
}

int source_list(struct source **out, size_t *n, const struct hf_checkpoint *c, enum qtype assumed,
                struct arena *arena, struct err *e)
{
    size_t count = hf_checkpoint_n_tensors(c);
    struct source *list = arena_array(arena, count + 1, sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory: list of %zu tensors", count);
    for (size_t i = 0; i < count; i++) {
        const struct st_tensor *t = hf_checkpoint_tensor(c, i);
        struct source *s = &list[i];
        s->name = t->name;
        s->file = hf_checkpoint_tensor_file(c, i);
        s->plain = t;
        if (!hf_checkpoint_has_weights(c)) {
            s->type = assumed;
            s->type_name = qtype_name(assumed);
            s->is_weight = true;
            continue;
        }
        s->type_name = st_dtype_name(t->dtype);
        s->n_dims = t->n_dims;
        memcpy(s->shape, t->shape, sizeof s->shape);
        s->n_elems = t->n_elems;
        s->is_weight = plain_type(t->dtype, &s->type);
        if (t->dtype == ST_BF16 || t->dtype == ST_F16 || t->dtype == ST_F32)
            s->raw = t->data;
    }
    qsort(list, count, sizeof *list, by_file_and_name);
    *out = list;
    *n = count;
    return 0;
}

int source_read(const struct source *s, const struct kern *k, uint64_t first, uint64_t n, float *dst,
                struct err *e)
{
    if (!s->plain->data || first > s->n_elems || n > s->n_elems - first)
        return err_set(e, ERR_ARG, "%s: tensor '%s': elements %llu + %llu are not there", s->file, s->name,
                       (unsigned long long)first, (unsigned long long)n);
    const uint8_t *p = s->plain->data + first * (st_dtype_bits(s->plain->dtype) / 8);
    switch (s->plain->dtype) {
    case ST_BF16:
    case ST_F16:
    case ST_F32:
        return quant_decode_rows(k, s->type, p, n * (st_dtype_bits(s->plain->dtype) / 8), dst, 1, n, e);
    case ST_F64:
        for (uint64_t i = 0; i < n; i++)
            dst[i] = (float)load_f64(p + 8 * i);
        return 0;
    case ST_F8_E4M3:
        for (uint64_t i = 0; i < n; i++)
            dst[i] = f8_e4m3_to_f32(p[i]);
        return 0;
    case ST_F8_E5M2:
        for (uint64_t i = 0; i < n; i++)
            dst[i] = f8_e5m2_to_f32(p[i]);
        return 0;
    default:
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor '%s': %s is not a weight", s->file, s->name,
                       s->type_name);
    }
}

void source_hint(const struct source *s, uint64_t first, uint64_t n, bool want)
{
    if (!s->plain->data || first > s->n_elems || n > s->n_elems - first)
        return;
    uint64_t size = st_dtype_bits(s->plain->dtype) / 8;
    const uint8_t *p = s->plain->data + first * size;
    if (want)
        filemap_want(p, n * size);
    else
        filemap_drop(p, n * size);
}
