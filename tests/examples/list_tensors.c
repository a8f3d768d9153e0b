/* list_tensors.c - read a GGUF file with libkerf and print its tensors.
 *
 *     cc list_tensors.c $(pkg-config --cflags --libs kerf) && ./a.out model.gguf */
#include <kerf/gguf.h>

#include <inttypes.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    struct kerf_error e;
    struct kerf_gguf *g;
    if (argc != 2)
        return fprintf(stderr, "usage: list_tensors FILE.gguf\n"), 2;
    if (kerf_gguf_open(&g, argv[1], &e) != 0)
        return fprintf(stderr, "%s\n", e.message), 1;

    const char *text;
    size_t n_bytes;
    if (kerf_gguf_get_string(g, "general.architecture", &text, &n_bytes))
        printf("architecture %.*s, %zu keys, %zu tensors\n", (int)n_bytes, text, kerf_gguf_n_keys(g),
               kerf_gguf_n_tensors(g));
    for (size_t i = 0; i < kerf_gguf_n_tensors(g); i++) {
        struct kerf_gguf_tensor t = kerf_gguf_tensor_at(g, i);
        printf("%-40s %-8s %" PRIu64, t.name, kerf_type_name(t.type), t.dims[0]);
        for (uint32_t d = 1; d < t.n_dims; d++)
            printf(" x %" PRIu64, t.dims[d]);
        printf(", %" PRIu64 " bytes\n", t.n_bytes);
    }
    kerf_gguf_close(g);
    return 0;
}
