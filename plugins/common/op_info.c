/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op_info.c - what an operation touches.
 *
 * Every size is computed with overflow in mind: a payload is data.
 */

#include "common/op_info.h"

#include <string.h>

struct list {
    struct moe_extent *out;
    uint32_t           n;
    int                launch;
    const char        *bad;
};

/* rows x width elements of elem bytes, rows ld apart; 0 rows touch nothing */
static uint64_t
span(struct list *l, uint64_t rows, uint64_t width, uint64_t ld,
     uint64_t elem)
{
    uint64_t n;

    if (!l->launch || rows == 0 || width == 0)
        return 0;
    if (ld < width && l->bad == NULL)
        l->bad = "a row stride (ld) is smaller than the row";
    if (__builtin_mul_overflow(rows - 1, ld, &n)
        || __builtin_add_overflow(n, width, &n)
        || __builtin_mul_overflow(n, elem, &n)) {
        if (l->bad == NULL)
            l->bad = "a buffer's size overflows 64 bits";
        return UINT64_MAX;
    }
    return n;
}

static void
add(struct list *l, const char *field, size_t offset, uint32_t access,
    int optional, uint32_t elem, uint64_t bytes)
{
    struct moe_extent *x = &l->out[l->n++];

    x->field = field;
    x->offset = (uint32_t) offset;
    x->access = access;
    x->optional = (uint32_t) optional;
    x->elem = elem;
    x->bytes = bytes;
}

static void
need(struct list *l, int cond, const char *rule)
{
    if (!cond && l->bad == NULL)
        l->bad = rule;
}

#define RD MOE_ACCESS_READ
#define WR MOE_ACCESS_WRITE

/* Element size of activations; an unknown type breaks a rule. */
static uint32_t
act_size(struct list *l, uint32_t dtype)
{
    need(l, dtype == MOE_F32 || dtype == MOE_F16 || dtype == MOE_BF16,
         "dtype is not F32, F16 or BF16");
    return moe_dtype_size(dtype) != 0 ? moe_dtype_size(dtype) : 1;
}

static void
list_embed(struct list *l, const struct moe_op_embed *o)
{
    uint32_t es = act_size(l, o->dtype);

    need(l, o->n > 0 && o->k > 0, "EMBED: n and k must not be 0");
    add(l, "ids", offsetof(struct moe_op_embed, ids), RD, 0, 4,
        span(l, o->rows, 1, 1, 4));
    add(l, "y", offsetof(struct moe_op_embed, y), WR, 0, es,
        span(l, o->rows, o->k, o->ldy, es));
}

static void
list_norm(struct list *l, const struct moe_op_norm *o)
{
    uint32_t es = act_size(l, o->dtype);

    need(l, o->kind == MOE_NORM_RMS || o->kind == MOE_NORM_LAYER,
         "NORM: kind is neither RMS nor LAYER");
    need(l, o->n > 0, "NORM: n must not be 0");
    add(l, "x", offsetof(struct moe_op_norm, x), RD, 0, es,
        span(l, o->rows, o->n, o->ldx, es));
    add(l, "w", offsetof(struct moe_op_norm, w), RD, 1, 4,
        span(l, o->rows != 0, o->n, o->n, 4));
    add(l, "b", offsetof(struct moe_op_norm, b), RD, 1, 4,
        span(l, o->rows != 0, o->n, o->n, 4));
    add(l, "y", offsetof(struct moe_op_norm, y), WR, 0, es,
        span(l, o->rows, o->n, o->ldy, es));
}

