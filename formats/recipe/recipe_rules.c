/* recipe_rules.c - the mixes and their rules, as tables.
 *
 * The rules are those of the reference quantizer (August 2026), quirks included: which rows exist, their
 * order and the counters they look at decide the bytes of a file, and a user who asks for Q4_K_M expects that
 * file. Nothing here looks at weights. Specification: quantization 7. A test holds every mix to the
 * reference's own answers on several hundred model shapes (tests/formats/test_recipe.c). */
#include "recipe_rules.h"

#include "formats/model/tensor_name.h"

#include <string.h>
#include <strings.h>

/* --- mixes ------------------------------------------------------------------------------------- */

static const struct mix mixes[MIX_COUNT] = {
    [MIX_F32] = {"F32", 0, QTYPE_F32},
    [MIX_F16] = {"F16", 1, QTYPE_F16},
    [MIX_BF16] = {"BF16", 32, QTYPE_BF16},
    [MIX_Q8_0] = {"Q8_0", 7, QTYPE_Q8_0},
    [MIX_Q6_K] = {"Q6_K", 18, QTYPE_Q6_K},
    [MIX_Q5_K_M] = {"Q5_K_M", 17, QTYPE_Q5_K},
    [MIX_Q5_K_S] = {"Q5_K_S", 16, QTYPE_Q5_K},
    [MIX_Q5_1] = {"Q5_1", 9, QTYPE_Q5_1},
    [MIX_Q5_0] = {"Q5_0", 8, QTYPE_Q5_0},
    [MIX_Q4_K_M] = {"Q4_K_M", 15, QTYPE_Q4_K},
    [MIX_Q4_K_S] = {"Q4_K_S", 14, QTYPE_Q4_K},
    [MIX_IQ4_NL] = {"IQ4_NL", 25, QTYPE_IQ4_NL},
    [MIX_IQ4_XS] = {"IQ4_XS", 30, QTYPE_IQ4_XS},
    [MIX_Q4_1] = {"Q4_1", 3, QTYPE_Q4_1},
    [MIX_Q4_0] = {"Q4_0", 2, QTYPE_Q4_0},
    [MIX_MXFP4_MOE] = {"MXFP4_MOE", 38, QTYPE_MXFP4},
    [MIX_Q3_K_L] = {"Q3_K_L", 13, QTYPE_Q3_K},
    [MIX_Q3_K_M] = {"Q3_K_M", 12, QTYPE_Q3_K},
    [MIX_Q3_K_S] = {"Q3_K_S", 11, QTYPE_Q3_K},
    [MIX_IQ3_M] = {"IQ3_M", 27, QTYPE_IQ3_S},
    [MIX_IQ3_S] = {"IQ3_S", 26, QTYPE_IQ3_S},
    [MIX_IQ3_XS] = {"IQ3_XS", 22, QTYPE_IQ3_S},
    [MIX_IQ3_XXS] = {"IQ3_XXS", 23, QTYPE_IQ3_XXS},
    [MIX_Q2_K] = {"Q2_K", 10, QTYPE_Q2_K},
    [MIX_Q2_K_S] = {"Q2_K_S", 21, QTYPE_Q2_K},
    [MIX_IQ2_M] = {"IQ2_M", 29, QTYPE_IQ2_S},
    [MIX_IQ2_S] = {"IQ2_S", 28, QTYPE_IQ2_XS}, /* one step down from its name: that is how it is */
    [MIX_IQ2_XS] = {"IQ2_XS", 20, QTYPE_IQ2_XS},
    [MIX_IQ2_XXS] = {"IQ2_XXS", 19, QTYPE_IQ2_XXS},
    [MIX_Q2_0] = {"Q2_0", 41, QTYPE_Q2_0},
    [MIX_TQ2_0] = {"TQ2_0", 37, QTYPE_TQ2_0},
    [MIX_TQ1_0] = {"TQ1_0", 36, QTYPE_TQ1_0},
    [MIX_IQ1_M] = {"IQ1_M", 31, QTYPE_IQ1_M},
    [MIX_IQ1_S] = {"IQ1_S", 24, QTYPE_IQ1_S},
    [MIX_Q1_0] = {"Q1_0", 40, QTYPE_Q1_0},
};

