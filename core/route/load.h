/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.h - how the router spread tokens over the experts.
 *
 * Counts per layer and expert since the start, and what is derived of them.
 * Threads: one at a time.
 */
#ifndef MOE_CORE_ROUTE_LOAD_H
#define MOE_CORE_ROUTE_LOAD_H

#include <moe/types.h>

struct moe_load {
    uint32_t  n_layers, n_experts, top_k;
    uint64_t *counts;    /* (n_layers, n_experts) pairs since the start */
    uint64_t  visits;    /* layer steps: one MoE layer in one step */
    uint64_t  distinct;  /* sum over visits of experts with a row */
    double    even;      /* the same sum, were every expert as likely */
};

moe_status moe_load_open(uint32_t n_layers, uint32_t n_experts, uint32_t top_k,
                         struct moe_load *out, struct moe_error *err);
void       moe_load_close(struct moe_load *l);

/* One layer of one step.  offsets: (n_experts + 1) as moe_op_route leaves
 * them: expert e got offsets[e + 1] - offsets[e] rows. */
void moe_load_add(struct moe_load *l, uint32_t layer, const uint32_t *offsets);

/* Means over layers by their tokens: the last layer of a prompt sees few.
 * The largest load over the mean load; 1 is even, 0: no tokens yet. */
double moe_load_imbalance(const struct moe_load *l);
/* The load's entropy over log(n_experts); 1 is even. */
double moe_load_entropy(const struct moe_load *l);
/* Mean experts that a layer touches in a step. */
double moe_load_distinct(const struct moe_load *l);
/* ... and would on average, were every expert as likely:
 * E (1 - (1 - k/E)^rows) of each visit's rows. */
double moe_load_even(const struct moe_load *l);

#endif /* MOE_CORE_ROUTE_LOAD_H */
