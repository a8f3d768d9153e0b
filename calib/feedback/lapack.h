/* lapack.h - the two routines of LAPACK by which error feedback factors Hessians, as OpenBLAS brings them.
 *
 * The library is loaded at the first use. A program that starts with it pays 3 ms and a thread for each core
 * every time, and all other work does without. */
#ifndef KERF_LAPACK_H
#define KERF_LAPACK_H

#include "libquant/base/err.h"

#include <stddef.h>

/* Fortran's calling convention: all by address, the lengths of texts behind. */
struct lapack {
    /* Cholesky factor of a symmetric matrix [n, n], in place. *info: 0, or where it is not positive. */
    void (*dpotrf)(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_len);
    /* Inverse of a triangular matrix [n, n], in place. */
    void (*dtrtri)(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info,
                   size_t uplo_len, size_t diag_len);
};

/* Load it, once for the process; it computes with the thread that calls it. May be called by several threads.
 * ERR_IO: the library is not there, or lacks them. */
int lapack_load(const struct lapack **out, struct err *e);

#endif
