/* model_lora.c - a PEFT folder as the file that llama.cpp's --lora takes: for each changed tensor X the
 * factors X.lora_a and X.lora_b, in the order of rows and columns that X has in the base's own file.
 *
 * The runtime multiplies by adapter.lora.alpha / rank. Where modules have other factors (alpha_pattern,
 * use_rslora, ranks of experts that differ), the key is the one that makes most of them right without
 * touching a number, and B carries what is left. llama.cpp's converter writes lora_alpha alone there, and
 * such adapters then act with another strength. Truth: convert_lora_to_gguf.py, llama-adapter.cpp. */
#include "model_internal.h"

#include "formats/adapter/adapter.h"
#include "formats/hf/hf_names.h"
#include "formats/json.h"
#include "formats/metadata/metadata.h"
#include "libquant/quant.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* What changes one tensor of the base. */
struct target {
    const char *name;
    const struct adapter_term **terms;
    size_t n, cap, last; /* `last`: number of the last of its terms */
    uint64_t rank;       /* the largest; the others get rows of zeros */
};

/* One tensor of the file; a model_tensor of this model is the start of one. */
struct lora_tensor {
    struct model_tensor pub;
    const struct target *target; /* NULL: stored whole */
    bool is_b, embedding;
    const struct st_tensor *whole;
    float offset; /* that the base's file adds to a norm */
};

struct lora_model {
    struct adapter *adapter;
    struct hf_config *config;
    struct arch_model arch;
    struct target *targets;
    size_t n_targets;
    double alpha;
};

/* --- reading --- */

/* The term that changes row `row`; NULL: none, an expert without factors. */
static const struct adapter_term *term_at(const struct target *t, uint64_t row)
{
    for (size_t i = 0; i < t->n; i++)
        if (row >= t->terms[i]->row0 && row - t->terms[i]->row0 < t->terms[i]->n_rows)
            return t->terms[i];
    return NULL;
}

/* What B carries besides, so that the runtime's factor becomes the module's. */
static double factor_of(const struct lora_model *l, const struct target *t, const struct adapter_term *term)
{
    double f = term->scale * (double)t->rank / l->alpha;
    return fabs(f - 1) < 1e-12 ? 1 : f;
}

static int read_b_row(const struct lora_model *l, const struct kern *k, const struct target *t, uint64_t row,
                      float *dst, struct err *e)
{
    const struct adapter_term *term = term_at(t, row);
    memset(dst, 0, t->rank * sizeof *dst);
    if (!term)
        return 0;
    double f = factor_of(l, t, term);
    int rc = adapter_term_b(term, k, row, dst, e);
    for (uint64_t i = 0; rc == 0 && f != 1 && i < term->rank; i++)
        dst[i] = (float)(f * (double)dst[i]);
    return rc;
}

/* Row `row` of A of all matrices: rank row % rank of matrix row / rank. */
static int read_a_row(const struct kern *k, const struct target *t, uint64_t row, float *dst, struct err *e)
{
    const struct adapter_term *any = t->terms[0];
    uint64_t first = row / t->rank * any->out_rows, rank = row % t->rank;
    const struct adapter_term *term = term_at(t, first);
    memset(dst, 0, any->n_cols * sizeof *dst);
    return term && rank < term->rank ? adapter_term_a(term, k, first, rank, dst, e) : 0;
}

/* Rows of the embedding's second factor: column `row` of A. */
static int read_a_column(const struct kern *k, const struct target *t, uint64_t row, float *dst,
                         struct err *e)
{
    const struct adapter_term *term = t->terms[0];
    float *line = malloc(term->n_cols * sizeof *line);
    int rc = line ? 0 : model_out_of_memory(e);
    for (uint64_t i = 0; rc == 0 && i < term->rank; i++) {
        rc = adapter_term_a(term, k, 0, i, line, e);
        dst[i] = line[row];
    }
    free(line);
    return rc;
}

static int read_whole(const struct model *m, const struct lora_tensor *t, float *dst, struct err *e)
{
    int rc =
        quant_decode_rows(m->kern, t->pub.type, t->whole->data, t->whole->n_bytes, dst, 1, t->pub.ne[0], e);
    for (uint64_t i = 0; rc == 0 && i < t->pub.ne[0]; i++)
        dst[i] += t->offset;
    return rc;
}

