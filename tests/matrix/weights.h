/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights.h - random weights in any format, with and without a quantizer.
 *
 * A spec says how a format's bytes lie; a wset is the matrices of a few
 * slots in that format, their bytes random, their values worked out by the
 * reference from the description.  Formats of the tree's quantizers are
 * written as those write them; the others are what a stranger might bring.
 */
#ifndef MOE_TESTS_MATRIX_WEIGHTS_H
#define MOE_TESTS_MATRIX_WEIGHTS_H

#include "common/ref_ops.h"
#include "matrix/host.h"

/* How a format lies; sizes that depend on the matrix are 0 here. */
struct spec {
    const char *id;
    uint32_t    elem, bits;  /* MOE_ELEM_*; universal: F32, F16, BF16 */
    uint32_t    scale;       /* MOE_SCALE_* */
    uint32_t    group_n;     /* 0: all rows */
    uint32_t    group_k;     /* 0: all columns */
    uint32_t    zero_bits, zero_block;
    int32_t     bias, zero_bias;
    uint32_t    block_k;     /* 0: one run */
    uint32_t    tier;        /* what the CPU backend must answer */
    uint32_t    k_multiple;
    double      nmse;        /* limit of the error against f64 */
    uint32_t    universal;   /* no description: known by id */
    uint32_t    nmse_x1e9;   /* that the format allows */
};

#define F8_LIMIT 1e-11
#define I4_LIMIT 1e-4 /* activations of 8 bits */

