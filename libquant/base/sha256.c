/* sha256.c - see sha256.h: nettle's SHA-256, which uses the processor's instructions where it has them.
 * nettle/sha2.h gives its functions our names by macros; here both are spoken of, so the macros go. */
#include "sha256.h"

#include <nettle/sha2.h>

#undef sha256_init
#undef sha256_update

_Static_assert(sizeof(struct sha256_ctx) <= sizeof(struct sha256) &&
                   _Alignof(struct sha256_ctx) <= _Alignof(struct sha256),
               "sha256.h keeps room for nettle's state");

static struct sha256_ctx *state_of(struct sha256 *s)
{
    return (struct sha256_ctx *)(void *)s->state;
}

void sha256_init(struct sha256 *s)
{
    nettle_sha256_init(state_of(s));
}

void sha256_update(struct sha256 *s, const void *data, size_t n)
{
    nettle_sha256_update(state_of(s), n, data);
}

void sha256_update_u64(struct sha256 *s, uint64_t v)
{
    sha256_update(s, &v, sizeof v);
}

void sha256_final(struct sha256 *s, uint8_t digest[32])
{
    nettle_sha256_digest(state_of(s), 32, digest);
}

void sha256_hex(const uint8_t digest[32], char out[65])
{
    static const char hex[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = hex[digest[i] >> 4];
        out[2 * i + 1] = hex[digest[i] & 15];
    }
    out[64] = 0;
}

void sha256_final_hex(struct sha256 *s, char out[65])
{
    uint8_t digest[32];
    sha256_final(s, digest);
    sha256_hex(digest, out);
}

void sha256_hex_of(const void *data, size_t n, char out[65])
{
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, data, n);
    sha256_final_hex(&s, out);
}
