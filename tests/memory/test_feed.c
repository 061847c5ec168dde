/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading ahead: every byte in order whatever the ring and the readers, reads
 * of later items while an earlier one is held, the first error of the list
 * and no other, an end at any time.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "memory/feed.h"
#include "tap.h"

#define N 200

struct source {
    uint64_t    size[N];
    uint32_t    fail_read, fail_check; /* items; N: none */
    uint32_t    meet; /* reads that must be under way at once; 0: any */
    atomic_uint calls, checked, now, most;
};

static uint8_t
byte_of(uint32_t i, uint64_t at)
{
    return (uint8_t) (i * 31 + at * 7 + at / 251);
}

static uint64_t
size_of(void *ctx, uint32_t i)
{
    return ((struct source *) ctx)->size[i];
}

static void
doze(void)
{
    struct timespec t = {0, 1000000};

    (void) nanosleep(&t, NULL);
}

static moe_status
read_bytes(void *ctx, uint32_t i, uint64_t from, uint64_t bytes, void *dst,
           struct moe_error *err)
{
    struct source *s = ctx;
    uint64_t       k;
    uint32_t       now = atomic_fetch_add(&s->now, 1) + 1, round, most;

    atomic_fetch_add(&s->calls, 1);
    most = atomic_load(&s->most);
    while (now > most && !atomic_compare_exchange_weak(&s->most, &most, now))
        continue;
    /* up to a second for as many others as are wanted to come */
    for (round = 0; atomic_load(&s->most) < s->meet && round < 1000; round++)
        doze();
    for (k = 0; k < bytes; k++)
        ((uint8_t *) dst)[k] = byte_of(i, from + k);
    atomic_fetch_sub(&s->now, 1);
    if (i >= s->fail_read)
        return moe_fail(err, MOE_E_IO, 5, "item %u: no bytes", i);
    return MOE_OK;
}

static moe_status
check(void *ctx, uint32_t i, void *base, struct moe_error *err)
{
    struct source *s = ctx;
    const uint8_t *p = base;

    atomic_fetch_add(&s->checked, 1);
    if (i == s->fail_check || p[0] != byte_of(i, 0)
        || p[s->size[i] - 1] != byte_of(i, s->size[i] - 1))
        return moe_fail(err, MOE_E_CORRUPT, 0, "item %u: refused", i);
    return MOE_OK;
}

/* Takes all items; the number of those that were whole and in order. */
static uint32_t
take(struct source *s, uint32_t n, uint64_t ring, uint32_t threads,
     uint32_t most, moe_status *st, struct moe_error *err)
{
    struct moe_feed_source src = {n, size_of, read_bytes, check, s};
    uint8_t               *memory = aligned_alloc(64, (ring + 63) / 64 * 64);
    struct moe_feed       *f = NULL;
    uint32_t               good = 0, i, k;
    void                  *base;

    *st = moe_feed_open(&src, memory, ring, threads, &f, err);
    for (k = 0; k < n && k < most && *st == MOE_OK; k++) {
        uint64_t at, bad = 0;

        *st = moe_feed_next(f, &i, &base, err);
        if (*st != MOE_OK)
            break;
        for (at = 0; at < s->size[k]; at++)
            bad += ((uint8_t *) base)[at] != byte_of(k, at);
        good += i == k && bad == 0 && (uintptr_t) base % 64 == 0;
        moe_feed_release(f);
    }
    moe_feed_close(f);
    free(memory);
    return good;
}

int
main(void)
{
    static const uint32_t threads[] = {0, 1, 4};
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct source         s = {.fail_read = N, .fail_check = N};
    uint64_t              largest = 0;
    uint32_t              i, t, rng = 7;
    moe_status            st;

    for (i = 0; i < N; i++) {
        rng = rng * 1664525u + 1013904223u;
        s.size[i] = 1 + (rng >> 8) % 5000;
        if (s.size[i] > largest)
            largest = s.size[i];
    }
    for (t = 0; t < 3; t++) {
        uint64_t ring = largest + t; /* not a multiple of anything */

        is_int(take(&s, N, ring, threads[t], N, &st, &err), N,
               "%u readers, a ring of the largest item", threads[t]);
        is_int(take(&s, N, 4 * largest, threads[t], N, &st, &err), N,
               "%u readers, four of them", threads[t]);
        is_int(take(&s, N, 1 << 21, threads[t], N, &st, &err), N,
               "%u readers, room for everything", threads[t]);
    }
    is_int(take(&s, N, largest - 1, 2, N, &st, &err), 0, "a ring too small");
    is_int(st, MOE_E_INVAL, "is refused");

    /* one item of several pieces, an end in the middle */
    s.size[1] = 2 * MOE_FEED_PIECE + 77;
    is_int(take(&s, 3, s.size[1], 4, 3, &st, &err), 3,
           "an item larger than a read");
    for (i = 0; i < 6; i++)
        is_int(take(&s, N, s.size[1], 4, i, &st, &err), i,
               "closed after %u items", i);

    /* three reads at once, though the user takes nothing meanwhile */
    s.meet = 3;
    atomic_store(&s.most, 0);
    is_int(take(&s, 3, 3 * s.size[1], 4, 3, &st, &err), 3, "read at once");
    ok(atomic_load(&s.most) >= 3, "%u reads were under way together",
       atomic_load(&s.most));
    s.meet = 0;

    s.size[1] = 100;
    for (t = 0; t < 3; t++) {
        /* everything from 50 on fails: the first is the one that is told */
        s.fail_read = 50;
        is_int(take(&s, N, 8 * largest, threads[t], N, &st, &err), 50,
               "%u readers: what comes before an error", threads[t]);
        is_int(st, MOE_E_IO, "the error's status");
        is_str(err.text, "item 50: no bytes", "and its words");
        is_int(err.native, 5, "and the system's number");
        s.fail_read = N;
        s.fail_check = 20;
        is_int(take(&s, N, 8 * largest, threads[t], N, &st, &err), 20,
               "%u readers: what comes before a refusal", threads[t]);
        is_int(st, MOE_E_CORRUPT, "its status");
        is_str(err.text, "item 20: refused", "and its words");
        s.fail_check = N;
    }
    return tap_done();
}
