/* prune.c - see prune.h. Which keys change is decided by their shape, not by a list of families: an array of
 * the model's own keys that has an element for each layer belongs to the layers. */
#include "prune.h"

#include "formats/arch/arch.h"
#include "formats/model/hparams.h"
#include "formats/model/tensor_name.h"
#include "formats/text.h"
#include "libquant/base/arena.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_INDEX  65535 /* of a layer or an expert */
#define ALL_LAYERS (-1)

/* --- what to leave out, as text --- */

static int add_range(struct prune_range **list, size_t *n, struct prune_range r, struct err *e)
{
    struct prune_range *grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown)
        return err_set(e, ERR_NOMEM, "out of memory: what to leave out");
    grown[(*n)++] = r;
    *list = grown;
    return 0;
}

/* A number of at most MAX_INDEX at *at, which moves behind it. */
static bool take_index(const char **at, const char *end, uint32_t *out)
{
    uint32_t v = 0;
    const char *p = *at;
    for (; p < end && isdigit((unsigned char)*p); p++)
        if ((v = v * 10 + (uint32_t)(*p - '0')) > MAX_INDEX)
            return false;
    bool found = p > *at;
    *at = p;
    *out = v;
    return found;
}

static void skip_blanks(const char **at, const char *end)
{
    while (*at < end && (**at == ' ' || **at == '\t'))
        (*at)++;
}

/* "3,5,7-9": ranges between commas, with blanks where one likes. ERR_ARG without a message for anything else.
 */
static int take_list(struct prune_range **list, size_t *n, int64_t layer, const char *at, const char *end,
                     struct err *e)
{
    for (;;) {
        struct prune_range r = {.layer = layer};
        skip_blanks(&at, end);
        if (!take_index(&at, end, &r.first))
            return ERR_ARG;
        r.last = r.first;
        skip_blanks(&at, end);
        if (at < end && *at == '-') {
            at++;
            skip_blanks(&at, end);
            if (!take_index(&at, end, &r.last) || r.last < r.first)
                return ERR_ARG;
            skip_blanks(&at, end);
        }
        int rc = add_range(list, n, r, e);
        if (rc != 0)
            return rc;
        if (at == end)
            return 0;
        if (*at++ != ',')
            return ERR_ARG;
    }
}

int prune_layers(struct prune *p, const char *list, struct err *e)
{
    p->layers_text = list;
    int rc = take_list(&p->layers, &p->n_layers, ALL_LAYERS, list, list + strlen(list), e);
    return rc == ERR_ARG
               ? err_set(e, rc, "layers to drop: expected numbers and ranges such as 3,20-25, found '%s'",
                         list)
               : rc;
}

static int take_line(struct prune *p, const char *at, const char *end, struct err *e)
{
    uint32_t layer = 0;
    int64_t of = ALL_LAYERS;
    skip_blanks(&at, end);
    if (at == end)
        return 0;
    if (*at == '*')
        at++;
    else if (take_index(&at, end, &layer))
        of = layer;
    else
        return ERR_ARG;
    skip_blanks(&at, end);
    if (at == end || *at++ != ':')
        return ERR_ARG;
    return take_list(&p->experts, &p->n_experts, of, at, end, e);
}

int prune_experts(struct prune *p, const char *path, struct err *e)
{
    char *text = NULL;
    size_t len = 0;
    p->experts_path = path;
    int rc = text_read(&text, &len, path, 16 << 20, e);
    size_t line = 1;
    for (const char *at = text, *stop = text + len; rc == 0 && at < stop; line++) {
        const char *end = memchr(at, '\n', (size_t)(stop - at));
        const char *next = end ? end + 1 : stop;
        end = end ? end : stop;
        const char *comment = memchr(at, '#', (size_t)(end - at));
        const char *last = comment ? comment : end;
        while (last > at && isspace((unsigned char)last[-1]))
            last--;
        rc = take_line(p, at, last, e);
        if (rc == ERR_ARG)
            rc = err_set(e, ERR_FORMAT,
                         "%s:%zu: expected LAYER: EXPERTS, such as '12: 3,5,7-9' or '*: 0', found '%.*s'",
                         path, line, (int)(last - at < 80 ? last - at : 80), at);
        at = next;
    }
    if (rc == 0 && p->n_experts == 0)
        rc = err_set(e, ERR_FORMAT, "%s: names no expert; a line is LAYER: EXPERTS, such as '12: 3,5,7-9'",
                     path);
    free(text);
    return rc;
}

