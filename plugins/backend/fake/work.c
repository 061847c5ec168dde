/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work.c - what a command of the fake device does, and what it costs.
 *
 * Answers query(), lays slots out, turns launch() into a command that needs
 * nothing of its caller any more, and runs commands with the reference
 * operations.  A mistake in an argument is found here when the call is made;
 * one in the data, when the work runs, as on a real device.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/fake/impl.h"

#define LAYOUT_F32    1u /* parts one after the other, f32 */
#define LAYOUT_PLANES 2u /* planes one after the other, as in the file */
#define ALIGN         64u

static uint64_t
align_up(uint64_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* ----------------------------------------------------------------- plans -- */

/* Sets slab's shape, offsets and slot_bytes from w; data stays alone. */
moe_status
fake_layout(const struct fake *f, const struct moe_weights *w, moe_slab *slab,
            struct moe_error *err)
{
    const struct moe_shape *shape = w->shape;
    int      plain = strcmp(w->format->id, "f32") == 0
                && w->format->revision == 1;
    uint64_t at = 0, len;
    uint32_t p, i;

    if (shape == NULL || shape->n_parts == 0
        || shape->n_parts > MOE_PARTS_MAX)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "fake: a slot has 1 to %u parts", MOE_PARTS_MAX);
    memset(slab, 0, sizeof(*slab));
    slab->shape = *shape;
    slab->generic = !plain;
    for (p = 0; p < shape->n_parts; p++) {
        const struct moe_affine *a = w->affine[p];

        if (shape->n[p] == 0 || shape->k[p] == 0
            || shape->n[p] > UINT32_MAX || shape->k[p] > UINT32_MAX)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "fake: part %u is %llu x %llu", p,
                            (unsigned long long) shape->n[p],
                            (unsigned long long) shape->k[p]);
        if (!plain && (!f->generic || a == NULL))
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "fake: no kernel for format %s%s",
                            w->format->id,
                            f->generic ? ", and it is not affine" : "");
        if (!plain)
            slab->affine[p] = *a;
        for (i = 0; i < MOE_PLANES_MAX; i++) {
            len = plain ? (i == 0 ? shape->n[p] * shape->k[p] * 4 : 0)
                        : moe_ref_affine_bytes(a, shape->n[p], shape->k[p],
                                               i);
            if (!plain && i == MOE_PLANE_ELEM && len == 0)
                return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                                "fake: format %s has an affine description "
                                "without size",
                                w->format->id);
            slab->at[p][i] = at;
            slab->len[p][i] = len;
            at += align_up(len);
        }
    }
    slab->slot_bytes = at;
    return MOE_OK;
}

/* Do the weights' parts fit the operation's n and k? */
static int
shape_fits(const struct moe_op *op, const struct moe_shape *s, uint32_t part)
{
    const struct moe_op_grouped_gemm *gemm;
    const struct moe_op_grouped_ffn  *ffn;
    const struct moe_op_embed        *embed;
    uint64_t                          n = 0;
    uint32_t                          p;

    switch (op->code) {
    case MOE_OP_EMBED:
        embed = (const struct moe_op_embed *) op;
        return part < s->n_parts && s->n[part] == embed->n
               && s->k[part] == embed->k;
    case MOE_OP_GROUPED_FFN:
        ffn = (const struct moe_op_grouped_ffn *) op;
        return s->n_parts == 3 && s->n[0] == ffn->f && s->k[0] == ffn->h
               && s->n[1] == ffn->f && s->k[1] == ffn->h
               && s->n[2] == ffn->h && s->k[2] == ffn->f;
    default:
        gemm = (const struct moe_op_grouped_gemm *) op;
        if (part >= s->n_parts || gemm->n_parts > s->n_parts - part)
            return 0;
        for (p = part; p < part + gemm->n_parts; p++) {
            if (s->k[p] != gemm->k)
                return 0;
            n += s->n[p];
        }
        return n == gemm->n;
    }
}

static uint32_t
op_dtype(const struct moe_op *op)
{
    switch (op->code) {
    case MOE_OP_GROUPED_GEMM:
        return ((const struct moe_op_grouped_gemm *) op)->dtype;
    case MOE_OP_GROUPED_FFN:
        return ((const struct moe_op_grouped_ffn *) op)->dtype;
    case MOE_OP_COMBINE:
        return ((const struct moe_op_combine *) op)->dtype;
    case MOE_OP_EMBED:
        return ((const struct moe_op_embed *) op)->dtype;
    case MOE_OP_NORM:
        return ((const struct moe_op_norm *) op)->dtype;
    case MOE_OP_ROPE_KV:
        return ((const struct moe_op_rope_kv *) op)->dtype;
    case MOE_OP_ATTENTION:
        return ((const struct moe_op_attention *) op)->dtype;
    case MOE_OP_GATHER:
        return ((const struct moe_op_gather *) op)->dtype;
    default:
        return MOE_F32;
    }
}

