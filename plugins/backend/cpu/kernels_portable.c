/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_portable.c - the arithmetic in plain C, for any 64-bit processor.
 *
 * Vectors are GCC's and Clang's own (16 bytes, which every target has or the
 * compiler spells out), so there is no instruction set to ask for.  v_fma()
 * rounds twice here.  The other kernels are tested against these.
 */

#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/lines.h"
#include "backend/cpu/simd.h"

typedef float    f4 __attribute__((__vector_size__(16)));
typedef int32_t  i4 __attribute__((__vector_size__(16)));
typedef uint32_t u4 __attribute__((__vector_size__(16)));

typedef struct {
    f4 v[4];
} v16;

#define V_NT     2u
#define V_NP(nt) 1u

#define V_EACH(i) V_UNROLL for (unsigned i = 0; i < 4; i++)

V_FN f4
f4_set1(float x)
{
    return (f4){ x, x, x, x };
}

/* x where mask is all ones, y where it is 0. */
V_FN f4
f4_pick(i4 mask, f4 x, f4 y)
{
    return (f4) ((mask & (i4) x) | (~mask & (i4) y));
}

V_FN v16
v_set1(float x)
{
    const f4 f = f4_set1(x);

    return (v16){ { f, f, f, f } };
}

V_FN v16
v_load(const float *p)
{
    v16 r;

    memcpy(&r, p, sizeof(r));
    return r;
}

V_FN void
v_store(float *p, v16 v)
{
    memcpy(p, &v, sizeof(v));
}

#define V_OP2(name, expr)                                                     \
    V_FN v16 name(v16 x, v16 y)                                               \
    {                                                                         \
        v16 r;                                                                \
                                                                              \
        V_EACH(i)                                                             \
        {                                                                     \
            const f4 a = x.v[i], b = y.v[i];                                  \
                                                                              \
            r.v[i] = (expr);                                                  \
        }                                                                     \
        return r;                                                             \
    }

V_OP2(v_add, a + b)
V_OP2(v_sub, a - b)
V_OP2(v_mul, a * b)
V_OP2(v_div, a / b)
V_OP2(v_max, f4_pick(a > b, a, b)) /* the second if either is NaN */
V_OP2(v_min, f4_pick(a < b, a, b))

V_FN v16
v_fma(v16 x, v16 y, v16 z)
{
    return v_add(v_mul(x, y), z);
}

V_FN v16
v_abs(v16 x)
{
    v16 r;

    V_EACH(i)
    r.v[i] = (f4) ((u4) x.v[i] & (u4){ 0x7fffffffu, 0x7fffffffu, 0x7fffffffu,
                                       0x7fffffffu });
    return r;
}

V_FN int
v_has_nan(v16 x)
{
    i4 bad = { 0, 0, 0, 0 };

    V_EACH(i)
    bad |= x.v[i] != x.v[i];
    return (bad[0] | bad[1] | bad[2] | bad[3]) != 0;
}

V_FN float
v_first(v16 x)
{
    return x.v[0][0];
}

V_FN float
v_sum(v16 x)
{
    const f4 s = (x.v[0] + x.v[2]) + (x.v[1] + x.v[3]);

    return (s[0] + s[2]) + (s[1] + s[3]);
}

V_FN void
v_sum4(v16 x0, v16 x1, v16 x2, v16 x3, float out[4])
{
    out[0] = v_sum(x0);
    out[1] = v_sum(x1);
    out[2] = v_sum(x2);
    out[3] = v_sum(x3);
}

V_FN float
v_top(v16 x)
{
    float r = x.v[0][0];

    for (unsigned i = 0; i < 4; i++)
        for (unsigned j = 0; j < 4; j++)
            r = x.v[i][j] > r ? x.v[i][j] : r;
    return r;
}

V_FN v16
v_add_exponent(v16 p, v16 t)
{
    v16 r;

    V_EACH(i)
    r.v[i] = (f4) ((u4) p.v[i] + ((u4) t.v[i] << 23));
    return r;
}

V_FN v16
v_zero_below(v16 x, float low, v16 y)
{
    v16 r;

    V_EACH(i)
    r.v[i] = (f4) (~(i4) (x.v[i] < f4_set1(low)) & (i4) y.v[i]);
    return r;
}

