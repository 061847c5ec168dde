/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_fake.c - the device that does not exist does what it says.
 *
 * Lazy streams in an order drawn by a seed, memory full of NaN, the n-th call
 * that fails, a device that stays broken, time that is only counted.
 */

#include <math.h>
#include <pthread.h>

#include "backend/fake/fake.h"
#include "device.h"
#include "tap.h"

#define FAKE "plugins/backend/fake/.libs/fake.so"

static moe_status
load(struct test_device *t, const char *const *config)
{
    return test_load(t, test_built(FAKE), "fake", config);
}

static moe_status
open_fake(struct test_device *t, const char *const *config)
{
    moe_status status = load(t, config);

    return status == MOE_OK ? test_open(t) : status;
}

static void
test_memory(void)
{
    struct test_device     t;
    struct moe_device_info info = { .struct_size = sizeof(info) };
    struct moe_buf         b = { NULL, 0 };
    moe_mem               *host;
    float                  x[4] = { 0, 0, 0, 0 };
    const char *config[] = { "backend.fake.memory", "4K", NULL };

    is_int(open_fake(&t, config), MOE_OK, "the device opens");
    t.ops->device_info(t.self, 0, &info);
    is_int(info.caps & (MOE_CAP_ASYNC | MOE_CAP_HOST_VIEW), MOE_CAP_ASYNC,
           "asynchronous, and the host sees no memory");
    is_int(info.mem_total, 4096, "as much memory as asked for");
    is_str(info.domain, "fake0", "in a domain of its own");
    is_int(test_put(&t, NULL, 16, &b), MOE_OK, "memory");
    is_int(test_get(&t, b, x, 16), MOE_OK, "is read");
    ok(isnan(x[0]) && isnan(x[3]), "and is NaN");
    ok(t.ops->mem_host_ptr(b.mem) == NULL, "it has no host pointer");
    is_int(t.host.held, 64, "the ledger knows it, by the granule");
    t.ops->device_info(t.self, 0, &info);
    is_int(info.mem_free, 4032, "so does mem_free");
    is_int(t.ops->mem_alloc(t.dev, 4096, MOE_USE_ACT, &host, &t.err),
           MOE_E_NOMEM, "more than there is");
    has_str(t.err.text, "4096", "is refused with figures");
    is_int(t.host.held, 64, "and gives its reservation back");
    t.host.limit = 100;
    is_int(t.ops->mem_alloc(t.dev, 200, MOE_USE_ACT, &host, &t.err),
           MOE_E_OVER_BUDGET, "what the ledger refuses is refused");
    t.host.limit = 0;
    is_int(t.ops->mem_alloc(t.dev, 64, MOE_USE_STAGING, &host, &t.err),
           MOE_OK, "staging memory");
    ok(t.ops->mem_host_ptr(host) != NULL, "has a host pointer");
    is_int(t.host.held, 64, "and is the host's");
    t.ops->mem_free(host);
    is_int(t.ops->download(t.s, x, (struct moe_buf){ b.mem, 8 }, 16),
           MOE_E_INVAL, "a read past the end is refused when it is asked");
    t.ops->mem_free(b.mem);
    test_unload(&t);
    is_int(t.host.held, 0, "the ledger ends at zero");
    is_int(t.host.blocks, 0, "so does host memory");
}

/* Uploads on one stream, reads on the other, with or without the wait that
 * orders them.  Returns 1 if the right number arrived. */
static int
race(const char *seed, int wait)
{
    const char *config[] = { "backend.fake.seed", seed, NULL };
    struct test_device t;
    struct moe_buf     b = { NULL, 0 };
    moe_stream        *other = NULL;
    moe_event         *sent = NULL, *back = NULL;
    float              one = 1.0f, got = 0.0f;

    if (open_fake(&t, config) != MOE_OK || test_put(&t, NULL, 4, &b) != MOE_OK
        || t.ops->stream_create(t.dev, 0, &other, &t.err) != MOE_OK
        || t.ops->event_create(t.dev, &sent, &t.err) != MOE_OK
        || t.ops->event_create(t.dev, &back, &t.err) != MOE_OK)
        return -1;
    t.ops->upload(t.s, b, &one, 4);
    t.ops->event_record(t.s, sent);
    if (wait)
        t.ops->stream_wait(other, sent);
    t.ops->download(other, &got, b, 4);
    t.ops->event_record(other, back);
    t.ops->event_wait(back, FOREVER, &t.err);
    t.ops->event_wait(sent, FOREVER, &t.err);
    t.ops->event_destroy(back);
    t.ops->event_destroy(sent);
    t.ops->stream_destroy(other);
    t.ops->mem_free(b.mem);
    test_unload(&t);
    return got == one;
}

