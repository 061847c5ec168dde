/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe/backend.h - a device: memory, order, weights in slots, and work.
 *
 * A backend provides mechanism and the core provides policy.  The backend
 * never chooses which expert to load or drop, never waits on its own, and
 * never allocates device memory the ledger has not granted.
 *
 * Ownership: whoever creates an object destroys it; nothing is free()d
 * across the boundary.  Handles are opaque to the core.  Memory a caller
 * passes to an asynchronous call must stay valid, and unchanged if it is
 * read, until an event recorded on that stream after the call has fired.
 *
 * Threads: a stream is used by one thread at a time, different streams by
 * different threads at once.  event_query and event_wait may be called from
 * any thread.  device_open/close and slab_create/destroy: one at a time for
 * each device.
 *
 * Order: calls on one stream run in the order they were made.  Nothing
 * orders two streams but event_record + stream_wait.  A backend without
 * asynchronous work runs each call before it returns, and its events are
 * always complete; the core has no second code path for it.
 *
 * Errors: hot calls return a status and touch *err only on failure.  A fault
 * in asynchronous work is returned by event_query / event_wait, and by every
 * later call on that device, as MOE_E_DEVICE until it is closed.
 */

#ifndef MOE_BACKEND_H
#define MOE_BACKEND_H

#include <moe/quantizer.h>
#include <moe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct moe_device moe_device;
typedef struct moe_mem    moe_mem;
typedef struct moe_stream moe_stream;
typedef struct moe_event  moe_event;
typedef struct moe_slab   moe_slab;

/* ------------------------------------------------------------- devices -- */

/* A bit here is a promise: the loader refuses a backend that sets it and
 * leaves a function it needs NULL; the conformance kit tests the rest. */
#define MOE_CAP_ASYNC      (1u << 0) /* calls return before the work is done   */
#define MOE_CAP_ADVISE     (1u << 1) /* slot_advise                            */
#define MOE_CAP_HOST_VIEW  (1u << 2) /* mem_host_ptr is never NULL             */

struct moe_device_info {
    uint32_t struct_size;
    uint32_t caps;
    uint32_t dtypes;      /* MOE_DTYPE_BIT()s of universal weights; F32 always */
    uint32_t preferred;   /* the dtype to expand weights to: MOE_F16 say       */
    uint32_t kv_dtypes;   /* MOE_DTYPE_BIT()s of the KV cache; F32 always      */
    uint32_t reserved;
    uint64_t mem_total;
    uint64_t mem_free;
    uint32_t mem_align;   /* allocations and slabs take, and reserve, their
                             bytes rounded up to a multiple of this           */
    uint32_t n_copy_engines;
    char     domain[48];  /* ledger key; equal for devices that share memory   */
    char     uid[48];     /* stable: PCI address or serial, "" if none         */
    char     name[64];    /* for people                                        */
};
MOE_NO_TAIL(moe_device_info, name);

/* ------------------------------------------------------ memory, weights -- */

#define MOE_USE_ACT     1u /* activations, KV cache                            */
#define MOE_USE_SCRATCH 2u
#define MOE_USE_STAGING 3u /* host side of a transfer; pinned if that helps    */

struct moe_buf { /* FROZEN */
    moe_mem *mem;
    uint64_t off;
};

struct moe_wref { /* FROZEN: one weight matrix that lies in a slot */
    moe_slab *slab;
    uint32_t  slot;
    uint32_t  part;
};

/* The parts of an expert.  The parts of a dense projection are numbered as
 * its owner likes: query, key, value. */
#define MOE_PART_GATE 0u
#define MOE_PART_UP   1u
#define MOE_PART_DOWN 2u
#define MOE_PARTS_MAX 4u

/* The matrices that share a slot: an expert's three, a layer's q, k and v, or
 * a single one (n_parts 1).  Part i is n[i] x k[i]. */
struct moe_shape {
    uint32_t struct_size;
    uint32_t n_parts;
    uint64_t n[MOE_PARTS_MAX], k[MOE_PARTS_MAX];
};
MOE_NO_TAIL(moe_shape, k);

#define MOE_SRC_PREFETCH (1u << 0) /* a guess: may be delayed for a demand     */

struct moe_weight_src {
    uint32_t                 struct_size;
    uint32_t                 flags;
    const struct moe_tensor *part[MOE_PARTS_MAX]; /* planes in host memory     */
};
MOE_NO_TAIL(moe_weight_src, part);

#define MOE_ADVISE_SOON 1u /* will be used: page it in                         */
#define MOE_ADVISE_DONE 2u /* slot content is dead; weights are never written
                              back, so dropping one is never a copy            */

/* ------------------------------------------------------------ operations -- */

/* Every operation starts with this; struct_size is that of the whole. */
struct moe_op {
    uint32_t struct_size;
    uint32_t code;
    uint32_t flags;
    uint32_t reserved;
};
MOE_NO_TAIL(moe_op, reserved);

