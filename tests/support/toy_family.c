/* toy_family.c - see toy_family.h. */
#include "toy_family.h"

#include "formats/hf/safetensors_write.h"
#include "formats/output/output_file.h"
#include "libquant/base/rng.h"
#include "libquant/half.h"
#include "toy_tokenizer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define VOCAB     320
#define N_EXPERTS 8

const char *const toy_answer_names[] = {
    "embedding-last", "embedding-mean", "embedding-first", "embedding-vl-last",
    "score",          "reward",         "stepreward",      NULL};

const char *const toy_family_names[] = {
    "qwen",      "mixtral",         "qwen2moe",        "qwen3moe",       "qwen3next",  "qwen35",
    "qwen35moe", "mixtral-stacked", "qwen2moe-window", "qwen3moe-mixed", "qwen3vlmoe", "olmo2",
    "smollm3",   "granite",         "gemma2",          "gemma3",         "phi3",       "glm4",
    "glm4moe",   "gptoss",          "deepseek3",       "deepseek2",      NULL};

/* LOUD: so that a clamp is met. */
enum fill { MATRIX, EMBED, NORM, ZERO_NORM, BIAS, DECAY, SINK, LOUD };

/* SPARSE and PLAIN: layers with experts, and those that have none (every other one; the first). */
enum where { GLOBAL, EVERY, ATTENTION, LINEAR, SPARSE, PLAIN };

struct row {
    const char *families; /* names between spaces */
    enum where where;
    const char *name; /* after "model.layers.N." unless GLOBAL; "J": once for each expert */
    enum fill fill;
    uint32_t shape[3];
};

#define Q1   " qwen "
#define MIX1 " mixtral "
#define MIX2 " mixtral-stacked "
#define MIX  MIX1 MIX2
#define Q2                                                                                                   \
    " qwen2moe "                                                                                             \
    " qwen2moe-window "
#define Q3ONE    " qwen3moe "
#define Q3MIX    " qwen3moe-mixed "
#define Q3VL     " qwen3vlmoe "
#define Q3       Q3ONE Q3MIX Q3VL
#define NEXT     " qwen3next "
#define Q35      " qwen35 "
#define Q35MOE   " qwen35moe "
#define HYBRID   NEXT Q35 Q35MOE
#define MOE      Q2 Q3 NEXT Q35MOE
#define ALL      MIX MOE Q35
#define SEPARATE Q2 Q3ONE NEXT Q35MOE
#define OLMO2    " olmo2 "
#define SMOLLM3  " smollm3 "
#define GRANITE  " granite "
#define OTHERS   OLMO2 SMOLLM3 GRANITE /* dense, not of the Qwen or Llama houses */
#define GEMMA3   " gemma3 "
#define GEMMA    " gemma2 " GEMMA3
#define PHI3     " phi3 "
#define GLM4     " glm4 "
#define GLM4MOE  " glm4moe "
#define OSS      " gptoss "
#define DS3      " deepseek3 "
#define DS2      " deepseek2 "
#define DS       DS3 DS2
#define GLM      GLM4 GLM4MOE
/* Dense models that answer once for a text. */
#define EMBED3 " embedding-last embedding-mean embedding-first embedding-vl-last "
#define SCORE3 " score "
#define REWARD " reward "
#define STEPS  " stepreward "
#define DENSE3 EMBED3 SCORE3
#define DENSE2 REWARD STEPS
#define DENSE  DENSE3 DENSE2

/* Width 64; 4 query and 2 key heads of 16; experts of 32; delta net: 2 key and 4 value heads of 8, kernel 4.
 */
