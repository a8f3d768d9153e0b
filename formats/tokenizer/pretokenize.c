/* pretokenize.c - see pretokenize.h. Each matcher returns the end of the first match of its pattern at `p`;
 * the comments carry the alternative of the pattern that a line stands for.
 *
 * A code point's class is one of letter, number, mark, white space, or other; see char_class.h. */
#include "pretokenize.h"

#include "char_class.h"
#include "codepoint.h"

#include <string.h>

enum { NOTHING = 0 }; /* end of text, beside enum char_class */

/* Class of the code point at `p`, and where the next one starts; NOTHING at the end. */
static int class_at(const uint8_t *p, const uint8_t *end, const uint8_t **next)
{
    if (p >= end) {
        *next = end;
        return NOTHING;
    }
    if (*p < 128) {
        *next = p + 1;
        return CHAR_CLASS_ASCII[*p];
    }
    uint32_t cp;
    *next = p + utf8_decode(p, &cp);
    return char_class(cp);
}

static const uint8_t *skip_run(const uint8_t *p, const uint8_t *end, int classes)
{
    const uint8_t *next;
    while (class_at(p, end, &next) & classes)
        p = next;
    return p;
}

static bool is_newline(uint8_t c)
{
    return c == '\r' || c == '\n';
}

/* 's 't 're 've 'm 'll 'd after the apostrophe at `p`. With `fold` case does not matter, and the long s
 * U+017F is an s too (the only other code point that folds to one of these letters). NULL: no match. */
