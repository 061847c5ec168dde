/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family.c - the keys that decoders have in common.
 *
 * Owns the reading of sizes, windows and expert layouts under the names that
 * the transformers library gives them, with its defaults where its own code
 * has one that every release shares.  A size is never guessed: a missing one
 * is an error, since class defaults describe some other model.
 */

#include <model/family.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static moe_status
read_activation(const struct moe_json *config, struct moe_arch *a,
                struct moe_error *err)
{
    static const struct {
        const char *word;
        uint32_t    act;
    } acts[] = {
        { "silu", MOE_ACT_SILU },
        { "swish", MOE_ACT_SILU },
        { "gelu", MOE_ACT_GELU },
        { "gelu_python", MOE_ACT_GELU },
        { "gelu_new", MOE_ACT_GELU_TANH },
        { "gelu_fast", MOE_ACT_GELU_TANH },
        { "gelu_pytorch_tanh", MOE_ACT_GELU_TANH },
        { "relu", MOE_ACT_RELU },
    };
    char        show[MOE_SHOW_MAX + 4];
    const char *word;
    moe_status  status;
    size_t      i;

    status = moe_json_text_or(config, "hidden_act", "silu", &word, err);
    if (status != MOE_OK)
        return status;
    for (i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
        if (strcmp(acts[i].word, word) == 0) {
            a->act = acts[i].act;
            return MOE_OK;
        }
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "%s: \"hidden_act\": the activation \"%s\" is not known",
                    config->file, moe_show(word, show));
}

static moe_status
read_heads(const struct moe_json *config, const struct moe_family_defaults *d,
           struct moe_arch *a, struct moe_error *err)
{
    struct json_object *v;
    moe_status          status;

    status = moe_json_u32(config, "num_attention_heads", 1, MOE_MAX_WIDTH,
                          &a->heads, err);
    if (status != MOE_OK)
        return status;
    /* null says "as many as heads" everywhere, a missing key only to some */
    if (d->kv_as_heads
        || json_object_object_get_ex(config->obj, "num_key_value_heads", &v))
        status = moe_json_u32_or(config, "num_key_value_heads", 1,
                                 MOE_MAX_WIDTH, a->heads, &a->kv_heads, err);
    else
        status = moe_json_u32(config, "num_key_value_heads", 1,
                              MOE_MAX_WIDTH, &a->kv_heads, err);
    if (status != MOE_OK)
        return status;
    if (a->heads % a->kv_heads != 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"num_attention_heads\" %u is no multiple of "
                        "\"num_key_value_heads\" %u", config->file, a->heads,
                        a->kv_heads);
    if (moe_json_get(config, "head_dim") != NULL) {
        status = moe_json_u32(config, "head_dim", 1, 65536, &a->head_dim, err);
        if (status != MOE_OK)
            return status;
    } else if (d->head_dim != 0) {
        a->head_dim = d->head_dim;
    } else if (a->hidden % a->heads == 0) {
        a->head_dim = a->hidden / a->heads;
    } else {
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"hidden_size\" %u is no multiple of "
                        "\"num_attention_heads\" %u, and there is no "
                        "\"head_dim\"", config->file, a->hidden, a->heads);
    }
    if (a->head_dim > 65536
        || (uint64_t) a->heads * a->head_dim > MOE_MAX_WIDTH)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: %u heads of %u: more than %u wide",
                        config->file, a->heads, a->head_dim, MOE_MAX_WIDTH);
    if (a->head_dim % 2 != 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: a head of %u cannot be rotated in pairs",
                        config->file, a->head_dim);
    a->v_dim = a->head_dim;
    a->attn_scale = (float) (1.0 / sqrt((double) a->head_dim));
    return MOE_OK;
}

moe_status
moe_family_common(const struct moe_json *config,
                  const struct moe_family_defaults *d, struct moe_arch *a,
                  struct moe_error *err)
{
    moe_status status;
    double     eps;
    uint32_t   l;

    status = moe_json_u32(config, "hidden_size", 1, MOE_MAX_HIDDEN,
                          &a->hidden, err);
    if (status == MOE_OK)
        status = moe_json_u32(config, "num_hidden_layers", 1, MOE_MAX_LAYERS,
                              &a->n_layers, err);
    if (status == MOE_OK)
        status = moe_json_u32(config, "vocab_size", 1, MOE_MAX_VOCAB,
                              &a->vocab, err);
    if (status == MOE_OK)
        status = read_heads(config, d, a, err);
    if (status == MOE_OK)
        status = moe_json_u32(config, "max_position_embeddings", 1,
                              MOE_MAX_CONTEXT, &a->max_context, err);
    if (status == MOE_OK)
        status = moe_json_float_or(config, "rms_norm_eps", 0, 1, d->norm_eps,
                                   &eps, err);
    if (status == MOE_OK)
        status = read_activation(config, a, err);
    if (status == MOE_OK)
        status = moe_json_bool_or(config, "tie_word_embeddings", 0, &a->tied,
                                  err);
    if (status != MOE_OK)
        return status;
    a->norm_kind = MOE_NORM_RMS;
    a->norm_eps = (float) eps;
    a->embed_scale = 1.0f;
    a->route_scale = 1.0f;
    a->layers = calloc(a->n_layers, sizeof(*a->layers));
    if (a->layers == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "%s: no memory for %u layers", config->file,
                        a->n_layers);
    for (l = 0; l < a->n_layers; l++) {
        a->layers[l].ffn = MOE_FFN_DENSE;
        a->layers[l].rot_dim = a->head_dim;
    }
    status = moe_rope_read(config, d->rope_theta, a, err);
    if (status != MOE_OK)
        return status;

