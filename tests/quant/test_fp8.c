/* SPDX-License-Identifier: Apache-2.0 */
/* 8-bit floats: every code, rounding at every edge, scales, odd shapes,
 * refusals. */

#include "quant_test.h"

struct kind {
    const char *id;
    int         exp, man, bias, ieee, nan;
    double      largest;
    uint32_t    finite; /* magnitudes below this are numbers */
};

static const struct kind kinds[] = {
    { "fp8-e4m3", 4, 3, 7, 0, 1, 448.0, 0x7f },
    { "fp8-e5m2", 5, 2, 15, 1, 0, 57344.0, 0x7c },
};

static double
value_of(const struct kind *k, uint32_t code)
{
    return affine_small(code, k->exp, k->man, k->bias, k->ieee, k->nan);
}

static void
test_codes(const struct moe_quantizer_ops *ops, const struct kind *k)
{
    const struct moe_format *f = qt_format(ops, k->id);
    struct qt_matrix        *m = qt_matrix(ops, f, 2, 128, MOE_F32);
    float                   *w, one = 1.0f, x;
    int                      same = 1, finite = 0;
    uint32_t                 i;

    for (i = 0; i < 256; i++)
        qt_bytes(m, 0)[i] = (unsigned char) i;
    memcpy(qt_bytes(m, 1), &one, 4);
    w = qt_decode(ops, f, m);
    for (i = 0; i < 256; i++) {
        x = (float) value_of(k, i);
        same &= isnan(x) ? isnan(w[i]) : memcmp(&x, &w[i], 4) == 0;
        finite += isfinite(w[i]) != 0;
    }
    ok(same, "%s: all 256 codes have their value", k->id);
    is_int(finite, 2 * (int) k->finite, "%s: as many numbers as there are",
           k->id);
    ok((double) w[k->finite - 1] == k->largest, "%s: up to %g", k->id,
       k->largest);
    free(w);
    qt_free(m);
}

/* With the largest number in it a matrix has scale 1: what encode() does is
 * then rounding alone. */
static void
test_rounding(const struct moe_quantizer_ops *ops, const struct kind *k)
{
    const struct moe_format *f = qt_format(ops, k->id);
    uint32_t                 count = 0, i, lo, hi, mid, n = 200000;
    float                   *x = malloc((n + 2000) * sizeof(*x)), scale;
    struct qt_matrix        *m;
    int                      same = 1;
    double                   a, d0, d1;

    if (x == NULL)
        exit(1);
    for (i = 0; i < k->finite; i++) {
        float  v = (float) value_of(k, i);
        float  half = (float) ((value_of(k, i) + value_of(k, i + 1)) / 2);

        x[count++] = v;
        x[count++] = -v;
        if (i + 1 == k->finite)
            break;
        x[count++] = half; /* a tie */
        x[count++] = -half;
        x[count++] = nextafterf(half, INFINITY);
        x[count++] = nextafterf(half, 0.0f);
        x[count++] = -nextafterf(half, INFINITY);
    }
    while (count < n) {
        float v = (float) (qt_gauss() * exp(qt_gauss() * 3.0));

        if (fabs((double) v) <= k->largest)
            x[count++] = v;
    }
    m = qt_encode(ops, f, 1, count, MOE_F32, x);
    is_int(m->status, MOE_OK, "%s: encodes", k->id);
    memcpy(&scale, qt_bytes(m, 1), 4);
    ok(scale == 1.0f, "%s: the largest number asks for scale 1", k->id);
    for (i = 0; i < count; i++) {
        uint32_t code = qt_bytes(m, 0)[i];

        a = fabs((double) x[i]);
        for (lo = 0, hi = k->finite - 1; hi - lo > 1;) {
            mid = (lo + hi) / 2;
            if (value_of(k, mid) <= a)
                lo = mid;
            else
                hi = mid;
        }
        d0 = a - value_of(k, lo);
        d1 = value_of(k, hi) - a;
        if (d1 < d0 || (d1 == d0 && hi % 2 == 0))
            lo = hi;
        if (code != (lo | (signbit(x[i]) ? 0x80u : 0u))) {
            if (same)
                tap_diag("%a became 0x%02x, not 0x%02x", (double) x[i], code,
                         lo);
            same = 0;
        }
    }
    ok(same, "%s: %u numbers round to the nearest, ties to even", k->id, count);
    qt_free(m);
    free(x);
}

