/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shape.h - a model's shape with random weights.
 */
#ifndef MOE_CORE_BENCH_SHAPE_H
#define MOE_CORE_BENCH_SHAPE_H

#include "checkpoint/checkpoint.h"
#include "plugin/registry.h"

struct moe_shape_wish {
    const char *name;   /* a preset, its beginning, a folder, a config.json */
    uint32_t    layers; /* the first so many; 0: all */
    const char *format; /* "int4-g32" or "experts=fp8-e4m3,rest=bf16" */
    double      skew;   /* of the router's rows; 0: none is preferred */
    uint64_t    seed;
};

/*
 * A checkpoint of the shape, whose weights are made when they are read.
 * Matrices are bell-shaped and as large as keeps activations sane; router
 * rows are alike, so that routing is nearly even.  MOE_E_NOT_FOUND: no such
 * shape, with the nearest names; MOE_E_UNSUPPORTED: a family or a format that
 * is not known, or a format that does not take one of the matrices.
 */
moe_status moe_bench_shape(const struct moe_registry   *registry,
                           const struct moe_shape_wish *wish,
                           struct moe_checkpoint      **out,
                           struct moe_error            *err);

/* The same of a parsed config.json, which is taken over; wish->name is what
 * the checkpoint is called, wish->layers is not heeded. */
struct json_object;
moe_status moe_bench_shape_config(const struct moe_registry   *registry,
                                  const struct moe_shape_wish *wish,
                                  struct json_object          *config,
                                  struct moe_checkpoint      **out,
                                  struct moe_error            *err);

#endif /* MOE_CORE_BENCH_SHAPE_H */
