/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avx512.h - 16 floats in the words of AVX-512 F, BW, DQ and VL.
 *
 * Included by kernels_avx512.c and kernels_avx512vnni.c.  As a vector holds
 * a column of a panel, a column is one fused multiply-add.
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

#define V_FP8_UP 1.0f

/* p: 16 pairs of bytes.  The product of a byte seeeemmm with 128 is
 * sseeeemmm0000000; without its second bit that is the f16 of 2^-8 times the
 * value. */
V_FN v16
v_load_e4m3(const uint8_t *p, uint64_t odd)
{
    const __m256i h = _mm256_maddubs_epi16(
        _mm256_set1_epi16(odd ? (short) 0x8000 : 0x0080), v_load_16(p));

    return _mm512_cvtph_ps(
        _mm256_and_si256(h, _mm256_set1_epi16((short) 0xbf80)));
}

/* E5M2 is the upper byte of an f16. */
V_FN v16
v_load_e5m2(const uint8_t *p, uint64_t odd)
{
    const __m256i v = v_load_16(p);

    return _mm512_cvtph_ps(odd ? _mm256_and_si256(
                                     v, _mm256_set1_epi16((short) 0xff00))
                               : _mm256_slli_epi16(v, 8));
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
    _mm_prefetch((const char *) p, _MM_HINT_T0);
}
