/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The quantizers of this tree keep what moe-conform asks; and moe-conform
 * sees a quantizer that does not: each fault is put into one that is right.
 */

#include "conform/quantizer.h"
#include "quant_test.h"

/* ----------------------------------------------------------- the faults -- */

static const struct moe_quantizer_ops *good; /* int4 */
static int                             fault;

enum {
    F_NONE,
    F_PLANE_BYTES,
    F_PLANE_WRAP,
    F_BITS,
    F_ENCODE_RANDOM,
    F_ENCODE_NAN,
    F_ENCODE_COARSE,
    F_ENCODE_BEYOND,
    F_CHECK_STRICT,
    F_CHECK_LENGTH,
    F_CHECK_SCALE,
    F_DECODE_ROWS,
    F_DECODE_TRUNCATES,
    F_DECODE_BEYOND,
    F_DECODE_GAP,
    F_DECODE_STATE,
    F_AFFINE,
    F_SILENT,
    F_COUNT
};

static const char *const seen_as[F_COUNT] = {
    [F_PLANE_BYTES] = "fit each other",
    [F_PLANE_WRAP] = "impossible matrices",
    [F_BITS] = "bits_x1000",
    [F_ENCODE_RANDOM] = "each time to the same bytes",
    [F_ENCODE_NAN] = "not encoded but named",
    [F_ENCODE_COARSE] = "gives back what was encoded",
    [F_ENCODE_BEYOND] = "nothing outside",
    [F_CHECK_STRICT] = "accepts what encode wrote",
    [F_CHECK_LENGTH] = "missing, short and long",
    [F_CHECK_SCALE] = "scales that are NaN",
    [F_DECODE_ROWS] = "a range of rows",
    [F_DECODE_TRUNCATES] = "rounded to nearest even",
    [F_DECODE_BEYOND] = "nothing outside",
    [F_DECODE_GAP] = "nothing outside",
    [F_DECODE_STATE] = "each time to the same bits",
    [F_AFFINE] = "the affine description",
    [F_SILENT] = "one line that says why",
};

static moe_status
bad_planes(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
           uint32_t scale_dtype, struct moe_plane out[MOE_PLANES_MAX],
           uint32_t *n_planes, struct moe_error *err)
{
    moe_status st;

    if (fault == F_PLANE_WRAP && n > (UINT64_C(1) << 60))
        n = 1;
    st = good->planes(self, f, n, k, scale_dtype, out, n_planes, err);
    if (fault == F_PLANE_BYTES)
        out[1].dim[0]++;
    if (fault == F_BITS && n >= 4096 && st == MOE_OK)
        out[0].bytes *= 2;
    if (fault == F_SILENT && st != MOE_OK && err != NULL)
        err->text[0] = '\0';
    return st;
}

static moe_status
bad_check(void *self, const struct moe_format *f, const struct moe_tensor *t,
          struct moe_error *err)
{
    struct moe_tensor u = *t;
    moe_status        st;

    if (fault == F_CHECK_STRICT && t->n == 9)
        return moe_fail(err, MOE_E_CORRUPT, 0, "nine rows are too many");
    if (fault == F_CHECK_LENGTH && t->plane[1] != NULL && t->len[1] > 1)
        u.len[1] = t->len[1] / 2 * 2; /* an odd byte is not seen */
    st = good->check(self, f, &u, err);
    if (fault == F_CHECK_SCALE && err != NULL
        && strstr(err->text, "is NaN") != NULL)
        st = MOE_OK;
    return st;
}

static moe_status
bad_decode(void *self, const struct moe_format *f, const struct moe_tensor *t,
           uint64_t row0, uint64_t rows, uint32_t dtype, void *dst, uint64_t ld)
{
    static uint32_t calls;
    unsigned char  *d = dst;
    uint32_t        size = moe_dtype_size(dtype);
    moe_status      st;
    uint64_t        r, c;

    if (fault == F_DECODE_ROWS && row0 != 0)
        row0--;
    st = good->decode(self, f, t, row0, rows, dtype, dst, ld);
    if (st != MOE_OK || rows == 0)
        return st;
    if (fault == F_DECODE_TRUNCATES && dtype == MOE_BF16)
        for (r = 0; r < rows; r++)
            for (c = 0; c < t->k; c++)
                d[(r * ld + c) * 2] &= 0xfe;
    if (fault == F_DECODE_BEYOND)
        d[((rows - 1) * ld + ld) * size] ^= 1;
    if (fault == F_DECODE_GAP && ld > t->k)
        d[t->k * size] ^= 1;
    if (fault == F_DECODE_STATE && ++calls % 2 == 0)
        d[0] ^= 1;
    return st;
}

