/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_compare.c - several models on the same kind of device.
 *
 * A model given alone is compared with the two dense ones between which it
 * lies: as large in all, and as large as what a token computes with.  Each
 * model gets the fewest devices that hold it, unless --gpus says how many.
 */
#include "plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MODELS_MAX 16u

struct side {
    moe_planner           *p;
    struct moe_plan_model  m;
    struct moe_plan_setup  s;
    struct moe_plan_result r;
    double                 cost; /* USD a million tokens at the demand */
};

struct match {
    const struct question *q;
    struct side            side[MODELS_MAX];
    size_t                 n;
    double                 demand; /* tokens a second that all of them serve */
    int                    priced;
};

static void
match_free(struct match *m)
{
    size_t i;

    for (i = 0; i < m->n; i++)
        moe_plan_close(m->side[i].p);
}

static int
add_side(struct match *m, moe_planner *p)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    struct side     *x = &m->side[m->n];
    int              status;

    memset(x, 0, sizeof(*x));
    x->p = p;
    x->m.struct_size = sizeof(x->m);
    x->r.struct_size = sizeof(x->r);
    m->n++;
    moe_plan_model(p, &x->m);
    say_cut(&x->m);
    status = question_count(m->q, p, &x->s);
    if (status != EXIT_OK)
        return status;
    if (moe_plan_run(p, &x->s, &x->r, &err) != MOE_OK)
        return fail(&err);
    return EXIT_OK;
}

static int
open_sides(const struct cli *c, struct match *m)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    moe_planner     *p;
    char             name[80];
    size_t           i;
    int              status = EXIT_OK;

    for (i = 0; i < c->n_operands && status == EXIT_OK; i++) {
        if (moe_plan_open(c->operands[i], &p, &err) != MOE_OK)
            return fail_name(&err);
        status = add_side(m, p);
    }
    if (status != EXIT_OK || m->n > 1 || m->side[0].m.n_experts == 0)
        return status;
    for (i = 0; i < 2 && status == EXIT_OK; i++) {
        const struct moe_plan_model *like = &m->side[0].m;

        snprintf(name, sizeof(name), "dense, %.1fB",
                 (double) (i == 0 ? like->total : like->active_table) / 1e9);
        if (moe_plan_open_dense(m->side[0].p,
                                i == 0 ? like->total : like->active_table,
                                name, &p, &err)
            != MOE_OK)
            return fail(&err);
        status = add_side(m, p);
    }
    return status;
}

/* The demand: what the weakest of those that fit (if any does) delivers at
 * the asked utilization. */
static void
set_demand(struct match *m)
{
    double used = m->q->setup.utilization > 0 ? m->q->setup.utilization : 1;
    size_t i;
    int    any = 0;

    m->priced = 1;
    for (i = 0; i < m->n; i++)
        any |= m->side[i].r.fits != 0;
    for (i = 0; i < m->n; i++) {
        double have = m->side[i].r.served_tokens_s;

        m->priced &= m->side[i].r.usd_hour > 0;
        if ((m->side[i].r.fits || !any)
            && (m->demand <= 0 || have < m->demand))
            m->demand = have;
    }
    m->demand *= used;
    for (i = 0; i < m->n; i++)
        m->side[i].cost
            = m->side[i].r.usd_hour / 3600 * 1e6 / m->demand;
}

/* Dollars a million output tokens of a side at a batch, or hours of a device
 * if there are no prices; 0: does not fit. */
static double
cost_at(const struct side *x, double batch, double *step)
{
    struct moe_plan_setup  s = x->s;
    struct moe_plan_result r = { .struct_size = sizeof(r) };

    s.batch = batch;
    *step = 0;
    if (moe_plan_run(x->p, &s, &r, NULL) != MOE_OK || !r.fits)
        return 0;
    *step = r.step;
    return (r.usd_hour > 0 ? r.usd_hour : (double) x->s.devices) * 1e6 / 3600
           / r.tokens_s;
}

/* The batch from which on the first side is dearer (or cheaper) than x; 0:
 * the same one wins at all batches that both have room for; -1: there is no
 * such batch. */
