/* foreign.c - see foreign.h. */
#include "foreign.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LOOKED_AT 64 /* bytes that tell a text */

static bool begins_with(const uint8_t *p, size_t n, const char *head)
{
    return n >= strlen(head) && memcmp(p, head, strlen(head)) == 0;
}

/* Does the head of the file read as text? Control characters and bytes that UTF-8 never has say no. */
static bool is_text(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n && i < LOOKED_AT; i++)
        if (p[i] == 0x7F || p[i] >= 0xF5 || (p[i] < ' ' && p[i] != '\n' && p[i] != '\r' && p[i] != '\t'))
            return false;
    return n != 0;
}

/* Text whose first character, behind white space and a byte order mark, opens a tag. */
static bool is_web_page(const uint8_t *p, size_t n)
{
    size_t start = 0;
    while (start < n && p[start] && strchr(" \t\r\n\xEF\xBB\xBF", p[start]))
        start++;
    return start < n && p[start] == '<' && is_text(p, n);
}

int foreign_refuse(const char *path, const void *bytes, size_t n, unsigned kinds, const char *expected,
                   struct err *e)
{
    const uint8_t *p = bytes;
    if (begins_with(p, n, "version https://git-lfs"))
        return err_set(e, ERR_FORMAT,
                       "%s: this is a git-lfs pointer, not the file; fetch the real one with `git lfs pull`",
                       path);
    if (is_web_page(p, n))
        return err_set(e, ERR_FORMAT,
                       "%s: this is a web page (HTML), probably what a server answered instead of the file: "
                       "download it again",
                       path);
    if ((kinds & FOREIGN_PICKLE) && begins_with(p, n, "PK\x03\x04"))
        return err_set(
            e, ERR_FORMAT,
            "%s: this is a zip archive, probably a PyTorch pickle, which is not supported: convert "
            "it to safetensors",
            path);
    if ((kinds & FOREIGN_GGUF) && begins_with(p, n, "GGUF"))
        return err_set(e, ERR_FORMAT, "%s: this is a GGUF file, not %s", path, expected);
    if ((kinds & FOREIGN_TEXT) && is_text(p, n))
        return err_set(
            e, ERR_FORMAT,
            "%s: this is a text, probably a pointer or what a server answered instead of the file: "
            "download it again",
            path);
    return 0;
}
