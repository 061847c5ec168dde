/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llama.c - Llama and Mistral: dense decoders with grouped attention.
 *
 * Mistral adds a sliding window to every layer.  Its class has a window of
 * 4096 when config.json does not speak of it; later releases write null.
 */

#include <model/family.h>

static moe_status
read_llama(const struct moe_json *config, struct moe_arch *a,
           struct moe_error *err)
{
    static const struct moe_family_defaults defaults = {
        .norm_eps = 1e-6, .rope_theta = 1e4, .kv_as_heads = 1
    };
    uint32_t   attention_bias = 0, mlp_bias = 0;
    moe_status status;

    status = moe_family_common(config, &defaults, a, err);
    if (status == MOE_OK)
        status = moe_family_dense(config, a, err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "attention_bias", 0,
                                  &attention_bias, err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "mlp_bias", 0, &mlp_bias, err);
    if (status != MOE_OK)
        return status;
    if (attention_bias)
        moe_family_attention_bias(a, 1);
    if (mlp_bias) {
        a->name[MOE_T_GATE_BIAS] = "model.layers.{l}.mlp.gate_proj.bias";
        a->name[MOE_T_UP_BIAS] = "model.layers.{l}.mlp.up_proj.bias";
        a->name[MOE_T_DOWN_BIAS] = "model.layers.{l}.mlp.down_proj.bias";
    }
    return MOE_OK;
}

static moe_status
read_mistral(const struct moe_json *config, struct moe_arch *a,
             struct moe_error *err)
{
    static const struct moe_family_defaults defaults = {
        .norm_eps = 1e-6, .rope_theta = 1e4
    };
    moe_status status;

    status = moe_family_common(config, &defaults, a, err);
    if (status == MOE_OK)
        status = moe_family_dense(config, a, err);
    if (status == MOE_OK)
        status = moe_family_window(config, 4096, a, err);
    return status;
}

const struct moe_family moe_family_llama = { "llama", read_llama };
const struct moe_family moe_family_mistral = { "mistral", read_mistral };
