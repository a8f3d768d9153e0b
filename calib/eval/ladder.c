/* ladder.c - see ladder.h. */
#include "ladder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const ladder_default_types[] = {"Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"};
const size_t ladder_n_default_types = sizeof ladder_default_types / sizeof *ladder_default_types;

static int default_types(const struct mix **list, size_t *n, struct err *e)
{
    for (size_t i = 0; i < ladder_n_default_types; i++) {
        list[i] = mix_find(ladder_default_types[i]);
        if (!list[i])
            return err_set(e, ERR_ARG, "no mix is called '%s'", ladder_default_types[i]);
    }
    *n = ladder_n_default_types;
    return 0;
}

static int named_types(const struct mix **list, size_t *n, const char *text, char word[64], struct err *e)
{
    *n = 0;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, ", ");
        snprintf(word, 64, "%.*s", (int)(len < 64 ? len : 63), p);
        if (len > 0) {
            list[*n] = mix_find(word);
            if (!list[(*n)++])
                return err_set(e, ERR_ARG, "no mix is called '%s'", word);
        }
        p += len + strspn(p + len, ", ");
    }
    word[0] = 0;
    return *n ? 0 : err_set(e, ERR_ARG, "the list of types is empty");
}

int ladder_parse_types(const struct mix ***out, size_t *n, const char *text, char unknown[64], struct err *e)
{
    unknown[0] = 0;
    size_t most = ladder_n_default_types + (text ? strlen(text) : 0);
    const struct mix **list = calloc(most + 1, sizeof *list);
    if (!list)
        return err_set(e, ERR_NOMEM, "out of memory for a list of types");
    int rc = text ? named_types(list, n, text, unknown, e) : default_types(list, n, e);
    if (rc != 0) {
        free(list);
        return rc;
    }
    *out = list;
    return 0;
}
