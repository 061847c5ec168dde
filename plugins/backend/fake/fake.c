/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake.c - a device that does not exist.
 *
 * For tests of everything above a backend: order (lazy streams, queue.c),
 * memory that was never written (NaN), the n-th call that fails, time that
 * nobody has to wait for.  It computes with the reference operations
 * (common/ref_ops.h): slow, and right.
 *
 * Keys of [backend.fake], all optional:
 *   fail       "launch:7 alloc:2": the n-th call of a kind fails, counted
 *              over the life of the plugin.  open, stream, event: a device
 *              error; alloc, slab: out of memory; reserve: over budget;
 *              upload, download, copy, slot, launch: the device faults when
 *              the work runs, and stays so until it is closed
 *   seed       order of the streams (1)
 *   memory     bytes of a device, K, M or G allowed (1G)
 *   bandwidth  bytes a second of the link, in virtual time (0: no limit)
 *   launch-ns  virtual time of a launch (0)
 *   generic    yes: interpret affine formats; no: f32 weights only (no)
 *   devices    how many (1)
 *
 * Owns the plugin, its options and its devices.  One lock a device: any
 * thread may ask for an event, and that runs the work of all streams.
 */

#include "backend/fake/fake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/fake/impl.h"

static const char *const fake_call_names[FAKE_CALLS] = {
    "open",   "alloc",    "reserve", "stream", "event", "slab",
    "upload", "download", "copy",    "slot",   "launch",
};

/* ---------------------------------------------------------------- options -- */

/* "12", "4K", "1G"; 0 if it is none. */
static int
parse_u64(const char *text, uint64_t *out)
{
    char              *end;
    unsigned long long v;
    unsigned           shift = 0;

    if (*text < '0' || *text > '9')
        return 0;
    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno != 0)
        return 0;
    if (*end == 'K' || *end == 'M' || *end == 'G') {
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 30;
        end++;
    }
    if (*end != '\0' || v > UINT64_MAX >> shift)
        return 0;
    *out = (uint64_t) v << shift;
    return 1;
}

static moe_status
read_u64(const struct moe_host *host, const char *key, uint64_t low,
         uint64_t high, uint64_t *out, struct moe_error *err)
{
    const char *text = host->config(host->ctx, key);

    if (text == NULL)
        return MOE_OK;
    if (!parse_u64(text, out) || *out < low || *out > high)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "[backend.fake] %s = %.40s: a number from %llu to "
                        "%llu is wanted",
                        key, text, (unsigned long long) low,
                        (unsigned long long) high);
    return MOE_OK;
}

static moe_status
read_fail(struct fake *f, struct moe_error *err)
{
    const char *text = f->host->config(f->host->ctx, "fail");
    char        word[48];
    size_t      len;

    while (text != NULL && *(text += strspn(text, " ,\t")) != '\0') {
        uint32_t call = 0;
        char    *colon;

        len = strcspn(text, " ,\t");
        snprintf(word, sizeof(word), "%.*s", len < 47 ? (int) len : 47, text);
        text += len;
        colon = strchr(word, ':');
        if (colon != NULL)
            *colon = '\0';
        while (call < FAKE_CALLS && strcmp(word, fake_call_names[call]) != 0)
            call++;
        if (call == FAKE_CALLS || colon == NULL || f->n_faults == FAKE_FAULTS
            || !parse_u64(colon + 1, &f->fault[f->n_faults].n)
            || f->fault[f->n_faults].n == 0)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "[backend.fake] fail = %s: CALL:N is wanted, "
                            "launch:7 say, at most %u of them",
                            word, FAKE_FAULTS);
        f->fault[f->n_faults++].call = (enum fake_call) call;
    }
    return MOE_OK;
}

static moe_status
read_options(struct fake *f, struct moe_error *err)
{
    const struct moe_host *host = f->host;
    const char *generic = host->config(host->ctx, "generic");
    uint64_t    devices = 1;
    moe_status  status;

    f->seed = 1;
    f->memory = (uint64_t) 1 << 30;
    status = read_u64(host, "seed", 0, UINT64_MAX, &f->seed, err);
    if (status == MOE_OK)
        status = read_u64(host, "memory", 1, UINT64_MAX, &f->memory, err);
    if (status == MOE_OK)
        status = read_u64(host, "bandwidth", 0, UINT64_MAX, &f->bandwidth,
                          err);
    if (status == MOE_OK)
        status = read_u64(host, "launch-ns", 0, (uint64_t) 1 << 40,
                          &f->launch_ns, err);
    if (status == MOE_OK)
        status = read_u64(host, "devices", 1, FAKE_DEVICES, &devices, err);
    if (status == MOE_OK)
        status = read_fail(f, err);
    if (status != MOE_OK)
        return status;
    f->n_devices = (uint32_t) devices;
    if (generic != NULL && strcmp(generic, "yes") != 0
        && strcmp(generic, "no") != 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "[backend.fake] generic = %.40s: yes or no is wanted",
                        generic);
    f->generic = generic != NULL && strcmp(generic, "yes") == 0;
    return MOE_OK;
}

