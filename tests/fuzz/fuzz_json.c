/* fuzz_json.c - any bytes as JSON: refused with a reason, or read, written and read again with the same
 * result. */
#include "formats/json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(const struct json *a, const struct json *b)
{
    int64_t i, j;
    double x, y;
    if (json_is_string(a) != json_is_string(b) || json_is_object(a) != json_is_object(b) ||
        json_is_array(a) != json_is_array(b) || json_int(a, &i) != json_int(b, &j))
        abort();
    if (json_is_string(a) && strcmp(json_string(a), json_string(b)) != 0)
        abort();
    if (json_number(a, &x) && (!json_number(b, &y) || x != y))
        abort();
    const struct json *c = json_first(a), *d = json_first(b);
    for (; c && d; c = json_next(c), d = json_next(d)) {
        if (json_is_object(a) && strcmp(json_key(c), json_key(d)) != 0)
            abort();
        compare(c, d);
    }
    if (c || d)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_doc *doc, *again;
    struct err e = {0};
    if (json_parse(&doc, (const char *)data, size, "fuzz", &e) != 0) {
        if (e.code == ERR_OK || !e.msg[0])
            abort();
        return 0;
    }
    char *text = json_to_text(json_root(doc));
    if (text) {
        if (json_parse(&again, text, strlen(text), "again", &e) != 0)
            abort();
        compare(json_root(doc), json_root(again));
        json_free(again);
    }
    free(text);
    json_free(doc);
    return 0;
}
