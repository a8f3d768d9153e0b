/* arch_resolve.c - the numbers of a configuration, and expressions over them.
 *
 * The configuration is hostile: every number has a bound far above any real model, so products stay within 64
 * bits and counts cannot exhaust memory. */
#include "arch.h"

#include "libquant/base/checked.h"
#include "libquant/base/path.h"

#include <ctype.h>
#include <string.h>

static const struct symbol {
    const char *name;
    const char *fields;   /* of config.json, separated by '|' */
    const char *fallback; /* expression; NULL: none */
    uint64_t max;
    bool required;
} symbols[ARCH_N_SYMBOLS] = {
    [ARCH_V] = {"V", "vocab_size", NULL, 1u << 24, true},
    [ARCH_D] = {"D", "hidden_size|n_embd", NULL, 1u << 20, true},
    [ARCH_L] = {"L", "num_hidden_layers|n_layer", NULL, ARCH_MAX_LAYERS, true},
    [ARCH_H] = {"H", "num_attention_heads|n_head", NULL, 1u << 16, true},
    [ARCH_HKV] = {"Hkv", "num_key_value_heads", "H", 1u << 16, false},
    [ARCH_HD] = {"d", "head_dim|kv_channels", "D/H", 1u << 16, false},
    [ARCH_F] = {"F", "intermediate_size|ffn_hidden_size", NULL, 1u << 24, false},
    [ARCH_E] = {"E", "num_local_experts|num_experts|n_routed_experts", NULL, 1u << 16, false},
    [ARCH_K] = {"K", "num_experts_per_tok", NULL, 1u << 16, false},
    [ARCH_FE] = {"Fe", "moe_intermediate_size", NULL, 1u << 24, false},
    [ARCH_FS] = {"Fs", "shared_expert_intermediate_size", NULL, 1u << 24, false},
    [ARCH_ES] = {"Es", "n_shared_experts", NULL, 1u << 12, false},
    [ARCH_HK] = {"Hk", "linear_num_key_heads", NULL, 1u << 16, false},
    [ARCH_HV] = {"Hv", "linear_num_value_heads", NULL, 1u << 16, false},
    [ARCH_DK] = {"dk", "linear_key_head_dim", NULL, 1u << 16, false},
    [ARCH_DV] = {"dv", "linear_value_head_dim", NULL, 1u << 16, false},
    [ARCH_KC] = {"Kc", "linear_conv_kernel_dim", NULL, 1u << 10, false},
    [ARCH_C] = {"C", "num_labels", NULL, 1u << 20, false},
    [ARCH_R] = {"R", "", NULL, 1u << 16, false}, /* read_rotary */
    [ARCH_QR] = {"Qr", "q_lora_rank", NULL, 1u << 16, false},
    [ARCH_KR] = {"Kr", "kv_lora_rank", NULL, 1u << 15, false},
    [ARCH_RD] = {"Rd", "qk_rope_head_dim", NULL, 1u << 15, false},
    [ARCH_DN] = {"dn", "qk_nope_head_dim", NULL, 1u << 15, false},
    [ARCH_DM] = {"dm", "v_head_dim", NULL, 1u << 15, false},
    [ARCH_TV] = {"Tv", "text_vocab_size", NULL, 1u << 24, false},
    [ARCH_TD] = {"Td", "text_hidden_size", NULL, 1u << 20, false},
    [ARCH_TC] = {"Tc", "", NULL, 1u << 20, false}, /* set by the family that has them */
    [ARCH_VD] = {"Vd", "embed_dim|hidden_size", NULL, 1u << 16, true},
    [ARCH_VR] = {"Vr", "mlp_ratio", NULL, 1u << 8, false},
    [ARCH_VF] = {"Vf", "intermediate_size", "Vd*Vr", 1u << 20, true},
    [ARCH_VN] = {"Vn", "depth|num_hidden_layers", NULL, ARCH_MAX_LAYERS, true},
    [ARCH_VH] = {"Vh", "num_heads|num_attention_heads", NULL, 1u << 12, true},
    [ARCH_VC] = {"Vc", "in_channels|in_chans", NULL, 1u << 8, true},
    [ARCH_VP] = {"Vp", "patch_size", NULL, 1u << 10, true},
    [ARCH_VM] = {"Vm", "spatial_merge_size", NULL, 1u << 4, true},
    [ARCH_VT] = {"Vt", "temporal_patch_size", NULL, 1u << 4, true},
    [ARCH_VO] = {"Vo", "out_hidden_size", "D", 1u << 20, true},
    [ARCH_VX] = {"Vx", "num_position_embeddings", NULL, 1u << 20, false},
    [ARCH_AD] = {"Ad", "d_model|hidden_size", NULL, 1u << 16, true},
    [ARCH_AF] = {"Af", "encoder_ffn_dim|intermediate_size", NULL, 1u << 20, true},
    [ARCH_AN] = {"An", "encoder_layers|num_hidden_layers", NULL, ARCH_MAX_LAYERS, true},
    [ARCH_AH] = {"Ah", "encoder_attention_heads|num_attention_heads", NULL, 1u << 12, true},
    [ARCH_AM] = {"Am", "num_mel_bins", NULL, 1u << 12, true},
    [ARCH_AX] = {"Ax", "max_source_positions", NULL, 1u << 20, false},
    [ARCH_AO] = {"Ao", "output_dim", "D", 1u << 20, true},
    [ARCH_AC] = {"Ac", "downsample_hidden_size", NULL, 1u << 16, false},
    [ARCH_AW] = {"Aw", "", NULL, 1u << 24, false},
    [ARCH_GN] = {"Gn", "", NULL, ARCH_MAX_LAYERS, false},
    [ARCH_WN] = {"Wn", "", NULL, ARCH_MAX_LAYERS, false},
    [ARCH_WU] = {"Wu", "", NULL, ARCH_MAX_LAYERS, false},
};

