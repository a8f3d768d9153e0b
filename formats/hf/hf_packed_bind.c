/* hf_packed_bind.c - the layouts of packed weights: which parts, of which dtype and shape.
 *
 * W[o, i] of a linear layer with O outputs and I inputs, words of 32 bits:
 *
 *   scaled         X.weight F8 or I8 [.., O, I]; scale for each block, column group, row or the whole:
 *                  W = value * scale   (minus an I8 zero point first, if there is one)
 *   gptq           qweight [I*bits/32, O], numbers along the input axis, lowest bits first, 3-bit numbers
 *                  running on into the next word; qzeros [G, O*bits/32] along the output axis; scales [G, O];
 *                  W = scales[g, o] * (q - (z + 1)), g = g_idx[i] or i / group_size; format gptq_v2: no + 1
 *   awq            qweight [I, O/8], nibble j of a word is column 0 2 4 6 1 3 5 7 [j]; qzeros [G, O/8] alike
 *   packed ints    weight_packed [O, words], numbers along the input axis; weight_scale [O, G];
 *                  zero point [words along o, G], or 2^(bits-1). Newer files leave no gaps between numbers
 *                  whose width does not divide 32, older ones fill each word with whole numbers: the width
 *                  of the tensor tells.
 *   nvfp4          U8 [.., O, I/2], low nibble first; scale F8_E4M3 for 16 columns; one more factor
 *                  (ModelOpt) or divisor (compressed-tensors)
 *   mxfp4          the same with E8M0 scales for 32 columns and no factor
 *   gpt-oss        X_blocks U8 [E, O, G, 16], X_scales U8 [E, O, G]: mxfp4, weight [E, O, 32 G]
 *   mlx            weight U32 [.., O, words], numbers along the input axis without gaps, lowest bits first;
 *                  scales and biases [.., O, G]: W = scales * q + biases
 *   bitnet         U8 [O/4, I]: bits 2t of a byte are row t*O/4 + o; W = (q - 1) / scale
 *
 * Truth: specification, architectures 18; AutoGPTQ/GPTQModel (3-bit), compressed-tensors 0.20 (gaps, mx),
 * MLX (affine quantization). */
#include "hf_packed_internal.h"

#include "libquant/base/checked.h"

#include <stdio.h>
#include <string.h>

#define WHAT_BYTES 48 /* "128x128" of any two numbers */
#define BIT(part)  (1u << (part))

/* --- checks shared by all ------------------------------------------------------------------------------- */

static int only_parts(const struct hf_packed *w, unsigned required, unsigned optional, struct err *e)
{
    static const char *const words[PART_COUNT] = {"packed values",
                                                  "scales",
                                                  "zero points",
                                                  "group indices",
                                                  "shape",
                                                  "global scale",
                                                  "table of values",
                                                  "scales of scales",
                                                  "table of scale values",
                                                  "quantization state"};
    for (int i = 0; i < PART_COUNT; i++) {
        if (!w->part[i] && (required & BIT(i)))
            return err_set(e, ERR_FORMAT, "%s: weight '%s': the tensor with its %s is missing beside '%s'",
                           w->file, w->name, words[i], w->part[PART_CODES]->name);
        if (w->part[i] && !((required | optional) & BIT(i)))
            return err_set(e, ERR_UNSUPPORTED, "%s: tensor '%s' is not expected beside '%s' of type %s",
                           w->file, w->part[i]->name, w->part[PART_CODES]->name,
                           st_dtype_name(w->part[PART_CODES]->dtype));
    }
    return 0;
}

static int need_dtype(const struct hf_packed *w, enum part part, enum st_dtype dtype, struct err *e)
{
    const struct st_tensor *t = w->part[part];
    return t->dtype == dtype ? 0 : packed_bad_dtype(w, t, st_dtype_name(dtype), e);
}

