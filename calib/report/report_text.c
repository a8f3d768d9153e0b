/* report_text.c - the report as a table for a terminal. */
#include "report.h"

#include "report_parts.h"
#include "report_profile.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static void size_text(char out[32], uint64_t n_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n_bytes;
    size_t u = 0;
    for (; v >= 1024 && u < 4; u++)
        v /= 1024;
    snprintf(out, 32, u ? "%.2f %s" : "%.0f %s", v, units[u]);
}

/* Columns a terminal gives to a UTF-8 text, which printf counts in bytes. */
static int width_of(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void cell(FILE *out, const char *text, int width)
{
    fprintf(out, "%*s%s", width > width_of(text) ? width - width_of(text) : 0, "", text);
}

struct figure {
    char text[40];
};

/* A dash where a figure cannot be known: an error from one text, an order of equal scores. */
static struct figure figure(int decimals, double v)
{
    struct figure f = {"-"};
    if (!isnan(v))
        snprintf(f.text, sizeof f.text, "%.*f", decimals, v);
    return f;
}

/* Windows of running text, or single texts. */
static void amount(const struct report *r, FILE *out)
{
    static const char *const pooled[] = {"", "mean of its tokens", "first token", "last token", "last token"};
    if (r->answer == NET_TOKENS) {
        fprintf(out, "%-11s %zu of %zu tokens%s, ", "windows", r->n_windows, r->ctx,
                r->stride ? " (overlapping)" : "");
        if (r->run * r->n_windows == r->n_scored)
            fprintf(out, "%zu scored in each", r->run);
        else
            fprintf(out, "%zu scored%s", r->n_scored, r->answers_only ? ", those of answers" : "");
        return;
    }
    fprintf(out, "%-11s %zu", "texts", r->n_texts);
    if (r->n_texts_cut)
        fprintf(out, ", %zu of them cut to %zu tokens", r->n_texts_cut, r->ctx);
    if (r->answer == NET_EMBEDDING)
        fprintf(out, "; embedding of each: %s", pooled[r->pooling]);
    else
        fprintf(out, "; %zu scores%s", r->n_answers, r->has_probability ? ", as log-odds" : "");
    if (r->answer == NET_SCORE && r->label)
        fprintf(out, " of the label '%s'", r->label);
}

static void settings(const struct report *r, FILE *out)
{
    for (size_t i = 0; i < r->corpus->n_texts; i++)
        fprintf(out, "%-11s %s (%zu tokens)\n", i ? "" : "text", r->corpus->texts[i].path,
                r->corpus->texts[i].end - r->corpus->texts[i].begin);
    amount(r, out);
    fprintf(out, "%s\n",
            r->activations == ACTIVATIONS_Q8 ? "; activations rounded to 8 bits as in llama.cpp" : "");
    if (r->imatrix)
        fprintf(out, "%-11s %s\n", "imatrix", r->imatrix);
    if (r->hessian)
        fprintf(out, "%-11s error feedback under %s\n", "method", r->hessian);
    if (r->partial)
        fprintf(out, "%-11s stopped after %zu of %zu %s%s\n", "PARTIAL",
                r->answer == NET_TOKENS ? r->n_windows : r->n_texts,
                r->answer == NET_TOKENS ? r->n_windows_asked : r->n_texts_asked,
                r->answer == NET_TOKENS ? "windows" : "texts, the longest",
                r->kind == REPORT_PERPLEXITY ? "" : "; candidates that were not reached are missing");
    if (r->profiles_partial)
        fprintf(out, "%-11s stopped before all profiles were made\n", "PARTIAL");
}

static void perplexity_text(const struct report *r, FILE *out)
{
    const struct perplexity *p = &r->reference.ppl;
    fprintf(out, "%-11s %s\n", "model", r->reference.path);
    settings(r, out);
    fprintf(out, "%-11s %.4f ± %s%s\n", "perplexity", p->perplexity, figure(4, p->perplexity_stderr).text,
            r->partial ? " (partial)" : ", standard error over tokens as in llama.cpp");
    if (!isnan(p->window_stderr))
        fprintf(out, "%-11s ± %.4f over windows, which is the safer figure\n", "", p->window_stderr);
    fprintf(out, "%-11s %.5f ± %s nats per token over %zu tokens\n", "nll", p->nll.value,
            figure(5, p->nll.error).text, p->n_scored);
    if (!r->all_kept)
        fprintf(out, "%-11s %.0f tokens per second\n", "speed", r->reference.tokens_per_second);
    report_parts_text(r, out);
}

#define NAME_WIDTH 12 /* of the first column; the widest row then has 80 */

/* The first cell of a row. A longer name has a line of its own, so that the figures stay in their columns. A
 * star: some tensors of the mix have other types. */
static void name_cell(const struct report_model *c, FILE *out)
{
    const char *name = report_name(c), *star = c->n_fallbacks ? "*" : "";
    int n = width_of(name) + (int)strlen(star);
    if (n > NAME_WIDTH)
        fprintf(out, "%s%s\n%*s", name, star, NAME_WIDTH, "");
    else
        fprintf(out, "%s%s%*s", name, star, NAME_WIDTH - n, "");
}

/* What the stars mean. */
static void footnote(const struct report *r, FILE *out)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_candidates; i++)
        n = r->candidates[i].n_fallbacks > n ? r->candidates[i].n_fallbacks : n;
    if (n)
        fprintf(
            out,
            "* up to %zu tensors have a larger type than the level says: their rows do not take its blocks\n",
            n);
}

