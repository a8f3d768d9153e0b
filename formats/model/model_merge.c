/* model_merge.c - adapters that are merged into a model while its rows are read.
 *
 * Whole tensors of a PEFT folder take the place of those of the checkpoint before anything is mapped.
 * Low-rank terms are laid over the mapped tensors: a tensor that is changed becomes one with a `merge`, which
 * reads the rows of the tensor below as float32 and lets the adapters add theirs in their order. An embedding
 * that is tied to the head and changed alone (or a head) parts from the other, as it does in PEFT, where the
 * wrapped module is no longer the shared one. */
#include "checkpoint_weight.h"
#include "model_internal.h"

#include "formats/adapter/adapter.h"
#include "formats/hf/hf_folder.h"
#include "formats/hf/hf_names.h"
#include "formats/json.h"
#include "libquant/base/path.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define EMBEDDING "token_embd.weight"
#define HEAD      "output.weight"

struct opened {
    struct adapter *adapter;
    double scale;
    size_t n_changed, n_replaced;
};

struct model_adapters {
    struct opened *items;
    size_t n;
};

struct model_merge {
    struct model_tensor pub;
    const struct model_tensor *base;
    const struct adapter_term **terms;
    size_t n, cap;
};

size_t model_n_adapters(const struct model *m)
{
    return m->adapters ? m->adapters->n : 0;
}

struct model_adapter_report model_adapter_report(const struct model *m, size_t i)
{
    const struct opened *o = &m->adapters->items[i];
    return (struct model_adapter_report){.path = o->adapter->path,
                                         .sha256 = o->adapter->sha256,
                                         .scale = o->scale,
                                         .n_changed = o->n_changed,
                                         .n_replaced = o->n_replaced};
}

int model_adapters_open(struct model *m, const struct model_options *opt, struct err *e)
{
    struct model_adapters *a = calloc(1, sizeof *a);
    if (!a)
        return model_out_of_memory(e);
    m->adapters = a;
    a->items = calloc(opt->n_adapters, sizeof *a->items);
    if (!a->items)
        return model_out_of_memory(e);
    for (size_t i = 0; i < opt->n_adapters; i++) {
        struct opened *o = &a->items[i];
        int rc = adapter_open(&o->adapter, opt->adapters[i].path, e);
        if (rc != 0)
            return rc;
        o->scale = opt->adapters[i].scale;
        a->n++;
        if (o->adapter->invocation)
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: alora_invocation_tokens: the adapter acts only after these tokens, which no "
                           "merged weight does; convert it by itself, with --base",
                           o->adapter->path);
    }
    return 0;
}

void model_adapters_close(struct model_adapters *a)
{
    for (size_t i = 0; a && i < a->n; i++)
        adapter_close(a->items[i].adapter);
    if (a)
        free(a->items);
    free(a);
}

/* --- whole tensors --- */

static const char *row_name(const struct arch_model *arch, const char *name, struct arena *arena)
{
    const char *plain = hf_name_unwrap(name, arena, NULL);
    return plain ? arch_strip(arch, plain, arena) : NULL;
}

/* The stored name that becomes this tensor of the output, as the rows have it; NULL: none. */
static const char *hf_name_of(const struct arch_model *arch, const char *gguf)
{
    for (const struct arch_group *g = arch->arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++)
            if (strcmp(g->rows[i].gguf, gguf) == 0)
                return g->rows[i].hf;
    return NULL;
}

struct replacing {
    struct model *m;
    struct arch_model *arch;
    struct checkpoint_weight *list;
    const char **names; /* of the list, as rows have them */
    size_t n;
};

static struct checkpoint_weight *find_weight(const struct replacing *r, const char *name)
{
    for (size_t i = 0; name && i < r->n; i++)
        if (strcmp(r->names[i], name) == 0)
            return &r->list[i];
    return NULL;
}

static struct checkpoint_weight weight_of(const struct adapter *a, const struct adapter_tensor *t)
{
    enum qtype type = t->t->dtype == ST_F32 ? QTYPE_F32 : t->t->dtype == ST_BF16 ? QTYPE_BF16 : QTYPE_F16;
    struct checkpoint_weight w = {.name = t->name,
                                  .file = a->file,
                                  .type_name = st_dtype_name(t->t->dtype),
                                  .n_dims = t->t->n_dims,
                                  .n_elems = t->t->n_elems,
                                  .type = type,
                                  .is_weight = true,
                                  .raw = t->t->data,
                                  .plain = t->t};
    memcpy(w.shape, t->t->shape, sizeof w.shape);
    return w;
}

