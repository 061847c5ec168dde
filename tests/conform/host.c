/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.c - the core that a plugin under test sees.
 *
 * The ledger is asked, counts and may refuse; alloc is the "host" domain, as
 * in the engine, but counted apart, so that a test can tell them.
 */

#include <stdlib.h>
#include <string.h>

#include "conform/conform.h"

struct moe_grant {
    uint64_t bytes;
    int      domain;
};

static void
host_log(void *ctx, uint32_t level, const char *line)
{
    if (level <= MOE_LOG_WARN)
        conform_note(ctx, "log: %s", line);
}

static const char *
host_config(void *ctx, const char *section, const char *key)
{
    const struct conform *c = ctx;
    int                   i;

    (void) section;
    for (i = 0; i + 1 < c->n_config; i += 2)
        if (strcmp(c->config[i], key) == 0)
            return c->config[i + 1];
    return NULL;
}

/* Index of a domain, made if new; -1: too many. */
static int
domain_of(struct conform *c, const char *name)
{
    int i;

    for (i = 0; i < CONFORM_DOMAINS && c->domain[i].name[0] != '\0'; i++)
        if (strcmp(c->domain[i].name, name) == 0)
            return i;
    if (i == CONFORM_DOMAINS)
        return -1;
    snprintf(c->domain[i].name, sizeof(c->domain[i].name), "%s", name);
    return i;
}

static moe_status
host_reserve(void *ctx, const char *domain, uint64_t bytes, const char *what,
             moe_grant **out)
{
    struct conform *c = ctx;
    moe_grant      *grant = malloc(sizeof(*grant));
    moe_status      status = MOE_E_OVER_BUDGET;

    (void) what;
    pthread_mutex_lock(&c->lock);
    c->reserves++;
    if (grant != NULL && domain != NULL && c->reserves != c->deny_at
        && (c->limit == 0
            || (c->held <= c->limit && bytes <= c->limit - c->held))) {
        grant->domain = domain_of(c, domain);
        if (grant->domain >= 0) {
            grant->bytes = bytes;
            c->domain[grant->domain].held += bytes;
            c->held += bytes;
            c->grants++;
            status = MOE_OK;
        }
    }
    pthread_mutex_unlock(&c->lock);
    if (status != MOE_OK)
        free(grant);
    else
        *out = grant;
    return status;
}

static void
host_release(void *ctx, moe_grant *grant)
{
    struct conform *c = ctx;

    pthread_mutex_lock(&c->lock);
    c->domain[grant->domain].held -= grant->bytes;
    c->held -= grant->bytes;
    c->grants--;
    pthread_mutex_unlock(&c->lock);
    free(grant);
}

static void *
host_alloc(void *ctx, uint64_t bytes, uint64_t align)
{
    struct conform *c = ctx;
    void           *p = NULL;
    int             deny;

    pthread_mutex_lock(&c->lock);
    deny = ++c->allocs == c->deny_alloc;
    pthread_mutex_unlock(&c->lock);
    if (deny || posix_memalign(&p, align < 16 ? 16 : align, bytes) != 0)
        return NULL;
    memset(p, 0xa5, bytes); /* nobody may count on zeros */
    pthread_mutex_lock(&c->lock);
    c->blocks++;
    pthread_mutex_unlock(&c->lock);
    return p;
}

static void
host_free(void *ctx, void *p)
{
    struct conform *c = ctx;

    if (p == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    c->blocks--;
    pthread_mutex_unlock(&c->lock);
    free(p);
}

struct team {
    void (*fn)(void *arg, uint32_t i);
    void           *arg;
    uint32_t        n, next;
    pthread_mutex_t lock;
};

static void *
team_member(void *ctx)
{
    struct team *t = ctx;
    uint32_t     i;

    for (;;) {
        pthread_mutex_lock(&t->lock);
        i = t->next++;
        pthread_mutex_unlock(&t->lock);
        if (i >= t->n)
            return NULL;
        t->fn(t->arg, i);
    }
}

static void
host_parallel(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
              void *arg)
{
    struct conform *c = ctx;
    struct team     t = { fn, arg, n, 0, PTHREAD_MUTEX_INITIALIZER };
    pthread_t       thread[CONFORM_THREADS];
    uint32_t        i, made = 0;

    if (c->order == CONFORM_PARALLEL && c->workers > 1 && n > 1) {
        while (made + 1 < c->workers && made < CONFORM_THREADS
               && pthread_create(&thread[made], NULL, team_member, &t) == 0)
            made++;
        team_member(&t);
        for (i = 0; i < made; i++)
            pthread_join(thread[i], NULL);
        return;
    }
    for (i = 0; i < n; i++)
        fn(arg, c->order == CONFORM_BACKWARD ? n - 1 - i : i);
}

static uint32_t
host_workers(void *ctx)
{
    return ((struct conform *) ctx)->workers;
}

void
conform_host_init(struct conform *c)
{
    pthread_mutex_init(&c->lock, NULL);
    c->workers = 3;
    c->services.ctx = c;
    c->services.log = host_log;
    c->services.config = host_config;
    c->services.reserve = host_reserve;
    c->services.release = host_release;
    c->services.alloc = host_alloc;
    c->services.free = host_free;
    c->services.parallel = host_parallel;
    c->services.workers = host_workers;
}

uint64_t
conform_held(struct conform *c, const char *domain)
{
    uint64_t held = 0;
    int      i;

    pthread_mutex_lock(&c->lock);
    for (i = 0; i < CONFORM_DOMAINS; i++)
        if (strcmp(c->domain[i].name, domain) == 0)
            held = c->domain[i].held;
    pthread_mutex_unlock(&c->lock);
    return held;
}

int
conform_host_empty(struct conform *c)
{
    return c->held == 0 && c->grants == 0 && c->blocks == 0;
}
