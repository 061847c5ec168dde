/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sched.h - sequences to batches, and tokens back to sequences.
 *
 * Owns the sequences, the pages of the KV cache and the order in which they
 * get rows of a step.  Knows no layers and no weights: a step is rows in,
 * logits out.
 *
 * Threads: one at a time.
 */
#ifndef MOE_CORE_SCHED_H
#define MOE_CORE_SCHED_H

#include <moe/moe.h>

#include "text/sampler.h"
#include "text/tokenizer.h"

struct moe_sched;

struct moe_sched_setup {
    uint32_t rows;      /* of a step, at most */
    uint32_t sequences; /* at once, at most */
    uint32_t context;   /* tokens of a sequence, at most */
    uint32_t pages, page_rows, max_pages;
    uint32_t vocab;
    const struct moe_tokenizer *tokenizer; /* NULL: ids only */
    const uint32_t *end_ids;               /* (n_end) copied */
    size_t          n_end;
    double (*now)(void); /* seconds, monotonic */
};

/* One step's rows; arrays are the scheduler's, valid until the next. */
struct moe_sched_step {
    uint32_t        rows, n_seqs, n_out, max_pages;
    uint32_t        prefill_rows; /* of them */
    const uint32_t *tokens, *positions, *seqs, *slots, *pages, *out_rows;
};

moe_status moe_sched_open(const struct moe_sched_setup *setup,
                          struct moe_sched **out, struct moe_error *err);
void       moe_sched_close(struct moe_sched *s);

moe_status moe_sched_submit(struct moe_sched *s, const struct moe_request *r,
                            const struct moe_sampling *sampling,
                            moe_sequence **out, struct moe_error *err);
void       moe_sched_remove(moe_sequence *q);

/* The next step's rows; rows == 0: nothing to do.  Decodes first, one row
 * each, then prefill of the oldest in the rows that are left. */
void moe_sched_compose(struct moe_sched *s, struct moe_sched_step *out);
/* Logits of out_rows[i].  A sequence that cannot go on is finished with its
 * own error; a status here is out of memory. */
moe_status moe_sched_logits(struct moe_sched *s, uint32_t i,
                            const float *logits, struct moe_error *err);
/* The step is computed (every logits given). */
void     moe_sched_commit(struct moe_sched *s);
uint32_t moe_sched_active(const struct moe_sched *s);

/*
 * Between steps: n token ids, each below vocab, in place of q's last token,
 * as if they had come from outside; last: q ends with the token that comes
 * after them.  For measurements, in which random weights must not send a
 * sequence in circles.  MOE_E_INVAL: they are more than max_tokens left room
 * for.
 */
moe_status moe_sched_replace(moe_sequence *q, const uint32_t *ids, uint32_t n,
                             int last);

#endif /* MOE_CORE_SCHED_H */
