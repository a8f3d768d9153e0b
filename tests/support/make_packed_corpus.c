/* make_packed_corpus.c - writes one small packed checkpoint of every layout as an input of fuzz_hf_packed:
 * make_packed_corpus OUT_DIR. Its output is committed as tests/fuzz/corpus/fuzz_hf_packed; run it again after
 * adding a layout. */
#include "toy_packed.h"

#include <stdio.h>
#include <stdlib.h>

/* Configuration, NUL, and the safetensors file that `p` makes. */
static int write_one(const char *dir, enum toy_packing kind, const struct toy_packed *p)
{
    char path[600], parts[640];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", dir, toy_packing_name(kind));
    snprintf(parts, sizeof parts, "%s.safetensors", path);
    if (toy_packed_write(p, parts, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        return -1;
    }
    FILE *in = fopen(parts, "rb"), *out = fopen(path, "wb");
    int c = 0, rc = in && out ? 0 : -1;
    if (rc == 0) {
        fprintf(out, "{\"quantization_config\": %s}", toy_packing_config(kind));
        fputc(0, out);
        while ((c = fgetc(in)) != EOF)
            fputc(c, out);
    }
    if (in)
        fclose(in);
    if (out && fclose(out) != 0)
        rc = -1;
    remove(parts);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_packed_corpus OUT_DIR\n");
        return 2;
    }
    for (int kind = 0; kind < TOY_PACKING_COUNT; kind++) {
        struct toy_packed p = {.seed = (uint64_t)kind};
        toy_packed_add(&p, (enum toy_packing)kind, "m", 8, 96);
        int rc = write_one(argv[1], (enum toy_packing)kind, &p);
        toy_packed_release(&p);
        if (rc != 0)
            return 1;
    }
    return 0;
}
