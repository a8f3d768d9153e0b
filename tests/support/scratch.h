/* scratch.h - a folder for one test, or for all tests of a program, with files written from strings, removed
 * at the end. */
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
void scratch_remove(struct scratch *s); /* with two levels of folders inside */

/* One folder for all tests of a program, as fixtures of the group:
 * cmocka_run_group_tests(tests, scratch_begin, scratch_end). */
int scratch_begin(void **state);
int scratch_end(void **state);

/* A path in that folder; "" is the folder itself. Good for the next seven calls. */
const char *in_scratch(const char *name);

/* Write or replace a file of any folder. */
void scratch_text_in(const char *folder, const char *name, const char *text);

#endif
