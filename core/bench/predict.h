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

/* Tokens a second of a test; warm: steps that a generation does before the
 * clock starts; read, arith: the ceilings while the test ran.  0: not
 * known. */
double moe_prediction_tps(struct moe_prediction *p,
                          const struct moe_bench_test *t, uint64_t warm,
                          double read, double arith);

#endif /* MOE_CORE_BENCH_PREDICT_H */
