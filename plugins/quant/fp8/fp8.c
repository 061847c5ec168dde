/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fp8.c - 8-bit floating point: E4M3 and E5M2, scaled per tensor, per row or
 * per block of 128 x 128.
 *
 * Owns the bytes, which are those of compressed-tensors' "float-quantized":
 *
 *   weight        F8_E4M3 or F8_E5M2 (n, k)
 *   weight_scale  F32, F16 or BF16: (1), (n, 1) or
 *                 (ceil(n / 128), ceil(k / 128)); last blocks may be ragged
 *
 *   w = code * scale, one rounding, in f32
 *
 * The codes are those of OCP 8-bit Floating Point, revision 1.0.  E4M3: bias
 * 7, largest 448, no infinity, NaN at 0x7f and 0xff.  E5M2: bias 15, largest
 * 57344, infinity and NaN as in IEEE 754.
 */

#include "common/quant.h"

struct fp8_kind {
    const float *value; /* (256) */
    float        largest;
    float        scale_max; /* largest * this is finite, rounding included */
    uint32_t     nan;       /* magnitudes from here on are no numbers      */
    uint32_t     elem;      /* MOE_ELEM_*                                  */
    /* rounding, see fp8_round() */
    uint32_t     rebias, shift, normal;
    float        magic;
};

/* The magnitude of a code from its fields.  Subnormals: m * 2^-9, m * 2^-16;
 * the others: (8 + mantissa) * 2^(exponent - 10) and likewise. */
#define E4M3(m)                                                               \
    ((m) == 127 ? (float) NAN                                                 \
     : (m) < 8  ? (float) (m) * 0x1p-9f                                       \
                : (float) ((8 + ((m) & 7)) << ((m) >> 3)) * 0x1p-10f)
#define E5M2(m)                                                               \
    ((m) == 124  ? (float) INFINITY                                           \
     : (m) > 124 ? (float) NAN                                                \
     : (m) < 4   ? (float) (m) * 0x1p-16f                                     \
                 : (float) ((4 + ((m) & 3ll)) << ((m) >> 2)) * 0x1p-17f)
#define E4M3_MINUS(m) -E4M3(m)
#define E5M2_MINUS(m) -E5M2(m)
#define FP8_4(F, m)  F(m), F((m) + 1), F((m) + 2), F((m) + 3)
#define FP8_16(F, m) FP8_4(F, m), FP8_4(F, (m) + 4), FP8_4(F, (m) + 8),       \
        FP8_4(F, (m) + 12)
#define FP8_64(F, m) FP8_16(F, m), FP8_16(F, (m) + 16), FP8_16(F, (m) + 32),  \
        FP8_16(F, (m) + 48)

static const float fp8_e4m3_value[256] = {
    FP8_64(E4M3, 0), FP8_64(E4M3, 64),
    FP8_64(E4M3_MINUS, 0), FP8_64(E4M3_MINUS, 64),
};
static const float fp8_e5m2_value[256] = {
    FP8_64(E5M2, 0), FP8_64(E5M2, 64),
    FP8_64(E5M2_MINUS, 0), FP8_64(E5M2_MINUS, 64),
};

static const struct fp8_kind fp8_e4m3_kind = {
    .value = fp8_e4m3_value,
    .largest = 448.0f,
    .scale_max = 0x1p119f,
    .nan = 0x7f,
    .elem = MOE_ELEM_E4M3,
    .rebias = 120,
    .shift = 20,
    .normal = 0x3c800000u, /* 2^-6 */
    .magic = 0x1p14f,      /* its last bit is 2^-9 */
};

static const struct fp8_kind fp8_e5m2_kind = {
    .value = fp8_e5m2_value,
    .largest = 57344.0f,
    .scale_max = 0x1p112f,
    .nan = 0x7c,
    .elem = MOE_ELEM_E5M2,
    .rebias = 112,
    .shift = 21,
    .normal = 0x38800000u, /* 2^-14 */
    .magic = 0x1p7f,       /* its last bit is 2^-16 */
};

/* -------------------------------------------------------------- formats -- */

