/* tower_rows.c - see tower_rows.h. Names and shapes: README.md of this folder. */
#include "tower_rows.h"

#include <math.h>
#include <string.h>

/* Rows of a frame of the patch embedding: [Vd, Vc, Vt, Vp, Vp] without its third axis. */
static uint64_t frame_row(const struct arch_model *a, uint64_t out, uint64_t frame)
{
    uint64_t side = a->value[ARCH_VP];
    return (out / side * a->value[ARCH_VT] + frame) * side + out % side;
}

static uint64_t first_frame(const struct arch_model *a, uint64_t out)
{
    return frame_row(a, out, 0);
}

static uint64_t second_frame(const struct arch_model *a, uint64_t out)
{
    return frame_row(a, out, 1);
}

/* The same as MLX stores it, channels last: an element of [Vd, Vt, Vp, Vp, Vc]. */
static uint64_t frame_element(const struct arch_model *a, uint64_t out, uint64_t frame)
{
    uint64_t area = a->value[ARCH_VP] * a->value[ARCH_VP], n_channels = a->value[ARCH_VC];
    uint64_t channel = out / area % n_channels, patch = out / area / n_channels;
    return ((patch * a->value[ARCH_VT] + frame) * area + out % area) * n_channels + channel;
}

static uint64_t first_frame_last(const struct arch_model *a, uint64_t out)
{
    return frame_element(a, out, 0);
}

static uint64_t second_frame_last(const struct arch_model *a, uint64_t out)
{
    return frame_element(a, out, 1);
}

#define MLX_PATCHES "vision_tower.patch_embed.proj.weight"

const struct arch_row tower_rows_patches[4] = {
    {.hf = "visual.patch_embed.proj.weight",
     .gguf = "v.patch_embd.weight",
     .shape = "Vd,Vc,Vt,Vp,Vp",
     .out = "Vd,Vc,Vp,Vp",
     .rows = first_frame,
     .type = ARCH_F16_OR_F32},
    {.hf = "visual.patch_embed.proj.weight",
     .gguf = "v.patch_embd.weight.1",
     .shape = "Vd,Vc,Vt,Vp,Vp",
     .out = "Vd,Vc,Vp,Vp",
     .rows = second_frame,
     .type = ARCH_F16_OR_F32},
    {.hf = MLX_PATCHES,
     .gguf = "v.patch_embd.weight",
     .shape = "Vd,Vt,Vp,Vp,Vc",
     .out = "Vd,Vc,Vp,Vp",
     .rows = first_frame_last,
     .by_element = true,
     .type = ARCH_F16_OR_F32},
    {.hf = MLX_PATCHES,
     .gguf = "v.patch_embd.weight.1",
     .shape = "Vd,Vt,Vp,Vp,Vc",
     .out = "Vd,Vc,Vp,Vp",
     .rows = second_frame_last,
     .by_element = true,
     .type = ARCH_F16_OR_F32},
};

static uint64_t q_rows(const struct arch_model *a, uint64_t out)
{
    (void)a;
    return out;
}

static uint64_t k_rows(const struct arch_model *a, uint64_t out)
{
    return a->value[ARCH_VD] + out;
}

static uint64_t v_rows(const struct arch_model *a, uint64_t out)
{
    return 2 * a->value[ARCH_VD] + out;
}

#define QKV_PART(part, map)                                                                                  \
    {.hf = "visual.blocks.N.attn.qkv.weight",                                                                \
     .gguf = "v.blk.N.attn_" part ".weight",                                                                 \
     .shape = "3*Vd,Vd",                                                                                     \
     .out = "Vd,Vd",                                                                                         \
     .rows = (map)},                                                                                         \
    {                                                                                                        \
        .hf = "visual.blocks.N.attn.qkv.bias", .gguf = "v.blk.N.attn_" part ".bias", .shape = "3*Vd",        \
        .out = "Vd", .rows = (map)                                                                           \
    }

