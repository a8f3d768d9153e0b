/* cmd_inspect.c - kerf inspect: metadata, tensors and sizes of a GGUF, safetensors file, checkpoint folder or
 * importance file. */
#include "tools/cmd.h"
#include "inspect_key.h"
#include "tools/plain_output.h"
#include "inspection.h"
#include "meta_text.h"
#include "tools/progress.h"

#include "formats/recipe/pattern.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void metadata_json(struct json_writer *w, const struct inspection *in, uint64_t max_elems)
{
    if (in->imatrix) {
        jw_object(w);
        jw_key(w, "datasets"), jw_array(w);
        for (size_t i = 0; i < imatrix_n_datasets(in->imatrix); i++)
            jw_string(w, imatrix_dataset(in->imatrix, i));
        jw_end(w);
        jw_key(w, "chunk_size"), jw_uint(w, imatrix_chunk_size(in->imatrix));
        jw_key(w, "chunk_count"), jw_uint(w, imatrix_chunk_count(in->imatrix));
        if (in->gguf)
            meta_json_members(w, gguf_reader_meta(in->gguf), max_elems);
        jw_end(w);
    } else if (in->gguf) {
        meta_json(w, gguf_reader_meta(in->gguf), max_elems);
    } else if (in->st) {
        jw_object(w);
        for (size_t i = 0; i < safetensors_n_metadata(in->st); i++) {
            const char *key, *value;
            safetensors_metadata(in->st, i, &key, &value);
            jw_key(w, key), jw_string(w, value);
        }
        jw_end(w);
    } else {
        meta_json_node(w, hf_config_root(in->config));
    }
}

static void stats_json(struct json_writer *w, const struct inspect_tensor *t)
{
    if (!t->has_stats) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key(w, "min"), jw_double(w, t->stats.min);
    jw_key(w, "max"), jw_double(w, t->stats.max);
    jw_key(w, "mean"), jw_double(w, t->stats.mean);
    jw_key(w, "std"), jw_double(w, t->stats.std);
    jw_key(w, "zeros"), jw_uint(w, t->stats.n_zero);
    jw_key(w, "nan"), jw_uint(w, t->stats.n_nan);
    jw_key(w, "inf"), jw_uint(w, t->stats.n_inf);
    jw_end(w);
}

static double bits_per_weight(const struct inspection *in)
{
    return in->n_parameters ? 8.0 * (double)in->tensor_bytes / (double)in->n_parameters : 0;
}

static void print_json(const struct inspection *in, bool stats, uint64_t max_elems)
{
    struct json_writer w;
    cmd_json_begin(&w);
    jw_key(&w, "format"), jw_string(&w, in->format);
    jw_key(&w, "architecture"), jw_string(&w, in->architecture);
    jw_key(&w, "file_type"), jw_string(&w, in->file_type);
    jw_key(&w, "planned"), jw_bool(&w, in->planned);
    jw_key(&w, "n_tensors"), jw_uint(&w, in->n_tensors);
    jw_key(&w, "n_parameters");
    in->imatrix ? jw_null(&w) : jw_uint(&w, in->n_parameters); /* statistics are no weights */
    jw_key(&w, "n_bytes");
    in->n_bytes ? jw_uint(&w, in->n_bytes) : jw_null(&w);
    jw_key(&w, "tensor_bytes"), jw_uint(&w, in->tensor_bytes);
    jw_key(&w, "bits_per_weight"), jw_double(&w, in->imatrix ? NAN : bits_per_weight(in));
    jw_key(&w, "metadata"), metadata_json(&w, in, max_elems);
    jw_key(&w, "tensors"), jw_array(&w);
    for (size_t i = 0; i < in->n_listed; i++) {
        const struct inspect_tensor *t = &in->tensors[i];
        jw_object(&w);
        jw_key(&w, "name"), jw_string(&w, t->name);
        jw_key(&w, "type"), jw_string(&w, t->type);
        jw_key(&w, "shape"), jw_array(&w);
        for (uint32_t d = 0; d < t->n_dims; d++)
            jw_uint(&w, t->shape[d]);
        jw_end(&w);
        jw_key(&w, "n_bytes"), jw_uint(&w, t->n_bytes);
        jw_key(&w, "offset");
        if (t->has_offset)
            jw_uint(&w, t->offset);
        else
            jw_null(&w);
        jw_key(&w, "file"), jw_string(&w, t->file);
        if (stats)
            jw_key(&w, "stats"), stats_json(&w, t);
        jw_end(&w);
    }
    jw_end(&w);
    cmd_json_end(&w);
}

