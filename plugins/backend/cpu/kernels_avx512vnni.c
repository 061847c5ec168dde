/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_avx512vnni.c - the 4-bit product for AVX-512 with VNNI.
 *
 * As in kernels_avx2.c the instruction set is asked for here alone.
 */

#if defined(__x86_64__)

#    include <string.h>

#    include "backend/cpu/cpu.h"
#    include "backend/cpu/int4.h"
#    include "backend/cpu/simd.h"

V_TARGET_BEGIN(
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")

#    include "backend/cpu/avx512.h"

#    define V_AHEAD   4096u /* bytes that weights are fetched ahead */
#    define INT4_VNNI 1
#    include "backend/cpu/int4_avx512.h"

void
cpu_dot_int4_vnni(const struct cpu_mat *m, uint32_t panel, uint32_t np,
                  const void *const *rows, uint32_t nt, float *out,
                  uint32_t ldo)
{
    int4_rows(m, panel, np, rows, nt, out, ldo);
}

V_TARGET_END

#endif /* __x86_64__ */
