/* passages.c - see passages.h. */
#include "passages.h"

#include <stdlib.h>
#include <string.h>

/* Enough that reading or encoding the weights costs little beside multiplying them. Texts of a group differ
 * in length, so a larger one pads more: for 36 lines of a README, one group of 8192 took 8 % longer. */
#define GROUP_TOKENS 2048

struct cut {
    size_t begin, len; /* in the corpus */
    bool cut;          /* already there */
};

/* All texts in their order. Ids have no records: pieces of ctx. */
static size_t list_texts(struct cut *out, const struct corpus *c, size_t ctx, size_t max)
{
    size_t n = 0, at = 0;
    if (c->from_ids) {
        for (; at < c->n_ids && n < max; at += ctx, n++)
            out[n] = (struct cut){at, c->n_ids - at < ctx ? c->n_ids - at : ctx, false};
        return n;
    }
    for (size_t i = 0; i < c->n_records && n < max; at = c->record_ends[i++])
        if (c->record_ends[i] > at)
            out[n++] = (struct cut){at, c->record_ends[i] - at, c->record_cut[i]};
    return n;
}

static int longest_first(const void *a, const void *b)
{
    const struct cut *x = a, *y = b;
    if (x->len != y->len)
        return x->len < y->len ? 1 : -1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* Positions of `step` in a text, or its last one; returns how many. `points` may be NULL. */
static size_t find_points(const int32_t *ids, size_t len, int32_t step, uint32_t *points)
{
    size_t n = 0;
    for (size_t i = 0; step >= 0 && i < len; i++)
        if (ids[i] == step) {
            if (points)
                points[n] = (uint32_t)i;
            n++;
        }
    if (n > 0)
        return n;
    if (points)
        points[0] = (uint32_t)(len - 1);
    return 1;
}

static int fill(struct passages *p, const struct corpus *c, const struct cut *texts,
                const struct passage_options *opt, struct err *e)
{
    size_t total = 0;
    for (size_t i = 0; i < p->n; i++)
        total += texts[i].len < opt->ctx ? texts[i].len : opt->ctx;
    p->items = calloc(p->n, sizeof *p->items);
    p->ids = malloc(total * sizeof *p->ids);
    if (!p->items || !p->ids)
        return err_set(e, ERR_NOMEM, "out of memory for %zu texts of %zu tokens", p->n, total);
    size_t at = 0;
    for (size_t i = 0; i < p->n; i++) {
        struct passage *x = &p->items[i];
        *x = (struct passage){.begin = at, .len = texts[i].len};
        p->n_cut += texts[i].cut || x->len > opt->ctx;
        x->len = x->len < opt->ctx ? x->len : opt->ctx;
        memcpy(p->ids + at, c->ids + texts[i].begin, x->len * sizeof *p->ids);
        at += x->len;
        if (x->len < texts[i].len && opt->eos >= 0)
            p->ids[at - 1] = opt->eos;
        x->first_point = p->n_points;
        x->n_points = find_points(p->ids + x->begin, x->len, opt->step, NULL);
        p->n_points += x->n_points;
    }
    p->points = malloc(p->n_points * sizeof *p->points);
    if (!p->points)
        return err_set(e, ERR_NOMEM, "out of memory for %zu answers", p->n_points);
    for (size_t i = 0; i < p->n; i++)
        find_points(p->ids + p->items[i].begin, p->items[i].len, opt->step,
                    p->points + p->items[i].first_point);
    return 0;
}

int passages_cut(struct passages *out, const struct corpus *c, const struct passage_options *opt,
                 struct err *e)
{
    struct passages p = {.n_padded = opt->n_padded ? opt->n_padded : GROUP_TOKENS};
    size_t most = c->from_ids ? c->n_ids / opt->ctx + 1 : c->n_records;
    struct cut *texts = malloc((most + 1) * sizeof *texts);
    if (!texts)
        return err_set(e, ERR_NOMEM, "out of memory for %zu texts", most);
    p.n = list_texts(texts, c, opt->ctx, opt->max ? opt->max : SIZE_MAX);
    int rc = 0;
    if (p.n == 0)
        rc = err_set(e, ERR_ARG, "%s: holds no text", c->n_texts ? c->texts[0].path : "no text");
    if (rc == 0) {
        qsort(texts, p.n, sizeof *texts, longest_first);
        rc = fill(&p, c, texts, opt, e);
    }
    free(texts);
    if (rc != 0) {
        passages_release(&p);
        return rc;
    }
    *out = p;
    return 0;
}

void passages_release(struct passages *p)
{
    if (!p)
        return;
    free(p->items);
    free(p->ids);
    free(p->points);
    *p = (struct passages){0};
}

size_t passages_group(const struct passages *p, size_t first)
{
    size_t len = p->items[first].len, n = (p->n_padded + len - 1) / len;
    return n < p->n - first ? n : p->n - first;
}

int32_t *passages_rows(const struct passages *p, size_t first, size_t n)
{
    size_t len = p->items[first].len;
    int32_t *rows = calloc(n * len, sizeof *rows); /* the padding is token 0 */
    for (size_t i = 0; rows && i < n; i++)
        memcpy(rows + i * len, p->ids + p->items[first + i].begin, p->items[first + i].len * sizeof *rows);
    return rows;
}
