/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.h - a host for one backend under test.
 *
 * Opens a plugin from the build folder as the core would and gives it memory
 * that is counted, a ledger that can refuse, and n threads.  Buffers have
 * guard bytes behind them and are filled with NaN.  One per process at a
 * time; not installed.
 */
#ifndef MOE_TESTS_MATRIX_HOST_H
#define MOE_TESTS_MATRIX_HOST_H

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include <dlfcn.h>

#include <moe/ops.h>
#include <moe/plugin.h>

#include "tap.h"

/* A test may be compiled a second time for another build of the backend. */
#if !defined(HOST_PLUGIN)
#    define HOST_PLUGIN "plugins/backend/cpu/.libs/cpu.so"
#    define HOST_ISAS                                                         \
        "amx", "avx512vnni", "avx512", "avxvnni", "avx2", "portable"
#    define HOST_ALL         1 /* not only the products of these formats: */
#    define HOST_WANTS(spec) 1
#else
#    define HOST_ALL         0
#    define HOST_WANTS(spec) ((spec)->nmse_x1e9 != 0) /* of integers */
#endif

#define HOST_THREADS_MAX 8
#define HOST_GUARD       64u
#define HOST_POISON      0xffu /* as floats: NaN */

struct moe_grant {
    uint64_t bytes;
};

struct pool_job {
    void (*fn)(void *arg, uint32_t i);
    void       *arg;
    uint32_t    n;
    atomic_uint next, left;
};

struct test_host {
    struct moe_host host;
    const char     *isa; /* the INI's isa, or NULL */

    /* the ledger and the heap */
    atomic_ullong reserved, peak, budget;
    atomic_llong  grants, blocks;
    atomic_llong  fail_in; /* the n-th reserve or alloc from now fails; <0 off */
    atomic_int    warnings;

