/* SPDX-License-Identifier: Apache-2.0 */
/*
 * affine.h - reads an element by struct moe_affine, word by word.
 *
 * The slowest possible reader, straight from the comment in quantizer.h and
 * with none of the quantizers' code, so that tests can hold decode() against
 * the description that a format gives of itself.
 */
#ifndef MOE_TESTS_CONFORM_AFFINE_H
#define MOE_TESTS_CONFORM_AFFINE_H

#include <math.h>
#include <string.h>

#include <moe/quantizer.h>

static inline uint32_t
affine_bits(const unsigned char *base, uint64_t bit, uint32_t width)
{
    uint32_t v = 0, i;

    for (i = 0; i < width; i++)
        v |= (uint32_t) ((base[(bit + i) / 8] >> ((bit + i) % 8)) & 1u) << i;
    return v;
}

/* A small float: sign, exp bits, man bits; ieee: the top exponent is inf and
 * NaN, else (E4M3) only the code of all ones is NaN, or (E2M1) none. */
static inline double
affine_small(uint32_t v, int exp, int man, int bias, int ieee, int nan)
{
    int      top = (1 << exp) - 1;
    int      e = (int) (v >> man) & top;
    int      m = (int) (v & ((1u << man) - 1u));
    double   sign = (v >> (exp + man)) & 1u ? -1.0 : 1.0;

    if (ieee && e == top)
        return m != 0 ? (double) NAN : sign * (double) INFINITY;
    if (nan && e == top && m == (1 << man) - 1)
        return (double) NAN;
    if (e == 0)
        return sign * ldexp((double) m, 1 - bias - man);
    return sign * ldexp((double) (m + (1 << man)), e - bias - man);
}

static inline double
affine_number(const struct moe_affine *a, uint32_t kind, uint32_t v)
{
    float f;

    switch (kind) {
    case MOE_ELEM_UINT:
        return (double) v;
    case MOE_ELEM_INT:
        return (v >> (a->elem_bits - 1)) & 1u
                   ? (double) v - ldexp(1.0, (int) a->elem_bits)
                   : (double) v;
    case MOE_ELEM_E4M3:
        return affine_small(v, 4, 3, 7, 0, 1);
    case MOE_ELEM_E5M2:
        return affine_small(v, 5, 2, 15, 1, 0);
    case MOE_ELEM_E2M1:
        return affine_small(v, 2, 1, 1, 0, 0);
    case MOE_ELEM_LUT:
        return v < 16 ? (double) a->lut[v] : (double) NAN;
    case MOE_ELEM_F16:
        return affine_small(v, 5, 10, 15, 1, 0);
    case MOE_ELEM_BF16:
        v <<= 16;
        /* fall through */
    case MOE_ELEM_F32:
        memcpy(&f, &v, sizeof(f));
        return (double) f;
    default:
        return (double) NAN;
    }
}

/* Bytes of one scale; 0: none, or a type we do not know. */
static inline uint32_t
affine_scale_bytes(uint32_t scale)
{
    switch (scale) {
    case MOE_SCALE_F32:
        return 4;
    case MOE_SCALE_F16:
    case MOE_SCALE_BF16:
        return 2;
    case MOE_SCALE_E8M0:
        return 1;
    default:
        return 0;
    }
}

static inline double
affine_scale(const struct moe_affine *a, const unsigned char *p)
{
    uint32_t bytes = affine_scale_bytes(a->scale);

    switch (a->scale) {
    case MOE_SCALE_NONE:
        return 1.0;
    case MOE_SCALE_F32:
        return affine_number(a, MOE_ELEM_F32, affine_bits(p, 0, 8 * bytes));
    case MOE_SCALE_F16:
        return affine_number(a, MOE_ELEM_F16, affine_bits(p, 0, 8 * bytes));
    case MOE_SCALE_BF16:
        return affine_number(a, MOE_ELEM_BF16, affine_bits(p, 0, 8 * bytes));
    case MOE_SCALE_E8M0:
        return p[0] == 255 ? (double) NAN : ldexp(1.0, (int) p[0] - 127);
    default:
        return (double) NAN;
    }
}

/* Where element (r, c), its scale and its zero point end, in bytes of their
 * planes: a description that points past a plane is found before it is
 * followed. */
static inline void
affine_ends(const struct moe_affine *a, uint64_t r, uint64_t c, uint64_t end[3])
{
    uint64_t i = r / a->group_n, j = c / a->group_k;

    end[0] = r * a->elem_row + c / a->block_k * a->elem_block
             + (a->elem_bits * (c % a->block_k) + a->elem_bits + 7) / 8;
    end[1] = a->scale == MOE_SCALE_NONE
                 ? 0
                 : i * a->scale_row + j * a->scale_group
                       + affine_scale_bytes(a->scale);
    end[2] = a->zero_bits == 0
                 ? 0
                 : i / a->zero_block_n * a->zero_row + j * a->zero_group
                       + (a->zero_bits * (i % a->zero_block_n) + a->zero_bits
                          + 7)
                             / 8;
}

/* w[r][c], rounded to f32 once: scale * (elem - bias - zero). */
static inline float
affine_weight(const struct moe_affine *a, const struct moe_tensor *t,
              uint64_t r, uint64_t c)
{
    const unsigned char *elem = t->plane[MOE_PLANE_ELEM];
    const unsigned char *scale = t->plane[MOE_PLANE_SCALE];
    const unsigned char *zero = t->plane[MOE_PLANE_ZERO];
    uint64_t             i = r / a->group_n, j = c / a->group_k;
    double               v, z = 0.0, s = 1.0;

    v = affine_number(
        a, a->elem,
        affine_bits(elem + r * a->elem_row + c / a->block_k * a->elem_block,
                    a->elem_bits * (c % a->block_k), a->elem_bits));
    if (a->zero_bits != 0)
        z = (double) affine_bits(zero + i / a->zero_block_n * a->zero_row
                                     + j * a->zero_group,
                                 a->zero_bits * (i % a->zero_block_n),
                                 a->zero_bits)
            - (double) a->zero_bias;
    if (a->scale != MOE_SCALE_NONE)
        s = affine_scale(a, scale + i * a->scale_row + j * a->scale_group);
    return (float) (s * (v - (double) a->bias - z));
}

#endif /* MOE_TESTS_CONFORM_AFFINE_H */
