/* row_sketch.c - see row_sketch.h.
 *
 *     u16     edge: entries whose level is below it are kept, the others sampled
 *     varint  number of entries
 *     each:   varint  id less the id before, less 1
 *             u16     level: -ln p in steps of 2^-11
 *             u8      eight bits more of it, where p > 2^-10
 *
 * The finer steps are for tokens that a position's divergence may hang on; for the rest half a step is no
 * more than 2.4e-4 in ln p, which enters with its square. */
#include "row_sketch.h"

#include "calib/compute/vecmath.h"
#include "libquant/base/slice.h"

#include <math.h>
#include <string.h>

#define PANEL      256      /* as the sums of head.h run */
#define FINE       524288.0 /* codes in a nat */
#define LEVEL_FINE 14196    /* levels below it have 8 bits more: -ln p < 6.9316 */
#define BUCKET     32       /* levels whose border may be an edge */
#define N_BUCKETS  (65536 / BUCKET)
#define LEAST_EDGE 13600 /* threshold 1 / 765: with it no row has more than the budget */
#define LAST_EDGE  32768 /* nor one below exp(-16), about 1e-7 */
#define FAR_ABOVE  16    /* thresholds */

void row_sum(struct row_sum *out, const float *logits, size_t n)
{
    double sum = 0;
    float max = -INFINITY;
    int32_t top = 0;
    for (size_t at = 0; at < n; at += PANEL) {
        size_t len = n - at < PANEL ? n - at : PANEL, i = 0;
        float largest = vec_max(logits + at, len);
        if (largest > max) {
            while (i + 1 < len && logits[at + i] != largest)
                i++;
            top = (int32_t)(at + i);
            sum *= exp((double)max - (double)largest);
            max = largest;
        }
        sum += vec_sum_exp(logits + at, max, len);
    }
    *out = (struct row_sum){sum == 0 ? -INFINITY : (double)max + log(sum), top};
}

/* -ln p in 1 / FINE, 24 bits; 0 of what is not a number, which the scores then tell. */
static uint32_t code_of(float logit, double lse)
{
    double x = (lse - (double)logit) * FINE;
    return !(x > 0) ? 0 : x >= 16777215 ? 16777215 : (uint32_t)(x + 0.5);
}

/* What a code means once its lower bits may be gone. */
static double surprise_of(uint32_t level, uint32_t low)
{
    return (double)(level << 8 | (level < LEVEL_FINE ? low : 128)) / FINE;
}

/* The largest edge with which at most ROW_SKETCH_ENTRIES are kept and, on average, sampled. */
static uint32_t choose_edge(const float *logits, size_t n, double lse, const float *p)
{
    uint32_t count[N_BUCKETS] = {0}, edge = LEAST_EDGE;
    double mass[N_BUCKETS] = {0}, above = 0, all = 0;
    size_t n_above = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bucket = (code_of(logits[i], lse) >> 8) / BUCKET;
        count[bucket]++;
        mass[bucket] += (double)p[i];
    }
    for (size_t b = 0; b < N_BUCKETS; b++)
        all += mass[b];
    for (uint32_t b = 0; b * BUCKET <= LAST_EDGE; b++) {
        double sampled = (all - above) * exp((double)b * BUCKET * 256 / FINE);
        if (b * BUCKET > LEAST_EDGE && (double)n_above + sampled > ROW_SKETCH_ENTRIES - 1)
            break;
        if (b * BUCKET > edge)
            edge = b * BUCKET;
        n_above += count[b];
        above += mass[b];
    }
    return edge;
}

static size_t put_varint(uint8_t *out, uint32_t v)
{
    size_t n = 0;
    for (; v >= 128; v >>= 7)
        out[n++] = (uint8_t)(v | 128);
    out[n++] = (uint8_t)v;
    return n;
}

static size_t put_entry(uint8_t *out, uint32_t gap, uint32_t code)
{
    size_t n = put_varint(out, gap);
    uint16_t level = (uint16_t)(code >> 8);
    memcpy(out + n, &level, 2);
    n += 2;
    if (level < LEVEL_FINE)
        out[n++] = (uint8_t)code;
    return n;
}