/* Where the fields of a symbol stand, for messages. */
static const char *part_name(enum arch_symbol id)
{
    return id < ARCH_N_TEXT ? "" : id < ARCH_N_VISION ? "vision_config." : "audio_config.";
}

/* The stated value of a field, or NULL: in the text part over the root, or in a part of a tower. */
static const struct json *stated_value(const struct arch_model *a, enum arch_symbol id, const char *field)
{
    if (id < ARCH_N_TEXT)
        return hf_config_get(a->config, field);
    const struct json *j = json_get(id < ARCH_N_VISION ? a->vision : a->audio, field);
    return json_is_null(j) ? NULL : j;
}

static bool read_uint(const struct arch_model *a, enum arch_symbol id, const char *field, uint64_t *out,
                      bool *present)
{
    if (id < ARCH_N_TEXT)
        return hf_config_uint(a->config, field, out, present);
    const struct json *j = stated_value(a, id, field);
    *present = j != NULL;
    if (j)
        return json_uint(j, out);
    const struct hf_class_value *v = id < ARCH_N_VISION ? a->arch->vision_defaults : a->arch->audio_defaults;
    for (; v && v->key; v++)
        if (strcmp(v->key, field) == 0) {
            *out = (uint64_t)v->value;
            return true;
        }
    return false;
}

/* One field of a '|' list into `buf`; false at the end. */
static bool next_field(const char **list, char *buf, size_t cap)
{
    size_t n = strcspn(*list, "|");
    if (n == 0 || n >= cap)
        return false;
    memcpy(buf, *list, n);
    buf[n] = '\0';
    *list += n + ((*list)[n] == '|');
    return true;
}

static int read_symbol(struct arch_model *a, enum arch_symbol id, struct err *e)
{
    const struct symbol *s = &symbols[id];
    char field[64];
    /* What the file states under any alias wins over a class default. */
    for (int pass = 0; pass < 2 && !a->known[id]; pass++) {
        const char *list = s->fields;
        while (!a->known[id] && next_field(&list, field, sizeof field)) {
            bool present = false;
            if (pass == 0 && !stated_value(a, id, field))
                continue;
            if (read_uint(a, id, field, &a->value[id], &present))
                a->known[id] = a->stated[id] = true;
            else if (present)
                return err_set(e, ERR_FORMAT, "config.json: '%s%s' is not a whole number", part_name(id),
                               field);
        }
    }
    if (!a->known[id] && s->fallback)
        a->known[id] = arch_eval(a, s->fallback, &a->value[id]);
    if (!a->known[id])
        return s->required || s->fallback
                   ? err_set(e, ERR_FORMAT, "config.json: '%s%s' is missing", part_name(id), s->fields)
                   : 0;
    if (a->value[id] > s->max)
        return err_set(e, ERR_FORMAT, "config.json: '%s%s' is %llu, more than the %llu this program accepts",
                       part_name(id), s->fields, (unsigned long long)a->value[id],
                       (unsigned long long)s->max);
    if (a->value[id] == 0 && (s->required || s->fallback))
        return err_set(e, ERR_FORMAT, "config.json: '%s%s' is zero", part_name(id), s->fields);
    return 0;
}

