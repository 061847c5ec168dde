/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokfile.c - a tokenizer from a path.
 *
 * Owns finding and reading the file, and saying what to do about a folder
 * that has another program's tokenizer.  Leaves its bytes to tokload.c.
 */
#include "text/tok_int.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE ((uint64_t) 1 << 30) /* as tokload.c */

/* A path for a message; its end matters more than its start. */
static const char *
show_path(const char *path, char *buf)
{
    size_t n = strlen(path), cut = 0;

    if (n > MOE_TOK_SHOW - 8) {
        cut = n - (MOE_TOK_SHOW - 8);
        while (((uint8_t) path[cut] & 0xc0) == 0x80)
            cut++;
        memcpy(buf, "...", 3);
        moe_tok_show(path + cut, n - cut, buf + 3);
        return buf;
    }
    return moe_tok_show(path, n, buf);
}

static moe_status
read_file(const char *path, const char *shown, char **data, size_t *len,
          struct moe_error *err)
{
    struct stat st;
    size_t      n = 0;
    /* a FIFO in the folder must not hang us */
    int         fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    moe_status  s = MOE_OK;

    *data = NULL;
    if (fd < 0 || fstat(fd, &st) != 0) {
        s = moe_fail(err, errno == ENOENT || errno == ENOTDIR
                              ? MOE_E_NOT_FOUND : MOE_E_IO, errno,
                     "%s: %s; give the model's folder", shown,
                     strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode) || (uint64_t) st.st_size > MAX_FILE) {
        s = moe_fail(err, MOE_E_CORRUPT, 0,
                     "%s: not a file, or larger than any tokenizer; fetch "
                     "the file again", shown);
        goto out;
    }
    *data = malloc((size_t) st.st_size + 1);
    if (*data == NULL) {
        s = moe_fail(err, MOE_E_NOMEM, 0, "%s: out of memory", shown);
        goto out;
    }
    while (n < (size_t) st.st_size) {
        ssize_t k = read(fd, *data + n, (size_t) st.st_size - n);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            s = moe_fail(err, MOE_E_IO, errno, "%s: %s; check the disk",
                         shown, strerror(errno));
            goto out;
        }
        if (k == 0)
            break;
        n += (size_t) k;
    }
    *len = n;
out:
    if (fd >= 0)
        close(fd);
    return s;
}

moe_status
moe_tokenizer_open(const char *path, struct moe_tokenizer **out,
                   struct moe_error *err)
{
    static const char *const others[] = {"tokenizer.model", "tekken.json",
                                         "tiktoken.model", "vocab.json"};
    char        file[4096], other[4096], *data;
    char        shown[MOE_TOK_SHOW + 8];
    const char *slash;
    struct stat st;
    size_t      len = 0;
    moe_status  s;

    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        s = snprintf(file, sizeof(file), "%s/tokenizer.json", path)
            < (int) sizeof(file) ? MOE_OK : MOE_E_INVAL;
    else
        s = snprintf(file, sizeof(file), "%s", path) < (int) sizeof(file)
            ? MOE_OK : MOE_E_INVAL;
    if (s != MOE_OK)
        return moe_fail(err, s, 0, "tokenizer: a path of more than %zu bytes",
                        sizeof(file) - 1);
    if (stat(file, &st) != 0 && errno == ENOENT) {
        slash = strrchr(file, '/');
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
            int n = snprintf(other, sizeof(other), "%.*s%s",
                             slash != NULL ? (int) (slash + 1 - file) : 0,
                             file, others[i]);

            if (n < (int) sizeof(other) && stat(other, &st) == 0)
                return moe_fail(err, MOE_E_UNSUPPORTED, 0,
                                "%s: moe-run reads tokenizer.json, and the "
                                "folder has only this; load and save the "
                                "tokenizer with transformers' AutoTokenizer "
                                "to make one", show_path(other, shown));
        }
    }
    show_path(file, shown);
    s = read_file(file, shown, &data, &len, err);
    if (s == MOE_OK)
        s = moe_tokenizer_parse(data, len, shown, 0, out, err);
    free(data);
    if (s == MOE_OK)
        (void) malloc_trim(0); /* the file's bytes back to the system */
    return s;
}
