/* SPDX-License-Identifier: Apache-2.0 */
/*
 * immintrin.h - stands before the compiler's: intrinsics in plain C.
 *
 * Nearly all are SIMDe's.  What its release in Debian 12 lacks, or has with
 * other arguments, is written here by the operation sections of Intel's
 * intrinsics guide.
 */
#ifndef MOE_EMULATE_IMMINTRIN_H
#define MOE_EMULATE_IMMINTRIN_H

#define SIMDE_NO_NATIVE             1
#define SIMDE_ENABLE_NATIVE_ALIASES 1

#include <string.h>

#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

#include "common/half.h"

typedef uint16_t __mmask16;

/* n lanes of out from those of the argument. */
#define EMU_LANES(name, from, from_lane, to, to_lane, n, value)               \
    static inline to name(from x)                                             \
    {                                                                         \
        from_lane in[sizeof(from) / sizeof(from_lane)];                       \
        to_lane   out[n];                                                     \
        to        r;                                                          \
        memcpy(in, &x, sizeof(x));                                            \
        for (int i = 0; i < (n); i++)                                         \
            out[i] = (to_lane) (value);                                       \
        memcpy(&r, out, sizeof(r));                                           \
        return r;                                                             \
    }

EMU_LANES(emu_cvtepi32_epi8, __m512i, int32_t, __m128i, int8_t, 16, in[i])
EMU_LANES(emu_cvtepu8_epi32, __m128i, uint8_t, __m512i, int32_t, 16, in[i])
EMU_LANES(emu_cvtepu16_epi32, __m256i, uint16_t, __m512i, int32_t, 16, in[i])
EMU_LANES(emu_cvtepi32_ps, __m512i, int32_t, __m512, float, 16, in[i])
EMU_LANES(emu_cvtph_ps, __m256i, uint16_t, __m512, float, 16,
          moe_f16_widen(in[i]))

#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 emu_cvtepi32_epi8
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 emu_cvtepu8_epi32
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 emu_cvtepu16_epi32
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps emu_cvtepi32_ps
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps emu_cvtph_ps

static inline __m512i
emu_madd_epi16(__m512i x, __m512i y)
{
    int16_t a[32], b[32];
    int32_t s[16];
    __m512i r;

    memcpy(a, &x, sizeof(a));
    memcpy(b, &y, sizeof(b));
    for (int i = 0; i < 16; i++)
        s[i] = (int32_t) ((uint32_t) (a[2 * i] * b[2 * i])
                          + (uint32_t) (a[2 * i + 1] * b[2 * i + 1]));
    memcpy(&r, s, sizeof(r));
    return r;
}
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 emu_madd_epi16

static inline __m256
emu_extractf32x8_ps(__m512 x, int half)
{
    __m256 r;

    memcpy(&r, (const char *) &x + sizeof(r) * (half & 1), sizeof(r));
    return r;
}
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps emu_extractf32x8_ps

static inline float
emu_cvtss_f32(__m512 x)
{
    float r;

    memcpy(&r, &x, sizeof(r));
    return r;
}
#undef _mm512_cvtss_f32
#define _mm512_cvtss_f32 emu_cvtss_f32

/* AVX-VNNI's own spelling */
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32

#endif /* MOE_EMULATE_IMMINTRIN_H */