/* A tied pair of which the adapter replaces the embedding alone: the head stays what it was. */
static int part_head(struct replacing *r, const struct adapter *a, const char *name, struct err *e)
{
    const char *embd = hf_name_of(r->arch, EMBEDDING), *head = hf_name_of(r->arch, HEAD);
    bool is_embd = embd && strcmp(name, embd) == 0, is_head = head && strcmp(name, head) == 0;
    if (!r->arch->tied || (!is_embd && !is_head) || (is_embd && a->ties_weights))
        return 0;
    const struct checkpoint_weight *base = find_weight(r, embd);
    r->arch->tied = false;
    if (base && !find_weight(r, head)) {
        r->names[r->n] = head;
        r->list[r->n] = *base;
        r->list[r->n++].name = head;
    }
    return model_add_line(r->m, &r->m->warnings, e,
                          "[head-untied] %s: changes one of embedding and head, which the base shares; both "
                          "are written",
                          a->path);
}

static int replace_one(struct replacing *r, struct opened *o, const struct adapter_tensor *t, struct err *e)
{
    const char *name = row_name(r->arch, t->name, &r->m->arena);
    int rc = name ? part_head(r, o->adapter, name, e) : model_out_of_memory(e);
    if (rc != 0)
        return rc;
    struct checkpoint_weight *w = find_weight(r, name), own = weight_of(o->adapter, t);
    if (!w) {
        r->names[r->n] = name;
        w = &r->list[r->n++];
    }
    own.name = t->name;
    *w = own;
    o->n_replaced++;
    return 0;
}

int model_adapters_replace(struct model *m, struct arch_model *arch, struct checkpoint_weight **sources,
                           size_t *n, struct err *e)
{
    size_t n_new = 1, n_whole = 0;
    for (size_t i = 0; m->adapters && i < m->adapters->n; i++)
        n_whole += m->adapters->items[i].adapter->n_tensors;
    if (n_whole == 0)
        return 0;
    n_new += *n + n_whole;
    struct replacing r = {.m = m, .arch = arch, .n = *n};
    r.list = arena_array(&m->arena, n_new, sizeof *r.list);
    r.names = arena_array(&m->arena, n_new, sizeof *r.names);
    if (!r.list || !r.names)
        return model_out_of_memory(e);
    int rc = 0;
    for (size_t i = 0; i < *n; i++) {
        r.list[i] = (*sources)[i];
        r.names[i] = row_name(arch, r.list[i].name, &m->arena);
        if (!r.names[i])
            return model_out_of_memory(e);
    }
    for (size_t i = 0; i < m->adapters->n; i++)
        for (size_t k = 0; rc == 0 && k < m->adapters->items[i].adapter->n_tensors; k++)
            rc = replace_one(&r, &m->adapters->items[i], &m->adapters->items[i].adapter->tensors[k], e);
    *sources = r.list;
    *n = r.n;
    return rc;
}

/* --- low-rank terms --- */

enum qtype model_source_type(const struct model_tensor *t)
{
    return t->merge ? t->merge->base->type : t->type;
}

const struct model_tensor *model_merge_base(const struct model_tensor *t)
{
    return t->merge ? t->merge->base : t;
}

int model_merge_read(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                     float *dst, struct err *e)
{
    const struct model_merge *merge = t->merge;
    int rc = m->ops->read_rows(m, merge->base, row0, n, dst, e);
    for (size_t i = 0; rc == 0 && i < merge->n; i++)
        rc = adapter_term_apply(merge->terms[i], m->kern, row0, n, dst, e);
    return rc;
}

/* A tensor over `base`, without terms yet. */
static struct model_merge *new_merge(struct model *m, const struct model_tensor *base, const char *name)
{
    struct model_merge *x = arena_alloc(&m->arena, sizeof *x);
    if (!x)
        return NULL;
    x->pub = *base;
    x->base = base;
    x->pub.merge = x;
    x->pub.name = name;
    return x;
}

