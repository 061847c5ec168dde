/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ref.c - the oracle, against numbers worked out by hand.
 *
 * Everything else is compared with these operations, so they are compared
 * with arithmetic small enough to do on paper, and their number formats with
 * the core's, bit for bit.
 */

#include <math.h>

#include "common/op_info.h"
#include "common/ref_ops.h"
#include "support/half.h"
#include "tap.h"

#define SPAN(a) { (a), sizeof(a) }

static int
near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * (1.0 + fabs(b));
}

static void
test_numbers(void)
{
    uint32_t i, wrong = 0, back = 0;
    uint16_t h, g;

    for (i = 0; i < 65536; i++) {
        double a, b;

        h = (uint16_t) i;
        a = moe_ref_get(&h, MOE_F16, 0);
        b = (double) moe_f16_f32(h);
        wrong += !(a == b || (isnan(a) && isnan(b)));
        moe_ref_put(&g, MOE_F16, 0, a);
        back += !isnan(a) && g != h;
        a = moe_ref_get(&h, MOE_BF16, 0);
        b = (double) moe_bf16_f32(h);
        wrong += !(a == b || (isnan(a) && isnan(b)));
        moe_ref_put(&g, MOE_BF16, 0, a);
        back += !isnan(a) && g != h;
    }
    is_int(wrong, 0, "every f16 and bf16 is read as the core reads it");
    is_int(back, 0, "and written back to the same bits");
    for (wrong = 0, i = 0; i < 2000000; i++) {
        /* all exponents, ties among them */
        float f = moe_bits_f32(i * 2147u + (i % 3 == 0 ? 0x1000u : 0u));

        if (isnan(f))
            continue;
        moe_ref_put(&g, MOE_F16, 0, (double) f);
        wrong += g != moe_f32_f16(f);
        moe_ref_put(&g, MOE_BF16, 0, (double) f);
        wrong += g != moe_f32_bf16(f);
    }
    is_int(wrong, 0, "2,000,000 floats are rounded as the core rounds them");
}

static void
test_affine(void)
{
    /* 2 x 4, 4-bit unsigned, groups of 2, zero points packed along rows:
     * zero of row 0 in the low nibble, of row 1 in the high one */
    static const uint8_t elem[] = { 0x10, 0x32, 0x54, 0x76 };
    static const float   scale[] = { 1, 2, 3, 4 };
    static const uint8_t zero[] = { 0x21, 0x43 };
    const void *plane[4] = { elem, scale, zero, NULL };
    struct moe_affine a = { .struct_size = sizeof(a),
                            .elem = MOE_ELEM_UINT,
                            .elem_bits = 4,
                            .scale = MOE_SCALE_F32,
                            .zero_bits = 4,
                            .zero_block_n = 2,
                            .group_n = 1,
                            .group_k = 2,
                            .block_k = 4,
                            .elem_row = 2,
                            .elem_block = 2,
                            .scale_row = 8,
                            .scale_group = 4,
                            .zero_row = 2,
                            .zero_group = 1 };
    uint8_t e2m1 = 0x0f;

    /* row 0: elements 0 1 2 3, zeros 1 1 3 3, scales 1 1 2 2 */
    ok(moe_ref_affine(&a, plane, 0, 0) == -1.0
           && moe_ref_affine(&a, plane, 0, 1) == 0.0
           && moe_ref_affine(&a, plane, 0, 2) == -2.0
           && moe_ref_affine(&a, plane, 0, 3) == 0.0,
       "row 0 of an affine matrix with zero points");
    /* row 1: elements 4 5 6 7, zeros 2 2 4 4, scales 3 3 4 4 */
    ok(moe_ref_affine(&a, plane, 1, 0) == 6.0
           && moe_ref_affine(&a, plane, 1, 3) == 12.0,
       "row 1");
    is_int(moe_ref_affine_bytes(&a, 2, 4, MOE_PLANE_ELEM), 4,
           "bytes of its elements");
    is_int(moe_ref_affine_bytes(&a, 2, 4, MOE_PLANE_SCALE), 16,
           "of its scales");
    is_int(moe_ref_affine_bytes(&a, 2, 4, MOE_PLANE_ZERO), 2,
           "of its zero points");
    a.elem = MOE_ELEM_INT;
    a.zero_bits = 0;
    plane[0] = &e2m1;
    ok(moe_ref_affine(&a, plane, 0, 0) == -1.0, "0xf as int4 is -1");
    a.elem = MOE_ELEM_E2M1;
    ok(moe_ref_affine(&a, plane, 0, 0) == -6.0, "0xf as E2M1 is -6");
    a.elem_bits = 8;
    a.elem = MOE_ELEM_E4M3;
    e2m1 = 0x7e;
    ok(moe_ref_affine(&a, plane, 0, 0) == 448.0, "0x7e as E4M3 is 448");
    e2m1 = 0x01;
    ok(moe_ref_affine(&a, plane, 0, 0) == ldexp(1.0, -9),
       "0x01 as E4M3 is 2^-9");
    a.elem = MOE_ELEM_E5M2;
    e2m1 = 0x7b;
    ok(moe_ref_affine(&a, plane, 0, 0) == 57344.0, "0x7b as E5M2 is 57344");
}

