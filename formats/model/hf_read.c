/* hf_read.c - rows of an output tensor, made from the rows of its sources while they are read.
 *
 * Gathering rows or columns, stacking, swapping the last two axes and the arithmetic of norms all happen
 * here, on the few rows asked for; nothing of full size is ever built. */
#include "hf_map.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Output rows that are gathered together, and source rows they may come from: 64 rows of a head of 128 come
 * from at most 96. */
enum { BATCH_ROWS = 64, SPAN_ROWS = 128 };

/* What one call works on: a source seen as a matrix of rows as long as its last axis. */
struct reading {
    const struct arch_model *a;
    const struct kern *k;
    const struct hf_tensor *t;
    float *scratch; /* SPAN_ROWS source rows (or all, when there are fewer); NULL without maps */
};

static int bad_map(const struct hf_tensor *t, struct err *e)
{
    return err_set(e, ERR_FORMAT, "tensor '%s': the sizes in config.json reach beyond '%s'", t->pub.name,
                   t->sources[0]->name);
}

/* Rows [row0, row0+n) of the swapped view of a [.., a, b] source: row r of matrix x is column r of the stored
 * matrix. The stored rows are read in pieces, so each byte is touched once per call. */
static int read_transposed(const struct reading *r, const struct checkpoint_weight *s, uint64_t row0,
                           uint64_t n, float *dst, struct err *e)
{
    uint64_t n_cols = s->shape[s->n_dims - 2]; /* of the view */
    uint64_t n_rows = s->shape[s->n_dims - 1];
    float *piece = malloc((n < n_rows ? n : n_rows) * sizeof *piece);
    if (!piece)
        return err_set(e, ERR_NOMEM, "out of memory: one row of '%s'", s->name);
    int rc = 0;
    while (rc == 0 && n != 0) {
        uint64_t matrix = row0 / n_rows, at = row0 % n_rows;
        uint64_t take = n < n_rows - at ? n : n_rows - at;
        for (uint64_t c = 0; rc == 0 && c < n_cols; c++) {
            rc = checkpoint_weight_read(s, r->k, (matrix * n_cols + c) * n_rows + at, take, piece, e);
            for (uint64_t i = 0; rc == 0 && i < take; i++)
                dst[i * n_cols + c] = piece[i];
        }
        dst += take * n_cols;
        row0 += take;
        n -= take;
    }
    free(piece);
    return rc;
}

/* Source rows [row0, row0+n), contiguous, before any gather. */
static int read_plain(const struct reading *r, const struct checkpoint_weight *s, uint64_t n_cols,
                      uint64_t row0, uint64_t n, float *dst, struct err *e)
{
    if (r->t->row->transpose)
        return read_transposed(r, s, row0, n, dst, e);
    return checkpoint_weight_read(s, r->k, row0 * n_cols, n * n_cols, dst, e);
}

/* Where output row `i` of a source comes from. */
static uint64_t checkpoint_weight_row(const struct reading *r, uint64_t i)
{
    return r->t->row->rows ? r->t->row->rows(r->a, i) : i;
}

/* Rows [*lo, *hi] of the source that hold output rows [row0, row0+n); false when one is not there. */
static bool find_span(const struct reading *r, uint64_t row0, uint64_t n, uint64_t n_src_rows, uint64_t *lo,
                      uint64_t *hi)
{
    *lo = UINT64_MAX;
    *hi = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t src = checkpoint_weight_row(r, row0 + i);
        *lo = src < *lo ? src : *lo;
        *hi = src > *hi ? src : *hi;
    }
    return *hi < n_src_rows;
}

/* One output row out of the source row that is in memory. */
static bool gather_cols(const struct reading *r, const float *src, uint64_t n_cols, float *dst)
{
    arch_map cols = r->t->row->cols;
    if (!cols) {
        memcpy(dst, src, n_cols * sizeof *dst);
        return true;
    }
    for (uint64_t c = 0; c < n_cols; c++) {
        uint64_t from = cols(r->a, c);
        if (from >= n_cols)
            return false;
        dst[c] = src[from];
    }
    return true;
}

