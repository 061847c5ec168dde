/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ops.c - the operations without weights, on every instruction set, on
 * awkward sizes, against the reference in double.
 */

#include "matrix/oracle.h"

#define TIGHT 2e-6 /* of the largest number, for f32 arithmetic */

#define OP(type, code_)                                                       \
    {                                                                         \
        .struct_size = sizeof(struct type), .code = (code_)                   \
    }

static struct test_host host;
static uint32_t         cases, bad;
static double           worst;

/* One line for many cases: counts, and says which one went wrong. */
static void
judge(moe_status st, const struct oracle *o, double limit, const char *what,
      uint32_t a, uint32_t b, uint32_t c)
{
    int whole = arena_free();

    cases++;
    worst = fmax(worst, o->max);
    if (st == MOE_OK && o->same && o->max <= limit && whole)
        return;
    bad++;
    if (bad < 20)
        printf("# %s %u %u %u: status %d, same %d, error %g, guard %d\n",
               what, a, b, c, st, o->same, o->max, whole);
}

static void
report(const char *isa, const char *what)
{
    ok(bad == 0, "%s: %s: %u cases, largest error %.2g", isa, what, cases,
       worst);
    cases = bad = 0;
    worst = 0.0;
}

static void
test_norm(const char *isa)
{
    static const uint32_t sizes[] = { 1, 2, 15, 16, 17, 48, 100, 256, 2048 };
    uint32_t              i, v;

    for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        for (v = 0; v < 16; v++) {
            const uint32_t n = sizes[i], rows = v % 4 == 3 ? 0 : 1 + v;
            struct moe_op_norm op = { .op = OP(moe_op_norm, MOE_OP_NORM) };
            struct oracle o;
            struct buf    x = arena_normal(&host, rows, n, n + v % 3, 3.0f), y;
            struct buf    w = arena_normal(&host, 1, n, n, 1.0f);
            struct buf    b = arena_normal(&host, 1, n, n, 1.0f);
            moe_status    st;

            op.rows = rows;
            op.n = n;
            op.kind = v & 1 ? MOE_NORM_LAYER : MOE_NORM_RMS;
            op.dtype = MOE_F32;
            op.eps = 1e-5f;
            op.ldx = n + v % 3;
            op.ldy = n + v % 5;
            op.x = buf_of(&x);
            if (v & 2) { /* in place */
                op.y = op.x;
                op.ldy = op.ldx;
            } else {
                y = arena_new(&host, rows == 0 ? 4 : rows * op.ldy * 4);
                op.y = buf_of(&y);
            }
            if (v & 4)
                op.w = buf_of(&w);
            if (v & 8)
                op.b = buf_of(&b);
            if (op.kind == MOE_NORM_RMS)
                op.b.mem = NULL;
            st = check_op(&host, &op.op, NULL, MOE_F32, &o);
            /* the mean taken off one or two numbers leaves few digits */
            judge(st, &o, n <= 2 && op.kind == MOE_NORM_LAYER ? 1e-3 : TIGHT,
                  "norm", n, rows, v);
        }
    report(isa, "norm");
}

static void
test_combine(const char *isa)
{
    uint32_t v;

    for (v = 0; v < 64; v++) {
        const uint32_t h = 1 + rng() % 600, k = v % 9;
        const uint32_t rows = v % 7 == 6 ? 0 : 1 + rng() % 5;
        struct moe_op_combine op
            = { .op = OP(moe_op_combine, MOE_OP_COMBINE) };
        struct oracle o;
        struct buf    p, w, s, g, y;
        moe_status    st;

        op.rows = rows;
        op.k = k;
        op.h = h;
        op.dtype = MOE_F32;
        op.ldp = h + v % 2;
        op.lds = h + v % 3;
        op.ldy = h + v % 4;
        p = arena_normal(&host, (uint64_t) rows * k, h, op.ldp, 1.0f);
        w = arena_normal(&host, 1, (uint64_t) rows * k, rows * k, 1.0f);
        s = arena_normal(&host, rows, h, op.lds, 1.0f);
        g = arena_normal(&host, 1, rows, rows, 1.0f);
        y = arena_normal(&host, rows, h, op.ldy, 1.0f);
        op.pairs = buf_of(&p);
        op.weights = buf_of(&w);
        op.y = buf_of(&y);
        if (v & 1)
            op.shared = buf_of(&s);
        if ((v & 3) == 3)
            op.shared_gate = buf_of(&g);
        if (v & 4)
            op.op.flags = MOE_COMBINE_UNWEIGHTED;
        st = check_op(&host, &op.op, NULL, MOE_F32, &o);
        judge(st, &o, TIGHT, "combine", h, rows, k);
    }
    report(isa, "combine");
}

