/* gguf_meta_text.h - metadata from text that people type: "general.name=My model",
 * "qwen3.block_count:u32=28". */
#ifndef KERF_GGUF_META_TEXT_H
#define KERF_GGUF_META_TEXT_H

#include "gguf_meta.h"

/* Parse "key=value" or "key:type=value" and set it in `into`. Types are those of gguf_type_name; "type[]" is
 * an array whose elements are separated by commas. Without a type the key keeps the one it has in `old`
 * (NULL: nothing known); a new key that is known to hold an array (general.tags and the like) is one, another
 * gets bool for true and false, u32 or i32 or i64 or u64 (the first that holds it) for whole numbers, f32 for
 * other numbers, and string for everything else. ERR_ARG: no '=', an empty key, an unknown type, a value that
 * is not of the type. */
int gguf_meta_set_text(struct gguf_meta *into, const struct gguf_meta *old, const char *text, struct err *e);

#endif
