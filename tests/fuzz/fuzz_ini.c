/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_ini.c - any bytes as an INI file, and as the value of an option.
 *
 * Whatever comes, the answer is a status; an error is one line that names
 * the file; and options that were accepted can be copied and read.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/store.h"
#include "config/table.h"

#include "config/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static void
read_everything(const moe_options *o)
{
    struct moe_option row = { .struct_size = sizeof(row) };
    size_t            i, n;

    for (i = 0; moe_options_at(o, i, &row) == MOE_OK; i++) {
        must(row.value != NULL && row.where != NULL, "a value has a source");
        if (strcmp(row.type, "list") == 0) {
            const char *const *items = moe_option_list(o, row.key, &n);

            while (n-- > 0)
                must(items[n][0] != '\0', "no item of a list is empty");
        }
    }
}

static void
as_file(const char *path)
{
    struct moe_error err = { .struct_size = sizeof(err) };
    moe_options     *o, *copy;
    const char      *key, *where;

    if (moe_options_new(&o, &err) != MOE_OK)
        return;
    err.text[0] = '\0';
    if (moe_options_load(o, path, &err) != MOE_OK) {
        must(strncmp(err.text, path, strlen(path)) == 0,
             "an error names the file");
        must(strchr(err.text, '\n') == NULL, "an error is one line");
    } else {
        must(moe_options_copy(o, &copy, &err) == MOE_OK,
             "what was accepted is accepted again");
        read_everything(copy);
        (void) moe_options_unused(copy, NULL, &key, &where);
        moe_options_free(copy);
    }
    read_everything(o);
    moe_options_free(o);
}

static void
as_value(const uint8_t *data, size_t size)
{
    moe_options *o;
    char        *text = malloc(size + 1);
    size_t       i;

    if (text == NULL || moe_options_new(&o, NULL) != MOE_OK) {
        free(text);
        return;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    for (i = 0; i < moe_option_row_count; i++)
        (void) moe_options_set(o, moe_option_rows[i].key, text, MOE_FROM_ARG,
                               NULL);
    (void) moe_options_set(o, text, text, MOE_FROM_ARG, NULL);
    read_everything(o);
    moe_options_free(o);
    free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    char       path[64];

    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0
        || pwrite(fd, data, size, 0) != (ssize_t) size)
        return 0;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    as_file(path);
    as_value(data, size < 300 ? size : 300);
    return 0;
}
