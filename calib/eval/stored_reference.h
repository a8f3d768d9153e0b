/* stored_reference.h - what a comparison needs of its reference, in a file: then candidates can be measured
 * on another machine, next week, without the reference's weights.
 *
 *     reference_writer_open(&w, "q3.kerf-ref", false, &about, &windows, &e);
 *     reference_writer_add(w, &head, scores, n, &opt, &e);        // positions in order, wave by wave
 *     reference_writer_commit(w, &e);
 *
 *     stored_reference_open(&r, "q3.kerf-ref", &e);               // checks every byte
 *     ...stored_reference_windows(r)...  evaluate_stored.h
 *
 * Of each scored position it holds the log-likelihood and the first choice, exact to the bit, and a sketch of
 * the distribution (row_sketch.h); of the text the token ids of all windows; and what everything was made of.
 * It is a GGUF file without weights, general.type "kerf-reference":
 *
 *     reference.inputs    I32 [ctx, windows]     reference.nll   F64 [positions]
 *     reference.top       I32 [positions]        reference.ends  I64 [positions] end of each sketch
 *     reference.text_of   I32 [windows]          reference.use   I8  [positions] bits of enum window_use
 *     reference.sketches  I8  [bytes]            metadata: reference.*; reference.sha256 is over all of it
 *
 * A position that counts for nothing (answers_only) has an empty sketch. Version 1, which is read, too, had
 * neither text_of nor use: there all positions count, and which text a window is from is not known. */
#ifndef KERF_STORED_REFERENCE_H
#define KERF_STORED_REFERENCE_H

#include "calib/corpus.h"
#include "calib/model/head.h"

struct vocabulary;

/* What the figures were made of. Strings are borrowed by the writer until it is opened, from the reader until
 * it is closed; "" where something is not known. */
struct reference_about {
    const char *model;          /* path, as it was given */
    const char *model_identity; /* a word that GGUF files and folders share (model_identity.h) */
    const char *architecture, *title, *version;
    const char *vocabulary; /* vocabulary_texts_hash */
    const char *activations;
    uint64_t n_bytes, n_parameters, n_vocab, stride;
    bool answers_only, by_position; /* what `use` of the windows comes from; without both it is NULL */
    double bits_per_weight;
    const struct corpus *corpus; /* texts and the hash of all ids; of a reader: without the ids */
    char ids_sha256[65];
};

/* SHA-256 of the texts of all tokens, in order; "" when `v` is NULL. */
void vocabulary_texts_hash(const struct vocabulary *v, char out[65]);

struct reference_writer;

/* *out: caller ends it with reference_writer_commit or reference_writer_abort. Borrows `w`. */
int reference_writer_open(struct reference_writer **out, const char *path, bool overwrite,
                          const struct reference_about *about, const struct windows *w, struct err *e);

/* The next n scored positions: final states of the reference, and the scores that head_score gave for them.
 */
int reference_writer_add(struct reference_writer *w, const struct head_model *head,
                         const struct head_score *scores, size_t n, const struct head_options *opt,
                         struct err *e);

/* Bytes written; the file stands under its name whole or not at all. Frees `w` in every case. ERR_ARG:
 * positions are missing. */
int reference_writer_commit(struct reference_writer *w, uint64_t *n_bytes, struct err *e);
void reference_writer_abort(struct reference_writer *w); /* NULL is allowed */

struct stored_reference;

/* ERR_FORMAT: damaged, or no such file. *out: caller frees with stored_reference_close. */
int stored_reference_open(struct stored_reference **out, const char *path, struct err *e);
int stored_reference_open_memory(struct stored_reference **out, const void *data, size_t n, struct err *e);
void stored_reference_close(struct stored_reference *r); /* NULL is allowed */

const struct reference_about *stored_reference_about(const struct stored_reference *r);
const struct windows *stored_reference_windows(const struct stored_reference *r);
const char *stored_reference_hash(const struct stored_reference *r); /* 64 hexadecimal digits */

/* Of scored position i: sketch of *n_bytes, log-likelihood, first choice. */
const uint8_t *stored_reference_sketch(const struct stored_reference *r, size_t i, size_t *n_bytes);
double stored_reference_nll(const struct stored_reference *r, size_t i);
int32_t stored_reference_top(const struct stored_reference *r, size_t i);

#endif
