/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout.c - which formats run here, how, and how they lie in a slot.
 *
 * Owns query() and slabs.  A format is judged by its description, not by its
 * name: any format of 4 or 8 bits of the usual shape, and E2M1, gets the
 * integer kernels, any FP8 format the FP8 kernel, any other affine one is
 * followed literally; only
 * the universal formats, which have no description, are known by id.  The
 * layout depends on the weights alone, so that one slab can serve several
 * operations (an embedding that is the output head too).
 */

#include <inttypes.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/lines.h"

/* Error that 8-bit activations add, as moe_format.nmse_x1e9 counts it: a
 * format that promises less is computed in f32. */
#define INT8_NMSE_X1E9 20000u

#define DIM_MAX (UINT32_C(1) << 31) /* columns and rows are counted in u32 */

static uint32_t
universal_kind(const struct moe_format *f)
{
    if (f->revision != 1)
        return CPU_KINDS;
    if (strcmp(f->id, "f32") == 0)
        return CPU_F32;
    if (strcmp(f->id, "f16") == 0)
        return CPU_F16;
    if (strcmp(f->id, "bf16") == 0)
        return CPU_BF16;
    return CPU_KINDS;
}

/* Elements that are numbers by themselves, row after row. */
static uint32_t
plain_kind(const struct moe_affine *a, uint64_t k)
{
    uint32_t size;

    if (a->scale != MOE_SCALE_NONE || a->zero_bits != 0 || a->bias != 0)
        return CPU_KINDS;
    size = a->elem_bits / 8;
    if (a->block_k < k || a->elem_row != k * size)
        return CPU_KINDS;
    switch (a->elem) {
    case MOE_ELEM_F32:
        return CPU_F32;
    case MOE_ELEM_F16:
        return CPU_F16;
    case MOE_ELEM_BF16:
        return CPU_BF16;
    default:
        return CPU_KINDS;
    }
}

/* The kernel takes columns in pairs, so a group has an even number. */
static int
is_fp8(const struct moe_affine *a, uint64_t k)
{
    return (a->elem == MOE_ELEM_E4M3 || a->elem == MOE_ELEM_E5M2)
           && a->bias == 0 && a->zero_bits == 0
           && (a->scale == MOE_SCALE_NONE || a->group_k % 2 == 0
               || a->group_k >= k);
}

/* Integers or E2M1, groups of whole runs of 32 columns: which lines; or
 * CPU_GENERIC.  A 4-bit code less its zero point must lie in -15 .. 15. */
static uint32_t
lines_kind(const struct moe_affine *a, uint64_t k)
{
    const int is_int = a->elem == MOE_ELEM_INT;
    const int32_t bias = a->bias + (is_int ? 8 : 0);

    if (a->scale == MOE_SCALE_NONE
        || (a->group_k % CPU_RUN != 0 && a->group_k < k))
        return CPU_GENERIC;
    if (a->elem == MOE_ELEM_E2M1)
        return a->zero_bits == 0 && a->bias == 0 ? CPU_FP4 : CPU_GENERIC;
    if (a->elem != MOE_ELEM_UINT && !is_int)
        return CPU_GENERIC;
    if (a->elem_bits == 8) /* the zero point must fit in 16 bits */
        return a->zero_bits <= 8 && a->bias >= -1024 && a->bias <= 1024
                       && a->zero_bias >= -1024 && a->zero_bias <= 1024
                   ? CPU_INT8
                   : CPU_GENERIC;
    if (a->elem_bits == 4
        && (a->zero_bits == 0 ? bias >= 0 && bias <= 15
                              : a->zero_bits <= 4 && bias == a->zero_bias))
        return CPU_INT4;
    return CPU_GENERIC;
}

/* The kind of one matrix.  *a: its description, or NULL. */
static uint32_t
kind_of(const struct moe_format *f, const struct moe_affine *a, uint64_t n,
        uint64_t k)
{
    uint64_t bytes[3];
    uint32_t kind = universal_kind(f);

    if (kind != CPU_KINDS || a == NULL)
        return kind;
    if (!cpu_affine_bytes(a, n, k, bytes))
        return CPU_KINDS;
    kind = plain_kind(a, k);
    if (kind != CPU_KINDS)
        return kind;
    if (is_fp8(a, k))
        return a->elem == MOE_ELEM_E4M3 ? CPU_E4M3 : CPU_E5M2;
    if (f->nmse_x1e9 >= INT8_NMSE_X1E9)
        return lines_kind(a, k);
    return CPU_GENERIC;
}

