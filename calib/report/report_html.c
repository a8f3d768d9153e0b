/* report_html.c - the report as one HTML page without outside references: the figures first, the
 * two charts, the table, and below everything that is needed to repeat the run. Light and dark follow the
 * reader. */
#include "report.h"

#include "chart.h"
#include "page.h"
#include "report_parts.h"
#include "report_profile.h"

#include "libquant/base/path.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FLOAT_BITS 15.5 /* fewer bits per weight: the reference is quantized itself */

static const char *lead(const struct report *r)
{
    if (r->answer == NET_EMBEDDING)
        return "How far the embeddings of each candidate are from those of the reference, text by text.";
    if (r->answer == NET_SCORE)
        return "How far the scores of each candidate are from those of the reference, and whether they order "
               "the texts alike.";
    if (r->kind == REPORT_LADDER && r->reference.bits_per_weight < FLOAT_BITS)
        return "What each level of quantization costs: how far its predictions move from those of the file "
               "it was made from, which is quantized itself, on the same text, token by token.";
    return r->kind == REPORT_LADDER
               ? "What each level of quantization costs: how far its predictions move from those of the "
                 "original weights, on the same text, token by token."
               : "How far the predictions of each candidate are from those of the reference, on the same "
                 "text, token by token.";
}

/* "wiki.test.raw, code.py", as on every page of the house. */
static void put_texts(const struct report *r, FILE *out)
{
    for (size_t i = 0; i < r->corpus->n_texts; i++) {
        fputs(i ? ", " : "", out);
        report_put(out, path_short(r->corpus->texts[i].path));
    }
}

static void put_title(const struct report *r, const char *name, FILE *out)
{
    report_put(out, name);
    if (r->corpus->n_texts > 0)
        fputs(" on ", out);
    put_texts(r, out);
    fprintf(out, ", %s%zu tokens", r->answer == NET_TOKENS ? "windows of " : "texts of at most ", r->ctx);
}

/* What was measured, in one paragraph. */
static void facts(const struct report *r, FILE *out)
{
    static const char stopped[] = " The run was stopped before its end; the figures cover what was finished.";
    fputs("<p class=\"soft\">Text: ", out);
    put_texts(r, out);
    if (r->answer == NET_TOKENS) {
        fprintf(out, ". %zu scored tokens%s in %zu windows of %zu. Perplexity of the reference %.4f",
                r->n_scored, r->answers_only ? " of answers" : "", r->n_windows, r->ctx,
                r->reference.ppl.perplexity);
        if (!isnan(r->reference.ppl.perplexity_stderr))
            fprintf(out, "&#8239;±&#8239;%.4f", r->reference.ppl.perplexity_stderr);
    } else
        fprintf(out, ". %zu answers for %zu texts, %zu of which were cut to %zu tokens", r->n_answers,
                r->n_texts, r->n_texts_cut, r->ctx);
    fprintf(out, ". Inputs of products: %s.%s%s</p>\n",
            r->activations == ACTIVATIONS_Q8 ? "8-bit blocks, as in llama.cpp" : "32-bit floats",
            r->partial ? stopped : "",
            r->profiles_partial ? " The run was stopped before all profiles were made." : "");
}

static void head(const struct report *r, FILE *out)
{
    const char *name = r->title && r->title[0] ? r->title : report_name(&r->reference);
    page_open(out);
    put_title(r, name, out);
    page_main(out, r->kind == REPORT_LADDER ? "quality ladder" : "comparison");
    report_put(out, name);
    if (r->partial || r->profiles_partial)
        page_partial(out);
    fprintf(out, "</h1>\n<p class=\"lead\">%s</p>\n", lead(r));
    facts(r, out);
}

static void first_cells(const struct report_model *c, FILE *out)
{
    fputs("<tr><td>", out);
    report_put(out, report_name(c));
    if (c->n_fallbacks)
        fprintf(
            out,
            "<span class=\"e\" title=\"%zu tensors have a larger type: their rows do not take the blocks of "
            "this level\">&#8239;*&#8239;%zu</span>",
            c->n_fallbacks, c->n_fallbacks);
    fputs("</td><td>", out);
    page_size(out, c->n_bytes);
    fprintf(out, "</td><td>%.3f</td>", c->bits_per_weight);
}

