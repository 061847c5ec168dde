/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scalar.c - a whole backend, as small as it can be: a place to start.
 *
 * The "device" is the processor and its memory.  Every call has done its work
 * when it returns, so streams and events are empty; a real device would put
 * the work on a queue, set MOE_CAP_ASYNC, and let events say when it is done.
 *
 * The one weight format is f32.  That is enough to run every model: the core
 * has a quantizer decode() what the file holds and uploads the numbers.  To
 * keep weights packed, say yes to their format in query() and lay the bytes
 * out in slot_upload() as your kernels like them.
 */

#include "scalar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGN 64u

static uint64_t
align_up(uint64_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* ------------------------------------------------------------------ device -- */

struct scalar {
    const struct moe_host *host;
};

static moe_status
device_count(void *self, uint32_t *out)
{
    (void) self;
    *out = 1;
    return MOE_OK;
}

static moe_status
device_info(void *self, uint32_t i, struct moe_device_info *out)
{
    uint64_t memory = (uint64_t) sysconf(_SC_PHYS_PAGES)
                      * (uint64_t) sysconf(_SC_PAGESIZE);

    (void) self;
    if (i != 0)
        return MOE_E_NOT_FOUND;
    out->caps = MOE_CAP_HOST_VIEW; /* mem_host_ptr is never NULL */
    out->dtypes = MOE_DTYPE_BIT(MOE_F32);
    out->preferred = MOE_F32;
    out->kv_dtypes = MOE_DTYPE_BIT(MOE_F32);
    out->reserved = 0;
    out->mem_total = out->mem_free = memory;
    out->mem_align = ALIGN; /* every allocation is a multiple of this */
    out->n_copy_engines = 0;
    /* "host": our memory is the host's, so it is one budget with it.  A
     * device with memory of its own has a domain of its own. */
    snprintf(out->domain, sizeof(out->domain), "host");
    out->uid[0] = '\0';
    snprintf(out->name, sizeof(out->name), "scalar code");
    return MOE_OK;
}

static moe_status
device_open(void *self, uint32_t i, moe_device **out, struct moe_error *err)
{
    const struct moe_host *host = ((struct scalar *) self)->host;
    moe_device            *dev;

    if (i != 0)
        return moe_fail(err, MOE_E_NOT_FOUND, 0, "scalar: no device %u", i);
    dev = host->alloc(host->ctx, sizeof(*dev), ALIGN);
    if (dev == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "scalar: out of memory");
    dev->host = host;
    *out = dev;
    return MOE_OK;
}

static void
device_close(moe_device *dev)
{
    dev->host->free(dev->host->ctx, dev);
}

/* ------------------------------------------------------------------ memory -- */

/* The ledger is asked first, always; what it refuses is not allocated.  The
 * core expects exactly the bytes asked for, rounded up to mem_align. */
static moe_status
get_memory(moe_device *dev, uint64_t bytes, const char *what, void **data,
           moe_grant **grant, struct moe_error *err)
{
    const struct moe_host *host = dev->host;
    uint64_t               size = align_up(bytes > 0 ? bytes : 1);
    moe_status status = host->reserve(host->ctx, "host", size, what, grant);

    if (status != MOE_OK)
        return moe_fail(err, status, 0,
                        "scalar: the budget has no %llu bytes for %s",
                        (unsigned long long) size, what);
    *data = aligned_alloc(ALIGN, size);
    if (*data == NULL) {
        host->release(host->ctx, *grant);
        return moe_fail(err, MOE_E_NOMEM, 0,
                        "scalar: no memory for %llu bytes of %s",
                        (unsigned long long) size, what);
    }
    return MOE_OK;
}

static void
put_memory(moe_device *dev, void *data, moe_grant *grant)
{
    free(data);
    dev->host->release(dev->host->ctx, grant);
}

static moe_status
mem_alloc(moe_device *dev, uint64_t bytes, uint32_t use, moe_mem **out,
          struct moe_error *err)
{
    moe_mem   *mem = calloc(1, sizeof(*mem));
    void      *data;
    moe_status status;

    if (mem == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "scalar: out of memory");
    status = get_memory(dev, bytes,
                        use == MOE_USE_SCRATCH ? "scratch" : "activations",
                        &data, &mem->grant, err);
    if (status != MOE_OK) {
        free(mem);
        return status;
    }
    mem->dev = dev;
    mem->data = data;
    *out = mem;
    return MOE_OK;
}

static void
mem_free(moe_mem *mem)
{
    if (mem == NULL)
        return;
    put_memory(mem->dev, mem->data, mem->grant);
    free(mem);
}

static void *
mem_host_ptr(moe_mem *mem)
{
    return mem->data;
}

/* -------------------------------------------------------- streams, events -- */

static moe_status
stream_create(moe_device *dev, int32_t priority, moe_stream **out,
              struct moe_error *err)
{
    moe_stream *s = calloc(1, sizeof(*s));

    (void) priority;
    if (s == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "scalar: out of memory");
    s->dev = dev;
    *out = s;
    return MOE_OK;
}

static void
stream_destroy(moe_stream *s)
{
    free(s);
}

static moe_status
event_create(moe_device *dev, moe_event **out, struct moe_error *err)
{
    moe_event *ev = calloc(1, sizeof(*ev));

    if (ev == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "scalar: out of memory");
    ev->dev = dev;
    *out = ev;
    return MOE_OK;
}

static void
event_destroy(moe_event *ev)
{
    free(ev);
}

/* Work is done when its call returns: an event has always fired. */
static moe_status
event_record(moe_stream *s, moe_event *ev)
{
    (void) s;
    (void) ev;
    return MOE_OK;
}

static moe_status
stream_wait(moe_stream *s, moe_event *ev)
{
    (void) s;
    (void) ev;
    return MOE_OK;
}

static moe_status
event_query(moe_event *ev, struct moe_error *err)
{
    (void) ev;
    (void) err;
    return MOE_OK;
}

static moe_status
event_wait(moe_event *ev, uint64_t timeout_ns, struct moe_error *err)
{
    (void) ev;
    (void) timeout_ns;
    (void) err;
    return MOE_OK;
}

static moe_status
upload(moe_stream *s, struct moe_buf dst, const void *src, uint64_t bytes)
{
    (void) s;
    memcpy(dst.mem->data + dst.off, src, bytes);
    return MOE_OK;
}

static moe_status
download(moe_stream *s, void *dst, struct moe_buf src, uint64_t bytes)
{
    (void) s;
    memcpy(dst, src.mem->data + src.off, bytes);
    return MOE_OK;
}

static moe_status
copy(moe_stream *s, struct moe_buf dst, struct moe_buf src, uint64_t bytes)
{
    (void) s;
    memmove(dst.mem->data + dst.off, src.mem->data + src.off, bytes);
    return MOE_OK;
}

/* ------------------------------------------------------- weights and work -- */

/* Floats of a slot, and where its parts begin; 0: not a shape we take. */
static uint64_t
lay_out(const struct moe_shape *shape, uint64_t at[MOE_PARTS_MAX])
{
    uint64_t floats = 0, part;
    uint32_t i;

    if (shape == NULL || shape->n_parts > MOE_PARTS_MAX)
        return 0;
    for (i = 0; i < shape->n_parts; i++) {
        at[i] = floats;
        if (__builtin_mul_overflow(shape->n[i], shape->k[i], &part)
            || part > (UINT64_MAX >> 8) - floats)
            return 0;
        floats += align_up(part * sizeof(float)) / sizeof(float);
    }
    return floats;
}

/*
 * The answer to "can you, and at what price?"  slot_bytes and work_bytes are
 * exact: the core computes from them how many experts fit.
 */
static moe_status
query(moe_device *dev, const struct moe_op *op, const struct moe_weights *w,
      struct moe_plan *out, struct moe_error *err)
{
    uint64_t   at[MOE_PARTS_MAX];
    moe_status status = scalar_known(op, err);

    (void) dev;
    if (status != MOE_OK)
        return status;
    if (w != NULL
        && (strcmp(w->format->id, "f32") != 0 || w->format->revision != 1))
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "scalar: no kernel for format %s", w->format->id);
    if (w != NULL && lay_out(w->shape, at) == 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "scalar: a slot of this shape is too large");
    out->tier = MOE_TIER_NATIVE;
    out->layout = 1; /* yours to number; it comes back in slab_create */
    out->slot_align = ALIGN;
    out->reserved = 0;
    out->slot_bytes = w != NULL ? lay_out(w->shape, at) * sizeof(float) : 0;
    out->work_bytes = scalar_work_bytes(op);
    snprintf(out->why, sizeof(out->why), "plain C");
    return MOE_OK;
}