static void
test_gather(const char *isa)
{
    uint32_t v, i;

    for (v = 0; v < 12; v++) {
        const uint32_t rows = v, n = 1 + rng() % 70, from = 9;
        struct moe_op_gather op = { .op = OP(moe_op_gather, MOE_OP_GATHER) };
        struct buf    x = arena_normal(&host, from, n, n + 3, 1.0f);
        struct buf    index = arena_new(&host, rows * 4 + 4);
        struct buf    y = arena_new(&host, rows * (n + 1) * 4 + 4);
        struct oracle o;
        moe_status    st;

        for (i = 0; i < rows; i++)
            index.u[i] = rng() % from;
        op.rows = rows;
        op.n = n;
        op.dtype = MOE_F32;
        op.index = buf_of(&index);
        op.x = buf_of(&x);
        op.y = buf_of(&y);
        op.ldx = n + 3;
        op.ldy = n + 1;
        st = check_op(&host, &op.op, NULL, MOE_F32, &o);
        judge(st, &o, 0.0, "gather", rows, n, 0);
    }
    report(isa, "gather");
}

static void
test_route(const char *isa)
{
    uint32_t v, i;

    for (v = 0; v < 120; v++) {
        static const uint32_t experts[] = { 1, 8, 12, 64, 256 };
        const uint32_t e = experts[v % 5], rows = v % 11 == 10 ? 0 : v % 40;
        const uint32_t groups = v % 3 == 2 && e % 4 == 0 ? 4 : 1;
        struct moe_op_route op = { .op = OP(moe_op_route, MOE_OP_ROUTE) };
        struct buf    logits, bias, ids, weights, offsets, perm;
        struct oracle o;
        moe_status    st;

        op.rows = rows;
        op.n_experts = e;
        op.score = 1 + v / 5 % 3;
        op.n_group = groups;
        op.topk_group = groups > 1 ? 1 + v % 4 : 1;
        op.k = 1 + rng() % (e / groups * op.topk_group);
        if (v % 4 != 0 && op.k > 8)
            op.k = 8;
        op.renorm = v % 2;
        op.scale = v % 7 == 0 ? 2.5f : 1.0f;
        op.ld = e + v % 3;
        logits = arena_normal(&host, rows, e, op.ld, 2.0f);
        if (v % 4 == 3) /* ties */
            for (i = 0; i < rows * op.ld && i < logits.bytes / 4; i++)
                logits.f[i] = rintf(logits.f[i]);
        bias = arena_normal(&host, 1, e, e, 0.1f);
        ids = arena_new(&host, (uint64_t) rows * op.k * 4);
        weights = arena_new(&host, (uint64_t) rows * op.k * 4);
        offsets = arena_new(&host, (e + 1) * 4);
        perm = arena_new(&host, (uint64_t) rows * op.k * 4);
        op.logits = buf_of(&logits);
        if (v % 4 == 1)
            op.sel_bias = buf_of(&bias);
        op.ids = buf_of(&ids);
        op.weights = buf_of(&weights);
        op.offsets = buf_of(&offsets);
        op.perm = buf_of(&perm);
        st = check_op(&host, &op.op, NULL, MOE_F32, &o);
        judge(st, &o, TIGHT, "route", e, rows, op.k);
    }
    report(isa, "route");
}

/* Scores that are no numbers still give k different experts. */
static void
test_route_nan(const char *isa)
{
    struct moe_op_route op = { .op = OP(moe_op_route, MOE_OP_ROUTE) };
    struct buf logits = arena_normal(&host, 4, 8, 8, 1.0f);
    struct buf ids = arena_new(&host, 64), weights = arena_new(&host, 64);
    struct buf offsets = arena_new(&host, 36), perm = arena_new(&host, 64);
    uint32_t   i, j, twice = 0;

    for (i = 0; i < 8; i++) {
        logits.f[i] = NAN;
        logits.f[8 + i] = i == 5 ? 1.0f : NAN;
        logits.f[16 + i] = i % 2 ? -INFINITY : NAN;
        logits.f[24 + i] = INFINITY;
    }
    op.rows = 4;
    op.n_experts = 8;
    op.k = 4;
    op.score = MOE_SCORE_TOPK_SOFTMAX;
    op.n_group = 2;
    op.topk_group = 1;
    op.scale = 1.0f;
    op.ld = 8;
    op.logits = buf_of(&logits);
    op.ids = buf_of(&ids);
    op.weights = buf_of(&weights);
    op.offsets = buf_of(&offsets);
    op.perm = buf_of(&perm);
    is_int(host.ops->launch(host.stream, &op.op, &host.err), MOE_OK,
           "%s: route takes scores that are no numbers", isa);
    for (i = 0; i < 16; i++) {
        twice += ids.u[i] >= 8;
        for (j = i / 4 * 4; j < i; j++)
            twice += ids.u[i] == ids.u[j];
    }
    is_int(twice, 0, "%s: and still chooses different experts", isa);
    is_int(offsets.u[8], 16, "%s: and places every pair", isa);
    arena_free();
}