void prune_release(struct prune *p)
{
    free(p->layers);
    free(p->experts);
    *p = (struct prune){0};
}

/* --- the selection --- */

struct pruning {
    const struct prune *p;
    const struct gguf_reader *in;
    const struct gguf_meta *meta;
    struct gguf_meta *changes;
    struct arena *arena;
    struct gguf_selection *out;
    struct hparams h;
    char arch[128];        /* "" for a file that is no model: an importance matrix */
    uint32_t n_layers;     /* of the input */
    uint32_t n_kept;       /* layers */
    int64_t *new_index;    /* [n_layers], -1: left out */
    uint32_t n_experts;    /* 0: none */
    uint32_t **kept;       /* [n_layers] lists of experts that stay, NULL: the layer keeps all */
    uint32_t *n_kept_of;   /* [n_layers] */
    uint32_t experts_kept; /* in every layer with experts; 0: not known yet */
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory: the selection of tensors");
}

/* The layer in "blk.N.REST", and REST with its dot; -1 for tensors of no layer. */
static int64_t layer_of(const char *name, const char **rest)
{
    const char *kind;
    int64_t layer = tensor_layer(name, &kind);
    if (layer >= 0)
        *rest = kind - 1;
    return layer > MAX_INDEX ? -1 : layer;
}

/* A count of the model; false for a file that is none. */
static bool count_of(const struct hparam_count *count, uint32_t *out)
{
    uint64_t v;
    if (!hparam_whole(count, &v) || v > MAX_INDEX)
        return false;
    *out = (uint32_t)v;
    return true;
}

static int change_count(const struct pruning *r, const struct hparam_count *count, uint32_t value,
                        struct err *e)
{
    char key[256];
    snprintf(key, sizeof key, "%s.%s", r->arch, count->key.suffix);
    struct gguf_value v = *gguf_meta_find(r->meta, key);
    if (v.type == GGUF_I8 || v.type == GGUF_I16 || v.type == GGUF_I32 || v.type == GGUF_I64)
        v.i = value;
    else
        v.u = value;
    return gguf_meta_set(r->changes, key, &v, e);
}

static int count_layers(struct pruning *r, struct err *e)
{
    struct gguf_string arch = {"", 0};
    gguf_meta_get_string(r->meta, "general.architecture", &arch);
    snprintf(r->arch, sizeof r->arch, "%.*s", (int)(arch.len < 127 ? arch.len : 127), arch.data);
    hparams_read(&r->h, r->meta, r->arch);
    const char *path = gguf_reader_part_path(r->in, 0);
    if (gguf_meta_find(r->meta, "kerf.hessian.version"))
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: a Hessian file is not pruned; collect one from the pruned model, or prune the importance "
            "matrix that 'kerf imatrix convert' takes from it",
            path);
    if (r->arch[0] && !count_of(&r->h.n_blocks, &r->n_layers))
        return err_set(e, ERR_FORMAT, "%s: key '%s.block_count' is missing or not a count of layers", path,
                       r->arch);
    for (size_t i = 0; !r->arch[0] && i < gguf_reader_n_tensors(r->in); i++) {
        const char *rest;
        int64_t layer = layer_of(gguf_reader_tensor(r->in, i)->name, &rest);
        if (layer >= r->n_layers)
            r->n_layers = (uint32_t)layer + 1;
    }
    if (r->n_layers == 0)
        return err_set(e, ERR_ARG, "%s: has no layers to drop", path);
    return 0;
}

static int choose_layers(struct pruning *r, struct err *e)
{
    r->new_index = arena_array(r->arena, r->n_layers, sizeof *r->new_index);
    if (!r->new_index)
        return no_memory(e);
    for (size_t i = 0; i < r->p->n_layers; i++)
        for (uint32_t l = r->p->layers[i].first; l <= r->p->layers[i].last; l++) {
            if (l >= r->n_layers)
                return err_set(e, ERR_ARG,
                               "%s: layer %" PRIu32 " cannot be dropped, the layers are 0 to %" PRIu32,
                               gguf_reader_part_path(r->in, 0), l, r->n_layers - 1);
            r->new_index[l] = -1;
        }
    for (uint32_t l = 0; l < r->n_layers; l++)
        if (r->new_index[l] == 0)
            r->new_index[l] = r->n_kept++;
    if (r->n_kept == 0)
        return err_set(e, ERR_ARG, "layers to drop: '%s' leaves none of %" PRIu32, r->p->layers_text,
                       r->n_layers);
    return 0;
}

