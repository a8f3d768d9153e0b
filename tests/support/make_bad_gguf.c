/* make_bad_gguf.c - writes tests/data/bad/gguf: one tiny malformed GGUF file for each rule of the reader,
 * named after the rule. Usage: make_bad_gguf FOLDER. The files are committed; test_gguf_read.c says what each
 * must answer. Every file differs from a sound one in the named rule only. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { U8 = 0, U16 = 2, U32 = 4, I32 = 5, BOOL = 7, STRING = 8, ARRAY = 9, U64 = 10 };
enum { F32 = 0, Q4_2 = 4, Q8_0 = 8, Q8_1 = 9, F64 = 28, UNKNOWN = 99 };

static const char *folder;
static unsigned char buf[4096];
static size_t len;

static void raw(const void *p, size_t n)
{
    memcpy(buf + len, p, n);
    len += n;
}

static void u8(uint8_t v)
{
    raw(&v, 1);
}

static void u16(uint16_t v)
{
    raw(&v, 2);
}

static void u32(uint32_t v)
{
    raw(&v, 4);
}

static void u64(uint64_t v)
{
    raw(&v, 8);
}

static void str(const char *s)
{
    u64(strlen(s));
    raw(s, strlen(s));
}

static void start(uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    len = 0;
    raw("GGUF", 4);
    u32(version);
    u64(n_tensors);
    u64(n_kv);
}

static void key(const char *name, uint32_t type)
{
    str(name);
    u32(type);
}

static void array(const char *name, uint32_t elem, uint64_t n)
{
    key(name, ARRAY);
    u32(elem);
    u64(n);
}

static void tensor(const char *name, uint64_t n_cols, uint64_t n_rows, uint32_t type, uint64_t offset)
{
    str(name);
    u32(2);
    u64(n_cols);
    u64(n_rows);
    u32(type);
    u64(offset);
}

static void data(size_t n)
{
    while (len % 32)
        u8(0);
    for (size_t i = 0; i < n; i++)
        u8(0);
}

static void save(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.gguf", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(buf, 1, len, f) != len || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static void save_cut(const char *name, size_t n_bytes)
{
    len = n_bytes;
    save(name);
}

static void bad_headers(void)
{
    start(3, 0, 0);
    save_cut("empty-file", 0);
    save_cut("cut-in-magic", 3);
    save_cut("cut-in-version", 6);
    save_cut("cut-in-counts", 20);
    start(3, 0, 0);
    memcpy(buf, "GGML", 4);
    save("magic-wrong");
    memcpy(buf, "FUGG", 4);
    save("magic-reversed");
    start(0x03000000, 0, 0);
    save("big-endian");
    start(0, 0, 0);
    save("version-0");
    start(1, 0, 0);
    save("version-1");
    start(4, 0, 0);
    save("version-4");
    start(3, 0, UINT64_MAX);
    save("keys-more-than-bytes");
    start(3, UINT64_MAX / 2, 0);
    save("tensors-more-than-bytes");
    start(3, 3, 1); /* fits before the metadata is read, not behind it */
    key("k", STRING);
    str("a text that uses up the bytes that three tensor records would need");
    save("tensors-more-than-bytes-behind-keys");
}

static void bad_keys(void)
{
    start(3, 0, 1);
    u64(1000);
    raw("abcdefgh", 8);
    save("key-beyond-end");
    start(3, 0, 1);
    key("", U32);
    u32(1);
    save("key-empty");
    start(3, 0, 1);
    key("a\xff", U32);
    u32(1);
    save("key-not-utf8");
    start(3, 0, 1);
    u64(3);
    raw("a\0b", 3);
    u32(U32);
    u32(1);
    save("key-with-nul");
    start(3, 0, 2);
    key("same", U32);
    u32(1);
    key("same", U8);
    u8(1);
    save("key-twice");
    start(3, 0, 1);
    key("k", 13);
    u32(1);
    save("value-type-unknown");
    start(3, 0, 1);
    key("k", U64);
    u32(1);
    save("value-cut");
    start(3, 0, 1);
    key("k", BOOL);
    u8(2);
    save("value-bool-2");
    start(3, 0, 1);
    key("k", STRING);
    u64(100);
    raw("abc", 3);
    save("string-beyond-end");
    start(3, 0, 1);
    key("k", STRING);
    u64(((uint64_t)1 << 30) + 1);
    save("string-over-limit");
}

static void bad_arrays(void)
{
    start(3, 0, 1);
    array("k", ARRAY, 1);
    u32(U8);
    u64(1);
    u8(0);
    save("array-of-arrays");
    start(3, 0, 1);
    array("k", 77, 1);
    u8(0);
    save("array-element-type-unknown");
    start(3, 0, 1);
    array("k", U32, 100);
    u32(0);
    save("array-beyond-end");
    start(3, 0, 1);
    array("k", U8, ((uint64_t)1 << 30) + 1);
    save("array-over-limit");
    start(3, 0, 1);
    array("k", STRING, 1000000);
    u64(0);
    save("array-strings-more-than-bytes");
    start(3, 0, 1);
    array("k", STRING, 2);
    str("abcdefgh");
    u32(0);
    save("array-string-cut");
    start(3, 0, 1);
    array("k", BOOL, 2);
    u8(1);
    u8(7);
    save("array-bool-7");
}

