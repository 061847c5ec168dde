/* SPDX-License-Identifier: Apache-2.0 */
/* test_load.c - how a batch spreads over experts: forms against draws. */
#include "plan/reuse.h"

#include "tests/tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int
near(double got, double want, double rel)
{
    return fabs(got - want) <= rel * fabs(want);
}

static void
test_forms(void)
{
    static const struct {
        uint32_t E, k;
        double   batch;
        uint32_t ranks; /* 0: distinct experts */
        double   want, rel;
    } rows[] = {
        { 8, 2, 1, 0, 2.0, 1e-6 },
        { 8, 2, 4, 0, 5.46875, 1e-6 },
        { 8, 2, 16, 0, 7.919819, 1e-6 },
        { 128, 8, 16, 0, 82.422511, 1e-6 },
        { 256, 8, 16, 0, 101.962162, 1e-6 },
        { 60, 4, 8, 0, 25.450206, 1e-6 },
        { 64, 8, 16, 0, 56.44, 1e-4 },
        { 128, 4, 256, 0, 127.96, 1e-4 },
        /* the fullest expert; 8 of 2 exact, the others drawn */
        { 8, 2, 2, 8, 1.464286, 0.02 },
        { 8, 2, 4, 8, 2.408710, 0.02 },
        { 8, 2, 8, 8, 3.968880, 0.02 },
        { 8, 2, 16, 8, 6.756570, 0.02 },
        { 8, 2, 64, 8, 21.408, 0.02 },
        { 8, 2, 1024, 8, 277.25, 0.02 },
        { 128, 8, 64, 128, 9.790, 0.02 },
        { 128, 8, 256, 128, 26.887, 0.02 },
        { 128, 8, 1024, 128, 84.995, 0.02 },
        { 128, 8, 4096, 128, 297.24, 0.02 },
        { 256, 8, 16, 256, 3.284, 0.02 },
        { 256, 8, 256, 256, 16.897, 0.02 },
        { 256, 8, 4096, 256, 160.67, 0.02 },
        /* the fullest rank */
        { 8, 2, 64, 4, 37.446, 0.03 },
        { 256, 8, 256, 8, 278.79, 0.03 },
        { 256, 8, 64, 8, 64 * 1.179, 0.02 },
        { 256, 8, 1024, 8, 1024 * 1.044, 0.02 },
        { 256, 8, 64, 64, 8 * 1.901, 0.02 },
        { 256, 8, 4096, 64, 512 * 1.103, 0.02 },
        { 8, 2, 16, 4, 8 * 1.343, 0.02 },
        { 8, 2, 1024, 4, 512 * 1.042, 0.02 },
    };
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double got
            = rows[i].ranks == 0
                  ? moe_plan_distinct(rows[i].E, rows[i].k, rows[i].batch)
                  : moe_plan_max_load(rows[i].E, rows[i].k, rows[i].batch,
                                      rows[i].ranks);

        ok(near(got, rows[i].want, rows[i].rel),
           "%u of %u, batch %g, %u ranks: %.6f", rows[i].k, rows[i].E,
           rows[i].batch, rows[i].ranks, got);
    }
    ok(near(moe_plan_remote_ranks(8, 2, 8), 1.75, 1e-5), "remote, 8 of 2");
    ok(near(moe_plan_remote_ranks(256, 8, 8), 4.632821, 1e-5),
       "remote, 256 of 8");
    ok(moe_plan_max_load(8, 2, 1, 8) == 1, "one token, one pair at most");
    ok(moe_plan_max_load(8, 8, 5, 8) == 5, "all experts for all");
}

static moe_status
draw(uint32_t E, uint32_t k, uint32_t batch, uint32_t ranks, uint32_t trials,
     double skew, struct moe_plan_spread *out, struct moe_error *err)
{
    struct moe_plan_draw d = { .struct_size = sizeof(d), .n_experts = E,
                               .top_k = k, .batch = batch, .ranks = ranks,
                               .trials = trials, .skew = skew, .seed = 7 };

    return moe_plan_simulate(&d, out, err);
}

