/* SPDX-License-Identifier: Apache-2.0 */
/* The universal formats: every code of f16 and bf16 both ways, rounding at
 * the edges, refusals. */

#include "common/half.h"
#include "core/support/half.h"
#include "quant_test.h"

/* Nearest code by search among all codes of a format, ties to even: what
 * rounding must give, found another way. */
static uint16_t
nearest(double x, const double *value, uint32_t n_codes)
{
    uint32_t lo = 0, hi = n_codes - 1, mid; /* value[] rises, from 0 */
    double   a = fabs(x), d0, d1;

    while (hi - lo > 1) {
        mid = (lo + hi) / 2;
        if (value[mid] <= a)
            lo = mid;
        else
            hi = mid;
    }
    d0 = a - value[lo];
    d1 = value[hi] - a;
    return (uint16_t) (d1 < d0 || (d1 == d0 && hi % 2 == 0) ? hi : lo);
}

static void
test_half(void)
{
    static double f16[0x7c01], bf16[0x7f81];
    uint32_t      i;
    int           widen16 = 1, widenb = 1, back16 = 1, backb = 1, core = 1;
    int           round16 = 1, roundb = 1;

    for (i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t) i;
        float    f = moe_f16_widen(h), b = moe_bf16_widen(h);
        double   want = affine_small(i, 5, 10, 15, 1, 0);
        double   wantb = affine_small(i, 8, 7, 127, 1, 0);

        if (isnan(want)) {
            widen16 &= isnan(f);
            back16 &= (moe_f16_round(f) & 0x7fffu) > 0x7c00u;
        } else {
            widen16 &= (double) f == want && !signbit(f) == !signbit(want);
            back16 &= moe_f16_round(f) == h;
        }
        if (isnan(wantb)) {
            widenb &= isnan(b);
            backb &= (moe_bf16_round(b) & 0x7fffu) > 0x7f80u;
        } else {
            widenb &= (double) b == wantb && !signbit(b) == !signbit(wantb);
            backb &= moe_bf16_round(b) == h;
        }
        core &= moe_bits_of(f) == moe_f32_bits(moe_f16_f32(h));
        core &= moe_bits_of(b) == moe_f32_bits(moe_bf16_f32(h));
    }
    ok(widen16, "all 65536 f16 codes widen to their value");
    ok(back16, "all f16 numbers round to themselves, NaN to NaN");
    ok(widenb, "all 65536 bf16 codes widen to their value");
    ok(backb, "all bf16 numbers round to themselves, NaN to NaN");
    ok(core, "the core's half.h widens to the same bits");

    for (i = 0; i < 0x7c00; i++)
        f16[i] = (double) moe_f16_widen((uint16_t) i);
    f16[0x7c00] = 65536.0; /* what would come next; rounds to infinity */
    for (i = 0; i < 0x7f80; i++)
        bf16[i] = (double) moe_bf16_widen((uint16_t) i);
    bf16[0x7f80] = 0x1p128;
    core = 1;
    for (i = 0; i < 4000000; i++) {
        uint32_t u = (uint32_t) qt_random();
        float    f;

        switch (i % 4) {
        case 0: /* around the range of f16 */
            u = (u & 0x807fffffu) | ((100 + u % 46) << 23);
            break;
        case 1: /* at and beside the middle between two f16 */
            u = (u & 0xffffe000u) + 0x1000u + (u % 3) - 1;
            break;
        case 2: /* likewise bf16 */
            u = (u & 0xffff0000u) + 0x8000u + (u % 3) - 1;
            break;
        default:
            break;
        }
        f = moe_float_of(u);
        core &= moe_f16_round(f) == moe_f32_f16(f);
        core &= moe_bf16_round(f) == moe_f32_bf16(f);
        if (isnan(f) || isinf(f))
            continue;
        round16 &= (moe_f16_round(f) & 0x7fffu)
                   == (fabs((double) f) >= 65520.0
                           ? 0x7c00u
                           : nearest((double) f, f16, 0x7c01));
        roundb &= (moe_bf16_round(f) & 0x7fffu)
                  == nearest((double) f, bf16, 0x7f81);
        round16 &= moe_f16_round(f) >> 15 == u >> 31;
        roundb &= moe_bf16_round(f) >> 15 == u >> 31;
    }
    ok(round16, "4 million numbers round to the nearest f16, ties to even");
    ok(roundb, "4 million numbers round to the nearest bf16, ties to even");
    ok(core, "the core's half.h rounds to the same bits");
}

