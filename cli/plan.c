/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.c - moe-run plan: one model on one kind of machine.
 *
 * Owns the order of the answer, the machines to choose from and the engine's
 * own plan.  The paragraphs are in plan_answer.c, comparisons and sweeps in
 * files of their own; reading the question is in plan_ask.c, figures become
 * words in plan_text.c.
 */
#include "plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- trace -- */

/* Before anything is printed: the trace and the experts it is of.  *bytes:
 * what the question's setup then points to, to be freed. */
static int
read_trace(struct question *q, const moe_planner *p, char **bytes)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_model  m = { .struct_size = sizeof(m) };
    struct moe_plan_draw   d = { .struct_size = sizeof(d), .batch = 1,
                                 .ranks = 1, .trials = 1 };
    struct moe_plan_spread x = { .struct_size = sizeof(x) };
    size_t                 len = 0;
    int                    status;

    moe_plan_model(p, &m);
    if (m.n_experts == 0) {
        say("%s has no experts whose load could be told", m.name);
        return EXIT_USAGE;
    }
    if (q->trace == NULL)
        return EXIT_OK;
    status = text_read(q->trace, bytes, &len);
    if (status != EXIT_OK)
        return status;
    if (len == 0 || len % ((size_t) m.top_k * m.n_moe_layers) != 0) {
        say("%s: %zu bytes are no whole tokens of %u layers and %u experts",
            q->trace, len, m.n_moe_layers, m.top_k);
        return EXIT_USAGE;
    }
    q->setup.trace = (const uint8_t *) *bytes;
    q->setup.trace_rows = len / m.top_k;
    q->setup.trace_step = m.n_moe_layers;
    d.n_experts = m.n_experts;
    d.top_k = m.top_k;
    d.trace = q->setup.trace;
    d.trace_rows = q->setup.trace_rows;
    d.trace_step = q->setup.trace_step;
    return moe_plan_simulate(&d, &x, &err) == MOE_OK ? EXIT_OK : fail(&err);
}

static int
print_trace(const struct question *q, const moe_planner *p)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_model  m = { .struct_size = sizeof(m) };
    struct moe_plan_draw   d = { .struct_size = sizeof(d), .trials = 400,
                                 .seed = 1, .skew = q->setup.skew,
                                 .trace = q->setup.trace,
                                 .trace_rows = q->setup.trace_rows,
                                 .trace_step = q->setup.trace_step };
    struct moe_plan_spread s;
    uint32_t               B;

    moe_plan_model(p, &m);
    d.n_experts = d.ranks = m.n_experts;
    d.top_k = m.top_k;
    out_format("\n   batch   mean   fullest expert: uniform     %s   distinct: "
               "uniform   %s\n", q->trace != NULL ? "traced" : "skewed",
               q->trace != NULL ? "traced" : "skewed");
    for (B = 1; B <= 4096; B *= 4) {
        double mean = (double) B * m.top_k / m.n_experts;

        d.batch = B;
        d.trials = B > 500 ? 100 : 400;
        if (moe_plan_simulate(&d, &s, &err) != MOE_OK)
            return fail(&err);
        out_format("  %6u %6.2f   %15.2fx mean  %6.2fx mean  %12.1f  %8.1f\n",
                   B, mean,
                   moe_plan_max_load(m.n_experts, m.top_k, B, m.n_experts)
                       / mean,
                   s.max_load / mean,
                   moe_plan_distinct(m.n_experts, m.top_k, B), s.distinct);
    }
    return EXIT_OK;
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
    struct machine       *all = calloc(LIST_MAX * 4, sizeof(*all));
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    char                  name[64], a[32], b[32], d[32], e[32], f[32];
    double context = q->setup.context > 0 ? q->setup.context
                                          : q->setup.input + q->setup.output;
    size_t i, n = 0, best = LIST_MAX * 4;

    if (all == NULL) {
        say("out of memory");
        return EXIT_RUN;
    }
    moe_plan_model(p, &m);
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
        x->s.devices = x->s.replicas > 1 ? x->s.replicas : 1;
        most = x->s.devices * (x->d.link_rate > 0 ? 64 : 1);
        for (; x->s.devices <= most && x->s.devices <= 65536;
             x->s.devices *= 2)
            if (moe_plan_run(p, &x->s, &x->r, NULL) == MOE_OK && x->r.fits
                && question_fast(q, &x->r)) {
                n++;
                break;
            }
    }
    if (context > m.max_context)
        out_format("\nNOTE: the model was made for at most %s tokens a "
                   "sequence\n", whole_text(m.max_context, a));
    qsort(all, n, sizeof(*all), by_cost);
    if (n == 0) {
        out_text("\nno machine that is known, up to 64 devices, will do\n");
        free(all);
        return EXIT_OK;
    }
    out_format("\nmachines that hold it%s, cheapest first\n"
               "(%s sequence%s at once, %s tokens in, %s out, room for %s "
               "tokens each)\n",
               q->max_ttft > 0 || q->max_tpot > 0 ? " and are fast enough"
                                                  : "",
               whole_text(q->setup.batch, a), q->setup.batch > 1 ? "s" : "",
               whole_text(q->setup.input, b), whole_text(q->setup.output, d),
               whole_text(context, e));
    out_text("  devices                    first token   each token   "
             "tokens/s      $/hour  $/M output   price of\n");
    for (i = 0; i < n; i++) {
        char who[64];

        snprintf(who, sizeof(who), "%u x %s", all[i].s.devices,
                 all[i].d.name);
        if (all[i].r.usd_hour > 0
            && (best == LIST_MAX * 4
                || all[i].r.usd_output < all[best].r.usd_output))
            best = i;
        out_format("  %-26s %11s %12s %10s  %10s  %10s   %s\n", who,
                   time_text(all[i].r.ttft, a), time_text(all[i].r.step, b),
                   whole_text(all[i].r.tokens_s, d),
                   all[i].r.usd_hour > 0 ? usd_text(all[i].r.usd_hour, e)
                                         : "-",
                   all[i].r.usd_hour > 0 ? usd_text(all[i].r.usd_output, f)
                                         : "-",
                   all[i].r.usd_hour > 0 && q->setup.price <= 0
                       ? all[i].d.price_date : "");
    }
    if (best < n)
        out_format("  cheapest by the hour: %u x %s; cheapest tokens: %u x "
                   "%s; --hardware tells more of one\n", all[0].s.devices,
                   all[0].d.name, all[best].s.devices, all[best].d.name);
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
    snprintf(number[1], sizeof(number[1]), "%.0f",
             ceil(s->batch / (s->replicas > 1 ? s->replicas : 1)));
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

