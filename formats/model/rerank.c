/* rerank.c - see rerank.h. */
#include "rerank.h"

#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/hf_folder.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/filemap.h"
#include "libquant/base/path.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { POOLING_LAST = 3, POOLING_RANK = 4 }; /* ids fixed by GGUF */

/* `needle` is lower case. */
static bool contains(const char *text, size_t n, const char *needle)
{
    size_t k = strlen(needle);
    for (size_t i = 0; i + k <= n; i++) {
        size_t j = 0;
        while (j < k && tolower((unsigned char)text[i + j]) == needle[j])
            j++;
        if (j == k)
            return true;
    }
    return false;
}

static bool names_reranker(const char *text)
{
    return text && (contains(text, strlen(text), "qwen3-reranker") ||
                    contains(text, strlen(text), "qwen3-vl-reranker"));
}

static int readme_says(bool *yes, const char *folder, struct err *e)
{
    struct filemap map = {0};
    *yes = false;
    if (!hf_file_exists(folder, "README.md"))
        return 0;
    char *path = hf_path(folder, "README.md");
    int rc = path ? filemap_open(&map, path, e) : err_set(e, ERR_NOMEM, "out of memory");
    free(path);
    if (rc == 0)
        *yes = contains((const char *)map.data, map.size, "# qwen3-reranker") ||
               contains((const char *)map.data, map.size, "# qwen3-vl-reranker");
    filemap_close(&map);
    return rc;
}

/* The model's own name only: a parent folder says nothing about the model. */
static int folder_says(bool *yes, const char *folder, struct err *e)
{
    char *name = NULL;
    int rc = hf_folder_name(&name, folder, e);
    *yes |= rc == 0 && names_reranker(name);
    free(name);
    return rc;
}

static int find_token(uint64_t *row, const struct vocabulary *v, const char *text, struct err *e)
{
    for (size_t i = 0; v && i < v->n_tokens; i++) {
        if (strcmp(v->tokens[i].text, text) == 0) {
            *row = i;
            return 0;
        }
    }
    return err_set(e, ERR_FORMAT, "a reranker needs the token '%s', which the vocabulary does not have",
                   text);
}

static int is_reranker(bool *yes, const struct arch_model *a, const char *folder, struct err *e)
{
    int rc = 0;
    *yes = false;
    if (folder) {
        rc = readme_says(yes, folder, e);
        if (rc == 0)
            rc = folder_says(yes, folder, e);
    }
    *yes |= names_reranker(json_string(json_get(hf_config_root(a->config), "_name_or_path")));
    *yes |= names_reranker(hf_config_model_type(a->config));
    return rc;
}

int rerank_detect(struct arch_model *a, const char *folder, const struct vocabulary *v, struct err *e)
{
    if (!(a->arch->quirks & ARCH_RERANKER) || a->answer != ARCH_TOKENS)
        return 0; /* a score head of its own needs no rows of another */
    bool yes;
    int rc = is_reranker(&yes, a, folder, e);
    if (rc != 0 || !yes)
        return rc;
    rc = find_token(&a->label_rows[0], v, "yes", e);
    if (rc == 0)
        rc = find_token(&a->label_rows[1], v, "no", e);
    if (rc == 0)
        a->answer = ARCH_YES_NO;
    return rc;
}

/* The prompt on which the model card of Qwen3-Reranker says it was trained; a runtime fills in the braces. */
static const char prompt[] = "<|im_start|>system\nJudge whether the Document meets the requirements based on "
                             "the Query and the Instruct provided. "
                             "Note that the answer can only be \"yes\" or "
                             "\"no\".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a web search "
                             "query, retrieve relevant passages that answer the query\n<Query>: "
                             "{query}\n<Document>: {document}<|im_end|>\n"
                             "<|im_start|>assistant\n<think>\n\n</think>\n\n";

static int add_labels(const struct arch_model *a, struct gguf_meta *meta, const char *first,
                      const char *second, struct err *e)
{
    struct gguf_string labels[] = {{first, strlen(first)},
                                   {second ? second : "", second ? strlen(second) : 0}};
    return arch_set_strings(a, meta, "classifier.output_labels", labels, second ? 2 : 1, e);
}

static int add_prompt(struct gguf_meta *meta, struct err *e)
{
    static const struct gguf_string templates[] = {{"rerank", 6}};
    int rc = gguf_meta_set_strings(meta, "tokenizer.chat_templates", templates, 1, e);
    return rc != 0 ? rc : gguf_meta_set_string(meta, "tokenizer.chat_template.rerank", prompt, e);
}

/* Name of a label in config.json, or the one that HuggingFace gives it. */
static const char *label_name(const struct arch_model *a, size_t i)
{
    static const char *const standard[] = {"LABEL_0", "LABEL_1"};
    const char *id[] = {"0", "1"};
    const char *name = json_string(json_get(hf_config_get(a->config, "id2label"), id[i]));
    return name && name[0] ? name : standard[i];
}

/* A score head: the last token's state is scored. Where the runtime can rank, a lone score has a label of
 * zeros behind it (arch_rows.h). */
static int add_score_keys(const struct arch_model *a, struct gguf_meta *meta, const char *folder,
                          struct err *e)
{
    bool ranked = (a->arch->quirks & ARCH_RERANKER) != 0, reranker = false;
    int rc = is_reranker(&reranker, a, folder, e);
    if (rc == 0)
        rc = arch_set_u32(a, meta, "pooling_type", ranked ? POOLING_RANK : POOLING_LAST, e);
    if (rc != 0)
        return rc;
    if (a->value[ARCH_C] == 2)
        return add_labels(a, meta, label_name(a, 0), label_name(a, 1), e);
    if (!ranked)
        return add_labels(a, meta, label_name(a, 0), NULL, e);
    rc = reranker ? add_labels(a, meta, "yes", "no", e) : add_labels(a, meta, label_name(a, 0), "none", e);
    return rc == 0 && reranker ? add_prompt(meta, e) : rc;
}

int rerank_add_keys(const struct arch_model *a, struct gguf_meta *meta, const char *folder, struct err *e)
{
    int rc = 0;
    switch (a->answer) {
    case ARCH_TOKENS: break;
    case ARCH_YES_NO:
        rc = arch_set_u32(a, meta, "pooling_type", POOLING_RANK, e);
        if (rc == 0)
            rc = add_labels(a, meta, "yes", "no", e);
        if (rc == 0)
            rc = add_prompt(meta, e);
        break;
    case ARCH_SCORE: rc = add_score_keys(a, meta, folder, e); break;
    case ARCH_REWARD:
        rc = arch_set_u32(a, meta, "pooling_type", POOLING_LAST, e);
        if (rc == 0 && a->value[ARCH_C] == 1)
            rc = add_labels(a, meta, "reward", NULL, e);
        else if (rc == 0)
            rc = add_labels(a, meta, "wrong", "right", e);
        break;
    }
    return rc;
}
