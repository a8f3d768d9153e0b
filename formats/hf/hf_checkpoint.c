/* hf_checkpoint.c - see hf_checkpoint.h. Rules: specification, architectures 22.3.
 *
 * Never opens a pickle, and never reads a file that the folder's index does not name. */
#include "hf_checkpoint.h"

#include "hf_index.h"

#include "libquant/base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LISTED 5 /* names in one message; the rest is counted */

struct shard {
    const char *path;
    struct safetensors_reader *reader; /* NULL when only names are known */
};

struct tensor_ref {
    const struct st_tensor *tensor; /* of its reader, or in `names_only` */
    size_t shard;
};

struct hf_checkpoint {
    struct arena arena;
    const char *folder;
    struct hf_index index; /* empty without an index file */
    bool has_weights;
    struct shard *shards;
    size_t n_shards;
    struct tensor_ref *tensors;
    size_t n_tensors;
    struct strmap by_name; /* name -> index in tensors */
    const char *warnings[2];
    size_t n_warnings;
};

char *hf_path(const char *folder, const char *name)
{
    size_t n = strlen(folder), m = strlen(name);
    char *path = malloc(n + m + 2);
    if (!path)
        return NULL;
    memcpy(path, folder, n);
    if (n == 0 || folder[n - 1] != '/')
        path[n++] = '/';
    memcpy(path + n, name, m + 1);
    return path;
}

static bool path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* Without a path of its own, so that refused memory is not taken for a missing file. */
bool hf_file_exists(const char *folder, const char *name)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool exists = fd >= 0 && faccessat(fd, name, F_OK, 0) == 0;
    if (fd >= 0)
        close(fd);
    return exists;
}

static int out_of_memory(const struct hf_checkpoint *c, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory", c->folder);
}

/* --- a capped list inside a message ----------------------------------------------------------------------
 */

struct listing {
    char text[360];
    size_t len, n;
};

/* "'name' (file)", at most MAX_LISTED of them and only while they fit; the others are counted. */
static void list_add(struct listing *l, const char *name, const char *file)
{
    if (l->n++ >= MAX_LISTED)
        return;
    size_t room = sizeof l->text - l->len;
    int n = snprintf(l->text + l->len, room, "%s'%.100s'%s%.60s%s", l->len ? ", " : "", name,
                     file ? " (" : "", file ? file : "", file ? ")" : "");
    if (n > 0 && (size_t)n < room)
        l->len += (size_t)n;
    else
        l->text[l->len] = 0;
}

/* " and 12 more" or "". */
static const char *list_rest(const struct listing *l, char out[40])
{
    out[0] = 0;
    if (l->n > MAX_LISTED)
        snprintf(out, 40, " and %zu more", l->n - MAX_LISTED);
    return out;
}

/* --- which files -----------------------------------------------------------------------------------------
 */

static bool is_weight_file(const char *name)
{
    static const char head[] = "model", tail[] = ".safetensors";
    size_t n = strlen(name);
    return n >= sizeof head + sizeof tail - 2 && strncmp(name, head, sizeof head - 1) == 0 &&
           strcmp(name + n - (sizeof tail - 1), tail) == 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct shard *)a)->path, ((const struct shard *)b)->path);
}

/* Why a folder without weights has none, in words that help. */
static int no_weights(const struct hf_checkpoint *c, bool pickle, struct err *e)
{
    if (pickle)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: the weights are pickles (.bin or .pt), which are not read; convert them to "
                       "safetensors first",
                       c->folder);
    if (hf_file_exists(c->folder, "adapter_config.json"))
        return err_set(e, ERR_UNSUPPORTED, "%s: this is an adapter; merge it into its base model first",
                       c->folder);
    return err_set(e, ERR_IO, "%s: expected " HF_INDEX_NAME " or model*.safetensors, found neither",
                   c->folder);
}

