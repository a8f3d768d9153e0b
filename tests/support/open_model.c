/* open_model.c - see open_model.h. */
#include "open_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct model *open_model(const char *path)
{
    struct model *m = NULL;
    struct err e = {0};
    if (model_open(&m, path, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    return m;
}

void expect_refusal(const char *path, int code, const char *want)
{
    struct model *m = NULL;
    struct err e = {0};
    int rc = model_open(&m, path, NULL, &e);
    if (rc != code || !strstr(e.msg, want))
        fail_msg("%d '%s', not %d '%s'", rc, e.msg, code, want);
    assert_null(m);
}

float *read_all(const struct model *m, const struct model_tensor *t)
{
    struct err e = {0};
    float *x = malloc(t->n_rows * t->ne[0] * sizeof *x);
    if (model_read_rows(m, t, 0, t->n_rows, x, &e) != 0)
        fail_msg("%s", e.msg);
    return x;
}
