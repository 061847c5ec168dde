/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwen2_moe.c - Qwen1.5-MoE and Qwen2-MoE: fine-grained experts beside a
 * shared one whose output a sigmoid gate scales.  intermediate_size is the
 * width of the dense layers only.  q, k and v have biases unless qkv_bias
 * denies it.  Of the first max_window_layers layers every other may slide.
 */

#include <model/family.h>

static int
slides(uint32_t layer, uint32_t max_window_layers)
{
    return layer % 2 == 0 && layer < max_window_layers;
}

static moe_status
read_qwen2_moe(const struct moe_json *config, struct moe_arch *a,
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
    if (status == MOE_OK && a->n_experts > 0)
        status = moe_json_u32(config, "shared_expert_intermediate_size", 1,
                              MOE_MAX_WIDTH, &a->shared_width, err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "norm_topk_prob", 0, &a->renorm,
                                  err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "qkv_bias", 1, &bias, err);
    if (status != MOE_OK)
        return status;
    if (bias)
        moe_family_attention_bias(a, 0);
    if (a->n_experts == 0)
        return MOE_OK;
    a->score = MOE_SCORE_SOFTMAX;
    a->shared_gated = 1;
    moe_family_expert_names(a);
    a->name[MOE_T_SHARED_GATE]
        = "model.layers.{l}.mlp.shared_expert.gate_proj.weight";
    a->name[MOE_T_SHARED_UP]
        = "model.layers.{l}.mlp.shared_expert.up_proj.weight";
    a->name[MOE_T_SHARED_DOWN]
        = "model.layers.{l}.mlp.shared_expert.down_proj.weight";
    a->name[MOE_T_SHARED_SCALE]
        = "model.layers.{l}.mlp.shared_expert_gate.weight";
    return MOE_OK;
}

const struct moe_family moe_family_qwen2_moe = { "qwen2_moe",
                                                 read_qwen2_moe };