static void
list_gemm(struct list *l, const struct moe_op_grouped_gemm *o)
{
    uint32_t es = act_size(l, o->dtype);
    uint32_t acc = (o->op.flags & MOE_GEMM_ACCUMULATE) != 0 ? RD : 0;

    need(l, o->n_groups > 0 && o->n > 0 && o->k > 0,
         "GROUPED_GEMM: n_groups, n and k must not be 0");
    need(l, o->n_parts >= 1 && o->n_parts <= MOE_PARTS_MAX,
         "GROUPED_GEMM: n_parts must be 1 to 4");
    if (l->launch) {
        need(l, o->w != NULL, "GROUPED_GEMM: w is NULL");
        need(l, o->offsets.mem != NULL || o->n_groups == 1,
             "GROUPED_GEMM: offsets may be absent for one group only");
        need(l, o->bias.mem == NULL || o->n_groups == 1,
             "GROUPED_GEMM: a bias needs n_groups 1");
    }
    add(l, "offsets", offsetof(struct moe_op_grouped_gemm, offsets), RD, 1, 4,
        span(l, (uint64_t) o->n_groups + 1, 1, 1, 4));
    add(l, "bias", offsetof(struct moe_op_grouped_gemm, bias), RD, 1, 4,
        span(l, o->rows != 0, o->n, o->n, 4));
    add(l, "x", offsetof(struct moe_op_grouped_gemm, x), RD, 0, es,
        span(l, o->rows, o->k, o->ldx, es));
    add(l, "y", offsetof(struct moe_op_grouped_gemm, y), WR | acc, 0, es,
        span(l, o->rows, o->n, o->ldy, es));
    add(l, "work", offsetof(struct moe_op_grouped_gemm, work),
        MOE_ACCESS_WORK, 1, 1, 0);
}

static void
list_ffn(struct list *l, const struct moe_op_grouped_ffn *o)
{
    uint32_t es = act_size(l, o->dtype), g;
    uint32_t acc = (o->op.flags & MOE_FFN_ACCUMULATE) != 0 ? RD : 0;
    uint64_t pairs = (uint64_t) o->rows * o->k, last = 0;
    int      routed = l->launch && o->perm.mem != NULL;
    int      scaled = (o->op.flags & MOE_FFN_SCALE_INPUT) != 0;

    need(l, o->n_groups > 0 && o->k > 0 && o->h > 0 && o->f > 0,
         "GROUPED_FFN: n_groups, k, h and f must not be 0");
    need(l, o->act >= MOE_ACT_SILU && o->act <= MOE_ACT_RELU,
         "GROUPED_FFN: act is unknown");
    if (l->launch) {
        need(l, o->w != NULL, "GROUPED_FFN: w is NULL");
        need(l, routed || (o->n_groups == 1 && o->k == 1),
             "GROUPED_FFN: without perm, n_groups and k must be 1");
        need(l, !routed || o->experts != NULL,
             "GROUPED_FFN: experts is NULL");
        need(l, !routed || (o->op.flags & MOE_FFN_ACCUMULATE) == 0,
             "GROUPED_FFN: ACCUMULATE is for the dense form");
        need(l, !scaled || o->weights.mem != NULL,
             "GROUPED_FFN: SCALE_INPUT needs weights");
    }
    if (routed && o->experts != NULL)
        for (g = 0; g < o->n_groups; g++)
            last = o->experts[g] > last ? o->experts[g] : last;
    add(l, "perm", offsetof(struct moe_op_grouped_ffn, perm), RD, 1, 4,
        span(l, routed ? pairs : 0, 1, 1, 4));
    add(l, "offsets", offsetof(struct moe_op_grouped_ffn, offsets), RD,
        !routed, 4, span(l, routed ? last + 2 : 0, 1, 1, 4));
    add(l, "weights", offsetof(struct moe_op_grouped_ffn, weights), RD,
        !scaled, 4, span(l, scaled ? pairs : 0, 1, 1, 4));
    add(l, "x", offsetof(struct moe_op_grouped_ffn, x), RD, 0, es,
        span(l, o->rows, o->h, o->ldx, es));
    add(l, "y", offsetof(struct moe_op_grouped_ffn, y), WR | acc, 0, es,
        span(l, pairs, o->h, o->ldy, es));
    add(l, "work", offsetof(struct moe_op_grouped_ffn, work), MOE_ACCESS_WORK,
        1, 1, 0);
    need(l, !l->launch || !routed
                || (o->gate_bias.mem == NULL && o->up_bias.mem == NULL
                    && o->down_bias.mem == NULL),
         "GROUPED_FFN: biases are for the dense form");
    add(l, "gate_bias", offsetof(struct moe_op_grouped_ffn, gate_bias), RD, 1,
        4, span(l, 1, o->f, o->f, 4));
    add(l, "up_bias", offsetof(struct moe_op_grouped_ffn, up_bias), RD, 1, 4,
        span(l, 1, o->f, o->f, 4));
    add(l, "down_bias", offsetof(struct moe_op_grouped_ffn, down_bias), RD, 1,
        4, span(l, 1, o->h, o->h, 4));
}

