/* imatrix_gguf.c - the GGUF form of importance matrices (specification, calibration-and-evaluation 2.2): for
 * each entry two f32 tensors, "<name>.in_sum2" with the raw sums and "<name>.counts" with the tokens. */
#include "gguf_read.h"
#include "gguf_write.h"
#include "imatrix_internal.h"
#include "libquant/base/slice.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SUMS             ".in_sum2"
#define COUNTS           ".counts"
#define ALL_EXPERTS_KEY  "kerf.imatrix.all_experts"
#define BY_ROUTER_KEY    "kerf.imatrix.by_router"
#define EXPERT_PRIOR_KEY "kerf.imatrix.expert_prior" /* a key of our own; the peer ignores it */
#define HESSIAN_KEY      "kerf.hessian.version" /* a Hessian file (calib/stats/hessian_file.h) holds more */
#define MAX_COUNT        9007199254740992.0     /* 2^53: whole numbers of tokens stay exact */

/* --- reading --- */

static bool has_suffix(const char *name, const char *suffix, size_t *stem_len)
{
    size_t n = strlen(name), k = strlen(suffix);
    if (n <= k || strcmp(name + n - k, suffix) != 0)
        return false;
    *stem_len = n - k;
    return true;
}

static const struct gguf_tensor *partner(const struct gguf_reader *r, const char *name, size_t stem_len,
                                         const char *suffix)
{
    char other[GGUF_MAX_NAME + 16];
    memcpy(other, name, stem_len);
    strcpy(other + stem_len, suffix);
    return gguf_reader_find(r, other);
}

static int bad_number(const struct gguf_tensor *t, const char *what, uint64_t k, double v, struct err *e)
{
    return err_set(e, ERR_FORMAT, "%s: tensor '%s': element %" PRIu64 " is %g; expected a finite number >= 0",
                   what, t->name, k, v);
}

static int take_entry(struct imatrix *m, const struct gguf_tensor *sums, const struct gguf_tensor *counts,
                      size_t stem_len, const char *what, struct err *e)
{
    uint64_t n_values = gguf_tensor_n_elems(sums), n_mats = gguf_tensor_n_elems(counts);
    struct imatrix_entry *x;
    if (sums->type != QTYPE_F32 || counts->type != QTYPE_F32)
        return err_set(e, ERR_FORMAT, "%s: tensors '%s' and '%s': expected F32, found %s and %s", what,
                       sums->name, counts->name, qtype_name(sums->type), qtype_name(counts->type));
    if (n_values % n_mats != 0)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s': %" PRIu64 " sums do not divide among %" PRIu64 " counts", what,
                       sums->name, n_values, n_mats);
    int rc = imatrix_append(m, sums->name, stem_len, n_values, n_mats, &x, e);
    if (rc)
        return err_context(e, rc, "%s", what);
    for (uint64_t k = 0; k < n_values; k++) {
        x->sums[k] = load_f32(sums->data + 4 * k);
        if (!isfinite(x->sums[k]) || x->sums[k] < 0)
            return bad_number(sums, what, k, x->sums[k], e);
    }
    for (uint64_t k = 0; k < n_mats; k++) {
        double c = round(load_f32(counts->data + 4 * k));
        if (!isfinite(c) || c < 0 || c > MAX_COUNT)
            return bad_number(counts, what, k, c, e);
        x->counts[k] = c;
    }
    return 0;
}

static int take_entries(struct imatrix *m, const struct gguf_reader *r, const char *what, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < gguf_reader_n_tensors(r) && rc == 0; i++) {
        const struct gguf_tensor *t = gguf_reader_tensor(r, i), *other;
        size_t stem;
        if (has_suffix(t->name, SUMS, &stem)) {
            other = partner(r, t->name, stem, COUNTS);
            rc = other ? take_entry(m, t, other, stem, what, e)
                       : err_set(e, ERR_FORMAT, "%s: tensor '%s' has no '%.*s%s' beside it", what, t->name,
                                 (int)stem, t->name, COUNTS);
        } else if (has_suffix(t->name, COUNTS, &stem)) {
            if (!partner(r, t->name, stem, SUMS))
                rc = err_set(e, ERR_FORMAT, "%s: tensor '%s' has no '%.*s%s' beside it", what, t->name,
                             (int)stem, t->name, SUMS);
        } else {
            m->n_ignored++;
        }
    }
    if (gguf_meta_find(gguf_reader_meta(r), HESSIAN_KEY))
        m->n_ignored = 0; /* the Gram matrices belong there */
    if (rc == 0 && m->n == 0)
        rc = err_set(e, ERR_FORMAT, "%s: holds no importance data (no tensors named *%s)", what, SUMS);
    return rc;
}

