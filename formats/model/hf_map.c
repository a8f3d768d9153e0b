/* hf_map.c - from the names and shapes of a checkpoint to the list of output tensors.
 *
 * Matching runs from what is there to the rows of the descriptor, so work is bounded by the file; a second
 * pass over the rows finds what is missing. Nothing is skipped silently. Specification, architectures 0.6 to
 * 0.8 and 25. */
#include "hf_map.h"

#include "hf_skip.h"
#include "tensor_name.h"

#include "formats/hf/hf_names.h"

#include "libquant/types.h"

#include <assert.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SHAPE 5 /* dimensions a descriptor may name; an output has at most 4 */

struct mapping {
    struct model *m;
    const struct arch_model *a;
    struct arena *arena;
    struct hf_tensor **items;
    size_t n, cap;
    struct strmap by_name; /* GGUF name -> index of items */
    struct strmap names;   /* plain names of all sources */
    uint64_t position;     /* of the source being placed */
    struct hf_skip skip;
    const char *embedding,
        *head;           /* stored names of the two, as the rows have them; NULL: not in the family */
    const char *wrapper; /* the first that names were freed of; NULL: none */
    size_t n_wrapped;
    bool expected; /* no sources: the rows say what there would be */
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory while mapping tensors");
}

/* "[4096, 2560]" for messages; names-only tensors have no shape. */
static const char *shape_text(char *buf, size_t cap, const uint64_t *shape, uint32_t n)
{
    size_t at = 0;
    buf[0] = '\0';
    for (uint32_t i = 0; i < n && at + 24 < cap; i++)
        at += (size_t)snprintf(buf + at, cap - at, "%s%llu", i ? ", " : "", (unsigned long long)shape[i]);
    return buf;
}

static int add_item(struct mapping *map, struct hf_tensor *t, struct err *e)
{
    if (map->n == map->cap) {
        size_t cap = map->cap ? 2 * map->cap : 256;
        struct hf_tensor **items = realloc(map->items, cap * sizeof(struct hf_tensor *));
        if (!items)
            return no_memory(e);
        map->items = items;
        map->cap = cap;
    }
    if (strmap_put(&map->by_name, t->pub.name, strlen(t->pub.name), map->n, NULL) != 0)
        return no_memory(e);
    map->items[map->n++] = t;
    return 0;
}

/* The shape of an output that is stored in it, slowest first; at most `max` axes. */
static int stored_shape(const struct arch_row *row, const struct checkpoint_weight *s, uint64_t *shape,
                        uint32_t max, uint32_t *n, struct err *e)
{
    uint32_t axes = s->n_dims - (row->narrow && s->n_dims > 1);
    if (s->n_dims == 0 || s->n_elems == 0 || axes > max ||
        (row->narrow && (s->n_dims < 2 || s->shape[axes] != 1)))
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': %u axes%s, expected up to %u%s", s->file, s->name,
                       s->n_dims, s->n_elems == 0 ? " without elements" : "", max + row->narrow,
                       row->narrow ? ", the last of length 1" : "");
    memcpy(shape, s->shape, axes * sizeof *shape);
    *n = axes;
    return 0;
}

/* Shape of the output, and how many sources make it (one stands for a whole stack when none are there). `s`:
 * one of them; NULL: there is none. */
static int new_item(struct mapping *map, const struct arch_row *row, const char *name,
                    const struct checkpoint_weight *s, struct hf_tensor **out, struct err *e)
{
    bool stacked = strstr(row->hf, ".J.") != NULL;
    uint64_t dims[4], shape[MAX_SHAPE];
    uint32_t n = 0, n_lead = 0;
    if (stacked && !row->out) {
        dims[n_lead++] = map->a->value[ARCH_E];
        if (!map->a->known[ARCH_E] || dims[0] == 0)
            return err_set(e, ERR_FORMAT, "config.json: the number of experts is missing, '%s' needs it",
                           row->hf);
    }
    const char *said = row->out ? row->out : row->shape;
    int rc = said ? arch_shape(map->a, said, shape, 4 - n_lead, &n, e)
                  : stored_shape(row, s, shape, 4 - n_lead, &n, e);
    if (rc != 0)
        return rc;
    memcpy(dims + n_lead, shape, n * sizeof *dims);
    n += n_lead;

    struct hf_tensor *t = arena_alloc(map->arena, sizeof *t);
    if (!t)
        return no_memory(e);
    t->row = row;
    t->n_sources = stacked && !map->expected ? (size_t)map->a->value[ARCH_E] : 1;
    t->sources = arena_array(map->arena, t->n_sources, sizeof *t->sources);
    t->pub.name = name;
    t->pub.n_dims = n;
    for (uint32_t i = 0; i < 4; i++)
        t->pub.ne[i] = i < n ? dims[n - 1 - i] : 1;
    t->pub.n_rows = t->pub.ne[1] * t->pub.ne[2] * t->pub.ne[3];
    t->pub.always_f32 = row->type == ARCH_F32 || (row->type == ARCH_AS_NAMED && arch_always_f32(name, n));
    t->pub.fixed = row->type == ARCH_F16          ? FIXED_F16
                   : row->type == ARCH_F16_OR_F32 ? FIXED_F16_OR_F32
                                                  : FIXED_NOT;
    if (!t->sources)
        return no_memory(e);
    *out = t;
    return add_item(map, t, e);
}

