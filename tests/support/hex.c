/* hex.c - see hex.h. */
#include "hex.h"

#include "libquant/base/sha256.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

uint8_t *hex_bytes(const char *text, size_t len, size_t *n)
{
    uint8_t *out = malloc(len / 2 + 1);
    if (out == NULL || len % 2 != 0)
        goto bad;
    for (size_t i = 0; i < len / 2; i++) {
        const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            goto bad;
        out[i] = (uint8_t)(high << 4 | low);
    }
    *n = len / 2;
    return out;
bad:
    free(out);
    return NULL;
}

void hex_hash_floats(const float *x, size_t n, char out[65])
{
    struct sha256 s;
    uint8_t digest[32];
    sha256_init(&s);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = 0x7fc00000u;
        if (!isnan(x[i]))
            memcpy(&bits, &x[i], sizeof bits);
        sha256_update(&s, &bits, sizeof bits);
    }
    sha256_final(&s, digest);
    sha256_hex(digest, out);
}

char *hex_read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return NULL;
    char *out = NULL;
    long size = 0;
    if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        out = malloc((size_t)size + 1);
        if (out != NULL && fread(out, 1, (size_t)size, f) == (size_t)size) {
            out[size] = 0;
            *n = (size_t)size;
        } else {
            free(out);
            out = NULL;
        }
    }
    fclose(f);
    return out;
}
