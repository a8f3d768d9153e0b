/* hf_index.c - see hf_index.h. File names come from a download: only plain names may reach the file system.
 */
#include "hf_index.h"

#include "formats/json.h"
#include "libquant/base/path.h"

#include <stdlib.h>
#include <string.h>

static int check_file_name(const char *path, const char *tensor, const char *file, struct err *e)
{
    if (*file == 0 || strpbrk(file, "/\\") || strstr(file, ".."))
        return err_set(e, ERR_FORMAT,
                       "%s: tensor '%.120s': file '%.120s' must be a plain name in the same folder", path,
                       tensor, file);
    if (!path_ends_with(file, ".safetensors"))
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tensor '%.120s': file '%.120s' is not a safetensors file; pickled weights are not "
            "read, convert them to safetensors",
            path, tensor, file);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Number the file names: collect each once, sort, and look every entry's file up again. */
static int number_files(struct hf_index *x, const char **file_of, const char *path, struct err *e)
{
    struct strmap seen = {0};
    bool refused = false;
    x->files = arena_array(&x->arena, x->n_entries, sizeof *x->files);
    refused = !x->files;
    for (size_t i = 0; i < x->n_entries && !refused; i++) {
        bool existing;
        refused = strmap_put(&seen, file_of[i], strlen(file_of[i]), 0, &existing) != 0;
        if (!refused && !existing)
            x->files[x->n_files++] = file_of[i];
    }
    strmap_release(&seen);
    if (!refused)
        qsort(x->files, x->n_files, sizeof *x->files, by_name);
    for (size_t i = 0; i < x->n_files && !refused; i++)
        refused = strmap_put(&seen, x->files[i], strlen(x->files[i]), i, NULL) != 0;
    for (size_t i = 0; i < x->n_entries && !refused; i++) {
        uint64_t f = 0;
        strmap_find(&seen, file_of[i], strlen(file_of[i]), &f);
        x->entries[i].file = (size_t)f;
    }
    strmap_release(&seen);
    return refused ? err_set(e, ERR_NOMEM, "%s: out of memory", path) : 0;
}

static int read_weight_map(struct hf_index *x, const struct json *map, const char *path, struct err *e)
{
    if (!json_is_object(map) || !json_first(map))
        return err_set(e, ERR_FORMAT, "%s: weight_map must be an object with at least one tensor", path);
    size_t n = json_n_children(map);
    const char **file_of = calloc(n, sizeof *file_of);
    x->entries = arena_array(&x->arena, n, sizeof *x->entries);
    int rc = 0;
    if (!file_of || !x->entries || strmap_reserve(&x->by_tensor, n) != 0)
        rc = err_set(e, ERR_NOMEM, "%s: out of memory for %zu tensors", path, n);
    for (const struct json *j = json_first(map); j && rc == 0; j = json_next(j)) {
        const char *file = json_string(j);
        if (!file) {
            rc = err_set(e, ERR_FORMAT, "%s: tensor '%.120s': weight_map must name a file, found no string",
                         path, json_key(j));
            break;
        }
        rc = check_file_name(path, json_key(j), file, e);
        if (rc != 0)
            break;
        struct hf_index_entry *entry = &x->entries[x->n_entries];
        entry->tensor = arena_strdup(&x->arena, json_key(j));
        file_of[x->n_entries] = arena_strdup(&x->arena, file);
        bool existing = false;
        if (!entry->tensor || !file_of[x->n_entries] ||
            strmap_put(&x->by_tensor, entry->tensor, strlen(entry->tensor), x->n_entries, &existing) != 0)
            rc = err_set(e, ERR_NOMEM, "%s: out of memory for tensor names", path);
        else if (existing)
            rc = err_set(e, ERR_FORMAT, "%s: duplicate tensor '%.120s' in weight_map", path, entry->tensor);
        x->n_entries++;
    }
    if (rc == 0)
        rc = number_files(x, file_of, path, e);
    free(file_of);
    return rc;
}

int hf_index_load(struct hf_index *out, const char *path, struct err *e)
{
    struct json_doc *doc = NULL;
    int rc = json_load_limited(&doc, path, HF_INDEX_MAX_BYTES, HF_INDEX_MAX_NAMES, e);
    if (rc != 0)
        return rc;
    const struct json *root = json_root(doc);
    rc = read_weight_map(out, json_get(root, "weight_map"), path, e);
    const struct json *total = json_get(json_get(root, "metadata"), "total_size");
    out->has_total_size = json_number(total, &out->total_size);
    out->odd_total_size = total && !json_is_null(total) && !out->has_total_size;
    json_free(doc);
    return rc;
}

void hf_index_release(struct hf_index *x)
{
    strmap_release(&x->by_tensor);
    arena_release(&x->arena);
    *x = (struct hf_index){0};
}