static const struct row rows[] = {
    {Q1, GLOBAL, "transformer.wte.weight", EMBED, {VOCAB, 64}},
    {Q1, GLOBAL, "transformer.ln_f.weight", NORM, {64}},
    {Q1, GLOBAL, "lm_head.weight", EMBED, {VOCAB, 64}},
    {Q1, EVERY, "ln_1.weight", NORM, {64}},
    {Q1, EVERY, "ln_2.weight", NORM, {64}},
    {Q1, EVERY, "attn.c_attn.weight", MATRIX, {192, 64}},
    {Q1, EVERY, "attn.c_attn.bias", BIAS, {192}},
    {Q1, EVERY, "attn.c_proj.weight", MATRIX, {64, 64}},
    {Q1, EVERY, "mlp.w1.weight", MATRIX, {96, 64}},
    {Q1, EVERY, "mlp.w2.weight", MATRIX, {96, 64}},
    {Q1, EVERY, "mlp.c_proj.weight", MATRIX, {64, 96}},
    {ALL DENSE OTHERS GEMMA PHI3 GLM OSS DS, GLOBAL, "model.embed_tokens.weight", EMBED, {VOCAB, 64}},
    {MIX MOE DENSE2 OLMO2 PHI3 GLM OSS DS, GLOBAL, "lm_head.weight", EMBED, {VOCAB, 64}},
    {SCORE3, GLOBAL, "score.weight", MATRIX, {1, 64}},
    {DENSE2, GLOBAL, "score.0.weight", MATRIX, {64, 64}},
    {DENSE2, GLOBAL, "score.0.bias", BIAS, {64}},
    {REWARD, GLOBAL, "score.2.weight", MATRIX, {1, 64}},
    {REWARD, GLOBAL, "score.2.bias", BIAS, {1}},
    {STEPS, GLOBAL, "score.2.weight", MATRIX, {2, 64}},
    {STEPS, GLOBAL, "score.2.bias", BIAS, {2}},
    {MIX Q2 Q3 DENSE OTHERS PHI3 GLM OSS DS, GLOBAL, "model.norm.weight", NORM, {64}},
    {HYBRID GEMMA, GLOBAL, "model.norm.weight", ZERO_NORM, {64}},
    {MIX Q2 Q3 DENSE SMOLLM3 GRANITE PHI3 GLM OSS DS, EVERY, "input_layernorm.weight", NORM, {64}},
    {HYBRID GEMMA, EVERY, "input_layernorm.weight", ZERO_NORM, {64}},
    {MIX Q2 Q3 DENSE OTHERS PHI3 GLM OSS DS, EVERY, "post_attention_layernorm.weight", NORM, {64}},
    {HYBRID GEMMA, EVERY, "post_attention_layernorm.weight", ZERO_NORM, {64}},
    {GEMMA, EVERY, "pre_feedforward_layernorm.weight", ZERO_NORM, {64}},
    {GEMMA, EVERY, "post_feedforward_layernorm.weight", ZERO_NORM, {64}},
    {MIX Q2 Q3 DENSE OTHERS GEMMA GLM OSS, ATTENTION, "self_attn.q_proj.weight", MATRIX, {64, 64}},
    {HYBRID, ATTENTION, "self_attn.q_proj.weight", MATRIX, {128, 64}},
    {ALL DENSE OTHERS GEMMA GLM OSS, ATTENTION, "self_attn.k_proj.weight", MATRIX, {32, 64}},
    {ALL DENSE OTHERS GEMMA GLM OSS, ATTENTION, "self_attn.v_proj.weight", MATRIX, {32, 64}},
    {ALL DENSE OTHERS GEMMA PHI3 GLM OSS DS, ATTENTION, "self_attn.o_proj.weight", MATRIX, {64, 64}},
    {DS3, ATTENTION, "self_attn.q_a_proj.weight", MATRIX, {24, 64}},
    {DS3, ATTENTION, "self_attn.q_a_layernorm.weight", NORM, {24}},
    {DS3, ATTENTION, "self_attn.q_b_proj.weight", MATRIX, {96, 24}},
    {DS2, ATTENTION, "self_attn.q_proj.weight", MATRIX, {96, 64}},
    {DS, ATTENTION, "self_attn.kv_a_proj_with_mqa.weight", MATRIX, {40, 64}},
    {DS, ATTENTION, "self_attn.kv_a_layernorm.weight", NORM, {32}},
    {DS, ATTENTION, "self_attn.kv_b_proj.weight", MATRIX, {128, 32}},
    {OSS, ATTENTION, "self_attn.o_proj.bias", BIAS, {64}},
    {OSS, ATTENTION, "self_attn.sinks", SINK, {4}},
    {OSS, EVERY, "mlp.router.weight", MATRIX, {N_EXPERTS, 64}},
    {OSS, EVERY, "mlp.router.bias", BIAS, {N_EXPERTS}},
    {OSS, EVERY, "mlp.experts.gate_up_proj", LOUD, {N_EXPERTS, 64, 64}},
    {OSS, EVERY, "mlp.experts.gate_up_proj_bias", BIAS, {N_EXPERTS, 64}},
    {OSS, EVERY, "mlp.experts.down_proj", MATRIX, {N_EXPERTS, 32, 64}},
    {OSS, EVERY, "mlp.experts.down_proj_bias", BIAS, {N_EXPERTS, 64}},
    {PHI3, ATTENTION, "self_attn.qkv_proj.weight", MATRIX, {128, 64}},
    {Q2 DENSE2 GLM OSS, ATTENTION, "self_attn.q_proj.bias", BIAS, {64}},
    {Q2 DENSE2 GLM OSS, ATTENTION, "self_attn.k_proj.bias", BIAS, {32}},
    {Q2 DENSE2 GLM OSS, ATTENTION, "self_attn.v_proj.bias", BIAS, {32}},
    {Q3 DENSE3 GLM4MOE, ATTENTION, "self_attn.q_norm.weight", NORM, {16}},
    {Q3 DENSE3 GLM4MOE, ATTENTION, "self_attn.k_norm.weight", NORM, {16}},
    {OLMO2, EVERY, "post_feedforward_layernorm.weight", NORM, {64}},
    {OLMO2, ATTENTION, "self_attn.q_norm.weight", NORM, {64}},
    {OLMO2, ATTENTION, "self_attn.k_norm.weight", NORM, {32}},
    {HYBRID GEMMA3, ATTENTION, "self_attn.q_norm.weight", ZERO_NORM, {16}},
    {HYBRID GEMMA3, ATTENTION, "self_attn.k_norm.weight", ZERO_NORM, {16}},
    {NEXT, LINEAR, "linear_attn.in_proj_qkvz.weight", MATRIX, {96, 64}},
    {NEXT, LINEAR, "linear_attn.in_proj_ba.weight", MATRIX, {8, 64}},
    {Q35 Q35MOE, LINEAR, "linear_attn.in_proj_qkv.weight", MATRIX, {64, 64}},
    {Q35 Q35MOE, LINEAR, "linear_attn.in_proj_z.weight", MATRIX, {32, 64}},
    {Q35 Q35MOE, LINEAR, "linear_attn.in_proj_b.weight", MATRIX, {4, 64}},
    {Q35 Q35MOE, LINEAR, "linear_attn.in_proj_a.weight", MATRIX, {4, 64}},
    {HYBRID, LINEAR, "linear_attn.conv1d.weight", MATRIX, {64, 1, 4}},
    {HYBRID, LINEAR, "linear_attn.A_log", DECAY, {4}},
    {HYBRID, LINEAR, "linear_attn.dt_bias", DECAY, {4}},
    {HYBRID, LINEAR, "linear_attn.norm.weight", NORM, {8}},
    {HYBRID, LINEAR, "linear_attn.out_proj.weight", MATRIX, {64, 32}},
    {Q35 DENSE OTHERS GEMMA, EVERY, "mlp.gate_proj.weight", MATRIX, {96, 64}},
    {Q35 DENSE OTHERS GEMMA, EVERY, "mlp.up_proj.weight", MATRIX, {96, 64}},
    {Q35 DENSE OTHERS GEMMA PHI3 GLM4, EVERY, "mlp.down_proj.weight", MATRIX, {64, 96}},
    {PHI3 GLM4, EVERY, "mlp.gate_up_proj.weight", MATRIX, {192, 64}},
    {GLM4, EVERY, "post_self_attn_layernorm.weight", NORM, {64}},
    {GLM4, EVERY, "post_mlp_layernorm.weight", NORM, {64}},
    {Q3MIX GLM4MOE DS, PLAIN, "mlp.gate_proj.weight", MATRIX, {96, 64}},
    {Q3MIX GLM4MOE DS, PLAIN, "mlp.up_proj.weight", MATRIX, {96, 64}},
    {Q3MIX GLM4MOE DS, PLAIN, "mlp.down_proj.weight", MATRIX, {64, 96}},
    {MOE MIX2 GLM4MOE DS, SPARSE, "mlp.gate.weight", MATRIX, {N_EXPERTS, 64}},
    {GLM4MOE DS3, SPARSE, "mlp.gate.e_score_correction_bias", BIAS, {N_EXPERTS}},
    {GLM4MOE DS, SPARSE, "mlp.shared_experts.gate_proj.weight", MATRIX, {64, 64}},
    {GLM4MOE DS, SPARSE, "mlp.shared_experts.up_proj.weight", MATRIX, {64, 64}},
    {GLM4MOE DS, SPARSE, "mlp.shared_experts.down_proj.weight", MATRIX, {64, 64}},
    {SEPARATE GLM4MOE DS, SPARSE, "mlp.experts.J.gate_proj.weight", MATRIX, {32, 64}},
    {SEPARATE GLM4MOE DS, SPARSE, "mlp.experts.J.up_proj.weight", MATRIX, {32, 64}},
    {SEPARATE GLM4MOE DS, SPARSE, "mlp.experts.J.down_proj.weight", MATRIX, {64, 32}},
    /* as newer transformers write them; for qwen3vlmoe as published, with the last axes swapped, where
     * gate and up together are square */
    {Q3MIX MIX2 Q3VL, SPARSE, "mlp.experts.gate_up_proj", MATRIX, {N_EXPERTS, 64, 64}},
    {Q3MIX MIX2, SPARSE, "mlp.experts.down_proj", MATRIX, {N_EXPERTS, 64, 32}},
    {Q3VL, SPARSE, "mlp.experts.down_proj", MATRIX, {N_EXPERTS, 32, 64}},
    {Q2 NEXT Q35MOE, EVERY, "mlp.shared_expert.gate_proj.weight", MATRIX, {32, 64}},
    {Q2 NEXT Q35MOE, EVERY, "mlp.shared_expert.up_proj.weight", MATRIX, {32, 64}},
    {Q2 NEXT Q35MOE, EVERY, "mlp.shared_expert.down_proj.weight", MATRIX, {64, 32}},
    {Q2 NEXT Q35MOE, EVERY, "mlp.shared_expert_gate.weight", MATRIX, {1, 64}},
    {MIX1, EVERY, "block_sparse_moe.gate.weight", MATRIX, {N_EXPERTS, 64}},
    {MIX1, EVERY, "block_sparse_moe.experts.J.w1.weight", MATRIX, {32, 64}},
    {MIX1, EVERY, "block_sparse_moe.experts.J.w2.weight", MATRIX, {64, 32}},
    {MIX1, EVERY, "block_sparse_moe.experts.J.w3.weight", MATRIX, {32, 64}},
};