const struct arch_row tower_rows_split_qkv[6] = {
    QKV_PART("q", q_rows),
    QKV_PART("k", k_rows),
    QKV_PART("v", v_rows),
};

const struct arch_row tower_rows_attn_output[2] = {
    {.hf = "visual.blocks.N.attn.proj.weight", .gguf = "v.blk.N.attn_out.weight", .shape = "Vd,Vd"},
    {.hf = "visual.blocks.N.attn.proj.bias", .gguf = "v.blk.N.attn_out.bias", .shape = "Vd"},
};

const struct arch_row tower_rows_norms[2] = {
    {.hf = "visual.blocks.N.norm1.weight", .gguf = "v.blk.N.ln1.weight", .shape = "Vd"},
    {.hf = "visual.blocks.N.norm2.weight", .gguf = "v.blk.N.ln2.weight", .shape = "Vd"},
};

const struct arch_row tower_rows_norm_bias[2] = {
    {.hf = "visual.blocks.N.norm1.bias", .gguf = "v.blk.N.ln1.bias", .shape = "Vd"},
    {.hf = "visual.blocks.N.norm2.bias", .gguf = "v.blk.N.ln2.bias", .shape = "Vd"},
};

const struct arch_row tower_rows_merger[5] = {
    {.hf = "visual.merger.ln_q.weight", .gguf = "v.post_ln.weight", .shape = "Vd"},
    {.hf = "visual.merger.mlp.0.weight", .gguf = "mm.0.weight", .shape = "Vd*Vm*Vm,Vd*Vm*Vm"},
    {.hf = "visual.merger.mlp.0.bias", .gguf = "mm.0.bias", .shape = "Vd*Vm*Vm"},
    {.hf = "visual.merger.mlp.2.weight", .gguf = "mm.2.weight", .shape = "Vo,Vd*Vm*Vm"},
    {.hf = "visual.merger.mlp.2.bias", .gguf = "mm.2.bias", .shape = "Vo"},
};

const struct arch_row tower_rows_merger_bias[1] = {
    {.hf = "visual.merger.ln_q.bias", .gguf = "v.post_ln.bias", .shape = "Vd"},
};

const struct arch_row tower_rows_whisper[15] = {
    {.hf = "audio_tower.layers.N.self_attn.q_proj.weight", .gguf = "a.blk.N.attn_q.weight", .shape = "Ad,Ad"},
    {.hf = "audio_tower.layers.N.self_attn.q_proj.bias", .gguf = "a.blk.N.attn_q.bias", .shape = "Ad"},
    {.hf = "audio_tower.layers.N.self_attn.k_proj.weight", .gguf = "a.blk.N.attn_k.weight", .shape = "Ad,Ad"},
    {.hf = "audio_tower.layers.N.self_attn.v_proj.weight", .gguf = "a.blk.N.attn_v.weight", .shape = "Ad,Ad"},
    {.hf = "audio_tower.layers.N.self_attn.v_proj.bias", .gguf = "a.blk.N.attn_v.bias", .shape = "Ad"},
    {.hf = "audio_tower.layers.N.self_attn.out_proj.weight",
     .gguf = "a.blk.N.attn_out.weight",
     .shape = "Ad,Ad"},
    {.hf = "audio_tower.layers.N.self_attn.out_proj.bias", .gguf = "a.blk.N.attn_out.bias", .shape = "Ad"},
    {.hf = "audio_tower.layers.N.self_attn_layer_norm.weight", .gguf = "a.blk.N.ln1.weight", .shape = "Ad"},
    {.hf = "audio_tower.layers.N.self_attn_layer_norm.bias", .gguf = "a.blk.N.ln1.bias", .shape = "Ad"},
    {.hf = "audio_tower.layers.N.final_layer_norm.weight", .gguf = "a.blk.N.ln2.weight", .shape = "Ad"},
    {.hf = "audio_tower.layers.N.final_layer_norm.bias", .gguf = "a.blk.N.ln2.bias", .shape = "Ad"},
    {.hf = "audio_tower.layers.N.fc1.weight", .gguf = "a.blk.N.ffn_up.weight", .shape = "Af,Ad"},
    {.hf = "audio_tower.layers.N.fc1.bias", .gguf = "a.blk.N.ffn_up.bias", .shape = "Af"},
    {.hf = "audio_tower.layers.N.fc2.weight", .gguf = "a.blk.N.ffn_down.weight", .shape = "Ad,Af"},
    {.hf = "audio_tower.layers.N.fc2.bias", .gguf = "a.blk.N.ffn_down.bias", .shape = "Ad"},
};