static const float *
plain_row(void *ctx, uint32_t group, uint32_t part, uint64_t r,
          float *scratch)
{
    const float *const *w = ctx; /* [group * 3 + part], each (2, 2) */

    (void) scratch;
    return w[group * 3 + part] + 2 * r;
}

static void
test_products(void)
{
    static const float w0[] = { 1, 2, 3, 4 }, w1[] = { 1, 0, 0, 1 };
    static const float *const w[] = { w0, w1, w0, w1, w1, w1 };
    struct moe_shape shape = { sizeof(shape), 3, { 2, 2, 2 }, { 2, 2, 2 } };
    struct moe_ref_weights weights = { (void *) (uintptr_t) w, plain_row,
                                       &shape };
    struct moe_wref ref[2] = { { NULL, 0, 0 }, { NULL, 0, 0 } };
    uint32_t offsets[] = { 0, 1, 2 }, experts[] = { 1 }, perm[] = { 1, 0 };
    float    x[] = { 1, 1, 2, 3 }, y[8] = { 0 }, bias[] = { 10, 20, 30, 40 };
    double   scratch[16];
    struct moe_op_grouped_gemm g = { .op = { sizeof(g), MOE_OP_GROUPED_GEMM,
                                             0, 0 },
                                     .n_groups = 2,
                                     .rows = 2,
                                     .n = 2,
                                     .k = 2,
                                     .n_parts = 1,
                                     .dtype = MOE_F32,
                                     .w = ref,
                                     .ldx = 2,
                                     .ldy = 2 };
    struct moe_span sg[] = { SPAN(offsets), { NULL, 0 }, SPAN(x), SPAN(y),
                             { NULL, 0 } };
    struct moe_op_grouped_ffn f = { .op = { sizeof(f), MOE_OP_GROUPED_FFN, 0,
                                            0 },
                                    .n_groups = 1,
                                    .rows = 1,
                                    .k = 2,
                                    .h = 2,
                                    .f = 2,
                                    .act = MOE_ACT_RELU,
                                    .dtype = MOE_F32,
                                    .experts = experts,
                                    .w = ref,
                                    .ldx = 2,
                                    .ldy = 2 };
    float    ones[] = { 1, 1 };
    struct moe_span sf[MOE_EXTENTS_MAX] = { SPAN(perm), SPAN(offsets),
                                            SPAN(bias), SPAN(x), SPAN(y) };
    const char *bad;

    ok(moe_ref_run(&g.op, sg, &weights, scratch) == NULL
           && y[0] == 3 && y[1] == 7 && y[2] == 2 && y[3] == 3,
       "a product in two groups");
    g.n_groups = 1;
    g.n = 4;
    g.n_parts = 2;
    g.ldy = 4;
    sg[MOE_X_GEMM_OFFSETS].p = NULL;
    sg[MOE_X_GEMM_BIAS].p = bias;
    ok(moe_ref_run(&g.op, sg, &weights, scratch) == NULL
           && y[0] == 13 && y[1] == 27 && y[2] == 31 && y[3] == 41
           && y[4] == 18 && y[7] == 43,
       "two parts side by side, with a bias");
    sg[MOE_X_GEMM_OFFSETS].p = offsets;
    offsets[1] = 9;
    bad = moe_ref_run(&g.op, sg, &weights, scratch);
    ok(bad != NULL, "offsets past the rows: %s", bad != NULL ? bad : "");

    /* expert 1 owns pair perm[1] = 0; its weights are all unit */
    offsets[1] = 1;
    y[0] = y[1] = y[2] = y[3] = -1;
    x[0] = 3;
    x[1] = -2;
    weights.ctx = (void *) (uintptr_t) (w + 3);
    ok(moe_ref_run(&f.op, sf, &weights, scratch) == NULL && y[0] == 9
           && y[1] == 0 && y[2] == -1,
       "relu(gate) * up, for the expert's own pair only");
    f.op.flags = MOE_FFN_SCALE_INPUT;
    ok(moe_ref_run(&f.op, sf, &weights, scratch) == NULL && y[0] == 900,
       "with the input scaled by the pair's weight");
    perm[1] = 2;
    ok(moe_ref_run(&f.op, sf, &weights, scratch) != NULL,
       "a pair that is not there");
    f.op.flags = MOE_FFN_ACCUMULATE;
    f.k = 1;
    f.act = MOE_ACT_SILU;
    sf[MOE_X_FFN_PERM].p = NULL;
    y[0] = 1;
    ok(moe_ref_run(&f.op, sf, &weights, scratch) == NULL
           && near((double) y[0], 1 + 9 / (1 + exp(-3.0))),
       "dense, silu, added");
    f.op.flags = 0;
    f.act = MOE_ACT_RELU;
    sf[MOE_X_FFN_GATE_BIAS].p = ones;
    sf[MOE_X_FFN_UP_BIAS].p = ones;
    sf[MOE_X_FFN_DOWN_BIAS].p = bias;
    moe_ref_run(&f.op, sf, &weights, scratch);
    ok(y[0] == 26 && y[1] == 20, "with biases: 4 * 4 + 10 and 0 * -1 + 20");
    sf[MOE_X_FFN_GATE_BIAS].p = sf[MOE_X_FFN_UP_BIAS].p = NULL;
    sf[MOE_X_FFN_DOWN_BIAS].p = NULL;
    f.act = MOE_ACT_GELU;
    moe_ref_run(&f.op, sf, &weights, scratch);
    ok(near((double) y[0], 3 * 2.99595031), "gelu(3) is 2.99595");
    f.act = MOE_ACT_GELU_TANH;
    moe_ref_run(&f.op, sf, &weights, scratch);
    ok(near((double) y[0], 3 * 2.99636254), "gelu_tanh(3) is 2.99636");
}

