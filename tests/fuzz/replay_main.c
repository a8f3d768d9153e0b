/* replay_main.c - runs a fuzz target over the files and folders named on the command line, under any
 * compiler. The first one is the target's own corpus and must hold a file; of the others, missing ones are
 * skipped, since the wider corpora need not be present. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t n_files;

static void replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return;
    uint8_t *data = NULL;
    size_t n = 0, cap = 0;
    for (;;) {
        if (n == cap) {
            cap = cap ? cap * 2 : 65536;
            uint8_t *grown = realloc(data, cap);
            if (!grown)
                break;
            data = grown;
        }
        size_t k = fread(data + n, 1, cap - n, f);
        if (k == 0)
            break;
        n += k;
    }
    fclose(f);
    /* an exact-size copy, so that a sanitizer sees the first byte read past the end */
    uint8_t *exact = malloc(n ? n : 1);
    if (exact) {
        if (n)
            memcpy(exact, data, n);
        LLVMFuzzerTestOneInput(exact, n);
        n_files++;
    }
    free(exact);
    free(data);
}

static void replay(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return;
    if (!S_ISDIR(st.st_mode)) {
        replay_file(path);
        return;
    }
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *ent; (ent = readdir(d)) != NULL;) {
        if (ent->d_name[0] == '.')
            continue;
        char child[4096];
        if (snprintf(child, sizeof child, "%s/%s", path, ent->d_name) < (int)sizeof child)
            replay(child);
    }
    closedir(d);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        replay(argv[i]);
        if (i == 1 && n_files == 0) { /* a corpus that is gone would pass every test */
            fprintf(stderr, "%s: no file to replay\n", argv[1]);
            return 1;
        }
    }
    printf("replayed %zu files\n", n_files);
    return argc < 2;
}
