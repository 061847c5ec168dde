/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feedback.c - the rows of a matrix to a format, column by column.
 *
 * Scales and zero points are encode()'s; elements are rounded and put here,
 * by the format's affine description, because encode() would choose a scale
 * anew for every column.
 *
 * Rows have nothing to do with each other, so LANES of them go side by side.
 * A block of columns first takes what all columns before it did, as one
 * product, in f32 for PAST columns at a time, which are added up in f64; what
 * columns of the block do to each other is f64 throughout.
 */

#include <convert/dense.h>
#include <convert/feedback.h>

#include <support/half.h>

#include <math.h>
#include <string.h>

#define BLOCK 32u
#define PAST  128u
#define LANES MOE_TILE_NF

/* --------------------------------------------------------------- values -- */

/* A float of 1 sign, e exponent and m mantissa bits; NAN if it is none.
 * all: its largest exponent is of numbers, but for the last code (E4M3). */
static float
small_float(uint32_t code, uint32_t e, uint32_t m, uint32_t all)
{
    uint32_t mant = code & ((1u << m) - 1), expo = code >> m & ((1u << e) - 1);
    uint32_t top = (1u << e) - 1, bias = top / 2;
    float    v;

    if (e > 2 && expo == top && (!all || mant == (1u << m) - 1))
        return NAN;
    v = expo == 0 ? ldexpf((float) mant, 1 - (int) (bias + m))
                  : ldexpf((float) (mant + (1u << m)),
                           (int) expo - (int) (bias + m));
    return code >> (e + m) & 1 ? -v : v;
}

static float
element(const struct moe_affine *a, uint32_t code)
{
    switch (a->elem) {
    case MOE_ELEM_UINT:
        return (float) code;
    case MOE_ELEM_INT:
        return code >> (a->elem_bits - 1) == 0
                   ? (float) code
                   : (float) code - (float) (1u << a->elem_bits);
    case MOE_ELEM_E4M3:
        return small_float(code, 4, 3, 1);
    case MOE_ELEM_E5M2:
        return small_float(code, 5, 2, 0);
    case MOE_ELEM_E2M1:
        return small_float(code, 2, 1, 1);
    case MOE_ELEM_LUT:
        return a->lut[code & 15];
    default:
        return NAN;
    }
}

static float
scale_at(const struct moe_affine *a, const uint8_t *p)
{
    uint16_t h;
    float    f;

    switch (a->scale) {
    case MOE_SCALE_F32:
        memcpy(&f, p, 4);
        return f;
    case MOE_SCALE_F16:
        memcpy(&h, p, 2);
        return moe_f16_f32(h);
    case MOE_SCALE_BF16:
        memcpy(&h, p, 2);
        return moe_bf16_f32(h);
    case MOE_SCALE_E8M0:
        return ldexpf(1.0f, (int) *p - 127);
    default:
        return 1.0f;
    }
}

static uint32_t
scale_size(const struct moe_affine *a)
{
    return a->scale == MOE_SCALE_F32 ? 4
           : a->scale == MOE_SCALE_F16 || a->scale == MOE_SCALE_BF16 ? 2
           : a->scale == MOE_SCALE_E8M0 ? 1 : 0;
}

static uint32_t
bits_get(const uint8_t *p, uint64_t bit, uint32_t n)
{
    uint32_t v = p[bit / 8], shift = (uint32_t) (bit % 8);

    if (shift + n > 8)
        v |= (uint32_t) p[bit / 8 + 1] << 8;
    return v >> shift & ((1u << n) - 1);
}

/* Into bits that are 0. */
static void
bits_put(uint8_t *p, uint64_t bit, uint32_t n, uint32_t v)
{
    uint32_t shift = (uint32_t) (bit % 8);

    p[bit / 8] |= (uint8_t) (v << shift);
    if (shift + n > 8)
        p[bit / 8 + 1] |= (uint8_t) (v << shift >> 8);
}

static moe_status
affine_of(const struct moe_feedback *f, uint64_t rows, uint64_t k,
          struct moe_affine *out)
{
    memset(out, 0, sizeof(*out));
    out->struct_size = sizeof(*out);
    return f->to.ops->affine(f->to.self, f->to.format, rows, k,
                             f->scale_dtype, out);
}

