/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each family's file makes of the fixtures: every field that the
 * engine reads.  Parameter counts are those that transformers reports.
 */
#include "checkpoint/checkpoint.h"
#include "model/arch.h"

#include <math.h>

#include "tap.h"

struct want {
    const char *dir, *family;
    uint32_t    hidden, layers, vocab, heads, kv, dim, context, tied;
    double      eps;
    uint32_t    qk_norm;
    double      clip;
    uint32_t    experts, top_k, width, renorm, shared;
    const char *ffn;     /* a letter a layer: m mixture, d dense */
    uint32_t    dense;   /* width of dense layers */
    const char *windows; /* "0 9 9", "" for none */
    uint64_t    total, active;
};

static const struct want wants[] = {
    { "llama", "llama", 40, 3, 118, 4, 2, 10, 256, 0, 1e-5, 0, 0, 0, 0, 0, 0,
      0, "ddd", 54, "", 43560, 38840 },
    { "llama-bf16", "llama", 64, 2, 128, 4, 2, 16, 256, 0, 1e-5, 0, 0, 0, 0,
      0, 0, 0, "dd", 128, "", 90432, 82240 },
    { "llama-linear", "llama", 36, 2, 99, 2, 2, 18, 256, 0, 1e-5, 0, 0, 0, 0,
      0, 0, 0, "dd", 47, "", 28376, 24812 },
    { "llama-llama3", "llama", 48, 2, 128, 6, 3, 12, 1024, 1, 1e-5, 0, 0, 0,
      0, 0, 0, 0, "dd", 60, "", 44400, 44400 },
    { "mixtral", "mixtral", 36, 2, 112, 6, 2, 6, 256, 0, 1e-5, 0, 0, 4, 2, 44,
      1, 0, "mm", 0, "", 53460, 30420 },
    { "mixtral-bf16", "mixtral", 36, 2, 112, 6, 2, 6, 256, 0, 1e-5, 0, 0, 4,
      2, 44, 1, 0, "mm", 0, "", 53460, 30420 },
    { "mixtral-f16", "mixtral", 36, 2, 112, 6, 2, 6, 256, 0, 1e-5, 0, 0, 4, 2,
      44, 1, 0, "mm", 0, "", 53460, 30420 },
    { "mixtral-window", "mixtral", 28, 3, 97, 2, 1, 10, 256, 0, 1e-5, 0, 0, 5,
      1, 22, 1, 0, "mmm", 0, "12 12 12", 38808, 13916 },
    { "olmoe", "olmoe", 32, 2, 110, 4, 4, 8, 256, 0, 1e-5, 2, 0, 8, 4, 24, 0,
      0, "mm", 0, "", 52896, 30944 },
    { "olmoe-clip", "olmoe", 36, 2, 96, 6, 3, 6, 256, 0, 1e-5, 2, 0.6, 6, 2,
      20, 1, 0, "mm", 0, "", 41328, 20592 },
    { "qwen2", "qwen2", 40, 2, 106, 5, 1, 8, 256, 1, 1e-6, 0, 0, 0, 0, 0, 0,
      0, "dd", 50, "", 24232, 24232 },
    { "qwen2-window", "qwen2", 32, 3, 96, 4, 2, 8, 256, 0, 1e-6, 0, 0, 0, 0,
      0, 0, 0, "ddd", 40, "0 9 9", 27296, 24224 },
    { "qwen2_moe", "qwen2_moe", 36, 2, 104, 6, 6, 6, 256, 0, 1e-6, 0, 0, 6, 2,
      20, 0, 28, "mm", 0, "", 50724, 29700 },
    { "qwen2_moe-bf16", "qwen2_moe", 36, 2, 104, 6, 6, 6, 256, 0, 1e-6, 0, 0,
      6, 2, 20, 0, 28, "mm", 0, "", 50724, 29700 },
    { "qwen2_moe-step", "qwen2_moe", 40, 4, 100, 4, 2, 10, 256, 1, 1e-6, 0, 0,
      4, 4, 18, 1, 34, "dddm", 50, "", 54800, 54800 },
    { "qwen3", "qwen3", 38, 2, 108, 4, 2, 20, 256, 1, 1e-6, 1, 0, 0, 0, 0, 0,
      0, "dd", 46, "", 33102, 33102 },
    { "qwen3-bf16", "qwen3", 38, 2, 108, 4, 2, 20, 256, 0, 1e-6, 1, 0, 0, 0,
      0, 0, 0, "dd", 46, "", 37206, 33102 },
    { "qwen3_moe", "qwen3_moe", 30, 3, 120, 6, 2, 16, 256, 0, 1e-6, 1, 0, 7,
      3, 14, 1, 0, "mmm", 0, "", 57636, 38916 },
    { "qwen3_moe-bf16", "qwen3_moe", 30, 3, 120, 6, 2, 16, 256, 0, 1e-6, 1, 0,
      7, 3, 14, 1, 0, "mmm", 0, "", 57636, 38916 },
    { "qwen3_moe-step", "qwen3_moe", 34, 4, 96, 3, 3, 14, 128, 1, 1e-6, 1, 0,
      4, 1, 22, 0, 0, "dmdm", 38, "", 53146, 39682 },
};