/* Codes are appended, never moved; the payloads are in moe/ops.h. */
#define MOE_OP_GROUPED_GEMM 1u
#define MOE_OP_GROUPED_FFN  2u
#define MOE_OP_ROUTE        3u
#define MOE_OP_COMBINE      4u
#define MOE_OP_EMBED        5u
#define MOE_OP_NORM         6u
#define MOE_OP_ROPE_KV      7u
#define MOE_OP_ATTENTION    8u
#define MOE_OP_GATHER       9u

/*
 * The answer to "can you run this operation on weights of this format, and at
 * what price?"  This is where backends and formats meet, and the only place.
 */
#define MOE_TIER_NONE    0u
#define MOE_TIER_EXPAND  1u /* set by the core: decode() on the host, upload
                               as a universal dtype.  Works for every pair     */
#define MOE_TIER_GENERIC 2u /* the backend expands by moe_affine, on device    */
#define MOE_TIER_NATIVE  3u /* a kernel that knows this format                 */

struct moe_plan {
    uint32_t struct_size;
    uint32_t tier;
    uint64_t layout;     /* the backend's own token for its packed layout      */
    uint64_t slot_bytes; /* exact, padding and repacking included: the ledger
                            and the number of slots are computed from it       */
    uint64_t work_bytes; /* scratch a launch needs                             */
    uint32_t slot_align;
    uint32_t reserved;
    char     why[96];    /* shown by moe-run --explain                         */
};
MOE_NO_TAIL(moe_plan, why);

/* The weights a query is about.  All parts have one format. */
struct moe_weights {
    uint32_t struct_size;
    uint32_t scale_dtype;           /* of the file's scale planes; 0: none     */
    const struct moe_format *format;
    const struct moe_shape  *shape;
    const struct moe_affine *affine[MOE_PARTS_MAX]; /* NULL: not affine        */
};
MOE_NO_TAIL(moe_weights, affine);

/* ------------------------------------------------------------- the table -- */

struct moe_backend_ops {
    uint32_t struct_size;
    uint32_t reserved;

    moe_status (*device_count)(void *self, uint32_t *out);
    moe_status (*device_info)(void *self, uint32_t i,
                              struct moe_device_info *out);
    moe_status (*device_open)(void *self, uint32_t i, moe_device **out,
                              struct moe_error *err);
    void (*device_close)(moe_device *dev);

    moe_status (*mem_alloc)(moe_device *dev, uint64_t bytes, uint32_t use,
                            moe_mem **out, struct moe_error *err);
    void (*mem_free)(moe_mem *mem);
    void *(*mem_host_ptr)(moe_mem *mem);

    moe_status (*stream_create)(moe_device *dev, int32_t priority,
                                moe_stream **out, struct moe_error *err);
    void (*stream_destroy)(moe_stream *s);
    moe_status (*event_create)(moe_device *dev, moe_event **out,
                               struct moe_error *err);
    void (*event_destroy)(moe_event *ev);
    moe_status (*event_record)(moe_stream *s, moe_event *ev);
    moe_status (*stream_wait)(moe_stream *s, moe_event *ev);
    moe_status (*event_query)(moe_event *ev, struct moe_error *err);
    moe_status (*event_wait)(moe_event *ev, uint64_t timeout_ns,
                             struct moe_error *err);

    moe_status (*upload)(moe_stream *s, struct moe_buf dst, const void *src,
                         uint64_t bytes);
    moe_status (*download)(moe_stream *s, void *dst, struct moe_buf src,
                           uint64_t bytes);
    moe_status (*copy)(moe_stream *s, struct moe_buf dst, struct moe_buf src,
                       uint64_t bytes);

    /*
     * Can this device run op on weights of this format, and at what price?
     * Pointers and buffers in op are not read; its sizes are upper bounds of
     * later launches.  w is NULL for an operation without weights.  Sets
     * *out.  MOE_E_UNSUPPORTED: no, and err says why; the core then asks
     * again with a universal format that decode() can produce.
     */
    moe_status (*query)(moe_device *dev, const struct moe_op *op,
                        const struct moe_weights *w, struct moe_plan *out,
                        struct moe_error *err);
    moe_status (*slab_create)(moe_device *dev, const struct moe_weights *w,
                              const struct moe_plan *plan, uint32_t n_slots,
                              moe_slab **out, struct moe_error *err);
    void (*slab_destroy)(moe_slab *slab);
    /* Fills a slot from planes in host memory, which must stay as they are
     * until an event recorded after it has fired.  The bytes have passed the
     * format's check(). */
    moe_status (*slot_upload)(moe_stream *s, moe_slab *slab, uint32_t slot,
                              const struct moe_weight_src *src,
                              struct moe_error *err);
    moe_status (*launch)(moe_stream *s, const struct moe_op *op,
                         struct moe_error *err);

    /* Optional from here on: NULL, or absent from an older plugin. */
    moe_status (*slot_advise)(moe_slab *slab, uint32_t slot, uint32_t advice);
    /* A named extension table, or NULL.  For trials; what proves itself is
     * appended above. */
    const void *(*extension)(moe_device *dev, const char *name);
};
MOE_NO_TAIL(moe_backend_ops, extension);

#ifdef __cplusplus
}
#endif
#endif /* MOE_BACKEND_H */