/* Add every model*.safetensors of the folder, sorted by name. */
static int find_shards(struct hf_checkpoint *c, bool allow_none, struct err *e)
{
    DIR *d = opendir(c->folder);
    if (!d)
        return err_set(e, errno == ENOMEM ? ERR_NOMEM : ERR_IO, "%s: cannot list the folder: %s", c->folder,
                       strerror(errno));
    size_t cap = 0;
    bool pickle = false;
    int rc = 0;
    for (struct dirent *ent; rc == 0 && (ent = readdir(d)) != NULL;) {
        pickle |= path_ends_with(ent->d_name, ".bin") || path_ends_with(ent->d_name, ".pt") ||
                  path_ends_with(ent->d_name, ".pth") || path_ends_with(ent->d_name, ".bin.index.json");
        if (!is_weight_file(ent->d_name))
            continue;
        if (c->n_shards == cap) {
            cap = cap ? 2 * cap : 16;
            struct shard *grown = realloc(c->shards, cap * sizeof *grown);
            if (!grown) {
                rc = out_of_memory(c, e);
                break;
            }
            c->shards = grown;
        }
        const char *sep = path_ends_with(c->folder, "/") ? "" : "/";
        c->shards[c->n_shards] = (struct shard){
            .path = arena_printf(&c->arena, "%s%s%s", c->folder, sep, ent->d_name),
        };
        if (!c->shards[c->n_shards++].path)
            rc = out_of_memory(c, e);
    }
    closedir(d);
    if (rc == 0 && c->n_shards == 0 &&
        (!allow_none || pickle || hf_file_exists(c->folder, "adapter_config.json")))
        rc = no_weights(c, pickle, e);
    if (rc == 0 && c->n_shards != 0)
        qsort(c->shards, c->n_shards, sizeof *c->shards, by_text);
    return rc;
}

/* Without an index only the names can tell that a download is incomplete: model-00001-of-00003. */
static int check_numbering(const struct hf_checkpoint *c, struct err *e)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        const char *name = strrchr(c->shards[i].path, '/') + 1;
        unsigned number, total;
        if (sscanf(name, "model-%5u-of-%5u.safetensors", &number, &total) != 2)
            continue;
        if (total != c->n_shards || number != i + 1)
            return err_set(e, ERR_IO,
                           "%s: '%.60s' is one of %u files, but %zu model*.safetensors are here and there is "
                           "no " HF_INDEX_NAME "; is the download complete?",
                           c->folder, name, total, c->n_shards);
    }
    return 0;
}

/* The files of the index; *n_missing of them do not exist. */
static int take_shards(struct hf_checkpoint *c, struct listing *missing, struct err *e)
{
    c->n_shards = c->index.n_files;
    c->shards = calloc(c->n_shards, sizeof *c->shards);
    if (!c->shards)
        return out_of_memory(c, e);
    const char *sep = path_ends_with(c->folder, "/") ? "" : "/";
    for (size_t i = 0; i < c->n_shards; i++) {
        c->shards[i].path = arena_printf(&c->arena, "%s%s%s", c->folder, sep, c->index.files[i]);
        if (!c->shards[i].path)
            return out_of_memory(c, e);
        if (!path_exists(c->shards[i].path))
            list_add(missing, c->index.files[i], NULL);
    }
    return 0;
}

/* --- tensors ---------------------------------------------------------------------------------------------
 */

static int add_tensor(struct hf_checkpoint *c, const struct st_tensor *t, size_t shard, struct err *e)
{
    bool existing = false;
    if (strmap_put(&c->by_name, t->name, strlen(t->name), c->n_tensors, &existing) != 0)
        return out_of_memory(c, e);
    if (existing) {
        uint64_t first = 0;
        strmap_find(&c->by_name, t->name, strlen(t->name), &first);
        return err_set(e, ERR_FORMAT, "%s: tensor '%.200s' is also in %s", c->shards[shard].path, t->name,
                       c->shards[c->tensors[first].shard].path);
    }
    c->tensors[c->n_tensors++] = (struct tensor_ref){t, shard};
    return 0;
}

static int open_shards(struct hf_checkpoint *c, struct err *e)
{
    size_t n = 0;
    int rc = 0;
    for (size_t i = 0; i < c->n_shards && rc == 0; i++) {
        rc = safetensors_open(&c->shards[i].reader, c->shards[i].path, e);
        if (rc == 0)
            n += safetensors_n_tensors(c->shards[i].reader);
    }
    if (rc == 0) {
        c->tensors = calloc(n ? n : 1, sizeof *c->tensors);
        if (!c->tensors || strmap_reserve(&c->by_name, n) != 0)
            rc = out_of_memory(c, e);
    }
    for (size_t i = 0; i < c->n_shards && rc == 0; i++)
        for (size_t k = 0; k < safetensors_n_tensors(c->shards[i].reader) && rc == 0; k++)
            rc = add_tensor(c, safetensors_tensor(c->shards[i].reader, k), i, e);
    c->has_weights = rc == 0 && c->n_shards != 0;
    return rc;
}

