/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stored.h - how a checkpoint's weights are stored, from its config.json.
 */
#ifndef MOE_CORE_PLAN_STORED_H
#define MOE_CORE_PLAN_STORED_H

#include "plan/shape.h"

struct moe_stored;

/* *out is NULL if nothing is quantized, or by a method that only other
 * engines read.  config and a outlive it. */
moe_status moe_stored_open(const struct moe_json *config,
                           const struct moe_arch *a, struct moe_stored **out,
                           struct moe_error *err);
void       moe_stored_close(struct moe_stored *s);
/* Bits an element of the matrix in the files, scales and zero points
 * included; 0: it is not quantized.  cls: MOE_PLAN_*, tensor: MOE_T_*. */
moe_status moe_stored_bits(struct moe_stored *s, uint32_t cls,
                           uint32_t tensor, uint32_t layer, uint32_t expert,
                           uint64_t n, uint64_t k, double *bits,
                           struct moe_error *err);
/* The model's format, in words that say those bits; "stored" of a class for
 * which there is no word. */
void moe_stored_words(const struct moe_stored *s,
                      const struct moe_json *config, struct moe_sketch *m);
/* "f32", "f16", "bf16": of what is not quantized. */
const char *moe_stored_dtype(const struct moe_json *config);

#endif /* MOE_CORE_PLAN_STORED_H */