V_FN void
v_store_low8(int8_t *p, v16 x)
{
    V_EACH(i)
    {
        const u4 u = (u4) x.v[i];

        for (unsigned j = 0; j < 4; j++)
            p[4 * i + j] = (int8_t) (uint8_t) (u[j] & 0xffu);
    }
}

/* f16 in the low halves: the exponent is moved by a product with 2^112,
 * which is right for subnormals too; infinities and NaN are mended. */
V_FN f4
f4_widen_f16(u4 h)
{
    const u4 mag = (h & 0x7fffu) << 13;
    const u4 sign = (h & 0x8000u) << 16;
    const u4 odd = (u4) ((h & 0x7fffu) >= 0x7c00u) & 0x7f800000u;
    const f4 f = (f4) mag * f4_set1(0x1p112f);

    return (f4) ((u4) f | odd | sign);
}

V_FN v16
v_load_f16(const uint8_t *p)
{
    uint16_t h[16];
    v16      r;

    memcpy(h, p, sizeof(h));
    V_EACH(i)
    r.v[i] = f4_widen_f16(
        (u4){ h[4 * i], h[4 * i + 1], h[4 * i + 2], h[4 * i + 3] });
    return r;
}

V_FN v16
v_load_bf16(const uint8_t *p)
{
    uint16_t h[16];
    v16      r;

    memcpy(h, p, sizeof(h));
    V_EACH(i)
    r.v[i] = (f4) ((u4){ h[4 * i], h[4 * i + 1], h[4 * i + 2],
                         h[4 * i + 3] }
                   << 16);
    return r;
}

#define V_FP8_UP 1.0f

/* p: 16 pairs of bytes.  As on the other paths 2^-8 too small: the f16 with
 * the same bits. */
V_FN v16
v_load_e4m3(const uint8_t *p, uint64_t odd)
{
    v16 r;

    V_EACH(i)
    {
        const uint8_t *b = p + 8 * i + odd;
        const u4       h = { b[0], b[2], b[4], b[6] };

        r.v[i] = f4_widen_f16((h & 0x80u) << 8 | (h & 0x7fu) << 7);
    }
    return r;
}

V_FN v16
v_load_e5m2(const uint8_t *p, uint64_t odd)
{
    v16 r;

    V_EACH(i)
    {
        const uint8_t *b = p + 8 * i + odd;

        r.v[i] = f4_widen_f16((u4){ b[0], b[2], b[4], b[6] } << 8);
    }
    return r;
}

V_FN v16
v_fp8_sum(const unsigned kind, v16 x)
{
    return kind == CPU_E4M3 ? v_mul(x, v_set1(256.0f)) : x;
}

V_FN void
v_fma_to(v16 *sum, v16 x, v16 y)
{
    *sum = v_fma(x, y, *sum);
}

V_FN void
v_prefetch(const void *p)
{
    __builtin_prefetch(p);
}

#include "backend/cpu/body.h"

/* -------------------------------------------------------------- in lines -- */

/* 12 + 2 * value of an E2M1 code. */
static const uint8_t e2m1[16] = { 12, 13, 14, 15, 16, 18, 20, 24,
                                  12, 11, 10, 9,  8,  6,  4,  0 };

/* A run of 32 columns of 16 rows as numbers: u[column][row]. */
V_FN void
lines_unpack(const unsigned kind, const uint8_t *w,
             int16_t u[CPU_RUN][CPU_LANES])
{
    for (unsigned c = 0; c < CPU_RUN; c++)
        for (unsigned r = 0; r < CPU_LANES; r++) {
            const uint8_t b = kind == CPU_INT8
                                  ? w[c / 4 * LINE + 4 * r + c % 4]
                                  : w[c / 8 * LINE + 4 * r + c % 4];
            const unsigned nibble = c % 8 < 4 ? b & 15u : b >> 4;

            u[c][r] = kind == CPU_INT8  ? (int8_t) b
                      : kind == CPU_FP4 ? e2m1[nibble]
                                        : (int16_t) nibble;
        }
}

