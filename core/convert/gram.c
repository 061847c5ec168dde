/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gram.c - second moments of inputs, and the factor that rounding wants.
 *
 * All in f64: a sum over a hundred thousand rows, and an inverse.  Work is
 * dealt out by blocks of the result and every element's sum has one order
 * (dense.h), so threads change no bit.
 */

#include <convert/dense.h>
#include <convert/feedback.h>

#include <math.h>
#include <string.h>

#define ROWS  64u  /* of a result, a task */
#define COLS  256u /* of the same: both stay in the cache for all steps */
#define BLOCK 64u  /* rows that are eliminated together */
#define STRIP 32u  /* columns that a task solves for */
#define FEW   8u   /* rows of those that are solved for one by one */

struct gram {
    const float *x; /* (rows, k) */
    uint64_t     rows, ld;
    uint32_t     k;
    double      *h; /* (k, k) */
};

/* Block `index` of those that meet the lower triangle of (k, k), row by row:
 * its first row and column. */
static void
block_of(uint32_t index, uint32_t *row, uint32_t *col)
{
    for (*row = 0;; *row += ROWS) {
        uint32_t n = (*row + ROWS + COLS - 1) / COLS;

        if (index < n)
            break;
        index -= n;
    }
    *col = index * COLS;
}

static uint32_t
count_blocks(uint32_t k)
{
    uint32_t row, n = 0;

    for (row = 0; row < k; row += ROWS)
        n += (row + ROWS + COLS - 1) / COLS;
    return n;
}

static void
gram_block(void *arg, uint32_t index)
{
    const struct gram *g = arg;
    uint32_t           row, col, k = g->k;

    block_of(index, &row, &col);
    if (col < k)
        moe_dense_gram(g->rows, g->x, g->ld, row,
                       row + ROWS < k ? row + ROWS : k, col,
                       col + COLS < k ? col + COLS : k, g->h, k);
}

void
moe_gram_add(struct moe_pool *pool, const float *x, uint64_t rows,
             uint64_t ld, uint32_t k, double *h)
{
    struct gram g = { x, rows, ld, k, h };

    moe_pool_run(pool, count_blocks(k), gram_block, &g);
}

/* --------------------------------------------------------------- factor -- */

/*
 * H turned by half a turn, its rows and columns in the opposite order, which
 * for memory is to be read backwards, is R' R with R upper.  The inverse of H
 * is then u' u for R'^-1 turned.
 */
struct factor {
    double  *h, *u; /* (k, k): H turned, then R; R'^-1 */
    uint32_t k, at, end; /* rows under elimination: [at, end) */
};

/* Rows [at, end) of x, n columns, R' y = x: row by row, what rows from `at`
 * on give to later ones. */
static void
solve(const double *r, uint64_t k, uint64_t at, uint64_t end, double *x,
      uint64_t n)
{
    uint64_t from, to, c, d, j;

    for (from = at; from < end; from = to) {
        to = from + FEW < end ? from + FEW : end;
        moe_dense_less(from - at, r + at * k + from, k, to - from, x + at * k,
                       k, n, x + from * k, k);
        for (c = from; c < to; c++) {
            double *y = x + c * k, p = r[c * (k + 1)];

            for (d = from; d < c; d++)
                for (j = 0; j < n; j++)
                    y[j] -= r[d * k + c] * x[d * k + j];
            for (j = 0; j < n; j++)
                y[j] /= p;
        }
    }
}

/* Columns behind the block: its rows of R. */
static void
eliminate(void *arg, uint32_t index)
{
    const struct factor *f = arg;
    uint32_t             from = f->end + index * STRIP;
    uint32_t             n = f->k - from < STRIP ? f->k - from : STRIP;

    solve(f->h, f->k, f->at, f->end, f->h + from, n);
}

