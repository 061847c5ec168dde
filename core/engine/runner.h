/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner.h - one decoder on one device: its weights, its memory, a step.
 *
 * Knows the model's description, formats and the backend's table; knows no
 * requests.  Life: open (index the weights, ask the backend for tiers), plan
 * (what fits where), load (reserve, allocate, fill), step ... close.
 *
 * Threads: one at a time.
 */
#ifndef MOE_CORE_ENGINE_RUNNER_H
#define MOE_CORE_ENGINE_RUNNER_H

#include "checkpoint/checkpoint.h"
#include "memory/ledger.h"
#include "memory/residency.h"
#include "model/arch.h"
#include "plugin/registry.h"
#include "route/load.h"
#include "support/str.h"

struct moe_runner;

struct moe_runner_setup {
    const struct moe_backend_ops *ops;
    void                         *self;
    const char                   *backend; /* name, for messages */
    uint32_t                      device;
    struct moe_registry          *registry;
    const struct moe_checkpoint  *checkpoint;
    const struct moe_arch        *arch;
    struct moe_ledger            *ledger;
    uint32_t                      batch_rows; /* rows a step, at most */
    uint32_t                      sequences;  /* at once, at most */
    uint32_t                      context;    /* 0: the model's, or what fits */
    uint32_t                      page_rows;
    uint32_t                      kv_dtype;   /* MOE_F32.., 0: by the weights */
    uint32_t                      min_tier;
    enum moe_eviction             eviction;
};

/* What the plan came to. */
struct moe_runner_plan {
    uint32_t rows;      /* a step */
    uint32_t out_rows;  /* whose logits are computed at once */
    uint32_t context;   /* tokens a sequence */
    uint32_t sequences; /* at once, at most */
    uint32_t pages;     /* KV pages in all */
    uint32_t page_rows;
    uint32_t max_pages; /* of a sequence */
    uint32_t kv_dtype;
    uint64_t slots, experts; /* expert slots, experts in all */
    uint64_t process;   /* of the program itself: code, heap, tokenizer */
    uint64_t dense, expert, kv, act, staging; /* bytes */
    uint64_t total;     /* host bytes if the device is the host, else device */
    uint64_t budget;
};

/* Rows of one step. */
struct moe_batch {
    uint32_t        rows;
    const uint32_t *tokens, *positions; /* (rows) */
    const uint32_t *seqs;   /* (rows) index of the row's page table */
    const uint32_t *slots;  /* (rows) cache row: page * page_rows + row */
    uint32_t        n_seqs;
    uint32_t        max_pages;
    const uint32_t *pages;  /* (n_seqs, max_pages) */
    uint32_t        n_out;
    const uint32_t *out_rows; /* (n_out) rows whose logits are wanted */
    /* logits: (vocab); called once for each, in order */
    moe_status (*on_logits)(void *ctx, uint32_t i, const float *logits,
                            struct moe_error *err);
    void *ctx;
    /* Nonzero: end the step at the next layer with MOE_E_CANCELED. */
    int (*canceled)(void *ctx);
};

/*
 * What a measurement wants to know of the steps; nothing is counted unless a
 * probe is set.  One entry for each operation of moe_runner_at_name.
 */
enum moe_runner_at {
    MOE_AT_EMBED, MOE_AT_NORM, MOE_AT_QKV, MOE_AT_ROPE, MOE_AT_ATTENTION,
    MOE_AT_OUT, MOE_AT_ROUTER, MOE_AT_ROUTE, MOE_AT_EXPERTS, MOE_AT_SHARED,
    MOE_AT_DENSE, MOE_AT_COMBINE, MOE_AT_HEAD, MOE_AT_LOAD, MOE_AT_PICK,
    MOE_AT_COUNT
};

struct moe_runner_probe {
    int      timed; /* wait after each operation and take its time */
    double   seconds[MOE_AT_COUNT];
    uint64_t calls[MOE_AT_COUNT];
    /* Bytes of slots that the step must read, each once: of experts, those
     * that got a row.  Of MOE_AT_ATTENTION: cached keys and values, once a
     * sequence. */
    uint64_t bytes[MOE_AT_COUNT];
    /* Two for each weight and row; attention's scores are left out. */
    double   ops[MOE_AT_COUNT];
};

/*
 * Someone who wants to see what goes into the weights.  For each layer and
 * kind, `place` says where `rows` rows go, or NULL; they are there when the
 * step ends.
 */
enum moe_tap_what {
    MOE_TAP_QKV,     /* f32 (rows, hidden), normed */
    MOE_TAP_OUT,     /* f32 (rows, heads * v_dim) */
    MOE_TAP_FFN,     /* f32 (rows, hidden), normed */
    MOE_TAP_IDS,     /* u32 (rows, top_k): experts; of MoE layers */
    MOE_TAP_WEIGHTS  /* f32 (rows, top_k) */
};

struct moe_runner_tap {
    void *(*place)(void *ctx, uint32_t layer, enum moe_tap_what what,
                   uint32_t rows);
    void *ctx;
};

moe_status moe_runner_open(const struct moe_runner_setup *setup,
                           struct moe_runner **out, struct moe_error *err);
void       moe_runner_close(struct moe_runner *r);

/*
 * Decides rows, context, sequences and slots.  budget: ceiling of the host
 * in bytes, process: what the process itself needs, peak: the most it has
 * already had.  MOE_E_OVER_BUDGET names the smallest budget that works.
 */
moe_status moe_runner_make_plan(struct moe_runner *r, uint64_t budget,
                                uint64_t process, uint64_t peak,
                                struct moe_runner_plan *out,
                                struct moe_error *err);
/* Allocates and fills by the plan.  canceled as in struct moe_batch. */
moe_status moe_runner_load(struct moe_runner *r, int (*canceled)(void *ctx),
                           void *ctx, struct moe_error *err);
moe_status moe_runner_step(struct moe_runner *r, const struct moe_batch *b,
                           struct moe_error *err);

/* From the next step on; NULL: no more. */
void moe_runner_tap(struct moe_runner *r, const struct moe_runner_tap *t);

/* Counts into *p from the next step on; NULL: no more. */
void        moe_runner_probe(struct moe_runner *r, struct moe_runner_probe *p);
const char *moe_runner_at_name(uint32_t at); /* "expert ffn" */

const struct moe_load *moe_runner_expert_load(const struct moe_runner *r);
/* Format in which a class of weights (MOE_CLASS_*) is computed, the first of
 * several; NULL: the model has none. */
const char *moe_runner_format(const struct moe_runner *r, uint32_t cls);
uint64_t moe_runner_weight_bytes(const struct moe_runner *r);
void     moe_runner_io(const struct moe_runner *r, uint64_t *hits,
                       uint64_t *loads, uint64_t *bytes);
/* The plan as a table or as the members of a JSON object. */
void moe_runner_explain(const struct moe_runner *r,
                        const struct moe_runner_plan *plan, int json,
                        struct moe_str *out);

#endif /* MOE_CORE_ENGINE_RUNNER_H */
