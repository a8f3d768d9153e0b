/* stored_reference_read.c - see stored_reference.h: reading. The file is hostile: sizes are compared with
 * each other and with what is there, every id and every sketch is checked, and the checksum tells the rest.
 */
#include "stored_reference_internal.h"

#include "row_sketch.h"

#include "formats/gguf/gguf_read.h"
#include "libquant/base/arena.h"
#include "libquant/base/checked.h"
#include "libquant/base/slice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CTX   (1u << 24) /* as --ctx */
#define MAX_TEXTS 100000

const char *const reference_tensor_names[REFERENCE_N_TENSORS] = {
    "reference.inputs",  "reference.nll", "reference.top",     "reference.ends",
    "reference.text_of", "reference.use", "reference.sketches"};

struct stored_reference {
    struct gguf_reader *file;
    struct arena arena;
    struct reference_about about;
    struct corpus corpus;
    struct windows windows;
    const uint8_t *nll, *top, *ends, *sketches; /* in the map, perhaps unaligned */
    const uint8_t *text_of, *use;               /* likewise; NULL in version 1 */
    uint64_t version;
    uint64_t n_sketch_bytes;
    char sha256[65];
};

static void hash_value(struct sha256 *h, const struct gguf_value *v)
{
    if (v->type == GGUF_STRING) {
        sha256_update_u64(h, v->s.len);
        sha256_update(h, v->s.data, (size_t)v->s.len);
    } else if (v->type == GGUF_ARRAY && v->a.elem == GGUF_STRING) {
        const struct gguf_string *s = v->a.data;
        for (uint64_t i = 0; i < v->a.n; i++) {
            sha256_update_u64(h, s[i].len);
            sha256_update(h, s[i].data, (size_t)s[i].len);
        }
    } else if (v->type == GGUF_ARRAY) {
        sha256_update(h, v->a.data, (size_t)(v->a.n * gguf_type_size(v->a.elem)));
    } else {
        sha256_update_u64(h, v->u);
    }
}

void reference_hash_begin(struct sha256 *h, const struct gguf_meta *m)
{
    sha256_init(h);
    for (size_t i = 0; i < gguf_meta_n(m); i++) {
        const char *key = gguf_meta_key(m, i);
        if (strcmp(key, "reference.sha256") == 0)
            continue;
        sha256_update(h, key, strlen(key) + 1);
        hash_value(h, gguf_meta_value(m, i));
    }
}

/* A string of the metadata, NUL-terminated. */
static int get_text(struct stored_reference *r, const char *key, const char **out, struct err *e)
{
    struct gguf_string s = {0};
    if (!gguf_meta_get_string(gguf_reader_meta(r->file), key, &s) || memchr(s.data, 0, (size_t)s.len))
        return err_set(e, ERR_FORMAT, "%s is missing or not a text", key);
    *out = arena_strndup(&r->arena, s.data, (size_t)s.len);
    return *out ? 0 : err_set(e, ERR_NOMEM, "out of memory for %s", key);
}

static int get_number(const struct stored_reference *r, const char *key, uint64_t most, uint64_t *out,
                      struct err *e)
{
    if (!gguf_meta_get_u64(gguf_reader_meta(r->file), key, out) || *out > most)
        return err_set(e, ERR_FORMAT, "%s is missing or too large", key);
    return 0;
}

static int read_about(struct stored_reference *r, struct err *e)
{
    struct reference_about *a = &r->about;
    const char *ids = NULL, *sum = NULL;
    const struct {
        const char *key;
        const char **out;
    } words[] = {{"reference.model", &a->model},
                 {"reference.model_identity", &a->model_identity},
                 {"reference.architecture", &a->architecture},
                 {"reference.title", &a->title},
                 {"reference.kerf", &a->version},
                 {"reference.vocabulary_sha256", &a->vocabulary},
                 {"reference.activations", &a->activations},
                 {"reference.ids_sha256", &ids},
                 {"reference.sha256", &sum}};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof words / sizeof *words; i++)
        rc = get_text(r, words[i].key, words[i].out, e);
    if (rc == 0 && (strlen(ids) != 64 || strlen(sum) != 64))
        rc = err_set(e, ERR_FORMAT, "reference.ids_sha256 or reference.sha256 does not have 64 digits");
    if (rc != 0)
        return rc;
    memcpy(a->ids_sha256, ids, 65);
    memcpy(r->sha256, sum, 65);
    rc = get_number(r, "reference.bytes", UINT64_MAX, &a->n_bytes, e);
    if (rc == 0)
        rc = get_number(r, "reference.parameters", UINT64_MAX, &a->n_parameters, e);
    if (rc == 0)
        rc = get_number(r, "reference.vocabulary_size", INT32_MAX, &a->n_vocab, e);
    if (rc == 0)
        rc = get_number(r, "reference.stride", MAX_CTX, &a->stride, e);
    if (rc == 0 &&
        (!gguf_meta_get_f64(gguf_reader_meta(r->file), "reference.bits_per_weight", &a->bits_per_weight) ||
         !isfinite(a->bits_per_weight)))
        rc = err_set(e, ERR_FORMAT, "reference.bits_per_weight is missing or not a number");
    return rc;
}

