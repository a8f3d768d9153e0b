/* test_feedback.c - factors against their definition, shrinkage worked by hand, packed blocks against the
 * decoders; the loss under H of what the solver writes: below the plain encoder's for every type, recomputed
 * from the bytes; on a problem that can be solved by trying everything (single codes, entries of a book with
 * their signs), the best; the same bytes for any number of threads and on every instruction set. */
#include "calib/feedback/feedback.h"
#include "calib/stats/gram_sums.h"
#include "libquant/base/pool.h"
#include "libquant/base/rng.h"
#include "libquant/half.h"
#include "libquant/iquants.h"
#include "libquant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const enum qtype types[] = {QTYPE_Q2_K,   QTYPE_Q3_K,   QTYPE_Q4_K,    QTYPE_Q5_K,
                                   QTYPE_Q6_K,   QTYPE_Q4_0,   QTYPE_Q4_1,    QTYPE_Q5_0,
                                   QTYPE_Q5_1,   QTYPE_IQ4_NL, QTYPE_IQ4_XS,  QTYPE_IQ2_XXS,
                                   QTYPE_IQ2_XS, QTYPE_IQ2_S,  QTYPE_IQ3_XXS, QTYPE_IQ3_S};
#define N_TYPES (sizeof types / sizeof *types)

/* Sums of x x^T for correlated x, with many rows. */
static double *correlated_sums(size_t n, uint64_t seed, struct gram_figures *f)
{
    struct rng r = {seed};
    size_t n_rows = 4 * n;
    double *sums = calloc(n * n, sizeof *sums), *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n_rows; i++) {
        double common = rng_normal(&r), slow = 0;
        for (size_t k = 0; k < n; k++) {
            slow = 0.8 * slow + rng_normal(&r);
            x[k] = (slow + common) * (k % 7 == 0 ? 4 : 1);
        }
        for (size_t a = 0; a < n; a++)
            for (size_t b = 0; b < n; b++)
                sums[a * n + b] += x[a] * x[b];
    }
    *f = (struct gram_figures){(double)n_rows, 1e6, 0}; /* no spread between chunks: the least shrinkage */
    free(x);
    return sums;
}

static void make(struct feedback_hessian *h, size_t n, uint64_t seed)
{
    struct gram_figures f;
    struct err e = {0};
    double *sums = correlated_sums(n, seed, &f);
    if (feedback_hessian_make(h, sums, n, &f, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    free(sums);
}

/* U^T U = H^-1 and D = 1 / U_jj^2: so H (U^T U) = 1, and with F_kj = U_jk / U_jj, U_jk = F_kj / sqrt(D_j). */
static void check_factor(const float *h, size_t ld, size_t n, const float *factor, const float *pivots)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t k = 0; k < n; k++) {
                double inverse = 0; /* (k, j) of U^T U */
                for (size_t m = 0; m <= k && m <= j; m++)
                    inverse += (double)factor[k * n + m] * (double)factor[j * n + m] / (double)pivots[m];
                sum += (double)h[i * ld + k] * inverse;
            }
            worst = fmax(worst, fabs(sum - (i == j)));
        }
    assert_true(worst < 2e-4);
}

static void factors_are_those_of_the_matrix(void **state)
{
    (void)state;
    struct feedback_hessian h;
    make(&h, 96, 1);
    check_factor(h.matrix, 96, 96, h.factor, h.pivots);
    for (size_t at = 0; at < 96; at += 16)
        check_factor(h.matrix + at * 96 + at, 96, 16, h.groups16.factor + at * 16, h.groups16.pivots + at);
    for (size_t at = 0; at < 96; at += 32)
        check_factor(h.matrix + at * 96 + at, 96, 32, h.groups32.factor + at * 32, h.groups32.pivots + at);
    double trace = 0;
    for (size_t i = 0; i < 96; i++)
        trace += (double)h.diagonal[i];
    assert_true(fabs(trace / 96 - 1.01) < 1e-5);
    assert_true(h.gain > 0 && h.gain < 0.6);
    feedback_hessian_release(&h);
}

static void shrinkage_follows_the_spread_of_the_chunks(void **state)
{
    (void)state;
    /* Two chunks with off-diagonal products 3 and 1: sum 4, mean square of both sides counted twice. */
    double sums[4] = {10, 4, 4, 10};
    struct gram_figures f = {2, 2, 2 * (9 + 1)};
    /* spread = 20 - 32/2 = 4; lambda^ = 4 * 2 / 1 / 32 = 0.25; times 3 */
    assert_true(fabs(feedback_lambda(sums, 2, &f) - 0.75) < 1e-12);
    f.squares = 2 * (4 + 4); /* equal chunks */
    assert_true(fabs(feedback_lambda(sums, 2, &f) - 0.1) < 1e-12);
    f.squares = 1000;
    assert_true(fabs(feedback_lambda(sums, 2, &f) - 0.9) < 1e-12);
    f.n_chunks = 1;
    assert_true(fabs(feedback_lambda(sums, 2, &f) - 0.9) < 1e-12);
}

