/* weights.h - where the forward pass reads its matrices: rows of a model's tensors as float32, either as they
 * are stored, or as they would be after quantization to a mix.
 *
 *     weights_new_mix(&w, model, &recipe, imatrix, NULL, &e);   // "what would Q4_K_M do to this model?"
 *     weights_load(w, layer_tensors, n, pool, &e);              // encodes them once, keeps the blocks
 *     weights_read(w, tensor, row0, n_rows, dst, &e);           // decoded rows, any thread
 *     weights_unload(w);
 *
 * The mix form encodes with the same recipe, encoder and importance as `kerf quantize`, so its rows are the
 * ones a reader of that file would see; nothing is written, and only the loaded tensors are held. */
#ifndef KERF_WEIGHTS_H
#define KERF_WEIGHTS_H

#include "formats/model/model.h"
#include "formats/recipe/recipe.h"
#include "libquant/base/pool.h"

struct imatrix;
struct weights;

/* Rows as stored. Borrows `m` until weights_free. *out: caller frees with weights_free. `kern` NULL: native.
 */
int weights_new(struct weights **out, const struct model *m, const struct kern *kern, struct err *e);

/* Rows as the mix of `recipe` would give them. `imatrix` may be NULL. Borrows all but `recipe`.
 * ERR_ARG: the mix needs importance that is missing, or the model is quantized already and `requantize` is
 * false. */
int weights_new_mix(struct weights **out, const struct model *m, const struct recipe_options *recipe,
                    const struct imatrix *imatrix, bool requantize, const struct kern *kern, struct err *e);

/* The rows of `base`, borrowed with it until weights_free, to lend single tensors to. What `base` has to have
 * loaded is loaded and let go of there: on a view both do nothing. ERR_NOMEM. */
int weights_new_view(struct weights **out, const struct weights *base, struct err *e);

/* Rows of `t` of a view as `from` reads those of `of`; both borrowed. ERR_ARG: no tensor of the model, or
 * another shape. */
int weights_lend(struct weights *view, const struct model_tensor *t, const struct weights *from,
                 const struct model_tensor *of, struct err *e);
void weights_free(struct weights *w);

const struct model *weights_model(const struct weights *w);

/* The level that decodes, encodes and multiplies; never NULL. */
const struct kern *weights_kern(const struct weights *w);

/* Rows of `t` as these blocks of `type` hold them (all rows of the tensor, borrowed until weights_free, or
 * until others are set), whatever they would be otherwise. Not while `t` is loaded. ERR_ARG: no tensor of the
 * model, or rows that the blocks do not divide. */
int weights_set_blocks(struct weights *w, const struct model_tensor *t, enum qtype type,
                       const uint8_t *blocks, struct err *e);

/* The type a tensor's rows come from: the stored one, or the mix's. */
enum qtype weights_type(const struct weights *w, const struct model_tensor *t);

/* Bytes of all tensors in those types, without file header and padding. */
uint64_t weights_n_bytes(const struct weights *w);
uint64_t weights_n_parameters(const struct weights *w);

/* True when rows are encoded on the fly, so that a second pass over the model costs as much as the first. */
bool weights_encodes(const struct weights *w);

/* Announce the tensors of one layer (NULL entries are skipped): a mix encodes them on the pool and keeps
 * their blocks, a stored model asks the system to read ahead. weights_unload lets go of what was loaded. */
int weights_load(struct weights *w, const struct model_tensor *const *list, size_t n, struct pool *pool,
                 struct err *e);
void weights_unload(struct weights *w);

/* Rows [row0, row0+n) as float32 into dst [n, ne0]. Thread-safe. A row of a mix that is not loaded is encoded
 * and decoded on the spot. */
int weights_read(const struct weights *w, const struct model_tensor *t, uint64_t row0, uint64_t n, float *dst,
                 struct err *e);

#endif