/* Rows without a shape take that of the first source; what is beside it in a stack has the same. */
static bool has_shape_of(const struct checkpoint_weight *s, const struct checkpoint_weight *first)
{
    return !first ||
           (s->n_dims == first->n_dims && memcmp(s->shape, first->shape, s->n_dims * sizeof *s->shape) == 0);
}

/* Put `s` into output tensor `row` of this layer, slot `expert`. */
static int place(struct mapping *map, const struct arch_row *row, uint64_t row_rank,
                 const struct checkpoint_weight *s, uint64_t layer, uint64_t expert, struct err *e)
{
    const char *name = arch_name_of(row->gguf, layer, map->arena);
    if (!name)
        return no_memory(e);
    struct hf_tensor *t = NULL;
    uint64_t index;
    if (strmap_find(&map->by_name, name, strlen(name), &index)) {
        t = map->items[index];
    } else {
        int rc = new_item(map, row, name, s, &t, e);
        if (rc != 0)
            return rc;
    }
    if (!row->shape && t->row == row &&
        (s->n_elems * t->n_sources != t->pub.ne[0] * t->pub.n_rows || !has_shape_of(s, t->first)))
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': another shape than others of '%s'", s->file, s->name,
                       name);
    if (t->row != row && t->n_sources == 1 && t->sources[0] == s)
        return 0; /* two layouts fit (equal axes, or no shape known): the one listed first counts */
    if (t->row != row || expert >= t->n_sources || t->sources[expert])
        return expert >= t->n_sources
                   ? err_set(e, ERR_FORMAT, "%s: tensor '%s': expert %llu, but config.json says %zu experts",
                             s->file, s->name, (unsigned long long)expert, t->n_sources)
                   : err_set(e, ERR_FORMAT, "%s: tensor '%s': '%s' is already made from '%s'", s->file,
                             s->name, name, t->sources[expert] ? t->sources[expert]->name : "another layout");
    t->sources[expert] = s;
    t->first = t->first ? t->first : s;
    t->order = s->comes_first ? 0 : map->position;
    t->sub_order = row_rank;
    return 0;
}

/* What matching one name against all rows found. */
struct match {
    bool name_fits, shape_fits;
    const struct arch_row *first; /* whose name fits, for the message */
    uint64_t group_rank;          /* of the first row of the group at hand */
};

static bool shape_equal(const struct checkpoint_weight *s, const uint64_t *shape, uint32_t n)
{
    if (s->n_dims == 0 && s->n_elems == 0)
        return true; /* only the name is known */
    return s->n_dims == n && memcmp(s->shape, shape, n * sizeof *shape) == 0;
}

/* Is this what the row needs beside its source? */
static bool stands_beside(const struct arch_row *row, const char *stripped)
{
    for (size_t i = 0; row->parts && i < ARCH_FOLD_PARTS; i++)
        if (strcmp(row->parts[i].hf, stripped) == 0)
            return true;
    return row->with && arch_match(row->with, stripped, NULL, NULL);
}

static int try_row(struct mapping *map, const struct arch_group *g, const struct arch_row *row, uint64_t rank,
                   const struct checkpoint_weight *s, const char *stripped, struct match *found,
                   struct err *e)
{
    uint64_t layer = 0, expert = 0, shape[MAX_SHAPE];
    uint32_t n;
    if (stands_beside(row, stripped)) {
        found->name_fits = found->shape_fits = true; /* find_companions looks it up */
        return 0;
    }
    if (!arch_match(row->hf, stripped, &layer, &expert))
        return 0;
    uint64_t n_layers = arch_layers(map->a, g);
    if (strstr(row->hf, ".N.") && layer >= n_layers)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': layer %llu, but config.json says %llu layers",
                       s->file, s->name, (unsigned long long)layer, (unsigned long long)n_layers);
    if (!arch_row_applies(map->a, g, row, layer))
        return 0;
    found->name_fits = true;
    if (!found->first)
        found->first = row;
    int rc = row->shape ? arch_shape(map->a, row->shape, shape, MAX_SHAPE, &n, e) : 0;
    if (rc != 0)
        return err_context(e, rc, "%s: tensor '%s'", s->file, s->name);
    if (row->shape && !shape_equal(s, shape, n))
        return 0;
    found->shape_fits = true;
    if (s->comes_first) /* layer by layer of a group */
        rank = found->group_rank << 40 | layer << 20 | (rank - found->group_rank);
    return place(map, row, rank, s, layer, expert, e);
}

