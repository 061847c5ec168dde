/* SPDX-License-Identifier: Apache-2.0 */
/* Slots: least recently used first, pinned never, against a slow model. */
#include "memory/residency.h"
#include "tap.h"

#define KEYS  23
#define SLOTS 5

int
main(void)
{
    struct moe_error      err = {.struct_size = sizeof(err)};
    struct moe_residency *r;
    uint32_t              key_in[SLOTS], age[SLOTS], clock = 0, i, j, bad = 0;
    uint32_t              rng = 1;

    ok(moe_residency_open(4, 2, &r, &err) == MOE_OK, "open");
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
    ok(moe_residency_open(KEYS, SLOTS, &r, &err) == MOE_OK, "open");
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
    is_int(moe_residency_open(3, 0, &r, &err), MOE_E_INVAL, "no slots");
    return tap_done();
}
