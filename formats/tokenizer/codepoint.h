/* codepoint.h - code points of UTF-8 text (decode, encode, repair) and the alphabet of byte-level BPE. */
#ifndef KERF_CODEPOINT_H
#define KERF_CODEPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length and value of the code point at `p`, which must stand in valid UTF-8. */
static inline unsigned utf8_decode(const uint8_t *p, uint32_t *cp)
{
    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    if (p[0] < 0xE0) {
        *cp = (uint32_t)(p[0] & 0x1F) << 6 | (p[1] & 0x3F);
        return 2;
    }
    if (p[0] < 0xF0) {
        *cp = (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
        return 3;
    }
    *cp = (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 |
          (p[3] & 0x3F);
    return 4;
}

/* Write `cp` (at most 0x10FFFF) to `out` (room for 4); returns the length. */
unsigned utf8_encode(uint32_t cp, uint8_t *out);

/* `text` with every maximal ill-formed part replaced by U+FFFD, as browsers, Python and Rust do. malloc'ed,
 * caller frees with free(); *out_len its length. NULL when memory is refused. */
char *utf8_repair(const char *text, size_t len, size_t *out_len);

/* How many bytes utf8_repair would replace; *first, unless that is 0: offset of the first of them. */
size_t utf8_n_ill_formed(const char *text, size_t len, size_t *first);

/* The alphabet of byte-level BPE (specification, architectures 19.8, 4): byte <-> code point; -1 when `cp`
 * stands for no byte. */
uint32_t byte_to_codepoint(uint8_t byte);
int codepoint_to_byte(uint32_t cp);

/* A text in that alphabet -> its bytes, written to `out` (room for `len`); false when a code point is not in
 * the alphabet or the text is not UTF-8. */
bool bytes_from_alphabet(const char *text, size_t len, uint8_t *out, size_t *out_len);

#endif
