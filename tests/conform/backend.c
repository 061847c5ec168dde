/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend.c - the rules of moe/backend.h, but for the operations.
 *
 * Devices open and close, memory holds what was put there and is counted,
 * streams keep their order, and a refusal of the ledger leaves nothing.
 */

#include "conform/device.h"

#include <stdlib.h>
#include <string.h>

static struct cdevice the_device; /* its hashes outlive a reload */

static uint64_t
granules(const struct cdevice *d, uint64_t bytes)
{
    uint64_t g = d->info.mem_align;

    return ((bytes > 0 ? bytes : 1) + g - 1) / g * g;
}

/* ---------------------------------------------------------------- devices -- */

static void
test_devices(struct cdevice *d)
{
    struct conform         *c = d->c;
    struct moe_device_info  info;
    moe_device             *dev = NULL, *other = NULL;
    uint32_t                n = 0, i;

    d->ops->device_count(d->self, &n);
    for (i = 0; i < n; i++) {
        memset(&info, 0, sizeof(info));
        info.struct_size = sizeof(info);
        d->ops->device_info(d->self, i, &info);
        conform_note(c, "device %u: %s, domain %s, %llu of %llu MiB free", i,
                     info.name, info.domain,
                     (unsigned long long) info.mem_free >> 20,
                     (unsigned long long) info.mem_total >> 20);
    }
    conform_ok(c, d->ops->device_info(d->self, n, &info) < 0,
               "there is no information about device %u", n);
    conform_ok(c, d->ops->device_open(d->self, n, &dev, &d->err) < 0,
               "device %u cannot be opened", n);
    conform_status(c, d->ops->device_open(d->self, 0, &dev, &d->err), MOE_OK,
                   &d->err, "device 0 is opened");
    if (dev == NULL)
        return;
    conform_status(c, d->ops->device_open(d->self, 0, &other, &d->err),
                   MOE_OK, &d->err, "and once more");
    if (other != NULL)
        d->ops->device_close(other);
    d->ops->device_close(dev);
    conform_ok(c, c->held == 0 && c->grants == 0,
               "closed devices hold nothing in the ledger");
}

/* ----------------------------------------------------------------- memory -- */

static void
test_counting(struct cdevice *d)
{
    static const uint64_t sizes[] = { 1, 63, 4096, 1000003 };
    struct conform *c = d->c;
    moe_mem        *mem = NULL;
    uint64_t        before, held;
    size_t          i;
    uint32_t        use;

    for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        for (use = MOE_USE_ACT; use <= MOE_USE_SCRATCH; use++) {
            before = conform_held(c, d->info.domain);
            if (!conform_ok(c, d->ops->mem_alloc(d->dev, sizes[i], use, &mem,
                                                 &d->err)
                                   == MOE_OK,
                            "%llu bytes of memory",
                            (unsigned long long) sizes[i]))
                continue;
            held = conform_held(c, d->info.domain) - before;
            conform_ok(c, held == granules(d, sizes[i]),
                       "  are %llu in the ledger: the next multiple of "
                       "mem_align (%u)",
                       (unsigned long long) held, d->info.mem_align);
            if ((d->info.caps & MOE_CAP_HOST_VIEW) != 0)
                conform_ok(c, d->ops->mem_host_ptr(mem) != NULL,
                           "  seen by the host, as promised");
            d->ops->mem_free(mem);
            conform_ok(c, conform_held(c, d->info.domain) == before,
                       "  and given back");
        }
    if (conform_status(c, d->ops->mem_alloc(d->dev, 5000, MOE_USE_STAGING,
                                            &mem, &d->err),
                       MOE_OK, &d->err, "memory for staging")) {
        void *p = d->ops->mem_host_ptr(mem);

        conform_ok(c, p != NULL, "  has a host pointer");
        if (p != NULL)
            memset(p, 1, 5000);
        d->ops->mem_free(mem);
    }
}

