/* rewrite_resume.c - the journal beside an unfinished output: which jobs are safely on the disk.
 *
 * A killed run leaves OUT.kerf-part and OUT.kerf-part.journal, where OUT is the first file of a split set:
 * the lock of that temporary file is the lock of the journal. With `resume` the next run of the same version,
 * sources and options does only the jobs that the journal lacks; since a job's bytes depend on nothing else,
 * the file ends identical. Written by one thread:
 *
 *     "kerf-journal 2\n"  identity (64 hexadecimal digits)  "\n"
 *     batches:  u64 n;  n x {u64 job, f64 squared error, u64 flushed, u64 clipped};  u64 checksum of the
 *              batch's bytes before it
 *
 * A batch is appended only after fdatasync of the outputs, so it never promises bytes that a power cut could
 * take. A torn last batch fails its checksum and is dropped; going on, the file is written anew beside the
 * old one and renamed over it, so that no kill finds it half empty. It refuses nothing: a journal that does
 * not fit just means starting again. */
#include "formats/model/model_identity.h"
#include "rewrite_internal.h"

#include "libquant/base/clock.h"
#include "libquant/base/path.h"
#include "libquant/base/sha256.h"
#include "libquant/base/slice.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC        "kerf-journal 2\n"
#define HEADER_BYTES (sizeof MAGIC - 1 + 64 + 1)

struct record {
    uint64_t job;
    struct rw_error error;
};
_Static_assert(sizeof(struct record) == 32, "journal records are written as they stand in memory");

struct rw_journal {
    struct rw_run *run;
    char *path; /* owned */
    int fd, guard;
    unsigned char *recorded; /* [n_jobs] */
    struct record *batch;
    size_t cap;
    pthread_t thread;
    bool started, stop;
    bool failed;      /* nothing more is recorded */
    int flush_failed; /* errno of an output that could not be flushed */
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

/* Beside the first file of the output; malloc'ed. */
static char *beside(const struct rw_plan *p, const char *ending)
{
    return path_with(gguf_parts_path(p->parts, 0), ending);
}

/* --- identity --- */

static void hash_text(struct sha256 *h, const char *s)
{
    sha256_update(h, s, strlen(s) + 1);
}

static void hash_importance(struct sha256 *h, const struct rw_plan *p)
{
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct imatrix_entry *entry = p->tensors[i].imat;
        if (!entry)
            continue;
        hash_text(h, entry->name);
        sha256_update(h, entry->sums, entry->n_values * sizeof *entry->sums);
        sha256_update(h, entry->counts, entry->n_mats * sizeof *entry->counts);
    }
}

int rw_journal_identity(char out[65], const char *version, const struct model *m, const struct rw_plan *p,
                        const struct rewrite_options *opt, struct err *e)
{
    struct sha256 h;
    sha256_init(&h);
    hash_text(&h, MAGIC);
    hash_text(&h, version);
    int rc = model_identity_quick(&h, model_path(m), NULL, e);
    if (rc)
        return rc;
    sha256_update_u64(&h, opt->measure);
    sha256_update_u64(&h, p->n_jobs);
    for (uint32_t i = 0; i < gguf_parts_n(p->parts); i++) { /* metadata, names, types and shapes */
        size_t n;
        const uint8_t *header = gguf_parts_header(p->parts, i, &n);
        sha256_update_u64(&h, n);
        sha256_update(&h, header, n);
    }
    for (size_t i = 0; i < p->n_tensors; i++)
        sha256_update_u64(&h, p->tensors[i].rows_per_job);
    hash_importance(&h, p);
    sha256_final_hex(&h, out);
    return 0;
}

/* --- reading --- */

/* FNV-1a: enough to tell a torn batch from a whole one. */
static uint64_t checksum(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* Whole small file; a journal has 32 bytes for each job and 16 for each batch. */
static uint8_t *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    uint8_t *data = NULL;
    *n = 0;
    if (f && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_size < (off_t)1 << 32) {
        data = malloc((size_t)st.st_size + 1);
        if (data)
            *n = fread(data, 1, (size_t)st.st_size, f);
    }
    if (f)
        fclose(f);
    return data;
}