static void
test_order(void)
{
    struct test_device t;
    const struct moe_fake_time *time;
    struct moe_buf b = { NULL, 0 };
    float          x = 1.0f, y = 0.0f;
    char           seed[16];
    int            i, right = 0, wrong = 0, polls = 0;
    moe_status     status;

    is_int(open_fake(&t, NULL), MOE_OK, "the device opens");
    time = t.ops->extension(t.dev, MOE_FAKE_TIME);
    ok(time != NULL, "it has an extension for tests");
    ok(t.ops->extension(t.dev, "moe.other") == NULL, "and no other");
    test_put(&t, NULL, 4, &b);
    is_int(time->pending(t.dev), 0, "nothing is queued");
    t.ops->upload(t.s, b, &x, 4);
    t.ops->download(t.s, &y, b, 4);
    is_int(time->pending(t.dev), 2, "calls are queued");
    ok(y == 0.0f, "and nothing has run");
    x = 2.0f; /* against the rules, and therefore seen */
    t.ops->event_record(t.s, t.ev);
    while ((status = t.ops->event_query(t.ev, &t.err)) == MOE_PENDING
           && polls < 100)
        polls++;
    is_int(status, MOE_OK, "polling comes to an end");
    ok(y == 2.0f, "the source is read when the work runs");
    is_int(t.ops->event_wait(t.ev, 0, &t.err), MOE_OK,
           "an event that fired stays so");
    t.ops->mem_free(b.mem);
    test_unload(&t);

    for (i = 0; i < 200; i++) {
        snprintf(seed, sizeof(seed), "%d", i);
        wrong += race(seed, 0) == 0;
        right += race(seed, 1) == 1;
    }
    is_int(right, 200, "200 seeds with the wait: right every time");
    ok(wrong > 50 && wrong < 200, "200 seeds without: wrong %d times", wrong);
}

static void
test_time(void)
{
    const char *config[] = { "backend.fake.bandwidth", "1000000000",
                             "backend.fake.launch-ns", "500", NULL };
    struct test_device          t;
    const struct moe_fake_time *time;
    struct moe_buf              a = { NULL, 0 }, b = { NULL, 0 };
    struct moe_op_norm norm = { .op = { .struct_size = sizeof(norm),
                                        .code = MOE_OP_NORM },
                                .rows = 1,
                                .n = 4,
                                .kind = MOE_NORM_RMS,
                                .dtype = MOE_F32,
                                .ldx = 4,
                                .ldy = 4 };
    static char data[20000];
    moe_stream *other;
    moe_event  *ev2;
    uint64_t    t0;

    open_fake(&t, config);
    time = t.ops->extension(t.dev, MOE_FAKE_TIME);
    test_put(&t, NULL, 20000, &a);
    test_put(&t, NULL, 20000, &b);
    t.ops->stream_create(t.dev, 0, &other, &t.err);
    t.ops->event_create(t.dev, &ev2, &t.err);
    is_int(time->now_ns(t.dev), 0, "the clock begins at 0");
    t.ops->upload(t.s, a, data, 10000);
    test_sync(&t);
    is_int(time->now_ns(t.dev), 10000, "10 kB at 1 GB/s take 10 us");
    t.ops->upload(t.s, a, data, 20000);
    t.ops->upload(other, b, data, 20000);
    t.ops->event_record(t.s, t.ev);
    t.ops->event_record(other, ev2);
    is_int(time->now_ns(t.dev), 10000, "to queue takes no time");
    t.ops->event_wait(t.ev, FOREVER, &t.err);
    t.ops->event_wait(ev2, FOREVER, &t.err);
    is_int(time->now_ns(t.dev), 50000, "two streams share the link");
    is_int(time->link_ns(t.dev), 50000, "which was busy all the time");
    t0 = time->now_ns(t.dev);
    norm.x = norm.y = a;
    norm.eps = 1e-6f;
    t.ops->launch(t.s, &norm.op, &t.err);
    t.ops->launch(other, &norm.op, &t.err);
    norm.rows = 1;
    t.ops->event_record(t.s, t.ev);
    t.ops->event_record(other, ev2);
    t.ops->event_wait(t.ev, FOREVER, &t.err);
    t.ops->event_wait(ev2, FOREVER, &t.err);
    is_int(time->now_ns(t.dev) - t0, 500, "launches on two streams overlap");
    t.ops->event_destroy(ev2);
    t.ops->stream_destroy(other);
    t.ops->mem_free(a.mem);
    t.ops->mem_free(b.mem);
    test_unload(&t);
}

