/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwen3.c - Qwen3, dense: queries and keys are normalised head by head, and
 * head_dim is a key of its own (128 when missing, not hidden / heads).
 */

#include <model/family.h>

static int
slides(uint32_t layer, uint32_t max_window_layers)
{
    return layer >= max_window_layers;
}

static moe_status
read_qwen3(const struct moe_json *config, struct moe_arch *a,
           struct moe_error *err)
{
    static const struct moe_family_defaults defaults = {
        .norm_eps = 1e-6, .rope_theta = 1e4, .head_dim = 128
    };
    uint32_t   bias = 0;
    moe_status status;

    status = moe_family_common(config, &defaults, a, err);
    if (status == MOE_OK)
        status = moe_family_dense(config, a, err);
    if (status == MOE_OK)
        status = moe_family_layer_windows(config, slides, a, err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "attention_bias", 0, &bias, err);
    if (status != MOE_OK)
        return status;
    moe_family_qk_norm(a, 1);
    if (bias)
        moe_family_attention_bias(a, 1);
    return MOE_OK;
}

const struct moe_family moe_family_qwen3 = { "qwen3", read_qwen3 };
