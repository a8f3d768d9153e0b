/* stored_reference_write.c - see stored_reference.h: writing.
 *
 * Sketches are as long as they turn out, so they stand last; sizes in a header have a fixed width, so it is
 * written at the end into the room that a first layout has found. */
#include "stored_reference_internal.h"

#include "row_sketch.h"

#include "formats/gguf/gguf_write.h"
#include "formats/output/output_file.h"
#include "formats/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define ROWS_PER_JOB 8

struct reference_writer {
    const char *path;
    struct output_file *file;
    const struct windows *windows;
    struct gguf_meta *meta;
    struct gguf_out_tensor tensors[REFERENCE_N_TENSORS];
    struct sha256 hash; /* of settings and inputs, then of the rows */
    double *nll;
    int32_t *top;
    int64_t *ends;
    uint32_t *text_of;
    uint8_t *use;
    size_t n, n_positions; /* done, in all */
};

void vocabulary_texts_hash(const struct vocabulary *v, char out[65])
{
    struct sha256 h;
    out[0] = 0;
    if (!v)
        return;
    sha256_init(&h);
    sha256_update_u64(&h, v->n_tokens);
    for (size_t i = 0; i < v->n_tokens; i++) {
        sha256_update_u64(&h, v->tokens[i].len);
        sha256_update(&h, v->tokens[i].text, v->tokens[i].len);
    }
    sha256_final_hex(&h, out);
}

static int set_texts(struct gguf_meta *m, const struct corpus *c, struct err *e)
{
    size_t n = c->n_texts;
    struct gguf_string *names = calloc(2 * n + 1, sizeof *names), *hashes = names ? names + n : NULL;
    uint64_t *sizes = calloc(2 * n + 1, sizeof *sizes);
    int rc = names && sizes ? 0 : err_set(e, ERR_NOMEM, "out of memory for the names of %zu texts", n);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        names[i] = (struct gguf_string){c->texts[i].path, strlen(c->texts[i].path)};
        hashes[i] = (struct gguf_string){c->texts[i].sha256, strlen(c->texts[i].sha256)};
        sizes[i] = c->texts[i].end - c->texts[i].begin;
        sizes[n + i] = c->texts[i].n_bytes;
    }
    if (rc == 0)
        rc = gguf_meta_set_strings(m, "reference.texts", names, n, e);
    if (rc == 0)
        rc = gguf_meta_set_strings(m, "reference.texts_sha256", hashes, n, e);
    if (rc == 0)
        rc = gguf_meta_set_array(m, "reference.texts_tokens", GGUF_U64, sizes, n, e);
    if (rc == 0)
        rc = gguf_meta_set_array(m, "reference.texts_bytes", GGUF_U64, sizes + n, n, e);
    free(names);
    free(sizes);
    return rc;
}

static int set_numbers(struct gguf_meta *m, const struct reference_about *a, const struct windows *w,
                       struct err *e)
{
    const struct {
        const char *key;
        uint64_t v;
    } numbers[] = {{"reference.version", REFERENCE_VERSION},
                   {"reference.bytes", a->n_bytes},
                   {"reference.parameters", a->n_parameters},
                   {"reference.vocabulary_size", a->n_vocab},
                   {"reference.ctx", w->ctx},
                   {"reference.windows", w->n},
                   {"reference.scored_first", w->first},
                   {"reference.scored_end", w->end},
                   {"reference.stride", a->stride},
                   {"reference.answers_only", a->answers_only},
                   {"reference.by_position", a->by_position}};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof numbers / sizeof *numbers; i++)
        rc = gguf_meta_set_u64(m, numbers[i].key, numbers[i].v, e);
    struct gguf_value bits = {.type = GGUF_F64, .f = a->bits_per_weight};
    return rc == 0 ? gguf_meta_set(m, "reference.bits_per_weight", &bits, e) : rc;
}

