/* cmd_edit.c - kerf edit: set or remove metadata of a GGUF file, leave layers or experts out; the tensors
 * that stay are copied as they are. */
#include "tools/options/gguf_operand.h"
#include "copy_command.h"
#include "tools/inspect/meta_text.h"
#include "tools/options/opt.h"

#include "formats/inspect/model_verify.h"
#include "formats/gguf/gguf_meta_text.h"
#include "formats/rewrite/prune.h"
#include "formats/text.h"

#include <stdio.h>
#include <stdlib.h>

struct edits {
    struct opt_list set, remove;
    const char *chat_template, *drop_layers, *drop_experts;
};

static int set_template(struct gguf_meta *meta, const char *path, struct err *e)
{
    char *text = NULL;
    size_t len;
    int rc = text_read(&text, &len, path, 16 << 20, e);
    struct gguf_value v = {.type = GGUF_STRING};
    if (rc == 0) {
        v.s = (struct gguf_string){text, len};
        rc = gguf_meta_set(meta, "tokenizer.chat_template", &v, e);
        if (rc)
            rc = err_context(e, rc == ERR_ARG ? ERR_FORMAT : rc, "%s", path); /* the file's fault */
    }
    free(text);
    return rc;
}

static int collect(struct gguf_meta *meta, const struct gguf_meta *old, const struct edits *ed, struct err *e)
{
    for (size_t i = 0; i < ed->set.n; i++) {
        int rc = gguf_meta_set_text(meta, old, ed->set.items[i], e);
        if (rc)
            return err_context(e, rc, "--set");
    }
    return ed->chat_template ? set_template(meta, ed->chat_template, e) : 0;
}

/* Removing what no runtime can do without is a slip, unless it is insisted on. */
static int check_removals(const struct gguf_meta *meta, const struct edits *ed, bool force, struct err *e)
{
    struct gguf_string s = {"", 0};
    char arch[128];
    gguf_meta_get_string(meta, "general.architecture", &s);
    snprintf(arch, sizeof arch, "%.*s", (int)(s.len < 127 ? s.len : 127), s.data);
    for (size_t i = 0; i < ed->remove.n && !force; i++)
        if (gguf_meta_find(meta, ed->remove.items[i]) && model_needs_key(arch, ed->remove.items[i]))
            return err_set(
                e, ERR_UNSUPPORTED,
                "--remove: the model cannot be used without key '%s'; add --force to remove it all "
                "the same",
                ed->remove.items[i]);
    return 0;
}

/* *out stays NULL when nothing is left out. Numbers that change go into `meta`, for --set to overrule. */
static int select_kept(struct gguf_selection **out, const struct gguf_reader *in, struct gguf_meta *meta,
                       const struct edits *ed, struct err *e)
{
    struct prune p = {0};
    int rc = ed->drop_layers ? prune_layers(&p, ed->drop_layers, e) : 0;
    if (rc == 0 && ed->drop_experts)
        rc = prune_experts(&p, ed->drop_experts, e);
    if (rc == 0 && (p.n_layers || p.n_experts))
        rc = prune_select(out, &p, in, meta, e);
    prune_release(&p);
    return rc;
}

/* The key that was probably meant by one that the file does not have; NULL: none is near. */
static const char *nearest_key(const struct gguf_meta *old, const char *key)
{
    const size_t n = gguf_meta_n(old);
    const char **keys = calloc(n + 1, sizeof *keys);
    for (size_t i = 0; keys && i < n; i++)
        keys[i] = gguf_meta_key(old, i);
    const char *near = keys ? opt_nearest(key, keys, n) : NULL;
    free(keys);
    return near;
}

/* One line for each key that is set. */
static void tell_changes(const struct gguf_meta *set, const struct gguf_meta *old,
                         const struct shared_options *s)
{
    for (size_t i = 0; i < gguf_meta_n(set); i++) {
        const char *key = gguf_meta_key(set, i);
        const struct gguf_value *after = gguf_meta_value(set, i), *before = gguf_meta_find(old, key);
        const char *near = before || after->type == GGUF_ARRAY ? NULL : nearest_key(old, key);
        char was[200], is[200], type[40];
        meta_value_text(after, is, sizeof is);
        if (near)
            cmd_note(s, "'%s' is a new key; did you mean '%s'?", key, near);
        if (!s->json && before)
            printf("%s: %s -> %s\n", key, meta_value_text(before, was, sizeof was), is);
        else if (!s->json)
            printf("%s (new, %s) = %s\n", key, meta_type_text(after, type, sizeof type), is);
    }
}

