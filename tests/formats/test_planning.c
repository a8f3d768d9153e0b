/* test_planning.c - models without weights: an index of names, or a configuration alone, plans exactly the
 * file that the checkpoint itself becomes. Real configurations and indices are used where they are at hand.
 */
#include "formats/rewrite/rewrite.h"
#include "formats/json.h"

#include "scratch.h"
#include "toy_checkpoint.h"
#include "toy_family.h"
#include "toy_packed.h"

#include <dirent.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *shared(char path[600], const char *name)
{
    snprintf(path, 600, "%s/data/%s", KERF_SHARED, name);
    return access(path, R_OK) == 0 ? path : NULL;
}

static struct model *open_plan(const char *path)
{
    struct model *m = NULL;
    struct err e = {0};
    const struct model_options opt = {.allow_missing_weights = true};
    if (model_open(&m, path, &opt, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static uint64_t n_parameters(const struct model *m)
{
    uint64_t n = 0;
    for (size_t i = 0; i < model_n_tensors(m); i++)
        n += model_tensor(m, i)->ne[0] * model_tensor(m, i)->n_rows;
    return n;
}

static bool warns(const struct model *m, const char *text)
{
    for (size_t i = 0; i < model_n_warnings(m); i++)
        if (strstr(model_warning(m, i), text))
            return true;
    return false;
}

static void expect_same_tensors(const struct model *got, const struct model *want, const char *what)
{
    if (model_n_tensors(got) != model_n_tensors(want))
        fail_msg("%s: %zu tensors, expected %zu", what, model_n_tensors(got), model_n_tensors(want));
    for (size_t i = 0; i < model_n_tensors(want); i++) {
        const struct model_tensor *w = model_tensor(want, i), *g = model_find(got, w->name);
        if (!g)
            fail_msg("%s: no '%s'", what, w->name);
        if (g->n_dims != w->n_dims || memcmp(g->ne, w->ne, sizeof g->ne) != 0 ||
            g->always_f32 != w->always_f32 || (!w->always_f32 && g->type != w->type))
            fail_msg("%s: '%s' has another shape or type", what, w->name);
    }
}

/* --- generated checkpoints -------------------------------------------------------------------------------
 */

static int write_toy(const char *folder, size_t number, struct err *e)
{
    size_t n_families = 0;
    while (toy_family_names[n_families])
        n_families++;
    if (number < n_families)
        return toy_family_write(folder, toy_family_names[number], e);
    number -= n_families;
    struct toy_spec spec = toy_spec_tiny((enum toy_arch)(number / 4));
    spec.tied = number & 1;
    spec.bias = (number & 2) && (spec.arch == TOY_QWEN3 || spec.arch == TOY_LLAMA);
    spec.n_shards = 2;
    if (spec.arch == TOY_LLAMA)
        spec.rope_scaling = ROPE_LLAMA3;
    return toy_checkpoint_write(folder, &spec, e);
}

static uint64_t planned_bytes(struct model *m, const char *type)
{
    struct rewrite_options ro = {.recipe = {.recipe = "llama.cpp", .mix = type ? mix_find(type) : NULL},
                                 .dry_run = true};
    struct rewrite_report r = {0};
    struct err e = {0};
    if (rewrite_model(&r, m, "x.gguf", &ro, &e) != 0)
        fail_msg("%s", e.msg);
    uint64_t n = 0;
    for (size_t i = 0; i < r.n_tensors; i++)
        n += r.tensors[i].n_bytes;
    rewrite_report_release(&r);
    return n;
}

static void remove_shards(const char *folder)
{
    DIR *d = opendir(folder);
    char path[600];
    assert_non_null(d);
    for (struct dirent *ent; (ent = readdir(d)) != NULL;) {
        if (!strstr(ent->d_name, ".safetensors") || strstr(ent->d_name, ".index."))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, ent->d_name);
        assert_int_equal(unlink(path), 0);
    }
    closedir(d);
}

/* Weights, index, folder with the configuration, the configuration by itself: the same plan. */
static void test_all_four_say_the_same(void **state)
{
    (void)state;
    size_t n_families = 0;
    while (toy_family_names[n_families])
        n_families++;
    for (size_t i = 0; i < n_families + 4 * TOY_ARCH_COUNT; i++) {
        struct scratch s;
        struct err e = {0};
        char what[64], config[120];
        scratch_make(&s);
        snprintf(what, sizeof what, "toy %zu", i);
        snprintf(config, sizeof config, "%s/config.json", s.folder);
        if (write_toy(s.folder, i, &e) != 0)
            fail_msg("%s: %s", what, e.msg);
        struct model *full = open_plan(s.folder), *m;
        assert_true(model_has_weights(full));
        uint64_t mixed = planned_bytes(full, "Q4_K_M"), plain = planned_bytes(full, NULL);

        m = open_plan(config); /* whatever lies beside it */
        assert_false(model_has_weights(m));
        assert_true(warns(m, "neither weights nor an index"));
        expect_same_tensors(m, full, what);
        assert_int_equal(planned_bytes(m, "Q4_K_M"), mixed);
        assert_int_equal(planned_bytes(m, NULL), plain);
        model_close(m);

        bool indexed = i >= n_families;
        remove_shards(s.folder);
        m = open_plan(s.folder); /* an index, or nothing */
        assert_int_equal(warns(m, "neither weights nor an index"), !indexed);
        assert_false(warns(m, "total_size"));
        expect_same_tensors(m, full, what);
        assert_int_equal(planned_bytes(m, "Q4_K_M"), mixed);
        model_close(m);
        if (indexed) {
            scratch_delete(&s, "model.safetensors.index.json");
            m = open_plan(s.folder);
            assert_true(warns(m, "neither weights nor an index"));
            expect_same_tensors(m, full, what);
            model_close(m);
        }
        model_close(full);
        scratch_remove(&s);
    }
}

static const char small_config[] =
    "{\"architectures\": [\"Qwen3ForCausalLM\"], \"model_type\": \"qwen3\", \"hidden_size\": 64, "
    "\"num_hidden_layers\": 1, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 16, "
    "\"intermediate_size\": 96, \"vocab_size\": 100, \"tie_word_embeddings\": true, \"torch_dtype\": "
    "\"bfloat16\"}";

/* 100*64 + 64 + 2*64 + 2*16 + 64*64 + 2*32*64 + 64*64 + 3*64*96 elements, of which 224 are norms. */
enum { SMALL_ELEMS = 37344, SMALL_NORMS = 224 };

static void write_small_index(const struct scratch *s, uint64_t total, const char *more)
{
    static const char *const names[] = {"embed_tokens",
                                        "norm",
                                        "layers.0.input_layernorm",
                                        "layers.0.post_attention_layernorm",
                                        "self_attn.q_proj",
                                        "self_attn.k_proj",
                                        "self_attn.v_proj",
                                        "self_attn.o_proj",
                                        "self_attn.q_norm",
                                        "self_attn.k_norm",
                                        "mlp.gate_proj",
                                        "mlp.up_proj",
                                        "mlp.down_proj"};
    char text[2000];
    int n =
        snprintf(text, sizeof text, "{\"metadata\": {\"total_size\": %" PRIu64 "}, \"weight_map\": {", total);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s\"model.%s%s.weight\": \"a.safetensors\"",
                      i ? ", " : "", i >= 4 ? "layers.0." : "", names[i]);
    snprintf(text + n, sizeof text - (size_t)n, "%s}}", more);
    scratch_text(s, "model.safetensors.index.json", text);
}

static void test_total_size_is_checked(void **state)
{
    (void)state;
    struct scratch s;
    const uint64_t exact = 2 * SMALL_ELEMS;
    static const struct {
        int64_t more;
        bool warned;
    } cases[] = {
        {0, false}, {-1, true}, {2 * SMALL_NORMS, false}, {2 * SMALL_NORMS + 1, true}, {-2048, true}};
    scratch_make(&s);
    scratch_text(&s, "config.json", small_config);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_small_index(&s, (uint64_t)((int64_t)exact + cases[i].more), "");
        struct model *m = open_plan(s.folder);
        assert_int_equal(n_parameters(m), SMALL_ELEMS);
        assert_int_equal(warns(m, "metadata.total_size"), cases[i].warned);
        model_close(m);
    }
    /* what is left out may have any size, but not less than none */
    write_small_index(&s, exact + 4096, ", \"visual.x.weight\": \"a.safetensors\"");
    struct model *m = open_plan(s.folder);
    assert_false(warns(m, "metadata.total_size"));
    assert_int_equal(model_n_skipped(m), 1);
    model_close(m);
    write_small_index(&s, exact - 2, ", \"visual.x.weight\": \"a.safetensors\"");
    m = open_plan(s.folder);
    assert_true(warns(m, "metadata.total_size"));
    model_close(m);
    scratch_remove(&s);
}

