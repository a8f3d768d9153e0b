/* codepoint.c - see codepoint.h. Well-formed sequences: The Unicode Standard, table 3-7. */
#include "codepoint.h"

#include <stdlib.h>
#include <string.h>

unsigned utf8_encode(uint32_t cp, uint8_t *out)
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (uint8_t)(0xC0 | cp >> 6);
        out[1] = (uint8_t)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (uint8_t)(0xE0 | cp >> 12);
        out[1] = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | cp >> 18);
    out[1] = (uint8_t)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (cp & 0x3F));
    return 4;
}

/* Length of the sequence at `p` and whether it is whole; when it is not, the length of its longest prefix
 * that could have begun one (at least 1). */
static unsigned scan(const uint8_t *p, size_t left, bool *ok)
{
    uint8_t c = p[0], low = 0x80, high = 0xBF;
    unsigned need;
    *ok = false;
    if (c < 0x80) {
        *ok = true;
        return 1;
    }
    if (c < 0xC2 || c > 0xF4)
        return 1;
    need = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (c == 0xE0)
        low = 0xA0;
    else if (c == 0xED)
        high = 0x9F;
    else if (c == 0xF0)
        low = 0x90;
    else if (c == 0xF4)
        high = 0x8F;
    for (unsigned i = 1; i < need; i++) {
        if (i >= left || p[i] < low || p[i] > high)
            return i;
        low = 0x80;
        high = 0xBF;
    }
    *ok = true;
    return need;
}

char *utf8_repair(const char *text, size_t len, size_t *out_len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n_out = 0;
    for (size_t i = 0; i < len;) {
        bool ok;
        unsigned n = scan(p + i, len - i, &ok);
        n_out += ok ? n : 3;
        i += n;
    }
    char *out = malloc(n_out ? n_out : 1);
    if (!out)
        return NULL;
    size_t k = 0;
    for (size_t i = 0; i < len;) {
        bool ok;
        unsigned n = scan(p + i, len - i, &ok);
        memcpy(out + k, ok ? text + i : "\xEF\xBF\xBD", ok ? n : 3);
        k += ok ? n : 3;
        i += n;
    }
    *out_len = n_out;
    return out;
}

size_t utf8_n_ill_formed(const char *text, size_t len, size_t *first)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n_ill = 0;
    for (size_t i = 0; i < len;) {
        bool ok;
        unsigned n = scan(p + i, len - i, &ok);
        if (!ok && n_ill == 0)
            *first = i;
        n_ill += ok ? 0 : n;
        i += n;
    }
    return n_ill;
}

static bool is_itself(uint32_t b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

/* The 68 bytes that are not shown as themselves, in order: 0x00..0x20, 0x7F..0xA0, 0xAD. */
uint32_t byte_to_codepoint(uint8_t byte)
{
    if (is_itself(byte))
        return byte;
    return byte <= 0x20 ? 0x100u + byte : byte <= 0xA0 ? 0x121u + (byte - 0x7Fu) : 0x143u;
}

int codepoint_to_byte(uint32_t cp)
{
    if (is_itself(cp))
        return (int)cp;
    if (cp >= 0x100 && cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp >= 0x121 && cp <= 0x142)
        return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

bool bytes_from_alphabet(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        bool ok;
        unsigned k = scan(p + i, len - i, &ok);
        uint32_t cp = 0;
        if (ok)
            utf8_decode(p + i, &cp);
        int b = ok ? codepoint_to_byte(cp) : -1;
        if (b < 0)
            return false;
        out[n++] = (uint8_t)b;
        i += k;
    }
    *out_len = n;
    return true;
}
