/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref_ops.c - the operations, as moe/ops.h defines them.
 *
 * One function an operation, loops over rows and columns, sums in double in
 * the order of the index.  Data that lies on the device is checked where it
 * is used: a wrong id is a text, never an access outside a buffer.
 */

#include "common/ref_ops.h"

#include <math.h>
#include <string.h>

#include "common/op_info.h"

static const float *
in(const struct moe_span *s)
{
    return s->p;
}

static float *
out(const struct moe_span *s)
{
    return s->p;
}

static const uint32_t *
ids_of(const struct moe_span *s)
{
    return s->p;
}

static const char *
run_embed(const struct moe_op_embed *o, const struct moe_span *s,
          const struct moe_ref_weights *w)
{
    const uint32_t *ids = ids_of(&s[MOE_X_EMBED_IDS]);
    uint32_t        i, c;

    for (i = 0; i < o->rows; i++) {
        float       *y = out(&s[MOE_X_EMBED_Y]) + i * o->ldy;
        const float *row;

        if (ids[i] >= o->n)
            return "EMBED: an id is not below n";
        row = w->row(w->ctx, 0, o->w.part, ids[i], y);
        if (row == NULL)
            return "EMBED: the weights cannot be read";
        for (c = 0; c < o->k; c++)
            y[c] = o->scale * row[c];
    }
    return NULL;
}

static void
norm_row(const float *x, const float *w, const float *b, float *y, uint32_t n,
         uint32_t kind, double eps)
{
    double   mean = 0, sum = 0, d;
    uint32_t i;

    if (kind == MOE_NORM_LAYER) {
        for (i = 0; i < n; i++)
            mean += (double) x[i];
        mean /= n;
    }
    for (i = 0; i < n; i++) {
        d = (double) x[i] - mean;
        sum += d * d;
    }
    d = 1.0 / sqrt(sum / n + eps);
    for (i = 0; i < n; i++)
        y[i] = (float) (((double) x[i] - mean) * d
                            * (w != NULL ? (double) w[i] : 1.0)
                        + (b != NULL ? (double) b[i] : 0.0));
}

static const char *
run_norm(const struct moe_op_norm *o, const struct moe_span *s)
{
    uint32_t i;

    for (i = 0; i < o->rows; i++)
        norm_row(in(&s[MOE_X_NORM_X]) + i * o->ldx, in(&s[MOE_X_NORM_W]),
                 in(&s[MOE_X_NORM_B]), out(&s[MOE_X_NORM_Y]) + i * o->ldy,
                 o->n, o->kind, (double) o->eps);
    return NULL;
}

static double
dot(const float *a, const float *b, uint32_t n)
{
    double   sum = 0;
    uint32_t i;

    for (i = 0; i < n; i++)
        sum += (double) a[i] * (double) b[i];
    return sum;
}

/* Offsets ascend and end at most at limit. */
static int
bad_offsets(const uint32_t *offsets, uint32_t n, uint64_t limit)
{
    uint32_t i;

    for (i = 0; i < n; i++)
        if (offsets[i + 1] < offsets[i])
            return 1;
    return offsets[n] > limit;
}

/* scratch: (k) f32 */
static const char *
run_gemm(const struct moe_op_grouped_gemm *o, const struct moe_span *s,
         const struct moe_ref_weights *w, float *scratch)
{
    const uint32_t *offsets = ids_of(&s[MOE_X_GEMM_OFFSETS]);
    const float    *bias = in(&s[MOE_X_GEMM_BIAS]);
    uint32_t        all[2] = { 0, o->rows }, g, p, i;
    uint64_t        r;

    if (offsets == NULL)
        offsets = all;
    if (bad_offsets(offsets, o->n_groups, o->rows))
        return "GROUPED_GEMM: offsets do not ascend, or pass rows";
    for (g = 0; g < o->n_groups; g++) {
        uint64_t col = 0;

        for (p = o->w[g].part; p < o->w[g].part + o->n_parts; p++)
            for (r = 0; r < w->shape->n[p] && col < o->n; r++, col++) {
                const float *row = NULL;

                if (offsets[g] < offsets[g + 1])
                    row = w->row(w->ctx, g, p, r, scratch);
                if (row == NULL && offsets[g] < offsets[g + 1])
                    return "GROUPED_GEMM: the weights cannot be read";
                for (i = offsets[g]; i < offsets[g + 1]; i++) {
                    const float *x = in(&s[MOE_X_GEMM_X]) + i * o->ldx;
                    float       *y = out(&s[MOE_X_GEMM_Y]) + i * o->ldy + col;
                    double       v = dot(x, row, o->k);

                    if (bias != NULL)
                        v += (double) bias[col];
                    if ((o->op.flags & MOE_GEMM_ACCUMULATE) != 0)
                        v += (double) *y;
                    *y = (float) v;
                }
            }
    }
    return NULL;
}

