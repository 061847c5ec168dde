/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref_affine.c - numbers as bytes: small floats and affine formats.
 *
 * One general reader for any float of e exponent and m mantissa bits, from
 * the definition; written from moe/quantizer.h, not from a quantizer.
 */

#include "common/ref_ops.h"

#include <math.h>
#include <string.h>

/* A float of sign, e exponent and m mantissa bits.  has_inf: the highest
 * exponent is infinity and NaN (IEEE); without, only all ones is NaN if nan
 * (E4M3), and E2M1 has neither. */
static double
small_float(uint32_t bits, int e, int m, int has_inf, int nan)
{
    int    bias = (1 << (e - 1)) - 1;
    int    ex = (int) (bits >> m) & ((1 << e) - 1);
    int    frac = (int) bits & ((1 << m) - 1);
    double v;

    if (has_inf && ex == (1 << e) - 1)
        v = frac != 0 ? (double) NAN : (double) INFINITY;
    else if (nan && ex == (1 << e) - 1 && frac == (1 << m) - 1)
        v = (double) NAN;
    else if (ex == 0)
        v = ldexp((double) frac, 1 - bias - m);
    else
        v = ldexp((double) (frac + (1 << m)), ex - bias - m);
    return (bits >> (e + m)) & 1 ? -v : v;
}

/* v rounded to nearest, ties to even, as bits. */
static uint32_t
to_small_float(double v, int e, int m)
{
    int      bias = (1 << (e - 1)) - 1, ex;
    uint32_t sign = signbit(v) ? 1u << (e + m) : 0, top = ((1u << e) - 1) << m;
    double   q;

    if (isnan(v))
        return sign | top | (1u << (m - 1));
    v = fabs(v);
    if (v == 0.0)
        return sign;
    if (isinf(v))
        return sign | top;
    frexp(v, &ex); /* v = f * 2^ex, f in [0.5, 1) */
    ex = ex - 1 < 1 - bias ? 1 - bias : ex - 1;
    q = nearbyint(ldexp(v, m - ex)); /* an integer, at most 2^(m+1) */
    /* q counts units of 2^(ex - m): a carry moves into the exponent by
     * itself, and a subnormal has exponent field 0. */
    q += ldexp((double) (ex + bias - 1), m);
    return q >= (double) top ? sign | top : sign | (uint32_t) q;
}

double
moe_ref_get(const void *p, uint32_t dtype, uint64_t i)
{
    uint16_t h;
    float    f;

    if (dtype == MOE_F32) {
        memcpy(&f, (const char *) p + 4 * i, sizeof(f));
        return (double) f;
    }
    memcpy(&h, (const char *) p + 2 * i, sizeof(h));
    return dtype == MOE_F16 ? small_float(h, 5, 10, 1, 1)
                            : small_float(h, 8, 7, 1, 1);
}

void
moe_ref_put(void *p, uint32_t dtype, uint64_t i, double v)
{
    uint16_t h;
    float    f = (float) v;

    if (dtype == MOE_F32) {
        memcpy((char *) p + 4 * i, &f, sizeof(f));
        return;
    }
    h = (uint16_t) (dtype == MOE_F16 ? to_small_float(v, 5, 10)
                                     : to_small_float(v, 8, 7));
    memcpy((char *) p + 2 * i, &h, sizeof(h));
}

/* n <= 32 bits that begin at bit `bit` of p, lowest first. */
static uint32_t
bits_at(const uint8_t *p, uint64_t bit, uint32_t n)
{
    uint32_t v = 0, i;

    for (i = 0; i < n; i++, bit++)
        v |= (uint32_t) ((p[bit / 8] >> (bit % 8)) & 1) << i;
    return v;
}

