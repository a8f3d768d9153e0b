/* tower.h - the vision and audio towers of multimodal checkpoints: which tensors and keys their file has.
 *
 * A tower is described as a family of text models is (formats/arch): rows of names and shapes, over the
 * numbers of vision_config and audio_config. All towers of a checkpoint go into one file of architecture
 * "clip", which a runtime loads beside that of the text model. One file per group of families here;
 * specification: README.md of this folder. */
#ifndef KERF_TOWER_H
#define KERF_TOWER_H

#include "formats/arch/arch.h"

struct tower {
    struct arch arch; /* first: the `arch` of a model of towers is the start of a tower */
    /* What a runtime takes it for: clip.projector_type, or clip.vision.projector_type and
     * clip.audio.projector_type. NULL: it has no tower of the kind, or one word for both. */
    const char *projector, *vision_projector, *audio_projector;
    const char *vision_activation; /* what the runtime computes in its feed-forward layers; NULL: no vision */
    double image_mean[3], image_std[3]; /* of its image processor, where no file states them */
    const char *audio_part;             /* of the configuration; NULL: "audio_config" */
    /* Numbers of the configuration `name` in arch.beside. */
    int (*read_beside)(struct arch_model *a, const struct json *config, const char *name, struct err *e);
    /* The keys of the tower behind those that all have. */
    int (*add_keys)(const struct arch_model *a, struct gguf_meta *meta, struct err *e);
};

size_t tower_count(void);
const struct tower *tower_at(size_t i);

/* Markdown rows "| title | classes | projector |" of all towers, for the documentation. */
void tower_write_table(FILE *file);

/* Does the configuration have a part of vision or audio that a file of towers can hold? */
bool tower_is_in(const struct hf_config *config);

/* Look up the towers of `config` and evaluate their numbers. Errors: none, an unknown class, a number that is
 * missing or absurd, something that the runtime would compute in another way. */
int tower_resolve(struct arch_model *out, const struct hf_config *config, struct err *e);

/* The towers of a file by its metadata, with the numbers that its keys give. out->arch NULL: a projector that
 * is unknown here. *missing: a key that it cannot do without and lacks; NULL: none. */
void tower_of_file(struct arch_model *out, const char **missing, const struct gguf_meta *meta);

/* The clip.* keys; `folder` NULL: there is only a configuration. general.file_type stands among them, where
 * the reference converter has it. */
int tower_add_keys(const struct arch_model *a, const char *folder, uint32_t file_type, struct gguf_meta *meta,
                   const struct arch_warnings *w, struct err *e);

#endif