/* One figure, a space before it however long it is. */
static void number(FILE *out, int width, int decimals, double v)
{
    char text[64];
    snprintf(text, sizeof text, "%.*f", decimals, v);
    fputc(' ', out);
    cell(out, text, width);
}

static void estimate(FILE *out, int width, int decimals, double scale, struct estimate v)
{
    char text[100];
    snprintf(text, sizeof text, "%.*f ±%s", decimals, scale * v.value,
             figure(decimals, scale * v.error).text);
    fputc(' ', out);
    cell(out, text, width);
}

static void size_cells(const struct report_model *c, FILE *out)
{
    char size[32];
    size_text(size, c->n_bytes);
    fprintf(out, " %10s", size);
    number(out, 6, 3, c->bits_per_weight);
}

static void losses_row(const struct report_model *c, FILE *out)
{
    name_cell(c, out);
    size_cells(c, out);
    number(out, 8, 4, c->ppl.perplexity);
    estimate(out, 14, 4, 1, c->d.ppl_ratio);
    estimate(out, 18, 6, 1, c->d.kld);
    number(out, 6, 2, 100 * c->d.top1.value);
    fputc('\n', out);
}

static void tails_row(const struct report_model *c, FILE *out)
{
    name_cell(c, out);
    number(out, 7, 2, divergence_kept(&c->d));
    number(out, 11, 6, c->d.kld_at[6]);
    number(out, 9, 5, c->d.kld_at[10]);
    number(out, 9, 4, c->d.kld_at[12]);
    estimate(out, 13, 2, 100, c->d.top1);
    number(out, 7, 2, 100 * c->d.delta_p_rms.value);
    fputc('\n', out);
}

/* Two tables, one above the other: the losses, and how they are spread. */
static void tokens_table(const struct report *r, FILE *out)
{
    fprintf(out, "%-*s %10s %6s %8s %14s %18s %6s\n", NAME_WIDTH, "candidate", "size", "bpw", "PPL",
            "PPL ratio", "mean KLD", "top %");
    for (size_t i = 0; i < r->n_candidates; i++)
        losses_row(&r->candidates[i], out);
    fprintf(out, "\n%-*s %7s %11s %9s %9s %13s", NAME_WIDTH, "candidate", "kept %", "KLD median", "99 %",
            "max", "same top %");
    cell(out, "rms Δp", 8);
    fputc('\n', out);
    for (size_t i = 0; i < r->n_candidates; i++)
        tails_row(&r->candidates[i], out);
}

static void embeddings_table(const struct report *r, FILE *out)
{
    fprintf(out, "%-*s %10s %6s %23s %10s\n", NAME_WIDTH, "candidate", "size", "bpw", "mean cosine distance",
            "median");
    for (size_t i = 0; i < r->n_candidates; i++) {
        name_cell(&r->candidates[i], out);
        size_cells(&r->candidates[i], out);
        estimate(out, 23, 7, 1, r->candidates[i].change.distance);
        number(out, 10, 7, r->candidates[i].change.distance_median);
        fputc('\n', out);
    }
    fprintf(out, "\n%-*s %10s %10s %10s\n", NAME_WIDTH, "candidate", "95 %", "99 %", "max");
    for (size_t i = 0; i < r->n_candidates; i++) {
        name_cell(&r->candidates[i], out);
        number(out, 10, 7, r->candidates[i].change.distance_p95);
        number(out, 10, 7, r->candidates[i].change.distance_p99);
        number(out, 10, 7, r->candidates[i].change.distance_max);
        fputc('\n', out);
    }
}