static const struct {
    const char *name;
    enum mix_index mix;
} aliases[] = {{"Q3_K", MIX_Q3_K_M}, {"Q4_K", MIX_Q4_K_M}, {"Q5_K", MIX_Q5_K_M}};

const struct mix *mix_find(const char *name)
{
    for (size_t i = 0; i < MIX_COUNT; i++)
        if (strcasecmp(mixes[i].name, name) == 0)
            return &mixes[i];
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strcasecmp(aliases[i].name, name) == 0)
            return &mixes[aliases[i].mix];
    return NULL;
}

const struct mix *mix_by_file_type(uint32_t file_type)
{
    for (size_t i = 0; i < MIX_COUNT; i++)
        if (mixes[i].file_type == file_type)
            return &mixes[i];
    return NULL;
}

size_t mix_count(void)
{
    return MIX_COUNT;
}

const struct mix *mix_at(size_t i)
{
    return i < MIX_COUNT ? &mixes[i] : NULL;
}

enum mix_index mix_index(const struct mix *mix)
{
    return (enum mix_index)(mix - mixes);
}

/* --- names ------------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    bool whole; /* the whole name, else anywhere in it */
    enum category category;
} categories[] = {
    {"output.weight", true, CAT_HEAD},
    {"token_embd.weight", true, CAT_EMBEDDING},
    {"per_layer_token_embd.weight", true, CAT_EMBEDDING},
    {"attn_qkv.weight", false, CAT_V},
    {"attn_kv_b.weight", false, CAT_V},
    {"attn_v.weight", false, CAT_V},
    {"attn_k.weight", false, CAT_K},
    {"attn_q.weight", false, CAT_Q},
    {"attn_output.weight", false, CAT_OUT},
    {"ffn_up", false, CAT_UP},
    {"ffn_gate", false, CAT_GATE},
    {"ffn_down", false, CAT_DOWN},
};

enum category category_of(const char *name)
{
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++)
        if (categories[i].whole ? strcmp(name, categories[i].text) == 0
                                : strstr(name, categories[i].text) != NULL)
            return categories[i].category;
    return CAT_OTHER;
}

/* --- rules ------------------------------------------------------------------------------------- */

/* A condition of a rule. `i` of `n` is the layer and the number of layers, or for CAT_V the count of such
 * tensors so far and in all. Divisions are of integers. */
enum condition {
    GROUPED_4 = 1 << 0, /* four or more query heads share a KV head */
    EXPERTS_4 = 1 << 1, /* four or more experts */
    EXPERTS_8 = 1 << 2, /* exactly eight */
    FALCON = 1 << 3,
    NOT_FALCON = 1 << 4,
    IMATRIX = 1 << 5,
    NO_IMATRIX = 1 << 6,
    STACKED = 1 << 7,      /* third dimension > 1: experts in one tensor */
    PARTIAL_ROWS = 1 << 8, /* rows are no multiple of the block of the mix's base type */
    FIRST_2 = 1 << 9,      /* i < 2 */
    FIRST_4 = 1 << 10,     /* i < 4 */
    FIRST_16TH = 1 << 11,  /* i < n/16 */
    FIRST_8TH = 1 << 12,   /* i < n/8 */
    MIDDLE = 1 << 13,      /* n/8 <= i < 7n/8 */
    MORE_BITS = 1 << 14,   /* the first and last eighth, and every third layer between */
    LARGE = 1 << 15,       /* the "70B" models, whose V is small */
};

#define M(name) (UINT64_C(1) << MIX_##name)

#define ALL  (~UINT64_C(0))
#define LOW  (M(IQ1_S) | M(IQ1_M) | M(IQ2_XXS) | M(IQ2_XS))
#define MID  (M(IQ2_S) | M(IQ2_M))
#define ANY  0xffff
#define BASE QTYPE_COUNT /* the base type of the mix */

struct rule {
    uint64_t mixes;
    unsigned categories, conditions; /* any of the categories, all of the conditions */
    enum qtype type;
};

