/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_estimate.c - devices, layouts, times and costs.
 *
 * The times are those of the bare roofline: all devices as one, at their
 * peaks, no communication.
 */
#include <moe/plan.h>

#include "tests/tap.h"

#include <math.h>
#include <unistd.h>

static int
near(double got, double want, double rel)
{
    return fabs(got - want) <= rel * fabs(want);
}

static moe_planner *
open_or_die(const char *name)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    moe_planner        *p;

    if (moe_plan_open(name, &p, &err) != MOE_OK) {
        printf("Bail out! %s: %s\n", name, err.text);
        exit(1);
    }
    return p;
}

static struct moe_plan_device
device_or_die(const char *name)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = { .struct_size = sizeof(d) };

    if (moe_plan_device(name, &d, &err) != MOE_OK) {
        printf("Bail out! %s: %s\n", name, err.text);
        exit(1);
    }
    return d;
}

static void
test_roofline(void)
{
    static const struct {
        const char *model, *device, *format;
        uint32_t    devices;
        double      batch, context, ms;
    } rows[] = {
        { "mixtral-8x7b", "a100-80-sxm", "bf16", 2, 1, 0, 6.252503 },
        { "mixtral-8x7b", "a100-80-sxm", "bf16", 2, 16, 1024, 23.145401 },
        { "llama-3-70b", "a100-80-sxm", "bf16", 4, 1, 0, 17.043412 },
        { "qwen3-30b-a3b", "h100-sxm", "bf16", 1, 1, 0, 1.81604 },
        { "qwen3-30b-a3b", "h100-sxm", "bf16", 1, 32, 2048, 17.771012 },
        { "deepseek-v3", "h200-sxm", "8bit", 8, 1, 0, 0.953792 },
        { "deepseek-v3", "h200-sxm", "8bit", 8, 64, 4096, 15.698024 },
    };
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct moe_error       err = { .struct_size = sizeof(err) };
        struct moe_plan_device d = device_or_die(rows[i].device);
        struct moe_plan_setup  s = { .struct_size = sizeof(s),
                                     .flags = MOE_PLAN_IDEAL, .device = &d,
                                     .format = rows[i].format,
                                     .devices = rows[i].devices,
                                     .batch = rows[i].batch,
                                     .context = rows[i].context };
        struct moe_plan_result r = { .struct_size = sizeof(r) };
        moe_planner              *p = open_or_die(rows[i].model);

        ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
               && near(r.step * 1e3, rows[i].ms, 0.005)
               && r.bound == MOE_PLAN_BOUND_MEMORY,
           "%s, batch %g: %.6f ms %s", rows[i].model, rows[i].batch,
           r.step * 1e3, err.text);
        s.flags = 0;
        ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
               && near(r.roofline_step * 1e3, rows[i].ms, 0.005)
               && r.step > r.roofline_step,
           "... %.3f ms by the estimate %s", r.step * 1e3, err.text);
        moe_plan_close(p);
    }
}