static void
test_rows(void)
{
    float         x[67], y[67];
    unsigned char raw[2 * 67 + 1];
    uint32_t      n, i;
    int           same = 1;
    uint16_t      h;

    for (n = 0; n <= 67; n++) {
        for (i = 0; i < n; i++)
            x[i] = (float) qt_gauss();
        moe_f16_round_row(x, n, raw + 1);
        moe_f16_widen_row(raw + 1, n, y);
        for (i = 0; i < n; i++) {
            memcpy(&h, raw + 1 + 2 * i, 2);
            same &= h == moe_f16_round(x[i]) && y[i] == moe_f16_widen(h);
        }
        moe_bf16_round_row(x, n, raw + 1);
        moe_bf16_widen_row(raw + 1, n, y);
        for (i = 0; i < n; i++) {
            memcpy(&h, raw + 1 + 2 * i, 2);
            same &= h == moe_bf16_round(x[i]) && y[i] == moe_bf16_widen(h);
        }
    }
    ok(same, "rows of 0 to 67 numbers convert as single numbers do");
}

/* All 65536 codes of each 16-bit format through the plugin, to each type. */
static void
test_codes(const struct moe_quantizer_ops *ops)
{
    static const char *const id[] = { "f16", "bf16" };
    uint32_t                 i, j;

    for (j = 0; j < 2; j++) {
        const struct moe_format *f = qt_format(ops, id[j]);
        struct qt_matrix        *m = qt_matrix(ops, f, 256, 256, 0);
        uint16_t                *code = malloc(65536 * 2), *other;
        float                   *w = malloc(65536 * 4);
        int                      same = 1, self = 1, cross = 1;

        other = malloc(65536 * 2);
        if (code == NULL || w == NULL || other == NULL)
            exit(1);
        for (i = 0; i < 65536; i++)
            code[i] = (uint16_t) i;
        memcpy(qt_bytes(m, 0), code, 65536 * 2);
        is_int(ops->decode(NULL, f, &m->t, 0, 256, MOE_F32, w, 256), MOE_OK,
               "%s decodes", id[j]);
        for (i = 0; i < 65536; i++) {
            float v = j == 0 ? moe_f16_f32(code[i]) : moe_bf16_f32(code[i]);

            same &= memcmp(&v, &w[i], 4) == 0;
        }
        ok(same, "%s: all codes to f32", id[j]);
        ops->decode(NULL, f, &m->t, 0, 256, j == 0 ? MOE_F16 : MOE_BF16, other,
                    256);
        for (i = 0; i < 65536; i++)
            self &= other[i] == code[i];
        ok(self, "%s: all codes to themselves", id[j]);
        ops->decode(NULL, f, &m->t, 0, 256, j == 0 ? MOE_BF16 : MOE_F16, other,
                    256);
        for (i = 0; i < 65536; i++)
            cross &= other[i]
                     == (j == 0 ? moe_f32_bf16(w[i]) : moe_f32_f16(w[i]));
        ok(cross, "%s: all codes to the other 16-bit type", id[j]);
        is_int(ops->decode(NULL, f, &m->t, 0, 1, MOE_U8, other, 256),
               MOE_E_UNSUPPORTED, "%s: bytes are no output type", id[j]);
        is_int(ops->decode(NULL, f, &m->t, 256, 1, MOE_F32, w, 256),
               MOE_E_INVAL, "%s: rows past the end are refused", id[j]);
        free(code);
        free(other);
        free(w);
        qt_free(m);
    }
}

static void
test_shapes(const struct moe_quantizer_ops *ops)
{
    static const uint64_t shape[][2] = {
        { 1, 1 }, { 1, 17 }, { 3, 255 }, { 5, 256 }, { 7, 300 }, { 2, 1025 },
    };
    uint32_t i, j;

    for (j = 0; j < ops->n_formats; j++) {
        const struct moe_format *f = ops->formats[j];
        int affine = 1, range = 1, again = 1, accepted = 1, near = 1;

        for (i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
            uint64_t          n = shape[i][0], k = shape[i][1];
            float            *w = qt_weights(n, k, 0.02, qt_gauss), *d;
            struct qt_matrix *m = qt_encode(ops, f, n, k, 0, w), *m2;

            accepted &= m->status == MOE_OK
                        && ops->check(NULL, f, &m->t, &m->err) == MOE_OK;
            affine &= qt_affine_agrees(ops, f, m);
            range &= qt_ranges_agree(ops, f, m, 0, n);
            range &= qt_ranges_agree(ops, f, m, n / 2, n - n / 2);
            d = qt_decode(ops, f, m);
            m2 = qt_encode(ops, f, n, k, 0, d);
            again &= qt_same_planes(m, m2, 0, 1);
            near &= qt_error(d, w, n * k)
                    <= (f->bits_x1000 == 32000 ? 0.0 : 0x1p-9);
            free(w);
            free(d);
            qt_free(m);
            qt_free(m2);
        }
        ok(accepted, "%s: encodes odd shapes, and accepts them", f->id);
        ok(affine, "%s: the affine description is decode()", f->id);
        ok(range, "%s: ranges of rows are the whole's", f->id);
        ok(again, "%s: encoding what was decoded gives the same bytes", f->id);
        ok(near, "%s: numbers are as near as the format has them", f->id);
    }
}

