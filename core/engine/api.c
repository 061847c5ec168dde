/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api.c - the questions a program may ask an engine.
 *
 * Owns nothing; copies answers out.
 */
#ifdef HAVE_CONFIG_H
#    include <config.h>
#endif

#include "engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef MOE_PKGDATADIR
#    define MOE_PKGDATADIR "/usr/local/share/moe-run"
#endif

/* Copies what both sides know of a struct that starts with struct_size. */
static void
moe_copy_out(void *out, const void *from, uint32_t size)
{
    uint32_t have;

    memcpy(&have, out, sizeof(have));
    if (have > size)
        have = size;
    if (have > sizeof(uint32_t))
        memcpy((uint8_t *) out + sizeof(uint32_t),
               (const uint8_t *) from + sizeof(uint32_t),
               have - sizeof(uint32_t));
}

const char *
moe_version(void)
{
    return PACKAGE_VERSION;
}

uint32_t
moe_plugin_abi(void)
{
    return MOE_ABI(MOE_ABI_MAJOR, MOE_ABI_MINOR);
}

const char *
moe_status_text(moe_status status)
{
    switch (status) {
    case MOE_OK:
        return "ok";
    case MOE_PENDING:
        return "pending";
    case MOE_E_INVAL:
        return "invalid";
    case MOE_E_UNSUPPORTED:
        return "unsupported";
    case MOE_E_NOT_FOUND:
        return "not found";
    case MOE_E_CORRUPT:
        return "corrupt";
    case MOE_E_IO:
        return "input/output error";
    case MOE_E_CANCELED:
        return "canceled";
    case MOE_E_OVER_BUDGET:
        return "over budget";
    case MOE_E_NOMEM:
        return "out of memory";
    case MOE_E_DEVICE:
        return "device failed";
    case MOE_E_TIMEOUT:
        return "timed out";
    case MOE_E_ABI:
        return "plugin refused";
    case MOE_E_ABSENT:
        return "absent";
    case MOE_E_INTERNAL:
        return "internal error";
    default:
        return "unknown status";
    }
}

void
moe_free(void *p)
{
    free(p);
}

moe_status
moe_engine_info(const moe_engine *e, struct moe_engine_info *out)
{
    struct moe_engine_info   i;
    struct moe_ledger_domain d;

    memset(&i, 0, sizeof(i));
    i.vocab = e->arch.vocab;
    i.max_context = e->plan.context;
    i.n_layers = e->arch.n_layers;
    i.n_moe_layers = moe_runner_expert_load(e->runner)->n_layers;
    i.n_experts = e->arch.n_experts;
    i.top_k = e->arch.top_k;
    i.threads = moe_pool_threads(e->pool);
    i.model = moe_checkpoint_dir(e->checkpoint);
    i.family = e->arch.family;
    i.backend = e->backend;
    moe_arch_params(&e->arch, &i.params_total, &i.params_active);
    i.weight_bytes = moe_runner_weight_bytes(e->runner);
    moe_ledger_domain(e->ledger, MOE_LEDGER_HOST, &d);
    i.budget_bytes = d.limit;
    i.reserved_bytes = d.used;
    i.n_slots = e->plan.slots;
    i.n_expert_total = e->plan.experts;
    moe_copy_out(out, &i, sizeof(i));
    return MOE_OK;
}

static moe_status
moe_engine_need_tokenizer(const moe_engine *e, struct moe_error *err)
{
    if (e->tokenizer != NULL)
        return MOE_OK;
    return moe_fail(err, MOE_E_NOT_FOUND, 0,
                    "%s: no tokenizer.json; give token ids, or a folder that "
                    "has one",
                    moe_checkpoint_dir(e->checkpoint));
}

moe_status
moe_engine_encode(const moe_engine *e, const char *text, size_t len,
                  uint32_t flags, uint32_t **ids, size_t *n,
                  struct moe_error *err)
{
    uint32_t   f = 0;
    moe_status st = moe_engine_need_tokenizer(e, err);

    if (st != MOE_OK)
        return st;
    if ((flags & MOE_ENCODE_BOS) != 0)
        f |= MOE_TOK_SPECIAL;
    if ((flags & MOE_ENCODE_SPECIAL) != 0)
        f |= MOE_TOK_PARSE_SPECIAL;
    return moe_tokenizer_encode(e->tokenizer, text, len, f, ids, n, err);
}

moe_status
moe_engine_decode(const moe_engine *e, const uint32_t *ids, size_t n,
                  uint32_t flags, char **text, size_t *len,
                  struct moe_error *err)
{
    moe_status st = moe_engine_need_tokenizer(e, err);

    if (st != MOE_OK)
        return st;
    return moe_tokenizer_decode(e->tokenizer, ids, n,
                                (flags & MOE_DECODE_SPECIAL) != 0
                                    ? 0 : MOE_TOK_SKIP_SPECIAL,
                                text, len, err);
}

