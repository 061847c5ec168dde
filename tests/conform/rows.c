/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows.c - norm, combine, gather and route, on awkward shapes.
 */

#include "conform/device.h"

#include <string.h>

static const uint32_t widths[] = { 1, 2, 3, 7, 16, 33, 64, 130, 257 };
#define N_WIDTHS (sizeof(widths) / sizeof(*widths))

/* One row of a launch whose buffers are rows ld apart. */
static int
norm_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_norm *o = (struct moe_op_norm *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->x.off += i * o->ldx * 4;
    o->y.off += i * o->ldy * 4;
    return 1;
}

static void
norm(struct cdevice *d, uint32_t kind, uint32_t rows, uint32_t n, int pad,
     int weights, int in_place)
{
    struct ccase       k;
    struct moe_op_norm o = { .op = { sizeof(o), MOE_OP_NORM, 0, 0 },
                             .rows = rows,
                             .n = n,
                             .kind = kind,
                             .dtype = MOE_F32,
                             .eps = 1e-5f,
                             .ldx = n + (pad ? 3 : 0),
                             .ldy = n + (pad ? 5 : 0) };

    case_begin(&k, d, "NORM %s %u x %u%s%s%s",
               kind == MOE_NORM_RMS ? "rms" : "layer", rows, n,
               pad ? ", strides" : "", weights ? ", weights" : "",
               in_place ? ", in place" : "");
    if (in_place)
        o.ldy = o.ldx;
    o.x = case_matrix(&k, rows, n, o.ldx, 2.0f);
    o.y = in_place ? o.x : case_buf(&k, MOE_F32, rows * o.ldy + 2);
    if (weights)
        o.w = case_random(&k, MOE_F32, n, 1.0f);
    if (weights && kind == MOE_NORM_LAYER)
        o.b = case_random(&k, MOE_F32, n, 1.0f);
    case_run(&k, &o.op, NULL, NULL);
    if (rows > 1)
        case_pieces(&k, &o.op, rows, norm_piece, NULL, "row by row");
    case_end(&k);
}

static int
combine_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_combine *o = (struct moe_op_combine *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->pairs.off += i * o->k * o->ldp * 4;
    o->weights.off += i * o->k * 4ull;
    o->shared.off += i * o->lds * 4;
    o->shared_gate.off += i * 4ull;
    o->y.off += i * o->ldy * 4;
    return 1;
}

static void
combine(struct cdevice *d, uint32_t rows, uint32_t kk, uint32_t h, int shared,
        int gate, uint32_t flags)
{
    struct ccase          k;
    struct moe_op_combine o = { .op = { sizeof(o), MOE_OP_COMBINE, flags, 0 },
                                .rows = rows,
                                .k = kk,
                                .h = h,
                                .dtype = MOE_F32,
                                .ldp = h + 1,
                                .lds = h + 2,
                                .ldy = h + 3 };

    case_begin(&k, d, "COMBINE %u x %u, k %u%s%s%s", rows, h, kk,
               shared ? ", shared" : "", gate ? ", gated" : "",
               flags != 0 ? ", unweighted" : "");
    o.pairs = case_matrix(&k, (uint64_t) rows * kk, h, o.ldp, 1.0f);
    o.weights = case_random(&k, MOE_F32, (uint64_t) rows * kk, 0.5f);
    o.y = case_matrix(&k, rows, h, o.ldy, 1.0f);
    if (shared)
        o.shared = case_matrix(&k, rows, h, o.lds, 1.0f);
    if (gate)
        o.shared_gate = case_random(&k, MOE_F32, rows, 2.0f);
    case_run(&k, &o.op, NULL, NULL);
    if (rows > 1)
        case_pieces(&k, &o.op, rows, combine_piece, NULL, "row by row");
    case_end(&k);
}

static int
gather_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_gather *o = (struct moe_op_gather *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->index.off += i * 4ull;
    o->y.off += i * o->ldy * 4;
    return 1;
}