#define LINE_WIDTH 80

/* A key in one line of 80 columns; a value that is long begins the next one, and is cut there. */
static void print_key(const char *key, const struct gguf_value *v)
{
    char type[64], value[400], line[PLAIN_LINE];
    const int used = printf("  %-39s %-9s", plain_line(line, key), meta_type_text(v, type, sizeof type));
    const size_t left = used < LINE_WIDTH ? (size_t)(LINE_WIDTH - used) : 0;
    const size_t most = LINE_WIDTH - 6, n = strlen(meta_value_text(v, value, sizeof value));
    const bool fits = n < left, cut = !fits && n > most;
    fputs(fits ? " " : "\n      ", stdout);
    printf("%.*s%s\n", cut ? (int)most - 3 : (int)n, value, cut ? "..." : "");
}

static void print_metadata(const struct inspection *in)
{
    char line[PLAIN_LINE], text_line[PLAIN_LINE];
    if (in->gguf) {
        const struct gguf_meta *m = gguf_reader_meta(in->gguf);
        for (size_t i = 0; i < gguf_meta_n(m); i++)
            print_key(gguf_meta_key(m, i), gguf_meta_value(m, i));
    } else if (in->imatrix) { /* the old form has no keys */
        for (size_t i = 0; i < imatrix_n_datasets(in->imatrix); i++)
            printf("  dataset     %s\n", plain_line(line, imatrix_dataset(in->imatrix, i)));
        printf("  chunk_size  %" PRIu32 "\n  chunk_count %" PRIu32 "\n", imatrix_chunk_size(in->imatrix),
               imatrix_chunk_count(in->imatrix));
    } else if (in->st) {
        for (size_t i = 0; i < safetensors_n_metadata(in->st); i++) {
            const char *key, *text;
            safetensors_metadata(in->st, i, &key, &text);
            printf("  %-30s %.200s\n", plain_line(line, key), plain_line(text_line, text));
        }
    } else {
        struct json_writer w;
        jw_begin(&w, stdout);
        meta_json_node(&w, hf_config_root(in->config));
    }
}

/* In 80 columns: what does not fit goes on in the next line. */
static void print_tensor(const struct inspect_tensor *t, bool stats)
{
    char size[32], shape[200] = "", line[PLAIN_LINE];
    size_t n = 0;
    for (uint32_t d = 0; d < t->n_dims; d++)
        n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%" PRIu64, d ? " x " : "", t->shape[d]);
    printf("  %-34s", plain_line(line, t->name));
    if (strlen(t->name) > 34)
        printf("\n%36s", "");
    printf(" %-8s %-20s %12s\n", t->type ? t->type : "?", shape, format_bytes(size, (double)t->n_bytes));
    if (stats && t->has_stats) {
        printf("      min %.5g, max %.5g, mean %.5g, std %.5g\n", t->stats.min, t->stats.max, t->stats.mean,
               t->stats.std);
        printf("      zeros %" PRIu64 ", nan %" PRIu64 ", inf %" PRIu64 "\n", t->stats.n_zero, t->stats.n_nan,
               t->stats.n_inf);
    }
}

static void print_text(const struct inspection *in, const char *path, bool stats)
{
    char size[32], params[32];
    char figures[120] = "";
    int n = printf("%s: %s%s%s%s%s%s, %zu tensor%s", path, in->format, in->architecture ? ", " : "",
                   in->architecture ? in->architecture : "", in->file_type ? ", " : "",
                   in->file_type ? in->file_type : "",
                   in->planned ? in->file_type ? " (with a plan)" : ", plan" : "", in->n_tensors,
                   format_plural(in->n_tensors));
    format_bytes(size, (double)(in->n_bytes ? in->n_bytes : in->tensor_bytes));
    if (in->imatrix)
        snprintf(figures, sizeof figures, "%s", size);
    else
        snprintf(figures, sizeof figures, "%s parameters, %s, %.2f bits per weight",
                 format_count(params, (double)in->n_parameters), size, bits_per_weight(in));
    printf(",%s%s\n", n + 2 + (int)strlen(figures) > LINE_WIDTH ? "\n  " : " ", figures);
    print_metadata(in);
    for (size_t i = 0; i < in->n_listed; i++)
        print_tensor(&in->tensors[i], stats);
}