/* A machine whose operations were measured: a step is their sum. */
static void
test_measured(void)
{
    static const double    batches[] = { 1, 8, 64 };
    static const double    counts[MOE_PLAN_ROWS] = { 1, 2, 3, 4, 5, 6, 7, 8,
                                                     10, 12, 16, 24, 32, 64,
                                                     128 };
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = device_or_die("cpu-2x-epyc-9654");
    struct moe_plan_model  m = { .struct_size = sizeof(m) };
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    struct moe_plan_setup  s = { .struct_size = sizeof(s), .device = &d,
                                 .format = "f32", .devices = 1,
                                 .context = 100 };
    struct moe_plan_rates *x = &d.rates;
    moe_planner           *p = open_or_die("qwen3-30b-a3b");
    double                 want, once, head, calls;
    size_t                 i, j;

    /* a nanosecond a weight, whatever the rows; nothing else takes time */
    for (i = 0; i < sizeof(x->weight) / sizeof(double); i++)
        (&x->weight[0][0][0][0])[i] = 1e-9;
    for (j = 0; j < 2; j++) {
        x->size[0][j] = 1e5;
        x->size[1][j] = 1e6;
    }
    x->kinds = 1;
    x->step_rows = 256;
    x->head_rows = 16;
    (void) moe_plan_model(p, &m);
    for (i = 0; i < 3; i++) {
        s.batch = batches[i];
        head = (double) m.params[MOE_PLAN_OUTPUT] * ceil(s.batch / 16);
        want = (double) m.params[MOE_PLAN_ATTENTION]
               + (double) m.params[MOE_PLAN_ROUTER] + head
               + (double) m.params[MOE_PLAN_EXPERTS]
                     * moe_plan_distinct(128, 8, s.batch) / 128;
        ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
               && near(r.step, want * 1e-9, 1e-4),
           "measured weights, batch %g: %.4f s, %.4f wanted %s", s.batch,
           r.step, want * 1e-9, err.text);
    }
    x->bandwidth = 1e30; /* no part of it is reading */
    x->slow[0] = 3;
    x->slow[1] = 2;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.step, 2 * want * 1e-9, 1e-4),
       "... arithmetic at half its pace, twice the time");
    x->bandwidth = 8e9; /* four bytes in half the time, and they come slower */
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && r.step > 2.1 * want * 1e-9
           && r.step < 2.5 * want * 1e-9,
       "... reading at a third of its pace, where a few rows wait for it");
    s.batch = 1;
    once = (double) m.params[MOE_PLAN_ATTENTION]
           + (double) m.params[MOE_PLAN_ROUTER]
           + (double) m.params[MOE_PLAN_OUTPUT]
           + (double) m.params[MOE_PLAN_EXPERTS] * 8 / 128;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.step, 2.5 * once * 1e-9, 1e-4),
       "... one row, half of it reading");
    for (i = 0; i < sizeof(x->weight) / sizeof(double); i++)
        (&x->weight[0][0][0][0])[i]
            = 1e-9 * counts[i % MOE_PLAN_ROWS];
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.step, 2 * once * 1e-9, 1e-4),
       "... arithmetic that takes a nanosecond a row waits for nothing");
    s.batch = 64;
    memset(x->slow, 0, sizeof(x->slow));
    /* a call takes 0.1 ms whatever it has, a weight as long as before */
    for (i = 0; i < MOE_PLAN_ROWS; i++)
        for (j = 0; j < 2; j++) {
            x->weight[MOE_PLAN_NEAR_SMALL][j][0][i] = 2e-9;
            x->weight[MOE_PLAN_FAR_SMALL][j][0][i] = 2e-9;
            x->weight[MOE_PLAN_FAR_LARGE][j][0][i] = 1.1e-9;
        }
    calls = 48 * 4 + 4; /* q k v, output, router, experts; the head in four */
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.step, want * 1e-9 + calls * 1e-4, 1e-4),
       "... what a call takes: %.4f s, %.4f wanted", r.step,
       want * 1e-9 + calls * 1e-4);
    for (i = 0; i < sizeof(x->weight) / sizeof(double); i++)
        (&x->weight[0][0][0][0])[i] = 1e-9;
    x->attend_op[0] = 1e-12;
    x->unit[MOE_PLAN_PICK] = 1e-9;
    want += 64 * (moe_plan_decode_flop(p, 100) - m.flop_token) * 1e-3
            + 64.0 * m.vocab;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.step, want * 1e-9, 1e-4),
       "... attention and choice: %.4f s, %.4f wanted", r.step, want * 1e-9);
    s.input = 512;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && r.ttft > 0
           && near(r.prefill_tokens_s, 64 * 512 / (r.ttft * 64), 0.2),
       "... prompts in steps of 256 rows: %.2f s", r.ttft);
    s.format = "int4";
    x->attend_op[0] = 1; /* would be seen */
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && r.step < 1,
       "a format that was not measured goes by the ceilings");
    moe_plan_close(p);
}

