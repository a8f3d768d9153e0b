/* toy_checkpoint.c - see toy_checkpoint.h. The list of tensors is made twice, once to declare and once to
 * fill, by the same walk; so header and data cannot disagree. */
#include "toy_checkpoint.h"

#include "formats/hf/hf_checkpoint.h"
#include "formats/hf/safetensors_write.h"
#include "libquant/base/filemap.h"
#include "formats/output/output_file.h"
#include "libquant/base/rng.h"
#include "libquant/half.h"
#include "toy_tokenizer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TABLE_SIZE   65536
#define CHUNK_ELEMS  65536 /* at least one row */
#define N_OUTLIERS   4
#define WEIGHT_SCALE 0.02

enum kind { WEIGHT, RESIDUAL, NORM, BIAS }; /* RESIDUAL: output of a block, scaled down with depth */

static const struct {
    const char *name, *class_name;
    bool qkv_bias, qk_norm;
} arch_facts[TOY_ARCH_COUNT] = {
    [TOY_QWEN2] = {"qwen2", "Qwen2ForCausalLM", true, false},
    [TOY_QWEN3] = {"qwen3", "Qwen3ForCausalLM", false, true},
    [TOY_LLAMA] = {"llama", "LlamaForCausalLM", false, false},
    [TOY_MISTRAL] = {"mistral", "MistralForCausalLM", false, false},
};

const char *toy_arch_name(enum toy_arch arch)
{
    return arch_facts[arch].name;
}

struct toy_spec toy_spec_tiny(enum toy_arch arch)
{
    return (struct toy_spec){
        .arch = arch,
        .n_layers = 2,
        .hidden = 256,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = arch == TOY_QWEN3 ? 32 : 0, /* Qwen3 models have head_dim * heads != hidden */
        .ffn = 512,
        .vocab = 320,
        .context = 2048,
        .rope_theta = 10000,
        .rope_scaling = ROPE_DEFAULT,
        .sliding_window = arch == TOY_MISTRAL ? 64 : 0,
        .tied = arch == TOY_QWEN3,
        .dtype = ST_BF16,
        .n_shards = 1,
        .seed = 1,
    };
}

/* --- values ----------------------------------------------------------------------------------------------
 */

struct table {
    size_t elem;   /* bytes of one value */
    uint8_t *data; /* TABLE_SIZE values */
};

static void store(uint8_t *at, enum st_dtype dtype, double v)
{
    float f = (float)v;
    uint16_t h = dtype == ST_F16 ? f32_to_f16(f) : f32_to_bf16(f);
    if (dtype == ST_F32)
        memcpy(at, &f, sizeof f);
    else
        memcpy(at, &h, sizeof h);
}

static int make_table(struct table *t, const struct toy_spec *spec, enum kind kind, double scale,
                      struct err *e)
{
    struct rng rng = {0x6b657266}; /* the same normals in every checkpoint; the seed picks among them */
    t->elem = st_dtype_bits(spec->dtype) / 8;
    t->data = malloc(TABLE_SIZE * t->elem);
    if (!t->data)
        return err_set(e, ERR_NOMEM, "toy checkpoint: out of memory");
    for (size_t i = 0; i < TABLE_SIZE; i++)
        store(t->data + i * t->elem, spec->dtype, (kind == NORM) + scale * rng_normal(&rng));
    return 0;
}

/* `n` random values of the table; four indices from each random number. */
static void fill(uint8_t *out, size_t n, const struct table *t, struct rng *rng)
{
    uint64_t bits = 0;
    if (t->elem == 2) {
        const uint16_t *from = (const uint16_t *)(const void *)t->data;
        uint16_t *to = (uint16_t *)(void *)out;
        for (size_t i = 0; i < n; i++, bits >>= 16) {
            if (i % 4 == 0)
                bits = rng_u64(rng);
            to[i] = from[bits & 0xffff];
        }
    } else {
        const uint32_t *from = (const uint32_t *)(const void *)t->data;
        uint32_t *to = (uint32_t *)(void *)out;
        for (size_t i = 0; i < n; i++, bits >>= 16) {
            if (i % 4 == 0)
                bits = rng_u64(rng);
            to[i] = from[bits & 0xffff];
        }
    }
}

