/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - device memory and slabs of the fake device.
 *
 * Every byte is asked for in the ledger before it is taken, filled with NaN,
 * and kept, dead, while a queued command still refers to it.
 */

#include <stdlib.h>
#include <string.h>

#include "backend/fake/impl.h"

/* What an allocation takes: mem_align is the granule. */
static uint64_t
granules(uint64_t bytes)
{
    uint64_t n = bytes > 0 ? bytes : 1;

    return n > UINT64_MAX - FAKE_ALIGN
               ? UINT64_MAX / FAKE_ALIGN * FAKE_ALIGN
               : (n + FAKE_ALIGN - 1) / FAKE_ALIGN * FAKE_ALIGN;
}

/* bytes of device memory, all NaN: reserved first, then taken. */
static moe_status
device_memory(moe_device *dev, uint64_t want, const char *what,
              uint8_t **data, moe_grant **grant, struct moe_error *err)
{
    struct fake           *f = dev->fake;
    uint64_t               bytes = granules(want);
    const struct moe_host *host = f->host;
    char                   domain[16];
    moe_status             status;

    snprintf(domain, sizeof(domain), "fake%u", dev->index);
    if (fake_count(f, FAKE_RESERVE))
        return moe_fail(err, MOE_E_OVER_BUDGET, 0,
                        "fake device %u: reserve failed because `fail` says "
                        "so",
                        dev->index);
    status = host->reserve(host->ctx, domain, bytes, what, grant);
    if (status != MOE_OK)
        return moe_fail(err, status, 0,
                        "%s: the budget has no %llu bytes for %s", domain,
                        (unsigned long long) bytes, what);
    pthread_mutex_lock(&f->lock);
    *data = NULL;
    if (bytes <= f->memory - f->used[dev->index])
        *data = malloc(bytes);
    if (*data != NULL)
        f->used[dev->index] += bytes;
    pthread_mutex_unlock(&f->lock);
    if (*data == NULL) {
        host->release(host->ctx, *grant);
        return moe_fail(err, MOE_E_NOMEM, 0,
                        "%s: out of memory: %llu bytes for %s, %llu in all",
                        domain, (unsigned long long) bytes, what,
                        (unsigned long long) f->memory);
    }
    memset(*data, 0xff, bytes); /* NaN in every float format */
    return MOE_OK;
}

static void
device_memory_free(moe_device *dev, uint64_t want, uint8_t *data,
                   moe_grant *grant)
{
    uint64_t bytes = granules(want);

    free(data);
    pthread_mutex_lock(&dev->fake->lock);
    dev->fake->used[dev->index] -= bytes;
    pthread_mutex_unlock(&dev->fake->lock);
    dev->fake->host->release(dev->fake->host->ctx, grant);
}

moe_status
fake_mem_alloc(moe_device *dev, uint64_t bytes, uint32_t use, moe_mem **out,
               struct moe_error *err)
{
    const struct moe_host *host = dev->fake->host;
    moe_mem               *mem;
    moe_status status = fake_object_begin(dev, FAKE_ALLOC, MOE_E_NOMEM, err);

    if (status != MOE_OK)
        return status;
    mem = calloc(1, sizeof(*mem));
    if (mem == NULL)
        status = moe_fail(err, MOE_E_NOMEM, 0, "fake: out of memory");
    else if (use == MOE_USE_STAGING) {
        mem->data = host->alloc(host->ctx, bytes > 0 ? bytes : 1, 64);
        if (mem->data == NULL)
            status = moe_fail(err, MOE_E_NOMEM, 0,
                              "fake: no %llu bytes of host memory for "
                              "staging",
                              (unsigned long long) bytes);
        else
            memset(mem->data, 0xff, bytes);
    } else {
        status = device_memory(dev, bytes,
                               use == MOE_USE_SCRATCH ? "scratch"
                                                      : "activations",
                               &mem->data, &mem->grant, err);
    }
    if (status != MOE_OK) {
        free(mem);
        fake_device_unref(dev);
        return status;
    }
    mem->dev = dev;
    mem->bytes = bytes;
    mem->use = use;
    *out = mem;
    return MOE_OK;
}

/* No command refers to it any more. */
static void
mem_end(moe_mem *mem)
{
    moe_device            *dev = mem->dev;
    const struct moe_host *host = dev->fake->host;

    if (mem->use == MOE_USE_STAGING)
        host->free(host->ctx, mem->data);
    else
        device_memory_free(dev, mem->bytes, mem->data, mem->grant);
    free(mem);
    dev->objects--; /* the device is open, or its close waits for the lock */
}

