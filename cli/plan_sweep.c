/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_sweep.c - a model over batches, formats and counts of devices.
 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

#define POINTS_MAX 100000u

static void
defaults(struct question *q, const struct moe_plan_model *m, int lines)
{
    static const double batches[] = { 1, 2, 4, 8, 16, 32, 64, 128, 256 };
    static const double counts[] = { 1, 2, 4, 8 };
    size_t              i;

    if (q->n_batches == 0) {
        if (q->has_load)
            q->batches[q->n_batches++] = q->setup.batch;
        for (i = 0; !q->has_load && i < sizeof(batches) / sizeof(batches[0]);
             i++)
            q->batches[q->n_batches++] = batches[i];
    }
    if (q->n_counts == 0) {
        if (q->has_count)
            q->counts[q->n_counts++] = q->setup.devices;
        for (i = 0; !q->has_count && i < sizeof(counts) / sizeof(counts[0])
                    && (i == 0 || q->device.link_rate > 0); i++)
            if (!lines || i % 2 == 0) /* too many lines cross each other */
                q->counts[q->n_counts++] = counts[i];
    }
    if (q->n_formats == 0) {
        if (q->setup.format != NULL) {
            q->formats[q->n_formats++] = q->setup.format;
        } else {
            q->formats[q->n_formats++] = m->format;
            if (strcmp(m->format, "fp8") != 0)
                q->formats[q->n_formats++] = "fp8";
            q->formats[q->n_formats++] = "int4";
        }
    }
}

static void
print_table(const struct grid *g)
{
    char   a[32], b[32], d[32], e[32], f[32];
    size_t i;

    out_format("%s on %s, context %.0f", g->model, g->q->device.name,
               g->context);
    if (g->q->setup.replicas > 1)
        out_format(", %u copies", g->q->setup.replicas);
    out_text("\n\n");
    out_text("  format                     devices  batch   fits   GB a "
             "device   each token   tokens/s   roofline   bound by     "
             "$/M output\n");
    for (i = 0; i < g->n; i++) {
        const struct point *x = &g->points[i];

        if (!x->good) {
            out_format("  %-26.26s %7u %6.0f   no such layout\n", x->format,
                       x->devices, x->batch);
            continue;
        }
        out_format("  %-26.26s %7u %6.0f   %-4s %13s %12s %10s %10s   %-10s "
                   "%12s\n", x->format, x->devices, x->batch,
                   x->r.fits ? "yes" : "no", gb_text(x->r.needed, a),
                   x->r.fits ? time_text(x->r.step, b) : "-",
                   x->r.fits ? whole_text(x->r.tokens_s, d) : "-",
                   whole_text(x->batch / x->r.roofline_step, f),
                   bound_name(x->r.bound),
                   x->r.fits && x->r.usd_hour > 0 ? usd_text(x->r.usd_output,
                                                             e)
                                                  : "-");
    }
}

static void
print_csv(const struct grid *g)
{
    size_t i;

    out_text("model,device,format,devices,batch,context,fits,tp,ep,pp,"
             "needed_bytes,limit_bytes,ttft_s,tpot_s,roofline_tpot_s,"
             "tokens_per_s,served_tokens_per_s,bound,distinct_experts,"
             "imbalance,usd_per_hour,usd_per_m_input,usd_per_m_output,"
             "replicas\n");
    for (i = 0; i < g->n; i++) {
        const struct point           *x = &g->points[i];
        const struct moe_plan_result *r = &x->r;

        if (!x->good)
            continue;
        /* a mixed format has commas */
        out_format("\"%s\",%s,\"%s\",%u,%.0f,%.0f,%u,%u,%u,%u,%.0f,%.0f,"
                   "%.6g,%.6g,%.6g,%.6g,%.6g,%s,%.6g,%.6g,%.6g,%.6g,%.6g,%u\n",
                   g->model, g->q->device.name, x->format, x->devices,
                   x->batch, g->context, r->fits, r->tp, r->ep, r->pp,
                   r->needed, r->limit, r->ttft, r->step, r->roofline_step,
                   r->tokens_s, r->served_tokens_s, bound_name(r->bound),
                   r->distinct, r->imbalance, r->usd_hour, r->usd_input,
                   r->usd_output, r->replicas);
    }
}

