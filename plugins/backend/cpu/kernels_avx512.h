/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_avx512.h - the arithmetic for AVX-512 F, BW, DQ and VL.
 *
 * Included by kernels_avx512.c, and with INT4_VNNI by kernels_avx512vnni.c,
 * whose 4-bit products use one instruction where the other uses three.  As a
 * vector holds a panel, a column is one fused multiply-add.
 */

#include <immintrin.h>

typedef __m512 v16;

#define V_NT     8u
#define V_NP(nt) ((nt) <= 4 ? 4u : 2u)

V_FN v16
v_set1(float x)
{
    return _mm512_set1_ps(x);
}

V_FN v16
v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

V_FN void
v_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}

V_FN v16
v_add(v16 x, v16 y)
{
    return _mm512_add_ps(x, y);
}

V_FN v16
v_sub(v16 x, v16 y)
{
    return _mm512_sub_ps(x, y);
}

V_FN v16
v_mul(v16 x, v16 y)
{
    return _mm512_mul_ps(x, y);
}

V_FN v16
v_div(v16 x, v16 y)
{
    return _mm512_div_ps(x, y);
}

V_FN v16
v_max(v16 x, v16 y) /* the second operand if either is NaN */
{
    return _mm512_max_ps(x, y);
}

V_FN v16
v_min(v16 x, v16 y)
{
    return _mm512_min_ps(x, y);
}

V_FN v16
v_fma(v16 x, v16 y, v16 z) /* x * y + z */
{
    return _mm512_fmadd_ps(x, y, z);
}

V_FN v16
v_abs(v16 x)
{
    return _mm512_abs_ps(x);
}

V_FN int
v_has_nan(v16 x)
{
    return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0;
}

V_FN float
v_first(v16 x)
{
    return _mm512_cvtss_f32(x);
}

/* Lanes i and i + 8. */
V_FN __m256
v_high(v16 x)
{
    return _mm512_extractf32x8_ps(x, 1);
}

V_FN __m128
v_fold(v16 x) /* 16 -> 8 -> 4 */
{
    const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(x), v_high(x));

    return _mm_add_ps(_mm256_castps256_ps128(s8),
                      _mm256_extractf128_ps(s8, 1));
}

V_FN float
v_sum(v16 x)
{
    const __m128 s4 = v_fold(x);
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));

    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

/* v_sum of each, in the same order. */
V_FN void
v_sum4(v16 x0, v16 x1, v16 x2, v16 x3, float out[4])
{
    const __m128 f0 = v_fold(x0), f1 = v_fold(x1);
    const __m128 f2 = v_fold(x2), f3 = v_fold(x3);
    const __m128 g0 = _mm_add_ps(_mm_unpacklo_ps(f0, f1),
                                 _mm_unpackhi_ps(f0, f1));
    const __m128 g1 = _mm_add_ps(_mm_unpacklo_ps(f2, f3),
                                 _mm_unpackhi_ps(f2, f3));

    _mm_storeu_ps(out, _mm_add_ps(_mm_movelh_ps(g0, g1),
                                  _mm_movehl_ps(g1, g0)));
}

V_FN float
v_top(v16 x)
{
    const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(x), v_high(x));
    const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8),
                                 _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));

    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

/* p * 2^n, n in the low bits of t. */
V_FN v16
v_add_exponent(v16 p, v16 t)
{
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p),
                         _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}

/* y, but 0 where x < low. */
V_FN v16
v_zero_below(v16 x, float low, v16 y)
{
    const __mmask16 below = _mm512_cmp_ps_mask(x, _mm512_set1_ps(low),
                                               _CMP_LT_OQ);

    return _mm512_maskz_mov_ps((__mmask16) ~below, y);
}

/* The lowest byte of each lane's bits. */
V_FN void
v_store_low8(int8_t *p, v16 x)
{
    _mm_storeu_si128((__m128i *) (void *) p,
                     _mm512_cvtepi32_epi8(_mm512_castps_si512(x)));
}

V_FN __m256i
v_load_16(const uint8_t *p) /* 16 numbers of 16 bits */
{
    return _mm256_loadu_si256((const __m256i *) (const void *) p);
}

V_FN v16
v_load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(v_load_16(p));
}

V_FN v16
v_load_bf16(const uint8_t *p)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(v_load_16(p)), 16));
}

V_FN __m256i
v_load_8(const uint8_t *p) /* 16 bytes, each in the upper half of 16 bits */
{
    return _mm256_slli_epi16(
        _mm256_cvtepu8_epi16(
            _mm_loadu_si128((const __m128i *) (const void *) p)),
        8);
}

