/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feedback.c - the rows of a matrix to a format, column by column.
 *
 * Scales and zero points are encode()'s; elements are rounded and put here,
 * by the format's affine description, because encode() would choose a scale
 * anew for every column.
 */

#include <convert/feedback.h>

#include <support/half.h>

#include <math.h>
#include <string.h>

#define BLOCK 32u  /* columns whose errors go on to the rest together */
#define SPAN  256u /* columns of that rest at a time: u stays in the cache */

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
    *out = f;
    return f.n_values >= 2;
}

/* The value nearest to x; of two as near, the one with the even code. */
static uint32_t
nearest(const struct moe_feedback *f, double x)
{
    uint32_t lo = 0, hi = f->n_values - 1;

    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;

        if (f->value[mid] <= x)
            lo = mid;
        else
            hi = mid;
    }
    if (x - f->value[lo] == f->value[hi] - x)
        return f->code[lo] % 2 == 0 ? lo : hi;
    return x - f->value[lo] < f->value[hi] - x ? lo : hi;
}

/* -------------------------------------------------------------- columns -- */

/* The rest of each row takes what columns [at, end) did: w[c] -= e u. */
static void
pass_on(const double *u, uint64_t k, const double *e, uint64_t rows,
        uint64_t at, uint64_t end, uint64_t from, uint64_t to, double *w)
{
    uint64_t s, r, c, j;

    for (s = from; s < to; s += SPAN) {
        uint64_t stop = s + SPAN < to ? s + SPAN : to;

        for (r = 0; r < rows; r++) {
            double *x = w + r * k;

            for (c = at; c < end; c++) {
                const double *v = u + c * k;
                double        a = e[r * BLOCK + (c - at)];

                for (j = s; j < stop; j++)
                    x[j] -= a * v[j];
            }
        }
    }
}

double
moe_feedback_error(const double *u, double *d, uint64_t rows, uint64_t k)
{
    double   sum = 0;
    uint64_t r, c, j;

    /* H = u^-1 u'^-1: the squares of z with z u = d */
    for (r = 0; r < rows; r++) {
        double *x = d + r * k;

        for (c = 0; c < k; c++) {
            const double *v = u + c * k;
            double        z = x[c] / v[c];

            for (j = c + 1; j < k; j++)
                x[j] -= z * v[j];
            sum += z * z;
        }
    }
    return sum;
}

/* Where the parts of the scratch begin, in bytes. */
struct scratch {
    uint64_t          x, importance, error, sub[MOE_PLANES_MAX], total;
    struct moe_plane  planes[MOE_PLANES_MAX]; /* of (rows, group) */
    uint32_t          n_planes;
};

static int
lay_out(const struct moe_feedback *f, uint64_t rows, uint64_t group,
        struct scratch *s)
{
    uint32_t i;

    memset(s, 0, sizeof(*s));
    for (i = 0; i < MOE_PLANES_MAX; i++)
        s->planes[i].struct_size = sizeof(s->planes[i]);
    if (f->to.ops->planes(f->to.self, f->to.format, rows, group,
                          f->scale_dtype, s->planes, &s->n_planes, NULL)
            != MOE_OK
        || s->n_planes > MOE_PLANES_MAX)
        return 0;
    s->x = rows * BLOCK * sizeof(double);
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
choose_scales(const struct moe_feedback *f, const double *u, const double *w,
              uint64_t rows, uint64_t at, uint64_t n, uint8_t *scratch,
              const struct moe_affine *full, const struct moe_tensor *dst,
              struct scratch *s, struct moe_affine *part,
              struct moe_error *err)
{
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
            x[r * n + j] = (float) w[r * f->k + at + j];
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

/* A row's columns [at, end) to elements; e: what was lost, over u_cc. */
static double
round_row(const struct moe_feedback *f, const double *u, double *w,
          uint64_t at, uint64_t end, float scale, double off, uint8_t *to,
          const struct moe_affine *full, double *e)
{
    double   sum = 0;
    uint64_t c, j;

    for (c = at; c < end; c++) {
        const double *v = u + c * f->k;
        uint32_t      i = nearest(f, scale != 0 ? w[c] / scale + off : off);
        float         q = scale * (float) (f->value[i] - off);

        bits_put(to + c / full->block_k * full->elem_block,
                 c % full->block_k * full->elem_bits, full->elem_bits,
                 f->code[i]);
        e[c - at] = (w[c] - q) / v[c];
        sum += e[c - at] * e[c - at];
        for (j = c + 1; j < end; j++)
            w[j] -= e[c - at] * v[j];
    }
    return sum;
}

moe_status
moe_feedback_encode(const struct moe_feedback *f, const double *u, double *w,
                    uint64_t rows, void *scratch,
                    const struct moe_tensor *dst, double *error,
                    struct moe_error *err)
{
    struct moe_affine full, part;
    struct scratch    s;
    uint8_t          *mem = scratch;
    double           *e = scratch, sum = 0;
    uint64_t          at, end, group_end = 0, r;
    moe_status        st;

    st = affine_of(f, rows, f->k, &full);
    if (st != MOE_OK)
        return moe_fail(err, st, 0, "plugin %s: affine() of %s failed",
                        f->to.plugin, f->to.format->id);
    memset((void *) (uintptr_t) dst->plane[MOE_PLANE_ELEM], 0,
           dst->len[MOE_PLANE_ELEM]);
    if (full.zero_bits != 0)
        memset((void *) (uintptr_t) dst->plane[MOE_PLANE_ZERO], 0,
               dst->len[MOE_PLANE_ZERO]);
    for (at = 0; at < f->k; at = end) {
        if (at == group_end) {
            group_end = at + f->group < f->k ? at + f->group : f->k;
            st = choose_scales(f, u, w, rows, at, group_end - at, mem, &full,
                               dst, &s, &part, err);
            if (st != MOE_OK)
                return st;
        }
        end = at + BLOCK < group_end ? at + BLOCK : group_end;
        for (r = 0; r < rows; r++) {
            const uint8_t *p = mem + s.sub[MOE_PLANE_SCALE];
            uint64_t       row = r / full.group_n;
            double         off = full.bias;

            if (full.zero_bits != 0)
                off += (double) bits_get(mem + s.sub[MOE_PLANE_ZERO]
                                             + row / full.zero_block_n
                                                   * part.zero_row,
                                         row % full.zero_block_n
                                             * full.zero_bits,
                                         full.zero_bits)
                       - full.zero_bias;
            sum += round_row(f, u, w + r * f->k, at, end,
                             scale_at(&full, p + row * part.scale_row), off,
                             (uint8_t *) (uintptr_t)
                                     dst->plane[MOE_PLANE_ELEM]
                                 + r * full.elem_row,
                             &full, e + r * BLOCK);
        }
        pass_on(u, f->k, e, rows, at, end, end, f->k, w);
    }
    *error = sum;
    return MOE_OK;
}