/* The closed form within 2 % of a simulation. */
static void
test_cells(void)
{
    static const uint32_t shapes[][2] = { { 8, 2 },   { 16, 1 },  { 32, 4 },
                                          { 60, 4 },  { 64, 6 },  { 64, 8 },
                                          { 128, 4 }, { 128, 8 }, { 160, 8 },
                                          { 256, 8 } };
    static const uint32_t batches[] = { 16, 64, 256 };
    struct moe_plan_spread s;
    struct moe_error       err = { .struct_size = sizeof(err) };
    size_t                 i, j;

    for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (j = 0; j < sizeof(batches) / sizeof(batches[0]); j++) {
            uint32_t E = shapes[i][0], k = shapes[i][1], B = batches[j];
            double   form = moe_plan_max_load(E, k, B, E);
            uint32_t trials = B > 100 ? 800 : 3000;

            if (draw(E, k, B, E, trials, 0, &s, &err) != MOE_OK) {
                ok(0, "%s", err.text);
                continue;
            }
            /* three standard errors of the draws besides */
            ok(fabs(form / s.max_load - 1) < 0.02 + (E == 16 ? 0.02 : 0.005),
               "%u of %u, batch %u: form %.3f, drawn %.3f", k, E, B, form,
               s.max_load);
            ok(near(s.distinct, moe_plan_distinct(E, k, B), 0.01),
               "... distinct %.2f", s.distinct);
        }
}

/* The same for few tokens, where loads are small whole numbers. */
static void
test_few(void)
{
    static const uint32_t shapes[][2] = { { 8, 2 },   { 16, 1 }, { 16, 2 },
                                          { 32, 4 },  { 64, 6 }, { 128, 4 },
                                          { 128, 8 }, { 256, 8 } };
    static const uint32_t batches[] = { 2, 3, 4, 6, 8, 12 };
    struct moe_plan_spread s;
    struct moe_error       err = { .struct_size = sizeof(err) };
    size_t                 i, j;

    for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (j = 0; j < sizeof(batches) / sizeof(batches[0]); j++) {
            uint32_t E = shapes[i][0], k = shapes[i][1], B = batches[j];
            double   form = moe_plan_max_load(E, k, B, E);

            if (draw(E, k, B, E, 6000, 0, &s, &err) != MOE_OK) {
                ok(0, "%s", err.text);
                continue;
            }
            ok(near(form, s.max_load, 0.02),
               "%u of %u, batch %u: form %.3f, drawn %.3f", k, E, B, form,
               s.max_load);
        }
}

static void
test_skew(void)
{
    /* public figures of a log-normal popularity: factor of the fullest */
    static const struct {
        uint32_t E, k, batch;
        double   skew, factor;
    } rows[] = {
        { 8, 2, 16, 0.5, 2.02 },  { 128, 8, 16, 0.5, 5.03 },
        { 256, 8, 16, 0.5, 7.54 }, { 8, 2, 256, 1, 2.47 },
        { 128, 8, 256, 1, 7.07 }, { 256, 8, 256, 1, 9.68 },
    };
    struct moe_plan_spread s, again;
    struct moe_error       err = { .struct_size = sizeof(err) };
    size_t                 i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double mean = (double) rows[i].batch * rows[i].k / rows[i].E;

        ok(draw(rows[i].E, rows[i].k, rows[i].batch, rows[i].E, 300,
                rows[i].skew, &s, &err) == MOE_OK
               && near(s.max_load / mean, rows[i].factor, 0.06),
           "%u of %u, batch %u, skew %g: factor %.2f", rows[i].k, rows[i].E,
           rows[i].batch, rows[i].skew, s.max_load / mean);
    }
    ok(draw(256, 8, 64, 256, 300, 0.5, &s, &err) == MOE_OK
           && near(s.distinct, 207.1, 0.02), "skew lowers distinct: %.1f",
       s.distinct);
    ok(draw(256, 8, 64, 256, 300, 0.5, &again, &err) == MOE_OK
           && again.max_load == s.max_load && again.distinct == s.distinct,
       "the same seed, the same figures");
    /* a token takes the experts in order where each has nearly all of what
     * is left */
    ok(draw(64, 8, 32, 64, 50, 20, &s, &err) == MOE_OK && s.max_load == 32
           && s.distinct >= 8 && s.distinct < 14,
       "the same few for all: %.2f", s.distinct);
    ok(draw(8, 8, 5, 8, 20, 20, &s, &err) == MOE_OK && s.max_load == 5
           && s.distinct == 8, "all experts for all, however unpopular");
    ok(draw(256, 8, 2048, 8, 64, 1, &s, &err) == MOE_OK
           && s.max_rank > 2048 && s.max_rank < 2 * 2048,
       "a large batch: the fullest of 8 ranks has %.0f", s.max_rank);
}

