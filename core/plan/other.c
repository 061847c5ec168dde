/* SPDX-License-Identifier: Apache-2.0 */
/*
 * other.c - families that can be planned before the engine runs them.
 *
 * DeepSeek V2, V3 and V3.2, gpt-oss, Granite MoE, Llama 4: their keys and the
 * tensors that the transformers library makes of them.  Counts equal the
 * published files; what the attention of a family does is no concern here.
 */
#include "plan/shape.h"

#include "model/family.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The first failure of a chain of reads stays. */
#define TRY(call)                                                             \
    do {                                                                      \
        moe_status moe_try_ = (call);                                         \
        if (moe_try_ != MOE_OK)                                               \
            return moe_try_;                                                  \
    } while (0)

static moe_status
read_common(const struct moe_json *c, struct moe_sketch *s,
            struct moe_error *err)
{
    TRY(moe_json_u32(c, "hidden_size", 1, MOE_MAX_HIDDEN, &s->hidden, err));
    TRY(moe_json_u32(c, "num_hidden_layers", 1, MOE_MAX_LAYERS, &s->n_layers,
                     err));
    TRY(moe_json_u32(c, "vocab_size", 1, MOE_MAX_VOCAB, &s->vocab, err));
    TRY(moe_json_u32(c, "num_attention_heads", 1, 65536, &s->heads, err));
    TRY(moe_json_u32(c, "max_position_embeddings", 1, MOE_MAX_CONTEXT,
                     &s->max_context, err));
    s->layers = calloc(s->n_layers, sizeof(*s->layers));
    if (s->layers == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "%s: no memory for %u layers", c->file, s->n_layers);
    return MOE_OK;
}

/* Grouped heads; a missing head_dim is hidden / heads, as everywhere. */
static moe_status
read_heads(const struct moe_json *c, struct moe_sketch *s,
           struct moe_error *err)
{
    TRY(moe_json_u32(c, "num_key_value_heads", 1, 65536, &s->kv_heads, err));
    if (s->heads % s->kv_heads != 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"num_attention_heads\" %u is no multiple of "
                        "\"num_key_value_heads\" %u",
                        c->file, s->heads, s->kv_heads);
    if (moe_json_get(c, "head_dim") == NULL && s->hidden % s->heads != 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"hidden_size\" %u is no multiple of "
                        "\"num_attention_heads\" %u, and there is no "
                        "\"head_dim\"", c->file, s->hidden, s->heads);
    TRY(moe_json_u32_or(c, "head_dim", 1, 65536, s->hidden / s->heads,
                        &s->head_dim, err));
    s->v_dim = s->head_dim;
    return MOE_OK;
}

static moe_status
read_experts(const struct moe_json *c, const char *count, const char *width,
             struct moe_sketch *s, struct moe_error *err)
{
    TRY(moe_json_u32(c, count, 1, MOE_MAX_EXPERTS, &s->n_experts, err));
    TRY(moe_json_u32(c, "num_experts_per_tok", 1, s->n_experts, &s->top_k,
                     err));
    return moe_json_u32(c, width, 1, MOE_MAX_WIDTH, &s->expert_width, err);
}

/* One of it in so many layers, used by every token. */
static void
matrix(struct moe_sketch *s, uint32_t cls, uint64_t n, uint64_t k,
       uint64_t count)
{
    (void) moe_shape_add(s, cls, 0, n, k, count, count);
}

static void
vector(struct moe_sketch *s, uint32_t cls, uint64_t n, uint64_t count)
{
    (void) moe_shape_add(s, cls, 1, n, 1, count, count);
}

static void
embeddings(struct moe_sketch *s)
{
    (void) moe_shape_add(s, MOE_PLAN_EMBED, 0, s->vocab, s->hidden, 1,
                         s->tied ? 1 : 0);
    if (!s->tied)
        matrix(s, MOE_PLAN_OUTPUT, s->vocab, s->hidden, 1);
    vector(s, MOE_PLAN_NORMS, s->hidden, 2ull * s->n_layers + 1);
}

static void
grouped(struct moe_sketch *s, int bias, uint64_t layers)
{
    uint64_t q = (uint64_t) s->heads * s->head_dim;
    uint64_t kv = (uint64_t) s->kv_heads * s->head_dim;

    matrix(s, MOE_PLAN_ATTENTION, q, s->hidden, layers);
    matrix(s, MOE_PLAN_ATTENTION, kv, s->hidden, 2 * layers);
    matrix(s, MOE_PLAN_ATTENTION, s->hidden, q, layers);
    if (!bias)
        return;
    vector(s, MOE_PLAN_ATTENTION, q, layers);
    vector(s, MOE_PLAN_ATTENTION, kv, 2 * layers);
    vector(s, MOE_PLAN_ATTENTION, s->hidden, layers);
}

