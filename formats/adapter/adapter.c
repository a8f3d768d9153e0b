/* adapter.c - see adapter.h: what both kinds share. */
#include "adapter.h"

#include "formats/hf/hf_adapter.h"
#include "formats/hf/hf_checkpoint.h"
#include "formats/json.h"
#include "libquant/base/filemap.h"
#include "libquant/base/sha256.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int adapter_no_memory(struct err *e)
{
    return err_set(e, ERR_NOMEM, "out of memory while reading the adapter");
}

int adapter_add_line(struct adapter *a, struct string_list *lines, struct err *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = string_list_vadd(lines, &a->arena, fmt, args);
    va_end(args);
    return rc == 0 ? 0 : adapter_no_memory(e);
}

int adapter_add_term(struct adapter_terms *list, const struct adapter_term *t, struct arena *arena,
                     struct err *e)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        struct adapter_term *items = arena_array(arena, cap, sizeof *items);
        if (!items)
            return adapter_no_memory(e);
        if (list->n)
            memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = *t;
    return 0;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_adapter_file(const char *path)
{
    static const struct gguf_read_options header = {.single_part = true, .header_only = true};
    struct gguf_reader *r = NULL;
    struct gguf_string kind = {"", 0};
    if (!gguf_is_gguf_file(path) || gguf_reader_open(&r, path, &header, NULL) != 0)
        return false;
    gguf_meta_get_string(gguf_reader_meta(r), "general.type", &kind);
    bool yes = gguf_string_is(kind, "adapter");
    gguf_reader_close(r);
    return yes;
}

bool adapter_is_one(const char *path)
{
    return is_folder(path) ? hf_file_exists(path, HF_ADAPTER_NAME) && !hf_file_exists(path, "config.json")
                           : is_adapter_file(path);
}

/* One file, in pieces that need not stay in memory. */
static int hash_file(struct sha256 *h, const char *path, struct err *e)
{
    const size_t step = (size_t)1 << 22;
    struct filemap m = {0};
    int rc = filemap_open(&m, path, e);
    if (rc != 0)
        return rc;
    sha256_update_u64(h, m.size);
    for (size_t i = 0; i < m.size; i += step) {
        size_t n = m.size - i < step ? m.size - i : step;
        sha256_update(h, m.data + i, n);
        filemap_drop(m.data + i, n);
    }
    filemap_close(&m);
    return 0;
}

static int hash_all(struct adapter *a, struct err *e)
{
    struct sha256 h;
    char *config = a->gguf ? NULL : hf_path(a->path, HF_ADAPTER_NAME);
    int rc = a->gguf || config ? 0 : adapter_no_memory(e);
    sha256_init(&h);
    if (rc == 0 && config)
        rc = hash_file(&h, config, e);
    if (rc == 0)
        rc = hash_file(&h, a->file, e);
    if (rc == 0)
        sha256_final_hex(&h, a->sha256);
    free(config);
    return rc;
}

int adapter_open(struct adapter **out, const char *path, struct err *e)
{
    struct adapter *a = calloc(1, sizeof *a);
    if (!a)
        return adapter_no_memory(e);
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    a->path = arena_strndup(&a->arena, path, n);
    int rc = a->path ? 0 : adapter_no_memory(e);
    if (rc == 0)
        rc = is_folder(path) ? adapter_open_peft(a, e) : adapter_open_gguf(a, e);
    if (rc == 0)
        rc = hash_all(a, e);
    if (rc != 0) {
        adapter_close(a);
        return rc;
    }
    *out = a;
    return 0;
}

void adapter_close(struct adapter *a)
{
    if (!a)
        return;
    gguf_reader_close(a->gguf);
    safetensors_close(a->safetensors);
    json_free(a->config);
    arena_release(&a->arena);
    free(a);
}
