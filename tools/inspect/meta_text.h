/* meta_text.h - GGUF metadata values for people and for scripts. */
#ifndef KERF_META_TEXT_H
#define KERF_META_TEXT_H

#include "formats/gguf/gguf_meta.h"
#include "formats/json.h"

#include <stdio.h>

/* One line: "42", "qwen3", "[5, 6, 7, ...] (151936 x string)"; long texts are cut, control characters
 * escaped ("\\n", "\\x1b"). Returns `out`. */
const char *meta_value_text(const struct gguf_value *v, char *out, size_t size);

/* A byte as it may stand in a line of text: itself, or escaped as above. NUL-terminated; returns its length.
 */
size_t meta_escape(char out[5], unsigned char c);

/* "u32", "array of string". Returns `out`. */
const char *meta_type_text(const struct gguf_value *v, char *out, size_t size);

/* The value as JSON. Arrays of more than `max_elems` elements become {"array": "string", "n": 151936}. */
void meta_value_json(struct json_writer *w, const struct gguf_value *v, uint64_t max_elems);

/* The value whole, with a line end: a text as it is, an array an element a line with texts escaped. */
void meta_value_print(const struct gguf_value *v, FILE *out);

/* The value whole on one line, with its end: a text escaped, an array as JSON. */
void meta_value_line(const struct gguf_value *v, FILE *out);

/* A node of config.json as it is. */
void meta_json_node(struct json_writer *w, const struct json *j);

/* All keys as one object, or as members of one that is open. */
void meta_json_members(struct json_writer *w, const struct gguf_meta *m, uint64_t max_elems);
void meta_json(struct json_writer *w, const struct gguf_meta *m, uint64_t max_elems);

#endif