static int map_source(struct mapping *map, const struct checkpoint_weight *s, const char *stripped,
                      struct err *e)
{
    struct match found = {0};
    uint64_t rank = 0;
    for (const struct arch_group *g = map->a->arch->groups; g->rows; g++) {
        found.group_rank = rank;
        for (size_t i = 0; i < g->n; i++, rank++) {
            int rc = try_row(map, g, &g->rows[i], rank, s, stripped, &found, e);
            if (rc != 0)
                return rc;
        }
    }
    if (!found.name_fits && s->is_beside_packed && checkpoint_weight_is_zero(s, map->m->kern))
        return model_add_line(map->m, &map->m->skipped, e, "%s: a bias of zeros that the quantizer added",
                              s->name);
    bool empty = s->plain && s->plain->data && s->n_elems == 0;
    if (!found.name_fits && empty)
        return model_add_line(map->m, &map->m->skipped, e, "%s: a tensor without elements", s->name);
    if (!found.name_fits)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tensor '%s': architecture '%s' has no such tensor; if the model can do without it, "
            "leave it out with --skip-tensor",
            s->file, s->name, map->a->arch->name);
    if (!found.shape_fits && empty)
        return err_set(
            e, ERR_FORMAT,
            "%s: tensor '%s': it is empty, as DeepSpeed ZeRO 3 leaves weights that were saved without "
            "gathering them; save the model again",
            s->file, s->name);
    if (!found.shape_fits) {
        char want[120], have[200];
        uint64_t shape[MAX_SHAPE];
        uint32_t n = 0;
        int rc = arch_shape(map->a, found.first->shape, shape, MAX_SHAPE, &n, e);
        if (rc != 0)
            return rc;
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': shape [%s] expected from config.json, found [%s]",
                       s->file, s->name, shape_text(want, sizeof want, shape, n),
                       shape_text(have, sizeof have, s->shape, s->n_dims));
    }
    if (!s->is_weight)
        return err_set(e, ERR_UNSUPPORTED, "%s: tensor '%s': a weight of type %s cannot be read", s->file,
                       s->name, s->type_name);
    return 0;
}

/* The name that the rows know. NULL when memory is refused. */
static const char *plain_name(struct mapping *map, const char *name)
{
    const char *wrapper = NULL, *plain = hf_name_unwrap(name, map->arena, &wrapper);
    if (wrapper) {
        map->wrapper = map->wrapper ? map->wrapper : wrapper;
        map->n_wrapped++;
    }
    return plain ? arch_strip(map->a, plain, map->arena) : NULL;
}

static void find_ends(struct mapping *map)
{
    for (const struct arch_group *g = map->a->arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++) {
            if (strcmp(g->rows[i].gguf, "token_embd.weight") == 0)
                map->embedding = g->rows[i].hf;
            if (g->rows[i].presence == ARCH_HEAD)
                map->head = g->rows[i].hf;
        }
}

/* Only the head of a tied pair is stored: it is the embedding (transformers ties them both ways). */
static bool head_alone(const struct mapping *map, const char *const *plain, size_t n)
{
    bool embedding = false, head = false;
    for (size_t i = 0; map->a->tied && map->embedding && map->head && i < n; i++) {
        embedding |= strcmp(plain[i], map->embedding) == 0;
        head |= strcmp(plain[i], map->head) == 0;
    }
    return head && !embedding;
}

/* Scales whose weight is not stored: what fusing an MLX model leaves of a tied head. */
static bool is_orphan(const struct mapping *map, const char *plain)
{
    static const char *const parts[] = {".scales", ".biases"}, *const weights[] = {".weight", ".qweight"};
    char name[300];
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(plain), k = strlen(parts[i]);
        if (n <= k || strcmp(plain + n - k, parts[i]) != 0)
            continue;
        for (size_t j = 0; j < 2; j++) {
            int len = snprintf(name, sizeof name, "%.*s%s", (int)(n - k), plain, weights[j]);
            if (len < 0 || (size_t)len >= sizeof name || strmap_find(&map->names, name, (size_t)len, NULL))
                return false;
        }
        return true;
    }
    return false;
}

static int map_one(struct mapping *map, const struct checkpoint_weight *s, const char *plain, struct err *e)
{
    const char *reason = s->dropped;
    if (!reason && is_orphan(map, plain))
        reason = "scales of a weight that is not stored";
    int rc = 0;
    if (!reason)
        rc = hf_skip_reason(&map->skip, s->name, plain, &reason, e);
    if (rc == 0 && reason)
        return model_add_line(map->m, &map->m->skipped, e, "%s: %s", s->name, reason);
    if (rc == 0 && hf_name_is_adapter(s->name))
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tensor '%s' belongs to an adapter that was not merged into the weights; merge it "
                       "(merge_and_unload of PEFT) and save the model again",
                       s->file, s->name);
    return rc == 0 ? map_source(map, s, plain, e) : rc;
}

/* Before any other word about such a checkpoint: the scales beside its parts have names of their own. */
static int refuse_quanto(const struct checkpoint_weight *sources, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (hf_name_is_quanto(sources[i].name))
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: tensor '%s' is part of a weight that optimum-quanto has compressed, which is "
                           "not read; start from the original weights",
                           sources[i].file, sources[i].name);
    return 0;
}

static int map_all(struct mapping *map, const struct checkpoint_weight *sources, size_t n, struct err *e)
{
    const char **plain = arena_array(map->arena, n + 1, sizeof(const char *));
    if (!plain)
        return no_memory(e);
    for (size_t i = 0; i < n; i++)
        if (!(plain[i] = plain_name(map, sources[i].name)) ||
            strmap_put(&map->names, plain[i], strlen(plain[i]), i, NULL) != 0)
            return no_memory(e);
    bool swapped = head_alone(map, plain, n);
    int rc = refuse_quanto(sources, n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        map->position = i + 1;
        bool is_embedding = swapped && strcmp(plain[i], map->head) == 0;
        rc = map_one(map, &sources[i], is_embedding ? map->embedding : plain[i], e);
    }
    return rc;
}

