/* SPDX-License-Identifier: Apache-2.0 */
/*
 * products.c - operations with weights, in one format: embed, grouped gemm,
 * grouped ffn.
 *
 * A format that the backend does not take is skipped: the core expands it to
 * a universal type, and those must work.
 */

#include "conform/device.h"

#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 64u

/* n rounded up to what the format can hold. */
static uint32_t
fit(uint32_t n, uint32_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* Of all cases together; of one, it may be 30 times that. */
static double
tolerance(const struct cformat *f)
{
    return 1e-9 + (double) f->format->nmse_x1e9 * 1e-9;
}

static double
case_tolerance(const struct cformat *f)
{
    return 1e-9 + (double) f->format->nmse_x1e9 * 30e-9;
}

/* The format's name with the type of its scales: "int4-g32/bf16". */
static const char *
name_of(const struct cformat *f)
{
    static const char *const types[] = { "", "/f32", "/f16", "/bf16" };
    static char              buf[64];

    snprintf(buf, sizeof(buf), "%s%s", f->format->id,
             f->scale_dtype < 4 ? types[f->scale_dtype] : "/?");
    return buf;
}

/* ------------------------------------------------------------------ embed -- */

static int
embed_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_embed *o = (struct moe_op_embed *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->ids.off += i * 4ull;
    o->y.off += i * o->ldy * 4;
    return 1;
}

static void
embed(struct cdevice *d, const struct cformat *f, uint32_t rows, uint32_t n,
      uint32_t kk, float scale)
{
    struct ccase        k;
    struct cweights     w;
    uint32_t            ids[ROWS_MAX], i;
    struct moe_shape    shape = { .struct_size = sizeof(shape), .n_parts = 1 };
    struct moe_op_embed o = { .op = { sizeof(o), MOE_OP_EMBED, 0, 0 },
                              .rows = rows,
                              .dtype = MOE_F32,
                              .scale = scale };

    shape.n[0] = o.n = fit(n, f->format->n_multiple);
    shape.k[0] = o.k = fit(kk, f->format->k_multiple);
    o.ldy = o.k + 1;
    case_begin(&k, d, "EMBED %u of %u x %u, %s", rows, o.n, o.k, name_of(f));
    k.tolerance = case_tolerance(f);
    for (i = 0; i < rows; i++)
        ids[i] = i == 0 ? o.n - 1 : crandom_below(d, o.n);
    o.ids = case_u32(&k, ids, rows);
    o.y = case_buf(&k, MOE_F32, rows * o.ldy);
    if (weights_make(&k, &o.op, f, &shape, 1, &w)) {
        o.w.slab = w.slab;
        w.refs = &o.w;
        case_run(&k, &o.op, &w, NULL);
        case_pieces(&k, &o.op, rows, embed_piece, NULL, "row by row");
    }
    weights_free(&k, &w);
    case_end(&k);
}

/* ------------------------------------------------------------------- gemm -- */

struct gemm_case {
    uint32_t rows, n, k;
    uint32_t n_groups;  /* 1: offsets absent */
    uint32_t n_parts;   /* of the launch; the slot has one more on each side
                           when it is more than 1 */
    int      bias, accumulate;
};

struct gemm_split {
    const uint32_t *offsets;
    const struct moe_wref *w;
};

static int
gemm_row_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_grouped_gemm *o = (struct moe_op_grouped_gemm *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->x.off += i * o->ldx * 4;
    o->y.off += i * o->ldy * 4;
    return 1;
}

/* Group i as a launch of its own. */
static int
gemm_group_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_grouped_gemm *o = (struct moe_op_grouped_gemm *) op;
    const struct gemm_split    *s = arg;

    (void) k;
    o->n_groups = 1;
    o->w = &s->w[i];
    o->offsets.mem = NULL;
    o->rows = s->offsets[i + 1] - s->offsets[i];
    o->x.off += s->offsets[i] * o->ldx * 4;
    o->y.off += s->offsets[i] * o->ldy * 4;
    return 1;
}