static void
test_rope(const char *isa)
{
    uint32_t v, i;

    for (v = 0; v < 96; v++) {
        static const uint32_t dims[] = { 2, 8, 16, 20, 64, 80, 128, 256 };
        struct moe_op_rope_kv op
            = { .op = OP(moe_op_rope_kv, MOE_OP_ROPE_KV) };
        const uint32_t rows = v % 13 == 12 ? 0 : 1 + rng() % 9;
        const uint32_t pages = 5;
        struct buf     qkv, qn, kn, freq, pos, slots, k, v_;
        struct oracle  o;
        uint64_t       width;
        moe_status     st;

        op.rows = rows;
        op.kv.struct_size = sizeof(op.kv);
        op.kv.dtype = MOE_F32 + v % 3;
        op.kv.page_rows = 2 + rng() % 20;
        op.kv.kv_heads = 1 + rng() % 4;
        op.kv.k_dim = dims[v % 8];
        op.kv.v_dim = v % 5 == 0 ? 1 + rng() % 100 : op.kv.k_dim;
        op.heads = op.kv.kv_heads * (1 + rng() % 4);
        op.dtype = MOE_F32;
        op.rot_dim = v % 7 == 6 ? 0 : v % 7 == 5 ? op.kv.k_dim / 4 * 2
                                                 : op.kv.k_dim;
        op.rope_kind = v / 3 % 2;
        op.norm_span = v / 6 % 3;
        op.norm_eps = 1e-6f;
        op.clip = v % 11 == 1 ? 0.7f : 0.0f;
        op.rope_scale = v % 9 == 2 ? 1.3f : 1.0f;
        width = (op.heads + op.kv.kv_heads) * op.kv.k_dim
                + op.kv.kv_heads * op.kv.v_dim;
        op.ld = width + v % 2;
        qkv = arena_normal(&host, rows, width, op.ld, 1.0f);
        qn = arena_normal(&host, 1, op.heads * op.kv.k_dim, 1, 1.0f);
        kn = arena_normal(&host, 1, op.kv.kv_heads * op.kv.k_dim, 1, 1.0f);
        freq = arena_new(&host, op.kv.k_dim * 2);
        pos = arena_new(&host, rows * 4);
        slots = arena_new(&host, rows * 4);
        k = arena_new(&host, (uint64_t) pages * op.kv.page_rows
                                 * op.kv.kv_heads * op.kv.k_dim
                                 * moe_dtype_size(op.kv.dtype));
        v_ = arena_new(&host, (uint64_t) pages * op.kv.page_rows
                                  * op.kv.kv_heads * op.kv.v_dim
                                  * moe_dtype_size(op.kv.dtype));
        for (i = 0; i < op.kv.k_dim / 2; i++)
            freq.f[i] = powf(10000.0f, -2.0f * (float) i
                                           / (float) op.kv.k_dim);
        for (i = 0; i < rows; i++) {
            pos.u[i] = rng() % (v % 2 ? 100 : 100000);
            /* downwards, no slot twice: there are ten at least */
            slots.u[i] = (pages * op.kv.page_rows + v % 10 - i)
                         % (pages * op.kv.page_rows);
        }
        op.qkv = buf_of(&qkv);
        if (op.norm_span != 0) {
            op.q_norm = buf_of(&qn);
            op.k_norm = buf_of(&kn);
        }
        if (op.rot_dim != 0) {
            op.inv_freq = buf_of(&freq);
            op.positions = buf_of(&pos);
        }
        op.slots = buf_of(&slots);
        op.kv.k = buf_of(&k);
        op.kv.v = buf_of(&v_);
        st = check_op(&host, &op.op, NULL, op.kv.dtype, &o);
        /* a cache of 16 bits may round a neighbour's way */
        judge(st, &o,
              op.kv.dtype == MOE_F32   ? TIGHT
              : op.kv.dtype == MOE_F16 ? 1e-3
                                       : 8e-3,
              "rope", v, op.kv.k_dim, rows);
    }
    report(isa, "rope and cache");
}