/* A short text; one that does not fit is no word of ours. */
static void take_word(char *out, size_t cap, const struct gguf_meta *meta, const char *key)
{
    struct gguf_string word;
    if (!gguf_meta_get_string(meta, key, &word) || word.len >= cap || memchr(word.data, 0, word.len))
        return;
    memcpy(out, word.data, word.len);
    out[word.len] = 0;
}

/* An optional u32 key. */
static int take_u32(const struct gguf_meta *meta, const char *key, uint32_t *out, const char *what,
                    struct err *e)
{
    uint64_t v = 0;
    if (gguf_meta_find(meta, key) && (!gguf_meta_get_u64(meta, key, &v) || v > UINT32_MAX))
        return err_set(e, ERR_FORMAT, "%s: key '%s': expected a u32", what, key);
    *out = (uint32_t)v;
    return 0;
}

static int take_keys(struct imatrix *m, const struct gguf_meta *meta, const char *what, struct err *e)
{
    struct gguf_string type, dataset;
    if (gguf_meta_get_string(meta, "general.type", &type) && !gguf_string_is(type, "imatrix"))
        return err_set(e, ERR_FORMAT, "%s: key 'general.type' is '%.*s', expected 'imatrix'", what,
                       type.len > 64 ? 64 : (int)type.len, type.data);
    int rc = take_u32(meta, "imatrix.chunk_count", &m->chunk_count, what, e);
    if (rc == 0)
        rc = take_u32(meta, "imatrix.chunk_size", &m->chunk_size, what, e);
    if (rc == 0)
        rc = take_u32(meta, EXPERT_PRIOR_KEY, &m->expert_prior, what, e);
    gguf_meta_get_bool(meta, ALL_EXPERTS_KEY, &m->all_experts);
    gguf_meta_get_bool(meta, BY_ROUTER_KEY, &m->by_router);
    if (rc == 0) {
        take_word(m->model, sizeof m->model, meta, IMATRIX_MODEL_KEY);
        take_word(m->run, sizeof m->run, meta, IMATRIX_RUN_KEY);
    }
    const struct gguf_value *v = gguf_meta_find(meta, "imatrix.datasets");
    if (rc == 0 && v && (v->type != GGUF_ARRAY || v->a.elem != GGUF_STRING))
        rc = err_set(e, ERR_FORMAT, "%s: key 'imatrix.datasets': expected an array of strings", what);
    for (uint64_t i = 0; rc == 0 && gguf_array_string(v, i, &dataset); i++)
        rc = memchr(dataset.data, 0, dataset.len)
                 ? err_set(e, ERR_FORMAT, "%s: key 'imatrix.datasets': a name contains a NUL", what)
                 : imatrix_add_dataset_n(m, dataset.data, dataset.len, e);
    return rc;
}

int imatrix_parse_gguf(struct imatrix *m, const void *data, size_t len, const char *what, struct err *e)
{
    struct gguf_reader *r;
    int rc = gguf_reader_open_memory(&r, data, len, what, NULL, e);
    if (rc)
        return rc;
    rc = take_keys(m, gguf_reader_meta(r), what, e);
    if (rc == 0)
        rc = take_entries(m, r, what, e);
    gguf_reader_close(r);
    return rc;
}

/* --- writing --- */

/* Tensors 2i and 2i+1 are the sums and the counts of entry i. A trailing dimension of 1 is not stored. */
static int fill_directory(const struct imatrix *m, struct gguf_out_tensor *t,
                          char (*names)[GGUF_MAX_NAME + 1], struct err *e)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct imatrix_entry *x = m->entries[i];
        size_t len = strlen(x->name);
        if (len + strlen(SUMS) > GGUF_MAX_NAME)
            return err_set(e, ERR_ARG,
                           "importance of '%s': the name has %zu bytes, the GGUF form has room for %zu",
                           x->name, len, GGUF_MAX_NAME - strlen(SUMS));
        uint32_t n_dims = x->n_mats > 1 ? 2 : 1;
        memcpy(names[2 * i], x->name, len);
        strcpy(names[2 * i] + len, SUMS);
        memcpy(names[2 * i + 1], x->name, len);
        strcpy(names[2 * i + 1] + len, COUNTS);
        t[2 * i] = (struct gguf_out_tensor){.name = names[2 * i],
                                            .type = QTYPE_F32,
                                            .n_dims = n_dims,
                                            .ne = {x->n_values / x->n_mats, x->n_mats}};
        t[2 * i + 1] = (struct gguf_out_tensor){
            .name = names[2 * i + 1], .type = QTYPE_F32, .n_dims = n_dims, .ne = {1, x->n_mats}};
    }
    return 0;
}

