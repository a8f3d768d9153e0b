/* test_vocabulary.c - vocabularies from every source, the keys they become, and what is refused with which
 * words.
 *
 * Expected tokens, types and ids were checked against the peer's converter on the same files. */
#include "formats/tokenizer/vocab_build.h"
#include "scratch.h"
#include "vocabulary_check.h"

#include "libquant/base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DEMO KERF_TEST_DATA "/demo-qwen3"

/* SHA-256 over the texts with a line end after each. */
static void hash_tokens(const struct vocabulary *v, char hex[65])
{
    struct sha256 s;
    uint8_t digest[32];
    sha256_init(&s);
    for (size_t i = 0; i < v->n_tokens; i++) {
        sha256_update(&s, v->tokens[i].text, v->tokens[i].len);
        sha256_update(&s, "\n", 1);
    }
    sha256_final(&s, digest);
    sha256_hex(digest, hex);
}

static void hash_merges(const struct vocabulary *v, char hex[65])
{
    struct sha256 s;
    uint8_t digest[32];
    sha256_init(&s);
    for (size_t i = 0; i < v->n_merges; i++) {
        sha256_update(&s, v->merges[i].text, v->merges[i].len);
        sha256_update(&s, "\n", 1);
    }
    sha256_final(&s, digest);
    sha256_hex(digest, hex);
}

/* --- tokenizer.json
 * ------------------------------------------------------------------------------------------ */

static void demo_is_read_and_survives_gguf(void **state)
{
    (void)state;
    struct hf_config *config = NULL;
    assert_int_equal(hf_config_load(&config, DEMO, NULL), 0);
    struct vocabulary *v = vocabulary_of(DEMO, config, 0), *u = NULL;
    assert_int_equal(v->model, VOCAB_BPE);
    assert_string_equal(v->pre, "qwen2");
    assert_true(v->nfc);
    assert_false(v->ignore_merges);
    assert_int_equal(v->n_tokens, 4096);
    assert_int_equal(v->n_merges, 3837);
    vocabulary_has(v, 0, "\xC4\x80", TOKEN_NORMAL);
    vocabulary_has(v, 4093, "<|endoftext|>", TOKEN_CONTROL);
    vocabulary_has(v, 4095, "<|im_end|>", TOKEN_CONTROL);
    assert_string_equal(v->merges[0].text, "\xC4\xA0 t");
    assert_int_equal(v->bos, 4093); /* config.json; tokenizer_config.json has null */
    assert_int_equal(v->eos, 4093);
    assert_int_equal(v->pad, 4093);
    assert_int_equal(v->unk, -1);
    assert_int_equal(v->add_bos, VOCAB_FLAG_UNSET);
    assert_int_equal(v->n_warnings, 0);
    assert_non_null(strstr(v->chat_template, "<|im_start|>"));

    struct gguf_meta *meta = NULL;
    struct gguf_string s;
    assert_int_equal(gguf_meta_new(&meta, NULL), 0);
    assert_int_equal(vocabulary_to_gguf(v, meta, NULL), 0);
    assert_true(gguf_meta_get_string(meta, "tokenizer.ggml.model", &s));
    assert_int_equal(s.len, 4);
    assert_memory_equal(s.data, "gpt2", 4);
    assert_null(gguf_meta_find(meta, "tokenizer.kerf.normalizer")); /* the name implies it */
    assert_null(gguf_meta_find(meta, "tokenizer.ggml.scores"));
    assert_int_equal(vocabulary_from_gguf(&u, meta, NULL), 0);
    gguf_meta_free(meta);
    assert_int_equal(u->n_tokens, v->n_tokens);
    assert_int_equal(u->n_merges, v->n_merges);
    for (size_t i = 0; i < v->n_tokens; i++)
        vocabulary_has(u, i, v->tokens[i].text, v->tokens[i].type);
    for (size_t i = 0; i < v->n_merges; i++)
        assert_string_equal(u->merges[i].text, v->merges[i].text);
    assert_int_equal(u->bos, 4093);
    assert_int_equal(u->eos, 4093);
    assert_true(u->nfc);
    assert_string_equal(u->chat_template, v->chat_template);
    vocabulary_free(u);
    vocabulary_free(v);
    hf_config_free(config);
}

#define BYTE_LEVEL                                                                                           \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":false}"
#define SPLIT(pattern)                                                                                       \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern        \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL "]}"
#define REST "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define QWEN2                                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "                        \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|" REST
#define QWEN35                                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{L}\\\\p{M}]+|\\\\p{N}| "              \
    "?[^\\\\s\\\\p{L}\\\\p{M}\\\\p{N}]+[\\\\r\\\\n]*|" REST
#define LLAMA3                                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "                   \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|" REST

/* A tokenizer.json around its parts; `extra` follows the model's merges. */
static void write_json(const struct scratch *s, const char *normalizer, const char *pre, const char *added,
                       const char *vocab, const char *merges, const char *extra)
{
    char text[8192];
    assert_true(snprintf(text, sizeof text,
                         "{\"added_tokens\":[%s],\"normalizer\":%s,\"pre_tokenizer\":%s,"
                         "\"model\":{\"type\":\"BPE\",\"vocab\":{%s},\"merges\":[%s]%s}}",
                         added, normalizer, pre, vocab, merges, extra) < (int)sizeof text);
    scratch_text(s, "tokenizer.json", text);
}

static const char VOCAB[] = "\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"ab\":3,\"\xC4\xA0"
                            "ab\":4";
static const char NFC[] = "{\"type\":\"NFC\"}";