static int need_float(const struct hf_packed *w, enum part part, struct err *e)
{
    const struct st_tensor *t = w->part[part];
    return t->dtype == ST_F32 || t->dtype == ST_F16 || t->dtype == ST_BF16
               ? 0
               : packed_bad_dtype(w, t, "F32, F16 or BF16", e);
}

static int need_dims(const struct hf_packed *w, enum part part, uint32_t lo, uint32_t hi, struct err *e)
{
    const struct st_tensor *t = w->part[part];
    if (t->n_dims < lo || t->n_dims > hi || t->n_elems == 0)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': %u to %u dimensions, none empty, expected; found %u",
                       w->file, t->name, lo, hi, t->n_dims);
    return 0;
}

static int need_shape(const struct hf_packed *w, enum part part, uint32_t n, const uint64_t *want,
                      struct err *e)
{
    const struct st_tensor *t = w->part[part];
    return t->n_dims == n && memcmp(t->shape, want, n * sizeof *want) == 0
               ? 0
               : packed_bad_shape(w, t, want, n, e);
}

static int set_type(struct hf_packed *w, const char *type, struct err *e)
{
    w->type = type;
    return type ? 0 : err_set(e, ERR_NOMEM, "out of memory: packed weight '%s'", w->name);
}

/* The shape of the weight, and the same as stack, rows and columns. */
static int set_shape(struct hf_packed *w, uint32_t n_dims, const uint64_t *shape, struct err *e)
{
    uint64_t n_elems = 1;
    w->n_dims = n_dims;
    for (uint32_t i = 0; i < n_dims; i++) {
        w->shape[i] = shape[i];
        if (!checked_mul(n_elems, shape[i], &n_elems) || n_elems > (uint64_t)1 << 56)
            return err_set(e, ERR_FORMAT, "%s: weight '%s' is too large", w->file, w->name);
    }
    w->n_cols = shape[n_dims - 1];
    w->n_rows = n_dims >= 2 ? shape[n_dims - 2] : 1;
    w->n_mats = n_dims >= 3 ? shape[0] : 1;
    return 0;
}

static uint64_t n_blocks(uint64_t n, uint64_t block)
{
    return n / block + (n % block != 0);
}

/* --- grids of scales ------------------------------------------------------------------------------------ */

static bool fits_blocks(struct hf_packed *w, const struct st_tensor *t, uint64_t block_o, uint64_t block_i)
{
    uint32_t n = w->n_dims;
    if (n < 2 || t->n_dims != n || (n == 3 && t->shape[0] != w->n_mats) ||
        t->shape[n - 2] != n_blocks(w->n_rows, block_o) || t->shape[n - 1] != n_blocks(w->n_cols, block_i))
        return false;
    w->scale.block_o = block_o;
    w->scale.block_i = block_i;
    w->scale.stride_i = 1;
    w->scale.stride_o = t->shape[n - 1];
    w->scale.stride_m = t->shape[n - 2] * t->shape[n - 1];
    w->n_groups = t->shape[n - 1];
    return true;
}

/* Axes from the slowest; one that is 1 or missing holds for all. */
static bool fits_broadcast(struct hf_packed *w, const struct st_tensor *t)
{
    uint64_t stride[3] = {0, 0, 0}, step = 1;
    uint32_t n = t->n_dims;
    if (t->n_elems == 1)
        n = 0;
    if (n > w->n_dims)
        return false;
    for (uint32_t i = n; i-- > 0; step *= t->shape[i]) {
        if (t->shape[i] == 1)
            continue;
        if (t->shape[i] != w->shape[i])
            return false;
        stride[3 - w->n_dims + i] = step;
    }
    w->scale.stride_m = stride[0];
    w->scale.stride_o = stride[1];
    w->scale.stride_i = stride[2];
    w->scale.block_o = 1;
    w->scale.block_i = stride[2] ? 1 : w->n_cols;
    w->n_groups = stride[2] ? w->n_cols : 1;
    return true;
}

