/* progress.c - see progress.h. */
#include "progress.h"

#include "cmd.h"

#include "libquant/base/printable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

const char *format_bytes(char out[32], double n)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    unsigned u = 0;
    while (n >= 1024 && u < 5) {
        n /= 1024;
        u++;
    }
    snprintf(out, 32, u == 0 ? "%.0f %s" : "%.2f %s", n, units[u]);
    return out;
}

const char *format_count(char out[32], double n)
{
    static const char units[] = " KMBT";
    unsigned u = 0;
    while (n >= 1000 && u < 4) {
        n /= 1000;
        u++;
    }
    snprintf(out, 32, u == 0 ? "%.0f" : "%.2f%c", n, units[u]);
    return out;
}

const char *format_plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

const char *format_seconds(char out[32], double s)
{
    if (s < 0)
        s = 0;
    if (s < 10)
        snprintf(out, 32, "%.1fs", s);
    else if (s < 60)
        snprintf(out, 32, "%.0fs", s);
    else if (s < 3600)
        snprintf(out, 32, "%dm %02ds", (int)s / 60, (int)s % 60);
    else
        snprintf(out, 32, "%.0fh %02dm", (double)((long long)s / 3600), (int)((long long)s % 3600 / 60));
    return out;
}

#define LINE_SECONDS 30 /* between plain lines */

/* May the cursor be moved? */
static bool is_terminal(void)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDERR_FILENO) && !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;
}

static void choose_form(struct progress_bar *p, const struct shared_options *o)
{
    const char *form = o->progress ? o->progress : "auto";
    p->shown = !o->quiet && strcmp(form, "off") != 0;
    p->lines = strcmp(form, "lines") == 0 || (strcmp(form, "auto") == 0 && !is_terminal());
}

void progress_begin(struct progress_bar *p, const struct shared_options *o, const char *what,
                    const char *unit, uint64_t total)
{
    *p = (struct progress_bar){.what = what, .unit = unit, .total = (double)total, .share = 1};
    choose_form(p, o);
    p->start = p->last = clock_seconds();
    cmd_tell_warnings();
    signals_cooperate(true);
}

void progress_part(struct progress_bar *p, double from, double share)
{
    p->from = from;
    p->share = share;
}

static size_t terminal_width(void)
{
    struct winsize w;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 20)
        return w.ws_col;
    return 80;
}

/* What is counted, then what is at hand: "PPL 8.1234 after 4 of 24 windows  Q4_K_M". */
static void describe(char *out, size_t size, const struct progress_step *s)
{
    int n = 0;
    out[0] = 0;
    if (s->n_done && s->perplexity > 0)
        n = snprintf(out, size, "PPL %.4f after ", s->perplexity);
    if (s->n_done)
        n += snprintf(out + n, size - (size_t)n, "%zu of %zu %s  ", s->n_done, s->n, s->counted);
    if (s->what)
        snprintf(out + n, size - (size_t)n, "%s", s->what);
}

static void draw(struct progress_bar *p, const struct progress_step *s)
{
    double now = clock_seconds(), total = p->total > 0 ? p->total : s->total,
           done = p->total > 0 ? total * (p->from + p->share * progress_share(s)) : s->done;
    if (!p->has_start) {
        p->has_start = true;
        p->start_done = done;
    }
    if (p->lines ? now - p->last < LINE_SECONDS : p->drawn && now - p->last < 0.1)
        return;
    double elapsed = now - p->start, rate = elapsed > 0 ? (done - p->start_done) / elapsed : 0;
    char line[400], detail[200], count[32], left[32] = "", speed[40];
    describe(detail, sizeof detail, s);
    if (!p->unit[0]) /* shares of the whole, of which a rate tells nothing */
        speed[0] = '\0';
    else if (strcmp(p->unit, "B") == 0)
        snprintf(speed, sizeof speed, "%s/s", format_bytes(count, rate));
    else
        snprintf(speed, sizeof speed, "%s %s/s", format_count(count, rate), p->unit);
    if (rate > 0 && done <= total)
        format_seconds(left, (total - done) / rate);
    if (total > 0)
        snprintf(line, sizeof line, "%s %3.0f%%  %s%s%s%s  %s", p->what, 100.0 * done / total, speed,
                 speed[0] ? "  " : "", left, left[0] ? " left" : "", detail);
    else
        snprintf(line, sizeof line, "%s  %s  %s", p->what, speed, detail);
    printable(line); /* the detail is a tensor's name, perhaps */
    if (p->lines)
        fprintf(stderr, "kerf: %s\n", line);
    else
        fprintf(stderr, "\r%.*s\033[K", (int)terminal_width() - 1, line);
    fflush(stderr);
    p->drawn = !p->lines;
    p->last = now;
}

static int on_step(void *ctx, const struct progress_step *s)
{
    struct progress_bar *p = ctx;
    if (p->shown)
        draw(p, s);
    return signals_pending();
}

struct progress progress_on(struct progress_bar *p)
{
    return (struct progress){on_step, p};
}

void progress_end(struct progress_bar *p)
{
    signals_cooperate(false);
    if (p->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    p->shown = p->drawn = false;
}