/* gate, up and down of so many feed-forward blocks. */
static void
feed_forward(struct moe_sketch *s, uint32_t cls, uint64_t width,
             uint64_t count, uint64_t used)
{
    (void) moe_shape_add(s, cls, 0, width, s->hidden, 2 * count, 2 * used);
    (void) moe_shape_add(s, cls, 0, s->hidden, width, count, used);
}

static void
experts(struct moe_sketch *s, uint64_t layers)
{
    feed_forward(s, MOE_PLAN_EXPERTS, s->expert_width,
                 layers * s->n_experts, layers * s->top_k);
    matrix(s, MOE_PLAN_ROUTER, s->n_experts, s->hidden, layers);
}

/* A key whose null says "none": one that is missing would be a guess. */
static moe_status
want_key(const struct moe_json *c, const char *key, struct moe_error *err)
{
    if (json_object_object_get_ex(c->obj, key, NULL))
        return MOE_OK;
    return moe_fail(err, MOE_E_CORRUPT, 0,
                    "%s: \"%s%s\" is missing; null says that there is none",
                    c->file, c->path, key);
}

/* Latent attention, as in the reports on DeepSeek-V2 and V3. */
static moe_status
read_latent(const struct moe_json *c, struct moe_sketch *s,
            struct moe_error *err)
{
    uint64_t L = s->n_layers, H = s->heads, qk;
    uint32_t q_rank = 0, index_heads = 0;

    TRY(moe_json_u32(c, "kv_lora_rank", 1, 65536, &s->kv_lora, err));
    TRY(moe_json_u32(c, "qk_nope_head_dim", 1, 65536, &s->nope_dim, err));
    TRY(moe_json_u32(c, "qk_rope_head_dim", 1, 65536, &s->rope_dim, err));
    TRY(moe_json_u32(c, "v_head_dim", 1, 65536, &s->v_dim, err));
    TRY(want_key(c, "q_lora_rank", err));
    TRY(moe_json_u32_or(c, "q_lora_rank", 1, 65536, 0, &q_rank, err));
    s->head_dim = s->nope_dim + s->rope_dim;
    s->kv_heads = s->heads;
    qk = s->head_dim;
    if (q_rank != 0) {
        matrix(s, MOE_PLAN_ATTENTION, q_rank, s->hidden, L);
        matrix(s, MOE_PLAN_ATTENTION, H * qk, q_rank, L);
        vector(s, MOE_PLAN_NORMS, q_rank, L);
    } else {
        matrix(s, MOE_PLAN_ATTENTION, H * qk, s->hidden, L);
    }
    matrix(s, MOE_PLAN_ATTENTION, s->kv_lora + s->rope_dim, s->hidden, L);
    vector(s, MOE_PLAN_NORMS, s->kv_lora, L);
    matrix(s, MOE_PLAN_ATTENTION, H * (s->nope_dim + s->v_dim), s->kv_lora,
           L);
    matrix(s, MOE_PLAN_ATTENTION, s->hidden, H * s->v_dim, L);
    if (moe_json_get(c, "index_n_heads") == NULL)
        return MOE_OK;
    /* The indexer of V3.2: queries, one key with a norm, head weights. */
    TRY(moe_json_u32(c, "index_n_heads", 1, 65536, &index_heads, err));
    TRY(moe_json_u32(c, "index_head_dim", 1, 65536, &s->index_dim, err));
    if (q_rank == 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"index_n_heads\" without \"q_lora_rank\"",
                        c->file);
    matrix(s, MOE_PLAN_ATTENTION, (uint64_t) index_heads * s->index_dim,
           q_rank, L);
    matrix(s, MOE_PLAN_ATTENTION, s->index_dim, s->hidden, L);
    matrix(s, MOE_PLAN_ATTENTION, index_heads, s->hidden, L);
    vector(s, MOE_PLAN_NORMS, s->index_dim, 2 * L);
    return MOE_OK;
}

/* Groups of experts, of which a token chooses some: neither bytes nor
 * operations follow from them, but they have to be possible. */
static moe_status
check_groups(const struct moe_json *c, const struct moe_sketch *s,
             struct moe_error *err)
{
    uint32_t n, chosen;

    TRY(moe_json_u32_or(c, "n_group", 1, s->n_experts, 1, &n, err));
    TRY(moe_json_u32_or(c, "topk_group", 1, s->n_experts, n, &chosen, err));
    if (s->n_experts % n != 0)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: %u \"n_routed_experts\" are no %u groups "
                        "(\"n_group\") of equal size", c->file, s->n_experts,
                        n);
    if (chosen > n || (uint64_t) chosen * (s->n_experts / n) < s->top_k)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: a token cannot take %u experts "
                        "(\"num_experts_per_tok\") from %u groups "
                        "(\"topk_group\") of %u (\"n_group\")", c->file,
                        s->top_k, chosen, n);
    return MOE_OK;
}

