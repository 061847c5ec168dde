/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.c - where the facts of models and devices lie, and their names.
 *
 * Installed they are below the package's data folder.  MOE_TEST_FACTS names
 * another folder, with the layout of conf/ in the source tree, for tests
 * that run before an installation.
 */
#include "plan/shape.h"
#include "support/near.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef MOE_PKGDATADIR
#    define MOE_PKGDATADIR "/usr/local/share/moe-run"
#endif
#define NAMES_MAX 512u /* of one kind */

struct names {
    char   word[NAMES_MAX][48];
    size_t n;
};

static const char *
suffix_of(const char *kind)
{
    return strcmp(kind, "models") == 0 ? ".json" : ".ini";
}

static void
folder_of(const char *kind, char *buf, size_t size)
{
    const char *test = secure_getenv("MOE_TEST_FACTS");

    if (test != NULL && test[0] != '\0')
        snprintf(buf, size, "%s/%s", test,
                 strcmp(kind, "models") == 0 ? "model" : kind);
    else
        snprintf(buf, size, "%s/%s", MOE_PKGDATADIR, kind);
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void
list(const char *kind, struct names *out)
{
    const char    *suffix = suffix_of(kind);
    char           dir[4096];
    struct dirent *e;
    DIR           *d;

    out->n = 0;
    folder_of(kind, dir, sizeof(dir));
    d = opendir(dir);
    if (d == NULL)
        return;
    while ((e = readdir(d)) != NULL && out->n < NAMES_MAX) {
        size_t len = strlen(e->d_name), tail = strlen(suffix);

        if (len <= tail || len - tail >= sizeof(out->word[0])
            || e->d_name[0] == '.'
            || strcmp(e->d_name + len - tail, suffix) != 0)
            continue;
        memcpy(out->word[out->n], e->d_name, len - tail);
        out->word[out->n++][len - tail] = '\0';
    }
    closedir(d);
    qsort(out->word, out->n, sizeof(out->word[0]), by_name);
}

int
moe_facts_at(const char *kind, size_t i, char *buf, size_t size)
{
    struct names *all = malloc(sizeof(*all));
    int           have = 0;

    if (all == NULL)
        return 0;
    list(kind, all);
    if (i < all->n) {
        snprintf(buf, size, "%s", all->word[i]);
        have = 1;
    }
    free(all);
    return have;
}

moe_status
moe_facts_find(const char *kind, const char *name, char *path, size_t size,
               struct moe_error *err)
{
    const char   *what = strcmp(kind, "models") == 0 ? "model" : "device";
    const char   *flag = strcmp(kind, "models") == 0 ? "--models"
                                                     : "--devices";
    struct names *all = malloc(sizeof(*all));
    char          dir[4096], shown[MOE_SHOW_MAX + 4], near[200], *words;
    char          lower[64];
    size_t        i, hits = 0, hit = 0, len = strlen(name);
    moe_status    status = MOE_OK;

    words = malloc(NAMES_MAX * sizeof(all->word[0]) + 1);
    if (all == NULL || words == NULL) {
        free(all);
        free(words);
        return moe_fail(err, MOE_E_NOMEM, 0, "no memory for a list of names");
    }
    list(kind, all);
    folder_of(kind, dir, sizeof(dir));
    for (i = 0; i < all->n; i++)
        if (strcmp(all->word[i], name) == 0)
            break;
    words[0] = '\0';
    if (i == all->n)
        for (i = 0; i < all->n; i++) {
            size_t at = strlen(words);

            if (len > 1 && strncmp(all->word[i], name, len) == 0) {
                hits++;
                hit = i;
            }
            snprintf(words + at, sizeof(all->word[0]), "%s ", all->word[i]);
        }
    if (i == all->n && hits == 1)
        i = hit;
    if (i < all->n) {
        snprintf(path, size, "%s/%s%s", dir, all->word[i], suffix_of(kind));
    } else if (all->n == 0) {
        status = moe_fail(err, MOE_E_NOT_FOUND, 0,
                          "no %s is known by name: %.300s is missing", what,
                          dir);
    } else {
        /* all names are in small letters */
        for (i = 0; i < sizeof(lower) - 1 && name[i] != '\0'; i++)
            lower[i] = name[i] >= 'A' && name[i] <= 'Z'
                           ? (char) (name[i] - 'A' + 'a') : name[i];
        lower[i] = '\0';
        moe_words_near(lower, words, near, sizeof(near));
        status = moe_fail(err, MOE_E_NOT_FOUND, 0,
                          "there is no %s '%s'%s%s; moe-run plan %s lists "
                          "them", what, moe_show(name, shown),
                          near[0] == '\0' ? ""
                          : hits > 1      ? ": several begin so: "
                                          : "; did you mean ",
                          near, flag);
    }
    free(all);
    free(words);
    return status;
}