/* An array of the metadata with one element for each text. */
static const struct gguf_value *text_array(const struct stored_reference *r, const char *key,
                                           enum gguf_type elem, uint64_t n)
{
    const struct gguf_value *v = gguf_meta_find(gguf_reader_meta(r->file), key);
    return v && v->type == GGUF_ARRAY && v->a.elem == elem && v->a.n == n ? v : NULL;
}

static int read_texts(struct stored_reference *r, struct err *e)
{
    const struct gguf_value *names = gguf_meta_find(gguf_reader_meta(r->file), "reference.texts");
    uint64_t n = names && names->type == GGUF_ARRAY ? names->a.n : 0;
    const struct gguf_value *hashes = text_array(r, "reference.texts_sha256", GGUF_STRING, n),
                            *tokens = text_array(r, "reference.texts_tokens", GGUF_U64, n),
                            *bytes = text_array(r, "reference.texts_bytes", GGUF_U64, n);
    if (!names || names->a.elem != GGUF_STRING || n == 0 || n > MAX_TEXTS || !hashes || !tokens || !bytes)
        return err_set(e, ERR_FORMAT, "the list of texts is damaged");
    r->corpus.texts = calloc((size_t)n, sizeof *r->corpus.texts);
    if (!r->corpus.texts)
        return err_set(e, ERR_NOMEM, "out of memory for the names of the texts");
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        struct corpus_text *t = &r->corpus.texts[i];
        struct gguf_string name = {0}, hash = {0};
        uint64_t len = load_u64((const uint8_t *)tokens->a.data + 8 * i);
        if (!gguf_array_string(names, i, &name) || !gguf_array_string(hashes, i, &hash) || hash.len != 64 ||
            memchr(name.data, 0, (size_t)name.len) || len > INT64_MAX / MAX_TEXTS)
            return err_set(e, ERR_FORMAT, "text %zu of the list is damaged", i);
        t->path = strndup(name.data, (size_t)name.len);
        if (!t->path)
            return err_set(e, ERR_NOMEM, "out of memory for the names of the texts");
        r->corpus.n_texts++;
        memcpy(t->sha256, hash.data, 64);
        t->n_bytes = load_u64((const uint8_t *)bytes->a.data + 8 * i);
        t->begin = at;
        t->end = at += (size_t)len;
    }
    r->about.corpus = &r->corpus;
    return 0;
}

static const struct gguf_tensor *find_tensor(const struct stored_reference *r, enum reference_tensor which,
                                             enum qtype type, uint64_t a, uint64_t b)
{
    const struct gguf_tensor *t = gguf_reader_find(r->file, reference_tensor_names[which]);
    bool fits = t && t->type == type && t->ne[0] == a && t->ne[1] == b && t->ne[2] == 1 && t->ne[3] == 1;
    return fits ? t : NULL;
}

static int read_windows(struct stored_reference *r, uint64_t *n_positions, struct err *e)
{
    struct windows *w = &r->windows;
    uint64_t ctx = 0, n = 0, first = 0, end = 0, n_inputs = 0;
    int rc = get_number(r, "reference.ctx", MAX_CTX, &ctx, e);
    if (rc == 0)
        rc = get_number(r, "reference.windows", INT32_MAX, &n, e);
    if (rc == 0)
        rc = get_number(r, "reference.scored_first", ctx, &first, e);
    if (rc == 0)
        rc = get_number(r, "reference.scored_end", ctx, &end, e);
    if (rc != 0)
        return rc;
    const struct gguf_tensor *t = find_tensor(r, REFERENCE_INPUTS, QTYPE_I32, ctx, n);
    if (!t || first >= end || end >= ctx || n == 0 || !checked_mul(ctx, n, &n_inputs))
        return err_set(e, ERR_FORMAT, "the windows are damaged");
    *w = (struct windows){.ctx = (size_t)ctx, .n = (size_t)n, .first = (size_t)first, .end = (size_t)end};
    size_t run = windows_n_scored(w);
    w->inputs = malloc((size_t)n_inputs * sizeof *w->inputs);
    w->targets = malloc(w->n * run * sizeof *w->targets);
    if (!w->inputs || !w->targets)
        return err_set(e, ERR_NOMEM, "out of memory for %zu windows", w->n);
    memcpy(w->inputs, t->data, (size_t)n_inputs * sizeof *w->inputs);
    for (size_t i = 0; i < n_inputs; i++)
        if (w->inputs[i] < 0 || (uint64_t)w->inputs[i] >= r->about.n_vocab)
            return err_set(e, ERR_FORMAT, "token %zu is outside the vocabulary", i);
    for (size_t i = 0; i < w->n; i++)
        memcpy(w->targets + i * run, w->inputs + i * w->ctx + w->first + 1, run * sizeof *w->targets);
    *n_positions = (uint64_t)w->n * run;
    return 0;
}