static int run(const struct opt_command *cmd, const char *input, const char *output, const struct edits *ed,
               const struct shared_options *s)
{
    struct err e = {0};
    struct gguf_reader *in = NULL;
    struct gguf_meta *meta = NULL;
    struct gguf_selection *kept = NULL;
    int status = CMD_FAILED;
    const char *const read[] = {ed->chat_template, ed->drop_experts};
    int rc = cmd_claim_outputs(s, &output, 1, read, 2, &e);
    if (rc == 0)
        rc = gguf_operand_open(&in, input, &e);
    if (rc == 0)
        rc = check_removals(gguf_reader_meta(in), ed, s->force, &e);
    if (rc == 0)
        rc = gguf_meta_new(&meta, &e);
    if (rc == 0)
        rc = select_kept(&kept, in, meta, ed, &e);
    if (rc == 0)
        rc = collect(meta, gguf_reader_meta(in), ed, &e);
    if (rc == 0) {
        struct copy_gguf_options ro = {.set = meta,
                                       .remove = ed->remove.items,
                                       .n_remove = ed->remove.n,
                                       .select = kept,
                                       .in_place = true,
                                       .check = true};
        status = copy_and_report(in, output, &ro, s);
        if (status == CMD_DONE)
            tell_changes(meta, gguf_reader_meta(in), s);
    } else {
        status = rc == ERR_ARG && in ? cmd_usage(cmd, "%s", e.msg) : cmd_fail(&e);
    }
    prune_selection_free(kept);
    gguf_meta_free(meta);
    gguf_reader_close(in);
    return status;
}

int cmd_edit(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    const char *output = NULL;
    struct edits ed = {.chat_template = NULL};
    const struct opt options[] = {
        OPT(TEXT, "output", &output, "FILE", "the GGUF file to write; may be IN itself with --force",
            .letter = 'o'),
        OPT(LIST, "set", &ed.set, "KEY=VALUE",
            "set a key; it keeps its type, a new one gets it from the value; KEY:TYPE=VALUE states it. "
            "Elements "
            "of an array are separated by commas: general.tags=code,chat"),
        OPT(LIST, "remove", &ed.remove, "KEY",
            "remove a key; one that the model cannot be used without only with --force"),
        OPT(TEXT, "chat-template", &ed.chat_template, "FILE", "set tokenizer.chat_template from a file"),
        OPT(TEXT, "drop-layers", &ed.drop_layers, "LIST",
            "leave these layers out, such as 20-25, and renumber the others; an importance matrix "
            "likewise"),
        OPT(TEXT, "drop-experts", &ed.drop_experts, "FILE",
            "leave experts out: lines such as '12: 3,5,7-9', or '*: 0' for all layers, in the input's "
            "numbers"),
    };
    const struct opt_command cmd = {
        .name = "edit",
        .operands = "IN.gguf -o OUT.gguf",
        .description =
            "Change the metadata of a GGUF file, or leave layers or experts out of it. Types are u8 to u64, "
            "i8 to i64, f32, f64, bool, string, and arrays such as u32[] with elements separated by commas. "
            "What 'kerf verify' would find in the output and not in the input is a warning.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_FORCE | USES_DRY_RUN,
        .examples = "kerf edit in.gguf -o out.gguf --set general.name='My model' --remove general.url\n"
                    "kerf edit in.gguf -o out.gguf --chat-template template.jinja\n"
                    "kerf edit in.gguf -o out.gguf --drop-layers 20-25",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status == OPT_CONTINUE) {
        if (!output)
            status = cmd_usage(&cmd, "--output FILE is required");
        else if (!ed.set.n && !ed.remove.n && !ed.chat_template && !ed.drop_layers && !ed.drop_experts)
            status = cmd_usage(
                &cmd,
                "nothing to do: give --set, --remove, --chat-template, --drop-layers or --drop-experts");
        else
            status = run(&cmd, args.items[0], output, &ed, &s);
    }
    opt_list_release(&ed.set);
    opt_list_release(&ed.remove);
    return status;
}