/* How the scales lie over the weight: by one of the schemes of the configuration whose width is `bits`, else
 * by broadcast. *what gets a few words for people. */
static int bind_scale(struct hf_packed *w, const struct hf_quant *q, uint64_t bits, char what[WHAT_BYTES],
                      struct err *e)
{
    const struct st_tensor *t = w->part[PART_SCALE];
    char expected[160] = "", found[240];
    size_t at = 0;
    w->scale.data = t->data;
    w->scale.dtype = t->dtype;
    for (size_t i = 0; i < q->n_schemes; i++) {
        const struct quant_scheme *s = &q->schemes[i];
        uint64_t block_o = s->block_o ? s->block_o : 1, block_i = s->block_o ? s->block_i : s->group_size;
        if ((s->bits && s->bits != bits) || block_i == 0)
            continue;
        if (fits_blocks(w, t, block_o, block_i)) {
            if (s->block_o)
                snprintf(what, WHAT_BYTES, "%llux%llu", (unsigned long long)block_o,
                         (unsigned long long)block_i);
            else
                snprintf(what, WHAT_BYTES, "g%llu", (unsigned long long)block_i);
            return 0;
        }
        if (at + 60 < sizeof expected)
            at += (size_t)snprintf(expected + at, sizeof expected - at, "one for each %llu x %llu values, ",
                                   (unsigned long long)block_o, (unsigned long long)block_i);
    }
    if (fits_broadcast(w, t)) {
        bool whole = !w->scale.stride_o && !w->scale.stride_i;
        snprintf(what, WHAT_BYTES, whole ? "per tensor" : w->scale.stride_i ? "per column" : "per channel");
        return 0;
    }
    return err_set(
        e, ERR_FORMAT,
        "%s: tensor '%s': expected %sone for each row or a single one for a weight of %s, found %s", w->file,
        t->name, expected, packed_shape_text((char[120]){0}, 120, w->shape, w->n_dims),
        packed_shape_text(found, sizeof found, t->shape, t->n_dims));
}

/* Zero points that lie as the scales do, one byte each. */
static int bind_byte_zeros(struct hf_packed *w, struct err *e)
{
    const struct st_tensor *scale = w->part[PART_SCALE];
    int rc = need_dtype(w, PART_ZERO, ST_I8, e);
    if (rc == 0)
        rc = need_shape(w, PART_ZERO, scale->n_dims, scale->shape, e);
    w->zeros = ZERO_I8;
    return rc;
}

/* --- the kinds ------------------------------------------------------------------------------------------ */

static int bind_scaled(struct hf_packed *w, const struct hf_quant *q, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES], *scale = w->part[PART_SCALE];
    char what[WHAT_BYTES];
    int rc = only_parts(w, BIT(PART_CODES) | BIT(PART_SCALE), BIT(PART_ZERO), e);
    if (rc == 0)
        rc = need_dims(w, PART_CODES, 1, 3, e);
    if (rc == 0)
        rc = set_shape(w, codes->n_dims, codes->shape, e);
    if (rc != 0)
        return rc;
    w->codes = codes->dtype == ST_F8_E4M3   ? CODES_F8_E4M3
               : codes->dtype == ST_F8_E5M2 ? CODES_F8_E5M2
                                            : CODES_I8;
    /* exponents as scales: mxfp8 of compressed-tensors, and newer block-scaled releases */
    if (scale->dtype != ST_F8_E8M0 && !(scale->dtype == ST_U8 && q->method == METHOD_COMPRESSED_TENSORS))
        rc = need_float(w, PART_SCALE, e);
    if (rc == 0)
        rc = bind_scale(w, q, 8, what, e);
    if (rc == 0 && w->part[PART_ZERO])
        rc = bind_byte_zeros(w, e);
    if (rc != 0)
        return rc;
    const char *name = w->codes == CODES_F8_E4M3   ? "FP8 E4M3"
                       : w->codes == CODES_F8_E5M2 ? "FP8 E5M2"
                                                   : "INT8";
    return set_type(w, arena_printf(arena, "%s %s", name, what), e);
}

