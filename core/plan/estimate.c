/* SPDX-License-Identifier: Apache-2.0 */
/*
 * estimate.c - a deployment: bytes a device, seconds a step, dollars.
 *
 * N devices are pp stages of G = N / pp.  In a stage the attention of a
 * sequence is cut into tp parts, so that dp = G / tp groups hold different
 * sequences; the experts are dealt out to ep parts, each cut into G / ep.
 * So every device holds 1/G of a stage's experts and 1/tp of its rest.
 *
 * Copies of the model (data-parallel replicas) are such deployments side by
 * side, each with its part of the sequences: one is estimated, the fullest,
 * and what they do together is added up.
 *
 * Time of a pass over a layer's worth of tokens: the larger of bytes read
 * and arithmetic, on the fullest rank; then the exchanges; then a launch for
 * each layer.  A stage works on 1/pp of the batch, so a step of the whole
 * batch takes as long as that part needs through all stages.
 */
#include "plan/host.h"
#include "plan/layout.h"
#include "plan/shape.h"

#include <math.h>
#include <string.h>

#define USABLE        0.9    /* of a device's memory */
#define PREFILL_CHUNK 2048.0 /* tokens whose activations are held at once */

/* What does not depend on the deployment's size. */
struct sums {
    double rest, rest_read;  /* bytes: all but experts; without input table */
    double vectors;          /* of rest: not cut */
    double experts;          /* bytes */
    double rest_time;        /* seconds of a token on one device, at peak */
    double expert_time;      /* of its k experts, all layers */
    double pair_time;        /* of one pair of tokens in one layer */
    double rest_flop, expert_flop;
    double expert_width;     /* bytes a parameter of the experts */
    double rate;             /* FLOP/s that multiplies experts */
};

static double
rate_of(const struct moe_plan_device *d, const struct moe_store *f)
{
    double r = 0;

    if (f->rate == MOE_RATE_4)
        r = d->fp4;
    if (r <= 0 && (f->rate == MOE_RATE_4 || f->rate == MOE_RATE_8))
        r = f->rate == MOE_RATE_8 ? d->fp8 : 0;
    /* a processor's kernels for few bits multiply integers */
    if (r <= 0 && d->is_host && f->bits < 16)
        r = d->int8;
    if (r <= 0 && f->rate != MOE_RATE_32)
        r = d->bf16 > 0 ? d->bf16 : d->fp16;
    return r > 0 ? r : d->fp32 > 0 ? d->fp32 : d->bf16 > 0 ? d->bf16 : d->fp16;
}

static moe_status
sum_up(const moe_planner *p, const struct moe_plan_setup *s,
       struct moe_formats *f, struct sums *out, struct moe_error *err)
{
    const struct moe_sketch *m = &p->s;
    double                  big = 0;
    uint32_t                i;
    moe_status              status;

    memset(out, 0, sizeof(*out));
    status = moe_formats_of(m, s->format, f, err);
    if (status != MOE_OK)
        return status;
    for (i = 0; i < m->n_m; i++) {
        const struct moe_matrix *x = &m->m[i];
        double bytes = moe_format_bytes(f->of[x->cls], x), flop = 0;
        double rate = rate_of(s->device, f->of[x->cls]);

        if (!x->vector)
            flop = 2.0 * (double) x->n * (double) x->k * (double) x->used;
        if (x->cls == MOE_PLAN_EXPERTS) {
            out->experts += bytes;
            out->expert_flop += flop;
            out->expert_time += flop / rate;
            out->rate = rate;
            big += (double) x->n * (double) x->k * (double) x->count;
            continue;
        }
        out->rest += bytes;
        if (x->cls != MOE_PLAN_EMBED || m->tied)
            out->rest_read += bytes;
        if (x->vector)
            out->vectors += bytes;
        out->rest_flop += flop;
        out->rest_time += flop / rate;
        if (m->n_experts == 0 && x->cls == MOE_PLAN_DENSE) {
            out->rate = rate;
            out->expert_width = bytes / ((double) x->n * (double) x->k
                                         * (double) x->count);
        }
    }
    if (big > 0)
        out->expert_width = out->experts / big;
    out->pair_time = 1 / rate_of(s->device, f->of[MOE_PLAN_OUTPUT]);
    return MOE_OK;
}