static void
test_rows(void)
{
    float x[] = { 3, 4, 0, 0 }, y[4], w[] = { 1, 2, 1, 1 };
    float b[] = { 0, 0, 1, 0 };
    struct moe_op_norm n = { .op = { sizeof(n), MOE_OP_NORM, 0, 0 },
                             .rows = 1,
                             .n = 4,
                             .kind = MOE_NORM_RMS,
                             .dtype = MOE_F32,
                             .ldx = 4,
                             .ldy = 4 };
    struct moe_span sn[] = { SPAN(x), SPAN(w), { NULL, 0 }, SPAN(y) };
    uint32_t id[] = { 1 };
    float    pairs[] = { 1, 2, 3, 4 }, pw[] = { 0.5f, 2 };
    float    shared[] = { 8, 8 }, gate[] = { 0 };
    struct moe_op_combine c = { .op = { sizeof(c), MOE_OP_COMBINE, 0, 0 },
                                .rows = 1,
                                .k = 2,
                                .h = 2,
                                .dtype = MOE_F32,
                                .ldp = 2,
                                .lds = 2,
                                .ldy = 2 };
    struct moe_span sc[] = { SPAN(pairs), SPAN(pw), SPAN(shared), SPAN(gate),
                             SPAN(y) };
    struct moe_op_gather g = { .op = { sizeof(g), MOE_OP_GATHER, 0, 0 },
                               .rows = 1,
                               .n = 2,
                               .dtype = MOE_F32,
                               .ldx = 2,
                               .ldy = 2 };
    struct moe_span sg[] = { SPAN(id), SPAN(pairs), SPAN(y) };

    moe_ref_run(&n.op, sn, NULL, NULL);
    ok(near((double) y[0], 3 / 2.5) && near((double) y[1], 2 * 4 / 2.5),
       "RMS norm with weights");
    n.kind = MOE_NORM_LAYER;
    sn[2].p = b;
    moe_ref_run(&n.op, sn, NULL, NULL);
    /* mean 1.75, variance (1.25^2 + 2.25^2 + 2 * 1.75^2) / 4 = 3.1875 */
    ok(near((double) y[0], 1.25 / sqrt(3.1875))
           && near((double) y[2], 1 - 1.75 / sqrt(3.1875)),
       "layer norm with weights and bias");
    y[0] = 100;
    y[1] = 200;
    moe_ref_run(&c.op, sc, NULL, NULL);
    ok(near((double) y[0], 100 + 0.5 + 6 + 4)
           && near((double) y[1], 200 + 1 + 8 + 4),
       "combine with a gated shared expert");
    moe_ref_run(&g.op, sg, NULL, NULL);
    ok(y[0] == 3 && y[1] == 4, "gather");
    id[0] = 2;
    ok(moe_ref_run(&g.op, sg, NULL, NULL) != NULL, "an index too far");
}