int
moe_feedback_open(const struct moe_format_ref *to, uint64_t k,
                  uint32_t scale_dtype, struct moe_feedback *out)
{
    struct moe_feedback f;
    uint32_t            code, i;

    memset(&f, 0, sizeof(f));
    f.to = *to;
    f.scale_dtype = scale_dtype;
    f.k = k;
    if (!MOE_HAS(to->ops, moe_quantizer_ops, encode)
        || to->ops->affine == NULL || to->ops->encode == NULL
        || affine_of(&f, 1, k, &f.affine) != MOE_OK
        || f.affine.elem_bits == 0 || f.affine.elem_bits > 8
        || f.affine.zero_bits > 8 || f.affine.group_k == 0
        || f.affine.group_n == 0 || f.affine.block_k == 0
        || (f.affine.zero_bits != 0 && f.affine.zero_block_n == 0))
        return 0;
    f.group = f.affine.group_k < k ? f.affine.group_k : k;
    if (f.group < k && f.group % MOE_TILE_M != 0)
        return 0;
    for (code = 0; code < 1u << f.affine.elem_bits; code++) {
        float v = element(&f.affine, code);

        if (!isfinite(v))
            continue;
        for (i = f.n_values; i > 0 && f.value[i - 1] > v; i--) {
            f.value[i] = f.value[i - 1];
            f.code[i] = f.code[i - 1];
        }
        if (i > 0 && f.value[i - 1] == v) { /* the lower code stays: +0 */
            memmove(f.value + i, f.value + i + 1,
                    (f.n_values - i) * sizeof(f.value[0]));
            memmove(f.code + i, f.code + i + 1, f.n_values - i);
            continue;
        }
        f.value[i] = v;
        f.code[i] = (uint8_t) code;
        f.n_values++;
    }
    f.whole = f.n_values >= 2;
    for (i = 1; i < f.n_values; i++)
        f.whole &= f.value[i] == f.value[i - 1] + 1
                   && (f.code[i] + f.code[i - 1]) % 2 == 1;
    f.whole &= f.value[0] == floorf(f.value[0])
               && (f.code[0] % 2 == 0) == (fmodf(f.value[0], 2) == 0);
    for (i = f.n_values; i < 256; i++)
        f.value[i] = INFINITY;
    *out = f;
    return f.n_values >= 2;
}

/* The value nearest to x; of two as near, the one with the even code. */
static inline uint32_t
nearest(const struct moe_feedback *f, double x)
{
    const float *v = f->value;
    uint32_t     lo = 0, step;

    for (step = 128; step > 0; step /= 2)
        lo += v[lo + step] <= x ? step : 0;
    if (lo + 1 >= f->n_values)
        return lo;
    if (x - v[lo] == v[lo + 1] - x)
        return f->code[lo] % 2 == 0 ? lo : lo + 1;
    return x - v[lo] < v[lo + 1] - x ? lo : lo + 1;
}

/* -------------------------------------------------------------- columns -- */

/* Rows on their way, LANES together: those of set s have column c at
 * (s * k + c) * LANES. */
struct rows {
    const double *u;     /* (k, k) */
    const float  *tiles; /* of it */
    uint64_t      k, sets;
    double       *w; /* what is left to be rounded */
    float        *e; /* what was lost by columns done, over u_cc */
    float        *scale;    /* of the group, (sets, LANES) */
    double       *div, *off; /* the same as what to divide by; zero point */
    uint8_t       code[BLOCK][LANES];
};

/* Columns [at, end), at a multiple of MOE_TILE_M, take what [from, to) did. */
static void
take_past(const struct rows *y, uint64_t from, uint64_t to, uint64_t at,
          uint64_t end)
{
    float    t[MOE_TILE_M * LANES];
    uint64_t p, n, s, j, i, c, k = y->k;

    for (p = from; p < to; p += n) {
        n = to - p < PAST ? to - p : PAST;
        for (s = 0; s < y->sets; s++)
            for (j = at; j < end; j += MOE_TILE_M) {
                double *w = y->w + (s * k + j) * LANES;

                memset(t, 0, sizeof(t));
                moe_tile_f32(n, y->tiles + (j / MOE_TILE_M * k + p)
                                               * MOE_TILE_M,
                             y->e + (s * k + p) * LANES, t, LANES);
                c = end - j < MOE_TILE_M ? end - j : MOE_TILE_M;
                for (i = 0; i < c * LANES; i++)
                    w[i] += t[i];
            }
    }
}