static void
set_fp8(struct cpu_mat *m, const struct moe_affine *a)
{
    const int one = a->scale == MOE_SCALE_NONE || a->group_n % CPU_LANES == 0
                    || a->group_n >= m->n;

    m->group = a->scale == MOE_SCALE_NONE
                   ? m->k
                   : (uint32_t) cpu_min(a->group_k, m->k);
    m->scale = one ? 1 : CPU_LANES;
    m->panel_bytes = cpu_align(
        cpu_fp8_bytes(m->k)
            + cpu_ceil(m->k, m->group) * m->scale * sizeof(float),
        CPU_ALIGN);
}

static void
set_lines(struct cpu_mat *m, const struct moe_affine *a)
{
    m->group = a->group_k < m->k ? a->group_k
                                 : (uint32_t) cpu_align(m->k, CPU_RUN);
    m->scale = a->scale;
    m->has_zero = a->zero_bits != 0;
    m->zero = a->bias - (m->has_zero ? a->zero_bias : 0);
    if (m->kind == CPU_FP4)
        m->zero = LINE_FP4;
    else if (m->kind == CPU_INT4 && a->elem == MOE_ELEM_INT)
        m->zero += 8; /* codes are kept unsigned */
    else if (m->kind == CPU_INT8 && a->elem == MOE_ELEM_UINT)
        m->zero -= 128; /* and here signed */
    m->panel_bytes = lines_panel_bytes(m);
}

static void
set_generic(struct cpu_mat *m, const struct moe_affine *a)
{
    uint64_t bytes[3], at = 0;
    uint32_t i;

    cpu_affine_bytes(a, m->n, m->k, bytes);
    for (i = 0; i < 3; i++) {
        m->plane_off[i] = at;
        at += cpu_align(bytes[i], CPU_ALIGN);
    }
    m->bytes = at;
}

/* Everything of one part but where it lies. */
static void
set_part(struct cpu_mat *m, uint32_t kind, const struct moe_affine *a,
         uint64_t n, uint64_t k)
{
    static const uint32_t size[] = { 4, 2, 2 };

    memset(m, 0, sizeof(*m));
    m->kind = kind;
    m->n = (uint32_t) n;
    m->k = (uint32_t) k;
    m->panels = (uint32_t) cpu_ceil(n, CPU_LANES);
    switch (kind) {
    case CPU_F32:
    case CPU_F16:
    case CPU_BF16:
        m->panel_bytes = k * CPU_LANES * size[kind];
        break;
    case CPU_E4M3:
    case CPU_E5M2:
        set_fp8(m, a);
        break;
    case CPU_INT4:
    case CPU_FP4:
    case CPU_INT8:
        set_lines(m, a);
        break;
    default:
        set_generic(m, a);
        return;
    }
    m->bytes = cpu_align(m->panels * m->panel_bytes, CPU_ALIGN);
}

/* FNV-1a over what decides where each byte lies. */
static uint64_t
mix(uint64_t h, uint64_t v)
{
    uint32_t i;

    for (i = 0; i < 8; i++)
        h = (h ^ (v >> (8 * i) & 0xffu)) * UINT64_C(0x100000001b3);
    return h;
}

static uint64_t
layout_token(const struct cpu_layout *l)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    uint32_t i;

    h = mix(h, l->kind);
    h = mix(h, l->n_parts);
    for (i = 0; i < l->n_parts; i++) {
        const struct cpu_mat *m = &l->part[i];

        h = mix(mix(mix(h, m->n), m->k), m->group);
        h = mix(mix(mix(h, m->scale), m->has_zero), (uint64_t) m->zero);
        h = mix(h, m->bytes);
    }
    return h;
}

static const char *const kind_why[CPU_KINDS] = {
    "f32 panels of 16 rows",       "f16 panels of 16 rows",
    "bf16 panels of 16 rows",      "E4M3 panels of 16 rows, f32 sums",
    "E5M2 panels of 16 rows, f32 sums",
    "4-bit panels of 16 rows, 8-bit activations",
    "E2M1 panels of 16 rows, 8-bit activations",
    "8-bit panels of 16 rows, 8-bit activations",
    "expanded tile by tile from the format's description",
};

