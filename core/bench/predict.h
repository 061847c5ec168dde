/* SPDX-License-Identifier: Apache-2.0 */
/*
 * predict.h - what the planner says of a test before it runs.
 */
#ifndef MOE_CORE_BENCH_PREDICT_H
#define MOE_CORE_BENCH_PREDICT_H

#include "bench/ceiling.h"
#include "config/options.h"

struct moe_prediction;

/* Measures the operations of the engine's backend in its formats, some
 * seconds each, within what its budget leaves.  NULL: no prediction can be
 * made, because there is no room or the planner does not know the model. */
struct moe_prediction *moe_prediction_open(const moe_options  *o,
                                           const moe_engine   *e,
                                           struct moe_ceiling *c);
void moe_prediction_close(struct moe_prediction *p); /* NULL is fine */

/* moe_rates_pace; NULL: slow is 1. */
moe_status moe_prediction_pace(struct moe_prediction *p, double slow[2],
                               struct moe_error *err);
/* Tokens a second of a test; warm: steps that a generation does before the
 * clock starts; slow: the pace while the test ran.  0: not known. */
double moe_prediction_tps(struct moe_prediction       *p,
                          const struct moe_bench_test *t, uint64_t warm,
                          const double slow[2]);

#endif /* MOE_CORE_BENCH_PREDICT_H */
