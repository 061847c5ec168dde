/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reuse.h - where a step finds its experts, if some are more popular.
 *
 * A device that has the most popular ones serves more than its share of all;
 * one that keeps those used most of late, as the engine does, about as much:
 * less while it learns, more where a text has favourites of its own.
 */
#ifndef MOE_CORE_PLAN_REUSE_H
#define MOE_CORE_PLAN_REUSE_H

#include <moe/plan.h>

/* Routes of so many tokens into out (tokens, layers, d->top_k); each layer has
 * popularities of its own, drawn with d->skew, that stay.  simulate.c. */
moe_status moe_draw_routes(const struct moe_plan_draw *d, uint32_t layers,
                           uint64_t tokens, uint16_t *out,
                           struct moe_error *err);

/* Of the experts that steps use, the parts that are among the `near` most
 * used ones and among the `far` that follow; and what is found in `near` slots
 * that the engine's own rule fills (MOE_EVICT_LFU). */
struct moe_reuse {
    double near, far, kept;
};
/*
 * d->batch sequences read the tokens of d->trace, or of routes drawn with
 * d->skew, each a part of its own, over and over: counted is what happens once
 * each has been read.  near + far at most layers * d->n_experts.  Tenths of a
 * second.
 */
moe_status moe_reuse(const struct moe_plan_draw *d, uint32_t layers,
                     uint32_t near, uint32_t far, struct moe_reuse *out,
                     struct moe_error *err);

#endif /* MOE_CORE_PLAN_REUSE_H */
