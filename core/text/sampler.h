/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sampler.h - logits to a token.
 *
 * Order: penalties, temperature, top-k, top-p, min-p, then one draw.  The
 * penalties are those of the transformers library (repetition: over prompt
 * and output; positive logits divided, negative ones multiplied) and of the
 * OpenAI API (presence, frequency: over the output).  Temperature 0 takes
 * the largest logit.  Ties go to the lower id everywhere.  The same seed and
 * logits give the same tokens on every machine.
 *
 * Threads: one at a time for each object.
 */
#ifndef MOE_CORE_TEXT_SAMPLER_H
#define MOE_CORE_TEXT_SAMPLER_H

#include <moe/moe.h>

struct moe_sampler;

/* A value out of range is MOE_E_INVAL and named.  Copies *s. */
moe_status moe_sampler_open(const struct moe_sampling *s, uint32_t vocab,
                            struct moe_sampler **out, struct moe_error *err);
void       moe_sampler_close(struct moe_sampler *s); /* NULL is fine */

/* A token that is there now, for the penalties; output: 1 if generated, 0 if
 * it is of the prompt. */
void moe_sampler_accept(struct moe_sampler *s, uint32_t id, int output);

/*
 * logits: (vocab), not changed.  *id: the choice.  No search beyond one or
 * two passes over the vocabulary, no allocation.  A NaN among the logits is
 * MOE_E_DEVICE: the model's weights or its arithmetic are broken.
 */
moe_status moe_sampler_pick(struct moe_sampler *s, const float *logits,
                            uint32_t *id, struct moe_error *err);

/* Natural log-probability of id under softmax(logits), without sampling. */
double moe_logprob(const float *logits, uint32_t vocab, uint32_t id);

#endif /* MOE_CORE_TEXT_SAMPLER_H */
