/* allocate_print.c - what kerf allocate says: JSON, text, dry runs, the page. */
#include "allocate_job.h"
#include "tools/outcome.h"

#include "calib/report/allocate_page.h"
#include "calib/report/page.h"
#include "formats/json.h"
#include "formats/output/text_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void uint_or_null(struct json_writer *w, uint64_t v, bool known)
{
    if (known)
        jw_uint(w, v);
    else
        jw_null(w);
}

static void put_real(struct json_writer *w, const char *key, double v)
{
    jw_key(w, key);
    jw_double(w, v);
}

/* Plan and mix on other text; null without. */
static void put_confirmation(struct json_writer *w, const struct allocate_job *j)
{
    const struct confirmation *c = &j->confirmation;
    const bool known = c->mix != NULL;
    const struct {
        const char *key;
        double value;
    } figures[] = {{"mix_bits_per_weight", c->mix_bits},      {"plan_kld", c->plan_kld.value},
                   {"plan_kld_stderr", c->plan_kld.error},    {"mix_kld", c->mix_kld.value},
                   {"mix_kld_stderr", c->mix_kld.error},      {"difference", c->difference.value},
                   {"difference_stderr", c->difference.error}};
    jw_key(w, "confirmation");
    jw_object(w);
    jw_key(w, "mix");
    jw_string(w, known ? c->mix->name : NULL);
    jw_key(w, "mix_bytes");
    uint_or_null(w, c->mix_bytes, known);
    jw_key(w, "n_tokens_scored");
    uint_or_null(w, c->n_tokens, known);
    jw_key(w, "held_out");
    if (known)
        jw_bool(w, c->held_out);
    else
        jw_null(w);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        put_real(w, figures[i].key, known ? figures[i].value : NAN);
    jw_key(w, "kept");
    jw_string(w, !known ? NULL : j->took_mix ? "mix" : "plan");
    jw_end(w);
}

static void put_method(struct json_writer *w, const struct allocate_job *j)
{
    jw_key(w, "probe");
    jw_string(w, j->table.probe == LOSS_PROBE_FAST ? "fast" : "full");
    put_real(w, "passes", j->planned ? NAN : j->passes);
    jw_key(w, "n_tokens");
    jw_uint(w, (uint64_t)j->table.n_windows * j->table.ctx);
    put_real(w, "seconds", clock_seconds() - j->r->start);
    put_confirmation(w, j);
}

void allocate_put_tensors(struct json_writer *w, const struct loss_table *table, const struct allocation *r)
{
    jw_key(w, "tensors");
    jw_array(w);
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct loss_tensor *t = &table->tensors[i];
        const struct loss_option *o = r ? &t->options[r->choice[i]] : NULL;
        jw_object(w);
        jw_key(w, "name");
        jw_string(w, t->tensor->name);
        jw_key(w, "type");
        jw_string(w, o ? qtype_name(o->type) : NULL);
        jw_key(w, "n_bytes");
        uint_or_null(w, o ? o->n_bytes : 0, r != NULL);
        jw_key(w, "loss");
        jw_double(w, o ? o->loss : NAN);
        jw_end(w);
    }
    jw_end(w);
}

void allocate_print_json(const struct allocate_job *j)
{
    struct json_writer w;
    const struct allocation *r = &j->allocation;
    const bool known = !j->planned;
    cmd_json_begin(&w);
    jw_key(&w, "plan");
    jw_string(&w, j->shared->dry_run ? NULL : j->o->output);
    jw_key(&w, "n_bytes");
    uint_or_null(&w, r->n_bytes, known);
    jw_key(&w, "bits_per_weight");
    jw_double(&w, known ? r->bits_per_weight : NAN);
    jw_key(&w, "budget_bytes");
    jw_uint(&w, r->budget_bytes);
    jw_key(&w, "expected_loss");
    jw_double(&w, known ? r->loss : NAN);
    jw_key(&w, "optimality_gap");
    jw_double(&w, known ? r->loss - r->lower_bound : NAN);
    put_method(&w, j);
    allocate_put_tensors(&w, &j->table, known ? r : NULL);
    cmd_json_end(&w);
}

