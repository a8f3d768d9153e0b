/* eval_command.h - what perplexity, compare and ladder have in common: the options about text, opening text
 * and models, progress, and writing the report.
 *
 *     struct eval_run r = {.shared = &shared, .text = &text};
 *     status = eval_check_options(&cmd, &text, false);
 *     if (status == 0) {
 *         rc = eval_open(&r, model, n_candidates, &e);
 *         ...eval_add_candidate for each candidate...
 *         if (rc == 0)
 *             rc = eval_measure(&r, REPORT_COMPARE, html, &e);
 *         status = eval_status(&r, rc, &e);
 *     }
 *     eval_release(&r);      with the texts: for every way out behind opt_parse
 */
#ifndef KERF_EVAL_COMMAND_H
#define KERF_EVAL_COMMAND_H

#include "tools/options/candidate_arg.h"
#include "tools/options/text_options.h"
#include "tools/cmd.h"
#include "tools/progress.h"

#include "calib/eval/candidate.h"
#include "calib/eval/evaluate.h"
#include "calib/eval/profile.h"
#include "calib/eval/stored_reference.h"
#include "calib/report/report_parts.h"
#include "formats/gguf/imatrix_file.h"

struct text_options {
    struct opt_list texts;
    const char *ids, *jsonl, *activations;
    uint64_t ctx, chunks, stride;
    bool parse_special;
    bool ctx_given, activations_given; /* on the command line, be it the default */
    const char *kv_type;               /* as given; NULL: exact */
    struct kv_cache cache;             /* what it says: of the candidates, or of the only model */
    const char *weights;               /* of SCORED_TEXT_OPTIONS, as the next two */
    bool answers_only, by_position;
};
#define TEXT_OPTIONS_INIT                                                                                    \
    {                                                                                                        \
        .ctx = 512, .activations = "f32"                                                                     \
    }

#define KV_OPTION(kv_type)                                                                                   \
    OPT(TEXT, "kv-type", &(kv_type), "K[,V]",                                                                \
        "types in which the cache holds keys and values, as --cache-type-k and -v of "                       \
        "llama.cpp: " KV_CACHE_TYPES                                                                         \
        "; for the candidates, where there are some, and not for the reference",                             \
        .fallback = "exact")

/* Rows of the option table. */
#define TEXT_OPTIONS(t)                                                                                      \
    OPT_GROUP("Text:"),                                                                                      \
        OPT(LIST, "text", &(t).texts, "FILE", "UTF-8 text, gzip if it ends in .gz, - for standard input"),   \
        IDS_OPTION((t).ids), JSONL_OPTION((t).jsonl),                                                        \
        OPT(UINT, "ctx", &(t).ctx, "N", "tokens per window", .range = OPT_RANGE(.min = 2, .max = 1 << 24),   \
            .given = &(t).ctx_given),                                                                        \
        OPT(UINT, "chunks", &(t).chunks, "N", "use at most this many windows",                               \
            .fallback = (t).chunks ? NULL : "all", .range = OPT_RANGE(.min = 1)),                            \
        PARSE_SPECIAL_OPTION((t).parse_special),                                                             \
        ACTIVATIONS_OPTION((t).activations, .given = &(t).activations_given)

#define STRIDE_OPTION(t)                                                                                     \
    OPT(UINT, "stride", &(t).stride, "N",                                                                    \
        "let windows overlap: one begins every N tokens, and its last N tokens are scored",                  \
        .fallback = "no overlap, and the second half of each window is scored",                              \
        .range = OPT_RANGE(.min = 1))

/* Rows behind them for commands that score. */
#define SCORED_TEXT_OPTIONS(t)                                                                               \
    STRIDE_OPTION(t),                                                                                        \
        OPT(FLAG, "answers-only", &(t).answers_only, NULL,                                                   \
            "of chats (--jsonl) score only what the assistant wrote"),                                       \
        OPT(TEXT, "weights", &(t).weights, "W1,W2,...",                                                      \
            "a weight for each --text: also report the weighted mean of their figures"),                     \
        OPT(FLAG, "by-position", &(t).by_position, NULL,                                                     \
            "also report figures by position in the window, from the first token on")

/* Rows of the option table: scores that are kept. */
struct resume_options {
    bool resume;
    const char *folder;
};
#define RESUME_OPTIONS_INIT                                                                                  \
    {                                                                                                        \
        .folder = "kerf-scores"                                                                              \
    }
#define RESUME_OPTIONS(o)                                                                                    \
    OPT_GROUP("Going on:"),                                                                                  \
        OPT(FLAG, "resume", &(o).resume, NULL,                                                               \
            "keep what is measured, and take what an earlier run with --resume has kept: a run that was "    \
            "stopped goes on, and one more candidate costs no more than itself"),                            \
        OPT(TEXT, "state", &(o).folder, "FOLDER", "where --resume keeps it; serves any models and texts")

/* Behind the description of a command whose MODEL runs. */
#define ADAPTERS_HELP " MODEL+ADAPTER[=SCALE] is a model with LoRA adapters (PEFT folders, adapter files)."

#define HTML_OPTION(html) OPT(TEXT, "html", &(html), "FILE", "write the report as a page, too")

