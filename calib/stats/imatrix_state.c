/* imatrix_state.c - the state of an unfinished collection as a file, see imatrix_sums.h.
 *
 * Tensor 2i holds the sums of entry i, tensor 2i+1 its counts; names are kept in string arrays of the
 * metadata, as they may be longer than a tensor's name. The last tensor holds the log-likelihoods. A SHA-256
 * of everything tells a damaged file from a good one: a run may go on for days on it. */
#include "imatrix_sums.h"

#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"
#include "formats/output/output_file.h"
#include "libquant/base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATE_TYPE "kerf-imatrix-state"
#define MAX_NAMES  64 /* tensors that share an input */

struct state_parts {
    struct gguf_out_tensor *tensors;
    const double **data;
    char (*names)[24];
    size_t n;
};

static void hash_text(struct sha256 *h, const char *s)
{
    sha256_update(h, s, strlen(s) + 1);
}

static void checksum(const struct imatrix_sums *s, const struct imatrix_state *state, char out[65])
{
    struct sha256 h;
    sha256_init(&h);
    hash_text(&h, state->identity);
    sha256_update_u64(&h, state->n_windows);
    sha256_update_u64(&h, state->n_nll);
    sha256_update(&h, state->nll, state->n_nll * sizeof *state->nll);
    for (size_t i = 0; i < s->n; i++) {
        const struct sums_entry *x = &s->entries[i];
        hash_text(&h, x->name);
        sha256_update_u64(&h, x->n_others);
        for (size_t k = 0; k < x->n_others; k++)
            hash_text(&h, x->others[k]);
        sha256_update_u64(&h, x->n_cols);
        sha256_update_u64(&h, x->n_mats);
        sha256_update(&h, x->sums, (size_t)(x->n_mats * x->n_cols) * sizeof *x->sums);
        sha256_update(&h, x->counts, (size_t)x->n_mats * sizeof *x->counts);
    }
    sha256_final_hex(&h, out);
}

static void add_part(struct state_parts *p, const double *data, uint64_t n_cols, uint64_t n_rows)
{
    snprintf(p->names[p->n], sizeof p->names[p->n], "t%zu", p->n);
    p->tensors[p->n] = (struct gguf_out_tensor){
        .name = p->names[p->n], .type = QTYPE_F64, .n_dims = 2, .ne = {n_cols, n_rows, 1, 1}};
    p->data[p->n++] = data;
}

static int state_meta(struct gguf_meta **out, const struct imatrix_sums *s, const struct imatrix_state *state,
                      struct err *e)
{
    struct gguf_meta *m;
    char sum[65];
    int rc = gguf_meta_new(&m, e);
    if (rc != 0)
        return rc;
    checksum(s, state, sum);
    rc = gguf_meta_set_string(m, "general.type", STATE_TYPE, e);
    if (rc == 0)
        rc = gguf_meta_set_string(m, "state.sha256", sum, e);
    if (rc == 0)
        rc = gguf_meta_set_string(m, "state.identity", state->identity, e);
    if (rc == 0)
        rc = gguf_meta_set_u64(m, "state.windows", state->n_windows, e);
    if (rc == 0)
        rc = gguf_meta_set_u64(m, "state.scored", state->n_nll, e);
    for (size_t i = 0; rc == 0 && i < s->n; i++) {
        const struct sums_entry *x = &s->entries[i];
        struct gguf_string *names = calloc(x->n_others + 1, sizeof *names);
        char key[40];
        snprintf(key, sizeof key, "state.names.%zu", i);
        if (!names) {
            rc = imatrix_sums_no_memory(x->name, e);
            break;
        }
        names[0] = (struct gguf_string){x->name, strlen(x->name)};
        for (size_t k = 0; k < x->n_others; k++)
            names[k + 1] = (struct gguf_string){x->others[k], strlen(x->others[k])};
        rc = gguf_meta_set_strings(m, key, names, x->n_others + 1, e);
        free(names);
    }
    if (rc != 0)
        gguf_meta_free(m);
    else
        *out = m;
    return rc;
}