/* The first row that fits decides; without one the base type. */
static const struct rule rules[] = {
    {M(MXFP4_MOE), CAT_HEAD, 0, QTYPE_Q8_0},
    {ALL, CAT_HEAD, FALCON, QTYPE_Q8_0},
    {ALL, CAT_HEAD, PARTIAL_ROWS, QTYPE_Q8_0},
    {LOW | MID | M(IQ3_XXS), CAT_HEAD, 0, QTYPE_Q5_K},
    {M(Q8_0), CAT_HEAD, 0, QTYPE_Q8_0},
    {ALL, CAT_HEAD, 0, QTYPE_Q6_K},

    {M(MXFP4_MOE), ANY, STACKED, QTYPE_MXFP4},
    {M(MXFP4_MOE), ANY, 0, QTYPE_Q8_0},

    {LOW, CAT_EMBEDDING, 0, QTYPE_Q2_K},
    {MID | M(IQ3_XXS), CAT_EMBEDDING, 0, QTYPE_IQ3_S},
    {M(TQ1_0) | M(TQ2_0) | M(Q2_0), CAT_EMBEDDING, 0, QTYPE_Q4_K},
    {ALL, CAT_EMBEDDING, 0, BASE},

    /* the lowest mixes have rules of their own */
    {LOW | MID, CAT_V, GROUPED_4, QTYPE_Q4_K},
    {LOW | MID, CAT_V, EXPERTS_4, QTYPE_Q4_K},
    {LOW, CAT_V, 0, QTYPE_Q2_K},
    {MID, CAT_V, 0, QTYPE_IQ3_S},
    {LOW | MID, CAT_K, EXPERTS_8, QTYPE_Q4_K},
    {LOW, CAT_DOWN, FIRST_8TH, QTYPE_Q2_K},
    {MID, CAT_DOWN, FIRST_8TH, QTYPE_IQ3_S},
    {LOW | MID, CAT_OUT, EXPERTS_8, QTYPE_Q5_K},
    {M(IQ1_S) | M(IQ1_M), CAT_OUT, 0, QTYPE_IQ2_XXS},
    {MID, CAT_OUT, 0, QTYPE_IQ3_S},
    {LOW | MID, ANY, 0, BASE},

    {ALL, CAT_V, EXPERTS_8, QTYPE_Q8_0},
    {M(Q2_K), CAT_V, GROUPED_4, QTYPE_Q4_K},
    {M(Q2_K), CAT_V, 0, QTYPE_Q3_K},
    {M(Q2_K_S) | M(IQ3_XXS) | M(IQ3_XS) | M(IQ3_S), CAT_V, GROUPED_4, QTYPE_Q4_K},
    {M(IQ3_XXS), CAT_V, NO_IMATRIX, QTYPE_IQ3_S},
    {M(IQ3_M), CAT_V, 0, QTYPE_Q4_K},
    {M(Q3_K_M), CAT_V, FIRST_2, QTYPE_Q5_K},
    {M(Q3_K_M), CAT_V, 0, QTYPE_Q4_K},
    {M(Q3_K_L), CAT_V, 0, QTYPE_Q5_K},
    {M(IQ4_NL) | M(IQ4_XS), CAT_V, GROUPED_4, QTYPE_Q5_K},
    {M(Q4_K_S), CAT_V, FIRST_4, QTYPE_Q5_K},
    {M(Q4_K_M) | M(Q5_K_M), CAT_V, MORE_BITS, QTYPE_Q6_K},

    {ALL, CAT_K, EXPERTS_8, QTYPE_Q8_0},
    {M(IQ3_XS), CAT_K | CAT_Q, 0, QTYPE_IQ3_XXS},
    {M(IQ3_XXS), CAT_K | CAT_Q, 0, QTYPE_IQ2_S},

    {M(Q2_K), CAT_DOWN, 0, QTYPE_Q3_K},
    {M(Q2_K_S), CAT_DOWN, FIRST_8TH, QTYPE_Q4_K},
    {M(IQ3_XXS), CAT_DOWN, NO_IMATRIX | FIRST_8TH, QTYPE_Q4_K},
    {M(IQ3_XXS), CAT_DOWN, NO_IMATRIX, QTYPE_Q3_K},
    {M(Q3_K_M), CAT_DOWN, FIRST_16TH, QTYPE_Q5_K},
    {M(Q3_K_M), CAT_DOWN, NOT_FALCON, QTYPE_Q4_K},
    {M(Q3_K_M), CAT_DOWN, MORE_BITS, QTYPE_Q4_K},
    {M(IQ3_M), CAT_DOWN, FIRST_8TH, QTYPE_Q4_K},
    {M(IQ3_M), CAT_DOWN, EXPERTS_8 | MORE_BITS, QTYPE_Q4_K},
    {M(Q3_K_L), CAT_DOWN, FALCON, QTYPE_Q4_K},
    {M(Q3_K_L), CAT_DOWN, 0, QTYPE_Q5_K},
    {M(Q4_K_M), CAT_DOWN, FALCON | FIRST_16TH, QTYPE_Q6_K},
    {M(Q4_K_M), CAT_DOWN, FALCON | MORE_BITS, QTYPE_Q5_K},
    {M(Q4_K_M), CAT_DOWN, NOT_FALCON | MORE_BITS, QTYPE_Q6_K},
    {M(Q4_K_S), CAT_DOWN, NOT_FALCON | FIRST_8TH, QTYPE_Q5_K},
    {M(Q5_K_M), CAT_DOWN, MORE_BITS, QTYPE_Q6_K},
    {M(IQ4_NL) | M(IQ4_XS), CAT_DOWN, NO_IMATRIX | FIRST_8TH, QTYPE_Q5_K},
    {M(Q4_0), CAT_DOWN, IMATRIX | FIRST_8TH, QTYPE_Q4_1},
    {M(Q5_0), CAT_DOWN, IMATRIX | FIRST_8TH, QTYPE_Q5_1},

    {M(Q3_K_L), CAT_OUT, FALCON, QTYPE_Q4_K},
    {ALL, CAT_OUT, FALCON, BASE},
    {M(Q2_K) | M(Q3_K_S) | M(Q3_K_M) | M(Q4_K_S) | M(Q4_K_M) | M(IQ3_XXS) | M(IQ3_XS) | M(IQ3_S) | M(IQ3_M) |
         M(IQ4_NL) | M(IQ4_XS),
     CAT_OUT, EXPERTS_8, QTYPE_Q5_K},
    {ALL, CAT_OUT, EXPERTS_8, BASE},
    {M(Q2_K), CAT_OUT, 0, QTYPE_Q3_K},
    {M(Q3_K_M) | M(IQ3_M), CAT_OUT, 0, QTYPE_Q4_K},
    {M(Q3_K_L), CAT_OUT, 0, QTYPE_Q5_K},
    {M(IQ3_XXS), CAT_OUT, 0, QTYPE_IQ3_S},

    {M(IQ3_XS), CAT_GATE | CAT_UP, MIDDLE, QTYPE_IQ3_XXS},
};

