/* imatrix_stats.c - see imatrix_stats.h. */
#include "imatrix_stats.h"

#include "formats/model/tensor_name.h"
#include "libquant/base/order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double cosine(const double *a, const double *b, uint64_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (uint64_t i = 0; i < n; i++) {
        ab += a[i] * b[i];
        aa += a[i] * a[i];
        bb += b[i] * b[i];
    }
    return aa > 0 && bb > 0 ? ab / (sqrt(aa) * sqrt(bb)) : NAN;
}

static double layer_below(const struct imatrix *m, const struct imatrix_entry *entry, int64_t layer,
                          const char *kind)
{
    char name[TENSOR_NAME_MAX];
    if (layer <= 0)
        return NAN;
    const struct imatrix_entry *below = imatrix_find(m, tensor_name_of(name, (uint64_t)layer - 1, kind));
    return below && below->n_values == entry->n_values ? cosine(entry->sums, below->sums, entry->n_values)
                                                       : NAN;
}

static void coverage(struct imatrix_tensor_stats *t, const struct imatrix_entry *entry)
{
    double total = 0;
    t->n_experts = entry->n_mats;
    for (uint64_t j = 0; j < entry->n_mats; j++) {
        double c = entry->counts[j];
        total += c;
        t->n_starved += c <= 0;
        if (j == 0 || c < t->tokens_min)
            t->tokens_min = c;
        if (j == 0 || c > t->tokens_max)
            t->tokens_max = c;
    }
    t->tokens_mean = entry->n_mats ? total / (double)entry->n_mats : 0;
}

/* Calls for every value a = S/C of the matrices that have data. */
#define EACH_VALUE(entry, a, body)                                                                           \
    for (uint64_t each_j = 0, each_w = (entry)->n_mats ? (entry)->n_values / (entry)->n_mats : 0;            \
         each_j < (entry)->n_mats; each_j++)                                                                 \
        if ((entry)->counts[each_j] > 0)                                                                     \
            for (uint64_t each_k = 0; each_k < each_w; each_k++) {                                           \
                double a = (entry)->sums[each_j * each_w + each_k] / (entry)->counts[each_j];                \
                body                                                                                         \
            }

static void describe(struct imatrix_tensor_stats *t, const struct imatrix_entry *entry)
{
    uint64_t n = 0, n_dead = 0, n_far = 0;
    double squares = 0;
    EACH_VALUE(entry, a, {
        if (n == 0 || a < t->min)
            t->min = a;
        if (n == 0 || a > t->max)
            t->max = a;
        t->sum += a;
        squares += a * a;
        n_dead += fabs(a) <= 1e-5;
        n++;
    })
    t->n_values = n;
    if (n == 0)
        return;
    t->mean = t->sum / (double)n;
    t->std_dev = sqrt(fmax(0, squares / (double)n - t->mean * t->mean));
    t->active = 100 * (1 - (double)n_dead / (double)n);
    EACH_VALUE(entry, a, {
        if (t->sum > 0 && a > 0)
            t->entropy -= a / t->sum * log2(a / t->sum);
        n_far += t->std_dev > 0 && (a - t->mean) / t->std_dev > 1;
    })
    t->entropy_norm = n > 1 ? 100 * t->entropy / log2((double)n) : 0;
    t->z_density = 100 * (double)n_far / (double)n;
}

static int by_kind(const void *pa, const void *pb)
{
    const struct imatrix_tensor_stats *a = pa, *b = pb;
    const char *ka, *kb;
    tensor_layer(a->name, &ka);
    tensor_layer(b->name, &kb);
    int order = strcmp(ka, kb);
    if (order == 0)
        order = order_doubles(b->sum, a->sum);
    if (order)
        return order;
    return a->layer < b->layer ? -1 : a->layer > b->layer;
}

static int by_layer(const void *pa, const void *pb)
{
    const struct imatrix_layer_stats *a = pa, *b = pb;
    return a->layer < b->layer ? -1 : a->layer > b->layer;
}

