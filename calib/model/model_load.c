/* model_load.c - see model_load.h: the numbers of a model and what all its layers share. */
#include "model_load.h"

#include "formats/arch/arch.h"
#include "formats/model/model_check.h"
#include "libquant/base/checked.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_WIDTH    (1u << 24)
#define MAX_HEAD_DIM 65536

int net_tensor(const struct net *net, const char *name, uint64_t n_cols, uint64_t n_rows, uint64_t n_mats,
               bool required, const struct model_tensor **out, struct err *e)
{
    const struct model_tensor *t = model_find(net->model, name);
    *out = t;
    if (!t)
        return required ? err_set(e, ERR_FORMAT, "%s: tensor '%s' is missing", model_path(net->model), name)
                        : 0;
    if (t->ne[0] != n_cols || t->ne[1] != n_rows || t->ne[2] != n_mats || t->ne[3] != 1)
        return err_set(
            e, ERR_FORMAT,
            "%s: tensor '%s': expected [%llu, %llu, %llu] (slowest first), found [%llu, %llu, %llu]",
            model_path(net->model), name, (unsigned long long)n_mats, (unsigned long long)n_rows,
            (unsigned long long)n_cols, (unsigned long long)t->ne[2], (unsigned long long)t->ne[1],
            (unsigned long long)t->ne[0]);
    return 0;
}

int net_vector(struct net *net, const char *name, uint64_t n, bool required, const float **out, struct err *e)
{
    const struct model_tensor *t = model_find(net->model, name);
    *out = NULL;
    if (!t)
        return required ? err_set(e, ERR_FORMAT, "%s: tensor '%s' is missing", model_path(net->model), name)
                        : 0;
    uint64_t found = 0;
    if (!checked_mul(t->ne[0], t->n_rows, &found) || found != n)
        return err_set(e, ERR_FORMAT, "%s: tensor '%s': expected %llu values, found %llu",
                       model_path(net->model), name, (unsigned long long)n, (unsigned long long)found);
    float *v = arena_array(&net->arena, (size_t)n, sizeof *v);
    if (!v)
        return err_set(e, ERR_NOMEM, "out of memory for tensor '%s'", name);
    *out = v;
    return model_read_rows(net->model, t, 0, t->n_rows, v, e);
}

static int need_count(const struct net *net, const struct hparam_count *p, uint32_t most, uint32_t *out,
                      struct err *e)
{
    const char *arch = net->hparams->arch_name;
    uint64_t v;
    if (!hparam_whole(p, &v) || v > UINT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: key '%s.%s' is missing or not a count", model_path(net->model),
                       arch, p->key.suffix);
    if (v == 0 || v > most)
        return err_set(e, ERR_FORMAT, "%s: key '%s.%s': expected 1 to %u, found %u", model_path(net->model),
                       arch, p->key.suffix, most, (uint32_t)v);
    *out = (uint32_t)v;
    return 0;
}

static int refuse_family(const struct model *m, struct err *e)
{
    char known[400] = "";
    for (size_t i = 0; i < arch_count(); i++) {
        size_t at = strlen(known);
        if (!arch_at(i)->runtime.not_run)
            snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", arch_at(i)->name);
    }
    if (!model_arch_name(m)[0])
        return err_set(e, ERR_FORMAT,
                       "%s: key 'general.architecture' is missing, which says how the model computes",
                       model_path(m));
    return err_set(e, ERR_UNSUPPORTED, "%s: no forward pass for architecture '%s'; there is one for %s",
                   model_path(m), model_arch_name(m), known);
}

static int load_numbers(struct net *net, struct err *e)
{
    const struct hparams *h = net->hparams;
    int rc = need_count(net, &h->n_blocks, ARCH_MAX_LAYERS, &net->n_layers, e);
    if (rc == 0)
        rc = need_count(net, &h->width, MAX_WIDTH, &net->n_embd, e);
    if (rc == 0)
        rc = need_count(net, &h->context, UINT32_MAX, &net->context_length, e);
    if (rc != 0)
        return rc;
    net->n_layers = (uint32_t)hparams_n_layers(h); /* blocks that predict further tokens play no part here */
    if (h->eps.key.state != HPARAM_ONE || !(h->eps.value >= 0))
        return err_set(e, ERR_FORMAT, "%s: key '%s.%s' is missing or not a number", model_path(net->model),
                       h->arch_name, h->eps.key.suffix);
    net->eps = (float)h->eps.value;
    bool scaled = h->arch->runtime.scaled;
    net->embedding_scale = scaled ? (float)hparam_real_or(&h->embedding_scale, 1) : 1;
    net->residual_scale = scaled ? (float)hparam_real_or(&h->residual_scale, 1) : 1;
    net->logit_scale = scaled ? (float)(1 / hparam_real_or(&h->logit_scale, 1)) : 1;
    if (h->arch->runtime.scales_by_width)
        net->embedding_scale = sqrtf((float)net->n_embd);
    net->logit_cap = h->arch->runtime.capped ? (float)hparam_real_or(&h->logit_cap, 0) : 0;
    net->gelu = h->arch->runtime.gelu;
    net->clamped = h->arch->runtime.clamped;
    return 0;
}