static void
test_transfers(struct cdevice *d)
{
    enum { BYTES = 5000 };
    struct conform *c = d->c;
    struct moe_buf  a = { NULL, 0 }, b = { NULL, 0 }, at;
    unsigned char  *src = malloc(BYTES), *dst = malloc(BYTES);
    int             i, good = 1;

    for (i = 0; src != NULL && i < BYTES; i++)
        src[i] = (unsigned char) crandom(d);
    if (src == NULL || dst == NULL
        || d->ops->mem_alloc(d->dev, BYTES, MOE_USE_ACT, &a.mem, &d->err)
               != MOE_OK
        || d->ops->mem_alloc(d->dev, BYTES, MOE_USE_ACT, &b.mem, &d->err)
               != MOE_OK) {
        conform_ok(c, 0, "memory for the transfers");
    } else {
        memset(dst, 0, BYTES);
        good &= d->ops->upload(d->s, a, src, BYTES) == MOE_OK;
        good &= d->ops->download(d->s, dst, a, BYTES) == MOE_OK;
        good &= cdevice_sync(d) == MOE_OK;
        conform_ok(c, good && memcmp(src, dst, BYTES) == 0,
                   "what is uploaded is downloaded");
        at = a;
        at.off = 1001;
        good = d->ops->upload(d->s, at, src, 777) == MOE_OK;
        good &= d->ops->copy(d->s, b, a, BYTES) == MOE_OK;
        at.mem = b.mem;
        good &= d->ops->download(d->s, dst, at, 777) == MOE_OK;
        good &= cdevice_sync(d) == MOE_OK;
        conform_ok(c, good && memcmp(src, dst, 777) == 0,
                   "at odd offsets, and by way of a copy");
        at.off = 4001;
        good = d->ops->copy(d->s, at, (struct moe_buf){ a.mem, 1003 }, 333)
                   == MOE_OK
               && d->ops->download(d->s, dst, at, 333) == MOE_OK
               && cdevice_sync(d) == MOE_OK;
        conform_ok(c, good && memcmp(src + 2, dst, 333) == 0,
                   "a copy has an offset on either side");
        at.off = 999;
        good = d->ops->download(d->s, dst, at, 2) == MOE_OK
               && cdevice_sync(d) == MOE_OK;
        conform_ok(c, good && memcmp(src + 999, dst, 2) == 0,
                   "bytes beside it stay as they were");
        good = d->ops->upload(d->s, a, src, 0) == MOE_OK
               && d->ops->download(d->s, dst, a, 0) == MOE_OK
               && d->ops->copy(d->s, b, a, 0) == MOE_OK
               && cdevice_sync(d) == MOE_OK;
        conform_ok(c, good, "transfers of no bytes are legal");
    }
    if (a.mem != NULL)
        d->ops->mem_free(a.mem);
    if (b.mem != NULL)
        d->ops->mem_free(b.mem);
    free(src);
    free(dst);
}

/* ----------------------------------------------------------------- streams -- */

struct waiter {
    struct cdevice *d;
    moe_status      status;
};

static void *
wait_elsewhere(void *arg)
{
    struct waiter   *w = arg;
    struct moe_error err = { .struct_size = sizeof(err) };

    w->status = w->d->ops->event_wait(w->d->ev, CONFORM_TIMEOUT, &err);
    return NULL;
}

