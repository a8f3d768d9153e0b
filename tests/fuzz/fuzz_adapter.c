/* fuzz_adapter.c - any adapter for a small base: refused with a reason, or every row can be read, merged into
 * the base and as the factors of an adapter file.
 *
 * Input: a byte that chooses the base (toy_adapter_bases); then either a GGUF file, or the text of
 * adapter_config.json, a NUL and the bytes of adapter_model.safetensors (make_adapter writes such folders).
 */
#include "formats/model/model.h"
#include "scratch.h"
#include "toy_adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct scratch place; /* bases by number, the adapter as a folder "lora" and as a file "lora.gguf" */

static void remove_place(void)
{
    scratch_remove(&place);
}

static void path_in(char path[200], const char *name)
{
    snprintf(path, 200, "%s/%s", place.folder, name);
}

/* The base of this number, written when it is first asked for. */
static void base_path(char path[200], uint8_t which)
{
    static bool written[32];
    struct err e = {0};
    char name[8];
    size_t n = 0;
    if (!place.folder[0]) {
        scratch_make(&place);
        atexit(remove_place);
        path_in(path, "lora");
        if (mkdir(path, 0700) != 0)
            abort();
    }
    while (toy_adapter_bases[n])
        n++;
    size_t i = which % n;
    snprintf(name, sizeof name, "%zu", i);
    path_in(path, name);
    if (!written[i] && toy_adapter_write_base(path, toy_adapter_bases[i], &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    written[i] = true;
}

static void must_say_why(int rc, const struct err *e)
{
    if (rc != 0 && (e->code == ERR_OK || e->msg[0] == '\0'))
        abort();
}

static void read_model(const struct model *m)
{
    for (size_t i = 0; i < model_n_tensors(m); i++) {
        const struct model_tensor *t = model_tensor(m, i);
        struct err e = {0};
        float *row = t->ne[0] && t->ne[0] < 1u << 20 ? malloc(t->ne[0] * sizeof *row) : NULL;
        const uint64_t at[] = {0, t->n_rows / 2, t->n_rows - 1};
        for (size_t k = 0; row && t->n_rows && k < 3; k++)
            must_say_why(model_read_rows(m, t, at[k], 1, row, &e), &e);
        free(row);
    }
}

static void open_and_read(const char *path, const struct model_options *opt)
{
    struct model *m = NULL;
    struct err e = {0};
    int rc = model_open(&m, path, opt, &e);
    must_say_why(rc, &e);
    if (rc == 0)
        read_model(m);
    model_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char base[200], lora[200];
    if (size < 6)
        return 0;
    base_path(base, data[0]);
    const uint8_t *text = data + 1, *nul = memchr(text, 0, size - 1);
    bool is_gguf = memcmp(text, "GGUF", 4) == 0;
    path_in(lora, is_gguf ? "lora.gguf" : "lora");
    if (is_gguf) {
        scratch_bytes(&place, "lora.gguf", text, size - 1);
    } else if (nul) {
        scratch_bytes(&place, "lora/adapter_config.json", text, (size_t)(nul - text));
        scratch_bytes(&place, "lora/adapter_model.safetensors", nul + 1, size - 2 - (size_t)(nul - text));
    } else {
        return 0;
    }
    const struct model_adapter adapter = {.path = lora, .scale = 0.5};
    open_and_read(base, &(struct model_options){.adapters = &adapter, .n_adapters = 1});
    open_and_read(lora, &(struct model_options){.base = base});
    return 0;
}
