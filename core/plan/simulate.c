/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simulate.c - how a batch spreads over experts, drawn.
 *
 * Popularity is log-normal with a given spread and drawn anew for each
 * trial; a token takes its k experts without replacement in proportion to it
 * (Plackett-Luce).  Or the batch is made of rows of a recorded trace.
 */
#include "plan/reuse.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXPERTS_MAX 4096u
#define WORK_MAX    4e9 /* draws of one call: some seconds */

struct random {
    uint64_t s;
};

/* splitmix64 */
static uint64_t
next(struct random *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* In (0, 1). */
static double
uniform(struct random *r)
{
    return ((double) (next(r) >> 11) + 0.5) * 0x1p-53;
}

static double
normal(struct random *r)
{
    double u = uniform(r), v = uniform(r);

    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

struct popular {
    double   weight;
    uint32_t expert;
};

struct draw {
    const struct moe_plan_draw *d;
    struct random               r;
    uint32_t                   *order; /* (E) a permutation */
    uint32_t                   *load;  /* (E) */
    uint16_t                   *picked;/* (k) of a token, or NULL */
    uint32_t                   *most;  /* (trials) */
    double                     *weight;/* (E) popularity; at first its log */
    double                     *part;  /* (E) of a place of the table */
    uint32_t                   *other; /* (E) whose the rest of it is */
    uint64_t                   *taken; /* (E) the last token that took it */
    uint64_t                    token; /* from 1 on */
    struct popular             *most_popular; /* (E) the first one first */
};

/* k different experts, all equally likely. */
static void
pick_uniform(struct draw *w)
{
    uint32_t E = w->d->n_experts, i;

    for (i = 0; i < w->d->top_k; i++) {
        uint32_t j = i + (uint32_t) (next(&w->r) % (E - i));
        uint32_t e = w->order[j];

        w->order[j] = w->order[i];
        w->order[i] = e;
        w->load[e]++;
    }
}

static int
by_popularity(const void *a, const void *b)
{
    const struct popular *x = a, *y = b;

    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->expert < y->expert ? -1 : x->expert > y->expert;
}

/* Walker's table of the popularities, as Vose fills it: a place holds `part`
 * of its own expert and the rest of `other`.  Knuth, vol. 2, 3.4.1. */
static void
fill_table(struct draw *w)
{
    uint32_t E = w->d->n_experts, small = 0, large = E, e;
    double   top = w->weight[0], sum = 0;

    for (e = 1; e < E; e++)
        if (w->weight[e] > top)
            top = w->weight[e];
    for (e = 0; e < E; e++)
        sum += w->part[e] = w->weight[e] = exp(w->weight[e] - top);
    /* those below the mean from the left, the others from the right */
    for (e = 0; e < E; e++) {
        w->part[e] *= E / sum;
        w->other[e] = e;
        w->order[w->part[e] < 1 ? small++ : --large] = e;
    }
    while (small > 0 && large < E) {
        uint32_t s = w->order[--small], l = w->order[large];

        w->other[s] = l;
        w->part[l] -= 1 - w->part[s];
        if (w->part[l] < 1) {
            large++;
            w->order[small++] = l;
        }
    }
    while (small > 0) /* what rounding left over */
        w->part[w->order[--small]] = 1;
    for (e = 0; e < E; e++)
        w->most_popular[e] = (struct popular) { w->weight[e], e };
    qsort(w->most_popular, E, sizeof(*w->most_popular), by_popularity);
}

static void
draw_popularity(struct draw *w)
{
    uint32_t e;

    for (e = 0; e < w->d->n_experts; e++)
        w->weight[e] = w->d->skew * normal(&w->r);
    fill_table(w);
}

/* One of those that are not taken yet; nearly all of what they have lies with
 * the first of them. */
static uint32_t
pick_left(struct draw *w)
{
    const struct popular *all = w->most_popular;
    uint32_t              E = w->d->n_experts, n, i, last = 0;
    double                left = 0, u;

    for (n = 0; n < E && !(all[n].weight * E < left * 1e-17); n++)
        if (w->taken[all[n].expert] != w->token)
            left += all[n].weight;
    u = uniform(&w->r) * left;
    for (i = 0; i < n; i++) {
        if (w->taken[all[i].expert] == w->token)
            continue;
        last = all[i].expert;
        u -= all[i].weight;
        if (u < 0)
            break;
    }
    return last;
}

/*
 * k different experts, one after the other in proportion to popularity among
 * those that are left: what has been taken is drawn again.  Where a few have
 * nearly all of it, the rest are found by adding up what is left.
 */
static void
pick_skewed(struct draw *w)
{
    uint32_t E = w->d->n_experts, k = w->d->top_k, have = 0, tries, e;

    w->token++;
    for (tries = 0; have < k && tries < 2 * k + 8; tries++) {
        double u = uniform(&w->r) * E;

        e = (uint32_t) u;
        if (u - e >= w->part[e])
            e = w->other[e];
        if (w->taken[e] != w->token) {
            w->taken[e] = w->token;
            w->load[e]++;
            if (w->picked != NULL)
                w->picked[have] = (uint16_t) e;
            have++;
        }
    }
    for (; have < k; have++) {
        e = pick_left(w);
        w->taken[e] = w->token;
        w->load[e]++;
        if (w->picked != NULL)
            w->picked[have] = (uint16_t) e;
    }
}

/* One layer for the whole trial, any token for each place of the batch. */
static void
pick_traced(struct draw *w, uint64_t layer)
{
    const struct moe_plan_draw *d = w->d;
    uint64_t tokens = d->trace_rows / d->trace_step;
    uint64_t row = next(&w->r) % tokens * d->trace_step + layer;
    uint32_t i;

    for (i = 0; i < d->top_k; i++)
        w->load[d->trace[row * d->top_k + i]]++;
}

static int
by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return x < y ? -1 : x > y;
}

static moe_status
check(const struct moe_plan_draw *d, struct moe_error *err)
{
    uint64_t i;

    if (d->n_experts == 0 || d->n_experts > EXPERTS_MAX || d->top_k == 0
        || d->top_k > d->n_experts || d->batch == 0 || d->trials == 0
        || d->ranks == 0 || d->n_experts % d->ranks != 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "simulation: %u of %u experts on %u ranks, batch %u, "
                        "%u trials: out of range", d->top_k, d->n_experts,
                        d->ranks, d->batch, d->trials);
    if (!(d->skew >= 0 && d->skew <= 20))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "simulation: a skew from 0 to 20 is wanted");
    if ((double) d->batch * d->trials * (d->skew > 0 ? d->n_experts : d->top_k)
        > WORK_MAX)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "simulation: %u trials of a batch of %u take too "
                        "long; ask for fewer trials", d->trials, d->batch);
    if (d->trace == NULL)
        return MOE_OK;
    if (d->trace_rows == 0 || d->trace_step == 0
        || d->trace_rows % d->trace_step != 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "trace: %llu rows are no multiple of %llu layers",
                        (unsigned long long) d->trace_rows,
                        (unsigned long long) d->trace_step);
    for (i = 0; i < d->trace_rows * d->top_k; i++)
        if (d->trace[i] >= d->n_experts)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "trace: expert %u at byte %llu, but there are %u",
                            d->trace[i], (unsigned long long) i,
                            d->n_experts);
    return MOE_OK;
}

