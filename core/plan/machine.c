/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.c - the device "this": what the machine itself can do.
 *
 * Takes the ceilings that moe-run bench measures, some tenths of a second,
 * and keeps them in $XDG_CACHE_HOME/moe-run/this.ini for the same processor
 * and number of threads.  The memory is looked up every time, because it
 * changes with what else runs.
 */
#include "plan/device.h"

#include "bench/ceiling.h"
#include "memory/ledger.h"
#include "memory/limits.h"
#include "support/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PASSES 3u

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

static double
larger(double a, double b)
{
    return a > b ? a : b;
}

static moe_status
measure(struct moe_plan_device *d, struct moe_error *err)
{
    struct moe_bench_machine m;
    struct moe_ledger       *ledger = NULL;
    struct moe_pool         *pool = NULL;
    struct moe_ceiling      *c = NULL;
    moe_status               status = moe_ledger_open(&ledger, err);

    if (status == MOE_OK)
        status = moe_pool_open(0, &pool, err);
    if (status == MOE_OK)
        status = moe_ceiling_open(pool, ledger, &c, err);
    if (status == MOE_OK) {
        moe_ceiling_measure(c, PASSES, &m);
        d->bandwidth = larger(larger(m.read_4k, m.read_4k_streams),
                              larger(m.read_2m, m.read_2m_streams));
        d->fp32 = m.f32_ops;
        d->int8 = m.int8_ops;
    }
    moe_ceiling_close(c);
    moe_pool_close(pool);
    if (ledger != NULL)
        (void) moe_ledger_close(ledger);
    if (status == MOE_OK && (d->bandwidth <= 0 || d->fp32 <= 0))
        status = moe_fail(err, MOE_E_INTERNAL, 0,
                          "this machine: its speed could not be measured");
    return status;
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
                   "bandwidth_gbs = %.2f\n\n[tflops]\nfp32 = %.5f\n%s%.5f\n\n"
                   "[source]\nas_of = %s\nconfidence = measured\n"
                   "text = %s\n",
                   d->memory, d->bandwidth / 1e9, d->fp32 / 1e12,
                   d->int8 > 0 ? "int8 = " : "# int8: none ", d->int8 / 1e12,
                   d->source_date, d->source) > 0;
    good &= fclose(f) == 0;
    if (!good || rename(part, path) != 0)
        (void) unlink(part);
}

moe_status
moe_device_this(int anew, struct moe_plan_device *out, struct moe_error *err)
{
    struct moe_plan_device d;
    struct moe_limits      limits;
    char                   path[4096], who[200];
    const char            *why;
    time_t                 t = time(NULL);
    struct tm              day;
    moe_status             status = MOE_E_NOT_FOUND;

    identity(moe_pool_default_threads(), who, sizeof(who));
    if (!anew && cache_path(path, sizeof(path), 0))
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