static void
gather(struct cdevice *d, uint32_t rows, uint32_t n)
{
    struct ccase         k;
    uint32_t             index[32], i;
    struct moe_op_gather o = { .op = { sizeof(o), MOE_OP_GATHER, 0, 0 },
                               .rows = rows,
                               .n = n,
                               .dtype = MOE_F32,
                               .ldx = n + 2,
                               .ldy = n + 1 };

    case_begin(&k, d, "GATHER %u x %u", rows, n);
    k.tolerance = 0;
    for (i = 0; i < rows; i++)
        index[i] = crandom_below(d, 9);
    o.index = case_u32(&k, index, rows);
    o.x = case_matrix(&k, 9, n, o.ldx, 1.0f);
    o.y = case_buf(&k, MOE_F32, rows * o.ldy);
    case_run(&k, &o.op, NULL, NULL);
    if (rows > 1)
        case_pieces(&k, &o.op, rows, gather_piece, NULL, "row by row");
    case_end(&k);
}

/* offsets and perm belong to one launch; the pieces' own are not compared. */
static int
route_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_route *o = (struct moe_op_route *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->logits.off += i * o->ld * 4;
    o->ids.off += i * o->k * 4ull;
    o->weights.off += i * o->k * 4ull;
    return 1;
}

struct route_case {
    uint32_t rows, n, k, score, n_group, topk_group, renorm;
    float    scale;
    int      bias, ties;
};

static void
route(struct cdevice *d, const struct route_case *rc)
{
    static const char *const names[] = { "?", "softmax", "sigmoid",
                                         "topk-softmax" };
    struct ccase        k;
    struct moe_op_route o = { .op = { sizeof(o), MOE_OP_ROUTE, 0, 0 },
                              .rows = rc->rows,
                              .n_experts = rc->n,
                              .k = rc->k,
                              .score = rc->score,
                              .n_group = rc->n_group,
                              .topk_group = rc->topk_group,
                              .renorm = rc->renorm,
                              .scale = rc->scale,
                              .ld = rc->n + 3 };
    uint64_t pairs = (uint64_t) rc->rows * rc->k;
    uint32_t i, e, at;
    float   *x;

    case_begin(&k, d, "ROUTE %s %u x %u, k %u%s%s%s%s", names[rc->score],
               rc->rows, rc->n, rc->k, rc->n_group > 1 ? ", groups" : "",
               rc->bias ? ", bias" : "", rc->renorm ? ", renorm" : "",
               rc->ties ? ", ties" : "");
    o.logits = case_matrix(&k, rc->rows, rc->n, o.ld, 1.5f);
    x = case_before(&k, o.logits);
    for (i = 0; rc->ties && x != NULL && i < rc->rows; i++)
        for (e = 0; e < rc->n; e++) /* three values, many times */
            x[i * o.ld + e] = (float) ((e + i) % 3);
    if (rc->bias)
        o.sel_bias = case_random(&k, MOE_F32, rc->n, 0.2f);
    o.ids = case_buf(&k, MOE_U32, pairs + 1);
    o.weights = case_buf(&k, MOE_F32, pairs + 1);
    at = k.n_buf;
    o.offsets = case_buf(&k, MOE_U32, (uint64_t) rc->n + 2);
    o.perm = case_buf(&k, MOE_U32, pairs + 1);
    case_run(&k, &o.op, NULL, NULL);
    k.buf[at].piecewise = k.buf[at + 1].piecewise = 0;
    if (rc->rows > 1)
        case_pieces(&k, &o.op, rc->rows, route_piece, NULL, "row by row");
    case_end(&k);
}