static double
crossing(const struct side *a, const struct side *b, int *cheaper_first)
{
    double batch, step;
    int    sign = 0;

    for (batch = 1; batch <= 4096; batch = ceil(batch * 1.1 + 0.01)) {
        double ca = cost_at(a, batch, &step), cb = cost_at(b, batch, &step);
        int    now;

        if (ca <= 0 || cb <= 0)
            break;
        now = ca < cb ? 1 : -1;
        if (sign == 0)
            *cheaper_first = now > 0;
        else if (now != sign)
            return batch;
        sign = now;
    }
    return sign == 0 ? -1 : 0;
}

static void
print_table(const struct match *m)
{
    char   a[32], b[32], d[32], e[32], f[32], name[32];
    size_t i;

    out_text("  model                    parameters  for a token   weights  "
             "devices   first token   each token   tokens/s     $/hour\n");
    for (i = 0; i < m->n; i++) {
        const struct side *x = &m->side[i];

        snprintf(name, sizeof(name), "%.24s", x->m.name);
        out_format("  %-24s %9.1fB %11.1fB %9s %8u%s %13s %12s %10s %10s\n",
                   name, (double) x->m.total / 1e9,
                   (double) x->m.active / 1e9, gb_text(x->r.weights, a),
                   x->s.devices, x->r.fits ? " " : "!",
                   time_text(x->r.ttft, b), time_text(x->r.step, d),
                   whole_text(x->r.tokens_s, e),
                   x->r.usd_hour > 0 ? usd_text(x->r.usd_hour, f) : "-");
    }
    for (i = 0; i < m->n; i++)
        if (!m->side[i].r.fits)
            out_format("  ! %s does not fit on %u x %s\n", m->side[i].m.name,
                       m->side[i].s.devices, m->q->device.name);
}

static void
print_by_batch(const struct match *m)
{
    double batch, step;
    char   a[32];
    size_t i;
    int    any;

    out_format("\n  %s by batch, all hours used\n  %-8s",
               m->priced ? "$ a million output tokens"
                         : "hours of a device a million output tokens",
               "batch");
    for (i = 0; i < m->n; i++)
        out_format(" %22.22s", m->side[i].m.name);
    out_text("\n");
    for (batch = 1; batch <= 1024; batch *= 4) {
        any = 0;
        for (i = 0; i < m->n; i++)
            any |= cost_at(&m->side[i], batch, &step) > 0;
        if (!any)
            break;
        out_format("  %-8.0f", batch);
        for (i = 0; i < m->n; i++) {
            double cost = cost_at(&m->side[i], batch, &step);

            if (cost <= 0)
                out_format(" %22s", "no room");
            else if (m->priced)
                out_format(" %22s", usd_text(cost, a));
            else
                out_format(" %22.3f", cost);
        }
        out_text("\n");
    }
}

static void
print_break_even(const struct match *m)
{
    const struct side *x = &m->side[0];
    char               a[32], b[32];
    size_t             i;

    out_text("\n");
    for (i = 1; i < m->n; i++) {
        const struct side *y = &m->side[i];
        int                first = 0;
        double             at = crossing(x, y, &first), reads;

        out_format("  against %s\n", y->m.name);
        if (at < 0) {
            out_text("    no batch fits both\n");
            continue;
        }
        out_format("    a token of %s is ", x->m.name);
        if (at > 0)
            out_format("%s below a batch of %.0f and %s from there on\n",
                       first ? "cheaper" : "dearer", at,
                       first ? "dearer" : "cheaper");
        else
            out_format("%s at every batch that both have room for\n",
                       first ? "cheaper" : "dearer");
        if (x->m.n_experts != 0 && y->m.n_experts == 0) {
            reads = moe_plan_traffic_batch(x->p, (double) y->m.active);
            if (isinf(reads))
                out_text("    it reads fewer weights a step at any batch\n");
            else if (reads > 1.005)
                out_format("    it reads fewer weights a step below a batch "
                           "of %.2f\n", reads);
            else if (reads > 0.995)
                out_text("    it reads as many weights a step for one "
                         "sequence, more for several\n");
            else
                out_text("    it reads more weights a step at any batch\n");
        }
        if (m->priced && x->r.fits && y->r.fits) {
            double used = x->r.usd_output / y->r.usd_output;

            out_format("    break-even utilization: %s busy %.0f %% of the "
                       "hours costs as much a token\n      as %s busy all "
                       "of them\n", used < 1 ? x->m.name : y->m.name,
                       used < 1 ? 100 * used : 100 / used,
                       used < 1 ? y->m.name : x->m.name);
        }
    }
    for (i = 0; i < m->n && m->q->api_price > 0 && m->priced; i++) {
        double day = 24 * m->side[i].r.usd_hour / m->q->api_price * 1e6;
        double most = 86400 * m->side[i].r.served_tokens_s;

        if (!m->side[i].r.fits)
            continue;
        if (day <= most)
            out_format("  an API at $%.2f a million output tokens: %s is "
                       "cheaper\n    from %s tokens a day on, %.0f %% of "
                       "what it can serve\n", m->q->api_price,
                       m->side[i].m.name, whole_text(day, a), 100 * day / most);
        else
            out_format("  an API at $%.2f a million output tokens: %s never "
                       "pays;\n    it would have to serve %s tokens a day "
                       "and can serve %s\n", m->q->api_price,
                       m->side[i].m.name, whole_text(day, a),
                       whole_text(most, b));
    }
}

