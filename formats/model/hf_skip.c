/* hf_skip.c - see hf_skip.h. Specification, architectures 0.7; the user's expressions come first, so that
 * their tensors are listed under that reason. */
#include "hf_skip.h"

#include "formats/recipe/pattern.h"

#include <stdlib.h>
#include <string.h>

int hf_skip_init(struct hf_skip *s, const struct arch_model *a, const struct model_options *opt,
                 struct err *e)
{
    size_t n = opt->n_skip_tensors;
    *s = (struct hf_skip){.a = a, .opt = opt};
    s->patterns = calloc(n + 1, sizeof(struct pattern *));
    s->used = calloc(n + 1, sizeof *s->used);
    if (!s->patterns || !s->used)
        return err_set(e, ERR_NOMEM, "out of memory for %zu expressions", n);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = pattern_new(&s->patterns[i], opt->skip_tensors[i], strlen(opt->skip_tensors[i]), false, e);
    return rc;
}

void hf_skip_release(struct hf_skip *s)
{
    for (size_t i = 0; s->patterns && i < s->opt->n_skip_tensors; i++)
        pattern_free(s->patterns[i]);
    free(s->patterns);
    free(s->used);
    *s = (struct hf_skip){0};
}

static int asked_for(struct hf_skip *s, const char *name, bool *asked, struct err *e)
{
    int rc = 0;
    *asked = false;
    for (size_t i = 0; rc == 0 && i < s->opt->n_skip_tensors; i++) {
        bool matches = false;
        rc = pattern_test(&matches, s->patterns[i], name, e);
        s->used[i] |= matches;
        *asked |= matches;
    }
    return rc;
}

int hf_skip_reason(struct hf_skip *s, const char *name, const char *stripped, const char **reason,
                   struct err *e)
{
    bool asked;
    int rc = asked_for(s, name, &asked, e);
    *reason = asked              ? "left out by --skip-tensor"
              : s->a->arch->drop ? s->a->arch->drop(stripped)
                                 : arch_drop_reason(stripped);
    if (!*reason && (s->a->answer == ARCH_SCORE || s->a->answer == ARCH_REWARD) &&
        strncmp(stripped, "lm_head.", 8) == 0)
        *reason = "a language head, which a model with a score head does not use";
    uint64_t block;
    if (!*reason && !s->opt->keep_mtp &&
        (strncmp(stripped, "mtp.", 4) == 0 || arch_is_behind(s->a, stripped, &block)))
        *reason = "multi-token prediction block";
    return rc;
}
