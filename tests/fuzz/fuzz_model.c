/* fuzz_model.c - whole small models of every family with changed weights and metadata, through convert,
 * perplexity, imatrix and quantize: each is refused with a reason, or gives figures that are numbers.
 *
 * The first byte chooses the family, the second how the input is used; then come changes of eight bytes each:
 * place (24 bits), kind (8 bits), value (32 bits). Kinds: a weight, a byte before the weights, a number in
 * the metadata, and (where the second byte is odd, in the checkpoint, which is then converted again) a weight
 * or a number in config.json. */
#include "toy_gguf.h"

#include "formats/gguf/gguf_meta.h"
#include "formats/gguf/gguf_read.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_FAMILIES 32
#define MAX_CHANGES  16

static struct toy_gguf families[MAX_FAMILIES]; /* made once each */

static void remove_all(void)
{
    for (size_t i = 0; i < MAX_FAMILIES; i++)
        toy_gguf_release(&families[i]);
}

static const struct toy_gguf *family(uint8_t which)
{
    static size_t n;
    struct err e = {0};
    if (n == 0)
        atexit(remove_all);
    for (n = 0; toy_gguf_names[n]; n++)
        ;
    struct toy_gguf *g = &families[which % n];
    if (!g->bytes && toy_gguf_make(g, toy_gguf_names[which % n], &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    return g;
}

struct change {
    uint32_t place, value;
    uint8_t kind;
};

static struct change change_at(const uint8_t *p)
{
    struct change c = {(uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16, 0, p[3]};
    memcpy(&c.value, p + 4, 4);
    return c;
}

/* Where the value of the i-th key of metadata lies that is a number of four bytes; 0: nowhere. */
static size_t number_at(const struct toy_gguf *g, const struct gguf_meta *meta, size_t i)
{
    size_t n = gguf_meta_n(meta);
    for (size_t k = 0; k < n; k++) {
        const struct gguf_value *v = gguf_meta_value(meta, (i + k) % n);
        const char *key = gguf_meta_key(meta, (i + k) % n);
        if (v->type != GGUF_U32 && v->type != GGUF_F32 && v->type != GGUF_I32)
            continue;
        size_t len = strlen(key);
        for (size_t at = 8; at + len + 8 < g->n_bytes; at++)
            if (g->bytes[at - 8] == (uint8_t)len && memcmp(g->bytes + at, key, len) == 0)
                return at + len + 4;
    }
    return 0;
}

static void change_gguf(struct toy_gguf *g, struct change c, size_t n_head, const struct gguf_meta *meta)
{
    size_t n_words = (g->n_bytes - n_head) / 4, at = 0;
    switch (c.kind % 3) {
    case 0: at = n_head + 4 * ((size_t)c.place * 37 % n_words); break;
    case 1: g->bytes[c.place % n_head] = (uint8_t)c.value; return;
    default: at = number_at(g, meta, c.place); break;
    }
    if (at)
        memcpy(g->bytes + at, &c.value, 4);
}

/* A file of the checkpoint with one change, and back again. */
static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *text = malloc(4 << 20);
    if (!f || !text)
        abort();
    *n = fread(text, 1, 4 << 20, f);
    fclose(f);
    return text;
}

static void spit(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, 1, n, f) != n || fclose(f) != 0)
        abort();
}

static void change_config(const char *path, const char *text, size_t n, struct change c)
{
    static const char *const numbers[] = {"0",  "-1",   "1",          "2",    "3",
                                          "65", "1e30", "4294967296", "null", "0.5"};
    size_t n_numbers = 0, at = 0, end;
    for (size_t pass = 0; pass < 2; pass++) {
        size_t want = pass && n_numbers ? c.place % n_numbers : SIZE_MAX, seen = 0;
        for (size_t i = 1; i < n; i++)
            if (isdigit((unsigned char)text[i]) && (text[i - 1] == ' ' || text[i - 1] == ':')) {
                if (seen++ == want)
                    at = i;
            }
        n_numbers = seen;
    }
    for (end = at; end < n && (isalnum((unsigned char)text[end]) || text[end] == '.' || text[end] == '-');
         end++)
        ;
    const char *word = numbers[c.value % (sizeof numbers / sizeof *numbers)];
    FILE *f = fopen(path, "wb");
    if (!f)
        abort();
    fprintf(f, "%.*s%s%.*s", (int)at, text, word, (int)(n - end), text + end);
    fclose(f);
}

/* Only messages and figures matter. */
static void check(int rc, const struct toy_figures *f, const struct err *e)
{
    if (rc != 0 && (e->code == ERR_OK || !e->msg[0]))
        abort();
    if (rc == 0 && !(isfinite(f->perplexity) && isfinite(f->imatrix_perplexity) && isfinite(f->sum) &&
                     isfinite(f->quantized_ppl)))
        abort();
}

static void run_checkpoint(struct toy_gguf *g, struct change c)
{
    char path[160];
    size_t n;
    struct err e = {0};
    struct toy_figures f = {.n_entries = 0};
    bool config = c.kind % 2;
    snprintf(path, sizeof path, "%s/%s", g->folder, config ? "config.json" : "model.safetensors");
    char *text = slurp(path, &n);
    char *other = malloc(n);
    if (!other)
        abort();
    memcpy(other, text, n);
    if (config)
        change_config(path, text, n, c);
    else {
        uint64_t n_head;
        memcpy(&n_head, text, 8);
        size_t at = 8 + (size_t)n_head, n_words = (n - at) / 4;
        memcpy(other + at + 4 * ((size_t)c.place * 37 % n_words), &c.value, 4);
        spit(path, other, n);
    }
    int rc = toy_gguf_convert(g, &e);
    if (rc == 0)
        rc = toy_gguf_run(g, &f, &e);
    check(rc, &f, &e);
    spit(path, text, n);
    free(other);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct toy_figures f = {.n_entries = 0};
    struct gguf_reader *r = NULL;
    if (size < 10)
        return 0;
    const struct toy_gguf *base = family(data[0]);
    struct toy_gguf g = *base; /* shares the folder */
    g.bytes = malloc(base->n_bytes);
    if (!g.bytes)
        abort();
    memcpy(g.bytes, base->bytes, base->n_bytes);
    if (data[1] & 1) {
        run_checkpoint(&g, change_at(data + 2));
    } else {
        if (gguf_reader_open_memory(&r, base->bytes, base->n_bytes, "base", NULL, &e) != 0)
            abort();
        size_t n_head = (size_t)gguf_reader_tensor(r, 0)->offset;
        for (size_t i = 0; i < MAX_CHANGES && 2 + 8 * (i + 1) <= size; i++)
            change_gguf(&g, change_at(data + 2 + 8 * i), n_head, gguf_reader_meta(r));
        gguf_reader_close(r);
        int rc = toy_gguf_run(&g, &f, &e);
        check(rc, &f, &e);
    }
    free(g.bytes);
    return 0;
}
