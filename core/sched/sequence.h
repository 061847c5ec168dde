/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sequence.h - one sequence, and the scheduler that holds it; for the files
 * of this room.
 */
#ifndef MOE_CORE_SCHED_SEQUENCE_H
#define MOE_CORE_SCHED_SEQUENCE_H

#include "sched/sched.h"
#include "support/str.h"

struct moe_sequence {
    struct moe_sequence *next, *prev; /* in the order they came */
    struct moe_sched    *sched;

    uint32_t *tokens;   /* prompt and output; room for the whole context */
    uint32_t  n_prompt;
    uint32_t  n_tokens;
    uint32_t  n_done;   /* tokens whose keys and values are in the cache */
    uint32_t *pages;    /* (max_pages) */
    uint32_t  n_pages;
    uint32_t  running, in_step;

    uint32_t   flags, max_tokens;
    uint32_t   finish;
    moe_status status;
    char       error[496];

    struct moe_sampler *sampler;
    struct moe_detok   *detok;
    struct moe_str      text;      /* decoded output, held-back end included */
    size_t              text_done; /* of it, what the caller may see */
    char              **stop;
    uint32_t            n_stop;
    size_t              stop_longest;
    double             *scores; /* (n_prompt) or NULL */
    uint32_t            n_scored; /* positions whose logits were scored */

    double t_submit, t_first, t_last;
    void (*on_logits)(void *ctx, uint32_t position, const float *logits,
                      uint32_t vocab);
    void *ctx;
};

struct moe_row_seq {
    moe_sequence *q;
    uint32_t      rows;
};

struct moe_out_row {
    moe_sequence *q;
    uint32_t      position;
};

struct moe_sched {
    struct moe_sched_setup s;
    uint32_t              *end_ids;
    moe_sequence          *first, *last;
    uint32_t               n_running;
    uint32_t              *free_pages; /* stack */
    uint32_t               n_free;
    /* the step under way */
    uint32_t           *lists, *tokens, *positions, *seqs, *slots, *out_rows;
    uint32_t           *pages; /* (sequences, max_pages) */
    uint32_t            n_rows, n_outs, n_row_seqs;
    struct moe_row_seq *row_seq;
    struct moe_out_row *outs;
};

moe_status moe_sequence_new(struct moe_sched *s, const struct moe_request *r,
                            const struct moe_sampling *sampling,
                            moe_sequence **out, struct moe_error *err);
/* Frees it; it is in no list any more. */
void       moe_sequence_release(moe_sequence *q);
/* The logits after the token at `position`: scores, sampling, stops. */
moe_status moe_sequence_logits(moe_sequence *q, uint32_t position,
                               const float *logits, struct moe_error *err);
void       moe_sequence_finish(moe_sequence *q, uint32_t finish);
/* Pages back, place free. */
void       moe_sched_leave(moe_sequence *q);

#endif /* MOE_CORE_SCHED_SEQUENCE_H */
