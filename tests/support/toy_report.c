/* toy_report.c - see toy_report.h. */
#include "toy_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    double bits;
} levels[TOY_MOST_CANDIDATES] = {{"Q8_0", 8.50},  {"Q6_K", 6.56},   {"Q5_K_M", 5.70}, {"Q5_K_S", 5.54},
                                 {"Q5_0", 5.50},  {"Q4_K_M", 4.89}, {"Q4_K_S", 4.67}, {"IQ4_NL", 4.56},
                                 {"Q4_0", 4.55},  {"IQ4_XS", 4.32}, {"Q3_K_L", 4.30}, {"Q3_K_M", 4.02},
                                 {"IQ3_M", 3.77}, {"IQ3_S", 3.66},  {"Q3_K_S", 3.64}, {"IQ3_XXS", 3.25},
                                 {"Q2_K", 3.16},  {"Q2_K_S", 2.97}, {"IQ2_S", 2.74},  {"IQ1_S", 2.01}};
static const char *const kinds[TOY_N_KINDS] = {"attn_q.weight",      "attn_k.weight",   "attn_v.weight",
                                               "attn_output.weight", "ffn_gate.weight", "ffn_up.weight",
                                               "ffn_down.weight"};

static double loss_at(double bits, size_t i)
{
    return 4.0 * pow(0.27, bits - 1.0) * (1 + 0.25 * sin(3.0 * (double)i));
}

static struct divergence divergence_at(double bits, size_t i)
{
    const double kld = loss_at(bits, i), ppl = 17.2 * (1 + 0.8 * kld);
    struct divergence d = {.ppl = {12240, {log(ppl), 0.03}, ppl, 0.03 * ppl, 0.05 * ppl},
                           .ppl_ratio = {1 + 0.8 * kld, 0.02 * kld},
                           .kld = {kld, 0.02 * kld},
                           .kld_window_stderr = 0.04 * kld,
                           .top1 = {1 - fmin(0.7, 0.6 * sqrt(kld)), 0.003},
                           .delta_p_rms = {0.1 * sqrt(kld), 0.001}};
    for (size_t k = 0; k < DIVERGENCE_N_PERCENTILES; k++)
        d.kld_at[k] = kld * pow(10, -3 + 0.35 * (double)k);
    return d;
}

void toy_report_make(struct toy_report *t, enum report_kind kind, size_t n_candidates)
{
    memset(t, 0, sizeof *t);
    t->texts[0] = (struct corpus_text){.path = "texts/wiki.test.raw", .end = 24480, .n_bytes = 101234};
    snprintf(t->texts[0].sha256, sizeof t->texts[0].sha256, "%064d", 7);
    t->corpus = (struct corpus){.texts = t->texts, .n_texts = 1};
    t->report = (struct report){.kind = kind,
                                .version = "1.2.3",
                                .architecture = "qwen3",
                                .title = "Qwen3 4B Instruct",
                                .n_parameters = 4022468096,
                                .corpus = &t->corpus,
                                .ctx = 512,
                                .n_windows = 48,
                                .n_windows_asked = 48,
                                .run = 255,
                                .n_scored = 12240,
                                .recipe = "llama.cpp",
                                .seconds = 81.4,
                                .n_threads = 8,
                                .isa = "avx2",
                                .candidates = t->candidates,
                                .n_candidates = n_candidates};
    t->report.reference = (struct report_model){.path = "models/Qwen3-4B",
                                                .n_bytes = 8051234560,
                                                .bits_per_weight = 16.01,
                                                .ppl = {12240, {log(17.2), 0.03}, 17.2, 0.5, 0.6}};
    snprintf(t->report.ids_sha256, sizeof t->report.ids_sha256, "%064d", 9);
    for (size_t i = 0; i < n_candidates; i++) {
        struct report_model *c = &t->candidates[i];
        *c = (struct report_model){.path = t->report.reference.path,
                                   .type = levels[i].name,
                                   .n_bytes = (uint64_t)(4022468096 / 8 * levels[i].bits),
                                   .bits_per_weight = levels[i].bits,
                                   .d = divergence_at(levels[i].bits, i)};
        c->ppl = c->d.ppl;
        c->has_step = i > 0;
        if (i > 0)
            c->step = (struct estimate){c->d.kld.value - t->candidates[i - 1].d.kld.value, 0.001};
    }
}

/* Figures of one part, `harder` times those of the whole. */
static void fill_part(struct report_part *p, struct part_figures *f, const struct report *r, double harder)
{
    p->models = f;
    f[0] = (struct part_figures){{log(17.2 * harder), 0.04}, {NAN, NAN}, NAN};
    for (size_t i = 0; i < r->n_candidates; i++) {
        double kld = r->candidates[i].d.kld.value * harder;
        f[i + 1] = (struct part_figures){
            {log(17.2 * harder * (1 + kld)), 0.04}, {kld, 0.03 * kld}, 1 - fmin(0.7, 0.6 * sqrt(kld))};
    }
}

