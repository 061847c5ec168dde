/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_bytes.h - what a plan of weights is compared with.
 */
#ifndef MOE_TESTS_PLAN_FILE_BYTES_H
#define MOE_TESTS_PLAN_FILE_BYTES_H

#include <string.h>

#include "checkpoint/checkpoint.h"

/* Bytes of all tensors but the shapes that a packed matrix has beside it. */
static uint64_t
file_bytes(const struct moe_checkpoint *c)
{
    uint64_t sum = 0;
    size_t   i;

    for (i = 0; i < moe_checkpoint_count(c); i++) {
        const struct moe_tensor_info *t = moe_checkpoint_at(c, i);

        if (strstr(t->name, ".weight_shape") == NULL)
            sum += t->bytes;
    }
    return sum;
}

#endif /* MOE_TESTS_PLAN_FILE_BYTES_H */
