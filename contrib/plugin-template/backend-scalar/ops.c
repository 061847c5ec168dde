/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.c - the operations of moe/ops.h, in f32, one number at a time.
 *
 * Two rules shape everything here.  A result row may depend on nothing but
 * its own inputs, so each number is one sum in a fixed order.  And threads
 * are the core's: host->parallel runs pieces of work; it does not matter
 * which thread gets which, because no two pieces share a sum.
 */

#include "scalar.h"

#include <math.h>
#include <string.h>

#define BLOCK 32u /* outputs in one piece of work */

/* The memory of a buffer; NULL if it is absent. */
static void *
at(struct moe_buf b)
{
    return b.mem != NULL ? b.mem->data + b.off : NULL;
}

/* Row r of a part of the weights in a slot: (k) f32. */
static const float *
weight_row(const struct moe_wref *w, uint32_t part, uint64_t r)
{
    const moe_slab *slab = w->slab;

    return slab->data + w->slot * slab->slot_floats + slab->part_at[part]
           + r * slab->shape.k[part];
}

static double
dot(const float *a, const float *b, uint64_t n)
{
    double   sum = 0;
    uint64_t i;

    for (i = 0; i < n; i++)
        sum += (double) a[i] * (double) b[i];
    return sum;
}

/* Pieces of work for n outputs. */
static uint32_t
blocks(uint64_t n)
{
    return (uint32_t) ((n + BLOCK - 1) / BLOCK);
}

static void
parallel(moe_device *dev, uint32_t n, void (*fn)(void *arg, uint32_t i),
         const void *arg)
{
    dev->host->parallel(dev->host->ctx, n, fn, (void *) (uintptr_t) arg);
}

/* ------------------------------------------------------------ small things -- */

static void
run_embed(const struct moe_op_embed *o)
{
    const uint32_t *ids = at(o->ids);
    uint32_t        i, c;

    for (i = 0; i < o->rows; i++) {
        const float *row = weight_row(&o->w, o->w.part, ids[i]);
        float       *y = (float *) at(o->y) + i * o->ldy;

        for (c = 0; c < o->k; c++)
            y[c] = o->scale * row[c];
    }
}

static void
run_norm(const struct moe_op_norm *o)
{
    const float *w = at(o->w), *b = at(o->b);
    uint32_t     i, c;

    for (i = 0; i < o->rows; i++) {
        const float *x = (const float *) at(o->x) + i * o->ldx;
        float       *y = (float *) at(o->y) + i * o->ldy;
        double       mean = 0, sum = 0, d;

        for (c = 0; o->kind == MOE_NORM_LAYER && c < o->n; c++)
            mean += (double) x[c] / o->n;
        for (c = 0; c < o->n; c++)
            sum += ((double) x[c] - mean) * ((double) x[c] - mean);
        d = 1 / sqrt(sum / o->n + (double) o->eps);
        for (c = 0; c < o->n; c++)
            y[c] = (float) (((double) x[c] - mean) * d
                                * (w != NULL ? (double) w[c] : 1.0)
                            + (b != NULL ? (double) b[c] : 0.0));
    }
}

static void
run_gather(const struct moe_op_gather *o)
{
    const uint32_t *index = at(o->index);
    uint32_t        i;

    for (i = 0; i < o->rows; i++)
        memcpy((float *) at(o->y) + i * o->ldy,
               (const float *) at(o->x) + index[i] * o->ldx,
               o->n * sizeof(float));
}

static void
run_combine(const struct moe_op_combine *o)
{
    const float *pairs = at(o->pairs), *shared = at(o->shared);
    const float *weights = at(o->weights), *gate = at(o->shared_gate);
    uint32_t     i, j, c;

    if ((o->op.flags & MOE_COMBINE_UNWEIGHTED) != 0)
        weights = NULL;
    for (i = 0; i < o->rows; i++) {
        float *y = (float *) at(o->y) + i * o->ldy;
        double g = gate != NULL ? 1 / (1 + exp(-(double) gate[i])) : 1.0;

        for (c = 0; c < o->h; c++) {
            double v = (double) y[c];

            for (j = 0; j < o->k; j++) {
                uint64_t p = (uint64_t) i * o->k + j;

                v += (weights != NULL ? (double) weights[p] : 1.0)
                     * (double) pairs[p * o->ldp + c];
            }
            if (shared != NULL)
                v += g * (double) shared[i * o->lds + c];
            y[c] = (float) v;
        }
    }
}

