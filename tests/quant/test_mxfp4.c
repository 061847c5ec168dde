/* SPDX-License-Identifier: Apache-2.0 */
/* MXFP4: every code and scale, rounding at every edge, the choice of scales,
 * shapes, refusals. */

#include "quant_test.h"

static const struct moe_quantizer_ops *ops;
static const struct moe_format        *f;

static const double value[8] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 };

static double
code_value(uint32_t code)
{
    return code & 8 ? -value[code & 7] : value[code & 7];
}

static uint32_t
code_at(const struct qt_matrix *m, uint64_t r, uint64_t c)
{
    return qt_bytes(m, 0)[r * (m->t.k / 2) + c / 2] >> (c % 2 * 4) & 15;
}

/* Row b has scale b and all codes, twice. */
static void
test_codes(void)
{
    struct qt_matrix *m = qt_matrix(ops, f, 256, 32, 0);
    float            *w, x;
    uint32_t          b, c;
    int               same = 1;

    for (b = 0; b < 256; b++) {
        qt_bytes(m, 1)[b] = (unsigned char) b;
        for (c = 0; c < 16; c++)
            qt_bytes(m, 0)[b * 16 + c]
                = (unsigned char) ((2 * c & 15) | (2 * c + 1) % 16 << 4);
    }
    w = qt_decode(ops, f, m);
    for (b = 0; b < 255; b++)
        for (c = 0; c < 32; c++) {
            x = (float) ldexp(code_value(c % 16), (int) b - 127);
            same &= memcmp(&x, &w[b * 32 + c], sizeof(x)) == 0;
        }
    ok(same, "16 codes with 255 scales have their value, the first code low");
    ok(w[2] == 0x1p-127f, "scale 0 is 2^-127");
    for (same = 1, c = 0; c < 32; c++)
        same &= isnan(w[255 * 32 + c]) != 0;
    ok(same, "scale 255 is NaN, whatever the code");
    ok(qt_affine_agrees(ops, f, m), "the affine description says the same");
    ok(qt_ranges_agree(ops, f, m, 100, 56), "and so do ranges of rows");
    free(w);
    qt_free(m);
}

/* 6 and thirty times 0.5 want scale 1; what rounds is the number beside. */
static void
test_rounding(void)
{
    float            *x = malloc(20000 * 32 * sizeof(*x));
    uint32_t          n = 0, i, c, best;
    struct qt_matrix *m;
    int               same = 1, ones = 1;

    if (x == NULL)
        exit(1);
    for (c = 0; c < 8; c++) {
        float v = (float) value[c], half;

        x[32 * n++] = v;
        x[32 * n++] = -v;
        if (c == 7)
            break;
        half = (float) ((value[c] + value[c + 1]) / 2); /* a tie */
        x[32 * n++] = half;
        x[32 * n++] = -half;
        x[32 * n++] = nextafterf(half, INFINITY);
        x[32 * n++] = nextafterf(half, 0.0f);
        x[32 * n++] = -nextafterf(half, INFINITY);
    }
    while (n < 20000)
        x[32 * n++] = (float) (12.0 * qt_uniform() - 6.0);
    for (i = 0; i < n; i++)
        for (c = 1; c < 32; c++)
            x[32 * i + c] = c == 1 ? 6.0f : 0.5f;
    m = qt_encode(ops, f, n, 32, 0, x);
    is_int(m->status, MOE_OK, "encodes");
    for (i = 0; i < n; i++) {
        double a = fabs((double) x[32 * i]);

        for (best = 0, c = 1; c < 8; c++) {
            double d = fabs(value[c] - a), b = fabs(value[best] - a);

            if (d < b || (d == b && c % 2 == 0))
                best = c;
        }
        ones &= qt_bytes(m, 1)[i] == 127;
        if (code_at(m, i, 0) != (best | (signbit(x[32 * i]) ? 8u : 0u))) {
            if (same)
                tap_diag("%a became %u, not %u", (double) x[32 * i],
                         code_at(m, i, 0), best);
            same = 0;
        }
    }
    ok(ones, "scale 1 where it is the best");
    ok(same, "%u numbers round to the nearest, ties to even", n);
    qt_free(m);
    free(x);
}

