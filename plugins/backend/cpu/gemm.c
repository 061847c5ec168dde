/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm.c - products of rows with the matrices of their groups.
 *
 * Scratch: the groups that have rows; for weights in lines also the rows of x
 * in 8 bits, made once and used by every panel.
 */

#include "backend/cpu/grid.h"

struct gemm {
    const struct moe_op_grouped_gemm *op;
    const moe_device                 *dev;
    const struct cpu_isa             *isa;
    const float                      *x;    /* (rows, k) */
    const float                      *bias; /* (n) or NULL */
    float                            *y;    /* (rows, n) */
    struct cpu_group                 *groups;
    uint32_t                          n_groups; /* that have rows */
    struct cpu_q8 *q8;    /* (rows, n8), or NULL */
    uint64_t       n8;    /* records of a row */
    uint32_t       kind;
    uint32_t       first[MOE_PARTS_MAX + 1]; /* panel numbers of parts */
    uint32_t       col[MOE_PARTS_MAX + 1];   /* columns of y */
    struct cpu_grid grid;
};

uint64_t
cpu_gemm_work(const struct moe_op_grouped_gemm *op, uint32_t kind)
{
    uint64_t groups = cpu_align(op->n_groups * sizeof(struct cpu_group),
                                CPU_ALIGN);

    return groups
           + (cpu_is_lines(kind) ? op->rows * cpu_q8_bytes(op->k) : 0);
}

static void
quantize_row(void *arg, uint32_t i, uint32_t slot)
{
    const struct gemm *g = arg;

    (void) slot;
    g->isa->quantize(g->x + i * g->op->ldx, g->op->k, g->q8 + i * g->n8);
}

/* out: (nt, ldo) products for np panels -> y. */
static void
store_block(const struct gemm *g, uint32_t row, uint32_t nt, uint32_t col,
            uint32_t cols, const float *out, uint32_t ldo)
{
    const int add = (g->op->op.flags & MOE_GEMM_ACCUMULATE) != 0;
    uint32_t  t;

    for (t = 0; t < nt; t++, out += ldo) {
        float *y = g->y + (uint64_t) (row + t) * g->op->ldy + col;

        if (add)
            g->isa->axpy(1.0f, out, cols, y);
        else
            memcpy(y, out, cols * sizeof(float));
        if (g->bias != NULL)
            g->isa->axpy(1.0f, g->bias + col, cols, y);
    }
}

/* Panels [p0, p1) of one part by rows [row, row + nt). */
static void
gemm_block(const struct gemm *g, const struct cpu_mat *m, uint32_t part,
           uint32_t p0, uint32_t p1, uint32_t row, uint32_t nt)
{
    float       out[CPU_TILE_ROWS * CPU_NP * CPU_LANES];
    const void *x[CPU_TILE_ROWS];
    uint32_t    p, np, t;

    for (t = 0; t < nt; t++)
        x[t] = g->q8 != NULL
                   ? (const void *) (g->q8 + (row + t) * g->n8)
                   : (const void *) (g->x + (row + t) * g->op->ldx);
    for (p = p0; p < p1; p += np) {
        np = (uint32_t) cpu_min(p1 - p, CPU_NP);
        cpu_dot(g->dev, m, p, np, x, nt, out, CPU_NP * CPU_LANES);
        store_block(g, row, nt, g->col[part] + p * CPU_LANES,
                    (uint32_t) cpu_min(np * CPU_LANES,
                                       m->n - p * CPU_LANES),
                    out, CPU_NP * CPU_LANES);
    }
}

static void
gemm_item(void *arg, uint32_t i, uint32_t slot)
{
    const struct gemm      *g = arg;
    const struct cpu_item   it = cpu_grid_item(&g->grid, g->groups, i);
    const struct cpu_group *group = &g->groups[it.group];
    const struct moe_wref  *ref = &g->op->w[group->ref];
    struct cpu_mat          m;
    uint32_t                part, r, nt, a, b;

    (void) slot;
    for (r = it.row0; r < it.row1; r += nt) {
        nt = cpu_rows_of_call(g->dev, g->kind, it.row1 - r);
        for (part = 0; part < g->op->n_parts; part++) {
            a = it.panel0 > g->first[part] ? it.panel0 : g->first[part];
            b = (uint32_t) cpu_min(it.panel1, g->first[part + 1]);
            if (a >= b)
                continue;
            cpu_mat_of(g->dev, ref, ref->part + part, 0, g->op->k, "gemm",
                       &m, NULL);
            gemm_block(g, &m, part, a - g->first[part], b - g->first[part],
                       group->begin + r, nt);
        }
    }
}

