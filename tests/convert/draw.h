/* SPDX-License-Identifier: Apache-2.0 */
/*
 * draw.h - numbers that look like weights, the same in every run.
 */
#ifndef MOE_TESTS_CONVERT_DRAW_H
#define MOE_TESTS_CONVERT_DRAW_H

#include <stdint.h>

/* Nearly normal: the sum of four uniform ones, of mean 0 and variance 4/3. */
static float
draw(uint32_t *seed)
{
    float s = 0;
    int   i;

    for (i = 0; i < 4; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        s += (float) (*seed >> 8) / 8388608.0f - 1.0f;
    }
    return s;
}

#endif /* MOE_TESTS_CONVERT_DRAW_H */
