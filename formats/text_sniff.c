/* text_sniff.c - see text_sniff.h. */
#include "text_sniff.h"

#include "formats/tokenizer/codepoint.h"

#include <stdio.h>
#include <string.h>

#define LOOKED_AT ((size_t)8192)
#define FEWEST    64 /* bytes */
#define MOST_NULS 8  /* text has none; a few may be separators */
#define MOST_ILL  16
#define ILL_SHARE                                                                                            \
    10 /* one in so many: Latin-1 prose of any language has fewer, other code pages have more                \
        */
#define MAX_HEADER ((uint64_t)1 << 40)

/* A safetensors file: the length of a JSON object, then the object. */
static bool is_safetensors(const uint8_t *p)
{
    uint64_t n = 0;
    for (unsigned i = 8; i > 0; i--)
        n = n << 8 | p[i - 1];
    return p[8] == '{' && n > 1 && n < MAX_HEADER;
}

/* A GGUF file: its version follows, in either order of bytes; a text may be about GGUF. */
static bool is_gguf(const char *p)
{
    return memcmp(p, "GGUF", 4) == 0 && p[5] == 0 && p[6] == 0;
}

/* What a file with this head is, or NULL. At least FEWEST bytes. */
static const char *kind_of(const char *text)
{
    static const struct {
        const char *magic;
        size_t n;
        const char *kind;
    } kinds[] = {
        {"\x1f\x8b\x08", 3, "a gzip file (name it .gz)"},
        {"PK\x03\x04", 4, "a zip archive"},
        {"\x28\xb5\x2f\xfd", 4, "a zstd file"},
        {"\xff\xfe", 2, "a text in UTF-16"},
        {"\xfe\xff", 2, "a text in UTF-16"},
        {"PAR1", 4, "a Parquet file"},
        {"%PDF-", 5, "a PDF file"},
        {"\xfd"
         "7zXZ",
         5, "an xz file"},
    };
    if (is_gguf(text))
        return "a GGUF file";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (memcmp(text, kinds[i].magic, kinds[i].n) == 0)
            return kinds[i].kind;
    return is_safetensors((const uint8_t *)text) ? "a safetensors file" : NULL;
}

bool text_sniff(char why[TEXT_SNIFF_BYTES], const char *text, size_t len)
{
    size_t n = len < LOOKED_AT ? len : LOOKED_AT, n_nul = 0, first;
    if (len < FEWEST)
        return false;
    const char *kind = kind_of(text);
    for (size_t i = 0; i < n; i++)
        n_nul += text[i] == 0;
    size_t n_ill = utf8_n_ill_formed(text, n, &first);
    if (kind)
        snprintf(why, TEXT_SNIFF_BYTES, "begins as %s does", kind);
    else if (n_nul > MOST_NULS)
        snprintf(why, TEXT_SNIFF_BYTES, "has %zu NUL bytes among its first %zu", n_nul, n);
    else if (n_ill > MOST_ILL && n_ill > n / ILL_SHARE)
        snprintf(why, TEXT_SNIFF_BYTES, "has %zu bytes that are not UTF-8 among its first %zu", n_ill, n);
    else
        return false;
    return true;
}

int text_refuse(const char *path, const char *text, size_t len, struct err *e)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    if (len >= 8 && is_gguf(text))
        return err_set(e, ERR_FORMAT, "%s: expected a text, found a GGUF file; name the text to read", name);
    if (len >= 3 && memcmp(text, "\x1f\x8b\x08", 3) == 0)
        return err_set(e, ERR_FORMAT,
                       "%s: expected a text, found a gzip file; a name that ends in .gz has it unpacked",
                       name);
    return 0;
}
