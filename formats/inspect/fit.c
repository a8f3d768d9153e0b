/* fit.c - see fit.h. */
#include "fit.h"

#include "formats/rewrite/rewrite.h"

#include <stdio.h>
#include <string.h>

/* The type that most weights have: the name of a file that states none. */
static enum qtype main_type(const struct model *m)
{
    uint64_t n[QTYPE_COUNT] = {0};
    enum qtype best = QTYPE_F32;
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        n[t->type] += t->n_bytes;
        if (n[t->type] > n[best])
            best = t->type;
    }
    return best;
}

static const char *own_name(const struct model *m, const struct rewrite_report *r)
{
    uint64_t file_type;
    const struct mix *mix = NULL;
    if (!model_is_gguf(m))
        return r->type_name;
    if (rewrite_is_planned(model_meta(m)))
        return REWRITE_PLANNED;
    if (gguf_meta_get_u64(model_meta(m), "general.file_type", &file_type) && file_type <= UINT32_MAX) {
        if (rewrite_kept_form(file_type))
            return rewrite_kept_form(file_type);
        mix = mix_by_file_type((uint32_t)file_type);
    }
    return mix ? mix->name : qtype_name((uint32_t)main_type(m));
}

/* Without one a file that is planned comes out smaller than the one that is meant. */
static bool has_vocabulary(struct model *m)
{
    const struct vocabulary *v;
    return model_is_gguf(m) || model_vocabulary(m, &v, NULL) == 0;
}

int fit_level(struct fit_level *out, struct model *m, const struct mix *mix, const struct fit_question *q,
              struct err *e)
{
    struct rewrite_options ro = {.recipe = {.recipe = q->recipe, .mix = mix},
                                 .imatrix = mix ? q->imatrix : NULL,
                                 .imatrix_path = q->imatrix_path,
                                 .allow_requantize = q->requantize,
                                 .dry_run = true};
    struct rewrite_report r = {0};
    ro.without_importance = mix && !q->imatrix && rewrite_lacks_importance(m, &ro);
    int rc = rewrite_model(&r, m, NULL, &ro, e);
    if (rc != 0)
        return err_context(e, rc, "%s", mix ? mix->name : model_path(m));
    struct fit_level l = {.lacks_importance = ro.without_importance,
                          .file_bytes = has_vocabulary(m) ? r.n_bytes : 0,
                          .cache_bytes = footprint_cache_bytes(q->footprint, q->ctx, q->kv),
                          .work_bytes = footprint_work_bytes(q->footprint, q->ctx)};
    uint64_t plain = footprint_cache_bytes(q->footprint, q->ctx, (struct kv_cache){QTYPE_F16, QTYPE_F16});
    l.cache_saved = plain > l.cache_bytes ? plain - l.cache_bytes : 0;
    for (size_t i = 0; i < r.n_tensors; i++)
        l.weights_bytes += r.tensors[i].n_bytes;
    snprintf(l.type, sizeof l.type, "%s", mix ? mix->name : own_name(m, &r));
    l.total_bytes = footprint_total_bytes(q->footprint, l.weights_bytes, q->ctx, q->kv);
    l.fits = l.total_bytes <= q->memory_bytes;
    l.max_ctx = footprint_max_ctx(q->footprint, l.weights_bytes, q->memory_bytes, q->kv);
    rewrite_report_release(&r);
    *out = l;
    return 0;
}

bool fit_has_levels(const struct model *m)
{
    for (size_t i = 0; model_is_gguf(m) && i < model_n_tensors(m); i++) {
        const struct qtype_info *t = qtype_info((uint32_t)model_tensor(m, i)->type);
        if (t->is_quantized && t->block_bytes < t->block_elems)
            return false;
    }
    return true;
}