/* --- the walk over all tensors ---------------------------------------------------------------------------
 */

struct maker {
    const struct toy_spec *spec;
    const char *folder;
    uint64_t n_total, n_seen; /* bytes: of all tensors, and before the current one */
    uint64_t n_tensors;       /* number of the current tensor: part of its seed */
    uint32_t shard;           /* being declared or filled */
    struct safetensors_writer *writer;
    FILE *index;
    struct table base[4], outlier;
    uint8_t *chunk;
};

typedef int (*visit)(struct maker *m, const char *name, enum kind kind, uint64_t rows, uint64_t cols,
                     struct err *e);

struct part {
    const char *name;
    enum kind kind;
    uint64_t rows, cols; /* cols 0: a vector of `rows` */
    bool present;
};

static int each_layer(struct maker *m, uint32_t layer, visit fn, struct err *e)
{
    const struct toy_spec *s = m->spec;
    const uint64_t d = s->hidden, head = s->head_dim ? s->head_dim : s->hidden / s->n_heads;
    const uint64_t q = head * s->n_heads, kv = head * s->n_kv_heads, f = s->ffn;
    const bool qkv_bias = arch_facts[s->arch].qkv_bias || s->bias, o_bias = s->bias && s->arch != TOY_QWEN2;
    const bool qk_norm = arch_facts[s->arch].qk_norm;
    const struct part parts[] = {
        {"input_layernorm.weight", NORM, d, 0, true},
        {"mlp.down_proj.weight", RESIDUAL, d, f, true},
        {"mlp.gate_proj.weight", WEIGHT, f, d, true},
        {"mlp.up_proj.weight", WEIGHT, f, d, true},
        {"post_attention_layernorm.weight", NORM, d, 0, true},
        {"self_attn.k_norm.weight", NORM, head, 0, qk_norm},
        {"self_attn.k_proj.bias", BIAS, kv, 0, qkv_bias},
        {"self_attn.k_proj.weight", WEIGHT, kv, d, true},
        {"self_attn.o_proj.bias", BIAS, d, 0, o_bias},
        {"self_attn.o_proj.weight", RESIDUAL, d, q, true},
        {"self_attn.q_norm.weight", NORM, head, 0, qk_norm},
        {"self_attn.q_proj.bias", BIAS, q, 0, qkv_bias},
        {"self_attn.q_proj.weight", WEIGHT, q, d, true},
        {"self_attn.v_proj.bias", BIAS, kv, 0, qkv_bias},
        {"self_attn.v_proj.weight", WEIGHT, kv, d, true},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && rc == 0; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%u.%s", layer, parts[i].name);
        if (parts[i].present)
            rc = fn(m, name, parts[i].kind, parts[i].rows, parts[i].cols, e);
    }
    return rc;
}

static int each_tensor(struct maker *m, visit fn, struct err *e)
{
    const struct toy_spec *s = m->spec;
    m->n_seen = 0;
    m->n_tensors = 0;
    int rc = fn(m, "model.embed_tokens.weight", WEIGHT, s->vocab, s->hidden, e);
    for (uint32_t i = 0; i < s->n_layers && rc == 0; i++)
        rc = each_layer(m, i, fn, e);
    if (rc == 0)
        rc = fn(m, "model.norm.weight", NORM, s->hidden, 0, e);
    if (rc == 0 && !s->tied)
        rc = fn(m, "lm_head.weight", WEIGHT, s->vocab, s->hidden, e);
    return rc;
}

static uint64_t n_elems_of(uint64_t rows, uint64_t cols)
{
    return rows * (cols ? cols : 1);
}

static int count(struct maker *m, const char *name, enum kind kind, uint64_t rows, uint64_t cols,
                 struct err *e)
{
    (void)name, (void)kind, (void)e;
    m->n_total += n_elems_of(rows, cols) * (st_dtype_bits(m->spec->dtype) / 8);
    m->n_tensors++;
    return 0;
}