/* ---------------------------------------------------------------- products -- */

static void
gemm_piece(void *arg, uint32_t piece)
{
    const struct moe_op_grouped_gemm *o = arg;
    const uint32_t *offsets = at(o->offsets);
    const float    *bias = at(o->bias);
    uint32_t        all[2] = { 0, o->rows };
    uint32_t        g = piece / blocks(o->n), block = piece % blocks(o->n);
    uint32_t        c, i;

    if (offsets == NULL)
        offsets = all;
    for (c = block * BLOCK; c < o->n && c < (block + 1) * BLOCK; c++) {
        const struct moe_wref *w = &o->w[g];
        uint32_t               part = w->part;
        uint64_t               r = c;
        const float           *row;

        while (r >= w->slab->shape.n[part]) /* parts lie side by side */
            r -= w->slab->shape.n[part++];
        row = weight_row(w, part, r);
        for (i = offsets[g]; i < offsets[g + 1]; i++) {
            float *y = (float *) at(o->y) + i * o->ldy + c;
            double v = dot((const float *) at(o->x) + i * o->ldx, row, o->k);

            if (bias != NULL)
                v += (double) bias[c];
            if ((o->op.flags & MOE_GEMM_ACCUMULATE) != 0)
                v += (double) *y;
            *y = (float) v;
        }
    }
}

static double
activate(uint32_t act, double v)
{
    switch (act) {
    case MOE_ACT_SILU:
        return v / (1 + exp(-v));
    case MOE_ACT_GELU:
        return v / 2 * (1 + erf(v / sqrt(2.0)));
    case MOE_ACT_GELU_TANH: /* sqrt(2 / pi) */
        return v / 2
               * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
    default:
        return v > 0 ? v : 0;
    }
}

struct ffn {
    const struct moe_op_grouped_ffn *o;
    uint32_t                         g;
    uint32_t                         begin, end; /* of perm, or rows */
    const uint32_t                  *perm;       /* NULL: dense */
};

/* hidden (end - begin, f) = act(gate(x)) * up(x) */
static void
ffn_up_piece(void *arg, uint32_t block)
{
    const struct ffn                *f = arg;
    const struct moe_op_grouped_ffn *o = f->o;
    const float *weights = at(o->weights), *bg = at(o->gate_bias);
    const float *bu = at(o->up_bias);
    float       *hidden = at(o->work);
    uint32_t     r, i;

    for (r = block * BLOCK; r < o->f && r < (block + 1) * BLOCK; r++) {
        const float *gate = weight_row(&o->w[f->g], MOE_PART_GATE, r);
        const float *up = weight_row(&o->w[f->g], MOE_PART_UP, r);

        for (i = f->begin; i < f->end; i++) {
            uint32_t     p = f->perm != NULL ? f->perm[i] : i;
            const float *x = (const float *) at(o->x) + p / o->k * o->ldx;
            double       s = (o->op.flags & MOE_FFN_SCALE_INPUT) != 0
                                 ? (double) weights[p]
                                 : 1.0;
            double       a = s * dot(x, gate, o->h), b = s * dot(x, up, o->h);

            if (bg != NULL)
                a += (double) bg[r];
            if (bu != NULL)
                b += (double) bu[r];
            hidden[(uint64_t) (i - f->begin) * o->f + r]
                = (float) (activate(o->act, a) * b);
        }
    }
}

