/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count.c - parameters, bytes and operations of a model.
 *
 * Sums over the table of matrices and over the layers; nothing is estimated
 * here.  Formulas: a product of (n, k) is 2nk operations a token; a score
 * and its use of the value are 2H(d + v) for each pair of tokens, of a
 * latent cache 2H(2r + rope) absorbed and 2H(nope + rope + v) expanded.
 */
#include "plan/shape.h"

#include "model/family.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

MOE_API moe_status
moe_plan_open(const char *what, moe_planner **out, struct moe_error *err)
{
    struct moe_planner *p = calloc(1, sizeof(*p));
    moe_status       status;

    *out = NULL;
    if (p == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "no memory for a plan");
    status = moe_shape_open(what, &p->s, err);
    if (status != MOE_OK) {
        free(p);
        return status;
    }
    *out = p;
    return MOE_OK;
}

MOE_API void
moe_plan_close(moe_planner *p)
{
    if (p == NULL)
        return;
    moe_shape_free(&p->s);
    free(p);
}

MOE_API moe_status
moe_plan_preset_at(size_t i, char *buf, size_t size)
{
    return moe_facts_at("models", i, buf, size) ? MOE_OK : MOE_E_NOT_FOUND;
}

MOE_API moe_status
moe_plan_model(const moe_planner *p, struct moe_plan_model *out)
{
    const struct moe_sketch *s = &p->s;
    struct moe_plan_model   m = { .struct_size = sizeof(m) };
    uint32_t                i;

    m.runnable = s->runnable;
    m.name = s->name;
    m.family = s->family;
    m.source = s->source;
    m.format = s->format;
    m.hidden = s->hidden;
    m.n_layers = s->n_layers;
    m.n_moe_layers = s->n_moe;
    m.vocab = s->vocab;
    m.heads = s->heads;
    m.kv_heads = s->kv_heads;
    m.head_dim = s->head_dim;
    m.max_context = s->max_context;
    m.n_experts = s->n_experts;
    m.top_k = s->top_k;
    m.latent = s->kv_lora != 0 ? s->kv_lora + s->rope_dim : 0;
    m.published = s->published;
    m.file_lacks = s->file_lacks;
    for (i = 0; i < s->n_layers; i++)
        m.limited_layers += s->layers[i].window != 0 || s->layers[i].chunk != 0;
    for (i = 0; i < s->n_m; i++) {
        const struct moe_matrix *x = &s->m[i];
        uint64_t                 one = x->n * x->k;

        m.params[x->cls] += one * x->count;
        m.total += one * x->count;
        m.active += one * x->used;
        if (!x->vector)
            m.flop_token += 2.0 * (double) one * (double) x->used;
    }
    m.active_table = m.active + (s->tied ? 0 : m.params[MOE_PLAN_EMBED]);
    if (s->n_experts != 0)
        m.per_expert = m.params[MOE_PLAN_EXPERTS] / s->n_moe / s->n_experts;
    if (out->struct_size != 0 && out->struct_size < m.struct_size)
        m.struct_size = out->struct_size;
    memcpy(out, &m, m.struct_size);
    return MOE_OK;
}

MOE_API moe_status
moe_plan_open_dense(const moe_planner *like, uint64_t params, const char *name,
                    moe_planner **out, struct moe_error *err)
{
    struct moe_planner *p = calloc(1, sizeof(*p));
    struct moe_sketch *s;
    uint64_t          rest = 0, unit, width;
    uint32_t          i, n = 0;

    *out = NULL;
    if (p == NULL)
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "no memory for a plan");
    s = &p->s;
    *s = like->s;
    s->layers = calloc(s->n_layers, sizeof(*s->layers));
    if (s->layers == NULL) {
        free(p);
        return moe_fail(err, MOE_E_NOMEM, ENOMEM, "no memory for a plan");
    }
    memcpy(s->layers, like->s.layers, s->n_layers * sizeof(*s->layers));
    for (i = 0; i < like->s.n_m; i++) {
        uint32_t cls = like->s.m[i].cls;

        if (cls == MOE_PLAN_EXPERTS || cls == MOE_PLAN_SHARED
            || cls == MOE_PLAN_ROUTER || cls == MOE_PLAN_DENSE)
            continue;
        s->m[n++] = like->s.m[i];
        rest += like->s.m[i].n * like->s.m[i].k * like->s.m[i].count;
    }
    s->n_m = n;
    unit = 3ull * s->hidden * s->n_layers;
    width = params > rest ? (params - rest + unit / 2) / unit : 0;
    if (width == 0 || width > MOE_MAX_WIDTH) {
        moe_plan_close(p);
        return moe_fail(err, MOE_E_INVAL, 0,
                        "a dense model like %s cannot have %llu parameters",
                        like->s.name, (unsigned long long) params);
    }
    for (i = 0; i < s->n_layers; i++) {
        s->layers[i].ffn = MOE_FFN_DENSE;
        s->layers[i].ffn_width = (uint32_t) width;
    }
    (void) moe_shape_add(s, MOE_PLAN_DENSE, 0, width, s->hidden,
                         2ull * s->n_layers, 2ull * s->n_layers);
    (void) moe_shape_add(s, MOE_PLAN_DENSE, 0, s->hidden, width, s->n_layers,
                         s->n_layers);
    s->n_experts = s->top_k = s->n_moe = 0;
    s->expert_width = s->shared_width = 0;
    s->published = 0;
    s->runnable = 0;
    snprintf(s->name, sizeof(s->name), "%.60s", name);
    snprintf(s->family, sizeof(s->family), "dense");
    snprintf(s->source, sizeof(s->source), "made up: the attention, depth and "
             "vocabulary of %s", like->s.name);
    *out = p;
    return MOE_OK;
}