/* ------------------------------------------------------------------ faults -- */

/* A little of everything; the status of the first call that failed.  Leaves
 * nothing behind, however far it got. */
static moe_status
scenario(struct test_device *t, float y[2])
{
    static const float w[6] = { 1, 2, 3, 4, 5, 6 }, x[3] = { 1, 1, 1 };
    struct moe_op_grouped_gemm op = { .op = { .struct_size = sizeof(op),
                                              .code = MOE_OP_GROUPED_GEMM } };
    struct moe_buf  bx = { NULL, 0 }, by = { NULL, 0 }, bw = { NULL, 0 };
    struct moe_buf  bz = { NULL, 0 };
    struct moe_plan plan;
    struct moe_wref ref = { NULL, 0, 0 };
    moe_slab       *slab = NULL;
    moe_status      status = test_open(t);

    op.n_groups = 1;
    op.rows = 1;
    op.n = 2;
    op.k = 3;
    op.n_parts = 1;
    op.dtype = MOE_F32;
    op.ldx = 3;
    op.ldy = 2;
    if (status == MOE_OK)
        status = test_put(t, x, sizeof(x), &bx);
    if (status == MOE_OK)
        status = test_put(t, NULL, 8, &by);
    if (status == MOE_OK)
        status = test_put(t, NULL, 8, &bz);
    if (status == MOE_OK)
        status = test_weights(t, &op.op, w, 2, 3, &plan, &slab);
    if (status == MOE_OK)
        status = test_put(t, NULL, plan.work_bytes, &bw);
    ref.slab = slab;
    op.w = &ref;
    op.x = bx;
    op.y = by;
    op.work = bw;
    if (status == MOE_OK)
        status = t->ops->launch(t->s, &op.op, &t->err);
    /* The payload belongs to the caller again. */
    memset(&op, 0, sizeof(op));
    memset(&ref, 0xff, sizeof(ref));
    if (status == MOE_OK)
        status = t->ops->copy(t->s, bz, by, 8);
    if (status == MOE_OK)
        status = test_get(t, bz, y, 8);
    t->ops->mem_free(bx.mem);
    t->ops->mem_free(by.mem);
    t->ops->mem_free(bz.mem);
    t->ops->mem_free(bw.mem);
    if (slab != NULL)
        t->ops->slab_destroy(slab);
    test_close(t);
    return status;
}

static void
test_faults(void)
{
    static const struct {
        const char *call;
        int         times; /* scenario() makes this many */
        moe_status  want;
    } calls[] = {
        { "open", 1, MOE_E_DEVICE },     { "stream", 1, MOE_E_DEVICE },
        { "event", 1, MOE_E_DEVICE },    { "alloc", 4, MOE_E_NOMEM },
        { "reserve", 5, MOE_E_OVER_BUDGET }, { "slab", 1, MOE_E_NOMEM },
        { "upload", 1, MOE_E_DEVICE },   { "slot", 1, MOE_E_DEVICE },
        { "launch", 1, MOE_E_DEVICE },   { "copy", 1, MOE_E_DEVICE },
        { "download", 1, MOE_E_DEVICE },
    };
    const char *config[] = { "backend.fake.fail", NULL, NULL };
    struct test_device t;
    char               rule[32];
    float              y[2] = { 0, 0 };
    size_t             i;
    int                n;

    load(&t, NULL);
    is_int(scenario(&t, y), MOE_OK, "a product of a matrix");
    ok(y[0] == 6.0f && y[1] == 15.0f, "is right: %g %g", (double) y[0],
       (double) y[1]);
    test_unload(&t);
    for (i = 0; i < sizeof(calls) / sizeof(*calls); i++)
        for (n = 1; n <= calls[i].times + 1; n++) {
            moe_status want = n <= calls[i].times ? calls[i].want : MOE_OK;

            snprintf(rule, sizeof(rule), "%s:%d", calls[i].call, n);
            config[1] = rule;
            load(&t, config);
            is_int(scenario(&t, y), want, "fail = %s", rule);
            if (want != MOE_OK)
                has_str(t.err.text, "fail", "  and says that it was asked");
            is_int(t.host.held, 0, "  the ledger is at zero");
            if (n == 1) {
                is_int(scenario(&t, y), MOE_OK,
                       "  opened again, the device is well");
            }
            test_unload(&t);
            is_int(t.host.blocks, 0, "  no host memory is left");
        }
}

