/* hf_packed.c - which stored tensors make one weight, by their names.
 *
 * Each method is a table of suffixes. Names decide alone, so that a checkpoint of which only the index is
 * there is grouped in the same way; dtypes and shapes are checked behind that (hf_packed_bind.c). Nothing
 * disappears silently: helpers of the run time are marked as dropped, parts without their weight are errors.
 */
#include "hf_packed_internal.h"

#include "libquant/base/strmap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* X<suffix> is a part of the weight X<of>. */
struct suffix {
    const char *suffix, *of;
    enum part part;
};

static const struct suffix fp8_suffixes[] = {
    {"_scale_inv", "", PART_SCALE}, {".qscale_weight", ".weight", PART_SCALE}, {NULL, NULL, 0}};
static const struct suffix scale_suffixes[] = {{".weight_scale", ".weight", PART_SCALE}, {NULL, NULL, 0}};
static const struct suffix gptq_suffixes[] = {{".qweight", ".weight", PART_CODES},
                                              {".qzeros", ".weight", PART_ZERO},
                                              {".scales", ".weight", PART_SCALE},
                                              {".g_idx", ".weight", PART_GROUP},
                                              {NULL, NULL, 0}};
static const struct suffix ct_suffixes[] = {{".weight_packed", ".weight", PART_CODES},
                                            {".weight_scale", ".weight", PART_SCALE},
                                            {".weight_zero_point", ".weight", PART_ZERO},
                                            {".weight_g_idx", ".weight", PART_GROUP},
                                            {".weight_shape", ".weight", PART_SHAPE},
                                            {".weight_global_scale", ".weight", PART_GLOBAL},
                                            {NULL, NULL, 0}};
static const struct suffix modelopt_suffixes[] = {
    {".weight_scale", ".weight", PART_SCALE}, {".weight_scale_2", ".weight", PART_GLOBAL}, {NULL, NULL, 0}};
static const struct suffix bnb_suffixes[] = {{".weight.absmax", ".weight", PART_SCALE},
                                             {".weight.quant_map", ".weight", PART_LEVELS},
                                             {".weight.nested_absmax", ".weight", PART_NESTED_SCALE},
                                             {".weight.nested_quant_map", ".weight", PART_NESTED_LEVELS},
                                             {".weight.quant_state.bitsandbytes__nf4", ".weight", PART_STATE},
                                             {".weight.quant_state.bitsandbytes__fp4", ".weight", PART_STATE},
                                             {".SCB", ".weight", PART_SCALE},
                                             {NULL, NULL, 0}};

static const struct suffix mlx_suffixes[] = {
    {".scales", ".weight", PART_SCALE}, {".biases", ".weight", PART_ZERO}, {NULL, NULL, 0}};

/* gpt-oss: a stack X is X_blocks and X_scales, by rows; X itself, where it is stored, has its axes swapped.
 */
static const struct suffix mxfp4_suffixes[] = {
    {"_blocks", ".weight", PART_CODES}, {"_scales", ".weight", PART_SCALE}, {NULL, NULL, 0}};

static const struct suffix *suffixes_of(enum quant_method m)
{
    switch (m) {
    case METHOD_FP8: return fp8_suffixes;
    case METHOD_GPTQ:
    case METHOD_AWQ: return gptq_suffixes;
    case METHOD_COMPRESSED_TENSORS: return ct_suffixes;
    case METHOD_MODELOPT: return modelopt_suffixes;
    case METHOD_BITSANDBYTES: return bnb_suffixes;
    case METHOD_MLX: return mlx_suffixes;
    case METHOD_MXFP4: return mxfp4_suffixes;
    default: return scale_suffixes;
    }
}

/* Numbers for activations and caches at run time; the weights do not depend on them. */
static const char *drop_reason(const char *name, size_t len)
{
    static const char *const suffixes[] = {".input_scale",
                                           ".input_scale_ub",
                                           ".input_global_scale",
                                           ".input_zero_point",
                                           ".activation_scale",
                                           "_activation_scale",
                                           ".output_scale",
                                           ".output_zero_point",
                                           ".k_scale",
                                           ".v_scale",
                                           ".q_scale",
                                           ".k_zero_point",
                                           ".v_zero_point",
                                           ".prob_output_scale",
                                           ".prob_scale",
                                           ".qscale_act",
                                           ".k_global_scale",
                                           ".v_global_scale",
                                           ".q_global_scale",
                                           ".softmax_quant_scale"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t n = strlen(suffixes[i]);
        if (len > n && memcmp(name + len - n, suffixes[i], n) == 0)
            return "scale of activations or cache, not of a weight";
    }
    static const char format[] = ".weight_format";
    if (len > sizeof format - 1 && strcmp(name + len - (sizeof format - 1), format) == 0)
        return "remark of the quantizer, not a weight";
    return NULL;
}

