/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generic.c - any affine format, followed literally (moe/quantizer.h).
 *
 * Owns the meaning of struct moe_affine in this backend: the packers of the
 * native layouts read planes through it too.  Slow by the element, so the
 * usual shapes (whole bytes, or half bytes, in one run) have loops of their
 * own.  The numbers are those of decode(): one rounding, that of the product
 * with the scale.
 */

#include <math.h>

#include "backend/cpu/cpu.h"

#define TILE_K 256u /* columns expanded at once: 16 KB of floats */

uint32_t
cpu_bits(const uint8_t *p, uint64_t at, uint32_t n)
{
    uint64_t first = at / 8, last = (at + n - 1) / 8, i;
    uint64_t v = 0;

    if (first == last)
        return p[first] >> at % 8 & ((1u << n) - 1);
    for (i = first; i <= last; i++)
        v |= (uint64_t) p[i] << (8 * (i - first));
    v >>= at % 8;
    return (uint32_t) (v & ((UINT64_C(1) << n) - 1));
}

uint32_t
cpu_affine_code(const struct moe_affine *a, const uint8_t *elem, uint64_t r,
                uint64_t c)
{
    return cpu_bits(elem + r * a->elem_row + c / a->block_k * a->elem_block,
                   (uint64_t) a->elem_bits * (c % a->block_k), a->elem_bits);
}

static float
e4m3_value(uint32_t code)
{
    const uint32_t h = (code & 0x80u) << 8 | (code & 0x7fu) << 7;

    return (code & 0x7fu) == 0x7fu ? NAN
                                   : moe_f16_widen((uint16_t) h) * 256.0f;
}

float
cpu_e2m1(uint32_t code)
{
    static const float mag[8] = { 0.0f, 0.5f, 1.0f, 1.5f,
                                  2.0f, 3.0f, 4.0f, 6.0f };

    return (code & 8u) != 0 ? -mag[code & 7u] : mag[code & 7u];
}

/* The value of a code, before bias and zero point. */
static float
code_value(const struct moe_affine *a, uint32_t code)
{
    switch (a->elem) {
    case MOE_ELEM_INT:
        if (a->elem_bits < 32 && (code >> (a->elem_bits - 1) & 1u) != 0)
            code |= ~UINT32_C(0) << a->elem_bits;
        return (float) (int32_t) code;
    case MOE_ELEM_E4M3:
        return e4m3_value(code);
    case MOE_ELEM_E5M2:
        return moe_f16_widen((uint16_t) (code << 8));
    case MOE_ELEM_E2M1:
        return cpu_e2m1(code);
    case MOE_ELEM_LUT:
        return a->lut[code & 15u];
    case MOE_ELEM_F16:
        return moe_f16_widen((uint16_t) code);
    case MOE_ELEM_BF16:
        return moe_bf16_widen((uint16_t) code);
    case MOE_ELEM_F32:
        return moe_float_of(code);
    default:
        return (float) code;
    }
}

float
cpu_scale(uint32_t type, const uint8_t *p)
{
    uint32_t u;
    uint16_t h;

    switch (type) {
    case MOE_SCALE_F32:
        memcpy(&u, p, 4);
        return moe_float_of(u);
    case MOE_SCALE_F16:
        memcpy(&h, p, 2);
        return moe_f16_widen(h);
    case MOE_SCALE_BF16:
        memcpy(&h, p, 2);
        return moe_bf16_widen(h);
    default:
        return cpu_e8m0(*p);
    }
}

/* The scale of element (r, c), 1 without. */
static float
affine_scale(const struct moe_affine *a, const uint8_t *scale, uint64_t r,
             uint64_t c)
{
    return a->scale == MOE_SCALE_NONE
               ? 1.0f
               : cpu_scale(a->scale, scale + r / a->group_n * a->scale_row
                                         + c / a->group_k * a->scale_group);
}

/* And its zero point. */
static int32_t
affine_zero(const struct moe_affine *a, const uint8_t *zero, uint64_t r,
                uint64_t c)
{
    uint64_t i = r / a->group_n, at;

    if (a->zero_bits == 0)
        return 0;
    at = i / a->zero_block_n * a->zero_row + c / a->group_k * a->zero_group;
    return (int32_t) cpu_bits(zero + at,
                             (uint64_t) a->zero_bits * (i % a->zero_block_n),
                             a->zero_bits)
           - a->zero_bias;
}

uint32_t
cpu_scale_size(uint32_t scale)
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

