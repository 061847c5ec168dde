/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int4_avx512.h - the 4-bit product for AVX-512; with INT4_VNNI four products
 * of bytes are one instruction instead of three.
 *
 * Included by kernels_avx512.c and kernels_avx512vnni.c.
 */

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
        V_KEEP(s);
    }
#ifndef INT4_VNNI
    s = _mm512_madd_epi16(s, _mm512_set1_epi16(1));
#endif
    return s;
}

V_FN void
int4_some(const unsigned nt, const struct cpu_mat *m, const uint8_t *w,
          const struct cpu_q8 *const *x, float *out, uint32_t ldo)
{
    const uint32_t scale = m->scale, has_zero = m->has_zero;
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
                /* a zero point's upper half is 0, |sum| <= 32 * 127 */
                const __m512i c = _mm512_madd_epi16(
                    zero, _mm512_set1_epi32(r->sum));
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