struct grouping {
    const struct hf_quant *q;
    const struct hf_packed_input *in;
    struct hf_packed_fate *fates;
    struct hf_packed **weights;
    size_t n, cap;
    struct strmap by_name;
    struct arena *arena;
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory while grouping packed weights");
}

static int weight_of(struct grouping *g, const char *name, struct hf_packed **out, struct err *e)
{
    uint64_t i;
    if (strmap_find(&g->by_name, name, strlen(name), &i)) {
        *out = g->weights[i];
        return 0;
    }
    if (g->n == g->cap) {
        size_t cap = g->cap ? 2 * g->cap : 256;
        struct hf_packed **more = realloc(g->weights, cap * sizeof(struct hf_packed *));
        if (!more)
            return no_memory(e);
        g->weights = more;
        g->cap = cap;
    }
    struct hf_packed *w = arena_alloc(g->arena, sizeof *w);
    if (!w || strmap_put(&g->by_name, name, strlen(name), g->n, NULL) != 0)
        return no_memory(e);
    w->name = name;
    g->weights[g->n++] = w;
    *out = w;
    return 0;
}

static int add_part(struct grouping *g, struct hf_packed *w, enum part part, size_t input, struct err *e)
{
    const struct hf_packed_input *in = &g->in[input];
    if (w->part[part])
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': '%s' has this part already, in '%s'", in->file,
                       in->t->name, w->name, w->part[part]->name);
    w->part[part] = in->t;
    if (part == PART_CODES || !w->file)
        w->file = in->file;
    g->fates[input].weight = w;
    return 0;
}

/* A tensor whose name ends in one of the method's suffixes. */
static int try_suffix(struct grouping *g, size_t input, struct err *e)
{
    const char *name = g->in[input].t->name;
    size_t len = strlen(name);
    for (const struct suffix *s = suffixes_of(g->q->method); s->suffix; s++) {
        size_t n = strlen(s->suffix);
        if (len <= n || strcmp(name + len - n, s->suffix) != 0)
            continue;
        const char *of = arena_printf(g->arena, "%.*s%s", (int)(len - n), name, s->of);
        struct hf_packed *w = NULL;
        if (!of)
            return no_memory(e);
        int rc = weight_of(g, of, &w, e);
        if (rc == 0)
            rc = add_part(g, w, s->part, input, e);
        return rc;
    }
    g->fates[input].dropped = drop_reason(name, len);
    return 0;
}

/* The weight that other tensors called, or a plain one. */
static int try_codes(struct grouping *g, size_t input, struct err *e)
{
    const struct st_tensor *t = g->in[input].t;
    static const char bias[] = ".bias", weight[] = ".weight";
    size_t len = strlen(t->name);
    uint64_t i;
    if (strmap_find(&g->by_name, t->name, len, &i))
        return add_part(g, g->weights[i], PART_CODES, input, e);
    if (len > sizeof bias - 1 && strcmp(t->name + len - (sizeof bias - 1), bias) == 0) {
        size_t stem = len - (sizeof bias - 1);
        char *of = malloc(stem + sizeof weight);
        if (!of)
            return no_memory(e);
        memcpy(of, t->name, stem);
        memcpy(of + stem, weight, sizeof weight);
        g->fates[input].is_beside = strmap_find(&g->by_name, of, strlen(of), NULL);
        free(of);
    }
    if ((t->dtype == ST_F8_E4M3 || t->dtype == ST_F8_E5M2) && t->n_dims > 0)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': %s without a scale; expected '%s%s' beside it",
                       g->in[input].file, t->name, st_dtype_name(t->dtype), t->name,
                       g->q->method == METHOD_FP8 ? "_scale_inv" : "_scale");
    return 0;
}

/* ModelOpt writes scales for modules that have no weight of their own (attention products); fusing in MLX
 * leaves those of a tied head. */
static bool is_orphan_scale(const struct grouping *g, const struct hf_packed *w)
{
    return (g->q->method == METHOD_MODELOPT || g->q->method == METHOD_MLX) && !w->part[PART_CODES];
}

static const char *first_part(const struct hf_packed *w)
{
    for (int i = 0; i < PART_COUNT; i++)
        if (w->part[i])
            return w->part[i]->name;
    return w->name;
}

/* By their names 4-bit floats are known: of the packed types of ModelOpt they alone have a second scale, of
 * those of compressed-tensors they alone have no stated shape, and NVFP4 alone has a global scale. */
