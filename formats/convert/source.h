/* source.h - one weight of a checkpoint as a row-major array of numbers, whatever it is stored as.
 *
 * Plain tensors are read from the map. A packed weight (several stored tensors that make one) is another kind
 * of source with the same face, so mapping and reading above do not know the difference. */
#ifndef KERF_SOURCE_H
#define KERF_SOURCE_H

#include "formats/hf/hf_checkpoint.h"
#include "libquant/base/arena.h"
#include "libquant/kern/kern.h"

struct source {
    const char *name; /* as in the checkpoint */
    const char *file;
    const char *type_name;       /* for people: "BF16", "F8_E4M3" */
    uint32_t n_dims;             /* 0 when only the name is known (index without shards) */
    uint64_t shape[ST_MAX_DIMS]; /* slowest first */
    uint64_t n_elems;
    enum qtype type;    /* holds the values without loss */
    bool is_weight;     /* a kind of number this program can read as a weight */
    const uint8_t *raw; /* elements of `type` in order, or NULL when they need decoding or are not there */
    const struct st_tensor *plain;
};

/* All tensors of the checkpoint, ordered by shard and, within one, by name: the order in which llama.cpp's
 * converter meets them. *out lives in the arena. `assumed`: type of tensors of which only the name is known.
 */
int source_list(struct source **out, size_t *n, const struct hf_checkpoint *c, enum qtype assumed,
                struct arena *arena, struct err *e);

/* Elements [first, first+n) as float32. Thread-safe. */
int source_read(const struct source *s, const struct kern *k, uint64_t first, uint64_t n, float *dst,
                struct err *e);

/* Announce or drop the stored bytes of elements [first, first+n). */
void source_hint(const struct source *s, uint64_t first, uint64_t n, bool want);

#endif