/* Names that a family has beyond those that all have. */
static const struct {
    const char *dir;
    uint32_t    tensor, layer, expert;
    const char *name; /* NULL: none */
    uint64_t    n, k;
} names[] = {
    { "llama", MOE_T_OUTPUT, 0, 0, "lm_head.weight", 118, 40 },
    { "llama", MOE_T_Q_BIAS, 0, 0, NULL, 0, 0 },
    { "llama", MOE_T_DOWN, 2, 0, "model.layers.2.mlp.down_proj.weight", 40,
      54 },
    { "llama-linear", MOE_T_O_BIAS, 1, 0,
      "model.layers.1.self_attn.o_proj.bias", 36, 1 },
    { "llama-linear", MOE_T_GATE_BIAS, 1, 0,
      "model.layers.1.mlp.gate_proj.bias", 47, 1 },
    { "llama-llama3", MOE_T_OUTPUT, 0, 0, NULL, 0, 0 },
    { "mixtral", MOE_T_ROUTER, 1, 0,
      "model.layers.1.block_sparse_moe.gate.weight", 4, 36 },
    { "mixtral", MOE_T_EXPERT_GATE, 1, 3,
      "model.layers.1.block_sparse_moe.experts.3.w1.weight", 44, 36 },
    { "mixtral", MOE_T_EXPERT_UP, 0, 0,
      "model.layers.0.block_sparse_moe.experts.0.w3.weight", 44, 36 },
    { "mixtral", MOE_T_EXPERT_DOWN, 0, 2,
      "model.layers.0.block_sparse_moe.experts.2.w2.weight", 36, 44 },
    { "mixtral-window", MOE_T_O, 0, 0,
      "model.layers.0.self_attn.o_proj.weight", 28, 20 },
    { "olmoe", MOE_T_Q_NORM, 0, 0, "model.layers.0.self_attn.q_norm.weight",
      32, 1 },
    { "olmoe-clip", MOE_T_K_NORM, 0, 0,
      "model.layers.0.self_attn.k_norm.weight", 18, 1 },
    { "qwen2", MOE_T_V_BIAS, 1, 0, "model.layers.1.self_attn.v_proj.bias", 8,
      1 },
    { "qwen2", MOE_T_O_BIAS, 1, 0, NULL, 0, 0 },
    { "qwen2_moe", MOE_T_SHARED_SCALE, 1, 0,
      "model.layers.1.mlp.shared_expert_gate.weight", 1, 36 },
    { "qwen2_moe", MOE_T_SHARED_DOWN, 1, 0,
      "model.layers.1.mlp.shared_expert.down_proj.weight", 36, 28 },
    { "qwen2_moe", MOE_T_GATE, 0, 0, NULL, 0, 0 },
    { "qwen3_moe", MOE_T_EXPERT_DOWN, 2, 6,
      "model.layers.2.mlp.experts.6.down_proj.weight", 30, 14 },
    { "qwen3_moe", MOE_T_Q_NORM, 2, 0,
      "model.layers.2.self_attn.q_norm.weight", 16, 1 },
    { "qwen3_moe-step", MOE_T_K_BIAS, 3, 0,
      "model.layers.3.self_attn.k_proj.bias", 42, 1 },
};

static int
open_fixture(const char *dir, struct moe_checkpoint **c, struct moe_arch *a)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    char             rel[200];

    *c = NULL;
    snprintf(rel, sizeof(rel), "tests/model/fixtures/%s", dir);
    if (ok(moe_checkpoint_open(tap_src(rel), c, &err) == MOE_OK
               && moe_arch_read(*c, a, &err) == MOE_OK,
           "%s: read", dir))
        return 1;
    printf("# %s\n", err.text);
    moe_checkpoint_close(*c);
    return 0;
}

