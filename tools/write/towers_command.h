/* towers_command.h - --with-mmproj of convert: the file of the towers beside that of the text model. */
#ifndef KERF_TOWERS_COMMAND_H
#define KERF_TOWERS_COMMAND_H

#include "tools/cmd.h"

#include "formats/json.h"
#include "formats/rewrite/rewrite.h"

struct towers_options {
    bool wanted;
    const char *type; /* type or mix; "auto": the precision of the source */
};

#define TOWERS_OPTIONS(o)                                                                                    \
    OPT(FLAG, "with-mmproj", &(o).wanted, NULL,                                                              \
        "write the towers as well, to mmproj-NAME beside the text model's file NAME"),                       \
        OPT(TEXT, "mmproj-type", &(o).type, "T",                                                             \
            "with --with-mmproj, type or mix of the towers; auto (the default) keeps the source's "          \
            "precision")

/* Caller-owned; a zeroed struct is empty. */
struct towers_run {
    struct model *model;
    struct rewrite_report report;
    char *output; /* "dir/mmproj-name.gguf" */
};

/* Open the towers of the checkpoint at `path` for the file beside `text_output`. Writes nothing. */
int towers_open(struct towers_run *r, const char *path, const char *text_output,
                const struct model_options *text, struct err *e);

/* Write them; `text`: options of the text model, of which types, plan and importance do not count. */
int towers_write(struct towers_run *r, const struct mix *mix, const struct rewrite_options *text,
                 struct err *e);

void towers_warn(const struct towers_run *r, const struct shared_options *s);
void towers_print(const struct towers_run *r, bool dry_run);
void towers_json(const struct towers_run *r, struct json_writer *w); /* the key "mmproj" */
void towers_release(struct towers_run *r);

#endif
