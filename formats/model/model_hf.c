/* model_hf.c - a checkpoint folder as a model: configuration, descriptor, mapped tensors, metadata,
 * vocabulary.
 *
 * Tensors come in the order of llama.cpp's converter: shards by file name, names sorted within a shard, a
 * stack of experts where its last expert stands, computed tensors first. Without weights the names of the
 * index count, without an index the rows of the descriptor: enough to plan by. */
#include "hf_map.h"
#include "rerank.h"

#include "formats/hf/hf_adapter.h"
#include "formats/metadata/metadata.h"
#include "formats/tower/tower.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct hf_model {
    struct hf_config *config;
    struct hf_quant *quant;           /* how weights are packed; NULL: they are not */
    struct hf_checkpoint *checkpoint; /* NULL: a configuration by itself */
    struct hf_checkpoint *beside;     /* the folder within it that belongs to the model; NULL: none */
    struct arch_model arch;
};

static int read_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                     float *dst, struct err *e)
{
    const struct hf_model *h = m->source;
    return hf_read_rows(&h->arch, m->kern, (const struct hf_tensor *)t, row0, n, dst, e);
}

static int read_blocks(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                       uint8_t *dst, struct err *e)
{
    const struct hf_model *h = m->source;
    return hf_read_blocks(&h->arch, (const struct hf_tensor *)t, row0, n, dst, e);
}

static void hint_rows(const struct model *m, const struct model_tensor *t, uint64_t row0, uint64_t n,
                      bool want)
{
    (void)m;
    hf_hint_rows((const struct hf_tensor *)t, row0, n, want);
}

static void close_source(struct model *m)
{
    struct hf_model *h = m->source;
    hf_checkpoint_close(h->checkpoint);
    hf_checkpoint_close(h->beside);
    hf_quant_free(h->quant);
    hf_config_free(h->config);
    free(h);
}

static const struct model_source_ops hf_ops = {read_rows, read_blocks, hint_rows, close_source};

static int add_warning(void *ctx, const char *text, struct err *e)
{
    struct model *m = ctx;
    return model_add_line(m, &m->warnings, e, "%s",
                          text ? text : "[out-of-memory] a warning that memory did not suffice for");
}

/* Type of weights of which only names are known. */
static enum qtype assumed_type(const struct hf_config *config)
{
    const char *name = json_string(hf_config_get(config, "torch_dtype"));
    if (!name)
        name = json_string(hf_config_get(config, "dtype"));
    if (name && strcmp(name, "float32") == 0)
        return QTYPE_F32;
    return name && strcmp(name, "float16") == 0 ? QTYPE_F16 : QTYPE_BF16;
}

static bool has_tokenizer(const char *folder)
{
    static const char *const names[] = {"tokenizer.json", "vocab.json", "tokenizer.model", "qwen.tiktoken",
                                        "tekken.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (hf_file_exists(folder, names[i]))
            return true;
    return false;
}

/* Parameter counts behind the size label, and the type that the first matrix of 16 bits suggests
 * (specification, architectures 0.3, 20); F32 and packed weights alone make it F32. */
static void count_parameters(const struct model *m, struct metadata_sizes *s)
{
    uint64_t expert_sum = 0, n_stacks = 0, n_wide = 0;
    bool typed = false;
    *s = (struct metadata_sizes){.file_type = 1};
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct model_tensor *t = m->tensors[i];
        uint64_t n = t->ne[0] * t->n_rows;
        s->total += n;
        if (strstr(t->name, "_exps.") && t->n_dims >= 3) {
            s->expert += n / t->ne[2];
            expert_sum += t->ne[2];
            n_stacks++;
        } else {
            s->shared += n;
        }
        const enum qtype type = model_source_type(t);
        if (!typed && t->n_dims >= 2 && (type == QTYPE_BF16 || type == QTYPE_F16)) {
            s->file_type = type == QTYPE_BF16 ? 32 : 1;
            typed = true;
        }
        n_wide += !typed && t->n_dims >= 2;
    }
    if (!typed && n_wide != 0)
        s->file_type = 0;
    s->n_experts = n_stacks ? expert_sum / n_stacks : 0;
}

