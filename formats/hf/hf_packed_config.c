/* hf_packed_config.c - how a checkpoint says that its weights are compressed.
 *
 * Only what is needed to read the weights is taken; how activations or the KV cache are quantized at run time
 * is nobody's business here. A method or variant that is not read is refused by name, before a tensor is
 * looked at. Specification, architectures 18. */
#include "hf_packed_internal.h"

#include "hf_checkpoint.h"

#include "libquant/base/path.h"

#include <stdlib.h>
#include <string.h>

#define MAX_QUANT_BYTES (16u << 20) /* mixed-precision releases list every module */

static int unsupported(const struct hf_quant *q, const char *what, const char *value, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED,
                   "compressed with '%s', %s '%s', which is not supported; use the original weights", q->name,
                   what, value);
}

static int bad_value(const struct hf_quant *q, const char *key, const char *want, struct err *e)
{
    return err_set(e, ERR_FORMAT, "quantization_config ('%s'): '%s' is not %s", q->name, key, want);
}

static bool is_stated(const struct json *j)
{
    return j && !json_is_null(j);
}

/* A size that may be missing or null; -1 stands for "the whole row". */
static int take_size(const struct hf_quant *q, const struct json *object, const char *key, uint64_t *out,
                     struct err *e)
{
    const struct json *j = json_get(object, key);
    int64_t v;
    if (!is_stated(j))
        return 0;
    if (!json_int(j, &v) || v < -1 || v == 0 || v > (1 << 30))
        return bad_value(q, key, "a positive integer or -1", e);
    *out = v < 0 ? 0 : (uint64_t)v;
    return 0;
}

static int take_block(const struct hf_quant *q, const struct json *object, const char *key,
                      struct quant_scheme *s, struct err *e)
{
    const struct json *j = json_get(object, key), *first = json_first(j), *second = json_next(first);
    if (!is_stated(j))
        return 0;
    if (!json_is_array(j) || !json_uint(first, &s->block_o) || !json_uint(second, &s->block_i) ||
        json_next(second) || s->block_o == 0 || s->block_i == 0 || s->block_o > (1 << 30) ||
        s->block_i > (1 << 30))
        return bad_value(q, key, "a pair of positive integers", e);
    return 0;
}

static struct quant_scheme *add_schemes(struct hf_quant *q, size_t n, struct err *e)
{
    q->schemes = arena_array(&q->arena, n + 1, sizeof *q->schemes);
    if (!q->schemes)
        err_set(e, ERR_NOMEM, "out of memory: %zu quantization schemes", n);
    return q->schemes;
}