/* The shard a tensor belongs to: equal shares of the bytes before it. */
static uint32_t shard_of(const struct maker *m)
{
    return (uint32_t)((unsigned __int128)m->n_seen * m->spec->n_shards / m->n_total);
}

static void shard_name(char out[64], const struct toy_spec *s, uint32_t shard)
{
    if (s->n_shards <= 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05u-of-%05u.safetensors", shard + 1, s->n_shards);
}

static int declare(struct maker *m, const char *name, enum kind kind, uint64_t rows, uint64_t cols,
                   struct err *e)
{
    (void)kind;
    m->n_tensors++;
    int rc = 0;
    if (shard_of(m) == m->shard)
        rc = safetensors_writer_add(m->writer, name, m->spec->dtype, cols ? 2 : 1, (uint64_t[]){rows, cols},
                                    e);
    m->n_seen += n_elems_of(rows, cols) * (st_dtype_bits(m->spec->dtype) / 8);
    return rc;
}

static int write_values(struct maker *m, const char *name, enum kind kind, uint64_t rows, uint64_t cols,
                        struct err *e)
{
    const size_t elem = m->base[kind].elem;
    const uint64_t number = m->n_tensors++;
    int rc = 0;
    if (shard_of(m) == m->shard) {
        if (m->index) {
            char file[64];
            shard_name(file, m->spec, m->shard);
            fprintf(m->index, "%s\n    \"%s\": \"%s\"", number ? "," : "", name, file);
        }
        struct rng rng = {m->spec->seed * 0x100000001b3u + number};
        uint64_t row = cols ? cols : rows, n_rows = cols ? rows : 1;
        size_t at[N_OUTLIERS];
        for (size_t k = 0; k < N_OUTLIERS; k++)
            at[k] = (size_t)rng_below(&rng, row);
        uint64_t step = row < CHUNK_ELEMS ? CHUNK_ELEMS / row : 1;
        for (uint64_t r = 0; r < n_rows && rc == 0; r += step) {
            uint64_t n = n_rows - r < step ? n_rows - r : step;
            fill(m->chunk, (size_t)(n * row), &m->base[kind], &rng);
            for (uint64_t i = 0; i < n && cols && row >= 64; i++)
                for (size_t k = 0; k < N_OUTLIERS; k++)
                    fill(m->chunk + (size_t)(i * row + at[k]) * elem, 1, &m->outlier, &rng);
            rc = safetensors_writer_write(m->writer, m->chunk, (size_t)(n * row) * elem, e);
        }
    }
    m->n_seen += n_elems_of(rows, cols) * elem;
    return rc;
}

/* --- files -----------------------------------------------------------------------------------------------
 */

static FILE *open_file(const char *folder, const char *name, struct err *e)
{
    char *path = hf_path(folder, name);
    FILE *f = path ? fopen(path, "wb") : NULL;
    if (!f)
        err_set(e, ERR_IO, "%s/%s: cannot open for writing: %s", folder, name, strerror(errno));
    free(path);
    return f;
}

static int close_file(FILE *f, const char *name, struct err *e)
{
    bool bad = ferror(f) != 0;
    bad |= fclose(f) != 0;
    return bad ? err_set(e, ERR_IO, "%s: cannot write", name) : 0;
}

static int write_shards(struct maker *m, struct err *e)
{
    int rc = 0;
    for (uint32_t shard = 0; shard < m->spec->n_shards && rc == 0; shard++) {
        char name[64];
        shard_name(name, m->spec, shard);
        char *path = hf_path(m->folder, name);
        rc = path ? safetensors_writer_open(&m->writer, path, true, e)
                  : err_set(e, ERR_NOMEM, "out of memory");
        free(path);
        if (rc == 0)
            rc = safetensors_writer_metadata(m->writer, "format", "pt", e);
        m->shard = shard;
        if (rc == 0)
            rc = each_tensor(m, declare, e);
        if (rc == 0)
            rc = each_tensor(m, write_values, e);
        if (rc == 0)
            rc = safetensors_writer_commit(m->writer, e);
        else
            safetensors_writer_abort(m->writer);
        m->writer = NULL;
    }
    return rc;
}

static void put_rope(FILE *f, const struct toy_spec *s)
{
    switch (s->rope_scaling) {
    case ROPE_LINEAR: fputs("{\"rope_type\": \"linear\", \"factor\": 2.0}", f); break;
    case ROPE_YARN:
        fprintf(f, "{\"rope_type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": %u}",
                s->context / 4);
        break;
    case ROPE_LLAMA3:
        fprintf(f,
                "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
                "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": %u}",
                s->context / 8);
        break;
    default: fputs("null", f);
    }
}