static const struct spec specs[] = {
    { .id = "f32", .elem = MOE_ELEM_F32, .bits = 32, .universal = 1,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = 1e-11 },
    { .id = "f16", .elem = MOE_ELEM_F16, .bits = 16, .universal = 1,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = 1e-11 },
    { .id = "bf16", .elem = MOE_ELEM_BF16, .bits = 16, .universal = 1,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = 1e-11 },
    { .id = "fp8-e4m3", .elem = MOE_ELEM_E4M3, .bits = 8,
      .scale = MOE_SCALE_F32, .tier = MOE_TIER_NATIVE, .k_multiple = 1,
      .nmse = F8_LIMIT },
    { .id = "fp8-e4m3-channel", .elem = MOE_ELEM_E4M3, .bits = 8,
      .scale = MOE_SCALE_BF16, .group_n = 1, .tier = MOE_TIER_NATIVE,
      .k_multiple = 1, .nmse = F8_LIMIT },
    { .id = "fp8-e4m3-block", .elem = MOE_ELEM_E4M3, .bits = 8,
      .scale = MOE_SCALE_F32, .group_n = 128, .group_k = 128,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = F8_LIMIT },
    { .id = "fp8-e4m3-odd-block", .elem = MOE_ELEM_E4M3, .bits = 8,
      .scale = MOE_SCALE_F16, .group_n = 20, .group_k = 24,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = F8_LIMIT },
    { .id = "fp8-e5m2-channel", .elem = MOE_ELEM_E5M2, .bits = 8,
      .scale = MOE_SCALE_F32, .group_n = 1, .tier = MOE_TIER_NATIVE,
      .k_multiple = 1, .nmse = F8_LIMIT },
    { .id = "fp8-e5m2-block", .elem = MOE_ELEM_E5M2, .bits = 8,
      .scale = MOE_SCALE_F32, .group_n = 128, .group_k = 128,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = F8_LIMIT },
    { .id = "fp8-odd-group", .elem = MOE_ELEM_E5M2, .bits = 8,
      .scale = MOE_SCALE_F32, .group_n = 3, .group_k = 15,
      .tier = MOE_TIER_GENERIC, .k_multiple = 17, .nmse = F8_LIMIT },
    { .id = "mxfp8", .elem = MOE_ELEM_E4M3, .bits = 8,
      .scale = MOE_SCALE_E8M0, .group_n = 1, .group_k = 32,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = F8_LIMIT },
    { .id = "int4-g32", .elem = MOE_ELEM_UINT, .bits = 4, .bias = 8,
      .scale = MOE_SCALE_F16, .group_n = 1, .group_k = 32, .block_k = 8,
      .tier = MOE_TIER_NATIVE, .k_multiple = 32, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "int4-g64", .elem = MOE_ELEM_UINT, .bits = 4, .bias = 8,
      .scale = MOE_SCALE_BF16, .group_n = 1, .group_k = 64, .block_k = 8,
      .tier = MOE_TIER_NATIVE, .k_multiple = 64, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "int4-g128", .elem = MOE_ELEM_UINT, .bits = 4, .bias = 8,
      .scale = MOE_SCALE_F32, .group_n = 1, .group_k = 128, .block_k = 8,
      .tier = MOE_TIER_NATIVE, .k_multiple = 128, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "int4-g32z", .elem = MOE_ELEM_UINT, .bits = 4,
      .zero_bits = 4, .zero_block = 8, .scale = MOE_SCALE_F32, .group_n = 1,
      .group_k = 32, .block_k = 8, .tier = MOE_TIER_NATIVE, .k_multiple = 32,
      .nmse = I4_LIMIT, .nmse_x1e9 = 200000 },
    { .id = "int4-g64z", .elem = MOE_ELEM_UINT, .bits = 4,
      .zero_bits = 4, .zero_block = 8, .scale = MOE_SCALE_F16, .group_n = 1,
      .group_k = 64, .block_k = 8, .tier = MOE_TIER_NATIVE, .k_multiple = 64,
      .nmse = I4_LIMIT, .nmse_x1e9 = 200000 },
    { .id = "int4-g128z", .elem = MOE_ELEM_UINT, .bits = 4, .bias = 8,
      .zero_bias = 8, .zero_bits = 4, .zero_block = 8,
      .scale = MOE_SCALE_BF16, .group_n = 1, .group_k = 128, .block_k = 8,
      .tier = MOE_TIER_NATIVE, .k_multiple = 128, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    /* signed codes, a ragged last group, a whole-row group */
    { .id = "sint4-ragged", .elem = MOE_ELEM_INT, .bits = 4,
      .scale = MOE_SCALE_F16, .group_n = 1, .group_k = 64,
      .tier = MOE_TIER_NATIVE, .k_multiple = 2, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "int4-channel", .elem = MOE_ELEM_UINT, .bits = 4, .bias = 7,
      .scale = MOE_SCALE_F32, .group_n = 1, .tier = MOE_TIER_NATIVE,
      .k_multiple = 2, .nmse = I4_LIMIT, .nmse_x1e9 = 200000 },
    /* 4 bits, but no error allowed: no 8-bit activations */
    { .id = "int4-exact", .elem = MOE_ELEM_UINT, .bits = 4, .bias = 8,
      .scale = MOE_SCALE_F16, .group_n = 1, .group_k = 32,
      .tier = MOE_TIER_GENERIC, .k_multiple = 2, .nmse = 1e-11 },
    { .id = "int8-channel", .elem = MOE_ELEM_INT, .bits = 8,
      .scale = MOE_SCALE_F32, .group_n = 1, .tier = MOE_TIER_NATIVE,
      .k_multiple = 1, .nmse = I4_LIMIT, .nmse_x1e9 = 200000 },
    { .id = "int8-tensor", .elem = MOE_ELEM_INT, .bits = 8,
      .scale = MOE_SCALE_BF16, .tier = MOE_TIER_NATIVE, .k_multiple = 1,
      .nmse = I4_LIMIT, .nmse_x1e9 = 200000 },
    { .id = "int8-g64", .elem = MOE_ELEM_INT, .bits = 8, .bias = -3,
      .scale = MOE_SCALE_F16, .group_n = 1, .group_k = 64, .block_k = 16,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "uint8-zero", .elem = MOE_ELEM_UINT, .bits = 8, .zero_bits = 8,
      .zero_block = 1, .scale = MOE_SCALE_BF16, .group_n = 1, .group_k = 32,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "uint8-zero-odd", .elem = MOE_ELEM_UINT, .bits = 8, .bias = 118,
      .zero_bits = 5, .zero_block = 3, .zero_bias = 7,
      .scale = MOE_SCALE_F32, .group_n = 3, .group_k = 96,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "int8-exact", .elem = MOE_ELEM_INT, .bits = 8,
      .scale = MOE_SCALE_F32, .group_n = 1, .tier = MOE_TIER_GENERIC,
      .k_multiple = 1, .nmse = 1e-11 },
    { .id = "mxfp4", .elem = MOE_ELEM_E2M1, .bits = 4,
      .scale = MOE_SCALE_E8M0, .group_n = 1, .group_k = 32, .block_k = 32,
      .tier = MOE_TIER_NATIVE, .k_multiple = 2, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "e2m1-f16-g64", .elem = MOE_ELEM_E2M1, .bits = 4,
      .scale = MOE_SCALE_F16, .group_n = 2, .group_k = 64,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = I4_LIMIT,
      .nmse_x1e9 = 200000 },
    { .id = "mxfp4-exact", .elem = MOE_ELEM_E2M1, .bits = 4,
      .scale = MOE_SCALE_E8M0, .group_n = 1, .group_k = 32, .block_k = 32,
      .tier = MOE_TIER_GENERIC, .k_multiple = 2, .nmse = 1e-11 },
    { .id = "lut4", .elem = MOE_ELEM_LUT, .bits = 4, .scale = MOE_SCALE_F16,
      .group_n = 1, .group_k = 64, .tier = MOE_TIER_GENERIC, .k_multiple = 2,
      .nmse = 1e-11 },
    { .id = "int3", .elem = MOE_ELEM_UINT, .bits = 3, .bias = 4,
      .scale = MOE_SCALE_F32, .group_n = 2, .group_k = 16, .block_k = 8,
      .tier = MOE_TIER_GENERIC, .k_multiple = 8, .nmse = 1e-11 },
    { .id = "int5-zero", .elem = MOE_ELEM_UINT, .bits = 5, .zero_bits = 3,
      .zero_block = 4, .zero_bias = 2, .scale = MOE_SCALE_NONE, .group_n = 3,
      .group_k = 7, .tier = MOE_TIER_GENERIC, .k_multiple = 1,
      .nmse = 1e-9 }, /* large numbers, so large cancellations */
    { .id = "plain-bf16", .elem = MOE_ELEM_BF16, .bits = 16,
      .tier = MOE_TIER_NATIVE, .k_multiple = 1, .nmse = 1e-11 },
};
#define N_SPECS (sizeof(specs) / sizeof(*specs))

#define WSET_SLOTS 6

struct wset {
    const struct spec  *spec;
    struct moe_format   format;
    struct moe_shape    shape;
    struct moe_affine   affine[MOE_PARTS_MAX];
    struct moe_weights  weights;
    struct moe_plan     plan;
    uint32_t            slots;
    struct moe_tensor   tensor[WSET_SLOTS][MOE_PARTS_MAX];
    float              *value[WSET_SLOTS][MOE_PARTS_MAX]; /* (n, k) */
    moe_slab           *slab;
    struct moe_wref     wref[WSET_SLOTS]; /* group g is slot slots - 1 - g */
    struct test_host   *t;
    int                 quiet; /* a refusal is expected */
};

static uint64_t
up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b * b;
}

