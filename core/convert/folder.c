/* SPDX-License-Identifier: Apache-2.0 */
/*
 * folder.c - a new checkpoint folder appears whole or not at all.
 *
 * Owns the partial folder beside the final place, its lock and its removal.
 * A process that is killed cannot clean up, so the next one does: a partial
 * folder whose process is gone and whose lock nobody holds is removed.  The
 * lock counts too because the process may live in another container, where
 * its number means something else.
 */

#include <convert/convert.h>

#include <checkpoint/json.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SMALL_FILE (64u << 20) /* the largest tokenizers take half of it */

static moe_status
no_memory(struct moe_error *err)
{
    return moe_fail(err, MOE_E_NOMEM, ENOMEM, "quantize: no memory");
}

/* The folder that holds path; "." if it has none.  The caller frees it. */
static char *
parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return strdup(".");
    if (slash == path)
        return strdup("/");
    return strndup(path, (size_t) (slash - path));
}

/* Removes a folder of plain files; what else is in it stays, and it with
 * that. */
static void
remove_flat(const char *dir)
{
    DIR           *d = opendir(dir);
    struct dirent *e;

    if (d != NULL) {
        while ((e = readdir(d)) != NULL)
            if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
                (void) unlinkat(dirfd(d), e->d_name, 0);
        closedir(d);
    }
    (void) rmdir(dir);
}

/* BASE.partial-123: the process's number, else 0. */
static long
partial_pid(const char *name, const char *base)
{
    static const char mark[] = ".partial-";
    size_t            n = strlen(base);
    const char       *p;
    long              pid;

    if (strncmp(name, base, n) != 0
        || strncmp(name + n, mark, sizeof(mark) - 1) != 0)
        return 0;
    p = name + n + sizeof(mark) - 1;
    if (!isdigit((unsigned char) *p) || strlen(p) > 10)
        return 0;
    for (pid = 0; isdigit((unsigned char) *p); p++)
        pid = pid * 10 + (*p - '0');
    return *p == '\0' ? pid : 0;
}

static void
remove_orphans(const char *out)
{
    char          *parent = parent_of(out);
    const char    *base = strrchr(out, '/');
    DIR           *d = parent != NULL ? opendir(parent) : NULL;
    struct dirent *e;

    base = base != NULL ? base + 1 : out;
    while (d != NULL && (e = readdir(d)) != NULL) {
        long  pid = partial_pid(e->d_name, base);
        char *path;
        int   fd;

        if (pid == 0
            || (pid != (long) getpid()
                && (kill((pid_t) pid, 0) == 0 || errno != ESRCH)))
            continue;
        path = malloc(strlen(parent) + strlen(e->d_name) + 2);
        if (path == NULL)
            break;
        sprintf(path, "%s/%s", parent, e->d_name);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) {
            if (flock(fd, LOCK_EX | LOCK_NB) == 0)
                remove_flat(path);
            close(fd);
        }
        free(path);
    }
    if (d != NULL)
        closedir(d);
    free(parent);
}

moe_status
moe_folder_open(const char *out, struct moe_folder *f, struct moe_error *err)
{
    char        shown[MOE_SHOW_PATH_MAX + 4];
    struct stat st;
    size_t      n = strlen(out);
    moe_status  status;

    memset(f, 0, sizeof(*f));
    f->lock = -1;
    while (n > 1 && out[n - 1] == '/')
        n--;
    f->out = strndup(out, n);
    f->partial = malloc(n + 32);
    if (f->out == NULL || f->partial == NULL) {
        status = no_memory(err);
        goto fail;
    }
    moe_show_path(f->out, shown);
    if (n == 0) {
        status = moe_fail(err, MOE_E_INVAL, 0,
                          "quantize: the folder to write is missing");
        goto fail;
    }
    if (lstat(f->out, &st) == 0) {
        status = moe_fail(err, MOE_E_INVAL, EEXIST,
                          "%s: exists already: remove it or give another "
                          "name", shown);
        goto fail;
    }
    remove_orphans(f->out);
    sprintf(f->partial, "%s.partial-%ld", f->out, (long) getpid());
    if (mkdir(f->partial, 0777) != 0) {
        status = moe_fail(err, MOE_E_IO, errno, "%s: cannot make folder: %s",
                          moe_show_path(f->partial, shown), strerror(errno));
        goto fail;
    }
    f->lock = open(f->partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->lock < 0) {
        status = moe_fail(err, MOE_E_IO, errno, "%s: %s",
                          moe_show_path(f->partial, shown), strerror(errno));
        (void) rmdir(f->partial);
        goto fail;
    }
    (void) flock(f->lock, LOCK_EX | LOCK_NB);
    return MOE_OK;
fail:
    free(f->out);
    free(f->partial);
    memset(f, 0, sizeof(*f));
    f->lock = -1;
    return status;
}

static void
forget(struct moe_folder *f)
{
    if (f->lock >= 0)
        close(f->lock);
    free(f->out);
    free(f->partial);
    memset(f, 0, sizeof(*f));
    f->lock = -1;
}

void
moe_folder_abandon(struct moe_folder *f)
{
    if (f->lock >= 0)
        remove_flat(f->partial);
    forget(f);
}

