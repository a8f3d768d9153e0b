/* arch_factor.c - where the runtime multiplies by a factor that stands beside a weight's blocks.
 *
 * llama.cpp reads "X.scale" for the matrices below whatever the family, but only some of its graphs use them:
 * weights of other families, or other weights, would be off by their factor without a word, and a factor of a
 * tensor that is not in this list makes it refuse the file. */
#include "arch.h"

bool arch_reads_factor(const struct arch *arch, const char *weight)
{
    static const struct {
        const char *pattern;
        unsigned of;     /* enum arch_factors; 0: every family */
        unsigned unless; /* ... but not with one of these */
    } rows[] = {
        {"output.weight", 0, 0},
        {"blk.N.attn_q.weight", 0, ARCH_FACTOR_NOT_QKV},
        {"blk.N.attn_k.weight", 0, ARCH_FACTOR_NOT_QKV},
        {"blk.N.attn_v.weight", 0, ARCH_FACTOR_NOT_QKV},
        {"blk.N.attn_output.weight", 0, 0},
        {"blk.N.ffn_gate.weight", ARCH_FACTOR_FFN, 0},
        {"blk.N.ffn_up.weight", ARCH_FACTOR_FFN, 0},
        {"blk.N.ffn_down.weight", ARCH_FACTOR_FFN, 0},
        {"blk.N.ffn_gate_exps.weight", ARCH_FACTOR_EXPERTS, 0},
        {"blk.N.ffn_up_exps.weight", ARCH_FACTOR_EXPERTS, 0},
        {"blk.N.ffn_down_exps.weight", ARCH_FACTOR_EXPERTS, 0},
        {"blk.N.ffn_gate_shexp.weight", ARCH_FACTOR_SHARED, 0},
        {"blk.N.ffn_up_shexp.weight", ARCH_FACTOR_SHARED, 0},
        {"blk.N.ffn_down_shexp.weight", ARCH_FACTOR_SHARED, 0},
        {"blk.N.attn_qkv.weight", ARCH_FACTOR_DELTA, 0},
        {"blk.N.attn_gate.weight", ARCH_FACTOR_DELTA, 0},
        {"blk.N.ssm_alpha.weight", ARCH_FACTOR_DELTA, 0},
        {"blk.N.ssm_beta.weight", ARCH_FACTOR_DELTA, 0},
        {"blk.N.ssm_out.weight", ARCH_FACTOR_DELTA, 0},
        {"blk.N.nextn.eh_proj.weight", ARCH_FACTOR_DELTA | ARCH_FACTOR_SHARED, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (arch_match(rows[i].pattern, weight, NULL, NULL))
            return (rows[i].of == 0 || (arch->factors & rows[i].of) != 0) &&
                   (arch->factors & rows[i].unless) == 0;
    return false;
}