/* No rows: legal, and nothing is written. */
static void
no_rows(struct cdevice *d)
{
    struct ccase         k;
    struct moe_op_norm   n = { .op = { sizeof(n), MOE_OP_NORM, 0, 0 },
                               .n = 8,
                               .kind = MOE_NORM_RMS,
                               .dtype = MOE_F32,
                               .ldx = 8,
                               .ldy = 8 };
    struct moe_op_gather g = { .op = { sizeof(g), MOE_OP_GATHER, 0, 0 },
                               .n = 8,
                               .dtype = MOE_F32,
                               .ldx = 8,
                               .ldy = 8 };
    struct moe_op_combine c = { .op = { sizeof(c), MOE_OP_COMBINE, 0, 0 },
                                .k = 2,
                                .h = 8,
                                .dtype = MOE_F32,
                                .ldp = 8,
                                .ldy = 8 };
    struct moe_op_route  r = { .op = { sizeof(r), MOE_OP_ROUTE, 0, 0 },
                               .n_experts = 5,
                               .k = 2,
                               .score = MOE_SCORE_SOFTMAX,
                               .scale = 1,
                               .ld = 5 };

    case_begin(&k, d, "NORM of no rows");
    n.x = n.y = case_random(&k, MOE_F32, 8, 1.0f);
    case_run(&k, &n.op, NULL, NULL);
    case_end(&k);
    case_begin(&k, d, "GATHER of no rows");
    g.x = g.y = g.index = case_random(&k, MOE_F32, 8, 1.0f);
    case_run(&k, &g.op, NULL, NULL);
    case_end(&k);
    case_begin(&k, d, "COMBINE of no rows");
    c.pairs = c.weights = c.y = case_random(&k, MOE_F32, 16, 1.0f);
    case_run(&k, &c.op, NULL, NULL);
    case_end(&k);
    case_begin(&k, d, "ROUTE of no rows: offsets are 0");
    r.logits = case_random(&k, MOE_F32, 5, 1.0f);
    r.ids = r.weights = r.perm = case_buf(&k, MOE_U32, 5);
    r.offsets = case_buf(&k, MOE_U32, 6);
    case_run(&k, &r.op, NULL, NULL);
    case_end(&k);
}

void
conform_rows(struct cdevice *d)
{
    static const struct route_case routes[] = {
        { 1, 1, 1, MOE_SCORE_SOFTMAX, 0, 0, 0, 1.0f, 0, 0 },
        { 7, 8, 2, MOE_SCORE_SOFTMAX, 1, 1, 1, 1.0f, 0, 0 },
        { 5, 60, 4, MOE_SCORE_SOFTMAX, 0, 0, 0, 1.0f, 0, 0 },
        { 3, 128, 8, MOE_SCORE_SOFTMAX, 0, 0, 1, 1.0f, 0, 0 },
        { 4, 5, 5, MOE_SCORE_TOPK_SOFTMAX, 0, 0, 0, 1.0f, 0, 0 },
        { 17, 33, 3, MOE_SCORE_TOPK_SOFTMAX, 0, 0, 0, 1.0f, 0, 0 },
        { 3, 16, 1, MOE_SCORE_SIGMOID, 0, 0, 0, 1.0f, 0, 0 },
        { 6, 64, 6, MOE_SCORE_SIGMOID, 8, 3, 1, 2.5f, 1, 0 },
        { 6, 12, 4, MOE_SCORE_SIGMOID, 4, 2, 0, 1.0f, 1, 0 },
        { 6, 12, 3, MOE_SCORE_SOFTMAX, 12, 5, 1, 1.5f, 0, 0 },
        { 9, 9, 4, MOE_SCORE_SOFTMAX, 0, 0, 1, 1.0f, 0, 1 },
        { 9, 12, 4, MOE_SCORE_SIGMOID, 3, 2, 1, 1.0f, 0, 1 },
        { 9, 9, 4, MOE_SCORE_TOPK_SOFTMAX, 0, 0, 0, 1.0f, 0, 1 },
    };
    size_t i;

    for (i = 0; i < N_WIDTHS; i++) {
        norm(d, MOE_NORM_RMS, 3, widths[i], i % 2 == 0, i % 3 != 0, 0);
        norm(d, MOE_NORM_LAYER, 2, widths[i], i % 2 != 0, i % 3 != 1,
             i % 2 == 0);
    }
    norm(d, MOE_NORM_RMS, 33, 64, 0, 1, 1);
    combine(d, 1, 1, 1, 0, 0, 0);
    combine(d, 5, 2, 33, 1, 1, 0);
    combine(d, 3, 8, 130, 1, 0, 0);
    combine(d, 4, 3, 64, 0, 0, MOE_COMBINE_UNWEIGHTED);
    gather(d, 1, 1);
    gather(d, 17, 33);
    for (i = 0; i < sizeof(routes) / sizeof(*routes); i++)
        route(d, &routes[i]);
    no_rows(d);
}