void allocate_print_dry(const struct allocate_job *j)
{
    const struct allocate_asked *o = j->o;
    const struct windows *w = &j->r->windows;
    size_t n_measured = 0;
    for (size_t i = 0; i < j->table.n_tensors; i++)
        n_measured += j->n_probes ? j->n_probes : j->table.tensors[i].n_options;
    n_measured -= n_measured < j->kept.n_known ? n_measured : j->kept.n_known;
    if (j->kept.n_known)
        printf("%zu of %zu measurements are kept in %s; the run would continue from there\n", j->kept.n_known,
               j->kept.n, j->state);
    if (j->table.probe == LOSS_PROBE_FAST)
        printf(
            "would measure %zu tensors on %zu windows of %zu tokens: the work of at most %g forward passes\n",
            j->table.n_tensors, w->n, w->ctx, LOSS_MAX_PASSES);
    else
        printf(
            "would measure %zu tensors, about %zu types of them, on %zu windows of %zu tokens: the work of "
            "some %zu forward passes\n",
            j->table.n_tensors, n_measured, w->n, w->ctx, n_measured / 2);
    if (j->held_out.n && !o->no_confirm)
        printf("would measure the plan beside the standard mix of its size on %zu windows more\n",
               j->held_out.n);
    printf("would choose types for a file of at most %" PRIu64 " bytes; those allowed give %" PRIu64
           " to %" PRIu64 "\n",
           j->allocation.budget_bytes, allocator_min_bytes(j->allocator), allocator_max_bytes(j->allocator));
    const char *const files[] = {o->output, o->table, o->html};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i])
            printf("would write %s\n", files[i]);
}

static void print_confirmation(const struct allocate_job *j)
{
    const struct confirmation *c = &j->confirmation;
    if (!c->mix)
        return;
    printf("on %zu tokens%s: KLD %.4g ± %.1g of the plan, %.4g ± %.1g of %s (%" PRIu64 " bytes)", c->n_tokens,
           c->held_out ? " that were not used before" : "", c->plan_kld.value, c->plan_kld.error,
           c->mix_kld.value, c->mix_kld.error, c->mix->name, c->mix_bytes);
    if (c->mix_kld.value > 0)
        printf(", ratio %.3f", c->plan_kld.value / c->mix_kld.value);
    puts(j->took_mix ? "; the types are those of the mix" : "");
}

void allocate_print_types(const struct loss_table *table, const struct allocation *r)
{
    uint64_t n[QTYPE_COUNT] = {0}, bytes[QTYPE_COUNT] = {0};
    char size[32];
    for (size_t i = 0; i < table->n_tensors; i++) {
        const struct loss_option *o = &table->tensors[i].options[r->choice[i]];
        n[o->type]++;
        bytes[o->type] += o->n_bytes;
    }
    for (uint32_t t = 0; t < QTYPE_COUNT; t++)
        if (n[t])
            printf("  %-8s %4" PRIu64 " tensor%s  %s\n", qtype_name(t), n[t], n[t] == 1 ? " " : "s",
                   format_bytes(size, (double)bytes[t]));
}

/* The command that the plan is for, with the inputs that it was measured with. */
static void print_next(const struct allocate_job *j)
{
    const struct allocate_asked *o = j->o;
    if (model_n_adapters(j->r->models[0].model)) /* quantize takes no MODEL+ADAPTER */
        return;
    printf("to use it: kerf quantize %s --plan %s", model_path(j->r->models[0].model), o->output);
    if (o->hessian) /* checked on a text that they have not seen */
        printf(" --method feedback --hessian %s --text OTHER.txt", o->hessian);
    if (o->imatrix && o->imatrix != o->hessian)
        printf(" --imatrix %s", o->imatrix);
    puts(" -o OUT.gguf");
}

void allocate_print_text(const struct allocate_job *j)
{
    const struct allocation *r = &j->allocation;
    printf("%s: a file of %" PRIu64 " bytes (at most %" PRIu64
           "), %.3f bits per weight, expected loss %.3g nats per token\n",
           j->o->output && !j->shared->dry_run ? j->o->output : "(not written)", r->n_bytes, r->budget_bytes,
           r->bits_per_weight, r->loss);
    allocate_print_types(&j->table, r);
    print_confirmation(j);
    if (j->passes > 0)
        printf("measured in %.1f forward passes over %zu tokens\n", j->passes,
               j->table.n_windows * j->table.ctx);
    if (j->o->output && !j->shared->dry_run)
        print_next(j);
}

int allocate_write_page(const struct allocate_job *j, struct err *e)
{
    struct text_file f;
    int rc = text_file_begin(&f, j->o->html, e);
    if (rc != 0)
        return rc;
    char *command = outcome_command(), run[64];
    snprintf(run, sizeof run, "%.1f passes over the text", j->passes);
    const struct allocate_source source = {j->r->models[0].path, &j->r->corpus};
    const struct page_about about = {KERF_VERSION, command, j->passes > 0 ? run : NULL};
    rc = command ? allocate_page(j->allocator, &j->allocation, &j->confirmation, &source, &about, f.out, e)
                 : err_set(e, ERR_NOMEM, "%s: out of memory for the page", j->o->html);
    free(command);
    return text_file_end(&f, rc, j->shared->force, e);
}
