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
 * more values than registers: this vector has its value here. */
#define V_KEEP(v) __asm__("" : "+v"(v))

/* sum += x * y, vectors of 256 bits, where sum is: of many sums compilers make
 * copies until there are no registers left. */
#define V_FMA_TO(sum, x, y)                                                   \
    __asm__("vfmadd231ps %1, %2, %0" : "+x"(sum) : "x"(x), "x"(y))

/* Elements of two vectors by number; mask: the type of as many integers. */
#if defined(__has_builtin)
#    if __has_builtin(__builtin_shufflevector)
#        define V_PICK(mask, a, b, ...)                                       \
            __builtin_shufflevector(a, b, __VA_ARGS__)
#    endif
#endif
#if !defined(V_PICK) /* GCC before 12 */
#    define V_PICK(mask, a, b, ...)                                           \
        __builtin_shuffle(a, b, (mask){ __VA_ARGS__ })
#endif

/* Small functions whose constant arguments choose code: always inlined. */
#define V_FN __attribute__((__always_inline__, __unused__)) static inline

#endif /* MOE_PLUGINS_BACKEND_CPU_SIMD_H */