double
moe_ref_affine(const struct moe_affine *a, const void *const *plane,
               uint64_t r, uint64_t c)
{
    const uint8_t *elem = plane[MOE_PLANE_ELEM];
    uint64_t       gi = r / a->group_n, gj = c / a->group_k;
    const uint8_t *sp = plane[MOE_PLANE_SCALE];
    uint64_t       so = gi * a->scale_row + gj * a->scale_group;
    uint32_t       u;
    double         v, zero = 0, scale = 1;

    u = bits_at(elem + r * a->elem_row + (c / a->block_k) * a->elem_block,
                (uint64_t) a->elem_bits * (c % a->block_k), a->elem_bits);
    switch (a->elem) {
    case MOE_ELEM_INT:
        v = (double) u;
        if ((u >> (a->elem_bits - 1)) & 1)
            v -= ldexp(1.0, (int) a->elem_bits);
        break;
    case MOE_ELEM_E4M3:
        v = small_float(u, 4, 3, 0, 1);
        break;
    case MOE_ELEM_E5M2:
        v = small_float(u, 5, 2, 1, 1);
        break;
    case MOE_ELEM_E2M1:
        v = small_float(u, 2, 1, 0, 0);
        break;
    case MOE_ELEM_LUT:
        v = (double) a->lut[u & 15];
        break;
    case MOE_ELEM_F16:
        v = small_float(u, 5, 10, 1, 1);
        break;
    case MOE_ELEM_BF16:
        v = small_float(u, 8, 7, 1, 1);
        break;
    case MOE_ELEM_F32:
        v = small_float(u, 8, 23, 1, 1);
        break;
    default:
        v = (double) u;
        break;
    }
    if (a->zero_bits != 0)
        zero = (double) bits_at((const uint8_t *) plane[MOE_PLANE_ZERO]
                                    + gi / a->zero_block_n * a->zero_row
                                    + gj * a->zero_group,
                                (uint64_t) a->zero_bits
                                    * (gi % a->zero_block_n),
                                a->zero_bits)
               - (double) a->zero_bias;
    if (a->scale == MOE_SCALE_F32)
        scale = moe_ref_get(sp + so, MOE_F32, 0);
    else if (a->scale == MOE_SCALE_F16)
        scale = moe_ref_get(sp + so, MOE_F16, 0);
    else if (a->scale == MOE_SCALE_BF16)
        scale = moe_ref_get(sp + so, MOE_BF16, 0);
    else if (a->scale == MOE_SCALE_E8M0)
        scale = ldexp(1.0, (int) sp[so] - 127);
    return scale * (v - (double) a->bias - zero);
}

uint64_t
moe_ref_affine_bytes(const struct moe_affine *a, uint64_t n, uint64_t k,
                     uint32_t i)
{
    static const uint32_t scale_size[] = { 0, 4, 2, 2, 1 };
    uint64_t gn, gk, last;

    if (n == 0 || k == 0 || a->group_n == 0 || a->group_k == 0
        || a->block_k == 0 || a->scale > MOE_SCALE_E8M0)
        return 0;
    gn = (n + a->group_n - 1) / a->group_n - 1; /* of the last group */
    gk = (k + a->group_k - 1) / a->group_k - 1;
    if (i == MOE_PLANE_ELEM) {
        last = k % a->block_k != 0 ? k % a->block_k : a->block_k;
        if (k > a->block_k && a->elem_block == 0)
            return 0;
        return (n - 1) * a->elem_row + (k - 1) / a->block_k * a->elem_block
               + (last * a->elem_bits + 7) / 8;
    }
    if (i == MOE_PLANE_SCALE)
        return a->scale == MOE_SCALE_NONE
                   ? 0
                   : gn * a->scale_row + gk * a->scale_group
                         + scale_size[a->scale];
    if (i == MOE_PLANE_ZERO && a->zero_bits != 0 && a->zero_block_n != 0)
        return gn / a->zero_block_n * a->zero_row + gk * a->zero_group
               + (((gn < a->zero_block_n ? gn : a->zero_block_n - 1) + 1)
                      * a->zero_bits
                  + 7) / 8;
    return 0;
}
