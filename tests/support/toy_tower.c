/* toy_tower.c - see toy_tower.h. */
#include "toy_tower.h"

#include "formats/hf/safetensors_write.h"
#include "libquant/base/rng.h"
#include "libquant/half.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char preprocessor[] =
    "{\"image_mean\":[0.48145466,0.4578275,0.40821073],\"image_std\":[0.26862954,0.26130258,0.27577711]}";

void toy_tower_lines(const char *tower, void (*line)(void *ctx, const char *text), void *ctx)
{
    FILE *f = fopen(KERF_TEST_GOLDEN "/towers.txt", "r");
    char *text = NULL;
    size_t cap = 0;
    bool inside = !tower;
    while (f && getline(&text, &cap, f) > 0) {
        text[strcspn(text, "\n")] = '\0';
        if (tower && strncmp(text, "tower ", 6) == 0)
            inside = strcmp(text + 6, tower) == 0;
        if (inside)
            line(ctx, text);
    }
    free(text);
    if (f)
        fclose(f);
}

struct toy {
    const char *folder, *config,
        *word; /* lines of this checkpoint: "config" and "in", or "inner" and "with" */
    struct safetensors_writer *writer;
    enum st_dtype dtype;
    bool declaring, found;
    int rc;
    struct err *e;
};

static int put_text(const char *folder, const char *name, const char *text, struct err *e)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        return err_set(e, ERR_IO, "%s: cannot write", path);
    return 0;
}

/* "3,4" as a shape; the elements in all. */
static uint64_t read_shape(const char *text, uint64_t shape[8], uint32_t *n)
{
    uint64_t elems = 1;
    for (*n = 0; *text && *n < 8; text += strcspn(text, ","), text += *text == ',')
        elems *= shape[(*n)++] = strtoull(text, NULL, 10);
    return elems;
}

/* Norms near one, the rest small; drawn by the name, so that a tensor is the same in every checkpoint. */
static int put_values(struct toy *t, const char *name, uint64_t n)
{
    struct rng rng = {1};
    bool norm = strstr(name, "norm") || strstr(name, "ln_") || strstr(name, "layer_norm");
    double middle = norm && strstr(name, "weight") ? 1 : 0;
    for (const char *c = name; *c; c++)
        rng.state = rng.state * 31 + (unsigned char)*c;
    size_t size = t->dtype == ST_F32 ? 4 : 2;
    uint8_t *bytes = malloc(n * size);
    if (!bytes)
        return t->rc = err_set(t->e, ERR_NOMEM, "out of memory for '%s'", name);
    for (uint64_t i = 0; i < n; i++) {
        float x = (float)(middle + 0.05 * rng_normal(&rng));
        uint16_t v = f32_to_bf16(x);
        memcpy(bytes + i * size, size == 4 ? (const void *)&x : (const void *)&v, size);
    }
    t->rc = safetensors_writer_write(t->writer, bytes, n * size, t->e);
    free(bytes);
    return t->rc;
}

static void take_line(void *ctx, const char *text)
{
    struct toy *t = ctx;
    char name[200], dims[60];
    uint64_t shape[8];
    uint32_t n;
    t->found = true;
    size_t n_config = strlen(t->config), n_word = strlen(t->word);
    if (t->rc == 0 && t->declaring && strncmp(text, t->config, n_config) == 0)
        t->rc = put_text(t->folder, "config.json", text + n_config, t->e);
    if (t->rc != 0 || strncmp(text, t->word, n_word) != 0 ||
        sscanf(text + n_word, "%199s %59s", name, dims) != 2)
        return;
    uint64_t n_elems = read_shape(dims, shape, &n);
    if (t->declaring)
        t->rc = safetensors_writer_add(t->writer, name, t->dtype, n, shape, t->e);
    else
        put_values(t, name, n_elems);
}

static void see_inner(void *ctx, const char *text)
{
    bool *has_inner = ctx;
    *has_inner |= strncmp(text, "inner ", 6) == 0;
}

/* One folder: its configuration and its tensors. */
static int write_folder(const char *folder, const char *name, const char *config, const char *word,
                        struct err *e)
{
    char path[400];
    struct toy t = {.folder = folder, .config = config, .word = word, .declaring = true, .e = e};
    t.dtype = strcmp(word, "with ") == 0 ? ST_F32 : ST_BF16; /* as published */
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    t.rc = safetensors_writer_open(&t.writer, path, true, e);
    toy_tower_lines(name, take_line, &t);
    t.declaring = false;
    if (t.rc == 0 && !t.found)
        t.rc = err_set(e, ERR_ARG, "no tower '%s'", name);
    toy_tower_lines(name, take_line, &t);
    if (t.rc == 0)
        return safetensors_writer_commit(t.writer, e);
    safetensors_writer_abort(t.writer);
    return t.rc;
}

int toy_tower_write(const char *folder, const char *name, struct err *e)
{
    char inner[400];
    bool has_inner = false;
    int rc = write_folder(folder, name, "config ", "in ", e);
    if (rc == 0)
        rc = put_text(folder, "preprocessor_config.json", preprocessor, e);
    toy_tower_lines(name, see_inner, &has_inner);
    snprintf(inner, sizeof inner, "%s/speech_tokenizer", folder);
    return rc == 0 && has_inner ? write_folder(inner, name, "inner ", "with ", e) : rc;
}
