/* hessian_file.h - Gram matrices as a file: written a layer at a time, read one matrix at a time, merged.
 *
 * The file is an importance matrix in GGUF form (formats/gguf/imatrix_file.h) with more in it, so whatever
 * takes the one takes the other: beside "X.in_sum2" and "X.counts" of each matrix X it has, for each Gram
 * matrix,
 *
 *     X.gram, X.gram_mass, X.gram_mixed   F32 [n_cols (n_cols + 1) / 2, n_mats]: upper triangles of the sums
 *     X.gram.figures, ...                 F64 [3, n_mats]: weight, chunks, squares (gram_sums.h)
 *
 * and in the metadata (kerf.hessian.*) what they were collected from, and which rows of which tensor use
 * which. The file is hostile to its reader: shapes, counts and references are checked when it is opened,
 * values when they are read. */
#ifndef KERF_HESSIAN_FILE_H
#define KERF_HESSIAN_FILE_H

#include "gram_sums.h"
#include "hessian_plan.h"

struct imatrix;

/* What the sums were collected from. */
struct hessian_source {
    char model_sha256[65];   /* of names, shapes, sampled rows and numbers (loss_weights_hash) */
    char ids_sha256[65];     /* of all token ids of the text; of several texts, of their hashes */
    char windows_sha256[65]; /* windows_hash, or of several texts, of their hashes; "" in older files */
    uint64_t n_windows, ctx;
    bool merged; /* from several files: ids_sha256 is that of no text, ctx that of the first */
};

struct hessian_writer;

struct hessian_writer_options {
    bool overwrite, resume; /* resume: keep an unfinished file, and go on with one that is there */
    const char *const *datasets;
    size_t n_datasets;
    const char *model; /* a word about it (formats/model/model_identity.h), as importance matrices have it;
                          or NULL */
};

/* Borrows `plan` until the end. *out: caller ends it with hessian_writer_finish or _abort. */
int hessian_writer_open(struct hessian_writer **out, const struct hessian_plan *plan,
                        const struct hessian_source *source, const char *path,
                        const struct hessian_writer_options *opt, struct err *e);

/* Was there an unfinished file, of the same size? Its content is what an earlier run with the same plan put.
 */
bool hessian_writer_resumed(const struct hessian_writer *w);

/* Go on with it (the caller knows that it is this run's), or drop what was kept. */
int hessian_writer_keep(struct hessian_writer *w, struct err *e);
int hessian_writer_restart(struct hessian_writer *w, struct err *e);

/* One matrix; ERR_FORMAT when a sum is not finite. `sums` NULL: no row was seen, all zero. */
int hessian_writer_put(struct hessian_writer *w, size_t gram, uint64_t mat, const double *sums,
                       const struct gram_figures *figures, struct err *e);

/* All that was put is on the disk. */
int hessian_writer_flush(struct hessian_writer *w, struct err *e);

/* The importance of all tensors, which has to have an entry for each, and the file stands under its name.
 * Frees the writer in every case; on failure an unfinished file is kept with `resume`. */
int hessian_writer_finish(struct hessian_writer *w, const struct imatrix *importance, struct err *e);
void hessian_writer_abort(struct hessian_writer *w); /* NULL is allowed */

struct hessian_file;

/* *out: caller frees with hessian_file_close. ERR_ARG: an importance matrix without Hessians; ERR_FORMAT. */
int hessian_file_open(struct hessian_file **out, const char *path, struct err *e);
void hessian_file_close(struct hessian_file *f);
const char *hessian_file_path(const struct hessian_file *f);
const struct hessian_plan *hessian_file_plan(const struct hessian_file *f);
const struct hessian_source *hessian_file_source(const struct hessian_file *f);

/* Was it collected from a text of this file name, in whatever folder? */
bool hessian_file_has_dataset(const struct hessian_file *f, const char *path);

/* Matrix `mat` of a Gram matrix as symmetric sums [n_cols, n_cols], and its figures. Any thread. */
int hessian_file_read(const struct hessian_file *f, size_t gram, uint64_t mat, double *sums,
                      struct gram_figures *figures, struct err *e);

/* The sums of several files of the same model as one. */
int hessian_merge(const char *const *paths, size_t n, const char *output, bool overwrite, struct err *e);

#endif
