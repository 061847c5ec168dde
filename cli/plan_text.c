/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_text.c - figures of a plan as words and as JSON.
 */
#include "plan.h"

#include <math.h>
#include <string.h>

const char *
bound_name(uint32_t bound)
{
    return bound == MOE_PLAN_BOUND_MEMORY    ? "memory"
           : bound == MOE_PLAN_BOUND_COMPUTE ? "arithmetic"
                                             : "links";
}

char *
gb_text(double bytes, char *buf)
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB" };
    size_t                   i = 0;

    while (bytes >= 999.5 && i + 1 < sizeof(units) / sizeof(units[0])) {
        bytes /= 1000;
        i++;
    }
    snprintf(buf, 32, "%.*f %s", i == 0 || bytes >= 99.95 ? 0
                                 : bytes >= 9.995        ? 1
                                                         : 2,
             bytes, units[i]);
    return buf;
}

char *
time_text(double s, char *buf)
{
    double      v = s;
    const char *unit = "s";

    if (s == 0) {
        snprintf(buf, 32, "0");
        return buf;
    }
    if (s < 1e-3) {
        v = s * 1e6;
        unit = "us";
    } else if (s < 1) {
        v = s * 1e3;
        unit = "ms";
    } else if (s >= 120) {
        v = s / 60;
        unit = "min";
    }
    snprintf(buf, 32, "%.*f %s", v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2, v, unit);
    return buf;
}

/* A whole number with commas; below ten a fraction. */
char *
whole_text(double v, char *buf)
{
    char   digits[32];
    size_t n, i, at = 0;

    if (!(fabs(v) < 1e18)) {
        snprintf(buf, 32, "endless");
        return buf;
    }
    if (v < 10 && v != floor(v)) {
        snprintf(buf, 32, "%.2f", v);
        return buf;
    }
    n = (size_t) snprintf(digits, sizeof(digits), "%.0f", v);
    for (i = 0; i < n && at < 30; i++) {
        buf[at++] = digits[i];
        if ((n - i) % 3 == 1 && i + 1 < n && digits[i] != '-')
            buf[at++] = ',';
    }
    buf[at] = '\0';
    return buf;
}

char *
usd_text(double v, char *buf)
{
    int digits = v >= 100 ? 0 : v >= 0.995 ? 2 : v >= 0.01 ? 3 : 4;

    snprintf(buf, 32, "$%.*f", digits, v);
    return buf;
}

void
json_number(const char *key, double v, int first)
{
    out_format("%s\"%s\":", first ? "" : ",", key);
    if (!isfinite(v))
        out_text("null");
    else if (v == floor(v) && fabs(v) < 1e15)
        out_format("%.0f", v);
    else
        out_number(v);
}

void
json_text(const char *key, const char *v, int first)
{
    out_format("%s\"%s\":", first ? "" : ",", key);
    out_json(v, strlen(v));
}

void
json_result(const struct moe_plan_result *r)
{
    out_format("{\"fits\":%s", r->fits ? "true" : "false");
    json_number("tp", r->tp, 0);
    json_number("ep", r->ep, 0);
    json_number("pp", r->pp, 0);
    json_number("dp", r->dp, 0);
    json_number("replicas", r->replicas, 0);
    out_text(",\"device_bytes\":{");
    json_number("experts", floor(r->experts), 1);
    json_number("rest", floor(r->rest), 0);
    json_number("kv", floor(r->kv), 0);
    json_number("activations", floor(r->activations), 0);
    json_number("needed", floor(r->needed), 0);
    json_number("limit", floor(r->limit), 0);
    out_text("}");
    json_number("weight_bytes", r->weights, 0);
    json_number("step_bytes", r->step_bytes, 0);
    json_number("step_flop", r->step_flop, 0);
    json_number("distinct_experts", r->distinct, 0);
    json_number("imbalance", r->imbalance, 0);
    json_number("layer_traffic_bytes", r->layer_traffic, 0);
    json_text("bound", bound_name(r->bound), 0);
    json_text("prefill_bound", bound_name(r->prefill_bound), 0);
    json_number("memory_s", r->t_memory, 0);
    json_number("arithmetic_s", r->t_compute, 0);
    json_number("links_s", r->t_link, 0);
    json_number("launch_s", r->t_launch, 0);
    json_number("tpot_s", r->step, 0);
    json_number("roofline_tpot_s", r->roofline_step, 0);
    json_number("ttft_s", r->ttft, 0);
    json_number("roofline_ttft_s", r->roofline_ttft, 0);
    json_number("tokens_per_s", r->tokens_s, 0);
    json_number("served_tokens_per_s", r->served_tokens_s, 0);
    json_number("prefill_tokens_per_s", r->prefill_tokens_s, 0);
    json_number("usd_per_m_input", r->usd_input, 0);
    json_number("usd_per_m_output", r->usd_output, 0);
    json_number("usd_per_hour", r->usd_hour, 0);
    json_number("usd_idle_per_hour", r->usd_idle, 0);
    json_number("max_concurrency", r->max_batch, 0);
    json_number("max_context", r->max_context, 0);
    json_number("critical_batch", r->critical_batch, 0);
    out_text("}");
}

void
say_cut(const struct moe_plan_model *m)
{
    char a[32];

    if (m->file_lacks != 0)
        say("warning: %s: the file is cut: it ends %s before its weights do; "
            "the whole is planned", m->name,
            gb_text((double) m->file_lacks, a));
}
