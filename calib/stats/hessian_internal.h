/* hessian_internal.h - keys and names of a Hessian file, shared by its writer and its reader. */
#ifndef KERF_HESSIAN_INTERNAL_H
#define KERF_HESSIAN_INTERNAL_H

#define HESSIAN_KEY     "kerf.hessian."
#define HESSIAN_VERSION 1
#define HESSIAN_FIGURES ".figures"

#endif