static void added_tokens_get_their_types(void **state)
{
    (void)state;
    struct scratch s;
    scratch_make(&s);
    write_json(&s, NFC, SPLIT(QWEN2),
               "{\"id\":5,\"content\":\"<|x|>\",\"special\":false},{\"id\":6,\"content\":\"<think>\","
               "\"special\":false,\"lstrip\":true},{\"id\":7,\"content\":\"</s>\",\"special\":true}",
               VOCAB, "\"a b\",[\" \",\"ab\"]", "");
    scratch_text(&s, "tokenizer_config.json",
                 "{\"added_tokens_decoder\":{\"7\":{\"content\":\"other\"},\"8\":{\"content\":\"x\\u2581y\"},"
                 "\"11\":{\"content\":\"<unused3>\",\"special\":false}},\"eos_token\":{\"content\":\"</s>\"},"
                 "\"pad_token\":\"b\",\"add_eos_token\":true}");
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 13);
    assert_int_equal(v->n_tokens, 13);
    vocabulary_has(v, 3, "ab", TOKEN_NORMAL);
    vocabulary_has(v, 5, "<|x|>", TOKEN_CONTROL); /* looks special */
    vocabulary_has(v, 6, "<think>", TOKEN_USER_DEFINED);
    assert_true(v->tokens[6].lstrip);
    assert_true(v->tokens[6].normalized); /* the default of what is not special */
    vocabulary_has(v, 7, "</s>", TOKEN_CONTROL);
    vocabulary_has(v, 8, "x y", TOKEN_USER_DEFINED);
    vocabulary_has(v, 9, "[PAD9]", TOKEN_UNUSED);
    vocabulary_has(v, 11, "<unused3>", TOKEN_CONTROL);
    vocabulary_has(v, 12, "[PAD12]", TOKEN_UNUSED);
    vocabulary_has(v, 1, "b",
                   TOKEN_CONTROL); /* named as the padding token: special when HuggingFace loads it */
    assert_int_equal(v->pad, 1);
    assert_int_equal(v->eos, 7);
    assert_int_equal(v->add_eos, VOCAB_FLAG_TRUE);
    assert_int_equal(v->n_merges, 2);
    assert_string_equal(v->merges[0].text, "a b");
    assert_string_equal(v->merges[1].text, "\xC4\xA0 ab"); /* a space inside a pair is the alphabet's space */
    vocabulary_free(v);
    vocabulary_refused(s.folder, 11, ERR_FORMAT, "token id 11 ('<unused3>'), but the model has only 11");
    scratch_remove(&s);
}

#define STEP(regex)                                                                                          \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define STEPS(steps)                                                                                         \
    "{\"type\":\"Sequence\",\"pretokenizers\":[" steps                                                       \
    ",{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"
#define DEEPSEEK3                                                                                            \
    "[!\\\"#$%&'()*+,\\\\-./"                                                                                \
    ":;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+"       \
    "| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define TEKKEN                                                                                               \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}\\\\p{" \
    "Lo}\\\\p{M}]+|"                                                                                         \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+[\\\\p{Ll}\\\\p{Lm}\\\\p{" \
    "Lo}\\\\p{M}]*|\\\\p{N}"                                                                                 \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

#define SPACE(n) "\\\\s{" n "}(?!\\\\S)|"
#define UPPERS   "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWERS   "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define O200K(digits)                                                                                        \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPERS "*" LOWERS "+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"                     \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?" UPPERS "+" LOWERS "*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" digits              \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static void pre_tokenizer_is_decided_by_its_pattern(void **state)
{
    (void)state;
    static const struct {
        const char *pre, *added, *extra, *name;
    } cases[] = {
        {SPLIT(QWEN2), "", "", "qwen2"},
        {SPLIT(QWEN35), "", "", "qwen35"},
        {SPLIT(QWEN2),
         "{\"id\":9,\"content\":\"<\xEF\xBD\x9C"
         "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>\"}",
         "", "deepseek-r1-qwen"},
        {SPLIT(LLAMA3), "", ",\"ignore_merges\":true", "llama-bpe"},
        {SPLIT(LLAMA3), "{\"id\":9,\"content\":\"<|begin_of_text|>\"}", "", "llama-bpe"},
        {SPLIT(LLAMA3), "", "", "dbrx"},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}", "", "", "gpt-2"},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
         "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]}",
         "", "", "starcoder"},
        {STEPS(STEP("\\\\p{N}{1,3}") "," STEP("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+") "," STEP(
             DEEPSEEK3)),
         "", "", "deepseek-v3"},
        {STEPS(STEP(" ?[^(\\\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+")), "", "", "bloom"},
        {STEPS(STEP(
             " ?[^(\\\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+") ",{\"type\":\"Digits\","
                                                                             "\"individual_digits\":true}"),
         "", "", "viking"},
        {STEPS("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"},"
               "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}," STEP("[0-9][0-9][0-9]")),
         "", "", "falcon"},
        {STEPS(STEP(TEKKEN)), "", "", "tekken"},
        {STEPS(STEP("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
                    "?[^\\\\s\\\\p{L}\\\\p{N}]+"
                    "[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|" SPACE("512") SPACE("256") SPACE("128") SPACE("64")
                        SPACE("32") SPACE("16") SPACE("8") SPACE("4") "\\\\s{1,2}(?!\\\\S)|\\\\s{1}")),
         "", "", "jais-2"},
        {STEPS(STEP("<sentinel:[0-9]+>") "," STEP("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z") "," STEP(
             "([\\\\t\\\\n]|    |  )") ",{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":"
                                       "\"Punctuation\"},"
                                       "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"),
         "", "", "chameleon"},
        {STEPS(STEP("\\\\p{N}+") "," STEP("(?=(\\\\d{3})+(?!\\\\d))")), "", "", "superbpe"},
        {STEPS(STEP("\\\\p{N}{1,3}(?=(?:\\\\p{N}{3})*(?:\\\\P{N}|$))") "," STEP(
             "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf"
             "\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af"
             "\u1100-\u11ff]+") "," STEP(DEEPSEEK3)),
         "", "", "afmoe"},
        {STEPS(STEP("\\\\d{1,3}(?=(?:\\\\d{3})*\\\\b)") "," STEP(O200K("\\\\p{N}{1,3}"))), "", "",
         "tiny_aya"},
        {STEPS(STEP("[\uac00-\ud7a3\u3131-\u318e]+|["
                    "\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c"
                    "\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]"
                    "+") "," STEP(O200K("\\\\p{N}"))),
         "", "", "youtu"},
    };
    struct scratch s;
    scratch_make(&s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_json(&s, "null", cases[i].pre, cases[i].added, VOCAB, "\"a b\"", cases[i].extra);
        struct vocabulary *v = vocabulary_of(s.folder, NULL, 0);
        assert_string_equal(v->pre, cases[i].name);
        assert_false(v->nfc);
        if (strcmp(v->pre, "llama-bpe") == 0) /* runtimes would add BOS under this name; the file does not */
            assert_int_equal(v->add_bos, VOCAB_FLAG_FALSE);
        vocabulary_free(v);
    }
    write_json(&s, "null", SPLIT("\\\\s+"), "", VOCAB, "", "");
    vocabulary_refused(s.folder, 0, ERR_UNSUPPORTED, "its pattern is \\s+");
    write_json(&s, "null", "{\"type\":\"Whitespace\"}", "", VOCAB, "", "");
    vocabulary_refused(s.folder, 0, ERR_UNSUPPORTED, "not byte-level");
    write_json(&s, "null", "null", "", VOCAB, "", "");
    vocabulary_refused(s.folder, 0, ERR_UNSUPPORTED, "not byte-level");
    scratch_remove(&s);
}

