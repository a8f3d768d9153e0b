/* test_pages.c - pages show what the results hold, whoever named the files, for few candidates and for many.
 * KERF_PAGES=FOLDER keeps the pages that are made here in that folder, to be looked at in a browser. */
#include "calib/report/page.h"
#include "calib/report/score_page.h"
#include "formats/json.h"
#include "toy_report.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct toy_report toy;
static struct toy_score score;
static const struct page_about about = {"1.2.3", "kerf score 'a <b>.gguf' --task t", "8 threads"};

static void keep(const char *name, const char *text)
{
    const char *folder = getenv("KERF_PAGES");
    char path[500];
    if (!folder)
        return;
    snprintf(path, sizeof path, "%s/%s.html", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static char *page_of(const struct report *r, const char *name)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    assert_int_equal(report_html(r, f), 0);
    fclose(f);
    keep(name, text);
    return text;
}

static char *score_page_of(const char *name)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    assert_int_equal(score_page(&score.result, &about, f), 0);
    fclose(f);
    keep(name, text);
    return text;
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

/* What stands behind a link, with %XX read. Caller frees. */
static char *behind_link(const char *page, const char *name)
{
    char mark[100];
    snprintf(mark, sizeof mark, "download=\"%s\" href=\"data:", name);
    const char *s = strstr(page, mark);
    assert_non_null(s);
    s = strchr(s + strlen(mark), ',') + 1;
    size_t n = strcspn(s, "\""), k = 0;
    char *out = malloc(n + 1);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++) {
        unsigned v = (unsigned char)s[i];
        if (s[i] == '%') {
            const char digits[3] = {s[i + 1], s[i + 2], 0};
            v = (unsigned)strtoul(digits, NULL, 16);
            i += 2;
        }
        out[k++] = (char)v;
    }
    out[k] = 0;
    return out;
}

static double number(const struct json *j, const char *key)
{
    double v = NAN;
    assert_true(json_number(json_get(j, key), &v));
    return v;
}

/* Every element that is opened is closed, in order, and no id or attribute breaks out: a small reader of
 * tags. */
static void check_nesting(const char *page)
{
    static const char *const empty[] = {"meta", "br", "!doctype"};
    char stack[64][16];
    size_t depth = 0;
    for (const char *s = page; (s = strchr(s, '<')); s++) {
        bool closes = s[1] == '/';
        char name[16], open = 0;
        size_t n = strspn(s + 1 + closes, "abcdefghijklmnopqrstuvwxyz0123456789!");
        snprintf(name, sizeof name, "%.*s", (int)(n < 15 ? n : 15), s + 1 + closes);
        assert_true(name[0] != 0);
        const char *end = s + 1;
        for (; *end && (open || *end != '>'); end++)
            open = open ? (*end == open ? 0 : open) : *end == '"' ? '"' : 0;
        assert_true(*end == '>');
        bool is_empty = end[-1] == '/';
        for (size_t i = 0; i < sizeof empty / sizeof *empty; i++)
            is_empty |= strcmp(name, empty[i]) == 0;
        if (closes) {
            assert_true(depth > 0);
            assert_string_equal(stack[--depth], name);
        } else if (!is_empty) {
            assert_true(depth < 64);
            snprintf(stack[depth++], sizeof *stack, "%s", name);
        }
        s = end;
        if (strcmp(name, "script") == 0 && !closes)
            s = strstr(s, "</script>") - 1;
    }
    assert_int_equal(depth, 0);
}

