/* model_verify.c - see model_verify.h.
 *
 * Names and shapes come from the same descriptors that convert checkpoints (formats/arch), with the numbers
 * and the kinds of layers read back from the metadata. A row that is optional in a family is asked for in
 * every layer when some layer has it: no model has a bias here and there.
 * Truth: specification, architectures 1 to 17 (tables of tensors), quantization 6.6 (valid blocks). */
#include "model_verify.h"

#include "formats/model/hparams.h"
#include "formats/model/model_check.h"
#include "formats/model/tensor_name.h"
#include "model_verify_internal.h"

#include "formats/arch/arch.h"
#include "formats/gguf/gguf_read.h"
#include "formats/tokenizer/vocabulary.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int verify_add(struct verify_owner *o, struct string_list *l, struct err *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(l, &o->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : err_set(e, ERR_NOMEM, "out of memory for the findings");
}

/* --- names and shapes --- */

static bool has_tensor(const struct model *m, uint64_t layer, const char *kind)
{
    return model_find_in(m, layer, kind) != NULL;
}

/* No key says which layers have no experts: their tensors do. */
static bool is_plain_layer(const struct model *m, uint64_t layer)
{
    return !has_tensor(m, layer, "ffn_gate_inp.weight") &&
           (has_tensor(m, layer, "ffn_gate.weight") || has_tensor(m, layer, "ffn_up.weight") ||
            has_tensor(m, layer, "ffn_down.weight"));
}

/* Which layers are gated delta nets; of a sparse model, which have no experts. */
static void layers_of(struct arch_model *a, const struct model *m)
{
    memset(a->linear_layers, 0, sizeof a->linear_layers);
    memset(a->dense_layers, 0, sizeof a->dense_layers);
    for (uint64_t i = 0; i < a->value[ARCH_L] && i < ARCH_MAX_LAYERS; i++) {
        if (hparams_is_recurrent(model_hparams(m), i))
            a->linear_layers[i / 64] |= (uint64_t)1 << (i % 64);
        if (is_plain_layer(m, i))
            a->dense_layers[i / 64] |= (uint64_t)1 << (i % 64);
    }
}

static void numbers_of(struct arch_model *a, const struct model *m)
{
    const struct model_tensor *embd = model_find(m, "token_embd.weight"),
                              *head = model_find(m, "output.weight");
    hparams_symbols(model_hparams(m), a);
    layers_of(a, m);
    if (embd) {
        a->value[ARCH_V] = embd->ne[1];
        a->known[ARCH_V] = true;
    }
    if (head && embd && head->ne[1] < embd->ne[1]) {
        a->value[ARCH_TC] = head->ne[1];
        a->known[ARCH_TC] = true;
    }
}

/* The layers that have a tensor. */
struct layer_use {
    uint64_t used[(ARCH_MAX_LAYERS + ARCH_MAX_EXTRA) / 64]; /* bit per layer */
    uint64_t n, end;                                        /* how many; the last and one */
};

static bool is_used(const struct layer_use *use, uint64_t layer)
{
    return layer / 64 < sizeof use->used / sizeof *use->used && (use->used[layer / 64] >> (layer % 64) & 1);
}

static struct layer_use layers_in_use(const struct model *m)
{
    struct layer_use use = {.n = 0};
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        int64_t found = tensor_layer(model_tensor(m, i)->name, NULL);
        uint64_t layer = (uint64_t)found;
        if (found < 0 || layer >= ARCH_MAX_LAYERS || is_used(&use, layer))
            continue;
        use.used[layer / 64] |= (uint64_t)1 << (layer % 64);
        use.n++;
        use.end = layer >= use.end ? layer + 1 : use.end;
    }
    return use;
}

/* Shape of a row's output in GGUF order, padded with 1; false when the metadata lacks a number for it. */
static bool expected_shape(const struct arch_model *a, const struct arch_row *row, uint64_t ne[4])
{
    char text[200];
    uint64_t dims[4];
    uint32_t n;
    bool stacked = !row->out && strstr(row->hf, ".J.") != NULL;
    snprintf(text, sizeof text, "%s%s", stacked ? "E," : "", row->out ? row->out : row->shape);
    if (arch_shape(a, text, dims, 4, &n, NULL) != 0)
        return false;
    for (uint32_t d = 0; d < 4; d++)
        ne[d] = d < n ? dims[n - 1 - d] : 1;
    return true;
}

enum shape_verdict { SHAPE_UNKNOWN_NAME, SHAPE_FITS, SHAPE_UNCHECKED, SHAPE_WRONG };