static int write_parts(const char *path, const struct state_parts *p, const uint8_t *header,
                       size_t header_bytes, uint64_t file_bytes, struct err *e)
{
    struct output_file *f;
    int rc = output_file_open(&f, path,
                              &(struct output_file_options){.overwrite = true, .size_bytes = file_bytes}, e);
    if (rc != 0)
        return rc;
    rc = output_file_write_at(f, 0, header, header_bytes, e);
    for (size_t i = 0; rc == 0 && i < p->n; i++)
        rc = output_file_write_at(f, p->tensors[i].offset, p->data[i], (size_t)p->tensors[i].n_bytes, e);
    if (rc != 0) {
        output_file_abort(f);
        return rc;
    }
    return output_file_commit(f, file_bytes, e);
}

int imatrix_state_save(const char *path, const struct imatrix_sums *s, const struct imatrix_state *state,
                       struct err *e)
{
    static const double nothing;
    size_t n_max = 2 * s->n + 1;
    struct state_parts p = {.tensors = calloc(n_max, sizeof *p.tensors),
                            .data = calloc(n_max, sizeof *p.data),
                            .names = calloc(n_max, sizeof *p.names)};
    struct gguf_meta *meta = NULL;
    uint8_t *header = NULL;
    size_t header_bytes = 0;
    uint64_t file_bytes = 0;
    int rc = p.tensors && p.data && p.names ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (rc == 0) {
        for (size_t i = 0; i < s->n; i++) {
            add_part(&p, s->entries[i].sums, s->entries[i].n_cols, s->entries[i].n_mats);
            add_part(&p, s->entries[i].counts, s->entries[i].n_mats, 1);
        }
        add_part(&p, state->n_nll ? state->nll : &nothing, state->n_nll ? state->n_nll : 1, 1);
        rc = state_meta(&meta, s, state, e);
    }
    if (rc == 0)
        rc = gguf_layout(meta, p.tensors, p.n, &header, &header_bytes, &file_bytes, e);
    if (rc == 0)
        rc = write_parts(path, &p, header, header_bytes, file_bytes, e);
    free(header);
    gguf_meta_free(meta);
    free(p.tensors);
    free(p.data);
    free(p.names);
    return rc;
}

static bool is_f64(const struct gguf_tensor *t, uint64_t n_cols, uint64_t n_rows)
{
    return t->type == QTYPE_F64 && t->ne[0] == n_cols && t->ne[1] == n_rows && t->ne[2] == 1 && t->ne[3] == 1;
}

static int load_entry(struct imatrix_sums *s, const struct gguf_reader *r, size_t i, struct err *e)
{
    char key[40];
    snprintf(key, sizeof key, "state.names.%zu", i);
    const struct gguf_value *v = gguf_meta_find(gguf_reader_meta(r), key);
    const struct gguf_tensor *sums = gguf_reader_tensor(r, 2 * i), *counts = gguf_reader_tensor(r, 2 * i + 1);
    if (!v || v->type != GGUF_ARRAY || v->a.elem != GGUF_STRING || v->a.n == 0 || v->a.n > MAX_NAMES ||
        !is_f64(sums, sums->ne[0], sums->ne[1]) || !is_f64(counts, sums->ne[1], 1))
        return err_set(e, ERR_FORMAT, "entry %zu is damaged", i);
    const struct gguf_string *names = v->a.data;
    char *first = arena_strndup(&s->arena, names[0].data, (size_t)names[0].len);
    struct sums_entry *x;
    uint64_t at;
    if (!first)
        return imatrix_sums_no_memory(key, e);
    if (strmap_find(&s->by_name, first, strlen(first), &at))
        return err_set(e, ERR_FORMAT, "duplicate entry %zu", i);
    int rc = imatrix_sums_add(s, first, sums->ne[0], sums->ne[1], (size_t)v->a.n - 1, &x, e);
    for (size_t k = 0; rc == 0 && k + 1 < v->a.n; k++)
        if (!(x->others[k] = arena_strndup(&s->arena, names[k + 1].data, (size_t)names[k + 1].len)))
            rc = imatrix_sums_no_memory(key, e);
    if (rc == 0) {
        memcpy(x->sums, sums->data, (size_t)sums->n_bytes);
        memcpy(x->counts, counts->data, (size_t)counts->n_bytes);
    }
    return rc;
}

