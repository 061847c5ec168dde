/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reuse.c - see reuse.h.
 *
 * Routes are walked step by step, uses are counted, and the engine's own table
 * of slots is run beside.
 */
#include "plan/reuse.h"

#include "memory/residency.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PICKS_MAX (1u << 20) /* of one pass over the tokens */

struct walk {
    const struct moe_plan_draw *d;
    uint32_t                    layers, stride; /* of a token's routes */
    const uint16_t             *routes; /* (tokens, layers, top_k), or NULL */
    uint64_t                    tokens, steps; /* steps of a pass */
    unsigned char              *used;   /* (n_experts) in this step */
    uint32_t                   *missed; /* (n_experts) keys */
    uint32_t                   *uses;   /* (layers, n_experts) steps */
};

static uint32_t
expert_at(const struct walk *w, uint64_t token, uint32_t layer, uint32_t i)
{
    uint64_t at = (token * w->stride + layer % w->stride) * w->d->top_k + i;

    return w->routes != NULL ? w->routes[at] : w->d->trace[at];
}

/* One layer of a step: how many of its experts have a slot.  They are pinned
 * while the others find theirs, as in the engine. */
static uint32_t
visit(const struct walk *w, struct moe_residency *r, uint32_t layer)
{
    uint32_t e, i, key, n = 0, hits = 0;

    for (e = 0; e < w->d->n_experts; e++) {
        if (!w->used[e])
            continue;
        key = layer * w->d->n_experts + e;
        if (moe_residency_find(r, key) == MOE_NO_SLOT) {
            w->missed[n++] = key;
            continue;
        }
        moe_residency_pin(r, key);
        hits++;
    }
    for (i = 0; i < n; i++)
        if (moe_residency_take(r, w->missed[i]) == MOE_NO_SLOT) {
            moe_residency_unpin_all(r); /* a second pass */
            (void) moe_residency_take(r, w->missed[i]);
        }
    moe_residency_unpin_all(r);
    return hits;
}

/* The experts of a layer that a step uses. */
static void
mark(const struct walk *w, uint64_t step, uint32_t layer)
{
    uint32_t b, i, e;

    memset(w->used, 0, w->d->n_experts);
    for (b = 0; b < w->d->batch; b++)
        for (i = 0; i < w->d->top_k; i++) {
            e = expert_at(w, (b * w->steps + step) % w->tokens, layer, i);
            if (e < w->d->n_experts)
                w->used[e] = 1;
        }
}

static int
by_uses(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return x > y ? -1 : x < y;
}

static void
walk(const struct walk *w, struct moe_residency *r, uint32_t near,
     uint32_t far, struct moe_reuse *out)
{
    uint32_t E = w->d->n_experts, l, e, hits;
    uint64_t step, reads = 0, found = 0, n[2] = { 0, 0 };

    for (step = 0; step < 2 * w->steps; step++) {
        if (r != NULL)
            moe_residency_step(r);
        for (l = 0; l < w->layers; l++) {
            mark(w, step % w->steps, l);
            hits = r != NULL ? visit(w, r, l) : 0;
            if (step < w->steps)
                continue;
            found += hits;
            for (e = 0; e < E; e++) {
                reads += w->used[e];
                w->uses[l * E + e] += w->used[e];
            }
        }
    }
    qsort(w->uses, (size_t) w->layers * E, sizeof(*w->uses), by_uses);
    for (e = 0; e < near + far; e++)
        n[e >= near] += w->uses[e];
    out->near = (double) n[0] / (double) reads;
    out->far = (double) n[1] / (double) reads;
    out->kept = (double) found / (double) reads;
}

moe_status
moe_reuse(const struct moe_plan_draw *d, uint32_t layers, uint32_t near,
          uint32_t far, struct moe_reuse *out, struct moe_error *err)
{
    struct walk           w = { .d = d, .layers = layers, .stride = layers };
    struct moe_residency *r = NULL;
    uint32_t              keys = layers * d->n_experts;
    uint64_t              most = PICKS_MAX / ((uint64_t) layers * d->top_k);
    uint16_t             *routes = NULL;
    moe_status            status = MOE_OK;

    if (most < d->batch)
        most = d->batch;
    w.tokens = most;
    if (d->trace != NULL) {
        w.stride = (uint32_t) d->trace_step;
        w.tokens = d->trace_rows / d->trace_step;
    }
    w.steps = (w.tokens < most ? w.tokens : most) / d->batch;
    if (w.steps == 0)
        w.steps = 1;
    w.used = calloc(d->n_experts, 1);
    w.missed = calloc(d->n_experts, sizeof(*w.missed));
    w.uses = calloc(keys, sizeof(*w.uses));
    if (d->trace == NULL)
        w.routes = routes = calloc(w.tokens * layers * d->top_k,
                                   sizeof(*routes));
    if (w.used == NULL || w.missed == NULL || w.uses == NULL
        || (d->trace == NULL && routes == NULL))
        status = moe_fail(err, MOE_E_NOMEM, ENOMEM,
                          "no memory for the routes of %llu tokens",
                          (unsigned long long) w.tokens);
    if (status == MOE_OK && d->trace == NULL)
        status = moe_draw_routes(d, layers, w.tokens, routes, err);
    if (status == MOE_OK && near > 0)
        status = moe_residency_open(keys, near, MOE_EVICT_LFU, &r, err);
    if (status == MOE_OK)
        walk(&w, r, near, far, out);
    moe_residency_close(r);
    free(routes);
    free(w.used);
    free(w.missed);
    free(w.uses);
    return status;
}