static int
has_weights(uint32_t code)
{
    return code == MOE_OP_GROUPED_GEMM || code == MOE_OP_GROUPED_FFN
           || code == MOE_OP_EMBED;
}

/* Scratch that the caller brings in op->work. */
static uint64_t
work_bytes(const struct moe_op *op)
{
    return op->code == MOE_OP_ROUTE ? 0 : moe_ref_scratch(op);
}

moe_status
fake_query(moe_device *dev, const struct moe_op *op,
           const struct moe_weights *w, struct moe_plan *out,
           struct moe_error *err)
{
    struct moe_extent x[MOE_EXTENTS_MAX];
    moe_slab          slab = { 0 };
    const char       *bad;
    moe_status        status;
    struct moe_plan   plan = { .struct_size = out->struct_size };

    if (moe_op_extents(op, 0, x, &bad) == 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0, "fake: %s", bad);
    if (op_dtype(op) != MOE_F32)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "fake: %s computes in f32 only",
                        moe_op_name(op->code));
    plan.tier = MOE_TIER_NATIVE;
    plan.slot_align = ALIGN;
    plan.work_bytes = work_bytes(op);
    snprintf(plan.why, sizeof(plan.why), "reference operation");
    if (has_weights(op->code)) {
        if (w == NULL || w->format == NULL)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "fake: %s needs weights to be asked about",
                            moe_op_name(op->code));
        status = fake_layout(dev->fake, w, &slab, err);
        if (status != MOE_OK)
            return status;
        /* A query does not say which parts of the slot an operation takes,
         * but an expert is always all of its slot. */
        if (op->code == MOE_OP_GROUPED_FFN && !shape_fits(op, w->shape, 0))
            return moe_fail(err, MOE_E_INVAL, 0,
                            "fake: %s and its weights differ in shape",
                            moe_op_name(op->code));
        plan.tier = slab.generic ? MOE_TIER_GENERIC : MOE_TIER_NATIVE;
        plan.layout = slab.generic ? LAYOUT_PLANES : LAYOUT_F32;
        plan.slot_bytes = slab.slot_bytes;
        snprintf(plan.why, sizeof(plan.why), "reference operation, %s",
                 slab.generic ? "affine planes" : "f32 weights");
    }
    *out = plan;
    return MOE_OK;
}

/* -------------------------------------------------------------- launches -- */

static struct command *
command_new(enum command_kind kind)
{
    struct command *c = calloc(1, sizeof(*c));

    if (c != NULL)
        c->kind = kind;
    return c;
}

static moe_status
no_memory(struct moe_error *err)
{
    return moe_fail(err, MOE_E_NOMEM, 0, "fake: out of memory");
}

moe_status
fake_slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
                 const struct moe_weight_src *src, struct moe_error *err)
{
    struct command *c;
    uint32_t        p, i;

    if (slab->dev != s->dev || slab->dead || slot >= slab->n_slots)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "fake: slot %u of %u, or a slab of another device",
                        slot, slab->n_slots);
    c = command_new(CMD_SLOT);
    if (c == NULL)
        return no_memory(err);
    for (p = 0; p < slab->shape.n_parts; p++) {
        const struct moe_tensor *t = src->part[p];

        if (t == NULL || t->n != slab->shape.n[p]
            || t->k != slab->shape.k[p]) {
            free(c);
            return moe_fail(err, MOE_E_INVAL, 0,
                            "fake: part %u is absent or not %llu x %llu", p,
                            (unsigned long long) slab->shape.n[p],
                            (unsigned long long) slab->shape.k[p]);
        }
        for (i = 0; i < MOE_PLANES_MAX; i++) {
            uint64_t len = slab->len[p][i];

            if (len == 0)
                continue;
            if (t->plane[i] == NULL || t->len[i] < len) {
                free(c);
                return moe_fail(err, MOE_E_INVAL, 0,
                                "fake: part %u: plane %u has %llu bytes, "
                                "%llu needed",
                                p, i,
                                t->plane[i] != NULL
                                    ? (unsigned long long) t->len[i]
                                    : 0ull,
                                (unsigned long long) len);
            }
            c->plane[p][i] = t->plane[i];
            c->bytes += len;
        }
    }
    c->slab = slab;
    c->slot = slot;
    slab->refs++;
    c->fail = (uint32_t) fake_count(s->dev->fake, FAKE_SLOT);
    fake_push(s, c);
    return MOE_OK;
}