static double
activate(double v, uint32_t act)
{
    switch (act) {
    case MOE_ACT_SILU:
        return v / (1.0 + exp(-v));
    case MOE_ACT_GELU:
        return 0.5 * v * (1.0 + erf(v * 0.70710678118654752440));
    case MOE_ACT_GELU_TANH: /* 0.7978...: sqrt(2 / pi) */
        return 0.5 * v
               * (1.0
                  + tanh(0.79788456080286535588
                         * (v + 0.044715 * v * v * v)));
    default:
        return v > 0.0 ? v : 0.0;
    }
}

/* One row: y (h) = down(act(gate(x)) * up(x)); hidden: (f); scratch: (k). */
static const char *
ffn_row(const struct moe_op_grouped_ffn *o, const struct moe_span *s,
        uint32_t g, const float *x, double x_scale, float *y,
        const struct moe_ref_weights *w, double *hidden, float *scratch)
{
    const float *gate_bias = in(&s[MOE_X_FFN_GATE_BIAS]);
    const float *up_bias = in(&s[MOE_X_FFN_UP_BIAS]);
    const float *down_bias = in(&s[MOE_X_FFN_DOWN_BIAS]);
    int         accumulate = (o->op.flags & MOE_FFN_ACCUMULATE) != 0;
    const float *row;
    double       v;
    uint32_t     r, c;

    for (r = 0; r < o->f; r++) {
        row = w->row(w->ctx, g, MOE_PART_GATE, r, scratch);
        if (row == NULL)
            return "GROUPED_FFN: the weights cannot be read";
        v = activate(x_scale * dot(x, row, o->h)
                         + (gate_bias != NULL ? (double) gate_bias[r] : 0.0),
                     o->act);
        row = w->row(w->ctx, g, MOE_PART_UP, r, scratch);
        if (row == NULL)
            return "GROUPED_FFN: the weights cannot be read";
        hidden[r] = v
                    * (x_scale * dot(x, row, o->h)
                       + (up_bias != NULL ? (double) up_bias[r] : 0.0));
    }
    for (r = 0; r < o->h; r++) {
        row = w->row(w->ctx, g, MOE_PART_DOWN, r, scratch);
        if (row == NULL)
            return "GROUPED_FFN: the weights cannot be read";
        v = accumulate ? (double) y[r] : 0.0;
        v += down_bias != NULL ? (double) down_bias[r] : 0.0;
        for (c = 0; c < o->f; c++)
            v += hidden[c] * (double) row[c];
        y[r] = (float) v;
    }
    return NULL;
}

static const char *
run_ffn(const struct moe_op_grouped_ffn *o, const struct moe_span *s,
        const struct moe_ref_weights *w, double *scratch)
{
    const uint32_t *perm = ids_of(&s[MOE_X_FFN_PERM]);
    const uint32_t *offsets = ids_of(&s[MOE_X_FFN_OFFSETS]);
    const float    *weights = in(&s[MOE_X_FFN_WEIGHTS]);
    float          *row = (float *) (void *) (scratch + o->f);
    uint64_t        pairs = (uint64_t) o->rows * o->k;
    uint32_t        g, i, begin, end, p;
    const char     *bad = NULL;

    for (g = 0; g < o->n_groups && bad == NULL; g++) {
        begin = perm != NULL ? offsets[o->experts[g]] : 0;
        end = perm != NULL ? offsets[o->experts[g] + 1] : o->rows;
        if (begin > end || end > pairs)
            return "GROUPED_FFN: offsets do not ascend, or pass rows * k";
        for (i = begin; i < end && bad == NULL; i++) {
            p = perm != NULL ? perm[i] : i;
            if (p >= pairs)
                return "GROUPED_FFN: perm names a pair that is not there";
            bad = ffn_row(o, s, g, in(&s[MOE_X_FFN_X]) + p / o->k * o->ldx,
                          (o->op.flags & MOE_FFN_SCALE_INPUT) != 0
                              ? (double) weights[p]
                              : 1.0,
                          out(&s[MOE_X_FFN_Y]) + p * o->ldy, w, scratch, row);
        }
    }
    return bad;
}