static int make_meta(struct gguf_meta **out, const struct reference_about *a, const struct windows *w,
                     struct err *e)
{
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    const struct {
        const char *key, *v;
    } words[] = {{"general.type", REFERENCE_TYPE},
                 {"reference.model", a->model},
                 {"reference.model_identity", a->model_identity},
                 {"reference.architecture", a->architecture},
                 {"reference.title", a->title},
                 {"reference.kerf", a->version},
                 {"reference.vocabulary_sha256", a->vocabulary},
                 {"reference.activations", a->activations},
                 {"reference.ids_sha256", a->ids_sha256},
                 {"reference.sha256", zeros}};
    struct gguf_meta *m = NULL;
    int rc = gguf_meta_new(&m, e);
    for (size_t i = 0; rc == 0 && i < sizeof words / sizeof *words; i++)
        rc = gguf_meta_set_string(m, words[i].key, words[i].v ? words[i].v : "", e);
    if (rc == 0)
        rc = set_numbers(m, a, w, e);
    if (rc == 0)
        rc = set_texts(m, a->corpus, e);
    if (rc != 0)
        gguf_meta_free(m);
    else
        *out = m;
    return rc;
}

/* Where everything goes when the sketches take n_bytes. *header: caller frees. */
static int lay_out(struct reference_writer *w, uint64_t n_bytes, uint8_t **header, size_t *header_bytes,
                   uint64_t *file_bytes, struct err *e)
{
    const struct {
        enum qtype type;
        uint64_t a, b;
    } shapes[REFERENCE_N_TENSORS] = {{QTYPE_I32, w->windows->ctx, w->windows->n},
                                     {QTYPE_F64, w->n_positions, 1},
                                     {QTYPE_I32, w->n_positions, 1},
                                     {QTYPE_I64, w->n_positions, 1},
                                     {QTYPE_I32, w->windows->n, 1},
                                     {QTYPE_I8, w->n_positions, 1},
                                     {QTYPE_I8, n_bytes, 1}};
    for (size_t i = 0; i < REFERENCE_N_TENSORS; i++)
        w->tensors[i] = (struct gguf_out_tensor){.name = reference_tensor_names[i],
                                                 .type = shapes[i].type,
                                                 .n_dims = i == REFERENCE_INPUTS ? 2 : 1,
                                                 .ne = {shapes[i].a, shapes[i].b, 1, 1}};
    return gguf_layout(w->meta, w->tensors, REFERENCE_N_TENSORS, header, header_bytes, file_bytes, e);
}

/* Which text each window is from, and what its positions count for. */
static int take_parts(struct reference_writer *w, struct err *e)
{
    const struct windows *from = w->windows;
    w->text_of = calloc(from->n + 1, sizeof *w->text_of);
    w->use = malloc(w->n_positions + 1);
    if (!w->text_of || !w->use)
        return err_set(e, ERR_NOMEM, "%s: out of memory for %zu windows", w->path, from->n);
    if (from->text)
        memcpy(w->text_of, from->text, from->n * sizeof *w->text_of);
    if (from->use)
        memcpy(w->use, from->use, w->n_positions);
    else
        memset(w->use, WINDOW_SCORED | WINDOW_DEPTH, w->n_positions);
    return 0;
}

static int begin(struct reference_writer *w, bool overwrite, struct err *e)
{
    uint8_t *header = NULL;
    size_t header_bytes = 0;
    uint64_t file_bytes = 0;
    struct output_file_options opt = {.overwrite = overwrite};
    int rc = lay_out(w, 1, &header, &header_bytes, &file_bytes, e);
    free(header);
    w->nll = malloc(w->n_positions * sizeof *w->nll + 1);
    w->top = malloc(w->n_positions * sizeof *w->top + 1);
    w->ends = malloc(w->n_positions * sizeof *w->ends + 1);
    if (rc == 0 && (!w->nll || !w->top || !w->ends))
        rc = err_set(e, ERR_NOMEM, "%s: out of memory for %zu positions", w->path, w->n_positions);
    if (rc == 0)
        rc = take_parts(w, e);
    reference_hash_begin(&w->hash, w->meta);
    sha256_update(&w->hash, w->windows->inputs, w->windows->n * w->windows->ctx * sizeof *w->windows->inputs);
    return rc == 0 ? output_file_open(&w->file, w->path, &opt, e) : rc;
}

