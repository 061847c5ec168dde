/* SPDX-License-Identifier: Apache-2.0 */
/*
 * residency.c - which expert lies in which slot.
 *
 * Owns the slot tables.  Slots form a heap with the first to leave on top; a
 * pinned slot is taken out of it, so "none" is an empty heap.
 */
#include "memory/residency.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define MOE_NO_KEY   UINT32_MAX
#define MOE_PINNED   UINT32_MAX /* no place in the heap */
#define MOE_MOST_USE 1e150      /* of one use; then all are made small again */

struct moe_slot {
    uint32_t key;  /* MOE_NO_KEY: empty */
    uint32_t at;   /* its place in the heap, or MOE_PINNED */
    uint64_t last; /* when it was used */
};

struct moe_residency {
    enum moe_eviction who;
    uint32_t          n_keys, n_slots;
    uint32_t          n_pinned, n_heap;
    uint64_t          clock;
    double            use;     /* what a use counts now; it grows */
    uint32_t         *slot_of; /* (n_keys) */
    double           *used;    /* (n_keys) uses; also of keys without a slot */
    uint32_t         *pins;    /* (n_slots) stack of pinned slots */
    uint32_t         *heap;    /* (n_slots) */
    struct moe_slot  *slots;   /* (n_slots) */
};

/* ------------------------------------------------------------------ heap -- */

/* Slot a leaves before slot b. */
static int
moe_leaves(const struct moe_residency *r, uint32_t a, uint32_t b)
{
    const struct moe_slot *x = &r->slots[a], *y = &r->slots[b];

    if ((x->key == MOE_NO_KEY) != (y->key == MOE_NO_KEY))
        return x->key == MOE_NO_KEY;
    if (x->key == MOE_NO_KEY || r->who == MOE_EVICT_LRU)
        return x->last < y->last;
    if (r->used[x->key] < r->used[y->key])
        return 1;
    return !(r->used[x->key] > r->used[y->key]) && x->last > y->last;
}

static void
moe_heap_set(struct moe_residency *r, uint32_t at, uint32_t s)
{
    r->heap[at] = s;
    r->slots[s].at = at;
}

/* Slot s, whose place may be wrong, to its place. */
static void
moe_heap_move(struct moe_residency *r, uint32_t s)
{
    uint32_t at = r->slots[s].at, up, down;

    for (; at > 0; at = up) {
        up = (at - 1) / 2;
        if (!moe_leaves(r, s, r->heap[up]))
            break;
        moe_heap_set(r, at, r->heap[up]);
    }
    for (; (down = 2 * at + 1) < r->n_heap; at = down) {
        if (down + 1 < r->n_heap
            && moe_leaves(r, r->heap[down + 1], r->heap[down]))
            down++;
        if (!moe_leaves(r, r->heap[down], s))
            break;
        moe_heap_set(r, at, r->heap[down]);
    }
    moe_heap_set(r, at, s);
}

static void
moe_heap_add(struct moe_residency *r, uint32_t s)
{
    moe_heap_set(r, r->n_heap++, s);
    moe_heap_move(r, s);
}

static void
moe_heap_remove(struct moe_residency *r, uint32_t s)
{
    uint32_t at = r->slots[s].at, end = r->heap[--r->n_heap];

    r->slots[s].at = MOE_PINNED;
    if (end != s) {
        moe_heap_set(r, at, end);
        moe_heap_move(r, end);
    }
}

/* ---------------------------------------------------------------- tables -- */

uint64_t
moe_residency_bytes(uint64_t keys, uint64_t slots)
{
    return sizeof(struct moe_residency)
           + (keys + 1) * (sizeof(uint32_t) + sizeof(double))
           + slots * (sizeof(struct moe_slot) + 2 * sizeof(uint32_t));
}

moe_status
moe_residency_open(uint32_t keys, uint32_t slots, enum moe_eviction who,
                   struct moe_residency **out, struct moe_error *err)
{
    struct moe_residency *r;
    uint32_t              i;

