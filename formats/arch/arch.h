/* arch.h - what a model family is: names, shapes, transformations and metadata keys, as data.
 *
 * One file per family holds one `struct arch`; the converter, the loader, the forward pass and the tables of
 * the documentation read it, so a new family is a new file and a line in arch.c.
 *
 * Names. A row pairs a HuggingFace name with a GGUF name. In both, a path component `N` stands for the layer
 * index; in the HuggingFace name `J` stands for an expert, and the J = 0..E-1 matrices are stacked. Several
 * rows may produce the same GGUF tensor (alternative layouts of a checkpoint: the first that is there
 * counts), and several may read the same HuggingFace tensor (fused weights).
 *
 * Shapes are text, slowest dimension first as in HuggingFace: "H*d,D". The symbols are those of arch_symbol
 * below; a term may be a product or exact quotient, a dimension a sum: "2*Hk*dk+Hv*dv".
 *
 * Truth: specification, architectures 0 to 17. */
#ifndef KERF_ARCH_H
#define KERF_ARCH_H

#include "formats/gguf/gguf_meta.h"
#include "formats/hf/hf_class_defaults.h"
#include "formats/hf/hf_config.h"
#include "libquant/base/arena.h"

#include <stdio.h>

/* Numbers of a configuration (specification, architectures 0.1), by their text names V D L H Hkv d F E K Fe
 * Fs Es Hk Hv dk dv Kc C R Qr Kr Rd dn dm Tv Td Tc. */
enum arch_symbol {
    ARCH_V,   /* rows of the embedding  */
    ARCH_D,   /* model width            */
    ARCH_L,   /* layers                 */
    ARCH_H,   /* query heads            */
    ARCH_HKV, /* key/value heads        */
    ARCH_HD,  /* "d": head dimension    */
    ARCH_F,   /* dense FFN width        */
    ARCH_E,   /* experts                */
    ARCH_K,   /* experts per token      */
    ARCH_FE,  /* expert FFN width       */
    ARCH_FS,  /* shared expert width    */
    ARCH_ES,  /* shared experts         */
    ARCH_HK,  /* key heads of a gated delta net; HV, DK, DV, KC: value heads, head dims, convolution length */
    ARCH_HV,
    ARCH_DK,
    ARCH_DV,
    ARCH_KC,
    ARCH_C, /* labels of a score head; known for models that have one */
    ARCH_R, /* rotated entries of a head */
    /* Attention over latents: their widths for queries and keys, what configurations call the rotated part,
     * the part of a key that is not rotated, and a value. */
    ARCH_QR,
    ARCH_KR,
    ARCH_RD,
    ARCH_DN,
    ARCH_DM,
    /* Of a model that speaks: rows and width of the embedding of text, and rows of that of sound, which stand
     * behind those of text in a file. */
    ARCH_TV,
    ARCH_TD,
    ARCH_TC,
    ARCH_N_TEXT,
    /* Towers (formats/tower): vision width, FFN width, layers, heads, channels, sides of a patch and of a
     * group that is merged, frames of a patch, width of what comes out, positions, FFN width by width; Vd Vf
     * Vn Vh Vc Vp Vm Vt Vo Vx Vr. */
    ARCH_VD = ARCH_N_TEXT,
    ARCH_VR,
    ARCH_VF,
    ARCH_VN,
    ARCH_VH,
    ARCH_VC,
    ARCH_VP,
    ARCH_VM,
    ARCH_VT,
    ARCH_VO,
    ARCH_VX,
    ARCH_N_VISION,
    /* Audio width, FFN width, layers, heads, mel bins, positions, width of what comes out, channels of the
     * two-dimensional convolutions, and columns of the matrix behind them; Ad Af An Ah Am Ax Ao Ac Aw. */
    ARCH_AD = ARCH_N_VISION,
    ARCH_AF,
    ARCH_AN,
    ARCH_AH,
    ARCH_AM,
    ARCH_AX,
    ARCH_AO,
    ARCH_AC,
    ARCH_AW,
    /* Layers that predict codes, layers that decode them, and steps in which decoding lengthens them (Gn Wn
     * Wu): set by the tower that has them. */
    ARCH_GN,
    ARCH_WN,
    ARCH_WU,
    ARCH_N_SYMBOLS,
};