int reference_writer_open(struct reference_writer **out, const char *path, bool overwrite,
                          const struct reference_about *about, const struct windows *windows, struct err *e)
{
    struct reference_writer *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    w->path = path;
    w->windows = windows;
    w->n_positions = windows->n * windows_n_scored(windows);
    int rc = make_meta(&w->meta, about, windows, e);
    if (rc == 0)
        rc = begin(w, overwrite, e);
    if (rc != 0) {
        reference_writer_abort(w);
        return err_context(e, rc, "the stored reference");
    }
    *out = w;
    return 0;
}

/* --- rows --- */

struct encoding {
    const float *logits;         /* [n, n_vocab] */
    size_t n, n_vocab, position; /* of the first row */
    const uint8_t *use;          /* [n] */
    uint8_t *sketches;           /* [n, ROW_SKETCH_BYTES] */
    size_t *n_bytes;             /* [n] */
    float *scratch;              /* [threads, n_vocab] */
};

/* Where sampling begins: spread over [0, 1) by the golden ratio, and the same for every run. */
static double share_of(size_t position)
{
    uint64_t x = (uint64_t)position * 0x9e3779b97f4a7c15u;
    return (double)(x >> 11) / 9007199254740992.0;
}

static int encode_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)e;
    struct encoding *c = ctx;
    for (size_t i = job * ROWS_PER_JOB; i < (job + 1) * ROWS_PER_JOB && i < c->n; i++) {
        struct row_sum sum;
        const float *row = c->logits + i * c->n_vocab;
        c->n_bytes[i] = 0;
        if (!c->use[i])
            continue;
        row_sum(&sum, row, c->n_vocab);
        c->n_bytes[i] = row_sketch_encode(c->sketches + i * ROW_SKETCH_BYTES, row, c->n_vocab, sum.lse,
                                          share_of(c->position + i), c->scratch + worker * c->n_vocab);
    }
    return 0;
}

/* Append the sketches of a block of rows. */
static int put_sketches(struct reference_writer *w, const struct encoding *c, struct err *e)
{
    int rc = 0;
    int64_t end = w->n ? w->ends[w->n - 1] : 0;
    const uint64_t base = w->tensors[REFERENCE_SKETCHES].offset;
    for (size_t i = 0; rc == 0 && i < c->n; i++) {
        const uint8_t *sketch = c->sketches + i * ROW_SKETCH_BYTES;
        rc = output_file_write_at(w->file, base + (uint64_t)end, sketch, c->n_bytes[i], e);
        sha256_update(&w->hash, sketch, c->n_bytes[i]);
        end += (int64_t)c->n_bytes[i];
        w->ends[w->n++] = end;
    }
    return rc;
}

