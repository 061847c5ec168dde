/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_avx512.c - kernels_avx512.h for AVX-512 without VNNI.
 *
 * As in kernels_avx2.c the instruction set is asked for here alone.
 */

#if defined(__x86_64__)

#    include <float.h>
#    include <math.h>
#    include <string.h>

#    include "backend/cpu/cpu.h"
#    include "backend/cpu/int4.h"
#    include "backend/cpu/simd.h"
#    include "backend/cpu/x86.h"

V_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

#    include "backend/cpu/kernels_avx512.h"

V_TARGET_END

/* Must run anywhere, so it stands outside. */
static int
usable(void)
{
    return (cpu_x86_features() & CPU_X86_AVX512) != 0;
}

const struct cpu_isa cpu_isa_avx512 = { .name = "avx512",
                                        .usable = usable, V_TABLE };

#endif /* __x86_64__ */
