/* SPDX-License-Identifier: Apache-2.0 */
/* 4-bit integers: the packing, word by word; the error that the search
 * promises; odd shapes; refusals. */

#include "quant_test.h"

/* Every code and every zero point against the definition, from words put
 * together here: low bits first, along k for codes and along n for zeros. */
static void
test_packing(const struct moe_quantizer_ops *ops)
{
    uint32_t i, j, r, c;

    for (j = 0; j < ops->n_formats; j++) {
        const struct moe_format *f = ops->formats[j];
        uint32_t                 g = f->scheme.group_size, n = 19, k = 2 * g;
        struct qt_matrix        *m = qt_matrix(ops, f, n, k, MOE_F32);
        float                   *w, s, want;
        uint32_t                 word, zero;
        int                      same = 1;

        is_int(m->n_planes, f->scheme.symmetric ? 2 : 3, "%s: planes", f->id);
        is_str(m->plane[0].suffix, "weight_packed", "  codes");
        is_int(m->plane[0].dim[1], k / 8, "  eight to a word");
        is_str(m->plane[1].suffix, "weight_scale", "  scales");
        is_int(m->plane[1].dim[1], 2, "  one a group");
        if (!f->scheme.symmetric) {
            is_str(m->plane[2].suffix, "weight_zero_point", "  zero points");
            is_int(m->plane[2].dim[0], 3, "  eight rows to a word");
            is_int(m->plane[2].dim[1], 2, "  one a group");
        }
        for (r = 0; r < n; r++)
            for (c = 0; c < k; c += 8) {
                for (word = 0, i = 0; i < 8; i++)
                    word |= ((c + i + r) % 16) << (4 * i);
                memcpy(qt_bytes(m, 0) + 4 * (r * (k / 8) + c / 8), &word, 4);
            }
        for (r = 0; r < n; r++)
            for (c = 0; c < 2; c++) {
                s = 0.25f + (float) (2 * r + c);
                memcpy(qt_bytes(m, 1) + 4 * (2 * r + c), &s, 4);
            }
        for (r = 0; r < 3 && !f->scheme.symmetric; r++)
            for (c = 0; c < 2; c++) {
                for (word = 0, i = 0; i < 8; i++)
                    word |= ((r * 8 + i + 5 * c) % 16) << (4 * i);
                memcpy(qt_bytes(m, 2) + 4 * (2 * r + c), &word, 4);
            }
        w = qt_decode(ops, f, m);
        for (r = 0; r < n; r++)
            for (c = 0; c < k; c++) {
                zero = f->scheme.symmetric ? 8 : (r + 5 * (c / g)) % 16;
                want = (0.25f + (float) (2 * r + c / g))
                       * ((float) ((c + r) % 16) - (float) zero);
                same &= w[r * k + c] == want;
            }
        ok(same, "%s: all codes and zero points where they belong", f->id);
        ok(qt_affine_agrees(ops, f, m), "%s: the description agrees", f->id);
        is_int(ops->check(NULL, f, &m->t, &m->err), MOE_OK, "%s: accepted",
               f->id);
        free(w);
        qt_free(m);
    }
}

