/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_kernels.c - how fast the CPU backend reads weights and multiplies.
 *
 * Not a test.  Prints the read bandwidth of this machine, measured in this
 * process with the same threads, and beside it the bytes of weights that a
 * product with 1, 2, 3, 4, 8, 24 and 128 rows reads in a second; then
 * feed-forward and attention, packing, and the time of the smallest
 * operations.  With one thread, time is the processor's, so that a busy
 * machine disturbs less.
 *
 *   MOE_TEST_BUILDDIR=. bench_kernels [isa [threads [MB [format]]]]
 *
 * isa auto, 2 threads, 256 MB of weights, all formats.
 */

#include <time.h>

#include <sys/mman.h>

#include "matrix/host.h"
#include "matrix/weights.h"

#define OP(type, code_)                                                       \
    {                                                                         \
        .struct_size = sizeof(struct type), .code = (code_)                   \
    }

static struct test_host host;

static double
now(void)
{
    struct timespec t;

    clock_gettime(host.threads == 1 ? CLOCK_PROCESS_CPUTIME_ID
                                    : CLOCK_MONOTONIC,
                  &t);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

/* -------------------------------------------------------- read bandwidth -- */

#define STREAMS 4u
#define PROBES  9

typedef uint64_t u64x4 __attribute__((__vector_size__(32)));

static struct {
    const uint8_t *p;
    uint64_t       bytes;
    uint32_t       threads;
    uint64_t       sum[64];
} rd;

/* As the kernels read: four streams at once, fetched 4 KB ahead. */
static void
read_part(void *arg, uint32_t i)
{
    const uint64_t run = rd.bytes / rd.threads / STREAMS / 4096 * 4096;
    const uint8_t *p = rd.p + i * STREAMS * run;
    u64x4          s[STREAMS] = { { 0 } }, a, b;
    uint64_t       at;
    uint32_t       j;

    (void) arg;
    for (at = 0; at < run; at += 64)
        for (j = 0; j < STREAMS; j++) {
            memcpy(&a, p + j * run + at, sizeof(a));
            memcpy(&b, p + j * run + at + 32, sizeof(b));
            __builtin_prefetch(p + j * run + at + 4096);
            s[j] += a ^ b;
        }
    s[0] += s[1] + s[2] + s[3];
    rd.sum[i] = s[0][0] + s[0][1] + s[0][2] + s[0][3];
}

/* GB/s, the median; bytes far above the caches. */
static double
read_bandwidth(uint32_t threads, int huge)
{
    const uint64_t bytes = UINT64_C(512) << 20, page = UINT64_C(2) << 20;
    double         t[PROBES], x;
    uint8_t       *p;
    int            i, j;

    p = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return 0.0;
    madvise(p, bytes + page, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(p, 1, bytes + page);
    rd.p = (const uint8_t *) (((uintptr_t) p + page - 1) / page * page);
    rd.bytes = bytes;
    rd.threads = threads;
    for (i = 0; i < PROBES; i++) {
        x = now();
        if (threads == 1)
            read_part(NULL, 0);
        else
            host_parallel(&host, threads, read_part, NULL);
        x = now() - x;
        for (j = i; j > 0 && t[j - 1] > x; j--)
            t[j] = t[j - 1];
        t[j] = x;
    }
    munmap(p, bytes + page);
    return (double) bytes / t[PROBES / 2] * 1e-9;
}

/* --------------------------------------------------------------- products -- */

static struct buf
normal(uint64_t n)
{
    struct buf b = buf_new(&host, n * 4);
    uint64_t   i;

    for (i = 0; i < n; i++)
        b.f[i] = (float) (int32_t) rng() * 1e-9f;
    return b;
}

static void
launch(const struct moe_op *op)
{
    if (host.ops->launch(host.stream, op, &host.err) != MOE_OK) {
        printf("Bail out! %s\n", host.err.text);
        exit(1);
    }
}

/* Seconds of one op, the best of some. */
static double
best_of(const struct moe_op *op, double least)
{
    double best = 1e9, t, start = now();
    int    i;

    for (i = 0; i < 5 || now() - start < least; i++) {
        t = now();
        launch(op);
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

/* Median of at least 15. */
static double
median_of(const struct moe_op *op)
{
    double t[101], start = now(), x;
    int    n, i, j;

    for (n = 0; n < 101 && (n < 15 || now() - start < 0.5); n++) {
        t[n] = now();
        launch(op);
        t[n] = now() - t[n];
        for (i = n; i > 0 && t[i - 1] > t[i]; i--) {
            x = t[i];
            t[i] = t[i - 1];
            t[i - 1] = x;
        }
    }
    j = n / 2;
    return t[j];
}

/* Random weights of the spec without a reference: too large for one. */
static void
big_weights(struct wset *w, const struct spec *s, uint64_t n, uint64_t k)
{
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 1,
                               .n = { n }, .k = { k } };

    wset_make(w, &host, s, &shape, 0);
    w->slots = 1;
    w->tensor[0][0] = wset_tensor(w, 0);
}

static void
bench_gemm(const struct spec *s, double mb, double read)
{
    static const uint32_t rows[] = { 1, 2, 3, 4, 8, 24, 128 };
    const uint64_t k = 2048;
    const uint64_t n = up((uint64_t) (mb * 1048576.0) * 8 / s->bits / k, 16);
    struct moe_op_grouped_gemm op
        = { .op = OP(moe_op_grouped_gemm, MOE_OP_GROUPED_GEMM),
            .n_groups = 1, .n = (uint32_t) n, .k = (uint32_t) k, .n_parts = 1,
            .dtype = MOE_F32, .ldx = k, .ldy = n, .rows = 128 };
    struct moe_weight_src src = { .struct_size = sizeof(src) };
    struct wset w;
    struct buf  x, y, work;
    double      t, m;
    uint32_t    i;

    big_weights(&w, s, n, k);
    if (wset_upload(&w, &op.op) != MOE_OK)
        return;
    src.part[0] = &w.tensor[0][0];
    t = now(); /* again: memory is there, as for a slot that is reused */
    host.ops->slot_upload(host.stream, w.slab, 0, &src, &host.err);
    t = now() - t;
    printf("%-18s", s->id);
    x = normal(128 * k);
    y = buf_new(&host, 128 * n * 4);
    work = buf_new(&host, w.plan.work_bytes);
    op.w = &w.wref[0];
    op.x = buf_of(&x);
    op.y = buf_of(&y);
    op.work = buf_of(&work);
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        op.rows = rows[i];
        if (i == 0) {
            const double b = best_of(&op.op, 0.3);

            m = median_of(&op.op);
            printf(" %6.2f %6.2f (%3.0f %%)", w.plan.slot_bytes / b * 1e-9,
                   w.plan.slot_bytes / m * 1e-9,
                   100.0 * w.plan.slot_bytes / m * 1e-9 / read);
        } else {
            m = best_of(&op.op, 0.0);
            printf("  %6.2f/%5.1f", w.plan.slot_bytes / m * 1e-9,
                   2.0 * rows[i] * (double) n * (double) k / m * 1e-9);
        }
        fflush(stdout);
    }
    printf("   pack %5.2f\n", w.plan.slot_bytes / t * 1e-9);
    buf_free(&x);
    buf_free(&y);
    buf_free(&work);
    wset_free(&w);
}

/* ------------------------------------------------------------ a small model -- */

/* One layer's worth of operations of a small model, one row: microseconds. */
static void
bench_small(const struct spec *s)
{
    enum { H = 256, F = 512, E = 8, K = 2, V = 4096 };
    struct moe_shape es = { .struct_size = sizeof(es), .n_parts = 3,
                            .n = { F, F, H }, .k = { H, H, F } };
    struct moe_shape qs = { .struct_size = sizeof(qs), .n_parts = 1,
                            .n = { 512 }, .k = { H } };
    struct moe_shape vs = { .struct_size = sizeof(vs), .n_parts = 1,
                            .n = { V }, .k = { H } };
    struct moe_op_grouped_ffn f
        = { .op = OP(moe_op_grouped_ffn, MOE_OP_GROUPED_FFN), .n_groups = K,
            .rows = 1, .k = K, .h = H, .f = F, .act = MOE_ACT_SILU,
            .dtype = MOE_F32, .ldx = H, .ldy = H };
    struct moe_op_grouped_gemm g
        = { .op = OP(moe_op_grouped_gemm, MOE_OP_GROUPED_GEMM),
            .n_groups = 1, .rows = 1, .n = 512, .k = H, .n_parts = 1,
            .dtype = MOE_F32, .ldx = H, .ldy = 512 };
    struct moe_op_norm n = { .op = OP(moe_op_norm, MOE_OP_NORM), .rows = 1,
                             .n = H, .kind = MOE_NORM_RMS, .dtype = MOE_F32,
                             .ldx = H, .ldy = H };
    uint32_t        ids[K] = { 0, 1 };
    struct wset     we, wq, wv;
    struct buf      x = normal(V), y = buf_new(&host, V * 4 * 4);
    struct buf      perm = buf_new(&host, 64), off = buf_new(&host, 64);
    struct buf      work = buf_new(&host, 1 << 20);
    double          t[4];

    wset_make(&we, &host, s, &es, K);
    wset_make(&wq, &host, s, &qs, 1);
    wset_make(&wv, &host, s, &vs, 1);
    wset_upload(&we, &f.op);
    wset_upload(&wq, &g.op);
    f.experts = ids;
    f.w = we.wref;
    perm.u[0] = 0;
    perm.u[1] = 1;
    memcpy(off.u, (uint32_t[]){ 0, 1, 2 }, 12);
    f.perm = buf_of(&perm);
    f.offsets = buf_of(&off);
    f.x = g.x = n.x = buf_of(&x);
    f.y = g.y = n.y = buf_of(&y);
    f.work = g.work = buf_of(&work);
    g.w = wq.wref;
    t[0] = median_of(&f.op);
    t[1] = median_of(&g.op);
    t[2] = median_of(&n.op);
    g.n = V;
    g.ldy = V;
    wset_upload(&wv, &g.op);
    g.w = wv.wref;
    t[3] = median_of(&g.op);
    printf("%-18s ffn of %d experts %6.1f us (%.1f GB/s), 512 x 256 product "
           "%5.1f us, norm %4.1f us, 4096 x 256 head %6.1f us (%.1f GB/s)\n",
           s->id, K, t[0] * 1e6, K * we.plan.slot_bytes / t[0] * 1e-9,
           t[1] * 1e6, t[2] * 1e6, t[3] * 1e6,
           wv.plan.slot_bytes / t[3] * 1e-9);
    buf_free(&x);
    buf_free(&y);
    buf_free(&perm);
    buf_free(&off);
    buf_free(&work);
    wset_free(&we);
    wset_free(&wq);
    wset_free(&wv);
}

static void
bench_attention(uint32_t dtype)
{
    enum { CTX = 2048, DIM = 64, HEADS = 16, KV = 4, PAGE = 16 };
    struct moe_op_attention op
        = { .op = OP(moe_op_attention, MOE_OP_ATTENTION) };
    const uint64_t  bytes = (uint64_t) CTX * KV * DIM * moe_dtype_size(dtype);
    struct buf      k = buf_new(&host, bytes), v = buf_new(&host, bytes);
    struct buf      q = normal(256 * HEADS * DIM);
    struct buf      y = buf_new(&host, 256 * HEADS * DIM * 4);
    struct buf      pages = buf_new(&host, CTX / PAGE * 4);
    struct buf      seqs = buf_new(&host, 1024), pos = buf_new(&host, 1024);
    struct buf      work;
    struct moe_plan plan;
    uint32_t        i;
    double          one, many;

    memset(k.p, 0, bytes);
    memset(v.p, 0, bytes);
    for (i = 0; i < CTX / PAGE; i++)
        pages.u[i] = CTX / PAGE - 1 - i;
    for (i = 0; i < 256; i++) {
        seqs.u[i] = 0;
        pos.u[i] = CTX - 256 + i;
    }
    op.rows = 256;
    op.heads = HEADS;
    op.dtype = MOE_F32;
    op.n_seqs = 1;
    op.max_pages = CTX / PAGE;
    op.max_context = CTX;
    op.scale = 0.1f;
    op.kv = (struct moe_kv){ .struct_size = sizeof(op.kv), .dtype = dtype,
                             .page_rows = PAGE, .kv_heads = KV, .k_dim = DIM,
                             .v_dim = DIM, .k = buf_of(&k), .v = buf_of(&v) };
    op.ldq = op.ldy = HEADS * DIM;
    op.q = buf_of(&q);
    op.y = buf_of(&y);
    op.seqs = buf_of(&seqs);
    op.positions = buf_of(&pos);
    op.pages = buf_of(&pages);
    host.ops->query(host.dev, &op.op, NULL, &plan, &host.err);
    work = buf_new(&host, plan.work_bytes);
    op.work = buf_of(&work);
    many = best_of(&op.op, 0.3);
    op.rows = 1;
    one = best_of(&op.op, 0.1);
    printf("attention, cache %u: 1 row at 2048: %7.1f us (%.1f GB/s of cache); "
           "256 rows: %6.2f ms (%.1f GFLOP/s)\n",
           dtype, one * 1e6, 2 * bytes / one * 1e-9, many * 1e3,
           4.0 * HEADS * DIM * 256 * (CTX - 128) / many * 1e-9);
    buf_free(&k);
    buf_free(&v);
    buf_free(&q);
    buf_free(&y);
    buf_free(&pages);
    buf_free(&seqs);
    buf_free(&pos);
    buf_free(&work);
}

int
main(int argc, char **argv)
{
    const char    *isa = argc > 1 ? argv[1] : "auto";
    const uint32_t threads = argc > 2 ? (uint32_t) atoi(argv[2]) : 2;
    const double   mb = argc > 3 ? atof(argv[3]) : 256;
    struct moe_device_info info;
    double   read;
    uint32_t s, pages;

    if (host_open(&host, isa, threads) != MOE_OK)
        return 1;
    host.ops->device_info(host.self, 0, &info);
    printf("%s, %u threads\n", info.name, threads);
    for (pages = 0; pages < 2; pages++)
        printf("read bandwidth, %s pages: %.2f GB/s\n",
               pages ? "2 MB" : "4 KB",
               read = read_bandwidth(threads, (int) pages));
    printf("%-18s 1 row: best, median GB/s (median of read); 2, 3, 4, 8, 24, "
           "128 rows: GB/s of weights / GFLOP/s; packing GB/s\n",
           "format");
    for (s = 0; s < N_SPECS; s++)
        if (argc <= 4 || strstr(specs[s].id, argv[4]) != NULL)
            bench_gemm(&specs[s],
                       specs[s].tier == MOE_TIER_GENERIC ? mb / 16 : mb,
                       read);
    for (s = 0; s < N_SPECS; s++)
        if (strcmp(specs[s].id, "f16") == 0
            || strcmp(specs[s].id, "fp8-e4m3-block") == 0
            || strcmp(specs[s].id, "int4-g32") == 0)
            bench_small(&specs[s]);
    bench_attention(MOE_F32);
    bench_attention(MOE_F16);
    host_close(&host);
    return 0;
}