/* Output rows of one source, `row0` counted within it. Maps move rows within a head or a block, so a batch
 * comes from a span of the source hardly longer than itself; packed weights are decoded much faster that way.
 */
static int read_from(const struct reading *r, const struct checkpoint_weight *s, uint64_t row0, uint64_t n,
                     float *dst, struct err *e)
{
    const struct arch_row *row = r->t->row;
    uint64_t n_cols = r->t->pub.ne[0];
    if (!row->rows && !row->cols)
        return read_plain(r, s, n_cols, row0, n, dst, e);
    uint64_t n_src_rows = s->n_elems / n_cols, lo, hi;
    int rc = 0;
    for (uint64_t k; rc == 0 && n != 0; row0 += k, n -= k, dst += k * n_cols) {
        k = n < BATCH_ROWS ? n : BATCH_ROWS;
        if (!find_span(r, row0, k, n_src_rows, &lo, &hi))
            return bad_map(r->t, e);
        if (hi - lo >= SPAN_ROWS) { /* scattered: one by one */
            k = 1;
            lo = hi = checkpoint_weight_row(r, row0);
        }
        rc = read_plain(r, s, n_cols, lo, hi - lo + 1, r->scratch, e);
        for (uint64_t i = 0; rc == 0 && i < k; i++)
            if (!gather_cols(r, r->scratch + (checkpoint_weight_row(r, row0 + i) - lo) * n_cols, n_cols,
                             dst + i * n_cols))
                return bad_map(r->t, e);
    }
    return rc;
}

/* Elements that lie near each other are read together. */
#define ELEMENTS_AT_ONCE 4096
#define ELEMENT_SPAN     (1u << 20)

/* n elements of the output from `first` on, n at most ELEMENTS_AT_ONCE, by their map. */
static int gather_elements(const struct reading *r, uint64_t first, uint64_t n, float *dst, struct err *e)
{
    const struct checkpoint_weight *s = r->t->sources[0];
    uint64_t lo = UINT64_MAX, hi = 0;
    int rc = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t from = r->t->row->rows(r->a, first + i);
        lo = from < lo ? from : lo;
        hi = from > hi ? from : hi;
    }
    if (hi >= s->n_elems)
        return bad_map(r->t, e);
    float *span = hi - lo < ELEMENT_SPAN ? malloc((hi - lo + 1) * sizeof *span) : NULL;
    if (span)
        rc = checkpoint_weight_read(s, r->k, lo, hi - lo + 1, span, e);
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        uint64_t from = r->t->row->rows(r->a, first + i);
        if (span)
            dst[i] = span[from - lo];
        else
            rc = checkpoint_weight_read(s, r->k, from, 1, &dst[i], e);
    }
    free(span);
    return rc;
}

/* A vector's elements move where a matrix's rows would: n of them from `first` on. */
static int read_elements(const struct reading *r, uint64_t first, uint64_t n, float *dst, struct err *e)
{
    int rc = 0;
    if (!r->t->row->rows)
        return checkpoint_weight_read(r->t->sources[0], r->k, first, n, dst, e);
    for (uint64_t k; rc == 0 && n != 0; first += k, n -= k, dst += k) {
        k = n < ELEMENTS_AT_ONCE ? n : ELEMENTS_AT_ONCE;
        rc = gather_elements(r, first, k, dst, e);
    }
    return rc;
}

