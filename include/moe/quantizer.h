/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe/quantizer.h - a weight format: what its bytes mean.
 *
 * A quantizer knows formats and no backend.  decode() IS the definition of
 * the format: a pure function from bytes to numbers, the same bits on every
 * machine.  Every kernel, anywhere, is tested against it.
 *
 * A matrix in a format is one to four planes (elements, scales, zero
 * points), each a tensor of its own in the checkpoint.  Matrices are n x k:
 * n output rows, k inputs, row-major, as checkpoints store them.
 *
 * Threads: all functions may be called from many threads at once; none may
 * allocate, lock or log, except encode().
 */

#ifndef MOE_QUANTIZER_H
#define MOE_QUANTIZER_H

#include <moe/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * How a format calls itself in a checkpoint's quantization_config, in the
 * words of compressed-tensors.  The core finds the format of a file by
 * comparing these fields, so a new format needs no change in the core.
 * storage NULL: a plain tensor, recognised by the dtype of its one plane.
 */
struct moe_scheme {
    uint32_t    struct_size;
    uint32_t    num_bits;   /* 8, 4                                           */
    uint32_t    group_size; /* along k, for "group"; else 0                   */
    uint32_t    block_n, block_k; /* for "block"; else 0                      */
    uint32_t    symmetric;  /* 1 or 0                                         */
    const char *storage;    /* "pack-quantized", "float-quantized", ...       */
    const char *type;       /* "int", "float"                                 */
    const char *strategy;   /* "tensor", "channel", "group", "block"          */
    const char *elem;       /* safetensors dtype of the element plane: "I32",
                               "F8_E4M3", "F8_E5M2", "BF16", ...              */
};
MOE_NO_TAIL(moe_scheme, elem);

/*
 * A format is named by a string and a revision; there is no central list of
 * numbers to extend.  "f32", "f16" and "bf16" (revision 1) are the universal
 * formats: one plane of plain numbers.
 */
struct moe_format {
    uint32_t          struct_size;
    uint32_t          revision;   /* new meaning, new revision                */
    const char       *id;         /* "int4-g32"                               */
    const char       *summary;    /* one line for people                      */
    uint32_t          k_multiple; /* k must be a multiple of this             */
    uint32_t          n_multiple;
    uint32_t          bits_x1000; /* 4500: 4.5 bits a weight, scales included,
                                     for a large matrix                       */
    uint32_t          nmse_x1e9;  /* error a kernel may add over decode + f32
                                     GEMM: sum of squared differences over
                                     sum of squares, x 1e9                    */
    struct moe_scheme scheme;
};
MOE_NO_TAIL(moe_format, scheme);

#define MOE_PLANES_MAX  4u
#define MOE_PLANE_ELEM  0u
#define MOE_PLANE_SCALE 1u
#define MOE_PLANE_ZERO  2u

/* One plane of an n x k matrix, as a checkpoint stores it. */
struct moe_plane {
    uint32_t struct_size;
    uint32_t n_dims;     /* 1 or 2                                            */
    uint64_t dim[2];
    uint64_t bytes;
    char     suffix[32]; /* after the module's name: "weight_packed"          */
    char     dtype[16];  /* safetensors: "I32", "BF16", "F8_E4M3"             */
};
MOE_NO_TAIL(moe_plane, dtype);

/* A matrix in host memory.  Who fills it keeps the memory. */
struct moe_tensor {
    uint32_t    struct_size;
    uint32_t    scale_dtype; /* of the scale plane: MOE_F32, F16 or BF16; 0
                                if the format has none, or one type only      */
    uint64_t    n, k;
    const void *plane[MOE_PLANES_MAX]; /* NULL: not there                     */
    uint64_t    len[MOE_PLANES_MAX];   /* bytes                               */
};
MOE_NO_TAIL(moe_tensor, len);

