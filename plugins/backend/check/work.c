/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work.c - plans, slabs, slots and launches.
 */

#include <stdlib.h>
#include <string.h>

#include "backend/check/impl.h"

/* ------------------------------------------------------------------- plans -- */

static moe_status
weights_are_sound(moe_device *dev, const struct moe_weights *w,
                  struct moe_error *err)
{
    uint32_t i;

    if (w->struct_size < sizeof(*w))
        return check_broken(dev, err,
                            "moe_weights.struct_size is %u, not %zu",
                            w->struct_size, sizeof(*w));
    if (w->format == NULL || w->format->id == NULL)
        return check_broken(dev, err, "moe_weights has no format");
    if (w->shape == NULL || w->shape->struct_size < sizeof(*w->shape))
        return check_broken(dev, err,
                            "moe_weights.shape is NULL or has no struct_size");
    if (w->shape->n_parts == 0 || w->shape->n_parts > MOE_PARTS_MAX)
        return check_broken(dev, err, "a shape of %u parts",
                            w->shape->n_parts);
    for (i = 0; i < w->shape->n_parts; i++) {
        if (w->shape->n[i] == 0 || w->shape->k[i] == 0)
            return check_broken(dev, err, "part %u of a shape is %llu x %llu",
                                i, (unsigned long long) w->shape->n[i],
                                (unsigned long long) w->shape->k[i]);
        if (w->affine[i] != NULL
            && w->affine[i]->struct_size < sizeof(*w->affine[i]))
            return check_broken(dev, err,
                                "moe_affine of part %u has no struct_size",
                                i);
    }
    return MOE_OK;
}

static int
needs_weights(uint32_t code)
{
    return code == MOE_OP_GROUPED_GEMM || code == MOE_OP_GROUPED_FFN
           || code == MOE_OP_EMBED;
}

moe_status
check_query(moe_device *dev, const struct moe_op *op,
            const struct moe_weights *w, struct moe_plan *out,
            struct moe_error *err)
{
    moe_status status = MOE_OK;

    if (out->struct_size < sizeof(*out))
        return check_broken(dev, err, "moe_plan.struct_size is %u, not %zu",
                            out->struct_size, sizeof(*out));
    if (op->struct_size < sizeof(*op)
        || (moe_op_size(op->code) != 0
            && op->struct_size < moe_op_size(op->code)))
        return check_broken(dev, err, "the struct_size of %s is %u, not %u",
                            moe_op_name(op->code), op->struct_size,
                            moe_op_size(op->code));
    if (w != NULL)
        status = weights_are_sound(dev, w, err);
    if (status != MOE_OK)
        return status;
    if (w == NULL && needs_weights(op->code))
        return check_broken(dev, err, "query of %s without weights",
                            moe_op_name(op->code));
    status = dev->check->ops->query(dev->inner, op, w, out, err);
    check_passed(dev, status);
    if (status != MOE_OK)
        return status;
    if (out->tier != MOE_TIER_GENERIC && out->tier != MOE_TIER_NATIVE)
        return check_broken(dev, err,
                            "the backend inside plans %s at tier %u, which is "
                            "not its own to give",
                            moe_op_name(op->code), out->tier);
    if (memchr(out->why, '\0', sizeof(out->why)) == NULL)
        return check_broken(dev, err,
                            "the backend inside gives a plan whose `why` "
                            "does not end");
    if (w != NULL
        && (out->slot_bytes == 0 || out->slot_align == 0
            || (out->slot_align & (out->slot_align - 1)) != 0))
        return check_broken(dev, err,
                            "the backend inside plans slots of %llu bytes, "
                            "aligned to %u",
                            (unsigned long long) out->slot_bytes,
                            out->slot_align);
    return MOE_OK;
}

/* ------------------------------------------------------------------- slabs -- */

static moe_status
enter_device(moe_device *dev, struct moe_error *err)
{
    int free_now = 0;

    if (!atomic_compare_exchange_strong(&dev->busy, &free_now, 1))
        return check_broken(dev, err,
                            "slabs are made and destroyed one at a time");
    return MOE_OK;
}