static void
test_route(void)
{
    float    logits[] = { 0, 2, 1, 2, -1, -2, -3, -4 }, weights[4];
    float    bias[] = { 9, 0, 0, 0 };
    uint32_t ids[4], offsets[5], perm[4];
    double   scratch[64], e = exp(1.0);
    struct moe_op_route r = { .op = { sizeof(r), MOE_OP_ROUTE, 0, 0 },
                              .rows = 2,
                              .n_experts = 4,
                              .k = 2,
                              .score = MOE_SCORE_TOPK_SOFTMAX,
                              .scale = 1,
                              .ld = 4 };
    struct moe_span s[] = { SPAN(logits), { NULL, 0 }, SPAN(ids),
                            SPAN(weights), SPAN(offsets), SPAN(perm) };

    moe_ref_run(&r.op, s, NULL, scratch);
    ok(ids[0] == 1 && ids[1] == 3 && ids[2] == 0 && ids[3] == 1,
       "the lower id first in a tie");
    ok(near((double) weights[0], 0.5)
           && near((double) weights[2], e / (1 + e)),
       "softmax over the chosen");
    ok(offsets[0] == 0 && offsets[1] == 1 && offsets[2] == 3
           && offsets[3] == 3 && offsets[4] == 4 && perm[0] == 2
           && perm[1] == 0 && perm[2] == 3 && perm[3] == 1,
       "pairs by expert, ascending");
    r.score = MOE_SCORE_SOFTMAX;
    r.scale = 2;
    moe_ref_run(&r.op, s, NULL, scratch);
    ok(near((double) weights[0],
            2 * e * e / (1 + e * e + e + e * e)),
       "softmax over all, scaled");
    r.renorm = 1;
    moe_ref_run(&r.op, s, NULL, scratch);
    ok(near((double) weights[0], 1), "renormalised");
    r.score = MOE_SCORE_SIGMOID;
    r.renorm = 0;
    r.scale = 1;
    s[MOE_X_ROUTE_BIAS].p = bias;
    moe_ref_run(&r.op, s, NULL, scratch);
    ok(ids[0] == 0 && ids[1] == 1 && near((double) weights[0], 0.5),
       "a bias chooses but does not weigh");
    s[MOE_X_ROUTE_BIAS].p = NULL;
    r.n_group = 2;
    r.topk_group = 1;
    logits[2] = 1.9f;
    logits[0] = 1.8f; /* group 0: 1.8 + 2, group 1: 1.9 + 2 */
    moe_ref_run(&r.op, s, NULL, scratch);
    ok(ids[0] == 3 && ids[1] == 2, "only within the best group");
}

