/* pretokenize_stages.c - see pretokenize_stages.h. Each matcher's comment is the regular expression that it
 * stands for, as in the tokenizer.json of the models of that name (DeepSeek, Falcon, Mistral's Tekken,
 * OpenAI's o200k, BLOOM, Viking, MiniCPM, Kimi K2, Seed-Coder, Jais 2, Youtu, Chameleon, AFMoE, SuperBPE,
 * Tiny Aya).
 *
 * Cost is linear: a matcher looks at its own match and at most one run behind it, and a search for the next
 * match gives up a position after a fixed number of characters. */
#include "pretokenize_stages.h"

#include "char_class.h"
#include "codepoint.h"

#include <string.h>

static bool is_newline(uint8_t c)
{
    return c == '\r' || c == '\n';
}

static uint32_t code_at(const uint8_t *p, const uint8_t *end, const uint8_t **next)
{
    uint32_t cp = 0;
    *next = p < end ? p + utf8_decode(p, &cp) : p;
    return cp;
}

/* Is `cp` one of a set like "a-zA-Z_"? A hyphen at the end stands for itself. */
static bool in_set(const char *set, uint32_t cp)
{
    for (const uint8_t *p = (const uint8_t *)set; *p;) {
        uint32_t low, high;
        p += utf8_decode(p, &low);
        high = low;
        if (*p == '-' && p[1])
            p += 1 + utf8_decode(p + 1, &high);
        if (cp >= low && cp <= high)
            return true;
    }
    return false;
}

/* [set]+ */
static const uint8_t *set_run(const char *set, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = p, *next;
    while (q < end && in_set(set, code_at(q, end, &next)))
        q = next;
    return q > p ? q : NULL;
}

/* \s? in front of what follows. */
static const uint8_t *behind_space(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *next;
    return pretokenize_class(p, end, &next) == CHAR_SPACE ? next : p;
}

/* X+, for code points whose detail has one of these bits. */
static const uint8_t *detail_run(int details, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = p, *next;
    while (q < end && (char_detail(code_at(q, end, &next)) & details))
        q = next;
    return q > p ? q : NULL;
}

/* --- single steps --- */

/* [\r\n] */
static const uint8_t *newline(const uint8_t *p, const uint8_t *end)
{
    (void)end;
    return is_newline(*p) ? p + 1 : NULL;
}

static const uint8_t *digits(const uint8_t *p, const uint8_t *end, int most)
{
    const uint8_t *q = p, *next;
    for (int n = 0; (most == 0 || n < most) && pretokenize_class(q, end, &next) == CHAR_NUMBER; n++)
        q = next;
    return q > p ? q : NULL;
}

/* \p{N} */
static const uint8_t *one_digit(const uint8_t *p, const uint8_t *end)
{
    return digits(p, end, 1);
}

/* \p{N}{1,3} */
static const uint8_t *three_digits(const uint8_t *p, const uint8_t *end)
{
    return digits(p, end, 3);
}

/* \p{N}+ */
static const uint8_t *all_digits(const uint8_t *p, const uint8_t *end)
{
    return digits(p, end, 0);
}

/* [0-9][0-9][0-9] */
static const uint8_t *ascii_triple(const uint8_t *p, const uint8_t *end)
{
    for (int i = 0; i < 3; i++)
        if (end - p <= i || p[i] < '0' || p[i] > '9')
            return NULL;
    return p + 3;
}

static const uint8_t *sign_run(const uint8_t *p, const uint8_t *end, const char *more)
{
    const uint8_t *q = p, *next;
    while (q < end) {
        uint32_t cp = code_at(q, end, &next);
        if (!(char_detail(cp) & DETAIL_PUNCTUATION) && !(cp < 128 && cp && strchr(more, (int)cp)))
            break;
        q = next;
    }
    return q > p ? q : NULL;
}

/* [\p{P}\$\+<=>\^~\|`]+: punctuation as Unicode and ASCII together have it */
static const uint8_t *punctuation(const uint8_t *p, const uint8_t *end)
{
    return sign_run(p, end, "$+<=>^~|`");
}

/* [\p{P}\$\+<=>\^~\|]+: what runtimes do for files that name no pre-tokenizer */
static const uint8_t *punctuation_but_grave(const uint8_t *p, const uint8_t *end)
{
    return sign_run(p, end, "$+<=>^~|");
}

/* --- DeepSeek LLM and Coder --- */