static void
test_sticky(void)
{
    const char *config[] = { "backend.fake.fail", "upload:2, open:9", NULL };
    struct test_device t;
    struct moe_buf     b = { NULL, 0 };
    moe_mem           *more;
    moe_event         *ev;
    float              x = 1.0f;

    open_fake(&t, config);
    is_int(test_put(&t, &x, 4, &b), MOE_OK, "the first upload");
    is_int(t.ops->upload(t.s, b, &x, 4), MOE_OK,
           "the second is queued: nobody knows yet");
    is_int(test_sync(&t), MOE_E_DEVICE, "its event says that it failed");
    is_int(t.ops->upload(t.s, b, &x, 4), MOE_E_DEVICE, "upload: still");
    is_int(t.ops->event_query(t.ev, &t.err), MOE_E_DEVICE, "query: still");
    is_int(t.ops->mem_alloc(t.dev, 4, MOE_USE_ACT, &more, &t.err),
           MOE_E_DEVICE, "mem_alloc: still");
    is_int(t.ops->event_create(t.dev, &ev, &t.err), MOE_E_DEVICE,
           "event_create: still");
    has_str(t.err.text, "close the device", "with the remedy");
    t.ops->mem_free(b.mem);
    test_close(&t);
    is_int(t.host.held, 0, "the ledger is at zero");
    is_int(test_open(&t), MOE_OK, "opened again");
    is_int(test_put(&t, &x, 4, &b), MOE_OK, "it works");
    t.ops->mem_free(b.mem);

    /* Memory that is freed under queued work. */
    test_put(&t, NULL, 4, &b);
    t.ops->upload(t.s, b, &x, 4);
    t.ops->mem_free(b.mem);
    is_int(test_sync(&t), MOE_E_DEVICE, "memory freed too early");
    has_str(t.err.text, "freed before", "is named");
    test_unload(&t);
    is_int(t.host.held, 0, "and given back all the same");
}

static void
test_data_faults(void)
{
    struct test_device   t;
    struct moe_op_gather op = { .op = { .struct_size = sizeof(op),
                                        .code = MOE_OP_GATHER },
                                .rows = 1,
                                .n = 2,
                                .dtype = MOE_F32,
                                .ldx = 2,
                                .ldy = 2 };
    struct moe_buf       x = { NULL, 0 }, y = { NULL, 0 }, id = { NULL, 0 };
    uint32_t             index = 7;
    float                data[4] = { 1, 2, 3, 4 };

    open_fake(&t, NULL);
    test_put(&t, data, sizeof(data), &x);
    test_put(&t, NULL, 8, &y);
    test_put(&t, &index, 4, &id);
    op.x = x;
    op.y = y;
    op.index = id;
    op.ldy = 1;
    is_int(t.ops->launch(t.s, &op.op, &t.err), MOE_E_INVAL,
           "a stride smaller than the row");
    op.ldy = 2;
    op.rows = 2;
    is_int(t.ops->launch(t.s, &op.op, &t.err), MOE_E_INVAL,
           "a buffer that is too small");
    has_str(t.err.text, "index needs 8 bytes", "is named");
    op.rows = 1;
    op.dtype = MOE_F16;
    is_int(t.ops->launch(t.s, &op.op, &t.err), MOE_E_UNSUPPORTED,
           "f16 activations");
    op.dtype = MOE_F32;
    op.op.code = 99;
    is_int(t.ops->launch(t.s, &op.op, &t.err), MOE_E_INVAL,
           "an operation nobody knows");
    op.op.code = MOE_OP_GATHER;
    is_int(t.ops->launch(t.s, &op.op, &t.err), MOE_OK,
           "an index on the device is not seen by the call");
    is_int(test_sync(&t), MOE_E_DEVICE, "but by the work");
    has_str(t.err.text, "index lies outside", "which says so");
    t.ops->mem_free(x.mem);
    t.ops->mem_free(y.mem);
    t.ops->mem_free(id.mem);
    test_unload(&t);
}

