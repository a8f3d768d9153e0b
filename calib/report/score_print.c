/* score_print.c - see score_print.h. */
#include "score_print.h"

#include "formats/json.h"
#include "libquant/base/path.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

const char *score_name(const struct score_model *m)
{
    return m->candidate->shown  ? m->candidate->shown
           : m->candidate->type ? m->candidate->type
                                : path_short(m->candidate->path);
}

/* --- table --- */

#define NAME_WIDTH 16

struct cell {
    char text[48];
};

static struct cell percent(struct estimate x, bool sign)
{
    struct cell c = {"-"};
    if (!isnan(x.value) && !isnan(x.error))
        snprintf(c.text, sizeof c.text, sign ? "%+.2f ± %.2f" : "%.2f ± %.2f", 100 * x.value, 100 * x.error);
    else if (!isnan(x.value))
        snprintf(c.text, sizeof c.text, sign ? "%+.2f" : "%.2f", 100 * x.value);
    return c;
}

/* Columns a terminal gives to it: ± has two bytes. */
static void put(FILE *out, const char *text, int width)
{
    int n = (int)strlen(text) - (strstr(text, "±") ? 1 : 0);
    fprintf(out, "%*s%s", width > n ? width - n : 0, "", text);
}

static void put_name(FILE *out, const struct score_model *m)
{
    const char *name = score_name(m);
    if (strlen(name) > NAME_WIDTH)
        fprintf(out, "%s\n%*s", name, NAME_WIDTH, "");
    else
        fprintf(out, "%-*s", NAME_WIDTH, name);
}

static void put_settings(const struct score_result *r, FILE *out)
{
    const struct task *t = r->task;
    const char *const what[] = {"multiple choice", "short answers", "texts"};
    fprintf(out, "%-8s %s: %zu records", "task", path_short(t->path), t->n_records);
    const char *gap = " (";
    for (size_t k = 0; k < 3; k++)
        if (t->n_of[k]) {
            fprintf(out, "%s%zu %s", gap, t->n_of[k], what[k]);
            gap = ", ";
        }
    fputs(")\n", out);
    if (r->chat)
        fprintf(out, "%-8s the model's chat template\n", "prompts");
    if (strcmp(r->activations, "q8") == 0)
        fprintf(out, "%-8s rounded to 8 bits as in llama.cpp\n", "inputs");
    if (r->n_models < r->n_asked && !r->dry_run)
        fprintf(out, "%-8s stopped after %zu of %zu models\n", "PARTIAL", r->n_models, r->n_asked);
}

static void put_answers(const struct score_result *r, FILE *out)
{
    enum task_metric other = r->metric == TASK_ACC ? TASK_ACC_NORM : TASK_ACC;
    bool both = r->task->n_of[TASK_CHOICE] > 0;
    fprintf(out, "\n%-*s", NAME_WIDTH, "accuracy, %");
    put(out, task_metric_names[r->metric], 14);
    put(out, both ? task_metric_names[other] : "", 14);
    if (r->n_models > 1)
        fputs("   difference      p  flips +/-", out);
    fputc('\n', out);
    for (size_t i = 0; i < r->n_models; i++) {
        const struct task_score *s = &r->models[i].score;
        put_name(out, &r->models[i]);
        put(out, percent(s->accuracy[r->metric], false).text, 14);
        put(out, both ? percent(s->accuracy[other], false).text : "", 14);
        if (i > 0) {
            put(out, percent(s->difference, true).text, 15);
            fprintf(out, " %5.3f  %4zu %zu/%zu", s->p_value, s->gained + s->lost, s->gained, s->lost);
        }
        fputc('\n', out);
    }
    for (size_t i = 1; i < r->n_models; i++)
        if (r->task->n_of[TASK_CHOICE]) {
            fprintf(out, "%s chooses differently from %s in %zu of %zu records\n", score_name(&r->models[i]),
                    score_name(&r->models[0]), r->models[i].score.changed, r->task->n_of[TASK_CHOICE]);
        }
}

