/* cmd_imatrix_show.c - kerf imatrix show: the statistics of an importance matrix, and what it covers. */
#include "imatrix_command.h"
#include "tools/plain_output.h"

#include "calib/stats/imatrix_stats.h"
#include "formats/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* The last column: a dash where there is no layer below to compare with. */
static void print_cosine(int width, double v)
{
    if (isnan(v))
        printf(" %*s", width, "-");
    else
        printf(" %*.4f", width, v);
}

/* The figures that tell tensors apart in one line of 80 columns, the others below it. */
static void print_tensor(const struct imatrix_tensor_stats *t)
{
    char line[PLAIN_LINE];
    printf("%-33s %12.4f %8.2f %7.2f%% %6.2f%%", plain_line(line, t->name), t->sum, t->active,
           t->entropy_norm, t->z_density);
    print_cosine(7, t->cos_sim);
    printf("\n    min %.4g, max %.4g, mean %.4g, std %.4g, entropy %.4f\n", t->min, t->max, t->mean,
           t->std_dev, t->entropy);
    printf("    %" PRIu64 " values from %.0f tokens", t->n_values, t->tokens_mean);
    if (t->n_experts > 1)
        printf("; experts %" PRIu64 ", without data %" PRIu64 ", tokens %.0f to %.0f", t->n_experts,
               t->n_starved, t->tokens_min, t->tokens_max);
    putchar('\n');
}

static void print_table(const struct imatrix *m, const struct imatrix_stats *s, const char *path)
{
    char chunks[80], line[PLAIN_LINE];
    printf("%s: %zu entries, %s\n", path, imatrix_n(m), imatrix_chunks_text(chunks, m));
    for (size_t i = 0; i < imatrix_n_datasets(m); i++)
        printf("  data: %s\n", plain_line(line, imatrix_dataset(m, i)));
    if (imatrix_expert_prior(m))
        printf("  every expert has %u tokens of its layer's mean\n", imatrix_expert_prior(m));
    if (imatrix_all_experts(m))
        printf("  every expert was shown every token%s\n",
               imatrix_by_router(m) ? ", which counts by the router's weight" : "");
    printf("\n%-33s %12s %8s %8s %7s %7s\n", "tensor", "sum(x^2)", "active%", "entropy%", "ZD%", "cos");
    for (size_t i = 0; i < s->n_tensors; i++)
        print_tensor(&s->tensors[i]);
    printf("\n%-8s %14s %10s %10s\n", "layer", "sum(x^2)", "ZD%", "cos");
    for (size_t i = 0; i < s->n_layers; i++) {
        printf("%-8" PRId64 " %14.4f %9.2f%%", s->layers[i].layer, s->layers[i].sum, s->layers[i].z_density);
        print_cosine(10, s->layers[i].cos_sim);
        putchar('\n');
    }
    fputs("\nx^2: mean square of a column of inputs; active: columns above 1e-5; entropy:\n"
          "100 when all columns matter alike; ZD: columns one standard deviation above the\n"
          "mean; cos: likeness to the same tensor one layer below (1: the same pattern)\n",
          stdout);
    printf("\ncoverage: %zu of %zu tensors have data", s->n_tensors - s->n_without_data, s->n_tensors);
    if (s->n_starved_experts)
        printf("; %zu experts saw no token", s->n_starved_experts);
    putchar('\n');
}

static void number(struct json_writer *w, const char *key, double v)
{
    jw_key(w, key);
    jw_double(w, v);
}

static void put_entry(struct json_writer *w, const struct imatrix_tensor_stats *t)
{
    jw_object(w);
    jw_key(w, "name");
    jw_string(w, t->name);
    jw_key(w, "layer");
    t->layer < 0 ? jw_null(w) : jw_int(w, t->layer);
    jw_key(w, "n_values");
    jw_uint(w, t->n_values);
    jw_key(w, "n_experts");
    jw_uint(w, t->n_experts);
    jw_key(w, "starved_experts");
    jw_uint(w, t->n_experts > 1 ? t->n_starved : 0);
    number(w, "tokens_min", t->tokens_min);
    number(w, "tokens_mean", t->tokens_mean);
    number(w, "tokens_max", t->tokens_max);
    number(w, "sum", t->sum);
    number(w, "min", t->min);
    number(w, "max", t->max);
    number(w, "mean", t->mean);
    number(w, "std", t->std_dev);
    number(w, "active_percent", t->active);
    number(w, "entropy", t->entropy);
    number(w, "entropy_percent", t->entropy_norm);
    number(w, "z_density_percent", t->z_density);
    number(w, "cos_sim", t->cos_sim);
    jw_end(w);
}

static void print_json(const struct imatrix *m, const struct imatrix_stats *s, const char *path)
{
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "path");
    jw_string(&w, path);
    imatrix_put_keys(&w, m);
    jw_key(&w, "expert_prior");
    jw_uint(&w, imatrix_expert_prior(m));
    jw_key(&w, "all_experts");
    jw_bool(&w, imatrix_all_experts(m));
    jw_key(&w, "by_router");
    jw_bool(&w, imatrix_by_router(m));
    jw_key(&w, "n_without_data");
    jw_uint(&w, s->n_without_data);
    jw_key(&w, "n_starved_experts");
    jw_uint(&w, s->n_starved_experts);
    jw_key(&w, "entries");
    jw_array(&w);
    for (size_t i = 0; i < s->n_tensors; i++)
        put_entry(&w, &s->tensors[i]);
    jw_end(&w);
    jw_key(&w, "layers");
    jw_array(&w);
    for (size_t i = 0; i < s->n_layers; i++) {
        jw_object(&w);
        jw_key(&w, "layer");
        jw_int(&w, s->layers[i].layer);
        number(&w, "sum", s->layers[i].sum);
        number(&w, "z_density_percent", s->layers[i].z_density);
        number(&w, "cos_sim", s->layers[i].cos_sim);
        jw_end(&w);
    }
    jw_end(&w);
    cmd_json_end(&w);
}

int cmd_imatrix_show(int argc, char **argv)
{
    struct shared_options shared = SHARED_OPTIONS_INIT;
    const struct opt_command cmd = {
        .name = "imatrix show",
        .operands = "FILE",
        .description =
            "Statistics of an importance matrix, those of llama-imatrix --show-statistics: for every tensor "
            "the mean squares of its input columns (their sum, the part that is active, how even they are, "
            "how many stand out, and how much they resemble those of the layer below), for every layer "
            "averages, and how many tokens each tensor and expert has seen.",
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_NOTHING,
        .examples = "kerf imatrix show q3.imatrix.gguf",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &shared, &args);
    if (status != OPT_CONTINUE)
        return status;
    struct err e = {0};
    struct imatrix *m = NULL;
    struct imatrix_stats s = {0};
    int rc = imatrix_load(&m, args.items[0], &e);
    if (rc == 0)
        rc = imatrix_stats_compute(&s, m, &e);
    if (rc == 0)
        shared.json ? print_json(m, &s, args.items[0]) : print_table(m, &s, args.items[0]);
    imatrix_stats_release(&s);
    imatrix_free(m);
    return rc ? cmd_fail(&e) : CMD_DONE;
}