int
fake_count(struct fake *f, enum fake_call call)
{
    uint64_t n;
    uint32_t i;
    int      fail = 0;

    pthread_mutex_lock(&f->lock);
    n = ++f->count[call];
    pthread_mutex_unlock(&f->lock);
    for (i = 0; i < f->n_faults; i++)
        fail |= f->fault[i].call == call && f->fault[i].n == n;
    return fail;
}

/* ------------------------------------------------------- plugin and device -- */

static moe_status
fake_probe(const struct moe_host *host, struct moe_probe *out,
           struct moe_error *err)
{
    (void) host;
    (void) err;
    out->score = 1; /* below any real device: "auto" must not choose it */
    snprintf(out->why, sizeof(out->why), "for tests");
    return MOE_OK;
}

static moe_status
fake_init(const struct moe_host *host, void **self, struct moe_error *err)
{
    struct fake *f = host->alloc(host->ctx, sizeof(*f), 64);
    moe_status   status;

    if (f == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "fake: out of memory");
    memset(f, 0, sizeof(*f));
    f->host = host;
    status = read_options(f, err);
    if (status != MOE_OK) {
        host->free(host->ctx, f);
        return status;
    }
    pthread_mutex_init(&f->lock, NULL);
    *self = f;
    return MOE_OK;
}

static void
fake_fini(void *self)
{
    struct fake *f = self;

    pthread_mutex_destroy(&f->lock);
    f->host->free(f->host->ctx, f);
}

static moe_status
fake_device_count(void *self, uint32_t *out)
{
    *out = ((struct fake *) self)->n_devices;
    return MOE_OK;
}

static moe_status
fake_device_info(void *self, uint32_t i, struct moe_device_info *out)
{
    struct fake *f = self;
    uint32_t     size = out->struct_size;

    if (i >= f->n_devices)
        return MOE_E_NOT_FOUND;
    memset(out, 0, size < sizeof(*out) ? size : sizeof(*out));
    out->struct_size = size;
    out->caps = MOE_CAP_ASYNC | MOE_CAP_ADVISE;
    out->dtypes = MOE_DTYPE_BIT(MOE_F32);
    out->preferred = MOE_F32;
    out->kv_dtypes = MOE_DTYPE_BIT(MOE_F32) | MOE_DTYPE_BIT(MOE_F16)
                     | MOE_DTYPE_BIT(MOE_BF16);
    out->mem_total = f->memory;
    pthread_mutex_lock(&f->lock);
    out->mem_free = f->memory - f->used[i];
    pthread_mutex_unlock(&f->lock);
    out->mem_align = FAKE_ALIGN;
    out->n_copy_engines = 1;
    snprintf(out->domain, sizeof(out->domain), "fake%u", i);
    snprintf(out->uid, sizeof(out->uid), "fake%u", i);
    snprintf(out->name, sizeof(out->name), "a device that does not exist");
    return MOE_OK;
}

/* The last object of a closed device takes it along.  Holds no lock. */
void
fake_device_unref(moe_device *dev)
{
    uint32_t left;

    pthread_mutex_lock(&dev->lock);
    left = --dev->objects;
    pthread_mutex_unlock(&dev->lock);
    if (left > 0)
        return;
    pthread_mutex_destroy(&dev->lock);
    dev->fake->host->free(dev->fake->host->ctx, dev);
}

static moe_status
fake_device_open(void *self, uint32_t i, moe_device **out,
                 struct moe_error *err)
{
    struct fake *f = self;
    moe_device  *dev;

    if (i >= f->n_devices)
        return moe_fail(err, MOE_E_NOT_FOUND, 0, "fake: device %u of %u", i,
                        f->n_devices);
    if (fake_count(f, FAKE_OPEN))
        return moe_fail(err, MOE_E_DEVICE, 0,
                        "fake: open failed because `fail` says so");
    dev = f->host->alloc(f->host->ctx, sizeof(*dev), 64);
    if (dev == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "fake: out of memory");
    memset(dev, 0, sizeof(*dev));
    pthread_mutex_init(&dev->lock, NULL);
    dev->fake = f;
    dev->index = i;
    dev->objects = 1;
    dev->random = f->seed * 0x100000001b3u + i;
    *out = dev;
    return MOE_OK;
}

static void
fake_device_close(moe_device *dev)
{
    const struct moe_host *host = dev->fake->host;
    char                   text[80];
    uint32_t               left;

    pthread_mutex_lock(&dev->lock);
    fake_drop_all(dev);
    left = dev->objects - 1;
    pthread_mutex_unlock(&dev->lock);
    snprintf(text, sizeof(text), "closed with %u objects alive", left);
    if (left > 0)
        host->log(host->ctx, MOE_LOG_WARN, text);
    fake_device_unref(dev);
}