/* A file that speaks no language is what nobody wants unasked. */
static int refuse_without_vocabulary(const struct model *m, struct err *e)
{
    return err_set(e, ERR_ARG,
                   "%s: no vocabulary: none of tokenizer.json, tokenizer.model, vocab.json, tekken.json and "
                   "qwen.tiktoken is there; put what the model was published with into the folder, or write "
                   "a file that takes and gives token ids alone with --no-vocab",
                   m->path);
}

static int take_vocabulary(struct model *m, const struct hf_model *h, const char *folder,
                           enum model_vocabulary_wish wish, struct err *e)
{
    bool any = folder && has_tokenizer(folder);
    if (wish == MODEL_VOCABULARY_NONE)
        return 0;
    if (!any && wish == MODEL_VOCABULARY_NEEDED)
        return refuse_without_vocabulary(m, e);
    if (!any)
        return model_add_line(
            m, &m->warnings, e, "[no-vocabulary] %s: no tokenizer files; the model has no vocabulary%s",
            m->path,
            m->has_weights ? ", without which llama.cpp will not load it; put tokenizer.json (or what the "
                             "model was published with) into the folder"
                           : ", whose size (some MiB) is not in what is planned");
    const bool more = h->arch.arch->add_tokens != NULL;
    int rc = vocabulary_load_hf(&m->vocabulary, folder, h->config, h->arch.value[more ? ARCH_TV : ARCH_V], e);
    if (rc == 0 && more)
        rc = h->arch.arch->add_tokens(&h->arch, m->vocabulary, e);
    if (rc != 0 && rc != ERR_NOMEM && wish == MODEL_VOCABULARY_NEEDED) {
        const struct err why = e ? *e : (struct err){0};
        return err_set(e, rc, "%s; or leave the vocabulary out with --no-vocab", why.msg);
    }
    for (size_t i = 0; rc == 0 && i < m->vocabulary->n_warnings; i++)
        rc = model_add_line(m, &m->warnings, e, "%s", m->vocabulary->warnings[i]);
    return rc;
}

static int no_mtp(const struct model *m, struct err *e)
{
    return err_set(e, ERR_ARG, "%s: the checkpoint has no MTP tensors; leave out --keep-mtp", m->path);
}

/* The part of a name from its component "mtp" on; NULL when it has none. */
static const char *mtp_part(const char *name)
{
    for (const char *at = name; (at = strstr(at, "mtp.")) != NULL; at++)
        if (at == name || at[-1] == '.')
            return at;
    return NULL;
}

/* Has the family rows for prediction blocks? */
static bool has_mtp_form(const struct arch *arch)
{
    for (const struct arch_group *g = arch->groups; g->rows; g++)
        for (size_t i = 0; i < g->n; i++)
            if (strstr(g->rows[i].gguf, ".nextn."))
                return true;
    return false;
}

/* How many prediction blocks there are at least when one has a tensor of this name. *any: set if so. */
static uint64_t mtp_blocks_up_to(const struct hf_model *h, const char *name, bool *any)
{
    const char *at = mtp_part(name);
    unsigned j;
    uint64_t block;
    if (!at && arch_is_behind(&h->arch, name, &block)) {
        *any = true;
        return block + 1;
    }
    *any |= at != NULL;
    return at && sscanf(at, "mtp.layers.%5u.", &j) == 1 ? (uint64_t)j + 1 : 0;
}

/* Prediction blocks to keep: as the configuration says, else as many as have names. `sources` NULL: no names
 * are known. */
static int count_mtp(const struct model *m, struct hf_model *h, const struct checkpoint_weight *sources,
                     size_t n, struct err *e)
{
    uint64_t count = 0, named = 0;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        uint64_t last = mtp_blocks_up_to(h, sources[i].name, &any);
        named = last > named ? last : named;
    }
    bool has_form = has_mtp_form(h->arch.arch);
    if (any && !has_form)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: MTP tensors have no form in architecture '%s'; leave out --keep-mtp", m->path,
                       h->arch.arch->name);
    bool stated = hf_config_uint(h->config, "mtp_num_hidden_layers", &count, NULL) ||
                  hf_config_uint(h->config, "num_nextn_predict_layers", &count, NULL);
    if (!has_form || (sources ? !any : !stated || count == 0))
        return no_mtp(m, e);
    if (!stated)
        count = named;
    if (count > ARCH_MAX_EXTRA)
        return err_set(e, ERR_FORMAT, "config.json: %llu prediction blocks", (unsigned long long)count);
    h->arch.n_extra = count;
    return 0;
}