static void an_expert_without_tokens_takes_the_layers_matrix(void **state)
{
    (void)state;
    size_t n = 32;
    struct gram_figures f, none = {0};
    struct err e = {0};
    struct feedback_hessian h, all;
    double *pool = correlated_sums(n, 3, &f), *own = calloc(n * n, sizeof *own),
           *copy = malloc(n * n * sizeof *copy);
    memcpy(copy, pool, n * n * sizeof *copy);
    assert_int_equal(feedback_hessian_make(&h, own, n, &none, pool, &e), 0);
    assert_int_equal(feedback_hessian_make(&all, copy, n, &f, NULL, &e), 0);
    for (size_t i = 0; i < n * n; i++)
        assert_true(fabsf(h.matrix[i] - all.matrix[i]) < 1e-5f);
    feedback_hessian_release(&h);
    feedback_hessian_release(&all);
    memset(own, 0, n * n * sizeof *own);
    assert_int_equal(feedback_hessian_make(&h, own, n, &none, NULL, &e), ERR_ARG);
    for (size_t i = 0; i < n * n; i++) /* no sum of squares has this */
        own[i] = i % (n + 1) == 0 ? 1 : 1e6;
    assert_int_equal(feedback_hessian_make(&h, own, n, &none, NULL, &e), ERR_FORMAT);
    free(pool), free(own), free(copy);
}

/* Entries of the book with random signs, an even number where the type wants it. */
static void random_entries(const struct feedback_format *f, struct feedback_block *b, struct rng *r)
{
    const struct codebook *book = codebook_get(f->book);
    unsigned n = (unsigned)book->tuple, n_negative = 0;
    for (unsigned i = 0; i < f->block; i++) {
        unsigned entry = i % n == 0 ? (unsigned)(rng_u64(r) % (uint64_t)book->n_entries) : 0;
        for (unsigned k = 0; k < n && i % n == 0; k++)
            b->code[i + k] = (int)f->levels[f->n_levels / 2 + codebook_code(book, entry, (int)k)];
    }
    for (unsigned i = 0; i < f->block; i++) {
        bool last = f->even_signs && i % 8 == 7;
        n_negative = i % 8 == 0 ? 0 : n_negative;
        if (last ? n_negative % 2 == 1 : rng_u64(r) % 2 == 1) {
            b->code[i] = -b->code[i];
            n_negative++;
        }
    }
}

static void packed_blocks_decode_to_their_form(void **state)
{
    (void)state;
    struct rng r = {5};
    for (size_t t = 0; t < N_TYPES; t++) {
        const struct feedback_format *f = feedback_format(types[t]);
        assert_non_null(f);
        assert_int_equal(f->block, f->sub * f->n_sub);
        assert_int_equal(f->block, qtype_info((uint32_t)types[t])->block_elems);
        for (int round = 0; round < 20; round++) {
            struct feedback_block b = {.d = f16_round((float)rng_normal(&r)) * f->unit,
                                       .dmin = f16_round((float)rng_normal(&r))};
            uint8_t bytes[256];
            float got[256];
            for (unsigned s = 0; s < f->n_sub && f->has_scales; s++) {
                int n_scales = (f->scale_max - f->scale_min) / f->scale_step + 1;
                b.scale[s] = f->scale_min + f->scale_step * (int)(rng_u64(&r) % (uint64_t)n_scales);
                b.min[s] = (int)(rng_u64(&r) % (uint64_t)(f->min_max + 1));
            }
            for (unsigned i = 0; i < f->block; i++)
                b.code[i] =
                    f->levels ? (int)f->levels[rng_u64(&r) % f->n_levels]
                              : f->code_min + (int)(rng_u64(&r) % (uint64_t)(f->code_max - f->code_min + 1));
            if (f->has_book)
                random_entries(f, &b, &r);
            feedback_pack(f, &b, bytes);
            assert_int_equal(quant_decode_rows(kern_native(), types[t], bytes,
                                               qtype_info((uint32_t)types[t])->block_bytes, got, 1, f->block,
                                               NULL),
                             0);
            for (unsigned i = 0; i < f->block; i++) {
                float step = f->has_scales ? b.d * (float)b.scale[i / f->sub] : b.d;
                float offset = !f->has_min ? 0 : f->has_scales ? b.dmin * (float)b.min[i / f->sub] : b.dmin;
                assert_true(got[i] == step * (float)b.code[i] - offset);
            }
        }
    }
    assert_null(feedback_format(QTYPE_Q8_0));
}

