/* adapter_gguf.c - an adapter as a GGUF file: "X.lora_a" [columns, rank] and "X.lora_b" [rank, rows] (first
 * dimension fastest) for the tensor X of the model, for stacks of experts with a third dimension. Of the
 * embedding the first factor is [rank, rows] and the second [rank, columns]. The factor of the product is
 * adapter.lora.alpha / rank, or 1 where alpha is 0. Norms are stored whole; the runtime does not apply them,
 * and so they are not applied here. Truth: llama-adapter.cpp. */
#include "adapter.h"

#include "formats/gguf/gguf_write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAME_ROOM (GGUF_MAX_NAME + 16)

/* 0, or no such key: the factors have it. */
static int read_alpha(struct adapter *a, const struct gguf_meta *meta, struct err *e)
{
    static const char key[] = "adapter.lora.alpha";
    if (!gguf_meta_find(meta, key))
        return 0;
    if (!gguf_meta_get_f64(meta, key, &a->alpha))
        return err_set(e, ERR_FORMAT, "%s: %s is not a number, expected one above 0", a->path, key);
    return isfinite(a->alpha) && a->alpha >= 0
               ? 0
               : err_set(e, ERR_FORMAT, "%s: %s is %g, expected a finite number above 0", a->path, key,
                         a->alpha);
}

int adapter_open_gguf(struct adapter *a, struct err *e)
{
    struct gguf_string kind = {"", 0};
    int rc = gguf_reader_open(&a->gguf, a->path, NULL, e);
    if (rc != 0)
        return rc;
    const struct gguf_meta *meta = gguf_reader_meta(a->gguf);
    a->file = a->path;
    gguf_meta_get_string(meta, "general.type", &kind);
    if (!gguf_string_is(kind, "adapter"))
        return err_set(e, ERR_ARG, "%s: general.type is '%.*s', expected 'adapter': this is not a LoRA file",
                       a->path, (int)(kind.len < 40 ? kind.len : 40), kind.data);
    gguf_meta_get_string(meta, "adapter.type", &kind);
    if (!gguf_string_is(kind, "lora"))
        return err_set(e, ERR_UNSUPPORTED, "%s: adapter.type is '%.*s', expected 'lora'", a->path,
                       (int)(kind.len < 40 ? kind.len : 40), kind.data);
    if (gguf_meta_find(meta, "adapter.alora.invocation_tokens"))
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: adapter.alora.invocation_tokens: the adapter acts only after these tokens, "
                       "which no merged weight does",
                       a->path);
    return read_alpha(a, meta, e);
}

/* The factors of `stem`; either may be missing. */
static int find_pair(const struct adapter *a, const char *stem, const struct gguf_tensor **fa,
                     const struct gguf_tensor **fb, struct err *e)
{
    char name[2][NAME_ROOM];
    snprintf(name[0], sizeof name[0], "%s.lora_a", stem);
    snprintf(name[1], sizeof name[1], "%s.lora_b", stem);
    *fa = gguf_reader_find(a->gguf, name[0]);
    *fb = gguf_reader_find(a->gguf, name[1]);
    if (!*fa || !*fb)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s' is missing, the other factor of '%s' is there",
                       a->path, *fa ? name[1] : name[0], stem);
    return 0;
}

static int set_factors(struct adapter_term *t, const struct adapter *a, const struct gguf_tensor *fa,
                       const struct gguf_tensor *fb, struct err *e)
{
    bool embedding = strcmp(t->tensor, "token_embd.weight") == 0;
    uint64_t rank = fb->ne[0], n_mats = fb->ne[2] * fb->ne[3];
    bool fits = fa->ne[2] * fa->ne[3] == n_mats && rank != 0;
    fits = fits && (embedding ? fa->ne[0] == rank && n_mats == 1 : fa->ne[1] == rank);
    if (!fits)
        return err_set(e, ERR_FORMAT,
                       "%s: factors of '%s': [%" PRIu64 ", %" PRIu64 ", %" PRIu64 "] and [%" PRIu64
                       ", %" PRIu64 ", %" PRIu64 "] have no rank in common",
                       a->path, t->tensor, fa->ne[0], fa->ne[1], fa->ne[2], fb->ne[0], fb->ne[1], fb->ne[2]);
    struct adapter_factor first = {fa->data, fa->type, fa->ne[0] * fa->ne[1], fa->ne[0], 1};
    struct adapter_factor second = {fb->data, fb->type, fb->ne[0] * fb->ne[1], fb->ne[0], 1};
    t->rank = rank;
    t->scale = a->alpha != 0 ? a->alpha / (double)rank : 1;
    t->a = embedding ? (struct adapter_factor){fb->data, fb->type, 0, 1, fb->ne[0]} : first;
    t->b = embedding ? first : second;
    t->n_cols = embedding ? fb->ne[1] : fa->ne[0];
    t->mat_rows = embedding ? fa->ne[1] : fb->ne[1];
    t->n_mats = n_mats;
    t->out_rows = t->mat_rows;
    t->n_rows = t->src_rows = t->mat_rows * n_mats;
    return 0;
}

static int add_pair(struct adapter_terms *out, struct adapter *a, const char *first, size_t n,
                    struct arena *arena, struct err *e)
{
    const struct gguf_tensor *fa = NULL, *fb = NULL;
    struct adapter_term t = {.tensor = arena_strndup(arena, first, n)};
    t.module = t.tensor;
    int rc = t.tensor ? find_pair(a, t.tensor, &fa, &fb, e) : adapter_no_memory(e);
    if (rc == 0)
        rc = set_factors(&t, a, fa, fb, e);
    return rc == 0 ? adapter_add_term(out, &t, arena, e) : rc;
}

int adapter_terms_of_gguf(struct adapter_terms *out, struct adapter *a, struct arena *arena, struct err *e)
{
    static const char ends[2][8] = {".lora_a", ".lora_b"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < gguf_reader_n_tensors(a->gguf); i++) {
        const char *name = gguf_reader_tensor(a->gguf, i)->name;
        size_t n = strlen(name);
        const char *end = n > 7 ? name + n - 7 : name;
        bool is_a = strcmp(end, ends[0]) == 0, is_b = strcmp(end, ends[1]) == 0;
        if (is_a) {
            rc = add_pair(out, a, name, n - 7, arena, e);
        } else if (is_b) { /* with its partner; alone it is an error */
            const struct gguf_tensor *fa, *fb;
            char stem[NAME_ROOM];
            snprintf(stem, sizeof stem, "%.*s", (int)(n - 7), name);
            rc = find_pair(a, stem, &fa, &fb, e);
        } else if (strstr(name, "_norm.weight")) {
            rc = adapter_add_line(a, &a->warnings, e,
                                  "[adapter-norm-ignored] %s: tensor '%s' is not applied, as llama.cpp does "
                                  "not",
                                  a->path, name);
        } else {
            rc = err_set(e, ERR_FORMAT, "%s: tensor '%s': expected names that end in .lora_a or .lora_b",
                         a->path, name);
        }
    }
    return rc;
}
