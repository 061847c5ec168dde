/* SPDX-License-Identifier: Apache-2.0 */
/*
 * half.h - f16, bf16 and f32, bit for bit (IEEE 754; rounding to nearest,
 * ties to even; NaN stays NaN).
 */
#ifndef MOE_CORE_SUPPORT_HALF_H
#define MOE_CORE_SUPPORT_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t
moe_f32_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float
moe_bits_f32(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline float
moe_bf16_f32(uint16_t h)
{
    return moe_bits_f32((uint32_t) h << 16);
}

static inline uint16_t
moe_f32_bf16(float f)
{
    uint32_t u = moe_f32_bits(f);

    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t) ((u >> 16) | 0x40u);
    return (uint16_t) ((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float
moe_f16_f32(uint16_t h)
{
    uint32_t sign = (uint32_t) (h & 0x8000u) << 16;
    uint32_t mag = h & 0x7fffu;

    if (mag >= 0x7c00u) /* inf, NaN */
        return moe_bits_f32(sign | 0x7f800000u | ((mag & 0x3ffu) << 13));
    if (mag >= 0x0400u) /* normal: rebias 15 -> 127 */
        return moe_bits_f32(sign | ((mag << 13) + (112u << 23)));
    /* subnormal: mag * 2^-24, exact in f32 */
    return moe_bits_f32(sign | moe_f32_bits((float) mag * 0x1p-24f));
}

static inline uint16_t
moe_f32_f16(float f)
{
    uint32_t u = moe_f32_bits(f);
    uint32_t sign = (u >> 16) & 0x8000u;
    uint32_t mag = u & 0x7fffffffu;

    if (mag > 0x7f800000u)
        return (uint16_t) (sign | 0x7e00u | ((mag >> 13) & 0x1ffu));
    if (mag >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t) (sign | 0x7c00u);
    if (mag >= 0x38800000u) { /* normal */
        mag -= 112u << 23;
        return (uint16_t) (sign
                           | ((mag + 0xfffu + ((mag >> 13) & 1u)) >> 13));
    }
    /* subnormal: adding 0.5 puts the last wanted bit at the f32's last one,
     * so the addition itself rounds to nearest, ties to even */
    return (uint16_t) (sign
                       | (moe_f32_bits(moe_bits_f32(mag) + 0.5f)
                          - 0x3f000000u));
}

#endif /* MOE_CORE_SUPPORT_HALF_H */