static int load_state(const struct gguf_reader *r, struct imatrix_sums *s, struct imatrix_state *state,
                      size_t max_nll, struct err *e)
{
    const struct gguf_meta *m = gguf_reader_meta(r);
    struct gguf_string want;
    uint64_t n_windows, n_nll;
    char sum[65];
    size_t n = gguf_reader_n_tensors(r);
    if (!gguf_meta_get_u64(m, "state.windows", &n_windows) || !gguf_meta_get_u64(m, "state.scored", &n_nll) ||
        n % 2 == 0 || n_nll > max_nll || !gguf_meta_get_string(m, "state.sha256", &want))
        return err_set(e, ERR_FORMAT, "the state is damaged");
    const struct gguf_tensor *nll = gguf_reader_tensor(r, n - 1);
    if (!is_f64(nll, n_nll ? n_nll : 1, 1))
        return err_set(e, ERR_FORMAT, "the log-likelihoods are damaged");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n / 2; i++)
        rc = load_entry(s, r, i, e);
    if (rc != 0)
        return rc;
    if (n_nll)
        memcpy(state->nll, nll->data, (size_t)n_nll * sizeof(double));
    state->n_windows = n_windows;
    state->n_nll = (size_t)n_nll;
    checksum(s, state, sum);
    return gguf_string_is(want, sum) ? 0 : err_set(e, ERR_FORMAT, "the checksum is wrong");
}

/* Closes the reader. */
static int take(struct gguf_reader *r, const char *what, struct imatrix_sums *s, struct imatrix_state *state,
                size_t max_nll, struct err *e)
{
    struct gguf_string type, id;
    const struct gguf_meta *m = gguf_reader_meta(r);
    int rc;
    if (!gguf_meta_get_string(m, "general.type", &type) || !gguf_string_is(type, STATE_TYPE) ||
        !gguf_meta_get_string(m, "state.identity", &id))
        rc = err_set(e, ERR_FORMAT, "expected the state of a collection, found another GGUF file");
    else if (!gguf_string_is(id, state->identity))
        rc = err_set(e, ERR_ARG,
                     "%s: the state of an earlier run with another model, text or options; start again "
                     "without --resume",
                     what);
    else
        rc = load_state(r, s, state, max_nll, e);
    if (rc == ERR_FORMAT)
        err_context(e, rc, "%s: the state of an earlier run; remove it to start again", what);
    gguf_reader_close(r);
    return rc;
}

int imatrix_state_load_memory(const void *data, size_t n_bytes, struct imatrix_sums *s,
                              struct imatrix_state *state, size_t max_nll, struct err *e)
{
    struct gguf_reader *r;
    int rc = gguf_reader_open_memory(&r, data, n_bytes, "state", NULL, e);
    return rc == 0 ? take(r, "state", s, state, max_nll, e) : rc;
}

int imatrix_state_load(const char *path, struct imatrix_sums *s, struct imatrix_state *state, size_t max_nll,
                       bool *found, struct err *e)
{
    struct gguf_reader *r;
    *found = false;
    if (access(path, F_OK) != 0)
        return 0;
    int rc = gguf_reader_open(&r, path, &(struct gguf_read_options){.single_part = true}, e);
    if (rc != 0)
        return err_context(e, rc, "the state of an earlier run; remove it to start again");
    rc = take(r, path, s, state, max_nll, e);
    *found = rc == 0;
    return rc;
}
