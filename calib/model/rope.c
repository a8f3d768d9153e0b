/* rope.c - see rope.h. */
#include "rope.h"

#include "calib/compute/vecmath.h"
#include "formats/model/hparams.h"
#include "libquant/base/checked.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

/* inv_freq of the whole vector without scaling: 1 / theta^(2i/n), in F32 as the reference computes it. */
static void plain_frequencies(float *f, uint32_t n_rot, double theta)
{
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        float exponent = (float)(2 * i) / (float)n_rot;
        f[i] = 1.0f / (float)pow((double)(float)theta, (double)exponent);
    }
}

/* Where a frequency turns `turns` times within the original context, as a (fractional) index. */
static double yarn_index(double n_rot, double context, double turns, double theta)
{
    return n_rot * log(context / (turns * 2 * PI)) / (2 * log(theta));
}

static int scale_yarn(struct rope *r, const struct hparams *h, double theta, struct err *e)
{
    double factor = hparam_real_or(&h->rope_factor, 0), context = hparam_real_or(&h->rope_context, 0);
    double fast = hparam_real_or(&h->rope_beta_fast, 32), slow = hparam_real_or(&h->rope_beta_slow, 1);
    if (!(factor > 0) || !(context > 0) || !(fast > 0) || !(slow > 0) || !(theta > 1))
        return err_set(e, ERR_FORMAT,
                       "%s.rope.scaling: yarn needs a positive factor (found %g) and original_context_length "
                       "(found %g)",
                       h->arch_name, factor, context);
    double low = yarn_index(r->n_rot, context, fast, theta);
    double high = yarn_index(r->n_rot, context, slow, theta);
    if (h->yarn_truncate.key.state != HPARAM_ONE || h->yarn_truncate.value) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < r->n_rot - 1 ? high : r->n_rot - 1;
    if (low == high)
        high += 0.001;
    for (uint32_t i = 0; i < r->n_rot / 2; i++) {
        double ramp = (i - low) / (high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float keep = 1.0f - (float)ramp, f = r->inv_freq[i];
        r->inv_freq[i] = f / (float)factor * (1.0f - keep) + f * keep;
    }
    double inferred = factor > 1 ? 1 + 0.1 * log(factor) : 1;
    /* The first key is what llama.cpp multiplies by; the second, which it ignores, is the product. */
    double stated = hparam_real_or(&h->rope_attn_scale, 0);
    /* With a multiplier for the scale of scores cosine and sine keep theirs. */
    if (hparam_real_or(&h->rope_log_multiplier, 0) != 0)
        inferred = 1;
    r->magnitude = (float)(stated > 0 ? inferred * stated : hparam_real_or(&h->rope_attn_factor, inferred));
    return 0;
}

static int scale(struct rope *r, const struct hparams *h, double theta, struct err *e)
{
    struct gguf_string type = h->rope_scaling.value;
    r->magnitude = (float)hparam_real_or(&h->rope_attn_scale, 1);
    if (h->rope_scaling.key.state != HPARAM_ONE || gguf_string_is(type, "none"))
        return 0;
    if (gguf_string_is(type, "yarn"))
        return scale_yarn(r, h, theta, e);
    if (!gguf_string_is(type, "linear"))
        return err_set(
            e, ERR_UNSUPPORTED, "%s.%s: '%.*s' is not supported by the forward pass (none, linear, yarn)",
            h->arch_name, h->rope_scaling.key.suffix, (int)(type.len > 40 ? 40 : type.len), type.data);
    double factor = hparam_real_or(&h->rope_factor, 1);
    if (!(factor > 0))
        return err_set(e, ERR_FORMAT, "%s.rope.scaling.factor: expected a positive number, found %g",
                       h->arch_name, factor);
    for (uint32_t i = 0; i < r->n_rot / 2; i++)
        r->inv_freq[i] /= (float)factor;
    return 0;
}

/* Qwen 1.0: what its files say of texts longer than those of its training. */
static int read_long_texts(struct rope *r, const struct hparams *h, struct err *e)
{
    const struct hparam_count *length = &h->train_length;
    r->dynamic_ntk = h->dynamic_ntk.value;
    r->logn = h->logn_attention.value;
    r->train_length = length->value;
    if (hparam_is_there(&length->key) &&
        (length->key.state != HPARAM_ONE || length->value < 2 || length->value > UINT32_MAX))
        return err_set(e, ERR_FORMAT, "%s.%s: expected a number of tokens, 2 at least", h->arch_name,
                       length->key.suffix);
    if (r->train_length != 0 && r->dynamic_ntk && r->n_rot <= 2)
        return err_set(e, ERR_FORMAT, "%s.%s: a larger base needs more than %u rotary entries", h->arch_name,
                       length->key.suffix, r->n_rot);
    return 0;
}

/* inv_freq over the divisors of LongRoPE or Llama 3, of either set. */
static int divide(struct rope *r, const struct hparams *h, const struct rope_divisors *d, struct err *e)
{
    uint32_t n = r->n_rot / 2;
    if (!d || (!d->usual && !d->in_long))
        return 0;
    if (d->n != n)
        return err_set(e, ERR_FORMAT, "tensor '%s': expected %u values, found %zu",
                       d->in_long ? "rope_factors_long.weight" : "rope_freqs.weight", n, d->n);
    double context = hparam_real_or(&h->rope_context, 0);
    if (d->in_long && !(context >= 1 && context < 1e18))
        return err_set(e, ERR_FORMAT,
                       "%s.%s: tensor 'rope_factors_long.weight' needs the number of tokens beyond which it "
                       "counts (found %g)",
                       h->arch_name, h->rope_context.key.suffix, context);
    if (d->in_long && !(r->long_inv_freq = malloc(n * sizeof *r->long_inv_freq)))
        return err_set(e, ERR_NOMEM, "out of memory for rotary frequencies");
    r->long_from = d->in_long ? (uint64_t)context : 0;
    for (uint32_t i = 0; d->in_long && i < n; i++)
        r->long_inv_freq[i] = r->inv_freq[i] / d->in_long[i];
    for (uint32_t i = 0; d->usual && i < n; i++)
        r->inv_freq[i] /= d->usual[i];
    return 0;
}

int rope_init(struct rope *out, const struct hparams *h, uint32_t head_dim,
              const struct rope_divisors *divisors, struct err *e)
{
    struct rope r = {.magnitude = 1};
    uint64_t n_rot = hparam_is_there(&h->rope_n_rot.key) ? hparam_or(&h->rope_n_rot, 0, 0) : head_dim;
    double theta = hparam_real_or(&h->rope_theta, 10000);
    if (n_rot < 2 || n_rot > head_dim || n_rot % 2 != 0)
        return err_set(e, ERR_FORMAT, "%s.rope.dimension_count: expected an even number up to %u, found %llu",
                       h->arch_name, head_dim, (unsigned long long)n_rot);
    if (!(theta > 0))
        return err_set(e, ERR_FORMAT, "%s.rope.freq_base: expected a positive number, found %g", h->arch_name,
                       theta);
    r.n_rot = (uint32_t)n_rot;
    r.theta = theta;
    int rc = read_long_texts(&r, h, e);
    if (rc != 0)
        return rc;
    r.inv_freq = malloc(r.n_rot / 2 * sizeof(float));
    if (!r.inv_freq)
        return err_set(e, ERR_NOMEM, "out of memory for rotary frequencies");
    plain_frequencies(r.inv_freq, r.n_rot, theta);
    rc = scale(&r, h, theta, e);
    if (rc == 0)
        rc = divide(&r, h, divisors, e);
    if (rc != 0) {
        rope_release(&r);
        return rc;
    }
    *out = r;
    return 0;
}

void rope_release(struct rope *r)
{
    if (!r)
        return;
    free(r->inv_freq);
    free(r->long_inv_freq);
    *r = (struct rope){0};
}

/* The base of Qwen 1.0's dynamic NTK: theta * alpha^(n/(n-2)), alpha = 2^k - 1 with the smallest k for which
 * train_length * 2^(k-1) covers the text. */
static double ntk_theta(const struct rope *r, size_t n_positions)
{
    double covered = (double)r->train_length, alpha = 1;
    for (; covered < (double)n_positions; covered *= 2)
        alpha = 2 * alpha + 1;
    return r->theta * pow(alpha, (double)r->n_rot / (double)(r->n_rot - 2));
}

uint64_t rope_table_bytes(const struct rope *r, size_t n_positions)
{
    const bool scaled = r->train_length != 0 && n_positions > r->train_length && r->logn;
    return sizeof(float) * (uint64_t)n_positions * (2 * (uint64_t)(r->n_rot / 2) + scaled);
}

int rope_table_init(struct rope_table *out, const struct rope *r, size_t n_positions, struct err *e)
{
    struct rope_table t = {.n_positions = n_positions, .n_pairs = r->n_rot / 2, .neighbours = r->neighbours};
    bool longer = r->train_length != 0 && n_positions > r->train_length;
    float *inv_freq = r->long_inv_freq && n_positions > r->long_from ? r->long_inv_freq : r->inv_freq;
    float *own = NULL;
    uint64_t n = 0;
    if (longer && r->dynamic_ntk && (own = malloc(t.n_pairs * sizeof *own))) {
        plain_frequencies(own, r->n_rot, ntk_theta(r, n_positions));
        inv_freq = own;
    }
    if (longer && r->logn)
        t.query_scale = malloc(n_positions * sizeof *t.query_scale);
    if (checked_mul(n_positions, t.n_pairs, &n) && n < SIZE_MAX / sizeof(float)) {
        t.cosine = malloc((size_t)n * sizeof(float));
        t.sine = malloc((size_t)n * sizeof(float));
    }
    if (!t.cosine || !t.sine || (longer && r->dynamic_ntk && !own) || (longer && r->logn && !t.query_scale)) {
        free(own);
        rope_table_release(&t);
        return err_set(e, ERR_NOMEM, "out of memory for the rotary table of %zu positions", n_positions);
    }
    for (size_t p = 0; t.query_scale && p < n_positions; p++)
        t.query_scale[p] =
            p < r->train_length ? 1.0f : (float)(log((double)(p + 1)) / log((double)r->train_length));
    for (size_t p = 0; p < n_positions; p++)
        for (size_t i = 0; i < t.n_pairs; i++) {
            float angle = (float)p * inv_freq[i];
            t.cosine[p * t.n_pairs + i] = (float)cos((double)angle) * r->magnitude;
            t.sine[p * t.n_pairs + i] = (float)sin((double)angle) * r->magnitude;
        }
    free(own);
    *out = t;
    return 0;
}

void rope_table_release(struct rope_table *t)
{
    if (!t)
        return;
    free(t->cosine);
    free(t->sine);
    free(t->query_scale);
    *t = (struct rope_table){0};
}

void rope_apply(const struct rope_table *t, size_t position, float *head)
{
    const float *c = t->cosine + position * t->n_pairs, *s = t->sine + position * t->n_pairs;
    if (t->neighbours)
        vec_rotate_neighbours(head, c, s, t->n_pairs);
    else
        vec_rotate_halves(head, c, s, t->n_pairs);
}
