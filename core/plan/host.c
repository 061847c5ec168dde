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
/* Rows with which a weight's arithmetic takes longer than its way. */
#define MANY_ROWS 32.0

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
    if (rows >= moe_rates_rows[MOE_PLAN_ROWS - 1])
        return t[MOE_PLAN_ROWS - 1] * rows / moe_rates_rows[MOE_PLAN_ROWS - 1];
    while (rows > moe_rates_rows[i])
        i++;
    return t[i - 1]
           + (t[i] - t[i - 1]) * (rows - moe_rates_rows[i - 1])
                 / (moe_rates_rows[i] - moe_rates_rows[i - 1]);
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

/* Seconds a weight on the machine as it was measured; what: 0 a product, 1 a
 * feed-forward, a call of which multiplies so many weights. */
static double
weight_then(const struct moe_plan_rates *r, uint32_t what, uint32_t kind,
            double size, double far, double rows)
{
    const double *s = r->size[0], *l = r->size[1];
    double near = at_rows(r->weight[MOE_PLAN_NEAR_SMALL][what][kind], rows);
    double small = at_rows(r->weight[MOE_PLAN_FAR_SMALL][what][kind], rows);
    double large = at_rows(r->weight[MOE_PLAN_FAR_LARGE][what][kind], rows);
    double t, call;

    /* from memory: through the calls' times, a call and a weight of it */
    t = (large * l[what] - small * s[what]) / (l[what] - s[what]);
    if (t <= 0 || t > large)
        t = large;
    call = (large - t) * l[what];
    t += call / size;
    return near + far * (t - near);
}

/* The same now.  What a weight takes beyond its arithmetic is waiting for it,
 * and that is no longer than reading it; with many rows nothing waits. */