/* A new object of dev begins, or MOE_E_DEVICE. */
moe_status
fake_object_begin(moe_device *dev, enum fake_call call, moe_status injected,
                  struct moe_error *err)
{
    moe_status status;
    int        fail = fake_count(dev->fake, call);

    pthread_mutex_lock(&dev->lock);
    status = fake_fault_status(dev, err);
    if (status == MOE_OK && fail)
        status = moe_fail(err, injected, 0,
                          "fake device %u: %s failed because `fail` says so",
                          dev->index, fake_call_names[call]);
    if (status == MOE_OK)
        dev->objects++;
    pthread_mutex_unlock(&dev->lock);
    return status;
}

/* ------------------------------------------------------------ work, locked -- */

static moe_status
fake_query_locked(moe_device *dev, const struct moe_op *op,
                  const struct moe_weights *w, struct moe_plan *out,
                  struct moe_error *err)
{
    moe_status status;

    pthread_mutex_lock(&dev->lock);
    status = fake_fault_status(dev, err);
    pthread_mutex_unlock(&dev->lock);
    return status == MOE_OK ? fake_query(dev, op, w, out, err) : status;
}

static moe_status
fake_slot_upload_locked(moe_stream *s, moe_slab *slab, uint32_t slot,
                        const struct moe_weight_src *src,
                        struct moe_error            *err)
{
    moe_status status;

    pthread_mutex_lock(&s->dev->lock);
    status = fake_fault_status(s->dev, err);
    if (status == MOE_OK)
        status = fake_slot_upload(s, slab, slot, src, err);
    pthread_mutex_unlock(&s->dev->lock);
    return status;
}

static moe_status
fake_launch_locked(moe_stream *s, const struct moe_op *op,
                   struct moe_error *err)
{
    moe_status status;

    pthread_mutex_lock(&s->dev->lock);
    status = fake_fault_status(s->dev, err);
    if (status == MOE_OK)
        status = fake_launch(s, op, err);
    pthread_mutex_unlock(&s->dev->lock);
    return status;
}

/* -------------------------------------------------------------- extension -- */

static uint64_t
read_counter(moe_device *dev, const uint64_t *counter)
{
    uint64_t v;

    pthread_mutex_lock(&dev->lock);
    v = *counter;
    pthread_mutex_unlock(&dev->lock);
    return v;
}

static uint64_t
time_now(moe_device *dev)
{
    return read_counter(dev, &dev->host_ns);
}

static uint64_t
time_link(moe_device *dev)
{
    return read_counter(dev, &dev->link_ns);
}

static uint64_t
count_pending(moe_device *dev)
{
    return read_counter(dev, &dev->pending);
}

static uint64_t
count_executed(moe_device *dev)
{
    return read_counter(dev, &dev->executed);
}

static const struct moe_fake_time fake_time = {
    .struct_size = sizeof(fake_time),
    .now_ns = time_now,
    .link_ns = time_link,
    .pending = count_pending,
    .executed = count_executed,
};

static const void *
fake_extension(moe_device *dev, const char *name)
{
    (void) dev;
    return strcmp(name, MOE_FAKE_TIME) == 0 ? &fake_time : NULL;
}

static const struct moe_backend_ops fake_ops = {
    .struct_size = sizeof(fake_ops),
    .device_count = fake_device_count,
    .device_info = fake_device_info,
    .device_open = fake_device_open,
    .device_close = fake_device_close,
    .mem_alloc = fake_mem_alloc,
    .mem_free = fake_mem_free,
    .mem_host_ptr = fake_mem_host_ptr,
    .stream_create = fake_stream_create,
    .stream_destroy = fake_stream_destroy,
    .event_create = fake_event_create,
    .event_destroy = fake_event_destroy,
    .event_record = fake_event_record,
    .stream_wait = fake_stream_wait,
    .event_query = fake_event_query,
    .event_wait = fake_event_wait,
    .upload = fake_upload,
    .download = fake_download,
    .copy = fake_copy,
    .query = fake_query_locked,
    .slab_create = fake_slab_create,
    .slab_destroy = fake_slab_destroy,
    .slot_upload = fake_slot_upload_locked,
    .launch = fake_launch_locked,
    .slot_advise = fake_slot_advise,
    .extension = fake_extension,
};

MOE_PLUGIN_DEFINE(fake) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_BACKEND,
    .name = "fake",
    .version = "0.1.0",
    .license = "Apache-2.0",
    .summary = "a device that does not exist, for tests",
    .ops = &fake_ops,
    .probe = fake_probe,
    .init = fake_init,
    .fini = fake_fini,
};