static moe_status
make_slab(moe_device *dev, const struct moe_weights *w,
          const struct moe_plan *plan, uint32_t n_slots, moe_slab **inner,
          struct moe_error *err)
{
    const struct moe_backend_ops *ops = dev->check->ops;
    uint64_t   granule = dev->info.mem_align, want;
    int64_t    delta;
    moe_status status;

    check_ledger_reset();
    status = ops->slab_create(dev->inner, w, plan, n_slots, inner, err);
    delta = check_ledger_delta();
    check_passed(dev, status);
    if (status != MOE_OK) {
        if (delta != 0)
            check_broken(dev, NULL,
                         "the backend inside failed to make a slab and kept "
                         "%lld reserved bytes",
                         (long long) delta);
        return status;
    }
    want = (plan->slot_bytes * n_slots + granule - 1) / granule * granule;
    if ((uint64_t) delta != want) {
        ops->slab_destroy(*inner);
        return check_broken(dev, err,
                            "the backend inside reserved %lld bytes for %u "
                            "slots of %llu; with mem_align %u that is %llu",
                            (long long) delta, n_slots,
                            (unsigned long long) plan->slot_bytes,
                            dev->info.mem_align, (unsigned long long) want);
    }
    return MOE_OK;
}

moe_status
check_slab_create(moe_device *dev, const struct moe_weights *w,
                  const struct moe_plan *plan, uint32_t n_slots,
                  moe_slab **out, struct moe_error *err)
{
    moe_slab  *slab, *inner = NULL;
    uint64_t   bytes;
    uint32_t   i;
    moe_status status;

    if (w == NULL || plan == NULL)
        return check_broken(dev, err, "a slab without weights or plan");
    status = weights_are_sound(dev, w, err);
    if (status == MOE_OK
        && (plan->struct_size < sizeof(*plan) || n_slots == 0
            || __builtin_mul_overflow(plan->slot_bytes, (uint64_t) n_slots,
                                      &bytes)))
        status = check_broken(dev, err,
                              "a slab of %u slots of %llu bytes, plan of "
                              "struct_size %u",
                              n_slots, (unsigned long long) plan->slot_bytes,
                              plan->struct_size);
    if (status == MOE_OK)
        status = enter_device(dev, err);
    if (status != MOE_OK)
        return status;
    status = make_slab(dev, w, plan, n_slots, &inner, err);
    atomic_store(&dev->busy, 0);
    if (status != MOE_OK)
        return status;
    slab = check_object_new(dev, CHECK_SLAB, sizeof(*slab));
    if (slab != NULL)
        slab->slot = calloc(n_slots, sizeof(*slab->slot));
    if (slab == NULL || slab->slot == NULL) {
        dev->check->ops->slab_destroy(inner);
        if (slab != NULL)
            check_object_dead(&slab->o);
        return moe_fail(err, MOE_E_NOMEM, 0, "check: out of memory");
    }
    slab->inner = inner;
    slab->plan = *plan;
    slab->about = *w;
    slab->shape = *w->shape;
    slab->about.shape = &slab->shape;
    for (i = 0; i < MOE_PARTS_MAX; i++)
        if (i < w->shape->n_parts && w->affine[i] != NULL) {
            slab->affine[i] = *w->affine[i];
            slab->about.affine[i] = &slab->affine[i];
        } else {
            slab->about.affine[i] = NULL;
        }
    slab->n_slots = n_slots;
    *out = slab;
    return MOE_OK;
}

