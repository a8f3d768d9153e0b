/* test_no_memory.c - every allocation of the readers and writers is refused once: each time the answer is
 * ERR_NOMEM with a message, or success where the memory was not essential; never a crash, and no leak (the
 * sanitizer builds, which bring their own allocator, run the rest of the tests instead of this one). */
#include "formats/model/model.h"
#include "formats/rewrite/copy_gguf.h"
#include "formats/gguf/gguf_read.h"
#include "formats/gguf/gguf_write.h"
#include "formats/gguf/imatrix_file.h"
#include "formats/hf/safetensors_read.h"
#include "formats/hf/safetensors_write.h"
#include "formats/json.h"
#include "formats/text.h"
#include "libquant/base/filemap.h"
#include "libquant/base/printed.h"
#include "toy_checkpoint.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAN_REFUSE 1

/* Seen by the C library too, whose strdup and its likes allocate what is freed here. */
#define SEEN_BY_LIBC __attribute__((visibility("default")))

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

static long until_refusal = -1; /* negative: never */
static long n_live;

static int refuse(void)
{
    if (until_refusal < 0 || until_refusal-- != 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

SEEN_BY_LIBC void *malloc(size_t n)
{
    void *p = refuse() ? NULL : __libc_malloc(n);
    n_live += p != NULL;
    return p;
}

SEEN_BY_LIBC void *calloc(size_t n, size_t size)
{
    void *p = refuse() ? NULL : __libc_calloc(n, size);
    n_live += p != NULL;
    return p;
}

SEEN_BY_LIBC void *realloc(void *old, size_t n)
{
    void *p = refuse() ? NULL : __libc_realloc(old, n);
    n_live += p != NULL && old == NULL;
    return p;
}

SEEN_BY_LIBC void free(void *p)
{
    n_live -= p != NULL;
    __libc_free(p);
}
#else
#define CAN_REFUSE 0
static long until_refusal, n_live;
#endif

static char scratch[64];

/* Longer than the buffers of the C library, so that the text grows several times while it is printed. */
static int work_printed(struct err *e)
{
    enum { N = 9000, WIDTH = 7 };
    struct printed p;
    if (printed_begin(&p) != 0)
        return err_set(e, ERR_NOMEM, "begin");
    for (int i = 0; i < N; i++)
        fprintf(p.out, "%0*d\n", WIDTH - 1, i);
    char *text = printed_end(&p);
    if (!text)
        return err_set(e, ERR_NOMEM, "end");
    bool whole = p.n == N * WIDTH && strlen(text) == p.n;
    for (int i = 0; whole && i < N; i++)
        whole = atoi(text + i * WIDTH) == i;
    free(text);
    return whole ? 0 : err_set(e, ERR_FORMAT, "the text has a hole");
}

/* A header of many tensors, and the data behind it; nothing is kept of the file. */
static int work_safetensors(struct err *e)
{
    struct safetensors_writer *w;
    char out[80], name[40];
    snprintf(out, sizeof out, "%s.safetensors", scratch);
    int rc = safetensors_writer_open(&w, out, true, e);
    if (rc)
        return rc;
    for (int i = 0; rc == 0 && i < 600; i++) {
        snprintf(name, sizeof name, "model.layers.%d.weight", i);
        rc = safetensors_writer_add(w, name, ST_U8, 1, &(uint64_t){1}, e);
        if (rc == 0)
            rc = safetensors_writer_metadata(w, name, "about", e);
    }
    for (int i = 0; rc == 0 && i < 600; i++)
        rc = safetensors_writer_write(w, "x", 1, e);
    if (rc)
        safetensors_writer_abort(w);
    else
        rc = safetensors_writer_commit(w, e);
    struct safetensors_reader *s = NULL;
    long more = until_refusal;
    until_refusal = -1;
    if (rc == 0 && safetensors_open(&s, out, NULL) != 0)
        rc = err_set(e, ERR_FORMAT, "the file cannot be read");
    safetensors_close(s);
    until_refusal = more;
    unlink(out);
    return rc;
}

/* Run `work` with the 1st, 2nd, ... allocation refused until one run needs fewer. */
static void survives(const char *what, int (*work)(struct err *e))
{
    if (!CAN_REFUSE)
        skip();
    long refused = 0;
    for (long n = 0;; n++) {
        struct err e = {0};
        long before = n_live;
        until_refusal = n;
        int rc = work(&e);
        bool reached = until_refusal < 0;
        until_refusal = -1;
        if (n_live != before)
            fail_msg("%s: %ld allocations leak after refusal %ld", what, n_live - before, n);
        if (rc != 0 && (rc != ERR_NOMEM || !e.msg[0] || !reached))
            fail_msg("%s: refusal %ld: code %d '%s'", what, n, rc, e.msg);
        refused += rc != 0;
        if (!reached)
            break;
    }
    printf("%s: %ld refusals reported\n", what, refused);
    assert_true(refused > 0);
}

static int work_json(struct err *e)
{
    static const char text[] =
        "{\"a\": [1, 2, {\"x\": \"y\\n\"}], \"b1\": 0, \"b2\": 0, \"b3\": 0, \"b4\": 0, \"b5\": 0,"
        "\"b6\": 0, \"b7\": 0, \"b8\": 0, \"b9\": 1.5}";
    struct json_doc *d;
    int rc = json_parse(&d, text, sizeof text - 1, "t", e);
    if (rc == 0)
        json_free(d);
    return rc;
}

static int work_reader(struct err *e)
{
    struct gguf_reader *r;
    int rc = gguf_reader_open(&r, scratch, NULL, e);
    if (rc == 0)
        gguf_reader_close(r);
    return rc;
}

static int work_repack(struct err *e)
{
    struct gguf_reader *r;
    struct copy_gguf_report report;
    static const char *const remove[] = {"n"};
    struct copy_gguf_options opt = {.max_tensors = 1, .dry_run = true, .remove = remove, .n_remove = 1};
    int rc = gguf_reader_open(&r, scratch, NULL, e);
    if (rc)
        return rc;
    rc = copy_gguf(r, "unused", &opt, &report, e);
    if (rc == 0)
        copy_gguf_report_release(&report);
    gguf_reader_close(r);
    return rc;
}

static int load_and_build(const char *path, enum imatrix_format format, struct err *e)
{
    struct imatrix *m, *sum = NULL;
    char out[80];
    snprintf(out, sizeof out, "%s.out", scratch);
    int rc = imatrix_load(&m, path, e);
    if (rc)
        return rc;
    rc = imatrix_new(&sum, e);
    if (rc == 0)
        rc = imatrix_merge(sum, m, e);
    if (rc == 0)
        rc = imatrix_save(sum, out, format, true, e);
    imatrix_free(sum);
    imatrix_free(m);
    unlink(out);
    return rc;
}

static int work_imatrix_gguf(struct err *e)
{
    return load_and_build(KERF_TEST_GOLDEN "/imatrix/a.gguf", IMATRIX_DAT, e);
}

static int work_imatrix_dat(struct err *e)
{
    return load_and_build(KERF_TEST_GOLDEN "/imatrix/b.dat", IMATRIX_GGUF, e);
}

static int work_text(struct err *e)
{
    char *text;
    size_t n;
    int rc = text_read(&text, &n, scratch, 0, e);
    if (rc == 0)
        free(text);
    return rc;
}

static int set_up(void **state)
{
    (void)state;
    struct gguf_meta *m;
    struct gguf_string strings[] = {{"a", 1}, {"b", 1}};
    struct gguf_out_tensor t[3] = {{.name = "a", .type = QTYPE_I8, .n_dims = 1, .ne = {3}},
                                   {.name = "b", .type = QTYPE_I8, .n_dims = 1, .ne = {40}},
                                   {.name = "c", .type = QTYPE_I8, .n_dims = 1, .ne = {1}}};
    uint8_t *file;
    size_t header;
    uint64_t total;
    int fd;
    strcpy(scratch, "/tmp/kerf-test-XXXXXX");
    if ((fd = mkstemp(scratch)) < 0 || gguf_meta_new(&m, NULL) != 0)
        return -1;
    int rc = gguf_meta_set_strings(m, "s", strings, 2, NULL);
    rc |= gguf_meta_set_u32(m, "n", 2, NULL);
    rc |= gguf_layout(m, t, 3, &file, &header, &total, NULL);
    gguf_meta_free(m);
    if (rc)
        return rc;
    file = realloc(file, total);
    memset(file + header, 1, total - header);
    rc = write(fd, file, total) == (ssize_t)total ? 0 : -1;
    close(fd);
    free(file);
    return rc;
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(scratch);
}

static void json_survives(void **state)
{
    (void)state;
    survives("json_parse", work_json);
}

static void reader_survives(void **state)
{
    (void)state;
    survives("gguf_reader_open", work_reader);
}

static char folder[] = "/tmp/kerf-no-memory-XXXXXX";

static size_t n_keys; /* of the model when nothing is refused */

static int work_model(struct err *e)
{
    struct model *m = NULL;
    int rc = model_open(&m, folder, NULL, e);
    if (rc == 0) {
        /* Nothing of it may be lost silently. */
        if (model_n_tensors(m) != 1 + 2 + 2 * 9 || gguf_meta_n(model_meta(m)) != n_keys)
            rc = err_set(e, ERR_ARG, "%zu tensors, %zu keys, %zu warnings", model_n_tensors(m),
                         gguf_meta_n(model_meta(m)), model_n_warnings(m));
        model_close(m);
    }
    return rc;
}

/* A folder with a model card, so that names, cards, tensors and vocabulary are all in it. */
static void model_survives(void **state)
{
    (void)state;
    struct toy_spec spec = toy_spec_tiny(TOY_LLAMA);
    char command[100], path[80];
    struct err e = {0};
    spec.rope_scaling = ROPE_LLAMA3;
    spec.tied = true;
    assert_non_null(mkdtemp(folder));
    if (toy_checkpoint_write(folder, &spec, &e) != 0)
        fail_msg("%s", e.msg);
    snprintf(path, sizeof path, "%s/README.md", folder);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs("---\nbase_model: [org/some-7b-chat, {name: x}]\nlicense: mit\ntags:\n- a\n---\n", f);
    fclose(f);
    struct model *m = NULL;
    assert_int_equal(model_open(&m, folder, NULL, NULL), 0);
    n_keys = gguf_meta_n(model_meta(m));
    model_close(m);
    survives("model_open", work_model);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void repack_survives(void **state)
{
    (void)state;
    survives("copy_gguf", work_repack);
}

static void imatrix_survives(void **state)
{
    (void)state;
    survives("imatrix, gguf to dat", work_imatrix_gguf);
    survives("imatrix, dat to gguf", work_imatrix_dat);
}

static void text_survives(void **state)
{
    (void)state;
    survives("text_read", work_text);
}

static void printed_survives(void **state)
{
    (void)state;
    survives("printed", work_printed);
}

static void safetensors_survives(void **state)
{
    (void)state;
    survives("safetensors_writer", work_safetensors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_survives),    cmocka_unit_test(reader_survives),
        cmocka_unit_test(repack_survives),  cmocka_unit_test(imatrix_survives),
        cmocka_unit_test(text_survives),    cmocka_unit_test(model_survives),
        cmocka_unit_test(printed_survives), cmocka_unit_test(safetensors_survives),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