static int read_rows(const struct model *m, const struct model_tensor *pub, uint64_t row0, uint64_t n,
                     float *dst, struct err *e)
{
    const struct lora_tensor *t = (const struct lora_tensor *)pub;
    int rc = 0;
    if (t->whole)
        return read_whole(m, t, dst, e);
    for (uint64_t i = 0; rc == 0 && i < n; i++, dst += pub->ne[0]) {
        if (t->is_b && t->embedding)
            rc = read_a_column(m->kern, t->target, row0 + i, dst, e);
        else if (t->is_b || t->embedding)
            rc = read_b_row(m->source, m->kern, t->target, row0 + i, dst, e);
        else
            rc = read_a_row(m->kern, t->target, row0 + i, dst, e);
    }
    return rc;
}

static void hint_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                      bool want)
{
    (void)m, (void)t, (void)row0, (void)n, (void)want; /* small, and read out of order */
}

static void close_source(struct model *m)
{
    struct lora_model *l = m->source;
    adapter_close(l->adapter);
    hf_config_free(l->config);
    free(l);
}

static const struct model_source_ops lora_ops = {
    .read_rows = read_rows, .read_blocks = NULL, .hint_rows = hint_rows, .close = close_source};

/* --- which tensors --- */

static int add_to_target(struct model *m, struct target *t, const struct adapter_term *term, size_t number,
                         struct err *e)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 2;
        const struct adapter_term **terms = arena_array(&m->arena, cap, sizeof *terms);
        if (!terms)
            return model_out_of_memory(e);
        if (t->n)
            memcpy(terms, t->terms, t->n * sizeof *terms);
        t->terms = terms;
        t->cap = cap;
    }
    t->terms[t->n++] = term;
    t->last = number;
    t->rank = term->rank > t->rank ? term->rank : t->rank;
    return 0;
}

static int refuse_head(const struct lora_model *l, const struct adapter_term *t, struct err *e)
{
    bool head = strcmp(t->tensor, "output.weight") == 0, embd = strcmp(t->tensor, "token_embd.weight") == 0;
    return l->arch.tied && (head || embd)
               ? err_set(e, ERR_UNSUPPORTED,
                         "%s: module '%s' changes one of embedding and head, which the base shares; an "
                         "adapter file cannot part them: merge it with 'kerf convert BASE --lora'",
                         l->adapter->file, t->module)
               : 0;
}

static int by_last(const void *pa, const void *pb)
{
    const struct target *a = pa, *b = pb;
    return a->last < b->last ? -1 : a->last > b->last ? 1 : 0;
}

static int group_terms(struct model *m, struct lora_model *l, const struct adapter_terms *terms,
                       struct err *e)
{
    struct strmap by_name = {0};
    l->targets = arena_array(&m->arena, terms->n + 1, sizeof *l->targets);
    int rc = l->targets ? 0 : model_out_of_memory(e);
    for (size_t i = 0; rc == 0 && i < terms->n; i++) {
        const struct adapter_term *t = &terms->items[i];
        uint64_t at = l->n_targets;
        rc = refuse_head(l, t, e);
        if (rc == 0 && !strmap_find(&by_name, t->tensor, strlen(t->tensor), &at)) {
            rc = strmap_put(&by_name, t->tensor, strlen(t->tensor), at, NULL) ? model_out_of_memory(e) : 0;
            l->targets[l->n_targets++].name = t->tensor;
        }
        if (rc == 0)
            rc = add_to_target(m, &l->targets[at], t, i, e);
    }
    strmap_release(&by_name);
    qsort(l->targets, l->n_targets, sizeof *l->targets, by_last);
    return rc;
}

/* The value of adapter.lora.alpha that makes the most modules right by itself. */
static double choose_alpha(const struct lora_model *l)
{
    size_t best = 0;
    double alpha = l->adapter->alpha;
    for (size_t i = 0; i < l->n_targets; i++) {
        const struct target *t = &l->targets[i];
        double want = t->terms[0]->scale * (double)t->rank;
        size_t n = 0;
        for (size_t k = 0; k < l->n_targets; k++) {
            double other = l->targets[k].terms[0]->scale * (double)l->targets[k].rank;
            n += fabs(other - want) <= 1e-12 * want;
        }
        if (n > best) {
            best = n;
            alpha = want;
        }
    }
    /* the number of the configuration, where rounding alone tells them apart */
    return fabs(alpha - l->adapter->alpha) <= 1e-12 * alpha ? l->adapter->alpha : alpha;
}

