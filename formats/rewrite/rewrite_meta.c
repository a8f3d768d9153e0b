/* rewrite_meta.c - metadata of the output: that of the model, the new file type, and how it was made.
 *
 * Truth: specification, quantization 8.2 (order of effect) and architectures 20 (file types). A plain
 * conversion gets no key that a converter would not write. Private keys of a quantized output, all without
 * dates or host names so that the same input gives the same bytes:
 *   kerf.recipe          name of the mix rules: "llama.cpp"
 *   kerf.recipe.version  of these rules
 *   kerf.recipe.options  only if the types were steered: "pure output-type=Q6_K tensor-type=ffn_down=Q5_K"
 *   kerf.plan.sha256     only with a plan: hash of its normalised lines */
#include "rewrite_internal.h"
#include "libquant/base/printed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The mix that names what most of the parameters are, for a file whose types came from a plan alone. */
static const struct mix *dominant_mix(const struct rw_plan *p)
{
    uint64_t n[QTYPE_COUNT] = {0};
    for (size_t i = 0; i < p->n_tensors; i++)
        n[p->tensors[i].type] += p->tensors[i].src->ne[0] * p->tensors[i].src->n_rows;
    unsigned best = 0;
    for (unsigned t = 1; t < QTYPE_COUNT; t++)
        if (n[t] > n[best])
            best = t;
    for (size_t i = 0; i < mix_count(); i++)
        if (mix_at(i)->base == (enum qtype)best)
            return mix_at(i);
    return NULL;
}

/* Did lines of a plan decide the types of most parameters? Then its dominant type is the file type, even when
 * a mix was given for the rest; the file itself is called after the plan, since a reader of "Q3_K" would take
 * it for that. */
static bool is_mostly_planned(const struct rw_plan *p)
{
    uint64_t planned = 0, all = 0;
    for (size_t i = 0; i < p->n_tensors; i++) {
        uint64_t n = p->tensors[i].src->ne[0] * p->tensors[i].src->n_rows;
        all += n;
        planned += p->tensors[i].from_plan ? n : 0;
    }
    return planned > all / 2;
}

bool rewrite_is_planned(const struct gguf_meta *meta)
{
    return gguf_meta_find(meta, "kerf.plan.sha256") != NULL;
}

const char *rewrite_kept_form(uint64_t file_type)
{
    return file_type == 39 ? "NVFP4" : file_type == 38 ? "MXFP4_MOE" : NULL;
}

/* Does the output keep weights in a packed form of the checkpoint? Then that names the file, as the
 * reference converter has it; *file_type is its number. */
static const char *kept_form(const struct rw_plan *p, uint32_t *file_type)
{
    bool nv = false, mx = false;
    for (size_t i = 0; i < p->n_tensors; i++) {
        nv |= p->tensors[i].repack && p->tensors[i].type == QTYPE_NVFP4;
        mx |= p->tensors[i].repack && p->tensors[i].type == QTYPE_MXFP4;
    }
    *file_type = nv ? 39 : 38;
    return nv || mx ? rewrite_kept_form(*file_type) : NULL;
}

/* The peer's way to set a key: a replaced one moves to the end. */
static int append_u32(struct gguf_meta *m, const char *key, uint32_t v, struct err *e)
{
    gguf_meta_remove(m, key);
    return gguf_meta_set_u32(m, key, v, e);
}

static int append_cut_string(struct gguf_meta *m, const char *key, const char *v, struct err *e)
{
    char cut[128];
    snprintf(cut, sizeof cut, "%s", v);
    size_t n = strlen(cut);
    /* Cutting must not leave half a character: step back over the start of an incomplete one. */
    if (strlen(v) > n) {
        size_t k = n;
        while (k && ((unsigned char)cut[k - 1] & 0xc0) == 0x80)
            k--;
        if (k && (unsigned char)cut[k - 1] >= 0xc0)
            k--;
        if (k < n && (unsigned char)v[n] >= 0x80)
            cut[k] = 0;
    }
    gguf_meta_remove(m, key);
    return gguf_meta_set_string(m, key, cut, e);
}

static int set_imatrix_keys(struct gguf_meta *meta, const struct rewrite_options *opt, struct err *e)
{
    const struct imatrix *im = opt->imatrix;
    if (!im || imatrix_n(im) == 0)
        return 0;
    int rc = append_cut_string(meta, "quantize.imatrix.file", opt->imatrix_path ? opt->imatrix_path : "", e);
    if (rc == 0 && imatrix_n_datasets(im) > 0)
        rc = append_cut_string(meta, "quantize.imatrix.dataset", imatrix_dataset(im, 0), e);
    if (rc == 0)
        rc = append_u32(meta, "quantize.imatrix.entries_count", (uint32_t)imatrix_n(im), e);
    if (rc == 0 && imatrix_chunk_count(im) > 0)
        rc = append_u32(meta, "quantize.imatrix.chunks_count", imatrix_chunk_count(im), e);
    return rc;
}