/* Squared error of a group with scale 2^e, codes the nearest. */
static double
group_error(const float *x, const float *importance, int e)
{
    double   sum = 0.0, d, least;
    uint32_t i, c;

    for (i = 0; i < 32; i++) {
        for (least = INFINITY, c = 0; c < 16; c++) {
            d = (double) x[i] - ldexp(code_value(c), e);
            least = d * d < least ? d * d : least;
        }
        sum += least * (importance != NULL ? (double) importance[i] : 1.0);
    }
    return sum;
}

/* What is chosen is never worse than any scale at all, and better than the
 * specification's alone. */
static void
test_choice(double (*draw)(void), const char *what, double limit)
{
    uint64_t          n = 64, k = 1024, g = n * k / 32, i, j;
    float            *w = qt_weights(n, k, 0.02, draw), *d;
    float             importance[1024];
    struct qt_matrix *m = qt_encode(ops, f, n, k, 0, w);
    double            mine = 0, plain = 0, all = 0, sum = 0, amax, lost = 0;
    int               e;

    d = qt_decode(ops, f, m);
    for (i = 0; i < g; i++) {
        double least = INFINITY, here = 0;

        for (amax = 0, j = 0; j < 32; j++) {
            double x = (double) w[i * 32 + j];
            double y = x - (double) d[i * 32 + j];

            amax = fabs(x) > amax ? fabs(x) : amax;
            sum += x * x;
            here += y * y;
        }
        mine += here;
        e = ilogb(amax) - 2;
        plain += group_error(w + i * 32, NULL, e);
        for (e -= 3; e < ilogb(amax) + 2; e++)
            least = fmin(least, group_error(w + i * 32, NULL, e));
        lost = fmax(lost, here / least);
        all += least;
    }
    tap_diag("%s: relative error %.3f %%, by the specification's scales "
             "%.3f %%, by the best of all %.3f %%",
             what, 100 * sqrt(mine / sum), 100 * sqrt(plain / sum),
             100 * sqrt(all / sum));
    ok(mine < 0.97 * plain, "%s: better than the specification's scales",
       what);
    ok(lost < 1.0 + 1e-9, "%s: no scale is better for any group", what);
    ok(sqrt(mine / sum) < limit, "%s: error %.2f %%", what,
       100 * sqrt(mine / sum));

    for (j = 0; j < k; j++)
        importance[j] = j % 32 < 4 ? 100.0f : 1.0f;
    is_int(ops->encode(NULL, f, w, k, importance, &m->t, &m->err), MOE_OK,
           "%s: with importance", what);
    free(d);
    d = qt_decode(ops, f, m);
    for (mine = plain = 0, i = 0; i < n * k; i++) {
        double y = (double) w[i] - (double) d[i];

        mine += y * y * (double) importance[i % k];
    }
    for (i = 0; i < g; i++) {
        for (amax = 0, j = 0; j < 32; j++)
            amax = fmax(amax, fabs((double) w[i * 32 + j]));
        plain += group_error(w + i * 32, importance + i * 32 % k,
                             ilogb(amax) - 2);
    }
    ok(mine < 0.97 * plain, "%s: what is important counts more", what);
    free(w);
    free(d);
    qt_free(m);
}

static void
test_shapes(void)
{
    static const uint64_t shape[][2] = {
        { 1, 32 }, { 3, 64 }, { 7, 96 }, { 33, 160 }, { 130, 1024 },
    };
    uint32_t i;

    for (i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
        uint64_t          n = shape[i][0], k = shape[i][1];
        float            *w = qt_weights(n, k, 0.02, qt_heavy), *d, *e;
        struct qt_matrix *m = qt_encode(ops, f, n, k, 0, w), *m2;

        ok(m->status == MOE_OK
               && ops->check(NULL, f, &m->t, &m->err) == MOE_OK
               && m->n_planes == 2 && m->t.len[0] == n * k / 2
               && m->t.len[1] == n * k / 32 && m->plane[0].dim[1] == k / 2
               && m->plane[1].dim[0] == n && m->plane[1].dim[1] == k / 32,
           "%d x %d: encoded, and accepted", (int) n, (int) k);
        ok(qt_affine_agrees(ops, f, m) && qt_ranges_agree(ops, f, m, 0, n)
               && qt_ranges_agree(ops, f, m, n / 2, n - n / 2),
           "%d x %d: decoded", (int) n, (int) k);
        d = qt_decode(ops, f, m);
        m2 = qt_encode(ops, f, n, k, 0, d);
        e = qt_decode(ops, f, m2);
        ok(memcmp(d, e, n * k * sizeof(*d)) == 0,
           "%d x %d: what was decoded is encoded without loss", (int) n,
           (int) k);
        free(w);
        free(d);
        free(e);
        qt_free(m);
        qt_free(m2);
    }
}