/* elem_bits that this kind of element can have. */
static int
elem_fits(const struct moe_affine *a)
{
    switch (a->elem) {
    case MOE_ELEM_UINT:
    case MOE_ELEM_INT: /* a code must be exact as a float */
        return a->elem_bits >= 1 && a->elem_bits <= 16;
    case MOE_ELEM_E4M3:
    case MOE_ELEM_E5M2:
        return a->elem_bits == 8;
    case MOE_ELEM_E2M1:
        return a->elem_bits == 4;
    case MOE_ELEM_LUT:
        return a->elem_bits >= 1 && a->elem_bits <= 4;
    case MOE_ELEM_F16:
    case MOE_ELEM_BF16:
        return a->elem_bits == 16;
    case MOE_ELEM_F32:
        return a->elem_bits == 32;
    default:
        return 0;
    }
}

/* i * a + j * b + c; false if that wraps. */
static int
extent(uint64_t i, uint64_t a, uint64_t j, uint64_t b, uint64_t c,
       uint64_t *out)
{
    uint64_t x, y;

    return !__builtin_mul_overflow(i, a, &x)
           && !__builtin_mul_overflow(j, b, &y)
           && !__builtin_add_overflow(x, y, &x)
           && !__builtin_add_overflow(x, c, out)
           && *out <= (uint64_t) INT64_MAX;
}

/* To the end of element (n - 1, k - 1). */
static int
elem_extent(const struct moe_affine *a, uint64_t n, uint64_t k, uint64_t *out)
{
    const uint64_t last = (k - 1) % a->block_k + 1;

    return extent(n - 1, a->elem_row, (k - 1) / a->block_k, a->elem_block,
                  cpu_ceil(last * a->elem_bits, 8), out);
}

int
cpu_affine_bytes(const struct moe_affine *a, uint64_t n, uint64_t k,
                 uint64_t bytes[3])
{
    uint64_t gi, gj, first, full;

    bytes[0] = bytes[1] = bytes[2] = 0;
    if (a->struct_size < sizeof(*a) || n == 0 || k == 0 || a->block_k == 0
        || !elem_fits(a))
        return 0;
    if (a->bias < -65536 || a->bias > 65536 || a->zero_bias < -65536
        || a->zero_bias > 65536)
        return 0;
    full = (k - 1) / a->block_k * a->block_k;
    /* the end of the last block, and of the full one before it */
    if (!elem_extent(a, n, k, &bytes[0])
        || !elem_extent(a, n, full != 0 ? full : k, &first))
        return 0;
    bytes[0] = bytes[0] > first ? bytes[0] : first;
    if (a->scale == MOE_SCALE_NONE && a->zero_bits == 0)
        return 1;
    if (a->group_n == 0 || a->group_k == 0)
        return 0;
    gi = (n - 1) / a->group_n;
    gj = (k - 1) / a->group_k;
    if (a->scale != MOE_SCALE_NONE
        && (cpu_scale_size(a->scale) == 0
            || !extent(gi, a->scale_row, gj, a->scale_group,
                       cpu_scale_size(a->scale), &bytes[1])))
        return 0;
    if (a->zero_bits != 0
        && (a->zero_bits > 16 || a->zero_block_n == 0
            || !extent(gi / a->zero_block_n, a->zero_row, gj, a->zero_group,
                       cpu_ceil((cpu_min(gi, a->zero_block_n - 1) + 1)
                                    * a->zero_bits,
                                8),
                       &bytes[2])))
        return 0;
    return 1;
}

/* out[i * step] = value of element (r, c + i), i < n <= TILE_K, before the
 * scale; zero is bias and zero point together. */
static void
row_codes(const struct moe_affine *a, const uint8_t *elem, uint64_t r,
          uint64_t c, uint32_t n, float zero, float *out, uint32_t step)
{
    const uint8_t *p = elem + r * a->elem_row;
    uint32_t       i;

    if (a->block_k >= c + n && a->elem_bits == 8) {
        float   value[256];
        int32_t code;

        if (a->elem == MOE_ELEM_INT) {
            for (i = 0; i < n; i++) {
                code = (int8_t) p[c + i];
                out[i * step] = (float) code - zero;
            }
            return;
        }
        if (a->elem == MOE_ELEM_UINT) {
            for (i = 0; i < n; i++)
                out[i * step] = (float) p[c + i] - zero;
            return;
        }
        if (n >= 64) {
            for (i = 0; i < 256; i++)
                value[i] = code_value(a, i) - zero;
            for (i = 0; i < n; i++)
                out[i * step] = value[p[c + i]];
            return;
        }
    }
    if (a->elem_bits == 4) {
        float value[16];

        for (i = 0; i < 16; i++)
            value[i] = code_value(a, i) - zero;
        for (i = 0; i < n; i++) {
            const uint64_t at = (c + i) % a->block_k;
            const uint8_t  b = p[(c + i) / a->block_k * a->elem_block
                                 + at / 2];

            out[i * step] = value[(at & 1) != 0 ? b >> 4 : b & 15];
        }
        return;
    }
    for (i = 0; i < n; i++)
        out[i * step] = code_value(a, cpu_affine_code(a, elem, r, c + i))
                        - zero;
}

