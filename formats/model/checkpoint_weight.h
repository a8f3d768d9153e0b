/* checkpoint_weight.h - one weight of a checkpoint as a row-major array of numbers, whatever it is stored as.
 *
 * Plain tensors are read from the map. A packed weight (several stored tensors that make one) is another kind
 * of source with the same face, so mapping and reading above do not know the difference. */
#ifndef KERF_CHECKPOINT_WEIGHT_H
#define KERF_CHECKPOINT_WEIGHT_H

#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/hf_packed.h"
#include "libquant/base/arena.h"
#include "libquant/kern/kern.h"

struct checkpoint_weight {
    const char *name; /* as in the checkpoint */
    const char *file;
    const char *type_name;       /* for people: "BF16", "GPTQ 4-bit g128" */
    uint32_t n_dims;             /* 0 when only the name is known (index without shards) */
    uint64_t shape[ST_MAX_DIMS]; /* slowest first */
    uint64_t n_elems;
    enum qtype type;    /* holds the values without loss */
    bool is_weight;     /* a kind of number this program can read as a weight */
    const uint8_t *raw; /* elements of `type` in order, or NULL when they need decoding or are not there */
    const struct st_tensor *plain;  /* the tensor; of a packed weight, the one with its codes */
    const struct hf_packed *packed; /* NULL for plain tensors */
    const char *dropped;            /* not a weight but a helper of the run time, and why; NULL for weights */
    bool is_beside_packed;          /* the bias of a packed weight */
    bool comes_first; /* of the folder beside: in front of all others, in the order of the rows */
};

/* All weights of the checkpoint, ordered by shard and, within one, by name: the order in which llama.cpp's
 * converter meets them; those that get a new name there (hf_packed_is_late) stand behind all others. *out
 * lives in the arena. `quant`: how weights are packed, NULL when they are not. `assumed`: type of tensors of
 * which only the name is known. */
int checkpoint_weight_list(struct checkpoint_weight **out, size_t *n, const struct hf_checkpoint *c,
                           const struct hf_quant *quant, enum qtype assumed, struct arena *arena,
                           struct err *e);

/* Elements [first, first+n) as float32. Thread-safe. Of packed weights, many rows at once are much faster
 * than one by one. */
int checkpoint_weight_read(const struct checkpoint_weight *s, const struct kern *k, uint64_t first,
                           uint64_t n, float *dst, struct err *e);

/* Is every element zero? Reads them; for biases. */
bool checkpoint_weight_is_zero(const struct checkpoint_weight *s, const struct kern *k);

/* Announce or drop the stored bytes of elements [first, first+n). */
void checkpoint_weight_hint(const struct checkpoint_weight *s, uint64_t first, uint64_t n, bool want);

#endif
