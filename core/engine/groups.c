/* SPDX-License-Identifier: Apache-2.0 */
/*
 * groups.c - every weight of the model, and how the backend will hold it.
 *
 * Owns the walk over the description's tensors, the reading of vectors
 * (norms, biases) to f32, and the question to the backend: native, generic,
 * or expanded by the quantizer's decode().  Reads no matrix and allocates
 * nothing on the device.
 */
#include "engine/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------- vectors -- */

/* n floats of room at the end of the vectors; *off in bytes. */
static moe_status
moe_vec_room(struct moe_runner *r, uint64_t n, uint64_t *off,
             struct moe_error *err)
{
    uint64_t start = (r->n_vec + 15u) & ~(uint64_t) 15u;

    if (start + n > r->cap_vec) {
        uint64_t cap = (start + n) * 2 + 1024;
        float   *p = realloc(r->vec_host, cap * sizeof(float));

        if (p == NULL)
            return moe_fail(err, MOE_E_NOMEM, ENOMEM, "norms: no memory");
        memset(p + r->cap_vec, 0, (cap - r->cap_vec) * sizeof(float));
        r->vec_host = p;
        r->cap_vec = cap;
    }
    r->n_vec = start + n;
    *off = start * sizeof(float);
    return MOE_OK;
}

/* A vector of the model if it has it, else *off = MOE_NO_VEC. */
static moe_status
moe_vec_add(struct moe_runner *r, uint32_t tensor, uint32_t layer,
            uint64_t *off, struct moe_error *err)
{
    uint64_t   n, k;
    moe_status st;

    *off = MOE_NO_VEC;
    if (r->s.arch->name[tensor] == NULL)
        return MOE_OK;
    moe_arch_shape(r->s.arch, tensor, layer, &n, &k);
    if (n == 0)
        return MOE_OK;
    st = moe_vec_room(r, n * k, off, err);
    if (st == MOE_OK)
        st = moe_vector_read(r->s.checkpoint, r->s.arch, tensor, layer,
                             r->vec_host + *off / 4, err);
    return st;
}

/* Query, key and value biases side by side. */
static moe_status
moe_vec_qkv_bias(struct moe_runner *r, uint32_t layer, uint64_t *off,
                 struct moe_error *err)
{
    static const uint32_t bias[3] = {MOE_T_Q_BIAS, MOE_T_K_BIAS, MOE_T_V_BIAS};
    static const uint32_t mat[3] = {MOE_T_Q, MOE_T_K, MOE_T_V};
    uint64_t              n[3], have[3], k, at = 0;
    moe_status            st = MOE_OK;
    uint32_t              i, any = 0;

    *off = MOE_NO_VEC;
    for (i = 0; i < 3; i++) {
        have[i] = 0;
        if (r->s.arch->name[bias[i]] != NULL)
            moe_arch_shape(r->s.arch, bias[i], layer, &have[i], &k);
        any |= have[i] != 0;
        moe_arch_shape(r->s.arch, mat[i], layer, &n[i], &k);
    }
    if (!any)
        return MOE_OK;
    st = moe_vec_room(r, n[0] + n[1] + n[2], off, err);
    for (i = 0; i < 3 && st == MOE_OK; i++) {
        if (have[i] != 0)
            st = moe_vector_read(r->s.checkpoint, r->s.arch, bias[i], layer,
                                 r->vec_host + *off / 4 + at, err);
        at += n[i];
    }
    return st;
}

/* -------------------------------------------------------------- groups -- */

static int
moe_same_format(const struct moe_format_ref *a, const struct moe_format_ref *b)
{
    return strcmp(a->format->id, b->format->id) == 0
           && a->format->revision == b->format->revision;
}

void
moe_group_weights(const struct moe_group *g, struct moe_weights *w)
{
    uint32_t i;

    memset(w, 0, sizeof(*w));
    w->struct_size = sizeof(*w);
    w->scale_dtype = g->scale_dtype;
    w->format = g->fmt.format;
    w->shape = &g->shape;
    if (g->has_affine)
        for (i = 0; i < g->shape.n_parts; i++)
            w->affine[i] = &g->affine[i];
}

