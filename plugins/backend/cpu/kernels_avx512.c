/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_avx512.c - the arithmetic for AVX-512, with and without VNNI.
 *
 * As in kernels_avx2.c the instruction set is asked for here alone.
 */

#if defined(__x86_64__)

#    include <float.h>
#    include <math.h>
#    include <string.h>

#    include "backend/cpu/cpu.h"
#    include "backend/cpu/lines.h"
#    include "backend/cpu/simd.h"
#    include "backend/cpu/x86.h"

V_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

#    include "backend/cpu/avx512.h"

#    include "backend/cpu/body.h"

#    define L_VNNI 0
#    include "backend/cpu/lines_512.h"
#    include "backend/cpu/lines_body.h"

static L_DOT(dot_int4, CPU_INT4)
static L_DOT(dot_fp4, CPU_FP4)
static L_DOT(dot_int8, CPU_INT8)

V_TARGET_END

/* These must run anywhere, so they stand outside. */

static int
usable(void)
{
    return (cpu_x86_features() & CPU_X86_AVX512) != 0;
}

static int
usable_vnni(void)
{
    return (cpu_x86_features() & CPU_X86_VNNI) != 0;
}

const struct cpu_isa cpu_isa_avx512
    = { .name = "avx512", .usable = usable,
        V_TABLE(dot_int4, dot_fp4, dot_int8) };

const struct cpu_isa cpu_isa_avx512vnni
    = { .name = "avx512vnni", .usable = usable_vnni,
        V_TABLE(cpu_dot_int4_vnni, cpu_dot_fp4_vnni, cpu_dot_int8_vnni) };

#endif /* __x86_64__ */
