/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h - what an engine is made of; for the files of this room.
 */
#ifndef MOE_CORE_ENGINE_H
#define MOE_CORE_ENGINE_H

#include <moe/moe.h>

#include <stdatomic.h>

#include "config/options.h"
#include "engine/runner.h"
#include "memory/limits.h"
#include "sched/sched.h"
#include "support/pool.h"
#include "text/template.h"

struct moe_host_services {
    const moe_options *options;
    struct moe_pool   *pool;
    struct moe_ledger *ledger;
};

struct moe_engine {
    moe_options             *options; /* a copy, with the model's defaults */
    struct moe_host_services services;
    struct moe_pool         *pool;
    struct moe_ledger       *ledger;
    struct moe_registry     *registry;
    struct moe_checkpoint   *checkpoint;
    struct moe_arch          arch;
    int                      have_arch;
    struct moe_tokenizer    *tokenizer;
    struct moe_template     *chat;
    struct moe_runner       *runner;
    struct moe_runner_plan   plan;
    const char              *backend;
    const char              *budget_why;
    uint32_t                 end_ids[64];
    size_t                   n_end;
    struct moe_sched        *sched;
    _Atomic(int)             canceled;
    int                      failed; /* a step failed: close it */
    struct moe_stats         stats;
};

/* services.c: what plugins may call. */
void moe_services_fill(struct moe_host_services *h, struct moe_services *out);
/* Finds and loads the plugins of the options. */
moe_status moe_services_registry(struct moe_host_services *h,
                                 struct moe_registry     **out,
                                 struct moe_error         *err);

/* The status of a plugin that was asked for and is not there; the text stays. */
moe_status moe_plugin_absent(struct moe_error *err);

/* generation.c: generation_config.json's sampling into the options; end
 * tokens of both configs into ids, at most max. */
moe_status moe_generation_defaults(const struct moe_checkpoint *c,
                                   moe_options *o, uint32_t *ids, size_t max,
                                   size_t *n, struct moe_error *err);

/* engine.c: moe_engine_open of what `make` gives instead of model.path's
 * folder; there is no tokenizer then.  The checkpoint goes with the engine. */
typedef moe_status (*moe_make_fn)(void *ctx, const struct moe_registry *r,
                                  struct moe_checkpoint **out,
                                  struct moe_error       *err);
moe_status moe_engine_open_made(const moe_options *o, moe_make_fn make,
                                void *ctx, moe_engine **out,
                                struct moe_error *err);

/* The same up to the plan: no weights are read and no memory for them is
 * taken.  For moe_engine_explain and for looking at the plan. */
moe_status moe_engine_planned(const moe_options *o, moe_make_fn make,
                              void *ctx, moe_engine **out,
                              struct moe_error *err);
moe_status moe_engine_explain(const moe_engine *e, int json, moe_write_fn fn,
                              void *ctx, struct moe_error *err);

double moe_now(void); /* seconds, monotonic */

#endif /* MOE_CORE_ENGINE_H */