static void
test_refusals(const struct moe_quantizer_ops *ops)
{
    const struct moe_format *f16 = qt_format(ops, "f16");
    const struct moe_format *f32 = qt_format(ops, "f32");
    const struct moe_format *bf16 = qt_format(ops, "bf16");
    struct qt_matrix        *m = qt_matrix(ops, f16, 3, 300, 0), *b;
    float                    w[6] = { 1, 2, 3, 4, 5, 6 };
    uint16_t                 nan = 0x7e01, inf = 0xfc00;

    memset(qt_bytes(m, 0), 0, m->t.len[0]);
    is_int(ops->check(NULL, f16, &m->t, &m->err), MOE_OK, "zeros are fine");
    memcpy(qt_bytes(m, 0) + 2 * (2 * 300 + 299), &nan, 2);
    is_int(ops->check(NULL, f16, &m->t, &m->err), MOE_E_CORRUPT,
           "a NaN is refused");
    is_int(m->err.status, MOE_E_CORRUPT, "  and the error says so");
    has_str(m->err.text, "row 2, column 299 is NaN", "  and where");
    memcpy(qt_bytes(m, 0) + 2 * (300 + 256), &inf, 2);
    is_int(ops->check(NULL, f16, &m->t, &m->err), MOE_E_CORRUPT,
           "an infinity is refused");
    has_str(m->err.text, "row 1, column 256 is infinite", "  and where");
    is_int(ops->check(NULL, f16, &m->t, NULL), MOE_E_CORRUPT,
           "without an error to fill as well");
    m->t.len[0]--;
    is_int(ops->check(NULL, f16, &m->t, &m->err), MOE_E_CORRUPT,
           "a short plane is refused");
    has_str(m->err.text, "must have 1800 bytes, found 1799", "  by its size");
    b = qt_matrix(ops, f16, 3, 300, 0);
    free(qt_bytes(b, 0));
    b->t.plane[0] = NULL;
    is_int(ops->check(NULL, f16, &b->t, &b->err), MOE_E_CORRUPT,
           "a missing plane is refused");
    has_str(b->err.text, "plane weight is missing", "  by its name");
    qt_free(b);
    qt_free(m);

    m = qt_matrix(ops, f32, UINT64_MAX / 2, 4, 0);
    is_int(m->status, MOE_E_UNSUPPORTED, "a size that wraps is refused");
    has_str(m->err.text, "too large", "  as too large");
    qt_free(m);
    m = qt_matrix(ops, f32, UINT64_C(1) << 61, 1, 0);
    is_int(m->status, MOE_E_UNSUPPORTED, "2^63 bytes are refused");
    qt_free(m);
    m = qt_matrix(ops, f32, 0, 4, 0);
    is_int(m->status, MOE_E_UNSUPPORTED, "an empty matrix is refused");
    qt_free(m);

    w[4] = INFINITY;
    m = qt_encode(ops, bf16, 2, 3, 0, w);
    is_int(m->status, MOE_E_CORRUPT, "an infinity is not encoded");
    has_str(m->err.text, "row 1, column 1 is infinite", "  and is named");
    qt_free(m);
    w[4] = NAN;
    m = qt_encode(ops, f32, 2, 3, 0, w);
    is_int(m->status, MOE_E_CORRUPT, "a NaN is not encoded");
    has_str(m->err.text, "row 1, column 1 is NaN", "  and is named");
    qt_free(m);
    w[4] = 65520.0f;
    m = qt_encode(ops, f16, 2, 3, 0, w);
    is_int(m->status, MOE_E_UNSUPPORTED, "65520 does not fit f16");
    has_str(m->err.text, "choose bf16", "  and what would is named");
    qt_free(m);
    w[4] = 65519.0f;
    m = qt_encode(ops, f16, 2, 3, 0, w);
    is_int(m->status, MOE_OK, "65519 is 65504 in f16");
    qt_free(m);
    w[4] = FLT_MAX;
    m = qt_encode(ops, bf16, 2, 3, 0, w);
    is_int(m->status, MOE_E_UNSUPPORTED, "FLT_MAX does not fit bf16");
    qt_free(m);
    w[4] = 0x1.fefffep127f;
    m = qt_encode(ops, bf16, 2, 3, 0, w);
    is_int(m->status, MOE_OK, "the number below the last middle does");
    is_int(ops->check(NULL, bf16, &m->t, &m->err), MOE_OK, "  and is finite");
    qt_free(m);
}

int
main(void)
{
    const struct moe_quantizer_ops *ops = qt_open("fp16");

    is_int(ops->n_formats, 3, "three formats");
    test_half();
    test_rows();
    test_codes(ops);
    test_shapes(ops);
    test_refusals(ops);
    return tap_done();
}
