/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows.c - operations whose rows have nothing to do with each other: embed,
 * norm, combine, gather.
 *
 * Ids and indices lie in memory that any step may have written: each is
 * checked before a row is touched.
 */

#include <math.h>

#include "backend/cpu/cpu.h"

static int
is_f32(uint32_t dtype, const char *what, struct moe_error *err)
{
    if (dtype == MOE_F32)
        return 1;
    moe_fail(err, MOE_E_UNSUPPORTED, 0,
             "%s: activations of type %u; only f32 is supported", what,
             dtype);
    return 0;
}

/* ----------------------------------------------------------------- embed -- */

struct embed {
    const struct moe_op_embed *op;
    struct cpu_mat             m;
    const uint32_t            *ids; /* (rows) */
    float                     *y;   /* (rows, k) */
};

static void
embed_row(void *arg, uint32_t i, uint32_t slot)
{
    const struct embed *e = arg;

    (void) slot;
    cpu_row(&e->m, e->ids[i], e->op->scale, e->y + i * e->op->ldy);
}

/* Hot. */
moe_status
cpu_embed(moe_device *dev, const struct moe_op_embed *op,
          struct moe_error *err)
{
    struct embed e = { .op = op };
    uint32_t     i;
    moe_status   st;

    if (!is_f32(op->dtype, "embed", err))
        return MOE_E_UNSUPPORTED;
    if (op->rows == 0)
        return MOE_OK;
    st = cpu_mat_of(dev, &op->w, op->w.part, op->n, op->k, "embed", &e.m,
                    err);
    if (st != MOE_OK)
        return st;
    e.ids = cpu_bytes(dev, op->ids, (uint64_t) op->rows * 4, "embed ids",
                      err);
    e.y = cpu_rows(dev, op->y, op->rows, op->k, op->ldy, "embed y", err);
    if (e.ids == NULL || e.y == NULL)
        return MOE_E_INVAL;
    for (i = 0; i < op->rows; i++)
        if (e.ids[i] >= op->n)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "embed: id %u of row %u is not below %u",
                            e.ids[i], i, op->n);
    cpu_run(dev, op->rows, 2 * (uint64_t) op->rows * op->k, embed_row, &e);
    return MOE_OK;
}

/* ------------------------------------------------------------------ norm -- */

struct norm {
    const struct moe_op_norm *op;
    const struct cpu_isa     *isa;
    const float              *x;     /* (rows, n) */
    const float              *w, *b; /* (n) or NULL */
    float                    *y;     /* (rows, n) */
};

static void
norm_row(void *arg, uint32_t i, uint32_t slot)
{
    const struct norm        *a = arg;
    const struct moe_op_norm *op = a->op;
    const float              *x = a->x + i * op->ldx;
    float                    *y = a->y + i * op->ldy;

    (void) slot;
    if (op->kind == MOE_NORM_RMS)
        a->isa->rms(x, a->w, op->n, op->eps, y);
    else
        a->isa->layer(x, a->w, a->b, op->n, op->eps, y);
}

/* Hot. */
moe_status
cpu_norm(moe_device *dev, const struct moe_op_norm *op, struct moe_error *err)
{
    struct norm a = { .op = op, .isa = dev->isa };

    if (!is_f32(op->dtype, "norm", err))
        return MOE_E_UNSUPPORTED;
    if (op->rows == 0)
        return MOE_OK;
    if (op->kind != MOE_NORM_RMS && op->kind != MOE_NORM_LAYER)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0, "norm: kind %u is unknown",
                        op->kind);
    a.x = cpu_rows(dev, op->x, op->rows, op->n, op->ldx, "norm x", err);
    a.y = cpu_rows(dev, op->y, op->rows, op->n, op->ldy, "norm y", err);
    if (a.x == NULL || a.y == NULL)
        return MOE_E_INVAL;
    if (op->w.mem != NULL
        && (a.w = cpu_rows(dev, op->w, 1, op->n, op->n, "norm w", err))
               == NULL)
        return MOE_E_INVAL;
    if (op->b.mem != NULL
        && (a.b = cpu_rows(dev, op->b, 1, op->n, op->n, "norm b", err))
               == NULL)
        return MOE_E_INVAL;
    cpu_run(dev, op->rows, (uint64_t) op->rows * op->n / 4, norm_row, &a);
    return MOE_OK;
}

/* --------------------------------------------------------------- combine -- */