static void take_batches(const uint8_t *p, size_t n, struct rw_run *run)
{
    while (n >= 16) {
        uint64_t count = load_u64(p);
        if (count > (n - 16) / sizeof(struct record))
            return;
        size_t body = 8 + (size_t)count * sizeof(struct record);
        if (load_u64(p + body) != checksum(p, body))
            return;
        for (uint64_t i = 0; i < count; i++) {
            const uint8_t *r = p + 8 + i * sizeof(struct record);
            uint64_t job = load_u64(r), row0, n_rows;
            if (job >= run->plan->n_jobs || atomic_load(&run->done[job]))
                continue;
            const struct rw_tensor *t = rw_job_rows(run->plan, (size_t)job, &row0, &n_rows);
            run->errors[job] = (struct rw_error){load_f64(r + 8), {load_u64(r + 16), load_u64(r + 24)}};
            atomic_fetch_add(&run->done_bytes, t->src->n_bytes / t->src->n_rows * n_rows);
            atomic_store(&run->done[job], 1);
        }
        p += body + 8;
        n -= body + 8;
    }
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the journal");
}

int rw_journal_load(const char identity[65], struct rw_run *run, bool *matches, struct err *e)
{
    char *name = beside(run->plan, PATH_JOURNAL);
    if (!name)
        return no_memory(e);
    size_t n;
    uint8_t *data = read_all(name, &n);
    *matches = data && n >= HEADER_BYTES && memcmp(data, MAGIC, sizeof MAGIC - 1) == 0 &&
               memcmp(data + sizeof MAGIC - 1, identity, 64) == 0;
    if (*matches)
        take_batches(data + HEADER_BYTES, n - HEADER_BYTES, run);
    free(data);
    free(name);
    return 0;
}

/* --- writing --- */