/* --- experts --- */

static bool drops_expert(const struct prune *p, uint32_t layer, uint32_t expert)
{
    for (size_t i = 0; i < p->n_experts; i++) {
        const struct prune_range *x = &p->experts[i];
        if ((x->layer == ALL_LAYERS || x->layer == layer) && expert >= x->first && expert <= x->last)
            return true;
    }
    return false;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* Has the tensor a slice for each expert? `rest` is its name behind the layer. */
static bool is_of_experts(const char *rest)
{
    return strstr(rest, "_exps.") != NULL || starts(rest, ".ffn_gate_inp.") || starts(rest, ".exp_probs_b");
}

/* How many experts the tensor has; 0 when it has none. */
static uint64_t slices_of(const struct pruning *r, const struct gguf_tensor *t, const char *rest)
{
    if (!is_of_experts(rest) || t->n_dims == 0)
        return 0;
    uint64_t n = t->ne[t->n_dims - 1];
    if (r->n_experts)
        return n == r->n_experts ? n : 0;
    /* the router's own inputs count once in an importance matrix */
    return strstr(rest, "_exps.") && n > 1 && n <= MAX_INDEX + 1 ? n : 0;
}

static int choose_of_layer(struct pruning *r, uint32_t layer, uint32_t n, struct err *e)
{
    const char *path = r->p->experts_path;
    uint32_t *kept = arena_array(r->arena, n, sizeof *kept);
    if (!kept)
        return no_memory(e);
    uint32_t k = 0;
    for (uint32_t x = 0; x < n; x++)
        if (!drops_expert(r->p, layer, x))
            kept[k++] = x;
    for (size_t i = 0; i < r->p->n_experts; i++)
        if ((r->p->experts[i].layer == ALL_LAYERS || r->p->experts[i].layer == layer) &&
            r->p->experts[i].last >= n)
            return err_set(e, ERR_ARG,
                           "%s: expert %" PRIu32 " of layer %" PRIu32
                           " is not there, the experts are 0 to %" PRIu32,
                           path, r->p->experts[i].last, layer, n - 1);
    if (r->experts_kept && k != r->experts_kept)
        return err_set(e, ERR_ARG,
                       "%s: layer %" PRIu32 " keeps %" PRIu32 " experts and an earlier one %" PRIu32
                       "; every layer must keep as many, since a model has one number of experts",
                       path, layer, k, r->experts_kept);
    if (k == 0)
        return err_set(e, ERR_ARG, "%s: layer %" PRIu32 " keeps no expert", path, layer);
    r->experts_kept = k;
    r->kept[layer] = kept;
    r->n_kept_of[layer] = k;
    return 0;
}

/* The layers that have experts are those with stacks of them. */
static int choose_experts(struct pruning *r, struct err *e)
{
    r->kept = arena_array(r->arena, r->n_layers, sizeof *r->kept);
    r->n_kept_of = arena_array(r->arena, r->n_layers, sizeof *r->n_kept_of);
    if (!r->kept || !r->n_kept_of)
        return no_memory(e);
    if (r->p->n_experts == 0)
        return 0;
    count_of(&r->h.n_experts, &r->n_experts);
    for (size_t i = 0; i < gguf_reader_n_tensors(r->in); i++) {
        const struct gguf_tensor *t = gguf_reader_tensor(r->in, i);
        const char *rest;
        int64_t layer = layer_of(t->name, &rest);
        uint64_t n = layer >= 0 && layer < r->n_layers ? slices_of(r, t, rest) : 0;
        if (n == 0 || r->new_index[layer] < 0 || r->kept[layer])
            continue;
        int rc = choose_of_layer(r, (uint32_t)layer, (uint32_t)n, e);
        if (rc != 0)
            return rc;
    }
    if (r->experts_kept == 0)
        return err_set(e, ERR_ARG, "%s: has no experts to drop", gguf_reader_part_path(r->in, 0));
    for (size_t i = 0; i < r->p->n_experts; i++) {
        int64_t layer = r->p->experts[i].layer;
        if (layer != ALL_LAYERS && (layer >= r->n_layers || (r->new_index[layer] >= 0 && !r->kept[layer])))
            return err_set(e, ERR_ARG, "%s: layer %" PRId64 " has no experts", r->p->experts_path, layer);
    }
    return 0;
}

static int change_experts(struct pruning *r, struct err *e)
{
    uint32_t used, groups;
    if (r->experts_kept == 0 || r->n_experts == 0)
        return 0;
    if (count_of(&r->h.n_experts_used, &used) && used > r->experts_kept)
        return err_set(e, ERR_ARG, "%s: %" PRIu32 " experts stay, but each token uses %" PRIu32,
                       r->p->experts_path, r->experts_kept, used);
    if (count_of(&r->h.n_expert_groups, &groups) && groups > 1)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: the experts of this model are chosen in %" PRIu32
                       " groups, which dropping would shift; it is not done",
                       gguf_reader_part_path(r->in, 0), groups);
    return change_count(r, &r->h.n_experts, r->experts_kept, e);
}