/* What the pre-tokenizer's name does not say is kept under private keys. */
static void deviations_from_the_name_survive_gguf(void **state)
{
    (void)state;
    struct scratch s;
    struct gguf_meta *meta = NULL;
    struct vocabulary *u = NULL;
    scratch_make(&s);
    write_json(&s, "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]}", SPLIT(LLAMA3), "", VOCAB,
               "\"a b\"", "");
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 0);
    assert_true(v->nfc);
    v->pre = "llama-bpe"; /* whose merges are ignored, by name */
    assert_int_equal(gguf_meta_new(&meta, NULL), 0);
    assert_int_equal(vocabulary_to_gguf(v, meta, NULL), 0);
    assert_non_null(gguf_meta_find(meta, "tokenizer.kerf.normalizer"));
    assert_int_equal(vocabulary_from_gguf(&u, meta, NULL), 0);
    assert_true(u->nfc);
    assert_false(u->ignore_merges);
    vocabulary_free(u);
    assert_int_equal(gguf_meta_set_string(meta, "tokenizer.kerf.normalizer", "NFKC", NULL), 0);
    assert_int_equal(vocabulary_from_gguf(&u, meta, NULL), ERR_FORMAT);
    gguf_meta_free(meta);
    vocabulary_free(v);
    write_json(&s, "{\"type\":\"Lowercase\"}", SPLIT(QWEN2), "", VOCAB, "", "");
    v = vocabulary_of(s.folder, NULL, 0);
    assert_true(vocabulary_warned(v, "'Lowercase' is not applied"));
    vocabulary_free(v);
    scratch_remove(&s);
}

static void damaged_json_is_refused_with_its_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err_code code;
        const char *words;
    } cases[] = {
        {"{}", ERR_FORMAT, "there is no 'model'"},
        {"{\"model\":{\"type\":\"Unigram\"}}", ERR_UNSUPPORTED, "model type 'Unigram'"},
        {"{\"model\":{\"type\":\"BPE\"}}", ERR_FORMAT, "not an object of text to id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_FORMAT,
         "'a' has no valid id"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", ERR_FORMAT,
         "both 'a' and 'b'"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", ERR_FORMAT,
         "out of range"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", ERR_FORMAT, "merges is not a list"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}", ERR_FORMAT,
         "merge 0 ('ab')"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", ERR_FORMAT,
         "merge 0 is neither"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
         ERR_UNSUPPORTED, "suffixes"},
        {"{\"added_tokens\":[{\"content\":\"x\"}],\"model\":{}}", ERR_FORMAT, "no valid 'id'"},
        {"{\"added_tokens\":[{\"id\":1}],\"model\":{}}", ERR_FORMAT, "added token 1 has no 'content'"},
    };
    struct scratch s;
    scratch_make(&s);
    vocabulary_refused(s.folder, 0, ERR_IO, "no tokenizer found");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scratch_text(&s, "tokenizer.json", cases[i].text);
        vocabulary_refused(s.folder, 0, cases[i].code, cases[i].words);
    }
    /* two ids with one text: the added token's plain text is the other's text in the byte alphabet */
    write_json(&s, "null", SPLIT(QWEN2), "{\"id\":5,\"content\":\"\xC4\xA0\"}", VOCAB, "", "");
    vocabulary_refused(s.folder, 0, ERR_FORMAT, "tokens 2 and 5 have the same text");
    scratch_remove(&s);
}

/* --- special ids and templates
 * ------------------------------------------------------------------------------- */

#define SPECIAL(id)  "{\"SpecialToken\":{\"id\":\"" id "\",\"type_id\":0}}"
#define SEQUENCE(id) "{\"Sequence\":{\"id\":\"" id "\",\"type_id\":0}}"

static void template_processor_decides_bos_and_eos(void **state)
{
    (void)state;
    static const char model[] =
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":" SPLIT(
            QWEN2) ",\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":"
                   "\"</s>\","
                   "\"special\":true},{\"id\":3,\"content\":\"<e>\",\"special\":true}]";
    char text[4096];
    struct scratch s;
    scratch_make(&s);
    snprintf(text, sizeof text,
             "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[%s,%s,%s]},%s}",
             SPECIAL("<s>"), SEQUENCE("A"), SPECIAL("<e>"), model);
    scratch_text(&s, "tokenizer.json", text);
    scratch_text(&s, "tokenizer_config.json", "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}");
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 0);
    assert_int_equal(v->bos, 1);
    assert_int_equal(v->add_bos, VOCAB_FLAG_TRUE);
    assert_int_equal(v->eos, 3); /* what is appended is the end; the configured one moves */
    assert_int_equal(v->eot, 2);
    assert_int_equal(v->add_eos, VOCAB_FLAG_TRUE);
    vocabulary_free(v);
    /* inside a sequence of processors, and overruled by tokenizer_config.json */
    snprintf(text, sizeof text,
             "{\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":"
             "\"TemplateProcessing\",\"single\":[%s,%s],\"pair\":[%s,%s,%s,%s]}]},%s}",
             SPECIAL("<s>"), SEQUENCE("A"), SPECIAL("<s>"), SEQUENCE("A"), SPECIAL("<s>"), SEQUENCE("B"),
             model);
    scratch_text(&s, "tokenizer.json", text);
    scratch_text(&s, "tokenizer_config.json", "{\"add_bos_token\":false}");
    v = vocabulary_of(s.folder, NULL, 0);
    assert_int_equal(v->bos, 1); /* bos was unset: the leading token becomes it */
    assert_int_equal(v->add_bos, VOCAB_FLAG_FALSE);
    assert_int_equal(v->add_eos, VOCAB_FLAG_UNSET);
    assert_int_equal(v->add_sep, VOCAB_FLAG_FALSE); /* a pair template whose middle is no separator */
    assert_int_equal(v->eos, -1);
    vocabulary_free(v);
    scratch_remove(&s);
}