/* Index and shards must state the same: every name of the one in the named file of the other. */
static int check_agreement(const struct hf_checkpoint *c, struct err *e)
{
    const struct hf_index *x = &c->index;
    struct listing missing = {.n = 0}, misplaced = {.n = 0}, unknown = {.n = 0};
    for (size_t i = 0; i < x->n_entries; i++) {
        const char *name = x->entries[i].tensor, *file = x->files[x->entries[i].file];
        uint64_t at;
        if (!strmap_find(&c->by_name, name, strlen(name), &at))
            list_add(&missing, name, file);
        else if (c->tensors[at].shard != x->entries[i].file)
            list_add(&misplaced, name, file);
    }
    for (size_t i = 0; i < c->n_tensors; i++) {
        const char *name = c->tensors[i].tensor->name;
        if (!strmap_find(&x->by_tensor, name, strlen(name), NULL))
            list_add(&unknown, name, x->files[c->tensors[i].shard]);
    }
    char rest[40];
    if (missing.n)
        return err_set(e, ERR_FORMAT, "%s: %zu tensors of " HF_INDEX_NAME " are not in their files: %s%s",
                       c->folder, missing.n, missing.text, list_rest(&missing, rest));
    if (misplaced.n)
        return err_set(e, ERR_FORMAT,
                       "%s: %zu tensors are in another file than " HF_INDEX_NAME " states: %s%s", c->folder,
                       misplaced.n, misplaced.text, list_rest(&misplaced, rest));
    if (unknown.n)
        return err_set(e, ERR_FORMAT, "%s: %zu tensors are not listed in " HF_INDEX_NAME ": %s%s", c->folder,
                       unknown.n, unknown.text, list_rest(&unknown, rest));
    return 0;
}

/* Names and files as the index states them; no shapes, no data. */
static int names_only(struct hf_checkpoint *c, struct err *e)
{
    const struct hf_index *x = &c->index;
    struct st_tensor *t = arena_array(&c->arena, x->n_entries, sizeof *t);
    c->tensors = calloc(x->n_entries, sizeof *c->tensors);
    size_t *next = calloc(x->n_files + 1, sizeof *next);
    int rc = 0;
    if (!t || !c->tensors || !next || strmap_reserve(&c->by_name, x->n_entries) != 0) {
        rc = out_of_memory(c, e);
        goto done;
    }
    /* group by file, in the order of the index: a counting sort */
    for (size_t i = 0; i < x->n_entries; i++)
        next[x->entries[i].file + 1]++;
    for (size_t f = 0; f < x->n_files; f++)
        next[f + 1] += next[f];
    for (size_t i = 0; i < x->n_entries; i++)
        t[next[x->entries[i].file]++].name = x->entries[i].tensor;
    for (size_t i = 0; i < x->n_entries && rc == 0; i++) {
        uint64_t entry = 0;
        strmap_find(&x->by_tensor, t[i].name, strlen(t[i].name), &entry);
        rc = add_tensor(c, &t[i], x->entries[entry].file, e);
    }
done:
    free(next);
    return rc;
}

static int check_total_size(struct hf_checkpoint *c, struct err *e)
{
    const char *w = NULL;
    uint64_t n = 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        n += c->tensors[i].tensor->n_bytes;
    if (c->index.odd_total_size)
        w = arena_printf(&c->arena,
                         "[index-total] %s: metadata.total_size of " HF_INDEX_NAME " is not a number",
                         c->folder);
    else if (c->index.has_total_size && c->has_weights && c->index.total_size != (double)n)
        w = arena_printf(&c->arena,
                         "[index-total] %s: metadata.total_size of " HF_INDEX_NAME
                         " is %.0f, the tensors have %" PRIu64 " bytes",
                         c->folder, c->index.total_size, n);
    else
        return 0;
    if (!w)
        return out_of_memory(c, e);
    c->warnings[c->n_warnings++] = w;
    return 0;
}

