/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_avx2.c - the arithmetic for AVX2, FMA and F16C.
 *
 * The instruction set is asked for here and not on the command line, so that
 * nothing else of the plugin can be compiled for it: the functions below run
 * only after isa.c has asked the processor.
 */

#if defined(__x86_64__)

#    include <float.h>
#    include <math.h>
#    include <string.h>

#    include "backend/cpu/cpu.h"
#    include "backend/cpu/lines.h"
#    include "backend/cpu/simd.h"
#    include "backend/cpu/x86.h"

V_TARGET_BEGIN("avx2,fma,f16c")

#    include <immintrin.h>

typedef struct {
    __m256 a, b;
} v16;

#    define V_NT     6u
#    define V_NP(nt) ((nt) == 1 ? 4u : (nt) <= 3 ? 2u : 1u)

V_FN v16
v_set1(float x)
{
    return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) };
}

V_FN v16
v_load(const float *p)
{
    return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}

V_FN void
v_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}

#    define V_OP2(name, op)                                                   \
        V_FN v16 name(v16 x, v16 y)                                           \
        {                                                                     \
            return (v16){ op(x.a, y.a), op(x.b, y.b) };                       \
        }

V_OP2(v_add, _mm256_add_ps)
V_OP2(v_sub, _mm256_sub_ps)
V_OP2(v_mul, _mm256_mul_ps)
V_OP2(v_div, _mm256_div_ps)
V_OP2(v_max, _mm256_max_ps) /* the second operand if either is NaN */
V_OP2(v_min, _mm256_min_ps)

V_FN v16
v_fma(v16 x, v16 y, v16 z) /* x * y + z */
{
    return (v16){ _mm256_fmadd_ps(x.a, y.a, z.a),
                  _mm256_fmadd_ps(x.b, y.b, z.b) };
}

V_FN v16
v_abs(v16 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);

    return (v16){ _mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b) };
}

V_FN int
v_has_nan(v16 x)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(x.a, x.b, _CMP_UNORD_Q)) != 0;
}

V_FN float
v_first(v16 x)
{
    return _mm256_cvtss_f32(x.a);
}

V_FN float
v_sum(v16 x)
{
    const __m256 s8 = _mm256_add_ps(x.a, x.b);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8),
                                 _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));

    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

V_FN float
v_top(v16 x)
{
    const __m256 s8 = _mm256_max_ps(x.a, x.b);
    const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8),
                                 _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));

    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

/* p * 2^n, n in the low bits of t. */
V_FN v16
v_add_exponent(v16 p, v16 t)
{
    const __m256i a = _mm256_slli_epi32(_mm256_castps_si256(t.a), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_castps_si256(t.b), 23);

    return (v16){
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.a), a)),
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.b), b))
    };
}

/* y, but 0 where x < low. */
V_FN v16
v_zero_below(v16 x, float low, v16 y)
{
    const __m256 l = _mm256_set1_ps(low);

    return (v16){
        _mm256_andnot_ps(_mm256_cmp_ps(x.a, l, _CMP_LT_OQ), y.a),
        _mm256_andnot_ps(_mm256_cmp_ps(x.b, l, _CMP_LT_OQ), y.b)
    };
}

/* The lowest byte of each lane's bits. */
V_FN void
v_store_low8(int8_t *p, v16 x)
{
    const __m256i pick = _mm256_setr_epi8(
        0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8,
        12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 1, 1, 1, 1, 1);
    const __m256i a = _mm256_permutevar8x32_epi32(
        _mm256_shuffle_epi8(_mm256_castps_si256(x.a), pick), order);
    const __m256i b = _mm256_permutevar8x32_epi32(
        _mm256_shuffle_epi8(_mm256_castps_si256(x.b), pick), order);

    _mm_storeu_si128((__m128i *) (void *) p,
                     _mm_unpacklo_epi64(_mm256_castsi256_si128(a),
                                        _mm256_castsi256_si128(b)));
}

V_FN v16
v_load_f16(const uint8_t *p)
{
    const __m128i *q = (const __m128i *) (const void *) p;

    return (v16){ _mm256_cvtph_ps(_mm_loadu_si128(q)),
                  _mm256_cvtph_ps(_mm_loadu_si128(q + 1)) };
}

V_FN __m256
v_widen_bf16(const uint8_t *p)
{
    const __m128i h = _mm_loadu_si128((const __m128i *) (const void *) p);

    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

V_FN v16
v_load_bf16(const uint8_t *p)
{
    return (v16){ v_widen_bf16(p), v_widen_bf16(p + 16) };
}

V_FN v16
v_widen_f16(__m256i h)
{
    return (v16){ _mm256_cvtph_ps(_mm256_castsi256_si128(h)),
                  _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)) };
}

