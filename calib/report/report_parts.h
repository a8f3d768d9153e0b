/* report_parts.h - figures of parts of a text: of each text of a mixture with their weighted mean, and of
 * depths in the window, where loss may grow with the context. Inside of report.h.
 *
 * Depths are halves: positions [ctx/2, ctx), [ctx/4, ctx/2), and so on; the last one is what is scored
 * without asking for depths. A weighted mean is sum w_i x_i over the means of the texts, its error sqrt(sum
 * w_i^2 error_i^2); perplexity is exp of the mean nll. */
#ifndef KERF_REPORT_PARTS_H
#define KERF_REPORT_PARTS_H

#include "report.h"

struct json_writer;

#define REPORT_MAX_DEPTHS 6

struct part_figures {    /* of one model; NaN where it does not apply */
    struct estimate nll; /* nats per token */
    struct estimate kld; /* candidates only */
    double top1;
};

struct report_part {
    const char *text;  /* path, or NULL: a depth */
    size_t first, end; /* positions, of a depth */
    double weight;     /* of a text; NaN: none was given */
    size_t n_scored;
    struct part_figures *models; /* [n_candidates + 1], the reference first; owned */
};

struct report_parts {
    struct report_part *texts, *depths; /* owned */
    size_t n_texts, n_depths;
    struct part_figures *mean; /* [n_candidates + 1] weighted; owned; NULL without weights */
};

/* `weights` [texts of the corpus], sum 1, or NULL. Texts are told apart when there are several of them. */
int report_parts_take(struct report_parts *out, const struct evaluation *v, const struct windows *w,
                      const struct corpus *corpus, const double *weights, struct err *e);
void report_parts_release(struct report_parts *p);

void report_parts_text(const struct report *r, FILE *out);
void report_parts_json(const struct report *r, struct json_writer *w);

/* For the page, of reports with candidates: charts and tables. 0 or ERR_NOMEM. */
int report_parts_html(const struct report *r, FILE *out);
/* A line for each part and model: the figures of the JSON. */
void report_parts_csv(const struct report *r, FILE *out);

#endif