/* How many devices are tried: those without links only by themselves. */
static uint32_t
question_most(const struct question *q)
{
    uint32_t copies = q->setup.replicas > 1 ? q->setup.replicas : 1;

    return q->device.link_rate > 0 && copies < 1024 ? 1024
           : q->device.link_rate > 0                ? 65536
                                                    : copies;
}

int
question_count(const struct question *q, const moe_planner *p,
               struct moe_plan_setup *s)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    struct moe_plan_setup  t;
    uint32_t               copies;
    uint64_t               n;

    *s = q->setup;
    s->device = &q->device;
    if (q->has_count)
        return EXIT_OK;
    copies = s->replicas > 1 ? s->replicas : 1;
    s->devices = copies;
    if (moe_plan_run(p, s, &r, &err) != MOE_OK && s->tp <= 1 && s->ep <= 1
        && s->pp <= 1)
        return fail(&err);
    n = moe_plan_devices(p, s, question_most(q));
    if (n == 0) {
        /* a layout that was asked for and is none is an error below */
        n = s->tp > s->ep ? s->tp : s->ep;
        n = (n > 1 ? n : 1) * (s->pp > 1 ? s->pp : 1) * copies;
    }
    s->devices = n <= 65536 ? (uint32_t) n : 65536;
    if (q->max_ttft <= 0 && q->max_tpot <= 0)
        return EXIT_OK;
    /* more of them until it is fast enough */
    for (; n <= question_most(q); n *= 2) {
        t = *s;
        t.devices = (uint32_t) n;
        if (moe_plan_run(p, &t, &r, NULL) == MOE_OK && r.fits
            && question_fast(q, &r)) {
            *s = t;
            break;
        }
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
    struct moe_plan_tiers  tiers = { .struct_size = sizeof(tiers) };
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
    if (m.file_lacks != 0)
        json_number("file_lacks_bytes", (double) m.file_lacks, 0);
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
        if (!fits && moe_plan_tiers(p, s, &r, &tiers, NULL) == MOE_OK) {
            out_text(",\"tiers\":{");
            json_number("device_share", tiers.device_share, 1);
            json_number("device_hits", tiers.device_hits, 0);
            json_number("kept_hits", tiers.kept_hits, 0);
            json_number("host_bytes", floor(tiers.host), 0);
            json_number("disk_bytes", floor(tiers.disk), 0);
            json_number("wait_s", tiers.wait, 0);
            json_number("tpot_s", tiers.step, 0);
            out_text("}");
        }
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
    char                  *trace = NULL;
    int                    status = EXIT_OK;

    if (moe_plan_open(model, &p, &err) != MOE_OK)
        return fail_name(&err);
    moe_plan_model(p, &m);
    if (s.ep > 1 && m.n_experts == 0) {
        say("--ep: %s has no experts that could be dealt out", m.name);
        status = EXIT_USAGE;
    }
    if (status == EXIT_OK && (q->trace != NULL || q->setup.skew > 0))
        status = read_trace(q, p, &trace);
    if (status == EXIT_OK && q->has_device)
        status = question_count(q, p, &s);
    if (status == EXIT_OK && cli_has(c, "--json")) {
        status = print_json(c, q, p, &s, model);
        free(trace);
        moe_plan_close(p);
        return status;
    }
    if (status == EXIT_OK && q->has_device
        && moe_plan_run(p, &s, &r, &err) != MOE_OK)
        status = fail(&err);
    if (status == EXIT_OK)
        status = answer_model(q, p);
    if (status == EXIT_OK && !q->has_device
        && q->trace == NULL && q->setup.skew <= 0)
        status = print_machines(q, p);
    if (status == EXIT_OK && q->has_device) {
        answer_deployment(q, p, &s, &r);
        if (engine_here(q, &m, model))
            status = print_engine(c, model, &s, 0);
    }
    if (status == EXIT_OK && (q->trace != NULL || q->setup.skew > 0))
        status = print_trace(q, p);
    free(trace);
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
