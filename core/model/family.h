/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family.h - what the family files of this room share.
 *
 * A family is one file with one read function: config.json's keys to the
 * fields of struct moe_arch, and the names of its tensors.  The readers here
 * take the keys that all decoders have in common; a family calls those that
 * fit and sets the rest itself.
 */
#ifndef MOE_CORE_MODEL_FAMILY_H
#define MOE_CORE_MODEL_FAMILY_H

#include <checkpoint/json.h>
#include <model/arch.h>

struct moe_family {
    const char *model_type;
    moe_status (*read)(const struct moe_json *config, struct moe_arch *a,
                       struct moe_error *err);
};

extern const struct moe_family moe_family_llama;
extern const struct moe_family moe_family_mistral;
extern const struct moe_family moe_family_mixtral;
extern const struct moe_family moe_family_olmoe;
extern const struct moe_family moe_family_qwen2;
extern const struct moe_family moe_family_qwen2_moe;
extern const struct moe_family moe_family_qwen3;
extern const struct moe_family moe_family_qwen3_moe;

/* Limits that keep products of sizes far from overflow.  The largest known
 * models stay below a hundredth of each. */
#define MOE_MAX_LAYERS  4096u
#define MOE_MAX_HIDDEN  (1u << 20)
#define MOE_MAX_WIDTH   (1u << 24) /* heads * head_dim, feed-forward */
#define MOE_MAX_VOCAB   (1u << 27)
#define MOE_MAX_EXPERTS 65536u
#define MOE_MAX_CONTEXT (1u << 30)

/* A key of which the transformers library has a default of its own. */
struct moe_family_defaults {
    double   norm_eps;
    double   rope_theta;
    uint32_t head_dim;   /* 0: hidden / heads */
    uint32_t kv_as_heads; /* a missing num_key_value_heads means as heads */
};

/*
 * Sizes, heads, context, norm, activation, tying and rope; allocates
 * a->layers (all dense, full attention) and a->inv_freq; sets the names of
 * embedding, output, norms and of a layer's q, k, v, o.
 */
moe_status moe_family_common(const struct moe_json *config,
                             const struct moe_family_defaults *d,
                             struct moe_arch *a, struct moe_error *err);

/* Biases of q, k, v and, if o, of the output projection. */
void moe_family_attention_bias(struct moe_arch *a, int o);
/* q_norm and k_norm; span as moe_op_rope_kv.norm_span. */
void moe_family_qk_norm(struct moe_arch *a, uint32_t span);
/* mlp.gate_proj, up_proj, down_proj of the dense layers. */
void moe_family_dense_names(struct moe_arch *a);
/* mlp.gate and mlp.experts.{e}.gate_proj, up_proj, down_proj. */
void moe_family_expert_names(struct moe_arch *a);

/* intermediate_size as the width of all layers that are dense. */
moe_status moe_family_dense(const struct moe_json *config, struct moe_arch *a,
                            struct moe_error *err);
/* n_experts from num_experts or num_local_experts (both: they must agree),
 * top_k, expert_width from the key that is given. */
moe_status moe_family_experts(const struct moe_json *config,
                              const char *width_key, struct moe_arch *a,
                              struct moe_error *err);
/* mlp_only_layers (each layer there and named once) and decoder_sparse_step
 * say which layers have experts. */
moe_status moe_family_sparse_layers(const struct moe_json *config,
                                    struct moe_arch *a,
                                    struct moe_error *err);

/* sliding_window for every layer; null or missing: `fallback` (0: none). */
moe_status moe_family_window(const struct moe_json *config, uint32_t fallback,
                             struct moe_arch *a, struct moe_error *err);
/* Qwen: use_sliding_window, sliding_window, layer_types.  Without
 * layer_types, layer l slides if slides(l, max_window_layers). */
moe_status moe_family_layer_windows(const struct moe_json *config,
                                    int (*slides)(uint32_t layer,
                                                  uint32_t max_window_layers),
                                    struct moe_arch *a,
                                    struct moe_error *err);

/* a->inv_freq, n_inv_freq, rope_scale, and max_context where a scaled rope
 * extends it; from rope_parameters, or rope_scaling and rope_theta. */
moe_status moe_rope_read(const struct moe_json *config, double default_theta,
                         struct moe_arch *a, struct moe_error *err);

#endif /* MOE_CORE_MODEL_FAMILY_H */
