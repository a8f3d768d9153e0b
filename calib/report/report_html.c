/* report_html.c - the report as one HTML page without outside references: the figures first, the
 * two charts, the table, and below everything that is needed to repeat the run. Light and dark follow the
 * reader. */
#include "report.h"

#include "page.h"
#include "report_profile.h"

#include "libquant/base/path.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Text that came from outside, as HTML text. */
void report_put(FILE *out, const char *s)
{
    for (; s && *s; s++)
        switch (*s) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\'': fputs("&#39;", out); break;
        default: fputc((unsigned char)*s < 0x20 ? ' ' : *s, out);
        }
}

static void put_size(FILE *out, uint64_t n_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n_bytes;
    size_t u = 0;
    for (; v >= 1024 && u < 4; u++)
        v /= 1024;
    fprintf(out, u ? "%.2f&#8239;%s" : "%.0f&#8239;%s", v, units[u]);
}

const char report_style[] =
    ":root{color-scheme:light dark;--bg:#fbfaf7;--fg:#1d1d1b;--soft:#6b6962;--line:#dcd9d0;--accent:#9a3b1e;"
    "--accent2:#2f5d62;--panel:#fff;--onstrong:#fff}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#171614;--fg:#e9e6df;--soft:#9b978c;--line:#34322d;"
    "--accent:#e08a63;--accent2:#7fb3b5;--panel:#1e1d1a;--onstrong:#171614}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 Charter,'Bitstream Charter','Source "
    "Serif "
    "4',Georgia,serif;-webkit-text-size-adjust:100%}\n"
    "main{max-width:66rem;margin:0 auto;padding:3.5rem 1.5rem 5rem}\n"
    "h1{font-size:1.9rem;line-height:1.2;font-weight:600;margin:0 0 .4rem;letter-spacing:-.01em}\n"
    "h2{font-size:1.05rem;font-weight:600;margin:3rem 0 .35rem}\n"
    "p{margin:.3rem 0;max-width:44rem}\n"
    ".soft,figcaption,caption{color:var(--soft)}\n"
    ".lead{font-size:1.08rem}\n"
    "figure{margin:.8rem 0 0;overflow-x:auto}\n"
    "figcaption{font-size:.88rem;max-width:46rem;margin-top:.3rem}\n"
    "svg{display:block;width:100%;height:auto}\n"
    ".small{display:none}\n"
    "@media(max-width:620px){.large{display:none}.small{display:block}main{padding:1.6rem 1rem 3rem}}\n"
    "svg .lead{stroke:var(--soft);stroke-width:.75;opacity:.7}\n"
    "svg .tag{paint-order:stroke;stroke:var(--bg);stroke-width:3px}\n"
    "svg .cell{stroke:var(--line);stroke-width:.5}\n"
    "svg .strong{fill:var(--onstrong);font-weight:500}\n"
    "svg text{font:12px ui-sans-serif,system-ui,'Segoe UI',sans-serif;fill:var(--soft)}\n"
    "svg .name{fill:var(--fg);font-weight:500}\n"
    "svg .grid{stroke:var(--line);stroke-width:1}\n"
    "svg .axis{stroke:var(--soft);stroke-width:1}\n"
    "svg .curve{fill:none;stroke:var(--accent);stroke-width:1.25;opacity:.55}\n"
    "svg .bar{stroke:var(--accent);stroke-width:1.5}\n"
    "svg .dot{fill:var(--accent);stroke:var(--bg);stroke-width:1.5}\n"
    "svg .range{stroke:var(--accent2);stroke-width:1.5;opacity:.5}\n"
    "svg .body{stroke:var(--accent2);stroke-width:6;opacity:.85}\n"
    "svg .mid{fill:var(--bg);stroke:var(--accent2);stroke-width:2}\n"
    "svg .mean{fill:var(--accent)}\n"
    ".scroll{overflow-x:auto;margin-top:.6rem}\n"
    /* A table of many columns begins where the text does, and may go on to the edge of the window. */
    ".wide{width:max-content;min-width:100%;max-width:calc(100vw - 3rem - max(0px,50vw - 33rem))}\n"
    "table{border-collapse:collapse;width:100%;font:13.5px/1.4 ui-sans-serif,system-ui,'Segoe UI',sans-serif;"
    "font-variant-numeric:tabular-nums;}\n"
    "td{white-space:nowrap}\n"
    "th,td{padding:.42rem .55rem;text-align:right;border-bottom:1px solid var(--line)}\n"
    "th{font-weight:500;color:var(--soft);vertical-align:bottom}\n"
    "thead th{border-bottom:1px solid var(--soft)}\n"
    "th:first-child,td:first-child{text-align:left;padding-left:0;color:var(--fg);font-weight:500;"
    "position:sticky;left:0;background:var(--bg)}\n"
    "thead th button{all:unset;cursor:pointer}\n"
    "thead th button:focus-visible{outline:2px solid var(--accent)}\n"
    "@media print{:root{--bg:#fff;--fg:#000;--soft:#444;--line:#bbb;--accent:#9a3b1e;--accent2:#2f5d62;"
    "--onstrong:#fff}main{max-width:none;padding:0}.wide{max-width:none}.scroll{overflow:visible}"
    "table{font-size:9px}figure,table{break-inside:avoid}.noprint{display:none}.large{display:block}"
    ".small{display:none}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}\n"
    "a{color:var(--accent2)}\n"
    "summary{cursor:pointer;margin-top:.6rem;color:var(--soft)}\n"
    "td .e{display:block;color:var(--soft);font-size:.85em}\n"
    "td{vertical-align:top}\n"
    ".missed{color:var(--accent);font-weight:500}\n"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.4rem;margin:.5rem 0 "
    "0;font-size:.92rem}\n"
    "dt{color:var(--soft)}\n"
    "dd{margin:0;overflow-wrap:anywhere}\n"
    "code{font:.86em ui-monospace,'SF Mono',Menlo,Consolas,monospace}\n"
    ".flag{border:1px solid var(--accent);color:var(--accent);padding:.05rem .5rem;border-radius:.2rem;"
    "font:.8rem ui-sans-serif,system-ui,sans-serif;vertical-align:.25em;margin-left:.6rem}\n";

