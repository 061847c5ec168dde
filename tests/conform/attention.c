/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attention.c - rotation, the paged cache, attention.
 *
 * The pages of a sequence lie in no order, as a scheduler leaves them, and
 * rows of a cache that were never written hold NaN.
 */

#include "conform/device.h"

#include <string.h>

#define PAGES_MAX 64u

static const char *
type_name(uint32_t dtype)
{
    return dtype == MOE_F32 ? "f32" : dtype == MOE_F16 ? "f16" : "bf16";
}

/* Error that a cache of this type may bring: of a rounding that falls to the
 * other side now and then. */
static double
kv_tolerance(uint32_t dtype)
{
    return dtype == MOE_F32 ? 1e-9 : dtype == MOE_F16 ? 1e-7 : 1e-6;
}

struct rope_case {
    uint32_t rows, heads, kv_heads, k_dim, v_dim, rot_dim, kind, norm_span;
    float    clip, scale;
    uint32_t far; /* 1: positions far out */
};

static int
rope_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_rope_kv *o = (struct moe_op_rope_kv *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->qkv.off += i * o->ld * 4;
    o->positions.off += i * 4ull;
    o->slots.off += i * 4ull;
    return 1;
}

static void
rope(struct cdevice *d, const struct rope_case *rc, uint32_t kv_dtype)
{
    struct ccase          k;
    uint32_t              positions[32], slots[32], i;
    uint32_t              page_rows = 4, n_pages = rc->rows / 4 + 2;
    uint64_t              nq = (uint64_t) rc->heads * rc->k_dim;
    uint64_t              nk = (uint64_t) rc->kv_heads * rc->k_dim;
    uint64_t              nv = (uint64_t) rc->kv_heads * rc->v_dim;
    float                *freq;
    struct moe_op_rope_kv o = {
        .op = { sizeof(o), MOE_OP_ROPE_KV, 0, 0 },
        .rows = rc->rows,
        .heads = rc->heads,
        .dtype = MOE_F32,
        .rot_dim = rc->rot_dim,
        .rope_kind = rc->kind,
        .norm_span = rc->norm_span,
        .norm_eps = 1e-6f,
        .clip = rc->clip,
        .rope_scale = rc->scale,
        .kv = { .struct_size = sizeof(struct moe_kv),
                .dtype = kv_dtype,
                .page_rows = page_rows,
                .kv_heads = rc->kv_heads,
                .k_dim = rc->k_dim,
                .v_dim = rc->v_dim },
        .ld = nq + nk + nv + 1,
    };

    case_begin(&k, d,
               "ROPE_KV rows %u, heads %u/%u of %u/%u, rot %u %s, norm %u%s, "
               "%s cache",
               rc->rows, rc->heads, rc->kv_heads, rc->k_dim, rc->v_dim,
               rc->rot_dim, rc->kind == MOE_ROPE_HALF ? "half" : "interleaved",
               rc->norm_span, rc->clip > 0 ? ", clip" : "",
               type_name(kv_dtype));
    k.tolerance = kv_tolerance(kv_dtype);
    for (i = 0; i < rc->rows; i++) {
        positions[i] = rc->far ? 30000 + 77 * i : i * 3;
        slots[i] = (rc->rows - 1 - i) + 3; /* backwards, across pages */
    }
    o.qkv = case_matrix(&k, rc->rows, nq + nk + nv, o.ld, 1.0f);
    if (rc->norm_span != 0) {
        o.q_norm = case_random(&k, MOE_F32, rc->norm_span == 1 ? rc->k_dim : nq,
                               1.0f);
        o.k_norm = case_random(&k, MOE_F32, rc->norm_span == 1 ? rc->k_dim : nk,
                               1.0f);
    }
    if (rc->rot_dim > 0) {
        o.inv_freq = case_buf(&k, MOE_F32, rc->rot_dim / 2);
        freq = case_before(&k, o.inv_freq);
        for (i = 0; freq != NULL && i < rc->rot_dim / 2; i++)
            freq[i] = i == 0 ? 1.0f : freq[i - 1] * 0.6f;
        o.positions = case_u32(&k, positions, rc->rows);
    }
    o.slots = case_u32(&k, slots, rc->rows);
    o.kv.k = case_buf(&k, kv_dtype, n_pages * page_rows * nk);
    o.kv.v = case_buf(&k, kv_dtype, n_pages * page_rows * nv);
    case_run(&k, &o.op, NULL, NULL);
    if (rc->rows > 1)
        case_pieces(&k, &o.op, rc->rows, rope_piece, NULL, "row by row");
    case_end(&k);
}