struct matrix_rows {
    const float *w;
    size_t n_cols;
};

static int read_rows(void *ctx, uint64_t row0, uint64_t n, float *rows, struct err *e)
{
    (void)e;
    const struct matrix_rows *m = ctx;
    memcpy(rows, m->w + row0 * m->n_cols, n * m->n_cols * sizeof *rows);
    return 0;
}

static float *random_weights(size_t n, uint64_t seed)
{
    struct rng r = {seed};
    float *w = malloc(n * sizeof *w);
    for (size_t i = 0; i < n; i++)
        w[i] = (float)(0.02 * rng_normal(&r) * (i % 97 == 0 ? 4 : 1));
    return w;
}

/* tr(E H E^T) from bytes, in double. */
static double loss_of(const struct feedback_hessian *h, enum qtype type, const uint8_t *blocks,
                      const float *w, size_t n_rows)
{
    size_t n = h->n_cols;
    uint64_t row_bytes;
    double loss = 0;
    float *v = malloc(n_rows * n * sizeof *v);
    qtype_row_bytes((uint32_t)type, n, &row_bytes);
    assert_int_equal(quant_decode_rows(kern_native(), type, blocks, n_rows * row_bytes, v, n_rows, n, NULL),
                     0);
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                loss += (double)(w[r * n + i] - v[r * n + i]) * (double)h->matrix[i * n + j] *
                        (double)(w[r * n + j] - v[r * n + j]);
    free(v);
    return loss;
}

struct solved {
    uint8_t *plain, *blocks;
    size_t n_bytes;
    struct feedback_loss loss;
};

static struct solved solve(const struct feedback_hessian *h, enum qtype type, const float *w, size_t n_rows,
                           struct feedback_stages stages, unsigned threads, const struct kern *kern)
{
    struct matrix_rows rows = {w, h->n_cols};
    struct solved s = {0};
    struct pool *pool = NULL;
    struct err e = {0};
    uint64_t row_bytes;
    assert_true(qtype_row_bytes((uint32_t)type, h->n_cols, &row_bytes));
    s.n_bytes = (size_t)(n_rows * row_bytes);
    s.plain = malloc(s.n_bytes);
    s.blocks = malloc(s.n_bytes);
    assert_int_equal(quant_encode_rows(kern, type, w, s.plain, s.n_bytes, n_rows, h->n_cols, h->diagonal, &e),
                     0);
    assert_int_equal(pool_new(&pool, threads, &e), 0);
    struct feedback_job job = {.h = h,
                               .type = type,
                               .n_rows = n_rows,
                               .read = read_rows,
                               .read_ctx = &rows,
                               .plain = s.plain,
                               .stages = stages,
                               .kern = kern,
                               .pool = pool};
    if (feedback_encode(&job, s.blocks, &s.loss, &e) != 0)
        fail_msg("%s", e.msg);
    pool_free(pool);
    return s;
}

static void solved_release(struct solved *s)
{
    free(s->plain);
    free(s->blocks);
}

static const struct feedback_stages all_stages = {true, FEEDBACK_SWEEPS};

static void the_loss_falls_for_every_type(void **state)
{
    (void)state;
    size_t n_cols = 512, n_rows = 70;
    struct feedback_hessian h;
    make(&h, n_cols, 7);
    float *w = random_weights(n_rows * n_cols, 8);
    for (size_t t = 0; t < N_TYPES; t++) {
        n_rows = feedback_format(types[t])->has_book ? 32 : 70; /* these take longer */
        struct solved only =
            solve(&h, types[t], w, n_rows, (struct feedback_stages){true, 0}, 2, kern_native());
        struct solved s = solve(&h, types[t], w, n_rows, all_stages, 2, kern_native());
        double plain = loss_of(&h, types[t], s.plain, w, n_rows),
               got = loss_of(&h, types[t], s.blocks, w, n_rows);
        print_message("%-6s feedback %.3f, refined %.3f of the plain encoder; D/H %.3f\n",
                      qtype_name((uint32_t)types[t]), only.loss.solved / plain, got / plain, h.gain);
        assert_true(fabs(got - s.loss.solved) < 1e-3 * got); /* it says what it wrote */
        assert_true(fabs(plain - s.loss.plain) < 1e-3 * plain);
        assert_int_equal(s.loss.n_rows, n_rows);
        assert_true(only.loss.solved < 0.75 * plain); /* feedback leaves about h.gain of it */
        assert_true(got < 0.97 * only.loss.solved);   /* and refinement takes a part of that */
        size_t bad;
        assert_int_equal(quant_validate(types[t], s.blocks, s.n_bytes, &bad, NULL), 0);
        solved_release(&s);
        solved_release(&only);
    }
    free(w);
    feedback_hessian_release(&h);
}