static void
test_shapes(const struct moe_quantizer_ops *ops)
{
    static const uint64_t rows[] = { 1, 3, 7, 8, 9, 16, 21 };
    static const uint32_t scales[] = { MOE_F32, MOE_F16, MOE_BF16 };
    uint32_t              i, j, s, b;

    for (j = 0; j < ops->n_formats; j++) {
        const struct moe_format *f = ops->formats[j];
        int affine = 1, range = 1, again = 1, accepted = 1, positive = 1;
        int twice = 1, padding = 1;

        for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
            for (s = 0; s < 3; s++) {
                uint64_t  n = rows[i], k = f->scheme.group_size * (1 + i % 3);
                float    *w = qt_weights(n, k, 0.02, qt_heavy), *d;
                uint64_t  c, groups = k / f->scheme.group_size;
                struct qt_matrix *m, *m2;

                if (i == 2) /* one sign only: the zero point is at an end */
                    for (c = 0; c < n * k; c++)
                        w[c] = fabsf(w[c]) + 0.01f;
                m = qt_encode(ops, f, n, k, scales[s], w);
                m2 = qt_encode(ops, f, n, k, scales[s], w);
                accepted &= m->status == MOE_OK
                            && ops->check(NULL, f, &m->t, &m->err) == MOE_OK;
                twice &= qt_same_planes(m, m2, 0, 3);
                qt_free(m2);
                affine &= qt_affine_agrees(ops, f, m);
                range &= qt_ranges_agree(ops, f, m, 0, n);
                range &= qt_ranges_agree(ops, f, m, n / 2, n - n / 2);
                for (b = 0; b < n * groups && !f->scheme.symmetric; b++)
                    positive &= qt_bytes(m, 1)[(b + 1)
                                                   * moe_dtype_size(scales[s])
                                               - 1]
                                < 0x80;
                for (b = (uint32_t) (n % 8); b != 0 && b < 8
                     && !f->scheme.symmetric; b++)
                    padding &= affine_bits(qt_bytes(m, 2)
                                               + m->t.len[2] - 4,
                                           4 * b, 4)
                               == 0;
                d = qt_decode(ops, f, m);
                m2 = qt_encode(ops, f, n, k, scales[s], d);
                again &= qt_same_planes(m, m2, 0, 1)
                         && qt_same_planes(m, m2, 2, 3);
                free(w);
                w = qt_decode(ops, f, m2);
                again &= qt_error(w, d, n * k) < 1e-6;
                free(w);
                free(d);
                qt_free(m);
                qt_free(m2);
            }
        ok(accepted, "%s: encodes 1 to 21 rows, and accepts them", f->id);
        ok(twice, "%s: twice the same bytes", f->id);
        ok(affine, "%s: the affine description is decode()", f->id);
        ok(range, "%s: ranges of rows are the whole's", f->id);
        ok(positive, "%s: scales with zero points are positive", f->id);
        ok(padding, "%s: zero points of rows that are not there are 0", f->id);
        ok(again, "%s: encoding what was decoded gives the same codes", f->id);
    }
}

/* Rounding to nearest with the scale that observers take: max / 7.5, or the
 * range / 15 and the nearest zero point. */
static double
plain_error(const struct moe_format *f, const float *w, uint64_t count)
{
    uint64_t g = f->scheme.group_size, i, j;
    double   d = 0.0, total = 0.0, s, z, q, lo, hi;

    for (i = 0; i < count; i += g) {
        for (lo = hi = 0.0, j = i; j < i + g; j++) {
            lo = (double) w[j] < lo ? (double) w[j] : lo;
            hi = (double) w[j] > hi ? (double) w[j] : hi;
        }
        if (f->scheme.symmetric) {
            s = (hi > -lo ? hi : -lo) / 7.5;
            z = 8.0;
        } else {
            s = (hi - lo) / 15.0;
            z = rint(-lo / s);
        }
        for (j = i; j < i + g; j++) {
            q = rint((double) w[j] / s) + z;
            q = q < 0.0 ? 0.0 : q > 15.0 ? 15.0 : q;
            d += ((double) w[j] - s * (q - z)) * ((double) w[j] - s * (q - z));
            total += (double) w[j] * (double) w[j];
        }
    }
    return sqrt(d / total);
}

/* Q4_0 of llama.cpp: groups of 32, scale = the extreme / -8, of either sign. */
static double
q4_0_error(const float *w, uint64_t count)
{
    uint64_t i, j;
    double   d = 0.0, total = 0.0, s, q;

    for (i = 0; i < count; i += 32) {
        for (s = 0.0, j = i; j < i + 32; j++)
            if (fabs((double) w[j]) > fabs(s))
                s = (double) w[j];
        s /= -8.0;
        for (j = i; j < i + 32; j++) {
            q = rint((double) w[j] / s);
            q = q < -8.0 ? -8.0 : q > 7.0 ? 7.0 : q;
            d += ((double) w[j] - s * q) * ((double) w[j] - s * q);
            total += (double) w[j] * (double) w[j];
        }
    }
    return sqrt(d / total);
}