static void
test_trace(void)
{
    /* two layers; the second one always takes experts 0 and 1 */
    static const uint8_t ids[] = { 0, 1, 0, 1, 2, 3, 0, 1, 4, 5, 0, 1 };
    struct moe_plan_draw d = { .struct_size = sizeof(d), .n_experts = 8,
                               .top_k = 2, .batch = 10, .ranks = 8,
                               .trials = 2000, .seed = 1, .trace = ids,
                               .trace_rows = 6, .trace_step = 2 };
    struct moe_plan_spread s;
    struct moe_error       err = { .struct_size = sizeof(err) };

    is_int(moe_plan_simulate(&d, &s, &err), MOE_OK, "a trace");
    ok(s.max_load > 7 && s.max_load < 8.2, "half of it takes all: %.2f",
       s.max_load);
    ok(s.distinct > 3.7 && s.distinct < 4.1, "distinct %.2f", s.distinct);
    d.n_experts = 5;
    d.ranks = 5;
    is_int(moe_plan_simulate(&d, &s, &err), MOE_E_CORRUPT,
           "an expert that is not there");
    d.n_experts = d.ranks = 8;
    d.trace_step = 4;
    is_int(moe_plan_simulate(&d, &s, &err), MOE_E_INVAL,
           "rows that are no whole tokens");
    d.trace = NULL;
    d.batch = 0;
    is_int(moe_plan_simulate(&d, &s, &err), MOE_E_INVAL, "no batch");
    d.batch = 1;
    d.skew = -1;
    is_int(moe_plan_simulate(&d, &s, &err), MOE_E_INVAL, "a skew below 0");
}

#define TOKENS 60u
#define LAYERS 3u
#define PICKS  2u
#define MANY   16u /* experts */

/* The part of all uses that so many experts have, chosen one by one. */
static double
plain_top(const uint8_t *ids, uint32_t batch, uint32_t from, uint32_t to)
{
    uint32_t uses[LAYERS * MANY] = { 0 }, steps = TOKENS / batch, step, l, b, i;
    uint32_t n, e, best;
    double   all = 0, top = 0;

    for (step = 0; step < steps; step++)
        for (l = 0; l < LAYERS; l++) {
            int used[MANY] = { 0 };

            for (b = 0; b < batch; b++)
                for (i = 0; i < PICKS; i++)
                    used[ids[((b * steps + step) * LAYERS + l) * PICKS + i]]
                        = 1;
            for (e = 0; e < MANY; e++) {
                uses[l * MANY + e] += (uint32_t) used[e];
                all += used[e];
            }
        }
    for (n = 0; n < to; n++) {
        for (best = e = 0; e < LAYERS * MANY; e++)
            if (uses[e] > uses[best])
                best = e;
        top += n >= from ? uses[best] : 0;
        uses[best] = 0;
    }
    return top / all;
}

/* Every slot looked at for each expert: the part found in so many slots when
 * the tokens are read for the second time. */
static double
plain_reuse(const uint8_t *ids, uint32_t batch, uint32_t slots)
{
    uint32_t lies[LAYERS * MANY] = { 0 }; /* when it was used; 0: nowhere */
    double   often[LAYERS * MANY] = { 0 }, use = 1;
    uint32_t clock = 0, have = 0, step, l, e, b, i, x, steps = TOKENS / batch;
    double   reads = 0, hits = 0;

    for (step = 0; step < 2 * steps; step++, use *= exp2(1.0 / 32))
        for (l = 0; l < LAYERS; l++) {
            int      used[MANY] = { 0 }, held[LAYERS * MANY] = { 0 };
            uint32_t missed[MANY], n = 0;

            for (b = 0; b < batch; b++)
                for (i = 0; i < PICKS; i++)
                    used[ids[((b * steps + step % steps) * LAYERS + l) * PICKS
                             + i]] = 1;
            for (e = 0; e < MANY; e++) {
                if (!used[e])
                    continue;
                reads += step >= steps;
                if (lies[l * MANY + e] == 0) {
                    missed[n++] = l * MANY + e;
                    continue;
                }
                hits += step >= steps;
                often[l * MANY + e] += use;
                lies[l * MANY + e] = ++clock;
                held[l * MANY + e] = 1;
            }
            for (i = 0; i < n; i++) {
                for (x = 0; have == slots && x < 2; x++) {
                    uint32_t old = LAYERS * MANY;

                    for (e = 0; e < LAYERS * MANY; e++)
                        if (lies[e] != 0 && !held[e]
                            && (old == LAYERS * MANY || often[e] < often[old]
                                || (often[e] <= often[old]
                                    && lies[e] > lies[old])))
                            old = e;
                    if (old < LAYERS * MANY) {
                        lies[old] = 0;
                        have--;
                    } else {
                        memset(held, 0, sizeof(held)); /* a second pass */
                    }
                }
                often[missed[i]] += use;
                lies[missed[i]] = ++clock;
                held[missed[i]] = 1;
                have++;
            }
        }
    return hits / reads;
}