static int load_ends(struct net *net, struct err *e)
{
    const struct model_tensor *t = model_find(net->model, "token_embd.weight");
    if (!t || t->ne[0] != net->n_embd || t->ne[2] != 1 || t->ne[1] == 0 || t->ne[1] > INT32_MAX)
        return err_set(e, ERR_FORMAT, "%s: tensor 'token_embd.weight' with rows of %u is missing",
                       model_path(net->model), net->n_embd);
    net->embedding = t;
    net->n_vocab = (uint32_t)t->ne[1];
    int rc = net_vector(net, "output_norm.weight", net->n_embd, true, &net->output_norm, e);
    if (rc == 0)
        rc = net_tensor(net, "output.weight", net->n_embd, net->n_vocab, 1, false, &net->head.tensor, e);
    if (rc == 0)
        rc = net_vector(net, "output.bias", net->n_vocab, false, &net->head.bias, e);
    if (!net->head.tensor)
        net->head.tensor = net->embedding;
    net->head.n_rows = net->n_vocab;
    return rc;
}

/* The name in classifier.output_labels, for people to read: without control characters. */
static int load_label_name(struct net *net, struct err *e)
{
    struct gguf_string s;
    if (!gguf_array_string(net->hparams->labels, net->score.label, &s) || s.len == 0)
        return 0;
    char *name = arena_strndup(&net->arena, s.data, s.len);
    if (!name)
        return err_set(e, ERR_NOMEM, "out of memory for the name of a label");
    for (char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    net->score.label_name = name;
    return 0;
}

/* Rows of the score head are the labels; reward models have a layer before it (specification, architectures
 * 5.6, 12), and where these have two labels, the second one is the good one. */
static int load_score(struct net *net, struct err *e)
{
    const struct model_tensor *t = model_find(net->model, "cls.output.weight");
    struct score_head *s = &net->score;
    if (t->ne[1] != 1 && t->ne[1] != 2)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: tensor 'cls.output.weight' has %llu rows; a score (1) or two labels are supported",
            model_path(net->model), (unsigned long long)t->ne[1]);
    s->n_labels = (uint32_t)t->ne[1];
    int rc = net_tensor(net, "cls.output.weight", net->n_embd, s->n_labels, 1, true, &s->output.tensor, e);
    if (rc == 0)
        rc = net_vector(net, "cls.output.bias", s->n_labels, false, &s->output.bias, e);
    if (rc == 0)
        rc = net_tensor(net, "cls.weight", net->n_embd, net->n_embd, 1, false, &s->hidden.tensor, e);
    if (rc == 0 && s->hidden.tensor)
        rc = net_vector(net, "cls.bias", net->n_embd, false, &s->hidden.bias, e);
    s->output.n_rows = s->n_labels;
    s->hidden.n_rows = net->n_embd;
    s->label = s->hidden.tensor ? s->n_labels - 1 : 0;
    return rc == 0 ? load_label_name(net, e) : rc;
}

static int load_answer(struct net *net, struct err *e)
{
    const struct hparams *h = net->hparams;
    uint64_t pooling = hparam_or(&h->pooling, 0, NET_POOLING_NONE);
    if (pooling > NET_POOLING_RANK)
        return err_set(e, ERR_UNSUPPORTED, "%s: key '%s.%s': expected 0 to 4, found %llu",
                       model_path(net->model), h->arch_name, h->pooling.key.suffix,
                       (unsigned long long)pooling);
    net->pooling = (enum net_pooling)pooling;
    if (model_find(net->model, "cls.output.weight"))
        net->answer = NET_SCORE;
    else if (pooling == NET_POOLING_RANK)
        return err_set(e, ERR_FORMAT,
                       "%s: key '%s.pooling_type' says that texts are ranked, but there is no "
                       "tensor 'cls.output.weight'",
                       model_path(net->model), h->arch_name);
    else if (pooling != NET_POOLING_NONE)
        net->answer = NET_EMBEDDING;
    if (net->answer != NET_TOKENS)
        net->head = (struct matrix){0};
    return net->answer == NET_SCORE ? load_score(net, e) : 0;
}

int net_need_tokens(const struct net *net, const char *what, struct err *e)
{
    if (net->answer == NET_TOKENS)
        return 0;
    return err_set(
        e, ERR_UNSUPPORTED,
        "%s: %s needs predictions of the next token, but this model has no language head: it gives %s; "
        "'kerf compare' measures what that loses",
        model_path(net->model), what,
        net->answer == NET_SCORE ? "each text a score (cls.output.weight)"
                                 : "each text an embedding (pooling_type)");
}

