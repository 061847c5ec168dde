/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ceiling.c - what the machine could do at best, measured.
 *
 * Owns the buffer and the clock.  The loops are kernels.c's, the threads the
 * engine's own.
 */
#include "bench/ceiling.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/engine.h"

#define MIB        ((uint64_t) 1 << 20)
#define BUFFER_MIN (64 * MIB)
#define BUFFER_MAX (2048 * MIB)
#define CHUNK      (2 * MIB)
#define PASSES_MAX 32u
#define ARITH_S    0.02 /* seconds of one pass of arithmetic */

struct moe_ceiling {
    struct moe_pool   *pool;
    struct moe_ledger *ledger;
    moe_grant         *grant;
    uint8_t           *buf;
    uint64_t           bytes;
    uint32_t           threads;
    struct moe_kernels k;
    moe_read_fn        best_read;
    int                best_int8;
    uint64_t           rounds; /* of arithmetic, with which a pass begins */
};

/* One job on the pool: chunks of the buffer, or a thread's arithmetic. */
struct job {
    const uint8_t *buf;
    moe_read_fn    read;
    moe_arith_fn   arith;
    uint64_t       chunk; /* bytes */
    uint64_t       rounds;
    uint64_t      *sink; /* (n); a store that the compiler must keep */
};

static int
by_size(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}

