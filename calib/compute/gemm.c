/* gemm.c - see gemm.h. Packed: for each stretch of depth, strips of `cols` rows of B, each strip step by
 * step.
 *
 * A block of about BLOCK_ROWS rows and one stretch of depth fills the second-level cache (1 MiB) and stays
 * there while all of A passes by; `rows` rows of A lie in the first-level cache while they meet the strips of
 * the block. */
#include "gemm.h"

#include <string.h>

enum { BLOCK_ROWS = 512 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t padded_rows(const struct kern_product *kern, size_t n_rows)
{
    return (n_rows + kern->cols - 1) / kern->cols * kern->cols;
}

size_t gemm_floats(const struct kern_product *kern, size_t n_rows, size_t depth)
{
    return padded_rows(kern, n_rows) * depth;
}

size_t gemm_rows_at_once(const struct kern_product *kern)
{
    return kern->cols;
}

/* The strip of rows from `row` on, in the stretch of `n` steps from `p` on. */
static float *strip(const struct gemm_matrix *b, size_t row, size_t p, size_t n)
{
    return b->data + padded_rows(b->kern, b->n_rows) * p + row * n;
}

void gemm_pack_rows(const struct gemm_matrix *b, size_t row0, size_t n_rows, const float *rows, size_t ld)
{
    for (size_t p = 0; p < b->depth; p += KERN_TILE_DEPTH) {
        size_t n = smaller(b->depth - p, KERN_TILE_DEPTH);
        for (size_t r = 0; r < n_rows; r += b->kern->cols)
            b->kern->pack(strip(b, row0 + r, p, n), rows + r * ld + p, ld, smaller(n_rows - r, b->kern->cols),
                          n);
    }
}

void gemm_pack_columns(const struct gemm_matrix *b, const float *columns, size_t ld)
{
    size_t cols = b->kern->cols;
    for (size_t p = 0; p < b->depth; p += KERN_TILE_DEPTH) {
        size_t n = smaller(b->depth - p, KERN_TILE_DEPTH);
        for (size_t r = 0; r < b->n_rows; r += cols) {
            float *to = strip(b, r, p, n);
            size_t here = smaller(b->n_rows - r, cols);
            for (size_t i = 0; i < n; i++, to += cols) {
                memcpy(to, columns + (p + i) * ld + r, here * sizeof *to);
                memset(to + here, 0, (cols - here) * sizeof *to);
            }
        }
    }
}

/* Rows of A on their way into the cache while those before them are multiplied. */
struct ahead {
    const float *rows;
    size_t lda, n_rows, n; /* values of each row */
    size_t done;           /* cache lines */
};

static void fetch(struct ahead *next, size_t n_lines)
{
    size_t per_row = (next->n + 15) / 16, all = per_row * next->n_rows;
    for (size_t end = smaller(next->done + n_lines, all); next->done < end; next->done++)
        __builtin_prefetch(next->rows + next->done / per_row * next->lda + next->done % per_row * 16);
}

#if defined(__SANITIZE_ADDRESS__)
#define WATCHED 1
#elif defined(__has_feature)
#define WATCHED __has_feature(address_sanitizer) /* how clang says it */
#else
#define WATCHED 0
#endif

/* The tiles are not compiled with AddressSanitizer; here it sees the far corners of what one touches. */
static void look_at_corners(const struct gemm_matrix *b, size_t n_rows, const float *a, const float *strip,
                            size_t n, const float *c, size_t ldc)
{
#if WATCHED
    const volatile float *corners[] = {a,     a + (n_rows - 1) * KERN_TILE_STRIDE + n - 1,
                                       strip, strip + n * b->kern->cols - 1,
                                       c,     c + (n_rows - 1) * ldc + b->kern->cols - 1};
    for (size_t i = 0; i < sizeof corners / sizeof *corners; i++)
        (void)*corners[i];
#else
    (void)b, (void)n_rows, (void)a, (void)strip, (void)n, (void)c, (void)ldc;
#endif
}

/* A tile over one stretch of depth, chain by chain. */
static void tile(const struct kern_product *kern, size_t n_rows, size_t n, const float *a,
                 const float *packed, float *c, size_t ldc, bool add)
{
    for (size_t p = 0; p < n; p += GEMM_CHAIN)
        kern->tile(n_rows, smaller(n - p, GEMM_CHAIN), a + p, packed + p * kern->cols, c, ldc, add || p > 0);
}

/* `n_rows` rows of A against rows [first, end) of B, in one stretch of depth. */
static void tile_row(size_t n_rows, const float *a, const struct gemm_matrix *b, size_t first, size_t end,
                     size_t p, size_t n, float *c, size_t ldc, bool add, struct ahead *next)
{
    const struct kern_product *kern = b->kern;
    size_t lines = next->n_rows * ((next->n + 15) / 16) * kern->cols / (end - first) + 1;
    for (size_t r = first; r < end; r += kern->cols) {
        fetch(next, lines);
        const float *packed = strip(b, r, p, n);
        if (end - r >= kern->cols) {
            look_at_corners(b, n_rows, a, packed, n, c + r, ldc);
            tile(kern, n_rows, n, a, packed, c + r, ldc, add);
            continue;
        }
        /* The last strip is padded, c is not. */
        float edge[KERN_MAX_TILE_ROWS * KERN_MAX_TILE_COLS] = {0};
        for (size_t i = 0; add && i < n_rows; i++)
            memcpy(edge + i * kern->cols, c + i * ldc + r, (end - r) * sizeof *c);
        tile(kern, n_rows, n, a, packed, edge, kern->cols, add);
        for (size_t i = 0; i < n_rows; i++)
            memcpy(c + i * ldc + r, edge + i * kern->cols, (end - r) * sizeof *c);
    }
}

void gemm(size_t m, const float *a, size_t lda, const struct gemm_matrix *b, float *c, size_t ldc, bool add)
{
    _Alignas(64) float panel[KERN_MAX_TILE_ROWS * KERN_TILE_STRIDE];
    size_t rows = b->kern->rows, block = BLOCK_ROWS / b->kern->cols * b->kern->cols; /* whole strips */
    for (size_t first = 0; first < b->n_rows; first += block) {
        size_t end = first + smaller(b->n_rows - first, block);
        for (size_t p = 0; p < b->depth; p += KERN_TILE_DEPTH) {
            size_t n = smaller(b->depth - p, KERN_TILE_DEPTH);
            for (size_t i = 0; i < m; i += rows) {
                size_t n_rows = smaller(m - i, rows), left = m - i - n_rows;
                struct ahead next = {a + (i + n_rows) * lda + p, lda, smaller(left, rows), n, 0};
                for (size_t r = 0; r < n_rows; r++)
                    memcpy(panel + r * KERN_TILE_STRIDE, a + (i + r) * lda + p, n * sizeof *a);
                tile_row(n_rows, panel, b, first, end, p, n, c + i * ldc, ldc, add || p > 0, &next);
            }
        }
    }
}