static const char *
run_combine(const struct moe_op_combine *o, const struct moe_span *s)
{
    const float *weights = in(&s[MOE_X_COMBINE_WEIGHTS]);
    const float *shared = in(&s[MOE_X_COMBINE_SHARED]);
    const float *gate = in(&s[MOE_X_COMBINE_GATE]);
    uint32_t     i, j, c;

    if ((o->op.flags & MOE_COMBINE_UNWEIGHTED) != 0)
        weights = NULL;
    for (i = 0; i < o->rows; i++)
        for (c = 0; c < o->h; c++) {
            float *y = out(&s[MOE_X_COMBINE_Y]) + i * o->ldy + c;
            double v = (double) *y;

            for (j = 0; j < o->k; j++) {
                uint64_t p = (uint64_t) i * o->k + j;

                v += (weights != NULL ? (double) weights[p] : 1.0)
                     * (double) in(&s[MOE_X_COMBINE_PAIRS])[p * o->ldp + c];
            }
            if (shared != NULL)
                v += (gate != NULL ? 1.0 / (1.0 + exp(-(double) gate[i]))
                                   : 1.0)
                     * (double) shared[i * o->lds + c];
            *y = (float) v;
        }
    return NULL;
}

static const char *
run_gather(const struct moe_op_gather *o, const struct moe_span *s)
{
    const uint32_t *index = ids_of(&s[MOE_X_GATHER_INDEX]);
    uint64_t        have = s[MOE_X_GATHER_X].len / sizeof(float);
    uint32_t        i;

    for (i = 0; i < o->rows; i++) {
        if (have < o->n || (o->ldx != 0 && index[i] > (have - o->n) / o->ldx))
            return "GATHER: an index lies outside x";
        memmove(out(&s[MOE_X_GATHER_Y]) + i * o->ldy,
                in(&s[MOE_X_GATHER_X]) + index[i] * o->ldx,
                o->n * sizeof(float));
    }
    return NULL;
}

/* ----------------------------------------------------------------- route -- */

/* Index of the greatest of v that is not taken; the lower one in a tie. */
static uint32_t
best_of(const double *v, const unsigned char *taken, uint32_t n)
{
    uint32_t i, best = n;

    for (i = 0; i < n; i++)
        if (!taken[i] && (best == n || v[i] > v[best]))
            best = i;
    return best;
}

/* taken[e] = 1 for the experts of the groups that are not chosen. */
static void
limit_groups(const struct moe_op_route *o, const double *sel, double *sums,
             unsigned char *taken, unsigned char *group_taken)
{
    uint32_t per = o->n_experts / o->n_group, g, e;

    for (g = 0; g < o->n_group; g++) {
        const double *v = sel + (size_t) g * per;
        uint32_t      first = 0, second = per;

        for (e = 1; e < per; e++)
            if (v[e] > v[first])
                first = e;
        for (e = 0; e < per; e++)
            if (e != first && (second == per || v[e] > v[second]))
                second = e;
        sums[g] = v[first] + (second < per ? v[second] : 0.0);
        group_taken[g] = 0;
    }
    memset(taken, 1, o->n_experts);
    for (e = 0; e < o->topk_group; e++) {
        g = best_of(sums, group_taken, o->n_group);
        group_taken[g] = 1;
        memset(taken + (size_t) g * per, 0, per);
    }
}

/* scratch: (n_experts) score, (n_experts) sel, (n_experts) sums,
 * 2 * n_experts bytes */