double
moe_median(double *v, uint32_t n)
{
    if (n == 0)
        return 0;
    qsort(v, n, sizeof(*v), by_size);
    return n % 2 != 0 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void
read_chunk(void *arg, uint32_t i)
{
    struct job *j = arg;

    j->sink[i] = j->read(j->buf + (uint64_t) i * j->chunk, j->chunk);
}

static void
compute(void *arg, uint32_t i)
{
    struct job *j = arg;

    j->sink[i] = j->arith(j->rounds);
}

/* Pages of the kind asked for, all touched by the threads that will read. */
static void
touch(void *arg, uint32_t i)
{
    struct job *j = arg;

    memset((uint8_t *) (uintptr_t) j->buf + (uint64_t) i * CHUNK, (int) i,
           CHUNK);
}

static moe_status
map_buffer(struct moe_ceiling *c, int huge, struct moe_error *err)
{
    struct job j = {0};

    if (c->buf != NULL)
        (void) munmap(c->buf, c->bytes + CHUNK);
    /* aligned by hand: CHUNK more than is used */
    c->buf = mmap(NULL, c->bytes + CHUNK, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (c->buf == MAP_FAILED) {
        c->buf = NULL;
        return moe_fail(err, MOE_E_NOMEM, errno,
                        "bench: the system refused %llu bytes: %s",
                        (unsigned long long) c->bytes, strerror(errno));
    }
    (void) madvise(c->buf, c->bytes + CHUNK,
                   huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    j.buf = (const uint8_t *) (((uintptr_t) c->buf + CHUNK - 1)
                               & ~(uintptr_t) (CHUNK - 1));
    moe_pool_run(c->pool, (uint32_t) (c->bytes / CHUNK), touch, &j);
    return MOE_OK;
}

moe_status
moe_ceiling_open(struct moe_pool *pool, struct moe_ledger *ledger,
                 struct moe_ceiling **out, struct moe_error *err)
{
    long                l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    uint64_t            want = 256 * MIB, least = BUFFER_MIN;
    struct moe_ceiling *c = calloc(1, sizeof(*c));
    moe_status          st = MOE_E_OVER_BUDGET;

    if (c == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "bench: no memory");
    c->pool = pool;
    c->ledger = ledger;
    c->threads = moe_pool_threads(pool);
    moe_kernels_pick(&c->k);
    c->best_read = c->k.read_streams;
    c->best_int8 = c->k.int8 != NULL;
    c->rounds = 1u << 14;
    if (l3 > 0 && (uint64_t) l3 * 4 > want)
        want = (uint64_t) l3 * 4 < BUFFER_MAX ? (uint64_t) l3 * 4
                                              : BUFFER_MAX;
    if (l3 > 0 && (uint64_t) l3 * 2 > least)
        least = (uint64_t) l3 * 2 < want ? (uint64_t) l3 * 2 : want;
    want = want / CHUNK * CHUNK;
    for (c->bytes = want; c->bytes >= least && st == MOE_E_OVER_BUDGET;) {
        st = moe_ledger_reserve(ledger, MOE_LEDGER_HOST, "bench",
                                c->bytes + CHUNK, &c->grant, err);
        if (st == MOE_E_OVER_BUDGET)
            c->bytes = c->bytes / 2 / CHUNK * CHUNK;
    }
    if (st == MOE_E_OVER_BUDGET)
        st = moe_fail(err, st, 0,
                      "bench: the memory budget leaves no room for %lluM to "
                      "measure the machine with; raise memory.budget, or "
                      "leave the machine out (--no-machine)",
                      (unsigned long long) (least / MIB));
    if (st == MOE_OK)
        st = map_buffer(c, 1, err);
    if (st != MOE_OK) {
        moe_ceiling_close(c);
        return st;
    }
    *out = c;
    return MOE_OK;
}

void
moe_ceiling_close(struct moe_ceiling *c)
{
    if (c == NULL)
        return;
    if (c->buf != NULL)
        (void) munmap(c->buf, c->bytes + CHUNK);
    if (c->grant != NULL)
        moe_ledger_release(c->ledger, c->grant);
    free(c);
}

/* Bytes a second of one pass over the first `bytes` of the buffer. */
static double
read_some(struct moe_ceiling *c, struct moe_pool *pool, moe_read_fn fn,
          uint64_t bytes)
{
    uint64_t   chunk = bytes < 16 * CHUNK ? bytes / 16 : CHUNK;
    uint32_t   n = (uint32_t) (bytes / chunk);
    uint64_t   sink[BUFFER_MAX / CHUNK];
    struct job j = {0};
    double     start;

    j.buf = (const uint8_t *) (((uintptr_t) c->buf + CHUNK - 1)
                               & ~(uintptr_t) (CHUNK - 1));
    j.read = fn;
    j.chunk = chunk;
    j.sink = sink;
    start = moe_now();
    moe_pool_run(pool, n, read_chunk, &j);
    __asm__ volatile("" : : "r"(sink) : "memory");
    return (double) bytes / (moe_now() - start);
}

static double
read_pass(struct moe_ceiling *c, moe_read_fn fn)
{
    return read_some(c, c->pool, fn, c->bytes);
}

double
moe_ceiling_evict(struct moe_ceiling *c, struct moe_pool *pool)
{
    uint64_t bytes = c->bytes / 4 / CHUNK * CHUNK;

    return read_some(c, pool, c->best_read,
                     bytes > 64 * MIB ? bytes : c->bytes);
}

void
moe_ceiling_sizes(struct moe_ceiling *c, double out[5])
{
    double   rate, best[5] = {0};
    uint64_t bytes;
    uint32_t i, k;

    for (k = 0; k < 9; k++)
        for (i = 0, bytes = MIB; i < 5 && bytes <= c->bytes;
             i++, bytes *= 4) {
            (void) read_some(c, c->pool, c->best_read, bytes); /* into the caches */
            rate = read_some(c, c->pool, c->best_read, bytes);
            if (rate > best[i])
                best[i] = rate;
        }
    for (i = 0; i < 5; i++)
        out[i] = best[i] > 0 ? 1 / best[i] : out[i - 1];
}

/* Operations a second of one pass; the rounds are chosen so that it takes
 * about ARITH_S. */
static double
arith_pass(struct moe_ceiling *c, moe_arith_fn fn, uint64_t ops)
{
    uint64_t   sink[1024];
    uint32_t   n = c->threads < 1024 ? c->threads : 1024;
    struct job j = {0};
    double     start, s;

    j.arith = fn;
    j.sink = sink;
    for (j.rounds = c->rounds;; j.rounds *= 2) {
        start = moe_now();
        moe_pool_run(c->pool, n, compute, &j);
        s = moe_now() - start;
        __asm__ volatile("" : : "r"(sink) : "memory");
        if (s >= ARITH_S)
            break;
    }
    c->rounds = j.rounds / 2;
    return (double) ops * (double) j.rounds * n / s;
}

static double
median_read(struct moe_ceiling *c, moe_read_fn fn, uint32_t passes)
{
    double   v[PASSES_MAX];
    uint32_t i;

    for (i = 0; i < passes; i++)
        v[i] = read_pass(c, fn);
    return moe_median(v, passes);
}

static double
median_arith(struct moe_ceiling *c, moe_arith_fn fn, uint64_t ops,
             uint32_t passes)
{
    double   v[PASSES_MAX];
    uint32_t i;

    for (i = 0; i < passes; i++)
        v[i] = arith_pass(c, fn, ops);
    return moe_median(v, passes);
}

void
moe_ceiling_measure(struct moe_ceiling *c, uint32_t passes,
                    struct moe_bench_machine *out)
{
    struct moe_bench_machine m;

    if (passes < 1)
        passes = 1;
    if (passes > PASSES_MAX)
        passes = PASSES_MAX;
    memset(&m, 0, sizeof(m));
    m.struct_size = sizeof(m);
    m.threads = c->threads;
    m.buffer_bytes = c->bytes;
    /* small pages first: the large ones then stay for moe_ceiling_now */
    if (map_buffer(c, 0, NULL) == MOE_OK) {
        m.read_4k = median_read(c, c->k.read, passes);
        m.read_4k_streams = median_read(c, c->k.read_streams, passes);
    }
    if (map_buffer(c, 1, NULL) == MOE_OK) {
        m.read_2m = median_read(c, c->k.read, passes);
        m.read_2m_streams = median_read(c, c->k.read_streams, passes);
    }
    c->best_read = m.read_2m > m.read_2m_streams ? c->k.read
                                                 : c->k.read_streams;
    m.f32_ops = median_arith(c, c->k.f32, c->k.f32_ops, passes);
    m.f32_by = c->k.f32_by;
    if (c->k.int8 != NULL)
        m.int8_ops = median_arith(c, c->k.int8, c->k.int8_ops, passes);
    m.int8_by = c->k.int8_by;
    c->best_int8 = m.int8_ops > m.f32_ops;
    *out = m;
}

void
moe_ceiling_now(struct moe_ceiling *c, double *read, double *arith)
{
    double a, b;

    *read = 0;
    if (c->buf != NULL) {
        a = read_pass(c, c->best_read);
        b = read_pass(c, c->best_read);
        *read = a > b ? a : b;
    }
    *arith = c->best_int8 ? arith_pass(c, c->k.int8, c->k.int8_ops)
                          : arith_pass(c, c->k.f32, c->k.f32_ops);
}
