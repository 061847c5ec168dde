/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route.c - router scores to experts, and rows grouped by expert.
 *
 * Choosing is per row and stable: the lower id wins a tie, and a score that
 * is not a number loses against every number, so there are always k distinct
 * experts.  Grouping is a counting sort over all pairs.
 */

#include <float.h>
#include <math.h>

#include "backend/cpu/cpu.h"

#define EXPERTS_MAX 4096u
#define GROUPS_MAX  256u

struct route {
    const struct moe_op_route *op;
    const struct cpu_isa      *isa;
    const float *logits;   /* (rows, n_experts), ld apart */
    const float *sel_bias; /* (n_experts) or NULL */
    uint32_t    *ids;      /* (rows, k) */
    float       *weights;  /* (rows, k) */
};

/* The k best of n numbers in falling order, earlier ones first in a tie. */
static void
best_of(const float *v, uint32_t n, uint32_t k, uint32_t *out)
{
    uint32_t i, j, count = 0;

    for (i = 0; i < n; i++) {
        const float f = v[i];

        if (count == k && !(f > v[out[k - 1]]))
            continue;
        for (j = count < k ? count++ : k - 1; j > 0 && f > v[out[j - 1]]; j--)
            out[j] = out[j - 1];
        out[j] = i;
    }
}

/* Experts outside the best groups cannot be chosen. */
static void
limit_groups(const struct moe_op_route *op, float *sel)
{
    const uint32_t size = op->n_experts / op->n_group;
    float          sum[GROUPS_MAX];
    uint32_t       keep[GROUPS_MAX], two[2];
    uint8_t        kept[GROUPS_MAX] = { 0 };
    uint32_t       g, i;

    for (g = 0; g < op->n_group; g++) {
        const float *s = sel + (size_t) g * size;

        best_of(s, size, size < 2 ? size : 2, two);
        sum[g] = size < 2 ? s[two[0]] : s[two[0]] + s[two[1]];
    }
    best_of(sum, op->n_group, op->topk_group, keep);
    for (i = 0; i < op->topk_group; i++)
        kept[keep[i]] = 1;
    for (g = 0; g < op->n_group; g++)
        for (i = 0; !kept[g] && i < size; i++)
            sel[(size_t) g * size + i] = -INFINITY;
}

/* Any candidate comes before the experts of groups that were not chosen. */
static void
choose(const struct moe_op_route *op, float *sel, uint32_t *ids)
{
    uint32_t e;

    for (e = 0; e < op->n_experts; e++)
        if (!(sel[e] >= -FLT_MAX)) /* NaN, -inf: last, but above the barred */
            sel[e] = -FLT_MAX;
    if (op->n_group > 1)
        limit_groups(op, sel);
    best_of(sel, op->n_experts, op->k, ids);
}

static void
route_row(void *arg, uint32_t i, uint32_t slot)
{
    const struct route        *r = arg;
    const struct moe_op_route *op = r->op;
    const float               *x = r->logits + i * op->ld;
    uint32_t                  *ids = r->ids + (size_t) i * op->k;
    float                     *w = r->weights + (size_t) i * op->k;
    float                      score[EXPERTS_MAX], sel[EXPERTS_MAX];
    float                      sum, top;
    uint32_t                   e, j;

    (void) slot;
    memcpy(score, x, op->n_experts * sizeof(float));
    if (op->score == MOE_SCORE_SOFTMAX) {
        sum = r->isa->softmax(score, op->n_experts, -INFINITY, &top);
        for (e = 0; e < op->n_experts; e++)
            score[e] /= sum;
    } else if (op->score == MOE_SCORE_SIGMOID) {
        for (e = 0; e < op->n_experts; e++)
            score[e] = 1.0f / (1.0f + expf(-score[e]));
    }
    for (e = 0; e < op->n_experts; e++)
        sel[e] = r->sel_bias != NULL ? score[e] + r->sel_bias[e] : score[e];
    choose(op, sel, ids);
    for (j = 0; j < op->k; j++)
        w[j] = score[ids[j]];
    if (op->score == MOE_SCORE_TOPK_SOFTMAX) {
        sum = r->isa->softmax(w, op->k, -INFINITY, &top);
        for (j = 0; j < op->k; j++)
            w[j] /= sum;
    }
    if (op->renorm != 0) {
        sum = 0.0f;
        for (j = 0; j < op->k; j++)
            sum += w[j];
        sum += 1e-20f;
        for (j = 0; j < op->k; j++)
            w[j] /= sum;
    }
    for (j = 0; j < op->k; j++)
        w[j] *= op->scale;
}