/* y[p] (h) = down(hidden) */
static void
ffn_down_piece(void *arg, uint32_t block)
{
    const struct ffn                *f = arg;
    const struct moe_op_grouped_ffn *o = f->o;
    const float *hidden = at(o->work), *bd = at(o->down_bias);
    uint32_t     c, i;

    for (c = block * BLOCK; c < o->h && c < (block + 1) * BLOCK; c++) {
        const float *down = weight_row(&o->w[f->g], MOE_PART_DOWN, c);

        for (i = f->begin; i < f->end; i++) {
            uint64_t p = f->perm != NULL ? f->perm[i] : i;
            float   *y = (float *) at(o->y) + p * o->ldy + c;
            double   v = dot(hidden + (uint64_t) (i - f->begin) * o->f, down,
                             o->f);

            if (bd != NULL)
                v += (double) bd[c];
            if ((o->op.flags & MOE_FFN_ACCUMULATE) != 0)
                v += (double) *y;
            *y = (float) v;
        }
    }
}

static void
run_ffn(moe_device *dev, const struct moe_op_grouped_ffn *o)
{
    const uint32_t *offsets = at(o->offsets);
    struct ffn      f = { o, 0, 0, o->rows, at(o->perm) };

    for (f.g = 0; f.g < o->n_groups; f.g++) {
        if (f.perm != NULL) {
            f.begin = offsets[o->experts[f.g]];
            f.end = offsets[o->experts[f.g] + 1];
        }
        if (f.begin == f.end)
            continue;
        parallel(dev, blocks(o->f), ffn_up_piece, &f);
        parallel(dev, blocks(o->h), ffn_down_piece, &f);
    }
}

/* ----------------------------------------------------------------- routing -- */

struct scores {
    const struct moe_op_route *o;
    const float               *x;    /* (n_experts) logits of a row */
    const float               *bias; /* (n_experts) or NULL */
    double                     max, sum; /* of the softmax over all */
};

static double
score_of(const struct scores *s, uint32_t e)
{
    double v = (double) s->x[e];

    switch (s->o->score) {
    case MOE_SCORE_SOFTMAX:
        return exp(v - s->max) / s->sum;
    case MOE_SCORE_SIGMOID:
        return 1 / (1 + exp(-v));
    default:
        return v;
    }
}

static double
selection_of(const struct scores *s, uint32_t e)
{
    return score_of(s, e) + (s->bias != NULL ? (double) s->bias[e] : 0.0);
}

/* The two best of a group, added. */
static double
group_sum(const struct scores *s, uint32_t group)
{
    uint32_t per = s->o->n_experts / s->o->n_group, e;
    double   a = -INFINITY, b = -INFINITY, v;

    for (e = group * per; e < (group + 1) * per; e++) {
        v = selection_of(s, e);
        if (v > a) {
            b = a;
            a = v;
        } else if (v > b) {
            b = v;
        }
    }
    return per > 1 ? a + b : a;
}

/* Is expert e in one of the topk_group best groups? */
static int
group_allows(const struct scores *s, uint32_t e)
{
    const struct moe_op_route *o = s->o;
    uint32_t                   mine, g, better = 0;
    double                     sum, other;

    if (o->n_group <= 1)
        return 1;
    mine = e / (o->n_experts / o->n_group);
    sum = group_sum(s, mine);
    for (g = 0; g < o->n_group; g++) {
        other = group_sum(s, g);
        better += other > sum || (other == sum && g < mine);
    }
    return better < o->topk_group;
}

static int
is_chosen(const uint32_t *ids, uint32_t n, uint32_t e)
{
    uint32_t i;

    for (i = 0; i < n; i++)
        if (ids[i] == e)
            return 1;
    return 0;
}

