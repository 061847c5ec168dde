/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - a backend around another one that holds both to the rules.
 *
 * [backend.check] around = /path/to/cpu.so; the other keys of the section
 * are the wrapped backend's.  Every call is looked at before it is passed on
 * and what comes back is looked at, too.  A rule that is broken is logged as
 * an error, counted (check.h) and answered with MOE_E_INVAL and the rule's
 * text; a call that has no status is passed on only if that is safe.
 *
 * The rules: a stream is used by one thread at a time, device-wide calls are
 * made one at a time; handles live and belong to their device; struct_size is
 * set; buffers lie within their memory, shapes fit; memory, slabs and slots
 * are not freed or refilled while work that uses them may still run; a slot
 * is filled before it is used, in an order that streams and events ensure;
 * no work is given to a device that has failed; everything is destroyed
 * before its device is closed.  For the backend inside: reserve() before
 * memory, exactly as much as mem_align says, nothing kept after a failure;
 * plans that are complete; MOE_E_DEVICE for ever after the first.
 *
 * Owns the plugin, devices and memory.
 */

#include "backend/check/check.h"

#include <stdlib.h>
#include <string.h>

#include "backend/check/impl.h"

/* ------------------------------------------------------------------ rules -- */

moe_status
check_broken(moe_device *dev, struct moe_error *err, const char *fmt, ...)
{
    const struct moe_host *host = dev->check->host;
    char                   rule[256], line[300];
    va_list                args;

    va_start(args, fmt);
    vsnprintf(rule, sizeof(rule), fmt, args);
    va_end(args);
    pthread_mutex_lock(&dev->lock);
    dev->violations++;
    memcpy(dev->last, rule, sizeof(dev->last));
    pthread_mutex_unlock(&dev->lock);
    snprintf(line, sizeof(line), "rule broken: %s", rule);
    host->log(host->ctx, MOE_LOG_ERROR, line);
    return moe_fail(err, MOE_E_INVAL, 0, "%s", line);
}

moe_status
check_passed(moe_device *dev, moe_status status)
{
    moe_status before;

    pthread_mutex_lock(&dev->lock);
    before = dev->fault;
    if (status == MOE_E_DEVICE)
        dev->fault = status;
    pthread_mutex_unlock(&dev->lock);
    if (before != MOE_OK && status >= 0)
        check_broken(dev, NULL,
                     "the backend inside said MOE_E_DEVICE and then %d; a "
                     "failed device stays so until it is closed",
                     status);
    return status;
}

moe_status
check_alive(const void *object, moe_device *dev, enum check_kind kind,
            const char *what, struct moe_error *err)
{
    const struct check_object *o = object;

    if (o == NULL)
        return check_broken(dev, err, "%s is NULL", what);
    if (o->dev != dev)
        return check_broken(dev, err, "%s belongs to another device", what);
    if (o->kind != kind)
        return check_broken(dev, err, "%s is a handle of another kind", what);
    if (o->dead)
        return check_broken(dev, err, "%s was destroyed before", what);
    return MOE_OK;
}

void *
check_object_new(moe_device *dev, enum check_kind kind, size_t size)
{
    struct check_object *o = calloc(1, size);

    if (o == NULL)
        return NULL;
    o->dev = dev;
    o->kind = kind;
    pthread_mutex_lock(&dev->lock);
    o->next = dev->objects;
    dev->objects = o;
    dev->alive++;
    pthread_mutex_unlock(&dev->lock);
    return o;
}

