/* score_page.c - see score_page.h. */
#include "score_page.h"

#include "calib/report/page.h"
#include "calib/report/report.h"
#include "formats/json.h"
#include "libquant/base/path.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WIDE   960.0 /* of the chart; NARROW: on phones */
#define NARROW 400.0
#define ROW    26.0
#define TOP    8.0

static bool has_answers(const struct score_result *r)
{
    return r->task->n_records > r->task->n_of[TASK_TEXT];
}

/* --- the chart: accuracy of each model, two standard errors to each side --- */

struct axis {
    double left, right, low, high; /* of the page, of accuracies in percent */
};

static double at(const struct axis *a, double percent)
{
    double share = (percent - a->low) / (a->high - a->low);
    return a->left + fmin(fmax(share, 0), 1) * (a->right - a->left);
}

static struct axis fit_axis(const struct score_result *r, double width)
{
    double low = 100, high = 0;
    for (size_t i = 0; i < r->n_models; i++) {
        struct estimate x = r->models[i].score.accuracy[r->metric];
        double error = isnan(x.error) ? 0 : 2 * x.error;
        low = fmin(low, 100 * (x.value - error));
        high = fmax(high, 100 * (x.value + error));
    }
    low = fmax(floor(low / 5) * 5, 0);
    high = fmin(ceil(high / 5) * 5, 100);
    return (struct axis){fmin(180, 0.34 * width), width - 24, low, high > low ? high : low + 5};
}

static void draw_grid(const struct axis *a, double bottom, FILE *out)
{
    double step = a->high - a->low > 30 ? 10 : 5;
    for (double v = ceil(a->low / step) * step; v <= a->high; v += step)
        fprintf(out,
                "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\"/><text x=\"%.1f\" y=\"%g\" "
                "text-anchor=\"middle\">%g</text>\n",
                at(a, v), at(a, v), TOP, bottom, at(a, v), bottom + 16, v);
}

static void draw_model(const struct score_result *r, size_t i, const struct axis *a, FILE *out)
{
    const struct score_model *m = &r->models[i];
    struct estimate x = m->score.accuracy[r->metric];
    double y = TOP + ROW * ((double)i + 0.5), error = isnan(x.error) ? 0 : 2 * x.error;
    fprintf(out, "<g><text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", a->left - 12, y + 4);
    report_put(out, score_name(m));
    fprintf(
        out,
        "</text><line class=\"bar\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><circle class=\"dot\" "
        "cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"/><title>",
        at(a, 100 * (x.value - error)), at(a, 100 * (x.value + error)), y, y, at(a, 100 * x.value), y);
    report_put(out, score_name(m));
    fprintf(out, ": %.2f ± %.2f %%</title></g>\n", 100 * x.value, 100 * x.error);
}

static void draw_chart(const struct score_result *r, double width, FILE *out)
{
    struct axis a = fit_axis(r, width);
    double bottom = TOP + ROW * (double)r->n_models;
    fprintf(out, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"Accuracy of each model\">\n", width,
            bottom + 24);
    draw_grid(&a, bottom, out);
    for (size_t i = 0; i < r->n_models; i++)
        draw_model(r, i, &a, out);
    fputs("</svg>\n", out);
}

static void chart(const struct score_result *r, FILE *out)
{
    fputs("<h2>Accuracy</h2>\n<figure>\n<div class=\"large\">", out);
    draw_chart(r, WIDE, out);
    fputs("</div><div class=\"small\">", out);
    draw_chart(r, NARROW, out);
    fprintf(out,
            "</div><figcaption>%s in percent, with two standard errors to each side. Models answer the same "
            "records, so that differences are more certain than these bars say: see the table.</figcaption>\n"
            "</figure>\n",
            task_metric_names[r->metric]);
}

/* --- tables --- */

static void estimate_cell(FILE *out, struct estimate x, double scale, int decimals, bool sign)
{
    if (isnan(x.value)) {
        fputs("<td>–</td>", out);
        return;
    }
    fprintf(out, sign ? "<td>%+.*f" : "<td>%.*f", decimals, scale * x.value);
    if (!isnan(x.error))
        fprintf(out, " <span class=\"e\">±&#8239;%.*f</span>", decimals, scale * x.error);
    fputs("</td>", out);
}

static void name_cells(const struct score_model *m, FILE *out)
{
    fputs("<tr><td>", out);
    report_put(out, score_name(m));
    fprintf(out, "</td><td>%.2f MiB</td>", (double)m->candidate->n_bytes / 1048576);
}

static void answers_table(const struct score_result *r, FILE *out)
{
    fputs("<h2>Figures</h2>\n<div class=\"scroll wide\"><table>\n<thead><tr><th>Model</th><th>Size</th>",
          out);
    for (size_t k = 0; k < TASK_N_METRICS; k++)
        fprintf(out, "<th>%s, %%</th>", task_metric_names[k]);
    fputs("<th>Difference, %</th><th>p</th><th>Flips</th><th>Gained</th><th>Lost</th><th>Other choices</th>"
          "</tr></thead>\n<tbody>\n",
          out);
    for (size_t i = 0; i < r->n_models; i++) {
        const struct task_score *s = &r->models[i].score;
        name_cells(&r->models[i], out);
        for (size_t k = 0; k < TASK_N_METRICS; k++)
            estimate_cell(out, s->accuracy[k], 100, 2, false);
        if (i == 0) {
            fputs("<td></td><td></td><td></td><td></td><td></td><td></td></tr>\n", out);
            continue;
        }
        estimate_cell(out, s->difference, 100, 2, true);
        fprintf(out, "<td>%.3f</td><td>%zu</td><td>%zu</td><td>%zu</td><td>%zu</td></tr>\n", s->p_value,
                s->gained + s->lost, s->gained, s->lost, s->changed);
    }
    fputs(
        "</tbody></table></div>\n<p class=\"soft\" style=\"font-size:.88rem\">Differences are from the first "
        "model, by the accuracy of the chart, on the same records. Flips: records that one of both has right "
        "and the other not, which may be many although accuracies are equal; p is McNemar's exact test. "
        "Other choices: records in which another continuation is the likeliest. ± is one standard "
        "error.</p>\n",
        out);
}