#define FLOAT_BITS 15.5 /* fewer bits per weight: the reference is quantized itself */

static const char *lead(const struct report *r)
{
    if (r->answer == NET_EMBEDDING)
        return "How far the embeddings of each candidate are from those of the reference, text by text.";
    if (r->answer == NET_SCORE)
        return "How far the scores of each candidate are from those of the reference, and whether they order "
               "the "
               "texts alike.";
    if (r->kind == REPORT_LADDER && r->reference.bits_per_weight < FLOAT_BITS)
        return "What each level of quantization costs: how far its predictions move from those of the file "
               "it "
               "was made from, which is quantized itself, on the same text, token by token.";
    return r->kind == REPORT_LADDER
               ? "What each level of quantization costs: how far its predictions move from those of the "
                 "original weights, on the same text, token by token."
               : "How far the predictions of each candidate are from those of the reference, on the same "
                 "text, "
                 "token by token.";
}

/* A dash where a figure cannot be known: an error from one text, an order of equal scores. */
static void put_figure(FILE *out, int decimals, double v)
{
    if (isnan(v))
        fputs("–", out);
    else
        fprintf(out, "%.*f", decimals, v);
}

static void estimate_cell(FILE *out, double scale, int decimals, struct estimate v)
{
    fprintf(out, "<td>%.*f <span class=\"e\">±&#8239;", decimals, v.value * scale);
    put_figure(out, decimals, v.error * scale);
    fputs("</span></td>", out);
}

static void figure_cell(FILE *out, int decimals, double v)
{
    fputs("<td>", out);
    put_figure(out, decimals, v);
    fputs("</td>", out);
}