/* Where the loss comes from. */
struct profile_settings {
    bool wanted;
    uint64_t n_windows; /* 0: as many as are paid for */
};
#define PROFILE_OPTIONS(p)                                                                                   \
    OPT_GROUP("Where the loss comes from:"),                                                                 \
        OPT(FLAG, "profile", &(p).wanted, NULL,                                                              \
            "errors of products and of the states behind each layer, and the loss that is left with one "    \
            "layer or one kind of tensor as the reference has it; on some windows, at about one and a half " \
            "times the cost of the comparison"),                                                             \
        OPT(UINT, "profile-windows", &(p).n_windows, "N",                                                    \
            "windows (or texts) of the profile, evenly spread",                                              \
            .fallback = "what that cost pays for, at least one", .range = OPT_RANGE(.min = 1))

/* What --activations says. */
enum activations eval_activations(const struct text_options *t);

struct eval_run {
    struct session session;
    struct shared_options *shared;
    struct text_options *text;
    struct candidate *models; /* [0] is the reference, unless it is stored; owned */
    size_t n_models, cap;
    struct imatrix *imatrix; /* owned */
    const char *imatrix_path, *recipe;
    const struct resume_options *resume; /* or NULL: the command has none */
    const char *reference_path;          /* a stored reference takes the place of models[0]; or NULL */
    const char *save_reference;          /* where to store the reference, or NULL */
    struct stored_reference *stored;
    struct reference_writer *writer;
    uint64_t n_reference_bytes; /* written */
    bool no_fallback;           /* refuse mixes whose types some tensors do not take */
    bool take_texts; /* the command can measure models that answer once for a text: set before eval_open_text
                      */
    struct corpus corpus;
    struct windows windows;   /* of running text; of a stored reference, borrowed from it */
    struct passages passages; /* or single texts, as the reference's answer wants it */
    struct evaluation evaluation;
    struct text_evaluation text_evaluation;
    struct report report;
    struct report_parts parts;
    const struct profile_settings *profile; /* or NULL: the command has none */
    struct profile *profiles;               /* [candidates] owned; NULL: none was asked for */
    struct progress_bar bar;
    double start;
    void (*members)(void *ctx, struct json_writer *w); /* of the command's own in the JSON object; or NULL */
    void *members_ctx;
};

#define NO_FALLBACK_OPTION(v)                                                                                \
    OPT(FLAG, "no-fallback", &(v), NULL,                                                                     \
        "refuse a mix with a tensor whose shape does not take the type it gives it")

/* 0, or the status of a usage error. `optional`: there need not be a text. */
int eval_check_options(const struct opt_command *cmd, struct text_options *t, bool optional);

/* The value of --kv-type (NULL: none). 0, or the status of a usage error. */
int eval_parse_cache(const struct opt_command *cmd, struct kv_cache *out, const char *text);

/* ERR_ARG when `path` (may be NULL) is one of the models, texts or other files that the run reads. After the
 * models are open. */
int eval_check_inputs(const struct eval_run *r, const char *path, struct err *e);

/* Start the session and open the reference, room for `n_candidates` more. */
int eval_open(struct eval_run *r, const char *reference, size_t n_candidates, struct err *e);
int eval_add_file(struct eval_run *r, const char *path, struct err *e);
int eval_add_mix(struct eval_run *r, const struct mix *mix, bool requantize, struct err *e);
/* Candidates that are models of their own: an error where one has another number of tokens than the
 * reference, a warning where some of its tokens are other texts. */
int eval_check_tokens(struct eval_run *r, struct err *e);
int eval_add_candidate(struct eval_run *r, const struct candidate_arg *a, bool requantize, struct err *e);

/* Read and cut the text with the reference's tokenizer: into windows; or into single texts (lines, records of
 * JSON lines) when the command takes those and the reference answers once for a text. */
int eval_open_text(struct eval_run *r, struct err *e);

/* Run everything and take the figures into r->report; with --dry-run nothing is run, and the report says what
 * would be. */
int eval_run_models(struct eval_run *r, enum report_kind kind, struct err *e);

/* general.name as a NUL-terminated text. */
void eval_title(const struct candidate *c, char out[200]);

/* candidate_set_cache; a type that decides nothing is warned of. */
int eval_set_cache(struct eval_run *r, struct candidate *c, const struct kv_cache *cache, bool named,
                   struct err *e);

/* Fill the hash of a model that is a file of its own, with progress: all of it is read once more. */
int eval_hash_model(struct eval_run *r, struct candidate *c, struct err *e);

/* The report to stdout (text or JSON), and to `html` if it is not NULL (not with --dry-run). */
int eval_print(struct eval_run *r, const char *html, struct err *e);

/* What follows once the models are open: `html` is none of the inputs, open the text, run, print. */
int eval_measure(struct eval_run *r, enum report_kind kind, const char *html, struct err *e);

/* The exit status of a run that ended with `rc`, the message of `e` with it. A run that was stopped has
 * printed figures, but not those that were asked for: it failed. */
int eval_status(const struct eval_run *r, int rc, const struct err *e);

/* All that the run holds, and the lists of its text options. A run that was never opened is allowed. */
void eval_release(struct eval_run *r);

#endif
