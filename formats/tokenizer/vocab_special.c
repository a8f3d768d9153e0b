/* vocab_special.c - special ids, whether BOS and EOS are added, and chat templates, from a HuggingFace
 * folder.
 *
 * Specification, architectures 19.4 to 19.6. The order of sources is that of the peer's converter, so that
 * both write the same keys; where only the peer's data flow (not the files) leaves an id unset, the id is
 * looked up after all. */
#include "vocab_build.h"

#include "formats/utf8.h"
#include "libquant/base/filemap.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum kind { BOS, EOS, UNK, SEP, PAD, CLS, MASK, EOT, EOM, N_KINDS };

static const char *const KIND_NAME[N_KINDS] = {"bos", "eos",  "unk", "sep", "pad",
                                               "cls", "mask", "eot", "eom"};

struct specials {
    const char *name[N_KINDS]; /* token text; borrowed from the JSON documents */
    int64_t id[N_KINDS];       /* -1: not found yet */
    int add[N_KINDS];          /* enum vocab_flag */
    bool use[N_KINDS];         /* eot and eom take part only when an eos was displaced */
};

static bool same(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

/* A token given as a text or as an object with `content`. */
static const char *token_text(const struct json *j)
{
    const char *s = json_string(j);
    return s ? s : json_string(json_get(j, "content"));
}

static const struct added_token *find_by_text(const struct vocab_build *b, const char *text,
                                              bool only_tokenizer_json)
{
    for (size_t i = 0; i < b->n_added; i++)
        if ((b->added[i].in_tokenizer_json || !only_tokenizer_json) && strcmp(b->added[i].text, text) == 0)
            return &b->added[i];
    return NULL;
}

static void set_id(struct vocab_build *b, struct specials *s, enum kind k, int64_t id)
{
    if (s->id[k] >= 0)
        return;
    if (id < 0 || (uint64_t)id >= b->v->n_tokens) {
        vocab_warn(b, "[special-token] %s_token_id %lld is ignored: the vocabulary has %zu tokens",
                   KIND_NAME[k], (long long)id, b->v->n_tokens);
        return;
    }
    s->id[k] = id;
}

static const char *special_of(const struct json *item)
{
    return json_string(json_get(json_get(item, "SpecialToken"), "id"));
}

static const struct json *last_child(const struct json *list)
{
    const struct json *last = json_first(list);
    for (const struct json *j = last; j; j = json_next(j))
        last = j;
    return last;
}

/* The trailing special of a template becomes eos; a different configured eos moves to eot, then eom. */
static void displace_eos(struct vocab_build *b, struct specials *s, const char *last)
{
    if (!s->name[EOS] || same(last, s->name[EOS])) {
        s->name[EOS] = last;
        return;
    }
    enum kind to = !s->use[EOT] ? EOT : EOM;
    if (s->use[to])
        vocab_warn(b, "[special-token] tokenizer.json: eos '%.60s' is replaced by '%.60s'", s->name[EOS],
                   last);
    s->use[to] = true;
    s->name[to] = s->name[EOS];
    s->name[EOS] = last;
}

/* The middle of a pair template, "A [sep] [eos] B": whether a separator stands there. */
static void read_pair(struct specials *s, const struct json *pair, const char *first, const char *last)
{
    const struct json *item[16];
    size_t n = 0, begin = 0;
    for (const struct json *j = json_first(pair); j; j = json_next(j)) {
        if (n == sizeof item / sizeof *item)
            return;
        item[n++] = j;
    }
    if (n && first && same(special_of(item[0]), first))
        begin = 1;
    if (n > begin && last && same(special_of(item[n - 1]), last))
        n--;
    if (n < begin + 3 || !same(json_string(json_get(json_get(item[begin], "Sequence"), "id")), "A") ||
        !same(json_string(json_get(json_get(item[n - 1], "Sequence"), "id")), "B"))
        return;
    const char *middle = special_of(item[begin + 1]), *second = special_of(item[begin + 2]);
    bool add_sep = middle && (same(middle, s->name[SEP]) || same(middle, s->name[EOS])) && !last;
    if (n == begin + 4 && second && (same(second, s->name[SEP]) || same(second, s->name[EOS])))
        add_sep = true;
    s->add[SEP] = add_sep;
    if (add_sep && !s->name[SEP])
        s->name[SEP] = s->name[EOS];
}

static void read_template_processor(struct vocab_build *b, struct specials *s, const struct json *p)
{
    const struct json *single = json_get(p, "single");
    const char *first = NULL, *last = NULL;
    if (json_n_children(single) > 1) {
        first = special_of(json_first(single));
        last = special_of(last_child(single));
        if (first) {
            if (!s->name[BOS])
                s->name[BOS] = first;
            if (!same(first, s->name[BOS]) && !s->name[CLS])
                s->name[CLS] = first;
            s->add[BOS] = same(first, s->name[BOS]) || same(first, s->name[CLS]);
        }
        if (last) {
            displace_eos(b, s, last);
            s->add[EOS] = VOCAB_FLAG_TRUE;
        }
    }
    read_pair(s, json_get(p, "pair"), first, last);
}

static void read_post_processor(struct vocab_build *b, struct specials *s)
{
    const struct json *post = json_get(json_root(b->tokenizer_json), "post_processor");
    const struct json *list = json_get(post, "processors");
    for (const struct json *p = list ? json_first(list) : post; p; p = list ? json_next(p) : NULL) {
        const char *type = json_string(json_get(p, "type"));
        if (same(type, "RobertaProcessing")) {
            s->add[BOS] = s->add[EOS] = s->add[SEP] = VOCAB_FLAG_TRUE;
            if (!s->name[CLS])
                s->name[CLS] = json_string(json_first(json_get(p, "cls")));
            if (!s->name[SEP])
                s->name[SEP] = json_string(json_first(json_get(p, "sep")));
        } else if (same(type, "TemplateProcessing")) {
            read_template_processor(b, s, p);
        }
    }
}

static void read_tokenizer_files(struct vocab_build *b, struct specials *s)
{
    const struct json *config = json_root(b->tokenizer_config);
    char key[32];
    for (int k = 0; k < N_KINDS; k++) {
        s->id[k] = -1;
        s->add[k] = VOCAB_FLAG_UNSET;
        s->use[k] = k < EOT;
        strcpy(key, KIND_NAME[k]);
        s->name[k] = k < EOT ? token_text(json_get(config, strcat(key, "_token"))) : NULL;
    }
    if (b->tokenizer_json) {
        if (!s->name[BOS])
            s->name[BOS] = s->name[CLS];
        if (!s->name[EOS])
            s->name[EOS] = s->name[SEP];
        read_post_processor(b, s);
    }
    for (int k = 0; k < N_KINDS; k++) {
        bool add;
        strcat(strcat(strcpy(key, "add_"), KIND_NAME[k]), "_token");
        if (json_bool(json_get(config, key), &add))
            s->add[k] = add;
        const struct added_token *t = s->use[k] && s->name[k] ? find_by_text(b, s->name[k], true) : NULL;
        if (t)
            set_id(b, s, k, (int64_t)t->id);
    }
}

static void read_model_config(struct vocab_build *b, struct specials *s)
{
    const struct json *root = b->config ? hf_config_root(b->config) : NULL;
    for (int k = 0; k < N_KINDS; k++) {
        char key[32];
        strcat(strcpy(key, KIND_NAME[k]), "_token_id");
        const struct json *j = json_get(root, key);
        if (!j || json_is_null(j))
            j = json_get(json_get(root, "text_config"), key);
        int64_t id;
        if (s->use[k] && json_int(j, &id))
            set_id(b, s, k, id);
    }
}

/* Last resort for ids that no rule above found: the text that tokenizer_config.json names, wherever it is. */
static void look_up_rest(struct vocab_build *b, struct specials *s)
{
    const struct vocabulary *v = b->v;
    for (int k = 0; k < N_KINDS; k++) {
        if (!s->use[k] || s->id[k] >= 0 || !s->name[k])
            continue;
        const struct added_token *t = find_by_text(b, s->name[k], false);
        size_t n = strlen(s->name[k]);
        for (size_t i = 0; !t && i < v->n_tokens; i++)
            if (v->tokens[i].len == n && memcmp(v->tokens[i].text, s->name[k], n) == 0) {
                s->id[k] = (int64_t)i;
                break;
            }
        if (t)
            set_id(b, s, k, (int64_t)t->id);
        else if (s->id[k] < 0)
            vocab_warn(b, "[special-token] tokenizer_config.json: %s_token '%.60s' is not in the vocabulary",
                       KIND_NAME[k], s->name[k]);
    }
}

void vocab_special_ids(struct vocab_build *b)
{
    struct specials s;
    struct vocabulary *v = b->v;
    read_tokenizer_files(b, &s);
    const char *arch = b->config ? hf_config_architecture(b->config) : "";
    if (strncmp(arch, "Qwen3Omni", 9) ==
        0) { /* specification, architectures 15: the talker's end token rules */
        const struct added_token *end = find_by_text(b, "<|im_end|>", false);
        if (end && end->id < v->n_tokens)
            s.id[BOS] = s.id[EOS] = (int64_t)end->id;
    }
    read_model_config(b, &s);
    look_up_rest(b, &s);
    v->bos = s.id[BOS] >= 0 ? s.id[BOS] : v->bos;
    v->eos = s.id[EOS] >= 0 ? s.id[EOS] : v->eos;
    v->unk = s.id[UNK] >= 0 ? s.id[UNK] : v->unk;
    v->sep = s.id[SEP];
    v->pad = s.id[PAD];
    v->mask = s.id[MASK];
    v->eot = s.id[EOT];
    v->eom = s.id[EOM];
    v->add_bos = s.add[BOS];
    v->add_eos = s.add[EOS];
    v->add_sep = s.add[SEP];
}

/* --- chat templates
 * ------------------------------------------------------------------------------------------ */

static int add_template(struct vocab_build *b, const char *name, const char *text, struct err *e)
{
    struct vocabulary *v = b->v;
    char *clean = arena_strdup(b->arena, name);
    char *copy = arena_strdup(b->arena, text);
    struct vocab_template *grown = arena_array(b->arena, v->n_named_templates + 1, sizeof *grown);
    if (!clean || !copy || !grown)
        return err_set(e, ERR_NOMEM, "out of memory for chat templates");
    for (char *p = clean; *p; p++)
        if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')))
            *p = '_';
    if (strcmp(clean, "default") == 0) {
        v->chat_template = copy;
        return 0;
    }
    for (size_t i = 0; i < v->n_named_templates; i++)
        if (strcmp(v->named_templates[i].name, clean) == 0) {
            vocab_warn(b, "[chat-template] chat template '%.60s' is a duplicate; the first is kept", clean);
            return 0;
        }
    if (v->n_named_templates) /* the outgrown array stays in the arena; lists of templates are short */
        memcpy(grown, v->named_templates, v->n_named_templates * sizeof *grown);
    grown[v->n_named_templates++] = (struct vocab_template){clean, copy};
    v->named_templates = grown;
    return 0;
}

static int add_json_templates(struct vocab_build *b, const struct json *j, const char *where, struct err *e)
{
    enum { MAX_TEMPLATES = 256 };
    int rc = 0;
    if (!j || json_is_null(j))
        return 0;
    if (json_is_string(j))
        return add_template(b, "default", json_string(j), e);
    if (!json_is_array(j)) {
        vocab_warn(b, "[chat-template] %s: chat_template is neither a text nor a list and is ignored", where);
        return 0;
    }
    for (const struct json *t = json_first(j); t && rc == 0; t = json_next(t)) {
        const char *name = json_string(json_get(t, "name")), *text = json_string(json_get(t, "template"));
        if (!name || !*name || !text)
            vocab_warn(b, "[chat-template] %s: a chat template without name or text is ignored", where);
        else if (b->v->n_named_templates >= MAX_TEMPLATES)
            return err_set(e, ERR_FORMAT, "%s: more than %d chat templates", where, MAX_TEMPLATES);
        else
            rc = add_template(b, name, text, e);
    }
    return rc;
}

static int read_text_file(struct vocab_build *b, const char *name, const char **out, struct err *e)
{
    struct filemap m = {0};
    const char *path = vocab_path(b, name);
    int rc = path ? filemap_open(&m, path, e) : err_set(e, ERR_NOMEM, "out of memory for a path");
    if (rc != 0)
        return rc;
    if (m.size > (4u << 20) || !utf8_valid(m.data, m.size) || (m.size && memchr(m.data, 0, m.size)))
        rc = err_set(e, ERR_FORMAT, "%s: a chat template is UTF-8 text of at most 4 MiB", path);
    else if (!(*out = arena_strndup(b->arena, (const char *)m.data, m.size)))
        rc = err_set(e, ERR_NOMEM, "%s: out of memory for the text", path);
    filemap_close(&m);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* additional_chat_templates/<name>.jinja, in the order of their names. */
static int add_folder_templates(struct vocab_build *b, struct err *e)
{
    static const char folder[] = "additional_chat_templates";
    enum { MAX_FILES = 256 };
    char *names[MAX_FILES];
    size_t n = 0;
    const char *path = vocab_path(b, folder);
    DIR *d = path ? opendir(path) : NULL;
    if (!d)
        return 0;
    for (struct dirent *ent; n < MAX_FILES && (ent = readdir(d)) != NULL;) {
        size_t len = strlen(ent->d_name);
        if (len > 6 && strcmp(ent->d_name + len - 6, ".jinja") == 0 &&
            (names[n] = arena_strndup(b->arena, ent->d_name, len - 6)) != NULL)
            n++;
    }
    closedir(d);
    qsort(names, n, sizeof *names, by_name);
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const char *file = arena_printf(b->arena, "%s/%s.jinja", folder, names[i]), *text = NULL;
        rc = file ? read_text_file(b, file, &text, e) : err_set(e, ERR_NOMEM, "out of memory for a path");
        if (rc == 0)
            rc = add_template(b, names[i], text, e);
    }
    return rc;
}

/* HuggingFace lets the stand-alone file win over tokenizer_config.json; the peer's converter does the
 * opposite. */
int vocab_chat_templates(struct vocab_build *b, struct err *e)
{
    int rc = add_json_templates(b, json_get(json_root(b->tokenizer_config), "chat_template"),
                                "tokenizer_config.json", e);
    if (rc != 0 || !b->folder)
        return rc;
    const char *inlined = b->v->chat_template;
    if (vocab_file_exists(b, "chat_template.jinja")) {
        const char *text = NULL;
        if ((rc = read_text_file(b, "chat_template.jinja", &text, e)) != 0)
            return rc;
        if (inlined && strcmp(inlined, text) != 0)
            vocab_warn(b, "[chat-template] chat_template.jinja differs from the template in "
                          "tokenizer_config.json; the file is "
                          "taken");
        if ((rc = add_template(b, "default", text, e)) != 0)
            return rc;
        return add_folder_templates(b, e);
    }
    if (!inlined && b->v->n_named_templates == 0 && vocab_file_exists(b, "chat_template.json")) {
        struct json_doc *doc = NULL;
        rc = vocab_load_json(&doc, b, "chat_template.json", e);
        if (rc == 0)
            rc = add_json_templates(b, json_get(json_root(doc), "chat_template"), "chat_template.json", e);
        json_free(doc);
    }
    return rc;
}