/* A baton goes back and forth between two streams, a copy at each step. */
static void
test_order(struct cdevice *d)
{
    enum { STEPS = 40, N = 256 };
    struct conform *c = d->c;
    struct moe_buf  x = { NULL, 0 }, y = { NULL, 0 };
    moe_stream     *s[2] = { NULL, NULL };
    moe_event      *ev[2] = { NULL, NULL };
    uint32_t        v[STEPS][N], got[STEPS][N], i, j;
    struct waiter   w = { d, MOE_E_INTERNAL };
    pthread_t       thread;
    int             good = 1;

    for (i = 0; i < 2; i++)
        if (d->ops->stream_create(d->dev, i == 0 ? 0 : 1, &s[i], &d->err)
                != MOE_OK
            || d->ops->event_create(d->dev, &ev[i], &d->err) != MOE_OK)
            good = 0;
    if (d->ops->mem_alloc(d->dev, sizeof(v[0]), MOE_USE_ACT, &x.mem, &d->err)
            != MOE_OK
        || d->ops->mem_alloc(d->dev, sizeof(v[0]), MOE_USE_ACT, &y.mem,
                             &d->err)
               != MOE_OK)
        good = 0;
    if (!conform_ok(c, good, "two more streams, two events, two buffers"))
        conform_note(c, "%s", d->err.text);
    for (i = 0; good && i < STEPS; i++) {
        for (j = 0; j < N; j++)
            v[i][j] = i * 1000 + j;
        if (i > 0)
            good &= d->ops->stream_wait(s[i % 2], ev[(i + 1) % 2]) == MOE_OK;
        good &= d->ops->upload(s[i % 2], x, v[i], sizeof(v[i])) == MOE_OK;
        good &= d->ops->copy(s[i % 2], y, x, sizeof(v[i])) == MOE_OK;
        good &= d->ops->download(s[i % 2], got[i], y, sizeof(got[i]))
                == MOE_OK;
        good &= d->ops->event_record(s[i % 2], ev[i % 2]) == MOE_OK;
    }
    for (i = 0; good && i < 2; i++)
        good &= d->ops->event_wait(ev[i], CONFORM_TIMEOUT, &d->err) == MOE_OK;
    conform_ok(c, good && memcmp(v, got, sizeof(v)) == 0,
               "event_record and stream_wait order two streams");
    conform_ok(c, good
                      && d->ops->event_query(ev[0], &d->err) == MOE_OK
                      && d->ops->event_query(ev[1], &d->err) == MOE_OK,
               "an event that was waited for has fired");
    w.status = d->ops->event_record(d->s, d->ev);
    if (w.status == MOE_OK
        && pthread_create(&thread, NULL, wait_elsewhere, &w) == 0)
        pthread_join(thread, NULL);
    conform_status(c, w.status, MOE_OK, NULL,
                   "another thread waits for an event");
    for (i = 0; i < 2; i++) {
        if (ev[i] != NULL)
            d->ops->event_destroy(ev[i]);
        if (s[i] != NULL)
            d->ops->stream_destroy(s[i]);
    }
    if (x.mem != NULL)
        d->ops->mem_free(x.mem);
    if (y.mem != NULL)
        d->ops->mem_free(y.mem);
}

/* ----------------------------------------------------------------- refusals -- */

static void
test_refusals(struct cdevice *d)
{
    struct conform    *c = d->c;
    struct moe_plan    plan = { .struct_size = sizeof(plan) };
    struct moe_op_norm norm = { .op = { sizeof(norm), MOE_OP_NORM, 0, 0 },
                                .rows = 1,
                                .n = 4,
                                .kind = MOE_NORM_RMS,
                                .dtype = MOE_F32,
                                .ldx = 4,
                                .ldy = 4 };
    struct moe_op      odd = { sizeof(odd), 4095, 0, 0 };
    struct moe_op_grouped_gemm gemm = {
        .op = { sizeof(gemm), MOE_OP_GROUPED_GEMM, 0, 0 },
        .n_groups = 1,
        .rows = 1,
        .n = 4,
        .k = 4,
        .n_parts = 1,
        .dtype = MOE_F32,
    };
    struct cformat     f32 = weights_universal(MOE_F32);
    struct moe_format  strange = *f32.format;
    struct moe_shape   shape = { sizeof(shape), 1, { 4 }, { 4 } };
    struct moe_weights w = { .struct_size = sizeof(w),
                             .format = &strange,
                             .shape = &shape };

    conform_status(c, d->ops->query(d->dev, &odd, NULL, &plan, &d->err),
                   MOE_E_UNSUPPORTED, &d->err,
                   "query of an operation that nobody knows: unsupported");
    conform_ok(c, d->ops->launch(d->s, &odd, &d->err) < 0,
               "and its launch is refused");
    norm.dtype = MOE_U8;
    conform_ok(c, d->ops->query(d->dev, &norm.op, NULL, &plan, &d->err) < 0,
               "query with activations of bytes is refused");
    strange.id = "strange-3";
    d->err.text[0] = '\0';
    conform_status(c, d->ops->query(d->dev, &gemm.op, &w, &plan, &d->err),
                   MOE_E_UNSUPPORTED, &d->err,
                   "query of a format that nobody knows: unsupported");
    conform_ok(c, d->err.text[0] != '\0', "and says why: %.200s",
               d->err.text);
    strange = *f32.format;
    strange.revision = 99;
    conform_status(c, d->ops->query(d->dev, &gemm.op, &w, &plan, &d->err),
                   MOE_E_UNSUPPORTED, &d->err,
                   "so is a revision that nobody knows");
    conform_ok(c, cdevice_sync(d) == MOE_OK,
               "after all refusals the device is well");
}

