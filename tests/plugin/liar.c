/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liar.c - a backend that breaks one rule of its own, for test_check.
 *
 * `lie` in its section says which: "no-reserve", "keep" (a reservation after
 * a failure), "much", "slab", "tier", "why", "size", "heal" (a device that is
 * well again after MOE_E_DEVICE), "no-view", "call" (logs from upload, so
 * that the host can call while a stream is in use).  Its memory is the
 * host's; it computes nothing.
 */

#include <moe/backend.h>
#include <moe/plugin.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct liar {
    const struct moe_host *host;
    const char            *lie;
    moe_grant             *kept; /* by "keep", until fini */
};

struct moe_device {
    struct liar *l;
    uint32_t     waits;
};

struct moe_mem {
    struct liar *l;
    moe_grant   *grant;
    char         data[256];
};

struct moe_stream {
    struct liar *l;
};

struct moe_event {
    moe_device *dev;
};

static int
lies(const struct liar *l, const char *what)
{
    return strcmp(l->lie, what) == 0;
}

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
    (void) self;
    if (i != 0)
        return MOE_E_NOT_FOUND;
    out->caps = MOE_CAP_HOST_VIEW;
    out->dtypes = out->kv_dtypes = MOE_DTYPE_BIT(MOE_F32);
    out->preferred = MOE_F32;
    out->mem_align = 256;
    snprintf(out->domain, sizeof(out->domain), "liar");
    return MOE_OK;
}

static moe_status
device_open(void *self, uint32_t i, moe_device **out, struct moe_error *err)
{
    (void) i, (void) err;
    *out = calloc(1, sizeof(**out));
    (*out)->l = self;
    return MOE_OK;
}

static void
device_close(moe_device *dev)
{
    free(dev);
}

static moe_status
mem_alloc(moe_device *dev, uint64_t bytes, uint32_t use, moe_mem **out,
          struct moe_error *err)
{
    const struct moe_host *h = dev->l->host;
    moe_mem               *mem = calloc(1, sizeof(*mem));

    (void) use;
    mem->l = dev->l;
    if (!lies(dev->l, "no-reserve"))
        h->reserve(h->ctx, "liar", lies(dev->l, "much") ? 512 : 256, "memory",
                   &mem->grant);
    if (bytes > sizeof(mem->data)) {
        if (lies(dev->l, "keep"))
            dev->l->kept = mem->grant;
        else
            h->release(h->ctx, mem->grant);
        free(mem);
        return moe_fail(err, MOE_E_NOMEM, 0, "liar: no memory");
    }
    *out = mem;
    return MOE_OK;
}

static void
mem_free(moe_mem *mem)
{
    if (mem->grant != NULL)
        mem->l->host->release(mem->l->host->ctx, mem->grant);
    free(mem);
}

static void *
mem_host_ptr(moe_mem *mem)
{
    return lies(mem->l, "no-view") ? NULL : mem->data;
}

static moe_status
stream_create(moe_device *dev, int32_t priority, moe_stream **out,
              struct moe_error *err)
{
    (void) priority, (void) err;
    *out = calloc(1, sizeof(**out));
    (*out)->l = dev->l;
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
    (void) err;
    *out = calloc(1, sizeof(**out));
    (*out)->dev = dev;
    return MOE_OK;
}

static void
event_destroy(moe_event *ev)
{
    free(ev);
}

static moe_status
event_record(moe_stream *s, moe_event *ev)
{
    (void) s, (void) ev;
    return MOE_OK;
}

static moe_status
stream_wait(moe_stream *s, moe_event *ev)
{
    (void) s, (void) ev;
    return MOE_OK;
}

static moe_status
event_query(moe_event *ev, struct moe_error *err)
{
    if (lies(ev->dev->l, "heal") && ev->dev->waits++ == 0)
        return moe_fail(err, MOE_E_DEVICE, 0, "liar: a passing fault");
    return MOE_OK;
}

static moe_status
event_wait(moe_event *ev, uint64_t timeout_ns, struct moe_error *err)
{
    (void) timeout_ns;
    return event_query(ev, err);
}

static moe_status
upload(moe_stream *s, struct moe_buf dst, const void *src, uint64_t bytes)
{
    memcpy(dst.mem->data + dst.off, src, bytes);
    if (lies(s->l, "call"))
        s->l->host->log(s->l->host->ctx, MOE_LOG_DEBUG, "in upload");
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

static moe_status
query(moe_device *dev, const struct moe_op *op, const struct moe_weights *w,
      struct moe_plan *out, struct moe_error *err)
{
    (void) op, (void) w, (void) err;
    out->tier = lies(dev->l, "tier") ? MOE_TIER_EXPAND : MOE_TIER_NATIVE;
    out->slot_bytes = lies(dev->l, "size") ? 0 : 256;
    out->slot_align = 64;
    memset(out->why, lies(dev->l, "why") ? 'x' : 0, sizeof(out->why));
    return MOE_OK;
}

static moe_status
slab_create(moe_device *dev, const struct moe_weights *w,
            const struct moe_plan *plan, uint32_t n_slots, moe_slab **out,
            struct moe_error *err)
{
    moe_mem *mem = NULL;

    (void) w, (void) plan, (void) n_slots;
    /* one slot is all it ever reserves: a lie for two */
    if (mem_alloc(dev, 256, MOE_USE_ACT, &mem, err) != MOE_OK)
        return MOE_E_NOMEM;
    *out = (moe_slab *) (void *) mem;
    return MOE_OK;
}

static void
slab_destroy(moe_slab *slab)
{
    mem_free((moe_mem *) (void *) slab);
}

static moe_status
slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
            const struct moe_weight_src *src, struct moe_error *err)
{
    (void) s, (void) slab, (void) slot, (void) src, (void) err;
    return MOE_OK;
}

static moe_status
launch(moe_stream *s, const struct moe_op *op, struct moe_error *err)
{
    (void) s, (void) op, (void) err;
    return MOE_OK;
}

static const struct moe_backend_ops ops = {
    .struct_size = sizeof(ops),
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

static moe_status
init(const struct moe_host *host, void **self, struct moe_error *err)
{
    struct liar *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "liar: out of memory");
    l->host = host;
    l->lie = host->config(host->ctx, "lie");
    if (l->lie == NULL)
        l->lie = "";
    *self = l;
    return MOE_OK;
}

static void
fini(void *self)
{
    struct liar *l = self;

    if (l->kept != NULL)
        l->host->release(l->host->ctx, l->kept);
    free(l);
}

MOE_PLUGIN_DEFINE(liar) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_BACKEND,
    .name = "liar",
    .version = "1",
    .license = "Apache-2.0",
    .summary = "breaks a rule on demand",
    .ops = &ops,
    .init = init,
    .fini = fini,
};
