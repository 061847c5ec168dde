/* SPDX-License-Identifier: Apache-2.0 */
/*
 * impl.h - the objects of the fake device, shared by fake.c (objects),
 * queue.c (order and time) and work.c (what a command does).
 */
#ifndef MOE_PLUGINS_BACKEND_FAKE_IMPL_H
#define MOE_PLUGINS_BACKEND_FAKE_IMPL_H

#include <moe/ops.h>
#include <moe/plugin.h>

#include <pthread.h>

#include "common/op_info.h"
#include "common/ref_ops.h"

#define FAKE_DEVICES 8u
#define FAKE_FAULTS  16u
#define FAKE_ALIGN   64u /* of memory: allocations are multiples of it */

/* Calls that a `fail` rule can count. */
enum fake_call {
    FAKE_OPEN,
    FAKE_ALLOC,
    FAKE_RESERVE,
    FAKE_STREAM,
    FAKE_EVENT,
    FAKE_SLAB,
    FAKE_UPLOAD,
    FAKE_DOWNLOAD,
    FAKE_COPY,
    FAKE_SLOT,
    FAKE_LAUNCH,
    FAKE_CALLS
};

struct fake {
    const struct moe_host *host;
    uint64_t               seed;
    uint64_t               memory;    /* bytes of each device */
    uint64_t               bandwidth; /* bytes/s; 0: transfers take no time */
    uint64_t               launch_ns;
    uint32_t               generic; /* 1: interpret moe_affine */
    uint32_t               n_devices;
    struct {
        enum fake_call call;
        uint64_t       n; /* the n-th fails, from 1 */
    } fault[FAKE_FAULTS];
    uint32_t        n_faults;
    pthread_mutex_t lock; /* of what follows */
    uint64_t        count[FAKE_CALLS];
    uint64_t        used[FAKE_DEVICES]; /* bytes */
};

/* Objects outlive their destruction while a queued command refers to them:
 * the command then finds `dead` and the device faults, as it should. */
struct moe_device {
    struct fake    *fake;
    uint32_t        index;
    uint32_t        objects; /* alive, 1 for the open device itself */
    pthread_mutex_t lock;    /* of all that follows and of all its objects */
    moe_stream     *streams;
    moe_status      fault; /* MOE_OK, or sticky */
    char            fault_text[200];
    uint64_t        random;
    uint64_t        host_ns; /* the host's clock */
    uint64_t        link_at; /* when the link is free */
    uint64_t        link_ns; /* how long it was busy */
    uint64_t        pending, executed;
};

struct moe_mem {
    moe_device *dev;
    moe_grant  *grant;
    uint8_t    *data;
    uint64_t    bytes;
    uint32_t    use, refs, dead;
};

struct moe_event {
    moe_device *dev;
    uint64_t    recorded, done; /* generations */
    uint64_t    time_ns;
    uint32_t    refs;
};

struct moe_slab {
    moe_device       *dev;
    moe_grant        *grant;
    uint8_t          *data; /* n_slots of slot_bytes */
    uint8_t          *filled; /* (n_slots) */
    struct moe_shape  shape;
    struct moe_affine affine[MOE_PARTS_MAX]; /* if generic */
    uint64_t          slot_bytes;
    uint64_t          at[MOE_PARTS_MAX][MOE_PLANES_MAX]; /* in a slot */
    uint64_t          len[MOE_PARTS_MAX][MOE_PLANES_MAX];
    uint32_t          generic, n_slots, refs, dead;
};

enum command_kind {
    CMD_UPLOAD,
    CMD_DOWNLOAD,
    CMD_COPY,
    CMD_SLOT,
    CMD_LAUNCH,
    CMD_RECORD,
    CMD_WAIT
};

