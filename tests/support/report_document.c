/* report_document.c - see report_document.h. */
#include "report_document.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

struct json_doc *report_document(const struct report *r, char **text)
{
    size_t n = 0;
    FILE *f = open_memstream(text, &n);
    assert_non_null(f);
    report_json(r, f);
    fclose(f);
    struct json_doc *doc = NULL;
    struct err e = {0};
    if (json_parse(&doc, *text, n, "report", &e) != 0)
        fail_msg("%s", e.msg);
    return doc;
}
