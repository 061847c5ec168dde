/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step.c - one step over a batch, lowered to operations on a stream.
 *
 * Owns the order of a decoder's operations.  Reads the description, never a
 * family's name; and the host waits only at the end of the step, or where a
 * layer's experts do not all have a slot.
 */
#include "engine/internal.h"

#include <string.h>
#include <time.h>

#define MOE_OP_INIT(v, opcode)                                                \
    do {                                                                      \
        memset(&(v), 0, sizeof(v));                                           \
        (v).op.struct_size = sizeof(v);                                       \
        (v).op.code = (opcode);                                               \
    } while (0)

static struct moe_buf
moe_act_buf(const struct moe_runner *r, uint64_t off)
{
    struct moe_buf b = {r->act, off};

    return b;
}

/* A vector, or "absent". */
static struct moe_buf
moe_vec_buf(const struct moe_runner *r, uint64_t off)
{
    struct moe_buf b = {off != MOE_NO_VEC ? r->vec : NULL,
                        off != MOE_NO_VEC ? off : 0};

    return b;
}

static double
moe_step_now(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* When a timed part begins; 0 if nobody asked. */
static double
moe_probe_start(const struct moe_runner *r)
{
    return r->probe != NULL && r->probe->timed ? moe_step_now() : 0;
}

static void
moe_probe_end(struct moe_runner *r, enum moe_runner_at at, double start)
{
    if (r->probe == NULL)
        return;
    r->probe->calls[at]++;
    if (r->probe->timed)
        r->probe->seconds[at] += moe_step_now() - start;
}

/* Weights that `rows` rows were multiplied with, read once. */
static void
moe_probe_weights(struct moe_runner *r, enum moe_runner_at at,
                  const struct moe_set *set, uint64_t rows)
{
    const struct moe_group *g = &r->groups[set->group];
    uint32_t                i;

    if (r->probe == NULL)
        return;
    r->probe->bytes[at] += g->plan.slot_bytes;
    for (i = 0; i < g->shape.n_parts; i++)
        r->probe->ops[at] += 2.0 * (double) rows * (double) g->shape.n[i]
                             * (double) g->shape.k[i];
}

static moe_status
moe_launch(struct moe_runner *r, enum moe_runner_at at,
           const struct moe_op *op, struct moe_error *err)
{
    double     start = moe_probe_start(r);
    moe_status st = r->s.ops->launch(r->stream, op, err);

    if (st == MOE_OK && start != 0)
        st = moe_runner_wait(r, err);
    moe_probe_end(r, at, start);
    return st;
}

/* `row` bytes of each row from `off` on, for whoever has a tap there. */
static moe_status
moe_step_tap(struct moe_runner *r, uint32_t l, enum moe_tap_what what,
             uint32_t rows, uint64_t off, uint64_t row, struct moe_error *err)
{
    moe_status st;
    void      *to;

    if (r->tap == NULL)
        return MOE_OK;
    to = r->tap->place(r->tap->ctx, l, what, rows);
    if (to == NULL)
        return MOE_OK;
    st = r->s.ops->download(r->stream, to, moe_act_buf(r, off), rows * row);
    if (st != MOE_OK)
        (void) moe_fail(err, st, 0, "%s: reading the inputs of layer %u "
                                    "failed", r->s.backend, l);
    return st;
}

/* y = norm(x) over rows of `hidden`. */
static moe_status
moe_step_norm(struct moe_runner *r, uint32_t rows, uint64_t x, uint64_t w,
              uint64_t y, struct moe_error *err)
{
    struct moe_op_norm op;

    MOE_OP_INIT(op, MOE_OP_NORM);
    op.rows = rows;
    op.n = r->s.arch->hidden;
    op.kind = r->s.arch->norm_kind;
    op.dtype = MOE_F32;
    op.eps = r->s.arch->norm_eps;
    op.x = moe_act_buf(r, x);
    op.w = moe_vec_buf(r, w);
    op.y = moe_act_buf(r, y);
    op.ldx = op.ldy = op.n;
    return moe_launch(r, MOE_AT_NORM, &op.op, err);
}

/* y (+)= x * W^T (+ bias); W are all parts of a set. */
static moe_status
moe_step_gemm(struct moe_runner *r, enum moe_runner_at at,
              const struct moe_set *set, uint32_t rows, uint64_t x,
              uint64_t ldx, uint64_t bias, uint32_t flags, uint64_t y,
              uint64_t ldy, struct moe_error *err)
{
    const struct moe_group    *g = &r->groups[set->group];
    struct moe_op_grouped_gemm op;
    struct moe_wref            w = {g->slab, set->slot, 0};
    uint32_t                   i;

    MOE_OP_INIT(op, MOE_OP_GROUPED_GEMM);
    op.op.flags = flags;
    op.n_groups = 1;
    op.rows = rows;
    op.n_parts = set->n_parts;
    for (i = 0; i < set->n_parts; i++)
        op.n += (uint32_t) g->shape.n[i];
    op.k = (uint32_t) g->shape.k[0];
    op.dtype = MOE_F32;
    op.w = &w;
    op.bias = moe_vec_buf(r, bias);
    op.x = moe_act_buf(r, x);
    op.y = moe_act_buf(r, y);
    op.ldx = ldx;
    op.ldy = ldy;
    op.work = moe_act_buf(r, r->map.work);
    moe_probe_weights(r, at, set, rows);
    return moe_launch(r, at, &op.op, err);
}

/* Cached keys and values that a layer's attention has to look at. */
static void
moe_probe_cache(struct moe_runner *r, const struct moe_batch *b,
                uint32_t window)
{
    uint32_t i, n;

    if (r->probe == NULL)
        return;
    for (i = 0; i < b->rows; i++)
        if (i + 1 == b->rows || b->seqs[i + 1] != b->seqs[i]) {
            n = b->positions[i] + 1;
            if (window != 0 && n > window)
                n = window;
            r->probe->bytes[MOE_AT_ATTENTION]
                += (uint64_t) n * moe_kv_row_bytes(r, r->s.kv_dtype);
        }
}

static moe_status
moe_step_attention(struct moe_runner *r, uint32_t l, const struct moe_batch *b,
                   uint32_t max_context, struct moe_error *err)
{
    const struct moe_arch      *a = r->s.arch;
    const struct moe_run_layer *y = &r->layers[l];
    const struct moe_act_map   *m = &r->map;
    uint64_t q_cols = (uint64_t) a->heads * a->head_dim;
    uint64_t ld = q_cols + (uint64_t) a->kv_heads * (a->head_dim + a->v_dim);
    uint64_t size = moe_dtype_size(r->s.kv_dtype);
    uint64_t cache_rows = (uint64_t) r->plan.pages * r->s.page_rows
                          * a->kv_heads;
    struct moe_op_rope_kv   rope;
    struct moe_op_attention att;
    struct moe_kv           kv;
    moe_status              st;
    uint64_t                at = 0;
    uint32_t                i;

    if (y->n_qkv == 1) {
        st = moe_step_gemm(r, MOE_AT_QKV, &y->qkv[0], b->rows, m->xn,
                           a->hidden, y->qkv_bias, 0, m->qkv, ld, err);
    } else {
        for (st = MOE_OK, i = 0; i < 3 && st == MOE_OK; i++) {
            st = moe_step_gemm(r, MOE_AT_QKV, &y->qkv[i], b->rows, m->xn,
                               a->hidden,
                               y->qkv_bias != MOE_NO_VEC
                                   ? y->qkv_bias + at * 4 : MOE_NO_VEC,
                               0, m->qkv + at * 4, ld, err);
            at += y->qkv[i].part[0].n;
        }
    }
    if (st != MOE_OK)
        return st;

    memset(&kv, 0, sizeof(kv));
    kv.struct_size = sizeof(kv);
    kv.dtype = r->s.kv_dtype;
    kv.page_rows = r->s.page_rows;
    kv.kv_heads = a->kv_heads;
    kv.k_dim = a->head_dim;
    kv.v_dim = a->v_dim;
    kv.k.mem = kv.v.mem = r->kv;
    kv.k.off = (uint64_t) l * cache_rows * (a->head_dim + a->v_dim) * size;
    kv.v.off = kv.k.off + cache_rows * a->head_dim * size;

    MOE_OP_INIT(rope, MOE_OP_ROPE_KV);
    rope.rows = b->rows;
    rope.heads = a->heads;
    rope.dtype = MOE_F32;
    rope.rot_dim = a->layers[l].rot_dim;
    rope.rope_kind = a->rope_kind;
    rope.norm_span = a->qk_norm;
    rope.norm_eps = a->norm_eps;
    rope.clip = a->clip_qkv;
    rope.rope_scale = a->rope_scale;
    rope.kv = kv;
    rope.qkv = moe_act_buf(r, m->qkv);
    rope.ld = ld;
    rope.q_norm = moe_vec_buf(r, y->q_norm);
    rope.k_norm = moe_vec_buf(r, y->k_norm);
    rope.inv_freq = moe_vec_buf(r, r->inv_freq);
    rope.positions = moe_act_buf(r, m->positions);
    rope.slots = moe_act_buf(r, m->slots);
    st = moe_launch(r, MOE_AT_ROPE, &rope.op, err);
    if (st != MOE_OK)
        return st;

    MOE_OP_INIT(att, MOE_OP_ATTENTION);
    att.rows = b->rows;
    att.heads = a->heads;
    att.dtype = MOE_F32;
    att.window = a->layers[l].window;
    att.chunk = a->layers[l].chunk;
    att.n_seqs = b->n_seqs;
    att.max_pages = b->max_pages;
    att.max_context = max_context;
    att.scale = a->attn_scale;
    att.kv = kv;
    att.q = moe_act_buf(r, m->qkv);
    att.ldq = ld;
    att.y = moe_act_buf(r, m->att);
    att.ldy = (uint64_t) a->heads * a->v_dim;
    att.seqs = moe_act_buf(r, m->seqs);
    att.positions = rope.positions;
    att.pages = moe_act_buf(r, m->pages);
    att.work = moe_act_buf(r, m->work);
    moe_probe_cache(r, b, a->layers[l].window);
    st = moe_launch(r, MOE_AT_ATTENTION, &att.op, err);
    if (st == MOE_OK)
        st = moe_step_tap(r, l, MOE_TAP_OUT, b->rows, m->att, att.ldy * 4,
                          err);
    if (st == MOE_OK)
        st = moe_step_gemm(r, MOE_AT_OUT, &y->o, b->rows, m->att, att.ldy,
                           y->o_bias, MOE_GEMM_ACCUMULATE, m->x, a->hidden,
                           err);
    return st;
}

/* Dense feed-forward of all rows: xn -> y.  layer: for its biases, or NULL. */
static moe_status
moe_step_dense(struct moe_runner *r, enum moe_runner_at at,
               const struct moe_set *set, uint32_t rows,
               const struct moe_run_layer *layer, uint32_t flags, uint64_t y,
               struct moe_error *err)
{
    const struct moe_group   *g = &r->groups[set->group];
    struct moe_op_grouped_ffn op;
    struct moe_wref           w = {g->slab, set->slot, 0};
    uint32_t                  zero = 0;

    MOE_OP_INIT(op, MOE_OP_GROUPED_FFN);
    op.op.flags = flags;
    op.n_groups = 1;
    op.rows = rows;
    op.k = 1;
    op.h = (uint32_t) g->shape.k[0];
    op.f = (uint32_t) g->shape.n[0];
    op.act = r->s.arch->act;
    op.dtype = MOE_F32;
    op.experts = &zero;
    op.w = &w;
    op.x = moe_act_buf(r, r->map.xn);
    op.y = moe_act_buf(r, y);
    op.ldx = op.ldy = op.h;
    op.work = moe_act_buf(r, r->map.work);
    if (layer != NULL) {
        op.gate_bias = moe_vec_buf(r, layer->gate_bias);
        op.up_bias = moe_vec_buf(r, layer->up_bias);
        op.down_bias = moe_vec_buf(r, layer->down_bias);
    }
    moe_probe_weights(r, at, set, rows);
    return moe_launch(r, at, &op.op, err);
}

/* The experts of r->list, n of them, on the routed rows. */
static moe_status
moe_step_experts(struct moe_runner *r, const struct moe_run_layer *y,
                 uint32_t n, uint32_t rows, struct moe_error *err)
{
    const struct moe_arch    *a = r->s.arch;
    const struct moe_act_map *m = &r->map;
    struct moe_op_grouped_ffn op;

    MOE_OP_INIT(op, MOE_OP_GROUPED_FFN);
    op.op.flags = a->input_scaled ? MOE_FFN_SCALE_INPUT : 0;
    op.n_groups = n;
    op.rows = rows;
    op.k = a->top_k;
    op.h = a->hidden;
    op.f = a->expert_width;
    op.act = a->act;
    op.dtype = MOE_F32;
    op.experts = r->list;
    op.w = r->list_w;
    op.perm = moe_act_buf(r, m->perm);
    op.offsets = moe_act_buf(r, m->offsets
                                    + (uint64_t) y->moe * (a->n_experts + 1)
                                          * 4);
    op.weights = moe_act_buf(r, m->weights);
    op.x = moe_act_buf(r, m->xn);
    op.y = moe_act_buf(r, m->pairs);
    op.ldx = op.ldy = a->hidden;
    op.work = moe_act_buf(r, m->work);
    return moe_launch(r, MOE_AT_EXPERTS, &op.op, err);
}

/* The experts of one group of slots, in as many launches as the slots ask
 * for: those that are there first, so that a miss evicts none of them. */
static moe_status
moe_step_passes(struct moe_runner *r, struct moe_run_layer *y, uint32_t group,
                const uint32_t *offsets, uint32_t rows, struct moe_error *err)
{
    struct moe_group *g = &r->groups[group];
    uint32_t          e, i, n = 0, n_missing = 0, slot;
    moe_status        st = MOE_OK;
    double            start;

    for (e = 0; e < r->s.arch->n_experts; e++) {
        const struct moe_set *x = &y->experts[e];

        if (offsets[e + 1] == offsets[e] || x->group != group)
            continue;
        slot = g->residency != NULL ? moe_residency_find(g->residency, x->slot)
                                    : x->slot;
        if (slot == MOE_NO_SLOT) {
            r->missing[n_missing++] = e;
            continue;
        }
        if (g->residency != NULL)
            moe_residency_pin(g->residency, x->slot);
        r->list[n] = e;
        r->list_w[n].slab = g->slab;
        r->list_w[n].slot = slot;
        r->list_w[n++].part = 0;
    }
    for (i = 0; i < n_missing && i < g->n_slots; i++)
        moe_runner_want(r, &y->experts[r->missing[i]]);
    i = 0;
    while (st == MOE_OK && (n != 0 || i < n_missing)) {
        for (; i < n_missing; i++) {
            struct moe_set *x = &y->experts[r->missing[i]];

            slot = moe_residency_take(g->residency, x->slot);
            if (slot == MOE_NO_SLOT)
                break; /* the rest in the next pass */
            start = moe_probe_start(r);
            st = moe_runner_fill(r, x, slot, err);
            moe_probe_end(r, MOE_AT_LOAD, start);
            if (st != MOE_OK) {
                moe_residency_drop(g->residency, x->slot);
                break;
            }
            r->loads++;
            r->list[n] = r->missing[i];
            r->list_w[n].slab = g->slab;
            r->list_w[n].slot = slot;
            r->list_w[n++].part = 0;
        }
        if (st == MOE_OK)
            st = moe_step_experts(r, y, n, rows, err);
        n = 0;
        /* One stream: what is uploaded next comes after this launch. */
        if (g->residency != NULL)
            moe_residency_unpin_all(g->residency);
    }
    if (g->residency != NULL)
        moe_residency_unpin_all(g->residency);
    return st;
}

static moe_status
moe_step_moe(struct moe_runner *r, uint32_t l, uint32_t rows,
             struct moe_error *err)
{
    const struct moe_arch    *a = r->s.arch;
    struct moe_run_layer     *y = &r->layers[l];
    const struct moe_act_map *m = &r->map;
    struct moe_op_route       route;
    struct moe_op_combine     combine;
    uint32_t                 *offsets, i;
    uint64_t                  off_bytes = (uint64_t) (a->n_experts + 1) * 4;
    int                       all = 1;
    moe_status                st;

    st = moe_step_gemm(r, MOE_AT_ROUTER, &y->router, rows, m->xn, a->hidden,
                       MOE_NO_VEC, 0, m->scores, a->n_experts, err);
    if (st != MOE_OK)
        return st;
    MOE_OP_INIT(route, MOE_OP_ROUTE);
    route.rows = rows;
    route.n_experts = a->n_experts;
    route.k = a->top_k;
    route.score = a->score;
    route.n_group = a->n_group;
    route.topk_group = a->topk_group;
    route.renorm = a->renorm;
    route.scale = a->route_scale;
    route.logits = moe_act_buf(r, m->scores);
    route.ld = a->n_experts;
    route.sel_bias = moe_vec_buf(r, y->sel_bias);
    route.ids = moe_act_buf(r, m->ids);
    route.weights = moe_act_buf(r, m->weights);
    route.offsets = moe_act_buf(r, m->offsets + y->moe * off_bytes);
    route.perm = moe_act_buf(r, m->perm);
    st = moe_launch(r, MOE_AT_ROUTE, &route.op, err);
    if (st == MOE_OK)
        st = moe_step_tap(r, l, MOE_TAP_IDS, rows, m->ids, a->top_k * 4u,
                          err);
    if (st == MOE_OK)
        st = moe_step_tap(r, l, MOE_TAP_WEIGHTS, rows, m->weights,
                          a->top_k * 4u, err);
    if (st != MOE_OK)
        return st;

    for (i = 0; i < a->n_experts; i++)
        if (r->groups[y->experts[i].group].residency != NULL
            || y->experts[i].group != y->experts[0].group)
            all = 0;
    if (all) {
        /* Every expert has its slot: the device's own counts will do. */
        for (i = 0; i < a->n_experts; i++) {
            r->list[i] = i;
            r->list_w[i].slab = r->groups[y->experts[i].group].slab;
            r->list_w[i].slot = y->experts[i].slot;
            r->list_w[i].part = 0;
        }
        st = moe_step_experts(r, y, a->n_experts, rows, err);
    } else {
        offsets = (uint32_t *) r->counts.p
                  + (size_t) y->moe * (a->n_experts + 1);
        st = r->s.ops->download(r->stream, offsets, route.offsets, off_bytes);
        if (st != MOE_OK)
            return moe_fail(err, st, 0, "%s: reading the routes failed",
                            r->s.backend);
        st = moe_runner_wait(r, err);
        for (i = 0; i < r->n_groups && st == MOE_OK; i++)
            if (r->groups[i].routed)
                st = moe_step_passes(r, y, i, offsets, rows, err);
    }
    if (st == MOE_OK && a->shared_width != 0)
        st = moe_step_dense(r, MOE_AT_SHARED, &y->shared, rows, NULL, 0,
                            m->shared, err);
    if (st == MOE_OK && a->shared_gated)
        st = moe_step_gemm(r, MOE_AT_SHARED, &y->shared_gate, rows, m->xn,
                           a->hidden, MOE_NO_VEC, 0, m->shared_gate, 1, err);
    if (st != MOE_OK)
        return st;

    MOE_OP_INIT(combine, MOE_OP_COMBINE);
    combine.op.flags = a->input_scaled ? MOE_COMBINE_UNWEIGHTED : 0;
    combine.rows = rows;
    combine.k = a->top_k;
    combine.h = a->hidden;
    combine.dtype = MOE_F32;
    combine.pairs = moe_act_buf(r, m->pairs);
    combine.ldp = a->hidden;
    combine.weights = moe_act_buf(r, m->weights);
    if (a->shared_width != 0)
        combine.shared = moe_act_buf(r, m->shared);
    combine.lds = a->hidden;
    if (a->shared_gated)
        combine.shared_gate = moe_act_buf(r, m->shared_gate);
    combine.y = moe_act_buf(r, m->x);
    combine.ldy = a->hidden;
    return moe_launch(r, MOE_AT_COMBINE, &combine.op, err);
}

/* Ids, positions, sequences, slots and pages to the device in one copy. */
static moe_status
moe_step_upload(struct moe_runner *r, const struct moe_batch *b,
                struct moe_error *err)
{
    const struct moe_act_map *m = &r->map;
    uint8_t                  *c = r->ctl.p;
    uint64_t                  base = m->tokens, n = (uint64_t) b->rows * 4;
    uint64_t                  pages = (uint64_t) b->n_seqs * b->max_pages * 4;
    moe_status                st;

    memcpy(c, b->tokens, n);
    memcpy(c + (m->positions - base), b->positions, n);
    memcpy(c + (m->seqs - base), b->seqs, n);
    memcpy(c + (m->slots - base), b->slots, n);
    if (b->n_out != 0)
        memcpy(c + (m->out_rows - base), b->out_rows,
               (uint64_t) b->n_out * 4);
    memcpy(c + (m->pages - base), b->pages, pages);
    st = r->s.ops->upload(r->stream, moe_act_buf(r, base), c,
                          m->pages - base + pages);
    if (st != MOE_OK)
        return moe_fail(err, st, 0, "%s: upload of the batch failed",
                        r->s.backend);
    return MOE_OK;
}

/* y = the rows of x whose numbers stand from `at` on in b->out_rows. */
static moe_status
moe_step_gather(struct moe_runner *r, enum moe_runner_at what, uint32_t at,
                uint32_t n, uint64_t y, struct moe_error *err)
{
    struct moe_op_gather op;

    MOE_OP_INIT(op, MOE_OP_GATHER);
    op.rows = n;
    op.n = r->s.arch->hidden;
    op.dtype = MOE_F32;
    op.index = moe_act_buf(r, r->map.out_rows + (uint64_t) at * 4);
    op.x = moe_act_buf(r, r->map.x);
    op.y = moe_act_buf(r, y);
    op.ldx = op.ldy = op.n;
    return moe_launch(r, what, &op.op, err);
}

/* Final norm, output head and the caller, out_rows rows at a time.  packed: x
 * has those rows alone, in their order. */
static moe_status
moe_step_logits(struct moe_runner *r, const struct moe_batch *b, int packed,
                struct moe_error *err)
{
    const struct moe_arch    *a = r->s.arch;
    const struct moe_act_map *m = &r->map;
    const struct moe_set     *head = a->tied ? &r->embed : &r->output;
    moe_status                st = MOE_OK;
    uint32_t                  i, at, n;

    for (at = 0; at < b->n_out && st == MOE_OK; at += n) {
        const float *logits;
        double       start;
        uint64_t     x = m->out;

        n = b->n_out - at < r->plan.out_rows ? b->n_out - at
                                             : r->plan.out_rows;
        if (packed)
            x = m->x + (uint64_t) at * a->hidden * 4;
        else
            st = moe_step_gather(r, MOE_AT_HEAD, at, n, m->out, err);
        if (st == MOE_OK)
            st = moe_step_norm(r, n, x, r->output_norm, m->out, err);
        if (st == MOE_OK)
            st = moe_step_gemm(r, MOE_AT_HEAD, head, n, m->out, a->hidden,
                               MOE_NO_VEC, 0, m->logits, a->vocab, err);
        if (r->probe != NULL && at != 0) /* once would do for a step */
            r->probe->bytes[MOE_AT_HEAD]
                -= r->groups[head->group].plan.slot_bytes;
        if (st == MOE_OK && r->logits.p != NULL) {
            st = r->s.ops->download(r->stream, r->logits.p,
                                    moe_act_buf(r, m->logits),
                                    (uint64_t) n * a->vocab * 4);
            if (st != MOE_OK)
                (void) moe_fail(err, st, 0, "%s: reading the logits failed",
                                r->s.backend);
        }
        if (st == MOE_OK)
            st = moe_runner_wait(r, err);
        if (st != MOE_OK)
            break;
        logits = r->logits.p;
        if (logits == NULL)
            logits = (const float *) ((const uint8_t *) r->s.ops->mem_host_ptr(
                                          r->act)
                                      + m->logits);
        start = moe_probe_start(r);
        for (i = 0; i < n && st == MOE_OK; i++)
            st = b->on_logits(b->ctx, at + i, logits + (size_t) i * a->vocab,
                              err);
        moe_probe_end(r, MOE_AT_PICK, start);
    }
    return st;
}

/* Behind the last layer's attention nothing reads the rows that no logits come
 * of: x becomes the others, packed; *rows: how many. */
static moe_status
moe_step_pack(struct moe_runner *r, const struct moe_batch *b, uint32_t *rows,
              struct moe_error *err)
{
    const uint64_t x = r->map.x;
    moe_status     st = MOE_OK;

    *rows = b->n_out;
    if (b->n_out != 0)
        st = moe_step_gather(r, MOE_AT_NORM, 0, b->n_out, r->map.xn, err);
    r->map.x = r->map.xn;
    r->map.xn = x;
    return st;
}

/* Hot, but for layers whose experts must be read. */
static moe_status
moe_step_all(struct moe_runner *r, const struct moe_batch *b,
                struct moe_error *err)
{
    const struct moe_arch *a = r->s.arch;
    struct moe_op_embed    embed;
    struct moe_wref        w = {r->groups[r->embed.group].slab, r->embed.slot,
                                0};
    const int              pack = b->n_out < b->rows && r->tap == NULL;
    uint64_t               off_bytes;
    moe_status             st;
    uint32_t               i, l, max_context = 0, rows = b->rows;

    for (i = 0; i < r->n_groups; i++)
        if (r->groups[i].residency != NULL)
            moe_residency_step(r->groups[i].residency);
    for (i = 0; i < b->rows; i++)
        if (b->positions[i] >= max_context)
            max_context = b->positions[i] + 1;
    st = moe_step_upload(r, b, err);
    if (st != MOE_OK)
        return st;

    MOE_OP_INIT(embed, MOE_OP_EMBED);
    embed.rows = b->rows;
    embed.n = a->vocab;
    embed.k = a->hidden;
    embed.dtype = MOE_F32;
    embed.scale = a->embed_scale;
    embed.w = w;
    embed.ids = moe_act_buf(r, r->map.tokens);
    embed.y = moe_act_buf(r, r->map.x);
    embed.ldy = a->hidden;
    st = moe_launch(r, MOE_AT_EMBED, &embed.op, err);

    for (l = 0; l < a->n_layers && st == MOE_OK; l++) {
        const struct moe_run_layer *y = &r->layers[l];

        if (b->canceled != NULL && b->canceled(b->ctx))
            return moe_fail(err, MOE_E_CANCELED, 0, "interrupted");
        st = moe_step_norm(r, b->rows, r->map.x, y->attn_norm, r->map.xn, err);
        if (st == MOE_OK)
            st = moe_step_tap(r, l, MOE_TAP_QKV, b->rows, r->map.xn,
                              a->hidden * 4u, err);
        if (st == MOE_OK)
            st = moe_step_attention(r, l, b, max_context, err);
        if (st == MOE_OK && pack && l + 1 == a->n_layers)
            st = moe_step_pack(r, b, &rows, err);
        if (st == MOE_OK && rows != 0)
            st = moe_step_norm(r, rows, r->map.x, y->ffn_norm, r->map.xn, err);
        if (st == MOE_OK)
            st = moe_step_tap(r, l, MOE_TAP_FFN, rows, r->map.xn,
                              a->hidden * 4u, err);
        if (st != MOE_OK || rows == 0)
            break;
        if (a->layers[l].ffn == MOE_FFN_DENSE)
            st = moe_step_dense(r, MOE_AT_DENSE, &y->ffn, rows, y,
                                MOE_FFN_ACCUMULATE, r->map.x, err);
        else
            st = moe_step_moe(r, l, rows, err);
    }
    if (st != MOE_OK)
        return st;

    off_bytes = (uint64_t) r->n_moe * (a->n_experts + 1) * 4;
    if (r->n_moe != 0) {
        st = r->s.ops->download(r->stream, r->counts.p,
                                moe_act_buf(r, r->map.offsets), off_bytes);
        if (st != MOE_OK)
            return moe_fail(err, st, 0, "%s: reading the routes failed",
                            r->s.backend);
    }
    st = moe_step_logits(r, b, pack, err);
    if (st == MOE_OK && (b->n_out == 0 || r->n_moe != 0))
        st = moe_runner_wait(r, err);
    for (l = 0; l < a->n_layers && st == MOE_OK; l++) {
        const uint32_t *offsets = (const uint32_t *) r->counts.p
                                  + (size_t) r->layers[l].moe
                                        * (a->n_experts + 1);

        if (a->layers[l].ffn != MOE_FFN_MOE
            || (rows == 0 && l + 1 == a->n_layers)) /* no routes this time */
            continue;
        moe_load_add(&r->load, r->layers[l].moe, offsets);
        for (i = 0; r->probe != NULL && i < a->n_experts; i++)
            if (offsets[i + 1] != offsets[i])
                moe_probe_weights(r, MOE_AT_EXPERTS, &r->layers[l].experts[i],
                                  offsets[i + 1] - offsets[i]);
    }
    return st;
}

moe_status
moe_runner_step(struct moe_runner *r, const struct moe_batch *b,
                struct moe_error *err)
{
    const struct moe_act_map map = r->map; /* moe_step_pack() exchanges two */
    const moe_status         st = moe_step_all(r, b, err);

    r->map = map;
    return st;
}
