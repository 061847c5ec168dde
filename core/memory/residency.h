/* SPDX-License-Identifier: Apache-2.0 */
/*
 * residency.h - which expert lies in which slot.
 *
 * Bookkeeping alone: weights never change, so an expert is dropped by
 * forgetting it.  The bytes are moved by whoever asked for the slot.
 *
 * Threads: one at a time for each object.  Hot functions do not allocate and
 * take steps by the logarithm of the slots.
 */
#ifndef MOE_CORE_MEMORY_RESIDENCY_H
#define MOE_CORE_MEMORY_RESIDENCY_H

#include <moe/types.h>

struct moe_residency;

#define MOE_NO_SLOT UINT32_MAX

/* Who leaves first. */
enum moe_eviction {
    /* Who was used least of late: a use counts half after
     * MOE_RESIDENCY_HALF steps.  Of those used alike the last one leaves: a
     * step meets the layers in turn, so it is the one not wanted for longest,
     * and what stays is found again even if a step uses more than has room. */
    MOE_EVICT_LFU,
    MOE_EVICT_LRU /* who was not used for longest */
};
#define MOE_RESIDENCY_HALF 32

/* keys: experts that compete for the slots, numbered from 0. */
moe_status moe_residency_open(uint32_t keys, uint32_t slots,
                              enum moe_eviction who,
                              struct moe_residency **out,
                              struct moe_error *err);
void       moe_residency_close(struct moe_residency *r);

/* A step begins: uses before it count a little less. */
void moe_residency_step(struct moe_residency *r);

/* The slot of a key, MOE_NO_SLOT if it has none.  A hit counts as a use. */
uint32_t moe_residency_find(struct moe_residency *r, uint32_t key);

/*
 * A slot for a key that has none: an empty one, or that of the first to leave
 * that is not pinned.  MOE_NO_SLOT: all are pinned; that is an answer, the
 * caller runs a second pass.  The key has the slot, pinned, from now on.
 */
uint32_t moe_residency_take(struct moe_residency *r, uint32_t key);
/* The key's content could not be filled: its slot is empty again. */
void moe_residency_drop(struct moe_residency *r, uint32_t key);

/* A pinned key keeps its slot until moe_residency_unpin_all. */
void moe_residency_pin(struct moe_residency *r, uint32_t key);
void moe_residency_unpin_all(struct moe_residency *r);

/* Bytes of bookkeeping for so many keys and slots. */
uint64_t moe_residency_bytes(uint64_t keys, uint64_t slots);

#endif /* MOE_CORE_MEMORY_RESIDENCY_H */
