/* make_family.c - writes a checkpoint of toy_family.h: make_family NAME OUT_DIR. */
#include "toy_family.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    struct err e = {0};
    if (argc != 3) {
        fputs("usage: make_family NAME OUT_DIR; names:", stderr);
        for (const char *const *name = toy_family_names; *name; name++)
            fprintf(stderr, " %s", *name);
        for (const char *const *name = toy_answer_names; *name; name++)
            fprintf(stderr, " %s", *name);
        fputc('\n', stderr);
        return 2;
    }
    if (toy_family_write(argv[2], argv[1], &e) != 0) {
        fprintf(stderr, "make_family: %s\n", e.msg);
        return 1;
    }
    return 0;
}