static int sum_layers(struct imatrix_stats *s)
{
    double(*weight)[2] = calloc(s->n_tensors + 1, sizeof *weight); /* of all, and of those with a cosine */
    if (!weight)
        return ERR_NOMEM;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct imatrix_tensor_stats *t = &s->tensors[i];
        if (t->layer < 0 || t->n_values == 0)
            continue;
        size_t k = 0;
        while (k < s->n_layers && s->layers[k].layer != t->layer)
            k++;
        if (k == s->n_layers)
            s->layers[s->n_layers++] = (struct imatrix_layer_stats){.layer = t->layer};
        double w = (double)t->n_values;
        weight[k][0] += w;
        s->layers[k].sum += w * t->sum;
        s->layers[k].z_density += w * t->z_density;
        if (!isnan(t->cos_sim)) {
            weight[k][1] += w;
            s->layers[k].cos_sim += w * t->cos_sim;
        }
    }
    for (size_t k = 0; k < s->n_layers; k++) {
        s->layers[k].sum /= weight[k][0];
        s->layers[k].z_density /= weight[k][0];
        s->layers[k].cos_sim = weight[k][1] > 0 ? s->layers[k].cos_sim / weight[k][1] : NAN;
    }
    free(weight);
    qsort(s->layers, s->n_layers, sizeof *s->layers, by_layer);
    return 0;
}

size_t imatrix_entry_starved(const struct imatrix_entry *entry)
{
    size_t n = 0;
    for (uint64_t j = 0; entry->n_mats > 1 && j < entry->n_mats; j++)
        n += entry->counts[j] <= 0;
    return n;
}

size_t imatrix_starved_experts(const struct imatrix *m)
{
    size_t n = 0, most = 0;
    for (size_t i = 0; i < imatrix_n(m); i++) {
        const struct imatrix_entry *x = imatrix_entry_at(m, i);
        int64_t layer = tensor_layer(x->name, NULL);
        bool same = layer >= 0 && i + 1 < imatrix_n(m) &&
                    tensor_layer(imatrix_entry_at(m, i + 1)->name, NULL) == layer;
        most = imatrix_entry_starved(x) > most ? imatrix_entry_starved(x) : most;
        if (!same) { /* entries are sorted by name */
            n += most;
            most = 0;
        }
    }
    return n;
}

static int no_memory(struct imatrix_stats *s, const struct imatrix *m, struct err *e)
{
    imatrix_stats_release(s);
    return err_set(e, ERR_NOMEM, "out of memory for the statistics of %zu entries", imatrix_n(m));
}

int imatrix_stats_compute(struct imatrix_stats *out, const struct imatrix *m, struct err *e)
{
    struct imatrix_stats s = {.n_tensors = imatrix_n(m)};
    s.tensors = calloc(s.n_tensors + 1, sizeof *s.tensors);
    s.layers = calloc(s.n_tensors + 1, sizeof *s.layers);
    if (!s.tensors || !s.layers)
        return no_memory(&s, m, e);
    for (size_t i = 0; i < s.n_tensors; i++) {
        const struct imatrix_entry *entry = imatrix_entry_at(m, i);
        struct imatrix_tensor_stats *t = &s.tensors[i];
        const char *kind;
        t->name = entry->name;
        t->layer = tensor_layer(entry->name, &kind);
        coverage(t, entry);
        describe(t, entry);
        t->cos_sim = layer_below(m, entry, t->layer, kind);
        s.n_without_data += t->n_values == 0;
    }
    s.n_starved_experts = imatrix_starved_experts(m);
    qsort(s.tensors, s.n_tensors, sizeof *s.tensors, by_kind);
    if (sum_layers(&s) != 0)
        return no_memory(&s, m, e);
    *out = s;
    return 0;
}

void imatrix_stats_release(struct imatrix_stats *s)
{
    free(s->tensors);
    free(s->layers);
    *s = (struct imatrix_stats){0};
}
