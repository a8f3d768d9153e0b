/* scratch.h - a folder for one test, with files written from strings, removed at the end. */
#ifndef KERF_TEST_SCRATCH_H
#define KERF_TEST_SCRATCH_H

#include <stddef.h>

struct scratch {
    char folder[64];
};

/* Fails the test when the folder or a file cannot be made. */
void scratch_make(struct scratch *s);
void scratch_bytes(const struct scratch *s, const char *name, const void *data, size_t len);
void scratch_text(const struct scratch *s, const char *name, const char *text);
void scratch_delete(const struct scratch *s, const char *name);
void scratch_remove(struct scratch *s); /* with one level of folders inside */

#endif
