/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int4.c - 4-bit integers in groups of 32, 64 or 128 along k.
 *
 * Owns the bytes, which are those of compressed-tensors' "pack-quantized":
 *
 *   weight_packed      I32 (n, k / 8)       8 codes, lowest bits first; a
 *                                           code v in [-8, 7] lies as v + 8
 *   weight_scale       (n, k / group)       F32, F16 or BF16
 *   weight_zero_point  I32 (ceil(n / 8), k / group), formats with "z" only:
 *                                           8 rows' zero points, packed alike
 *
 *   w = (code - zero) * scale, one rounding, in f32
 *
 * As checkpoints are little-endian, code c of a row is the nibble c % 2 of
 * byte c / 2.  weight_shape, which other engines want, is the converter's to
 * write.  search.c chooses scales and zero points.
 */

#include "quant/int4/search.h"

#include "common/quant.h"

/* Bits a weight are for 16-bit scales.  A kernel may round activations to
 * 8 bits in blocks: 1.4 % relative, against some 8.6 of the format itself. */
#define INT4_FORMAT(name, text, group, sym, bits)                             \
    static const struct moe_format name = {                                   \
        .struct_size = sizeof(struct moe_format),                             \
        .revision = 1,                                                        \
        .id = "int4-g" #group text,                                           \
        .summary = (sym) ? "4-bit integers, one scale for " #group " weights" \
                         : "4-bit integers, one scale and zero point for "    \
                           #group " weights",                                 \
        .k_multiple = (group),                                                \
        .n_multiple = 1,                                                      \
        .bits_x1000 = (bits),                                                 \
        .nmse_x1e9 = 200000,                                                  \
        .scheme = { .struct_size = sizeof(struct moe_scheme),                 \
                    .num_bits = 4,                                            \
                    .group_size = (group),                                    \
                    .symmetric = (sym),                                       \
                    .storage = "pack-quantized",                              \
                    .type = "int",                                            \
                    .strategy = "group",                                      \
                    .elem = "I32" },                                          \
    }

INT4_FORMAT(int4_g32, "", 32, 1, 4500);
INT4_FORMAT(int4_g64, "", 64, 1, 4250);
INT4_FORMAT(int4_g128, "", 128, 1, 4125);
INT4_FORMAT(int4_g32z, "z", 32, 0, 4625);
INT4_FORMAT(int4_g64z, "z", 64, 0, 4313);
INT4_FORMAT(int4_g128z, "z", 128, 0, 4157);

static const struct moe_format *const int4_formats[] = {
    &int4_g32, &int4_g64, &int4_g128, &int4_g32z, &int4_g64z, &int4_g128z,
};

#define INT4_RUN 32u /* weights handled at a time: the smallest group */

static moe_status
int4_planes(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
            uint32_t scale_dtype, struct moe_plane out[MOE_PLANES_MAX],
            uint32_t *n_planes, struct moe_error *err)
{
    uint64_t   groups = k / f->scheme.group_size;
    moe_status st = moe_shape_check(f, n, k, err);

    (void) self;
    if (st == MOE_OK)
        st = moe_scale_dtype_check(f, scale_dtype, err);
    if (st != MOE_OK)
        return st;
    if (!moe_plane_set(&out[MOE_PLANE_ELEM], "weight_packed", "I32", 4, 2, n,
                       k / 8)
        || !moe_plane_set(&out[MOE_PLANE_SCALE], "weight_scale",
                          moe_scale_dtype_name(scale_dtype),
                          moe_dtype_size(scale_dtype), 2, n, groups)
        || !moe_plane_set(&out[MOE_PLANE_ZERO], "weight_zero_point", "I32", 4,
                          2, moe_ceil_div(n, 8), groups))
        return moe_too_large(f, n, k, err);
    *n_planes = f->scheme.symmetric ? 2 : 3;
    return MOE_OK;
}

/* The stored zero point of row r in group j of `groups`. */
static inline int32_t
int4_zero(const struct moe_format *f, const struct moe_tensor *t, uint64_t r,
          uint64_t j, uint64_t groups)
{
    const unsigned char *p = t->plane[MOE_PLANE_ZERO];

    if (f->scheme.symmetric)
        return 8;
    return p[(r / 8 * groups + j) * 4 + r % 8 / 2] >> (r % 2 * 4) & 15;
}

