/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ini_file.h - INI files that live as long as a test.
 */
#ifndef MOE_TESTS_INI_FILE_H
#define MOE_TESTS_INI_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/options.h"

__attribute__((__unused__)) static void
write_file(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "w");

    if (f == NULL || fwrite(text, 1, len, f) != len || fclose(f) != 0) {
        printf("Bail out! cannot write %s\n", path);
        exit(1);
    }
}

/* New options with the text as a file named name; the status of loading it.
 * The caller frees *o. */
__attribute__((__unused__)) static moe_status
load_text(const char *name, const char *text, size_t len, moe_options **o,
          struct moe_error *err)
{
    moe_status status;

    memset(err, 0, sizeof(*err));
    err->struct_size = sizeof(*err);
    write_file(name, text, len);
    status = moe_options_new(o, err);
    if (status == MOE_OK)
        status = moe_options_load(*o, name, err);
    unlink(name);
    return status;
}

#endif /* MOE_TESTS_INI_FILE_H */