static int write_config(const char *folder, const struct toy_spec *s, struct err *e)
{
    static const char *const dtypes[] = {[ST_F16] = "float16", [ST_BF16] = "bfloat16", [ST_F32] = "float32"};
    const uint32_t eos = s->vocab - TOY_N_SPECIAL;
    FILE *f = open_file(folder, "config.json", e);
    if (!f)
        return ERR_IO;
    fprintf(f, "{\n  \"architectures\": [\"%s\"],\n", arch_facts[s->arch].class_name);
    if (s->arch != TOY_QWEN2 && s->arch != TOY_MISTRAL)
        fprintf(f, "  \"attention_bias\": %s,\n", s->bias ? "true" : "false");
    fprintf(f, "  \"bos_token_id\": %u,\n  \"eos_token_id\": %u,\n", eos, eos);
    if (s->head_dim && (s->arch == TOY_QWEN3 || s->head_dim * s->n_heads != s->hidden))
        fprintf(f, "  \"head_dim\": %u,\n", s->head_dim);
    else if (s->arch == TOY_QWEN3) /* the class default is 128, not hidden / heads */
        fprintf(f, "  \"head_dim\": %u,\n", s->hidden / s->n_heads);
    fprintf(f,
            "  \"hidden_act\": \"silu\",\n  \"hidden_size\": %u,\n  \"initializer_range\": 0.02,\n"
            "  \"intermediate_size\": %u,\n  \"max_position_embeddings\": %u,\n  \"model_type\": \"%s\",\n"
            "  \"num_attention_heads\": %u,\n  \"num_hidden_layers\": %u,\n  \"num_key_value_heads\": %u,\n"
            "  \"rms_norm_eps\": 1e-06,\n  \"rope_scaling\": ",
            s->hidden, s->ffn, s->context, arch_facts[s->arch].name, s->n_heads, s->n_layers, s->n_kv_heads);
    put_rope(f, s);
    fprintf(f, ",\n  \"rope_theta\": %.1f,\n", s->rope_theta);
    if (s->arch == TOY_MISTRAL && s->sliding_window)
        fprintf(f, "  \"sliding_window\": %u,\n", s->sliding_window);
    else if (s->arch != TOY_LLAMA)
        fputs("  \"sliding_window\": null,\n", f);
    if (s->arch == TOY_QWEN2 || s->arch == TOY_QWEN3)
        fputs("  \"use_sliding_window\": false,\n", f);
    fprintf(f,
            "  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"%s\",\n"
            "  \"transformers_version\": \"4.51.0\",\n  \"use_cache\": true,\n  \"vocab_size\": %u\n}\n",
            s->tied ? "true" : "false", dtypes[s->dtype], s->vocab);
    return close_file(f, "config.json", e);
}

static int copy_tokenizer(const char *folder, const char *from, struct err *e)
{
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "added_tokens.json",
                                        "tokenizer.model",
                                        "special_tokens_map.json",
                                        "chat_template.jinja",
                                        "generation_config.json"};
    int rc = 0;
    size_t n_copied = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && rc == 0; i++) {
        if (!hf_file_exists(from, names[i]))
            continue;
        struct filemap map = {0};
        char *source = hf_path(from, names[i]), *target = hf_path(folder, names[i]);
        rc = source && target ? filemap_open(&map, source, e) : err_set(e, ERR_NOMEM, "out of memory");
        if (rc == 0)
            rc = output_file_write_all(target, map.data, map.size, true, e);
        filemap_close(&map);
        free(source);
        free(target);
        n_copied++;
    }
    if (rc == 0 && n_copied == 0)
        rc = err_set(e, ERR_ARG, "%s: no tokenizer files found", from);
    return rc;
}

