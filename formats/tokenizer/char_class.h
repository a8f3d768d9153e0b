/* char_class.h - the five kinds of characters that pre-tokenizers tell apart, as of Unicode 16.
 *
 * Categories come from utf8proc; what its version does not know yet comes from a table of the letters,
 * numbers and marks of Unicode 15.1 and 16, so that ids do not depend on the library's age. White space is
 * the Unicode property White_Space (what \s means to the engine behind the HuggingFace tokenizers), not
 * category Z. */
#ifndef KERF_CHAR_CLASS_H
#define KERF_CHAR_CLASS_H

#include <stdint.h>

enum char_class { CHAR_LETTER = 1, CHAR_NUMBER = 2, CHAR_MARK = 4, CHAR_SPACE = 8, CHAR_OTHER = 16 };

extern const uint8_t CHAR_CLASS_ASCII[128];

int char_class(uint32_t cp);

/* The finer kinds that some pre-tokenizers ask for; a letter of a recent version of Unicode counts as one
 * without case. */
enum char_detail {
    DETAIL_UPPER = 1, /* Lu, Lt */
    DETAIL_LOWER = 2,
    DETAIL_CASELESS = 4, /* Lm, Lo */
    DETAIL_LETTER = DETAIL_UPPER | DETAIL_LOWER | DETAIL_CASELESS,
    DETAIL_MARK = 8,
    DETAIL_PUNCTUATION = 16,
    DETAIL_SYMBOL = 32,
    DETAIL_HAN = 64,      /* the script, whatever the category */
    DETAIL_DECIMAL = 128, /* Nd, what \d means */
    DETAIL_WORD = 256,    /* what \w means to that engine */
};

int char_detail(uint32_t cp);

#endif