/* At the demand; of those that cost the same the one that could serve more. */
static int
cheaper(const struct match *m, const struct side *a, const struct side *b)
{
    double x = m->priced ? a->cost : a->s.devices;
    double y = m->priced ? b->cost : b->s.devices;

    if (fabs(x - y) > 1e-9 * y)
        return x < y;
    return a->r.served_tokens_s > b->r.served_tokens_s;
}

/* One paragraph that names its reasons. */
static void
print_advice(const struct match *m)
{
    const struct side *best = NULL, *fast = &m->side[0], *x = &m->side[0];
    double             used
        = m->q->setup.utilization > 0 ? m->q->setup.utilization : 1;
    char               a[32], b[32], d[32], text[2000];
    size_t             i, n = 0;

    for (i = 0; i < m->n; i++) {
        const struct side *y = &m->side[i];

        if (!y->r.fits)
            continue;
        if (best == NULL || cheaper(m, y, best))
            best = y;
        if (!fast->r.fits || y->r.step < fast->r.step)
            fast = y;
    }
    if (best == NULL) {
        out_text("\nAdvice: none of them fits; give more devices or a "
                 "smaller format.\n");
        return;
    }
#define SAY(...)                                                              \
    n += (size_t) snprintf(text + n, n < sizeof(text) ? sizeof(text) - n : 0, \
                           __VA_ARGS__)
    SAY("Advice: for %s sequence%s at once and %.0f %% of the hours used, "
        "that is %s output tokens a second on average, take %s",
        whole_text(m->q->setup.batch, a), m->q->setup.batch > 1 ? "s" : "",
        100 * used,
        whole_text(m->demand, b), best->m.name);
    if (m->priced)
        SAY(": %s a million output tokens with the prefills",
            usd_text(best->cost, d));
    SAY(". ");
    for (i = 0; i < m->n && n < sizeof(text); i++) {
        const struct side *y = &m->side[i];

        if (y == best)
            continue;
        if (!y->r.fits)
            SAY("%s does not fit. ", y->m.name);
        else if (y->s.devices == best->s.devices)
            SAY("%s costs the same at this load, on as many devices, but "
                "they could serve %.1f times as much with %s. ", y->m.name,
                best->r.served_tokens_s / y->r.served_tokens_s, best->m.name);
        else if (m->priced)
            SAY("%s costs %.1f times that, because it occupies %u device%s "
                "against %u at every load. ", y->m.name, y->cost / best->cost,
                y->s.devices, y->s.devices > 1 ? "s" : "", best->s.devices);
        else
            SAY("%s occupies %u device%s against %u at every load. ",
                y->m.name, y->s.devices, y->s.devices > 1 ? "s" : "",
                best->s.devices);
    }
    if (n < sizeof(text))
        SAY("The shortest wait for each token is %s's, %s: ", fast->m.name,
            time_text(fast->r.step, a));
    if (n < sizeof(text) && fast->m.n_experts != 0)
        SAY("a step reads %.0f of %u experts a layer. ", fast->r.distinct,
            fast->m.n_experts);
    else if (n < sizeof(text))
        SAY("it reads the fewest bytes on each device. ");
    if (n < sizeof(text) && x->m.n_experts != 0 && used < 0.3)
        SAY("At low use idle memory is what costs: %.0f %% of what is paid.",
            100 * (1 - used));
    else if (n < sizeof(text) && x->m.n_experts != 0)
        SAY("What an MoE model saves in arithmetic pays once its batch is "
            "large (here from about %s).",
            whole_text(x->r.critical_batch, a));
    if (n < sizeof(text))
        SAY(" How good their answers are is not compared: a smaller model "
            "is the cheaper one as long as it is good enough.");
#undef SAY
    out_text("\n");
    out_flush();
    print_wrapped(stdout, text, 0, 0, 78);
}

