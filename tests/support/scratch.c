/* scratch.c - see scratch.h. */
#include "scratch.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

void scratch_make(struct scratch *s)
{
    strcpy(s->folder, "/tmp/kerf-test-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
}

static void path_of(const char *folder, const char *name, char path[512])
{
    assert_true(snprintf(path, 512, "%s%s%s", folder, name[0] ? "/" : "", name) < 512);
}

static void write_in(const char *folder, const char *name, const void *data, size_t len)
{
    char path[512];
    path_of(folder, name, path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

void scratch_bytes(const struct scratch *s, const char *name, const void *data, size_t len)
{
    write_in(s->folder, name, data, len);
}

void scratch_text(const struct scratch *s, const char *name, const char *text)
{
    write_in(s->folder, name, text, strlen(text));
}

void scratch_text_in(const char *folder, const char *name, const char *text)
{
    write_in(folder, name, text, strlen(text));
}

void scratch_delete(const struct scratch *s, const char *name)
{
    char path[512];
    path_of(s->folder, name, path);
    remove(path);
}

static void empty_folder(const char *folder, int levels)
{
    DIR *d = opendir(folder);
    if (!d)
        return;
    for (struct dirent *ent; (ent = readdir(d)) != NULL;) {
        char path[512];
        if (strcmp(ent->d_name, ".") == 0 || strcmp(ent->d_name, "..") == 0 ||
            snprintf(path, sizeof path, "%s/%s", folder, ent->d_name) >= (int)sizeof path)
            continue;
        if (remove(path) != 0 && levels > 0) {
            empty_folder(path, levels - 1);
            remove(path);
        }
    }
    closedir(d);
}

void scratch_remove(struct scratch *s)
{
    empty_folder(s->folder, 2);
    rmdir(s->folder);
}

static struct scratch of_the_program;

int scratch_begin(void **state)
{
    (void)state;
    scratch_make(&of_the_program);
    return 0;
}

int scratch_end(void **state)
{
    (void)state;
    scratch_remove(&of_the_program);
    return 0;
}

const char *in_scratch(const char *name)
{
    static char path[8][512];
    static unsigned turn;
    char *p = path[turn++ % 8];
    path_of(of_the_program.folder, name, p);
    return p;
}
