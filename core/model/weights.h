/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights.h - where the bytes of one of a decoder's tensors lie, and in
 * which format: the meeting of a description, a checkpoint and the plugins.
 */
#ifndef MOE_CORE_MODEL_WEIGHTS_H
#define MOE_CORE_MODEL_WEIGHTS_H

#include <checkpoint/checkpoint.h>
#include <model/arch.h>
#include <plugin/registry.h>

/* One n x k matrix.  Pointers live as long as checkpoint and registry. */
struct moe_weight {
    struct moe_format_ref         ref;
    uint64_t                      n, k;
    uint32_t                      scale_dtype; /* as moe_tensor.scale_dtype */
    uint32_t                      n_planes;
    const struct moe_tensor_info *plane[MOE_PLANES_MAX];
    uint64_t                      bytes; /* of all planes */
};

/*
 * Finds a matrix (any class but MOE_CLASS_NORM): its format among the loaded
 * quantizers and its planes, whose dtype, dimensions and bytes are what the
 * format says.  MOE_E_UNSUPPORTED names the scheme that no quantizer reads.
 * No allocation, no reads; a few microseconds.  Any thread.
 */
moe_status moe_weight_find(const struct moe_checkpoint *c,
                           const struct moe_registry   *registry,
                           const struct moe_arch *a, uint32_t tensor,
                           uint32_t layer, uint32_t expert,
                           struct moe_weight *out, struct moe_error *err);
/* The same for a module by its name, which must be n x k. */
moe_status moe_weight_module(const struct moe_checkpoint *c,
                             const struct moe_registry *registry,
                             const char *module, uint64_t n, uint64_t k,
                             struct moe_weight *out, struct moe_error *err);

/* A vector (MOE_CLASS_NORM) as f32 into dst, n elements as moe_arch_shape
 * says.  MOE_E_NOT_FOUND if the family has none; MOE_E_CORRUPT names the
 * element that is NaN or infinite. */
moe_status moe_vector_read(const struct moe_checkpoint *c,
                           const struct moe_arch *a, uint32_t tensor,
                           uint32_t layer, float *dst, struct moe_error *err);

/* MOE_F32, F16, BF16 of a safetensors dtype; 0 for any other. */
uint32_t moe_dtype_of(const char *dtype);

#endif /* MOE_CORE_MODEL_WEIGHTS_H */
