/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_device.c - any bytes as a device's INI file.
 *
 * Whatever comes, the answer is a status; an error is one line that names
 * the file; and a device that was accepted can be planned with.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plan/device.h"

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
    static int             fd = -1;
    struct moe_error       err = { .struct_size = sizeof(err) };
    struct moe_plan_device d = { .struct_size = sizeof(d) };
    char                   path[64];

    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0
        || pwrite(fd, data, size, 0) != (ssize_t) size)
        return 0;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    err.text[0] = '\0';
    if (moe_device_read(path, "fuzz", &d, &err) != MOE_OK) {
        must(strncmp(err.text, path, strlen(path)) == 0,
             "an error names the file");
        must(strchr(err.text, '\n') == NULL, "an error is one line");
        return 0;
    }
    must(d.memory > 0 && d.bandwidth > 0, "a device has memory");
    must(d.fp32 > 0 || d.fp16 > 0 || d.bf16 > 0, "... and arithmetic");
    must(d.price <= 0 || d.price_date[0] != '\0', "a price has a date");
    must(memchr(d.source, '\0', sizeof(d.source)) != NULL
             && memchr(d.link, '\0', sizeof(d.link)) != NULL,
         "texts end");
    return 0;
}