/* What names and expressions had in them, once all are mapped. */
static int tell_of_names(struct mapping *map, struct err *e)
{
    struct model *m = map->m;
    int rc = 0;
    if (map->n_wrapped)
        rc = model_add_line(
            m, &m->warnings, e,
            "[names-unwrapped] names of %zu tensor%s have components that a training program put around the "
            "model ('%s' is the first); they are read without",
            map->n_wrapped, map->n_wrapped == 1 ? "" : "s", map->wrapper);
    for (size_t i = 0; rc == 0 && i < map->skip.opt->n_skip_tensors; i++)
        if (!map->skip.used[i])
            rc = model_add_line(m, &m->warnings, e, "[option-idle] --skip-tensor '%s' fits no tensor",
                                map->skip.opt->skip_tensors[i]);
    return rc;
}

static struct hf_tensor *find_item(const struct mapping *map, const char *name)
{
    uint64_t i;
    return strmap_find(&map->by_name, name, strlen(name), &i) ? map->items[i] : NULL;
}

/* The other layout of the same source and output: with the last two axes swapped, or not. */
static const struct arch_row *turned(const struct mapping *map, const struct arch_row *row)
{
    for (const struct arch_group *g = map->a->arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++)
            if (strcmp(g->rows[i].hf, row->hf) == 0 && strcmp(g->rows[i].gguf, row->gguf) == 0 &&
                g->rows[i].transpose != row->transpose)
                return &g->rows[i];
    return NULL;
}

/* Stacks of square matrices fit both layouts. One of gate-and-up and down is never square, and the same
 * program stored both, so that one decides. */
static void settle_square_stacks(struct mapping *map)
{
    for (size_t i = 0; i < map->n; i++) {
        struct hf_tensor *t = map->items[i];
        const struct checkpoint_weight *s = t->n_sources == 1 ? t->sources[0] : NULL;
        const char *kind;
        int64_t layer = tensor_layer(t->pub.name, &kind);
        if (!s || s->n_dims != 3 || s->shape[1] != s->shape[2] || layer < 0 || !strstr(kind, "_exps."))
            continue;
        bool is_down = strncmp(kind, "ffn_down_exps", 13) == 0;
        char other[TENSOR_NAME_MAX];
        tensor_name_of(other, (uint64_t)layer, is_down ? "ffn_gate_exps.weight" : "ffn_down_exps.weight");
        const struct hf_tensor *witness = find_item(map, other);
        const struct arch_row *row = turned(map, t->row);
        if (witness && witness->n_sources == 1 && row && witness->row->transpose != t->row->transpose)
            t->row = row;
    }
}

/* The first few missing names, and how many more. */
struct missing {
    char text[300];
    size_t n;
};

static void note_missing(struct missing *miss, const char *hf_pattern, uint64_t layer, struct arena *arena)
{
    size_t used = strlen(miss->text);
    const char *name = arch_name_of(hf_pattern, layer, arena);
    if (miss->n++ < 3 && name)
        snprintf(miss->text + used, sizeof miss->text - used, "%s%s", used ? ", " : "", name);
}

static void check_stack(const struct mapping *map, const struct hf_tensor *t, uint64_t layer,
                        struct missing *miss)
{
    for (size_t j = 0; j < t->n_sources; j++)
        if (!t->sources[j])
            note_missing(miss, t->row->hf, layer, map->arena);
}

/* A row counts as present when any row made its output: alternatives share the GGUF name. */
static int check_complete(struct mapping *map, struct err *e)
{
    struct missing miss = {.n = 0};
    for (const struct arch_group *g = map->a->arch->groups; g->rows; g++) {
        uint64_t n_layers = arch_layers(map->a, g);
        for (size_t i = 0; i < g->n; i++) {
            const struct arch_row *row = &g->rows[i];
            bool layered = strstr(row->gguf, ".N.") != NULL;
            for (uint64_t layer = 0; layer < (layered ? n_layers : 1); layer++) {
                if (!arch_row_applies(map->a, g, row, layer))
                    continue;
                const char *name = arch_name_of(row->gguf, layer, map->arena);
                if (!name)
                    return no_memory(e);
                const struct hf_tensor *t = find_item(map, name);
                if (t && t->row == row)
                    check_stack(map, t, layer, &miss);
                else if (!t && row->presence == ARCH_REQUIRED)
                    note_missing(&miss, row->hf, layer, map->arena);
            }
        }
    }
    if (miss.n == 0)
        return 0;
    char more[40] = "";
    if (miss.n > 3)
        snprintf(more, sizeof more, ", and %zu more", miss.n - 3);
    return err_set(e, ERR_FORMAT, "%s: %zu expected tensor%s missing: %s%s", map->m->path, miss.n,
                   miss.n == 1 ? " is" : "s are", miss.text, more);
}

/* One row of either; a packed head stands for the embedding when no row is further from it than coarse
 * packing makes it. */