/* Every token that ends a text has a key, unless runtimes know it by its text. */
static void all_end_tokens_reach_the_file(void **state)
{
    (void)state;
    static const struct {
        const char *generation, *config;
        int64_t eos, eot, eom;
        const char *warning;
    } cases[] = {
        {"{\"eos_token_id\":[6,5]}", "\"eos_token_id\":5", 5, 6, -1, NULL},
        {"{\"eos_token_id\":6}", "\"eos_token_id\":5", 5, 6, -1, NULL},
        {"{\"eos_token_id\":[6,7,5]}", "\"eos_token_id\":5", 5, 6, 7, NULL},
        {"{}", "\"eos_token_id\":[5,6,7]", 5, 6, 7, NULL},
        {"{\"eos_token_id\":[5,6]}", "\"eos_token_id\":[5,6]", 5, 6, -1, NULL},
        {"{\"eos_token_id\":[8,5]}", "\"eos_token_id\":5", 5, -1, -1, NULL}, /* <|im_end|> is known */
        {"{\"eos_token_id\":null}", "\"eos_token_id\":5", 5, -1, -1, NULL},
        {"{\"eos_token_id\":[3,6,7,5]}", "\"eos_token_id\":5", 5, 3, 6,
         "token 7 '<c>' ends a text, but a GGUF"},
        {"{\"eos_token_id\":[99,6]}", "\"eos_token_id\":5", 5, 6, -1,
         "an eos_token_id is not a token of the"},
        {"{\"eos_token_id\":[9,6]}", "\"eos_token_id\":5", 5, 6, -1, /* the first id that is none */
         "an eos_token_id is not a token of the"},
        {"{\"eos_token_id\":[\"<b>\",6]}", "\"eos_token_id\":5", 5, 6, -1,
         "an eos_token_id is not a token of the"},
        {"{\"eos_token_id\":[6]", "\"eos_token_id\":5", 5, -1, -1, NULL}, /* unreadable; told elsewhere */
        {"{\"eos_token_id\":[6,7]}", "\"text_config\":{\"eos_token_id\":[5,6]}", 6, 7, 5, NULL},
    };
    struct scratch s;
    scratch_make(&s);
    write_json(
        &s, "null", SPLIT(QWEN2),
        "{\"id\":5,\"content\":\"<a>\",\"special\":true},{\"id\":6,\"content\":\"<b>\",\"special\":true},"
        "{\"id\":7,\"content\":\"<c>\",\"special\":true},"
        "{\"id\":8,\"content\":\"<|im_end|>\",\"special\":true}",
        VOCAB, "", "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hf_config *config = NULL;
        char json[300];
        int n = snprintf(json, sizeof json, "{\"architectures\":[\"Qwen2ForCausalLM\"],\"vocab_size\":9,%s}",
                         cases[i].config);
        assert_int_equal(hf_config_parse(&config, json, (size_t)n, "config.json", NULL), 0);
        scratch_text(&s, "generation_config.json", cases[i].generation);
        struct vocabulary *v = vocabulary_of(s.folder, config, 0);
        if (v->eos != cases[i].eos || v->eot != cases[i].eot || v->eom != cases[i].eom)
            fail_msg("%s %s: eos %lld eot %lld eom %lld", cases[i].generation, cases[i].config,
                     (long long)v->eos, (long long)v->eot, (long long)v->eom);
        assert_int_equal(v->n_warnings, cases[i].warning != NULL);
        if (cases[i].warning)
            assert_true(vocabulary_warned(v, cases[i].warning));
        vocabulary_free(v);
        hf_config_free(config);
    }
    scratch_remove(&s);
}

static void ids_come_from_the_configuration_when_integers(void **state)
{
    (void)state;
    static const char json[] =
        "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\",\"vocab_size\":9,"
        "\"bos_token_id\":2,\"eos_token_id\":[3,4],\"pad_token_id\":99,"
        "\"text_config\":{\"eos_token_id\":1,\"unk_token_id\":4}}";
    struct hf_config *config = NULL;
    struct scratch s;
    scratch_make(&s);
    assert_int_equal(hf_config_parse(&config, json, sizeof json - 1, "config.json", NULL), 0);
    write_json(&s, NFC, SPLIT(QWEN2), "", VOCAB, "", "");
    struct vocabulary *v = vocabulary_of(s.folder, config, 0);
    assert_int_equal(v->n_tokens, 9);
    assert_int_equal(v->bos, 2);
    assert_int_equal(v->eos, 3); /* a list: as many as there are keys for */
    assert_int_equal(v->eot, 4);
    assert_int_equal(v->unk, 4); /* of the text part */
    assert_int_equal(v->pad, -1);
    assert_true(vocabulary_warned(v, "pad_token_id 99 is ignored"));
    vocabulary_free(v);
    hf_config_free(config);
    scratch_remove(&s);
}