static void
list_route(struct list *l, const struct moe_op_route *o)
{
    uint64_t pairs = (uint64_t) o->rows * o->k;
    uint32_t per = o->n_group > 1 ? o->n_experts / o->n_group : o->n_experts;

    need(l, o->n_experts > 0 && o->k > 0 && o->k <= o->n_experts,
         "ROUTE: k must be 1 to n_experts");
    need(l, o->score >= MOE_SCORE_SOFTMAX
                && o->score <= MOE_SCORE_TOPK_SOFTMAX,
         "ROUTE: score is unknown");
    need(l, o->n_group <= 1
                || (o->n_experts % o->n_group == 0 && o->topk_group >= 1
                    && o->topk_group <= o->n_group
                    && (uint64_t) per * o->topk_group >= o->k),
         "ROUTE: n_group must divide n_experts and leave k experts in "
         "topk_group groups");
    add(l, "logits", offsetof(struct moe_op_route, logits), RD, 0, 4,
        span(l, o->rows, o->n_experts, o->ld, 4));
    add(l, "sel_bias", offsetof(struct moe_op_route, sel_bias), RD, 1, 4,
        span(l, o->rows != 0, o->n_experts, o->n_experts, 4));
    add(l, "ids", offsetof(struct moe_op_route, ids), WR, 0, 4,
        span(l, pairs, 1, 1, 4));
    add(l, "weights", offsetof(struct moe_op_route, weights), WR, 0, 4,
        span(l, pairs, 1, 1, 4));
    add(l, "offsets", offsetof(struct moe_op_route, offsets), WR, 0, 4,
        span(l, (uint64_t) o->n_experts + 1, 1, 1, 4));
    add(l, "perm", offsetof(struct moe_op_route, perm), WR, 0, 4,
        span(l, pairs, 1, 1, 4));
}

static void
list_combine(struct list *l, const struct moe_op_combine *o)
{
    uint32_t es = act_size(l, o->dtype);
    uint64_t pairs = (uint64_t) o->rows * o->k;
    int      weighted = (o->op.flags & MOE_COMBINE_UNWEIGHTED) == 0;

    need(l, o->h > 0, "COMBINE: h must not be 0");
    add(l, "pairs", offsetof(struct moe_op_combine, pairs), RD, o->k == 0, es,
        span(l, pairs, o->h, o->ldp, es));
    add(l, "weights", offsetof(struct moe_op_combine, weights), RD,
        !weighted || o->k == 0, 4, span(l, weighted ? pairs : 0, 1, 1, 4));
    add(l, "shared", offsetof(struct moe_op_combine, shared), RD, 1, es,
        l->launch && o->shared.mem != NULL
            ? span(l, o->rows, o->h, o->lds, es)
            : 0);
    add(l, "shared_gate", offsetof(struct moe_op_combine, shared_gate), RD, 1,
        es, span(l, o->rows, 1, 1, es));
    add(l, "y", offsetof(struct moe_op_combine, y), RD | WR, 0, es,
        span(l, o->rows, o->h, o->ldy, es));
}

/* The cache: one page at least, as far as the data says at most. */
static void
list_kv(struct list *l, const struct moe_kv *kv, size_t at, int any,
        uint32_t access)
{
    uint32_t es = moe_dtype_size(kv->dtype);
    uint64_t rows = (uint64_t) kv->page_rows * kv->kv_heads;

    need(l, es != 0 && kv->page_rows > 0 && kv->kv_heads > 0
                && kv->k_dim > 0 && kv->v_dim > 0,
         "the KV cache's dtype is unknown or one of its sizes is 0");
    es = es != 0 ? es : 1;
    add(l, "kv.k", at + offsetof(struct moe_kv, k), access | MOE_ACCESS_OPEN,
        0, es, any ? span(l, rows, kv->k_dim, kv->k_dim, es) : 0);
    add(l, "kv.v", at + offsetof(struct moe_kv, v), access | MOE_ACCESS_OPEN,
        0, es, any ? span(l, rows, kv->v_dim, kv->v_dim, es) : 0);
}