static void settle_by_names(struct hf_packed *w, const struct hf_quant *q)
{
    bool global = w->part[PART_GLOBAL] != NULL;
    bool fp4 = q->method == METHOD_MXFP4      ? true
               : q->method == METHOD_MODELOPT ? global
               : q->method == METHOD_COMPRESSED_TENSORS
                   ? global || (q->has_fp4 && w->late && !w->part[PART_SHAPE])
                   : false;
    w->names_only = true;
    if (!fp4)
        return;
    w->codes = CODES_FP4;
    w->scale.dtype = global ? ST_F8_E4M3 : ST_F8_E8M0;
    w->type = global ? "NVFP4" : "MXFP4";
}

static int finish(struct grouping *g, struct hf_packed *w, struct err *e)
{
    const struct st_tensor *codes = w->part[PART_CODES];
    if (!codes)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s' belongs to '%s', whose packed values are missing",
                       w->file, first_part(w), w->name);
    w->late = strcmp(codes->name, w->name) != 0;
    w->factor = 1;
    w->type = g->q->name;
    for (int i = 0; i < PART_COUNT; i++)
        if (w->part[i] && w->part[i]->n_dims == 0 && !w->part[i]->data) {
            settle_by_names(w, g->q);
            return 0;
        }
    return packed_bind(w, g->q, g->arena, e);
}

static int group_all(struct grouping *g, size_t n, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = try_suffix(g, i, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (!g->fates[i].weight && !g->fates[i].dropped)
            rc = try_codes(g, i, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const struct hf_packed *w = g->fates[i].weight;
        if (w && is_orphan_scale(g, w))
            g->fates[i] = (struct hf_packed_fate){.dropped = "scale of a module without a weight"};
    }
    size_t kept = 0;
    for (size_t i = 0; rc == 0 && i < g->n; i++) {
        if (is_orphan_scale(g, g->weights[i]))
            continue;
        rc = finish(g, g->weights[i], e);
        g->weights[kept++] = g->weights[i];
    }
    g->n = kept;
    return rc;
}

int hf_packed_group(struct hf_packed_list *out, const struct hf_quant *q, const struct hf_packed_input *in,
                    size_t n, struct arena *arena, struct err *e)
{
    struct grouping g = {.q = q, .in = in, .arena = arena};
    const struct hf_packed **weights = NULL;
    int rc = 0;
    g.fates = arena_array(arena, n + 1, sizeof *g.fates);
    if (!g.fates)
        rc = no_memory(e);
    if (rc == 0)
        rc = group_all(&g, n, e);
    if (rc == 0 && !(weights = arena_array(arena, g.n + 1, sizeof *weights)))
        rc = no_memory(e);
    if (rc == 0) {
        for (size_t i = 0; i < g.n; i++)
            weights[i] = g.weights[i];
        *out = (struct hf_packed_list){g.fates, weights, g.n};
    }
    free(g.weights);
    strmap_release(&g.by_name);
    return rc;
}

const char *hf_packed_name(const struct hf_packed *w)
{
    return w->name;
}

const char *hf_packed_file(const struct hf_packed *w)
{
    return w->file;
}

const char *hf_packed_type(const struct hf_packed *w)
{
    return w->type;
}

const uint64_t *hf_packed_shape(const struct hf_packed *w, uint32_t *n_dims)
{
    *n_dims = w->n_dims;
    return w->shape;
}

bool hf_packed_is_late(const struct hf_packed *w)
{
    return w->late;
}

const struct st_tensor *hf_packed_codes(const struct hf_packed *w)
{
    return w->part[PART_CODES];
}

const char *packed_shape_text(char *buf, size_t cap, const uint64_t *shape, uint32_t n)
{
    size_t at = (size_t)snprintf(buf, cap, "[");
    for (uint32_t i = 0; i < n && at + 26 < cap; i++)
        at += (size_t)snprintf(buf + at, cap - at, "%s%llu", i ? ", " : "", (unsigned long long)shape[i]);
    snprintf(buf + at, cap - at, "]");
    return buf;
}

int packed_bad_shape(const struct hf_packed *w, const struct st_tensor *t, const uint64_t *want,
                     uint32_t n_want, struct err *e)
{
    char expected[120], found[240];
    return err_set(e, ERR_FORMAT, "%s: tensor '%s': shape %s expected, found %s", w->file, t->name,
                   packed_shape_text(expected, sizeof expected, want, n_want),
                   packed_shape_text(found, sizeof found, t->shape, t->n_dims));
}

int packed_bad_dtype(const struct hf_packed *w, const struct st_tensor *t, const char *want, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: tensor '%s': %s expected, found %s", w->file, t->name, want,
                   st_dtype_name(t->dtype));
}