static bool write_fully(int fd, const void *data, size_t n)
{
    const char *p = data;
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

/* Flush the outputs and record the jobs that were finished before the flush began. A journal that cannot be
 * written only ends recording. An output that cannot be flushed ends the run, in rw_journal_stop: the system
 * reports such a failure once, so the flush of the commit could pass over lost bytes. */
static void checkpoint(struct rw_journal *j)
{
    const struct rw_run *run = j->run;
    size_t n = 0;
    for (size_t job = 0; job < run->plan->n_jobs && n < j->cap; job++)
        if (!j->recorded[job] && atomic_load(&run->done[job])) {
            j->recorded[job] = 1;
            j->batch[1 + n++] = (struct record){job, run->errors[job]};
        }
    if (n == 0 || j->failed)
        return;
    const struct gguf_parts *parts = run->plan->parts;
    for (uint32_t i = 0; i < gguf_parts_n(parts); i++)
        if (fdatasync(output_file_fd(gguf_parts_output_file(parts, i))) != 0) {
            j->failed = true;
            j->flush_failed = errno;
        }
    /* The count sits at the end of the record before the first one. */
    uint8_t *start = (uint8_t *)(j->batch + 1) - 8;
    uint64_t count = n, sum;
    memcpy(start, &count, 8);
    size_t body = 8 + n * sizeof(struct record);
    sum = checksum(start, body);
    memcpy(start + body, &sum, 8);
    if (!j->failed && (!write_fully(j->fd, start, body + 8) || fdatasync(j->fd) != 0))
        j->failed = true;
}

/* Checkpoints come at least a quarter of a second apart, and so rarely that flushing costs a twentieth of
 * the time at most. */
static void *journal_main(void *arg)
{
    struct rw_journal *j = arg;
    double pause = 0.25;
    pthread_mutex_lock(&j->lock);
    while (!j->stop) {
        double until = clock_read(CLOCK_REALTIME) + pause;
        struct timespec t = {(time_t)until, (long)((until - (double)(time_t)until) * 1e9)};
        int rc = pthread_cond_timedwait(&j->wake, &j->lock, &t);
        if (j->stop || rc != ETIMEDOUT)
            continue;
        pthread_mutex_unlock(&j->lock);
        double begin = clock_seconds();
        checkpoint(j);
        double cost = clock_seconds() - begin;
        pause = cost * 20 > 0.25 ? cost * 20 : 0.25;
        if (pause > 30)
            pause = 30;
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

static int discard_one(const struct rw_plan *p, const char *ending, struct err *e)
{
    char *name = beside(p, ending);
    if (!name)
        return no_memory(e);
    int rc = 0;
    if (unlink(name) == 0)
        output_file_sync_beside(
            name); /* before the partial file is overwritten, or an old promise could outlive it */
    else if (errno != ENOENT)
        rc = err_set(e, ERR_IO, "%s: cannot remove: %s", name, strerror(errno));
    free(name);
    return rc;
}

int rw_journal_discard(const struct rw_plan *p, struct err *e)
{
    int rc = discard_one(p, PATH_JOURNAL_NEW, e);
    return rc ? rc : discard_one(p, PATH_JOURNAL, e);
}

int rw_journal_discard_orphan(const struct rw_plan *p, struct err *e)
{
    for (uint32_t i = 0; i < gguf_parts_n(p->parts); i++) {
        char *temp = path_with(gguf_parts_path(p->parts, i), PATH_PART);
        if (!temp)
            return no_memory(e);
        bool missing = access(temp, F_OK) != 0;
        free(temp);
        if (missing)
            return rw_journal_discard(p, e);
    }
    return 0;
}

static void journal_free(struct rw_journal *j)
{
    output_file_unguard(j->guard);
    if (j->fd >= 0)
        close(j->fd);
    free(j->path);
    free(j->recorded);
    free(j->batch);
    free(j);
}

/* Identity and, going on, all that is known as one batch, under the name of the journal. */
static int start_file(struct rw_journal *j, const char identity[65], bool keep, struct err *e)
{
    char header[HEADER_BYTES + 1];
    char *fresh = beside(j->run->plan, PATH_JOURNAL_NEW);
    if (!fresh)
        return no_memory(e);
    int rc = 0;
    j->fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (j->fd < 0)
        rc = err_set(e, ERR_IO, "%s: cannot be created: %s", fresh, strerror(errno));
    snprintf(header, sizeof header, "%s%s\n", MAGIC, identity);
    if (rc == 0 && !write_fully(j->fd, header, HEADER_BYTES))
        rc = err_set(e, ERR_IO, "%s: cannot write: %s", fresh, strerror(errno));
    if (rc == 0 && keep)
        checkpoint(j);
    if (rc == 0 && j->failed)
        rc = err_set(e, ERR_IO, "%s: cannot be written; is the disk full?", fresh);
    if (rc == 0 && (fdatasync(j->fd) != 0 || rename(fresh, j->path) != 0))
        rc = err_set(e, ERR_IO, "%s: cannot be written: %s", j->path, strerror(errno));
    if (rc == 0)
        output_file_sync_beside(j->path);
    else if (j->fd >= 0)
        unlink(fresh);
    free(fresh);
    return rc;
}

int rw_journal_open(struct rw_journal **out, const char identity[65], bool keep, struct rw_run *run,
                    struct err *e)
{
    size_t n = run->plan->n_jobs;
    struct rw_journal *j = calloc(1, sizeof *j);
    if (!j)
        return no_memory(e);
    j->fd = j->guard = -1;
    j->run = run;
    j->cap = n;
    j->path = beside(run->plan, PATH_JOURNAL);
    j->recorded = calloc(n ? n : 1, 1);
    j->batch = calloc(n + 2, sizeof *j->batch);
    int rc = j->path && j->recorded && j->batch ? 0 : no_memory(e);
    if (rc == 0 && !run->opt->resume)
        j->guard = output_file_guard(j->path); /* goes the way of the temporary output */
    if (rc == 0)
        rc = start_file(j, identity, keep, e);
    if (rc) {
        journal_free(j);
        return rc;
    }
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->wake, NULL);
    j->started = pthread_create(&j->thread, NULL, journal_main, j) == 0; /* without it: nothing to resume */
    *out = j;
    return 0;
}

int rw_journal_stop(struct rw_journal *j, bool record, struct err *e)
{
    if (j->started) {
        pthread_mutex_lock(&j->lock);
        j->stop = true;
        pthread_cond_signal(&j->wake);
        pthread_mutex_unlock(&j->lock);
        pthread_join(j->thread, NULL);
        j->started = false;
    }
    if (record)
        checkpoint(j);
    return j->flush_failed ? err_set(e, ERR_IO, "%s: cannot flush to disk: %s",
                                     gguf_parts_path(j->run->plan->parts, 0), strerror(j->flush_failed))
                           : 0;
}

void rw_journal_free(struct rw_journal *j, bool remove)
{
    struct stat open_file, named;
    if (!j)
        return;
    (void)rw_journal_stop(j, false, NULL);
    /* After a commit the name may already belong to the next run at this output. */
    if (remove && fstat(j->fd, &open_file) == 0 && lstat(j->path, &named) == 0 &&
        stat_is_same(&open_file, &named))
        unlink(j->path);
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->wake);
    journal_free(j);
}
