/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner.c - the life of a decoder on a device, and its explanation.
 *
 * Owns the device, the stream and whatever the other files of this room put
 * into struct moe_runner.
 */
#include "engine/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int
moe_quantized_or_half(const struct moe_runner *r)
{
    const struct moe_format *f = r->groups[r->layers[0].o.group].src.format;

    return strcmp(f->id, "f32") != 0;
}

moe_status
moe_runner_open(const struct moe_runner_setup *setup, struct moe_runner **out,
                struct moe_error *err)
{
    struct moe_runner *r = calloc(1, sizeof(*r));
    uint32_t           n = 0;
    moe_status         st;

    if (r == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "engine: no memory");
    r->s = *setup;
    st = r->s.ops->device_count(r->s.self, &n);
    if (st != MOE_OK || setup->device >= n) {
        st = moe_fail(err, st != MOE_OK ? st : MOE_E_ABSENT, 0,
                      "%s: device %u of %u", setup->backend, setup->device, n);
        goto fail;
    }
    r->info.struct_size = sizeof(r->info);
    st = r->s.ops->device_info(r->s.self, setup->device, &r->info);
    if (st != MOE_OK) {
        (void) moe_fail(err, st, 0, "%s: no information on device %u",
                        setup->backend, setup->device);
        goto fail;
    }
    r->host_device = strcmp(r->info.domain, MOE_LEDGER_HOST) == 0;
    if (!r->host_device) {
        st = moe_ledger_limit(r->s.ledger, r->info.domain, r->info.mem_free,
                              err);
        if (st != MOE_OK)
            goto fail;
    }
    st = r->s.ops->device_open(r->s.self, setup->device, &r->dev, err);
    if (st == MOE_OK)
        st = r->s.ops->stream_create(r->dev, 0, &r->stream, err);
    if (st == MOE_OK)
        st = r->s.ops->event_create(r->dev, &r->event, err);
    if (st == MOE_OK)
        st = moe_runner_index(r, err);
    if (st == MOE_OK && r->s.kv_dtype == 0)
        r->s.kv_dtype = moe_quantized_or_half(r)
                                && (r->info.kv_dtypes & MOE_DTYPE_BIT(MOE_F16))
                            ? MOE_F16 : MOE_F32;
    if (st == MOE_OK
        && (r->info.kv_dtypes & MOE_DTYPE_BIT(r->s.kv_dtype)) == 0)
        st = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                      "memory.kv_type: %s has no KV cache of that type",
                      setup->backend);
    if (st == MOE_OK)
        st = moe_load_open(r->n_moe, r->s.arch->n_experts, r->s.arch->top_k,
                           &r->load, err);
    if (st != MOE_OK)
        goto fail;
    *out = r;
    return MOE_OK;

fail:
    moe_runner_close(r);
    return st;
}

void
moe_runner_close(struct moe_runner *r)
{
    const struct moe_backend_ops *ops;
    uint32_t                      i;

    if (r == NULL)
        return;
    ops = r->s.ops;
    if (r->stream != NULL && r->event != NULL)
        (void) moe_runner_wait(r, NULL); /* nothing may be in flight */
    for (i = 0; i < r->n_groups; i++) {
        if (r->groups[i].slab != NULL)
            ops->slab_destroy(r->groups[i].slab);
        moe_residency_close(r->groups[i].residency);
    }
    if (r->act != NULL)
        ops->mem_free(r->act);
    if (r->vec != NULL)
        ops->mem_free(r->vec);
    if (r->kv != NULL)
        ops->mem_free(r->kv);
    if (r->event != NULL)
        ops->event_destroy(r->event);
    if (r->stream != NULL)
        ops->stream_destroy(r->stream);
    if (r->dev != NULL)
        ops->device_close(r->dev);
    moe_hostbuf_close(r, &r->src);
    moe_hostbuf_close(r, &r->dec);
    moe_hostbuf_close(r, &r->ctl);
    moe_hostbuf_close(r, &r->logits);
    moe_hostbuf_close(r, &r->counts);
    if (r->process != NULL)
        moe_ledger_release(r->s.ledger, r->process);
    for (i = 0; r->layers != NULL && i < r->s.arch->n_layers; i++)
        free(r->layers[i].experts);
    free(r->layers);
    free(r->groups);
    free(r->vec_host);
    free(r->list);
    free(r->list_w);
    free(r->missing);
    moe_load_close(&r->load);
    free(r);
}