#define COMMON                                                                                               \
    "\"hidden_size\": 64, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 320, "     \
    "\"max_position_embeddings\": 512, \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-06, "                  \
    "\"bos_token_id\": 317, "                                                                                \
    "\"eos_token_id\": 317, \"torch_dtype\": \"bfloat16\", "
#define PLAIN_ROPE "\"num_hidden_layers\": 3, \"rope_theta\": 10000.0, "
#define EXPERTS                                                                                              \
    "\"num_experts\": 8, \"num_experts_per_tok\": 3, \"moe_intermediate_size\": 32, "                        \
    "\"decoder_sparse_step\": 1, "                                                                           \
    "\"mlp_only_layers\": [], "
#define SHARED "\"shared_expert_intermediate_size\": 32, "
#define LINEAR_KEYS                                                                                          \
    "\"num_hidden_layers\": 4, \"head_dim\": 16, \"linear_conv_kernel_dim\": 4, \"linear_key_head_dim\": "   \
    "8, "                                                                                                    \
    "\"linear_num_key_heads\": 2, \"linear_num_value_heads\": 4, \"linear_value_head_dim\": 8, "             \
    "\"layer_types\": [\"linear_attention\", \"linear_attention\", \"linear_attention\", "                   \
    "\"full_attention\"], "