static const char CASED_LETTERS[] =
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943";

/* \s?[A-Za-z...]+ */
static const uint8_t *cased_letters(const uint8_t *p, const uint8_t *end)
{
    return set_run(CASED_LETTERS, behind_space(p, end), end);
}

/* \s?[!-/:-~！-／：-～‘-‟　-。]+ */
static const uint8_t *deepseek_punctuation(const uint8_t *p, const uint8_t *end)
{
    static const char set[] = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002";
    const uint8_t *q = set_run(set, behind_space(p, end), end);
    return q ? q : set_run(set, p, end); /* U+3000 is white space and of the set */
}

/* \s+$ is searched from the end: see find. */
static const uint8_t *trailing_space(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = p, *next;
    while (pretokenize_class(q, end, &next) == CHAR_SPACE)
        q = next;
    return q > p && q == end ? q : NULL;
}

/* [一-龥ࠀ-一가-퟿]+ */
static const uint8_t *deepseek_cjk(const uint8_t *p, const uint8_t *end)
{
    return set_run("\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff", p, end);
}

/* \s?\p{L}+ */
static const uint8_t *spaced_letters(const uint8_t *p, const uint8_t *end)
{
    return detail_run(DETAIL_LETTER, behind_space(p, end), end);
}

/* \s?\p{P}+ */
static const uint8_t *spaced_punctuation(const uint8_t *p, const uint8_t *end)
{
    return detail_run(DETAIL_PUNCTUATION, behind_space(p, end), end);
}

/* --- DeepSeek V3 --- */

/* [一-龥぀-ゟ゠-ヿ]+ */
static const uint8_t *han_and_kana(const uint8_t *p, const uint8_t *end)
{
    return set_run("\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff", p, end);
}

