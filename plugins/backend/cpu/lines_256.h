/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lines_256.h - the words of lines_body.h in AVX2: half a line at a time.
 */

#include <immintrin.h>

typedef __m256i iv;
typedef __m256  fv;

#define L_ROWS 8u
/* Bytes that weights are fetched ahead of their use with nt rows. */
#define L_AHEAD(nt) ((nt) == 1 ? 2560u : 4096u)

V_FN iv
i_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *) p);
}

V_FN void
i_store(void *p, iv x)
{
    _mm256_storeu_si256((__m256i *) p, x);
}

V_FN iv
i_set1_8(int x)
{
    return _mm256_set1_epi8((char) x);
}

V_FN iv
i_set1_16(int x)
{
    return _mm256_set1_epi16((short) x);
}

V_FN iv
i_set1_32(int32_t x)
{
    return _mm256_set1_epi32(x);
}

/* Four columns of one row of x, in every lane. */
V_FN iv
i_four(const int8_t *q)
{
    int32_t four;

    memcpy(&four, q, 4);
    return _mm256_set1_epi32(four);
}

V_FN iv
i_pair(const int16_t *sum)
{
    int32_t both;

    memcpy(&both, sum, 4);
    return _mm256_set1_epi32(both);
}

#define I_OP2(name, op)                                                       \
    V_FN iv name(iv x, iv y)                                                  \
    {                                                                         \
        return op(x, y);                                                      \
    }

I_OP2(i_and, _mm256_and_si256)
I_OP2(i_xor, _mm256_xor_si256)
I_OP2(i_add8, _mm256_add_epi8)
I_OP2(i_add16, _mm256_add_epi16)
I_OP2(i_add32, _mm256_add_epi32)
I_OP2(i_mul16, _mm256_mullo_epi16)
I_OP2(i_madd, _mm256_madd_epi16)
I_OP2(i_maddubs, _mm256_maddubs_epi16) /* u8 x s8 */
I_OP2(i_sign8, _mm256_sign_epi8)       /* x with the sign of y */

V_FN iv
i_abs8(iv x)
{
    return _mm256_abs_epi8(x);
}

V_FN iv
i_srl4(iv x)
{
    return _mm256_srli_epi16(x, 4);
}

/* 12 + 2 * value of the E2M1 code in each byte. */
V_FN iv
i_e2m1(iv code)
{
    return _mm256_shuffle_epi8(
        _mm256_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6,
                         4, 0, 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9,
                         8, 6, 4, 0),
        code);
}

/* Numbers of 8 bits, a lane each. */
V_FN iv
i_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(
        _mm_loadl_epi64((const __m128i *) (const void *) p));
}

/* The low, or high, nibbles of 8 bytes. */
V_FN iv
i_nibbles(const uint8_t *p, unsigned high)
{
    return _mm256_and_si256(_mm256_srli_epi32(i_bytes(p), high ? 4 : 0),
                            _mm256_set1_epi32(15));
}

/* -x, twice in 16 bits. */
V_FN iv
i_minus_pair(iv x)
{
    const iv both = _mm256_blend_epi16(x, _mm256_slli_epi32(x, 16), 0xaa);

    return _mm256_sub_epi16(_mm256_setzero_si256(), both);
}

V_FN fv
f_of(iv x)
{
    return _mm256_cvtepi32_ps(x);
}

V_FN fv
f_set1(float x)
{
    return _mm256_set1_ps(x);
}

V_FN fv
f_mul(fv x, fv y)
{
    return _mm256_mul_ps(x, y);
}

V_FN fv
f_fma(fv x, fv y, fv z) /* x * y + z */
{
    return _mm256_fmadd_ps(x, y, z);
}

V_FN fv
f_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

V_FN void
f_store(float *p, fv x)
{
    _mm256_storeu_ps(p, x);
}

V_FN fv
f_load_f32(const uint8_t *p)
{
    return f_load((const float *) (const void *) p);
}

V_FN fv
f_load_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(
        _mm_loadu_si128((const __m128i *) (const void *) p));
}

V_FN fv
f_load_bf16(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(
            _mm_loadu_si128((const __m128i *) (const void *) p)),
        16));
}

/* 2^(b - 127); 0 is 2^-127, 255 is NaN: the same bit is missing in both. */
V_FN fv
f_load_e8m0(const uint8_t *p, unsigned half) /* of the 16 at p */
{
    const __m128i b = _mm_loadu_si128((const __m128i *) (const void *) p);
    const __m128i odd = _mm_and_si128(
        _mm_cmpeq_epi8(_mm_and_si128(_mm_add_epi8(b, _mm_set1_epi8(1)),
                                     _mm_set1_epi8(-2)),
                       _mm_setzero_si128()),
        _mm_set1_epi8(-128));
    const __m128i w = half == 0 ? _mm_unpacklo_epi8(odd, b)
                                : _mm_unpackhi_epi8(odd, b);

    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(w), 15));
}

#if L_VNNI
V_FN iv
i_dpbusd(iv s, iv u, iv q)
{
    return _mm256_dpbusd_avx_epi32(s, u, q);
}
#endif
