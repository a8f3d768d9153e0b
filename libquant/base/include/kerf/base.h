/* kerf/base.h - what the public headers of kerf share: visibility, the version, and how a call reports
 * failure.
 *
 * The library is C11 for little-endian Linux. A call that can fail returns 0 or a negative code, and fills
 * the error that its caller passed, which may be NULL. Nothing prints, exits, or keeps state between calls,
 * so all functions may be called from several threads at once. */
#ifndef KERF_PUBLIC_BASE_H
#define KERF_PUBLIC_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define KERF_API __attribute__((visibility("default")))
#else
#define KERF_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum kerf_code {
    KERF_OK = 0,
    KERF_ERROR_IO = -1,          /* the system refused: open, read, map               */
    KERF_ERROR_FORMAT = -2,      /* the bytes contradict the file format              */
    KERF_ERROR_UNSUPPORTED = -3, /* valid, but not implemented here                   */
    KERF_ERROR_ARGUMENT = -4,    /* the caller asked for something impossible         */
    KERF_ERROR_MEMORY = -5,      /* an allocation was refused                         */
};

/* Set by a call that fails, left alone by one that does not. */
struct kerf_error {
    int code;          /* of enum kerf_code */
    char message[512]; /* one sentence: file, tensor or key, what was expected, what was found */
};

/* "0.1.0": of the library that runs, which may be newer than the headers. Never NULL. */
KERF_API const char *kerf_version(void);

#ifdef __cplusplus
}
#endif

#endif
