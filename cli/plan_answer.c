/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_answer.c - the paragraphs of an answer: what a model is, whether it
 * fits, how fast and how dear it is, and what else could be done.
 *
 * Somebody who reads them has seen no other output of the program: every
 * figure stands beside a word that says what it is.
 */
#include "plan.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- model -- */

const char *
format_of(const struct question *q, const struct moe_plan_model *m)
{
    return q->setup.format != NULL ? q->setup.format : m->format;
}

int
answer_model(const struct question *q, const moe_planner *p)
{
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    uint64_t              bytes, by[MOE_PLAN_CLASSES];
    char                  a[32], b[32], d[32];
    uint32_t              i;

    moe_plan_model(p, &m);
    if (moe_plan_weights(p, q->setup.format, &bytes, by, &err) != MOE_OK)
        return fail(&err);
    out_format("%s (%s): %s parameters, %s active for a token", m.name,
               m.family,
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
        out_format("%u heads for keys and values", m.kv_heads);
    if (m.limited_layers != 0)
        out_format("; attention limited in %u layers", m.limited_layers);
    if (m.n_experts != 0)
        out_format("\n  %u experts in each of %u layers, %u for a token; one "
                   "has %s parameters", m.n_experts, m.n_moe_layers, m.top_k,
                   whole_text((double) m.per_expert, a));
    out_format("\n  %s %s%s: %.2f bits a parameter; cache %s a token (16 "
               "bits);\n  %.*f %s a token, and the scores of attention\n",
               gb_text((double) bytes, a),
               strcmp(format_of(q, &m), "stored") == 0 ? "as " : "in ",
               format_of(q, &m), 8.0 * (double) bytes / (double) m.total,
               gb_text(moe_plan_kv_bytes(p, 1, 2), b),
               m.flop_token < 1e8 ? 0 : 2,
               m.flop_token / (m.flop_token < 1e8 ? 1e6 : 1e9),
               m.flop_token < 1e8 ? "MFLOP" : "GFLOP");
    if (!m.runnable)
        out_text("  moe-run can plan this model; it cannot run it\n");
    if (m.file_lacks != 0)
        out_format("  the file is cut: it ends %s before its weights do; the "
                   "whole is planned\n", gb_text((double) m.file_lacks, a));
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

/* The letters of conf/hardware in words; what is none is a word already. */
static const char *
confidence_text(const char *c)
{
    return strcmp(c, "A") == 0   ? "from public sources"
           : strcmp(c, "B") == 0 ? "from a vendor's sheet, not read again"
           : strcmp(c, "C") == 0 ? "estimated"
           : strcmp(c, "A, in part B") == 0
               ? "from public sources, in part from a vendor's sheet"
           : c[0] == '\0' ? "no source given"
                          : c;
}

/* How the devices share the model. */
static void
print_layout(const struct moe_plan_setup *s, const struct moe_plan_model *m,
             const struct moe_plan_result *r)
{
    uint32_t    each = s->devices / r->replicas, stage = each / r->pp;
    const char *next = "  layout: ";

    if (s->devices < 2)
        return;
    if (r->replicas > 1) {
        out_format("%s%u copies of the model, each on %u device%s", next,
                   r->replicas, each, each == 1 ? "" : "s");
        next = "; ";
    }
    if (r->pp > 1) {
        out_format("%s%u stages of layers (pp %u)", next, r->pp, r->pp);
        next = "; ";
    }
    if (stage > 1) {
        if (r->tp > 1)
            out_format("%s%s cut in %u (tp %u)", next,
                       m->n_experts == 0 ? "every matrix" : "attention",
                       r->tp, r->tp);
        if (r->tp > 1 && r->dp > 1)
            next = ", ";
        if (r->dp > 1)
            out_format("%s%s whole on %u, each with its own sequences (dp "
                       "%u)", next,
                       m->n_experts == 0 || r->tp > 1 ? "" : "attention",
                       r->dp, r->dp);
        if (m->n_experts != 0 && r->ep > 1)
            out_format(",\n    experts dealt out to %u (ep %u)", r->ep, r->ep);
        if (m->n_experts != 0 && stage / r->ep > 1)
            out_format("%s every expert cut in %u", r->ep > 1 ? "," : ",\n   ",
                       stage / r->ep);
    }
    out_text("\n");
}

static void
print_device(const struct question *q, const struct moe_plan_setup *s,
             const struct moe_plan_model *m, const struct moe_plan_result *r)
{
    const struct moe_plan_device *d = &q->device;
    double peak = d->bf16 > 0 ? d->bf16 : d->fp16 > 0 ? d->fp16 : d->fp32;
    char   a[32], b[32], e[32];

    out_format("\n%u x %s\n  each: %s of memory, %s/s, %s TFLOPS in %s; %s%s"
               "%s\n", s->devices, d->name, gb_text(d->memory, a),
               gb_text(d->bandwidth, b), whole_text(peak / 1e12, e),
               d->bf16 > 0   ? "bf16"
               : d->fp16 > 0 ? "fp16"
                             : "fp32",
               confidence_text(d->confidence),
               d->source_date[0] != '\0' ? ", " : "", d->source_date);
    print_layout(s, m, r);
    if (q->setup.price > 0)
        out_format("  price: $%.2f an hour and device, as given\n",
                   q->setup.price);
    else if (d->price > 0 && d->price_low > 0)
        out_format("  price: $%.2f an hour and device, seen from $%.2f to "
                   "$%.2f in %s\n  (%s)\n", d->price, d->price_low,
                   d->price_high, d->price_date, d->price_source);
    else if (d->price > 0)
        out_format("  price: $%.2f an hour and device, seen in %s\n",
                   d->price, d->price_date);
    else
        out_text("  no price is known; give one with --price\n");
}

/* What would make it fit, each way by itself. */
static void
print_remedies(const moe_planner *p, const struct moe_plan_setup *s,
               const struct moe_plan_result *r)
{
    static const char *const tries[] = { "fp8", "int4" };
    struct moe_plan_setup    t = *s;
    struct moe_plan_result   x = { .struct_size = sizeof(x) };
    char                     a[32], b[32];
    struct moe_plan_tiers    tiers = { .struct_size = sizeof(tiers) };
    struct moe_error         err = { .struct_size = sizeof(err) };
    moe_status               status;
    uint32_t                 n;
    size_t                   i;
    int                      any = 0;

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
    status = moe_plan_tiers(p, s, r, &tiers, &err);
    if (status == MOE_OK) {
        out_format("    with %.0f %% of the experts on the device", 100
                   * tiers.device_share);
        if (tiers.host > 0 && tiers.disk > 0)
            out_format(", %s of them in host memory, "
                       "%s on disk",
                       gb_text(tiers.host, a), gb_text(tiers.disk, b));
        else
            out_format(" and the others, %s, %s",
                       gb_text(tiers.host + tiers.disk, a),
                       tiers.disk > 0 ? "on disk" : "in host memory");
        if (s->skew > 0 || s->trace != NULL)
            out_format(";\n      with the most popular there it has %.0f %% of "
                       "what a step uses, with\n      those used most of "
                       "late, as moe-run does, %.0f %%",
                       100 * tiers.device_hits, 100 * tiers.kept_hits);
        out_format(":\n      a step then waits %s for them and takes about "
                   "%s\n", time_text(tiers.wait, a),
                   time_text(tiers.step, b));
        any = 1;
    } else if (status == MOE_E_OVER_BUDGET && s->device->host_memory > 0) {
        out_format("    not with experts in host memory: %s\n", err.text);
    }
    if (!any)
        out_text("    on a device with more memory\n");
}

static void
print_memory(const moe_planner *p, const struct moe_plan_setup *s,
             const struct moe_plan_result *r)
{
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    double context = s->context > 0 ? s->context : s->input + s->output;
    char   a[32], b[32], d[32], e[32];

    out_format("\n%s: %s needed on each device, %s usable (90 %% of it)\n",
               r->fits ? "it fits" : "IT DOES NOT FIT", gb_text(r->needed, a),
               gb_text(r->limit, b));
    if (r->experts > 0)
        out_format("  experts      %10s\n", gb_text(r->experts, a));
    out_format("  %-12s %10s\n", r->experts > 0 ? "other" : "weights",
               gb_text(r->rest, a));
    out_format("  cache        %10s  its part of %s x %s tokens in %.0f bits\n",
               gb_text(r->kv, a), whole_text(s->batch, b),
               whole_text(context, d),
               8 * (s->kv_elem > 0 ? s->kv_elem : 2));
    out_format("  activations  %10s\n", gb_text(r->activations, a));
    moe_plan_model(p, &m);
    if (context > m.max_context)
        out_format("  NOTE: the model was made for at most %s tokens a "
                   "sequence\n", whole_text(m.max_context, a));
    if (!r->fits) {
        print_remedies(p, s, r);
        return;
    }
    out_format("  room for %s sequence%s of %s tokens",
               whole_text(r->max_batch, a), r->max_batch > 1 ? "s" : "",
               whole_text(context, b));
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

    out_format("\nspeed, %s sequence%s at once, %s tokens in, %s out\n",
               whole_text(s->batch, a), s->batch > 1 ? "s" : "",
               whole_text(s->input, b), whole_text(s->output, d));
    out_format("%26s%s\n", "", "estimate   bare roofline   bound by");
    if (s->input > 0)
        out_format("  time to first token   %10s   %13s   %s   (one prompt by "
                   "itself)\n",
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
    out_format("  a step (one token of every sequence): memory %s, "
               "arithmetic %s,\n    links %s, launches %s\n",
               time_text(r->t_memory, a), time_text(r->t_compute, b),
               time_text(r->t_link, d), time_text(r->t_launch, e));
    if (r->distinct > 0)
        out_format("  a step reads %.1f experts of each layer; arithmetic "
                   "binds from a batch of %s\n", r->distinct,
                   whole_text(r->critical_batch, a));
    if (r->ep > 1)
        out_format("  the fullest of %u expert ranks has %.2f times the mean "
                   "load (%s routing)\n", r->ep, r->imbalance,
                   s->trace != NULL ? "traced"
                   : s->skew > 0    ? "skewed"
                                    : "uniform");
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
    char                   a[32], b[32], d[32], e[32], f[32];

    out_text("\nby batch (sequences at once)\n"
             "   batch   each token   tokens/s   roofline   experts read   "
             "bound by     $/M output\n");
    for (t.batch = 1; t.batch <= 4096; t.batch *= 2) {
        if (moe_plan_run(p, &t, &r, NULL) != MOE_OK || !r.fits)
            break;
        snprintf(f, sizeof(f), "%.1f", r.distinct);
        out_format("  %6.0f %12s %10s %10s   %12s   %-10s %12s\n", t.batch,
                   time_text(r.step, a), whole_text(r.tokens_s, b),
                   whole_text(t.batch / r.roofline_step, d),
                   r.distinct > 0 ? f : "-", bound_name(r.bound),
                   r.usd_hour > 0 ? usd_text(r.usd_output, e) : "-");
    }
}

/* What a longer context costs: room, and so money, at a full machine. */
static void
print_contexts(const struct question *q, const moe_planner *p,
               const struct moe_plan_setup *s)
{
    struct moe_plan_setup  t = *s;
    struct moe_plan_result r = { .struct_size = sizeof(r) };
    double                 elem = s->kv_elem > 0 ? s->kv_elem : 2, part;
    char                   a[32], b[32], d[32], e[32], f[32], g[32];

    if (!q->has_context)
        return;
    out_text("\nby context (tokens a sequence may have); full: with as many "
             "sequences as there is room for\n"
             "    context   cache of one   room for   first token   "
             "each token, full   tokens/s, full   $/M output, full\n");
    for (part = 64; part >= 1; part /= 4) {
        t = *s;
        t.context = floor(s->context / part);
        if (t.context <= t.output)
            continue;
        if (t.input > t.context - t.output)
            t.input = t.context - t.output;
        if (moe_plan_run(p, &t, &r, NULL) != MOE_OK)
            continue;
        out_format("  %9s %14s %10s", whole_text(t.context, a),
                   gb_text(moe_plan_kv_bytes(p, t.context, elem), b),
                   r.max_batch >= 1 ? whole_text(r.max_batch, d) : "none");
        if (r.max_batch < 1) {
            out_text("\n");
            continue;
        }
        t.batch = r.max_batch < 1e6 ? r.max_batch : 1e6;
        if (moe_plan_run(p, &t, &r, NULL) == MOE_OK)
            out_format("   %11s %18s %16s %18s\n", time_text(r.ttft, e),
                       time_text(r.step, f), whole_text(r.tokens_s, g),
                       r.usd_hour > 0 ? usd_text(r.usd_output, a) : "-");
    }
}

/* -------------------------------------------------------------- layouts -- */

/* "EP 8, attention TP 8", "2 copies: TP 4" into buf (64 bytes). */
static char *
layout_short(uint32_t devices, const struct moe_plan_result *r, char *buf)
{
    uint32_t stage = devices / r->replicas / r->pp;
    size_t   n = 0;

    buf[0] = '\0';
    if (r->replicas > 1)
        n += (size_t) snprintf(buf, 64, "%u copies%s", r->replicas,
                               stage * r->pp > 1 ? ": " : "");
    if (r->pp > 1)
        n += (size_t) snprintf(buf + n, 64 - n, "PP %u%s", r->pp,
                               stage > 1 ? ", " : "");
    if (stage < 2)
        return buf;
    if (r->ep > 1)
        n += (size_t) snprintf(buf + n, 64 - n, "EP %u, attention ", r->ep);
    if (r->tp > 1)
        n += (size_t) snprintf(buf + n, 64 - n, "TP %u%s", r->tp,
                               r->dp > 1 ? " " : "");
    else if (r->ep == 1)
        n += (size_t) snprintf(buf + n, 64 - n, "TP %u, attention ", stage);
    if (r->dp > 1)
        (void) snprintf(buf + n, 64 - n, "DP %u", r->dp);
    return buf;
}

struct choice {
    uint32_t               tp, ep, pp, copies;
    struct moe_plan_result r;
    char                   name[64];
};

/* EP beside TP for the experts, in words. */
static void
print_reason(const struct choice *tp, const struct choice *ep)
{
    double gain = tp->r.step / ep->r.step;
    char   a[32], b[32];

    out_format("  experts dealt out (EP) instead of cut (TP): %s instead of "
               "%s sent a layer,\n    but the fullest rank has %.2f times "
               "the mean load: each token takes ",
               gb_text(ep->r.layer_traffic, a),
               gb_text(tp->r.layer_traffic, b), ep->r.imbalance);
    if (gain > 1.005)
        out_format("%.0f %% less\n", 100 - 100 / gain);
    else if (gain < 0.995)
        out_format("%.0f %% more\n", 100 / gain - 100);
    else
        out_text("as long\n");
}

/* The ways to lay several devices out, beside each other. */
static void
print_choices(const moe_planner *p, const struct moe_plan_setup *s,
              const struct moe_plan_model *m)
{
    struct choice  all[24];
    struct choice *tp = NULL, *ep = NULL, *fast = NULL, *most = NULL;
    uint32_t       n = s->devices, copies;
    size_t         k = 0, i;
    char           a[32], b[32], d[32], e[32], f[32];

    if (n < 2 || s->tp != 0 || s->ep != 0 || s->pp != 0 || s->replicas != 0)
        return;
    all[k++] = (struct choice) { .tp = n, .ep = 1 };
    if (m->n_experts != 0) {
        all[k++] = (struct choice) { .tp = n, .ep = n };
        all[k++] = (struct choice) { .tp = 1, .ep = n };
        all[k++] = (struct choice) { .tp = 1, .ep = 1 };
    }
    all[k++] = (struct choice) { .tp = 1, .ep = 1, .pp = n };
    for (copies = 2; copies <= n && k < 24; copies *= 2)
        if (n % copies == 0)
            all[k++] = (struct choice) { .copies = copies };
    out_format("\nways to lay it out on the %u\n  %-31s GB a device   fits   "
               "first token   each token   tokens/s*   sent a layer\n", n,
               "layout");
    for (i = 0; i < k; i++) {
        struct moe_plan_setup t = *s;
        struct choice        *c = &all[i];

        t.tp = c->tp;
        t.ep = c->ep;
        t.pp = c->pp;
        t.replicas = c->copies;
        c->r.struct_size = sizeof(c->r);
        if (moe_plan_run(p, &t, &c->r, NULL) != MOE_OK)
            continue;
        layout_short(n, &c->r, c->name);
        out_format("  %-31s %11s   %-4s %13s %12s %11s   %12s\n", c->name,
                   gb_text(c->r.needed, a), c->r.fits ? "yes" : "no",
                   time_text(c->r.ttft, b), time_text(c->r.step, d),
                   whole_text(c->r.served_tokens_s, e),
                   c->r.layer_traffic > 0 ? gb_text(c->r.layer_traffic, f)
                                          : "-");
        if (c->tp == n)
            *(c->ep > 1 ? &ep : &tp) = c;
        if (c->r.fits && (fast == NULL || c->r.step < fast->r.step))
            fast = c;
        if (c->r.fits
            && (most == NULL
                || c->r.served_tokens_s > most->r.served_tokens_s))
            most = c;
    }
    out_text("  * of output, with the prefills in between\n");
    if (fast != NULL && fast == most)
        out_format("  fastest for each token, and most tokens a second: %s\n",
                   fast->name);
    else if (fast != NULL)
        out_format("  fastest for each token: %s; most tokens a second: %s\n",
                   fast->name, most->name);
    if (tp != NULL && ep != NULL)
        print_reason(tp, ep);
    out_text("  TP cuts matrices, EP deals whole experts out, DP gives each "
             "device its own\n  sequences, PP its own layers; a copy is the "
             "whole model (--replicas)\n");
}

void
answer_deployment(const struct question *q, const moe_planner *p,
                  const struct moe_plan_setup  *s,
                  const struct moe_plan_result *r)
{
    struct moe_plan_model m = { .struct_size = sizeof(m) };

    moe_plan_model(p, &m);
    print_device(q, s, &m, r);
    print_memory(p, s, r);
    if (!r->fits)
        return;
    print_times(q, s, r);
    print_cost(q, s, r);
    print_batches(p, s);
    print_contexts(q, p, s);
    print_choices(p, s, &m);
}