static bool is_ascii_letter(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_ascii_punctuation(uint8_t c)
{
    return c > ' ' && c < 127 && !is_ascii_letter(c) && !(c >= '0' && c <= '9');
}

/* [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+ | [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
 * | ?[\p{P}\p{S}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S) | \s+ */
static const uint8_t *deepseek3(const uint8_t *p, const uint8_t *end)
{
    const int word = DETAIL_LETTER | DETAIL_MARK, signs = DETAIL_PUNCTUATION | DETAIL_SYMBOL;
    const uint8_t *next, *q;
    if (is_ascii_punctuation(*p) && end - p > 1 && is_ascii_letter(p[1])) {
        for (q = p + 1; q < end && is_ascii_letter(*q); q++)
            ;
        return q;
    }
    int first = char_detail(code_at(p, end, &next));
    if (!(first & (DETAIL_LETTER | signs)) && !is_newline(*p) && (q = detail_run(word, next, end)) != NULL)
        return q;
    if (first & word)
        return detail_run(word, p, end);
    q = detail_run(signs, *p == ' ' ? p + 1 : p, end);
    if (q) {
        while (q < end && is_newline(*q))
            q++;
        return q;
    }
    return pretokenize_class(p, end, &next) == CHAR_SPACE ? pretokenize_space(p, end, true) : NULL;
}

/* --- o200k, Tekken and Kimi K2: words with one change of case --- */

#define UPPER  (DETAIL_UPPER | DETAIL_CASELESS | DETAIL_MARK) /* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] */
#define LOWER  (DETAIL_LOWER | DETAIL_CASELESS | DETAIL_MARK) /* [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
#define NO_HAN DETAIL_HAN

/* Details at `p`; with `without`, 0 for code points that have such a bit. */
static int detail_at(const uint8_t *p, const uint8_t *end, const uint8_t **next, int without)
{
    int d = p < end ? char_detail(code_at(p, end, next)) : 0;
    return d & without ? 0 : d;
}

/* UPPER*LOWER+ at `p`: as many of UPPER as there are, and where no lower letter follows, only up to the last
 * that is one of LOWER, too. Failing that UPPER+LOWER*, which is then all of UPPER. */
static const uint8_t *cased_word(const uint8_t *p, const uint8_t *end, int without)
{
    const uint8_t *q = p, *next = p, *last_lower = NULL;
    int d;
    while ((d = detail_at(q, end, &next, without)) & UPPER) {
        q = next;
        if (d & LOWER)
            last_lower = q;
    }
    if (d & DETAIL_LOWER) {
        while (detail_at(q, end, &next, without) & LOWER)
            q = next;
        return q;
    }
    return last_lower ? last_lower : NULL;
}

static const uint8_t *upper_word(const uint8_t *p, const uint8_t *end, int without)
{
    const uint8_t *q = p, *next;
    while (detail_at(q, end, &next, without) & UPPER)
        q = next;
    return q > p ? q : NULL;
}

/* [^\r\n\p{L}\p{N}]? in front of either form of a word, the first form first. */
static const uint8_t *prefixed_word(const uint8_t *p, const uint8_t *end, int without)
{
    const uint8_t *next, *q = NULL;
    int c = pretokenize_class(p, end, &next);
    bool prefix = !(c & (CHAR_LETTER | CHAR_NUMBER)) && !is_newline(*p);
    if (prefix)
        q = cased_word(next, end, without);
    if (!q)
        q = cased_word(p, end, without);
    if (!q && prefix)
        q = upper_word(next, end, without);
    return q ? q : upper_word(p, end, without);
}

/* ?[^\s\p{L}\p{N}]+[\r\n/]* | \s*[\r\n]+ | \s+(?!\S) | \s+; `slash`: the slash of the first is there */
static const uint8_t *signs_or_space(const uint8_t *p, const uint8_t *end, bool slash)
{
    const int other = CHAR_OTHER | CHAR_MARK;
    const uint8_t *next, *q = *p == ' ' ? p + 1 : p, *from = q;
    while (pretokenize_class(q, end, &next) & other)
        q = next;
    if (q == from)
        return pretokenize_class(p, end, &next) == CHAR_SPACE ? pretokenize_space(p, end, true) : NULL;
    while (q < end && (is_newline(*q) || (slash && *q == '/')))
        q++;
    return q;
}

static const uint8_t *with_contraction(const uint8_t *q, const uint8_t *end)
{
    const uint8_t *r = pretokenize_contraction(q, end, true);
    return r ? r : q;
}

/* [^\r\n\p{L}\p{N}]?UPPER*LOWER+(?i:'s|...)? | [^\r\n\p{L}\p{N}]?UPPER+LOWER*(?i:'s|...)? | \p{N}{1,3} | ...
 */
static const uint8_t *gpt4o(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = prefixed_word(p, end, 0);
    if (q)
        return with_contraction(q, end);
    q = three_digits(p, end);
    return q ? q : signs_or_space(p, end, true);
}

/* The same without contractions, digits one by one. */
static const uint8_t *tekken(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = prefixed_word(p, end, 0);
    if (!q)
        q = one_digit(p, end);
    return q ? q : signs_or_space(p, end, true);
}

/* [\p{Han}]+ | words as in o200k, but not of Han | \p{N}{1,3} | ?[^\s\p{L}\p{N}]+[\r\n]* | ... */
static const uint8_t *kimi_k2(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = detail_run(DETAIL_HAN, p, end);
    if (q)
        return q;
    q = prefixed_word(p, end, NO_HAN);
    if (q)
        return with_contraction(q, end);
    q = three_digits(p, end);
    return q ? q : signs_or_space(p, end, false);
}

/* --- others --- */

/* ?[^(\s|[.,!?…。，、।۔،])]+ */
static const uint8_t *bloom(const uint8_t *p, const uint8_t *end)
{
    static const char set[] = "(|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)";
    const uint8_t *q = *p == ' ' ? p + 1 : p, *from = q, *next;
    while (q < end && pretokenize_class(q, end, &next) != CHAR_SPACE && !in_set(set, code_at(q, end, &next)))
        q = next;
    return q > from ? q : NULL;
}

/* (?i:'s|...) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N}{1} | ?[^\s\p{L}\p{N}\r\n]+ | \s*[\r\n]+ | \s+(?!\S) | \s+ */
static const uint8_t *seed_coder(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = pretokenize_qwen2(p, end), *from = *p == ' ' ? p + 1 : p, *next;
    bool signs = pretokenize_class(from, end, &next) & (CHAR_OTHER | CHAR_MARK);
    while (signs && q > from + 1 && is_newline(q[-1]))
        q--;
    return q;
}

/* [^\n]+ | [\n]+ */
static const uint8_t *line(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = p;
    while (q < end && (*q == '\n') == (*p == '\n'))
        q++;
    return q;
}

/* (?i:'s|...) | [^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+ | \p{N} | ?[^\s\p{L}\p{N}]+[\r\n/]?
 * | \s*[\r\n] | \s+(?!\S) | \s+ */
static const uint8_t *exaone_moe(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = pretokenize_contraction(p, end, true), *next, *after;
    if (q)
        return q;
    int c = pretokenize_class(p, end, &next);
    if (!(c & (CHAR_LETTER | CHAR_NUMBER)) && !is_newline(*p) &&
        pretokenize_class(next, end, &after) == CHAR_LETTER)
        p = next;
    q = p;
    while (pretokenize_class(q, end, &next) == CHAR_LETTER ||
           (q > p && q < end && *q == ' ' && pretokenize_class(q + 1, end, &next) == CHAR_LETTER)) {
        q = next;
        while (pretokenize_class(q, end, &next) == CHAR_MARK)
            q = next;
    }
    if (q > p)
        return q;
    if ((q = one_digit(p, end)))
        return q;
    const uint8_t *from = *p == ' ' ? p + 1 : p;
    for (q = from; pretokenize_class(q, end, &next) & (CHAR_OTHER | CHAR_MARK);)
        q = next;
    if (q > from)
        return q < end && (is_newline(*q) || *q == '/') ? q + 1 : q;
    return pretokenize_class(p, end, &next) == CHAR_SPACE ? pretokenize_space(p, end, true) : NULL;
}

/* --- numbers cut into threes from the right: 1 234 567 ---
 *
 * One pattern of the file becomes two steps here, so that no digit is looked at more than a few times: the
 * first cuts off the one or two digits too many, the second cuts what is left. */

static bool is_number(uint32_t cp)
{
    return char_class(cp) == CHAR_NUMBER;
}

static bool is_decimal(uint32_t cp)
{
    return char_detail(cp) & DETAIL_DECIMAL;
}

/* Where the run of digits at `p` begins to be whole threes; its end when it has fewer than three. */
static const uint8_t *threes_begin(const uint8_t *p, const uint8_t *end, bool (*is_digit)(uint32_t cp),
                                   const uint8_t **run_end)
{
    const uint8_t *at[3] = {p, p, p}, *q = p, *next;
    size_t n = 0;
    for (; q < end && is_digit(code_at(q, end, &next)); q = next, n++)
        if (n < 3)
            at[n] = q;
    *run_end = q;
    return n < 3 ? q : at[n % 3];
}

/* \p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$)), the first step: the digits before whole threes, or all of these. */
static const uint8_t *surplus_numbers(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *run_end, *threes = threes_begin(p, end, is_number, &run_end);
    return threes > p ? threes : run_end;
}

/* (?=(\d{3})+(?!\d)), which matches no character: pieces end where it matches. The first step ends them where
 * whole threes begin. */
static const uint8_t *until_threes(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *next, *run_end;
    for (const uint8_t *q = p; q < end; q = next) {
        (void)code_at(q, end, &next);
        const uint8_t *threes = threes_begin(q, end, is_decimal, &run_end);
        if (threes > p && threes < run_end)
            return threes;
        next = run_end > q ? run_end : next;
    }
    return end;
}

/* The second step: a three that another one follows, else all that is left. */
static const uint8_t *three_before_threes(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = p, *next, *third = NULL;
    for (int n = 1; n <= 6; n++, q = next) {
        if (q >= end || !is_decimal(code_at(q, end, &next)))
            return end;
        if (n == 3)
            third = next;
    }
    return third;
}

/* \d{1,3}(?=(?:\d{3})*\b), the first step. A run of digits that letters follow matches nowhere in it: *skip
 * is its end. */
static const uint8_t *surplus_before_boundary(const uint8_t *p, const uint8_t *end, const uint8_t **skip)
{
    const uint8_t *threes = threes_begin(p, end, is_decimal, skip), *next;
    if (*skip < end && (char_detail(code_at(*skip, end, &next)) & DETAIL_WORD))
        return NULL;
    return threes > p ? threes : *skip;
}

static const uint8_t *bounded_decimals(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *skip;
    return surplus_before_boundary(p, end, &skip);
}

static uint32_t last_code(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = end, *next;
    do
        q--;
    while (q > p && (*q & 0xC0) == 0x80);
    return code_at(q, end, &next);
}

/* \d\d\d, the second step: in stretches that the first step cut out. No other ends in such a digit. */
static const uint8_t *decimal_triple(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = p, *next;
    if (!is_decimal(last_code(p, end)))
        return NULL;
    for (int n = 0; n < 3; n++, q = next)
        if (q >= end || !is_decimal(code_at(q, end, &next)))
            return NULL;
    return q;
}

/* --- Jais 2 --- */

/* \s{512}(?!\S) | \s{256}(?!\S) | ... | \s{4}(?!\S) | \s{1,2}(?!\S) | \s{1}, as a step behind the pattern of
 * Llama 3: that leaves white space which is not followed by any in stretches of its own, and none of these
 * holds a line end. */
static const uint8_t *halved_space(const uint8_t *p, const uint8_t *end)
{
    enum { MOST = 512 };
    const uint8_t *at[MOST + 1], *next;
    uint32_t last = last_code(p, end);
    int n = 0, cut = MOST;
    if (char_class(last) != CHAR_SPACE || last == '\r' || last == '\n')
        return NULL;
    for (at[0] = p; n < MOST && pretokenize_class(at[n], end, &next) == CHAR_SPACE; at[++n] = next)
        ;
    while (cut > n)
        cut /= 2;
    return cut > 0 ? at[cut] : NULL;
}

/* --- Youtu --- */

/* [가-힣ㄱ-ㆎ]+ | [！…“”‘’—：；，、-〿︰-﹏]+ | [ㄅ-ㄯ]+ | [一-龥぀-ゟ゠-ヿ]+
 */
static const uint8_t *youtu_scripts(const uint8_t *p, const uint8_t *end)
{
    static const char *const sets[] = {
        "\uac00-\ud7a3\u3131-\u318e",
        "\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f",
        "\u3105-\u312f", "\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff"};
    const uint8_t *q = NULL;
    for (size_t i = 0; i < sizeof sets / sizeof *sets && !q; i++)
        q = set_run(sets[i], p, end);
    return q;
}

/* o200k with digits one by one */
static const uint8_t *youtu_words(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = prefixed_word(p, end, 0);
    if (q)
        return with_contraction(q, end);
    q = one_digit(p, end);
    return q ? q : signs_or_space(p, end, true);
}

/* --- Chameleon --- */

static const uint8_t *literal(const uint8_t *p, const uint8_t *end, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(end - p) >= n && memcmp(p, text, n) == 0 ? p + n : NULL;
}

/* <sentinel:[0-9]+> */
static const uint8_t *sentinel(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *from = literal(p, end, "<sentinel:"), *q = from;
    while (q && q < end && *q >= '0' && *q <= '9')
        q++;
    return q && q > from && q < end && *q == '>' ? q + 1 : NULL;
}

/* (IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z */
static const uint8_t *image_code(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *from = literal(p, end, "IMGIMG"), *q = from;
    while (q && q < end && q - from < 4 && *q >= 'A' && *q <= 'I')
        q++;
    return q && q > from && q < end && *q == 'Z' ? q + 1 : NULL;
}

/* [\t\n] | four spaces | two spaces */
static const uint8_t *indent(const uint8_t *p, const uint8_t *end)
{
    if (*p == '\t' || *p == '\n')
        return p + 1;
    const uint8_t *q = literal(p, end, "    ");
    return q ? q : literal(p, end, "  ");
}

/* [\p{P}!-/:-@\[-`{-~] */
static const uint8_t *one_sign(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *next;
    uint32_t cp = code_at(p, end, &next);
    return (cp < 128 && is_ascii_punctuation((uint8_t)cp)) || (char_detail(cp) & DETAIL_PUNCTUATION) ? next
                                                                                                     : NULL;
}

/* --- AFMoE --- */

static const uint8_t *east_asian(const uint8_t *p, const uint8_t *end)
{
    return set_run(PRETOKENIZE_EAST_ASIA, p, end);
}

bool pretokenizer_is_deepseek_llm(const char *const *patterns, size_t n)
{
    static const char *const others[] = {NULL,
                                         NULL,
                                         "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
                                         "\\s+$",
                                         "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
                                         "\\p{N}"};
    static const char head[] = "\\s?[", tail[] = "]+";
    if (n != 6 || (strcmp(patterns[0], "[\r\n]") != 0 && strcmp(patterns[0], "[\\r\\n]") != 0))
        return false;
    for (size_t i = 2; i < 6; i++)
        if (strcmp(patterns[i], others[i]) != 0)
            return false;
    size_t len = strlen(patterns[1]), set = sizeof CASED_LETTERS - 1, a = sizeof head - 1;
    return len == a + set + sizeof tail - 1 && strncmp(patterns[1], head, a) == 0 &&
           memcmp(patterns[1] + a, CASED_LETTERS, set) == 0 && strcmp(patterns[1] + a + set, tail) == 0;
}

const pretokenize_match *pretokenize_stages(enum pretokenizer kind)
{
    static const pretokenize_match steps[PRE_COUNT][PRE_MAX_STEPS + 1] = {
        [PRE_DEEPSEEK_LLM] = {newline, cased_letters, deepseek_punctuation, trailing_space, deepseek_cjk,
                              one_digit},
        [PRE_DEEPSEEK_CODER] = {newline, spaced_letters, spaced_punctuation, deepseek_cjk, one_digit},
        [PRE_DEEPSEEK_V3] = {three_digits, han_and_kana, deepseek3},
        [PRE_FALCON] = {punctuation, pretokenize_gpt2, ascii_triple},
        [PRE_DEFAULT] = {punctuation_but_grave, pretokenize_gpt2, all_digits, ascii_triple},
        [PRE_TEKKEN] = {tekken},
        [PRE_GPT4O] = {gpt4o},
        [PRE_KIMI_K2] = {kimi_k2},
        [PRE_BLOOM] = {bloom},
        [PRE_VIKING] = {bloom, one_digit},
        [PRE_MINICPM5] = {three_digits, pretokenize_llama3_long},
        [PRE_SEED_CODER] = {seed_coder},
        [PRE_LAGUNA] = {line, pretokenize_qwen2},
        [PRE_EXAONE_MOE] = {exaone_moe},
        [PRE_JAIS2] = {pretokenize_llama3, halved_space},
        [PRE_YOUTU] = {youtu_scripts, youtu_words},
        [PRE_CHAMELEON] = {sentinel, image_code, indent, one_digit, one_sign, pretokenize_gpt2},
        [PRE_AFMOE] = {surplus_numbers, three_digits, east_asian, deepseek3},
        [PRE_SUPERBPE] = {all_digits, until_threes, three_before_threes},
        [PRE_TINY_AYA] = {bounded_decimals, decimal_triple, gpt4o},
    };
    return steps[kind][0] ? steps[kind] : NULL;
}

/* --- the walk --- */

/* The next match in [p, end): *from, *to; both `end` when there is none. */
static void find(pretokenize_match match, const uint8_t *p, const uint8_t *end, const uint8_t **from,
                 const uint8_t **to)
{
    const uint8_t *next;
    if (match == trailing_space) { /* only the run at the end can match: no position before it is tried */
        const uint8_t *q = end, *start = end;
        while (q > p) {
            do
                q--;
            while (q > p && (*q & 0xC0) == 0x80);
            if (pretokenize_class(q, end, &next) != CHAR_SPACE)
                break;
            start = q;
        }
        *from = start;
        *to = end;
        return;
    }
    for (; p < end; p = next) {
        const uint8_t *stop = match(p, end);
        if (stop && stop > p) {
            *from = p;
            *to = stop;
            return;
        }
        (void)code_at(p, end, &next);
        if (match == bounded_decimals) { /* no digit of such a run can begin a match: not to be tried again */
            const uint8_t *skip;
            (void)surplus_before_boundary(p, end, &skip);
            next = skip > next ? skip : next;
        }
    }
    *from = *to = end;
}

/* The next stretch of one level: what lies before its next match, or that match. */
static void cut(struct pretokenize_level *l, pretokenize_match match, const uint8_t **p, const uint8_t **end)
{
    if (l->to <= l->p)
        find(match, l->p, l->end, &l->from, &l->to);
    *p = l->p;
    *end = l->from > l->p ? l->from : l->to;
    l->p = *end;
}

bool pretokenize_next_stage(struct pretokenize *it, const uint8_t **piece, const uint8_t **stop)
{
    const pretokenize_match *steps = pretokenize_stages(it->kind);
    int n = 0, level;
    while (steps[n])
        n++;
    for (level = n - 1; level >= 0 && it->level[level].p >= it->level[level].end;)
        level--;
    if (level < 0)
        return false;
    for (; level < n; level++) {
        cut(&it->level[level], steps[level], piece, stop);
        if (level + 1 < n)
            it->level[level + 1] = (struct pretokenize_level){*piece, *stop, *piece, *piece};
    }
    return true;
}