static bool rows_fit(const float *a, const float *b, uint64_t n, bool exact)
{
    double difference = 0, size = 0;
    for (uint64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return exact ? difference == 0 : difference <= 0.5 * size;
}

/* Are head and embedding one matrix, as far as their packing can hold it? Nothing is to be said about one of
 * which only the name is known. */
static int is_same(const struct mapping *map, const struct checkpoint_weight *a,
                   const struct checkpoint_weight *b, bool *same, struct err *e)
{
    *same = true;
    if (!map->m->has_weights)
        return 0;
    if (a->raw && b->raw && a->type == b->type) {
        *same = a->n_elems == b->n_elems && memcmp(a->raw, b->raw, a->plain->n_bytes) == 0;
        return 0;
    }
    const uint64_t n_cols = a->shape[a->n_dims - 1], n_at_once = 64 * n_cols; /* packed rows come in crowds */
    const bool exact = !a->packed && !b->packed;
    float *x = malloc(2 * n_at_once * sizeof *x), *y = x + n_at_once;
    int rc = x ? 0 : no_memory(e);
    *same = a->n_elems == b->n_elems;
    for (uint64_t at = 0; rc == 0 && *same && at < a->n_elems; at += n_at_once) {
        uint64_t n = a->n_elems - at < n_at_once ? a->n_elems - at : n_at_once;
        rc = checkpoint_weight_read(a, map->m->kern, at, n, x, e);
        if (rc == 0)
            rc = checkpoint_weight_read(b, map->m->kern, at, n, y, e);
        for (uint64_t i = 0; rc == 0 && *same && i < n; i += n_cols)
            *same = rows_fit(x + i, y + i, n_cols, exact);
    }
    free(x);
    return rc;
}

static void remove_item(struct mapping *map, struct hf_tensor *t)
{
    size_t i = 0;
    while (map->items[i] != t)
        i++;
    memmove(&map->items[i], &map->items[i + 1], (map->n - i - 1) * sizeof *map->items);
    map->n--; /* by_name is not asked again */
}

/* Specification, architectures 0.6. Called last: it changes the list behind by_name's back. */
static int settle_head(struct mapping *map, struct err *e)
{
    struct model *m = map->m;
    struct hf_tensor *head = find_item(map, "output.weight"), *embd = find_item(map, "token_embd.weight");
    bool mandatory = (map->a->arch->quirks & ARCH_HEAD_MANDATORY) != 0;
    int rc = 0;
    if (!embd || (map->a->answer != ARCH_TOKENS && !head))
        return 0;
    if (head && map->a->tied) {
        const struct checkpoint_weight *s = head->sources[0];
        bool same;
        rc = is_same(map, s, embd->sources[0], &same, e);
        if (rc == 0 && !same && map->a->answer == ARCH_YES_NO)
            return err_set(
                e, ERR_UNSUPPORTED,
                "%s: a reranker whose '%s' differs from the embedding, though config.json says "
                "tie_word_embeddings; which of the two holds its answer is not known: set it to false "
                "when the head does",
                s->file, s->name);
        if (rc == 0 && !same)
            return model_add_line(m, &m->warnings, e,
                                  "[head-kept] '%s' differs from the embedding, though config.json says "
                                  "tie_word_embeddings: both are kept, "
                                  "as transformers does; the configuration should say false",
                                  s->name);
        if (rc != 0 || mandatory)
            return rc;
        rc = model_add_line(m, &m->skipped, e,
                            "%s: tied to the embedding, which config.json says is used instead", s->name);
        remove_item(map, head);
    } else if (!head && !map->a->tied && !mandatory) {
        rc = model_add_line(m, &m->warnings, e,
                            "[head-from-embedding] no lm_head.weight, though config.json does not tie it: "
                            "the embedding serves as head");
    } else if (!head && mandatory) {
        struct hf_tensor *copy = arena_alloc(map->arena, sizeof *copy);
        if (!copy)
            return no_memory(e);
        *copy = *embd;
        copy->pub.name = "output.weight";
        copy->sub_order++;
        rc = add_item(map, copy, e);
    }
    return rc;
}

static int add_rope_freqs(struct mapping *map, struct err *e)
{
    static const struct arch_row computed_row = {.hf = "", .gguf = "rope_freqs.weight", .shape = "d/2"};
    if (!(map->a->arch->quirks & ARCH_ROPE_FREQS) || map->a->rope.type != ROPE_LLAMA3)
        return 0;
    struct hf_tensor *t;
    int rc = new_item(map, &computed_row, computed_row.gguf, NULL, &t, e);
    if (rc != 0)
        return rc;
    float *phi = arena_array(map->arena, t->pub.ne[0], sizeof *phi);
    if (!phi)
        return no_memory(e);
    arch_rope_freqs(map->a, phi);
    t->computed = phi;
    t->n_sources = 0;
    return 0;
}

/* What no checkpoint holds: rows with values of their own. */
static int add_computed(struct mapping *map, struct err *e)
{
    int rc = 0;
    for (const struct arch_group *g = map->a->arch->groups; rc == 0 && g->rows; g++)
        for (size_t i = 0; rc == 0 && i < g->n; i++) {
            struct hf_tensor *t;
            if (!g->rows[i].compute || !arch_row_applies(map->a, g, &g->rows[i], 0))
                continue;
            rc = new_item(map, &g->rows[i], g->rows[i].gguf, NULL, &t, e);
            float *values =
                rc == 0 ? arena_array(map->arena, t->pub.ne[0] * t->pub.n_rows, sizeof *values) : NULL;
            if (rc == 0 && !values)
                rc = no_memory(e);
            if (rc == 0) {
                g->rows[i].compute(map->a, values);
                t->computed = values;
                t->n_sources = 0;
            }
        }
    return rc;
}

/* The tensor that stands beside source `j`, by its name. */
static int find_companion(struct mapping *map, struct hf_tensor *t, size_t j,
                          const struct checkpoint_weight *sources, struct err *e)
{
    const char *pattern = t->row->with, *at = strstr(pattern, ".J.");
    const char *name =
        at ? arena_printf(map->arena, "%.*s.%zu.%s", (int)(at - pattern), pattern, j, at + 3) : pattern;
    uint64_t i, n_rows = t->pub.n_rows / t->n_sources;
    if (!name)
        return no_memory(e);
    if (!strmap_find(&map->names, name, strlen(name), &i))
        return err_set(e, ERR_FORMAT, "%s: tensor '%s' needs '%s', which is missing", t->sources[j]->file,
                       t->sources[j]->name, name);
    if (!sources[i].is_weight || sources[i].n_elems != n_rows)
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%s': %llu numbers of type %s, expected %llu, one for each row of '%s'",
                       sources[i].file, sources[i].name, (unsigned long long)sources[i].n_elems,
                       sources[i].type_name, (unsigned long long)n_rows, t->sources[j]->name);
    t->with[j] = &sources[i];
    return 0;
}

