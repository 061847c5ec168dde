/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.c - the device "this": what the machine itself can do.
 *
 * Measures the bandwidth of reading memory and the rate of fused
 * multiply-adds in single precision with all threads, a third of a second
 * together, and keeps them in $XDG_CACHE_HOME/moe-run/this.ini for the same
 * processor and number of threads.  The memory is looked up every time,
 * because it changes with what else runs.
 */
#include "plan/device.h"

#include "memory/limits.h"
#include "support/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFER   (256u << 20) /* bytes: beyond any cache of one socket */
#define ROUNDS   4
#define FMA_LOOP 1000000u

static double
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

struct job {
    const uint64_t *words;
    size_t          n; /* of one part */
    uint32_t        parts;
    uint64_t        sum[256];
    float           f[256];
};

static void
read_part(void *arg, uint32_t i)
{
    struct job     *j = arg;
    const uint64_t *p = j->words + (size_t) i * j->n;
    uint64_t        a = 0, b = 0, c = 0, d = 0;
    size_t          k;

    for (k = 0; k + 8 <= j->n; k += 8) {
        a += p[k] ^ p[k + 4];
        b += p[k + 1] ^ p[k + 5];
        c += p[k + 2] ^ p[k + 6];
        d += p[k + 3] ^ p[k + 7];
    }
    j->sum[i] = a + b + c + d;
}

/* Ten sums at once hide the latency of the unit. */
#define FMA_BODY(LANES)                                                       \
    do {                                                                      \
        typedef float vec __attribute__((__vector_size__(4 * (LANES))));      \
        vec      s[10], x, y;                                                 \
        uint32_t a, k;                                                        \
                                                                              \
        for (k = 0; k < (LANES); k++) {                                       \
            x[k] = 1.0f + 1e-7f * (float) (i + k);                            \
            y[k] = 1e-9f;                                                     \
        }                                                                     \
        for (a = 0; a < 10; a++)                                              \
            s[a] = x;                                                         \
        for (k = 0; k < FMA_LOOP; k++)                                        \
            for (a = 0; a < 10; a++)                                          \
                s[a] = s[a] * x + y;                                          \
        for (a = 1; a < 10; a++)                                              \
            s[0] += s[a];                                                     \
        j->f[i] = s[0][0];                                                    \
    } while (0)

static void
fma_plain(void *arg, uint32_t i)
{
    struct job *j = arg;

    FMA_BODY(4);
}

#ifdef __x86_64__
__attribute__((__target__("avx2,fma"))) static void
fma_avx2(void *arg, uint32_t i)
{
    struct job *j = arg;

    FMA_BODY(8);
}
#endif

/* The processor's name and the threads: what a measurement is good for. */
static void
identity(uint32_t threads, char *buf, size_t size)
{
    char  line[256], name[80] = "unknown processor";
    FILE *f = fopen("/proc/cpuinfo", "re");

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            snprintf(name, sizeof(name), "%.*s",
                     (int) strcspn(colon + 2, "\n;#"), colon + 2);
            break;
        }
    }
    if (f != NULL)
        fclose(f);
    snprintf(buf, size, "%s, %u threads", name, threads);
}

static moe_status
measure(struct moe_plan_device *d, struct moe_error *err)
{
    void (*fma_fn)(void *, uint32_t) = fma_plain;
    double           lanes = 4, t, best;
    struct moe_pool *pool;
    struct job      *j = calloc(1, sizeof(*j));
    uint64_t        *buf = malloc(BUFFER);
    moe_status       status;
    int              i;

    if (j == NULL || buf == NULL) {
        free(j);
        free(buf);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "this machine: no memory to measure with");
    }
    status = moe_pool_open(0, &pool, err);
    if (status != MOE_OK) {
        free(j);
        free(buf);
        return status;
    }
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        fma_fn = fma_avx2;
        lanes = 8;
    }