/* A nanosecond a weight that meets one row, ten times that from so many rows
 * on; nothing else takes time. */
static void
make_rates(struct moe_plan_device *d, uint32_t from)
{
    struct moe_plan_rates *x = &d->rates;
    uint32_t               where, what, i;

    memset(x, 0, sizeof(*x));
    for (where = 0; where < 3; where++)
        for (what = 0; what < 2; what++)
            for (i = 0; i < MOE_PLAN_ROWS; i++)
                x->weight[where][what][0][i] = i < from ? 1e-9 : 1e-8;
    for (i = 0; i < 2; i++) {
        x->size[0][i] = 1e5;
        x->size[1][i] = 1e6;
    }
    x->kinds = 1;
    x->step_rows = 256;
    x->head_rows = 16;
}

/* Rows that no logits come of leave the last layer behind its attention. */
static void
test_last_layer(void)
{
    static const struct {
        const char *model;
        uint32_t    layers, experts, chosen; /* experts 0: a dense model */
    } rows[] = { { "qwen3-30b-a3b", 48, 128, 8 },
                 { "mixtral-8x7b", 32, 8, 2 },
                 { "llama-3-70b", 80, 0, 0 } };
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct moe_error       err = { .struct_size = sizeof(err) };
        struct moe_plan_device d = device_or_die("cpu-2x-epyc-9654");
        struct moe_plan_model  m = { .struct_size = sizeof(m) };
        struct moe_plan_result r = { .struct_size = sizeof(r) };
        struct moe_plan_setup  s = { .struct_size = sizeof(s), .device = &d,
                                     .format = "f32", .devices = 1,
                                     .batch = 1, .input = 1024 };
        moe_planner           *p = open_or_die(rows[i].model);
        double L = rows[i].layers, feed, last, step;

        make_rates(&d, MOE_PLAN_ROWS);
        /* beyond 128 rows twice the rows take twice the time */
        (void) moe_plan_model(p, &m);
        if (rows[i].experts != 0) {
            /* all rows of a prompt meet nearly all experts */
            double all = moe_plan_distinct(rows[i].experts, rows[i].chosen,
                                           256) / rows[i].experts;

            feed = 2 * (double) m.params[MOE_PLAN_ROUTER]
                   + (double) m.params[MOE_PLAN_EXPERTS] * all;
            last = (double) m.params[MOE_PLAN_ROUTER]
                   + (double) m.params[MOE_PLAN_EXPERTS] * rows[i].chosen
                         / rows[i].experts;
        } else {
            feed = 2 * (double) m.params[MOE_PLAN_DENSE];
            last = (double) m.params[MOE_PLAN_DENSE];
        }
        step = 2 * (double) m.params[MOE_PLAN_ATTENTION] + feed * (L - 1) / L;
        last = last / L + (double) m.params[MOE_PLAN_OUTPUT];
        ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
               && near(r.ttft, (4 * step + last) * 1e-9, 0.001),
           "%s: four steps of 256 rows, one row's logits: %.3f s, %.3f wanted",
           rows[i].model, r.ttft, (4 * step + last) * 1e-9);
        moe_plan_close(p);
    }
}

/* What weights take was measured with some counts of rows. */
static void
test_rows(void)
{
    static const struct {
        double   batch;
        uint32_t from; /* that many counts are fast */
        double   times;
    } rows[] = { { 3, 3, 1 }, { 3, 2, 10 }, { 5, 5, 1 }, { 5, 4, 10 },
                 { 7, 6, 10 }, { 12, 9, 10 }, { 12, 10, 1 }, { 9, 8, 5.5 } };
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct moe_error       err = { .struct_size = sizeof(err) };
        struct moe_plan_device d = device_or_die("cpu-2x-epyc-9654");
        struct moe_plan_model  m = { .struct_size = sizeof(m) };
        struct moe_plan_result r = { .struct_size = sizeof(r) };
        struct moe_plan_setup  s = { .struct_size = sizeof(s), .device = &d,
                                     .format = "f32", .devices = 1,
                                     .context = 100, .batch = rows[i].batch };
        moe_planner           *p = open_or_die("llama-3-70b");
        double                 want;

        make_rates(&d, rows[i].from);
        (void) moe_plan_model(p, &m);
        want = (double) (m.params[MOE_PLAN_ATTENTION]
                         + m.params[MOE_PLAN_DENSE]
                         + m.params[MOE_PLAN_OUTPUT]) * 1e-9 * rows[i].times;
        ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && near(r.step, want, 0.001),
           "%g rows, %u counts at the pace of one: %.2f s, %.2f wanted",
           rows[i].batch, rows[i].from, r.step, want);
        moe_plan_close(p);
    }
}