/* After the rules: V of the large models is an eighth of Q and worth five bits. */
static const struct {
    uint64_t mixes;
    unsigned categories, conditions;
    enum qtype from, to;
} raises[] = {
    {ALL & ~(LOW | MID | M(MXFP4_MOE)), CAT_V, LARGE, QTYPE_Q3_K, QTYPE_Q5_K},
    {ALL & ~(LOW | MID | M(MXFP4_MOE)), CAT_V, LARGE, QTYPE_Q4_K, QTYPE_Q5_K},
};

/* The conditions that hold. */
static unsigned conditions_of(const struct rule_state *s, const struct mix *mix, const uint64_t ne[4],
                              uint64_t i, uint64_t n)
{
    const bool more_bits = i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    const bool partial = ne[0] % qtype_info((uint32_t)mix->base)->block_elems != 0;
    return (s->heads_per_kv >= 4 ? GROUPED_4 : 0u) | (s->n_experts >= 4 ? EXPERTS_4 : 0u) |
           (s->n_experts == 8 ? EXPERTS_8 : 0u) | (s->is_falcon ? FALCON : NOT_FALCON) |
           (s->has_imatrix ? IMATRIX : NO_IMATRIX) | (ne[2] > 1 ? STACKED : 0u) |
           (partial ? PARTIAL_ROWS : 0u) | (i < 2 ? FIRST_2 : 0u) | (i < 4 ? FIRST_4 : 0u) |
           (i < n / 16 ? FIRST_16TH : 0u) | (i < n / 8 ? FIRST_8TH : 0u) |
           (i >= n / 8 && i < 7 * n / 8 ? MIDDLE : 0u) | (more_bits ? MORE_BITS : 0u) |
           (s->is_large ? LARGE : 0u);
}

