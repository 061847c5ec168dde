/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.c - moe_engine: the rooms put together, in the order that keeps
 * the peak of memory low, and a step.
 *
 * Owns the engine's life and its statistics.  The step itself is the
 * scheduler's (which rows) and the runner's (what they compute).
 */
#include "engine/engine.h"

#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model/weights.h"

double
moe_now(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static int
moe_engine_canceled(void *ctx)
{
    const moe_engine *e = ctx;

    return atomic_load_explicit(&((moe_engine *) (uintptr_t) e)->canceled,
                                memory_order_relaxed);
}

/* tokenizer.json, if there is one: a model without can still be given ids.
 * The parser's own heap is transient and comes before any weight. */
static moe_status
moe_engine_tokenizer(moe_engine *e, struct moe_error *err)
{
    char path[4200];

    snprintf(path, sizeof(path), "%s/tokenizer.json",
             moe_checkpoint_dir(e->checkpoint));
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        moe_options_log(e->options, MOE_LOG_WARN,
                        "%s: no such file; only token ids can be used", path);
        return MOE_OK;
    }
    return moe_tokenizer_open(path, &e->tokenizer, err);
}

static uint32_t
moe_kv_option(const moe_options *o)
{
    const char *t = moe_option_text(o, "memory.kv_type");

    return strcmp(t, "f32") == 0    ? MOE_F32
           : strcmp(t, "f16") == 0  ? MOE_F16
           : strcmp(t, "bf16") == 0 ? MOE_BF16 : 0;
}

static uint32_t
moe_tier_option(const moe_options *o)
{
    const char *t = moe_option_text(o, "engine.min_tier");

    return strcmp(t, "expand") == 0    ? MOE_TIER_EXPAND
           : strcmp(t, "generic") == 0 ? MOE_TIER_GENERIC
           : strcmp(t, "native") == 0  ? MOE_TIER_NATIVE : MOE_TIER_NONE;
}

/* Threads and where they run; said once, for whoever wonders. */
static moe_status
moe_engine_threads(moe_engine *e, struct moe_error *err)
{
    const char          *t = moe_option_text(e->options, "engine.pin");
    struct moe_cpus_wish wish = {
        .threads = (uint32_t) moe_option_int(e->options, "engine.threads"),
        .pin = strcmp(t, "none") == 0     ? MOE_PIN_NONE
               : strcmp(t, "close") == 0  ? MOE_PIN_CLOSE
               : strcmp(t, "spread") == 0 ? MOE_PIN_SPREAD : MOE_PIN_AUTO};
    struct moe_cpus cpus;
    char            quota[48] = "";
    moe_status      st = moe_cpus_choose(&wish, &cpus, err);

    if (st != MOE_OK)
        return st;
    if (cpus.quota != 0)
        snprintf(quota, sizeof(quota), "; the control group allows %u",
                 cpus.quota);
    moe_options_log(e->options, MOE_LOG_INFO, "threads: %u; %s%s",
                    cpus.threads, cpus.why, quota);
    st = moe_pool_open_on(&cpus, &e->pool, err);
    moe_cpus_free(&cpus);
    return st;
}

/* The ceiling in force; the asked-for figure may be bytes or a share of what
 * is free. */
static uint64_t
moe_engine_budget(moe_engine *e, const struct moe_limits *m)
{
    uint64_t asked = moe_option_size(e->options, "memory.budget");
    double   percent = moe_option_percent(e->options, "memory.budget");

    if (percent > 0)
        asked = (uint64_t) ((double) moe_limits_budget(m, 0, &e->budget_why)
                            * percent / 100.0);
    return moe_limits_budget(m, asked, &e->budget_why);
}

