/* kern_tables.h - the tables of the levels, for kern_select.c and for each other. Users go through kern.h. */
#ifndef KERF_KERN_TABLES_H
#define KERF_KERN_TABLES_H

#include "kern.h"

extern const struct kern kern_ref;

#endif