static void
slab_end(moe_slab *slab)
{
    moe_device *dev = slab->dev;

    device_memory_free(dev, slab->slot_bytes * slab->n_slots, slab->data,
                       slab->grant);
    free(slab->filled);
    free(slab);
    dev->objects--;
}

void
fake_command_free(struct command *c)
{
    uint32_t i;

    for (i = 0; i < MOE_EXTENTS_MAX; i++)
        if (c->mem[i] != NULL && --c->mem[i]->refs == 0 && c->mem[i]->dead)
            mem_end(c->mem[i]);
    for (i = 0; i < c->n_w; i++)
        if (--c->w[i].slab->refs == 0 && c->w[i].slab->dead)
            slab_end(c->w[i].slab);
    if (c->slab != NULL && --c->slab->refs == 0 && c->slab->dead)
        slab_end(c->slab);
    if (c->event != NULL)
        c->event->refs--;
    free(c->op);
    free(c->w);
    free(c->experts);
    free(c);
}

void
fake_mem_free(moe_mem *mem)
{
    moe_device *dev;

    if (mem == NULL)
        return;
    dev = mem->dev;
    pthread_mutex_lock(&dev->lock);
    dev->objects++; /* keeps dev while its lock is held */
    mem->dead = 1;
    if (mem->refs == 0)
        mem_end(mem);
    pthread_mutex_unlock(&dev->lock);
    fake_device_unref(dev);
}

void *
fake_mem_host_ptr(moe_mem *mem)
{
    return mem->use == MOE_USE_STAGING ? mem->data : NULL;
}

moe_status
fake_slab_create(moe_device *dev, const struct moe_weights *w,
                 const struct moe_plan *plan, uint32_t n_slots,
                 moe_slab **out, struct moe_error *err)
{
    moe_slab  *slab;
    uint64_t   bytes = 0;
    moe_status status = fake_object_begin(dev, FAKE_SLAB, MOE_E_NOMEM, err);

    if (status != MOE_OK)
        return status;
    slab = calloc(1, sizeof(*slab));
    if (slab == NULL)
        status = moe_fail(err, MOE_E_NOMEM, 0, "fake: out of memory");
    if (status == MOE_OK)
        status = fake_layout(dev->fake, w, slab, err);
    if (status == MOE_OK
        && (slab->slot_bytes != plan->slot_bytes || n_slots == 0
            || __builtin_mul_overflow(slab->slot_bytes, (uint64_t) n_slots,
                                      &bytes)))
        status = moe_fail(err, MOE_E_INVAL, 0,
                          "fake: a slab of %u slots of %llu bytes; the plan "
                          "for these weights says %llu",
                          n_slots, (unsigned long long) slab->slot_bytes,
                          (unsigned long long) plan->slot_bytes);
    if (status == MOE_OK) {
        slab->filled = calloc(n_slots, 1);
        if (slab->filled == NULL)
            status = moe_fail(err, MOE_E_NOMEM, 0, "fake: out of memory");
    }
    if (status == MOE_OK)
        status = device_memory(dev, bytes, "expert slots", &slab->data,
                               &slab->grant, err);
    if (status != MOE_OK) {
        if (slab != NULL)
            free(slab->filled);
        free(slab);
        fake_device_unref(dev);
        return status;
    }
    slab->dev = dev;
    slab->n_slots = n_slots;
    *out = slab;
    return MOE_OK;
}

void
fake_slab_destroy(moe_slab *slab)
{
    moe_device *dev;

    if (slab == NULL)
        return;
    dev = slab->dev;
    pthread_mutex_lock(&dev->lock);
    dev->objects++; /* keeps dev while its lock is held */
    slab->dead = 1;
    if (slab->refs == 0)
        slab_end(slab);
    pthread_mutex_unlock(&dev->lock);
    fake_device_unref(dev);
}

moe_status
fake_slot_advise(moe_slab *slab, uint32_t slot, uint32_t advice)
{
    moe_status status = MOE_OK;

    pthread_mutex_lock(&slab->dev->lock);
    if (slot >= slab->n_slots)
        status = MOE_E_INVAL;
    else if (advice == MOE_ADVISE_DONE)
        slab->filled[slot] = 0; /* reads as NaN from now on */
    pthread_mutex_unlock(&slab->dev->lock);
    return status;
}