/* What each lane's element of a column becomes, and its code. */
MOE_BODY void
round_lanes(const struct moe_feedback *f, const double *w, const double *div,
            const double *off, const float *scale, double *q, uint8_t *code)
{
    const double half = 6755399441055744.0; /* 1.5 * 2^52: no fraction fits */
    double       x[LANES], lo = f->value[0], hi = f->value[f->n_values - 1];
    uint32_t     l, i;

    for (l = 0; l < LANES; l++)
        x[l] = w[l] / div[l] + off[l];
    if (f->whole) {
        for (l = 0; l < LANES; l++) {
            x[l] = x[l] < lo ? lo : x[l];
            x[l] = x[l] > hi ? hi : x[l];
            x[l] = x[l] + half - half;
        }
        for (l = 0; l < LANES; l++)
            code[l] = f->code[(int) (x[l] - lo)];
    } else {
        for (l = 0; l < LANES; l++) {
            i = nearest(f, x[l]);
            x[l] = f->value[i];
            code[l] = f->code[i];
        }
    }
    for (l = 0; l < LANES; l++)
        q[l] = scale[l] * (float) (x[l] - off[l]);
}

/* Columns [at, end) of a set to elements, or, f NULL, as they are lost
 * altogether; returns the sum of squares of e. */
MOE_BODY double
round_block(const struct moe_feedback *f, struct rows *y, uint64_t s,
            uint64_t at, uint64_t end)
{
    double   e[LANES], q[LANES] = { 0 }, sum[LANES] = { 0 }, all = 0;
    uint64_t c, j, k = y->k;
    uint32_t l;

    for (c = at; c < end; c++) {
        const double *u = y->u + c * k;
        double       *w = y->w + (s * k + c) * LANES, p = u[c];
        float        *to = y->e + (s * k + c) * LANES;

        if (f != NULL)
            round_lanes(f, w, y->div + s * LANES, y->off + s * LANES,
                        y->scale + s * LANES, q, y->code[c - at]);
        for (l = 0; l < LANES; l++) {
            e[l] = (w[l] - q[l]) / p;
            sum[l] += e[l] * e[l];
        }
        for (l = 0; l < LANES; l++)
            to[l] = (float) e[l];
        for (j = c + 1; j < end; j++) {
            double *next = y->w + (s * k + j) * LANES, a = u[j];

            for (l = 0; l < LANES; l++)
                next[l] -= e[l] * a;
        }
    }
    for (l = 0; l < LANES; l++)
        all += sum[l];
    return all;
}

MOE_WIDE static double
round_block_wide(const struct moe_feedback *f, struct rows *y, uint64_t s,
                 uint64_t at, uint64_t end)
{
    return round_block(f, y, s, at, end);
}

static double
round_any(const struct moe_feedback *f, struct rows *y, uint64_t s,
          uint64_t at, uint64_t end)
{
    return MOE_HAS_WIDE() ? round_block_wide(f, y, s, at, end)
                          : round_block(f, y, s, at, end);
}

/* -------------------------------------------------------------- scratch -- */

/* Where its parts begin, in bytes. */
struct scratch {
    uint64_t         w, e, scale, div, off;
    uint64_t         x, importance, sub[MOE_PLANES_MAX], total;
    struct moe_plane planes[MOE_PLANES_MAX]; /* of (rows, group) */
    uint32_t         n_planes;
};

static int
lay_out(const struct moe_feedback *f, uint64_t rows, uint64_t group,
        struct scratch *s)
{
    uint64_t lanes = (rows + LANES - 1) / LANES * LANES;
    uint32_t i;

    memset(s, 0, sizeof(*s));
    for (i = 0; i < MOE_PLANES_MAX; i++)
        s->planes[i].struct_size = sizeof(s->planes[i]);
    if (f->to.ops->planes(f->to.self, f->to.format, rows, group,
                          f->scale_dtype, s->planes, &s->n_planes, NULL)
            != MOE_OK
        || s->n_planes > MOE_PLANES_MAX)
        return 0;
    s->e = s->w + lanes * f->k * sizeof(double);
    s->scale = s->e + lanes * f->k * sizeof(float);
    s->div = s->scale + lanes * sizeof(float);
    s->off = s->div + lanes * sizeof(double);
    s->x = s->off + lanes * sizeof(double);
    s->importance = s->x + rows * group * sizeof(float);
    s->total = s->importance + group * sizeof(float);
    for (i = 0; i < s->n_planes; i++) {
        s->total = (s->total + 63) / 64 * 64;
        s->sub[i] = s->total;
        s->total += s->planes[i].bytes;
    }
    s->total = (s->total + 63) / 64 * 64;
    return 1;
}

uint64_t
moe_feedback_scratch(const struct moe_feedback *f, uint64_t rows)
{
    struct scratch s;

    return lay_out(f, rows, f->group, &s) ? s.total : 0;
}