static moe_status
read_deepseek(const struct moe_json *c, struct moe_sketch *s,
              struct moe_error *err)
{
    const char *method;
    uint32_t    first, shared, width, step, l;
    uint64_t    moe;

    TRY(read_common(c, s, err));
    TRY(moe_json_bool_or(c, "tie_word_embeddings", 0, &s->tied, err));
    TRY(read_latent(c, s, err));
    TRY(read_experts(c, "n_routed_experts", "moe_intermediate_size", s, err));
    TRY(check_groups(c, s, err));
    TRY(want_key(c, "n_shared_experts", err));
    TRY(moe_json_u32_or(c, "n_shared_experts", 0, 1024, 0, &shared, err));
    TRY(moe_json_u32(c, "first_k_dense_replace", 0, s->n_layers, &first,
                     err));
    TRY(moe_json_u32_or(c, "moe_layer_freq", 1, 1, 1, &step, err));
    TRY(moe_json_u32(c, "intermediate_size", 1, MOE_MAX_WIDTH, &width, err));
    /* from V3 on routing has a bias, whether or not the file says so */
    TRY(moe_json_text(c, "model_type", &method, err));
    TRY(moe_json_text_or(c, "topk_method",
                         strcmp(method, "deepseek_v2") == 0 ? "greedy"
                                                            : "noaux_tc",
                         &method, err));
    if ((uint64_t) shared * s->expert_width > MOE_MAX_WIDTH)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"n_shared_experts\" %u of width %u are too wide",
                        c->file, shared, s->expert_width);
    s->shared_width = shared * s->expert_width;
    moe = s->n_layers - first;
    for (l = 0; l < s->n_layers; l++) {
        s->layers[l].ffn = l < first ? MOE_FFN_DENSE : MOE_FFN_MOE;
        s->layers[l].ffn_width = l < first ? width : 0;
    }
    embeddings(s);
    feed_forward(s, MOE_PLAN_DENSE, width, first, first);
    feed_forward(s, MOE_PLAN_SHARED, s->shared_width, moe, moe);
    experts(s, moe);
    if (strcmp(method, "noaux_tc") == 0) /* e_score_correction_bias */
        vector(s, MOE_PLAN_ROUTER, s->n_experts, moe);
    return MOE_OK;
}

static moe_status
read_gpt_oss(const struct moe_json *c, struct moe_sketch *s,
             struct moe_error *err)
{
    struct json_object *types;
    uint32_t            window, bias, l;
    uint64_t            L;

    TRY(read_common(c, s, err));
    /* not hidden / heads in this family */
    TRY(moe_json_u32(c, "head_dim", 1, 65536, &s->head_dim, err));
    TRY(read_heads(c, s, err));
    TRY(moe_json_bool_or(c, "tie_word_embeddings", 0, &s->tied, err));
    TRY(read_experts(c, moe_json_get(c, "num_local_experts") != NULL
                            ? "num_local_experts" : "num_experts",
                     "intermediate_size", s, err));
    TRY(moe_json_u32_or(c, "sliding_window", 1, MOE_MAX_CONTEXT, 128,
                        &window, err));
    TRY(moe_json_bool_or(c, "attention_bias", 1, &bias, err));
    TRY(moe_json_array_or(c, "layer_types", &types, err));
    if (types != NULL && json_object_array_length(types) != s->n_layers)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"layer_types\" has %zu entries for %u layers",
                        c->file, json_object_array_length(types),
                        s->n_layers);
    for (l = 0; l < s->n_layers; l++) {
        struct json_object *t
            = types != NULL ? json_object_array_get_idx(types, l) : NULL;
        const char *word = l % 2 == 0 ? "sliding_attention"
                                      : "full_attention";

        if (types != NULL)
            word = json_object_is_type(t, json_type_string)
                       ? json_object_get_string(t) : "";
        s->layers[l].ffn = MOE_FFN_MOE;
        if (strcmp(word, "sliding_attention") == 0)
            s->layers[l].window = window;
        else if (strcmp(word, "full_attention") != 0)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "%s: \"layer_types\": entry %u is neither "
                            "\"sliding_attention\" nor \"full_attention\"",
                            c->file, l);
    }
    L = s->n_layers;
    embeddings(s);
    grouped(s, (int) bias, L);
    vector(s, MOE_PLAN_ATTENTION, s->heads, L); /* sinks */
    experts(s, L);
    vector(s, MOE_PLAN_ROUTER, s->n_experts, L);
    /* biases of gate and up, and of down, for each expert */
    (void) moe_shape_add(s, MOE_PLAN_EXPERTS, 1, s->expert_width, 1,
                         2 * L * s->n_experts, 2 * L * s->top_k);
    (void) moe_shape_add(s, MOE_PLAN_EXPERTS, 1, s->hidden, 1,
                         L * s->n_experts, L * s->top_k);
    return MOE_OK;
}