    a->name[MOE_T_EMBED] = "model.embed_tokens.weight";
    a->name[MOE_T_OUTPUT] = a->tied ? NULL : "lm_head.weight";
    a->name[MOE_T_OUTPUT_NORM] = "model.norm.weight";
    a->name[MOE_T_ATTN_NORM] = "model.layers.{l}.input_layernorm.weight";
    a->name[MOE_T_Q] = "model.layers.{l}.self_attn.q_proj.weight";
    a->name[MOE_T_K] = "model.layers.{l}.self_attn.k_proj.weight";
    a->name[MOE_T_V] = "model.layers.{l}.self_attn.v_proj.weight";
    a->name[MOE_T_O] = "model.layers.{l}.self_attn.o_proj.weight";
    a->name[MOE_T_FFN_NORM]
        = "model.layers.{l}.post_attention_layernorm.weight";
    return MOE_OK;
}

void
moe_family_attention_bias(struct moe_arch *a, int o)
{
    a->name[MOE_T_Q_BIAS] = "model.layers.{l}.self_attn.q_proj.bias";
    a->name[MOE_T_K_BIAS] = "model.layers.{l}.self_attn.k_proj.bias";
    a->name[MOE_T_V_BIAS] = "model.layers.{l}.self_attn.v_proj.bias";
    if (o)
        a->name[MOE_T_O_BIAS] = "model.layers.{l}.self_attn.o_proj.bias";
}

void
moe_family_qk_norm(struct moe_arch *a, uint32_t span)
{
    a->qk_norm = span;
    a->name[MOE_T_Q_NORM] = "model.layers.{l}.self_attn.q_norm.weight";
    a->name[MOE_T_K_NORM] = "model.layers.{l}.self_attn.k_norm.weight";
}

void
moe_family_dense_names(struct moe_arch *a)
{
    a->name[MOE_T_GATE] = "model.layers.{l}.mlp.gate_proj.weight";
    a->name[MOE_T_UP] = "model.layers.{l}.mlp.up_proj.weight";
    a->name[MOE_T_DOWN] = "model.layers.{l}.mlp.down_proj.weight";
}

void
moe_family_expert_names(struct moe_arch *a)
{
    a->name[MOE_T_ROUTER] = "model.layers.{l}.mlp.gate.weight";
    a->name[MOE_T_EXPERT_GATE]
        = "model.layers.{l}.mlp.experts.{e}.gate_proj.weight";
    a->name[MOE_T_EXPERT_UP]
        = "model.layers.{l}.mlp.experts.{e}.up_proj.weight";
    a->name[MOE_T_EXPERT_DOWN]
        = "model.layers.{l}.mlp.experts.{e}.down_proj.weight";
}

moe_status
moe_family_dense(const struct moe_json *config, struct moe_arch *a,
                 struct moe_error *err)
{
    moe_status status = MOE_OK;
    uint32_t   l, width = 0;

    for (l = 0; l < a->n_layers && status == MOE_OK; l++) {
        if (a->layers[l].ffn != MOE_FFN_DENSE)
            continue;
        if (width == 0)
            status = moe_json_u32(config, "intermediate_size", 1,
                                  MOE_MAX_WIDTH, &width, err);
        a->layers[l].ffn_width = width;
    }
    if (width != 0)
        moe_family_dense_names(a);
    return status;
}

moe_status
moe_family_experts(const struct moe_json *config, const char *width_key,
                   struct moe_arch *a, struct moe_error *err)
{
    static const char *const keys[] = { "num_experts", "num_local_experts" };
    uint32_t                 n[2] = { 0, 0 }, i, have = 0;
    moe_status               status;

    for (i = 0; i < 2; i++) {
        if (moe_json_get(config, keys[i]) == NULL)
            continue;
        status = moe_json_u32(config, keys[i], 0, MOE_MAX_EXPERTS, &n[i],
                              err);
        if (status != MOE_OK)
            return status;
        a->n_experts = n[i];
        have++;
    }
    if (have == 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: neither \"num_experts\" nor "
                        "\"num_local_experts\" is there", config->file);
    if (have == 2 && n[0] != n[1])
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"num_experts\" is %u, but \"num_local_experts\" "
                        "is %u", config->file, n[0], n[1]);
    if (a->n_experts == 0)
        return MOE_OK;
    status = moe_json_u32(config, "num_experts_per_tok", 1, a->n_experts,
                          &a->top_k, err);
    if (status != MOE_OK)
        return status;
    return moe_json_u32(config, width_key, 1, MOE_MAX_WIDTH, &a->expert_width,
                        err);
}

