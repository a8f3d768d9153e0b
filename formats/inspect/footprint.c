/* footprint.c - see footprint.h. Cache and states: llama.cpp's llama-kv-cache, llama-kv-cache-iswa,
 * llama-memory-recurrent and llama-hparams (n_embd_r, n_embd_s). */
#include "footprint.h"

#include "formats/arch/arch.h"
#include "formats/model/hparams.h"

#include <stdlib.h>
#include <string.h>

#define CELLS_MULTIPLE 256

static uint64_t add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t mul(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t min_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* --- layers -----------------------------------------------------------------------------------------------
 */

/* Every n-th layer sees the whole context, where files do not say so; 1: not known to have windows. */
static uint64_t window_period(const struct hparams *h)
{
    static const struct {
        const char *arch;
        uint64_t period;
    } known[] = {{"gemma-embedding", 6}, {"cohere2", 4}};
    if (h->arch)
        return h->arch->runtime.window_period;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].arch, h->arch_name) == 0)
            return known[i].period;
    return 1;
}

/* Families whose prediction layers, those behind the main ones, llama.cpp gives no cache in a context that
 * generates text (llama_model::create_memory); for the others it allocates one in every layer. Of those that
 * are unknown here, these. */
static bool predicts_without_cache(const struct hparams *h)
{
    static const char *const known[] = {"step35", "hy_v3", "mimo2", "deepseek32", "glm-dsa"};
    if (h->arch)
        return h->arch->runtime.predicts_without_cache;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], h->arch_name) == 0)
            return true;
    return false;
}

static uint64_t state_bytes(const struct hparams *h)
{
    uint64_t inner = hparam_or(&h->ssm_inner, 0, 0), state = hparam_or(&h->ssm_state, 0, 0);
    uint64_t groups = hparam_or(&h->ssm_groups, 0, 0), kernel = hparam_or(&h->ssm_kernel, 0, 0);
    uint64_t columns = add(inner, mul(2, mul(groups, state)));
    return mul(4, add(mul(state, inner), mul(kernel ? kernel - 1 : 0, columns)));
}

/* Does the cache hold latents? Values are then the front of the keys, with no cache of their own. The sizes
 * of heads before they are taken to latents say so: older files have the rank of latents, but expand them. */
static bool caches_latents(const struct hparams *h)
{
    return (!h->arch || h->arch->runtime.latent) && hparam_or(&h->full_key_dim, 0, 0) != 0 &&
           hparam_or(&h->full_value_dim, 0, 0) != 0;
}

static void read_layer(struct footprint *f, const struct hparams *h, uint64_t layer, uint64_t n_main)
{
    struct footprint_layer *l = &f->layers[layer];
    if (layer >= n_main && predicts_without_cache(h))
        return;
    if (layer < n_main && hparam_is_there(&h->ssm_inner.key) && hparams_is_recurrent(h, layer)) {
        l->state_bytes = state_bytes(h);
        f->has_delta_net = true;
        return;
    }
    struct hparams_heads heads = hparams_heads(h, layer);
    l->k_width = mul(heads.n_kv, heads.key_dim);
    l->v_width = caches_latents(h) ? 0 : mul(heads.n_kv, heads.value_dim);
    bool windowed = f->is_guess || h->arch->runtime.window_period != 0;
    l->window = windowed ? hparams_window(h, layer, window_period(h)) : 0;
    f->q_width = max_of(f->q_width, mul(heads.n, heads.key_dim));
}

/* Widths of the feed-forward, from the tensors that are there. */
static void read_widths(struct footprint *f, const struct model *m)
{
    uint64_t used = hparam_or(&model_hparams(m)->n_experts_used, 0, 0);
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        if ((strstr(t->name, ".ffn_up_exps.weight") || strstr(t->name, ".ffn_gate_up_exps.weight")) &&
            t->n_dims == 3) {
            uint64_t rows = strstr(t->name, ".ffn_gate_up_exps.weight") ? t->ne[1] / 2 : t->ne[1];
            uint64_t hidden = mul(min_of(used, t->ne[2]), rows);
            f->ffn_width = max_of(f->ffn_width, hidden);
            f->expert_width =
                max_of(f->expert_width, add(hidden, mul(2, mul(min_of(used, t->ne[2]), t->ne[0]))));
        } else if (strstr(t->name, ".ffn_up.weight") || strstr(t->name, ".ffn_up_shexp.weight")) {
            f->ffn_width = max_of(f->ffn_width, t->ne[1]);
            f->is_scattered |= strstr(t->name, "_shexp") != NULL;
        }
    }
    f->is_scattered |= f->has_delta_net;
}

/* A number without which nothing can be said: 1 to `most`. */
static int need(const struct model *m, const struct hparam_count *p, uint64_t most, uint64_t *out,
                struct err *e)
{
    const char *arch = model_hparams(m)->arch_name;
    if (!hparam_of_layer(p, 0, out))
        return err_set(e, ERR_FORMAT, "%s: metadata key %.60s.%s is missing", model_path(m), arch,
                       p->key.suffix);
    if (*out == 0 || *out > most)
        return err_set(e, ERR_FORMAT, "%s: metadata key %.60s.%s is %llu, expected 1 to %llu", model_path(m),
                       arch, p->key.suffix, (unsigned long long)*out, (unsigned long long)most);
    return 0;
}

