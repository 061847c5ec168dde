/* SPDX-License-Identifier: Apache-2.0 */
/*
 * internal.h - the runner's own structures, shared by the files of the room.
 *
 * A "set" is the matrices that share a slot: an expert's gate, up and down,
 * a layer's query, key and value.  Sets of one shape and one format form a
 * "group": one question to the backend, one slab of equal slots.
 */
#ifndef MOE_CORE_ENGINE_INTERNAL_H
#define MOE_CORE_ENGINE_INTERNAL_H

#include "engine/runner.h"
#include "memory/residency.h"
#include "model/weights.h"

#define MOE_NO_VEC UINT64_MAX

struct moe_group {
    struct moe_shape      shape;
    struct moe_format_ref src;      /* as the file has it; of part 0 */
    struct moe_format_ref fmt;      /* as the slot has it */
    uint32_t              scale_dtype; /* of the slot's format */
    uint32_t              op;       /* MOE_OP_* it was asked for */
    uint32_t              cls;      /* MOE_CLASS_*, for the explanation */
    uint32_t              expanded; /* decode() comes before the upload */
    uint32_t              dtype;    /* expanded to */
    uint32_t              has_affine;
    struct moe_affine     affine[MOE_PARTS_MAX];
    struct moe_plan       plan;
    uint64_t              n_sets;   /* sets that use the group */
    uint32_t              n_slots;
    uint32_t              routed;   /* slots are taken by routed experts */
    uint32_t              act;      /* MOE_ACT_* of a feed-forward */
    moe_slab             *slab;
    struct moe_residency *residency; /* routed, and not all fit */
    uint64_t              src_bytes; /* largest set in the file */
    uint64_t              dec_bytes; /* largest set decoded; 0 if it is not */
};

struct moe_set {
    uint32_t          group;
    uint32_t          slot;    /* fixed; of a routed expert: its key */
    uint32_t          n_parts;
    uint32_t          checked; /* its bytes have passed the format's check */
    struct moe_weight part[3];
};

struct moe_run_layer {
    uint32_t        n_qkv; /* 1: q, k and v share a slot; else 3 sets */
    struct moe_set  qkv[3];
    struct moe_set  o;
    struct moe_set  ffn;   /* dense layer */
    struct moe_set  router, shared, shared_gate;
    struct moe_set *experts; /* (n_experts) or NULL */
    uint32_t        moe;     /* number among the MoE layers */
    uint64_t        attn_norm, ffn_norm, q_norm, k_norm;
    uint64_t        qkv_bias, o_bias, sel_bias; /* offsets into vec */
    uint64_t        gate_bias, up_bias, down_bias; /* of a dense layer */
};

/* Where the parts of the activation memory begin, in bytes. */
struct moe_act_map {
    uint64_t x, xn, qkv, att, scores, ids, weights, offsets, perm, pairs;
    uint64_t shared, shared_gate, out, logits;
    uint64_t tokens, positions, seqs, slots, out_rows, pages; /* one upload */
    uint64_t ctl_bytes; /* of that upload, from tokens on */
    uint64_t work, work_bytes;
    uint64_t total;
};

/* A host buffer that the ledger knows of. */
struct moe_hostbuf {
    void      *p;
    uint64_t   bytes;
    moe_grant *grant;
};

struct moe_runner {
    struct moe_runner_setup s;
    struct moe_device_info  info;
    moe_device             *dev;
    moe_stream             *stream;
    moe_event              *event;

    struct moe_group     *groups;
    uint32_t              n_groups;
    struct moe_run_layer *layers;
    struct moe_set        embed, output; /* output.group unset when tied */
    uint32_t              n_moe;
    uint64_t              output_norm;

    float   *vec_host; /* until loaded */
    uint64_t n_vec, cap_vec; /* floats */
    uint64_t inv_freq;

    struct moe_runner_plan plan;
    struct moe_act_map     map;
    uint32_t               host_device; /* the device's memory is the host's */

    moe_mem           *act, *vec, *kv;
    moe_grant         *process;
    struct moe_hostbuf src, dec, ctl, logits, counts;
    uint32_t          *list;      /* (n_experts) experts of a pass */
    struct moe_wref   *list_w;    /* (n_experts) */
    uint32_t          *missing;   /* (n_experts) */

    struct moe_load          load;
    uint64_t                 loads, bytes_read;
    struct moe_runner_probe *probe; /* NULL: nobody measures */
    const struct moe_runner_tap *tap; /* NULL: nobody looks */
};

/* groups.c */
/* What the backend is told of a group's weights; points into *g. */
void moe_group_weights(const struct moe_group *g, struct moe_weights *w);
moe_status moe_runner_index(struct moe_runner *r, struct moe_error *err);
/* Scratch that a step of so many rows needs, over all operations. */
moe_status moe_runner_work(struct moe_runner *r, uint32_t rows,
                           uint32_t out_rows, uint32_t context,
                           uint64_t *bytes, struct moe_error *err);
uint32_t   moe_kv_row_bytes(const struct moe_runner *r, uint32_t dtype);

/* fill.c */
moe_status moe_hostbuf_open(struct moe_runner *r, const char *owner,
                            uint64_t bytes, struct moe_hostbuf *out,
                            struct moe_error *err);
void       moe_hostbuf_close(struct moe_runner *r, struct moe_hostbuf *b);
uint64_t   moe_host_round(uint64_t bytes);
/* Bytes of a set in staging, each plane at a multiple of 64; t, (n_parts) or
 * NULL: its matrices when it is staged at base. */
uint64_t   moe_set_stage(const struct moe_set *set, uint8_t *base,
                         struct moe_tensor *t);
/* Bytes [from, from + bytes) of a staged set from the files to dst, all of
 * them announced before.  Any thread. */
moe_status moe_set_read(const struct moe_runner *r, const struct moe_set *set,
                        uint64_t from, uint64_t bytes, void *dst,
                        struct moe_error *err);
/* The formats' check of a staged set, once in its life.  Any thread, one at a
 * time for each set. */
moe_status moe_set_check(const struct moe_runner *r, struct moe_set *set,
                         void *base, struct moe_error *err);
/* Decodes if need be and uploads a staged set; base is free afterwards. */
moe_status moe_set_upload(struct moe_runner *r, const struct moe_set *set,
                          uint32_t slot, void *base, struct moe_error *err);
/* Reads, checks and uploads a set into a slot. */
moe_status moe_runner_fill(struct moe_runner *r, struct moe_set *set,
                           uint32_t slot, struct moe_error *err);
void       moe_runner_want(const struct moe_runner *r,
                           const struct moe_set    *set);
moe_status moe_runner_wait(struct moe_runner *r, struct moe_error *err);

/* plan.c */
void moe_runner_map(const struct moe_runner *r, uint32_t rows,
                    uint32_t out_rows, uint32_t sequences, uint32_t max_pages,
                    uint64_t work, struct moe_act_map *map);

#endif /* MOE_CORE_ENGINE_INTERNAL_H */
