/* page.h - the frame that all pages of reports stand in: the same head, look and foot, links to the data in
 * them, and tables that sort. A page asks the network for nothing.
 *
 *     page_open(out);                     // <title>
 *     report_put(out, name), ...
 *     page_main(out, "quality ladder");   // the rest of the head; <h1>
 *     report_put(out, name);
 *     fputs("</h1>\n", out), ...          // lead, figures, tables
 *     page_data(out), page_link(...), page_data_end(out);
 *     page_foot(out);                     // how it was measured: page_item, page_hash, ...
 *     page_close(out, &about);            // command, program, the script
 */
#ifndef KERF_PAGE_H
#define KERF_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Where a page comes from. */
struct page_about {
    const char *version; /* of the program */
    const char *command; /* as it was given, or NULL */
    const char *run;     /* threads, time and the like, or NULL */
};

extern const char page_style[];

void page_open(FILE *out);
void page_main(FILE *out, const char *kind);

/* Behind the name in <h1>: not all that was asked for is in it. */
void page_partial(FILE *out);

/* A heading and the head of its table, in a frame that scrolls where it must; `title` may be NULL. Columns
 * are given as "Candidate|Size|Mean KLD" and stand on the page as they are; the first one stays in sight.
 * `wide`: the frame may be wider than the text. */
void page_table(FILE *out, const char *title, const char *columns, bool wide);
void page_table_end(FILE *out);

/* A cell with a figure, a dash where it cannot be known, and its error below, if there is one. */
void page_figure(FILE *out, int decimals, double value);
void page_estimate(FILE *out, int decimals, double value, double error, bool sign);

/* Bytes in units of 1024. */
void page_size(FILE *out, uint64_t n_bytes);

/* Links to what the page was made from. */
void page_data(FILE *out);
void page_data_end(FILE *out);

/* A link "name" behind which what `print` writes is kept, inside of the page; `type`: "text/csv". Of JSON the
 * layout is left out. 0 or ERR_NOMEM. */
int page_link(FILE *out, const char *name, const char *type, void (*print)(const void *ctx, FILE *out),
              const void *ctx);

/* One field of a CSV file, quoted. */
void page_csv_text(FILE *out, const char *s);

/* The list at the foot. `text` is from outside; a hash that is NULL or empty is left out. page_item_open
 * leaves an entry open, which "</dd>" ends. */
void page_foot(FILE *out);
void page_item(FILE *out, const char *term, const char *text);
void page_item_open(FILE *out, const char *term);
void page_hash(FILE *out, const char *term, const char *sha256);
void page_close(FILE *out, const struct page_about *about);

#endif