static void rows_that_are_exact_stay_so(void **state)
{
    (void)state;
    size_t n_cols = 256;
    struct feedback_hessian h;
    make(&h, n_cols, 9);
    float *w = calloc(2 * n_cols, sizeof *w); /* a row of zeros, one of a grid that Q4_0 holds exactly */
    for (size_t i = 0; i < n_cols; i++)
        w[n_cols + i] = 0.5f * (float)((int)(i % 16) - 8);
    struct solved s = solve(&h, QTYPE_Q4_0, w, 2, all_stages, 1, kern_native());
    assert_true(loss_of(&h, QTYPE_Q4_0, s.blocks, w, 2) == 0);
    solved_release(&s);
    free(w);
    feedback_hessian_release(&h);
}

static void threads_and_levels_change_no_byte(void **state)
{
    (void)state;
    size_t n_cols = 256, n_rows = 130;
    struct feedback_hessian h;
    make(&h, n_cols, 11);
    float *w = random_weights(n_rows * n_cols, 12);
    for (size_t t = 0; t < N_TYPES; t++) {
        n_rows = feedback_format(types[t])->has_book ? 66 : 130;
        struct solved first = solve(&h, types[t], w, n_rows, all_stages, 1, kern_native());
        for (const char *const *isa = kern_names(); *isa; isa++) {
            struct solved s = solve(&h, types[t], w, n_rows, all_stages, strcmp(*isa, "ref") == 0 ? 7 : 2,
                                    kern_by_name(*isa));
            assert_memory_equal(first.blocks, s.blocks, s.n_bytes);
            solved_release(&s);
        }
        solved_release(&first);
    }
    free(w);
    feedback_hessian_release(&h);
}

/* With H = 1 nothing is handed on, and the best codes for given scales are the nearest: no single code may
 * improve. */
static void no_single_code_improves_the_result(void **state)
{
    (void)state;
    size_t n_cols = 256, n_rows = 3;
    struct feedback_hessian h;
    make(&h, n_cols, 13);
    float *w = random_weights(n_rows * n_cols, 14), v[256];
    struct solved s = solve(&h, QTYPE_Q4_0, w, n_rows, (struct feedback_stages){true, 12}, 1, kern_native());
    for (size_t r = 0; r < n_rows; r++) {
        assert_int_equal(
            quant_decode_rows(kern_native(), QTYPE_Q4_0, s.blocks + r * 144, 144, v, 1, n_cols, NULL), 0);
        for (size_t k = 0; k < n_cols; k++) {
            double g = 0, d = fabs((double)f16_to_f32((uint16_t)(s.blocks[r * 144 + k / 32 * 18] |
                                                                 s.blocks[r * 144 + k / 32 * 18 + 1] << 8)));
            for (size_t j = 0; j < n_cols; j++)
                g += (double)h.matrix[k * n_cols + j] * ((double)w[r * n_cols + j] - (double)v[j]);
            double code = round((double)v[k] / d), hkk = (double)h.matrix[k * n_cols + k];
            for (int step = -1; step <= 1; step += 2) {
                if (fabs(code + step) > 7) /* the end of the range, on either side */
                    continue;
                double gain = 2 * step * d * g - d * d * hkk;
                assert_true(gain < 1e-3 * d * d * hkk + 1e-12);
            }
        }
    }
    solved_release(&s);
    free(w);
    feedback_hessian_release(&h);
}

/* Code of the scale of the group that weight i of a block belongs to. */
static unsigned book_scale(enum qtype type, const void *block, unsigned i)
{
    const struct iq2_xs_block *xs = block;
    const struct iq2_s_block *s = block;
    const struct iq3_s_block *s3 = block;
    switch (type) {
    case QTYPE_IQ2_XXS: return ((const struct iq2_xxs_block *)block)->group[i / 32].aux >> 28;
    case QTYPE_IQ3_XXS: return ((const struct iq3_xxs_block *)block)->aux[i / 32] >> 28;
    case QTYPE_IQ2_XS: return xs->scales[i / 32] >> 4 * (i / 16 % 2) & 15u;
    case QTYPE_IQ2_S: return s->scales[i / 32] >> 4 * (i / 16 % 2) & 15u;
    default: return s3->scales[i / 64] >> 4 * (i / 32 % 2) & 15u;
    }
}