/* FP8: p has 16 pairs of bytes.  The product of a byte seeeemmm with 16 is
 * sssseeeemmm0000 in 16 bits; without the signs but the first that is the
 * upper half of a float, 2^-120 of the value (E5M2, with 32: 2^-112).  The
 * even rows come first.  Conversions from f16 take twice as long. */
#    define V_FP8_UP 0x1p64f

V_FN v16
v_fp8(const uint8_t *p, short factor, int mask)
{
    const __m256i v = _mm256_loadu_si256((const __m256i *) (const void *) p);
    const __m256i h = _mm256_maddubs_epi16(_mm256_set1_epi16(factor), v);
    const __m256i m = _mm256_set1_epi32(mask);

    return (v16){ _mm256_castsi256_ps(
                      _mm256_and_si256(_mm256_slli_epi32(h, 16), m)),
                  _mm256_castsi256_ps(_mm256_and_si256(h, m)) };
}

V_FN v16
v_load_e4m3(const uint8_t *p, uint64_t odd)
{
    return v_fp8(p, odd ? 0x1000 : 0x0010, (int) 0x87f00000u);
}

V_FN v16
v_load_e5m2(const uint8_t *p, uint64_t odd)
{
    return v_fp8(p, odd ? 0x2000 : 0x0020, (int) 0x8fe00000u);
}

V_FN v16
v_fp8_sum(const unsigned kind, v16 x)
{
    const __m256 up = _mm256_set1_ps(kind == CPU_E4M3 ? 0x1p56f : 0x1p48f);
    const __m256 lo = _mm256_unpacklo_ps(x.a, x.b);
    const __m256 hi = _mm256_unpackhi_ps(x.a, x.b);

    return (v16){ _mm256_mul_ps(_mm256_permute2f128_ps(lo, hi, 0x20), up),
                  _mm256_mul_ps(_mm256_permute2f128_ps(lo, hi, 0x31), up) };
}

V_FN void
v_fma_to(v16 *sum, v16 x, v16 y) /* *sum += x * y */
{
    V_FMA_TO(sum->a, x.a, y.a);
    V_FMA_TO(sum->b, x.b, y.b);
}

V_FN void
v_prefetch(const void *p)
{
    _mm_prefetch((const char *) p, _MM_HINT_T0);
}

/* A score has 8 lanes, so that sums of eight fit the registers. */
#    define V_SL 8u
typedef __m256 vs;

V_FN vs
s_elem(const unsigned kind, const uint8_t *p)
{
    if (kind == CPU_F16)
        return _mm256_cvtph_ps(
            _mm_loadu_si128((const __m128i *) (const void *) p));
    if (kind == CPU_BF16)
        return v_widen_bf16(p);
    return _mm256_loadu_ps((const float *) (const void *) p);
}

V_FN vs
s_fma(vs x, vs y, vs z)
{
    return _mm256_fmadd_ps(x, y, z);
}

V_FN vs
s_zero(void)
{
    return _mm256_setzero_ps();
}

V_FN void
s_sum8(const vs *x, float out[8])
{
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]),
                                    _mm256_hadd_ps(x[2], x[3]));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]),
                                    _mm256_hadd_ps(x[6], x[7]));

    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20),
                                        _mm256_permute2f128_ps(a, b, 0x31)));
}

#    include "backend/cpu/body.h"

#    define L_VNNI 0
#    include "backend/cpu/lines_256.h"
#    include "backend/cpu/lines_body.h"

static L_DOT(dot_int4, CPU_INT4)
static L_DOT(dot_fp4, CPU_FP4)
static L_DOT(dot_int8, CPU_INT8)

V_TARGET_END

/* These must run anywhere, so they stand outside. */

static int
usable(void)
{
    return (cpu_x86_features() & CPU_X86_AVX2) != 0;
}

static int
usable_vnni(void)
{
    return (cpu_x86_features() & CPU_X86_AVXVNNI) != 0;
}

const struct cpu_isa cpu_isa_avx2
    = { .name = "avx2", .usable = usable,
        V_TABLE(dot_int4, dot_fp4, dot_int8) };

const struct cpu_isa cpu_isa_avxvnni
    = { .name = "avxvnni", .usable = usable_vnni,
        V_TABLE(cpu_dot_int4_avxvnni, cpu_dot_fp4_avxvnni,
                cpu_dot_int8_avxvnni) };

#endif /* __x86_64__ */
