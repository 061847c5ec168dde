/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lines_512.h - the words of lines_body.h in AVX-512: a whole line at a time.
 */

#include <immintrin.h>

typedef __m512i iv;
typedef __m512  fv;

#define L_ROWS 16u
/* Bytes that weights are fetched ahead of their use with nt rows. */
#define L_AHEAD(nt) 4096u

V_FN iv
i_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

V_FN void
i_store(void *p, iv x)
{
    _mm512_storeu_si512(p, x);
}

V_FN iv
i_set1_8(int x)
{
    return _mm512_set1_epi8((char) x);
}

V_FN iv
i_set1_16(int x)
{
    return _mm512_set1_epi16((short) x);
}

V_FN iv
i_set1_32(int32_t x)
{
    return _mm512_set1_epi32(x);
}

/* Four columns of one row of x, in every lane. */
V_FN iv
i_four(const int8_t *q)
{
    int32_t four;

    memcpy(&four, q, 4);
    return _mm512_set1_epi32(four);
}

V_FN iv
i_pair(const int16_t *sum)
{
    int32_t both;

    memcpy(&both, sum, 4);
    return _mm512_set1_epi32(both);
}

#define I_OP2(name, op)                                                       \
    V_FN iv name(iv x, iv y)                                                  \
    {                                                                         \
        return op(x, y);                                                      \
    }

I_OP2(i_and, _mm512_and_si512)
I_OP2(i_xor, _mm512_xor_si512)
I_OP2(i_add8, _mm512_add_epi8)
I_OP2(i_add16, _mm512_add_epi16)
I_OP2(i_add32, _mm512_add_epi32)
I_OP2(i_mul16, _mm512_mullo_epi16)
I_OP2(i_madd, _mm512_madd_epi16)
I_OP2(i_maddubs, _mm512_maddubs_epi16) /* u8 x s8 */

V_FN iv
i_sign8(iv x, iv y) /* x with the sign of y; where y is 0 anything will do */
{
    return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(y),
                                _mm512_setzero_si512(), x);
}

V_FN iv
i_abs8(iv x)
{
    return _mm512_abs_epi8(x);
}

V_FN iv
i_srl4(iv x)
{
    return _mm512_srli_epi16(x, 4);
}

/* 12 + 2 * value of the E2M1 code in each byte. */
V_FN iv
i_e2m1(iv code)
{
    const __m128i value = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12,
                                        11, 10, 9, 8, 6, 4, 0);

    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(value), code);
}

/* Numbers of 8 bits, a lane each. */
V_FN iv
i_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(
        _mm_loadu_si128((const __m128i *) (const void *) p));
}

/* The low nibbles of 8 bytes, then the high ones. */
V_FN iv
i_nibbles(const uint8_t *p, unsigned half)
{
    uint64_t z;

    (void) half;
    memcpy(&z, p, 8);
    return _mm512_cvtepu8_epi32(
        _mm_set_epi64x((long long) ((z >> 4) & 0x0f0f0f0f0f0f0f0fu),
                       (long long) (z & 0x0f0f0f0f0f0f0f0fu)));
}

/* -x, twice in 16 bits. */
V_FN iv
i_minus_pair(iv x)
{
    const iv both = _mm512_mask_blend_epi16(0xaaaaaaaau, x,
                                            _mm512_slli_epi32(x, 16));

    return _mm512_sub_epi16(_mm512_setzero_si512(), both);
}

V_FN fv
f_of(iv x)
{
    return _mm512_cvtepi32_ps(x);
}

V_FN fv
f_set1(float x)
{
    return _mm512_set1_ps(x);
}

V_FN fv
f_mul(fv x, fv y)
{
    return _mm512_mul_ps(x, y);
}

V_FN fv
f_fma(fv x, fv y, fv z) /* x * y + z */
{
    return _mm512_fmadd_ps(x, y, z);
}

V_FN fv
f_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

V_FN void
f_store(float *p, fv x)
{
    _mm512_storeu_ps(p, x);
}

V_FN fv
f_load_f32(const uint8_t *p)
{
    return f_load((const float *) (const void *) p);
}

V_FN fv
f_load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(
        _mm256_loadu_si256((const __m256i *) (const void *) p));
}

V_FN fv
f_load_bf16(const uint8_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(
            _mm256_loadu_si256((const __m256i *) (const void *) p)),
        16));
}

/* 2^(b - 127); 0 is 2^-127, 255 is NaN: the same bit is missing in both. */
V_FN fv
f_load_e8m0(const uint8_t *p, unsigned half)
{
    const iv        b = i_bytes(p + half * L_ROWS);
    const __mmask16 odd
        = (__mmask16) (_mm512_cmpeq_epi32_mask(b, _mm512_setzero_si512())
                       | _mm512_cmpeq_epi32_mask(b, _mm512_set1_epi32(255)));
    const iv v = _mm512_slli_epi32(b, 23);

    return _mm512_castsi512_ps(
        _mm512_mask_or_epi32(v, odd, v, _mm512_set1_epi32(0x00400000)));
}

#if L_VNNI
V_FN iv
i_dpbusd(iv s, iv u, iv q)
{
    return _mm512_dpbusd_epi32(s, u, q);
}
#endif
