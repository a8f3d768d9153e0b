/* score_page.c - see score_page.h. */
#include "score_page.h"

#include "chart.h"
#include "page.h"
#include "report.h"
#include "formats/json.h"
#include "libquant/base/path.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROW 26.0
#define TOP 8.0

static bool has_answers(const struct score_result *r)
{
    return r->task->n_records > r->task->n_of[TASK_TEXT];
}

/* --- the chart: accuracy of each model, two standard errors to each side --- */

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
    return (struct axis){low, high > low ? high : low + 5, fmin(180, 0.34 * width), width - 24, false};
}

static void draw_grid(const struct axis *a, double bottom, FILE *out)
{
    double step = a->high - a->low > 30 ? 10 : 5;
    for (double v = ceil(a->low / step) * step; v <= a->high; v += step)
        fprintf(out,
                "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\"/><text x=\"%.1f\" y=\"%g\" "
                "text-anchor=\"middle\">%g</text>\n",
                axis_place(a, v), axis_place(a, v), TOP, bottom, axis_place(a, v), bottom + 16, v);
}

static void put_percent(struct estimate x, FILE *out)
{
    fprintf(out, ": %.2f", 100 * x.value);
    if (!isnan(x.error))
        fprintf(out, " ± %.2f", 100 * x.error);
    fputs(" %", out);
}

static void draw_model(const struct score_result *r, size_t i, const struct axis *a, FILE *out)
{
    const struct score_model *m = &r->models[i];
    struct estimate x = m->score.accuracy[r->metric];
    double y = TOP + ROW * ((double)i + 0.5), error = isnan(x.error) ? 0 : 2 * x.error;
    fprintf(out, "<g><text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", a->from - 12, y + 4);
    chart_put_cut(score_name(m), (size_t)((a->from - 14) / 7.2), out);
    fputs("</text><g><title>", out);
    report_put(out, score_name(m));
    put_percent(x, out);
    fprintf(
        out,
        "</title><line class=\"bar\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><circle class=\"dot\" "
        "cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\"/></g></g>\n",
        axis_place(a, 100 * (x.value - error)), axis_place(a, 100 * (x.value + error)), y, y,
        axis_place(a, 100 * x.value), y);
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
    draw_chart(r, CHART_WIDE, out);
    fputs("</div><div class=\"small\">", out);
    draw_chart(r, CHART_NARROW, out);
    fprintf(out,
            "</div><figcaption>%s in percent, with two standard errors to each side. Models answer the same "
            "records, so that differences are more certain than these bars say: see the table.</figcaption>\n"
            "</figure>\n",
            task_metric_names[r->metric]);
}

/* --- tables --- */

static void share_cell(FILE *out, struct estimate x, bool sign)
{
    page_estimate(out, 2, 100 * x.value, 100 * x.error, sign);
}

static void name_cells(const struct score_model *m, FILE *out)
{
    fputs("<tr><td>", out);
    report_put(out, score_name(m));
    fputs("</td><td>", out);
    page_size(out, m->candidate->n_bytes);
    fprintf(out, "</td><td>%.3f</td>", m->candidate->bits_per_weight);
}

#define FIRST_COLUMNS "Model|Size|Bits per weight|"

static void answers_table(const struct score_result *r, FILE *out)
{
    page_table(out, "Figures",
               FIRST_COLUMNS "acc, %|acc_norm, %|acc_bytes, %|acc_token, %|Difference, %|p|Flips|Gained|Lost|"
                             "Other choices",
               true);
    for (size_t i = 0; i < r->n_models; i++) {
        const struct task_score *s = &r->models[i].score;
        name_cells(&r->models[i], out);
        for (size_t k = 0; k < TASK_N_METRICS; k++)
            share_cell(out, s->accuracy[k], false);
        if (i == 0) {
            fputs("<td></td><td></td><td></td><td></td><td></td><td></td></tr>\n", out);
            continue;
        }
        share_cell(out, s->difference, true);
        page_figure(out, 3, s->p_value);
        fprintf(out, "<td>%zu</td><td>%zu</td><td>%zu</td><td>%zu</td></tr>\n", s->gained + s->lost,
                s->gained, s->lost, s->changed);
    }
    page_table_end(out);
    fprintf(out,
            "<p class=\"note\">Differences are from the first model, by %s, on the same records. Flips: "
            "records that one of both has right and the other not, which may be many although accuracies are "
            "equal; p is McNemar's exact test. Other choices: records in which another continuation is the "
            "likeliest. ± is one standard error.</p>\n",
            task_metric_names[r->metric]);
}

