/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int4.h - how 4-bit groups lie in a panel.
 *
 * A panel of 16 rows is a run of records, one for each weight group (columns
 * that share a scale):
 *
 *   lines   of 64 bytes, each 16 rows x 8 columns: byte r * 4 + j holds, for
 *           row r, column j in the low and column 4 + j in the high nibble;
 *           the last group's columns are padded to a multiple of 32
 *   scales  16 of the file's own type: F32, F16 or BF16
 *   zeros   only if the format has zero points: 8 bytes, byte r holds row r
 *           in the low and row 8 + r in the high nibble
 *
 * Weight = scale * (code - zero point), codes and zero points 0 .. 15.  A
 * line unpacked by one mask and one shift is two runs of 4 columns a row:
 * the operand of a u8 x s8 dot product, of AVX2, AVX-512 or a tile.
 *
 * The product: for each weight group and row of x, in the order of k,
 *   inner = sum over its runs of 32 columns of d * (code . q - zero * sum q)
 *   total += inner * scale
 * Everything in the brackets is an exact integer on every path.
 */
#ifndef MOE_PLUGINS_BACKEND_CPU_INT4_H
#define MOE_PLUGINS_BACKEND_CPU_INT4_H

#include "backend/cpu/cpu.h"

#define INT4_LINE 64u /* bytes; 8 columns */

static inline uint32_t
int4_scale_bytes(uint32_t scale)
{
    return CPU_LANES * (scale == MOE_SCALE_F32 ? 4u : 2u);
}

/* What follows the lines of a group. */
static inline uint32_t
int4_tail_bytes(uint32_t scale, uint32_t has_zero)
{
    return int4_scale_bytes(scale) + (has_zero ? CPU_LANES / 2 : 0);
}

/* Lines of a group that has cols columns. */
static inline uint64_t
int4_lines(uint64_t cols)
{
    return cpu_ceil(cols, CPU_INT4_GROUP) * (CPU_INT4_GROUP / 8);
}

static inline uint64_t
int4_panel_bytes(uint64_t k, uint64_t group, uint32_t scale,
                 uint32_t has_zero)
{
    uint64_t tail = int4_tail_bytes(scale, has_zero);

    return cpu_align(int4_lines(k) * INT4_LINE + cpu_ceil(k, group) * tail,
                     CPU_ALIGN);
}

/* The byte in a panel where weight group g begins. */
static inline uint64_t
int4_group_off(uint64_t g, uint64_t group, uint32_t scale, uint32_t has_zero)
{
    return g * (group / 8 * INT4_LINE + int4_tail_bytes(scale, has_zero));
}

#endif /* MOE_PLUGINS_BACKEND_CPU_INT4_H */