/* --- metadata of layers --- */

/* A rule of period n must give the layers that stay the kinds they had. */
static int check_period(const struct pruning *r, uint32_t period, const char *says_so, struct err *e)
{
    for (uint32_t l = 0; period >= 2 && l < r->n_layers; l++) {
        int64_t to = r->new_index[l];
        if (to >= 0 && ((l + 1) % period == 0) != ((uint64_t)(to + 1) % period == 0))
            return err_set(e, ERR_ARG,
                           "layers to drop: '%s' would make layer %" PRIu32
                           " a layer of another kind: '%s%s%s' gives every "
                           "%" PRIu32 ". layer its kind, so drop whole groups of %" PRIu32,
                           r->p->layers_text, l, r->arch, says_so[0] ? "." : "", says_so, period, period);
    }
    return 0;
}

/* Rules in keys, and that of the family. */
static int check_periods(const struct pruning *r, struct err *e)
{
    const struct hparam_count *periods[] = {&r->h.full_interval, &r->h.window_pattern, &r->h.moe_step,
                                            &r->h.moe_period};
    uint32_t period;
    int rc = r->h.arch ? check_period(r, r->h.arch->runtime.unrotated_period, "", e) : 0;
    for (size_t i = 0; rc == 0 && i < sizeof periods / sizeof *periods; i++)
        if (count_of(periods[i], &period))
            rc = check_period(r, period, periods[i]->key.suffix, e);
    if (rc == 0 && r->h.recurrent.key.state != HPARAM_LIST && !count_of(&r->h.full_interval, &period))
        rc = check_period(r, hparams_default_interval(&r->h), "", e);
    return rc;
}

static uint32_t n_dropped(const struct pruning *r, uint32_t first, uint32_t end)
{
    uint32_t n = 0;
    for (uint32_t l = first; l < end; l++)
        n += r->new_index[l] < 0;
    return n;
}

/* `v` is an array with an element for each layer: the elements of those that stay. */
static int cut_array(const struct pruning *r, const char *key, const struct gguf_value *v, struct err *e)
{
    size_t size = gguf_type_size(v->a.elem);
    uint8_t *data = arena_array(r->arena, r->n_kept, size);
    if (!data)
        return no_memory(e);
    for (uint32_t l = 0; l < r->n_layers; l++)
        if (r->new_index[l] >= 0)
            memcpy(data + (size_t)r->new_index[l] * size, (const uint8_t *)v->a.data + l * size, size);
    return gguf_meta_set_array(r->changes, key, v->a.elem, data, r->n_kept, e);
}

/* Arrays of rotary settings have a length of their own, which may be the number of layers by chance. */
static bool is_per_layer(const struct pruning *r, const char *key, const struct gguf_value *v)
{
    size_t n = strlen(r->arch);
    return strncmp(key, r->arch, n) == 0 && key[n] == '.' && v->type == GGUF_ARRAY &&
           v->a.elem != GGUF_STRING && v->a.n == r->n_layers && !starts(key + n, ".rope.");
}