static int insert_tensor(struct model *m, const struct model_tensor *t, struct err *e)
{
    const struct model_tensor **list = arena_array(&m->arena, m->n_tensors + 2, sizeof *list);
    if (!list)
        return model_out_of_memory(e);
    list[0] = t;
    memcpy(list + 1, m->tensors, m->n_tensors * sizeof *list);
    m->tensors = list;
    m->n_tensors++;
    return model_index(m, e);
}

/* Before one of a shared pair changes: the head as a tensor of its own. */
static int own_head(struct model *m, const struct adapter *a, const char *changed, struct err *e)
{
    bool embd = strcmp(changed, EMBEDDING) == 0, head = strcmp(changed, HEAD) == 0;
    const struct model_tensor *base = model_find(m, EMBEDDING);
    if ((!embd && !head) || model_find(m, HEAD) || !base || (embd && a->ties_weights) || (head && m->is_gguf))
        return 0;
    struct model_merge *copy = new_merge(m, model_merge_base(base), HEAD);
    int rc = copy ? insert_tensor(m, &copy->pub, e) : model_out_of_memory(e);
    return rc ? rc
              : model_add_line(m, &m->warnings, e,
                               "[head-untied] %s: changes one of embedding and head, which the base shares; "
                               "both are written",
                               a->path);
}

static int check_term(const struct model *m, const struct adapter *a, const struct adapter_term *t,
                      const struct model_tensor *to, struct err *e)
{
    if (!to)
        return err_set(e, ERR_FORMAT,
                       "%s: module '%s': %s has no tensor '%s'; is it the model that the adapter was trained "
                       "on?",
                       a->file, t->module, m->path, t->tensor);
    if (t->n_cols != to->ne[0] || t->row0 > to->n_rows || t->n_rows > to->n_rows - t->row0 ||
        (a->gguf && (t->n_rows != to->n_rows || t->mat_rows != to->ne[1])))
        return err_set(e, ERR_FORMAT,
                       "%s: module '%s' changes %" PRIu64 " rows of %" PRIu64 " values from row %" PRIu64
                       " on, but '%s' of %s has %" PRIu64 " of %" PRIu64,
                       a->file, t->module, t->n_rows, t->n_cols, t->row0, t->tensor, m->path, to->n_rows,
                       to->ne[0]);
    return 0;
}

static int add_to(struct model *m, struct model_merge *x, const struct adapter_term *t, struct err *e)
{
    if (x->n == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 4;
        const struct adapter_term **terms = arena_array(&m->arena, cap, sizeof *terms);
        if (!terms)
            return model_out_of_memory(e);
        if (x->n)
            memcpy(terms, x->terms, x->n * sizeof *terms);
        x->terms = terms;
        x->cap = cap;
    }
    x->terms[x->n++] = t;
    x->pub.type = QTYPE_F32;
    x->pub.raw = NULL;
    x->pub.has_blocks = false;
    x->pub.n_bytes = x->pub.n_rows * x->pub.ne[0] * sizeof(float);
    return 0;
}

/* Lay `t` over its tensor, which gets a merge when it has none. */
static int lay(struct model *m, struct opened *o, const struct adapter_term *t, struct err *e)
{
    uint64_t i;
    int rc = own_head(m, o->adapter, t->tensor, e);
    if (rc != 0)
        return rc;
    bool found = strmap_find(&m->by_name, t->tensor, strlen(t->tensor), &i);
    rc = check_term(m, o->adapter, t, found ? m->tensors[i] : NULL, e);
    if (rc != 0)
        return rc;
    struct model_merge *x = (struct model_merge *)m->tensors[i]->merge; /* ours */
    if (!x) {
        x = new_merge(m, m->tensors[i], m->tensors[i]->name);
        if (!x)
            return model_out_of_memory(e);
        m->tensors[i] = &x->pub;
    }
    o->n_changed += x->n == 0;
    return add_to(m, x, t, e);
}

/* Letters and digits alone, in lower case, of the last component of a path or id. */
static void core_name(char out[128], const char *name)
{
    const char *slash = strrchr(name, '/');
    size_t n = 0;
    for (const char *s = slash && slash[1] ? slash + 1 : name; *s && n < 127; s++)
        if (isalnum((unsigned char)*s))
            out[n++] = (char)tolower((unsigned char)*s);
    out[n] = '\0';
}