    if (slots == 0 || slots == UINT32_MAX)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "residency: %u slots asked for", slots);
    r = calloc(1, sizeof(*r));
    if (r == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "residency: no memory");
    r->slot_of = malloc(((size_t) keys + 1) * sizeof(*r->slot_of));
    r->used = calloc((size_t) keys + 1, sizeof(*r->used));
    r->pins = malloc((size_t) slots * sizeof(*r->pins));
    r->heap = malloc((size_t) slots * sizeof(*r->heap));
    r->slots = malloc((size_t) slots * sizeof(*r->slots));
    if (r->slot_of == NULL || r->used == NULL || r->pins == NULL
        || r->heap == NULL || r->slots == NULL) {
        moe_residency_close(r);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "residency: no memory");
    }
    r->who = who;
    r->n_keys = keys;
    r->n_slots = slots;
    r->use = 1;
    for (i = 0; i < keys; i++)
        r->slot_of[i] = MOE_NO_SLOT;
    for (i = 0; i < slots; i++) {
        r->slots[i].key = MOE_NO_KEY;
        r->slots[i].last = ++r->clock;
        moe_heap_add(r, i);
    }
    *out = r;
    return MOE_OK;
}

void
moe_residency_close(struct moe_residency *r)
{
    if (r == NULL)
        return;
    free(r->slot_of);
    free(r->used);
    free(r->pins);
    free(r->heap);
    free(r->slots);
    free(r);
}

/* Later uses count more instead of earlier ones less: no table is walked, but
 * once in ten thousand steps. */
void
moe_residency_step(struct moe_residency *r)
{
    uint32_t i, n;

    r->use *= exp2(1.0 / MOE_RESIDENCY_HALF);
    if (r->use < MOE_MOST_USE)
        return;
    for (i = 0; i < r->n_keys; i++)
        r->used[i] /= r->use;
    r->use = 1;
    /* what has become too small to tell apart may have changed places */
    n = r->n_heap;
    r->n_heap = 0;
    for (i = 0; i < n; i++)
        moe_heap_add(r, r->heap[i]);
}

uint32_t
moe_residency_find(struct moe_residency *r, uint32_t key)
{
    uint32_t s = r->slot_of[key];

    if (s == MOE_NO_SLOT)
        return s;
    r->used[key] += r->use;
    if (r->slots[s].at != MOE_PINNED) {
        r->slots[s].last = ++r->clock;
        moe_heap_move(r, s);
    }
    return s;
}

void
moe_residency_pin(struct moe_residency *r, uint32_t key)
{
    uint32_t s = r->slot_of[key];

    if (s == MOE_NO_SLOT || r->slots[s].at == MOE_PINNED)
        return;
    moe_heap_remove(r, s);
    r->pins[r->n_pinned++] = s;
}

uint32_t
moe_residency_take(struct moe_residency *r, uint32_t key)
{
    uint32_t s;

    if (r->n_heap == 0)
        return MOE_NO_SLOT;
    s = r->heap[0];
    moe_heap_remove(r, s);
    r->pins[r->n_pinned++] = s;
    if (r->slots[s].key != MOE_NO_KEY)
        r->slot_of[r->slots[s].key] = MOE_NO_SLOT;
    r->slots[s].key = key;
    r->slot_of[key] = s;
    r->used[key] += r->use;
    return s;
}

void
moe_residency_drop(struct moe_residency *r, uint32_t key)
{
    uint32_t s = r->slot_of[key], i;

    if (s == MOE_NO_SLOT)
        return;
    r->slot_of[key] = MOE_NO_SLOT;
    r->slots[s].key = MOE_NO_KEY;
    r->slots[s].last = 0;
    if (r->slots[s].at != MOE_PINNED) {
        moe_heap_move(r, s);
        return;
    }
    for (i = 0; i < r->n_pinned; i++)
        if (r->pins[i] == s) {
            r->pins[i] = r->pins[--r->n_pinned];
            break;
        }
    moe_heap_add(r, s);
}

void
moe_residency_unpin_all(struct moe_residency *r)
{
    uint32_t i;

    /* In the order they were pinned, so that age stays the order of use. */
    for (i = 0; i < r->n_pinned; i++) {
        r->slots[r->pins[i]].last = ++r->clock;
        moe_heap_add(r, r->pins[i]);
    }
    r->n_pinned = 0;
}