moe_status
cpu_layout_find(const struct moe_weights *w, struct cpu_layout *out,
                char *why, size_t why_len, struct moe_error *err)
{
    const struct moe_shape *s = w->shape;
    uint64_t                at = 0;
    uint32_t                i, kind = CPU_KINDS;

    if (w->struct_size < sizeof(*w) || w->format == NULL || s == NULL
        || w->format->id == NULL || s->n_parts == 0
        || s->n_parts > MOE_PARTS_MAX)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "cpu: weights without a format or a shape");
    memset(out, 0, sizeof(*out));
    for (i = 0; i < s->n_parts; i++) {
        uint32_t this;

        if (s->n[i] == 0 || s->k[i] == 0 || s->n[i] > DIM_MAX
            || s->k[i] > DIM_MAX)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "cpu: a matrix of %" PRIu64 " x %" PRIu64
                            " is empty or too large",
                            s->n[i], s->k[i]);
        this = kind_of(w->format, w->affine[i], s->n[i], s->k[i]);
        if (this == CPU_KINDS)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "cpu: format %s has no description to follow "
                            "here; it can run expanded to f16",
                            w->format->id);
        /* one kind for all parts: the one that every part can have */
        if (i == 0)
            kind = this;
        else if (this != kind)
            kind = CPU_GENERIC;
    }
    if (kind == CPU_GENERIC)
        for (i = 0; i < s->n_parts; i++)
            if (w->affine[i] == NULL)
                return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                                "cpu: format %s describes only some of its "
                                "parts",
                                w->format->id);
    out->kind = kind;
    out->n_parts = s->n_parts;
    for (i = 0; i < s->n_parts; i++) {
        struct cpu_mat *m = &out->part[i];

        if (w->affine[i] != NULL)
            out->affine[i] = *w->affine[i];
        set_part(m, kind, w->affine[i], s->n[i], s->k[i]);
        m->data = (const uint8_t *) (uintptr_t) at;
        if (m->bytes > (uint64_t) INT64_MAX / 8)
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "cpu: a matrix of %" PRIu64 " x %" PRIu64
                            " is too large",
                            s->n[i], s->k[i]);
        at += m->bytes;
    }
    out->slot_bytes = at;
    out->token = layout_token(out);
    if (why != NULL)
        snprintf(why, why_len, "%s", kind_why[kind]);
    return MOE_OK;
}

/* ----------------------------------------------------------------- query -- */

static moe_status
check_dtype(uint32_t dtype, struct moe_error *err)
{
    if (dtype == MOE_F32)
        return MOE_OK;
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "cpu: activations of type %u; only f32 is supported",
                    dtype);
}

/* Some part of the weights has k columns. */
static moe_status
check_k(const struct moe_weights *w, uint64_t k, const char *op,
        struct moe_error *err)
{
    uint32_t i;

    for (i = 0; i < w->shape->n_parts; i++)
        if (w->shape->k[i] == k)
            return MOE_OK;
    return moe_fail(err, MOE_E_INVAL, 0,
                    "cpu: %s of %" PRIu64 " columns, but the weights have "
                    "%" PRIu64,
                    op, k, w->shape->k[0]);
}

static moe_status
query_ffn(const struct moe_op_grouped_ffn *f, const struct moe_weights *w,
          struct moe_error *err)
{
    const struct moe_shape *s = w->shape;

    if (s->n_parts >= 3 && s->n[MOE_PART_GATE] == f->f
        && s->n[MOE_PART_UP] == f->f && s->n[MOE_PART_DOWN] == f->h
        && s->k[MOE_PART_GATE] == f->h && s->k[MOE_PART_UP] == f->h
        && s->k[MOE_PART_DOWN] == f->f)
        return MOE_OK;
    return moe_fail(err, MOE_E_INVAL, 0,
                    "cpu: a feed-forward of %u x %u needs gate, up and down "
                    "of that shape",
                    f->f, f->h);
}

/* Sets *work.  l: NULL for an operation without weights. */
static moe_status
query_op(moe_device *dev, const struct moe_op *op, const struct moe_weights *w,
         const struct cpu_layout *l, uint64_t *work, struct moe_error *err)
{
    const void *o = op;
    moe_status  st;

#define SIZED(type)                                                           \
    if (op->struct_size < sizeof(struct type))                                \
        break;                                                                \
    const struct type *p = o

    *work = 0;
    switch (op->code) {
    case MOE_OP_GROUPED_GEMM: {
        SIZED(moe_op_grouped_gemm);
        if (l == NULL)
            goto no_weights;
        st = check_dtype(p->dtype, err);
        if (st == MOE_OK)
            st = check_k(w, p->k, "a product", err);
        *work = cpu_gemm_work(p, l->kind);
        return st;
    }
    case MOE_OP_GROUPED_FFN: {
        SIZED(moe_op_grouped_ffn);
        if (l == NULL)
            goto no_weights;
        st = check_dtype(p->dtype, err);
        if (st == MOE_OK)
            st = query_ffn(p, w, err);
        *work = cpu_ffn_work(p, l->kind);
        return st;
    }
    case MOE_OP_EMBED: {
        SIZED(moe_op_embed);
        if (l == NULL)
            goto no_weights;
        st = check_dtype(p->dtype, err);
        if (st == MOE_OK)
            st = check_k(w, p->k, "a table", err);
        return st;
    }
    case MOE_OP_ROUTE: {
        SIZED(moe_op_route);
        return cpu_route_check(p, err);
    }
    case MOE_OP_COMBINE: {
        SIZED(moe_op_combine);
        return check_dtype(p->dtype, err);
    }
    case MOE_OP_NORM: {
        SIZED(moe_op_norm);
        return check_dtype(p->dtype, err);
    }
    case MOE_OP_ROPE_KV: {
        SIZED(moe_op_rope_kv);
        return check_dtype(p->dtype, err);
    }
    case MOE_OP_ATTENTION: {
        SIZED(moe_op_attention);
        if (p->kv.kv_heads == 0 || p->heads % p->kv.kv_heads != 0)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "cpu: %u query heads on %u key heads", p->heads,
                            p->kv.kv_heads);
        *work = cpu_attention_work(dev, p);
        return check_dtype(p->dtype, err);
    }
    case MOE_OP_GATHER: {
        SIZED(moe_op_gather);
        return check_dtype(p->dtype, err);
    }
    default:
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "cpu: operation %u is unknown", op->code);
    }
