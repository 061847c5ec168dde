/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feedback.h - rounding that makes up for itself.
 *
 * A matrix W (n, k) is multiplied by rows x.  With H = sum of x x' over the
 * rows of a text, the square of what rounding W to Q does to the outputs is
 * tr((W - Q) H (W - Q)').  Columns are rounded from left to right, and what
 * rounding one does to the outputs is made up for, as far as H allows, by
 * those that are not rounded yet: Frantar, Ashkboos, Hoefler, Alistarh:
 * GPTQ, arXiv 2210.17323, equations 2 and 3.
 *
 * gram.c sums H and factors it; feedback.c rounds.  Neither knows where x
 * comes from (calibrate.c) or where Q goes (quantize.c).
 */
#ifndef MOE_CORE_CONVERT_FEEDBACK_H
#define MOE_CORE_CONVERT_FEEDBACK_H

#include <plugin/registry.h>
#include <support/pool.h>

/* -------------------------------------------------------------- gram.c -- */

/*
 * h (k, k), f64, lower triangle: adds x x' of every row of x (rows, k), ld
 * floats apart, in the order of the rows: the bits depend neither on the
 * threads nor on how the rows are dealt out to calls.
 */
void moe_gram_add(struct moe_pool *pool, const float *x, uint64_t rows,
                  uint64_t ld, uint32_t k, double *h);

/* What rounding wants of H (k, k). */
struct moe_factor {
    const double *u;     /* (k, k), upper: u' u = H^-1; zero below */
    const float  *tiles; /* -u in f32, (k / MOE_TILE_M, k, MOE_TILE_M): column c
                            at row i is [c / MOE_TILE_M][i][c % MOE_TILE_M] */
};

/*
 * From the lower triangle of h (k, k), to whose diagonal damp * mean diagonal
 * is added.  The result lives in the memory of h, which has room for at least
 * two elements and is lost, and of u (k, k).
 * MOE_E_CORRUPT: h is not finite.
 */
moe_status moe_gram_factor(struct moe_pool *pool, double damp, uint32_t k,
                           double *h, double *u, struct moe_factor *out);

/* ---------------------------------------------------------- feedback.c -- */

/* A format, as far as rounding a column needs to know it. */
struct moe_feedback {
    struct moe_format_ref to;
    uint32_t              scale_dtype;
    uint64_t              k;
    uint64_t              group;  /* columns that share a scale */
    struct moe_affine     affine; /* of any matrix in it, for its elements */
    uint32_t              n_values;
    uint32_t              whole;      /* they are whole numbers in a row */
    float                 value[256]; /* what an element can be, ascending;
                                         +inf behind that */
    uint8_t               code[256];  /* and its bits */
};

/* Nonzero: matrices of k columns can be rounded so: the format has an affine
 * description with elements of at most 8 bits and groups of a multiple of
 * four columns. */
int moe_feedback_open(const struct moe_format_ref *to, uint64_t k,
                      uint32_t scale_dtype, struct moe_feedback *out);

/* Bytes of scratch for `rows` rows; 0: the format refuses so many. */
uint64_t moe_feedback_scratch(const struct moe_feedback *f, uint64_t rows);

/*
 * x (rows, k) to the planes of dst, which are those of encode().  u: of
 * moe_gram_factor.  A group's scale is what encode() gives its columns when
 * their turn comes.  *error: tr((x - Q) H (x - Q)'), H damped.  Any thread,
 * with scratch of its own.
 */
moe_status moe_feedback_encode(const struct moe_feedback *f,
                               const struct moe_factor *u, const float *x,
                               uint64_t rows, void *scratch,
                               const struct moe_tensor *dst, double *error,
                               struct moe_error *err);

/* tr((x - q) H (x - q)') for any q (rows, k), in f32. */
double moe_feedback_error(const struct moe_feedback *f,
                          const struct moe_factor *u, const float *x,
                          const float *q, uint64_t rows, void *scratch);

#endif /* MOE_CORE_CONVERT_FEEDBACK_H */