static moe_status
slab_create(moe_device *dev, const struct moe_weights *w,
            const struct moe_plan *plan, uint32_t n_slots, moe_slab **out,
            struct moe_error *err)
{
    moe_slab  *slab = calloc(1, sizeof(*slab));
    void      *data = NULL;
    uint64_t   bytes;
    moe_status status;

    if (slab == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "scalar: out of memory");
    slab->slot_floats = lay_out(w->shape, slab->part_at);
    if (slab->slot_floats * sizeof(float) != plan->slot_bytes
        || __builtin_mul_overflow(plan->slot_bytes, (uint64_t) n_slots,
                                  &bytes))
        status = moe_fail(err, MOE_E_INVAL, 0,
                          "scalar: the plan is not for these weights");
    else
        status = get_memory(dev, bytes, "expert slots", &data, &slab->grant,
                            err);
    if (status != MOE_OK) {
        free(slab);
        return status;
    }
    slab->dev = dev;
    slab->data = data;
    slab->n_slots = n_slots;
    slab->shape = *w->shape;
    *out = slab;
    return MOE_OK;
}

static void
slab_destroy(moe_slab *slab)
{
    if (slab == NULL)
        return;
    put_memory(slab->dev, slab->data, slab->grant);
    free(slab);
}

static moe_status
slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
            const struct moe_weight_src *src, struct moe_error *err)
{
    uint64_t n, k;
    uint32_t i;

    (void) s;
    if (slot >= slab->n_slots)
        return moe_fail(err, MOE_E_INVAL, 0, "scalar: slot %u of %u", slot,
                        slab->n_slots);
    for (i = 0; i < slab->shape.n_parts; i++) {
        const struct moe_tensor *t = src->part[i]; /* n x k, f32 */

        n = slab->shape.n[i];
        k = slab->shape.k[i];
        if (t == NULL || t->plane[MOE_PLANE_ELEM] == NULL
            || t->len[MOE_PLANE_ELEM] < n * k * sizeof(float))
            return moe_fail(err, MOE_E_INVAL, 0,
                            "scalar: part %u is too short for %llu x %llu", i,
                            (unsigned long long) n, (unsigned long long) k);
        memcpy(slab->data + slot * slab->slot_floats + slab->part_at[i],
               t->plane[MOE_PLANE_ELEM], n * k * sizeof(float));
    }
    return MOE_OK;
}

