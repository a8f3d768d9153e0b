/* hf_packed_bnb.c - weights of bitsandbytes: 4-bit (NF4, FP4) with blocks over the flat weight, and LLM.int8.
 *
 * 4-bit: X.weight U8, two codes in a byte, the first in the upper half, elements in row-major order of the
 * whole weight; X.weight.quant_map F32 [16] holds the values of the codes, X.weight.absmax one scale for each
 * `blocksize` elements. With double quantization absmax is U8 and stands for
 * nested_quant_map[absmax] * nested_absmax[block / nested_blocksize] + nested_offset. Shape and sizes are
 * JSON text inside the U8 tensor X.weight.quant_state.bitsandbytes__nf4 (or __fp4). 8-bit: X.weight I8 [O,
 * I], X.SCB F32 [O]: W = q * SCB[o] / 127.
 *
 * Truth: bitsandbytes 0.50, functional.QuantState and the default dequantize kernels. */
#include "hf_packed_internal.h"

#include "libquant/base/checked.h"

#include <stdio.h>
#include <string.h>

#define MAX_STATE_BYTES 4096

static int bad_state(const struct hf_packed *w, const char *key, const char *want, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: tensor '%s': '%s' is not %s", w->file, w->part[PART_STATE]->name, key,
                   want);
}

static int need(const struct hf_packed *w, enum part part, enum st_dtype dtype, uint64_t n, const char *what,
                struct err *e)
{
    const struct st_tensor *t = w->part[part];
    if (!t)
        return err_set(e, ERR_FORMAT, "%s: weight '%s': no tensor '%s%s' beside it", w->file, w->name,
                       w->name, what);
    if (t->dtype != dtype)
        return packed_bad_dtype(w, t, st_dtype_name(dtype), e);
    if (t->n_elems != n)
        return packed_bad_shape(w, t, &n, 1, e);
    return 0;
}

/* The shape, and how many elements share a scale. */
static int take_state(struct hf_packed *w, const struct json *state, uint64_t *n_elems, struct err *e)
{
    const struct json *shape = json_get(state, "shape");
    double offset = 0;
    *n_elems = 1;
    w->n_dims = 0;
    for (const struct json *j = json_first(shape); j; j = json_next(j)) {
        uint64_t v;
        if (w->n_dims == 3 || !json_uint(j, &v) || v == 0 || !checked_mul(*n_elems, v, n_elems) ||
            *n_elems > (uint64_t)1 << 56)
            return bad_state(w, "shape", "a list of 1 to 3 sizes", e);
        w->shape[w->n_dims++] = v;
    }
    if (w->n_dims == 0)
        return bad_state(w, "shape", "a list of 1 to 3 sizes", e);
    if (!json_uint(json_get(state, "blocksize"), &w->block) || w->block == 0)
        return bad_state(w, "blocksize", "a positive integer", e);
    if (!w->part[PART_NESTED_SCALE])
        return 0;
    if (!json_uint(json_get(state, "nested_blocksize"), &w->nested_block) || w->nested_block == 0)
        return bad_state(w, "nested_blocksize", "a positive integer", e);
    if (!json_number(json_get(state, "nested_offset"), &offset))
        return bad_state(w, "nested_offset", "a number", e);
    w->nested_offset = (float)offset;
    return 0;
}