V_FN void
lines_zeros(const unsigned kind, const struct cpu_mat *m, const uint8_t *z,
            int32_t zero[CPU_LANES])
{
    for (unsigned r = 0; r < CPU_LANES; r++)
        zero[r] = m->zero
                  + (!m->has_zero       ? 0
                     : kind == CPU_INT8 ? z[r]
                     : r < 8            ? z[r] & 15
                                        : z[r - 8] >> 4);
}

V_FN v16
lines_scales(const unsigned kind, uint32_t scale, const uint8_t *p)
{
    float s[16];

    switch (scale) {
    case MOE_SCALE_F32:
        memcpy(s, p, sizeof(s));
        break;
    case MOE_SCALE_F16:
        v_store(s, v_load_f16(p));
        break;
    case MOE_SCALE_BF16:
        v_store(s, v_load_bf16(p));
        break;
    default:
        for (unsigned r = 0; r < 16; r++)
            s[r] = cpu_e8m0(p[r]);
        break;
    }
    return kind == CPU_FP4 ? v_mul(v_load(s), v_set1(0.5f)) : v_load(s);
}

V_FN v16
lines_run(const int16_t u[CPU_RUN][CPU_LANES], const int32_t zero[CPU_LANES],
          const struct cpu_q8 *x, v16 inner)
{
    const int32_t sum = x->sum[0] + x->sum[1];
    int32_t       dot[CPU_LANES];
    float         f[CPU_LANES];

    for (unsigned r = 0; r < CPU_LANES; r++)
        dot[r] = -zero[r] * sum;
    for (unsigned c = 0; c < CPU_RUN; c++)
        for (unsigned r = 0; r < CPU_LANES; r++)
            dot[r] += u[c][r] * x->q[c];
    for (unsigned r = 0; r < CPU_LANES; r++)
        f[r] = (float) dot[r];
    return v_fma(v_load(f), v_set1(x->d), inner);
}

V_FN void
lines_panel(const unsigned kind, const struct cpu_mat *m, const uint8_t *w,
            const struct cpu_q8 *const *x, uint32_t nt, float *out,
            uint32_t ldo)
{
    const uint64_t run = lines_run_bytes(kind);
    const uint64_t n = cpu_ceil(m->k, CPU_RUN), per = m->group / CPU_RUN;
    v16            acc[CPU_TOKENS], inner[CPU_TOKENS], s;
    int16_t        u[CPU_RUN][CPU_LANES];
    int32_t        zero[CPU_LANES];
    uint64_t       g = 0;
    uint32_t       t;

    for (t = 0; t < nt; t++)
        acc[t] = v_set1(0.0f);
    while (g < n) {
        const uint64_t end = cpu_min(g + per, n);
        const uint8_t *tail = w + (end - g) * run;

        lines_zeros(kind, m, tail + lines_scale_bytes(m->scale), zero);
        for (t = 0; t < nt; t++)
            inner[t] = v_set1(0.0f);
        for (; g < end; g++, w += run) {
            lines_unpack(kind, w, u);
            for (t = 0; t < nt; t++)
                inner[t] = lines_run((const int16_t(*)[CPU_LANES]) u, zero,
                                     x[t] + g, inner[t]);
        }
        s = lines_scales(kind, m->scale, tail);
        for (t = 0; t < nt; t++)
            acc[t] = v_fma(inner[t], s, acc[t]);
        w = tail + lines_tail_bytes(kind, m->scale, m->has_zero);
    }
    for (t = 0; t < nt; t++)
        v_store(out + (size_t) t * ldo, acc[t]);
}

#define L_DOT(name, kind)                                                     \
    void name(const struct cpu_mat *m, uint32_t panel, uint32_t np,           \
              const void *const *x, uint32_t nt, float *out, uint32_t ldo)    \
    {                                                                         \
        for (uint32_t p = 0; p < np; p++)                                     \
            lines_panel(kind, m, m->data + (panel + p) * m->panel_bytes,      \
                        (const struct cpu_q8 *const *) x, nt,                 \
                        out + CPU_LANES * p, ldo);                            \
    }

static L_DOT(dot_int4, CPU_INT4)
static L_DOT(dot_fp4, CPU_FP4)
static L_DOT(dot_int8, CPU_INT8)

static int
usable(void)
{
    return 1;
}

const struct cpu_isa cpu_isa_portable
    = { .name = "portable", .usable = usable,
        V_TABLE(dot_int4, dot_fp4, dot_int8) };