/* Layers with a window may have a base of their own, and then no scaling. */
static int load_local_rope(struct net *net, uint32_t head_dim, struct err *e)
{
    double theta = hparam_real_or(&net->hparams->rope_local_theta, net->hparams->arch->runtime.local_theta);
    struct hparams local = *net->hparams;
    if (theta == 0)
        return 0;
    local.rope_theta =
        (struct hparam_real){.key = {local.rope_local_theta.key.suffix, HPARAM_ONE}, .value = theta};
    local.rope_scaling.key.state = HPARAM_ABSENT;
    local.rope_attn_scale.key.state = HPARAM_ABSENT;
    int rc = rope_init(&net->local_rope, &local, head_dim, NULL, e);
    net->local_rope.neighbours = net->rope.neighbours;
    return rc;
}

/* The tensors by which rotary frequencies are divided, as many of them as there are. */
static int load_divisors(struct net *net, struct rope_divisors *d, struct err *e)
{
    const char *names[] = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"};
    const float **to[] = {&d->usual, &d->usual, &d->in_long};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        const struct model_tensor *t = model_find(net->model, names[i]);
        if (!t || *to[i])
            continue;
        if (d->n != 0 && t->ne[0] != d->n)
            return err_set(e, ERR_FORMAT, "%s: tensor '%s': expected %zu values, as many as in the other one",
                           model_path(net->model), names[i], d->n);
        d->n = (size_t)t->ne[0];
        rc = net_vector(net, names[i], t->ne[0], true, to[i], e);
    }
    return rc;
}

static int load_rope(struct net *net, struct err *e)
{
    const struct hparams *h = net->hparams;
    uint64_t head_dim = hparams_heads(h, 0).key_dim;
    if (head_dim == 0 || head_dim > MAX_HEAD_DIM)
        return err_set(e, ERR_FORMAT, "%s: key '%s.attention.head_count' is missing", model_path(net->model),
                       h->arch_name);
    struct rope_divisors divisors = {0};
    int rc = load_divisors(net, &divisors, e);
    if (rc == 0)
        rc = rope_init(&net->rope, h, (uint32_t)head_dim, &divisors, e);
    net->rope.neighbours = h->arch->runtime.neighbours;
    return rc == 0 ? load_local_rope(net, (uint32_t)head_dim, e) : rc;
}

/* A sum over other layers, or texts of another vocabulary, would give figures that look like any other. */
static int refuse_faults(const struct model *m, struct err *e)
{
    struct arena arena = {0};
    struct string_list faults = {0};
    int rc = model_check(m, &faults, &arena, e);
    if (rc == 0 && faults.n == 1)
        rc = err_set(e, ERR_FORMAT, "%s: %s", model_path(m), faults.items[0]);
    else if (rc == 0 && faults.n)
        rc = err_set(e, ERR_FORMAT, "%s: %s (and %zu more; 'kerf verify' lists them)", model_path(m),
                     faults.items[0], faults.n - 1);
    arena_release(&arena);
    return rc;
}

int net_init(struct net *out, const struct model *m, struct err *e)
{
    struct net net = {.model = m, .hparams = model_hparams(m)};
    if (!net.hparams->arch)
        return refuse_family(m, e);
    if (net.hparams->arch->runtime.not_run)
        return err_set(e, ERR_UNSUPPORTED, "%s: no text can be run through architecture '%s': %s",
                       model_path(m), model_arch_name(m), net.hparams->arch->runtime.not_run);
    int rc = refuse_faults(m, e);
    if (rc == 0)
        rc = load_numbers(&net, e);
    if (rc == 0)
        rc = load_ends(&net, e);
    if (rc == 0)
        rc = load_answer(&net, e);
    if (rc == 0)
        rc = load_rope(&net, e);
    if (rc == 0 && !(net.layers = arena_array(&net.arena, net.n_layers, sizeof *net.layers)))
        rc = err_set(e, ERR_NOMEM, "out of memory for %u layers", net.n_layers);
    for (uint32_t i = 0; rc == 0 && i < net.n_layers; i++)
        rc = net_build_layer(&net, i, &net.layers[i], e);
    if (rc != 0) {
        net_release(&net);
        return rc;
    }
    *out = net;
    return 0;
}

void net_release(struct net *net)
{
    if (!net)
        return;
    rope_release(&net->rope);
    rope_release(&net->local_rope);
    arena_release(&net->arena);
    *net = (struct net){0};
}

const struct model_tensor *net_layer_find(const struct net_layer *l, const char *name)
{
    for (size_t i = 0; i < l->n_matrices; i++)
        if (strcmp(l->matrices[i]->name, name) == 0)
            return l->matrices[i];
    return NULL;
}