/* The device and all that is dead with it; nobody else knows it any more. */
static void
device_free(moe_device *dev)
{
    struct check_object *o = dev->objects, *next;

    dev->check->ops->device_close(dev->inner);
    for (; o != NULL; o = next) {
        next = o->next;
        if (o->kind == CHECK_SLAB)
            free(((moe_slab *) (void *) o)->slot);
        free(o);
    }
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

void
check_object_dead(struct check_object *o)
{
    moe_device *dev = o->dev;
    int         last;

    pthread_mutex_lock(&dev->lock);
    o->dead = 1;
    last = --dev->alive == 0 && dev->closed;
    pthread_mutex_unlock(&dev->lock);
    if (last)
        device_free(dev);
}

int
check_ordered(const moe_stream *s, uint32_t id, uint64_t seq)
{
    return s->id == id || s->after.at[id] >= seq
           || s->o.dev->done.at[id] >= seq;
}

int
check_done(const moe_device *dev, const struct check_clock *used)
{
    uint32_t i;

    for (i = 0; i < CHECK_STREAMS; i++)
        if (used->at[i] > dev->done.at[i])
            return 0;
    return 1;
}

moe_status
check_enter(moe_stream *s, struct moe_error *err)
{
    int free_now = 0;

    if (!atomic_compare_exchange_strong(&s->busy, &free_now, 1))
        return check_broken(s->o.dev, err,
                            "two threads use one stream at once");
    return MOE_OK;
}

void
check_leave(moe_stream *s)
{
    atomic_store(&s->busy, 0);
}

/* ----------------------------------------------------------------- devices -- */

static moe_status
device_count(void *self, uint32_t *out)
{
    struct check *c = self;

    return c->ops->device_count(c->self, out);
}

static moe_status
device_info(void *self, uint32_t i, struct moe_device_info *out)
{
    struct check *c = self;
    moe_status    status = c->ops->device_info(c->self, i, out);
    char          name[sizeof(out->name)];

    if (status != MOE_OK)
        return status;
    /* slot_advise is ours, whatever the one inside has */
    out->caps &= MOE_CAP_ASYNC | MOE_CAP_ADVISE | MOE_CAP_HOST_VIEW;
    memcpy(name, out->name, sizeof(name));
    name[sizeof(name) - 1] = '\0';
    snprintf(out->name, sizeof(out->name), "checked %.50s", name);
    return MOE_OK;
}

static moe_status
device_open(void *self, uint32_t i, moe_device **out, struct moe_error *err)
{
    struct check *c = self;
    moe_device   *dev = calloc(1, sizeof(*dev));
    moe_status    status;

    if (dev == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "check: out of memory");
    dev->check = c;
    dev->info.struct_size = sizeof(dev->info);
    status = c->ops->device_open(c->self, i, &dev->inner, err);
    if (status != MOE_OK) {
        free(dev);
        return status;
    }
    c->ops->device_info(c->self, i, &dev->info);
    pthread_mutex_init(&dev->lock, NULL);
    *out = dev;
    return MOE_OK;
}

static void
device_close(moe_device *dev)
{
    uint32_t alive;

    pthread_mutex_lock(&dev->lock);
    alive = dev->alive;
    dev->closed = 1;
    pthread_mutex_unlock(&dev->lock);
    if (alive > 0) {
        check_broken(dev, NULL,
                     "a device is closed and %u of its objects are alive; "
                     "destroy them first",
                     alive);
        return; /* the last of them takes the device along */
    }
    device_free(dev);
}

/* ------------------------------------------------------------------ memory -- */

static moe_status
mem_alloc(moe_device *dev, uint64_t bytes, uint32_t use, moe_mem **out,
          struct moe_error *err)
{
    const struct moe_backend_ops *ops = dev->check->ops;
    moe_mem                      *mem, *inner = NULL;
    uint64_t                      granule = dev->info.mem_align, want;
    int64_t                       delta;
    moe_status                    status;

    if (use < MOE_USE_ACT || use > MOE_USE_STAGING)
        return check_broken(dev, err, "memory for use %u, which is unknown",
                            use);
    check_ledger_reset();
    status = ops->mem_alloc(dev->inner, bytes, use, &inner, err);
    delta = check_ledger_delta();
    check_passed(dev, status);
    if (status != MOE_OK) {
        if (delta != 0)
            check_broken(dev, NULL,
                         "the backend inside failed to allocate and kept "
                         "%lld reserved bytes",
                         (long long) delta);
        return status;
    }
    want = ((bytes > 0 ? bytes : 1) + granule - 1) / granule * granule;
    if (use != MOE_USE_STAGING && (uint64_t) delta != want) {
        ops->mem_free(inner);
        return check_broken(dev, err,
                            "the backend inside reserved %lld bytes for %llu; "
                            "with mem_align %u that is %llu",
                            (long long) delta, (unsigned long long) bytes,
                            dev->info.mem_align, (unsigned long long) want);
    }
    mem = check_object_new(dev, CHECK_MEM, sizeof(*mem));
    if (mem == NULL) {
        ops->mem_free(inner);
        return moe_fail(err, MOE_E_NOMEM, 0, "check: out of memory");
    }
    mem->inner = inner;
    mem->bytes = bytes;
    *out = mem;
    return MOE_OK;
}

static void
mem_free(moe_mem *mem)
{
    moe_device *dev;
    int         done;

    if (mem == NULL)
        return;
    dev = mem->o.dev;
    if (check_alive(mem, dev, CHECK_MEM, "memory to free", NULL) != MOE_OK)
        return;
    pthread_mutex_lock(&dev->lock);
    done = dev->fault != MOE_OK || check_done(dev, &mem->used);
    pthread_mutex_unlock(&dev->lock);
    if (!done)
        check_broken(dev, NULL,
                     "memory is freed while work that uses it may still run; "
                     "record an event after the work and wait for it");
    dev->check->ops->mem_free(mem->inner);
    check_object_dead(&mem->o);
}

static void *
mem_host_ptr(moe_mem *mem)
{
    moe_device *dev = mem->o.dev;
    void       *p;

    if (check_alive(mem, dev, CHECK_MEM, "memory", NULL) != MOE_OK)
        return NULL;
    p = dev->check->ops->mem_host_ptr(mem->inner);
    if (p == NULL && (dev->info.caps & MOE_CAP_HOST_VIEW) != 0)
        check_broken(dev, NULL,
                     "the backend inside promises MOE_CAP_HOST_VIEW and "
                     "gives no host pointer");
    return p;
}

/* --------------------------------------------------------------- extension -- */

static uint64_t
violations(moe_device *dev)
{
    uint64_t n;

    pthread_mutex_lock(&dev->lock);
    n = dev->violations;
    pthread_mutex_unlock(&dev->lock);
    return n;
}

static const char *
last(moe_device *dev)
{
    return dev->last;
}

static const struct moe_check_report report = {
    .struct_size = sizeof(report),
    .violations = violations,
    .last = last,
};

/* Those of the backend inside want its own handles, so they stay inside. */
static const void *
extension(moe_device *dev, const char *name)
{
    (void) dev;
    return strcmp(name, MOE_CHECK_EXTENSION) == 0 ? &report : NULL;
}

/* ------------------------------------------------------------------ plugin -- */

static const struct moe_backend_ops check_ops = {
    .struct_size = sizeof(check_ops),
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_host_ptr = mem_host_ptr,
    .stream_create = check_stream_create,
    .stream_destroy = check_stream_destroy,
    .event_create = check_event_create,
    .event_destroy = check_event_destroy,
    .event_record = check_event_record,
    .stream_wait = check_stream_wait,
    .event_query = check_event_query,
    .event_wait = check_event_wait,
    .upload = check_upload,
    .download = check_download,
    .copy = check_copy,
    .query = check_query,
    .slab_create = check_slab_create,
    .slab_destroy = check_slab_destroy,
    .slot_upload = check_slot_upload,
    .launch = check_launch,
    .slot_advise = check_slot_advise,
    .extension = extension,
};

static moe_status
probe(const struct moe_host *host, struct moe_probe *out,
      struct moe_error *err)
{
    (void) err;
    out->score = host->config(host->ctx, "around") != NULL ? 1 : 0;
    snprintf(out->why, sizeof(out->why), "%s",
             out->score > 0 ? "for tests"
                            : "[backend.check] around names no backend's "
                              "file to check");
    return MOE_OK;
}

static moe_status
init(const struct moe_host *host, void **self, struct moe_error *err)
{
    struct check *c = host->alloc(host->ctx, sizeof(*c), 64);
    moe_status    status;

    if (c == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "check: out of memory");
    memset(c, 0, sizeof(*c));
    c->host = host;
    status = check_open_inner(c, err);
    if (status != MOE_OK) {
        host->free(host->ctx, c);
        return status;
    }
    *self = c;
    return MOE_OK;
}

static void
fini(void *self)
{
    struct check          *c = self;
    const struct moe_host *host = c->host;

    c->plugin->fini(c->self);
    host->free(host->ctx, c);
}

MOE_PLUGIN_DEFINE(check) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_BACKEND,
    .name = "check",
    .version = "0.1.0",
    .license = "Apache-2.0",
    .summary = "holds another backend and its caller to the rules",
    .ops = &check_ops,
    .probe = probe,
    .init = init,
    .fini = fini,
};