/* The operation a group is asked about, with sizes as upper bounds. */
static moe_status
moe_group_query(struct moe_runner *r, const struct moe_group *g, uint32_t rows,
                struct moe_plan *plan, struct moe_error *err)
{
    const struct moe_arch *a = r->s.arch;
    struct moe_weights     w;
    uint32_t               i;

    moe_group_weights(g, &w);
    memset(plan, 0, sizeof(*plan));
    plan->struct_size = sizeof(*plan);

    if (g->op == MOE_OP_EMBED) {
        struct moe_op_embed op;

        memset(&op, 0, sizeof(op));
        op.op.struct_size = sizeof(op);
        op.op.code = MOE_OP_EMBED;
        op.rows = rows;
        op.n = (uint32_t) g->shape.n[0];
        op.k = (uint32_t) g->shape.k[0];
        op.dtype = MOE_F32;
        op.ldy = op.k;
        return r->s.ops->query(r->dev, &op.op, &w, plan, err);
    }
    if (g->op == MOE_OP_GROUPED_FFN) {
        struct moe_op_grouped_ffn op;

        memset(&op, 0, sizeof(op));
        op.op.struct_size = sizeof(op);
        op.op.code = MOE_OP_GROUPED_FFN;
        op.n_groups = g->routed ? a->n_experts : 1;
        op.rows = rows;
        op.k = g->routed ? a->top_k : 1;
        op.h = (uint32_t) g->shape.k[0];
        op.f = (uint32_t) g->shape.n[0];
        op.act = a->act;
        op.dtype = MOE_F32;
        op.ldx = op.ldy = op.h;
        if (g->routed && a->input_scaled)
            op.op.flags = MOE_FFN_SCALE_INPUT;
        return r->s.ops->query(r->dev, &op.op, &w, plan, err);
    }
    {
        struct moe_op_grouped_gemm op;

        memset(&op, 0, sizeof(op));
        op.op.struct_size = sizeof(op);
        op.op.code = MOE_OP_GROUPED_GEMM;
        op.n_groups = 1;
        op.rows = rows;
        op.n_parts = g->shape.n_parts;
        for (i = 0; i < g->shape.n_parts; i++)
            op.n += (uint32_t) g->shape.n[i];
        op.k = (uint32_t) g->shape.k[0];
        op.dtype = MOE_F32;
        op.ldx = op.k;
        op.ldy = op.n;
        return r->s.ops->query(r->dev, &op.op, &w, plan, err);
    }
}

static void
moe_group_affine(struct moe_group *g)
{
    const struct moe_quantizer_ops *q = g->fmt.ops;
    uint32_t                        i;

    g->has_affine = 0;
    if (!MOE_HAS(q, moe_quantizer_ops, affine) || q->affine == NULL)
        return;
    for (i = 0; i < g->shape.n_parts; i++) {
        memset(&g->affine[i], 0, sizeof(g->affine[i]));
        g->affine[i].struct_size = sizeof(g->affine[i]);
        if (q->affine(g->fmt.self, g->fmt.format, g->shape.n[i],
                      g->shape.k[i], g->scale_dtype, &g->affine[i])
            != MOE_OK)
            return;
    }
    g->has_affine = 1;
}

static const char *
moe_dtype_format(uint32_t dtype)
{
    return dtype == MOE_F16 ? "f16" : dtype == MOE_BF16 ? "bf16" : "f32";
}

/*
 * Settles how a new group is held.  mixed: its parts have several formats,
 * so only expansion can serve.
 */
static moe_status
moe_group_settle(struct moe_runner *r, struct moe_group *g, int mixed,
                 struct moe_error *err)
{
    struct moe_error why;
    moe_status       st = MOE_E_UNSUPPORTED;
    uint64_t         i;