static void
run(struct draw *w, struct moe_plan_spread *out)
{
    const struct moe_plan_draw *d = w->d;
    uint32_t per = d->n_experts / d->ranks, t, b, e, g;

    for (e = 0; e < d->n_experts; e++)
        w->order[e] = e;
    for (t = 0; t < d->trials; t++) {
        uint64_t layer = d->trace != NULL ? next(&w->r) % d->trace_step : 0;
        uint32_t most = 0, rank_most = 0;

        memset(w->load, 0, d->n_experts * sizeof(*w->load));
        if (d->skew > 0)
            draw_popularity(w);
        for (b = 0; b < d->batch; b++) {
            if (d->trace != NULL)
                pick_traced(w, layer);
            else if (d->skew > 0)
                pick_skewed(w);
            else
                pick_uniform(w);
        }
        for (g = 0; g < d->ranks; g++) {
            uint32_t rank = 0;

            for (e = g * per; e < (g + 1) * per; e++) {
                rank += w->load[e];
                out->distinct += w->load[e] != 0;
                if (w->load[e] > most)
                    most = w->load[e];
            }
            if (rank > rank_most)
                rank_most = rank;
        }
        out->max_load += most;
        out->max_rank += rank_most;
        w->most[t] = most;
    }
    out->max_load /= d->trials;
    out->max_rank /= d->trials;
    out->distinct /= d->trials;
    qsort(w->most, d->trials, sizeof(*w->most), by_size);
    out->p99 = w->most[(uint64_t) d->trials * 99 / 100];
}

static moe_status
make(struct draw *w, struct moe_error *err)
{
    const struct moe_plan_draw *d = w->d;

    w->order = calloc(d->n_experts, sizeof(*w->order));
    w->load = calloc(d->n_experts, sizeof(*w->load));
    w->weight = calloc(d->n_experts, sizeof(*w->weight));
    w->part = calloc(d->n_experts, sizeof(*w->part));
    w->other = calloc(d->n_experts, sizeof(*w->other));
    w->most = calloc(d->trials, sizeof(*w->most));
    w->taken = calloc(d->n_experts, sizeof(*w->taken));
    w->most_popular = calloc(d->n_experts, sizeof(*w->most_popular));
    if (w->order == NULL || w->load == NULL || w->weight == NULL
        || w->part == NULL || w->other == NULL || w->most == NULL
        || w->taken == NULL || w->most_popular == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM,
                        "simulation: no memory for %u trials", d->trials);
    return MOE_OK;
}

static void
drop(struct draw *w)
{
    free(w->order);
    free(w->load);
    free(w->weight);
    free(w->part);
    free(w->other);
    free(w->most);
    free(w->taken);
    free(w->most_popular);
}

MOE_API moe_status
moe_plan_simulate(const struct moe_plan_draw *d, struct moe_plan_spread *out,
                  struct moe_error *err)
{
    struct draw w = { .d = d, .r = { d->seed } };
    moe_status  status = check(d, err);

    if (status != MOE_OK)
        return status;
    memset(out, 0, sizeof(*out));
    out->struct_size = sizeof(*out);
    status = make(&w, err);
    if (status == MOE_OK)
        run(&w, out);
    drop(&w);
    return status;
}

moe_status
moe_draw_routes(const struct moe_plan_draw *d, uint32_t layers,
                uint64_t tokens, uint16_t *out, struct moe_error *err)
{
    struct draw w = { .d = d, .r = { d->seed } };
    moe_status  status = check(d, err);
    uint32_t    l;
    uint64_t    t;

    if (status == MOE_OK)
        status = make(&w, err);
    for (l = 0; l < layers && status == MOE_OK; l++) {
        draw_popularity(&w);
        for (t = 0; t < tokens; t++) {
            w.picked = out + (t * layers + l) * d->top_k;
            pick_skewed(&w);
        }
    }
    drop(&w);
    return status;
}