/* Elements of the checkpoint that became tensors, and how many of them the output holds as float32. False:
 * not known, since some are packed or were cut. */
static bool count_stored(const struct model *m, const struct hf_model *h, double *n_elems, double *n_f32)
{
    const struct model_tensor *embd = model_find(m, "token_embd.weight");
    *n_elems = *n_f32 = 0;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct hf_tensor *t = (const struct hf_tensor *)m->tensors[i];
        if (t->computed)
            continue;
        if (t->sources[0]->packed || h->arch.answer != ARCH_TOKENS || t->row->op == ARCH_FOLD)
            return false;
        if (embd && &t->pub != embd && t->sources[0] == ((const struct hf_tensor *)embd)->sources[0])
            continue; /* a tied head that is written twice */
        double n = (double)t->pub.ne[0] * (double)t->pub.n_rows;
        *n_elems += n;
        *n_f32 += t->pub.always_f32 ? n : 0;
    }
    return true;
}

/* What the index says about bytes must agree with the shapes that the configuration gives to its names; norms
 * and the like may be stored as float32, tensors left out may have any size. */
static int check_total_size(struct model *m, const struct hf_model *h, struct err *e)
{
    double total, n_elems, n_f32;
    enum qtype type = assumed_type(h->config);
    if (!hf_checkpoint_total_size(h->checkpoint, &total) || !count_stored(m, h, &n_elems, &n_f32))
        return 0;
    double least = n_elems * (type == QTYPE_F32 ? 4 : 2), most = least + n_f32 * (type == QTYPE_F32 ? 0 : 2);
    if (total >= least && (total <= most || m->skipped.n != 0))
        return 0;
    return model_add_line(m, &m->warnings, e,
                          "[index-total] %s: model.safetensors.index.json promises %.0f bytes "
                          "(metadata.total_size), but the tensors it names take %.0f as %s by config.json",
                          m->path, total, least, qtype_name(type));
}

/* No weights and no names. */
static int expect_tensors(struct model *m, struct hf_model *h, const struct model_options *opt, struct err *e)
{
    enum qtype type = assumed_type(h->config);
    const struct checkpoint_weight like = {
        .file = "config.json", .type_name = qtype_name(type), .type = type, .is_weight = true};
    int rc = model_add_line(m, &m->warnings, e,
                            "[planned-without-weights] %s: neither weights nor an index; the tensors are "
                            "those that %s models have%s%s%s",
                            m->path, h->arch.arch->name, h->quant ? ", unpacked from " : "",
                            h->quant ? hf_quant_name(h->quant) : "",
                            h->quant ? ", whose types config.json does not give" : "");
    if (rc == 0 && opt->keep_mtp)
        rc = count_mtp(m, h, NULL, 0, e);
    return rc == 0 ? hf_map_expected(m, &h->arch, &like, e) : rc;
}

/* Which weights stay packed shows in the names of tensors; the configuration alone does not say. */
static int tell_unseen_blocks(struct model *m, const struct hf_model *h, struct err *e)
{
    if (m->has_weights || !h->quant || !hf_quant_has_fp4(h->quant) ||
        (h->checkpoint && hf_checkpoint_n_tensors(h->checkpoint) != 0))
        return 0;
    return model_add_line(m, &m->warnings, e,
                          "[planned-without-weights] %s: without weights or an index it is not known which "
                          "of them (%s) are blocks of 4-bit floats "
                          "that stay packed; they are planned unpacked, and a conversion of the checkpoint "
                          "at the precision of its source comes out smaller",
                          m->path, hf_quant_name(h->quant));
}

static int guess_quant(struct model *m, struct hf_model *h, struct err *e)
{
    int rc = hf_quant_guess(&h->quant, h->checkpoint, e);
    if (rc != 0 || !h->quant)
        return rc;
    return model_add_line(
        m, &m->warnings, e,
        "[quantization-guessed] %s: FP8 weights with scales, but no quantization_config; the scales "
        "are taken for those of blocks of 128 x 128, of rows or of the whole, as their shapes say",
        m->path);
}