    memset(&why, 0, sizeof(why));
    why.struct_size = sizeof(why);
    if (!mixed) {
        moe_group_affine(g);
        st = moe_group_query(r, g, 1, &g->plan, &why);
        if (st != MOE_OK && st != MOE_E_UNSUPPORTED)
            return moe_fail(err, st, why.native, "%s", why.text);
    } else {
        snprintf(why.text, sizeof(why.text), "parts of several formats");
    }
    if (st != MOE_OK) {
        const char *from = g->fmt.format->id;
        char        text[sizeof(g->plan.why)];

        g->expanded = 1;
        g->dtype = MOE_F32;
        if (!mixed && (r->info.dtypes & MOE_DTYPE_BIT(r->info.preferred)) != 0)
            g->dtype = r->info.preferred;
        st = moe_registry_format(r->s.registry, moe_dtype_format(g->dtype),
                                 &g->fmt, err);
        if (st != MOE_OK)
            return st;
        g->scale_dtype = 0;
        moe_group_affine(g);
        st = moe_group_query(r, g, 1, &g->plan, err);
        if (st != MOE_OK)
            return st;
        snprintf(text, sizeof(text), "%s decoded to %s: %.60s", from,
                 g->fmt.format->id, why.text);
        memcpy(g->plan.why, text, sizeof(g->plan.why));
        g->plan.tier = MOE_TIER_EXPAND;
        for (i = 0; i < g->shape.n_parts; i++)
            g->dec_bytes += moe_host_round(g->shape.n[i] * g->shape.k[i]
                                           * moe_dtype_size(g->dtype));
    }
    if (g->plan.tier < r->s.min_tier)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "engine.min_tier: %s of format %s only run as %s on "
                        "%s (%s); lower min_tier or quantize to a format it "
                        "knows",
                        moe_class_name(g->cls), g->src.format->id,
                        g->plan.tier == MOE_TIER_EXPAND ? "expand" : "generic",
                        r->s.backend, g->plan.why);
    return MOE_OK;
}

/*
 * The set of n matrices `tensors` of a layer (and expert): finds the files'
 * bytes, then the group.  MOE_PENDING, only with mixed_ok: the parts have
 * several formats and the caller has another way.
 */
static moe_status
moe_set_add(struct moe_runner *r, const uint32_t *tensors, uint32_t n,
            uint32_t layer, uint32_t expert, uint32_t op, int routed,
            int mixed_ok, struct moe_set *set, struct moe_error *err)
{
    struct moe_group *g;
    struct moe_shape  shape;
    uint64_t          bytes = 0;
    moe_status        st;
    uint32_t          i;
    int               mixed = 0;

    memset(&shape, 0, sizeof(shape));
    shape.struct_size = sizeof(shape);
    shape.n_parts = n;
    set->n_parts = n;
    for (i = 0; i < n; i++) {
        st = moe_weight_find(r->s.checkpoint, r->s.registry, r->s.arch,
                             tensors[i], layer, expert, &set->part[i], err);
        if (st != MOE_OK)
            return st;
        shape.n[i] = set->part[i].n;
        shape.k[i] = set->part[i].k;
        bytes += set->part[i].bytes;
        if (i > 0
            && (!moe_same_format(&set->part[i].ref, &set->part[0].ref)
                || set->part[i].scale_dtype != set->part[0].scale_dtype))
            mixed = 1;
    }
    if (mixed && mixed_ok)
        return MOE_PENDING;
    for (i = 0; i < r->n_groups; i++) {
        g = &r->groups[i];
        if (g->op == op && g->routed == (uint32_t) routed
            && g->cls == moe_arch_class(tensors[0])
            && memcmp(&g->shape, &shape, sizeof(shape)) == 0
            && (g->expanded
                    ? mixed || moe_same_format(&g->src, &set->part[0].ref)
                    : !mixed && moe_same_format(&g->fmt, &set->part[0].ref)
                          && g->scale_dtype == set->part[0].scale_dtype))
            break;
    }
    if (i == r->n_groups) {
        g = realloc(r->groups, (r->n_groups + 1) * sizeof(*g));
        if (g == NULL)
            return moe_fail(err, MOE_E_NOMEM, ENOMEM, "weights: no memory");
        r->groups = g;
        g = &r->groups[r->n_groups];
        memset(g, 0, sizeof(*g));
        g->shape = shape;
        g->src = g->fmt = set->part[0].ref;
        g->scale_dtype = set->part[0].scale_dtype;
        g->op = op;
        g->cls = moe_arch_class(tensors[0]);
        g->routed = (uint32_t) routed;
        st = moe_group_settle(r, g, mixed, err);
        if (st != MOE_OK)
            return st;
        r->n_groups++;
    }
    g = &r->groups[i];
    if (bytes > g->src_bytes)
        g->src_bytes = bytes;
    set->group = i;
    set->slot = (uint32_t) g->n_sets++;
    return MOE_OK;
}

