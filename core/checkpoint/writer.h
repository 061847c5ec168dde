/* SPDX-License-Identifier: Apache-2.0 */
/*
 * writer.h - a checkpoint's safetensors, written in a stream.
 *
 * All tensors are announced first, so the headers can be written first and
 * no weight is ever held.  The folder is the caller's: it makes it under a
 * temporary name and renames it when all is done, so these files are never
 * seen half written.
 */
#ifndef MOE_CORE_CHECKPOINT_WRITER_H
#define MOE_CORE_CHECKPOINT_WRITER_H

#include <moe/types.h>

struct moe_writer;

/* Shards hold at most shard_bytes of data; one file if all fits. */
#define MOE_WRITER_SHARD 5000000000u

moe_status moe_writer_open(uint64_t shard_bytes, struct moe_writer **out,
                           struct moe_error *err);
void       moe_writer_close(struct moe_writer *w); /* NULL is fine */

/* Announces a tensor; *index is what moe_writer_put wants.  together: it
 * stays in the shard of the one before. */
moe_status moe_writer_add(struct moe_writer *w, const char *name,
                          const char *dtype, uint32_t n_dims,
                          const uint64_t *dim, int together, size_t *index,
                          struct moe_error *err);

/* Bytes that all files will take, headers included. */
moe_status moe_writer_plan(struct moe_writer *w, uint64_t *bytes,
                           struct moe_error *err);

/* Creates the files in dir with their headers and, where the file system
 * can, the space for the data. */
moe_status moe_writer_begin(struct moe_writer *w, const char *dir,
                            struct moe_error *err);
/* bytes of tensor `index` from its byte `from` on.  Each byte once. */
moe_status moe_writer_put(struct moe_writer *w, size_t index, uint64_t from,
                          uint64_t bytes, const void *src,
                          struct moe_error *err);
/* Checks that every tensor is complete, writes the index of several shards,
 * and has the system put everything on the medium. */
moe_status moe_writer_finish(struct moe_writer *w, struct moe_error *err);

/* Writes a small file (text, len bytes) to path and syncs it. */
moe_status moe_file_write(const char *path, const void *text, size_t len,
                          struct moe_error *err);

#endif /* MOE_CORE_CHECKPOINT_WRITER_H */