/* The groups that have rows; *total of them all, *most of one. */
static moe_status
find_groups(struct gemm *g, const uint32_t *offsets, uint32_t *total,
            uint32_t *most, struct moe_error *err)
{
    const struct moe_op_grouped_gemm *op = g->op;
    uint32_t                          i, a = 0, b = op->rows;

    *total = *most = 0;
    for (i = 0; i < op->n_groups; i++) {
        if (offsets != NULL) {
            a = offsets[i];
            b = offsets[i + 1];
        }
        if (b < a || b > op->rows)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "gemm: group %u has rows %u to %u of %u", i, a, b,
                            op->rows);
        if (a == b)
            continue;
        g->groups[g->n_groups++] = (struct cpu_group){
            .ref = i, .begin = a, .rows = b - a, .base = *total
        };
        *total += b - a;
        *most = b - a > *most ? b - a : *most;
    }
    return MOE_OK;
}

/* All weights are there and of one shape; where each part's columns go. */
static moe_status
find_weights(struct gemm *g, uint64_t *bytes, struct moe_error *err)
{
    const struct moe_op_grouped_gemm *op = g->op;
    struct cpu_mat                    m;
    uint32_t                          i, part, n;
    moe_status                        st;

    *bytes = 0;
    for (i = 0; i < g->n_groups; i++) {
        const struct moe_wref *ref = &op->w[g->groups[i].ref];

        for (part = 0; part < op->n_parts; part++) {
            n = i == 0 ? 0 : g->col[part + 1] - g->col[part];
            st = cpu_mat_of(g->dev, ref, ref->part + part, n, op->k, "gemm",
                            &m, err);
            if (st != MOE_OK)
                return st;
            if (i == 0) {
                g->first[part + 1] = g->first[part] + m.panels;
                g->col[part + 1] = g->col[part] + m.n;
                g->kind = m.kind;
                *bytes += m.panels * cpu_panel_cost(&m);
            } else if (m.kind != g->kind) {
                return moe_fail(err, MOE_E_INVAL, 0,
                                "gemm: group %u is in another format than "
                                "the first",
                                g->groups[i].ref);
            }
        }
    }
    if (g->col[op->n_parts] != op->n)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "gemm: the parts have %u outputs, not %u",
                        g->col[op->n_parts], op->n);
    return MOE_OK;
}

/* Hot. */
moe_status
cpu_gemm(moe_device *dev, const struct moe_op_grouped_gemm *op,
         struct moe_error *err)
{
    struct gemm g = { .op = op, .dev = dev, .isa = dev->isa };
    uint32_t   *offsets = NULL;
    uint32_t    total, most;
    uint64_t    bytes;
    uint8_t    *work;
    moe_status  st;

    if (op->dtype != MOE_F32)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "gemm: activations of type %u; only f32 is supported",
                        op->dtype);
    if (op->n_parts == 0 || op->n_parts > MOE_PARTS_MAX || op->k == 0
        || op->w == NULL || (op->offsets.mem == NULL && op->n_groups != 1))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "gemm: %u groups of %u parts with %u columns",
                        op->n_groups, op->n_parts, op->k);
    if (op->rows == 0)
        return MOE_OK;
    g.x = cpu_rows(dev, op->x, op->rows, op->k, op->ldx, "gemm x", err);
    g.y = cpu_rows(dev, op->y, op->rows, op->n, op->ldy, "gemm y", err);
    work = cpu_bytes(dev, op->work, cpu_gemm_work(op, CPU_F32), "gemm work",
                     err);
    if (g.x == NULL || g.y == NULL || work == NULL)
        return MOE_E_INVAL;
    if (op->bias.mem != NULL
        && (g.bias = cpu_bytes(dev, op->bias, (uint64_t) op->n * 4,
                               "gemm bias", err))
               == NULL)
        return MOE_E_INVAL;
    if (op->offsets.mem != NULL
        && (offsets = cpu_bytes(dev, op->offsets,
                                ((uint64_t) op->n_groups + 1) * 4,
                                "gemm offsets", err))
               == NULL)
        return MOE_E_INVAL;
    g.groups = (struct cpu_group *) (void *) work;
    st = find_groups(&g, offsets, &total, &most, err);
    if (st != MOE_OK || g.n_groups == 0)
        return st;
    st = find_weights(&g, &bytes, err);
    if (st != MOE_OK)
        return st;
    if (cpu_is_lines(g.kind)) {
        if (cpu_bytes(dev, op->work, cpu_gemm_work(op, CPU_INT4),
                      "gemm work", err)
            == NULL)
            return MOE_E_INVAL;
        g.q8 = (struct cpu_q8 *) (void *) (work + cpu_gemm_work(op, CPU_F32));
        g.n8 = cpu_ceil(op->k, CPU_RUN);
        cpu_run(dev, op->rows, (uint64_t) op->rows * op->k / 4, quantize_row,
                &g);
    }
    cpu_grid_make(dev, g.n_groups, g.first[op->n_parts],
                  bytes / g.first[op->n_parts], g.kind, most, &g.grid);
    cpu_run(dev, g.grid.items,
            cpu_cost(bytes * g.n_groups, (uint64_t) total * op->n * op->k),
            gemm_item, &g);
    return MOE_OK;
}
