/* make_tower.c - writes a checkpoint of toy_tower.h: make_tower NAME OUT_DIR. */
#include "toy_tower.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    struct err e = {0};
    if (argc != 3) {
        fputs("usage: make_tower NAME OUT_DIR\n", stderr);
        return 2;
    }
    if (toy_tower_write(argv[2], argv[1], &e) != 0) {
        fprintf(stderr, "make_tower: %s\n", e.msg);
        return 1;
    }
    return 0;
}
