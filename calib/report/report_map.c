/* report_map.c - see report_map.h. */
#include "report_map.h"

#include "chart.h"
#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define ROW     26.0
#define TOP     22.0
#define STEP    44.0 /* of the legend */
#define FINE    12.0 /* narrower columns have no lines between them, which would hide the colour */
#define POINTED 3.0  /* the narrowest cell that is hit with a mouse */

size_t report_map_row(const char **rows, size_t *n, const char *kind)
{
    size_t i = 0;
    while (i < *n && strcmp(rows[i], kind) != 0)
        i++;
    if (i == *n)
        rows[(*n)++] = kind;
    return i;
}

/* What is read best on a cell: the colour of text on faint cells; black on middling ones, which are light
 * enough for it in both schemes; on full ones white in the light, black in the dark. Each has a contrast
 * of 4.5. */
static const char *text_class(double shade)
{
    return shade <= 0.65 ? "on1" : shade <= 0.81 ? "on2" : "on3";
}

/* The colour is the group's; the warm one says so. */
static void rectangle(FILE *out, double x, double y, double w, double h, double shade, bool warm)
{
    fprintf(out, "<path%s d=\"M%.1f %.1fh%.1fv%.0fh-%.1fz\" fill-opacity=\"%.2f\"",
            warm ? " class=\"warm\"" : "", x, y, w, h, w, shade);
}

static void cell_text(FILE *out, double x, double y, double shade, const char *text)
{
    fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", text_class(shade), x, y);
    report_put(out, text);
    fputs("</text>", out);
}

/* Cells that are too narrow to be pointed at say nothing on hover. */
static void draw_cell(FILE *out, double x, double y, double w, double h, const struct map_cell *c)
{
    const bool has_text = c->text && w >= CHART_LETTER * (double)strlen(c->text) + 6;
    if (has_text)
        fputs("<g>", out);
    rectangle(out, x, y, w, h, c->shade, c->warm);
    if (w >= POINTED) {
        fputs("><title>", out);
        report_put(out, c->title);
        fputs("</title></path>", out);
    } else
        fputs("/>", out);
    if (has_text) {
        cell_text(out, x + w / 2, y + h / 2 + 4, c->shade, c->text);
        fputs("</g>", out);
    }
    fputc('\n', out);
}

/* Without the ending that all of them have. */
static void row_label(FILE *out, const char *kind, double x, double y)
{
    char stem[200];
    size_t n = strlen(kind), cut = n > 7 && strcmp(kind + n - 7, ".weight") == 0 ? n - 7 : n;
    snprintf(stem, sizeof stem, "%.*s", (int)cut, kind);
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", x, y);
    chart_put_cut(stem, (size_t)fmax(x / CHART_LETTER, 4), out);
    fputs("</text>\n", out);
}

/* From `left` on, or on a line of its own where that is too narrow for it. */
static void draw_legend(FILE *out, const struct map *m, double left, double y, double width)
{
    double x = left, need = STEP * (double)m->n_steps;
    if (left + need > width || 6.2 * (double)strlen(m->legend) > left - 10) {
        fprintf(out, "<text x=\"0\" y=\"%.1f\">%s</text>", y + 13, m->legend);
        y += 20;
        x = 0;
    } else {
        fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>", left - 10, y + 13,
                m->legend);
    }
    for (size_t i = 0; i < m->n_steps; i++, x += STEP) {
        rectangle(out, x, y, STEP - 2, 18, m->steps[i].shade, m->steps[i].warm);
        fputs("/>", out);
        cell_text(out, x + STEP / 2 - 1, y + 13, m->steps[i].shade, m->steps[i].text);
    }
    fputc('\n', out);
}

static void draw(const struct map *m, double width, FILE *out)
{
    size_t widest = 0;
    for (size_t i = 0; i < m->n_rows; i++)
        widest = strlen(m->rows[i]) > widest ? strlen(m->rows[i]) : widest;
    const double left = fmin(20 + CHART_LETTER * (double)widest, 0.28 * width);
    const double column = fmin((width - 10 - left) / (double)m->n_columns, 120), gap = column > FINE ? 2 : 0;
    const double bottom = TOP + ROW * (double)m->n_rows;
    fprintf(out, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">\n", width, bottom + 58,
            m->label);
    for (size_t l = 0; l < m->n_columns; l += column >= 18 ? 1 : 8)
        fprintf(out, "<text x=\"%.1f\" y=\"12\" text-anchor=\"middle\">%zu</text>\n",
                left + column * ((double)l + 0.5), l);
    for (size_t k = 0; k < m->n_rows; k++)
        row_label(out, m->rows[k], left - 10, TOP + ROW * ((double)k + 0.5) + 4);
    fprintf(out, "<g class=\"cells%s\">\n", column > FINE ? "" : " fine");
    for (size_t i = 0; i < m->n_cells; i++) {
        const struct map_cell *c = &m->cells[i];
        double x = left + column * (double)(c->column < 0 ? 0 : c->column);
        draw_cell(out, x, TOP + ROW * (double)c->row, (c->column < 0 ? fmax(column, 80) : column) - gap,
                  ROW - 2, c);
    }
    draw_legend(out, m, left, bottom + 12, width);
    fputs("</g>\n</svg>\n", out);
}

void report_map(const struct map *m, FILE *out)
{
    fputs("<div class=\"large\">", out);
    draw(m, CHART_WIDE, out);
    fputs("</div><div class=\"small\">", out);
    draw(m, CHART_NARROW, out);
    fputs("</div>", out);
}
