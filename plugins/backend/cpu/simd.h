/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simd.h - words of the two compilers that the kernels need.
 *
 * V_TARGET_BEGIN("avx2,fma") .. V_TARGET_END: functions in between may use
 * these instructions, whatever the command line says.
 */
#ifndef MOE_PLUGINS_BACKEND_CPU_SIMD_H
#define MOE_PLUGINS_BACKEND_CPU_SIMD_H

#define V_PRAGMA(x) _Pragma(#x)

#if defined(__clang__)
#    define V_TARGET_BEGIN(isa)                                               \
        V_PRAGMA(clang attribute push(__attribute__((target(isa))),           \
                                      apply_to = function))
#    define V_TARGET_END V_PRAGMA(clang attribute pop)
#    define V_UNROLL     V_PRAGMA(clang loop unroll(full))
#else
#    define V_TARGET_BEGIN(isa)                                               \
        V_PRAGMA(GCC push_options) V_PRAGMA(GCC target(isa))
#    define V_TARGET_END V_PRAGMA(GCC pop_options)
#    define V_UNROLL     V_PRAGMA(GCC unroll 32)
#endif

/* Compilers like to reorder integer sums and to share loads until there are
 * more values than registers.  V_KEEP: this vector has its value here.
 * V_FORGET: what was loaded before is loaded again. */
#define V_KEEP(v) __asm__("" : "+v"(v))
#define V_FORGET  __asm__ volatile("" ::: "memory")

/* Small functions whose constant arguments choose code: always inlined. */
#define V_FN __attribute__((__always_inline__, __unused__)) static inline

#endif /* MOE_PLUGINS_BACKEND_CPU_SIMD_H */
