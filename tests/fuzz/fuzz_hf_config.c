/* fuzz_hf_config.c - any text as config.json, asked every question that others ask. */
#include "formats/hf/hf_config.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"hidden_size", "head_dim",   "rms_norm_eps", "tie_word_embeddings",
                                       "vocab_size",  "rope_theta", "layer_types",  "norm_topk_prob"};
    struct hf_config *c = NULL;
    struct err e = {0};
    if (hf_config_parse(&c, (const char *)data, size, "fuzz", &e) != 0) {
        if (e.code == ERR_OK || e.msg[0] == 0)
            abort();
        return 0;
    }
    if (!hf_config_architecture(c) || !hf_config_model_type(c) || !json_is_object(hf_config_root(c)))
        abort();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint64_t u;
        double d;
        bool b, present = false;
        bool is_uint = hf_config_uint(c, keys[i], &u, &present);
        if (present != (hf_config_get(c, keys[i]) != NULL))
            abort();
        if (is_uint && !hf_config_number(c, keys[i], &d, NULL))
            abort(); /* a whole number is a number */
        (void)hf_config_bool(c, keys[i], &b, NULL);
        (void)hf_config_string(c, keys[i]);
    }
    (void)hf_config_tied(c);
    struct hf_rope r;
    if (hf_config_rope(c, &r, &e) == 0) {
        if (!(r.theta > 0) || !isfinite(r.theta) || !(r.partial_rotary_factor > 0) ||
            !(r.partial_rotary_factor <= 1) || r.n_mrope_sections > 4 || !r.type_name)
            abort();
        if (r.has_factor && !(r.factor > 0))
            abort();
    }
    hf_config_free(c);
    return 0;
}
