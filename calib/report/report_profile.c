/* report_profile.c - see report_profile.h. */
#include "report_profile.h"

#include "calib/eval/profile.h"
#include "formats/json.h"
#include "formats/model/tensor_name.h"

#include <math.h>
#include <string.h>

/* --- text --- */

static const char *loss_name(enum net_answer a)
{
    return a == NET_TOKENS ? "mean KLD" : a == NET_EMBEDDING ? "distance" : "diff^2";
}

/* Cosine distances are small. */
static int loss_decimals(enum net_answer a)
{
    return a == NET_EMBEDDING ? 8 : 6;
}

static void percent(FILE *out, int width, double v)
{
    if (isnan(v))
        fprintf(out, " %*s", width, "-");
    else
        fprintf(out, " %*.*f", width, 100 * v < 100 ? 2 : 0, 100 * v);
}

/* "0.0123 0.0004 ±0.0001 3.1": what is left, what is gained, and which part of the whole that is. */
static void restored(FILE *out, const struct profile *p, const struct profile_restored *x)
{
    const int decimals = loss_decimals(p->answer);
    fprintf(out, " %10.*f %+10.*f ±", decimals, x->loss.value, decimals, x->gain.value);
    if (isnan(x->gain.error))
        fprintf(out, "%-9s", "-");
    else
        fprintf(out, "%-9.*f", decimals, x->gain.error);
    fprintf(out, " %6.1f", p->loss.value > 0 ? 100 * x->gain.value / p->loss.value : 0);
}

/* "attn_q.weight" without its end, which all have. */
static int stem_length(const char *kind)
{
    size_t n = strlen(kind), end = strlen(".weight");
    return (int)(n > end && strcmp(kind + n - end, ".weight") == 0 ? n - end : n);
}

static void kinds_text(const struct profile *p, FILE *out)
{
    fprintf(out, "%-18s %8s %8s %10s %10s %-10s %6s\n", "restored kind", "error %", "own %",
            loss_name(p->answer), "gain", "", "% of it");
    for (size_t i = 0; i < p->n_kinds; i++) {
        const struct profile_kind *k = &p->kinds[i];
        fprintf(out, "%-18.*s", stem_length(k->name), k->name);
        percent(out, 8, k->error);
        percent(out, 8, k->own_error);
        restored(out, p, &k->restored);
        fputc('\n', out);
    }
}

/* The tensor of a layer whose product is the furthest off; NULL: none is known. */
static const struct profile_tensor *worst_of(const struct profile *p, size_t layer)
{
    const struct profile_tensor *worst = NULL;
    for (size_t i = 0; i < p->n_tensors; i++)
        if (p->tensors[i].layer == (int64_t)layer && !isnan(p->tensors[i].error) &&
            (!worst || p->tensors[i].error > worst->error))
            worst = &p->tensors[i];
    return worst;
}

static void layers_text(const struct profile *p, FILE *out)
{
    fprintf(out, "\n%-8s %8s %10s %10s %-10s %6s  %s\n", "restored", "states %", loss_name(p->answer), "gain",
            "", "% of it", "largest error %");
    for (size_t i = 0; i < p->n_layers; i++) {
        const struct profile_tensor *worst = worst_of(p, i);
        const char *kind = NULL;
        fprintf(out, "layer %-2zu", i);
        percent(out, 8, p->layers[i].error);
        restored(out, p, &p->layers[i].restored);
        if (worst && tensor_layer(worst->name, &kind) >= 0)
            fprintf(out, "  %.*s %.*f", stem_length(kind), kind, 100 * worst->error < 100 ? 2 : 0,
                    100 * worst->error);
        fputc('\n', out);
    }
}

static void profile_text(const struct report_model *c, FILE *out)
{
    const struct profile *p = c->profile;
    const int decimals = loss_decimals(p->answer);
    fprintf(out, "\nprofile of %s\n%zu of %zu %s, %zu tokens, %zu %s; %s %.*f ±%.*f\n", report_name(c),
            p->n_windows, p->n_windows_all, p->answer == NET_TOKENS ? "windows" : "texts", p->n_tokens,
            p->n_losses, p->answer == NET_TOKENS ? "scored" : "answers", loss_name(p->answer), decimals,
            p->loss.value, decimals, p->loss.error);
    kinds_text(p, out);
    layers_text(p, out);
}