/* What version 2 says of windows and positions. */
static int read_parts(struct stored_reference *r, uint64_t n, struct err *e)
{
    struct windows *w = &r->windows;
    uint64_t answers = 0, depths = 0;
    if (r->version < 2)
        return 0;
    int rc = get_number(r, "reference.answers_only", 1, &answers, e);
    if (rc == 0)
        rc = get_number(r, "reference.by_position", 1, &depths, e);
    if (rc != 0)
        return rc;
    const struct gguf_tensor *text_of = find_tensor(r, REFERENCE_TEXT_OF, QTYPE_I32, w->n, 1),
                             *use = find_tensor(r, REFERENCE_USE, QTYPE_I8, n, 1);
    if (!text_of || !use)
        return err_set(e, ERR_FORMAT, "the tables of windows are missing or have another length");
    r->about.answers_only = answers;
    r->about.by_position = depths;
    r->text_of = text_of->data;
    r->use = use->data;
    w->text = malloc(w->n * sizeof *w->text);
    w->use = answers || depths ? malloc((size_t)n) : NULL;
    if (!w->text || (!w->use && (answers || depths)))
        return err_set(e, ERR_NOMEM, "out of memory for %zu windows", w->n);
    for (size_t i = 0; i < w->n; i++) {
        w->text[i] = load_u32(r->text_of + 4 * i);
        if (w->text[i] >= r->corpus.n_texts)
            return err_set(e, ERR_FORMAT, "window %zu is from text %u of %zu", i, w->text[i],
                           r->corpus.n_texts);
    }
    for (size_t i = 0; i < n; i++)
        if (r->use[i] > (WINDOW_SCORED | WINDOW_DEPTH) ||
            (!w->use && r->use[i] != (WINDOW_SCORED | WINDOW_DEPTH)))
            return err_set(e, ERR_FORMAT, "position %zu counts for what is not known (%u)", i, r->use[i]);
    if (w->use)
        memcpy(w->use, r->use, (size_t)n);
    return 0;
}

static int read_positions(struct stored_reference *r, uint64_t n, struct err *e)
{
    const struct gguf_tensor *nll = find_tensor(r, REFERENCE_NLL, QTYPE_F64, n, 1),
                             *top = find_tensor(r, REFERENCE_TOP, QTYPE_I32, n, 1),
                             *ends = find_tensor(r, REFERENCE_ENDS, QTYPE_I64, n, 1),
                             *sketches =
                                 gguf_reader_find(r->file, reference_tensor_names[REFERENCE_SKETCHES]);
    if (!nll || !top || !ends || !sketches || sketches->type != QTYPE_I8 || sketches->n_dims != 1)
        return err_set(e, ERR_FORMAT, "a table is missing or has another length");
    r->nll = nll->data;
    r->top = top->data;
    r->ends = ends->data;
    r->sketches = sketches->data;
    r->n_sketch_bytes = sketches->n_bytes;
    uint64_t begin = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        uint64_t end = load_u64(r->ends + 8 * i);
        if (end < begin || end > r->n_sketch_bytes)
            return err_set(e, ERR_FORMAT, "position %zu: its distribution is not where it should be", i);
        if (!isfinite(stored_reference_nll(r, i)) || stored_reference_top(r, i) < 0 ||
            (uint64_t)stored_reference_top(r, i) >= r->about.n_vocab)
            return err_set(e, ERR_FORMAT, "position %zu: its score is not a number or its choice not a token",
                           i);
        if (!r->use || r->use[i] || end > begin)
            rc = row_sketch_check(r->sketches + begin, (size_t)(end - begin), (size_t)r->about.n_vocab, e);
        if (rc != 0)
            return err_context(e, rc, "position %zu", i);
        begin = end;
    }
    return begin == r->n_sketch_bytes ? 0 : err_set(e, ERR_FORMAT, "bytes behind the last distribution");
}

