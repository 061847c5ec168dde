/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_avx512vnni.c - the products of weights in lines for AVX-512 with
 * VNNI.
 *
 * As in kernels_avx2.c the instruction set is asked for here alone.
 */

#if defined(__x86_64__)

#    include <string.h>

#    include "backend/cpu/lines.h"
#    include "backend/cpu/simd.h"

V_TARGET_BEGIN(
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")

#    define L_VNNI 1
#    include "backend/cpu/lines_512.h"

V_FN void
v_prefetch(const void *p)
{
    _mm_prefetch((const char *) p, _MM_HINT_T0);
}

#    include "backend/cpu/lines_body.h"

L_DOT(cpu_dot_int4_vnni, CPU_INT4)
L_DOT(cpu_dot_fp4_vnni, CPU_FP4)
L_DOT(cpu_dot_int8_vnni, CPU_INT8)

V_TARGET_END

#endif /* __x86_64__ */