MOE_API moe_status
moe_plan_weights(const moe_planner *p, const char *format, uint64_t *total,
                 uint64_t *by_class, struct moe_error *err)
{
    struct moe_formats f;
    double             sum[MOE_PLAN_CLASSES] = { 0 };
    uint64_t           all = 0;
    uint32_t           i;
    moe_status         status;

    status = moe_formats_of(&p->s, format, &f, err);
    if (status != MOE_OK)
        return status;
    for (i = 0; i < p->s.n_m; i++)
        sum[p->s.m[i].cls] += moe_format_bytes(f.of[p->s.m[i].cls],
                                               &p->s.m[i]);
    for (i = 0; i < MOE_PLAN_CLASSES; i++) {
        all += (uint64_t) llround(sum[i]);
        if (by_class != NULL)
            by_class[i] = (uint64_t) llround(sum[i]);
    }
    *total = all;
    return MOE_OK;
}

/* What layer l keeps of so many tokens. */
static double
kept(const struct moe_layer *l, double tokens)
{
    if (l->window != 0 && l->window < tokens)
        return l->window;
    if (l->chunk != 0 && l->chunk < tokens)
        return l->chunk;
    return tokens;
}

static double
row_elements(const struct moe_sketch *s)
{
    return s->kv_lora != 0 ? (double) s->kv_lora + s->rope_dim
                           : (double) s->kv_heads * (s->head_dim + s->v_dim);
}

MOE_API double
moe_plan_kv_bytes(const moe_planner *p, double tokens, double elem)
{
    const struct moe_sketch *s = &p->s;
    double                  rows = 0;
    uint32_t                l;

    for (l = 0; l < s->n_layers; l++)
        rows += kept(&s->layers[l], tokens);
    /* an indexer caches one 8-bit key a token and layer besides */
    return rows * row_elements(s) * elem
           + (double) s->index_dim * s->n_layers * tokens;
}

MOE_API uint64_t
moe_plan_kv_growth(const moe_planner *p, uint32_t elem)
{
    const struct moe_sketch *s = &p->s;
    uint64_t                layers = 0;
    uint32_t                l;

    for (l = 0; l < s->n_layers; l++)
        layers += s->layers[l].window == 0 && s->layers[l].chunk == 0;
    return layers * (uint64_t) row_elements(s) * elem;
}

/* Operations of a pair of tokens in one layer. */
static double
pair_flop(const struct moe_sketch *s, int absorbed)
{
    if (s->kv_lora == 0)
        return 2.0 * s->heads * ((double) s->head_dim + s->v_dim);
    if (absorbed)
        return 2.0 * s->heads * (2.0 * s->kv_lora + s->rope_dim);
    return 2.0 * s->heads * ((double) s->nope_dim + s->rope_dim + s->v_dim);
}

static double
product_flop(const moe_planner *p)
{
    struct moe_plan_model m = { .struct_size = sizeof(m) };

    (void) moe_plan_model(p, &m);
    return m.flop_token;
}

MOE_API double
moe_plan_decode_flop(const moe_planner *p, double context)
{
    double   pairs = 0;
    uint32_t l;

    for (l = 0; l < p->s.n_layers; l++)
        pairs += kept(&p->s.layers[l], context);
    return product_flop(p) + pairs * pair_flop(&p->s, 1);
}

/* Pairs of a causal prefill in a layer. */
static double
prefill_pairs(const struct moe_layer *l, double S)
{
    double c, full, rest;

    if (l->window != 0 && l->window < S) {
        c = l->window;
        return c * (c + 1) / 2 + (S - c) * c;
    }
    if (l->chunk != 0 && l->chunk < S) {
        c = l->chunk;
        full = floor(S / c);
        rest = S - full * c;
        return full * c * (c + 1) / 2 + rest * (rest + 1) / 2;
    }
    return S * (S + 1) / 2;
}

MOE_API double
moe_plan_prefill_flop(const moe_planner *p, double tokens, int all_logits)
{
    const struct moe_sketch *s = &p->s;
    double                  head = 2.0 * s->vocab * s->hidden, pairs = 0;
    uint32_t                l;

    for (l = 0; l < s->n_layers; l++)
        pairs += prefill_pairs(&s->layers[l], tokens);
    return (product_flop(p) - head) * tokens
           + head * (all_logits ? tokens : 1) + pairs * pair_flop(s, 0);
}
