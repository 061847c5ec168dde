/* SPDX-License-Identifier: Apache-2.0 */
/*
 * folder.h - checkpoint folders that a test makes for itself, right or wrong.
 *
 * A file is described as a text of its header and a number of data bytes, so
 * a test can lie about anything; or as a list of tensors, from which a valid
 * file is made.
 */
#ifndef MOE_TESTS_CHECKPOINT_FOLDER_H
#define MOE_TESTS_CHECKPOINT_FOLDER_H

#include <dirent.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"

#include "tap.h"

#define UNUSED __attribute__((__unused__))

/* A new empty folder below TMPDIR; its path lives until the next sixteen. */
UNUSED static const char *
new_dir(void)
{
    static char dirs[16][256];
    static int  i;
    const char *tmp = getenv("TMPDIR");
    char       *d = dirs[i++ % 16];

    snprintf(d, sizeof(dirs[0]), "%s/moe-test-XXXXXX",
             tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
    if (mkdtemp(d) == NULL) {
        printf("Bail out! no temporary folder\n");
        exit(1);
    }
    return d;
}

UNUSED static const char *
in_dir(const char *dir, const char *name)
{
    static char paths[4][4096];
    static int  i;

    i = (i + 1) % 4;
    snprintf(paths[i], sizeof(paths[i]), "%s/%s", dir, name);
    return paths[i];
}

/* Names in a folder but . and .. */
UNUSED static int
dir_entries(const char *dir)
{
    DIR           *d = opendir(dir);
    struct dirent *e;
    int            n = 0;

    while (d != NULL && (e = readdir(d)) != NULL)
        n += e->d_name[0] != '.';
    if (d != NULL)
        closedir(d);
    return n;
}

UNUSED static void
drop_dir(const char *dir)
{
    DIR           *d = opendir(dir);
    struct dirent *e;

    if (d != NULL) {
        while ((e = readdir(d)) != NULL)
            if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
                unlinkat(dirfd(d), e->d_name, 0);
        closedir(d);
    }
    rmdir(dir);
}

UNUSED static void
put_file(const char *dir, const char *name, const void *data, size_t len)
{
    FILE *f = fopen(in_dir(dir, name), "wbe");

    if (f == NULL || fwrite(data, 1, len, f) != len || fclose(f) != 0) {
        printf("Bail out! cannot write %s/%s\n", dir, name);
        exit(1);
    }
}

UNUSED static void
put_text(const char *dir, const char *name, const char *text)
{
    put_file(dir, name, text, strlen(text));
}

/* A safetensors file whose header is `header`, said to be `said` bytes long
 * (0: as it is), with `data` bytes i % 251 behind it. */
UNUSED static void
put_raw(const char *dir, const char *name, const char *header, uint64_t said,
        size_t data)
{
    size_t         n = strlen(header), i;
    unsigned char *buf = malloc(8 + n + data);

    if (said == 0)
        said = n;
    for (i = 0; i < 8; i++)
        buf[i] = (unsigned char) (said >> 8 * i);
    memcpy(buf + 8, header, n);
    for (i = 0; i < data; i++)
        buf[8 + n + i] = (unsigned char) (i % 251);
    put_file(dir, name, buf, 8 + n + data);
    free(buf);
}

/* The same, with the header padded to a multiple of eight. */
UNUSED static void
put_header(const char *dir, const char *name, const char *header, size_t data)
{
    size_t n = strlen(header), m = (n + 7) / 8 * 8;
    char  *padded = malloc(m + 1);

    memset(padded, ' ', m);
    memcpy(padded, header, n);
    padded[m] = '\0';
    put_raw(dir, name, padded, 0, data);
    free(padded);
}

struct made {
    const char *name, *dtype;
    uint64_t    dim[4];
    uint32_t    n_dims;
    const void *data; /* NULL: zeros */
};

UNUSED static size_t
made_bytes(const struct made *t)
{
    size_t   n = strchr(t->dtype, '3') != NULL
                     && strncmp(t->dtype, "F8", 2) != 0 ? 4
               : strncmp(t->dtype, "I64", 3) == 0       ? 8
               : strstr(t->dtype, "16") != NULL         ? 2
                                                        : 1;
    uint32_t i;

    for (i = 0; i < t->n_dims; i++)
        n *= (size_t) t->dim[i];
    return n;
}

/* A valid file of these tensors, in this order. */
UNUSED static void
put_tensors(const char *dir, const char *name, const struct made *t, size_t n)
{
    size_t   len = 2, bytes = 0, i, h;
    uint32_t d;
    char    *text = malloc(256 + n * 512);
    FILE    *f;
    unsigned char head[8];

    h = (size_t) sprintf(text, "{");
    for (i = 0; i < n; i++) {
        h += (size_t) sprintf(text + h, "%s\"%s\":{\"dtype\":\"%s\","
                                        "\"shape\":[",
                              i > 0 ? "," : "", t[i].name, t[i].dtype);
        for (d = 0; d < t[i].n_dims; d++)
            h += (size_t) sprintf(text + h, "%s%llu", d > 0 ? "," : "",
                                  (unsigned long long) t[i].dim[d]);
        len = made_bytes(&t[i]);
        h += (size_t) sprintf(text + h, "],\"data_offsets\":[%zu,%zu]}",
                              bytes, bytes + len);
        bytes += len;
    }
    h += (size_t) sprintf(text + h, "}");
    while (h % 8 != 0)
        text[h++] = ' ';
    for (i = 0; i < 8; i++)
        head[i] = (unsigned char) ((uint64_t) h >> 8 * i);
    f = fopen(in_dir(dir, name), "wbe");
    if (f == NULL || fwrite(head, 1, 8, f) != 8 || fwrite(text, 1, h, f) != h)
        abort();
    for (i = 0; i < n; i++) {
        len = made_bytes(&t[i]);
        if (t[i].data != NULL) {
            if (len > 0 && fwrite(t[i].data, 1, len, f) != len)
                abort();
        } else {
            while (len-- > 0)
                fputc(0, f);
        }
    }
    if (fclose(f) != 0)
        abort();
    free(text);
}

/* A status is MOE_OK; prints the error when it is not. */
UNUSED static int
is_ok(moe_status st, const struct moe_error *err)
{
    if (ok(st == MOE_OK, "status is OK"))
        return 1;
    printf("# %d: %s\n", (int) st, err->text);
    return 0;
}

/* Opens dir: the status, and *err set.  Closes it again. */
UNUSED static moe_status
open_status(const char *dir, struct moe_error *err)
{
    struct moe_checkpoint *c = NULL;
    moe_status             st;

    memset(err, 0, sizeof(*err));
    err->struct_size = sizeof(*err);
    st = moe_checkpoint_open(dir, &c, err);
    moe_checkpoint_close(c);
    return st;
}

/* The folder is refused with this status, and the one line says both. */
UNUSED static void
refused(const char *dir, moe_status want, const char *file,
        const char *thing, const char *what)
{
    struct moe_error err;

    is_int(open_status(dir, &err), want, "%s: status", what);
    has_str(err.text, file, "%s: names the file", what);
    has_str(err.text, thing, "%s: names the thing", what);
    ok(strchr(err.text, '\n') == NULL, "%s: one line", what);
}

#endif /* MOE_TESTS_CHECKPOINT_FOLDER_H */