static void head(const struct report *r, FILE *out)
{
    static const char stopped[] = " The run was stopped before its end; the figures cover what was finished.";
    const char *name = r->title && r->title[0] ? r->title : report_name(&r->reference);
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          out);
    report_put(out, name);
    for (size_t i = 0; i < r->corpus->n_texts; i++) {
        fputs(i ? ", " : " on ", out);
        report_put(out, path_short(r->corpus->texts[i].path));
    }
    fprintf(out, " – %s</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>",
            r->kind == REPORT_LADDER ? "quality ladder" : "comparison", report_style);
    report_put(out, name);
    fprintf(out, "%s</h1>\n", r->partial || r->profiles_partial ? "<span class=\"flag\">partial</span>" : "");
    fprintf(out, "<p class=\"lead\">%s</p>\n<p class=\"soft\">", lead(r));
    for (size_t i = 0; i < r->corpus->n_texts; i++) {
        fputs(i ? ", " : "Text: ", out);
        report_put(out, path_short(r->corpus->texts[i].path));
    }
    fprintf(out, ". Inputs of products: %s.</p>\n",
            r->activations == ACTIVATIONS_Q8 ? "8-bit blocks, as in llama.cpp" : "32-bit floats");
    if (r->answer == NET_TOKENS) {
        fprintf(out,
                "<p class=\"soft\">%zu scored tokens in %zu windows of %zu. Perplexity of the reference "
                "%.4f&#8239;±&#8239;",
                r->n_scored, r->n_windows, r->ctx, r->reference.ppl.perplexity);
        put_figure(out, 4, r->reference.ppl.perplexity_stderr);
        fprintf(out, ".%s</p>\n", r->partial ? stopped : "");
    } else
        fprintf(out,
                "<p class=\"soft\">%zu answers for %zu texts, %zu of which were cut to %zu tokens.%s</p>\n",
                r->n_answers, r->n_texts, r->n_texts_cut, r->ctx, r->partial ? stopped : "");
    if (r->profiles_partial)
        fputs("<p class=\"soft\">The run was stopped before all profiles were made.</p>\n", out);
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
    put_size(out, c->n_bytes);
    fprintf(out, "</td><td>%.3f</td>", c->bits_per_weight);
}

static void embedding_table(const struct report *r, FILE *out)
{
    fputs("<th>Mean cosine distance</th><th>Median</th><th>95 %</th><th>99 "
          "%</th><th>Max</th></tr></thead>\n<tbody>\n",
          out);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct answer_change *c = &r->candidates[i].change;
        first_cells(&r->candidates[i], out);
        estimate_cell(out, 1, 7, c->distance);
        fprintf(out, "<td>%.7f</td><td>%.7f</td><td>%.7f</td><td>%.7f</td></tr>\n", c->distance_median,
                c->distance_p95, c->distance_p99, c->distance_max);
    }
}

static void score_table(const struct report *r, FILE *out)
{
    fprintf(out,
            "<th>Mean score</th><th>Mean difference</th><th>RMS</th><th>Max</th>%s<th>Kendall</th>"
            "<th>Spearman</th></tr></thead>\n<tbody>\n",
            r->has_probability ? "<th>RMS in probability</th>" : "");
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct answer_change *c = &r->candidates[i].change;
        first_cells(&r->candidates[i], out);
        fprintf(out, "<td>%.4f</td>", c->score_mean);
        estimate_cell(out, 1, 5, c->delta);
        fprintf(out, "<td>%.5f</td><td>%.5f</td>", c->delta_rms, c->delta_max);
        if (r->has_probability)
            fprintf(out, "<td>%.5f</td>", c->probability_rms);
        figure_cell(out, 4, c->kendall);
        figure_cell(out, 4, c->spearman);
        fputs("</tr>\n", out);
    }
}

/* Of models that answer once for a text. */
static void answers_table(const struct report *r, FILE *out)
{
    fputs("<h2>Figures</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>Candidate</th><th>Size</th>"
          "<th>Bits per weight</th>",
          out);
    if (r->answer == NET_SCORE)
        score_table(r, out);
    else
        embedding_table(r, out);
    fputs("</tbody></table></div>\n<p class=\"soft\" style=\"font-size:.88rem\">", out);
    fputs(r->answer == NET_EMBEDDING
              ? "Cosine distance: one minus the cosine of the angle between both embeddings of a text."
              : "Differences are candidate minus reference on the same text. Kendall (tau-b) and Spearman "
                "compare "
                "the order of the texts; 1 is the same order.",
          out);
    fputs(r->has_probability ? " Scores are log-odds." : "", out);
    if (r->answer == NET_SCORE && r->label) {
        fputs(" What is scored is the label ‘", out);
        report_put(out, r->label);
        fputs("’.", out);
    }
    fputs(" ± is one standard error.</p>\n", out);
}