moe_status
moe_engine_sampling(const moe_engine *e, struct moe_sampling *out)
{
    const moe_options  *o = e->options;
    struct moe_sampling s;
    int64_t             seed = moe_option_int(o, "generate.seed");

    memset(&s, 0, sizeof(s));
    s.temperature = (float) moe_option_float(o, "generate.temperature");
    s.top_k = (uint32_t) moe_option_int(o, "generate.top_k");
    s.top_p = (float) moe_option_float(o, "generate.top_p");
    s.min_p = (float) moe_option_float(o, "generate.min_p");
    s.repeat_penalty = (float) moe_option_float(o, "generate.repeat_penalty");
    s.presence_penalty = (float) moe_option_float(o,
                                                  "generate.presence_penalty");
    s.frequency_penalty
        = (float) moe_option_float(o, "generate.frequency_penalty");
    if (seed >= 0) {
        s.seed = (uint64_t) seed;
    } else {
        struct timespec t;

        (void) clock_gettime(CLOCK_REALTIME, &t);
        s.seed = (uint64_t) t.tv_sec * 1000000007u + (uint64_t) t.tv_nsec
                 + (uint64_t) getpid() * 0x9e3779b97f4a7c15u;
    }
    moe_copy_out(out, &s, sizeof(s));
    return MOE_OK;
}

moe_status
moe_engine_stats(const moe_engine *e, struct moe_stats *out)
{
    const struct moe_load   *l = moe_runner_expert_load(e->runner);
    struct moe_stats         s = e->stats;
    struct moe_ledger_domain d;

    s.n_moe_layers = l->n_layers;
    moe_runner_io(e->runner, &s.expert_hits, &s.expert_loads, &s.bytes_read);
    moe_ledger_domain(e->ledger, MOE_LEDGER_HOST, &d);
    s.reserved_bytes = d.used;
    s.peak_bytes = d.peak;
    s.budget_bytes = d.limit;
    s.imbalance = moe_load_imbalance(l);
    s.entropy = moe_load_entropy(l);
    s.distinct = moe_load_distinct(l);
    moe_copy_out(out, &s, sizeof(s));
    return MOE_OK;
}

moe_status
moe_engine_expert_load(const moe_engine *e, uint32_t i, uint32_t *layer,
                       uint64_t *counts)
{
    const struct moe_load *l = moe_runner_expert_load(e->runner);
    uint32_t               j, seen = 0;

    if (i >= l->n_layers)
        return MOE_E_NOT_FOUND;
    for (j = 0; j < e->arch.n_layers; j++)
        if (e->arch.layers[j].ffn == MOE_FFN_MOE && seen++ == i)
            *layer = j;
    memcpy(counts, l->counts + (size_t) i * l->n_experts,
           l->n_experts * sizeof(*counts));
    return MOE_OK;
}

moe_status
moe_default_model(const moe_options *o, char *buf, size_t size,
                  struct moe_error *err)
{
    (void) o;
    snprintf(buf, size, "%s/models/stories", MOE_PKGDATADIR);
    if (access(buf, F_OK) == 0)
        return MOE_OK;
    return moe_fail(err, MOE_E_NOT_FOUND, errno,
                    "no model given, and the one that ships with moe-run is "
                    "not at %s; give a folder with --model",
                    buf);
}

moe_status
moe_plugins_print(const moe_options *o, int json, moe_write_fn fn, void *ctx,
                  struct moe_error *err)
{
    struct moe_host_services h = {o, NULL, NULL};
    struct moe_registry     *r = NULL;
    moe_status               st = moe_ledger_open(&h.ledger, err);

    if (st == MOE_OK)
        st = moe_pool_open(1, &h.pool, err);
    if (st == MOE_OK)
        st = moe_services_registry(&h, &r, err);
    if (st == MOE_OK) {
        st = moe_registry_print(r, json, fn, ctx);
        if (st != MOE_OK)
            (void) moe_fail(err, st, 0, "plugins: output was refused");
    }
    moe_registry_close(r);
    moe_pool_close(h.pool);
    (void) moe_ledger_close(h.ledger);
    return st;
}

moe_status
moe_engine_chat_prompt(moe_engine *e, size_t n_messages,
                       const char *const *roles, const char *const *contents,
                       uint32_t **ids, size_t *n, struct moe_error *err)
{
    const struct moe_text_piece *pieces;
    size_t                       n_pieces;
    moe_status                   st = moe_engine_need_tokenizer(e, err);

    if (st == MOE_OK && e->chat == NULL)
        st = moe_template_open(moe_checkpoint_dir(e->checkpoint),
                               moe_option_text(e->options,
                                               "text.template_helper"),
                               &e->chat, err);
    if (st == MOE_OK)
        st = moe_template_render(e->chat, n_messages, roles, contents,
                                 &pieces, &n_pieces, err);
    /* The template writes the begin token itself. */
    if (st == MOE_OK)
        st = moe_tokenizer_encode_pieces(e->tokenizer, pieces, n_pieces,
                                         MOE_TOK_PARSE_SPECIAL, ids, n, err);
    return st;
}
