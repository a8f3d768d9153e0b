/* hf_checkpoint.c - see hf_checkpoint.h. Rules: specification, architectures 22.3.
 *
 * Which files count is decided as transformers decides it: a model.safetensors wins over an index that does
 * not name it; then the files of the index; without both, every model*.safetensors. Never opens a pickle. */
#include "hf_checkpoint.h"

#include "hf_adapter.h"
#include "hf_index.h"

#include "libquant/base/path.h"
#include "libquant/base/string_list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LISTED 5 /* names in one message; the rest is counted */

static const char single_file[] = "model.safetensors";

struct shard {
    const char *path;
    struct safetensors_reader *reader; /* NULL when only names are known, or the file is missing */
    bool missing;
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
    struct strmap by_name;                /* name -> index in tensors */
    const struct hf_index_entry **absent; /* in the index, in no file; in the arena */
    size_t n_absent;
    struct string_list warnings;
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

static int warn(struct hf_checkpoint *c, struct err *e, const char *fmt, ...) KERF_PRINTF(3, 4);
static int warn(struct hf_checkpoint *c, struct err *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(&c->warnings, &c->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : out_of_memory(c, e);
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

/* What a folder holds besides weights that are read; the first of each kind. For messages. */
struct others {
    const char *pickle, *trainer, *partial, *gguf, *safetensors; /* in the arena, or NULL */
};

/* Files of a training run that are no weights, whatever their ending says. */
static bool is_trainer_file(const char *name)
{
    static const char *const heads[] = {"training_args", "optimizer",      "scheduler", "scaler.",
                                        "rng_state",     "random_states_", "latest",    "trainer_state"};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (strncmp(name, heads[i], strlen(heads[i])) == 0)
            return true;
    return false;
}

static bool ends_in_one(const char *name, const char *const *tails)
{
    for (; *tails; tails++)
        if (path_ends_with(name, *tails))
            return true;
    return false;
}

static int take_other(struct hf_checkpoint *c, struct others *o, const char *name, struct err *e)
{
    static const char *const pickles[] = {".bin", ".pt", ".pth", ".bin.index.json", NULL};
    static const char *const partials[] = {".incomplete", ".aria2",    ".part",
                                           ".crdownload", ".download", NULL};
    const char **kind = is_trainer_file(name)                  ? &o->trainer
                        : ends_in_one(name, pickles)           ? &o->pickle
                        : ends_in_one(name, partials)          ? &o->partial
                        : path_ends_with(name, ".gguf")        ? &o->gguf
                        : path_ends_with(name, ".safetensors") ? &o->safetensors
                                                               : NULL;
    if (kind && (!*kind || strcmp(name, *kind) < 0) && !(*kind = arena_strdup(&c->arena, name)))
        return out_of_memory(c, e);
    return 0;
}

/* Why a folder without weights has none, in words that help. */
static int no_weights(const struct hf_checkpoint *c, const struct others *o, struct err *e)
{
    if (hf_file_exists(c->folder, HF_ADAPTER_NAME))
        return hf_adapter_refuse(c->folder, e);
    if (o->partial)
        return err_set(e, ERR_IO, "%s: '%.100s' is a download that has not ended; complete it", c->folder,
                       o->partial);
    if (o->pickle)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: the weights are pickles ('%.100s'), which are not read; convert them to "
                       "safetensors first",
                       c->folder, o->pickle);
    if (o->safetensors)
        return err_set(e, ERR_IO,
                       "%s: expected " HF_INDEX_NAME
                       " or model*.safetensors, found neither; if '%.100s' holds "
                       "the weights under the names of transformers, rename it to model.safetensors",
                       c->folder, o->safetensors);
    if (o->gguf)
        return err_set(e, ERR_IO, "%s: the folder holds no checkpoint but GGUF files; give the file '%.100s'",
                       c->folder, o->gguf);
    if (o->trainer)
        return err_set(
            e, ERR_IO,
            "%s: '%.100s' is state of a training run, and there are no weights beside it; save the "
            "model itself (save_pretrained), or give the folder where it was saved",
            c->folder, o->trainer);
    return err_set(e, ERR_IO, "%s: expected " HF_INDEX_NAME " or model*.safetensors, found neither",
                   c->folder);
}

static int add_shard(struct hf_checkpoint *c, size_t *cap, const char *name, struct err *e)
{
    const char *sep = path_ends_with(c->folder, "/") ? "" : "/";
    if (c->n_shards == *cap) {
        *cap = *cap ? 2 * *cap : 16;
        struct shard *grown = realloc(c->shards, *cap * sizeof *grown);
        if (!grown)
            return out_of_memory(c, e);
        c->shards = grown;
    }
    struct shard *s = &c->shards[c->n_shards];
    *s = (struct shard){.path = arena_printf(&c->arena, "%s%s%s", c->folder, sep, name)};
    if (!s->path)
        return out_of_memory(c, e);
    c->n_shards++;
    return 0;
}

/* Add every model*.safetensors of the folder, sorted by name; *others gets what else is there. */
static int find_shards(struct hf_checkpoint *c, struct others *others, struct err *e)
{
    DIR *d = opendir(c->folder);
    if (!d)
        return err_set(e, errno == ENOMEM ? ERR_NOMEM : ERR_IO, "%s: cannot list the folder: %s", c->folder,
                       strerror(errno));
    size_t cap = 0;
    int rc = 0;
    for (struct dirent *ent; rc == 0 && (ent = readdir(d)) != NULL;)
        rc = is_weight_file(ent->d_name) ? add_shard(c, &cap, ent->d_name, e)
                                         : take_other(c, others, ent->d_name, e);
    closedir(d);
    if (rc == 0 && c->n_shards != 0)
        qsort(c->shards, c->n_shards, sizeof *c->shards, by_text);
    return rc;
}

static const char *name_of(const struct shard *s)
{
    return strrchr(s->path, '/') + 1;
}

/* Keep model.safetensors alone and say what is not read beside it. */
static int keep_single(struct hf_checkpoint *c, bool index_too, struct err *e)
{
    struct listing ignored = {.n = 0};
    char rest[40];
    for (size_t i = 0; i < c->n_shards; i++)
        if (strcmp(name_of(&c->shards[i]), single_file) != 0)
            list_add(&ignored, name_of(&c->shards[i]), NULL);
    for (size_t i = 0; i < c->n_shards; i++)
        if (strcmp(name_of(&c->shards[i]), single_file) == 0)
            c->shards[0] = c->shards[i];
    c->n_shards = 1;
    if (!index_too && ignored.n == 0)
        return 0;
    return warn(c, e, "[files-ignored] %s: %s is read, as transformers does; not read are%s%s%s%s", c->folder,
                single_file, index_too ? " " HF_INDEX_NAME : "",
                index_too && ignored.n ? " and "
                : ignored.n            ? " "
                                       : "",
                ignored.text, list_rest(&ignored, rest));
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

/* The files of the index; those that do not exist are marked. */
static int take_shards(struct hf_checkpoint *c, size_t *n_missing, struct err *e)
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
        c->shards[i].missing = !path_exists(c->shards[i].path);
        *n_missing += c->shards[i].missing;
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
        if (c->shards[i].missing)
            continue;
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
        for (size_t k = 0; c->shards[i].reader && k < safetensors_n_tensors(c->shards[i].reader) && rc == 0;
             k++)
            rc = add_tensor(c, safetensors_tensor(c->shards[i].reader, k), i, e);
    c->has_weights = rc == 0 && c->n_shards != 0;
    return rc;
}

/* Index and shards should state the same. transformers loads every tensor of every file that the index names,
 * whatever it says of each; names without a tensor are kept for whoever knows which are needed. */
static int compare_index(struct hf_checkpoint *c, struct err *e)
{
    const struct hf_index *x = &c->index;
    struct listing misplaced = {.n = 0}, unknown = {.n = 0};
    char rest[40];
    c->absent = arena_array(&c->arena, x->n_entries + 1, sizeof(const struct hf_index_entry *));
    if (!c->absent)
        return out_of_memory(c, e);
    for (size_t i = 0; i < x->n_entries; i++) {
        const char *name = x->entries[i].tensor, *file = x->files[x->entries[i].file];
        uint64_t at;
        if (!strmap_find(&c->by_name, name, strlen(name), &at))
            c->absent[c->n_absent++] = &x->entries[i];
        else if (c->tensors[at].shard != x->entries[i].file)
            list_add(&misplaced, name, file);
    }
    for (size_t i = 0; i < c->n_tensors; i++) {
        const char *name = c->tensors[i].tensor->name;
        if (!strmap_find(&x->by_tensor, name, strlen(name), NULL))
            list_add(&unknown, name, x->files[c->tensors[i].shard]);
    }
    int rc = 0;
    if (misplaced.n)
        rc = warn(c, e,
                  "[index-differs] %s: " HF_INDEX_NAME
                  " names the wrong file for %zu tensors, which were found elsewhere: %s%s",
                  c->folder, misplaced.n, misplaced.text, list_rest(&misplaced, rest));
    if (rc == 0 && unknown.n)
        rc = warn(c, e,
                  "[index-differs] %s: " HF_INDEX_NAME " leaves out %zu tensors, which were read too: %s%s",
                  c->folder, unknown.n, unknown.text, list_rest(&unknown, rest));
    return rc;
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
    uint64_t n = 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        n += c->tensors[i].tensor->n_bytes;
    if (c->index.odd_total_size)
        return warn(c, e, "[index-total] %s: metadata.total_size of " HF_INDEX_NAME " is not a number",
                    c->folder);
    if (c->index.has_total_size && c->has_weights && c->n_absent == 0 && c->index.total_size != (double)n)
        return warn(c, e,
                    "[index-total] %s: " HF_INDEX_NAME
                    " promises %.0f bytes (metadata.total_size), the tensors have %" PRIu64
                    "; nothing is missing by name",
                    c->folder, c->index.total_size, n);
    return 0;
}

/* How many of the files that the index names are missing, and the first of them. */
static int files_missing(const struct hf_checkpoint *c, struct err *e)
{
    struct listing missing = {.n = 0};
    char rest[40];
    for (size_t i = 0; i < c->n_shards; i++)
        if (c->shards[i].missing)
            list_add(&missing, name_of(&c->shards[i]), NULL);
    return err_set(e, ERR_IO, "%s: %zu of %zu files named by " HF_INDEX_NAME " are missing: %s%s", c->folder,
                   missing.n, c->n_shards, missing.text, list_rest(&missing, rest));
}

static int open_indexed(struct hf_checkpoint *c, bool allow_missing_weights, struct err *e)
{
    size_t n_missing = 0;
    int rc = take_shards(c, &n_missing, e);
    if (rc == 0 && n_missing == c->n_shards) {
        rc = allow_missing_weights ? names_only(c, e) : files_missing(c, e);
    } else if (rc == 0) {
        rc = open_shards(c, e);
        if (rc == 0)
            rc = compare_index(c, e);
    }
    return rc == 0 ? check_total_size(c, e) : rc;
}

/* Without an index, or with one that does not count. */
static int open_files(struct hf_checkpoint *c, bool single, bool index_too, bool allow_missing_weights,
                      struct err *e)
{
    struct others others = {0};
    int rc = find_shards(c, &others, e);
    if (rc == 0 && single)
        rc = keep_single(c, index_too, e);
    else if (rc == 0 && c->n_shards == 0 &&
             (!allow_missing_weights || others.pickle || hf_file_exists(c->folder, HF_ADAPTER_NAME)))
        rc = no_weights(c, &others, e);
    else if (rc == 0)
        rc = check_numbering(c, e);
    return rc == 0 ? open_shards(c, e) : rc;
}

/* Does the index name the file? */
static bool index_names(const struct hf_index *x, const char *file)
{
    for (size_t i = 0; i < x->n_files; i++)
        if (strcmp(x->files[i], file) == 0)
            return true;
    return false;
}

static int open_folder(struct hf_checkpoint *c, bool allow_missing_weights, struct err *e)
{
    bool single = hf_file_exists(c->folder, single_file), indexed = hf_file_exists(c->folder, HF_INDEX_NAME);
    if (!indexed)
        return open_files(c, single, false, allow_missing_weights, e);
    char *path = hf_path(c->folder, HF_INDEX_NAME);
    struct err broken = {0};
    int rc = path ? hf_index_load(&c->index, path, &broken) : out_of_memory(c, &broken);
    free(path);
    if (single && rc != ERR_NOMEM && (rc != 0 || !index_names(&c->index, single_file))) {
        hf_index_release(&c->index);
        return open_files(c, true, true, allow_missing_weights, e);
    }
    if (rc != 0)
        return err_set(e, rc, "%s", broken.msg);
    return open_indexed(c, allow_missing_weights, e);
}

int hf_checkpoint_open(struct hf_checkpoint **out, const char *folder, bool allow_missing_weights,
                       struct err *e)
{
    struct stat st;
    if (stat(folder, &st) != 0)
        return err_set_open(e, folder, errno);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_ARG, "%s: expected the folder of a checkpoint, found a file", folder);
    struct hf_checkpoint *c = calloc(1, sizeof *c);
    if (c)
        c->folder = arena_strdup(&c->arena, folder);
    if (!c || !c->folder) {
        hf_checkpoint_close(c);
        return err_set(e, ERR_NOMEM, "%s: out of memory", folder);
    }
    int rc = open_folder(c, allow_missing_weights, e);
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

size_t hf_checkpoint_n_absent(const struct hf_checkpoint *c)
{
    return c->n_absent;
}

const char *hf_checkpoint_absent(const struct hf_checkpoint *c, size_t i)
{
    return i < c->n_absent ? c->absent[i]->tensor : NULL;
}

int hf_checkpoint_refuse_absent(const struct hf_checkpoint *c, const size_t *which, size_t n, struct err *e)
{
    struct listing missing = {.n = 0};
    char rest[40];
    for (size_t k = 0; k < n; k++) {
        const struct hf_index_entry *entry = c->absent[which[k]];
        if (c->shards[entry->file].missing)
            return files_missing(c, e);
        list_add(&missing, entry->tensor, c->index.files[entry->file]);
    }
    return err_set(e, ERR_FORMAT, "%s: %zu tensors of " HF_INDEX_NAME " are not in their files: %s%s",
                   c->folder, missing.n, missing.text, list_rest(&missing, rest));
}

size_t hf_checkpoint_n_warnings(const struct hf_checkpoint *c)
{
    return c->warnings.n;
}

const char *hf_checkpoint_warning(const struct hf_checkpoint *c, size_t i)
{
    return i < c->warnings.n ? c->warnings.items[i] : NULL;
}