static void table(const struct report *r, FILE *out)
{
    fputs("<h2>Figures</h2>\n<div "
          "class=\"scroll wide\"><table>\n<thead><tr><th>Candidate</th><th>Size</th><th>Bits per "
          "weight</th><th>Mean KLD</th><th>Median</th><th>99 %</th><th>99.9 %</th><th>Max</th>"
          "<th>Perplexity</th><th>Perplexity ratio</th><th>Quality kept, %</th><th>Same first token, "
          "%</th><th>RMS Δp, %</th><th>Step in "
          "KLD</th></tr></thead>\n"
          "<tbody>\n",
          out);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        const struct divergence *d = &c->d;
        first_cells(c, out);
        estimate_cell(out, 1, 6, d->kld);
        fprintf(out, "<td>%.6f</td><td>%.5f</td><td>%.4f</td><td>%.4f</td>", d->kld_at[6], d->kld_at[10],
                d->kld_at[11], d->kld_at[12]);
        fprintf(out, "<td>%.4f</td>", c->ppl.perplexity);
        estimate_cell(out, 1, 5, d->ppl_ratio);
        fprintf(out, "<td>%.2f</td>", divergence_kept(d));
        estimate_cell(out, 100, 2, d->top1);
        estimate_cell(out, 100, 3, d->delta_p_rms);
        if (c->has_step) {
            fprintf(out, "<td>%+.6f <span class=\"e\">±&#8239;", c->step.value);
            put_figure(out, 6, c->step.error);
            fputs("</span></td></tr>\n", out);
        } else
            fputs("<td></td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n<p class=\"soft\" style=\"font-size:.88rem\">KLD: Kullback-Leibler "
          "divergence of "
          "the candidate's distribution over the next token from the reference's, in nats. Δp: change of the "
          "probability of the right token. Quality kept: 100 times the reference's perplexity over the "
          "candidate's. ± is one standard error; steps and ratios are paired, so they are "
          "more "
          "certain than the values they compare.</p>\n",
          out);
}

/* Every candidate against every limit that was set. */
static void gates(const struct report *r, FILE *out)
{
    static const char *const verdicts[] = {"<td>met</td>", "<td class=\"missed\">not met</td>",
                                           "<td class=\"missed\">open: the run was stopped</td>"};
    fputs("<h2>Gates</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>Candidate</th><th>Figure</th>"
          "<th>Limit</th><th>Found</th><th>Verdict</th></tr></thead>\n<tbody>\n",
          out);
    for (size_t i = 0; i < r->n_candidates; i++)
        for (size_t k = 0; k < r->n_gates; k++) {
            const struct report_gate *g = &r->gates[k];
            fputs("<tr><td>", out);
            report_put(out, report_name(&r->candidates[i]));
            fprintf(out, "</td><td>%s</td><td>%s %.6g</td><td>%.6g</td>%s</tr>\n", g->what,
                    g->at_least ? "at least" : "at most", g->limit, g->figure(&r->candidates[i]),
                    verdicts[report_judge(r, g, &r->candidates[i])]);
        }
    fputs("</tbody></table></div>\n", out);
}

static void item(FILE *out, const char *term, const char *text)
{
    fprintf(out, "<dt>%s</dt><dd>", term);
    report_put(out, text);
    fputs("</dd>\n", out);
}

static void hash_item(FILE *out, const char *term, const char *sha256)
{
    if (sha256 && sha256[0])
        fprintf(out, "<dt>%s</dt><dd><code>%s</code></dd>\n", term, sha256);
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
        fputs("<dt>Importance matrix</dt><dd>", out);
        report_put(out, c->imatrix);
        fputs(" (", out);
        report_put(out, report_name(c));
        fputs(")</dd>\n", out);
    }
    if (r->recipe && (r->imatrix || !any))
        item(out, "Importance matrix", r->imatrix ? r->imatrix : "none");
    for (size_t i = 0; i < r->n_candidates; i++)
        if (r->candidates[i].kv_type) {
            fprintf(out, "<dt>Keys and values</dt><dd>%s (", r->candidates[i].kv_type);
            report_put(out, report_name(&r->candidates[i]));
            fputs(")</dd>\n", out);
        }
}