static void
test_reuse(void)
{
    static const uint32_t slots[] = { 1, 3, 7, 12, 20, 35, 48 };
    uint8_t               ids[TOKENS * LAYERS * PICKS], *copy;
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_reuse      r, s;
    struct moe_plan_draw  d = { .struct_size = sizeof(d), .n_experts = MANY,
                                .top_k = PICKS, .ranks = 1, .trials = 1,
                                .seed = 1, .trace = ids, .trace_step = LAYERS,
                                .trace_rows = TOKENS * LAYERS };
    uint32_t              seed = 3, batch, i, x, y;
    uint16_t             *routes;
    size_t                n;

    for (i = 0; i < TOKENS * LAYERS; i++) { /* the low ones more often */
        seed = seed * 1664525u + 1013904223u;
        x = (seed >> 16) % MANY * ((seed >> 24) % MANY) / MANY;
        y = (seed >> 20) % (MANY - 1);
        ids[2 * i] = (uint8_t) x;
        ids[2 * i + 1] = (uint8_t) (y + (y >= x));
    }
    for (batch = 1; batch <= 4; batch *= 2)
        for (i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
            double want = plain_reuse(ids, batch, slots[i]);
            double top = plain_top(ids, batch, 0, slots[i]);

            d.batch = batch;
            ok(moe_reuse(&d, LAYERS, slots[i], 0, &r, &err) == MOE_OK
                   && near(r.kept, want, 1e-12) && near(r.near, top, 1e-12)
                   && r.far == 0,
               "batch %u, %u slots: %.4f kept, %.4f of the most used; "
               "plainly %.4f, %.4f", batch, slots[i], r.kept, r.near, want,
               top);
        }
    d.batch = 2;
    ok(moe_reuse(&d, LAYERS, 7, 13, &r, &err) == MOE_OK
           && near(r.near, plain_top(ids, 2, 0, 7), 1e-12)
           && near(r.far, plain_top(ids, 2, 7, 20), 1e-12),
       "two tiers: %.3f and %.3f", r.near, r.far);
    ok(moe_reuse(&d, LAYERS, 0, 20, &s, &err) == MOE_OK && s.near == 0
           && s.kept == 0 && near(s.far, r.near + r.far, 1e-12),
       "none in the first");
    /* drawn routes are a trace that is not kept */
    n = (1u << 20) / (4 * 4);
    routes = calloc(n * 16, sizeof(*routes));
    copy = calloc(n * 16, 1);
    d = (struct moe_plan_draw){ .struct_size = sizeof(d), .n_experts = 64,
                                .top_k = 4, .batch = 1, .ranks = 1,
                                .trials = 1, .seed = 1, .skew = 1.5 };
    is_int(moe_draw_routes(&d, 4, n, routes, &err), MOE_OK, "routes");
    for (x = 0; x < n * 16; x++)
        copy[x] = (uint8_t) routes[x];
    is_int(moe_reuse(&d, 4, 64, 0, &r, &err), MOE_OK, "reused");
    d.trace = copy;
    d.trace_step = 4;
    d.trace_rows = n * 4;
    ok(moe_reuse(&d, 4, 64, 0, &s, &err) == MOE_OK && s.near == r.near
           && s.kept == r.kept && r.kept > 0.35 && r.near > r.kept,
       "a quarter of the popular: %.3f, %.3f kept", r.near, r.kept);
    d.trace = NULL;
    d.skew = 0.001;
    ok(moe_reuse(&d, 4, 128, 0, &r, &err) == MOE_OK && near(r.kept, 0.5, 0.06)
           && near(r.near, 0.5, 0.06),
       "half of them, all alike: %.3f, %.3f", r.near, r.kept);
    free(routes);
    free(copy);
}

int
main(void)
{
    test_reuse();
    test_forms();
    test_cells();
    test_few();
    test_skew();
    test_trace();
    return tap_done();
}