/* A little of everything that takes memory; gives it all back.  The first
 * failure. */
static moe_status
take_memory(struct cdevice *d)
{
    struct cformat   f32 = weights_universal(MOE_F32);
    struct moe_shape shape = { sizeof(shape), 1, { 40 }, { 40 } };
    struct moe_weights w = { .struct_size = sizeof(w),
                             .format = f32.format,
                             .shape = &shape };
    struct moe_plan  plan = { .struct_size = sizeof(plan) };
    struct moe_op_grouped_gemm op = {
        .op = { sizeof(op), MOE_OP_GROUPED_GEMM, 0, 0 },
        .n_groups = 1,
        .rows = 4,
        .n = 40,
        .k = 40,
        .n_parts = 1,
        .dtype = MOE_F32,
    };
    moe_mem   *mem[2] = { NULL, NULL };
    moe_slab  *slab = NULL;
    moe_status status;

    d->err.text[0] = '\0';
    status = cdevice_open(d);
    if (status == MOE_OK)
        status = d->ops->mem_alloc(d->dev, 10000, MOE_USE_ACT, &mem[0],
                                   &d->err);
    if (status == MOE_OK)
        status = d->ops->mem_alloc(d->dev, 10000, MOE_USE_STAGING, &mem[1],
                                   &d->err);
    if (status == MOE_OK)
        status = d->ops->query(d->dev, &op.op, &w, &plan, &d->err);
    if (status == MOE_OK)
        status = d->ops->slab_create(d->dev, &w, &plan, 3, &slab, &d->err);
    if (slab != NULL)
        d->ops->slab_destroy(slab);
    if (mem[1] != NULL)
        d->ops->mem_free(mem[1]);
    if (mem[0] != NULL)
        d->ops->mem_free(mem[0]);
    cdevice_close(d);
    return status;
}

/* Each call of reserve, then of alloc, is refused in its turn. */
static void
test_budget(struct cdevice *d)
{
    struct conform *c = d->c;
    int64_t         blocks = c->blocks;
    moe_status      status;
    uint64_t        n;

    status = take_memory(d);
    conform_status(c, status, MOE_OK, &d->err,
                   "memory, staging and a slab are taken and given back");
    conform_ok(c, c->grants == 0 && c->held == 0 && c->blocks == blocks,
               "nothing is left");
    for (n = 1; n < 100; n++) {
        c->deny_at = c->reserves + n;
        status = take_memory(d);
        if (c->reserves < c->deny_at)
            break;
        conform_ok(c, status == MOE_E_OVER_BUDGET && d->err.text[0] != '\0'
                          && c->grants == 0 && c->blocks == blocks,
                   "reserve refuses call %llu: over budget, nothing left "
                   "(%.160s)",
                   (unsigned long long) n, d->err.text);
        if (status != MOE_E_OVER_BUDGET)
            conform_note(c, "status %d, %llu grants and %lld blocks left",
                         status, (unsigned long long) c->grants,
                         (long long) (c->blocks - blocks));
    }
    c->deny_at = 0;
    conform_ok(c, n > 2,
               "the ledger is asked before memory and slabs are made");
    for (n = 1; n < 100; n++) {
        c->deny_alloc = c->allocs + n;
        status = take_memory(d);
        if (c->allocs < c->deny_alloc)
            break;
        conform_ok(c, status < 0 && c->grants == 0 && c->blocks == blocks,
                   "alloc gives NULL at call %llu: a failure, nothing left",
                   (unsigned long long) n);
    }
    c->deny_alloc = 0;
    c->limit = 1;
    conform_ok(c, take_memory(d) == MOE_E_OVER_BUDGET && c->grants == 0,
               "a budget of one byte: over budget");
    c->limit = 0;
    conform_status(c, take_memory(d), MOE_OK, &d->err,
                   "and after all refusals it works again");
}