    /* the pool: workers wait for a job of a higher number */
    uint32_t        threads, used;
    pthread_t       thread[HOST_THREADS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t  wake, done;
    struct pool_job *job;
    uint64_t        round;
    uint32_t        busy;
    int             stop;

    /* the plugin */
    void                          *so;
    const struct moe_plugin       *plugin;
    const struct moe_backend_ops  *ops;
    void                          *self;
    moe_device                    *dev;
    moe_stream                    *stream;
    struct moe_error               err;
};

/* ------------------------------------------------------------- services -- */

static int
host_fails(struct test_host *t)
{
    long long n = atomic_load(&t->fail_in);

    if (n < 0)
        return 0;
    return atomic_fetch_sub(&t->fail_in, 1) == 0;
}

static void
host_log(void *ctx, uint32_t level, const char *line)
{
    struct test_host *t = ctx;

    if (level <= MOE_LOG_WARN) {
        atomic_fetch_add(&t->warnings, 1);
        printf("# log %u: %s\n", level, line);
    }
}

static const char *
host_config(void *ctx, const char *key)
{
    struct test_host *t = ctx;

    return strcmp(key, "isa") == 0 ? t->isa : NULL;
}

static void *
host_alloc(void *ctx, uint64_t bytes, uint64_t align)
{
    struct test_host *t = ctx;
    void             *p = NULL;

    if (host_fails(t)
        || posix_memalign(&p, align < 16 ? 16 : align, bytes) != 0)
        return NULL;
    atomic_fetch_add(&t->blocks, 1);
    memset(p, 0xa5, bytes);
    return p;
}

static void
host_free(void *ctx, void *p)
{
    struct test_host *t = ctx;

    if (p == NULL)
        return;
    atomic_fetch_sub(&t->blocks, 1);
    free(p);
}

static moe_status
host_reserve(void *ctx, const char *domain, uint64_t bytes, const char *what,
             moe_grant **out)
{
    struct test_host *t = ctx;
    unsigned long long now;

    (void) what;
    if (strcmp(domain, "host") != 0)
        return MOE_E_INVAL;
    if (host_fails(t))
        return MOE_E_OVER_BUDGET;
    now = atomic_fetch_add(&t->reserved, bytes) + bytes;
    if (now > atomic_load(&t->budget)) {
        atomic_fetch_sub(&t->reserved, bytes);
        return MOE_E_OVER_BUDGET;
    }
    if (now > atomic_load(&t->peak))
        atomic_store(&t->peak, now);
    *out = malloc(sizeof(**out));
    (*out)->bytes = bytes;
    atomic_fetch_add(&t->grants, 1);
    return MOE_OK;
}

static void
host_release(void *ctx, moe_grant *g)
{
    struct test_host *t = ctx;

    atomic_fetch_sub(&t->reserved, g->bytes);
    atomic_fetch_sub(&t->grants, 1);
    free(g);
}

/* ----------------------------------------------------------------- pool -- */

static void
pool_work(struct pool_job *j)
{
    uint32_t i;

    while ((i = atomic_fetch_add(&j->next, 1)) < j->n)
        j->fn(j->arg, i);
}

static void *
pool_main(void *arg)
{
    struct test_host *t = arg;
    uint64_t          seen = 0;

    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->stop && t->round == seen)
            pthread_cond_wait(&t->wake, &t->lock);
        if (t->stop)
            break;
        seen = t->round;
        pthread_mutex_unlock(&t->lock);
        pool_work(t->job);
        pthread_mutex_lock(&t->lock);
        if (--t->busy == 0)
            pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void
host_parallel(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
              void *arg)
{
    struct test_host *t = ctx;
    struct pool_job   j = { .fn = fn, .arg = arg, .n = n };

    atomic_init(&j.next, 0);
    if (t->threads > 1) {
        pthread_mutex_lock(&t->lock);
        t->job = &j;
        t->busy = t->threads - 1;
        t->round++;
        pthread_cond_broadcast(&t->wake);
        pthread_mutex_unlock(&t->lock);
    }
    pool_work(&j);
    if (t->threads > 1) {
        pthread_mutex_lock(&t->lock);
        while (t->busy != 0)
            pthread_cond_wait(&t->done, &t->lock);
        pthread_mutex_unlock(&t->lock);
    }
}

static uint32_t
host_workers(void *ctx)
{
    return ((struct test_host *) ctx)->threads;
}

/* ---------------------------------------------------------- open, close -- */

static const char *
host_path(const char *rel)
{
    static char buf[1024];
    const char *top = getenv("MOE_TEST_BUILDDIR");

    snprintf(buf, sizeof(buf), "%s/%s", top != NULL ? top : ".", rel);
    return buf;
}

/* Everything up to init(); isa as in the INI file, or NULL. */
static moe_status
host_init(struct test_host *t, const char *isa, uint32_t threads)
{
    moe_status st;
    uint32_t   i;

    memset(t, 0, sizeof(*t));
    t->err.struct_size = sizeof(t->err);
    t->isa = isa;
    t->threads = threads;
    atomic_init(&t->budget, UINT64_C(1) << 40);
    atomic_init(&t->fail_in, -1);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    pthread_cond_init(&t->done, NULL);
    for (i = 1; i < threads; i++)
        pthread_create(&t->thread[i], NULL, pool_main, t);
    t->host = (struct moe_host){
        .struct_size = sizeof(struct moe_host),
        .abi = MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR),
        .ctx = t,
        .log = host_log,
        .config = host_config,
        .alloc = host_alloc,
        .free = host_free,
        .reserve = host_reserve,
        .release = host_release,
        .parallel = host_parallel,
        .workers = host_workers,
    };
    t->so = dlopen(host_path(HOST_PLUGIN),
                   RTLD_NOW | RTLD_LOCAL);
    if (t->so == NULL) {
        printf("# %s\n", dlerror());
        return MOE_E_NOT_FOUND;
    }
    t->plugin = dlsym(t->so, "moe_plugin");
    if (t->plugin == NULL)
        return MOE_E_ABI;
    t->ops = t->plugin->ops;
    st = t->plugin->init(&t->host, &t->self, &t->err);
    if (st != MOE_OK)
        t->self = NULL;
    return st;
}

static moe_status
host_open(struct test_host *t, const char *isa, uint32_t threads)
{
    moe_status st = host_init(t, isa, threads);

    if (st == MOE_OK)
        st = t->ops->device_open(t->self, 0, &t->dev, &t->err);
    if (st == MOE_OK)
        st = t->ops->stream_create(t->dev, 0, &t->stream, &t->err);
    if (st != MOE_OK)
        printf("# open: %d: %s\n", st, t->err.text);
    return st;
}

/* The ledger and the heap are as before. */
static int
host_is_clean(struct test_host *t)
{
    return atomic_load(&t->reserved) == 0 && atomic_load(&t->grants) == 0
           && atomic_load(&t->blocks) == 0;
}