/* Copies what the caller's payload points to. */
static moe_status
copy_op(struct command *c, const struct moe_op *op, struct moe_error *err)
{
    uint32_t               size = moe_op_size(op->code), n;
    const struct moe_wref *w;

    c->op = malloc(size);
    if (c->op == NULL)
        return no_memory(err);
    memcpy(c->op, op, size);
    n = moe_op_wrefs(op, &w);
    if (n == 0)
        return MOE_OK;
    c->w = calloc(n, sizeof(*c->w));
    if (c->w == NULL)
        return no_memory(err);
    memcpy(c->w, w, n * sizeof(*w));
    c->n_w = 0; /* references taken so far */
    if (op->code == MOE_OP_GROUPED_GEMM)
        ((struct moe_op_grouped_gemm *) c->op)->w = c->w;
    if (op->code == MOE_OP_GROUPED_FFN) {
        struct moe_op_grouped_ffn *f = (struct moe_op_grouped_ffn *) c->op;

        f->w = c->w;
        if (f->experts != NULL) {
            c->experts = malloc(n * sizeof(*c->experts));
            if (c->experts == NULL)
                return no_memory(err);
            memcpy(c->experts, f->experts, n * sizeof(*c->experts));
            f->experts = c->experts;
        }
    }
    return MOE_OK;
}

static int
same_shape(const moe_slab *a, const moe_slab *b)
{
    uint32_t p;

    if (a->generic != b->generic || a->shape.n_parts != b->shape.n_parts)
        return 0;
    for (p = 0; p < a->shape.n_parts; p++)
        if (a->shape.n[p] != b->shape.n[p] || a->shape.k[p] != b->shape.k[p])
            return 0;
    return 1;
}

/* Checks the slots and takes a reference to each slab. */
static moe_status
bind_weights(moe_stream *s, struct command *c, struct moe_error *err)
{
    const struct moe_wref *w;
    uint32_t               n = moe_op_wrefs(c->op, &w), g;

    for (g = 0; g < n; g++) {
        moe_slab *slab = c->w[g].slab;
        uint32_t  part = c->op->code == MOE_OP_GROUPED_FFN ? 0
                                                           : c->w[g].part;

        if (slab == NULL || slab->dev != s->dev || slab->dead
            || c->w[g].slot >= slab->n_slots
            || !shape_fits(c->op, &slab->shape, part))
            return moe_fail(err, MOE_E_INVAL, 0,
                            "fake: %s: weight %u is no slot of this device "
                            "or has another shape",
                            moe_op_name(c->op->code), g);
        if (!same_shape(slab, c->w[0].slab))
            return moe_fail(err, MOE_E_INVAL, 0,
                            "fake: %s: the slabs are not of one plan",
                            moe_op_name(c->op->code));
        slab->refs++;
        c->n_w++;
    }
    return MOE_OK;
}

static moe_status
bind_buffers(moe_stream *s, struct command *c, struct moe_error *err)
{
    struct moe_extent x[MOE_EXTENTS_MAX];
    const char       *bad;
    uint32_t          i, n = moe_op_extents(c->op, 1, x, &bad);

    if (n == 0)
        return moe_fail(err, MOE_E_INVAL, 0, "fake: %s", bad);
    for (i = 0; i < n; i++) {
        struct moe_buf *b = moe_extent_buf(c->op, &x[i]);
        uint64_t        need = x[i].bytes;

        if ((x[i].access & MOE_ACCESS_WORK) != 0)
            need = work_bytes(c->op);
        if (b->mem == NULL) {
            if ((x[i].access & MOE_ACCESS_WORK) != 0 && need != 0)
                return moe_fail(err, MOE_E_INVAL, 0,
                                "fake: %s needs %llu bytes of work",
                                moe_op_name(c->op->code),
                                (unsigned long long) need);
            continue;
        }
        if (b->mem->dev != s->dev || b->mem->dead
            || b->off > b->mem->bytes || need > b->mem->bytes - b->off
            || ((x[i].access & MOE_ACCESS_WORK) != 0 && b->off % 8 != 0))
            return moe_fail(err, MOE_E_INVAL, 0,
                            "fake: %s: %s needs %llu bytes from %llu on, its "
                            "memory has %llu",
                            moe_op_name(c->op->code), x[i].field,
                            (unsigned long long) need,
                            (unsigned long long) b->off,
                            (unsigned long long) b->mem->bytes);
        b->mem->refs++;
        c->mem[i] = b->mem;
        c->span[i].p = b->mem->data + b->off;
        c->span[i].len = b->mem->bytes - b->off;
    }
    return MOE_OK;
}