#define ARCH_MAX_LAYERS 4096
#define ARCH_MAX_EXTRA  64 /* prediction blocks */

/* What a model makes of its final states. */
enum arch_answer {
    ARCH_TOKENS, /* a distribution over the next token */
    ARCH_YES_NO, /* two rows of the language head, "yes" and "no": a Qwen3 reranker (specification,
                    architectures 12) */
    ARCH_SCORE,  /* score.weight: classes "...ForSequenceClassification" with one or two labels */
    ARCH_REWARD, /* score.0, ReLU, score.2: reward models (specification, architectures 5.6) */
};

/* A descriptor applied to one configuration. Immutable after arch_resolve. */
struct arch_model {
    const struct arch *arch;
    const struct hf_config *config; /* borrowed */
    uint64_t value[ARCH_N_SYMBOLS];
    bool known[ARCH_N_SYMBOLS];  /* a value exists, from the file, the class default or a fallback */
    bool stated[ARCH_N_SYMBOLS]; /* ... from the file or the class default: worth a metadata key */
    struct hf_rope rope;
    bool tied;        /* effective tie_word_embeddings */
    bool has_ones;    /* what ARCH_ADD_ONE adds is in the weights already: hybrids as MLX stores them */
    uint64_t n_extra; /* multi-token-prediction blocks that are kept, numbered L, L+1, ... */
    enum arch_answer answer;
    uint64_t label_rows[2];                       /* ARCH_YES_NO: which rows */
    uint64_t linear_layers[ARCH_MAX_LAYERS / 64]; /* bit per layer: gated delta net; set by hybrid families */
    uint64_t dense_layers[ARCH_MAX_LAYERS / 64];  /* bit per layer: no experts, in a family that has them */
    /* Of a tower: the parts of the configuration (borrowed; NULL: it has none), and a bit for each vision
     * layer whose features enter the text layers. */
    const struct json *vision, *audio;
    uint64_t deepstack_layers[ARCH_MAX_LAYERS / 64];
};

struct vocabulary;

/* Index map from the output to the source: over rows for matrices (all leading dimensions flattened), over
 * elements for vectors. */
typedef uint64_t (*arch_map)(const struct arch_model *a, uint64_t out);

enum arch_presence {
    ARCH_REQUIRED,
    ARCH_OPTIONAL,
    ARCH_HEAD, /* the language head: rule of tied embeddings, specification, architectures 0.6 */
};

/* Arithmetic in float32, after widening. */
enum arch_op {
    ARCH_KEEP,
    ARCH_ADD_ONE,  /* w + 1: zero-centred norm scales */
    ARCH_NEG_EXP,  /* -exp(w): A_log */
    ARCH_EXP,      /* exp(w) */
    ARCH_INV_EXP,  /* 1 / (exp(w) + 1e-9) */
    ARCH_DIVIDE,   /* each row by its number in `with`, which is taken for at least 1e-5 */
    ARCH_PAD_ROWS, /* as it is, with rows of zeros behind those of the source; `rows` maps these anywhere */
    /* Rows x of the source become W2 silu(W1 x + b1) + b2, and those of E stand behind them; `parts` are W1,
     * b1, W2, b2 and E. */
    ARCH_FOLD,
};

/* A tensor that a row needs beside its source, and its shape. */
struct arch_part {
    const char *hf, *shape;
};
#define ARCH_FOLD_PARTS 5

/* The element type of an output, where the family fixes it. */
enum arch_type {
    ARCH_AS_NAMED,   /* F32 if arch_always_f32 says so, else what the file's type gives it */
    ARCH_F32,        /* F32 in every file */
    ARCH_F16,        /* F16 in every file */
    ARCH_F16_OR_F32, /* F16 in a file of type F16, F32 in every other */
};

