/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c - how the router spread tokens over the experts.
 *
 * Owns the counters.  The choice of experts is the backend's (moe_op_route);
 * this room only looks at the result.
 */
#include "route/load.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

moe_status
moe_load_open(uint32_t n_layers, uint32_t n_experts, uint32_t top_k,
              struct moe_load *out, struct moe_error *err)
{
    memset(out, 0, sizeof(*out));
    out->counts = calloc((size_t) n_layers * n_experts + 1,
                         sizeof(*out->counts));
    if (out->counts == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "expert load: no memory");
    out->n_layers = n_layers;
    out->n_experts = n_experts;
    out->top_k = top_k;
    return MOE_OK;
}

void
moe_load_close(struct moe_load *l)
{
    free(l->counts);
    memset(l, 0, sizeof(*l));
}

void
moe_load_add(struct moe_load *l, uint32_t layer, const uint32_t *offsets)
{
    uint64_t *counts = l->counts + (size_t) layer * l->n_experts;
    uint32_t  e;

    for (e = 0; e < l->n_experts; e++) {
        uint32_t rows = offsets[e + 1] - offsets[e];

        counts[e] += rows;
        l->distinct += rows != 0;
    }
    l->visits++;
    l->even += e * (1 - pow(1 - (double) l->top_k / e,
                            (double) (offsets[e] - offsets[0]) / l->top_k));
}

/* The mean of fn over the layers, by the tokens they have seen. */
static double
moe_load_mean(const struct moe_load *l,
              double (*fn)(const uint64_t *counts, uint32_t n, double total))
{
    double   sum = 0, all = 0;
    uint32_t i, e;

    for (i = 0; i < l->n_layers; i++) {
        const uint64_t *counts = l->counts + (size_t) i * l->n_experts;
        double          total = 0;

        for (e = 0; e < l->n_experts; e++)
            total += (double) counts[e];
        if (total > 0) {
            sum += total * fn(counts, l->n_experts, total);
            all += total;
        }
    }
    return all > 0 ? sum / all : 0;
}

static double
moe_layer_imbalance(const uint64_t *counts, uint32_t n, double total)
{
    uint64_t max = 0;
    uint32_t e;

    for (e = 0; e < n; e++)
        if (counts[e] > max)
            max = counts[e];
    return (double) max * n / total;
}

static double
moe_layer_entropy(const uint64_t *counts, uint32_t n, double total)
{
    double   sum = 0;
    uint32_t e;

    if (n < 2)
        return 1;
    for (e = 0; e < n; e++)
        if (counts[e] != 0)
            sum -= (double) counts[e] / total
                   * log((double) counts[e] / total);
    return sum / log((double) n);
}

double
moe_load_imbalance(const struct moe_load *l)
{
    return moe_load_mean(l, moe_layer_imbalance);
}

double
moe_load_entropy(const struct moe_load *l)
{
    return moe_load_mean(l, moe_layer_entropy);
}

double
moe_load_distinct(const struct moe_load *l)
{
    return l->visits != 0 ? (double) l->distinct / (double) l->visits : 0;
}

double
moe_load_even(const struct moe_load *l)
{
    return l->visits != 0 ? l->even / (double) l->visits : 0;
}
