/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - the worker threads of one engine.
 *
 * The only threads that compute in this process: backends and quantizers
 * borrow them through moe_host.parallel.  Workers spin for a few
 * microseconds after a job, then sleep on a futex, so that the many short
 * parallel regions of a decode step do not pay for a wake-up each.
 */
#ifndef MOE_CORE_SUPPORT_POOL_H
#define MOE_CORE_SUPPORT_POOL_H

#include <moe/types.h>

#include "support/cpus.h"

struct moe_pool;

/*
 * Threads and places as moe_cpus_choose has them, the calling thread first:
 * where there are places it is bound to its own until it closes the pool.
 * With more threads than processors nobody spins.
 */
moe_status moe_pool_open_on(const struct moe_cpus *cpus, struct moe_pool **out,
                            struct moe_error *err);
/* threads: the caller included; 0: what moe_cpus_choose says.  Not bound. */
moe_status moe_pool_open(uint32_t threads, struct moe_pool **out,
                         struct moe_error *err);
void       moe_pool_close(struct moe_pool *p);
uint32_t   moe_pool_threads(const struct moe_pool *p);

/* fn(arg, i) once for each i in [0, n), in any order; returns when all are
 * done.  Not from inside fn. */
void moe_pool_run(struct moe_pool *p, uint32_t n,
                  void (*fn)(void *arg, uint32_t i), void *arg);

/* What threads = 0 means here. */
uint32_t moe_pool_default_threads(void);

#endif /* MOE_CORE_SUPPORT_POOL_H */
