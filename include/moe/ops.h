/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe/ops.h - the operations of a decoder, as payloads of launch().
 *
 * A step over a batch has R rows: one row is one token of one sequence at
 * one position.  Whatever depends on the data (ids, positions, pages, how
 * many rows an expert got) lies in device memory, so a whole decode step can
 * be put on a stream without the host waiting for the device.
 *
 * Every result row is a function of its own inputs alone: neither the other
 * rows of a launch, nor how rows are split over launches, nor the number of
 * threads may change a bit of it.  Sums have a fixed order.
 *
 * Activations (x, y, pairs, logits, router scores) have the type named by
 * dtype; MOE_F32 must be known, others make query() say no.  ld* count
 * elements.  Norm weights, biases, frequencies and sinks are f32.  A moe_buf
 * whose mem is NULL means "absent" where a field says so.
 *
 * New fields are appended, new operations get new codes.
 */

#ifndef MOE_OPS_H
#define MOE_OPS_H

#include <moe/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y[i][0..k) = scale * row ids[i] of the table w, an n x k matrix.
 * ids: (rows) u32, each below n. */
struct moe_op_embed {
    struct moe_op   op;
    uint32_t        rows, n, k;
    uint32_t        dtype;
    float           scale;
    uint32_t        reserved;
    struct moe_wref w;
    struct moe_buf  ids;
    struct moe_buf  y; /* (rows, k) */
    uint64_t        ldy;
};
MOE_NO_TAIL(moe_op_embed, ldy);

#define MOE_NORM_RMS   1u /* x / sqrt(mean(x^2) + eps) * w                    */
#define MOE_NORM_LAYER 2u /* (x - mean) / sqrt(var + eps) * w + b             */

/* y = norm(x) over n elements a row.  y may be x.  w, b: (n) f32; absent: 1
 * and 0. */
struct moe_op_norm {
    struct moe_op  op;
    uint32_t       rows, n;
    uint32_t       kind;
    uint32_t       dtype;
    float          eps;
    uint32_t       reserved;
    struct moe_buf x; /* (rows, n) */
    struct moe_buf w, b;
    struct moe_buf y; /* (rows, n) */
    uint64_t       ldx, ldy;
};
MOE_NO_TAIL(moe_op_norm, ldy);

/*
 * y[i] = x[i] * W(group of i)^T (+ bias), for rows in groups.
 *
 * The result has the outputs of parts [w.part, w.part + n_parts) side by
 * side, n columns in all: query, key and value in one launch.  All groups
 * share n and k (the experts of a layer have one shape); only the rows vary.
 * A dense product is n_groups = 1 with offsets absent: all rows.
 *
 * offsets: (n_groups + 1) u32 on the device; group g has rows
 * [offsets[g], offsets[g + 1]).  A group of no rows is legal and costs
 * nothing; `rows` is then an upper bound of offsets[n_groups].
 */
#define MOE_GEMM_ACCUMULATE 1u /* op.flags: y += instead of y =               */

struct moe_op_grouped_gemm {
    struct moe_op          op;
    uint32_t               n_groups, rows;
    uint32_t               n, k;
    uint32_t               n_parts;
    uint32_t               dtype;
    const struct moe_wref *w;       /* n_groups, slabs of one plan; read
                                       before the call returns                */
    struct moe_buf         offsets; /* absent: one group                      */
    struct moe_buf         bias;    /* (n) f32 or absent; n_groups == 1       */
    struct moe_buf         x;       /* (rows, k) */
    struct moe_buf         y;       /* (rows, n) */
    uint64_t               ldx, ldy;
    struct moe_buf         work;    /* moe_plan.work_bytes of scratch         */
};
MOE_NO_TAIL(moe_op_grouped_gemm, work);

/* One layer's part of the paged KV cache.  Element d of head h in row s of
 * page p is at ((p * kv_heads + h) * page_rows + s) * dim + d, counted in
 * elements of dtype from k (dim = k_dim) or v (dim = v_dim). */
struct moe_kv {
    uint32_t       struct_size;
    uint32_t       dtype; /* one of moe_device_info.kv_dtypes */
    uint32_t       page_rows;
    uint32_t       kv_heads;
    uint32_t       k_dim, v_dim;
    struct moe_buf k, v;
};
MOE_NO_TAIL(moe_kv, v);