struct combine {
    const struct moe_op_combine *op;
    const struct cpu_isa        *isa;
    const float                 *pairs;   /* (rows * k, h) */
    const float                 *weights; /* (rows, k) */
    const float                 *shared;  /* (rows, h) or NULL */
    const float                 *gate;    /* (rows) or NULL */
    float                       *y;       /* (rows, h) */
};

static void
combine_row(void *arg, uint32_t i, uint32_t slot)
{
    const struct combine        *c = arg;
    const struct moe_op_combine *op = c->op;
    float                       *y = c->y + i * op->ldy;
    const float                 *p;
    float                        sum[256], g = 1.0f;
    uint32_t                     j, at, n;

    (void) slot;
    if (c->gate != NULL)
        g = 1.0f / (1.0f + expf(-c->gate[i]));
    for (at = 0; at < op->h; at += n) {
        n = (uint32_t) cpu_min(op->h - at, 256);
        memset(sum, 0, n * sizeof(float));
        for (j = 0; j < op->k; j++) {
            const uint64_t pair = (uint64_t) i * op->k + j;

            p = c->pairs + pair * op->ldp + at;
            c->isa->axpy(c->weights != NULL ? c->weights[pair] : 1.0f, p, n,
                         sum);
        }
        c->isa->axpy(1.0f, sum, n, y + at);
        if (c->shared != NULL)
            c->isa->axpy(g, c->shared + i * op->lds + at, n, y + at);
    }
}

/* Hot. */
moe_status
cpu_combine(moe_device *dev, const struct moe_op_combine *op,
            struct moe_error *err)
{
    struct combine c = { .op = op, .isa = dev->isa };
    const uint64_t pairs = (uint64_t) op->rows * op->k;

    if (!is_f32(op->dtype, "combine", err))
        return MOE_E_UNSUPPORTED;
    if (op->rows == 0)
        return MOE_OK;
    if (op->k != 0) {
        c.pairs = cpu_rows(dev, op->pairs, pairs, op->h, op->ldp,
                           "combine pairs", err);
        if (c.pairs == NULL)
            return MOE_E_INVAL;
    }
    c.y = cpu_rows(dev, op->y, op->rows, op->h, op->ldy, "combine y", err);
    if (c.y == NULL)
        return MOE_E_INVAL;
    if ((op->op.flags & MOE_COMBINE_UNWEIGHTED) == 0 && op->k != 0
        && (c.weights = cpu_bytes(dev, op->weights, pairs * 4,
                                  "combine weights", err))
               == NULL)
        return MOE_E_INVAL;
    if (op->shared.mem != NULL
        && (c.shared = cpu_rows(dev, op->shared, op->rows, op->h, op->lds,
                                "combine shared", err))
               == NULL)
        return MOE_E_INVAL;
    if (op->shared_gate.mem != NULL
        && (c.gate = cpu_bytes(dev, op->shared_gate, (uint64_t) op->rows * 4,
                               "combine gate", err))
               == NULL)
        return MOE_E_INVAL;
    cpu_run(dev, op->rows, (pairs + op->rows) * op->h / 4, combine_row, &c);
    return MOE_OK;
}

/* ---------------------------------------------------------------- gather -- */

/* Hot. */
moe_status
cpu_gather(moe_device *dev, const struct moe_op_gather *op,
           struct moe_error *err)
{
    const uint32_t *index; /* (rows) */
    const float    *x;     /* (.., n) */
    float          *y;     /* (rows, n) */
    uint64_t        room;
    uint32_t        i;

    if (!is_f32(op->dtype, "gather", err))
        return MOE_E_UNSUPPORTED;
    if (op->rows == 0)
        return MOE_OK;
    index = cpu_bytes(dev, op->index, (uint64_t) op->rows * 4,
                      "gather index", err);
    x = cpu_rows(dev, op->x, 1, op->n, op->ldx, "gather x", err);
    y = cpu_rows(dev, op->y, op->rows, op->n, op->ldy, "gather y", err);
    if (index == NULL || x == NULL || y == NULL)
        return MOE_E_INVAL;
    room = (op->x.mem->bytes - op->x.off) / 4; /* elements from x on */
    for (i = 0; i < op->rows; i++)
        if ((uint64_t) index[i] * op->ldx + op->n > room)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "gather: row %u of index %u lies outside x",
                            index[i], i);
    for (i = 0; i < op->rows; i++)
        memmove(y + i * op->ldy, x + index[i] * op->ldx,
                (size_t) op->n * sizeof(float));
    return MOE_OK;
}
