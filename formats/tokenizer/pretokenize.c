/* pretokenize.c - see pretokenize.h. Each matcher returns the end of the first match of its pattern at `p`;
 * the comments carry the alternative of the pattern that a line stands for.
 *
 * A code point's class is one of letter, number, mark, white space, or other; see char_class.h. */
#include "pretokenize.h"

#include "char_class.h"
#include "codepoint.h"
#include "pretokenize_stages.h"

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

int pretokenize_class(const uint8_t *p, const uint8_t *end, const uint8_t **next)
{
    return class_at(p, end, next);
}

const uint8_t *pretokenize_contraction(const uint8_t *p, const uint8_t *end, bool fold)
{
    return contraction(p, end, fold);
}

const uint8_t *pretokenize_space(const uint8_t *p, const uint8_t *end, bool newlines)
{
    return space_run(p, end, newlines);
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

const uint8_t *pretokenize_gpt2(const uint8_t *p, const uint8_t *end)
{
    return match_gpt2(p, end);
}

const uint8_t *pretokenize_qwen2(const uint8_t *p, const uint8_t *end)
{
    return match_qwen(p, end, CHAR_LETTER, 1);
}

const uint8_t *pretokenize_llama3(const uint8_t *p, const uint8_t *end)
{
    return match_qwen(p, end, CHAR_LETTER, 3);
}

const uint8_t *pretokenize_llama3_long(const uint8_t *p, const uint8_t *end)
{
    return match_qwen(p, end, CHAR_LETTER, INT32_MAX);
}

void pretokenize_begin(struct pretokenize *it, enum pretokenizer kind, const char *text, size_t len)
{
    it->kind = kind;
    it->p = (const uint8_t *)text;
    it->end = it->p + len;
    it->limit = it->p;
    if (pretokenize_stages(kind))
        memset(it->level, 0, sizeof it->level);
    it->level[0] = (struct pretokenize_level){it->p, it->end, it->p, it->p};
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

/* [^\n]+|\n+ : what is between runs of line ends, and those */
static const uint8_t *match_lines(const uint8_t *p, const uint8_t *end)
{
    bool newline = *p == '\n';
    while (p < end && (*p == '\n') == newline)
        p++;
    return p;
}

/* \S+ , and what is between the words, which the caller drops */
static const uint8_t *match_words(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *next;
    return class_at(p, end, &next) == CHAR_SPACE
               ? skip_run(p, end, CHAR_SPACE)
               : skip_run(p, end, CHAR_LETTER | CHAR_NUMBER | CHAR_MARK | CHAR_OTHER);
}

bool pretokenize_next(struct pretokenize *it, const char **piece, size_t *len)
{
    if (it->p >= it->end)
        return false;
    const uint8_t *q = it->end, *from = it->p;
    if (pretokenize_stages(it->kind) && !pretokenize_next_stage(it, &from, &q))
        return false;
    switch (it->kind) {
    case PRE_QWEN2: q = match_qwen(it->p, it->end, CHAR_LETTER, 1); break;
    case PRE_QWEN35: q = match_qwen(it->p, it->end, CHAR_LETTER | CHAR_MARK, 1); break;
    case PRE_LLAMA3: q = pretokenize_llama3(it->p, it->end); break;
    case PRE_GPT2: q = match_gpt2(it->p, it->end); break;
    case PRE_STARCODER: q = match_starcoder(it); break;
    case PRE_LINES: q = match_lines(it->p, it->end); break;
    case PRE_WORDS: q = match_words(it->p, it->end); break;
    default: break;
    }
    *piece = (const char *)from;
    *len = (size_t)(q - from);
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
    {"kormo", PRE_QWEN2, false, false, false},
    {"f2llmv2", PRE_QWEN2, false, false, false},
    {"solar-open", PRE_QWEN2, false, false, false},
    {"bailingmoe", PRE_QWEN2, false, false, false},
    {"bailingmoe2", PRE_QWEN2, false, false, false},
    {"llada-moe", PRE_QWEN2, false, false, false},
    {"llama-bpe", PRE_LLAMA3, true, true, false},
    {"llama3", PRE_LLAMA3, true, true, false},
    {"llama-v3", PRE_LLAMA3, true, true, false},
    {"falcon3", PRE_LLAMA3, true, true, false},
    {"falcon-h1", PRE_LLAMA3, true, true, false},
    {"pixtral", PRE_LLAMA3, true, true, false},
    {"midm-2.0", PRE_LLAMA3, true, true, false},
    {"lfm2", PRE_LLAMA3, true, true, false},
    {"jina-v5-nano", PRE_LLAMA3, true, true, false},
    {"dbrx", PRE_LLAMA3, false, false, false},
    {"smaug-bpe", PRE_LLAMA3, false, false, false},
    {"glm4", PRE_LLAMA3, false, false, false},
    {"chatglm-bpe", PRE_LLAMA3, false, false, false},
    {"gpt-2", PRE_GPT2, false, false, false},
    {"phi-2", PRE_GPT2, false, false, false},
    {"mpt", PRE_GPT2, false, false, false},
    {"olmo", PRE_GPT2, false, false, false},
    {"jais", PRE_GPT2, false, false, false},
    {"jina-es", PRE_GPT2, false, false, false},
    {"jina-de", PRE_GPT2, false, false, false},
    {"jina-v2-es", PRE_GPT2, false, false, false},
    {"jina-v2-de", PRE_GPT2, false, false, false},
    {"jina-v1-en", PRE_GPT2, false, false, false},
    {"jina-v2-code", PRE_GPT2, false, false, false},
    {"roberta-bpe", PRE_GPT2, false, false, false},
    {"gigachat", PRE_GPT2, false, false, false},
    {"a.x-4.0", PRE_GPT2, false, false, false},
    {"mellum", PRE_GPT2, false, false, false},
    {"modern-bert", PRE_GPT2, false, false, false},
    {"exaone4", PRE_GPT2, false, false, false},
    {"trillion", PRE_GPT2, false, false, false},
    {"granite-docling", PRE_GPT2, false, false, false},
    {"starcoder", PRE_STARCODER, false, false, false},
    {"refact", PRE_STARCODER, false, false, false},
    {"smollm", PRE_STARCODER, false, false, false},
    {"command-r", PRE_STARCODER, false, false, false},
    {"codeshell", PRE_STARCODER, false, false, false},
    {"exaone", PRE_STARCODER, false, false, false},
    {"minerva-7b", PRE_STARCODER, false, false, false},
    {"mellum2", PRE_STARCODER, false, false, false},
    {"deepseek-llm", PRE_DEEPSEEK_LLM, false, false, false},
    {"deepseek-coder", PRE_DEEPSEEK_CODER, false, false, false},
    {"deepseek-v3", PRE_DEEPSEEK_V3, false, false, false},
    {"hunyuan-dense", PRE_DEEPSEEK_V3, false, false, false},
    {"joyai-llm", PRE_DEEPSEEK_V3, false, false, false},
    {"falcon", PRE_FALCON, false, false, false},
    {"default", PRE_DEFAULT, false, false, false},
    {"tekken", PRE_TEKKEN, true, true, false},
    {"gpt-4o", PRE_GPT4O, false, false, false},
    {"llama4", PRE_GPT4O, false, false, false},
    {"kanana2", PRE_GPT4O, false, false, false},
    {"talkie", PRE_GPT4O, false, false, false},
    {"minimax-m2", PRE_GPT4O, false, false, false},
    {"granite-embed-multi-97m", PRE_GPT4O, true, false, false},
    {"kimi-k2", PRE_KIMI_K2, false, false, false},
    {"bloom", PRE_BLOOM, false, false, false},
    {"poro-chat", PRE_BLOOM, false, false, false},
    {"gpt3-finnish", PRE_BLOOM, false, false, false},
    {"viking", PRE_VIKING, false, false, false},
    {"minicpm5", PRE_MINICPM5, true, false, false},
    {"seed-coder", PRE_SEED_CODER, false, false, false},
    {"laguna", PRE_LAGUNA, false, false, false},
    {"exaone-moe", PRE_EXAONE_MOE, false, false, false},
    {"jais-2", PRE_JAIS2, false, false, false},
    {"youtu", PRE_YOUTU, true, false, false},
    {"chameleon", PRE_CHAMELEON, false, true, false},
    {"afmoe", PRE_AFMOE, false, false, false},
    {"superbpe", PRE_SUPERBPE, false, false, false},
    {"tiny_aya", PRE_TINY_AYA, false, false, false},
    {"cohere2moe", PRE_TINY_AYA, false, false, false},
    {"gemma4", PRE_LINES, false, true, false},
    {"granite-embed-multi-311m", PRE_LINES, false, true, false},
    {"sarvam-moe", PRE_LINES, false, false, false},
    {"whitespace", PRE_WORDS, false, false, false},
};

const struct pretokenizer_info *pretokenizer_find(const char *name)
{
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(NAMES[i].name, name) == 0)
            return &NAMES[i];
    return NULL;
}

const char *pretokenizer_name(enum pretokenizer kind)
{
    if (kind < PRE_DEEPSEEK_LLM)
        return NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (NAMES[i].kind == kind)
            return NAMES[i].name;
    return NULL;
}

/* Equal, with line ends in `text` as they are or escaped. */
static bool is_pattern(const char *text, const char *known)
{
    for (; *text; text++) {
        if ((*text == '\r' || *text == '\n') && known[0] == '\\' && known[1] == (*text == '\r' ? 'r' : 'n'))
            known += 2;
        else if (*text == *known)
            known++;
        else
            return false;
    }
    return *known == '\0';
}

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPERS       "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWERS       "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define UPPER        "[" UPPERS "]"
#define LOWER        "[" LOWERS "]"
#define NO_HAN(x)    "[" x "&&[^\\p{Han}]]"
#define QWEN(let, more, digits, tail)                                                                        \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?" let "|" digits "| ?[^\\s\\p{L}" more "\\p{N}" tail "|" SPACES
#define O200K(contraction, digits)                                                                           \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" contraction "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER       \
    "*" contraction "|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define DEEPSEEK3                                                                                            \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"      \
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES
#define SPACE(n) "\\s{" #n "}(?!\\S)|"
#define YOUTU_SCRIPTS                                                                                        \
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-"     \
    "\u303f"                                                                                                 \
    "\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
#define CJK         "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
#define BLOOM_SIGNS ".,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c"

bool pretokenizer_from_patterns(const char *const *patterns, size_t n, enum pretokenizer *out)
{
    static const struct {
        enum pretokenizer kind;
        const char *pattern[PRE_MAX_STEPS];
    } known[] = {
        {PRE_QWEN2, {QWEN("\\p{L}+", "", "\\p{N}", "]+[\\r\\n]*")}},
        {PRE_QWEN2,
         {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
          "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
        {PRE_QWEN35, {QWEN("[\\p{L}\\p{M}]+", "\\p{M}", "\\p{N}", "]+[\\r\\n]*")}},
        {PRE_LLAMA3, {QWEN("\\p{L}+", "", "\\p{N}{1,3}", "]+[\\r\\n]*")}},
        {PRE_GPT2, {PRETOKENIZE_GPT2}},
        {PRE_STARCODER, {"\\p{N}", PRETOKENIZE_GPT2}},
        {PRE_SEED_CODER, {QWEN("\\p{L}+", "", "\\p{N}{1}", "\\r\\n]+")}},
        {PRE_SEED_CODER, {QWEN("\\p{L}+", "", "\\p{N}", "\\r\\n]+")}},
        {PRE_JAIS2,
         {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                       "\\s*[\\r\\n]+|" SPACE(512) SPACE(256) SPACE(128) SPACE(64) SPACE(32) SPACE(16)
                           SPACE(8) SPACE(4) "\\s{1,2}(?!\\S)|\\s{1}"}},
        {PRE_YOUTU, {YOUTU_SCRIPTS, O200K(CONTRACTIONS "?", "\\p{N}")}},
        {PRE_CHAMELEON,
         {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
          PRETOKENIZE_ONE_SIGN, PRETOKENIZE_GPT2}},
        {PRE_AFMOE, {"\\p{N}{1,3}(?=(?:\\p{N}{3})*(?:\\P{N}|$))", "[" PRETOKENIZE_EAST_ASIA "]+", DEEPSEEK3}},
        {PRE_SUPERBPE, {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
        {PRE_TINY_AYA, {"\\d{1,3}(?=(?:\\d{3})*\\b)", O200K(CONTRACTIONS "?", "\\p{N}{1,3}")}},
        {PRE_MINICPM5, {"\\p{N}{1,3}", QWEN("\\p{L}+", "", "\\p{N}+", "]+[\\r\\n]*")}},
        {PRE_TEKKEN, {O200K("", "\\p{N}")}},
        {PRE_GPT4O, {O200K(CONTRACTIONS "?", "\\p{N}{1,3}")}},
        {PRE_KIMI_K2,
         {"[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" NO_HAN(UPPERS) "*" NO_HAN(
             LOWERS) "+" CONTRACTIONS
                     "?|[^\\r\\n\\p{L}\\p{N}]?" NO_HAN(UPPERS) "+" NO_HAN(
                         LOWERS) "*" CONTRACTIONS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES}},
        {PRE_DEEPSEEK_V3, {"\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK3}},
        {PRE_DEEPSEEK_CODER, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
        {PRE_FALCON, {PRETOKENIZE_PUNCTUATION, PRETOKENIZE_GPT2, "[0-9][0-9][0-9]"}},
        {PRE_BLOOM, {" ?[^(\\s|[" BLOOM_SIGNS "])]+"}},
        {PRE_BLOOM, {" ?[^(\\s|" BLOOM_SIGNS ")]+"}},
        {PRE_VIKING, {" ?[^(\\s|[" BLOOM_SIGNS "])]+", "\\p{N}"}},
        {PRE_VIKING, {" ?[^(\\s|" BLOOM_SIGNS ")]+", "\\p{N}"}},
        {PRE_EXAONE_MOE,
         {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}"
                       "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t k = 0;
        while (k < n && k < PRE_MAX_STEPS && known[i].pattern[k] &&
               is_pattern(patterns[k], known[i].pattern[k]))
            k++;
        if (k == n && (k == PRE_MAX_STEPS || !known[i].pattern[k])) {
            *out = known[i].kind;
            return true;
        }
    }
    return pretokenizer_is_deepseek_llm(patterns, n) ? (*out = PRE_DEEPSEEK_LLM, true) : false;
}
