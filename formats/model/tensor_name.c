/* tensor_name.c - see tensor_name.h. */
#include "tensor_name.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int64_t tensor_layer(const char *name, const char **kind)
{
    int64_t layer = 0;
    if (kind)
        *kind = name;
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9')
        return -1;
    const char *p = name + 4;
    for (; *p >= '0' && *p <= '9'; p++) {
        layer = 10 * layer + (*p - '0');
        layer = layer < INT32_MAX ? layer : INT32_MAX;
    }
    if (*p != '.')
        return -1;
    if (kind)
        *kind = p + 1;
    return layer;
}

const char *tensor_name_of(char out[TENSOR_NAME_MAX], uint64_t layer, const char *kind)
{
    snprintf(out, TENSOR_NAME_MAX, "blk.%" PRIu64 ".%s", layer, kind);
    return out;
}