static enum shape_verdict judge(const struct arch_model *a, const struct model_tensor *t, uint64_t want[4])
{
    enum shape_verdict verdict = SHAPE_UNKNOWN_NAME;
    for (const struct arch_group *g = a->arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++) {
            uint64_t layer, expert, ne[4];
            if (!arch_match(g->rows[i].gguf, t->name, &layer, &expert))
                continue;
            if (!g->rows[i].out && !g->rows[i].shape)
                return SHAPE_FITS; /* no number says it */
            if (!expected_shape(a, &g->rows[i], ne)) {
                verdict = verdict == SHAPE_WRONG ? verdict : SHAPE_UNCHECKED;
            } else if (memcmp(ne, t->ne, sizeof ne) == 0) {
                return SHAPE_FITS;
            } else {
                memcpy(want, ne, sizeof ne);
                verdict = SHAPE_WRONG;
            }
        }
    return verdict;
}

#define FUSED                                                                                                \
    ".ffn_gate_up_exps." /* gate and up of the experts in one tensor, as llama.cpp's converter can write     \
                            them */

/* The same, and for such a tensor that it is a gate of half the rows. */
static enum shape_verdict judge_also_fused(const struct arch_model *a, const struct model_tensor *t,
                                           uint64_t want[4])
{
    char name[256];
    const char *at = strstr(t->name, FUSED);
    if (!at || t->ne[1] % 2 != 0)
        return judge(a, t, want);
    struct model_tensor half = *t;
    snprintf(name, sizeof name, "%.*s.ffn_gate_exps.%s", (int)(at - t->name), t->name, at + strlen(FUSED));
    half.name = name;
    half.ne[1] /= 2;
    enum shape_verdict verdict = judge(a, &half, want);
    if (verdict == SHAPE_WRONG)
        want[1] *= 2;
    return verdict;
}

/* Is this gate or up of the experts there as part of a tensor of both? */
static bool fused_form(const struct model *m, const char *name)
{
    char text[256];
    const char *at = strstr(name, ".ffn_gate_exps.");
    size_t n = strlen(".ffn_gate_exps.");
    if (!at) {
        at = strstr(name, ".ffn_up_exps.");
        n = strlen(".ffn_up_exps.");
    }
    if (!at)
        return false;
    snprintf(text, sizeof text, "%.*s" FUSED "%s", (int)(at - name), name, at + n);
    return model_find(m, text) != NULL;
}

static void shape_text(const uint64_t ne[4], char out[96])
{
    unsigned n = 4;
    while (n > 1 && ne[n - 1] == 1)
        n--;
    size_t at = (size_t)snprintf(out, 96, "[");
    for (unsigned d = n; d > 0 && at < 96; d--)
        at += (size_t)snprintf(out + at, 96 - at, "%" PRIu64 "%s", ne[d - 1], d > 1 ? ", " : "]");
}

/* A factor that the runtime multiplies by. */
static bool is_factor(const struct model *m, const struct arch *arch, const char *name)
{
    const struct model_tensor *weight = verify_factor_of(m, name);
    return weight && arch_reads_factor(arch, weight->name);
}

int verify_shapes(struct verify_owner *o, const struct arch_model *a, const struct model *m, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        uint64_t want[4];
        char have_text[96], want_text[96];
        switch (judge_also_fused(a, t, want)) {
        case SHAPE_FITS: break;
        case SHAPE_UNKNOWN_NAME:
            if (strcmp(t->name, "rope_freqs.weight") != 0 && !is_factor(m, a->arch, t->name))
                rc = verify_add(o, &o->findings, e, "tensor '%s': architecture %s has no tensor of this name",
                                t->name, a->arch->name);
            break;
        case SHAPE_UNCHECKED:
            rc = verify_add(o, &o->notes, e, "tensor '%s': the metadata lacks the numbers to check its shape",
                            t->name);
            break;
        case SHAPE_WRONG:
            shape_text(want, want_text);
            shape_text(t->ne, have_text);
            rc = verify_add(o, &o->findings, e, "tensor '%s': expected shape %s, found %s", t->name,
                            want_text, have_text);
            break;
        }
    }
    return rc;
}

/* Does some layer have the tensor of this row? */
static bool is_anywhere(struct verify_owner *o, const struct arch_row *row, const struct model *m,
                        uint64_t n_layers)
{
    for (uint64_t layer = 0; layer < n_layers; layer++) {
        const char *name = arch_name_of(row->gguf, layer, &o->arena);
        if (name && model_find(m, name))
            return true;
    }
    return false;
}