/* A kernel may round activations to E4M3 in blocks of 128, which is what
 * tensor cores want: 3 % relative, as much as the weights' own rounding. */
#define FP8_FORMAT(name, text, what, kind, how, block, bits)                  \
    static const struct moe_format name = {                                   \
        .struct_size = sizeof(struct moe_format),                             \
        .revision = 1,                                                        \
        .id = text,                                                           \
        .summary = what,                                                      \
        .k_multiple = 1,                                                      \
        .n_multiple = 1,                                                      \
        .bits_x1000 = (bits),                                                 \
        .nmse_x1e9 = 900000,                                                  \
        .scheme = { .struct_size = sizeof(struct moe_scheme),                 \
                    .num_bits = 8,                                            \
                    .block_n = (block),                                       \
                    .block_k = (block),                                       \
                    .symmetric = 1,                                           \
                    .storage = "float-quantized",                             \
                    .type = "float",                                          \
                    .strategy = how,                                          \
                    .elem = kind },                                           \
    }

FP8_FORMAT(fp8_e4m3, "fp8-e4m3", "8-bit floats (E4M3), one scale", "F8_E4M3",
           "tensor", 0, 8000);
FP8_FORMAT(fp8_e4m3_channel, "fp8-e4m3-channel",
           "8-bit floats (E4M3), one scale a row", "F8_E4M3", "channel", 0,
           8000);
FP8_FORMAT(fp8_e4m3_block, "fp8-e4m3-block",
           "8-bit floats (E4M3), one scale for 128 x 128", "F8_E4M3", "block",
           128, 8001);
FP8_FORMAT(fp8_e5m2, "fp8-e5m2", "8-bit floats (E5M2), one scale", "F8_E5M2",
           "tensor", 0, 8000);
FP8_FORMAT(fp8_e5m2_channel, "fp8-e5m2-channel",
           "8-bit floats (E5M2), one scale a row", "F8_E5M2", "channel", 0,
           8000);
FP8_FORMAT(fp8_e5m2_block, "fp8-e5m2-block",
           "8-bit floats (E5M2), one scale for 128 x 128", "F8_E5M2", "block",
           128, 8001);

static const struct moe_format *const fp8_formats[] = {
    &fp8_e4m3, &fp8_e4m3_channel, &fp8_e4m3_block,
    &fp8_e5m2, &fp8_e5m2_channel, &fp8_e5m2_block,
};

/* How the scales of an n x k matrix lie: rows x columns of them, each for
 * group_n x group_k weights (the last ones for fewer). */
struct fp8_grid {
    uint64_t group_n, group_k;
    uint64_t rows, cols;
};

static const struct fp8_kind *
fp8_kind(const struct moe_format *f)
{
    return f == &fp8_e4m3 || f == &fp8_e4m3_channel || f == &fp8_e4m3_block
               ? &fp8_e4m3_kind
               : &fp8_e5m2_kind;
}

static int
fp8_per_tensor(const struct moe_format *f)
{
    return f == &fp8_e4m3 || f == &fp8_e5m2;
}

static struct fp8_grid
fp8_grid(const struct moe_format *f, uint64_t n, uint64_t k)
{
    struct fp8_grid g = { n, k, 1, 1 };

    if (f->scheme.block_n != 0) {
        g.group_n = f->scheme.block_n;
        g.group_k = f->scheme.block_k;
        g.rows = moe_ceil_div(n, g.group_n);
        g.cols = moe_ceil_div(k, g.group_k);
    } else if (!fp8_per_tensor(f)) {
        g.group_n = 1;
        g.rows = n;
    }
    return g;
}

/* ----------------------------------------------------------- operations -- */

static moe_status
fp8_planes(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
           uint32_t scale_dtype, struct moe_plane out[MOE_PLANES_MAX],
           uint32_t *n_planes, struct moe_error *err)
{
    struct fp8_grid g = fp8_grid(f, n, k);
    moe_status      st = moe_shape_check(f, n, k, err);

    (void) self;
    if (st == MOE_OK)
        st = moe_scale_dtype_check(f, scale_dtype, err);
    if (st != MOE_OK)
        return st;
    if (!moe_plane_set(&out[MOE_PLANE_ELEM], "weight", f->scheme.elem, 1, 2, n,
                       k)
        || !moe_plane_set(&out[MOE_PLANE_SCALE], "weight_scale",
                          moe_scale_dtype_name(scale_dtype),
                          moe_dtype_size(scale_dtype),
                          fp8_per_tensor(f) ? 1 : 2, g.rows, g.cols))
        return moe_too_large(f, n, k, err);
    *n_planes = 2;
    return MOE_OK;
}