static void
route_row(void *arg, uint32_t i)
{
    const struct moe_op_route *o = arg;
    struct scores s = { o, (const float *) at(o->logits) + i * o->ld,
                        at(o->sel_bias), 0, 0 };
    uint32_t     *ids = (uint32_t *) at(o->ids) + (uint64_t) i * o->k;
    float        *weights = (float *) at(o->weights) + (uint64_t) i * o->k;
    double        sum = 0, v;
    uint32_t      e, j, best;

    s.max = (double) s.x[0];
    for (e = 1; e < o->n_experts; e++)
        s.max = (double) s.x[e] > s.max ? (double) s.x[e] : s.max;
    for (e = 0; e < o->n_experts; e++)
        s.sum += exp((double) s.x[e] - s.max);
    for (j = 0; j < o->k; j++) {
        best = o->n_experts;
        for (e = 0; e < o->n_experts; e++)
            if (!is_chosen(ids, j, e) && group_allows(&s, e)
                && (best == o->n_experts
                    || selection_of(&s, e) > selection_of(&s, best)))
                best = e;
        /* Fewer are allowed than asked for only if a logit is NaN. */
        for (e = 0; best == o->n_experts; e++)
            if (!is_chosen(ids, j, e))
                best = e;
        ids[j] = best;
    }
    for (j = 0; j < o->k; j++) {
        v = score_of(&s, ids[j]);
        if (o->score == MOE_SCORE_TOPK_SOFTMAX)
            v = exp(v - s.max);
        weights[j] = (float) v;
        sum += v;
    }
    for (j = 0; j < o->k; j++) {
        v = (double) weights[j];
        if (o->score == MOE_SCORE_TOPK_SOFTMAX)
            v /= sum;
        else if (o->renorm)
            v /= sum + 1e-20;
        weights[j] = (float) (v * (double) o->scale);
    }
}

static void
run_route(moe_device *dev, const struct moe_op_route *o)
{
    const uint32_t *ids = at(o->ids);
    uint32_t       *offsets = at(o->offsets), *perm = at(o->perm);
    uint64_t        pairs = (uint64_t) o->rows * o->k, p;
    uint32_t        e, n = 0;

    parallel(dev, o->rows, route_row, o);
    for (e = 0; e < o->n_experts; e++) {
        offsets[e] = n;
        for (p = 0; p < pairs; p++)
            if (ids[p] == e)
                perm[n++] = (uint32_t) p;
    }
    offsets[e] = n;
}

/* --------------------------------------------------------------- attention -- */

/* Where head h of a row of the cache begins, in floats. */
static uint64_t
kv_at(const struct moe_kv *kv, uint32_t page, uint32_t row, uint32_t h,
      uint32_t dim)
{
    return (((uint64_t) page * kv->kv_heads + h) * kv->page_rows + row) * dim;
}

static void
rms(float *x, const float *w, uint64_t n, float eps)
{
    double   d = 1 / sqrt(dot(x, x, n) / (double) n + (double) eps);
    uint64_t i;

    for (i = 0; i < n; i++)
        x[i] = (float) ((double) x[i] * d * (double) w[i]);
}

static void
rotate(const struct moe_op_rope_kv *o, float *x, uint32_t position)
{
    const float *freq = at(o->inv_freq);
    uint32_t     half = o->rot_dim / 2, j;

    for (j = 0; j < half; j++) {
        int    pairs = o->rope_kind == MOE_ROPE_INTERLEAVED;
        float *a = x + (pairs ? 2 * j : j), *b = a + (pairs ? 1 : half);
        double angle = (double) ((float) position * freq[j]);
        double c = cos(angle) * (double) o->rope_scale;
        double s = sin(angle) * (double) o->rope_scale;
        double u = (double) *a, v = (double) *b;

        *a = (float) (u * c - v * s);
        *b = (float) (v * c + u * s);
    }
}