static bool is_required(const struct arch *arch, const struct arch_row *row)
{
    return row->presence == ARCH_REQUIRED ||
           (row->presence == ARCH_HEAD && (arch->quirks & ARCH_HEAD_MANDATORY));
}

/* One look at which tensors are missing: of layers that have some, each a finding; or of those that have
 * none, which are counted. */
struct presence {
    const struct layer_use *use;
    bool unused_layers;
    uint64_t n_missing; /* of unused layers */
    const char *example;
};

static int check_row(struct verify_owner *o, const struct arch_model *a, const struct arch_group *g,
                     const struct arch_row *row, struct presence *p, const struct model *m, struct err *e)
{
    bool per_layer = strstr(row->gguf, ".N.") != NULL, required = is_required(a->arch, row);
    uint64_t n_layers = a->value[ARCH_L];
    if ((p->unused_layers && !per_layer) || (!required && !(per_layer && is_anywhere(o, row, m, n_layers))))
        return 0;
    uint64_t n = !per_layer ? 1 : required ? n_layers + a->n_extra : n_layers;
    for (uint64_t layer = 0; layer < n; layer++) {
        if (per_layer && is_used(p->use, layer) == p->unused_layers)
            continue;
        if (g->when && !g->when(a, layer))
            continue;
        const char *name = arch_name_of(row->gguf, layer, &o->arena);
        if (!name)
            return err_set(e, ERR_NOMEM, "out of memory for the findings");
        if (model_find(m, name) || fused_form(m, name))
            continue;
        p->example = p->n_missing++ ? p->example : name;
        int rc = p->unused_layers ? 0
                                  : verify_add(o, &o->findings, e, "tensor '%s' is missing%s", name,
                                               required ? "" : ", though other layers have theirs");
        if (rc)
            return rc;
    }
    return 0;
}

/* Several rows may make the same tensor, which is asked for once: by the one that requires it, else the
 * first. */
static bool speaks_for_name(const struct arch *arch, const struct arch_row *row)
{
    const struct arch_row *first = NULL;
    if (is_required(arch, row))
        return true;
    for (const struct arch_group *g = arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++) {
            if (strcmp(g->rows[i].gguf, row->gguf) != 0)
                continue;
            if (is_required(arch, &g->rows[i]))
                return false;
            first = first ? first : &g->rows[i];
        }
    return first == row;
}

static int check_presence(struct verify_owner *o, const struct arch_model *a, struct presence *p,
                          const struct model *m, struct err *e)
{
    int rc = 0;
    for (const struct arch_group *g = a->arch->groups; g->rows; g++)
        for (size_t i = 0; rc == 0 && i < g->n; i++) {
            const struct arch_row *row = &g->rows[i];
            bool is_head = row->presence == ARCH_HEAD; /* its condition is about rerankers */
            if ((!row->when || is_head) && speaks_for_name(a->arch, row))
                rc = check_row(o, a, g, row, p, m, e);
        }
    return rc;
}

/* Layers that block_count counts and that have no tensor. */
static int check_unused_layers(struct verify_owner *o, const struct arch_model *a, uint64_t stated,
                               const struct layer_use *use, const struct model *m, struct err *e)
{
    struct presence p = {.use = use, .unused_layers = true, .example = ""};
    uint64_t n = 0, first = 0;
    for (uint64_t i = stated; i > 0; i--)
        if (!is_used(use, i - 1)) {
            n++;
            first = i - 1;
        }
    int rc = n ? check_presence(o, a, &p, m, e) : 0;
    if (rc || n == 0)
        return rc;
    return verify_add(o, &o->findings, e,
                      "key '%s.block_count' is %" PRIu64 ", but %" PRIu64
                      " of these layers (the first is layer %" PRIu64 ") ha%s no tensors: %" PRIu64
                      " tensor%s missing, '%s' among them",
                      a->arch->name, stated, n, first, n == 1 ? "s" : "ve", p.n_missing,
                      p.n_missing == 1 ? " is" : "s are", p.example);
}

/* Does block_count fit the tensors? If not, that is one finding in place of one for each tensor, and `a` gets
 * the number of layers that there are, unless some are missing in between. */
