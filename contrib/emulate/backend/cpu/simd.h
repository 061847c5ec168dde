/* SPDX-License-Identifier: Apache-2.0 */
/*
 * simd.h - plugins/backend/cpu/simd.h for vectors in plain C: the compiler is
 * asked for no instruction set, and has no registers to be told about.
 */
#ifndef MOE_PLUGINS_BACKEND_CPU_SIMD_H
#define MOE_PLUGINS_BACKEND_CPU_SIMD_H

#include <immintrin.h>

#define V_TARGET_BEGIN(isa)
#define V_TARGET_END
#define V_UNROLL
#define V_KEEP(v) ((void) 0)
#define V_FMA_TO(sum, x, y) ((sum) = _mm256_fmadd_ps(x, y, sum))

#define V_PICK(mask, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

#define V_FN __attribute__((__unused__)) static inline

#endif /* MOE_PLUGINS_BACKEND_CPU_SIMD_H */
