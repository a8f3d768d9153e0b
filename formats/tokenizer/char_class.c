/* char_class.c - see char_class.h. */
#include "char_class.h"

#include <stdbool.h>
#include <stddef.h>
#include <utf8proc.h>

const uint8_t CHAR_CLASS_ASCII[128] = {
    16, 16, 16, 16, 16, 16, 16, 16, 16, 8,  8,  8,  8,  8,  16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16,
    16, 16, 16, 16, 16, 16, 8,  16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 2,  2,  2,  2,
    2,  2,  2,  2,  2,  2,  16, 16, 16, 16, 16, 16, 16, 1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,
    1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  16, 16, 16, 16, 16, 16, 1,  1,  1,  1,  1,  1,  1,
    1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  1,  16, 16, 16, 16, 16};

/* Code points of categories L, N and M that are unassigned in Unicode 15.0, as the regular expression engine
 * of the HuggingFace tokenizers 0.23 (Unicode 16.0) classifies them; found by asking it about every code
 * point. */
static const struct {
    uint32_t first, last;
    uint8_t class;
} RECENT[] = {
    {0x897, 0x897, CHAR_MARK},       {0x1C89, 0x1C8A, CHAR_LETTER},   {0xA7CB, 0xA7CD, CHAR_LETTER},
    {0xA7DA, 0xA7DC, CHAR_LETTER},   {0x105C0, 0x105F3, CHAR_LETTER}, {0x10D40, 0x10D49, CHAR_NUMBER},
    {0x10D4A, 0x10D65, CHAR_LETTER}, {0x10D69, 0x10D6D, CHAR_MARK},   {0x10D6F, 0x10D85, CHAR_LETTER},
    {0x10EC2, 0x10EC4, CHAR_LETTER}, {0x10EFC, 0x10EFC, CHAR_MARK},   {0x11380, 0x11389, CHAR_LETTER},
    {0x1138B, 0x1138B, CHAR_LETTER}, {0x1138E, 0x1138E, CHAR_LETTER}, {0x11390, 0x113B5, CHAR_LETTER},
    {0x113B7, 0x113B7, CHAR_LETTER}, {0x113B8, 0x113C0, CHAR_MARK},   {0x113C2, 0x113C2, CHAR_MARK},
    {0x113C5, 0x113C5, CHAR_MARK},   {0x113C7, 0x113CA, CHAR_MARK},   {0x113CC, 0x113D0, CHAR_MARK},
    {0x113D1, 0x113D1, CHAR_LETTER}, {0x113D2, 0x113D2, CHAR_MARK},   {0x113D3, 0x113D3, CHAR_LETTER},
    {0x113E1, 0x113E2, CHAR_MARK},   {0x116D0, 0x116E3, CHAR_NUMBER}, {0x11BC0, 0x11BE0, CHAR_LETTER},
    {0x11BF0, 0x11BF9, CHAR_NUMBER}, {0x11F5A, 0x11F5A, CHAR_MARK},   {0x13460, 0x143FA, CHAR_LETTER},
    {0x16100, 0x1611D, CHAR_LETTER}, {0x1611E, 0x1612F, CHAR_MARK},   {0x16130, 0x16139, CHAR_NUMBER},
    {0x16D40, 0x16D6C, CHAR_LETTER}, {0x16D70, 0x16D79, CHAR_NUMBER}, {0x18CFF, 0x18CFF, CHAR_LETTER},
    {0x1CCF0, 0x1CCF9, CHAR_NUMBER}, {0x1E5D0, 0x1E5ED, CHAR_LETTER}, {0x1E5EE, 0x1E5EF, CHAR_MARK},
    {0x1E5F0, 0x1E5F0, CHAR_LETTER}, {0x1E5F1, 0x1E5FA, CHAR_NUMBER}, {0x2EBF0, 0x2EE5D, CHAR_LETTER},
};

static int recent_class(uint32_t cp)
{
    size_t low = 0, high = sizeof RECENT / sizeof *RECENT;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (cp > RECENT[mid].last)
            low = mid + 1;
        else if (cp < RECENT[mid].first)
            high = mid;
        else
            return RECENT[mid].class;
    }
    return CHAR_OTHER;
}

int char_class(uint32_t cp)
{
    if (cp < 128)
        return CHAR_CLASS_ASCII[cp];
    if (cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 ||
        cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000)
        return CHAR_SPACE;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return CHAR_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return CHAR_NUMBER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return CHAR_MARK;
    case UTF8PROC_CATEGORY_CN: return recent_class(cp);
    default: return CHAR_OTHER;
    }
}