static void
list_rope(struct list *l, const struct moe_op_rope_kv *o)
{
    uint32_t es = act_size(l, o->dtype);
    uint64_t wq = (uint64_t) o->heads * o->kv.k_dim;
    uint64_t wk = (uint64_t) o->kv.kv_heads * o->kv.k_dim;
    uint64_t wv = (uint64_t) o->kv.kv_heads * o->kv.v_dim;
    int      normed = o->norm_span != 0;
    uint64_t any = o->rows != 0;

    need(l, o->heads > 0, "ROPE_KV: heads must not be 0");
    need(l, o->norm_span <= 2, "ROPE_KV: norm_span must be 0, 1 or 2");
    need(l, o->rot_dim % 2 == 0 && o->rot_dim <= o->kv.k_dim,
         "ROPE_KV: rot_dim must be even and at most k_dim");
    need(l, o->rope_kind <= MOE_ROPE_INTERLEAVED,
         "ROPE_KV: rope_kind is unknown");
    add(l, "qkv", offsetof(struct moe_op_rope_kv, qkv), RD | WR, 0, es,
        span(l, o->rows, wq + wk + wv, o->ld, es));
    add(l, "q_norm", offsetof(struct moe_op_rope_kv, q_norm), RD, !normed, 4,
        normed ? span(l, any, o->norm_span == 1 ? o->kv.k_dim : wq,
                      UINT64_MAX, 4)
               : 0);
    add(l, "k_norm", offsetof(struct moe_op_rope_kv, k_norm), RD, !normed, 4,
        normed ? span(l, any, o->norm_span == 1 ? o->kv.k_dim : wk,
                      UINT64_MAX, 4)
               : 0);
    add(l, "inv_freq", offsetof(struct moe_op_rope_kv, inv_freq), RD,
        o->rot_dim == 0, 4, span(l, any, o->rot_dim / 2, UINT64_MAX, 4));
    add(l, "positions", offsetof(struct moe_op_rope_kv, positions), RD,
        o->rot_dim == 0, 4, span(l, o->rot_dim != 0 ? o->rows : 0, 1, 1, 4));
    add(l, "slots", offsetof(struct moe_op_rope_kv, slots), RD, 0, 4,
        span(l, o->rows, 1, 1, 4));
    list_kv(l, &o->kv, offsetof(struct moe_op_rope_kv, kv), any != 0, WR);
}

static void
list_attention(struct list *l, const struct moe_op_attention *o)
{
    uint32_t es = act_size(l, o->dtype);
    uint64_t any = o->rows != 0;

    need(l, o->heads > 0 && o->kv.kv_heads > 0
                && o->heads % o->kv.kv_heads == 0,
         "ATTENTION: heads must be a multiple of kv_heads");
    need(l, !l->launch || o->rows == 0
                || (o->n_seqs > 0 && o->max_pages > 0),
         "ATTENTION: n_seqs and max_pages must not be 0");
    add(l, "q", offsetof(struct moe_op_attention, q), RD, 0, es,
        span(l, o->rows, (uint64_t) o->heads * o->kv.k_dim, o->ldq, es));
    add(l, "y", offsetof(struct moe_op_attention, y), WR, 0, es,
        span(l, o->rows, (uint64_t) o->heads * o->kv.v_dim, o->ldy, es));
    add(l, "seqs", offsetof(struct moe_op_attention, seqs), RD, 0, 4,
        span(l, o->rows, 1, 1, 4));
    add(l, "positions", offsetof(struct moe_op_attention, positions), RD, 0,
        4, span(l, o->rows, 1, 1, 4));
    add(l, "pages", offsetof(struct moe_op_attention, pages), RD, 0, 4,
        span(l, any != 0 ? o->n_seqs : 0, o->max_pages, o->max_pages, 4));
    add(l, "sinks", offsetof(struct moe_op_attention, sinks), RD, 1, 4,
        span(l, any, o->heads, o->heads, 4));
    list_kv(l, &o->kv, offsetof(struct moe_op_attention, kv), any != 0, RD);
    add(l, "work", offsetof(struct moe_op_attention, work), MOE_ACCESS_WORK,
        1, 1, 0);
}

static void
list_gather(struct list *l, const struct moe_op_gather *o)
{
    uint32_t es = act_size(l, o->dtype);

    need(l, o->n > 0, "GATHER: n must not be 0");
    add(l, "index", offsetof(struct moe_op_gather, index), RD, 0, 4,
        span(l, o->rows, 1, 1, 4));
    add(l, "x", offsetof(struct moe_op_gather, x), RD | MOE_ACCESS_OPEN, 0,
        es, span(l, o->rows != 0, o->n, o->ldx, es));
    add(l, "y", offsetof(struct moe_op_gather, y), WR, 0, es,
        span(l, o->rows, o->n, o->ldy, es));
}

