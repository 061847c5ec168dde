/* SPDX-License-Identifier: Apache-2.0 */
/* Slots: who leaves first, pinned never, against slow models. */
#include "memory/residency.h"
#include "tap.h"

#include <math.h>
#include <string.h>

#define KEYS  23
#define SLOTS 5

/* Least used of late first, of those the last used: every slot looked at, over
 * enough steps that counts are made small again. */
static void
test_lfu(void)
{
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct moe_residency *r = NULL;
    double                used[KEYS] = {0}, use = 1;
    uint32_t              in[SLOTS], age[SLOTS], held[SLOTS];
    uint32_t              i, j, clock = 0, bad = 0, hits = 0, rng = 7;

    ok(moe_residency_open(KEYS, SLOTS, MOE_EVICT_LFU, &r, &err) == MOE_OK,
       "open");
    for (j = 0; j < SLOTS; j++) {
        in[j] = UINT32_MAX;
        age[j] = 0;
    }
    for (i = 0; i < 60000; i++) {
        uint32_t n, slot, want;

        if (i % 3 == 0) {
            moe_residency_step(r);
            use *= pow(2, 1.0 / MOE_RESIDENCY_HALF);
            if (use > 1e200) { /* the same in exact numbers */
                for (j = 0; j < KEYS; j++)
                    used[j] /= use;
                use = 1;
            }
        }
        memset(held, 0, sizeof(held));
        for (n = 0; n < 3; n++) { /* three at once, pinned meanwhile */
            uint32_t a, b, key;

            rng = rng * 1664525u + 1013904223u;
            a = (rng >> 16) % KEYS;
            rng = rng * 1664525u + 1013904223u;
            b = (rng >> 16) % KEYS;
            key = a < b ? a : b; /* the low ones are popular */
            for (want = 0; want < SLOTS && in[want] != key; want++)
                ;
            if (want < SLOTS && held[want])
                continue;
            slot = moe_residency_find(r, key);
            if (want < SLOTS) {
                bad += slot != want;
                hits++;
                moe_residency_pin(r, key);
            } else {
                bad += slot != MOE_NO_SLOT;
                for (want = j = 0; j < SLOTS; j++) {
                    if (held[j] || held[want] || in[want] == UINT32_MAX) {
                        want = held[want] ? j : want;
                        continue;
                    }
                    if (in[j] == UINT32_MAX
                        || used[in[j]] < used[in[want]] * (1 - 1e-9)
                        || (used[in[j]] < used[in[want]] * (1 + 1e-9)
                            && age[j] > age[want]))
                        want = j;
                }
                slot = moe_residency_take(r, key);
                bad += slot != want;
                in[want] = key;
            }
            used[key] += use;
            held[want] = 1;
            age[want] = ++clock;
        }
        moe_residency_unpin_all(r);
    }
    is_int(bad, 0, "60000 steps as least-frequently-used-of-late defines it");
    ok(hits > 45000, "%u hits", hits);
    moe_residency_close(r);
}

/* All keys in turn, again and again: what stays is found, where the least
 * recently used would always have just left. */
static void
test_scan(void)
{
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct moe_residency *r = NULL;
    uint32_t              who, i, key, hits;

    for (who = MOE_EVICT_LFU; who <= MOE_EVICT_LRU; who++) {
        (void) moe_residency_open(KEYS, SLOTS, who, &r, &err);
        for (hits = 0, i = 0; i < 100; i++) {
            moe_residency_step(r);
            for (key = 0; key < KEYS; key++) {
                if (moe_residency_find(r, key) != MOE_NO_SLOT)
                    hits++;
                else
                    (void) moe_residency_take(r, key);
                moe_residency_unpin_all(r);
            }
        }
        if (who == MOE_EVICT_LFU)
            is_int(hits, 99 * (SLOTS - 1), "all in turn: all but one stay");
        else
            is_int(hits, 0, "... none, if the oldest leaves");
        moe_residency_close(r);
    }
}

int
main(void)
{
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct moe_residency *r;
    uint32_t              key_in[SLOTS], age[SLOTS], clock = 0, i, j, bad = 0;
    uint32_t              rng = 1;

    ok(moe_residency_open(4, 2, MOE_EVICT_LRU, &r, &err) == MOE_OK, "open");
    is_int(moe_residency_find(r, 0), MOE_NO_SLOT, "nothing yet");
    is_int(moe_residency_take(r, 0), 0, "first slot");
    is_int(moe_residency_take(r, 1), 1, "second slot");
    is_int(moe_residency_take(r, 2), MOE_NO_SLOT,
           "all pinned: no victim is an answer");
    moe_residency_unpin_all(r);
    is_int(moe_residency_find(r, 0), 0, "a hit");
    is_int(moe_residency_take(r, 2), 1, "the older one leaves");
    is_int(moe_residency_find(r, 1), MOE_NO_SLOT, "and is gone");
    moe_residency_drop(r, 2);
    is_int(moe_residency_find(r, 2), MOE_NO_SLOT, "dropped");
    is_int(moe_residency_take(r, 3), 1, "its slot is empty and comes first");
    is_int(moe_residency_find(r, 0), 0, "nobody else lost his");
    moe_residency_close(r);

    /* against the definition */
    ok(moe_residency_open(KEYS, SLOTS, MOE_EVICT_LRU, &r, &err) == MOE_OK,
       "open");
    for (i = 0; i < SLOTS; i++) {
        key_in[i] = UINT32_MAX;
        age[i] = 0;
    }
    for (i = 0; i < 5000; i++) {
        uint32_t key, slot, want = MOE_NO_SLOT;

        rng = rng * 1664525u + 1013904223u;
        key = (rng >> 16) % KEYS;
        for (j = 0; j < SLOTS; j++)
            if (key_in[j] == key)
                want = j;
        slot = moe_residency_find(r, key);
        bad += slot != want;
        if (slot == MOE_NO_SLOT) {
            want = 0;
            for (j = 1; j < SLOTS; j++)
                if (age[j] < age[want])
                    want = j;
            slot = moe_residency_take(r, key);
            bad += slot != want;
            key_in[want] = key;
            moe_residency_unpin_all(r);
        }
        age[slot] = ++clock;
    }
    is_int(bad, 0, "5000 uses as least-recently-used defines it");
    moe_residency_close(r);
    is_int(moe_residency_open(3, 0, MOE_EVICT_LRU, &r, &err), MOE_E_INVAL,
           "no slots");
    test_lfu();
    test_scan();
    return tap_done();
}
