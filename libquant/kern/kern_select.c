/* kern_select.c - which kernel table this CPU can run.
 *
 * Asked of the CPU each time (a few register reads, once per tensor at most), so there is no state to guard.
 * All levels give the same bytes: choosing one is a matter of speed only. */
#include "kern_tables.h"

#include <string.h>

/* Best level first. */
static const struct kern *const levels[] = {&kern_ref};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

const struct kern *kern_native(void)
{
    return levels[0];
}

const struct kern *kern_by_name(const char *isa)
{
    if (strcmp(isa, "native") == 0)
        return kern_native();
    for (size_t i = 0; i < N_LEVELS; i++) {
        if (strcmp(isa, levels[i]->isa) == 0)
            return levels[i];
    }
    return NULL;
}

const char *const *kern_names(void)
{
    static const char *const names[] = {"ref", NULL};
    return names;
}