static void
gemm(struct cdevice *d, const struct cformat *f, const struct gemm_case *gc)
{
    struct ccase      k;
    struct cweights   w;
    struct moe_wref   refs[8];
    uint32_t          offsets[9] = { 0 }, i, p, extra, total = 0;
    struct gemm_split split = { offsets, refs };
    struct moe_shape  shape = { .struct_size = sizeof(shape) };
    struct moe_op_grouped_gemm o = {
        .op = { sizeof(o), MOE_OP_GROUPED_GEMM,
                gc->accumulate ? MOE_GEMM_ACCUMULATE : 0, 0 },
        .n_groups = gc->n_groups,
        .rows = gc->rows,
        .n_parts = gc->n_parts,
        .dtype = MOE_F32,
    };

    extra = gc->n_parts > 1 ? 1 : 0;
    shape.n_parts = gc->n_parts + extra;
    o.k = fit(gc->k, f->format->k_multiple);
    for (p = 0; p < shape.n_parts; p++) {
        shape.n[p] = fit(gc->n / (p + 1) + 1, f->format->n_multiple);
        shape.k[p] = o.k;
        if (p >= extra)
            o.n += (uint32_t) shape.n[p];
    }
    o.ldx = o.k + 2;
    o.ldy = o.n + 3;
    case_begin(&k, d, "GROUPED_GEMM %u x %u, rows %u%s%s%s%s, %s", o.n, o.k,
               gc->rows, gc->n_groups > 1 ? ", groups" : "",
               extra ? ", parts" : "", gc->bias ? ", bias" : "",
               gc->accumulate ? ", added" : "", name_of(f));
    k.tolerance = case_tolerance(f);
    /* Groups of 0, 1, 2, 0, 3 ... rows, and the rest for the last one but
     * one; the bound in rows is larger than the sum. */
    for (i = 0; i < gc->n_groups; i++) {
        uint32_t m = i % 3 == 0 ? 0 : i;

        if (i + 2 == gc->n_groups)
            m = gc->rows > total + 1 ? gc->rows - total - 1 : 0;
        total += i + 1 == gc->n_groups ? 0 : m;
        offsets[i + 1] = total;
    }
    o.x = case_matrix(&k, gc->rows, o.k, o.ldx, 1.0f);
    o.y = gc->accumulate ? case_matrix(&k, gc->rows, o.n, o.ldy, 1.0f)
                         : case_buf(&k, MOE_F32, gc->rows * o.ldy + 1);
    if (gc->n_groups > 1)
        o.offsets = case_u32(&k, offsets, gc->n_groups + 1);
    if (gc->bias)
        o.bias = case_random(&k, MOE_F32, o.n, 1.0f);
    if (weights_make(&k, &o.op, f, &shape, gc->n_groups + 1, &w)) {
        for (i = 0; i < gc->n_groups; i++) {
            refs[i].slab = w.slab;
            refs[i].slot = gc->n_groups - i;
            refs[i].part = extra;
        }
        o.w = refs;
        w.refs = refs;
        case_run(&k, &o.op, &w, &o.work);
        if (gc->n_groups > 1)
            case_pieces(&k, &o.op, gc->n_groups, gemm_group_piece, &split,
                        "group by group");
        else if (gc->rows > 1)
            case_pieces(&k, &o.op, gc->rows, gemm_row_piece, NULL,
                        "row by row");
    }
    weights_free(&k, &w);
    case_end(&k);
}

/* -------------------------------------------------------------------- ffn -- */

struct ffn_case {
    uint32_t rows, h, f, act;
    uint32_t n_experts, k; /* 0 and 1: dense */
    uint32_t flags;
    int      biases;
};

struct ffn_split {
    const struct moe_op_grouped_ffn *whole;
    const uint32_t *ids; /* (rows, k) */
    struct moe_buf  perm, offsets; /* of one row at a time, (rows) of them */
    uint32_t        n_experts;
    uint32_t        experts[2][16];
    struct moe_wref w[2][16];
};

static int
ffn_dense_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_grouped_ffn *o = (struct moe_op_grouped_ffn *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->x.off += i * o->ldx * 4;
    o->y.off += i * o->ldy * 4;
    return 1;
}

/* The even experts, then the odd ones: a layer that does not fit at once. */
static int
ffn_half_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_grouped_ffn *o = (struct moe_op_grouped_ffn *) op;
    struct ffn_split          *s = arg;
    uint32_t                   g, n = 0;

    (void) k;
    for (g = 0; g < s->whole->n_groups; g++)
        if (s->whole->experts[g] % 2 == i) {
            s->experts[i][n] = s->whole->experts[g];
            s->w[i][n++] = s->whole->w[g];
        }
    o->n_groups = n;
    o->experts = s->experts[i];
    o->w = s->w[i];
    return n > 0;
}

