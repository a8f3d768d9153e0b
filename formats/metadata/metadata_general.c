/* metadata_general.c - the general.* keys: what the model card, the name and generation_config.json say.
 *
 * Keys come out in the order and with the types of llama.cpp's converter. */
#include "metadata.h"

#include "model_card.h"
#include "model_name.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum field {
    NAME,
    AUTHOR,
    VERSION,
    ORGANIZATION,
    FINETUNE,
    BASENAME,
    DESCRIPTION,
    QUANTIZED_BY,
    SIZE_LABEL,
    LICENSE,
    LICENSE_NAME,
    LICENSE_LINK,
    SOURCE_URL,
    SOURCE_DOI,
    SOURCE_UUID,
    SOURCE_REPO_URL,
    N_FIELDS,
};

static const char *const field_keys[N_FIELDS] = {
    [NAME] = "general.name",
    [AUTHOR] = "general.author",
    [VERSION] = "general.version",
    [ORGANIZATION] = "general.organization",
    [FINETUNE] = "general.finetune",
    [BASENAME] = "general.basename",
    [DESCRIPTION] = "general.description",
    [QUANTIZED_BY] = "general.quantized_by",
    [SIZE_LABEL] = "general.size_label",
    [LICENSE] = "general.license",
    [LICENSE_NAME] = "general.license.name",
    [LICENSE_LINK] = "general.license.link",
    [SOURCE_URL] = "general.source.url",
    [SOURCE_DOI] = "general.source.doi",
    [SOURCE_UUID] = "general.source.uuid",
    [SOURCE_REPO_URL] = "general.source.repo_url",
};

/* Model card keys in order of preference. */
static const struct {
    enum field field;
    const char *key;
} card_keys[] = {
    {NAME, "name"},
    {AUTHOR, "author"},
    {VERSION, "version"},
    {ORGANIZATION, "organization"},
    {DESCRIPTION, "description"},
    {FINETUNE, "finetune"},
    {BASENAME, "basename"},
    {SIZE_LABEL, "size_label"},
    {SOURCE_URL, "url"},
    {SOURCE_DOI, "doi"},
    {SOURCE_UUID, "uuid"},
    {SOURCE_REPO_URL, "repo_url"},
    {NAME, "model_name"},
    {AUTHOR, "model_author"},
    {VERSION, "model_version"},
    {ORGANIZATION, "model_organization"},
    {DESCRIPTION, "model_description"},
    {FINETUNE, "model_finetune"},
    {BASENAME, "model_basename"},
    {SIZE_LABEL, "model_size_label"},
    {SOURCE_URL, "model_url"},
    {SOURCE_DOI, "model_doi"},
    {SOURCE_UUID, "model_uuid"},
    {SOURCE_REPO_URL, "model_repo_url"},
    {AUTHOR, "model_creator"},
    {BASENAME, "model_type"},
    {LICENSE_NAME, "license_name"},
    {LICENSE_LINK, "license_link"},
};

struct collector {
    struct gguf_meta *meta;
    struct arena arena;
    const char *fields[N_FIELDS];
    uint64_t n_params;
    const struct arch_warnings *w;
    struct err *e;
};

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory collecting metadata");
}

/* An earlier source is never overwritten; an empty text says nothing. */
static void offer(struct collector *c, enum field f, const char *text)
{
    if (text && text[0] && !c->fields[f])
        c->fields[f] = text;
}

/* --- model card ---------------------------------------------------------------------------------------- */

static size_t n_children(const struct card_node *node)
{
    size_t n = 0;
    for (const struct card_node *c = node ? node->first : NULL; c; c = c->next)
        n++;
    return n;
}

/* A text, or the items of a list, appended to `out`. */
static size_t take_texts(const struct card_node *node, struct gguf_string *out)
{
    size_t n = 0;
    const struct card_node *item = node && node->kind == CARD_LIST ? node->first : node;
    for (; item; item = node->kind == CARD_LIST ? item->next : NULL) {
        if (item->kind != CARD_TEXT)
            continue;
        if (out)
            out[n] = (struct gguf_string){item->text, strlen(item->text)};
        n++;
    }
    return n;
}

/* The texts of two card keys as one array key. */
static int write_texts(struct collector *c, const struct card_node *card, const char *key, const char *first,
                       const char *second)
{
    const struct card_node *a = card_get(card, first), *b = card_get(card, second);
    size_t n = take_texts(a, NULL) + take_texts(b, NULL);
    if (n == 0)
        return 0;
    struct gguf_string *list = arena_array(&c->arena, n, sizeof *list);
    if (!list)
        return no_memory(c->e);
    size_t at = take_texts(a, list);
    take_texts(b, list + at);
    return gguf_meta_set_strings(c->meta, key, list, n, c->e);
}