/* Row r, columns [c, c + n), n <= TILE_K: out[i * step]. */
static void
row_values(const struct cpu_mat *m, uint64_t r, uint64_t c, uint32_t n,
           float *out, uint32_t step)
{
    const struct moe_affine *a = m->affine;
    const uint8_t           *elem = m->data + m->plane_off[0];
    const uint8_t           *scale = m->data + m->plane_off[1];
    const uint8_t           *zeros = m->data + m->plane_off[2];
    const int                plain = a->scale == MOE_SCALE_NONE
                                     && a->zero_bits == 0;
    uint32_t                 i, j, run;

    for (i = 0; i < n; i += run) {
        const uint64_t at = c + i;
        float          s, *o = out + (size_t) i * step;
        int32_t        z;

        run = n - i;
        if (!plain)
            run = (uint32_t) cpu_min(run, a->group_k - at % a->group_k);
        z = a->bias + (plain ? 0 : affine_zero(a, zeros, r, at));
        row_codes(a, elem, r, at, run, (float) z, o, step);
        if (a->scale == MOE_SCALE_NONE)
            continue;
        s = affine_scale(a, scale, r, at);
        for (j = 0; j < run; j++)
            o[(size_t) j * step] *= s;
    }
}

void
cpu_affine_tile(const struct cpu_mat *m, uint32_t r0, uint32_t c0, uint32_t n,
                float *w)
{
    uint32_t r, i;

    for (r = 0; r < CPU_LANES; r++) {
        if (r0 + r < m->n)
            row_values(m, r0 + r, c0, n, w + r, CPU_LANES);
        else
            for (i = 0; i < n; i++)
                w[i * CPU_LANES + r] = 0.0f;
    }
}

void
cpu_affine_row(const struct cpu_mat *m, uint32_t r, float *y)
{
    uint32_t c, n;

    for (c = 0; c < m->k; c += n) {
        n = (uint32_t) cpu_min(TILE_K, m->k - c);
        row_values(m, r, c, n, y + c, 1);
    }
}

static void
generic_dot(const struct cpu_isa *isa, const struct cpu_mat *m,
            uint32_t panel, uint32_t np, const float *const *x, uint32_t nt,
            float *out, uint32_t ldo)
{
    float        tile[TILE_K * CPU_LANES];
    float        acc[CPU_TOKENS * CPU_LANES];
    const float *xs[CPU_TOKENS];
    uint32_t     p, t, c, n;

    for (p = 0; p < np; p++) {
        memset(acc, 0, sizeof(acc));
        for (c = 0; c < m->k; c += n) {
            n = (uint32_t) cpu_min(TILE_K, m->k - c);
            cpu_affine_tile(m, (panel + p) * CPU_LANES, c, n, tile);
            for (t = 0; t < nt; t++)
                xs[t] = x[t] + c;
            isa->dot_more(tile, n, xs, nt, acc);
        }
        for (t = 0; t < nt; t++)
            memcpy(out + (size_t) t * ldo + CPU_LANES * p,
                   acc + CPU_LANES * t, CPU_LANES * sizeof(float));
    }
}

void
cpu_dot(const moe_device *dev, const struct cpu_mat *m, uint32_t panel,
        uint32_t np, const void *const *x, uint32_t nt, float *out,
        uint32_t ldo)
{
    if (m->kind == CPU_GENERIC)
        generic_dot(dev->isa, m, panel, np, (const float *const *) x, nt, out,
                    ldo);
    else if (cpu_is_lines(m->kind) && dev->use.tiles != NULL
             && nt >= dev->use.from)
        dev->use.tiles->dot[m->kind - CPU_INT4](m, panel, np, x, nt, out,
                                                ldo);
    else
        dev->isa->dot[m->kind](m, panel, np, x, nt, out, ldo);
}
