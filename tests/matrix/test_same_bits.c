/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_same_bits.c - a row's bits are its own.
 *
 * Every operation is run on all rows at once and again row by row, group by
 * group, and with 1, 2 and 3 threads: not a bit may differ.
 */

#include "matrix/host.h"
#include "matrix/weights.h"

#define OP(type, code_)                                                       \
    {                                                                         \
        .struct_size = sizeof(struct type), .code = (code_)                   \
    }

static struct test_host host;

/* Launches op; a failure ends the test. */
static void
launch(const struct moe_op *op)
{
    if (host.ops->launch(host.stream, op, &host.err) != MOE_OK) {
        printf("Bail out! %s\n", host.err.text);
        exit(1);
    }
}

static struct buf
normal(uint64_t n)
{
    struct buf b = buf_new(&host, n * 4);

    fill_normal(b.f, n, 1.0f);
    return b;
}

static struct buf
work_for(const struct moe_op *op, const struct moe_weights *w)
{
    struct moe_plan plan = { .work_bytes = 0 };

    if (host.ops->query(host.dev, op, w, &plan, &host.err) != MOE_OK) {
        printf("Bail out! %s\n", host.err.text);
        exit(1);
    }
    return buf_new(&host, plan.work_bytes);
}

/* Results of the first round, by a number that each test counts up, so that
 * later rounds (other thread counts) can be held against them. */
#define KEPT_MAX 512
static struct {
    void    *p;
    uint64_t bytes;
} kept[KEPT_MAX];
static uint32_t kept_at, kept_n, differing;

static void
keep(const void *p, uint64_t bytes)
{
    if (kept_at == kept_n && kept_n < KEPT_MAX) {
        kept[kept_n].p = malloc(bytes + 1);
        memcpy(kept[kept_n].p, p, bytes);
        kept[kept_n++].bytes = bytes;
    } else if (kept[kept_at].bytes != bytes
               || memcmp(kept[kept_at].p, p, bytes) != 0) {
        differing++;
    }
    kept_at++;
}

/* --------------------------------------------------------------- products -- */

#if !defined(ROWS)
#    define ROWS    61u
#    define COLUMNS 200u
#endif

static int
gemm_is_same(const struct spec *s)
{
    struct moe_op_grouped_gemm op
        = { .op = OP(moe_op_grouped_gemm, MOE_OP_GROUPED_GEMM) };
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 2 };
    struct wset      w;
    struct buf       x, all, one, work;
    uint32_t         split, r, m;
    int              same = 1;

    shape.n[0] = 115;
    shape.n[1] = 36;
    shape.k[0] = shape.k[1] = up(COLUMNS, s->k_multiple);
    wset_make(&w, &host, s, &shape, 1);
    op.n_groups = 1;
    op.rows = ROWS;
    op.n = 151;
    op.k = (uint32_t) shape.k[0];
    op.n_parts = 2;
    op.dtype = MOE_F32;
    op.ldx = op.k;
    op.ldy = op.n;
    wset_upload(&w, &op.op);
    op.w = &w.wref[0];
    x = normal((uint64_t) ROWS * op.k);
    all = buf_new(&host, ROWS * op.n * 4);
    one = buf_new(&host, ROWS * op.n * 4);
    work = work_for(&op.op, &w.weights);
    op.work = buf_of(&work);
    op.x = buf_of(&x);
    op.y = buf_of(&all);
    launch(&op.op);
    keep(all.p, all.bytes);
    for (split = 1; split <= 13; split += split < 9 ? 1 : 4) {
        /* split: rows of a launch */
        memset(one.p, HOST_POISON, one.bytes);
        for (r = 0; r < ROWS; r += m) {
            m = ROWS - r < split ? ROWS - r : split;
            op.rows = m;
            op.x = buf_at(&x, (uint64_t) r * op.k * 4);
            op.y = buf_at(&one, (uint64_t) r * op.n * 4);
            launch(&op.op);
        }
        same &= memcmp(all.p, one.p, all.bytes) == 0;
    }
    buf_free(&x);
    buf_free(&all);
    buf_free(&one);
    buf_free(&work);
    wset_free(&w);
    return same;
}

