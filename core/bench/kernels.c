/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels.c - the loops behind the ceilings.
 *
 * Owns the choice by processor, made while running: nothing is compiled for
 * the machine of the compiler.  A loop has enough independent accumulators to
 * hide its latency, and an empty asm statement makes the compiler believe
 * that an operand changed, so that it neither hoists nor drops the work.
 *
 * Operations are counted as two for each product that is added up.
 */
#include "bench/ceiling.h"

#include <string.h>

#define AHEAD 2048 /* bytes of prefetch before each of four streams */

/* ------------------------------------------------------------- portable -- */

static uint64_t
read_plain(const uint8_t *p, uint64_t bytes)
{
    uint64_t sum[8] = {0}, v[8], i;
    int      j;

    for (i = 0; i < bytes; i += sizeof(v)) {
        memcpy(v, p + i, sizeof(v));
        for (j = 0; j < 8; j++)
            sum[j] += v[j];
    }
    return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6]
           + sum[7];
}

static uint64_t
read_plain_streams(const uint8_t *p, uint64_t bytes)
{
    uint64_t sum[4] = {0}, v[8], i, q = bytes / 4;
    int      s, j;

    for (i = 0; i < q; i += sizeof(v))
        for (s = 0; s < 4; s++) {
            const uint8_t *at = p + (uint64_t) s * q + i;

            __builtin_prefetch(at + AHEAD, 0, 3);
            memcpy(v, at, sizeof(v));
            for (j = 0; j < 8; j++)
                sum[s] += v[j];
        }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

#define PLAIN_LANES 32

static uint64_t
f32_plain(uint64_t rounds)
{
    float    acc[PLAIN_LANES], a = 0.999f, b = 1e-3f, sum = 0;
    uint64_t i;
    int      j;

    for (j = 0; j < PLAIN_LANES; j++)
        acc[j] = (float) j;
    for (i = 0; i < rounds; i++)
        for (j = 0; j < PLAIN_LANES; j++)
            acc[j] = acc[j] * a + b;
    for (j = 0; j < PLAIN_LANES; j++)
        sum += acc[j];
    return (uint64_t) sum;
}

/* ------------------------------------------------------------------ x86 -- */

#if defined(__x86_64__)
#    include <immintrin.h>

#    define AVX2   __attribute__((__target__("avx2,fma")))
#    define AVX512 __attribute__((__target__("avx512f,avx512bw")))
#    define VNNI512                                                           \
        __attribute__((__target__("avx512f,avx512bw,avx512vnni")))
#    define VNNI256 __attribute__((__target__("avx2,avxvnni")))

AVX2 static uint64_t
sum_256(__m256i v)
{
    uint64_t lane[4];

    _mm256_storeu_si256((__m256i *) (void *) lane, v);
    return lane[0] + lane[1] + lane[2] + lane[3];
}

AVX2 static uint64_t
read_avx2(const uint8_t *p, uint64_t bytes)
{
    __m256i  s[4];
    uint64_t i;
    int      j;

    for (j = 0; j < 4; j++)
        s[j] = _mm256_setzero_si256();
    for (i = 0; i < bytes; i += 128)
        for (j = 0; j < 4; j++)
            s[j] = _mm256_add_epi64(
                s[j], _mm256_loadu_si256(
                          (const __m256i *) (const void *) (p + i + 32 * j)));
    return sum_256(_mm256_add_epi64(_mm256_add_epi64(s[0], s[1]),
                                    _mm256_add_epi64(s[2], s[3])));
}

AVX2 static uint64_t
read_avx2_streams(const uint8_t *p, uint64_t bytes)
{
    __m256i  s[4];
    uint64_t i, q = bytes / 4;
    int      j;

    for (j = 0; j < 4; j++)
        s[j] = _mm256_setzero_si256();
    for (i = 0; i < q; i += 64)
        for (j = 0; j < 4; j++) {
            const uint8_t *at = p + (uint64_t) j * q + i;
            const __m256i *v = (const __m256i *) (const void *) at;

            _mm_prefetch((const char *) at + AHEAD, _MM_HINT_T0);
            s[j] = _mm256_add_epi64(s[j], _mm256_loadu_si256(v));
            s[j] = _mm256_add_epi64(s[j], _mm256_loadu_si256(v + 1));
        }
    return sum_256(_mm256_add_epi64(_mm256_add_epi64(s[0], s[1]),
                                    _mm256_add_epi64(s[2], s[3])));
}

#    define ACCS 12

AVX2 static uint64_t
f32_avx2(uint64_t rounds)
{
    __m256   acc[ACCS], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
    uint64_t i;
    int      j;

    for (j = 0; j < ACCS; j++)
        acc[j] = _mm256_set1_ps((float) j);
    for (i = 0; i < rounds; i++)
#    pragma GCC unroll 12
        for (j = 0; j < ACCS; j++)
            acc[j] = _mm256_fmadd_ps(acc[j], a, b);
    for (j = 1; j < ACCS; j++)
        acc[0] = _mm256_add_ps(acc[0], acc[j]);
    return sum_256(_mm256_castps_si256(acc[0]));
}

AVX512 static uint64_t
f32_avx512(uint64_t rounds)
{
    __m512   acc[ACCS], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
    uint64_t i;
    int      j;

    for (j = 0; j < ACCS; j++)
        acc[j] = _mm512_set1_ps((float) j);
    for (i = 0; i < rounds; i++)
#    pragma GCC unroll 12
        for (j = 0; j < ACCS; j++)
            acc[j] = _mm512_fmadd_ps(acc[j], a, b);
    for (j = 1; j < ACCS; j++)
        acc[0] = _mm512_add_ps(acc[0], acc[j]);
    return (uint64_t) _mm512_reduce_add_ps(acc[0]);
}

/* u8 * s8, pairs added in 16 bits: what 4-bit codes allow for eight rounds
 * before they have to be widened, and so the most that AVX2 can do. */
AVX2 static uint64_t
int8_maddubs(uint64_t rounds)
{
    __m256i  acc[8], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
    uint64_t i;
    int      j;

    for (j = 0; j < 8; j++)
        acc[j] = _mm256_setzero_si256();
    for (i = 0; i < rounds; i++)
#    pragma GCC unroll 8
        for (j = 0; j < 8; j++) {
            __asm__ volatile("" : "+x"(a));
            acc[j] = _mm256_add_epi16(acc[j], _mm256_maddubs_epi16(a, b));
        }
    for (j = 1; j < 8; j++)
        acc[0] = _mm256_add_epi16(acc[0], acc[j]);
    return sum_256(acc[0]);
}

VNNI256 static uint64_t
int8_vnni256(uint64_t rounds)
{
    __m256i  acc[ACCS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
    uint64_t i, lane[4];
    int      j;

    for (j = 0; j < ACCS; j++)
        acc[j] = _mm256_setzero_si256();
    for (i = 0; i < rounds; i++)
#    pragma GCC unroll 12
        for (j = 0; j < ACCS; j++) {
            __asm__ volatile("" : "+x"(a));
            acc[j] = _mm256_dpbusd_avx_epi32(acc[j], a, b);
        }
    for (j = 1; j < ACCS; j++)
        acc[0] = _mm256_add_epi32(acc[0], acc[j]);
    _mm256_storeu_si256((__m256i *) (void *) lane, acc[0]);
    return lane[0] + lane[1] + lane[2] + lane[3];
}

VNNI512 static uint64_t
int8_vnni512(uint64_t rounds)
{
    __m512i  acc[ACCS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
    uint64_t i;
    int      j;

    for (j = 0; j < ACCS; j++)
        acc[j] = _mm512_setzero_si512();
    for (i = 0; i < rounds; i++)
#    pragma GCC unroll 12
        for (j = 0; j < ACCS; j++) {
            __asm__ volatile("" : "+v"(a));
            acc[j] = _mm512_dpbusd_epi32(acc[j], a, b);
        }
    for (j = 1; j < ACCS; j++)
        acc[0] = _mm512_add_epi32(acc[0], acc[j]);
    return (uint64_t) _mm512_reduce_add_epi32(acc[0]);
}

/* CPUID leaf 7, subleaf 1, EAX bit 4: gcc 12 has no word for it. */
static int
has_avx_vnni(void)
{
    unsigned a, b, c, d;

    __asm__ volatile("cpuid"
                     : "=a"(a), "=b"(b), "=c"(c), "=d"(d)
                     : "a"(7u), "c"(1u));
    return (a >> 4 & 1) != 0;
}

static void
pick_x86(struct moe_kernels *k)
{
    unsigned a = 0, b, c, d;

    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return;
    k->read = read_avx2;
    k->read_streams = read_avx2_streams;
    k->f32 = f32_avx2;
    k->f32_ops = ACCS * 8 * 2;
    k->f32_by = "AVX2 FMA";
    k->int8 = int8_maddubs;
    k->int8_ops = 8 * 32 * 2;
    k->int8_by = "AVX2 maddubs";
    __asm__ volatile("cpuid"
                     : "=a"(a), "=b"(b), "=c"(c), "=d"(d)
                     : "a"(0u), "c"(0u));
    if (a >= 7 && has_avx_vnni()) {
        k->int8 = int8_vnni256;
        k->int8_ops = ACCS * 32 * 2;
        k->int8_by = "AVX-VNNI";
    }
    if (!__builtin_cpu_supports("avx512f")
        || !__builtin_cpu_supports("avx512bw"))
        return;
    k->f32 = f32_avx512;
    k->f32_ops = ACCS * 16 * 2;
    k->f32_by = "AVX-512 FMA";
    if (__builtin_cpu_supports("avx512vnni")) {
        k->int8 = int8_vnni512;
        k->int8_ops = ACCS * 64 * 2;
        k->int8_by = "AVX-512 VNNI";
    }
}
#endif

void
moe_kernels_pick(struct moe_kernels *out)
{
    memset(out, 0, sizeof(*out));
    out->read = read_plain;
    out->read_streams = read_plain_streams;
    out->f32 = f32_plain;
    out->f32_ops = PLAIN_LANES * 2;
    out->f32_by = "plain C";
    out->int8_by = "none";
#if defined(__x86_64__)
    pick_x86(out);
#endif
}
