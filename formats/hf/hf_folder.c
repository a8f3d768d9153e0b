/* hf_folder.c - see hf_folder.h. The layout of the cache is that of huggingface_hub:
 * models--ORG--NAME/{blobs,refs,snapshots/COMMIT}, snapshots holding links into blobs. */
#include "hf_folder.h"

#include "hf_adapter.h"
#include "hf_checkpoint.h"

#include "formats/utf8.h"
#include "libquant/base/path.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_COMMIT = 256, MIN_HASH = 32 };

static int no_memory(const char *folder, struct err *e)
{
    return err_set(e, ERR_NOMEM, "%s: out of memory", folder);
}

/* "<folder>/snapshots/<commit>" */
static char *snapshot(const char *folder, const char *commit)
{
    char *all = hf_path(folder, "snapshots"), *one = all ? hf_path(all, commit) : NULL;
    free(all);
    return one;
}

/* The commit that refs/main names; "" when the file is not there or says something else. */
static int read_main(char commit[MAX_COMMIT], const char *folder, struct err *e)
{
    char *refs = hf_path(folder, "refs/main");
    FILE *f = refs ? fopen(refs, "rb") : NULL;
    size_t n = f ? fread(commit, 1, MAX_COMMIT - 1, f) : 0;
    bool refused = !refs;
    if (f)
        fclose(f);
    free(refs);
    while (n && strchr(" \t\r\n", commit[n - 1]))
        n--;
    commit[n] = '\0';
    if (strlen(commit) != n || strpbrk(commit, "/\\") || commit[0] == '.')
        commit[0] = '\0';
    return refused ? no_memory(folder, e) : 0;
}

/* The name of the only folder in `folder`; "" when there are none or several. */
static void only_child(char name[MAX_COMMIT], const char *folder)
{
    DIR *d = opendir(folder);
    size_t n = 0;
    name[0] = '\0';
    for (struct dirent *ent; d && (ent = readdir(d));)
        if (ent->d_name[0] != '.' && n++ == 0)
            snprintf(name, MAX_COMMIT, "%s", ent->d_name);
    if (d)
        closedir(d);
    if (n != 1)
        name[0] = '\0';
}

int hf_folder_find(char **out, const char *path, struct err *e)
{
    char commit[MAX_COMMIT] = "";
    bool is_cache = !hf_file_exists(path, "config.json") && hf_file_exists(path, "snapshots");
    if (!is_cache) {
        *out = strdup(path);
        return *out ? 0 : no_memory(path, e);
    }
    bool has_main = hf_file_exists(path, "refs/main");
    int rc = has_main ? read_main(commit, path, e) : 0;
    if (rc != 0)
        return rc;
    if (!has_main) {
        char *all = hf_path(path, "snapshots");
        if (!all)
            return no_memory(path, e);
        only_child(commit, all);
        free(all);
    }
    char *found = commit[0] ? snapshot(path, commit) : NULL;
    struct stat st;
    if (found && stat(found, &st) == 0 && S_ISDIR(st.st_mode)) {
        *out = found;
        return 0;
    }
    free(found);
    return err_set(
        e, ERR_FORMAT,
        "%s: a folder of HuggingFace's cache, but %s; give one of its snapshots, or download the model "
        "again",
        path, has_main ? "refs/main names no snapshot that is there" : "there is not one snapshot");
}

/* --- names --- */

static bool is_hash(const char *s, size_t n)
{
    static const char sha[] = "sha256-";
    if (n > sizeof sha - 1 && strncmp(s, sha, sizeof sha - 1) == 0) {
        s += sizeof sha - 1;
        n -= sizeof sha - 1;
    }
    if (n < MIN_HASH)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr("0123456789abcdefABCDEF", s[i]))
            return false;
    return true;
}

/* "models--ORG--NAME" as ORG/NAME, another name as it is. Takes `name`. */
static char *from_cache(char *name)
{
    static const char head[] = "models--";
    size_t skip = sizeof head - 1;
    if (!name || strncmp(name, head, skip) != 0)
        return name;
    memmove(name, name + skip, strlen(name + skip) + 1);
    char *at = strstr(name, "--");
    if (at) {
        *at = '/';
        memmove(at + 1, at + 2, strlen(at + 2) + 1);
    }
    return name;
}