static void templates_come_from_every_place(void **state)
{
    (void)state;
    struct scratch s;
    char folder[128];
    scratch_make(&s);
    write_json(&s, NFC, SPLIT(QWEN2), "", VOCAB, "\"a b\"", "");
    scratch_text(&s, "chat_template.json", "{\"chat_template\":\"from json\"}");
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 0);
    assert_string_equal(v->chat_template, "from json");
    vocabulary_free(v);
    scratch_text(&s, "tokenizer_config.json",
                 "{\"chat_template\":[{\"name\":\"default\",\"template\":\"inline\"},"
                 "{\"name\":\"tool use\",\"template\":\"tools\"}]}");
    v = vocabulary_of(s.folder, NULL, 0);
    assert_string_equal(v->chat_template, "inline");
    assert_int_equal(v->n_named_templates, 1);
    assert_string_equal(v->named_templates[0].name, "tool_use");
    struct gguf_meta *meta = NULL;
    struct vocabulary *u = NULL;
    assert_int_equal(gguf_meta_new(&meta, NULL), 0);
    assert_int_equal(vocabulary_to_gguf(v, meta, NULL), 0);
    assert_int_equal(gguf_meta_find(meta, "tokenizer.chat_templates")->a.n, 1);
    assert_int_equal(vocabulary_from_gguf(&u, meta, NULL), 0);
    assert_int_equal(u->n_named_templates, 1);
    assert_string_equal(u->named_templates[0].text, "tools");
    gguf_meta_free(meta);
    vocabulary_free(u);
    vocabulary_free(v);
    scratch_text(&s, "chat_template.jinja", "from jinja");
    snprintf(folder, sizeof folder, "%s/additional_chat_templates", s.folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    scratch_text(&s, "additional_chat_templates/b.jinja", "B");
    scratch_text(&s, "additional_chat_templates/a.jinja", "A");
    v = vocabulary_of(s.folder, NULL, 0);
    assert_string_equal(v->chat_template, "from jinja");
    assert_true(vocabulary_warned(v, "differs from the template in tokenizer_config.json"));
    assert_int_equal(v->n_named_templates, 3);
    assert_string_equal(v->named_templates[1].name, "a");
    assert_string_equal(v->named_templates[2].text, "B");
    vocabulary_free(v);
    scratch_remove(&s);
}

/* --- the other sources
 * --------------------------------------------------------------------------------------- */

/* Mistral's own form: special tokens first, then as many ranks as the configuration says. */
static void tekken_is_read(void **state)
{
    (void)state;
#define TEKKEN_FILE(vocab, special)                                                                          \
    "{\"config\":{\"pattern\":\"" TEKKEN                                                                     \
    "\",\"default_vocab_size\":9,\"default_num_special_tokens\":4},\"vocab\":[" vocab "]" special "}"
#define RANK(n, code) "{\"rank\":" #n ",\"token_bytes\":\"" code "\",\"token_str\":null}"
#define RANKS         RANK(0, "YQ==") "," RANK(1, "Yg==") "," RANK(2, "IA==") "," RANK(3, "YWI=") "," RANK(4, "IGFi")
    struct scratch s;
    scratch_make(&s);
    scratch_text(&s, "tekken.json", TEKKEN_FILE(RANKS "," RANK(5, "YmI="), "")); /* one more than are used */
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 11);
    assert_string_equal(v->pre, "tekken");
    assert_true(v->model == VOCAB_BPE && v->ignore_merges);
    vocabulary_has(v, 0, "<unk>", TOKEN_CONTROL);
    vocabulary_has(v, 3, "[INST]", TOKEN_CONTROL);
    vocabulary_has(v, 4, "a", TOKEN_NORMAL);
    vocabulary_has(v, 7, "ab", TOKEN_NORMAL);
    vocabulary_has(v, 8,
                   "\xC4\xA0"
                   "ab",
                   TOKEN_NORMAL);
    vocabulary_has(v, 9, "[PAD9]", TOKEN_UNUSED);
    assert_int_equal(v->n_merges, 2);
    assert_string_equal(v->merges[0].text, "a b");
    assert_string_equal(v->merges[1].text, "\xC4\xA0 ab");
    assert_true(v->unk == 0 && v->bos == 1 && v->eos == 2);
    vocabulary_free(v);
    scratch_text(
        &s, "tekken.json",
        TEKKEN_FILE(RANKS,
                    ",\"special_tokens\":[{\"rank\":2,\"token_str\":\"<s>\"},{\"rank\":0,\"token_str\":"
                    "\"</s>\"}]"));
    v = vocabulary_of(s.folder, NULL, 0);
    vocabulary_has(v, 0, "</s>", TOKEN_CONTROL);
    vocabulary_has(v, 1, "<SPECIAL_1>", TOKEN_CONTROL);
    assert_true(v->unk == -1 && v->bos == 2 && v->eos == 0);
    vocabulary_free(v);
    static const struct {
        const char *text, *words;
        enum err_code code;
    } bad[] = {
        {"{\"config\":{},\"vocab\":[]}", "this is not a tokenizer", ERR_FORMAT},
        {TEKKEN_FILE(RANK(0, "YQ=="), ""), "config counts 5 tokens besides special ones, found 1",
         ERR_FORMAT},
        {TEKKEN_FILE(RANK(1, "YQ=="), ""), "entry 0 of the vocabulary should have rank 0", ERR_FORMAT},
        {TEKKEN_FILE(RANK(0, "Y"), ""), "entry 0 of the vocabulary", ERR_FORMAT},
        {TEKKEN_FILE(RANK(0, "YQ==") "," RANK(1, "YQ=="), ""), "token 1 repeats an earlier one", ERR_FORMAT},
        {TEKKEN_FILE(RANKS, ",\"special_tokens\":[{\"rank\":4,\"token_str\":\"<s>\"}]"), "below 4",
         ERR_FORMAT},
        {"{\"config\":{\"pattern\":\"x\",\"default_vocab_size\":9,\"default_num_special_tokens\":4}}",
         "a pattern that GGUF files have no name for", ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scratch_text(&s, "tekken.json", bad[i].text);
        vocabulary_refused(s.folder, 0, bad[i].code, bad[i].words);
    }
    scratch_remove(&s);
#undef TEKKEN_FILE
#undef RANK
#undef RANKS
}

/* A protocol buffer by hand. */
struct message {
    uint8_t bytes[1024];
    size_t n;
};

static void put(struct message *m, const void *p, size_t n)
{
    assert_true(m->n + n <= sizeof m->bytes);
    memcpy(m->bytes + m->n, p, n);
    m->n += n;
}

static void put_piece(struct message *m, const char *text, float score, uint8_t type)
{
    uint8_t n = (uint8_t)strlen(text), head[4] = {0x0A, (uint8_t)(n + 2 + 5 + 2), 0x0A, n}, tag = 0x15,
            kind[2] = {0x18, type};
    put(m, head, 4);
    put(m, text, n);
    put(m, &tag, 1);
    put(m, &score, 4);
    put(m, kind, 2);
}

