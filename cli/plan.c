/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.c - moe-run plan: one model on one kind of machine.
 *
 * Owns the order of the answer.  Comparisons and sweeps are in files of
 * their own; reading the question is in plan_ask.c, figures become words in
 * plan_text.c.
 */
#include "plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
fail_name(const struct moe_error *err)
{
    int status = fail(err);

    return err->status == MOE_E_NOT_FOUND ? EXIT_USAGE : status;
}

/* ---------------------------------------------------------------- model -- */

static const char *
format_of(const struct question *q, const struct moe_plan_model *m)
{
    return q->setup.format != NULL ? q->setup.format : m->format;
}

static int
print_model(const struct question *q, const moe_planner *p)
{
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    uint64_t              bytes, by[MOE_PLAN_CLASSES];
    char                  a[32], b[32], d[32];
    uint32_t              i;

    moe_plan_model(p, &m);
    if (moe_plan_weights(p, q->setup.format, &bytes, by, &err) != MOE_OK)
        return fail(&err);
    out_format("%s (%s): %s parameters, %s for a token", m.name, m.family,
               whole_text((double) m.total, a),
               whole_text((double) m.active, b));
    if (m.active_table != m.active)
        out_format("\n  (%s with the input table, as some publish)",
                   whole_text((double) m.active_table, d));
    out_format("\n  %u layers of %u, %u heads of %u, ", m.n_layers, m.hidden,
               m.heads, m.head_dim);
    if (m.latent != 0)
        out_format("a latent cache of %u", m.latent);
    else
        out_format("%u for keys and values", m.kv_heads);
    if (m.limited_layers != 0)
        out_format("; attention limited in %u layers", m.limited_layers);
    if (m.n_experts != 0)
        out_format("\n  %u experts in %u layers, %u for a token; one has %s "
                   "parameters", m.n_experts, m.n_moe_layers, m.top_k,
                   whole_text((double) m.per_expert, a));
    out_format("\n  %s in %s: %.2f bits a parameter; cache %s a token (16 "
               "bits); %.2f GFLOP a token\n",
               gb_text((double) bytes, a), format_of(q, &m),
               8.0 * (double) bytes / (double) m.total,
               gb_text(moe_plan_kv_bytes(p, 1, 2), b), m.flop_token / 1e9);
    if (!m.runnable)
        out_text("  moe-run can plan this model; it cannot run it\n");
    out_text("\n  class             parameters   share          bytes\n");
    for (i = 0; i < MOE_PLAN_CLASSES; i++)
        if (m.params[i] != 0)
            out_format("  %-11s %16s  %5.1f%% %14s\n", moe_plan_class_name(i),
                       whole_text((double) m.params[i], a),
                       100.0 * (double) m.params[i] / (double) m.total,
                       gb_text((double) by[i], b));
    return EXIT_OK;
}

/* --------------------------------------------------------------- device -- */

static void
print_price(const struct question *q)
{
    const struct moe_plan_device *d = &q->device;

    if (q->setup.price > 0)
        out_format("  price: $%.2f an hour and device, as given\n",
                   q->setup.price);
    else if (d->price > 0)
        out_format("  price: $%.2f an hour and device, seen from $%.2f to "
                   "$%.2f in %s\n  (%s)\n", d->price, d->price_low,
                   d->price_high, d->price_date, d->price_source);
    else
        out_text("  no price is known; give one with --price\n");
}

