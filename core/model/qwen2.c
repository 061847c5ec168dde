/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwen2.c - Qwen2 and Qwen2.5, dense: q, k and v have biases, which
 * config.json does not mention.  The last layers, from max_window_layers on,
 * may slide.
 */

#include <model/family.h>

static int
slides(uint32_t layer, uint32_t max_window_layers)
{
    return layer >= max_window_layers;
}

static moe_status
read_qwen2(const struct moe_json *config, struct moe_arch *a,
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
        status = moe_family_layer_windows(config, slides, a, err);
    if (status == MOE_OK)
        moe_family_attention_bias(a, 0);
    return status;
}

const struct moe_family moe_family_qwen2 = { "qwen2", read_qwen2 };