/* One factor for the whole weight or for each matrix of a stack. */
static int check_global(const struct hf_packed *w, struct err *e)
{
    const struct st_tensor *t = w->part[PART_GLOBAL];
    if (!t)
        return 0;
    if (t->n_elems != 1 && (t->n_elems != w->n_mats || t->shape[0] != w->n_mats))
        return packed_bad_shape(w, t, &w->n_mats, 1, e);
    return need_float(w, PART_GLOBAL, e);
}

static int bind_fp4(struct hf_packed *w, const struct hf_quant *q, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES], *scale = w->part[PART_SCALE];
    bool mx = scale && (scale->dtype == ST_U8 || scale->dtype == ST_F8_E8M0);
    uint64_t shape[3] = {0}, want[3] = {0}, group = mx ? 32 : 16;
    int rc = only_parts(w, BIT(PART_CODES) | BIT(PART_SCALE), mx ? 0 : BIT(PART_GLOBAL), e);
    if (rc == 0)
        rc = need_dims(w, PART_CODES, 2, 3, e);
    if (rc == 0 && !mx)
        rc = need_dtype(w, PART_SCALE, ST_F8_E4M3, e);
    if (rc != 0)
        return rc;
    uint32_t n = codes->n_dims;
    memcpy(shape, codes->shape, n * sizeof *shape);
    memcpy(want, codes->shape, n * sizeof *want);
    shape[n - 1] *= 2;
    want[n - 1] = n_blocks(shape[n - 1], group);
    rc = set_shape(w, n, shape, e);
    if (rc == 0)
        rc = need_shape(w, PART_SCALE, n, want, e);
    if (rc == 0)
        rc = check_global(w, e);
    if (rc != 0)
        return rc;
    w->codes = CODES_FP4;
    w->scale.data = scale->data;
    w->scale.dtype = scale->dtype;
    (void)fits_blocks(w, scale, 1, group);
    w->global_divides = q->method == METHOD_COMPRESSED_TENSORS;
    return set_type(w, arena_strdup(arena, mx ? "MXFP4" : "NVFP4"), e);
}

/* Blocks of 16 bytes each, one axis more than the weight has. */
static int bind_mxfp4(struct hf_packed *w, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES], *scale = w->part[PART_SCALE];
    uint64_t shape[3];
    int rc = only_parts(w, BIT(PART_CODES) | BIT(PART_SCALE), 0, e);
    if (rc == 0)
        rc = need_dtype(w, PART_CODES, ST_U8, e);
    if (rc == 0)
        rc = need_dtype(w, PART_SCALE, ST_U8, e);
    if (rc == 0)
        rc = need_dims(w, PART_CODES, 4, 4, e);
    if (rc == 0 && codes->shape[3] != 16)
        rc = err_set(e, ERR_FORMAT, "%s: tensor '%s': blocks of %llu bytes, expected 16", w->file,
                     codes->name, (unsigned long long)codes->shape[3]);
    if (rc == 0)
        rc = need_shape(w, PART_SCALE, 3, codes->shape, e);
    if (rc != 0)
        return rc;
    memcpy(shape, codes->shape, sizeof shape);
    if (!checked_mul(shape[2], 32, &shape[2]))
        return packed_bad_shape(w, codes, shape, 3, e);
    rc = set_shape(w, 3, shape, e);
    w->codes = CODES_FP4;
    w->scale.data = scale->data;
    w->scale.dtype = scale->dtype;
    (void)fits_blocks(w, scale, 1, 32);
    return rc == 0 ? set_type(w, arena_strdup(arena, "MXFP4"), e) : rc;
}

