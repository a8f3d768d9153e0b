/* report.h - one structure with everything an evaluation found, and its three faces: text for people, JSON
 * for scripts (the keys are a promise, product.md 2), and a self-contained HTML page for sharing.
 *
 * Figures are copied in; strings are borrowed until the report is written. */
#ifndef KERF_REPORT_H
#define KERF_REPORT_H

#include "calib/eval/answer_change.h"
#include "calib/eval/kl_divergence.h"

#include <stdio.h>

enum report_kind { REPORT_PERPLEXITY, REPORT_COMPARE, REPORT_LADDER };

struct profile;

struct report_model {
    const char *path;
    const char *type;    /* what was applied on the fly: a mix, "plan:FILE", "recipe:FILE"; or NULL */
    const char *imatrix; /* importance matrix that it was applied with, or NULL */
    const char *kv_type; /* of its cache of keys and values, or NULL: exact */
    const char *shown;   /* what tables call it where neither type nor path says it all, or NULL */
    const char *name;    /* end of `path` that tells it from the others (report_name_candidates), or NULL */
    const char *sha256;  /* content of the model, hexadecimal, or NULL when it was not computed */
    size_t n_fallbacks;  /* tensors whose rows do not take the type that the mix gives them */
    uint64_t n_bytes;    /* of the GGUF file(s): those that are there, or what the mix or folder would give */
    double bits_per_weight;
    double tokens_per_second;
    struct perplexity ppl;
    struct divergence d;           /* candidates only */
    double *kld_windows;           /* [n_windows of the report] mean KLD of each; owned, or NULL */
    bool has_step;                 /* there is a candidate before this one */
    struct estimate step;          /* its mean KLD minus that of the candidate before, paired */
    struct answer_change change;   /* of models that answer once for a text; then d and ppl are NaN */
    const struct profile *profile; /* where its loss comes from; borrowed; or NULL */
};

/* A limit that was set for a figure of every candidate. */
struct report_gate {
    const char *name; /* of the option that sets it: "max-kld" */
    const char *what; /* the figure, for people */
    double (*figure)(const struct report_model *c);
    double limit;
    bool at_least; /* the figure may be no less than the limit; else no more */
};

enum report_verdict {
    REPORT_MET,
    REPORT_MISSED, /* also by a figure that is NaN */
    REPORT_OPEN,   /* nothing was run, or only a part that would meet it */
};

struct json_writer;
struct report_parts;

struct report {
    enum report_kind kind;
    const char *version; /* of the program */
    const char *command; /* as it was given, for the page; or NULL */
    const char *architecture;
    const char *title; /* general.name of the reference, or NULL */
    uint64_t n_parameters;
    const struct corpus *corpus;
    char ids_sha256[65];
    size_t ctx, stride, n_windows, n_windows_asked, run, n_scored;
    enum net_answer answer; /* NET_TOKENS: windows of text were scored; else single texts: */
    enum net_pooling pooling;
    bool has_probability; /* scores are log-odds */
    const char *label;    /* what is scored, or NULL: not named */
    size_t n_texts, n_texts_asked, n_texts_cut, n_answers, n_text_tokens;
    enum activations activations;
    const char *imatrix, *recipe; /* NULL when no mix was applied */
    const char *hessian;          /* levels are made with error feedback under these; or NULL */
    double seconds;
    unsigned n_threads;
    const char *isa;
    bool partial;          /* stopped: some windows or models are missing */
    bool all_kept;         /* nothing was run: every score was kept by an earlier run */
    bool profiles_partial; /* stopped: some candidates have no profile, though they were asked for */
    bool planned;          /* nothing was run: every figure that is measured is NaN */
    const char *html, *logits, *saved; /* files that are (or would be) written beside, or NULL */
    const char *stored;                /* file that the reference was stored in, or NULL */
    const struct report_parts *parts;  /* report_parts.h; borrowed; or NULL */
    bool answers_only;                 /* tokens of answers alone are scored */
    struct report_model reference;
    struct report_model *candidates; /* owned */
    size_t n_candidates;
    const struct report_gate *gates; /* borrowed; the caller's to set */
    size_t n_gates;
    void (*members)(void *ctx, struct json_writer *w); /* adds the last members of the JSON object; or NULL */
    void *members_ctx;
};

/* Take the figures of an evaluation: fills the reference's and the candidates' figures, counts, `partial`;
 * allocates `candidates`. Names, sizes and settings are the caller's to set. 0 or ERR_NOMEM. */
int report_take(struct report *r, const struct evaluation *v, const struct windows *w, struct err *e);
/* The same of single texts. */
int report_take_texts(struct report *r, const struct text_evaluation *v, const struct passages *p, size_t ctx,
                      struct err *e);

/* The same before anything is run: counts as they would be, figures NaN (null in JSON), `planned` set. */
int report_plan(struct report *r, size_t n_candidates, const struct windows *w, struct err *e);
int report_plan_texts(struct report *r, size_t n_candidates, enum net_answer answer, const struct passages *p,
                      size_t ctx, struct err *e);
void report_release(struct report *r);

/* Does this candidate meet this gate? And all of them every gate: missed when one is, else open when the run
 * is, else met. */
enum report_verdict report_judge(const struct report *r, const struct report_gate *g,
                                 const struct report_model *c);
enum report_verdict report_judge_all(const struct report *r);

void report_text(const struct report *r, FILE *out);
void report_json(const struct report *r, FILE *out);
/* 0 or ERR_NOMEM; then the page is not whole. */
int report_html(const struct report *r, FILE *out);

/* Text of a page, with what HTML would read as markup written otherwise; control characters become spaces,
 * bytes that are not UTF-8 U+FFFD; NULL is nothing. */
void report_put(FILE *out, const char *s);

/* Once paths and types are set: candidates whose files have the same name get as many of their folders as
 * tell them apart. */
void report_name_candidates(struct report *r);

/* What tables call a model: the type that was applied, or the last part of its path, with more of it after
 * report_name_candidates where need be. */
const char *report_name(const struct report_model *m);

/* Size of loss against size of file as inline SVG; for report_html. 0 or ERR_NOMEM. */
int report_chart(const struct report *r, double width, FILE *out);

/* Percentiles of the divergence of each candidate as inline SVG; for report_html. */
void report_spread(const struct report *r, double width, FILE *out);

#endif