/* True if one of n codes is no number. */
static int
fp8_has_nan(const unsigned char *p, uint64_t n, uint32_t nan)
{
    unsigned char acc[MOE_RUN] = { 0 }, c;
    uint32_t      bad = 0;
    uint64_t      i, j, whole = n - n % MOE_RUN;

    for (i = 0; i < whole; i += MOE_RUN)
        for (j = 0; j < MOE_RUN; j++) {
            c = p[i + j] & 0x7f;
            acc[j] = (unsigned char) (acc[j] > c ? acc[j] : c);
        }
    for (i = whole; i < n; i++)
        bad |= (p[i] & 0x7fu) >= nan;
    for (j = 0; j < MOE_RUN; j++)
        bad |= acc[j] >= nan;
    return bad != 0;
}

static moe_status
fp8_check(void *self, const struct moe_format *f, const struct moe_tensor *t,
          struct moe_error *err)
{
    const struct fp8_kind *kind = fp8_kind(f);
    struct fp8_grid        g = fp8_grid(f, t->n, t->k);
    struct moe_plane       want[MOE_PLANES_MAX];
    uint32_t               n_planes;
    uint64_t               i, r, c;
    const unsigned char   *p = t->plane[MOE_PLANE_ELEM];
    float                  s;
    moe_status             st;

    st = fp8_planes(self, f, t->n, t->k, t->scale_dtype, want, &n_planes, err);
    if (st == MOE_OK)
        st = moe_lengths_check(f, want, n_planes, t, err);
    if (st != MOE_OK)
        return st;
    for (i = 0; i < g.rows * g.cols; i++) {
        s = moe_scale_load(t->plane[MOE_PLANE_SCALE], t->scale_dtype, i);
        if (s > 0.0f && s <= kind->scale_max)
            continue;
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "weight_scale at row %llu, column %llu is %s; the "
                        "file is damaged or its calibration failed",
                        (unsigned long long) (i / g.cols),
                        (unsigned long long) (i % g.cols),
                        isnan(s)     ? "NaN"
                        : isinf(s)   ? "infinite"
                        : s == 0.0f  ? "0"
                        : s < 0.0f   ? "negative"
                                     : "too large");
    }
    for (r = 0; r < t->n; r++, p += t->k) {
        if (!fp8_has_nan(p, t->k, kind->nan))
            continue;
        for (c = 0; c < t->k - 1 && (p[c] & 0x7fu) < kind->nan;)
            c++;
        return moe_fail(err, MOE_E_CORRUPT, 0,
                        "weight at row %llu, column %llu is %s (code 0x%02x); "
                        "the file is damaged",
                        (unsigned long long) r, (unsigned long long) c,
                        isnan(kind->value[p[c]]) ? "NaN" : "infinite",
                        (unsigned) p[c]);
    }
    return MOE_OK;
}

#define FP8_CHUNK 64u /* weights converted at a time, on the stack */

static void
fp8_expand(const unsigned char *p, uint64_t n, const float *value, float scale,
           float *dst)
{
    uint64_t i;

    for (i = 0; i < n; i++)
        dst[i] = value[p[i]] * scale;
}