static int check_layer_count(struct verify_owner *o, struct arch_model *a, const struct layer_use *use,
                             const struct model *m, struct err *e)
{
    uint64_t stated = a->value[ARCH_L] + a->n_extra;
    int rc = check_unused_layers(o, a, stated, use, m, e);
    if (use->n == use->end && use->end > a->n_extra && use->end != stated) {
        a->value[ARCH_L] = use->end - a->n_extra;
        layers_of(a, m);
    }
    return rc;
}

/* --- keys --- */

/* Of a family's own keys those of delta nets; the others have fallbacks. */
static bool is_needed(const struct arch_key *k)
{
    return k->required && strncmp(k->suffix, "ssm.", 4) == 0;
}

bool model_needs_key(const char *arch_name, const char *key)
{
    static const char *const vocabulary[] = {"model", "pre", "tokens", "scores", "token_type", "merges"};
    const struct arch *arch = arch_by_name(arch_name);
    size_t n = strlen(arch_name);
    if (strcmp(key, "general.architecture") == 0)
        return true;
    for (size_t i = 0; i < sizeof vocabulary / sizeof *vocabulary; i++)
        if (strncmp(key, "tokenizer.ggml.", 15) == 0 && strcmp(key + 15, vocabulary[i]) == 0)
            return true;
    if (n == 0 || strncmp(key, arch_name, n) != 0 || key[n] != '.')
        return false;
    const char *suffix = key + n + 1;
    if (hparams_is_vital(suffix))
        return true;
    for (const struct arch_key *k = arch ? arch->keys : NULL; k && k->suffix; k++)
        if (k->required && strcmp(suffix, k->suffix) == 0)
            return true;
    return false;
}

static int missing_key(struct verify_owner *o, const char *arch_name, const char *suffix, struct err *e)
{
    return verify_add(o, &o->findings, e, "key '%s.%s' is missing: no runtime loads the model without it",
                      arch_name, suffix);
}

static int check_keys(struct verify_owner *o, const struct arch *arch, const struct model *m, struct err *e)
{
    const struct hparams *h = model_hparams(m);
    const struct hparam *p;
    char key[256];
    int rc = 0;
    for (size_t at = 0; rc == 0 && (p = hparams_next_missing(h, &at));)
        rc = missing_key(o, h->arch_name, p->suffix, e);
    for (const struct arch_key *k = arch->keys; rc == 0 && k && k->suffix; k++) {
        snprintf(key, sizeof key, "%s.%s", h->arch_name, k->suffix);
        if (is_needed(k) && !gguf_meta_find(model_meta(m), key))
            rc = missing_key(o, h->arch_name, k->suffix, e);
    }
    return rc;
}

/* A file without a vocabulary is fit for little; one with a broken vocabulary for nothing. */
static int check_vocabulary(struct verify_owner *o, const struct model *m, struct err *e)
{
    struct vocabulary *v = NULL;
    struct err why = {0};
    if (!gguf_meta_find(model_meta(m), "tokenizer.ggml.model") &&
        !gguf_meta_find(model_meta(m), "tokenizer.ggml.tokens"))
        return verify_add(o, &o->notes, e,
                          "[no-vocabulary] no tokenizer.ggml keys: no text can be given to this model");
    int rc = vocabulary_from_gguf(&v, model_meta(m), &why);
    vocabulary_free(v);
    if (rc == ERR_NOMEM)
        return err_set(e, rc, "%s", why.msg);
    return rc == 0 ? 0
                   : verify_add(o, rc == ERR_UNSUPPORTED ? &o->notes : &o->findings, e, "vocabulary: %s",
                                why.msg);
}

/* Ids of tokens with a meaning. A runtime that meets one which no token has takes another in its place. */
static int check_special_ids(struct verify_owner *o, const struct model *m, struct err *e)
{
    static const char prefix[] = "tokenizer.ggml.", suffix[] = "_token_id";
    const struct gguf_meta *meta = model_meta(m);
    const struct gguf_value *tokens = gguf_meta_find(meta, "tokenizer.ggml.tokens");
    int rc = 0;
    for (size_t i = 0; rc == 0 && tokens && tokens->type == GGUF_ARRAY && i < gguf_meta_n(meta); i++) {
        const char *key = gguf_meta_key(meta, i);
        size_t n = strlen(key);
        uint64_t id;
        if (strncmp(key, prefix, sizeof prefix - 1) != 0 || n < sizeof prefix + sizeof suffix - 2 ||
            strcmp(key + n - (sizeof suffix - 1), suffix) != 0)
            continue;
        if (!gguf_meta_get_u64(meta, key, &id))
            rc = verify_add(o, &o->findings, e, "key '%s' is not the id of a token", key);
        else if (id >= tokens->a.n)
            rc = verify_add(o, &o->findings, e,
                            "key '%s' is %" PRIu64 ", but the vocabulary has %" PRIu64 " tokens", key, id,
                            tokens->a.n);
    }
    return rc;
}