static void embedding_rows(const struct report *r, FILE *out)
{
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct answer_change *c = &r->candidates[i].change;
        first_cells(&r->candidates[i], out);
        page_estimate(out, 7, c->distance.value, c->distance.error, false);
        page_figure(out, 7, c->distance_median);
        page_figure(out, 7, c->distance_p95);
        page_figure(out, 7, c->distance_p99);
        page_figure(out, 7, c->distance_max);
        fputs("</tr>\n", out);
    }
}

static void score_rows(const struct report *r, FILE *out)
{
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct answer_change *c = &r->candidates[i].change;
        first_cells(&r->candidates[i], out);
        page_figure(out, 4, c->score_mean);
        page_estimate(out, 5, c->delta.value, c->delta.error, true);
        page_figure(out, 5, c->delta_rms);
        page_figure(out, 5, c->delta_max);
        if (r->has_probability)
            page_figure(out, 5, c->probability_rms);
        page_figure(out, 4, c->kendall);
        page_figure(out, 4, c->spearman);
        fputs("</tr>\n", out);
    }
}

#define FIRST_COLUMNS "Candidate|Size|Bits per weight|"

/* Of models that answer once for a text. */
static void answers_table(const struct report *r, FILE *out)
{
    const bool score = r->answer == NET_SCORE;
    page_table(out, "Figures",
               !score               ? FIRST_COLUMNS "Mean cosine distance|Median|95 %|99 %|Max"
               : r->has_probability ? FIRST_COLUMNS
                   "Mean score|Mean difference|RMS|Max|RMS in probability|Kendall|Spearman"
                                    : FIRST_COLUMNS "Mean score|Mean difference|RMS|Max|Kendall|Spearman",
               true);
    if (score)
        score_rows(r, out);
    else
        embedding_rows(r, out);
    page_table_end(out);
    fputs("<p class=\"note\">", out);
    fputs(!score ? "Cosine distance: one minus the cosine of the angle between both embeddings of a text."
                 : "Differences are candidate minus reference on the same text. Kendall (tau-b) and Spearman "
                   "compare the order of the texts; 1 is the same order.",
          out);
    fputs(r->has_probability ? " Scores are log-odds." : "", out);
    if (score && r->label) {
        fputs(" What is scored is the label ‘", out);
        report_put(out, r->label);
        fputs("’.", out);
    }
    fputs(" ± is one standard error.</p>\n", out);
}

static void table(const struct report *r, FILE *out)
{
    page_table(out, "Figures",
               FIRST_COLUMNS "Mean KLD|Median|99 %|99.9 %|Max|Perplexity|Perplexity ratio|Quality kept, %|"
                             "Same first token, %|RMS Δp, %|Step in KLD",
               true);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        const struct divergence *d = &c->d;
        first_cells(c, out);
        page_estimate(out, 6, d->kld.value, d->kld.error, false);
        page_figure(out, 6, d->kld_at[6]);
        page_figure(out, 5, d->kld_at[10]);
        page_figure(out, 4, d->kld_at[11]);
        page_figure(out, 4, d->kld_at[12]);
        page_figure(out, 4, c->ppl.perplexity);
        page_estimate(out, 5, d->ppl_ratio.value, d->ppl_ratio.error, false);
        page_figure(out, 2, divergence_kept(d));
        page_estimate(out, 2, 100 * d->top1.value, 100 * d->top1.error, false);
        page_estimate(out, 3, 100 * d->delta_p_rms.value, 100 * d->delta_p_rms.error, false);
        if (c->has_step)
            page_estimate(out, 6, c->step.value, c->step.error, true);
        else
            fputs("<td></td>", out);
        fputs("</tr>\n", out);
    }
    page_table_end(out);
    fputs("<p class=\"note\">KLD: Kullback-Leibler divergence of the candidate's distribution over the next "
          "token from the reference's, in nats. Δp: change of the probability of the right token. Quality "
          "kept: 100 times the reference's perplexity over the candidate's. Step: from the candidate above, "
          "in the order of measurement. ± is one standard error; steps and ratios are paired, so they are "
          "more certain than the values they compare.</p>\n",
          out);
}