struct arch_row {
    const char *hf;
    const char *gguf;
    const char *shape; /* of one source tensor; NULL: whatever it has, for which the weights must be there */
    bool narrow;       /* with that: its last axis has length 1, and falls away */
    const char *with;  /* of ARCH_DIVIDE: the tensor with a number for each row, per J where `hf` has it */
    const struct arch_part *parts; /* of ARCH_FOLD */
    enum arch_presence presence;
    const char *out;     /* shape of the output, slowest first; NULL: `shape`, behind "E," when `hf` has J */
    bool transpose;      /* swap the last two axes of the source first; `rows` and `cols` act on the result */
    arch_map rows, cols; /* NULL: identity. Not together with J */
    bool by_element; /* of a matrix: `rows` maps elements, and output rows may be shorter than the source's */
    enum arch_op op;
    bool (*when)(const struct arch_model *a, uint64_t layer); /* NULL: every layer */
    /* Of an optional row: the config flags, separated by '|', that say whether checkpoints have the tensor.
     * Asked only when the configuration is all there is; NULL: they do not have it. */
    const char *flag;
    enum arch_type type;
    /* Values of a tensor that no checkpoint holds, [all elements]; `hf` is then "". NULL: it is read. */
    void (*compute)(const struct arch_model *a, float *out);
};

/* Rows that several families share are kept in groups (arch_rows.h); a family may bind a group to some
 * layers. */
struct arch_group {
    const struct arch_row *rows;
    size_t n;
    bool (*when)(const struct arch_model *a,
                 uint64_t layer); /* in addition to that of the rows; NULL: always */
    const char *layers;           /* expression: how many its N counts; NULL: the layers of the text model */
};

/* A key of the family's own, written after those that all families share (specification, architectures 0.10).
 */
struct arch_key {
    const char *suffix;  /* behind "<architecture>." */
    enum gguf_type type; /* U32, F32 or BOOL */
    const char *expr;    /* U32: expression of symbols; else NULL */
    const char *field;   /* config fields separated by '|', the first present counts; else NULL */
    bool required;       /* absent value: an error; otherwise no key */
};

enum arch_quirk {
    ARCH_HEAD_MANDATORY = 1, /* the runtime has no fallback to the embedding: write it twice when tied */
    ARCH_RERANKER = 16,    /* folders of this family may hold a reranker (specification, architectures 12) */
    ARCH_POOLING = 2,      /* modules.json may name a pooling (specification, architectures 11.2) */
    ARCH_HEAD_DIM_KEY = 8, /* write key_length even when the configuration does not state head_dim */
    ARCH_ROPE_FREQS = 4,   /* "llama3" frequency scaling becomes the tensor rope_freqs.weight (17.3) */
    ARCH_LEADING_DENSE = 64, /* the runtime knows layers without experts before those that have them */
    ARCH_MTP_LAYERS =
        128,             /* prediction blocks are the layers behind the last, num_nextn_predict_layers of them
                          */
    ARCH_LONG_ROPE = 32, /* "longrope" scaling becomes two tensors, which the family has rows for */
};

/* Weights whose factor beside the blocks the runtime's graph of the family multiplies by; attention
 * projections and the head are understood in all. Read off llama.cpp (d32676d7). */
enum arch_factors {
    ARCH_FACTOR_FFN = 1,
    ARCH_FACTOR_EXPERTS = 2,
    ARCH_FACTOR_SHARED = 4,   /* shared experts */
    ARCH_FACTOR_DELTA = 8,    /* gated delta nets */
    ARCH_FACTOR_NOT_QKV = 16, /* not even q, k and v: their products bypass the factor */
};

/* How experts are scored; ids fixed by GGUF. */
enum arch_gating { ARCH_GATING_SOFTMAX = 1, ARCH_GATING_SIGMOID = 2 };

/* What a runtime computes as far as neither a key nor a tensor of a file says so. Parts of a layer that a
 * family lacks are NULL. Names are those of tensors behind "blk.N.". */