/* Operations of the scores of one token at a context; of a prefill. */
static double
score_flop(const moe_planner *p, const struct sums *u, double context)
{
    return moe_plan_decode_flop(p, context) - u->rest_flop - u->expert_flop;
}

/* -------------------------------------------------------------- memory -- */

struct memory {
    double experts, rest, kv, activations;
};

/* Of one device.  context: tokens that each sequence may have. */
static double
memory_of(const moe_planner *p, const struct moe_plan_setup *s,
          const struct sums *u, const struct moe_layout *l, double batch,
          double context, struct memory *out)
{
    const struct moe_sketch *m = &p->s;
    double elem = s->kv_elem > 0 ? s->kv_elem : 2, rows, wide, each;
    double shards = m->kv_lora != 0     ? 1 /* every part needs the latent */
                    : l->tp < m->kv_heads ? l->tp
                                          : m->kv_heads;
    uint32_t i;

    out->experts = u->experts / l->G / l->pp;
    out->rest = ((u->rest - u->vectors) / l->tp + u->vectors) / l->pp;
    each = ceil(batch / l->dp);
    out->kv = each * moe_plan_kv_bytes(p, context, elem) / shards / l->pp;
    /* 16-bit rows of a prefill's chunk: residual, norm, q, k, v, attention,
     * and a feed-forward's gate and up or the pairs of an expert product */
    rows = s->input < PREFILL_CHUNK ? s->input : PREFILL_CHUNK;
    if (rows < each)
        rows = each;
    wide = m->n_experts != 0
               ? m->top_k * ((double) m->hidden
                             + 2.0 * m->expert_width / (l->G / l->ep))
               : 0;
    for (i = 0; i < m->n_layers; i++)
        if (2.0 * m->layers[i].ffn_width / l->tp > wide)
            wide = 2.0 * m->layers[i].ffn_width / l->tp;
    out->activations
        = rows * 2
              * (4.0 * m->hidden
                 + (double) m->heads * (m->head_dim + m->v_dim) / l->tp
                 + (double) m->kv_heads * (m->head_dim + m->v_dim) / l->tp
                 + wide)
          + each * m->vocab * 4.0 / l->tp;
    return out->experts + out->rest + out->kv + out->activations;
}