/* All experts at once, in any subsets, and each pair alone. */
static int
ffn_is_same(const struct spec *s, uint32_t flags)
{
    enum { E = 5, K = 2 };
    struct moe_op_grouped_ffn op
        = { .op = OP(moe_op_grouped_ffn, MOE_OP_GROUPED_FFN) };
    const uint32_t   h = (uint32_t) up(70, s->k_multiple);
    const uint32_t   f = (uint32_t) up(90, s->k_multiple);
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 3,
                               .n = { f, f, h }, .k = { h, h, f } };
    struct wset      w;
    struct buf       x, all, one, work, perm, offsets, weights, p1, o1;
    struct moe_wref  refs[E];
    uint32_t         ids[E], e, i, at, mask;
    int              same = 1;

    wset_make(&w, &host, s, &shape, E);
    op.op.flags = flags;
    op.n_groups = E;
    op.rows = ROWS;
    op.k = K;
    op.h = h;
    op.f = f;
    op.act = MOE_ACT_SILU;
    op.dtype = MOE_F32;
    op.ldx = op.ldy = h;
    op.experts = ids;
    op.w = refs;
    wset_upload(&w, &op.op);
    x = normal((uint64_t) ROWS * h);
    weights = normal(ROWS * K);
    all = buf_new(&host, (uint64_t) ROWS * K * h * 4);
    one = buf_new(&host, (uint64_t) ROWS * K * h * 4);
    perm = buf_new(&host, ROWS * K * 4);
    offsets = buf_new(&host, (E + 1) * 4);
    p1 = buf_new(&host, ROWS * K * 4);
    o1 = buf_new(&host, (E + 1) * 4);
    for (e = 0, at = 0; e < E; e++) {
        offsets.u[e] = at;
        for (i = 0; i < ROWS * K; i++)
            if (i * i % 11 % E == e)
                perm.u[at++] = i;
    }
    offsets.u[E] = at;
    work = work_for(&op.op, &w.weights);
    op.work = buf_of(&work);
    op.x = buf_of(&x);
    op.weights = buf_of(&weights);
    op.perm = buf_of(&perm);
    op.offsets = buf_of(&offsets);
    op.y = buf_of(&all);
    for (e = 0; e < E; e++) {
        ids[e] = e;
        refs[e] = w.wref[e];
    }
    launch(&op.op);
    keep(all.p, all.bytes);
    /* the experts in two launches, last ones first */
    op.y = buf_of(&one);
    for (mask = 1; mask < 1u << E; mask += 6) {
        uint32_t half;

        memset(one.p, HOST_POISON, one.bytes);
        for (half = 0; half < 2; half++) {
            op.n_groups = 0;
            for (e = E; e-- > 0;)
                if ((mask >> e & 1u) == half) {
                    ids[op.n_groups] = e;
                    refs[op.n_groups++] = w.wref[e];
                }
            if (op.n_groups != 0)
                launch(&op.op);
        }
        same &= memcmp(all.p, one.p, all.bytes) == 0;
    }
    /* each pair alone */
    memset(one.p, HOST_POISON, one.bytes);
    op.perm = buf_of(&p1);
    op.offsets = buf_of(&o1);
    op.n_groups = 1;
    for (e = 0; e < E; e++)
        for (i = offsets.u[e]; i < offsets.u[e + 1]; i++) {
            p1.u[0] = perm.u[i];
            o1.u[0] = 0;
            o1.u[1] = 1;
            ids[0] = 0;
            refs[0] = w.wref[e];
            launch(&op.op);
        }
    same &= memcmp(all.p, one.p, all.bytes) == 0;
    buf_free(&x);
    buf_free(&weights);
    buf_free(&all);
    buf_free(&one);
    buf_free(&perm);
    buf_free(&offsets);
    buf_free(&p1);
    buf_free(&o1);
    buf_free(&work);
    wset_free(&w);
    return same;
}

