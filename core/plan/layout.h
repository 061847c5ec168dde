/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.h - how the devices of one copy of a model share it.
 */
#ifndef MOE_CORE_PLAN_LAYOUT_H
#define MOE_CORE_PLAN_LAYOUT_H

#include "plan/shape.h"

#define MOE_DEVICES_MAX 65536u

/* pp stages of G devices; in a stage dp groups of tp share the attention of
 * different sequences, and the experts are dealt out to ep parts. */
struct moe_layout {
    uint32_t G, tp, ep, pp, dp;
};

/* MOE_E_INVAL: a figure of the setup that is out of range, or copies of the
 * model that the devices do not divide into. */
moe_status moe_layout_check(const struct moe_plan_setup *s,
                            struct moe_error            *err);
/* want: its tp, ep and pp (0: one stage); s: of one copy, with its devices.
 * MOE_E_INVAL: they divide no devices, heads or experts, with those that
 * do, or there is no link between devices that need one. */
moe_status moe_layout_make(const struct moe_sketch     *m,
                           const struct moe_plan_setup *s,
                           const struct moe_layout *want,
                           struct moe_layout *out, struct moe_error *err);
/* The fewest devices that a layout with these parts can have, all copies
 * together; 0: more than any. */
uint32_t moe_layout_least(const struct moe_plan_setup *s);

#endif /* MOE_CORE_PLAN_LAYOUT_H */