#endif
    memset(buf, 1, BUFFER);
    j->words = buf;
    j->parts = moe_pool_threads(pool) < 256 ? moe_pool_threads(pool) : 256;
    j->n = BUFFER / 8 / j->parts / 8 * 8;
    for (i = 0, best = 1e9; i < ROUNDS; i++) {
        t = now();
        moe_pool_run(pool, j->parts, read_part, j);
        t = now() - t;
        best = t < best ? t : best;
    }
    d->bandwidth = (double) j->n * 8 * j->parts / best;
    for (i = 0, best = 1e9; i < ROUNDS; i++) {
        t = now();
        moe_pool_run(pool, j->parts, fma_fn, j);
        t = now() - t;
        best = t < best ? t : best;
    }
    d->fp32 = 20.0 * lanes * FMA_LOOP * j->parts / best;
    moe_pool_close(pool);
    free(buf);
    free(j);
    return MOE_OK;
}

/* The cache's file; 0: there is no place for one. */
static int
cache_path(char *buf, size_t size, int make)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char        dir[3900];

    if (base != NULL && base[0] == '/')
        snprintf(dir, sizeof(dir), "%s", base);
    else if (home != NULL && home[0] == '/')
        snprintf(dir, sizeof(dir), "%s/.cache", home);
    else
        return 0;
    if (make)
        (void) mkdir(dir, 0700);
    snprintf(buf, size, "%s/moe-run", dir);
    if (make)
        (void) mkdir(buf, 0700);
    snprintf(buf, size, "%s/moe-run/this.ini", dir);
    return 1;
}

/* A cache that cannot be written is none: the next call measures again. */
static void
cache_write(const struct moe_plan_device *d)
{
    char  path[4096], part[4110];
    FILE *f;
    int   good;

    if (!cache_path(path, sizeof(path), 1))
        return;
    snprintf(part, sizeof(part), "%s.%ld", path, (long) getpid());
    f = fopen(part, "we");
    if (f == NULL)
        return;
    good = fprintf(f,
                   "# measured by moe-run plan --hardware this; delete the "
                   "file to measure again\n"
                   "[device]\nvendor = host\nmemory_bytes = %.0f\n"
                   "bandwidth_gbs = %.2f\n\n[tflops]\nfp32 = %.5f\n\n"
                   "[source]\nas_of = %s\nconfidence = measured\n"
                   "text = %s\n",
                   d->memory, d->bandwidth / 1e9, d->fp32 / 1e12,
                   d->source_date, d->source) > 0;
    good &= fclose(f) == 0;
    if (!good || rename(part, path) != 0)
        (void) unlink(part);
}

moe_status
moe_device_this(struct moe_plan_device *out, struct moe_error *err)
{
    struct moe_plan_device d;
    struct moe_limits      limits;
    char                   path[4096], who[200];
    const char            *why;
    time_t                 t = time(NULL);
    struct tm              day;
    moe_status             status = MOE_E_NOT_FOUND;

    identity(moe_pool_default_threads(), who, sizeof(who));
    if (cache_path(path, sizeof(path), 0))
        status = moe_device_read(path, "this", &d, NULL);
    if (status != MOE_OK || strcmp(d.source, who) != 0) {
        memset(&d, 0, sizeof(d));
        d.struct_size = sizeof(d);
        d.is_host = 1;
        status = measure(&d, err);
        if (status != MOE_OK)
            return status;
        snprintf(d.name, sizeof(d.name), "this");
        snprintf(d.vendor, sizeof(d.vendor), "host");
        snprintf(d.source, sizeof(d.source), "%s", who);
        snprintf(d.confidence, sizeof(d.confidence), "measured");
        if (gmtime_r(&t, &day) != NULL)
            (void) strftime(d.source_date, sizeof(d.source_date), "%Y-%m-%d",
                            &day);
        d.memory = 1;
        cache_write(&d);
    }
    /* The peaks are measured ones: a step comes nearer to them than to the
     * figures of a data sheet. */
    d.eff_memory = 0.85;
    d.eff_prefill = 0.6;
    d.eff_decode = 0.6;
    d.latency = d.launch = 2e-6;
    moe_limits_read(&limits);
    d.memory = (double) moe_limits_budget(&limits, 0, &why);
    *out = d;
    return MOE_OK;
}
