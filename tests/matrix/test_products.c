/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_products.c - every format by awkward shapes: products, feed-forward
 * and embedding against the reference in double, with the tier of each.
 *
 * Losing a tier fails, and so does an error above what the format allows.
 */

#include "matrix/oracle.h"
#include "matrix/weights.h"

#define OP(type, code_)                                                       \
    {                                                                         \
        .struct_size = sizeof(struct type), .code = (code_)                   \
    }

static struct test_host host;
static uint32_t         cases, bad;
static double           worst, errors, squares;

/* One small case may have an unlucky sum: it gets ten times the limit that
 * holds for all together. */
static void
judge(const struct wset *w, moe_status st, const struct oracle *o,
      double limit, const char *what, uint64_t n, uint64_t k, uint32_t rows)
{
    int whole = arena_free();

    cases++;
    worst = fmax(worst, o->nmse);
    errors += o->error;
    squares += o->square;
    if (st == MOE_OK && o->same && o->nmse <= 10.0 * limit && whole)
        return;
    bad++;
    if (bad < 10)
        printf("# %s %s %llux%llu %u: status %d, same %d, nmse %g, guard %d\n",
               w->spec->id, what, (unsigned long long) n,
               (unsigned long long) k, rows, st, o->same, o->nmse, whole);
}

/* Rows of n groups: some without any, all in all at most total. */
static void
random_offsets(uint32_t *offsets, uint32_t groups, uint32_t total)
{
    uint32_t g, left = total;

    offsets[0] = 0;
    for (g = 0; g < groups; g++) {
        uint32_t m = rng() % 3 == 0 ? 0 : rng() % (left + 1);

        if (rng() % 4 == 0)
            m = m > 1 ? 1 : m;
        offsets[g + 1] = offsets[g] + m;
        left -= m;
    }
}

/* Makes x what 8 bits hold exactly: in runs of 32, whole numbers up to 127 of
 * some unit. */
static void
round_8(float *x, uint32_t rows, uint32_t k, uint64_t ld)
{
    uint32_t i, c;

    for (i = 0; i < rows; i++)
        for (c = 0; c < k; c++) {
            const float unit = 0.01f * (float) (1 + (c / 32 * 7 + i) % 5);

            x[i * ld + c] = unit * (c % 32 == 0 ? -127.0f
                                                : rintf(40.0f * x[i * ld + c]
                                                        / 4.0f));
        }
}

static void
one_gemm(const struct spec *s, const struct moe_shape *shape, uint32_t part,
         uint32_t n_parts, uint32_t groups, uint32_t rows, uint32_t variant)
{
    struct moe_op_grouped_gemm op
        = { .op = OP(moe_op_grouped_gemm, MOE_OP_GROUPED_GEMM) };
    struct moe_wref refs[16];
    struct oracle   o = { .same = 0 };
    struct wset     w;
    struct buf      x, y, bias, off;
    struct moe_ref_weights ref;
    moe_status      st;
    uint32_t        g;

    wset_make(&w, &host, s, shape, groups < WSET_SLOTS ? groups : WSET_SLOTS);
    op.n_groups = groups;
    op.rows = rows;
    op.k = (uint32_t) shape->k[part];
    for (g = 0; g < n_parts; g++)
        op.n += (uint32_t) shape->n[part + g];
    op.n_parts = n_parts;
    op.dtype = MOE_F32;
    if (variant & 1)
        op.op.flags = MOE_GEMM_ACCUMULATE;
    op.ldx = op.k + variant % 3;
    op.ldy = op.n + variant % 5;
    st = wset_upload(&w, &op.op);
    for (g = 0; g < groups; g++) {
        refs[g] = w.wref[g % w.slots];
        refs[g].part = part;
    }
    op.w = refs;
    x = arena_normal(&host, rows, op.k, op.ldx, 1.0f);
    if (variant & 8)
        round_8(x.f, rows, op.k, op.ldx);
    if (variant & 1)
        y = arena_normal(&host, rows, op.n, op.ldy, 1.0f);
    else
        y = arena_new(&host, ((rows != 0 ? rows - 1 : 0) * op.ldy + op.n) * 4);
    bias = arena_normal(&host, 1, op.n, op.n, 1.0f);
    op.x = buf_of(&x);
    op.y = buf_of(&y);
    if (groups == 1 && (variant & 2))
        op.bias = buf_of(&bias);
    if (groups > 1 || (variant & 4)) {
        off = arena_new(&host, (groups + 1) * 4);
        random_offsets(off.u, groups, rows);
        op.offsets = buf_of(&off);
    }
    op.work = arena_work(&host, &op.op, &w.weights);
    ref = wset_ref(&w);
    if (st == MOE_OK)
        st = check_op(&host, &op.op, &ref, MOE_F32, &o);
    if (w.plan.tier != s->tier)
        st = MOE_E_INTERNAL;
    judge(&w, st, &o, variant & 8 ? 1e-12 : s->nmse, "gemm", op.n, op.k,
          rows);
    wset_free(&w);
}