struct attention_case {
    uint32_t rows, heads, kv_heads, k_dim, v_dim;
    uint32_t n_seqs, length; /* positions of each sequence */
    uint32_t window, chunk;
    float    softcap;
    int      sinks;
};

static int
attention_piece(struct ccase *k, struct moe_op *op, uint32_t i, void *arg)
{
    struct moe_op_attention *o = (struct moe_op_attention *) op;

    (void) k, (void) arg;
    o->rows = 1;
    o->q.off += i * o->ldq * 4;
    o->y.off += i * o->ldy * 4;
    o->seqs.off += i * 4ull;
    o->positions.off += i * 4ull;
    return 1;
}

/* Random numbers in the rows of a cache that belong to a sequence. */
static void
fill_cache(struct ccase *k, const struct moe_kv *kv, struct moe_buf b,
           uint32_t dim, const uint32_t *pages, uint32_t max_pages,
           uint32_t n_seqs, uint32_t length)
{
    void    *p = case_before(k, b);
    uint32_t s, pos, h, e;

    for (s = 0; p != NULL && s < n_seqs; s++)
        for (pos = 0; pos < length; pos++)
            for (h = 0; h < kv->kv_heads; h++)
                for (e = 0; e < dim; e++) {
                    uint64_t page = pages[s * max_pages + pos / kv->page_rows];
                    uint64_t at = ((page * kv->kv_heads + h) * kv->page_rows
                                   + pos % kv->page_rows)
                                      * dim
                                  + e;

                    moe_ref_put(p, kv->dtype, at,
                                (double) crandom_float(k->d));
                }
}

static void
attention(struct cdevice *d, const struct attention_case *ac,
          uint32_t kv_dtype)
{
    struct ccase k;
    uint32_t     seqs[64], positions[64], pages[PAGES_MAX], i;
    uint32_t     page_rows = 16, max_pages, n_pages;
    struct moe_op_attention o = {
        .op = { sizeof(o), MOE_OP_ATTENTION, 0, 0 },
        .rows = ac->rows,
        .heads = ac->heads,
        .dtype = MOE_F32,
        .window = ac->window,
        .chunk = ac->chunk,
        .n_seqs = ac->n_seqs,
        .max_context = ac->length,
        .scale = 0.3f,
        .softcap = ac->softcap,
        .kv = { .struct_size = sizeof(struct moe_kv),
                .dtype = kv_dtype,
                .page_rows = page_rows,
                .kv_heads = ac->kv_heads,
                .k_dim = ac->k_dim,
                .v_dim = ac->v_dim },
        .ldq = (uint64_t) ac->heads * ac->k_dim + 1,
        .ldy = (uint64_t) ac->heads * ac->v_dim + 2,
    };

    max_pages = (ac->length + page_rows - 1) / page_rows;
    o.max_pages = max_pages;
    n_pages = ac->n_seqs * max_pages + 1;
    case_begin(&k, d,
               "ATTENTION rows %u, heads %u/%u of %u/%u, %u x %u%s%s%s%s, %s "
               "cache",
               ac->rows, ac->heads, ac->kv_heads, ac->k_dim, ac->v_dim,
               ac->n_seqs, ac->length, ac->window > 0 ? ", window" : "",
               ac->chunk > 0 ? ", chunk" : "",
               ac->softcap > 0 ? ", softcap" : "", ac->sinks ? ", sinks" : "",
               type_name(kv_dtype));
    for (i = 0; i < ac->n_seqs * max_pages; i++)
        pages[i] = n_pages - 1 - i; /* page 0 is nobody's */
    for (i = 0; i < ac->rows; i++) {
        seqs[i] = i % ac->n_seqs;
        positions[i] = i == 0 ? ac->length - 1
                              : crandom_below(d, ac->length);
    }
    o.q = case_matrix(&k, ac->rows, (uint64_t) ac->heads * ac->k_dim, o.ldq,
                      1.0f);
    o.y = case_buf(&k, MOE_F32, ac->rows * o.ldy + 1);
    o.seqs = case_u32(&k, seqs, ac->rows);
    o.positions = case_u32(&k, positions, ac->rows);
    o.pages = case_u32(&k, pages, ac->n_seqs * max_pages);
    o.kv.k = case_buf(&k, kv_dtype,
                      (uint64_t) n_pages * page_rows * ac->kv_heads
                          * ac->k_dim);
    o.kv.v = case_buf(&k, kv_dtype,
                      (uint64_t) n_pages * page_rows * ac->kv_heads
                          * ac->v_dim);
    fill_cache(&k, &o.kv, o.kv.k, ac->k_dim, pages, max_pages, ac->n_seqs,
               ac->length);
    fill_cache(&k, &o.kv, o.kv.v, ac->v_dim, pages, max_pages, ac->n_seqs,
               ac->length);
    if (ac->sinks)
        o.sinks = case_random(&k, MOE_F32, ac->heads, 1.0f);
    case_run(&k, &o.op, NULL, &o.work);
    if (ac->rows > 1)
        case_pieces(&k, &o.op, ac->rows, attention_piece, NULL, "row by row");
    case_end(&k);
}