static int offer_license(struct collector *c, const struct card_node *card)
{
    const struct card_node *node = card_get(card, "license");
    size_t n = take_texts(node, NULL), bytes = 1;
    if (n == 0)
        return 0;
    struct gguf_string *list = arena_array(&c->arena, n, sizeof *list);
    if (!list)
        return no_memory(c->e);
    take_texts(node, list);
    for (size_t i = 0; i < n; i++)
        bytes += list[i].len + 1;
    char *text = arena_alloc(&c->arena, bytes);
    if (!text)
        return no_memory(c->e);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (i)
            text[at++] = ',';
        memcpy(text + at, list[i].data, list[i].len);
        at += list[i].len;
    }
    offer(c, LICENSE, text);
    return 0;
}

/* --- base models and datasets -------------------------------------------------------------------------- */

static int set_entry(struct collector *c, const char *kind, size_t k, const char *what, const char *value)
{
    char key[96];
    snprintf(key, sizeof key, "general.%s.%zu.%s", kind, k, what);
    return value && value[0] ? gguf_meta_set_string(c->meta, key, value, c->e) : 0;
}

/* "org/name" behind https://huggingface.co/, and nothing behind it; NULL otherwise. */
static const char *hub_id(const char *url)
{
    static const char *const prefixes[] = {"https://huggingface.co/", "http://huggingface.co/"};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(prefixes[i]);
        if (strncmp(url, prefixes[i], n) != 0)
            continue;
        const char *id = url + n, *slash = strchr(id, '/');
        return slash && slash > id && slash[1] && !strchr(slash + 1, '/') ? id : NULL;
    }
    return NULL;
}

static bool is_url(const char *s)
{
    return strncmp(s, "http://", 7) == 0 || strncmp(s, "https://", 8) == 0 || strncmp(s, "ssh://", 6) == 0;
}

static int write_id_entry(struct collector *c, const char *kind, size_t k, const char *id)
{
    struct model_name name = {0};
    const char *title = NULL, *org = NULL, *url = is_url(id) ? id : NULL;
    const char *hub = url ? hub_id(id) : id;
    int rc = hub ? model_name_parse(&name, hub, c->n_params, &c->arena, c->e) : 0;
    if (rc == 0 && name.full)
        rc = model_name_title(&title, name.full, &c->arena, c->e);
    if (rc == 0 && name.organization)
        rc = model_name_title(&org, name.organization, &c->arena, c->e);
    if (rc == 0 && !url && name.organization) {
        url = arena_printf(&c->arena, "https://huggingface.co/%s/%s", name.organization, name.full);
        rc = url ? 0 : no_memory(c->e);
    }
    if (rc == 0)
        rc = set_entry(c, kind, k, "name", title);
    if (rc == 0)
        rc = set_entry(c, kind, k, "version", name.version);
    if (rc == 0)
        rc = set_entry(c, kind, k, "organization", org);
    return rc == 0 ? set_entry(c, kind, k, "repo_url", url) : rc;
}

static int write_map_entry(struct collector *c, const char *kind, size_t k, const struct card_node *map)
{
    static const char *const keys[] = {"name", "author", "version", "organization", "description",
                                       "url",  "doi",    "uuid",    "repo_url"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof keys / sizeof *keys; i++) {
        const struct card_node *v = card_get(map, keys[i]);
        rc = v && v->kind == CARD_TEXT ? set_entry(c, kind, k, keys[i], v->text) : 0;
    }
    return rc;
}

static int write_entries(struct collector *c, const struct card_node *card, const char *kind,
                         const char *const *card_names)
{
    const struct card_node *value = NULL;
    for (; *card_names && !value; card_names++)
        value = card_get(card, *card_names);
    if (!value)
        return 0;
    bool is_list = value->kind == CARD_LIST;
    size_t n = is_list ? n_children(value) : value->kind == CARD_TEXT;
    char key[64];
    snprintf(key, sizeof key, "general.%s.count", kind);
    int rc = gguf_meta_set_u32(c->meta, key, (uint32_t)n, c->e);
    const struct card_node *item = is_list ? value->first : value;
    for (size_t k = 0; rc == 0 && k < n; k++, item = item->next) {
        if (item->kind == CARD_TEXT)
            rc = write_id_entry(c, kind, k, item->text);
        else if (item->kind == CARD_MAP)
            rc = write_map_entry(c, kind, k, item);
    }
    return rc;
}

/* --- generation_config.json ---------------------------------------------------------------------------- */

