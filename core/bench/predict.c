/* SPDX-License-Identifier: Apache-2.0 */
/*
 * predict.c - what the planner says of a test before it runs.
 *
 * Owns the way from an open engine to the planner's question: the model by
 * its config.json, the formats that the weights are computed in, this
 * machine by what its operations take.  The answer is moe_plan_run's.
 */
#include "bench/predict.h"

#include <stdlib.h>
#include <string.h>

#include "bench/rates.h"
#include "engine/engine.h"
#include "plan/shape.h"

struct moe_prediction {
    struct moe_planner     planner;
    struct moe_prober     *prober;
    struct moe_plan_device device;
    char                   format[256];
};

/* The planner's word for a format of that kind: only its bits count here. */
static const char *
word_of(uint32_t kind)
{
    static const char *const words[MOE_PLAN_KINDS] = {"f32", "bf16",
                                                      "fp8-channel",
                                                      "int4-g32"};

    return words[kind];
}

/* The engine's formats by class in the planner's words; measures those that
 * have not been. */
static moe_status
take_formats(struct moe_prediction *p, const moe_options *o,
             const moe_engine *e, struct moe_ceiling *c,
             struct moe_error *err)
{
    static const struct {
        uint32_t    cls;
        const char *name;
    } classes[] = {
        {MOE_CLASS_ATTENTION, "attention"}, {MOE_CLASS_ROUTER, "router"},
        {MOE_CLASS_EXPERT, "experts"},      {MOE_CLASS_SHARED, "shared"},
        {MOE_CLASS_DENSE, "dense"},         {MOE_CLASS_EMBED, "embeddings"},
        {MOE_CLASS_EMBED, "output"},
    };
    struct moe_format_ref f;
    size_t                i, at = 0;
    moe_status            st = MOE_OK;

    for (i = 0; i < sizeof(classes) / sizeof(classes[0]) && st == MOE_OK;
         i++) {
        const char *id = moe_runner_format(e->runner, classes[i].cls);
        uint32_t    kind;

        if (id == NULL)
            continue;
        st = moe_registry_format(e->registry, id, &f, err);
        if (st != MOE_OK)
            break;
        kind = moe_rates_kind(f.format->bits_x1000 / 1000.0);
        if ((p->device.rates.kinds >> kind & 1) == 0)
            st = moe_rates_measure(
                o, c, id, &p->device.rates,
                p->prober == NULL || classes[i].cls == MOE_CLASS_EXPERT
                    ? &p->prober : NULL, err);
        at += (size_t) snprintf(p->format + at, sizeof(p->format) - at,
                                "%s=%s,", classes[i].name, word_of(kind));
    }
    snprintf(p->format + at, sizeof(p->format) - at, "norms=f32,rest=bf16");
    return st;
}

struct moe_prediction *
moe_prediction_open(const moe_options *o, const moe_engine *e,
                    struct moe_ceiling *c)
{
    struct moe_json          config = {NULL, NULL, ""};
    struct moe_ledger_domain host;
    struct moe_prediction   *p = calloc(1, sizeof(*p));
    struct moe_error         err = {.struct_size = sizeof(err)};
    moe_options             *own = NULL;
    char                     budget[32];
    moe_status               st;

    if (p == NULL)
        return NULL;
    config.obj = moe_checkpoint_config(e->checkpoint);
    config.file = moe_checkpoint_config_name(e->checkpoint);
    st = moe_shape_read(&config, &p->planner.s, &err);
    if (st == MOE_OK)
        st = moe_options_copy(o, &own, &err);
    moe_ledger_domain(e->ledger, MOE_LEDGER_HOST, &host);
    /* what is resident already counts as the process of the next engine */
    snprintf(budget, sizeof(budget), "%llu", (unsigned long long) host.limit);
    if (st == MOE_OK)
        st = moe_options_set(own, "memory.budget", budget, MOE_FROM_ARG,
                             &err);
    p->device.struct_size = sizeof(p->device);
    p->device.is_host = 1;
    snprintf(p->device.name, sizeof(p->device.name), "this");
    p->device.memory = (double) host.limit;
    p->device.eff_memory = p->device.eff_prefill = p->device.eff_decode = 1;
    moe_ceiling_now(c, &p->device.bandwidth, &p->device.fp32);
    if (st == MOE_OK)
        st = take_formats(p, own, e, c, &err);
    p->device.rates.step_rows = e->plan.rows;
    moe_options_free(own);
    if (st == MOE_OK)
        return p;
    moe_options_log(o, MOE_LOG_INFO, "bench: no prediction: %s", err.text);
    moe_prediction_close(p);
    return NULL;
}

void
moe_prediction_close(struct moe_prediction *p)
{
    if (p == NULL)
        return;
    moe_prober_close(p->prober);
    moe_shape_free(&p->planner.s);
    free(p);
}

/* Seconds of the prompts of a batch, from their first token on. */
static double
prompt_time(const struct moe_prediction *p, struct moe_plan_setup *s,
            double tokens)
{
    struct moe_plan_result r = {.struct_size = sizeof(r)};

    s->input = tokens;
    if (tokens < 1 || moe_plan_run(&p->planner, s, &r, NULL) != MOE_OK
        || !(r.prefill_tokens_s > 0))
        return 0;
    return s->batch * tokens / r.prefill_tokens_s;
}

moe_status
moe_prediction_pace(struct moe_prediction *p, double slow[2],
                    struct moe_error *err)
{
    slow[0] = slow[1] = 1;
    return p != NULL ? moe_rates_pace(p->prober, slow, err) : MOE_OK;
}

double
moe_prediction_tps(struct moe_prediction *p, const struct moe_bench_test *t,
                   uint64_t warm, const double slow[2])
{
    struct moe_plan_setup  s = {.struct_size = sizeof(s), .devices = 1};
    struct moe_plan_result r = {.struct_size = sizeof(r)};
    double                 seconds;

    if (p == NULL)
        return 0;
    memcpy(p->device.rates.slow, slow, sizeof(p->device.rates.slow));
    s.device = &p->device;
    s.format = p->format;
    s.batch = t->batch;
    if (t->n_prompt != 0) {
        seconds = prompt_time(p, &s, (double) t->depth + t->n_prompt)
                  - prompt_time(p, &s, t->depth);
        return seconds > 0 ? (double) t->batch * t->n_prompt / seconds : 0;
    }
    s.context = (t->depth != 0 ? t->depth : 1) + (double) warm
                + t->n_gen / 2.0;
    if (moe_plan_run(&p->planner, &s, &r, NULL) != MOE_OK)
        return 0;
    return r.tokens_s;
}