/* The names of the small model with its matrices packed as `kind`, and what config.json then says. */
static void write_packed_index(const struct scratch *s, enum toy_packing kind)
{
    static const char *const plain[] = {"embed_tokens",
                                        "norm",
                                        "layers.0.input_layernorm",
                                        "layers.0.post_attention_layernorm",
                                        "layers.0.self_attn.q_norm",
                                        "layers.0.self_attn.k_norm"};
    static const char *const packed[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                         "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                         "mlp.down_proj"};
    struct toy_packed p = {.seed = 1};
    char text[8000], config[2000], stem[100];
    int n = snprintf(text, sizeof text, "{\"weight_map\": {");
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s\"model.%s.weight\": \"a.safetensors\"",
                      i ? ", " : "", plain[i]);
    for (size_t i = 0; i < sizeof packed / sizeof *packed; i++) {
        snprintf(stem, sizeof stem, "model.layers.0.%s", packed[i]);
        toy_packed_add(&p, kind, stem, 8, 96); /* for the names of its parts */
    }
    for (size_t i = 0; i < p.n; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, ", \"%s\": \"a.safetensors\"", p.t[i].name);
    snprintf(text + n, sizeof text - (size_t)n, "}}");
    toy_packed_release(&p);
    scratch_text(s, "model.safetensors.index.json", text);
    snprintf(config, sizeof config, "%.*s, \"quantization_config\": %s}", (int)strlen(small_config) - 1,
             small_config, toy_packing_config(kind));
    scratch_text(s, "config.json", config);
}