/* A configuration that was left behind when the weights were unpacked. */
static int tell_nothing_packed(struct model *m, const struct hf_model *h,
                               const struct checkpoint_weight *sources, size_t n, struct err *e)
{
    bool any = !h->quant || !m->has_weights;
    for (size_t i = 0; !any && i < n; i++)
        any = sources[i].packed != NULL;
    return any ? 0
               : model_add_line(
                     m, &m->warnings, e,
                     "[quantization-idle] %s: config.json says that weights are compressed with '%s', but "
                     "none is; they are read as they are",
                     m->path, hf_quant_name(h->quant));
}

/* The tensors of the folder beside, in front of the others. */
static int put_beside(struct model *m, const struct hf_model *h, struct checkpoint_weight **sources,
                      size_t *n, struct err *e)
{
    struct checkpoint_weight *first, *all;
    size_t n_first;
    if (!h->beside)
        return 0;
    int rc = checkpoint_weight_list(&first, &n_first, h->beside, NULL, QTYPE_F32, &m->arena, e);
    if (rc != 0)
        return rc;
    all = arena_array(&m->arena, n_first + *n + 1, sizeof *all);
    if (!all)
        return model_out_of_memory(e);
    for (size_t i = 0; i < n_first; i++) {
        all[i] = first[i];
        all[i].comes_first = true;
    }
    memcpy(all + n_first, *sources, *n * sizeof *all);
    *sources = all;
    *n += n_first;
    return 0;
}

/* Its numbers, and its weights, without which the model cannot be planned. */
static int open_beside(struct model *m, struct hf_model *h, const char *folder, struct err *e)
{
    const struct tower *t = (const struct tower *)h->arch.arch;
    struct json_doc *doc = NULL;
    if (!h->arch.arch->beside)
        return 0;
    if (!folder || !m->has_weights)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: shapes of this model stand in the weights alone, so both folders of the "
                       "checkpoint must be complete",
                       m->path);
    char *inner = hf_path(folder, h->arch.arch->beside),
         *config = inner ? hf_path(inner, "config.json") : NULL;
    int rc = config ? json_load_python(&doc, config, 1u << 20, e) : model_out_of_memory(e);
    if (rc == 0)
        rc = t->read_beside(&h->arch, json_root(doc), config, e);
    if (rc == 0)
        rc = hf_checkpoint_open(&h->beside, inner, false, e);
    for (size_t i = 0; rc == 0 && i < hf_checkpoint_n_warnings(h->beside); i++)
        rc = model_add_line(m, &m->warnings, e, "%s", hf_checkpoint_warning(h->beside, i));
    json_free(doc);
    free(config);
    free(inner);
    return rc;
}

/* MLX stores the convolution of a delta net with its only channel last, and with it every norm around one:
 * its loader tells the two forms of a checkpoint apart by that shape, and so does this. */
static void settle_mlx_hybrid(struct hf_model *h, struct checkpoint_weight *sources, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct checkpoint_weight *s = &sources[i];
        if (!path_ends_with(s->name, ".linear_attn.conv1d.weight") || s->n_dims != 3 || s->shape[2] != 1 ||
            s->shape[1] == 1)
            continue;
        s->shape[2] = s->shape[1];
        s->shape[1] = 1;
        h->arch.has_ones = true;
    }
}

static int take_tensors(struct model *m, struct hf_model *h, const struct model_options *opt, struct err *e)
{
    struct checkpoint_weight *sources;
    size_t n;
    int rc;
    if (!h->checkpoint || (!m->has_weights && hf_checkpoint_n_tensors(h->checkpoint) == 0)) {
        rc = expect_tensors(m, h, opt, e);
        if (rc == 0)
            rc = model_index(m, e);
        return rc == 0 ? model_adapters_merge(m, &h->arch, e) : rc;
    }
    rc = h->quant ? 0 : guess_quant(m, h, e);
    if (rc == 0)
        rc = checkpoint_weight_list(&sources, &n, h->checkpoint, h->quant, assumed_type(h->config), &m->arena,
                                    e);
    if (rc == 0 && !opt->towers)
        settle_mlx_hybrid(h, sources, n);
    if (rc == 0)
        rc = tell_nothing_packed(m, h, sources, n, e);
    if (rc == 0)
        rc = put_beside(m, h, &sources, &n, e);
    if (rc == 0 && opt->keep_mtp)
        rc = count_mtp(m, h, sources, n, e);
    if (rc == 0)
        rc = hf_map_absent(m, &h->arch, h->checkpoint, opt, e);
    if (rc == 0)
        rc = model_adapters_replace(m, &h->arch, &sources, &n, e);
    if (rc == 0)
        rc = hf_map(m, &h->arch, sources, n, opt, e);
    if (rc == 0)
        rc = model_index(m, e);
    if (rc == 0 && !m->has_weights)
        rc = check_total_size(m, h, e);
    return rc == 0 ? model_adapters_merge(m, &h->arch, e) : rc;
}

