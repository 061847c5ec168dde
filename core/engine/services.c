/* SPDX-License-Identifier: Apache-2.0 */
/*
 * services.c - the core's side of struct moe_host.
 *
 * Owns nothing: lends the pool, the ledger, the log and the options to
 * plugins.
 */
#include "engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Before each block that a plugin got from alloc. */
struct moe_block {
    void      *base;
    moe_grant *grant;
};

static void
moe_service_log(void *ctx, uint32_t level, const char *line)
{
    const struct moe_host_services *h = ctx;

    moe_options_log(h->options, level, "%s", line);
}

static const char *
moe_service_config(void *ctx, const char *section, const char *key)
{
    const struct moe_host_services *h = ctx;

    return moe_options_plugin(h->options, section, key);
}

static moe_status
moe_service_reserve(void *ctx, const char *domain, uint64_t bytes,
                    const char *what, moe_grant **out)
{
    const struct moe_host_services *h = ctx;

    return moe_ledger_reserve(h->ledger, domain, what, bytes, out, NULL);
}

static void
moe_service_release(void *ctx, moe_grant *grant)
{
    const struct moe_host_services *h = ctx;

    moe_ledger_release(h->ledger, grant);
}

static void *
moe_service_alloc(void *ctx, uint64_t bytes, uint64_t align)
{
    const struct moe_host_services *h = ctx;
    struct moe_block                b;
    uint8_t                        *p;
    uint64_t                        need;

    if (align < sizeof(struct moe_block))
        align = sizeof(struct moe_block);
    if ((align & (align - 1)) != 0
        || bytes > UINT64_MAX - align - sizeof(struct moe_block))
        return NULL;
    need = bytes + align + sizeof(struct moe_block);
    if (moe_ledger_reserve(h->ledger, MOE_LEDGER_HOST, "plugins", need,
                           &b.grant, NULL)
        != MOE_OK)
        return NULL;
    b.base = malloc(need);
    if (b.base == NULL) {
        moe_ledger_release(h->ledger, b.grant);
        return NULL;
    }
    p = (uint8_t *) (((uintptr_t) b.base + sizeof(b) + align - 1)
                     & ~(uintptr_t) (align - 1));
    memcpy(p - sizeof(b), &b, sizeof(b));
    return p;
}

static void
moe_service_free(void *ctx, void *p)
{
    const struct moe_host_services *h = ctx;
    struct moe_block                b;

    if (p == NULL)
        return;
    memcpy(&b, (uint8_t *) p - sizeof(b), sizeof(b));
    moe_ledger_release(h->ledger, b.grant);
    free(b.base);
}

static void
moe_service_parallel(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
                     void *arg)
{
    const struct moe_host_services *h = ctx;

    moe_pool_run(h->pool, n, fn, arg);
}

static uint32_t
moe_service_workers(void *ctx)
{
    const struct moe_host_services *h = ctx;

    return moe_pool_threads(h->pool);
}

void
moe_services_fill(struct moe_host_services *h, struct moe_services *out)
{
    memset(out, 0, sizeof(*out));
    out->ctx = h;
    out->log = moe_service_log;
    out->config = moe_service_config;
    out->reserve = moe_service_reserve;
    out->release = moe_service_release;
    out->alloc = moe_service_alloc;
    out->free = moe_service_free;
    out->parallel = moe_service_parallel;
    out->workers = moe_service_workers;
}

moe_status
moe_plugin_absent(struct moe_error *err)
{
    if (err != NULL)
        err->status = MOE_E_ABSENT;
    return MOE_E_ABSENT;
}

moe_status
moe_services_registry(struct moe_host_services *h, struct moe_registry **out,
                      struct moe_error *err)
{
    struct moe_services services;
    const char *const  *files;
    size_t              n, i;
    moe_status          st;

    moe_services_fill(h, &services);
    files = moe_option_list(h->options, "plugin.load", &n);
    st = moe_registry_open(&services, moe_option_text(h->options,
                                                      "plugin.path"),
                           files, n, out, err);
    /* A plugin that is not there is the plugin's trouble, not a file's. */
    if (st == MOE_E_NOT_FOUND)
        st = moe_plugin_absent(err);
    if (st != MOE_OK)
        return st;
    for (i = 0; i < moe_registry_count(*out); i++) {
        const struct moe_plugin_entry *e = moe_registry_entry(*out, i);

        if (e->status == MOE_OK)
            moe_options_log(h->options, MOE_LOG_INFO, "plugin %s: %s", e->name,
                            e->path);
        else
            moe_options_log(h->options, MOE_LOG_INFO, "plugin %s %s: %s",
                            e->path, e->state, e->reason);
    }
    return MOE_OK;
}
