/* sha256.h - SHA-256 (FIPS 180-4), for content hashes of tensors, models, texts and recipes. */
#ifndef KERF_SHA256_H
#define KERF_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint64_t state[16]; /* of nettle */
};

void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *data, size_t n);
void sha256_update_u64(struct sha256 *s, uint64_t v); /* its eight bytes as they stand in memory */
void sha256_final(struct sha256 *s, uint8_t digest[32]);

/* 64 lower-case hexadecimal digits and a NUL: of a digest, of what was added, of one piece. */
void sha256_hex(const uint8_t digest[32], char out[65]);
void sha256_final_hex(struct sha256 *s, char out[65]);
void sha256_hex_of(const void *data, size_t n, char out[65]);

#endif