static void settings(const struct report *r, FILE *out)
{
    fputs("<h2>How it was measured</h2>\n<dl>\n", out);
    item(out, "Reference", r->reference.path);
    fputs("<dt>Size</dt><dd>", out);
    put_size(out, r->reference.n_bytes);
    fprintf(out, ", %.3f bits per weight, %" PRIu64 " parameters, architecture ",
            r->reference.bits_per_weight, r->n_parameters);
    report_put(out, r->architecture);
    fputs("</dd>\n", out);
    hash_item(out, "Content of the reference", r->reference.sha256);
    for (size_t i = 0; i < r->corpus->n_texts; i++) {
        const struct corpus_text *t = &r->corpus->texts[i];
        fputs("<dt>Text</dt><dd>", out);
        report_put(out, t->path);
        fprintf(out, ", %" PRIu64 " bytes, %zu tokens<br><code>%s</code></dd>\n", t->n_bytes,
                t->end - t->begin, t->sha256);
    }
    hash_item(out, "Token ids", r->ids_sha256);
    if (r->answer == NET_TOKENS)
        fprintf(out,
                "<dt>Windows</dt><dd>%zu of %zu tokens%s, the last %zu predictions of each scored</dd>\n",
                r->n_windows, r->ctx, r->stride ? ", overlapping" : "", r->run);
    else
        fprintf(out, "<dt>Texts</dt><dd>%zu, of at most %zu tokens</dd>\n", r->n_texts, r->ctx);
    item(out, "Activations",
         r->activations == ACTIVATIONS_Q8 ? "rounded as the llama.cpp CPU runtime rounds them"
                                          : "32-bit floats");
    if (r->recipe)
        item(out, "Mix rules", r->recipe);
    importance(r, out);
    if (r->hessian)
        item(out, "Error feedback under", r->hessian);
    fprintf(out, "<dt>Program</dt><dd>kerf %s, %u threads, %s, %.1f seconds</dd>\n</dl>\n", r->version,
            r->n_threads, r->isa ? r->isa : "native", r->seconds);
}

/* --- the data --- */

void report_csv_name(const struct report_model *m, FILE *out)
{
    putc('"', out);
    for (const char *s = report_name(m); *s; s++)
        fputs(*s == '"' ? "\"\"" : (const char[]){*s, 0}, out);
    putc('"', out);
}

static void put_csv(const struct report *r, FILE *out)
{
    fputs("candidate,n_bytes,bits_per_weight,perplexity,ppl_ratio,ppl_ratio_stderr,kld_mean,kld_stderr,kld_"
          "median,"
          "kld_p99,top1_agreement,delta_p_rms\n",
          out);
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct report_model *c = &r->candidates[i];
        const struct divergence *d = &c->d;
        report_csv_name(c, out);
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

static int data_links(const struct report *r, FILE *out)
{
    int rc = 0;
    if (r->n_candidates == 0)
        return 0;
    fputs("<p class=\"soft noprint\">The data: ", out);
    if (r->answer == NET_TOKENS)
        rc = page_link(out, "kerf.csv", "text/csv", csv_data, r);
    if (rc == 0 && has_profile(r))
        rc = page_link(out, "profile.csv", "text/csv", profile_data, r);
    if (rc == 0)
        rc = page_link(out, "kerf.json", "application/json", json_data, r);
    fputs("</p>\n", out);
    return rc;
}

#define WIDE   960.0 /* of charts; NARROW: on phones */
#define NARROW 400.0

int report_html(const struct report *r, FILE *out)
{
    int rc = 0;
    head(r, out);
    if (r->n_candidates > 0 && r->answer != NET_TOKENS)
        answers_table(r, out);
    else if (r->n_candidates > 0) {
        fputs("<h2>Loss against size</h2>\n<figure>\n", out);
        fputs("<div class=\"large\">", out);
        rc = report_chart(r, WIDE, out);
        fputs("</div><div class=\"small\">", out);
        rc = rc == 0 ? report_chart(r, NARROW, out) : rc;
        fputs("</div>", out);
        fputs(
            "<figcaption>Mean divergence from the reference, on a logarithmic scale, against the size of the "
            "weights. The line joins those that no other candidate beats in both. Bars are two standard "
            "errors to each side, "
            "from the means of windows; where none is seen, it is shorter than its dot. Down and to the left "
            "is "
            "better.</figcaption>\n</figure>\n<h2>How the loss is spread over tokens</h2>\n<figure>\n",
            out);
        fputs("<div class=\"large\">", out);
        report_spread(r, WIDE, out);
        fputs("</div><div class=\"small\">", out);
        report_spread(r, NARROW, out);
        fputs("</div>", out);
        fputs(
            "<figcaption>Divergence of single tokens: from the 10th to the 99.9th percentile (line), the "
            "middle "
            "half (bar), the median (ring) and the mean (dot). A mean far right of the median says that few "
            "tokens carry the loss.</figcaption>\n</figure>\n",
            out);
        table(r, out);
    }
    if (r->n_candidates > 0 && r->n_gates > 0)
        gates(r, out);
    if (rc == 0)
        rc = report_profiles_html(r, out);
    if (rc == 0)
        rc = data_links(r, out);
    settings(r, out);
    page_sort_script(out);
    fputs("</main>\n</body>\n</html>\n", out);
    return rc;
}