/* What the block's rows of R take from the rest. */
static void
update(void *arg, uint32_t index)
{
    const struct factor *f = arg;
    uint32_t             k = f->k, row, col, m, n;
    const double        *r = f->h + (size_t) f->at * k;

    block_of(index, &col, &row); /* the upper triangle */
    row += f->end;
    col += f->end;
    if (row >= k)
        return;
    m = k - row < COLS ? k - row : COLS;
    n = k - col < ROWS ? k - col : ROWS;
    moe_dense_less(f->end - f->at, r + row, k, m, r + col, k, n,
                   f->h + (size_t) row * k + col, k);
}

/* Columns of R'^-1. */
static void
invert(void *arg, uint32_t index)
{
    const struct factor *f = arg;
    uint64_t             k = f->k, first = index * ROWS, at, end, i, n;

    n = k - first < ROWS ? k - first : ROWS;
    for (i = 0; i < k; i++)
        memset(f->u + i * k + first, 0, n * sizeof(*f->u));
    for (i = first; i < first + n; i++)
        f->u[i * (k + 1)] = 1;
    for (at = first; at < k; at = end) {
        end = at + BLOCK < k ? at + BLOCK : k;
        moe_dense_less(at - first, f->h + first * k + at, k, end - at,
                       f->u + first * k + first, k, n,
                       f->u + at * k + first, k);
        solve(f->h, k, at, end, f->u + first, n);
    }
}

/* The elements in the opposite order. */
static void
turn(double *h, uint64_t n)
{
    uint64_t at;

    for (at = 0; at < n / 2; at++) {
        double t = h[at];

        h[at] = h[n - 1 - at];
        h[n - 1 - at] = t;
    }
}

/* Columns of u to the memory of h, as the products of feedback.c want them. */
static void
lay_tiles(void *arg, uint32_t index)
{
    const struct factor *f = arg;
    uint64_t             k = f->k, first = (uint64_t) index * BLOCK, i, c;
    uint64_t             end = first + BLOCK < k ? first + BLOCK : k;
    float               *to = (float *) (void *) f->h;

    for (i = 0; i < end; i++)
        for (c = first; c < (end + MOE_TILE_M - 1) / MOE_TILE_M * MOE_TILE_M;
             c++)
            to[(c / MOE_TILE_M * k + i) * MOE_TILE_M + c % MOE_TILE_M]
                = c < k ? (float) -f->u[i * k + c] : 0;
}

moe_status
moe_gram_factor(struct moe_pool *pool, double damp, uint32_t k, double *h,
                double *u, struct moe_factor *out)
{
    struct factor f = { h, u, k, 0, 0 };
    double        mean = 0;
    uint64_t      n = (uint64_t) k * k;
    uint32_t      i, c, d, left;

    for (i = 0; i < k; i++)
        mean += h[(size_t) i * k + i];
    mean /= k;
    if (!isfinite(mean))
        return MOE_E_CORRUPT;
    for (i = 0; i < k; i++) /* the least keeps inputs that are always 0 in */
        h[(size_t) i * k + i] += damp * mean + 1e-30;

    turn(h, n);
    for (f.at = 0; f.at < k; f.at = f.end) {
        f.end = f.at + BLOCK < k ? f.at + BLOCK : k;
        left = k - f.end;
        for (c = f.at; c < f.end; c++) {
            double *row = h + (size_t) c * k;

            for (d = f.at; d < c; d++)
                for (i = c; i < f.end; i++)
                    row[i] -= h[(size_t) d * k + c] * h[(size_t) d * k + i];
            if (!(row[c] > 0))
                return MOE_E_CORRUPT;
            row[c] = sqrt(row[c]);
            for (i = c + 1; i < f.end; i++)
                row[i] /= row[c];
        }
        moe_pool_run(pool, (left + STRIP - 1) / STRIP, eliminate, &f);
        moe_pool_run(pool, count_blocks(left), update, &f);
    }
    moe_pool_run(pool, (k + ROWS - 1) / ROWS, invert, &f);
    turn(u, n);
    moe_pool_run(pool, (k + BLOCK - 1) / BLOCK, lay_tiles, &f);
    out->u = u;
    out->tiles = (const float *) (const void *) h;
    return MOE_OK;
}
