/* SPDX-License-Identifier: Apache-2.0 */
/*
 * half.h - f16, bf16 and f32 for plugins, one number or a run of them.
 *
 * Owns the conversions that plugins share; plugins see include/ only, so they
 * cannot use the core's.  Same meaning, bit for bit, as core/support/half.h
 * (IEEE 754, round to nearest, ties to even, NaN stays NaN); a test compares
 * the two.  Written without branches and in runs of a fixed length, so that
 * plain C becomes vector code at -O2 on any machine; the results do not
 * depend on whether it did, nor on a flush-to-zero mode of the caller.
 */
#ifndef MOE_PLUGINS_COMMON_HALF_H
#define MOE_PLUGINS_COMMON_HALF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MOE_RUN 16u /* numbers a conversion loop handles at a time */

static inline uint32_t
moe_bits_of(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float
moe_float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

/* yes where cond, else no: by masks, for a compiler would rather jump over a
 * floating point operation than do it for nothing. */
static inline uint32_t
moe_select(int cond, uint32_t yes, uint32_t no)
{
    uint32_t mask = 0u - (uint32_t) (cond != 0);

    return (yes & mask) | (no & ~mask);
}

static inline float
moe_bf16_widen(uint16_t h)
{
    return moe_float_of((uint32_t) h << 16);
}

static inline uint16_t
moe_bf16_round(float f)
{
    uint32_t u = moe_bits_of(f);
    uint32_t num = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    uint32_t nan = (u >> 16) | 0x40u;

    return (uint16_t) moe_select((u & 0x7fffffffu) > 0x7f800000u, nan, num);
}

static inline float
moe_f16_widen(uint16_t h)
{
    uint32_t sign = (uint32_t) (h & 0x8000u) << 16;
    uint32_t mag = h & 0x7fffu;
    uint32_t big = (mag << 13) + (112u << 23) /* rebias 15 -> 127 */
                   + moe_select(mag >= 0x7c00u, 112u << 23, 0); /* -> 255 */
    /* subnormal: mag * 2^-24, exact, and a normal number in f32 */
    uint32_t small = moe_bits_of((float) (int32_t) mag * 0x1p-24f);

    return moe_float_of(sign | moe_select(mag < 0x0400u, small, big));
}

static inline uint16_t
moe_f16_round(float f)
{
    uint32_t u = moe_bits_of(f);
    uint32_t sign = (u >> 16) & 0x8000u;
    uint32_t mag = u & 0x7fffffffu;
    uint32_t num = (mag - (112u << 23) + 0xfffu + ((mag >> 13) & 1u)) >> 13;
    /* subnormal: adding 0.5 puts the last wanted bit at the f32's last one,
     * so the addition itself rounds to nearest, ties to even */
    uint32_t small = moe_bits_of(moe_float_of(mag) + 0.5f) - 0x3f000000u;
    uint32_t nan = 0x7e00u | ((mag >> 13) & 0x1ffu);
    uint32_t r = moe_select(mag < 0x38800000u, small, num);

    r = moe_select(mag >= 0x477ff000u, 0x7c00u, r); /* 65536 or more */
    r = moe_select(mag > 0x7f800000u, nan, r);
    return (uint16_t) (sign | r);
}

/* src: n numbers, at any address. */
static inline void
moe_f16_widen_row(const void *src, size_t n, float *dst)
{
    const unsigned char *s = src;
    uint16_t             h[MOE_RUN];
    size_t               i, j, whole = n - n % MOE_RUN;

    for (i = 0; i < whole; i += MOE_RUN) {
        memcpy(h, s + 2 * i, sizeof(h));
        for (j = 0; j < MOE_RUN; j++)
            dst[i + j] = moe_f16_widen(h[j]);
    }
    for (i = whole; i < n; i++) {
        memcpy(h, s + 2 * i, 2);
        dst[i] = moe_f16_widen(h[0]);
    }
}

static inline void
moe_bf16_widen_row(const void *src, size_t n, float *dst)
{
    const unsigned char *s = src;
    uint16_t             h[MOE_RUN];
    size_t               i, j, whole = n - n % MOE_RUN;

    for (i = 0; i < whole; i += MOE_RUN) {
        memcpy(h, s + 2 * i, sizeof(h));
        for (j = 0; j < MOE_RUN; j++)
            dst[i + j] = moe_bf16_widen(h[j]);
    }
    for (i = whole; i < n; i++) {
        memcpy(h, s + 2 * i, 2);
        dst[i] = moe_bf16_widen(h[0]);
    }
}

/* dst: n numbers, at any address. */
static inline void
moe_f16_round_row(const float *src, size_t n, void *dst)
{
    unsigned char *d = dst;
    uint16_t       h[MOE_RUN];
    size_t         i, j, whole = n - n % MOE_RUN;

    for (i = 0; i < whole; i += MOE_RUN) {
        for (j = 0; j < MOE_RUN; j++)
            h[j] = moe_f16_round(src[i + j]);
        memcpy(d + 2 * i, h, sizeof(h));
    }
    for (i = whole; i < n; i++) {
        h[0] = moe_f16_round(src[i]);
        memcpy(d + 2 * i, h, 2);
    }
}

static inline void
moe_bf16_round_row(const float *src, size_t n, void *dst)
{
    unsigned char *d = dst;
    uint16_t       h[MOE_RUN];
    size_t         i, j, whole = n - n % MOE_RUN;

    for (i = 0; i < whole; i += MOE_RUN) {
        for (j = 0; j < MOE_RUN; j++)
            h[j] = moe_bf16_round(src[i + j]);
        memcpy(d + 2 * i, h, sizeof(h));
    }
    for (i = whole; i < n; i++) {
        h[0] = moe_bf16_round(src[i]);
        memcpy(d + 2 * i, h, 2);
    }
}

#endif /* MOE_PLUGINS_COMMON_HALF_H */