void toy_report_add_parts(struct toy_report *t)
{
    static const struct {
        char *path;
        double weight, harder;
    } texts[TOY_N_TEXTS] = {
        {"texts/wiki.test.raw", 0.5, 1.0}, {"texts/code.py", 0.3, 0.6}, {"chats/german.jsonl", 0.2, 1.7}};
    for (size_t i = 0; i < TOY_N_TEXTS; i++) {
        t->texts[i] = t->texts[0];
        t->texts[i].path = texts[i].path;
        t->text_parts[i] = (struct report_part){texts[i].path, i, 0, texts[i].weight, 4080, NULL};
        fill_part(&t->text_parts[i], t->figures[i], &t->report, texts[i].harder);
    }
    struct report_part mean = {.n_scored = 0};
    fill_part(&mean, t->figures[TOY_N_TEXTS], &t->report, 1.02);
    for (size_t i = 0; i < REPORT_MAX_DEPTHS; i++) {
        size_t first = i ? 512u >> (REPORT_MAX_DEPTHS - i) : 0, end = 512u >> (REPORT_MAX_DEPTHS - 1 - i);
        t->depths[i] = (struct report_part){NULL, first, end, NAN, 48 * (end - first), NULL};
        fill_part(&t->depths[i], t->figures[TOY_N_TEXTS + 1 + i], &t->report, 1 + 0.1 * (double)i);
    }
    t->corpus.n_texts = TOY_N_TEXTS;
    t->parts = (struct report_parts){t->text_parts, t->depths, TOY_N_TEXTS, REPORT_MAX_DEPTHS,
                                     t->figures[TOY_N_TEXTS]};
    t->report.parts = &t->parts;
}

static struct profile_restored restored(double loss, double share)
{
    return (struct profile_restored){{loss * (1 - share), 0.01 * loss}, {loss * share, 0.004 * loss}};
}

void toy_report_add_profile(struct toy_report *t, size_t n_layers)
{
    struct report_model *c = &t->candidates[t->report.n_candidates - 1];
    const double loss = c->d.kld.value;
    for (size_t l = 0; l < n_layers; l++) {
        double share = 0.02 + 0.9 / (double)n_layers * (1 + sin(0.7 * (double)l));
        t->layers[l] =
            (struct profile_layer){0.02 + 0.3 * pow((double)l / (double)n_layers, 2), restored(loss, share)};
        for (size_t k = 0; k < TOY_N_KINDS; k++) {
            size_t i = l * TOY_N_KINDS + k;
            double error = 0.04 * (1 + 0.8 * sin(0.5 * (double)l + (double)k));
            snprintf(t->names[i], sizeof t->names[i], "blk.%zu.%s", l, kinds[k]);
            t->tensors[i] = (struct profile_tensor){t->names[i], PROFILE_PRODUCT, (int64_t)l, k, QTYPE_Q4_K,
                                                    256,         error,           1.3 * error};
        }
    }
    for (size_t k = 0; k < TOY_N_KINDS; k++)
        t->kinds[k] =
            (struct profile_kind){kinds[k], n_layers, 0.05, 0.07, restored(loss, 0.05 * (double)(k + 1))};
    t->profile = (struct profile){.n_windows = 4,
                                  .n_windows_all = 48,
                                  .n_tokens = 2048,
                                  .n_losses = 1020,
                                  .loss = {loss, 0.02 * loss},
                                  .embedding_error = 0.01,
                                  .layers = t->layers,
                                  .kinds = t->kinds,
                                  .tensors = t->tensors,
                                  .n_layers = n_layers,
                                  .n_kinds = TOY_N_KINDS,
                                  .n_tensors = TOY_N_KINDS * n_layers};
    c->profile = &t->profile;
}

void toy_score_make(struct toy_score *t, size_t n_models)
{
    memset(t, 0, sizeof *t);
    t->task = (struct task){.path = "tasks/hellaswag.jsonl",
                            .n_records = 1000,
                            .n_of = {[TASK_CHOICE] = 800, [TASK_ANSWER] = 100, [TASK_TEXT] = 100}};
    snprintf(t->task.sha256, sizeof t->task.sha256, "%064d", 5);
    t->result = (struct score_result){.task = &t->task,
                                      .metric = TASK_ACC_NORM,
                                      .models = t->models,
                                      .n_models = n_models,
                                      .n_asked = n_models,
                                      .ctx = 2048,
                                      .activations = "f32",
                                      .seconds = 12.5};
    for (size_t i = 0; i < n_models; i++) {
        struct score_model *m = &t->models[i];
        double worse = i ? loss_at(levels[i - 1].bits, i) : 0, acc = 0.62 - 0.2 * worse;
        t->candidates[i] = (struct candidate){.path = "models/Qwen3-4B",
                                              .type = i ? levels[i - 1].name : NULL,
                                              .n_bytes = 8051234560 / (i + 1),
                                              .bits_per_weight = i ? levels[i - 1].bits : 16};
        m->candidate = &t->candidates[i];
        for (size_t k = 0; k < TASK_N_METRICS; k++)
            m->score.accuracy[k] = (struct estimate){acc - 0.03 * (double)k, 0.0155};
        m->score.nll = (struct estimate){2.4 + worse, 0.02};
        m->score.bits_per_byte = (struct estimate){0.81 + 0.3 * worse, 0.01};
        m->score.difference = i ? (struct estimate){-0.2 * worse, 0.004} : (struct estimate){NAN, NAN};
        m->score.bits_difference = i ? (struct estimate){0.3 * worse, 0.002} : (struct estimate){NAN, NAN};
        m->score.p_value = i ? exp(-20 * worse) : NAN;
        m->score.lost = i ? 7 + 9 * i : 0;
        m->score.gained = i ? 5 + 4 * i : 0;
        m->score.changed = 20 * i;
    }
}
