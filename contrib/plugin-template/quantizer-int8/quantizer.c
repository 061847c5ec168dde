/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer.c - a whole quantizer plugin in one file, to copy and change.
 *
 * Teaches moe-run one weight format, "int8-channel": 8-bit integers with one
 * scale a row, as compressed-tensors' "int-quantized" stores them:
 *
 *     weight        I8 (n, k)
 *     weight_scale  F32, F16 or BF16 (n, 1)
 *     w[r][c] = weight[r][c] * weight_scale[r]
 *
 * It needs the installed headers and nothing else: no library of ours to
 * link with, no symbol of the program.  See moe-plugin(7), and quantizer.h
 * for what each function must do.  `make check` runs moe-conform on it.
 */

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <moe/plugin.h>
#include <moe/quantizer.h>

/* What the format is called, here and in a checkpoint's
 * quantization_config.  The core finds the format of a file by the words of
 * .scheme, so nothing else has to know that this plugin exists. */
static const struct moe_format int8_channel = {
    .struct_size = sizeof(struct moe_format),
    .revision = 1,
    .id = "int8-channel",
    .summary = "8-bit integers, one scale a row",
    .k_multiple = 1,
    .n_multiple = 1,
    .bits_x1000 = 8000,
    /* a kernel may round activations to int8 as well: 1.4 % relative error */
    .nmse_x1e9 = 200000,
    .scheme = { .struct_size = sizeof(struct moe_scheme),
                .num_bits = 8,
                .symmetric = 1,
                .storage = "int-quantized",
                .type = "int",
                .strategy = "channel",
                .elem = "I8" },
};

static const struct moe_format *const formats[] = { &int8_channel };

/* --------------------------------------------------------- small floats -- */

static float
float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static uint32_t
bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static float
f16_widen(uint16_t h)
{
    uint32_t sign = (uint32_t) (h & 0x8000u) << 16, mag = h & 0x7fffu;

    if (mag < 0x0400u) /* subnormal */
        return float_of(sign | bits_of((float) mag * 0x1p-24f));
    return float_of(sign | ((mag << 13)
                            + (mag < 0x7c00u ? 112u << 23 : 224u << 23)));
}

/* To nearest, ties to even; f is no NaN. */
static uint16_t
f16_round(float f)
{
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000u, mag = u & 0x7fffffffu;

    if (mag >= 0x477ff000u) /* 65520 and more: infinity */
        return (uint16_t) (sign | 0x7c00u);
    if (mag < 0x38800000u) /* subnormal: the addition rounds */
        return (uint16_t) (sign
                           | (bits_of(float_of(mag) + 0.5f) - 0x3f000000u));
    mag -= 112u << 23;
    return (uint16_t) (sign | ((mag + 0xfffu + ((mag >> 13) & 1u)) >> 13));
}

