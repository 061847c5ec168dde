/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arch.h - what a decoder is, in one description that the engine reads.
 *
 * A model family (one file in this room) turns a checkpoint's config.json
 * into a struct moe_arch and a table of tensor names.  Nothing above asks
 * for a family's name: whatever a family needs is a field here.
 */
#ifndef MOE_CORE_MODEL_ARCH_H
#define MOE_CORE_MODEL_ARCH_H

#include <moe/ops.h>
#include <moe/types.h>

struct moe_checkpoint;
struct moe_json;

/* The classes a configuration may give a weight format of its own. */
#define MOE_CLASS_EMBED     0u /* token embedding and output head */
#define MOE_CLASS_ATTENTION 1u
#define MOE_CLASS_ROUTER    2u
#define MOE_CLASS_EXPERT    3u /* routed experts */
#define MOE_CLASS_SHARED    4u /* shared experts */
#define MOE_CLASS_DENSE     5u /* feed-forward of dense layers */
#define MOE_CLASS_NORM      6u /* norms, biases: never quantized */
#define MOE_CLASSES         7u

/* Our names of a decoder's tensors; those of a layer exist once a layer,
 * those of an expert once an expert. */
enum moe_slot_name {
    MOE_T_EMBED,
    MOE_T_OUTPUT,       /* lm_head; absent when tied */
    MOE_T_OUTPUT_NORM,
    MOE_T_ATTN_NORM,    /* per layer from here */
    MOE_T_Q, MOE_T_K, MOE_T_V, MOE_T_O,
    MOE_T_Q_BIAS, MOE_T_K_BIAS, MOE_T_V_BIAS, MOE_T_O_BIAS,
    MOE_T_Q_NORM, MOE_T_K_NORM,
    MOE_T_FFN_NORM,
    MOE_T_GATE, MOE_T_UP, MOE_T_DOWN,             /* a dense layer's */
    MOE_T_ROUTER, MOE_T_ROUTER_BIAS,              /* selection bias */
    MOE_T_EXPERT_GATE, MOE_T_EXPERT_UP, MOE_T_EXPERT_DOWN, /* per expert */
    MOE_T_SHARED_GATE, MOE_T_SHARED_UP, MOE_T_SHARED_DOWN,
    MOE_T_SHARED_SCALE, /* (1, hidden): sigmoid of it scales the shared one */
    MOE_T_GATE_BIAS, MOE_T_UP_BIAS, MOE_T_DOWN_BIAS, /* a dense layer's */
    MOE_T_COUNT
};

#define MOE_FFN_DENSE 0u
#define MOE_FFN_MOE   1u

struct moe_layer {
    uint32_t ffn;       /* MOE_FFN_* */
    uint32_t ffn_width; /* of a dense layer */
    uint32_t window;    /* 0: full attention */
    uint32_t chunk;     /* 0: not chunked */
    uint32_t rot_dim;   /* 0: no rope in this layer */
};

struct moe_arch {
    char     family[32]; /* for people only */
    uint32_t hidden, n_layers, vocab;
    uint32_t heads, kv_heads, head_dim, v_dim;
    uint32_t max_context;
    float    norm_eps;
    uint32_t norm_kind;     /* MOE_NORM_* */
    uint32_t qk_norm;       /* as moe_op_rope_kv.norm_span */
    float    clip_qkv;      /* 0: none */
    float    attn_scale;    /* 1 / sqrt(head_dim) */
    float    embed_scale;   /* 1 */
    uint32_t tied;          /* output head is the embedding table */
    uint32_t rope_kind;     /* MOE_ROPE_* */
    float    rope_scale;    /* attention factor of scaled ropes, 1 else */
    float   *inv_freq;      /* (rot_dim / 2), f32; owned */
    uint32_t n_inv_freq;

    uint32_t n_experts, top_k, expert_width;
    uint32_t score;         /* MOE_SCORE_* */
    uint32_t renorm;
    float    route_scale;
    uint32_t n_group, topk_group;
    uint32_t input_scaled;  /* weights applied to the expert's input */
    uint32_t shared_width;  /* 0: no shared expert */
    uint32_t shared_gated;
    uint32_t act;           /* MOE_ACT_* */

    struct moe_layer *layers; /* (n_layers), owned */

    /* Patterns with {l} and {e}: "model.layers.{l}.mlp.gate.weight".  NULL:
     * the family has no such tensor.  Static strings. */
    const char *name[MOE_T_COUNT];
};

/*
 * Reads config.json and the list of tensors into *out.  A field that is
 * missing, contradictory or out of range is named, with the file; a family's
 * documented default is used only where the family's own code has it.
 * Unknown family: MOE_E_UNSUPPORTED with the nearest known names.  Checks
 * that every tensor is there, with the shape it must have; bytes are not
 * read.  Cold.
 */
moe_status moe_arch_read(const struct moe_checkpoint *c, struct moe_arch *out,
                         struct moe_error *err);
/* The same from config.json's keys alone, whether or not there are weights. */
moe_status moe_arch_config(const struct moe_json *config,
                           struct moe_arch *out, struct moe_error *err);
void moe_arch_free(struct moe_arch *a);

/* The checkpoint's name of a tensor into buf; MOE_E_NOT_FOUND if the family
 * has none, MOE_E_INVAL if it does not fit. */
moe_status moe_arch_name(const struct moe_arch *a, uint32_t tensor,
                         uint32_t layer, uint32_t expert, char *buf,
                         size_t size);

/* n x k of a matrix (vectors: n x 1) in layer `layer`; 0 x 0: absent there. */
void moe_arch_shape(const struct moe_arch *a, uint32_t tensor, uint32_t layer,
                    uint64_t *n, uint64_t *k);

/* Is there one of it a layer, one an expert? */
int moe_arch_per_layer(uint32_t tensor);
int moe_arch_per_expert(uint32_t tensor);

/* MOE_CLASS_* of one of our tensors.  MOE_CLASS_NORM: a vector, all others
 * are matrices. */
uint32_t    moe_arch_class(uint32_t tensor);
const char *moe_class_name(uint32_t cls); /* "experts", as in [quant] */

/* Parameters in all, and those that one token computes with (all but the
 * unchosen experts; the input embedding left out when it is not tied). */
void moe_arch_params(const struct moe_arch *a, uint64_t *total,
                     uint64_t *active);

/* The known families, "a b c": model_type names.  For messages and help. */
const char *moe_arch_families(void);

#endif /* MOE_CORE_MODEL_ARCH_H */
