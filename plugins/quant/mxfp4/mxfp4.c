/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mxfp4.c - 4-bit floats, 32 of them with a power of two: MXFP4 of the OCP
 * Microscaling Formats (MX) Specification, version 1.0.
 *
 * Owns the bytes, which are those of compressed-tensors'
 * "mxfp4-pack-quantized":
 *
 *   weight_packed  U8 (n, k / 2)   two codes a byte, the first in the low half
 *   weight_scale   U8 (n, k / 32)  E8M0: byte b is 2^(b - 127), 255 is NaN
 *
 *   w = code * scale, always exact
 *
 * A code is E2M1: sign, two bits of exponent (bias 1), one of mantissa.  The
 * blocks and scales of gpt-oss have the same bytes in the same order, under
 * other names.  k is a multiple of 32, as a matrix of another width has no
 * such planes.
 */

#include "common/quant.h"

#define MXFP4_GROUP 32u

/* The largest scale that 6 times is still a float. */
#define MXFP4_MOST 252

static const float mxfp4_value[16] = {
    0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
    -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f,
};

/* A kernel may round activations to 8 bits in blocks: 1.4 % relative, against
 * some 11 of the format itself. */
static const struct moe_format mxfp4_format = {
    .struct_size = sizeof(struct moe_format),
    .revision = 1,
    .id = "mxfp4",
    .summary = "4-bit floats (E2M1), a power of two for 32 weights",
    .k_multiple = MXFP4_GROUP,
    .n_multiple = 1,
    .bits_x1000 = 4250,
    .nmse_x1e9 = 200000,
    .scheme = { .struct_size = sizeof(struct moe_scheme),
                .num_bits = 4,
                .group_size = MXFP4_GROUP,
                .symmetric = 1,
                .storage = "mxfp4-pack-quantized",
                .type = "float",
                .strategy = "group",
                .elem = "U8" },
};

static const struct moe_format *const mxfp4_formats[] = { &mxfp4_format };

static float
mxfp4_scale(uint32_t byte)
{
    return byte == 0     ? 0x1p-127f
           : byte == 255 ? (float) NAN
                         : moe_float_of(byte << 23);
}

/* ----------------------------------------------------------- operations -- */

static moe_status
mxfp4_planes(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
             uint32_t scale_dtype, struct moe_plane out[MOE_PLANES_MAX],
             uint32_t *n_planes, struct moe_error *err)
{
    moe_status st = moe_shape_check(f, n, k, err);

    (void) self;
    if (st != MOE_OK)
        return st;
    if (scale_dtype != 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "format %s: its scales are bytes (E8M0); a type of "
                        "scales, here %u, cannot be chosen",
                        f->id, (unsigned) scale_dtype);
    if (!moe_plane_set(&out[MOE_PLANE_ELEM], "weight_packed", "U8", 1, 2, n,
                       k / 2)
        || !moe_plane_set(&out[MOE_PLANE_SCALE], "weight_scale", "U8", 1, 2, n,
                          k / MXFP4_GROUP))
        return moe_too_large(f, n, k, err);
    *n_planes = 2;
    return MOE_OK;
}

/* Any nibble is a code. */
static moe_status
mxfp4_check(void *self, const struct moe_format *f, const struct moe_tensor *t,
            struct moe_error *err)
{
    struct moe_plane     want[MOE_PLANES_MAX];
    uint32_t             n_planes;
    uint64_t             i, groups = t->k / MXFP4_GROUP;
    const unsigned char *scale = t->plane[MOE_PLANE_SCALE];
    moe_status           st;

    st = mxfp4_planes(self, f, t->n, t->k, t->scale_dtype, want, &n_planes,
                      err);
    if (st == MOE_OK)
        st = moe_lengths_check(f, want, n_planes, t, err);
    if (st != MOE_OK)
        return st;
    for (i = 0; i < t->n * groups; i++)
        if (scale[i] > MXFP4_MOST)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "weight_scale of row %llu, group %llu is %s; the "
                            "file is damaged or its calibration failed",
                            (unsigned long long) (i / groups),
                            (unsigned long long) (i % groups),
                            scale[i] == 255 ? "NaN" : "too large");
    return MOE_OK;
}

