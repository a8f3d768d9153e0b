/* cmd_tokenize.c - kerf tokenize: text to token ids, as the model's tokenizer gives them. */
#include "tools/cmd.h"
#include "meta_text.h"

#include "calib/corpus.h"
#include "formats/model/model.h"
#include "formats/json.h"
#include "formats/text.h"
#include "formats/text_sniff.h"
#include "formats/tokenizer/codepoint.h"
#include "formats/tokenizer/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    bool pieces, no_special, no_bos;
};

/* A piece with what a terminal would swallow written out. */
static void print_piece(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[5];
        fwrite(text, 1, meta_escape(text, (unsigned char)s[i]), stdout);
    }
}

static void print_json(const struct tokenizer *t, const int32_t *ids, size_t n, bool pieces)
{
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "ids");
    jw_array(&w);
    for (size_t i = 0; i < n; i++)
        jw_int(&w, ids[i]);
    jw_end(&w);
    if (pieces) {
        jw_key(&w, "pieces");
        jw_array(&w);
        for (size_t i = 0; i < n; i++) {
            size_t len = 0;
            const char *s = tokenizer_piece(t, ids[i], &len);
            jw_string_n(&w, s, len);
        }
        jw_end(&w);
    }
    cmd_json_end(&w);
}

static void print_text(const struct tokenizer *t, const int32_t *ids, size_t n, bool pieces)
{
    for (size_t i = 0; i < n; i++) {
        if (!pieces) {
            printf("%s%d", i ? " " : "", ids[i]);
            continue;
        }
        size_t len = 0;
        const char *s = tokenizer_piece(t, ids[i], &len);
        printf("%7d  '", ids[i]);
        print_piece(s, len);
        fputs("'\n", stdout);
    }
    if (!pieces)
        putchar('\n');
}

/* A text in the place of its file is the common slip. */
static int read_text(char **text, size_t *len, const char *path, struct err *e)
{
    int rc = strcmp(path, "-") != 0 && access(path, F_OK) != 0 && errno == ENOENT
                 ? err_set(e, ERR_IO,
                           "%s: no such file or folder; TEXT is a file, and a text itself comes through "
                           "standard input: "
                           "printf '%%s' 'Hello world' | kerf tokenize MODEL",
                           path)
                 : text_read(text, len, path, 0, e);
    return rc == 0 ? text_refuse(path, *text, *len, e) : rc;
}

static int run(const char *model_path, const char *text_path, const struct options *o,
               const struct shared_options *shared, struct err *e)
{
    struct model_options opt = {.allow_missing_weights = true};
    struct tokenize_options how = {.add_special = !o->no_bos, .parse_special = !o->no_special};
    const struct vocabulary *v = NULL;
    struct model *m = NULL;
    struct tokenizer *t = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    size_t len = 0, n = 0;
    int rc = model_open(&m, model_path, &opt, e);
    if (rc == 0)
        rc = cmd_vocabulary(shared, m, &v, e);
    if (rc == 0)
        rc = tokenizer_new(&t, v, e);
    if (rc == 0)
        rc = read_text(&text, &len, text_path, e);
    if (rc == 0)
        rc = tokenizer_encode(t, text, len, &how, &ids, &n, e);
    if (rc == 0) {
        size_t first = 0, n_ill = utf8_n_ill_formed(text, len, &first);
        char doubt[TEXT_SNIFF_BYTES] = "";
        text_sniff(doubt, text, len);
        cmd_warn_text(shared, text_path, doubt, n_ill, first);
        struct corpus_form form = {0}; /* which tokens are control tokens was asked with --no-special */
        rc = corpus_look_at_form(&form, t, text, len, true, e);
        cmd_warn_form(shared, text_path, &form);
    }
    if (rc == 0 && shared->json)
        print_json(t, ids, n, o->pieces);
    else if (rc == 0)
        print_text(t, ids, n, o->pieces);
    free(ids);
    free(text);
    tokenizer_free(t);
    model_close(m);
    return rc;
}

int cmd_tokenize(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    struct options o = {0};
    const struct opt options[] = {
        OPT(FLAG, "pieces", &o.pieces, NULL, "show the text of each token"),
        OPT(FLAG, "no-special", &o.no_special, NULL, "the text of control tokens (<|...|>) is text"),
        OPT(FLAG, "no-bos", &o.no_bos, NULL,
            "do not add the begin and end tokens that the vocabulary asks for"),
    };
    const struct opt_command cmd = {
        .name = "tokenize",
        .operands = "MODEL [TEXT]",
        .description = "Token ids of a text, as the model's tokenizer gives them. MODEL may lack its "
                       "weights; TEXT is a file, gzip if it ends in .gz, standard input by default.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 2,
        .uses = USES_NOTHING,
        .examples = "echo 'Hello world' | kerf tokenize Qwen3-0.6B --pieces",
    };
    struct opt_operands args;
    struct err e = {0};
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    int rc = run(args.items[0], args.n > 1 ? args.items[1] : "-", &o, &shared, &e);
    return rc ? cmd_fail(&e) : CMD_DONE;
}
