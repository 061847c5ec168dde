/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.h - one safetensors file: what its header says, checked.
 *
 * Format: u64 little-endian header length, a JSON object of
 * NAME: {"dtype", "shape", "data_offsets"}, then the data.
 */
#ifndef MOE_CORE_CHECKPOINT_SAFETENSORS_H
#define MOE_CORE_CHECKPOINT_SAFETENSORS_H

#include <checkpoint/checkpoint.h>

/* A growing list of tensors; it owns their names.  Zero-initialise. */
struct moe_tensor_list {
    struct moe_tensor_info *at;
    size_t                  n, cap;
    struct moe_name_block  *names;
};
void moe_tensor_list_free(struct moe_tensor_list *list);

/* Bits of one element of a safetensors dtype ("BF16"); 0: no such dtype. */
uint32_t moe_safetensors_bits(const char *dtype);
/* Our static copy of a dtype's word; NULL: no such dtype. */
const char *moe_safetensors_dtype(const char *dtype, size_t len);
/* dims multiplied and times the dtype's bits, in bytes.  0 on success, -1
 * if it overflows or is no whole number of bytes. */
int moe_safetensors_size(const char *dtype, const uint64_t *dim,
                         uint32_t n_dims, uint64_t *bytes);

#define MOE_SAFETENSORS_HEADER_MAX 100000000u /* bytes, as the reference has */

/*
 * Reads and checks the header of an open file of file_bytes bytes and adds
 * its tensors to list, in the order of their offsets, with .file = file.
 * shown: the file's name in messages.  Names are not compared with those
 * already in the list.
 */
moe_status moe_safetensors_read(int fd, uint64_t file_bytes,
                                const char *shown, uint32_t file,
                                struct moe_tensor_list *list,
                                struct moe_error *err);

/* len bytes at offset, all of them; MOE_E_IO names the file and offset. */
moe_status moe_file_read(int fd, const char *shown, uint64_t offset,
                         uint64_t len, void *dst, struct moe_error *err);

#endif /* MOE_CORE_CHECKPOINT_SAFETENSORS_H */