static void
test_gemm(const struct spec *s, uint32_t rounds)
{
    uint32_t v;

    for (v = 0; v < rounds; v++) {
        struct moe_shape shape = { .struct_size = sizeof(shape) };
        static const uint32_t rows[] = { 1, 2, 3, 5, 7, 9, 16, 25, 0, 31 };
        uint32_t         k, p, part, parts;

        k = (uint32_t) up(1 + rng() % (v % 8 == 0   ? 1200
                                               : v % 4 == 0 ? 400
                                                            : 90), s->k_multiple);
        shape.n_parts = 1 + v % 4;
        for (p = 0; p < shape.n_parts; p++) {
            shape.n[p] = 1 + rng() % (v % 3 == 0 ? 150 : 40);
            shape.k[p] = k;
        }
        part = rng() % shape.n_parts;
        parts = 1 + rng() % (shape.n_parts - part);
        one_gemm(s, &shape, part, parts, v % 3 == 1 ? 1 + rng() % 12 : 1,
                 rows[v % 10], v);
    }
}

static void
one_ffn(const struct spec *s, uint32_t h, uint32_t f, uint32_t rows,
        uint32_t k, uint32_t experts, uint32_t variant)
{
    struct moe_op_grouped_ffn op
        = { .op = OP(moe_op_grouped_ffn, MOE_OP_GROUPED_FFN) };
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 3,
                               .n = { f, f, h }, .k = { h, h, f } };
    const int        routed = k != 0;
    struct moe_wref  refs[16];
    uint32_t         ids[16], i, e, at;
    struct moe_ref_weights ref;
    struct oracle    o = { .same = 0 };
    struct wset      w;
    struct buf       x, y, perm, offsets, weights;
    struct buf       bias[3];
    moe_status       st;

    wset_make(&w, &host, s, &shape, experts < WSET_SLOTS ? experts
                                                         : WSET_SLOTS);
    op.n_groups = experts;
    op.rows = rows;
    op.k = routed ? k : 1;
    op.h = h;
    op.f = f;
    op.act = 1 + variant % 4;
    op.dtype = MOE_F32;
    if (!routed && (variant & 1))
        op.op.flags = MOE_FFN_ACCUMULATE;
    if (routed && (variant & 1))
        op.op.flags = MOE_FFN_SCALE_INPUT;
    op.ldx = h + variant % 3;
    op.ldy = h + variant % 2;
    st = wset_upload(&w, &op.op);
    for (e = 0; e < experts; e++) {
        refs[e] = w.wref[e % w.slots];
        ids[e] = routed ? (e * 3 + 1) % experts : e;
    }
    if (experts % 3 == 0)
        for (e = 0; e < experts; e++)
            ids[e] = experts - 1 - e;
    op.w = refs;
    op.experts = ids;
    x = arena_normal(&host, rows, h, op.ldx, 1.0f);
    if (!routed && (variant & 1))
        y = arena_normal(&host, (uint64_t) rows * op.k, h, op.ldy, 1.0f);
    else
        y = arena_new(&host, (uint64_t) rows * op.k * op.ldy * 4 + 4);
    op.x = buf_of(&x);
    op.y = buf_of(&y);
    if (routed) {
        perm = arena_new(&host, (uint64_t) rows * k * 4 + 4);
        offsets = arena_new(&host, (experts + 1) * 4);
        weights = arena_normal(&host, 1, (uint64_t) rows * k, 1, 1.0f);
        for (e = 0, at = 0; e < experts; e++) {
            offsets.u[e] = at;
            for (i = 0; i < rows * k; i++)
                if ((i * 7 + i / 5) % experts == e)
                    perm.u[at++] = i;
        }
        offsets.u[experts] = at;
        op.perm = buf_of(&perm);
        op.offsets = buf_of(&offsets);
        op.weights = buf_of(&weights);
        if (experts > 2) /* not all experts take part */
            op.n_groups = experts - 1;
    } else if (variant & 2) {
        bias[0] = arena_normal(&host, 1, f, f, 1.0f);
        bias[1] = arena_normal(&host, 1, f, f, 1.0f);
        bias[2] = arena_normal(&host, 1, h, h, 1.0f);
        op.gate_bias = buf_of(&bias[0]);
        op.up_bias = buf_of(&bias[1]);
        op.down_bias = buf_of(&bias[2]);
    }
    op.work = arena_work(&host, &op.op, &w.weights);
    ref = wset_ref(&w);
    if (st == MOE_OK)
        st = check_op(&host, &op.op, &ref, MOE_F32, &o);
    /* the errors of two products, the first of them multiplied; a few sums
     * can all happen to be small beside their terms */
    judge(&w, st, &o, 4.0 * s->nmse * (1.0 + 16.0 / (1.0 + rows * h)),
          routed ? "routed" : "dense", f, h, rows);
    wset_free(&w);
}