static const char *lower(struct hf_quant *q, const char *s)
{
    char *copy = arena_strdup(&q->arena, s);
    for (char *p = copy; p && *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p += 'a' - 'A';
    return copy;
}

static int take_fp8(struct hf_quant *q, struct err *e)
{
    struct quant_scheme *s = add_schemes(q, 1, e);
    if (!s)
        return ERR_NOMEM;
    q->n_schemes = 1;
    s->bits = 8;
    return take_block(q, q->json, "weight_block_size", s, e);
}

static int take_gptq(struct hf_quant *q, struct err *e)
{
    struct quant_scheme *s = add_schemes(q, 1, e);
    const char *format = json_string(json_get(q->json, "checkpoint_format"));
    bool marlin = false;
    if (!s)
        return ERR_NOMEM;
    if (!format)
        format = json_string(json_get(q->json, "format"));
    json_bool(json_get(q->json, "is_marlin_format"), &marlin);
    if (marlin)
        format = "marlin";
    q->n_schemes = 1;
    q->zeros_minus_one = !format || strcmp(format, "gptq") == 0;
    q->mixed_bits = json_n_children(json_get(q->json, "dynamic")) > 0;
    if (!q->zeros_minus_one && strcmp(format, "gptq_v2") != 0)
        return unsupported(q, "checkpoint_format", format, e);
    if (!json_uint(json_get(q->json, "bits"), &s->bits) ||
        (s->bits != 2 && s->bits != 3 && s->bits != 4 && s->bits != 8))
        return bad_value(q, "bits", "2, 3, 4 or 8", e);
    return take_size(q, q->json, "group_size", &s->group_size, e);
}

static int take_awq(struct hf_quant *q, struct err *e)
{
    static const char *const keys[] = {"version", "checkpoint_format", "format"};
    struct quant_scheme *s = add_schemes(q, 1, e);
    const char *version = NULL;
    if (!s)
        return ERR_NOMEM;
    q->n_schemes = 1;
    for (size_t i = 0; !version && i < sizeof keys / sizeof *keys; i++)
        version = json_string(json_get(q->json, keys[i]));
    if (version && !(version = lower(q, version)))
        return err_set(e, ERR_NOMEM, "out of memory");
    if (version && strcmp(version, "gemm") != 0)
        return unsupported(q, "version", version, e);
    s->bits = 4;
    const struct json *bits =
        json_get(q->json, "bits") ? json_get(q->json, "bits") : json_get(q->json, "w_bit");
    if (is_stated(bits) && (!json_uint(bits, &s->bits) || s->bits != 4))
        return bad_value(q, "bits", "4", e);
    int rc = take_size(q, q->json, "q_group_size", &s->group_size, e);
    return rc == 0 ? take_size(q, q->json, "group_size", &s->group_size, e) : rc;
}

/* auto-round packs as GPTQ or AWQ do; which of them, and whether zero points are stored one too low, is in
 * the name of its format (auto_round 0.5 to 0.9: packing_format, before that backend). */
static int take_auto_round(struct hf_quant *q, struct err *e)
{
    static const char *const foreign[] = {"fp8", "mx", "nv", "llm_compressor", "fake", "rrq"};
    const char *format = json_string(json_get(q->json, "packing_format"));
    const char *type = json_string(json_get(q->json, "data_type"));
    bool symmetric = true;
    uint64_t act_bits = 16;
    if (!format)
        format = json_string(json_get(q->json, "backend"));
    json_bool(json_get(q->json, "sym"), &symmetric);
    json_uint(json_get(q->json, "act_bits"), &act_bits);
    if (type && strcmp(type, "int") != 0)
        return unsupported(q, "data_type", type, e);
    if (act_bits < 16)
        return unsupported(q, "weights packed for", "act_bits", e);
    if (!format && !symmetric)
        return unsupported(q, "no packing_format beside", "sym: false", e);
    for (size_t i = 0; format && i < sizeof foreign / sizeof *foreign; i++)
        if (strstr(format, foreign[i]))
            return unsupported(q, "packing_format", format, e);
    if (format && strstr(format, "awq")) {
        q->method = METHOD_AWQ;
        return take_awq(q, e);
    }
    q->method = METHOD_GPTQ;
    int rc = take_gptq(q, e);
    q->modules = json_get(q->json, "extra_config");
    q->mixed_bits = json_n_children(q->modules) > 0;
    q->zeros_minus_one = !format || (strstr(format, "gptq") && !strstr(format, "gptqmodel"));
    return rc;
}

static int mlx_mode(const struct hf_quant *q, const struct json *settings, struct err *e)
{
    const char *mode = json_string(json_get(settings, "mode"));
    return mode && strcmp(mode, "affine") != 0 ? unsupported(q, "mode", mode, e) : 0;
}

static int take_mlx(struct hf_quant *q, struct err *e)
{
    struct quant_scheme *s = add_schemes(q, 1, e);
    if (!s)
        return ERR_NOMEM;
    q->n_schemes = 1;
    q->modules = q->json;
    int rc = mlx_mode(q, q->json, e);
    for (const struct json *j = json_first(q->json); rc == 0 && j; j = json_next(j))
        rc = json_is_object(j) ? mlx_mode(q, j, e) : 0;
    if (rc == 0 && !json_uint(json_get(q->json, "bits"), &s->bits))
        rc = bad_value(q, "bits", "a whole number", e);
    return rc == 0 ? take_size(q, q->json, "group_size", &s->group_size, e) : rc;
}

/* The formats of compressed-tensors whose weights are read; "mixed-precision" gives one for each group. */
static int check_format(const struct hf_quant *q, const char *format, struct err *e)
{
    static const char *const known[] = {"float-quantized", "int-quantized",        "naive-quantized",
                                        "pack-quantized",  "nvfp4-pack-quantized", "mxfp4-pack-quantized",
                                        "mxfp8-quantized", "mixed-precision",      "dense"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(format, known[i]) == 0)
            return 0;
    return unsupported(q, "format", format, e);
}

static int take_group(struct hf_quant *q, const struct json *group, struct err *e)
{
    const struct json *weights = json_get(group, "weights");
    const char *format = json_string(json_get(group, "format"));
    if (!json_is_object(group))
        return bad_value(q, "config_groups", "an object of objects", e);
    int rc = format ? check_format(q, format, e) : 0;
    if (rc != 0 || !is_stated(weights))
        return rc;
    struct quant_scheme *s = &q->schemes[q->n_schemes++];
    const char *kind = json_string(json_get(weights, "type"));
    rc = take_size(q, weights, "num_bits", &s->bits, e);
    q->has_fp4 |= s->bits == 4 && kind && strcmp(kind, "float") == 0;
    if (rc == 0)
        rc = take_size(q, weights, "group_size", &s->group_size, e);
    return rc == 0 ? take_block(q, weights, "block_structure", s, e) : rc;
}

static int take_compressed_tensors(struct hf_quant *q, struct err *e)
{
    const char *format = json_string(json_get(q->json, "format"));
    const char *sparsity = json_string(json_get(json_get(q->json, "sparsity_config"), "format"));
    const struct json *groups = json_get(q->json, "config_groups");
    int rc = format ? check_format(q, format, e) : 0;
    if (rc == 0 && sparsity && strcmp(sparsity, "dense") != 0)
        rc = unsupported(q, "sparsity format", sparsity, e);
    if (rc == 0 && json_n_children(json_get(json_get(q->json, "transform_config"), "config_groups")) > 0)
        rc = unsupported(q, "a model with", "transform_config", e);
    if (rc == 0 && !json_is_object(groups))
        rc = bad_value(q, "config_groups", "an object", e);
    if (rc == 0 && !add_schemes(q, json_n_children(groups), e))
        rc = ERR_NOMEM;
    for (const struct json *g = json_first(groups); rc == 0 && g; g = json_next(g))
        rc = take_group(q, g, e);
    return rc;
}

static int check_algorithm(struct hf_quant *q, const char *algo, struct err *e)
{
    q->has_fp4 |= path_ends_with(algo, "NVFP4");
    if (strcmp(algo, "FP8") == 0 || strcmp(algo, "FP8_PER_CHANNEL_PER_TOKEN") == 0 ||
        strcmp(algo, "MIXED_PRECISION") == 0 || strcmp(algo, "NVFP4") == 0 ||
        path_ends_with(algo, "A16_NVFP4"))
        return 0;
    return unsupported(q, "quant_algo", algo, e);
}

/* Which module has which of the two forms shows in its tensors. */
static int take_modelopt(struct hf_quant *q, struct err *e)
{
    const char *algo = json_string(json_get(q->json, "quant_algo"));
    int rc = algo ? check_algorithm(q, algo, e) : 0;
    const struct json *layer = json_first(json_get(q->json, "quantized_layers"));
    for (; rc == 0 && layer; layer = json_next(layer))
        if ((algo = json_string(json_get(layer, "quant_algo"))))
            rc = check_algorithm(q, algo, e);
    return rc;
}

static int take_mxfp4(struct hf_quant *q, struct err *e)
{
    (void)e;
    q->has_fp4 = true;
    return 0;
}

static int take_nothing(struct hf_quant *q, struct err *e)
{
    (void)q;
    (void)e;
    return 0;
}

static const struct {
    const char *name;
    enum quant_method method;
    int (*take)(struct hf_quant *q, struct err *e);
} methods[] = {
    {"fp8", METHOD_FP8, take_fp8},
    {"fbgemm_fp8", METHOD_FBGEMM_FP8, take_nothing},
    {"gptq", METHOD_GPTQ, take_gptq},
    {"awq", METHOD_AWQ, take_awq},
    {"compressed-tensors", METHOD_COMPRESSED_TENSORS, take_compressed_tensors},
    {"modelopt", METHOD_MODELOPT, take_modelopt},
    {"bitnet", METHOD_BITNET, take_nothing},
    {"bitsandbytes", METHOD_BITSANDBYTES, take_nothing},
    {"auto-round", METHOD_GPTQ, take_auto_round},
    {"intel/auto-round", METHOD_GPTQ, take_auto_round},
    {"mlx", METHOD_MLX, take_mlx},
    {"mxfp4", METHOD_MXFP4, take_mxfp4},
};

static int settle(struct hf_quant *q, struct err *e)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (strcmp(q->name, methods[i].name) != 0)
            continue;
        q->method = methods[i].method;
        return methods[i].take(q, e);
    }
    return err_set(
        e, ERR_UNSUPPORTED,
        "compressed with '%s', which is not supported; use the original weights, or a version in "
        "fp8, gptq, awq, auto-round, mlx, compressed-tensors, modelopt, mxfp4, bitnet or bitsandbytes",
        q->name);
}