int reference_writer_add(struct reference_writer *w, const struct head_model *head,
                         const struct head_score *scores, size_t n, const struct head_options *opt,
                         struct err *e)
{
    size_t n_vocab = head->net->n_vocab, most = logit_rows_at_once(n_vocab, n, opt->memory_bytes);
    struct encoding c = {.n_vocab = n_vocab};
    float *logits = malloc(most * n_vocab * sizeof *logits);
    c.sketches = malloc(most * ROW_SKETCH_BYTES);
    c.n_bytes = malloc(most * sizeof *c.n_bytes);
    c.scratch = malloc(pool_n_threads(opt->pool) * n_vocab * sizeof *c.scratch);
    c.logits = logits;
    int rc =
        w->n + n > w->n_positions ? err_set(e, ERR_ARG, "%s: more positions than asked for", w->path) : 0;
    if (!logits || !c.sketches || !c.n_bytes || !c.scratch)
        rc = err_set(e, ERR_NOMEM, "out of memory for %zu rows of logits", most);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        w->nll[w->n + i] = scores[i].nll;
        w->top[w->n + i] = scores[i].top;
    }
    for (size_t i = 0; rc == 0 && i < n; i += c.n) {
        c.n = n - i < most ? n - i : most;
        c.position = w->n;
        c.use = w->use + w->n;
        rc = head_logits(head, i, c.n, opt, logits, e);
        if (rc == 0)
            rc = pool_run(opt->pool, (c.n + ROWS_PER_JOB - 1) / ROWS_PER_JOB, encode_job, &c, e);
        if (rc == 0)
            rc = put_sketches(w, &c, e);
        if (rc == 0)
            rc = progress_tell(&opt->progress,
                               &(struct progress_step){.done = (double)(i + c.n), .total = (double)n}, e);
    }
    free(logits);
    free(c.sketches);
    free(c.n_bytes);
    free(c.scratch);
    return rc;
}

/* --- the end --- */

/* Header and tables, once all is known. *n_bytes: of the file. */
static int finish(struct reference_writer *w, uint64_t *n_bytes, struct err *e)
{
    char sum[65];
    uint8_t *header = NULL;
    size_t header_bytes = 0;
    uint64_t end = (uint64_t)w->ends[w->n - 1];
    const void *data[] = {w->windows->inputs, w->nll, w->top, w->ends, w->text_of, w->use};
    sha256_update(&w->hash, w->nll, w->n * sizeof *w->nll);
    sha256_update(&w->hash, w->top, w->n * sizeof *w->top);
    sha256_update(&w->hash, w->ends, w->n * sizeof *w->ends);
    sha256_update(&w->hash, w->text_of, w->windows->n * sizeof *w->text_of);
    sha256_update(&w->hash, w->use, w->n);
    sha256_final_hex(&w->hash, sum);
    int rc = gguf_meta_set_string(w->meta, "reference.sha256", sum, e);
    if (rc == 0)
        rc = lay_out(w, end, &header, &header_bytes, n_bytes, e);
    if (rc == 0)
        rc = output_file_write_at(w->file, 0, header, header_bytes, e);
    for (size_t i = 0; rc == 0 && i < REFERENCE_SKETCHES; i++)
        rc = output_file_write_at(w->file, w->tensors[i].offset, data[i], (size_t)w->tensors[i].n_bytes, e);
    static const uint8_t padding[GGUF_DEFAULT_ALIGNMENT];
    uint64_t last = w->tensors[REFERENCE_SKETCHES].offset + end;
    if (rc == 0 && *n_bytes > last)
        rc = output_file_write_at(w->file, last, padding, (size_t)(*n_bytes - last), e);
    free(header);
    return rc;
}

static void writer_free(struct reference_writer *w)
{
    gguf_meta_free(w->meta);
    free(w->nll);
    free(w->top);
    free(w->ends);
    free(w->text_of);
    free(w->use);
    free(w);
}

int reference_writer_commit(struct reference_writer *w, uint64_t *n_bytes, struct err *e)
{
    uint64_t n = 0;
    int rc = w->n == w->n_positions && w->n > 0
                 ? finish(w, &n, e)
                 : err_set(e, ERR_ARG, "%s: %zu of %zu positions are there", w->path, w->n, w->n_positions);
    if (rc != 0) {
        reference_writer_abort(w);
        return rc;
    }
    rc = output_file_commit(w->file, n, e);
    writer_free(w);
    if (rc == 0 && n_bytes)
        *n_bytes = n;
    return rc;
}

void reference_writer_abort(struct reference_writer *w)
{
    if (!w)
        return;
    output_file_abort(w->file);
    writer_free(w);
}
