/* SPDX-License-Identifier: Apache-2.0 */
/* test_load.c - how a batch spreads over experts: forms against draws. */
#include <moe/plan.h>

#include "tests/tap.h"

#include <math.h>

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

int
main(void)
{
    test_forms();
    test_cells();
    test_few();
    test_skew();
    test_trace();
    return tap_done();
}
