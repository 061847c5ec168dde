/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwen3_moe.c - Qwen3-MoE: fine-grained experts, none shared; queries and
 * keys are normalised head by head.  intermediate_size is the width of the
 * dense layers only; norm_topk_prob is false unless the file says true,
 * which the published models do.  A window that is in use is every layer's.
 */

#include <model/family.h>

static int
slides(uint32_t layer, uint32_t max_window_layers)
{
    (void) layer;
    (void) max_window_layers;
    return 1;
}

static moe_status
read_qwen3_moe(const struct moe_json *config, struct moe_arch *a,
               struct moe_error *err)
{
    static const struct moe_family_defaults defaults = {
        .norm_eps = 1e-6, .rope_theta = 1e4
    };
    uint32_t   bias = 0;
    moe_status status;

    status = moe_family_common(config, &defaults, a, err);
    if (status == MOE_OK)
        status = moe_family_experts(config, "moe_intermediate_size", a, err);
    if (status == MOE_OK)
        status = moe_family_sparse_layers(config, a, err);
    if (status == MOE_OK)
        status = moe_family_dense(config, a, err);
    if (status == MOE_OK)
        status = moe_family_layer_windows(config, slides, a, err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "norm_topk_prob", 0, &a->renorm,
                                  err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "attention_bias", 0, &bias, err);
    if (status != MOE_OK)
        return status;
    moe_family_qk_norm(a, 1);
    if (bias)
        moe_family_attention_bias(a, 1);
    if (a->n_experts > 0) {
        a->score = MOE_SCORE_SOFTMAX;
        moe_family_expert_names(a);
    }
    return MOE_OK;
}

const struct moe_family moe_family_qwen3_moe = { "qwen3_moe",
                                                 read_qwen3_moe };
