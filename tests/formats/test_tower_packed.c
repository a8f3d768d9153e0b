/* test_tower_packed.c - towers of quantized checkpoints: left alone by the quantizer, as most are, they are
 * those of the checkpoint before it; packed, they are what the packed numbers mean. */
#include "formats/model/model.h"

#include "libquant/half.h"

#include "open_model.h"
#include "scratch.h"
#include "toy_packed.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* Qwen2.5-VL with one layer of each part; widths are what every packing can hold. */
#define WIDTH 96
#define WIDE  192
#define CONFIG                                                                                               \
    "{\"architectures\": [\"Qwen2_5_VLForConditionalGeneration\"], \"model_type\": \"qwen2_5_vl\", "         \
    "\"hidden_size\": 96, \"intermediate_size\": 192, \"num_attention_heads\": 4, \"num_key_value_heads\": " \
    "4, "                                                                                                    \
    "\"num_hidden_layers\": 1, \"vocab_size\": 320, \"torch_dtype\": \"bfloat16\", \"vision_config\": "      \
    "{\"depth\": 1, \"hidden_size\": 96, \"intermediate_size\": 192, \"num_heads\": 2, \"patch_size\": 2, "  \
    "\"out_hidden_size\": 96, \"spatial_merge_size\": 1, \"fullatt_block_indexes\": [0]}"

#define BLOCK "visual.blocks.0."

/* Matrices of a layer of vision, and where they stand in the file of towers. */
static const struct {
    const char *module, *tensor;
    uint64_t n_rows, n_cols, row0;
} matrices[] = {
    {BLOCK "attn.qkv", "v.blk.0.attn_q.weight", 3 * WIDTH, WIDTH, 0},
    {BLOCK "attn.qkv", "v.blk.0.attn_k.weight", 3 * WIDTH, WIDTH, WIDTH},
    {BLOCK "attn.qkv", "v.blk.0.attn_v.weight", 3 * WIDTH, WIDTH, 2 * WIDTH},
    {BLOCK "attn.proj", "v.blk.0.attn_out.weight", WIDTH, WIDTH, 0},
    {BLOCK "mlp.gate_proj", "v.blk.0.ffn_gate.weight", WIDE, WIDTH, 0},
    {BLOCK "mlp.up_proj", "v.blk.0.ffn_up.weight", WIDE, WIDTH, 0},
    {BLOCK "mlp.down_proj", "v.blk.0.ffn_down.weight", WIDTH, WIDE, 0},
};

#define MLX_PATCHES "vision_tower.patch_embed.proj.weight"

/* What MLX calls a tensor of the tower. */
static const char *as_mlx(char buf[100], const char *name)
{
    if (strncmp(name, "visual.", 7) == 0)
        snprintf(buf, 100, "vision_tower.%s", name + 7);
    else
        snprintf(buf, 100, "%s", name);
    return buf;
}

/* A tensor of BF16 numbers between -2 and 2. */
static void add_plain(struct toy_packed *p, const char *name, uint32_t n_dims, const uint64_t *shape)
{
    static uint16_t values[WIDE * WIDE * 2];
    size_t n = 1;
    for (uint32_t d = 0; d < n_dims; d++)
        n *= shape[d];
    assert_true(n <= sizeof values / sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = f32_to_bf16((float)((i * 37 + strlen(name) * 11) % 129) / 32 - 2);
    toy_packed_tensor(p, name, ST_BF16, n_dims, shape, values);
}

static void add_matrix(struct toy_packed *p, const char *name, uint64_t n_rows, uint64_t n_cols)
{
    add_plain(p, name, n_cols ? 2 : 1, (uint64_t[]){n_rows, n_cols});
}

/* What no quantizer packs: patches, norms, biases, the merger. */
static void add_rest(struct toy_packed *p, bool mlx)
{
    char name[100];
    static const struct {
        const char *name;
        uint64_t n_rows, n_cols;
    } rest[] = {
        {BLOCK "attn.qkv.bias", 3 * WIDTH, 0},
        {BLOCK "attn.proj.bias", WIDTH, 0},
        {BLOCK "norm1.weight", WIDTH, 0},
        {BLOCK "norm2.weight", WIDTH, 0},
        {BLOCK "mlp.gate_proj.bias", WIDE, 0},
        {BLOCK "mlp.up_proj.bias", WIDE, 0},
        {BLOCK "mlp.down_proj.bias", WIDTH, 0},
        {"visual.merger.ln_q.weight", WIDTH, 0},
        {"visual.merger.mlp.0.weight", WIDTH, WIDTH},
        {"visual.merger.mlp.0.bias", WIDTH, 0},
        {"visual.merger.mlp.2.weight", WIDTH, WIDTH},
        {"visual.merger.mlp.2.bias", WIDTH, 0},
        {"model.layers.0.self_attn.q_proj.bias", WIDTH, 0},
    };
    if (mlx)
        add_plain(p, MLX_PATCHES, 5, (uint64_t[]){WIDTH, 2, 2, 2, 3});
    else
        add_plain(p, "visual.patch_embed.proj.weight", 5, (uint64_t[]){WIDTH, 3, 2, 2, 2});
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        add_matrix(p, mlx ? as_mlx(name, rest[i].name) : rest[i].name, rest[i].n_rows, rest[i].n_cols);
}

/* A matrix of text is packed, those of vision only where `vision` says so. */
static const char *write_model(struct toy_packed *p, const char *folder_name, enum toy_packing kind,
                               bool vision)
{
    const char *folder = in_scratch(folder_name);
    const bool mlx = kind == TOY_MLX_4;
    char config[4000], name[100], stem[100];
    struct err e = {0};
    mkdir(folder, 0700);
    add_rest(p, mlx);
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        if (i && strcmp(matrices[i].module, matrices[i - 1].module) == 0)
            continue;
        snprintf(stem, sizeof stem, "%s", matrices[i].module);
        if (mlx)
            as_mlx(stem, matrices[i].module);
        if (vision)
            toy_packed_add(p, kind, stem, matrices[i].n_rows, matrices[i].n_cols);
        snprintf(name, sizeof name, "%.90s.weight", stem);
        if (!vision)
            add_matrix(p, name, matrices[i].n_rows, matrices[i].n_cols);
    }
    toy_packed_add(p, kind, "model.layers.0.mlp.up_proj", WIDE, WIDTH);
    snprintf(config, sizeof config, "%s, \"quantization_config\": %s}", CONFIG, toy_packing_config(kind));
    scratch_text_in(folder, "config.json", config);
    snprintf(config, sizeof config, "%s/model.safetensors", folder);
    if (toy_packed_write(p, config, &e) != 0)
        fail_msg("%s", e.msg);
    return folder;
}

