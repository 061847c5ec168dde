/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant.h - what the quantizers of this tree share: planes, rows, scales.
 *
 * Owns the arithmetic of plane sizes (no product may wrap: n and k come from
 * a file), the refusal of planes of a wrong length, and reading, choosing
 * and writing scales of the three types.  Knows no format.
 */
#ifndef MOE_PLUGINS_COMMON_QUANT_H
#define MOE_PLUGINS_COMMON_QUANT_H

#include <float.h>
#include <math.h>

#include <moe/plugin.h>
#include <moe/quantizer.h>

#include "common/half.h"

MOE_STATIC_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
                  "checkpoints are little-endian and so is this code");

/* ------------------------------------------------------------ life cycle -- */

/* The quantizers have no state: self is only there to be not NULL. */
static inline moe_status
moe_quant_init(const struct moe_host *host, void **self, struct moe_error *err)
{
    static const char stateless = 0;

    (void) host;
    (void) err;
    *self = (void *) (uintptr_t) &stateless;
    return MOE_OK;
}

static inline void
moe_quant_fini(void *self)
{
    (void) self;
}

/* ---------------------------------------------------------------- planes -- */

static inline const char *
moe_scale_dtype_name(uint32_t dtype)
{
    switch (dtype) {
    case MOE_F32:
        return "F32";
    case MOE_F16:
        return "F16";
    case MOE_BF16:
        return "BF16";
    default:
        return NULL;
    }
}

static inline uint64_t
moe_ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* dim0 x dim1 elements of elem_bytes; n_dims 1 takes dim1 = 1.  False: the
 * size does not fit 63 bits, which no file has. */
static inline int
moe_plane_set(struct moe_plane *p, const char *suffix, const char *dtype,
              uint64_t elem_bytes, uint32_t n_dims, uint64_t dim0,
              uint64_t dim1)
{
    uint64_t bytes;

    if (__builtin_mul_overflow(dim0, dim1, &bytes)
        || __builtin_mul_overflow(bytes, elem_bytes, &bytes)
        || bytes > (uint64_t) INT64_MAX)
        return 0;
    memset(p, 0, sizeof(*p));
    p->struct_size = sizeof(*p);
    p->n_dims = n_dims;
    p->dim[0] = dim0;
    p->dim[1] = n_dims == 2 ? dim1 : 0;
    p->bytes = bytes;
    snprintf(p->suffix, sizeof(p->suffix), "%s", suffix);
    snprintf(p->dtype, sizeof(p->dtype), "%s", dtype);
    return 1;
}

/* n and k fit the format, and there is something to store. */
static inline moe_status
moe_shape_check(const struct moe_format *f, uint64_t n, uint64_t k,
                struct moe_error *err)
{
    if (n == 0 || k == 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "format %s: a matrix of %llu x %llu is empty", f->id,
                        (unsigned long long) n, (unsigned long long) k);
    if (k % f->k_multiple != 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "format %s needs rows of a multiple of %u; %llu is "
                        "none: choose another format for this matrix",
                        f->id, (unsigned) f->k_multiple,
                        (unsigned long long) k);
    if (n % f->n_multiple != 0)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "format %s needs a multiple of %u rows; %llu is none: "
                        "choose another format for this matrix",
                        f->id, (unsigned) f->n_multiple,
                        (unsigned long long) n);
    return MOE_OK;
}

static inline moe_status
moe_too_large(const struct moe_format *f, uint64_t n, uint64_t k,
              struct moe_error *err)
{
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "format %s: a matrix of %llu x %llu is too large to "
                    "address",
                    f->id, (unsigned long long) n, (unsigned long long) k);
}

static inline moe_status
moe_scale_dtype_check(const struct moe_format *f, uint32_t scale_dtype,
                      struct moe_error *err)
{
    if (moe_scale_dtype_name(scale_dtype) != NULL)
        return MOE_OK;
    return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                    "format %s: scales of type %u are unknown; F32, F16 and "
                    "BF16 are supported",
                    f->id, (unsigned) scale_dtype);
}

/* The planes of t are there and have the length they must have. */
static inline moe_status
moe_lengths_check(const struct moe_format *f, const struct moe_plane *want,
                  uint32_t n_planes, const struct moe_tensor *t,
                  struct moe_error *err)
{
    uint32_t i;

    for (i = 0; i < n_planes; i++) {
        if (t->plane[i] == NULL)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "format %s: plane %s is missing", f->id,
                            want[i].suffix);
        if (t->len[i] != want[i].bytes)
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "format %s: plane %s of a %llu x %llu matrix must "
                            "have %llu bytes, found %llu",
                            f->id, want[i].suffix, (unsigned long long) t->n,
                            (unsigned long long) t->k,
                            (unsigned long long) want[i].bytes,
                            (unsigned long long) t->len[i]);
    }
    return MOE_OK;
}

/* Arguments of decode(): rows inside the matrix, room for a row in ld. */
static inline moe_status
moe_decode_check(const struct moe_tensor *t, uint64_t row0, uint64_t rows,
                 uint32_t dtype, uint64_t ld)
{
    if (dtype != MOE_F32 && dtype != MOE_F16 && dtype != MOE_BF16)
        return MOE_E_UNSUPPORTED;
    if (row0 > t->n || rows > t->n - row0 || (ld < t->k && rows > 1))
        return MOE_E_INVAL;
    return MOE_OK;
}

