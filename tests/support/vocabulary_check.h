/* vocabulary_check.h - what tests expect of vocabularies. */
#ifndef KERF_VOCABULARY_CHECK_H
#define KERF_VOCABULARY_CHECK_H

#include "formats/tokenizer/vocab_build.h"

/* That of a checkpoint folder with n_rows of embedding (0: not known); caller frees with vocabulary_free. The
 * test fails where it is refused. */
struct vocabulary *vocabulary_of(const char *folder, const struct hf_config *config, uint64_t n_rows);

/* The test fails unless the folder's is refused with this code and a message that contains `words`. */
void vocabulary_refused(const char *folder, uint64_t n_rows, enum err_code code, const char *words);

/* The test fails unless token `id` is this text, of this type. */
void vocabulary_has(const struct vocabulary *v, size_t id, const char *text, enum token_type type);

/* Does a warning contain `words`? */
bool vocabulary_warned(const struct vocabulary *v, const char *words);

#endif