static void
test_prefill(void)
{
    static const struct {
        const char *model, *device, *format;
        uint32_t    devices;
        double      input, ms, rel;
    } rows[] = {
        { "mixtral-8x7b", "a100-80-sxm", "bf16", 2, 2048, 84.6, 0.01 },
        { "llama-3-70b", "a100-80-sxm", "bf16", 4, 2048, 229.1, 0.01 },
        { "deepseek-v3", "h100-sxm", "8bit", 8, 2048, 25.0, 0.01 },
        { "mixtral-8x7b", "a100-80-sxm", "bf16", 2, 512, 22.84,
          0.01 },
        { "llama-3-70b", "a100-80-sxm", "bf16", 4, 512, 56.4, 0.01 },
    };
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct moe_error       err = { .struct_size = sizeof(err) };
        struct moe_plan_device d = device_or_die(rows[i].device);
        struct moe_plan_setup  s = { .struct_size = sizeof(s),
                                     .flags = MOE_PLAN_IDEAL, .device = &d,
                                     .format = rows[i].format,
                                     .devices = rows[i].devices, .batch = 1,
                                     .input = rows[i].input, .output = 1 };
        struct moe_plan_result r = { .struct_size = sizeof(r) };
        moe_planner              *p = open_or_die(rows[i].model);

        ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
               && near(r.ttft * 1e3, rows[i].ms, rows[i].rel),
           "%s: prefill of %g in %.2f ms %s", rows[i].model, rows[i].input,
           r.ttft * 1e3, err.text);
        moe_plan_close(p);
    }
}

static void
test_memory(void)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = device_or_die("a100-80");
    struct moe_plan_setup  s = { .struct_size = sizeof(s), .device = &d,
                                 .format = "bf16", .devices = 8, .ep = 8,
                                 .tp = 1, .batch = 8, .input = 512,
                                 .output = 128 };
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    static const uint8_t trace[] = { 0, 1, 1, 0 }, bad[] = { 0, 1, 8, 0 };
    double               step;
    moe_planner         *p = open_or_die("mixtral-8x7b");

    is_str(d.name, "a100-80-sxm", "a name's beginning is enough");
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.experts + r.rest, 14485561344, 0.001),
       "ep 8, the rest everywhere: %.0f", r.experts + r.rest);
    s.tp = 8;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.experts + r.rest, 11675698176, 0.001),
       "ep 8, the rest cut in 8: %.0f", r.experts + r.rest);
    s.ep = 2;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.experts, 45097156608 * 2.0 / 8, 0.001),
       "eight devices always hold an eighth of the experts");
    s.ep = 8;
    s.batch = 64;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.imbalance, 1.338, 0.02), "the fullest rank: %.3f",
       r.imbalance);
    s.skew = 1;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && r.imbalance > 2
           && r.imbalance < 3, "... of a skewed router: %.3f", r.imbalance);
    s.skew = 0;
    /* all tokens take experts 0 and 1: one rank of two has all the work */
    s.trace = trace;
    s.trace_rows = 2;
    s.trace_step = 1;
    s.ep = 2;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && r.imbalance == 2,
       "... of a recorded one: %.3f", r.imbalance);
    s.ep = 1;
    step = r.step_bytes;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && near(r.distinct, 2, 1e-9)
           && r.step_bytes == step,
       "of which %.1f experts are read", r.distinct);
    s.trace = bad;
    is_int(moe_plan_run(p, &s, &r, &err), MOE_E_CORRUPT,
           "an expert that there is not");
    s.trace = NULL;
    s.batch = 8;
    s.tp = s.ep = 0;
    s.devices = 1;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && !r.fits && r.max_batch == 0,
       "one card is too small");
    is_int(moe_plan_devices(p, &s, 64), 2, "two will do");
    s.format = "int4";
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && r.fits
           && r.max_batch >= 8, "4 bits fit on one, for %g at once",
       r.max_batch);
    s.batch = r.max_batch;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && r.fits, "the most fit");
    s.batch = r.max_batch + 1;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && !r.fits,
       "one more does not");
    ok(near(r.critical_batch, 612.065 * 4.125 / 16, 0.005),
       "arithmetic binds from %.1f at 4 bits", r.critical_batch);
    s.format = "bf16";
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.critical_batch, 612.065, 0.005), "from %.1f at 16",
       r.critical_batch);
    d = device_or_die("h100-sxm");
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.critical_batch, 1181.373, 0.005), "from %.1f",
       r.critical_batch);
    moe_plan_close(p);

    p = open_or_die("deepseek-v3");
    s.format = NULL;
    s.devices = 8;
    s.batch = 1;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && !r.fits,
       "671 B in fp8 are too much for 8 H100");
    d = device_or_die("h200");
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && r.fits, "8 H200 hold it");
    moe_plan_close(p);
}