static uint16_t
bf16_round(float f)
{
    uint32_t u = bits_of(f);

    return (uint16_t) ((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* Element i of a plane, or of an output, of the three types. */
static float
load(const void *p, uint32_t dtype, uint64_t i)
{
    const unsigned char *at = (const unsigned char *) p
                              + i * moe_dtype_size(dtype);
    uint16_t h;
    float    f;

    if (dtype == MOE_F32) {
        memcpy(&f, at, sizeof(f));
        return f;
    }
    memcpy(&h, at, sizeof(h));
    return dtype == MOE_F16 ? f16_widen(h) : float_of((uint32_t) h << 16);
}

static void
store(void *p, uint32_t dtype, uint64_t i, float f)
{
    unsigned char *at = (unsigned char *) p + i * moe_dtype_size(dtype);
    uint16_t       h;

    if (dtype == MOE_F32) {
        memcpy(at, &f, sizeof(f));
        return;
    }
    h = dtype == MOE_F16 ? f16_round(f) : bf16_round(f);
    memcpy(at, &h, sizeof(h));
}

static const char *
dtype_name(uint32_t dtype)
{
    return dtype == MOE_F32    ? "F32"
           : dtype == MOE_F16  ? "F16"
           : dtype == MOE_BF16 ? "BF16"
                               : NULL;
}

/* ------------------------------------------------------------ the table -- */

static void
set_plane(struct moe_plane *p, const char *suffix, const char *dtype,
          uint64_t dim0, uint64_t dim1, uint64_t bytes)
{
    memset(p, 0, sizeof(*p));
    p->struct_size = sizeof(*p);
    p->n_dims = 2;
    p->dim[0] = dim0;
    p->dim[1] = dim1;
    p->bytes = bytes;
    snprintf(p->suffix, sizeof(p->suffix), "%s", suffix);
    snprintf(p->dtype, sizeof(p->dtype), "%s", dtype);
}

static moe_status
int8_planes(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
            uint32_t scale_dtype, struct moe_plane out[MOE_PLANES_MAX],
            uint32_t *n_planes, struct moe_error *err)
{
    (void) self;
    if (dtype_name(scale_dtype) == NULL)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "format %s: scales of type %u are unknown; F32, F16 "
                        "and BF16 are supported",
                        f->id, (unsigned) scale_dtype);
    /* n and k come from a file: no product of them may wrap */
    if (n == 0 || k == 0 || n > (uint64_t) INT64_MAX / 4
        || k > (uint64_t) INT64_MAX / n)
        return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                        "format %s: a matrix of %" PRIu64 " x %" PRIu64
                        " is empty or too large",
                        f->id, n, k);
    set_plane(&out[MOE_PLANE_ELEM], "weight", "I8", n, k, n * k);
    set_plane(&out[MOE_PLANE_SCALE], "weight_scale", dtype_name(scale_dtype), n,
              1, n * moe_dtype_size(scale_dtype));
    *n_planes = 2;
    return MOE_OK;
}

/* Planes of the right length; the caller goes on to what is in them. */
static moe_status
check_lengths(void *self, const struct moe_format *f,
              const struct moe_tensor *t, struct moe_error *err)
{
    struct moe_plane want[MOE_PLANES_MAX];
    uint32_t         n_planes, i;
    moe_status       st;

    st = int8_planes(self, f, t->n, t->k, t->scale_dtype, want, &n_planes,
                     err);
    for (i = 0; st == MOE_OK && i < n_planes; i++)
        if (t->plane[i] == NULL || t->len[i] != want[i].bytes)
            st = moe_fail(err, MOE_E_CORRUPT, 0,
                          "format %s: plane %s must have %" PRIu64
                          " bytes, found %" PRIu64,
                          f->id, want[i].suffix, want[i].bytes,
                          t->plane[i] == NULL ? 0 : t->len[i]);
    return st;
}

static moe_status
int8_check(void *self, const struct moe_format *f, const struct moe_tensor *t,
           struct moe_error *err)
{
    moe_status st = check_lengths(self, f, t, err);
    uint64_t   r;
    float      s;

    /* any byte is a code; the largest, 128 * scale, must be finite */
    for (r = 0; st == MOE_OK && r < t->n; r++) {
        s = load(t->plane[MOE_PLANE_SCALE], t->scale_dtype, r);
        if (!(s > 0.0f && s <= FLT_MAX / 128.0f))
            st = moe_fail(err, MOE_E_CORRUPT, 0,
                          "weight_scale of row %" PRIu64 " is %g", r,
                          (double) s);
    }
    return st;
}

/* This function is the definition of the format.  The core has called check()
 * on the bytes, so it does not look again. */
static moe_status
int8_decode(void *self, const struct moe_format *f, const struct moe_tensor *t,
            uint64_t row0, uint64_t rows, uint32_t dtype, void *dst,
            uint64_t ld)
{
    const int8_t *code = t->plane[MOE_PLANE_ELEM]; /* (n, k) */
    uint64_t      r, c;
    float         s;

    (void) self;
    (void) f;
    if (dtype_name(dtype) == NULL)
        return MOE_E_UNSUPPORTED;
    if (row0 > t->n || rows > t->n - row0)
        return MOE_E_INVAL;
    for (r = row0; r < row0 + rows; r++) {
        s = load(t->plane[MOE_PLANE_SCALE], t->scale_dtype, r);
        for (c = 0; c < t->k; c++)
            store(dst, dtype, (r - row0) * ld + c,
                  (float) code[r * t->k + c] * s);
    }
    return MOE_OK;
}

/* Optional, and worth it: a backend that reads descriptions runs the packed
 * bytes without a kernel of its own for this format. */
static moe_status
int8_affine(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
            uint32_t scale_dtype, struct moe_affine *out)
{
    (void) self;
    (void) f;
    (void) n;
    if (dtype_name(scale_dtype) == NULL)
        return MOE_E_UNSUPPORTED;
    memset(out, 0, sizeof(*out));
    out->struct_size = sizeof(*out);
    out->elem = MOE_ELEM_INT;
    out->elem_bits = 8;
    out->scale = scale_dtype == MOE_F32   ? MOE_SCALE_F32
                 : scale_dtype == MOE_F16 ? MOE_SCALE_F16
                                          : MOE_SCALE_BF16;
    out->zero_block_n = 1;
    out->group_n = 1;
    out->group_k = UINT32_MAX; /* the whole row */
    out->block_k = 1;
    out->elem_row = k;
    out->elem_block = 1;
    out->scale_row = moe_dtype_size(scale_dtype);
    return MOE_OK;
}

/* Optional: without it moe-run reads the format but does not write it. */
static moe_status
int8_encode(void *self, const struct moe_format *f, const float *src,
            uint64_t ld, const float *importance, const struct moe_tensor *dst,
            struct moe_error *err)
{
    /* writable, as the contract of encode() says */
    int8_t    *code = (int8_t *) (uintptr_t) dst->plane[MOE_PLANE_ELEM];
    void      *scale = (void *) (uintptr_t) dst->plane[MOE_PLANE_SCALE];
    uint64_t   r, c;
    float      amax, s, q;
    moe_status st = check_lengths(self, f, dst, err);

    (void) importance; /* the largest weight alone decides a row's scale */
    for (r = 0; st == MOE_OK && r < dst->n; r++) {
        const float *x = src + r * ld; /* (k) */

        for (amax = 0.0f, c = 0; c < dst->k; c++) {
            if (!(fabsf(x[c]) <= FLT_MAX))
                return moe_fail(err, MOE_E_CORRUPT, 0,
                                "weight at row %" PRIu64 ", column %" PRIu64
                                " is %g",
                                r, c, (double) x[c]);
            amax = fabsf(x[c]) > amax ? fabsf(x[c]) : amax;
        }
        /* rounded as it will be stored, then used: the codes make up for the
         * rounding.  Never 0 and never too small for its type. */
        s = amax / 127.0f;
        if (s < (dst->scale_dtype == MOE_F16 ? 0x1p-14f : 0x1p-126f))
            s = amax == 0.0f                     ? 0x1p-10f
                : dst->scale_dtype == MOE_F16 ? 0x1p-14f
                                              : 0x1p-126f;
        store(scale, dst->scale_dtype, r, s);
        s = load(scale, dst->scale_dtype, r);
        if (!(s <= FLT_MAX / 128.0f))
            return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                            "weights of row %" PRIu64
                            " are too large for a scale of type %s",
                            r, dtype_name(dst->scale_dtype));
        for (c = 0; c < dst->k; c++) {
            q = rintf(x[c] / s);
            q = q > 127.0f ? 127.0f : q < -128.0f ? -128.0f : q;
            code[r * dst->k + c] = (int8_t) q;
        }
    }
    return st;
}

static const struct moe_quantizer_ops ops = {
    .struct_size = sizeof(struct moe_quantizer_ops),
    .n_formats = sizeof(formats) / sizeof(formats[0]),
    .formats = formats,
    .planes = int8_planes,
    .check = int8_check,
    .decode = int8_decode,
    .affine = int8_affine,
    .encode = int8_encode,
};

/* ----------------------------------------------------------- the plugin -- */

/* Keep the host if you need memory, settings or threads; this one does not.
 * self comes back as the first argument of every function above. */
static moe_status
int8_init(const struct moe_host *host, void **self, struct moe_error *err)
{
    static const char stateless = 0;

    (void) err;
    host->log(host->ctx, MOE_LOG_DEBUG, "int8: ready");
    *self = (void *) (uintptr_t) &stateless;
    return MOE_OK;
}

static void
int8_fini(void *self)
{
    (void) self;
}

/* The one symbol that the shared object exports. */
MOE_PLUGIN_DEFINE(int8) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_QUANTIZER,
    .name = "int8",
    .version = "1",
    .license = "Apache-2.0",
    .summary = "8-bit integers, one scale a row (the template)",
    .ops = &ops,
    .init = int8_init,
    .fini = int8_fini,
};