/* ------------------------------------------------------------------- all -- */

/* The formats of the quantizers that were loaded beside the backend. */
static void
test_formats(struct cdevice *d)
{
    static const uint32_t scales[] = { 0, MOE_BF16, MOE_F16, MOE_F32 };
    struct moe_format_ref ref;
    struct moe_plane      planes[MOE_PLANES_MAX];
    struct moe_error      err = { .struct_size = sizeof(err) };
    uint32_t              n, s;
    size_t                i, p;

    for (i = 0; moe_registry_format_at(d->r, i, &ref) == MOE_OK; i++) {
        struct cformat f = { ref.format, ref.ops, ref.self, 0, 0 };
        uint64_t       rows = ref.format->n_multiple;
        uint64_t       cols = ref.format->k_multiple;

        if (!MOE_HAS(ref.ops, moe_quantizer_ops, encode)
            || ref.ops->encode == NULL) {
            conform_skip(d->c, ref.format->id, "it has no encode()");
            continue;
        }
        for (s = 0; s < 4; s++) {
            memset(planes, 0, sizeof(planes));
            for (p = 0; p < MOE_PLANES_MAX; p++)
                planes[p].struct_size = sizeof(planes[p]);
            if (ref.ops->planes(ref.self, ref.format, rows, cols, scales[s],
                                planes, &n, &err)
                != MOE_OK)
                continue;
            f.scale_dtype = scales[s];
            conform_products(d, &f);
            if (scales[s] == 0)
                break; /* no scales: one kind is all */
        }
    }
}

void
conform_backend(struct conform *c, const struct moe_registry *r,
                const struct moe_backend_ops *ops, void *self, int second)
{
    static const uint32_t types[] = { MOE_F32, MOE_F16, MOE_BF16 };
    struct cdevice       *d = &the_device;
    struct cformat        f;
    size_t                i;

    d->c = c;
    d->r = r;
    d->ops = ops;
    d->self = self;
    d->err.struct_size = sizeof(d->err);
    d->random = 20260727;
    d->second = second;
    memset(&d->info, 0, sizeof(d->info));
    d->info.struct_size = sizeof(d->info);
    ops->device_info(self, 0, &d->info);
    if (!second) {
        test_devices(d);
        test_budget(d);
    }
    if (!conform_status(c, cdevice_open(d), MOE_OK, &d->err,
                        "the device opens, with a stream and an event"))
        return;
    if (!second) {
        test_counting(d);
        test_transfers(d);
        test_order(d);
        test_refusals(d);
    }
    d->random = 1;
    conform_rows(d);
    conform_attention(d);
    for (i = 0; i < sizeof(types) / sizeof(*types); i++)
        if ((d->info.dtypes & MOE_DTYPE_BIT(types[i])) != 0) {
            f = weights_universal(types[i]);
            conform_products(d, &f);
        }
    test_formats(d);
    cdevice_close(d);
    conform_ok(c, c->held == 0 && c->grants == 0,
               "with the device closed, the ledger is at zero");
}