struct arch_runtime {
    /* Norms of what attention (or what stands in its place) and the feed-forward take, and of what they add.
     */
    const char *attn_norm, *ffn_norm, *attn_post_norm, *ffn_post_norm;
    uint32_t unrotated_period;   /* every n-th layer has no positions; 0: all have them */
    bool whole_qk_norm;          /* the norms of q and k go over all heads together */
    bool scaled;                 /* the factors in keys *scale count; logits are divided by theirs */
    bool neighbours;             /* rotary pairs are neighbours: rows of q and k are permuted in the file */
    bool fused_qkv;              /* attn_qkv in place of attn_q, attn_k and attn_v */
    bool fused_ffn;              /* ffn_up holds the rows of the gate, then its own */
    bool latent;                 /* attention over latents: attn_kv_a_mqa, attn_k_b, attn_v_b */
    bool gated;                  /* q holds an output gate for each head */
    bool hybrid;                 /* layers with a convolution are gated delta nets */
    bool tiled_heads;            /* order of value heads in the tensors of delta nets */
    uint32_t gating;             /* enum arch_gating, unless a key says another; 0: softmax */
    bool renormalise;            /* the weights of a token's experts sum to one, unless a key says not */
    bool scales_by_width;        /* embeddings are multiplied by the root of the width */
    bool sinks;                  /* attn_sinks: a score beside those of the keys */
    bool clamped;                /* SwiGLU of the experts is clamped */
    bool gelu;                   /* in the feed-forward, by tanh, in place of SiLU */
    bool capped;                 /* *_logit_softcapping count, and attention.scale where it is stated */
    uint32_t window_period;      /* every n-th layer sees all tokens, the others a window; 0: all have it */
    uint32_t wide_scale_layers;  /* a model of so many layers scales scores by the root of width / heads */
    double local_theta;          /* base of positions in layers with a window; 0: that of the others */
    bool predicts_without_cache; /* llama.cpp gives prediction blocks no cache */
    const char *not_run;         /* why no text can be run through the model; NULL: one can */
};

/* Receiver of remarks about what the output cannot express; a nonzero answer stops. */
struct arch_warnings {
    int (*add)(void *ctx, const char *text, struct err *e);
    void *ctx;
};

struct arch {
    const char *name;                /* general.architecture */
    const char *title;               /* for people: "Qwen2, Qwen2.5" */
    const char *const *classes;      /* HuggingFace class names, NULL-terminated */
    const char *const *model_types;  /* text model_types, NULL-terminated: used when no class is stated */
    const struct arch_group *groups; /* ended by a group without rows */
    const struct arch_key *keys;     /* ended by a NULL suffix; NULL: none */
    unsigned quirks;                 /* enum arch_quirk */
    unsigned factors;                /* enum arch_factors */
    struct arch_runtime runtime;
    const struct hf_class *defaults; /* of its configuration classes; ended by one without a name */
    /* What the classes of a tower's parts assume; ended by a NULL key; NULL: nothing. */
    const struct hf_class_value *vision_defaults, *audio_defaults;
    /* A folder within that of the checkpoint, whose tensors belong to the model as well and come first; NULL:
     * none. */
    const char *beside;
    /* Why a stripped name is left out, in place of arch_drop_reason; NULL: that. */
    const char *(*drop)(const char *name);
    /* Refuse what the descriptor cannot do; NULL: nothing to refuse. */
    int (*check)(struct arch_model *a, struct err *e);
    /* Keys that no table expresses, and warnings; NULL: none. */
    int (*add_keys)(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                    struct err *e);
    /* Tokens of a model whose embedding has more rows than the tokenizer fills, which are ARCH_TV then; NULL:
     * it fills all. */
    int (*add_tokens)(const struct arch_model *a, struct vocabulary *v, struct err *e);
    /* Changes to the tokenizer keys, which are already written; NULL: none. */
    int (*after_vocabulary)(const struct arch_model *a, const struct vocabulary *v, struct gguf_meta *meta,
                            struct err *e);
    /* Turn a stripped HuggingFace name into the one the rows use (multi-token-prediction blocks); `name`
     * itself when nothing changes, NULL when memory is refused. */
    const char *(*rename)(const struct arch_model *a, const char *name, struct arena *arena);
};

/* May the tensor `weight` (its GGUF name) have a factor "X.scale" beside it in files of this family? */
bool arch_reads_factor(const struct arch *arch, const char *weight);

/* Does the row exist in this layer? (0 for rows without N) */
bool arch_row_applies(const struct arch_model *a, const struct arch_group *g, const struct arch_row *row,
                      uint64_t layer);

/* How many layers the N of its rows counts. */
uint64_t arch_layers(const struct arch_model *a, const struct arch_group *g);

