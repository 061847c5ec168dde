/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref_ops.h - every operation of moe/ops.h, in double, the plainest way.
 *
 * The oracle: written from moe/ops.h alone and for reading, not for speed.
 * The fake device computes with it and moe-conform compares with it.
 * Activations are f32; sums are double and rounded once at the end.  No
 * result depends on another row.
 */
#ifndef MOE_PLUGINS_COMMON_REF_OPS_H
#define MOE_PLUGINS_COMMON_REF_OPS_H

#include <moe/ops.h>

/* Memory of one extent of op_info.h; len: bytes to the end of the
 * allocation.  p NULL: absent. */
struct moe_span {
    void    *p;
    uint64_t len;
};

/* Where an operation's weights come from. */
struct moe_ref_weights {
    void *ctx;
    /* Row r of a part of group g's weights as k floats: in scratch, (k), or
     * anywhere.  NULL: it cannot be had. */
    const float *(*row)(void *ctx, uint32_t group, uint32_t part, uint64_t r,
                        float *scratch);
    /* n[] of each part. */
    const struct moe_shape *shape;
};

/* Bytes of scratch that moe_ref_run needs, from the payload's sizes. */
uint64_t moe_ref_scratch(const struct moe_op *op);

/*
 * Runs op.  s: its spans, in the order of op_info.h, none smaller than its
 * extent says.  w: NULL for an operation without weights.  scratch: aligned
 * for double.  Returns NULL, or what is wrong with the data (an id out of
 * range, say); part of the result may then be written.
 */
const char *moe_ref_run(const struct moe_op *op, const struct moe_span *s,
                        const struct moe_ref_weights *w, double *scratch);

/* F32, F16 or BF16, element i of p. */
double moe_ref_get(const void *p, uint32_t dtype, uint64_t i);
void   moe_ref_put(void *p, uint32_t dtype, uint64_t i, double v);

/* Element (r, c) of a matrix in an affine format. */
double moe_ref_affine(const struct moe_affine *a, const void *const *plane,
                      uint64_t r, uint64_t c);
/* Bytes of plane i (MOE_PLANE_*) of an n x k matrix; 0: there is none. */
uint64_t moe_ref_affine_bytes(const struct moe_affine *a, uint64_t n,
                              uint64_t k, uint32_t i);

#endif /* MOE_PLUGINS_COMMON_REF_OPS_H */