/* Everything up to and without the weights: enough for an explanation. */
static moe_status
moe_engine_prepare(const moe_options *o, moe_make_fn make, void *ctx,
                   moe_engine *e, struct moe_error *err)
{
    struct moe_runner_setup setup;
    struct moe_limits       m;
    char                    path[4200];
    const char             *model;
    uint64_t                budget;
    moe_status              st;

    memset(&setup, 0, sizeof(setup));
    st = moe_options_copy(o, &e->options, err);
    if (st == MOE_OK)
        st = moe_ledger_open(&e->ledger, err);
    if (st == MOE_OK)
        st = moe_engine_threads(e, err);
    if (st != MOE_OK)
        return st;
    e->services.options = e->options;
    e->services.pool = e->pool;
    e->services.ledger = e->ledger;
    st = moe_services_registry(&e->services, &e->registry, err);
    if (st != MOE_OK)
        return st;

    model = moe_option_text(e->options, "model.path");
    if (make == NULL && model[0] == '\0') {
        st = moe_default_model(e->options, path, sizeof(path), err);
        if (st != MOE_OK)
            return st;
        model = path;
    }
    st = make != NULL ? make(ctx, e->registry, &e->checkpoint, err)
                      : moe_checkpoint_open(model, &e->checkpoint, err);
    if (st == MOE_OK)
        st = moe_generation_defaults(e->checkpoint, e->options, e->end_ids,
                                     sizeof(e->end_ids) / sizeof(uint32_t),
                                     &e->n_end, err);
    if (st == MOE_OK)
        st = moe_arch_read(e->checkpoint, &e->arch, err);
    if (st != MOE_OK)
        return st;
    e->have_arch = 1;
    st = make != NULL ? MOE_OK : moe_engine_tokenizer(e, err);
    if (st != MOE_OK)
        return st;

    st = moe_registry_backend(e->registry,
                              moe_option_text(e->options, "engine.backend"),
                              &setup.ops, &setup.self, &e->backend, err);
    if (st == MOE_E_NOT_FOUND)
        st = moe_plugin_absent(err);
    if (st != MOE_OK)
        return st;
    setup.backend = e->backend;
    setup.registry = e->registry;
    setup.checkpoint = e->checkpoint;
    setup.arch = &e->arch;
    setup.ledger = e->ledger;
    setup.batch_rows = (uint32_t) moe_option_int(e->options,
                                                 "engine.batch_rows");
    setup.sequences = (uint32_t) moe_option_int(e->options,
                                                "engine.sequences");
    setup.context = (uint32_t) moe_option_int(e->options, "model.context");
    /* a default is a wish, what somebody set is not */
    if (moe_option_from(e->options, "model.context") == MOE_FROM_DEFAULT
        && setup.context > e->arch.max_context)
        setup.context = e->arch.max_context;
    setup.page_rows = (uint32_t) moe_option_int(e->options,
                                                "memory.page_rows");
    setup.kv_dtype = moe_kv_option(e->options);
    setup.min_tier = moe_tier_option(e->options);
    setup.eviction = strcmp(moe_option_text(e->options, "memory.eviction"),
                            "lru") == 0 ? MOE_EVICT_LRU : MOE_EVICT_LFU;
    st = moe_runner_open(&setup, &e->runner, err);
    if (st != MOE_OK)
        return st;

    (void) malloc_trim(0);
    moe_limits_read(&m);
    budget = moe_engine_budget(e, &m);
    st = moe_ledger_limit(e->ledger, MOE_LEDGER_HOST, budget, err);
    if (st == MOE_OK)
        st = moe_runner_make_plan(e->runner, budget, m.rss, m.rss_peak,
                                  &e->plan, err);
    if (st == MOE_OK
        && strcmp(moe_option_text(e->options, "memory.eviction"), "none") == 0
        && e->plan.slots < e->plan.experts)
        return moe_fail(err, MOE_E_OVER_BUDGET, 0,
                        "memory.eviction: none, but only %llu of %llu experts "
                        "fit into %llu bytes (%s); raise memory.budget or use "
                        "lfu",
                        (unsigned long long) e->plan.slots,
                        (unsigned long long) e->plan.experts,
                        (unsigned long long) budget, e->budget_why);
    return st;
}

