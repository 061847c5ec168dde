/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ceiling.h - what the machine could do at best, measured.
 *
 * Reading: a buffer far larger than the last-level cache, on 4 KiB and on
 * 2 MiB pages, front to back and as four streams with prefetch.  Arithmetic:
 * loops that touch registers only.  All on the worker threads that also
 * compute, so that shares of a ceiling compare like with like.
 */
#ifndef MOE_CORE_BENCH_CEILING_H
#define MOE_CORE_BENCH_CEILING_H

#include <moe/moe.h>

#include "memory/ledger.h"
#include "support/pool.h"

struct moe_ceiling;

/* Takes the buffer, in the ledger's name "bench": as large as it may be,
 * down to a size that the caches cannot hold.  MOE_E_OVER_BUDGET: not even
 * that. */
moe_status moe_ceiling_open(struct moe_pool *pool, struct moe_ledger *ledger,
                            struct moe_ceiling **out, struct moe_error *err);
void       moe_ceiling_close(struct moe_ceiling *c); /* NULL is fine */

/* Every probe, each the median of `passes`; about 0.1 s a pass. */
void moe_ceiling_measure(struct moe_ceiling *c, uint32_t passes,
                         struct moe_bench_machine *out);
/* The best way to read and the best arithmetic once more: bytes and
 * operations a second now, with whoever else is on the machine. */
void moe_ceiling_now(struct moe_ceiling *c, double *read, double *arith);

/* Reads as much as the last-level cache is said to hold, so that it has
 * nothing else; bytes a second.  pool: of who computes next, because threads
 * that had slept would begin late. */
double moe_ceiling_evict(struct moe_ceiling *c, struct moe_pool *pool);
/* Seconds a byte of reading 1, 4, 16, 64 and 256 MiB again and again; what
 * the buffer is too small for is as the largest before. */
void moe_ceiling_sizes(struct moe_ceiling *c, double out[5]);

/* Median of n numbers, which are sorted in place; 0 if n is 0. */
double moe_median(double *v, uint32_t n);

/* ------------------------------------------------------------ kernels.c -- */

/* Reads `bytes` (a multiple of 4096) at p; the sum keeps it from being left
 * out. */
typedef uint64_t (*moe_read_fn)(const uint8_t *p, uint64_t bytes);
/* `rounds` rounds of arithmetic in registers. */
typedef uint64_t (*moe_arith_fn)(uint64_t rounds);

struct moe_kernels {
    moe_read_fn  read, read_streams;
    moe_arith_fn f32, int8;     /* int8 NULL: none for this processor */
    uint64_t     f32_ops, int8_ops; /* of one round */
    const char  *f32_by, *int8_by;
};
/* What this processor has; chosen once, while running. */
void moe_kernels_pick(struct moe_kernels *out);

#endif /* MOE_CORE_BENCH_CEILING_H */
