/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiers.c - a model that does not fit, its experts on several tiers.
 *
 * As the engine places them: what every token needs stays on the device, the
 * experts take what is left there, and those that find no room are in the
 * host's memory or, if it is too small, in the file.  Of uniform routes a step
 * finds the same part of its experts on each tier as there is of all; of
 * skewed and recorded ones the most popular are taken to be on the device and
 * the least popular on the disk.  What the engine itself would find there,
 * which keeps those used most of late, is told beside.
 */
#include <moe/plan.h>

#include "plan/reuse.h"
#include "plan/shape.h"

#include <math.h>
#include <string.h>

#define HOST_USABLE 0.9 /* of the host's memory */
#define BATCH_MAX 1024 /* beyond it every expert is used anyway */

/* Where a step finds its experts, of which `near` and `far` parts have room on
 * the device and in the host. */
static moe_status
find(const moe_planner *p, const struct moe_plan_setup *s,
     const struct moe_plan_result *r, double near, double far,
     struct moe_reuse *out, struct moe_error *err)
{
    struct moe_plan_draw d = { .struct_size = sizeof(d), .trials = 1,
                               .ranks = 1, .seed = 1, .skew = s->skew,
                               .trace = s->trace,
                               .trace_rows = s->trace_rows,
                               .trace_step = s->trace_step };
    double batch = ceil(ceil(s->batch / r->replicas) / r->pp);
    double keys = (double) p->s.n_moe * p->s.n_experts;

    out->near = near;
    out->far = far;
    out->kept = near;
    if (s->skew <= 0 && s->trace == NULL)
        return MOE_OK;
    d.n_experts = p->s.n_experts;
    d.top_k = p->s.top_k;
    d.batch = batch < BATCH_MAX ? (uint32_t) batch : BATCH_MAX;
    near = floor(near * keys + 1e-6);
    far = floor((out->near + far) * keys + 1e-6) - near;
    return moe_reuse(&d, p->s.n_moe, (uint32_t) near, (uint32_t) far, out,
                     err);
}

MOE_API moe_status
moe_plan_tiers(const moe_planner *p, const struct moe_plan_setup *s,
               const struct moe_plan_result *r, struct moe_plan_tiers *out,
               struct moe_error *err)
{
    const struct moe_plan_device *d = s->device;
    struct moe_plan_tiers         t = { .struct_size = sizeof(t) };
    struct moe_reuse found;
    double           room, rest, host, all, used;
    moe_status       status;

    if (p->s.n_experts == 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "%s: no experts that could be elsewhere", p->s.name);
    room = r->limit - (r->needed - r->experts);
    if (room <= 0)
        return moe_fail(err, MOE_E_OVER_BUDGET, 0,
                        "%s: what every token needs does not fit alone",
                        p->s.name);
    if (room >= r->experts)
        room = r->experts;
    all = r->experts * s->devices;
    rest = all - room * s->devices;
    used = r->distinct / p->s.n_experts * all;
    t.device_share = room / r->experts;
    if (!d->is_host && d->host_rate > 0) {
        host = d->host_memory > 0 ? d->host_memory * HOST_USABLE : rest;
        t.host = rest < host ? rest : host;
    }
    t.disk = rest - t.host;
    if (t.disk > 0 && d->disk_rate <= 0)
        return moe_fail(err, MOE_E_OVER_BUDGET, 0,
                        "%s: %.1f GB of experts are left for a disk; its "
                        "pace is not known ([host] disk_gbs)", d->name,
                        t.disk / 1e9);
    status = find(p, s, r, t.device_share, t.host / all, &found, err);
    if (status != MOE_OK)
        return status;
    t.device_hits = found.near;
    t.kept_hits = found.kept;
    if (t.host > 0)
        t.wait = found.far * used / s->devices / d->host_rate;
    if (t.disk > 0)
        t.wait += (1 - found.near - found.far) * used / d->disk_rate;
    t.step = r->step + t.wait;
    if (out->struct_size != 0 && out->struct_size < t.struct_size)
        t.struct_size = out->struct_size;
    memcpy(out, &t, t.struct_size);
    return MOE_OK;
}