/* A key in a plugin's section that no plugin asked for does nothing. */
static moe_status
moe_engine_unused(const moe_engine *e, struct moe_error *err)
{
    const char *key, *where;

    if (moe_options_unused(e->options, NULL, &key, &where) != MOE_OK)
        return MOE_OK;
    return moe_fail(err, MOE_E_INVAL, 0,
                    "%s: '%s' has no effect: no loaded plugin reads it; "
                    "remove it, or see `moe-run plugins'",
                    where, key);
}

moe_status
moe_engine_open_made(const moe_options *o, moe_make_fn make, void *ctx,
                     moe_engine **out, struct moe_error *err)
{
    struct moe_sched_setup setup;
    double                 start = moe_now();
    moe_engine            *e = calloc(1, sizeof(*e));
    moe_status             st;

    if (e == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "engine: no memory");
    st = moe_engine_prepare(o, make, ctx, e, err);
    if (st == MOE_OK)
        st = moe_runner_load(e->runner, moe_engine_canceled, e, err);
    if (st == MOE_OK)
        st = moe_engine_unused(e, err);
    if (st != MOE_OK)
        goto fail;

    memset(&setup, 0, sizeof(setup));
    setup.rows = e->plan.rows;
    setup.sequences = e->plan.sequences;
    setup.context = e->plan.context;
    setup.pages = e->plan.pages;
    setup.page_rows = e->plan.page_rows;
    setup.max_pages = e->plan.max_pages;
    setup.vocab = e->arch.vocab;
    setup.tokenizer = e->tokenizer;
    setup.end_ids = e->end_ids;
    setup.n_end = e->n_end;
    setup.now = moe_now;
    st = moe_sched_open(&setup, &e->sched, err);
    if (st != MOE_OK)
        goto fail;
    e->stats.open_s = moe_now() - start;
    *out = e;
    return MOE_OK;

fail:
    moe_engine_close(e);
    return st;
}

moe_status
moe_engine_open(const moe_options *o, moe_engine **out, struct moe_error *err)
{
    return moe_engine_open_made(o, NULL, NULL, out, err);
}

void
moe_engine_close(moe_engine *e)
{
    size_t left;

    if (e == NULL)
        return;
    moe_sched_close(e->sched);
    moe_runner_close(e->runner);
    moe_template_close(e->chat);
    moe_tokenizer_close(e->tokenizer);
    if (e->have_arch)
        moe_arch_free(&e->arch);
    moe_checkpoint_close(e->checkpoint);
    moe_registry_close(e->registry);
    moe_pool_close(e->pool);
    left = moe_ledger_close(e->ledger);
    if (left != 0 && e->options != NULL)
        moe_options_log(e->options, MOE_LOG_WARN,
                        "ledger: %zu reservations were never given back",
                        left);
    moe_options_free(e->options);
    free(e);
}

moe_status
moe_engine_planned(const moe_options *o, moe_make_fn make, void *ctx,
                   moe_engine **out, struct moe_error *err)
{
    moe_engine *e = calloc(1, sizeof(*e));
    moe_status  st;

    if (e == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "engine: no memory");
    st = moe_engine_prepare(o, make, ctx, e, err);
    if (st != MOE_OK) {
        moe_engine_close(e);
        return st;
    }
    *out = e;
    return MOE_OK;
}

moe_status
moe_engine_explain(const moe_engine *e, int json, moe_write_fn fn, void *ctx,
                   struct moe_error *err)
{
    const char    *model = moe_checkpoint_dir(e->checkpoint);
    struct moe_str s = {0};
    moe_status     st = MOE_OK;

