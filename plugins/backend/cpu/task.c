/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task.c - work on the host's threads, and pointers into its buffers.
 *
 * Owns the decision whether a job is worth more than one thread, and the
 * only place where a moe_buf becomes a pointer: nothing outside the buffer
 * is ever touched, whatever an operation says.
 */

#include <stdatomic.h>

#include "backend/cpu/cpu.h"

/* Waking another thread and waiting for it costs some microseconds; a job
 * must be clearly longer than that, in nanoseconds. */
#define SHORT_JOB 12000u

struct job {
    void (*fn)(void *arg, uint32_t i, uint32_t slot);
    void       *arg;
    uint32_t    n;
    atomic_uint next;
};

/* Hot. */
static void
job_slot(void *arg, uint32_t slot)
{
    struct job *j = arg;
    uint32_t    i;

    while ((i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed))
           < j->n)
        j->fn(j->arg, i, slot);
}

void
cpu_run(const moe_device *dev, uint32_t n, uint64_t cost,
        void (*fn)(void *arg, uint32_t i, uint32_t slot), void *arg)
{
    struct job j = { .fn = fn, .arg = arg, .n = n };
    uint32_t   slots = (uint32_t) cpu_min(dev->workers, n);

    atomic_init(&j.next, 0);
    if (slots <= 1 || cost < SHORT_JOB)
        job_slot(&j, 0);
    else
        dev->host->parallel(dev->host->ctx, slots, job_slot, &j);
}

uint64_t
cpu_cost(uint64_t weight_bytes, uint64_t macs)
{
    return weight_bytes / 12 + macs / 32;
}

void *
cpu_bytes(const moe_device *dev, struct moe_buf b, uint64_t bytes,
          const char *what, struct moe_error *err)
{
    if (b.mem == NULL || b.mem->dev != dev || b.off > b.mem->bytes
        || bytes > b.mem->bytes - b.off) {
        moe_fail(err, MOE_E_INVAL, 0,
                 "%s: %llu bytes at offset %llu are not inside a buffer of "
                 "%llu bytes of this device",
                 what, (unsigned long long) bytes, (unsigned long long) b.off,
                 (unsigned long long) (b.mem != NULL ? b.mem->bytes : 0));
        return NULL;
    }
    if (b.off % 4 != 0) {
        moe_fail(err, MOE_E_INVAL, 0, "%s: offset %llu is no multiple of 4",
                 what, (unsigned long long) b.off);
        return NULL;
    }
    return b.mem->ptr + b.off;
}

void *
cpu_rows(const moe_device *dev, struct moe_buf b, uint64_t rows, uint64_t n,
         uint64_t ld, const char *what, struct moe_error *err)
{
    uint64_t bytes;

    if (ld < n) {
        moe_fail(err, MOE_E_INVAL, 0,
                 "%s: rows of %llu elements lie only %llu apart", what,
                 (unsigned long long) n, (unsigned long long) ld);
        return NULL;
    }
    if (rows == 0)
        return cpu_bytes(dev, b, 0, what, err);
    if (__builtin_mul_overflow(rows - 1, ld, &bytes)
        || __builtin_add_overflow(bytes, n, &bytes)
        || __builtin_mul_overflow(bytes, 4, &bytes)) {
        moe_fail(err, MOE_E_INVAL, 0,
                 "%s: %llu rows of %llu elements are more than memory holds",
                 what, (unsigned long long) rows, (unsigned long long) ld);
        return NULL;
    }
    return cpu_bytes(dev, b, bytes, what, err);
}
