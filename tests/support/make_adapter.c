/* make_adapter.c - writes an adapter of toy_adapter.h and its base: make_adapter NAME ADAPTER_DIR [BASE_DIR].
 */
#include "toy_adapter.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct err e = {0};
    size_t i = 0;
    while (argc >= 3 && toy_adapter_names[i] && strcmp(toy_adapter_names[i], argv[1]) != 0)
        i++;
    if (argc < 3 || argc > 4 || !toy_adapter_names[i]) {
        fputs("usage: make_adapter NAME ADAPTER_DIR [BASE_DIR]; names:", stderr);
        for (const char *const *name = toy_adapter_names; *name; name++)
            fprintf(stderr, " %s", *name);
        fputc('\n', stderr);
        return 2;
    }
    if (toy_adapter_write(argv[2], argv[1], &e) != 0 ||
        (argc == 4 && toy_adapter_write_base(argv[3], toy_adapter_bases[i], &e) != 0)) {
        fprintf(stderr, "make_adapter: %s\n", e.msg);
        return 1;
    }
    return 0;
}
