/* weights.c - see weights.h. */
#include "weights.h"

#include "formats/gguf/imatrix_file.h"
#include "libquant/base/arena.h"
#include "libquant/base/checked.h"
#include "libquant/base/strmap.h"
#include "libquant/quant.h"

#include <stdlib.h>
#include <string.h>

#define ENCODE_FLOATS (1u << 20) /* source values one encode job holds */

struct slot {
    const struct model_tensor *t;
    enum qtype type;
    bool encode;          /* rows differ from the stored ones */
    uint8_t *blocks;      /* all rows in `type` while loaded; owned */
    const uint8_t *given; /* all rows in `type`, from the caller; or NULL */
    float *importance;    /* [n_mats, ne0] while loaded, or NULL; owned */
    const struct imatrix_entry *entry;
    const struct weights *lender; /* of a view: who reads the rows, as those of `lent` */
    const struct model_tensor *lent;
};

struct weights {
    const struct model *m;
    const struct kern *kern;
    bool mix, has_given, view;
    size_t n_slots;
    struct slot *slots;
    struct strmap by_name;
    size_t *loaded; /* indices of loaded slots */
    size_t n_loaded;
    uint64_t n_bytes, n_parameters;
};

static struct slot *slot_of(const struct weights *w, const struct model_tensor *t)
{
    uint64_t i = 0;
    bool found = strmap_find(&w->by_name, t->name, strlen(t->name), &i);
    return found ? &w->slots[i] : NULL;
}

int weights_new(struct weights **out, const struct model *m, const struct kern *kern, struct err *e)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "out of memory for the list of tensors");
    w->m = m;
    w->kern = kern ? kern : kern_native();
    w->n_slots = model_n_tensors(m);
    w->slots = calloc(w->n_slots + 1, sizeof *w->slots);
    w->loaded = calloc(w->n_slots + 1, sizeof *w->loaded);
    int rc = w->slots && w->loaded ? strmap_reserve(&w->by_name, w->n_slots) : ERR_NOMEM;
    for (size_t i = 0; rc == 0 && i < w->n_slots; i++) {
        const struct model_tensor *t = model_tensor(m, i);
        w->slots[i] = (struct slot){.t = t, .type = t->type};
        w->n_bytes += t->n_bytes;
        w->n_parameters += t->n_rows * t->ne[0];
        rc = strmap_put(&w->by_name, t->name, strlen(t->name), i, NULL);
    }
    if (rc != 0) {
        weights_free(w);
        return err_set(e, ERR_NOMEM, "out of memory for the list of tensors");
    }
    *out = w;
    return 0;
}

