/* text_file.c - see text_file.h. */
#include "text_file.h"

#include "formats/output/output_file.h"

#include <stdlib.h>

int text_file_begin(struct text_file *t, const char *path, struct err *e)
{
    *t = (struct text_file){.path = path};
    int rc = printed_begin(&t->printed);
    t->out = t->printed.out;
    return rc == 0 ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);
}

int text_file_end(struct text_file *t, int rc, bool overwrite, struct err *e)
{
    char *text = printed_end(&t->printed);
    if (rc == 0)
        rc = text ? output_file_write_all(t->path, text, t->printed.n, overwrite, e)
                  : err_set(e, ERR_NOMEM, "%s: out of memory", t->path);
    free(text);
    *t = (struct text_file){0};
    return rc;
}