static void
test_error(const struct moe_quantizer_ops *ops)
{
    /* percent, Gaussian and Student t (4): what the search reaches, and a
     * little room for the draw */
    static const struct {
        const char *id;
        double      gauss, heavy;
    } bound[] = {
        { "int4-g32", 8.15, 11.3 },   { "int4-g64", 9.05, 13.7 },
        { "int4-g128", 9.75, 16.3 },  { "int4-g32z", 7.75, 9.6 },
        { "int4-g64z", 8.75, 11.9 },  { "int4-g128z", 9.6, 14.3 },
    };
    uint64_t n = 256, k = 1024;
    float   *gauss = qt_weights(n, k, 0.02, qt_gauss), *d;
    float   *heavy = qt_weights(n, k, 0.02, qt_heavy);
    uint32_t i, h;

    tap_diag("Q4_0: Gaussian %.2f %%, heavy tails %.2f %%",
             100.0 * q4_0_error(gauss, n * k),
             100.0 * q4_0_error(heavy, n * k));
    for (i = 0; i < 6; i++)
        for (h = 0; h < 2; h++) {
            const struct moe_format *f = qt_format(ops, bound[i].id);
            const float             *w = h ? heavy : gauss;
            struct qt_matrix        *m = qt_encode(ops, f, n, k, MOE_BF16, w);
            double                   e, plain = plain_error(f, w, n * k);

            d = qt_decode(ops, f, m);
            e = qt_error(d, w, n * k);
            ok(100.0 * e < (h ? bound[i].heavy : bound[i].gauss),
               "%s, %s: error %.2f %%", f->id, h ? "heavy tails" : "Gaussian",
               100.0 * e);
            ok(e < 0.97 * plain, "  against %.2f %% by plain rounding",
               100.0 * plain);
            if (!h && i == 0)
                ok(e <= 0.96 * q4_0_error(w, n * k), "  and better than Q4_0");
            free(d);
            qt_free(m);
        }
    free(gauss);
    free(heavy);
}

/* Without a zero point the codes reach further down than up; the scale's sign
 * puts that to use for groups whose largest weight is positive. */
static void
test_mirror(const struct moe_quantizer_ops *ops)
{
    uint64_t n = 32, k = 512, i;
    float   *w = qt_weights(n, k, 0.02, qt_heavy), *m, *d0, *d1;
    uint32_t j;

    m = qt_weights(n, k, 0.02, qt_heavy);
    for (i = 0; i < n * k; i++)
        m[i] = -w[i];
    for (j = 0; j < ops->n_formats; j++) {
        const struct moe_format *f = ops->formats[j];
        struct qt_matrix        *a, *b;
        int                      same = 1;

        if (!f->scheme.symmetric)
            continue;
        a = qt_encode(ops, f, n, k, MOE_BF16, w);
        b = qt_encode(ops, f, n, k, MOE_BF16, m);
        d0 = qt_decode(ops, f, a);
        d1 = qt_decode(ops, f, b);
        for (i = 0; i < n * k; i++)
            same &= d0[i] == -d1[i];
        ok(same, "%s: what is mirrored decodes mirrored", f->id);
        ok(ops->check(NULL, f, &a->t, &a->err) == MOE_OK
               && ops->check(NULL, f, &b->t, &b->err) == MOE_OK,
           "%s: and is accepted", f->id);
        free(d0);
        free(d1);
        qt_free(a);
        qt_free(b);
    }
    free(w);
    free(m);
}

static double
weighted_error(const float *a, const float *b, const float *importance,
               uint64_t n, uint64_t k)
{
    double   d = 0.0;
    uint64_t i;

    for (i = 0; i < n * k; i++)
        d += (double) importance[i % k] * ((double) a[i] - (double) b[i])
             * ((double) a[i] - (double) b[i]);
    return d;
}