static uint32_t
spec_scale_size(uint32_t scale)
{
    return scale == MOE_SCALE_F32    ? 4
           : scale == MOE_SCALE_NONE ? 0
           : scale == MOE_SCALE_E8M0 ? 1
                                     : 2;
}

/* The description of an n x k matrix. */
static struct moe_affine
spec_affine(const struct spec *s, uint64_t n, uint64_t k)
{
    struct moe_affine a = { .struct_size = sizeof(a) };
    uint32_t          i;

    a.elem = s->elem;
    a.elem_bits = s->bits;
    a.scale = s->scale;
    a.bias = s->bias;
    a.zero_bits = s->zero_bits;
    a.zero_bias = s->zero_bias;
    a.zero_block_n = s->zero_block;
    a.group_n = (uint32_t) (s->group_n != 0 ? s->group_n : n);
    a.group_k = (uint32_t) (s->group_k != 0 ? s->group_k : k);
    a.block_k = (uint32_t) (s->block_k != 0 ? s->block_k : k);
    a.elem_block = up((uint64_t) a.block_k * s->bits, 8) / 8;
    a.elem_row = (k + a.block_k - 1) / a.block_k * a.elem_block;
    a.scale_group = spec_scale_size(s->scale);
    a.scale_row = (k + a.group_k - 1) / a.group_k * a.scale_group;
    a.zero_group = (s->zero_bits * s->zero_block + 7) / 8;
    if (s->zero_block == 8) /* as words of 32 bits */
        a.zero_group = 4;
    a.zero_row = (k + a.group_k - 1) / a.group_k * a.zero_group;
    for (i = 0; i < 16; i++)
        a.lut[i] = (float) ((int) i - 7) * 0.37f;
    return a;
}

