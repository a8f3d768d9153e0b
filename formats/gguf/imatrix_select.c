/* imatrix_select.c - entries of an importance matrix by their names, and what is said of its experts; see
 * imatrix_file.h. */
#include "imatrix_internal.h"

#include "formats/recipe/pattern.h"

#include <stdlib.h>
#include <string.h>

bool imatrix_all_experts(const struct imatrix *m)
{
    return m->all_experts;
}

void imatrix_set_all_experts(struct imatrix *m)
{
    m->all_experts = true;
}

bool imatrix_by_router(const struct imatrix *m)
{
    return m->by_router;
}

void imatrix_set_by_router(struct imatrix *m)
{
    m->by_router = true;
}

/* n compiled expressions; caller frees each, and the list. */
static int compile(struct pattern ***out, const char *const *texts, size_t n, struct err *e)
{
    struct pattern **list = calloc(n + 1, sizeof *list);
    int rc = list ? 0 : err_set(e, ERR_NOMEM, "out of memory for %zu expressions", n);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = pattern_new(&list[i], texts[i], strlen(texts[i]), false, e);
    *out = list;
    return rc;
}

static void release(struct pattern **list, size_t n)
{
    for (size_t i = 0; list && i < n; i++)
        pattern_free(list[i]);
    free(list);
}

static int finds(bool *found, struct pattern **list, size_t n, const char *name, struct err *e)
{
    int rc = 0;
    *found = false;
    for (size_t i = 0; rc == 0 && !*found && i < n; i++)
        rc = pattern_test(found, list[i], name, e);
    return rc;
}

/* The names of what is left, anew. */
static int index_again(struct imatrix *m, struct err *e)
{
    int rc = 0;
    strmap_release(&m->by_name);
    m->by_name = (struct strmap){0};
    for (size_t i = 0; rc == 0 && i < m->n; i++) {
        const char *name = m->entries[i]->name;
        rc = strmap_put(&m->by_name, name, strlen(name), (uint64_t)(uintptr_t)m->entries[i], NULL);
    }
    return rc == 0 ? 0 : err_set(e, ERR_NOMEM, "importance matrix: out of memory");
}

int imatrix_select(struct imatrix *m, const char *const *include, size_t n_include,
                   const char *const *exclude, size_t n_exclude, size_t *n_left, struct err *e)
{
    struct pattern **in = NULL, **out = NULL;
    size_t n = 0;
    int rc = compile(&in, include, n_include, e);
    if (rc == 0)
        rc = compile(&out, exclude, n_exclude, e);
    for (size_t i = 0; rc == 0 && i < m->n; i++) {
        bool wanted = false, unwanted = false;
        rc = finds(&wanted, in, n_include, m->entries[i]->name, e);
        if (rc == 0)
            rc = finds(&unwanted, out, n_exclude, m->entries[i]->name, e);
        if (rc == 0 && (wanted || n_include == 0) && !unwanted)
            m->entries[n++] = m->entries[i];
    }
    release(in, n_include);
    release(out, n_exclude);
    if (rc != 0)
        return rc;
    m->n = n;
    *n_left = n;
    return index_again(m, e);
}