static moe_status
moe_set_one(struct moe_runner *r, uint32_t tensor, uint32_t layer, uint32_t op,
            struct moe_set *set, struct moe_error *err)
{
    return moe_set_add(r, &tensor, 1, layer, 0, op, 0, 0, set, err);
}

static moe_status
moe_layer_index(struct moe_runner *r, uint32_t l, struct moe_error *err)
{
    static const uint32_t  qkv[3] = {MOE_T_Q, MOE_T_K, MOE_T_V};
    static const uint32_t  dense[3] = {MOE_T_GATE, MOE_T_UP, MOE_T_DOWN};
    static const uint32_t  shared[3] = {MOE_T_SHARED_GATE, MOE_T_SHARED_UP,
                                        MOE_T_SHARED_DOWN};
    static const uint32_t  expert[3] = {MOE_T_EXPERT_GATE, MOE_T_EXPERT_UP,
                                        MOE_T_EXPERT_DOWN};
    const struct moe_arch *a = r->s.arch;
    struct moe_run_layer  *y = &r->layers[l];
    uint64_t              *vecs[] = {&y->attn_norm, &y->ffn_norm, &y->q_norm,
                                     &y->k_norm, &y->o_bias, &y->gate_bias,
                                     &y->up_bias, &y->down_bias};
    static const uint32_t  names[] = {MOE_T_ATTN_NORM, MOE_T_FFN_NORM,
                                      MOE_T_Q_NORM, MOE_T_K_NORM,
                                      MOE_T_O_BIAS, MOE_T_GATE_BIAS,
                                      MOE_T_UP_BIAS, MOE_T_DOWN_BIAS};
    moe_status             st;
    uint32_t               i;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        st = moe_vec_add(r, names[i], l, vecs[i], err);
        if (st != MOE_OK)
            return st;
    }
    st = moe_vec_qkv_bias(r, l, &y->qkv_bias, err);
    if (st != MOE_OK)
        return st;

    y->n_qkv = 1;
    st = moe_set_add(r, qkv, 3, l, 0, MOE_OP_GROUPED_GEMM, 0, 1, &y->qkv[0],
                     err);
    if (st == MOE_PENDING) {
        y->n_qkv = 3;
        st = MOE_OK;
        for (i = 0; i < 3 && st == MOE_OK; i++)
            st = moe_set_one(r, qkv[i], l, MOE_OP_GROUPED_GEMM, &y->qkv[i],
                             err);
    }
    if (st == MOE_OK)
        st = moe_set_one(r, MOE_T_O, l, MOE_OP_GROUPED_GEMM, &y->o, err);
    if (st != MOE_OK)
        return st;

    y->sel_bias = MOE_NO_VEC;
    if (a->layers[l].ffn == MOE_FFN_DENSE)
        return moe_set_add(r, dense, 3, l, 0, MOE_OP_GROUPED_FFN, 0, 0,
                           &y->ffn, err);
    y->moe = r->n_moe++;
    st = moe_vec_add(r, MOE_T_ROUTER_BIAS, l, &y->sel_bias, err);
    if (st == MOE_OK)
        st = moe_set_one(r, MOE_T_ROUTER, l, MOE_OP_GROUPED_GEMM, &y->router,
                         err);
    if (st == MOE_OK && a->shared_width != 0)
        st = moe_set_add(r, shared, 3, l, 0, MOE_OP_GROUPED_FFN, 0, 0,
                         &y->shared, err);
    if (st == MOE_OK && a->shared_gated)
        st = moe_set_one(r, MOE_T_SHARED_SCALE, l, MOE_OP_GROUPED_GEMM,
                         &y->shared_gate, err);
    if (st != MOE_OK)
        return st;
    y->experts = calloc(a->n_experts, sizeof(*y->experts));
    if (y->experts == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "experts: no memory");
    for (i = 0; i < a->n_experts && st == MOE_OK; i++)
        st = moe_set_add(r, expert, 3, l, i, MOE_OP_GROUPED_FFN, 1, 0,
                         &y->experts[i], err);
    return st;
}