/* Random bytes that check() would accept. */
static void
spec_fill(const struct spec *s, uint32_t plane, uint8_t *p, uint64_t bytes)
{
    uint64_t i;

    for (i = 0; i < bytes; i++)
        p[i] = (uint8_t) rng();
    if (plane == MOE_PLANE_ELEM && s->bits == 8 && s->elem == MOE_ELEM_E4M3)
        for (i = 0; i < bytes; i++)
            p[i] = (p[i] & 0x7f) == 0x7f ? 0x00 : p[i];
    if (plane == MOE_PLANE_ELEM && s->elem == MOE_ELEM_E5M2)
        for (i = 0; i < bytes; i++)
            p[i] = (p[i] & 0x7c) == 0x7c ? 0x81 : p[i] & 0xbf;
    if (plane == MOE_PLANE_ELEM && s->bits >= 16)
        for (i = 0; i < bytes / (s->bits / 8); i++)
            moe_ref_put(p,
                        s->elem == MOE_ELEM_F32   ? MOE_F32
                        : s->elem == MOE_ELEM_F16 ? MOE_F16
                                                  : MOE_BF16,
                        i, (double) rng_normal());
    if (plane != MOE_PLANE_SCALE)
        return;
    if (s->scale == MOE_SCALE_E8M0)
        for (i = 0; i < bytes; i++)
            p[i] = (uint8_t) (120 + p[i] % 12);
    else
        for (i = 0; i < bytes / spec_scale_size(s->scale); i++)
            moe_ref_put(p, /* MOE_SCALE_F32.. are MOE_F32.. */
                        s->scale, i, 0.01 + 0.05 * (rng() / 4294967296.0));
}

static struct moe_tensor
wset_tensor(const struct wset *w, uint32_t part)
{
    const uint64_t    n = w->shape.n[part], k = w->shape.k[part];
    struct moe_tensor t = { .struct_size = sizeof(t), .n = n, .k = k };
    uint32_t          i;

    t.scale_dtype = w->weights.scale_dtype;
    for (i = 0; i < 3; i++) {
        uint8_t *p;

        t.len[i] = moe_ref_affine_bytes(&w->affine[part], n, k, i);
        if (t.len[i] == 0)
            continue;
        p = malloc(t.len[i]); /* exact, so that a sanitizer sees overruns */
        spec_fill(w->spec, i, p, t.len[i]);
        t.plane[i] = p;
    }
    return t;
}