static moe_status
fp8_decode(void *self, const struct moe_format *f, const struct moe_tensor *t,
           uint64_t row0, uint64_t rows, uint32_t dtype, void *dst,
           uint64_t ld)
{
    moe_status           st = moe_decode_check(t, row0, rows, dtype, ld);
    const float         *value = fp8_kind(f)->value;
    struct fp8_grid      g = fp8_grid(f, t->n, t->k);
    uint64_t             r, c, n, j, end;
    const unsigned char *p;
    float                x[FP8_CHUNK], s;

    (void) self;
    if (st != MOE_OK)
        return st;
    for (r = row0; r < row0 + rows; r++) {
        p = (const unsigned char *) t->plane[MOE_PLANE_ELEM] + r * t->k;
        for (j = 0, c = 0; j < g.cols; j++) {
            s = moe_scale_load(t->plane[MOE_PLANE_SCALE], t->scale_dtype,
                               r / g.group_n * g.cols + j);
            end = t->k - c < g.group_k ? t->k : c + g.group_k;
            for (; c < end; c += n) {
                n = end - c < FP8_CHUNK ? end - c : FP8_CHUNK;
                fp8_expand(p + c, n, value, s, x);
                moe_row_store(x, n, dtype, dst, (r - row0) * ld + c);
            }
        }
    }
    return MOE_OK;
}

static moe_status
fp8_affine(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
           uint32_t scale_dtype, struct moe_affine *out)
{
    struct fp8_grid g = fp8_grid(f, n, k);
    uint32_t        size = moe_dtype_size(scale_dtype);

    (void) self;
    if (moe_scale_dtype_name(scale_dtype) == NULL)
        return MOE_E_UNSUPPORTED;
    memset(out, 0, sizeof(*out));
    out->struct_size = sizeof(*out);
    out->elem = fp8_kind(f)->elem;
    out->elem_bits = 8;
    out->scale = moe_scale_affine(scale_dtype);
    out->zero_block_n = 1;
    /* where one scale serves a whole side the step is 0 and so any group
     * length is right */
    out->group_n = g.rows == 1 ? UINT32_MAX : (uint32_t) g.group_n;
    out->group_k = g.cols == 1 ? UINT32_MAX : (uint32_t) g.group_k;
    out->block_k = 1;
    out->elem_row = k;
    out->elem_block = 1;
    out->scale_row = g.rows == 1 ? 0 : g.cols * size;
    out->scale_group = g.cols == 1 ? 0 : size;
    return MOE_OK;
}

/* --------------------------------------------------------------- encode -- */

/* The nearest code, ties to even; beyond the largest number, that number. */
static inline unsigned char
fp8_round(float f, const struct fp8_kind *kind)
{
    uint32_t u = moe_bits_of(f), mag = u & 0x7fffffffu;
    uint32_t num = (mag - (kind->rebias << 23) + (1u << (kind->shift - 1)) - 1u
                    + ((mag >> kind->shift) & 1u))
                   >> kind->shift;
    /* subnormal: the sum's last bit is the smallest step, so the addition
     * rounds */
    uint32_t small = moe_bits_of(moe_float_of(mag) + kind->magic)
                     - moe_bits_of(kind->magic);
    uint32_t r = moe_select(mag < kind->normal, small, num);

    r = moe_select(r >= kind->nan, kind->nan - 1, r);
    return (unsigned char) ((u >> 24 & 0x80u) | r);
}

static void
fp8_round_row(const float *x, uint64_t n, float scale,
              const struct fp8_kind *which, unsigned char *dst)
{
    const struct fp8_kind kind = *which;
    unsigned char         b[MOE_RUN];
    uint64_t              i, j, whole = n - n % MOE_RUN;

    for (i = 0; i < whole; i += MOE_RUN) {
        for (j = 0; j < MOE_RUN; j++)
            b[j] = fp8_round(x[i + j] / scale, &kind);
        memcpy(dst + i, b, sizeof(b));
    }
    for (i = whole; i < n; i++)
        dst[i] = fp8_round(x[i] / scale, &kind);
}

/* The largest magnitude among n numbers and so_far. */
static float
fp8_amax(const float *x, uint64_t n, float so_far)
{
    float    acc[MOE_RUN] = { 0.0f }, a;
    uint64_t i, j, whole = n - n % MOE_RUN;

    for (i = 0; i < whole; i += MOE_RUN)
        for (j = 0; j < MOE_RUN; j++) {
            a = fabsf(x[i + j]);
            acc[j] = a > acc[j] ? a : acc[j];
        }
    for (i = whole; i < n; i++)
        so_far = fabsf(x[i]) > so_far ? fabsf(x[i]) : so_far;
    for (j = 0; j < MOE_RUN; j++)
        so_far = acc[j] > so_far ? acc[j] : so_far;
    return so_far;
}