/* The last component of `folder`, or of the folder two above when that is a snapshot. */
static char *component(const char *folder)
{
    size_t n;
    const char *last = path_last(folder, &n);
    if (!is_hash(last, n))
        return from_cache(strndup(last, n));
    /* .../NAME/snapshots/HASH */
    char *up = strndup(folder, (size_t)(last - folder));
    const char *parent = up ? path_last(up, &n) : NULL;
    char *name = NULL;
    if (parent && n == strlen("snapshots") && strncmp(parent, "snapshots", n) == 0) {
        char *above = strndup(up, (size_t)(parent - up));
        const char *model = above ? path_last(above, &n) : NULL;
        if (model)
            name = from_cache(strndup(model, is_hash(model, n) ? 0 : n));
        free(above);
    } else if (up) {
        name = strdup("");
    }
    free(up);
    return name;
}

/* Keep what is UTF-8, drop the other bytes. */
static void keep_utf8(char *s)
{
    size_t n = strlen(s), at = 0;
    while (at < n) {
        size_t good = utf8_prefix(s + at, n - at);
        at += good;
        if (at < n) {
            memmove(s + at, s + at + 1, n - at);
            n--;
        }
    }
}

int hf_folder_name(char **out, const char *folder, struct err *e)
{
    size_t n;
    const char *last = path_last(folder, &n);
    bool vague =
        (n == 1 && last[0] == '.') || (n == 2 && last[0] == '.' && last[1] == '.') || is_hash(last, n);
    char *full = vague ? realpath(folder, NULL) : NULL;
    char *name = component(full ? full : folder);
    free(full);
    if (!name)
        return no_memory(folder, e);
    keep_utf8(name);
    *out = name;
    return 0;
}

/* --- folders that are no checkpoint --- */

static bool is_link_to_nowhere(const char *folder, const char *name)
{
    char *path = hf_path(folder, name);
    struct stat st;
    bool yes = path && lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && stat(path, &st) != 0;
    free(path);
    return yes;
}

/* The first name, in order of the alphabet, that begins and ends so; "" when there is none. */
static void find_name(char out[256], const char *folder, const char *head, const char *tail)
{
    DIR *d = opendir(folder);
    out[0] = '\0';
    for (struct dirent *ent; d && (ent = readdir(d));)
        if (strncmp(ent->d_name, head, strlen(head)) == 0 && path_ends_with(ent->d_name, tail) &&
            (out[0] == '\0' || strcmp(ent->d_name, out) < 0))
            snprintf(out, 256, "%s", ent->d_name);
    if (d)
        closedir(d);
}

int hf_folder_refuse(const char *folder, struct err *e)
{
    char name[256];
    if (is_link_to_nowhere(folder, "config.json"))
        return err_set(e, ERR_IO,
                       "%s/config.json: a link to a file that is not there; download the model again",
                       folder);
    if (hf_file_exists(folder, HF_ADAPTER_NAME))
        return hf_adapter_refuse(folder, e);
    find_name(name, folder, "models--", "");
    if (name[0])
        return err_set(e, ERR_ARG,
                       "%s: this is the cache of HuggingFace; give one of its models, such as %s/%s", folder,
                       folder, name);
    find_name(name, folder, "checkpoint-", "");
    if (name[0])
        return err_set(
            e, ERR_ARG,
            "%s: no config.json, but checkpoints of a training run; give one of them, such as %s/%s", folder,
            folder, name);
    if (hf_file_exists(folder, "modules.json")) {
        find_name(name, folder, "0_", "");
        return err_set(
            e, ERR_ARG,
            "%s: a sentence-transformers folder whose model lies in a folder of its own; move the files "
            "of '%.60s' up, beside modules.json",
            folder, name[0] ? name : "its first module");
    }
    if (hf_file_exists(folder, "params.json"))
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: params.json without config.json: the publisher's own layout; fetch the weights in the "
            "layout of transformers",
            folder);
    find_name(name, folder, "", ".gguf");
    if (name[0])
        return err_set(e, ERR_ARG, "%s: no config.json, but GGUF files; give the file, such as %s/%s", folder,
                       folder, name);
    return err_set(e, ERR_IO, "%s/config.json: does not exist, so the folder is not a checkpoint", folder);
}