/* Arguments of encode() that no format can do without. */
static inline moe_status
moe_encode_check(const struct moe_format *f, const float *importance,
                 const struct moe_tensor *dst, uint64_t ld,
                 struct moe_error *err)
{
    uint64_t c;

    if (ld < dst->k)
        return moe_fail(err, MOE_E_INVAL, 0,
                        "format %s: rows of %llu lie only %llu apart", f->id,
                        (unsigned long long) dst->k, (unsigned long long) ld);
    for (c = 0; importance != NULL && c < dst->k; c++)
        if (!(importance[c] >= 0.0f && importance[c] <= FLT_MAX))
            return moe_fail(err, MOE_E_INVAL, 0,
                            "importance of column %llu is %g; it must be "
                            "finite and not negative",
                            (unsigned long long) c, (double) importance[c]);
    return MOE_OK;
}

/* ------------------------------------------------------------------ rows -- */

/* True if each of n numbers is finite. */
static inline int
moe_row_is_finite(const float *x, uint64_t n)
{
    uint32_t acc[MOE_RUN] = { 0 };
    uint32_t bad = 0;
    uint64_t i, j;

    for (i = 0; i + MOE_RUN <= n; i += MOE_RUN)
        for (j = 0; j < MOE_RUN; j++)
            acc[j] |= (moe_bits_of(x[i + j]) & 0x7f800000u) == 0x7f800000u;
    for (; i < n; i++)
        bad |= (moe_bits_of(x[i]) & 0x7f800000u) == 0x7f800000u;
    for (j = 0; j < MOE_RUN; j++)
        bad |= acc[j];
    return bad == 0;
}

/* A row of src for encode(): MOE_E_CORRUPT names the first odd number. */
static inline moe_status
moe_row_check(const float *x, uint64_t k, uint64_t row, struct moe_error *err)
{
    uint64_t c;

    if (moe_row_is_finite(x, k))
        return MOE_OK;
    for (c = 0; c < k; c++)
        if (!(fabsf(x[c]) <= FLT_MAX))
            break;
    return moe_fail(err, MOE_E_CORRUPT, 0,
                    "weight at row %llu, column %llu is %s",
                    (unsigned long long) row, (unsigned long long) c,
                    c < k && isnan(x[c]) ? "NaN" : "infinite");
}

/* n numbers to dst, rounded to dtype; dst counts in elements of dtype. */
static inline void
moe_row_store(const float *x, uint64_t n, uint32_t dtype, void *dst,
              uint64_t at)
{
    unsigned char *d = dst;

    if (dtype == MOE_F32)
        memcpy(d + 4 * at, x, 4 * n);
    else if (dtype == MOE_F16)
        moe_f16_round_row(x, n, d + 2 * at);
    else
        moe_bf16_round_row(x, n, d + 2 * at);
}

/* ---------------------------------------------------------------- scales -- */

static inline float
moe_scale_load(const void *plane, uint32_t dtype, uint64_t i)
{
    const unsigned char *p = plane;
    uint16_t             h;
    float                f;

    if (dtype == MOE_F32) {
        memcpy(&f, p + 4 * i, 4);
        return f;
    }
    memcpy(&h, p + 2 * i, 2);
    return dtype == MOE_F16 ? moe_f16_widen(h) : moe_bf16_widen(h);
}

static inline void
moe_scale_store(void *plane, uint32_t dtype, uint64_t i, float s)
{
    unsigned char *p = plane;
    uint16_t       h;

    if (dtype == MOE_F32) {
        memcpy(p + 4 * i, &s, 4);
        return;
    }
    h = dtype == MOE_F16 ? moe_f16_round(s) : moe_bf16_round(s);
    memcpy(p + 2 * i, &h, 2);
}

/* s rounded to the type that it will be stored as. */
static inline float
moe_scale_round(float s, uint32_t dtype)
{
    if (dtype == MOE_F16)
        return moe_f16_widen(moe_f16_round(s));
    if (dtype == MOE_BF16)
        return moe_bf16_widen(moe_bf16_round(s));
    return s;
}

/* The scale of a group of zeros: the type's epsilon, as compressed-tensors
 * writes it.  Not 1: engines that fuse matrices take the largest scale. */
static inline float
moe_scale_of_zeros(uint32_t dtype)
{
    return dtype == MOE_F16 ? 0x1p-10f : dtype == MOE_BF16 ? 0x1p-7f : 0x1p-23f;
}

/* The least scale that encode() writes: never 0, and never a number that a
 * machine in flush-to-zero mode would read as 0. */
static inline float
moe_scale_least(uint32_t dtype)
{
    return dtype == MOE_F16 ? 0x1p-14f : 0x1p-126f;
}

static inline float
moe_scale_most(uint32_t dtype)
{
    return dtype == MOE_F16 ? 65504.0f
           : dtype == MOE_BF16 ? 0x1.fep127f : FLT_MAX;
}

static inline uint32_t
moe_scale_affine(uint32_t dtype)
{
    return dtype == MOE_F16    ? MOE_SCALE_F16
           : dtype == MOE_BF16 ? MOE_SCALE_BF16
                               : MOE_SCALE_F32;
}

#endif /* MOE_PLUGINS_COMMON_QUANT_H */
