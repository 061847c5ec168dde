/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_bytes.c - bytes planned are the bytes of the files, difference 0: the
 * fixtures of every family and type, and published shapes in the formats of
 * the quantizers.
 */
#include <moe/plan.h>

#include "bench/shape.h"
#include "config/options.h"
#include "engine/engine.h"

#include "plan/file_bytes.h"
#include "tap.h"

static void
compare(const char *model, const char *what, const char *format,
        const struct moe_checkpoint *c)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    moe_planner     *p = NULL;
    uint64_t         planned = 0;
    moe_status       status = moe_plan_open(model, &p, &err);

    if (status == MOE_OK)
        status = moe_plan_weights(p, format, &planned, NULL, &err);
    ok(status == MOE_OK && planned == file_bytes(c),
       "%s: %llu planned, %llu in the file %s", what,
       (unsigned long long) planned, (unsigned long long) file_bytes(c),
       status == MOE_OK ? "" : err.text);
    moe_plan_close(p);
}

static void
test_folders(void)
{
    static const char *const names[] = {
        "llama", "llama-bf16", "llama-linear", "llama-llama3", "mixtral",
        "mixtral-bf16", "mixtral-f16", "mixtral-window", "olmoe",
        "olmoe-clip", "qwen2", "qwen2-window", "qwen2_moe", "qwen2_moe-bf16",
        "qwen2_moe-step", "qwen3", "qwen3-bf16", "qwen3_moe",
        "qwen3_moe-bf16", "qwen3_moe-step",
    };
    char   dir[1200];
    size_t i;

    for (i = 0; i <= sizeof(names) / sizeof(names[0]); i++) {
        struct moe_error       err = { .struct_size = sizeof(err) };
        struct moe_checkpoint *c = NULL;

        if (i < sizeof(names) / sizeof(names[0]))
            snprintf(dir, sizeof(dir), "%s/%s",
                     tap_src("tests/model/fixtures"), names[i]);
        else
            snprintf(dir, sizeof(dir), "%s", tap_src("conf/model/stories"));
        if (moe_checkpoint_open(dir, &c, &err) != MOE_OK)
            ok(0, "%s", err.text);
        else
            compare(dir, i < sizeof(names) / sizeof(names[0]) ? names[i]
                                                              : "stories",
                    NULL, c);
        moe_checkpoint_close(c);
    }
}

static void
test_shapes(void)
{
#define ALL(f) "norms=bf16,router=bf16,embeddings=" f ",output=" f ",rest=" f
    static const struct {
        const char *shape, *format, *words;
    } rows[] = {
        { "olmoe-1b-7b-0924", "bf16", ALL("bf16") },
        { "olmoe-1b-7b-0924", "f32", ALL("f32") },
        { "olmoe-1b-7b-0924", "int4-g32", ALL("int4-g32") },
        { "olmoe-1b-7b-0924", "int4-g128", ALL("int4") },
        { "olmoe-1b-7b-0924", "int4-g128", ALL("int4-g128") },
        { "olmoe-1b-7b-0924", "int4-g64", ALL("int4-g64") },
        { "olmoe-1b-7b-0924", "int4-g32z", ALL("int4-g32z") },
        { "olmoe-1b-7b-0924", "int4-g64z", ALL("int4-g64z") },
        { "olmoe-1b-7b-0924", "int4-g128z", ALL("int4-g128z") },
        { "olmoe-1b-7b-0924", "fp8-e5m2-channel", ALL("fp8-e5m2-channel") },
        { "olmoe-1b-7b-0924", "fp8-e4m3-block", ALL("fp8-e4m3-block") },
        { "qwen3-30b-a3b", "fp8-e5m2-block", ALL("fp8-e5m2-block") },
        { "olmoe-1b-7b-0924", "fp8-e4m3-channel", ALL("fp8-e4m3-channel") },
        { "olmoe-1b-7b-0924", "mxfp4", ALL("mxfp4") },
        { "olmoe-1b-7b-0924", "experts=int4-g128,rest=bf16",
          "experts=int4,rest=bf16" },
        { "qwen1.5-moe-a2.7b", "experts=int4-g32,shared=fp8-e4m3-channel,"
          "rest=bf16", "experts=int4-g32,shared=fp8-channel,rest=bf16" },
        { "qwen3-30b-a3b", "bf16", ALL("bf16") },
        { "mixtral-8x7b", "int4-g32", ALL("int4-g32") },
        { "llama-3.1-8b", "fp8-e4m3-channel", ALL("fp8-channel") },
    };
    struct moe_error         err = { .struct_size = sizeof(err) };
    struct moe_host_services host = { 0 };
    struct moe_registry     *registry = NULL;
    moe_options             *o = NULL;
    struct moe_pool         *pool = NULL;
    struct moe_ledger       *ledger = NULL;
    size_t                   i;
    moe_status               status = moe_options_new(&o, &err);

    if (status == MOE_OK)
        status = moe_options_load_defaults(o, &err);
    if (status == MOE_OK)
        status = moe_pool_open(1, &pool, &err);
    if (status == MOE_OK)
        status = moe_ledger_open(&ledger, &err);
    host.options = o;
    host.pool = pool;
    host.ledger = ledger;
    if (status == MOE_OK)
        status = moe_services_registry(&host, &registry, &err);
    ok(status == MOE_OK, "plugins %s", status == MOE_OK ? "" : err.text);
    for (i = 0; status == MOE_OK && i < sizeof(rows) / sizeof(rows[0]);
         i++) {
        struct moe_shape_wish  w = { rows[i].shape, 0, rows[i].format, 0, 1 };
        struct moe_checkpoint *c = NULL;
        char                   what[200];

        snprintf(what, sizeof(what), "%s in %s", rows[i].shape,
                 rows[i].format);
        if (moe_bench_shape(registry, &w, &c, &err) != MOE_OK)
            ok(0, "%s: %s", what, err.text);
        else
            compare(rows[i].shape, what, rows[i].words, c);
        moe_checkpoint_close(c);
    }
    moe_registry_close(registry);
    moe_pool_close(pool);
    (void) moe_ledger_close(ledger);
    moe_options_free(o);
}

int
main(void)
{
    test_folders();
    test_shapes();
    return tap_done();
}