#define MOE_ROPE_HALF        0u /* pairs (i, i + rot_dim / 2)                 */
#define MOE_ROPE_INTERLEAVED 1u /* pairs (2i, 2i + 1)                         */

/*
 * The step between the projections and attention, in place on a (rows, ld)
 * buffer that holds heads query heads of k_dim, kv_heads key heads of k_dim
 * and kv_heads value heads of v_dim:
 *   1. RMS-normalise queries and keys: each head on its own (norm_span 1) or
 *      all heads of a row together (norm_span 2); 0: not at all.  q_norm and
 *      k_norm have k_dim weights, or heads * k_dim and kv_heads * k_dim.
 *   2. clip every element of q, k and v to [-clip, clip] when clip > 0.
 *   3. rotate the first rot_dim elements of each query and key head by
 *      positions[i] * inv_freq[j] and multiply these elements, not the
 *      others, by rope_scale (the attention factor of scaled ropes; 1
 *      otherwise).  rot_dim 0: none.
 *   4. store keys and values in the cache row slots[i] = page * page_rows +
 *      row in page.
 * positions, slots: (rows) u32, no slot twice.  inv_freq: (rot_dim / 2) f32.
 */
struct moe_op_rope_kv {
    struct moe_op  op;
    uint32_t       rows;
    uint32_t       heads;
    uint32_t       dtype;
    uint32_t       rot_dim, rope_kind;
    uint32_t       norm_span;
    float          norm_eps, clip, rope_scale;
    uint32_t       reserved;
    struct moe_kv  kv;
    struct moe_buf qkv; /* (rows, ld) */
    uint64_t       ld;
    struct moe_buf q_norm, k_norm;
    struct moe_buf inv_freq;
    struct moe_buf positions, slots;
};
MOE_NO_TAIL(moe_op_rope_kv, slots);

/*
 * Causal attention over paged KV.  Row i belongs to sequence seqs[i], whose
 * pages are pages[seqs[i] * max_pages + j]; it sees its sequence's positions
 * p <= positions[i], and of these
 *   window > 0: only p > positions[i] - window;
 *   chunk > 0:  only those with p / chunk == positions[i] / chunk.
 * Query head h uses KV head h / (heads / kv_heads).  Scores are multiplied
 * by scale; softcap > 0: softcap * tanh(score / softcap); sinks, (heads) f32
 * or absent, add exp(sink) to a head's softmax denominator.
 * q: heads queries of k_dim a row.  y: heads results of v_dim a row.
 */
struct moe_op_attention {
    struct moe_op  op;
    uint32_t       rows;
    uint32_t       heads;
    uint32_t       dtype;
    uint32_t       window, chunk;
    uint32_t       n_seqs, max_pages;
    uint32_t       max_context; /* no position of this launch reaches it      */
    float          scale, softcap;
    struct moe_kv  kv;
    struct moe_buf q; /* (rows, ldq) */
    uint64_t       ldq;
    struct moe_buf y; /* (rows, ldy) */
    uint64_t       ldy;
    struct moe_buf seqs, positions; /* (rows) u32 */
    struct moe_buf pages;           /* (n_seqs, max_pages) u32 */
    struct moe_buf sinks;
    struct moe_buf work;
};
MOE_NO_TAIL(moe_op_attention, work);

/*
 * Router scores to the k chosen experts of each row.
 *   score   SOFTMAX: softmax over all experts; SIGMOID: of each one;
 *           TOPK_SOFTMAX: choose by raw score, softmax over the chosen.
 *   select  by score + sel_bias (absent: 0); n_group > 1: only within the
 *           topk_group groups of experts whose two best sum highest.
 *   weight  the score without bias; renorm: divided by the row's sum (plus
 *           1e-20); times scale.
 * The k are in descending order of selection, the lower id first in a tie.
 * Results, all on the device:
 *   ids (rows, k) u32; weights (rows, k) f32;
 *   offsets (n_experts + 1) u32: expert e owns perm[offsets[e]..offsets[e+1]);
 *   perm (rows * k) u32: pair numbers row * k + j, ascending per expert.
 */
