/* imatrix_dat.c - the legacy form of importance matrices: little-endian, no magic (specification,
 * calibration-and-evaluation 2.1).
 *
 *     i32 n_entries; then for each: i32 len, name, i32 ncall, i32 nval, f32 value[nval]
 *     optionally: i32 last_chunk, i32 len, name of the data set
 *
 * value = S / C * ncall, where ncall is the number of chunks. Reading keeps value and ncall as they are (sum
 * and count in chunks), so that writing gives the same numbers again. */
#include "formats/foreign.h"
#include "formats/utf8.h"
#include "imatrix_internal.h"
#include "libquant/base/slice.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIN_ENTRY_BYTES (4 + 1 + 4 + 4 + 4)

/* --- reading --- */

struct dat_in {
    const uint8_t *data;
    size_t len, pos;
    const char *what;
};

static int cut_short(const struct dat_in *in, const char *part, struct err *e)
{
    return err_set(e, ERR_FORMAT,
                   "%s: not an importance matrix, or cut short: %s at byte %zu goes beyond the end", in->what,
                   part, in->pos);
}

static int take_i32(struct dat_in *in, const char *part, int32_t *out, struct err *e)
{
    *out = 0;
    if (in->len - in->pos < 4)
        return cut_short(in, part, e);
    *out = (int32_t)load_u32(in->data + in->pos);
    in->pos += 4;
    return 0;
}

/* A length and that many bytes, which stay in place. */
static int take_text(struct dat_in *in, const char *part, const char **text, size_t *len, struct err *e)
{
    int32_t n;
    int rc = take_i32(in, part, &n, e);
    if (rc)
        return rc;
    if (n < 0 || (size_t)n > in->len - in->pos)
        return cut_short(in, part, e);
    *text = (const char *)in->data + in->pos;
    *len = (size_t)n;
    in->pos += (size_t)n;
    return memchr(*text, 0, *len)
               ? err_set(e, ERR_FORMAT, "%s: %s before byte %zu contains a NUL", in->what, part, in->pos)
               : 0;
}

static int take_entry(struct dat_in *in, struct imatrix *m, int32_t index, struct err *e)
{
    const char *name = NULL;
    size_t name_len = 0;
    int32_t n_calls, n_values;
    struct imatrix_entry *x;
    int rc = take_text(in, "the name of an entry", &name, &name_len, e);
    if (rc)
        return rc;
    if (name_len == 0 || !utf8_valid(name, name_len))
        return err_set(e, ERR_FORMAT, "%s: not an importance matrix: entry %" PRId32 " has no UTF-8 name",
                       in->what, index);
    if (strmap_find(&m->by_name, name, name_len, NULL))
        return err_set(e, ERR_FORMAT, "%s: duplicate entry '%.*s'", in->what, (int)name_len, name);
    rc = take_i32(in, "the number of calls", &n_calls, e);
    if (rc == 0)
        rc = take_i32(in, "the number of values", &n_values, e);
    if (rc)
        return rc;
    if (n_calls < 0 || n_values < 1)
        return err_set(e, ERR_FORMAT, "%s: entry '%.*s': %" PRId32 " calls and %" PRId32 " values", in->what,
                       (int)name_len, name, n_calls, n_values);
    if ((size_t)n_values > (in->len - in->pos) / 4)
        return cut_short(in, "the values of an entry", e);
    rc = imatrix_append(m, name, name_len, (uint64_t)n_values, 1, &x, e);
    if (rc)
        return rc;
    for (int32_t k = 0; k < n_values; k++) {
        float v = load_f32(in->data + in->pos + 4 * (size_t)k);
        if (!isfinite(v) || v < 0)
            return err_set(e, ERR_FORMAT,
                           "%s: entry '%s': value %" PRId32 " is %g; expected a finite number >= 0", in->what,
                           x->name, k, (double)v);
        x->sums[k] = v;
    }
    in->pos += 4 * (size_t)n_values;
    x->counts[0] = n_calls ? n_calls : 1; /* readers take the values of 0 calls as they are */
    return 0;
}

static int take_trailer(struct dat_in *in, struct imatrix *m, struct err *e)
{
    int32_t n_chunks;
    const char *name = NULL;
    size_t len = 0;
    m->chunk_count = (uint32_t)imatrix_max_count(m);
    if (in->pos == in->len)
        return 0; /* older files have none */
    int rc = take_i32(in, "the number of chunks", &n_chunks, e);
    if (rc == 0)
        rc = take_text(in, "the name of the data set", &name, &len, e);
    if (rc)
        return rc;
    if (n_chunks < 0 || in->pos != in->len)
        return err_set(e, ERR_FORMAT, "%s: %" PRId32 " chunks, and %zu trailing bytes", in->what, n_chunks,
                       in->len - in->pos);
    m->chunk_count = (uint32_t)n_chunks;
    return len ? imatrix_add_dataset_n(m, name, len, e) : 0;
}