/* Opened as for the precision of the source: shapes come from config.json. The names of an index say which
 * weights stay packed, with what factors; of a configuration alone it is told that they may. */
static void test_indices_of_packed_checkpoints(void **state)
{
    (void)state;
    struct scratch s;
    scratch_make(&s);
    for (int kind = 0; kind < TOY_PACKING_COUNT; kind++) {
        const bool nvfp4 = kind == TOY_CT_NVFP4 || kind == TOY_MODELOPT_NVFP4,
                   fp4 = nvfp4 || kind == TOY_CT_MXFP4;
        char config[120];
        snprintf(config, sizeof config, "%s/config.json", s.folder);
        write_packed_index(&s, (enum toy_packing)kind);
        for (int alone = 0; alone < 2; alone++) {
            struct model *m = NULL;
            struct err e = {0};
            const struct model_options opt = {.allow_missing_weights = true, .keep_packed = true};
            if (model_open(&m, alone ? config : s.folder, &opt, &e) != 0)
                fail_msg("%s: %s", toy_packing_name((enum toy_packing)kind), e.msg);
            /* rows of ffn_down have 96 values, no whole number of NVFP4's blocks */
            const size_t n_blocks = alone || !fp4 ? 0 : nvfp4 ? 6 : 7, n_scales = nvfp4 ? n_blocks : 0;
            size_t n_seen = 0;
            assert_int_equal(n_parameters(m), SMALL_ELEMS + n_scales);
            for (size_t i = 0; i < model_n_tensors(m); i++) {
                const struct model_tensor *x = model_tensor(m, i);
                n_seen += x->has_blocks;
                assert_int_equal(x->has_blocks, x->type == QTYPE_NVFP4 || x->type == QTYPE_MXFP4);
                assert_int_equal(x->scale != NULL, x->has_blocks && nvfp4);
            }
            if (n_seen != n_blocks)
                fail_msg("%s: %zu weights stay packed, expected %zu",
                         toy_packing_name((enum toy_packing)kind), n_seen, n_blocks);
            if (warns(m, "comes out smaller") != (fp4 && alone))
                fail_msg("%s: %s", toy_packing_name((enum toy_packing)kind), fp4 ? "no warning" : "warns");
            assert_int_equal(warns(m, "1 weight of 4-bit floats cannot stay packed"), nvfp4 && !alone);
            assert_true((planned_bytes(m, NULL) >= 2 * SMALL_ELEMS) == (n_blocks == 0));
            assert_in_range(planned_bytes(m, "Q8_0"), SMALL_ELEMS, 2 * SMALL_ELEMS);
            model_close(m);
        }
    }
    scratch_remove(&s);
}