static struct model *open_towers(const char *folder)
{
    static const struct model_options of_towers = {.towers = true};
    struct model *m = NULL;
    struct err e = {0};
    if (model_open(&m, folder, &of_towers, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

static const enum toy_packing kinds[] = {TOY_FP8_BLOCK,  TOY_GPTQ_4,  TOY_GPTQ_ACT, TOY_AWQ,
                                         TOY_CT_PACK_4,  TOY_BNB_NF4, TOY_BNB_INT8, TOY_CT_INT_ROW,
                                         TOY_AUTO_PLAIN, TOY_CT_NVFP4};

static void towers_beside_packed_text_are_read_as_they_are(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct toy_packed p = {.seed = 1 + k};
        struct model *m = open_towers(write_model(&p, "beside", kinds[k], false));
        for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
            const struct model_tensor *t = model_find(m, matrices[i].tensor);
            char name[100];
            snprintf(name, sizeof name, "%s.weight", matrices[i].module);
            const uint16_t *want = (const uint16_t *)(const void *)toy_packed_find(&p, name)->data;
            assert_non_null(t);
            assert_string_equal(t->source_type, "BF16");
            float *have = read_all(m, t);
            for (uint64_t j = 0; j < t->n_rows * t->ne[0]; j++)
                assert_true(have[j] == bf16_to_f32(want[matrices[i].row0 * matrices[i].n_cols + j]));
            free(have);
        }
        model_close(m);
        toy_packed_release(&p);
    }
}

static void packed_towers_are_what_the_numbers_mean(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct toy_packed p = {.seed = 100 + k};
        struct model *m = open_towers(write_model(&p, "packed", kinds[k], true));
        for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
            const struct model_tensor *t = model_find(m, matrices[i].tensor);
            assert_non_null(t);
            assert_string_equal(t->source_type, toy_packing_type(kinds[k]));
            float *have = read_all(m, t);
            for (uint64_t j = 0; j < t->n_rows * t->ne[0]; j++) {
                double want = toy_packed_value(&p, kinds[k], matrices[i].module,
                                               matrices[i].row0 + j / t->ne[0], j % t->ne[0]);
                if (!(fabs((double)have[j] - want) <= 4e-7 * fabs(want)))
                    fail_msg("%s: '%s' [%llu] is %g, expected %g", toy_packing_name(kinds[k]), t->name,
                             (unsigned long long)j, (double)have[j], want);
            }
            free(have);
        }
        model_close(m);
        toy_packed_release(&p);
    }
}

/* MLX names the tower in its own way, has the channels of patches last, and may pack matrices. */
static void towers_of_mlx_are_put_back(void **state)
{
    (void)state;
    for (int packed = 0; packed < 2; packed++) {
        struct toy_packed p = {.seed = 9};
        struct model *m = open_towers(write_model(&p, "mlx", TOY_MLX_4, packed));
        const uint16_t *from = (const uint16_t *)(const void *)toy_packed_find(&p, MLX_PATCHES)->data;
        for (size_t frame = 0; frame < 2; frame++) {
            const struct model_tensor *t =
                model_find(m, frame ? "v.patch_embd.weight.1" : "v.patch_embd.weight");
            assert_true(t && t->ne[0] == 2 && t->ne[1] == 2 && t->ne[2] == 3 && t->ne[3] == WIDTH);
            float *have = read_all(m, t);
            for (size_t i = 0, o = 0; o < WIDTH; o++)
                for (size_t c = 0; c < 3; c++)
                    for (size_t yx = 0; yx < 4; yx++, i++)
                        assert_true(have[i] == bf16_to_f32(from[((o * 2 + frame) * 4 + yx) * 3 + c]));
            free(have);
        }
        const struct model_tensor *t = model_find(m, "v.blk.0.ffn_down.weight");
        assert_string_equal(t->source_type, packed ? toy_packing_type(TOY_MLX_4) : "BF16");
        float *have = read_all(m, t);
        for (uint64_t j = 0; packed && j < WIDTH * WIDE; j++) {
            double want =
                toy_packed_value(&p, TOY_MLX_4, "vision_tower.blocks.0.mlp.down_proj", j / WIDE, j % WIDE);
            assert_true(fabs((double)have[j] - want) <= 4e-7 * fabs(want));
        }
        free(have);
        model_close(m);
        toy_packed_release(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(towers_beside_packed_text_are_read_as_they_are),
        cmocka_unit_test(packed_towers_are_what_the_numbers_mean),
        cmocka_unit_test(towers_of_mlx_are_put_back),
    };
    return cmocka_run_group_tests(tests, scratch_begin, scratch_end);
}