/* Older AutoGPTQ and AutoAWQ, and MLX, do not name themselves; their keys do. */
static const char *method_by_keys(const struct json *j)
{
    static const struct {
        const char *key, *method;
    } keys[] = {{"desc_act", "gptq"}, {"damp_percent", "gptq"}, {"true_sequential", "gptq"},
                {"w_bit", "awq"},     {"zero_point", "awq"},    {"q_group_size", "awq"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_get(j, keys[i].key))
            return keys[i].method;
    return json_get(j, "bits") && json_get(j, "group_size") ? "mlx" : NULL;
}

/* ModelOpt names itself as producer instead of a method. */
static const char *method_of(struct hf_quant *q, const struct json *outer, const struct json *inner)
{
    const char *name = json_string(json_get(inner, "quant_method"));
    if (!name)
        name = json_string(json_get(json_get(outer, "producer"), "name"));
    if (!name)
        name = json_string(json_get(json_get(inner, "producer"), "name"));
    if (!name && json_get(inner, "quant_algo"))
        name = "modelopt";
    if (!name)
        name = method_by_keys(inner);
    return name ? lower(q, name) : NULL;
}

/* Older releases keep the statement in a file of its own. */
static int load_separate(struct hf_quant *q, const char *folder, struct err *e)
{
    static const struct {
        const char *file, *inner, *method;
    } files[] = {{"hf_quant_config.json", "quantization", "modelopt"},
                 {"quantize_config.json", NULL, "gptq"},
                 {"quant_config.json", NULL, "awq"},
                 {"quantization_config.json", NULL, "auto-round"}};
    int rc = 0;
    for (size_t i = 0; rc == 0 && !q->doc && i < sizeof files / sizeof *files; i++) {
        if (!hf_file_exists(folder, files[i].file))
            continue;
        char *path = hf_path(folder, files[i].file);
        if (!path)
            return err_set(e, ERR_NOMEM, "%s: out of memory", folder);
        rc = json_load_python(&q->doc, path, MAX_QUANT_BYTES, e);
        free(path);
        if (rc != 0)
            return rc;
        const struct json *root = json_root(q->doc);
        q->json = files[i].inner ? json_get(root, files[i].inner) : root;
        if (!json_is_object(q->json))
            return err_set(e, ERR_FORMAT, "%s: no object '%s'", files[i].file,
                           files[i].inner ? files[i].inner : "(root)");
        q->name = method_of(q, root, q->json);
        if (!q->name)
            q->name = files[i].method;
        rc = settle(q, e);
        if (rc != 0)
            err_context(e, rc, "%s", files[i].file);
    }
    return rc;
}

int hf_quant_load(struct hf_quant **out, const struct hf_config *config, const char *folder, struct err *e)
{
    struct hf_quant *q = calloc(1, sizeof *q);
    const struct json *j = hf_config_get(config, "quantization_config");
    int rc = 0;
    if (!q)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (!json_is_object(j)) /* a null of the text part must not hide that of the root */
        j = json_get(hf_config_root(config), "quantization_config");
    const struct json *mlx = hf_config_get(config, "quantization"); /* beside it, or in its place */
    if (!json_is_object(mlx))
        mlx = json_get(hf_config_root(config), "quantization");
    if (json_is_object(mlx) && json_get(mlx, "bits") && !json_get(j, "quant_method"))
        j = mlx;
    if (json_is_object(j)) {
        q->json = j;
        q->name = method_of(q, j, j);
        if (!q->name)
            rc = err_set(e, ERR_UNSUPPORTED, "config.json: quantization_config without 'quant_method'");
        else if ((rc = settle(q, e)) != 0)
            err_context(e, rc, "config.json");
    } else if (folder) {
        rc = load_separate(q, folder, e);
    }
    if (rc == 0 && q->name) {
        *out = q;
        return 0;
    }
    hf_quant_free(q);
    if (rc == 0)
        *out = NULL;
    return rc;
}

/* Is there a tensor of this name and ending? */
static bool has_beside(const struct hf_checkpoint *c, const char *name, const char *ending, struct arena *a)
{
    const char *other = name ? arena_printf(a, "%s%s", name, ending) : NULL;
    return other && hf_checkpoint_find(c, other);
}

int hf_quant_guess(struct hf_quant **out, const struct hf_checkpoint *c, struct err *e)
{
    struct hf_quant *q = calloc(1, sizeof *q);
    bool found = false;
    if (!q)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (size_t i = 0; !found && i < hf_checkpoint_n_tensors(c); i++) {
        const struct st_tensor *t = hf_checkpoint_tensor(c, i);
        size_t stem = path_ends_with(t->name, ".weight") ? strlen(t->name) - strlen(".weight") : 0;
        if (t->dtype == ST_U32 && stem && hf_checkpoint_has_weights(c) &&
            has_beside(c, arena_strndup(&q->arena, t->name, stem), ".scales", &q->arena)) {
            int rc =
                err_set(e, ERR_UNSUPPORTED,
                        "%s: tensor '%s': packed as by MLX, but config.json has no 'quantization' that says "
                        "with how many bits",
                        hf_checkpoint_tensor_file(c, i), t->name);
            hf_quant_free(q);
            return rc;
        }
        bool f8 = t->dtype == ST_F8_E4M3 || t->dtype == ST_F8_E5M2;
        if (hf_checkpoint_has_weights(c) && !f8)
            continue;
        q->method = has_beside(c, t->name, "_scale_inv", &q->arena) ? METHOD_FP8 : METHOD_FBGEMM_FP8;
        found = q->method == METHOD_FP8 || (f8 && has_beside(c, t->name, "_scale", &q->arena));
    }
    *out = NULL;
    if (!found) {
        hf_quant_free(q);
        return 0;
    }
    if (!add_schemes(q, 1, e)) {
        hf_quant_free(q);
        return ERR_NOMEM;
    }
    q->name = "fp8";
    q->n_schemes = 1;
    q->schemes[0] = (struct quant_scheme){.bits = 8, .block_o = 128, .block_i = 128};
    *out = q;
    return 0;
}

void hf_quant_free(struct hf_quant *q)
{
    if (!q)
        return;
    json_free(q->doc);
    arena_release(&q->arena);
    free(q);
}

const char *hf_quant_name(const struct hf_quant *q)
{
    return q->name;
}

bool hf_quant_has_fp4(const struct hf_quant *q)
{
    return q->has_fp4;
}