moe_status
moe_runner_index(struct moe_runner *r, struct moe_error *err)
{
    const struct moe_arch *a = r->s.arch;
    moe_status             st;
    uint32_t               l;

    r->layers = calloc(a->n_layers, sizeof(*r->layers));
    if (r->layers == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "layers: no memory");
    r->inv_freq = MOE_NO_VEC;
    st = MOE_OK;
    if (a->n_inv_freq != 0) {
        st = moe_vec_room(r, a->n_inv_freq, &r->inv_freq, err);
        if (st == MOE_OK)
            memcpy(r->vec_host + r->inv_freq / 4, a->inv_freq,
                   a->n_inv_freq * sizeof(float));
    }
    /* A tied table is asked about as a product: the larger question. */
    if (st == MOE_OK)
        st = moe_set_one(r, MOE_T_EMBED, 0,
                         a->tied ? MOE_OP_GROUPED_GEMM : MOE_OP_EMBED,
                         &r->embed, err);
    for (l = 0; l < a->n_layers && st == MOE_OK; l++)
        st = moe_layer_index(r, l, err);
    if (st == MOE_OK)
        st = moe_vec_add(r, MOE_T_OUTPUT_NORM, 0, &r->output_norm, err);
    if (st == MOE_OK && !a->tied)
        st = moe_set_one(r, MOE_T_OUTPUT, 0, MOE_OP_GROUPED_GEMM, &r->output,
                         err);
    return st;
}

moe_status
moe_runner_work(struct moe_runner *r, uint32_t rows, uint32_t out_rows,
                uint32_t context, uint64_t *bytes, struct moe_error *err)
{
    const struct moe_arch  *a = r->s.arch;
    struct moe_op_attention op;
    struct moe_plan         plan;
    uint64_t                most = 0;
    moe_status              st;
    uint32_t                i;

    for (i = 0; i < r->n_groups; i++) {
        const struct moe_group *g = &r->groups[i];
        int head = i == (a->tied ? r->embed.group : r->output.group);

        st = moe_group_query(r, g, head && out_rows > rows ? out_rows : rows,
                             &plan, err);
        if (st != MOE_OK)
            return st;
        if (plan.work_bytes > most)
            most = plan.work_bytes;
    }
    memset(&op, 0, sizeof(op));
    op.op.struct_size = sizeof(op);
    op.op.code = MOE_OP_ATTENTION;
    op.rows = rows;
    op.heads = a->heads;
    op.dtype = MOE_F32;
    op.n_seqs = r->s.sequences;
    op.max_context = context;
    op.max_pages = (context + r->s.page_rows - 1) / r->s.page_rows;
    op.kv.struct_size = sizeof(op.kv);
    op.kv.dtype = r->s.kv_dtype;
    op.kv.page_rows = r->s.page_rows;
    op.kv.kv_heads = a->kv_heads;
    op.kv.k_dim = a->head_dim;
    op.kv.v_dim = a->v_dim;
    op.ldq = (uint64_t) a->heads * a->head_dim
             + (uint64_t) a->kv_heads * (a->head_dim + a->v_dim);
    op.ldy = (uint64_t) a->heads * a->v_dim;
    op.scale = a->attn_scale;
    memset(&plan, 0, sizeof(plan));
    plan.struct_size = sizeof(plan);
    st = r->s.ops->query(r->dev, &op.op, NULL, &plan, err);
    if (st != MOE_OK)
        return st;
    if (plan.work_bytes > most)
        most = plan.work_bytes;
    *bytes = most;
    return MOE_OK;
}

uint32_t
moe_kv_row_bytes(const struct moe_runner *r, uint32_t dtype)
{
    const struct moe_arch *a = r->s.arch;

    return a->kv_heads * (a->head_dim + a->v_dim) * moe_dtype_size(dtype);
}