/* The largest whole v in [0, most] for which the deployment fits. */
static double
largest(const moe_planner *p, const struct moe_plan_setup *s,
        const struct sums *u, const struct moe_layout *l, int is_batch,
        double fixed, double most)
{
    struct memory m;
    double        lo = 0, hi = most;

    while (lo < hi) {
        double mid = floor((lo + hi + 1) / 2);
        double need = is_batch ? memory_of(p, s, u, l, mid, fixed, &m)
                               : memory_of(p, s, u, l, fixed, mid, &m);

        if (need <= s->device->memory * USABLE)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* ---------------------------------------------------------------- time -- */

struct pass {
    double memory, compute, link, launch, traffic, imbalance;
};

/*
 * One pass of `tokens` tokens through all layers on one stage's devices,
 * `groups` of the dp groups at work.  scores: operations of all their
 * attention; cache: bytes that their attention reads.  eff: of arithmetic;
 * variety: distinct experts over those of uniform routing.
 */
static double
pass_time(const moe_planner *p, const struct moe_plan_setup *s,
          const struct sums *u, const struct moe_layout *l, double tokens,
          double groups, double scores, double cache, double eff,
          double variety, struct pass *out)
{
    const struct moe_sketch       *m = &p->s;
    const struct moe_plan_device *d = s->device;
    double own = tokens / groups; /* of one group */
    double bytes, seconds, shards, share = 1, load = 0, reduce, remote;
    double moe_layers = m->n_moe, cut = l->G / l->ep;

    memset(out, 0, sizeof(*out));
    out->imbalance = 1;
    shards = m->kv_lora != 0     ? 1
             : l->tp < m->kv_heads ? l->tp
                                   : m->kv_heads;
    bytes = (u->rest_read - u->vectors) / l->tp + u->vectors
            + cache / groups / shards;
    seconds = (own * u->rest_time + scores / groups * u->pair_time) / l->tp;
    if (m->n_experts != 0) {
        double here = (double) m->n_experts / l->ep, busy;

        load = moe_plan_max_load(m->n_experts, m->top_k, tokens, l->ep);
        out->imbalance = load * l->ep / (tokens * m->top_k);
        if (s->imbalance > 0 && l->ep > 1) {
            load *= s->imbalance / out->imbalance;
            out->imbalance = s->imbalance;
        }
        /* experts with work on the fullest rank */
        if (l->ep == 1)
            busy = variety
                   * moe_plan_distinct(m->n_experts, m->top_k, tokens);
        else if (here <= 1)
            busy = load < 1 ? load : 1;
        else
            busy = here * -expm1(load * log1p(-1 / here));
        share = busy / m->n_experts;
        bytes += u->experts * share / cut;
        seconds += u->expert_time * load / m->top_k / cut;
    }
    out->memory = bytes / (d->bandwidth * d->eff_memory);
    out->compute = seconds / eff;
    out->launch = d->launch * m->n_layers;
    if (l->G > 1) {
        double link = d->link_rate * d->eff_link, attention = 0, ffn;

        /* ring all-reduce of a group's rows, 16 bits */
        reduce = 4.0 * m->hidden;
        if (l->tp > 1)
            attention = reduce * own * (l->tp - 1) / l->tp;
        if (m->n_experts != 0 && l->ep > 1) {
            /* each device sends its part of the tokens out and back */
            remote = moe_plan_remote_ranks(m->n_experts, m->top_k, l->ep);
            ffn = tokens / l->G * m->hidden * 4.0 * remote
                  + (cut > 1 ? reduce * tokens / l->ep * (cut - 1) / cut : 0);
        } else {
            ffn = reduce * tokens * (l->G - 1) / l->G;
        }
        out->traffic = attention + ffn;
        out->link = moe_layers * (attention + ffn) / link
                    + (m->n_layers - moe_layers)
                          * (attention + (l->tp > 1 ? reduce * own
                                                          * (l->tp - 1) / l->tp
                                                    : 0)) / link
                    + 2.0 * m->n_layers * d->latency;
        if (m->n_experts == 0)
            out->traffic = 2 * attention;
    }
    if (l->pp > 1)
        out->link += (l->pp - 1)
                     * (own * m->hidden * 2.0 / (d->link_rate * d->eff_link)
                        + d->latency);
    return (out->memory > out->compute ? out->memory : out->compute)
           + out->link + out->launch;
}

static uint32_t
bound_of(const struct pass *t)
{
    if (t->link > t->memory && t->link > t->compute)
        return MOE_PLAN_BOUND_LINK;
    return t->compute > t->memory ? MOE_PLAN_BOUND_COMPUTE
                                  : MOE_PLAN_BOUND_MEMORY;
}

/* ----------------------------------------------------- measured machine -- */

/* Operations of the scores of tokens first..first+n of a sequence. */
static double
chunk_scores(const moe_planner *p, const struct sums *u, double first,
             double n)
{
    double linear = u->rest_flop + u->expert_flop;

    return moe_plan_prefill_flop(p, first + n, 1)
           - (first > 0 ? moe_plan_prefill_flop(p, first, 1) : 0)
           - n * linear;
}

/* Prompts of s->input tokens, `prompts` of them, in steps of at most
 * step_rows rows. */
static double
host_prefill(const moe_planner *p, const struct moe_plan_setup *s,
             const struct sums *u, const struct moe_formats *f,
             double prompts)
{
    double rows = s->device->rates.step_rows, total = s->input * prompts;
    double scores = chunk_scores(p, u, 0, s->input) * prompts, t = 0;
    double steps, each;
    struct moe_host_step step = { 0, 0, 0, 0 };

    if (rows < 1 || rows > total)
        rows = total;
    steps = ceil(total / rows);
    for (each = 0; each < 2; each++) {
        /* the full steps, then the one with what is left */
        double n = each == 0 ? steps - 1 : 1;

        step.rows = each == 0 ? rows : total - rows * (steps - 1);
        step.logits = prompts / steps;
        step.scores = scores * step.rows / total;
        step.alone = s->input < 2;
        t += n * moe_host_time(&p->s, f, s->device, &step);
    }
    return t;
}

/* The times of a machine whose operations were measured, in place of those
 * of its ceilings. */
static void
host_times(const moe_planner *p, const struct moe_plan_setup *s,
           const struct sums *u, const struct moe_formats *f, double context,
           struct moe_plan_result *r)
{
    struct moe_host_step step = { s->batch, s->batch,
                                  s->batch * score_flop(p, u, context), 1 };

    r->step = moe_host_time(&p->s, f, s->device, &step);
    r->t_launch = 0;
    if (s->input > 0) {
        r->ttft = host_prefill(p, s, u, f, 1);
        r->prefill_tokens_s
            = s->batch * s->input / host_prefill(p, s, u, f, s->batch);
    }
}

/* The bare roofline: all devices as one, at their peaks. */
static void
roofline(const moe_planner *p, const struct moe_plan_setup *s,
         const struct sums *u, double context, double elem, double variety,
         struct moe_plan_result *r)
{
    const struct moe_sketch *m = &p->s;
    double n = s->devices, memory, compute, read = 0;

    if (m->n_experts != 0) {
        r->distinct = variety
                      * moe_plan_distinct(m->n_experts, m->top_k, s->batch);
        read = u->experts * r->distinct / m->n_experts;
    }
    r->step_bytes = u->rest_read + read
                    + s->batch * moe_plan_kv_bytes(p, context, elem);
    r->step_flop = s->batch * moe_plan_decode_flop(p, context);
    memory = r->step_bytes / (n * s->device->bandwidth);
    compute = s->batch
              * (u->rest_time + u->expert_time
                 + score_flop(p, u, context) * u->pair_time) / n;
    r->roofline_step = memory > compute ? memory : compute;
    if (s->flags & MOE_PLAN_IDEAL) {
        r->t_memory = memory;
        r->t_compute = compute;
        r->step = r->roofline_step;
        r->bound = compute > memory ? MOE_PLAN_BOUND_COMPUTE
                                    : MOE_PLAN_BOUND_MEMORY;
    }
    if (s->input > 0) {
        double flop = moe_plan_prefill_flop(p, s->input, 0);
        double linear = s->input * (u->rest_flop + u->expert_flop);
        double head = 2.0 * m->vocab * m->hidden * (s->input - 1);

        compute = (s->input * (u->rest_time + u->expert_time)
                   - head * u->pair_time
                   + (flop - linear + head) * u->pair_time) / n;
        read = m->n_experts != 0
                   ? u->experts
                         * moe_plan_distinct(m->n_experts, m->top_k, s->input)
                         / m->n_experts
                   : 0;
        memory = (u->rest_read + read) / (n * s->device->bandwidth);
        r->roofline_ttft = memory > compute ? memory : compute;
        r->prefill_bound = compute > memory ? MOE_PLAN_BOUND_COMPUTE
                                            : MOE_PLAN_BOUND_MEMORY;
    }
    r->critical_batch = u->rate / s->device->bandwidth * u->expert_width / 2
                        * (m->n_experts != 0
                               ? (double) m->n_experts / m->top_k
                               : 1);
}

/* ------------------------------------------------------------ together -- */

MOE_API double
moe_plan_usd(double devices, double price, double tokens_s,
             double utilization)
{
    return devices * price * 1e6 / (3600 * tokens_s * utilization);
}

static void
money(const struct moe_plan_setup *s, struct moe_plan_result *r)
{
    double used = s->utilization > 0 ? s->utilization : 1;
    double price = s->price > 0 ? s->price : s->device->price;

    r->usd_hour = price * s->devices;
    r->usd_idle = r->usd_hour * (1 - used);
    if (r->prefill_tokens_s > 0)
        r->usd_input = moe_plan_usd(s->devices, price, r->prefill_tokens_s,
                                    used);
    if (r->tokens_s > 0)
        r->usd_output = moe_plan_usd(s->devices, price, r->tokens_s, used);
}

static void
estimate(const moe_planner *p, const struct moe_plan_setup *s,
         const struct sums *u, const struct moe_formats *f,
         const struct moe_layout *l, double variety,
         struct moe_plan_result *r)
{
    const struct moe_sketch *m = &p->s;
    double elem = s->kv_elem > 0 ? s->kv_elem : 2;
    double context = s->context > 0 ? s->context : s->input + s->output;
    double batch = ceil(s->batch / l->pp), one;
    struct memory mem;
    struct pass   t;

    memset(r, 0, sizeof(*r));
    r->struct_size = sizeof(*r);
    r->tp = l->tp;
    r->ep = l->ep;
    r->pp = l->pp;
    r->dp = l->dp;
    r->weights = u->rest + u->experts;
    r->limit = s->device->memory * USABLE;
    r->needed = memory_of(p, s, u, l, s->batch, context, &mem);
    r->experts = mem.experts;
    r->rest = mem.rest;
    r->kv = mem.kv;
    r->activations = mem.activations;
    r->fits = r->needed <= r->limit;
    r->max_batch = largest(p, s, u, l, 1, context, 1e6);
    r->max_context = largest(p, s, u, l, 0, s->batch, m->max_context);
    roofline(p, s, u, context, elem, variety, r);
    if (s->flags & MOE_PLAN_IDEAL) {
        r->ttft = r->roofline_ttft;
        r->imbalance = 1;
        r->prefill_tokens_s = r->ttft > 0 ? s->input / r->ttft : 0;
    } else {
        double groups = batch < l->dp ? batch : l->dp;

        r->step = pass_time(p, s, u, l, batch, groups,
                            batch * score_flop(p, u, context),
                            batch * moe_plan_kv_bytes(p, context, elem),
                            s->device->eff_decode, variety, &t);
        r->t_memory = t.memory;
        r->t_compute = t.compute;
        r->t_link = t.link;
        r->t_launch = t.launch;
        r->imbalance = t.imbalance;
        r->layer_traffic = t.traffic;
        r->bound = bound_of(&t);
    }
    if (s->input > 0 && (s->flags & MOE_PLAN_IDEAL) == 0) {
        double linear = s->input * (u->rest_flop + u->expert_flop);
        double scores = moe_plan_prefill_flop(p, s->input, 1) - linear;

        r->ttft = pass_time(p, s, u, l, s->input, 1, scores, 0,
                            s->device->eff_prefill, 1, &t);
        r->prefill_bound = bound_of(&t);
        one = pass_time(p, s, u, l, s->input * l->dp, l->dp, scores * l->dp,
                        0, s->device->eff_prefill, 1, &t);
        r->prefill_tokens_s = s->input * l->dp * l->pp / one;
    }
    if ((s->flags & MOE_PLAN_IDEAL) == 0 && s->devices == 1
        && moe_host_knows(m, f, s->device))
        host_times(p, s, u, f, context, r);
    r->tokens_s = s->batch / r->step;
    if (s->output > 0)
        r->served_tokens_s
            = s->batch * s->output
              / ((r->prefill_tokens_s > 0
                      ? s->batch * s->input / r->prefill_tokens_s
                      : 0)
                 + s->output * r->step);
    money(s, r);
}

/* What routes that are not uniform change: the fullest rank over the mean (0:
 * one rank), and distinct experts over those of uniform ones. */
struct routes {
    double imbalance, variety;
};

/* Drawn, with a seed of its own so that the same question has the same
 * answer. */
static moe_status
draw_routes(const moe_planner *p, const struct moe_layout *l,
            const struct moe_plan_setup *s, struct routes *out,
            struct moe_error *err)
{
    struct moe_plan_draw   d = { .struct_size = sizeof(d), .trials = 64,
                                 .seed = 1, .skew = s->skew,
                                 .trace = s->trace,
                                 .trace_rows = s->trace_rows,
                                 .trace_step = s->trace_step };
    struct moe_plan_spread x;
    double                 batch = ceil(s->batch / l->pp);
    moe_status             status;

    d.n_experts = p->s.n_experts;
    d.top_k = p->s.top_k;
    d.ranks = l->ep;
    d.batch = batch < 1024 ? (uint32_t) batch : 1024; /* it no longer falls */
    status = moe_plan_simulate(&d, &x, err);
    if (status != MOE_OK)
        return status;
    if (l->ep > 1)
        out->imbalance = x.max_rank * l->ep / ((double) d.batch * d.top_k);
    out->variety = x.distinct
                   / moe_plan_distinct(d.n_experts, d.top_k, d.batch);
    return MOE_OK;
}

/* 1 if a is the better of two layouts. */
static int
better(const struct moe_plan_result *a, const struct moe_plan_result *b)
{
    if (a->fits != b->fits)
        return a->fits > b->fits;
    if (!a->fits)
        return a->needed < b->needed;
    return a->step < b->step;
}

/* What `copies` of a deployment do together, of which r is the fullest. */
static void
add_copies(const struct moe_plan_setup *s, const struct moe_plan_setup *one,
           uint32_t copies, struct moe_plan_result *r)
{
    double busy = s->batch < copies ? s->batch : copies;
    double share = s->batch / one->batch; /* of the fullest one's sequences */

    r->replicas = copies;
    r->weights *= copies;
    r->step_bytes *= busy;
    r->step_flop *= share;
    r->tokens_s *= share;
    r->served_tokens_s *= share;
    r->prefill_tokens_s *= copies;
    r->max_batch *= copies;
    r->critical_batch *= copies;
    money(s, r);
}

MOE_API moe_status
moe_plan_run(const moe_planner *p, const struct moe_plan_setup *s,
             struct moe_plan_result *out, struct moe_error *err)
{
    struct moe_plan_result r, best = { 0 };
    struct moe_plan_setup  one = *s, with;
    struct moe_layout      l, want;
    struct moe_formats     f;
    struct sums            u;
    struct moe_error       first = { .struct_size = sizeof(first) };
    uint32_t               G, tries[2][2], n_tp = 1, n_ep = 1, i, j, have = 0;
    uint32_t               copies = s->replicas > 0 ? s->replicas : 1;
    struct routes          drawn[2] = { { 0, 0 }, { 0, 0 } }; /* by ep */
    moe_status             status;

    status = moe_layout_check(s, err);
    if (status == MOE_OK)
        status = sum_up(p, s, &f, &u, err);
    if (status != MOE_OK)
        return status;
    one.devices = s->devices / copies;
    one.batch = ceil(s->batch / copies);
    want.pp = s->pp > 0 ? s->pp : 1;
    G = one.devices / want.pp;
    tries[0][0] = s->tp > 0 ? s->tp : G;
    tries[1][0] = s->ep > 0 ? s->ep : 1;
    if (s->tp == 0 && G > 1 && p->s.n_experts != 0)
        tries[0][n_tp++] = 1;
    if (s->ep == 0 && G > 1 && p->s.n_experts != 0)
        tries[1][n_ep++] = G;
    for (i = 0; i < n_tp; i++)
        for (j = 0; j < n_ep; j++) {
            want.tp = tries[0][i];
            want.ep = tries[1][j];
            status = moe_layout_make(&p->s, &one, &want, &l,
                                     first.status == MOE_OK ? &first : NULL);
            if (status != MOE_OK)
                continue;
            with = one;
            if ((s->skew > 0 || s->trace != NULL) && p->s.n_experts != 0
                && drawn[j].variety == 0) {
                status = draw_routes(p, &l, &one, &drawn[j], err);
                if (status != MOE_OK)
                    return status;
            }
            if (with.imbalance == 0)
                with.imbalance = drawn[j].imbalance;
            estimate(p, &with, &u, &f, &l,
                     drawn[j].variety > 0 ? drawn[j].variety : 1, &r);
            if (!have || better(&r, &best))
                best = r;
            have = 1;
        }
    if (!have)
        return moe_fail(err, first.status, 0, "%s", first.text);
    add_copies(s, &one, copies, &best);
    if (out->struct_size != 0 && out->struct_size < best.struct_size)
        best.struct_size = out->struct_size;
    memcpy(out, &best, best.struct_size);
    return MOE_OK;
}

MOE_API uint32_t
moe_plan_devices(const moe_planner *p, const struct moe_plan_setup *s,
                 uint32_t most)
{
    struct moe_plan_setup  try = *s;
    struct moe_plan_result r = { .struct_size = sizeof(r) };

    try.devices = moe_layout_least(s);
    for (; try.devices > 0 && try.devices <= most; try.devices *= 2)
        if (moe_plan_run(p, &try, &r, NULL) == MOE_OK && r.fits)
            return try.devices;
    return 0;
}

MOE_API double
moe_plan_traffic_batch(const moe_planner *p, double dense)
{
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    double                x, rest;

    (void) moe_plan_model(p, &m);
    if (m.n_experts == 0)
        return 0;
    rest = (double) (m.total - m.params[MOE_PLAN_EXPERTS]);
    if (!p->s.tied)
        rest -= (double) m.params[MOE_PLAN_EMBED];
    x = (dense - rest) / (double) m.params[MOE_PLAN_EXPERTS];
    if (x >= 1)
        return INFINITY;
    if (x <= 0)
        return 0;
    return log1p(-x) / log1p(-(double) m.top_k / m.n_experts);
}