static int open_indexed(struct hf_checkpoint *c, const char *index_path, bool allow_missing_weights,
                        struct err *e)
{
    struct listing missing = {.n = 0};
    char rest[40];
    int rc = hf_index_load(&c->index, index_path, e);
    if (rc == 0)
        rc = take_shards(c, &missing, e);
    if (rc == 0 && missing.n && !(allow_missing_weights && missing.n == c->n_shards))
        rc = err_set(e, ERR_IO, "%s: %zu of %zu files named by " HF_INDEX_NAME " are missing: %s%s",
                     c->folder, missing.n, c->n_shards, missing.text, list_rest(&missing, rest));
    if (rc == 0 && missing.n)
        rc = names_only(c, e);
    else if (rc == 0)
        rc = open_shards(c, e);
    if (rc == 0 && c->has_weights)
        rc = check_agreement(c, e);
    if (rc == 0)
        rc = check_total_size(c, e);
    return rc;
}

int hf_checkpoint_open(struct hf_checkpoint **out, const char *folder, bool allow_missing_weights,
                       struct err *e)
{
    struct stat st;
    if (stat(folder, &st) != 0)
        return err_set(e, ERR_IO, "%s: cannot open: %s", folder, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_ARG, "%s: expected the folder of a checkpoint, found a file", folder);
    struct hf_checkpoint *c = calloc(1, sizeof *c);
    if (c)
        c->folder = arena_strdup(&c->arena, folder);
    if (!c || !c->folder) {
        hf_checkpoint_close(c);
        return err_set(e, ERR_NOMEM, "%s: out of memory", folder);
    }
    char *index_path = hf_path(folder, HF_INDEX_NAME);
    int rc;
    if (!index_path) {
        rc = out_of_memory(c, e);
    } else if (path_exists(index_path)) {
        rc = open_indexed(c, index_path, allow_missing_weights, e);
    } else {
        rc = find_shards(c, allow_missing_weights, e);
        if (rc == 0)
            rc = check_numbering(c, e);
        if (rc == 0)
            rc = open_shards(c, e);
    }
    free(index_path);
    if (rc == 0)
        *out = c;
    else
        hf_checkpoint_close(c);
    return rc;
}

void hf_checkpoint_close(struct hf_checkpoint *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_shards && c->shards; i++)
        safetensors_close(c->shards[i].reader);
    free(c->shards);
    free(c->tensors);
    strmap_release(&c->by_name);
    hf_index_release(&c->index);
    arena_release(&c->arena);
    free(c);
}

/* --- answers ---------------------------------------------------------------------------------------------
 */

const char *hf_checkpoint_folder(const struct hf_checkpoint *c)
{
    return c->folder;
}

bool hf_checkpoint_has_weights(const struct hf_checkpoint *c)
{
    return c->has_weights;
}

bool hf_checkpoint_total_size(const struct hf_checkpoint *c, double *n_bytes)
{
    if (c->index.has_total_size)
        *n_bytes = c->index.total_size;
    return c->index.has_total_size;
}

size_t hf_checkpoint_n_tensors(const struct hf_checkpoint *c)
{
    return c->n_tensors;
}

const struct st_tensor *hf_checkpoint_tensor(const struct hf_checkpoint *c, size_t i)
{
    return i < c->n_tensors ? c->tensors[i].tensor : NULL;
}

const char *hf_checkpoint_tensor_file(const struct hf_checkpoint *c, size_t i)
{
    return i < c->n_tensors ? c->shards[c->tensors[i].shard].path : NULL;
}

const struct st_tensor *hf_checkpoint_find(const struct hf_checkpoint *c, const char *name)
{
    uint64_t i;
    return strmap_find(&c->by_name, name, strlen(name), &i) ? c->tensors[i].tensor : NULL;
}

size_t hf_checkpoint_n_warnings(const struct hf_checkpoint *c)
{
    return c->n_warnings;
}

const char *hf_checkpoint_warning(const struct hf_checkpoint *c, size_t i)
{
    return i < c->n_warnings ? c->warnings[i] : NULL;
}
