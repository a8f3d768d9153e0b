/* page.c - see page.h. */
#include "page.h"

#include "report.h"

#include "formats/utf8.h"
#include "libquant/base/err.h"
#include "libquant/base/printed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- text --- */

static void put_character(FILE *out, unsigned char c)
{
    switch (c) {
    case '<': fputs("&lt;", out); break;
    case '>': fputs("&gt;", out); break;
    case '&': fputs("&amp;", out); break;
    case '"': fputs("&quot;", out); break;
    case '\'': fputs("&#39;", out); break;
    case '|': fputs("&#124;", out); break; /* parts the columns of page_table */
    default: fputc(c < 0x20 || c == 0x7f ? ' ' : c, out);
    }
}

void report_put(FILE *out, const char *s)
{
    for (size_t n = s ? strlen(s) : 0; n > 0;) {
        size_t good = utf8_prefix(s, n);
        for (size_t i = 0; i < good; i++)
            put_character(out, (unsigned char)s[i]);
        s += good;
        n -= good;
        if (n > 0) {
            fputs("\uFFFD", out);
            s++;
            n--;
        }
    }
}

void page_size(FILE *out, uint64_t n_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n_bytes;
    size_t u = 0;
    for (; v >= 1024 && u < 4; u++)
        v /= 1024;
    fprintf(out, u ? "%.2f&#8239;%s" : "%.0f&#8239;%s", v, units[u]);
}

/* --- the head --- */

void page_open(FILE *out)
{
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>",
          out);
}

void page_main(FILE *out, const char *kind)
{
    fprintf(
        out,
        " – %s</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<p class=\"kind\">kerf: %s</p>\n<h1>",
        kind, page_style, kind);
}

void page_partial(FILE *out)
{
    fputs(" <span class=\"flag\">partial</span>", out);
}

/* --- tables --- */

void page_table(FILE *out, const char *title, const char *columns, bool wide)
{
    if (title)
        fprintf(out, "<h2>%s</h2>\n", title);
    fprintf(out, "<div class=\"scroll%s\"><table>\n<thead><tr>", wide ? " wide" : "");
    for (const char *end; *columns; columns = *end ? end + 1 : end) {
        end = strchr(columns, '|');
        end = end ? end : columns + strlen(columns);
        fprintf(out, "<th scope=\"col\">%.*s</th>", (int)(end - columns), columns);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
}

void page_table_end(FILE *out)
{
    fputs("</tbody></table></div>\n", out);
}

static void put_value(FILE *out, int decimals, double value, bool sign)
{
    if (isnan(value))
        fputs("–", out);
    else
        fprintf(out, sign ? "%+.*f" : "%.*f", decimals, value);
}

void page_figure(FILE *out, int decimals, double value)
{
    fputs("<td>", out);
    put_value(out, decimals, value, false);
    fputs("</td>", out);
}

void page_estimate(FILE *out, int decimals, double value, double error, bool sign)
{
    fputs("<td>", out);
    put_value(out, decimals, value, sign);
    if (!isnan(value) && !isnan(error)) {
        fputs(" <span class=\"e\">±&#8239;", out);
        put_value(out, decimals, error, false);
        fputs("</span>", out);
    }
    fputs("</td>", out);
}

/* --- the data --- */

void page_data(FILE *out)
{
    fputs("<p class=\"soft noprint\">The data:", out);
}

void page_data_end(FILE *out)
{
    fputs("</p>\n", out);
}

/* What a link may hold as it is; all else in hexadecimal. Of JSON the layout is left out: a line feed with
 * the spaces behind it, which inside of strings is written otherwise, and the space behind a key, whose last
 * quote has no backslash in front. */
static void put_escaped(FILE *out, const char *s, bool json)
{
    char before[2] = {0, 0};
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     strchr("-_.,:/+()@", c);
        if (json && c == '\n')
            s += strspn(s + 1, " ");
        else if (!(json && c == ' ' && before[0] == ':' && before[1] == '"'))
            fprintf(out, plain ? "%c" : "%%%02X", c);
        before[1] = before[0] == '"' && before[1] == '\\' ? 0 : before[0];
        before[0] = (char)c;
    }
}

