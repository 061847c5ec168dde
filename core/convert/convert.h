/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert.h - what the files of this room share.
 */
#ifndef MOE_CORE_CONVERT_H
#define MOE_CORE_CONVERT_H

#include <checkpoint/checkpoint.h>
#include <checkpoint/writer.h>
#include <config/options.h>
#include <model/weights.h>

/* ------------------------------------------------------------ folder.c -- */

/* A new folder: made beside its final place, locked, and seen only whole. */
struct moe_folder {
    char *out;     /* final path */
    char *partial; /* OUT.partial-PID */
    int   lock;    /* the partial folder, locked; -1: none */
};

/* Refuses an existing out; removes what dead processes left of it; makes the
 * partial folder. */
moe_status moe_folder_open(const char *out, struct moe_folder *f,
                           struct moe_error *err);
/* Renames it to out.  The folder is closed whether or not that works. */
moe_status moe_folder_commit(struct moe_folder *f, struct moe_error *err);
/* Removes it, if it is still open. */
void moe_folder_abandon(struct moe_folder *f);

/* MOE_E_IO if the file system of out has less than `bytes` free; both
 * figures are named. */
moe_status moe_folder_space(const char *out, uint64_t bytes,
                            struct moe_error *err);

/* The small files of a checkpoint that describe it (tokenizer, templates,
 * texts): their sizes in all, and copying them. */
uint64_t   moe_folder_small_bytes(const char *in);
moe_status moe_folder_copy_small(const char *in, const struct moe_folder *f,
                                 struct moe_error *err);

/* -------------------------------------------------------------- plan.c -- */

/* What becomes of one matrix. */
#define MOE_RECODE_KEEP   0u /* its tensors are copied one by one */
#define MOE_RECODE_PLANES 1u /* quantized before, stays so: planes copied */
#define MOE_RECODE_ENCODE 2u

struct moe_recode {
    uint32_t              tensor, layer, expert;
    uint32_t              what;      /* MOE_RECODE_* */
    uint32_t              scale_dtype; /* of the result */
    uint32_t              n_planes;
    struct moe_weight     src;
    struct moe_format_ref to;        /* of PLANES and ENCODE */
    size_t                out[MOE_PLANES_MAX]; /* writer's tensors */
    size_t                shape_out; /* weight_shape; SIZE_MAX: none */
};

struct moe_recode_plan {
    const struct moe_checkpoint *c;
    const struct moe_arch       *a;
    struct moe_recode           *at;
    size_t                       n, cap;
    uint32_t *owner;        /* (tensors): recode + 1 that writes it; 0: copy */
    size_t   *copy_out;     /* (tensors): writer's tensor of a copy */
    uint64_t  out_bytes;    /* safetensors to be written */
    uint64_t  unfit;        /* matrices that a format could not take */
    char      unfit_name[128], unfit_why[160];
    uint64_t  encoded;
};

/* Decides for every matrix and announces all tensors to the writer. */
moe_status moe_recode_make(const struct moe_checkpoint *c,
                           const struct moe_arch       *a,
                           const struct moe_registry   *registry,
                           const moe_options *o, struct moe_writer *w,
                           struct moe_recode_plan *plan,
                           struct moe_error *err);
void       moe_recode_free(struct moe_recode_plan *plan);

/* The module's name of a matrix (without ".weight"). */
void moe_recode_module(const struct moe_recode_plan *plan,
                       const struct moe_recode *r, char *buf, size_t size);

/* config.json with quantization_config for this plan, as text that the
 * caller frees. */
moe_status moe_recode_config(const struct moe_recode_plan *plan, char **text,
                             struct moe_error *err);

#endif /* MOE_CORE_CONVERT_H */