enum qtype rule_type(struct rule_state *s, const struct mix *mix, enum category category, const char *name,
                     const uint64_t ne[4])
{
    const uint64_t bit = UINT64_C(1) << mix_index(mix);
    uint64_t *seen = category == CAT_V      ? &s->seen_v
                     : category == CAT_DOWN ? &s->seen_down
                     : category == CAT_GATE ? &s->seen_gate
                     : category == CAT_UP   ? &s->seen_up
                                            : NULL;
    uint64_t i = seen != NULL ? *seen : 0;
    if (s->n_experts > 1 && category != CAT_V && seen != NULL && !(bit & (LOW | MID))) {
        /* experts are sprinkled over files, so the name tells the layer; one without stays with the count */
        const int64_t layer = tensor_layer(name, NULL);
        if (layer >= 0 && (uint64_t)layer < s->n_layers)
            i = (uint64_t)layer;
    }
    const unsigned held = conditions_of(s, mix, ne, i, category == CAT_V ? s->n_v : s->n_layers);
    enum qtype type = BASE;
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
        if ((rules[r].mixes & bit) && (rules[r].categories & category) &&
            (rules[r].conditions & held) == rules[r].conditions) {
            type = rules[r].type;
            break;
        }
    }
    if (type == BASE)
        type = mix->base;
    for (size_t r = 0; r < sizeof raises / sizeof *raises; r++) {
        if ((raises[r].mixes & bit) && (raises[r].categories & category) &&
            (raises[r].conditions & held) == raises[r].conditions && raises[r].from == type) {
            type = raises[r].to;
            break;
        }
    }
    if (seen != NULL)
        ++*seen;
    return type;
}

/* --- the model --------------------------------------------------------------------------------- */

/* The models the reference calls "70B": architecture and number of layers. */
static const struct {
    const char *arch;
    uint64_t n_layers;
    bool is_llama; /* then also: not eight experts, and grouped heads */
} large_models[] = {{"llama", 80, true}, {"llama-embed", 80, true}, {"qwen2", 80, false},
                    {"deci", 80, false}, {"olmo", 80, false},       {"jais2", 68, false}};

void rule_state_init(struct rule_state *s, const struct hparams *h)
{
    const char *arch = h->arch_name;
    const uint64_t heads = hparam_or(&h->n_heads, 0, 0);
    const uint64_t kv_heads = hparam_or(&h->n_kv_heads, 0, heads);
    *s = (struct rule_state){.n_layers = hparam_or(&h->n_blocks, 0, 0),
                             .n_experts = hparam_or(&h->n_experts, 0, 0),
                             .heads_per_kv = kv_heads > 0 ? heads / kv_heads : 0,
                             .is_falcon = strcmp(arch, "falcon") == 0};
    for (size_t i = 0; i < sizeof large_models / sizeof *large_models; i++)
        if (strcmp(arch, large_models[i].arch) == 0 && s->n_layers == large_models[i].n_layers &&
            (!large_models[i].is_llama || (s->n_experts != 8 && heads != kv_heads)))
            s->is_large = true;
    if (strcmp(arch, "nanbeige") == 0) { /* its blocks run several times and count as often */
        const uint64_t loops = hparam_or(&h->n_loops, 0, 1);
        if (loops >= 1 && s->n_layers <= UINT32_MAX && loops <= UINT32_MAX)
            s->n_layers *= loops;
    }
    if (s->n_layers > UINT32_MAX) /* nonsense from a file; keep 7*n from wrapping */
        s->n_layers = UINT32_MAX;
}