/* What would make it fit, each way by itself. */
static void
print_remedies(const struct question *q, const moe_planner *p,
               const struct moe_plan_setup *s,
               const struct moe_plan_result *r)
{
    static const char *const tries[] = { "fp8", "int4" };
    struct moe_plan_model    m = { .struct_size = sizeof(m) };
    struct moe_plan_setup    t = *s;
    struct moe_plan_result   x = { .struct_size = sizeof(x) };
    char                     a[32], b[32];
    uint32_t                 n;
    size_t                   i;
    double                   room, missing;
    int                      any = 0;

    moe_plan_model(p, &m);
    out_text("  it would fit\n");
    t.tp = t.ep = t.pp = 0;
    n = moe_plan_devices(p, &t, 1024);
    if (n > 0) {
        out_format("    on %u of them\n", n);
        any = 1;
    }
    t = *s;
    for (i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        t.format = tries[i];
        if (moe_plan_run(p, &t, &x, NULL) != MOE_OK || x.weights >= r->weights)
            continue;
        n = x.fits ? t.devices : moe_plan_devices(p, &t, 1024);
        if (n == 0)
            continue;
        if (x.fits)
            out_format("    in %s on the %u here: %s of weights\n", tries[i],
                       t.devices, gb_text(x.weights, a));
        else
            out_format("    in %s on %u of them: %s of weights\n", tries[i],
                       n, gb_text(x.weights, a));
        any = 1;
    }
    if (r->max_batch >= 1) {
        out_format("    with %s sequences at once\n",
                   whole_text(r->max_batch, a));
        any = 1;
    }
    if (r->max_context >= 1) {
        out_format("    with a context of %s tokens\n",
                   whole_text(r->max_context, a));
        any = 1;
    }
    /* the engine's own placement: all but experts stays, experts take what
     * is left, and those that are not there come from the host */
    room = r->limit - (r->needed - r->experts);
    if (m.n_experts != 0 && room > 0 && r->experts > 0
        && q->device.host_rate > 0 && !q->device.is_host) {
        missing = r->experts * (1 - room / r->experts) * r->distinct
                  / m.n_experts;
        out_format("    with %.0f %% of the experts on the device and the "
                   "others in %s of\n      host memory: a step then waits "
                   "%s for them\n", 100 * room / r->experts,
                   gb_text((r->experts - room) * s->devices, a),
                   time_text(missing / q->device.host_rate, b));
        any = 1;
    }
    if (!any)
        out_text("    on a device with more memory\n");
}

static void
print_memory(const struct question *q, const moe_planner *p,
             const struct moe_plan_setup *s, const struct moe_plan_result *r)
{
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    double context = s->context > 0 ? s->context : s->input + s->output;
    char   a[32], b[32], d[32], e[32];

    out_format("\n%s: %s of %s usable on each device\n",
               r->fits ? "it fits" : "IT DOES NOT FIT", gb_text(r->needed, a),
               gb_text(r->limit, b));
    if (r->experts > 0)
        out_format("  experts      %10s\n", gb_text(r->experts, a));
    out_format("  %-12s %10s\n", r->experts > 0 ? "other" : "weights",
               gb_text(r->rest, a));
    out_format("  cache        %10s  %s x %s tokens%s\n", gb_text(r->kv, a),
               whole_text(s->batch, b), whole_text(context, d),
               s->kv_elem > 0 && s->kv_elem != 2 ? "" : " in 16 bits");
    out_format("  activations  %10s\n", gb_text(r->activations, a));
    moe_plan_model(p, &m);
    if (context > m.max_context)
        out_format("  note: the model was made for %s tokens\n",
                   whole_text(m.max_context, a));
    if (!r->fits) {
        print_remedies(q, p, s, r);
        return;
    }
    out_format("  room for %s sequences of %s tokens",
               whole_text(r->max_batch, a), whole_text(context, b));
    if (r->max_context > context)
        out_format(", or for %s of %s", whole_text(s->batch, d),
                   whole_text(r->max_context, e));
    out_format("\n  one sequence of %s tokens takes %s of cache\n", b,
               gb_text(moe_plan_kv_bytes(p, context, s->kv_elem > 0
                                                         ? s->kv_elem : 2),
                       a));
}