int page_link(FILE *out, const char *name, const char *type, void (*print)(const void *ctx, FILE *out),
              const void *ctx)
{
    struct printed p;
    if (printed_begin(&p) != 0)
        return ERR_NOMEM;
    print(ctx, p.out);
    char *text = printed_end(&p);
    const bool ok = text != NULL;
    if (ok) {
        fprintf(out, " <a download=\"%s\" href=\"data:%s;charset=utf-8,", name, type);
        put_escaped(out, text, strcmp(type, "application/json") == 0);
        fprintf(out, "\">%s</a>", name);
    }
    free(text);
    return ok ? 0 : ERR_NOMEM;
}

void page_csv_text(FILE *out, const char *s)
{
    putc('"', out);
    for (; *s; s++) {
        if (*s == '"')
            putc('"', out);
        putc(*s, out);
    }
    putc('"', out);
}

/* --- the foot --- */

void page_foot(FILE *out)
{
    fputs("<footer>\n<h2>How it was measured</h2>\n<dl>\n", out);
}

void page_item_open(FILE *out, const char *term)
{
    fprintf(out, "<dt>%s</dt><dd>", term);
}

void page_item(FILE *out, const char *term, const char *text)
{
    page_item_open(out, term);
    report_put(out, text);
    fputs("</dd>\n", out);
}

void page_hash(FILE *out, const char *term, const char *sha256)
{
    if (sha256 && sha256[0]) {
        page_item_open(out, term);
        fprintf(out, "<code>%s</code></dd>\n", sha256);
    }
}

/* Heads of tables become buttons, which sort by the first number of each cell, of the first column by its
 * text; again: the other way. What is not known goes to the end. Frames that scroll can be scrolled by keys.
 */
static const char script[] =
    "document.querySelectorAll('.scroll').forEach(d=>{d.tabIndex=0;d.setAttribute('role','region');"
    "d.setAttribute('aria-label','table')});\n"
    "document.querySelectorAll('table').forEach(t=>{const heads=[...t.querySelectorAll('thead th')];\n"
    "heads.forEach((h,i)=>{const "
    "b=document.createElement('button');b.type='button';b.append(...h.childNodes);"
    "h.append(b);\n"
    "const unit={KiB:1024,MiB:1048576,GiB:1073741824,TiB:1099511627776};\n"
    "const key=r=>{const s=r.cells[i].textContent.trim().replace('\u2212','-'),n=parseFloat(s),"
    "u=s.match(/[KMGT]iB/);\n"
    "return n===n&&(i||/^[\\d.]+$/.test(s))?n*(u?unit[u[0]]:1):i&&(s==''||s=='\u2013')?null:s};\n"
    "b.onclick=()=>{const down=h.getAttribute('aria-sort')=='ascending';\n"
    "heads.forEach(o=>o.removeAttribute('aria-sort'));"
    "h.setAttribute('aria-sort',down?'descending':'ascending');\n"
    "const body=t.tBodies[0];[...body.rows].map(r=>[key(r),r]).sort(([a],[c])=>a===null||c===null?"
    "(a===null)-(c===null):\n"
    "(typeof a=='number'&&typeof c=='number'?a-c:String(a).localeCompare(String(c),'en',{numeric:true}))"
    "*(down?-1:1))\n"
    ".forEach(([,r])=>body.append(r))}})});\n";

void page_close(FILE *out, const struct page_about *about)
{
    if (about->command) {
        page_item_open(out, "Command");
        fputs("<code>", out);
        report_put(out, about->command);
        fputs("</code></dd>\n", out);
    }
    page_item_open(out, "Program");
    fprintf(out, "kerf %s%s%s</dd>\n</dl>\n</footer>\n</main>\n<script>\n%s</script>\n</body>\n</html>\n",
            about->version, about->run ? ", " : "", about->run ? about->run : "", script);
}