/* -------------------------------------------------------------- attention -- */

/* A sequence in other pages, of another size, beside other sequences. */
static int
attention_is_same(uint32_t dtype, uint32_t heads, uint32_t kv_heads)
{
    enum { CTX = 77, DIM = 40 };
    static const uint32_t page_rows[] = { 1, 4, 16, 64, 100 };
    struct moe_op_attention op
        = { .op = OP(moe_op_attention, MOE_OP_ATTENTION) };
    const uint32_t es = moe_dtype_size(dtype);
    struct buf     q, k, v, first = { 0 };
    uint32_t       i, j, p, h;
    int            same = 1;

    q = normal(CTX * heads * DIM);
    k = normal(CTX * kv_heads * DIM); /* (position, head, dim) */
    v = normal(CTX * kv_heads * DIM);
    op.kv.struct_size = sizeof(op.kv);
    op.kv.dtype = dtype;
    op.kv.kv_heads = kv_heads;
    op.kv.k_dim = op.kv.v_dim = DIM;
    op.heads = heads;
    op.dtype = MOE_F32;
    op.n_seqs = 2;
    op.scale = 0.3f;
    op.ldq = op.ldy = heads * DIM;
    for (i = 0; i < 5; i++) {
        const uint32_t pr = page_rows[i];
        const uint32_t pages = (CTX + pr - 1) / pr;
        struct buf     kc = buf_new(&host, (pages + 3) * pr * kv_heads * DIM
                                               * es);
        struct buf     vc = buf_new(&host, (pages + 3) * pr * kv_heads * DIM
                                               * es);
        struct buf     table = buf_new(&host, pages * 2 * 4);
        struct buf     seqs = buf_new(&host, CTX * 4);
        struct buf     pos = buf_new(&host, CTX * 4);
        struct buf     y = buf_new(&host, CTX * heads * DIM * 4), work;
        uint32_t       batch;

        for (j = 0; j < pages; j++) {
            table.u[j] = 0;                               /* sequence 0 */
            table.u[pages + j] = (pages - 1 - j + i) % (pages + 2);
        }
        for (p = 0; p < CTX; p++) {
            seqs.u[p] = 1;
            pos.u[p] = p;
            for (h = 0; h < kv_heads; h++)
                for (j = 0; j < DIM; j++) {
                    const uint64_t at
                        = (((uint64_t) table.u[pages + p / pr] * kv_heads + h)
                               * pr
                           + p % pr)
                              * DIM
                          + j;
                    const uint64_t from = (p * kv_heads + h) * DIM + j;

                    moe_ref_put(kc.p, dtype, at, (double) k.f[from]);
                    moe_ref_put(vc.p, dtype, at, (double) v.f[from]);
                }
        }
        op.kv.page_rows = pr;
        op.kv.k = buf_of(&kc);
        op.kv.v = buf_of(&vc);
        op.pages = buf_of(&table);
        op.max_pages = pages;
        op.max_context = CTX + i * 100;
        op.rows = CTX;
        work = work_for(&op.op, NULL);
        op.work = buf_of(&work);
        for (batch = CTX; batch > 0; batch = batch == CTX ? 9 : batch / 3) {
            for (p = 0; p < CTX; p += batch) {
                op.rows = CTX - p < batch ? CTX - p : batch;
                op.q = buf_at(&q, (uint64_t) p * op.ldq * 4);
                op.y = buf_at(&y, (uint64_t) p * op.ldy * 4);
                op.seqs = buf_at(&seqs, p * 4);
                op.positions = buf_at(&pos, p * 4);
                launch(&op.op);
            }
            if (first.mem == NULL) {
                first = buf_new(&host, y.bytes);
                memcpy(first.p, y.p, y.bytes);
                keep(y.p, y.bytes);
            }
            same &= memcmp(first.p, y.p, y.bytes) == 0;
        }
        buf_free(&kc);
        buf_free(&vc);
        buf_free(&table);
        buf_free(&seqs);
        buf_free(&pos);
        buf_free(&y);
        buf_free(&work);
    }
    buf_free(&first);
    buf_free(&q);
    buf_free(&k);
    buf_free(&v);
    return same;
}