static double
weight_time(const struct moe_plan_device *d, uint32_t what, double bits,
            double size, double far, double rows)
{
    const struct moe_plan_rates *r = &d->rates;
    uint32_t kind = moe_rates_kind(bits);
    double   t = weight_then(r, what, kind, size, far, rows);
    double   wait = t - weight_then(r, what, kind, size, far, MANY_ROWS)
                            * rows / MANY_ROWS;
    double   memory = far * bits / 8 / r->bandwidth;

    if (!(memory < wait)) /* without a bandwidth too */
        memory = wait;
    if (memory < 0)
        memory = 0;
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

/* A step's model and its machine, and what follows of them. */
struct sum {
    const struct moe_sketch      *m;
    const struct moe_formats     *f;
    const struct moe_plan_device *d;
    double n[MOE_PLAN_CLASSES]; /* weights that are multiplied */
    double far;                 /* of what each step uses */
    double far_experts;
};

/* Seconds of the routed experts of so many layers: an expert meets r rows with
 * the chance of r hits in `rows` draws of k out of E. */
static double
expert_time(const struct sum *u, double layers, double rows)
{
    const struct moe_sketch *m = u->m;
    double bits = u->f->of[MOE_PLAN_EXPERTS]->bits;
    double p = (double) m->top_k / m->n_experts;
    double layer = u->n[MOE_PLAN_EXPERTS] / m->n_moe;
    double size = layer / m->n_experts
                  * moe_plan_distinct(m->n_experts, m->top_k, rows);
    double t = 0, chance;
    double r, most = floor(rows + 0.5);

    if (rows > EVEN_ROWS || p >= 1)
        return layers * layer
               * weight_time(u->d, 1, bits, size, u->far_experts, rows * p);
    /* chances by their logarithm: they are tiny far from the mean */
    for (r = 1; r <= most; r++) {
        chance = exp(lgamma(most + 1) - lgamma(r + 1) - lgamma(most - r + 1)
                     + r * log(p) + (most - r) * log1p(-p));
        if (chance > 1e-9)
            t += chance
                 * weight_time(u->d, 1, bits, size, u->far_experts, r);
    }
    return layers * layer * t;
}

/* Seconds of a product, or a feed-forward, that a class has in `of` layers:
 * in `layers` of them, in so many calls each. */
static double
class_time(const struct sum *u, uint32_t what, uint32_t cls, double of,
           double layers, double calls, double rows)
{
    double one;

    if (!(u->n[cls] > 0) || !(layers > 0))
        return 0;
    one = u->n[cls] / of;
    return layers * one
           * weight_time(u->d, what, u->f->of[cls]->bits, one / calls, u->far,
                         rows);
}

static double
small_time(const struct sum *u, uint32_t op, double calls, double units)
{
    const struct moe_plan_rates *r = &u->d->rates;

    return (calls * r->call[op] + calls * units * r->unit[op])
           * slowness(r, 1);
}

/* Seconds of what follows the attention in layers with experts and in layers
 * without. */
static double
feed_time(const struct sum *u, double moe, double dense, double rows)
{
    const struct moe_sketch *m = u->m;
    double t = small_time(u, MOE_PLAN_NORM, moe + dense, rows * m->hidden)
               + class_time(u, 1, MOE_PLAN_DENSE, m->n_layers - m->n_moe,
                            dense, 1, rows);

    if (moe <= 0)
        return t;
    return t + class_time(u, 0, MOE_PLAN_ROUTER, m->n_moe, moe, 1, rows)
           + class_time(u, 1, MOE_PLAN_SHARED, m->n_moe, moe, 1, rows)
           + expert_time(u, moe, rows)
           + small_time(u, MOE_PLAN_ROUTE, moe,
                        rows * (m->top_k + m->n_experts))
           + small_time(u, MOE_PLAN_COMBINE, moe, rows * m->top_k * m->hidden);
}

/* Seconds of the head for so many rows, as many at a time as the engine
 * takes. */
static double
head_time(const struct sum *u, double rows)
{
    const struct moe_sketch *m = u->m;
    uint32_t cls = m->tied ? MOE_PLAN_EMBED : MOE_PLAN_OUTPUT;
    double   most = u->d->rates.head_rows, t, some;

    t = small_time(u, MOE_PLAN_NORM, 1, rows * m->hidden);
    for (; rows > 0; rows -= some) {
        some = most > 0 && most < rows ? most : rows;
        t += class_time(u, 0, cls, 1, 1, 1, some);
    }
    return t;
}

/* How far away the weights of a step are. */
static void
find_far(struct sum *u, double rows)
{
    const struct moe_sketch *m = u->m;
    double   bytes, every = 0, all = 0, share = 0;
    uint32_t c;

    if (m->n_experts != 0)
        share = moe_plan_distinct(m->n_experts, m->top_k, rows)
                / m->n_experts;
    for (c = 0; c < MOE_PLAN_CLASSES; c++) {
        u->n[c] = elements(m, u->f, c, &bytes);
        if (c == MOE_PLAN_EMBED && !m->tied)
            continue;
        all += bytes;
        every += c == MOE_PLAN_EXPERTS ? bytes * share : bytes;
    }
    u->far = farness(u->d, every);
    u->far_experts = farness(u->d, all);
}

double
moe_host_time(const struct moe_sketch *m, const struct moe_formats *f,
              const struct moe_plan_device *d, const struct moe_host_step *s)
{
    const struct moe_plan_rates *r = &d->rates;
    struct sum u = { .m = m, .f = f, .d = d };
    double layers = m->n_layers, rows = s->rows, moe = m->n_moe, t;
    /* a part of the steps alike has logits, of one row then */
    double share = s->logits < 1 ? s->logits : 1;
    double logits = s->logits < 1 ? 1 : s->logits;
    int    last_moe = m->layers[m->n_layers - 1].ffn == MOE_FFN_MOE;
    uint32_t of_one = s->alone ? 0 : 1;

    find_far(&u, rows);
    t = class_time(&u, 0, MOE_PLAN_ATTENTION, layers, layers, 2, rows)
        + small_time(&u, MOE_PLAN_NORM, layers, rows * m->hidden)
        + small_time(&u, MOE_PLAN_ROPE, layers,
                     rows * ((double) m->heads * m->head_dim
                             + (double) m->kv_heads
                                   * (m->head_dim + m->v_dim)))
        + small_time(&u, MOE_PLAN_EMBEDDING, 1, rows * m->hidden);
    t += (r->step + rows * layers * m->heads * r->attend_row[of_one]
          + s->scores * r->attend_op[of_one]) * slowness(r, 1);
    /* behind the last attention only those rows go on */
    t += feed_time(&u, moe - last_moe, layers - moe - !last_moe, rows)
         + share * feed_time(&u, last_moe, !last_moe, logits);
    return t + share * (head_time(&u, logits)
                        + small_time(&u, MOE_PLAN_PICK, 1, logits * m->vocab));
}