/* Leave the other tensors out of the list; what is said of the whole file stays. */
static int keep_tensors(struct inspection *in, const char *regex, struct err *e)
{
    struct pattern *p = NULL;
    size_t n = 0;
    int rc = pattern_new(&p, regex, strlen(regex), false, e);
    for (size_t i = 0; rc == 0 && i < in->n_tensors; i++) {
        bool found;
        rc = pattern_test(&found, p, in->tensors[i].name, e);
        if (rc == 0 && found)
            in->tensors[n++] = in->tensors[i];
    }
    if (rc == 0)
        in->n_listed = n;
    pattern_free(p);
    return rc ? err_context(e, rc, "--tensors") : 0;
}

/* Everything but --key. */
static int show(struct inspection *in, const char *path, const char *tensors, bool stats, bool arrays,
                const struct session *session, const struct shared_options *s, struct err *e)
{
    int rc = tensors ? keep_tensors(in, tensors, e) : 0;
    if (rc == 0 && stats)
        rc = inspection_stats(in, session->kern, session->pool, s->memory_bytes, e);
    if (rc != 0)
        return rc;
    if (tensors && in->n_listed == 0)
        cmd_note(s, "--tensors: no tensor of %s has a name that matches '%s'", path, tensors);
    if (in->incomplete)
        cmd_warn(s, "[data-missing] %s: the bytes of some tensors are missing", path);
    if (s->json)
        print_json(in, stats, arrays ? UINT64_MAX : 64);
    else
        print_text(in, path, stats);
    return 0;
}

int cmd_inspect(int argc, char **argv)
{
    struct shared_options s = SHARED_OPTIONS_INIT;
    bool stats = false, arrays = false;
    const char *tensors = NULL;
    struct opt_list keys = {0};
    const struct opt options[] = {
        OPT(TEXT, "tensors", &tensors, "REGEX", "list only tensors whose name matches REGEX anywhere",
            .fallback = "all"),
        OPT(LIST, "key", &keys, "NAME",
            "print the value of this metadata key alone, for scripts; NAME may be a pattern with * and ?, "
            "and the option may be repeated: then lines KEY=VALUE. With --json arrays are whole"),
        OPT(FLAG, "stats", &stats, NULL, "min, max, mean, std, zeros, NaN and Inf of every tensor"),
        OPT(FLAG, "arrays", &arrays, NULL, "with --json: long metadata arrays in full"),
    };
    const struct opt_command cmd = {
        .name = "inspect",
        .operands = "PATH",
        .description = "Show metadata, tensors and sizes of a GGUF file (or a split set), a safetensors "
                       "file, a checkpoint folder or an importance matrix.",
        OPT_TABLE(options),
        .min_operands = 1,
        .max_operands = 1,
        .uses = USES_THREADS | USES_MEMORY | USES_ISA,
        .examples = "kerf inspect model.gguf\n"
                    "kerf inspect model.gguf --key tokenizer.chat_template >template.jinja\n"
                    "kerf inspect Qwen3-0.6B --stats --json",
    };
    struct opt_operands args;
    int status = opt_parse(&cmd, argc, argv, &s, &args);
    if (status != OPT_CONTINUE)
        return status;
    struct err e = {0};
    struct session session = {0};
    struct inspection in = {0};
    int rc = session_open(&session, &s, &e);
    if (rc == 0)
        rc = inspection_open(&in, args.items[0], &e);
    if (rc == 0 && keys.n)
        rc = inspect_keys(&in, args.items[0], &keys, s.json, &e);
    else if (rc == 0)
        rc = show(&in, args.items[0], tensors, stats, arrays, &session, &s, &e);
    opt_list_release(&keys);
    inspection_close(&in);
    session_close(&session);
    return rc ? cmd_fail(&e) : CMD_DONE;
}
