/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dense.c - tiles of a product, and products made of them.
 *
 * One body a kernel, in the compiler's own vectors; on x86-64 it is compiled
 * once more for AVX2 and FMA.  Eight sums of a tile are under way at once,
 * as many as two units with four cycles each want.
 */

#include <convert/dense.h>

#include <string.h>

#define ROWS 64u /* of c that are packed at a time */

typedef double moe_f64x4
    __attribute__((__vector_size__(32), __aligned__(8), __may_alias__));
typedef float moe_f32x8
    __attribute__((__vector_size__(32), __aligned__(4), __may_alias__));

#define TILE(name, type, vec, lanes)                                          \
    MOE_BODY void                                                             \
    name(uint64_t n, const type *a, const type *b, type *c, uint64_t ldc)     \
    {                                                                         \
        vec *r0 = (vec *) (void *) c, *r1 = (vec *) (void *) (c + ldc);       \
        vec *r2 = (vec *) (void *) (c + 2 * ldc);                             \
        vec *r3 = (vec *) (void *) (c + 3 * ldc);                             \
        vec  s00 = r0[0], s01 = r0[1], s10 = r1[0], s11 = r1[1];              \
        vec  s20 = r2[0], s21 = r2[1], s30 = r3[0], s31 = r3[1];              \
                                                                              \
        for (; n > 0; n--, a += 4, b += 2 * (lanes)) {                        \
            const vec *v = (const vec *) (const void *) b;                    \
            vec        x = v[0], y = v[1];                                    \
                                                                              \
            s00 = s00 + a[0] * x;                                             \
            s01 = s01 + a[0] * y;                                             \
            s10 = s10 + a[1] * x;                                             \
            s11 = s11 + a[1] * y;                                             \
            s20 = s20 + a[2] * x;                                             \
            s21 = s21 + a[2] * y;                                             \
            s30 = s30 + a[3] * x;                                             \
            s31 = s31 + a[3] * y;                                             \
        }                                                                     \
        r0[0] = s00;                                                          \
        r0[1] = s01;                                                          \
        r1[0] = s10;                                                          \
        r1[1] = s11;                                                          \
        r2[0] = s20;                                                          \
        r2[1] = s21;                                                          \
        r3[0] = s30;                                                          \
        r3[1] = s31;                                                          \
    }

TILE(tile_f64, double, moe_f64x4, 4)
TILE(tile_f32, float, moe_f32x8, 8)

MOE_WIDE static void
tile_f64_wide(uint64_t n, const double *a, const double *b, double *c,
              uint64_t ldc)
{
    tile_f64(n, a, b, c, ldc);
}

MOE_WIDE static void
tile_f32_wide(uint64_t n, const float *a, const float *b, float *c,
              uint64_t ldc)
{
    tile_f32(n, a, b, c, ldc);
}

void
moe_tile_f64(uint64_t n, const double *a, const double *b, double *c,
             uint64_t ldc)
{
    if (MOE_HAS_WIDE())
        tile_f64_wide(n, a, b, c, ldc);
    else
        tile_f64(n, a, b, c, ldc);
}

void
moe_tile_f32(uint64_t n, const float *a, const float *b, float *c,
             uint64_t ldc)
{
    if (MOE_HAS_WIDE())
        tile_f32_wide(n, a, b, c, ldc);
    else
        tile_f32(n, a, b, c, ldc);
}

/* A tile of which only (m, n) is there. */
static void
edge_f64(uint64_t p, const double *a, const double *b, double *c,
         uint64_t ldc, uint64_t m, uint64_t n)
{
    double   t[MOE_TILE_M * MOE_TILE_ND] = { 0 };
    uint64_t i, j;

    if (m >= MOE_TILE_M && n >= MOE_TILE_ND) {
        moe_tile_f64(p, a, b, c, ldc);
        return;
    }
    m = m < MOE_TILE_M ? m : MOE_TILE_M;
    n = n < MOE_TILE_ND ? n : MOE_TILE_ND;
    for (i = 0; i < m; i++)
        for (j = 0; j < n; j++)
            t[i * MOE_TILE_ND + j] = c[i * ldc + j];
    moe_tile_f64(p, a, b, t, MOE_TILE_ND);
    for (i = 0; i < m; i++)
        for (j = 0; j < n; j++)
            c[i * ldc + j] = t[i * MOE_TILE_ND + j];
}

