/* SPDX-License-Identifier: Apache-2.0 */
/*
 * olmoe.c - OLMoE: every layer has experts, queries and keys are normalised
 * over their whole width, and may be clipped.  intermediate_size is the
 * expert's width; the weights of the chosen are used as they are unless
 * norm_topk_prob says otherwise.
 */

#include <model/family.h>

static moe_status
read_olmoe(const struct moe_json *config, struct moe_arch *a,
           struct moe_error *err)
{
    static const struct moe_family_defaults defaults = {
        .norm_eps = 1e-5, .rope_theta = 1e4, .kv_as_heads = 1
    };
    uint32_t   bias = 0, l;
    double     clip = 0;
    moe_status status;

    status = moe_family_common(config, &defaults, a, err);
    if (status == MOE_OK)
        status = moe_family_experts(config, "intermediate_size", a, err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "norm_topk_prob", 0, &a->renorm,
                                  err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "attention_bias", 0, &bias, err);
    if (status == MOE_OK)
        status = moe_json_float_or(config, "clip_qkv", 1e-6, 1e30, 0, &clip,
                                   err);
    if (status != MOE_OK)
        return status;
    if (a->n_experts == 0)
        return moe_fail(err, MOE_E_CORRUPT, 0, "%s: \"num_experts\" is 0",
                        config->file);
    if (a->heads * a->head_dim != a->hidden)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: %u heads of %u are not \"hidden_size\" %u, over "
                        "which this family normalises queries", config->file,
                        a->heads, a->head_dim, a->hidden);
    for (l = 0; l < a->n_layers; l++)
        a->layers[l].ffn = MOE_FFN_MOE;
    a->score = MOE_SCORE_SOFTMAX;
    a->clip_qkv = (float) clip;
    moe_family_qk_norm(a, 2);
    moe_family_expert_names(a);
    if (bias)
        moe_family_attention_bias(a, 1);
    return MOE_OK;
}

const struct moe_family moe_family_olmoe = { "olmoe", read_olmoe };