static moe_status
read_granite(const struct moe_json *c, struct moe_sketch *s,
             struct moe_error *err)
{
    uint32_t bias, l;

    TRY(read_common(c, s, err));
    TRY(read_heads(c, s, err));
    TRY(moe_json_bool_or(c, "tie_word_embeddings", 0, &s->tied, err));
    TRY(read_experts(c, "num_local_experts", "intermediate_size", s, err));
    TRY(moe_json_bool_or(c, "attention_bias", 0, &bias, err));
    for (l = 0; l < s->n_layers; l++)
        s->layers[l].ffn = MOE_FFN_MOE;
    embeddings(s);
    grouped(s, (int) bias, s->n_layers);
    experts(s, s->n_layers);
    return MOE_OK;
}

static moe_status
read_llama4(const struct moe_json *c, struct moe_sketch *s,
            struct moe_error *err)
{
    struct json_object *rope;
    uint32_t            step, dense_width, chunk, bias, l;
    uint64_t            u, moe = 0;

    TRY(read_common(c, s, err));
    TRY(read_heads(c, s, err));
    TRY(moe_json_bool_or(c, "tie_word_embeddings", 0, &s->tied, err));
    TRY(read_experts(c, "num_local_experts", "intermediate_size", s, err));
    TRY(moe_json_u32(c, "interleave_moe_layer_step", 1, MOE_MAX_LAYERS,
                     &step, err));
    TRY(moe_json_u32(c, "intermediate_size_mlp", 1, MOE_MAX_WIDTH,
                     &dense_width, err));
    TRY(moe_json_u32(c, "attention_chunk_size", 1, MOE_MAX_CONTEXT, &chunk,
                     err));
    TRY(moe_json_bool_or(c, "attention_bias", 0, &bias, err));
    TRY(moe_json_array_or(c, "no_rope_layers", &rope, err));
    if (rope != NULL && json_object_array_length(rope) == 0)
        rope = NULL; /* the library's own default: every fourth */
    if (rope != NULL && json_object_array_length(rope) != s->n_layers)
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "%s: \"no_rope_layers\" has %zu entries for %u layers",
                        c->file, json_object_array_length(rope), s->n_layers);
    for (l = 0; l < s->n_layers; l++) {
        u = (l + 1) % 4 != 0;
        if (rope != NULL)
            TRY(moe_json_as_uint(c, "no_rope_layers",
                                 json_object_array_get_idx(rope, l), 0, 1, &u,
                                 err));
        s->layers[l].chunk = u ? chunk : 0;
        s->layers[l].ffn = (l + 1) % step == 0 ? MOE_FFN_MOE : MOE_FFN_DENSE;
        s->layers[l].ffn_width = (l + 1) % step == 0 ? 0 : dense_width;
        moe += (l + 1) % step == 0;
    }
    s->shared_width = s->expert_width;
    embeddings(s);
    grouped(s, (int) bias, s->n_layers);
    feed_forward(s, MOE_PLAN_DENSE, dense_width, s->n_layers - moe,
                 s->n_layers - moe);
    feed_forward(s, MOE_PLAN_SHARED, s->shared_width, moe, moe);
    experts(s, moe);
    return MOE_OK;
}

const char *
moe_shape_others(void)
{
    return "deepseek_v2 deepseek_v3 deepseek_v32 gpt_oss granitemoe llama4 "
           "llama4_text";
}

int
moe_shape_other(const char *type, const struct moe_json *config,
                struct moe_sketch *s, moe_status *status,
                struct moe_error *err)
{
    static const struct {
        const char *type;
        moe_status (*read)(const struct moe_json *, struct moe_sketch *,
                           struct moe_error *);
    } known[] = {
        { "deepseek_v2", read_deepseek }, { "deepseek_v3", read_deepseek },
        { "deepseek_v32", read_deepseek }, { "gpt_oss", read_gpt_oss },
        { "granitemoe", read_granite },   { "llama4_text", read_llama4 },
    };
    struct moe_json inner = *config;
    size_t          i;

    if (strcmp(type, "llama4") == 0) {
        *status = moe_json_object_or(config, "text_config", &inner.obj, err);
        if (*status == MOE_OK && inner.obj == NULL)
            *status = moe_fail(err, MOE_E_CORRUPT, 0,
                               "%s: \"text_config\" is missing",
                               config->file);
        if (*status != MOE_OK)
            return 1;
        inner.path = "text_config.";
        type = "llama4_text";
    }
    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].type, type) == 0) {
            snprintf(s->family, sizeof(s->family), "%s", type);
            *status = known[i].read(&inner, s, err);
            return 1;
        }
    return 0;
}
