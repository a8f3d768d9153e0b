/* model_identity_word.c - the word of model_identity.h. Digests of tensors are added, so that their order
 * does not matter: a checkpoint, its conversion and a quantized file have three different ones. */
#include "model_identity.h"

#include "libquant/base/sha256.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_norm(const struct model_tensor *t)
{
    const char *end = strstr(t->name, "norm.weight");
    return end && strcmp(end, "norm.weight") == 0 && t->n_rows == 1;
}

/* Of its name, shape, and the first, middle and last row. `row` has room for ne[0] values. */
static int add_digest(uint64_t *sum, const struct model *m, const struct model_tensor *t, float *row,
                      struct err *e)
{
    const uint64_t shape[2] = {t->ne[0], t->n_rows}, at[3] = {0, t->n_rows / 2, t->n_rows - 1};
    struct sha256 h;
    uint8_t digest[32];
    uint64_t word;
    sha256_init(&h);
    sha256_update(&h, t->name, strlen(t->name) + 1);
    sha256_update(&h, shape, sizeof shape);
    for (size_t i = 0; i < 3; i++) {
        int rc = model_read_rows(m, t, at[i], 1, row, e);
        if (rc)
            return rc;
        sha256_update(&h, row, (size_t)t->ne[0] * sizeof *row);
    }
    sha256_final(&h, digest);
    memcpy(&word, digest, sizeof word);
    *sum += word;
    return 0;
}

int model_identity(char out[MODEL_IDENTITY_BYTES], const struct model *m, struct err *e)
{
    uint64_t widest = 1, norms = 0, rows = 0;
    enum qtype type = QTYPE_F32;
    bool quantized = false;
    out[0] = 0;
    if (!model_has_weights(m))
        return 0;
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        widest = t->ne[0] > widest ? t->ne[0] : widest;
        quantized |= qtype_info((uint32_t)t->type)->is_quantized || t->has_blocks;
        if (t->n_dims >= 2 && !t->always_f32 && t->type != QTYPE_F32)
            type = t->type;
    }
    float *row = widest < SIZE_MAX / sizeof *row ? malloc((size_t)widest * sizeof *row) : NULL;
    int rc = row ? 0 : err_set(e, ERR_NOMEM, "out of memory for a row of %" PRIu64 " values", widest);
    for (size_t i = 0; rc == 0 && i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        if (is_norm(t))
            rc = add_digest(&norms, m, t, row, e);
        else if (!quantized && t->n_dims >= 2 && t->n_rows > 0)
            rc = add_digest(&rows, m, t, row, e);
    }
    free(row);
    if (rc)
        return rc;
    int n = snprintf(out, MODEL_IDENTITY_BYTES, "norms %016" PRIx64 ", ", norms);
    if (quantized)
        snprintf(out + n, MODEL_IDENTITY_BYTES - (size_t)n, "quantized");
    else
        snprintf(out + n, MODEL_IDENTITY_BYTES - (size_t)n, "%s %016" PRIx64, qtype_name((uint32_t)type),
                 rows);
    return 0;
}

static bool split(const char *text, char norms[20], char type[16], char rows[20])
{
    rows[0] = 0;
    return sscanf(text, "norms %16[0-9a-f], %15s %16[0-9a-f]", norms, type, rows) >= 2;
}

bool model_identity_differs(const char *a, const char *b)
{
    char norms[2][20], type[2][16], rows[2][20];
    if (!split(a, norms[0], type[0], rows[0]) || !split(b, norms[1], type[1], rows[1]))
        return false;
    if (strcmp(norms[0], norms[1]) != 0)
        return true;
    return rows[0][0] && rows[1][0] && strcmp(type[0], type[1]) == 0 && strcmp(rows[0], rows[1]) != 0;
}
