/* report_map.c - see report_map.h. */
#include "report_map.h"

#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define WIDE   960.0 /* NARROW: on phones */
#define NARROW 400.0
#define ROW    26.0
#define TOP    22.0
#define STEP   44.0 /* of the legend */

size_t report_map_row(const char **rows, size_t *n, const char *kind)
{
    size_t i = 0;
    while (i < *n && strcmp(rows[i], kind) != 0)
        i++;
    if (i == *n)
        rows[(*n)++] = kind;
    return i;
}

/* The colour is so full that text on it wants the other colour. */
static bool is_strong(double shade)
{
    return shade > 0.64;
}

static void rectangle(FILE *out, double x, double y, double w, double h, double shade, bool warm)
{
    fprintf(out,
            "<rect class=\"cell\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"var(--%s)\" "
            "fill-opacity=\"%.2f\"/>",
            x, y, w, h, warm ? "accent" : "accent2", shade);
}

static void cell_text(FILE *out, double x, double y, double shade, const char *text)
{
    fprintf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
            is_strong(shade) ? "strong" : "name", x, y);
    report_put(out, text);
    fputs("</text>", out);
}

static void draw_cell(FILE *out, double x, double y, double w, double h, const struct map_cell *c)
{
    fputs("<g>", out);
    rectangle(out, x, y, w, h, c->shade, c->warm);
    fputs("<title>", out);
    report_put(out, c->title);
    fputs("</title>", out);
    if (c->text && w >= 7.4 * (double)strlen(c->text) + 6)
        cell_text(out, x + w / 2, y + h / 2 + 4, c->shade, c->text);
    fputs("</g>\n", out);
}

static void row_label(FILE *out, const char *kind, double x, double y)
{
    size_t n = strlen(kind), cut = n > 7 && strcmp(kind + n - 7, ".weight") == 0 ? n - 7 : n;
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", x, y);
    for (size_t i = 0; i < cut; i++) {
        char c[2] = {kind[i], 0};
        report_put(out, c);
    }
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
        cell_text(out, x + STEP / 2 - 1, y + 13, m->steps[i].shade, m->steps[i].text);
    }
    fputc('\n', out);
}

static void draw(const struct map *m, double width, FILE *out)
{
    size_t widest = 0;
    for (size_t i = 0; i < m->n_rows; i++)
        widest = strlen(m->rows[i]) > widest ? strlen(m->rows[i]) : widest;
    const double left = fmin(30 + 6.2 * (double)widest, 0.28 * width);
    const double column = fmin((width - 10 - left) / (double)m->n_columns, 120), gap = column > 12 ? 2 : 0.5;
    const double bottom = TOP + ROW * (double)m->n_rows;
    fprintf(out, "<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">\n", width, bottom + 58,
            m->label);
    for (size_t l = 0; l < m->n_columns; l += column >= 18 ? 1 : 8)
        fprintf(out, "<text x=\"%.1f\" y=\"12\" text-anchor=\"middle\">%zu</text>\n",
                left + column * ((double)l + 0.5), l);
    for (size_t k = 0; k < m->n_rows; k++)
        row_label(out, m->rows[k], left - 10, TOP + ROW * ((double)k + 0.5) + 4);
    for (size_t i = 0; i < m->n_cells; i++) {
        const struct map_cell *c = &m->cells[i];
        double x = left + column * (double)(c->column < 0 ? 0 : c->column);
        draw_cell(out, x, TOP + ROW * (double)c->row, (c->column < 0 ? fmax(column, 80) : column) - gap,
                  ROW - 2, c);
    }
    draw_legend(out, m, left, bottom + 12, width);
    fputs("</svg>\n", out);
}

void report_map(const struct map *m, FILE *out)
{
    fputs("<div class=\"large\">", out);
    draw(m, WIDE, out);
    fputs("</div><div class=\"small\">", out);
    draw(m, NARROW, out);
    fputs("</div>", out);
}