static void bad_alignments(void)
{
    start(3, 0, 1);
    key("general.alignment", U64);
    u64(32);
    save("alignment-not-u32");
    start(3, 0, 1);
    key("general.alignment", U32);
    u32(0);
    save("alignment-0");
    start(3, 0, 1);
    key("general.alignment", U32);
    u32(48);
    save("alignment-48");
}

static void one_tensor(const char *file, const char *name, uint64_t n_cols, uint64_t n_rows, uint32_t type,
                       size_t n_bytes)
{
    start(3, 1, 0);
    tensor(name, n_cols, n_rows, type, 0);
    data(n_bytes);
    save(file);
}

static void bad_tensors(void)
{
    char long_name[65];
    memset(long_name, 'n', 64);
    long_name[64] = 0;
    one_tensor("tensor-name-empty", "", 4, 1, F32, 16);
    one_tensor("tensor-name-64-bytes", long_name, 4, 1, F32, 16);
    one_tensor("tensor-name-not-utf8", "t\xc0\x80", 4, 1, F32, 16);
    start(3, 1, 0);
    u64(3);
    raw("a\0b", 3);
    u32(0);
    u32(F32);
    u64(0);
    data(4);
    save("tensor-name-with-nul");
    start(3, 2, 0);
    tensor("same", 8, 1, F32, 0);
    tensor("same", 8, 1, F32, 32);
    data(64);
    save("tensor-name-twice");
    start(3, 1, 0);
    str("t");
    u32(5);
    for (int d = 0; d < 5; d++)
        u64(1);
    u32(F32);
    u64(0);
    data(4);
    save("tensor-5-dimensions");
    one_tensor("tensor-dimension-0", "t", 4, 0, F32, 16);
    one_tensor("tensor-elements-2-to-63", "t", (uint64_t)1 << 62, 2, F32, 16);
    one_tensor("tensor-dimension-negative", "t", 4, UINT64_MAX, F32, 16);
    one_tensor("tensor-bytes-overflow", "t", (uint64_t)1 << 61, 2, F64, 16);
    one_tensor("tensor-type-retired", "t", 32, 1, Q4_2, 64);
    one_tensor("tensor-type-unknown", "t", 32, 1, UNKNOWN, 64);
    one_tensor("tensor-type-activations", "t", 32, 1, Q8_1, 64);
    one_tensor("tensor-row-not-blocks", "t", 33, 1, Q8_0, 64);
    one_tensor("tensor-data-cut", "t", 4, 4, F32, 63);
    one_tensor("tensor-data-missing", "t", 4, 4, F32, 0);
    start(3, 1, 0);
    tensor("a-name-that-is-long-enough", 4, 4, F32, 0);
    save_cut("tensor-record-cut", len - 3);
    start(3, 2, 0);
    tensor("a", 4, 1, F32, 0);
    tensor("b", 4, 1, F32, 64);
    data(128);
    save("offset-gap");
    start(3, 2, 0);
    tensor("a", 4, 1, F32, 0);
    tensor("b", 4, 1, F32, 16);
    data(64);
    save("offset-not-aligned");
    start(3, 2, 0);
    tensor("a", 4, 1, F32, 32);
    tensor("b", 4, 1, F32, 0);
    data(64);
    save("offset-not-in-record-order");
    start(3, 2, 0);
    tensor("a", 4, 1, F32, 0);
    tensor("b", 4, 1, F32, 0);
    data(64);
    save("offset-overlap");
}

/* Part `no` of a set with the keys as given and one tensor. */
static void part(const char *file, uint16_t no, uint16_t count, int32_t total, const char *tensor_name)
{
    start(3, 1, 3);
    key("split.no", U16);
    u16(no);
    key("split.count", U16);
    u16(count);
    key("split.tensors.count", I32);
    u32((uint32_t)total);
    tensor(tensor_name, 4, 1, F32, 0);
    data(32);
    save(file);
}

static void bad_splits(void)
{
    part("split-name-lost", 0, 2, 2, "a");
    part("split-part-missing-00001-of-00002", 0, 2, 2, "a");
    part("split-no-wrong-00001-of-00002", 0, 2, 2, "a");
    part("split-no-wrong-00002-of-00002", 0, 2, 2, "b");
    part("split-count-wrong-00001-of-00002", 0, 2, 2, "a");
    part("split-count-wrong-00002-of-00002", 1, 3, 2, "b");
    part("split-total-wrong-00001-of-00002", 0, 2, 3, "a");
    part("split-total-wrong-00002-of-00002", 1, 2, 3, "b");
    part("split-tensor-twice-00001-of-00002", 0, 2, 2, "a");
    part("split-tensor-twice-00002-of-00002", 1, 2, 2, "a");
    part("split-keys-missing-00001-of-00002", 0, 2, 1, "a");
    start(3, 0, 0);
    save("split-keys-missing-00002-of-00002");
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_bad_gguf FOLDER\n");
        return 2;
    }
    folder = argv[1];
    bad_headers();
    bad_keys();
    bad_arrays();
    bad_alignments();
    bad_tensors();
    bad_splits();
    return 0;
}