static double book_step(const struct feedback_format *f, const uint8_t *block, unsigned i)
{
    uint16_t d; /* all of them begin with it */
    memcpy(&d, block, sizeof d);
    return (double)f16_to_f32(d) * (double)f->unit * (2 * book_scale(f->type, block, i) + 1);
}

/* The least loss of eight weights with an entry for each tuple and, if need be, an even number of signs. */
static double least_loss(const struct feedback_format *f, const float *w, const float *d, double step)
{
    const struct codebook *book = codebook_get(f->book);
    unsigned n = (unsigned)book->tuple, parts = 8 / n, negative = 0;
    double best[2][2] = {{INFINITY, INFINITY},
                         {INFINITY, INFINITY}}; /* of a part, with a sign turned or not */
    for (unsigned i = 0; i < 8; i++)
        negative += w[i] < 0;
    for (unsigned p = 0; p < parts; p++)
        for (unsigned e = 0; e < (unsigned)book->n_entries; e++) {
            double loss = 0, turn = INFINITY;
            for (unsigned i = p * n; i < (p + 1) * n; i++) {
                double x = fabs((double)w[i]),
                       v = step *
                           (double)f->levels[f->n_levels / 2 + codebook_code(book, e, (int)(i - p * n))];
                loss += (double)d[i] * (x - v) * (x - v);
                turn = fmin(turn, (double)d[i] * ((x + v) * (x + v) - (x - v) * (x - v)));
            }
            best[p][0] = fmin(best[p][0], loss);
            best[p][1] = fmin(best[p][1], loss + turn);
        }
    bool odd = f->even_signs && negative % 2 == 1;
    if (parts == 1)
        return best[0][odd];
    return odd ? fmin(best[0][1] + best[1][0], best[0][0] + best[1][1]) : best[0][0] + best[1][0];
}

/* With a diagonal H nothing is handed on, and a search of all entries and signs finds nothing better than
 * what the solver wrote for its scales. */
static void no_entry_of_a_book_is_better(void **state)
{
    (void)state;
    size_t n = 256;
    struct rng r = {21};
    struct gram_figures figures = {1000, 100, 0};
    struct feedback_hessian h;
    struct err e = {0};
    double *sums = calloc(n * n, sizeof *sums);
    for (size_t i = 0; i < n; i++)
        sums[i * n + i] = 0.1 + fabs(rng_normal(&r));
    assert_int_equal(feedback_hessian_make(&h, sums, n, &figures, NULL, &e), 0);
    float *w = random_weights(n, 22), v[256];
    for (size_t t = 0; t < N_TYPES; t++) {
        const struct feedback_format *f = feedback_format(types[t]);
        if (!f->has_book)
            continue;
        struct solved s = solve(&h, types[t], w, 1, (struct feedback_stages){true, 0}, 1, kern_native());
        assert_int_equal(s.loss.n_kept, 0); /* so the bytes are the solver's */
        assert_int_equal(quant_decode_rows(kern_native(), types[t], s.blocks, s.n_bytes, v, 1, n, NULL), 0);
        for (unsigned at = 0; at < n; at += 8) {
            double got = 0, least = least_loss(f, w + at, h.diagonal + at, book_step(f, s.blocks, at));
            for (unsigned i = at; i < at + 8; i++)
                got += (double)h.diagonal[i] * ((double)w[i] - (double)v[i]) * ((double)w[i] - (double)v[i]);
            assert_true(fabs(got - least) < 1e-5 * least + 1e-12);
        }
        solved_release(&s);
    }
    free(w);
    free(sums);
    feedback_hessian_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_are_those_of_the_matrix),
        cmocka_unit_test(shrinkage_follows_the_spread_of_the_chunks),
        cmocka_unit_test(an_expert_without_tokens_takes_the_layers_matrix),
        cmocka_unit_test(packed_blocks_decode_to_their_form),
        cmocka_unit_test(the_loss_falls_for_every_type),
        cmocka_unit_test(rows_that_are_exact_stay_so),
        cmocka_unit_test(threads_and_levels_change_no_byte),
        cmocka_unit_test(no_single_code_improves_the_result),
        cmocka_unit_test(no_entry_of_a_book_is_better),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