static void
rope_row(void *arg, uint32_t i)
{
    const struct moe_op_rope_kv *o = arg;
    const struct moe_kv         *kv = &o->kv;
    uint32_t slot = ((const uint32_t *) at(o->slots))[i];
    uint32_t page = slot / kv->page_rows, row = slot % kv->page_rows, h;
    uint64_t nq = (uint64_t) o->heads * kv->k_dim;
    uint64_t nk = (uint64_t) kv->kv_heads * kv->k_dim;
    uint64_t nv = (uint64_t) kv->kv_heads * kv->v_dim, j;
    float   *q = (float *) at(o->qkv) + i * o->ld, *k = q + nq, *v = k + nk;

    if (o->norm_span == 2) {
        rms(q, at(o->q_norm), nq, o->norm_eps);
        rms(k, at(o->k_norm), nk, o->norm_eps);
    }
    for (h = 0; o->norm_span == 1 && h < o->heads; h++)
        rms(q + (uint64_t) h * kv->k_dim, at(o->q_norm), kv->k_dim,
            o->norm_eps);
    for (h = 0; o->norm_span == 1 && h < kv->kv_heads; h++)
        rms(k + (uint64_t) h * kv->k_dim, at(o->k_norm), kv->k_dim,
            o->norm_eps);
    for (j = 0; o->clip > 0 && j < nq + nk + nv; j++)
        q[j] = fminf(fmaxf(q[j], -o->clip), o->clip);
    for (h = 0; o->rot_dim > 0 && h < o->heads + kv->kv_heads; h++)
        rotate(o, q + (uint64_t) h * kv->k_dim,
               ((const uint32_t *) at(o->positions))[i]);
    for (h = 0; h < kv->kv_heads; h++) {
        memcpy((float *) at(kv->k) + kv_at(kv, page, row, h, kv->k_dim),
               k + (uint64_t) h * kv->k_dim, kv->k_dim * sizeof(float));
        memcpy((float *) at(kv->v) + kv_at(kv, page, row, h, kv->v_dim),
               v + (uint64_t) h * kv->v_dim, kv->v_dim * sizeof(float));
    }
}

/* One head of one row: softmax and sum in one pass over the positions. */
static void
attention_piece(void *arg, uint32_t piece)
{
    const struct moe_op_attention *o = arg;
    const struct moe_kv           *kv = &o->kv;
    uint32_t i = piece / o->heads, h = piece % o->heads;
    uint32_t kvh = h / (o->heads / kv->kv_heads), p, first = 0, d;
    uint32_t position = ((const uint32_t *) at(o->positions))[i];
    const uint32_t *pages = (const uint32_t *) at(o->pages)
                            + (uint64_t) ((const uint32_t *) at(o->seqs))[i]
                                  * o->max_pages;
    const float *sinks = at(o->sinks);
    const float *q = (const float *) at(o->q) + i * o->ldq
                     + (uint64_t) h * kv->k_dim;
    float       *y = (float *) at(o->y) + i * o->ldy
                     + (uint64_t) h * kv->v_dim;
    double       max = sinks != NULL ? (double) sinks[h] : -INFINITY;
    double       sum = sinks != NULL ? 1 : 0;

    if (o->window > 0 && position >= o->window)
        first = position - o->window + 1;
    if (o->chunk > 0 && position / o->chunk * o->chunk > first)
        first = position / o->chunk * o->chunk;
    memset(y, 0, kv->v_dim * sizeof(*y));
    for (p = first; p <= position; p++) {
        uint32_t     page = pages[p / kv->page_rows], row = p % kv->page_rows;
        const float *k = (const float *) at(kv->k)
                         + kv_at(kv, page, row, kvh, kv->k_dim);
        const float *v = (const float *) at(kv->v)
                         + kv_at(kv, page, row, kvh, kv->v_dim);
        double       s = dot(q, k, kv->k_dim) * (double) o->scale, fade, e;

        if (o->softcap > 0)
            s = (double) o->softcap * tanh(s / (double) o->softcap);
        fade = s > max ? exp(max - s) : 1; /* a new maximum: rescale */
        max = s > max ? s : max;
        e = exp(s - max);
        sum = sum * fade + e;
        for (d = 0; d < kv->v_dim; d++)
            y[d] = (float) ((double) y[d] * fade + e * (double) v[d]);
    }
    for (d = 0; d < kv->v_dim; d++)
        y[d] = (float) ((double) y[d] / sum);
}

/* --------------------------------------------------------------------- all -- */

/* The sizes of the payloads that these headers know. */
static uint32_t
size_of(uint32_t code)
{
    switch (code) {
    case MOE_OP_GROUPED_GEMM:
        return sizeof(struct moe_op_grouped_gemm);
    case MOE_OP_GROUPED_FFN:
        return sizeof(struct moe_op_grouped_ffn);
    case MOE_OP_ROUTE:
        return sizeof(struct moe_op_route);
    case MOE_OP_COMBINE:
        return sizeof(struct moe_op_combine);
    case MOE_OP_EMBED:
        return sizeof(struct moe_op_embed);
    case MOE_OP_NORM:
        return sizeof(struct moe_op_norm);
    case MOE_OP_ROPE_KV:
        return sizeof(struct moe_op_rope_kv);
    case MOE_OP_ATTENTION:
        return sizeof(struct moe_op_attention);
    case MOE_OP_GATHER:
        return sizeof(struct moe_op_gather);
    default:
        return 0;
    }
}