/* 32 weights from 16 bytes, by the 16 numbers that a group can have. */
#define MXFP4_EXPAND(name, type)                                              \
    static inline void name(const unsigned char *src, const type value[16],   \
                            void *dst)                                        \
    {                                                                         \
        type     x[MXFP4_GROUP];                                              \
        uint32_t i;                                                           \
                                                                              \
        for (i = 0; i < MXFP4_GROUP / 2; i++) {                               \
            x[2 * i] = value[src[i] & 15];                                    \
            x[2 * i + 1] = value[src[i] >> 4];                                \
        }                                                                     \
        memcpy(dst, x, sizeof(x));                                            \
    }

MXFP4_EXPAND(mxfp4_expand_32, float)
MXFP4_EXPAND(mxfp4_expand_16, uint16_t)

static moe_status
mxfp4_decode(void *self, const struct moe_format *f, const struct moe_tensor *t,
             uint64_t row0, uint64_t rows, uint32_t dtype, void *dst,
             uint64_t ld)
{
    moe_status           st = moe_decode_check(t, row0, rows, dtype, ld);
    uint64_t             groups = t->k / MXFP4_GROUP, r, j;
    uint32_t             size = moe_dtype_size(dtype), i;
    const unsigned char *src, *scale;
    unsigned char       *out;
    float                x[16], s;
    uint16_t             h[16];

    (void) self;
    (void) f;
    if (st != MOE_OK)
        return st;
    for (r = row0; r < row0 + rows; r++) {
        src = (const unsigned char *) t->plane[MOE_PLANE_ELEM] + r * (t->k / 2);
        scale = (const unsigned char *) t->plane[MOE_PLANE_SCALE] + r * groups;
        out = (unsigned char *) dst + (r - row0) * ld * size;
        for (j = 0; j < groups; j++) {
            s = mxfp4_scale(scale[j]);
            for (i = 0; i < 16; i++)
                x[i] = mxfp4_value[i] * s;
            if (dtype == MOE_F32) {
                mxfp4_expand_32(src, x, out);
            } else {
                moe_row_store(x, 16, dtype, h, 0);
                mxfp4_expand_16(src, h, out);
            }
            src += MXFP4_GROUP / 2;
            out += MXFP4_GROUP * size;
        }
    }
    return MOE_OK;
}

static moe_status
mxfp4_affine(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
             uint32_t scale_dtype, struct moe_affine *out)
{
    (void) self;
    (void) f;
    (void) n;
    if (scale_dtype != 0)
        return MOE_E_UNSUPPORTED;
    memset(out, 0, sizeof(*out));
    out->struct_size = sizeof(*out);
    out->elem = MOE_ELEM_E2M1;
    out->elem_bits = 4;
    out->scale = MOE_SCALE_E8M0;
    out->zero_block_n = 1;
    out->group_n = 1;
    out->group_k = MXFP4_GROUP;
    out->block_k = MXFP4_GROUP;
    out->elem_row = k / 2;
    out->elem_block = MXFP4_GROUP / 2;
    out->scale_row = k / MXFP4_GROUP;
    out->scale_group = 1;
    return MOE_OK;
}

/* --------------------------------------------------------------- encode -- */

/* The nearest code to a magnitude; of two as near, the even one. */
static inline uint32_t
mxfp4_round(float a)
{
    return (uint32_t) (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f)
           + (a > 2.5f) + (a >= 3.5f) + (a > 5.0f);
}

/* Codes of a group for one scale; returns the squared error. */
static double
mxfp4_try(const float *x, const float *importance, uint32_t byte,
          unsigned char code[MXFP4_GROUP])
{
    double   sum = 0.0, s, d;
    float    scale = mxfp4_scale(byte), a;
    uint32_t i, c;

    for (i = 0; i < MXFP4_GROUP; i++) {
        a = fabsf(x[i]) / scale;
        c = mxfp4_round(a);
        d = (double) a - (double) mxfp4_value[c];
        sum += importance != NULL ? (double) importance[i] * d * d : d * d;
        code[i] = (unsigned char) (c | (moe_bits_of(x[i]) >> 31) << 3);
    }
    s = (double) scale;
    return sum * s * s;
}

