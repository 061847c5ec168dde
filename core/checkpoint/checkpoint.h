/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint.h - a checkpoint folder: names, shapes and byte ranges.
 *
 * Owns the open files and the index of tensors.  Never holds a copy of a
 * weight: who wants bytes reads them, into memory of its own, with
 * moe_checkpoint_read.  Knows containers (safetensors, single or sharded)
 * and the words of quantization_config; knows neither models nor formats.
 */
#ifndef MOE_CORE_CHECKPOINT_H
#define MOE_CORE_CHECKPOINT_H

#include <moe/quantizer.h>
#include <moe/types.h>

struct json_object;
struct moe_checkpoint;

#define MOE_TENSOR_DIMS 8

struct moe_tensor_info {
    const char *name;
    const char *dtype; /* safetensors' word: "BF16", "F8_E4M3", "I32" */
    uint32_t    n_dims;
    uint32_t    file;  /* index for moe_checkpoint_file */
    uint64_t    dim[MOE_TENSOR_DIMS];
    uint64_t    offset; /* absolute, in the file */
    uint64_t    bytes;
};

/*
 * Opens a folder with config.json and safetensors, reads and checks every
 * header: lengths, offsets in order without holes or overlap, dtype times
 * shape equal to the byte range, shards named by the index present and
 * holding what the index says.  Threads: one object may be read by many
 * threads once open.  Cold.
 */
moe_status moe_checkpoint_open(const char *dir, struct moe_checkpoint **out,
                               struct moe_error *err);
void moe_checkpoint_close(struct moe_checkpoint *c);

const char *moe_checkpoint_dir(const struct moe_checkpoint *c);
/* config.json; generation_config.json or NULL.  Owned by the checkpoint. */
struct json_object *moe_checkpoint_config(const struct moe_checkpoint *c);
struct json_object *moe_checkpoint_generation(const struct moe_checkpoint *c);
/* config.json's path as messages show it. */
const char *moe_checkpoint_config_name(const struct moe_checkpoint *c);

size_t moe_checkpoint_count(const struct moe_checkpoint *c);
const struct moe_tensor_info *moe_checkpoint_at(const struct moe_checkpoint *c,
                                                size_t i);
/* NULL: no such tensor.  Hash lookup. */
const struct moe_tensor_info *moe_checkpoint_find(
    const struct moe_checkpoint *c, const char *name);

size_t      moe_checkpoint_files(const struct moe_checkpoint *c);
const char *moe_checkpoint_file(const struct moe_checkpoint *c, size_t i);
/* Its path as messages show it: cut at the front, without control bytes. */
const char *moe_checkpoint_file_name(const struct moe_checkpoint *c, size_t i);
/* The same of what says which tensors there are: the file, or the index. */
const char *moe_checkpoint_index_name(const struct moe_checkpoint *c);
uint64_t    moe_checkpoint_file_bytes(const struct moe_checkpoint *c, size_t i);

/* bytes of tensor t, starting at its byte from, into dst by pread(2): all of
 * them or MOE_E_IO with file, offset and the system's reason.  Any thread. */
moe_status moe_checkpoint_read(const struct moe_checkpoint *c,
                               const struct moe_tensor_info *t, uint64_t from,
                               uint64_t bytes, void *dst,
                               struct moe_error *err);

/* Those bytes of tensor t will be read soon: the system may begin now, so that
 * several reads are under way at once.  Takes no memory of ours.  Any
 * thread. */
void moe_checkpoint_want(const struct moe_checkpoint  *c,
                         const struct moe_tensor_info *t, uint64_t from,
                         uint64_t bytes);
/* Those bytes of file i will not be read again: the system need not keep them.
 * Long ranges, since it keeps what lies across an end.  Any thread. */
void moe_checkpoint_drop(const struct moe_checkpoint *c, size_t i,
                         uint64_t from, uint64_t bytes);

/*
 * How the module (a tensor's name without ".weight") is stored: from
 * quantization_config's groups and ignore list if it has one, else from the
 * dtype of MODULE.weight.  Sets *scheme (its strings live as long as the
 * checkpoint).  MOE_E_NOT_FOUND: no tensor of that module, named.
 * MOE_E_UNSUPPORTED: a quantization method or strategy unknown to us, named.
 */
moe_status moe_checkpoint_scheme(const struct moe_checkpoint *c,
                                 const char *module, struct moe_scheme *scheme,
                                 struct moe_error *err);

#endif /* MOE_CORE_CHECKPOINT_H */
