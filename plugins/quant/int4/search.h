/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search.h - the scale and zero point of one group of 4-bit weights.
 *
 * Owns the choice; the formats (int4.c) own the bytes.  A group is 32, 64 or
 * 128 weights x and its code is v = clamp(round(x / scale), lo, hi), with
 * [lo, hi] = [-8, 7] or, with a zero point z, [-z, 15 - z].
 */
#ifndef MOE_PLUGINS_INT4_SEARCH_H
#define MOE_PLUGINS_INT4_SEARCH_H

#include <float.h>
#include <stdint.h>

#define INT4_GROUP_MAX 128u

/* A larger scale could make a finite code an infinite weight. */
#define INT4_SCALE_MAX (FLT_MAX / 16.0f)

struct int4_choice {
    float   scale; /* a number of the scale's type; below 0 where symmetric
                      codes reach further up than down                        */
    int32_t zero;  /* what a code of 0 is stored as: 8 when symmetric         */
    int8_t  code[INT4_GROUP_MAX]; /* clamped to [-zero, 15 - zero]            */
};

/*
 * x: group finite numbers.  weight: group weights >= 0 of the squared error,
 * or NULL for equal ones.  Deterministic: the same bits on every machine.
 * False: no scale of that type is large enough (F16 only).
 */
int int4_choose(const float *x, const float *weight, uint32_t group,
                int symmetric, uint32_t scale_dtype, struct int4_choice *out);

#endif /* MOE_PLUGINS_INT4_SEARCH_H */
