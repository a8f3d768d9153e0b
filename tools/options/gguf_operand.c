/* gguf_operand.c - see gguf_operand.h. */
#include "gguf_operand.h"

#include <sys/stat.h>

int gguf_operand_open(struct gguf_reader **out, const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return err_set(e, ERR_ARG,
                       "%s: is a folder, but this command takes a GGUF file; write one first: 'kerf convert "
                       "%s -o MODEL.gguf'",
                       path, path);
    return gguf_reader_open(out, path, NULL, e);
}
