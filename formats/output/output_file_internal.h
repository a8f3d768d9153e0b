/* output_file_internal.h - between output_file.c and output_set.c. */
#ifndef KERF_OUTPUT_FILE_INTERNAL_H
#define KERF_OUTPUT_FILE_INTERNAL_H

#include "output_file.h"

struct output_file {
    int fd;
    char *path, *temp, *folder; /* owned */
    uint64_t pos;
    struct output_file_options opt;
    bool resumed;
    int slot; /* in the table for the signal handler, or -1 */
};

/* Rename without replacing: -1 with errno EEXIST when something stands at `to`. */
int output_file_rename_new(const char *from, const char *to);

/* Put renames in a folder on the disk. Never fails: some file systems refuse, and the renames are done. */
void output_file_sync_folder(const char *folder);

/* Lock without waiting. ERR_IO tells a file in use (errno EWOULDBLOCK) from a file system without locks. */
int output_file_lock(int fd, const char *path, struct err *e);

/* Close and free; what is on the disk stays. NULL is allowed. */
void output_file_release(struct output_file *f);

#endif
