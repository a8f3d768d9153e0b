/* printed.c - see printed.h. */
#define _GNU_SOURCE
#include "printed.h"

#include "err.h"

#include <stdbool.h>
#include <stdlib.h>

int printed_begin(struct printed *p)
{
    *p = (struct printed){0};
    p->out = open_memstream(&p->text, &p->n);
    return p->out ? 0 : ERR_NOMEM;
}

char *printed_end(struct printed *p)
{
    bool whole = !ferror(p->out);
    whole &= fclose(p->out) == 0; /* glibc says 0, too, where it had no memory for the text's last size */
    if (!whole) {
        free(p->text);
        p->text = NULL;
    }
    p->out = NULL;
    return p->text;
}