static int bind_bitnet(struct hf_packed *w, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES];
    int rc = only_parts(w, BIT(PART_CODES) | BIT(PART_SCALE), 0, e);
    if (rc == 0)
        rc = need_dims(w, PART_CODES, 2, 2, e);
    if (rc == 0)
        rc = need_dtype(w, PART_CODES, ST_U8, e);
    uint64_t shape[2] = {0, codes->shape[1]};
    if (rc == 0 && !checked_mul(codes->shape[0], 4, &shape[0]))
        rc = packed_bad_shape(w, codes, shape, 2, e);
    if (rc == 0)
        rc = set_shape(w, 2, shape, e);
    w->part[PART_GLOBAL] = w->part[PART_SCALE];
    if (rc == 0)
        rc = check_global(w, e);
    w->codes = CODES_BITNET;
    w->n_groups = 1;
    w->scale.block_o = 1;
    w->scale.block_i = w->n_cols;
    w->zeros = ZERO_CONSTANT;
    w->zero = 1;
    w->global_divides = true;
    return rc == 0 ? set_type(w, arena_strdup(arena, "BitNet 2-bit"), e) : rc;
}

/* Scales [G, O] of gptq and awq, and how columns find their group. */
static int bind_group_columns(struct hf_packed *w, uint64_t group, bool any_group, struct err *e)
{
    const struct st_tensor *scale = w->part[PART_SCALE];
    int rc = need_float(w, PART_SCALE, e);
    if (rc == 0)
        rc = need_dims(w, PART_SCALE, 2, 2, e);
    if (rc != 0)
        return rc;
    if (group == 0)
        group = w->n_cols;
    if (any_group && n_blocks(w->n_cols, group) != scale->shape[0])
        group = n_blocks(w->n_cols, scale->shape[0]);
    if (!any_group || !w->part[PART_GROUP]) {
        uint64_t want[2] = {n_blocks(w->n_cols, group), w->n_rows};
        rc = need_shape(w, PART_SCALE, 2, want, e);
    }
    w->n_groups = scale->shape[0];
    w->scale = (struct grid){scale->data, scale->dtype, 1, group, 0, 1, w->n_rows};
    if (rc == 0 && w->part[PART_GROUP]) {
        rc = need_dtype(w, PART_GROUP, ST_I32, e);
        if (rc == 0)
            rc = need_shape(w, PART_GROUP, 1, &w->n_cols, e);
        w->by_index = true;
    }
    return rc;
}

/* The settings of the module that `w` is the weight of: its own where the configuration has some. */
static int settings_of(const struct hf_packed *w, const struct hf_quant *q, struct quant_scheme *s,
                       struct err *e)
{
    char stem[300];
    size_t n = strlen(w->name), k = strlen(".weight");
    *s = q->schemes[0];
    if (n <= k || n - k >= sizeof stem)
        return 0;
    snprintf(stem, sizeof stem, "%.*s", (int)(n - k), w->name);
    const struct json *own = json_get(q->modules, stem), *bits = json_get(own, "bits"),
                      *group = json_get(own, "group_size");
    int64_t v;
    if (!json_is_object(own))
        return 0;
    if ((bits && !json_uint(bits, &s->bits)) || (group && (!json_int(group, &v) || v < -1 || v > 1 << 30)))
        return err_set(e, ERR_FORMAT, "quantization_config: bits or group_size of '%s' is not a whole number",
                       stem);
    if (group)
        s->group_size = v < 0 ? 0 : (uint64_t)v;
    return 0;
}