int imatrix_parse_dat(struct imatrix *m, const void *data, size_t len, const char *what, struct err *e)
{
    struct dat_in in = {.data = data, .len = len, .what = what};
    int32_t n_entries;
    int rc = foreign_refuse(what, data, len, FOREIGN_TEXT, "an importance matrix", e);
    if (rc == 0)
        rc = take_i32(&in, "the number of entries", &n_entries, e);
    if (rc)
        return rc;
    if (n_entries < 1 || (size_t)n_entries > (len - in.pos) / MIN_ENTRY_BYTES)
        return err_set(e, ERR_FORMAT, "%s: not an importance matrix: %" PRId32 " entries in %zu bytes", what,
                       n_entries, len);
    m->counts_are_chunks = true;
    for (int32_t i = 0; i < n_entries && rc == 0; i++)
        rc = take_entry(&in, m, i, e);
    return rc ? rc : take_trailer(&in, m, e);
}

/* --- writing --- */

struct dat_out {
    uint8_t *data;
    size_t pos;
};

static void put(struct dat_out *o, const void *p, size_t n)
{
    memcpy(o->data + o->pos, p, n);
    o->pos += n;
}

static void put_i32(struct dat_out *o, int32_t v)
{
    put(o, &v, sizeof v);
}

static double largest_count(const struct imatrix_entry *x)
{
    double max = 0;
    for (uint64_t k = 0; k < x->n_mats; k++)
        max = x->counts[k] > max ? x->counts[k] : max;
    return max;
}

/* Chunks that the fullest matrix of the entry has seen, rounded up so that data never counts as none. */
static double n_calls(const struct imatrix *m, const struct imatrix_entry *x)
{
    double chunk = m->counts_are_chunks ? 1 : m->chunk_size ? m->chunk_size : IMATRIX_DEFAULT_CHUNK;
    return ceil(largest_count(x) / chunk);
}

/* In float32 as the peer computes it; what came from a legacy file with its one count goes back unchanged. */
static float stored_value(const struct imatrix *m, const struct imatrix_entry *x, uint64_t q, float calls)
{
    float sum = (float)x->sums[q], count = (float)x->counts[q / (x->n_values / x->n_mats)];
    if (m->counts_are_chunks && x->n_mats == 1)
        return sum;
    return count > 0 ? sum / count * calls : calls;
}

static int put_entry(struct dat_out *o, const struct imatrix *m, const struct imatrix_entry *x, struct err *e)
{
    float calls = (float)n_calls(m, x);
    put_i32(o, (int32_t)strlen(x->name));
    put(o, x->name, strlen(x->name));
    put_i32(o, (int32_t)calls);
    put_i32(o, (int32_t)x->n_values);
    for (uint64_t q = 0; q < x->n_values; q++) {
        float v = stored_value(m, x, q, calls);
        if (!isfinite(v))
            return err_set(e, ERR_ARG, "importance of '%s': value %" PRIu64 " does not fit a float32",
                           x->name, q);
        put(o, &v, sizeof v);
    }
    return 0;
}

int imatrix_build_dat(const struct imatrix *m, void **data, size_t *n, struct err *e)
{
    size_t total = 12, n_entries = 0;
    const char *dataset = m->n_datasets ? m->datasets[m->n_datasets - 1] : "";
    for (size_t i = 0; i < m->n; i++) {
        const struct imatrix_entry *x = m->entries[i];
        if (largest_count(x) <= 0)
            continue;
        if (x->n_values > INT32_MAX || n_calls(m, x) > 1 << 24)
            return err_set(e, ERR_ARG, "importance of '%s': too large for the legacy form; save as .gguf",
                           x->name);
        total += 12 + strlen(x->name) + 4 * x->n_values;
        n_entries++;
    }
    if (m->chunk_count > INT32_MAX || strlen(dataset) > INT32_MAX)
        return err_set(e, ERR_ARG,
                       "chunk count or data set name too large for the legacy form; save as .gguf");
    if (n_entries == 0 || n_entries > INT32_MAX)
        return err_set(e, ERR_ARG, "no importance data to write");
    total += strlen(dataset);
    struct dat_out o = {.data = malloc(total)};
    if (!o.data)
        return err_set(e, ERR_NOMEM, "importance matrix of %zu bytes: out of memory", total);
    put_i32(&o, (int32_t)n_entries);
    int rc = 0;
    for (size_t i = 0; i < m->n && rc == 0; i++)
        if (largest_count(m->entries[i]) > 0)
            rc = put_entry(&o, m, m->entries[i], e);
    put_i32(&o, (int32_t)m->chunk_count);
    put_i32(&o, (int32_t)strlen(dataset));
    put(&o, dataset, strlen(dataset));
    if (rc) {
        free(o.data);
        return rc;
    }
    *data = o.data;
    *n = o.pos;
    return 0;
}
