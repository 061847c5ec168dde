/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.c - which ways there are to lay a model out over devices.
 *
 * Owns what a setup may ask for and what divides what; what a layout holds
 * and takes is estimate.c's.
 */
#include "plan/layout.h"

#include <stdio.h>

static moe_status
out_of_range(const char *what, double v, const char *range,
             struct moe_error *err)
{
    return moe_fail(err, MOE_E_INVAL, 0, "%s: %g is out of range (%s)", what,
                    v, range);
}

/* The numbers up to 64 that divide n, "1 2 4". */
static void
divisors(uint64_t n, char *buf, size_t size)
{
    uint64_t i;
    size_t   at = 0;

    buf[0] = '\0';
    for (i = 1; i <= 64 && i <= n && at + 8 < size; i++)
        if (n % i == 0)
            at += (size_t) snprintf(buf + at, size - at, "%s%llu",
                                    at > 0 ? " " : "",
                                    (unsigned long long) i);
}

moe_status
moe_layout_check(const struct moe_plan_setup *s, struct moe_error *err)
{
    char good[160];

    if (s->device == NULL)
        return moe_fail(err, MOE_E_INVAL, 0, "a device is wanted");
    if (s->devices == 0 || s->devices > MOE_DEVICES_MAX)
        return out_of_range("devices", s->devices, "1..65536", err);
    if (!(s->batch >= 1 && s->batch <= 1e7))
        return out_of_range("concurrency", s->batch, "1..1e7", err);
    if (!(s->input >= 0 && s->input <= 1e9))
        return out_of_range("input", s->input, "0..1e9 tokens", err);
    if (!(s->output >= 0 && s->output <= 1e9))
        return out_of_range("output", s->output, "0..1e9 tokens", err);
    if (!(s->context >= 0 && s->context <= 1e9))
        return out_of_range("context", s->context, "0..1e9 tokens", err);
    if (!(s->utilization >= 0 && s->utilization <= 1))
        return out_of_range("utilization", s->utilization, "0..1", err);
    if (!(s->price >= 0 && s->price <= 1e6))
        return out_of_range("price", s->price, "0..1e6 USD an hour", err);
    if (!(s->kv_elem >= 0 && s->kv_elem <= 8))
        return out_of_range("cache element", s->kv_elem, "0..8 bytes", err);
    if (!(s->skew >= 0 && s->skew <= 20))
        return out_of_range("skew", s->skew, "0..20", err);
    if (!(s->imbalance == 0 || s->imbalance >= 1) || s->imbalance > 1e6)
        return out_of_range("imbalance", s->imbalance, "1..1e6", err);
    if (s->replicas > 1 && s->devices % s->replicas != 0) {
        divisors(s->devices, good, sizeof(good));
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%u devices cannot hold %u copies of equal size; "
                        "with: %s", s->devices, s->replicas, good);
    }
    return MOE_OK;
}

moe_status
moe_layout_make(const struct moe_sketch *m, const struct moe_plan_setup *s,
                const struct moe_layout *want, struct moe_layout *out,
                struct moe_error *err)
{
    struct moe_layout l = *want;
    char              good[160];

    if ((s->flags & MOE_PLAN_IDEAL) == 0 && s->devices > 1
        && s->device->link_rate <= 0)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: its file names no link to others; plan one of "
                        "it", s->device->name);
    if (l.pp == 0)
        l.pp = 1;
    if (l.pp > m->n_layers)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: %u layers are not %u stages", m->name,
                        m->n_layers, l.pp);
    if (s->devices % l.pp != 0) {
        divisors(s->devices, good, sizeof(good));
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%u devices are not %u stages of equal size; with: "
                        "%s", s->devices, l.pp, good);
    }
    l.G = s->devices / l.pp;
    if (l.tp == 0 || l.G % l.tp != 0) {
        divisors(l.G, good, sizeof(good));
        return moe_fail(err, MOE_E_INVAL, 0,
                        "tp %u does not divide the %u devices of a stage; "
                        "with: %s", l.tp, l.G, good);
    }
    if (m->heads % l.tp != 0) {
        divisors(m->heads, good, sizeof(good));
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: %u heads are not divided by tp %u; with: %s",
                        m->name, m->heads, l.tp, good);
    }
    if (m->n_experts == 0)
        l.ep = 1;
    if (l.ep == 0 || l.G % l.ep != 0) {
        divisors(l.G, good, sizeof(good));
        return moe_fail(err, MOE_E_INVAL, 0,
                        "ep %u does not divide the %u devices of a stage; "
                        "with: %s", l.ep, l.G, good);
    }
    if (m->n_experts != 0 && m->n_experts % l.ep != 0) {
        divisors(m->n_experts, good, sizeof(good));
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: %u experts are not divided by ep %u; with: %s",
                        m->name, m->n_experts, l.ep, good);
    }
    if (m->n_experts != 0 && m->expert_width % (l.G / l.ep) != 0) {
        divisors(m->expert_width, good, sizeof(good));
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: experts of width %u cannot be cut into %u; "
                        "into: %s", m->name, m->expert_width, l.G / l.ep,
                        good);
    }
    l.dp = l.G / l.tp;
    *out = l;
    return MOE_OK;
}

uint32_t
moe_layout_least(const struct moe_plan_setup *s)
{
    uint64_t a = s->tp > 0 ? s->tp : 1, b = s->ep > 0 ? s->ep : 1, n = a;

    while (n % b != 0)
        n += a;
    n *= s->pp > 0 ? s->pp : 1; /* below 2^48 */
    if (n > MOE_DEVICES_MAX)
        return 0;
    n *= s->replicas > 0 ? s->replicas : 1;
    return n <= MOE_DEVICES_MAX ? (uint32_t) n : 0;
}
