/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gram.c - second moments of inputs, and the factor that rounding wants.
 *
 * All in f64: a sum over a hundred thousand rows, and an inverse.  Work is
 * dealt out by rows or columns of the result and every element's sum has one
 * order, so threads change no bit.
 */

#include <convert/feedback.h>

#include <math.h>
#include <string.h>

#define GRAM_ROWS 8u  /* of h, a task */
#define BLOCK     32u /* columns that are eliminated together */
#define STRIP     64u /* columns of the inverse, a task */

struct gram {
    const float *x; /* (rows, k) */
    uint64_t     rows, ld;
    uint32_t     k;
    double      *h; /* (k, k) */
};

/* Four rows at a time, so that h is read a quarter as often; one after the
 * other, so that the sum is the same. */
static void
gram_rows(void *arg, uint32_t index)
{
    const struct gram *g = arg;
    uint32_t           i, j, first = index * GRAM_ROWS;
    uint32_t           end = first + GRAM_ROWS < g->k ? first + GRAM_ROWS
                                                      : g->k;
    uint64_t           t;

    for (t = 0; t + 4 <= g->rows; t += 4) {
        const float *a = g->x + t * g->ld, *b = a + g->ld, *c = b + g->ld;
        const float *d = c + g->ld;

        for (i = first; i < end; i++) {
            double *h = g->h + (size_t) i * g->k;
            double  ai = a[i], bi = b[i], ci = c[i], di = d[i];

            for (j = 0; j <= i; j++) {
                double s = h[j];

                s += ai * a[j];
                s += bi * b[j];
                s += ci * c[j];
                s += di * d[j];
                h[j] = s;
            }
        }
    }
    for (; t < g->rows; t++) {
        const float *a = g->x + t * g->ld;

        for (i = first; i < end; i++) {
            double *h = g->h + (size_t) i * g->k;
            double  ai = a[i];

            for (j = 0; j <= i; j++)
                h[j] += ai * a[j];
        }
    }
}

void
moe_gram_add(struct moe_pool *pool, const float *x, uint64_t rows,
             uint64_t ld, uint32_t k, double *h)
{
    struct gram g = { x, rows, ld, k, h };

    moe_pool_run(pool, (k + GRAM_ROWS - 1) / GRAM_ROWS, gram_rows, &g);
}

/* --------------------------------------------------------------- factor -- */

struct factor {
    double  *h, *u; /* (k, k) */
    uint32_t k, at, end; /* the block under elimination: [at, end) */
};

/* Row i, below the block: its part of L, and what follows for the rest of
 * the row.  The block's rows of L' are in u. */
static void
eliminate(void *arg, uint32_t index)
{
    const struct factor *f = arg;
    uint32_t             i, c, d, k = f->k;
    uint32_t             first = f->end + index * GRAM_ROWS;
    uint32_t             end = first + GRAM_ROWS < k ? first + GRAM_ROWS : k;

    for (i = first; i < end; i++) {
        double *h = f->h + (size_t) i * k;

        for (c = f->at; c < f->end; c++) {
            double s = h[c];

            for (d = f->at; d < c; d++)
                s -= h[d] * f->h[(size_t) c * k + d];
            h[c] = s / f->h[(size_t) c * k + c];
            f->u[(size_t) c * k + i] = h[c];
        }
    }
}

static void
update(void *arg, uint32_t index)
{
    const struct factor *f = arg;
    uint32_t             i, j, c, k = f->k;
    uint32_t             first = f->end + index * GRAM_ROWS;
    uint32_t             end = first + GRAM_ROWS < k ? first + GRAM_ROWS : k;

    for (i = first; i < end; i++) {
        double *h = f->h + (size_t) i * k;

        for (c = f->at; c < f->end; c++) {
            const double *t = f->u + (size_t) c * k;
            double        a = h[c];

            for (j = f->end; j <= i; j++)
                h[j] -= a * t[j];
        }
    }
}

/* Columns of L^-1, from L in h, to u. */
static void
invert(void *arg, uint32_t index)
{
    const struct factor *f = arg;
    uint32_t             i, j, m, k = f->k, first = index * STRIP;
    uint32_t             end = first + STRIP < k ? first + STRIP : k;

    for (i = 0; i < k; i++) {
        const double *l = f->h + (size_t) i * k;
        double       *u = f->u + (size_t) i * k;

        for (j = first; j < end; j++)
            u[j] = i == j ? 1.0 : 0.0;
        for (m = first; m < i; m++) {
            const double *v = f->u + (size_t) m * k;
            double        a = l[m];

            for (j = first; j < end; j++)
                u[j] -= a * v[j];
        }
        for (j = first; j < end; j++)
            u[j] /= l[i];
    }
}

/* h turned by half a turn: its rows and columns in the opposite order. */
static void
turn_symmetric(double *h, uint32_t k)
{
    uint32_t i, j;

    for (i = 0; i < k; i++)
        for (j = 0; j <= i && i + j < k - 1; j++) {
            double *a = h + (size_t) i * k + j;
            double *b = h + (size_t) (k - 1 - j) * k + (k - 1 - i), t = *a;

            *a = *b;
            *b = t;
        }
}

moe_status
moe_gram_factor(struct moe_pool *pool, double damp, uint32_t k, double *h,
                double *u)
{
    struct factor f = { h, u, k, 0, 0 };
    double        mean = 0;
    uint64_t      n = (uint64_t) k * k, at;
    uint32_t      i, c, d;

    for (i = 0; i < k; i++)
        mean += h[(size_t) i * k + i];
    mean /= k;
    if (!isfinite(mean))
        return MOE_E_CORRUPT;
    for (i = 0; i < k; i++) /* the least keeps inputs that are always 0 in */
        h[(size_t) i * k + i] += damp * mean + 1e-30;

    /* h turned is L L'; so h is R R' with R upper, and R^-1 is wanted */
    turn_symmetric(h, k);
    for (f.at = 0; f.at < k; f.at = f.end) {
        f.end = f.at + BLOCK < k ? f.at + BLOCK : k;
        for (c = f.at; c < f.end; c++)
            for (i = c; i < f.end; i++) {
                double s = h[(size_t) i * k + c];

                for (d = f.at; d < c; d++)
                    s -= h[(size_t) i * k + d] * h[(size_t) c * k + d];
                if (i == c && !(s > 0))
                    return MOE_E_CORRUPT;
                h[(size_t) i * k + c] = i == c ? sqrt(s)
                                               : s / h[(size_t) c * k + c];
            }
        moe_pool_run(pool, (k - f.end + GRAM_ROWS - 1) / GRAM_ROWS, eliminate,
                     &f);
        moe_pool_run(pool, (k - f.end + GRAM_ROWS - 1) / GRAM_ROWS, update,
                     &f);
    }
    moe_pool_run(pool, (k + STRIP - 1) / STRIP, invert, &f);
    for (at = 0; at < n / 2; at++) {
        double t = u[at];

        u[at] = u[n - 1 - at];
        u[n - 1 - at] = t;
    }
    return MOE_OK;
}