static void
test_shapes(const struct moe_quantizer_ops *ops)
{
    static const uint64_t shape[][2] = {
        { 1, 1 },     { 1, 257 },   { 7, 130 },   { 128, 128 },
        { 129, 127 }, { 200, 300 }, { 256, 384 },
    };
    static const uint32_t scales[] = { MOE_F32, MOE_F16, MOE_BF16 };
    uint32_t              i, j, s;

    for (j = 0; j < ops->n_formats; j++) {
        const struct moe_format *f = ops->formats[j];
        int      e5 = strstr(f->id, "e5m2") != NULL;
        double   worst = 0.0;
        int      affine = 1, range = 1, again = 1, accepted = 1, planes = 1;

        for (i = 0; i < sizeof(shape) / sizeof(shape[0]); i++)
            for (s = 0; s < 3; s++) {
                uint64_t          n = shape[i][0], k = shape[i][1];
                float            *w = qt_weights(n, k, 0.02, qt_heavy), *d;
                struct qt_matrix *m = qt_encode(ops, f, n, k, scales[s], w);
                struct qt_matrix *m2;
                int block = strcmp(f->scheme.strategy, "block") == 0;
                int channel = strcmp(f->scheme.strategy, "channel") == 0;

                accepted &= m->status == MOE_OK
                            && ops->check(NULL, f, &m->t, &m->err) == MOE_OK;
                planes &= m->n_planes == 2 && m->plane[0].n_dims == 2
                          && m->plane[0].dim[0] == n
                          && m->plane[0].dim[1] == k;
                planes &= m->plane[1].n_dims == (block || channel ? 2u : 1u);
                planes &= m->plane[1].dim[0]
                          == (block ? (n + 127) / 128 : channel ? n : 1);
                planes &= m->plane[1].n_dims == 1
                          || m->plane[1].dim[1]
                                 == (block ? (k + 127) / 128 : 1);
                affine &= qt_affine_agrees(ops, f, m);
                range &= qt_ranges_agree(ops, f, m, 0, n);
                range &= qt_ranges_agree(ops, f, m, n / 2, n - n / 2);
                d = qt_decode(ops, f, m);
                m2 = qt_encode(ops, f, n, k, scales[s], d);
                again &= qt_same_planes(m, m2, 0, 1);
                if (n * k > 1000 && qt_error(d, w, n * k) > worst)
                    worst = qt_error(d, w, n * k);
                free(w);
                free(d);
                qt_free(m);
                qt_free(m2);
            }
        ok(planes, "%s: planes have the shapes of compressed-tensors", f->id);
        ok(accepted, "%s: encodes odd shapes, and accepts them", f->id);
        ok(affine, "%s: the affine description is decode()", f->id);
        ok(range, "%s: ranges of rows are the whole's", f->id);
        ok(again, "%s: encoding what was decoded gives the same codes", f->id);
        /* a uniform spread over a binade: 2.6 %, 5.2 % */
        ok(worst < (e5 ? 0.056 : 0.029), "%s: relative error %.2f %%", f->id,
           100.0 * worst);
    }
}

static void
test_scales(const struct moe_quantizer_ops *ops)
{
    const struct moe_format *f = qt_format(ops, "fp8-e4m3-channel");
    const struct moe_format *fb = qt_format(ops, "fp8-e5m2-block");
    struct qt_matrix        *m;
    float                    w[3 * 2], s, *d;
    uint16_t                 h;
    uint32_t                 t;
    static const uint32_t    scales[] = { MOE_F32, MOE_F16, MOE_BF16 };
    static const float       eps[] = { 0x1p-23f, 0x1p-10f, 0x1p-7f };

    for (t = 0; t < 3; t++) {
        uint32_t bytes = moe_dtype_size(scales[t]);

        memset(w, 0, sizeof(w));
        w[2] = 1e-30f;
        w[3] = -1e-33f;
        w[4] = 448.0f;
        w[5] = -3.0f;
        m = qt_encode(ops, f, 3, 2, scales[t], w);
        is_int(m->status, MOE_OK, "zeros, tiny and plain rows encode");
        is_int(ops->check(NULL, f, &m->t, &m->err), MOE_OK,
               "  and are accepted");
        d = qt_decode(ops, f, m);
        ok(d[0] == 0.0f && d[1] == 0.0f && d[4] == 448.0f && d[5] == -3.0f,
           "  and decode");
        ok(scales[t] == MOE_F16 || fabsf(d[2] - 1e-30f) < 1e-31f,
           "  tiny ones as well where the scale's type allows");
        if (scales[t] == MOE_F32) {
            memcpy(&s, qt_bytes(m, 1), 4);
            ok(s == eps[t], "  a row of zeros has the type's epsilon");
        } else {
            memcpy(&h, qt_bytes(m, 1), 2);
            is_int(h, scales[t] == MOE_F16 ? 0x1400 : 0x3c00,
                   "  a row of zeros has the type's epsilon");
            memcpy(&h, qt_bytes(m, 1) + bytes, 2);
            ok(scales[t] == MOE_BF16 || h == 0x0400,
               "  a tiny row has the least normal scale");
        }
        free(d);
        qt_free(m);
    }
    w[0] = FLT_MAX;
    w[1] = -FLT_MAX;
    for (t = 0; t < 3; t++) {
        m = qt_encode(ops, f, 3, 2, scales[t], w);
        if (scales[t] == MOE_F16) {
            is_int(m->status, MOE_E_UNSUPPORTED,
                   "what no F16 scale can reach is refused");
            has_str(m->err.text, "choose BF16 or F32", "  with the remedy");
        } else {
            is_int(ops->check(NULL, f, &m->t, &m->err), MOE_OK,
                   "the largest floats encode");
            d = qt_decode(ops, f, m);
            ok(isfinite(d[0]) && isfinite(d[1]) && d[0] > 0.8f * FLT_MAX,
               "  and stay finite");
            free(d);
        }
        qt_free(m);
        m = qt_encode(ops, fb, 3, 2, scales[t], w);
        if (m->status == MOE_OK) {
            d = qt_decode(ops, fb, m);
            ok(isfinite(d[0]) && isfinite(d[1]), "  as E5M2 too");
            free(d);
        }
        qt_free(m);
    }
}