#undef SIZED
    return moe_fail(err, MOE_E_INVAL, 0,
                    "cpu: operation %u of %u bytes is too short", op->code,
                    op->struct_size);
no_weights:
    return moe_fail(err, MOE_E_INVAL, 0, "cpu: operation %u needs weights",
                    op->code);
}

moe_status
cpu_query(moe_device *dev, const struct moe_op *op,
          const struct moe_weights *w, struct moe_plan *out,
          struct moe_error *err)
{
    struct cpu_layout l;
    struct moe_plan   plan;
    moe_status        st;

    memset(&plan, 0, sizeof(plan));
    plan.struct_size = sizeof(plan);
    plan.tier = MOE_TIER_NATIVE;
    plan.slot_align = CPU_ALIGN;
    snprintf(plan.why, sizeof(plan.why), "f32");
    if (w != NULL) {
        st = cpu_layout_find(w, &l, plan.why, sizeof(plan.why), err);
        if (st != MOE_OK)
            return st;
        if (l.kind == CPU_GENERIC)
            plan.tier = MOE_TIER_GENERIC;
        plan.layout = l.token;
        plan.slot_bytes = l.slot_bytes;
    }
    st = query_op(dev, op, w, w != NULL ? &l : NULL, &plan.work_bytes, err);
    if (st != MOE_OK)
        return st;
    *out = plan;
    return MOE_OK;
}

/* ----------------------------------------------------------------- slabs -- */

moe_status
cpu_slab_create(moe_device *dev, const struct moe_weights *w,
                const struct moe_plan *plan, uint32_t n_slots, moe_slab **out,
                struct moe_error *err)
{
    const struct moe_host *host = dev->host;
    struct cpu_layout      l;
    moe_slab              *slab;
    uint64_t               bytes;
    moe_status             st;

    st = cpu_layout_find(w, &l, NULL, 0, err);
    if (st != MOE_OK)
        return st;
    if (plan->layout != l.token || plan->slot_bytes != l.slot_bytes)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "cpu: the plan is not one for these weights");
    if (n_slots == 0
        || __builtin_mul_overflow(l.slot_bytes, (uint64_t) n_slots, &bytes))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "cpu: a slab of %u slots of %" PRIu64 " bytes",
                        n_slots, l.slot_bytes);
    slab = host->alloc(host->ctx, sizeof(*slab), 16);
    if (slab == NULL)
        return moe_fail(err, MOE_E_NOMEM, 0, "no memory for a slab");
    memset(slab, 0, sizeof(*slab));
    slab->dev = dev;
    slab->n_slots = n_slots;
    slab->layout = l;
    st = cpu_map(dev, bytes, "weights", &slab->base, &slab->mapped,
                 &slab->grant, err);
    if (st != MOE_OK) {
        host->free(host->ctx, slab);
        return st;
    }
    *out = slab;
    return MOE_OK;
}

void
cpu_slab_destroy(moe_slab *slab)
{
    const struct moe_host *host;

    if (slab == NULL)
        return;
    host = slab->dev->host;
    cpu_unmap(slab->dev, slab->base, slab->mapped, slab->grant);
    host->free(host->ctx, slab);
}

/* Hot. */
moe_status
cpu_mat_of(const moe_device *dev, const struct moe_wref *ref, uint32_t part,
           uint64_t n, uint64_t k, const char *what, struct cpu_mat *out,
           struct moe_error *err)
{
    const moe_slab *slab = ref->slab;

    if (slab == NULL || slab->dev != dev || ref->slot >= slab->n_slots
        || part >= slab->layout.n_parts)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: slot %u, part %u is not one of this device's",
                        what, ref->slot, part);
    *out = slab->layout.part[part];
    if (k != out->k || (n != 0 && n != out->n))
        return moe_fail(err, MOE_E_INVAL, 0,
                        "%s: part %u is %u x %u, not %" PRIu64 " x %" PRIu64,
                        what, part, out->n, out->k, n, k);
    out->data = slab->base + ref->slot * slab->layout.slot_bytes
                + (uintptr_t) out->data;
    out->affine = &slab->layout.affine[part];
    return MOE_OK;
}