static int write_sampling(struct collector *c, const struct json *g)
{
    static const struct {
        const char *json, *key;
        enum gguf_type type;
    } keys[] = {
        {"sequence", "sequence", GGUF_STRING},
        {"top_k", "top_k", GGUF_I32},
        {"top_p", "top_p", GGUF_F32},
        {"min_p", "min_p", GGUF_F32},
        {"xtc_probability", "xtc_probability", GGUF_F32},
        {"xtc_threshold", "xtc_threshold", GGUF_F32},
        {"temperature", "temp", GGUF_F32},
        {"penalty_last_n", "penalty_last_n", GGUF_I32},
        {"penalty_repeat", "penalty_repeat", GGUF_F32},
        {"mirostat", "mirostat", GGUF_I32},
        {"mirostat_tau", "mirostat_tau", GGUF_F32},
        {"mirostat_eta", "mirostat_eta", GGUF_F32},
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof keys / sizeof *keys; i++) {
        const struct json *v = json_get(g, keys[i].json);
        char key[64];
        int64_t n;
        double f;
        if (!v || json_is_null(v))
            continue;
        snprintf(key, sizeof key, "general.sampling.%s", keys[i].key);
        if (keys[i].type == GGUF_STRING && json_string(v) && *json_string(v))
            rc = gguf_meta_set_string(c->meta, key, json_string(v), c->e);
        else if (keys[i].type == GGUF_I32 && json_int(v, &n) && n >= INT32_MIN && n <= INT32_MAX)
            rc = gguf_meta_set_i32(c->meta, key, (int32_t)n, c->e);
        else if (keys[i].type == GGUF_F32 && json_number(v, &f) && fabs(f) <= (double)FLT_MAX)
            rc = gguf_meta_set_f32(c->meta, key, (float)f, c->e);
        else
            rc = c->w->add(
                c->w->ctx,
                arena_printf(
                    &c->arena,
                    "[generation-config] generation_config.json: '%s' is of an unexpected kind, left out",
                    keys[i].json),
                c->e);
    }
    return rc;
}

/* --- names --------------------------------------------------------------------------------------------- */

static int offer_name(struct collector *c, const char *id)
{
    struct model_name name;
    const char *title = NULL, *org = NULL;
    int rc = model_name_parse(&name, id, c->n_params, &c->arena, c->e);
    if (rc == 0)
        rc = model_name_title(&title, name.full, &c->arena, c->e);
    if (rc == 0 && name.organization)
        rc = model_name_title(&org, name.organization, &c->arena, c->e);
    if (rc != 0)
        return rc;
    offer(c, NAME, title);
    offer(c, ORGANIZATION, org);
    offer(c, BASENAME, name.basename);
    offer(c, FINETUNE, name.finetune);
    offer(c, VERSION, name.version);
    offer(c, SIZE_LABEL, name.size_label);
    return 0;
}

static size_t count_char(const char *s, char c)
{
    size_t n = 0;
    for (; *s; s++)
        n += *s == c;
    return n;
}

static int write_fields(struct collector *c)
{
    int rc = 0;
    for (int f = 0; rc == 0 && f < N_FIELDS; f++)
        if (c->fields[f])
            rc = gguf_meta_set_string(c->meta, field_keys[f], c->fields[f], c->e);
    return rc;
}

static int collect(struct collector *c, const struct card_node *card, const struct json *generation,
                   const char *name_or_path, const char *folder_name, const struct metadata_sizes *sizes)
{
    static const char *const base_names[] = {"base_model", "base_models", "base_model_sources", NULL};
    static const char *const dataset_names[] = {"datasets", "dataset", "dataset_sources", NULL};
    int rc = write_sampling(c, generation);
    for (size_t i = 0; i < sizeof card_keys / sizeof *card_keys; i++) {
        const struct card_node *v = card_get(card, card_keys[i].key);
        if (v && v->kind == CARD_TEXT)
            offer(c, card_keys[i].field, v->text);
    }
    if (rc == 0)
        rc = offer_license(c, card);
    if (rc == 0 && name_or_path && name_or_path[0] && count_char(name_or_path, '/') <= 1)
        rc = offer_name(c, name_or_path);
    if (rc == 0 && folder_name[0])
        rc = offer_name(c, folder_name);
    if (rc == 0 && sizes->total > 0)
        offer(c, SIZE_LABEL,
              model_name_size_label(sizes->total, sizes->shared, sizes->expert, sizes->n_experts, &c->arena));
    if (rc == 0)
        rc = write_fields(c);
    if (rc == 0)
        rc = write_entries(c, card, "base_model", base_names);
    if (rc == 0)
        rc = write_entries(c, card, "dataset", dataset_names);
    if (rc == 0)
        rc = write_texts(c, card, "general.tags", "tags", "pipeline_tag");
    return rc == 0 ? write_texts(c, card, "general.languages", "languages", "language") : rc;
}

int metadata_general(struct gguf_meta *meta, const char *readme, size_t readme_len,
                     const struct json *generation, const char *name_or_path, const char *folder_name,
                     const struct metadata_sizes *sizes, const struct arch_warnings *w, struct err *e)
{
    struct collector c = {.meta = meta, .n_params = sizes->total, .w = w, .e = e};
    struct model_card *card = NULL;
    struct err card_err = {0};
    int rc = readme ? model_card_parse(&card, readme, readme_len, &card_err) : 0;
    if (rc == ERR_FORMAT) { /* a card is for people: not worth losing a conversion */
        char text[600];
        snprintf(text, sizeof text, "[model-card] README.md: %s; the model card is not used", card_err.msg);
        rc = w->add(w->ctx, text, e);
    } else if (rc != 0) {
        rc = err_set(e, card_err.code, "%s", card_err.msg);
    }
    if (rc == 0)
        rc = collect(&c, card ? model_card_root(card) : NULL, generation, name_or_path, folder_name, sizes);
    model_card_free(card);
    arena_release(&c.arena);
    return rc;
}
