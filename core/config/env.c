/* SPDX-License-Identifier: Apache-2.0 */
/*
 * env.c - options from the system: the files in their usual places and the
 * MOE_* variables.
 *
 * A variable that begins with MOE_ and is not ours is an error, because a
 * misspelt one would otherwise be ignored in silence.  MOE_TEST_* belongs to
 * the tests.  A program with raised privileges sees none of them.
 */
#include "config/store.h"
#include "support/near.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#ifndef MOE_SYSCONFDIR
#    define MOE_SYSCONFDIR "/usr/local/etc"
#endif

/* "CTX_SIZE": the row that --ctx-size sets; -1: none. */
static long
row_of_spelling(const char *name)
{
    char   flag[64] = "--";
    size_t i;

    for (i = 0; name[i] != '\0' && i + 3 < sizeof(flag); i++)
        flag[i + 2] = name[i] == '_' ? '-'
                      : name[i] >= 'A' && name[i] <= 'Z'
                          ? (char) (name[i] - 'A' + 'a')
                          : name[i];
    flag[i + 2] = '\0';
    return moe_row_by_flag(flag);
}

moe_status
moe_env_load(moe_options *o, char *const *environment, struct moe_error *err)
{
    size_t i, j;

    for (i = 0; environment != NULL && environment[i] != NULL; i++) {
        const char        *entry = environment[i];
        const char        *equals = strchr(entry, '=');
        struct moe_nearest near;
        char               name[64];
        size_t             len;
        moe_status         status;
        long               row;

        if (strncmp(entry, "MOE_", 4) != 0 || equals == NULL
            || strncmp(entry, "MOE_TEST_", 9) == 0)
            continue;
        len = (size_t) (equals - entry);
        snprintf(name, sizeof(name), "%.*s", (int) (len < 60 ? len : 60),
                 entry);
        row = moe_row_by_env(name);
        if (row >= 0) {
            if (equals[1] == '\0') /* as if it were not set */
                continue;
            status = moe_options_put(o, moe_option_rows[row].key, equals + 1,
                                     MOE_RANK(MOE_FROM_ENV, 0), name, name,
                                     err);
            if (status != MOE_OK)
                return status;
            continue;
        }
        row = row_of_spelling(name + 4);
        if (row >= 0)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "environment: there is no variable %s; did you "
                            "mean %s?",
                            name, moe_option_rows[row].env);
        /* without "MOE_", which would make short names look alike */
        near = (struct moe_nearest){ name + 4, NULL, 0 };
        for (j = 0; j < moe_option_row_count; j++)
            moe_nearest_try(&near, moe_option_rows[j].env + 4);
        if (near.best != NULL)
            return moe_fail(err, MOE_E_INVAL, 0,
                            "environment: there is no variable %s; did you "
                            "mean MOE_%s?",
                            name, near.best);
        return moe_fail(err, MOE_E_INVAL, 0,
                        "environment: there is no variable %s; unset it, "
                        "'moe-run config' lists those that exist",
                        name);
    }
    return MOE_OK;
}

static int
is_ini(const struct dirent *d)
{
    size_t len = strlen(d->d_name);

    return d->d_name[0] != '.' && len > 4
           && strcmp(d->d_name + len - 4, ".ini") == 0;
}

/* In the order of bytes, whatever the locale. */
static int
by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static moe_status
load_folder(moe_options *o, const char *folder, struct moe_error *err)
{
    struct dirent **names;
    int             n = scandir(folder, &names, is_ini, by_name), i;
    moe_status      status = MOE_OK;

    if (n < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return MOE_OK;
        return moe_fail(err, MOE_E_IO, errno, "%s: cannot be listed: %s",
                        folder, strerror(errno));
    }
    for (i = 0; i < n; i++) {
        char path[PATH_MAX];
        int  len = snprintf(path, sizeof(path), "%s/%s", folder,
                            names[i]->d_name);

        if (status == MOE_OK && len > 0 && (size_t) len < sizeof(path))
            status = moe_ini_load(o, path,
                                  MOE_RANK(MOE_FROM_FILE, MOE_FILE_CONFD), 0,
                                  err);
        free(names[i]);
    }
    free(names);
    return status;
}

/* The user's moe.ini; nonzero if there is a place for one. */
static int
user_file(char *path, size_t size)
{
    const char *base = secure_getenv("XDG_CONFIG_HOME");
    const char *home = secure_getenv("HOME");
    int         n = -1;

    /* the XDG specification: a relative one is to be ignored */
    if (base != NULL && base[0] == '/')
        n = snprintf(path, size, "%s/moe-run/moe.ini", base);
    else if (home != NULL && home[0] == '/')
        n = snprintf(path, size, "%s/.config/moe-run/moe.ini", home);
    return n > 0 && (size_t) n < size;
}

moe_status
moe_options_load_defaults(moe_options *o, struct moe_error *err)
{
    char       path[PATH_MAX];
    moe_status status;

    status = moe_ini_load(o, MOE_SYSCONFDIR "/moe-run/moe.ini",
                          MOE_RANK(MOE_FROM_FILE, MOE_FILE_SYSTEM), 1, err);
    if (status == MOE_OK)
        status = load_folder(o, MOE_SYSCONFDIR "/moe-run/conf.d", err);
    if (status == MOE_OK && user_file(path, sizeof(path)))
        status = moe_ini_load(
            o, path, MOE_RANK(MOE_FROM_FILE, MOE_FILE_USER), 1, err);
    if (status == MOE_OK && getauxval(AT_SECURE) == 0)
        status = moe_env_load(o, environ, err);
    return status;
}