static void
print_times(const struct question *q, const struct moe_plan_setup *s,
            const struct moe_plan_result *r)
{
    char a[32], b[32], d[32], e[32];

    out_format("\n%26s%s\n", "", "estimate   bare roofline   bound by");
    if (s->input > 0)
        out_format("  time to first token   %10s   %13s   %s\n",
                   time_text(r->ttft, a), time_text(r->roofline_ttft, b),
                   bound_name(r->prefill_bound));
    out_format("  time of each further  %10s   %13s   %s\n",
               time_text(r->step, a), time_text(r->roofline_step, b),
               bound_name(r->bound));
    out_format("  tokens a second       %10s   %13s\n",
               whole_text(r->tokens_s, a),
               whole_text(s->batch / r->roofline_step, b));
    if (r->served_tokens_s > 0 && s->input > 0)
        out_format("  with the prefills     %10s\n",
                   whole_text(r->served_tokens_s, a));
    if (q->max_ttft > 0 || q->max_tpot > 0)
        out_text(question_fast(q, r)
                     ? "  that is as fast as was asked for\n"
                 : q->has_count
                     ? "  THAT IS SLOWER than was asked for\n"
                     : "  THAT IS SLOWER than was asked for, and so is any "
                       "number of them up to 1,024\n");
    out_format("  of a step: memory %s, arithmetic %s, links %s, launches "
               "%s\n", time_text(r->t_memory, a), time_text(r->t_compute, b),
               time_text(r->t_link, d), time_text(r->t_launch, e));
    if (r->distinct > 0)
        out_format("  a layer reads %.1f experts a step; arithmetic binds "
                   "from a batch of %s\n", r->distinct,
                   whole_text(r->critical_batch, a));
    if (r->ep > 1)
        out_format("  the fullest of %u expert ranks has %.2f times the mean "
                   "load (%s routing)\n", r->ep, r->imbalance,
                   s->skew > 0 ? "skewed" : "uniform");
    if (r->layer_traffic > 0)
        out_format("  each device sends %s a layer and step\n",
                   gb_text(r->layer_traffic, a));
}

static void
print_cost(const struct question *q, const struct moe_plan_setup *s,
           const struct moe_plan_result *r)
{
    double used = s->utilization > 0 ? s->utilization : 1;
    char   a[32], b[32];

    if (r->usd_hour <= 0)
        return;
    out_format("\n  %s a million input tokens, %s a million output tokens at "
               "%.0f %% of the hours used\n", usd_text(r->usd_input, a),
               usd_text(r->usd_output, b), 100 * used);
    if (used < 1)
        out_format("  of %s an hour %s pay for idleness\n",
                   usd_text(r->usd_hour, a), usd_text(r->usd_idle, b));
    if (q->api_price > 0)
        out_format("  an API at $%.2f a million output tokens is dearer from "
                   "%s tokens a day on\n", q->api_price,
                   whole_text(24 * r->usd_hour / q->api_price * 1e6, a));
}

static void
print_batches(const moe_planner *p, const struct moe_plan_setup *s)
{
    struct moe_plan_setup  t = *s;
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    char                   a[32], b[32], d[32], e[32];

    out_text("\n   batch   each token   tokens/s   roofline   experts a layer"
             "   bound by     $/M output\n");
    for (t.batch = 1; t.batch <= 4096; t.batch *= 2) {
        if (moe_plan_run(p, &t, &r, NULL) != MOE_OK || !r.fits)
            break;
        out_format("  %6.0f %12s %10s %10s   %15.1f   %-10s %12s\n", t.batch,
                   time_text(r.step, a), whole_text(r.tokens_s, b),
                   whole_text(t.batch / r.roofline_step, d), r.distinct,
                   bound_name(r.bound),
                   r.usd_hour > 0 ? usd_text(r.usd_output, e) : "-");
    }
}

/* Layouts of several devices beside each other. */
static void
print_layouts(const moe_planner *p, const struct moe_plan_setup *s)
{
    struct moe_plan_model  m = { .struct_size = sizeof(m) };
    struct moe_plan_setup  t = *s;
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    char                   a[32], b[32], d[32], e[32];
    uint32_t               tp, ep;

    moe_plan_model(p, &m);
    if (s->devices < 2 || m.n_experts == 0 || s->tp != 0 || s->ep != 0)
        return;
    out_text("\n  attention    experts     GB a device   fits   each token   "
             "first token   sent a layer\n");
    for (tp = s->devices; tp > 0; tp = tp > 1 ? 1 : 0)
        for (ep = 1; ep <= s->devices; ep = ep < s->devices ? s->devices
                                                            : ep + 1) {
            t.tp = tp;
            t.ep = ep;
            if (moe_plan_run(p, &t, &r, NULL) != MOE_OK)
                continue;
            out_format("  %s %-3u       %s %-3u %15s   %-4s %12s   %11s   "
                       "%12s\n", tp > 1 ? "tp" : "dp",
                       tp > 1 ? tp : s->devices, ep > 1 ? "ep" : "tp",
                       ep > 1 ? ep : s->devices, gb_text(r.needed, a),
                       r.fits ? "yes" : "no", time_text(r.step, b),
                       time_text(r.ttft, d), gb_text(r.layer_traffic, e));
        }
}