/* What is folded into the source, which then stands where the last of them does. */
static int find_parts(struct mapping *map, struct hf_tensor *t, const struct checkpoint_weight *sources,
                      struct err *e)
{
    t->with = arena_array(map->arena, ARCH_FOLD_PARTS, sizeof *t->with);
    if (!t->with)
        return no_memory(e);
    for (size_t j = 0; j < ARCH_FOLD_PARTS; j++) {
        const struct arch_part *part = &t->row->parts[j];
        char want[120], have[200];
        uint64_t i, shape[MAX_SHAPE];
        uint32_t n;
        if (!strmap_find(&map->names, part->hf, strlen(part->hf), &i))
            return err_set(e, ERR_FORMAT, "%s: tensor '%s' needs '%s', which is missing", t->sources[0]->file,
                           t->sources[0]->name, part->hf);
        const struct checkpoint_weight *s = &sources[i];
        int rc = arch_shape(map->a, part->shape, shape, MAX_SHAPE, &n, e);
        if (rc != 0)
            return err_context(e, rc, "%s: tensor '%s'", s->file, s->name);
        if (!s->is_weight || !shape_equal(s, shape, n))
            return err_set(e, ERR_FORMAT, "%s: tensor '%s': %s [%s], expected weights of shape [%s]", s->file,
                           s->name, s->type_name, shape_text(have, sizeof have, s->shape, s->n_dims),
                           shape_text(want, sizeof want, shape, n));
        t->with[j] = s;
        t->order = i + 1 > t->order ? i + 1 : t->order;
    }
    return 0;
}

static int find_companions(struct mapping *map, const struct checkpoint_weight *sources, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < map->n; i++) {
        struct hf_tensor *t = map->items[i];
        if (t->row->parts)
            rc = find_parts(map, t, sources, e);
        if (t->computed || !t->row->with)
            continue;
        t->with = arena_array(map->arena, t->n_sources, sizeof *t->with);
        rc = t->with ? 0 : no_memory(e);
        for (size_t j = 0; rc == 0 && j < t->n_sources; j++)
            rc = find_companion(map, t, j, sources, e);
    }
    return rc;
}

/* Type, size, raw bytes and origin, once all sources are known. */
static int finish_item(struct mapping *map, struct hf_tensor *t, struct err *e)
{
    const struct arch_row *row = t->row;
    struct model_tensor *p = &t->pub;
    if (t->computed) {
        p->type = QTYPE_F32;
        p->source_type = "F32";
        p->origin = row->compute ? "config.json: computed" : "config.json: rope_scaling";
    } else {
        const struct checkpoint_weight *s = t->sources[0];
        p->type = row->op == ARCH_KEEP || row->op == ARCH_PAD_ROWS ? s->type : QTYPE_F32;
        p->source_type = s->type_name;
        for (size_t j = 1; j < t->n_sources; j++)
            if (t->sources[j]->type != p->type)
                p->type = QTYPE_F32;
        bool as_stored =
            t->n_sources == 1 && !row->rows && !row->cols && !row->transpose && row->op == ARCH_KEEP;
        p->raw = as_stored ? s->raw : NULL;
        p->origin = t->n_sources == 1 ? arena_printf(map->arena, "%s: %s", s->file, s->name)
                                      : arena_printf(map->arena, "%s: %s and %zu more experts", s->file,
                                                     s->name, t->n_sources - 1);
    }
    uint64_t row_bytes;
    if (!p->origin)
        return no_memory(e);
    if (!qtype_row_bytes(p->type, p->ne[0], &row_bytes) ||
        __builtin_mul_overflow(row_bytes, p->n_rows, &p->n_bytes))
        return err_set(e, ERR_FORMAT, "%s: tensor '%s' is too large", map->m->path, p->name);
    return 0;
}

/* The factors of the matrices of `t`: from each expert's source, or from the stack. */
static float factor_of(const struct hf_tensor *t, uint64_t m)
{
    return t->n_sources == 1 ? hf_packed_block_factor(t->sources[0]->packed, m)
                             : hf_packed_block_factor(t->sources[m]->packed, 0);
}

/* Are all factors 1? Refuse those that no quantizer means: the largest value of a block, 6 times a scale of
 * 448, must stay a float. A factor of zero may stand beside weights that are all zero, but tell of it. */