static void apply_op(enum arch_op op, float *x, uint64_t n)
{
    if (op == ARCH_ADD_ONE)
        for (uint64_t i = 0; i < n; i++)
            x[i] += 1.0f;
    else if (op == ARCH_NEG_EXP)
        for (uint64_t i = 0; i < n; i++)
            x[i] = -expf(x[i]);
    else if (op == ARCH_EXP || op == ARCH_INV_EXP)
        for (uint64_t i = 0; i < n; i++) {
            float y = (float)exp((double)x[i]); /* rounded once, on every machine */
            x[i] = op == ARCH_EXP ? y : 1.0f / (y + 1e-9f);
        }
}

static int divide_rows(const struct reading *r, uint64_t row0, uint64_t n, float *dst, struct err *e)
{
    uint64_t n_cols = r->t->pub.ne[0], per_source = r->t->pub.n_rows / r->t->n_sources;
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < n; i++, dst += n_cols) {
        float by;
        rc = checkpoint_weight_read(r->t->with[(row0 + i) / per_source], r->k, (row0 + i) % per_source, 1,
                                    &by, e);
        by = rc == 0 && by < 1e-5f ? 1e-5f : by;
        for (uint64_t c = 0; rc == 0 && c < n_cols; c++)
            dst[c] /= by;
    }
    return rc;
}

static void pad_rows(const struct hf_tensor *t, uint64_t row0, uint64_t n, float *dst)
{
    uint64_t n_cols = t->pub.ne[0], n_real = t->sources[0]->n_elems / n_cols;
    for (uint64_t i = 0; i < n; i++)
        if (row0 + i >= n_real)
            memset(dst + i * n_cols, 0, n_cols * sizeof *dst);
}

int hf_read_rows(const struct arch_model *a, const struct kern *k, const struct hf_tensor *t, uint64_t row0,
                 uint64_t n, float *dst, struct err *e)
{
    uint64_t n_cols = t->pub.ne[0];
    if (t->computed) {
        memcpy(dst, t->computed + row0 * n_cols, n * n_cols * sizeof *dst);
        return 0;
    }
    if (t->row->op == ARCH_FOLD)
        return hf_fold_rows(k, t, row0, n, dst, e);
    struct reading r = {.a = a, .k = k, .t = t};
    bool by_element = t->pub.n_dims <= 1 || t->row->by_element;
    if ((t->row->rows || t->row->cols) && !by_element) {
        uint64_t n_rows = t->sources[0]->n_elems / n_cols;
        r.scratch = malloc((n_rows < SPAN_ROWS ? n_rows : SPAN_ROWS) * n_cols * sizeof *r.scratch);
        if (!r.scratch)
            return err_set(e, ERR_NOMEM, "out of memory: rows of '%s'", t->pub.name);
    }
    int rc = 0;
    if (by_element) {
        rc = read_elements(&r, row0 * n_cols, n * n_cols, dst, e);
    } else {
        uint64_t per_source = t->pub.n_rows / t->n_sources, done = 0;
        while (rc == 0 && done < n) {
            uint64_t at = row0 + done, in_source = at % per_source;
            uint64_t take = per_source - in_source < n - done ? per_source - in_source : n - done;
            rc = read_from(&r, t->sources[at / per_source], in_source, take, dst + done * n_cols, e);
            done += take;
        }
    }
    if (rc == 0 && t->row->op == ARCH_PAD_ROWS)
        pad_rows(t, row0, n, dst);
    else if (rc == 0 && t->row->op == ARCH_DIVIDE)
        rc = divide_rows(&r, row0, n, dst, e);
    else if (rc == 0 && !(t->row->op == ARCH_ADD_ONE && a->has_ones))
        apply_op(t->row->op, dst, n * n_cols);
    free(r.scratch);
    return rc;
}

/* Does the map of the columns, if there is one, move them `n` at a time? */
static bool moves_whole(const struct arch_model *a, const struct hf_tensor *t, uint64_t n)
{
    for (uint64_t c = 0; t->row->cols && c < t->pub.ne[0]; c++) {
        uint64_t first = t->row->cols(a, c / n * n);
        if (first % n != 0 || first + n > t->pub.ne[0] || t->row->cols(a, c) != first + c % n)
            return false;
    }
    return true;
}