/* ---------------------------------------------------------------- trace -- */

/* Before anything is printed: the trace and the experts it is of. */
static int
check_trace(const struct question *q, const moe_planner *p)
{
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    char                 *bytes = NULL;
    size_t                len = 0;
    int                   status;

    moe_plan_model(p, &m);
    if (m.n_experts == 0) {
        say("%s has no experts whose load could be told", m.name);
        return EXIT_USAGE;
    }
    if (q->trace == NULL)
        return EXIT_OK;
    status = text_read(q->trace, &bytes, &len);
    if (status != EXIT_OK)
        return status;
    free(bytes);
    if (len > 0 && len % ((size_t) m.top_k * m.n_moe_layers) == 0)
        return EXIT_OK;
    say("%s: %zu bytes are no whole tokens of %u layers and %u experts",
        q->trace, len, m.n_moe_layers, m.top_k);
    return EXIT_USAGE;
}

static int
print_trace(const struct question *q, const moe_planner *p)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_model  m = { .struct_size = sizeof(m) };
    struct moe_plan_draw   d = { .struct_size = sizeof(d), .trials = 400,
                                 .seed = 1, .skew = q->setup.skew };
    struct moe_plan_spread s;
    char                  *bytes = NULL;
    size_t                 len = 0;
    uint32_t               B;
    int                    status = EXIT_OK;

    moe_plan_model(p, &m);
    d.n_experts = d.ranks = m.n_experts;
    d.top_k = m.top_k;
    if (q->trace != NULL) {
        status = text_read(q->trace, &bytes, &len);
        if (status != EXIT_OK)
            return status;
        d.trace = (const uint8_t *) bytes;
        d.trace_rows = len / m.top_k;
        d.trace_step = m.n_moe_layers;
    }
    out_format("\n   batch   mean   fullest expert: uniform     %s   distinct: "
               "uniform   %s\n", q->trace != NULL ? "traced" : "skewed",
               q->trace != NULL ? "traced" : "skewed");
    for (B = 1; B <= 4096 && status == EXIT_OK; B *= 4) {
        double mean = (double) B * m.top_k / m.n_experts;

        d.batch = B;
        d.trials = B > 500 ? 100 : 400;
        if (moe_plan_simulate(&d, &s, &err) != MOE_OK) {
            status = fail(&err);
            break;
        }
        out_format("  %6u %6.2f   %15.2fx mean  %6.2fx mean  %12.1f  %8.1f\n",
                   B, mean,
                   moe_plan_max_load(m.n_experts, m.top_k, B, m.n_experts)
                       / mean,
                   s.max_load / mean,
                   moe_plan_distinct(m.n_experts, m.top_k, B), s.distinct);
    }
    free(bytes);
    return status;
}

/* ------------------------------------------------------------- machines -- */

struct machine {
    struct moe_plan_device d;
    struct moe_plan_result r;
    struct moe_plan_setup  s;
};

/* Cheapest first; those without a price after them, by count. */
static int
by_cost(const void *a, const void *b)
{
    const struct machine *x = a, *y = b;
    double cx = x->r.usd_hour > 0 ? x->r.usd_hour : 1e9 + x->s.devices;
    double cy = y->r.usd_hour > 0 ? y->r.usd_hour : 1e9 + y->s.devices;

    return cx < cy ? -1 : cx > cy;
}

