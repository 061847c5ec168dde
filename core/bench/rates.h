/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rates.h - what a backend's operations take on this machine.
 */
#ifndef MOE_CORE_BENCH_RATES_H
#define MOE_CORE_BENCH_RATES_H

#include "bench/ceiling.h"
#include "config/options.h"

#include <moe/plan.h>

/* The kind of a format of so many bits an element: 0 to MOE_PLAN_KINDS - 1. */
uint32_t moe_rates_kind(double bits);

/* The counts of rows that weights are measured with, rising from 1. */
extern const uint32_t moe_rates_rows[MOE_PLAN_ROWS];

struct moe_prober; /* a decoder of random weights, to time steps of */

/*
 * Measures weights of one format (a quantizer's word, "int4-g32") into the
 * arrays of its kind, and the other operations with it; some seconds.  o: of
 * the engine that will be predicted; c empties the caches.  What fails leaves
 * *out as it was.  *kept, unless kept is NULL, becomes what moe_rates_pace
 * wants; one that was there is closed.
 */
moe_status moe_rates_measure(const moe_options *o, struct moe_ceiling *c,
                             const char *format, struct moe_plan_rates *out,
                             struct moe_prober **kept, struct moe_error *err);
void       moe_prober_close(struct moe_prober *p); /* NULL is fine */

/* How much longer than then two steps take now, medians over two tenths of a
 * second: [0] one that waits for the memory, [1] one that computes. */
moe_status moe_rates_pace(struct moe_prober *p, double slow[2],
                          struct moe_error *err);

#endif /* MOE_CORE_BENCH_RATES_H */