static int check_sum(const struct stored_reference *r, uint64_t n, struct err *e)
{
    const struct windows *w = &r->windows;
    struct sha256 h;
    char sum[65];
    reference_hash_begin(&h, gguf_reader_meta(r->file));
    sha256_update(&h, w->inputs, w->n * w->ctx * sizeof *w->inputs);
    sha256_update(&h, r->sketches, (size_t)r->n_sketch_bytes);
    sha256_update(&h, r->nll, (size_t)n * 8);
    sha256_update(&h, r->top, (size_t)n * 4);
    sha256_update(&h, r->ends, (size_t)n * 8);
    if (r->version >= 2) {
        sha256_update(&h, r->text_of, w->n * 4);
        sha256_update(&h, r->use, (size_t)n);
    }
    sha256_final_hex(&h, sum);
    return strcmp(sum, r->sha256) == 0 ? 0 : err_set(e, ERR_FORMAT, "the checksum is wrong");
}

static int check_kind(struct stored_reference *r, struct err *e)
{
    struct gguf_string type = {0};
    const struct gguf_meta *m = gguf_reader_meta(r->file);
    if (!gguf_meta_get_string(m, "general.type", &type) || !gguf_string_is(type, REFERENCE_TYPE))
        return err_set(
            e, ERR_FORMAT,
            "is a GGUF file, but not a stored reference (kerf compare --save-reference writes those)");
    if (!gguf_meta_get_u64(m, "reference.version", &r->version) || r->version < 1 ||
        r->version > REFERENCE_VERSION)
        return err_set(e, ERR_UNSUPPORTED,
                       "is a stored reference of version %llu, expected 1 to %d; make it again with this "
                       "program",
                       (unsigned long long)r->version, REFERENCE_VERSION);
    return 0;
}

/* Takes the reader. */
static int take(struct stored_reference **out, struct gguf_reader *file, const char *what, struct err *e)
{
    struct stored_reference *r = calloc(1, sizeof *r);
    uint64_t n = 0;
    if (!r) {
        gguf_reader_close(file);
        return err_set(e, ERR_NOMEM, "%s: out of memory", what);
    }
    r->file = file;
    int rc = check_kind(r, e);
    if (rc == 0)
        rc = read_about(r, e);
    if (rc == 0)
        rc = read_texts(r, e);
    if (rc == 0)
        rc = read_windows(r, &n, e);
    if (rc == 0)
        rc = read_parts(r, n, e);
    if (rc == 0)
        rc = read_positions(r, n, e);
    if (rc == 0)
        rc = check_sum(r, n, e);
    if (rc != 0) {
        stored_reference_close(r);
        return err_context(e, rc, "%s", what);
    }
    *out = r;
    return 0;
}

int stored_reference_open(struct stored_reference **out, const char *path, struct err *e)
{
    struct gguf_reader *file = NULL;
    int rc = gguf_reader_open(&file, path, &(struct gguf_read_options){.single_part = true}, e);
    return rc == 0 ? take(out, file, path, e) : rc;
}

int stored_reference_open_memory(struct stored_reference **out, const void *data, size_t n, struct err *e)
{
    struct gguf_reader *file = NULL;
    int rc = gguf_reader_open_memory(&file, data, n, "reference", NULL, e);
    return rc == 0 ? take(out, file, "reference", e) : rc;
}

void stored_reference_close(struct stored_reference *r)
{
    if (!r)
        return;
    windows_release(&r->windows);
    corpus_release(&r->corpus);
    arena_release(&r->arena);
    gguf_reader_close(r->file);
    free(r);
}

const struct reference_about *stored_reference_about(const struct stored_reference *r)
{
    return &r->about;
}

const struct windows *stored_reference_windows(const struct stored_reference *r)
{
    return &r->windows;
}

const char *stored_reference_hash(const struct stored_reference *r)
{
    return r->sha256;
}

const uint8_t *stored_reference_sketch(const struct stored_reference *r, size_t i, size_t *n_bytes)
{
    uint64_t begin = i ? load_u64(r->ends + 8 * (i - 1)) : 0;
    *n_bytes = (size_t)(load_u64(r->ends + 8 * i) - begin);
    return r->sketches + begin;
}

double stored_reference_nll(const struct stored_reference *r, size_t i)
{
    double v;
    memcpy(&v, r->nll + 8 * i, sizeof v);
    return v;
}

int32_t stored_reference_top(const struct stored_reference *r, size_t i)
{
    return (int32_t)load_u32(r->top + 4 * i);
}
