/* tower_rows.h - rows, maps and keys that several towers share. For the files of this folder. */
#ifndef KERF_TOWER_ROWS_H
#define KERF_TOWER_ROWS_H

#include "tower.h"

#include "formats/arch/arch_rows.h"

/* Groups whose N counts the layers of vision or audio. */
#define TOWER_VISION(array)    ARCH_GROUP_OF(array, NULL, "Vn")
#define TOWER_AUDIO(array)     ARCH_GROUP_OF(array, NULL, "An")
#define TOWER_DEEPSTACK(array) ARCH_GROUP_OF(array, tower_is_deepstack, "Vn")

extern const struct arch_row tower_rows_patches[4];     /* the patch embedding, a matrix for each frame */
extern const struct arch_row tower_rows_split_qkv[6];   /* q, k, v out of one matrix and one bias */
extern const struct arch_row tower_rows_attn_output[2]; /* and its bias */
extern const struct arch_row tower_rows_norms[2];       /* ln1, ln2 without bias */
extern const struct arch_row tower_rows_norm_bias[2];   /* their biases */
extern const struct arch_row tower_rows_merger[5];      /* post_ln without bias, mm.0, mm.2 */
extern const struct arch_row tower_rows_merger_bias[1]; /* the bias of post_ln */

extern const struct arch_row tower_rows_whisper[15]; /* a layer of audio, without a bias of k */
extern const struct arch_row tower_rows_conv1d[4];   /* the two convolutions over time */
extern const struct arch_row tower_rows_sinusoids[1];

extern const struct arch_row tower_rows_gated_mlp[6];         /* of Qwen2.5-VL */
extern const struct arch_row tower_rows_qwen3vl[10];          /* a layer of Qwen3-VL but for norms' biases */
extern const struct arch_row tower_rows_learned_positions[2]; /* and the bias of the patch embedding */
extern const struct arch_row tower_rows_deepstack[6];         /* N is the layer, see tower_rename_qwen3vl */
extern const struct hf_class_value tower_defaults_qwen25vl[], tower_defaults_qwen3vl[];

bool tower_is_deepstack(const struct arch_model *a, uint64_t layer);

/* Names without "model." in front of a tower, and those of MLX as the others. NULL when memory is refused. */
const char *tower_rename(const struct arch_model *a, const char *name, struct arena *arena);

/* And with the layer in the place of the number of a deepstack merger. */
const char *tower_rename_qwen3vl(const struct arch_model *a, const char *name, struct arena *arena);

const char *tower_drop(const char *name);

/* vision_config and audio_config are there; the runtime computes what they say. */
int tower_check_vision(struct arch_model *a, struct err *e);
int tower_check_audio(struct arch_model *a, struct err *e);
int tower_check_qwen3vl(struct arch_model *a, struct err *e); /* and reads the layers of deepstack */

/* "clip.vision.attention.layer_norm_epsilon" and others that more than one tower writes. */
int tower_set_u32(struct gguf_meta *meta, const char *key, uint64_t v, struct err *e);
int tower_add_merge_size(const struct arch_model *a, struct gguf_meta *meta, struct err *e);
int tower_add_window_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e);
int tower_add_keys_qwen3vl(const struct arch_model *a, struct gguf_meta *meta, struct err *e);
int tower_add_audio_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e);

#endif
