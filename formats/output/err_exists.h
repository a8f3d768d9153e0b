/* err_exists.h - one more code of failure beside those of err.h: an output stands already. For those that
 * write outputs and for who tells it; every other caller sees it as a failure like others. */
#ifndef KERF_ERR_EXISTS_H
#define KERF_ERR_EXISTS_H

#include "libquant/base/err.h"

enum { ERR_EXISTS_CODE = -7 };

/* An output stands at its name, and was not to be replaced. */
#define ERR_EXISTS ((enum err_code)ERR_EXISTS_CODE)

#endif