/* seeeemmm -> s0eeeemmm0000000 is the f16 of 2^-8 times the value. */
V_FN v16
v_load_e4m3(const uint8_t *p)
{
    const __m256i h = _mm256_srai_epi16(v_load_8(p), 1);

    return _mm512_cvtph_ps(
        _mm256_and_si256(h, _mm256_set1_epi16((short) 0xbf80)));
}

/* E5M2 is the upper byte of an f16. */
V_FN v16
v_load_e5m2(const uint8_t *p)
{
    return _mm512_cvtph_ps(v_load_8(p));
}

V_FN void
v_prefetch(const void *p)
{
    _mm_prefetch((const char *) p, _MM_HINT_T0);
}

static void dot_int4(const struct cpu_mat *m, uint32_t panel, uint32_t np,
                     const void *const *rows, uint32_t nt, float *out,
                     uint32_t ldo);

#include "backend/cpu/body.h"

/* ------------------------------------------------------------------ int4 -- */

/* code . q of 16 rows and 32 columns; u: four lines unpacked. */
V_FN __m512i
int4_dot(const __m512i *u, const struct cpu_q8 *r)
{
    __m512i s = _mm512_setzero_si512();

    V_UNROLL
    for (unsigned j = 0; j < 8; j++) {
        int32_t four;

        memcpy(&four, r->q + 4 * j, 4);
#ifdef INT4_VNNI
        s = _mm512_dpbusd_epi32(s, u[j], _mm512_set1_epi32(four));
#else
        /* eight products of two: at most 8 * 2 * 15 * 127 < 2^15 */
        s = _mm512_add_epi16(
            s, _mm512_maddubs_epi16(u[j], _mm512_set1_epi32(four)));
#endif
    }
#ifndef INT4_VNNI
    s = _mm512_madd_epi16(s, _mm512_set1_epi16(1));
#endif
    return s;
}

V_FN void
int4_some(const unsigned scale, const unsigned has_zero, const unsigned nt,
          const struct cpu_mat *m, const uint8_t *w,
          const struct cpu_q8 *const *x, float *out, uint32_t ldo)
{
    const uint64_t n32 = cpu_ceil(m->k, CPU_INT4_GROUP);
    const uint64_t per = m->group / CPU_INT4_GROUP;
    const __m512i  low = _mm512_set1_epi8(15);
    __m512i        zero = _mm512_set1_epi32(m->zero);
    v16            acc[4], inner[4];
    uint64_t       g = 0;

    V_UNROLL
    for (unsigned t = 0; t < nt; t++)
        acc[t] = v_set1(0.0f);
    while (g < n32) {
        const uint64_t end = cpu_min(g + per, n32);
        const uint8_t *tail = w + (end - g) * 4 * INT4_LINE;
        v16            s;

        if (has_zero) {
            uint64_t z;

            memcpy(&z, tail + int4_scale_bytes(scale), 8);
            zero = _mm512_cvtepu8_epi32(_mm_set_epi64x(
                (long long) ((z >> 4) & 0x0f0f0f0f0f0f0f0fu),
                (long long) (z & 0x0f0f0f0f0f0f0f0fu)));
        }
        V_UNROLL
        for (unsigned t = 0; t < nt; t++)
            inner[t] = v_set1(0.0f);
        for (; g < end; g++, w += 4 * INT4_LINE) {
            __m512i u[8];

            V_UNROLL
            for (unsigned l = 0; l < 4; l++) {
                const __m512i v = _mm512_loadu_si512(w + INT4_LINE * l);

                v_prefetch(w + INT4_LINE * l + V_AHEAD);
                u[2 * l] = _mm512_and_si512(v, low);
                u[2 * l + 1] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
            }
            V_UNROLL
            for (unsigned t = 0; t < nt; t++) {
                const struct cpu_q8 *r = x[t] + g;
                /* |sum| <= 32 * 127 fits 16 bits, so does a zero point */
                const __m512i c = _mm512_madd_epi16(
                    zero, _mm512_set1_epi32(r->sum & 0xffff));
                const __m512i d = _mm512_sub_epi32(int4_dot(u, r), c);

                inner[t] = v_fma(_mm512_cvtepi32_ps(d), v_set1(r->d),
                                 inner[t]);
            }
        }
        v_prefetch(tail + V_AHEAD);
        s = scale == MOE_SCALE_F32 ? v_load((const float *) (const void *) tail)
            : scale == MOE_SCALE_F16 ? v_load_f16(tail)
                                     : v_load_bf16(tail);
        V_UNROLL
        for (unsigned t = 0; t < nt; t++)
            acc[t] = v_fma(inner[t], s, acc[t]);
        w = tail + int4_tail_bytes(scale, has_zero);
    }
    V_UNROLL
    for (unsigned t = 0; t < nt; t++)
        v_store(out + t * ldo, acc[t]);
}

#include "backend/cpu/int4_rows.h"