static const uint8_t TRAINER_BPE[] = {0x12, 2, 0x18, 2}, TRAINER_UNIGRAM[] = {0x12, 2, 0x18, 1};
static const uint8_t NORMALIZER[] = {0x1A, 4, 0x18, 1, 0x20, 0}; /* add_dummy_prefix, keeps repeated spaces */

static void toy_model(struct message *m)
{
    m->n = 0;
    put_piece(m, "<unk>", 0, 2);
    put_piece(m, "<s>", 0, 3);
    put_piece(m, "</s>", 0, 3);
    put_piece(m, "<0x41>", 0, 6);
    put_piece(m, "\xE2\x96\x81", -1, 1);
    put_piece(m, "a", -2, 1);
    put_piece(m, "old", 0, 5);
    put(m, TRAINER_BPE, sizeof TRAINER_BPE);
    put(m, NORMALIZER, sizeof NORMALIZER);
}

/* Old fine-tunes list the three again, beside what they added: they stay what they are. */
static void control_tokens_that_are_restated_stay_control(void **state)
{
    (void)state;
    struct scratch s;
    struct message m;
    scratch_make(&s);
    toy_model(&m);
    scratch_bytes(&s, "tokenizer.model", m.bytes, m.n);
    scratch_text(&s, "added_tokens.json",
                 "{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"a\":5,\"word\":7,\"<|x|>\":9}");
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 10);
    vocabulary_has(v, 0, "<unk>", TOKEN_UNKNOWN);
    vocabulary_has(v, 1, "<s>", TOKEN_CONTROL);
    vocabulary_has(v, 2, "</s>", TOKEN_CONTROL);
    vocabulary_has(v, 5, "a", TOKEN_USER_DEFINED); /* a text becomes one that is found before the merges */
    vocabulary_has(v, 7, "word", TOKEN_USER_DEFINED);
    vocabulary_has(v, 8, "[PAD8]", TOKEN_UNUSED);
    vocabulary_has(v, 9, "<|x|>", TOKEN_CONTROL);
    vocabulary_free(v);
    scratch_text(&s, "added_tokens.json", "{\"<t>\":1}"); /* another text is another token */
    v = vocabulary_of(s.folder, NULL, 0);
    vocabulary_has(v, 1, "<t>", TOKEN_USER_DEFINED);
    vocabulary_free(v);
    scratch_remove(&s);
}

static void sentencepiece_model_is_read(void **state)
{
    (void)state;
    struct scratch s;
    struct message m;
    scratch_make(&s);
    toy_model(&m);
    scratch_bytes(&s, "tokenizer.model", m.bytes, m.n);
    scratch_text(&s, "tokenizer_config.json",
                 "{\"added_tokens_decoder\":{\"7\":{\"content\":\"<tool>\"},\"2\":{\"content\":\"</s>\","
                 "\"special\":true},\"30\":{\"content\":\"<far>\"}},\"add_bos_token\":true,\"add_prefix_"
                 "space\":false}");
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 10);
    assert_int_equal(v->model, VOCAB_SPM);
    assert_string_equal(v->pre, "default");
    assert_int_equal(v->n_tokens, 10);
    vocabulary_has(v, 0, "<unk>", TOKEN_UNKNOWN);
    vocabulary_has(v, 1, "<s>", TOKEN_CONTROL);
    vocabulary_has(v, 2, "</s>", TOKEN_CONTROL);
    assert_true(v->tokens[2].score == -1000); /* named by the configuration */
    vocabulary_has(v, 3, "<0x41>", TOKEN_BYTE);
    vocabulary_has(v, 5, "a", TOKEN_NORMAL);
    assert_true(v->tokens[5].score == -2);
    vocabulary_has(v, 6, "old", TOKEN_UNUSED);
    vocabulary_has(v, 7, "<tool>", TOKEN_USER_DEFINED);
    vocabulary_has(v, 8, "[PAD8]", TOKEN_UNUSED);
    assert_true(v->tokens[8].score == -10000);
    assert_true(vocabulary_warned(v, "added token 30"));
    assert_int_equal(v->add_bos, VOCAB_FLAG_TRUE);
    assert_int_equal(v->add_space_prefix, VOCAB_FLAG_FALSE);
    struct gguf_meta *meta = NULL;
    struct vocabulary *u = NULL;
    assert_int_equal(gguf_meta_new(&meta, NULL), 0);
    assert_int_equal(vocabulary_to_gguf(v, meta, NULL), 0);
    assert_null(gguf_meta_find(meta, "tokenizer.ggml.merges")); /* empty arrays are not written */
    assert_int_equal(vocabulary_from_gguf(&u, meta, NULL), 0);
    assert_int_equal(u->model, VOCAB_SPM);
    assert_true(u->tokens[5].score == -2);
    vocabulary_free(u);
    gguf_meta_free(meta);
    vocabulary_free(v);
    v = vocabulary_of(s.folder, NULL, 6);
    assert_int_equal(v->n_tokens, 6);
    assert_true(vocabulary_warned(v, "pieces from 6 on are dropped"));
    vocabulary_free(v);
    scratch_remove(&s);
}

static void damaged_sentencepiece_models_are_refused(void **state)
{
    (void)state;
    struct scratch s;
    struct message m;
    float nan = __builtin_nanf("");
    scratch_make(&s);
    toy_model(&m);
    /* cut anywhere, it is refused, or (between messages) has lost its trainer_spec */
    for (size_t n = 1; n < m.n - sizeof NORMALIZER; n++) {
        struct vocabulary *v = NULL;
        struct err e = {0};
        scratch_bytes(&s, "tokenizer.model", m.bytes, n);
        if (vocabulary_load_hf(&v, s.folder, NULL, 0, &e) == 0 && n != m.n - sizeof NORMALIZER)
            fail_msg("a model cut at %zu was read", n);
        assert_true(e.code == ERR_FORMAT);
    }
    m.n = 0;
    put_piece(&m, "a", 0, 1);
    put(&m, TRAINER_UNIGRAM, sizeof TRAINER_UNIGRAM);
    scratch_bytes(&s, "tokenizer.model", m.bytes, m.n);
    vocabulary_refused(s.folder, 0, ERR_UNSUPPORTED, "of type Unigram");
    m.n = 0;
    put_piece(&m, "a", 0, 9);
    scratch_bytes(&s, "tokenizer.model", m.bytes, m.n);
    vocabulary_refused(s.folder, 0, ERR_FORMAT, "piece 0 has the unknown type 9");
    m.n = 0;
    put_piece(&m, "a", nan, 1);
    scratch_bytes(&s, "tokenizer.model", m.bytes, m.n);
    vocabulary_refused(s.folder, 0, ERR_FORMAT, "piece 0 has no finite score");
    m.n = 0;
    put_piece(&m, "\xFF", 0, 1);
    scratch_bytes(&s, "tokenizer.model", m.bytes, m.n);
    vocabulary_refused(s.folder, 0, ERR_FORMAT, "piece 0 is not a UTF-8 text");
    m.n = 0;
    put_piece(&m, "a", 0, 1);
    put_piece(&m, "a", 0, 1);
    put(&m, TRAINER_BPE, sizeof TRAINER_BPE);
    scratch_bytes(&s, "tokenizer.model", m.bytes, m.n);
    vocabulary_refused(s.folder, 0, ERR_FORMAT, "tokens 0 and 1 have the same text 'a'");
    scratch_remove(&s);
}

