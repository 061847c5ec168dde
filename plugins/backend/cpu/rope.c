/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope.c - between the projections and attention: norm of heads, clip,
 * rotation by position, and the new rows of the KV cache.
 *
 * The angle is the f32 product of position and frequency, as the models were
 * trained with; its sine and cosine are the C library's.
 */

#include <math.h>

#include "backend/cpu/cpu.h"

#define PAIRS 64u /* angles at a time */

struct rope {
    const struct moe_op_rope_kv *op;
    const struct cpu_isa        *isa;
    float                       *qkv; /* (rows, ld) */
    const float    *q_norm, *k_norm;  /* see moe_op_rope_kv; or NULL */
    const float    *inv_freq;         /* (rot_dim / 2) */
    const uint32_t *positions, *slots; /* (rows) */
    uint8_t        *k, *v;            /* the cache */
    uint32_t        elem;             /* bytes */
};

static void
clip(float *x, uint64_t n, float limit)
{
    uint64_t i;

    for (i = 0; i < n; i++) {
        if (x[i] > limit)
            x[i] = limit;
        else if (x[i] < -limit)
            x[i] = -limit;
    }
}

static void
norm_heads(const struct rope *r, float *x, const float *w, uint32_t heads)
{
    const uint32_t dim = r->op->kv.k_dim;
    uint32_t       h;

    if (r->op->norm_span == 2) {
        r->isa->rms(x, w, heads * dim, r->op->norm_eps, x);
        return;
    }
    for (h = 0; h < heads; h++)
        r->isa->rms(x + (size_t) h * dim, w, dim, r->op->norm_eps,
                    x + (size_t) h * dim);
}

/* n pairs (2i, 2i + 1) from x on. */
static void
rotate_interleaved(const struct rope *r, float *x, const float *c,
                   const float *s, uint32_t n)
{
    float    a[PAIRS], b[PAIRS];
    uint32_t i;

    for (i = 0; i < n; i++) {
        a[i] = x[2 * i];
        b[i] = x[2 * i + 1];
    }
    r->isa->rotate(a, b, c, s, n, r->op->rope_scale);
    for (i = 0; i < n; i++) {
        x[2 * i] = a[i];
        x[2 * i + 1] = b[i];
    }
}

/* Query and key heads lie one after the other: heads of them. */
static void
rotate_heads(const struct rope *r, float *x, uint32_t heads, uint32_t pos)
{
    const struct moe_op_rope_kv *op = r->op;
    const uint32_t               half = op->rot_dim / 2;
    float                        c[PAIRS], s[PAIRS];
    uint32_t                     j, i, n, h;

    for (j = 0; j < half; j += n) {
        n = (uint32_t) cpu_min(half - j, PAIRS);
        for (i = 0; i < n; i++) {
            const float angle = (float) pos * r->inv_freq[j + i];

            c[i] = cosf(angle);
            s[i] = sinf(angle);
        }
        for (h = 0; h < heads; h++) {
            float *e = x + (size_t) h * op->kv.k_dim;

            if (op->rope_kind == MOE_ROPE_HALF)
                r->isa->rotate(e + j, e + half + j, c, s, n, op->rope_scale);
            else
                rotate_interleaved(r, e + 2 * j, c, s, n);
        }
    }
}

