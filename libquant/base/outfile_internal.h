/* outfile_internal.h - between outfile.c and outset.c. */
#ifndef KERF_OUTFILE_INTERNAL_H
#define KERF_OUTFILE_INTERNAL_H

#include "outfile.h"

struct outfile {
    int fd;
    char *path, *temp, *folder; /* owned */
    uint64_t pos;
    struct outfile_options opt;
    bool resumed;
    int slot; /* in the table for the signal handler, or -1 */
};

/* Rename without replacing: -1 with errno EEXIST when something stands at `to`. */
int outfile_rename_new(const char *from, const char *to);

/* Put renames in a folder on the disk. Never fails: some file systems refuse, and the renames are done. */
void outfile_sync_folder(const char *folder);

/* Lock without waiting. ERR_IO tells a file in use (errno EWOULDBLOCK) from a file system without locks. */
int outfile_lock(int fd, const char *path, struct err *e);

/* Close and free; what is on the disk stays. NULL is allowed. */
void outfile_release(struct outfile *f);

#endif