static void
put_f32(struct qt_matrix *m, uint64_t i, float s)
{
    memcpy(qt_bytes(m, 1) + 4 * i, &s, 4);
}

static void
test_refusals(const struct moe_quantizer_ops *ops)
{
    static const struct {
        float       s;
        const char *what;
    } bad[] = { { NAN, "NaN" },           { INFINITY, "infinite" },
                { 0.0f, "0" },            { -0.0f, "0" },
                { -0.01f, "negative" },   { 0x1p127f, "too large" },
                { -INFINITY, "infinite" } };
    const struct moe_format *f = qt_format(ops, "fp8-e4m3-block");
    const struct moe_format *f5 = qt_format(ops, "fp8-e5m2");
    float                   *w = qt_weights(200, 300, 0.02, qt_gauss);
    struct qt_matrix        *m = qt_encode(ops, f, 200, 300, MOE_F32, w);
    struct qt_matrix        *m5 = qt_encode(ops, f5, 200, 300, MOE_BF16, w);
    char                     text[64];
    uint32_t                 i, code;
    int                      all = 1;

    is_int(m->t.len[1], 2 * 3 * 4, "six scales for 200 x 300");
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put_f32(m, 5, bad[i].s);
        is_int(ops->check(NULL, f, &m->t, &m->err), MOE_E_CORRUPT,
               "a scale of %g is refused", (double) bad[i].s);
        snprintf(text, sizeof(text), "row 1, column 2 is %s", bad[i].what);
        has_str(m->err.text, text, "  by place and fault");
    }
    put_f32(m, 5, 1.0f);
    is_int(ops->check(NULL, f, &m->t, &m->err), MOE_OK, "and 1 accepted");
    for (code = 0; code < 256; code++) {
        int fine = (code & 0x7f) != 0x7f;

        qt_bytes(m, 0)[199 * 300 + 299] = (unsigned char) code;
        all &= ops->check(NULL, f, &m->t, &m->err)
               == (fine ? MOE_OK : MOE_E_CORRUPT);
        if (code == 0xff)
            has_str(m->err.text, "row 199, column 299 is NaN (code 0xff)",
                    "a NaN is named");
        fine = (code & 0x7f) < 0x7c;
        qt_bytes(m5, 0)[16] = (unsigned char) code;
        all &= ops->check(NULL, f5, &m5->t, &m5->err)
               == (fine ? MOE_OK : MOE_E_CORRUPT);
        if (code == 0x7c)
            has_str(m5->err.text, "row 0, column 16 is infinite (code 0x7c)",
                    "an infinity is named");
    }
    ok(all, "codes that are no numbers are refused, all others accepted");
    m5->t.len[1]++;
    is_int(ops->check(NULL, f5, &m5->t, &m5->err), MOE_E_CORRUPT,
           "a long plane is refused");
    has_str(m5->err.text, "weight_scale of a 200 x 300 matrix must have 2 "
                          "bytes, found 3",
            "  by its size");
    m5->t.len[1]--;
    m5->t.scale_dtype = MOE_U8;
    is_int(ops->check(NULL, f5, &m5->t, &m5->err), MOE_E_UNSUPPORTED,
           "an unknown type of scale is refused");
    qt_free(m);
    qt_free(m5);
    m = qt_matrix(ops, f, UINT64_MAX, UINT64_MAX, MOE_F32);
    is_int(m->status, MOE_E_UNSUPPORTED, "a size that wraps is refused");
    qt_free(m);
    m = qt_matrix(ops, qt_format(ops, "fp8-e4m3-channel"),
                  UINT64_C(1) << 62, 1, MOE_F32);
    is_int(m->status, MOE_E_UNSUPPORTED, "scales that wrap are refused");
    qt_free(m);
    w[300 * 3 + 17] = NAN;
    m = qt_encode(ops, f, 200, 300, MOE_F32, w);
    is_int(m->status, MOE_E_CORRUPT, "a NaN is not encoded");
    has_str(m->err.text, "row 3, column 17 is NaN", "  and is named");
    qt_free(m);
    free(w);
}

int
main(void)
{
    const struct moe_quantizer_ops *ops = qt_open("fp8");
    uint32_t                        i;

    is_int(ops->n_formats, 6, "six formats");
    for (i = 0; i < 2; i++) {
        test_codes(ops, &kinds[i]);
        test_rounding(ops, &kinds[i]);
    }
    test_shapes(ops);
    test_scales(ops);
    test_refusals(ops);
    return tap_done();
}