/* The options that steered the types, as one line; malloc'ed, NULL when memory is refused. */
static char *options_text(const struct recipe_options *r)
{
    struct printed p;
    if (printed_begin(&p) != 0)
        return NULL;
    FILE *f = p.out;
    if (r->pure)
        fputs(" pure", f);
    if (r->leave_output)
        fputs(" leave-output", f);
    if (r->has_output_type)
        fprintf(f, " output-type=%s", qtype_name(r->output_type));
    if (r->has_embedding_type)
        fprintf(f, " embedding-type=%s", qtype_name(r->embedding_type));
    for (size_t i = 0; i < r->n_overrides; i++)
        fprintf(f, " tensor-type=%s=%s", r->overrides[i].pattern, qtype_name(r->overrides[i].type));
    return printed_end(&p);
}

static int set_recipe_keys(struct gguf_meta *meta, const struct recipe_options *r, struct err *e)
{
    const char *name = r->recipe ? r->recipe : "llama.cpp", *version = recipe_version(name);
    char *options = options_text(r);
    if (!options)
        return err_set(e, ERR_NOMEM, "out of memory for the metadata");
    int rc = gguf_meta_set_string(meta, "kerf.recipe", name, e);
    if (rc == 0 && version)
        rc = gguf_meta_set_string(meta, "kerf.recipe.version", version, e);
    gguf_meta_remove(meta, "kerf.recipe.options");
    if (rc == 0 && options[0])
        rc = gguf_meta_set_string(meta, "kerf.recipe.options", options + 1, e);
    gguf_meta_remove(meta, "kerf.plan.sha256");
    if (rc == 0 && r->plan) {
        char hash[65];
        plan_hash(r->plan, hash);
        rc = gguf_meta_set_string(meta, "kerf.plan.sha256", hash, e);
    }
    free(options);
    return rc;
}

/* What a source says of its own encoder (kerf.method of error feedback) does not hold for new blocks. */
static void drop_method(struct gguf_meta *meta, const struct rw_plan *p)
{
    static const char key[] = "kerf.method";
    bool all_copied = true;
    for (size_t i = 0; i < p->n_tensors; i++)
        all_copied = all_copied && p->tensors[i].copy;
    if (all_copied)
        return;
    for (size_t i = gguf_meta_n(meta); i > 0; i--)
        if (strncmp(gguf_meta_key(meta, i - 1), key, sizeof key - 1) == 0)
            gguf_meta_remove(meta, gguf_meta_key(meta, i - 1));
}

static int set_extra(struct gguf_meta *meta, const struct gguf_meta *extra, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && extra && i < gguf_meta_n(extra); i++)
        rc = gguf_meta_set(meta, gguf_meta_key(extra, i), gguf_meta_value(extra, i), e);
    return rc;
}

int rw_plan_meta(struct rw_plan *p, const struct model *m, const struct rewrite_options *opt, struct err *e)
{
    static const char *const split_keys[] = {"split.no", "split.count", "split.tensors.count"};
    int rc = gguf_meta_copy(&p->meta, model_meta(m), e);
    if (rc)
        return rc;
    const struct mix *mix = p->type_name ? mix_find(p->type_name) : NULL;
    if (opt->recipe.plan && (!opt->recipe.mix || is_mostly_planned(p))) {
        const struct mix *most = dominant_mix(p);
        mix = most || !opt->recipe.mix ? most : mix;
        p->type_name = REWRITE_PLANNED;
    } else if (mix) {
        p->type_name = mix->name;
    }
    for (size_t i = 0; i < sizeof split_keys / sizeof *split_keys; i++)
        gguf_meta_remove(p->meta, split_keys[i]);
    drop_method(p->meta, p);
    if (mix && p->quantizing) {
        rc = append_u32(p->meta, "general.quantization_version", 2, e);
        if (rc == 0)
            rc = append_u32(p->meta, "general.file_type", mix->file_type, e);
    } else if (mix && !model_is_adapter(m)) {
        rc = gguf_meta_set_u32(p->meta, "general.file_type", mix->file_type, e);
    }
    uint32_t file_type;
    const char *kept = opt->recipe.mix || opt->recipe.plan ? NULL : kept_form(p, &file_type);
    if (rc == 0 && kept) {
        p->type_name = kept;
        rc = gguf_meta_set_u32(p->meta, "general.file_type", file_type, e);
    }
    if (rc == 0)
        rc = set_extra(p->meta, opt->extra, e);
    if (rc == 0 && !model_is_adapter(m) && (opt->recipe.plan || !rw_is_plain(opt))) {
        rc = set_imatrix_keys(p->meta, opt, e);
        if (rc == 0)
            rc = set_recipe_keys(p->meta, &opt->recipe, e);
    }
    if (rc == 0 && !p->type_name) { /* a GGUF copied as it is keeps the name of what it was */
        uint64_t id;
        bool known = gguf_meta_get_u64(p->meta, "general.file_type", &id) && id <= UINT32_MAX;
        const struct mix *old = known ? mix_by_file_type((uint32_t)id) : NULL;
        const char *form = known ? rewrite_kept_form(id) : NULL;
        p->type_name = rewrite_is_planned(p->meta) ? REWRITE_PLANNED : old ? old->name : form ? form : "auto";
    }
    return rc;
}
