/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op_info.h - what an operation touches: its rules and its buffers' sizes.
 *
 * One description of the payloads of moe/ops.h for those who must look at
 * any of them: the fake device resolves buffers with it, the check wrapper
 * rewrites and verifies them, moe-conform asks for sizes.
 */
#ifndef MOE_PLUGINS_COMMON_OP_INFO_H
#define MOE_PLUGINS_COMMON_OP_INFO_H

#include <moe/ops.h>

#define MOE_EXTENTS_MAX 12u

#define MOE_ACCESS_READ  1u
#define MOE_ACCESS_WRITE 2u
#define MOE_ACCESS_WORK  4u /* scratch: bytes as the plan says               */
#define MOE_ACCESS_OPEN  8u /* data decides how far: bytes is the least      */

/* One moe_buf of a payload.  The order of an operation's extents is that of
 * the MOE_X_* below, in every call. */
struct moe_extent {
    const char *field;    /* "x" */
    uint32_t    offset;   /* of the moe_buf in the payload */
    uint32_t    access;   /* MOE_ACCESS_* */
    uint32_t    optional; /* 1: may be absent */
    uint32_t    elem;     /* bytes of an element; off is a multiple of it */
    uint64_t    bytes;    /* needed from off on; 0: nothing is touched */
};

enum { MOE_X_EMBED_IDS, MOE_X_EMBED_Y };
enum { MOE_X_NORM_X, MOE_X_NORM_W, MOE_X_NORM_B, MOE_X_NORM_Y };
enum {
    MOE_X_GEMM_OFFSETS,
    MOE_X_GEMM_BIAS,
    MOE_X_GEMM_X,
    MOE_X_GEMM_Y,
    MOE_X_GEMM_WORK
};
enum {
    MOE_X_FFN_PERM,
    MOE_X_FFN_OFFSETS,
    MOE_X_FFN_WEIGHTS,
    MOE_X_FFN_X,
    MOE_X_FFN_Y,
    MOE_X_FFN_WORK,
    MOE_X_FFN_GATE_BIAS,
    MOE_X_FFN_UP_BIAS,
    MOE_X_FFN_DOWN_BIAS
};
enum {
    MOE_X_ROUTE_LOGITS,
    MOE_X_ROUTE_BIAS,
    MOE_X_ROUTE_IDS,
    MOE_X_ROUTE_WEIGHTS,
    MOE_X_ROUTE_OFFSETS,
    MOE_X_ROUTE_PERM
};
enum {
    MOE_X_COMBINE_PAIRS,
    MOE_X_COMBINE_WEIGHTS,
    MOE_X_COMBINE_SHARED,
    MOE_X_COMBINE_GATE,
    MOE_X_COMBINE_Y
};
enum {
    MOE_X_ROPE_QKV,
    MOE_X_ROPE_Q_NORM,
    MOE_X_ROPE_K_NORM,
    MOE_X_ROPE_FREQ,
    MOE_X_ROPE_POSITIONS,
    MOE_X_ROPE_SLOTS,
    MOE_X_ROPE_K,
    MOE_X_ROPE_V
};
enum {
    MOE_X_ATTN_Q,
    MOE_X_ATTN_Y,
    MOE_X_ATTN_SEQS,
    MOE_X_ATTN_POSITIONS,
    MOE_X_ATTN_PAGES,
    MOE_X_ATTN_SINKS,
    MOE_X_ATTN_K,
    MOE_X_ATTN_V,
    MOE_X_ATTN_WORK
};
enum { MOE_X_GATHER_INDEX, MOE_X_GATHER_X, MOE_X_GATHER_Y };

/* sizeof the payload of an operation code, 0 if unknown. */
uint32_t moe_op_size(uint32_t code);
/* "GROUPED_GEMM", "?" if unknown. */
const char *moe_op_name(uint32_t code);

/*
 * Checks a payload against the rules of moe/ops.h and lists its buffers.
 * launch 0: as query() sees it, sizes only; buffers, strides and host
 * pointers are not looked at and every extent's bytes is 0.  Returns how
 * many extents, or 0 with *bad: the rule that is broken (op code unknown,
 * size too small, sizes that do not fit each other).
 */
uint32_t moe_op_extents(const struct moe_op *op, int launch,
                        struct moe_extent out[MOE_EXTENTS_MAX],
                        const char      **bad);

/* The weights an operation refers to: how many wrefs (0: none). */
uint32_t moe_op_wrefs(const struct moe_op *op, const struct moe_wref **w);

/* The buffer of an extent. */
struct moe_buf *moe_extent_buf(struct moe_op *op, const struct moe_extent *x);

#endif /* MOE_PLUGINS_COMMON_OP_INFO_H */
