/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.h - what a plugin may call, for tests: a ledger that counts and can
 * refuse, a config made of strings, a log that is kept.
 *
 * A loaded plugin is opened by test_open through the registry, as the engine
 * does it.
 */
#ifndef MOE_TESTS_PLUGIN_HOST_H
#define MOE_TESTS_PLUGIN_HOST_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin/registry.h"

struct moe_grant {
    uint64_t bytes;
};

struct test_host {
    struct moe_services services;
    const char *const  *config; /* "backend.fake.seed", "3", ..., NULL */
    uint64_t            limit;  /* bytes of all domains together; 0: none */
    uint64_t            held, peak; /* bytes, in all domains */
    uint64_t            grants;
    int64_t             blocks; /* host allocations alive */
    char                log[4096];
    pthread_mutex_t     lock;
};

static void
test_log(void *ctx, uint32_t level, const char *line)
{
    struct test_host *h = ctx;
    size_t            len;

    pthread_mutex_lock(&h->lock);
    len = strlen(h->log);
    snprintf(h->log + len, sizeof(h->log) - len, "%u %s\n", level, line);
    pthread_mutex_unlock(&h->lock);
}

static const char *
test_config(void *ctx, const char *section, const char *key)
{
    const struct test_host *h = ctx;
    const char *const      *p;
    char                    full[200];

    snprintf(full, sizeof(full), "%s.%s", section, key);
    for (p = h->config; p != NULL && *p != NULL; p += 2)
        if (strcmp(p[0], full) == 0)
            return p[1];
    return NULL;
}

static moe_status
test_reserve(void *ctx, const char *domain, uint64_t bytes, const char *what,
             moe_grant **out)
{
    struct test_host *h = ctx;
    moe_status        status = MOE_E_OVER_BUDGET;

    (void) domain;
    (void) what;
    pthread_mutex_lock(&h->lock);
    if (h->limit == 0 || bytes <= h->limit - h->held) {
        *out = malloc(sizeof(**out));
        (*out)->bytes = bytes;
        h->held += bytes;
        h->peak = h->held > h->peak ? h->held : h->peak;
        h->grants++;
        status = MOE_OK;
    }
    pthread_mutex_unlock(&h->lock);
    return status;
}

static void
test_release(void *ctx, moe_grant *grant)
{
    struct test_host *h = ctx;

    pthread_mutex_lock(&h->lock);
    h->held -= grant->bytes;
    h->grants--;
    pthread_mutex_unlock(&h->lock);
    free(grant);
}

static void *
test_alloc(void *ctx, uint64_t bytes, uint64_t align)
{
    struct test_host *h = ctx;
    void             *p = NULL;

    if (posix_memalign(&p, align < 64 ? 64 : align, bytes > 0 ? bytes : 1)
        != 0)
        return NULL;
    pthread_mutex_lock(&h->lock);
    h->blocks++;
    pthread_mutex_unlock(&h->lock);
    return p;
}

static void
test_free(void *ctx, void *p)
{
    struct test_host *h = ctx;

    if (p == NULL)
        return;
    pthread_mutex_lock(&h->lock);
    h->blocks--;
    pthread_mutex_unlock(&h->lock);
    free(p);
}

static void
test_parallel(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
              void *arg)
{
    uint32_t i;

    (void) ctx;
    for (i = n; i > 0; i--) /* any order: the last first */
        fn(arg, i - 1);
}

static uint32_t
test_workers(void *ctx)
{
    (void) ctx;
    return 3;
}

/* A host with a config, or NULL. */
static void
test_host_init(struct test_host *h, const char *const *config)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
    h->config = config;
    h->services.ctx = h;
    h->services.log = test_log;
    h->services.config = test_config;
    h->services.reserve = test_reserve;
    h->services.release = test_release;
    h->services.alloc = test_alloc;
    h->services.free = test_free;
    h->services.parallel = test_parallel;
    h->services.workers = test_workers;
}

/* A file below the build folder's top. */
__attribute__((__unused__)) static const char *
test_built(const char *rel)
{
    static char buf[4][1024];
    static int  i;
    const char *top = getenv("MOE_TEST_BUILDDIR");

    i = (i + 1) % 4;
    snprintf(buf[i], sizeof(buf[i]), "%s/%s", top != NULL ? top : ".", rel);
    return buf[i];
}

#endif /* MOE_TESTS_PLUGIN_HOST_H */
