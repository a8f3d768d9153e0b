/* prune.h - leave layers or experts out of a GGUF model, or of an importance matrix in GGUF form, and number
 * what stays anew.
 *
 *     struct prune p = {0};
 *     if (prune_layers(&p, "20-25", e) == 0 && prune_experts(&p, "drop.txt", e) == 0)
 *         rc = prune_select(&selection, &p, in, changes, e);    then copy_gguf with .select and .set
 *     prune_release(&p);
 *
 * The bytes of what stays are the ones of the input. Nothing is adapted to the gap: whoever prunes measures
 * the loss afterwards. What a file says about its layers one by one is cut with them: counts, arrays with an
 * element for each layer, the number of experts. A rule that gives layers their kind by position (every
 * fourth one has full attention) must still hold for the layers that stay, else pruning is refused. */
#ifndef KERF_PRUNE_H
#define KERF_PRUNE_H

#include "copy_gguf.h"

struct prune_range {
    int64_t layer; /* of experts: their layer, or -1 for all */
    uint32_t first, last;
};

/* What to leave out, in the numbers of the input. Zeroed: nothing. */
struct prune {
    struct prune_range *layers, *experts; /* owned */
    size_t n_layers, n_experts;
    const char *layers_text, *experts_path; /* borrowed; for messages */
};

/* A list of layers such as "3,20-25". ERR_ARG when it is no such list. */
int prune_layers(struct prune *p, const char *list, struct err *e);

/* A text file with a line for each layer, "12: 3,5,7-9", or "*: 0-3" for all layers; # begins a comment.
 * ERR_FORMAT names the line. */
int prune_experts(struct prune *p, const char *path, struct err *e);

void prune_release(struct prune *p);

/* The tensors that stay, under their new names, and into `changes` the keys that change with them (those that
 * go are in the selection). The input may be a model or an importance matrix. ERR_ARG when a layer or expert
 * is not there, when nothing would be left, when layers would keep different numbers of experts or fewer than
 * a token uses, or when the kinds of the layers would not follow the rule of the file. *out: caller frees
 * with prune_selection_free; it borrows from `in`. */
int prune_select(struct gguf_selection **out, const struct prune *p, const struct gguf_reader *in,
                 struct gguf_meta *changes, struct err *e);
void prune_selection_free(struct gguf_selection *s);

#endif
