/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calibrate_state.h - what calibrate.c, which reads, and calibrate_gram.c,
 * which sums, share.
 */
#ifndef MOE_CORE_CONVERT_CALIBRATE_STATE_H
#define MOE_CORE_CONVERT_CALIBRATE_STATE_H

#include <convert/calibrate.h>
#include <convert/calibrate_text.h>
#include <convert/dense.h>

#define MOE_DOWN_ROWS 512u /* of a down projection's input, at a time */
#define MOE_DOWN_COLS 32u  /* of it that a task computes */

/* What is kept of a layer, (tokens, ..) each; NULL: not wanted. */
struct kept {
    float    *qkv, *out, *ffn;
    uint32_t *ids;
    float    *weights;
};

struct moe_calibration {
    struct moe_calibration_setup s;
    const struct moe_arch       *a;
    moe_engine                  *engine;
    struct moe_runner_tap        tap;
    struct moe_text_windows      text;

    uint32_t *wants;      /* (n_layers) 1 << MOE_INPUT_* */
    uint64_t  work_bytes; /* besides the rows */
    uint64_t  room;       /* bytes for rows */
    uint64_t *counts;     /* (n_layers, n_experts) tokens */

    uint32_t     first, count; /* layers whose rows are kept */
    struct kept *kept;         /* (count) */
    void        *rows;         /* all of it */
    uint64_t     rows_bytes;
    moe_grant   *rows_grant;
    uint64_t     at;           /* rows of the text that were read */
    uint32_t     step_rows;

    /* of a down projection */
    void      *work;
    moe_grant *work_grant;
    uint32_t   prior_layer; /* whose mean is in prior; UINT32_MAX: none's */
    uint32_t  *list;        /* (tokens) rows of an expert */
    float     *list_w;      /* (tokens) */
    float     *gate, *up, *x, *g, *u; /* see lay_work */
    float     *gate_bias, *up_bias;
    double    *prior;
    uint8_t   *raw;
};

static inline uint64_t
moe_calibration_pad(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Floats between rows of what a feed-forward of width f computes. */
static inline uint64_t
moe_down_width(uint64_t f)
{
    return (f + MOE_DOWN_COLS - 1) / MOE_DOWN_COLS * MOE_DOWN_COLS;
}

#endif /* MOE_CORE_CONVERT_CALIBRATE_STATE_H */