/*
 * Optional description of one n x k tensor in an affine format:
 *
 *   w[r][c] = scale[r / group_n][c / group_k]
 *             * (elem(r, c) - bias - zero[r / group_n][c / group_k])
 *
 * A backend that can follow this expands ANY such format by itself, so a new
 * format of this family needs no new kernel to stay off the host path.
 * Elements lie in plane 0.  Element (r, c) is the elem_bits bits that begin
 * at bit elem_bits * (c % block_k) of the bytes from
 *   r * elem_row + (c / block_k) * elem_block
 * counted from the least significant bit of the first byte up.  The scale of
 * group (i, j) is at i * scale_row + j * scale_group of plane 1.  The zero
 * point of group (i, j) is the zero_bits bits, counted likewise, from bit
 *   zero_bits * (i % zero_block_n) of the bytes at
 *   (i / zero_block_n) * zero_row + j * zero_group
 * of plane 2, unsigned, minus zero_bias.
 */
#define MOE_ELEM_UINT 1u /* unsigned, elem_bits wide                          */
#define MOE_ELEM_INT  2u /* two's complement                                  */
#define MOE_ELEM_E4M3 3u
#define MOE_ELEM_E5M2 4u
#define MOE_ELEM_E2M1 5u
#define MOE_ELEM_LUT  6u /* index into lut[]                                  */
#define MOE_ELEM_F16  7u
#define MOE_ELEM_BF16 8u
#define MOE_ELEM_F32  9u

#define MOE_SCALE_NONE 0u /* 1                                                */
#define MOE_SCALE_F32  1u
#define MOE_SCALE_F16  2u
#define MOE_SCALE_BF16 3u
#define MOE_SCALE_E8M0 4u

struct moe_affine {
    uint32_t struct_size;
    uint32_t elem, elem_bits;
    uint32_t scale;            /* MOE_SCALE_*                                 */
    int32_t  bias;             /* subtracted from every element               */
    uint32_t zero_bits;        /* 0: no zero points                           */
    int32_t  zero_bias;
    uint32_t zero_block_n;
    uint32_t group_n, group_k; /* one scale for this many rows x columns; a
                                  ragged last group is legal                  */
    uint32_t block_k, reserved;
    uint64_t elem_row, elem_block;
    uint64_t scale_row, scale_group;
    uint64_t zero_row, zero_group;
    float    lut[16];
};
MOE_NO_TAIL(moe_affine, lut);

struct moe_quantizer_ops {
    uint32_t struct_size;
    uint32_t n_formats;
    const struct moe_format *const *formats;

    /*
     * The planes of an n x k matrix whose scales are scale_dtype.  Sets
     * out[0 .. *n_planes).  MOE_E_UNSUPPORTED: n or k does not fit the format
     * (k_multiple, n_multiple), or the scale type is none it knows.
     */
    moe_status (*planes)(void *self, const struct moe_format *f, uint64_t n,
                         uint64_t k, uint32_t scale_dtype,
                         struct moe_plane out[MOE_PLANES_MAX],
                         uint32_t *n_planes, struct moe_error *err);

    /* Model files are not trusted: called once per tensor before decode() or
     * any kernel sees the bytes.  MOE_E_CORRUPT if they cannot be right: a
     * plane of the wrong length, a scale that is NaN or infinite, an element
     * code that is NaN. */
    moe_status (*check)(void *self, const struct moe_format *f,
                        const struct moe_tensor *t, struct moe_error *err);

    /* Rows [row0, row0 + rows) as dtype (MOE_F32, F16 or BF16; rounded to
     * nearest, ties to even) to dst, ld elements apart.  Cannot fail on
     * bytes that check() accepted, but for a dtype it does not know. */
    moe_status (*decode)(void *self, const struct moe_format *f,
                         const struct moe_tensor *t, uint64_t row0,
                         uint64_t rows, uint32_t dtype, void *dst,
                         uint64_t ld);

    /* Optional from here on. */
    moe_status (*affine)(void *self, const struct moe_format *f, uint64_t n,
                         uint64_t k, uint32_t scale_dtype,
                         struct moe_affine *out);

    /*
     * f32 to the format.  src: n x k, ld elements apart.  importance: k
     * weights for the squared error, or NULL.  dst has the planes that
     * planes() described, writable despite the const.  A NaN or an infinity
     * in src is MOE_E_CORRUPT and names row and column.
     */
    moe_status (*encode)(void *self, const struct moe_format *f,
                         const float *src, uint64_t ld,
                         const float *importance,
                         const struct moe_tensor *dst, struct moe_error *err);
};
MOE_NO_TAIL(moe_quantizer_ops, encode);

#ifdef __cplusplus
}
#endif
#endif /* MOE_QUANTIZER_H */