/* offsets (n_experts + 1), perm (pairs): pairs in rising order per expert. */
static void
group_pairs(const uint32_t *ids, uint32_t pairs, uint32_t n_experts,
            uint32_t *offsets, uint32_t *perm)
{
    uint32_t next[EXPERTS_MAX];
    uint32_t p, e;

    memset(offsets, 0, ((size_t) n_experts + 1) * sizeof(uint32_t));
    for (p = 0; p < pairs; p++)
        offsets[ids[p] + 1]++;
    for (e = 0; e < n_experts; e++) {
        next[e] = offsets[e];
        offsets[e + 1] += offsets[e];
    }
    for (p = 0; p < pairs; p++)
        perm[next[ids[p]]++] = p;
}

moe_status
cpu_route_check(const struct moe_op_route *op, struct moe_error *err)
{
    const uint32_t n = op->n_experts;

    if (op->score < MOE_SCORE_SOFTMAX || op->score > MOE_SCORE_TOPK_SOFTMAX)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "route: score %u is unknown", op->score);
    if (n > EXPERTS_MAX || op->n_group > GROUPS_MAX)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "route: %u experts in %u groups; at most %u in %u are "
                        "supported",
                        n, op->n_group, EXPERTS_MAX, GROUPS_MAX);
    if (op->k == 0 || op->k > n
        || (uint64_t) op->rows * op->k > UINT32_MAX)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "route: %u of %u experts for each of %u rows", op->k,
                        n, op->rows);
    if (op->n_group > 1
        && (n % op->n_group != 0 || op->topk_group == 0
            || op->topk_group > op->n_group
            || n / op->n_group * op->topk_group < op->k))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "route: %u of %u groups of %u experts cannot give %u",
                        op->topk_group, op->n_group, n, op->k);
    return MOE_OK;
}

/* Hot. */
moe_status
cpu_route(moe_device *dev, const struct moe_op_route *op,
          struct moe_error *err)
{
    struct route   r = { .op = op, .isa = dev->isa };
    const uint64_t pairs = (uint64_t) op->rows * op->k;
    uint32_t      *offsets, *perm;
    moe_status     st;

    st = cpu_route_check(op, err);
    if (st != MOE_OK)
        return st;
    offsets = cpu_bytes(dev, op->offsets, ((uint64_t) op->n_experts + 1) * 4,
                        "route offsets", err);
    if (offsets == NULL)
        return MOE_E_INVAL;
    if (op->rows == 0) {
        memset(offsets, 0, ((size_t) op->n_experts + 1) * 4);
        return MOE_OK;
    }
    r.logits = cpu_rows(dev, op->logits, op->rows, op->n_experts, op->ld,
                        "route logits", err);
    r.ids = cpu_bytes(dev, op->ids, pairs * 4, "route ids", err);
    r.weights = cpu_bytes(dev, op->weights, pairs * 4, "route weights", err);
    perm = cpu_bytes(dev, op->perm, pairs * 4, "route perm", err);
    if (r.logits == NULL || r.ids == NULL || r.weights == NULL
        || perm == NULL)
        return MOE_E_INVAL;
    if (op->sel_bias.mem != NULL
        && (r.sel_bias = cpu_bytes(dev, op->sel_bias,
                                   (uint64_t) op->n_experts * 4,
                                   "route bias", err))
               == NULL)
        return MOE_E_INVAL;
    cpu_run(dev, op->rows, (uint64_t) op->rows * op->n_experts * 4, route_row,
            &r);
    group_pairs(r.ids, (uint32_t) pairs, op->n_experts, offsets, perm);
    return MOE_OK;
}