/*
 * The scale that puts amax on the largest code, as the file will have it.
 * Where that would be less than a normal number of its type the scale is the
 * least normal one: its relative error would grow otherwise, while the codes,
 * being floating, lose nothing.  0: too large for the type.
 */
static float
fp8_scale(float amax, const struct fp8_kind *kind, uint32_t dtype)
{
    float s = amax / kind->largest;

    if (amax == 0.0f)
        return moe_scale_of_zeros(dtype);
    if (s > moe_scale_most(dtype))
        return 0.0f;
    s = s > moe_scale_least(dtype) ? s : moe_scale_least(dtype);
    s = moe_scale_round(s, dtype);
    return s < kind->scale_max ? s : kind->scale_max;
}

/* importance is not used: the largest weight alone sets a scale, and within
 * it each code is the nearest. */
static moe_status
fp8_encode(void *self, const struct moe_format *f, const float *src,
           uint64_t ld, const float *importance, const struct moe_tensor *dst,
           struct moe_error *err)
{
    const struct fp8_kind *kind = fp8_kind(f);
    struct fp8_grid        g = fp8_grid(f, dst->n, dst->k);
    struct moe_plane       want[MOE_PLANES_MAX];
    uint32_t               n_planes;
    uint64_t               r, i, j, c, n, end;
    unsigned char         *code = (unsigned char *) (uintptr_t)
                              dst->plane[MOE_PLANE_ELEM];
    unsigned char         *scale = (unsigned char *) (uintptr_t)
                               dst->plane[MOE_PLANE_SCALE];
    float                  s;
    moe_status             st;

    st = fp8_planes(self, f, dst->n, dst->k, dst->scale_dtype, want, &n_planes,
                    err);
    if (st == MOE_OK)
        st = moe_lengths_check(f, want, n_planes, dst, err);
    if (st == MOE_OK)
        st = moe_encode_check(f, importance, dst, ld, err);
    for (r = 0; st == MOE_OK && r < dst->n; r++)
        st = moe_row_check(src + r * ld, dst->k, r, err);
    if (st != MOE_OK)
        return st;
    for (i = 0; i < g.rows; i++)
        for (j = 0; j < g.cols; j++) {
            c = j * g.group_k;
            n = dst->k - c < g.group_k ? dst->k - c : g.group_k;
            r = i * g.group_n;
            end = dst->n - r < g.group_n ? dst->n : r + g.group_n;
            for (s = 0.0f; r < end; r++)
                s = fp8_amax(src + r * ld + c, n, s);
            s = fp8_scale(s, kind, dst->scale_dtype);
            if (s == 0.0f)
                return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                                "weights from row %llu, column %llu on are "
                                "too large for a scale of type F16; choose "
                                "BF16 or F32",
                                (unsigned long long) (i * g.group_n),
                                (unsigned long long) c);
            moe_scale_store(scale, dst->scale_dtype, i * g.cols + j, s);
            for (r = i * g.group_n; r < end; r++)
                fp8_round_row(src + r * ld + c, n, s, kind,
                              code + r * dst->k + c);
        }
    return MOE_OK;
}

static const struct moe_quantizer_ops fp8_ops = {
    .struct_size = sizeof(struct moe_quantizer_ops),
    .n_formats = sizeof(fp8_formats) / sizeof(fp8_formats[0]),
    .formats = fp8_formats,
    .planes = fp8_planes,
    .check = fp8_check,
    .decode = fp8_decode,
    .affine = fp8_affine,
    .encode = fp8_encode,
};

MOE_PLUGIN_DEFINE(fp8) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_QUANTIZER,
    .name = "fp8",
    .version = "1",
    .license = "Apache-2.0",
    .summary = "8-bit floats E4M3 and E5M2, scaled per tensor, row or block",
    .ops = &fp8_ops,
    .init = moe_quant_init,
    .fini = moe_quant_fini,
};
