/* checkpoint_weight.c - plain and packed safetensors weights behind checkpoint_weight.h. How packed ones are
 * decoded is formats/hf/hf_packed.h. */
#include "checkpoint_weight.h"

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
    const struct checkpoint_weight *a = pa, *b = pb;
    bool late_a = a->packed && hf_packed_is_late(a->packed),
         late_b = b->packed && hf_packed_is_late(b->packed);
    if (late_a != late_b)
        return late_a ? 1 : -1;
    int c = strcmp(a->file, b->file);
    return c ? c : strcmp(a->name, b->name);
}

static void take_plain(struct checkpoint_weight *s, const struct st_tensor *t, const char *file,
                       bool has_weights, enum qtype assumed)
{
    s->name = t->name;
    s->file = file;
    s->plain = t;
    if (!has_weights) {
        s->type = assumed;
        s->type_name = qtype_name(assumed);
        s->is_weight = true;
        return;
    }
    s->type_name = st_dtype_name(t->dtype);
    s->n_dims = t->n_dims;
    memcpy(s->shape, t->shape, sizeof s->shape);
    s->n_elems = t->n_elems;
    s->is_weight = plain_type(t->dtype, &s->type);
    if (t->dtype == ST_BF16 || t->dtype == ST_F16 || t->dtype == ST_F32)
        s->raw = t->data;
}

static void take_packed(struct checkpoint_weight *s, const struct hf_packed *w)
{
    const uint64_t *shape = hf_packed_shape(w, &s->n_dims);
    s->name = hf_packed_name(w);
    s->file = hf_packed_file(w);
    s->type_name = hf_packed_type(w);
    s->plain = hf_packed_codes(w);
    s->packed = w;
    memcpy(s->shape, shape, s->n_dims * sizeof *shape);
    s->n_elems = s->n_dims ? 1 : 0;
    for (uint32_t i = 0; i < s->n_dims; i++)
        s->n_elems *= shape[i];
    s->type = QTYPE_F32;
    s->is_weight = true;
}

/* The packed weights among the tensors; an empty list without `quant`. */
static int find_packed(struct hf_packed_list *out, const struct hf_checkpoint *c,
                       const struct hf_quant *quant, struct arena *arena, struct err *e)
{
    size_t n = hf_checkpoint_n_tensors(c);
    struct hf_packed_input *in = malloc((n + 1) * sizeof *in);
    if (!in)
        return err_set(e, ERR_NOMEM, "out of memory: list of %zu tensors", n);
    for (size_t i = 0; i < n; i++)
        in[i] = (struct hf_packed_input){hf_checkpoint_tensor(c, i), hf_checkpoint_tensor_file(c, i)};
    int rc = hf_packed_group(out, quant, in, n, arena, e);
    free(in);
    return rc;
}

int checkpoint_weight_list(struct checkpoint_weight **out, size_t *n, const struct hf_checkpoint *c,
                           const struct hf_quant *quant, enum qtype assumed, struct arena *arena,
                           struct err *e)
{
    struct hf_packed_list packed = {NULL, NULL, 0};
    size_t n_tensors = hf_checkpoint_n_tensors(c), count = 0;
    int rc = quant ? find_packed(&packed, c, quant, arena, e) : 0;
    if (rc != 0)
        return rc;
    struct checkpoint_weight *list = arena_array(arena, n_tensors + packed.n_weights + 1, sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory: list of %zu tensors", n_tensors);
    for (size_t i = 0; i < n_tensors; i++) {
        const struct hf_packed_fate *fate = packed.fates ? &packed.fates[i] : NULL;
        if (fate && fate->weight)
            continue;
        struct checkpoint_weight *s = &list[count++];
        take_plain(s, hf_checkpoint_tensor(c, i), hf_checkpoint_tensor_file(c, i),
                   hf_checkpoint_has_weights(c), assumed);
        s->dropped = fate ? fate->dropped : NULL;
        s->is_beside_packed = fate && fate->is_beside;
    }
    for (size_t i = 0; i < packed.n_weights; i++)
        take_packed(&list[count++], packed.weights[i]);
    qsort(list, count, sizeof *list, by_file_and_name);
    *out = list;
    *n = count;
    return 0;
}

int checkpoint_weight_read(const struct checkpoint_weight *s, const struct kern *k, uint64_t first,
                           uint64_t n, float *dst, struct err *e)
{
    if (!s->plain->data || first > s->n_elems || n > s->n_elems - first)
        return err_set(e, ERR_ARG, "%s: tensor '%s': elements %llu + %llu lie beyond its end", s->file,
                       s->name, (unsigned long long)first, (unsigned long long)n);
    if (s->packed)
        return hf_packed_read(s->packed, first, n, dst, e);
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

bool checkpoint_weight_is_zero(const struct checkpoint_weight *s, const struct kern *k)
{
    float x[256];
    for (uint64_t at = 0; at < s->n_elems;) {
        uint64_t n = s->n_elems - at < 256 ? s->n_elems - at : 256;
        if (checkpoint_weight_read(s, k, at, n, x, NULL) != 0)
            return false;
        for (uint64_t i = 0; i < n; i++)
            if (x[i] != 0)
                return false;
        at += n;
    }
    return s->n_elems != 0;
}

void checkpoint_weight_hint(const struct checkpoint_weight *s, uint64_t first, uint64_t n, bool want)
{
    if (!s->plain->data || first > s->n_elems || n > s->n_elems - first)
        return;
    if (s->packed) {
        hf_packed_hint(s->packed, first, n, want);
        return;
    }
    uint64_t size = st_dtype_bits(s->plain->dtype) / 8;
    const uint8_t *p = s->plain->data + first * size;
    if (want)
        filemap_want(p, n * size);
    else
        filemap_drop(p, n * size);
}