static const char *
run_route(const struct moe_op_route *o, const struct moe_span *s,
          double *scratch)
{
    uint32_t       n = o->n_experts, i, e, j, pos = 0;
    double        *score = scratch, *sel = score + n, *sums = sel + n;
    unsigned char *taken = (unsigned char *) (sums + n);
    const float   *bias = in(&s[MOE_X_ROUTE_BIAS]);
    uint32_t      *ids = s[MOE_X_ROUTE_IDS].p;
    uint32_t      *offsets = s[MOE_X_ROUTE_OFFSETS].p;
    uint32_t      *perm = s[MOE_X_ROUTE_PERM].p;
    float         *weights = out(&s[MOE_X_ROUTE_WEIGHTS]);

    for (i = 0; i < o->rows; i++) {
        const float *x = in(&s[MOE_X_ROUTE_LOGITS]) + i * o->ld;
        double       max = (double) x[0], sum = 0;
        uint32_t    *id = ids + (size_t) i * o->k;
        float       *weight = weights + (size_t) i * o->k;

        for (e = 1; e < n; e++)
            max = (double) x[e] > max ? (double) x[e] : max;
        for (e = 0; e < n; e++)
            sum += exp((double) x[e] - max);
        for (e = 0; e < n; e++) {
            score[e] = o->score == MOE_SCORE_SOFTMAX
                           ? exp((double) x[e] - max) / sum
                       : o->score == MOE_SCORE_SIGMOID
                           ? 1.0 / (1.0 + exp(-(double) x[e]))
                           : (double) x[e];
            sel[e] = score[e] + (bias != NULL ? (double) bias[e] : 0.0);
        }
        memset(taken, 0, n);
        if (o->n_group > 1)
            limit_groups(o, sel, sums, taken, taken + n);
        for (j = 0; j < o->k; j++) {
            id[j] = best_of(sel, taken, n);
            taken[id[j]] = 1;
        }
        /* the chosen ones' softmax; exp() is all that is left of score */
        if (o->score == MOE_SCORE_TOPK_SOFTMAX) {
            for (sum = 0, j = 0; j < o->k; j++)
                sum += exp(score[id[j]] - max);
            for (j = 0; j < o->k; j++)
                score[id[j]] = exp(score[id[j]] - max) / sum;
        }
        for (sum = 0, j = 0; j < o->k; j++)
            sum += score[id[j]];
        for (j = 0; j < o->k; j++)
            weight[j] = (float) (score[id[j]]
                                 / (o->renorm ? sum + 1e-20 : 1.0)
                                 * (double) o->scale);
    }
    for (e = 0; e < n; e++) {
        offsets[e] = pos;
        for (i = 0; i < o->rows * o->k; i++)
            if (ids[i] == e)
                perm[pos++] = i;
    }
    offsets[n] = pos;
    return NULL;
}

/* ------------------------------------------------- rotation and attention -- */

/* Elements of a cache that lies in len bytes from its start: whole pages. */
static uint64_t
kv_pages(const struct moe_kv *kv, uint64_t len, uint32_t dim)
{
    return len / moe_dtype_size(kv->dtype)
           / ((uint64_t) kv->kv_heads * kv->page_rows * dim);
}

static uint64_t
kv_at(const struct moe_kv *kv, uint64_t page, uint32_t head, uint32_t row,
      uint32_t dim)
{
    return ((page * kv->kv_heads + head) * kv->page_rows + row) * dim;
}

static void
rms_in_place(float *x, const float *w, uint64_t n, double eps)
{
    double   sum = 0;
    uint64_t i;

    for (i = 0; i < n; i++)
        sum += (double) x[i] * (double) x[i];
    sum = 1.0 / sqrt(sum / (double) n + eps);
    for (i = 0; i < n; i++)
        x[i] = (float) ((double) x[i] * sum * (double) w[i]);
}

/* The first rot_dim elements of one head, turned and scaled. */
static void
rotate(const struct moe_op_rope_kv *o, float *x, uint32_t position,
       const float *freq)
{
    uint32_t j, half = o->rot_dim / 2;

    for (j = 0; j < half; j++) {
        uint32_t a = o->rope_kind == MOE_ROPE_HALF ? j : 2 * j;
        uint32_t b = o->rope_kind == MOE_ROPE_HALF ? j + half : 2 * j + 1;
        /* The angle is an f32 product: as the models were trained. */
        double angle = (double) ((float) position * freq[j]);
        double c = cos(angle) * (double) o->rope_scale;
        double d = sin(angle) * (double) o->rope_scale;
        double u = (double) x[a], v = (double) x[b];

        x[a] = (float) (u * c - v * d);
        x[b] = (float) (v * c + u * d);
    }
}

