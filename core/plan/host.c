/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.c - a step's time on a machine whose operations were measured.
 *
 * A step is the sum of its operations, because a processor runs them one
 * after the other.  Owns that sum; the terms are bench/rates.c's, and none
 * of them has seen the model.  A weight's time is measured for a few counts
 * of rows and taken on straight lines between them; for small and for large
 * calls, whose line says what a call takes and what a weight takes; from the
 * caches and from memory, and between them as a plain reading of as many bytes
 * as come by before the weight is wanted again.
 */
#include "plan/host.h"

#include <math.h>

#include "bench/rates.h"

/* Rows beyond which an expert's share of a step is taken as even. */
#define EVEN_ROWS 2048

static const double rows_of[MOE_PLAN_ROWS] = { 1, 2, 4, 8, 16, 32, 128 };

static double
clamp(double v)
{
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

/* Seconds a weight that meets so many rows; whole rows or more than one. */
static double
at_rows(const double t[MOE_PLAN_ROWS], double rows)
{
    uint32_t i = 1;

    if (rows <= 1)
        return t[0];
    if (rows >= rows_of[MOE_PLAN_ROWS - 1])
        return t[MOE_PLAN_ROWS - 1] * rows / rows_of[MOE_PLAN_ROWS - 1];
    while (rows > rows_of[i])
        i++;
    return t[i - 1]
           + (t[i] - t[i - 1]) * (rows - rows_of[i - 1])
                 / (rows_of[i] - rows_of[i - 1]);
}

/* How far from the caches something is that is wanted again after so many
 * bytes: 0 within, 1 as from memory. */
static double
farness(const struct moe_plan_device *d, double bytes)
{
    const double *r = d->rates.read;
    double        at = log2(bytes / 1048576.0) / 2, s;
    uint32_t      i;

    if (at <= 1)
        return 0;
    if (at >= 4)
        return 1;
    i = (uint32_t) at;
    s = r[i] + (r[i + 1] - r[i]) * (at - i);
    return r[4] > r[1] ? clamp((s - r[1]) / (r[4] - r[1])) : 1;
}

static double
slowness(const struct moe_plan_rates *r, uint32_t what)
{
    return r->slow[what] > 0 ? r->slow[what] : 1;
}

/* Seconds a weight; what: 0 a product, 1 a feed-forward, a call of which
 * multiplies so many weights. */
static double
weight_time(const struct moe_plan_device *d, uint32_t what, double bits,
            double size, double far, double rows)
{
    const struct moe_plan_rates *r = &d->rates;
    const double *s = r->size[0], *l = r->size[1];
    uint32_t kind = moe_rates_kind(bits);
    double near = at_rows(r->weight[MOE_PLAN_NEAR_SMALL][what][kind], rows);
    double small = at_rows(r->weight[MOE_PLAN_FAR_SMALL][what][kind], rows);
    double large = at_rows(r->weight[MOE_PLAN_FAR_LARGE][what][kind], rows);
    double t, call, memory;

    /* from memory: through the calls' times, a call and a weight of it */
    t = (large * l[what] - small * s[what]) / (l[what] - s[what]);
    if (t <= 0 || t > large)
        t = large;
    call = (large - t) * l[what];
    t += call / size;
    t = near + far * (t - near);
    memory = far * bits / 8 / r->bandwidth;
    if (!(memory < t)) /* without a bandwidth too */
        memory = t;
    return memory * slowness(r, 0) + (t - memory) * slowness(r, 1);
}

int
moe_host_knows(const struct moe_sketch *m, const struct moe_formats *f,
               const struct moe_plan_device *d)
{
    uint32_t i;

    if (d->rates.kinds == 0)
        return 0;
    for (i = 0; i < m->n_m; i++)
        if (!m->m[i].vector && m->m[i].cls != MOE_PLAN_EMBED
            && (d->rates.kinds
                >> moe_rates_kind(f->of[m->m[i].cls]->bits) & 1) == 0)
            return 0;
    return m->tied == 0
           || (d->rates.kinds
               >> moe_rates_kind(f->of[MOE_PLAN_EMBED]->bits) & 1) != 0;
}

/* Weights of a class that are multiplied; *bytes: of them and of all else of
 * the class. */
static double
elements(const struct moe_sketch *m, const struct moe_formats *f,
         uint32_t cls, double *bytes)
{
    double   n = 0;
    uint32_t i;

    *bytes = 0;
    for (i = 0; i < m->n_m; i++) {
        const struct moe_matrix *x = &m->m[i];

        if (x->cls != cls)
            continue;
        *bytes += moe_format_bytes(f->of[cls], x);
        if (!x->vector)
            n += (double) x->n * (double) x->k * (double) x->count;
    }
    return n;
}

/* Seconds for all weights of the routed experts: an expert meets r rows with
 * the chance of r hits in `rows` draws of k out of E. */
static double
expert_time(const struct moe_sketch *m, const struct moe_plan_device *d,
            double bits, double total, double far, double rows)
{
    double p = (double) m->top_k / m->n_experts;
    double size = total / m->n_moe / m->n_experts
                  * moe_plan_distinct(m->n_experts, m->top_k, rows);
    double t = 0, chance;
    double r, most = floor(rows + 0.5);

    if (rows > EVEN_ROWS || p >= 1)
        return total * weight_time(d, 1, bits, size, far, rows * p);
    /* chances by their logarithm: they are tiny far from the mean */
    for (r = 1; r <= most; r++) {
        chance = exp(lgamma(most + 1) - lgamma(r + 1) - lgamma(most - r + 1)
                     + r * log(p) + (most - r) * log1p(-p));
        if (chance > 1e-9)
            t += chance * weight_time(d, 1, bits, size, far, r);
    }
    return total * t;
}

double
moe_host_time(const struct moe_sketch *m, const struct moe_formats *f,
              const struct moe_plan_device *d, const struct moe_host_step *s)
{
    const struct moe_plan_rates *r = &d->rates;
    double n[MOE_PLAN_CLASSES], bytes[MOE_PLAN_CLASSES], units, calls;
    double every = 0, all, far, t = 0, rest = r->step, head, left;
    double layers = m->n_layers;
    double share = 0;
    uint32_t c, i;

    for (c = 0; c < MOE_PLAN_CLASSES; c++)
        n[c] = elements(m, f, c, &bytes[c]);
    if (m->n_experts != 0)
        share = moe_plan_distinct(m->n_experts, m->top_k, s->rows)
                / m->n_experts;
    for (c = 0, all = 0; c < MOE_PLAN_CLASSES; c++) {
        if (c == MOE_PLAN_EMBED && !m->tied)
            continue;
        all += bytes[c];
        every += c == MOE_PLAN_EXPERTS ? bytes[c] * share : bytes[c];
    }
    far = farness(d, every);
    if (n[MOE_PLAN_ATTENTION] > 0)
        t += n[MOE_PLAN_ATTENTION]
             * weight_time(d, 0, f->of[MOE_PLAN_ATTENTION]->bits,
                           n[MOE_PLAN_ATTENTION] / layers / 2, far, s->rows);
    if (n[MOE_PLAN_ROUTER] > 0)
        t += n[MOE_PLAN_ROUTER]
             * weight_time(d, 0, f->of[MOE_PLAN_ROUTER]->bits,
                           n[MOE_PLAN_ROUTER] / m->n_moe, far, s->rows);
    for (c = MOE_PLAN_SHARED; c <= MOE_PLAN_DENSE; c++)
        if (n[c] > 0) {
            calls = c == MOE_PLAN_SHARED ? m->n_moe : layers - m->n_moe;
            t += n[c]
                 * weight_time(d, 1, f->of[c]->bits,
                               n[c] / (calls > 0 ? calls : 1), far, s->rows);
        }
    if (m->n_experts != 0)
        t += expert_time(m, d, f->of[MOE_PLAN_EXPERTS]->bits,
                         n[MOE_PLAN_EXPERTS], farness(d, all), s->rows);
    /* the head, as many rows at a time as the engine takes */
    c = m->tied ? MOE_PLAN_EMBED : MOE_PLAN_OUTPUT;
    for (left = s->logits; left > 0; left -= head) {
        head = r->head_rows > 0 && r->head_rows < left ? r->head_rows : left;
        t += n[c] * weight_time(d, 0, f->of[c]->bits, n[c], far, head);
    }
    for (i = 0; i < MOE_PLAN_SMALL_OPS; i++) {
        calls = i == MOE_PLAN_EMBEDDING || i == MOE_PLAN_PICK ? 1 : layers;
        units = layers * s->rows;
        switch (i) {
        case MOE_PLAN_EMBEDDING:
            units = s->rows * m->hidden;
            break;
        case MOE_PLAN_NORM:
            calls *= 2;
            units *= 2.0 * m->hidden;
            break;
        case MOE_PLAN_ROPE:
            units *= (double) m->heads * m->head_dim
                     + (double) m->kv_heads * (m->head_dim + m->v_dim);
            break;
        case MOE_PLAN_ROUTE:
        case MOE_PLAN_COMBINE:
            calls = m->n_moe;
            units = calls * s->rows
                    * m->top_k
                    * (i == MOE_PLAN_ROUTE ? m->n_experts : m->hidden);
            break;
        default:
            units = s->logits * m->vocab;
        }
        rest += calls * r->call[i] + units * r->unit[i];
    }
    i = s->alone ? 0 : 1;
    rest += s->rows * layers * m->heads * r->attend_row[i]
            + s->scores * r->attend_op[i];
    return t + rest * slowness(r, 1);
}