/* True if nothing was left behind. */
static int
host_close(struct test_host *t)
{
    uint32_t i;

    if (t->stream != NULL)
        t->ops->stream_destroy(t->stream);
    if (t->dev != NULL)
        t->ops->device_close(t->dev);
    if (t->self != NULL)
        t->plugin->fini(t->self);
    pthread_mutex_lock(&t->lock);
    t->stop = 1;
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (i = 1; i < t->threads; i++)
        pthread_join(t->thread[i], NULL);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->wake);
    pthread_cond_destroy(&t->done);
    return host_is_clean(t);
}

/* --------------------------------------------------------------- buffers -- */

struct buf {
    struct test_host *t;
    moe_mem          *mem;
    uint64_t          bytes; /* without the guard */
    union {
        void     *p;
        float    *f;
        uint32_t *u;
        uint8_t  *b;
    };
};

/* bytes, all poison. */
static struct buf
buf_new(struct test_host *t, uint64_t bytes)
{
    struct buf b = { .t = t, .bytes = bytes };

    if (t->ops->mem_alloc(t->dev, bytes + HOST_GUARD, MOE_USE_ACT, &b.mem,
                          &t->err)
        != MOE_OK) {
        printf("Bail out! %s\n", t->err.text);
        exit(1);
    }
    b.p = t->ops->mem_host_ptr(b.mem);
    memset(b.p, HOST_POISON, bytes + HOST_GUARD);
    return b;
}

static struct moe_buf
buf_of(const struct buf *b)
{
    return (struct moe_buf){ b->mem, 0 };
}

static struct moe_buf
buf_at(const struct buf *b, uint64_t off)
{
    return (struct moe_buf){ b->mem, off };
}

/* True if the guard is whole; frees the buffer. */
static int
buf_free(struct buf *b)
{
    uint64_t i;
    int      whole = 1;

    for (i = 0; i < HOST_GUARD; i++)
        whole &= b->b[b->bytes + i] == HOST_POISON;
    b->t->ops->mem_free(b->mem);
    memset(b, 0, sizeof(*b));
    return whole;
}

/* ------------------------------------------------------------- numbers --- */

static uint64_t rng_state = 88172645463325252u;

static uint32_t
rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t) (rng_state >> 32);
}

/* About normal, mean 0, deviation 1. */
static float
rng_normal(void)
{
    double s = 0.0;
    int    i;

    for (i = 0; i < 12; i++)
        s += rng() / 4294967296.0;
    return (float) (s - 6.0);
}

static void
fill_normal(float *x, uint64_t n, float scale)
{
    uint64_t i;

    for (i = 0; i < n; i++)
        x[i] = rng_normal() * scale;
}

/* Squared error over squares, want: n doubles. */
static double
nmse(const float *got, const double *want, uint64_t n)
{
    double   e = 0.0, s = 0.0;
    uint64_t i;

    for (i = 0; i < n; i++) {
        const double d = (double) got[i] - want[i];

        e += d * d;
        s += want[i] * want[i];
    }
    return isnan(e) ? INFINITY : s > 0.0 ? e / s : e;
}

/* Largest error over the largest number. */
static double
max_error(const float *got, const double *want, uint64_t n)
{
    double   e = 0.0, s = 1e-30;
    uint64_t i;

    for (i = 0; i < n; i++) {
        const double d = fabs((double) got[i] - want[i]);

        if (isnan(d))
            return INFINITY;
        e = fmax(e, d);
        s = fmax(s, fabs(want[i]));
    }
    return e / s;
}

/* True if every byte in [a, b) of a row of ld floats is still poison. */
static int
is_poison(const float *x, uint64_t n)
{
    const uint8_t *p = (const uint8_t *) x;
    uint64_t       i;

    for (i = 0; i < n * sizeof(float); i++)
        if (p[i] != HOST_POISON)
            return 0;
    return 1;
}

/* The instruction sets that this machine can test, best first. */
static const char *const host_isas[] = { HOST_ISAS };
#define HOST_N_ISA (sizeof(host_isas) / sizeof(host_isas[0]))

/* Every test includes this file and uses what it needs. */
__attribute__((__unused__)) static void
host_uses(void)
{
    (void) host_open;
    (void) host_close;
    (void) buf_new;
    (void) buf_of;
    (void) buf_at;
    (void) buf_free;
    (void) fill_normal;
    (void) nmse;
    (void) max_error;
    (void) is_poison;
    (void) host_isas;
}

#endif /* MOE_TESTS_MATRIX_HOST_H */
