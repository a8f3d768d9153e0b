/* report_text.c - the report as a table for a terminal. */
#include "report.h"

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
        fprintf(out, "%-11s %zu of %zu tokens%s, %zu scored in each", "windows", r->n_windows, r->ctx,
                r->stride ? " (overlapping)" : "", r->run);
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
    if (r->partial)
        fprintf(out, "%-11s stopped after %zu of %zu %s%s\n", "PARTIAL",
                r->answer == NET_TOKENS ? r->n_windows : r->n_texts,
                r->answer == NET_TOKENS ? r->n_windows_asked : r->n_texts_asked,
                r->answer == NET_TOKENS ? "windows" : "texts, the longest",
                r->kind == REPORT_PERPLEXITY ? "" : "; candidates that were not reached are missing");
}

static void perplexity_text(const struct report *r, FILE *out)
{
    const struct perplexity *p = &r->reference.ppl;
    fprintf(out, "%-11s %s\n", "model", r->reference.path);
    settings(r, out);
    fprintf(out, "%-11s %.4f ± %s%s\n", "perplexity", p->perplexity, figure(4, p->perplexity_stderr).text,
            r->partial ? " (partial)" : "");
    if (!isnan(p->window_stderr))
        fprintf(out, "%-11s ± %.4f from the means of windows, which count related tokens as related\n", "",
                p->window_stderr);
    fprintf(out, "%-11s %.5f ± %s nats per token over %zu tokens\n", "nll", p->nll.value,
            figure(5, p->nll.error).text, p->n_scored);
    fprintf(out, "%-11s %.0f tokens per second\n", "speed", r->reference.tokens_per_second);
}

/* The right edge of a long name says more than its left one. */
static void name_cell(FILE *out, const char *name, int width)
{
    int n = (int)strlen(name);
    if (n > width)
        fprintf(out, "…%s", name + n - width + 1);
    else
        fprintf(out, "%-*s", width, name);
}

static void table_row(const struct report_model *c, int name_width, FILE *out)
{
    char text[64], size[32];
    const struct divergence *d = &c->d;
    name_cell(out, report_name(c), name_width);
    size_text(size, c->n_bytes);
    fprintf(out, " %10s %6.3f %9.4f", size, c->bits_per_weight, c->ppl.perplexity);
    snprintf(text, sizeof text, "%.4f ±%s", d->ppl_ratio.value, figure(4, d->ppl_ratio.error).text);
    cell(out, text, 16);
    fprintf(out, " %6.2f", divergence_kept(d));
    snprintf(text, sizeof text, "%.6f ±%s", d->kld.value, figure(6, d->kld.error).text);
    cell(out, text, 20);
    fprintf(out, " %9.6f %8.5f %8.4f", d->kld_at[6], d->kld_at[10], d->kld_at[12]);
    snprintf(text, sizeof text, "%.2f ±%s", 100 * d->top1.value, figure(2, 100 * d->top1.error).text);
    cell(out, text, 13);
    snprintf(text, sizeof text, "%.2f", 100 * d->delta_p_rms.value);
    cell(out, text, 7);
    fputc('\n', out);
}

static void embedding_head(int width, FILE *out)
{
    fprintf(out, "%-*s %10s %6s%24s %10s %10s %10s %10s\n", width, "candidate", "size", "bpw",
            "mean cosine distance", "median", "95 %", "99 %", "max");
}

static void embedding_row(const struct report_model *m, FILE *out)
{
    const struct answer_change *c = &m->change;
    char text[64];
    snprintf(text, sizeof text, "%.7f ±%s", c->distance.value, figure(7, c->distance.error).text);
    cell(out, text, 24);
    fprintf(out, " %10.7f %10.7f %10.7f %10.7f\n", c->distance_median, c->distance_p95, c->distance_p99,
            c->distance_max);
}

static void score_head(const struct report *r, int width, FILE *out)
{
    fprintf(out, "%-*s %10s %6s %10s%22s %9s %9s", width, "candidate", "size", "bpw", "mean score",
            "mean difference", "rms", "max");
    if (r->has_probability)
        fprintf(out, " %11s", "rms in prob");
    fprintf(out, " %8s %8s\n", "Kendall", "Spearman");
}

static void score_row(const struct report *r, const struct report_model *m, FILE *out)
{
    const struct answer_change *c = &m->change;
    char text[64];
    fprintf(out, " %10.4f", c->score_mean);
    snprintf(text, sizeof text, "%+.5f ±%s", c->delta.value, figure(5, c->delta.error).text);
    cell(out, text, 22);
    fprintf(out, " %9.5f %9.5f", c->delta_rms, c->delta_max);
    if (r->has_probability)
        fprintf(out, " %11.5f", c->probability_rms);
    fprintf(out, " %8s %8s\n", figure(4, c->kendall).text, figure(4, c->spearman).text);
}

/* The table of models that answer once for a text. */
static void answers_table(const struct report *r, int width, FILE *out)
{
    if (r->answer == NET_SCORE)
        score_head(r, width, out);
    else
        embedding_head(width, out);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        char size[32];
        name_cell(out, report_name(c), width);
        size_text(size, c->n_bytes);
        fprintf(out, " %10s %6.3f", size, c->bits_per_weight);
        if (r->answer == NET_SCORE)
            score_row(r, c, out);
        else
            embedding_row(c, out);
    }
}

static void comparison_text(const struct report *r, FILE *out)
{
    char size[32];
    int width = 9;
    size_text(size, r->reference.n_bytes);
    fprintf(out, "%-11s %s (%s, %.2f bits per weight)\n", "reference", r->reference.path, size,
            r->reference.bits_per_weight);
    settings(r, out);
    if (r->answer == NET_TOKENS)
        fprintf(out, "%-11s %.4f ± %s (reference)\n\n", "perplexity", r->reference.ppl.perplexity,
                figure(4, r->reference.ppl.perplexity_stderr).text);
    else if (r->answer == NET_SCORE)
        fprintf(out, "%-11s %.4f on average (reference)\n\n", "score", r->reference.change.score_mean);
    else
        fputc('\n', out);
    bool with_folders = false;
    for (size_t i = 0; i < r->n_candidates; i++) {
        const char *name = report_name(&r->candidates[i]);
        int n = (int)strlen(name);
        width = n > width ? n : width;
        with_folders |= strchr(name, '/') != NULL;
    }
    if (width > 36 && !with_folders) /* what tells such names apart is at their beginning */
        width = 36;
    if (r->answer != NET_TOKENS) {
        answers_table(r, width, out);
        return;
    }
    fprintf(out, "%-*s %10s %6s %9s%16s %6s%20s %9s %8s %8s%13s", width, "candidate", "size", "bpw", "PPL",
            "PPL ratio", "kept %", "mean KLD", "median", "99 %", "max", "same top %");
    cell(out, "rms Δp", 8);
    fputc('\n', out);
    for (size_t i = 0; i < r->n_candidates; i++)
        table_row(&r->candidates[i], width, out);
}

/* What would be done: no figure is known yet but counts and sizes. */
static void plan_text(const struct report *r, FILE *out)
{
    char size[32];
    bool texts = r->answer != NET_TOKENS;
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
    fprintf(out, "%-11s %" PRIu64 " tokens through %zu model%s, %zu %s\n", "would run", n_tokens,
            r->n_candidates + 1, r->n_candidates ? "s" : "", texts ? r->n_answers : r->n_scored,
            texts ? "answers" : "of them scored");
    if (r->html)
        fprintf(out, "%-11s %s\n", "would write", r->html);
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
