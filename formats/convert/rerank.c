/* rerank.c - see rerank.h. */
#include "rerank.h"

#include "formats/hf/hf_checkpoint.h"
#include "formats/tokenizer/vocabulary.h"
#include "libquant/base/filemap.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

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

/* The last path component only: a parent folder says nothing about the model. */
static bool folder_says(const char *folder)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    size_t start = n;
    while (start && folder[start - 1] != '/')
        start--;
    return contains(folder + start, n - start, "qwen3-reranker") ||
           contains(folder + start, n - start, "qwen3-vl-reranker");
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

int rerank_detect(struct arch_model *a, const char *folder, const struct vocabulary *v, struct err *e)
{
    if (!(a->arch->quirks & ARCH_RERANKER))
        return 0;
    bool yes;
    int rc = readme_says(&yes, folder, e);
    if (rc != 0)
        return rc;
    yes |= folder_says(folder);
    yes |= names_reranker(json_string(json_get(hf_config_root(a->config), "_name_or_path")));
    yes |= names_reranker(hf_config_model_type(a->config));
    if (!yes)
        return 0;
    rc = find_token(&a->label_rows[0], v, "yes", e);
    if (rc == 0)
        rc = find_token(&a->label_rows[1], v, "no", e);
    a->is_reranker = rc == 0;
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

int rerank_add_keys(const struct arch_model *a, struct gguf_meta *meta, struct err *e)
{
    static const struct gguf_string labels[] = {{"yes", 3}, {"no", 2}}, templates[] = {{"rerank", 6}};
    char key[96];
    if (!a->is_reranker)
        return 0;
    snprintf(key, sizeof key, "%s.classifier.output_labels", a->arch->name);
    int rc = arch_set_u32(a, meta, "pooling_type", 4, e); /* RANK */
    if (rc == 0)
        rc = gguf_meta_set_strings(meta, key, labels, 2, e);
    if (rc == 0)
        rc = gguf_meta_set_strings(meta, "tokenizer.chat_templates", templates, 1, e);
    return rc != 0 ? rc : gguf_meta_set_string(meta, "tokenizer.chat_template.rerank", prompt, e);
}
