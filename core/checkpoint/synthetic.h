/* SPDX-License-Identifier: Apache-2.0 */
/*
 * synthetic.h - a checkpoint without files: tensors of made-up bytes.
 *
 * What is read is calculated at the moment of reading from the tensor's name,
 * the seed and the place, so a model of any size costs no disk, no download
 * and no second copy, and the same place always has the same bytes.  Whoever
 * adds a tensor says what its bytes are like; formats and models are unknown
 * here.
 */
#ifndef MOE_CORE_CHECKPOINT_SYNTHETIC_H
#define MOE_CORE_CHECKPOINT_SYNTHETIC_H

#include <checkpoint/checkpoint.h>

struct moe_made;

/* What the elements of a tensor are. */
#define MOE_MADE_CONST   1u /* all of them `value`                            */
#define MOE_MADE_BELL    2u /* bell-shaped around 0, standard deviation
                               `value`; 8-bit floats: moe_made_sigma          */
#define MOE_MADE_NIBBLES 3u /* two 4-bit codes a byte, bell-shaped around 8   */
#define MOE_MADE_ZEROS   4u /* two 4-bit codes a byte, all of them 8          */
#define MOE_MADE_SCALES  5u /* between 3/4 and 5/4 of `value`; U8: E8M0, the
                               powers of two around it, so that squares are
                               those of `value` on average                    */
#define MOE_MADE_ROUTER  6u /* as BELL, but row r times exp(skew * z), z
                               bell-shaped: some rows win more often          */
#define MOE_MADE_E2M1    7u /* two E2M1 codes a byte, bell-shaped around 0    */

struct moe_made_tensor {
    const char *name;  /* copied */
    const char *dtype; /* safetensors' word */
    uint32_t    n_dims, fill;
    uint64_t    dim[MOE_TENSOR_DIMS];
    double      value, skew;
    const struct moe_scheme *scheme; /* NULL: plain; copied, but not its
                                        strings */
};

/* label: for messages, in place of a folder; copied.  config: taken over,
 * even on failure. */
moe_status moe_made_new(const char *label, struct json_object *config,
                        uint64_t seed, struct moe_made **out,
                        struct moe_error *err);
/* MOE_E_UNSUPPORTED: no bytes can be made for that dtype and fill. */
moe_status moe_made_add(struct moe_made *m, const struct moe_made_tensor *t,
                        struct moe_error *err);
void       moe_made_free(struct moe_made *m);

/* Standard deviation of the codes that BELL ("F8_E4M3", "F8_E5M2"), NIBBLES
 * ("I32") and E2M1 ("U8") make; 1 for plain floats, 0: no such codes. */
double moe_made_sigma(const char *dtype);

/* checkpoint.c: a checkpoint of these tensors; m is taken over. */
moe_status moe_checkpoint_made(struct moe_made *m, struct moe_checkpoint **out,
                               struct moe_error *err);

/* For checkpoint.c. */
const char         *moe_made_label(const struct moe_made *m);
struct json_object *moe_made_config(struct moe_made *m); /* given away */
const struct moe_tensor_info *moe_made_list(const struct moe_made *m,
                                            size_t *n);
const struct moe_scheme      *moe_made_scheme(const struct moe_made *m,
                                              size_t i);
/* Bytes [from, from + bytes) of the i-th tensor.  Any thread; over 1 GB/s. */
void moe_made_read(const struct moe_made *m, size_t i, uint64_t from,
                   uint64_t bytes, void *dst);

#endif /* MOE_CORE_CHECKPOINT_SYNTHETIC_H */