#define PARTIAL_ROPE                                                                                         \
    "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0, \"partial_rotary_factor\": " \
    "0.5, "                                                                                                  \
    "\"mrope_interleaved\": true, \"mrope_section\": [2, 1, 1]}, "

#define LATENT                                                                                               \
    "\"hidden_size\": 64, \"num_attention_heads\": 4, \"num_key_value_heads\": 4, \"vocab_size\": 320, "     \
    "\"max_position_embeddings\": 512, \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-06, "                  \
    "\"bos_token_id\": 317, \"eos_token_id\": 317, \"torch_dtype\": \"bfloat16\", " PLAIN_ROPE               \
    "\"intermediate_size\": 96, \"kv_lora_rank\": 32, \"qk_rope_head_dim\": 8, \"qk_nope_head_dim\": 16, "   \
    "\"v_head_dim\": 16, \"n_routed_experts\": 8, \"num_experts_per_tok\": 3, \"moe_intermediate_size\": "   \
    "32, "                                                                                                   \
    "\"n_shared_experts\": 2, \"first_k_dense_replace\": 1, \"attention_bias\": false, "

#define GEMMA_CONFIG                                                                                         \
    "\"hidden_size\": 64, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 16, "        \
    "\"vocab_size\": 320, \"intermediate_size\": 96, \"max_position_embeddings\": 512, "                     \
    "\"hidden_activation\": \"gelu_pytorch_tanh\", \"rms_norm_eps\": 1e-06, \"query_pre_attn_scalar\": 16, " \
    "\"sliding_window\": 20, \"tie_word_embeddings\": true, \"bos_token_id\": 317, \"eos_token_id\": 317, "  \
    "\"torch_dtype\": \"bfloat16\", "

#define DENSE3_CONFIG                                                                                        \
    "\"model_type\": \"qwen3\", " COMMON PLAIN_ROPE "\"head_dim\": 16, \"intermediate_size\": 96, "          \
    "\"use_sliding_window\": false, \"tie_word_embeddings\": true}"
#define DENSE2_CONFIG                                                                                        \
    "\"model_type\": \"qwen2\", " COMMON PLAIN_ROPE "\"intermediate_size\": 96, "                            \
    "\"use_sliding_window\": false, \"tie_word_embeddings\": false}"
#define EMBEDDING_CONFIG "{\"architectures\": [\"Qwen3ForCausalLM\"], " DENSE3_CONFIG