/* Scales and zero points of columns [at, at + n) as encode() has them for
 * what they hold now, to dst; the planes of that stay in the scratch. */
static moe_status
choose_scales(const struct moe_feedback *f, const struct rows *y,
              uint64_t rows, uint64_t at, uint64_t n, uint8_t *scratch,
              const struct moe_affine *full, const struct moe_tensor *dst,
              struct scratch *s, struct moe_affine *part,
              struct moe_error *err)
{
    const double     *u = y->u;
    struct moe_tensor t;
    float            *x, *importance;
    uint64_t          r, j, g = at / f->group;
    uint32_t          size = scale_size(full), i;
    double            most = 0;
    moe_status        st;

    if (!lay_out(f, rows, n, s))
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "plugin %s: %s has no groups of %llu columns",
                        f->to.plugin, f->to.format->id,
                        (unsigned long long) n);
    st = affine_of(f, rows, n, part);
    if (st != MOE_OK)
        return moe_fail(err, st, 0, "plugin %s: affine() of %s failed",
                        f->to.plugin, f->to.format->id);
    x = (float *) (void *) (scratch + s->x);
    importance = (float *) (void *) (scratch + s->importance);
    for (r = 0; r < rows; r++)
        for (j = 0; j < n; j++)
            x[r * n + j] = (float) y->w[(r / LANES * f->k + at + j) * LANES
                                        + r % LANES];
    /* an error in column c costs 1 / u_cc^2 once the others have done what
     * they can */
    for (j = 0; j < n; j++) {
        double c = u[(at + j) * (f->k + 1)];

        most = fmax(most, 1 / (c * c));
    }
    for (j = 0; j < n; j++) {
        double c = u[(at + j) * (f->k + 1)];

        importance[j] = (float) (1 / (c * c) / most);
    }
    memset(&t, 0, sizeof(t));
    t.struct_size = sizeof(t);
    t.scale_dtype = f->scale_dtype;
    t.n = rows;
    t.k = n;
    for (i = 0; i < s->n_planes; i++) {
        t.plane[i] = scratch + s->sub[i];
        t.len[i] = s->planes[i].bytes;
    }
    st = f->to.ops->encode(f->to.self, f->to.format, x, n, importance, &t,
                           err);
    for (r = 0; r < rows && st == MOE_OK; r += full->group_n) {
        uint64_t row = r / full->group_n;
        uint8_t *to = (uint8_t *) (uintptr_t) dst->plane[MOE_PLANE_SCALE];

        if (size != 0)
            memcpy(to + row * full->scale_row + g * full->scale_group,
                   scratch + s->sub[MOE_PLANE_SCALE] + row * part->scale_row,
                   size);
        if (full->zero_bits != 0) {
            uint64_t block = row / full->zero_block_n;
            uint64_t bit = row % full->zero_block_n * full->zero_bits;

            to = (uint8_t *) (uintptr_t) dst->plane[MOE_PLANE_ZERO];
            bits_put(to + block * full->zero_row + g * full->zero_group, bit,
                     full->zero_bits,
                     bits_get(scratch + s->sub[MOE_PLANE_ZERO]
                                  + block * part->zero_row,
                              bit, full->zero_bits));
        }
    }
    return st;
}

/* What a group's columns are divided by, for each lane. */
static void
set_lanes(struct rows *y, uint64_t rows, const uint8_t *mem,
          const struct scratch *s, const struct moe_affine *full,
          const struct moe_affine *part)
{
    uint64_t r, row;

    for (r = 0; r < y->sets * LANES; r++) {
        double off = full->bias;
        float  scale = 0; /* of lanes without a row */

        row = r / full->group_n;
        if (r < rows) {
            scale = scale_at(full, mem + s->sub[MOE_PLANE_SCALE]
                                       + row * part->scale_row);
            if (full->zero_bits != 0)
                off += (double) bits_get(mem + s->sub[MOE_PLANE_ZERO]
                                             + row / full->zero_block_n
                                                   * part->zero_row,
                                         row % full->zero_block_n
                                             * full->zero_bits,
                                         full->zero_bits)
                       - full->zero_bias;
        }
        y->scale[r] = scale;
        y->div[r] = scale != 0 ? scale : (double) INFINITY;
        y->off[r] = off;
    }
}