bool hf_block_type(const struct arch_model *a, const struct hf_tensor *t, enum qtype *type)
{
    if (t->computed || t->pub.n_dims < 2 || t->pub.always_f32 || t->row->transpose || t->row->by_element ||
        t->row->op != ARCH_KEEP)
        return false;
    for (size_t j = 0; j < t->n_sources; j++) {
        enum qtype one;
        const struct checkpoint_weight *s = t->sources[j];
        if (!s->packed || !hf_packed_block_type(s->packed, &one) || (j > 0 && one != *type))
            return false;
        if (!hf_packed_is_names(s->packed) && (s->n_dims == 0 || s->shape[s->n_dims - 1] != t->pub.ne[0]))
            return false;
        *type = one;
    }
    return t->n_sources != 0 && moves_whole(a, t, qtype_info(*type)->block_elems);
}

/* Blocks of one row in the order of the output's columns. */
static void gather_blocks(const struct arch_model *a, const struct hf_tensor *t, const uint8_t *src,
                          uint8_t *dst)
{
    const struct qtype_info *info = qtype_info(t->pub.type);
    for (uint64_t c = 0; c < t->pub.ne[0]; c += info->block_elems, dst += info->block_bytes)
        memcpy(dst, src + t->row->cols(a, c) / info->block_elems * info->block_bytes, info->block_bytes);
}

int hf_read_blocks(const struct arch_model *a, const struct hf_tensor *t, uint64_t row0, uint64_t n,
                   uint8_t *dst, struct err *e)
{
    uint64_t per_source = t->pub.n_rows / t->n_sources, row_bytes = t->pub.n_bytes / t->pub.n_rows;
    bool one_by_one = t->row->rows || t->row->cols;
    uint8_t *row = t->row->cols ? malloc(row_bytes) : NULL;
    int rc = t->row->cols && !row ? err_set(e, ERR_NOMEM, "out of memory: one row of '%s'", t->pub.name) : 0;
    for (uint64_t k; rc == 0 && n != 0; row0 += k, n -= k, dst += k * row_bytes) {
        const struct checkpoint_weight *s = t->sources[row0 / per_source];
        uint64_t at = row0 % per_source, left = per_source - at;
        k = one_by_one ? 1 : n < left ? n : left;
        if (t->row->rows)
            at = t->row->rows(a, at);
        if (at + k > s->n_elems / t->pub.ne[0])
            rc = bad_map(t, e);
        else
            rc = hf_packed_read_blocks(s->packed, at, k, row ? row : dst, e);
        if (rc == 0 && row)
            gather_blocks(a, t, row, dst);
    }
    free(row);
    return rc;
}

void hf_hint_rows(const struct hf_tensor *t, uint64_t row0, uint64_t n, bool want)
{
    if (t->computed)
        return;
    if (t->row->op == ARCH_FOLD) /* a row for each; those of the parts are small, or of the last file */
        return checkpoint_weight_hint(t->sources[0], row0 * t->sources[0]->shape[1],
                                      n * t->sources[0]->shape[1], want);
    uint64_t n_cols = t->pub.ne[0], per_source = t->pub.n_rows / t->n_sources;
    bool scattered = t->row->rows || t->row->cols || t->row->transpose;
    for (uint64_t done = 0; done < n;) {
        uint64_t at = row0 + done, in_source = at % per_source;
        uint64_t take = per_source - in_source < n - done ? per_source - in_source : n - done;
        const struct checkpoint_weight *s = t->sources[at / per_source];
        if (!scattered)
            checkpoint_weight_hint(s, in_source * n_cols, take * n_cols, want);
        else if (want ? in_source == 0 : in_source + take == per_source)
            checkpoint_weight_hint(s, 0, s->n_elems,
                                   want); /* rows come from all over: announce first, drop last */
        done += take;
    }
}