static void
rope_row(void *arg, uint32_t i, uint32_t slot)
{
    const struct rope           *r = arg;
    const struct moe_op_rope_kv *op = r->op;
    const struct moe_kv         *kv = &op->kv;
    float         *q = r->qkv + i * op->ld;
    float         *k = q + (size_t) op->heads * kv->k_dim;
    float         *v = k + (size_t) kv->kv_heads * kv->k_dim;
    const uint64_t page = r->slots[i] / kv->page_rows;
    const uint64_t row = r->slots[i] % kv->page_rows;
    uint32_t       h;

    (void) slot;
    if (op->norm_span != 0) {
        norm_heads(r, q, r->q_norm, op->heads);
        norm_heads(r, k, r->k_norm, kv->kv_heads);
    }
    if (op->clip > 0.0f)
        clip(q,
             ((uint64_t) op->heads + kv->kv_heads) * kv->k_dim
                 + (uint64_t) kv->kv_heads * kv->v_dim,
             op->clip);
    if (op->rot_dim != 0)
        rotate_heads(r, q, op->heads + kv->kv_heads, r->positions[i]);
    for (h = 0; h < kv->kv_heads; h++) {
        const uint64_t at = (page * kv->kv_heads + h) * kv->page_rows + row;

        r->isa->store[kv->dtype - 1](k + (size_t) h * kv->k_dim, kv->k_dim,
                                     r->k + at * kv->k_dim * r->elem);
        r->isa->store[kv->dtype - 1](v + (size_t) h * kv->v_dim, kv->v_dim,
                                     r->v + at * kv->v_dim * r->elem);
    }
}

/* Sizes that no correct caller sends. */
static moe_status
check_shape(const struct moe_op_rope_kv *op, struct moe_error *err)
{
    const struct moe_kv *kv = &op->kv;

    if (op->dtype != MOE_F32)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "rope: activations of type %u; only f32 is supported",
                        op->dtype);
    if (op->rope_kind > MOE_ROPE_INTERLEAVED || op->norm_span > 2
        || op->rot_dim > kv->k_dim || op->rot_dim % 2 != 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "rope: kind %u, norm span %u, %u of %u elements "
                        "rotated",
                        op->rope_kind, op->norm_span, op->rot_dim, kv->k_dim);
    return cpu_kv_check(kv, "rope", err);
}

/* Hot. */
moe_status
cpu_rope(moe_device *dev, const struct moe_op_rope_kv *op,
         struct moe_error *err)
{
    const struct moe_kv *kv = &op->kv;
    struct rope          r = { .op = op, .isa = dev->isa };
    const uint64_t       span = op->norm_span == 2 ? op->heads : 1;
    const uint64_t       kspan = op->norm_span == 2 ? kv->kv_heads : 1;
    uint64_t             width, rows;
    uint32_t             i;
    moe_status           st;

    st = check_shape(op, err);
    if (st != MOE_OK || op->rows == 0)
        return st;
    width = ((uint64_t) op->heads + kv->kv_heads) * kv->k_dim
            + (uint64_t) kv->kv_heads * kv->v_dim;
    r.elem = moe_dtype_size(kv->dtype);
    r.qkv = cpu_rows(dev, op->qkv, op->rows, width, op->ld, "rope qkv", err);
    r.slots = cpu_bytes(dev, op->slots, (uint64_t) op->rows * 4, "rope slots",
                        err);
    if (r.qkv == NULL || r.slots == NULL)
        return MOE_E_INVAL;
    if (op->norm_span != 0) {
        r.q_norm = cpu_bytes(dev, op->q_norm, span * kv->k_dim * 4,
                             "rope q_norm", err);
        r.k_norm = cpu_bytes(dev, op->k_norm, kspan * kv->k_dim * 4,
                             "rope k_norm", err);
        if (r.q_norm == NULL || r.k_norm == NULL)
            return MOE_E_INVAL;
    }
    if (op->rot_dim != 0) {
        r.inv_freq = cpu_bytes(dev, op->inv_freq,
                               (uint64_t) op->rot_dim / 2 * 4,
                               "rope inv_freq", err);
        r.positions = cpu_bytes(dev, op->positions, (uint64_t) op->rows * 4,
                                "rope positions", err);
        if (r.inv_freq == NULL || r.positions == NULL)
            return MOE_E_INVAL;
    }
    st = cpu_kv_open(dev, kv, "rope", &r.k, &r.v, &rows, err);
    if (st != MOE_OK)
        return st;
    rows *= kv->page_rows;
    for (i = 0; i < op->rows; i++)
        if (r.slots[i] >= rows)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "rope: slot %u of row %u is not below %llu",
                            r.slots[i], i, (unsigned long long) rows);
    cpu_run(dev, op->rows,
            op->rows * (width + (uint64_t) op->rot_dim * 16), rope_row, &r);
    return MOE_OK;
}
