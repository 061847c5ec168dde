/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - a backend under test: loaded by the registry, opened, with short
 * words for what tests do often.
 */
#ifndef MOE_TESTS_PLUGIN_DEVICE_H
#define MOE_TESTS_PLUGIN_DEVICE_H

#include <moe/ops.h>

#include "host.h"

#define FOREVER UINT64_MAX

struct test_device {
    struct test_host              host;
    struct moe_registry          *r;
    const struct moe_backend_ops *ops;
    void                         *self;
    moe_device                   *dev;
    moe_stream                   *s; /* one stream and one event to use */
    moe_event                    *ev;
    struct moe_error              err;
};

/* Loads the plugin; opens nothing.  t->err on failure. */
static moe_status
test_load(struct test_device *t, const char *path, const char *name,
          const char *const *config)
{
    const char *found;
    moe_status  status;

    memset(t, 0, sizeof(*t));
    t->err.struct_size = sizeof(t->err);
    test_host_init(&t->host, config);
    status = moe_registry_open(&t->host.services, "", &path, 1, &t->r,
                               &t->err);
    if (status == MOE_OK)
        status = moe_registry_backend(t->r, name, &t->ops, &t->self, &found,
                                      &t->err);
    return status;
}

static moe_status
test_open(struct test_device *t)
{
    moe_status status = t->ops->device_open(t->self, 0, &t->dev, &t->err);

    if (status != MOE_OK)
        return status;
    status = t->ops->stream_create(t->dev, 0, &t->s, &t->err);
    if (status == MOE_OK)
        status = t->ops->event_create(t->dev, &t->ev, &t->err);
    return status;
}

static void
test_close(struct test_device *t)
{
    if (t->ev != NULL)
        t->ops->event_destroy(t->ev);
    if (t->s != NULL)
        t->ops->stream_destroy(t->s);
    if (t->dev != NULL)
        t->ops->device_close(t->dev);
    t->ev = NULL;
    t->s = NULL;
    t->dev = NULL;
}

static void
test_unload(struct test_device *t)
{
    test_close(t);
    moe_registry_close(t->r);
    t->r = NULL;
}

/* Everything on t->s is done. */
static moe_status
test_sync(struct test_device *t)
{
    moe_status status = t->ops->event_record(t->s, t->ev);

    return status == MOE_OK ? t->ops->event_wait(t->ev, FOREVER, &t->err)
                            : status;
}

/* Memory with bytes of src in it (none if NULL). */
static moe_status
test_put(struct test_device *t, const void *src, uint64_t bytes,
         struct moe_buf *out)
{
    moe_status status = t->ops->mem_alloc(t->dev, bytes, MOE_USE_ACT,
                                          &out->mem, &t->err);

    out->off = 0;
    if (status != MOE_OK) {
        out->mem = NULL;
        return status;
    }
    if (src != NULL)
        status = t->ops->upload(t->s, *out, src, bytes);
    if (status == MOE_OK)
        status = test_sync(t);
    return status;
}

static moe_status
test_get(struct test_device *t, struct moe_buf b, void *dst, uint64_t bytes)
{
    moe_status status = t->ops->download(t->s, dst, b, bytes);

    return status == MOE_OK ? test_sync(t) : status;
}

/* ---------------------------------------------------------------- weights -- */

static const struct moe_format test_f32 = {
    .struct_size = sizeof(struct moe_format),
    .revision = 1,
    .id = "f32",
    .summary = "plain",
    .k_multiple = 1,
    .n_multiple = 1,
    .bits_x1000 = 32000,
    .scheme = { .struct_size = sizeof(struct moe_scheme),
                .num_bits = 32,
                .symmetric = 1,
                .type = "float",
                .elem = "F32" },
};

/* One f32 matrix w, (n, k), in a slab of one slot, for op.  Its plan is left
 * in *plan. */
static moe_status
test_weights(struct test_device *t, const struct moe_op *op, const float *w,
             uint64_t n, uint64_t k, struct moe_plan *plan, moe_slab **out)
{
    struct moe_shape shape = { .struct_size = sizeof(shape), .n_parts = 1 };
    struct moe_weights weights = { .struct_size = sizeof(weights),
                                   .format = &test_f32 };
    struct moe_tensor tensor = { .struct_size = sizeof(tensor) };
    struct moe_weight_src src = { .struct_size = sizeof(src) };
    moe_status            status;

    shape.n[0] = n;
    shape.k[0] = k;
    weights.shape = &shape;
    tensor.n = n;
    tensor.k = k;
    tensor.plane[0] = w;
    tensor.len[0] = n * k * sizeof(float);
    src.part[0] = &tensor;
    memset(plan, 0, sizeof(*plan));
    plan->struct_size = sizeof(*plan);
    status = t->ops->query(t->dev, op, &weights, plan, &t->err);
    if (status == MOE_OK)
        status = t->ops->slab_create(t->dev, &weights, plan, 1, out, &t->err);
    if (status != MOE_OK)
        return status;
    status = t->ops->slot_upload(t->s, *out, 0, &src, &t->err);
    if (status == MOE_OK)
        status = test_sync(t);
    if (status != MOE_OK) {
        t->ops->slab_destroy(*out);
        *out = NULL;
    }
    return status;
}

#endif /* MOE_TESTS_PLUGIN_DEVICE_H */