/* The fewest devices of each kind on which it fits and meets the targets. */
static int
print_machines(const struct question *q, const moe_planner *p)
{
    struct machine *all = calloc(LIST_MAX * 4, sizeof(*all));
    char            name[64], a[32], b[32], d[32], e[32];
    size_t          i, n = 0;

    if (all == NULL) {
        say("out of memory");
        return EXIT_RUN;
    }
    for (i = 0; moe_plan_device_at(i, name, sizeof(name)) == MOE_OK
                && n < LIST_MAX * 4; i++) {
        struct machine *x = &all[n];
        uint32_t        most;

        x->d.struct_size = sizeof(x->d);
        x->r.struct_size = sizeof(x->r);
        if (moe_plan_device(name, &x->d, NULL) != MOE_OK)
            continue;
        x->s = q->setup;
        x->s.device = &x->d;
        most = x->d.link_rate > 0 ? 64 : 1;
        for (x->s.devices = 1; x->s.devices <= most; x->s.devices *= 2)
            if (moe_plan_run(p, &x->s, &x->r, NULL) == MOE_OK && x->r.fits
                && question_fast(q, &x->r)) {
                n++;
                break;
            }
    }
    qsort(all, n, sizeof(*all), by_cost);
    if (n == 0) {
        out_text("\nno machine that is known, up to 64 devices, will do\n");
        free(all);
        return EXIT_OK;
    }
    out_format("\nmachines that hold it%s, cheapest first\n",
               q->max_ttft > 0 || q->max_tpot > 0 ? " and are fast enough"
                                                  : "");
    out_text("  devices                    first token   each token   "
             "tokens/s      $/hour   of\n");
    for (i = 0; i < n; i++) {
        char who[64];

        snprintf(who, sizeof(who), "%u x %s", all[i].s.devices,
                 all[i].d.name);
        out_format("  %-26s %11s %12s %10s  %10s   %s\n", who,
                   time_text(all[i].r.ttft, a), time_text(all[i].r.step, b),
                   whole_text(all[i].r.tokens_s, d),
                   all[i].r.usd_hour > 0 ? usd_text(all[i].r.usd_hour, e)
                                         : "-",
                   all[i].r.usd_hour > 0 && q->setup.price <= 0
                       ? all[i].d.price_date : "");
    }
    free(all);
    return EXIT_OK;
}

/* --------------------------------------------------------------- engine -- */

/* Whether moe-run could load the model on this machine now. */
static int
has_weights(const char *model)
{
    static const char *const files[] = { "model.safetensors",
                                         "model.safetensors.index.json" };
    char   path[4200];
    size_t i;

    for (i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%.4000s/%s", model, files[i]);
        if (access(path, R_OK) == 0)
            return 1;
    }
    return 0;
}

static int
engine_here(const struct question *q, const struct moe_plan_model *m,
            const char *model)
{
    return m->runnable && strcmp(q->device.name, "this") == 0
           && has_weights(model);
}

static void
json_error(const struct moe_error *err)
{
    out_text("{");
    json_text("error", err->text, 1);
    out_text("}");
}

/* The engine's own plan for the same load: the one that a run would follow,
 * to the byte. */
static int
print_engine(struct cli *c, const char *model,
             const struct moe_plan_setup *s, int json)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    double context = s->context > 0 ? s->context : s->input + s->output;
    char   number[2][32];

    snprintf(number[0], sizeof(number[0]), "%.0f", context);
    snprintf(number[1], sizeof(number[1]), "%.0f", s->batch);
    if (moe_options_set(c->o, "model.context", number[0], MOE_FROM_ARG,
                           &err)
               != MOE_OK
        || moe_options_set(c->o, "engine.sequences", number[1], MOE_FROM_ARG,
                           &err)
               != MOE_OK)
        return fail(&err);
    out_text(json ? ",\"engine\":" : "\nwhat moe-run itself would do here\n");
    if (moe_plan_explain(c->o, model, s->format, json, out_write, NULL, &err)
        == MOE_OK)
        return EXIT_OK;
    if (json)
        json_error(&err);
    else
        out_format("  %s\n", err.text);
    return EXIT_OK;
}

/* ------------------------------------------------------------- together -- */

