/* gguf_operand.h - the operand of commands that take a GGUF file and nothing else. */
#ifndef KERF_GGUF_OPERAND_H
#define KERF_GGUF_OPERAND_H

#include "formats/gguf/gguf_read.h"

/* As gguf_reader_open; a folder is refused with what to do about it. */
int gguf_operand_open(struct gguf_reader **out, const char *path, struct err *e);

#endif