void
check_slab_destroy(moe_slab *slab)
{
    moe_device *dev;
    int         done;

    if (slab == NULL)
        return;
    dev = slab->o.dev;
    if (check_alive(slab, dev, CHECK_SLAB, "slab to destroy", NULL) != MOE_OK
        || enter_device(dev, NULL) != MOE_OK)
        return;
    pthread_mutex_lock(&dev->lock);
    done = dev->fault != MOE_OK || check_done(dev, &slab->used);
    pthread_mutex_unlock(&dev->lock);
    if (!done)
        check_broken(dev, NULL,
                     "a slab is destroyed while work that uses it may still "
                     "run; record an event after the work and wait for it");
    dev->check->ops->slab_destroy(slab->inner);
    atomic_store(&dev->busy, 0);
    check_object_dead(&slab->o);
}

moe_status
check_slot_advise(moe_slab *slab, uint32_t slot, uint32_t advice)
{
    moe_device                   *dev = slab->o.dev;
    const struct moe_backend_ops *ops = dev->check->ops;
    int                           done;
    moe_status status = check_alive(slab, dev, CHECK_SLAB, "slab", NULL);

    if (status != MOE_OK)
        return status;
    if (slot >= slab->n_slots
        || (advice != MOE_ADVISE_SOON && advice != MOE_ADVISE_DONE))
        return check_broken(dev, NULL, "advice %u for slot %u of %u", advice,
                            slot, slab->n_slots);
    pthread_mutex_lock(&dev->lock);
    done = check_done(dev, &slab->slot[slot].used);
    if (advice == MOE_ADVISE_DONE && done)
        slab->slot[slot].filled = 0;
    pthread_mutex_unlock(&dev->lock);
    if (advice == MOE_ADVISE_DONE && !done)
        return check_broken(dev, NULL,
                            "slot %u is given up while work that uses it may "
                            "still run",
                            slot);
    if (!MOE_HAS(ops, moe_backend_ops, slot_advise)
        || ops->slot_advise == NULL)
        return MOE_OK;
    return check_passed(dev, ops->slot_advise(slab->inner, slot, advice));
}

/* ------------------------------------------------------------------- slots -- */

static moe_status
source_is_sound(moe_device *dev, const moe_slab *slab,
                const struct moe_weight_src *src, struct moe_error *err)
{
    uint32_t p;

    if (src->struct_size < sizeof(*src))
        return check_broken(dev, err,
                            "moe_weight_src.struct_size is %u, not %zu",
                            src->struct_size, sizeof(*src));
    for (p = 0; p < slab->shape.n_parts; p++) {
        const struct moe_tensor *t = src->part[p];

        if (t == NULL || t->struct_size < sizeof(*t)
            || t->plane[MOE_PLANE_ELEM] == NULL)
            return check_broken(dev, err,
                                "part %u of a slot has no tensor, or one "
                                "without struct_size or elements",
                                p);
        if (t->n != slab->shape.n[p] || t->k != slab->shape.k[p]
            || t->scale_dtype != slab->about.scale_dtype)
            return check_broken(dev, err,
                                "part %u of a slot is %llu x %llu, scales %u; "
                                "the slab was made for %llu x %llu, %u",
                                p, (unsigned long long) t->n,
                                (unsigned long long) t->k, t->scale_dtype,
                                (unsigned long long) slab->shape.n[p],
                                (unsigned long long) slab->shape.k[p],
                                slab->about.scale_dtype);
    }
    return MOE_OK;
}

/* May s write the slot now?  Only when every use of it is before s. */
static moe_status
slot_is_free(moe_stream *s, moe_slab *slab, uint32_t slot,
             struct moe_error *err)
{
    moe_device *dev = s->o.dev;
    uint32_t    i;
    int         good = 1;

    pthread_mutex_lock(&dev->lock);
    for (i = 0; i < CHECK_STREAMS; i++)
        if (slab->slot[slot].used.at[i] != 0
            && !check_ordered(s, i, slab->slot[slot].used.at[i]))
            good = 0;
    pthread_mutex_unlock(&dev->lock);
    return good ? MOE_OK
                : check_broken(dev, err,
                               "slot %u is filled while work that uses it may "
                               "still run; wait for an event recorded after "
                               "that work",
                               slot);
}