int
question_count(const struct question *q, const moe_planner *p,
               struct moe_plan_setup *s)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    struct moe_plan_setup  t;
    uint32_t               n;

    *s = q->setup;
    s->device = &q->device;
    if (q->has_count)
        return EXIT_OK;
    s->devices = 1;
    if (moe_plan_run(p, s, &r, &err) != MOE_OK && s->tp <= 1 && s->ep <= 1
        && s->pp <= 1)
        return fail(&err);
    n = q->device.link_rate > 0 ? moe_plan_devices(p, s, 1024) : 0;
    if (n == 0) {
        /* a layout that was asked for and is none is an error below */
        n = s->tp > s->ep ? s->tp : s->ep;
        n = (n > 1 ? n : 1) * (s->pp > 1 ? s->pp : 1);
    }
    s->devices = n <= 65536 ? n : 65536;
    if (q->max_ttft <= 0 && q->max_tpot <= 0)
        return EXIT_OK;
    /* more of them until it is fast enough */
    for (; n <= 1024; n *= 2) {
        t = *s;
        t.devices = n;
        if (moe_plan_run(p, &t, &r, NULL) == MOE_OK && r.fits
            && question_fast(q, &r)) {
            *s = t;
            break;
        }
        if (q->device.link_rate <= 0)
            break;
    }
    return EXIT_OK;
}

int
question_fast(const struct question *q, const struct moe_plan_result *r)
{
    return (q->max_ttft <= 0 || r->ttft <= q->max_ttft)
           && (q->max_tpot <= 0 || r->step <= q->max_tpot);
}

static int
print_json(struct cli *c, const struct question *q, const moe_planner *p,
           const struct moe_plan_setup *s, const char *model)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_model  m = { .struct_size = sizeof(m) };
    struct moe_plan_setup  t = *s;
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    uint64_t               bytes, by[MOE_PLAN_CLASSES];
    uint32_t               i;
    int                    n = 0, fits = 0;

    moe_plan_model(p, &m);
    if (moe_plan_weights(p, q->setup.format, &bytes, by, &err) != MOE_OK
        || (q->has_device && moe_plan_run(p, s, &r, &err) != MOE_OK))
        return fail(&err);
    out_format("{\"schema_version\":%d,\"model\":{", SCHEMA_VERSION);
    json_text("name", m.name, 1);
    json_text("family", m.family, 0);
    json_text("format", format_of(q, &m), 0);
    json_number("params_total", (double) m.total, 0);
    json_number("params_active", (double) m.active, 0);
    json_number("params_active_with_table", (double) m.active_table, 0);
    json_number("params_per_expert", (double) m.per_expert, 0);
    json_number("layers", m.n_layers, 0);
    json_number("moe_layers", m.n_moe_layers, 0);
    json_number("experts", m.n_experts, 0);
    json_number("top_k", m.top_k, 0);
    json_number("weight_bytes", (double) bytes, 0);
    json_number("kv_bytes_per_token", (double) moe_plan_kv_growth(p, 2), 0);
    json_number("flop_per_token", m.flop_token, 0);
    out_text(",\"classes\":{");
    for (i = 0; i < MOE_PLAN_CLASSES; i++) {
        out_format("%s\"%s\":{", i > 0 ? "," : "", moe_plan_class_name(i));
        json_number("params", (double) m.params[i], 1);
        json_number("bytes", (double) by[i], 0);
        out_text("}");
    }
    out_text("}}");
    if (q->has_device) {
        out_text(",\"device\":{");
        json_text("name", q->device.name, 1);
        json_number("count", s->devices, 0);
        json_number("memory_bytes", q->device.memory, 0);
        json_number("bandwidth", q->device.bandwidth, 0);
        json_number("usd_per_hour", s->price > 0 ? s->price : q->device.price,
                    0);
        json_text("price_date", s->price > 0 ? "given" : q->device.price_date,
                  0);
        out_text("},\"setup\":{");
        json_number("concurrency", s->batch, 1);
        json_number("input", s->input, 0);
        json_number("output", s->output, 0);
        json_number("utilization", s->utilization > 0 ? s->utilization : 1,
                    0);
        out_text("},\"plan\":");
        json_result(&r);
        fits = r.fits != 0;
        out_text(",\"batches\":[");
        for (t.batch = 1; t.batch <= 4096; t.batch *= 2) {
            if (moe_plan_run(p, &t, &r, NULL) != MOE_OK || !r.fits)
                break;
            out_format("%s{\"concurrency\":%.0f,\"plan\":", n++ > 0 ? "," : "",
                       t.batch);
            json_result(&r);
            out_text("}");
        }
        out_text("]");
        if (engine_here(q, &m, model)
            && print_engine(c, model, s, 1) != EXIT_OK)
            return EXIT_USAGE;
    }
    out_text("}\n");
    return q->has_device && !fits ? EXIT_BUDGET : EXIT_OK;
}