void report_profiles_text(const struct report *r, FILE *out)
{
    bool any = false;
    for (size_t i = 0; i < r->n_candidates; i++)
        if (r->candidates[i].profile) {
            profile_text(&r->candidates[i], out);
            any = true;
        }
    if (any)
        fputs("error: of the products, on the reference's inputs; own: on the candidate's own\n"
              "states: error of what leaves the layer; gain: loss that goes when it is restored\n",
              out);
}

/* --- JSON --- */

static void restored_json(struct json_writer *w, const struct profile_restored *x)
{
    jw_key_double(w, "restored_loss", x->loss.value);
    jw_key_double(w, "restored_loss_stderr", x->loss.error);
    jw_key_double(w, "gain", x->gain.value);
    jw_key_double(w, "gain_stderr", x->gain.error);
}

static void layers_json(struct json_writer *w, const struct profile *p)
{
    jw_key(w, "layers");
    jw_array(w);
    for (size_t i = 0; i < p->n_layers; i++) {
        jw_object(w);
        jw_key_uint(w, "layer", i);
        jw_key_double(w, "state_error", p->layers[i].error);
        restored_json(w, &p->layers[i].restored);
        jw_end(w);
    }
    jw_end(w);
}

static void kinds_json(struct json_writer *w, const struct profile *p)
{
    jw_key(w, "kinds");
    jw_array(w);
    for (size_t i = 0; i < p->n_kinds; i++) {
        jw_object(w);
        jw_key(w, "kind"), jw_string(w, p->kinds[i].name);
        jw_key_uint(w, "n_tensors", p->kinds[i].n_tensors);
        jw_key_double(w, "error", p->kinds[i].error);
        jw_key_double(w, "own_error", p->kinds[i].own_error);
        restored_json(w, &p->kinds[i].restored);
        jw_end(w);
    }
    jw_end(w);
}

static void tensors_json(struct json_writer *w, const struct profile *p)
{
    static const char *const roles[] = {"product", "embedding", "head"};
    jw_key(w, "tensors");
    jw_array(w);
    for (size_t i = 0; i < p->n_tensors; i++) {
        const struct profile_tensor *t = &p->tensors[i];
        jw_object(w);
        jw_key(w, "name"), jw_string(w, t->name);
        jw_key(w, "role"), jw_string(w, roles[t->role]);
        jw_key(w, "type"), jw_string(w, qtype_name((uint32_t)t->type));
        jw_key_uint(w, "n_inputs", t->n_inputs);
        jw_key_double(w, "error", t->error);
        jw_key_double(w, "own_error", t->own_error);
        jw_end(w);
    }
    jw_end(w);
}

void report_profiles_plan(const struct report *r, FILE *out)
{
    bool first = true;
    double cost = 0;
    for (size_t i = 0; i < r->n_candidates; i++) {
        const struct profile *p = r->candidates[i].profile;
        if (!p)
            continue;
        fprintf(out, "%-11s %s: %zu of %zu %s, %zu tokens, with each of %zu layers and %zu kinds\n",
                first ? "profile" : "", report_name(&r->candidates[i]), p->n_windows, p->n_windows_all,
                p->answer == NET_TOKENS ? "windows" : "texts", p->n_tokens, p->n_layers, p->n_kinds);
        cost += p->cost;
        first = false;
    }
    if (!first)
        fprintf(out, "%-11s about %.2f times as much work as the comparison takes\n", "", cost);
}

void report_profile_json(const struct report_model *c, struct json_writer *w)
{
    static const char *const losses[] = {
        [NET_TOKENS] = "kld", [NET_EMBEDDING] = "cosine_distance", [NET_SCORE] = "squared_score_difference"};
    const struct profile *p = c->profile;
    jw_key(w, "profile");
    if (!p) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key(w, "loss"), jw_string(w, losses[p->answer]);
    jw_key_uint(w, p->answer == NET_TOKENS ? "n_windows" : "n_texts", p->n_windows);
    jw_key_uint(w, "n_tokens", p->n_tokens);
    jw_key_uint(w, "n_scored", p->n_losses);
    jw_key_double(w, "cost", p->cost);
    jw_key_double(w, "loss_mean", p->loss.value);
    jw_key_double(w, "loss_stderr", p->loss.error);
    jw_key_double(w, "embedding_error", p->embedding_error);
    layers_json(w, p);
    kinds_json(w, p);
    tensors_json(w, p);
    jw_end(w);
}