/* Another name than the base has is most likely another model. */
static int compare_base(struct model *m, const struct adapter *a, const struct arch_model *arch,
                        struct err *e)
{
    char want[128], folder[128] = "", stated[128] = "";
    const char *id = arch ? json_string(json_get(hf_config_root(arch->config), "_name_or_path")) : NULL;
    struct gguf_string general = {"", 0};
    char *name = NULL;
    if (!a->base)
        return 0;
    core_name(want, a->base);
    int rc = hf_folder_name(&name, m->path, e);
    if (rc != 0)
        return rc;
    core_name(folder, name);
    if (id)
        core_name(stated, id);
    if (!arch && gguf_meta_get_string(m->meta, "general.name", &general)) {
        char text[128];
        snprintf(text, sizeof text, "%.*s", (int)(general.len < 127 ? general.len : 127), general.data);
        core_name(stated, text);
    }
    if (strcmp(want, folder) != 0 && strcmp(want, stated) != 0)
        rc = model_add_line(m, &m->warnings, e, "[adapter-base] %s: was trained on '%s', the base is '%s'",
                            a->path, a->base, name);
    free(name);
    return rc;
}

static int merge_one(struct model *m, struct opened *o, const struct arch_model *arch, struct err *e)
{
    struct adapter *a = o->adapter;
    struct adapter_terms terms = {0};
    if (!a->gguf && !arch)
        return err_set(e, ERR_ARG,
                       "%s: a PEFT folder goes onto a checkpoint; for a GGUF file convert it first: kerf "
                       "convert %s --base CHECKPOINT -o lora.gguf",
                       a->path, a->path);
    int rc = compare_base(m, a, arch, e);
    if (rc == 0)
        rc = a->gguf ? adapter_terms_of_gguf(&terms, a, &m->arena, e)
                     : adapter_bind(&terms, a, arch, &m->arena, e);
    for (size_t i = 0; rc == 0 && i < terms.n; i++) {
        terms.items[i].scale *= o->scale;
        rc = lay(m, o, &terms.items[i], e);
    }
    for (size_t i = 0; rc == 0 && i < a->warnings.n; i++)
        rc = model_add_line(m, &m->warnings, e, "%s", a->warnings.items[i]);
    for (size_t i = 0; rc == 0 && i < a->skipped.n; i++)
        rc = model_add_line(m, &m->skipped, e, "%s", a->skipped.items[i]);
    return rc;
}

int model_adapters_merge(struct model *m, const struct arch_model *arch, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; m->adapters && rc == 0 && i < m->adapters->n; i++)
        rc = merge_one(m, &m->adapters->items[i], arch, e);
    return rc;
}

/* Which adapters are in the weights: kerf.lora.<n>.name, .scale, .sha256. */
static int set_keys(struct model *m, size_t i, struct err *e)
{
    const struct opened *o = &m->adapters->items[i];
    char key[3][64];
    size_t n;
    const char *last = path_last(o->adapter->path, &n);
    char *name = arena_strndup(&m->arena, last, n);
    snprintf(key[0], sizeof key[0], "kerf.lora.%zu.name", i);
    snprintf(key[1], sizeof key[1], "kerf.lora.%zu.scale", i);
    snprintf(key[2], sizeof key[2], "kerf.lora.%zu.sha256", i);
    int rc = name ? gguf_meta_set_string(m->own_meta, key[0], name, e) : model_out_of_memory(e);
    if (rc == 0)
        rc = gguf_meta_set_f32(m->own_meta, key[1], (float)o->scale, e);
    return rc == 0 ? gguf_meta_set_string(m->own_meta, key[2], o->adapter->sha256, e) : rc;
}

int model_adapters_meta(struct model *m, struct err *e)
{
    int rc = m->own_meta ? 0 : gguf_meta_copy(&m->own_meta, m->meta, e);
    m->meta = rc == 0 ? m->own_meta : m->meta;
    for (size_t i = 0; rc == 0 && i < m->adapters->n; i++)
        rc = set_keys(m, i, e);
    return rc;
}
