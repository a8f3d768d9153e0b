/* make_bad_safetensors.c - writes one malformed safetensors file for each rejection rule of the reader, named
 * after the rule: make_bad_safetensors OUT_DIR. Its output is committed as tests/data/bad/safetensors; run it
 * again after adding a rule. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define GOOD "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

/* `n_data` bytes follow the header; `declared` replaces the header's length unless 0. */
struct bad_file {
    const char *name, *header;
    size_t n_data;
    uint64_t declared;
};

static const struct bad_file files[] = {
    {"header-too-long", "{}", 0, 100000001},
    {"header-length-overflows", "{}", 0, UINT64_MAX - 3},
    {"header-beyond-file", "{\"a\":" GOOD "}", 0, 4096},
    {"header-empty", "", 0, 0},
    {"header-not-utf8", "{\"a\xff\":" GOOD "}", 8, 0},
    {"header-is-array", "[" GOOD "]", 8, 0},
    {"header-not-json", "{\"a\":" GOOD ",}", 8, 0},
    {"header-unquoted-key", "{a:" GOOD "}", 8, 0},
    {"header-trailing-nul", "{\"a\":" GOOD "}\1", 8, 0}, /* \1 is written as NUL */
    {"header-trailing-object", "{\"a\":" GOOD "} {}", 8, 0},
    {"name-twice", "{\"a\":" GOOD ",\"a\":" GOOD "}", 8, 0},
    {"name-with-nul", "{\"a\\u0000b\":" GOOD "}", 8, 0},
    {"field-twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     0},
    {"tensor-not-object", "{\"a\":[0,8]}", 8, 0},
    {"dtype-missing", "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0},
    {"dtype-not-string", "{\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0},
    {"dtype-unknown", "{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0},
    {"dtype-lower-case", "{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0},
    {"shape-missing", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, 0},
    {"shape-not-array", "{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, 0},
    {"shape-negative", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, 0},
    {"shape-fraction", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.5],\"data_offsets\":[0,8]}}", 8, 0},
    {"shape-boolean", "{\"a\":{\"dtype\":\"F32\",\"shape\":[true,2],\"data_offsets\":[0,8]}}", 8, 0},
    {"shape-string", "{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", 8, 0},
    {"shape-null", "{\"a\":{\"dtype\":\"F32\",\"shape\":null,\"data_offsets\":[0,8]}}", 8, 0},
    {"shape-nine-dims", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
     0},
    {"offsets-missing", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, 0},
    {"offsets-not-array", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":{\"b\":0,\"e\":8}}}", 8,
     0},
    {"offsets-one", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]}}", 8, 0},
    {"offsets-three", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, 0},
    {"offsets-negative", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, 0},
    {"offsets-fraction", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8.5]}}", 8, 0},
    {"offsets-boolean", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[false,true]}}", 1, 0},
    {"offsets-above-64-bits",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[18446744073709551616,18446744073709551624]}}",
     8, 0},
    {"offsets-backwards", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, 0},
    {"data-starts-late", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, 0},
    {"data-hole", "{\"a\":" GOOD ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[12,16]}}", 16, 0},
    {"data-overlap", "{\"a\":" GOOD ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, 0},
    {"data-shared", "{\"a\":" GOOD ",\"b\":" GOOD "}", 8, 0},
    {"data-truncated", "{\"a\":" GOOD "}", 7, 0},
    {"data-too-long", "{\"a\":" GOOD "}", 9, 0},
    {"data-without-tensors", "{}", 1, 0},
    {"size-elements-overflow",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[4503599627370496,4503599627370496],\"data_offsets\":[0,0]}}", 0, 0},
    {"size-bits-overflow",
     "{\"a\":{\"dtype\":\"F64\",\"shape\":[4503599627370496,128],\"data_offsets\":[0,0]}}", 0, 0},
    {"size-half-byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, 0},
    {"size-six-bits", "{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, 0},
    {"size-larger-than-shape", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, 0},
    {"size-smaller-than-shape", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, 0},
    {"size-scalar", "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,8]}}", 8, 0},
    {"metadata-not-object", "{\"__metadata__\":\"pt\",\"a\":" GOOD "}", 8, 0},
    {"metadata-number", "{\"__metadata__\":{\"step\":3},\"a\":" GOOD "}", 8, 0},
    {"metadata-null", "{\"__metadata__\":{\"format\":null},\"a\":" GOOD "}", 8, 0},
    {"metadata-twice", "{\"__metadata__\":{},\"__metadata__\":{},\"a\":" GOOD "}", 8, 0},
};

static int write_file(const char *folder, const char *name, const void *data, size_t n)
{
    char path[1024];
    if (snprintf(path, sizeof path, "%s/%s.safetensors", folder, name) >= (int)sizeof path)
        return -1;
    FILE *f = fopen(path, "wb");
    if (!f)
        return -1;
    size_t written = fwrite(data, 1, n, f);
    return fclose(f) == 0 && written == n ? 0 : -1;
}

int main(int argc, char **argv)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\n"
                              "oid sha256:0000000000000000000000000000000000000000000000000000000000000000\n"
                              "size 1200000000\n";
    if (argc != 2) {
        fprintf(stderr, "usage: make_bad_safetensors OUT_DIR\n");
        return 2;
    }
    int bad = write_file(argv[1], "file-too-short", "\2\0\0\0\0\0\0", 7) |
              write_file(argv[1], "file-empty", "", 0) |
              write_file(argv[1], "git-lfs-pointer", lfs, sizeof lfs - 1);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const struct bad_file *b = &files[i];
        uint8_t out[512] = {0};
        size_t n = strlen(b->header);
        uint64_t declared = b->declared ? b->declared : n;
        memcpy(out, &declared, 8);
        memcpy(out + 8, b->header, n);
        for (size_t k = 8; k < 8 + n; k++)
            out[k] = out[k] == 1 ? 0 : out[k];
        bad |= write_file(argv[1], b->name, out, 8 + n + b->n_data);
    }
    if (bad)
        fprintf(stderr, "%s: cannot write\n", argv[1]);
    return bad ? 1 : 0;
}