moe_status
scalar_known(const struct moe_op *op, struct moe_error *err)
{
    uint32_t dtype = MOE_F32, kv = MOE_F32;

    if (size_of(op->code) == 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "scalar: no operation %u", op->code);
    if (op->struct_size < size_of(op->code))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "scalar: operation %u of %u bytes is too short",
                        op->code, op->struct_size);
    switch (op->code) {
    case MOE_OP_GROUPED_GEMM:
        dtype = ((const struct moe_op_grouped_gemm *) op)->dtype;
        break;
    case MOE_OP_GROUPED_FFN:
        dtype = ((const struct moe_op_grouped_ffn *) op)->dtype;
        break;
    case MOE_OP_COMBINE:
        dtype = ((const struct moe_op_combine *) op)->dtype;
        break;
    case MOE_OP_EMBED:
        dtype = ((const struct moe_op_embed *) op)->dtype;
        break;
    case MOE_OP_NORM:
        dtype = ((const struct moe_op_norm *) op)->dtype;
        break;
    case MOE_OP_ROPE_KV:
        dtype = ((const struct moe_op_rope_kv *) op)->dtype;
        kv = ((const struct moe_op_rope_kv *) op)->kv.dtype;
        break;
    case MOE_OP_ATTENTION:
        dtype = ((const struct moe_op_attention *) op)->dtype;
        kv = ((const struct moe_op_attention *) op)->kv.dtype;
        break;
    case MOE_OP_GATHER:
        dtype = ((const struct moe_op_gather *) op)->dtype;
        break;
    default:
        break;
    }
    if (dtype != MOE_F32 || kv != MOE_F32)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "scalar: operation %u in f32 only", op->code);
    return MOE_OK;
}

uint64_t
scalar_work_bytes(const struct moe_op *op)
{
    const struct moe_op_grouped_ffn *f;

    if (op->code != MOE_OP_GROUPED_FFN)
        return 0;
    f = (const struct moe_op_grouped_ffn *) op;
    /* One group at a time, and a row has an expert once at most. */
    return (uint64_t) f->rows * f->f * sizeof(float);
}

moe_status
scalar_run(moe_device *dev, const struct moe_op *op, struct moe_error *err)
{
    const struct moe_op_grouped_gemm *gemm;
    const struct moe_op_attention    *attn;

    switch (op->code) {
    case MOE_OP_GROUPED_GEMM:
        gemm = (const struct moe_op_grouped_gemm *) op;
        parallel(dev, gemm->n_groups * blocks(gemm->n), gemm_piece, op);
        return MOE_OK;
    case MOE_OP_GROUPED_FFN:
        run_ffn(dev, (const struct moe_op_grouped_ffn *) op);
        return MOE_OK;
    case MOE_OP_ROUTE:
        run_route(dev, (const struct moe_op_route *) op);
        return MOE_OK;
    case MOE_OP_COMBINE:
        run_combine((const struct moe_op_combine *) op);
        return MOE_OK;
    case MOE_OP_EMBED:
        run_embed((const struct moe_op_embed *) op);
        return MOE_OK;
    case MOE_OP_NORM:
        run_norm((const struct moe_op_norm *) op);
        return MOE_OK;
    case MOE_OP_ROPE_KV:
        parallel(dev, ((const struct moe_op_rope_kv *) op)->rows, rope_row,
                 op);
        return MOE_OK;
    case MOE_OP_ATTENTION:
        attn = (const struct moe_op_attention *) op;
        parallel(dev, attn->rows * attn->heads, attention_piece, op);
        return MOE_OK;
    case MOE_OP_GATHER:
        run_gather((const struct moe_op_gather *) op);
        return MOE_OK;
    default:
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "scalar: no operation %u", op->code);
    }
}
