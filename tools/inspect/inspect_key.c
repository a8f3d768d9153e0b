/* inspect_key.c - see inspect_key.h. */
#include "inspect_key.h"

#include "tools/plain_output.h"

#include "meta_text.h"
#include "tools/cmd.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* One key, whatever kind of file it is in: a GGUF value, or a node of config.json. */
struct entry {
    const char *key;
    struct gguf_value value;
    const struct json *node; /* NULL: `value` counts */
};

static size_t n_keys(const struct inspection *in)
{
    size_t n = 0;
    if (in->gguf)
        return gguf_meta_n(gguf_reader_meta(in->gguf));
    if (in->st)
        return safetensors_n_metadata(in->st);
    for (const struct json *j = in->config ? json_first(hf_config_root(in->config)) : NULL; j;
         j = json_next(j))
        n++;
    return n;
}

/* All keys; `out` has room for n_keys of them. */
static void list_keys(struct entry *out, const struct inspection *in)
{
    size_t n = 0;
    if (in->gguf) {
        const struct gguf_meta *m = gguf_reader_meta(in->gguf);
        for (; n < gguf_meta_n(m); n++)
            out[n] = (struct entry){.key = gguf_meta_key(m, n), .value = *gguf_meta_value(m, n)};
    } else if (in->st) {
        for (; n < safetensors_n_metadata(in->st); n++) {
            const char *text;
            safetensors_metadata(in->st, n, &out[n].key, &text);
            out[n].value = (struct gguf_value){.type = GGUF_STRING, .s = {.data = text, .len = strlen(text)}};
            out[n].node = NULL;
        }
    } else if (in->config) {
        for (const struct json *j = json_first(hf_config_root(in->config)); j; j = json_next(j))
            out[n++] = (struct entry){.key = json_key(j), .node = j};
    }
}

static bool is_pattern(const char *name)
{
    return strpbrk(name, "*?[") != NULL;
}

static bool asks_for(const char *name, const char *key)
{
    return strcmp(name, key) == 0 || (is_pattern(name) && fnmatch(name, key, 0) == 0);
}

/* Every name has a key; a wrong one is told with the key that is nearest. */
static int check_names(const struct entry *all, size_t n, const char *path, const struct opt_list *names,
                       struct err *e)
{
    if (n == 0)
        return err_set(e, ERR_ARG, "%s: has no metadata keys, and so no '%s'", path, names->items[0]);
    for (size_t i = 0; i < names->n; i++) {
        bool found = false;
        for (size_t k = 0; k < n && !found; k++)
            found = asks_for(names->items[i], all[k].key);
        if (found)
            continue;
        const char **keys = calloc(n ? n : 1, sizeof *keys);
        for (size_t k = 0; keys && k < n; k++)
            keys[k] = all[k].key;
        const char *near = keys ? opt_nearest(names->items[i], keys, n) : NULL;
        int rc = err_set(e, ERR_ARG, "%s: has no metadata key '%s'%s%s%s", path, names->items[i],
                         near ? "; did you mean '" : "; 'kerf inspect' lists its keys", near ? near : "",
                         near ? "'?" : "");
        free(keys);
        return rc;
    }
    return 0;
}

/* A node as JSON in one line, with its end: the writer gives one to objects and arrays alone. */
static void print_node(const struct json *node)
{
    struct json_writer w;
    jw_begin(&w, stdout);
    w.one_line = true;
    meta_json_node(&w, node);
    if (!json_is_object(node) && !json_is_array(node))
        putchar('\n');
}

static void print_alone(const struct entry *x)
{
    if (x->node && json_is_string(x->node))
        puts(json_string(x->node));
    else if (x->node)
        print_node(x->node);
    else
        meta_value_print(&x->value, stdout);
}

/* Whoever made the file chose the keys, too: none of them gives a line of its own. */
static void print_key(const char *key)
{
    char text[5];
    for (; *key; key++) {
        meta_escape(text, (unsigned char)*key);
        fputs(text, stdout);
    }
    putchar('=');
}

static void print_line(const struct entry *x)
{
    struct gguf_value text = x->value;
    print_key(x->key);
    if (x->node && json_is_string(x->node)) {
        const char *s = json_string(x->node);
        text = (struct gguf_value){.type = GGUF_STRING, .s = {.data = s, .len = strlen(s)}};
    } else if (x->node) {
        print_node(x->node);
        return;
    }
    meta_value_line(&text, stdout);
}

static void print_json(const struct entry *all, size_t n, const struct opt_list *names)
{
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "metadata"), jw_object(&w);
    for (size_t k = 0; k < n; k++) {
        bool asked = false;
        for (size_t i = 0; i < names->n && !asked; i++)
            asked = asks_for(names->items[i], all[k].key);
        if (!asked)
            continue;
        jw_key(&w, all[k].key);
        all[k].node ? meta_json_node(&w, all[k].node) : meta_value_json(&w, &all[k].value, UINT64_MAX);
    }
    jw_end(&w);
    cmd_json_end(&w);
}

int inspect_keys(const struct inspection *in, const char *path, const struct opt_list *names, bool json,
                 struct err *e)
{
    size_t n = n_keys(in);
    struct entry *all = calloc(n ? n : 1, sizeof *all);
    if (!all)
        return err_set(e, ERR_NOMEM, "out of memory for %zu keys", n);
    list_keys(all, in);
    int rc = check_names(all, n, path, names, e);
    if (rc == 0 && json) {
        print_json(all, n, names);
    } else if (rc == 0) {
        bool alone = names->n == 1 && !is_pattern(names->items[0]);
        if (alone)
            plain_output_as_is();
        for (size_t i = 0; i < names->n; i++)
            for (size_t k = 0; k < n; k++) {
                if (!asks_for(names->items[i], all[k].key))
                    continue;
                alone ? print_alone(&all[k]) : print_line(&all[k]);
            }
    }
    free(all);
    return rc;
}