static void
test_attention(const char *isa)
{
    uint32_t v, i;

    for (v = 0; v < 120; v += (uint32_t) tap_every(5)) {
        static const uint32_t dims[] = { 8, 16, 20, 64, 80, 128, 96, 192 };
        struct moe_op_attention op
            = { .op = OP(moe_op_attention, MOE_OP_ATTENTION) };
        const uint32_t rows = v % 13 == 12 ? 0 : 1 + rng() % 7;
        const uint32_t seqs = 1 + rng() % 3;
        const uint32_t ctx = 1 + rng() % (v % 4 == 0 ? 400 : 50);
        uint32_t       pages;
        struct buf     q, y, seq, pos, table, sinks, k, v_;
        struct oracle  o;
        moe_status     st;

        op.rows = rows;
        op.n_seqs = seqs;
        op.kv.struct_size = sizeof(op.kv);
        op.kv.dtype = MOE_F32 + v % 3;
        op.kv.page_rows = v % 2 ? 16 : 1 + rng() % 40;
        op.kv.kv_heads = 1 + rng() % 3;
        op.kv.k_dim = dims[v % 8];
        op.kv.v_dim = v % 5 == 0 ? 1 + rng() % 150 : op.kv.k_dim;
        op.heads = op.kv.kv_heads * (1 + rng() % 9);
        op.dtype = MOE_F32;
        op.max_context = ctx;
        op.max_pages = (ctx + op.kv.page_rows - 1) / op.kv.page_rows;
        op.window = v % 4 == 1 ? 1 + rng() % 20 : 0;
        op.chunk = v % 4 == 2 ? 1 + rng() % 20 : 0;
        op.scale = 1.0f / sqrtf((float) op.kv.k_dim);
        op.softcap = v % 7 == 3 ? 5.0f : 0.0f;
        pages = op.max_pages * seqs + 2;
        op.ldq = op.heads * op.kv.k_dim + v % 2;
        op.ldy = op.heads * op.kv.v_dim + v % 3;
        q = arena_normal(&host, rows, op.heads * op.kv.k_dim, op.ldq, 2.0f);
        y = arena_new(&host, rows * op.ldy * 4 + 4);
        seq = arena_new(&host, rows * 4);
        pos = arena_new(&host, rows * 4);
        table = arena_new(&host, seqs * op.max_pages * 4);
        sinks = arena_normal(&host, 1, op.heads, 1, 1.0f);
        k = arena_new(&host, (uint64_t) pages * op.kv.page_rows
                                 * op.kv.kv_heads * op.kv.k_dim * 4);
        v_ = arena_new(&host, (uint64_t) pages * op.kv.page_rows
                                  * op.kv.kv_heads * op.kv.v_dim * 4);
        for (i = 0; i < k.bytes / 4; i++)
            moe_ref_put(k.p, op.kv.dtype, i, (double) rng_normal());
        for (i = 0; i < v_.bytes / 4; i++)
            moe_ref_put(v_.p, op.kv.dtype, i, (double) rng_normal());
        for (i = 0; i < seqs * op.max_pages; i++)
            table.u[i] = (i * 5 + 1) % pages;
        for (i = 0; i < rows; i++) {
            seq.u[i] = rng() % seqs;
            pos.u[i] = i == 0 ? ctx - 1 : rng() % ctx;
        }
        op.q = buf_of(&q);
        op.y = buf_of(&y);
        op.seqs = buf_of(&seq);
        op.positions = buf_of(&pos);
        op.pages = buf_of(&table);
        op.kv.k = buf_of(&k);
        op.kv.v = buf_of(&v_);
        if (v % 3 == 2)
            op.sinks = buf_of(&sinks);
        op.work = arena_work(&host, &op.op, NULL);
        st = check_op(&host, &op.op, NULL, op.kv.dtype, &o);
        judge(st, &o, 1e-5, "attention", v, op.kv.k_dim, ctx);
    }
    report(isa, "attention");
}

int
main(void)
{
    uint32_t i, threads;

    for (i = 0; i < HOST_N_ISA; i++)
        for (threads = 1; threads <= 3; threads += 2) {
            if (host_init(&host, host_isas[i], 1) != MOE_OK) {
                tap_diag("%s: %s", host_isas[i], host.err.text);
                host_close(&host);
                break;
            }
            host_close(&host);
            if (!ok(host_open(&host, host_isas[i], threads) == MOE_OK,
                    "%s: opened with %u threads", host_isas[i], threads))
                return tap_done();
            test_norm(host_isas[i]);
            test_combine(host_isas[i]);
            test_gather(host_isas[i]);
            test_route(host_isas[i]);
            test_route_nan(host_isas[i]);
            test_rope(host_isas[i]);
            test_attention(host_isas[i]);
            is_int(host.warnings, 0, "%s: no warning", host_isas[i]);
            ok(host_close(&host), "%s: nothing is left behind",
               host_isas[i]);
        }
    return tap_done();
}