static const struct {
    const char *name, *config;
} configs[] = {
    {"qwen", /* trained on 48 tokens only: longer texts show dynamic NTK and logn scaling */
     "{\"architectures\": [\"QWenLMHeadModel\"], \"model_type\": \"qwen\", \"hidden_size\": 64, "
     "\"num_attention_heads\": 4, \"num_hidden_layers\": 3, \"intermediate_size\": 192, \"kv_channels\": 16, "
     "\"vocab_size\": 320, \"max_position_embeddings\": 512, \"seq_length\": 48, \"layer_norm_epsilon\": "
     "1e-06, \"rotary_emb_base\": 10000, \"rotary_pct\": 1.0, \"use_dynamic_ntk\": true, "
     "\"use_logn_attn\": true, \"no_bias\": true, \"tie_word_embeddings\": false}"},
    {"mixtral",
     "{\"architectures\": [\"MixtralForCausalLM\"], \"model_type\": \"mixtral\", " COMMON PLAIN_ROPE
     "\"intermediate_size\": 32, \"num_local_experts\": 8, \"num_experts_per_tok\": 3, "
     "\"sliding_window\": null, \"tie_word_embeddings\": false}"},
    {"qwen2moe",
     "{\"architectures\": [\"Qwen2MoeForCausalLM\"], \"model_type\": \"qwen2_moe\", " COMMON PLAIN_ROPE
         EXPERTS SHARED
     "\"intermediate_size\": 96, \"norm_topk_prob\": false, \"use_sliding_window\": false, "
     "\"tie_word_embeddings\": false}"},
    {"qwen3moe",
     "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\", " COMMON PLAIN_ROPE
         EXPERTS "\"head_dim\": 16, \"intermediate_size\": 96, \"norm_topk_prob\": true, "
     "\"use_sliding_window\": false, \"tie_word_embeddings\": false}"},
    {"mixtral-stacked",
     "{\"architectures\": [\"MixtralForCausalLM\"], \"model_type\": \"mixtral\", " COMMON PLAIN_ROPE
     "\"intermediate_size\": 32, \"num_local_experts\": 8, \"num_experts_per_tok\": 3, "
     "\"sliding_window\": null, \"tie_word_embeddings\": false}"},
    {"qwen2moe-window",
     "{\"architectures\": [\"Qwen2MoeForCausalLM\"], \"model_type\": \"qwen2_moe\", " COMMON PLAIN_ROPE
         EXPERTS SHARED "\"intermediate_size\": 96, \"norm_topk_prob\": true, \"use_sliding_window\": true, "
     "\"sliding_window\": 9, \"max_window_layers\": 3, \"tie_word_embeddings\": false}"},
    {"qwen3moe-mixed",
     "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\", " COMMON PLAIN_ROPE
     "\"num_experts\": 8, \"num_experts_per_tok\": 3, \"moe_intermediate_size\": 32, "
     "\"decoder_sparse_step\": 2, \"head_dim\": 16, \"intermediate_size\": 96, \"norm_topk_prob\": false, "
     "\"use_sliding_window\": true, \"sliding_window\": 50, \"tie_word_embeddings\": false}"},
    {"qwen3vlmoe",
     "{\"architectures\": [\"Qwen3VLMoeForConditionalGeneration\"], \"model_type\": "
     "\"qwen3_vl_moe_text\", " COMMON PLAIN_ROPE EXPERTS "\"head_dim\": 16, \"intermediate_size\": 96, "
     "\"rope_scaling\": {\"rope_type\": \"default\", \"mrope_interleaved\": true, \"mrope_section\": [4, 2, "
     "2]}, \"tie_word_embeddings\": false}"},
    {"qwen3next",
     "{\"architectures\": [\"Qwen3NextForCausalLM\"], \"model_type\": \"qwen3_next\", " COMMON EXPERTS SHARED
         LINEAR_KEYS "\"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.5, \"intermediate_size\": 96, "
     "\"norm_topk_prob\": true, \"tie_word_embeddings\": false}"},
    {"qwen35",
     "{\"architectures\": [\"Qwen3_5ForCausalLM\"], \"model_type\": \"qwen3_5_text\", " COMMON LINEAR_KEYS
         PARTIAL_ROPE "\"intermediate_size\": 96, \"tie_word_embeddings\": true}"},
    {"qwen35moe",
     "{\"architectures\": [\"Qwen3_5MoeForCausalLM\"], \"model_type\": \"qwen3_5_moe_text\", " COMMON EXPERTS
         SHARED LINEAR_KEYS PARTIAL_ROPE "\"tie_word_embeddings\": false}"},
    {"gemma2", "{\"architectures\": [\"Gemma2ForCausalLM\"], \"model_type\": \"gemma2\", " GEMMA_CONFIG
               "\"num_hidden_layers\": 3, \"rope_theta\": 10000.0, \"attn_logit_softcapping\": 5.0, "
               "\"final_logit_softcapping\": 4.0}"},
    {"gemma3",
     "{\"architectures\": [\"Gemma3ForCausalLM\"], \"model_type\": \"gemma3_text\", " GEMMA_CONFIG
     "\"num_hidden_layers\": 7, \"sliding_window_pattern\": 6, \"rope_theta\": 1000000.0, "
     "\"rope_local_base_freq\": 10000.0, \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0}}"},
    {"olmo2", "{\"architectures\": [\"Olmo2ForCausalLM\"], \"model_type\": \"olmo2\", " COMMON PLAIN_ROPE
              "\"intermediate_size\": 96, \"tie_word_embeddings\": false}"},
    {"smollm3", "{\"architectures\": [\"SmolLM3ForCausalLM\"], \"model_type\": \"smollm3\", " COMMON
                "\"num_hidden_layers\": 5, \"rope_theta\": 10000.0, \"intermediate_size\": 96, "
                "\"no_rope_layer_interval\": 4, \"pad_token_id\": 317, \"tie_word_embeddings\": true}"},
    {"granite",
     "{\"architectures\": [\"GraniteForCausalLM\"], \"model_type\": \"granite\", " COMMON PLAIN_ROPE
     "\"intermediate_size\": 96, \"attention_multiplier\": 0.4, \"embedding_multiplier\": 6.0, "
     "\"residual_multiplier\": 0.35, \"logits_scaling\": 3.0, \"tie_word_embeddings\": true}"},
    {"phi3", /* longer texts than 48 tokens show the long factors */
     "{\"architectures\": [\"Phi3ForCausalLM\"], \"model_type\": \"phi3\", " COMMON
     "\"num_hidden_layers\": 3, \"rope_theta\": 10000.0, \"intermediate_size\": 96, \"sliding_window\": 70, "
     "\"original_max_position_embeddings\": 48, \"partial_rotary_factor\": 0.75, \"pad_token_id\": 317, "
     "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1.0, 1.25, 1.5, 2.0, 2.0, 2.5], "
     "\"long_factor\": [1.0, 1.5, 3.0, 6.0, 9.0, 11.0]}, \"tie_word_embeddings\": false}"},
    {"glm4", "{\"architectures\": [\"Glm4ForCausalLM\"], \"model_type\": \"glm4\", " COMMON PLAIN_ROPE
             "\"head_dim\": 16, \"intermediate_size\": 96, \"attention_bias\": true, "
             "\"partial_rotary_factor\": 0.5, \"pad_token_id\": 317, \"tie_word_embeddings\": false}"},
    {"glm4moe", /* groups of experts, of which two of four are looked at */
     "{\"architectures\": [\"Glm4MoeForCausalLM\"], \"model_type\": \"glm4_moe\", " COMMON PLAIN_ROPE
     "\"head_dim\": 16, \"intermediate_size\": 96, \"attention_bias\": true, \"use_qk_norm\": true, "
     "\"partial_rotary_factor\": 0.5, \"n_routed_experts\": 8, \"num_experts_per_tok\": 3, "
     "\"moe_intermediate_size\": 32, \"n_shared_experts\": 2, \"first_k_dense_replace\": 1, \"n_group\": 4, "
     "\"topk_group\": 2, \"routed_scaling_factor\": 1.5, \"norm_topk_prob\": true, "
     "\"num_nextn_predict_layers\": 0, \"tie_word_embeddings\": false}"},
    {"gptoss",
     "{\"architectures\": [\"GptOssForCausalLM\"], \"model_type\": \"gpt_oss\", " COMMON
     "\"num_hidden_layers\": 3, \"head_dim\": 16, \"intermediate_size\": 32, \"num_local_experts\": 8, "
     "\"num_experts_per_tok\": 3, \"sliding_window\": 20, \"rope_theta\": 10000.0, \"swiglu_limit\": 7.0, "
     "\"attention_bias\": true, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8.0, \"beta_fast\": "
     "32.0, "
     "\"beta_slow\": 1.0, \"truncate\": false, \"original_max_position_embeddings\": 64}, "
     "\"tie_word_embeddings\": false}"},
    {"deepseek3", /* latents of 24 and 32, heads of 16 and 8 rotated entries; experts in groups */
     "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"deepseek_v3\", " LATENT
     "\"q_lora_rank\": 24, \"n_group\": 4, \"topk_group\": 2, \"routed_scaling_factor\": 1.5, "
     "\"norm_topk_prob\": true, \"rope_interleave\": true, \"num_nextn_predict_layers\": 0, "
     "\"rope_scaling\": "
     "{\"rope_type\": \"yarn\", \"factor\": 8.0, \"beta_fast\": 32.0, \"beta_slow\": 1.0, \"mscale\": 1.0, "
     "\"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 64}, \"tie_word_embeddings\": false}"},
    {"deepseek2",
     "{\"architectures\": [\"DeepseekV2ForCausalLM\"], \"model_type\": \"deepseek_v2\", " LATENT
     "\"q_lora_rank\": null, \"topk_method\": \"group_limited_greedy\", \"n_group\": 4, \"topk_group\": 2, "
     "\"routed_scaling_factor\": 2.0, \"norm_topk_prob\": false, \"tie_word_embeddings\": false}"},
    {"embedding-last", EMBEDDING_CONFIG},
    {"embedding-mean", EMBEDDING_CONFIG},
    {"embedding-first", EMBEDDING_CONFIG},
    {"embedding-vl-last", /* positions in three sections, which are the same for text */
     "{\"architectures\": [\"Qwen3VLForConditionalGeneration\"], \"model_type\": \"qwen3_vl\", "
     "\"tie_word_embeddings\": true, \"text_config\": {\"model_type\": \"qwen3_vl_text\", " COMMON
     "\"num_hidden_layers\": 3, \"head_dim\": 16, \"intermediate_size\": 96, \"rope_parameters\": "
     "{\"rope_type\": \"default\", \"rope_theta\": 5000000.0, \"mrope_interleaved\": true, "
     "\"mrope_section\": [4, 2, 2]}, \"tie_word_embeddings\": true}, \"vision_config\": {\"depth\": 2, "
     "\"hidden_size\": 32, \"intermediate_size\": 64, \"num_heads\": 2, \"out_hidden_size\": 64, "
     "\"patch_size\": 4, \"num_position_embeddings\": 16, \"deepstack_visual_indexes\": [0]}}"},
    {"score", "{\"architectures\": [\"Qwen3ForSequenceClassification\"], \"id2label\": {\"0\": \"LABEL_0\"}, "
              "\"pad_token_id\": 318, " DENSE3_CONFIG},
    {"reward", "{\"architectures\": [\"Qwen2ForRewardModel\"], " DENSE2_CONFIG},
    {"stepreward", "{\"architectures\": [\"Qwen2ForProcessRewardModel\"], " DENSE2_CONFIG},
};

