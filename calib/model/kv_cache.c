/* kv_cache.c - see kv_cache.h. */
#include "kv_cache.h"

#include "model_load.h"

#define LEAST_TURN 64

static int check_heads(const struct net *net, uint32_t layer, enum qtype type, uint32_t dim, const char *what,
                       struct err *e)
{
    uint64_t n_bytes;
    if (qtype_row_bytes((uint32_t)type, dim, &n_bytes))
        return 0;
    return err_set(e, ERR_ARG,
                   "%s: %s of layer %u have %u entries a head, which blocks of %u do not divide: no runtime "
                   "stores them as %s",
                   model_path(net->model), what, layer, dim, qtype_info((uint32_t)type)->block_elems,
                   qtype_name((uint32_t)type));
}

int kv_cache_check(const struct kv_cache *c, const struct net *net, struct err *e)
{
    size_t n = 0;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < net->n_layers; i++) {
        const struct net_layer *l = &net->layers[i];
        if (l->steps[0] != STEP_ATTENTION && l->steps[0] != STEP_LATENT)
            continue;
        n++;
        rc = check_heads(net, i, c->k, l->attention.head_dim, "keys", e);
        if (rc == 0)
            rc = check_heads(net, i, l->steps[0] == STEP_LATENT ? c->k : c->v, l->attention.value_dim,
                             "values", e);
    }
    if (rc == 0 && n == 0 && !kv_cache_is_exact(c))
        rc = err_set(e, ERR_ARG, "%s: no layer has attention, so there is no cache of keys and values",
                     model_path(net->model));
    return rc;
}

bool kv_cache_is_of_keys_alone(const struct net *net)
{
    bool latents = false, values = false;
    for (uint32_t i = 0; i < net->n_layers; i++) {
        latents |= net->layers[i].steps[0] == STEP_LATENT;
        values |= net->layers[i].steps[0] == STEP_ATTENTION;
    }
    return latents && !values;
}

static bool is_turned(enum qtype type, size_t head_dim)
{
    return qtype_info((uint32_t)type)->is_quantized && head_dim % LEAST_TURN == 0;
}

size_t kv_cache_turn_keys(enum qtype type, size_t head_dim)
{
    size_t n = LEAST_TURN;
    if (!is_turned(type, head_dim))
        return 0;
    while (head_dim % (2 * n) == 0)
        n *= 2;
    return n;
}

size_t kv_cache_turn_values(enum qtype type, size_t head_dim)
{
    return is_turned(type, head_dim) ? LEAST_TURN : 0;
}