static int bind_4bit(struct hf_packed *w, struct arena *arena, struct err *e)
{
    const struct st_tensor *state_tensor = w->part[PART_STATE];
    struct json_doc *doc = NULL;
    uint64_t n = 0;
    if (!state_tensor || state_tensor->dtype != ST_U8 || state_tensor->n_bytes > MAX_STATE_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s: weight '%s': no usable tensor '%s.quant_state.bitsandbytes__nf4' beside it",
                       w->file, w->name, w->name);
    int rc = json_parse(&doc, (const char *)state_tensor->data, state_tensor->n_bytes, state_tensor->name, e);
    if (rc == 0)
        rc = take_state(w, json_root(doc), &n, e);
    if (rc == 0) {
        bool nested = w->part[PART_NESTED_SCALE] != NULL;
        uint64_t n_blocks = (n - 1) / w->block + 1;
        rc = need(w, PART_CODES, ST_U8, (n + 1) / 2, "", e);
        if (rc == 0)
            rc = need(w, PART_LEVELS, ST_F32, 16, ".quant_map", e);
        if (rc == 0)
            rc = need(w, PART_SCALE, nested ? ST_U8 : ST_F32, n_blocks, ".absmax", e);
        if (rc == 0 && nested)
            rc =
                need(w, PART_NESTED_SCALE, ST_F32, (n_blocks - 1) / w->nested_block + 1, ".nested_absmax", e);
        if (rc == 0 && nested)
            rc = need(w, PART_NESTED_LEVELS, ST_F32, 256, ".nested_quant_map", e);
    }
    if (rc == 0) {
        const char *kind = json_string(json_get(json_root(doc), "quant_type"));
        if (!kind)
            kind = strstr(state_tensor->name, "nf4") ? "nf4" : "fp4";
        w->codes = CODES_BNB4;
        w->n_cols = w->shape[w->n_dims - 1];
        w->type = arena_printf(arena, "bitsandbytes %s g%llu", kind, (unsigned long long)w->block);
        if (!w->type)
            rc = err_set(e, ERR_NOMEM, "out of memory: packed weight '%s'", w->name);
    }
    json_free(doc);
    return rc;
}

static int bind_8bit(struct hf_packed *w, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES];
    if (codes->n_dims != 2 || codes->n_elems == 0)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': 2 dimensions expected, found %u", w->file,
                       codes->name, codes->n_dims);
    int rc = need(w, PART_SCALE, ST_F32, codes->shape[0], " (SCB)", e);
    if (rc != 0)
        return rc;
    w->n_dims = 2;
    memcpy(w->shape, codes->shape, 2 * sizeof *w->shape);
    w->n_mats = 1;
    w->n_rows = w->shape[0];
    w->n_cols = w->shape[1];
    w->codes = CODES_I8;
    w->n_groups = 1;
    w->scale = (struct grid){w->part[PART_SCALE]->data, ST_F32, 1, w->n_cols, 0, 1, 0};
    w->factor = 1.0f / 127.0f;
    w->type = arena_strdup(arena, "bitsandbytes int8");
    return w->type ? 0 : err_set(e, ERR_NOMEM, "out of memory: packed weight '%s'", w->name);
}

int packed_bind_bnb(struct hf_packed *w, struct arena *arena, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES];
    if (codes->dtype == ST_I8)
        return bind_8bit(w, arena, e);
    if (codes->dtype == ST_U8)
        return bind_4bit(w, arena, e);
    return packed_bad_dtype(w, codes, "U8 or I8", e);
}

/* Scale of block `b`. */
static float block_scale(const struct hf_packed *w, uint64_t b)
{
    const uint8_t *absmax = w->part[PART_SCALE]->data;
    if (!w->part[PART_NESTED_SCALE])
        return load_f32(absmax + 4 * b);
    float level = load_f32(w->part[PART_NESTED_LEVELS]->data + 4 * (size_t)absmax[b]);
    return level * load_f32(w->part[PART_NESTED_SCALE]->data + 4 * (b / w->nested_block)) + w->nested_offset;
}

int packed_read_bnb4(const struct hf_packed *w, uint64_t first, uint64_t n, float *dst, struct err *e)
{
    const uint8_t *codes = w->part[PART_CODES]->data;
    float levels[16];
    (void)e;
    for (int i = 0; i < 16; i++)
        levels[i] = load_f32(w->part[PART_LEVELS]->data + 4 * i);
    for (uint64_t done = 0; done < n;) {
        uint64_t at = first + done, left = w->block - at % w->block;
        uint64_t take = left < n - done ? left : n - done;
        float scale = block_scale(w, at / w->block);
        for (uint64_t k = at; k < at + take; k++) {
            uint8_t byte = codes[k / 2];
            dst[done++] = levels[k % 2 ? byte & 15 : byte >> 4] * scale;
        }
    }
    return 0;
}
