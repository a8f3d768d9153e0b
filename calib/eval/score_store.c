/* score_store.c - see score_store.h. A file is a line that says what it is, the key, the numbers as they
 * stand in memory, and the SHA-256 of all of it in 32 bytes. */
#include "score_store.h"

#include "formats/output/output_file.h"
#include "libquant/base/filemap.h"
#include "libquant/base/sha256.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC       "kerf-scores 1\n"
#define HEAD_BYTES  (sizeof MAGIC - 1 + 64)
#define SUM_BYTES   32
#define STATES_ROWS 256 /* that pass through memory at once */
#define PATH_BYTES  4096

int score_store_open(struct score_store *s, struct err *e)
{
    struct stat st;
    if (mkdir(s->folder, 0777) != 0 && errno != EEXIST)
        return err_set(e, ERR_IO, "%s: cannot make the folder: %s", s->folder, strerror(errno));
    if (stat(s->folder, &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(e, ERR_IO, "%s: expected a folder for the scores that are kept", s->folder);
    if (access(s->folder, W_OK | X_OK) != 0)
        return err_set(e, ERR_IO, "%s: takes no files: %s", s->folder, strerror(errno));
    return 0;
}

void score_store_key(const struct score_store *s, const char *reference, const char *model, size_t first,
                     size_t n_windows, char out[65])
{
    struct sha256 h;
    sha256_init(&h);
    sha256_update(&h, s->about, strlen(s->about) + 1);
    sha256_update(&h, reference, strlen(reference) + 1);
    sha256_update(&h, model, strlen(model) + 1);
    sha256_update_u64(&h, first);
    sha256_update_u64(&h, n_windows);
    sha256_final_hex(&h, out);
}

static int path_of(const struct score_store *s, const char *key, const char *ending, char out[PATH_BYTES],
                   struct err *e)
{
    int n = snprintf(out, PATH_BYTES, "%s/%.32s.%s", s->folder, key, ending);
    return n > 0 && n < PATH_BYTES ? 0 : err_set(e, ERR_ARG, "%s: the name is too long", s->folder);
}

/* --- writing: pieces in a row, then their sum --- */

struct writing {
    struct output_file *file;
    struct sha256 sum;
};

static int put(struct writing *w, const void *data, size_t n, struct err *e)
{
    sha256_update(&w->sum, data, n);
    return output_file_write(w->file, data, n, e);
}

static int begin(struct writing *w, const struct score_store *s, const char *key, const char *ending,
                 struct err *e)
{
    char path[PATH_BYTES];
    struct output_file_options opt = {.overwrite = true};
    int rc = path_of(s, key, ending, path, e);
    if (rc == 0)
        rc = output_file_open(&w->file, path, &opt, e);
    sha256_init(&w->sum);
    if (rc == 0)
        rc = put(w, MAGIC, sizeof MAGIC - 1, e);
    return rc == 0 ? put(w, key, 64, e) : rc;
}

static int end(struct writing *w, int rc, struct err *e)
{
    uint8_t sum[SUM_BYTES];
    sha256_final(&w->sum, sum);
    if (rc == 0)
        rc = output_file_write(w->file, sum, sizeof sum, e);
    if (rc == 0)
        return output_file_commit(w->file, 0, e);
    output_file_abort(w->file);
    return rc;
}

int score_store_save(const struct score_unit *u, const struct score_store *s, const char *key, struct err *e)
{
    struct writing w = {0};
    int rc = begin(&w, s, key, "scores", e);
    if (rc == 0)
        rc = put(&w, &u->seconds, sizeof u->seconds, e);
    if (rc == 0)
        rc = put(&w, u->nll, u->n * sizeof *u->nll, e);
    if (rc == 0)
        rc = put(&w, u->kld, u->n * sizeof *u->kld, e);
    if (rc == 0)
        rc = put(&w, u->top, u->n * sizeof *u->top, e);
    return end(&w, rc, e);
}

int score_store_save_states(const struct hidden_states *h, const struct score_store *s, const char *key,
                            struct err *e)
{
    struct writing w = {0};
    size_t n = hidden_states_n_rows(h), n_cols = hidden_states_n_cols(h);
    float *buffer = malloc(STATES_ROWS * n_cols * sizeof *buffer);
    int rc = buffer ? begin(&w, s, key, "states", e) : err_set(e, ERR_NOMEM, "out of memory for states");
    for (size_t i = 0; rc == 0 && i < n; i += STATES_ROWS) {
        size_t now = n - i < STATES_ROWS ? n - i : STATES_ROWS;
        float *rows = NULL;
        rc = hidden_states_get(h, i, now, buffer, &rows, e);
        if (rc == 0)
            rc = put(&w, rows, now * n_cols * sizeof *rows, e);
    }
    rc = end(&w, rc, e);
    free(buffer);
    return rc;
}

/* --- reading --- */

/* Map a file whose numbers take n_bytes, when it is whole and of this key; *data: the numbers. */
static bool map_file(struct filemap *map, const uint8_t **data, struct score_store *s, const char *key,
                     const char *ending, uint64_t n_bytes)
{
    char path[PATH_BYTES];
    uint8_t sum[SUM_BYTES];
    struct sha256 h;
    if (path_of(s, key, ending, path, NULL) != 0 || access(path, F_OK) != 0 ||
        filemap_open(map, path, NULL) != 0)
        return false;
    bool good = map->size == HEAD_BYTES + n_bytes + SUM_BYTES &&
                memcmp(map->data, MAGIC, sizeof MAGIC - 1) == 0 &&
                memcmp(map->data + sizeof MAGIC - 1, key, 64) == 0;
    if (good) {
        sha256_init(&h);
        sha256_update(&h, map->data, map->size - SUM_BYTES);
        sha256_final(&h, sum);
        good = memcmp(sum, map->data + map->size - SUM_BYTES, SUM_BYTES) == 0;
    }
    if (!good) {
        s->n_damaged++;
        filemap_close(map);
        return false;
    }
    *data = map->data + HEAD_BYTES;
    return true;
}

void score_store_load(bool *found, struct score_unit *u, struct score_store *s, const char *key)
{
    struct filemap map = {0};
    const uint8_t *at = NULL;
    uint64_t n_bytes = sizeof u->seconds + u->n * (sizeof *u->nll + sizeof *u->kld + sizeof *u->top);
    *found = map_file(&map, &at, s, key, "scores", n_bytes);
    if (!*found)
        return;
    memcpy(&u->seconds, at, sizeof u->seconds);
    at += sizeof u->seconds;
    memcpy(u->nll, at, u->n * sizeof *u->nll);
    at += u->n * sizeof *u->nll;
    memcpy(u->kld, at, u->n * sizeof *u->kld);
    at += u->n * sizeof *u->kld;
    memcpy(u->top, at, u->n * sizeof *u->top);
    filemap_close(&map);
}

bool score_store_has_states(struct score_store *s, const char *key, size_t n_rows, size_t n_cols)
{
    struct filemap map = {0};
    const uint8_t *at = NULL;
    bool found = map_file(&map, &at, s, key, "states", (uint64_t)n_rows * n_cols * sizeof(float));
    if (found)
        filemap_close(&map);
    return found;
}

int score_store_load_states(struct hidden_states **out, struct score_store *s, const char *key, size_t n_rows,
                            size_t n_cols, uint64_t memory_bytes, struct err *e)
{
    struct filemap map = {0};
    const uint8_t *at = NULL;
    struct hidden_states *h = NULL;
    *out = NULL;
    if (!map_file(&map, &at, s, key, "states", (uint64_t)n_rows * n_cols * sizeof(float)))
        return 0;
    float *buffer = malloc(STATES_ROWS * n_cols * sizeof *buffer);
    int rc = buffer ? hidden_states_new(&h, n_rows, n_cols, memory_bytes, e)
                    : err_set(e, ERR_NOMEM, "out of memory for states");
    for (size_t i = 0; rc == 0 && i < n_rows; i += STATES_ROWS) {
        size_t now = n_rows - i < STATES_ROWS ? n_rows - i : STATES_ROWS;
        float *rows = buffer;
        if (hidden_states_in_memory(h))
            rc = hidden_states_get(h, i, now, buffer, &rows, e);
        memcpy(rows, at + i * n_cols * sizeof *rows, now * n_cols * sizeof *rows);
        if (rc == 0)
            rc = hidden_states_put(h, i, now, rows, e);
    }
    free(buffer);
    filemap_close(&map);
    if (rc != 0)
        hidden_states_free(h);
    else
        *out = h;
    return rc;
}