/* tokenizer.json rules; a tokenizer.model of the same pieces is read in its place for its scores. */
static void a_stale_sentencepiece_model_does_not_count(void **state)
{
    (void)state;
    static const char prepend[] =
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]}";
    static const char extra[] = ",\"byte_fallback\":true,\"unk_token\":\"<unk>\"";
#define PIECES(last, id) "\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<0x41>\":3,\"\xE2\x96\x81\":4,\"" last "\":" id
    static const struct {
        const char *vocab;
        bool read, told;
    } cases[] = {{PIECES("a", "5"), true, false},
                 {PIECES("a", "5") ",\"b\":6", false, true}, /* "old" in the model */
                 {PIECES("b", "5"), false, true},
                 {PIECES("b", "7"), false, true}, /* the model's "a" is nowhere */
                 {PIECES("a", "5") ",\"b\":7", true, false}};
#undef PIECES
    struct scratch s;
    struct message m;
    scratch_make(&s);
    toy_model(&m);
    scratch_bytes(&s, "tokenizer.model", m.bytes, m.n);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_json(&s, prepend, "null", "", cases[i].vocab, "", extra);
        struct vocabulary *v = vocabulary_of(s.folder, NULL, 9);
        assert_int_equal(v->model, VOCAB_SPM);
        if ((v->tokens[4].score == -1) != cases[i].read ||
            vocabulary_warned(v, "tokenizer.json is read") != cases[i].told)
            fail_msg("%s", cases[i].vocab);
        vocabulary_free(v);
    }
    write_json(&s, NFC, SPLIT(QWEN2), "", VOCAB, "\"a b\"", ""); /* byte-level: nothing in common */
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 9);
    assert_int_equal(v->model, VOCAB_BPE);
    vocabulary_has(v, 3, "ab", TOKEN_NORMAL);
    assert_true(
        vocabulary_warned(v, "tokenizer.model is not that of tokenizer.json (the token 'a' is the first"));
    vocabulary_free(v);
    scratch_bytes(&s, "tokenizer.model", m.bytes, 11); /* damaged, and of no account */
    v = vocabulary_of(s.folder, NULL, 9);
    assert_int_equal(v->model, VOCAB_BPE);
    vocabulary_free(v);
    scratch_remove(&s);
}

/* Llama 2's tokenizer.json alone: scores follow the merges. */
static void sentencepiece_in_json_is_scored_by_its_merges(void **state)
{
    (void)state;
    static const char vocab[] =
        "\"<unk>\":0,\"<s>\":1,\"<0x0A>\":2,\"\xE2\x96\x81\":3,\"a\":4,\"b\":5,\"ab\":6,"
        "\"\xE2\x96\x81"
        "ab\":7";
    static const char prepend[] =
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]}";
    static const char extra[] = ",\"byte_fallback\":true,\"unk_token\":\"<unk>\"";
    static const char added[] = "{\"id\":0,\"content\":\"<unk>\",\"special\":true},"
                                "{\"id\":1,\"content\":\"<s>\",\"special\":true}";
    struct scratch s;
    scratch_make(&s);
    write_json(&s, prepend, "null", added, vocab, "\"a b\",\"\xE2\x96\x81 ab\"", extra);
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 0);
    assert_int_equal(v->model, VOCAB_SPM);
    vocabulary_has(v, 0, "<unk>", TOKEN_UNKNOWN);
    vocabulary_has(v, 1, "<s>", TOKEN_CONTROL);
    vocabulary_has(v, 2, "<0x0A>", TOKEN_BYTE);
    vocabulary_has(v, 6, "ab", TOKEN_NORMAL);
    assert_true(v->tokens[6].score > v->tokens[7].score);
    assert_true(v->tokens[7].score > v->tokens[3].score);
    assert_int_equal(v->add_space_prefix, VOCAB_FLAG_TRUE);
    assert_int_equal(v->n_merges, 0);
    assert_false(vocabulary_warned(v, "puts a space before the text alone"));
    vocabulary_free(v);
    static const char *const schemes[] = {"always", "first", "never"};
    for (size_t i = 0; i < 3; i++) {
        char pre[200];
        snprintf(pre, sizeof pre,
                 "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"%s\","
                 "\"split\":false}",
                 schemes[i]);
        write_json(&s, "null", pre, added, vocab, "\"a b\",\"\xE2\x96\x81 ab\"", extra);
        v = vocabulary_of(s.folder, NULL, 0);
        assert_int_equal(v->add_space_prefix, i < 2 ? VOCAB_FLAG_TRUE : VOCAB_FLAG_FALSE);
        assert_int_equal(vocabulary_warned(v, "puts a space before the text alone"), i == 1);
        vocabulary_free(v);
    }
    write_json(&s, NFC, "null", added, vocab, "\"a b\"", extra);
    vocabulary_refused(s.folder, 0, ERR_UNSUPPORTED, "put the model's tokenizer.model beside it");
    write_json(&s, prepend, "null", added, vocab, "\"a a\"", extra);
    vocabulary_refused(s.folder, 0, ERR_FORMAT, "merge 0 ('a a') forms no token");
    scratch_remove(&s);
}

