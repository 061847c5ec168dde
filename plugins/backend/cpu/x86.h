/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86.h - what this processor and this kernel allow.
 *
 * cpuid alone is not enough: the operating system must save the wide
 * registers too, which XCR0 tells.
 */
#ifndef MOE_PLUGINS_BACKEND_CPU_X86_H
#define MOE_PLUGINS_BACKEND_CPU_X86_H

#include <stdint.h>

#include <cpuid.h>

#define CPU_X86_AVX2    1u /* AVX2, FMA, F16C                                 */
#define CPU_X86_AVX512  2u /* and AVX-512 F, BW, DQ, VL                       */
#define CPU_X86_VNNI    4u /* and AVX-512 VNNI                                */
#define CPU_X86_AVXVNNI 8u /* AVX2 and AVX-VNNI                               */
#define CPU_X86_AMX     16u /* AVX-512 and AMX-TILE, AMX-INT8                 */

static inline uint32_t
cpu_x86_features(void)
{
    uint32_t a, b, c, d, a1, b1, c1, d1, found = 0;
    uint32_t xcr0_low, xcr0_high;

    if (!__get_cpuid(1, &a, &b, &c1, &d))
        return 0;
    /* OSXSAVE, AVX, FMA, F16C */
    if ((~c1 & (1u << 27 | 1u << 28 | 1u << 12 | 1u << 29)) != 0)
        return 0;
    __asm__("xgetbv" : "=a"(xcr0_low), "=d"(xcr0_high) : "c"(0));
    if ((xcr0_low & 0x6u) != 0x6u) /* SSE, AVX */
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & 1u << 5) == 0)
        return 0;
    found |= CPU_X86_AVX2;
    /* a: the highest sub-leaf */
    if (a >= 1 && __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1)
        && (a1 & 1u << 4) != 0)
        found |= CPU_X86_AVXVNNI;
    if ((xcr0_low & 0xe0u) != 0xe0u) /* mask and 512-bit registers */
        return found;
    if ((~b & (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31)) != 0)
        return found; /* F, DQ, BW, VL */
    found |= CPU_X86_AVX512;
    if ((c & 1u << 11) != 0)
        found |= CPU_X86_VNNI;
    /* tile configuration and data */
    if ((xcr0_low & 0x60000u) == 0x60000u
        && (~d & (1u << 24 | 1u << 25)) == 0) /* TILE, INT8 */
        found |= CPU_X86_AMX;
    return found;
}

#endif /* MOE_PLUGINS_BACKEND_CPU_X86_H */
