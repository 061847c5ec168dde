/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.c - what moe-run itself would hold for a model, here and now.
 *
 * There is no second calculation: the engine makes its plan, as for a run,
 * and stops before the weights.  Of a model without files it gets the shape
 * (bench/shape.c) in the formats asked for.
 */
#include "plan/shape.h"

#include "bench/shape.h"
#include "config/options.h"
#include "engine/engine.h"

#include <string.h>
#include <unistd.h>

/* What is planned, and room for the words of its formats. */
struct wanted {
    struct moe_shape_wish wish;
    char                  format[400];
};

static int
has_files(const char *what)
{
    static const char *const files[] = { "model.safetensors",
                                         "model.safetensors.index.json" };
    char   path[4300];
    size_t i;

    for (i = 0; i < 2 && strlen(what) <= 4096; i++) {
        snprintf(path, sizeof(path), "%s/%s", what, files[i]);
        if (access(path, F_OK) == 0)
            return 1;
    }
    return 0;
}

/* What a quantizer calls the format; NULL: none of them writes it. */
static const char *
id_of(const struct moe_store *f)
{
    static const char *const same[] = {
        "bf16", "f16", "f32", "int4-g32", "int4-g64", "int4-g128",
        "int4-g32z", "int4-g64z", "int4-g128z", "fp8-e4m3-channel",
        "fp8-e5m2-channel", "fp8-e4m3-block", "fp8-e5m2-block",
        "mxfp4",
    };
    size_t i;

    if (strcmp(f->word, "int4") == 0)
        return "int4-g128";
    if (strcmp(f->word, "fp8-channel") == 0)
        return "fp8-e4m3-channel";
    for (i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        if (strcmp(f->word, same[i]) == 0)
            return same[i];
    return NULL;
}

/* The formats in the words of bench/shape.h, a class at a time. */
static moe_status
spell(const struct moe_sketch *m, const struct moe_formats *f, char *buf,
      size_t size, struct moe_error *err)
{
    size_t   at = 0;
    uint32_t c, i;

    if (f->of[MOE_PLAN_OUTPUT] != f->of[MOE_PLAN_EMBED] && !m->tied)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "moe-run keeps embeddings and output in one format, "
                        "not in %s and %s", f->of[MOE_PLAN_EMBED]->word,
                        f->of[MOE_PLAN_OUTPUT]->word);
    for (c = 0; c < MOE_PLAN_CLASSES; c++) {
        const char *id = id_of(f->of[c]);

        for (i = 0; i < m->n_m; i++)
            if (m->m[i].cls == c && !m->m[i].vector)
                break;
        if (i == m->n_m || c == MOE_PLAN_OUTPUT || c == MOE_PLAN_NORMS)
            continue;
        if (id == NULL)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "moe-run has no quantizer that writes %s in %s",
                            moe_plan_class_name(c), f->of[c]->word);
        at += (size_t) snprintf(buf + at, size - at, "%s%s=%s",
                                at > 0 ? "," : "", moe_plan_class_name(c),
                                id);
    }
    return MOE_OK;
}

static moe_status
make(void *ctx, const struct moe_registry *registry,
     struct moe_checkpoint **out, struct moe_error *err)
{
    return moe_bench_shape(registry, &((struct wanted *) ctx)->wish, out,
                           err);
}

static moe_status
plan_it(const moe_options *o, const char *what, const char *format,
        moe_engine **out, struct moe_error *err)
{
    struct wanted      w = { .wish = { .name = what } };
    struct moe_formats f;
    moe_planner       *p = NULL;
    moe_options       *own = NULL;
    moe_status         st;

    if (format == NULL && has_files(what)) {
        st = moe_options_copy(o, &own, err);
        if (st == MOE_OK)
            st = moe_options_set(own, "model.path", what, MOE_FROM_ARG, err);
        if (st == MOE_OK)
            st = moe_engine_planned(own, NULL, NULL, out, err);
        moe_options_free(own);
        return st;
    }
    st = moe_plan_open(what, &p, err);
    if (st != MOE_OK)
        return st;
    if (!p->s.runnable)
        st = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                      "%s: moe-run can plan the family %s, it cannot run it",
                      p->s.name, p->s.family);
    if (st == MOE_OK)
        st = moe_formats_of(&p->s, format, &f, err);
    if (st == MOE_OK)
        st = spell(&p->s, &f, w.format, sizeof(w.format), err);
    moe_plan_close(p);
    w.wish.format = w.format;
    if (st == MOE_OK)
        st = moe_engine_planned(o, make, &w, out, err);
    return st;
}

MOE_API moe_status
moe_plan_engine(const struct moe_options *o, const char *what,
                const char *format, struct moe_plan_engine *out,
                struct moe_error *err)
{
    struct moe_plan_engine r = { .struct_size = sizeof(r) };
    moe_engine            *e = NULL;
    moe_planner           *p = NULL;
    moe_status             st = moe_plan_open(what, &p, err);

    if (st == MOE_OK)
        st = moe_plan_weights(p, format, &r.files, NULL, err);
    moe_plan_close(p);
    if (st == MOE_OK)
        st = plan_it(o, what, format, &e, err);
    if (st != MOE_OK)
        return st;
    r.rows = e->plan.rows;
    r.context = e->plan.context;
    r.sequences = e->plan.sequences;
    r.pages = e->plan.pages;
    r.page_rows = e->plan.page_rows;
    r.layout = moe_runner_weight_bytes(e->runner);
    r.slots = e->plan.slots;
    r.n_experts = e->plan.experts;
    r.dense = e->plan.dense;
    r.experts = e->plan.expert;
    r.kv = e->plan.kv;
    r.activations = e->plan.act;
    r.staging = e->plan.staging;
    r.process = e->plan.process;
    r.total = e->plan.total;
    r.budget = e->plan.budget;
    moe_engine_close(e);
    if (out->struct_size != 0 && out->struct_size < r.struct_size)
        r.struct_size = out->struct_size;
    memcpy(out, &r, r.struct_size);
    return MOE_OK;
}

MOE_API moe_status
moe_plan_explain(const struct moe_options *o, const char *what,
                 const char *format, int json,
                 int (*fn)(void *ctx, const char *text, size_t len),
                 void *ctx, struct moe_error *err)
{
    moe_engine *e = NULL;
    moe_status  st = plan_it(o, what, format, &e, err);

    if (st == MOE_OK)
        st = moe_engine_explain(e, json, fn, ctx, err);
    moe_engine_close(e);
    return st;
}