/* rename(2) that does not replace even an empty folder. */
static int
rename_new(const char *from, const char *to)
{
    struct stat st;

    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (lstat(to, &st) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

moe_status
moe_folder_commit(struct moe_folder *f, struct moe_error *err)
{
    char       shown[MOE_SHOW_PATH_MAX + 4];
    char      *parent;
    int        fd;
    moe_status status = MOE_OK;

    moe_show_path(f->out, shown);
    if (fsync(f->lock) != 0 && errno != EINVAL)
        status = moe_fail(err, MOE_E_IO, errno, "%s: %s", shown,
                          strerror(errno));
    if (status == MOE_OK && rename_new(f->partial, f->out) != 0)
        status = moe_fail(err, MOE_E_IO, errno, "%s: cannot rename to it: %s",
                          shown, strerror(errno));
    if (status != MOE_OK) {
        moe_folder_abandon(f);
        return status;
    }
    /* the name itself; without it a crash loses the folder, not its bytes */
    parent = parent_of(f->out);
    fd = parent != NULL ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                        : -1;
    if (fd >= 0) {
        (void) fsync(fd);
        close(fd);
    }
    free(parent);
    forget(f);
    return MOE_OK;
}

moe_status
moe_folder_space(const char *out, uint64_t bytes, struct moe_error *err)
{
    char           shown[MOE_SHOW_PATH_MAX + 4];
    char          *parent = parent_of(out);
    struct statvfs v;
    uint64_t       free_bytes;
    moe_status     status = MOE_OK;

    if (parent == NULL)
        return no_memory(err);
    moe_show_path(parent, shown);
    if (statvfs(parent, &v) != 0) {
        status = moe_fail(err, errno == ENOENT ? MOE_E_NOT_FOUND : MOE_E_IO,
                          errno, "%s: %s", shown, strerror(errno));
    } else {
        free_bytes = (uint64_t) v.f_bavail * v.f_frsize;
        if (free_bytes < bytes)
            status = moe_fail(err, MOE_E_IO, ENOSPC,
                              "%s: %llu bytes are needed, %llu are free",
                              shown, (unsigned long long) bytes,
                              (unsigned long long) free_bytes);
    }
    free(parent);
    return status;
}

/* ---------------------------------------------------------- small files -- */

static int
ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

/* Is this a file that goes with the weights?  Weights in any form do not. */
static int
is_small(const char *name)
{
    static const char *const weights[] = {
        ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack",
        ".onnx", ".npz", ".ckpt",
    };
    size_t i;

    if (name[0] == '.' || strcmp(name, "config.json") == 0
        || ends_with(name, ".index.json"))
        return 0;
    for (i = 0; i < sizeof(weights) / sizeof(weights[0]); i++)
        if (ends_with(name, weights[i]))
            return 0;
    return 1;
}

/* fn for each of them: name, open file, size.  Stops at a failure. */
static moe_status
each_small(const char *in, const struct moe_folder *f,
           moe_status (*fn)(const struct moe_folder *f, const char *name,
                            int fd, uint64_t bytes, uint64_t *sum,
                            struct moe_error *err),
           uint64_t *sum, struct moe_error *err)
{
    char           shown[MOE_SHOW_PATH_MAX + 4];
    DIR           *d = opendir(in);
    struct dirent *e;
    struct stat    st;
    moe_status     status = MOE_OK;

    if (d == NULL)
        return moe_fail(err, MOE_E_IO, errno, "%s: %s",
                        moe_show_path(in, shown), strerror(errno));
    while (status == MOE_OK && (e = readdir(d)) != NULL) {
        int fd;

        if (!is_small(e->d_name))
            continue;
        fd = openat(dirfd(d), e->d_name,
                    O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            continue;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)
            && (uint64_t) st.st_size <= SMALL_FILE)
            status = fn(f, e->d_name, fd, (uint64_t) st.st_size, sum, err);
        close(fd);
    }
    closedir(d);
    return status;
}

static moe_status
add_size(const struct moe_folder *f, const char *name, int fd, uint64_t bytes,
         uint64_t *sum, struct moe_error *err)
{
    (void) f;
    (void) name;
    (void) fd;
    (void) err;
    *sum += bytes;
    return MOE_OK;
}

static moe_status
copy_one(const struct moe_folder *f, const char *name, int fd, uint64_t bytes,
         uint64_t *sum, struct moe_error *err)
{
    char       shown[MOE_SHOW_PATH_MAX + 4];
    char      *path = malloc(strlen(f->partial) + strlen(name) + 2);
    char      *text = malloc((size_t) bytes + 1);
    size_t     got = 0;
    moe_status status = MOE_OK;

    (void) sum;
    if (path == NULL || text == NULL) {
        status = no_memory(err);
        goto out;
    }
    while (got < bytes) {
        ssize_t r = pread(fd, text + got, (size_t) bytes - got, (off_t) got);

        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            status = moe_fail(err, MOE_E_IO, errno, "%s: read error: %s",
                              moe_show_path(name, shown), strerror(errno));
            goto out;
        }
        if (r == 0)
            break;
        got += (size_t) r;
    }
    sprintf(path, "%s/%s", f->partial, name);
    status = moe_file_write(path, text, got, err);
out:
    free(path);
    free(text);
    return status;
}

uint64_t
moe_folder_small_bytes(const char *in)
{
    uint64_t sum = 0;

    (void) each_small(in, NULL, add_size, &sum, NULL);
    return sum;
}

moe_status
moe_folder_copy_small(const char *in, const struct moe_folder *f,
                      struct moe_error *err)
{
    return each_small(in, f, copy_one, NULL, err);
}