static void
fields(const struct want *w)
{
    struct moe_checkpoint *c;
    struct moe_arch        a;
    uint64_t               total, active;
    char                   ffn[16] = "", windows[64] = "", one[16];
    uint32_t               l, dense = 0, moe, any = 0;

    if (!open_fixture(w->dir, &c, &a))
        return;
    moe = w->experts > 0;
    is_str(a.family, w->family, "%s: family", w->dir);
    is_int(a.hidden, w->hidden, "%s: hidden", w->dir);
    is_int(a.n_layers, w->layers, "%s: layers", w->dir);
    is_int(a.vocab, w->vocab, "%s: vocab", w->dir);
    is_int(a.heads, w->heads, "%s: heads", w->dir);
    is_int(a.kv_heads, w->kv, "%s: kv_heads", w->dir);
    is_int(a.head_dim, w->dim, "%s: head_dim", w->dir);
    is_int(a.v_dim, w->dim, "%s: v_dim", w->dir);
    is_int(a.max_context, w->context, "%s: context", w->dir);
    is_int(a.tied, w->tied, "%s: tied", w->dir);
    ok(a.norm_eps == (float) w->eps, "%s: eps %g", w->dir,
       (double) a.norm_eps);
    is_int(a.norm_kind, MOE_NORM_RMS, "%s: norm", w->dir);
    is_int(a.qk_norm, w->qk_norm, "%s: qk_norm", w->dir);
    ok(a.clip_qkv == (float) w->clip, "%s: clip %g", w->dir,
       (double) a.clip_qkv);
    ok(a.attn_scale == (float) (1.0 / sqrt((double) w->dim)),
       "%s: attn_scale", w->dir);
    ok(a.embed_scale == 1.0f && a.route_scale == 1.0f, "%s: scales of 1",
       w->dir);
    is_int(a.n_inv_freq, w->dim / 2, "%s: rope", w->dir);
    is_int(a.act, MOE_ACT_SILU, "%s: activation", w->dir);
    is_int(a.n_experts, w->experts, "%s: experts", w->dir);
    is_int(a.top_k, w->top_k, "%s: top_k", w->dir);
    is_int(a.expert_width, w->width, "%s: expert width", w->dir);
    is_int(a.renorm, w->renorm, "%s: renorm", w->dir);
    is_int(a.score, moe ? MOE_SCORE_SOFTMAX : 0, "%s: score", w->dir);
    is_int(a.shared_width, w->shared, "%s: shared", w->dir);
    is_int(a.shared_gated, w->shared > 0, "%s: shared gate", w->dir);
    is_int(a.n_group + a.topk_group + a.input_scaled, 0, "%s: no groups",
           w->dir);
    for (l = 0; l < a.n_layers; l++) {
        strcat(ffn, a.layers[l].ffn == MOE_FFN_MOE ? "m" : "d");
        if (a.layers[l].ffn == MOE_FFN_DENSE)
            dense = a.layers[l].ffn_width;
        snprintf(one, sizeof(one), "%s%u", l > 0 ? " " : "",
                 a.layers[l].window);
        strcat(windows, one);
        any |= a.layers[l].window | a.layers[l].chunk;
        if (a.layers[l].rot_dim != w->dim)
            any = UINT32_MAX;
    }
    is_str(ffn, w->ffn, "%s: layers' kinds", w->dir);
    is_int(dense, w->dense, "%s: dense width", w->dir);
    is_str(any == 0 ? "" : windows, w->windows, "%s: windows", w->dir);
    moe_arch_params(&a, &total, &active);
    is_int(total, w->total, "%s: parameters", w->dir);
    is_int(active, w->active, "%s: active parameters", w->dir);
    moe_arch_free(&a);
    moe_checkpoint_close(c);
}

static void
one_name(size_t i)
{
    struct moe_checkpoint *c;
    struct moe_arch        a;
    char                   buf[128] = "";
    uint64_t               n, k;
    moe_status             st;

    if (!open_fixture(names[i].dir, &c, &a))
        return;
    moe_arch_shape(&a, names[i].tensor, names[i].layer, &n, &k);
    is_int(n, names[i].n, "%s: tensor %u: n", names[i].dir, names[i].tensor);
    is_int(k, names[i].k, "%s: tensor %u: k", names[i].dir, names[i].tensor);
    st = moe_arch_name(&a, names[i].tensor, names[i].layer, names[i].expert,
                       buf, sizeof(buf));
    is_int(st, names[i].name != NULL ? MOE_OK : MOE_E_NOT_FOUND,
           "%s: tensor %u: name", names[i].dir, names[i].tensor);
    if (names[i].name != NULL) {
        is_str(buf, names[i].name, "%s: tensor %u", names[i].dir,
               names[i].tensor);
        is_int(moe_arch_name(&a, names[i].tensor, names[i].layer,
                             names[i].expert, buf, strlen(names[i].name)),
               MOE_E_INVAL, "%s: no room", names[i].dir);
    }
    moe_arch_free(&a);
    moe_checkpoint_close(c);
}

int
main(void)
{
    size_t i;

    for (i = 0; i < sizeof(wants) / sizeof(wants[0]); i++)
        fields(&wants[i]);
    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        one_name(i);
    is_str(moe_class_name(moe_arch_class(MOE_T_EXPERT_UP)), "experts",
           "class of experts");
    is_str(moe_class_name(moe_arch_class(MOE_T_SHARED_SCALE)), "router",
           "class of the shared expert's gate");
    is_str(moe_class_name(moe_arch_class(MOE_T_OUTPUT)), "embeddings",
           "class of the output head");
    is_str(moe_class_name(moe_arch_class(MOE_T_Q_BIAS)), "norms",
           "class of biases");
    is_str(moe_class_name(99), "?", "no class");
    return tap_done();
}
