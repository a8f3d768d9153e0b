/* session.c - threads, kernels, clocks: what the shared options mean for a run. */
#include "cmd.h"

#include "formats/output/output_file.h"
#include "libquant/base/path.h"
#include "libquant/base/pool.h"
#include "libquant/kern/kern.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int session_open(struct session *s, const struct shared_options *o, struct err *e)
{
    *s = (struct session){0};
    s->kern = o->isa ? kern_by_name(o->isa) : kern_native();
    if (!s->kern) /* opt_parse has refused it */
        return err_set(e, ERR_ARG, "--isa %s: not supported by this CPU", o->isa);
    return pool_new(&s->pool, (unsigned)o->threads, e);
}

void session_close(struct session *s)
{
    if (!s)
        return;
    pool_free(s->pool);
    *s = (struct session){0};
}

int cmd_check_folder(const char *path, struct err *e)
{
    struct stat st;
    if (strcmp(path, "-") == 0)
        return err_set(e, ERR_ARG, "-: outputs go to files, not to standard output; './-' names a file");
    bool exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode))
        return err_set(e, ERR_IO, "%s: is a folder; name a file to write", path);
    if (exists && !S_ISREG(st.st_mode))
        return err_set(e, ERR_IO, "%s: is a device or a pipe, which an output would replace; name a file",
                       path);
    char *folder = path_folder(path);
    int rc = folder ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (folder && access(folder, F_OK) != 0 && errno == ENOENT)
        rc = err_set(e, ERR_IO, "%s: cannot be written: there is no folder '%s'", path, folder);
    else if (folder && access(folder, W_OK | X_OK) != 0)
        rc = err_set(e, ERR_IO, "%s: cannot be written: folder '%s': %s", path, folder, strerror(errno));
    free(folder);
    return rc;
}

int cmd_check_output(const char *path, bool force, struct err *e)
{
    int rc = path ? cmd_check_folder(path, e) : 0;
    return rc == 0 && path ? output_file_check_target(path, force, e) : rc;
}

uint64_t session_peak_rss(void)
{
    struct rusage r;
    if (getrusage(RUSAGE_SELF, &r) != 0 || r.ru_maxrss < 0)
        return 0;
    return (uint64_t)r.ru_maxrss * 1024;
}

uint64_t session_memory_left(uint64_t bound_bytes)
{
    unsigned long long resident = 0, shared = 0;
#ifdef __GLIBC__
    malloc_trim(0); /* reading a vocabulary leaves a large free heap behind */
#endif
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%*u %llu %llu", &resident, &shared) != 2)
            resident = shared = 0;
        fclose(f);
    }
    uint64_t used = resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
    return used < bound_bytes - bound_bytes / 4 ? bound_bytes - used : bound_bytes / 4;
}
