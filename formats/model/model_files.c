/* model_files.c - see model_files.h. */
#include "model_files.h"

#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"
#include "libquant/base/path.h"
#include "formats/output/output_file.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_weight_file(const char *name)
{
    return path_ends_with(name, ".safetensors") || path_ends_with(name, "config.json") ||
           path_ends_with(name, ".index.json");
}

/* Files in a checkpoint folder that are outputs, finished or not, and never read as a part of it. */
static bool is_output(const char *path)
{
    static const char *const endings[] = {PATH_PART, PATH_JOURNAL, PATH_JOURNAL_NEW, PATH_OLD, ".kerf-state"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (path_ends_with(path, endings[i]))
            return true;
    return gguf_is_gguf_file(path);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int no_memory(const char *path, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory", path);
}

/* --- lists of files --- */

struct list {
    char **items; /* owns */
    size_t n;
};

static void list_release(struct list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
}

/* Takes `item`. */
static int list_add(struct list *l, char *item, const char *what, struct err *e)
{
    char **more = item ? realloc(l->items, (l->n + 1) * sizeof *more) : NULL;
    if (!more) {
        free(item);
        return no_memory(what, e);
    }
    l->items = more;
    l->items[l->n++] = item;
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *joined(const char *folder, const char *name)
{
    size_t n = strlen(folder) + strlen(name) + 2;
    char *s = malloc(n);
    if (s)
        snprintf(s, n, "%s/%s", folder, name);
    return s;
}

/* Regular files of a folder, links followed, in order of their names; `deeper`: and one level of folders
 * below, where some checkpoints keep a config.json. */
static int list_folder(struct list *l, const char *folder, bool deeper, struct err *e)
{
    DIR *d = opendir(folder);
    if (!d)
        return err_set(e, ERR_IO, "%s: cannot list: %s", folder, strerror(errno));
    int rc = 0;
    size_t first = l->n;
    for (struct dirent *ent; rc == 0 && (ent = readdir(d));) {
        struct stat st;
        char *path = joined(folder, ent->d_name);
        if (!path) {
            rc = no_memory(folder, e);
        } else if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
            rc = list_add(l, path, folder, e);
            path = NULL;
        } else if (deeper && ent->d_name[0] != '.' && is_folder(path)) {
            (void)list_folder(l, path, false, NULL); /* what cannot be listed cannot be read */
        }
        free(path);
    }
    closedir(d);
    if (l->n > first)
        qsort(l->items + first, l->n - first, sizeof *l->items, by_text);
    return rc;
}

static int list_model(struct list *l, const char *model, bool deeper, struct err *e)
{
    size_t prefix_len;
    uint32_t no, count;
    if (is_folder(model))
        return list_folder(l, model, deeper, e);
    if (!gguf_split_parse(model, &prefix_len, &no, &count))
        return list_add(l, strdup(model), model, e);
    char *prefix = strndup(model, prefix_len);
    int rc = prefix ? 0 : no_memory(model, e);
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = list_add(l, gguf_split_name(prefix, i, count), model, e);
    free(prefix);
    return rc;
}

/* --- the two questions --- */

static bool same_folder(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && stat_is_same(&x, &y);
}

static int refuse_name(const char *folder, const char *output, struct err *e)
{
    char *copy = strdup(output);
    if (!copy)
        return no_memory(output, e);
    bool inside = same_folder(dirname(copy), folder);
    free(copy);
    return inside && is_weight_file(output)
               ? err_set(
                     e, ERR_ARG,
                     "%s: this name belongs to the checkpoint %s itself, which would read the output as a "
                     "part of it; choose another name",
                     output, folder)
               : 0;
}

int model_files_refuse(const char *model, const char *output, struct err *e)
{
    struct list l = {0};
    bool folder = is_folder(model);
    int rc = list_model(&l, model, true, e);
    for (size_t i = 0; i < l.n && rc == 0; i++)
        if (!folder || !is_output(l.items[i]))
            rc = output_file_check_input(output, l.items[i], e);
    if (rc == 0 && folder)
        rc = refuse_name(model, output, e);
    list_release(&l);
    return rc;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

void model_files_later(struct timespec *newest, const struct stat *st)
{
    if (is_later(&st->st_mtim, newest))
        *newest = st->st_mtim;
    if (is_later(&st->st_ctim, newest))
        *newest = st->st_ctim;
}

bool model_files_is_older(const struct stat *st, const struct timespec *newest)
{
    return is_later(newest, &st->st_mtim);
}

int model_files_each(const char *model,
                     int (*fn)(void *ctx, const char *path, const struct stat *st, struct err *e), void *ctx,
                     struct err *e)
{
    struct list l = {0};
    bool folder = is_folder(model);
    int rc = list_model(&l, model, false, e);
    for (size_t i = 0; i < l.n && rc == 0; i++) {
        const char *slash = strrchr(l.items[i], '/'), *name = slash ? slash + 1 : l.items[i];
        struct stat st;
        if ((!folder || is_weight_file(name)) && stat(l.items[i], &st) == 0)
            rc = fn(ctx, l.items[i], &st, e);
    }
    list_release(&l);
    return rc;
}

static int add_bytes(void *ctx, const char *path, const struct stat *st, struct err *e)
{
    uint64_t *sum = ctx;
    (void)e;
    if (!path_ends_with(path, ".json")) /* decides how weights are read, and holds none */
        *sum += (uint64_t)st->st_size;
    return 0;
}

int model_files_bytes(uint64_t *out, const char *model, struct err *e)
{
    uint64_t sum = 0;
    int rc = model_files_each(model, add_bytes, &sum, e);
    if (rc == 0)
        *out = sum;
    return rc;
}