static moe_status
launch(moe_stream *s, const struct moe_op *op, struct moe_error *err)
{
    moe_status status = scalar_known(op, err);

    return status == MOE_OK ? scalar_run(s->dev, op, err) : status;
}

/* ------------------------------------------------------------------ plugin -- */

static const struct moe_backend_ops scalar_ops = {
    .struct_size = sizeof(scalar_ops),
    .device_count = device_count,
    .device_info = device_info,
    .device_open = device_open,
    .device_close = device_close,
    .mem_alloc = mem_alloc,
    .mem_free = mem_free,
    .mem_host_ptr = mem_host_ptr,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .stream_wait = stream_wait,
    .event_query = event_query,
    .event_wait = event_wait,
    .upload = upload,
    .download = download,
    .copy = copy,
    .query = query,
    .slab_create = slab_create,
    .slab_destroy = slab_destroy,
    .slot_upload = slot_upload,
    .launch = launch,
};

/* Is the hardware here?  Cheap, no side effects; with score 0, say why. */
static moe_status
probe(const struct moe_host *host, struct moe_probe *out,
      struct moe_error *err)
{
    (void) host;
    (void) err;
    out->score = 2; /* the cpu backend is faster: let "auto" choose that */
    return MOE_OK;
}

static moe_status
init(const struct moe_host *host, void **self, struct moe_error *err)
{
    struct scalar *me = host->alloc(host->ctx, sizeof(*me), ALIGN);

    if (me == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "scalar: out of memory");
    me->host = host;
    *self = me;
    return MOE_OK;
}

static void
fini(void *self)
{
    struct scalar *me = self;

    me->host->free(me->host->ctx, me);
}

/* The one symbol that is exported.  The name is the file's, without .so. */
MOE_PLUGIN_DEFINE(scalar) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_BACKEND,
    .name = "scalar",
    .version = "1.0",
    .license = "Apache-2.0",
    .summary = "plain C, one number at a time",
    .ops = &scalar_ops,
    .probe = probe,
    .init = init,
    .fini = fini,
};
