/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ledger.c - the plan is the run: what the planner says of an engine is
 * what its ledger holds once it is open, by owner, difference 0.
 *
 * The fixtures of every family, as they are and as moe_quantize writes them,
 * and published shapes cut to layers that fit; several sizes of cache and
 * step.  Where it can be told from config.json alone, it is asked of that
 * alone.  Needs the plugins.
 */
#include <moe/plan.h>

#include "bench/shape.h"
#include "config/with_plugins.h"
#include "engine/engine.h"

#include <json-c/json.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan/file_bytes.h"
#include "tap.h"

static struct moe_error err;
static char             tmp[64] = "/tmp/moe-ledger-XXXXXX";

/* ----------------------------------------------------------- the ledger -- */

struct held {
    uint64_t staging, process, plugins, device;
};

static void
add_owner(void *ctx, const char *owner, uint64_t bytes)
{
    struct held *h = ctx;

    if (strcmp(owner, "staging") == 0)
        h->staging += bytes;
    else if (strcmp(owner, "process") == 0)
        h->process += bytes;
    else if (strcmp(owner, "plugins") == 0)
        h->plugins += bytes;
    else /* what the backend maps: slots, cache, activations */
        h->device += bytes;
}

static void
compare(const moe_engine *e, const struct moe_plan_engine *p,
        const char *what)
{
    struct held h = { 0, 0, 0, 0 };

    moe_ledger_owners(e->ledger, MOE_LEDGER_HOST, add_owner, &h);
    ok(p->dense + p->experts + p->kv + p->activations == h.device,
       "%s: %llu of weights, cache and activations planned, %llu held", what,
       (unsigned long long) (p->dense + p->experts + p->kv + p->activations),
       (unsigned long long) h.device);
    ok(p->staging == h.staging, "%s: %llu of staging planned, %llu held",
       what, (unsigned long long) p->staging,
       (unsigned long long) h.staging);
    ok(p->dense == e->plan.dense && p->experts == e->plan.expert
           && p->kv == e->plan.kv && p->activations == e->plan.act
           && p->pages == e->plan.pages && p->rows == e->plan.rows
           && p->slots == e->plan.slots,
       "%s: owner by owner", what);
    ok(p->files == file_bytes(e->checkpoint)
           && p->layout == moe_runner_weight_bytes(e->runner),
       "%s: %llu planned, %llu in the files; %llu as laid out", what,
       (unsigned long long) p->files,
       (unsigned long long) file_bytes(e->checkpoint),
       (unsigned long long) p->layout);
    ok(p->total == p->dense + p->experts + p->kv + p->activations
                       + p->staging + p->process
           && h.process + h.plugins <= e->plan.process, /* measured anew */
       "%s: the sum", what);
}

/* ------------------------------------------------------------ the folders -- */

/* what: whose plan, if it is not the folder's. */
static void
test_folder(const char *dir, const char *what, const char *format,
            const char *name, const char *const *set)
{
    struct moe_plan_engine p = { .struct_size = sizeof(p) };
    moe_options           *o = test_options(set);
    moe_engine            *e = NULL;

    if (moe_plan_engine(o, what, format, &p, &err) != MOE_OK) {
        ok(0, "%s: %s", name, err.text);
    } else if (moe_options_set(o, "model.path", dir, MOE_FROM_ARG, &err)
                   != MOE_OK
               || moe_engine_open(o, &e, &err) != MOE_OK) {
        ok(0, "%s: %s", name, err.text);
    } else {
        compare(e, &p, name);
    }
    moe_engine_close(e);
    moe_options_free(o);
}

static const char *const names[] = {
    "llama", "llama-bf16", "llama-linear", "llama-llama3", "mixtral",
    "mixtral-bf16", "mixtral-f16", "mixtral-window", "olmoe", "olmoe-clip",
    "qwen2", "qwen2-window", "qwen2_moe", "qwen2_moe-bf16", "qwen2_moe-step",
    "qwen3", "qwen3-bf16", "qwen3_moe", "qwen3_moe-bf16", "qwen3_moe-step",
};

static void
test_fixtures(void)
{
    static const char *const sets[][5] = {
        { NULL },
        { "model.context=48", "engine.sequences=3", "engine.batch_rows=17",
          "memory.page_rows=16", NULL },
        { "memory.kv_type=f32", "model.context=33", "memory.page_rows=32",
          "engine.sequences=2", NULL },
    };
    static const char *const others[] = {
        "qwen3_moe-fp8", "qwen3_moe-fp8-block", "qwen3_moe-mixed",
        "qwen3_moe-mxfp4", "qwen3_moe-w4a16", "qwen3_moe-w4a16-asym",
    };
    char   dir[1200], config[1300], label[200];
    size_t i;

    /* the folder by itself, the description of it with sizes of its own */
    for (i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++) {
        snprintf(dir, sizeof(dir), "%s/%s", tap_src("tests/model/fixtures"),
                 names[i / 2]);
        snprintf(config, sizeof(config), "%s/config.json", dir);
        snprintf(label, sizeof(label), "%s%s", names[i / 2],
                 i % 2 == 0 ? "" : ", config alone");
        test_folder(dir, i % 2 == 0 ? dir : config, NULL, label,
                    sets[i % 2 == 0 ? 0 : 1 + i / 2 % 2]);
    }
    snprintf(dir, sizeof(dir), "%s", tap_src("conf/model/stories"));
    test_folder(dir, dir, NULL, "stories", sets[0]);
    /* as other tools write them */
    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        snprintf(dir, sizeof(dir), "%s/%s", tap_src("tests/quant/fixtures"),
                 others[i]);
        test_folder(dir, dir, NULL, others[i], sets[0]);
    }
}

