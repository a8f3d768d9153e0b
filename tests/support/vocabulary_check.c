/* vocabulary_check.c - see vocabulary_check.h. */
#include "vocabulary_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct vocabulary *vocabulary_of(const char *folder, const struct hf_config *config, uint64_t n_rows)
{
    struct vocabulary *v = NULL;
    struct err e = {0};
    if (vocabulary_load_hf(&v, folder, config, n_rows, &e) != 0)
        fail_msg("%s", e.msg);
    return v;
}

void vocabulary_refused(const char *folder, uint64_t n_rows, enum err_code code, const char *words)
{
    struct vocabulary *v = NULL;
    struct err e = {0};
    int rc = vocabulary_load_hf(&v, folder, NULL, n_rows, &e);
    if (rc != (int)code || !strstr(e.msg, words)) {
        vocabulary_free(v);
        fail_msg("%d '%s', expected %d '%s'", rc, e.msg, code, words);
    }
}

void vocabulary_has(const struct vocabulary *v, size_t id, const char *text, enum token_type type)
{
    assert_true(id < v->n_tokens);
    assert_string_equal(v->tokens[id].text, text);
    assert_int_equal(v->tokens[id].len, strlen(text));
    assert_int_equal(v->tokens[id].type, type);
}

bool vocabulary_warned(const struct vocabulary *v, const char *words)
{
    for (size_t i = 0; i < v->n_warnings; i++)
        if (strstr(v->warnings[i], words))
            return true;
    return false;
}