/* The same form under other classes is BPE on characters, whose merges stay; two have a GGUF model of their
 * own. A split at spaces, which Gemma's have, finds none. */
static void plain_bpe_goes_by_the_class(void **state)
{
    (void)state;
    static const char vocab[] =
        "\"<unk>\":0,\"<s>\":1,\"<0x0A>\":2,\"\xE2\x96\x81\":3,\"a\":4,\"b\":5,\"ab\":6";
    static const char replace[] =
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}";
    static const char split[] = "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"
                                "\"behavior\":\"MergedWithPrevious\",\"invert\":false}";
    static const char extra[] = ",\"byte_fallback\":true,\"unk_token\":\"<unk>\"";
    static const char added[] = "{\"id\":0,\"content\":\"<unk>\",\"special\":true},"
                                "{\"id\":1,\"content\":\"<s>\",\"special\":true}";
    static const struct {
        const char *class_name, *pre, *model;
    } cases[] = {{"Gemma4ForConditionalGeneration", "gemma4", "gemma4"},
                 {"SarvamMoEForCausalLM", "sarvam-moe", "gpt2"},
                 {"ModernBertModel", "granite-embed-multi-311m", "gpt2"}};
    struct scratch s;
    scratch_make(&s);
    write_json(&s, replace, split, added, vocab, "\"a b\"", extra);
    struct vocabulary *v = vocabulary_of(s.folder, NULL, 0); /* Gemma 3 without its tokenizer.model */
    assert_int_equal(v->model, VOCAB_SPM);
    vocabulary_free(v);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[200];
        struct hf_config *config = NULL;
        struct gguf_meta *m = NULL;
        struct gguf_string text;
        int n =
            snprintf(json, sizeof json, "{\"architectures\":[\"%s\"],\"vocab_size\":7}", cases[i].class_name);
        assert_int_equal(hf_config_parse(&config, json, (size_t)n, "config.json", NULL), 0);
        v = vocabulary_of(s.folder, config, 0);
        assert_int_equal(v->model, VOCAB_BPE);
        assert_string_equal(v->pre, cases[i].pre);
        assert_int_equal(v->n_merges, 1);
        vocabulary_has(v, 0, "<unk>", TOKEN_UNKNOWN);
        vocabulary_has(v, 2, "<0x0A>", TOKEN_BYTE);
        assert_int_equal(gguf_meta_new(&m, NULL), 0);
        assert_int_equal(vocabulary_to_gguf(v, m, NULL), 0);
        vocabulary_free(v);
        assert_true(gguf_meta_get_string(m, "tokenizer.ggml.model", &text));
        assert_true(gguf_string_is(text, cases[i].model));
        assert_int_equal(vocabulary_from_gguf(&v, m, NULL), 0);
        assert_string_equal(v->pre, cases[i].pre);
        vocabulary_free(v);
        gguf_meta_free(m);
        hf_config_free(config);
    }
    write_json(&s, "null", "{\"type\":\"Whitespace\"}", "", "\"a\":0,\"b\":1,\"ab\":2", "\"a b\"", "");
    static const char jina[] = "{\"architectures\":[\"JinaBertModel\"],\"vocab_size\":3}";
    struct hf_config *config = NULL;
    assert_int_equal(hf_config_parse(&config, jina, sizeof jina - 1, "config.json", NULL), 0);
    v = vocabulary_of(s.folder, config, 0);
    hf_config_free(config);
    assert_string_equal(v->pre, "whitespace");
    vocabulary_free(v);
    scratch_remove(&s);
}

/* --- real vocabularies, where they are
 * ----------------------------------------------------------------------- */

static void real_files_give_the_expected_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *folder;
        size_t n_rows, n_merges;
        const char *tokens, *merges;
    } cases[] = {
        {"qwen2.5-0.5b-instruct", 151936, 151387,
         "62679f15a5db10120d72e7c2a43669990eb14e490cd85d20b1dab576b50ba09e",
         "599bab54075088774b1733fde865d5bd747cbcc7a547c5bc12610e874e26f5e3"},
        {"qwen1-7b", 151936, 151387, "60871bf7fb64ee8986fd1d3130e7bef95c7ae81faa1cdee2a8e568d075498b7b",
         "599bab54075088774b1733fde865d5bd747cbcc7a547c5bc12610e874e26f5e3"},
        {"llama2", 32000, 0, "7015eebad70f6975a0c548ce982fb76a4aa0835644628a5ed0b1fd41ff9a2912",
         "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[1024], hex[65];
        snprintf(path, sizeof path, "%s/data/tokenizers/%s", KERF_SHARED, cases[i].folder);
        if (access(path, R_OK) != 0)
            skip();
        struct vocabulary *v = vocabulary_of(path, NULL, cases[i].n_rows);
        assert_int_equal(v->n_tokens, cases[i].n_rows);
        assert_int_equal(v->n_merges, cases[i].n_merges);
        hash_tokens(v, hex);
        assert_string_equal(hex, cases[i].tokens);
        hash_merges(v, hex);
        assert_string_equal(hex, cases[i].merges);
        vocabulary_free(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demo_is_read_and_survives_gguf),
        cmocka_unit_test(added_tokens_get_their_types),
        cmocka_unit_test(pre_tokenizer_is_decided_by_its_pattern),
        cmocka_unit_test(deviations_from_the_name_survive_gguf),
        cmocka_unit_test(damaged_json_is_refused_with_its_reason),
        cmocka_unit_test(template_processor_decides_bos_and_eos),
        cmocka_unit_test(all_end_tokens_reach_the_file),
        cmocka_unit_test(ids_come_from_the_configuration_when_integers),
        cmocka_unit_test(templates_come_from_every_place),
        cmocka_unit_test(tekken_is_read),
        cmocka_unit_test(control_tokens_that_are_restated_stay_control),
        cmocka_unit_test(sentencepiece_model_is_read),
        cmocka_unit_test(damaged_sentencepiece_models_are_refused),
        cmocka_unit_test(a_stale_sentencepiece_model_does_not_count),
        cmocka_unit_test(sentencepiece_in_json_is_scored_by_its_merges),
        cmocka_unit_test(plain_bpe_goes_by_the_class),
        cmocka_unit_test(real_files_give_the_expected_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