/* Row i alone, routed by perm and offsets of its own. */
static int
ffn_row_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_grouped_ffn *o = (struct moe_op_grouped_ffn *) op;
    struct ffn_split          *s = arg;

    (void) k;
    o->rows = 1;
    o->x.off += i * o->ldx * 4;
    o->y.off += i * o->k * o->ldy * 4;
    o->weights.off += i * o->k * 4ull;
    o->perm = s->perm;
    o->perm.off += i * o->k * 4ull;
    o->offsets = s->offsets;
    o->offsets.off += i * (s->n_experts + 1) * 4ull;
    return 1;
}

/* perm and offsets of `rows` rows of ids (rows, k). */
static void
group_by_expert(const uint32_t *ids, uint32_t pairs, uint32_t n_experts,
                uint32_t *perm, uint32_t *offsets)
{
    uint32_t e, p, n = 0;

    for (e = 0; e < n_experts; e++) {
        offsets[e] = n;
        for (p = 0; p < pairs; p++)
            if (ids[p] == e)
                perm[n++] = p;
    }
    offsets[n_experts] = n;
}

/* Buffers of a routed case: experts of each row drawn without repeats. */
static void
ffn_route(struct ccase *k, const struct ffn_case *fc,
          struct moe_op_grouped_ffn *o, struct ffn_split *s, uint32_t *ids)
{
    uint32_t perm[ROWS_MAX * 8], offsets[17], all[ROWS_MAX * 17];
    uint32_t i, j, e, m, taken;

    for (i = 0; i < fc->rows; i++)
        for (taken = 0, j = 0; j < fc->k; j++) {
            do /* expert 0 gets no rows at all */
                e = 1 + crandom_below(k->d, fc->n_experts - 1);
            while ((taken >> e) & 1);
            taken |= 1u << e;
            ids[i * fc->k + j] = e;
        }
    group_by_expert(ids, fc->rows * fc->k, fc->n_experts, perm, offsets);
    o->perm = case_u32(k, perm, fc->rows * fc->k);
    o->offsets = case_u32(k, offsets, fc->n_experts + 1);
    o->weights = case_random(k, MOE_F32, fc->rows * fc->k, 0.5f);
    for (i = 0; i < fc->rows; i++) {
        m = fc->n_experts + 1;
        group_by_expert(ids + i * fc->k, fc->k, fc->n_experts,
                        perm + i * fc->k, all + i * m);
    }
    s->perm = case_u32(k, perm, fc->rows * fc->k);
    s->offsets = case_u32(k, all, fc->rows * (fc->n_experts + 1));
    s->n_experts = fc->n_experts;
    s->ids = ids;
}

static void
ffn(struct cdevice *d, const struct cformat *f, const struct ffn_case *fc)
{
    static const char *const acts[] = { "?", "silu", "gelu", "gelu-tanh",
                                        "relu" };
    struct ccase      k;
    struct cweights   w;
    struct moe_wref   refs[16];
    struct ffn_split  split;
    uint32_t          ids[ROWS_MAX * 8], experts[16], g;
    uint32_t          routed = fc->n_experts > 0;
    struct moe_shape  shape = { .struct_size = sizeof(shape), .n_parts = 3 };
    struct moe_op_grouped_ffn o = {
        .op = { sizeof(o), MOE_OP_GROUPED_FFN, fc->flags, 0 },
        .n_groups = routed ? fc->n_experts : 1,
        .rows = fc->rows,
        .k = fc->k,
        .act = fc->act,
        .dtype = MOE_F32,
    };

    memset(&split, 0, sizeof(split));
    o.h = fit(fit(fc->h, f->format->k_multiple), f->format->n_multiple);
    o.f = fit(fit(fc->f, f->format->k_multiple), f->format->n_multiple);
    shape.n[MOE_PART_GATE] = shape.n[MOE_PART_UP] = o.f;
    shape.k[MOE_PART_GATE] = shape.k[MOE_PART_UP] = o.h;
    shape.n[MOE_PART_DOWN] = o.h;
    shape.k[MOE_PART_DOWN] = o.f;
    o.ldx = o.h + 1;
    o.ldy = o.h + 2;
    case_begin(&k, d, "GROUPED_FFN %s %u x %u, rows %u%s%s%s%s, %s",
               acts[fc->act], o.h, o.f, fc->rows, routed ? ", routed" : "",
               (fc->flags & MOE_FFN_SCALE_INPUT) != 0 && routed
                   ? ", input scaled"
                   : "",
               (fc->flags & MOE_FFN_ACCUMULATE) != 0 && !routed ? ", added"
                                                                : "",
               fc->biases ? ", biases" : "", name_of(f));
    k.tolerance = 4 * case_tolerance(f); /* three products */
    o.x = case_matrix(&k, fc->rows, o.h, o.ldx, 1.0f);
    o.y = !routed && (fc->flags & MOE_FFN_ACCUMULATE) != 0
              ? case_matrix(&k, fc->rows, o.h, o.ldy, 1.0f)
              : case_buf(&k, MOE_F32, (uint64_t) fc->rows * fc->k * o.ldy);
    if (routed)
        ffn_route(&k, fc, &o, &split, ids);
    if (fc->biases) {
        o.gate_bias = case_random(&k, MOE_F32, o.f, 0.5f);
        o.up_bias = case_random(&k, MOE_F32, o.f, 0.5f);
        o.down_bias = case_random(&k, MOE_F32, o.h, 0.5f);
    }
    if (weights_make(&k, &o.op, f, &shape, o.n_groups + 1, &w)) {
        for (g = 0; g < o.n_groups; g++) {
            refs[g].slab = w.slab;
            refs[g].slot = o.n_groups - g;
            refs[g].part = 0;
            experts[g] = (g * 5 + 2) % o.n_groups; /* in no order */
        }
        if (o.n_groups % 5 == 0)
            for (g = 0; g < o.n_groups; g++)
                experts[g] = o.n_groups - 1 - g;
        o.experts = routed ? experts : NULL;
        o.w = refs;
        w.refs = refs;
        split.whole = &o;
        case_run(&k, &o.op, &w, &o.work);
        if (routed) {
            case_pieces(&k, &o.op, 2, ffn_half_piece, &split,
                        "in two halves of the experts");
            case_pieces(&k, &o.op, fc->rows, ffn_row_piece, &split,
                        "row by row");
        } else if (fc->rows > 1) {
            case_pieces(&k, &o.op, fc->rows, ffn_dense_piece, NULL,
                        "row by row");
        }
    }
    weights_free(&k, &w);
    case_end(&k);
}

