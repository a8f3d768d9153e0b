/* open_model.h - models opened, refused and read whole, or the test fails. */
#ifndef KERF_TEST_OPEN_MODEL_H
#define KERF_TEST_OPEN_MODEL_H

#include "formats/model/model.h"

/* Caller closes with model_close. */
struct model *open_model(const char *path);

/* Opening answers `code` with a message that holds `want`. */
void expect_refusal(const char *path, int code, const char *want);

/* All rows as floats; malloc'ed, caller frees with free(). */
float *read_all(const struct model *m, const struct model_tensor *t);

#endif
