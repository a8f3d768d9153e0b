/* smollm3.c - SmolLM3: a Llama whose every fourth layer has no positions.
 *
 * Truth: specification, architectures 27. */
#include "arch_rows.h"

static const char *const classes[] = {"SmolLM3ForCausalLM", NULL};
static const char *const model_types[] = {"smollm3", NULL};

static const struct arch_group groups[] = {
    ARCH_GROUP(arch_rows_global),
    ARCH_GROUP(arch_rows_norms),
    ARCH_GROUP(arch_rows_permuted_attention),
    ARCH_GROUP(arch_rows_ffn),
    ARCH_END_GROUPS,
};

#define PERIOD 4

/* no_rope_layers has a 1 for each layer that rotates; a list longer than the model is allowed. */
static int check_list(const struct arch_model *a, const struct json *list, struct err *e)
{
    const struct json *item = json_first(list);
    for (uint64_t i = 0; i < a->value[ARCH_L]; i++) {
        uint64_t rotates = 2;
        if (!item || !json_uint(item, &rotates) || rotates != ((i + 1) % PERIOD != 0))
            return err_set(
                e, ERR_UNSUPPORTED,
                "config.json: no_rope_layers does not leave out the positions of every %dth layer, "
                "which is all that 'smollm3' can express",
                PERIOD);
        item = json_next(item);
    }
    return 0;
}

static int check(struct arch_model *a, struct err *e)
{
    const struct json *list = hf_config_get(a->config, "no_rope_layers");
    uint64_t period = PERIOD, window;
    bool use = false;
    hf_config_uint(a->config, "no_rope_layer_interval", &period, NULL);
    hf_config_bool(a->config, "use_sliding_window", &use, NULL);
    if (use && hf_config_uint(a->config, "sliding_window", &window, NULL))
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: use_sliding_window is true, which 'smollm3' cannot express");
    if (!list && period != PERIOD)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: no_rope_layer_interval is %llu; 'smollm3' can express %d alone",
                       (unsigned long long)period, PERIOD);
    int rc = list ? check_list(a, list, e) : 0;
    return rc == 0 ? arch_check_even_heads(a, e) : rc;
}

static const struct hf_class defaults[] = {
    {{"smollm3"},
     {HF_SIZES(128256, 2048, 11008, 36, 16, 4), HF_CONTEXT(32768, 1e-6, 2e6, 1),
      HF_UINT("no_rope_layer_interval", PERIOD), HF_TIED(1)}},
    {.model_types = {NULL}},
};

const struct arch arch_smollm3 = {
    .name = "smollm3",
    .title = "SmolLM3",
    .classes = classes,
    .model_types = model_types,
    .groups = groups,
    .keys = arch_keys_llama,
    .check = check,
    .runtime = {.attn_norm = "attn_norm.weight",
                .ffn_norm = "ffn_norm.weight",
                .neighbours = true,
                .unrotated_period = PERIOD},
    .defaults = defaults,
};
