/* base_api.c - see include/kerf/base.h. */
#include <kerf/base.h>

#include "err.h"

#define SAME(public_code, code)                                                                              \
    _Static_assert((int)(public_code) == (int)(code), "the codes are those of err.h")
SAME(KERF_ERROR_IO, ERR_IO);
SAME(KERF_ERROR_FORMAT, ERR_FORMAT);
SAME(KERF_ERROR_UNSUPPORTED, ERR_UNSUPPORTED);
SAME(KERF_ERROR_ARGUMENT, ERR_ARG);
SAME(KERF_ERROR_MEMORY, ERR_NOMEM);

const char *kerf_version(void)
{
    return KERF_VERSION;
}
