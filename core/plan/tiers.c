/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiers.c - a model that does not fit, its experts on several tiers.
 *
 * As the engine places them: what every token needs stays on the device, the
 * experts take what is left there, and those that find no room are in the
 * host's memory or, if it is too small, in the file.  No expert is taken to
 * be more popular than another, so a step finds the same part of its experts
 * on each tier as there is of all.
 */
#include <moe/plan.h>

#include "plan/shape.h"

#include <string.h>

#define HOST_USABLE 0.9 /* of the host's memory */

MOE_API moe_status
moe_plan_tiers(const moe_planner *p, const struct moe_plan_setup *s,
               const struct moe_plan_result *r, struct moe_plan_tiers *out,
               struct moe_error *err)
{
    const struct moe_plan_device *d = s->device;
    struct moe_plan_tiers         t = { .struct_size = sizeof(t) };
    double room, rest, host, used;

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
    rest = (r->experts - room) * s->devices;
    used = r->distinct / p->s.n_experts;
    t.device_share = room / r->experts;
    if (!d->is_host && d->host_rate > 0) {
        host = d->host_memory > 0 ? d->host_memory * HOST_USABLE : rest;
        t.host = rest < host ? rest : host;
        t.wait = t.host / s->devices * used / d->host_rate;
    }
    t.disk = rest - t.host;
    if (t.disk > 0 && d->disk_rate <= 0)
        return moe_fail(err, MOE_E_OVER_BUDGET, 0,
                        "%s: %.1f GB of experts are left for a disk; its "
                        "pace is not known ([host] disk_gbs)", d->name,
                        t.disk / 1e9);
    if (t.disk > 0)
        t.wait += t.disk * used / d->disk_rate;
    t.step = r->step + t.wait;
    if (out->struct_size != 0 && out->struct_size < t.struct_size)
        t.struct_size = out->struct_size;
    memcpy(out, &t, t.struct_size);
    return MOE_OK;
}