#define MOE_SCORE_SOFTMAX      1u
#define MOE_SCORE_SIGMOID      2u
#define MOE_SCORE_TOPK_SOFTMAX 3u

struct moe_op_route {
    struct moe_op  op;
    uint32_t       rows, n_experts, k;
    uint32_t       score;
    uint32_t       n_group, topk_group;
    uint32_t       renorm;
    float          scale;
    struct moe_buf logits; /* (rows, ld) */
    uint64_t       ld;
    struct moe_buf sel_bias; /* (n_experts) f32 or absent */
    struct moe_buf ids, weights, offsets, perm;
};
MOE_NO_TAIL(moe_op_route, perm);

#define MOE_ACT_SILU      1u
#define MOE_ACT_GELU      2u /* erf                                           */
#define MOE_ACT_GELU_TANH 3u
#define MOE_ACT_RELU      4u

/*
 * Gated feed-forward: down(act(gate(x)) * up(x)), slots of shape GATE, UP
 * (f x h) and DOWN (h x f).
 *
 * Routed (perm present): for each listed group g, pairs perm[offsets[e] ..
 * offsets[e + 1]) with e = experts[g]; pair p reads x[p / k] and writes
 * y[p], unweighted (MOE_FFN_SCALE_INPUT: x is first multiplied by
 * weights[p]).  The groups may be any subset of the experts: a layer whose
 * experts do not all fit runs in several launches, and the bits are those of
 * one.  experts and w are read before the call returns.
 *
 * Dense (perm absent): n_groups 1, k 1, every row; y[i] = or, with
 * MOE_FFN_ACCUMULATE, +=.  Only here may biases be present: act(gate(x) +
 * gate_bias) * (up(x) + up_bias), and down_bias, all f32.
 */
#define MOE_FFN_SCALE_INPUT 1u
#define MOE_FFN_ACCUMULATE  2u

struct moe_op_grouped_ffn {
    struct moe_op          op;
    uint32_t               n_groups, rows, k;
    uint32_t               h, f;
    uint32_t               act;
    uint32_t               dtype;
    uint32_t               reserved;
    const uint32_t        *experts; /* (n_groups) */
    const struct moe_wref *w;       /* (n_groups), part ignored */
    struct moe_buf         perm, offsets, weights;
    struct moe_buf         x; /* (rows, h) */
    struct moe_buf         y; /* (rows * k, h) */
    uint64_t               ldx, ldy;
    struct moe_buf         work;
    struct moe_buf         gate_bias, up_bias; /* (f) or absent */
    struct moe_buf         down_bias;          /* (h) or absent */
};
MOE_NO_TAIL(moe_op_grouped_ffn, down_bias);

/*
 * y[i] += sum over j of weights[i][j] * pairs[i * k + j], in the order of j,
 * then + g * shared[i], with g = sigmoid(shared_gate[i]) or 1.
 * MOE_COMBINE_UNWEIGHTED: the weights were applied to the input.
 * shared (rows, h) and shared_gate (rows) may be absent.
 */
#define MOE_COMBINE_UNWEIGHTED 1u

struct moe_op_combine {
    struct moe_op  op;
    uint32_t       rows, k, h;
    uint32_t       dtype;
    struct moe_buf pairs; /* (rows * k, ldp) */
    uint64_t       ldp;
    struct moe_buf weights; /* (rows, k) f32 */
    struct moe_buf shared;  /* (rows, lds) */
    uint64_t       lds;
    struct moe_buf shared_gate; /* (rows) */
    struct moe_buf y;           /* (rows, ldy) */
    uint64_t       ldy;
};
MOE_NO_TAIL(moe_op_combine, ldy);

/* y[i] = x[index[i]]; index: (rows) u32.  The rows whose logits are wanted. */
struct moe_op_gather {
    struct moe_op  op;
    uint32_t       rows, n;
    uint32_t       dtype;
    uint32_t       reserved;
    struct moe_buf index;
    struct moe_buf x, y; /* (.., n), (rows, n) */
    uint64_t       ldx, ldy;
};
MOE_NO_TAIL(moe_op_gather, ldy);

#ifdef __cplusplus
}
#endif
#endif /* MOE_OPS_H */
