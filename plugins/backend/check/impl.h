/* SPDX-License-Identifier: Apache-2.0 */
/*
 * impl.h - the wrapper's objects: each holds the one inside.
 *
 * Order is tracked by counting: every call on a stream has a number, and a
 * clock says for each stream up to which number the work is known to be done
 * before.  Streams, events and the host have clocks; record, wait and a fired
 * event pass them on.
 */
#ifndef MOE_PLUGINS_BACKEND_CHECK_IMPL_H
#define MOE_PLUGINS_BACKEND_CHECK_IMPL_H

#include <moe/ops.h>
#include <moe/plugin.h>

#include <pthread.h>
#include <stdatomic.h>

#include "common/op_info.h"

/* Streams of a device whose order is tracked; the rest share the last. */
#define CHECK_STREAMS 16u

struct check_clock {
    uint64_t at[CHECK_STREAMS];
};

struct check {
    const struct moe_host        *host;  /* ours */
    struct moe_host               inner; /* what the plugin inside is given */
    const struct moe_plugin      *plugin;
    const struct moe_backend_ops *ops; /* of the one inside */
    void                         *self;
};

enum check_kind { CHECK_MEM, CHECK_STREAM, CHECK_EVENT, CHECK_SLAB };

/* First in every object.  An object that was destroyed stays, dead, until
 * its device is gone: using it is a rule broken, not a crash. */
struct check_object {
    struct check_object *next;
    moe_device          *dev;
    enum check_kind      kind;
    int                  dead;
};

struct moe_device {
    struct check           *check;
    moe_device             *inner;
    struct moe_device_info  info;
    pthread_mutex_t         lock; /* of all that follows and of the objects */
    struct check_object    *objects;
    uint32_t                alive, n_streams;
    int                     closed;
    moe_status              fault; /* seen from the one inside; sticky */
    uint64_t                seq[CHECK_STREAMS]; /* calls so far, by stream */
    struct check_clock      done;  /* what the host knows */
    uint64_t                violations;
    char                    last[256];
    atomic_int              busy; /* in device-wide calls */
};

struct moe_mem {
    struct check_object o;
    moe_mem            *inner;
    uint64_t            bytes;
    struct check_clock  used; /* last call of each stream that uses it */
};

struct moe_stream {
    struct check_object o;
    moe_stream         *inner;
    uint32_t            id;
    struct check_clock  after;
    atomic_int          busy;
};

struct moe_event {
    struct check_object o;
    moe_event          *inner;
    struct check_clock  clock; /* of its last record */
};

struct check_slot {
    uint32_t           filled;
    uint32_t           fill_stream;
    uint64_t           fill_seq;
    struct check_clock used;
};

struct moe_slab {
    struct check_object o;
    moe_slab           *inner;
    struct moe_plan     plan;
    struct moe_weights  about; /* as it was made, pointers to what follows */
    struct moe_shape    shape;
    struct moe_affine   affine[MOE_PARTS_MAX];
    uint32_t            n_slots;
    struct check_slot  *slot;
    struct check_clock  used;
};

/* check.c ----------------------------------------------------------------- */

/* A rule was broken: logged, counted; MOE_E_INVAL and its text. */
moe_status check_broken(moe_device *dev, struct moe_error *err,
                        const char *fmt, ...)
    __attribute__((__format__(__printf__, 3, 4)));
/* The device's status from the one inside passes through here: MOE_E_DEVICE
 * is remembered. */
moe_status check_passed(moe_device *dev, moe_status status);
/* An object of dev and kind that lives, or the rule that is broken. */
moe_status check_alive(const void *object, moe_device *dev,
                       enum check_kind kind, const char *what,
                       struct moe_error *err);
/* A new object that is known to dev; NULL: out of memory. */
void *check_object_new(moe_device *dev, enum check_kind kind, size_t size);
void  check_object_dead(struct check_object *o);

/* Is work number seq of stream `id` known to be done before what s does
 * next?  With dev->lock. */
int check_ordered(const moe_stream *s, uint32_t id, uint64_t seq);
/* All of `used` done, as far as the host knows?  With dev->lock. */
int check_done(const moe_device *dev, const struct check_clock *used);

/* The number of the call that s makes now.  With dev->lock. */
uint64_t check_next(moe_stream *s);
void     check_clock_join(struct check_clock *a, const struct check_clock *b);
/* Work on a device that has failed is a rule broken. */
void check_not_failed(moe_device *dev, const char *what);

/* Begin and end of a call on a stream: one thread at a time. */
moe_status check_enter(moe_stream *s, struct moe_error *err);
void       check_leave(moe_stream *s);

/* Bytes that the plugin inside reserved on this thread since the last reset,
 * minus those it released. */
void    check_ledger_reset(void);
int64_t check_ledger_delta(void);

/* inner.c: opens the plugin inside. */
moe_status check_open_inner(struct check *c, struct moe_error *err);

/* stream.c, work.c: functions of the table. */
moe_status check_stream_create(moe_device *dev, int32_t priority,
                               moe_stream **out, struct moe_error *err);
void       check_stream_destroy(moe_stream *s);
moe_status check_event_create(moe_device *dev, moe_event **out,
                              struct moe_error *err);
void       check_event_destroy(moe_event *ev);
moe_status check_event_record(moe_stream *s, moe_event *ev);
moe_status check_stream_wait(moe_stream *s, moe_event *ev);
moe_status check_event_query(moe_event *ev, struct moe_error *err);
moe_status check_event_wait(moe_event *ev, uint64_t timeout_ns,
                            struct moe_error *err);
moe_status check_upload(moe_stream *s, struct moe_buf dst, const void *src,
                        uint64_t bytes);
moe_status check_download(moe_stream *s, void *dst, struct moe_buf src,
                          uint64_t bytes);
moe_status check_copy(moe_stream *s, struct moe_buf dst, struct moe_buf src,
                      uint64_t bytes);

moe_status check_query(moe_device *dev, const struct moe_op *op,
                       const struct moe_weights *w, struct moe_plan *out,
                       struct moe_error *err);
moe_status check_slab_create(moe_device *dev, const struct moe_weights *w,
                             const struct moe_plan *plan, uint32_t n_slots,
                             moe_slab **out, struct moe_error *err);
void       check_slab_destroy(moe_slab *slab);
moe_status check_slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
                             const struct moe_weight_src *src,
                             struct moe_error            *err);
moe_status check_launch(moe_stream *s, const struct moe_op *op,
                        struct moe_error *err);
moe_status check_slot_advise(moe_slab *slab, uint32_t slot, uint32_t advice);

#endif /* MOE_PLUGINS_BACKEND_CHECK_IMPL_H */
