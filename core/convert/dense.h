/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dense.h - the product that calibration spends its time in.
 *
 * A tile c (4, W) += sum over p of a[p]' b[p], with a and b packed so that
 * what a step needs lies together.  Every element of c is a sum of its own,
 * in the order of p, begun at what c holds: however a product is cut into
 * tiles and runs of p, the bits are the same.
 */
#ifndef MOE_CORE_CONVERT_DENSE_H
#define MOE_CORE_CONVERT_DENSE_H

#include <stdint.h>

#define MOE_TILE_M  4u  /* rows of a tile */
#define MOE_TILE_ND 8u  /* its columns in f64 */
#define MOE_TILE_NF 16u /* and in f32 */
#define MOE_TILE_P  64u /* steps that are packed at a time */

/* A function that is compiled a second time for wide vectors, and whether to
 * call that one. */
#if defined(__x86_64__)
#define MOE_WIDE __attribute__((__target__("avx2,fma")))
#define MOE_HAS_WIDE()                                                        \
    (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define MOE_WIDE
#define MOE_HAS_WIDE() 0
#endif
#define MOE_BODY static inline __attribute__((__always_inline__))

/* a (n, 4), b (n, 8 or 16); c: rows ldc elements apart.  With fused
 * multiply-adds where the processor has them.  Any thread. */
void moe_tile_f64(uint64_t n, const double *a, const double *b, double *c,
                  uint64_t ldc);
void moe_tile_f32(uint64_t n, const float *a, const float *b, float *c,
                  uint64_t ldc);

/* c (m, n) -= a' b for a (p, m), b (p, n). */
void moe_dense_less(uint64_t p, const double *a, uint64_t lda, uint64_t m,
                    const double *b, uint64_t ldb, uint64_t n, double *c,
                    uint64_t ldc);

/* Lower triangle: adds x' x to rows [i0, i1), columns [j0, j1) of h (k, k)
 * for x (rows, k).  i0 is a multiple of 4 and j0 one of 8; what lies above
 * the diagonal in tiles that meet it is written, too. */
void moe_dense_gram(uint64_t rows, const float *x, uint64_t ld, uint64_t i0,
                    uint64_t i1, uint64_t j0, uint64_t j1, double *h,
                    uint64_t k);

#endif /* MOE_CORE_CONVERT_DENSE_H */