static void
test_importance(const struct moe_quantizer_ops *ops)
{
    uint64_t n = 64, k = 512, i;
    float   *w = qt_weights(n, k, 0.02, qt_gauss), imp[512], *d0, *d1;
    uint32_t j;

    for (i = 0; i < k; i++)
        imp[i] = (float) exp(3.0 * qt_gauss());
    for (i = 128; i < 256; i++)
        imp[i] = 0.0f; /* a whole group that nobody looks at */
    for (j = 0; j < ops->n_formats; j++) {
        const struct moe_format *f = ops->formats[j];
        struct qt_matrix        *m0 = qt_encode(ops, f, n, k, MOE_BF16, w);
        struct qt_matrix        *m1 = qt_matrix(ops, f, n, k, MOE_BF16);
        double                   e0, e1;

        is_int(ops->encode(NULL, f, w, k, imp, &m1->t, &m1->err), MOE_OK,
               "%s: encodes with importance", f->id);
        d0 = qt_decode(ops, f, m0);
        d1 = qt_decode(ops, f, m1);
        e0 = weighted_error(d0, w, imp, n, k);
        e1 = weighted_error(d1, w, imp, n, k);
        ok(e1 < 0.9 * e0, "  and the error that matters falls to %.0f %%",
           100.0 * e1 / e0);
        for (i = 0; i < n * k; i++)
            if (i % k >= 128 && i % k < 256 && d0[i] != d1[i])
                break;
        ok(i == n * k, "  and a group without importance is as without it");
        imp[3] = -1.0f;
        is_int(ops->encode(NULL, f, w, k, imp, &m1->t, &m1->err), MOE_E_INVAL,
               "  a negative one is refused");
        has_str(m1->err.text, "column 3", "  by its column");
        imp[3] = 1.0f;
        free(d0);
        free(d1);
        qt_free(m0);
        qt_free(m1);
    }
    free(w);
}

static void
test_extremes(const struct moe_quantizer_ops *ops)
{
    static const uint32_t scales[] = { MOE_F32, MOE_F16, MOE_BF16 };
    static const float    size[] = { 0.0f,    1e-45f, 1e-38f, 1e-30f, 1e-7f,
                                     1e-4f,   1.0f,   1e4f,   1e30f,  FLT_MAX };
    float    w[128], *d;
    uint32_t i, j, s, t;

    for (j = 0; j < ops->n_formats; j++) {
        const struct moe_format *f = ops->formats[j];
        uint32_t                 g = f->scheme.group_size;
        int fine = 1, zeros = 1, near = 1, refused = 1;

        for (s = 0; s < 3; s++)
            for (t = 0; t < sizeof(size) / sizeof(size[0]); t++) {
                struct qt_matrix *m;

                for (i = 0; i < g; i++)
                    w[i] = (float) ((int) (i * 7 % 16) - 8) / 8.0f * size[t];
                m = qt_encode(ops, f, 1, g, scales[s], w);
                if (scales[s] == MOE_F16 && size[t] > 1e6f) {
                    refused &= m->status == MOE_E_UNSUPPORTED
                               && strstr(m->err.text, "choose BF16") != NULL;
                    qt_free(m);
                    continue;
                }
                fine &= m->status == MOE_OK
                        && ops->check(NULL, f, &m->t, &m->err) == MOE_OK;
                d = qt_decode(ops, f, m);
                for (i = 0; i < g; i++) {
                    fine &= isfinite(d[i]) != 0;
                    zeros &= size[t] != 0.0f || d[i] == 0.0f;
                }
                /* within reach of the scale's type, the steps are exact */
                if (size[t] >= (scales[s] == MOE_F16 ? 1e-4f : 1e-30f)
                    && size[t] <= 1e30f)
                    near &= qt_error(d, w, g) < 0.01;
                free(d);
                qt_free(m);
            }
        ok(fine, "%s: weights of 0 to FLT_MAX stay numbers", f->id);
        ok(zeros, "%s: zeros stay zeros", f->id);
        ok(near, "%s: sixteen even steps are met at every size", f->id);
        ok(refused, "%s: too large for an F16 scale is said", f->id);
    }
}