static void put_texts(const struct score_result *r, FILE *out)
{
    fprintf(out, "\n%-*s%14s%22s%s\n", NAME_WIDTH, "texts", "perplexity", "bits per byte",
            r->n_models > 1 ? "              difference" : "");
    for (size_t i = 0; i < r->n_models; i++) {
        const struct task_score *s = &r->models[i].score;
        struct cell bits, difference = {""};
        snprintf(bits.text, sizeof bits.text, isfinite(s->bits_per_byte.error) ? "%.5f ± %.5f" : "%.5f",
                 s->bits_per_byte.value, s->bits_per_byte.error);
        if (i > 0)
            snprintf(difference.text, sizeof difference.text,
                     isfinite(s->bits_difference.error) ? "%+.6f ± %.6f" : "%+.6f", s->bits_difference.value,
                     s->bits_difference.error);
        put_name(out, &r->models[i]);
        fprintf(out, "%14.4f", exp(s->nll.value));
        put(out, bits.text, 22);
        if (i > 0)
            put(out, difference.text, 24);
        fputc('\n', out);
    }
}

void score_text(const struct score_result *r, FILE *out)
{
    put_settings(r, out);
    if (r->dry_run) {
        for (size_t i = 0; i < r->n_models; i++)
            fprintf(out, "%-8s %s: %zu tokens\n", i ? "" : "models", score_name(&r->models[i]),
                    r->models[i].n_tokens);
        return;
    }
    if (r->task->n_records > r->task->n_of[TASK_TEXT])
        put_answers(r, out);
    if (r->task->n_of[TASK_TEXT])
        put_texts(r, out);
}

/* --- JSON --- */

static void json_estimate(struct json_writer *w, const char *name, struct estimate x)
{
    char error[64];
    snprintf(error, sizeof error, "%s_stderr", name);
    jw_key(w, name), jw_double(w, x.value);
    jw_key(w, error), jw_double(w, x.error);
}

static void json_figures(struct json_writer *w, const struct score_result *r, const struct score_model *m,
                         bool is_first)
{
    const struct task_score *s = &m->score;
    bool compared = !is_first && r->task->n_records > r->task->n_of[TASK_TEXT];
    json_estimate(w, "accuracy", s->accuracy[r->metric]);
    for (size_t k = 0; k < TASK_N_METRICS; k++)
        json_estimate(w, task_metric_names[k], s->accuracy[k]);
    const char *const names[] = {"flips", "gained", "lost", "changed"};
    const size_t counts[] = {s->gained + s->lost, s->gained, s->lost, s->changed};
    for (size_t k = 0; k < 4; k++) {
        jw_key(w, names[k]);
        if (compared)
            jw_uint(w, counts[k]);
        else
            jw_null(w);
    }
    json_estimate(w, "difference", s->difference);
    jw_key(w, "p_value"), jw_double(w, s->p_value);
    double ppl = exp(s->nll.value);
    json_estimate(w, "perplexity", (struct estimate){ppl, ppl * s->nll.error});
    json_estimate(w, "bits_per_byte", s->bits_per_byte);
    json_estimate(w, "bits_difference", s->bits_difference);
}

static void json_model(struct json_writer *w, const struct score_result *r, size_t i)
{
    const struct score_model *m = &r->models[i];
    const struct task_score unknown = {.accuracy = {{NAN, NAN}, {NAN, NAN}, {NAN, NAN}, {NAN, NAN}},
                                       .nll = {NAN, NAN},
                                       .bits_per_byte = {NAN, NAN},
                                       .difference = {NAN, NAN},
                                       .bits_difference = {NAN, NAN},
                                       .p_value = NAN};
    struct score_model planned = *m;
    planned.score = unknown;
    jw_object(w);
    jw_key(w, "model"), jw_string(w, m->candidate->path);
    jw_key(w, "type"), jw_string(w, m->candidate->type);
    jw_key(w, "kv_type"), jw_string(w, m->candidate->cache_name[0] ? m->candidate->cache_name : NULL);
    jw_key(w, "n_bytes"), jw_uint(w, m->candidate->n_bytes);
    jw_key(w, "bits_per_weight"), jw_double(w, m->candidate->bits_per_weight);
    json_figures(w, r, r->dry_run ? &planned : m, i == 0 || r->dry_run);
    jw_key(w, "n_tokens"), jw_uint(w, m->n_tokens);
    jw_key(w, "n_records_cut"), jw_uint(w, m->requests.n_cut);
    jw_key(w, "tokens_per_second");
    jw_double(w, m->seconds > 0 ? (double)m->n_tokens / m->seconds : NAN);
    jw_end(w);
}