/* Copies of a model: throughput adds up, latency is that of one. */
static void
test_replicas(void)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = device_or_die("a100-80-sxm");
    struct moe_plan_setup  one = { .struct_size = sizeof(one), .device = &d,
                                   .devices = 2, .batch = 16, .input = 512,
                                   .output = 128, .price = 3 };
    struct moe_plan_setup  s = one;
    struct moe_plan_result a = { .struct_size = sizeof(a) }, b = a;
    moe_planner           *p = open_or_die("mixtral-8x7b");

    s.devices = 8;
    s.replicas = 4;
    s.batch = 64;
    ok(moe_plan_run(p, &one, &a, &err) == MOE_OK && a.replicas == 1
           && moe_plan_run(p, &s, &b, &err) == MOE_OK && b.replicas == 4
           && b.fits && b.tp == a.tp && b.ep == a.ep,
       "four copies of two devices each: %s", err.text);
    ok(b.step == a.step && b.ttft == a.ttft
           && b.roofline_step == a.roofline_step
           && b.imbalance == a.imbalance
           && b.layer_traffic == a.layer_traffic,
       "no copy is faster than one: %g s", b.step);
    ok(b.needed == a.needed && b.experts == a.experts && b.kv == a.kv
           && b.max_context == a.max_context, "nor has it more room");
    ok(near(b.tokens_s, 4 * a.tokens_s, 1e-12)
           && near(b.served_tokens_s, 4 * a.served_tokens_s, 1e-12)
           && near(b.prefill_tokens_s, 4 * a.prefill_tokens_s, 1e-12)
           && near(b.step_flop, 4 * a.step_flop, 1e-12)
           && near(b.step_bytes, 4 * a.step_bytes, 1e-12)
           && b.weights == 4 * a.weights && b.max_batch == 4 * a.max_batch
           && b.critical_batch == 4 * a.critical_batch,
       "all of them do four times as much: %.0f tokens/s", b.tokens_s);
    ok(b.usd_hour == 24 && near(b.usd_output, a.usd_output, 1e-12)
           && near(b.usd_input, a.usd_input, 1e-12),
       "for four times the money");
    s.batch = b.max_batch;
    ok(moe_plan_run(p, &s, &b, &err) == MOE_OK && b.fits, "the most fit");
    s.batch++;
    ok(moe_plan_run(p, &s, &b, &err) == MOE_OK && !b.fits,
       "one more does not");

    s.batch = 5; /* two for one of them, one for each of the others */
    one.batch = 2;
    ok(moe_plan_run(p, &one, &a, &err) == MOE_OK
           && moe_plan_run(p, &s, &b, &err) == MOE_OK && b.step == a.step
           && near(b.tokens_s, 5 / a.step, 1e-12),
       "five sequences wait for the copy that has two");
    s.batch = 1;
    one.batch = 1;
    ok(moe_plan_run(p, &one, &a, &err) == MOE_OK
           && moe_plan_run(p, &s, &b, &err) == MOE_OK
           && near(b.tokens_s, a.tokens_s, 1e-12)
           && near(b.step_bytes, a.step_bytes, 1e-12),
       "one sequence has one of them at work");
    s.replicas = 3;
    is_int(moe_plan_run(p, &s, &b, &err), MOE_E_INVAL, "three on eight");
    has_str(err.text, "8 devices cannot hold 3 copies of equal size; with: "
                      "1 2 4 8", "which would do");
    s.devices = 6;
    ok(moe_plan_run(p, &s, &b, &err) == MOE_OK && b.tp == 2, "on six");
    is_int(moe_plan_devices(p, &s, 64), 6, "the fewest for three of them");
    s.replicas = 65536;
    s.tp = s.pp = 65536;
    is_int(moe_plan_devices(p, &s, 65536), 0, "more than any number");
    moe_plan_close(p);

    p = open_or_die("llama-3.1-8b");
    d = device_or_die("apple-m4-max-40c");
    memset(&s, 0, sizeof(s));
    s.struct_size = sizeof(s);
    s.device = &d;
    s.devices = 2;
    s.replicas = 2;
    s.batch = 2;
    s.output = 10;
    ok(moe_plan_run(p, &s, &b, &err) == MOE_OK && b.fits,
       "copies need no link %s", err.text);
    moe_plan_close(p);
}