struct command {
    struct command   *next;
    enum command_kind kind;
    uint32_t          fail;     /* 1: the device faults here */
    uint64_t          ready_ns; /* the host's clock when it was queued */
    uint64_t          bytes;    /* over the link */
    moe_event        *event;    /* RECORD, WAIT */
    uint64_t          gen;
    moe_mem          *mem[MOE_EXTENTS_MAX]; /* referred to; may be NULL */
    uint64_t          off[2];
    const void       *src; /* UPLOAD */
    void             *dst; /* DOWNLOAD */
    moe_slab         *slab; /* SLOT */
    uint32_t          slot;
    const void       *plane[MOE_PARTS_MAX][MOE_PLANES_MAX];
    struct moe_op    *op; /* LAUNCH: a copy, with copies of w and experts */
    struct moe_wref  *w;
    uint32_t         *experts;
    uint32_t          n_w;
    struct moe_span   span[MOE_EXTENTS_MAX];
};

struct moe_stream {
    moe_device     *dev;
    moe_stream     *next;
    struct command *head, **tail;
    uint64_t        clock_ns;
};

/* queue.c: the caller holds dev->lock. */
void       fake_push(moe_stream *s, struct command *c);
int        fake_run_one(moe_device *dev); /* 0: nothing can run */
void       fake_drop_all(moe_device *dev);
uint64_t   fake_random(moe_device *dev);
moe_status fake_fault_status(const moe_device *dev, struct moe_error *err);

/* work.c: the caller holds dev->lock but for query and layout. */
const char *fake_execute(moe_device *dev, struct command *c);
moe_status  fake_query(moe_device *dev, const struct moe_op *op,
                       const struct moe_weights *w, struct moe_plan *out,
                       struct moe_error *err);
moe_status  fake_layout(const struct fake *f, const struct moe_weights *w,
                        moe_slab *slab, struct moe_error *err);
moe_status  fake_slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
                             const struct moe_weight_src *src,
                             struct moe_error            *err);
moe_status  fake_launch(moe_stream *s, const struct moe_op *op,
                        struct moe_error *err);

/* memory.c */
moe_status fake_mem_alloc(moe_device *dev, uint64_t bytes, uint32_t use,
                          moe_mem **out, struct moe_error *err);
void       fake_mem_free(moe_mem *mem);
void      *fake_mem_host_ptr(moe_mem *mem);
moe_status fake_slab_create(moe_device *dev, const struct moe_weights *w,
                            const struct moe_plan *plan, uint32_t n_slots,
                            moe_slab **out, struct moe_error *err);
void       fake_slab_destroy(moe_slab *slab);
moe_status fake_slot_advise(moe_slab *slab, uint32_t slot, uint32_t advice);
/* Gives its references back; the caller holds dev->lock. */
void       fake_command_free(struct command *c);

/* stream.c */
moe_status fake_stream_create(moe_device *dev, int32_t priority,
                              moe_stream **out, struct moe_error *err);
void       fake_stream_destroy(moe_stream *s);
moe_status fake_event_create(moe_device *dev, moe_event **out,
                             struct moe_error *err);
void       fake_event_destroy(moe_event *ev);
moe_status fake_event_record(moe_stream *s, moe_event *ev);
moe_status fake_stream_wait(moe_stream *s, moe_event *ev);
moe_status fake_event_query(moe_event *ev, struct moe_error *err);
moe_status fake_event_wait(moe_event *ev, uint64_t timeout_ns,
                           struct moe_error *err);
moe_status fake_upload(moe_stream *s, struct moe_buf dst, const void *src,
                       uint64_t bytes);
moe_status fake_download(moe_stream *s, void *dst, struct moe_buf src,
                         uint64_t bytes);
moe_status fake_copy(moe_stream *s, struct moe_buf dst, struct moe_buf src,
                     uint64_t bytes);

/* fake.c */
int  fake_count(struct fake *f, enum fake_call call); /* 1: must fail */
/* A new object of dev begins, or the device's fault, or `injected`. */
moe_status fake_object_begin(moe_device *dev, enum fake_call call,
                             moe_status injected, struct moe_error *err);
/* An object of dev is gone; the last one of a closed device takes it along.
 * The caller holds no lock. */
void fake_device_unref(moe_device *dev);

#endif /* MOE_PLUGINS_BACKEND_FAKE_IMPL_H */