    if (json) {
        moe_str_addf(&s, "{\"schema\":1,\"model\":");
        moe_str_add_json(&s, model, strlen(model));
        moe_str_addf(&s, ",\"family\":\"%s\",\"backend\":\"%s\","
                         "\"budget_from\":\"%s\",",
                     e->arch.family, e->backend, e->budget_why);
        moe_runner_explain(e->runner, &e->plan, 1, &s);
        moe_str_addf(&s, "}\n");
    } else {
        moe_str_addf(&s, "%s (%s) on %s; ceiling: %s\n", model,
                     e->arch.family, e->backend, e->budget_why);
        moe_runner_explain(e->runner, &e->plan, 0, &s);
    }
    if (s.failed)
        st = moe_fail(err, MOE_E_NOMEM, ENOMEM, "explain: no memory");
    else if (fn(ctx, s.text, s.len) != 0)
        st = moe_fail(err, MOE_E_IO, 0, "explain: output was refused");
    moe_str_free(&s);
    return st;
}

moe_status
moe_explain(const moe_options *o, int json, moe_write_fn fn, void *ctx,
            struct moe_error *err)
{
    moe_engine *e = NULL;
    moe_status  st = moe_engine_planned(o, NULL, NULL, &e, err);

    if (st != MOE_OK)
        return st;
    st = moe_engine_explain(e, json, fn, ctx, err);
    moe_engine_close(e);
    return st;
}

/* ---------------------------------------------------------------- a step -- */


static moe_status
moe_engine_on_logits(void *ctx, uint32_t i, const float *logits,
                     struct moe_error *err)
{
    moe_engine *e = ctx;

    return moe_sched_logits(e->sched, i, logits, err);
}

moe_status
moe_engine_submit(moe_engine *e, const struct moe_request *r,
                  moe_sequence **out, struct moe_error *err)
{
    struct moe_sampling sampling;

    if (!MOE_HAS(r, moe_request, ctx))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "moe_request.struct_size is %u, too small",
                        r->struct_size);
    if (r->sampling != NULL) {
        sampling = *r->sampling;
    } else {
        sampling.struct_size = sizeof(sampling);
        (void) moe_engine_sampling(e, &sampling);
    }
    return moe_sched_submit(e->sched, r, &sampling, out, err);
}

moe_status
moe_engine_step(moe_engine *e, uint32_t *active, struct moe_error *err)
{
    struct moe_sched_step step;
    struct moe_batch      b;
    double                start = moe_now();
    moe_status            st;

    if (atomic_load(&e->canceled))
        return moe_fail(err, MOE_E_CANCELED, 0, "interrupted");
    if (e->failed)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "the engine has failed before; close it");
    moe_sched_compose(e->sched, &step);
    if (step.rows != 0) {
        memset(&b, 0, sizeof(b));
        b.rows = step.rows;
        b.tokens = step.tokens;
        b.positions = step.positions;
        b.seqs = step.seqs;
        b.slots = step.slots;
        b.n_seqs = step.n_seqs;
        b.max_pages = step.max_pages;
        b.pages = step.pages;
        b.n_out = step.n_out;
        b.out_rows = step.out_rows;
        b.on_logits = moe_engine_on_logits;
        b.canceled = moe_engine_canceled;
        b.ctx = e;
        st = moe_runner_step(e->runner, &b, err);
        if (st != MOE_OK) {
            e->failed = st != MOE_E_CANCELED;
            return st;
        }
        moe_sched_commit(e->sched);
        e->stats.steps++;
        e->stats.prefill_tokens += step.prefill_rows;
        e->stats.decode_tokens += step.rows - step.prefill_rows;
        if (step.prefill_rows != 0)
            e->stats.prefill_s += moe_now() - start;
        else
            e->stats.decode_s += moe_now() - start;
    }
    if (active != NULL)
        *active = moe_sched_active(e->sched);
    return MOE_OK;
}

void
moe_engine_cancel(moe_engine *e)
{
    atomic_store(&e->canceled, 1);
}