static int check_factors(struct mapping *map, const struct hf_tensor *t, bool *all_one, struct err *e)
{
    uint64_t n_mats = t->pub.ne[2] * t->pub.ne[3];
    int rc = 0;
    *all_one = true;
    for (uint64_t m = 0; rc == 0 && m < n_mats; m++) {
        float v = factor_of(t, m);
        const struct checkpoint_weight *s = t->sources[t->n_sources == 1 ? 0 : m];
        *all_one = *all_one && v == 1;
        if (hf_packed_is_names(
                s->packed)) /* what it is shows in the weights; that it is 1 is not to be expected */
            continue;
        if (!(v >= 0) || v > FLT_MAX / (6 * 448))
            rc = err_set(e, ERR_FORMAT,
                         "%s: weight '%s': its global scale makes a factor of %g, expected a positive one "
                         "that keeps every value finite; the checkpoint is damaged, fetch it again",
                         s->file, s->name, (double)v);
        else if (v == 0)
            rc = model_add_line(map->m, &map->m->warnings, e,
                                "[zero-scale] weight '%s' has a global scale that makes all its values zero",
                                s->name);
    }
    return rc;
}

/* Keep `t` in the blocks that its sources are made of; factors beside them become a tensor of their own. */
static int keep_packed(struct mapping *map, struct hf_tensor *t, struct err *e)
{
    static const struct arch_row scale_row = {.hf = "", .gguf = "", .shape = ""};
    struct model_tensor *p = &t->pub;
    uint64_t row_bytes, n_mats = p->ne[2] * p->ne[3];
    enum qtype type;
    bool all_one;
    if (!hf_block_type(map->a, t, &type) || !qtype_row_bytes(type, p->ne[0], &row_bytes))
        return 0;
    int rc = check_factors(map, t, &all_one, e);
    if (rc)
        return rc;
    if (!all_one && !arch_reads_factor(map->a->arch, p->name))
        return 0;
    p->type = type;
    p->has_blocks = true;
    p->n_bytes = row_bytes * p->n_rows;
    if (all_one)
        return 0;
    size_t stem = strlen(p->name) - strlen(".weight");
    struct hf_tensor *s = arena_alloc(map->arena, sizeof *s);
    float *values = arena_array(map->arena, n_mats, sizeof *values);
    char *name = arena_printf(map->arena, "%.*s.scale", (int)stem, p->name);
    if (!s || !values || !name)
        return no_memory(e);
    for (uint64_t m = 0; m < n_mats; m++)
        values[m] = factor_of(t, m);
    *s = (struct hf_tensor){.row = &scale_row, .computed = values, .order = t->order};
    s->sub_order = t->sub_order + ((uint64_t)1 << 32); /* behind the weights of its source */
    s->pub = (struct model_tensor){.name = name,
                                   .n_dims = 1,
                                   .ne = {n_mats, 1, 1, 1},
                                   .n_rows = 1,
                                   .type = QTYPE_F32,
                                   .source_type = "F32",
                                   .always_f32 = true,
                                   .n_bytes = 4 * n_mats,
                                   .origin = p->origin};
    p->scale = &s->pub;
    return add_item(map, s, e);
}

/* Weights in 4-bit floats that could not be kept, in one line. */
static int report_unpacked(struct mapping *map, struct err *e)
{
    const struct hf_tensor *first = NULL;
    size_t n = 0;
    for (size_t i = 0; i < map->n; i++) {
        const struct hf_tensor *t = map->items[i];
        if (t->pub.has_blocks || t->n_sources == 0 || !t->sources[0]->packed ||
            !hf_packed_is_fp4(t->sources[0]->packed))
            continue;
        first = first ? first : t;
        n++;
    }
    if (n == 0)
        return 0;
    return model_add_line(
        map->m, &map->m->warnings, e,
        "[packed-unpacked] %zu weight%s of 4-bit floats cannot stay packed and %s dequantized, the first is "
        "'%s': rows or experts do not fit into whole blocks, or llama.cpp would not multiply "
        "by their factor",
        n, n == 1 ? "" : "s", n == 1 ? "is" : "are", first->pub.name);
}

static int by_order(const void *pa, const void *pb)
{
    const struct hf_tensor *a = *(struct hf_tensor *const *)pa, *b = *(struct hf_tensor *const *)pb;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return a->sub_order < b->sub_order ? -1 : a->sub_order > b->sub_order;
}

/* The tensor of one row in one layer, unless another layout of it stands before. */
static int expect(struct mapping *map, const struct arch_row *row, uint64_t layer,
                  const struct checkpoint_weight *like, struct err *e)
{
    struct hf_tensor *t;
    const char *name = arch_name_of(row->gguf, layer, map->arena);
    if (!name)
        return no_memory(e);
    if ((row->presence == ARCH_HEAD ? map->a->tied : !arch_row_expected(map->a, row)) || find_item(map, name))
        return 0;
    if (!row->out && !row->shape)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: '%s' has a shape that config.json does not give; the weights must be there",
                       map->m->path, row->hf);
    int rc = new_item(map, row, name, NULL, &t, e);
    if (rc != 0)
        return rc;
    struct checkpoint_weight *s = arena_alloc(map->arena, sizeof *s);
    if (!s)
        return no_memory(e);
    *s = *like;
    s->name = arch_name_of(row->hf, layer, map->arena);
    if (!s->name)
        return no_memory(e);
    t->sources[0] = s;
    t->order = ++map->position;
    return 0;
}