static void
test_ffn(const struct spec *s, uint32_t rounds)
{
    uint32_t v;

    for (v = 0; v < rounds; v++) {
        const uint32_t m = s->k_multiple;
        uint32_t h = (uint32_t) up(1 + rng() % 100, m);
        uint32_t f = (uint32_t) up(1 + rng() % 130, m);
        uint32_t rows = v % 9 == 8 ? 0 : v % 5 == 4 ? 40 : 1 + rng() % 6;

        if (v % 2)
            one_ffn(s, h, f, rows, 1 + rng() % 4, 1 + rng() % 9, v / 2);
        else
            one_ffn(s, h, f, rows, 0, 1, v / 2);
    }
}

static void
test_embed(const struct spec *s, uint32_t rounds)
{
    uint32_t v, i;

    for (v = 0; v < rounds; v++) {
        struct moe_op_embed op = { .op = OP(moe_op_embed, MOE_OP_EMBED) };
        struct moe_shape shape = { .struct_size = sizeof(shape),
                                   .n_parts = 1 };
        struct moe_ref_weights ref;
        struct oracle   o = { .same = 0 };
        struct wset     w;
        struct buf      ids, y;
        moe_status      st;

        shape.n[0] = 1 + rng() % 100;
        shape.k[0] = up(1 + rng() % 300, s->k_multiple);
        wset_make(&w, &host, s, &shape, 2);
        op.rows = v % 5;
        op.n = (uint32_t) shape.n[0];
        op.k = (uint32_t) shape.k[0];
        op.dtype = MOE_F32;
        op.scale = v % 2 ? 1.0f : 16.0f;
        op.ldy = op.k + v % 2;
        st = wset_upload(&w, &op.op);
        op.w = w.wref[0];
        ids = arena_new(&host, op.rows * 4 + 4);
        for (i = 0; i < op.rows; i++)
            ids.u[i] = rng() % op.n;
        y = arena_new(&host, op.rows * op.ldy * 4 + 4);
        op.ids = buf_of(&ids);
        op.y = buf_of(&y);
        ref = wset_ref(&w);
        if (st == MOE_OK)
            st = check_op(&host, &op.op, &ref, MOE_F32, &o);
        if (o.max > 2e-7) /* exact but for one rounding */
            st = MOE_E_INTERNAL;
        judge(&w, st, &o, 1e-13, "embed", op.n, op.k, op.rows);
        wset_free(&w);
    }
}

/* A code that is no finite number, where check() was not asked: its row is
 * NaN, for one row of x and for many, and no row with another scale is. */