static moe_status
int4_check(void *self, const struct moe_format *f, const struct moe_tensor *t,
           struct moe_error *err)
{
    struct moe_plane want[MOE_PLANES_MAX];
    uint32_t         n_planes;
    uint64_t         i, groups = t->k / f->scheme.group_size;
    const char      *what;
    float            s;
    moe_status       st;

    st = int4_planes(self, f, t->n, t->k, t->scale_dtype, want, &n_planes,
                     err);
    if (st == MOE_OK)
        st = moe_lengths_check(f, want, n_planes, t, err);
    if (st != MOE_OK)
        return st;
    /* Any nibble is a code.  A negative scale is legal arithmetic, and some
     * converters write it; a scale of 0 no quantizer does. */
    for (i = 0; i < t->n * groups; i++) {
        s = moe_scale_load(t->plane[MOE_PLANE_SCALE], t->scale_dtype, i);
        if (s != 0.0f && fabsf(s) <= INT4_SCALE_MAX)
            continue;
        what = isnan(s) ? "NaN" : isinf(s) ? "infinite"
               : s == 0.0f ? "0" : "too large";
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "weight_scale of row %llu, group %llu is %s; the file "
                        "is damaged or its calibration failed",
                        (unsigned long long) (i / groups),
                        (unsigned long long) (i % groups), what);
    }
    return MOE_OK;
}

/* 32 weights from 16 bytes. */
static inline void
int4_expand(const unsigned char *src, int32_t zero, float scale, float *dst)
{
    unsigned char b[INT4_RUN / 2];
    uint32_t      i;

    memcpy(b, src, sizeof(b));
    for (i = 0; i < INT4_RUN / 2; i++) {
        dst[2 * i] = (float) ((int32_t) (b[i] & 15) - zero) * scale;
        dst[2 * i + 1] = (float) ((int32_t) (b[i] >> 4) - zero) * scale;
    }
}

/* Likewise to f16, which is dear to round to: by the 16 numbers that a group
 * can have. */
static inline void
int4_lookup(const unsigned char *src, const uint16_t lut[16], uint16_t *dst)
{
    uint32_t i;

    for (i = 0; i < INT4_RUN / 2; i++) {
        dst[2 * i] = lut[src[i] & 15];
        dst[2 * i + 1] = lut[src[i] >> 4];
    }
}

static moe_status
int4_decode(void *self, const struct moe_format *f, const struct moe_tensor *t,
            uint64_t row0, uint64_t rows, uint32_t dtype, void *dst,
            uint64_t ld)
{
    moe_status           st = moe_decode_check(t, row0, rows, dtype, ld);
    uint32_t             group = f->scheme.group_size, i;
    uint64_t             groups = t->k / group, r, j;
    uint32_t             size = moe_dtype_size(dtype);
    const unsigned char *src;
    unsigned char       *out;
    float                x[INT4_RUN], s;
    uint16_t             lut[16], h[INT4_RUN];
    int32_t              zero;

    (void) self;
    if (st != MOE_OK)
        return st;
    for (r = row0; r < row0 + rows; r++) {
        src = (const unsigned char *) t->plane[MOE_PLANE_ELEM] + r * (t->k / 2);
        out = (unsigned char *) dst + (r - row0) * ld * size;
        for (j = 0; j < groups; j++) {
            s = moe_scale_load(t->plane[MOE_PLANE_SCALE], t->scale_dtype,
                               r * groups + j);
            zero = int4_zero(f, t, r, j, groups);
            if (dtype == MOE_F16) {
                for (i = 0; i < 16; i++)
                    x[i] = (float) ((int32_t) i - zero) * s;
                moe_f16_round_row(x, 16, lut);
            }
            for (i = 0; i < group; i += INT4_RUN) {
                if (dtype == MOE_F16) {
                    int4_lookup(src, lut, h);
                    memcpy(out, h, sizeof(h));
                } else {
                    int4_expand(src, zero, s, x);
                    moe_row_store(x, INT4_RUN, dtype, out, 0);
                }
                src += INT4_RUN / 2;
                out += INT4_RUN * size;
            }
        }
    }
    return MOE_OK;
}