/* Every candidate against every limit that was set. */
static void gates(const struct report *r, FILE *out)
{
    static const char *const verdicts[] = {"<td>met</td>", "<td class=\"missed\">not met</td>",
                                           "<td class=\"missed\">open: the run was stopped</td>"};
    page_table(out, "Gates", "Candidate|Figure|Limit|Found|Verdict", false);
    for (size_t i = 0; i < r->n_candidates; i++)
        for (size_t k = 0; k < r->n_gates; k++) {
            const struct report_gate *g = &r->gates[k];
            fputs("<tr><td>", out);
            report_put(out, report_name(&r->candidates[i]));
            fprintf(out, "</td><td>%s</td><td>%s %.6g</td><td>%.6g</td>%s</tr>\n", g->what,
                    g->at_least ? "at least" : "at most", g->limit, g->figure(&r->candidates[i]),
                    verdicts[report_judge(r, g, &r->candidates[i])]);
        }
    page_table_end(out);
}

/* That of all candidates, or those that single ones bring along. */
static void importance(const struct report *r, FILE *out)
{
    bool any = false;
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        if (!c->imatrix || (r->imatrix && strcmp(c->imatrix, r->imatrix) == 0))
            continue;
        any = true;
        page_item_open(out, "Importance matrix");
        report_put(out, c->imatrix);
        fputs(" (", out);
        report_put(out, report_name(c));
        fputs(")</dd>\n", out);
    }
    if (r->recipe && (r->imatrix || !any))
        page_item(out, "Importance matrix", r->imatrix ? r->imatrix : "none");
    for (size_t i = 0; i < r->n_candidates; i++)
        if (r->candidates[i].kv_type) {
            page_item_open(out, "Keys and values");
            fprintf(out, "%s (", r->candidates[i].kv_type);
            report_put(out, report_name(&r->candidates[i]));
            fputs(")</dd>\n", out);
        }
}

/* Hashes of the candidates that are files of their own. */
static void candidate_hashes(const struct report *r, FILE *out)
{
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        if (c->type || !c->sha256 || !c->sha256[0])
            continue;
        page_item_open(out, "Candidate");
        report_put(out, c->path);
        fprintf(out, "<br><code>%s</code></dd>\n", c->sha256);
    }
}

static void texts(const struct report *r, FILE *out)
{
    for (size_t i = 0; i < r->corpus->n_texts; i++) {
        const struct corpus_text *t = &r->corpus->texts[i];
        page_item_open(out, "Text");
        report_put(out, t->path);
        fprintf(out, ", %" PRIu64 " bytes, %zu tokens<br><code>%s</code></dd>\n", t->n_bytes,
                t->end - t->begin, t->sha256);
    }
    page_hash(out, "Token ids", r->ids_sha256);
    if (r->answer == NET_TOKENS) {
        page_item_open(out, "Windows");
        fprintf(out, "%zu of %zu tokens%s, ", r->n_windows, r->ctx, r->stride ? ", overlapping" : "");
        if (r->run * r->n_windows == r->n_scored)
            fprintf(out, "the last %zu predictions of each scored", r->run);
        else
            fprintf(out, "%zu predictions scored", r->n_scored);
        fprintf(out, "%s</dd>\n", r->answers_only ? ", of answers alone" : "");
    } else {
        page_item_open(out, "Texts");
        fprintf(out, "%zu, of at most %zu tokens</dd>\n", r->n_texts, r->ctx);
    }
}

static void foot(const struct report *r, FILE *out)
{
    char run[200];
    page_foot(out);
    page_item(out, "Reference", r->reference.path);
    page_hash(out, "Content of the reference", r->reference.sha256);
    page_item_open(out, "Size");
    page_size(out, r->reference.n_bytes);
    fprintf(out, ", %.3f bits per weight, %" PRIu64 " parameters, architecture ",
            r->reference.bits_per_weight, r->n_parameters);
    report_put(out, r->architecture);
    fputs("</dd>\n", out);
    if (r->stored)
        page_item(out, "Reference stored in", r->stored);
    candidate_hashes(r, out);
    texts(r, out);
    page_item(out, "Activations",
              r->activations == ACTIVATIONS_Q8 ? "rounded as the llama.cpp CPU runtime rounds them"
                                               : "32-bit floats");
    if (r->reference.kv_type)
        page_item(out, "Keys and values of all", r->reference.kv_type);
    if (r->recipe)
        page_item(out, "Mix rules", r->recipe);
    importance(r, out);
    if (r->hessian)
        page_item(out, "Error feedback under", r->hessian);
    snprintf(run, sizeof run, "%u threads, %s, %.1f seconds", r->n_threads, r->isa ? r->isa : "native",
             r->seconds);
    const struct page_about about = {r->version, r->command, run};
    page_close(out, &about);
}

