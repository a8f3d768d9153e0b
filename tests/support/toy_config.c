/* toy_config.c - see toy_config.h. */
#include "toy_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Numbers in which no two products are equal by accident. */
static const char base_config[] =
    "\"vocab_size\": 1009, \"hidden_size\": 96, \"num_hidden_layers\": 3,"
    "\"num_attention_heads\": 6, \"num_key_value_heads\": 2, \"intermediate_size\": 224,"
    "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0,"
    "\"num_experts\": 5, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 40,"
    "\"shared_expert_intermediate_size\": 56, \"linear_num_key_heads\": 2,"
    "\"linear_num_value_heads\": 6, \"linear_key_head_dim\": 5, \"linear_value_head_dim\": 5,"
    "\"linear_conv_kernel_dim\": 3, \"num_labels\": 2, \"n_shared_experts\": 3,"
    "\"q_lora_rank\": 22, \"kv_lora_rank\": 26, \"qk_nope_head_dim\": 14, \"qk_rope_head_dim\": 10, "
    "\"v_head_dim\": 18, \"text_vocab_size\": 60, \"text_hidden_size\": 36";

struct hf_config *toy_config(const char *class_name, const char *extra)
{
    char text[2048];
    struct err e = {0};
    struct hf_config *c = NULL;
    int n = snprintf(text, sizeof text, "{\"architectures\": [\"%s\"], %s%s%s}", class_name, base_config,
                     extra[0] ? ", " : "", extra);
    assert_true(n > 0 && (size_t)n < sizeof text);
    if (hf_config_parse(&c, text, (size_t)n, "config.json", &e) != 0)
        fail_msg("%s", e.msg);
    return c;
}

void toy_config_refused(const char *class_name, const char *extra, int code, const char *want)
{
    struct err e = {0};
    struct arch_model a;
    struct hf_config *c = toy_config(class_name, extra);
    assert_int_equal(arch_resolve(&a, c, &e), code);
    if (!strstr(e.msg, want))
        fail_msg("'%s' does not contain '%s'", e.msg, want);
    hf_config_free(c);
}

void toy_config_resolve(struct arch_model *a, struct hf_config **c, const char *class_name, const char *extra)
{
    struct err e = {0};
    *c = toy_config(class_name, extra);
    if (arch_resolve(a, *c, &e) != 0)
        fail_msg("%s", e.msg);
}

int toy_config_warning(void *ctx, const char *text, struct err *e)
{
    (void)e;
    if (ctx)
        snprintf(ctx, 200, "%s", text);
    return 0;
}