static int bind_mlx(struct hf_packed *w, const struct hf_quant *q, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES], *scale = w->part[PART_SCALE];
    struct quant_scheme s;
    uint64_t shape[3] = {0}, words, n_groups;
    int rc = settings_of(w, q, &s, e);
    if (rc == 0)
        rc = only_parts(w, BIT(PART_CODES) | BIT(PART_SCALE) | BIT(PART_ZERO), 0, e);
    if (rc == 0)
        rc = need_dtype(w, PART_CODES, ST_U32, e);
    if (rc == 0)
        rc = need_dims(w, PART_CODES, 2, 3, e);
    if (rc == 0)
        rc = need_dims(w, PART_SCALE, codes->n_dims, codes->n_dims, e);
    if (rc == 0)
        rc = need_float(w, PART_SCALE, e);
    if (rc == 0)
        rc = need_float(w, PART_ZERO, e);
    if (rc == 0)
        rc = need_shape(w, PART_ZERO, scale->n_dims, scale->shape, e);
    if (rc != 0)
        return rc;
    uint32_t n = codes->n_dims;
    memcpy(shape, codes->shape, n * sizeof *shape);
    words = shape[n - 1];
    n_groups = scale->shape[n - 1];
    bool known = (s.bits >= 2 && s.bits <= 6) || s.bits == 8;
    if (!known || s.group_size == 0 || words > UINT64_MAX / 32 || words * 32 % s.bits != 0 ||
        n_groups > UINT64_MAX / s.group_size || words * 32 / s.bits != n_groups * s.group_size ||
        memcmp(scale->shape, shape, (n - 1) * sizeof *shape) != 0) {
        char have[240], scales[240];
        return err_set(
            e, ERR_FORMAT,
            "%s: tensor '%s': %s with scales %s are not numbers of %llu bits in groups of %llu, as the "
            "configuration says",
            w->file, codes->name, packed_shape_text(have, sizeof have, codes->shape, n),
            packed_shape_text(scales, sizeof scales, scale->shape, n), (unsigned long long)s.bits,
            (unsigned long long)s.group_size);
    }
    shape[n - 1] = words * 32 / s.bits;
    rc = set_shape(w, n, shape, e);
    if (rc != 0)
        return rc;
    w->codes = CODES_INT_ROWS;
    w->bits = (struct bit_layout){(unsigned)s.bits, false};
    w->scale.data = scale->data;
    w->scale.dtype = scale->dtype;
    (void)fits_blocks(w, scale, 1, s.group_size);
    w->zeros = ZERO_BIAS;
    return set_type(
        w, arena_printf(arena, "MLX %u-bit g%llu", w->bits.bits, (unsigned long long)s.group_size), e);
}

/* A matrix of codes and the zeros of its groups in words of 32 bits, scales, and of other parts the
 * `optional`. */
static int need_words(const struct hf_packed *w, unsigned optional, struct err *e)
{
    int rc = only_parts(w, BIT(PART_CODES) | BIT(PART_SCALE) | BIT(PART_ZERO), optional, e);
    if (rc == 0)
        rc = need_dtype(w, PART_CODES, ST_I32, e);
    if (rc == 0)
        rc = need_dtype(w, PART_ZERO, ST_I32, e);
    return rc == 0 ? need_dims(w, PART_CODES, 2, 2, e) : rc;
}

static int bind_gptq(struct hf_packed *w, const struct hf_quant *q, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES], *index = w->part[PART_GROUP];
    struct quant_scheme own;
    uint64_t words, shape[2];
    int rc = settings_of(w, q, &own, e);
    uint64_t bits = own.bits;
    if (rc == 0)
        rc = need_words(w, BIT(PART_GROUP), e);
    if (rc != 0)
        return rc;
    words = codes->shape[0];
    if (q->mixed_bits && index && index->n_elems && words <= UINT64_MAX / 32) {
        uint64_t width = words * 32 / index->n_elems; /* a module with a width of its own */
        if (width == 2 || width == 3 || width == 4 || width == 8)
            bits = width;
    }
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor '%s': %llu bits; 2, 3, 4 and 8 are read", w->file,
                       codes->name, (unsigned long long)bits);
    if (words > UINT64_MAX / 32 || words * 32 % bits != 0 || (bits == 3 && words % 3 != 0))
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s': %llu words do not hold whole groups of %llu-bit numbers", w->file,
                       codes->name, (unsigned long long)words, (unsigned long long)bits);
    shape[0] = codes->shape[1];
    shape[1] = words * 32 / bits;
    rc = set_shape(w, 2, shape, e);
    if (rc == 0)
        rc = bind_group_columns(w, own.group_size, q->mixed_bits, e);
    if (rc != 0)
        return rc;
    w->codes = CODES_INT_COLUMNS;
    w->bits = w->zero_bits = (struct bit_layout){(unsigned)bits, false};
    w->zeros = ZERO_GPTQ;
    w->zero = q->zeros_minus_one ? 1 : 0;
    uint64_t want[2] = {w->n_groups, bits_n_words(w->bits, w->n_rows)};
    rc = need_shape(w, PART_ZERO, 2, want, e);
    return rc == 0 ? set_type(w,
                              arena_printf(arena, "GPTQ %u-bit g%llu", w->bits.bits,
                                           (unsigned long long)w->scale.block_i),
                              e)
                   : rc;
}