static int check(const struct toy_spec *s, struct err *e)
{
    uint32_t head = s->head_dim ? s->head_dim : s->n_heads ? s->hidden / s->n_heads : 0;
    if (!s->n_layers || !s->hidden || !s->n_heads || !s->n_kv_heads || !s->ffn || !s->n_shards || !head ||
        s->n_heads % s->n_kv_heads != 0 || head % 2 != 0 || s->vocab < 256 + TOY_N_SPECIAL ||
        (!s->head_dim && s->hidden % s->n_heads != 0) || s->arch >= TOY_ARCH_COUNT)
        return err_set(e, ERR_ARG,
                       "toy checkpoint: sizes must be positive, heads a multiple of KV heads, head_dim even, "
                       "the vocabulary at least %d",
                       256 + TOY_N_SPECIAL);
    if (s->bias && s->arch == TOY_MISTRAL)
        return err_set(e, ERR_ARG, "toy checkpoint: the Mistral class has no attention biases");
    if (s->dtype != ST_BF16 && s->dtype != ST_F16 && s->dtype != ST_F32)
        return err_set(e, ERR_ARG, "toy checkpoint: dtype must be BF16, F16 or F32");
    return 0;
}

static int write_weights(struct maker *m, struct err *e)
{
    const struct toy_spec *s = m->spec;
    const double scale[] = {[WEIGHT] = WEIGHT_SCALE,
                            [RESIDUAL] = WEIGHT_SCALE / sqrt(2.0 * s->n_layers),
                            [NORM] = 0.1,
                            [BIAS] = 0.1};
    int rc = make_table(&m->outlier, s, WEIGHT, 8 * WEIGHT_SCALE, e);
    for (int k = 0; k < 4 && rc == 0; k++)
        rc = make_table(&m->base[k], s, (enum kind)k, scale[k], e);
    if (rc == 0)
        rc = each_tensor(m, count, e);
    uint64_t widest = s->hidden > s->ffn ? s->hidden : s->ffn;
    uint64_t heads = (uint64_t)s->n_heads * (s->head_dim ? s->head_dim : s->hidden / s->n_heads);
    widest = heads > widest ? heads : widest;
    m->chunk = malloc((size_t)(widest > CHUNK_ELEMS ? widest : CHUNK_ELEMS) * 4);
    if (rc == 0 && !m->chunk)
        rc = err_set(e, ERR_NOMEM, "toy checkpoint: out of memory");
    if (rc == 0 && s->n_shards > m->n_tensors)
        rc = err_set(e, ERR_ARG, "toy checkpoint: %u shards for %" PRIu64 " tensors", s->n_shards,
                     m->n_tensors);
    if (rc == 0 && s->n_shards > 1) {
        m->index = open_file(m->folder, "model.safetensors.index.json", e);
        rc = m->index ? 0 : ERR_IO;
    }
    if (m->index)
        fprintf(m->index, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {",
                m->n_total);
    if (rc == 0)
        rc = write_shards(m, e);
    if (m->index) {
        fputs("\n  }\n}\n", m->index);
        int closed = close_file(m->index, "model.safetensors.index.json", rc == 0 ? e : NULL);
        rc = rc != 0 ? rc : closed;
    }
    for (int k = 0; k < 4; k++)
        free(m->base[k].data);
    free(m->outlier.data);
    free(m->chunk);
    return rc;
}

int toy_checkpoint_write(const char *folder, const struct toy_spec *spec, struct err *e)
{
    struct maker m = {.spec = spec, .folder = folder};
    int rc = check(spec, e);
    if (rc == 0 && mkdir(folder, 0777) != 0 && errno != EEXIST)
        rc = err_set(e, ERR_IO, "%s: cannot create: %s", folder, strerror(errno));
    if (rc == 0)
        rc = write_config(folder, spec, e);
    if (rc == 0)
        rc = spec->tokenizer_dir ? copy_tokenizer(folder, spec->tokenizer_dir, e)
                                 : toy_tokenizer_write(folder, spec->vocab, spec->seed, e);
    if (rc == 0)
        rc = write_weights(&m, e);
    return rc;
}