static void
print_json(const struct match *m)
{
    size_t i;

    out_format("{\"schema_version\":%d", SCHEMA_VERSION);
    json_text("device", m->q->device.name, 0);
    json_number("demand_tokens_per_s", m->demand, 0);
    out_text(",\"models\":[");
    for (i = 0; i < m->n; i++) {
        const struct side *x = &m->side[i];
        int                first = 0;

        out_text(i > 0 ? ",{" : "{");
        json_text("name", x->m.name, 1);
        json_number("params_total", (double) x->m.total, 0);
        json_number("params_active", (double) x->m.active, 0);
        json_number("devices", x->s.devices, 0);
        json_number("usd_per_m_at_demand", m->priced ? x->cost : 0, 0);
        if (i > 0) {
            double at = crossing(&m->side[0], x, &first);

            json_number("break_even_batch", at < 0 ? NAN : at, 0);
            if (m->priced && x->r.fits && m->side[0].r.fits)
                json_number("token_price_ratio",
                            m->side[0].r.usd_output / x->r.usd_output, 0);
            if (m->side[0].m.n_experts != 0 && x->m.n_experts == 0)
                json_number("weight_traffic_batch",
                            moe_plan_traffic_batch(m->side[0].p,
                                                   (double) x->m.active), 0);
        }
        if (m->q->api_price > 0 && m->priced)
            json_number("api_break_even_tokens_per_day",
                        24 * x->r.usd_hour / m->q->api_price * 1e6, 0);
        out_text(",\"plan\":");
        json_result(&x->r);
        out_text("}");
    }
    out_text("]}\n");
}

int
plan_compare(const struct cli *c, struct question *q)
{
    struct match *m;
    int           status;

    if (!q->has_device) {
        say("--compare needs the kind of device: --hardware (--devices "
            "lists them)");
        return EXIT_USAGE;
    }
    m = calloc(1, sizeof(*m));
    if (m == NULL) {
        say("out of memory");
        return EXIT_RUN;
    }
    m->q = q;
    status = open_sides(c, m);
    if (status == EXIT_OK && m->n < 2) {
        say("--compare: a dense model has nothing to be compared with; give "
            "a second one");
        status = EXIT_USAGE;
    }
    if (status == EXIT_OK) {
        set_demand(m);
        if (cli_has(c, "--json")) {
            print_json(m);
        } else {
            out_format("%s, %.0f sequence%s at once, %.0f tokens in, %.0f "
                       "out; ", q->device.name, q->setup.batch,
                       q->setup.batch > 1 ? "s" : "", q->setup.input,
                       q->setup.output);
            if (q->has_count)
                out_format("each model on %u devices\n", q->setup.devices);
            else
                out_text("each model on the fewest devices that hold it\n");
            if (m->priced)
                out_format("at $%.2f an hour and device, %s%s\n",
                           q->setup.price > 0 ? q->setup.price
                                              : q->device.price,
                           q->setup.price > 0 ? "as given" : "seen in ",
                           q->setup.price > 0 ? "" : q->device.price_date);
            out_text("\n");
            print_table(m);
            print_by_batch(m);
            print_break_even(m);
            print_advice(m);
        }
    }
    match_free(m);
    free(m);
    return status;
}