static int expect_group(struct mapping *map, const struct arch_group *g, uint64_t layer, bool layered,
                        const struct checkpoint_weight *like, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < g->n; i++)
        if ((strstr(g->rows[i].gguf, ".N.") != NULL) == layered &&
            arch_row_applies(map->a, g, &g->rows[i], layer))
            rc = expect(map, &g->rows[i], layer, like, e);
    return rc;
}

/* What no layer owns, then layer by layer. */
static int expect_all(struct mapping *map, const struct checkpoint_weight *like, struct err *e)
{
    const struct arch_group *groups = map->a->arch->groups;
    uint64_t n_layers = 0;
    int rc = 0;
    for (const struct arch_group *g = groups; rc == 0 && g->rows; g++) {
        n_layers = arch_layers(map->a, g) > n_layers ? arch_layers(map->a, g) : n_layers;
        rc = expect_group(map, g, 0, false, like, e);
    }
    for (uint64_t layer = 0; rc == 0 && layer < n_layers; layer++)
        for (const struct arch_group *g = groups; rc == 0 && g->rows; g++)
            if (layer < arch_layers(map->a, g))
                rc = expect_group(map, g, layer, true, like, e);
    return rc;
}

/* From the items to the model's list; `packed_too`: weights in 4-bit floats stay in their blocks. */
static int finish(struct mapping *map, bool packed_too, struct err *e)
{
    struct model *m = map->m;
    int rc = settle_head(map, e);
    size_t n_mapped = map->n;
    for (size_t i = 0; rc == 0 && i < n_mapped; i++) {
        rc = finish_item(map, map->items[i], e);
        if (rc == 0 && packed_too)
            rc = keep_packed(map, map->items[i], e);
    }
    if (rc == 0 && packed_too)
        rc = report_unpacked(map, e);
    if (rc == 0) {
        qsort(map->items, map->n, sizeof *map->items, by_order);
        m->tensors = arena_array(&m->arena, map->n + 1, sizeof *m->tensors);
        m->n_tensors = map->n;
        rc = m->tensors ? 0 : no_memory(e);
        for (size_t i = 0; rc == 0 && i < map->n; i++)
            m->tensors[i] = &map->items[i]->pub;
    }
    return rc;
}

static void release(struct mapping *map)
{
    if (map->skip.opt)
        hf_skip_release(&map->skip);
    strmap_release(&map->by_name);
    strmap_release(&map->names);
    free(map->items);
}

int hf_map(struct model *m, const struct arch_model *a, const struct checkpoint_weight *sources,
           size_t n_sources, const struct model_options *opt, struct err *e)
{
    struct mapping map = {.m = m, .a = a, .arena = &m->arena};
    find_ends(&map);
    int rc = hf_skip_init(&map.skip, a, opt, e);
    if (rc == 0)
        rc = map_all(&map, sources, n_sources, e);
    if (rc == 0)
        rc = tell_of_names(&map, e);
    if (rc == 0)
        settle_square_stacks(&map);
    if (rc == 0)
        rc = add_rope_freqs(&map, e);
    if (rc == 0)
        rc = add_computed(&map, e);
    if (rc == 0)
        rc = check_complete(&map, e);
    if (rc == 0)
        rc = find_companions(&map, sources, e);
    if (rc == 0)
        rc = finish(&map, opt->keep_packed, e);
    release(&map);
    return rc;
}

int hf_map_absent(struct model *m, const struct arch_model *a, const struct hf_checkpoint *c,
                  const struct model_options *opt, struct err *e)
{
    struct mapping map = {.m = m, .a = a, .arena = &m->arena};
    size_t n = hf_checkpoint_n_absent(c), n_needed = 0;
    size_t *needed = arena_array(&m->arena, n + 1, sizeof *needed);
    find_ends(&map);
    int rc = needed ? hf_skip_init(&map.skip, a, opt, e) : no_memory(e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const char *name = hf_checkpoint_absent(c, i), *plain = plain_name(&map, name), *reason = NULL;
        rc = plain ? hf_skip_reason(&map.skip, name, plain, &reason, e) : no_memory(e);
        if (rc == 0 && !reason && a->tied && map.head && strcmp(plain, map.head) == 0)
            reason = "tied to the embedding";
        if (rc == 0 && reason)
            rc = model_add_line(m, &m->skipped, e, "%s: in the index, but in no file: %s", name, reason);
        else if (rc == 0)
            needed[n_needed++] = i;
    }
    if (rc == 0 && n_needed)
        rc = hf_checkpoint_refuse_absent(c, needed, n_needed, e);
    release(&map);
    return rc;
}

int hf_map_expected(struct model *m, const struct arch_model *a, const struct checkpoint_weight *like,
                    struct err *e)
{
    struct mapping map = {.m = m, .a = a, .arena = &m->arena, .expected = true};
    int rc = add_rope_freqs(&map, e);
    if (rc == 0)
        rc = add_computed(&map, e);
    if (rc == 0)
        rc = expect_all(&map, like, e);
    if (rc == 0)
        rc = finish(&map, false, e);
    release(&map);
    return rc;
}