static void
test_refusals(const struct moe_quantizer_ops *ops)
{
    const struct moe_format *f = qt_format(ops, "int4-g64");
    const struct moe_format *z = qt_format(ops, "int4-g32z");
    float                   *w = qt_weights(9, 128, 0.02, qt_gauss), s;
    struct qt_matrix        *m = qt_encode(ops, f, 9, 128, MOE_F32, w), *b;
    static const struct {
        float       s;
        moe_status  status;
        const char *text;
    } scale[] = {
        { NAN, MOE_E_CORRUPT, "row 8, group 1 is NaN" },
        { -INFINITY, MOE_E_CORRUPT, "row 8, group 1 is infinite" },
        { 0.0f, MOE_E_CORRUPT, "row 8, group 1 is 0" },
        { 0x1p126f, MOE_E_CORRUPT, "row 8, group 1 is too large" },
        { -0.01f, MOE_OK, "" }, /* legal arithmetic */
    };
    uint32_t i;

    for (i = 0; i < sizeof(scale) / sizeof(scale[0]); i++) {
        s = scale[i].s;
        memcpy(qt_bytes(m, 1) + 4 * 17, &s, 4);
        m->err.text[0] = '\0';
        is_int(ops->check(NULL, f, &m->t, &m->err), scale[i].status,
               "a scale of %g", (double) s);
        has_str(m->err.text, scale[i].text, "  is named");
    }
    ok(qt_affine_agrees(ops, f, m), "and a negative one decodes as described");
    m->t.len[0] -= 4;
    is_int(ops->check(NULL, f, &m->t, &m->err), MOE_E_CORRUPT,
           "a truncated plane is refused");
    has_str(m->err.text, "weight_packed of a 9 x 128 matrix must have 576 "
                         "bytes, found 572",
            "  by its size");
    qt_free(m);

    m = qt_encode(ops, z, 9, 128, MOE_BF16, w);
    is_int(m->t.len[2], 2 * 4 * 4, "nine rows have two rows of zero points");
    m->t.len[2] /= 2;
    is_int(ops->check(NULL, z, &m->t, &m->err), MOE_E_CORRUPT,
           "half of the zero points are refused");
    has_str(m->err.text, "weight_zero_point", "  by name");
    qt_free(m);

    b = qt_matrix(ops, f, 8, 96, MOE_F32);
    is_int(b->status, MOE_E_UNSUPPORTED, "96 is no multiple of 64");
    has_str(b->err.text, "multiple of 64; 96 is none", "  and is told so");
    qt_free(b);
    b = qt_matrix(ops, f, 8, 128, 0);
    is_int(b->status, MOE_E_UNSUPPORTED, "scales of no type are refused");
    qt_free(b);
    b = qt_matrix(ops, f, UINT64_C(1) << 60, 128, MOE_F32);
    is_int(b->status, MOE_E_UNSUPPORTED, "a size that wraps is refused");
    has_str(b->err.text, "too large", "  as too large");
    qt_free(b);
    w[128 * 8 + 127] = INFINITY;
    b = qt_encode(ops, z, 9, 128, MOE_BF16, w);
    is_int(b->status, MOE_E_CORRUPT, "an infinity is not encoded");
    has_str(b->err.text, "row 8, column 127 is infinite", "  and is named");
    qt_free(b);
    free(w);
}

int
main(void)
{
    const struct moe_quantizer_ops *ops = qt_open("int4");

    is_int(ops->n_formats, 6, "six formats");
    test_packing(ops);
    test_shapes(ops);
    test_error(ops);
    test_mirror(ops);
    test_importance(ops);
    test_extremes(ops);
    test_refusals(ops);
    return tap_done();
}