moe_status
check_slot_upload(moe_stream *s, moe_slab *slab, uint32_t slot,
                  const struct moe_weight_src *src, struct moe_error *err)
{
    moe_device *dev = s->o.dev;
    uint64_t    seq;
    moe_status  status = check_alive(s, dev, CHECK_STREAM, "stream", err);

    if (status == MOE_OK)
        status = check_alive(slab, dev, CHECK_SLAB, "slab", err);
    if (status == MOE_OK && slot >= slab->n_slots)
        status = check_broken(dev, err, "slot %u of %u is filled", slot,
                              slab->n_slots);
    if (status == MOE_OK)
        status = source_is_sound(dev, slab, src, err);
    if (status == MOE_OK)
        status = slot_is_free(s, slab, slot, err);
    if (status == MOE_OK)
        status = check_enter(s, err);
    if (status != MOE_OK)
        return status;
    check_not_failed(dev, "slot_upload");
    pthread_mutex_lock(&dev->lock);
    seq = check_next(s);
    slab->slot[slot].filled = 1;
    slab->slot[slot].fill_stream = s->id;
    slab->slot[slot].fill_seq = seq;
    slab->slot[slot].used.at[s->id] = seq;
    slab->used.at[s->id] = seq;
    pthread_mutex_unlock(&dev->lock);
    status = check_passed(dev,
                          dev->check->ops->slot_upload(s->inner, slab->inner,
                                                       slot, src, err));
    check_leave(s);
    return status;
}

/* ---------------------------------------------------------------- launches -- */

union any_op {
    struct moe_op              op;
    struct moe_op_embed        embed;
    struct moe_op_norm         norm;
    struct moe_op_grouped_gemm gemm;
    struct moe_op_rope_kv      rope;
    struct moe_op_attention    attention;
    struct moe_op_route        route;
    struct moe_op_grouped_ffn  ffn;
    struct moe_op_combine      combine;
    struct moe_op_gather       gather;
};

/* One weight of a launch: alive, filled, in order, and of a shape that fits
 * (every group like the first). */
static moe_status
weight_is_sound(moe_stream *s, const struct moe_op *op,
                const struct moe_wref *w, uint32_t g, struct moe_error *err)
{
    moe_device *dev = s->o.dev;
    moe_slab   *slab = w[g].slab;
    int         filled, ordered;
    uint32_t    part = op->code == MOE_OP_GROUPED_FFN ? 0 : w[g].part;
    uint32_t    n_parts = op->code == MOE_OP_GROUPED_GEMM
                              ? ((const struct moe_op_grouped_gemm *) op)
                                    ->n_parts
                          : op->code == MOE_OP_GROUPED_FFN ? 3
                                                           : 1;
    moe_status status = check_alive(slab, dev, CHECK_SLAB, "a weight's slab",
                                    err);

    if (status != MOE_OK)
        return status;
    if (w[g].slot >= slab->n_slots || part >= slab->shape.n_parts
        || n_parts > slab->shape.n_parts - part)
        return check_broken(dev, err,
                            "%s: weight %u is slot %u of %u, parts %u to %u "
                            "of %u",
                            moe_op_name(op->code), g, w[g].slot,
                            slab->n_slots, part, part + n_parts - 1,
                            slab->shape.n_parts);
    if (slab->plan.layout != w[0].slab->plan.layout
        || slab->plan.slot_bytes != w[0].slab->plan.slot_bytes)
        return check_broken(dev, err, "%s: its weights are of several plans",
                            moe_op_name(op->code));
    pthread_mutex_lock(&dev->lock);
    filled = (int) slab->slot[w[g].slot].filled;
    ordered = check_ordered(s, slab->slot[w[g].slot].fill_stream,
                            slab->slot[w[g].slot].fill_seq);
    pthread_mutex_unlock(&dev->lock);
    if (!filled)
        return check_broken(dev, err,
                            "%s uses slot %u, which was never filled",
                            moe_op_name(op->code), w[g].slot);
    if (!ordered)
        return check_broken(dev, err,
                            "%s uses slot %u before it is sure to be filled; "
                            "wait for an event recorded after slot_upload",
                            moe_op_name(op->code), w[g].slot);
    return MOE_OK;
}

