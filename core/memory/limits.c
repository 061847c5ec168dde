/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.c - what the system lets this process have, and what it holds.
 *
 * Owns the reading of /proc and of control groups; what to do with the
 * figures is the engine's matter.
 */
#include "memory/limits.h"

#include <stdlib.h>
#include <string.h>

/* The number after `key` in a file of "key  number [kB]" lines, in units of
 * the file; 0 if it is not there. */
static int
moe_limits_field(const char *path, const char *key, uint64_t *out)
{
    char   line[256];
    size_t len = strlen(key);
    int    found = 0;
    FILE  *f = fopen(path, "re");

    if (f == NULL)
        return 0;
    while (!found && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, key, len) == 0) {
            *out = strtoull(line + len, NULL, 10);
            found = 1;
        }
    fclose(f);
    return found;
}

/* A file that holds one number; "max" and what cannot be read: no limit. */
static int
moe_limits_number(const char *path, uint64_t *out)
{
    char  text[64] = "";
    char *end;
    FILE *f = fopen(path, "re");

    if (f == NULL)
        return 0;
    if (fgets(text, sizeof(text), f) == NULL)
        text[0] = '\0';
    fclose(f);
    *out = strtoull(text, &end, 10);
    return end != text;
}

/* One group and its parents, up to the mount point. */
static void
moe_limits_group(const char *mount, char *group, const char *limit_file,
                 const char *used_file, const char *cache_key,
                 struct moe_limits *m)
{
    char path[4096 + 128];

    for (;;) {
        char    *slash;
        uint64_t limit, used = 0, cache = 0;

        snprintf(path, sizeof(path), "%s%s/%s", mount, group, limit_file);
        if (moe_limits_number(path, &limit) && limit < m->cgroup) {
            snprintf(path, sizeof(path), "%s%s/%s", mount, group, used_file);
            (void) moe_limits_number(path, &used);
            snprintf(path, sizeof(path), "%s%s/memory.stat", mount, group);
            (void) moe_limits_field(path, cache_key, &cache);
            m->cgroup = limit;
            m->cgroup_used = used > cache ? used - cache : 0;
        }
        slash = strrchr(group, '/');
        if (slash == NULL)
            break;
        *slash = '\0';
    }
}

void
moe_limits_read(struct moe_limits *out)
{
    char     line[4096];
    uint64_t v;
    FILE    *f;

    memset(out, 0, sizeof(*out));
    out->available = UINT64_MAX;
    out->cgroup = UINT64_MAX;
    if (moe_limits_field("/proc/self/status", "VmRSS:", &v))
        out->rss = v * 1024;
    if (moe_limits_field("/proc/self/status", "VmHWM:", &v))
        out->rss_peak = v * 1024;
    if (moe_limits_field("/proc/meminfo", "MemAvailable:", &v))
        out->available = v * 1024;

    f = fopen("/proc/self/cgroup", "re");
    if (f == NULL)
        return;
    while (fgets(line, sizeof(line), f) != NULL) {
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;

        if (group == NULL)
            continue;
        *group++ = '\0';
        controllers++;
        group[strcspn(group, "\n")] = '\0';
        if (strcmp(group, "/") == 0)
            *group = '\0';
        if (*controllers == '\0')
            moe_limits_group("/sys/fs/cgroup", group, "memory.max",
                             "memory.current", "file ", out);
        else if (strstr(controllers, "memory") != NULL)
            moe_limits_group("/sys/fs/cgroup/memory", group,
                             "memory.limit_in_bytes", "memory.usage_in_bytes",
                             "total_cache ", out);
    }
    fclose(f);
}

uint64_t
moe_limits_budget(const struct moe_limits *m, uint64_t asked, const char **why)
{
    uint64_t best = UINT64_MAX;

    *why = "no limit";
    if (m->available != UINT64_MAX) {
        best = m->available + m->rss;
        *why = "free memory";
    }
    if (m->cgroup != UINT64_MAX) {
        uint64_t others = m->cgroup_used > m->rss ? m->cgroup_used - m->rss : 0;
        uint64_t left = m->cgroup > others ? m->cgroup - others : 0;

        if (left < best) {
            best = left;
            *why = "control group";
        }
    }
    if (asked != 0 && asked < best) {
        best = asked;
        *why = "memory.budget";
    }
    return best;
}