static void
test_not_numbers(const char *isa)
{
    static const struct {
        const char *id;
        uint8_t     code;
        uint32_t    first, last; /* rows that may be NaN */
    } bad_codes[] = { { "fp8-e4m3-channel", 0x7f, 17, 17 },
                      { "fp8-e4m3-block", 0xff, 16, 31 },
                      { "fp8-e5m2-channel", 0x7e, 17, 17 },
                      { "fp8-e5m2-channel", 0xfc, 17, 17 } };
    enum { N = 40, K = 161, ROW = 17, ROWS = 5 };
    const struct moe_shape shape = { .struct_size = sizeof(shape),
                                     .n_parts = 1, .n = { N }, .k = { K } };
    uint32_t i, s, rows, t, r;

    for (i = 0; i < sizeof(bad_codes) / sizeof(*bad_codes); i++) {
        int right = 1;

        for (s = 0; strcmp(specs[s].id, bad_codes[i].id) != 0;)
            s++;
        for (rows = 1; rows <= ROWS; rows += ROWS - 1) {
            struct moe_op_grouped_gemm op
                = { .op = OP(moe_op_grouped_gemm, MOE_OP_GROUPED_GEMM),
                    .n_groups = 1, .rows = rows, .k = K, .n = N,
                    .n_parts = 1, .dtype = MOE_F32, .ldx = K, .ldy = N };
            struct wset w;
            struct buf  x, y;

            wset_make(&w, &host, &specs[s], &shape, 1);
            ((uint8_t *) (uintptr_t) w.tensor[0][0]
                 .plane[MOE_PLANE_ELEM])[ROW * K + 140] = bad_codes[i].code;
            right = right && wset_upload(&w, &op.op) == MOE_OK;
            op.w = w.wref;
            x = arena_normal(&host, rows, K, K, 1.0f);
            y = arena_new(&host, (uint64_t) rows * N * 4);
            op.x = buf_of(&x);
            op.y = buf_of(&y);
            op.work = arena_work(&host, &op.op, &w.weights);
            right = right
                    && host.ops->launch(host.stream, &op.op, &host.err)
                           == MOE_OK;
            for (t = 0; t < rows; t++)
                for (r = 0; r < N; r++)
                    right = right
                            && (r == ROW ? isnan(y.f[t * N + r])
                                : r >= bad_codes[i].first
                                        && r <= bad_codes[i].last
                                    ? 1
                                    : isfinite(y.f[t * N + r]));
            right = arena_free() && right;
            wset_free(&w);
        }
        ok(right, "%s: %s: code %02x makes its row NaN", isa, bad_codes[i].id,
           bad_codes[i].code);
    }
}

int
main(void)
{
    uint32_t i, s;

    for (i = 0; i < HOST_N_ISA; i++) {
        const char *isa = host_isas[i];

        if (host_init(&host, isa, 1) != MOE_OK) {
            tap_diag("%s: %s", isa, host.err.text);
            host_close(&host);
            continue;
        }
        host_close(&host);
        if (!ok(host_open(&host, isa, 2) == MOE_OK, "%s: opened", isa))
            return tap_done();
        for (s = 0; s < N_SPECS; s += (uint32_t) tap_every(5)) {
            if (!HOST_WANTS(&specs[s]))
                continue;
            /* the same cases, whichever others this machine can run */
            rng_state = 88172645463325252u + UINT64_C(0x9e3779b97f4a7c15) * s;
            test_gemm(&specs[s], 30);
            test_ffn(&specs[s], 18);
            test_embed(&specs[s], 6);
            ok(bad == 0, "%s: %s: tier %u, %u cases, each right", isa,
               specs[s].id, specs[s].tier, cases);
            ok(errors <= squares
                             * (specs[s].nmse_x1e9 != 0
                                    ? specs[s].nmse_x1e9 * 1e-9
                                    : specs[s].nmse),
               "%s: %s: nmse %.2g in all, %.2g in the worst case", isa,
               specs[s].id, errors / squares, worst);
            cases = bad = 0;
            worst = errors = squares = 0.0;
        }
        test_not_numbers(isa);
        ok(host_close(&host), "%s: nothing is left behind", isa);
    }
    return tap_done();
}