/* A machine of 12 GB beside 24 GB: experts where they find room. */
static void
test_tiers(void)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = device_or_die("rtx-4090");
    struct moe_plan_setup  s = { .struct_size = sizeof(s), .device = &d,
                                 .devices = 1, .batch = 1, .input = 512,
                                 .output = 128, .format = "int4" };
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    struct moe_plan_tiers  t = { .struct_size = sizeof(t) };
    moe_planner           *p = open_or_die("qwen3-30b-a3b");
    double                 left;

    d.memory = 12e9;
    d.host_rate = 16e9;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK && !r.fits
           && moe_plan_tiers(p, &s, &r, &t, &err) == MOE_OK,
       "30 B in 4 bits beside 12 GB: %s", err.text);
    left = r.needed - r.limit; /* 8 of 128 experts are read */
    ok(near(t.host, left, 1e-9) && t.disk == 0
           && near(t.device_share, 1 - left / r.experts, 1e-9)
           && near(t.wait, left * 8 / 128 / 16e9, 1e-9)
           && near(t.step, r.step + t.wait, 1e-9),
       "%.0f %% of the experts there, %.1f GB in the host: %.1f ms more",
       100 * t.device_share, t.host / 1e9, t.wait * 1e3);
    ok(near(t.device_hits, t.device_share, 1e-9), "all alike");
    s.skew = 1.5; /* what is popular comes again */
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && moe_plan_tiers(p, &s, &r, &t, &err) == MOE_OK
           && t.device_hits > t.device_share + 0.03
           && near(t.wait, (1 - t.device_hits) * r.distinct / 128 * r.experts
                               / 16e9, 1e-6),
       "skewed, %.0f %% of them serve %.0f %%: %.1f ms", 100 * t.device_share,
       100 * t.device_hits, t.wait * 1e3);
    s.skew = 0;
    is_int(moe_plan_run(p, &s, &r, &err), MOE_OK, "and back");
    d.host_memory = 4e9;
    is_int(moe_plan_tiers(p, &s, &r, &t, &err), MOE_E_OVER_BUDGET,
           "a host of 4 GB");
    has_str(err.text, "disk_gbs", "what would have to be known");
    d.disk_rate = 3e9;
    ok(moe_plan_tiers(p, &s, &r, &t, &err) == MOE_OK
           && near(t.host, 3.6e9, 1e-9) && near(t.disk, left - 3.6e9, 1e-9)
           && near(t.wait, 3.6e9 / 16 / 16e9 + t.disk / 16 / 3e9, 1e-9),
       "the rest on disk: %.1f ms more", t.wait * 1e3);
    d.host_memory = 0;
    d.is_host = 1;
    ok(moe_plan_tiers(p, &s, &r, &t, &err) == MOE_OK && t.host == 0
           && near(t.disk, left, 1e-9), "a machine without devices");
    d.memory = 1e9;
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && moe_plan_tiers(p, &s, &r, &t, &err) == MOE_E_OVER_BUDGET,
       "%s", err.text);
    moe_plan_close(p);
    p = open_or_die("llama-3-70b");
    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && moe_plan_tiers(p, &s, &r, &t, &err) == MOE_E_UNSUPPORTED,
       "%s", err.text);
    moe_plan_close(p);
}