static void expect_refusal(const char *path, bool planning, const char *text)
{
    struct model *m = NULL;
    struct err e = {0};
    const struct model_options opt = {.allow_missing_weights = planning};
    if (model_open(&m, path, &opt, &e) == 0)
        fail_msg("%s: opened", path);
    if (!strstr(e.msg, text))
        fail_msg("%s\nlacks: %s", e.msg, text);
}

static void test_what_cannot_be_planned_is_refused(void **state)
{
    (void)state;
    struct scratch s;
    char path[120];
    scratch_make(&s);
    scratch_text(&s, "config.json", small_config);
    snprintf(path, sizeof path, "%s/config.json", s.folder);
    expect_refusal(s.folder, false, "found neither");
    expect_refusal(path, false, "a configuration holds no weights");
    write_small_index(&s, 0, ", \"model.layers.0.odd.weight\": \"a.safetensors\"");
    expect_refusal(s.folder, true, "'model.layers.0.odd.weight': architecture 'qwen3' has no such tensor");
    write_small_index(&s, 0, ", \"model.layers.1.mlp.up_proj.weight\": \"a.safetensors\"");
    expect_refusal(s.folder, true, "config.json says 1 layers");
    scratch_delete(&s, "model.safetensors.index.json");
    scratch_text(&s, "pytorch_model.bin", "x");
    expect_refusal(s.folder, true, "pickles");
    scratch_delete(&s, "pytorch_model.bin");
    scratch_text(&s, "adapter_config.json", "{}");
    expect_refusal(s.folder, true, "adapter");
    scratch_text(&s, "config.json",
                 "{\"model_type\": \"qwen3\", \"architectures\": [\"Qwen3ForCausalLM\"], "
                 "\"num_hidden_layers\": 99999}");
    expect_refusal(path, true, "num_hidden_layers");
    scratch_text(&s, "config.json", "[1]");
    expect_refusal(path, true, "expected an object");
    scratch_text(&s, "config.json", "{\"model_type\": \"vit\"}");
    expect_refusal(path, true, "vit");
    scratch_remove(&s);
}

/* --- real models -----------------------------------------------------------------------------------------
 */

/* Each line of a published list "name <tab> ne0, ne1, .. <tab> type <tab> bytes" is planned, and nothing
 * else. */
static void expect_list(const char *config, const char *list, const char *mix, const char *type)
{
    char path[600], line[400], name[200], dims[100], kind[20];
    uint64_t bytes, total = 0;
    size_t n = 0;
    if (!shared(path, list)) {
        skip();
    }
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    struct model *m = open_plan(shared(path, config));
    struct rewrite_options ro = {.recipe = {.recipe = "llama.cpp", .mix = mix_find(mix)}, .dry_run = true};
    struct rewrite_report r = {0};
    struct err e = {0};
    if (rewrite_model(&r, m, "x.gguf", &ro, &e) != 0)
        fail_msg("%s: %s", config, e.msg);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%199[^\t]\t%99[^\t]\t%19[^\t]\t%" SCNu64, name, dims, kind, &bytes) != 4)
            fail_msg("%s: line '%s'", list, line);
        const struct rewrite_tensor_report *t = NULL;
        for (size_t i = 0; i < r.n_tensors && !t; i++)
            t = strcmp(r.tensors[i].name, name) == 0 ? &r.tensors[i] : NULL;
        if (!t)
            fail_msg("%s: no '%s'", config, name);
        char *at = dims;
        for (uint32_t d = 0; d < t->n_dims; d++, at += strspn(at, ", "))
            if ((*at || t->ne[d] != 1) && strtoull(at, &at, 10) != t->ne[d]) /* {D, 1} may be {D} */
                fail_msg("%s: '%s' has dimensions %s in the file", config, name, dims);
        assert_int_equal(*at, 0);
        /* the list's author left small products in F32 */
        bool is_f32 = strcmp(kind, "f32") == 0;
        if (strcmp(kind, type) == 0 ? t->n_bytes != bytes : !is_f32)
            fail_msg("%s: '%s' takes %" PRIu64 " bytes, %" PRIu64 " as %s in the file", config, name,
                     t->n_bytes, bytes, kind);
        if (is_f32 && t->type == QTYPE_F32)
            assert_int_equal(t->n_bytes, bytes);
        n++;
        total += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    fclose(f);
    assert_int_equal(n, r.n_tensors);
    assert_int_equal(total, r.n_parameters);
    rewrite_report_release(&r);
    model_close(m);
}