/* Makes the weights; no slab yet.  Shapes beyond n_parts are not read. */
static void
wset_make(struct wset *w, struct test_host *t, const struct spec *s,
          const struct moe_shape *shape, uint32_t slots)
{
    uint32_t i, p;
    uint64_t r, c;

    memset(w, 0, sizeof(*w));
    w->t = t;
    w->spec = s;
    w->shape = *shape;
    w->slots = slots;
    w->format = (struct moe_format){ .struct_size = sizeof(w->format),
                                     .revision = 1,
                                     .id = s->id,
                                     .k_multiple = s->k_multiple,
                                     .n_multiple = 1,
                                     .nmse_x1e9 = s->nmse_x1e9 };
    w->weights.struct_size = sizeof(w->weights);
    w->weights.scale_dtype = s->scale == MOE_SCALE_E8M0 ? 0 : s->scale;
    w->weights.format = &w->format;
    w->weights.shape = &w->shape;
    for (p = 0; p < shape->n_parts; p++) {
        w->affine[p] = spec_affine(s, shape->n[p], shape->k[p]);
        if (!s->universal)
            w->weights.affine[p] = &w->affine[p];
    }
    for (i = 0; i < slots; i++) {
        w->wref[i].slot = slots - 1 - i;
        for (p = 0; p < shape->n_parts; p++) {
            const struct moe_affine *a = &w->affine[p];
            const uint64_t           k = shape->k[p];
            float                   *v;

            w->tensor[i][p] = wset_tensor(w, p);
            v = malloc(shape->n[p] * k * sizeof(float));
            for (r = 0; r < shape->n[p]; r++)
                for (c = 0; c < k; c++)
                    v[r * k + c] = (float) moe_ref_affine(
                        a, w->tensor[i][p].plane, r, c);
            w->value[i][p] = v;
        }
    }
}

/* The slab for op, all slots filled. */
static moe_status
wset_upload(struct wset *w, const struct moe_op *op)
{
    const struct moe_backend_ops *ops = w->t->ops;
    struct moe_weight_src         src = { .struct_size = sizeof(src) };
    moe_status                    st;
    uint32_t                      i, p;

    st = ops->query(w->t->dev, op, &w->weights, &w->plan, &w->t->err);
    if (st == MOE_OK)
        st = ops->slab_create(w->t->dev, &w->weights, &w->plan, w->slots,
                              &w->slab, &w->t->err);
    for (i = 0; i < w->slots && st == MOE_OK; i++) {
        w->wref[i].slab = w->slab;
        for (p = 0; p < w->shape.n_parts; p++)
            src.part[p] = &w->tensor[i][p];
        st = ops->slot_upload(w->t->stream, w->slab, w->wref[i].slot, &src,
                              &w->t->err);
    }
    if (st != MOE_OK && !w->quiet)
        printf("# %s: %s\n", w->spec->id, w->t->err.text);
    return st;
}

static void
wset_free(struct wset *w)
{
    uint32_t i, p, j;

    if (w->slab != NULL)
        w->t->ops->slab_destroy(w->slab);
    for (i = 0; i < w->slots; i++)
        for (p = 0; p < w->shape.n_parts; p++) {
            free(w->value[i][p]);
            for (j = 0; j < 3; j++)
                free((void *) (uintptr_t) w->tensor[i][p].plane[j]);
        }
    memset(w, 0, sizeof(*w));
}

/* For the reference: row r of a part of group g. */
static const float *
wset_row(void *ctx, uint32_t group, uint32_t part, uint64_t r, float *scratch)
{
    const struct wset *w = ctx;

    (void) scratch;
    return w->value[group % w->slots][part] + r * w->shape.k[part];
}

__attribute__((__unused__)) static struct moe_ref_weights
wset_ref(struct wset *w)
{
    return (struct moe_ref_weights){ w, wset_row, &w->shape };
}

#endif /* MOE_TESTS_MATRIX_WEIGHTS_H */
