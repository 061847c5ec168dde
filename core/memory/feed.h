/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feed.h - a list of things read in order, ahead of the one who uses them.
 *
 * A few threads read pieces of the items that come next into a ring of
 * memory that the caller lends, so that several large reads are under way
 * while earlier items are worked on.  An item lies in one piece of memory
 * from moe_feed_next to moe_feed_release.
 *
 * Threads: next and release by one thread; the source's functions are called
 * by several at once.
 */
#ifndef MOE_CORE_MEMORY_FEED_H
#define MOE_CORE_MEMORY_FEED_H

#include <moe/types.h>

struct moe_feed;

/* Bytes of one read; an item that is larger is read by several threads. */
#define MOE_FEED_PIECE (4u << 20)
/* Items begin at multiples of this in the ring. */
#define MOE_FEED_ALIGN 64u

struct moe_feed_source {
    uint32_t n; /* items */
    uint64_t (*bytes)(void *ctx, uint32_t i); /* of item i, not 0 */
    /* Bytes [from, from + bytes) of item i to dst. */
    moe_status (*read)(void *ctx, uint32_t i, uint64_t from, uint64_t bytes,
                       void *dst, struct moe_error *err);
    /* All of item i is at base: the place to check it.  May be NULL. */
    moe_status (*finish)(void *ctx, uint32_t i, void *base,
                         struct moe_error *err);
    void *ctx;
};

/*
 * ring: bytes of memory, aligned to MOE_FEED_ALIGN, at least the largest
 * item.  threads: readers; when the system gives fewer there are fewer, and
 * without any the caller reads.  MOE_E_INVAL: the ring is smaller than an
 * item.
 */
moe_status moe_feed_open(const struct moe_feed_source *source, void *ring,
                         uint64_t bytes, uint32_t threads,
                         struct moe_feed **out, struct moe_error *err);
/*
 * Waits for the next item, in order.  *base: its bytes.  An item that could
 * not be read or was refused gives its error, after all items before it, and
 * so does every later call.  Not after the last item.
 */
moe_status moe_feed_next(struct moe_feed *f, uint32_t *i, void **base,
                         struct moe_error *err);
/* The item got last is used up. */
void       moe_feed_release(struct moe_feed *f);
/* Waits for reads that are under way, drops what was not used. */
void       moe_feed_close(struct moe_feed *f);

#endif /* MOE_CORE_MEMORY_FEED_H */
