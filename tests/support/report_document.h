/* report_document.h - a report's JSON, written and read again. */
#ifndef KERF_TEST_REPORT_DOCUMENT_H
#define KERF_TEST_REPORT_DOCUMENT_H

#include "calib/report/report.h"
#include "formats/json.h"

/* Asserts that the JSON parses. The document and *text, which it may point into, are the caller's to free. */
struct json_doc *report_document(const struct report *r, char **text);

#endif