void
conform_products(struct cdevice *d, const struct cformat *f)
{
    static const struct gemm_case gemms[] = {
        { 1, 1, 1, 1, 1, 0, 0 },     { 1, 64, 64, 1, 1, 0, 0 },
        { 2, 3, 5, 1, 1, 1, 0 },     { 3, 33, 31, 1, 1, 0, 1 },
        { 5, 130, 257, 1, 1, 1, 1 }, { 17, 17, 1, 1, 1, 0, 0 },
        { 33, 40, 96, 1, 1, 0, 0 },  { 4, 48, 72, 1, 3, 1, 0 },
        { 13, 31, 65, 5, 1, 0, 0 },  { 16, 20, 130, 7, 2, 0, 1 },
        { 0, 12, 12, 1, 1, 0, 0 },
    };
    static const struct ffn_case ffns[] = {
        { 1, 1, 1, MOE_ACT_SILU, 0, 1, 0, 0 },
        { 3, 5, 3, MOE_ACT_GELU, 0, 1, MOE_FFN_ACCUMULATE, 0 },
        { 9, 33, 70, MOE_ACT_SILU, 0, 1, 0, 1 },
        { 2, 31, 130, MOE_ACT_RELU, 0, 1, MOE_FFN_ACCUMULATE, 1 },
        { 7, 31, 17, MOE_ACT_SILU, 6, 3, 0, 0 },
        { 1, 64, 96, MOE_ACT_GELU_TANH, 8, 2, 0, 0 },
        { 12, 24, 40, MOE_ACT_GELU, 9, 1, MOE_FFN_SCALE_INPUT, 0 },
        { 33, 16, 33, MOE_ACT_SILU, 4, 2, 0, 0 },
        { 0, 8, 8, MOE_ACT_SILU, 0, 1, 0, 0 },
    };
    size_t i;

    d->pool_diff = d->pool_sum = 0;
    embed(d, f, 1, 1, 1, 1.0f);
    embed(d, f, 5, 50, 33, 2.5f);
    embed(d, f, 3, 7, 128, 1.0f);
    for (i = 0; i < sizeof(gemms) / sizeof(*gemms); i++)
        gemm(d, f, &gemms[i]);
    if (f->format->nmse_x1e9 > 0 && d->pool_sum > 0)
        conform_ok(d->c, d->pool_diff <= tolerance(f) * d->pool_sum,
                   "%s: error of all products together %.1e of %.1e allowed",
                   name_of(f), d->pool_diff / d->pool_sum, tolerance(f));
    for (i = 0; i < sizeof(ffns) / sizeof(*ffns); i++)
        ffn(d, f, &ffns[i]);
}