void
moe_runner_probe(struct moe_runner *r, struct moe_runner_probe *p)
{
    r->probe = p;
}

void
moe_runner_tap(struct moe_runner *r, const struct moe_runner_tap *t)
{
    r->tap = t;
}

const char *
moe_runner_at_name(uint32_t at)
{
    static const char *const names[MOE_AT_COUNT] = {
        [MOE_AT_EMBED] = "embedding",
        [MOE_AT_NORM] = "norms",
        [MOE_AT_QKV] = "query, key, value",
        [MOE_AT_ROPE] = "rope, cache write",
        [MOE_AT_ATTENTION] = "attention",
        [MOE_AT_OUT] = "attention output",
        [MOE_AT_ROUTER] = "router",
        [MOE_AT_ROUTE] = "top-k, grouping",
        [MOE_AT_EXPERTS] = "expert ffn",
        [MOE_AT_SHARED] = "shared expert",
        [MOE_AT_DENSE] = "dense ffn",
        [MOE_AT_COMBINE] = "combine",
        [MOE_AT_HEAD] = "output head",
        [MOE_AT_LOAD] = "expert reads",
        [MOE_AT_PICK] = "choice of tokens",
    };

    return at < MOE_AT_COUNT ? names[at] : "";
}

const struct moe_load *
moe_runner_expert_load(const struct moe_runner *r)
{
    return &r->load;
}

const char *
moe_runner_format(const struct moe_runner *r, uint32_t cls)
{
    uint32_t i;

    for (i = 0; i < r->n_groups; i++) {
        const struct moe_group *g = &r->groups[i];

        if (g->cls != cls)
            continue;
        if (!g->expanded)
            return g->fmt.format->id;
        return g->dtype == MOE_F32 ? "f32" : g->dtype == MOE_F16 ? "f16"
                                                                 : "bf16";
    }
    return NULL;
}

uint64_t
moe_runner_weight_bytes(const struct moe_runner *r)
{
    uint64_t sum = 0;
    uint32_t i;

    for (i = 0; i < r->n_groups; i++)
        sum += r->groups[i].n_sets * r->groups[i].plan.slot_bytes;
    return sum;
}

void
moe_runner_io(const struct moe_runner *r, uint64_t *hits, uint64_t *loads,
              uint64_t *bytes)
{
    *hits = r->load.distinct - r->loads; /* had a slot when wanted */
    *loads = r->loads;
    *bytes = r->bytes_read;
}

static const char *
moe_tier_text(uint32_t tier)
{
    switch (tier) {
    case MOE_TIER_NATIVE:
        return "native";
    case MOE_TIER_GENERIC:
        return "generic";
    case MOE_TIER_EXPAND:
        return "expand";
    default:
        return "none";
    }
}

static void
moe_explain_table(const struct moe_runner *r, const struct moe_runner_plan *p,
                  struct moe_str *out)
{
    const char *dev = r->host_device ? MOE_LEDGER_HOST : r->info.domain;
    uint32_t    i;