static void texts_table(const struct score_result *r, FILE *out)
{
    page_table(out, "Texts", FIRST_COLUMNS "Perplexity|Bits per byte|Difference in bits per byte", false);
    for (size_t i = 0; i < r->n_models; i++) {
        const struct task_score *s = &r->models[i].score;
        name_cells(&r->models[i], out);
        page_figure(out, 4, exp(s->nll.value));
        page_estimate(out, 5, s->bits_per_byte.value, s->bits_per_byte.error, false);
        if (i == 0)
            fputs("<td></td>", out);
        else
            page_estimate(out, 6, s->bits_difference.value, s->bits_difference.error, true);
        fputs("</tr>\n", out);
    }
    page_table_end(out);
}

/* --- the page --- */

/* "800 of multiple choice, 100 texts": of what there is. */
static void put_kinds(const struct task *t, FILE *out)
{
    static const char *const what[] = {
        [TASK_CHOICE] = "of multiple choice", [TASK_ANSWER] = "short answers", [TASK_TEXT] = "texts"};
    const char *gap = ": ";
    for (size_t k = 0; k < 3; k++)
        if (t->n_of[k]) {
            fprintf(out, "%s%zu %s", gap, t->n_of[k], what[k]);
            gap = ", ";
        }
}

static void head(const struct score_result *r, FILE *out)
{
    const struct task *t = r->task;
    const bool partial = r->n_models < r->n_asked;
    page_open(out);
    report_put(out, score_name(&r->models[0]));
    fputs(" on ", out);
    report_put(out, path_short(t->path));
    fprintf(out, ", %zu records", t->n_records);
    page_main(out, "scores of a task");
    report_put(out, score_name(&r->models[0]));
    if (partial)
        page_partial(out);
    fputs("</h1>\n<p class=\"lead\">What it answers to the records of ", out);
    report_put(out, path_short(t->path));
    fprintf(out, "%s.</p>\n<p class=\"soft\">Task: ",
            r->n_models > 1 ? ", and what those answer that are compared with it" : "");
    report_put(out, path_short(t->path));
    fprintf(out, ". %zu records", t->n_records);
    put_kinds(t, out);
    fprintf(out, ".%s Inputs of products: %s.%s</p>\n",
            r->chat ? " Contexts stand in the model's chat template." : "",
            strcmp(r->activations, "q8") == 0 ? "8-bit blocks, as in llama.cpp" : "32-bit floats",
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
        page_csv_text(out, score_name(&r->models[i]));
        fprintf(out, ",%" PRIu64 ",%.9g,%.9g,", r->models[i].candidate->n_bytes, x.value, x.error);
        if (i > 0)
            fprintf(out, "%.9g,%.9g,%.9g,%zu,%zu,%zu\n", s->difference.value, s->difference.error, s->p_value,
                    s->gained, s->lost, s->changed);
        else
            fputs(",,,,,\n", out);
    }
}

static void foot(const struct score_result *r, const struct page_about *about, FILE *out)
{
    page_foot(out);
    for (size_t i = 0; i < r->n_models; i++) {
        const struct candidate *c = r->models[i].candidate;
        page_item_open(out, i ? "Model" : "First model");
        report_put(out, c->path);
        if (c->type) {
            fputs(", ", out);
            report_put(out, c->type);
        }
        if (c->cache_name[0])
            fprintf(out, ", keys and values in %s", c->cache_name);
        if (!c->type && c->sha256[0])
            fprintf(out, "<br><code>%s</code>", c->sha256);
        fputs("</dd>\n", out);
    }
    page_item_open(out, "Task");
    report_put(out, r->task->path);
    fprintf(out, ", %zu records<br><code>%s</code></dd>\n", r->task->n_records, r->task->sha256);
    page_item(out, "Activations",
              strcmp(r->activations, "q8") == 0 ? "rounded as the llama.cpp CPU runtime rounds them"
                                                : "32-bit floats");
    page_item_open(out, "Longest record");
    fprintf(out, "%" PRIu64 " tokens</dd>\n", r->ctx);
    page_close(out, about);
}

int score_page(const struct score_result *r, const struct page_about *about, FILE *out)
{
    head(r, out);
    if (has_answers(r)) {
        chart(r, out);
        answers_table(r, out);
    }
    if (r->task->n_of[TASK_TEXT])
        texts_table(r, out);
    page_data(out);
    int rc = has_answers(r) ? page_link(out, "scores.csv", "text/csv", put_csv, r) : 0;
    if (rc == 0)
        rc = page_link(out, "scores.json", "application/json", put_json, r);
    page_data_end(out);
    foot(r, about, out);
    return rc;
}
