/* cmd_diff.c - kerf diff: tensors and metadata that differ between two models. */
#include "tools/cmd.h"
#include "tools/plain_output.h"
#include "meta_text.h"
#include "tools/progress.h"

#include "formats/inspect/model_diff.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void shape_json(struct json_writer *w, const struct model_tensor *t)
{
    if (!t) {
        jw_null(w);
        return;
    }
    jw_array(w);
    for (uint32_t d = t->n_dims; d > 0; d--)
        jw_uint(w, t->ne[d - 1]);
    jw_end(w);
}

static void print_json(const struct model_diff *d, bool same)
{
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "same"), jw_bool(&w, same);
    jw_key(&w, "n_tensors"), jw_uint(&w, d->n_tensors);
    jw_key(&w, "n_same"), jw_uint(&w, d->n_same);
    jw_key(&w, "metadata"), jw_array(&w);
    for (size_t i = 0; i < d->n_keys; i++) {
        jw_object(&w);
        jw_key(&w, "key"), jw_string(&w, d->keys[i].key);
        jw_key(&w, "a");
        d->keys[i].a ? meta_value_json(&w, d->keys[i].a, 64) : jw_null(&w);
        jw_key(&w, "b");
        d->keys[i].b ? meta_value_json(&w, d->keys[i].b, 64) : jw_null(&w);
        jw_end(&w);
    }
    jw_end(&w);
    jw_key(&w, "tensors"), jw_array(&w);
    for (size_t i = 0; i < d->n_tensors; i++) {
        const struct diff_tensor *t = &d->tensors[i];
        jw_object(&w);
        jw_key(&w, "name"), jw_string(&w, t->name);
        jw_key(&w, "status"), jw_string(&w, diff_status_name(t->status));
        jw_key(&w, "type_a"), jw_string(&w, t->a ? qtype_name(t->a->type) : NULL);
        jw_key(&w, "type_b"), jw_string(&w, t->b ? qtype_name(t->b->type) : NULL);
        jw_key(&w, "shape_a"), shape_json(&w, t->a);
        jw_key(&w, "shape_b"), shape_json(&w, t->b);
        jw_key(&w, "rmse"), jw_double(&w, t->rmse);
        jw_key(&w, "relative_rmse"), jw_double(&w, t->rms_a > 0 ? t->rmse / t->rms_a : NAN);
        jw_key(&w, "max_abs"), jw_double(&w, t->max_abs);
        jw_end(&w);
    }
    jw_end(&w);
    cmd_json_end(&w);
}

static void print_tensor(const struct diff_tensor *t)
{
    char line[PLAIN_LINE];
    const char *name = plain_line(line, t->name);
    if (t->status == DIFF_ONLY_A || t->status == DIFF_ONLY_B) {
        printf("%-40s only in %s\n", name, t->status == DIFF_ONLY_A ? "A" : "B");
        return;
    }
    printf("%-40s %-7s %s -> %s", name, diff_status_name(t->status), qtype_name(t->a->type),
           qtype_name(t->b->type));
    if (!isnan(t->rmse))
        printf("\n    rmse %.4g (%.3g%% of rms), largest %.4g", t->rmse,
               t->rms_a > 0 ? 100 * t->rmse / t->rms_a : 0, t->max_abs);
    putchar('\n');
}

static void print_text(const struct model_diff *d, bool all)
{
    char a[300], b[300], key[PLAIN_LINE];
    for (size_t i = 0; i < d->n_keys; i++) {
        const char *from = d->keys[i].a ? meta_value_text(d->keys[i].a, a, sizeof a) : "(none)";
        const char *to = d->keys[i].b ? meta_value_text(d->keys[i].b, b, sizeof b) : "(none)";
        const bool fits = strlen(from) + strlen(to) <= 35 && strlen(d->keys[i].key) <= 40;
        printf(fits ? "%-40s %s -> %s\n" : "%s\n    %.73s\n    -> %.73s\n", plain_line(key, d->keys[i].key),
               from, to);
    }
    for (size_t i = 0; i < d->n_tensors; i++)
        if (all || d->tensors[i].status != DIFF_SAME)
            print_tensor(&d->tensors[i]);
    printf("%zu of %zu tensors are the same, %zu metadata key%s differ%s\n", d->n_same, d->n_tensors,
           d->n_keys, format_plural(d->n_keys), d->n_keys == 1 ? "s" : "");
}

int cmd_diff(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    bool gate = false;
    const struct opt options[] = {
        OPT(FLAG, "exit-code", &gate, NULL, "exit with 3 when the models differ"),
    };
    const struct opt_command cmd = {
        .name = "diff",
        .operands = "A B",
        .description = "Show which metadata and tensors differ between two models, and how far their values "
                       "are apart. A model is a GGUF file or a checkpoint folder; tensors are paired by "
                       "their GGUF names. --verbose lists equal tensors, too.",
        OPT_TABLE(options),
        .min_operands = 2,
        .max_operands = 2,
        .uses = USES_THREADS | USES_ISA,
        .examples = "kerf diff model-bf16.gguf model-q8_0.gguf\n"
                    "kerf diff --exit-code old.gguf new.gguf",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    struct err e = {0};
    struct session session = {0};
    struct model *a = NULL, *b = NULL;
    struct model_diff d = {0};
    struct progress_bar bar;
    bool same = false;
    int rc = session_open(&session, &s, &e);
    struct model_options mo = {.kern = session.kern};
    if (rc == 0)
        rc = model_open(&a, args.items[0], &mo, &e);
    if (rc == 0)
        rc = model_open(&b, args.items[1], &mo, &e);
    if (rc == 0) {
        const struct progress progress = progress_on(&bar);
        progress_begin(&bar, &s, "comparing", "B", 0);
        rc = model_diff(&d, a, b, session.pool, &progress, &e);
        progress_end(&bar);
    }
    if (rc == 0) {
        same = d.n_keys == 0 && d.n_same == d.n_tensors;
        if (s.json)
            print_json(&d, same);
        else
            print_text(&d, s.verbose);
    }
    model_diff_release(&d);
    model_close(a);
    model_close(b);
    session_close(&session);
    if (rc)
        return cmd_fail(&e);
    return gate && !same ? CMD_GATE : CMD_DONE;
}
