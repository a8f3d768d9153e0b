/* textfile.c - see textfile.h. */
#include "textfile.h"

#include "outfile.h"

#include <stdlib.h>

int textfile_begin(struct textfile *t, const char *path, struct err *e)
{
    *t = (struct textfile){.path = path};
    t->out = open_memstream(&t->text, &t->n);
    return t->out ? 0 : err_set(e, ERR_NOMEM, "%s: out of memory", path);
}

int textfile_end(struct textfile *t, int rc, bool overwrite, struct err *e)
{
    bool whole = !ferror(t->out);
    whole &= fclose(t->out) == 0;
    if (rc == 0)
        rc = whole ? outfile_write_all(t->path, t->text, t->n, overwrite, e)
                   : err_set(e, ERR_NOMEM, "%s: out of memory", t->path);
    free(t->text);
    *t = (struct textfile){0};
    return rc;
}
