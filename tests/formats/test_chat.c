/* test_chat.c - message lists against HuggingFace's rendering of the same templates, and what is refused. */
#include "formats/tokenizer/chat.h"
#include "formats/json.h"
#include "hex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The template text of a golden line's first word; NULL when that file is not here. */
static char *read_template(const char *name)
{
    char path[1024];
    size_t n;
    bool shared = strncmp(name, "shared/", 7) == 0;
    if (shared)
        snprintf(path, sizeof path, "%s/data/%s", KERF_SHARED, name + 7);
    else
        snprintf(path, sizeof path, "%s/%s", KERF_TEST_DATA, name + 5);
    if (strstr(name, ".json") == NULL)
        return hex_read_file(path, &n);
    struct json_doc *doc = NULL;
    if (access(path, R_OK) != 0 || json_load(&doc, path, 0, NULL) != 0)
        return NULL;
    const char *text = json_string(json_get(json_root(doc), "chat_template"));
    char *copy = text ? strdup(text) : NULL;
    json_free(doc);
    return copy;
}

static char *decode(const char *hex)
{
    size_t n = 0;
    uint8_t *bytes = strcmp(hex, "-") == 0 ? NULL : hex_bytes(hex, strlen(hex), &n);
    char *text = malloc(n + 1);
    assert_non_null(text);
    if (n)
        memcpy(text, bytes, n);
    text[n] = 0;
    free(bytes);
    return text;
}

enum { MAX_MESSAGES = 16 };

static void check_line(const struct chat_template *c, char *rest)
{
    struct chat_message m[MAX_MESSAGES];
    char *contents[MAX_MESSAGES], *save = NULL, *word = strtok_r(rest, " ", &save), *out = NULL;
    bool open_answer = strcmp(word, "1") == 0;
    size_t n = 0, len = 0;
    struct err e = {0};
    for (; (word = strtok_r(NULL, " ", &save)) != NULL && *word != '=' && *word != '!'; n++) {
        assert_true(n < MAX_MESSAGES);
        contents[n] = decode(strtok_r(NULL, " ", &save));
        m[n] = (struct chat_message){word, contents[n]};
    }
    assert_non_null(word);
    int rc = chat_render(c, m, n, open_answer, &out, &len, &e);
    if (*word == '!') {
        assert_int_equal(rc, ERR_UNSUPPORTED);
    } else {
        char *want = decode(strtok_r(NULL, " ", &save));
        assert_int_equal(rc, 0);
        assert_string_equal(out, want);
        assert_int_equal(len, strlen(want));
        free(want);
        free(out);
    }
    for (size_t i = 0; i < n; i++)
        free(contents[i]);
}

static void text_is_that_of_the_reference(void **state)
{
    (void)state;
    size_t n_file, n_checked = 0;
    char *file = hex_read_file(KERF_TEST_GOLDEN "/chat.txt", &n_file), last[256] = "";
    struct chat_template *c = NULL;
    assert_non_null(file);
    for (char *line = file, *eol; line && *line; line = eol) {
        if ((eol = strchr(line, '\n')) != NULL)
            *eol++ = 0;
        char *space = strchr(line, ' ');
        if (*line == '#')
            continue;
        *space = 0;
        if (strcmp(line, last) != 0) {
            struct err e = {0};
            char *text = read_template(line);
            chat_template_free(c);
            c = NULL;
            if (text && chat_template_new(&c, text, &e) != 0)
                fail_msg("%s: %s", line, e.msg);
            free(text);
            snprintf(last, sizeof last, "%s", line);
        }
        if (c) {
            check_line(c, space + 1);
            n_checked++;
        }
    }
    assert_true(n_checked >= 80);
    chat_template_free(c);
    free(file);
}

static void unknown_templates_are_refused(void **state)
{
    (void)state;
#define TURN "{{'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n'}}"
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "not Jinja text"},
        {"plain", "not Jinja text"},
        {"{{ 'open", "tags that close"},
        {"{# note", "not Jinja text"},
        {"{% for m in messages %}{{ '[INST]' + m.content }}{% endfor %}", "not ChatML"},
        {"{{ bos_token }}" TURN, "writes text around"},
        {"hello" TURN, "writes text around"},
        {"{{ '<|im_start|>system\\nA<|im_end|>\\n' }}{{ '<|im_start|>system\\nB<|im_end|>\\n' }}" TURN,
         "two default system messages"},
        {TURN "{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}",
         "opens an answer in an unknown way: '<bot>'"},
        {"{{'<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n'}}{% set content = "
         "content|trim %}",
         "changes contents"},
        {TURN "{{ message.reasoning }}", "changes contents"},
    };
#undef TURN
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct chat_template *c = NULL;
        struct err e = {0};
        int rc = chat_template_new(&c, cases[i].text, &e);
        if (rc != ERR_UNSUPPORTED || !strstr(e.msg, cases[i].words)) {
            chat_template_free(c);
            fail_msg("case %zu: %d '%s'", i, rc, e.msg);
        }
    }
}

static void messages_are_checked(void **state)
{
    (void)state;
    struct chat_template *c = NULL;
    struct err e = {0};
    char *text = read_template("data/chat/default_system.jinja"), *out;
    size_t n;
    assert_int_equal(chat_template_new(&c, text, NULL), 0);
    free(text);
    assert_string_equal(chat_default_system(c), "Answer in 'few' words.");
    assert_int_equal(chat_render(c, NULL, 0, false, &out, &n, &e), ERR_ARG);
    assert_int_equal(chat_render(c, &(struct chat_message){"tool", "x"}, 1, false, &out, &n, &e),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "role 'tool'"));
    assert_int_equal(chat_render(c, &(struct chat_message){"user", "\xE4\xB8"}, 1, false, &out, &n, &e),
                     ERR_FORMAT);
    chat_template_free(c);
    chat_template_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_that_of_the_reference),
        cmocka_unit_test(unknown_templates_are_refused),
        cmocka_unit_test(messages_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
