/* hex.h - for tests: golden files hold bytes as hexadecimal text. */
#ifndef KERF_TEST_HEX_H
#define KERF_TEST_HEX_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of a hexadecimal text of `len` digits; malloc'ed, caller frees with free(). NULL when it is not one.
 */
uint8_t *hex_bytes(const char *text, size_t len, size_t *n);

/* SHA-256 of float32 values as 64 digits; every NaN counts as 7fc00000, whose sign and payload differ between
 * processors. */
void hex_hash_floats(const float *x, size_t n, char out[65]);

/* The whole file as text with a NUL; malloc'ed, caller frees with free(). NULL when it cannot be read. */
char *hex_read_file(const char *path, size_t *n);

#endif