/* --- the list --- */

static int add_tensor(struct model *m, struct lora_tensor *t, struct err *e)
{
    struct model_tensor *p = &t->pub;
    for (uint32_t i = p->n_dims; i < 4; i++)
        p->ne[i] = 1;
    p->n_rows = p->ne[1] * p->ne[2] * p->ne[3];
    p->source_type = qtype_name((uint32_t)p->type);
    p->n_bytes = p->n_rows * p->ne[0] * sizeof(float);
    p->always_f32 = p->n_dims < 2;
    m->tensors[m->n_tensors++] = p;
    return p->name && p->origin ? 0 : model_out_of_memory(e);
}

static int add_factor(struct model *m, const struct lora_model *l, const struct target *target, bool is_b,
                      struct err *e)
{
    const struct adapter_term *any = target->terms[0];
    bool embedding = strcmp(target->name, "token_embd.weight") == 0;
    struct lora_tensor *t = arena_alloc(&m->arena, sizeof *t);
    if (!t)
        return model_out_of_memory(e);
    uint64_t n_rows = any->out_rows;
    *t = (struct lora_tensor){.target = target, .is_b = is_b, .embedding = embedding};
    t->pub.name = arena_printf(&m->arena, "%s.lora_%c", target->name, is_b ? 'b' : 'a');
    t->pub.origin = arena_printf(&m->arena, "%s: %s", l->adapter->file, any->module);
    t->pub.type = QTYPE_F32;
    t->pub.n_dims = any->n_mats > 1 ? 3 : 2;
    t->pub.ne[0] = is_b || embedding ? target->rank : any->n_cols;
    t->pub.ne[1] = !is_b ? (embedding ? n_rows : target->rank) : embedding ? any->n_cols : n_rows;
    t->pub.ne[2] = any->n_mats;
    return add_tensor(m, t, e);
}

/* The norm of the output that this name becomes; NULL: no norm. */
static const struct arch_row *norm_row(const struct arch_model *arch, const char *name, uint64_t *layer)
{
    for (const struct arch_group *g = arch->arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++)
            if (arch_match(g->rows[i].hf, name, layer, NULL) && !g->rows[i].rows &&
                (g->rows[i].op == ARCH_KEEP || g->rows[i].op == ARCH_ADD_ONE) &&
                strstr(g->rows[i].gguf, "_norm.weight") && arch_row_applies(arch, g, &g->rows[i], *layer))
                return &g->rows[i];
    return NULL;
}

static int add_whole(struct model *m, struct lora_model *l, const struct adapter_tensor *w, struct err *e)
{
    uint64_t layer = 0;
    const char *plain = arch_strip(&l->arch, w->name, &m->arena);
    if (!plain)
        return model_out_of_memory(e);
    if (strstr(w->t->name, ".base_layer."))
        return model_add_line(m, &m->skipped, e, "%s: a weight of the base that was saved along", w->t->name);
    const struct arch_row *row = w->t->n_dims == 1 ? norm_row(&l->arch, plain, &layer) : NULL;
    if (!row)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tensor '%s' stands in the place of a whole tensor of the base (modules_to_save, "
                       "biases, new tokens), which an adapter file cannot hold: merge it with 'kerf convert "
                       "BASE --lora'",
                       l->adapter->file, w->t->name);
    struct lora_tensor *t = arena_alloc(&m->arena, sizeof *t);
    if (!t)
        return model_out_of_memory(e);
    *t = (struct lora_tensor){.whole = w->t, .offset = row->op == ARCH_ADD_ONE ? 1 : 0};
    t->pub.name = arch_name_of(row->gguf, layer, &m->arena);
    t->pub.origin = arena_printf(&m->arena, "%s: %s", l->adapter->file, w->t->name);
    t->pub.type = w->t->dtype == ST_F32 ? QTYPE_F32 : w->t->dtype == ST_BF16 ? QTYPE_BF16 : QTYPE_F16;
    t->pub.n_dims = 1;
    t->pub.ne[0] = w->t->shape[0];
    int rc = add_tensor(m, t, e);
    return rc ? rc
              : model_add_line(m, &m->warnings, e,
                               "[adapter-norm-ignored] %s: tensor '%s' is written, but llama.cpp does not "
                               "apply it; merge the adapter with 'kerf convert BASE --lora' to have it",
                               m->path, t->pub.name);
}