static void scores_table(const struct report *r, FILE *out)
{
    fprintf(out, "%-*s %10s %6s %10s %20s %9s\n", NAME_WIDTH, "candidate", "size", "bpw", "mean score",
            "mean difference", "rms");
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct answer_change *c = &r->candidates[i].change;
        char text[100];
        name_cell(&r->candidates[i], out);
        size_cells(&r->candidates[i], out);
        number(out, 10, 4, c->score_mean);
        snprintf(text, sizeof text, "%+.5f ±%s", c->delta.value, figure(5, c->delta.error).text);
        fputc(' ', out);
        cell(out, text, 20);
        number(out, 9, 5, c->delta_rms);
        fputc('\n', out);
    }
    fprintf(out, "\n%-*s %9s", NAME_WIDTH, "candidate", "max");
    if (r->has_probability)
        fprintf(out, " %11s", "rms in prob");
    fprintf(out, " %8s %8s\n", "Kendall", "Spearman");
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct answer_change *c = &r->candidates[i].change;
        name_cell(&r->candidates[i], out);
        number(out, 9, 5, c->delta_max);
        if (r->has_probability)
            number(out, 11, 5, c->probability_rms);
        fprintf(out, " %8s %8s\n", figure(4, c->kendall).text, figure(4, c->spearman).text);
    }
}

static void comparison_text(const struct report *r, FILE *out)
{
    char size[32];
    size_text(size, r->reference.n_bytes);
    fprintf(out, "%-11s %s (%s, %.2f bits per weight)\n", "reference", r->reference.path, size,
            r->reference.bits_per_weight);
    if (r->stored)
        fprintf(out, "%-11s %s\n", "stored in", r->stored);
    settings(r, out);
    if (r->answer == NET_TOKENS)
        fprintf(out, "%-11s %.4f ± %s (reference)\n\n", "perplexity", r->reference.ppl.perplexity,
                figure(4, r->reference.ppl.perplexity_stderr).text);
    else if (r->answer == NET_SCORE)
        fprintf(out, "%-11s %.4f on average (reference)\n\n", "score", r->reference.change.score_mean);
    else
        fputc('\n', out);
    if (r->n_candidates == 0)
        return;
    if (r->answer == NET_TOKENS)
        tokens_table(r, out);
    else if (r->answer == NET_SCORE)
        scores_table(r, out);
    else
        embeddings_table(r, out);
    footnote(r, out);
    report_parts_text(r, out);
    report_profiles_text(r, out);
}

/* What would be done: no figure is known yet but counts and sizes. */
static void plan_text(const struct report *r, FILE *out)
{
    char size[32];
    bool texts = r->answer != NET_TOKENS;
    size_t n_models = r->n_candidates + (r->stored ? 0 : 1);
    uint64_t n_tokens = texts ? r->n_text_tokens : (uint64_t)r->n_windows * r->ctx;
    size_text(size, r->reference.n_bytes);
    fprintf(out, "%-11s %s (%s, %.2f bits per weight)\n", r->n_candidates ? "reference" : "model",
            r->reference.path, size, r->reference.bits_per_weight);
    settings(r, out);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        size_text(size, c->n_bytes);
        fprintf(out, "%-11s %s (%s, %.2f bits per weight)\n", i ? "" : "candidates", report_name(c), size,
                c->bits_per_weight);
    }
    fprintf(out, "%-11s %" PRIu64 " tokens through %zu model%s, %zu %s\n", "would run", n_tokens, n_models,
            n_models == 1 ? "" : "s", texts ? r->n_answers : r->n_scored,
            texts ? "answers" : "of them scored");
    report_profiles_plan(r, out);
    if (r->html)
        fprintf(out, "%-11s %s\n", "would write", r->html);
    if (r->saved)
        fprintf(out, "%-11s %s\n", "would write", r->saved);
    if (r->logits)
        fprintf(out, "%-11s %s and %s.json\n", "would write", r->logits, r->logits);
}

void report_text(const struct report *r, FILE *out)
{
    if (r->planned)
        plan_text(r, out);
    else if (r->kind == REPORT_PERPLEXITY)
        perplexity_text(r, out);
    else
        comparison_text(r, out);
}
