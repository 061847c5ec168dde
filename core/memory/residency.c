/* SPDX-License-Identifier: Apache-2.0 */
/*
 * residency.c - which expert lies in which slot.
 *
 * Owns the slot tables.  Slots form one list by age, a pinned slot is taken
 * out of it; so the victim is the list's head, and "none" is an empty list.
 */
#include "memory/residency.h"

#include <errno.h>
#include <stdlib.h>

#define MOE_NO_KEY UINT32_MAX

struct moe_slot {
    uint32_t key; /* MOE_NO_KEY: empty */
    uint32_t next, prev;
    uint32_t pinned;
};

struct moe_residency {
    uint32_t         n_keys, n_slots;
    uint32_t         n_pinned;
    uint32_t        *slot_of; /* (n_keys) */
    uint32_t        *pins;    /* (n_slots) stack of pinned slots */
    struct moe_slot *slots;   /* (n_slots + 1); the last is the ring's head */
};

static void
moe_list_remove(struct moe_residency *r, uint32_t s)
{
    r->slots[r->slots[s].prev].next = r->slots[s].next;
    r->slots[r->slots[s].next].prev = r->slots[s].prev;
}

/* Before the head's old neighbour: the young end. */
static void
moe_list_append(struct moe_residency *r, uint32_t s)
{
    uint32_t head = r->n_slots, last = r->slots[head].prev;

    r->slots[s].prev = last;
    r->slots[s].next = head;
    r->slots[last].next = s;
    r->slots[head].prev = s;
}

static void
moe_list_prepend(struct moe_residency *r, uint32_t s)
{
    uint32_t head = r->n_slots, first = r->slots[head].next;

    r->slots[s].next = first;
    r->slots[s].prev = head;
    r->slots[first].prev = s;
    r->slots[head].next = s;
}

uint64_t
moe_residency_bytes(uint64_t keys, uint64_t slots)
{
    return sizeof(struct moe_residency) + keys * sizeof(uint32_t)
           + (slots + 1) * (sizeof(struct moe_slot) + sizeof(uint32_t));
}

moe_status
moe_residency_open(uint32_t keys, uint32_t slots, struct moe_residency **out,
                   struct moe_error *err)
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
    r->pins = malloc(((size_t) slots + 1) * sizeof(*r->pins));
    r->slots = calloc((size_t) slots + 1, sizeof(*r->slots));
    if (r->slot_of == NULL || r->pins == NULL || r->slots == NULL) {
        moe_residency_close(r);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "residency: no memory");
    }
    r->n_keys = keys;
    r->n_slots = slots;
    for (i = 0; i < keys; i++)
        r->slot_of[i] = MOE_NO_SLOT;
    r->slots[slots].next = r->slots[slots].prev = slots;
    for (i = 0; i < slots; i++) {
        r->slots[i].key = MOE_NO_KEY;
        moe_list_append(r, i);
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
    free(r->pins);
    free(r->slots);
    free(r);
}

uint32_t
moe_residency_find(struct moe_residency *r, uint32_t key)
{
    uint32_t s = r->slot_of[key];

    if (s != MOE_NO_SLOT && !r->slots[s].pinned) {
        moe_list_remove(r, s);
        moe_list_append(r, s);
    }
    return s;
}

void
moe_residency_pin(struct moe_residency *r, uint32_t key)
{
    uint32_t s = r->slot_of[key];

    if (s == MOE_NO_SLOT || r->slots[s].pinned)
        return;
    moe_list_remove(r, s);
    r->slots[s].pinned = 1;
    r->pins[r->n_pinned++] = s;
}

uint32_t
moe_residency_take(struct moe_residency *r, uint32_t key)
{
    uint32_t s = r->slots[r->n_slots].next;

    if (s == r->n_slots)
        return MOE_NO_SLOT;
    if (r->slots[s].key != MOE_NO_KEY)
        r->slot_of[r->slots[s].key] = MOE_NO_SLOT;
    r->slots[s].key = key;
    r->slot_of[key] = s;
    moe_residency_pin(r, key);
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
    if (r->slots[s].pinned) {
        r->slots[s].pinned = 0;
        for (i = 0; i < r->n_pinned; i++)
            if (r->pins[i] == s) {
                r->pins[i] = r->pins[--r->n_pinned];
                break;
            }
    } else {
        moe_list_remove(r, s);
    }
    moe_list_prepend(r, s);
}

void
moe_residency_unpin_all(struct moe_residency *r)
{
    uint32_t i;

    /* In the order they were pinned, so that age stays the order of use. */
    for (i = 0; i < r->n_pinned; i++) {
        r->slots[r->pins[i]].pinned = 0;
        moe_list_append(r, r->pins[i]);
    }
    r->n_pinned = 0;
}