/* ------------------------------------------------------------------ others -- */

static int
route_is_same(void)
{
    enum { E = 40, K = 5 };
    struct moe_op_route op = { .op = OP(moe_op_route, MOE_OP_ROUTE) };
    struct buf logits = normal(ROWS * E), ids = buf_new(&host, ROWS * K * 4);
    struct buf weights = buf_new(&host, ROWS * K * 4);
    struct buf offsets = buf_new(&host, (E + 1) * 4);
    struct buf perm = buf_new(&host, ROWS * K * 4);
    struct buf i1 = buf_new(&host, K * 4), w1 = buf_new(&host, K * 4);
    uint32_t   r;
    int        same = 1;

    op.rows = ROWS;
    op.n_experts = E;
    op.k = K;
    op.score = MOE_SCORE_SOFTMAX;
    op.n_group = 1;
    op.scale = 1.0f;
    op.ld = E;
    op.logits = buf_of(&logits);
    op.ids = buf_of(&ids);
    op.weights = buf_of(&weights);
    op.offsets = buf_of(&offsets);
    op.perm = buf_of(&perm);
    launch(&op.op);
    keep(weights.p, weights.bytes);
    keep(perm.p, perm.bytes);
    op.rows = 1;
    op.ids = buf_of(&i1);
    op.weights = buf_of(&w1);
    for (r = 0; r < ROWS; r++) {
        op.logits = buf_at(&logits, r * E * 4);
        launch(&op.op);
        same &= memcmp(i1.p, ids.u + r * K, K * 4) == 0
                && memcmp(w1.p, weights.u + r * K, K * 4) == 0;
    }
    buf_free(&logits);
    buf_free(&ids);
    buf_free(&weights);
    buf_free(&offsets);
    buf_free(&perm);
    buf_free(&i1);
    buf_free(&w1);
    return same;
}

static void
run_all(const char *isa, uint32_t threads)
{
    uint32_t s, d;

    kept_at = 0;
    differing = 0;
    rng_state = 88172645463325252u;
    for (s = 0; s < N_SPECS; s += (uint32_t) tap_every(5)) {
        if (!HOST_WANTS(&specs[s]))
            continue;
        ok(gemm_is_same(&specs[s]) & ffn_is_same(&specs[s], 0)
               & ffn_is_same(&specs[s], MOE_FFN_SCALE_INPUT),
           "%s, %u threads: %s: rows alone, in any batch, in any launch", isa,
           threads, specs[s].id);
    }
    for (d = MOE_F32; HOST_ALL && d <= MOE_BF16; d++)
        ok(attention_is_same(d, 3, 3) & attention_is_same(d, 12, 2)
               & attention_is_same(d, 14, 2),
           "%s, %u threads: attention over a cache of type %u: any pages", isa,
           threads, d);
    ok(!HOST_ALL || route_is_same(), "%s, %u threads: routing", isa, threads);
    is_int(differing, 0, "%s: the bits of 1 thread", isa);
}

int
main(void)
{
    uint32_t i, threads;

    for (i = 0; i < HOST_N_ISA; i++) {
        const char *isa = host_isas[i];

        for (threads = 1; threads <= (HOST_ALL ? 3u : 2u); threads++) {
            if (host_init(&host, isa, 1) != MOE_OK) {
                host_close(&host);
                break;
            }
            host_close(&host);
            if (!ok(host_open(&host, isa, threads) == MOE_OK,
                    "%s: opened with %u threads", isa, threads))
                return tap_done();
            if (strcmp(isa, "amx") == 0) {
                struct moe_device_info info;

                host.ops->device_info(host.self, 0, &info);
                ok(strstr(info.name, "amx") != NULL,
                   "tiles are in use: %s", info.name);
            }
            run_all(isa, threads);
            ok(host_close(&host), "%s: nothing is left behind", isa);
        }
        while (kept_n > 0)
            free(kept[--kept_n].p);
    }
    return tap_done();
}