/* ----------------------------------------------------------------- weights -- */

/* Four-bit elements, one f32 scale a row: expanded by hand and as GENERIC. */
static void
test_generic(void)
{
    static const uint8_t elem[2 * 2] = { 0x21, 0x43, 0x65, 0x87 };
    static const float   scale[2] = { 0.5f, 2.0f }, x[3] = { 1, 10, 100 };
    const char *config[] = { "backend.fake.generic", "yes", NULL };
    struct test_device    t;
    struct moe_format     format = test_f32;
    struct moe_affine     affine = { .struct_size = sizeof(affine),
                                     .elem = MOE_ELEM_UINT,
                                     .elem_bits = 4,
                                     .scale = MOE_SCALE_F32,
                                     .bias = 1,
                                     .group_n = 1,
                                     .group_k = 3,
                                     .block_k = 3,
                                     .elem_row = 2,
                                     .scale_row = 4,
                                     .scale_group = 4 };
    struct moe_shape      shape = { .struct_size = sizeof(shape),
                                    .n_parts = 1 };
    struct moe_weights    weights = { .struct_size = sizeof(weights) };
    struct moe_tensor     tensor = { .struct_size = sizeof(tensor),
                                     .n = 2,
                                     .k = 3 };
    struct moe_weight_src src = { .struct_size = sizeof(src) };
    struct moe_plan       plan = { .struct_size = sizeof(plan) };
    struct moe_op_grouped_gemm op = { .op = { .struct_size = sizeof(op),
                                              .code = MOE_OP_GROUPED_GEMM },
                                      .n_groups = 1,
                                      .rows = 1,
                                      .n = 2,
                                      .k = 3,
                                      .n_parts = 1,
                                      .dtype = MOE_F32,
                                      .ldx = 3,
                                      .ldy = 2 };
    struct moe_wref       ref = { NULL, 0, 0 };
    float                 y[2] = { 0, 0 };

    format.id = "odd4";
    shape.n[0] = 2;
    shape.k[0] = 3;
    weights.format = &format;
    weights.shape = &shape;
    weights.affine[0] = &affine;
    tensor.plane[0] = elem;
    tensor.len[0] = sizeof(elem);
    tensor.plane[1] = scale;
    tensor.len[1] = sizeof(scale);
    src.part[0] = &tensor;

    open_fake(&t, NULL);
    is_int(t.ops->query(t.dev, &op.op, &weights, &plan, &t.err),
           MOE_E_UNSUPPORTED, "without `generic`, f32 weights only");
    has_str(t.err.text, "odd4", "the format is named");
    test_unload(&t);

    open_fake(&t, config);
    is_int(t.ops->query(t.dev, &op.op, &weights, &plan, &t.err), MOE_OK,
           "with it, an affine format");
    is_int(plan.tier, MOE_TIER_GENERIC, "at the generic tier");
    is_int(plan.slot_bytes, 128, "with its planes, each aligned to 64");
    is_int(t.ops->slab_create(t.dev, &weights, &plan, 1, &ref.slab, &t.err),
           MOE_OK, "a slab");
    test_put(&t, x, sizeof(x), &op.x);
    test_put(&t, NULL, 8, &op.y);
    test_put(&t, NULL, plan.work_bytes, &op.work);
    op.w = &ref;
    t.ops->launch(t.s, &op.op, &t.err);
    test_get(&t, op.y, y, 8);
    ok(isnan(y[0]) && isnan(y[1]), "a slot that was never filled is NaN");
    is_int(t.ops->slot_upload(t.s, ref.slab, 0, &src, &t.err), MOE_OK,
           "the slot is filled");
    t.ops->launch(t.s, &op.op, &t.err);
    test_get(&t, op.y, y, 8);
    /* rows: 0.5 * (0 1 2), 2 * (4 5 6) */
    ok(y[0] == 105.0f && y[1] == 1308.0f, "the product is right: %g %g",
       (double) y[0], (double) y[1]);
    is_int(t.ops->slot_advise(ref.slab, 0, MOE_ADVISE_DONE), MOE_OK,
           "the slot is given up");
    t.ops->launch(t.s, &op.op, &t.err);
    test_get(&t, op.y, y, 8);
    ok(isnan(y[0]), "and is NaN again");
    is_int(t.ops->slot_upload(t.s, ref.slab, 1, &src, &t.err), MOE_E_INVAL,
           "a slot past the last");
    tensor.len[1] = 4;
    is_int(t.ops->slot_upload(t.s, ref.slab, 0, &src, &t.err), MOE_E_INVAL,
           "a plane that is too short");
    plan.slot_bytes++;
    is_int(t.ops->slab_create(t.dev, &weights, &plan, 1, &ref.slab, &t.err),
           MOE_E_INVAL, "a plan of other weights");
    t.ops->slab_destroy(ref.slab);
    t.ops->mem_free(op.x.mem);
    t.ops->mem_free(op.y.mem);
    t.ops->mem_free(op.work.mem);
    test_unload(&t);
    is_int(t.host.held, 0, "the ledger is at zero");
}