/* The runtime adds the biases to [time, channels], so they are columns. */
const struct arch_row tower_rows_conv1d[4] = {
    {.hf = "audio_tower.conv1.weight", .gguf = "a.conv1d.1.weight", .shape = "Ad,Am,3", .type = ARCH_F16},
    {.hf = "audio_tower.conv1.bias", .gguf = "a.conv1d.1.bias", .shape = "Ad", .out = "Ad,1"},
    {.hf = "audio_tower.conv2.weight", .gguf = "a.conv1d.2.weight", .shape = "Ad,Ad,3", .type = ARCH_F16},
    {.hf = "audio_tower.conv2.bias", .gguf = "a.conv1d.2.bias", .shape = "Ad", .out = "Ad,1"},
};

/* Positions as sines and cosines of time scales from 1 to 10000 in a geometric series. Scales and angles are
 * float32, as in the reference; functions are computed in double and rounded once, and so the same on every
 * machine. The reference has those of its math library (README.md: "Where the files differ"). */
static void sinusoids(const struct arch_model *a, float *out)
{
    uint64_t width = a->value[ARCH_AD], half = width / 2;
    float step = (float)(log(10000.0) / (double)(half - 1));
    for (uint64_t t = 0; t < a->value[ARCH_AX]; t++)
        for (uint64_t i = 0; i < half; i++) {
            float scale = (float)exp((double)(-step * (float)i)), angle = (float)t * scale;
            out[t * width + i] = (float)sin((double)angle);
            out[t * width + half + i] = (float)cos((double)angle);
        }
}

const struct arch_row tower_rows_sinusoids[1] = {
    {.hf = "", .gguf = "a.position_embd.weight", .shape = "Ax,Ad", .type = ARCH_F32, .compute = sinusoids},
};

bool tower_is_deepstack(const struct arch_model *a, uint64_t layer)
{
    return layer < ARCH_MAX_LAYERS && (a->deepstack_layers[layer / 64] >> (layer % 64) & 1);
}

const char *tower_rename(const struct arch_model *a, const char *name, struct arena *arena)
{
    static const char prefix[] = "model.", mlx[] = "vision_tower.";
    (void)a;
    if (strncmp(name, mlx, sizeof mlx - 1) == 0) /* patches keep their name: their axes are others */
        return strcmp(name, MLX_PATCHES) == 0 ? name
                                              : arena_printf(arena, "visual.%s", name + sizeof mlx - 1);
    const char *rest = name + strlen(prefix);
    if (strncmp(name, prefix, strlen(prefix)) == 0 &&
        (strncmp(rest, "visual.", 7) == 0 || strncmp(rest, "audio_tower.", 12) == 0 ||
         strncmp(rest, "multi_modal_projector.", 22) == 0))
        return rest;
    return name;
}

const char *tower_drop(const char *name)
{
    static const char *const towers[] = {"visual.", "audio_tower.", "multi_modal_projector.",
                                         "vision_tower."};
    if (strcmp(name, "audio_tower.audio_bos_eos_token.weight") == 0)
        return "marks that no runtime uses: the text around the sound has them";
    if (strncmp(name, "audio_tower.positional_embedding.", 33) == 0)
        return "a buffer that is computed, not a weight";
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++)
        if (strncmp(name, towers[i], strlen(towers[i])) == 0)
            return strstr(name, ".inv_freq") ? "a buffer that is computed, not a weight" : NULL;
    return "not of a tower";
}