/* --- the data --- */

static void put_csv(const struct report *r, FILE *out)
{
    fputs("candidate,n_bytes,bits_per_weight,perplexity,ppl_ratio,ppl_ratio_stderr,kld_mean,kld_stderr,kld_"
          "median,kld_p99,top1_agreement,delta_p_rms\n",
          out);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        const struct divergence *d = &c->d;
        page_csv_text(out, report_name(c));
        fprintf(out, ",%" PRIu64 ",%.6f,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g\n", c->n_bytes,
                c->bits_per_weight, c->ppl.perplexity, d->ppl_ratio.value, d->ppl_ratio.error, d->kld.value,
                d->kld.error, d->kld_at[6], d->kld_at[10], d->top1.value, d->delta_p_rms.value);
    }
}

static void csv_data(const void *ctx, FILE *out)
{
    put_csv(ctx, out);
}

static void profile_data(const void *ctx, FILE *out)
{
    report_profiles_csv(ctx, out);
}

static void json_data(const void *ctx, FILE *out)
{
    report_json(ctx, out);
}

static bool has_profile(const struct report *r)
{
    for (size_t i = 0; i < r->n_candidates; i++)
        if (r->candidates[i].profile)
            return true;
    return false;
}

static void parts_data(const void *ctx, FILE *out)
{
    report_parts_csv(ctx, out);
}

static int data_links(const struct report *r, FILE *out)
{
    int rc = 0;
    if (r->n_candidates == 0)
        return 0;
    page_data(out);
    if (r->answer == NET_TOKENS)
        rc = page_link(out, "kerf.csv", "text/csv", csv_data, r);
    if (rc == 0 && r->parts && r->parts->n_texts + r->parts->n_depths > 0)
        rc = page_link(out, "parts.csv", "text/csv", parts_data, r);
    if (rc == 0 && has_profile(r))
        rc = page_link(out, "profile.csv", "text/csv", profile_data, r);
    if (rc == 0)
        rc = page_link(out, "kerf.json", "application/json", json_data, r);
    page_data_end(out);
    return rc;
}

static int charts(const struct report *r, FILE *out)
{
    fputs("<h2>Loss against size</h2>\n<figure>\n<div class=\"large\">", out);
    int rc = report_chart(r, CHART_WIDE, out);
    fputs("</div><div class=\"small\">", out);
    rc = rc == 0 ? report_chart(r, CHART_NARROW, out) : rc;
    fputs("</div><figcaption>Mean divergence from the reference, on a logarithmic scale, against the size of "
          "the weights. The line joins those that no other candidate beats in both. Bars are two standard "
          "errors to each side, from the means of windows; where none is seen, it is shorter than its dot. "
          "Down and to the left is better.</figcaption>\n</figure>\n<h2>How the loss is spread over "
          "tokens</h2>\n<figure>\n"
          "<div class=\"large\">",
          out);
    report_spread(r, CHART_WIDE, out);
    fputs("</div><div class=\"small\">", out);
    report_spread(r, CHART_NARROW, out);
    fputs("</div><figcaption>Divergence of single tokens: from the 10th to the 99.9th percentile (line), the "
          "middle half (bar), the median (ring) and the mean (dot). A mean far right of the median says that "
          "few tokens carry the loss.</figcaption>\n</figure>\n",
          out);
    return rc;
}

int report_html(const struct report *r, FILE *out)
{
    int rc = 0;
    head(r, out);
    if (r->n_candidates > 0 && r->answer != NET_TOKENS)
        answers_table(r, out);
    else if (r->n_candidates > 0) {
        rc = charts(r, out);
        table(r, out);
    }
    if (r->n_candidates > 0 && r->n_gates > 0)
        gates(r, out);
    if (rc == 0 && r->n_candidates > 0)
        rc = report_parts_html(r, out);
    if (rc == 0)
        rc = report_profiles_html(r, out);
    if (rc == 0)
        rc = data_links(r, out);
    foot(r, out);
    return rc;
}