/* Columns [0, m) of x (steps, ..) side by side, MOE_TILE_M at a time. */
static void
pack_less(const double *x, uint64_t ld, uint64_t steps, uint64_t m,
          double *to)
{
    uint64_t i, j, q, n;

    for (i = 0; i < m; i += MOE_TILE_M)
        for (q = 0; q < steps; q++, to += MOE_TILE_M) {
            const double *from = x + q * ld + i;

            n = m - i < MOE_TILE_M ? m - i : MOE_TILE_M;
            if (n == MOE_TILE_M) {
                for (j = 0; j < MOE_TILE_M; j++)
                    to[j] = -from[j];
                continue;
            }
            for (j = 0; j < MOE_TILE_M; j++)
                to[j] = j < n ? -from[j] : 0;
        }
}

static void
pack_columns(const double *x, uint64_t ld, uint64_t steps, uint64_t n,
             double *to)
{
    uint64_t j, q;

    for (q = 0; q < steps; q++, x += ld, to += MOE_TILE_ND) {
        if (n >= MOE_TILE_ND)
            memcpy(to, x, MOE_TILE_ND * sizeof(*to));
        else
            for (j = 0; j < MOE_TILE_ND; j++)
                to[j] = j < n ? x[j] : 0;
    }
}

/* The same of f32: width columns at a time, 4 or 8. */
MOE_BODY void
pack_wide(const float *x, uint64_t ld, uint64_t steps, uint64_t m,
          uint32_t width, double *to)
{
    uint64_t i, j, q, n;

    for (i = 0; i < m; i += width)
        for (q = 0; q < steps; q++, to += width) {
            const float *from = x + q * ld + i;

            n = m - i < width ? m - i : width;
            if (n == width) {
                for (j = 0; j < width; j++)
                    to[j] = from[j];
                continue;
            }
            for (j = 0; j < width; j++)
                to[j] = j < n ? (double) from[j] : 0;
        }
}

void
moe_dense_less(uint64_t p, const double *a, uint64_t lda, uint64_t m,
               const double *b, uint64_t ldb, uint64_t n, double *c,
               uint64_t ldc)
{
    double   as[ROWS * MOE_TILE_P], bs[MOE_TILE_ND * MOE_TILE_P];
    uint64_t p0, i0, i, j, steps, rows;

    for (p0 = 0; p0 < p; p0 += MOE_TILE_P) {
        steps = p - p0 < MOE_TILE_P ? p - p0 : MOE_TILE_P;
        for (i0 = 0; i0 < m; i0 += ROWS) {
            rows = m - i0 < ROWS ? m - i0 : ROWS;
            pack_less(a + p0 * lda + i0, lda, steps, rows, as);
            for (j = 0; j < n; j += MOE_TILE_ND) {
                pack_columns(b + p0 * ldb + j, ldb, steps, n - j, bs);
                for (i = 0; i < rows; i += MOE_TILE_M)
                    edge_f64(steps, as + i * steps, bs,
                             c + (i0 + i) * ldc + j, ldc, rows - i, n - j);
            }
        }
    }
}

void
moe_dense_gram(uint64_t rows, const float *x, uint64_t ld, uint64_t i0,
               uint64_t i1, uint64_t j0, uint64_t j1, double *h, uint64_t k)
{
    double   as[ROWS * MOE_TILE_P], bs[MOE_TILE_ND * MOE_TILE_P];
    uint64_t t, at, i, j, steps, m;

    for (at = i0; at < i1; at += ROWS) {
        m = i1 - at < ROWS ? i1 - at : ROWS;
        for (t = 0; t < rows; t += MOE_TILE_P) {
            const float *y = x + t * ld;

            steps = rows - t < MOE_TILE_P ? rows - t : MOE_TILE_P;
            pack_wide(y + at, ld, steps, m, MOE_TILE_M, as);
            for (j = j0; j < j1 && j < at + m; j += MOE_TILE_ND) {
                pack_wide(y + j, ld, steps,
                          j1 - j < MOE_TILE_ND ? j1 - j : MOE_TILE_ND,
                          MOE_TILE_ND, bs);
                for (i = 0; i < m; i += MOE_TILE_M)
                    if (at + i + MOE_TILE_M > j)
                        edge_f64(steps, as + i * steps, bs,
                                 h + (at + i) * k + j, k, m - i, j1 - j);
            }
        }
    }
}