int arch_read_symbols(struct arch_model *a, int first, int end, struct err *e)
{
    int rc = 0;
    for (int id = first; rc == 0 && id < end; id++)
        rc = read_symbol(a, (enum arch_symbol)id, e);
    return rc;
}

/* The class says what the head is. HuggingFace counts labels by their names, and takes two when there are
 * none; the reward classes have their numbers built in (specification, architectures 5.6). */
static int read_answer(struct arch_model *a, struct err *e)
{
    const char *class_name = hf_config_architecture(a->config);
    const struct json *names = hf_config_get(a->config, "id2label");
    uint64_t n;
    if (path_ends_with(class_name, "ForSequenceClassification")) {
        a->answer = ARCH_SCORE;
        n = json_is_object(names) ? json_n_children(names) : a->known[ARCH_C] ? a->value[ARCH_C] : 2;
    } else if (path_ends_with(class_name, "RewardModel")) {
        a->answer = ARCH_REWARD;
        n = path_ends_with(class_name, "ProcessRewardModel") ? 2 : 1;
    } else {
        return 0;
    }
    a->value[ARCH_C] = n;
    a->known[ARCH_C] = true;
    if (n != 1 && n != 2)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: a classifier of %llu labels; one (a score) or two are supported",
                       (unsigned long long)n);
    return 0;
}

/* The runtime computes one function for each family, whatever a file says; a model with another one would
 * come out as another model. A class without the key has it built in. */
static int check_activation(const struct arch_model *a, struct err *e)
{
    static const char *const keys[] = {"hidden_act", "hidden_activation", "activation_function"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct json *j = hf_config_get(a->config, keys[i]);
        const char *name = json_string(j);
        bool gelu = name && (strcmp(name, "gelu_pytorch_tanh") == 0 || strcmp(name, "gelu_new") == 0);
        bool silu = name && (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0);
        if (j && !(a->arch->runtime.gelu ? gelu : silu))
            return err_set(e, ERR_UNSUPPORTED,
                           "config.json: %s is '%.60s', but runtimes of architecture '%s' compute %s, "
                           "whatever a file says; such a model cannot be expressed",
                           keys[i], name ? name : "no text", a->arch->name,
                           a->arch->runtime.gelu ? "gelu_pytorch_tanh" : "silu");
    }
    return 0;
}

/* The part of a head that is rotated, cut to a whole number as the reference cuts it. */
static void read_rotary(struct arch_model *a)
{
    a->value[ARCH_R] = (uint64_t)((double)a->value[ARCH_HD] * a->rope.partial_rotary_factor);
    a->known[ARCH_R] = true;
}

int arch_resolve(struct arch_model *out, const struct hf_config *config, struct err *e)
{
    struct arch_model a = {.config = config};
    int rc = arch_find(&a.arch, hf_config_architecture(config), hf_config_model_type(config), e);
    if (rc == 0)
        rc = arch_read_symbols(&a, 0, ARCH_N_TEXT, e);
    if (rc == 0)
        rc = hf_config_rope(config, &a.rope, e);
    if (rc != 0)
        return rc;
    if (a.value[ARCH_H] % a.value[ARCH_HKV] != 0)
        return err_set(e, ERR_FORMAT,
                       "config.json: %llu attention heads do not divide into %llu key/value heads",
                       (unsigned long long)a.value[ARCH_H], (unsigned long long)a.value[ARCH_HKV]);
    a.tied = hf_config_tied(config);
    read_rotary(&a);
    rc = check_activation(&a, e);
    if (rc == 0)
        rc = read_answer(&a, e);
    if (rc != 0)
        return rc;
    if (a.arch->check) {
        rc = a.arch->check(&a, e);
        if (rc != 0)
            return rc;
    }
    *out = a;
    return 0;
}