static int bind_awq(struct hf_packed *w, const struct hf_quant *q, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES];
    uint64_t shape[2];
    int rc = need_words(w, 0, e);
    if (rc != 0)
        return rc;
    shape[0] = 8 * codes->shape[1];
    shape[1] = codes->shape[0];
    rc = codes->shape[1] > UINT64_MAX / 8 ? packed_bad_shape(w, codes, shape, 2, e)
                                          : set_shape(w, 2, shape, e);
    if (rc == 0)
        rc = bind_group_columns(w, q->schemes[0].group_size, false, e);
    uint64_t want[2] = {w->n_groups, codes->shape[1]};
    if (rc == 0)
        rc = need_shape(w, PART_ZERO, 2, want, e);
    w->codes = CODES_AWQ;
    w->zeros = ZERO_AWQ;
    return rc == 0
               ? set_type(w, arena_printf(arena, "AWQ 4-bit g%llu", (unsigned long long)w->scale.block_i), e)
               : rc;
}

/* Which layout makes `n_words` words of `n` numbers. False: none. */
static bool find_layout(struct bit_layout *l, unsigned bits, uint64_t n, uint64_t n_words)
{
    l->bits = bits;
    for (int gaps = 0; gaps < 2; gaps++) {
        l->has_gaps = gaps != 0;
        if (bits_n_words(*l, n) == n_words)
            return true;
    }
    return false;
}

/* Both layouts have the same number of words but differ within them: short rows of odd widths. */
static bool is_ambiguous(unsigned bits, uint64_t n)
{
    const struct bit_layout dense = {bits, false}, gaps = {bits, true};
    return 32 % bits != 0 && n > 32 / bits && bits_n_words(dense, n) == bits_n_words(gaps, n);
}

static int read_shape(const struct hf_packed *w, uint64_t out[2], struct err *e)
{
    const struct st_tensor *t = w->part[PART_SHAPE];
    const uint64_t two = 2;
    int rc = need_shape(w, PART_SHAPE, 1, &two, e);
    if (rc == 0 && t->dtype != ST_I64 && t->dtype != ST_I32)
        rc = packed_bad_dtype(w, t, "I64", e);
    for (int i = 0; rc == 0 && i < 2; i++) {
        int64_t v =
            t->dtype == ST_I64 ? (int64_t)load_u64(t->data + 8 * i) : (int32_t)load_u32(t->data + 4 * i);
        if (v <= 0 || v > (int64_t)1 << 40)
            return err_set(e, ERR_FORMAT, "%s: tensor '%s': %lld is not a size", w->file, t->name,
                           (long long)v);
        out[i] = (uint64_t)v;
    }
    return rc;
}

