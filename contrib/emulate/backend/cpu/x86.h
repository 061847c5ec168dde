/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86.h - plugins/backend/cpu/x86.h of a processor that has all that can be
 * emulated: the bits are that file's.
 */
#ifndef MOE_PLUGINS_BACKEND_CPU_X86_H
#define MOE_PLUGINS_BACKEND_CPU_X86_H

#include <stdint.h>

#define CPU_X86_AVX2    1u
#define CPU_X86_AVX512  2u
#define CPU_X86_VNNI    4u
#define CPU_X86_AVXVNNI 8u
#define CPU_X86_AMX     16u

static inline uint32_t
cpu_x86_features(void)
{
    return CPU_X86_AVX2 | CPU_X86_AVX512 | CPU_X86_VNNI | CPU_X86_AVXVNNI;
}

#endif /* MOE_PLUGINS_BACKEND_CPU_X86_H */