    moe_str_addf(out, "%-10s %-12s %-8s %-8s %14s %7s %7s  %s\n", "where",
                 "what", "format", "tier", "bytes", "slots", "of", "why");
    moe_str_addf(out, "%-10s %-12s %-8s %-8s %14llu %7s %7s  %s\n",
                 MOE_LEDGER_HOST, "process", "-", "-",
                 (unsigned long long) p->process, "-", "-",
                 "code, heap, tokenizer, thread stacks");
    for (i = 0; i < r->n_groups; i++) {
        const struct moe_group *g = &r->groups[i];

        moe_str_addf(out, "%-10s %-12s %-8s %-8s %14llu %7u %7llu  %s\n", dev,
                     moe_class_name(g->cls), g->fmt.format->id,
                     moe_tier_text(g->plan.tier),
                     (unsigned long long) (g->n_slots * g->plan.slot_bytes),
                     g->n_slots, (unsigned long long) g->n_sets, g->plan.why);
    }
    moe_str_addf(out, "%-10s %-12s %-8s %-8s %14llu %7s %7s  %u pages of %u "
                      "tokens; context %u, %u sequences at once\n",
                 dev, "KV cache",
                 p->kv_dtype == MOE_F32 ? "f32"
                 : p->kv_dtype == MOE_F16 ? "f16" : "bf16",
                 "-", (unsigned long long) p->kv, "-", "-", p->pages,
                 p->page_rows, p->context, p->sequences);
    moe_str_addf(out, "%-10s %-12s %-8s %-8s %14llu %7s %7s  %u rows a step\n",
                 dev, "activations", "f32", "-", (unsigned long long) p->act,
                 "-", "-", p->rows);
    moe_str_addf(out, "%-10s %-12s %-8s %-8s %14llu %7s %7s  %s\n",
                 MOE_LEDGER_HOST, "staging", "-", "-",
                 (unsigned long long) p->staging, "-", "-",
                 "one expert on its way from the file");
    if (p->slots < p->experts) {
        moe_str_addf(out, "%-10s %-12s %-8s %-8s %14s %7llu %7llu  %s\n",
                     "file", "experts", "-", "-", "-",
                     (unsigned long long) (p->experts - p->slots),
                     (unsigned long long) p->experts,
                     r->s.eviction == MOE_EVICT_LRU
                         ? "read when routed to, least recently used out first"
                         : "read when routed to, least used of late out first");
    }
    moe_str_addf(out, "total %llu bytes of %llu\n",
                 (unsigned long long) p->total,
                 (unsigned long long) p->budget);
}

static void
moe_explain_json(const struct moe_runner *r, const struct moe_runner_plan *p,
                 struct moe_str *out)
{
    const char *dev = r->host_device ? MOE_LEDGER_HOST : r->info.domain;
    uint32_t    i;

    moe_str_addf(out, "\"domain\":");
    moe_str_add_json(out, dev, strlen(dev));
    moe_str_addf(out,
                 ",\"budget\":%llu,\"total\":%llu,\"process\":%llu,"
                 "\"dense\":%llu,\"experts\":%llu,\"kv\":%llu,"
                 "\"activations\":%llu,\"staging\":%llu,"
                 "\"expert_slots\":%llu,\"expert_count\":%llu,"
                 "\"rows\":%u,\"context\":%u,\"sequences\":%u,\"pages\":%u,"
                 "\"page_rows\":%u,\"groups\":[",
                 (unsigned long long) p->budget, (unsigned long long) p->total,
                 (unsigned long long) p->process,
                 (unsigned long long) p->dense,
                 (unsigned long long) p->expert, (unsigned long long) p->kv,
                 (unsigned long long) p->act, (unsigned long long) p->staging,
                 (unsigned long long) p->slots,
                 (unsigned long long) p->experts, p->rows, p->context,
                 p->sequences, p->pages, p->page_rows);
    for (i = 0; i < r->n_groups; i++) {
        const struct moe_group *g = &r->groups[i];

        moe_str_addf(out,
                     "%s{\"what\":\"%s\",\"file_format\":\"%s\","
                     "\"format\":\"%s\",\"tier\":\"%s\",\"slot_bytes\":%llu,"
                     "\"slots\":%u,\"of\":%llu,\"why\":",
                     i != 0 ? "," : "", moe_class_name(g->cls),
                     g->src.format->id, g->fmt.format->id,
                     moe_tier_text(g->plan.tier),
                     (unsigned long long) g->plan.slot_bytes, g->n_slots,
                     (unsigned long long) g->n_sets);
        moe_str_add_json(out, g->plan.why, strlen(g->plan.why));
        moe_str_addf(out, "}");
    }
    moe_str_addf(out, "]");
}

void
moe_runner_explain(const struct moe_runner *r,
                   const struct moe_runner_plan *plan, int json,
                   struct moe_str *out)
{
    if (json)
        moe_explain_json(r, plan, out);
    else
        moe_explain_table(r, plan, out);
}