static const char *
run_rope(const struct moe_op_rope_kv *o, const struct moe_span *s)
{
    const struct moe_kv *kv = &o->kv;
    const uint32_t      *positions = ids_of(&s[MOE_X_ROPE_POSITIONS]);
    const uint32_t      *slots = ids_of(&s[MOE_X_ROPE_SLOTS]);
    const float         *freq = in(&s[MOE_X_ROPE_FREQ]);
    uint64_t             nq = (uint64_t) o->heads * kv->k_dim;
    uint64_t             nk = (uint64_t) kv->kv_heads * kv->k_dim;
    uint64_t             nv = (uint64_t) kv->kv_heads * kv->v_dim, j;
    uint32_t             i, h, d;

    for (i = 0; i < o->rows; i++) {
        float   *q = out(&s[MOE_X_ROPE_QKV]) + i * o->ld;
        float   *k = q + nq, *v = k + nk;
        uint64_t page = slots[i] / kv->page_rows;
        uint32_t row = slots[i] % kv->page_rows;

        if (page >= kv_pages(kv, s[MOE_X_ROPE_K].len, kv->k_dim)
            || page >= kv_pages(kv, s[MOE_X_ROPE_V].len, kv->v_dim))
            return "ROPE_KV: a slot lies outside the cache";
        if (o->norm_span == 1) {
            for (h = 0; h < o->heads; h++)
                rms_in_place(q + (size_t) h * kv->k_dim,
                             in(&s[MOE_X_ROPE_Q_NORM]), kv->k_dim,
                             (double) o->norm_eps);
            for (h = 0; h < kv->kv_heads; h++)
                rms_in_place(k + (size_t) h * kv->k_dim,
                             in(&s[MOE_X_ROPE_K_NORM]), kv->k_dim,
                             (double) o->norm_eps);
        } else if (o->norm_span == 2) {
            rms_in_place(q, in(&s[MOE_X_ROPE_Q_NORM]), nq,
                         (double) o->norm_eps);
            rms_in_place(k, in(&s[MOE_X_ROPE_K_NORM]), nk,
                         (double) o->norm_eps);
        }
        for (j = 0; o->clip > 0 && j < nq + nk + nv; j++)
            q[j] = q[j] > o->clip ? o->clip
                                  : (q[j] < -o->clip ? -o->clip : q[j]);
        for (h = 0; o->rot_dim > 0 && h < o->heads + kv->kv_heads; h++)
            rotate(o, q + (size_t) h * kv->k_dim, positions[i], freq);
        for (h = 0; h < kv->kv_heads; h++) {
            uint64_t at = kv_at(kv, page, h, row, kv->k_dim);

            for (d = 0; d < kv->k_dim; d++)
                moe_ref_put(s[MOE_X_ROPE_K].p, kv->dtype, at + d,
                            (double) k[(size_t) h * kv->k_dim + d]);
            at = kv_at(kv, page, h, row, kv->v_dim);
            for (d = 0; d < kv->v_dim; d++)
                moe_ref_put(s[MOE_X_ROPE_V].p, kv->dtype, at + d,
                            (double) v[(size_t) h * kv->v_dim + d]);
        }
    }
    return NULL;
}