/* As moe_quantize writes them. */
static void
test_quantized(void)
{
    static const struct {
        const char *fixture, *set[6];
        int         alone; /* config.json says all */
    } rows[] = {
        { "llama-bf16", { "quant.experts=keep", "quant.dense=int4-g32" }, 1 },
        { "llama-bf16", { "quant.experts=keep", "quant.dense=int4-g64z",
                          "quant.attention=fp8-e5m2-channel",
                          "quant.embeddings=int4-g32" }, 1 },
        { "llama", { "quant.experts=keep",
                     "quant.dense=fp8-e4m3-channel" }, 0 },
        { "stories", { "quant.experts=int4-g32", "quant.attention=int4-g32z",
                       "quant.embeddings=fp8-e4m3-channel" }, 1 },
        { "mixtral-bf16", { "quant.experts=fp8-e4m3-channel",
                            "quant.attention=fp8-e4m3-channel" }, 1 },
        { "mixtral-f16", { "quant.experts=fp8-e4m3-block" }, 1 },
        { "mixtral-bf16", { "quant.experts=fp8-e5m2-block",
                            "quant.embeddings=fp8-e5m2-channel" }, 1 },
        { "olmoe", { "quant.experts=fp8-e4m3-channel" }, 0 },
        { "qwen2_moe-bf16", { "quant.experts=fp8-e4m3-channel",
                              "quant.shared=fp8-e4m3-block",
                              "quant.attention=fp8-e5m2-channel" }, 1 },
        { "qwen2_moe", { "quant.experts=fp8-e4m3-channel",
                         "quant.shared=fp8-e4m3-channel" }, 0 },
        { "qwen3_moe-bf16", { "quant.experts=fp8-e4m3-block" }, 1 },
        { "stories", { "quant.experts=mxfp4", "quant.attention=int4-g32" }, 1 },
        { "llama-bf16", { "quant.experts=keep",
                          "quant.dense=fp8-e4m3-block",
                          "quant.attention=fp8-e4m3-channel" }, 1 },
    };
    char   in[1200], out[200], config[300], label[300];
    size_t i, j;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        moe_options *o = test_options(rows[i].set);
        int          n = snprintf(label, sizeof(label), "%s",
                                  rows[i].fixture);

        for (j = 0; rows[i].set[j] != NULL; j++)
            n += snprintf(label + n, sizeof(label) - (size_t) n, " %s",
                          rows[i].set[j] + strlen("quant."));
        snprintf(in, sizeof(in), "%s/%s",
                 strcmp(rows[i].fixture, "stories") == 0
                     ? tap_src("conf/model") : tap_src("tests/model/fixtures"),
                 rows[i].fixture);
        snprintf(out, sizeof(out), "%s/%zu", tmp, i);
        if (moe_quantize(o, in, out, NULL, NULL, NULL, &err) != MOE_OK)
            ok(0, "%s: %s", label, err.text);
        else
            test_folder(out, out, NULL, label, NULL);
        snprintf(config, sizeof(config), "%s/config.json", out);
        snprintf(label + n, sizeof(label) - (size_t) n, ", config alone");
        if (rows[i].alone)
            test_folder(out, config, NULL, label, NULL);
        moe_options_free(o);
    }
}

/* ------------------------------------------------------------- the shapes -- */

static moe_status
make(void *ctx, const struct moe_registry *registry,
     struct moe_checkpoint **out, struct moe_error *e)
{
    return moe_bench_shape(registry, ctx, out, e);
}

/* config.json of a preset with so many layers, and a table that does not
 * take longer than they. */
static int
cut(const char *preset, int layers, char *path, size_t size)
{
    struct json_object *top;
    char                from[300];
    int                 good;

    snprintf(from, sizeof(from), "conf/model/%s.json", preset);
    top = json_object_from_file(tap_src(from));
    snprintf(path, size, "%s/%s-%d.json", tmp, preset, layers);
    good = top != NULL
           && json_object_object_add(top, "num_hidden_layers",
                                     json_object_new_int(layers)) == 0
           && json_object_object_add(top, "vocab_size",
                                     json_object_new_int(4096)) == 0
           && json_object_to_file(path, top) == 0;
    json_object_put(top);
    return good;
}

