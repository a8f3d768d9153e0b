/* quantize_rows.c - quantize rows of weights with libkerf, and say what was lost.
 *
 *     cc quantize_rows.c $(pkg-config --cflags --libs kerf) -lm && ./a.out Q4_K */
#include <kerf/quant.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_ROWS = 4, N_COLS = 512 };

static float weights[N_ROWS * N_COLS], decoded[N_ROWS * N_COLS];

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "Q4_K";
    struct kerf_error e;
    enum kerf_type type;
    uint64_t row_bytes;
    if (!kerf_type_find(&type, name))
        return fprintf(stderr, "%s is no type\n", name), 1;
    if (kerf_row_bytes(&row_bytes, type, N_COLS, &e) != 0)
        return fprintf(stderr, "%s\n", e.message), 1;

    for (int i = 0; i < N_ROWS * N_COLS; i++)
        weights[i] = 0.02f * sinf(0.37f * (float)i);
    size_t n_bytes = N_ROWS * (size_t)row_bytes;
    void *blocks = malloc(n_bytes);
    int rc = blocks ? kerf_quantize_rows(NULL, type, weights, blocks, n_bytes, N_ROWS, N_COLS, NULL, &e) : 1;
    if (blocks && rc == 0)
        rc = kerf_dequantize_rows(NULL, type, blocks, n_bytes, decoded, N_ROWS, N_COLS, &e);
    free(blocks);
    if (rc != 0)
        return fprintf(stderr, "%s\n", rc == 1 ? "out of memory" : e.message), 1;

    double error = 0, signal = 0;
    for (int i = 0; i < N_ROWS * N_COLS; i++) {
        error += pow((double)(weights[i] - decoded[i]), 2);
        signal += pow((double)weights[i], 2);
    }
    printf("kerf %s: %d weights as %s take %zu bytes, relative error %.4f\n", kerf_version(), N_ROWS * N_COLS,
           kerf_type_name(type), n_bytes, sqrt(error / signal));
    return 0;
}