/* Does the configuration alone say that checkpoints have the tensor of this row? Not for ARCH_HEAD. */
bool arch_row_expected(const struct arch_model *a, const struct arch_row *row);

size_t arch_count(void);
const struct arch *arch_at(size_t i);

/* By HuggingFace class, or by model_type when `class_name` is "". ERR_UNSUPPORTED names it. */
int arch_find(const struct arch **out, const char *class_name, const char *model_type, struct err *e);

/* By GGUF architecture name; NULL when unknown. */
const struct arch *arch_by_name(const char *name);

/* Markdown rows "| title | classes | architecture |" of all families, for the README and --help. */
void arch_write_table(FILE *file);

/* Look up the family of `config` and evaluate its numbers. Errors: unknown family, a number that is missing,
 * zero or absurd, heads that do not divide. */
int arch_resolve(struct arch_model *out, const struct hf_config *config, struct err *e);

/* Evaluate symbols first .. end - 1, of the text or of the tower's part that they belong to. */
int arch_read_symbols(struct arch_model *a, int first, int end, struct err *e);

/* Can a token's n_used of n_experts be chosen in n_groups_used of n_groups? Groups are of equal size, hold
 * two experts or more, by which they are rated, and the chosen ones enough for a token. 0 or 1: no groups. */
bool arch_groups_fit(uint64_t n_experts, uint64_t n_used, uint64_t n_groups, uint64_t n_groups_used);

/* Value of an expression of symbols. False: unknown symbol, missing value, overflow or a remainder. */
bool arch_eval(const struct arch_model *a, const char *expr, uint64_t *out);

/* A shape of up to `max` dimensions, slowest first. ERR_FORMAT names the symbol that has no value. */
int arch_shape(const struct arch_model *a, const char *shape, uint64_t *dims, uint32_t max, uint32_t *n_dims,
               struct err *e);

/* Does `name` fit `pattern`? *layer and *expert are set where the pattern has N and J (both may be NULL). */
bool arch_match(const char *pattern, const char *name, uint64_t *layer, uint64_t *expert);

/* `pattern` with its N replaced. NULL when memory is refused. */
const char *arch_name_of(const char *pattern, uint64_t layer, struct arena *arena);

/* Prefix stripping of specification, architectures 0.8 (and `rename`). NULL when memory is refused; may
 * return `name`. */
const char *arch_strip(const struct arch_model *a, const char *name, struct arena *arena);

/* Does a stripped name belong to a prediction block of a family with ARCH_MTP_LAYERS? *block: which, from 0.
 */
bool arch_is_behind(const struct arch_model *a, const char *stripped, uint64_t *block);

/* Why a stripped name is left out (specification, architectures 0.7): a short reason, or NULL when it must be
 * mapped. */
const char *arch_drop_reason(const char *name);

/* Must this output tensor be F32 whatever is asked (specification, architectures 0.3, rule 1)? */
bool arch_always_f32(const char *gguf_name, uint32_t n_dims);

/* The <architecture>.* keys that all families have (specification, architectures 0.5, 0.10), and those of the
 * family. Pooling, which needs the folder, is not among them. */
int arch_add_common_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                         struct err *e);
int arch_add_own_keys(const struct arch_model *a, struct gguf_meta *meta, const struct arch_warnings *w,
                      struct err *e);

/* Set "<architecture>.<suffix>"; for descriptors. */
int arch_set_u32(const struct arch_model *a, struct gguf_meta *meta, const char *suffix, uint64_t v,
                 struct err *e);
int arch_set_f32(const struct arch_model *a, struct gguf_meta *meta, const char *suffix, double v,
                 struct err *e);

/* The tokens of training, from the key that arch_add_common_keys has set; false: it is not there. */
bool arch_context(const struct arch_model *a, const struct gguf_meta *meta, uint64_t *out);

int arch_set_strings(const struct arch_model *a, struct gguf_meta *meta, const char *suffix,
                     const struct gguf_string *v, size_t n, struct err *e);

/* Divisors of rope_freqs.weight for "llama3" scaling: phi[d/2] (specification, architectures 17.3). */
void arch_rope_freqs(const struct arch_model *a, float *phi);

#endif