static const uint8_t *contraction(const uint8_t *p, const uint8_t *end, bool fold)
{
    if (end - p < 2 || *p != '\'')
        return NULL;
    uint8_t a = p[1], b = end - p > 2 ? p[2] : 0;
    if (fold) {
        if (a == 0xC5 && b == 0xBF)
            return p + 3;
        a = a >= 'A' && a <= 'Z' ? a + 32 : a;
        b = b >= 'A' && b <= 'Z' ? b + 32 : b;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return p + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return p + 3;
    return NULL;
}

/* The alternatives for white space, `p` at a White_Space code point:
 *   \s*[\r\n]+   (only with `newlines`)   through the last line end of the run
 *   \s+(?!\S)    the run without its last code point, unless it ends the text
 *   \s+          what is left: one code point */
static const uint8_t *space_run(const uint8_t *p, const uint8_t *end, bool newlines)
{
    const uint8_t *after_newline = NULL, *last = p, *q = p, *next;
    while (class_at(q, end, &next) == CHAR_SPACE) {
        if (is_newline(*q))
            after_newline = next;
        last = q;
        q = next;
    }
    if (newlines && after_newline)
        return after_newline;
    if (q == end)
        return q;
    return last > p ? last : q;
}

/* The family of Qwen and Llama 3:
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?LET+ | \p{N}{1,max_digits} | ?[^\s LET \p{N}]+[\r\n]*
 *   | \s*[\r\n]+ | \s+(?!\S) | \s+            LET = \p{L}, for Qwen3.5 [\p{L}\p{M}] */
static const uint8_t *match_qwen(const uint8_t *p, const uint8_t *end, int let, int max_digits)
{
    const uint8_t *q = contraction(p, end, true);
    if (q)
        return q;
    const uint8_t *next, *after;
    int c = class_at(p, end, &next);
    if (c & let)
        return skip_run(next, end, let);
    if (c == CHAR_NUMBER) {
        for (int i = 1; i < max_digits && class_at(next, end, &after) == CHAR_NUMBER; i++)
            next = after;
        return next;
    }
    if (!is_newline(*p) && (class_at(next, end, &after) & let))
        return skip_run(after, end, let);
    const int other = (CHAR_OTHER | CHAR_MARK) & ~let;
    q = c & other ? next : *p == ' ' && (class_at(next, end, &after) & other) ? after : NULL;
    if (q) {
        q = skip_run(q, end, other);
        while (q < end && is_newline(*q))
            q++;
        return q;
    }
    return space_run(p, end, true);
}

/* GPT-2: '(?:[sdmt]|ll|ve|re) | ?\p{L}+ | ?\p{N}+ | ?[^\s\p{L}\p{N}]+ | \s+(?!\S) | \s+ */
static const uint8_t *match_gpt2(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = contraction(p, end, false);
    if (q)
        return q;
    const uint8_t *next, *after;
    int c = class_at(p, end, &next);
    if (*p == ' ') {
        int d = class_at(next, end, &after);
        if (d != CHAR_SPACE && d != NOTHING) {
            c = d;
            next = after;
        }
    }
    if (c == CHAR_LETTER || c == CHAR_NUMBER)
        return skip_run(next, end, c);
    if (c == CHAR_OTHER || c == CHAR_MARK)
        return skip_run(next, end, CHAR_OTHER | CHAR_MARK);
    return space_run(p, end, false);
}

void pretokenize_begin(struct pretokenize *it, enum pretokenizer kind, const char *text, size_t len)
{
    it->kind = kind;
    it->p = (const uint8_t *)text;
    it->end = it->p + len;
    it->limit = it->p;
}

/* StarCoder cuts every digit out first and applies GPT-2's pattern between them, each stretch on its own. */
static const uint8_t *match_starcoder(struct pretokenize *it)
{
    const uint8_t *next;
    if (class_at(it->p, it->end, &next) == CHAR_NUMBER)
        return next;
    if (it->limit <= it->p)
        it->limit = skip_run(it->p, it->end, CHAR_LETTER | CHAR_MARK | CHAR_SPACE | CHAR_OTHER);
    return match_gpt2(it->p, it->limit);
}

bool pretokenize_next(struct pretokenize *it, const char **piece, size_t *len)
{
    if (it->p >= it->end)
        return false;
    const uint8_t *q = it->end;
    switch (it->kind) {
    case PRE_QWEN2: q = match_qwen(it->p, it->end, CHAR_LETTER, 1); break;
    case PRE_QWEN35: q = match_qwen(it->p, it->end, CHAR_LETTER | CHAR_MARK, 1); break;
    case PRE_LLAMA3: q = match_qwen(it->p, it->end, CHAR_LETTER, 3); break;
    case PRE_GPT2: q = match_gpt2(it->p, it->end); break;
    case PRE_STARCODER: q = match_starcoder(it); break;
    }
    *piece = (const char *)it->p;
    *len = (size_t)(q - it->p);
    it->p = q;
    return true;
}

/* Names that share one behaviour in the runtimes. `nfc` is true where the tokenizers published under the name
 * normalise; the others do not (DeepSeek's distillations use Qwen's pattern without its normaliser). */
static const struct pretokenizer_info NAMES[] = {
    {"qwen2", PRE_QWEN2, false, false, true},
    {"qwen35", PRE_QWEN35, false, false, true},
    {"deepseek-r1-qwen", PRE_QWEN2, false, false, false},
    {"stablelm2", PRE_QWEN2, false, false, false},
    {"megrez", PRE_QWEN2, false, false, false},
    {"hunyuan", PRE_QWEN2, false, false, false},
    {"grok-2", PRE_QWEN2, false, false, false},
    {"llama-bpe", PRE_LLAMA3, true, true, false},
    {"llama3", PRE_LLAMA3, true, true, false},
    {"llama-v3", PRE_LLAMA3, true, true, false},
    {"falcon3", PRE_LLAMA3, true, true, false},
    {"lfm2", PRE_LLAMA3, true, true, false},
    {"dbrx", PRE_LLAMA3, false, false, false},
    {"smaug-bpe", PRE_LLAMA3, false, false, false},
    {"glm4", PRE_LLAMA3, false, false, false},
    {"chatglm-bpe", PRE_LLAMA3, false, false, false},
    {"gpt-2", PRE_GPT2, false, false, false},
    {"phi-2", PRE_GPT2, false, false, false},
    {"mpt", PRE_GPT2, false, false, false},
    {"olmo", PRE_GPT2, false, false, false},
    {"jais", PRE_GPT2, false, false, false},
    {"starcoder", PRE_STARCODER, false, false, false},
    {"refact", PRE_STARCODER, false, false, false},
    {"smollm", PRE_STARCODER, false, false, false},
    {"command-r", PRE_STARCODER, false, false, false},
    {"codeshell", PRE_STARCODER, false, false, false},
};

const struct pretokenizer_info *pretokenizer_find(const char *name)
{
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(NAMES[i].name, name) == 0)
            return &NAMES[i];
    return NULL;
}

bool pretokenizer_from_pattern(const char *pattern, enum pretokenizer *out)
{
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    static const struct {
        const char *pattern;
        enum pretokenizer kind;
    } known[] = {
        {CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES,
         PRE_QWEN2},
        {CONTRACTIONS
         "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES,
         PRE_QWEN35},
        {CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES,
         PRE_LLAMA3},
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", PRE_GPT2},
    };
#undef CONTRACTIONS
#undef SPACES
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].pattern, pattern) == 0) {
            *out = known[i].kind;
            return true;
        }
    return false;
}