/* In one frame, sound, without anything from outside. */
static void check_page(const char *page)
{
    static const char *const marks[] = {"<!doctype html>",
                                        "<meta name=\"viewport\"",
                                        "<p class=\"kind\">kerf: ",
                                        "<h1>",
                                        "prefers-color-scheme:dark",
                                        "@media print",
                                        "position:sticky",
                                        "aria-sort",
                                        "<footer>",
                                        "How it was measured",
                                        "<dt>Program</dt><dd>kerf 1.2.3",
                                        "</html>\n"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (!strstr(page, marks[i]))
            fail_msg("the page lacks %s", marks[i]);
    static const char *const outside[] = {"http:",   "https:", " src=\"", "<img", "<link", "url(",
                                          "@import", ">nan",   " nan",    ":nan", "(null)"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        if (strstr(page, outside[i]))
            fail_msg("the page has %s", outside[i]);
    assert_int_equal(count(page, "<h1>"), 1);
    check_nesting(page);
}

static void pages_are_sound_for_few_candidates_and_many(void **state)
{
    (void)state;
    static const size_t n[] = {1, 3, 7, 20}, n_layers[] = {1, 4, 30, 94};
    char name[64];
    for (size_t i = 0; i < 4; i++) {
        toy_report_make(&toy, REPORT_LADDER, n[i]);
        snprintf(name, sizeof name, "ladder%zu", n[i]);
        char *page = page_of(&toy.report, name);
        check_page(page);
        assert_int_equal(count(page, "class=\"name tag\""), 2 * n[i]); /* for screens, and for phones */
        free(page);
        toy_report_make(&toy, REPORT_COMPARE, n[i]);
        toy_report_add_parts(&toy);
        snprintf(name, sizeof name, "compare%zu", n[i]);
        page = page_of(&toy.report, name);
        check_page(page);
        free(page);
        toy_report_make(&toy, REPORT_COMPARE, 2);
        toy_report_add_profile(&toy, n_layers[i]);
        snprintf(name, sizeof name, "profile%zu", n_layers[i]);
        page = page_of(&toy.report, name);
        check_page(page);
        free(page);
        toy_score_make(&score, n[i]);
        snprintf(name, sizeof name, "score%zu", n[i]);
        page = score_page_of(name);
        check_page(page);
        free(page);
    }
}

/* Twenty candidates with a profile of 94 layers each: what a browser opens and a mail carries. */
static void a_large_page_is_of_reasonable_size(void **state)
{
    (void)state;
    toy_report_make(&toy, REPORT_COMPARE, 20);
    toy_report_add_parts(&toy);
    toy_report_add_profile(&toy, 94);
    for (size_t i = 0; i < 20; i++)
        toy.candidates[i].profile = &toy.profile;
    char *page = page_of(&toy.report, "large");
    check_page(page);
    assert_true(strlen(page) < 9000000);
    free(page);
}

/* Figures by text and by depth are in the tables, on hover, in the CSV and the JSON, and are the same. */
static void parts_are_on_the_page_and_in_its_data(void **state)
{
    (void)state;
    toy_report_make(&toy, REPORT_COMPARE, 3);
    toy_report_add_parts(&toy);
    char *page = page_of(&toy.report, "parts"), want[100];
    const struct part_figures *f = &toy.text_parts[2].models[2];
    assert_non_null(strstr(page, "Loss on each text"));
    assert_non_null(strstr(page, "Loss by position in the window"));
    assert_non_null(strstr(page, "<th scope=\"col\">german.jsonl</th><th scope=\"col\">weighted mean</th>"));
    assert_non_null(strstr(page, "<th scope=\"col\">256 to 511</th></tr>"));
    snprintf(want, sizeof want, "<td>%.6f <span class=\"e\">±&#8239;%.6f</span></td>", f->kld.value,
             f->kld.error);
    assert_int_equal(count(page, want), 1);
    snprintf(want, sizeof want, "Q6_K, german.jsonl: mean KLD %.6f ± %.6f</title>", f->kld.value,
             f->kld.error);
    assert_int_equal(count(page, want), 2);

    char *text = behind_link(page, "kerf.json");
    struct json_doc *doc = NULL;
    struct err e = {0};
    if (json_parse(&doc, text, strlen(text), "kerf.json", &e) != 0)
        fail_msg("%s", e.msg);
    const struct json *part = json_next(json_next(json_first(json_get(json_root(doc), "by_text"))));
    const struct json *model = json_next(json_next(json_first(json_get(part, "models"))));
    assert_true(number(model, "kld_mean") == f->kld.value && number(model, "kld_stderr") == f->kld.error);
    json_free(doc);
    free(text);

    text = behind_link(page, "parts.csv");
    snprintf(want, sizeof want, "text,\"chats/german.jsonl\",4080,\"Q6_K\",%.9g,", exp(f->nll.value));
    assert_non_null(strstr(text, want));
    snprintf(want, sizeof want, ",%.9g,%.9g,%.9g\n", f->kld.value, f->kld.error, f->top1);
    assert_non_null(strstr(text, want));
    assert_int_equal(count(text, "\n"),
                     1 + (3 + 1 + 6) * 4); /* texts, mean, depths; reference and candidates */
    free(text);
    free(page);
}

/* A part in which no token is scored has dashes, and no point. */
static void parts_without_tokens_are_dashes(void **state)
{
    (void)state;
    const struct estimate none = {NAN, NAN};
    toy_report_make(&toy, REPORT_COMPARE, 1);
    toy_report_add_parts(&toy);
    for (size_t m = 0; m < 2; m++)
        toy.text_parts[1].models[m] = toy.depths[0].models[m] = (struct part_figures){none, none, NAN};
    char *page = page_of(&toy.report, "empty-part");
    check_page(page);
    assert_int_equal(count(page, "<td>–</td>"), 2 * (1 + 2 + 1));
    free(page);
}

/* Layout of JSON is left out of the link, nothing else. */
static void data_survives_the_link(void **state)
{
    (void)state;
    static const char path[] = "a \": b\\\": c\n  d|<e>&'%41\xc3\xa9 ";
    toy_report_make(&toy, REPORT_LADDER, 2);
    toy.report.reference.path = path;
    char *page = page_of(&toy.report, "data"), *text = behind_link(page, "kerf.json");
    struct json_doc *doc = NULL;
    struct err e = {0};
    if (json_parse(&doc, text, strlen(text), "kerf.json", &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(json_string(json_get(json_get(json_root(doc), "reference"), "model")), path);
    assert_null(strchr(text, '\n'));
    json_free(doc);
    free(text);
    free(page);
}

static const char hostile[] = "\"'><script>alert(1)</script><img src=x onerror=y>&amp;|%s\x01\x7f\xff";

static void check_hostile(char *page)
{
    check_page(page);
    assert_null(strstr(page, "<script>alert"));
    assert_null(strstr(page, "<img"));
    assert_null(strchr(page, 0x01));
    assert_null(strchr(page, 0x7f));
    assert_null(strchr(page, (char)0xff));
    assert_non_null(strstr(page, "&quot;&#39;&gt;&lt;script&gt;alert(1)"));
    assert_non_null(strstr(page, "&amp;amp;&#124;%s  \uFFFD"));
    free(page);
}

/* Names of models, texts, tensors, tasks, labels and the command cannot become markup. */
static void names_stay_text(void **state)
{
    (void)state;
    char path[sizeof hostile];
    memcpy(path, hostile, sizeof path);
    toy_report_make(&toy, REPORT_COMPARE, 2);
    toy_report_add_parts(&toy);
    toy_report_add_profile(&toy, 2);
    toy.report.title = toy.report.architecture = toy.report.command = toy.report.recipe = hostile;
    toy.report.imatrix = toy.report.hessian = toy.report.stored = toy.report.reference.path = hostile;
    toy.texts[1].path = path;
    toy.text_parts[1].text = path;
    toy.candidates[0].type = NULL;
    toy.candidates[0].path = hostile;
    toy.candidates[0].sha256 = "00";
    toy.candidates[1].imatrix = toy.candidates[1].shown = hostile;
    toy.kinds[0].name = toy.tensors[0].name = hostile;
    snprintf(toy.names[1], sizeof toy.names[1], "blk.1.%.50s", hostile);
    check_hostile(page_of(&toy.report, "hostile"));

    toy_report_make(&toy, REPORT_COMPARE, 2);
    toy.report.answer = NET_SCORE;
    toy.report.label = hostile;
    toy.candidates[0].shown = hostile;
    check_hostile(page_of(&toy.report, "hostile-score"));

    toy_score_make(&score, 2);
    score.task.path = hostile;
    score.candidates[0].path = hostile;
    score.candidates[1].type = hostile;
    check_hostile(score_page_of("hostile-task"));
}

/* --- names of points --- */

struct box {
    double x1, y1, x2, y2;
};

static bool boxes_overlap(const struct box *a, const struct box *b)
{
    return a->x1 < b->x2 && b->x1 < a->x2 && a->y1 < b->y2 && b->y1 < a->y2;
}

/* The boxes of names from `svg` to its end, in letters as wide as DejaVu Sans has them on average. */
static size_t read_names(const char *svg, const char *end, struct box *out)
{
    static const char mark[] = "<text class=\"name tag\" x=\"";
    size_t n = 0;
    for (const char *s = svg; (s = strstr(s, mark)) && s < end && n < TOY_MOST_CANDIDATES; n++) {
        double x, y;
        char anchor[8];
        s += sizeof mark - 1;
        assert_int_equal(sscanf(s, "%lf\" y=\"%lf\" text-anchor=\"%7[a-z]", &x, &y, anchor), 3);
        const char *text = strchr(s, '>') + 1;
        double width = 0;
        for (; *text != '<'; text++)
            width += ((unsigned char)*text & 0xc0) == 0x80 ? 0 : 6.8;
        x -= strcmp(anchor, "end") == 0 ? width : strcmp(anchor, "middle") == 0 ? width / 2 : 0;
        out[n] = (struct box){x, y - 10, x + width, y + 2};
    }
    return n;
}

static size_t read_leaders(const char *svg, const char *end, struct box *out)
{
    static const char mark[] = "<line class=\"leader\" ";
    size_t n = 0;
    for (const char *s = svg; (s = strstr(s, mark)) && s < end && n < TOY_MOST_CANDIDATES; n++) {
        struct box *b = &out[n];
        s += sizeof mark - 1;
        assert_int_equal(
            sscanf(s, "x1=\"%lf\" y1=\"%lf\" x2=\"%lf\" y2=\"%lf", &b->x1, &b->y1, &b->x2, &b->y2), 4);
    }
    return n;
}

static double height_at(const struct box *line, double x)
{
    return line->y1 + (line->y2 - line->y1) * (x - line->x1) / (line->x2 - line->x1);
}

/* Lines to the column of names end at one x; coordinates are rounded to tenths. */
static bool leaders_cross(const struct box *a, const struct box *b)
{
    const double x = fmax(a->x1, b->x1), apart = height_at(a, x) - height_at(b, x);
    return fabs(apart) > 0.2 && apart * (a->y2 - b->y2) < 0;
}

/* In every chart of points each name is inside, touches no other, and no two lines to names cross. */
static void check_names(const char *page)
{
    size_t n_charts = 0;
    for (const char *svg = page; (svg = strstr(svg, "<svg viewBox=\"0 0 ")); svg++) {
        struct box names[TOY_MOST_CANDIDATES], lines[TOY_MOST_CANDIDATES];
        const char *end = strstr(svg, "</svg>");
        const double width = strtod(svg + 18, NULL);
        const size_t n = read_names(svg, end, names), n_lines = read_leaders(svg, end, lines);
        n_charts += n > 0;
        for (size_t i = 0; i < n; i++) {
            assert_true(names[i].x1 >= 0 && names[i].x2 <= width);
            for (size_t j = 0; j < i; j++)
                assert_false(boxes_overlap(&names[i], &names[j]));
        }
        for (size_t i = 0; i < n_lines; i++)
            for (size_t j = 0; j < i; j++)
                assert_false(leaders_cross(&lines[i], &lines[j]));
    }
    assert_true(n_charts >= 2);
}

static void names_of_points_do_not_collide(void **state)
{
    (void)state;
    for (size_t n = 1; n <= TOY_MOST_CANDIDATES; n++) {
        toy_report_make(&toy, REPORT_LADDER, n);
        char *page = page_of(&toy.report, "names");
        check_names(page);
        free(page);
    }
    /* Two candidates on one point, another where a line to their names would end, and a long name. */
    static const struct {
        const char *shown;
        double bits, kld;
    } near[] = {{"Q4_K_M", 5.259, 0.01},
                {"Q4_K_M+kv:q8_0", 5.259, 0.01007},
                {"Q2_K", 3.857, 0.1},
                {"kv:q4_0", 16.011, 0.00522},
                {"a-long-name-of-a-model-Q6_K.gguf", 6.6, 0.0047}};
    toy_report_make(&toy, REPORT_COMPARE, 5);
    for (size_t i = 0; i < 5; i++) {
        toy.candidates[i].shown = near[i].shown;
        toy.candidates[i].bits_per_weight = near[i].bits;
        toy.candidates[i].d.kld.value = near[i].kld;
    }
    char *page = page_of(&toy.report, "names");
    check_names(page);
    free(page);
}

static void an_error_that_is_not_known_is_left_out(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    page_estimate(f, 2, 1.5, 0.25, true);
    page_estimate(f, 2, 1.5, NAN, true);
    page_estimate(f, 2, NAN, NAN, true);
    assert_int_equal(fclose(f), 0);
    assert_string_equal(text, "<td>+1.50 <span class=\"e\">±&#8239;0.25</span></td><td>+1.50</td><td>–</td>");
    free(text);
}

/* The foot says how to do it again. */
static void the_foot_tells_how_it_was_made(void **state)
{
    (void)state;
    toy_report_make(&toy, REPORT_COMPARE, 1);
    toy.report.command = "kerf compare a b --text t";
    toy.report.reference.sha256 = "11ff";
    toy.candidates[0].type = NULL;
    toy.candidates[0].path = "b.gguf";
    toy.candidates[0].sha256 = "22ee";
    toy.report.answers_only = true;
    char *page = page_of(&toy.report, "foot");
    static const char *const marks[] = {
        "<title>Qwen3 4B Instruct on wiki.test.raw, windows of 512 tokens – comparison</title>",
        "<dt>Command</dt><dd><code>kerf compare a b --text t</code></dd>",
        "<dt>Content of the reference</dt><dd><code>11ff</code></dd>",
        "<dt>Candidate</dt><dd>b.gguf<br><code>22ee</code></dd>",
        "<dt>Token ids</dt><dd><code>00",
        "of answers alone",
        "kerf 1.2.3, 8 threads, avx2, 81.4 seconds</dd>"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (!strstr(page, marks[i]))
            fail_msg("the page lacks %s", marks[i]);
    free(page);
    toy_score_make(&score, 2);
    snprintf(score.candidates[0].sha256, sizeof score.candidates[0].sha256, "33dd");
    page = score_page_of("foot-score");
    assert_non_null(
        strstr(page, "<title>Qwen3-4B on hellaswag.jsonl, 1000 records – scores of a task</title>"));
    assert_non_null(strstr(page, "models/Qwen3-4B<br><code>33dd</code>"));
    assert_non_null(strstr(page, "<code>kerf score &#39;a &lt;b&gt;.gguf&#39; --task t</code>"));
    free(page);
}

/* --- colours --- */

/* A variable of the style sheet in the light scheme (the first that sets it) or in the dark one (the second).
 */
static unsigned colour(const char *name, int scheme)
{
    char mark[32];
    unsigned rgb = 0;
    const char *s = page_style;
    snprintf(mark, sizeof mark, "--%s:#", name);
    for (int i = 0; i <= scheme; i++) {
        s = strstr(s, mark);
        assert_non_null(s);
        s += strlen(mark);
    }
    assert_int_equal(sscanf(s, "%6x", &rgb), 1);
    if (s[3] == ';' || s[3] == '}') /* #abc */
        rgb = ((rgb >> 8) * 0x11 << 16) | ((rgb >> 4 & 15) * 0x11 << 8) | (rgb & 15) * 0x11;
    return rgb;
}

/* WCAG 2.2, relative luminance. */
static double luminance(const double c[3])
{
    static const double parts[] = {0.2126, 0.7152, 0.0722};
    double sum = 0;
    for (int i = 0; i < 3; i++)
        sum += parts[i] * (c[i] <= 0.04045 ? c[i] / 12.92 : pow((c[i] + 0.055) / 1.055, 2.4));
    return sum;
}

static double luminance_of(unsigned over, unsigned ground, double share)
{
    double c[3];
    for (int i = 0; i < 3; i++)
        c[i] = (share * (over >> (16 - 8 * i) & 255) + (1 - share) * (ground >> (16 - 8 * i) & 255)) / 255;
    return luminance(c);
}

static double contrast(double a, double b)
{
    return (fmax(a, b) + 0.05) / (fmin(a, b) + 0.05);
}

static void text_has_contrast(void **state)
{
    (void)state;
    static const char *const inks[] = {"fg", "soft", "accent", "accent2"};
    for (int scheme = 0; scheme < 3; scheme++) { /* the third: print */
        unsigned ground = colour("bg", scheme);
        for (size_t i = 0; i < 4; i++)
            assert_true(contrast(luminance_of(colour(inks[i], scheme), 0, 1), luminance_of(ground, 0, 1)) >=
                        4.5);
        /* On cells of a map, by the limits of report_map.c. */
        for (int k = 0; k <= 100; k++) {
            double shade = k / 100.0;
            unsigned ink = shade <= 0.65 ? colour("on1", scheme) : shade <= 0.81 ? 0 : colour("on3", scheme);
            double cell = luminance_of(colour("accent2", scheme), ground, shade);
            assert_true(contrast(luminance_of(ink, 0, 1), cell) >= 4.5);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_sound_for_few_candidates_and_many),
        cmocka_unit_test(a_large_page_is_of_reasonable_size),
        cmocka_unit_test(parts_are_on_the_page_and_in_its_data),
        cmocka_unit_test(parts_without_tokens_are_dashes),
        cmocka_unit_test(data_survives_the_link),
        cmocka_unit_test(names_stay_text),
        cmocka_unit_test(names_of_points_do_not_collide),
        cmocka_unit_test(an_error_that_is_not_known_is_left_out),
        cmocka_unit_test(the_foot_tells_how_it_was_made),
        cmocka_unit_test(text_has_contrast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
