/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inner.c - opens the plugin that is wrapped, and is its host.
 *
 * The loader has looked at this wrapper only, so the essential refusals are
 * here once more.  The plugin inside sees our own configuration section, and
 * a ledger that passes ours on and counts.
 */

#include <dlfcn.h>
#include <string.h>

#include "backend/check/impl.h"

static _Thread_local int64_t ledger_delta;

void
check_ledger_reset(void)
{
    ledger_delta = 0;
}

int64_t
check_ledger_delta(void)
{
    return ledger_delta;
}

/* A grant of ours remembers its size. */
struct grant {
    moe_grant *outer;
    uint64_t   bytes;
};

static const struct moe_host *
outer(void *ctx)
{
    return ((struct check *) ctx)->host;
}

static void
inner_log(void *ctx, uint32_t level, const char *line)
{
    outer(ctx)->log(outer(ctx)->ctx, level, line);
}

static const char *
inner_config(void *ctx, const char *key)
{
    return outer(ctx)->config(outer(ctx)->ctx, key);
}

static void *
inner_alloc(void *ctx, uint64_t bytes, uint64_t align)
{
    return outer(ctx)->alloc(outer(ctx)->ctx, bytes, align);
}

static void
inner_free(void *ctx, void *p)
{
    outer(ctx)->free(outer(ctx)->ctx, p);
}

static moe_status
inner_reserve(void *ctx, const char *domain, uint64_t bytes, const char *what,
              moe_grant **out)
{
    const struct moe_host *h = outer(ctx);
    struct grant          *g = h->alloc(h->ctx, sizeof(*g), 16);
    moe_status             status;

    if (g == NULL)
        return MOE_E_OVER_BUDGET;
    status = h->reserve(h->ctx, domain, bytes, what, &g->outer);
    if (status != MOE_OK) {
        h->free(h->ctx, g);
        return status;
    }
    g->bytes = bytes;
    ledger_delta += (int64_t) bytes;
    *out = (moe_grant *) (void *) g;
    return MOE_OK;
}

static void
inner_release(void *ctx, moe_grant *grant)
{
    const struct moe_host *h = outer(ctx);
    struct grant          *g = (struct grant *) (void *) grant;

    ledger_delta -= (int64_t) g->bytes;
    h->release(h->ctx, g->outer);
    h->free(h->ctx, g);
}

static void
inner_parallel(void *ctx, uint32_t n, void (*fn)(void *arg, uint32_t i),
               void *arg)
{
    outer(ctx)->parallel(outer(ctx)->ctx, n, fn, arg);
}

static uint32_t
inner_workers(void *ctx)
{
    return outer(ctx)->workers(outer(ctx)->ctx);
}

static moe_status
refuse(void *handle, const char *path, const char *why,
       struct moe_error *err)
{
    if (handle != NULL)
        dlclose(handle);
    return moe_fail(err, MOE_E_ABI, 0,
                    "[backend.check] around = %.200s: %s", path, why);
}

/* Every required function is there: the table up to slot_advise is nothing
 * but pointers. */
static int
is_complete(const struct moe_backend_ops *ops)
{
    size_t off;
    void  *fn;

    if (ops->struct_size < offsetof(struct moe_backend_ops, slot_advise))
        return 0;
    for (off = offsetof(struct moe_backend_ops, device_count);
         off < offsetof(struct moe_backend_ops, slot_advise);
         off += sizeof(fn)) {
        memcpy(&fn, (const char *) ops + off, sizeof(fn));
        if (fn == NULL)
            return 0;
    }
    return 1;
}

moe_status
check_open_inner(struct check *c, struct moe_error *err)
{
    const char *path = c->host->config(c->host->ctx, "around");
    struct moe_probe         probe = { .struct_size = sizeof(probe) };
    const struct moe_plugin *p;
    moe_status               status;
    void                    *handle;

    if (path == NULL || strchr(path, '/') == NULL)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "[backend.check] around = %.100s: the path of a "
                        "backend's file is wanted",
                        path != NULL ? path : "");
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *why = dlerror();

        return refuse(NULL, path, why != NULL ? why : "not loaded", err);
    }
    p = dlsym(handle, "moe_plugin");
    if (p == NULL || p->magic != MOE_PLUGIN_MAGIC
        || MOE_ABI_MAJOR_OF(p->abi) != MOE_ABI_MAJOR
        || p->struct_size < sizeof(*p))
        return refuse(handle, path, "no plugin of this ABI", err);
    if (p->kind != MOE_KIND_BACKEND || p->ops == NULL || p->init == NULL
        || p->fini == NULL || !is_complete(p->ops))
        return refuse(handle, path, "no complete backend", err);
    c->inner.struct_size = sizeof(c->inner);
    c->inner.abi = c->host->abi;
    c->inner.ctx = c;
    c->inner.log = inner_log;
    c->inner.config = inner_config;
    c->inner.alloc = inner_alloc;
    c->inner.free = inner_free;
    c->inner.reserve = inner_reserve;
    c->inner.release = inner_release;
    c->inner.parallel = inner_parallel;
    c->inner.workers = inner_workers;
    if (p->probe != NULL) {
        status = p->probe(&c->inner, &probe, err);
        if (status != MOE_OK)
            return status;
        if (probe.score == 0)
            return moe_fail(err, MOE_E_ABSENT, 0,
                            "the backend inside cannot run here: %.100s",
                            probe.why);
    }
    status = p->init(&c->inner, &c->self, err);
    if (status != MOE_OK)
        return status;
    c->plugin = p;
    c->ops = p->ops;
    return MOE_OK;
}