static bool in_ranges(const uint32_t (*ranges)[2], size_t n, uint32_t cp)
{
    for (size_t i = 0; i < n; i++)
        if (cp >= ranges[i][0] && cp <= ranges[i][1])
            return true;
    return false;
}

#define IN_RANGES(table, cp) in_ranges(table, sizeof(table) / sizeof *(table), cp)

/* As RECENT, the detail of the code points of categories S and P. */
static int recent_sign(uint32_t cp)
{
    static const uint32_t symbols[][2] = {{0x2427, 0x2429},   {0x2FFC, 0x2FFF},   {0x31E4, 0x31E5},
                                          {0x31EF, 0x31EF},   {0x10D8E, 0x10D8F}, {0x1CC00, 0x1CCEF},
                                          {0x1CD00, 0x1CEB3}, {0x1F8B2, 0x1F8BB}, {0x1F8C0, 0x1F8C1},
                                          {0x1FA89, 0x1FA89}, {0x1FA8F, 0x1FA8F}, {0x1FABE, 0x1FABE},
                                          {0x1FAC6, 0x1FAC6}, {0x1FADC, 0x1FADC}, {0x1FADF, 0x1FADF},
                                          {0x1FAE9, 0x1FAE9}, {0x1FBCB, 0x1FBEF}},
                          punctuation[][2] = {{0x1B4E, 0x1B4F},   {0x1B7F, 0x1B7F},   {0x10D6E, 0x10D6E},
                                              {0x113D4, 0x113D5}, {0x113D7, 0x113D8}, {0x11BE1, 0x11BE1},
                                              {0x16D6D, 0x16D6F}, {0x1E5FF, 0x1E5FF}};
    return IN_RANGES(symbols, cp) ? DETAIL_SYMBOL : IN_RANGES(punctuation, cp) ? DETAIL_PUNCTUATION : 0;
}

/* The script Han of Unicode 16. */
static bool is_han(uint32_t cp)
{
    static const uint32_t ranges[][2] = {
        {0x2E80, 0x2E99},   {0x2E9B, 0x2EF3},   {0x2F00, 0x2FD5},   {0x3005, 0x3005},   {0x3007, 0x3007},
        {0x3021, 0x3029},   {0x3038, 0x303B},   {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFA6D},
        {0xFA70, 0xFAD9},   {0x16FE2, 0x16FE3}, {0x16FF0, 0x16FF1}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B739},
        {0x2B740, 0x2B81D}, {0x2B820, 0x2CEA1}, {0x2CEB0, 0x2EBE0}, {0x2EBF0, 0x2EE5D}, {0x2F800, 0x2FA1D},
        {0x30000, 0x3134A}, {0x31350, 0x323AF},
    };
    return IN_RANGES(ranges, cp);
}

static int category_detail(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return DETAIL_UPPER;
    case UTF8PROC_CATEGORY_LL: return DETAIL_LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return DETAIL_CASELESS;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return DETAIL_MARK;
    case UTF8PROC_CATEGORY_ND: return DETAIL_DECIMAL;
    case UTF8PROC_CATEGORY_NL: return DETAIL_WORD;
    case UTF8PROC_CATEGORY_PC: return DETAIL_PUNCTUATION | DETAIL_WORD;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return DETAIL_PUNCTUATION;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return DETAIL_SYMBOL;
    case UTF8PROC_CATEGORY_CN: {
        int recent = recent_class(cp);
        return recent == CHAR_LETTER   ? DETAIL_CASELESS
               : recent == CHAR_MARK   ? DETAIL_MARK
               : recent == CHAR_NUMBER ? DETAIL_DECIMAL /* all of RECENT are Nd */
                                       : recent_sign(cp);
    }
    default: return 0;
    }
}

/* Word characters of categories No and So: the letters in circles and squares (Other_Alphabetic), and six of
 * Latin 1 that the engine has in an older table; found by asking it about every code point. */
static bool is_odd_word(uint32_t cp)
{
    static const uint32_t ranges[][2] = {{0xB2, 0xB3},      {0xB9, 0xB9},       {0xBC, 0xBE},
                                         {0x24B6, 0x24E9},  {0x1F130, 0x1F149}, {0x1F150, 0x1F169},
                                         {0x1F170, 0x1F189}};
    return IN_RANGES(ranges, cp);
}

int char_detail(uint32_t cp)
{
    int d = category_detail(cp);
    if ((d & (DETAIL_LETTER | DETAIL_MARK | DETAIL_DECIMAL)) || (cp >= 0xB2 && is_odd_word(cp)))
        d |= DETAIL_WORD;
    return cp >= 0x2E80 && is_han(cp) ? d | DETAIL_HAN : d;
}