static void test_real_conversions(void **state)
{
    (void)state;
    static const struct {
        const char *config, *list;
    } models[] = {
        {"configs/slices/Qwen3-4B.config.json", "tensor-lists/Qwen3-4B-Thinking-2507"},
        {"configs/Qwen--Qwen3-VL-235B-A22B-Instruct_config.json", "tensor-lists/Qwen3-VL-235B-A22B-Instruct"},
        {"configs/Qwen--Qwen3.5-27B_config.json", "tensor-lists/Qwen3.5-27B"},
        {"configs/Qwen--Qwen3.5-35B-A3B_config.json", "tensor-lists/Qwen3.5-35B-A3B"},
        {"configs/nvidia--Qwen3.6-35B-A3B-NVFP4_config.json", "tensor-lists/Qwen3.6-35B-A3B"},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char list[200];
        snprintf(list, sizeof list, "%s.bf16.tsv", models[i].list);
        expect_list(models[i].config, list, "BF16", "bf16");
        snprintf(list, sizeof list, "%s.q8_0.tsv", models[i].list);
        expect_list(models[i].config, list, "Q8_0", "q8_0");
    }
}

/* Elements of the text part, counted from the numbers of the configuration by hand. */
static uint64_t count_by_hand(const struct json *root)
{
    const struct json *text = json_get(root, "text_config"), *c = text ? text : root, *tied;
    uint64_t v[16] = {0};
    static const char *const keys[] = {"vocab_size",
                                       "hidden_size",
                                       "num_hidden_layers",
                                       "num_attention_heads",
                                       "num_key_value_heads",
                                       "head_dim",
                                       "intermediate_size",
                                       "num_experts",
                                       "moe_intermediate_size",
                                       "shared_expert_intermediate_size",
                                       "linear_num_key_heads",
                                       "linear_num_value_heads",
                                       "linear_key_head_dim",
                                       "linear_conv_kernel_dim",
                                       "num_local_experts",
                                       "full_attention_interval"};
    for (size_t i = 0; i < 16; i++)
        json_uint(json_get(c, keys[i]), &v[i]);
    const uint64_t V = v[0], D = v[1], L = v[2], H = v[3], Hkv = v[4], F = v[6], Fe = v[8], Fs = v[9];
    const uint64_t d = v[5] ? v[5] : D / H, E = v[7];
    const char *type = json_string(json_get(c, "model_type"));
    bool is_tied = false, qwen = strncmp(type, "qwen", 4) == 0, qwen2 = strcmp(type, "qwen2") == 0;
    tied = json_get(root, "tie_word_embeddings");
    if (!tied)
        tied = json_get(c, "tie_word_embeddings");
    if (tied)
        json_bool(tied, &is_tied);

    uint64_t q = H * d, kv = Hkv * d;
    uint64_t attention = D * q + 2 * D * kv + q * D + (qwen2 ? q + 2 * kv : qwen ? 2 * d : 0);
    uint64_t ffn = 3 * D * F, linear = 0, n_linear = 0;
    if (E)
        ffn = E * 3 * D * Fe + E * D + (Fs ? 3 * D * Fs + D : 0);
    if (v[14])
        ffn = v[14] * 3 * D * F + v[14] * D;
    if (v[10]) {
        uint64_t Hk = v[10], Hv = v[11], dk = v[12], conv = 2 * Hk * dk + Hv * dk;
        attention += D * q; /* the gate of the output */
        linear = D * (conv + Hv * dk + 2 * Hv) + 2 * Hv + conv * v[13] + dk + Hv * dk * D;
        n_linear = L - L / v[15];
    }
    uint64_t n = V * D * (is_tied ? 1 : 2) + D;
    n += n_linear * linear + (L - n_linear) * attention + L * (ffn + 2 * D);
    const struct json *scaling = json_get(c, "rope_scaling");
    const char *rope = json_string(json_get(scaling, "rope_type"));
    return n + (rope && strcmp(rope, "llama3") == 0 ? d / 2 : 0);
}