void score_json(const struct score_result *r, struct json_writer *w)
{
    const struct task *t = r->task;
    jw_key(w, "task"), jw_string(w, t->path);
    jw_key(w, "task_sha256"), jw_string(w, t->sha256);
    jw_key(w, "n_records"), jw_uint(w, t->n_records);
    jw_key(w, "n_choice"), jw_uint(w, t->n_of[TASK_CHOICE]);
    jw_key(w, "n_answer"), jw_uint(w, t->n_of[TASK_ANSWER]);
    jw_key(w, "n_text"), jw_uint(w, t->n_of[TASK_TEXT]);
    jw_key(w, "metric"), jw_string(w, task_metric_names[r->metric]);
    jw_key(w, "ctx"), jw_uint(w, r->ctx);
    jw_key(w, "chat"), jw_bool(w, r->chat);
    jw_key(w, "activations"), jw_string(w, r->activations);
    jw_key(w, "partial"), jw_bool(w, r->n_models < r->n_asked);
    jw_key(w, "seconds"), jw_double(w, r->seconds);
    jw_key(w, "models"), jw_array(w);
    for (size_t i = 0; i < r->n_models; i++)
        json_model(w, r, i);
    jw_end(w);
}

/* --- records --- */

static const char *const kind_names[] = {"choice", "answer", "text"};

static void put_sum(struct json_writer *w, const struct likelihood *l)
{
    jw_double(w, l->sum);
}

static void put_n_tokens(struct json_writer *w, const struct likelihood *l)
{
    jw_uint(w, l->n_tokens);
}

static void put_mean(struct json_writer *w, const struct likelihood *l)
{
    jw_double(w, l->mean);
}

static void put_greedy(struct json_writer *w, const struct likelihood *l)
{
    jw_bool(w, l->greedy);
}

/* One figure of each continuation of a record. */
static void put_list(struct json_writer *w, const char *key,
                     void (*put_figure)(struct json_writer *w, const struct likelihood *l),
                     const struct score_model *m, size_t record)
{
    jw_key(w, key), jw_array(w);
    for (size_t k = m->requests.record_begin[record]; k < m->requests.record_begin[record + 1]; k++)
        put_figure(w, &m->likelihoods[k]);
    jw_end(w);
}

static void record_json(struct json_writer *w, const struct score_result *r, size_t i, size_t model)
{
    const struct task_record *x = &r->task->records[i];
    const struct score_model *m = &r->models[model];
    jw_object(w);
    jw_key(w, "place"), jw_uint(w, x->place);
    jw_key(w, "kind"), jw_string(w, kind_names[x->kind]);
    jw_key(w, "model"), jw_string(w, score_name(m));
    if (x->kind != TASK_TEXT)
        jw_key(w, "right"), jw_bool(w, m->verdict.right[r->metric][i]);
    if (x->kind == TASK_CHOICE) {
        jw_key(w, "choice"), jw_uint(w, m->verdict.pick[r->metric][i]);
        jw_key(w, "answer"), jw_uint(w, x->right);
    }
    put_list(w, "log_likelihoods", put_sum, m, i);
    put_list(w, "n_tokens", put_n_tokens, m, i);
    put_list(w, "token_means", put_mean, m, i);
    put_list(w, "greedy", put_greedy, m, i);
    jw_end(w);
}

void score_records(const struct score_result *r, FILE *out)
{
    for (size_t i = 0; i < r->task->n_records; i++)
        for (size_t m = 0; m < r->n_models; m++) {
            struct json_writer w;
            jw_begin(&w, out);
            w.one_line = true;
            record_json(&w, r, i, m);
        }
}