/*
 * The scale of a group, and its codes.  The specification's own scale is the
 * power of two in the largest magnitude over that in 6, which cuts off what
 * lies between 6 and 8 of its steps; the next larger cuts off nothing, the
 * next smaller more.  The one with the least squared error is taken, the
 * specification's if others are no better.
 */
static uint32_t
mxfp4_choose(const float *x, const float *importance,
             unsigned char code[MXFP4_GROUP])
{
    static const int step[] = { 1, -1 };
    unsigned char    other[MXFP4_GROUP];
    double           least, sum;
    float            most = 0.0f;
    int              first, best;
    uint32_t         i;

    for (i = 0; i < MXFP4_GROUP; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    first = (int) (moe_bits_of(most) >> 23) - 2; /* floor(log2) - 2 + 127 */
    first = first < 0 ? 0 : first;
    best = first;
    least = mxfp4_try(x, importance, (uint32_t) first, code);
    for (i = 0; i < 2 && least > 0.0; i++) {
        int byte = first + step[i];

        if (byte < 0 || byte > MXFP4_MOST)
            continue;
        sum = mxfp4_try(x, importance, (uint32_t) byte, other);
        if (sum < least) {
            least = sum;
            best = byte;
            memcpy(code, other, sizeof(other));
        }
    }
    return (uint32_t) best;
}

static moe_status
mxfp4_encode(void *self, const struct moe_format *f, const float *src,
             uint64_t ld, const float *importance,
             const struct moe_tensor *dst, struct moe_error *err)
{
    struct moe_plane want[MOE_PLANES_MAX];
    unsigned char    code[MXFP4_GROUP];
    uint32_t         n_planes, i;
    uint64_t         groups = dst->k / MXFP4_GROUP, r, j;
    unsigned char   *elem = (unsigned char *) (uintptr_t)
                            dst->plane[MOE_PLANE_ELEM];
    unsigned char   *scale = (unsigned char *) (uintptr_t)
                             dst->plane[MOE_PLANE_SCALE];
    moe_status       st;

    st = mxfp4_planes(self, f, dst->n, dst->k, dst->scale_dtype, want,
                      &n_planes, err);
    if (st == MOE_OK)
        st = moe_lengths_check(f, want, n_planes, dst, err);
    if (st == MOE_OK)
        st = moe_encode_check(f, importance, dst, ld, err);
    for (r = 0; r < dst->n && st == MOE_OK; r++) {
        st = moe_row_check(src + r * ld, dst->k, r, err);
        for (j = 0; j < groups && st == MOE_OK; j++) {
            *scale++ = (unsigned char) mxfp4_choose(
                src + r * ld + j * MXFP4_GROUP,
                importance != NULL ? importance + j * MXFP4_GROUP : NULL,
                code);
            for (i = 0; i < MXFP4_GROUP; i += 2)
                *elem++ = (unsigned char) (code[i] | code[i + 1] << 4);
        }
    }
    return st;
}

static const struct moe_quantizer_ops mxfp4_ops = {
    .struct_size = sizeof(struct moe_quantizer_ops),
    .n_formats = sizeof(mxfp4_formats) / sizeof(mxfp4_formats[0]),
    .formats = mxfp4_formats,
    .planes = mxfp4_planes,
    .check = mxfp4_check,
    .decode = mxfp4_decode,
    .affine = mxfp4_affine,
    .encode = mxfp4_encode,
};

MOE_PLUGIN_DEFINE(mxfp4) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_QUANTIZER,
    .name = "mxfp4",
    .version = "1",
    .license = "Apache-2.0",
    .summary = "4-bit floats E2M1, a power of two for 32 weights (OCP MXFP4)",
    .ops = &mxfp4_ops,
    .init = moe_quant_init,
    .fini = moe_quant_fini,
};
