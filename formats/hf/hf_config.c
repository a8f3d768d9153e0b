/* hf_config.c - see hf_config.h. Rules: specification, architectures 0.4 (which object, which default) and
 * 0.6 (tied embeddings); RoPE is in hf_rope.c.
 *
 * Refuses to judge: whether a size makes sense is the architecture's business. */
#include "hf_config_internal.h"

#include "hf_checkpoint.h"
#include "hf_class_defaults.h"
#include "hf_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CONFIG_BYTES                                                                                     \
    (16u << 20) /* quantized releases list thousands of modules; 1 MiB is the largest seen */

/* The text part of a multi-modal config: the first that exists. */
static const struct json *text_part(const struct json *root)
{
    static const char *const names[] = {"text_config", "llm_config", "language_config"};
    const struct json *t = json_get(json_get(root, "thinker_config"), "text_config");
    if (json_is_object(t))
        return t;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        t = json_get(root, names[i]);
        if (json_is_object(t))
            return t;
    }
    t = json_get(root, "thinker_config") ? NULL : json_get(root, "talker_config"); /* one by itself */
    return json_is_object(t) ? t : root;
}

/* `architectures` of one object; NULL when it has none. */
static const char *first_architecture(const struct json *j)
{
    return json_string(json_first(json_get(j, "architectures")));
}

static int adopt(struct hf_config **out, struct json_doc *doc, const char *what, struct err *e)
{
    struct hf_config *c = calloc(1, sizeof *c);
    char *name = strdup(what);
    if (!c || !name) {
        free(c);
        free(name);
        json_free(doc);
        return err_set(e, ERR_NOMEM, "%s: out of memory", what);
    }
    c->doc = doc;
    c->what = name;
    c->root = json_root(doc);
    if (!json_is_object(c->root)) {
        hf_config_free(c);
        return err_set(e, ERR_FORMAT, "%s: expected an object, the file holds another kind of value", what);
    }
    c->text = text_part(c->root);
    const char *arch = first_architecture(c->text), *type = json_string(json_get(c->text, "model_type"));
    if (!arch)
        arch = first_architecture(c->root);
    if (!type)
        type = json_string(json_get(c->root, "model_type"));
    c->architecture = arch ? arch : "";
    c->model_type = type ? type : "";
    *out = c;
    return 0;
}

int hf_config_load(struct hf_config **out, const char *folder, struct err *e)
{
    char *path = hf_path(folder, "config.json");
    if (!path)
        return err_set(e, ERR_NOMEM, "%s: out of memory", folder);
    bool absent = access(path, F_OK) != 0 && errno == ENOENT;
    int rc = absent ? hf_folder_refuse(folder, e) : hf_config_load_file(out, path, e);
    free(path);
    return rc;
}

int hf_config_load_file(struct hf_config **out, const char *path, struct err *e)
{
    struct json_doc *doc = NULL;
    int rc = json_load_python(&doc, path, MAX_CONFIG_BYTES, e);
    return rc == 0 ? adopt(out, doc, path, e) : rc;
}

int hf_config_parse(struct hf_config **out, const char *text, size_t len, const char *what, struct err *e)
{
    struct json_doc *doc = NULL;
    int rc = json_parse_python(&doc, text, len, what, e);
    return rc == 0 ? adopt(out, doc, what, e) : rc;
}

void hf_config_free(struct hf_config *c)
{
    if (!c)
        return;
    json_free(c->doc);
    free(c->what);
    free(c);
}

const char *hf_config_architecture(const struct hf_config *c)
{
    return c->architecture;
}

const char *hf_config_model_type(const struct hf_config *c)
{
    return c->model_type;
}

const struct json *hf_config_root(const struct hf_config *c)
{
    return c->root;
}

/* The stated value including null; NULL when the key is in neither object. */
static const struct json *stated(const struct hf_config *c, const char *key)
{
    const struct json *j = json_get(c->text, key);
    return j ? j : json_get(c->root, key);
}

const struct json *hf_config_get(const struct hf_config *c, const char *key)
{
    const struct json *j = stated(c, key);
    return json_is_null(j) ? NULL : j;
}

const char *hf_config_string(const struct hf_config *c, const char *key)
{
    return json_string(hf_config_get(c, key));
}

/* Where a value comes from: the file (*j), the class default of this kind (*d), or nowhere. */
static bool resolve(const struct hf_config *c, const char *key, enum hf_default_kind kind,
                    const struct json **j, double *d, bool *present)
{
    enum hf_default_kind default_kind;
    const struct json *s = stated(c, key);
    *j = json_is_null(s) ? NULL : s;
    if (present)
        *present = *j != NULL;
    if (s)
        return *j != NULL;
    return hf_class_default(c->model_type, key, &default_kind, d) &&
           (default_kind == kind || (kind == HF_DEFAULT_NUMBER && default_kind == HF_DEFAULT_UINT));
}

bool hf_config_uint(const struct hf_config *c, const char *key, uint64_t *out, bool *present)
{
    const struct json *j;
    double d;
    if (!resolve(c, key, HF_DEFAULT_UINT, &j, &d, present))
        return false;
    if (j)
        return json_uint(j, out);
    *out = (uint64_t)d;
    return true;
}

bool hf_config_number(const struct hf_config *c, const char *key, double *out, bool *present)
{
    const struct json *j;
    double d;
    if (!resolve(c, key, HF_DEFAULT_NUMBER, &j, &d, present))
        return false;
    if (j)
        return json_number(j, out);
    *out = d;
    return true;
}

bool hf_config_bool(const struct hf_config *c, const char *key, bool *out, bool *present)
{
    const struct json *j;
    double d;
    if (!resolve(c, key, HF_DEFAULT_BOOL, &j, &d, present))
        return false;
    if (j)
        return json_bool(j, out);
    *out = d != 0;
    return true;
}

bool hf_config_tied(const struct hf_config *c)
{
    static const char key[] = "tie_word_embeddings";
    enum hf_default_kind kind;
    bool tied;
    double d;
    /* The model that owns the head decides: the thinker's flag, not that of the text part inside it. */
    if (json_bool(json_get(c->root, key), &tied) ||
        json_bool(json_get(json_get(c->root, "thinker_config"), key), &tied) ||
        json_bool(json_get(c->text, key), &tied))
        return tied;
    return hf_class_default(c->model_type, key, &kind, &d) && d != 0;
}