static uint64_t
columns(const moe_slab *slab, uint32_t part, uint32_t n_parts)
{
    uint64_t n = 0;

    while (n_parts-- > 0)
        n += slab->shape.n[part++];
    return n;
}

static moe_status
shape_fits(moe_device *dev, const struct moe_op *op, const struct moe_wref *w,
           struct moe_error *err)
{
    const union any_op     *o = (const union any_op *) (const void *) op;
    const struct moe_shape *s = &w[0].slab->shape;
    uint32_t                part = w[0].part;
    int                     good;

    switch (op->code) {
    case MOE_OP_EMBED:
        good = s->n[part] == o->embed.n && s->k[part] == o->embed.k;
        break;
    case MOE_OP_GROUPED_FFN:
        good = s->n_parts == 3 && s->n[0] == o->ffn.f && s->k[0] == o->ffn.h
               && s->n[1] == o->ffn.f && s->k[1] == o->ffn.h
               && s->n[2] == o->ffn.h && s->k[2] == o->ffn.f;
        break;
    default:
        good = s->k[part] == o->gemm.k
               && columns(w[0].slab, part, o->gemm.n_parts) == o->gemm.n;
        break;
    }
    return good ? MOE_OK
                : check_broken(dev, err,
                               "%s: n and k are not those of its weights",
                               moe_op_name(op->code));
}

/* Scratch of the size that a query for this very launch asks for. */
static moe_status
work_suffices(moe_device *dev, const struct moe_op *op,
              const struct moe_weights *about, struct moe_buf work,
              struct moe_error *err)
{
    struct moe_plan plan = { .struct_size = sizeof(plan) };
    moe_status status = dev->check->ops->query(dev->inner, op, about, &plan,
                                               err);
    uint64_t   have = work.mem != NULL && work.off <= work.mem->bytes
                          ? work.mem->bytes - work.off
                          : 0;

    if (status != MOE_OK)
        return check_passed(dev, status);
    return plan.work_bytes <= have
               ? MOE_OK
               : check_broken(dev, err,
                              "%s needs %llu bytes of work and gets %llu",
                              moe_op_name(op->code),
                              (unsigned long long) plan.work_bytes,
                              (unsigned long long) have);
}

/* Every buffer of the copy: looked at, and the one inside put in its place.
 * mem[]: which ones were there. */
static moe_status
translate(moe_stream *s, const struct moe_op *op,
          const struct moe_weights *about, union any_op *copy,
          moe_mem *mem[MOE_EXTENTS_MAX], struct moe_error *err)
{
    struct moe_extent x[MOE_EXTENTS_MAX];
    moe_device       *dev = s->o.dev;
    const char       *bad;
    uint32_t          i, n = moe_op_extents(op, 1, x, &bad);
    moe_status        status;

    if (n == 0)
        return check_broken(dev, err, "launch of %s: %s",
                            moe_op_name(op->code), bad);
    for (i = 0; i < n; i++) {
        struct moe_buf *b = moe_extent_buf(&copy->op, &x[i]);

        mem[i] = b->mem;
        if ((x[i].access & MOE_ACCESS_WORK) != 0) {
            status = b->mem != NULL ? check_alive(b->mem, dev, CHECK_MEM,
                                                  "work", err)
                                    : MOE_OK;
            if (status == MOE_OK)
                status = work_suffices(dev, op, about, *b, err);
            if (status != MOE_OK)
                return status;
        }
        if (b->mem == NULL)
            continue;
        status = check_alive(b->mem, dev, CHECK_MEM, x[i].field, err);
        if (status != MOE_OK)
            return status;
        if (b->off > b->mem->bytes || x[i].bytes > b->mem->bytes - b->off)
            return check_broken(dev, err,
                                "%s: %s needs %llu bytes from %llu on, its "
                                "memory has %llu",
                                moe_op_name(op->code), x[i].field,
                                (unsigned long long) x[i].bytes,
                                (unsigned long long) b->off,
                                (unsigned long long) b->mem->bytes);
        b->mem = b->mem->inner;
    }
    return MOE_OK;
}