static int check_names(struct verify_owner *o, const struct model *m, struct err *e)
{
    const struct arch *arch = arch_by_name(model_arch_name(m));
    int rc = model_check(m, &o->findings, &o->arena, e);
    if (rc || !model_is_gguf(m))
        return rc; /* opening a checkpoint has checked names and shapes */
    if (!model_arch_name(m)[0])
        return verify_add(o, &o->findings, e,
                          "key 'general.architecture' is missing: nothing says what model this is");
    if (strcmp(model_arch_name(m), "clip") == 0)
        return verify_towers(o, m, e);
    rc = check_vocabulary(o, m, e);
    if (rc == 0)
        rc = check_special_ids(o, m, e);
    if (rc)
        return rc;
    if (!arch)
        return verify_add(o, &o->notes, e,
                          "architecture '%s' is unknown here: names and shapes were not checked",
                          model_arch_name(m));
    struct arch_model a = {.arch = arch};
    numbers_of(&a, m);
    rc = check_keys(o, arch, m, e);
    if (rc || !a.known[ARCH_L] || !a.known[ARCH_D] || !a.known[ARCH_H])
        return rc; /* without these numbers nothing below means anything */
    if (a.value[ARCH_L] > ARCH_MAX_LAYERS)
        return 0; /* model_check has said so */
    struct layer_use use = layers_in_use(m);
    struct presence p = {.use = &use};
    rc = check_layer_count(o, &a, &use, m, e);
    if (rc == 0)
        rc = verify_shapes(o, &a, m, e);
    if (rc == 0)
        rc = check_presence(o, &a, &p, m, e);
    return rc;
}

/* Files end with the padding of their last tensor. */
static int check_ends(struct verify_owner *o, const struct model *m, struct err *e)
{
    const struct gguf_reader *r = model_gguf(m);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && r && i < gguf_reader_n_parts(r); i++) {
        uint64_t n = gguf_reader_n_trailing_bytes(r, i);
        const char *plural = n == 1 ? "" : "s";
        if (n && gguf_reader_n_parts(r) > 1)
            rc = verify_add(o, &o->findings, e, "%" PRIu64 " trailing byte%s after the last tensor of %s", n,
                            plural, gguf_reader_part_path(r, i));
        else if (n)
            rc = verify_add(o, &o->findings, e,
                            "%" PRIu64 " trailing byte%s after the last tensor, where the file should end", n,
                            plural);
    }
    return rc;
}

static int check_values(struct verify_owner *o, const struct verify_report *r, const struct model *m,
                        struct pool *pool, const struct progress *progress, struct err *e)
{
    uint64_t done = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && model_has_weights(m) && i < r->n_tensors; i++) {
        const struct model_tensor *t = model_tensor(m, i);
        rc = progress_tell(
            progress,
            &(struct progress_step){.done = (double)done, .total = (double)r->n_bytes, .what = t->name}, e);
        if (rc == 0)
            rc = verify_values(o, m, t, pool, e);
        done += t->n_bytes;
    }
    return rc;
}

int model_verify(struct verify_report *out, const struct model *m, struct pool *pool,
                 const struct progress *progress, struct err *e)
{
    struct verify_owner *o = calloc(1, sizeof *o);
    if (!o)
        return err_set(e, ERR_NOMEM, "out of memory for the check");
    struct verify_report r = {.owner = o, .n_tensors = model_n_tensors(m)};
    for (size_t i = 0; i < r.n_tensors; i++)
        r.n_bytes += model_tensor(m, i)->n_bytes;
    int rc = check_names(o, m, e);
    if (rc == 0 && pool)
        rc = check_values(o, &r, m, pool, progress, e);
    if (rc == 0)
        rc = check_ends(o, m, e);
    r.findings = o->findings.items;
    r.n_findings = o->findings.n;
    r.notes = o->notes.items;
    r.n_notes = o->notes.n;
    if (rc)
        verify_report_release(&r);
    else
        *out = r;
    return rc;
}

void verify_report_release(struct verify_report *r)
{
    if (!r)
        return;
    struct verify_owner *o = r->owner;
    if (o)
        arena_release(&o->arena);
    free(o);
    *r = (struct verify_report){0};
}