/* Give each slot the type the recipe assigns. */
static int assign_types(struct weights *w, const struct recipe_options *recipe, const struct imatrix *imatrix,
                        bool requantize, struct err *e)
{
    struct recipe_tensor *list = calloc(w->n_slots + 1, sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory for the recipe");
    for (size_t i = 0; i < w->n_slots; i++) {
        const struct model_tensor *t = w->slots[i].t;
        list[i] = (struct recipe_tensor){.name = t->name,
                                         .n_dims = t->n_dims,
                                         .ne = {t->ne[0], t->ne[1], t->ne[2], t->ne[3]},
                                         .source_type = model_source_type(t),
                                         .always_f32 = t->always_f32};
        w->slots[i].entry = imatrix ? imatrix_find_for(imatrix, t->name) : NULL;
        list[i].has_importance = w->slots[i].entry != NULL;
    }
    int rc = recipe_assign(recipe, model_hparams(w->m), list, w->n_slots, false, e);
    w->n_bytes = 0;
    for (size_t i = 0; rc == 0 && i < w->n_slots; i++) {
        struct slot *s = &w->slots[i];
        uint64_t row_bytes = 0;
        s->type = list[i].type;
        s->encode = s->type != s->t->type;
        if (!qtype_row_bytes(s->type, s->t->ne[0], &row_bytes))
            rc = err_set(e, ERR_ARG, "tensor '%s': rows of %llu values do not divide into %s blocks",
                         s->t->name, (unsigned long long)s->t->ne[0], qtype_name(s->type));
        else if (s->encode && !requantize && qtype_info(model_source_type(s->t))->is_quantized)
            rc = err_set(e, ERR_ARG,
                         "tensor '%s' is quantized already (%s); a mix measured on top of it would add both "
                         "errors: start from the F32, F16 or BF16 model, or pass --allow-requantize",
                         s->t->name, s->t->source_type);
        else if (s->encode && quant_has_factor(s->type))
            rc = err_set(e, ERR_UNSUPPORTED,
                         "tensor '%s': %s needs a factor beside its blocks, which only a file has; write it "
                         "with 'kerf quantize' and measure that",
                         s->t->name, qtype_name(s->type));
        w->n_bytes += row_bytes * s->t->n_rows;
    }
    free(list);
    return rc;
}

int weights_new_mix(struct weights **out, const struct model *m, const struct recipe_options *recipe,
                    const struct imatrix *imatrix, bool requantize, const struct kern *kern, struct err *e)
{
    struct weights *w = NULL;
    int rc = weights_new(&w, m, kern, e);
    if (rc != 0)
        return rc;
    w->mix = true;
    rc = assign_types(w, recipe, imatrix, requantize, e);
    if (rc != 0) {
        weights_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

int weights_new_view(struct weights **out, const struct weights *base, struct err *e)
{
    struct weights *w = NULL;
    int rc = weights_new(&w, base->m, base->kern, e);
    if (rc != 0)
        return rc;
    w->view = true;
    w->mix = base->mix;
    w->n_bytes = base->n_bytes;
    for (size_t i = 0; i < w->n_slots; i++) {
        w->slots[i].type = base->slots[i].type;
        w->slots[i].lender = base;
        w->slots[i].lent = w->slots[i].t;
    }
    *out = w;
    return 0;
}

int weights_lend(struct weights *view, const struct model_tensor *t, const struct weights *from,
                 const struct model_tensor *of, struct err *e)
{
    struct slot *s = slot_of(view, t);
    if (!s || !view->view || memcmp(t->ne, of->ne, sizeof t->ne) != 0)
        return err_set(e, ERR_ARG, "tensor '%s': cannot take the rows of '%s' of %s", t->name, of->name,
                       model_path(from->m));
    s->type = weights_type(from, of);
    s->lender = from;
    s->lent = of;
    return 0;
}

void weights_free(struct weights *w)
{
    if (!w)
        return;
    weights_unload(w);
    strmap_release(&w->by_name);
    free(w->slots);
    free(w->loaded);
    free(w);
}

int weights_set_blocks(struct weights *w, const struct model_tensor *t, enum qtype type,
                       const uint8_t *blocks, struct err *e)
{
    struct slot *s = slot_of(w, t);
    uint64_t row_bytes = 0, before = 0;
    if (!s || !qtype_row_bytes((uint32_t)type, t->ne[0], &row_bytes))
        return err_set(e, ERR_ARG, "tensor '%s': takes no blocks of %s", t->name, qtype_name((uint32_t)type));
    qtype_row_bytes((uint32_t)s->type, t->ne[0], &before);
    w->n_bytes += (row_bytes - before) * t->n_rows;
    s->type = type;
    s->given = blocks;
    w->has_given = true;
    return 0;
}

const struct model *weights_model(const struct weights *w)
{
    return w->m;
}

const struct kern *weights_kern(const struct weights *w)
{
    return w->kern;
}

enum qtype weights_type(const struct weights *w, const struct model_tensor *t)
{
    const struct slot *s = slot_of(w, t);
    return s ? s->type : t->type;
}

uint64_t weights_n_bytes(const struct weights *w)
{
    return w->n_bytes;
}

uint64_t weights_n_parameters(const struct weights *w)
{
    return w->n_parameters;
}

bool weights_encodes(const struct weights *w)
{
    return w->mix;
}

/* Rows per encode job: about a megabyte of floats, never across two matrices of a stack (their importance
 * differs). */
static uint64_t rows_per_job(const struct model_tensor *t)
{
    uint64_t n = ENCODE_FLOATS / (t->ne[0] ? t->ne[0] : 1);
    n = n ? n : 1;
    return n < t->ne[1] ? n : t->ne[1];
}

struct encode_run {
    const struct weights *w;
    struct slot *slot;
    uint64_t rows, per_mat; /* rows per job, jobs per matrix */
};

static int encode_rows(const struct weights *w, const struct slot *s, const float *importance, uint64_t row0,
                       uint64_t n, float *values, uint8_t *dst, uint64_t row_bytes, struct err *e)
{
    int rc = model_read_rows(w->m, s->t, row0, n, values, e);
    if (rc != 0)
        return rc;
    size_t n_values = (size_t)(n * s->t->ne[0]), bad = quant_find_bad(values, n_values, quant_limit(s->type));
    if (bad < n_values)
        return err_set(e, ERR_FORMAT, "tensor '%s', row %llu: value %g cannot be stored as %s", s->t->name,
                       (unsigned long long)(row0 + bad / s->t->ne[0]), (double)values[bad],
                       qtype_name(s->type));
    rc = quant_encode_informed(w->kern, s->type, values, dst, n * row_bytes, n, s->t->ne[0], importance, e);
    return rc == 0 ? 0 : err_context(e, rc, "tensor '%s'", s->t->name);
}

static int encode_job(void *ctx, size_t job, unsigned worker, struct err *e)
{
    (void)worker;
    const struct encode_run *r = ctx;
    const struct model_tensor *t = r->slot->t;
    uint64_t mat = job / r->per_mat, first = job % r->per_mat * r->rows;
    uint64_t n = t->ne[1] - first < r->rows ? t->ne[1] - first : r->rows, row0 = mat * t->ne[1] + first;
    uint64_t row_bytes = 0;
    qtype_row_bytes(r->slot->type, t->ne[0], &row_bytes);
    float *values = malloc((size_t)(n * t->ne[0] * sizeof(float)));
    if (!values)
        return err_set(e, ERR_NOMEM, "out of memory encoding tensor '%s'", t->name);
    const float *importance = r->slot->importance ? r->slot->importance + mat * t->ne[0] : NULL;
    int rc = encode_rows(r->w, r->slot, importance, row0, n, values, r->slot->blocks + row0 * row_bytes,
                         row_bytes, e);
    free(values);
    return rc;
}

static int load_importance(struct slot *s, struct err *e)
{
    if (!s->entry || qtype_info(s->type)->importance == IMPORTANCE_IGNORED)
        return 0;
    uint64_t n_mats = s->t->ne[2] * s->t->ne[3];
    s->importance = malloc((size_t)(n_mats * s->t->ne[0] * sizeof(float)));
    if (!s->importance)
        return err_set(e, ERR_NOMEM, "out of memory for the importance of '%s'", s->t->name);
    for (uint64_t i = 0; i < n_mats; i++) {
        int rc = imatrix_weights(s->entry, i, n_mats, s->t->ne[0], s->importance + i * s->t->ne[0], e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int load_slot(struct weights *w, struct slot *s, struct pool *pool, struct err *e)
{
    const struct model_tensor *t = s->t;
    if (s->given)
        return 0;
    if (!s->encode || s->blocks || t->n_rows == 0) {
        model_want_rows(w->m, t, 0, t->n_rows);
        return 0;
    }
    int rc = load_importance(s, e);
    if (rc != 0)
        return rc;
    uint64_t row_bytes = 0, n_bytes = 0;
    qtype_row_bytes(s->type, t->ne[0], &row_bytes);
    if (checked_mul(row_bytes, t->n_rows, &n_bytes))
        s->blocks = malloc((size_t)n_bytes);
    if (!s->blocks)
        return err_set(e, ERR_NOMEM, "out of memory for the blocks of '%s' (%llu bytes)", t->name,
                       (unsigned long long)n_bytes);
    struct encode_run run = {w, s, rows_per_job(t), 0};
    run.per_mat = (t->ne[1] + run.rows - 1) / run.rows;
    rc = pool_run(pool, (size_t)(run.per_mat * t->ne[2] * t->ne[3]), encode_job, &run, e);
    model_drop_rows(w->m, t, 0, t->n_rows);
    return rc;
}

int weights_load(struct weights *w, const struct model_tensor *const *list, size_t n, struct pool *pool,
                 struct err *e)
{
    for (size_t i = 0; !w->view && i < n; i++) {
        struct slot *s = list[i] ? slot_of(w, list[i]) : NULL;
        if (!s)
            continue;
        if (w->n_loaded < w->n_slots)
            w->loaded[w->n_loaded++] = (size_t)(s - w->slots);
        int rc = load_slot(w, s, pool, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

void weights_unload(struct weights *w)
{
    for (size_t i = 0; i < w->n_loaded; i++) {
        struct slot *s = &w->slots[w->loaded[i]];
        if (!s->blocks)
            model_drop_rows(w->m, s->t, 0, s->t->n_rows);
        free(s->blocks);
        free(s->importance);
        s->blocks = NULL;
        s->importance = NULL;
    }
    w->n_loaded = 0;
}

/* Encode and decode rows of a slot that is not loaded: matrix by matrix, since importance changes there. */
static int read_on_the_spot(const struct weights *w, const struct slot *s, uint64_t row0, uint64_t n,
                            float *dst, struct err *e)
{
    const struct model_tensor *t = s->t;
    uint64_t row_bytes = 0, n_mats = t->ne[2] * t->ne[3];
    qtype_row_bytes(s->type, t->ne[0], &row_bytes);
    bool weighted = s->entry && qtype_info(s->type)->importance != IMPORTANCE_IGNORED;
    uint8_t *blocks = malloc((size_t)(n * row_bytes));
    float *importance = weighted ? malloc((size_t)(t->ne[0] * sizeof(float))) : NULL;
    int rc = blocks && (!weighted || importance)
                 ? 0
                 : err_set(e, ERR_NOMEM, "out of memory encoding tensor '%s'", t->name);
    for (uint64_t done = 0; rc == 0 && done < n;) {
        uint64_t row = row0 + done, mat = row / t->ne[1], left = (mat + 1) * t->ne[1] - row;
        uint64_t now = n - done < left ? n - done : left;
        if (weighted)
            rc = imatrix_weights(s->entry, mat, n_mats, t->ne[0], importance, e);
        if (rc == 0)
            rc = encode_rows(w, s, importance, row, now, dst + done * t->ne[0], blocks + done * row_bytes,
                             row_bytes, e);
        done += now;
    }
    if (rc == 0)
        rc = quant_decode_rows(w->kern, s->type, blocks, n * row_bytes, dst, n, t->ne[0], e);
    free(blocks);
    free(importance);
    return rc;
}

int weights_read(const struct weights *w, const struct model_tensor *t, uint64_t row0, uint64_t n, float *dst,
                 struct err *e)
{
    const struct slot *s = w->mix || w->has_given || w->view ? slot_of(w, t) : NULL;
    if (s && s->lender)
        return weights_read(s->lender, s->lent, row0, n, dst, e);
    if (!s || (!s->encode && !s->given))
        return model_read_rows(w->m, t, row0, n, dst, e);
    const uint8_t *blocks = s->given ? s->given : s->blocks;
    if (!blocks)
        return read_on_the_spot(w, s, row0, n, dst, e);
    uint64_t row_bytes = 0;
    qtype_row_bytes(s->type, t->ne[0], &row_bytes);
    return quant_decode_rows(w->kern, s->type, blocks + row0 * row_bytes, n * row_bytes, dst, n, t->ne[0], e);
}