int footprint_init(struct footprint *out, const struct model *m, struct err *e)
{
    const struct hparams *h = model_hparams(m);
    const struct model_tensor *embd = model_find(m, "token_embd.weight");
    struct footprint f = {.is_guess = h->arch == NULL};
    uint64_t n_layers, n_extra, heads;
    if (!embd)
        return err_set(e, ERR_FORMAT, "%s: tensor 'token_embd.weight' is missing", model_path(m));
    f.width = embd->ne[0];
    f.n_vocab = embd->ne[1];
    int rc = need(m, &h->n_blocks, ARCH_MAX_LAYERS + ARCH_MAX_EXTRA, &n_layers, e);
    if (rc == 0 && h->n_heads.key.state != HPARAM_LIST)
        rc = need(m, &h->n_heads, (uint64_t)1 << 16, &heads, e);
    if (rc != 0)
        return rc;
    f.trained_ctx = hparam_or(&h->context, 0, 0);
    f.layers = calloc(n_layers, sizeof *f.layers);
    f.n_layers = (size_t)n_layers;
    if (!f.layers)
        return err_set(e, ERR_NOMEM, "out of memory for %llu layers", (unsigned long long)n_layers);
    n_extra = min_of(hparam_or(&h->n_predict, 0, 0), n_layers);
    for (uint64_t i = 0; i < n_layers; i++)
        read_layer(&f, h, i, n_layers - n_extra);
    read_widths(&f, m);
    *out = f;
    return 0;
}

void footprint_release(struct footprint *f)
{
    free(f->layers);
    *f = (struct footprint){0};
}

/* --- bytes -------------------------------------------------------------------------------------------------
 */

static uint64_t batch_of(uint64_t ctx)
{
    return min_of(ctx, FOOTPRINT_BATCH);
}

static uint64_t cells_of(uint64_t ctx)
{
    return add(ctx, CELLS_MULTIPLE - 1) / CELLS_MULTIPLE * CELLS_MULTIPLE;
}

static uint64_t layer_cells(const struct footprint_layer *l, uint64_t ctx)
{
    uint64_t cells = cells_of(ctx);
    return l->window ? cells_of(min_of(cells, add(l->window, batch_of(ctx)))) : cells;
}

static uint64_t row_bytes(uint64_t width, enum qtype type)
{
    const struct qtype_info *t = qtype_info((uint32_t)type);
    return mul(width / t->block_elems + (width % t->block_elems != 0), t->block_bytes);
}

uint64_t footprint_cache_bytes(const struct footprint *f, uint64_t ctx, struct kv_cache kv)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->n_layers; i++) {
        const struct footprint_layer *l = &f->layers[i];
        uint64_t row = add(row_bytes(l->k_width, kv.k), row_bytes(l->v_width, kv.v));
        n = add(n, add(mul(layer_cells(l, ctx), row), l->state_bytes));
    }
    return n;
}

bool footprint_caches_keys_alone(const struct footprint *f)
{
    bool keys = false, values = false;
    for (uint64_t i = 0; i < f->n_layers; i++) {
        keys |= f->layers[i].k_width != 0;
        values |= f->layers[i].v_width != 0;
    }
    return keys && !values;
}

/* Masks of attention: one for the whole context, one for windows, which differ in size only by the cells. */
static uint64_t mask_bytes(const struct footprint *f, uint64_t ctx)
{
    uint64_t full = 0, windowed = 0;
    for (size_t i = 0; i < f->n_layers; i++) {
        const struct footprint_layer *l = &f->layers[i];
        if (l->k_width == 0)
            continue;
        if (l->window)
            windowed = max_of(windowed, layer_cells(l, ctx));
        else
            full = cells_of(ctx);
    }
    return mul(2 * batch_of(ctx), add(full, windowed));
}

uint64_t footprint_work_bytes(const struct footprint *f, uint64_t ctx)
{
    uint64_t d = f->width, n = 4 * batch_of(ctx);
    uint64_t head = mul(n, add(f->n_vocab, mul(f->has_delta_net ? 3 : 2, d)));
    uint64_t wide = max_of(add(f->q_width, mul(3, f->ffn_width)), f->expert_width);
    uint64_t layer = add(mul(n, add(mul(3, d), wide)), mask_bytes(f, ctx));
    uint64_t most = max_of(head, layer), least = min_of(head, layer);
    uint64_t gaps = f->is_scattered ? least : least / 2;
    return add(add(most, gaps), mul(4, f->n_vocab));
}

uint64_t footprint_total_bytes(const struct footprint *f, uint64_t weights_bytes, uint64_t ctx,
                               struct kv_cache kv)
{
    return add(weights_bytes, add(footprint_cache_bytes(f, ctx, kv), footprint_work_bytes(f, ctx)));
}

uint64_t footprint_max_ctx(const struct footprint *f, uint64_t weights_bytes, uint64_t memory_bytes,
                           struct kv_cache kv)
{
    uint64_t cap = f->trained_ctx ? min_of(f->trained_ctx, FOOTPRINT_MAX_CTX) : FOOTPRINT_MAX_CTX;
    uint64_t fits = 0, end = cap + 1; /* [1, fits] fit, [end, ..) do not */
    while (fits + 1 < end) {
        uint64_t ctx = fits + (end - fits) / 2;
        if (footprint_total_bytes(f, weights_bytes, ctx, kv) <= memory_bytes)
            fits = ctx;
        else
            end = ctx;
    }
    return fits;
}