/* Zeros, the least and the largest floats. */
static void
test_extremes(void)
{
    float             w[4 * 32] = { 0.0f };
    float            *d;
    struct qt_matrix *m;
    uint32_t          i;
    int               same = 1;

    for (i = 0; i < 32; i++) {
        w[32 + i] = i % 2 ? FLT_MAX : -FLT_MAX;
        w[64 + i] = 0x1p-149f * (float) i;
        w[96 + i] = i == 0 ? FLT_MAX : FLT_MIN;
    }
    m = qt_encode(ops, f, 4, 32, 0, w);
    is_int(m->status, MOE_OK, "zeros, the least and the largest: encoded");
    is_int(ops->check(NULL, f, &m->t, &m->err), MOE_OK, "and accepted");
    is_int(qt_bytes(m, 1)[0], 0, "zeros have the least scale");
    d = qt_decode(ops, f, m);
    for (i = 0; i < 32; i++)
        same &= d[i] == 0.0f && d[64 + i] == 0.0f
                && fabsf(d[32 + i]) == 0x1.8p127f
                && signbit(d[32 + i]) == signbit(w[32 + i]);
    ok(same, "zeros stay zeros, and the largest finite");
    free(d);
    qt_free(m);
}

static void
refused(struct qt_matrix *m, const char *thing, const char *what)
{
    m->err.text[0] = '\0';
    is_int(ops->check(NULL, f, &m->t, &m->err), MOE_E_CORRUPT, "%s", what);
    has_str(m->err.text, thing, "%s: named", what);
}

static void
test_refusals(void)
{
    float             w[4 * 64] = { 0.0f };
    struct qt_matrix *m = qt_encode(ops, f, 4, 64, 0, w), *no;
    static const struct {
        uint64_t    n, k;
        uint32_t    scale;
        const char *thing;
    } bad[] = {
        { 4, 48, 0, "multiple of 32" },
        { 4, 33, 0, "multiple of 32" },
        { 0, 32, 0, "empty" },
        { 4, 0, 0, "empty" },
        { UINT64_C(1) << 60, 64, 0, "too large" },
        { 4, 32, MOE_BF16, "E8M0" },
        { 4, 32, 77, "E8M0" },
    };
    uint32_t i;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        no = qt_matrix(ops, f, bad[i].n, bad[i].k, bad[i].scale);
        is_int(no->status, MOE_E_UNSUPPORTED, "refused: %s", bad[i].thing);
        has_str(no->err.text, bad[i].thing, "... and named");
        qt_free(no);
    }
    qt_bytes(m, 1)[5] = 255;
    refused(m, "row 2, group 1 is NaN", "a scale that is NaN");
    qt_bytes(m, 1)[5] = 253;
    refused(m, "row 2, group 1 is too large", "a scale that is too large");
    qt_bytes(m, 1)[5] = 252;
    is_int(ops->check(NULL, f, &m->t, &m->err), MOE_OK, "the largest scale");
    m->t.len[1]--;
    refused(m, "weight_scale", "a plane that is short");
    m->t.len[1]++;
    w[2 * 64 + 7] = INFINITY;
    is_int(ops->encode(NULL, f, w, 64, NULL, &m->t, &m->err), MOE_E_CORRUPT,
           "an infinity");
    has_str(m->err.text, "row 2, column 7 is infinite", "... is named");
    w[2 * 64 + 7] = NAN;
    is_int(ops->encode(NULL, f, w, 64, NULL, &m->t, &m->err), MOE_E_CORRUPT,
           "a NaN");
    has_str(m->err.text, "row 2, column 7 is NaN", "... is named");
    qt_free(m);
}

int
main(void)
{
    ops = qt_open("mxfp4");
    f = qt_format(ops, "mxfp4");
    is_int(f->bits_x1000, 4250, "4.25 bits a weight");
    test_codes();
    test_rounding();
    test_choice(qt_gauss, "Gaussian", 0.115);
    test_choice(qt_heavy, "heavy tails", 0.14);
    test_shapes();
    test_extremes();
    test_refusals();
    return tap_done();
}
