/* pattern.c - see pattern.h. Limits: a name is short, so an honest pattern needs few steps; one that needs
 * more than MATCH_STEPS is a mistake or an attack and is reported, not waited for. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pattern.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATTERN_BYTES_MAX = 4096,
    MATCH_STEPS = 200000,
    MATCH_HEAP_KIB = 1024,
};

struct pattern {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *limits;
    char *text;
};

int pattern_new(struct pattern **out, const char *text, size_t len, bool whole, struct err *e)
{
    if (len > PATTERN_BYTES_MAX)
        return err_set(e, ERR_ARG, "pattern of %zu bytes is too long (at most %d)", len, PATTERN_BYTES_MAX);
    int number = 0, rc = 0;
    PCRE2_SIZE offset = 0;
    struct pattern *p = calloc(1, sizeof *p);
    if (p == NULL || (p->text = calloc(1, len + 1)) == NULL)
        goto refused;
    memcpy(p->text, text, len);
    /* the pattern cannot lift the limits or switch to UTF mode, where invalid names would be an error */
    const uint32_t options = PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C |
                             PCRE2_NO_AUTO_POSSESS | (whole ? PCRE2_ANCHORED | PCRE2_ENDANCHORED : 0);
    p->code = pcre2_compile((PCRE2_SPTR)p->text, len, options, &number, &offset, NULL);
    if (p->code == NULL) {
        char why[160];
        pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
        if (number == PCRE2_ERROR_HEAP_FAILED)
            goto refused;
        rc = err_set(e, ERR_ARG, "pattern '%s': %s (at character %zu)", p->text, why, (size_t)offset + 1);
        goto failed;
    }
    p->data = pcre2_match_data_create(1, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (p->data == NULL || p->limits == NULL)
        goto refused;
    pcre2_set_match_limit(p->limits, MATCH_STEPS);
    pcre2_set_depth_limit(p->limits, MATCH_STEPS);
    pcre2_set_heap_limit(p->limits, MATCH_HEAP_KIB);
    *out = p;
    return 0;
refused:
    rc = err_set(e, ERR_NOMEM, "out of memory for a pattern");
failed:
    pattern_free(p);
    return rc;
}

void pattern_free(struct pattern *p)
{
    if (p == NULL)
        return;
    pcre2_match_context_free(p->limits);
    pcre2_match_data_free(p->data);
    pcre2_code_free(p->code);
    free(p->text);
    free(p);
}

int pattern_test(bool *matches, const struct pattern *p, const char *name, struct err *e)
{
    const int found = pcre2_match(p->code, (PCRE2_SPTR)name, strlen(name), 0, 0, p->data, p->limits);
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH) {
        *matches = found >= 0;
        return 0;
    }
    char why[160];
    pcre2_get_error_message(found, (PCRE2_UCHAR *)why, sizeof why);
    return err_set(e, found == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_ARG,
                   "pattern '%s' against tensor '%s': %s; write it with fewer nested repetitions", p->text,
                   name, why);
}
