/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiles_emulated_512.c - the part of tiles_emulated.c with the vectors that
 * kernels_amx.c has.
 */

#if defined(__x86_64__)

#    include "backend/cpu/lines.h"
#    include "backend/cpu/simd.h"
#    include "matrix/tiles_emulated.h"

cpu_dot_fn tiles_int4_512, tiles_fp4_512, tiles_int8_512;

V_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

#    define L_VNNI 0
#    include "backend/cpu/lines_512.h"

V_FN void
v_prefetch(const void *p)
{
    _mm_prefetch((const char *) p, _MM_HINT_T0);
}

#    include "backend/cpu/tiles_body.h"

TILES_DOT(tiles_int4_512, CPU_INT4)
TILES_DOT(tiles_fp4_512, CPU_FP4)
TILES_DOT(tiles_int8_512, CPU_INT8)

V_TARGET_END

#endif /* __x86_64__ */