static void
test_money(void)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = device_or_die("h100-sxm");
    struct moe_plan_setup  s = { .struct_size = sizeof(s), .device = &d,
                                 .devices = 2, .batch = 16, .input = 512,
                                 .output = 512, .price = 3 };
    struct moe_plan_result r = { .struct_size = sizeof(r) }, half = r;
    moe_planner              *p = open_or_die("mixtral-8x7b");

    ok(moe_plan_run(p, &s, &r, &err) == MOE_OK
           && near(r.usd_output, 6 * 1e6 / 3600 / r.tokens_s, 1e-9),
       "dollars a million tokens: %.3f", r.usd_output);
    s.utilization = 0.5;
    ok(moe_plan_run(p, &s, &half, &err) == MOE_OK
           && near(half.usd_output, 2 * r.usd_output, 1e-9)
           && near(half.usd_idle, 3, 1e-9), "half used, twice as dear");
    ok(near(moe_plan_usd(4, 3, 5120, 1), 0.651042, 0.0001), "4 at $3");
    ok(near(moe_plan_usd(2, 3, 6800, 1), 0.245098, 0.0001), "2 at $3");
    ok(near(moe_plan_usd(1, 2.95, 2500, 1), 0.327778, 0.0001), "1 at $2.95");
    ok(near(moe_plan_traffic_batch(p, 30e9), 3.48, 0.001),
       "a dense one of 30 B reads as much from %.3f on",
       moe_plan_traffic_batch(p, 30e9));
    ok(isinf(moe_plan_traffic_batch(p, 69503033344.0)),
       "one of 70 B always reads more");
    moe_plan_close(p);
    p = open_or_die("qwen3-30b-a3b");
    ok(near(moe_plan_traffic_batch(p, 7504924672), 3.7794, 0.001),
       "Qwen3-30B-A3B against Llama-3.1-8B: %.4f",
       moe_plan_traffic_batch(p, 7504924672));
    moe_plan_close(p);
}

static void
refused(const moe_planner *p, const struct moe_plan_setup *s, const char *want,
        const char *name)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_result r = { .struct_size = sizeof(r) };

    ok(moe_plan_run(p, s, &r, &err) == MOE_E_INVAL
           && strstr(err.text, want) != NULL, "%s: %s", name, err.text);
}

