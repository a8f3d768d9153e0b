/* fuzz_plan.c - any bytes as a plan: read or refused; what was read is written down again as lines and gives
 * the same plan, and its patterns end on any name. */
#include "formats/recipe/plan.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same_again(const struct plan *p)
{
    char *text = NULL, first[65], second[65];
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    struct plan *again = NULL;
    struct err e;
    if (f == NULL)
        return;
    fputs("# kerf plan 1\n", f); /* else a first pattern with '<' would begin a web page */
    for (size_t i = 0; i < plan_n(p); i++)
        fprintf(f, "%s%c%s\n", plan_pattern(p, i), plan_is_whole(p, i) ? ' ' : '=',
                qtype_name((uint32_t)plan_type(p, i)));
    fclose(f);
    if (plan_parse(&again, text, len, "again", &e) != 0)
        abort();
    plan_hash(p, first);
    plan_hash(again, second);
    if (plan_n(again) != plan_n(p) || strcmp(first, second) != 0)
        abort();
    plan_free(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"token_embd.weight", "blk.17.ffn_down_exps.weight",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac",
                                        ""};
    struct plan *p = NULL;
    struct err e = {0};
    if (plan_parse(&p, (const char *)data, size, "fuzz", &e) != 0) {
        if (p != NULL || e.msg[0] == 0)
            abort();
        return 0;
    }
    same_again(p);
    for (size_t i = 0; i < sizeof names / sizeof *names && plan_n(p) <= 32; i++) {
        size_t line;
        enum qtype type;
        const bool found = plan_find(p, names[i], &type);
        if (plan_match(&line, p, names[i], &e) == 0 && found != (line < plan_n(p)))
            abort();
    }
    plan_free(p);
    return 0;
}