static void
print_json(const struct grid *g)
{
    size_t i;
    int    n = 0;

    out_format("{\"schema_version\":%d", SCHEMA_VERSION);
    json_text("model", g->model, 0);
    json_text("device", g->q->device.name, 0);
    json_number("context", g->context, 0);
    out_text(",\"points\":[");
    for (i = 0; i < g->n; i++) {
        if (!g->points[i].good)
            continue;
        out_text(n++ > 0 ? ",{" : "{");
        json_text("format", g->points[i].format, 1);
        json_number("devices", g->points[i].devices, 0);
        json_number("concurrency", g->points[i].batch, 0);
        out_text(",\"plan\":");
        json_result(&g->points[i].r);
        out_text("}");
    }
    out_text("]}\n");
}

static int
fill(const struct question *q, const moe_planner *p, struct point *points,
     size_t *n)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    uint64_t         bytes;
    size_t           f, c, b;

    *n = 0;
    for (f = 0; f < q->n_formats; f++) {
        if (moe_plan_weights(p, q->formats[f], &bytes, NULL, &err) != MOE_OK)
            return fail(&err);
        for (c = 0; c < q->n_counts; c++)
            for (b = 0; b < q->n_batches; b++) {
                struct point         *x = &points[(*n)++];
                struct moe_plan_setup s = q->setup;

                s.format = x->format = q->formats[f];
                s.devices = x->devices = (uint32_t) q->counts[c];
                s.batch = x->batch = q->batches[b];
                x->r.struct_size = sizeof(x->r);
                x->good = moe_plan_run(p, &s, &x->r, &err) == MOE_OK;
            }
    }
    for (f = 0; f < *n; f++)
        if (points[f].good)
            return EXIT_OK;
    return fail(&err);
}

int
plan_sweep(const struct cli *c, struct question *q)
{
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    struct point         *points;
    struct grid           g = { .q = q };
    moe_planner          *p;
    int                   status;

    if (!q->has_device) {
        say("--sweep needs the kind of device: --hardware (--devices lists "
            "them)");
        return EXIT_USAGE;
    }
    if (moe_plan_open(c->operands[0], &p, &err) != MOE_OK)
        return fail_name(&err);
    moe_plan_model(p, &m);
    say_cut(&m);
    defaults(q, &m, cli_has(c, "--chart")
                        || (cli_has(c, "--svg")
                            && strcmp(cli_value(c, "--svg"), "memory") != 0));
    if (q->n_batches * q->n_counts * q->n_formats > POINTS_MAX) {
        say("--sweep: more than %u points", POINTS_MAX);
        moe_plan_close(p);
        return EXIT_USAGE;
    }
    points = calloc(q->n_batches * q->n_counts * q->n_formats,
                    sizeof(*points));
    if (points == NULL) {
        say("out of memory");
        moe_plan_close(p);
        return EXIT_RUN;
    }
    g.model = m.name;
    g.points = points;
    g.context = q->setup.context > 0 ? q->setup.context
                                     : q->setup.input + q->setup.output;
    status = fill(q, p, points, &g.n);
    if (status != EXIT_OK)
        ;
    else if (cli_has(c, "--svg"))
        status = draw_svg(&g, cli_value(c, "--svg"), cli_has(c, "--dark"));
    else if (cli_has(c, "--json"))
        print_json(&g);
    else if (cli_has(c, "--csv"))
        print_csv(&g);
    else if (cli_has(c, "--chart"))
        draw_chart(&g);
    else
        print_table(&g);
    free(points);
    moe_plan_close(p);
    return status;
}
