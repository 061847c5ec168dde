/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lines.h - how integers, and E2M1, lie in a panel.
 *
 * A panel of 16 rows is a run of records, one for each weight group (columns
 * that share a scale):
 *
 *   lines   of 64 bytes.  4 bits: 16 rows x 8 columns, byte r * 4 + j holds,
 *           for row r, column j in the low and column 4 + j in the high
 *           nibble.  8 bits: 16 rows x 4 columns, byte r * 4 + j is column j
 *           of row r, signed (unsigned codes less 128).  The last group's
 *           columns are padded to a multiple of 32
 *   scales  16 of the file's own type: F32, F16, BF16 or E8M0
 *   zeros   only if the format has zero points: for 4 bits 8 bytes, byte r
 *           holds row r in the low and row 8 + r in the high nibble; for 8
 *           bits 16 bytes
 *
 * Weight = scale * (code - zero - m->zero).  An E2M1 code stands for the
 * integer 12 + 2 * value, 0 .. 24, zero is 12 and the scale counts half: the
 * product is exact.  A line unpacked is runs of 4 columns a row: the operand
 * of a u8 x s8 dot product, of AVX2, VNNI or a tile.
 *
 * The product: for each weight group and row of x, in the order of k,
 *   inner = sum over its runs of 32 columns of d * (code . q - zero * sum q)
 *   total += inner * scale
 * Everything in the brackets is an exact integer on every path.
 */
#ifndef MOE_PLUGINS_BACKEND_CPU_LINES_H
#define MOE_PLUGINS_BACKEND_CPU_LINES_H

#include "backend/cpu/cpu.h"

#define LINE      64u /* bytes */
#define LINE_FP4  12  /* E2M1: the code that stands for 0 */

/* Lines of a run of 32 columns. */
static inline uint32_t
lines_of_run(uint32_t kind)
{
    return kind == CPU_INT8 ? CPU_RUN / 4 : CPU_RUN / 8;
}

static inline uint64_t
lines_run_bytes(uint32_t kind)
{
    return lines_of_run(kind) * LINE;
}

/* Bytes of the lines of a group that has cols columns. */
static inline uint64_t
lines_bytes(uint32_t kind, uint64_t cols)
{
    return cpu_ceil(cols, CPU_RUN) * lines_run_bytes(kind);
}

static inline uint32_t
lines_scale_bytes(uint32_t scale)
{
    return CPU_LANES
           * (scale == MOE_SCALE_F32    ? 4u
              : scale == MOE_SCALE_E8M0 ? 1u
                                        : 2u);
}

/* What follows the lines of a group. */
static inline uint32_t
lines_tail_bytes(uint32_t kind, uint32_t scale, uint32_t has_zero)
{
    return lines_scale_bytes(scale)
           + (!has_zero          ? 0
              : kind == CPU_INT8 ? CPU_LANES
                                 : CPU_LANES / 2);
}

/* m->kind, k, group, scale and has_zero are set. */
static inline uint64_t
lines_panel_bytes(const struct cpu_mat *m)
{
    const uint64_t tail = lines_tail_bytes(m->kind, m->scale, m->has_zero);

    return cpu_align(lines_bytes(m->kind, m->k)
                         + cpu_ceil(m->k, m->group) * tail,
                     CPU_ALIGN);
}

/* The byte in a panel where weight group g begins. */
static inline uint64_t
lines_group_off(const struct cpu_mat *m, uint64_t g)
{
    return g
           * (lines_bytes(m->kind, m->group)
              + lines_tail_bytes(m->kind, m->scale, m->has_zero));
}

#endif /* MOE_PLUGINS_BACKEND_CPU_LINES_H */