/* The codes of a set's columns [at, end) into the elements, which are 0. */
static void
put_codes(const struct rows *y, uint64_t rows, uint64_t s, uint64_t at,
          uint64_t end, const struct moe_affine *full, uint8_t *elements)
{
    uint64_t c, r, n = rows - s * LANES < LANES ? rows - s * LANES : LANES;
    uint8_t *to = elements + s * LANES * full->elem_row;

    for (c = at; c < end; c++) {
        uint64_t byte = c / full->block_k * full->elem_block;
        uint64_t bit = c % full->block_k * full->elem_bits;

        for (r = 0; r < n; r++)
            bits_put(to + r * full->elem_row + byte, bit, full->elem_bits,
                     y->code[c - at][r]);
    }
}

static void
set_rows(const struct moe_feedback *f, const struct moe_factor *u,
         const float *x,
         const float *less, uint64_t rows, uint8_t *mem,
         const struct scratch *s, struct rows *y)
{
    uint64_t c, r, k = f->k;

    y->u = u->u;
    y->tiles = u->tiles;
    y->k = k;
    y->sets = (rows + LANES - 1) / LANES;
    y->w = (double *) (void *) (mem + s->w);
    y->e = (float *) (void *) (mem + s->e);
    y->scale = (float *) (void *) (mem + s->scale);
    y->div = (double *) (void *) (mem + s->div);
    y->off = (double *) (void *) (mem + s->off);
    if (rows % LANES != 0)
        memset(y->w + (y->sets - 1) * k * LANES, 0,
               k * LANES * sizeof(*y->w));
    for (r = 0; r < rows; r++) {
        double *to = y->w + r / LANES * k * LANES + r % LANES;

        for (c = 0; c < k; c++)
            to[c * LANES] = (double) x[r * k + c]
                            - (less != NULL ? less[r * k + c] : 0);
    }
}

double
moe_feedback_error(const struct moe_feedback *f,
                   const struct moe_factor *u, const float *x, const float *q,
                   uint64_t rows, void *scratch)
{
    struct scratch s;
    struct rows    y;
    double         sum = 0;
    uint64_t       at, end, i;

    /* H = u^-1 u'^-1: the squares of z with z u = x - q */
    if (!lay_out(f, rows, f->group, &s))
        return NAN;
    set_rows(f, u, x, q, rows, scratch, &s, &y);
    for (at = 0; at < f->k; at = end) {
        end = at + BLOCK < f->k ? at + BLOCK : f->k;
        take_past(&y, 0, at, at, end);
        for (i = 0; i < y.sets; i++)
            sum += round_any(NULL, &y, i, at, end);
    }
    return sum;
}

moe_status
moe_feedback_encode(const struct moe_feedback *f,
                    const struct moe_factor *u, const float *x,
                    uint64_t rows, void *scratch,
                    const struct moe_tensor *dst, double *error,
                    struct moe_error *err)
{
    struct moe_affine full, part;
    struct scratch    s;
    struct rows       y;
    uint8_t          *mem = scratch;
    uint8_t *elements = (uint8_t *) (uintptr_t) dst->plane[MOE_PLANE_ELEM];
    double            sum = 0;
    uint64_t          at, end, first = 0, group_end = 0, i;
    moe_status        st;

    st = affine_of(f, rows, f->k, &full);
    if (st != MOE_OK || !lay_out(f, rows, f->group, &s))
        return moe_fail(err, st != MOE_OK ? st : MOE_E_UNSUPPORTED, 0,
                        "plugin %s: affine() of %s failed", f->to.plugin,
                        f->to.format->id);
    memset(elements, 0, dst->len[MOE_PLANE_ELEM]);
    if (full.zero_bits != 0)
        memset((void *) (uintptr_t) dst->plane[MOE_PLANE_ZERO], 0,
               dst->len[MOE_PLANE_ZERO]);
    set_rows(f, u, x, NULL, rows, mem, &s, &y);
    for (at = 0; at < f->k; at = end) {
        if (at == group_end) {
            first = at;
            group_end = at + f->group < f->k ? at + f->group : f->k;
            for (; at < group_end; at += BLOCK)
                take_past(&y, 0, first, at,
                          at + BLOCK < group_end ? at + BLOCK : group_end);
            at = first;
            st = choose_scales(f, &y, rows, at, group_end - at, mem, &full,
                               dst, &s, &part, err);
            if (st != MOE_OK)
                return st;
            set_lanes(&y, rows, mem, &s, &full, &part);
        }
        end = at + BLOCK < group_end ? at + BLOCK : group_end;
        take_past(&y, first, at, at, end);
        for (i = 0; i < y.sets; i++) {
            sum += round_any(f, &y, i, at, end);
            put_codes(&y, rows, i, at, end, &full, elements);
        }
    }
    *error = sum;
    return MOE_OK;
}