void
conform_attention(struct cdevice *d)
{
    static const struct rope_case ropes[] = {
        { 1, 1, 1, 2, 2, 2, MOE_ROPE_HALF, 0, 0, 1, 0 },
        { 5, 4, 2, 16, 16, 16, MOE_ROPE_HALF, 0, 0, 1, 0 },
        { 5, 3, 1, 10, 6, 10, MOE_ROPE_INTERLEAVED, 0, 0, 1, 0 },
        { 7, 8, 2, 24, 24, 12, MOE_ROPE_HALF, 1, 0, 1, 0 },
        { 4, 2, 2, 66, 66, 66, MOE_ROPE_HALF, 2, 0, 1, 0 },
        { 3, 4, 4, 8, 8, 8, MOE_ROPE_HALF, 0, 0.5f, 1, 0 },
        { 3, 2, 1, 32, 32, 32, MOE_ROPE_INTERLEAVED, 1, 1.0f, 1.2f, 0 },
        { 6, 2, 1, 7, 5, 0, MOE_ROPE_HALF, 0, 0, 1, 0 },
        { 9, 4, 1, 64, 64, 64, MOE_ROPE_HALF, 0, 0, 1, 1 },
        { 0, 4, 1, 8, 8, 8, MOE_ROPE_HALF, 0, 0, 1, 0 },
    };
    static const struct attention_case attentions[] = {
        { 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0 },
        { 3, 4, 2, 16, 16, 2, 40, 0, 0, 0, 0 },
        { 5, 3, 3, 5, 7, 3, 17, 0, 0, 0, 0 },
        { 6, 8, 1, 64, 64, 1, 300, 0, 0, 0, 0 },
        { 9, 4, 2, 24, 24, 2, 100, 10, 0, 0, 0 },
        { 9, 4, 4, 10, 10, 2, 70, 0, 32, 0, 0 },
        { 4, 2, 1, 16, 16, 1, 64, 0, 0, 1.5f, 0 },
        { 7, 6, 2, 16, 12, 2, 50, 20, 0, 0, 1 },
        { 33, 2, 2, 8, 8, 4, 33, 0, 0, 0, 0 },
        { 0, 2, 2, 8, 8, 1, 16, 0, 0, 0, 0 },
    };
    static const uint32_t types[] = { MOE_F32, MOE_F16, MOE_BF16 };
    size_t i, t;

    for (t = 0; t < 3; t++) {
        if ((d->info.kv_dtypes & MOE_DTYPE_BIT(types[t])) == 0)
            continue;
        for (i = 0; i < sizeof(ropes) / sizeof(*ropes); i++)
            rope(d, &ropes[i], types[t]);
        for (i = 0; i < sizeof(attentions) / sizeof(*attentions); i++)
            attention(d, &attentions[i], types[t]);
    }
}