static int open_checkpoint(struct model *m, struct hf_model *h, const char *folder,
                           const struct model_options *opt, struct err *e)
{
    int rc = hf_checkpoint_open(&h->checkpoint, folder, opt->allow_missing_weights, e);
    if (rc != 0)
        return rc;
    m->has_weights = hf_checkpoint_has_weights(h->checkpoint);
    for (size_t i = 0; rc == 0 && i < hf_checkpoint_n_warnings(h->checkpoint); i++)
        rc = model_add_line(m, &m->warnings, e, "%s", hf_checkpoint_warning(h->checkpoint, i));
    if (rc == 0 && m->has_weights && hf_file_exists(folder, HF_ADAPTER_NAME)) {
        char what[240];
        hf_adapter_describe(what, sizeof what, folder);
        rc = model_add_line(m, &m->warnings, e,
                            "[adapter-ignored] %s: %s lies beside the weights and is not applied; merge it "
                            "first if it is meant",
                            folder, what);
    }
    return rc;
}

/* A class of which only what is beside the text model has a form. */
static int resolve_text(struct arch_model *a, const struct hf_config *config, struct err *e)
{
    const struct arch *found;
    const char *name = hf_config_architecture(config);
    if (tower_is_in(config) && arch_find(&found, name, hf_config_model_type(config), NULL) != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: the text model of class '%s' is not supported; --mmproj writes what the "
                       "checkpoint has beside it",
                       name);
    return arch_resolve(a, config, e);
}

int model_open_hf(struct model *m, const char *path, const struct model_options *opt, struct err *e)
{
    struct hf_model *h = calloc(1, sizeof *h);
    if (!h)
        return model_out_of_memory(e);
    m->ops = &hf_ops;
    m->source = h;
    struct stat st;
    const char *folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? path : NULL;
    int rc = folder ? hf_config_load(&h->config, folder, e) : hf_config_load_file(&h->config, path, e);
    if (rc == 0)
        rc = opt->towers ? tower_resolve(&h->arch, h->config, e) : resolve_text(&h->arch, h->config, e);
    if (rc == 0)
        rc = hf_quant_load(&h->quant, h->config, folder, e);
    if (rc != 0)
        return err_context_path(e, rc, path);
    m->arch_name = h->arch.arch->name;

    m->has_towers = !opt->towers && tower_is_in(h->config);

    rc = folder ? open_checkpoint(m, h, folder, opt, e) : 0;
    if (rc == 0 && opt->towers)
        rc = open_beside(m, h, folder, e);
    if (rc == 0 && !opt->towers)
        rc = take_vocabulary(m, h, folder, opt->vocabulary, e);
    if (rc == 0 && !opt->towers)
        rc = rerank_detect(&h->arch, folder, m->vocabulary, e);
    if (rc == 0)
        rc = take_tensors(m, h, opt, e);
    if (rc == 0 && opt->keep_packed)
        rc = tell_unseen_blocks(m, h, e);
    if (rc != 0)
        return rc;

    struct metadata_sizes sizes;
    struct arch_warnings w = {add_warning, m};
    count_parameters(m, &sizes);
    rc = gguf_meta_new(&m->own_meta, e);
    if (rc == 0)
        rc = opt->towers
                 ? metadata_of_towers(m->own_meta, folder, path, &h->arch, &sizes, &w, e)
                 : metadata_from_folder(m->own_meta, folder, path, &h->arch, m->vocabulary, &sizes, &w, e);
    if (rc == 0 && !opt->towers && opt->vocabulary == MODEL_VOCABULARY_NONE)
        rc = metadata_without_vocabulary(m->own_meta, &h->arch, e);
    m->meta = m->own_meta;
    return rc;
}