/* factor: integer or symbol */
static bool eval_factor(const struct arch_model *a, const char **p, uint64_t *out)
{
    size_t n = 0;
    if (isdigit((unsigned char)**p)) {
        *out = 0;
        for (; isdigit((unsigned char)**p); ++*p)
            *out = 10 * *out + (uint64_t)(**p - '0');
        return true;
    }
    while (isalpha((unsigned char)(*p)[n]))
        n++;
    for (int id = 0; id < ARCH_N_SYMBOLS; id++) {
        if (strlen(symbols[id].name) == n && memcmp(symbols[id].name, *p, n) == 0) {
            *p += n;
            *out = a->value[id];
            return a->known[id];
        }
    }
    return false;
}

static bool eval_term(const struct arch_model *a, const char **p, uint64_t *out)
{
    if (!eval_factor(a, p, out))
        return false;
    while (**p == '*' || **p == '/') {
        char op = *(*p)++;
        uint64_t v;
        if (!eval_factor(a, p, &v))
            return false;
        if (op == '*') {
            if (!checked_mul(*out, v, out))
                return false;
        } else {
            if (v == 0 || *out % v != 0)
                return false;
            *out /= v;
        }
    }
    return true;
}

/* Sum up to `end` characters that are ',' or NUL. */
static bool eval_sum(const struct arch_model *a, const char **p, uint64_t *out)
{
    if (!eval_term(a, p, out))
        return false;
    while (**p == '+') {
        uint64_t v;
        ++*p;
        if (!eval_term(a, p, &v) || !checked_add(*out, v, out))
            return false;
    }
    return true;
}

bool arch_eval(const struct arch_model *a, const char *expr, uint64_t *out)
{
    uint64_t v;
    if (!eval_sum(a, &expr, &v) || *expr != '\0')
        return false;
    *out = v;
    return true;
}

/* Name the configuration field behind the first symbol of `expr` without a value. */
static const char *missing_field(const struct arch_model *a, const char *expr)
{
    while (*expr && *expr != ',') {
        size_t n = 0;
        while (isalpha((unsigned char)expr[n]))
            n++;
        for (int id = 0; n && id < ARCH_N_SYMBOLS; id++)
            if (strlen(symbols[id].name) == n && memcmp(symbols[id].name, expr, n) == 0 && !a->known[id])
                return symbols[id].fields;
        expr += n ? n : 1;
    }
    return NULL;
}

bool arch_row_expected(const struct arch_model *a, const struct arch_row *row)
{
    char field[64];
    bool value = false;
    if (row->presence != ARCH_OPTIONAL)
        return true;
    for (int pass = 0; pass < 2; pass++) {
        const char *list = row->flag ? row->flag : "";
        while (next_field(&list, field, sizeof field))
            if ((pass == 1 || hf_config_get(a->config, field)) &&
                hf_config_bool(a->config, field, &value, NULL))
                return value;
    }
    return false;
}

int arch_shape(const struct arch_model *a, const char *shape, uint64_t *dims, uint32_t max, uint32_t *n_dims,
               struct err *e)
{
    uint64_t d[8];
    uint32_t n = 0;
    for (const char *p = shape;; p++) {
        const char *start = p;
        if (n == max || n == 8)
            return err_set(e, ERR_FORMAT, "shape [%s] has more than %u dimensions", shape, (unsigned)max);
        if (!eval_sum(a, &p, &d[n]) || d[n] == 0) {
            const char *field = missing_field(a, start);
            return field ? err_set(e, ERR_FORMAT, "config.json: '%s' is missing (shape [%s])", field, shape)
                         : err_set(e, ERR_FORMAT, "config.json: its numbers make no valid shape [%s]", shape);
        }
        n++;
        if (*p != ',')
            break;
    }
    memcpy(dims, d, n * sizeof *d);
    *n_dims = n;
    return 0;
}