static bool belongs_to(const char *families, const char *family)
{
    char word[32];
    snprintf(word, sizeof word, " %s ", family);
    return strstr(families, word) != NULL;
}

static double value(enum fill fill, uint32_t n_cols, struct rng *r)
{
    double z = rng_normal(r);
    switch (fill) {
    case MATRIX:
        return z * 1.3 / (n_cols > 32 ? 8.0 : n_cols > 4 ? 5.6 : 2.0); /* about sqrt of the columns */
    case EMBED: return z * 0.25;
    case NORM: return 1 + 0.25 * z;
    case ZERO_NORM: return 0.25 * z;
    case BIAS: return 0.4 * z;
    case DECAY: return 0.5 * z - 0.5;
    case SINK: return 1.5 * z;
    case LOUD: return z / 2;
    }
    return 0;
}

typedef int (*visit)(struct safetensors_writer *w, const char *name, const struct row *r, struct rng *rng,
                     struct err *e);

static uint64_t n_dims_of(const struct row *r)
{
    return r->shape[2] ? 3 : r->shape[1] ? 2 : 1;
}

static int declare(struct safetensors_writer *w, const char *name, const struct row *r, struct rng *rng,
                   struct err *e)
{
    (void)rng;
    return safetensors_writer_add(w, name, ST_BF16, (uint32_t)n_dims_of(r),
                                  (uint64_t[]){r->shape[0], r->shape[1], r->shape[2]}, e);
}

