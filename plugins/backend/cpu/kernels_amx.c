/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_amx.c - the products of weights in lines by many rows, on the
 * matrix tiles of AMX, with AVX-512 around them.
 *
 * As in kernels_avx2.c the instruction set is asked for here alone.  The
 * tiles are configured by the thread that uses them, for one call, and
 * released at its end: nothing is left for the system to save, and the
 * host's threads come back as they were.
 */

#if defined(__x86_64__)

#    include <string.h>

#    include <sys/syscall.h>
#    include <unistd.h>

#    include "backend/cpu/lines.h"
#    include "backend/cpu/simd.h"
#    include "backend/cpu/x86.h"

V_TARGET_BEGIN(
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,amx-tile,amx-int8")

#    define L_VNNI 0
#    include "backend/cpu/lines_512.h"

V_FN void
v_prefetch(const void *p)
{
    _mm_prefetch((const char *) p, _MM_HINT_T0);
}

#    include "backend/cpu/tiles_amx.h"

#    include "backend/cpu/tiles_body.h"

static TILES_DOT(dot_int4, CPU_INT4)
static TILES_DOT(dot_fp4, CPU_FP4)
static TILES_DOT(dot_int8, CPU_INT8)

V_TARGET_END

/* This must run anywhere, so it stands outside.  Tile data is a large part of
 * a thread's state: Linux wants to be asked once for the process, and may
 * refuse (Documentation/arch/x86/xstate.rst). */
static int
usable(void)
{
#    if defined(__linux__) && defined(SYS_arch_prctl)
    enum { REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };

    return (cpu_x86_features() & CPU_X86_AMX) != 0
           && syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) == 0;
#    else
    return 0;
#    endif
}

const struct cpu_tiles cpu_tiles_amx = {
    .name = "amx",
    .usable = usable,
    .dot = { dot_int4, dot_fp4, dot_int8 },
};

#endif /* __x86_64__ */
