/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scalar.h - the objects behind the handles of moe/backend.h.
 *
 * The core sees moe_device, moe_mem and so on as opaque names.  Here they get
 * their insides; yours will hold a context, a queue, a device pointer.
 */
#ifndef SCALAR_H
#define SCALAR_H

#include <moe/ops.h>
#include <moe/plugin.h>

struct moe_device {
    const struct moe_host *host;
};

struct moe_mem {
    moe_device *dev;
    moe_grant  *grant; /* what the ledger gave for it */
    char       *data;
};

struct moe_stream {
    moe_device *dev;
};

struct moe_event {
    moe_device *dev;
};

/* n_slots slots; a slot has its parts one after the other, f32, row-major. */
struct moe_slab {
    moe_device      *dev;
    moe_grant       *grant;
    float           *data;
    uint64_t         slot_floats;
    uint32_t         n_slots;
    struct moe_shape shape;
    uint64_t         part_at[MOE_PARTS_MAX]; /* floats from the slot's start */
};

/* ops.c: runs one operation, to its end. */
moe_status scalar_run(moe_device *dev, const struct moe_op *op,
                      struct moe_error *err);
/* Scratch that a launch of op needs, from its sizes alone. */
uint64_t scalar_work_bytes(const struct moe_op *op);
/* MOE_OK if op is one we know, in f32. */
moe_status scalar_known(const struct moe_op *op, struct moe_error *err);

#endif /* SCALAR_H */