static moe_status
bad_affine(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
           uint32_t scale_dtype, struct moe_affine *out)
{
    moe_status st = good->affine(self, f, n, k, scale_dtype, out);

    if (fault == F_AFFINE)
        out->bias++;
    return st;
}

static moe_status
bad_encode(void *self, const struct moe_format *f, const float *src,
           uint64_t ld, const float *importance, const struct moe_tensor *dst,
           struct moe_error *err)
{
    static uint32_t calls;
    unsigned char  *code = (unsigned char *) (uintptr_t) dst->plane[0];
    moe_status      st = good->encode(self, f, src, ld, importance, dst, err);
    uint64_t        i;

    if (fault == F_ENCODE_NAN && st == MOE_E_CORRUPT)
        return MOE_OK;
    if (fault == F_ENCODE_RANDOM)
        code[0] ^= (unsigned char) (++calls % 16);
    for (i = 0; fault == F_ENCODE_COARSE && i < dst->len[0]; i++)
        code[i] = 0x88; /* all zero */
    if (fault == F_ENCODE_BEYOND)
        code[dst->len[0]] = 0;
    return st;
}

/* ---------------------------------------------------------- the reports -- */

struct notes {
    const char *wanted; /* part of the line that must fail, or NULL */
    int         found;  /* it did                                    */
    int         quiet;
    char        first[512]; /* the first other line that failed      */
};

static void
note(void *ctx, int pass, const char *text)
{
    struct notes *n = ctx;

    if (!n->quiet)
        ok(pass, "%s", text);
    if (pass)
        return;
    if (n->wanted != NULL && strstr(text, n->wanted) != NULL)
        n->found = 1;
    else if (n->first[0] == '\0')
        snprintf(n->first, sizeof(n->first), "%s", text);
}

int
main(void)
{
    static const char *const  name[] = { "fp16", "fp8", "mxfp4", "int4" };
    struct moe_quantizer_ops  bad;
    const struct moe_format  *one;
    struct notes              n;
    uint32_t                  i;
    int                       failed;

    for (i = 0; i < 4; i++) {
        memset(&n, 0, sizeof(n));
        good = qt_open(name[i]);
        is_int(moe_conform_quantizer(good, &n, note, &n), 0, "%s conforms",
               name[i]);
    }

    one = qt_format(good, "int4-g32z");
    bad = *good;
    bad.n_formats = 1;
    bad.formats = &one;
    bad.planes = bad_planes;
    bad.check = bad_check;
    bad.decode = bad_decode;
    bad.affine = bad_affine;
    bad.encode = bad_encode;
    for (fault = F_NONE; fault < F_COUNT; fault++) {
        memset(&n, 0, sizeof(n));
        n.quiet = 1;
        n.wanted = seen_as[fault];
        failed = moe_conform_quantizer(&bad, &n, note, &n);
        if (fault == F_NONE)
            is_int(failed, 0, "the wrapper itself is right");
        else if (!ok(failed > 0 && n.found, "fault seen: %s", seen_as[fault]))
            tap_diag("%d failed, first: %s", failed, n.first);
    }
    fault = F_NONE;
    bad.affine = NULL;
    bad.encode = NULL;
    memset(&n, 0, sizeof(n));
    n.quiet = 1;
    is_int(moe_conform_quantizer(&bad, &n, note, &n), 0,
           "a quantizer may do without encode and affine");
    bad.check = NULL;
    ok(moe_conform_quantizer(&bad, &n, note, &n) > 0, "but not without check");
    return tap_done();
}