/* Weights of the copy: looked at, and those inside put in their place. */
static moe_status
translate_weights(moe_stream *s, const struct moe_op *op, union any_op *copy,
                  struct moe_wref **refs, struct moe_error *err)
{
    const struct moe_wref *w = NULL;
    uint32_t               n = moe_op_wrefs(op, &w), g;
    moe_status             status = MOE_OK;

    if (n == 0)
        return MOE_OK;
    if (w == NULL)
        return check_broken(s->o.dev, err, "%s: w is NULL",
                            moe_op_name(op->code));
    *refs = calloc(n, sizeof(**refs));
    if (*refs == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "check: out of memory");
    for (g = 0; g < n && status == MOE_OK; g++) {
        status = weight_is_sound(s, op, w, g, err);
        if (status == MOE_OK) {
            (*refs)[g] = w[g];
            (*refs)[g].slab = w[g].slab->inner;
        }
    }
    if (status == MOE_OK)
        status = shape_fits(s->o.dev, op, w, err);
    if (op->code == MOE_OP_EMBED)
        copy->embed.w = (*refs)[0];
    else if (op->code == MOE_OP_GROUPED_GEMM)
        copy->gemm.w = *refs;
    else
        copy->ffn.w = *refs;
    return status;
}

static void
mark_used(moe_stream *s, const struct moe_op *op,
          moe_mem *const mem[MOE_EXTENTS_MAX])
{
    const struct moe_wref *w = NULL;
    uint32_t               n = moe_op_wrefs(op, &w), i;
    uint64_t               seq;

    pthread_mutex_lock(&s->o.dev->lock);
    seq = check_next(s);
    for (i = 0; i < MOE_EXTENTS_MAX; i++)
        if (mem[i] != NULL)
            mem[i]->used.at[s->id] = seq;
    for (i = 0; i < n; i++) {
        w[i].slab->used.at[s->id] = seq;
        w[i].slab->slot[w[i].slot].used.at[s->id] = seq;
    }
    pthread_mutex_unlock(&s->o.dev->lock);
}

moe_status
check_launch(moe_stream *s, const struct moe_op *op, struct moe_error *err)
{
    moe_device            *dev = s->o.dev;
    moe_mem               *mem[MOE_EXTENTS_MAX] = { NULL };
    const struct moe_wref *w = NULL;
    struct moe_wref       *refs = NULL;
    union any_op           copy;
    uint32_t               size;
    moe_status status = check_alive(s, dev, CHECK_STREAM, "stream", err);

    if (status != MOE_OK)
        return status;
    size = op->struct_size >= sizeof(*op) ? moe_op_size(op->code) : 0;
    if (size == 0) /* newer than we are: nothing is known about its rules */
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "check: operation %u is unknown", op->code);
    if (op->struct_size < size)
        return check_broken(dev, err, "the struct_size of %s is %u, not %u",
                            moe_op_name(op->code), op->struct_size, size);
    memcpy(&copy, op, size);
    copy.op.struct_size = size;
    status = translate_weights(s, op, &copy, &refs, err);
    if (status == MOE_OK) {
        uint32_t n = moe_op_wrefs(op, &w);

        status = translate(s, op, n > 0 ? &w[0].slab->about : NULL, &copy,
                           mem, err);
    }
    if (status == MOE_OK)
        status = check_enter(s, err);
    if (status == MOE_OK) {
        check_not_failed(dev, "launch");
        mark_used(s, op, mem);
        status = check_passed(dev,
                              dev->check->ops->launch(s->inner, &copy.op,
                                                      err));
        check_leave(s);
    }
    free(refs);
    return status;
}
