/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_safetensors.c - any bytes as a checkpoint folder.
 *
 * The input is cut into config.json, an index and one safetensors file:
 *
 *   u8 flags, u16 bytes of config, u16 bytes of index, u16 data in units of
 *   64 bytes; config; index; the file
 *
 * flags 1: the file is a shard of the index; 2: the file is a header alone,
 * whose length is put before it and `data` zero bytes behind it, so that the
 * fuzzer need not find that number.  Whatever comes, the answer is a status;
 * an error is one line; and what was accepted keeps its promises.
 */
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "model/arch.h"
#include "model/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64];

static void
must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static void
drop_folder(void)
{
    static const char *const names[] = {
        "config.json", "model.safetensors", "model.safetensors.index.json",
        "a.safetensors"
    };
    char   path[128];
    size_t i;

    for (i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static void
make_folder(void)
{
    snprintf(dir, sizeof(dir), "%s/moe-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    must(mkdtemp(dir) != NULL, "a folder for the files");
    atexit(drop_folder);
}

static void
put(const char *name, const uint8_t *head, size_t n_head, const uint8_t *data,
    size_t size, size_t zeros)
{
    char path[128];
    int  fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (write(fd, head, n_head) != (ssize_t) n_head
        || write(fd, data, size) != (ssize_t) size
        || ftruncate(fd, (off_t) (n_head + size + zeros)) != 0)
        abort();
    close(fd);
}

static void
drop(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    unlink(path);
}

static void
check_tensors(const struct moe_checkpoint *c)
{
    struct moe_error  err = { .struct_size = sizeof(err) };
    struct moe_scheme scheme;
    char              module[1200];
    unsigned char     byte;
    size_t            i;

    for (i = 0; i < moe_checkpoint_count(c); i++) {
        const struct moe_tensor_info *t = moe_checkpoint_at(c, i);
        size_t                        n = strlen(t->name);

        must(t->offset + t->bytes
                 <= moe_checkpoint_file_bytes(c, t->file),
             "a tensor lies in its file");
        must(moe_checkpoint_find(c, t->name) == t, "a name finds its tensor");
        if (t->bytes > 0)
            must(moe_checkpoint_read(c, t, t->bytes - 1, 1, &byte, &err)
                     == MOE_OK,
                 "its last byte can be read");
        if (n <= 7 || strcmp(t->name + n - 7, ".weight") != 0)
            continue;
        memcpy(module, t->name, n - 7);
        module[n - 7] = '\0';
        if (moe_checkpoint_scheme(c, module, &scheme, &err) == MOE_OK)
            must(scheme.elem != NULL
                     && (scheme.storage == NULL
                         || (scheme.type != NULL && scheme.strategy != NULL)),
                 "a scheme has its words");
    }
}

static void
check_arch(const struct moe_checkpoint *c, const struct moe_arch *a)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    uint64_t         total, active, n, k;
    uint32_t         t, l;

    must(a->hidden > 0 && a->heads > 0 && a->kv_heads > 0
             && a->heads % a->kv_heads == 0 && a->n_layers > 0,
         "sizes are positive");
    must(a->top_k <= a->n_experts, "no more experts chosen than there are");
    for (l = 0; l < a->n_inv_freq; l++)
        must(isfinite(a->inv_freq[l]), "frequencies are finite");
    moe_arch_params(a, &total, &active);
    must(active <= total, "a token computes with what there is");
    for (t = 0; t < MOE_T_COUNT; t++)
        for (l = 0; l < a->n_layers; l++) {
            float *v;

            moe_arch_shape(a, t, l, &n, &k);
            if (n == 0 || moe_arch_class(t) != MOE_CLASS_NORM)
                continue;
            v = malloc(n * sizeof(*v));
            if (v != NULL)
                (void) moe_vector_read(c, a, t, l, v, &err);
            free(v);
        }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_checkpoint *c = NULL;
    struct moe_arch        a;
    uint8_t                head[8];
    size_t                 config, index, zeros, i;
    moe_status             st;

    if (dir[0] == '\0')
        make_folder();
    if (size < 7)
        return 0;
    config = (size_t) data[1] | (size_t) data[2] << 8;
    index = (size_t) data[3] | (size_t) data[4] << 8;
    zeros = ((size_t) data[5] | (size_t) data[6] << 8) * 64;
    if (config > size - 7 || index > size - 7 - config)
        return 0;
    put("config.json", NULL, 0, data + 7, config, 0);
    if (data[0] & 1) {
        put("model.safetensors.index.json", NULL, 0, data + 7 + config, index,
            0);
        drop("model.safetensors");
    }
    i = 7 + config + index;
    for (st = 0; st < 8; st++)
        head[st] = (uint8_t) ((uint64_t) (size - i) >> 8 * st);
    put(data[0] & 1 ? "a.safetensors" : "model.safetensors", head,
        data[0] & 2 ? 8 : 0, data + i, size - i, data[0] & 2 ? zeros : 0);

    st = moe_checkpoint_open(dir, &c, &err);
    if (st == MOE_OK) {
        check_tensors(c);
        st = moe_arch_read(c, &a, &err);
        if (st == MOE_OK) {
            check_arch(c, &a);
            moe_arch_free(&a);
        }
        moe_checkpoint_close(c);
    }
    if (st != MOE_OK) {
        must(err.status == st, "the error says what was returned");
        must(err.text[0] != '\0' && strpbrk(err.text, "\n\r\033") == NULL,
             "an error is one line");
    }
    return 0;
}