static int fill_keys(const struct imatrix *m, struct gguf_meta *meta, struct err *e)
{
    struct gguf_string *names = calloc(m->n_datasets + 1, sizeof *names);
    if (!names)
        return err_set(e, ERR_NOMEM, "importance matrix: out of memory");
    for (size_t i = 0; i < m->n_datasets; i++)
        names[i] = (struct gguf_string){m->datasets[i], strlen(m->datasets[i])};
    uint32_t chunk_size = m->counts_are_chunks ? IMATRIX_DEFAULT_CHUNK : m->chunk_size;
    int rc = gguf_meta_set_string(meta, "general.type", "imatrix", e);
    if (rc == 0)
        rc = gguf_meta_set_strings(meta, "imatrix.datasets", names, m->n_datasets, e);
    if (rc == 0)
        rc = gguf_meta_set_u32(meta, "imatrix.chunk_count", m->chunk_count, e);
    if (rc == 0)
        rc = gguf_meta_set_u32(meta, "imatrix.chunk_size", chunk_size, e);
    if (rc == 0 && m->expert_prior)
        rc = gguf_meta_set_u32(meta, EXPERT_PRIOR_KEY, m->expert_prior, e);
    if (rc == 0 && m->all_experts)
        rc = gguf_meta_set_bool(meta, ALL_EXPERTS_KEY, true, e);
    if (rc == 0 && m->by_router)
        rc = gguf_meta_set_bool(meta, BY_ROUTER_KEY, true, e);
    if (rc == 0 && m->model[0])
        rc = gguf_meta_set_string(meta, IMATRIX_MODEL_KEY, m->model, e);
    if (rc == 0 && m->run[0])
        rc = gguf_meta_set_string(meta, IMATRIX_RUN_KEY, m->run, e);
    free(names);
    return rc;
}

static int put_numbers(uint8_t *to, const double *from, uint64_t n, double scale, const char *name,
                       struct err *e)
{
    for (uint64_t k = 0; k < n; k++) {
        float v = (float)(from[k] * scale);
        if (!isfinite(v))
            return err_set(e, ERR_ARG, "importance of '%s': value %" PRIu64 " does not fit a float32", name,
                           k);
        memcpy(to + 4 * k, &v, sizeof v);
    }
    return 0;
}

int imatrix_build_gguf(const struct imatrix *m, void **data, size_t *n, struct err *e)
{
    struct gguf_meta *meta = NULL;
    struct gguf_out_tensor *t = calloc(2 * m->n + 1, sizeof *t);
    char(*names)[GGUF_MAX_NAME + 1] = calloc(2 * m->n + 1, sizeof *names);
    uint8_t *file = NULL;
    size_t header_bytes;
    uint64_t file_bytes;
    double scale = m->counts_are_chunks ? IMATRIX_DEFAULT_CHUNK : 1;
    int rc = m->n ? 0 : err_set(e, ERR_ARG, "no importance data to write");
    if (rc == 0 && (!t || !names))
        rc = err_set(e, ERR_NOMEM, "importance matrix: out of memory");
    if (rc == 0)
        rc = gguf_meta_new(&meta, e);
    if (rc == 0)
        rc = fill_keys(m, meta, e);
    if (rc == 0)
        rc = fill_directory(m, t, names, e);
    if (rc == 0)
        rc = gguf_layout(meta, t, 2 * m->n, &file, &header_bytes, &file_bytes, e);
    if (rc)
        goto done;
    uint8_t *grown = realloc(file, file_bytes);
    if (!grown) {
        rc = err_set(e, ERR_NOMEM, "importance matrix of %" PRIu64 " bytes: out of memory", file_bytes);
        goto done;
    }
    file = grown;
    memset(file + header_bytes, 0, file_bytes - header_bytes);
    for (size_t i = 0; i < m->n && rc == 0; i++) {
        const struct imatrix_entry *x = m->entries[i];
        rc = put_numbers(file + t[2 * i].offset, x->sums, x->n_values, scale, x->name, e);
        if (rc == 0)
            rc = put_numbers(file + t[2 * i + 1].offset, x->counts, x->n_mats, scale, x->name, e);
    }
    if (rc)
        goto done;
    *data = file;
    *n = file_bytes;
    file = NULL;
done:
    free(file);
    gguf_meta_free(meta);
    free(names);
    free(t);
    return rc;
}