static moe_status
int4_affine(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
            uint32_t scale_dtype, struct moe_affine *out)
{
    uint64_t groups = k / f->scheme.group_size;

    (void) self;
    (void) n;
    if (moe_scale_dtype_name(scale_dtype) == NULL)
        return MOE_E_UNSUPPORTED;
    memset(out, 0, sizeof(*out));
    out->struct_size = sizeof(*out);
    out->elem = MOE_ELEM_UINT;
    out->elem_bits = 4;
    out->scale = moe_scale_affine(scale_dtype);
    out->bias = f->scheme.symmetric ? 8 : 0;
    out->zero_bits = f->scheme.symmetric ? 0 : 4;
    out->zero_block_n = 8;
    out->group_n = 1;
    out->group_k = f->scheme.group_size;
    out->block_k = 8;
    out->elem_row = k / 2;
    out->elem_block = 4;
    out->scale_row = groups * moe_dtype_size(scale_dtype);
    out->scale_group = moe_dtype_size(scale_dtype);
    if (!f->scheme.symmetric) {
        out->zero_row = groups * 4;
        out->zero_group = 4;
    }
    return MOE_OK;
}

static moe_status
int4_encode(void *self, const struct moe_format *f, const float *src,
            uint64_t ld, const float *importance, const struct moe_tensor *dst,
            struct moe_error *err)
{
    struct moe_plane   want[MOE_PLANES_MAX];
    struct int4_choice pick;
    uint32_t           n_planes, group = f->scheme.group_size, i;
    uint64_t           groups = dst->k / group, r, j;
    unsigned char     *code = (unsigned char *) (uintptr_t)
                              dst->plane[MOE_PLANE_ELEM];
    unsigned char     *scale = (unsigned char *) (uintptr_t)
                               dst->plane[MOE_PLANE_SCALE];
    unsigned char     *zero = (unsigned char *) (uintptr_t)
                              dst->plane[MOE_PLANE_ZERO];
    moe_status         st;

    st = int4_planes(self, f, dst->n, dst->k, dst->scale_dtype, want,
                     &n_planes, err);
    if (st == MOE_OK)
        st = moe_lengths_check(f, want, n_planes, dst, err);
    if (st == MOE_OK)
        st = moe_encode_check(f, importance, dst, ld, err);
    if (st != MOE_OK)
        return st;
    if (!f->scheme.symmetric) /* rows that are not there have zero bits */
        memset(zero, 0, want[MOE_PLANE_ZERO].bytes);
    for (r = 0; r < dst->n; r++) {
        st = moe_row_check(src + r * ld, dst->k, r, err);
        if (st != MOE_OK)
            return st;
        for (j = 0; j < groups; j++) {
            if (!int4_choose(src + r * ld + j * group,
                             importance != NULL ? importance + j * group : NULL,
                             group, (int) f->scheme.symmetric,
                             dst->scale_dtype, &pick))
                return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                                "weights of row %llu, group %llu are too "
                                "large for a scale of type F16; choose BF16 "
                                "or F32",
                                (unsigned long long) r,
                                (unsigned long long) j);
            moe_scale_store(scale, dst->scale_dtype, r * groups + j,
                            pick.scale);
            for (i = 0; i < group / 2; i++)
                *code++ = (unsigned char) ((pick.code[2 * i] + pick.zero)
                                           | (pick.code[2 * i + 1] + pick.zero)
                                                 << 4);
            if (!f->scheme.symmetric)
                zero[(r / 8 * groups + j) * 4 + r % 8 / 2] |=
                    (unsigned char) (pick.zero << (r % 2 * 4));
        }
    }
    return MOE_OK;
}

static const struct moe_quantizer_ops int4_ops = {
    .struct_size = sizeof(struct moe_quantizer_ops),
    .n_formats = sizeof(int4_formats) / sizeof(int4_formats[0]),
    .formats = int4_formats,
    .planes = int4_planes,
    .check = int4_check,
    .decode = int4_decode,
    .affine = int4_affine,
    .encode = int4_encode,
};

MOE_PLUGIN_DEFINE(int4) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_QUANTIZER,
    .name = "int4",
    .version = "1",
    .license = "Apache-2.0",
    .summary = "4-bit integers in groups of 32, 64, 128, with or without zero "
               "points",
    .ops = &int4_ops,
    .init = moe_quant_init,
    .fini = moe_quant_fini,
};
