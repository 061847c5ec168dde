/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mixtral.c - Mixtral: every layer has experts, softmax over all of them,
 * the weights of the chosen renormalised.  intermediate_size is the expert's
 * width.  Experts keep Mistral's own names: w1 gate, w3 up, w2 down.
 */

#include <model/family.h>

static moe_status
read_mixtral(const struct moe_json *config, struct moe_arch *a,
             struct moe_error *err)
{
    static const struct moe_family_defaults defaults = {
        .norm_eps = 1e-5, .rope_theta = 1e6
    };
    moe_status status;
    uint32_t   l;

    status = moe_family_common(config, &defaults, a, err);
    if (status == MOE_OK)
        status = moe_family_experts(config, "intermediate_size", a, err);
    if (status == MOE_OK)
        status = moe_family_window(config, 0, a, err);
    if (status != MOE_OK)
        return status;
    if (a->n_experts == 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"num_local_experts\" is 0", config->file);
    for (l = 0; l < a->n_layers; l++)
        a->layers[l].ffn = MOE_FFN_MOE;
    a->score = MOE_SCORE_SOFTMAX;
    a->renorm = 1;
    a->name[MOE_T_ROUTER] = "model.layers.{l}.block_sparse_moe.gate.weight";
    a->name[MOE_T_EXPERT_GATE]
        = "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight";
    a->name[MOE_T_EXPERT_UP]
        = "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight";
    a->name[MOE_T_EXPERT_DOWN]
        = "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight";
    return MOE_OK;
}

const struct moe_family moe_family_mixtral = { "mixtral", read_mixtral };