static int bind_packed_zeros(struct hf_packed *w, struct err *e)
{
    const struct st_tensor *t = w->part[PART_ZERO];
    w->zeros = ZERO_CONSTANT;
    w->zero = (float)(1u << (w->bits.bits - 1));
    if (!t)
        return 0;
    if (t->dtype == ST_I8) /* signed, as the values were before packing */
        return bind_byte_zeros(w, e);
    uint64_t want[2] = {bits_n_words(w->bits, w->n_rows), w->n_groups};
    int rc = need_dtype(w, PART_ZERO, ST_I32, e);
    if (rc == 0)
        rc = need_shape(w, PART_ZERO, 2, want, e);
    w->zero_bits = w->bits; /* packed by the same program */
    w->zeros = ZERO_INT_ROWS;
    w->zero = 0;
    return rc;
}

static int bind_packed_ints(struct hf_packed *w, const struct hf_quant *q, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES];
    uint64_t shape[2] = {0};
    bool found = false;
    char what[WHAT_BYTES];
    int rc = only_parts(w, BIT(PART_CODES) | BIT(PART_SCALE) | BIT(PART_SHAPE),
                        BIT(PART_ZERO) | BIT(PART_GROUP), e);
    if (rc == 0)
        rc = need_dims(w, PART_CODES, 2, 2, e);
    if (rc == 0)
        rc = read_shape(w, shape, e);
    if (rc == 0)
        rc = set_shape(w, 2, shape, e);
    if (rc == 0)
        rc = need_float(w, PART_SCALE, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; !found && codes->shape[0] == shape[0] && i < q->n_schemes; i++)
        if (q->schemes[i].bits >= 1 && q->schemes[i].bits <= 8)
            found = find_layout(&w->bits, (unsigned)q->schemes[i].bits, shape[1], codes->shape[1]) &&
                    !is_ambiguous(w->bits.bits, shape[1]);
    if (!found) {
        char have[240], stated[120];
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s': %s does not hold the shape %s with any 'num_bits' of config.json",
                       w->file, codes->name, packed_shape_text(have, sizeof have, codes->shape, 2),
                       packed_shape_text(stated, sizeof stated, shape, 2));
    }
    w->codes = CODES_INT_ROWS;
    rc = bind_scale(w, q, w->bits.bits, what, e);
    if (rc == 0)
        rc = bind_packed_zeros(w, e);
    if (rc == 0 && w->part[PART_GROUP]) {
        rc = need_dtype(w, PART_GROUP, ST_I32, e);
        if (rc == 0)
            rc = need_shape(w, PART_GROUP, 1, &w->n_cols, e);
        w->by_index = true;
    }
    return rc == 0 ? set_type(w, arena_printf(arena, "INT%u %s", w->bits.bits, what), e) : rc;
}

int packed_bind(struct hf_packed *w, const struct hf_quant *q, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES];
    switch (q->method) {
    case METHOD_GPTQ: return bind_gptq(w, q, arena, e);
    case METHOD_AWQ: return bind_awq(w, q, arena, e);
    case METHOD_BITNET: return bind_bitnet(w, arena, e);
    case METHOD_MLX: return bind_mlx(w, q, arena, e);
    case METHOD_BITSANDBYTES: return packed_bind_bnb(w, arena, e);
    case METHOD_MXFP4: return bind_mxfp4(w, arena, e);
    default: break;
    }
    switch (codes->dtype) {
    case ST_F8_E4M3:
    case ST_F8_E5M2: return bind_scaled(w, q, arena, e);
    case ST_I8:
        if (q->method == METHOD_COMPRESSED_TENSORS)
            return bind_scaled(w, q, arena, e);
        break;
    case ST_U8:
        if (q->method == METHOD_COMPRESSED_TENSORS || q->method == METHOD_MODELOPT)
            return bind_fp4(w, q, arena, e);
        break;
    case ST_I32:
        if (q->method == METHOD_COMPRESSED_TENSORS)
            return bind_packed_ints(w, q, arena, e);
        break;
    default: break;
    }
    return packed_bad_dtype(w, codes, "a packed type that this method stores", e);
}
