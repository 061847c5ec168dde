/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fp16.c - the universal formats: plain f32, f16 and bf16 numbers.
 *
 * Owns their meaning and the conversions between them.  No scales, no
 * packing: the formats that every backend can read, and what any other
 * format expands to.
 */

#include "common/quant.h"

static const struct moe_format fp16_f32 = {
    .struct_size = sizeof(struct moe_format),
    .revision = 1,
    .id = "f32",
    .summary = "32-bit IEEE 754 numbers",
    .k_multiple = 1,
    .n_multiple = 1,
    .bits_x1000 = 32000,
    .nmse_x1e9 = 1, /* order of summation only */
    .scheme = { .struct_size = sizeof(struct moe_scheme),
                .num_bits = 32,
                .symmetric = 1,
                .storage = NULL,
                .type = "float",
                .strategy = "tensor",
                .elem = "F32" },
};

static const struct moe_format fp16_f16 = {
    .struct_size = sizeof(struct moe_format),
    .revision = 1,
    .id = "f16",
    .summary = "16-bit IEEE 754 numbers, 11 significant bits",
    .k_multiple = 1,
    .n_multiple = 1,
    .bits_x1000 = 16000,
    .nmse_x1e9 = 10000, /* activations rounded to f16 between two products */
    .scheme = { .struct_size = sizeof(struct moe_scheme),
                .num_bits = 16,
                .symmetric = 1,
                .storage = NULL,
                .type = "float",
                .strategy = "tensor",
                .elem = "F16" },
};

static const struct moe_format fp16_bf16 = {
    .struct_size = sizeof(struct moe_format),
    .revision = 1,
    .id = "bf16",
    .summary = "bfloat16 numbers, 8 significant bits",
    .k_multiple = 1,
    .n_multiple = 1,
    .bits_x1000 = 16000,
    .nmse_x1e9 = 100000, /* activations rounded to bf16 likewise */
    .scheme = { .struct_size = sizeof(struct moe_scheme),
                .num_bits = 16,
                .symmetric = 1,
                .storage = NULL,
                .type = "float",
                .strategy = "tensor",
                .elem = "BF16" },
};

static const struct moe_format *const fp16_formats[] = { &fp16_f32, &fp16_f16,
                                                         &fp16_bf16 };

static uint32_t
fp16_dtype(const struct moe_format *f)
{
    return f == &fp16_f32 ? MOE_F32 : f == &fp16_f16 ? MOE_F16 : MOE_BF16;
}

static moe_status
fp16_planes(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
            uint32_t scale_dtype, struct moe_plane out[MOE_PLANES_MAX],
            uint32_t *n_planes, struct moe_error *err)
{
    moe_status st = moe_shape_check(f, n, k, err);

    (void) self;
    (void) scale_dtype; /* there are no scales */
    if (st != MOE_OK)
        return st;
    if (!moe_plane_set(&out[MOE_PLANE_ELEM], "weight", f->scheme.elem,
                       moe_dtype_size(fp16_dtype(f)), 2, n, k))
        return moe_too_large(f, n, k, err);
    *n_planes = 1;
    return MOE_OK;
}

/* Numbers [at, at + n) of the plane as f32. */
static void
fp16_load(uint32_t from, const void *plane, uint64_t at, uint64_t n, float *dst)
{
    const unsigned char *p = plane;

    if (from == MOE_F32)
        memcpy(dst, p + 4 * at, 4 * n);
    else if (from == MOE_F16)
        moe_f16_widen_row(p + 2 * at, n, dst);
    else
        moe_bf16_widen_row(p + 2 * at, n, dst);
}

#define FP16_CHUNK 256u /* numbers converted at a time, on the stack */

static moe_status
fp16_check(void *self, const struct moe_format *f, const struct moe_tensor *t,
           struct moe_error *err)
{
    struct moe_plane want[MOE_PLANES_MAX];
    uint32_t         n_planes, from = fp16_dtype(f);
    uint64_t         r, c, j, n;
    float            x[FP16_CHUNK];
    moe_status       st;

    st = fp16_planes(self, f, t->n, t->k, 0, want, &n_planes, err);
    if (st == MOE_OK)
        st = moe_lengths_check(f, want, n_planes, t, err);
    for (r = 0; st == MOE_OK && r < t->n; r++)
        for (c = 0; c < t->k; c += n) {
            n = t->k - c < FP16_CHUNK ? t->k - c : FP16_CHUNK;
            fp16_load(from, t->plane[MOE_PLANE_ELEM], r * t->k + c, n, x);
            if (moe_row_is_finite(x, n))
                continue;
            for (j = 0; j < n - 1 && fabsf(x[j]) <= FLT_MAX;)
                j++;
            return moe_fail(err, MOE_E_CORRUPT, 0,
                            "weight at row %llu, column %llu is %s; the file "
                            "is damaged",
                            (unsigned long long) r,
                            (unsigned long long) (c + j),
                            isnan(x[j]) ? "NaN" : "infinite");
        }
    return st;
}