static int change_layers(struct pruning *r, struct err *e)
{
    if (r->n_kept == r->n_layers || !r->arch[0])
        return 0;
    int rc = change_count(r, &r->h.n_blocks, r->n_kept, e);
    if (rc == 0)
        rc = check_periods(r, e);
    uint32_t n;
    if (rc == 0 && count_of(&r->h.n_dense_first, &n) && n <= r->n_layers)
        rc = change_count(r, &r->h.n_dense_first, n - n_dropped(r, 0, n), e);
    if (rc == 0 && count_of(&r->h.n_predict, &n) && n <= r->n_layers)
        rc = change_count(r, &r->h.n_predict, n - n_dropped(r, r->n_layers - n, r->n_layers), e);
    for (size_t i = 0; i < gguf_meta_n(r->meta) && rc == 0; i++)
        if (is_per_layer(r, gguf_meta_key(r->meta, i), gguf_meta_value(r->meta, i)))
            rc = cut_array(r, gguf_meta_key(r->meta, i), gguf_meta_value(r->meta, i), e);
    return rc;
}

/* What the file says of itself and no longer is: its size in words, and whose importance it holds. */
static int remove_stale(struct pruning *r, struct err *e)
{
    size_t n = gguf_meta_n(r->meta);
    r->out->removed_keys = arena_array(r->arena, n + 1, sizeof *r->out->removed_keys);
    if (!r->out->removed_keys)
        return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        const char *key = gguf_meta_key(r->meta, i);
        if (strcmp(key, "general.size_label") == 0 || starts(key, "kerf.imatrix.model") ||
            starts(key, "kerf.imatrix.run"))
            r->out->removed_keys[r->out->n_removed_keys++] = key;
    }
    return 0;
}

/* --- tensors --- */

static int select_tensor(struct pruning *r, const struct gguf_tensor *t, struct err *e)
{
    struct gguf_selected *s = &r->out->tensors[r->out->n];
    const char *rest = NULL;
    int64_t layer = layer_of(t->name, &rest);
    *s = (struct gguf_selected){.from = t, .name = t->name};
    if (layer < 0) {
        r->out->n++;
        return 0;
    }
    if (layer >= r->n_layers)
        return err_set(e, ERR_FORMAT, "tensor '%s': there are %" PRIu32 " layers", t->name, r->n_layers);
    if (r->new_index[layer] < 0)
        return 0;
    char *name = arena_alloc(r->arena, strlen(rest) + 32);
    if (!name)
        return no_memory(e);
    sprintf(name, "blk.%" PRId64 "%s", r->new_index[layer], rest);
    s->name = name;
    if (r->kept[layer] && slices_of(r, t, rest)) {
        s->kept = r->kept[layer];
        s->n_kept = r->n_kept_of[layer];
    }
    r->out->n++;
    return 0;
}

int prune_select(struct gguf_selection **out, const struct prune *p, const struct gguf_reader *in,
                 struct gguf_meta *changes, struct err *e)
{
    struct gguf_selection *s = calloc(1, sizeof *s);
    struct arena *arena = calloc(1, sizeof *arena);
    struct pruning r = {
        .p = p, .in = in, .meta = gguf_reader_meta(in), .changes = changes, .arena = arena, .out = s};
    if (!s || !arena) {
        free(s);
        free(arena);
        return no_memory(e);
    }
    s->owner = arena;
    s->tensors = arena_array(arena, gguf_reader_n_tensors(in) + 1, sizeof *s->tensors);
    int rc = s->tensors ? count_layers(&r, e) : no_memory(e);
    if (rc == 0)
        rc = choose_layers(&r, e);
    if (rc == 0)
        rc = choose_experts(&r, e);
    if (rc == 0)
        rc = change_layers(&r, e);
    if (rc == 0)
        rc = change_experts(&r, e);
    if (rc == 0)
        rc = remove_stale(&r, e);
    for (size_t i = 0; i < gguf_reader_n_tensors(in) && rc == 0; i++)
        rc = select_tensor(&r, gguf_reader_tensor(in, i), e);
    if (rc != 0) {
        prune_selection_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void prune_selection_free(struct gguf_selection *s)
{
    if (!s)
        return;
    arena_release(s->owner);
    free(s->owner);
    free(s);
}
