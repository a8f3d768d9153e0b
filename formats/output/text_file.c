/* text_file.c - see text_file.h. */
#include "text_file.h"

#include "formats/output/output_file.h"

#include <stdlib.h>

int text_file_begin(struct text_file *t, const char *path, struct err *e)
{
    *t = (struct text_file){.path = path};
    t->out = open_memstream(&t->text, &t->n);
    return t->out ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);
}

int text_file_end(struct text_file *t, int rc, bool overwrite, struct err *e)
{
    bool whole = !ferror(t->out);
    whole &= fclose(t->out) == 0;
    if (rc == 0)
        rc = whole ? output_file_write_all(t->path, t->text, t->n, overwrite, e)
                   : err_set(e, ERR_NOMEM, "%s: out of memory", t->path);
    free(t->text);
    *t = (struct text_file){0};
    return rc;
}