static moe_status
fp16_decode(void *self, const struct moe_format *f, const struct moe_tensor *t,
            uint64_t row0, uint64_t rows, uint32_t dtype, void *dst,
            uint64_t ld)
{
    moe_status           st = moe_decode_check(t, row0, rows, dtype, ld);
    uint32_t             from = fp16_dtype(f);
    const unsigned char *src = t->plane[MOE_PLANE_ELEM];
    uint32_t             size = moe_dtype_size(dtype);
    uint64_t             r, c, n;
    float                x[FP16_CHUNK];

    (void) self;
    if (st != MOE_OK)
        return st;
    for (r = 0; r < rows; r++) {
        if (from == dtype) {
            memcpy((unsigned char *) dst + r * ld * size,
                   src + (row0 + r) * t->k * size, t->k * size);
            continue;
        }
        for (c = 0; c < t->k; c += n) {
            n = t->k - c < FP16_CHUNK ? t->k - c : FP16_CHUNK;
            fp16_load(from, src, (row0 + r) * t->k + c, n, x);
            moe_row_store(x, n, dtype, dst, r * ld + c);
        }
    }
    return MOE_OK;
}

static moe_status
fp16_affine(void *self, const struct moe_format *f, uint64_t n, uint64_t k,
            uint32_t scale_dtype, struct moe_affine *out)
{
    uint32_t from = fp16_dtype(f);
    uint32_t size = moe_dtype_size(from);

    (void) self;
    (void) n;
    (void) scale_dtype;
    memset(out, 0, sizeof(*out));
    out->struct_size = sizeof(*out);
    out->elem = from == MOE_F32   ? MOE_ELEM_F32
                : from == MOE_F16 ? MOE_ELEM_F16
                                  : MOE_ELEM_BF16;
    out->elem_bits = 8 * size;
    out->scale = MOE_SCALE_NONE;
    out->zero_block_n = 1;
    out->group_n = UINT32_MAX;
    out->group_k = UINT32_MAX;
    out->block_k = 1;
    out->elem_row = k * size;
    out->elem_block = size;
    return MOE_OK;
}

static moe_status
fp16_encode(void *self, const struct moe_format *f, const float *src,
            uint64_t ld, const float *importance, const struct moe_tensor *dst,
            struct moe_error *err)
{
    uint32_t         to = fp16_dtype(f), n_planes;
    struct moe_plane want[MOE_PLANES_MAX];
    unsigned char   *out = (unsigned char *) (uintptr_t)
                             dst->plane[MOE_PLANE_ELEM];
    uint64_t         r, c;
    /* the first number that rounds to infinity */
    float            end = to == MOE_F16    ? 65520.0f
                           : to == MOE_BF16 ? 0x1.ffp127f
                                            : INFINITY;
    moe_status       st;

    st = fp16_planes(self, f, dst->n, dst->k, 0, want, &n_planes, err);
    if (st == MOE_OK)
        st = moe_lengths_check(f, want, n_planes, dst, err);
    if (st == MOE_OK)
        st = moe_encode_check(f, importance, dst, ld, err);
    for (r = 0; st == MOE_OK && r < dst->n; r++) {
        const float *x = src + r * ld;

        st = moe_row_check(x, dst->k, r, err);
        for (c = 0; to != MOE_F32 && st == MOE_OK && c < dst->k; c++)
            if (fabsf(x[c]) >= end)
                st = moe_fail(err, MOE_E_UNSUPPORTED, 0,
                              "weight %g at row %llu, column %llu does not "
                              "fit %s; choose %s for this matrix",
                              (double) x[c], (unsigned long long) r,
                              (unsigned long long) c, f->id,
                              to == MOE_F16 ? "bf16" : "f32");
        if (st == MOE_OK)
            moe_row_store(x, dst->k, to, out, r * dst->k);
    }
    return st;
}

static const struct moe_quantizer_ops fp16_ops = {
    .struct_size = sizeof(struct moe_quantizer_ops),
    .n_formats = sizeof(fp16_formats) / sizeof(fp16_formats[0]),
    .formats = fp16_formats,
    .planes = fp16_planes,
    .check = fp16_check,
    .decode = fp16_decode,
    .affine = fp16_affine,
    .encode = fp16_encode,
};

MOE_PLUGIN_DEFINE(fp16) = {
    MOE_PLUGIN_HEADER,
    .kind = MOE_KIND_QUANTIZER,
    .name = "fp16",
    .version = "1",
    .license = "Apache-2.0",
    .summary = "f32, f16, bf16: plain numbers",
    .ops = &fp16_ops,
    .init = moe_quant_init,
    .fini = moe_quant_fini,
};
