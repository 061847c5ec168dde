/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiles_emulated.c - takes kernels_amx.c's place in a CPU backend for tests:
 * the same product, tiles in plain C, the vectors around them in AVX2 or, on
 * a processor that has it, AVX-512.
 */

#if defined(__x86_64__)

#    include "backend/cpu/lines.h"
#    include "backend/cpu/simd.h"
#    include "backend/cpu/x86.h"
#    include "matrix/tiles_emulated.h"

cpu_dot_fn tiles_int4_512, tiles_fp4_512, tiles_int8_512;

V_TARGET_BEGIN("avx2,fma,f16c")

#    define L_VNNI 0
#    include "backend/cpu/lines_256.h"

V_FN void
v_prefetch(const void *p)
{
    _mm_prefetch((const char *) p, _MM_HINT_T0);
}

#    include "backend/cpu/tiles_body.h"

static TILES_DOT(int4_256, CPU_INT4)
static TILES_DOT(fp4_256, CPU_FP4)
static TILES_DOT(int8_256, CPU_INT8)

V_TARGET_END

static int wide; /* AVX-512 */

static int
usable(void)
{
    const uint32_t has = cpu_x86_features();

    wide = (has & CPU_X86_AVX512) != 0;
    return (has & CPU_X86_AVX2) != 0;
}

#    define EITHER(name)                                                      \
        static void name(const struct cpu_mat *m, uint32_t panel,             \
                         uint32_t np, const void *const *x, uint32_t nt,      \
                         float *out, uint32_t ldo)                            \
        {                                                                     \
            if (wide)                                                         \
                tiles_##name##_512(m, panel, np, x, nt, out, ldo);            \
            else                                                              \
                name##_256(m, panel, np, x, nt, out, ldo);                    \
        }
EITHER(int4)
EITHER(fp4)
EITHER(int8)

/* One and two rows take the vectors' way, so that tests compare the two. */
const struct cpu_tiles cpu_tiles_amx = { .name = "amx",
                                         .usable = usable,
                                         .from = 3,
                                         .dot = { int4, fp4, int8 } };

#endif /* __x86_64__ */