static void
test_rope_attention(void)
{
    /* 1 head of 2, page of 2 rows, 2 pages; q k v a row */
    float    qkv[] = { 1, 0, 0, 1, 5, 6 }, freq[] = { 0.5f };
    float    kc[8] = { 0 }, vc[8] = { 0 }, norm[] = { 2, 2 };
    uint32_t pos[] = { 3 }, slot[] = { 2 };
    struct moe_op_rope_kv r = {
        .op = { sizeof(r), MOE_OP_ROPE_KV, 0, 0 },
        .rows = 1,
        .heads = 1,
        .dtype = MOE_F32,
        .rot_dim = 2,
        .rope_scale = 1,
        .kv = { .struct_size = sizeof(struct moe_kv),
                .dtype = MOE_F32,
                .page_rows = 2,
                .kv_heads = 1,
                .k_dim = 2,
                .v_dim = 2 },
        .ld = 6,
    };
    struct moe_span s[] = { SPAN(qkv), SPAN(norm), SPAN(norm), SPAN(freq),
                            SPAN(pos), SPAN(slot), SPAN(kc), SPAN(vc) };
    float    q[] = { 1, 0 }, y[2], k4[] = { 1, 0, 2, 0, 3, 0, 9, 9 };
    float    v4[] = { 1, 10, 2, 20, 3, 30, 9, 9 }, sinks[] = { 0 };
    uint32_t seqs[] = { 0 }, pages[] = { 1, 0 };
    double   scratch[16], e = exp(1.0), w0, w1, w2;
    struct moe_op_attention a = {
        .op = { sizeof(a), MOE_OP_ATTENTION, 0, 0 },
        .rows = 1,
        .heads = 1,
        .dtype = MOE_F32,
        .n_seqs = 1,
        .max_pages = 2,
        .max_context = 4,
        .scale = 1,
        .ldq = 2,
        .ldy = 2,
    };
    struct moe_span sa[] = { SPAN(q), SPAN(y), SPAN(seqs), SPAN(pos),
                             SPAN(pages), { NULL, 0 }, SPAN(k4), SPAN(v4),
                             { NULL, 0 } };

    moe_ref_run(&r.op, s, NULL, NULL);
    ok(near((double) qkv[0], cos(1.5)) && near((double) qkv[1], sin(1.5))
           && near((double) qkv[2], -sin(1.5)),
       "queries and keys are turned by 3 * 0.5");
    ok(kc[4] == qkv[2] && kc[5] == qkv[3] && vc[4] == 5 && vc[5] == 6
           && kc[0] == 0,
       "and stored in row 0 of page 1");
    r.rot_dim = 0;
    r.norm_span = 1;
    qkv[0] = 3;
    qkv[1] = 3;
    r.clip = 5.5f;
    moe_ref_run(&r.op, s, NULL, NULL);
    ok(near((double) qkv[0], 2) && vc[4] == 5 && vc[5] == 5.5f,
       "normalised heads, clipped values");
    slot[0] = 4;
    ok(moe_ref_run(&r.op, s, NULL, NULL) != NULL, "a slot too far");

    /* positions 0 and 1 lie in page 1, 2 and 3 in page 0 */
    a.kv = r.kv;
    pos[0] = 2;
    moe_ref_run(&a.op, sa, NULL, scratch);
    w0 = exp(3.0);
    w1 = exp(9.0);
    w2 = e;
    ok(near((double) y[0], (3 * w0 + 9 * w1 + 1 * w2) / (w0 + w1 + w2)),
       "attention over two pages");
    a.window = 1;
    moe_ref_run(&a.op, sa, NULL, scratch);
    ok(near((double) y[0], 1) && near((double) y[1], 10), "a window of 1");
    sa[MOE_X_ATTN_SINKS].p = sinks;
    moe_ref_run(&a.op, sa, NULL, scratch);
    ok(near((double) y[0], e / (e + 1)), "with a sink");
    a.window = 0;
    a.chunk = 2;
    moe_ref_run(&a.op, sa, NULL, scratch);
    ok(near((double) y[0], e / (e + 1)), "a chunk of 2 begins at 2");
    a.softcap = 0.5f;
    moe_ref_run(&a.op, sa, NULL, scratch);
    w2 = exp(0.5 * tanh(2.0));
    ok(near((double) y[0], w2 / (w2 + 1)), "with a soft cap");
    pages[1] = 7;
    ok(moe_ref_run(&a.op, sa, NULL, scratch) != NULL, "a page too far");
    seqs[0] = 1;
    ok(moe_ref_run(&a.op, sa, NULL, scratch) != NULL, "a sequence too far");
}

static void
test_extents(void)
{
    struct moe_extent   x[MOE_EXTENTS_MAX];
    struct moe_op_embed e = { .op = { sizeof(e), MOE_OP_EMBED, 0, 0 },
                              .rows = 3,
                              .n = 5,
                              .k = 4,
                              .dtype = MOE_F32,
                              .ldy = 6 };
    const char *bad;

    e.ids.mem = (moe_mem *) &e;
    e.y.mem = (moe_mem *) &e;
    is_int(moe_op_extents(&e.op, 1, x, &bad), 2, "two buffers");
    is_int(x[MOE_X_EMBED_Y].bytes, (2 * 6 + 4) * 4,
           "the last row ends with its own columns");
    ok(moe_extent_buf(&e.op, &x[MOE_X_EMBED_Y]) == &e.y, "y is y");
    e.y.off = 2;
    is_int(moe_op_extents(&e.op, 1, x, &bad), 0, "an offset of half a float");
    e.y.off = 0;
    e.ldy = UINT64_MAX / 2;
    is_int(moe_op_extents(&e.op, 1, x, &bad), 0, "a size beyond 64 bits");
    has_str(bad, "overflow", "is seen");
    e.y.mem = NULL;
    e.ldy = 4;
    is_int(moe_op_extents(&e.op, 1, x, &bad), 0, "an absent buffer");
    is_int(moe_op_extents(&e.op, 0, x, &bad), 2, "a query has no buffers");
    e.op.struct_size--;
    is_int(moe_op_extents(&e.op, 0, x, &bad), 0, "a payload cut short");
}

int
main(void)
{
    test_numbers();
    test_affine();
    test_products();
    test_rows();
    test_route();
    test_rope_attention();
    test_extents();
    return tap_done();
}