static int list_tensors(struct model *m, struct lora_model *l, struct err *e)
{
    const struct adapter *a = l->adapter;
    int rc = 0;
    m->tensors = arena_array(&m->arena, 2 * l->n_targets + a->n_tensors + 1, sizeof *m->tensors);
    if (!m->tensors)
        return model_out_of_memory(e);
    for (size_t i = 0; rc == 0 && i < a->n_tensors; i++)
        rc = add_whole(m, l, &a->tensors[i], e);
    for (size_t i = 0; rc == 0 && i < l->n_targets; i++) {
        rc = add_factor(m, l, &l->targets[i], false, e);
        if (rc == 0)
            rc = add_factor(m, l, &l->targets[i], true, e);
    }
    for (size_t i = 0; rc == 0 && i < a->skipped.n; i++)
        rc = model_add_line(m, &m->skipped, e, "%s", a->skipped.items[i]);
    return rc == 0 ? model_index(m, e) : rc;
}

/* --- opening --- */

static int add_warning(void *ctx, const char *text, struct err *e)
{
    struct model *m = ctx;
    return model_add_line(m, &m->warnings, e, "%s",
                          text ? text : "[out-of-memory] a warning that memory did not suffice for");
}

static int take_meta(struct model *m, const struct lora_model *l, struct err *e)
{
    const struct arch_warnings w = {.add = add_warning, .ctx = m};
    size_t n = json_n_children(l->adapter->invocation), at = 0;
    uint32_t *tokens = arena_array(&m->arena, n + 1, sizeof *tokens);
    int rc = tokens ? gguf_meta_new(&m->own_meta, e) : model_out_of_memory(e);
    for (const struct json *j = json_first(l->adapter->invocation); rc == 0 && j; j = json_next(j)) {
        uint64_t id;
        if (!json_uint(j, &id) || id > UINT32_MAX)
            rc = err_set(e, ERR_FORMAT, "%s: alora_invocation_tokens holds something other than token ids",
                         m->path);
        else
            tokens[at++] = (uint32_t)id;
    }
    if (rc == 0)
        rc = metadata_of_adapter(m->own_meta, m->path, m->arch_name, l->alpha, tokens, n, &w, e);
    m->meta = m->own_meta;
    return rc;
}

static int load_base(struct lora_model *l, const char *base, struct err *e)
{
    struct stat st;
    bool folder = stat(base, &st) == 0 && S_ISDIR(st.st_mode);
    if (!folder && gguf_is_gguf_file(base))
        return err_set(e, ERR_ARG,
                       "%s: --base takes the checkpoint that the adapter was trained on (its config.json is "
                       "enough), not a GGUF file",
                       base);
    int rc = folder ? hf_config_load(&l->config, base, e) : hf_config_load_file(&l->config, base, e);
    if (rc == 0)
        rc = arch_resolve(&l->arch, l->config, e);
    return rc ? err_context_path(e, rc, base) : 0;
}

static int refuse_lengths(const struct adapter *a, struct err *e)
{
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->modules[i].magnitude)
            return err_set(
                e, ERR_UNSUPPORTED,
                "%s: tensor '%s': DoRA, whose magnitudes an adapter file cannot hold: merge it with "
                "'kerf convert BASE --lora'",
                a->file, a->modules[i].magnitude->name);
    return 0;
}

int model_open_lora(struct model *m, const char *path, const struct model_options *opt, struct err *e)
{
    struct adapter_terms terms = {0};
    struct lora_model *l = calloc(1, sizeof *l);
    if (!l)
        return model_out_of_memory(e);
    m->ops = &lora_ops;
    m->source = l;
    m->has_weights = m->is_adapter = true;
    int rc = adapter_open(&l->adapter, path, e);
    if (rc == 0 && l->adapter->gguf)
        rc = err_set(e, ERR_ARG, "%s: is an adapter file already", path);
    if (rc == 0)
        rc = refuse_lengths(l->adapter, e);
    if (rc == 0)
        rc = load_base(l, opt->base, e);
    if (rc != 0)
        return rc;
    m->arch_name = l->arch.arch->name;
    rc = adapter_bind(&terms, l->adapter, &l->arch, &m->arena, e);
    if (rc == 0)
        rc = group_terms(m, l, &terms, e);
    if (rc == 0)
        l->alpha = choose_alpha(l);
    if (rc == 0)
        rc = list_tensors(m, l, e);
    return rc == 0 ? take_meta(m, l, e) : rc;
}