moe_status
fake_launch(moe_stream *s, const struct moe_op *op, struct moe_error *err)
{
    struct moe_extent x[MOE_EXTENTS_MAX];
    struct command   *c;
    const char       *bad;
    moe_status        status;

    if (moe_op_extents(op, 1, x, &bad) == 0)
        return moe_fail(err, MOE_E_INVAL, 0, "fake: %s", bad);
    if (op_dtype(op) != MOE_F32)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "fake: %s computes in f32 only",
                        moe_op_name(op->code));
    c = command_new(CMD_LAUNCH);
    if (c == NULL)
        return no_memory(err);
    status = copy_op(c, op, err);
    if (status == MOE_OK)
        status = bind_weights(s, c, err);
    if (status == MOE_OK)
        status = bind_buffers(s, c, err);
    if (status != MOE_OK) {
        fake_command_free(c);
        return status;
    }
    c->fail = (uint32_t) fake_count(s->dev->fake, FAKE_LAUNCH);
    fake_push(s, c);
    return MOE_OK;
}

/* ------------------------------------------------------------- execution -- */

/* Row r of a part: f32 as it lies, or an affine format's numbers.  A slot
 * that was never filled reads as NaN, whatever its bytes. */
static const float *
weight_row(void *ctx, uint32_t group, uint32_t part, uint64_t r,
           float *scratch)
{
    const struct moe_wref *w = (const struct moe_wref *) ctx + group;
    const moe_slab        *slab = w->slab;
    const uint8_t         *slot = slab->data + w->slot * slab->slot_bytes;
    const void            *plane[MOE_PLANES_MAX];
    uint64_t               k = slab->shape.k[part], c;
    uint32_t               i;

    if (!slab->generic && slab->filled[w->slot])
        return (const float *) (const void *) (slot + slab->at[part][0])
               + r * k;
    for (i = 0; i < MOE_PLANES_MAX; i++)
        plane[i] = slot + slab->at[part][i];
    for (c = 0; c < k; c++)
        scratch[c] = slab->filled[w->slot]
                         ? (float) moe_ref_affine(&slab->affine[part], plane,
                                                  r, c)
                         : NAN;
    return scratch;
}

static const char *
run_launch(moe_device *dev, struct command *c)
{
    const struct moe_host *host = dev->fake->host;
    struct moe_ref_weights w = { c->w, weight_row, NULL };
    const char            *bad;
    void                  *own = NULL, *scratch = NULL;

    if (c->n_w > 0)
        w.shape = &c->w[0].slab->shape;
    if (c->op->code == MOE_OP_GROUPED_GEMM)
        scratch = c->span[MOE_X_GEMM_WORK].p;
    else if (c->op->code == MOE_OP_GROUPED_FFN)
        scratch = c->span[MOE_X_FFN_WORK].p;
    else if (c->op->code == MOE_OP_ATTENTION)
        scratch = c->span[MOE_X_ATTN_WORK].p;
    else if (moe_ref_scratch(c->op) > 0) {
        scratch = own = host->alloc(host->ctx, moe_ref_scratch(c->op), 64);
        if (own == NULL)
            return "out of host memory";
    }
    bad = moe_ref_run(c->op, c->span, c->n_w > 0 ? &w : NULL, scratch);
    host->free(host->ctx, own);
    return bad;
}

static void
run_slot(struct command *c)
{
    moe_slab *slab = c->slab;
    uint8_t  *slot = slab->data + c->slot * slab->slot_bytes;
    uint32_t  p, i;

    for (p = 0; p < slab->shape.n_parts; p++)
        for (i = 0; i < MOE_PLANES_MAX; i++)
            if (slab->len[p][i] > 0)
                memcpy(slot + slab->at[p][i], c->plane[p][i],
                       slab->len[p][i]);
    slab->filled[c->slot] = 1;
}

/* NULL, or what is wrong: the device then faults. */
const char *
fake_execute(moe_device *dev, struct command *c)
{
    uint32_t i;

    if (c->fail)
        return "a failure that `fail` asked for";
    for (i = 0; i < MOE_EXTENTS_MAX; i++)
        if (c->mem[i] != NULL && c->mem[i]->dead)
            return "memory was freed before the work that uses it was done";
    for (i = 0; i < c->n_w; i++)
        if (c->w[i].slab->dead)
            return "a slab was destroyed before the work that uses it was "
                   "done";
    if (c->slab != NULL && c->slab->dead)
        return "a slab was destroyed before it was filled";
    switch (c->kind) {
    case CMD_UPLOAD:
        memcpy(c->mem[0]->data + c->off[0], c->src, c->bytes);
        break;
    case CMD_DOWNLOAD:
        memcpy(c->dst, c->mem[0]->data + c->off[0], c->bytes);
        break;
    case CMD_COPY:
        memmove(c->mem[0]->data + c->off[0], c->mem[1]->data + c->off[1],
                c->gen);
        break;
    case CMD_SLOT:
        run_slot(c);
        break;
    case CMD_LAUNCH:
        return run_launch(dev, c);
    default: /* RECORD, WAIT: queue.c did it */
        break;
    }
    return NULL;
}