static void
test_refusals(void)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = device_or_die("h100-sxm");
    struct moe_plan_setup  good = { .struct_size = sizeof(good),
                                    .device = &d, .devices = 8, .batch = 1,
                                    .input = 100, .output = 100 }, s;
    moe_planner              *p = open_or_die("mixtral-8x7b");

    s = good;
    s.devices = 0;
    refused(p, &s, "devices", "no devices");
    s = good;
    s.batch = NAN;
    refused(p, &s, "concurrency", "a batch that is no number");
    s = good;
    s.output = -1;
    refused(p, &s, "output", "negative output");
    s = good;
    s.context = INFINITY;
    refused(p, &s, "context", "an endless context");
    s = good;
    s.utilization = 1.5;
    refused(p, &s, "utilization", "more than full");
    s = good;
    s.devices = 6;
    s.tp = 6;
    refused(p, &s, "32 heads are not divided by tp 6; with: 1 2 4 8",
            "heads that are not divided");
    s = good;
    s.devices = 16;
    s.tp = s.ep = 16;
    refused(p, &s, "8 experts are not divided by ep 16", "too few experts");
    s = good;
    s.tp = 3;
    refused(p, &s, "does not divide the 8 devices", "tp 3 of 8");
    s = good;
    s.format = "int5";
    refused(p, &s, "there is no format 'int5'", "a format");
    s = good;
    d.link_rate = 0;
    refused(p, &s, "no link", "devices without a link");
    moe_plan_close(p);

    is_int(moe_plan_device("h1000", &d, &err), MOE_E_NOT_FOUND,
           "a device that is none");
    has_str(err.text, "did you mean", "the nearest");
    is_int(moe_plan_device("h100", &d, &err), MOE_E_NOT_FOUND,
           "the beginning of two");
    has_str(err.text, "h100-sxm", "which");
}

static void
write_ini(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    if (f != NULL) {
        fputs(text, f);
        fclose(f);
    }
}

static void
test_device_files(void)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        { "[device]\nmemory_bytes = 1e9\nbandwidth_gbs = 1\n",
          "[tflops] bf16, fp16 or fp32 is missing" },
        { "[device]\nmemory_bytes = -1\n", "a number above 0" },
        { "[device]\nmemory_bytes = nan\n", "a number above 0" },
        { "[device]\nmemory_bytes = inf\n", "a number above 0" },
        { "[device]\nmemory_bytes = 0x10\n", "a number above 0" },
        { "[device]\nmemory_bytes = 24 GB\n", "a number above 0" },
        { "[device]\nmemory_bytes = 24,5\n", "a number above 0" },
        { "[device]\nmemory_bytes = 1e99\n", "a number above 0" },
        { "[device]\nmemory_byte = 1\n", "no key [device] memory_byte" },
        { "[device]\nmemory_bytes = 1e9\nbandwidth_gbs = 1\n[tflops]\n"
          "bf16 = 1\n[price]\nusd_per_hour = 1\n", "without a date" },
        { "hello\n", "no KEY = VALUE" },
    };
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = { .struct_size = sizeof(d) };
    char                   path[] = "/tmp/moe-device-XXXXXX", name[80];
    size_t                 i;
    int                    fd = mkstemp(path);

    if (fd >= 0)
        close(fd);
    snprintf(name, sizeof(name), "%s", path);
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        write_ini(path, rows[i].text);
        ok(moe_plan_device(name, &d, &err) == MOE_E_INVAL
               && strstr(err.text, rows[i].want) != NULL, "%s", err.text);
    }
    write_ini(path, "[device]\nmemory_bytes = 1e9\nbandwidth_gbs = 1\n"
                    "[tflops]\nbf16 = 2\n");
    ok(moe_plan_device(name, &d, &err) == MOE_OK && d.bandwidth == 1e9
           && d.bf16 == 2e12, "a device of one's own");
    unlink(path);
    for (i = 0; moe_plan_device_at(i, name, sizeof(name)) == MOE_OK; i++) {
        d = device_or_die(name);
        ok(d.source[0] != '\0' && d.source_date[0] != '\0'
               && (d.price == 0 || d.price_date[0] != '\0'),
           "%s has its source", name);
    }
    ok(i >= 25, "%zu devices", i);
}

int
main(void)
{
    setenv("MOE_TEST_FACTS", tap_src("conf"), 0);
    test_roofline();
    test_measured();
    test_last_layer();
    test_rows();
    test_prefill();
    test_memory();
    test_replicas();
    test_tiers();
    test_money();
    test_refusals();
    test_device_files();
    return tap_done();
}