static void texts_table(const struct score_result *r, FILE *out)
{
    fputs("<h2>Texts</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>Model</th><th>Size</th>"
          "<th>Perplexity</th><th>Bits per byte</th><th>Difference</th></tr></thead>\n<tbody>\n",
          out);
    for (size_t i = 0; i < r->n_models; i++) {
        const struct task_score *s = &r->models[i].score;
        name_cells(&r->models[i], out);
        fprintf(out, "<td>%.4f</td>", exp(s->nll.value));
        estimate_cell(out, s->bits_per_byte, 1, 5, false);
        if (i == 0)
            fputs("<td></td>", out);
        else
            estimate_cell(out, s->bits_difference, 1, 6, true);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* --- the page --- */

static void head(const struct score_result *r, FILE *out)
{
    const struct task *t = r->task;
    const bool partial = r->n_models < r->n_asked;
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          out);
    report_put(out, score_name(&r->models[0]));
    fputs(" on ", out);
    report_put(out, path_short(t->path));
    fprintf(out, " – tasks</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<h1>", report_style);
    report_put(out, path_short(t->path));
    fprintf(out, "%s</h1>\n<p class=\"lead\">What ", partial ? "<span class=\"flag\">partial</span>" : "");
    report_put(out, score_name(&r->models[0]));
    fprintf(out,
            "%s answered.</p>\n<p class=\"soft\">%zu records: %zu of multiple choice, %zu short answers, %zu "
            "texts.%s%s</p>\n",
            r->n_models > 1 ? " and those compared with it" : "", t->n_records, t->n_of[TASK_CHOICE],
            t->n_of[TASK_ANSWER], t->n_of[TASK_TEXT],
            r->chat ? " Contexts stand in the model's chat template." : "",
            partial ? " The run was stopped before its end; models that were not reached are missing." : "");
}

static void put_json(const void *ctx, FILE *out)
{
    struct json_writer w;
    jw_begin(&w, out);
    jw_object(&w);
    score_json(ctx, &w);
    jw_end(&w);
}

static void put_csv(const void *ctx, FILE *out)
{
    const struct score_result *r = ctx;
    fputs("model,n_bytes,accuracy,accuracy_stderr,difference,difference_stderr,p_value,gained,lost,changed\n",
          out);
    for (size_t i = 0; i < r->n_models; i++) {
        const struct task_score *s = &r->models[i].score;
        struct estimate x = s->accuracy[r->metric];
        putc('"', out);
        for (const char *c = score_name(&r->models[i]); *c; c++)
            fputs(*c == '"' ? "\"\"" : (const char[]){*c, 0}, out);
        fprintf(out, "\",%" PRIu64 ",%.9g,%.9g,", r->models[i].candidate->n_bytes, x.value, x.error);
        if (i > 0)
            fprintf(out, "%.9g,%.9g,%.9g,%zu,%zu,%zu\n", s->difference.value, s->difference.error, s->p_value,
                    s->gained, s->lost, s->changed);
        else
            fputs(",,,,,\n", out);
    }
}

static void settings(const struct score_result *r, const char *version, FILE *out)
{
    fputs("<h2>How it was measured</h2>\n<dl>\n", out);
    for (size_t i = 0; i < r->n_models; i++) {
        fprintf(out, "<dt>%s</dt><dd>", i ? "Model" : "First model");
        report_put(out, r->models[i].candidate->path);
        if (r->models[i].candidate->type) {
            fputs(", ", out);
            report_put(out, r->models[i].candidate->type);
        }
        fputs("</dd>\n", out);
    }
    fputs("<dt>Task</dt><dd>", out);
    report_put(out, r->task->path);
    fprintf(out, "<br><code>%s</code></dd>\n<dt>Activations</dt><dd>%s</dd>\n", r->task->sha256,
            strcmp(r->activations, "q8") == 0 ? "rounded as the llama.cpp CPU runtime rounds them"
                                              : "32-bit floats");
    fprintf(out,
            "<dt>Longest record</dt><dd>%" PRIu64 " tokens</dd>\n<dt>Program</dt><dd>kerf %s</dd>\n</dl>\n",
            r->ctx, version);
}

int score_page(const struct score_result *r, const char *version, FILE *out)
{
    head(r, out);
    if (has_answers(r)) {
        chart(r, out);
        answers_table(r, out);
    }
    if (r->task->n_of[TASK_TEXT])
        texts_table(r, out);
    fputs("<p class=\"soft noprint\">The data: ", out);
    int rc = has_answers(r) ? page_link(out, "scores.csv", "text/csv", put_csv, r) : 0;
    if (rc == 0)
        rc = page_link(out, "scores.json", "application/json", put_json, r);
    fputs("</p>\n", out);
    settings(r, version, out);
    page_sort_script(out);
    fputs("</main>\n</body>\n</html>\n", out);
    return rc;
}
