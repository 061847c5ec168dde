/* SPDX-License-Identifier: Apache-2.0 */
/*
 * residency.h - which expert lies in which slot.
 *
 * Bookkeeping alone: weights never change, so an expert is dropped by
 * forgetting it.  The bytes are moved by whoever asked for the slot.
 *
 * Threads: one at a time for each object.  Hot functions neither allocate
 * nor search.
 */
#ifndef MOE_CORE_MEMORY_RESIDENCY_H
#define MOE_CORE_MEMORY_RESIDENCY_H

#include <moe/types.h>

struct moe_residency;

#define MOE_NO_SLOT UINT32_MAX

/* keys: experts that compete for the slots, numbered from 0.  The least
 * recently used goes first. */
moe_status moe_residency_open(uint32_t keys, uint32_t slots,
                              struct moe_residency **out,
                              struct moe_error *err);
void       moe_residency_close(struct moe_residency *r);

/* The slot of a key, MOE_NO_SLOT if it has none.  A hit counts as a use. */
uint32_t moe_residency_find(struct moe_residency *r, uint32_t key);

/*
 * A slot for a key that has none: an empty one, or that of the oldest key
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
