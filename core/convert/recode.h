/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recode.h - what quantize.c and encode.c share: a checkpoint on its way.
 */
#ifndef MOE_CORE_CONVERT_RECODE_H
#define MOE_CORE_CONVERT_RECODE_H

#include <convert/convert.h>
#include <engine/engine.h>

#define MOE_RECODE_CHUNK (16u << 20) /* bytes of f32 at a time, if they can */

struct moe_recode_buffer {
    void      *p;
    uint64_t   size;
    moe_grant *grant;
};

struct moe_calibration;
struct moe_factor;

struct moe_recode_job {
    const moe_options       *o;
    struct moe_host_services services;
    struct moe_registry     *registry;
    struct moe_checkpoint   *c;
    struct moe_arch          a;
    struct moe_recode_plan   plan;
    struct moe_writer       *w;
    struct moe_folder        folder;
    struct moe_calibration  *calibration; /* NULL: round to nearest */
    uint64_t                 budget;      /* of the process */
    uint64_t                 chunk_bytes;
    uint64_t                 done, total;
    uint64_t                 calibrated; /* matrices */
    uint64_t                 unfed;   /* matrices whose inputs are not kept */
    uint64_t                 unfit;   /* whose format knows no feedback */
    char                     unfit_format[32]; /* one of them */
    double error; /* sum of theirs, over that of rounding to nearest */

    struct moe_recode_buffer raw;  /* source planes, or rows of a plain one */
    struct moe_recode_buffer rows; /* f32 (chunk, k) */
    struct moe_recode_buffer dst[MOE_PLANES_MAX];
    struct moe_recode_buffer h, u; /* f64 (k, k), of calibrated matrices */
    struct moe_recode_buffer wide; /* and what their pieces need besides */

    moe_progress_fn fn;
    void           *ctx;
};

/* At least size bytes, charged to the ledger; what was in it is lost. */
moe_status moe_recode_need(struct moe_recode_job *j,
                           struct moe_recode_buffer *b, uint64_t size,
                           struct moe_error *err);
void       moe_recode_drop(struct moe_recode_job    *j,
                           struct moe_recode_buffer *b);
/* Bytes of the source that are done; MOE_E_CANCELED if the caller says so. */
moe_status moe_recode_report(struct moe_recode_job *j, uint64_t bytes,
                             const char *what, struct moe_error *err);
/* Reads, encodes and writes a matrix.  u: NULL: round to nearest. */
moe_status moe_recode_encode(struct moe_recode_job   *j,
                             const struct moe_recode *r,
                             const struct moe_factor *u,
                             struct moe_error        *err);
/* Bytes that this takes at most; feed: with a u. */
uint64_t   moe_recode_room(const struct moe_recode_job *j,
                           const struct moe_recode *r, int feed);

#endif /* MOE_CORE_CONVERT_RECODE_H */