static const struct {
    const char *name;
    uint32_t    size;
} ops[] = {
    { "?", 0 },
    { "GROUPED_GEMM", sizeof(struct moe_op_grouped_gemm) },
    { "GROUPED_FFN", sizeof(struct moe_op_grouped_ffn) },
    { "ROUTE", sizeof(struct moe_op_route) },
    { "COMBINE", sizeof(struct moe_op_combine) },
    { "EMBED", sizeof(struct moe_op_embed) },
    { "NORM", sizeof(struct moe_op_norm) },
    { "ROPE_KV", sizeof(struct moe_op_rope_kv) },
    { "ATTENTION", sizeof(struct moe_op_attention) },
    { "GATHER", sizeof(struct moe_op_gather) },
};
#define N_OPS (sizeof(ops) / sizeof(*ops))

uint32_t
moe_op_size(uint32_t code)
{
    return code < N_OPS ? ops[code].size : 0;
}

const char *
moe_op_name(uint32_t code)
{
    return ops[code < N_OPS ? code : 0].name;
}

uint32_t
moe_op_extents(const struct moe_op *op, int launch,
               struct moe_extent out[MOE_EXTENTS_MAX], const char **bad)
{
    struct list l = { out, 0, launch, NULL };
    uint32_t    size, i;

    size = op->struct_size >= sizeof(*op) ? moe_op_size(op->code) : 0;
    if (size == 0 || op->struct_size < size) {
        *bad = size == 0 ? "the operation's code is unknown"
                         : "the operation's struct_size is too small";
        return 0;
    }
    switch (op->code) {
    case MOE_OP_GROUPED_GEMM:
        list_gemm(&l, (const struct moe_op_grouped_gemm *) op);
        break;
    case MOE_OP_GROUPED_FFN:
        list_ffn(&l, (const struct moe_op_grouped_ffn *) op);
        break;
    case MOE_OP_ROUTE:
        list_route(&l, (const struct moe_op_route *) op);
        break;
    case MOE_OP_COMBINE:
        list_combine(&l, (const struct moe_op_combine *) op);
        break;
    case MOE_OP_EMBED:
        list_embed(&l, (const struct moe_op_embed *) op);
        break;
    case MOE_OP_NORM:
        list_norm(&l, (const struct moe_op_norm *) op);
        break;
    case MOE_OP_ROPE_KV:
        list_rope(&l, (const struct moe_op_rope_kv *) op);
        break;
    case MOE_OP_ATTENTION:
        list_attention(&l, (const struct moe_op_attention *) op);
        break;
    default:
        list_gather(&l, (const struct moe_op_gather *) op);
        break;
    }
    for (i = 0; i < l.n && launch && l.bad == NULL; i++) {
        struct moe_buf b;

        memcpy(&b, (const char *) op + out[i].offset, sizeof(b));
        if (b.mem == NULL && !out[i].optional && out[i].bytes != 0)
            l.bad = "a buffer that is required is absent";
        if (b.mem != NULL && b.off % out[i].elem != 0)
            l.bad = "a buffer's offset is no multiple of its element";
    }
    *bad = l.bad;
    return l.bad == NULL ? l.n : 0;
}

uint32_t
moe_op_wrefs(const struct moe_op *op, const struct moe_wref **w)
{
    switch (op->code) {
    case MOE_OP_GROUPED_GEMM:
        *w = ((const struct moe_op_grouped_gemm *) op)->w;
        return ((const struct moe_op_grouped_gemm *) op)->n_groups;
    case MOE_OP_GROUPED_FFN:
        *w = ((const struct moe_op_grouped_ffn *) op)->w;
        return ((const struct moe_op_grouped_ffn *) op)->n_groups;
    case MOE_OP_EMBED:
        *w = &((const struct moe_op_embed *) op)->w;
        return 1;
    default:
        *w = NULL;
        return 0;
    }
}

struct moe_buf *
moe_extent_buf(struct moe_op *op, const struct moe_extent *x)
{
    return (struct moe_buf *) (void *) ((char *) op + x->offset);
}