moe_status
moe_family_sparse_layers(const struct moe_json *config, struct moe_arch *a,
                         struct moe_error *err)
{
    unsigned char       listed[MOE_MAX_LAYERS] = { 0 };
    struct json_object *list;
    uint32_t            step, l;
    uint64_t            u;
    size_t              i;
    moe_status          status;

    status = moe_json_u32_or(config, "decoder_sparse_step", 1,
                             MOE_MAX_LAYERS, 1, &step, err);
    if (status == MOE_OK)
        status = moe_json_array_or(config, "mlp_only_layers", &list, err);
    if (status != MOE_OK)
        return status;
    for (l = 0; l < a->n_layers; l++)
        if (a->n_experts > 0 && (l + 1) % step == 0)
            a->layers[l].ffn = MOE_FFN_MOE;
    for (i = 0; list != NULL && i < json_object_array_length(list); i++) {
        status = moe_json_as_uint(config, "mlp_only_layers",
                                  json_object_array_get_idx(list, i), 0,
                                  UINT64_MAX, &u, err);
        if (status != MOE_OK)
            break;
        if (u >= a->n_layers)
            status = moe_fail(err, MOE_E_CORRUPT, 0,
                              "%s: \"mlp_only_layers\" names layer %llu, but "
                              "there are %u, counted from 0; leave out those "
                              "that are not there", config->file,
                              (unsigned long long) u, a->n_layers);
        else if (listed[u])
            status = moe_fail(err, MOE_E_CORRUPT, 0,
                              "%s: \"mlp_only_layers\" names layer %llu "
                              "twice; was another one meant?", config->file,
                              (unsigned long long) u);
        if (status != MOE_OK)
            break;
        listed[u] = 1;
        a->layers[u].ffn = MOE_FFN_DENSE;
    }
    return status;
}

moe_status
moe_family_window(const struct moe_json *config, uint32_t fallback,
                  struct moe_arch *a, struct moe_error *err)
{
    struct json_object *v;
    uint32_t            l, window = 0;
    moe_status          status = MOE_OK;

    if (!json_object_object_get_ex(config->obj, "sliding_window", &v))
        window = fallback;
    else if (v != NULL)
        status = moe_json_u32(config, "sliding_window", 1, UINT32_MAX,
                              &window, err);
    for (l = 0; l < a->n_layers && status == MOE_OK; l++)
        a->layers[l].window = window;
    return status;
}

static moe_status
read_layer_types(const struct moe_json *config, struct json_object *types,
                 uint32_t window, struct moe_arch *a, struct moe_error *err)
{
    char     show[MOE_SHOW_MAX + 4];
    uint32_t l;

    if (json_object_array_length(types) != a->n_layers)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"layer_types\" has %zu entries for %u layers",
                        config->file, json_object_array_length(types),
                        a->n_layers);
    for (l = 0; l < a->n_layers; l++) {
        struct json_object *v = json_object_array_get_idx(types, l);
        const char         *word = "";

        if (json_object_is_type(v, json_type_string))
            word = json_object_get_string(v);
        if (strcmp(word, "full_attention") == 0)
            continue;
        if (strcmp(word, "sliding_attention") != 0)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "%s: \"layer_types\": layer %u has \"%s\", known "
                            "are full_attention and sliding_attention",
                            config->file, l, moe_show(word, show));
        if (window == 0)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: \"layer_types\": layer %u is "
                            "sliding_attention, but no \"sliding_window\" is "
                            "in use", config->file, l);
        a->layers[l].window = window;
    }
    return MOE_OK;
}

moe_status
moe_family_layer_windows(const struct moe_json *config,
                         int (*slides)(uint32_t layer,
                                       uint32_t max_window_layers),
                         struct moe_arch *a, struct moe_error *err)
{
    struct json_object *types, *v = NULL;
    uint32_t            use, window = 0, last, l;
    moe_status          status;

    status = moe_json_bool_or(config, "use_sliding_window", 0, &use, err);
    if (status == MOE_OK && use) {
        /* null says none, a missing key the classes' 4096 */
        int given = json_object_object_get_ex(config->obj, "sliding_window",
                                              &v);

        status = moe_json_u32_or(config, "sliding_window", 1, UINT32_MAX,
                                 given ? 0 : 4096, &window, err);
    }
    if (status == MOE_OK)
        status = moe_json_u32_or(config, "max_window_layers", 0, UINT32_MAX,
                                 28, &last, err);
    if (status == MOE_OK)
        status = moe_json_array_or(config, "layer_types", &types, err);
    if (status != MOE_OK)
        return status;
    if (types != NULL)
        return read_layer_types(config, types, window, a, err);
    for (l = 0; l < a->n_layers; l++)
        a->layers[l].window = slides(l, last) ? window : 0;
    return MOE_OK;
}