static int fill_tensor(struct safetensors_writer *w, const char *name, const struct row *r, struct rng *rng,
                       struct err *e)
{
    (void)name;
    uint16_t buffer[N_EXPERTS * 64 * 64];
    size_t n = r->shape[0], n_cols = r->shape[2] ? r->shape[2] : r->shape[1];
    for (uint64_t d = 1; d < n_dims_of(r); d++)
        n *= r->shape[d];
    for (size_t i = 0; i < n; i++)
        buffer[i] = f32_to_bf16((float)value(r->fill, (uint32_t)n_cols, rng));
    return safetensors_writer_write(w, buffer, n * sizeof *buffer, e);
}

/* One row of the table: one tensor, or one for each layer and expert that has it. */
static int visit_row(struct safetensors_writer *w, const struct row *r, const char *family, uint32_t n_layers,
                     bool hybrid, visit fn, struct rng *rng, struct err *e)
{
    static const char model[] = "model.";
    bool inner = strstr(family, "-vl-") != NULL; /* the text model is a part */
    const char *layers = strcmp(r->families, Q1) == 0 ? "transformer.h"
                         : inner                      ? "model.language_model.layers"
                                                      : "model.layers";
    char name[160], rest[128];
    int rc = 0;
    if (r->where == GLOBAL) {
        snprintf(name, sizeof name, "model.language_model.%s", r->name + sizeof model - 1);
        bool moved = inner && strncmp(r->name, model, sizeof model - 1) == 0;
        return fn(w, moved ? name : r->name, r, rng, e);
    }
    const char *expert = strstr(r->name, ".J.");
    for (uint32_t layer = 0; rc == 0 && layer < n_layers; layer++) {
        bool linear = hybrid && layer % 4 != 3;
        bool dense = (strcmp(family, "qwen3moe-mixed") == 0 && layer % 2 == 0) ||
                     (belongs_to(GLM4MOE DS, family) && layer == 0);
        if ((r->where == LINEAR && !linear) || (r->where == ATTENTION && linear) ||
            (r->where == SPARSE && dense) || (r->where == PLAIN && !dense))
            continue;
        for (int j = 0; rc == 0 && j < (expert ? N_EXPERTS : 1); j++) {
            snprintf(rest, sizeof rest, "%s", r->name);
            if (expert)
                snprintf(rest, sizeof rest, "%.*s.%d.%s", (int)(expert - r->name), r->name, j, expert + 3);
            snprintf(name, sizeof name, "%s.%u.%s", layers, layer, rest);
            rc = fn(w, name, r, rng, e);
        }
    }
    return rc;
}