static void
test_options(void)
{
    static const char *const bad[][2] = {
        { "fail", "launch" },     { "fail", "lunch:3" },
        { "fail", "launch:0" },   { "seed", "x" },
        { "memory", "4T" },       { "devices", "99" },
        { "bandwidth", "-1" },    { "generic", "maybe" },
    };
    struct test_device t;
    char               key[40];
    const char        *config[3] = { key, NULL, NULL };
    size_t             i;

    for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        snprintf(key, sizeof(key), "backend.fake.%s", bad[i][0]);
        config[1] = bad[i][1];
        is_int(load(&t, config), MOE_E_INVAL, "%s = %s is refused",
               bad[i][0], bad[i][1]);
        has_str(t.err.text, "wanted", "  with what is wanted");
        test_unload(&t);
    }
}

/* --------------------------------------------------------------- threads -- */

struct worker {
    struct test_device *t;
    pthread_t           thread;
    int                 good;
};

static void *
work(void *arg)
{
    struct worker      *w = arg;
    struct test_device *t = w->t;
    moe_stream         *s = NULL;
    moe_event          *ev = NULL;
    moe_mem            *mem = NULL;
    struct moe_error    err = { .struct_size = sizeof(err) };
    struct moe_buf      b;
    float               x, y;
    int                 i;

    if (t->ops->stream_create(t->dev, 0, &s, &err) != MOE_OK
        || t->ops->event_create(t->dev, &ev, &err) != MOE_OK)
        return NULL;
    for (i = 0; i < 200; i++) {
        if (t->ops->mem_alloc(t->dev, 4, MOE_USE_ACT, &mem, &err) != MOE_OK)
            break;
        b.mem = mem;
        b.off = 0;
        x = (float) i;
        y = -1;
        t->ops->upload(s, b, &x, 4);
        t->ops->download(s, &y, b, 4);
        t->ops->event_record(s, ev);
        if (t->ops->event_wait(ev, FOREVER, &err) == MOE_OK && x == y)
            w->good++;
        t->ops->mem_free(mem);
    }
    t->ops->event_destroy(ev);
    t->ops->stream_destroy(s);
    return NULL;
}

static void
test_threads(void)
{
    struct test_device t;
    struct worker      w[3];
    int                i;

    open_fake(&t, NULL);
    for (i = 0; i < 3; i++) {
        w[i].t = &t;
        w[i].good = 0;
        pthread_create(&w[i].thread, NULL, work, &w[i]);
    }
    for (i = 0; i < 3; i++) {
        pthread_join(w[i].thread, NULL);
        is_int(w[i].good, 200, "thread %d: its own stream, 200 rounds", i);
    }
    test_unload(&t);
    is_int(t.host.held, 0, "the ledger is at zero");
}

int
main(void)
{
    test_memory();
    test_order();
    test_time();
    test_faults();
    test_sticky();
    test_data_faults();
    test_generic();
    test_options();
    test_threads();
    return tap_done();
}