static int
plan_one(struct cli *c, struct question *q, const char *model)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_model  m = { .struct_size = sizeof(m) };
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    struct moe_plan_setup  s = q->setup;
    moe_planner           *p;
    char                   text[128], a[32], b[32], d[32];
    int                    status = EXIT_OK;

    if (moe_plan_open(model, &p, &err) != MOE_OK)
        return fail_name(&err);
    moe_plan_model(p, &m);
    if (s.ep > 1 && m.n_experts == 0) {
        say("--ep: %s has no experts that could be dealt out", m.name);
        status = EXIT_USAGE;
    }
    if (status == EXIT_OK && (q->trace != NULL || q->setup.skew > 0))
        status = check_trace(q, p);
    if (status == EXIT_OK && q->has_device)
        status = question_count(q, p, &s);
    if (status == EXIT_OK && cli_has(c, "--json")) {
        status = print_json(c, q, p, &s, model);
        moe_plan_close(p);
        return status;
    }
    if (status == EXIT_OK && q->has_device
        && moe_plan_run(p, &s, &r, &err) != MOE_OK)
        status = fail(&err);
    if (status == EXIT_OK)
        status = print_model(q, p);
    if (status == EXIT_OK && !q->has_device
        && q->trace == NULL && q->setup.skew <= 0)
        status = print_machines(q, p);
    if (status == EXIT_OK && q->has_device) {
        out_format("\n%s (%s, %s/s, %s TFLOPS; %s, %s)\n",
                   layout_text(q, &s, &r, text), gb_text(q->device.memory, a),
                   gb_text(q->device.bandwidth, b),
                   whole_text((q->device.bf16 > 0   ? q->device.bf16
                               : q->device.fp16 > 0 ? q->device.fp16
                                                    : q->device.fp32) / 1e12,
                              d),
                   q->device.confidence, q->device.source_date);
        print_price(q);
        print_memory(q, p, &s, &r);
        if (r.fits) {
            print_times(q, &s, &r);
            print_cost(q, &s, &r);
            print_batches(p, &s);
            print_layouts(p, &s);
        }
        if (engine_here(q, &m, model))
            status = print_engine(c, model, &s, 0);
    }
    if (status == EXIT_OK && (q->trace != NULL || q->setup.skew > 0))
        status = print_trace(q, p);
    moe_plan_close(p);
    return status == EXIT_OK && q->has_device && !r.fits ? EXIT_BUDGET
                                                         : status;
}

static int
list_names(int devices)
{
    char   name[64];
    size_t i;

    for (i = 0; (devices ? moe_plan_device_at(i, name, sizeof(name))
                         : moe_plan_preset_at(i, name, sizeof(name)))
                == MOE_OK; i++)
        out_format("%s\n", name);
    return EXIT_OK;
}

int
run_plan(struct cli *c)
{
    struct question q;
    int             status = question_useless(c);

    if (status != EXIT_OK)
        return status;
    if (cli_has(c, "--models"))
        return list_names(0);
    if (cli_has(c, "--devices"))
        return list_names(1);
    if (cli_has(c, "--articles"))
        return plan_articles();
    status = question_read(c, &q);
    if (status != EXIT_OK)
        return status;
    if (c->n_operands == 0) {
        say("a model is wanted: a preset's name (--models lists them), a "
            "folder or a config.json");
        return EXIT_USAGE;
    }
    if (cli_has(c, "--compare"))
        return plan_compare(c, &q);
    if (c->n_operands > 1) {
        say("'%s' is one model too many; several are for --compare",
            c->operands[1]);
        return EXIT_USAGE;
    }
    if (cli_has(c, "--sweep") || cli_has(c, "--csv") || cli_has(c, "--svg")
        || cli_has(c, "--chart"))
        return plan_sweep(c, &q);
    return plan_one(c, &q, c->operands[0]);
}
