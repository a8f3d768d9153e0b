/* model_sum.c - see model_sum.h. */
#include "model_sum.h"

#include "libquant/base/path.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Does a file or folder have these `n` bytes as its name? */
static bool exists(const char *text, size_t n)
{
    char path[4096];
    struct stat st;
    if (n == 0 || n >= sizeof path)
        return false;
    memcpy(path, text, n);
    path[n] = '\0';
    return stat(path, &st) == 0;
}

/* Bytes of the path in "PATH=SCALE"; `n` when there is no scale. */
static size_t path_bytes(const char *text, size_t n)
{
    size_t at = n;
    while (at > 0 && text[at - 1] != '=')
        at--;
    return at == 0 || exists(text, n) ? n : at - 1;
}

static int no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory for the list of adapters");
}

int model_adapter_parse(struct model_adapter *out, const char *text, size_t n, struct arena *arena,
                        struct err *e)
{
    size_t n_path = path_bytes(text, n);
    struct model_adapter a = {.path = arena_strndup(arena, text, n_path), .scale = 1};
    if (!a.path)
        return no_memory(e);
    if (n_path < n) {
        char *number = arena_strndup(arena, text + n_path + 1, n - n_path - 1), *end = NULL;
        if (!number)
            return no_memory(e);
        a.scale = strtod(number, &end);
        if (number[0] == '\0' || *end != '\0' || !isfinite(a.scale))
            return err_set(e, ERR_ARG,
                           "adapter '%.*s': '%s' is not a number; expected ADAPTER or ADAPTER=SCALE", (int)n,
                           text, number);
    }
    *out = a;
    return 0;
}

/* The '+' behind the name of the model; NULL: none. */
static const char *first_plus(const char *text)
{
    for (const char *at = strchr(text, '+'); at; at = strchr(at + 1, '+'))
        if (exists(text, (size_t)(at - text)))
            return at;
    return NULL;
}

bool model_is_sum(const char *text)
{
    return !exists(text, strlen(text)) && first_plus(text) != NULL;
}

const char *model_sum_label(const char *text)
{
    const char *plus = model_is_sum(text) ? first_plus(text) : NULL;
    if (!plus)
        return path_short(text);
    while (plus > text && plus[-1] != '/')
        plus--;
    return plus;
}

/* Bytes of the first summand of `text`: up to the first '+' in front of which something is there. */
static size_t summand_bytes(const char *text)
{
    size_t first = strcspn(text, "+");
    for (size_t n = first;; n += 1 + strcspn(text + n + 1, "+")) {
        if (exists(text, path_bytes(text, n)))
            return n;
        if (text[n] == '\0')
            return first; /* nothing is: whoever opens it says so */
    }
}

int model_sum_parse(struct model_sum *out, const char *text, struct arena *arena, struct err *e)
{
    struct model_sum s = {.model = text};
    int rc = 0;
    if (!model_is_sum(text)) {
        *out = s;
        return 0;
    }
    const char *at = first_plus(text);
    s.model = arena_strndup(arena, text, (size_t)(at - text));
    s.adapters = arena_array(arena, strlen(at), sizeof *s.adapters);
    if (!s.model || !s.adapters)
        return no_memory(e);
    while (rc == 0 && *at == '+') {
        size_t n = summand_bytes(at + 1);
        rc = model_adapter_parse(&s.adapters[s.n++], at + 1, n, arena, e);
        at += 1 + n;
    }
    if (rc == 0)
        *out = s;
    return rc;
}