/* One head of one row.  score: (position + 1); acc: (v_dim). */
static const char *
attend(const struct moe_op_attention *o, const struct moe_span *s,
       uint32_t row, uint32_t head, double *score, double *acc)
{
    const struct moe_kv *kv = &o->kv;
    uint32_t     position = ids_of(&s[MOE_X_ATTN_POSITIONS])[row];
    uint32_t     seq = ids_of(&s[MOE_X_ATTN_SEQS])[row];
    uint32_t     kvh = head / (o->heads / kv->kv_heads), p, d, first = 0;
    const float *q = in(&s[MOE_X_ATTN_Q]) + row * o->ldq
                     + (size_t) head * kv->k_dim;
    float       *y = out(&s[MOE_X_ATTN_Y]) + row * o->ldy
                     + (size_t) head * kv->v_dim;
    const float *sinks = in(&s[MOE_X_ATTN_SINKS]);
    const uint32_t *pages;
    double       max, sum = 0;

    if (seq >= o->n_seqs
        || (uint64_t) position >= (uint64_t) o->max_pages * kv->page_rows
        || position >= o->max_context)
        return "ATTENTION: a sequence or a position is out of range";
    pages = ids_of(&s[MOE_X_ATTN_PAGES]) + (size_t) seq * o->max_pages;
    if (o->window > 0 && position >= o->window)
        first = position - o->window + 1;
    if (o->chunk > 0 && first < position / o->chunk * o->chunk)
        first = position / o->chunk * o->chunk;
    max = sinks != NULL ? (double) sinks[head] : -(double) INFINITY;
    for (p = first; p <= position; p++) {
        uint64_t page = pages[p / kv->page_rows], at;

        if (page >= kv_pages(kv, s[MOE_X_ATTN_K].len, kv->k_dim)
            || page >= kv_pages(kv, s[MOE_X_ATTN_V].len, kv->v_dim))
            return "ATTENTION: a page lies outside the cache";
        at = kv_at(kv, page, kvh, p % kv->page_rows, kv->k_dim);
        score[p] = 0;
        for (d = 0; d < kv->k_dim; d++)
            score[p] += (double) q[d]
                        * moe_ref_get(s[MOE_X_ATTN_K].p, kv->dtype, at + d);
        score[p] *= (double) o->scale;
        if (o->softcap > 0)
            score[p] = (double) o->softcap
                       * tanh(score[p] / (double) o->softcap);
        max = score[p] > max ? score[p] : max;
    }
    if (sinks != NULL)
        sum = exp((double) sinks[head] - max);
    memset(acc, 0, kv->v_dim * sizeof(*acc));
    for (p = first; p <= position; p++) {
        double   e = exp(score[p] - max);
        uint64_t at = kv_at(kv, pages[p / kv->page_rows], kvh,
                            p % kv->page_rows, kv->v_dim);

        sum += e;
        for (d = 0; d < kv->v_dim; d++)
            acc[d] += e * moe_ref_get(s[MOE_X_ATTN_V].p, kv->dtype, at + d);
    }
    for (d = 0; d < kv->v_dim; d++)
        y[d] = (float) (acc[d] / sum);
    return NULL;
}

static const char *
run_attention(const struct moe_op_attention *o, const struct moe_span *s,
              double *scratch)
{
    const char *bad = NULL;
    uint32_t    i, h;

    for (i = 0; i < o->rows && bad == NULL; i++)
        for (h = 0; h < o->heads && bad == NULL; h++)
            bad = attend(o, s, i, h, scratch + o->kv.v_dim, scratch);
    return bad;
}

/* ------------------------------------------------------------------- all -- */

uint64_t
moe_ref_scratch(const struct moe_op *op)
{
    const struct moe_op_grouped_gemm *gemm;
    const struct moe_op_grouped_ffn  *ffn;
    const struct moe_op_attention    *attn;

    switch (op->code) {
    case MOE_OP_GROUPED_GEMM:
        gemm = (const struct moe_op_grouped_gemm *) op;
        return 4 * (uint64_t) gemm->k;
    case MOE_OP_GROUPED_FFN:
        ffn = (const struct moe_op_grouped_ffn *) op;
        return 8 * (uint64_t) ffn->f
               + 4 * (uint64_t) (ffn->f > ffn->h ? ffn->f : ffn->h);
    case MOE_OP_ROUTE:
        return 26 * (uint64_t) ((const struct moe_op_route *) op)->n_experts;
    case MOE_OP_ATTENTION:
        attn = (const struct moe_op_attention *) op;
        return 8 * ((uint64_t) attn->kv.v_dim + attn->max_context);
    default:
        return 0;
    }
}

const char *
moe_ref_run(const struct moe_op *op, const struct moe_span *s,
            const struct moe_ref_weights *w, double *scratch)
{
    switch (op->code) {
    case MOE_OP_GROUPED_GEMM:
        return run_gemm((const struct moe_op_grouped_gemm *) op, s, w,
                        (float *) (void *) scratch);
    case MOE_OP_GROUPED_FFN:
        return run_ffn((const struct moe_op_grouped_ffn *) op, s, w, scratch);
    case MOE_OP_ROUTE:
        return run_route((const struct moe_op_route *) op, s, scratch);
    case MOE_OP_COMBINE:
        return run_combine((const struct moe_op_combine *) op, s);
    case MOE_OP_EMBED:
        return run_embed((const struct moe_op_embed *) op, s, w);
    case MOE_OP_NORM:
        return run_norm((const struct moe_op_norm *) op, s);
    case MOE_OP_ROPE_KV:
        return run_rope((const struct moe_op_rope_kv *) op, s);
    case MOE_OP_ATTENTION:
        return run_attention((const struct moe_op_attention *) op, s,
                             scratch);
    case MOE_OP_GATHER:
        return run_gather((const struct moe_op_gather *) op, s);
    default:
        return "the operation's code is unknown";
    }
}
