/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_gguf.c - any bytes as a GGUF file's header.
 *
 * Whatever comes, the answer is a status; an error is one line that names
 * the file; and of a model that was accepted everything can be counted.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plan/shape.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int            fd = -1;
    struct moe_error      err = { .struct_size = sizeof(err) };
    struct moe_planner    p = { 0 };
    struct moe_plan_model m = { .struct_size = sizeof(m) };
    uint64_t              bytes;
    char                  path[64];

    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0
        || pwrite(fd, data, size, 0) != (ssize_t) size)
        return 0;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    err.text[0] = '\0';
    if (moe_sketch_gguf(path, &p.s, &err) != MOE_OK) {
        must(strncmp(err.text, path, strlen(path)) == 0,
             "an error names the file");
        must(strchr(err.text, '\n') == NULL, "an error is one line");
        return 0;
    }
    (void) moe_plan_model(&p, &m);
    must(moe_plan_weights(&p, "stored", &bytes, NULL, &err) == MOE_OK,
         "weights are counted");
    must(!isnan(moe_plan_kv_bytes(&p, 4096, 2))
             && !isnan(moe_plan_decode_flop(&p, 4096))
             && !isnan(moe_plan_prefill_flop(&p, 4096, 1)),
         "costs are numbers");
    moe_shape_free(&p.s);
    return 0;
}