static void
test_shapes(void)
{
    static const struct {
        const char *preset;
        int         layers;
        const char *format, *made;
    } rows[] = {
        { "olmoe-1b-7b-0924", 1, "experts=int4-g32,rest=bf16",
          "experts=int4-g32,rest=bf16" },
        { "olmoe-1b-7b-0924", 1, "experts=mxfp4,rest=bf16",
          "experts=mxfp4,rest=bf16" },
        { "qwen3-30b-a3b", 1, "experts=fp8-e4m3-block,rest=bf16",
          "experts=fp8-e4m3-block,rest=bf16" },
        { "qwen1.5-moe-a2.7b", 1,
          "experts=int4,shared=fp8-channel,attention=int4-g64z",
          "experts=int4-g128,shared=fp8-e4m3-channel,attention=int4-g64z,"
          "rest=bf16" },
        { "llama-3.1-8b", 1, "int4-g32",
          "attention=int4-g32,dense=int4-g32,rest=bf16" },
    };
    static const char *const set[] = { "model.context=512",
                                       "engine.sequences=4", NULL };
    char   path[400], label[200];
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct moe_plan_engine p = { .struct_size = sizeof(p) };
        struct moe_shape_wish  w = { path, 0, rows[i].made, 0, 1 };
        moe_options           *o = test_options(set);
        moe_engine            *e = NULL;

        snprintf(label, sizeof(label), "%s, %d layers, %s", rows[i].preset,
                 rows[i].layers, rows[i].format);
        if (!cut(rows[i].preset, rows[i].layers, path, sizeof(path))) {
            ok(0, "%s: no shape", label);
        } else if (moe_plan_engine(o, path, rows[i].format, &p, &err)
                       != MOE_OK
                   || moe_engine_open_made(o, make, &w, &e, &err) != MOE_OK) {
            ok(0, "%s: %s", label, err.text);
        } else {
            compare(e, &p, label);
        }
        moe_engine_close(e);
        moe_options_free(o);
    }
}

/* Whole published models: nothing is loaded. */
static void
test_whole(void)
{
    static const char *const rows[] = { "olmoe-1b-7b-0924",
                                        "mixtral-8x7b" };
    static const char *const words
        = "experts=int4-g32,router=bf16,embeddings=bf16,rest=bf16";
    moe_options *o = test_options(NULL);
    size_t       i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct moe_plan_engine p = { .struct_size = sizeof(p) };
        struct moe_shape_wish  w = { rows[i], 0, words, 0, 1 };
        moe_engine            *e = NULL;
        moe_status st = moe_plan_engine(o, rows[i], "experts=int4-g32", &p,
                                        &err);

        if (st == MOE_E_OVER_BUDGET) { /* a small machine */
            ok(strstr(err.text, "smallest that works") != NULL, "%s: %s",
               rows[i], err.text);
            continue;
        }
        if (st == MOE_OK)
            st = moe_engine_planned(o, make, &w, &e, &err);
        ok(st == MOE_OK && p.files == file_bytes(e->checkpoint)
               && p.layout == moe_runner_weight_bytes(e->runner)
               && p.total <= p.budget,
           "%s: %llu planned as in files; %llu of %llu slots", rows[i],
           (unsigned long long) p.files, (unsigned long long) p.slots,
           (unsigned long long) p.n_experts);
        moe_engine_close(e);
    }
    moe_options_free(o);
}

static void
test_refusals(void)
{
    struct moe_plan_engine p = { .struct_size = sizeof(p) };
    static const char *const set[] = { "memory.budget=1M", NULL };
    moe_options             *o = test_options(NULL);

    ok(moe_plan_engine(o, "gpt-oss-20b", NULL, &p, &err) == MOE_E_UNSUPPORTED
           && strstr(err.text, "cannot run it") != NULL,
       "a family that is planned only: %s", err.text);
    ok(moe_plan_engine(o, "mixtral-8x7b", "nvfp4", &p, &err)
               == MOE_E_UNSUPPORTED
           && strstr(err.text, "nvfp4") != NULL,
       "a format that no quantizer writes: %s", err.text);
    ok(moe_plan_engine(o, "mixtrel", NULL, &p, &err) == MOE_E_NOT_FOUND,
       "no such model: %s", err.text);
    moe_options_free(o);
    o = test_options(set);
    ok(moe_plan_engine(o, "mixtral-8x7b", NULL, &p, &err)
           == MOE_E_OVER_BUDGET,
       "a budget that is too small: %s", err.text);
    moe_options_free(o);
}

int
main(void)
{
    char rm[100];

    if (getenv("MOE_PLUGIN_PATH") == NULL)
        tap_skip_all("MOE_PLUGIN_PATH does not say where the plugins are");
    memset(&err, 0, sizeof(err));
    err.struct_size = sizeof(err);
    if (mkdtemp(tmp) == NULL)
        return 1;
    test_fixtures();
    test_quantized();
    test_shapes();
    test_whole();
    test_refusals();
    snprintf(rm, sizeof(rm), "rm -rf %s", tmp);
    ok(system(rm) == 0, "cleaned up");
    return tap_done();
}