static size_t check_configs(const char *folder)
{
    char path[600], file[900];
    size_t n = 0;
    DIR *d = shared(path, folder) ? opendir(path) : NULL;
    for (struct dirent *ent; d && (ent = readdir(d)) != NULL;) {
        struct json_doc *doc = NULL;
        struct err e = {0};
        size_t len = strlen(ent->d_name);
        if (len < 11 || strcmp(ent->d_name + len - 11, "config.json") != 0 ||
            strstr(ent->d_name, "quant_config"))
            continue;
        snprintf(file, sizeof file, "%s/%s", path, ent->d_name);
        if (json_load(&doc, file, 0, &e) != 0)
            fail_msg("%s", e.msg);
        struct model *m = open_plan(file);
        uint64_t want = count_by_hand(json_root(doc));
        if (n_parameters(m) != want)
            fail_msg("%s: %" PRIu64 " parameters, %" PRIu64 " by hand", file, n_parameters(m), want);
        model_close(m);
        json_free(doc);
        n++;
    }
    if (d)
        closedir(d);
    return n;
}

static void test_every_real_configuration(void **state)
{
    (void)state;
    char path[600];
    if (!shared(path, "configs")) {
        skip();
    }
    size_t n = check_configs("configs") + check_configs("configs/slices");
    print_message("%zu configurations\n", n);
    assert_true(n >= 34);
}

/* Of one stacked or fused name only the first part counts: "a.experts.7.b" is "a.experts.b". */
static size_t count_outputs(const struct json *names, const struct model *m, size_t *n_skipped)
{
    struct name {
        char text[200];
    } *seen = calloc(json_n_children(names) + 1, sizeof *seen);
    size_t n = 0;
    *n_skipped = 0;
    for (const struct json *j = json_first(names); j; j = json_next(j)) {
        char text[200], *at;
        bool skipped = false;
        for (size_t i = 0; i < model_n_skipped(m) && !skipped; i++) {
            size_t len = strlen(json_key(j));
            skipped = strncmp(model_skipped(m, i), json_key(j), len) == 0 && model_skipped(m, i)[len] == ':';
        }
        *n_skipped += skipped;
        snprintf(text, sizeof text, "%s", json_key(j));
        if (skipped)
            continue;
        if ((at = strstr(text, ".experts.")) != NULL && at[9] >= '0' && at[9] <= '9')
            memmove(at + 9, at + 9 + strcspn(at + 9, "."), strlen(at + 9 + strcspn(at + 9, ".")) + 1);
        bool known = false;
        for (size_t i = 0; i < n && !known; i++)
            known = strcmp(seen[i].text, text) == 0;
        if (!known)
            memcpy(seen[n++].text, text, sizeof text);
    }
    for (size_t i = 0, k = n; i < k; i++)
        n += strstr(seen[i].text, "gate_up_proj") != NULL; /* becomes two tensors */
    free(seen);
    return n;
}

static void expect_index(const char *folder, uint64_t elem_bytes)
{
    char path[600], file[700];
    struct json_doc *doc = NULL;
    struct err e = {0};
    if (!shared(path, folder)) {
        skip();
    }
    snprintf(file, sizeof file, "%s/model.safetensors.index.json", path);
    if (json_load(&doc, file, 0, &e) != 0)
        fail_msg("%s", e.msg);
    struct model *m = open_plan(path);
    size_t n_skipped, n = count_outputs(json_get(json_root(doc), "weight_map"), m, &n_skipped);
    double total = 0;
    assert_true(json_number(json_get(json_get(json_root(doc), "metadata"), "total_size"), &total));
    print_message("%s: %zu tensors from %zu names, %zu skipped\n", folder, n,
                  json_n_children(json_get(json_root(doc), "weight_map")), n_skipped);
    assert_int_equal(n, model_n_tensors(m));
    assert_int_equal(n_skipped, model_n_skipped(m));
    if (n_skipped == 0) {
        assert_int_equal((uint64_t)total, elem_bytes * n_parameters(m));
    }
    assert_false(warns(m, "total_size"));

    snprintf(file, sizeof file, "%s/config.json", path); /* the configuration alone says the same */
    struct model *alone = open_plan(file);
    expect_same_tensors(alone, m, folder);
    model_close(alone);
    model_close(m);
    json_free(doc);
}

static void test_real_indices(void **state)
{
    (void)state;
    expect_index("configs/Qwen-72B-Chat", 2);
    expect_index("configs/Qwen3.5-18B-REAP-A3B-Coding", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_four_say_the_same),
        cmocka_unit_test(test_total_size_is_checked),
        cmocka_unit_test(test_indices_of_packed_checkpoints),
        cmocka_unit_test(test_what_cannot_be_planned_is_refused),
        cmocka_unit_test(test_real_conversions),
        cmocka_unit_test(test_every_real_configuration),
        cmocka_unit_test(test_real_indices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