static int visit_all(struct safetensors_writer *w, const char *family, visit fn, struct err *e)
{
    bool hybrid = strcmp(family, "qwen3next") == 0 || strncmp(family, "qwen35", 6) == 0;
    bool windows = strcmp(family, "gemma3") == 0; /* of which every sixth has none */
    uint32_t n_layers = windows ? 7 : strcmp(family, "smollm3") == 0 ? 5 : hybrid ? 4 : 3;
    struct rng rng = {20261120};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof rows / sizeof *rows; i++)
        if (belongs_to(rows[i].families, family))
            rc = visit_row(w, &rows[i], family, n_layers, hybrid, fn, &rng, e);
    return rc;
}

/* The files by which sentence-transformers says how an embedding is made. */
static int write_pooling(const char *folder, const char *name, struct err *e)
{
    static const char modules[] = "[{\"idx\": 0, \"name\": \"0\", \"path\": \"\", \"type\": "
                                  "\"sentence_transformers.models.Transformer\"}, "
                                  "{\"idx\": 1, \"name\": \"1\", \"path\": \"1_Pooling\", \"type\": "
                                  "\"sentence_transformers.models.Pooling\"}, "
                                  "{\"idx\": 2, \"name\": \"2\", \"path\": \"2_Normalize\", \"type\": "
                                  "\"sentence_transformers.models.Normalize\"}]";
    static const char *const modes[][2] = {
        {"-last", "lasttoken"}, {"-mean", "mean_tokens"}, {"-first", "cls_token"}};
    char path[4096], text[128];
    snprintf(path, sizeof path, "%s/modules.json", folder);
    int rc = output_file_write_all(path, modules, sizeof modules - 1, true, e);
    snprintf(path, sizeof path, "%s/1_Pooling", folder);
    if (rc == 0 && mkdir(path, 0777) != 0 && errno != EEXIST)
        return err_set(e, ERR_IO, "%s: %s", path, strerror(errno));
    snprintf(path, sizeof path, "%s/1_Pooling/config.json", folder);
    for (size_t i = 0; rc == 0 && i < 3; i++)
        if (strstr(name, modes[i][0])) {
            snprintf(text, sizeof text, "{\"word_embedding_dimension\": 64, \"pooling_mode_%s\": true}",
                     modes[i][1]);
            rc = output_file_write_all(path, text, strlen(text), true, e);
        }
    return rc;
}

int toy_family_write(const char *folder, const char *name, struct err *e)
{
    char path[4096];
    const char *config = NULL;
    struct safetensors_writer *w = NULL;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        if (strcmp(configs[i].name, name) == 0)
            config = configs[i].config;
    if (!config)
        return err_set(e, ERR_ARG, "no toy family '%s'", name);
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return err_set(e, ERR_IO, "%s: %s", folder, strerror(errno));
    snprintf(path, sizeof path, "%s/config.json", folder);
    int rc = output_file_write_all(path, config, strlen(config), true, e);
    if (rc == 0)
        rc = toy_tokenizer_write(folder, VOCAB, 1, e);
    if (rc == 0 && strncmp(name, "embedding", 9) == 0)
        rc = write_pooling(folder, name, e);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (rc == 0)
        rc = safetensors_writer_open(&w, path, true, e);
    if (rc != 0)
        return rc;
    rc = safetensors_writer_metadata(w, "format", "pt", e);
    if (rc == 0)
        rc = visit_all(w, name, declare, e);
    if (rc == 0)
        rc = visit_all(w, name, fill_tensor, e);
    if (rc == 0)
        return safetensors_writer_commit(w, e);
    safetensors_writer_abort(w);
    return rc;
}
