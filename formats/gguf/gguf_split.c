/* gguf_split.c - names of the parts of a split set (specification, architectures 21.4). */
#include "gguf_write.h"

#include "libquant/base/path.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAIL_LEN (sizeof "-00001-of-00003.gguf" - 1)

char *gguf_split_name(const char *prefix, uint32_t no, uint32_t count)
{
    size_t cap = strlen(prefix) + TAIL_LEN + 16; /* numbers beyond five digits only make the name longer */
    char *name = malloc(cap);
    if (name)
        snprintf(name, cap, "%s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", prefix, no + 1, count);
    return name;
}

static bool five_digits(const char *s, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *out = *out * 10 + (uint32_t)(s[i] - '0');
    }
    return true;
}

bool gguf_split_parse(const char *path, size_t *prefix_len, uint32_t *no, uint32_t *count)
{
    size_t n = strlen(path);
    if (n < TAIL_LEN)
        return false;
    const char *tail = path + n - TAIL_LEN;
    uint32_t index, total;
    if (tail[0] != '-' || !five_digits(tail + 1, &index) || memcmp(tail + 6, "-of-", 4) != 0 ||
        !five_digits(tail + 10, &total) || strcmp(tail + 15, ".gguf") != 0)
        return false;
    if (index < 1 || index > total)
        return false;
    *prefix_len = n - TAIL_LEN;
    *no = index - 1;
    *count = total;
    return true;
}

int gguf_split_missing(const char *path, int rc, struct err *e)
{
    size_t prefix_len;
    uint32_t no, count;
    if (!gguf_split_parse(path, &prefix_len, &no, &count) || access(path, F_OK) == 0)
        return rc;
    char *old = path_with(path, PATH_OLD);
    if (old && access(old, F_OK) == 0)
        rc = err_set(
            e, ERR_IO,
            "%s: is missing, while %s stands: a run that was replacing this set was killed. Run the same "
            "command again, which first puts the older set back; or rename its *" PATH_OLD
            " files back yourself",
            path, old);
    free(old);
    return rc;
}
