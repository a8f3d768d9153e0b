/* make_ids.c - token ids of a file as JSON, for comparison with other tokenizers.
 *
 *     make_ids [--add-special] [--no-special] [--records] MODEL FILE
 *
 * MODEL is a folder or a GGUF file. --no-special: control-token text is text. --records: FILE is a sequence
 * of texts, each after its length as a 32-bit little-endian number; one array per line comes out. */
#include "formats/gguf/gguf_read.h"
#include "formats/text.h"
#include "formats/tokenizer/tokenizer.h"
#include "libquant/base/clock.h"
#include "libquant/base/slice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int load(struct vocabulary **v, const char *path, struct err *e)
{
    struct gguf_reader *r = NULL;
    struct hf_config *config = NULL;
    int rc;
    if (gguf_is_gguf_file(path)) {
        rc = gguf_reader_open(&r, path, &(struct gguf_read_options){.single_part = true, .header_only = true},
                              e);
        if (rc == 0)
            rc = vocabulary_from_gguf(v, gguf_reader_meta(r), e);
        gguf_reader_close(r);
        return rc;
    }
    if (hf_config_load(&config, path, NULL) != 0)
        config = NULL; /* folders with nothing but a tokenizer */
    rc = vocabulary_load_hf(v, path, config, 0, e);
    hf_config_free(config);
    return rc;
}

static int emit(const struct tokenizer *t, const char *text, size_t len, const struct tokenize_options *opt,
                struct err *e)
{
    int32_t *ids;
    size_t n;
    double begin = clock_seconds();
    int rc = tokenizer_encode(t, text, len, opt, &ids, &n, e);
    double seconds = clock_seconds() - begin;
    if (rc != 0)
        return rc;
    if (len > 100000)
        fprintf(stderr, "%zu bytes, %zu ids, %.3f s\n", len, n, seconds);
    putchar('[');
    for (size_t i = 0; i < n; i++)
        printf("%s%d", i ? "," : "", ids[i]);
    puts("]");
    free(ids);
    return 0;
}

int main(int argc, char **argv)
{
    struct tokenize_options opt = {.parse_special = true};
    struct err e = {0};
    struct vocabulary *v = NULL;
    struct tokenizer *t = NULL;
    char *text = NULL;
    size_t len = 0;
    bool records = false;
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        opt.add_special |= strcmp(argv[i], "--add-special") == 0;
        opt.parse_special &= strcmp(argv[i], "--no-special") != 0;
        records |= strcmp(argv[i], "--records") == 0;
    }
    if (argc - i != 2) {
        fprintf(stderr, "usage: make_ids [--add-special] [--no-special] [--records] MODEL FILE\n");
        return 2;
    }
    int rc = load(&v, argv[i], &e);
    for (size_t k = 0; rc == 0 && k < v->n_warnings; k++)
        fprintf(stderr, "warning: %s\n", v->warnings[k]);
    if (rc == 0)
        rc = tokenizer_new(&t, v, &e);
    if (rc == 0)
        rc = text_read(&text, &len, argv[i + 1], 0, &e);
    if (rc == 0 && !records)
        rc = emit(t, text, len, &opt, &e);
    for (size_t at = 0; rc == 0 && records && len - at >= 4;) {
        uint32_t n = load_u32(text + at);
        at += 4;
        if (n > len - at)
            n = (uint32_t)(len - at);
        rc = emit(t, text + at, n, &opt, &e);
        at += n;
    }
    if (rc != 0)
        fprintf(stderr, "make_ids: %s\n", e.msg);
    free(text);
    tokenizer_free(t);
    vocabulary_free(v);
    return rc != 0;
}