size_t row_sketch_encode(uint8_t *out, const float *logits, size_t n, double lse, double share, float *p)
{
    uint8_t entries[ROW_SKETCH_BYTES];
    vec_exp_sum(p, logits, 1.0f, (float)lse, n);
    uint32_t edge = choose_edge(logits, n, lse, p), n_entries = 0, next = 0;
    double per_token = exp((double)edge * 256 / FINE), at = share;
    size_t n_bytes = 0;
    for (size_t i = 0; i < n && n_entries < ROW_SKETCH_ENTRIES + 1; i++) {
        uint32_t code = code_of(logits[i], lse);
        if (code >> 8 >= edge) {
            at += (double)p[i] * per_token;
            if (at < 1)
                continue;
            at -= 1;
        }
        n_bytes += put_entry(entries + n_bytes, (uint32_t)i - next, code);
        next = (uint32_t)i + 1;
        n_entries++;
    }
    uint16_t stored = (uint16_t)edge;
    memcpy(out, &stored, 2);
    size_t head = 2 + put_varint(out + 2, n_entries);
    memcpy(out + head, entries, n_bytes);
    return head + n_bytes;
}

/* --- reading --- */

/* A varint of at most 32 bits; false beyond `end` or when it is longer. */
static bool get_varint(const uint8_t **at, const uint8_t *end, uint32_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 35 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *out = (uint32_t)v;
            return v <= UINT32_MAX;
        }
    }
    return false;
}

struct entry {
    uint32_t gap, level;
    double surprise; /* -ln p */
};

static bool get_entry(const uint8_t **at, const uint8_t *end, struct entry *out)
{
    uint32_t gap;
    if (!get_varint(at, end, &gap) || end - *at < 2)
        return false;
    uint32_t level = load_u16(*at), low = 0;
    *at += 2;
    if (level < LEVEL_FINE) {
        if (*at == end)
            return false;
        low = *(*at)++;
    }
    *out = (struct entry){gap, level, surprise_of(level, low)};
    return true;
}

int row_sketch_check(const uint8_t *sketch, size_t n_bytes, size_t n, struct err *e)
{
    const uint8_t *at = sketch + 2, *end = sketch + n_bytes;
    uint32_t n_entries = 0;
    uint64_t next = 0;
    struct entry x;
    if (n_bytes < 3 || load_u16(sketch) < LEAST_EDGE || load_u16(sketch) > LAST_EDGE ||
        !get_varint(&at, end, &n_entries) || n_entries > ROW_SKETCH_ENTRIES + 1)
        return err_set(e, ERR_FORMAT, "a distribution is damaged: it does not begin as one");
    for (uint32_t i = 0; i < n_entries; i++, next++) {
        if (!get_entry(&at, end, &x))
            return err_set(e, ERR_FORMAT, "a distribution is damaged: it ends in entry %u of %u", i,
                           n_entries);
        next += x.gap;
        if (next >= n)
            return err_set(e, ERR_FORMAT,
                           "a distribution is damaged: entry %u is beyond the vocabulary of %zu", i, n);
    }
    return at == end
               ? 0
               : err_set(e, ERR_FORMAT, "a distribution is damaged: %zu bytes too many", (size_t)(end - at));
}

/* The part of q in logits [0, n) that is far above the threshold; `least`: the logit from which it is. */
static double mass_far_above(const float *logits, size_t n, float least, double lse)
{
    double sum = 0;
    if (vec_max(logits, n) < least)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (logits[i] >= least)
            sum += exp((double)logits[i] - lse);
    return sum;
}

double row_sketch_divergence(const uint8_t *sketch, size_t n_bytes, const float *logits, size_t n, double lse)
{
    const uint8_t *at = sketch + 2, *end = sketch + n_bytes;
    uint32_t edge = load_u16(sketch), n_entries = 0;
    double threshold = exp(-(double)edge * 256 / FINE), kept = 0, sampled = 0, far = 0;
    float least = (float)(lse + log(FAR_ABOVE * threshold));
    size_t next = 0;
    struct entry x;
    get_varint(&at, end, &n_entries);
    for (uint32_t i = 0; i < n_entries && get_entry(&at, end, &x); i++) {
        size_t id = next + x.gap;
        double ln_q = (double)logits[id] - lse, d = -x.surprise - ln_q;
        bool is_far = logits[id] >= least;
        far += mass_far_above(logits + next, x.gap, least, lse);
        if (x.level < edge)
            kept += exp(-x.surprise) * (d + expm1(-d));
        else
            sampled += is_far ? d - 1 : d + expm1(-d);
        if (x.level >= edge && is_far)
            far += exp(ln_q);
        next = id + 1;
    }
    return kept + threshold * sampled + far + mass_far_above(logits + next, n - next, least, lse);
}
